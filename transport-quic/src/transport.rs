//! [`QuicTransport`]: the parts put together.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use memberlist_transport::ip::advertise_addr;
use memberlist_transport::{
    Destination, OpenError, RecvError, SendError, Source, Transport, canonical_addr,
};
use quinn::{ConnectionError, Endpoint};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::accept::accept_connections;
use crate::connection::{Conn, Handed};
use crate::endpoint::{self, Certificates, Opened};
use crate::error::{CloseCode, DialError, in_words};
use crate::packets::PacketQueue;
use crate::pool::{Limits, Pool, lock};
use crate::retire::{retire, retire_before};
use crate::socket::Socket;
use crate::stats::Counters;
use crate::stream::QuicStream;
use crate::{BindError, ConnectionStats, QuicConfig, QuicStats, TlsConfig, TlsError};

/// The largest packet that fits a datagram on every path: QUIC's least UDP payload of 1200 bytes,
/// less the longest headers of a packet and its datagram frame.
const MIN_PACKET_BYTES: usize = 1150;
/// How long `close` waits for packets and streams to leave, and then for the peers to be told.
const FLUSH: Duration = Duration::from_millis(500);
const FAREWELL: Duration = Duration::from_millis(300);
const FLUSH_PAUSE: Duration = Duration::from_millis(2);
/// The log tells of refused peers this often at most.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Packets as QUIC datagrams and streams as QUIC streams, on one UDP port, all encrypted.
///
/// It keeps the [contract of `Transport`](Transport#contract), and where that leaves a choice:
///
/// - **Connections** are made when there is something to send, and two nodes share one, whichever
///   side dialled it. Until it is there, packets wait; see
///   [`max_packets_waiting`](QuicConfig::max_packets_waiting). A dial that failed makes packets to
///   that address fail with the reason, for 250 ms first, up to 5 s when it fails again and again.
/// - **A peer that restarts** at its address is found out by its stateless reset, if its private key
///   and address stayed the same, by its own dial, or by its silence; see
///   [`unanswered_timeout`](QuicConfig::unanswered_timeout).
/// - **Packet size**: a datagram takes what the path is known to take,
///   [`max_packet_bytes`](Transport::max_packet_bytes), 1150 bytes at first. A packet that was within
///   it when it was made, and is not any more, takes a stream of its own.
/// - **Congestion**: QUIC spaces what it sends. When packets to a peer come faster than its path takes
///   them, 64 KiB wait, and older ones are dropped for newer ones.
/// - **Close** gives what was handed over half a second to leave, and tells the peers.
///
/// Its methods must be called within the tokio runtime it was bound in.
pub struct QuicTransport {
    shared: Arc<Shared>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<(QuicStream, Source)>>,
    local_addr: SocketAddr,
}

