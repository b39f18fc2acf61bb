//! Whole streams as they arrive: in pieces, cut off, of other formats, damaged.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::hex;
use super::samples::{Sending, record, sending};
use crate::node::NodeId;
use crate::wire::Dialect;
use crate::wire::stream::*;

const FORMAT: Dialect = Dialect::Native;

fn reader() -> FrameReader {
    FrameReader::new(StreamLimits::default())
}

#[test]
fn streams_of_others_are_told_apart() {
    for first in 0..=255u8 {
        let mut reader = reader();
        reader.push(&[first]);
        let next = reader.next_frame();
        if first == 0x4D {
            assert_eq!(next, Ok(None));
        } else {
            assert_eq!(next, Err(StreamError::WrongFormat { first }));
            reader.push(&[0x4D, 1]);
            assert_eq!(reader.next_frame(), Err(StreamError::WrongFormat { first }));
            assert_eq!(reader.finish(), Err(StreamError::WrongFormat { first }));
        }
    }
    let mut reader = reader();
    reader.push(&[0x4D, 2]);
    assert_eq!(reader.next_frame(), Err(StreamError::WrongVersion(2)));
}

#[test]
fn a_stream_ends_between_frames() {
    let mut reader = reader();
    let mut idle = vec![reader.is_idle()];
    for byte in hex("4d 01 00000002 6162 00000000") {
        reader.push(&[byte]);
        while reader.next_frame().unwrap().is_some() {}
        idle.push(reader.is_idle());
        assert_eq!(reader.finish().is_ok(), reader.is_idle());
    }
    let at: Vec<_> = (0..idle.len()).filter(|&i| idle[i]).collect();
    assert_eq!(at, [0, 2, 8, 12]);
}

#[test]
fn memory_follows_what_arrived() {
    let mut reader = reader();
    reader.push(&hex("4d 01 01400000 6162"));
    assert_eq!(reader.next_frame(), Ok(None));
    assert!(reader.reserved_bytes() < 1024, "{}", reader.reserved_bytes());
    for claim in ["01400001", "ffffffff"] {
        let mut reader = self::reader();
        reader.push(&hex(&format!("4d 01 {claim}")));
        let error = reader.next_frame().unwrap_err();
        assert!(matches!(error, StreamError::FrameTooLarge { limit: 0x140_0000, .. }), "{error}");
        reader.push(&[0; 100_000]);
        assert_eq!(reader.next_frame(), Err(error));
        assert!(reader.reserved_bytes() < 1024, "{}", reader.reserved_bytes());
    }
}

/// Reads bytes that arrive in pieces of these lengths, again and again.
fn receive(bytes: &[u8], pieces: &[usize]) -> Result<Vec<StreamItem>, StreamError> {
    let mut reader = reader();
    let mut assembler = Assembler::new(StreamLimits::default());
    let (mut items, mut rest) = (Vec::new(), bytes);
    for &len in pieces.iter().cycle() {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        reader.push(piece);
        while let Some(payload) = reader.next_frame()? {
            items.extend(assembler.push(&payload)?);
        }
        if rest.is_empty() {
            break;
        }
    }
    reader.finish()?;
    assembler.finish()?;
    Ok(items)
}

fn write(messages: &[Sending]) -> Vec<u8> {
    let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
    preamble(FORMAT, &mut bytes);
    for message in messages {
        let mut frames = message.frames(FORMAT);
        while frames.next_record(&mut number, &mut bytes) {}
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_survive_a_stream(
        messages in vec(sending(), 0..4),
        pieces in vec(1usize..5000, 1..20),
    ) {
        let items: Vec<_> = messages.iter().map(Sending::item).collect();
        prop_assert_eq!(receive(&write(&messages), &pieces), Ok(items));
    }

    #[test]
    fn many_nodes_survive_a_push_pull(
        few in vec(record(), 1..10),
        count in 300usize..3000,
        pieces in vec(1usize..100_000, 1..20),
    ) {
        let records: Vec<_> = few.iter().cycle().take(count).cloned().collect();
        let start = PushPullStart { from: NodeId::new("a").unwrap(), to: None, join: true };
        let message = Sending::PushPull(start, records, Bytes::from_static(b"state"));
        let item = message.item();
        prop_assert_eq!(receive(&write(&[message]), &pieces), Ok(vec![item]));
    }

    #[test]
    fn a_cut_stream_is_an_error(message in sending(), at: prop::sample::Index) {
        let bytes = write(&[message]);
        let cut = at.index(bytes.len());
        let received = receive(&bytes[..cut], &[usize::MAX]);
        // Nothing, or a preamble and nothing: nobody said anything.
        let expected = if cut == 0 || cut == 2 { Ok(vec![]) } else { Err(StreamError::Truncated) };
        prop_assert_eq!(received, expected);
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in vec(any::<u8>(), 0..600),
        pieces in vec(1usize..100, 1..5),
        native: bool,
    ) {
        let bytes = if native { [&[0x4D, 1, 0, 0], &bytes[..]].concat() } else { bytes };
        let _ = receive(&bytes, &pieces);
    }

    #[test]
    fn any_payload_is_read_without_panic(bodies in vec(vec(any::<u8>(), 0..80), 1..5)) {
        for kind in 0..=24 {
            let mut assembler = Assembler::new(StreamLimits::default());
            for (number, body) in bodies.iter().enumerate() {
                let last = u8::from(number + 1 == bodies.len());
                let _ = assembler.push(&[&[0, 0, 0, number as u8, last, kind], &body[..]].concat());
            }
        }
    }

    #[test]
    fn damaged_streams_are_read_without_panic(
        messages in vec(sending(), 1..3),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        pieces in vec(1usize..5000, 1..5),
    ) {
        let mut bytes = write(&messages);
        for (at, byte) in damage {
            // The interesting bytes are at the front of long messages.
            let at = at.index(bytes.len().min(2000));
            bytes[at] = byte;
        }
        let _ = receive(&bytes, &pieces);
    }
}
