//! Sealed frames on streams: `0a | length u32 big-endian | sealed message`.
//!
//! The length counts the sealed message. Header and label are its associated data, so a length that
//! was changed, or a frame of another cluster, is refused. On a stream a node writes its label's
//! header only where it dialled, but the label counts as associated data in both directions.

use crate::cipher::{HEAD, OpenError, SealError, Sealed, V0_MAX_OVERHEAD, Version};
use crate::cipher::{check_room, open_telling, seal_checked};
use crate::key::Fingerprint;
use crate::keyring::{Entry, Keyring};
use crate::label::{Label, MAX_LABEL_BYTES};
use crate::nonce::{NONCE, next_nonce};

/// The first byte of a sealed frame.
pub const FRAME_TYPE: u8 = 0x0A;
/// The header of a frame, type and length, in bytes.
pub const FRAME_HEADER: usize = 5;
/// The room that [`seal_frame`] needs before the content, in bytes.
pub const FRAME_HEAD: usize = FRAME_HEADER + HEAD;
/// By how many bytes a frame makes a content longer at most, whatever the version.
pub const FRAME_MAX_OVERHEAD: usize = FRAME_HEADER + V0_MAX_OVERHEAD;
/// The longest frame that is accepted by default, in bytes without its header: 20 MiB, Go's limit.
/// With a smaller one, states of large clusters are refused; a larger one lets a stranger make a
/// node hold more memory.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 20 * 1024 * 1024;

/// Why a frame was not opened. Blame: the peer, or keys and labels that differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The stream does not begin with a sealed frame.
    #[error("the peer does not encrypt: the stream begins with {first:#04x}")]
    NotEncrypted {
        /// The byte in place of [`FRAME_TYPE`].
        first: u8,
    },
    /// The frame is longer than is accepted here.
    #[error("a frame of {len} bytes is over the limit of {limit} (`max_frame_bytes`)")]
    TooLarge {
        /// Its length in bytes, as it was announced.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The message is not as long as its header says.
    #[error("a frame of {announced} bytes was announced, and {len} are there")]
    WrongLength {
        /// The length in the header, in bytes.
        announced: usize,
        /// The length of what is there, in bytes.
        len: usize,
    },
    /// The sealed message was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// The header of a frame: how long the sealed message behind it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    len: u32,
}

impl FrameHeader {
    /// Reads the header from the beginning of what has arrived; nothing if more is needed. A first
    /// byte that is not a frame's is judged by itself, and the length before any of the message is
    /// there, so that no memory need be reserved for what is refused.
    ///
    /// # Errors
    /// [`FrameError::NotEncrypted`] or [`FrameError::TooLarge`].
    pub fn parse(arrived: &[u8], max_frame_bytes: usize) -> Result<Option<Self>, FrameError> {
        match arrived.first() {
            Some(&first) if first != FRAME_TYPE => return Err(FrameError::NotEncrypted { first }),
            _ => {}
        }
        let Some(&[_, a, b, c, d]) = arrived.first_chunk::<FRAME_HEADER>() else {
            return Ok(None);
        };
        let header = Self { len: u32::from_be_bytes([a, b, c, d]) };
        match header.message_len() {
            len if len > max_frame_bytes => {
                Err(FrameError::TooLarge { len, limit: max_frame_bytes })
            }
            _ => Ok(Some(header)),
        }
    }

    /// The header of a message of this length; nothing if the length does not fit it.
    fn of(len: usize) -> Option<Self> {
        u32::try_from(len).ok().map(|len| Self { len })
    }

    /// How many bytes follow the header.
    pub fn message_len(self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// The header as it is sent.
    pub fn to_bytes(self) -> [u8; FRAME_HEADER] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [FRAME_TYPE, a, b, c, d]
    }
}

/// Where a frame belongs, so that it opens nowhere else: not on another stream, and not in the other
/// direction. A stream is named by the nonce of its first frame, which is random and of the side that
/// opened it: what that side hears is of now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FramePlace {
    /// The first frame of a stream; and all of them, where Go memberlist's bytes are wanted.
    #[default]
    First,
    /// A later frame from the side that opened the stream of this name.
    Question([u8; NONCE]),
    /// A frame from the other side. The name is zeros if the question was not sealed.
    Answer([u8; NONCE]),
}

impl FramePlace {
    /// No label has this byte, so what follows cannot be taken for one.
    const MARK: u8 = 0xFF;
    const MAX_BYTES: usize = 2 + NONCE;

    fn write(self, out: &mut [u8; Self::MAX_BYTES]) -> usize {
        let (kind, name) = match self {
            Self::First => return 0,
            Self::Question(name) => (1, name),
            Self::Answer(name) => (2, name),
        };
        (out[0], out[1]) = (Self::MARK, kind);
        out[2..].copy_from_slice(&name);
        Self::MAX_BYTES
    }
}

