//! What a transport did, for the `metrics` facade.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::QuicTransport;

impl QuicTransport {
    /// Writes what happened so far to the recorder of the `metrics` facade (cargo feature `metrics`).
    /// Call it as often as the exporter is read; between two calls nothing runs.
    ///
    /// | name | kind | |
    /// |---|---|---|
    /// | `memberlist.quic.` and a field of [`QuicStats`](crate::QuicStats) | counter | that count |
    /// | `memberlist.quic.connections` | gauge | connections that exist |
    /// | `memberlist.quic.streams` | gauge | streams open on them, of both sides |
    /// | `memberlist.quic.queued_bytes` | gauge | bytes of packets that wait to be sent |
    /// | `memberlist.quic.rtt` | histogram | the round-trip time in seconds of each connection in use, at each call |
    /// | `memberlist.quic.mtu` | histogram | the UDP payload in bytes that its path takes |
    /// | `memberlist.quic.loss` | histogram | the share of its QUIC packets that were lost so far, 0 to 1 |
    ///
    /// No peer is a label, so that their number stays bounded; see
    /// [`connections`](Self::connections) for each.
    pub fn record_metrics(&self) {
        for (name, count) in self.stats().counts() {
            counter!(format!("memberlist.quic.{name}")).absolute(count);
        }
        let connections = self.connections();
        let streams: usize = connections.iter().map(|connection| connection.streams).sum();
        let queued: usize = connections.iter().map(|connection| connection.queued_bytes).sum();
        gauge!("memberlist.quic.connections").set(connections.len() as f64);
        gauge!("memberlist.quic.streams").set(streams as f64);
        gauge!("memberlist.quic.queued_bytes").set(queued as f64);
        for connection in connections.iter().filter(|connection| connection.in_use) {
            histogram!("memberlist.quic.rtt").record(connection.rtt);
            histogram!("memberlist.quic.mtu").record(f64::from(connection.mtu));
            let lost = connection.lost_packets as f64 / connection.sent_packets.max(1) as f64;
            histogram!("memberlist.quic.loss").record(lost);
        }
    }

    /// Tells the recorder what the metrics mean, and their units. Once, before the first
    /// [`record_metrics`](Self::record_metrics).
    pub fn describe_metrics(&self) {
        for (name, _) in self.stats().counts() {
            let unit = if name.contains("bytes") { Unit::Bytes } else { Unit::Count };
            describe_counter!(format!("memberlist.quic.{name}"), unit, name.replace('_', " "));
        }
        describe_gauge!("memberlist.quic.connections", Unit::Count, "connections that exist");
        describe_gauge!("memberlist.quic.streams", Unit::Count, "streams open now");
        describe_gauge!(
            "memberlist.quic.queued_bytes",
            Unit::Bytes,
            "packets that wait to be sent"
        );
        describe_histogram!("memberlist.quic.rtt", Unit::Seconds, "round-trip times");
        describe_histogram!("memberlist.quic.mtu", Unit::Bytes, "UDP payload that the path takes");
        describe_histogram!("memberlist.quic.loss", "share of QUIC packets lost, 0 to 1");
    }
}
