//! Exchange of the application's state alone, in the turns without a full push/pull.

use super::*;
use crate::error::ExchangeError;
use crate::membership::{StreamRequest, StreamRequestKind, StreamResponse};
use crate::wire::WireFormat;

/// With turns once a second, and members that agree with this node: nothing is compared.
fn turning(config: impl FnOnce(&mut Config), shows: bool) -> One {
    let mut own = quiet();
    own.push_pull_interval = secs(1);
    own.delta_sync = true;
    own.probe_interval = Duration::ZERO;
    config(&mut own);
    let mut one = One::knowing(own, 3);
    let view = one.machine.members.view().to_u64();
    for i in 1..=3 {
        match shows {
            true => one.machine.hear_view(&id(i), view, one.now),
            false => one.machine.miss_view(&id(i)),
        }
    }
    one
}

/// What the next turn asks for.
fn turn(one: &mut One) -> StreamRequest {
    one.advance(secs(1));
    let request = one.machine.poll_stream_request().expect("it is its turn");
    assert_eq!(one.machine.poll_stream_request(), None);
    request
}

fn end(one: &mut One, request: &StreamRequest, response: StreamResponse) {
    one.machine.handle_stream_response(request.id, response, one.now);
    one.drain();
}

fn refused(request: &StreamRequest) -> ExchangeError {
    let message = "this node has no answers on topic 2".to_owned();
    ExchangeError::Refused { peer: request.to.clone(), message }
}

#[test]
fn members_that_show_their_view_get_a_full_push_pull_at_every_tenth_turn() {
    let mut one = turning(|_| {}, true);
    for number in 1..=20 {
        let request = turn(&mut one);
        assert!(request.to.name.is_some(), "it is to a member");
        assert_eq!(request.dialect, Dialect::Native);
        assert_eq!(request.timeout, one.machine.config.stream_timeout);
        let response = match number % 10 {
            0 => {
                assert_eq!(request.kind, StreamRequestKind::PushPull { join: false });
                StreamResponse::PushPull(state_of(false, vec![]))
            }
            _ => {
                assert_eq!(request.kind, StreamRequestKind::UserState);
                StreamResponse::UserState
            }
        };
        end(&mut one, &request, response);
    }
    let stats = one.machine.stats();
    assert_eq!((stats.push_pulls, stats.user_state_exchanges), (2, 18));
    assert_eq!((stats.push_pulls_failed, stats.user_state_exchanges_failed), (0, 0));
    assert_eq!(one.events(), []);
}

#[test]
fn members_that_do_not_get_a_full_push_pull_at_every_turn() {
    let shows_nothing = |_: &mut Config| {};
    let no_sync = |config: &mut Config| config.delta_sync = false;
    // Nobody is known to read the native format, and Go's has no requests.
    let mixed = |config: &mut Config| config.wire_format = WireFormat::Mixed;
    let others = [turning(shows_nothing, false), turning(no_sync, true), turning(mixed, true)];
    for mut one in others {
        for _ in 0..12 {
            let request = turn(&mut one);
            assert_eq!(request.kind, StreamRequestKind::PushPull { join: false });
        }
        assert_eq!(one.machine.stats().user_state_exchanges, 0);
    }
}

#[test]
fn one_that_fails_is_counted_as_such_only() {
    let mut one = turning(|_| {}, true);
    let request = turn(&mut one);
    let error = refused(&request);
    end(&mut one, &request, StreamResponse::Failed(error.clone()));
    assert_eq!(one.events(), [Event::ExchangeFailed(error)]);
    // So does an answer that is none.
    let request = turn(&mut one);
    let state = state_of(false, vec![record(9, 1, NodeState::Alive)]);
    end(&mut one, &request, StreamResponse::PushPull(state));
    assert!(matches!(one.events()[..], [Event::ExchangeFailed(ExchangeError::BadAnswer { .. })]));
    assert_eq!(one.state(9), None);
    let stats = one.machine.stats();
    assert_eq!((stats.user_state_exchanges, stats.user_state_exchanges_failed), (2, 2));
    assert_eq!((stats.push_pulls, stats.push_pulls_failed, stats.syncs_failed), (0, 0, 0));
    assert_eq!(turn(&mut one).kind, StreamRequestKind::UserState, "the next turn tries again");
}

#[test]
fn its_end_is_no_answer_to_anything_else() {
    let mut one = One::new(quiet());
    one.machine.join(peer(1));
    let request = one.machine.poll_stream_request().unwrap();
    end(&mut one, &request, StreamResponse::UserState);
    assert_eq!(one.event_names(), ["join done false"]);
    assert_eq!(one.machine.stats().push_pulls_failed, 1);
}

#[test]
fn a_state_from_a_push_pull_says_whose_it_is() {
    let mut one = One::new(quiet());
    let user_state = Bytes::from_static(b"x");
    let nodes = vec![record(1, 1, NodeState::Alive)];
    let state = RemoteState { from: Some(id(1)), user_state, ..state_of(false, nodes) };
    one.machine.serve_push_pull(&peer(1), &state).unwrap();
    one.machine.finish_push_pull(peer(1), Some(state), one.now);
    let whose = |event: &Event| match event {
        Event::UserState { from, .. } => from.clone(),
        _ => None,
    };
    assert_eq!(one.events().iter().find_map(whose), Some(id(1)));
}
