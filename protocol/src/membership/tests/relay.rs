//! Pings on behalf of others and by hand.

use super::*;
use crate::message::IndirectPing;

#[test]
fn a_relay_pings_and_passes_the_ack_on() {
    let mut net = Net::cluster(3, quiet(), 3);
    // The direct way between 0 and 1 is broken, streams too.
    net.lose(|from, to, _| from + to == 1);
    net.run(secs(20));
    assert_eq!(net.state(0, 1), Some(NodeState::Alive));
    assert_eq!(net.state(1, 0), Some(NodeState::Alive));
    let stats = net.hosts[0].machine.stats();
    assert!(stats.probes_acked_indirect >= 5 && stats.probes_acked_direct >= 5);
    assert_eq!((stats.probes_failed, stats.suspicions), (0, 0));
    assert_eq!(net.hosts[0].machine.health_score(), 0);
}

#[test]
fn a_relay_says_nack_in_time_for_the_prober() {
    let mut net = Net::cluster(4, direct_relays(), 4);
    net.crash(3);
    let dead = net.until(secs(60), |net| net.state(0, 3) == Some(NodeState::Dead));
    assert!(dead.is_some());
    // Every relay was there and said so: the probers are healthy, and know it.
    for host in &net.hosts[..3] {
        assert_eq!(host.machine.health_score(), 0);
    }
    let death = net.hosts[0].machine.member("n3").unwrap().death.unwrap();
    let probe = death.probe.as_ref().unwrap();
    assert_eq!(probe.relays.len(), 2);
    assert!(probe.relays.iter().all(|relay| relay.nacked));
}

#[test]
fn with_every_preset_nacks_keep_a_healthy_prober_healthy() {
    for preset in [Config::lan(), Config::wan(), Config::local()] {
        let interval = preset.probe_interval;
        let config = Config {
            push_pull_interval: Duration::ZERO,
            reconnect_interval: Duration::ZERO,
            stream_ping: false,
            ..preset
        };
        let mut net = Net::cluster(4, config, 4);
        net.delay = interval / 100;
        net.crash(3);
        assert!(net.until(secs(200), |net| net.state(0, 3) == Some(NodeState::Dead)).is_some());
        net.run(interval);
        for host in &mut net.hosts[..3] {
            assert!(host.machine.stats().probes > 3);
            let doubted = |(_, event): &(Duration, Event)| matches!(event, Event::HealthChanged(_));
            assert!(!host.events.iter().any(doubted), "with a probe interval of {interval:?}");
        }
    }
}

fn direct_relays() -> Config {
    let mut config = quiet();
    config.stream_ping = false;
    config
}

#[test]
fn the_nack_comes_at_four_fifths_of_the_timeout() {
    let mut one = One::knowing(quiet(), 2);
    let source = Some(PingSource { node: "n1", addr: addr(1) });
    let request = |nack, sequence| {
        Message::IndirectPing(IndirectPing { sequence, node: "n2", target: addr(2), nack, source })
    };
    one.receive(1, &[request(true, 77), request(false, 78)]);
    let pings = one.sent_first(MessageKind::Ping);
    assert_eq!(pings.len(), 2);
    assert!(pings.iter().all(|ping| ping.to_name() == "n2" && ping.sequence() != 77));
    let began = one.elapsed();
    one.advance(ms(600));
    let nacks = one.sent_first(MessageKind::Nack);
    assert_eq!(nacks.len(), 1);
    assert_eq!(nacks[0].messages(), [nack(77)]);
    assert_eq!((nacks[0].at - began, nacks[0].to_name()), (ms(400), "n1"));
    // After that it still waited, up to the whole timeout, and no longer.
    assert_eq!(one.machine.pending().pings, 0);
    one.receive(2, &[ack(pings[0].sequence())]);
    assert_eq!(one.drops(DropReason::UnexpectedAck), 1);
}

#[test]
fn an_ack_after_the_nack_is_passed_on_all_the_same() {
    let mut one = One::knowing(quiet(), 2);
    let source = Some(PingSource { node: "n1", addr: addr(1) });
    let request = IndirectPing { sequence: 9, node: "n2", target: addr(2), nack: true, source };
    one.receive(1, &[Message::IndirectPing(request)]);
    let ping = one.sent_first(MessageKind::Ping).remove(0);
    one.advance(ms(450));
    assert_eq!(one.sent_first(MessageKind::Nack).len(), 1);
    one.receive(2, &[ack(ping.sequence())]);
    let acks = one.sent_first(MessageKind::Ack);
    assert_eq!((acks[0].messages()[0], acks[0].to_name()), (ack(9), "n1"));
    // An answer in time takes the nack back.
    one.receive(1, &[Message::IndirectPing(request)]);
    let ping = one.sent_first(MessageKind::Ping).remove(0);
    one.receive(2, &[ack(ping.sequence())]);
    one.advance(ms(600));
    assert_eq!(one.sent_first(MessageKind::Nack).len(), 0);
}

#[test]
fn a_ping_by_hand_changes_nothing_else() {
    let mut one = One::new(quiet());
    let first = one.machine.ping(peer(1), one.now);
    one.drain();
    let ping = one.sent_first(MessageKind::Ping).remove(0);
    let Message::Ping(message) = ping.messages()[0] else { panic!("no ping") };
    assert_eq!(message.node, "");
    one.advance(ms(30));
    one.receive(1, &[ack(ping.sequence())]);
    assert_eq!(one.events(), [Event::PingDone { id: first, rtt: Some(ms(30)) }]);

    let second = one.machine.ping(Peer::named(addr(2), id(2)), one.now);
    one.advance(ms(499));
    assert_eq!(one.events(), []);
    one.advance(ms(1));
    assert_eq!(one.events(), [Event::PingDone { id: second, rtt: None }]);
    assert_eq!((one.machine.known_members(), one.machine.health_score()), (1, 0));
    assert_eq!(one.machine.pending().pings, 0);
}