/// The nonce of a frame: as much of it as its beginning must be there.
pub fn frame_nonce(frame: &[u8]) -> Option<[u8; NONCE]> {
    frame.get(FRAME_HEADER + 1..FRAME_HEAD)?.try_into().ok()
}

/// The associated data of a frame, put together without an allocation.
struct FrameAad {
    bytes: [u8; FRAME_HEADER + MAX_LABEL_BYTES + FramePlace::MAX_BYTES],
    len: usize,
}

impl FrameAad {
    fn new(header: FrameHeader, label: &Label, place: FramePlace) -> Self {
        let label = label.as_bytes();
        let len = FRAME_HEADER + label.len();
        let mut bytes = [0; FRAME_HEADER + MAX_LABEL_BYTES + FramePlace::MAX_BYTES];
        bytes[..FRAME_HEADER].copy_from_slice(&header.to_bytes());
        bytes[FRAME_HEADER..len].copy_from_slice(label);
        let mut mark = [0; FramePlace::MAX_BYTES];
        let marked = place.write(&mut mark);
        bytes[len..len + marked].copy_from_slice(&mark[..marked]);
        Self { bytes, len: len + marked }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Seals what stands in `buffer` from `start` on as a frame, in place: with the key `with`, so that
/// whoever asked with it can read the answer, or with the primary if that is not given or no longer
/// installed.
///
/// The [`FRAME_HEAD`] bytes before `start` are overwritten; padding and tag are appended. What the
/// receiver accepts at most is for the caller to keep to.
///
/// # Errors
/// [`SealError::NoRoom`] if fewer than [`FRAME_HEAD`] bytes stand before `start`, or `start` is
/// behind the buffer's end; [`SealError::TooLarge`] from 4 GiB on; [`SealError::Randomness`] if the
/// system gives none.
pub fn seal_frame(
    keyring: &Keyring,
    with: Option<&Fingerprint>,
    version: Version,
    label: &Label,
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Sealed, SealError> {
    seal_frame_at(keyring, with, version, label, FramePlace::First, buffer, start)
}

/// As [`seal_frame`], for this place.
///
/// # Errors
/// As those of [`seal_frame`].
pub fn seal_frame_at(
    keyring: &Keyring,
    with: Option<&Fingerprint>,
    version: Version,
    label: &Label,
    place: FramePlace,
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Sealed, SealError> {
    check_room(buffer, start, FRAME_HEAD)?;
    let ring = keyring.snapshot();
    let entry = with.and_then(|with| ring.find(with)).unwrap_or(ring.primary());
    seal_frame_checked(entry, version, &next_nonce()?, label, place, buffer, start)
}

/// The room was checked before.
pub(crate) fn seal_frame_checked(
    entry: &Entry,
    version: Version,
    nonce: &[u8; NONCE],
    label: &Label,
    place: FramePlace,
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Sealed, SealError> {
    let len = buffer.len() - start;
    let sealed_len = len.saturating_add(version.overhead(len));
    let header = FrameHeader::of(sealed_len).ok_or(SealError::TooLarge { len })?;
    let aad = FrameAad::new(header, label, place);
    let sealed = seal_checked(entry, version, nonce, aad.as_bytes(), buffer, start)?;
    let begin = sealed.begin - FRAME_HEADER;
    buffer[begin..sealed.begin].copy_from_slice(&header.to_bytes());
    Ok(Sealed { begin, ..sealed })
}

/// Opens the sealed message of a frame in place and gives the part of it that is the content, which
/// may be empty, and the key that opened it. `message` is what follows the header, all of it; for
/// `accept_v0` see [`open`](crate::open).
///
/// # Errors
/// [`FrameError::WrongLength`] if `message` is not as long as the header says, [`FrameError::Open`]
/// if it cannot be opened. Whatever the error, `message` is as it was.
pub fn open_frame<'m>(
    keyring: &Keyring,
    label: &Label,
    header: FrameHeader,
    message: &'m mut [u8],
    accept_v0: bool,
) -> Result<(&'m mut [u8], Fingerprint), FrameError> {
    open_frame_at(keyring, label, FramePlace::First, header, message, accept_v0)
}

/// As [`open_frame`], for this place.
///
/// # Errors
/// As those of [`open_frame`]; a frame of another place is not opened.
pub fn open_frame_at<'m>(
    keyring: &Keyring,
    label: &Label,
    place: FramePlace,
    header: FrameHeader,
    message: &'m mut [u8],
    accept_v0: bool,
) -> Result<(&'m mut [u8], Fingerprint), FrameError> {
    let (announced, len) = (header.message_len(), message.len());
    if announced != len {
        return Err(FrameError::WrongLength { announced, len });
    }
    let aad = FrameAad::new(header, label, place);
    Ok(open_telling(keyring, aad.as_bytes(), message, accept_v0)?)
}

#[cfg(test)]
mod tests;
