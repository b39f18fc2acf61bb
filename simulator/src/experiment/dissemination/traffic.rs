//! All bytes that a cluster sends, headers included.

use crate::world::{Watch, World};

/// IPv4 and UDP.
const PACKET_HEADER_BYTES: u64 = 28;
/// IPv4 and TCP.
const SEGMENT_HEADER_BYTES: u64 = 40;
/// What a segment carries on an Ethernet path.
const SEGMENT_BYTES: u64 = 1460;
/// Segments that open and close a connection, and acknowledge.
const CONNECTION_SEGMENTS: u64 = 8;

/// What everybody has sent so far, in bytes.
pub(super) fn bytes_sent<W: Watch>(world: &World<W>) -> u64 {
    let machines = world.processes().iter().filter_map(|process| process.machine());
    let packets: u64 = machines
        .map(|machine| machine.stats())
        .map(|stats| stats.bytes_sent + PACKET_HEADER_BYTES * stats.packets_sent)
        .sum();
    packets + stream_bytes(world.stream_bytes(), world.streams())
}

/// Streams that carried so many bytes, with their headers.
pub(super) fn stream_bytes(content: u64, streams: u64) -> u64 {
    let segments = content.div_ceil(SEGMENT_BYTES) + CONNECTION_SEGMENTS * streams;
    content + SEGMENT_HEADER_BYTES * segments
}

/// A packet of so many bytes, with its headers.
pub(super) fn packet_bytes(content: usize) -> u64 {
    content as u64 + PACKET_HEADER_BYTES
}
