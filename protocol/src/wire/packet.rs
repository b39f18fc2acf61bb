//! Packets: as many messages as there is room for, in either format.
//!
//! A packet is written into a buffer that its caller owns and uses again, behind room that the
//! outer layers ask for, so that sealing happens in place. What is read borrows from the packet, or from
//! memory that its reader keeps: neither direction allocates once buffers have grown.

use std::cell::RefCell;

use super::compress::Compressor;
use super::error::PacketError;
use super::hashicorp::{self, Lzw, PartLengths};
use super::native::{self, PacketMessages};
use super::{Dialect, WireFormat};
use crate::message::Message;

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

thread_local! {
    /// One a thread, however many nodes it runs: it takes more memory than a small cluster's records.
    static COMPRESSORS: RefCell<Compressors> = RefCell::default();
}

/// Compresses packets, in memory that it keeps.
#[derive(Debug, Default)]
struct Compressors {
    lz4: Compressor,
    lzw: Lzw,
}

/// Writes one packet into a caller-owned buffer without exceeding the room.
#[derive(Debug)]
pub struct PacketWriter<'b> {
    buf: &'b mut Vec<u8>,
    dialect: Dialect,
    room: Room,
    /// The length that the buffer must not pass. Nothing at all is written into a room that does
    /// not hold the header.
    limit: Option<usize>,
    checksum: bool,
    parts: usize,
    /// Of a packet in Go's format.
    lengths: PartLengths,
}

impl<'b> PacketWriter<'b> {
    /// Clears `buf`, leaves `room.head` zero bytes, writes the header.
    ///
    /// If the room does not even hold the header, nothing fits and [`finish`](Self::finish)
    /// returns 0.
    pub fn new(buf: &'b mut Vec<u8>, dialect: Dialect, checksum: bool, room: Room) -> Self {
        buf.clear();
        let start = room.head.checked_add(dialect.header_bytes(checksum));
        let limit = room
            .max_packet_bytes
            .checked_sub(room.tail)
            .filter(|&limit| start.is_some_and(|start| start <= limit))
            .map(|limit| limit.min(dialect.longest_content().saturating_add(start.unwrap_or(0))));
        if let (Some(_), Some(start)) = (limit, start) {
            buf.reserve(room.max_packet_bytes.min(RESERVED_BYTES));
            match dialect {
                Dialect::Native => {
                    buf.resize(room.head, 0);
                    native::write_header(buf, checksum);
                }
                Dialect::Hashicorp => buf.resize(start, 0),
            }
        }
        Self { buf, dialect, room, limit, checksum, parts: 0, lengths: PartLengths::new() }
    }

    /// The length that the buffer must not pass with one part more.
    fn limit(&self) -> Option<usize> {
        match self.dialect {
            Dialect::Native => self.limit,
            Dialect::Hashicorp if self.lengths.is_full() => None,
            Dialect::Hashicorp => self.limit?.checked_sub(self.lengths.overhead_with_another()),
        }
    }

    /// Bytes still free for parts: an encoded part fits if it and
    /// [`part_overhead`](Self::part_overhead) are not more.
    pub fn remaining(&self) -> usize {
        let free = self.limit().map_or(0, |limit| limit.saturating_sub(self.buf.len()));
        match (self.dialect, self.parts) {
            (Dialect::Native, _) => free,
            // A part that comes alone needs no compound, but the next ones make it one.
            (Dialect::Hashicorp, 0) => free.saturating_sub(Dialect::COMPOUND_BYTES),
            // What this part costs is in the limit already.
            (Dialect::Hashicorp, _) => match free {
                0 => 0,
                free => free + self.part_overhead(),
            },
        }
    }

    /// The format in which it writes.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether it takes no part more, however much room there is: a compound of Go's counts its parts in
    /// one byte.
    pub fn is_full(&self) -> bool {
        self.dialect == Dialect::Hashicorp && self.lengths.is_full()
    }

    /// What a part costs beside its own encoding, in bytes.
    pub fn part_overhead(&self) -> usize {
        self.dialect.part_overhead()
    }

