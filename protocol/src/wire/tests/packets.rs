//! Packets: header, checksum, room, and anything that may arrive.

use proptest::collection::vec;
use proptest::prelude::*;

use super::hex;
use super::samples::{Sample, sample};
use crate::message::{Alive, Message, Nack};
use crate::node::Versions;
use crate::stats::DropReason;
use crate::wire::{Dialect, PacketError, PacketWriter, Room, read_packet};

const FORMAT: Dialect = Dialect::Native;
const ROOM: Room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };

fn packet(checksum: bool, messages: &[Message<'_>]) -> Vec<u8> {
    let mut buf = Vec::new();
    let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, ROOM);
    for message in messages {
        assert!(writer.push(message));
    }
    writer.finish();
    buf
}

fn whole_error(packet: &[u8]) -> PacketError {
    read_packet(packet).unwrap_err()
}

#[test]
fn header_and_checksum() {
    let nack = Message::Nack(Nack { sequence: 7 });
    assert_eq!(packet(false, &[nack]), hex("4d 01 00 04 01 07"));
    let checked = packet(true, &[nack]);
    let crc = crc32fast::hash(&hex("4d 01 01 04 01 07"));
    assert_eq!(checked, [&hex("4d 01 01")[..], &crc.to_be_bytes(), &hex("04 01 07")].concat());
    assert_eq!(FORMAT.packet_overhead(true), 7);
    assert_eq!(FORMAT.packet_overhead(false), 3);
    for bit in 0..checked.len() * 8 {
        let mut damaged = checked.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let noticed = match read_packet(&damaged) {
            Err(_) => true,
            // Without the flag the checksum is read as a part.
            Ok(mut messages) => bit == 16 && messages.any(|message| message.is_err()),
        };
        assert!(noticed, "bit {bit}");
    }
}

#[test]
fn packets_of_others_are_told_apart() {
    assert_eq!(whole_error(&[]).reason(), DropReason::Truncated);
    for first in 0..=255 {
        let error = whole_error(&[first, 1]);
        let reason = if first == 0x4D { DropReason::Truncated } else { DropReason::WrongFormat };
        assert_eq!(error.reason(), reason, "{error}");
    }
    assert_eq!(whole_error(&[0x4D, 2, 0]), PacketError::WrongVersion(2));
    assert_eq!(whole_error(&[0x4D, 2, 0]).reason(), DropReason::WrongVersion);
    for flags in 4..=255 {
        assert_eq!(whole_error(&[0x4D, 1, flags, 0, 0, 0, 0]), PacketError::UnknownFlags(flags));
    }
    assert_eq!(whole_error(&[0x4D, 1, 4]).reason(), DropReason::WrongVersion);
    let damaged = whole_error(&hex("4d 01 01 00000000"));
    assert_eq!(damaged.reason(), DropReason::Checksum);
}

#[test]
fn a_room_too_small_for_the_header_takes_nothing() {
    let rooms = [
        Room { head: 0, tail: 0, max_packet_bytes: 0 },
        Room { head: 10, tail: 10, max_packet_bytes: 26 },
        Room { head: 0, tail: usize::MAX, max_packet_bytes: 1400 },
        Room { head: usize::MAX, tail: 0, max_packet_bytes: usize::MAX },
    ];
    for room in rooms {
        let mut buf = vec![1, 2, 3];
        let mut writer = PacketWriter::new(&mut buf, FORMAT, true, room);
        assert_eq!(writer.remaining(), 0);
        assert!(!writer.push(&Message::User(b"")));
        assert!(!writer.push_encoded(b""));
        assert_eq!((writer.parts(), writer.finish()), (0, 0));
        assert!(buf.is_empty());
    }
    // The header and nothing else.
    let mut buf = Vec::new();
    let room = Room { head: 10, tail: 10, max_packet_bytes: 27 };
    let writer = PacketWriter::new(&mut buf, FORMAT, true, room);
    assert_eq!(writer.remaining(), 0);
    assert_eq!(writer.finish(), 7);
    assert_eq!(read_packet(&buf[10..]).unwrap().count(), 0);
}

#[test]
fn a_part_fits_to_the_last_byte() {
    for len in [0, 1, 126, 127, 128, 129, 130] {
        let body = vec![9; len];
        let mut part = Vec::new();
        FORMAT.encode(&Message::User(&body), &mut part);
        for missing in [0, 1] {
            let room = Room { head: 5, tail: 6, max_packet_bytes: 18 + part.len() - missing };
            let mut buf = Vec::new();
            let mut writer = PacketWriter::new(&mut buf, FORMAT, true, room);
            let before = writer.remaining();
            assert_eq!(before + missing, part.len());
            assert_eq!(writer.push(&Message::User(&body)), missing == 0, "{len}");
            assert_eq!(writer.remaining(), if missing == 0 { 0 } else { before });
            let mut again = Vec::new();
            let mut encoded = PacketWriter::new(&mut again, FORMAT, true, room);
            assert_eq!(encoded.push_encoded(&part), missing == 0);
            assert_eq!(encoded.finish(), writer.finish());
            assert_eq!(buf, again);
        }
    }
}

