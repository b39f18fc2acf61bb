//! Go's packets: compounds, LZW and CRC (Go `makeCompoundMessage`, `compressPayload`, `rawSendMsgPacket`,
//! `handleCommand`).
//!
//! Safety limits that Go does not have: what a packet holds decompressed, all its layers together, fits
//! a datagram, and layers nest eight deep.

use std::ops::Range;

use super::body::{self, Body};
use super::lzw;
use super::msgpack::Reader;
use super::{decode_part, kind};
use crate::message::Message;
use crate::wire::checksum::crc32;
use crate::wire::compress::CompressionError;
use crate::wire::error::PacketError;

/// Type byte and sum.
pub(crate) const CRC_BYTES: usize = 5;
/// The most parts of a compound: their number is one byte.
const MAX_PARTS: usize = 255;
/// Type byte and number of parts.
pub(crate) const COMPOUND_BYTES: usize = 2;
/// What each part of a compound costs: its length.
pub(crate) const PART_BYTES: usize = 2;
/// The most that a packet may hold decompressed: what fits the largest UDP datagram.
const MAX_INFLATED_BYTES: usize = 65_507;
/// Compounds and compressed messages within each other. Honest packets have two.
const MAX_NESTING: u32 = 8;

/// How long the parts of a packet are that is being written.
#[derive(Debug)]
pub(crate) struct PartLengths {
    lengths: [u16; MAX_PARTS],
    count: usize,
}

impl PartLengths {
    pub(crate) const fn new() -> Self {
        Self { lengths: [0; MAX_PARTS], count: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == MAX_PARTS
    }

    /// What a compound of them takes beside them, with one part more.
    pub(crate) fn overhead_with_another(&self) -> usize {
        match self.count {
            // Alone it goes without.
            0 => 0,
            count => COMPOUND_BYTES + PART_BYTES * (count + 1),
        }
    }

    pub(crate) fn push(&mut self, len: usize) {
        // A part fits a packet, and a packet the largest datagram.
        self.lengths[self.count] = u16::try_from(len).unwrap_or(u16::MAX);
        self.count += 1;
    }
}

/// Compresses packets and streams in memory that it keeps.
#[derive(Debug, Default)]
pub(crate) struct Lzw {
    encoder: lzw::Encoder,
    compressed: Vec<u8>,
}

impl Lzw {
    /// Replaces the message `buf[from..]` by one that holds it compressed, whether or not that is
    /// shorter: Go does so on streams.
    pub(crate) fn replace(&mut self, buf: &mut Vec<u8>, from: usize) {
        let end = buf.len();
        self.append(buf, from);
        buf.drain(from..end);
    }

    /// The same if it is shorter, as Go does with packets.
    fn replace_if_shorter(&mut self, buf: &mut Vec<u8>, from: usize) {
        let (end, len) = (buf.len(), buf.len() - from);
        self.append(buf, from);
        if buf.len() - end < len {
            buf.drain(from..end);
        } else {
            buf.truncate(end);
        }
    }

