//! Forgetting the dead, remembering that they were, and finding them again.

use super::*;
use crate::membership::{StreamRequestKind, StreamResponse};
use crate::wire::WireFormat;

/// Reconnecting as by default, without periodic push/pulls that would do its work.
fn reconnecting() -> Config {
    let mut config = quiet();
    config.reconnect_interval = secs(30);
    config
}

/// A machine that has reaped `n1`, dead at incarnation 3, and knows others.
fn with_tombstone(config: Config) -> One {
    let mut one = One::knowing(config, 3);
    one.healthy = true;
    one.receive(1, &[dead("n1", 3, "n2")]);
    one.advance(secs(40));
    assert_eq!(one.state(1), None);
    assert!(one.machine.tombstone("n1").is_some());
    one.machine.testing_clear();
    one.sent();
    one
}

/// The pings that ask a node whether it is back.
fn questions(one: &mut One) -> Vec<Sent> {
    let asks = |sent: &Sent| sent.to_name() == "n1" && sent.kinds()[0] == MessageKind::Ping;
    one.sent().into_iter().filter(asks).collect()
}

#[test]
fn the_gone_are_forgotten_after_a_while() {
    let mut one = One::knowing(quiet(), 4);
    one.healthy = true;
    one.receive(1, &[dead("n1", 1, "n2"), dead("n2", 1, "n2"), suspect("n3", 1, "n4")]);
    one.receive(3, &[Message::Alive(alive("n3", 3, 2))]);
    one.advance(secs(30));
    assert_eq!(one.machine.known_members(), 5);
    one.events();
    // The next time that the probe ring wraps.
    one.advance(secs(5));
    let mut names = one.event_names();
    names.retain(|name| name.starts_with("reaped"));
    names.sort();
    assert_eq!(names, ["reaped n1", "reaped n2"]);
    assert_eq!((one.machine.known_members(), one.machine.live_members()), (3, 3));
    assert_eq!(one.machine.stats().reaped, 2);
    let (killed, left) =
        (one.machine.tombstone("n1").unwrap(), one.machine.tombstone("n2").unwrap());
    assert_eq!((killed.state, left.state), (NodeState::Dead, NodeState::Left));
    assert_eq!(killed.death.as_ref().unwrap().declared_by, id(2));
    assert!(one.machine.local_state().iter().all(|record| record.node.id != id(1)));
}

#[test]
fn memory_of_the_dead_is_bounded() {
    for max in [0, 2] {
        let mut config = quiet();
        config.max_tombstones = max;
        let mut one = One::knowing(config, 6);
        one.healthy = true;
        for i in 1..=5 {
            let node = name(i);
            one.receive(6, &[dead(&node, 1, "n6")]);
            one.advance(secs(40));
        }
        let kept: Vec<_> = one.machine.tombstones().map(|t| t.node.id.to_string()).collect();
        assert_eq!(kept, ["n4", "n5"][2 - max..]);
        assert_eq!(one.machine.known_members(), 2);
    }
}

#[test]
fn old_news_of_the_forgotten_is_refused_and_new_news_is_not() {
    let mut one = with_tombstone(quiet());
    for incarnation in [1, 3] {
        one.receive(2, &[Message::Alive(alive("n1", 1, incarnation))]);
    }
    one.machine.testing_merge(&record(1, 3, NodeState::Alive), one.now);
    assert_eq!((one.state(1), one.drops(DropReason::StaleNews)), (None, 3));
    assert_eq!((one.queued().len(), one.events().len()), (0, 0));
    one.receive(2, &[Message::Alive(alive("n1", 1, 4))]);
    assert_eq!((one.state(1), one.machine.tombstone("n1")), (Some(NodeState::Alive), None));
    assert_eq!(one.event_names(), ["joined n1"]);
    // A new process at another address begins at 1.
    let mut one = with_tombstone(quiet());
    one.receive(2, &[Message::Alive(alive("n1", 9, 1))]);
    assert_eq!(one.machine.member("n1").unwrap().addr(), addr(9));
    assert!(one.machine.tombstone("n1").is_none());
}

