//! Labels keep clusters apart that can reach each other: `f4 | len u8 | label`, outermost, in front
//! of every packet and once at the beginning of a dialled stream.
//!
//! A label is a guard against mistakes, not a secret: it is sent in the clear. With encryption it is
//! also proven, as associated data. The rules are Go memberlist's, but for one: a second header
//! behind the first is refused here and now, instead of failing later as an unknown message.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The first byte of a label's header. No packet and no message begins with it.
pub const LABEL_TYPE: u8 = 0xF4;
/// The longest label in bytes.
pub const MAX_LABEL_BYTES: usize = 255;

/// Type and length.
const PREFIX: usize = 2;
const MAX_HEADER: usize = PREFIX + MAX_LABEL_BYTES;
/// How much of a received label is shown.
const SHOWN: usize = 32;

/// A text that cannot be a label. Blame: the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a label has at most {MAX_LABEL_BYTES} bytes, not {len}")]
pub struct LabelTooLong {
    /// Its length in bytes.
    pub len: usize,
}

/// Why a packet or stream is not of this cluster. Blame: the peer, or settings that differ.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// It has no label, and one is configured here.
    #[error("the peer sends no label, and the label here is {expected:?}")]
    Missing {
        /// The label that is configured here.
        expected: Label,
    },
    /// It has a label, and none is configured here.
    #[error("the peer's label is {received}, and no label is configured here")]
    Unexpected {
        /// What came.
        received: ReceivedLabel,
    },
    /// It has another label.
    #[error("the peer's label is {received}, and the label here is {expected:?}")]
    Mismatch {
        /// The label that is configured here.
        expected: Label,
        /// What came.
        received: ReceivedLabel,
    },
    /// A header where there must be none: behind another, or although the transport is said to have
    /// taken it off.
    #[error("a label header where none may be: the label was put on twice")]
    Doubled,
    /// The header is not complete.
    #[error("the label header is cut off")]
    Truncated,
    /// A header without a label: an empty label is said by no header.
    #[error("a label header with an empty label")]
    Empty,
}

/// A label as it came from the network, for showing: its beginning, with everything but printable
/// ASCII escaped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReceivedLabel {
    beginning: [u8; SHOWN],
    len: usize,
}

impl ReceivedLabel {
    fn of(label: &[u8]) -> Self {
        let mut beginning = [0; SHOWN];
        let shown = label.len().min(SHOWN);
        beginning[..shown].copy_from_slice(&label[..shown]);
        Self { beginning, len: label.len() }
    }
}

impl fmt::Display for ReceivedLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.beginning[..self.len.min(SHOWN)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if self.len > SHOWN {
            write!(f, "... ({} bytes)", self.len)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ReceivedLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceivedLabel({self})")
    }
}

/// The name of a cluster on a shared network: a text of up to 255 bytes. The empty label, which is
/// the default, means that packets and streams carry no header. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Option<Arc<str>>);

impl Label {
    /// The empty label.
    pub const fn none() -> Self {
        Self(None)
    }

    /// A label of this text.
    ///
    /// # Errors
    /// If it is longer than [`MAX_LABEL_BYTES`].
    pub fn new(text: &str) -> Result<Self, LabelTooLong> {
        match text.len() {
            0 => Ok(Self(None)),
            len if len > MAX_LABEL_BYTES => Err(LabelTooLong { len }),
            _ => Ok(Self(Some(text.into()))),
        }
    }

    /// The text; empty if there is no label.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// The bytes of the text: what packets have as associated data.
    pub fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The length of the header in bytes; 0 without a label.
    pub fn header_len(&self) -> usize {
        if self.is_empty() { 0 } else { PREFIX + self.as_bytes().len() }
    }

    /// Writes the header to the beginning of `out`, and gives its length; writes nothing without a
    /// label.
    ///
    /// # Panics
    /// If `out` is shorter than [`header_len`](Self::header_len).
    pub fn write_header(&self, out: &mut [u8]) -> usize {
        let len = self.header_len();
        let out = &mut out[..len];
        if let [kind, length, text @ ..] = out {
            (*kind, *length) = (LABEL_TYPE, (len - PREFIX) as u8);
            text.copy_from_slice(self.as_bytes());
        }
        len
    }

    /// Takes one header off a packet: the label, empty if there is no header, and what follows.
    ///
    /// # Errors
    /// [`LabelError::Truncated`] or [`LabelError::Empty`].
    pub fn split(packet: &[u8]) -> Result<(&[u8], &[u8]), LabelError> {
        Ok(packet.split_at(header_of(packet)?)).map(|(header, rest)| (label_in(header), rest))
    }

