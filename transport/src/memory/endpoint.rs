//! One node's place on the network: what waits to be received, and whether it is closed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::link::{Dice, LinkConfig};
use super::lock;
use super::stats::Counters;
use super::stream::MemoryStream;
use crate::RecvError;

/// The packets that wait for one node or are under way to it. One more is dropped and counted.
pub const QUEUED_PACKETS: usize = 1024;

/// The streams that wait to be accepted by one node. The next dial waits for room until its timeout.
pub const QUEUED_STREAMS: usize = 1024;

/// What the link decided for one packet.
#[derive(Debug)]
pub(super) enum Fate {
    Lost,
    Arrives { after: Duration },
    ArrivesTwice { after: Duration, again_after: Duration },
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) addr: SocketAddr,
    inbox: Mutex<Inbox>,
    sender: Mutex<Sender>,
    /// Room among the streams that wait to be accepted.
    pub(super) stream_room: Semaphore,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inbox {
    /// By the time of arrival, then in the order of sending.
    packets: BTreeMap<(Instant, u64), (SocketAddr, Bytes)>,
    packets_seen: u64,
    streams: VecDeque<(MemoryStream, SocketAddr)>,
    alarm: Alarm,
    packet_waker: Option<Waker>,
    stream_waker: Option<Waker>,
    closed: bool,
}

#[derive(Debug)]
struct Sender {
    dice: Dice,
    streams_dialled: u64,
}

impl Endpoint {
    pub(super) fn new(addr: SocketAddr, dice: Dice) -> Self {
        Self {
            addr,
            inbox: Mutex::default(),
            sender: Mutex::new(Sender { dice, streams_dialled: 0 }),
            stream_room: Semaphore::new(QUEUED_STREAMS),
            closed: watch::Sender::new(false),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until the node is closed.
    pub(super) async fn closed(&self) {
        // An error would mean that the sender is gone, and it lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Draws what becomes of the next packet that leaves here.
    pub(super) fn draw_fate(&self, link: &LinkConfig) -> Fate {
        let dice = &mut lock(&self.sender).dice;
        let lost = dice.hits(link.loss);
        let twice = dice.hits(link.duplicate);
        let after = link.draw_delay(dice);
        match (lost, twice) {
            (true, _) => Fate::Lost,
            (false, false) => Fate::Arrives { after },
            (false, true) => Fate::ArrivesTwice { after, again_after: link.draw_delay(dice) },
        }
    }

    /// The running number of a stream that this node dials.
    pub(super) fn next_stream_number(&self) -> u64 {
        let mut sender = lock(&self.sender);
        sender.streams_dialled += 1;
        sender.streams_dialled
    }

    pub(super) fn push_packet(
        &self,
        from: SocketAddr,
        packet: Bytes,
        after: Duration,
        counters: &Counters,
    ) {
        let mut inbox = self.inbox();
        if inbox.closed {
            return counters.packets_unreachable.add_one();
        }
        if inbox.packets.len() >= QUEUED_PACKETS {
            return counters.packets_overflowed.add_one();
        }
        let key = (Instant::now() + after, inbox.packets_seen);
        inbox.packets_seen += 1;
        inbox.packets.insert(key, (from, packet));
        let waker = inbox.packet_waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives the stream back if nobody listens any more.
    pub(super) fn push_stream(
        &self,
        from: SocketAddr,
        stream: MemoryStream,
    ) -> Result<(), MemoryStream> {
        let mut inbox = self.inbox();
        if inbox.closed {
            return Err(stream);
        }
        inbox.streams.push_back((stream, from));
        let waker = inbox.stream_waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn poll_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        counters: &Counters,
    ) -> Poll<Result<(usize, SocketAddr), RecvError>> {
        let mut inbox = self.inbox();
        loop {
            if inbox.closed {
                return Poll::Ready(Err(RecvError::Closed));
            }
            let Some((&(due, _), _)) = inbox.packets.first_key_value() else {
                break;
            };
            if inbox.alarm.poll_until(due, cx).is_pending() {
                break;
            }
            let Some((_, (from, packet))) = inbox.packets.pop_first() else {
                break;
            };
            let Some(room) = buf.get_mut(..packet.len()) else {
                counters.packets_unfit.add_one();
                continue;
            };
            room.copy_from_slice(&packet);
            counters.packets_delivered.add_one();
            return Poll::Ready(Ok((packet.len(), from)));
        }
        inbox.packet_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn poll_stream(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(MemoryStream, SocketAddr), RecvError>> {
        let mut inbox = self.inbox();
        if inbox.closed {
            return Poll::Ready(Err(RecvError::Closed));
        }
        let Some(arrived) = inbox.streams.pop_front() else {
            inbox.stream_waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.stream_room.add_permits(1);
        Poll::Ready(Ok(arrived))
    }

    /// Ends everything that waits here. What was queued is dropped.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.closed = true;
        inbox.packets.clear();
        let wakers = [inbox.packet_waker.take(), inbox.stream_waker.take()];
        let streams = std::mem::take(&mut inbox.streams);
        drop(inbox);
        drop(streams);
        self.stream_room.close();
        self.closed.send_replace(true);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}
