//! Exchange of whole states.

use std::sync::Arc;

use super::*;
use crate::error::{ExchangeError, Refusal};
use crate::membership::{OperationId, StreamRequestKind, StreamResponse};
use crate::wire::stream::Held;

/// Plays the seed of a join that answers with this state.
fn join_with(one: &mut One, state: RemoteState) -> OperationId {
    let id = one.machine.join(peer(1));
    let request = one.machine.poll_stream_request().unwrap();
    assert_eq!((request.id, &request.to), (id, &peer(1)));
    assert_eq!(request.kind, StreamRequestKind::PushPull { join: true });
    assert_eq!(request.timeout, one.machine.config.stream_timeout);
    one.machine.handle_stream_response(id, StreamResponse::PushPull(state), one.now);
    one.drain();
    id
}

fn join_result(events: &[Event]) -> Result<usize, ExchangeError> {
    let result = |event: &Event| match event {
        Event::JoinDone { result, .. } => Some(result.clone()),
        _ => None,
    };
    events.iter().find_map(result).expect("the join has ended")
}

/// Plays a peer that brings this state.
fn be_asked(one: &mut One, state: RemoteState) {
    if one.machine.serve_push_pull(&peer(1), &state).is_ok() {
        one.machine.finish_push_pull(peer(1), Some(state), one.now);
    }
    one.drain();
}

#[test]
fn the_answer_is_the_state_before_the_merge() {
    let mut one = One::knowing(quiet(), 2);
    let state = state_of(true, vec![record(3, 1, NodeState::Alive)]);
    let answer = one.machine.serve_push_pull(&peer(3), &state).unwrap();
    one.machine.finish_push_pull(peer(3), Some(state), one.now);
    let mut names: Vec<_> = answer.iter().map(|record| record.node.id.to_string()).collect();
    names.sort();
    assert_eq!(names, ["n0", "n1", "n2"]);
    assert_eq!(one.state(3), Some(NodeState::Alive));
    assert_eq!(one.machine.local_state().len(), 4);
    assert_eq!(one.machine.stats().push_pulls_served, 1);
}

#[test]
fn everything_known_is_sent_until_it_is_reaped() {
    let mut one = One::knowing(quiet(), 3);
    one.receive(1, &[suspect("n1", 1, "n2"), dead("n2", 1, "n1"), dead("n3", 1, "n3")]);
    let mut states: Vec<_> = (one.machine.local_state().iter())
        .map(|record| (record.node.id.to_string(), record.state.to_string()))
        .collect();
    states.sort();
    let expected = [("n0", "alive"), ("n1", "suspect"), ("n2", "dead"), ("n3", "left")];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
}

#[test]
fn a_peers_verdict_of_death_is_only_a_suspicion() {
    let mut one = One::knowing(quiet(), 4);
    let state = state_of(
        false,
        vec![
            record(1, 1, NodeState::Suspect),
            record(2, 3, NodeState::Dead),
            record(3, 1, NodeState::Left),
            record(4, 2, NodeState::Alive),
            record(0, 1, NodeState::Dead),
            record(7, 1, NodeState::Dead),
            record(8, 1, NodeState::Left),
        ],
    );
    be_asked(&mut one, state);
    let states = [1, 2, 3, 4, 7, 8].map(|i| one.state(i));
    let (suspected, left) = (Some(NodeState::Suspect), Some(NodeState::Left));
    assert_eq!(states, [suspected, suspected, left, Some(NodeState::Alive), None, None]);
    assert_eq!((one.incarnation(2), one.incarnation(4)), (3, 2));
    assert_eq!(one.machine.own().incarnation, 2, "of itself it knows better");
    let accused: Vec<_> = one.queued();
    assert!(accused.iter().any(|sent| sent.messages() == [suspect("n2", 3, "n0")]));
}

#[test]
fn a_join_reports_members_then_state_then_its_end() {
    let mut one = One::new(quiet());
    let nodes = vec![record(1, 1, NodeState::Alive), record(2, 1, NodeState::Alive)];
    let user_state = Bytes::from_static(b"key ring");
    let id = join_with(&mut one, RemoteState { user_state, ..state_of(true, nodes) });
    assert_eq!(one.event_names(), ["joined n1", "joined n2", "user state", "join done true"]);
    assert_eq!(one.machine.known_members(), 3);
    // Its answer counts once.
    let late = StreamResponse::PushPull(state_of(true, vec![record(9, 1, NodeState::Alive)]));
    one.machine.handle_stream_response(id, late, one.now);
    assert_eq!((one.events().len(), one.state(9)), (0, None));
}

