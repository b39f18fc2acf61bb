//! Which format is read where, and what is said of the rest.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::hex;
use super::part;
use crate::message::{Ack, Message, Nack};
use crate::wire::stream::{
    FrameNumber, MessageFrames, MessageReader, StreamItem, StreamLimits, preamble,
};
use crate::wire::{
    Dialect, PacketError, PacketReader, PacketWriter, Room, StreamError, WireFormat,
};

const FORMATS: [WireFormat; 3] = [WireFormat::Native, WireFormat::Hashicorp, WireFormat::Mixed];
const DIALECTS: [Dialect; 2] = [Dialect::Native, Dialect::Hashicorp];

fn packet(dialect: Dialect) -> Vec<u8> {
    let mut buf = Vec::new();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };
    let mut writer = PacketWriter::new(&mut buf, dialect, true, room);
    assert!(writer.push(&Message::Nack(Nack { sequence: 5 })));
    assert!(writer.push(&Message::User(b"x")));
    writer.finish();
    buf
}

fn stream(dialect: Dialect) -> Vec<u8> {
    let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
    preamble(dialect, &mut bytes);
    let mut frames = MessageFrames::user(dialect, "hello".into());
    while frames.next_record(&mut number, &mut bytes) {}
    bytes
}

fn reader(format: WireFormat) -> MessageReader {
    MessageReader::new(format, StreamLimits::default(), 7946)
}

#[test]
fn each_format_reads_what_it_should() {
    // One reader for all of them, as a node of a mixed cluster has it.
    let mut reader = PacketReader::default();
    for format in FORMATS {
        for dialect in DIALECTS {
            let bytes = packet(dialect);
            let (first, reads) = (bytes[0], format.reads(dialect));
            assert_eq!(reads, format == WireFormat::Mixed || format.towards_strangers() == dialect);
            match reader.read(format, &bytes) {
                Ok(packet) => {
                    assert!(reads);
                    assert_eq!(packet.dialect(), dialect);
                    let mut read = 0;
                    packet.for_each(|message| {
                        message.unwrap();
                        read += 1;
                    });
                    assert_eq!(read, 2);
                }
                Err(error) => {
                    assert!(!reads);
                    assert_eq!(error, PacketError::WrongFormat { first });
                }
            }
        }
    }
}

#[test]
fn each_format_reads_the_streams_that_it_should() {
    for format in FORMATS {
        for dialect in DIALECTS {
            let (mut reader, bytes) = (reader(format), stream(dialect));
            assert_eq!((reader.dialect(), reader.next_item()), (None, Ok(None)));
            reader.push(&[]);
            assert_eq!(reader.dialect(), None);
            for byte in &bytes {
                reader.push(&[*byte]);
            }
            if format.reads(dialect) {
                assert_eq!(reader.dialect(), Some(dialect));
                assert_eq!(reader.next_item(), Ok(Some(StreamItem::User("hello".into()))));
                assert_eq!((reader.next_item(), reader.finish()), (Ok(None), Ok(())));
            } else {
                let error = StreamError::WrongFormat { first: bytes[0] };
                // Known all the same, so that the refusal is one that the peer reads.
                assert_eq!(reader.dialect(), Some(dialect));
                assert_eq!((reader.next_item(), reader.finish()), (Err(error), Err(error)));
                assert_eq!(reader.pending_bytes(), 0);
            }
        }
    }
}

#[test]
fn what_is_of_neither_format_is_refused() {
    for format in FORMATS {
        for first in 0..=255 {
            let hashicorp = first <= 13 && format != WireFormat::Native;
            let native = first == 0x4d && format != WireFormat::Hashicorp;
            let bytes = [first, 1, 2, 3];
            let mut packets = PacketReader::default();
            let packet = packets.read(format, &bytes).map(|packet| packet.dialect());
            let wrong = Err(PacketError::WrongFormat { first });
            assert_eq!(packet == wrong, !hashicorp && !native, "packet {format:?} {first}");
            let mut stream = reader(format);
            stream.push(&bytes);
            let wrong = Err(StreamError::WrongFormat { first });
            // What is sealed must have been opened before.
            let refused = !hashicorp && !native || first == 10;
            assert_eq!(stream.next_item() == wrong, refused, "stream {format:?} {first}");
        }
    }
}

