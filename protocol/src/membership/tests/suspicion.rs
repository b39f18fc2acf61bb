//! The time between a failed probe and a death.

use super::*;
use crate::wire::WireFormat;

/// A machine that suspects `n1` by `n2`, in a cluster of `n`.
fn suspecting(config: Config, n: usize) -> One {
    let mut one = One::knowing(config, n - 1);
    one.healthy = true;
    one.receive(2, &[suspect("n1", 1, "n2")]);
    assert_eq!(one.state(1), Some(NodeState::Suspect));
    one
}

/// Lets time pass until `n1` is dead; gives how long that took.
fn time_of_death(one: &mut One) -> Duration {
    let began = one.machine.member("n1").unwrap().since;
    for _ in 0..200_000 {
        if one.state(1) == Some(NodeState::Dead) {
            return one.now - began;
        }
        one.advance(ms(1));
    }
    panic!("it never dies");
}

/// Upstream's dogpile test: probes each 100 ms, mult 5 and at most twice the minimum.
fn dogpile() -> Config {
    let mut config = quiet();
    config.probe_interval = ms(100);
    config.probe_timeout = ms(50);
    config.suspicion_mult = 5;
    config.suspicion_max_timeout_mult = 2;
    config
}

#[test]
fn the_more_accuse_the_sooner_it_is_dead() {
    // (cluster, confirmations, milliseconds)
    let cases = [
        (3, 0, 500),
        (4, 2, 500),
        (5, 0, 1000),
        (6, 0, 1000),
        (6, 1, 750),
        (6, 2, 603),
        (6, 3, 500),
        (9, 5, 500),
    ];
    for (n, confirmations, millis) in cases {
        let mut one = suspecting(dogpile(), n);
        for i in 0..confirmations {
            one.receive(2, &[suspect("n1", 1, &format!("accuser {i}"))]);
        }
        let took = time_of_death(&mut one);
        assert_eq!(took, ms(millis), "{n} nodes, {confirmations} confirmations");
    }
}

#[test]
fn nobody_counts_twice_and_the_first_accuser_not_at_all() {
    let mut one = suspecting(dogpile(), 6);
    one.machine.testing_clear();
    for from in ["n2", "n3", "n3", "n2"] {
        one.receive(2, &[suspect("n1", 1, from)]);
    }
    let view = one.machine.testing_suspicion("n1").unwrap();
    assert_eq!((view.confirmations, view.wanted), (1, 3));
    assert_eq!((view.min, view.max), (ms(500), ms(1000)));
    assert_eq!(one.machine.stats().suspicions_confirmed, 1);
    // The one confirmation that was new is passed on, in its own words.
    assert_eq!(one.queued().len(), 1);
    assert_eq!(one.queued()[0].messages(), [suspect("n1", 1, "n3")]);
    assert_eq!(time_of_death(&mut one), ms(750));
}

#[test]
fn a_confirmation_counts_from_the_beginning() {
    let mut one = suspecting(dogpile(), 6);
    one.advance(ms(700));
    one.receive(2, &[suspect("n1", 1, "n3")]);
    assert_eq!(time_of_death(&mut one), ms(750));
    // When the shortened time is over already, that is the end.
    let mut one = suspecting(dogpile(), 6);
    one.advance(ms(800));
    one.receive(2, &[suspect("n1", 1, "n3"), suspect("n1", 1, "n4")]);
    one.advance(Duration::ZERO);
    assert_eq!(one.state(1), Some(NodeState::Dead));
}

#[test]
fn a_suspicion_that_runs_out_is_passed_on_as_a_death() {
    let mut one = suspecting(dogpile(), 6);
    one.receive(2, &[suspect("n1", 1, "n3")]);
    one.events();
    one.advance(ms(749));
    one.machine.testing_clear();
    one.advance(ms(1));
    assert_eq!(one.event_names(), ["gone n1"]);
    assert_eq!(one.queued()[0].messages(), [dead("n1", 1, "n0")]);
    let stats = one.machine.stats();
    assert_eq!((stats.suspicions_expired, stats.suspicions_degraded), (1, 1));
    let death = one.machine.member("n1").unwrap().death.unwrap();
    let suspicion = death.suspicion.as_ref().unwrap();
    assert_eq!(suspicion.suspected_by, [id(2), id(3)]);
    assert_eq!(suspicion.confirmations_wanted, 3);
    assert_eq!((death.at - suspicion.began, death.probe.is_none()), (ms(750), true));
    assert!(death.to_string().contains("suspicion by n2, n3"), "{death}");
}

#[test]
fn with_all_confirmations_or_none_wanted_a_death_is_not_degraded() {
    let mut one = suspecting(dogpile(), 6);
    for from in ["n3", "n4", "n5"] {
        one.receive(2, &[suspect("n1", 1, from)]);
    }
    time_of_death(&mut one);
    assert_eq!(one.machine.stats().suspicions_degraded, 0);
    let mut one = suspecting(dogpile(), 4);
    time_of_death(&mut one);
    assert_eq!(one.machine.stats().suspicions_degraded, 0);
}

#[test]
fn without_lifeguards_suspicion_the_minimum_holds_from_the_start() {
    let mut config = dogpile();
    config.lifeguard.dynamic_suspicion = false;
    let mut one = suspecting(config, 6);
    one.machine.testing_clear();
    one.receive(2, &[suspect("n1", 1, "n3")]);
    assert_eq!(one.queued().len(), 0);
    assert_eq!(time_of_death(&mut one), ms(500));
}

