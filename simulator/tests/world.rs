//! The world itself: a seed replays a run, and the faults do what they say.

use std::time::Duration;

use memberlist_protocol::{Config, Event, NodeState, Stats};
use memberlist_simulator::network::{LinkModel, Network, ProcessId};
use memberlist_simulator::{Pause, Process, Time, Watch, World};

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

/// The ends of joins.
#[derive(Default)]
struct Joins {
    succeeded: usize,
    failed: Vec<String>,
}

impl Watch for Joins {
    fn happened(&mut self, _: Time, _: &Process, event: &Event) {
        match event {
            Event::JoinDone { result: Ok(_), .. } => self.succeeded += 1,
            Event::JoinDone { result: Err(error), .. } => self.failed.push(error.to_string()),
            _ => {}
        }
    }
}

/// Fifty join one seed that serves two of them at the same time.
#[test]
fn a_crowd_joins_a_seed_with_few_places() {
    for seed in 1..=5 {
        let network = Network::new(LinkModel::perfect(MS));
        let mut world = World::new(seed, network, Joins::default());
        world.set_serving_time(50 * MS);
        let mut config = Config::lan();
        config.max_push_pulls = 2;
        for _ in 0..=50 {
            world.add(config.clone());
        }
        for id in 1..=50 {
            world.join(id, 0);
        }
        let done = |world: &World<Joins>| world.watch.succeeded + world.watch.failed.len() == 50;
        let joined = world.run_until_holds(Duration::from_secs(60), 10 * MS, done);
        assert_eq!((world.watch.succeeded, &world.watch.failed[..]), (50, &[][..]));
        let stats = |id| *world.machine(id).unwrap().stats();
        let retried: u64 = (1..=50).map(|id| stats(id).joins_retried).sum();
        assert!(stats(0).joins_deferred >= 48 && retried >= 48, "seed {seed}");
        assert!(joined.unwrap().since_start() < Duration::from_secs(10), "seed {seed}");
        let everybody = |world: &World<Joins>| {
            world.processes().iter().filter_map(|p| p.machine()).all(|m| m.live_members() == 51)
        };
        world.run_until_holds(Duration::from_secs(60), 100 * MS, everybody).unwrap();
    }
}
