//! What alive, suspect and dead messages change.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::error::Refusal;
use crate::membership::StreamResponse;
use crate::{MAX_INCARNATION, MAX_INCARNATION_JUMP};

fn announce(i: usize, incarnation: u32) -> Vec<u8> {
    packet(&[Message::Alive(alive(&name(i), i, incarnation))])
}

#[test]
fn a_new_node_joins_and_is_passed_on() {
    let mut one = One::new(quiet());
    let mut news = alive("n1", 1, 3);
    news.meta = b"zone a";
    news.wide_ipv4 = true;
    one.receive(1, &[Message::Alive(news)]);
    assert_eq!(one.event_names(), ["joined n1"]);
    assert_eq!((one.state(1), one.incarnation(1)), (Some(NodeState::Alive), 3));
    assert_eq!(one.machine.live_members(), 2);
    // What is passed on is what came.
    assert_eq!(one.queued()[0].messages(), [Message::Alive(news)]);
    assert_eq!(one.machine.stats().alives_accepted, 1);

    one.receive(2, &[Message::Alive(news)]);
    assert_eq!(one.event_names(), [""; 0]);
    assert_eq!(one.queued().len(), 1);
}

#[test]
fn only_a_newer_alive_clears_a_suspicion() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(2, &[suspect("n1", 1, "n2")]);
    assert_eq!(one.event_names(), ["suspected n1"]);
    one.receive(3, &[Message::Alive(alive("n1", 1, 1))]);
    assert_eq!(one.state(1), Some(NodeState::Suspect));
    one.advance(ms(10));
    one.receive(3, &[Message::Alive(alive("n1", 1, 2))]);
    assert_eq!((one.state(1), one.incarnation(1)), (Some(NodeState::Alive), 2));
    assert_eq!(one.event_names(), ["cleared n1"]);
    assert_eq!(one.machine.member("n1").unwrap().since, one.now);
    assert_eq!(one.machine.stats().suspicions_refuted, 1);
    // The suspicion's timer went with it.
    one.healthy = true;
    one.advance(secs(60));
    assert_eq!(one.machine.stats().suspicions_expired, 0);
}

#[test]
fn other_meta_and_other_versions_are_an_update() {
    let mut one = One::knowing(quiet(), 2);
    let since = one.machine.member("n1").unwrap().since;
    one.advance(ms(1));
    let mut news = alive("n1", 1, 2);
    news.meta = b"new";
    one.receive(2, &[Message::Alive(news)]);
    assert_eq!(one.event_names(), ["updated n1"]);
    news.incarnation = 3;
    news.versions = Versions::new((1, 5, 4), (0, 0, 0));
    one.receive(2, &[Message::Alive(news)]);
    assert_eq!(one.event_names(), ["updated n1"]);
    news.incarnation = 4;
    one.receive(2, &[Message::Alive(news)]);
    assert_eq!(one.event_names(), ["renewed n1"]);
    assert_eq!(one.incarnation(1), 4);
    // Being alive all the time, it did not change its state.
    assert_eq!(one.machine.member("n1").unwrap().since, since);
}

#[test]
fn versions_that_are_not_sent_are_not_forgotten() {
    let mut one = One::knowing(quiet(), 1);
    let mut news = alive("n1", 1, 2);
    news.versions = Versions::from_bytes(&[1, 3, 2]);
    one.receive(1, &[Message::Alive(news)]);
    assert_eq!(one.machine.member("n1").unwrap().node.versions, Versions::default());
    assert_eq!(one.queued()[0].messages(), [Message::Alive(news)]);

    for bad in [&[0, 5, 2, 0, 0, 0], &[1, 0, 2, 0, 0, 0], &[4, 3, 4, 0, 0, 0]] {
        news.incarnation += 1;
        news.versions = Versions::from_bytes(bad);
        one.receive(1, &[Message::Alive(news)]);
    }
    assert_eq!((one.incarnation(1), one.drops(DropReason::BadVersions)), (2, 3));
}