#[test]
fn an_error_says_what_it_looks_like() {
    let of_packet =
        |format, bytes: &[u8]| PacketReader::default().read(format, bytes).unwrap_err().to_string();
    let of_stream = |format, bytes: &[u8]| {
        let mut reader = reader(format);
        reader.push(bytes);
        reader.next_item().unwrap_err().to_string()
    };
    for (format, bytes, words) in [
        (WireFormat::Native, &part(&Message::Nack(Nack { sequence: 1 }))[..], "type 11, nack"),
        (WireFormat::Hashicorp, &packet(Dialect::Native), "it is in the native format"),
        (WireFormat::Hashicorp, b"\xf4\x03dc1", "label"),
        (WireFormat::Mixed, b"\xf4\x03dc1", "label"),
        (WireFormat::Mixed, b"GET / HTTP/1.1", "of another protocol"),
    ] {
        let error = of_packet(format, bytes);
        assert!(error.contains(words), "{error}");
    }
    for (format, bytes, words) in [
        (WireFormat::Native, &stream(Dialect::Hashicorp)[..], "type 8, user"),
        (WireFormat::Hashicorp, &stream(Dialect::Native), "it is in the native format"),
        (WireFormat::Mixed, b"\xf4\x03dc1", "label"),
        (WireFormat::Mixed, b"\x16\x03\x01", "TLS handshake"),
        (WireFormat::Hashicorp, b"\x0a\x00\x00\x00\x2f", "sealed hashicorp stream"),
        (WireFormat::Mixed, b"\x0a\x00\x00\x00\x2f", "this node has no key"),
    ] {
        let error = of_stream(format, bytes);
        assert!(error.contains(words), "{error}");
    }
}

/// Each packet is in one format; a part of the other is none.
#[test]
fn formats_do_not_mix_within_a_packet() {
    let inner = packet(Dialect::Native);
    let compound = super::compound(&[inner.clone(), part(&Message::User(b"x"))]);
    let mut reader = PacketReader::default();
    let mut read = Vec::new();
    let packet = reader.read(WireFormat::Mixed, &compound).unwrap();
    packet.for_each(|message| read.push(message.map(|message| message.kind())));
    assert_eq!(read[0], Err(PacketError::UnknownKind(0x4d)));
    assert!(read[1].is_ok());
    let compressed = super::compressed(&inner);
    let mut errors = 0;
    let packet = reader.read(WireFormat::Mixed, &compressed).unwrap();
    packet.for_each(|message| errors += usize::from(message.is_err()));
    assert_eq!(errors, 1);
}

/// What a mixed cluster goes by: a peer is told in Go's format that the native one is read as well.
#[test]
fn an_announcement_costs_go_nothing() {
    let ack = |native| part(&Message::Ack(Ack { sequence: 42, payload: b"", native }));
    assert_eq!(ack(false), hex("02 82 a7 5061796c6f6164 c0 a5 5365714e6f 2a"));
    let with = ack(true);
    // `NativeWire` stands before `Payload`, as its bytes do.
    assert_eq!(
        with,
        hex("02 83 aa 4e6174697665 57697265 01 a7 5061796c6f6164 c0 a5 5365714e6f 2a")
    );
}

proptest! {
    /// A node of a mixed cluster reads what one of either format reads, and nothing else.
    #[test]
    fn any_bytes_are_read_alike(
        bytes in vec(any::<u8>(), 0..300),
        start in prop::sample::select(vec![&b"\x4d\x01\x00"[..], b"\x4d\x01", b"\x07\x03", b"\x06\x83", b""]),
    ) {
        let bytes = [start, &bytes[..]].concat();
        let packet = |format| {
            let mut read = Vec::new();
            let mut reader = PacketReader::default();
            let packet = reader.read(format, &bytes)?;
            packet.for_each(|message| read.push(format!("{message:?}")));
            Ok::<_, PacketError>(read)
        };
        let stream = |format| {
            let mut reader = reader(format);
            reader.push(&bytes);
            (reader.next_item(), reader.finish())
        };
        let of = bytes.first().and_then(|first| Dialect::of(*first));
        let alone = match of {
            Some(Dialect::Hashicorp) => WireFormat::Hashicorp,
            _ => WireFormat::Native,
        };
        prop_assert_eq!(packet(WireFormat::Mixed), packet(alone));
        prop_assert_eq!(stream(WireFormat::Mixed), stream(alone));
    }
}
