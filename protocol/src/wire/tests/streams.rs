//! Frames and messages of a stream: exact bytes, order and limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::hex;
use super::samples::remote;
use crate::message::{Ack, Ping};
use crate::node::{Node, NodeId, NodeState, Peer, Versions};
use crate::stats::DropReason;
use crate::wire::stream::*;
use crate::wire::{BodyError, Dialect};

const FORMAT: Dialect = Dialect::Native;

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn payloads(mut frames: MessageFrames) -> Vec<Vec<u8>> {
    let (mut number, mut all) = (FrameNumber::default(), Vec::new());
    loop {
        let mut payload = Vec::new();
        if !frames.next_payload(&mut number, &mut payload) {
            assert!(payload.is_empty());
            return all;
        }
        all.push(payload);
    }
}

/// A message is these payloads, and these payloads are this item.
#[track_caller]
fn check(frames: MessageFrames, digits: &[&str], item: StreamItem) {
    let written = payloads(frames);
    let expected: Vec<_> = digits.iter().map(|digits| hex(digits)).collect();
    assert_eq!(written, expected);
    assert_eq!(assemble(digits), Ok(vec![item]));
}

fn assemble(digits: &[&str]) -> Result<Vec<StreamItem>, StreamError> {
    assemble_within(StreamLimits::default(), digits)
}

fn assemble_within(limits: StreamLimits, digits: &[&str]) -> Result<Vec<StreamItem>, StreamError> {
    let mut assembler = Assembler::new(limits);
    let mut items = Vec::new();
    for digits in digits {
        items.extend(assembler.push(&hex(digits))?);
    }
    assembler.finish()?;
    Ok(items)
}

fn node(name: &str) -> Node {
    let addr = "10.0.0.2:7946".parse().unwrap();
    Node::new(id(name), addr, Bytes::from_static(b"m"), Versions::default())
}

#[test]
fn pings_and_acks() {
    let source = crate::message::PingSource { node: "a", addr: "10.0.0.1:7946".parse().unwrap() };
    let ping = Ping { sequence: 7, node: "b", source: Some(source), native: true };
    check(
        MessageFrames::ping(FORMAT, &ping),
        &["00000000 01 01 07 0162 01 0161 04 0a000001 fb0a1f"],
        StreamItem::Ping { sequence: 7, node: Some(id("b")), source: Some((id("a"), source.addr)) },
    );
    check(
        MessageFrames::ack(FORMAT, &Ack { sequence: 7, payload: b"p", native: true }),
        &["00000000 01 03 07 0170"],
        StreamItem::Ack { sequence: 7, payload: "p".into() },
    );
}

#[test]
fn messages_of_bytes() {
    check(
        MessageFrames::user(FORMAT, "hi".into()),
        &["00000000 01 13 6869"],
        StreamItem::User("hi".into()),
    );
    check(
        MessageFrames::user(FORMAT, Bytes::new()),
        &["00000000 01 13"],
        StreamItem::User(Bytes::new()),
    );
    check(
        MessageFrames::request(0x0102, "hi".into()),
        &["00000000 01 14 0102 6869"],
        StreamItem::Request { topic: 0x0102, body: "hi".into() },
    );
    check(
        MessageFrames::response(3, "hi".into()),
        &["00000000 01 15 03 6869"],
        StreamItem::Response { status: 3, body: "hi".into() },
    );
    check(
        MessageFrames::error(FORMAT, "no"),
        &["00000000 01 16 6e6f"],
        StreamItem::Error("no".into()),
    );
}

#[test]
fn a_busy_answer() {
    let other = |name, addr: &str| Peer::named(addr.parse().unwrap(), id(name));
    let others = vec![other("a", "10.0.0.1:7946"), other("b", "[2001:db8::1]:80")];
    let busy = Busy { retry_after: Duration::from_millis(1500), others };
    let bytes = "00000000 01 17 fbdc05 02 0161 04 0a000001 fb0a1f \
        0162 10 20010db8000000000000000000000001 50";
    check(MessageFrames::busy(&busy), &[bytes], StreamItem::Busy(busy.clone()));
    // What a later version adds is passed over.
    let more = format!("{bytes} 01 02 03");
    assert_eq!(assemble(&[&more]), Ok(vec![StreamItem::Busy(busy.clone())]));
    // Neither is more than the limits written, nor a longer time read.
    let nameless = Peer::from(busy.others[0].addr);
    let mut others = vec![nameless; 9];
    others.extend(vec![busy.others[0].clone(); 9]);
    let endless = Busy { retry_after: Duration::MAX, others };
    let most = Busy { retry_after: MAX_RETRY_AFTER, others: vec![busy.others[0].clone(); 4] };
    assert_eq!(payloads(MessageFrames::busy(&endless)), payloads(MessageFrames::busy(&most)));
    let most = Busy { others: Vec::new(), ..most };
    let read = assemble(&["00000000 01 17 fcffffffff 00"]);
    assert_eq!(read, Ok(vec![StreamItem::Busy(most)]));
}

