//! The layers of a stream: a label from the side that dialled, then sealed frames, or plain bytes.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use memberlist_protocol::wire::stream::FrameReader;
use memberlist_security::{Label, LabelReader, LabelStep};

use super::{KeyName, LayerError, Layers, Place, Sealing, StreamKeys, StreamName, name_of};
use crate::config::InboundLabel;

/// The longest first frame of a direction. Until it is opened, anybody may have sent it: it must not
/// take from the memory that streams share, nor cost much to try with every key. What this library
/// writes is shorter.
const MAX_FIRST_FRAME_BYTES: usize = 66 * 1024;

/// What a direction of a stream turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Plain,
    Sealed,
}

/// Takes the layers off what arrives.
pub(crate) struct StreamReader {
    layers: Arc<Layers>,
    /// What is to be read of it; answers have none.
    header: Option<LabelReader>,
    /// The one under which the stream was opened.
    label: Label,
    kind: Kind,
    /// Where the next frame belongs.
    place: Place,
    /// The name of the stream, once it is known.
    name: StreamName,
    /// A sealed frame that is not all there.
    arrived: BytesMut,
    begun_with: StreamKeys,
    opened_with: Option<KeyName>,
}

impl StreamReader {
    /// For a stream that a peer opened.
    pub(crate) fn of_dialler(layers: Arc<Layers>) -> Self {
        Self { header: Some(LabelReader::new()), ..Self::of_answer(layers) }
    }

    /// For the answer on a stream that this node opened.
    pub(crate) fn of_answer(layers: Arc<Layers>) -> Self {
        Self {
            header: None,
            label: layers.outgoing.clone(),
            kind: Kind::Unknown,
            place: Place::First,
            name: StreamName::default(),
            arrived: BytesMut::new(),
            begun_with: layers.sealing.begin_stream(),
            opened_with: None,
            layers,
        }
    }

    #[cfg(feature = "encryption")]
    pub(crate) fn begun(&self) -> StreamKeys {
        self.begun_with.clone()
    }

    #[cfg(feature = "encryption")]
    pub(crate) fn begin_with(&mut self, keys: StreamKeys) {
        self.begun_with = keys;
    }

    /// What comes must answer what was asked on this very stream.
    pub(crate) fn expect_answer(&mut self, to: &StreamWriter) {
        self.place = Place::Answer(to.name);
    }

    /// Takes what has arrived, and gives on what is unwrapped.
    pub(crate) fn push(&mut self, bytes: &[u8], to: &mut FrameReader) -> Result<(), LayerError> {
        let mut bytes = bytes;
        if let Some(header) = &mut self.header {
            match header.push(bytes)? {
                LabelStep::NeedMore => return Ok(()),
                LabelStep::Done { consumed } => bytes = &bytes[consumed..],
            }
            let expected = self.layers.expected(header.received().unwrap_or_default());
            header.check(expected, self.layers.inbound == InboundLabel::Stripped)?;
            self.label = expected.clone();
            self.header = None;
        }
        let Some(&first) = bytes.first() else { return Ok(()) };
        if self.kind == Kind::Unknown {
            let sealed = self.layers.sealing.is_sealed(first)?;
            self.kind = if sealed { Kind::Sealed } else { Kind::Plain };
        }
        match self.kind {
            Kind::Sealed => {
                self.arrived.extend_from_slice(bytes);
                self.open_frames(to)
            }
            _ => {
                to.push(bytes);
                Ok(())
            }
        }
    }

    fn open_frames(&mut self, to: &mut FrameReader) -> Result<(), LayerError> {
        let layers = Arc::clone(&self.layers);
        while let Some(len) = layers.sealing.frame_len(&self.arrived)? {
            if self.opened_with.is_none() && len > MAX_FIRST_FRAME_BYTES {
                let text = format!("a first frame of {len} bytes, over {MAX_FIRST_FRAME_BYTES}");
                return Err(LayerError::Malformed(text));
            }
            let Some(frame) = self.arrived.get_mut(..len) else { break };
            if self.place == Place::First {
                self.name = name_of(frame);
            }
            let sealing = &layers.sealing;
            let (content, key) =
                sealing.open_frame(&self.begun_with, &self.label, self.place, frame)?;
            to.push(content);
            self.opened_with = Some(key);
            if self.place == Place::First {
                self.place = Place::Question(self.name);
            }
            self.arrived.advance(len);
        }
        Ok(())
    }