    /// Appends the message that holds `buf[from..]` compressed.
    fn append(&mut self, buf: &mut Vec<u8>, from: usize) {
        self.compressed.clear();
        self.encoder.encode(&buf[from..], &mut self.compressed);
        buf.push(kind::COMPRESS);
        let compressed = Some(self.compressed.as_slice().into());
        body::Compressed { algo: 0, buf: compressed }.write(buf);
    }
}

/// Makes the packet `buf[start..]` of its parts, which stand one after the other behind room for the
/// checksum if there is to be one.
pub(crate) fn finish_packet(
    buf: &mut Vec<u8>,
    start: usize,
    parts: &PartLengths,
    checksum: bool,
    lzw: Option<&mut Lzw>,
) {
    let content = start + if checksum { CRC_BYTES } else { 0 };
    if parts.count > 1 {
        let head = COMPOUND_BYTES + PART_BYTES * parts.count;
        let end = buf.len();
        buf.resize(end + head, 0);
        buf.copy_within(content..end, content + head);
        buf[content] = kind::COMPOUND;
        buf[content + 1] = parts.count as u8;
        let lengths = &mut buf[content + COMPOUND_BYTES..content + head];
        for (field, len) in lengths.chunks_exact_mut(PART_BYTES).zip(parts.lengths) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }
    if let Some(lzw) = lzw {
        lzw.replace_if_shorter(buf, content);
    }
    if checksum {
        let sum = crc32(&[], &buf[content..]);
        buf[start] = kind::CRC;
        buf[start + 1..content].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The parts of a packet that was unpacked, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// What was compressed.
    inflated: Vec<u8>,
    decoder: lzw::Decoder,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// Bytes of the packet.
    Packet(Range<usize>),
    /// Bytes that were compressed.
    Inflated(Range<usize>),
    /// What could not be unpacked. The others are not affected.
    Bad(PacketError),
}

/// Where a message stands that is being unpacked.
#[derive(Clone)]
struct Place {
    inflated: bool,
    range: Range<usize>,
    nesting: u32,
}

/// Takes a packet apart.
///
/// # Errors
/// If nothing of it can be read.
pub(crate) fn unpack(packet: &[u8], to: &mut Unpacked) -> Result<(), PacketError> {
    to.inflated.clear();
    to.parts.clear();
    let start = match packet {
        [] => return Err(PacketError::Truncated),
        // With less behind it, it is a message of a type that has no place in packets.
        [kind::CRC, a, b, c, d, content @ ..] => {
            let (stated, computed) = (u32::from_be_bytes([*a, *b, *c, *d]), crc32(&[], content));
            if stated != computed {
                return Err(PacketError::Checksum { stated, computed });
            }
            CRC_BYTES
        }
        _ => 0,
    };
    let place = Place { inflated: false, range: start..packet.len(), nesting: 0 };
    to.unpack_message(packet, place)
}

impl Unpacked {
    /// How many bytes the messages have that it holds.
    pub(crate) fn content_bytes(&self) -> usize {
        let len = |part: &Part| match part {
            Part::Packet(range) | Part::Inflated(range) => range.len(),
            Part::Bad(_) => 0,
        };
        self.parts.iter().map(len).sum()
    }

    /// What it keeps, but for the decoder's table.
    #[cfg(test)]
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.inflated.capacity() + self.parts.capacity() * size_of::<Part>()
    }

    /// Reads the messages in their order. `packet` is what was unpacked.
    pub(crate) fn for_each(
        &self,
        packet: &[u8],
        mut take: impl FnMut(Result<Message<'_>, PacketError>),
    ) {
        for part in &self.parts {
            match part {
                Part::Packet(range) => {
                    decode_part(packet.get(range.clone()).unwrap_or_default(), &mut take);
                }
                Part::Inflated(range) => {
                    decode_part(self.inflated.get(range.clone()).unwrap_or_default(), &mut take);
                }
                Part::Bad(error) => take(Err(*error)),
            }
        }
    }

    fn bytes<'a>(&'a self, packet: &'a [u8], place: &Place) -> &'a [u8] {
        let source = if place.inflated { &self.inflated } else { packet };
        source.get(place.range.clone()).unwrap_or_default()
    }

    fn unpack_message(&mut self, packet: &[u8], place: Place) -> Result<(), PacketError> {
        let layered =
            matches!(self.bytes(packet, &place).first(), Some(&(kind::COMPOUND | kind::COMPRESS)));
        if layered && place.nesting == MAX_NESTING {
            return Err(PacketError::NestedTooDeep);
        }
        match self.bytes(packet, &place).first() {
            Some(&kind::COMPOUND) => self.unpack_compound(packet, &place),
            Some(&kind::COMPRESS) => self.unpack_compressed(packet, &place),
            _ => {
                self.parts.push(match place.inflated {
                    true => Part::Inflated(place.range),
                    false => Part::Packet(place.range),
                });
                Ok(())
            }
        }
    }

    /// A part that cannot be unpacked is left out by itself.
    fn unpack_compound(&mut self, packet: &[u8], place: &Place) -> Result<(), PacketError> {
        let bytes = self.bytes(packet, place);
        let count = usize::from(*bytes.get(1).ok_or(PacketError::Truncated)?);
        let mut at = COMPOUND_BYTES + PART_BYTES * count;
        if at > bytes.len() {
            return Err(PacketError::Truncated);
        }
        for part in 0..count {
            let bytes = self.bytes(packet, place);
            let field = COMPOUND_BYTES + PART_BYTES * part;
            let len = usize::from(u16::from_be_bytes([bytes[field], bytes[field + 1]]));
            if at + len > bytes.len() {
                // As in Go: what is complete counts, the rest is dropped.
                (part..count).for_each(|_| self.parts.push(Part::Bad(PacketError::Truncated)));
                break;
            }
            let start = place.range.start + at;
            let range = start..start + len;
            at += len;
            let place = Place { range, nesting: place.nesting + 1, ..*place };
            if let Err(error) = self.unpack_message(packet, place) {
                self.parts.push(Part::Bad(error));
            }
        }
        Ok(())
    }

    fn unpack_compressed(&mut self, packet: &[u8], place: &Place) -> Result<(), PacketError> {
        // What is compressed within something compressed is of no honest peer: it may be copied.
        let copied = if place.inflated { self.bytes(packet, place).to_vec() } else { Vec::new() };
        let bytes = match place.inflated {
            true => copied.as_slice(),
            false => packet.get(place.range.clone()).unwrap_or_default(),
        };
        let malformed = PacketError::Compression(CompressionError::Malformed);
        let body = body::Compressed::read(&mut Reader::new(bytes.get(1..).unwrap_or_default()))
            .map_err(|_| malformed)?;
        if body.algo != 0 {
            return Err(malformed);
        }
        let start = self.inflated.len();
        let free = MAX_INFLATED_BYTES.saturating_sub(start);
        let buf = body.buf.as_deref().unwrap_or_default();
        self.decoder.decode(buf, free, &mut self.inflated)?;
        let range = start..self.inflated.len();
        self.unpack_message(packet, Place { inflated: true, range, nesting: place.nesting + 1 })
    }
}