#[test]
fn a_busy_answer_that_is_garbage_is_an_error() {
    let node = |ip: &str, port: &str| format!("01 01 0161 {ip} {port}");
    let cases = [
        (String::new(), BodyError::Truncated),
        ("01".to_owned(), BodyError::Truncated),
        ("01 01".to_owned(), BodyError::Truncated),
        (node("04 0a0000", ""), BodyError::Truncated),
        (node("03 0a0000", "50"), BodyError::AddressLength(3)),
        (node("04 0a000001", "00"), BodyError::Address("10.0.0.1:0".parse().unwrap())),
        (node("04 00000000", "50"), BodyError::Address("0.0.0.0:80".parse().unwrap())),
        (node("04 e0000001", "50"), BodyError::Address("224.0.0.1:80".parse().unwrap())),
        ("01 01 00 04 0a000001 50".to_owned(), crate::NameError::Empty.into()),
        ("01 01 01ff 04 0a000001 50".to_owned(), BodyError::NameNotUtf8),
        ("01 05".to_owned(), BodyError::Malformed("a busy peer names more than four others")),
    ];
    for (body, error) in cases {
        let read = assemble(&[&format!("00000000 01 17 {body}")]);
        assert_eq!(read, Err(StreamError::Body { message: "busy answer", error }), "{body}");
    }
}

/// A message of frames without a body would never end by its length.
#[test]
fn frames_of_nothing_are_no_message() {
    let nothing = StreamError::Malformed("a frame of nothing in the middle of a message");
    // A user message, one that is skipped, a push/pull with frames of its own or of a later version.
    for message in [
        ["00000000 00 13 6869", "00000001 00 13"],
        ["00000000 00 63", "00000001 00 63"],
        ["00000000 00 10 01 00 02 0161 00", "00000001 00 12"],
        ["00000000 00 10 01 00 02 0161 00", "00000001 00 63"],
    ] {
        assert_eq!(assemble(&message), Err(nothing), "{message:?}");
    }
    // The first one and the last one may be empty.
    let item = StreamItem::User("hi".into());
    let message = ["00000000 00 13", "00000001 00 13 6869", "00000002 01 13"];
    assert_eq!(assemble(&message), Ok(vec![item]));
}

#[test]
fn push_pulls() {
    let start = PushPullStart { from: id("a"), to: None, join: true };
    let record =
        SnapshotRecord { node: Arc::new(node("b")), incarnation: 1, state: NodeState::Suspect };
    let state = RemoteState { from: Some(id("a")), join: true, ..RemoteState::default() };
    check(
        MessageFrames::push_pull(FORMAT, start.clone(), [].into(), Bytes::new()),
        &["00000000 01 10 01 00 00 0161 00"],
        StreamItem::PushPull(state.clone()),
    );
    check(
        MessageFrames::push_pull(FORMAT, start, [record.clone()].into(), "us".into()),
        &[
            "00000000 00 10 01 01 02 0161 00",
            "00000001 00 11 16 01 01 00 0162 04 0a000002 fb0a1f 016d 06 010502000000",
            "00000002 01 12 7573",
        ],
        StreamItem::PushPull(RemoteState {
            nodes: vec![remote(&record)],
            user_state: "us".into(),
            ..state
        }),
    );
}

#[test]
fn decoded_nodes_are_counted_while_the_rest_is_awaited() {
    let start = PushPullStart { from: id("a"), to: None, join: true };
    let record =
        SnapshotRecord { node: Arc::new(node("b")), incarnation: 1, state: NodeState::Alive };
    let message = MessageFrames::push_pull(FORMAT, start, [record].into(), "us".into());
    let mut assembler = Assembler::new(StreamLimits::default());
    let counts: Vec<_> = (payloads(message).iter())
        .map(|payload| {
            assembler.push(payload).unwrap();
            assembler.pending_nodes()
        })
        .collect();
    assert_eq!(counts, [0, 1, 0]);
}

