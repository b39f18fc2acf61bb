//! Seeds that have no place, and the joins that they tell to come back.

use super::*;
use crate::error::ExchangeError;
use crate::membership::{OperationId, StreamRequest, StreamRequestKind, StreamResponse};
use crate::wire::stream::{Busy, MAX_BUSY_OTHERS, MAX_RETRY_AFTER};

fn busy(retry_after: Duration, others: impl IntoIterator<Item = usize>) -> StreamResponse {
    let others = others.into_iter().map(|i| Peer::named(addr(i), id(i))).collect();
    StreamResponse::Busy(Busy { retry_after, others })
}

/// Lets time pass until the join asks somebody; gives how long that took.
fn next_request(one: &mut One, limit: Duration) -> Option<(Duration, StreamRequest)> {
    let began = one.now;
    while one.now < began + limit {
        while let Some(request) = one.machine.poll_stream_request() {
            // Probes have streams as well.
            if matches!(request.kind, StreamRequestKind::PushPull { .. }) {
                return Some((one.now - began, request));
            }
        }
        one.advance(ms(10));
    }
    None
}

/// A join through node 1, which is told this.
fn join_told(one: &mut One, answer: StreamResponse) -> OperationId {
    let id = one.machine.join(peer(1));
    one.machine.poll_stream_request().unwrap();
    one.machine.handle_stream_response(id, answer, one.now);
    one.drain();
    id
}

fn joined(one: &mut One) -> Option<Result<usize, ExchangeError>> {
    let result = |event: Event| match event {
        Event::JoinDone { result, .. } => Some(result),
        _ => None,
    };
    one.events().into_iter().find_map(result)
}

fn check_nothing_waits(one: &mut One) {
    assert_eq!(one.machine.pending().deferred_joins, 0);
    assert_eq!(next_request(one, secs(60)), None);
}

#[test]
fn a_busy_seed_is_asked_again_when_it_says() {
    let mut one = One::new(quiet());
    let id = join_told(&mut one, busy(ms(400), []));
    assert_eq!((joined(&mut one), one.machine.pending().deferred_joins), (None, 1));
    let (took, request) = next_request(&mut one, secs(2)).unwrap();
    assert!(took >= ms(400) && took <= ms(510), "{took:?}");
    assert_eq!((request.id, request.to), (id, peer(1)));
    let state = state_of(true, vec![record(1, 1, NodeState::Alive)]);
    one.machine.handle_stream_response(id, StreamResponse::PushPull(state), one.now);
    one.drain();
    assert_eq!(joined(&mut one), Some(Ok(1)));
    let stats = one.machine.stats();
    assert_eq!((stats.joins_retried, stats.push_pulls, stats.push_pulls_failed), (1, 2, 0));
    check_nothing_waits(&mut one);
}

#[test]
fn a_member_that_a_busy_seed_names_is_asked_under_its_name() {
    let mut one = One::new(quiet());
    // Itself it does not ask.
    let id = join_told(&mut one, busy(ms(100), [0, 2]));
    let (_, request) = next_request(&mut one, secs(2)).unwrap();
    assert_eq!((request.id, request.to), (id, Peer::named(addr(2), super::id(2))));
    // It is another one, or does not answer, or is busy and names others: back to the seed.
    let wrong = RemoteState { from: Some(super::id(9)), ..state_of(true, vec![]) };
    let (to, timeout) = (peer(2), secs(1));
    for answer in [
        StreamResponse::PushPull(wrong),
        StreamResponse::Failed(ExchangeError::Timeout { peer: to, timeout }),
        busy(ms(100), [3]),
    ] {
        one.machine.handle_stream_response(id, answer, one.now);
        let (_, request) = next_request(&mut one, secs(2)).unwrap();
        assert_eq!((request.id, request.to), (id, peer(1)));
        one.machine.handle_stream_response(id, busy(ms(100), [2]), one.now);
        let (_, request) = next_request(&mut one, secs(2)).unwrap();
        assert_eq!(request.to.addr, addr(2));
    }
    let state = state_of(true, vec![record(2, 1, NodeState::Alive)]);
    one.machine.handle_stream_response(id, StreamResponse::PushPull(state), one.now);
    one.drain();
    assert_eq!(joined(&mut one), Some(Ok(1)));
}

/// A seed that fails is not asked again: only being busy is a reason to wait.
#[test]
fn a_seed_that_fails_ends_the_join() {
    let mut one = One::new(quiet());
    let id = join_told(&mut one, busy(ms(100), []));
    next_request(&mut one, secs(2)).unwrap();
    let error = ExchangeError::Refused { peer: peer(1), message: "no".to_owned() };
    one.machine.handle_stream_response(id, StreamResponse::Failed(error.clone()), one.now);
    one.drain();
    assert_eq!(joined(&mut one), Some(Err(error)));
}

/// Whatever a hostile seed says, it costs ten attempts at most, over three timeouts at most.
#[test]
fn a_seed_that_is_always_busy_is_given_up() {
    for (retry_after, attempts) in [
        (Duration::ZERO, 10),
        (ms(1), 10),
        (secs(1), 10),
        (secs(9), 4),
        (secs(40), 1),
        (MAX_RETRY_AFTER, 1),
        (Duration::MAX, 1),
    ] {
        let mut one = One::new(quiet());
        let began = one.now;
        let id = join_told(&mut one, busy(retry_after, 2..9));
        let mut asked = 1;
        while let Some((_, request)) = next_request(&mut one, secs(61)) {
            asked += 1;
            assert!(one.now - began <= secs(30), "{retry_after:?}");
            assert!(request.to == peer(1) || (2..6).any(|i| addr(i) == request.to.addr));
            one.machine.handle_stream_response(id, busy(retry_after, 2..9), one.now);
            one.drain();
        }
        let result = joined(&mut one);
        let Some(Err(ExchangeError::Busy { peer: seed, attempts: told, .. })) = result else {
            panic!("{retry_after:?}: {result:?}");
        };
        assert!(asked <= attempts && told == asked && seed == peer(1), "{retry_after:?}: {asked}");
        assert!(asked == attempts || attempts == 4, "{retry_after:?}: {asked}");
        check_nothing_waits(&mut one);
    }
}