    /// Checks that a packet is of this cluster, and gives what follows its header.
    ///
    /// `skip_inbound_check` is for transports that take the header off themselves: the packet is
    /// taken to be of this cluster, and a header that is there nevertheless is refused.
    ///
    /// # Errors
    /// See [`LabelError`].
    pub fn check<'p>(
        &self,
        packet: &'p [u8],
        skip_inbound_check: bool,
    ) -> Result<&'p [u8], LabelError> {
        Ok(&packet[self.checked_header(packet, skip_inbound_check)?..])
    }

    /// As [`check`](Self::check), for a packet that is then opened in place.
    ///
    /// # Errors
    /// See [`LabelError`].
    pub fn check_mut<'p>(
        &self,
        packet: &'p mut [u8],
        skip_inbound_check: bool,
    ) -> Result<&'p mut [u8], LabelError> {
        let header = self.checked_header(packet, skip_inbound_check)?;
        Ok(&mut packet[header..])
    }

    /// The length of a header that is right.
    fn checked_header(&self, packet: &[u8], skip: bool) -> Result<usize, LabelError> {
        let (received, rest) = Self::split(packet)?;
        self.check_received(received, skip)?;
        if rest.first() == Some(&LABEL_TYPE) {
            return Err(LabelError::Doubled);
        }
        Ok(packet.len() - rest.len())
    }

    /// Compares with a label that was received; empty if there was none.
    fn check_received(&self, received: &[u8], skip: bool) -> Result<(), LabelError> {
        let (expected, none) = (self.clone(), received.is_empty());
        let shown = || ReceivedLabel::of(received);
        match (skip, self.is_empty(), none) {
            (true, _, true) => Ok(()),
            (true, _, false) => Err(LabelError::Doubled),
            (false, ..) if received == self.as_bytes() => Ok(()),
            (false, true, _) => Err(LabelError::Unexpected { received: shown() }),
            (false, false, true) => Err(LabelError::Missing { expected }),
            (false, false, false) => Err(LabelError::Mismatch { expected, received: shown() }),
        }
    }
}

/// The length of the header that a packet begins with; 0 if with none.
fn header_of(packet: &[u8]) -> Result<usize, LabelError> {
    match *packet {
        [LABEL_TYPE, 0, ..] => Err(LabelError::Empty),
        [LABEL_TYPE, len, ref rest @ ..] if rest.len() >= usize::from(len) => {
            Ok(PREFIX + usize::from(len))
        }
        [LABEL_TYPE, ..] => Err(LabelError::Truncated),
        _ => Ok(0),
    }
}

/// The label in a whole header; empty in none.
fn label_in(header: &[u8]) -> &[u8] {
    header.get(PREFIX..).unwrap_or_default()
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for Label {
    type Err = LabelTooLong;

    fn from_str(text: &str) -> Result<Self, LabelTooLong> {
        Self::new(text)
    }
}

/// What came of bytes given to a [`LabelReader`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelStep {
    /// All of them were taken, and more are needed.
    NeedMore,
    /// The header is whole, or there is none.
    Done {
        /// How many of the bytes given last belong to the header. What follows belongs to whatever
        /// reads the stream next.
        consumed: usize,
    },
}

/// Takes the label off the beginning of a stream, in whatever pieces it arrives.
///
/// Give what arrives to [`push`](Self::push) until it is done, then call [`check`](Self::check). If
/// the stream ends before, call [`finish`](Self::finish): a peer that connects and closes has sent no
/// label, which is no fault of the stream. Nothing that does not belong to the header is taken. The
/// byte behind a header is looked at, so that a second header is found; every dialler sends one.
#[derive(Clone, Debug)]
pub struct LabelReader {
    header: [u8; MAX_HEADER],
    have: usize,
    done: bool,
    failed: Option<LabelError>,
}

impl Default for LabelReader {
    fn default() -> Self {
        Self::new()
    }
}

impl LabelReader {
    /// A reader at the beginning of a stream.
    pub const fn new() -> Self {
        Self { header: [0; MAX_HEADER], have: 0, done: false, failed: None }
    }

    /// Takes what belongs to the header.
    ///
    /// # Errors
    /// [`LabelError::Empty`] or [`LabelError::Doubled`]; the same again if called again.
    pub fn push(&mut self, arrived: &[u8]) -> Result<LabelStep, LabelError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let step = self.step(arrived);
        if let Err(error) = &step {
            self.failed = Some(error.clone());
        }
        step
    }

    fn step(&mut self, arrived: &[u8]) -> Result<LabelStep, LabelError> {
        if self.done {
            return Ok(LabelStep::Done { consumed: 0 });
        }
        for (consumed, &byte) in arrived.iter().enumerate() {
            let at_header = self.have == 0 && byte == LABEL_TYPE;
            if !at_header && header_of(self.taken()).is_ok() {
                if byte == LABEL_TYPE {
                    return Err(LabelError::Doubled);
                }
                self.done = true;
                return Ok(LabelStep::Done { consumed });
            }
            self.header[self.have] = byte;
            self.have += 1;
            if header_of(self.taken()) == Err(LabelError::Empty) {
                return Err(LabelError::Empty);
            }
        }
        Ok(LabelStep::NeedMore)
    }

    fn taken(&self) -> &[u8] {
        &self.header[..self.have]
    }

    /// To be called if the stream ends before the header is done.
    ///
    /// # Errors
    /// [`LabelError::Truncated`] in the middle of a header, or what [`push`](Self::push) gave.
    pub fn finish(&mut self) -> Result<(), LabelError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        header_of(self.taken())?;
        self.done = true;
        Ok(())
    }

    /// The label that was received, empty if there was no header; nothing if it is not all there.
    pub fn received(&self) -> Option<&[u8]> {
        self.done.then(|| label_in(self.taken()))
    }

    /// Checks that the stream is of the cluster `expected`, by the rules of [`Label::check`].
    ///
    /// # Errors
    /// See [`LabelError`]; [`LabelError::Truncated`] if the header is not all there.
    pub fn check(&self, expected: &Label, skip_inbound_check: bool) -> Result<(), LabelError> {
        let received = self.received().ok_or(LabelError::Truncated)?;
        expected.check_received(received, skip_inbound_check)
    }
}

#[cfg(test)]
mod tests;