    /// Appends a part that [`Dialect::encode`] has made; false, and nothing changed, if it does
    /// not fit.
    pub fn push_encoded(&mut self, part: &[u8]) -> bool {
        let fits =
            self.limit().is_some_and(|limit| part.len() <= limit.saturating_sub(self.buf.len()));
        if fits {
            self.buf.extend_from_slice(part);
            self.count(part.len());
        }
        fits
    }

    /// Encodes a message directly into the buffer; false, and nothing changed, if it does not fit.
    pub fn push(&mut self, message: &Message<'_>) -> bool {
        let Some(limit) = self.limit() else {
            return false;
        };
        let before = self.buf.len();
        let fits = self.dialect.encode_within(message, limit, self.buf);
        if fits {
            self.count(self.buf.len() - before);
        }
        fits
    }

    fn count(&mut self, len: usize) {
        self.parts += 1;
        if self.dialect == Dialect::Hashicorp {
            self.lengths.push(len);
        }
    }

    /// How many parts were appended so far.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Writes what goes around the parts; returns the packet's length without `head`.
    ///
    /// `buf[head..]` is the packet; the capacity for `tail` is reserved.
    pub fn finish(self) -> usize {
        self.finish_with(None)
    }

    /// Compresses the parts if that makes the packet shorter, then as [`finish`](Self::finish).
    pub fn finish_compressed(self) -> usize {
        COMPRESSORS.with_borrow_mut(|compressors| self.finish_with(Some(compressors)))
    }

    fn finish_with(self, compressors: Option<&mut Compressors>) -> usize {
        if self.limit.is_none() {
            return 0;
        }
        let (buf, start) = (self.buf, self.room.head);
        match self.dialect {
            Dialect::Native => {
                native::finish(buf, start, self.checksum, compressors.map(|c| &mut c.lz4));
            }
            Dialect::Hashicorp => {
                let lzw = compressors.map(|c| &mut c.lzw);
                hashicorp::finish_packet(buf, start, &self.lengths, self.checksum, lzw);
            }
        }
        let len = buf.len() - start;
        buf.reserve(self.room.tail);
        len
    }
}

/// Takes packets apart, in memory that it keeps.
#[derive(Debug, Default)]
pub struct PacketReader {
    inflated: Vec<u8>,
    unpacked: hashicorp::Unpacked,
}

/// A packet that was taken apart.
#[derive(Debug)]
pub struct Packet<'a> {
    dialect: Dialect,
    content_bytes: usize,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Native(PacketMessages<'a>),
    Hashicorp { packet: &'a [u8], unpacked: &'a hashicorp::Unpacked },
}

impl PacketReader {
    #[cfg(test)]
    pub(super) fn reserved_bytes(&self) -> usize {
        self.inflated.capacity() + self.unpacked.reserved_bytes()
    }

    /// Takes a packet apart that is in one of the formats that are read here.
    ///
    /// # Errors
    /// If the packet as a whole is not to be read: of another format or version, cut off in its header,
    /// damaged, or compressed and larger than 65,507 bytes.
    pub fn read<'a>(
        &'a mut self,
        format: WireFormat,
        packet: &'a [u8],
    ) -> Result<Packet<'a>, PacketError> {
        let first = *packet.first().ok_or(PacketError::Truncated)?;
        let dialect = format.dialect_of(first).ok_or(PacketError::WrongFormat { first })?;
        match dialect {
            Dialect::Native => {
                let plain = native::inflate(packet, &mut self.inflated)?;
                let content = Content::Native(native::read_packet(plain)?);
                Ok(Packet { dialect, content_bytes: plain.len(), content })
            }
            Dialect::Hashicorp => {
                hashicorp::unpack(packet, &mut self.unpacked)?;
                let unpacked = &self.unpacked;
                let content_bytes = unpacked.content_bytes();
                let content = Content::Hashicorp { packet, unpacked };
                Ok(Packet { dialect, content_bytes, content })
            }
        }
    }
}

impl Packet<'_> {
    /// The format that it is in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// How many bytes it holds, decompressed.
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// Reads its messages in their order. An error of one part (bad body, unknown kind) does not end
    /// that; one of the framing is the last.
    pub fn for_each(self, mut take: impl FnMut(Result<Message<'_>, PacketError>)) {
        match self.content {
            Content::Native(messages) => messages.for_each(take),
            Content::Hashicorp { packet, unpacked } => unpacked.for_each(packet, &mut take),
        }
    }
}
