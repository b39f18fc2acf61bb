//! A node over a transport that does not work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use memberlist::memory::{MemoryNetwork, MemoryStream, MemoryTransport};
use memberlist::transport::{Destination, OpenError, RecvError, SendError, Source};
use memberlist::{Memberlist, Transport};
use memberlist_protocol::DropReason;
use memberlist_tests::wait::until_async;
use memberlist_tests::{TestTransport, quick, within};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// What does not work.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    /// There is never room to send.
    NoRoom,
    /// Nothing can be received, no stream be accepted.
    Deaf,
    /// The name that is verified of every peer is longer than a member's may be.
    LongNames,
}

/// Who asks a deaf transport this often does not wait in between.
const PATIENT_CALLS: usize = 100;

struct Faulty {
    inner: MemoryTransport,
    fault: Fault,
    receives: Arc<AtomicUsize>,
    accepts: Arc<AtomicUsize>,
}

impl Faulty {
    async fn new(fault: Fault) -> Self {
        Self::on(&MemoryTransport::network(), fault).await
    }

    async fn on(network: &MemoryNetwork, fault: Fault) -> Self {
        let inner = MemoryTransport::bind(network, "10.0.0.1:0".parse().unwrap()).await.unwrap();
        Self { inner, fault, receives: Arc::default(), accepts: Arc::default() }
    }

    fn named(&self, source: Source) -> Source {
        match self.fault {
            Fault::LongNames => {
                Source { authenticated_name: Some("n".repeat(256).into()), ..source }
            }
            _ => source,
        }
    }

    fn fail(&self, calls: &AtomicUsize) -> Option<RecvError> {
        if self.fault != Fault::Deaf {
            return None;
        }
        let calls = calls.fetch_add(1, Ordering::Relaxed);
        assert!(calls < PATIENT_CALLS, "a busy loop over a broken socket");
        Some(RecvError::Io(std::io::Error::other("broken")))
    }
}

impl Transport for Faulty {
    type Stream = MemoryStream;

    fn advertise_addr(&self) -> SocketAddr {
        self.inner.advertise_addr()
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        if self.fault == Fault::NoRoom {
            sleep(Duration::from_millis(20)).await;
            return Ok(());
        }
        self.inner.send_packet(to, packet).await
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        match self.fail(&self.receives) {
            Some(error) => Poll::Ready(Err(error)),
            None => {
                let received = self.inner.poll_recv_packet(cx, buf);
                received.map_ok(|(len, source)| (len, self.named(source)))
            }
        }
    }

    async fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> Result<MemoryStream, OpenError> {
        self.inner.open_stream(to, timeout).await
    }

    async fn accept_stream(&self) -> Result<(MemoryStream, Source), RecvError> {
        match self.fail(&self.accepts) {
            Some(error) => Err(error),
            None => {
                let accepted = self.inner.accept_stream().await;
                accepted.map(|(stream, source)| (stream, self.named(source)))
            }
        }
    }

    fn max_packet_bytes(&self, to: &Destination) -> usize {
        self.inner.max_packet_bytes(to)
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A network that takes no packets holds the node up for a moment, not for one after the other.
#[tokio::test(start_paused = true)]
async fn no_room_to_send() {
    const PACKETS: u64 = 50;
    let node = Memberlist::start(Faulty::new(Fault::NoRoom).await, quick("a")).await.unwrap();
    let nobody: SocketAddr = "10.0.0.9:7946".parse().unwrap();
    let began = Instant::now();
    // Together, so that their commands are taken in one turn.
    let mut sends = JoinSet::new();
    for i in 0..PACKETS {
        let node = node.clone();
        sends.spawn(async move { node.send_to(nobody, i.to_string()).await });
    }
    sends.join_all().await.into_iter().for_each(Result::unwrap);
    within("an answer", node.stats()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    assert!(node.packets_dropped() >= PACKETS - 5, "{} dropped", node.packets_dropped());
}

/// Sockets that fail for long are asked now and then, while the node goes on.
#[tokio::test(start_paused = true)]
async fn broken_sockets() {
    let transport = Faulty::new(Fault::Deaf).await;
    let (receives, accepts) = (Arc::clone(&transport.receives), Arc::clone(&transport.accepts));
    let node = Memberlist::start(transport, quick("a")).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    within("an answer", node.stats()).await.unwrap();
    for calls in [receives, accepts] {
        let calls = calls.load(Ordering::Relaxed);
        assert!((30..60).contains(&calls), "asked {calls} times");
    }
}

/// A verified name that no member can have is not the same as none: nothing is heard from its owner,
/// who could speak for anybody otherwise.
#[tokio::test(start_paused = true)]
async fn verified_names_that_no_member_can_have() {
    let network = MemoryTransport::network();
    let a = Faulty::on(&network, Fault::LongNames).await;
    let b = MemoryTransport::bind(&network, "10.0.0.1:0".parse().unwrap()).await.unwrap();
    let a = Memberlist::start(a, quick("a")).await.unwrap();
    let b = Memberlist::start(b, quick("b")).await.unwrap();
    let refused = async || a.stats().await.unwrap().drops(DropReason::IdentityMismatch);
    b.join([a.addr().to_string()]).await.unwrap_err();
    let streams = refused().await;
    assert!(streams > 0);
    b.send_to(a.addr(), "x").await.unwrap();
    until_async("the packet is refused", async || refused().await > streams).await;
    let stats = a.stats().await.unwrap();
    assert_eq!((a.member_count(), stats.packets_received), (1, 0), "{stats:?}");
}
