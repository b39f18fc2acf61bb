//! Failure detection: direct, through relays, over a stream; and the health score.

use std::collections::BTreeMap;

use super::*;
use crate::config::Lifeguard;
use crate::error::ExchangeError;
use crate::membership::{OperationId, StreamOutcome, StreamRequestKind, StreamResponse};
use crate::message::IndirectPing;

/// The settings of a machine whose probes have neither relays nor streams.
fn direct_only() -> Config {
    let mut config = quiet();
    config.stream_ping = false;
    config.indirect_probes = 0;
    config
}

/// Starts a probe and lets its direct ping fail; gives the ping and the indirect pings.
fn fail_directly(one: &mut One) -> (Sent, Vec<Sent>) {
    let ping = one.next_ping();
    one.advance(one.machine.config.probe_timeout);
    let relayed = one.sent_first(MessageKind::IndirectPing);
    (ping, relayed)
}

fn index(sent: &Sent) -> usize {
    sent.to_name()[1..].parse().unwrap()
}

/// The stream that a probe asked for, if any.
fn stream_ping(one: &mut One) -> Option<(OperationId, u32)> {
    let request = one.machine.poll_stream_request()?;
    match request.kind {
        StreamRequestKind::Ping { sequence, .. } => Some((request.id, sequence)),
        _ => None,
    }
}

/// When relays are asked, after the ping, if that left with this round trip known.
fn waited(round_trips: u32, rtt: u64) -> Duration {
    let mut config = quiet();
    config.probe_timeout_round_trips = round_trips;
    let mut one = One::knowing(config, 4);
    let ping = one.next_ping();
    let other = Peer::from(addr((index(&ping) % 4) + 1));
    one.machine.handle_rtt(&other, ms(1));
    one.machine.handle_rtt(&ping.to, ms(rtt));
    let began = one.now;
    while one.sent_first(MessageKind::IndirectPing).is_empty() {
        one.advance(ms(1));
        assert!(one.now - began < ms(900), "relays were never asked");
    }
    one.now - began
}

#[test]
fn a_ping_waits_for_some_round_trips_where_they_are_measured() {
    let timeout = quiet().probe_timeout;
    assert_eq!(waited(0, 30), timeout, "off by default");
    assert_eq!(waited(4, 30), ms(120));
    assert_eq!(waited(4, 1), ms(50), "never less than what a fast member may pause");
    assert_eq!(waited(4, 400), timeout, "never more than without");
    assert_eq!(waited(u32::MAX, u64::MAX / 1000), timeout);
}

#[test]
fn an_ack_ends_the_probe_and_tells_the_round_trip() {
    let mut one = One::knowing(quiet(), 1);
    let ping = one.next_ping();
    let source = Some(PingSource { node: "n0", addr: addr(0) });
    let expected = Ping { sequence: ping.sequence(), node: "n1", source, native: true };
    assert_eq!(ping.messages(), [Message::Ping(expected)]);
    assert_eq!(ping.to, Peer::named(addr(1), id(1)));

    one.advance(ms(20));
    let answer = Ack { sequence: ping.sequence(), payload: b"load 3", native: true };
    one.receive(1, &[Message::Ack(answer)]);
    let node = one.machine.member("n1").unwrap().node;
    let payload = Bytes::from_static(b"load 3");
    assert_eq!(one.events(), [Event::PingCompleted { node, rtt: ms(20), payload }]);
    assert_eq!(one.machine.round_trips().collect::<Vec<_>>(), [(id(1), ms(20))]);
    // Nothing follows: no relays, no suspicion.
    one.advance(ms(900));
    assert_eq!((one.sent().len(), one.events().len()), (0, 0));
    assert_eq!(one.machine.stats().probes_acked_direct, 1);
    assert_eq!(one.machine.poll_stream_request(), None);
}

