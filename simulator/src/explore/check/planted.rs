//! Every checker is alive: a planted bug that it, and no other before it, catches.
//!
//! Bugs are planted where they would arise: packets that no honest member sends, mechanisms that are
//! switched off, limits that a machine does not keep, events that it does not tell or tells wrongly.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::message::{Alive, Dead, Message};
use memberlist_protocol::wire::{PacketWriter, Room, read_packet};
use memberlist_protocol::{Config, Dialect, Event, Versions};

use super::{Calm, Checkers, disagreement};
use crate::explore::scenario::{Fault, Scenario};
use crate::explore::{bounds, run};
use crate::network::{LinkModel, Network, ProcessId};
use crate::process::Process;
use crate::time::Time;
use crate::world::{Watch, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What a machine tells, changed on its way to the checkers; `None` swallows it.
type Change = Box<dyn FnMut(&Process, &Event) -> Option<Event>>;

/// The checkers, behind a machine that tells something else than it does.
struct Tampered {
    checkers: Checkers,
    change: Change,
}

impl Watch for Tampered {
    fn happened(&mut self, at: Time, process: &Process, event: &Event) {
        if let Some(event) = (self.change)(process, event) {
            self.checkers.happened(at, process, &event);
        }
    }

    fn stepped(&mut self, at: Time, process: &Process) {
        self.checkers.stepped(at, process);
    }

    fn sent(&mut self, at: Time, from: &Process, to: SocketAddr, bytes: &[u8]) {
        self.checkers.sent(at, from, to, bytes);
    }

    fn changed(&mut self, at: Time, process: &Process) {
        self.checkers.changed(at, process);
    }
}

fn world<W: Watch>(watch: W, config: &Config) -> World<W> {
    world_of(6, watch, config)
}

fn world_of<W: Watch>(size: ProcessId, watch: W, config: &Config) -> World<W> {
    let mut world = World::new(5, Network::new(LinkModel::perfect(MS)), watch);
    for _ in 0..size {
        world.add(config.clone());
    }
    (1..size).for_each(|id| {
        world.join(id, 0);
    });
    world.run_for(5 * SECOND);
    assert_eq!(disagreement(&world), None);
    world
}

fn honest(config: &Config) -> World<Checkers> {
    world(Checkers::default(), config)
}

fn tampered(change: impl FnMut(&Process, &Event) -> Option<Event> + 'static) -> World<Tampered> {
    let watch = Tampered { checkers: Checkers::default(), change: Box::new(change) };
    world(watch, &Config::lan())
}

fn caught_by(checkers: &Checkers) -> Option<&'static str> {
    checkers.violation().map(|violation| violation.check)
}

fn packet(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };
    let mut writer = PacketWriter::new(&mut bytes, Dialect::Native, true, room);
    assert!(writer.push(message));
    writer.finish();
    bytes
}

/// A packet that somebody else sends to n1.
fn forge(world: &mut World<Checkers>, message: &Message<'_>) {
    let from = world.process(2).addr;
    world.inject(1, from, packet(message));
    world.run_for(SECOND / 10);
}

#[test]
fn without_a_bug_nothing_is_caught() {
    let mut world = honest(&Config::lan());
    world.update_meta(2, Bytes::from_static(b"x"));
    world.crash(3);
    world.leave(4);
    world.run_for(60 * SECOND);
    world.join(4, 0);
    world.restart(3, false);
    world.join(3, 0);
    world.run_for(60 * SECOND);
    assert_eq!(world.watch.violation(), None);
    assert_eq!(disagreement(&world), None);
}

#[test]
fn a_departure_that_is_not_told() {
    let mut world = tampered(|process, event| {
        let swallowed = process.id == 1 && matches!(event, Event::Gone(_));
        (!swallowed).then(|| event.clone())
    });
    world.crash(3);
    world.run_for(60 * SECOND);
    assert_eq!(caught_by(&world.watch.checkers), Some("sequence"));
}

