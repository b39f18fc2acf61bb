//! What a node says of a member's state, and of itself.

use super::*;
use crate::membership::{Finding, HealthCause, ProbeOutcome};

/// A cluster that compares members and exchanges nothing, after a while of health.
fn healthy(n: usize) -> Net {
    let mut net = Net::cluster(n, quiet(), 3);
    net.run(secs(20));
    net
}

fn findings(net: &Net, at: usize, of: usize) -> Vec<Finding> {
    let explanation = net.hosts[at].machine.explain(&name(of), net.now);
    explanation.expect("it is known").findings
}

fn says(net: &Net, at: usize, of: usize) -> String {
    net.hosts[at].machine.explain(&name(of), net.now).expect("it is known").to_string()
}

/// Lets time pass until a node has that to say of another.
fn until_found(net: &mut Net, at: usize, of: usize, is: impl Fn(&Finding) -> bool) -> Vec<Finding> {
    let found = net.until(secs(60), |net| findings(net, at, of).iter().any(&is));
    assert!(found.is_some(), "n{at} of n{of}: {}", says(net, at, of));
    findings(net, at, of)
}

#[test]
fn nothing_is_said_against_a_healthy_member() {
    let net = healthy(4);
    for (at, of) in [(0, 1), (1, 2), (3, 0), (2, 2)] {
        assert_eq!(findings(&net, at, of), []);
    }
    let text = says(&net, 0, 1);
    assert!(text.starts_with("n1 at 10.0.0.2:7946 is alive since 20.0 s ago (incarnation 1)."));
    assert!(text.contains("last round trip 10.0 ms"), "{text}");
    assert!(text.contains("ago: answered after 10.0 ms"), "{text}");
    assert!(!text.contains("What follows"), "{text}");
    assert_eq!(net.hosts[0].machine.explain("nobody", net.now), None);
    let health = net.hosts[0].machine.health(net.now);
    assert_eq!((health.score, health.findings.len()), (0, 0));
    assert!(health.to_string().contains("0 of at most 7: healthy"), "{health}");
}

#[test]
fn a_crashed_member_is_unreachable_and_then_dead_for_a_reason() {
    let mut net = healthy(4);
    net.crash(3);
    until_found(&mut net, 0, 3, |f| matches!(f, Finding::Unreachable { relays: 2 }));
    let text = says(&net, 0, 3);
    assert!(text.contains("nothing of it answers, neither here nor at 2 relays"), "{text}");
    let suspected = net.hosts[0].machine.explain("n3", net.now).unwrap().suspicion.unwrap();
    assert!(suspected.ends_at > net.now);
    assert!(text.contains("confirmations); declared dead in"), "{text}");

    net.until(secs(60), |net| net.state(0, 3) == Some(NodeState::Dead)).expect("it dies");
    let dead = net.hosts[0].machine.explain("n3", net.now).unwrap();
    assert_eq!(dead.suspicion, None);
    assert!(dead.forgotten_at.is_some_and(|at| at > net.now));
    assert!(dead.to_string().contains("It was declared dead by"), "{dead}");

    net.until(secs(120), |net| net.state(0, 3).is_none()).expect("it is forgotten");
    let gone = net.hosts[0].machine.explain("n3", net.now).unwrap();
    assert!(gone.member.is_none() && gone.tombstone.is_some());
    assert!(gone.to_string().contains("and was forgotten"), "{gone}");
}

/// Nothing reaches n3 any more, answers on streams included, but the packets that it sends arrive.
#[test]
fn who_hears_nobody_is_told_apart_on_both_sides() {
    let mut net = healthy(4);
    net.lose(|from, to, kind| to == 3 || (from == 3 && kind == Kind::Stream));
    let found = until_found(&mut net, 0, 3, |f| matches!(f, Finding::OneWay { .. }));
    assert!(!found.iter().any(|f| matches!(f, Finding::Unreachable { .. })), "{found:?}");
    assert!(says(&net, 0, 3).contains("the way to it is cut in that direction only"));

    let deaf = |f: &Finding| matches!(f, Finding::NothingArrives { last: Some(_) });
    until_found(&mut net, 3, 0, deaf);
    assert!(says(&net, 3, 0).contains("this node itself seems to be cut off"));
    let health = net.hosts[3].machine.health(net.now);
    assert!(health.findings.iter().any(deaf));
    assert!(health.score > 0);
    assert!(health.changes.iter().any(|c| matches!(c.cause, HealthCause::Unanswered { .. })));
    assert!(health.to_string().contains("answered no probe"), "{health}");

    // That it is declared dead does not change what is seen of it.
    net.until(secs(60), |net| net.state(0, 3) == Some(NodeState::Dead)).expect("it dies");
    net.run(secs(2));
    assert!(says(&net, 0, 3).contains("its packets arrive here"), "{}", says(&net, 0, 3));
}

