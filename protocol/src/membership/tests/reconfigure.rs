//! Settings that change while the node runs.

use super::net::Net;
use super::*;
use crate::error::ReconfigureError;
use crate::wire::WireFormat;
use crate::{Priority, Relation};

fn probes_in(one: &mut One, time: Duration) -> u64 {
    let before = one.machine.stats().probes;
    one.advance(time);
    one.sent();
    one.machine.stats().probes - before
}

fn change(one: &mut One, change: impl FnOnce(&mut Config)) -> Result<(), ReconfigureError> {
    let mut config = one.machine.config().clone();
    change(&mut config);
    let result = one.machine.reconfigure(config, one.now);
    one.drain();
    result
}

#[test]
fn intervals_change_at_once_and_can_be_switched_off_and_on() {
    let mut one = One::knowing(quiet(), 5);
    one.healthy = true;
    assert_eq!(probes_in(&mut one, secs(10)), 10);
    change(&mut one, |config| config.probe_interval = secs(3600)).unwrap();
    assert!(probes_in(&mut one, secs(10)) <= 1);
    change(&mut one, |config| config.probe_interval = secs(2)).unwrap();
    let probes = probes_in(&mut one, secs(20));
    assert!((9..=11).contains(&probes), "an hour is not waited for: {probes}");
    change(&mut one, |config| config.probe_interval = Duration::ZERO).unwrap();
    assert_eq!(probes_in(&mut one, secs(60)), 0);
    change(&mut one, |config| config.probe_interval = secs(1)).unwrap();
    let probes = probes_in(&mut one, secs(10));
    assert!((9..=11).contains(&probes), "{probes}");

    change(&mut one, |config| config.push_pull_interval = secs(5)).unwrap();
    one.advance(secs(22));
    let asked = std::iter::from_fn(|| one.machine.poll_stream_request()).count();
    assert!((4..=5).contains(&asked), "{asked}");
    change(&mut one, |config| config.push_pull_interval = Duration::ZERO).unwrap();
    one.advance(secs(60));
    assert_eq!(one.machine.poll_stream_request(), None);
}

#[test]
fn gossip_goes_on_with_another_interval() {
    let config = Config { eager_gossip_spacing: Duration::ZERO, ..quiet() };
    let mut one = One::knowing(config, 50);
    one.healthy = true;
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    change(&mut one, |config| config.gossip_interval = secs(2)).unwrap();
    one.advance(secs(7));
    let times: Vec<_> = one.sent_first(MessageKind::Alive).iter().map(|sent| sent.at).collect();
    let gap = |pair: &[Duration]| pair[1] - pair[0];
    assert!(times.len() >= 4, "{times:?}");
    assert!(times.windows(2).map(gap).all(|gap| gap.is_zero() || gap == secs(2)), "{times:?}");
}

#[test]
fn what_others_depend_on_does_not_change_and_nothing_else_then() {
    let mut one = One::knowing(quiet(), 3);
    let before = one.machine.config().clone();
    let error = change(&mut one, |config| {
        config.wire_format = WireFormat::Mixed;
        config.max_packet_bytes = 9000;
        config.probe_interval = secs(7);
    });
    let fields = vec!["max_packet_bytes", "wire_format"];
    assert_eq!(error, Err(ReconfigureError::Fixed { fields }));
    let error = change(&mut one, |config| {
        config.retransmit_mult = 0;
        config.probe_timeout = secs(90);
    });
    let Err(ReconfigureError::Config(faults)) = error else { panic!("{error:?}") };
    assert_eq!(faults.faults.len(), 2);
    assert_eq!(*one.machine.config(), before);
}

#[test]
fn gossip_can_be_switched_off_while_a_round_waits() {
    for (nodes, interval) in [(0, Duration::ZERO), (0, ms(200)), (3, Duration::ZERO)] {
        let mut one = One::knowing(Config { eager_gossip_spacing: secs(4), ..quiet() }, 50);
        one.healthy = true;
        one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
        one.advance(ms(10));
        one.receive(1, &[Message::Alive(alive("n3", 3, 2))]);
        one.sent();
        change(&mut one, |config| {
            (config.gossip_nodes, config.gossip_interval) = (nodes, interval);
        })
        .unwrap();
        one.advance(secs(20));
        assert_eq!(one.sent_first(MessageKind::Alive).len(), 0, "{nodes} {interval:?}");
    }
}

#[test]
fn news_is_spaced_anew_at_once() {
    let config = Config { eager_gossip_spacing: secs(86_400), ..quiet() };
    let mut one = One::knowing(config, 50);
    one.healthy = true;
    for incarnation in 2..6 {
        one.receive(1, &[Message::Alive(alive("n4", 4, incarnation))]);
        one.advance(secs(3));
    }
    change(&mut one, |config| config.eager_gossip_spacing = ms(10)).unwrap();
    one.advance(secs(10));
    one.sent();
    one.receive(1, &[Message::Alive(alive("n4", 4, 6))]);
    one.advance(ms(15));
    assert!(one.sent_first(MessageKind::Alive).len() >= 3);
}

#[test]
fn broadcasts_beyond_a_smaller_limit_are_dropped_and_counted() {
    let mut one = One::knowing(quiet(), 3);
    for byte in 0..100 {
        one.machine.broadcast(&[byte], Relation::Unique, Priority::Normal, one.now).unwrap();
    }
    change(&mut one, |config| config.max_user_broadcasts = 2).unwrap();
    assert_eq!(one.machine.user.len(), 2);
    assert_eq!(one.machine.stats().drops(DropReason::BroadcastQueueFull), 98);
}

#[test]
fn an_update_is_not_confirmed_long_after_comparing_was_switched_off() {
    let mut net = Net::cluster(4, Config::lan(), 7);
    let switch = |net: &mut Net, on| {
        net.call(0, |machine, now| {
            let mut config = machine.config().clone();
            config.delta_sync = on;
            machine.reconfigure(config, now).unwrap();
        });
    };
    net.run(secs(20));
    net.call(0, |machine, now| machine.update_meta(vec![1].into(), now).unwrap());
    switch(&mut net, false);
    net.run(secs(3600));
    switch(&mut net, true);
    net.run(secs(20));
    let lags = net.hosts[0].events.iter().filter_map(|(_, event)| match event {
        Event::Converged { after } => Some(*after),
        _ => None,
    });
    assert!(lags.clone().all(|after| after < secs(60)), "{:?}", lags.collect::<Vec<_>>());
}
