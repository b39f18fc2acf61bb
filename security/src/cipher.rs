//! Sealing and opening, in place: `version u8 | nonce 12 | ciphertext | tag 16`.
//!
//! AES in Galois/counter mode, the same bytes as Go memberlist's. The associated data (a packet's
//! label, a frame's header and label) is proven to be the same on both sides and not sent.
//!
//! Version 1 seals the content as it is. Version 0 pads it to a multiple of 16 first (PKCS#7: 1 to
//! 16 bytes, each saying how many). **The version byte is proven by nothing**, a flaw of the format:
//! whoever captured a version 1 message can present it as version 0, the proof holds, and the last
//! bytes of the content are taken for padding. In Go this cuts the content short or ends the process.
//! Departures: version 0 is opened only if the caller allows it, and padding must be complete and
//! uniform and fill whole blocks, or the message is refused.
//!
//! Invariant: opening that fails leaves the buffer as it was.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aes::Aes192;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, KeyInit, Nonce, Tag};

use crate::key::{Fingerprint, KeySize, RandomnessError, SecretKey};
use crate::keyring::{Entry, Keyring};
use crate::nonce::{NONCE, next_nonce};

/// What stands before the ciphertext: version and nonce, in bytes.
pub const HEAD: usize = 1 + NONCE;
/// The proof behind the ciphertext, in bytes.
pub const TAG: usize = 16;
/// By how many bytes version 1 makes a message longer.
pub const V1_OVERHEAD: usize = HEAD + TAG;
/// By how many bytes version 0 makes a message longer at most; the least is 30.
pub const V0_MAX_OVERHEAD: usize = V1_OVERHEAD + BLOCK;

/// What version 0 fills up, in bytes.
const BLOCK: usize = 16;

/// In which form a message is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Version {
    /// With padding. Only for Go peers of protocol version 1, which know no other; see the crate's
    /// documentation for what it gives up.
    V0,
    /// Without padding.
    #[default]
    V1,
}

impl Version {
    /// By how many bytes a content of `len` bytes grows.
    pub const fn overhead(self, len: usize) -> usize {
        V1_OVERHEAD + self.padding(len)
    }

    /// By how many bytes a content grows at most, whatever its length.
    pub const fn max_overhead(self) -> usize {
        match self {
            Self::V0 => V0_MAX_OVERHEAD,
            Self::V1 => V1_OVERHEAD,
        }
    }

    const fn padding(self, len: usize) -> usize {
        match self {
            Self::V0 => BLOCK - len % BLOCK,
            Self::V1 => 0,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }
}

/// A message that was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[must_use = "it says where the message begins, and when a key is worn"]
pub struct Sealed {
    /// Where the sealed message begins in the buffer; it goes up to the buffer's end.
    pub begin: usize,
    /// The key that has now sealed [`NONCE_WARNING`](crate::NONCE_WARNING) messages in this process:
    /// it is time for a new one. Given once a key, with the message that reaches the number.
    pub nonce_warning: Option<Fingerprint>,
}

/// Why a message was not sealed. The buffer is as it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The content does not lie in the buffer, or has too little room before it. Blame: the caller.
    #[error("content at {start} of a buffer of {len} bytes; {head} bytes before it are needed")]
    NoRoom {
        /// Where the content was said to begin.
        start: usize,
        /// The length of the buffer in bytes.
        len: usize,
        /// What is needed before the content, in bytes.
        head: usize,
    },
    /// More than the format can hold. Blame: the caller.
    #[error("{len} bytes are too many for one sealed message")]
    TooLarge {
        /// The length of the content in bytes.
        len: usize,
    },
    /// There is nothing to make a nonce of.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
}

