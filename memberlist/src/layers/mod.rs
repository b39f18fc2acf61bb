//! The outer layers of what travels: label, then encryption (`docs/WIRE.md`).
//!
//! Packets are wrapped and unwrapped in place; streams by a [`StreamReader`] and a [`StreamWriter`],
//! one a direction. The layers under them (checksum, compression) belong to the wire format. A label
//! or a key that does not fit is a [`LayerError`], counted by its reason, never a bare end of a
//! stream.

#[cfg(not(feature = "encryption"))]
#[path = "unsealed.rs"]
mod sealing;
#[cfg(feature = "encryption")]
mod sealing;
mod stream;
#[cfg(all(test, feature = "encryption"))]
mod tests;

use std::net::SocketAddr;
use std::sync::Mutex;

use memberlist_protocol::DropReason;
use memberlist_protocol::wire::{Room, WireFormat};
use memberlist_security::{Label, LabelError};
use tracing::warn;

#[cfg(all(test, feature = "encryption"))]
pub(crate) use sealing::KEY_LINES;
#[cfg(feature = "encryption")]
pub(crate) use sealing::{Changes, Keys, Rotating};
pub(crate) use sealing::{KeyName, Sealing, StreamKeys};
use sealing::{Place, StreamName, name_of};
pub(crate) use stream::{StreamReader, StreamWriter};

use crate::config::InboundLabel;
use crate::limit::RateLimit;

/// Why a packet or stream was not accepted, or not made, by the label or encryption layer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Its label is not this node's.
    #[error("{0}; all nodes of a cluster need the same label")]
    Label(#[from] LabelError),
    /// It is encrypted, and no key of this node opens it.
    #[error(
        "no key of this node opens it: the sender has another key or label, or it was changed on its \
         way; compare the keyrings (`keys list`) and labels"
    )]
    WrongKey,
    /// It is encrypted, and this node has no keys.
    #[error("it is encrypted, and this node has no keys; give it the cluster's keyring")]
    NoKey,
    /// It is not encrypted, and this node accepts nothing else.
    #[error(
        "it is not encrypted, and this node accepts nothing else; give the sender the cluster's \
         keyring, or switch `verify_incoming` off here during a roll-out"
    )]
    PlaintextRefused,
    /// Its encryption version is not accepted.
    #[error("its encryption version {0} is not accepted here")]
    Version(u8),
    /// It is encrypted, but not as any node would write it.
    #[error("it is encrypted, but malformed: {0}")]
    Malformed(String),
    /// It could not be sealed.
    #[error("could not encrypt: {0}")]
    Unsealed(String),
}

impl LayerError {
    /// The counter that this goes to.
    pub fn reason(&self) -> DropReason {
        match self {
            Self::Label(LabelError::Missing { .. }) => DropReason::LabelMissing,
            Self::Label(LabelError::Unexpected { .. }) => DropReason::LabelUnexpected,
            Self::Label(LabelError::Mismatch { .. }) => DropReason::LabelMismatch,
            Self::Label(_) => DropReason::LabelMalformed,
            Self::WrongKey => DropReason::WrongKey,
            Self::NoKey => DropReason::NoKey,
            Self::PlaintextRefused => DropReason::PlaintextRefused,
            Self::Version(_) => DropReason::EncryptionVersion,
            Self::Malformed(_) => DropReason::Malformed,
            Self::Unsealed(_) => DropReason::TooLargeToSend,
        }
    }
}

/// The layers of one node.
pub(crate) struct Layers {
    format: WireFormat,
    label: Label,
    /// The label, or none while what is sent carries none.
    outgoing: Label,
    inbound: InboundLabel,
    pub(crate) sealing: Sealing,
    warnings: Mutex<Warnings>,
}

/// One line of each kind now and then.
#[derive(Default)]
struct Warnings {
    label: RateLimit,
    key: RateLimit,
    plaintext: RateLimit,
    other: RateLimit,
}

