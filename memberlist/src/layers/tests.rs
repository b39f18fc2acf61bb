//! Any content through any layers, and any bytes instead of it.

use std::sync::Arc;

use memberlist_protocol::wire::stream::{
    FrameNumber, MessageFrames, MessageReader, StreamItem, StreamLimits, preamble,
};
use memberlist_protocol::wire::{Dialect, WireFormat};
use memberlist_security::{Keyring, SecretKey, Version};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::Encryption;

fn layers(label: &str, keys: &[u8], inbound: InboundLabel) -> Arc<Layers> {
    layers_of(WireFormat::Native, Version::V1, label, keys, inbound)
}

fn layers_of(
    format: WireFormat,
    version: Version,
    label: &str,
    keys: &[u8],
    inbound: InboundLabel,
) -> Arc<Layers> {
    let mut keys = keys.iter().map(|n| SecretKey::from_bytes(&[*n; 16]).unwrap());
    let mut encryption =
        keys.next().map(|first| Encryption::new(Keyring::with_keys(first, keys).unwrap()));
    encryption.iter_mut().for_each(|it| it.accept_v0 = version == Version::V0);
    let sealing = Sealing::new(encryption.as_ref(), version);
    Arc::new(Layers::new(format, Label::new(label).unwrap(), true, inbound, sealing))
}

/// Content of a native packet.
fn wrapped(layers: &Layers, content: &[u8]) -> Vec<u8> {
    let how = layers.wrapping();
    let mut packet = vec![0; how.head];
    packet.extend_from_slice(content);
    layers.wrap(&mut packet, how).unwrap();
    // The padding of encryption version 0 takes what it needs of the room.
    assert!(packet.len() <= how.head + content.len() + how.tail);
    packet
}

#[test]
fn no_byte_of_a_wrapped_packet_can_be_changed() {
    for label in ["", "dc1"] {
        let layers = layers(label, &[1], InboundLabel::Check);
        let packet = wrapped(&layers, b"M\x01\x00content");
        for at in 0..packet.len() {
            for value in 0..=255 {
                let mut changed = packet.clone();
                changed[at] = value;
                let accepted = layers.unwrap(&mut changed).is_ok();
                assert_eq!(accepted, value == packet[at], "byte {at} to {value:#04x}");
            }
        }
        for len in 0..packet.len() {
            assert!(layers.unwrap(&mut packet[..len].to_vec()).is_err(), "{len} bytes");
        }
    }
}

/// What goes wrong is told by its own reason.
#[test]
fn each_fault_has_its_own_reason() {
    let refused =
        |by: &Layers, packet: &[u8]| by.unwrap(&mut packet.to_vec()).unwrap_err().reason();
    let check = InboundLabel::Check;
    let (plain, blue, red) =
        (layers("", &[], check), layers("blue", &[], check), layers("red", &[], check));
    let (sealed, other) = (layers("", &[1], check), layers("", &[2], check));
    let content = b"M\x01\x00content";
    assert_eq!(refused(&blue, &wrapped(&plain, content)), DropReason::LabelMissing);
    assert_eq!(refused(&plain, &wrapped(&blue, content)), DropReason::LabelUnexpected);
    assert_eq!(refused(&red, &wrapped(&blue, content)), DropReason::LabelMismatch);
    let doubled = [&wrapped(&blue, b"")[..], &wrapped(&blue, content)].concat();
    assert_eq!(refused(&blue, &doubled), DropReason::LabelMalformed);
    assert_eq!(refused(&blue, &[0xF4, 9, b'b']), DropReason::LabelMalformed);
    assert_eq!(refused(&sealed, &wrapped(&plain, content)), DropReason::PlaintextRefused);
    assert_eq!(refused(&plain, &wrapped(&sealed, content)), DropReason::NoKey);
    assert_eq!(refused(&other, &wrapped(&sealed, content)), DropReason::WrongKey);
    let mut version = wrapped(&sealed, content);
    version[0] = 0;
    assert_eq!(refused(&sealed, &version), DropReason::EncryptionVersion);
    assert_eq!(refused(&sealed, &[1; 20]), DropReason::Malformed);
}