#[test]
fn everybody_is_probed_once_a_round() {
    let mut one = One::knowing(quiet(), 7);
    one.healthy = true;
    one.advance(secs(70));
    let pings = one.sent_first(MessageKind::Ping);
    assert_eq!(pings.len(), 70);
    let last_round_ends = 70 / 7;
    let mut orders = Vec::new();
    for round in pings.chunks(7).take(last_round_ends) {
        let mut order: Vec<usize> = round.iter().map(index).collect();
        orders.push(order.clone());
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3, 4, 5, 6, 7]);
    }
    orders.dedup();
    assert!(orders.len() > 5, "the order is shuffled after each round");
}

#[test]
fn in_a_cluster_of_two_the_other_is_probed_at_every_tick() {
    let mut one = One::knowing(quiet(), 1);
    one.healthy = true;
    one.advance(secs(1));
    let first = one.sent_first(MessageKind::Ping)[0].at;
    one.advance(secs(9));
    let times: Vec<_> = one.sent_first(MessageKind::Ping).iter().map(|ping| ping.at).collect();
    let expected: Vec<_> = (1..10).map(|n| first + secs(n)).collect();
    assert_eq!(times, expected);
}

#[test]
fn the_first_probe_comes_at_a_random_time_within_the_interval() {
    let firsts: Vec<_> = (0..20)
        .map(|seed| {
            let mut one = One::seeded(quiet(), (), seed);
            one.know([1]);
            one.next_ping().at
        })
        .collect();
    assert!(firsts.iter().all(|at| *at <= secs(1)));
    let early = firsts.iter().filter(|at| **at < ms(500)).count();
    assert!((4..=16).contains(&early), "{early} of 20 in the first half");
}

#[test]
fn alone_there_is_nobody_to_probe() {
    let mut one = One::new(quiet());
    one.advance(secs(30));
    assert_eq!((one.sent().len(), one.machine.stats().probes), (0, 0));
    let mut one = One::knowing(quiet(), 2);
    one.receive(1, &[dead("n1", 1, "n1"), dead("n2", 1, "n1")]);
    one.machine.testing_clear();
    one.advance(secs(10));
    assert_eq!(one.machine.stats().probes, 0);
}

#[test]
fn relays_are_asked_when_the_direct_ping_is_not_answered() {
    let mut one = One::knowing(quiet(), 6);
    let (ping, relayed) = fail_directly(&mut one);
    let target = index(&ping);
    assert_eq!(relayed.len(), 3);
    let mut asked: Vec<_> = relayed.iter().map(index).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 3);
    assert!(!asked.contains(&target) && !asked.contains(&0));
    let request = IndirectPing {
        sequence: ping.sequence(),
        node: ping.to_name(),
        target: addr(target),
        nack: true,
        source: Some(PingSource { node: "n0", addr: addr(0) }),
    };
    assert_eq!(relayed[0].messages(), [Message::IndirectPing(request)]);
    assert_eq!(relayed[0].at - ping.at, ms(500));

    one.receive(asked[1], &[ack(ping.sequence())]);
    assert_eq!(one.machine.stats().probes_acked_indirect, 1);
    // The round trip of a relay says nothing about the member.
    assert_eq!(one.event_names(), [""; 0]);
    one.advance(ms(499));
    assert_eq!(one.state(target), Some(NodeState::Alive));
}

#[test]
fn suspects_and_the_gone_are_not_asked_to_relay() {
    let mut config = quiet();
    config.indirect_probes = 9;
    let mut one = One::knowing(config, 5);
    one.receive(1, &[dead("n2", 1, "n2"), dead("n3", 1, "n1"), suspect("n4", 1, "n1")]);
    one.machine.testing_clear();
    let (ping, relayed) = fail_directly(&mut one);
    let asked: Vec<_> = relayed.iter().map(index).collect();
    let mut expected = vec![1, 5];
    expected.retain(|i| *i != index(&ping));
    expected.retain(|i| asked.contains(i));
    let mut asked = asked;
    asked.sort_unstable();
    assert_eq!(asked, expected);
    assert!(!asked.is_empty());
}

#[test]
fn a_late_direct_ack_still_counts() {
    let mut one = One::knowing(quiet(), 1);
    let (ping, _) = fail_directly(&mut one);
    one.advance(ms(400));
    one.receive(1, &[ack(ping.sequence())]);
    one.advance(ms(90));
    assert_eq!(one.state(1), Some(NodeState::Alive));
    assert_eq!(one.machine.stats().probes_acked_indirect, 1);
}