/// How packets are wrapped for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wrapping {
    /// Bytes in front of the content.
    pub(crate) head: usize,
    /// Bytes behind it.
    pub(crate) tail: usize,
    /// Whether it is sealed.
    pub(crate) sealed: bool,
}

/// The bytes to keep free in a packet for each layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reserved {
    pub(crate) label: usize,
    pub(crate) sealing: usize,
}

impl Wrapping {
    pub(crate) fn room(self, max_packet_bytes: usize) -> Room {
        Room { head: self.head, tail: self.tail, max_packet_bytes }
    }
}

/// Whether a packet of which nothing else is known is sealed. In Go's format pings begin with the same bytes;
/// what follows tells: a MessagePack map, array or nil there, a random byte here.
fn is_sealed(format: WireFormat, packet: &[u8]) -> bool {
    match packet {
        [0 | 1, ..] if format == WireFormat::Native => true,
        [0 | 1, second, ..] => !matches!(second, 0x80..=0x9F | 0xC0 | 0xDC..=0xDF),
        _ => false,
    }
}

impl Layers {
    pub(crate) fn new(
        format: WireFormat,
        label: Label,
        label_outgoing: bool,
        inbound: InboundLabel,
        sealing: Sealing,
    ) -> Self {
        let outgoing = if label_outgoing { label.clone() } else { Label::default() };
        Self { format, label, outgoing, inbound, sealing, warnings: Mutex::default() }
    }

    /// How packets are to be wrapped now. It changes when encryption is switched on or off.
    pub(crate) fn wrapping(&self) -> Wrapping {
        let sealed = self.sealing.seals_outgoing();
        let (head, tail) = if sealed { self.sealing.packet_room() } else { (0, 0) };
        Wrapping { head: self.outgoing.header_len() + head, tail, sealed }
    }

    /// What label and encryption add to a packet at most, in bytes, whatever is switched on or off while
    /// the node runs or by its next step of a roll-out.
    pub(crate) fn reserved(&self) -> Reserved {
        let (head, tail) =
            if self.sealing.has_keys() { self.sealing.packet_room() } else { (0, 0) };
        Reserved { label: self.label.header_len(), sealing: head + tail }
    }

    /// Wraps a packet in place: its content begins behind the wrapping's head.
    pub(crate) fn wrap(&self, packet: &mut Vec<u8>, how: Wrapping) -> Result<(), LayerError> {
        if how.sealed {
            self.sealing.seal_packet(&self.outgoing, packet, how.head)?;
        }
        self.outgoing.write_header(packet);
        Ok(())
    }

    /// Unwraps a packet in place, and gives its content.
    pub(crate) fn unwrap<'p>(&self, packet: &'p mut [u8]) -> Result<&'p [u8], LayerError> {
        let (received, _) = Label::split(packet)?;
        let label = self.expected(received);
        let stripped = self.inbound == InboundLabel::Stripped;
        let packet = label.check_mut(packet, stripped)?;
        self.sealing.open_packet(self.format, label, packet)
    }

    /// The label that something must have been sent under that came with this one.
    fn expected(&self, received: &[u8]) -> &Label {
        static NONE: Label = Label::none();
        match self.inbound {
            InboundLabel::Optional if received.is_empty() => &NONE,
            _ => &self.label,
        }
    }

    /// Writes a log line about what a peer sent, unless there was one of its kind just now.
    pub(crate) fn warn(&self, from: SocketAddr, what: &str, error: &LayerError) {
        let mut warnings = self.warnings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let limit = match error {
            LayerError::Label(_) => &mut warnings.label,
            LayerError::WrongKey | LayerError::NoKey => &mut warnings.key,
            LayerError::PlaintextRefused => &mut warnings.plaintext,
            _ => &mut warnings.other,
        };
        if let Some(more) = limit.allow() {
            warn!(%from, more, "{what} refused: {error}");
        }
    }
}
