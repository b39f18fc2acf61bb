//! What a node says of a member's state, and of itself.

use super::*;
use crate::error::ExchangeError;
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
    assert!(text.starts_with("n1 at 10.0.0.2:7946 has been alive for 20.0 s (incarnation 1)."));
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
    assert!(!gone.to_string().contains("No packet"), "that is not known any more: {gone}");
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
    assert_eq!(explanation.findings, [], "it may have stopped since it was asked");
    one.advance(secs(8));
    let explanation = one.machine.explain("n1", one.now).unwrap();
    let accusers = vec![id(2)];
    assert!(
        matches!(&explanation.findings[..],
        [Finding::AnswersHere { accusers: by, .. }] if *by == accusers),
        "{explanation}"
    );
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

/// How often a node says such a thing of another, asked ten times a second.
fn times_found(
    net: &mut Net,
    (ats, of): (std::ops::Range<usize>, usize),
    time: Duration,
    is: impl Fn(&Finding) -> bool,
) -> usize {
    let (end, mut times) = (net.now + time, 0);
    while net.now < end {
        net.run(ms(100));
        for at in ats.clone() {
            let explanation = net.hosts[at].machine.explain(&name(of), net.now);
            times += explanation.map_or(0, |e| e.findings.iter().filter(|f| is(f)).count());
        }
    }
    times
}

#[test]
fn nobody_is_blamed_for_a_crash_that_came_after_the_last_answer() {
    for seed in 0..5 {
        let mut net = Net::cluster(10, quiet(), seed * 100);
        net.run(secs(20));
        net.crash(9);
        let blames = |f: &Finding| matches!(f, Finding::AnswersHere { .. });
        assert_eq!(times_found(&mut net, (0..9, 9), secs(28), blames), 0, "seed {seed}");
    }
}

#[test]
fn a_stream_that_failed_in_another_life_says_nothing_of_this_one() {
    let mut config = quiet();
    config.push_pull_interval = secs(5);
    let mut net = Net::cluster(8, config, 3);
    net.run(secs(20));
    net.crash(7);
    let blocked = |f: &Finding| matches!(f, Finding::PacketsOnly { .. });
    assert_eq!(times_found(&mut net, (0..7, 7), secs(20), blocked), 0, "crashed");
    net.restart(7);
    net.call(7, |machine, _| machine.join(peer(0)));
    assert_eq!(times_found(&mut net, (0..7, 7), secs(60), blocked), 0, "restarted");
}

#[test]
fn a_refused_stream_is_not_a_blocked_one() {
    let mut one = One::new(quiet());
    one.healthy = true;
    for (node, message, refused) in
        [("n1", "os error 111", true), ("refused", "connection refused by a name", false)]
    {
        one.receive(1, &[Message::Alive(alive(node, 1, 1))]);
        one.advance(secs(10));
        let peer = Peer::named(addr(1), NodeId::new(node).unwrap());
        let message = message.to_owned();
        let error = ExchangeError::Io { peer: peer.clone(), message, refused };
        one.machine.note_stream(&peer, Some(&error), one.now);
        one.advance(secs(10));
        let text = one.machine.explain(node, one.now).unwrap().to_string();
        assert!(text.contains("it answers packets, but streams to it fail"), "{text}");
        assert_eq!(text.contains("nothing listens"), refused, "{text}");
        assert_eq!(text.contains("port is blocked"), !refused, "{text}");
    }
}

#[test]
fn a_stall_explains_only_the_probe_that_it_overlaps() {
    let mut config = quiet();
    config.gossip_to_the_dead_time = secs(36_000);
    let mut net = Net::cluster(4, config, 3);
    net.run(secs(20));
    net.crash(3);
    net.until(secs(60), |net| net.state(0, 3) == Some(NodeState::Dead)).expect("it dies");
    net.run(secs(30));
    let before = findings(&net, 0, 3);
    assert!(matches!(before[0], Finding::Unreachable { .. }), "{before:?}");
    net.call(0, |machine, now| machine.handle_stall(ms(100), now));
    assert_eq!(findings(&net, 0, 3), before);

    // The stall that made the end of a probe late is told right after it, and may be long.
    let mut one = One::knowing(quiet(), 1);
    one.next_ping();
    one.advance(secs(1));
    one.machine.handle_stall(ms(700), one.now + ms(600));
    let explanation = one.machine.explain("n1", one.now + ms(600)).unwrap();
    let stood_still = |f: &Finding| matches!(f, Finding::StoodStill { .. });
    assert!(explanation.findings.iter().any(stood_still), "{explanation}");
}