/// Everything that a direction of a stream carries, unwrapped.
fn through_stream(
    (from, to): (&Arc<Layers>, &Arc<Layers>),
    payload: &[u8],
    pieces: &[usize],
) -> Result<StreamItem, LayerError> {
    let dialect = from.format.towards_strangers();
    let mut writer = StreamWriter::of_dialler(Arc::clone(from), None);
    let mut message = MessageFrames::user(dialect, payload.to_vec().into());
    let (mut number, mut began, mut bytes, mut out) =
        (FrameNumber::default(), false, Vec::new(), Vec::new());
    while writer.wrap(&mut out, |out| {
        if !std::mem::replace(&mut began, true) {
            preamble(dialect, out);
        }
        message.next_record(&mut number, out)
    })? {
        bytes.extend_from_slice(&out);
    }
    let mut reader = StreamReader::of_dialler(Arc::clone(to));
    let mut messages = MessageReader::new(to.format, StreamLimits::default(), 0);
    let (mut rest, mut sizes) = (&bytes[..], pieces.iter().cycle());
    let mut item = None;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        reader.push(piece, &mut messages)?;
        item = item.or(messages.next_item().unwrap());
        rest = more;
    }
    assert!(reader.is_whole()?);
    Ok(item.expect("a whole message"))
}

/// The records of a message, one by one, as a direction of a stream carries them.
struct Records(StreamWriter, MessageFrames, FrameNumber, bool);

impl Records {
    fn of(writer: StreamWriter, message: MessageFrames) -> Self {
        Self(writer, message, FrameNumber::default(), false)
    }

    fn next(&mut self) -> Vec<u8> {
        let Self(writer, message, number, began) = self;
        let mut out = Vec::new();
        let written = writer.wrap(&mut out, |out| {
            if !std::mem::replace(began, true) {
                preamble(Dialect::Native, out);
            }
            message.next_record(number, out)
        });
        assert!(written.unwrap(), "no further record");
        out
    }
}

fn messages() -> MessageReader {
    MessageReader::new(WireFormat::Native, StreamLimits::default(), 0)
}

/// Gives what arrives to a reader, and the message if that was all of it.
fn take(reader: &mut StreamReader, bytes: &[u8]) -> Result<Option<StreamItem>, LayerError> {
    let mut messages = messages();
    reader.push(bytes, &mut messages)?;
    Ok(messages.next_item().unwrap())
}

fn switch(layers: &Layers, encrypt_outgoing: bool, verify_incoming: bool) {
    let keys = layers.sealing.keys().unwrap();
    keys.encrypt_outgoing.store(encrypt_outgoing, std::sync::atomic::Ordering::Relaxed);
    keys.verify_incoming.store(verify_incoming, std::sync::atomic::Ordering::Relaxed);
}

/// A reader takes a direction to be sealed or plain from its first byte to its last.
#[test]
fn a_direction_that_was_begun_is_ended_so_whatever_is_switched() {
    let both = layers("", &[1], InboundLabel::Check);
    for sealed in [false, true] {
        switch(&both, sealed, false);
        let message = MessageFrames::user(Dialect::Native, vec![7; 100_000].into());
        let mut records = Records::of(StreamWriter::of_dialler(Arc::clone(&both), None), message);
        let first = records.next();
        switch(&both, !sealed, false);
        let mut reader = StreamReader::of_dialler(Arc::clone(&both));
        let mut messages = messages();
        for (record, whole) in [(first, false), (records.next(), true)] {
            reader.push(&record, &mut messages).unwrap();
            assert_eq!(messages.next_item().unwrap().is_some(), whole);
        }
        assert_eq!(reader.opened_with().is_some(), sealed);
    }
}

/// However long ago the stream was begun.
#[test]
fn plaintext_is_refused_from_the_switch_on() {
    let node = layers("", &[1], InboundLabel::Check);
    switch(&node, false, false);
    let mut reader = StreamReader::of_dialler(Arc::clone(&node));
    assert_eq!(take(&mut reader, b"M"), Ok(None));
    switch(&node, false, true);
    assert_eq!(take(&mut reader, b"\x01"), Err(LayerError::PlaintextRefused));
}