#[test]
fn a_join_that_waits_ends_when_it_is_cancelled_or_the_node_leaves() {
    type End = fn(&mut One, OperationId);
    let ends: [End; 2] = [
        |one, id| one.machine.cancel_join(id),
        |one, _| {
            one.machine.leave(one.now);
        },
    ];
    for end in ends {
        let mut one = One::new(quiet());
        let id = join_told(&mut one, busy(secs(1), [2]));
        end(&mut one, id);
        one.drain();
        assert_eq!(joined(&mut one), Some(Err(ExchangeError::Cancelled)));
        assert_eq!(next_request(&mut one, secs(60)), None);
        // Its end is its end.
        one.machine.cancel_join(id);
        one.drain();
        assert_eq!(joined(&mut one), None);
    }
}

#[test]
fn a_later_attempt_ends_when_it_is_cancelled_or_the_node_has_left() {
    let state = || state_of(true, vec![record(1, 1, NodeState::Alive)]);
    let mut one = One::new(quiet());
    let id = join_told(&mut one, busy(ms(100), []));
    next_request(&mut one, secs(1)).unwrap();
    one.machine.cancel_join(id);
    one.machine.handle_stream_response(id, StreamResponse::PushPull(state()), one.now);
    one.drain();
    assert_eq!(joined(&mut one), Some(Err(ExchangeError::Cancelled)));
    assert_eq!(one.state(1), None, "nobody wants it any more");

    let mut one = One::new(quiet());
    let id = join_told(&mut one, busy(ms(100), []));
    next_request(&mut one, secs(1)).unwrap();
    one.machine.leave(one.now);
    one.machine.handle_stream_response(id, busy(ms(100), []), one.now);
    one.drain();
    assert_eq!(joined(&mut one), Some(Err(ExchangeError::Cancelled)));

    // One that has not been carried out yet is not carried out any more.
    let mut one = One::new(quiet());
    let id = one.machine.join(peer(1));
    one.machine.cancel_join(id);
    assert_eq!(one.machine.poll_stream_request(), None);
}

/// A node that has left and joins again waits as another does; it is back when it has succeeded.
#[test]
fn a_node_that_returns_waits_too() {
    let mut one = One::knowing(quiet(), 1);
    one.machine.leave(one.now);
    let id = join_told(&mut one, busy(ms(100), []));
    let (_, request) = next_request(&mut one, secs(1)).unwrap();
    assert_eq!((request.id, one.machine.has_left()), (id, true));
    let state = state_of(true, vec![record(1, 1, NodeState::Alive)]);
    one.machine.handle_stream_response(id, StreamResponse::PushPull(state), one.now);
    assert!(!one.machine.has_left());
}

#[test]
fn who_is_told_later_comes_later() {
    let mut config = quiet();
    (config.max_push_pulls, config.stream_timeout) = (1, secs(5));
    let mut one = One::knowing(config, 9);
    let mut told = |asker: usize, join| one.machine.tell_busy(Some(&id(asker)), join, one.now);
    let crowd: Vec<_> = (0..1000).map(|_| told(3, true)).collect();
    let mean = |some: &[Busy]| some.iter().map(|busy| busy.retry_after).sum::<Duration>() / 10;
    let means = [0, 10, 20, 30].map(|at| mean(&crowd[at..at + 10]));
    assert!(means.is_sorted() && means[3] > 3 * means[0], "{means:?}");
    // Nobody is told to wait for longer than an exchange may take, and not all the same.
    let (low, high) = (secs(5).mul_f64(0.75), secs(5).mul_f64(1.25));
    let last = &crowd[900..];
    assert!(last.iter().all(|busy| (low..=high).contains(&busy.retry_after)));
    let apart = last.iter().map(|busy| busy.retry_after).max() > Some(secs(6));
    assert!(apart && last.iter().any(|busy| busy.retry_after < secs(4)));
    for busy in &crowd {
        let names = |other: &Peer| other.name.clone().unwrap();
        let others: std::collections::BTreeSet<_> = busy.others.iter().map(names).collect();
        assert_eq!(others.len(), MAX_BUSY_OTHERS);
        assert!(!others.contains(&id(3)) && !others.contains(&id(0)));
    }
    told(3, false);
    let drops = one.drops(DropReason::TooManyPushPulls);
    assert_eq!((one.machine.stats().joins_deferred, drops), (1000, 1));
    // What was promised is over at some time.
    one.now += secs(10);
    assert!(one.machine.tell_busy(None, true, one.now).retry_after < ms(130));
    one.machine.leave(one.now);
    assert_eq!(one.machine.tell_busy(None, true, one.now).others, []);
}

#[test]
fn a_periodic_exchange_that_is_told_busy_fails() {
    let mut config = quiet();
    config.push_pull_interval = secs(1);
    let mut one = One::knowing(config, 1);
    let (_, request) = next_request(&mut one, secs(60)).unwrap();
    one.machine.handle_stream_response(request.id, busy(ms(100), [2]), one.now);
    one.drain();
    let failed = |event: &Event| {
        matches!(event, Event::ExchangeFailed(ExchangeError::Busy { attempts: 1, .. }))
    };
    assert!(one.events().iter().any(failed));
    let pending = one.machine.pending();
    assert_eq!((one.machine.stats().push_pulls_failed, pending.deferred_joins), (1, 0));
}
