//! What a transport did, in numbers.

memberlist_transport::counters! {
    /// Counts since the transport was bound, taken by
    /// [`NetTransport::stats`](crate::NetTransport::stats). Packets and bytes are those of UDP
    /// payloads.
    pub struct NetStats, live: Counters {
        /// Packets handed to the system.
        packets_sent,
        /// Bytes of `packets_sent`.
        packet_bytes_sent,
        /// Packets received and handed on.
        packets_received,
        /// Bytes of `packets_received`.
        packet_bytes_received,
        /// Packets not sent for being over [`max_packet_bytes`](crate::NetConfig::max_packet_bytes).
        packets_dropped_too_large,
        /// Packets not sent because the system's buffer had no room in time.
        packets_dropped_busy,
        /// Packets not sent because the system refused them, or had no way to the address.
        packets_send_errors,
        /// Received packets dropped because their source is not
        /// [`allowed`](crate::NetConfig::allowed).
        packets_dropped_not_allowed,
        /// Packets of zero bytes: received ones, and those not sent for it.
        packets_dropped_empty,
        /// Received packets dropped because they did not fit the caller's buffer.
        packets_dropped_unfit,
        /// Errors when receiving packets, those included that only report the fate of a packet sent
        /// before (a port that nobody listens at).
        packet_receive_errors,
        /// Streams that were dialled and opened.
        streams_opened,
        /// Dials that failed or timed out.
        streams_open_errors,
        /// Streams that peers opened and that were handed on.
        streams_accepted,
        /// Inbound streams closed because their source is not [`allowed`](crate::NetConfig::allowed).
        streams_dropped_not_allowed,
        /// Inbound streams closed because
        /// [`max_inbound_streams`](crate::NetConfig::max_inbound_streams) existed already.
        streams_dropped_over_limit,
        /// Errors when accepting streams.
        streams_accept_errors,
        /// Streams on which a read, a write or the whole took too long.
        streams_timed_out,
    }
}
