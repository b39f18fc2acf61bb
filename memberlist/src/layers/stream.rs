//! The layers of a stream: a label from the side that dialled, then sealed frames, or plain bytes.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use memberlist_protocol::wire::stream::MessageReader;
use memberlist_protocol::wire::{Dialect, WireFormat};
use memberlist_security::{Label, LabelReader, LabelStep};

use super::{KeyName, LayerError, Layers, Place, Sealing, StreamKeys, StreamName, name_of};
use crate::config::InboundLabel;

/// The longest first frame of a direction in the native format. Until it is opened, anybody may have
/// sent it: it must not take from the memory that streams share, nor cost much to try with every key.
/// What this library writes is shorter. In Go's format it is a whole message.
const MAX_FIRST_FRAME_BYTES: usize = 66 * 1024;

/// What a refusal in the clear has at most, in bytes: more than a text of the longest.
const MAX_REFUSAL_BYTES: usize = 2 * 1024;

/// What a direction of a stream turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Plain,
    Sealed,
    /// An answer in the clear where it must be sealed: it counts only as a refusal by a peer that has
    /// no key to seal it with, and proves nothing.
    Refusal,
}

/// Takes the layers off what arrives.
pub(crate) struct StreamReader {
    layers: Arc<Layers>,
    /// What is to be read of it; answers have none.
    header: Option<LabelReader>,
    /// The one under which the stream was opened.
    label: Label,
    kind: Kind,
    side: Side,
    /// Bytes of a refusal in the clear that have come.
    refusal: usize,
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
        let header = Some(LabelReader::new());
        Self { header, side: Side::Dialler, ..Self::of_answer(layers) }
    }

    /// For the answer on a stream that this node opened.
    pub(crate) fn of_answer(layers: Arc<Layers>) -> Self {
        Self {
            header: None,
            label: layers.outgoing.clone(),
            kind: Kind::Unknown,
            side: Side::Answerer,
            refusal: 0,
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

    /// What comes must answer what was asked on this very stream. In Go's format nothing says so.
    pub(crate) fn expect_answer(&mut self, to: &StreamWriter, dialect: Dialect) {
        if dialect == Dialect::Native {
            self.place = Place::Answer(to.name);
        }
    }

    /// Takes what has arrived, and gives on what is unwrapped.
    pub(crate) fn push(&mut self, bytes: &[u8], to: &mut MessageReader) -> Result<(), LayerError> {
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
            self.kind = self.judge(first)?;
        }
        match self.kind {
            Kind::Sealed => {
                self.arrived.extend_from_slice(bytes);
                return self.open_frames(to);
            }
            Kind::Refusal => {
                self.refusal += bytes.len();
                if self.refusal > MAX_REFUSAL_BYTES {
                    return Err(LayerError::PlaintextRefused);
                }
            }
            // Asked each time: it may be switched off while a stream goes on.
            Kind::Plain | Kind::Unknown => self.layers.sealing.allow_plain()?,
        }
        to.push(bytes);
        Ok(())
    }

    /// What a direction is that begins with this byte.
    fn judge(&self, first: u8) -> Result<Kind, LayerError> {
        let sealing = &self.layers.sealing;
        if sealing.is_sealed(first)? {
            return Ok(Kind::Sealed);
        }
        let allowed = sealing.allow_plain();
        let asked_under_seal =
            matches!(self.place, Place::Answer(name) if name != StreamName::default());
        match self.side {
            Side::Answerer if asked_under_seal || allowed.is_err() => Ok(Kind::Refusal),
            _ => allowed.map(|()| Kind::Plain),
        }
    }

    fn open_frames(&mut self, to: &mut MessageReader) -> Result<(), LayerError> {
        let layers = Arc::clone(&self.layers);
        while let Some(len) = layers.sealing.frame_len(&self.arrived)? {
            // In Go's format all of a message is one frame.
            let native = layers.format == WireFormat::Native;
            if native && self.opened_with.is_none() && len > MAX_FIRST_FRAME_BYTES {
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
            if content.is_empty() {
                // One could be sent again and again: its place is that of all later ones.
                return Err(LayerError::Malformed("a sealed frame of nothing".to_owned()));
            }
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

    /// Whether what came is an answer in the clear that may only be a refusal.
    pub(crate) fn is_refusal(&self) -> bool {
        self.kind == Kind::Refusal
    }

    /// Whether what came may be anybody's: sealed, and no key has opened any of it.
    pub(crate) fn is_unproven(&self) -> bool {
        self.kind == Kind::Sealed && self.opened_with.is_none()
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
    /// Whether this direction is sealed: decided with its first record, since a reader takes it to be
    /// one or the other.
    sealed: Option<bool>,
    begun_with: StreamKeys,
    key: Option<KeyName>,
    /// Where the next frame belongs.
    place: Place,
    name: StreamName,
}

/// Whose words a direction of a stream are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialler,
    Answerer,
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
            sealed: None,
            begun_with: layers.sealing.begin_stream(),
            key,
            place,
            name: StreamName::default(),
            layers,
        }
    }

    /// The peer is answered under the label and with the key that it asked with.
    pub(crate) fn answer(&mut self, asked: &StreamReader, dialect: Dialect) {
        if self.side == Side::Answerer {
            self.label = asked.label().clone();
            self.key = asked.opened_with();
            self.place = match dialect {
                Dialect::Native => Place::Answer(asked.name),
                Dialect::Hashicorp => Place::First,
            };
        }
    }

    #[cfg(feature = "encryption")]
    pub(crate) fn begin_with(&mut self, keys: StreamKeys) {
        self.begun_with = keys;
    }

    /// What follows is for a peer that has shown no key of this node's: it could not read a seal, and
    /// must not draw one. Without effect once something was written.
    pub(crate) fn refuse_in_the_clear(&mut self) {
        self.sealed.get_or_insert(false);
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
        let wanted = || sealing.seals_outgoing() || self.key.is_some();
        let sealed = *self.sealed.get_or_insert_with(wanted);
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