/// Those of one length byte are written without being measured, those of two after it.
#[test]
fn the_longest_fields_of_an_alive_fit_at_every_length_of_its_name() {
    for len in 1..=255 {
        for meta in [0, 1, 15, 16, 17, 60] {
            let (name, meta) = ("n".repeat(len), vec![7; meta]);
            let alive = Alive {
                incarnation: u32::MAX,
                node: &name,
                addr: "[2001:db8::1]:65535".parse().unwrap(),
                wide_ipv4: false,
                meta: &meta,
                versions: Versions::default(),
            };
            let packet = packet(false, &[Message::Alive(alive)]);
            let read: Result<Vec<_>, _> = read_packet(&packet).unwrap().collect();
            assert_eq!(read.unwrap(), [Message::Alive(alive)], "{len}");
        }
    }
}

#[test]
fn a_reused_buffer_is_not_allocated_again() {
    let mut buf = Vec::new();
    let room = Room { head: 40, tail: 16, max_packet_bytes: 1400 };
    PacketWriter::new(&mut buf, FORMAT, true, room).finish();
    let (place, capacity) = (buf.as_ptr(), buf.capacity());
    for _ in 0..3 {
        let mut writer = PacketWriter::new(&mut buf, FORMAT, true, room);
        while writer.push(&Message::User(b"some bytes of the application")) {}
        writer.finish();
        assert_eq!((buf.as_ptr(), buf.capacity()), (place, capacity));
    }
}

fn messages(samples: &[Sample]) -> Vec<Message<'_>> {
    samples.iter().map(Sample::message).collect()
}

proptest! {
    #[test]
    fn messages_survive_a_packet(samples in vec(sample(), 0..6), checksum: bool) {
        let sent = messages(&samples);
        let mut buf = Vec::new();
        let room = Room { head: 3, tail: 4, max_packet_bytes: 65_507 };
        let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, room);
        for message in &sent {
            prop_assert!(writer.push(message));
        }
        prop_assert_eq!(writer.parts(), sent.len());
        let len = writer.finish();
        prop_assert_eq!(&buf[..3], &[0, 0, 0]);
        prop_assert_eq!(buf.len(), 3 + len);
        let read: Result<Vec<_>, _> = read_packet(&buf[3..]).unwrap().collect();
        prop_assert_eq!(read.unwrap(), sent);
    }

    /// Every cut is noticed, unless it falls between two parts of a packet without a checksum.
    #[test]
    fn every_prefix_is_an_error(samples in vec(sample(), 1..4), checksum: bool) {
        let whole = packet(checksum, &messages(&samples));
        let mut ends = vec![FORMAT.packet_overhead(checksum)];
        for message in messages(&samples) {
            let mut part = Vec::new();
            FORMAT.encode(&message, &mut part);
            ends.push(ends[ends.len() - 1] + part.len());
        }
        for cut in 0..whole.len() {
            let failed = match read_packet(&whole[..cut]) {
                Err(_) => true,
                Ok(mut messages) => messages.any(|message| message.is_err()),
            };
            prop_assert_eq!(failed, checksum || !ends.contains(&cut), "cut at {}", cut);
        }
    }

    #[test]
    fn the_room_is_never_exceeded(
        samples in vec((sample(), any::<bool>()), 0..40),
        checksum: bool,
        head in 0usize..100,
        tail in 0usize..100,
        max_packet_bytes in 0usize..2000,
    ) {
        let mut buf = Vec::new();
        let room = Room { head, tail, max_packet_bytes };
        let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, room);
        let mut kept = Vec::new();
        for (sample, encoded) in &samples {
            let (message, before) = (sample.message(), writer.remaining());
            let mut part = Vec::new();
            FORMAT.encode(&message, &mut part);
            let fits = part.len() + writer.part_overhead() <= before;
            let pushed = if *encoded { writer.push_encoded(&part) } else { writer.push(&message) };
            prop_assert_eq!(pushed, fits);
            prop_assert_eq!(writer.remaining(), if fits { before - part.len() } else { before });
            if fits {
                kept.push(message);
            }
        }
        prop_assert_eq!(writer.parts(), kept.len());
        let len = writer.finish();
        if len == 0 {
            prop_assert!(kept.is_empty());
        } else {
            prop_assert!(head + len + tail <= max_packet_bytes);
            prop_assert!(buf.capacity() - buf.len() >= tail);
            let read: Result<Vec<_>, _> = read_packet(&buf[head..]).unwrap().collect();
            prop_assert_eq!(read.unwrap(), kept);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..600), native: bool) {
        let packet = if native { [&[0x4D, 1, 0], &bytes[..]].concat() } else { bytes };
        if let Ok(messages) = read_packet(&packet) {
            // Each item takes at least a byte.
            prop_assert!(messages.count() <= packet.len());
        }
    }

    #[test]
    fn damaged_messages_are_read_without_panic(
        samples in vec(sample(), 1..5),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut packet = packet_of_any_size(&samples);
        for (at, byte) in damage {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Ok(messages) = read_packet(&packet) {
            for message in messages.flatten() {
                // What was understood can be written again.
                let mut part = Vec::new();
                FORMAT.encode(&message, &mut part);
                let again = [&[0x4D, 1, 0], &part[..]].concat();
                prop_assert_eq!(read_packet(&again).unwrap().next(), Some(Ok(message)));
            }
        }
    }
}

fn packet_of_any_size(samples: &[Sample]) -> Vec<u8> {
    let mut packet = vec![0x4D, 1, 0];
    for message in messages(samples) {
        FORMAT.encode(&message, &mut packet);
    }
    packet
}