impl QuicTransport {
    /// Opens the socket. Must be called within a tokio runtime that has I/O and time enabled.
    ///
    /// # Errors
    /// [`BindError`] if the configuration makes no sense or the system refuses the socket.
    pub fn bind(config: QuicConfig) -> Result<Self, BindError> {
        config.validate()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BindError::NoRuntime);
        }
        let counters = Arc::new(Counters::default());
        let (certificates, server) = Certificates::new(config.tls.clone(), &config, 0)?;
        let Opened { endpoint, local, socket } = endpoint::open(&config, server, &counters)?;
        let addr = advertise_addr(config.advertise_addr.map(canonical_addr), local)
            .map_err(BindError::Interfaces)?;
        let max_streams = config.max_inbound_streams.min(Semaphore::MAX_PERMITS);
        let (streams, accepted) = mpsc::channel(max_streams);
        let shared = Arc::new(Shared {
            addr,
            socket,
            endpoint,
            certificates: ArcSwap::from_pointee(certificates),
            pool: Mutex::new(Pool::new(Limits {
                connections: config.max_connections,
                per_source: config.max_connections_per_source,
                waiting: config.max_packets_waiting,
                settle_within: config.handshake_timeout,
            })),
            packets: PacketQueue::new(config.max_packets_received),
            streams,
            inbound_slots: Arc::new(Semaphore::new(max_streams)),
            lingering: Arc::new(()),
            counters,
            closed: watch::Sender::new(false),
            warned: Mutex::default(),
            config,
        });
        tokio::spawn(accept_connections(Arc::clone(&shared)));
        let accepted = tokio::sync::Mutex::new(accepted);
        Ok(Self { shared, accepted, local_addr: local.addr })
    }

    /// The bound address, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Changes this node's certificate and the CAs that it trusts, under traffic.
    ///
    /// New connections use them at once. Those that exist go on; each is replaced when it is next used
    /// to send, or after six seconds if the peer alone has used it, and after ten seconds what is left
    /// of them is closed (a connection that carries a stream, when the stream ends). So ten seconds after a CA was taken away nobody speaks to this
    /// node any more with a certificate of it.
    ///
    /// To change the CA of a running cluster: give every node both CAs; then give every node its new
    /// certificate; then give every node the new CA alone.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used; nothing changes then.
    pub fn reload(&self, tls: TlsConfig) -> Result<(), TlsError> {
        self.shared.reload(tls)
    }

    /// What happened so far.
    pub fn stats(&self) -> QuicStats {
        self.shared.counters.snapshot()
    }

    /// The connections that exist, in no order.
    pub fn connections(&self) -> Vec<ConnectionStats> {
        let all: Vec<_> = lock(&self.shared.pool)
            .all()
            .map(|(conn, in_use)| (Arc::clone(conn), in_use))
            .collect();
        all.iter().map(|(conn, in_use)| connection_stats(conn, *in_use)).collect()
    }
}

fn connection_stats(conn: &Conn, in_use: bool) -> ConnectionStats {
    let stats = conn.quinn.stats();
    ConnectionStats {
        addr: *lock(&conn.key),
        name: conn.name.clone(),
        dialled: conn.dialled,
        in_use,
        rtt: stats.path.rtt,
        mtu: stats.path.current_mtu,
        congestion_window: stats.path.cwnd,
        sent_packets: stats.path.sent_packets,
        lost_packets: stats.path.lost_packets,
        datagrams_sent: stats.frame_tx.datagram,
        datagrams_received: stats.frame_rx.datagram,
        queued_bytes: conn.queued_bytes(),
        datagrams_dropped: conn.datagrams_dropped(),
        streams: conn.streams(),
        bytes_sent: stats.udp_tx.bytes,
        bytes_received: stats.udp_rx.bytes,
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport")
            .field("advertise_addr", &self.shared.addr)
            .field("local_addr", &self.local_addr)
            .field("closed", &*self.shared.closed.borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.shared.stop();
        self.shared.end();
    }
}

impl Transport for QuicTransport {
    type Stream = QuicStream;

    fn advertise_addr(&self) -> SocketAddr {
        self.shared.addr
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        self.shared.send(canonical_addr(to.addr), to.name.as_deref(), packet)
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        loop {
            let (packet, source) = ready!(self.shared.packets.poll_pop(cx))?;
            match buf.get_mut(..packet.len()) {
                Some(room) => {
                    room.copy_from_slice(&packet);
                    return Poll::Ready(Ok((packet.len(), source)));
                }
                None => self.shared.counters.packets_dropped_unfit.add_one(),
            }
        }
    }

    async fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> Result<QuicStream, OpenError> {
        let opened = self.shared.open(canonical_addr(to.addr), to.name.as_deref(), timeout).await;
        match &opened {
            Ok(_) => self.shared.counters.streams_opened.add_one(),
            Err(_) => self.shared.counters.streams_open_errors.add_one(),
        }
        opened
    }

    async fn accept_stream(&self) -> Result<(QuicStream, Source), RecvError> {
        let accept = async { self.accepted.lock().await.recv().await };
        tokio::select! {
            biased;
            () = self.shared.until_closed() => Err(RecvError::Closed),
            accepted = accept => accepted.ok_or(RecvError::Closed),
        }
    }

    fn max_packet_bytes(&self, to: &Destination) -> usize {
        self.shared.max_packet_bytes(canonical_addr(to.addr))
    }

    fn assured_packet_bytes(&self) -> usize {
        MIN_PACKET_BYTES
    }

    fn rtt(&self, to: &Destination) -> Option<Duration> {
        let pool = lock(&self.shared.pool);
        pool.get(canonical_addr(to.addr)).map(|conn| conn.quinn.rtt())
    }

    fn is_encrypted(&self) -> bool {
        true
    }

    fn own_name(&self) -> Option<Arc<str>> {
        self.shared.certificates.load().tls.bound_name().cloned()
    }

    async fn close(&self) {
        self.shared.stop();
        self.shared.flush().await;
        let sent = |conn: Arc<Conn>| (conn.quinn.stats().udp_tx.datagrams, conn);
        let conns: Vec<_> = self.shared.conns().into_iter().map(sent).collect();
        self.shared.end();
        // Who has not been told by then finds out by the idle timeout.
        let _ = timeout(FAREWELL, told(conns)).await;
        self.shared.socket.close();
    }
}

/// What the tasks share. They end when the endpoint is closed.
pub(crate) struct Shared {
    pub(crate) config: QuicConfig,
    addr: SocketAddr,
    socket: Arc<Socket>,
    pub(crate) endpoint: Endpoint,
    pub(crate) certificates: ArcSwap<Certificates>,
    pub(crate) pool: Mutex<Pool>,
    pub(crate) packets: PacketQueue,
    pub(crate) streams: mpsc::Sender<(QuicStream, Source)>,
    pub(crate) inbound_slots: Arc<Semaphore>,
    /// Held by streams that were dropped and whose last bytes are under way.
    pub(crate) lingering: Arc<()>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) closed: watch::Sender<bool>,
    warned: Mutex<Option<Instant>>,
}