    /// Whether the stream may end here: not in the middle of a label or frame.
    pub(crate) fn is_whole(&mut self) -> Result<bool, LayerError> {
        if let Some(header) = &mut self.header {
            header.finish()?;
        }
        Ok(self.arrived.is_empty())
    }

    /// The label under which the stream was opened.
    pub(crate) fn label(&self) -> &Label {
        &self.label
    }

    /// The key that opened what came last; nothing if it came in the clear.
    pub(crate) fn opened_with(&self) -> Option<KeyName> {
        self.opened_with
    }
}

/// Puts the layers around what is written.
pub(crate) struct StreamWriter {
    layers: Arc<Layers>,
    /// Whether the label is still to be written: only the side that dialled does.
    header: bool,
    label: Label,
    side: Side,
    begun_with: StreamKeys,
    key: Option<KeyName>,
    /// Where the next frame belongs.
    place: Place,
    name: StreamName,
}

/// Who this node is on a stream, and so whether what it writes is sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialler,
    Answerer,
    /// Refuses what came in the clear: its reason must be readable.
    Refuser,
}

impl StreamWriter {
    /// For a stream that this node opens; sealed with this key instead of the primary, if it is given.
    pub(crate) fn of_dialler(layers: Arc<Layers>, key: Option<KeyName>) -> Self {
        Self::new(layers, Side::Dialler, Place::First, key)
    }

    /// For the answer on a stream that a peer opened.
    pub(crate) fn of_answer(layers: Arc<Layers>) -> Self {
        Self::new(layers, Side::Answerer, Place::Answer(StreamName::default()), None)
    }

    fn new(layers: Arc<Layers>, side: Side, place: Place, key: Option<KeyName>) -> Self {
        Self {
            header: side == Side::Dialler,
            label: layers.outgoing.clone(),
            side,
            begun_with: layers.sealing.begin_stream(),
            key,
            place,
            name: StreamName::default(),
            layers,
        }
    }

    /// The peer is answered under the label and with the key that it asked with.
    pub(crate) fn answer(&mut self, asked: &StreamReader) {
        if self.side == Side::Answerer {
            self.label = asked.label().clone();
            self.key = asked.opened_with();
            self.place = Place::Answer(asked.name);
        }
    }

    #[cfg(feature = "encryption")]
    pub(crate) fn begin_with(&mut self, keys: StreamKeys) {
        self.begun_with = keys;
    }

    /// What follows is for a peer that does not encrypt.
    pub(crate) fn refuse_in_the_clear(&mut self) {
        self.side = Side::Refuser;
    }

    /// Wraps what `write` appends to `out`, which is cleared; false, and nothing done, if it says that
    /// there is nothing.
    pub(crate) fn wrap(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> Result<bool, LayerError> {
        out.clear();
        let sealing = &self.layers.sealing;
        // Who asks under a seal is answered so, whatever the switch says.
        let sealed = match self.side {
            Side::Refuser => false,
            Side::Dialler | Side::Answerer => sealing.seals_outgoing() || self.key.is_some(),
        };
        let label = if self.header { self.label.header_len() } else { 0 };
        let start = label + if sealed { Sealing::FRAME_ROOM } else { 0 };
        out.resize(start, 0);
        if !write(out) {
            return Ok(false);
        }
        if sealed {
            sealing.seal_frame(&self.begun_with, self.key, &self.label, self.place, out, start)?;
            if self.place == Place::First {
                self.name = name_of(&out[label..]);
                self.place = Place::Question(self.name);
            }
        }
        if self.header {
            self.label.write_header(out);
            self.header = false;
        }
        Ok(true)
    }
}
