//! Coming and going.

use super::*;
use crate::error::ExchangeError;
use crate::membership::OperationId;

/// When the operation was reported as done, for each report.
fn done_at(host: &net::Host, id: OperationId) -> Vec<Duration> {
    let done =
        |(at, event): &(Duration, Event)| (*event == Event::BroadcastDone(id)).then_some(*at);
    host.events.iter().filter_map(done).collect()
}

fn join(net: &mut Net, i: usize, seed: usize) -> OperationId {
    net.call(i, |machine, _| machine.join(peer(seed)))
}

#[test]
fn a_node_begins_alive_and_alone() {
    let now = Instant::now();
    let app = Box::new(());
    let mut machine = Membership::new(quiet(), id(0), addr(0), Bytes::new(), 1, now, app).unwrap();
    let event = machine.poll_event().unwrap();
    assert_eq!(event_name(&event), "joined n0");
    let own = machine.own();
    assert_eq!((own.state, own.incarnation, own.addr()), (NodeState::Alive, 1, addr(0)));
    assert_eq!((machine.live_members(), machine.poll_event()), (1, None));
    assert_eq!(machine.queued_broadcasts(), (1, 0));
}

#[test]
fn an_address_that_nobody_could_reach_is_refused() {
    for bad in ["0.0.0.0:7946", "10.0.0.1:0", "[::]:7946", "224.0.0.1:7946", "[ff02::1]:7946"] {
        let (now, app) = (Instant::now(), Box::new(()));
        let bad: SocketAddr = bad.parse().unwrap();
        let machine = Membership::new(quiet(), id(0), bad, Bytes::new(), 1, now, app);
        assert!(machine.is_err(), "{bad}");
    }
}

#[test]
fn a_join_tells_both_sides_everything() {
    let mut net = Net::strangers(4, quiet(), 1);
    join(&mut net, 1, 0);
    net.run(ms(20));
    assert!(net.hosts[..2].iter().all(|host| host.machine.live_members() == 2));
    let second = join(&mut net, 2, 1);
    join(&mut net, 3, 1);
    assert!(net.until(secs(2), |net| net.agree_on(&[0, 1, 2, 3])).is_some());
    let result = (net.hosts[2].events.iter())
        .find_map(|(_, event)| match event {
            Event::JoinDone { id, peer, result } => Some((*id, peer.clone(), result.clone())),
            _ => None,
        })
        .unwrap();
    assert_eq!(result, (second, peer(1), Ok(2)));
    // The members are there before the join is reported.
    let names = net.event_names(2);
    let done = names.iter().position(|name| name == "join done true").unwrap();
    assert!(names[..done].contains(&"joined n1".to_owned()));
    assert!(names[..done].contains(&"joined n0".to_owned()));
}

#[test]
fn a_join_that_fails_says_so() {
    let mut net = Net::strangers(3, quiet(), 1);
    net.crash(1);
    let refused = join(&mut net, 0, 1);
    net.lose(|_, to, kind| to == 2 && kind == Kind::Stream);
    let silent = join(&mut net, 0, 2);
    net.run(secs(11));
    let results: Vec<_> = (net.hosts[0].events.iter())
        .filter_map(|(at, event)| match event {
            Event::JoinDone { id, result, .. } => Some((*id, *at, result.clone())),
            _ => None,
        })
        .collect();
    assert_eq!((results[0].0, results[0].1), (refused, ms(10)));
    assert!(matches!(results[0].2, Err(ExchangeError::Io { .. })));
    assert_eq!((results[1].0, results[1].1), (silent, secs(10)));
    assert!(matches!(results[1].2, Err(ExchangeError::Timeout { .. })));
    assert_eq!(net.hosts[0].machine.stats().push_pulls_failed, 2);
}

#[test]
fn a_crowd_that_joins_at_once_agrees_within_seconds() {
    let mut net = Net::strangers(40, quiet(), 6);
    for i in 1..40 {
        join(&mut net, i, 0);
    }
    let all: Vec<usize> = (0..40).collect();
    let took = net.until(secs(30), |net| net.agree_on(&all));
    assert!(took.is_some_and(|took| took < secs(5)), "{took:?}");
}