#[test]
fn at_the_same_incarnation_dead_beats_suspect_beats_alive() {
    let mut one = One::knowing(quiet(), 4);
    one.receive(2, &[suspect("n1", 1, "n2")]);
    one.receive(2, &[dead("n1", 1, "n3")]);
    assert_eq!(one.state(1), Some(NodeState::Dead));
    one.receive(2, &[Message::Alive(alive("n1", 1, 1)), suspect("n1", 1, "n4")]);
    assert_eq!(one.state(1), Some(NodeState::Dead));
    assert_eq!(one.event_names(), ["suspected n1", "gone n1"]);
    let death = one.machine.member("n1").unwrap().death.unwrap();
    assert_eq!((death.declared_by.as_str(), death.left), ("n3", false));
    assert_eq!(death.suspicion.as_ref().unwrap().suspected_by, [id(2)]);
}

#[test]
fn who_is_gone_is_gone_once_and_stays_what_it_was() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(2, &[dead("n1", 1, "n2"), dead("n1", 1, "n1"), dead("n1", 2, "n3")]);
    assert_eq!((one.state(1), one.incarnation(1)), (Some(NodeState::Dead), 1));
    one.receive(2, &[dead("n2", 1, "n2"), dead("n2", 9, "n3"), suspect("n2", 9, "n3")]);
    assert_eq!((one.state(2), one.incarnation(2)), (Some(NodeState::Left), 1));
    assert_eq!(one.event_names(), ["gone n1", "gone n2"]);
    assert_eq!(one.machine.live_members(), 2);
    assert_eq!(one.machine.known_members(), 4);
    one.receive(2, &[Message::Alive(alive("n1", 1, 2)), Message::Alive(alive("n2", 2, 2))]);
    assert_eq!(one.event_names(), ["joined n1", "joined n2"]);
    assert_eq!(one.machine.live_members(), 4);
}

#[test]
fn old_accusations_and_those_of_strangers_are_ignored() {
    let mut one = One::new(quiet());
    one.machine.testing_alive(&alive("n1", 1, 5), one.now);
    one.machine.testing_clear();
    let before = one.beliefs();
    let unknown = [suspect("n9", 1, "n1"), dead("n9", 1, "n1"), dead("n9", 1, "n9")];
    one.receive(1, &[suspect("n1", 4, "n2"), dead("n1", 4, "n2"), dead("n1", 4, "n1")]);
    one.receive(1, &unknown);
    assert_eq!(one.beliefs(), before);
    assert!(one.queued().is_empty() && one.events().is_empty());
}

#[test]
fn whatever_is_said_of_a_living_node_it_refutes() {
    let accusations: [fn(u32) -> Vec<u8>; 4] = [
        |n| packet(&[suspect("n0", n, "n1")]),
        |n| packet(&[dead("n0", n, "n1")]),
        |n| packet(&[dead("n0", n, "n0")]),
        |n| packet(&[Message::Alive(Alive { meta: b"false", ..alive("n0", 0, n) })]),
    ];
    for accusation in accusations {
        let mut one = One::knowing(quiet(), 2);
        let mut expected = 1;
        for said in [1, 2, 100, MAX_INCARNATION_JUMP] {
            expected = said + 1;
            one.machine.handle_packet(&peer(1), &accusation(said), one.now).unwrap();
            assert_eq!(one.machine.own().incarnation, expected);
            let queued = one.queued();
            assert_eq!(queued.len(), 1, "a refutation replaces the one before");
            let contradiction = Message::Alive(alive("n0", 0, expected));
            assert_eq!(queued[0].messages(), [contradiction]);
        }
        let names = one.event_names();
        assert_eq!(names[..4], ["health 1", "refuted 2", "health 2", "refuted 3"]);
        assert_eq!(one.machine.stats().refutations, 4);
        // Below the own incarnation there is nothing to contradict.
        one.machine.handle_packet(&peer(1), &accusation(expected - 1), one.now).unwrap();
        assert_eq!((one.machine.own().incarnation, one.machine.health_score()), (expected, 4));
    }
}

