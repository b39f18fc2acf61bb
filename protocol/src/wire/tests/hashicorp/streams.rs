//! Streams: one message a direction, whole or in pieces, and its limits.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::hex;
use super::super::samples::{Sending, record, sending};
use super::{FORMAT, compressed};
use crate::node::NodeId;
use crate::stats::DropReason;
use crate::wire::hashicorp::stream::MessageReader as HashicorpReader;
use crate::wire::stream::*;
use crate::wire::{CompressionError, WireFormat};

const PORT: u16 = 7946;

/// Everything that a stream comes to: its message, and whether it may end there.
type Outcome = (Result<Option<StreamItem>, StreamError>, Result<(), StreamError>);

/// Reads bytes that arrive in pieces of these lengths, again and again. The message is taken when it is
/// there.
pub(super) fn receive(bytes: &[u8], pieces: &[usize], limits: StreamLimits) -> Outcome {
    let mut reader = MessageReader::new(WireFormat::Hashicorp, limits, PORT);
    let (mut came, mut rest) = (Ok(None), bytes);
    for &len in pieces.iter().cycle() {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        reader.push(piece);
        match reader.next_item() {
            Ok(None) => {}
            item if came == Ok(None) => came = item,
            item => assert_eq!(item.is_err(), came.is_err(), "only one message a direction"),
        }
        if rest.is_empty() {
            break;
        }
    }
    (came, reader.finish())
}

fn at_once(bytes: &[u8]) -> Outcome {
    receive(bytes, &[usize::MAX], StreamLimits::default())
}

fn error(bytes: &[u8]) -> StreamError {
    let (came, finished) = at_once(bytes);
    let error = came.unwrap_err();
    assert_eq!(finished, Err(error));
    error
}

pub(super) fn write(message: &Sending, compressed: bool) -> Vec<u8> {
    let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
    preamble(FORMAT, &mut bytes);
    let mut frames = message.frames(FORMAT).compressed(compressed);
    while frames.next_record(&mut number, &mut bytes) {}
    bytes
}

/// Those messages that Go's format has.
pub(super) fn go_sending() -> impl Strategy<Value = Sending> {
    let is_go =
        |sending: &Sending| !matches!(sending, Sending::Request(..) | Sending::Response(..));
    sending().prop_filter("not in Go's format", is_go)
}

/// What arrives of it: Go's format does not say who sends a state.
pub(super) fn item(sending: &Sending) -> StreamItem {
    match sending.item() {
        StreamItem::PushPull(state) => StreamItem::PushPull(RemoteState { from: None, ..state }),
        item => item,
    }
}

/// A push/pull of these numbers, with nothing behind its header.
pub(super) fn header(nodes: &str, user_state: &str) -> Vec<u8> {
    let keys = ("a4 4a6f696e c3 a5 4e6f646573", "ac 55736572537461746 54c656e");
    hex(&format!("06 83 {} {nodes} {} {user_state}", keys.0, keys.1))
}

/// A node with these fields, as hex digits of keys and values, and a name and an address.
pub(super) fn node(fields: &str) -> Vec<u8> {
    let more = fields.matches("=").count() as u8;
    let mut node = vec![0x80 | (2 + more)];
    node.extend(hex("a4 41646472 a4 7f000001 a4 4e616d65 a1 61"));
    for field in fields.split(';').filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once('=').expect("key=value");
        node.push(0xa0 | key.len() as u8);
        node.extend(key.as_bytes());
        node.extend(hex(value));
    }
    node
}

