//! Keys, sealing and labels of a cluster: the outer layers of what memberlist sends.
//!
//! This crate knows bytes and keys, and neither sockets nor messages. Labels, packets, the keyring
//! file, and frames with [`FramePlace::First`] have the bytes of HashiCorp's Go memberlist. Frames with
//! another place do not: the place is part of what is proven. `memberlist` seals so all frames of a
//! stream but the first of the side that opened it.
//!
//! - [`SecretKey`], named by its [`Fingerprint`]; [`Keyring`]: the keys in use, changed at run time;
//!   [`KeyringFile`]: where they are kept.
//! - [`seal`] and [`open`]: packets. [`seal_frame`], [`FrameHeader`] and [`open_frame`]: streams.
//! - [`Label`] and [`LabelReader`]: which cluster a packet or stream belongs to.
//!
//! # Bytes
//!
//! ```text
//! packet   [f4 | len u8 | label]  message
//! stream   [f4 | len u8 | label]  0a | length u32 big-endian | message  ...
//! message  version u8 | nonce 12 | ciphertext | tag 16
//! ```
//!
//! The cipher is AES in Galois/counter mode; the length of the key selects AES-128, 192 or 256. The
//! label's header is there if a label is configured, and on streams only from the side that dialled.
//! Content of n bytes makes a message of n + 29 bytes in version 1; version 0 adds padding of 1 to
//! 16 bytes to a multiple of 16.
//!
//! # What is proven, and what is not
//!
//! A message that opens was sealed by somebody who has one of the keys, and its content is what was
//! sealed. Also proven is the associated data: the label of a packet; header, label and place of a
//! frame.
//!
//! - *Who of them* sealed it is not known: all members share the keys, and each can speak as any
//!   other.
//! - *When* is not known: a captured message opens again later, for as long as its key is installed.
//!   The protocol above must bear repetition.
//! - *The version byte* is not proven. That is harmless while version 0 is refused, as it should be.
//!   Where it is accepted, for Go peers of protocol version 1, whoever captured a version 1 message
//!   of whole blocks that happens to end like padding can cut that ending off.
//! - *Label and length* are not secret.
//!
//! # How long a key is good
//!
//! Nonces are 96 random bits, so a key is good for 2^32 messages of all members together.
//! [`KeyInfo::sealed`] counts those of this process; [`Sealed::nonce_warning`] tells once when they
//! reach [`NONCE_WARNING`]. Go on sealing after that, and renew the key: members that fall silent
//! would do more harm. Nonces come from generators in memory, so a process must not seal in two
//! copies: not on both sides of a `fork`, nor in a virtual machine that is resumed twice from one
//! snapshot.
//!
//! # Example
//!
//! ```
//! use memberlist_security::{HEAD, KeySize, Keyring, Label, SecretKey, Version, open, seal};
//!
//! let keyring = Keyring::new(SecretKey::generate(KeySize::Bits256)?);
//! let label = Label::new("dc1-prod")?;
//!
//! // Room for what comes first, then the content, which is sealed where it stands.
//! let start = label.header_len() + HEAD;
//! let mut packet = vec![0; start];
//! packet.extend_from_slice(b"ping");
//! let sealed = seal(&keyring, Version::V1, label.as_bytes(), &mut packet, start)?;
//! if let Some(fingerprint) = sealed.nonce_warning {
//!     eprintln!("key {fingerprint} has sealed 2^31 messages; rotate keys");
//! }
//! label.write_header(&mut packet);
//!
//! // On the other side.
//! let message = label.check_mut(&mut packet, false)?;
//! let content = open(&keyring, label.as_bytes(), message, false)?;
//! assert_eq!(content, b"ping");
//!
//! // A new key: installed everywhere, then activated everywhere, then the old one removed.
//! let old = keyring.primary();
//! let new = SecretKey::generate(KeySize::Bits256)?;
//! let name = new.fingerprint();
//! keyring.install(new)?;
//! keyring.activate(&name)?;
//! keyring.remove(&old)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "encryption")]
mod cipher;
#[cfg(feature = "encryption")]
mod file;
#[cfg(feature = "encryption")]
mod frame;
#[cfg(feature = "encryption")]
mod key;
#[cfg(feature = "encryption")]
mod keyring;
mod label;
#[cfg(feature = "encryption")]
mod nonce;
#[cfg(feature = "encryption")]
#[doc(hidden)]
pub mod testing;

#[cfg(feature = "encryption")]
pub use cipher::{
    HEAD, OpenError, SealError, Sealed, TAG, V0_MAX_OVERHEAD, V1_OVERHEAD, Version, open, seal,
};
#[cfg(feature = "encryption")]
pub use file::{KeyringFile, KeyringFileError};
#[cfg(feature = "encryption")]
pub use frame::{
    DEFAULT_MAX_FRAME_BYTES, FRAME_HEAD, FRAME_HEADER, FRAME_MAX_OVERHEAD, FRAME_TYPE, FrameError,
    FrameHeader, FramePlace, frame_nonce, open_frame, open_frame_at, seal_frame, seal_frame_at,
};
#[cfg(feature = "encryption")]
pub use key::{Fingerprint, FingerprintParseError, KeyError, KeySize, RandomnessError, SecretKey};
#[cfg(feature = "encryption")]
pub use keyring::{KeyInfo, Keyring, KeyringError, MAX_KEYS, NONCE_WARNING};
pub use label::{
    LABEL_TYPE, Label, LabelError, LabelReader, LabelStep, LabelTooLong, MAX_LABEL_BYTES,
    ReceivedLabel,
};
