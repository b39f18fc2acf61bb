//! Nodes of two wire formats in one cluster. Those that read Go's format alone stand for Go's nodes.

use std::time::Duration;

use memberlist_protocol::{Config, DropReason, Event, NodeState, WireFormat};
use memberlist_simulator::network::{LinkModel, Network, ProcessId};
use memberlist_simulator::{Process, Time, Watch, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What must not happen to a member that never stood still for long.
#[derive(Default)]
struct Alarms {
    suspected: Vec<String>,
    dead: Vec<String>,
}

impl Watch for Alarms {
    fn happened(&mut self, _: Time, process: &Process, event: &Event) {
        let (list, member) = match event {
            Event::Suspected(member) => (&mut self.suspected, member),
            Event::Gone(member) if member.state == NodeState::Dead => (&mut self.dead, member),
            _ => return,
        };
        list.push(format!("{} by {}", member.id(), process.id));
    }
}

fn speaking(format: WireFormat) -> Config {
    let mut config = Config::lan();
    config.wire_format = format;
    config
}

fn cluster(formats: &[WireFormat]) -> World<Alarms> {
    let network = Network::new(LinkModel::perfect(MS));
    let mut world = World::new(5, network, Alarms::default());
    for (id, format) in formats.iter().enumerate() {
        world.add(speaking(*format));
        if id > 0 {
            world.join(id as ProcessId, 0);
            world.run_for(SECOND);
        }
    }
    world.run_for(5 * SECOND);
    world
}

/// Every member believes all of them to be alive.
fn agree(world: &World<Alarms>) -> bool {
    let machines = world.processes().iter().filter_map(Process::machine);
    let all = world.processes().len();
    machines.into_iter().all(|machine| {
        let alive = machine.members().filter(|member| member.state == NodeState::Alive);
        alive.count() == all
    })
}

fn assert_quiet(world: &World<Alarms>) {
    let none = Vec::<String>::new();
    assert_eq!((&world.watch.suspected, &world.watch.dead), (&none, &none));
}

/// Ends a process, with or without a farewell, and starts one that speaks another format in its place.
fn replace(world: &mut World<Alarms>, id: ProcessId, format: WireFormat, says_farewell: bool) {
    if says_farewell {
        world.leave(id);
        world.run_for(5 * SECOND);
    }
    world.set_config(id, speaking(format));
    world.restart(id, false);
    let seed = (id + 1) % world.processes().len() as ProcessId;
    assert!(world.join(id, seed).is_some());
    world.run_for(30 * SECOND);
    assert!(agree(world), "after n{id} speaks {format:?}");
}

/// Packets that were sent in all, and of those the ones in Go's format.
fn sent(world: &World<Alarms>) -> (u64, u64) {
    let stats = world.processes().iter().filter_map(Process::machine).map(|m| *m.stats());
    stats.fold((0, 0), |(all, hashicorp), stats| {
        (all + stats.packets_sent, hashicorp + stats.packets_sent_hashicorp)
    })
}

/// Go's nodes are replaced one by one, and then Go's format.
#[test]
fn a_rolling_replacement_ends_in_the_native_format() {
    use WireFormat::{Hashicorp, Mixed, Native};
    for says_farewell in [true, false] {
        let mut world = cluster(&[Hashicorp; 5]);
        assert!(agree(&world));
        for id in 0..5 {
            replace(&mut world, id, Mixed, says_farewell);
        }
        assert_quiet(&world);
        let before = sent(&world);
        world.run_for(30 * SECOND);
        let after = sent(&world);
        assert!(after.0 > before.0 + 200, "{before:?} {after:?}");
        assert_eq!(after.1, before.1, "nobody speaks Go's format any more");
        for id in 0..5 {
            replace(&mut world, id, Native, says_farewell);
        }
        assert_quiet(&world);
    }
}

/// The rest of a mixed cluster goes on in the native format among itself meanwhile.
#[test]
fn each_peer_is_spoken_to_in_its_format() {
    use WireFormat::{Hashicorp, Mixed};
    let mut world = cluster(&[Mixed, Mixed, Hashicorp, Mixed]);
    world.run_for(20 * SECOND);
    assert!(agree(&world));
    let before = sent(&world);
    world.run_for(60 * SECOND);
    let after = sent(&world);
    let (all, hashicorp) = (after.0 - before.0, after.1 - before.1);
    // In each interval each of four members pings one of three others, and is answered; of the twelve
    // pairs six have the one in it that speaks Go's format alone.
    assert!((all * 4 / 10..all * 6 / 10).contains(&hashicorp), "{hashicorp} of {all}");
    assert_quiet(&world);
}

/// What is known of a member ends with its process: one that speaks Go's format alone comes in the place
/// of one that spoke both, and is never suspected for it.
#[test]
fn who_comes_back_with_the_other_format_is_never_suspected() {
    use WireFormat::{Hashicorp, Mixed};
    let mut world = cluster(&[Mixed; 5]);
    world.run_for(20 * SECOND);
    for id in 1..5 {
        replace(&mut world, id, Hashicorp, false);
        replace(&mut world, id, Mixed, false);
    }
    assert_quiet(&world);
}

/// Even where no relay, no stream and no ping of its own would tell.
#[test]
fn a_ping_that_is_not_answered_is_sent_again_in_the_other_format() {
    use WireFormat::{Hashicorp, Mixed, Native};
    for (first, then) in [(Mixed, Hashicorp), (Hashicorp, Native)] {
        let mut world = World::new(5, Network::new(LinkModel::perfect(MS)), Alarms::default());
        let mut prober = speaking(Mixed);
        prober.stream_ping = false;
        let silent = |format| {
            let mut config = speaking(format);
            config.probe_interval = Duration::ZERO;
            config
        };
        let (prober, other) = (world.add(prober), world.add(silent(first)));
        world.join(other, prober);
        world.run_for(20 * SECOND);
        world.set_config(other, silent(then));
        world.restart(other, false);
        world.join(other, prober);
        world.run_for(20 * SECOND);
        assert!(agree(&world), "{then:?}");
        assert_quiet(&world);
    }
}

#[test]
fn news_and_broadcasts_cross_the_formats() {
    use WireFormat::{Hashicorp, Mixed};
    let mut world = cluster(&[Mixed, Hashicorp, Mixed]);
    world.run_for(20 * SECOND);
    for id in 0..3 {
        world.update_meta(id, format!("of n{id}").into());
    }
    world.run_for(5 * SECOND);
    for machine in world.processes().iter().filter_map(Process::machine) {
        for id in 0..3 {
            let member = machine.member(&format!("n{id}")).unwrap();
            assert_eq!(member.node.meta, format!("of n{id}"));
        }
    }
    assert_quiet(&world);
}

/// They do not find together, and each counts what it gets of the other format by what it is.
#[test]
fn nodes_of_one_format_each_stay_apart_and_say_why() {
    use WireFormat::{Hashicorp, Native};
    let mut world = cluster(&[Native, Hashicorp]);
    for (id, other) in [(0, 1), (1, 0)] {
        world.join(id, other);
    }
    world.run_for(30 * SECOND);
    for (id, other) in [(0, 1), (1, 0)] {
        let to = world.process(other).addr;
        world.with_machine(id, |machine| machine.send(to.into(), "hello".into())).unwrap().unwrap();
    }
    world.run_for(SECOND);
    for machine in world.processes().iter().filter_map(Process::machine) {
        assert_eq!(machine.live_members(), 1);
        assert_eq!(machine.stats().drops(DropReason::WrongFormat), 1);
    }
}
