//! Fresh news goes out and is passed on at once, within the bounds.

use super::*;
use crate::membership::{Priority, Relation};
use crate::wire::WireFormat;

const SPACING: Duration = Duration::from_millis(10);

fn gossip(sent: Vec<Sent>) -> Vec<Sent> {
    let probes = [MessageKind::Ping, MessageKind::Ack];
    sent.into_iter().filter(|sent| !probes.contains(&sent.kinds()[0])).collect()
}

/// A machine that knows that many, each of whom answers its probes.
fn knowing(others: usize) -> One {
    let mut one = One::knowing(quiet(), others);
    one.healthy = true;
    one
}

#[test]
fn news_is_passed_on_at_once_to_the_fan_out() {
    let mut one = knowing(50);
    one.advance(secs(2));
    one.sent();
    let at = one.elapsed();
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    one.advance(Duration::ZERO);
    let sent = gossip(one.sent());
    assert_eq!(sent.len(), quiet().gossip_nodes);
    assert!(sent.iter().all(|sent| sent.at == at && sent.kinds() == [MessageKind::Alive]));
}

#[test]
fn what_comes_within_the_spacing_travels_together() {
    let mut one = knowing(50);
    one.advance(secs(2));
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    one.advance(ms(1));
    one.sent();
    for i in 3..8 {
        one.receive(1, &[Message::Alive(alive(&name(i), i, 2))]);
        one.advance(ms(1));
    }
    assert_eq!(gossip(one.sent()), []);
    one.advance(SPACING - ms(6));
    let sent = gossip(one.sent());
    assert_eq!(sent.len(), quiet().gossip_nodes);
    assert!(sent.iter().all(|sent| sent.kinds() == [MessageKind::Alive; 6]));
}

#[test]
fn rounds_and_ticks_together_keep_to_the_retransmit_limit() {
    for (others, limit) in [(3, 4), (50, 8), (200, 12)] {
        let mut one = knowing(others);
        one.advance(secs(2));
        one.sent();
        let began = one.elapsed();
        one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
        one.advance(secs(5));
        let alive = MessageKind::Alive;
        let sent: Vec<_> =
            one.sent().into_iter().filter(|sent| sent.kinds().contains(&alive)).collect();
        let counted = gossip(sent);
        assert!(counted.len() as u32 <= limit, "{} of {limit}", counted.len());
        let eager = counted.iter().filter(|sent| sent.at - began < ms(90)).count() as u32;
        // One may have ridden on a ping.
        assert!(eager >= limit - limit / 4 - 1, "{eager} of {limit} at once");
        assert!(one.machine.news.is_empty());
    }
}

#[test]
fn known_news_is_not_passed_on() {
    let mut one = knowing(50);
    one.advance(secs(2));
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    one.advance(secs(5));
    one.sent();
    for _ in 0..100 {
        one.receive(3, &[Message::Alive(alive("n2", 2, 2)), Message::Alive(alive("n3", 3, 1))]);
        one.advance(ms(10));
    }
    assert_eq!(gossip(one.sent()), []);
}

#[test]
fn without_a_spacing_only_ticks_carry_news() {
    let mut config = quiet();
    config.eager_gossip_spacing = Duration::ZERO;
    let mut one = One::knowing(config, 50);
    one.healthy = true;
    one.advance(secs(2));
    one.sent();
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    let tick = quiet().gossip_interval;
    one.advance(tick * 2);
    let times: std::collections::BTreeSet<_> =
        gossip(one.sent()).iter().map(|sent| sent.at).collect();
    assert!((1..=2).contains(&times.len()), "{times:?}");
}

/// A member that makes news as fast as it likes. Beside what ticks send anyway, eager rounds send what
/// the module says and no more.
#[test]
fn a_storm_costs_no_more_than_the_bound() {
    let bytes_of = |config: Config, seconds: u32| {
        let mut one = One::knowing(config, 100);
        one.healthy = true;
        one.advance(secs(2));
        one.sent();
        for step in 0..seconds * 500 {
            let who = 2 + step as usize % 99;
            let incarnation = 2 + step / 99;
            one.receive(1, &[Message::Alive(alive(&name(who), who, incarnation))]);
            one.advance(ms(2));
        }
        let sent = gossip(one.sent());
        sent.iter().map(|sent| sent.bytes.len() + 28).sum::<usize>() as f64
    };
    let mut ticks = quiet();
    ticks.eager_gossip_spacing = Duration::ZERO;
    let full_tick = (ticks.gossip_nodes * (ticks.max_packet_bytes + 28)) as f64;
    for seconds in [1, 4] {
        let eager = bytes_of(quiet(), seconds) - bytes_of(ticks.clone(), seconds);
        let bound = full_tick * (f64::from(seconds) + 2.0) + 1428.0;
        // A second has five ticks, of which a fifth is eager rounds' share.
        assert!(eager <= bound, "{seconds} s: {eager} of {bound} bytes");
    }
}