fn push_pull(bytes: &[u8]) -> RemoteState {
    match at_once(bytes) {
        (Ok(Some(StreamItem::PushPull(state))), Ok(())) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_was_said_on_an_empty_stream() {
    let mut reader = MessageReader::new(WireFormat::Hashicorp, StreamLimits::default(), PORT);
    assert_eq!((reader.next_item(), reader.finish()), (Ok(None), Ok(())));
    reader.push(&[6]);
    assert_eq!((reader.next_item(), reader.finish()), (Ok(None), Err(StreamError::Truncated)));
}

#[test]
fn a_message_of_an_unknown_type_is_told_and_not_read() {
    for kind in [1, 3, 4, 5, 7, 11, 12] {
        let bytes = [&[kind], &[0xff; 40][..]].concat();
        assert_eq!(at_once(&bytes), (Ok(Some(StreamItem::Unknown(kind))), Ok(())));
        let inner = compressed(&bytes);
        assert_eq!(at_once(&inner), (Ok(Some(StreamItem::Unknown(kind))), Ok(())));
    }
}

#[test]
fn nodes_that_are_not_understood_are_left_out_one_by_one() {
    let mut bytes = header("07", "02");
    bytes.extend(node("Port=05"));
    // An old peer leaves out the port.
    bytes.extend(node(""));
    // States that are not known, however large, are no fault.
    bytes.extend(node("State=04"));
    bytes.extend(node("State=ff"));
    bytes.extend(node("Meta=da0201".to_owned().as_str()));
    bytes.extend([1; 0x201]);
    bytes.extend(node("Addr=a0"));
    bytes.extend(node("Name=a0"));
    bytes.extend(b"us");
    let state = push_pull(&bytes);
    let ports: Vec<_> = state.nodes.iter().map(|record| record.node.addr.port()).collect();
    assert_eq!(ports, [5, PORT]);
    assert_eq!(state.skipped, 2);
    let reasons = [DropReason::MetaTooLarge, DropReason::BadAddress, DropReason::BadName];
    assert_eq!(state.refused, reasons);
    assert_eq!((state.join, &state.user_state[..]), (true, &b"us"[..]));
    // One that is malformed is the end: nobody knows where the next one begins.
    let mut bytes = header("01", "00");
    bytes.extend(node("Port=a161"));
    assert_eq!(error(&bytes).reason(), DropReason::Malformed);
}

#[test]
fn what_follows_the_message_is_ignored() {
    let whole = [header("00", "01"), b"u".to_vec()].concat();
    let longer = [&whole[..], &[0xff; 100]].concat();
    for pieces in [1, 7, usize::MAX] {
        let outcome = receive(&longer, &[pieces], StreamLimits::default());
        assert_eq!(outcome, at_once(&whole));
        assert!(matches!(outcome, (Ok(Some(_)), Ok(()))));
    }
}

#[test]
fn what_is_announced_is_judged_first() {
    let many = error(&header("ce 00100001", "00"));
    assert_eq!(many, StreamError::TooManyNodes { count: (1 << 20) + 1, limit: 1 << 20 });
    assert_eq!(many.reason(), DropReason::TooLarge);
    let large = error(&header("00", "ce 01400001"));
    assert_eq!(large, StreamError::MessageTooLarge { len: (20 << 20) + 1, limit: 20 << 20 });
    let user = |len: &str| [hex("08 81 aa 557365724d73674c656e"), hex(len)].concat();
    let large = error(&user("ce 01400001"));
    assert_eq!(large, StreamError::MessageTooLarge { len: (20 << 20) + 1, limit: 20 << 20 });
    for negative in ["ff", "d0 80", "d3 8000000000000000", "cf ffffffffffffffff"] {
        assert_eq!(error(&user(negative)).reason(), DropReason::Malformed, "{negative}");
        assert_eq!(error(&header(negative, "00")).reason(), DropReason::Malformed);
        assert_eq!(error(&header("00", negative)).reason(), DropReason::Malformed);
    }
    // As much as is allowed, and nothing of it comes: nothing is reserved for it.
    for bytes in [header("ce 00100000", "ce 01400000"), user("ce 01400000")] {
        let mut reader = HashicorpReader::new(StreamLimits::default(), PORT);
        reader.push(&bytes);
        assert_eq!(reader.next_item(), Ok(None));
        assert!(reader.reserved_bytes() < 1024, "{}", reader.reserved_bytes());
        assert_eq!(reader.finish(), Err(StreamError::Truncated));
    }
}

#[test]
fn an_object_has_at_most_128_kib() {
    let meta = |len: usize| {
        let mut node = node("Meta=db");
        node.extend(u32::try_from(len).unwrap().to_be_bytes());
        let before = node.len();
        (before + len, [header("01", "00"), node, vec![7; len]].concat())
    };
    let fixed = meta(0).0;
    let limit = 128 * 1024;
    let limits = StreamLimits { max_meta_bytes: 1 << 20, ..StreamLimits::default() };
    for (len, is_read) in [(limit - fixed, true), (limit - fixed + 1, false)] {
        for pieces in [1000, usize::MAX] {
            let (came, _) = receive(&meta(len).1, &[pieces], limits);
            match is_read {
                true => assert!(matches!(came, Ok(Some(StreamItem::PushPull(_))))),
                false => {
                    assert_eq!(came, Err(StreamError::FrameTooLarge { len: limit + 1, limit }))
                }
            }
        }
    }
    // A length that is only claimed.
    let claims = [
        hex("02 81 a7 5061796c6f6164 db ffffffff 61"),
        hex("00 81 db 7fffffff 61"),
        hex("0d 81 a5 4572726f72 c6 00020000"),
        hex("00 81 a1 78 c9 7fffffff 01"),
    ];
    for bytes in claims {
        let mut reader = HashicorpReader::new(StreamLimits::default(), PORT);
        reader.push(&bytes);
        let error = reader.next_item().unwrap_err();
        assert!(matches!(error, StreamError::FrameTooLarge { limit: 0x2_0000, .. }), "{error}");
        reader.push(&[0; 100_000]);
        assert_eq!(reader.next_item(), Err(error));
        assert!(reader.reserved_bytes() < 1024);
    }
}

#[test]
fn a_message_has_a_limit_in_any_pieces() {
    let nodes = [header("0a", "14"), node("Port=05").repeat(10), vec![b'u'; 20]].concat();
    let user = [hex("08 81 aa 557365724d73674c656e 64"), vec![7; 100]].concat();
    for bytes in [nodes, user] {
        for pieces in [1, 3, 50, usize::MAX] {
            let read = |limit| {
                let limits = StreamLimits { max_message_bytes: limit, ..Default::default() };
                receive(&bytes, &[pieces], limits).0
            };
            assert!(matches!(read(bytes.len()), Ok(Some(_))));
            for limit in [0, 1, 2, 20, bytes.len() - 1] {
                assert_eq!(read(limit), {
                    let limits = StreamLimits { max_message_bytes: limit, ..Default::default() };
                    receive(&bytes, &[usize::MAX], limits).0
                });
                let error = read(limit).unwrap_err();
                let StreamError::MessageTooLarge { len, limit: told } = error else {
                    panic!("{error}")
                };
                assert!(len > limit && told == limit);
            }
        }
    }
}

#[test]
fn a_stream_is_compressed_whole_and_once() {
    let message = Sending::User(Bytes::from_static(b"hello"));
    let plain = write(&message, false);
    let bytes = write(&message, true);
    // Even if that is longer, as in Go.
    assert!(bytes.len() > plain.len());
    assert_eq!(bytes, compressed(&plain));
    assert_eq!(at_once(&bytes), (Ok(Some(item(&message))), Ok(())));
    let twice = error(&compressed(&bytes));
    assert_eq!(twice, StreamError::Malformed("compressed within compressed"));
    assert_eq!(error(&compressed(&[])), StreamError::Truncated);
    // All that there is of the message is in there.
    for cut in 1..plain.len() {
        let bytes = compressed(&plain[..cut]);
        assert_eq!(error(&bytes), StreamError::Truncated, "{cut}");
        assert_eq!(error(&[&bytes[..], &plain[cut..]].concat()), StreamError::Truncated);
    }
    let mut algo = bytes.clone();
    algo[7] = 1;
    assert_eq!(error(&algo), StreamError::Compression(CompressionError::Malformed));
}

#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    let limits = StreamLimits { max_message_bytes: 100_000, ..StreamLimits::default() };
    let zeros = |len| write(&Sending::User(vec![0; len].into()), true);
    let head = write(&Sending::User(vec![0; 99_000].into()), false).len() - 99_000;
    let (came, _) = receive(&zeros(100_000 - head), &[usize::MAX], limits);
    assert!(matches!(came, Ok(Some(StreamItem::User(_)))));
    for len in [100_001 - head, 4_000_000] {
        let bytes = zeros(len);
        assert!(bytes.len() < 10_000);
        let mut reader = HashicorpReader::new(limits, PORT);
        reader.push(&bytes);
        let error = reader.next_item().unwrap_err();
        assert_eq!(error.reason(), DropReason::Compression);
        assert!(reader.reserved_bytes() < 1024);
    }
    // A frame has its own limit, in any pieces.
    let limits = StreamLimits { max_frame_bytes: 50, ..StreamLimits::default() };
    let noise: Vec<u8> = (0..=255).collect();
    let bytes = write(&Sending::User(noise.into()), true);
    for pieces in [1, 20, usize::MAX] {
        let (came, _) = receive(&bytes, &[pieces], limits);
        let error = came.unwrap_err();
        assert!(matches!(error, StreamError::FrameTooLarge { limit: 50, .. }), "{error}");
    }
}

#[test]
fn the_words_of_a_refusal_are_made_fit_to_be_shown() {
    let text = b"bad\x1b[2J\nthing\xff";
    let bytes = [&hex("0d 81 a5 4572726f72 ae")[..], text, b"!"].concat();
    let item = at_once(&bytes).0.unwrap().unwrap();
    assert_eq!(item, StreamItem::Error("bad [2J thing\u{fffd}".to_owned()));
    let long = [hex("0d 81 a5 4572726f72 da 0800"), vec![b'x'; 0x800]].concat();
    assert_eq!(at_once(&long).0.unwrap().unwrap(), StreamItem::Error("x".repeat(1024)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_survive_a_stream(
        message in go_sending(),
        compressed: bool,
        pieces in vec(1usize..5000, 1..20),
    ) {
        let bytes = write(&message, compressed);
        let outcome = receive(&bytes, &pieces, StreamLimits::default());
        prop_assert_eq!(outcome, (Ok(Some(item(&message))), Ok(())));
    }

    #[test]
    fn many_nodes_survive_a_push_pull(
        few in vec(record(), 1..10),
        count in 300usize..2000,
        compressed: bool,
        pieces in vec(1usize..100_000, 1..20),
    ) {
        let records: Vec<_> = few.iter().cycle().take(count).cloned().collect();
        let start = PushPullStart { from: NodeId::new("a").unwrap(), to: None, join: true };
        let message = Sending::PushPull(start, records, Bytes::from_static(b"state"));
        let outcome = receive(&write(&message, compressed), &pieces, StreamLimits::default());
        prop_assert_eq!(outcome, (Ok(Some(item(&message))), Ok(())));
    }

    #[test]
    fn a_cut_stream_is_truncated(message in go_sending(), compressed: bool, at: prop::sample::Index) {
        let bytes = write(&message, compressed);
        let cut = at.index(bytes.len());
        let expected = if cut == 0 { Ok(()) } else { Err(StreamError::Truncated) };
        prop_assert_eq!(at_once(&bytes[..cut]), (Ok(None), expected));
    }
}
