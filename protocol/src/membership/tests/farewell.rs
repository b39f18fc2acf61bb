//! What a node says, and does not say, after its farewell.

use super::*;
use crate::MAX_INCARNATION_JUMP;
use crate::membership::StreamResponse;

/// A process that is started again, and told to leave before it has heard of its earlier life.
#[test]
fn a_farewell_counts_even_below_the_incarnation_of_an_earlier_life() {
    let mut net = Net::cluster(4, quiet(), 1);
    net.run(secs(1));
    for n in 0..3 {
        net.call(1, |machine, now| machine.update_meta(vec![n].into(), now)).unwrap();
    }
    net.run(secs(5));
    assert_eq!(net.hosts[0].machine.member("n1").unwrap().incarnation, 4);
    net.crash(1);
    net.restart(1);
    net.call(1, |machine, now| machine.leave(now));
    // It still answers pings: nobody would ever find it dead.
    net.run(secs(15));
    for i in [0, 2, 3] {
        assert_eq!(net.state(i, 1), Some(NodeState::Left), "n{i}");
    }
    assert!(net.hosts[1].machine.has_left());
}

#[test]
fn only_the_member_itself_is_told_that_its_farewell_is_old() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(1, &[Message::Alive(alive("n1", 1, 5))]);
    one.sent();
    // Passed on by another, and repeated in one packet.
    one.receive(2, &[dead("n1", 2, "n1")]);
    assert_eq!(one.sent(), []);
    one.receive(1, &[dead("n1", 2, "n1"), dead("n1", 3, "n1")]);
    let told = one.sent();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0].to.addr, told[0].messages()), (&addr(1), vec![suspect("n1", 5, "n0")]));
    // It is not suspected for that.
    assert_eq!(one.state(1), Some(NodeState::Alive));
}

#[test]
fn who_has_left_and_hears_of_itself_above_says_farewell_there() {
    let mut one = One::knowing(quiet(), 3);
    one.machine.leave(one.now);
    one.machine.testing_clear();
    one.receive(1, &[suspect("n0", 1, "n1")]);
    assert!(one.queued().is_empty());
    one.receive(1, &[suspect("n0", 7, "n1")]);
    assert_eq!(one.queued()[0].messages(), [dead("n0", 7, "n0")]);
    assert!(one.machine.has_left());
    one.receive(1, &[suspect("n0", 7 + MAX_INCARNATION_JUMP, "n1")]);
    assert_eq!(one.machine.own().incarnation, 7);
    // A later life goes on from there.
    one.machine.rejoin(one.now);
    assert_eq!(one.machine.own().incarnation, 8);
}

#[test]
fn whoever_waits_for_a_farewell_waits_for_its_repetition() {
    let mut one = One::knowing(quiet(), 3);
    let done = one.machine.leave(one.now);
    one.events();
    one.receive(1, &[suspect("n0", 7, "n1")]);
    assert_eq!(one.events(), []);
    one.sent();
    one.advance(secs(10));
    let told = one.sent();
    assert!(told.iter().any(|sent| sent.messages() == [dead("n0", 7, "n0")]));
    assert_eq!(one.events(), [Event::BroadcastDone(done)]);
}

#[test]
fn news_about_others_ends_with_the_farewell() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    one.machine.leave(one.now);
    one.receive(1, &[dead("n2", 2, "n1"), ping(1, "n1", 1)]);
    assert_eq!(one.state(2), Some(NodeState::Dead));
    assert_eq!(one.sent()[0].messages()[1..], [dead("n0", 1, "n0")]);
    assert_eq!(one.queued().len(), 1);
    // When that has been told, who still asks hears it again.
    one.advance(secs(10));
    assert_eq!(one.event_names().last().unwrap(), "broadcast done");
    assert!(one.queued().is_empty());
    one.sent();
    one.receive(1, &[ping(1, "n1", 1)]);
    assert_eq!(one.sent()[0].messages()[1..], [dead("n0", 1, "n0")]);
}

#[test]
fn who_comes_back_has_no_news_from_before() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(1, &[dead("n2", 1, "n1")]);
    one.machine.leave(one.now);
    one.machine.rejoin(one.now);
    assert_eq!(one.queued().len(), 1);
    assert_eq!(one.queued()[0].kinds(), [MessageKind::Alive]);
}

/// Its view is from another time, and it does not keep it up.
#[test]
fn who_has_left_speaks_for_itself_alone() {
    let mut one = One::knowing(quiet(), 3);
    one.machine.leave(one.now);
    let state = one.machine.local_state();
    assert_eq!(state.len(), 1);
    assert_eq!((&state[0].node.id, state[0].state), (&id(0), NodeState::Left));
}

#[test]
fn nobody_joins_through_who_has_left() {
    let mut one = One::knowing(quiet(), 3);
    one.machine.leave(one.now);
    let stranger = state_of(true, vec![record(5, 1, NodeState::Alive)]);
    let mut stranger = RemoteState { from: Some(id(5)), ..stranger };
    let refused = one.machine.serve_push_pull(&peer(5), &stranger).unwrap_err();
    assert!(refused.to_string().contains("n0 has left the cluster"), "{refused}");
    assert_eq!(one.state(5), None);
    // But who looks for it finds it.
    stranger.join = false;
    assert_eq!(one.machine.serve_push_pull(&peer(5), &stranger).unwrap().len(), 1);
}