#[test]
fn a_farewell_is_told_before_it_is_reported() {
    let mut net = Net::cluster(4, quiet(), 1);
    net.run(secs(1));
    let done = net.call(1, |machine, now| machine.leave(now));
    assert_eq!(net.event_names(1).last().unwrap(), "gone n1");
    assert!(net.hosts[1].machine.has_left());
    net.run(secs(5));
    let reports = done_at(&net.hosts[1], done);
    assert_eq!(reports.len(), 1);
    assert!(net.agree_on(&[0, 2, 3]));
    for i in [0, 2, 3] {
        let member = net.hosts[i].machine.member("n1").unwrap();
        assert_eq!(member.state, NodeState::Left);
        assert!(member.death.unwrap().left);
        let names = net.event_names(i);
        assert_eq!(names.iter().filter(|name| *name == "gone n1").count(), 1);
        // Nobody had to suspect it first.
        assert!(!names.iter().any(|name| name.starts_with("suspected")));
    }
    // Said so often that all have heard it by then.
    let sent = net
        .log
        .iter()
        .filter(|(from, sent)| *from == 1 && sent.messages().contains(&dead("n1", 1, "n1")));
    assert_eq!(sent.clone().count(), 4);
    assert_eq!(sent.map(|(_, sent)| sent.at).max(), Some(reports[0]));
}

#[test]
fn alone_a_farewell_is_done_at_once_and_once() {
    let mut one = One::new(quiet());
    let first = one.machine.leave(one.now);
    assert_eq!(one.event_names(), ["gone n0", "broadcast done"]);
    let second = one.machine.leave(one.now);
    assert_ne!(first, second);
    assert_eq!(one.events(), [Event::BroadcastDone(second)]);
    one.advance(secs(5));
    one.machine.rejoin(one.now);
    assert_eq!(one.event_names(), ["joined n0"]);
    let update = one.machine.update_meta(Bytes::from_static(b"x"), one.now).unwrap();
    assert_eq!(one.event_names(), ["updated n0", "broadcast done"]);
    // What is queued for whoever comes is reported no second time.
    one.receive(1, &[Message::Alive(alive("n1", 1, 1))]);
    one.healthy = true;
    one.advance(secs(5));
    assert!(!one.events().contains(&Event::BroadcastDone(update)));
}

#[test]
fn two_that_leave_together_do_not_wait_for_each_other() {
    let mut net = Net::cluster(2, quiet(), 1);
    let first = net.call(0, |machine, now| machine.leave(now));
    let second = net.call(1, |machine, now| machine.leave(now));
    net.run(secs(5));
    assert_eq!(done_at(&net.hosts[0], first).len(), 1);
    assert_eq!(done_at(&net.hosts[1], second).len(), 1);
    // Nor is it reported again when the farewell is taken back.
    net.call(0, Membership::rejoin);
    net.call(1, Membership::rejoin);
    net.run(secs(5));
    assert_eq!(done_at(&net.hosts[0], first).len(), 1);
    assert_eq!(done_at(&net.hosts[1], second).len(), 1);
}

#[test]
fn who_has_left_hears_nothing_about_itself_but_answers() {
    let mut one = One::knowing(quiet(), 2);
    one.machine.leave(one.now);
    one.events();
    let queued = one.queued();
    one.receive(1, &[suspect("n0", 1, "n1"), dead("n0", 7, "n1")]);
    one.receive(1, &[Message::Alive(alive("n0", 0, 9)), Message::Alive(alive("n0", 9, 9))]);
    assert_eq!((one.queued(), one.events().len()), (queued, 0));
    assert_eq!((one.machine.own().state, one.machine.own().incarnation), (NodeState::Left, 1));
    // It goes on hearing of others.
    one.receive(1, &[dead("n2", 1, "n2")]);
    assert_eq!(one.event_names(), ["gone n2"]);
    let refused =
        one.machine.broadcast(b"x", crate::Relation::Unique, crate::Priority::Normal, one.now);
    assert_eq!(refused, Err(crate::BroadcastError::Left));
}

