//! From arriving bytes to messages, in either format.

use super::{Assembler, FrameReader, StreamError, StreamItem, StreamLimits};
use crate::wire::hashicorp::{kind, stream as hashicorp};
use crate::wire::{Dialect, WireFormat};

/// Incremental: takes what has arrived, gives whole messages.
///
/// Call [`next_item`](Self::next_item) after each [`push`](Self::push) until it gives nothing. After an
/// error the stream is lost: what is pushed is thrown away, and the error is repeated.
#[derive(Debug)]
pub struct MessageReader {
    format: WireFormat,
    limits: StreamLimits,
    default_port: u16,
    asks: bool,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    /// Nothing has come.
    Unknown,
    Refused(StreamError),
    Native(Box<(FrameReader, Assembler)>),
    Hashicorp(Box<hashicorp::MessageReader>),
}

impl MessageReader {
    /// A reader at the beginning of a stream that is in one of the formats that are read here.
    /// `default_port` is the port of nodes that give none in Go's format, as old ones do.
    pub fn new(format: WireFormat, limits: StreamLimits, default_port: u16) -> Self {
        Self { format, limits, default_port, asks: false, reader: Reader::Unknown }
    }

    /// A compressed message in Go's format, which may hold a thousand times its bytes, is then left as
    /// it is until the caller [grants](Self::grant_inflating) the [bytes](Self::pending_bytes) that it
    /// takes, if those are many.
    #[must_use]
    pub fn asking_before_inflating(self) -> Self {
        Self { asks: true, ..self }
    }

    /// Whether a compressed message waited for this. If so, [`next_item`](Self::next_item) has to be
    /// called again before anything more arrives.
    pub fn grant_inflating(&mut self) -> bool {
        match &mut self.reader {
            Reader::Hashicorp(hashicorp) => hashicorp.grant_inflating(),
            _ => false,
        }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, arrived: &[u8]) {
        let Some(&first) = arrived.first() else { return };
        if matches!(self.reader, Reader::Unknown) {
            self.reader = self.reader_of(first);
        }
        match &mut self.reader {
            Reader::Native(native) => native.0.push(arrived),
            Reader::Hashicorp(hashicorp) => hashicorp.push(arrived),
            Reader::Unknown | Reader::Refused(_) => {}
        }
    }

    fn reader_of(&self, first: u8) -> Reader {
        match self.format.dialect_of(first) {
            // Nothing has opened it before it came here.
            Some(Dialect::Hashicorp) if first == kind::ENCRYPT => {
                Reader::Refused(StreamError::WrongFormat { first })
            }
            None => Reader::Refused(StreamError::WrongFormat { first }),
            Some(Dialect::Native) => Reader::Native(Box::new((
                FrameReader::new(self.limits),
                Assembler::new(self.limits),
            ))),
            Some(Dialect::Hashicorp) => {
                let mut reader = hashicorp::MessageReader::new(self.limits, self.default_port);
                if self.asks {
                    reader.ask_before_inflating();
                }
                Reader::Hashicorp(Box::new(reader))
            }
        }
    }

    /// The format that the stream is in, once its first byte has come, be it read here or not; nothing if
    /// it is in neither.
    pub fn dialect(&self) -> Option<Dialect> {
        match self.reader {
            Reader::Unknown => None,
            Reader::Refused(StreamError::WrongFormat { first }) => Dialect::of(first),
            Reader::Refused(_) => None,
            Reader::Native(_) => Some(Dialect::Native),
            Reader::Hashicorp(_) => Some(Dialect::Hashicorp),
        }
    }

    /// The next whole message; nothing if more bytes are needed.
    ///
    /// # Errors
    /// If the stream is of another format or version, a limit is passed, or a message is not understood.
    pub fn next_item(&mut self) -> Result<Option<StreamItem>, StreamError> {
        match &mut self.reader {
            Reader::Unknown => Ok(None),
            Reader::Refused(error) => Err(*error),
            Reader::Native(native) => {
                let (frames, assembler) = native.as_mut();
                while let Some(payload) = frames.next_frame()? {
                    if let Some(item) = assembler.push(&payload)? {
                        return Ok(Some(item));
                    }
                }
                Ok(None)
            }
            Reader::Hashicorp(hashicorp) => hashicorp.next_item(),
        }
    }

    /// How many nodes of an unfinished push/pull have been decoded. They take more memory than their
    /// bytes on the wire.
    pub fn pending_nodes(&self) -> usize {
        match &self.reader {
            Reader::Unknown | Reader::Refused(_) => 0,
            Reader::Native(native) => native.1.pending_nodes(),
            Reader::Hashicorp(hashicorp) => hashicorp.pending_nodes(),
        }
    }

    /// How many bytes of an unfinished message have been decoded. They may be more than came over the
    /// wire, where it is compressed.
    pub fn pending_bytes(&self) -> usize {
        match &self.reader {
            Reader::Unknown | Reader::Refused(_) => 0,
            Reader::Native(native) => native.1.pending_bytes(),
            Reader::Hashicorp(hashicorp) => hashicorp.pending_bytes(),
        }
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// If it ends in the middle of a message, or had failed before.
    pub fn finish(&self) -> Result<(), StreamError> {
        match &self.reader {
            Reader::Unknown => Ok(()),
            Reader::Refused(error) => Err(*error),
            Reader::Native(native) => native.0.finish().and_then(|()| native.1.finish()),
            Reader::Hashicorp(hashicorp) => hashicorp.finish(),
        }
    }
}