#[test]
fn what_is_held_by_a_state_is_let_go_when_its_last_record_is_merged() {
    let share = Arc::new(());
    let holding =
        |nodes| RemoteState { held: Held::new(Arc::clone(&share)), ..state_of(true, nodes) };
    let mut one = One::new(quiet());
    join_with(&mut one, holding((1..=300).map(|i| record(i, 1, NodeState::Alive)).collect()));
    assert_eq!(Arc::strong_count(&share), 2, "44 records wait");
    one.machine.handle_timeout(one.now);
    assert_eq!(Arc::strong_count(&share), 1);
    let mut one = One::with_app(quiet(), Closed);
    join_with(&mut one, holding(vec![record(1, 1, NodeState::Alive)]));
    assert_eq!(Arc::strong_count(&share), 1, "refused");
}

#[test]
fn user_state_says_whether_it_came_with_a_join() {
    for join in [true, false] {
        let mut one = One::new(quiet());
        let user_state = Bytes::from_static(b"x");
        let state = RemoteState { user_state: user_state.clone(), ..state_of(join, vec![]) };
        be_asked(&mut one, state);
        assert_eq!(one.events(), [Event::UserState { from: None, state: user_state, join }]);
        be_asked(&mut one, state_of(join, vec![]));
        assert_eq!(one.events(), []);
    }
}

#[test]
fn a_large_state_is_merged_in_slices_while_probes_are_answered() {
    let mut one = One::new(quiet());
    let nodes: Vec<_> = (1..=1000).map(|i| record(i, 1, NodeState::Alive)).collect();
    let user_state = Bytes::from_static(b"x");
    one.healthy = true;
    join_with(&mut one, RemoteState { user_state, ..state_of(true, nodes) });
    for known in [257, 513, 769] {
        assert_eq!(one.machine.known_members(), known);
        assert!(one.machine.poll_timeout().unwrap() <= one.now, "the rest waits");
        assert!(!one.event_names().iter().any(|name| name.starts_with("user") || name == "join"));
        one.receive(1, &[ping(5, "n1", 1)]);
        let answers = one.sent_first(MessageKind::Ack);
        assert_eq!((answers.len(), answers[0].messages()[0]), (1, ack(5)));
        assert_eq!(one.machine.known_members(), known);
        one.machine.handle_timeout(one.now);
        one.drain();
    }
    assert_eq!(one.machine.known_members(), 1001);
    assert!(one.machine.poll_timeout().unwrap() > one.now);
    let events = one.events();
    assert_eq!(join_result(&events), Ok(1000));
    let names: Vec<_> = events.iter().map(event_name).collect();
    assert_eq!(names[names.len() - 2..], ["user state", "join done true"]);
}

#[test]
fn states_that_wait_to_be_merged_take_turns_in_order() {
    let mut one = One::new(quiet());
    let first = (1..=300).map(|i| record(i, 1, NodeState::Alive)).collect();
    let second = (301..=600).map(|i| record(i, 1, NodeState::Alive)).collect();
    be_asked(&mut one, state_of(false, first));
    be_asked(&mut one, state_of(false, second));
    assert_eq!((one.machine.known_members(), one.state(301)), (301, None));
    one.machine.handle_timeout(one.now);
    assert_eq!(one.machine.known_members(), 557);
    one.machine.handle_timeout(one.now);
    assert_eq!(one.machine.known_members(), 601);
}

#[test]
fn no_more_push_pulls_are_served_than_the_limit() {
    let mut config = quiet();
    config.max_push_pulls = 2;
    let mut one = One::new(config);
    let none = RemoteState::default();
    one.machine.serve_push_pull(&peer(1), &none).unwrap();
    one.machine.serve_push_pull(&peer(2), &none).unwrap();
    let refused = one.machine.serve_push_pull(&peer(3), &none);
    assert!(
        matches!(refused, Err(ExchangeError::Busy { .. })) && !one.machine.has_push_pull_place()
    );
    one.machine.finish_push_pull(peer(1), None, one.now);
    assert_eq!(one.machine.stats().push_pulls_failed, 1);

    // What waits to be merged still occupies its place.
    let nodes = (1..=600).map(|i| record(i, 1, NodeState::Alive)).collect();
    one.machine.finish_push_pull(peer(2), Some(state_of(false, nodes)), one.now);
    one.machine.serve_push_pull(&peer(3), &none).unwrap();
    assert!(one.machine.serve_push_pull(&peer(4), &none).is_err());
    one.machine.handle_timeout(one.now);
    assert!(one.machine.serve_push_pull(&peer(4), &none).is_err());
    one.machine.handle_timeout(one.now);
    one.machine.serve_push_pull(&peer(4), &none).unwrap();
}

