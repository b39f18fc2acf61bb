//! From arriving bytes to whole payloads of the native format.

use bytes::{Buf, BytesMut};

use super::{StreamError, StreamLimits};
use crate::wire::native;

/// The length in front of each payload, in bytes.
const LENGTH_BYTES: usize = 4;
/// Magic byte and version.
const PREAMBLE_BYTES: usize = 2;

/// Incremental: takes what has arrived, gives whole payloads.
///
/// Call [`next_frame`](Self::next_frame) after each [`push`](Self::push) until it gives nothing;
/// then no more than [`StreamLimits::max_frame_bytes`] and a header wait here. After an error the
/// stream is lost: what is pushed is thrown away, and the error is repeated.
#[derive(Debug)]
pub struct FrameReader {
    max_frame_bytes: usize,
    arrived: BytesMut,
    began: bool,
    failed: Option<StreamError>,
}

impl FrameReader {
    /// A reader at the beginning of a stream.
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            max_frame_bytes: limits.max_frame_bytes,
            arrived: BytesMut::new(),
            began: false,
            failed: None,
        }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, arrived: &[u8]) {
        if self.failed.is_none() {
            self.arrived.extend_from_slice(arrived);
        }
    }

    /// The next whole payload; nothing if more bytes are needed. It is given to the caller for
    /// good, so that it can be opened in place.
    ///
    /// # Errors
    /// If the stream is of another format or version, or a frame is too large. The length that a
    /// peer announces is judged before any of the frame is waited for.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let next = self.next_len();
        if let Err(error) = next {
            self.failed = Some(error);
            self.arrived = BytesMut::new();
        }
        next.map(|len| len.map(|len| self.arrived.split_to(len)))
    }

    /// Takes off what is before the next payload, and gives its length once it is all there.
    fn next_len(&mut self) -> Result<Option<usize>, StreamError> {
        if !self.began {
            self.began = take_preamble(&mut self.arrived)?;
        }
        let Some(length) = self.arrived.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if len > self.max_frame_bytes {
            return Err(StreamError::FrameTooLarge { len, limit: self.max_frame_bytes });
        }
        if self.arrived.len() - LENGTH_BYTES < len {
            return Ok(None);
        }
        self.arrived.advance(LENGTH_BYTES);
        Ok(Some(len))
    }

    /// Whether the stream may end here: between two frames, or before it began.
    pub fn is_idle(&self) -> bool {
        self.arrived.is_empty() && self.failed.is_none()
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// If it ends in the middle of a frame, or had failed before.
    pub fn finish(&self) -> Result<(), StreamError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.is_idle() => Ok(()),
            None => Err(StreamError::Truncated),
        }
    }

    #[cfg(test)]
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.arrived.capacity()
    }
}

/// Takes the preamble off; false if it is not there yet. The first byte is judged by itself, since
/// a peer of another format may not send a second one before it is answered.
fn take_preamble(arrived: &mut BytesMut) -> Result<bool, StreamError> {
    match arrived.first() {
        Some(&first) if first != native::MAGIC => return Err(StreamError::WrongFormat { first }),
        _ => {}
    }
    match arrived.get(1) {
        None => Ok(false),
        Some(&native::VERSION) => {
            arrived.advance(PREAMBLE_BYTES);
            Ok(true)
        }
        Some(&version) => Err(StreamError::WrongVersion(version)),
    }
}
