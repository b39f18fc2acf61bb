//! Sealing with a chosen nonce, for tests that compare bytes. Not for applications: a nonce that is
//! used twice under one key gives the contents away. What is here may change at any time.

use crate::cipher::{self, HEAD, SealError, Sealed, Version};
use crate::frame::{self, FRAME_HEAD};
use crate::keyring::Keyring;
use crate::label::Label;

/// As [`seal`](crate::seal).
///
/// # Errors
/// [`SealError::NoRoom`].
pub fn seal_with_nonce(
    keyring: &Keyring,
    version: Version,
    nonce: &[u8; 12],
    aad: &[u8],
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Sealed, SealError> {
    cipher::check_room(buffer, start, HEAD)?;
    cipher::seal_checked(keyring.snapshot().primary(), version, nonce, aad, buffer, start)
}

/// As [`seal_frame`](crate::seal_frame).
///
/// # Errors
/// [`SealError::NoRoom`].
pub fn seal_frame_with_nonce(
    keyring: &Keyring,
    version: Version,
    nonce: &[u8; 12],
    label: &Label,
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Sealed, SealError> {
    cipher::check_room(buffer, start, FRAME_HEAD)?;
    let (ring, place) = (keyring.snapshot(), frame::FramePlace::First);
    frame::seal_frame_checked(ring.primary(), version, nonce, label, place, buffer, start)
}