#[test]
fn large_messages_are_cut_into_frames_of_64_kib() {
    let body: Bytes = (0..200_000u32).map(|i| i as u8).collect::<Vec<_>>().into();
    let frames = payloads(MessageFrames::request(9, body.clone()));
    let lengths: Vec<_> = frames.iter().map(Vec::len).collect();
    assert_eq!(lengths, [65_536, 65_536, 65_536, 200_002 - 3 * 65_530 + 6]);
    let mut assembler = Assembler::new(StreamLimits::default());
    let mut items = frames.iter().filter_map(|frame| assembler.push(frame).unwrap());
    assert_eq!(items.next(), Some(StreamItem::Request { topic: 9, body }));
    // To the last byte of a frame, and one over.
    let user = |len| payloads(MessageFrames::user(FORMAT, vec![0; len].into())).len();
    assert_eq!((user(65_530), user(65_531)), (1, 2));
}

#[test]
fn nodes_are_not_cut() {
    let mut large = node("large");
    large.meta = vec![1; 65_000].into();
    let record = SnapshotRecord { node: Arc::new(large), incarnation: 1, state: NodeState::Alive };
    let start = PushPullStart { from: id("a"), to: None, join: false };
    let records = vec![record; 3].into();
    let frames = payloads(MessageFrames::push_pull(FORMAT, start, records, Bytes::new()));
    assert_eq!(frames.len(), 4);
    let limits = StreamLimits { max_meta_bytes: 65_000, ..StreamLimits::default() };
    let mut assembler = Assembler::new(limits);
    let item = frames.iter().find_map(|frame| assembler.push(frame).unwrap());
    assert!(matches!(item, Some(StreamItem::PushPull(state)) if state.nodes.len() == 3));
}

#[test]
fn a_long_error_is_cut_at_a_character() {
    let text = format!("{}é", "e".repeat(1023));
    let frames = payloads(MessageFrames::error(FORMAT, &text));
    assert_eq!(frames[0].len(), 6 + 1023);
    let long = format!("00000000 01 16 {}", "65".repeat(1025));
    let error = assemble(&[&long]).unwrap_err();
    assert_eq!(error, StreamError::MessageTooLarge { len: 1025, limit: 1024 });
    assert_eq!(assemble(&["00000000 01 16 ff"]), Ok(vec![StreamItem::Error("\u{FFFD}".into())]));
}

#[test]
fn frames_come_in_their_order() {
    let error = assemble(&["00000001 01 13"]).unwrap_err();
    assert_eq!(error, StreamError::OutOfOrder { expected: 0, got: 1 });
    let repeated = assemble(&["00000000 01 13", "00000000 01 13"]).unwrap_err();
    assert_eq!(repeated, StreamError::OutOfOrder { expected: 1, got: 0 });
    // The numbers go on over the messages of the stream.
    let items = assemble(&["00000000 01 13 61", "00000001 00 13 62", "00000002 01 13 63"]);
    assert_eq!(items, Ok(vec![StreamItem::User("a".into()), StreamItem::User("bc".into())]));
}

#[test]
fn unknown_kinds_are_skipped() {
    let items = assemble(&["00000000 00 63 61", "00000001 01 13 62", "00000002 01 13 63"]);
    assert_eq!(items, Ok(vec![StreamItem::Unknown(0x63), StreamItem::User("c".into())]));
    // Inside a push/pull too.
    let state = RemoteState { from: Some(id("a")), ..RemoteState::default() };
    let items = assemble(&["00000000 00 10 00 00 00 0161 00", "00000001 01 63 6162"]);
    assert_eq!(items, Ok(vec![StreamItem::PushPull(state)]));
}

