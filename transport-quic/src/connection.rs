//! One connection: what comes over it, and what is remembered of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use memberlist_transport::{EcoString, Source, StreamTimeouts, TimedStream, canonical_addr};
use quinn::{ConnectionError, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::endpoint::Certificates;
use crate::error::CloseCode;
use crate::packets::{MAX_PACKET_BYTES, Share};
use crate::pool::lock;
use crate::stats::Counters;
use crate::stream::{BiStream, QuicStream};
use crate::tls::name_of;
use crate::transport::Shared;

/// Streams with a packet each that are being sent on one connection; more packets are dropped.
const MAX_PACKET_STREAMS_SENDING: usize = 16;
/// How long a stream that carries one packet may take.
const PACKET_STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection after its handshake.
pub(crate) struct Conn {
    pub(crate) quinn: quinn::Connection,
    /// The name in the peer's certificate, if names are bound.
    pub(crate) name: Option<EcoString>,
    pub(crate) dialled: bool,
    /// Of the certificates it was made with.
    pub(crate) generation: u64,
    /// When the first packet of its handshake went or came.
    pub(crate) began: Instant,
    pub(crate) established: Instant,
    /// A number that both ends compute alike, and nobody else.
    pub(crate) lot: [u8; 8],
    /// Where the pool has it.
    pub(crate) key: Mutex<SocketAddr>,
    /// In milliseconds after `established`.
    last_used: AtomicU64,
    /// The space in the buffer of packets to send when it is empty.
    empty_space: usize,
    streams: AtomicUsize,
    packet_streams: AtomicUsize,
    /// Made with certificates that are gone for good: nothing of the peer's is taken any more.
    revoked: AtomicBool,
    dropped: AtomicU64,
    share: Share,
    listening: Mutex<Listening>,
}

/// When the peer was last seen to answer: how much had come from it and gone to it by then.
struct Listening {
    since: Instant,
    received: u64,
    sent: u64,
}

impl Listening {
    fn now(quinn: &quinn::Connection) -> Self {
        let stats = quinn.stats();
        let (received, sent) = (stats.udp_rx.datagrams, stats.udp_tx.datagrams);
        Self { since: Instant::now(), received, sent }
    }
}

/// What became of a packet that was handed to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    Datagram,
    Stream,
    Dropped,
    /// The connection is over.
    Lost,
}

impl Conn {
    /// Looks at who the peer is.
    pub(crate) fn new(
        quinn: quinn::Connection,
        dialled: bool,
        certificates: &Certificates,
        began: Instant,
    ) -> Result<Arc<Self>, CloseCode> {
        if quinn.max_datagram_size().is_none() {
            return Err(CloseCode::NoDatagrams);
        }
        let name = certificates.tls.binds_names().then(|| certified_name(&quinn));
        let name = match name {
            Some(None) => return Err(CloseCode::WrongName),
            Some(name) => name,
            None => None,
        };
        let mut lot = [0; 8];
        // Fails for lengths that are too large only.
        let _ = quinn.export_keying_material(&mut lot, b"EXPORTER-memberlist-settle", b"");
        let established = Instant::now();
        let listening = Listening::now(&quinn);
        Ok(Arc::new(Self {
            key: Mutex::new(canonical_addr(quinn.remote_address())),
            empty_space: quinn.datagram_send_buffer_space(),
            quinn,
            name,
            dialled,
            generation: certificates.generation,
            began,
            established,
            lot,
            last_used: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            packet_streams: AtomicUsize::new(0),
            revoked: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            share: Share::default(),
            listening: Mutex::new(listening),
        }))
    }

    pub(crate) fn id(&self) -> usize {
        self.quinn.stable_id()
    }