#[test]
fn an_event_that_is_told_twice() {
    let mut repeated = None;
    let mut world = tampered(move |process, event| match event {
        Event::Gone(_) if process.id == 1 => {
            repeated = Some(event.clone());
            repeated.clone()
        }
        _ if process.id == 1 && repeated.is_some() => repeated.take(),
        _ => Some(event.clone()),
    });
    world.crash(3);
    world.run_for(60 * SECOND);
    assert_eq!(caught_by(&world.watch.checkers), Some("sequence"));
}

#[test]
fn an_incarnation_that_goes_back() {
    let mut world = tampered(|process, event| match event {
        Event::Updated(member) if process.id == 1 => {
            let mut older = member.clone();
            older.incarnation = 0;
            Some(Event::Updated(older))
        }
        _ => Some(event.clone()),
    });
    world.update_meta(3, Bytes::from_static(b"x"));
    world.run_for(5 * SECOND);
    assert_eq!(caught_by(&world.watch.checkers), Some("incarnation"));
}

#[test]
fn an_incarnation_that_somebody_else_raised() {
    let mut world = honest(&Config::lan());
    let addr = world.process(3).addr;
    let (node, meta, versions) = ("n3", &b"forged"[..], Versions::default());
    let alive = Alive { incarnation: 50, node, addr, wide_ipv4: false, meta, versions };
    forge(&mut world, &Message::Alive(alive));
    assert_eq!(caught_by(&world.watch), Some("authorship"));
}

#[test]
fn a_farewell_that_somebody_else_said() {
    let mut world = honest(&Config::lan());
    let incarnation = world.machine(3).unwrap().own().incarnation;
    forge(&mut world, &Message::Dead(Dead { incarnation, node: "n3", from: "n3" }));
    assert_eq!(caught_by(&world.watch), Some("authorship"));
}

#[test]
fn a_member_that_left_and_comes_back_with_old_news() {
    let mut left = None;
    let mut world = tampered(move |process, event| match event {
        Event::Gone(member) if process.id == 1 => {
            left = Some(member.incarnation);
            Some(event.clone())
        }
        Event::Joined(member) if process.id == 1 && left.is_some() => {
            let mut older = member.clone();
            older.incarnation = left.unwrap_or_default();
            Some(Event::Joined(older))
        }
        _ => Some(event.clone()),
    });
    world.leave(3);
    world.run_for(5 * SECOND);
    world.join(3, 0);
    world.run_for(5 * SECOND);
    assert_eq!(caught_by(&world.watch.checkers), Some("farewell"));
}

#[test]
fn a_queue_without_its_limit() {
    let mut world = honest(&Config::lan());
    // The machine was started with another limit, and keeps more.
    world.process_mut(1).config.max_user_broadcasts = 1;
    world.broadcast(1, b"one");
    assert_eq!(caught_by(&world.watch), None);
    world.broadcast(1, b"two");
    assert_eq!(caught_by(&world.watch), Some("limits"));
}

#[test]
fn a_packet_over_its_budget() {
    let mut world = honest(&Config::lan());
    world.process_mut(1).config.max_packet_bytes = 300;
    world.run_for(5 * SECOND);
    assert_eq!(caught_by(&world.watch), None);
    world.update_meta(1, Bytes::from(vec![b'x'; 400]));
    world.run_for(SECOND);
    assert_eq!(caught_by(&world.watch), Some("budget"));
}

#[test]
fn a_live_member_that_stays_dead() {
    let mut config = Config::lan();
    config.reconnect_interval = Duration::ZERO;
    let mut world = honest(&config);
    world.network.partition(&[0, 1, 2], &[3, 4, 5]);
    world.run_for(120 * SECOND);
    world.network.heal();
    let since = world.now();
    let settled = since + 120 * SECOND;
    let removal = bounds::removal(&config, 6);
    world.watch.set_calm(Calm { since, settled, removal, delay: MS });
    world.run_for(121 * SECOND);
    assert_eq!(caught_by(&world.watch), Some("stays-dead"));
}