#[test]
fn the_own_announcement_coming_back_is_no_accusation() {
    let mut one = One::knowing(quiet(), 1);
    one.receive(1, &[Message::Alive(alive("n0", 0, 1))]);
    assert_eq!((one.machine.own().incarnation, one.events().len()), (1, 0));
    // An earlier run of this node was further: it must get above that.
    one.receive(1, &[Message::Alive(alive("n0", 0, 8))]);
    assert_eq!(one.machine.own().incarnation, 9);
}

#[test]
fn another_address_is_a_conflict_that_changes_nothing() {
    let mut one = One::knowing(quiet(), 2);
    let before = one.beliefs();
    one.receive(2, &[Message::Alive(alive("n1", 9, 7)), Message::Alive(alive("n0", 9, 7))]);
    assert_eq!(one.event_names(), ["conflict n1", "conflict n0"]);
    assert_eq!((one.beliefs(), one.queued().len()), (before, 0));
    assert_eq!(one.drops(DropReason::AddressConflict), 2);
}

#[test]
fn a_dead_nodes_name_can_be_taken_over_after_the_reclaim_time() {
    let mut config = quiet();
    config.dead_node_reclaim_time = secs(20);
    let mut one = One::knowing(config, 3);
    one.receive(2, &[dead("n1", 1, "n2")]);
    one.now += secs(20);
    one.receive(2, &[Message::Alive(alive("n1", 9, 1))]);
    assert_eq!(one.state(1), Some(NodeState::Dead));
    one.now += ms(1);
    one.receive(2, &[Message::Alive(alive("n1", 9, 1))]);
    assert_eq!(one.state(1), Some(NodeState::Alive));
    assert_eq!(one.machine.member("n1").unwrap().addr(), addr(9));

    let mut never = One::knowing(quiet(), 3);
    never.receive(2, &[dead("n1", 1, "n2")]);
    never.now += secs(3600);
    never.receive(2, &[Message::Alive(alive("n1", 9, 50))]);
    assert_eq!(never.state(1), Some(NodeState::Dead));
}

#[test]
fn a_forged_farewell_does_not_hand_over_the_name() {
    let mut one = One::knowing(quiet(), 2);
    one.receive(2, &[dead("n1", 1, "n1"), Message::Alive(alive("n1", 9, 1))]);
    assert_eq!(one.state(1), Some(NodeState::Left));
    assert_eq!(one.machine.member("n1").unwrap().addr(), addr(1));
    assert_eq!(one.drops(DropReason::NameTaken), 1);
    assert_eq!(one.event_names(), ["gone n1"]);
    // The victim hears of its farewell, contradicts, and is back.
    one.receive(1, &[Message::Alive(alive("n1", 1, 2))]);
    assert_eq!(one.event_names(), ["joined n1"]);
    // Who really left may come back from elsewhere, above its farewell.
    one.receive(1, &[dead("n1", 2, "n1"), Message::Alive(alive("n1", 9, 3))]);
    assert_eq!(one.machine.member("n1").unwrap().addr(), addr(9));
    assert_eq!(one.event_names(), ["gone n1", "joined n1"]);
}

