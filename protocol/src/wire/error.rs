//! What can be wrong with bytes from the network. Blame: the peer, or its configuration.
//!
//! Every error names the counter that it goes to, by its `reason`.

use std::fmt;
use std::net::SocketAddr;

use super::compress::CompressionError;
use super::hashicorp::kind;
use super::native;
use crate::error::{MetaError, NameError};
use crate::message::MessageKind;
use crate::stats::DropReason;

/// What is wrong with the body of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body ends before the last of its fields.
    #[error("the body ends in the middle of a field")]
    Truncated,
    /// A field holds what no encoder writes.
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// A name is empty or too long.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name is not UTF-8.
    #[error("a node name is not UTF-8")]
    NameNotUtf8,
    /// No node can have this address.
    #[error("{0} cannot be the address of a node")]
    Address(SocketAddr),
    /// An IP address has 4 or 16 bytes.
    #[error("an IP address has 4 or 16 bytes, not {0}")]
    AddressLength(usize),
    /// Meta over the limit.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl BodyError {
    /// The counter that this goes to.
    pub fn reason(&self) -> DropReason {
        match self {
            Self::Truncated => DropReason::Truncated,
            Self::Malformed(_) => DropReason::Malformed,
            Self::Name(_) | Self::NameNotUtf8 => DropReason::BadName,
            Self::Address(_) | Self::AddressLength(_) => DropReason::BadAddress,
            Self::Meta(_) => DropReason::MetaTooLarge,
        }
    }
}

