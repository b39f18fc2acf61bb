//! Bytes: how messages become packets and streams.
//!
//! `docs/WIRE.md` states both formats byte by byte. A packet is written with a [`PacketWriter`] and read
//! with a [`PacketReader`]; a stream is written with [`stream::MessageFrames`] and read with a
//! [`stream::MessageReader`]. The outer layers (label, encryption) wrap what is made here and are not
//! known here.

mod check;
mod checksum;
mod compress;
mod error;
pub mod hashicorp;
mod native;
mod packet;
pub mod stream;
pub mod sync;
#[cfg(test)]
mod tests;

pub use compress::CompressionError;
pub use error::{BodyError, PacketError, StreamError};
pub use native::{PacketMessages, inflate, read_packet};
pub use packet::{Packet, PacketReader, PacketWriter, Room};

use crate::message::Message;

/// Which bytes a cluster speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum WireFormat {
    /// This library's own: bodies as bincode writes them, extensible, with a format byte and a version.
    #[default]
    Native,
    /// That of HashiCorp's Go memberlist: what Serf, Consul and Nomad speak in their gossip pools.
    Hashicorp,
    /// Both are read, and each peer is spoken to in the one that it speaks: in HashiCorp's until it is
    /// known to read the native one. For replacing a cluster of Go nodes one by one.
    Mixed,
}

/// One of the two formats, as a packet or a stream is in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// This library's own.
    Native,
    /// That of HashiCorp's Go memberlist.
    Hashicorp,
}

impl WireFormat {
    /// The format for a peer of which nothing is known.
    pub fn towards_strangers(self) -> Dialect {
        match self {
            Self::Native => Dialect::Native,
            Self::Hashicorp | Self::Mixed => Dialect::Hashicorp,
        }
    }

    /// Whether what is in that format is read.
    pub fn reads(self, dialect: Dialect) -> bool {
        self == Self::Mixed || self.towards_strangers() == dialect
    }

    /// Whether peers in Go's format are told that the native one is read as well.
    pub fn announces_native(self) -> bool {
        self == Self::Mixed
    }

    /// The format of what begins with this byte; nothing if that is not read here.
    pub fn dialect_of(self, first: u8) -> Option<Dialect> {
        Dialect::of(first).filter(|dialect| self.reads(*dialect))
    }
}

impl Dialect {
    /// The bytes that a compound of Go's has before the lengths of its parts.
    const COMPOUND_BYTES: usize = hashicorp::COMPOUND_BYTES;

    /// The format of a packet or stream that begins with this byte, if it is in either.
    pub fn of(first: u8) -> Option<Self> {
        match first {
            native::MAGIC => Some(Self::Native),
            // Go's types.
            0..=hashicorp::kind::ERROR => Some(Self::Hashicorp),
            _ => None,
        }
    }

    /// Appends one message as a part of a packet. A body of 4 GiB and more, which no packet could
    /// hold, is left out, and so is what HashiCorp's format does not have.
    pub fn encode(self, message: &Message<'_>, out: &mut Vec<u8>) {
        self.encode_within(message, usize::MAX, out);
    }

    /// Appends one message as a part of a packet if `out` then has at most `limit` bytes;
    /// otherwise changes nothing and returns false.
    pub(crate) fn encode_within(
        self,
        message: &Message<'_>,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::Native => native::encode_part(message, limit, out),
            Self::Hashicorp => hashicorp::encode_part(message, limit, out),
        }
    }

    /// Reads one message as [`encode`](Self::encode) makes it, and lends it to `take`.
    pub(crate) fn decode<R>(
        self,
        part: &[u8],
        take: impl FnOnce(Result<Message<'_>, PacketError>) -> R,
    ) -> R {
        match self {
            Self::Native => take(native::read_part(part)),
            Self::Hashicorp => hashicorp::decode_part(part, take),
        }
    }

    /// What each part costs in a packet beside its own encoding, in bytes.
    pub fn part_overhead(self) -> usize {
        match self {
            Self::Native => 0,
            Self::Hashicorp => hashicorp::PART_BYTES,
        }
    }

    /// What a packet of several parts costs beside them, in bytes.
    pub fn packet_overhead(self, checksum: bool) -> usize {
        match self {
            Self::Native => self.header_bytes(checksum),
            Self::Hashicorp => self.header_bytes(checksum) + Self::COMPOUND_BYTES,
        }
    }

    /// The most bytes that a packet can have behind its header, whatever room there is.
    fn longest_content(self) -> usize {
        match self {
            Self::Native => usize::MAX,
            // The lengths of parts have two bytes.
            Self::Hashicorp => usize::from(u16::MAX),
        }
    }

    /// What stands in front of the parts from the beginning.
    fn header_bytes(self, checksum: bool) -> usize {
        match (self, checksum) {
            (Self::Native, _) => native::overhead(checksum),
            (Self::Hashicorp, true) => hashicorp::CRC_BYTES,
            (Self::Hashicorp, false) => 0,
        }
    }
}