#[test]
fn nodes_that_are_not_understood_are_counted() {
    let good = "00 01 00 0162 04 0a000002 fb0a1f 00 00";
    let unknown_state = "09 01 00 0162 04 0a000002 fb0a1f 00 00";
    let no_name = "00 01 00 00 04 0a000002 fb0a1f 00 00";
    let no_port = "00 01 00 0162 04 0a000002 00 00 00";
    let meta = "00 01 00 0162 04 0a000002 fb0a1f 026d6d 00";
    let longer = "02 01 00 0163 04 0a000003 fb0a1f 016d 00 ff";
    let cut = "02 01 00 0163";
    let all = [good, unknown_state, no_name, no_port, meta, longer, cut]
        .map(|node| format!("{:02x} {node}", hex(node).len()))
        .concat();
    let limits = StreamLimits { max_meta_bytes: 1, ..StreamLimits::default() };
    let frames = ["00000000 00 10 00 07 00 00 00", &format!("00000001 01 11 {all}")];
    let items = assemble_within(limits, &frames).unwrap();
    let [StreamItem::PushPull(state)] = &items[..] else { panic!("{items:?}") };
    assert_eq!((&state.from, state.join, state.skipped), (&None, false, 1));
    let names: Vec<_> = state.nodes.iter().map(|record| record.node.id.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(state.nodes[1].state, NodeState::Dead);
    use DropReason::{BadAddress, BadName, MetaTooLarge, Truncated};
    assert_eq!(state.refused, [BadName, BadAddress, MetaTooLarge, Truncated]);
}

#[test]
fn a_push_pull_keeps_its_word() {
    let malformed = |digits: &[&str]| {
        let error = assemble(digits).unwrap_err();
        assert!(matches!(error, StreamError::Malformed(_)), "{error}");
        assert_eq!(error.reason(), DropReason::Malformed);
        error.to_string()
    };
    let one = "0f 00 01 00 0162 04 0a000002 fb0a1f 00 00";
    let nodes = format!("00000001 01 11 {one}");
    assert!(malformed(&["00000000 01 10 00 01 00 00 00"]).contains("fewer nodes"));
    assert!(malformed(&["00000000 00 10 00 00 00 00 00", &nodes]).contains("more nodes"));
    assert!(malformed(&["00000000 01 10 00 00 01 00 00"]).contains("less user state"));
    let more = ["00000000 00 10 00 00 01 00 00", "00000001 01 12 7573"];
    assert!(malformed(&more).contains("more user state"));
    let cut = ["00000000 00 10 00 01 00 00 00", "00000001 01 11 0e 00"];
    assert!(malformed(&cut).contains("cut off"));
    let inside = ["00000000 00 10 00 01 00 00 00", "00000001 01 13 61"];
    assert!(malformed(&inside).contains("began before"));
    malformed(&["00000000 01 11"]);
    malformed(&["00000000 01 12"]);
    malformed(&["00000000 00 13", "00000001 01 14"]);
    malformed(&["00000000 01"]);
    malformed(&[""]);
    malformed(&["00000000 01 14 01"]);
    malformed(&["00000000 01 15"]);
    let header = assemble(&["00000000 01 10 00 00"]).unwrap_err();
    assert_eq!(header, StreamError::Body { message: "push/pull", error: BodyError::Truncated },);
    assert_eq!(assemble(&["00000000 00 13"]), Err(StreamError::Truncated));
}

#[test]
fn what_is_announced_is_judged_first() {
    let many = assemble(&["00000000 00 10 00 fcffffffff 00 00 00"]).unwrap_err();
    assert_eq!(many, StreamError::TooManyNodes { count: u32::MAX as usize, limit: 1 << 20 });
    assert_eq!(many.reason(), DropReason::TooLarge);
    let large = assemble(&["00000000 00 10 00 00 fcffffffff 00 00"]).unwrap_err();
    assert_eq!(large, StreamError::MessageTooLarge { len: u32::MAX as usize, limit: 20 << 20 });
    // As much as is allowed, and nothing of it comes.
    let mut assembler = Assembler::new(StreamLimits::default());
    let header = hex("00000000 00 10 00 fc00001000 fc00004001 00 00");
    assert_eq!(assembler.push(&header), Ok(None));
    assert!(!assembler.is_idle());
    assert_eq!(assembler.finish(), Err(StreamError::Truncated));
}

#[test]
fn messages_have_a_limit() {
    let mut limits = StreamLimits { max_user_bytes: 3, ..StreamLimits::default() };
    let over = |kind: &str, head: &str| {
        let whole = assemble_within(limits, &[&format!("00000000 01 {kind} {head} 616161")]);
        assert_eq!(whole.map(|items| items.len()), Ok(1));
        let frames =
            [format!("00000000 00 {kind} {head} 6161"), format!("00000001 00 {kind} 6161")];
        assemble_within(limits, &[&frames[0], &frames[1]]).unwrap_err()
    };
    assert_eq!(over("13", ""), StreamError::MessageTooLarge { len: 4, limit: 3 });
    assert_eq!(over("14", "0000"), StreamError::MessageTooLarge { len: 6, limit: 5 });
    assert_eq!(over("15", "00"), StreamError::MessageTooLarge { len: 5, limit: 4 });
    // Skipped ones too.
    limits.max_message_bytes = 3;
    let skipped = assemble_within(limits, &["00000000 00 63 6161", "00000001 00 63 6161"]);
    assert_eq!(skipped, Err(StreamError::MessageTooLarge { len: 4, limit: 3 }));
}