#[test]
fn a_crashed_member_that_nobody_misses() {
    let mut config = Config::lan();
    config.probe_interval = Duration::ZERO;
    let mut world = honest(&config);
    let since = world.now();
    let removal = bounds::removal(&Config::lan(), 6);
    world.watch.set_calm(Calm { since, settled: since, removal, delay: MS });
    world.crash(3);
    world.run_for(removal + 60 * SECOND);
    assert_eq!(caught_by(&world.watch), Some("removal"));
}

#[test]
fn views_that_differ() {
    let mut world = honest(&Config::lan());
    world.network.block_groups(&[0, 1, 2, 4, 5], &[3]);
    world.update_meta(1, Bytes::from_static(b"x"));
    world.run_for(SECOND);
    let what = disagreement(&world).unwrap();
    assert!(what.contains("n3 takes n1"), "{what}");
    let strangers: ProcessId = world.add(Config::lan());
    assert_eq!(strangers, 6);
    assert!(disagreement(&world).is_some());
}

#[test]
fn a_run_tells_of_views_that_do_not_agree_in_time() {
    let mut scenario = Scenario::new(1);
    scenario.faults = [Fault::LongPartition].into();
    (scenario.nodes, scenario.actions, scenario.chaos) = (6, 20, 120 * SECOND);
    scenario.config = Config::lan();
    assert_eq!(run(&scenario, false).violation, None);
    // Without reconnecting, two clusters that buried each other stay two.
    scenario.config.reconnect_interval = Duration::ZERO;
    let violation = run(&scenario, true).violation.unwrap();
    assert!(["agreement", "stays-dead"].contains(&violation.check), "{violation}");
}

/// The documents say that nothing may change once the views agree.
#[test]
fn a_suspicion_when_nothing_may_change() {
    let mut world = honest(&Config::lan());
    let since = world.now();
    let removal = bounds::removal(&Config::lan(), 6);
    world.watch.set_calm(Calm { since, settled: since, removal, delay: MS });
    let incarnation = world.machine(3).unwrap().own().incarnation;
    for _ in 0..10 {
        let incarnation = world.machine(3).unwrap().own().incarnation.max(incarnation);
        let suspect = memberlist_protocol::message::Suspect { incarnation, node: "n3", from: "n2" };
        forge(&mut world, &Message::Suspect(suspect));
        world.run_for(3 * SECOND);
    }
    assert_eq!(disagreement(&world), None);
    assert_eq!(caught_by(&world.watch), Some("quiet"));
}

#[test]
fn probes_that_are_skipped() {
    let mut slow = Config::lan();
    slow.probe_interval *= 20;
    let mut world = world_of(12, Checkers::default(), &slow);
    // What the checkers are told: of twenty probes that are due, the machines begin one.
    (0..12).for_each(|id| world.process_mut(id).config.probe_interval = SECOND);
    crash_in_the_calm(&mut world);
    assert_eq!(caught_by(&world.watch), Some("detection"));
}

#[test]
fn gossip_that_is_not_sent() {
    let mut world = world_of(60, Checkers::default(), &Config::lan());
    world.lose = Some(|bytes| {
        let mut messages = read_packet(bytes).unwrap();
        let asks_or_answers = |message: &Message<'_>| {
            use Message::{Ack, IndirectPing, Nack, Ping};
            matches!(message, Ping(_) | IndirectPing(_) | Ack(_) | Nack(_))
        };
        !messages.any(|message| asks_or_answers(&message.unwrap()))
    });
    crash_in_the_calm(&mut world);
    assert_eq!(caught_by(&world.watch), Some("spread"));
}

#[test]
fn a_crash_that_is_noticed_and_told() {
    for size in [2, 3, 12, 60] {
        let mut world = world_of(size, Checkers::default(), &Config::lan());
        crash_in_the_calm(&mut world);
        assert_eq!(world.watch.violation(), None, "{size} members");
    }
}

fn crash_in_the_calm(world: &mut World<Checkers>) {
    let since = world.now();
    let removal = bounds::removal(&Config::lan(), world.processes().len());
    world.watch.set_calm(Calm { since, settled: since, removal, delay: MS });
    world.run_for(SECOND);
    world.crash(1);
    world.run_for(removal);
}