#[test]
fn incarnations_that_could_not_be_refuted_are_refused() {
    let mut one = One::knowing(quiet(), 2);
    let before = one.beliefs();
    for incarnation in [0, MAX_INCARNATION + 1, u32::MAX] {
        one.receive(2, &[Message::Alive(alive("n7", 7, incarnation))]);
    }
    assert_eq!(one.drops(DropReason::IncarnationOutOfRange), 3);
    for incarnation in [MAX_INCARNATION + 1, u32::MAX] {
        for victim in ["n0", "n1"] {
            let (accused, declared) =
                (suspect(victim, incarnation, "n2"), dead(victim, incarnation, "n2"));
            one.receive(2, &[accused, declared]);
        }
        one.receive(2, &[Message::Alive(alive("n1", 1, incarnation))]);
    }
    assert_eq!(one.drops(DropReason::IncarnationOutOfRange), 13);
    let jump = 1 + MAX_INCARNATION_JUMP;
    for victim in ["n0", "n1"] {
        let accused = suspect(victim, jump + 1, "n2");
        let i = usize::from(victim == "n1");
        one.receive(2, &[accused, dead(victim, jump + 1, "n2")]);
        one.receive(2, &[Message::Alive(alive(victim, i, jump + 1))]);
    }
    assert_eq!(one.drops(DropReason::IncarnationJump), 6);
    assert_eq!((one.beliefs(), one.queued().len()), (before, 0));

    // The own refutation of an accusation that far above would be out of the reach of others.
    let own = [suspect("n0", jump, "n2"), suspect("n0", jump - 1, "n2")];
    one.receive(2, &[Message::Alive(alive("n1", 1, jump)), own[0], own[1]]);
    assert_eq!(one.drops(DropReason::IncarnationJump), 7);
    assert_eq!((one.incarnation(1), one.machine.own().incarnation), (jump, jump));
    // A node that nobody knows may be anywhere in the range.
    one.receive(2, &[Message::Alive(alive("n7", 7, MAX_INCARNATION))]);
    assert_eq!(one.incarnation(7), MAX_INCARNATION);
}

#[test]
fn the_table_has_a_limit() {
    let mut config = quiet();
    config.max_members = 4;
    let mut one = One::knowing(config, 3);
    one.receive(1, &[Message::Alive(alive("n4", 4, 1))]);
    assert_eq!((one.state(4), one.drops(DropReason::TooManyMembers)), (None, 1));
    one.receive(1, &[Message::Alive(alive("n3", 3, 2)), dead("n2", 1, "n1")]);
    assert_eq!((one.incarnation(3), one.state(2)), (2, Some(NodeState::Dead)));
    // Who is gone counts until it is reaped.
    one.receive(1, &[Message::Alive(alive("n4", 4, 1))]);
    assert_eq!(one.state(4), None);
}

#[test]
fn meta_has_a_limit() {
    let mut one = One::knowing(quiet(), 1);
    let long = vec![b'x'; 513];
    let mut news = Alive { meta: &long, ..alive("n1", 1, 2) };
    one.receive(1, &[Message::Alive(news)]);
    assert_eq!((one.incarnation(1), one.drops(DropReason::MetaTooLarge)), (1, 1));
    news.meta = &long[..512];
    one.receive(1, &[Message::Alive(news)]);
    assert_eq!(one.machine.member("n1").unwrap().node.meta.len(), 512);
}

/// Admits nobody, and remembers who was asked for.
struct Doorkeeper(Arc<Mutex<Vec<String>>>);

impl Application for Doorkeeper {
    fn admit_alive(&mut self, node: &Node) -> Result<(), Refusal> {
        self.0.lock().unwrap().push(node.id.to_string());
        if node.meta.is_empty() { Ok(()) } else { Err(Refusal("no meta here".to_owned())) }
    }
}

#[test]
fn who_is_not_admitted_changes_nothing() {
    let asked = Arc::default();
    let mut one = One::with_app(quiet(), Doorkeeper(Arc::clone(&asked)));
    one.know(1..=3);
    one.receive(2, &[dead("n2", 1, "n2"), suspect("n3", 1, "n1")]);
    one.machine.testing_clear();
    asked.lock().unwrap().clear();
    let before = one.beliefs();
    let suspicion = one.machine.testing_suspicion("n3");

    for (who, incarnation) in [("n1", 2), ("n2", 2), ("n3", 2), ("n4", 1)] {
        let i = who[1..].parse().unwrap();
        let news = Alive { meta: b"x", ..alive(who, i, incarnation) };
        one.receive(1, &[Message::Alive(news)]);
    }
    assert_eq!(*asked.lock().unwrap(), ["n1", "n2", "n3", "n4"]);
    assert_eq!((one.beliefs(), one.queued().len(), one.events().len()), (before, 0, 0));
    assert_eq!(one.machine.testing_suspicion("n3"), suspicion);
    assert_eq!(one.drops(DropReason::NotAdmitted), 4);
    // What would change nothing is not asked for.
    one.receive(1, &[Message::Alive(Alive { meta: b"x", ..alive("n1", 1, 1) })]);
    one.receive(1, &[Message::Alive(Alive { meta: b"x", ..alive("n1", 9, 5) })]);
    assert_eq!(asked.lock().unwrap().len(), 4);
}