#[test]
fn a_probe_fails_at_the_end_of_its_interval_and_not_before() {
    let mut one = One::knowing(quiet(), 4);
    let (ping, _) = fail_directly(&mut one);
    let target = index(&ping);
    one.advance(ms(499));
    assert_eq!(one.state(target), Some(NodeState::Alive));
    one.advance(ms(1));
    assert_eq!(one.state(target), Some(NodeState::Suspect));
    assert_eq!(one.machine.stats().probes_failed, 1);
    one.receive(target, &[ack(ping.sequence())]);
    assert_eq!(one.drops(DropReason::UnexpectedAck), 1);
    // It tells why, later.
    let view = one.machine.testing_suspicion(&name(target)).unwrap();
    assert_eq!(view.confirmations, 0);
}

/// From score 1, fails a probe with three relays of which so many say nack; gives the new score.
fn score_after_nacks(nacks: usize, versions: Versions) -> u32 {
    let mut one = One::new(quiet());
    for i in 1..=4 {
        let node = name(i);
        one.machine.testing_alive(&Alive { versions, ..alive(&node, i, 1) }, one.now);
    }
    one.machine.testing_clear();
    one.doubt(1);
    let (ping, relayed) = fail_directly(&mut one);
    assert_eq!(relayed.len(), 3);
    for relay in relayed.iter().take(nacks) {
        one.receive(index(relay), &[nack(ping.sequence())]);
    }
    one.advance(ms(1500));
    assert_eq!(one.machine.stats().probes_failed, 1);
    one.machine.health_score()
}

#[test]
fn missing_nacks_are_a_sign_of_the_own_health() {
    let speaks = |max| Versions::new((1, max, 2), (0, 0, 0));
    assert_eq!(score_after_nacks(0, speaks(5)), 4);
    assert_eq!(score_after_nacks(1, speaks(5)), 3);
    assert_eq!(score_after_nacks(2, speaks(4)), 2);
    assert_eq!(score_after_nacks(3, speaks(4)), 1);
    // Relays that do not know nacks are not asked for one: the failure itself counts.
    assert_eq!(score_after_nacks(0, speaks(3)), 2);
}

#[test]
fn without_relays_a_failed_probe_costs_one_point() {
    let mut one = One::knowing(quiet(), 1);
    fail_directly(&mut one);
    one.advance(ms(500));
    assert_eq!(one.machine.health_score(), 1);
}

#[test]
fn a_nack_counts_once_and_only_from_a_relay() {
    let mut one = One::knowing(quiet(), 4);
    let (ping, relayed) = fail_directly(&mut one);
    let relay = index(&relayed[0]);
    for _ in 0..3 {
        one.receive(relay, &[nack(ping.sequence())]);
    }
    one.receive(index(&ping), &[nack(ping.sequence())]);
    assert_eq!(one.drops(DropReason::AckFromStranger), 1);
    one.receive(relay, &[nack(ping.sequence().wrapping_add(1))]);
    assert_eq!(one.drops(DropReason::UnexpectedAck), 1);
    one.advance(ms(500));
    assert_eq!(one.machine.health_score(), 2);
}

#[test]
fn an_ack_from_a_stranger_does_not_count() {
    let mut one = One::knowing(quiet(), 4);
    let (ping, relayed) = fail_directly(&mut one);
    let target = index(&ping);
    let stranger = (1..=4).find(|i| *i != target && relayed.iter().all(|r| index(r) != *i));
    one.receive(stranger.unwrap_or(9), &[ack(ping.sequence())]);
    assert_eq!(one.drops(DropReason::AckFromStranger), 1);
    one.advance(ms(500));
    assert_eq!(one.state(target), Some(NodeState::Suspect));

    let mut config = quiet();
    config.verify_ack_source = false;
    let mut one = One::knowing(config, 4);
    let (ping, _) = fail_directly(&mut one);
    one.receive(9, &[ack(ping.sequence())]);
    one.advance(ms(500));
    assert_eq!(one.state(index(&ping)), Some(NodeState::Alive));
}