impl Shared {
    // ---- sending --------------------------------------------------------------------------------

    fn send(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
        packet: &[u8],
    ) -> Result<(), SendError> {
        if *self.closed.borrow() {
            return Err(SendError::Closed);
        }
        if packet.is_empty() {
            self.counters.packets_dropped_empty.add_one();
            return Ok(());
        }
        let limit = self.max_packet_bytes(addr);
        if packet.len() > limit.max(lock(&self.pool).promised(addr)) {
            self.counters.packets_dropped_too_large.add_one();
            return Err(SendError::TooLarge { to: addr, len: packet.len(), limit });
        }
        let conn = lock(&self.pool).get(addr).cloned();
        let Some(conn) = conn else { return self.send_later(addr, name, packet) };
        if !conn.is(name) {
            self.counters.names_refused.add_one();
            return Err(self.not_sent(addr, wrong_name(&conn, name)));
        }
        if self.is_outdated(&conn) && lock(&self.pool).failing(addr).is_none() {
            self.dial(addr, name);
        }
        self.send_by(&conn, Bytes::copy_from_slice(packet));
        Ok(())
    }

    fn send_by(&self, conn: &Arc<Conn>, packet: Bytes) {
        let len = packet.len();
        match conn.send(packet, &self.counters) {
            Handed::Datagram => self.counters.packets_sent.add_one(),
            Handed::Stream => self.counters.packets_sent_by_stream.add_one(),
            Handed::Dropped => return self.counters.packets_dropped_busy.add_one(),
            // It ended this moment, and the packet with it, as if on its way.
            Handed::Lost => return self.counters.packets_dropped_waiting.add_one(),
        }
        self.counters.packet_bytes_sent.add(len);
    }

    /// Without a connection: makes one, and lets the packet wait for it.
    fn send_later(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
        packet: &[u8],
    ) -> Result<(), SendError> {
        let mut pool = lock(&self.pool);
        let dialling = pool.dialling(addr).is_some();
        if let (false, Some(error)) = (dialling, pool.failing(addr)) {
            drop(pool);
            return Err(self.not_sent(addr, error));
        }
        let dropped = pool.wait(addr, Bytes::copy_from_slice(packet));
        drop(pool);
        self.counters.packets_dropped_waiting.add(dropped);
        if !dialling {
            self.dial(addr, name);
        }
        Ok(())
    }

    fn not_sent(&self, to: SocketAddr, error: DialError) -> SendError {
        self.counters.packets_send_errors.add_one();
        SendError::Io { to, source: error.into_io() }
    }

    fn max_packet_bytes(&self, addr: SocketAddr) -> usize {
        let mut pool = lock(&self.pool);
        let now = pool.get(addr).map_or(0, |conn| conn.max_datagram_bytes());
        let now = now.max(MIN_PACKET_BYTES);
        pool.promise(addr, now);
        now
    }

