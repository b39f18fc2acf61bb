//! Bytes: how messages become packets and streams.
//!
//! `docs/WIRE.md` states the native format byte by byte. A packet is written with a
//! [`PacketWriter`] and read with [`read_packet`]; a stream is a sequence of frames, written with
//! [`stream::MessageFrames`] and read with [`stream::FrameReader`] and [`stream::Assembler`].
//! The outer layers (label, encryption) wrap what is made here and are not known here.

mod checksum;
mod compress;
mod error;
mod native;
mod packet;
pub mod stream;
#[cfg(test)]
mod tests;

pub use compress::CompressionError;
pub(crate) use compress::Compressor;
pub use error::{BodyError, PacketError, StreamError};
pub(crate) use packet::read_part;
pub use packet::{PacketMessages, PacketWriter, Room, inflate, read_packet};

use crate::message::Message;

/// Which bytes a cluster speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum WireFormat {
    /// This library's own: bincode bodies, extensible, with a format byte and a version.
    #[default]
    Native,
}

impl WireFormat {
    /// Appends one message as a part of a packet. A body of 4 GiB and more, which no packet could
    /// hold, is left out.
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
        }
    }

    /// What each part costs in a packet beside its own encoding, in bytes.
    pub fn part_overhead(self) -> usize {
        match self {
            Self::Native => 0,
        }
    }

    /// What a packet costs beside its parts, in bytes.
    pub fn packet_overhead(self, checksum: bool) -> usize {
        match self {
            Self::Native => packet::native_overhead(checksum),
        }
    }
}
