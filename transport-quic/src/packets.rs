//! Received packets on their way to the caller.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use memberlist_transport::{RecvError, Source};

use crate::pool::lock;

/// The largest packet that is received, by whatever way.
pub(crate) const MAX_PACKET_BYTES: usize = 65_507;

/// How many of a queue's places are taken by one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share(Arc<AtomicUsize>);

struct Received {
    packet: Bytes,
    source: Source,
    share: Share,
}

/// Packets of all connections in the order in which they came. No connection fills more than a
/// quarter, so that one which floods leaves room for the others.
pub(crate) struct PacketQueue {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    packets: VecDeque<Received>,
    waker: Option<Waker>,
    closed: bool,
}

impl PacketQueue {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Whether there was room.
    pub(crate) fn push(&self, packet: Bytes, source: Source, share: &Share) -> bool {
        let mut state = lock(&self.state);
        let of_one = share.0.load(Ordering::Relaxed);
        if state.closed || state.packets.len() >= self.limit || of_one >= self.limit.div_ceil(4) {
            return false;
        }
        share.0.store(of_one + 1, Ordering::Relaxed);
        state.packets.push_back(Received { packet, source, share: share.clone() });
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    pub(crate) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Result<(Bytes, Source), RecvError>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Poll::Ready(Err(RecvError::Closed));
        }
        match state.packets.pop_front() {
            Some(Received { packet, source, share }) => {
                // Changed under the lock only.
                share.0.fetch_sub(1, Ordering::Relaxed);
                Poll::Ready(Ok((packet, source)))
            }
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.packets.clear();
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(port: u16) -> Source {
        std::net::SocketAddr::from(([10, 0, 0, 1], port)).into()
    }

    fn pop(queue: &PacketQueue) -> Option<(Bytes, Source)> {
        match queue.poll_pop(&Context::from_waker(Waker::noop())) {
            Poll::Ready(popped) => Some(popped.unwrap()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_connection_fills_a_quarter_and_all_of_them_the_whole() {
        let queue = PacketQueue::new(8);
        let shares: Vec<_> = (0..5).map(|_| Share::default()).collect();
        for (port, share) in (0..).zip(&shares[..4]) {
            let taken =
                (0..3).filter(|_| queue.push(Bytes::from_static(b"x"), source(port), share));
            assert_eq!(taken.count(), 2);
        }
        assert!(!queue.push(Bytes::from_static(b"x"), source(9), &shares[4]));
        assert_eq!(pop(&queue).unwrap().1, source(0));
        assert!(queue.push(Bytes::from_static(b"y"), source(9), &shares[4]));
        let rest: Vec<_> = std::iter::from_fn(|| pop(&queue)).map(|(_, from)| from).collect();
        assert_eq!(rest, [0, 1, 1, 2, 2, 3, 3, 9].map(source));
    }

    #[test]
    fn a_closed_queue_takes_and_gives_nothing() {
        let (queue, share) = (PacketQueue::new(8), Share::default());
        assert!(queue.push(Bytes::from_static(b"x"), source(1), &share));
        queue.close();
        assert!(!queue.push(Bytes::from_static(b"x"), source(1), &share));
        let popped = queue.poll_pop(&Context::from_waker(Waker::noop()));
        assert!(matches!(popped, Poll::Ready(Err(RecvError::Closed))));
    }
}