#[test]
fn who_may_be_back_is_asked_and_not_too_often() {
    let mut one = with_tombstone(quiet());
    for _ in 0..10 {
        one.receive(2, &[Message::Alive(alive("n1", 1, 1))]);
        one.advance(ms(99));
    }
    let asked = questions(&mut one);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].to, Peer::named(addr(1), id(1)));
    // In one packet: are you there, under that name; this is at which incarnation you died.
    assert_eq!(asked[0].messages()[1..], [suspect("n1", 3, "n0")]);
    one.advance(ms(10));
    one.receive(2, &[Message::Alive(alive("n1", 1, 1))]);
    assert_eq!(questions(&mut one).len(), 1);
}

#[test]
fn a_restarted_node_is_back_within_a_second() {
    for left in [false, true] {
        let mut net = Net::cluster(6, reconnecting(), 4);
        if left {
            net.call(3, |machine, now| machine.leave(now));
            net.run(secs(5));
        }
        net.crash(3);
        let reaped = |host: &net::Host| host.machine.tombstone("n3").is_some();
        let others = [0, 1, 2, 4, 5];
        let took = net.until(secs(120), |net| others.iter().all(|i| reaped(&net.hosts[*i])));
        assert!(took.is_some());
        net.restart(3);
        net.call(3, |machine, _| machine.join(peer(0)));
        let took = net.until(secs(10), |net| net.agree_on(&[0, 1, 2, 3, 4, 5]));
        assert!(took.is_some_and(|took| took <= secs(1)), "{took:?}");
        assert!(net.hosts[3].machine.own().incarnation >= 2);
    }
}

#[test]
fn two_halves_that_buried_each_other_find_together() {
    let mut net = Net::cluster(8, reconnecting(), 5);
    net.run(secs(3));
    let apart = |from: usize, to: usize, _| (from < 4) != (to < 4);
    net.lose(apart);
    let buried = |net: &Net| {
        let tombstones = |host: &net::Host| host.machine.tombstones().count();
        net.hosts.iter().all(|host| tombstones(host) == 4 && host.machine.known_members() == 4)
    };
    assert!(net.until(secs(180), buried).is_some(), "the partition outlives the dead window");
    net.run(secs(300));
    assert_eq!(net.state(0, 5), None);
    net.lose_nothing();
    let took = net.until(secs(120), |net| net.agree_on(&[0, 1, 2, 3, 4, 5, 6, 7]));
    assert!(took.is_some_and(|took| took <= secs(45)), "{took:?}");
    assert!(net.hosts.iter().any(|host| host.machine.stats().reconnects_succeeded > 0));
    assert!(net.hosts.iter().all(|host| host.machine.tombstones().count() == 0));
    // And they stay together.
    net.run(secs(120));
    assert!(net.agree_on(&[0, 1, 2, 3, 4, 5, 6, 7]));
}

#[test]
fn a_short_partition_heals_as_well() {
    let mut net = Net::cluster(6, reconnecting(), 5);
    net.lose(|from, to, _| (from < 3) != (to < 3));
    let apart = |net: &Net| net.hosts.iter().all(|host| host.machine.live_members() == 3);
    assert!(net.until(secs(60), apart).is_some());
    net.lose_nothing();
    let took = net.until(secs(120), |net| net.agree_on(&[0, 1, 2, 3, 4, 5]));
    assert!(took.is_some_and(|took| took <= secs(45)), "{took:?}");
}

#[test]
fn a_failed_member_is_asked_again_and_again_until_patience_ends() {
    let mut config = reconnecting();
    config.reconnect_timeout = secs(600);
    let mut one = One::knowing(config, 1);
    one.receive(1, &[dead("n1", 1, "n9")]);
    one.machine.testing_clear();
    // One failed, one alive (itself): the chance is one.
    one.advance(secs(590));
    let asked = questions(&mut one);
    assert!((19..=20).contains(&asked.len()), "{}", asked.len());
    assert!(asked.iter().all(|ping| ping.messages()[1] == suspect("n1", 1, "n0")));
    one.advance(secs(300));
    let last = questions(&mut one);
    assert!(last.len() <= 1);
    assert!(one.machine.reconnect_timer.is_none());
    assert_eq!(one.machine.stats().reconnects, (asked.len() + last.len()) as u64);
}

#[test]
fn the_chance_to_ask_is_failed_by_alive() {
    let mut one = One::knowing(reconnecting(), 20);
    one.healthy = true;
    one.receive(2, &[dead("n1", 1, "n9")]);
    one.advance(secs(30 * 400));
    let tries = one.machine.stats().reconnects;
    // 400 ticks at 1 / 20; with a healthy answer to each.
    assert!((8..=36).contains(&tries), "{tries}");
}