/// `{minimum, maximum, current}` of protocol and application.
fn versions(protocol: [u8; 3], application: [u8; 3]) -> Versions {
    let triple = |[min, max, current]: [u8; 3]| (min, max, current);
    Versions::new(triple(protocol), triple(application))
}

#[test]
fn clusters_that_do_not_understand_each_other_do_not_merge() {
    // Own application versions, the peer's versions, whether they go together.
    let p = [1, 5, 2];
    let cases = [
        ((0, 0, 0), versions(p, [0, 0, 0]), true),
        ((0, 0, 0), versions(p, [0, 1, 0]), true),
        ((0, 0, 0), versions(p, [1, 1, 1]), false),
        ((0, 2, 1), versions(p, [1, 3, 1]), true),
        ((0, 1, 0), versions(p, [1, 3, 1]), false),
        ((0, 3, 2), versions(p, [0, 2, 0]), true),
        ((0, 0, 0), versions([3, 5, 3], [0, 0, 0]), false),
        ((0, 0, 0), versions([1, 2, 2], [0, 0, 0]), true),
        ((0, 0, 0), versions([1, 2, 9], [0, 0, 0]), false),
    ];
    for (own, theirs, fits) in cases {
        let mut config = quiet();
        config.application_versions = own;
        for served in [false, true] {
            let mut one = One::new(config.clone());
            let before = one.beliefs();
            let mut nodes = vec![record(1, 1, NodeState::Alive), record(2, 1, NodeState::Alive)];
            nodes[0].node.versions = versions(p, [own.0, own.1, own.2]);
            nodes[1].node.versions = theirs;
            let user_state = Bytes::from_static(b"x");
            let state = RemoteState { user_state, ..state_of(true, nodes) };
            if served {
                be_asked(&mut one, state);
            } else {
                join_with(&mut one, state);
            }
            let events = one.events();
            if fits {
                assert_eq!(one.machine.known_members(), 3, "{own:?} with {theirs:?}");
                continue;
            }
            assert_eq!(one.beliefs(), before, "{own:?} with {theirs:?}");
            let error = match &events[..] {
                [Event::JoinDone { result: Err(error), .. }] => error,
                [Event::ExchangeFailed(error)] if served => error,
                other => panic!("{other:?}"),
            };
            assert!(matches!(error, ExchangeError::Incompatible { .. }));
            assert!(error.to_string().contains("version"), "{error}");
            assert_eq!(one.drops(DropReason::Incompatible), 1);
        }
    }
}

/// Lets nobody merge.
struct Closed;

impl Application for Closed {
    fn admit_merge(&mut self, peer: &Peer, nodes: &[RemoteRecord]) -> Result<(), Refusal> {
        assert_eq!((peer.addr, nodes.len()), (addr(1), 1));
        Err(Refusal("members only".to_owned()))
    }
}

#[test]
fn a_refused_merge_changes_nothing() {
    let state = |join| state_of(join, vec![record(1, 1, NodeState::Alive)]);
    let mut one = One::with_app(quiet(), Closed);
    let before = one.beliefs();
    join_with(&mut one, state(true));
    let error = join_result(&one.events()).unwrap_err();
    assert!(matches!(error, ExchangeError::MergeRefused { .. }));
    assert!(error.to_string().contains("members only"));
    be_asked(&mut one, state(true));
    assert_eq!(one.event_names(), ["exchange failed"]);
    assert_eq!((one.beliefs(), one.queued().len()), (before, 0));
    assert_eq!(one.drops(DropReason::NotAdmitted), 2);
    // It is asked for joins only.
    be_asked(&mut one, state(false));
    assert_eq!(one.state(1), Some(NodeState::Alive));
}

#[test]
fn what_could_not_be_read_of_a_state_is_counted() {
    let mut one = One::new(quiet());
    let refused = vec![DropReason::BadName, DropReason::MetaTooLarge, DropReason::BadName];
    let nodes = vec![record(1, 1, NodeState::Alive)];
    be_asked(&mut one, RemoteState { skipped: 2, refused, ..state_of(false, nodes) });
    let drops = [DropReason::BadName, DropReason::MetaTooLarge, DropReason::Malformed]
        .map(|r| one.drops(r));
    assert_eq!(drops, [2, 1, 2]);
    assert_eq!(one.state(1), Some(NodeState::Alive));
}