/// It would be progress for ever, and could be sent again by who has only seen it.
#[test]
fn a_sealed_frame_of_nothing_is_refused() {
    let both = layers("", &[1], InboundLabel::Check);
    let mut writer = StreamWriter::of_dialler(Arc::clone(&both), None);
    let mut frame = Vec::new();
    assert!(writer.wrap(&mut frame, |_| true).unwrap());
    let refused = take(&mut StreamReader::of_dialler(both), &frame);
    assert!(matches!(refused, Err(LayerError::Malformed(_))), "{refused:?}");
}

/// Who seals a question, or accepts nothing that is not sealed, takes an answer in the clear for
/// nothing but a refusal, and not for a long one.
#[test]
fn an_answer_in_the_clear_is_at_most_a_refusal() {
    let asker = layers("", &[1], InboundLabel::Check);
    let plain = layers("", &[], InboundLabel::Check);
    for (encrypt, verify, refusal_only) in
        [(true, true, true), (true, false, true), (false, true, true), (false, false, false)]
    {
        switch(&asker, encrypt, verify);
        let question = MessageFrames::user(Dialect::Native, "hello".into());
        let writer = StreamWriter::of_dialler(Arc::clone(&asker), None);
        let mut question = Records::of(writer, question);
        question.next();
        let mut reader = StreamReader::of_answer(Arc::clone(&asker));
        reader.expect_answer(&question.0, Dialect::Native);
        let answer = MessageFrames::error(Dialect::Native, "no");
        let mut answer = Records::of(StreamWriter::of_answer(Arc::clone(&plain)), answer);
        let item = take(&mut reader, &answer.next()).unwrap();
        assert_eq!(item, Some(StreamItem::Error("no".to_owned())));
        assert_eq!(reader.is_refusal(), refusal_only, "{encrypt} {verify}");
        let mut messages = messages();
        assert_eq!(reader.push(&[0; 2048], &mut messages).is_err(), refusal_only);
    }
}

/// In Go's format pings begin as sealed packets do.
#[test]
fn a_ping_in_gos_format_and_a_sealed_packet_are_told_apart() {
    let hashicorp =
        |keys: &[u8]| layers_of(WireFormat::Hashicorp, Version::V1, "", keys, InboundLabel::Check);
    let (keyed, plain) = (hashicorp(&[1]), hashicorp(&[]));
    let ping = b"\x00\x82\xa4Node\xa1b\xa5SeqNo\x01";
    assert_eq!(plain.unwrap(&mut ping.to_vec()).unwrap(), ping);
    // It might be a sealed one that does not open.
    assert!(keyed.unwrap(&mut ping.to_vec()).is_err());
    switch(&keyed, true, false);
    assert_eq!(keyed.unwrap(&mut ping.to_vec()).unwrap(), ping);
    // What cannot be a ping is sealed.
    let sealed = [&b"\x01\x55"[..], &[7; 40]].concat();
    assert_eq!(plain.unwrap(&mut sealed.clone()), Err(LayerError::NoKey));
    switch(&keyed, true, true);
    let suspect = b"\x03\x83";
    assert_eq!(keyed.unwrap(&mut suspect.to_vec()), Err(LayerError::PlaintextRefused));
}

/// The keys and labels of one format serve the other.
#[test]
fn a_question_in_gos_format_is_answered_without_a_place() {
    let both = layers_of(WireFormat::Mixed, Version::V1, "blue", &[1], InboundLabel::Check);
    let question = MessageFrames::user(Dialect::Hashicorp, "hello".into());
    let mut asked = StreamWriter::of_dialler(Arc::clone(&both), None);
    let (mut number, mut out) = (FrameNumber::default(), Vec::new());
    let mut question = question;
    assert!(asked.wrap(&mut out, |out| question.next_record(&mut number, out)).unwrap());
    let mut reader = StreamReader::of_dialler(Arc::clone(&both));
    let mut messages = MessageReader::new(WireFormat::Mixed, StreamLimits::default(), 0);
    reader.push(&out, &mut messages).unwrap();
    assert_eq!(messages.next_item().unwrap(), Some(StreamItem::User("hello".into())));

    for (dialect, answers) in [(Dialect::Hashicorp, true), (Dialect::Native, false)] {
        let mut writer = StreamWriter::of_answer(Arc::clone(&both));
        writer.answer(&reader, dialect);
        let mut answer = MessageFrames::error(Dialect::Hashicorp, "no");
        writer.wrap(&mut out, |out| answer.next_record(&mut number, out)).unwrap();
        let mut heard = StreamReader::of_answer(Arc::clone(&both));
        heard.expect_answer(&asked, Dialect::Hashicorp);
        let mut messages = MessageReader::new(WireFormat::Mixed, StreamLimits::default(), 0);
        assert_eq!(heard.push(&out, &mut messages).is_ok(), answers, "{dialect:?}");
    }
}

