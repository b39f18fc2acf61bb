//! In place of encryption, where this crate is built without it: nothing is sealed, and what comes
//! sealed is refused by its name.

use memberlist_protocol::wire::WireFormat;
use memberlist_security::Label;

use super::{LayerError, is_sealed};
use crate::meter::KeyCounts;

/// The first byte of a sealed frame.
const FRAME_TYPE: u8 = 0x0A;

/// No key has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyName {}
pub(crate) type StreamKeys = ();

/// Nothing is sealed for a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Question(StreamName),
    Answer(StreamName),
}

/// Zeros: no stream is sealed.
pub(crate) type StreamName = [u8; 12];

pub(crate) fn name_of(_: &[u8]) -> StreamName {
    StreamName::default()
}

#[derive(Default)]
pub(crate) struct Sealing;

impl Sealing {
    pub(crate) const FRAME_ROOM: usize = 0;

    pub(crate) fn packet_room(&self) -> (usize, usize) {
        (0, 0)
    }

    pub(crate) fn key_counts(&self) -> Vec<KeyCounts> {
        Vec::new()
    }

    pub(crate) fn has_keys(&self) -> bool {
        false
    }

    pub(crate) fn seals_outgoing(&self) -> bool {
        false
    }

    pub(crate) fn seal_packet(
        &self,
        _: &Label,
        _: &mut Vec<u8>,
        _: usize,
    ) -> Result<(), LayerError> {
        Ok(())
    }

    pub(crate) fn open_packet<'p>(
        &self,
        format: WireFormat,
        _: &Label,
        packet: &'p mut [u8],
    ) -> Result<&'p [u8], LayerError> {
        if is_sealed(format, packet) { Err(LayerError::NoKey) } else { Ok(packet) }
    }

    pub(crate) fn begin_stream(&self) -> StreamKeys {}

    pub(crate) fn seal_frame(
        &self,
        (): &StreamKeys,
        _: Option<KeyName>,
        _: &Label,
        _: Place,
        _: &mut Vec<u8>,
        _: usize,
    ) -> Result<(), LayerError> {
        Ok(())
    }

    /// Whether a stream that begins with this byte is sealed.
    pub(crate) fn is_sealed(&self, first: u8) -> Result<bool, LayerError> {
        if first == FRAME_TYPE { Err(LayerError::NoKey) } else { Ok(false) }
    }

    /// Nothing else is understood.
    pub(crate) fn allow_plain(&self) -> Result<(), LayerError> {
        Ok(())
    }

    /// How long the first frame of these bytes is, if that is known.
    pub(crate) fn frame_len(&self, _: &[u8]) -> Result<Option<usize>, LayerError> {
        Err(LayerError::NoKey)
    }

    pub(crate) fn open_frame<'f>(
        &self,
        (): &StreamKeys,
        _: &Label,
        _: Place,
        _: &'f mut [u8],
    ) -> Result<(&'f [u8], KeyName), LayerError> {
        Err(LayerError::NoKey)
    }
}