#[test]
fn who_missed_the_farewell_hears_it_when_it_asks() {
    let mut net = Net::cluster(4, quiet(), 1);
    net.lose(|from, to, _| from == 3 || to == 3);
    net.call(1, |machine, now| machine.leave(now));
    net.run(ms(3500));
    net.lose_nothing();
    // The others have said it often enough, and it is no news to them.
    assert!(net.hosts[1].machine.queued_broadcasts() == (0, 0));
    net.hosts[0].machine.testing_clear();
    net.hosts[2].machine.testing_clear();
    let told = net.until(secs(10), |net| net.state(3, 1) == Some(NodeState::Left));
    assert!(told.is_some());
    assert_eq!(net.hosts[1].machine.stats().refutations, 0);
}

#[test]
fn who_left_can_come_back() {
    let mut net = Net::cluster(4, quiet(), 1);
    net.call(1, |machine, now| machine.leave(now));
    net.run(secs(5));
    assert!(net.agree_on(&[0, 2, 3]));
    net.call(1, |machine, now| {
        machine.rejoin(now);
        machine.join(peer(2));
    });
    assert!(net.until(secs(3), |net| net.agree_on(&[0, 1, 2, 3])).is_some());
    assert_eq!(net.hosts[3].machine.member("n1").unwrap().incarnation, 2);
    for i in [0, 2, 3] {
        let names = net.event_names(i);
        assert_eq!(names.iter().filter(|name| *name == "joined n1").count(), 1);
    }
    // Its probes run again.
    let before = net.hosts[1].machine.stats().probes;
    net.run(secs(3));
    assert!(net.hosts[1].machine.stats().probes >= before + 2);
    // Without a farewell there is nothing to take back.
    net.call(0, |machine, now| machine.rejoin(now));
    assert_eq!(net.hosts[0].machine.own().incarnation, 1);
}

#[test]
fn new_meta_reaches_everybody() {
    let mut net = Net::cluster(5, quiet(), 1);
    let meta = Bytes::from_static(b"rack 7");
    let done = net.call(2, |machine, now| machine.update_meta(meta.clone(), now)).unwrap();
    assert_eq!(net.event_names(2), ["updated n2"]);
    net.run(secs(5));
    for (i, host) in net.hosts.iter().enumerate() {
        assert_eq!(host.machine.member("n2").unwrap().node.meta, meta, "n{i}");
    }
    let updates = net.event_names(0).into_iter().filter(|name| name == "updated n2");
    assert_eq!(updates.count(), 1);
    assert_eq!(done_at(&net.hosts[2], done).len(), 1);
    let long = vec![0; 513].into();
    assert!(net.call(2, |machine, now| machine.update_meta(long, now)).is_err());
    assert_eq!(net.hosts[2].machine.own().incarnation, 2);
}

/// Nobody could be told of it, nor could a suspicion be contradicted.
#[test]
fn meta_that_fits_no_packet_beside_the_outer_layers_is_refused() {
    let mut one = One::knowing(quiet(), 1);
    // 1,400 bytes, less these, less the name's two, less 128: 500 are left, and 512 are allowed.
    one.machine.set_outer_layers(770, false);
    let update = |one: &mut One, len| one.machine.update_meta(vec![0; len].into(), one.now);
    let error = update(&mut one, 501).unwrap_err();
    assert_eq!((error.len, error.limit), (501, 500));
    assert!(update(&mut one, 500).is_ok());
    assert_eq!(one.drops(DropReason::TooLargeToSend), 0);
    assert_eq!(one.machine.queued_broadcasts().0, 1);
}

#[test]
fn meta_that_changes_while_away_is_announced_at_the_return() {
    let mut net = Net::cluster(3, quiet(), 1);
    net.call(1, |machine, now| machine.leave(now));
    net.run(secs(3));
    let meta = Bytes::from_static(b"after");
    let done = net.call(1, |machine, now| machine.update_meta(meta.clone(), now)).unwrap();
    assert_eq!(done_at(&net.hosts[1], done).len(), 1);
    net.run(secs(3));
    assert_eq!(net.state(0, 1), Some(NodeState::Left));
    net.call(1, |machine, now| machine.rejoin(now));
    assert!(net.until(secs(3), |net| net.agree_on(&[0, 1, 2])).is_some());
    assert_eq!(net.hosts[0].machine.member("n1").unwrap().node.meta, meta);
}

