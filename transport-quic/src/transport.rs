//! [`QuicTransport`]: the parts put together.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use memberlist_transport::ip::Local;
use memberlist_transport::{
    Destination, EcoString, OpenError, RecvError, SendError, Source, Transport, canonical_addr,
};
use quinn::{ConnectionError, Endpoint};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::accept::accept_connections;
use crate::connection::Conn;
use crate::dial::DialTurns;
use crate::endpoint::{self, Certificates, Opened};
use crate::error::{CloseCode, DialError, in_words};
use crate::packets::PacketQueue;
use crate::pool::{Admitted, Limits, Pool, lock};
use crate::retire::{retire, retire_before, retire_late};
use crate::socket::Socket;
use crate::stats::Counters;
use crate::stream::QuicStream;
use crate::{BindError, ConnectionStats, QuicConfig, QuicStats, TlsConfig, TlsError};

/// The largest packet that fits a datagram on every path: QUIC's least UDP payload of 1200 bytes,
/// less the longest headers of a packet and its datagram frame.
pub(crate) const MIN_PACKET_BYTES: usize = 1150;
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
///   and advertised address stayed the same, by its own dial, or by its silence; see
///   [`unanswered_timeout`](QuicConfig::unanswered_timeout).
/// - **Packet size**: a datagram takes what the path is known to take,
///   [`max_packet_bytes`](Transport::max_packet_bytes), 1150 bytes at first. A packet that was within
///   it when it was made, and is not any more, takes a stream of its own.
/// - **Congestion**: QUIC spaces what it sends. When packets to a peer come faster than its path takes
///   them, 64 KiB wait, and older ones are dropped for newer ones.
/// - **Close** gives what was handed over half a second to leave, and tells the peers. A transport that
///   is dropped tells them too, and frees its port, within 300 ms.
///
/// Its asynchronous methods must be called within the tokio runtime it was bound in.
pub struct QuicTransport {
    shared: Arc<Shared>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<(QuicStream, Source)>>,
}

impl QuicTransport {
    /// Opens the socket. Must be called within a tokio runtime that has I/O and time enabled.
    ///
    /// # Errors
    /// [`BindError`] if the configuration makes no sense or the system refuses the socket.
    pub fn bind(config: QuicConfig) -> Result<Self, BindError> {
        config.validate()?;
        let Ok(runtime) = Handle::try_current() else { return Err(BindError::NoRuntime) };
        let counters = Arc::new(Counters::default());
        let (certificates, server) = Certificates::new(config.tls.clone(), &config, 0)?;
        let Opened { endpoint, local, advertised, socket } =
            endpoint::open(&config, server, &counters)?;
        let max_streams = config.max_inbound_streams.min(Semaphore::MAX_PERMITS);
        let (streams, accepted) = mpsc::channel(max_streams);
        let shared = Arc::new(Shared {
            addr: advertised,
            local,
            socket,
            endpoint,
            certificates: ArcSwap::from_pointee(certificates),
            pool: Mutex::new(Pool::new(Limits {
                connections: config.max_connections,
                per_source: config.max_connections_per_source,
                waiting: config.max_packets_waiting,
            })),
            packets: PacketQueue::new(config.max_packets_received),
            streams,
            inbound_slots: Arc::new(Semaphore::new(max_streams)),
            dial_turns: DialTurns::new(),
            lingering: Arc::new(()),
            handshaking: Arc::new(()),
            counters,
            closed: watch::Sender::new(false),
            reloading: Mutex::default(),
            warned: Mutex::default(),
            config,
            runtime,
        });
        tokio::spawn(accept_connections(Arc::clone(&shared)));
        let accepted = tokio::sync::Mutex::new(accepted);
        Ok(Self { shared, accepted })
    }

