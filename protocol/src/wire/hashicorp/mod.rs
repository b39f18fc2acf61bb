//! HashiCorp memberlist's bytes: MessagePack bodies, compounds, CRC and LZW.
//!
//! `docs/WIRE.md` lists what this library refuses that Go accepts. Layers of a packet from the outside:
//! CRC, compression, compound; compression and compounds nest. A stream has one message a direction,
//! which may be compressed as a whole.

pub mod body;
mod convert;
pub mod lzw;
mod msgpack;
mod packet;
pub(crate) mod stream;

pub use body::Body;
pub(crate) use convert::{decode_part, encode_part};
pub use msgpack::{ReadError, Reader};
pub(crate) use packet::{
    COMPOUND_BYTES, CRC_BYTES, Lzw, PART_BYTES, PartLengths, Unpacked, finish_packet, unpack,
};

/// The type byte of each message (Go `messageType`).
pub mod kind {
    /// "Are you there?"
    pub const PING: u8 = 0;
    /// "Please ping that node for me."
    pub const INDIRECT_PING: u8 = 1;
    /// The answer to a ping.
    pub const ACK: u8 = 2;
    /// "I could not reach that node."
    pub const SUSPECT: u8 = 3;
    /// "That node is here."
    pub const ALIVE: u8 = 4;
    /// "That node is gone."
    pub const DEAD: u8 = 5;
    /// A state, on streams.
    pub const PUSH_PULL: u8 = 6;
    /// Several messages in one packet.
    pub const COMPOUND: u8 = 7;
    /// Bytes of the application.
    pub const USER: u8 = 8;
    /// A compressed message.
    pub const COMPRESS: u8 = 9;
    /// A sealed frame, on streams.
    pub const ENCRYPT: u8 = 10;
    /// "I asked, and heard nothing."
    pub const NACK: u8 = 11;
    /// A checksum in front of a packet.
    pub const CRC: u8 = 12;
    /// A refusal, on streams.
    pub const ERROR: u8 = 13;
}

/// The version of the native format that is announced to peers in this one.
pub(crate) const NATIVE_VERSION: u8 = super::native::VERSION;