#[test]
fn a_node_that_died_in_silence_is_found_dead_by_all() {
    let mut net = Net::cluster(8, quiet(), 4);
    net.run(secs(2));
    net.crash(5);
    let took = net.until(secs(60), |net| net.agree_on(&[0, 1, 2, 3, 4, 6, 7])).unwrap();
    // One probe round at most, and then the suspicion: between its least and its longest.
    assert!(took > secs(4) && took < secs(15), "{took:?}");
    for i in [0, 1, 2, 3, 4, 6, 7] {
        assert!(
            net.event_names(i).iter().all(|name| !name.starts_with("gone") || name == "gone n5")
        );
    }
}

#[test]
fn a_quick_restart_is_back_without_having_been_dead() {
    let mut net = Net::cluster(5, quiet(), 4);
    net.run(secs(2));
    net.crash(3);
    net.run(ms(300));
    net.restart(3);
    join(&mut net, 3, 0);
    assert!(net.until(secs(5), |net| net.agree_on(&[0, 1, 2, 3, 4])).is_some());
    net.run(secs(20));
    assert!(net.agree_on(&[0, 1, 2, 3, 4]));
}

#[test]
fn a_restart_after_death_gets_above_its_own_past() {
    let mut net = Net::cluster(5, quiet(), 4);
    net.crash(3);
    assert!(net.until(secs(60), |net| net.agree_on(&[0, 1, 2, 4])).is_some());
    net.restart(3);
    join(&mut net, 3, 0);
    let took = net.until(secs(5), |net| net.agree_on(&[0, 1, 2, 3, 4]));
    assert!(took.is_some_and(|took| took < secs(2)), "{took:?}");
    assert_eq!(net.hosts[3].machine.own().incarnation, 2);
}

#[test]
fn the_same_seed_and_calls_give_the_same_bytes() {
    let run = |seed: u64| {
        let mut config = Config::lan();
        config.push_pull_interval = secs(5);
        let mut net = Net::strangers(12, config, seed);
        let mut draws = 0u32;
        net.lose(move |_, _, _| {
            draws += 1;
            draws % 7 == 0
        });
        for i in 1..12 {
            join(&mut net, i, i / 2);
        }
        net.run(secs(5));
        net.crash(7);
        net.call(3, |machine, now| machine.update_meta(Bytes::from_static(b"m"), now)).unwrap();
        net.run(secs(20));
        net.restart(7);
        join(&mut net, 7, 2);
        net.run(secs(10));
        net.log
    };
    let (first, second) = (run(1), run(1));
    assert!(first.len() > 1000);
    assert!(first == second, "two runs of one seed differ");
    assert!(first != run(100), "the seed has no effect");
}

#[test]
fn a_join_that_fails_does_not_bring_back_who_left() {
    let mut net = Net::cluster(3, quiet(), 1);
    net.run(secs(1));
    net.call(1, |machine, now| machine.leave(now));
    net.run(secs(5));
    net.crash(2);
    join(&mut net, 1, 2);
    net.run(secs(1));
    assert!(net.hosts[1].machine.has_left());
    assert_eq!(net.state(0, 1), Some(NodeState::Left));
    // One that succeeds does; but not if it says farewell again before it has.
    join(&mut net, 1, 0);
    net.call(1, |machine, now| machine.leave(now));
    net.run(secs(1));
    assert_eq!(net.state(0, 1), Some(NodeState::Left));
    join(&mut net, 1, 0);
    net.run(secs(1));
    assert!(!net.hosts[1].machine.has_left());
    assert_eq!(net.state(0, 1), Some(NodeState::Alive));
}

#[test]
fn a_farewell_after_a_return_is_a_farewell() {
    let mut one = One::knowing(quiet(), 2);
    let first = one.machine.leave(one.now);
    one.machine.rejoin(one.now);
    let second = one.machine.leave(one.now);
    assert_ne!(first, second);
    assert!(one.machine.has_left());
}