#[test]
fn user_broadcasts_go_out_at_once_too() {
    let mut one = knowing(50);
    one.advance(secs(2));
    one.sent();
    let now = one.now;
    one.machine.broadcast(b"fresh", Relation::Unique, Priority::Normal, now).unwrap();
    one.advance(Duration::ZERO);
    let sent = gossip(one.sent());
    assert_eq!(sent.len(), quiet().gossip_nodes);
    assert!(sent.iter().all(|sent| sent.kinds() == [MessageKind::Broadcast]));
}

/// In Go's format nobody passes a broadcast on: its origin is to reach every member by itself.
#[test]
fn what_is_for_every_member_skips_none() {
    let mut config = quiet();
    config.wire_format = WireFormat::Hashicorp;
    for seed in 0..20 {
        let mut one = One::seeded(config.clone(), (), seed);
        one.know(1..=40);
        let mut told = std::collections::BTreeSet::new();
        let now = one.now;
        one.machine.broadcast(b"first", Relation::Unique, Priority::Normal, now).unwrap();
        for later in 0..200 {
            one.machine.handle_timeout(one.now);
            let mut packet = Vec::new();
            while let Some(sent) = one.machine.poll_transmit(&mut packet, &mut |_| ROOM) {
                if packet.windows(5).any(|bytes| bytes == b"first") {
                    told.insert(sent.to.addr);
                }
            }
            if later % 7 == 0 {
                let (text, now) = (format!("later {later}"), one.now);
                let text = text.as_bytes();
                one.machine.broadcast(text, Relation::Unique, Priority::Normal, now).unwrap();
            }
            one.now += ms(10);
        }
        assert_eq!(told.len(), 40, "seed {seed}");
    }
}

#[test]
fn a_lone_node_does_not_run_in_circles() {
    let mut one = One::new(quiet());
    one.machine.update_meta(Bytes::from_static(b"new"), one.now).unwrap();
    one.advance(secs(10));
    assert_eq!(one.sent(), []);
}

#[test]
fn accusations_wait_for_the_tick_and_refutations_do_not() {
    let mut one = knowing(50);
    one.advance(secs(2));
    one.sent();
    one.receive(1, &[suspect("n2", 1, "n3")]);
    let tick = one.machine.config.gossip_interval;
    one.advance(Duration::ZERO);
    // Some tell the accused at once, so that it can contradict.
    assert!(gossip(one.sent()).iter().all(|sent| sent.to_name() == "n2"));
    let mut suspicions = 0;
    let began = one.now;
    while suspicions == 0 {
        one.advance(ms(1));
        suspicions = gossip(one.sent()).len();
        assert!(one.now - began <= tick, "the tick passes it on");
    }
    assert_eq!(suspicions, quiet().gossip_nodes);

    let mut one = knowing(50);
    one.advance(secs(2));
    one.receive(1, &[suspect("n2", 1, "n3")]);
    one.advance(Duration::ZERO);
    one.sent();
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    one.advance(SPACING);
    let sent = gossip(one.sent());
    assert!(!sent.is_empty() && sent.iter().all(|sent| sent.kinds()[0] == MessageKind::Alive));
}

#[test]
fn what_the_own_timers_conclude_waits_for_the_tick_and_then_runs() {
    let mut one = knowing(50);
    one.advance(secs(2));
    one.receive(1, &[suspect("n2", 1, "n3")]);
    let (mut said, began) = (Vec::new(), one.now);
    while one.state(2) == Some(NodeState::Suspect) {
        one.advance(ms(1));
        assert!(one.now - began < secs(60), "it expires");
    }
    let died = one.now;
    one.sent();
    one.advance(Duration::ZERO);
    assert_eq!(gossip(one.sent()), []);
    // From the tick on, rounds follow at once.
    for _ in 0..250 {
        one.advance(ms(1));
        said.extend(gossip(one.sent()));
    }
    assert!(said.iter().all(|sent| sent.kinds() == [MessageKind::Dead]));
    let first = said[0].at - (died - one.began);
    assert!(first <= one.machine.config.gossip_interval, "{first:?}");
    assert!(said[quiet().gossip_nodes].at - said[0].at <= SPACING, "the next round follows");
}

#[test]
fn who_is_suspected_is_told_the_news_too_and_alone_draws_no_further_rounds() {
    let mut one = knowing(2);
    one.healthy = false;
    one.advance(secs(2));
    for i in [1, 2] {
        one.receive(1, &[suspect(&name(i), 1, "n9")]);
    }
    assert_eq!((one.state(1), one.state(2)), (Some(NodeState::Suspect), Some(NodeState::Suspect)));
    one.sent();
    one.receive(1, &[Message::Alive(alive("n3", 3, 1))]);
    one.machine.testing_dead(&Dead { incarnation: 1, node: "n3", from: "n1" }, one.now);
    one.advance(ms(150));
    let told: Vec<_> = gossip(one.sent()).iter().map(|sent| sent.to_name().to_owned()).collect();
    assert!(told.contains(&"n1".to_owned()) && told.contains(&"n2".to_owned()), "{told:?}");
    assert!(told.len() <= 8, "two rounds, and perhaps a tick: {told:?}");
}
