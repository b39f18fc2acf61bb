//! Packets: a header and as many messages as there is room for.
//!
//! A packet is written into a buffer that its caller owns and uses again, behind room that the
//! outer layers ask for, so that sealing happens in place. What is read borrows from the packet:
//! neither direction allocates once the buffer has grown to the packet limit.

use super::WireFormat;
use super::checksum::crc32;
use super::compress::{Compressor, decompress};
use super::error::PacketError;
use super::native::{self, LengthError};
use crate::error::MetaError;
use crate::message::Message;

/// Magic byte, version, flags.
const HEADER_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;
/// Bit 0 of the flags: a checksum follows the header.
const HAS_CHECKSUM: u8 = 1;
/// Bit 1 of the flags: the parts are compressed.
const IS_COMPRESSED: u8 = 2;
/// The most bytes of parts that a compressed packet may hold: what fits the largest UDP datagram, as
/// they were packed.
const MAX_PARTS_BYTES: usize = 65_507;
/// How much of a packet's limit is reserved before there is anything to write. The limit itself is
/// the caller's word and may mean "none".
const RESERVED_BYTES: usize = 64 * 1024;

/// What the outer layers and the transport leave for a packet to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes kept free in front of the packet, at the start of the buffer.
    pub head: usize,
    /// Bytes kept free behind it: capacity of the buffer, not part of its length.
    pub tail: usize,
    /// The limit for the whole, `head` and `tail` included, in bytes.
    pub max_packet_bytes: usize,
}

/// Writes one packet into a caller-owned buffer without exceeding the room.
#[derive(Debug)]
pub struct PacketWriter<'b> {
    buf: &'b mut Vec<u8>,
    format: WireFormat,
    room: Room,
    /// The length that the buffer must not pass. Nothing at all is written into a room that does
    /// not hold the header.
    limit: Option<usize>,
    checksum: bool,
    parts: usize,
}

/// What the header of a native packet takes, in bytes.
pub(crate) fn native_overhead(checksum: bool) -> usize {
    HEADER_BYTES + if checksum { CHECKSUM_BYTES } else { 0 }
}

impl<'b> PacketWriter<'b> {
    /// Clears `buf`, leaves `room.head` zero bytes, writes the header.
    ///
    /// If the room does not even hold the header, nothing fits and [`finish`](Self::finish)
    /// returns 0.
    pub fn new(buf: &'b mut Vec<u8>, format: WireFormat, checksum: bool, room: Room) -> Self {
        buf.clear();
        let start = room.head.checked_add(format.packet_overhead(checksum));
        let limit = room
            .max_packet_bytes
            .checked_sub(room.tail)
            .filter(|&limit| start.is_some_and(|start| start <= limit));
        if limit.is_some() {
            buf.reserve(room.max_packet_bytes.min(RESERVED_BYTES));
            buf.resize(room.head, 0);
            match format {
                WireFormat::Native => write_native_header(buf, checksum),
            }
        }
        Self { buf, format, room, limit, checksum, parts: 0 }
    }

    /// Bytes still free for parts: an encoded part fits if it and
    /// [`part_overhead`](Self::part_overhead) are not more.
    pub fn remaining(&self) -> usize {
        self.limit.map_or(0, |limit| limit - self.buf.len())
    }

    /// What a part costs beside its own encoding, in bytes.
    pub fn part_overhead(&self) -> usize {
        self.format.part_overhead()
    }

    /// Appends a part that [`WireFormat::encode`] has made; false, and nothing changed, if it does
    /// not fit.
    pub fn push_encoded(&mut self, part: &[u8]) -> bool {
        if self.limit.is_none() || part.len() > self.remaining() {
            return false;
        }
        self.buf.extend_from_slice(part);
        self.parts += 1;
        true
    }

    /// Encodes a message directly into the buffer; false, and nothing changed, if it does not fit.
    pub fn push(&mut self, message: &Message<'_>) -> bool {
        let Some(limit) = self.limit else {
            return false;
        };
        let fits = self.format.encode_within(message, limit, self.buf);
        if fits {
            self.parts += 1;
        }
        fits
    }

    /// How many parts were appended so far.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Compresses the parts if that makes the packet shorter, then as [`finish`](Self::finish).
    pub(crate) fn finish_compressed(self, compressor: &mut Compressor) -> usize {
        if self.limit.is_some() {
            let parts = self.room.head + self.format.packet_overhead(self.checksum);
            let compressed = compressor.compress(self.buf, parts);
            match self.format {
                WireFormat::Native if compressed => {
                    self.buf[self.room.head + HEADER_BYTES - 1] |= IS_COMPRESSED;
                }
                WireFormat::Native => {}
            }
        }
        self.finish()
    }

    /// Writes the checksum; returns the packet's length without `head`.
    ///
    /// `buf[head..]` is the packet; the capacity for `tail` is reserved.
    pub fn finish(self) -> usize {
        if self.limit.is_none() {
            return 0;
        }
        let packet = &mut self.buf[self.room.head..];
        match self.format {
            WireFormat::Native if self.checksum => write_native_checksum(packet),
            WireFormat::Native => {}
        }
        let len = packet.len();
        self.buf.reserve(self.room.tail);
        len
    }
}

fn write_native_header(buf: &mut Vec<u8>, checksum: bool) {
    let flags = if checksum { HAS_CHECKSUM } else { 0 };
    buf.extend_from_slice(&[native::MAGIC, native::VERSION, flags]);
    if checksum {
        buf.extend_from_slice(&[0; CHECKSUM_BYTES]);
    }
}

