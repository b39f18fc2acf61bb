//! [`NetTransport`]: the parts put together.

use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use memberlist_transport::ip::advertise_addr;
use memberlist_transport::{
    Destination, OpenError, RecvError, SendError, Source, TimedStream, Transport, canonical_addr,
};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::sockets::Sockets;
use crate::stats::Counters;
use crate::tcp::Acceptor;
use crate::{BindError, NetConfig, NetStats};

/// A stream of [`NetTransport`]: a TCP connection that waits no longer than set by
/// [`read_timeout`](NetConfig::read_timeout), [`write_timeout`](NetConfig::write_timeout) and, if
/// the peer opened it, [`stream_timeout`](NetConfig::stream_timeout).
pub type NetStream = TimedStream<TcpStream>;

/// Packets by UDP and streams by TCP, on one port.
///
/// It keeps the [contract of `Transport`](Transport#contract), and where that leaves a choice:
///
/// - **A full send buffer**: a packet waits for room up to 20 ms, then it is dropped, counted in
///   [`NetStats::packets_dropped_busy`], and reported as sent. It was lost like any packet may be;
///   an error would be held against the peer.
/// - **Receiving** takes the sockets in turn. Errors that only report what became of a packet sent
///   before are counted and skipped. A packet that fills the buffer to its last byte counts as cut
///   and is dropped, unless the buffer has 65,535 bytes or more.
/// - **Accepting** never gives [`RecvError::Io`]. Errors of one connection are counted and skipped;
///   after others, such as too many open files, it pauses for 5 ms, then twice as long each time up
///   to 1 s.
/// - **Close** closes the sockets before it returns; dropping the transport does the same. Streams
///   that were handed out live on.
///
/// Its methods must be called within the tokio runtime it was bound in.
pub struct NetTransport {
    shared: Arc<Shared>,
}

impl NetTransport {
    /// Opens the sockets. Must be called within a tokio runtime that has I/O and time enabled.
    ///
    /// # Errors
    /// [`BindError`] if the configuration makes no sense or the system refuses a socket.
    pub fn bind(config: NetConfig) -> Result<Self, BindError> {
        config.validate()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BindError::NoRuntime);
        }
        let sockets = Sockets::open(&config)?;
        let local_addrs: Vec<_> = sockets.udp.iter().map(|udp| udp.local.addr).collect();
        let first = sockets.udp.first().ok_or(BindError::NoBindAddress)?.local;
        let advertise_addr = advertise_addr(config.advertise_addr.map(canonical_addr), first)
            .map_err(BindError::Interfaces)?;
        let inbound_slots = config.max_inbound_streams.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            shared: Arc::new(Shared {
                advertise_addr,
                local_addrs,
                udp_recv_buffer_bytes: sockets.udp_recv_buffer_bytes,
                sockets: RwLock::new(Some(sockets)),
                closed: watch::Sender::new(false),
                counters: Arc::default(),
                next_udp: AtomicUsize::new(0),
                recv_waker: Mutex::default(),
                send_turn: Semaphore::new(1),
                acceptor: Mutex::default(),
                inbound_slots: Arc::new(Semaphore::new(inbound_slots)),
                config,
            }),
        })
    }

    /// [`bind`](Self::bind) to one address with the defaults of [`NetConfig::new`].
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_addr(addr: SocketAddr) -> Result<Self, BindError> {
        Self::bind(NetConfig::new(addr))
    }

    /// The bound addresses, in the order of [`NetConfig::bind_addrs`], with their ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared.local_addrs
    }

    /// The size in bytes of the UDP receive buffer (the least, if there are several), as the system
    /// reports it. Linux reports twice the usable size. Much less than
    /// [`NetConfig::udp_recv_buffer_bytes`] means that bursts will be lost.
    pub fn udp_recv_buffer_bytes(&self) -> usize {
        self.shared.udp_recv_buffer_bytes
    }

    /// Whether packets and streams from this address are taken, by [`NetConfig::allowed`].
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.shared.config.allows(ip)
    }

    /// What happened so far.
    pub fn stats(&self) -> NetStats {
        self.shared.counters.snapshot()
    }
}

impl fmt::Debug for NetTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetTransport")
            .field("advertise_addr", &self.shared.advertise_addr)
            .field("local_addrs", &self.shared.local_addrs)
            .field("closed", &*self.shared.closed.borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for NetTransport {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Transport for NetTransport {
    type Stream = NetStream;

    fn advertise_addr(&self) -> SocketAddr {
        self.shared.advertise_addr
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        self.shared.send(canonical_addr(to.addr), packet).await
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        self.shared.poll_recv(cx, buf).map_ok(|(len, from)| (len, from.into()))
    }

    async fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> Result<NetStream, OpenError> {
        self.shared.dial(canonical_addr(to.addr), timeout).await
    }

    async fn accept_stream(&self) -> Result<(NetStream, Source), RecvError> {
        let (stream, from) = poll_fn(|cx| self.shared.poll_accept(cx)).await?;
        Ok((stream, from.into()))
    }

    fn max_packet_bytes(&self, _: &Destination) -> usize {
        self.shared.config.max_packet_bytes
    }

    async fn close(&self) {
        self.shared.close();
    }
}

/// What the calls that are going on share. The sockets are used under a read lock that is held for
/// a system call, never across an await, so that `close` can take them away at any time.
pub(crate) struct Shared {
    pub(crate) config: NetConfig,
    advertise_addr: SocketAddr,
    local_addrs: Vec<SocketAddr>,
    udp_recv_buffer_bytes: usize,
    /// `None` once closed.
    pub(crate) sockets: RwLock<Option<Sockets>>,
    closed: watch::Sender<bool>,
    pub(crate) counters: Arc<Counters>,
    /// The socket to receive from next, modulo their number.
    pub(crate) next_udp: AtomicUsize,
    pub(crate) recv_waker: Mutex<Option<Waker>>,
    pub(crate) send_turn: Semaphore,
    pub(crate) acceptor: Mutex<Acceptor>,
    pub(crate) inbound_slots: Arc<Semaphore>,
}

impl Shared {
    /// Waits until the transport is closed.
    pub(crate) async fn closed(&self) {
        // An error would mean that the sender is gone, and it lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn close(&self) {
        let sockets = self.sockets.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(sockets);
        self.closed.send_replace(true);
        // A caller that waits stored its waker under the read lock, so none comes after this.
        let wakers = [lock(&self.recv_waker).take(), lock(&self.acceptor).waker.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Keeps the caller's waker for `close`; the sockets keep their own and forget it when dropped.
pub(crate) fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    match kept {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *kept = Some(cx.waker().clone()),
    }
}

/// Nothing that holds one of these locks leaves a half-made change behind when it panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