/// Why a message was not opened. Blame: the peer, or keys and labels that differ. The buffer is as
/// it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No sealed message is that short.
    #[error("{len} bytes are no sealed message, which has at least {least}")]
    TooShort {
        /// Its length in bytes.
        len: usize,
        /// The least that its version has, in bytes.
        least: usize,
    },
    /// The first byte is no known version: another format, or not encrypted.
    #[error("unknown encryption version {0}; the peer may not encrypt")]
    UnknownVersion(u8),
    /// A message of version 0, which is not accepted here.
    #[error("encryption version 0 is not accepted here")]
    Version0Refused,
    /// No installed key proves the message: another key, another label, or bytes that were changed.
    #[error("no installed key opens the message: another key or label, or changed bytes")]
    NoKeyFits,
    /// A version 0 message with proof, but without padding: sealed by a peer that does not follow
    /// the format, or a version 1 message that a third party has relabelled. Peers should be told no
    /// more than for [`NoKeyFits`](Self::NoKeyFits), since the difference says something about the
    /// content.
    #[error("the padding of a version 0 message is wrong")]
    BadPadding,
}

/// A key made ready for use.
pub(crate) enum Cipher {
    Aes128(Aes128Gcm),
    Aes192(AesGcm<Aes192, U12>),
    Aes256(Aes256Gcm),
}

/// The same expression for each of the three types.
macro_rules! with_cipher {
    ($cipher:expr, $inner:ident => $body:expr) => {
        match $cipher {
            Cipher::Aes128($inner) => $body,
            Cipher::Aes192($inner) => $body,
            Cipher::Aes256($inner) => $body,
        }
    };
}

impl Cipher {
    pub(crate) fn new(key: &SecretKey) -> Self {
        const LENGTH: &str = "a key has the length that its size says";
        let bytes = key.expose_bytes();
        match key.size() {
            KeySize::Bits128 => Self::Aes128(Aes128Gcm::new_from_slice(bytes).expect(LENGTH)),
            KeySize::Bits192 => Self::Aes192(AesGcm::new_from_slice(bytes).expect(LENGTH)),
            KeySize::Bits256 => Self::Aes256(Aes256Gcm::new_from_slice(bytes).expect(LENGTH)),
        }
    }

    /// Nothing if the content is longer than the mode allows.
    fn encrypt(&self, nonce: &[u8; NONCE], aad: &[u8], content: &mut [u8]) -> Option<[u8; TAG]> {
        let nonce = Nonce::<U12>::from(*nonce);
        let tag = with_cipher!(self, cipher => {
            cipher.encrypt_inout_detached(&nonce, aad, content.into())
        });
        tag.ok().map(Into::into)
    }

    /// False, and nothing changed, if the tag does not prove the content: it is checked first.
    fn decrypt(
        &self,
        nonce: &[u8; NONCE],
        aad: &[u8],
        content: &mut [u8],
        tag: &[u8; TAG],
    ) -> bool {
        let (nonce, tag) = (Nonce::<U12>::from(*nonce), Tag::from(*tag));
        let opened = with_cipher!(self, cipher => {
            cipher.decrypt_inout_detached(&nonce, aad, content.into(), &tag)
        });
        opened.is_ok()
    }
}

