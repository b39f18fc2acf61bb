//! A transport around another one, which loses what it is told to lose.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use memberlist::Transport;
use memberlist::transport::{Destination, OpenError, RecvError, SendError, Source};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Traffic {
    /// Packets: they vanish.
    Packets,
    /// Streams: dialling one waits. Those that are open already go on.
    Streams,
}

/// The rules that all transports of a cluster share; clones are the same rules. Everything passes
/// at first.
#[derive(Clone, Debug)]
pub struct Rules(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    blocked: Mutex<HashSet<(SocketAddr, SocketAddr, Traffic)>>,
    changed: watch::Sender<()>,
    packets_lost: AtomicU64,
    dials_held: AtomicU64,
}

impl Default for Rules {
    fn default() -> Self {
        Self(Arc::new(Shared {
            blocked: Mutex::default(),
            changed: watch::Sender::new(()),
            packets_lost: AtomicU64::new(0),
            dials_held: AtomicU64::new(0),
        }))
    }
}

impl Rules {
    fn blocked(&self) -> MutexGuard<'_, HashSet<(SocketAddr, SocketAddr, Traffic)>> {
        self.0.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks one direction for one kind of traffic.
    pub fn block(&self, from: SocketAddr, to: SocketAddr, traffic: Traffic) {
        self.blocked().insert((from, to, traffic));
    }

    /// Blocks everything in one direction.
    pub fn block_all(&self, from: SocketAddr, to: SocketAddr) {
        self.block(from, to, Traffic::Packets);
        self.block(from, to, Traffic::Streams);
    }

    /// Blocks everything between two sides, both ways.
    pub fn partition(&self, one: &[SocketAddr], other: &[SocketAddr]) {
        for &a in one {
            for &b in other {
                self.block_all(a, b);
                self.block_all(b, a);
            }
        }
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.blocked().clear();
        self.0.changed.send_replace(());
    }

    /// Packets that were lost by a rule so far.
    pub fn packets_lost(&self) -> u64 {
        self.0.packets_lost.load(Ordering::Relaxed)
    }

    /// Dials that a rule has held up so far.
    pub fn dials_held(&self) -> u64 {
        self.0.dials_held.load(Ordering::Relaxed)
    }

    fn passes(&self, from: SocketAddr, to: SocketAddr, traffic: Traffic) -> bool {
        !self.blocked().contains(&(from, to, traffic))
    }

    /// As TCP needs its acknowledgements, a stream needs both directions.
    fn stream_passes(&self, a: SocketAddr, b: SocketAddr) -> bool {
        self.passes(a, b, Traffic::Streams) && self.passes(b, a, Traffic::Streams)
    }

    async fn stream_passed(&self, a: SocketAddr, b: SocketAddr) {
        let mut changed = self.0.changed.subscribe();
        if !self.stream_passes(a, b) {
            self.0.dials_held.fetch_add(1, Ordering::Relaxed);
        }
        while !self.stream_passes(a, b) {
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }
}

/// `T`, as far as the [`Rules`] let it.
#[derive(Debug)]
pub struct FilterTransport<T> {
    inner: T,
    rules: Rules,
}

impl<T: Transport> FilterTransport<T> {
    /// Puts rules around a transport. Nodes are told apart by the address that they advertise.
    pub fn new(inner: T, rules: Rules) -> Self {
        Self { inner, rules }
    }

    /// What is inside.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: Transport> Transport for FilterTransport<T> {
    type Stream = T::Stream;

    fn advertise_addr(&self) -> SocketAddr {
        self.inner.advertise_addr()
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        if !self.rules.passes(self.advertise_addr(), to.addr, Traffic::Packets) {
            self.rules.0.packets_lost.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.inner.send_packet(to, packet).await
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        self.inner.poll_recv_packet(cx, buf)
    }

    async fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> Result<T::Stream, OpenError> {
        let deadline = Instant::now() + timeout;
        let late = |_| OpenError::Timeout { to: to.addr, timeout };
        let passed = self.rules.stream_passed(self.advertise_addr(), to.addr);
        timeout_at(deadline, passed).await.map_err(late)?;
        self.inner.open_stream(to, deadline.saturating_duration_since(Instant::now())).await
    }

    async fn accept_stream(&self) -> Result<(T::Stream, Source), RecvError> {
        self.inner.accept_stream().await
    }

    fn max_packet_bytes(&self, to: &Destination) -> usize {
        self.inner.max_packet_bytes(to)
    }

    fn rtt(&self, to: &Destination) -> Option<Duration> {
        self.inner.rtt(to)
    }

    fn is_encrypted(&self) -> bool {
        self.inner.is_encrypted()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestTransport;
    use memberlist::memory::MemoryTransport;

    async fn two() -> (FilterTransport<MemoryTransport>, MemoryTransport, Rules) {
        let (network, rules) = (MemoryTransport::network(), Rules::default());
        let bind = || network.bind("10.0.0.1:0".parse().unwrap()).unwrap();
        (FilterTransport::new(bind(), rules.clone()), bind(), rules)
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_has_a_direction_and_a_kind() {
        let (a, b, rules) = two().await;
        let (from, to) = (a.advertise_addr(), b.advertise_addr());
        rules.block(from, to, Traffic::Packets);
        rules.block(to, from, Traffic::Packets);
        a.send_packet(&to.into(), b"lost").await.unwrap();
        assert_eq!(rules.packets_lost(), 1);
        a.open_stream(&to.into(), Duration::from_secs(1)).await.unwrap();
        rules.heal();
        a.send_packet(&to.into(), b"seen").await.unwrap();
        let mut buf = [0; 65_536];
        let received = std::future::poll_fn(|cx| b.poll_recv_packet(cx, &mut buf)).await;
        assert_eq!(received.unwrap().0, 4);
        assert_eq!((&buf[..4], rules.packets_lost()), (&b"seen"[..], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_waits_for_the_heal_until_its_timeout() {
        let (a, b, rules) = two().await;
        let to: Destination = b.advertise_addr().into();
        rules.block(b.advertise_addr(), a.advertise_addr(), Traffic::Streams);
        let second = Duration::from_secs(1);
        let late = a.open_stream(&to, second).await;
        assert!(matches!(late, Err(OpenError::Timeout { timeout, .. }) if timeout == second));
        let heal = async {
            tokio::time::sleep(second / 2).await;
            rules.heal();
        };
        let (opened, ()) = tokio::join!(a.open_stream(&to, second), heal);
        opened.unwrap();
        assert_eq!(rules.dials_held(), 2);
    }
}