    /// Whether packets and new streams may take it.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_revoked() && self.quinn.close_reason().is_none()
    }

    /// From now on the peer is not heard on it, except on the streams that are there.
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether packets have not left yet, and still can.
    pub(crate) fn has_packets(&self) -> bool {
        let packets = self.queued_bytes() > 0 || self.packet_streams.load(Ordering::Relaxed) > 0;
        packets && self.quinn.close_reason().is_none()
    }

    pub(crate) fn datagrams_dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn last_used(&self) -> Instant {
        self.established + Duration::from_millis(self.last_used.load(Ordering::Relaxed))
    }

    fn mark_used(&self) {
        let now = u64::try_from(self.established.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used.store(now, Ordering::Relaxed);
    }

    /// Bytes of packets that wait to be sent, with what each takes beside.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.empty_space.saturating_sub(self.quinn.datagram_send_buffer_space())
    }

    /// The largest packet that goes as a datagram now.
    pub(crate) fn max_datagram_bytes(&self) -> usize {
        self.quinn.max_datagram_size().unwrap_or(0)
    }

    /// Whether the name, if one is wanted and names are bound, is this peer's.
    pub(crate) fn is(&self, wanted: Option<&str>) -> bool {
        match (&self.name, wanted) {
            (Some(name), Some(wanted)) => **name == *wanted,
            _ => true,
        }
    }

    /// Whether nothing has come for `patience` (three round trips at least) since something was sent.
    /// Asked before each packet and stream: the answer to the one before should have come.
    pub(crate) fn is_unanswered(&self, patience: Duration) -> bool {
        let mut listening = lock(&self.listening);
        if listening.since.elapsed() < patience {
            return false;
        }
        let now = Listening::now(&self.quinn);
        if now.received != listening.received || now.sent == listening.sent {
            *listening = now;
            return false;
        }
        listening.since.elapsed() >= patience.max(self.quinn.rtt() * 3)
    }

    /// Sends what the peer must acknowledge and otherwise ignores: an empty packet.
    pub(crate) fn ask(&self) {
        // Fails if the connection is over, which is an answer.
        let _ = self.quinn.send_datagram(Bytes::new());
    }

    /// Sends a packet, as a datagram or, if it does not fit, on a stream of its own. If the path takes
    /// no more, older packets that wait are dropped for it.
    pub(crate) fn send(self: &Arc<Self>, packet: Bytes, counters: &Counters) -> Handed {
        self.mark_used();
        if self.quinn.datagram_send_buffer_space() < packet.len() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            counters.packets_dropped_busy.add_one();
        }
        match self.quinn.send_datagram(packet.clone()) {
            Ok(()) => Handed::Datagram,
            Err(quinn::SendDatagramError::TooLarge) => self.send_by_stream(packet),
            Err(_) => Handed::Lost,
        }
    }

    fn send_by_stream(self: &Arc<Self>, packet: Bytes) -> Handed {
        if self.packet_streams.fetch_add(1, Ordering::Relaxed) >= MAX_PACKET_STREAMS_SENDING {
            self.packet_streams.fetch_sub(1, Ordering::Relaxed);
            return Handed::Dropped;
        }
        let conn = Arc::clone(self);
        tokio::spawn(async move {
            let sending = async {
                let mut stream = conn.quinn.open_uni().await.ok()?;
                stream.write_all(&packet).await.ok()?;
                stream.finish().ok()?;
                stream.stopped().await.ok()
            };
            // A packet may be lost.
            let _ = timeout(PACKET_STREAM_TIMEOUT, sending).await;
            conn.packet_streams.fetch_sub(1, Ordering::Relaxed);
        });
        Handed::Stream
    }

    /// Opens a stream to the peer.
    pub(crate) async fn open_stream(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
    ) -> Result<QuicStream, ConnectionError> {
        self.mark_used();
        // Counted from now on, so that the connection is not closed in between.
        let guard = StreamGuard::new(shared, self);
        let (send, recv) = self.quinn.open_bi().await?;
        Ok(self.stream(shared, (send, recv), guard, None))
    }

    fn stream(
        &self,
        shared: &Arc<Shared>,
        (send, recv): (SendStream, RecvStream),
        guard: StreamGuard,
        slot: Option<OwnedSemaphorePermit>,
    ) -> QuicStream {
        let config = &shared.config;
        let timeouts = StreamTimeouts {
            read: config.read_timeout,
            write: config.write_timeout,
            total: slot.as_ref().and(config.stream_timeout),
        };
        let counters = Arc::clone(&shared.counters);
        let stream = TimedStream::new(BiStream::new(send, recv, guard), timeouts, move || {
            counters.streams_timed_out.add_one();
        });
        match slot {
            Some(slot) => stream.holding(slot),
            None => stream,
        }
    }

    /// Takes what comes until the connection ends, and gives the reason.
    pub(crate) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        tokio::join!(
            self.receive_datagrams(&shared),
            self.receive_packet_streams(&shared),
            self.accept_streams(&shared),
        );
        let reason = self.quinn.closed().await;
        shared.ended(&self, &reason);
    }

    async fn receive_datagrams(&self, shared: &Shared) {
        while let Ok(packet) = self.quinn.read_datagram().await {
            // It is a part of all that came at once, and would keep that while it waits.
            self.receive(shared, Bytes::copy_from_slice(&packet));
        }
    }

    /// One after the other: what stalls holds up packets of the same peer only.
    async fn receive_packet_streams(&self, shared: &Shared) {
        while let Ok(mut stream) = self.quinn.accept_uni().await {
            match timeout(PACKET_STREAM_TIMEOUT, stream.read_to_end(MAX_PACKET_BYTES)).await {
                Ok(Ok(packet)) => self.receive(shared, packet.into()),
                _ => shared.counters.packet_streams_failed.add_one(),
            }
        }
    }

    fn receive(&self, shared: &Shared, packet: Bytes) {
        if self.is_revoked() {
            return shared.counters.packets_dropped_revoked.add_one();
        }
        self.mark_used();
        if packet.is_empty() {
            return shared.counters.packets_dropped_empty.add_one();
        }
        let len = packet.len();
        if shared.packets.push(packet, self.source(shared), &self.share) {
            shared.counters.packets_received.add_one();
            shared.counters.packet_bytes_received.add(len);
        } else {
            shared.counters.packets_dropped_over_limit.add_one();
        }
    }

    /// Who sent what came just now; the peer may have moved.
    fn source(&self, shared: &Shared) -> Source {
        let addr = canonical_addr(self.quinn.remote_address());
        if *lock(&self.key) != addr {
            shared.moved(self, addr);
        }
        Source { addr, authenticated_name: self.name.clone() }
    }

    async fn accept_streams(self: &Arc<Self>, shared: &Arc<Shared>) {
        while let Ok((mut send, mut recv)) = self.quinn.accept_bi().await {
            if self.is_revoked() {
                shared.counters.streams_dropped_revoked.add_one();
                refuse((&mut send, &mut recv), CloseCode::Replaced);
                continue;
            }
            self.mark_used();
            let Ok(slot) = Arc::clone(&shared.inbound_slots).try_acquire_owned() else {
                shared.counters.streams_dropped_over_limit.add_one();
                refuse((&mut send, &mut recv), CloseCode::TooMany);
                continue;
            };
            let guard = StreamGuard::new(shared, self);
            let stream = self.stream(shared, (send, recv), guard, Some(slot));
            shared.counters.streams_accepted.add_one();
            // There is a place in the queue for each slot; it is closed with the transport.
            let _ = shared.streams.try_send((stream, self.source(shared)));
        }
    }
}

