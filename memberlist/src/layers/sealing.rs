//! Encryption with the cluster's keys, as this node is set to use it.
//!
//! Two switches, so that a running cluster can be brought from plain to encrypted and back without a
//! stop: first all nodes get keys, with both switches off; then all encrypt what they send; then all
//! refuse what is not encrypted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use memberlist_protocol::wire::hashicorp::kind::CRC;
use memberlist_protocol::wire::{Dialect, WireFormat};
use memberlist_security::{
    DEFAULT_MAX_FRAME_BYTES, FRAME_HEAD, FRAME_HEADER, FRAME_TYPE, Fingerprint, FrameError,
    FrameHeader, FramePlace, HEAD, KeyInfo, Keyring, Label, OpenError, SealError, Sealed,
    SecretKey, TAG, V0_MAX_OVERHEAD, Version, frame_nonce,
};
use tracing::warn;

use super::{LayerError, is_sealed};
use crate::config::Encryption;
use crate::limit::SharedLimit;
use crate::meter::KeyCounts;

pub(crate) type KeyName = Fingerprint;
/// The keys that there were when a stream was begun. It may be ended with them, so that a message
/// which the peer has taken is confirmed though its key was removed meanwhile.
pub(crate) type StreamKeys = Option<Keyring>;
pub(crate) type Place = FramePlace;
/// The name of a stream: the nonce of its first frame; zeros if it is not sealed.
pub(crate) type StreamName = [u8; 12];

/// The name of a stream that begins with this frame.
pub(crate) fn name_of(first_frame: &[u8]) -> StreamName {
    frame_nonce(first_frame).unwrap_or_default()
}

/// The first byte of a sealed packet is its version, 0 or 1. In Go's format pings begin so as well.
const HIGHEST_VERSION: u8 = 1;

/// The keys, if this node has any, and how they are used.
#[derive(Default)]
pub(crate) struct Sealing(Option<Keys>);

pub(crate) struct Keys {
    pub(crate) keyring: Keyring,
    /// What is sent is sealed so.
    version: Version,
    pub(crate) encrypt_outgoing: AtomicBool,
    pub(crate) verify_incoming: AtomicBool,
    pub(crate) accept_v0: bool,
    pub(crate) file: Option<PathBuf>,
    /// Keys that have been sent about the cluster, under those before them.
    pub(crate) travelled: Mutex<BTreeSet<Fingerprint>>,
    /// Held while the file is written.
    pub(crate) saving: Arc<tokio::sync::Mutex<()>>,
    /// Held while the keyring is changed.
    pub(crate) changes: Arc<Mutex<Changes>>,
    /// A rotation from here that has not come to its end.
    pub(crate) rotating: Mutex<Option<Rotating>>,
    pub(crate) lines: KeyLines,
}

/// Lines about keys of each kind in a spacing: members provoke them. A rotation takes a few.
pub(crate) const KEY_LINES: u64 = 30;

/// When they were written.
pub(crate) struct KeyLines {
    /// That a member has changed the keys.
    pub(crate) changed: SharedLimit,
    /// That a member was given the primary, or could not be.
    pub(crate) given: SharedLimit,
    /// That the file was not written.
    pub(crate) unsaved: SharedLimit,
}

impl Default for KeyLines {
    fn default() -> Self {
        let [changed, given, unsaved] = [(); 3].map(|()| SharedLimit::of(KEY_LINES));
        Self { changed, given, unsaved }
    }
}

/// How often the keyring was changed, and up to which change the file has it.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) made: u64,
    pub(crate) saved: u64,
}

/// To which key, and what was the primary when it was begun.
pub(crate) struct Rotating {
    pub(crate) key: SecretKey,
    pub(crate) primary: Fingerprint,
}

impl Sealing {
    /// What sealing a frame needs before its content.
    pub(crate) const FRAME_ROOM: usize = FRAME_HEAD;