#[test]
fn an_answer_of_another_kind_or_from_another_node_is_a_failure() {
    let mut one = One::knowing(quiet(), 1);
    let answers = [
        StreamResponse::Ack { sequence: 1 },
        StreamResponse::PushPull(RemoteState {
            from: Some(id(5)),
            ..state_of(true, vec![record(5, 1, NodeState::Alive)])
        }),
    ];
    for answer in answers {
        let join = one.machine.join(Peer::named(addr(1), id(1)));
        one.machine.poll_stream_request().unwrap();
        one.machine.handle_stream_response(join, answer, one.now);
        let error = join_result(&one.events()).unwrap_err();
        assert!(matches!(error, ExchangeError::BadAnswer { .. }), "{error}");
        assert!(error.to_string().contains("n1"), "{error}");
    }
    assert_eq!((one.state(5), one.machine.stats().push_pulls_failed), (None, 2));
}

#[test]
fn from_time_to_time_states_are_exchanged_with_a_random_live_member() {
    let mut config = quiet();
    config.push_pull_interval = secs(30);
    let times = |others: usize, until: Duration| {
        let mut one = One::knowing(config.clone(), others);
        one.healthy = true;
        one.receive(1, &[dead("n1", 1, "n1"), suspect("n2", 1, "n1")]);
        let mut seen = Vec::new();
        while one.elapsed() < until {
            one.advance(ms(500));
            while let Some(request) = one.machine.poll_stream_request() {
                assert_eq!(request.kind, StreamRequestKind::PushPull { join: false });
                assert!(!["n0", "n1", "n2"].contains(&request.to.name.unwrap().as_str()));
                seen.push(one.elapsed());
                let response = StreamResponse::PushPull(state_of(false, vec![]));
                one.machine.handle_stream_response(request.id, response, one.now);
                // The suspect is not to die meanwhile: n would be the same, but not its name.
                let again = one.machine.own().incarnation;
                one.receive(3, &[Message::Alive(alive("n2", 2, again + seen.len() as u32))]);
                one.receive(3, &[suspect("n2", again + seen.len() as u32, "n3")]);
            }
        }
        seen
    };
    let small = times(4, secs(600));
    assert!((19..=20).contains(&small.len()), "{small:?}");
    assert!(small[0] <= ms(30_500), "the first comes at a random time");
    // Above 32 members it is rarer.
    assert!((9..=11).contains(&times(39, secs(600)).len()));
}

#[test]
fn alone_or_after_a_farewell_nothing_is_exchanged() {
    let mut config = quiet();
    config.push_pull_interval = secs(1);
    let mut one = One::new(config.clone());
    one.advance(secs(10));
    assert_eq!(one.machine.poll_stream_request(), None);
    let mut one = One::knowing(config, 3);
    one.machine.leave(one.now);
    one.advance(secs(10));
    assert_eq!(one.machine.poll_stream_request(), None);
    // It still answers, about itself.
    assert_eq!(one.machine.serve_push_pull(&peer(1), &RemoteState::default()).unwrap().len(), 1);
}

#[test]
fn an_exchange_that_fails_is_reported() {
    let mut config = quiet();
    config.push_pull_interval = secs(1);
    let mut net = Net::cluster(2, config, 1);
    net.lose(|_, _, kind| kind == Kind::Stream);
    net.run(secs(15));
    assert!(net.event_names(0).contains(&"exchange failed".to_owned()));
    let stats = net.hosts[0].machine.stats();
    assert!(stats.push_pulls > 10 && stats.push_pulls_failed >= stats.push_pulls - 11);
    assert!(net.agree_on(&[0, 1]));
}

#[test]
fn what_gossip_missed_is_repaired() {
    let mut config = quiet();
    config.push_pull_interval = secs(5);
    config.probe_interval = Duration::ZERO;
    config.gossip_interval = Duration::ZERO;
    let mut net = Net::cluster(8, config, 3);
    let meta = Bytes::from_static(b"new");
    net.call(4, |machine, now| machine.update_meta(meta.clone(), now)).unwrap();
    net.call(6, |machine, now| machine.leave(now));
    // Who has left is told nothing more.
    let knows = |host: &net::Host| {
        let updated = host.machine.member("n4").unwrap().node.meta == meta;
        let told = updated && host.machine.member("n6").unwrap().state == NodeState::Left;
        told || host.machine.has_left()
    };
    let took = net.until(secs(120), |net| net.hosts.iter().all(knows));
    assert!(took.is_some());
    assert_eq!(net.log, []);
}