fn refuse((send, recv): (&mut SendStream, &mut RecvStream), code: CloseCode) {
    // Fails if the peer has given up already.
    let _ = send.reset(code.code());
    let _ = recv.stop(code.code());
}

fn certified_name(quinn: &quinn::Connection) -> Option<EcoString> {
    let chain = quinn.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    name_of(chain.first()?)
}

/// Keeps a connection from being closed for another or for want of room.
pub(crate) struct StreamGuard {
    conn: Arc<Conn>,
    lingering: std::sync::Weak<()>,
    tail_timeout: Duration,
}

impl StreamGuard {
    fn new(shared: &Shared, conn: &Arc<Conn>) -> Self {
        conn.streams.fetch_add(1, Ordering::Relaxed);
        Self {
            conn: Arc::clone(conn),
            lingering: Arc::downgrade(&shared.lingering),
            tail_timeout: shared.config.write_timeout,
        }
    }

    /// How long what was written to a stream that was dropped may take to arrive.
    pub(crate) fn tail_timeout(&self) -> Duration {
        self.tail_timeout
    }

    /// What a closing transport waits for; nothing if it is gone.
    pub(crate) fn lingering(&self) -> Option<Arc<()>> {
        self.lingering.upgrade()
    }

    /// Why the connection ended, if it has.
    pub(crate) fn end(&self) -> Option<ConnectionError> {
        self.conn.quinn.close_reason()
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.conn.mark_used();
        self.conn.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