#[test]
fn a_good_probe_improves_the_score_and_a_bad_one_stretches_the_interval() {
    let mut one = One::knowing(direct_only(), 1);
    one.doubt(2);
    one.events();
    let ping = one.next_ping();
    one.receive(1, &[ack(ping.sequence())]);
    assert_eq!(one.event_names(), ["ping completed n1", "health 1"]);
    assert_eq!(one.machine.health_score(), 1);

    let ping = one.next_ping();
    one.advance(ms(1999));
    assert_eq!(one.state(1), Some(NodeState::Alive));
    one.receive(1, &[suspect("n1", 1, "n1")]);
    one.advance(ms(1));
    assert_eq!(one.machine.stats().probes_failed, 1);
    assert_eq!((one.now - one.began) - ping.at, secs(2));
    // The next began at once, and is stretched as well.
    assert_eq!(one.machine.stats().probes_degraded, 3);
}

#[test]
fn without_health_awareness_neither_interval_nor_nacks() {
    let mut config = quiet();
    config.lifeguard.health_aware_probe = false;
    let mut one = One::knowing(config, 3);
    one.doubt(5);
    assert_eq!(one.machine.health_score(), 0);
    let (_, relayed) = fail_directly(&mut one);
    let Message::IndirectPing(request) = relayed[0].messages()[0] else {
        panic!("no indirect ping");
    };
    assert!(!request.nack);
    one.advance(ms(500));
    assert_eq!((one.machine.stats().probes_failed, one.machine.health_score()), (1, 0));
}

#[test]
fn a_tick_that_came_during_a_probe_is_made_up_for_at_once() {
    let mut one = One::knowing(direct_only(), 2);
    one.doubt(1);
    let first = one.next_ping();
    // The stretched probe takes two intervals; the tick in between is overdue.
    one.advance(secs(2));
    let times: Vec<_> = one.sent_first(MessageKind::Ping).iter().map(|p| p.at).collect();
    assert_eq!(times, [first.at + secs(2)]);
}

#[test]
fn an_overdue_probe_begins_when_the_one_before_ends() {
    let mut one = One::knowing(direct_only(), 2);
    one.doubt(1);
    let first = one.next_ping();
    one.advance(ms(1300));
    one.receive(index(&first), &[ack(first.sequence())]);
    let times: Vec<_> = one.sent_first(MessageKind::Ping).iter().map(|p| p.at).collect();
    assert_eq!(times, [first.at + ms(1300)]);
    one.healthy = true;
    // After that the ticks have their old times.
    one.advance(ms(1700));
    let times: Vec<_> = one.sent_first(MessageKind::Ping).iter().map(|p| p.at).collect();
    assert_eq!(times[times.len() - 1], first.at + secs(3));
}

#[test]
fn one_overdue_tick_is_made_up_for_once() {
    let mut one = One::knowing(direct_only(), 2);
    one.doubt(1);
    let first = one.next_ping();
    one.advance(secs(2));
    let second = one.sent_first(MessageKind::Ping).pop().unwrap();
    one.advance(ms(10));
    one.receive(index(&second), &[ack(second.sequence())]);
    one.advance(ms(980));
    assert_eq!(one.sent_first(MessageKind::Ping), [], "two probes in one interval");
    one.advance(ms(10));
    let times: Vec<_> = one.sent_first(MessageKind::Ping).iter().map(|p| p.at).collect();
    assert_eq!(times, [first.at + secs(3)]);
}

#[test]
fn a_suspected_member_hears_it_with_its_ping() {
    let mut one = One::knowing(direct_only(), 1);
    one.receive(1, &[suspect("n1", 1, "n1")]);
    one.machine.testing_clear();
    let ping = one.next_ping();
    assert_eq!(ping.kinds(), [MessageKind::Ping, MessageKind::Suspect]);
    assert_eq!(ping.messages()[1], suspect("n1", 1, "n0"));

    let mut config = direct_only();
    config.lifeguard.buddy_system = false;
    let mut one = One::knowing(config, 1);
    one.receive(1, &[suspect("n1", 1, "n1")]);
    one.machine.testing_clear();
    assert_eq!(one.next_ping().kinds(), [MessageKind::Ping]);
}