    pub(crate) fn new(encryption: Option<&Encryption>, version: Version) -> Self {
        Self(encryption.map(|encryption| Keys {
            keyring: encryption.keyring.clone(),
            version,
            encrypt_outgoing: AtomicBool::new(encryption.encrypt_outgoing),
            verify_incoming: AtomicBool::new(encryption.verify_incoming),
            accept_v0: encryption.accept_v0,
            file: encryption.keyring_file.as_deref().map(fixed),
            travelled: Mutex::default(),
            saving: Arc::default(),
            changes: Arc::default(),
            rotating: Mutex::default(),
            lines: KeyLines::default(),
        }))
    }

    /// What sealing a packet needs before and behind its content.
    pub(crate) fn packet_room(&self) -> (usize, usize) {
        match self.0.as_ref().map(|keys| keys.version) {
            Some(Version::V0) => (HEAD, V0_MAX_OVERHEAD - HEAD),
            _ => (HEAD, TAG),
        }
    }

    pub(crate) fn keys(&self) -> Option<&Keys> {
        self.0.as_ref()
    }

    /// How often each key was used, for metrics.
    pub(crate) fn key_counts(&self) -> Vec<KeyCounts> {
        let list = self.0.as_ref().map(|keys| keys.keyring.list()).unwrap_or_default();
        let counts = |key: KeyInfo| KeyCounts {
            fingerprint: key.fingerprint.to_string(),
            sealed: key.sealed,
            opened: key.opened,
        };
        list.into_iter().map(counts).collect()
    }

