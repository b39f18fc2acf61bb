//! What a transport did, in numbers.

use std::net::SocketAddr;
use std::time::Duration;

use memberlist_transport::EcoString;

memberlist_transport::counters! {
    /// Counts since the transport was bound, taken by
    /// [`QuicTransport::stats`](crate::QuicTransport::stats).
    pub struct QuicStats, live: Counters {
        /// Packets handed to QUIC as datagrams.
        packets_sent,
        /// Packets sent on a stream, for being larger than the path now takes.
        packets_sent_by_stream,
        /// Bytes of all packets sent.
        packet_bytes_sent,
        /// Packets received, by datagram or stream.
        packets_received,
        /// Bytes of `packets_received`.
        packet_bytes_received,
        /// Packets not sent for being over the limit.
        packets_dropped_too_large,
        /// Packets dropped while they waited for a connection: too many, none came within a second, or, with
        /// names bound, it is somebody else's; those for which one more dial was too many; and those handed
        /// to a connection that ended that moment.
        packets_dropped_waiting,
        /// Packets dropped because the connection's send buffer was full: the path takes less.
        packets_dropped_busy,
        /// Packets not sent because the peer cannot be reached, or has another name.
        packets_send_errors,
        /// Packets of zero bytes: received ones, by which a peer asks whether this node is there, and
        /// those not sent for it.
        packets_dropped_empty,
        /// Received packets dropped because they did not fit the caller's buffer.
        packets_dropped_unfit,
        /// Received packets dropped because too many waited to be taken.
        packets_dropped_over_limit,
        /// Received packets dropped because they came over a connection of before a
        /// [`reload`](crate::QuicTransport::reload), whose time is over.
        packets_dropped_revoked,
        /// Streams of packets that ended early, were too long or too slow.
        packet_streams_failed,
        /// Streams that this node opened.
        streams_opened,
        /// Streams that could not be opened, or not in time.
        streams_open_errors,
        /// Streams that peers opened and that were handed on.
        streams_accepted,
        /// Streams of peers refused because
        /// [`max_inbound_streams`](crate::QuicConfig::max_inbound_streams) existed already.
        streams_dropped_over_limit,
        /// Streams of peers refused because they came over a connection of before a
        /// [`reload`](crate::QuicTransport::reload), whose time is over.
        streams_dropped_revoked,
        /// Streams on which a read, a write or the whole took too long.
        streams_timed_out,
        /// Connections that this node dialled and made.
        connections_dialled,
        /// Dials that failed or timed out.
        dials_failed,
        /// Dials for packets that had to wait until others were done: two of each kind begin at a time (first
        /// contacts, peers whose last dial failed, peers to which there is a connection).
        dials_delayed,
        /// Connections that peers dialled and made.
        connections_accepted,
        /// Handshakes of peers that failed: no certificate, the wrong one, not memberlist.
        handshakes_failed,
        /// Handshakes of peers that took longer than
        /// [`handshake_timeout`](crate::QuicConfig::handshake_timeout).
        handshakes_timed_out,
        /// Handshakes of peers ignored or dropped because too many were in progress.
        handshakes_dropped_over_limit,
        /// Handshakes of peers that were asked to show their address first.
        retries_sent,
        /// Connections of peers refused because there were too many, of all or of one source.
        connections_refused_over_limit,
        /// Connections refused, and packets and streams not sent, because the certificate has not the
        /// name that it must have.
        names_refused,
        /// Connections closed to make room for others.
        connections_evicted,
        /// Connections that gave way to another with the same peer.
        connections_replaced,
        /// Connections whose peer had restarted, as its stateless reset told; those that fell silent are
        /// dialled anew and count as `connections_replaced`.
        peers_restarted,
        /// Peers that went on from another address.
        migrations,
        /// UDP datagrams sent.
        udp_datagrams_sent,
        /// Bytes of `udp_datagrams_sent`.
        udp_bytes_sent,
        /// UDP datagrams received.
        udp_datagrams_received,
        /// Bytes of `udp_datagrams_received`.
        udp_bytes_received,
        /// Received UDP datagrams that are no QUIC, of another version, or of no connection that this
        /// node ever had: plain packets, scans, garbage.
        foreign_datagrams,
    }
}

/// One connection, as it is now; see [`QuicTransport::connections`](crate::QuicTransport::connections).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The peer's address.
    pub addr: SocketAddr,
    /// The name in the peer's certificate, if names are bound.
    pub name: Option<EcoString>,
    /// Whether this node dialled it.
    pub dialled: bool,
    /// Whether this is the connection that packets and new streams take; otherwise it gives way to
    /// another, and ends when its streams do.
    pub in_use: bool,
    /// The round-trip time as QUIC estimates it.
    pub rtt: Duration,
    /// The largest UDP payload in bytes that the path is known to take.
    pub mtu: u16,
    /// The congestion window in bytes.
    pub congestion_window: u64,
    /// QUIC packets sent.
    pub sent_packets: u64,
    /// QUIC packets taken for lost.
    pub lost_packets: u64,
    /// Packets sent as datagrams.
    pub datagrams_sent: u64,
    /// Packets received as datagrams.
    pub datagrams_received: u64,
    /// Bytes of packets that wait to be sent.
    pub queued_bytes: usize,
    /// Packets dropped because the send buffer was full.
    pub datagrams_dropped: u64,
    /// Streams open now, of both sides, and those whose last bytes are under way.
    pub streams: usize,
    /// Bytes sent and received in UDP datagrams.
    pub bytes_sent: u64,
    /// See `bytes_sent`.
    pub bytes_received: u64,
}
