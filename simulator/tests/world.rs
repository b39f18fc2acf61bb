//! The world itself: a seed replays a run, and the faults do what they say.

use std::time::Duration;

use memberlist_protocol::{Config, NodeState, Stats};
use memberlist_simulator::network::{LinkModel, Network, ProcessId};
use memberlist_simulator::{Pause, World};

const MS: Duration = Duration::from_millis(1);

fn cluster(n: ProcessId, seed: u64, loss: f64) -> World {
    let mut world = World::new(seed, Network::new(LinkModel::perfect(MS).with_loss(loss)), ());
    for _ in 0..n {
        world.add(Config::lan());
    }
    for id in 1..n {
        world.join(id, 0);
    }
    world
}

fn all_see(world: &World, subject: ProcessId, state: NodeState) -> bool {
    let name = world.process(subject).name.clone();
    let others = world.processes().iter().filter(|process| process.id != subject);
    others
        .filter_map(|process| process.machine())
        .all(|machine| machine.member(name.as_str()).is_some_and(|member| member.state == state))
}

fn agreed(world: &World) -> bool {
    let up = world.processes().iter().filter(|process| process.is_up()).count();
    world.processes().iter().filter_map(|p| p.machine()).all(|m| m.live_members() == up)
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_does_not() {
    let digest = |seed| {
        let mut world = cluster(20, seed, 0.2);
        world.run_for(Duration::from_secs(30));
        world.crash(7);
        world.run_for(Duration::from_secs(30));
        world.trace().digest()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn a_crash_is_found_and_a_restart_is_seen() {
    let mut world = cluster(16, 3, 0.0);
    assert!(world.run_until_holds(Duration::from_secs(60), 10 * MS, agreed).is_some());
    world.crash(5);
    let dead = |world: &World| all_see(world, 5, NodeState::Dead);
    assert!(world.run_until_holds(Duration::from_secs(90), 10 * MS, dead).is_some());
    world.restart(5, false);
    world.join(5, 0);
    let back = |world: &World| all_see(world, 5, NodeState::Alive);
    assert!(world.run_until_holds(Duration::from_secs(60), 10 * MS, back).is_some());
}

#[test]
fn a_short_pause_is_refuted() {
    for how in [Pause::Frozen, Pause::Blocked] {
        let mut world = cluster(16, 4, 0.0);
        assert!(world.run_until_holds(Duration::from_secs(60), 10 * MS, agreed).is_some());
        world.pause(5, how);
        let suspected =
            |world: &World| {
                world.processes().iter().filter(|p| p.id != 5).filter_map(|p| p.machine()).any(
                    |m| m.member("n5").is_some_and(|member| member.state == NodeState::Suspect),
                )
            };
        let found = world.run_until_holds(Duration::from_secs(60), 10 * MS, suspected);
        assert!(found.is_some(), "{how:?}");
        world.resume(5);
        let back = |world: &World| all_see(world, 5, NodeState::Alive);
        assert!(world.run_until_holds(Duration::from_secs(30), 10 * MS, back).is_some());
    }
}

/// Applications have no state here, so that streams cost what the protocol's own exchanges cost.
#[test]
fn exchanges_of_user_states_carry_nothing() {
    let mut world = cluster(8, 5, 0.0);
    world.run_for(Duration::from_secs(60));
    let sum = |world: &World, of: fn(&Stats) -> u64| -> u64 {
        world.processes().iter().filter_map(|p| p.machine()).map(|m| of(m.stats())).sum()
    };
    let others = |stats: &Stats| stats.push_pulls + stats.push_pulls_served + stats.syncs;
    let alone = |stats: &Stats| stats.user_state_exchanges;
    let mut quiet = 0;
    for _ in 0..600 {
        let before = (sum(&world, others), sum(&world, alone), world.stream_bytes());
        world.run_for(Duration::from_secs(1));
        if sum(&world, others) == before.0 {
            quiet += sum(&world, alone) - before.1;
            assert_eq!(world.stream_bytes(), before.2);
        }
    }
    assert!(quiet > 50, "{quiet}");
    assert_eq!(sum(&world, |stats| stats.user_state_exchanges_failed), 0);
}