    /// The bound address, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local.addr
    }

    /// Changes this node's certificate and the CAs that it trusts, under traffic.
    ///
    /// New connections use them at once. Those that exist go on; each is replaced when it is next used
    /// to send, or after six seconds if the peer alone has used it. After ten seconds what is left of
    /// them is closed; a connection that carries streams takes nothing but these from then on, and is
    /// closed when they have ended, or after
    /// [`stream_timeout`](QuicConfig::stream_timeout). So ten seconds after a CA was taken away nobody
    /// begins to speak to this node any more with a certificate of it.
    ///
    /// A certificate that expires ends no connection: it is looked at when one is made.
    ///
    /// Whether names are bound changes with the rest: call [`bind_names`](TlsConfig::bind_names) on
    /// what is given here too. While they are bound, the new certificate must have the same name.
    ///
    /// To change the CA of a running cluster: give every node both CAs; then give every node its new
    /// certificate; then give every node the new CA alone.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used, have expired, or, with names bound, have another name;
    /// nothing changes then.
    pub fn reload(&self, tls: TlsConfig) -> Result<(), TlsError> {
        // Not asynchronous, so who calls it may be outside, as a thread that watches files.
        let _within = self.shared.runtime.enter();
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
            .field("local_addr", &self.shared.local.addr)
            .field("closed", &*self.shared.closed.borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.shared.stop();
        // What holds a stream holds the socket as well, and nobody waits for that.
        self.shared.runtime.spawn(self.shared.farewell());
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

    fn own_name(&self) -> Option<EcoString> {
        self.shared.certificates.load().tls.bound_name().cloned()
    }

    async fn close(&self) {
        self.shared.stop();
        self.shared.flush().await;
        self.shared.farewell().await;
    }
}

/// What the tasks share. They end when the endpoint is closed.
pub(crate) struct Shared {
    pub(crate) config: QuicConfig,
    /// That the socket was opened in.
    pub(crate) runtime: Handle,
    addr: SocketAddr,
    pub(crate) local: Local,
    pub(crate) socket: Arc<Socket>,
    pub(crate) endpoint: Endpoint,
    pub(crate) certificates: ArcSwap<Certificates>,
    pub(crate) pool: Mutex<Pool>,
    pub(crate) packets: PacketQueue,
    pub(crate) streams: mpsc::Sender<(QuicStream, Source)>,
    pub(crate) inbound_slots: Arc<Semaphore>,
    /// For handshakes that packets wait for.
    pub(crate) dial_turns: DialTurns,
    /// Held by streams that were dropped and whose last bytes are under way.
    pub(crate) lingering: Arc<()>,
    /// Held by handshakes.
    pub(crate) handshaking: Arc<()>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) closed: watch::Sender<bool>,
    reloading: Mutex<()>,
    warned: Mutex<Option<Instant>>,
}

impl Shared {
    /// Takes a new connection in and serves it.
    pub(crate) fn admit(self: &Arc<Self>, conn: &Arc<Conn>) -> Result<(), CloseCode> {
        let mut pool = lock(&self.pool);
        let mut admitted = pool.admit(conn)?;
        // Before others find the connection: what waits goes first.
        self.send_waiting(&mut admitted);
        drop(pool);
        if let Some(evicted) = admitted.evicted {
            self.counters.connections_evicted.add_one();
            evicted.quinn.close(CloseCode::Evicted.code(), CloseCode::Evicted.reason().as_bytes());
        }
        if let Some(replaced) = admitted.replaced {
            self.counters.connections_replaced.add_one();
            tokio::spawn(retire(Arc::downgrade(self), replaced));
        }
        tokio::spawn(Arc::clone(conn).run(Arc::clone(self)));
        if conn.generation < self.certificates.load().generation {
            tokio::spawn(retire_late(Arc::downgrade(self), Arc::clone(conn)));
        }
        Ok(())
    }

    fn send_waiting(&self, admitted: &mut Admitted) {
        if let Some((conn, waiting)) = admitted.waiting.take() {
            for packet in waiting {
                self.send_by(&conn, packet);
            }
        }
        self.counters.packets_dropped_waiting.add(admitted.unsent);
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
        let mut pool = lock(&self.pool);
        if let Some(mut admitted) = pool.rekey(conn.id(), addr) {
            self.send_waiting(&mut admitted);
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
        // Two reloads at once would mix the certificates of one with the CAs of the other.
        let _one_at_a_time = lock(&self.reloading);
        let before = self.certificates.load();
        // With another name every peer would refuse this node from now on.
        if let (Some(bound), Some(found)) = (before.tls.bound_name(), tls.bound_name()) {
            if bound != found {
                return Err(TlsError::OtherName { found: found.clone(), bound: bound.clone() });
            }
        }
        tls.check_expiry()?;
        let generation = before.generation + 1;
        let (certificates, server) = Certificates::new(tls, &self.config, generation)?;
        self.endpoint.set_server_config(Some(server));
        self.certificates.store(Arc::new(certificates));
        tokio::spawn(retire_before(Arc::downgrade(self), generation));
        Ok(())
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
