//! The UDP socket below QUIC: it counts what goes through it and what is no QUIC, and can be closed.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, UdpPoller};
use quinn_proto::{HashedConnectionIdGenerator, InvalidCid};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::stats::Counters;

/// Both bits are set in every QUIC packet with a long header (RFC 9000 section 17.2).
const LONG_HEADER: u8 = 0x80;
/// The "fixed bit" is set in every QUIC packet; greasing (RFC 9287) is off.
const FIXED_BIT: u8 = 0x40;
const QUIC_VERSION_1: [u8; 4] = [0, 0, 0, 1];

/// The endpoint and all connections share it, some for longer than the transport is open; so it can be
/// closed under them. After that nothing comes or goes.
pub(crate) struct Socket {
    io: RwLock<Option<Arc<Io>>>,
    local: SocketAddr,
    may_fragment: bool,
    max_transmit_segments: usize,
    max_receive_segments: usize,
    counters: Arc<Counters>,
}

struct Io {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(socket: std::net::UdpSocket, counters: Arc<Counters>) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self {
            local: socket.local_addr()?,
            may_fragment: state.may_fragment(),
            max_transmit_segments: state.max_gso_segments(),
            max_receive_segments: state.gro_segments(),
            io: RwLock::new(Some(Arc::new(Io { socket, state }))),
            counters,
        })
    }

    /// Frees the port.
    pub(crate) fn close(&self) {
        self.io.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Held while something is received or sent, so that the port is free when it has been closed.
    fn io(&self) -> RwLockReadGuard<'_, Option<Arc<Io>>> {
        self.io.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_received(&self, bufs: &[IoSliceMut<'_>], metas: &[RecvMeta]) {
        for (buf, meta) in bufs.iter().zip(metas) {
            self.counters.udp_bytes_received.add(meta.len);
            let received = buf.get(..meta.len).unwrap_or_default();
            for datagram in received.chunks(meta.stride.max(1)) {
                self.counters.udp_datagrams_received.add_one();
                if !may_be_quic(datagram) {
                    self.counters.foreign_datagrams.add_one();
                }
            }
        }
    }
}

/// Whether this looks like a packet of this version of QUIC. To which connection it belongs, if to
/// any, is found out later.
fn may_be_quic(datagram: &[u8]) -> bool {
    match datagram {
        [first, ..] if first & FIXED_BIT == 0 => false,
        [first, version @ ..] if first & LONG_HEADER != 0 => version.starts_with(&QUIC_VERSION_1),
        datagram => !datagram.is_empty(),
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Waits for room to send, for one connection.
struct Poller {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.socket.io().clone();
        let waiting = self.waiting.get_or_insert_with(|| {
            Box::pin(async move {
                match io {
                    Some(io) => io.socket.writable().await,
                    None => Ok(()),
                }
            })
        });
        let writable = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(writable)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let io = self.io();
        let Some(io) = &*io else { return Ok(()) };
        io.socket.try_io(Interest::WRITABLE, || io.state.send((&io.socket).into(), transmit))?;
        let len = transmit.contents.len();
        self.counters.udp_bytes_sent.add(len);
        let segment = transmit.segment_size.unwrap_or(len).max(1);
        self.counters.udp_datagrams_sent.add(len.div_ceil(segment));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let io = self.io();
        let Some(io) = &*io else { return Poll::Pending };
        loop {
            ready!(io.socket.poll_recv_ready(cx))?;
            let receive = || io.state.recv((&io.socket).into(), bufs, meta);
            if let Ok(count) = io.socket.try_io(Interest::READABLE, receive) {
                self.count_received(bufs, &meta[..count]);
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.max_transmit_segments
    }

    fn max_receive_segments(&self) -> usize {
        self.max_receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

/// Makes connection IDs that can be told from what was never one: what comes with such an ID is
/// counted and gets no answer. With a key that lasts, the IDs of this node before a restart are known
/// too, and get a stateless reset (RFC 9000 section 10.3).
pub(crate) struct CountingIds {
    inner: HashedConnectionIdGenerator,
    counters: Arc<Counters>,
}

impl CountingIds {
    pub(crate) fn new(key: Option<u64>, counters: Arc<Counters>) -> Self {
        let inner = match key {
            Some(key) => HashedConnectionIdGenerator::from_key(key),
            None => HashedConnectionIdGenerator::new(),
        };
        Self { inner, counters }
    }
}

impl ConnectionIdGenerator for CountingIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.inner.generate_cid()
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        let valid = self.inner.validate(cid);
        if valid.is_err() {
            self.counters.foreign_datagrams.add_one();
        }
        valid
    }

    fn cid_len(&self) -> usize {
        self.inner.cid_len()
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        self.inner.cid_lifetime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_quic_is_told_apart() {
        let foreign: [&[u8]; 5] =
            [&[], &[0; 100], b"\x16\x03\x01\x02", &[0xc0, 0, 0, 0, 2], &[0xc0]];
        for datagram in foreign {
            assert!(!may_be_quic(datagram), "{datagram:?}");
        }
        // A plain packet of memberlist begins like a QUIC packet with a short header; its ID tells.
        let quic: [&[u8]; 3] = [&[0xc0, 0, 0, 0, 1, 8], &[0x40, 1, 2, 3], b"M"];
        for datagram in quic {
            assert!(may_be_quic(datagram), "{datagram:?}");
        }
    }

    #[test]
    fn ids_of_the_same_key_are_known_again() {
        let counters = Arc::new(Counters::default());
        let ids = |key| CountingIds::new(Some(key), Arc::clone(&counters));
        let id = ids(1).generate_cid();
        assert!(ids(1).validate(&id).is_ok());
        assert_eq!(counters.snapshot().foreign_datagrams, 0);
        assert!(ids(2).validate(&id).is_err());
        assert_eq!(counters.snapshot().foreign_datagrams, 1);
    }
}