#[test]
fn the_newest_news_about_a_node_replaces_what_waits() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(2, &[suspect("n1", 1, "n2")]);
    one.receive(2, &[dead("n1", 1, "n2")]);
    one.machine.handle_packet(&peer(2), &announce(1, 2), one.now).unwrap();
    assert_eq!(one.queued().len(), 1);
    assert_eq!(one.queued()[0].messages(), [Message::Alive(alive("n1", 1, 2))]);
}

/// A message about one of a few nodes.
#[derive(Clone, Debug)]
enum Said {
    Alive { node: usize, at: usize, incarnation: u32, meta: u8 },
    Suspect { node: usize, from: usize, incarnation: u32 },
    Dead { node: usize, from: usize, incarnation: u32 },
    Merge { node: usize, state: u8, incarnation: u32 },
    Wait { millis: u64 },
}

fn said() -> impl Strategy<Value = Said> {
    let incarnation = prop_oneof![9 => 0u32..6, 1 => any::<u32>()];
    prop_oneof![
        (0usize..5, 0usize..2, incarnation.clone(), 0u8..2).prop_map(
            |(node, moved, incarnation, meta)| {
                Said::Alive { node, at: node + 7 * moved, incarnation, meta }
            }
        ),
        (0usize..5, 0usize..5, incarnation.clone())
            .prop_map(|(node, from, incarnation)| { Said::Suspect { node, from, incarnation } }),
        (0usize..5, 0usize..5, incarnation.clone())
            .prop_map(|(node, from, incarnation)| { Said::Dead { node, from, incarnation } }),
        (0usize..5, 0u8..4, incarnation).prop_map(|(node, state, incarnation)| Said::Merge {
            node,
            state,
            incarnation
        }),
        (0u64..40_000).prop_map(|millis| Said::Wait { millis }),
    ]
}

fn say(one: &mut One, said: &Said) {
    let (node_name, from_name);
    let message = match *said {
        Said::Alive { node, at, incarnation, meta } => {
            node_name = name(node);
            let meta: &[u8] = if meta == 0 { b"" } else { b"m" };
            Message::Alive(Alive { meta, ..alive(&node_name, at, incarnation) })
        }
        Said::Suspect { node, from, incarnation } => {
            (node_name, from_name) = (name(node), name(from));
            suspect(&node_name, incarnation, &from_name)
        }
        Said::Dead { node, from, incarnation } => {
            (node_name, from_name) = (name(node), name(from));
            dead(&node_name, incarnation, &from_name)
        }
        Said::Merge { node, state, incarnation } => {
            let state = NodeState::from_u8(state).unwrap();
            one.machine.testing_merge(&record(node, incarnation, state), one.now);
            return one.drain();
        }
        Said::Wait { millis } => return one.advance(ms(millis)),
    };
    one.receive(4, &[message]);
}