#[test]
fn who_left_is_never_asked() {
    let mut one = One::knowing(reconnecting(), 1);
    one.receive(1, &[dead("n1", 1, "n1")]);
    one.machine.testing_clear();
    one.advance(secs(600));
    assert_eq!((one.sent().len(), one.machine.stats().reconnects), (0, 0));
    assert!(one.machine.reconnect_timer.is_none());
}

#[test]
fn reconnecting_can_be_switched_off() {
    let mut never = reconnecting();
    never.reconnect_timeout = Duration::ZERO;
    for config in [quiet(), never] {
        let mut one = One::knowing(config, 1);
        one.receive(1, &[dead("n1", 1, "n9")]);
        one.machine.testing_clear();
        one.advance(secs(600));
        assert_eq!((one.sent().len(), one.machine.stats().reconnects), (0, 0));
    }
}

#[test]
fn the_one_who_answers_is_exchanged_states_with() {
    let mut one = One::knowing(reconnecting(), 1);
    one.receive(1, &[dead("n1", 1, "n9")]);
    one.machine.testing_clear();
    one.sent();
    let question = loop {
        one.advance(ms(100));
        assert!(one.elapsed() < secs(31));
        if let Some(question) = questions(&mut one).pop() {
            break question;
        }
    };
    assert_eq!(one.machine.poll_stream_request(), None, "first it must answer");
    one.receive(1, &[ack(question.sequence())]);
    let request = one.machine.poll_stream_request().unwrap();
    assert_eq!(request.kind, StreamRequestKind::PushPull { join: false });
    assert_eq!(request.to, Peer::named(addr(1), id(1)));
    let state = state_of(false, vec![record(1, 2, NodeState::Alive)]);
    let response = StreamResponse::PushPull(state);
    one.machine.handle_stream_response(request.id, response, one.now);
    assert_eq!(one.state(1), Some(NodeState::Alive));
    assert_eq!(one.machine.stats().reconnects_succeeded, 1);
    // With nobody missing there is nothing to do.
    one.healthy = true;
    one.advance(secs(60));
    assert!(one.machine.reconnect_timer.is_none());
}

#[test]
fn another_node_at_the_address_is_left_alone() {
    // Node 2 has the address at which n1 died.
    let news = Alive { addr: addr(2), ..alive("n1", 1, 1) };
    let mut net = Net::strangers(3, reconnecting(), 1);
    net.hosts[0].machine.testing_alive(&news, net.now);
    net.call(0, |machine, now| {
        machine.testing_dead(&Dead { incarnation: 1, node: "n1", from: "n9" }, now);
        // For a while the dead are told the news, whoever has their address now; not here.
        machine.testing_clear();
    });
    net.run(secs(200));
    assert!(net.hosts[0].machine.stats().reconnects >= 5);
    assert_eq!(net.hosts[0].machine.stats().push_pulls, 0);
    assert!(net.hosts[2].machine.stats().drops(DropReason::WrongNode) >= 5);
    assert_eq!(net.hosts[2].machine.known_members(), 1);
}

#[test]
fn what_is_refused_of_the_reaped_is_not_refused_for_ever() {
    let mut one = with_tombstone(quiet());
    one.healthy = false;
    one.receive(2, &[Message::Alive(alive("n1", 1, 2))]);
    assert_eq!((one.state(1), one.drops(DropReason::StaleNews)), (None, 1));
    one.healthy = true;
    one.advance(secs(10 * 30));
    one.receive(2, &[Message::Alive(alive("n1", 1, 1))]);
    assert_eq!(one.state(1), Some(NodeState::Alive));
}

#[test]
fn halves_heal_without_a_storm_of_exchanges() {
    const HALF: usize = 40;
    let mut net = Net::cluster(2 * HALF, reconnecting(), 3);
    net.run(secs(2));
    net.lose(|from, to, _| (from < HALF) != (to < HALF));
    let buried = |net: &Net| net.hosts.iter().all(|host| host.machine.tombstones().count() == HALF);
    assert!(net.until(secs(1200), buried).is_some());
    let push_pulls =
        |net: &Net| -> u64 { net.hosts.iter().map(|host| host.machine.stats().push_pulls).sum() };
    let before = push_pulls(&net);
    net.lose_nothing();
    let everybody: Vec<usize> = (0..2 * HALF).collect();
    assert!(net.until(secs(300), |net| net.agree_on(&everybody)).is_some());
    // About one a member, since each looks for somebody of the other side at its own time.
    let exchanges = push_pulls(&net) - before;
    assert!(exchanges <= 2 * 2 * HALF as u64, "{exchanges}");
}

