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

/// What the packets of a queue may take on average: more than a datagram of any usual path, less than
/// those that come on streams may be large.
const BYTES_A_PLACE: usize = 2048;

/// How much of a queue is taken by one connection. Changed under the queue's lock only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    places: AtomicUsize,
    bytes: AtomicUsize,
}

struct Received {
    packet: Bytes,
    source: Source,
    share: Share,
}

/// Packets of all connections in the order in which they came. No connection fills more than a
/// quarter, so that one which floods leaves room for the others.
pub(crate) struct PacketQueue {
    limit: usize,
    limit_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    packets: VecDeque<Received>,
    bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

impl PacketQueue {
    pub(crate) fn new(limit: usize) -> Self {
        // Each connection has room for a packet of any size.
        let limit_bytes = limit.saturating_mul(BYTES_A_PLACE).max(4 * MAX_PACKET_BYTES);
        Self { limit, limit_bytes, state: Mutex::default() }
    }

    /// Whether there was room.
    pub(crate) fn push(&self, packet: Bytes, source: Source, share: &Share) -> bool {
        let mut state = lock(&self.state);
        let places = share.0.places.load(Ordering::Relaxed) + 1;
        let (bytes, of_one) = (packet.len(), share.0.bytes.load(Ordering::Relaxed) + packet.len());
        let full = state.packets.len() >= self.limit || state.bytes + bytes > self.limit_bytes;
        let share_full = places > self.limit.div_ceil(4) || of_one > self.limit_bytes / 4;
        if state.closed || full || share_full {
            return false;
        }
        share.0.places.store(places, Ordering::Relaxed);
        share.0.bytes.store(of_one, Ordering::Relaxed);
        state.bytes += bytes;
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
                state.bytes -= packet.len();
                share.0.places.fetch_sub(1, Ordering::Relaxed);
                share.0.bytes.fetch_sub(packet.len(), Ordering::Relaxed);
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
        state.packets = VecDeque::new();
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
    fn large_packets_are_limited_by_their_bytes() {
        let queue = PacketQueue::new(4096);
        let large = Bytes::from(vec![7; MAX_PACKET_BYTES]);
        let shares: Vec<_> = (0..5).map(|_| Share::default()).collect();
        let push = |share| queue.push(large.clone(), source(1), share);
        let taken: Vec<_> =
            shares.iter().map(|share| (0..100).filter(|_| push(share)).count()).collect();
        assert_eq!(taken.iter().sum::<usize>(), 4096 * BYTES_A_PLACE / MAX_PACKET_BYTES);
        assert!(taken[0] <= 4096 * BYTES_A_PLACE / 4 / MAX_PACKET_BYTES, "{taken:?}");
        // All of it is given back.
        assert_eq!(std::iter::from_fn(|| pop(&queue)).count(), taken.iter().sum::<usize>());
        assert_eq!((0..100).filter(|_| push(&shares[0])).count(), taken[0]);
        // The smallest queue has room for one of each connection.
        let (queue, shares) = (PacketQueue::new(4), [(); 5].map(|()| Share::default()));
        let push = |share: &Share| queue.push(large.clone(), source(1), share);
        assert!(shares[..4].iter().all(push) && !push(&shares[4]));
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