#[test]
fn the_timeout_grows_with_the_cluster() {
    for (n, millis) in [(10, 4000), (11, 4164), (50, 6792), (100, 8000)] {
        let one = suspecting(quiet(), n);
        let view = one.machine.testing_suspicion("n1").unwrap();
        assert_eq!((view.min, view.max), (ms(millis), ms(millis) * 6), "{n}");
    }
}

#[test]
fn a_newer_accusation_confirms_but_does_not_raise_the_incarnation() {
    let mut one = suspecting(quiet(), 6);
    one.receive(2, &[suspect("n1", 3, "n3")]);
    assert_eq!((one.incarnation(1), one.state(1)), (1, Some(NodeState::Suspect)));
    assert_eq!(one.machine.testing_suspicion("n1").unwrap().confirmations, 1);
}

#[test]
fn the_own_failed_probe_is_one_more_accuser() {
    let mut config = quiet();
    config.suspicion_mult = 6;
    config.indirect_probes = 0;
    config.stream_ping = false;
    let mut one = suspecting(config, 6);
    one.healthy = false;
    one.know([]);
    while one.machine.testing_suspicion("n1").unwrap().confirmations == 0 {
        assert!(one.elapsed() < secs(20));
        one.advance(ms(100));
    }
    time_of_death(&mut one);
    let death = one.machine.member("n1").unwrap().death.unwrap();
    assert_eq!(death.suspicion.as_ref().unwrap().suspected_by, [id(2), id(0)]);
    assert!(death.probe.is_some());
}

#[test]
fn one_sick_accuser_alone_has_to_wait_and_its_victim_refutes() {
    // Everything that node 0 receives is lost: it accuses everybody, and nobody agrees.
    let mut net = Net::cluster(6, Config::lan(), 5);
    net.lose(|from, to, kind| to == 0 || from == 0 && kind == Kind::Stream);
    net.run(secs(15));
    net.lose_nothing();
    assert!(net.until(secs(60), |net| net.agree_on(&[0, 1, 2, 3, 4, 5])).is_some());
    for i in 1..6 {
        let events = net.event_names(i);
        assert!(!events.iter().any(|e| e.starts_with("gone") && e != "gone n0"), "{events:?}");
    }
    let refutations = (1..6).map(|i| net.hosts[i].machine.stats().refutations).sum::<u64>();
    assert!(refutations > 0);
}

#[test]
fn a_node_that_does_not_probe_gives_time_all_the_same() {
    let mut config = quiet();
    config.probe_interval = Duration::ZERO;
    // Four times a second at the least, and six times that without a confirmation.
    assert_eq!(time_of_death(&mut suspecting(config, 8)), secs(24));
}

#[test]
fn who_learns_of_a_suspicion_tells_the_accused_at_once() {
    let told = |config: Config| {
        let mut one = suspecting(config, 5);
        let news = suspect("n1", 1, "n2");
        one.sent().iter().any(|sent| sent.to_name() == "n1" && sent.messages() == [news])
    };
    assert!(told(quiet()));
    let mut without = quiet();
    without.lifeguard.buddy_system = false;
    assert!(!told(without));
}

#[test]
fn who_has_missed_a_refutation_gets_it_with_the_answer() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(1, &[suspect("n0", 1, "n1")]);
    assert_eq!(one.incarnation(0), 2);
    one.sent();
    one.receive(2, &[ping(7, "n2", 2), suspect("n0", 1, "n2")]);
    let told = one.sent().iter().any(|sent| {
        sent.to.addr == addr(2)
            && matches!(sent.messages()[..], [Message::Alive(alive)] if alive.incarnation == 2)
    });
    assert!(told);
    assert_eq!(one.incarnation(0), 2, "an old accusation raises nothing");
}

/// Who accuses may read no other format than that of its accusation.
#[test]
fn who_has_missed_a_refutation_gets_it_in_its_format() {
    let mut config = quiet();
    config.wire_format = WireFormat::Mixed;
    let mut one = One::knowing(config, 3);
    one.machine.members.get_mut("n1").unwrap().native = true;
    one.receive(1, &[suspect("n0", 1, "n1")]);
    let accusation = suspect("n0", 1, "n2");
    for dialect in [Dialect::Native, Dialect::Hashicorp] {
        let (mut packet, mut answer) = (Vec::new(), Vec::new());
        let mut writer = PacketWriter::new(&mut packet, dialect, false, ROOM);
        assert!(writer.push(&accusation));
        writer.finish();
        one.machine.handle_packet(&peer(2), &packet[ROOM.head..], one.now).unwrap();
        one.machine.poll_transmit(&mut answer, &mut |_| ROOM).expect("the refutation");
        assert_eq!(Dialect::of(answer[ROOM.head]), Some(dialect));
    }
}

#[test]
fn who_has_left_is_not_waited_for() {
    // With four members two confirmations are wanted; one of the four has just left.
    let mut one = One::knowing(quiet(), 3);
    one.receive(3, &[dead("n3", 1, "n3")]);
    one.receive(2, &[suspect("n1", 1, "n2")]);
    assert_eq!(one.machine.testing_suspicion("n1").unwrap().wanted, 0);
    assert_eq!(time_of_death(&mut one), secs(4));
}