#[test]
fn who_comes_back_doubts_whom_the_seed_does_not_know() {
    let mut one = One::knowing(quiet(), 5);
    one.machine.leave(one.now);
    let join = one.machine.join(peer(1));
    let seed = vec![
        record(0, 1, NodeState::Left),
        record(1, 1, NodeState::Alive),
        record(2, 1, NodeState::Suspect),
        record(3, 1, NodeState::Dead),
    ];
    let answer = StreamResponse::PushPull(state_of(true, seed));
    one.machine.handle_stream_response(join, answer, one.now);
    assert!(!one.machine.has_left());
    let states = [1, 2, 3, 4].map(|i| one.state(i).unwrap());
    use NodeState::{Alive, Suspect};
    assert_eq!(states, [Alive, Suspect, Suspect, Suspect]);
    // Others know better than this node; but who is meant is asked.
    one.drain();
    let asked = one.sent();
    let suspects = |sent: &&Sent| sent.messages() == [suspect("n4", 1, "n0")];
    let told: Vec<_> = asked.iter().filter(suspects).map(|sent| sent.to.addr).collect();
    assert_eq!(told, [addr(4)]);
    assert!(!one.queued().iter().any(|sent| sent.messages() == [suspect("n4", 1, "n0")]));
}

/// What happened while it was away: n1 was started again, n2 left, n3 came back from the dead; of
/// another, everybody but this node has forgotten that it died.
#[test]
fn who_comes_back_believes_its_seed() {
    let mut one = One::knowing(quiet(), 5);
    one.receive(4, &[Message::Alive(alive("n1", 1, 6)), dead("n3", 1, "n4"), dead("n5", 1, "n4")]);
    one.machine.leave(one.now);
    one.events();
    let join = one.machine.join(peer(4));
    let seed = vec![
        record(0, 1, NodeState::Left),
        record(1, 1, NodeState::Alive),
        record(2, 1, NodeState::Left),
        record(3, 1, NodeState::Alive),
        record(4, 1, NodeState::Alive),
    ];
    let answer = StreamResponse::PushPull(state_of(true, seed));
    one.machine.handle_stream_response(join, answer, one.now);
    let states = [1, 2, 3, 4, 5].map(|i| one.state(i));
    use NodeState::{Alive, Left};
    assert_eq!(states, [Some(Alive), Some(Left), Some(Alive), Some(Alive), None]);
    assert_eq!(one.incarnation(1), 1);
    let mut names = one.event_names();
    names.sort();
    let expected = [
        "broadcast done",
        "gone n1",
        "gone n2",
        "join done true",
        "joined n0",
        "joined n1",
        "joined n3",
        "reaped n1",
        "reaped n3",
        "reaped n5",
    ];
    assert_eq!(names, expected);
}

/// A member may have died, been forgotten and come back elsewhere, at a low incarnation, while
/// somebody who was cut off remembers the farewell of its earlier life.
#[test]
fn a_farewell_from_another_place_is_doubted() {
    let mut one = One::knowing(quiet(), 3);
    let elsewhere = {
        let mut record = record(1, 4, NodeState::Left);
        record.node.addr = addr(9);
        record
    };
    one.machine.testing_merge(&elsewhere, one.now);
    assert_eq!(one.state(1), Some(NodeState::Suspect));
    one.machine.testing_merge(&record(2, 4, NodeState::Left), one.now);
    assert_eq!(one.state(2), Some(NodeState::Left));
}

/// What goes to a suspect does not count as told: neither the operation nor the gossip must wait for
/// somebody else.
#[test]
fn a_farewell_that_only_suspects_could_hear_ends() {
    let mut one = One::knowing(quiet(), 1);
    one.receive(1, &[suspect("n1", 1, "n2")]);
    assert_eq!(one.state(1), Some(NodeState::Suspect));
    one.events();
    let done = one.machine.leave(one.now);
    one.advance(secs(600));
    let events = one.events();
    assert!(events.contains(&Event::BroadcastDone(done)), "{events:?}");
    one.sent();
    one.advance(secs(60));
    assert_eq!(one.sent().len(), 0, "it still gossips");
}

/// A suspicion from before the farewell is over.
#[test]
fn who_comes_back_has_no_suspicions_from_before() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(1, &[suspect("n2", 1, "n1")]);
    one.machine.leave(one.now);
    assert!(one.event_names().contains(&"cleared n2".to_owned()));
    one.receive(1, &[suspect("n2", 1, "n1")]);
    assert_eq!(one.state(2), Some(NodeState::Alive));
    assert_eq!(one.machine.testing_next_suspicion(), None);
}

/// What it says is about itself alone.
#[test]
fn who_has_left_accuses_nobody() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(1, &[Message::Alive(alive("n1", 1, 5))]);
    one.machine.leave(one.now);
    one.sent();
    one.receive(1, &[dead("n1", 2, "n1")]);
    assert_eq!(one.sent(), []);
}

/// Each forged accusation starts the telling again.
#[test]
fn accusations_do_not_hold_up_a_farewell_for_ever() {
    let mut one = One::knowing(quiet(), 3);
    one.events();
    let done = one.machine.leave(one.now);
    for i in 0..300 {
        one.receive_from(
            &"10.9.9.9:1".parse::<SocketAddr>().unwrap().into(),
            &[suspect("n0", 2 + i, "n1")],
        );
        one.advance(ms(200));
    }
    let events = one.events();
    assert!(events.contains(&Event::BroadcastDone(done)), "not told in 60 s: {events:?}");
}