/// In a mixed cluster it is not known what one reads that may be back.
#[test]
fn who_may_be_back_is_asked_in_both_formats() {
    let mut config = quiet();
    config.wire_format = WireFormat::Mixed;
    config.probe_interval = Duration::ZERO;
    config.gossip_interval = Duration::ZERO;
    config.reconnect_interval = secs(1);
    let mut one = One::knowing(config, 1);
    one.machine.testing_dead(&Dead { incarnation: 1, node: "n1", from: "n0" }, one.now);
    let (mut packet, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        one.now += secs(1);
        one.machine.handle_timeout(one.now);
        while one.machine.poll_transmit(&mut packet, &mut |_| ROOM).is_some() {
            asked.extend(Dialect::of(packet[ROOM.head]));
        }
        if !asked.is_empty() {
            break;
        }
    }
    assert_eq!(asked, [Dialect::Hashicorp, Dialect::Native]);
}

/// It was cut off alone, and does not know that it was buried.
#[test]
fn a_dead_member_that_pings_is_told_so() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(2, &[dead("n1", 4, "n2")]);
    let accusations = |one: &mut One| {
        let sent = one.sent_first(MessageKind::Suspect);
        let told = |sent: &Sent| sent.messages().contains(&suspect("n1", 4, "n0"));
        (sent.len(), sent.iter().all(|sent| sent.to.addr == addr(1) && told(sent)))
    };
    one.sent();
    // Whether it is still in the table or was reaped.
    for age in [secs(1), secs(300)] {
        one.healthy = true;
        one.advance(age);
        one.sent();
        one.receive(1, &[ping(5, "n1", 1), ping(6, "n1", 1)]);
        assert_eq!(accusations(&mut one), (1, true), "once a packet");
        // Somebody else at another address, or under that name.
        one.receive(9, &[ping(5, "n1", 1)]);
        assert_eq!(accusations(&mut one).0, 0);
    }
    assert!(one.machine.tombstone("n1").is_some());
    for _ in 0..100 {
        one.receive(1, &[ping(5, "n1", 1)]);
    }
    assert!(accusations(&mut one).0 <= 32);
    assert!(one.drops(DropReason::TooManyAnswers) >= 68);
    // Who is held for left and pings has not left, or not by its own word.
    one.receive(2, &[dead("n2", 1, "n2")]);
    one.advance(secs(2));
    one.sent();
    one.receive(2, &[ping(5, "n2", 2)]);
    assert_eq!(one.sent_first(MessageKind::Suspect).len(), 1);
}

#[test]
fn a_forged_farewell_is_contradicted_as_soon_as_its_victim_pings() {
    for delta_sync in [false, true] {
        let config = Config { delta_sync, ..quiet() };
        let mut net = Net::cluster(8, config, 9);
        net.run(secs(5));
        // One packet to one member, as if n3 had left.
        let forged = packet(&[dead("n3", 1, "n3")]);
        net.call(0, |machine, now| machine.handle_packet(&peer(5), &forged, now).unwrap());
        net.lose(|_, to, kind| to == 3 && kind == Kind::Packet(MessageKind::Dead));
        net.until(secs(5), |net| net.state(1, 3) == Some(NodeState::Left)).expect("it is believed");
        let took = net.until(secs(20), |net| net.agree_on(&[0, 1, 2, 3, 4, 5, 6, 7]));
        assert!(took.is_some(), "delta_sync {delta_sync}");
    }
}

#[test]
fn who_has_left_stays_so_though_it_pings_by_hand() {
    let mut net = Net::cluster(4, quiet(), 9);
    net.call(3, |machine, now| machine.leave(now));
    net.until(secs(10), |net| (0..3).all(|i| net.state(i, 3) == Some(NodeState::Left))).unwrap();
    for _ in 0..20 {
        net.call(3, |machine, now| machine.ping(Peer::named(addr(0), id(0)), now));
        net.run(secs(1));
    }
    assert!((0..3).all(|i| net.state(i, 3).is_none_or(|state| state == NodeState::Left)));
    let said = net.log.iter().filter(|(from, _)| *from == 3).count();
    assert!(said < 100, "{said} packets for twenty pings");
}