/// Packets and streams from n0 to n1 are lost; the others reach both.
#[test]
fn a_route_that_is_cut_in_one_direction_shows_at_both_ends() {
    let mut net = healthy(5);
    net.lose(|from, to, _| (from, to) == (0, 1));
    let found = until_found(&mut net, 0, 1, |f| matches!(f, Finding::OneWay { .. }));
    assert!(found.iter().any(|f| matches!(f, Finding::OnlyThroughRelays { .. })), "{found:?}");
    // n0 hears n1 and answers, and that is what is lost.
    let relayed = |f: &Finding| matches!(f, Finding::OnlyThroughRelays { .. });
    let found = until_found(&mut net, 1, 0, relayed);
    assert!(!found.iter().any(|f| matches!(f, Finding::OneWay { .. })), "{found:?}");
    assert!(says(&net, 1, 0).contains("packets between it and this node are lost"));
    assert_eq!(
        (net.state(0, 1), net.state(1, 0)),
        (Some(NodeState::Alive), Some(NodeState::Alive))
    );
}

#[test]
fn streams_that_pass_where_packets_do_not() {
    let mut net = healthy(4);
    net.lose(|from, to, kind| (from == 3 || to == 3) && kind != Kind::Stream);
    let found = until_found(&mut net, 0, 3, |f| *f == Finding::StreamsOnly);
    assert!(!found.iter().any(|f| matches!(f, Finding::NothingArrives { .. })), "{found:?}");
    assert!(says(&net, 0, 3).contains("UDP is blocked"));
}

#[test]
fn packets_that_pass_where_streams_do_not() {
    let mut config = quiet();
    config.push_pull_interval = secs(5);
    let mut net = Net::cluster(2, config, 3);
    net.run(secs(20));
    assert_eq!(findings(&net, 0, 1), []);
    net.lose(|_, _, kind| kind == Kind::Stream);
    until_found(&mut net, 0, 1, |f| matches!(f, Finding::PacketsOnly { .. }));
    assert!(says(&net, 0, 1).contains("it answers packets, but streams to it fail"));
}

#[test]
fn a_pause_of_the_own_process_is_named() {
    let mut net = healthy(4);
    net.pause(0);
    net.run(secs(4));
    net.resume(0);
    let now = net.now;
    net.call(0, |machine, now| machine.handle_stall(secs(4), now));
    let health = net.hosts[0].machine.health(now);
    assert_eq!(health.findings, [Finding::StoodStill { late: secs(4), ago: secs(0) }]);
    assert!(health.to_string().contains("stood still for 4.0 s"), "{health}");
    assert_eq!(net.hosts[0].machine.stats().stalls, 1);
    // A while later it explains nothing any more.
    net.run(secs(61));
    let health = net.hosts[0].machine.health(net.now);
    assert_eq!((health.findings.len(), health.stalls.len()), (0, 1));
}

#[test]
fn an_accusation_by_others_is_held_against_the_own_probe() {
    let mut one = One::knowing(quiet(), 4);
    one.healthy = true;
    one.advance(secs(10));
    one.receive(2, &[suspect("n1", 1, "n2")]);
    let explanation = one.machine.explain("n1", one.now).unwrap();
    let accusers = vec![id(2)];
    assert!(matches!(&explanation.findings[..],
        [Finding::AnswersHere { accusers: by, .. }] if *by == accusers));
    assert!(explanation.to_string().contains("it is accused by n2"), "{explanation}");
}

#[test]
fn acks_from_elsewhere_are_named() {
    let mut config = quiet();
    config.stream_ping = false;
    let mut one = One::knowing(config, 1);
    let ping = one.next_ping();
    one.receive_from(&peer(9), &[ack(ping.sequence())]);
    one.advance(secs(1));
    let explanation = one.machine.explain("n1", one.now).unwrap();
    assert_eq!(explanation.findings[0], Finding::StrayAcks(addr(9)), "{explanation}");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut one = One::knowing(quiet(), 3);
    one.healthy = true;
    one.advance(secs(400));
    let probes: usize =
        (1..=3).map(|i| one.machine.explain(&name(i), one.now).unwrap().probes.len()).sum();
    assert_eq!(probes, 128);
    let newest = &one.machine.explain("n1", one.now).unwrap().probes;
    assert!(newest.is_sorted_by(|a, b| a.sent_at > b.sent_at), "newest first");
    assert_eq!(newest[0].outcome, ProbeOutcome::Direct(Duration::ZERO));
    for i in 0..1000 {
        one.machine.handle_stall(ms(i), one.now);
    }
    assert_eq!(one.machine.health(one.now).stalls.len(), 8);
}