proptest! {
    /// For whatever is said: incarnations go back only where a name changes hands or was
    /// forgotten, and what changes is passed on. (The harness checks the rest.)
    #[test]
    fn whatever_is_said_keeps_the_order(all in prop::collection::vec(said(), 1..60)) {
        let mut config = quiet();
        config.dead_node_reclaim_time = secs(10);
        config.max_members = 4;
        let mut one = One::new(config);
        for said in &all {
            let before: Vec<_> = one.machine.members().collect();
            let own = one.machine.own().incarnation;
            one.machine.testing_clear();
            say(&mut one, said);
            prop_assert!(one.machine.own().incarnation >= own);
            if matches!(said, Said::Wait { .. }) {
                continue;
            }
            let mut changed = 0;
            for old in before {
                let new = one.machine.member(old.id().as_str()).unwrap();
                prop_assert!(new.incarnation >= old.incarnation || new.addr() != old.addr());
                changed += usize::from(new != old);
            }
            prop_assert!(changed <= 1);
            prop_assert!(one.queued().len() >= changed);
        }
    }
}

/// What others make of everything that a machine says of itself.
fn believed(one: &One, by: &mut Membership) -> u32 {
    for news in one.queued() {
        by.handle_packet(&peer(0), &news.bytes, one.now).unwrap();
    }
    by.member("n0").unwrap().incarnation
}

#[test]
fn no_burst_of_accusations_brings_a_node_out_of_the_reach_of_the_others() {
    let step = MAX_INCARNATION_JUMP - 1;
    let climb: Vec<_> = (1..2048).map(|i| suspect("n0", i * step, "n1")).collect();
    let mut one = One::knowing(quiet(), 2);
    let app = Box::new(());
    let mut other =
        Membership::new(quiet(), id(1), addr(1), Bytes::new(), 8, one.now, app).unwrap();
    other.testing_alive(&alive("n0", 0, 1), one.now);
    one.receive(1, &climb);
    assert_eq!(believed(&one, &mut other), one.machine.own().incarnation);
    // Nor in a state.
    let accused = |i| record(0, i * step, NodeState::Suspect);
    for record in (1..2048).map(accused) {
        one.machine.testing_merge(&record, one.now);
    }
    assert_eq!(believed(&one, &mut other), one.machine.own().incarnation);
    // One accusation more is answered when everybody has heard of the last refutation.
    one.advance(secs(601));
    let before = one.machine.own().incarnation;
    one.receive(1, &[suspect("n0", before + step, "n1")]);
    assert_eq!(one.machine.own().incarnation, before + step + 1);
    assert_eq!(believed(&one, &mut other), before + step + 1);
}

#[test]
fn a_restarted_node_goes_on_from_any_incarnation_of_its_earlier_life() {
    let earlier = 3 * MAX_INCARNATION_JUMP;
    for state in [NodeState::Alive, NodeState::Dead, NodeState::Left] {
        let mut one = One::new(quiet());
        let join = one.machine.join(peer(1));
        one.machine.poll_stream_request().unwrap();
        let known = vec![record(0, earlier, state), record(1, 1, NodeState::Alive)];
        let answer = StreamResponse::PushPull(state_of(true, known));
        one.machine.handle_stream_response(join, answer, one.now);
        assert_eq!(one.machine.own().incarnation, earlier + 1, "{state:?}");
        // Once: afterwards it is as careful as ever.
        let join = one.machine.join(peer(1));
        let known = vec![record(0, 10 * MAX_INCARNATION_JUMP, state)];
        let answer = StreamResponse::PushPull(state_of(true, known));
        one.machine.handle_stream_response(join, answer, one.now);
        assert_eq!(one.machine.own().incarnation, earlier + 1);
    }
}

#[test]
fn a_record_within_reach_does_not_use_up_the_way_back_to_an_earlier_life() {
    let mut one = One::new(quiet());
    // Two seeds answer; the first has missed most of that life.
    for (known, then) in [(5, 6), (3 * MAX_INCARNATION_JUMP, 3 * MAX_INCARNATION_JUMP + 1)] {
        let join = one.machine.join(peer(1));
        let answer =
            StreamResponse::PushPull(state_of(true, vec![record(0, known, NodeState::Alive)]));
        one.machine.handle_stream_response(join, answer, one.now);
        // A record of this very node at a higher incarnation is not its own word: it contradicts.
        assert_eq!(one.machine.own().incarnation, then);
    }
}