    /// Whether a connection should be replaced: it does not answer, or is of before a reload.
    fn is_outdated(&self, conn: &Conn) -> bool {
        self.is_unanswered(conn) || conn.generation != self.certificates.load().generation
    }

    fn is_unanswered(&self, conn: &Conn) -> bool {
        conn.is_unanswered(self.config.unanswered_timeout)
    }

    // ---- streams --------------------------------------------------------------------------------

    async fn open(
        self: &Arc<Self>,
        to: SocketAddr,
        name: Option<&str>,
        within: Duration,
    ) -> Result<QuicStream, OpenError> {
        let opening = async {
            let conn = self.connection(to, name).await?;
            match conn.open_stream(self).await {
                Ok(stream) => Ok(stream),
                Err(ConnectionError::LocallyClosed) if *self.closed.borrow() => {
                    Err(DialError::Closed)
                }
                // It ended this moment: once more, with a new one.
                Err(_) => {
                    let conn = self.connection(to, name).await?;
                    let opened = conn.open_stream(self).await;
                    opened.map_err(|error| DialError::Refused(in_words(&error)))
                }
            }
        };
        let opened = tokio::select! {
            biased;
            () = self.until_closed() => return Err(OpenError::Closed),
            opened = timeout(within, opening) => opened,
        };
        match opened {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(DialError::Closed)) => Err(OpenError::Closed),
            Ok(Err(DialError::Timeout(timeout))) => Err(OpenError::Timeout { to, timeout }),
            Ok(Err(error)) => Err(OpenError::Io { to, source: error.into_io() }),
            Err(_) => Err(OpenError::Timeout { to, timeout: within }),
        }
    }

    /// The connection to this peer, which is dialled if it is not there.
    async fn connection(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
    ) -> Result<Arc<Conn>, DialError> {
        let conn = lock(&self.pool).get(addr).cloned();
        let conn = match conn {
            Some(conn) if !self.is_outdated(&conn) => conn,
            conn => match self.dialled(addr, name).await {
                Ok(dialled) => dialled,
                // One of before a reload works as long as it is there.
                Err(error) => conn.filter(|conn| !self.is_unanswered(conn)).ok_or(error)?,
            },
        };
        match conn.is(name) {
            true => Ok(conn),
            false => {
                self.counters.names_refused.add_one();
                Err(wrong_name(&conn, name))
            }
        }
    }

    async fn dialled(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
    ) -> Result<Arc<Conn>, DialError> {
        let mut dialling = self.dial(addr, name);
        let done = dialling.wait_for(Option::is_some).await;
        let dialled = done.ok().and_then(|done| done.clone());
        // Without an outcome the runtime is going down.
        let dialled = dialled.unwrap_or(Err(DialError::Closed))?;
        // A peer that dialled at the same moment may have settled on its own.
        Ok(lock(&self.pool).get(addr).cloned().unwrap_or(dialled))
    }

    // ---- connections ----------------------------------------------------------------------------

    /// Takes a new connection in and serves it.
    pub(crate) fn admit(self: &Arc<Self>, conn: &Arc<Conn>) -> Result<(), CloseCode> {
        let admitted = lock(&self.pool).admit(conn)?;
        if let Some(evicted) = admitted.evicted {
            self.counters.connections_evicted.add_one();
            evicted.quinn.close(CloseCode::Evicted.code(), CloseCode::Evicted.reason().as_bytes());
        }
        if let Some(replaced) = admitted.replaced {
            self.counters.connections_replaced.add_one();
            tokio::spawn(retire(Arc::downgrade(self), replaced));
        }
        self.counters.packets_dropped_waiting.add(admitted.late);
        if let Some((conn, waiting)) = admitted.waiting {
            for packet in waiting {
                self.send_by(&conn, packet);
            }
        }
        tokio::spawn(Arc::clone(conn).run(Arc::clone(self)));
        Ok(())
    }

    /// A connection is over.
    pub(crate) fn ended(&self, conn: &Arc<Conn>, reason: &ConnectionError) {
        let addr = *lock(&conn.key);
        let mut pool = lock(&self.pool);
        if refused_at_once(conn, reason) {
            // The handshake looked done from here, and the peer did not agree.
            pool.fail(addr, DialError::Refused(in_words(reason)));
            self.counters.dials_failed.add_one();
        } else {
            pool.forget_failure(addr);
        }
        pool.remove(conn);
        drop(pool);
        match reason {
            ConnectionError::Reset => self.counters.peers_restarted.add_one(),
            ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_) => {
                self.warn(addr, &in_words(reason));
            }
            _ => tracing::debug!(peer = %addr, reason = in_words(reason), "connection ended"),
        }
    }

    /// A peer goes on from another address.
    pub(crate) fn moved(&self, conn: &Conn, addr: SocketAddr) {
        if lock(&self.pool).rekey(conn.id(), addr) {
            self.counters.migrations.add_one();
        }
    }

    pub(crate) fn count_refused(&self, code: CloseCode) {
        match code {
            CloseCode::WrongName => self.counters.names_refused.add_one(),
            CloseCode::TooMany => self.counters.connections_refused_over_limit.add_one(),
            _ => self.counters.handshakes_failed.add_one(),
        }
    }

    pub(crate) fn warn(&self, peer: SocketAddr, text: &str) {
        let mut warned = lock(&self.warned);
        if warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(%peer, "connection refused: {text}");
        }
    }

    fn reload(self: &Arc<Self>, tls: TlsConfig) -> Result<(), TlsError> {
        let generation = self.certificates.load().generation + 1;
        let (certificates, server) = Certificates::new(tls, &self.config, generation)?;
        self.endpoint.set_server_config(Some(server));
        self.certificates.store(Arc::new(certificates));
        tokio::spawn(retire_before(Arc::downgrade(self), generation));
        Ok(())
    }

    // ---- the end --------------------------------------------------------------------------------

    pub(crate) async fn until_closed(&self) {
        // An error would mean that the sender is gone, and it lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Nothing more is taken from the caller or given to it.
    fn stop(&self) {
        self.closed.send_replace(true);
        self.packets.close();
    }

    /// Waits until what was handed over has left, within limits.
    async fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        loop {
            let conns: Vec<_> = lock(&self.pool).all().map(|(conn, _)| Arc::clone(conn)).collect();
            let packets = conns
                .iter()
                .any(|conn| conn.queued_bytes() > 0 && conn.quinn.close_reason().is_none());
            if !packets && Arc::strong_count(&self.lingering) == 1 {
                break;
            }
            if timeout_at(deadline, sleep(FLUSH_PAUSE)).await.is_err() {
                break;
            }
        }
    }

    fn conns(&self) -> Vec<Arc<Conn>> {
        lock(&self.pool).all().map(|(conn, _)| Arc::clone(conn)).collect()
    }

    fn end(&self) {
        self.endpoint.close(CloseCode::Closed.code(), CloseCode::Closed.reason().as_bytes());
    }
}

/// Waits until the peers of these connections, which are closed, have been told so: one more datagram
/// has been sent than before.
async fn told(conns: Vec<(u64, Arc<Conn>)>) {
    for (before, conn) in conns {
        while matches!(conn.quinn.close_reason(), None | Some(ConnectionError::LocallyClosed))
            && conn.quinn.stats().udp_tx.datagrams <= before
        {
            sleep(FLUSH_PAUSE).await;
        }
    }
}

fn wrong_name(conn: &Conn, wanted: Option<&str>) -> DialError {
    DialError::WrongName {
        found: conn.name.as_deref().unwrap_or_default().to_owned(),
        wanted: wanted.unwrap_or_default().to_owned(),
    }
}

/// Whether the peer ended a connection that it never took for made: it did not like the certificate,
/// the name, or that there is one more.
fn refused_at_once(conn: &Conn, reason: &ConnectionError) -> bool {
    conn.dialled
        && match reason {
            ConnectionError::ConnectionClosed(_) => true,
            ConnectionError::ApplicationClosed(close) => {
                let code = CloseCode::of(close.error_code);
                matches!(
                    code,
                    Some(CloseCode::TooMany | CloseCode::WrongName | CloseCode::NoDatagrams)
                )
            }
            _ => false,
        }
}
