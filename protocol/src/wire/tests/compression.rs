//! Compression of packets and of stream frames.

use proptest::collection::vec;
use proptest::prelude::*;

use super::samples::{Sample, sample};
use crate::message::Message;
use crate::stats::DropReason;
use crate::wire::compress::Compressor;
use crate::wire::stream::{Assembler, FrameNumber, MessageFrames, StreamItem, StreamLimits};
use crate::wire::{
    CompressionError, Dialect, PacketError, PacketWriter, Room, StreamError, inflate, read_packet,
};

const FORMAT: Dialect = Dialect::Native;
const ROOM: Room = Room { head: 13, tail: 16, max_packet_bytes: 65_507 };

/// The same messages, compressed where that helps, without head.
fn compressed(checksum: bool, messages: &[Message<'_>]) -> Vec<u8> {
    let mut buf = Vec::new();
    let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, ROOM);
    assert!(messages.iter().all(|message| writer.push(message)));
    let len = writer.finish_compressed();
    assert_eq!(buf[..ROOM.head], [0; 13]);
    let packet = buf.split_off(ROOM.head);
    assert_eq!(packet.len(), len);
    packet
}

fn inflated(packet: &[u8]) -> Result<Vec<u8>, PacketError> {
    inflate(packet, &mut b"old".to_vec()).map(<[u8]>::to_vec)
}

#[test]
fn a_packet_is_compressed_if_that_makes_it_shorter() {
    let text = b"all work and no play ".repeat(100);
    let messages = [Message::User(&text), Message::User(b"x")];
    for checksum in [true, false] {
        let packet = compressed(checksum, &messages);
        assert!(packet.len() < 200, "{}", packet.len());
        let plain = inflated(&packet).unwrap();
        let read: Result<Vec<_>, _> = read_packet(&plain).unwrap().collect();
        assert_eq!(read.unwrap(), messages);
        // Without inflating, it is not misread.
        assert_eq!(read_packet(&packet).unwrap_err().reason(), DropReason::WrongVersion);
    }
    let small = compressed(true, &messages[1..]);
    assert_eq!(inflated(&small).unwrap(), small);
}

#[test]
fn damage_is_noticed_before_anything_is_decompressed() {
    let text = b"all work and no play ".repeat(100);
    let good = compressed(true, &[Message::User(&text)]);
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        assert!(inflated(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn a_packet_inflates_to_no_more_than_the_largest_datagram() {
    let bomb = |len: usize| {
        let mut buf = vec![0x4D, 1, 2];
        buf.extend(std::iter::repeat_n(0, len));
        assert!(Compressor::default().compress(&mut buf, 3));
        buf
    };
    assert!(inflated(&bomb(65_507)).is_ok());
    let error = inflated(&bomb(65_508)).unwrap_err();
    let too_large = CompressionError::TooLarge { claimed: 65_508, limit: 65_507 };
    assert_eq!(
        (error, error.reason()),
        (PacketError::Compression(too_large), DropReason::Compression)
    );
}

/// The frames of a message, and what came of them on the other side.
fn through_frames(
    message: MessageFrames,
    limits: StreamLimits,
) -> (usize, Result<Option<StreamItem>, StreamError>) {
    let (mut message, mut number) = (message, FrameNumber::default());
    let mut assembler = Assembler::new(limits);
    let (mut bytes, mut came) = (0, Ok(None));
    let mut payload = Vec::new();
    while message.next_payload(&mut number, &mut payload) {
        bytes += payload.len();
        came = assembler.push(&payload);
        if came.is_err() {
            break;
        }
        payload.clear();
    }
    (bytes, came)
}

#[test]
fn a_stream_is_compressed_frame_by_frame() {
    let text = bytes::Bytes::from(b"all work and no play ".repeat(20_000));
    let plain = MessageFrames::user(FORMAT, text.clone());
    let (plain_bytes, _) = through_frames(plain, StreamLimits::default());
    let message = MessageFrames::user(FORMAT, text.clone()).compressed(true);
    let (bytes, came) = through_frames(message, StreamLimits::default());
    assert!(bytes * 50 < plain_bytes, "{bytes} of {plain_bytes}");
    assert_eq!(came, Ok(Some(StreamItem::User(text))));
}

#[test]
fn limits_hold_for_what_a_stream_is_decompressed_to() {
    let zeros = |len| MessageFrames::user(FORMAT, vec![0; len].into()).compressed(true);
    let limits = StreamLimits { max_message_bytes: 1 << 20, ..StreamLimits::default() };
    assert!(through_frames(zeros(1 << 20), limits).1.is_ok());
    let (bytes, error) = through_frames(zeros((1 << 20) + 1), limits);
    assert!(bytes < 10_000);
    assert_eq!(error.unwrap_err().reason(), DropReason::TooLarge);
    // One frame alone.
    let mut frame = vec![0, 0, 0, 0, 3, 19];
    frame.extend(std::iter::repeat_n(0, 300 * 1024));
    assert!(Compressor::default().compress(&mut frame, 6));
    let error = Assembler::new(StreamLimits::default()).push(&frame).unwrap_err();
    assert!(matches!(error, StreamError::Compression(CompressionError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn any_messages_come_back(samples in vec(sample(), 1..40), checksum: bool) {
        let messages: Vec<Message<'_>> = samples.iter().map(Sample::message).collect();
        let mut buf = Vec::new();
        let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, ROOM);
        let sent: Vec<_> = messages.into_iter().filter(|message| writer.push(message)).collect();
        writer.finish_compressed();
        let plain = inflated(&buf[ROOM.head..]).unwrap();
        let read: Result<Vec<_>, _> = read_packet(&plain).unwrap().collect();
        prop_assert_eq!(read.unwrap(), sent);
    }

    #[test]
    fn garbage_is_an_error_or_within_the_limit(bytes in vec(any::<u8>(), 0..300)) {
        let packet = [&[0x4D, 1, 2][..], &bytes].concat();
        if let Ok(plain) = inflated(&packet) {
            prop_assert!(plain.len() <= 65_510);
        }
    }
}