/// Why a packet, or one part of it, was not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The packet ends in the middle of its header or of a part.
    #[error("the packet is cut off")]
    Truncated,
    /// The packet is of another wire format, or wrapped in a layer that is not expected here.
    #[error(
        "not a packet of the format that is spoken here: the first byte is {first:#04x}; {}",
        LooksLike { first: *first, stream: false }
    )]
    WrongFormat {
        /// Its first byte.
        first: u8,
    },
    /// A version of the native format that this node does not know.
    #[error("version {0} of the native format is not known here")]
    WrongVersion(u8),
    /// A feature of the native format that this node does not know.
    #[error("the packet needs features that are not known here (flags {0:#04x})")]
    UnknownFlags(u8),
    /// The packet was damaged on its way.
    #[error("the checksum is {computed:#010x}, but the packet says {stated:#010x}")]
    Checksum {
        /// What the packet says.
        stated: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The parts are compressed, and could not be decompressed.
    #[error("the packet is compressed: {0}")]
    Compression(#[from] CompressionError),
    /// Compounds and compressed messages within each other, in Go's format, deeper than is followed.
    #[error("compounds and compressed messages are nested too deep")]
    NestedTooDeep,
    /// The length of a part is not a number below 2^32.
    #[error("the length of a part is malformed")]
    PartLength,
    /// One part is of a kind that this node does not know. The others are not affected.
    #[error("message kind {0} is not known here")]
    UnknownKind(u8),
    /// One part is not understood. The others are not affected.
    #[error("bad {} message: {error}", kind.as_str())]
    Body {
        /// The kind of the message.
        kind: MessageKind,
        /// What is wrong with it.
        error: BodyError,
    },
}

impl PacketError {
    /// The counter that this goes to.
    pub fn reason(&self) -> DropReason {
        match self {
            Self::Truncated => DropReason::Truncated,
            Self::WrongFormat { .. } => DropReason::WrongFormat,
            Self::WrongVersion(_) | Self::UnknownFlags(_) => DropReason::WrongVersion,
            Self::Checksum { .. } => DropReason::Checksum,
            Self::Compression(_) => DropReason::Compression,
            Self::PartLength | Self::NestedTooDeep => DropReason::Malformed,
            Self::UnknownKind(_) => DropReason::UnknownKind,
            Self::Body { error, .. } => error.reason(),
        }
    }
}

/// Why a stream was not understood. Nothing after such an error can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The stream ended in the middle of a frame or a message.
    #[error("the stream ended in the middle of a message")]
    Truncated,
    /// The stream is of another wire format, or wrapped in a layer that is not expected here.
    #[error(
        "not a stream of the format that is spoken here: the first byte is {first:#04x}; {}",
        LooksLike { first: *first, stream: true }
    )]
    WrongFormat {
        /// Its first byte.
        first: u8,
    },
    /// A version of the native format that this node does not know.
    #[error("version {0} of the native format is not known here")]
    WrongVersion(u8),
    /// A frame over [`StreamLimits::max_frame_bytes`](super::stream::StreamLimits).
    #[error("a frame of {len} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// What the peer announced, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A message, or its part of application bytes, over its limit in
    /// [`StreamLimits`](super::stream::StreamLimits).
    #[error("a message of {len} bytes or more is over the limit of {limit}")]
    MessageTooLarge {
        /// What came or was announced so far, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More nodes than [`StreamLimits::max_nodes`](super::stream::StreamLimits).
    #[error("a state of {count} nodes is over the limit of {limit}")]
    TooManyNodes {
        /// What the peer announced.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame is missing, repeated or at the wrong place.
    #[error("frame {got} came where frame {expected} was due")]
    OutOfOrder {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        got: u32,
    },
    /// A frame is compressed, and could not be decompressed.
    #[error("a frame of the stream is compressed: {0}")]
    Compression(#[from] CompressionError),
    /// Frames or messages that no encoder writes.
    #[error("the stream is malformed: {0}")]
    Malformed(&'static str),
    /// The body of a message is not understood.
    #[error("bad {message} on a stream: {error}")]
    Body {
        /// The name of the message.
        message: &'static str,
        /// What is wrong with it.
        error: BodyError,
    },
}

impl StreamError {
    /// The counter that this goes to.
    pub fn reason(&self) -> DropReason {
        match self {
            Self::Truncated => DropReason::Truncated,
            Self::WrongFormat { .. } => DropReason::WrongFormat,
            Self::WrongVersion(_) => DropReason::WrongVersion,
            Self::FrameTooLarge { .. }
            | Self::MessageTooLarge { .. }
            | Self::TooManyNodes { .. } => DropReason::TooLarge,
            Self::Compression(_) => DropReason::Compression,
            Self::OutOfOrder { .. } | Self::Malformed(_) => DropReason::Malformed,
            Self::Body { error, .. } => error.reason(),
        }
    }
}

/// The message types of Go memberlist, by number; each is the first byte of a packet or stream.
const HASHICORP_TYPES: [&str; 14] = [
    "ping",
    "indirect ping",
    "ack",
    "suspect",
    "alive",
    "dead",
    "push/pull",
    "compound",
    "user",
    "compress",
    "encrypt",
    "nack",
    "checksum",
    "error",
];

/// The first byte of a label header, which is the same around both wire formats.
const LABEL_HEADER: u8 = 244;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A guess at what begins with this byte, so that the log says what to change.
struct LooksLike {
    first: u8,
    stream: bool,
}

impl fmt::Display for LooksLike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first;
        if self.stream && first == kind::ENCRYPT {
            return f
                .write_str("it looks like a sealed hashicorp stream, and this node has no key");
        }
        if let Some(name) = HASHICORP_TYPES.get(usize::from(first)) {
            let what = if self.stream { "stream" } else { "packet" };
            write!(f, "it looks like a hashicorp {what} (message type {first}, {name})")?;
            // An encrypted packet begins with the version of the encryption, which is 0 or 1.
            if !self.stream && first <= 1 {
                f.write_str(" or an encrypted one")?;
            }
            return Ok(());
        }
        f.write_str(match first {
            native::MAGIC => "it is in the native format, which this node does not read",
            LABEL_HEADER => "it looks like a label header, and no label is expected here",
            TLS_HANDSHAKE if self.stream => "it looks like a TLS handshake",
            _ => "perhaps it is encrypted, or of another protocol",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_first_byte_is_explained() {
        let packet = |first| PacketError::WrongFormat { first }.to_string();
        assert!(packet(7).contains("hashicorp packet (message type 7, compound)"), "{}", packet(7));
        assert!(packet(0).contains("encrypted"), "{}", packet(0));
        assert!(packet(13).contains("message type 13"), "{}", packet(13));
        assert!(packet(14).contains("another protocol"), "{}", packet(14));
        assert!(packet(244).contains("label"), "{}", packet(244));
        let stream = |first| StreamError::WrongFormat { first }.to_string();
        assert!(stream(6).contains("hashicorp stream (message type 6, push/pull)"));
        assert!(stream(10).contains("this node has no key"), "{}", stream(10));
        assert!(stream(0x16).contains("TLS"), "{}", stream(0x16));
        assert!(stream(244).contains("label"), "{}", stream(244));
    }
}