/// Seals what stands in `buffer` from `start` on, with the primary key, in place.
///
/// The [`HEAD`] bytes before `start` are overwritten; padding and tag are appended. Room for them
/// that is already there is used, so a buffer that is reused grows only once. `aad` is the label's
/// bytes for a packet; for frames see [`seal_frame`](crate::seal_frame).
///
/// # Errors
/// [`SealError::NoRoom`] if fewer than [`HEAD`] bytes stand before `start`, or `start` is behind the
/// buffer's end; [`SealError::Randomness`] if the system gives none.
pub fn seal(
    keyring: &Keyring,
    version: Version,
    aad: &[u8],
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Sealed, SealError> {
    check_room(buffer, start, HEAD)?;
    let ring = keyring.snapshot();
    seal_checked(ring.primary(), version, &next_nonce()?, aad, buffer, start)
}

pub(crate) fn check_room(buffer: &[u8], start: usize, head: usize) -> Result<(), SealError> {
    if start < head || start > buffer.len() {
        return Err(SealError::NoRoom { start, len: buffer.len(), head });
    }
    Ok(())
}

/// The room was checked before.
pub(crate) fn seal_checked(
    entry: &Entry,
    version: Version,
    nonce: &[u8; NONCE],
    aad: &[u8],
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Sealed, SealError> {
    let len = buffer.len() - start;
    let padding = version.padding(len);
    buffer.reserve(padding + TAG);
    // At most 16, so the number fits the byte that repeats it.
    buffer.resize(buffer.len() + padding, padding as u8);
    let Some(tag) = entry.cipher.encrypt(nonce, aad, &mut buffer[start..]) else {
        buffer.truncate(start + len);
        return Err(SealError::TooLarge { len });
    };
    buffer.extend_from_slice(&tag);
    let begin = start - HEAD;
    buffer[begin] = version.byte();
    buffer[begin + 1..start].copy_from_slice(nonce);
    Ok(Sealed { begin, nonce_warning: entry.count_sealed() })
}

/// Opens a sealed message in place and gives the part of it that is the content, which may be empty.
///
/// All keys are tried, the primary first. `aad` must be what it was when the message was sealed: the
/// label's bytes for a packet; for frames see [`open_frame`](crate::open_frame). Version 0 is opened
/// only if `accept_v0`; leave it false unless Go peers of protocol version 1 are about, since with it
/// a third party can cut captured messages short (see the crate's documentation).
///
/// # Errors
/// See [`OpenError`]. Whatever the error, `message` is as it was: it can be tried again with other
/// keys, or read as a message that is not encrypted.
pub fn open<'m>(
    keyring: &Keyring,
    aad: &[u8],
    message: &'m mut [u8],
    accept_v0: bool,
) -> Result<&'m mut [u8], OpenError> {
    open_telling(keyring, aad, message, accept_v0).map(|(content, _)| content)
}

/// As [`open`], and tells which key it was.
pub(crate) fn open_telling<'m>(
    keyring: &Keyring,
    aad: &[u8],
    message: &'m mut [u8],
    accept_v0: bool,
) -> Result<(&'m mut [u8], Fingerprint), OpenError> {
    let version = version_of(message, accept_v0)?;
    let (content, tag) = message.split_at_mut(message.len() - TAG);
    let (head, content) = content.split_at_mut(HEAD);
    let (mut nonce, mut proof) = ([0; NONCE], [0; TAG]);
    nonce.copy_from_slice(&head[1..]);
    proof.copy_from_slice(tag);

    let ring = keyring.snapshot();
    let mut entries = ring.entries();
    let entry = entries.find(|entry| entry.cipher.decrypt(&nonce, aad, content, &proof));
    let entry = entry.ok_or(OpenError::NoKeyFits)?;
    let len = match version {
        Version::V1 => content.len(),
        Version::V0 => match unpadded_len(content) {
            Some(len) => len,
            None => {
                // Encrypting again with the same nonce gives the very bytes that came.
                entry.cipher.encrypt(&nonce, aad, content);
                return Err(OpenError::BadPadding);
            }
        },
    };
    entry.count_opened();
    Ok((&mut content[..len], entry.fingerprint()))
}

/// The version of a message that is long enough for it.
fn version_of(message: &[u8], accept_v0: bool) -> Result<Version, OpenError> {
    let (version, least) = match message.first() {
        None => return Err(OpenError::TooShort { len: 0, least: V1_OVERHEAD }),
        Some(0) if !accept_v0 => return Err(OpenError::Version0Refused),
        Some(0) => (Version::V0, V0_MAX_OVERHEAD),
        Some(1) => (Version::V1, V1_OVERHEAD),
        Some(&other) => return Err(OpenError::UnknownVersion(other)),
    };
    match message.len() {
        len if len < least => Err(OpenError::TooShort { len, least }),
        _ => Ok(version),
    }
}

/// The length of a content without its padding; nothing if it is not padded as it must be.
fn unpadded_len(content: &[u8]) -> Option<usize> {
    let padding = usize::from(*content.last()?);
    let len = content.len().checked_sub(padding)?;
    let whole_blocks = content.len() % BLOCK == 0;
    let uniform = content[len..].iter().all(|&byte| usize::from(byte) == padding);
    (whole_blocks && (1..=BLOCK).contains(&padding) && uniform).then_some(len)
}

#[cfg(test)]
mod tests;