#[test]
fn the_suspected_member_refutes_with_its_ack() {
    let mut net = Net::cluster(3, direct_only(), 1);
    net.call(0, |machine, now| {
        let accused = Suspect { incarnation: 1, node: "n1", from: "n2" };
        machine.testing_suspect(&accused, now);
        machine.testing_clear();
    });
    // The only news of it travels with the ping and back with the ack.
    net.hosts.iter_mut().for_each(|host| host.machine.config.gossip_interval = Duration::ZERO);
    let took = net.until(secs(3), |net| net.state(0, 1) == Some(NodeState::Alive));
    assert!(took.is_some());
    assert_eq!(net.hosts[0].machine.member("n1").unwrap().incarnation, 2);
    assert_eq!(net.hosts[1].machine.stats().refutations, 1);
}

#[test]
fn a_ping_goes_out_even_if_the_accusation_has_no_room() {
    let (own, other) = ("a".repeat(255), "b".repeat(255));
    let mut config = direct_only();
    config.max_packet_bytes = 1024;
    let (own_id, now) = (NodeId::new(&own).unwrap(), Instant::now());
    let app = Box::new(());
    let mut machine = Membership::new(config, own_id, addr(0), Bytes::new(), 1, now, app).unwrap();
    machine.testing_alive(&alive(&other, 1, 1), now);
    machine.testing_suspect(&Suspect { incarnation: 1, node: &other, from: &other }, now);
    machine.testing_clear();
    machine.handle_timeout(now + secs(1));
    let room = Room { head: 20, tail: 30, max_packet_bytes: 1024 };
    let sent = take_packets(&mut machine, secs(1), room);
    let pings = sent.iter().filter(|sent| sent.kinds() == [MessageKind::Ping]);
    assert_eq!(pings.count(), 1);
    assert_eq!(machine.stats().drops(DropReason::TooLargeToSend), 1);
}

#[test]
fn a_stream_that_works_keeps_alive_and_says_that_packets_are_lost() {
    let mut one = One::knowing(quiet(), 1);
    let (ping, _) = fail_directly(&mut one);
    let request = one.machine.poll_stream_request().unwrap();
    let kind = StreamRequestKind::Ping { sequence: ping.sequence(), timeout: ms(500) };
    assert_eq!((request.kind, request.timeout), (kind, ms(500)));
    assert_eq!(request.to, Peer::named(addr(1), id(1)));
    let answer = StreamResponse::Ack { sequence: ping.sequence() };
    one.machine.handle_stream_response(request.id, answer, one.now);
    // The packets have their whole time all the same.
    assert_eq!(one.event_names(), [""; 0]);
    one.advance(ms(500));
    assert_eq!(one.event_names(), ["packets lost n1"]);
    assert_eq!(one.state(1), Some(NodeState::Alive));
    assert_eq!(one.machine.stats().probes_acked_stream, 1);
}

#[test]
fn a_member_whose_packets_are_all_lost_lives_on_streams() {
    let mut net = Net::cluster(5, quiet(), 2);
    net.lose(|from, to, kind| kind != Kind::Stream && (from == 2 || to == 2));
    net.run(secs(40));
    assert!(net.agree_on(&[0, 1, 2, 3, 4]));
    for i in 0..5 {
        let names = net.event_names(i);
        assert!(names.iter().any(|name| name.starts_with("packets lost")), "n{i}");
        assert!(!names.iter().any(|name| name.starts_with("gone")));
        if i != 2 {
            assert!(!names.iter().any(|n| n.starts_with("packets lost") && !n.ends_with("n2")));
        }
    }
}

#[test]
fn a_stream_that_acks_another_ping_does_not_count() {
    let mut one = One::knowing(quiet(), 1);
    fail_directly(&mut one);
    let (id, sequence) = stream_ping(&mut one).unwrap();
    let answer = StreamResponse::Ack { sequence: sequence.wrapping_add(1) };
    one.machine.handle_stream_response(id, answer, one.now);
    one.advance(ms(500));
    assert_eq!(one.state(1), Some(NodeState::Suspect));
}