fn write_native_checksum(packet: &mut [u8]) {
    let (header, rest) = packet.split_at_mut(HEADER_BYTES);
    let (field, parts) = rest.split_at_mut(CHECKSUM_BYTES);
    field.copy_from_slice(&crc32(header, parts).to_be_bytes());
}

/// Takes the compression off a packet, if it has any: gives the packet as it would be without, in
/// `scratch`, or the one that came. Content of a compressed packet over 65,507 bytes is refused.
///
/// # Errors
/// As those of [`read_packet`], or if it cannot be decompressed.
pub fn inflate<'a>(
    format: WireFormat,
    packet: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], PacketError> {
    let (flags, rest) = match format {
        WireFormat::Native => read_native_header(packet)?,
    };
    if flags & IS_COMPRESSED == 0 {
        return Ok(packet);
    }
    scratch.clear();
    // The checksum has been checked.
    write_native_header(scratch, false);
    decompress(rest, MAX_PARTS_BYTES, scratch)?;
    Ok(scratch)
}

/// Reads the header and checks the checksum; gives the messages one by one.
///
/// # Errors
/// If the packet as a whole is not to be read: cut off in the header, damaged, of another format or
/// version, or compressed (see [`inflate`]).
pub fn read_packet(format: WireFormat, packet: &[u8]) -> Result<PacketMessages<'_>, PacketError> {
    let (flags, rest) = match format {
        WireFormat::Native => read_native_header(packet)?,
    };
    if flags & IS_COMPRESSED != 0 {
        return Err(PacketError::UnknownFlags(flags));
    }
    Ok(PacketMessages { format, rest, max_meta_bytes: usize::MAX })
}

/// Reads one part by itself, as [`WireFormat::encode`] makes it.
pub(crate) fn read_part(format: WireFormat, part: &[u8]) -> Option<Message<'_>> {
    PacketMessages { format, rest: part, max_meta_bytes: usize::MAX }.next()?.ok()
}

/// Takes the header off a packet; gives its flags and the rest.
fn read_native_header(packet: &[u8]) -> Result<(u8, &[u8]), PacketError> {
    let first = *packet.first().ok_or(PacketError::Truncated)?;
    if first != native::MAGIC {
        return Err(PacketError::WrongFormat { first });
    }
    let version = *packet.get(1).ok_or(PacketError::Truncated)?;
    if version != native::VERSION {
        return Err(PacketError::WrongVersion(version));
    }
    let (header, rest) = packet.split_at_checked(HEADER_BYTES).ok_or(PacketError::Truncated)?;
    let flags = header[HEADER_BYTES - 1];
    if flags & !(HAS_CHECKSUM | IS_COMPRESSED) != 0 {
        return Err(PacketError::UnknownFlags(flags));
    }
    if flags & HAS_CHECKSUM == 0 {
        return Ok((flags, rest));
    }
    let (field, parts) = rest.split_first_chunk().ok_or(PacketError::Truncated)?;
    let (stated, computed) = (u32::from_be_bytes(*field), crc32(header, parts));
    match stated == computed {
        true => Ok((flags, parts)),
        false => Err(PacketError::Checksum { stated, computed }),
    }
}

/// The messages of a packet, in their order.
///
/// An error of one part (bad body, unknown kind) does not end the iteration. Where the framing
/// itself is broken, the error is the last item.
#[derive(Clone, Debug)]
pub struct PacketMessages<'a> {
    format: WireFormat,
    rest: &'a [u8],
    max_meta_bytes: usize,
}

impl PacketMessages<'_> {
    /// Refuses nodes whose meta is longer, in bytes. Without this, the packet is the limit.
    #[must_use]
    pub fn with_max_meta_bytes(mut self, limit: usize) -> Self {
        self.max_meta_bytes = limit;
        self
    }
}

impl<'a> PacketMessages<'a> {
    fn next_native(&mut self) -> Result<Message<'a>, PacketError> {
        // On a broken frame `rest` stays empty, which ends the iteration.
        let rest = std::mem::take(&mut self.rest);
        let (&number, mut rest) = rest.split_first().ok_or(PacketError::Truncated)?;
        let body = native::take_counted(&mut rest).map_err(|error| match error {
            LengthError::Truncated => PacketError::Truncated,
            LengthError::Overflow => PacketError::PartLength,
        })?;
        self.rest = rest;
        let kind = native::kind_of(number).ok_or(PacketError::UnknownKind(number))?;
        let message =
            native::decode_body(kind, body).map_err(|error| PacketError::Body { kind, error })?;
        self.check_meta(&message)?;
        Ok(message)
    }

    fn check_meta(&self, message: &Message<'_>) -> Result<(), PacketError> {
        let Message::Alive(alive) = message else {
            return Ok(());
        };
        let (len, limit) = (alive.meta.len(), self.max_meta_bytes);
        if len <= limit {
            return Ok(());
        }
        let error = MetaError { len, limit }.into();
        Err(PacketError::Body { kind: message.kind(), error })
    }
}

impl<'a> Iterator for PacketMessages<'a> {
    type Item = Result<Message<'a>, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(match self.format {
            WireFormat::Native => self.next_native(),
        })
    }
}

impl std::iter::FusedIterator for PacketMessages<'_> {}