proptest! {
    #[test]
    fn any_content_in_gos_format_comes_back(
        content in vec(any::<u8>(), 0..1500),
        kind in 2_u8..13,
        label in "[a-z]{0,20}",
        keys in vec(1_u8..5, 0..3),
        old: bool,
        pieces in vec(1_usize..3000, 1..6),
    ) {
        let version = if old { Version::V0 } else { Version::V1 };
        let format = WireFormat::Hashicorp;
        let both = layers_of(format, version, &label, &keys, InboundLabel::Check);
        let content = [&[kind][..], &content].concat();
        let mut packet = wrapped(&both, &content);
        prop_assert_eq!(both.unwrap(&mut packet).unwrap(), &content[..]);
        let item = through_stream((&both, &both), &content, &pieces).unwrap();
        prop_assert_eq!(item, StreamItem::User(content.into()));
    }

    #[test]
    fn any_content_comes_back(
        content in vec(any::<u8>(), 0..1500),
        label in "[a-z]{0,20}",
        keys in vec(1_u8..5, 0..3),
        pieces in vec(1_usize..3000, 1..6),
    ) {
        let both = layers(&label, &keys, InboundLabel::Check);
        let content = [&b"M"[..], &content].concat();
        let mut packet = wrapped(&both, &content);
        prop_assert_eq!(both.unwrap(&mut packet).unwrap(), &content[..]);
        let item = through_stream((&both, &both), &content, &pieces).unwrap();
        prop_assert_eq!(item, StreamItem::User(content.into()));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn large_messages_come_back(len in 100_000_usize..300_000, piece in 1000_usize..70_000) {
        let both = layers("blue", &[1], InboundLabel::Check);
        let item = through_stream((&both, &both), &vec![7; len], &[piece]).unwrap();
        prop_assert_eq!(item, StreamItem::User(vec![7; len].into()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever has another label or key hears of it, however the bytes arrive.
    #[test]
    fn a_stream_that_does_not_fit_is_refused(piece in 1_usize..200) {
        let ours = layers("blue", &[1], InboundLabel::Check);
        for (label, keys) in [("", &[1][..]), ("red", &[1]), ("blue", &[2]), ("blue", &[])] {
            let theirs = layers(label, keys, InboundLabel::Check);
            prop_assert!(through_stream((&theirs, &ours), b"hello", &[piece]).is_err());
            prop_assert!(through_stream((&ours, &theirs), b"hello", &[piece]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_unwrapped_without_panic(
        bytes in vec(any::<u8>(), 0..200),
        first in prop::sample::select(vec![0_u8, 1, 0x0A, 0x4D, 0xF4]),
        sealed: bool,
        optional: bool,
    ) {
        let inbound = if optional { InboundLabel::Optional } else { InboundLabel::Check };
        let keys: &[u8] = if sealed { &[1] } else { &[] };
        let layers = layers("ab", keys, inbound);
        for bytes in [bytes.clone(), [&[first][..], &bytes].concat(), [b"\xF4\x02ab", &bytes[..]].concat()] {
            let _ = layers.unwrap(&mut bytes.clone());
            let mut reader = StreamReader::of_dialler(Arc::clone(&layers));
            let mut messages = messages();
            for piece in bytes.chunks(7) {
                if reader.push(piece, &mut messages).is_err() {
                    break;
                }
            }
            let _ = reader.is_whole();
        }
    }
}
