//! Seeds that once broke an invariant. Each cause has a test of its own in `protocol`.
//!
//! What a seed does changes with the protocol, so that one that holds proves little by itself; but it
//! is cheap to go on trying those that once were unlucky.

use memberlist_simulator::explore::{Scenario, run};
use memberlist_simulator::parallel::{Stop, default_jobs, map};

fn all_hold(seeds: &[u64]) {
    let hold = |&seed: &u64| (seed, run(&Scenario::new(seed), false).violation);
    let outcomes = map(default_jobs(), seeds, &Stop::default(), hold, |_| {});
    assert_eq!(outcomes.len(), seeds.len());
    for (seed, violation) in outcomes.into_iter().flatten() {
        assert_eq!(violation, None, "seed {seed}");
    }
}

/// A process that was started again left before it had heard of its earlier life, and nobody took
/// note of its farewell.
#[test]
fn a_farewell_below_the_incarnation_of_an_earlier_life() {
    all_hold(&[1099, 11553, 11782, 13102, 13617, 14633, 18198, 19667]);
}

/// A process that had left declared members dead whose refutations it could not hear, or still had
/// old verdicts to tell when others found it again.
#[test]
fn verdicts_of_a_member_that_has_left() {
    all_hold(&[2118, 6000, 8203, 9808, 10839, 13970, 17436]);
}

/// A process that came back brought members with it that all others had forgotten long ago.
#[test]
fn a_member_that_comes_back_raises_no_dead() {
    all_hold(&[13992, 17654]);
}

/// Somebody who was cut off remembered the farewell of a member's earlier life elsewhere.
#[test]
fn a_farewell_of_an_earlier_life_elsewhere() {
    all_hold(&[14807]);
}

/// Found together with the others; by the time those were understood, these held.
#[test]
fn more_of_leaving_and_coming_back() {
    all_hold(&[
        322, 1039, 2606, 2975, 3023, 3272, 3515, 4001, 7763, 7833, 8838, 9079, 9179, 10735, 12392,
        12487, 12641, 14281, 14294, 14311, 15205, 16461, 18691, 19328,
    ]);
}