    pub(crate) fn has_keys(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn seals_outgoing(&self) -> bool {
        self.0.as_ref().is_some_and(|keys| keys.encrypt_outgoing.load(Ordering::Relaxed))
    }

    pub(crate) fn seal_packet(
        &self,
        label: &Label,
        packet: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), LayerError> {
        let Some(keys) = &self.0 else { return Ok(()) };
        let seal = memberlist_security::seal;
        tell(seal(&keys.keyring, keys.version, label.as_bytes(), packet, start))
    }

    pub(crate) fn open_packet<'p>(
        &self,
        format: WireFormat,
        label: &Label,
        packet: &'p mut [u8],
    ) -> Result<&'p [u8], LayerError> {
        let Some(keys) = &self.0 else {
            return if is_sealed(format, packet) { Err(LayerError::NoKey) } else { Ok(packet) };
        };
        let may_be_ping = format != WireFormat::Native
            && packet.first().is_some_and(|first| *first <= HIGHEST_VERSION);
        if packet.is_empty() || Self::is_plain(format, packet[0]) {
            return keys.allow_plain().map(|()| &*packet);
        }
        let open = memberlist_security::open;
        // What is not opened is as it was.
        match open(&keys.keyring, label.as_bytes(), packet, keys.accept_v0)
            .map(|content| content.len())
        {
            Ok(len) => Ok(&packet[HEAD..HEAD + len]),
            // Then it is taken for a ping, as Go does, if those are accepted in the clear.
            Err(_) if may_be_ping && keys.allow_plain().is_ok() => Ok(packet),
            Err(error) => Err(unopened(error)),
        }
    }

    /// Whether what begins so is in the clear beyond doubt.
    fn is_plain(format: WireFormat, first: u8) -> bool {
        let native = Dialect::of(first) == Some(Dialect::Native);
        native || format != WireFormat::Native && (HIGHEST_VERSION + 1..=CRC).contains(&first)
    }

    pub(crate) fn begin_stream(&self) -> StreamKeys {
        self.0.as_ref().map(|keys| keys.keyring.frozen())
    }

    pub(crate) fn seal_frame(
        &self,
        begun: &StreamKeys,
        with: Option<KeyName>,
        label: &Label,
        place: Place,
        buffer: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), LayerError> {
        let Some(keys) = &self.0 else { return Ok(()) };
        let begun = begun.as_ref().filter(|_| with.is_some_and(|key| !keys.keyring.contains(&key)));
        let keyring = begun.unwrap_or(&keys.keyring);
        let (seal, with) = (memberlist_security::seal_frame_at, with.as_ref());
        tell(seal(keyring, with, keys.version, label, place, buffer, start))
    }

    /// Whether a stream that begins with this byte is sealed.
    pub(crate) fn is_sealed(&self, first: u8) -> Result<bool, LayerError> {
        match (&self.0, first == FRAME_TYPE) {
            (None, true) => Err(LayerError::NoKey),
            (None, false) => Ok(false),
            (Some(_), sealed) => Ok(sealed),
        }
    }

    /// Whether what is not sealed is accepted now.
    pub(crate) fn allow_plain(&self) -> Result<(), LayerError> {
        self.0.as_ref().map_or(Ok(()), Keys::allow_plain)
    }

    /// How long the frame at the beginning of these bytes is, if that is known.
    pub(crate) fn frame_len(&self, arrived: &[u8]) -> Result<Option<usize>, LayerError> {
        let header = FrameHeader::parse(arrived, DEFAULT_MAX_FRAME_BYTES).map_err(bad_frame)?;
        Ok(header.map(|header| FRAME_HEADER + header.message_len()))
    }

    /// Opens one whole frame; tells which key it was.
    pub(crate) fn open_frame<'f>(
        &self,
        begun: &StreamKeys,
        label: &Label,
        place: Place,
        frame: &'f mut [u8],
    ) -> Result<(&'f [u8], KeyName), LayerError> {
        let keys = self.0.as_ref().ok_or(LayerError::NoKey)?;
        let header = FrameHeader::parse(frame, DEFAULT_MAX_FRAME_BYTES).map_err(bad_frame)?;
        let header =
            header.ok_or_else(|| LayerError::Malformed("a frame is cut off".to_owned()))?;
        let mut open = |keyring: &Keyring| {
            let message = &mut frame[FRAME_HEADER..];
            let open = memberlist_security::open_frame_at;
            let opened = open(keyring, label, place, header, message, keys.accept_v0);
            opened.map(|(content, key)| (content.len(), key))
        };
        // A message that is not opened is as it was.
        let opened = match (open(&keys.keyring), begun) {
            (Err(FrameError::Open(OpenError::NoKeyFits)), Some(begun)) => open(begun),
            (opened, _) => opened,
        };
        let (len, key) = opened.map_err(bad_frame)?;
        Ok((&frame[FRAME_HEAD..FRAME_HEAD + len], key))
    }
}

impl Keys {
    fn allow_plain(&self) -> Result<(), LayerError> {
        match self.verify_incoming.load(Ordering::Relaxed) {
            true => Err(LayerError::PlaintextRefused),
            false => Ok(()),
        }
    }
}

/// The path, wherever the process goes. One that cannot be made absolute cannot be written either, which
/// is told then.
fn fixed(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Warns once when a key has sealed so much that it should be replaced.
fn tell(sealed: Result<Sealed, SealError>) -> Result<(), LayerError> {
    let sealed = sealed.map_err(|error| LayerError::Unsealed(error.to_string()))?;
    if let Some(key) = sealed.nonce_warning {
        warn!(%key, "this node has sealed 2^31 messages with one key: rotate keys (`keys rotate`) \
            before it is 2^32");
    }
    Ok(())
}

/// Wrong padding is not told apart from a wrong key: the difference would say something about the
/// content.
fn unopened(error: OpenError) -> LayerError {
    match error {
        OpenError::NoKeyFits | OpenError::BadPadding => LayerError::WrongKey,
        OpenError::UnknownVersion(version) => LayerError::Version(version),
        OpenError::Version0Refused => LayerError::Version(0),
        error => LayerError::Malformed(error.to_string()),
    }
}

fn bad_frame(error: FrameError) -> LayerError {
    match error {
        FrameError::Open(error) => unopened(error),
        error => LayerError::Malformed(error.to_string()),
    }
}