#[test]
fn one_lost_ack_is_no_route_that_is_cut() {
    let mut net = healthy(6);
    let mut lost = false;
    net.lose(move |from, to, kind| {
        let this = !lost && (from, to) == (1, 0) && kind == Kind::Packet(MessageKind::Ack);
        lost |= this;
        this
    });
    let one_way = |f: &Finding| matches!(f, Finding::OneWay { .. });
    assert_eq!(times_found(&mut net, (0..1, 1), secs(30), one_way), 0);
}

#[test]
fn answers_that_come_after_their_probe_are_late_and_not_lost() {
    let mut net = healthy(4);
    net.delay = ms(600);
    let late = |f: &Finding| matches!(f, Finding::AnswersLate { after } if *after == ms(1200));
    until_found(&mut net, 0, 3, late);
    assert!(says(&net, 0, 3).contains("it answers, but later than the timeout (after 1.2 s)"));
    assert!(says(&net, 0, 3).contains("; its own answer came after 1.2 s"));
    let one_way = |f: &Finding| matches!(f, Finding::OneWay { .. });
    assert_eq!(times_found(&mut net, (0..1, 3), secs(60), one_way), 0);
}

fn says_cut_off(finding: &Finding) -> bool {
    matches!(finding, Finding::NothingArrives { .. })
}

#[test]
fn the_last_node_left_does_not_know_whether_it_is_cut_off() {
    let mut net = healthy(3);
    net.crash(1);
    net.run(secs(60));
    // No stream is refused either.
    net.lose(|_, _, _| true);
    let asked = |f: &Finding| matches!(f, Finding::OnlyOneAsked { node, .. } if *node == id(2));
    let found = until_found(&mut net, 0, 2, asked);
    assert!(!found.iter().any(says_cut_off), "{found:?}");
    assert!(says(&net, 0, 2).contains("either that is down, or this node itself is cut off"));
    net.run(secs(3600));
    let health = net.hosts[0].machine.health(net.now);
    assert!(health.findings.iter().any(asked), "{health}");
    assert!(!health.findings.iter().any(says_cut_off), "{health}");
}

#[test]
fn who_hears_none_of_several_is_cut_off_to_the_end() {
    let mut net = healthy(3);
    net.lose(|from, to, _| from == 0 || to == 0);
    until_found(&mut net, 0, 1, says_cut_off);
    net.run(secs(600));
    let health = net.hosts[0].machine.health(net.now);
    assert!(health.findings.iter().any(says_cut_off), "{health}");
}

#[test]
fn a_host_that_refuses_a_stream_shows_that_the_network_works() {
    let mut net = healthy(2);
    net.crash(1);
    let cut = |f: &Finding| says_cut_off(f) || matches!(f, Finding::OnlyOneAsked { .. });
    assert_eq!(times_found(&mut net, (0..1, 1), ms(4500), cut), 0, "{}", says(&net, 0, 1));
    let down = |f: &Finding| matches!(f, Finding::Unreachable { .. });
    assert!(findings(&net, 0, 1).iter().any(down), "{}", says(&net, 0, 1));
    assert_eq!(net.hosts[0].machine.health(net.now).findings, []);
}

/// Without nacks a relay that hears nothing either is silent too.
#[test]
fn the_silence_of_relays_that_know_no_nacks_is_no_evidence() {
    for seed in 0..5 {
        let mut config = quiet();
        config.lifeguard.health_aware_probe = false;
        let mut net = Net::cluster(3, config, seed * 100);
        net.run(secs(10));
        net.lose(|from, to, _| from == 2 || to == 2);
        assert_eq!(times_found(&mut net, (0..2, 2), secs(10), says_cut_off), 0, "seed {seed}");
    }
}

#[test]
fn a_name_cannot_forge_a_line() {
    let forger = "n1\n  forged \u{1b}[2J\u{202e}";
    let mut one = One::knowing(quiet(), 1);
    one.receive(1, &[Message::Alive(alive(forger, 5, 1))]);
    one.receive(1, &[suspect("n1", 1, forger)]);
    one.healthy = true;
    one.advance(secs(2));
    let accused = one.machine.explain("n1", one.now).unwrap().to_string();
    assert!(accused.contains(r"n1\n  forged \u{1b}[2J\u{202e}"), "{accused}");
    one.receive(1, &[dead("n1", 1, forger), suspect(forger, 1, forger)]);
    one.healthy = false;
    one.advance(secs(20));
    let texts = [
        accused,
        one.machine.explain("n1", one.now).unwrap().to_string(),
        one.machine.explain(forger, one.now).unwrap().to_string(),
        one.machine.health(one.now).to_string(),
    ];
    for text in texts {
        assert!(text.contains(r"\n  forged"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("  forged")), "{text}");
        let misleads = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(misleads), "{text}");
    }
}