#[test]
fn a_stream_is_tried_only_where_it_can_help() {
    let tries = |config: Config, versions: Versions, app: Picky| {
        let mut one = One::with_app(config, app);
        one.machine.testing_alive(&Alive { versions, ..alive("n1", 1, 1) }, one.now);
        one.machine.testing_clear();
        fail_directly(&mut one);
        stream_ping(&mut one).is_some()
    };
    let speaks = |max| Versions::new((1, max, 2), (0, 0, 0));
    let mut off = quiet();
    off.stream_ping = false;
    assert!(tries(quiet(), speaks(3), Picky(true)));
    assert!(!tries(quiet(), speaks(2), Picky(true)));
    assert!(!tries(quiet(), speaks(5), Picky(false)));
    assert!(!tries(off, speaks(5), Picky(true)));
}

struct Picky(bool);

impl Application for Picky {
    fn allows_stream_ping(&mut self, _: &Node) -> bool {
        self.0
    }
}

#[test]
fn a_failed_probe_remembers_every_leg() {
    let mut one = One::knowing(quiet(), 3);
    let (ping, relayed) = fail_directly(&mut one);
    let target = index(&ping);
    let (id, _) = stream_ping(&mut one).unwrap();
    let refused =
        ExchangeError::Io { peer: peer(target), message: "refused".to_owned(), refused: true };
    one.machine.handle_stream_response(id, StreamResponse::Failed(refused), one.now);
    let nacker = index(&relayed[0]);
    one.receive(nacker, &[nack(ping.sequence())]);
    one.advance(ms(500));
    one.receive(nacker, &[dead(&name(target), 1, &name(nacker))]);
    let death = one.machine.member(&name(target)).unwrap().death.unwrap();
    assert_eq!((death.declared_by.as_str(), death.left), (name(nacker).as_str(), false));
    let probe = death.probe.as_ref().unwrap();
    assert_eq!((probe.waited, probe.send_failed), (secs(1), false));
    assert_eq!(probe.stream, StreamOutcome::Failed);
    let nacked: BTreeMap<_, _> =
        probe.relays.iter().map(|relay| (relay.relay.to_string(), relay.nacked)).collect();
    assert_eq!(nacked.len(), 2);
    assert!(nacked[&name(nacker)]);
    assert_eq!(nacked.values().filter(|nacked| **nacked).count(), 1);
    let text = death.to_string();
    for part in ["declared dead by n", "suspicion by n0", "got no answer either", "was silent"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_ping_that_could_not_be_sent_is_not_waited_for() {
    let mut one = One::knowing(quiet(), 3);
    let ping = one.next_ping();
    one.machine.handle_send_error(&ping.to.clone(), one.now);
    one.drain();
    let relayed = one.sent_first(MessageKind::IndirectPing);
    assert_eq!(relayed.len(), 2);
    assert_eq!(relayed[0].at, ping.at);
    // Once is enough, and another member's error is another member's.
    one.machine.handle_send_error(&ping.to.clone(), one.now);
    one.machine.handle_send_error(&peer(9), one.now);
    one.drain();
    assert_eq!(one.sent().len(), 0);
    one.doubt(2);
    one.receive(index(&relayed[0]), &[ack(ping.sequence())]);
    // An answer through a relay says nothing about the own health.
    assert_eq!(one.machine.health_score(), 2);
    assert_eq!(one.machine.stats().send_errors, 3);
}

#[test]
fn who_left_does_not_probe_but_answers() {
    let mut one = One::knowing(quiet(), 2);
    one.machine.leave(one.now);
    one.advance(secs(10));
    assert_eq!(one.sent_first(MessageKind::Ping).len(), 0);
    one.receive(1, &[ping(5, "n1", 1)]);
    assert_eq!(one.sent_first(MessageKind::Ack)[0].messages()[0], ack(5));
}

#[test]
fn plain_swim_works_without_lifeguard() {
    let mut config = quiet();
    config.lifeguard = Lifeguard::OFF;
    let mut net = Net::cluster(5, config, 8);
    net.run(secs(10));
    assert!(net.agree_on(&[0, 1, 2, 3, 4]));
    net.crash(2);
    assert!(net.until(secs(30), |net| net.agree_on(&[0, 1, 3, 4])).is_some());
}

#[test]
fn a_process_that_stood_still_doubts_itself() {
    let mut net = Net::cluster(6, quiet(), 9);
    net.run(secs(5));
    net.pause(2);
    net.run(secs(3));
    net.resume(2);
    net.run(secs(2));
    assert!(net.event_names(2).contains(&"health 1".to_owned()));
    // It was suspected, and refuted: nobody took it for dead.
    assert!(net.until(secs(30), |net| net.agree_on(&[0, 1, 2, 3, 4, 5])).is_some());
    for i in 0..6 {
        assert!(!net.event_names(i).iter().any(|event| event.starts_with("gone")));
    }
    assert!(net.hosts[2].machine.stats().refutations > 0);
}

/// Every duration and factor at its upper limit.
fn extreme(probe_interval: Duration) -> Config {
    let day = secs(86_400);
    Config {
        probe_interval,
        probe_timeout: if probe_interval.is_zero() { day } else { day - ms(1) },
        suspicion_mult: 1000,
        suspicion_max_timeout_mult: 1000,
        awareness_max_multiplier: 1000,
        retransmit_mult: 1000,
        gossip_interval: day,
        push_pull_interval: day,
        reconnect_interval: day,
        stream_timeout: day,
        gossip_to_the_dead_time: Duration::MAX,
        dead_node_reclaim_time: Duration::MAX,
        reconnect_timeout: Duration::MAX,
        ..Config::lan()
    }
}

#[test]
fn no_allowed_setting_overflows_the_clock() {
    for interval in [Duration::ZERO, secs(86_400)] {
        let mut one = One::new(extreme(interval));
        for i in 1..=99 {
            one.machine.testing_alive(&alive(&name(i), i, 1), one.now);
        }
        one.doubt(i32::MAX);
        one.machine.ping(peer(1), one.now);
        let source = Some(PingSource { node: "n1", addr: addr(1) });
        let request = IndirectPing { sequence: 1, node: "n2", target: addr(2), nack: true, source };
        one.receive(1, &[Message::IndirectPing(request), suspect("n3", 1, "n1")]);
        one.receive(2, &[suspect("n3", 1, "n2"), dead("n4", 1, "n2"), suspect("n0", 1, "n2")]);
        assert_eq!(one.state(3), Some(NodeState::Suspect));
        one.receive(1, &[Message::Alive(Alive { addr: addr(300), ..alive("n4", 4, 2) })]);
        one.advance(secs(3 * 86_400));
        one.machine.leave(one.now);
        one.machine.rejoin(one.now);
    }
}

/// What is learned of a member while it is probed says nothing of the ping that went out before.
#[test]
fn the_second_ping_is_in_the_other_format_whatever_was_learned_meanwhile() {
    use crate::wire::{Dialect, WireFormat};
    let mut config = quiet();
    config.wire_format = WireFormat::Mixed;
    config.stream_ping = false;
    config.indirect_probes = 0;
    for native_first in [true, false] {
        let mut one = One::new(config.clone());
        one.machine.testing_alive(&alive("n1", 1, 1), one.now);
        one.machine.testing_clear();
        let n1 = Peer::named(addr(1), id(1));
        one.machine.learn_dialect("n1", &n1, native_first);
        let mut pings = Vec::new();
        let mut packet = Vec::new();
        for step in 0..200 {
            one.machine.handle_timeout(one.now);
            while one.machine.poll_transmit(&mut packet, &mut |_| ROOM).is_some() {
                pings.push(Dialect::of(packet[ROOM.head]).unwrap());
                // It speaks, in the other of the two.
                one.machine.learn_dialect("n1", &n1, !native_first);
            }
            one.now += ms(10);
            if pings.len() == 2 {
                break;
            }
            assert!(step < 199, "{pings:?}");
        }
        let expected = match native_first {
            true => [Dialect::Native, Dialect::Hashicorp],
            false => [Dialect::Hashicorp, Dialect::Native],
        };
        assert_eq!(pings, expected);
    }
}
