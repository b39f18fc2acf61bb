//! Packets: compounds, room, checksum, compression.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::hex;
use super::super::samples::{Sample, sample};
use super::{FORMAT, ROOM, compressed, packet, part, read};
use crate::message::{Message, Nack};
use crate::stats::DropReason;
use crate::wire::hashicorp::kind;
use crate::wire::{PacketError, PacketWriter, Room};

fn nack(sequence: u32) -> Vec<u8> {
    part(&Message::Nack(Nack { sequence }))
}

/// What a packet of so many parts takes beside them.
fn overhead(parts: usize, checksum: bool) -> usize {
    let compound = if parts > 1 { 2 + 2 * parts } else { 0 };
    compound + if checksum { 5 } else { 0 }
}

#[test]
fn a_lone_part_goes_without_a_compound() {
    let (a, b) = (nack(1), nack(2));
    assert_eq!(packet(std::slice::from_ref(&a), false), a);
    let both = [hex("07 02 0009 0009"), a.clone(), b.clone()].concat();
    assert_eq!(packet(&[a, b], false), both);
    let crc = crc32fast::hash(&both).to_be_bytes();
    let checked = [&[kind::CRC], &crc[..], &both].concat();
    assert_eq!(packet(&[nack(1), nack(2)], true), checked);
}

#[test]
fn a_packet_has_at_most_255_parts() {
    for count in [1, 2, 254, 255, 256, 300] {
        for checksum in [false, true] {
            let parts: Vec<_> = (0..count).map(nack).collect();
            let mut buf = Vec::new();
            let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, ROOM);
            let taken = parts.iter().take_while(|part| writer.push_encoded(part)).count();
            assert_eq!(taken, parts.len().min(255));
            if taken < parts.len() {
                assert_eq!(writer.remaining(), 0);
                assert!(!writer.push(&Message::User(b"")));
            }
            assert_eq!(writer.parts(), taken);
            let len = writer.finish();
            let content: usize = parts[..taken].iter().map(Vec::len).sum();
            assert_eq!(len, content + overhead(taken, checksum));
            let expected: Vec<_> = parts[..taken].iter().cloned().map(Ok).collect();
            assert_eq!(read(&buf), Ok(expected));
        }
    }
}

#[test]
fn parts_fit_to_the_last_byte() {
    for count in [1, 2, 3, 100, 255] {
        for checksum in [false, true] {
            let parts: Vec<_> = (0..count).map(nack).collect();
            let content: usize = parts.iter().map(Vec::len).sum();
            let exact = 5 + 6 + content + overhead(parts.len(), checksum);
            for missing in [0, 1] {
                let room = Room { head: 5, tail: 6, max_packet_bytes: exact - missing };
                let mut buf = Vec::new();
                let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, room);
                let (last, others) = parts.split_last().unwrap();
                assert!(others.iter().all(|part| writer.push_encoded(part)));
                // By itself, as it is not known then that it will be alone.
                assert_eq!(writer.push_encoded(last), missing == 0, "{count}");
                assert!(5 + writer.finish() + 6 <= room.max_packet_bytes);
            }
        }
    }
}

#[test]
fn what_remains_is_what_another_part_may_take() {
    for checksum in [false, true] {
        for first in [0, 1, 30] {
            let parts = [part(&Message::User(&vec![1; first]))];
            let room = Room { head: 3, tail: 4, max_packet_bytes: 200 };
            let mut buf = Vec::new();
            let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, room);
            assert!(writer.push_encoded(&parts[0]));
            let largest = writer.remaining() - writer.part_overhead();
            let mut again = Vec::new();
            let mut other = PacketWriter::new(&mut again, FORMAT, checksum, room);
            assert!(other.push_encoded(&parts[0]));
            assert!(!other.push(&Message::User(&vec![2; largest])));
            assert!(other.push(&Message::User(&vec![2; largest - 1])));
            assert_eq!(other.remaining(), 0);
            assert_eq!(other.finish(), 200 - 7);
            assert_eq!(writer.parts(), 1);
        }
    }
}

#[test]
fn a_room_too_small_takes_nothing() {
    let rooms = [
        (false, Room { head: 10, tail: 10, max_packet_bytes: 19 }),
        (true, Room { head: 0, tail: 0, max_packet_bytes: 4 }),
        (true, Room { head: 10, tail: 10, max_packet_bytes: 24 }),
        (false, Room { head: 0, tail: usize::MAX, max_packet_bytes: 1400 }),
        (true, Room { head: usize::MAX, tail: 0, max_packet_bytes: usize::MAX }),
    ];
    for (checksum, room) in rooms {
        let mut buf = vec![1, 2, 3];
        let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, room);
        assert_eq!(writer.remaining(), 0);
        assert!(!writer.push(&Message::User(b"")));
        assert!(!writer.push_encoded(b"\x08"));
        assert_eq!((writer.parts(), writer.finish()), (0, 0));
        assert!(buf.is_empty());
    }
}

/// Lengths have two bytes, whatever room there is.
#[test]
fn a_room_without_an_end_takes_no_more_than_lengths_can_say() {
    let room = Room { head: 7, tail: 0, max_packet_bytes: usize::MAX };
    let mut buf = Vec::new();
    let mut writer = PacketWriter::new(&mut buf, FORMAT, true, room);
    assert!(!writer.push(&Message::User(&[1; 65_535])));
    assert!(writer.push(&Message::User(&[1; 60_000])));
    assert!(writer.push(&Message::Nack(Nack { sequence: 1 })));
    assert!(!writer.push(&Message::User(&[1; 6_000])));
    writer.finish();
    let expected = [part(&Message::User(&[1; 60_000])), nack(1)];
    assert_eq!(read(&buf[7..]), Ok(expected.map(Ok).to_vec()));
}

#[test]
fn damage_is_found_by_the_checksum() {
    let checked = packet(&[nack(1), part(&Message::User(b"some bytes"))], true);
    for bit in 8..checked.len() * 8 {
        let mut damaged = checked.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = read(&damaged).unwrap_err();
        assert!(matches!(error, PacketError::Checksum { .. }), "bit {bit}");
        assert_eq!(error.reason(), DropReason::Checksum);
    }
    for cut in 6..checked.len() {
        assert!(read(&checked[..cut]).is_err());
    }
    // Without a whole sum it is a message of a type that has no place in packets.
    assert_eq!(read(&checked[..4]), Ok(vec![Err(PacketError::UnknownKind(kind::CRC))]));
    // A sum of nothing.
    assert_eq!(read(&hex("0c 00000000")), Ok(vec![Err(PacketError::Truncated)]));
    // Only outermost.
    let inner = packet(&[checked.clone(), nack(2)], false);
    assert_eq!(read(&inner), Ok(vec![Err(PacketError::UnknownKind(kind::CRC)), Ok(nack(2))]));
}

#[test]
fn a_compound_that_ends_early_gives_what_is_whole() {
    let parts = [nack(1), nack(2), nack(3)];
    let whole = packet(&parts, false);
    let head = 2 + 2 * 3;
    assert_eq!(read(&[]), Err(PacketError::Truncated));
    for cut in 1..whole.len() {
        let read = read(&whole[..cut]);
        if cut < head {
            assert_eq!(read, Err(PacketError::Truncated), "{cut}");
            continue;
        }
        let complete = (cut - head) / 9;
        let read = read.unwrap();
        assert_eq!(read.len(), 3);
        for (i, part) in read.iter().enumerate() {
            let expected =
                if i < complete { Ok(parts[i].clone()) } else { Err(PacketError::Truncated) };
            assert_eq!(part, &expected, "part {i} of {cut} bytes");
        }
    }
    // What is left over does not matter, and none are none.
    assert_eq!(read(&[&whole[..], b"left"].concat()), Ok(parts.map(Ok).to_vec()));
    assert_eq!(read(&hex("07 00")), Ok(vec![]));
    assert_eq!(read(&hex("07 00 0102")), Ok(vec![]));
}

#[test]
fn a_bad_part_does_not_spoil_the_others() {
    let bad = [hex("63 01"), hex("03 82"), vec![], hex("09 c0"), hex("07"), hex("04 05")];
    for bad in bad {
        let whole = packet(&[nack(1), bad.clone(), nack(2)], false);
        let read = read(&whole).unwrap();
        assert_eq!(read.len(), 3, "{bad:02x?}");
        assert_eq!((&read[0], &read[2]), (&Ok(nack(1)), &Ok(nack(2))));
        assert!(read[1].is_err());
    }
}

fn finish(parts: &[Vec<u8>], checksum: bool, compress: bool) -> Vec<u8> {
    let mut buf = Vec::new();
    let room = Room { head: 3, ..ROOM };
    let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, room);
    assert!(parts.iter().all(|part| writer.push_encoded(part)));
    let len = match compress {
        true => writer.finish_compressed(),
        false => writer.finish(),
    };
    assert_eq!(buf[..3], [0; 3]);
    assert_eq!(buf.len(), 3 + len);
    buf.split_off(3)
}

#[test]
fn a_packet_is_compressed_only_if_that_is_shorter() {
    let mut steps = 0;
    for len in 0..200 {
        let part = part(&Message::User(&vec![b'a'; len]));
        let plain = finish(std::slice::from_ref(&part), false, false);
        let other = finish(std::slice::from_ref(&part), false, true);
        let wrapped = compressed(&plain);
        let expected = if wrapped.len() < plain.len() { wrapped } else { plain };
        assert_eq!(other, expected, "{len}");
        steps += usize::from(other[0] == kind::COMPRESS);
    }
    assert!((100..190).contains(&steps), "{steps}");
}

#[test]
fn a_kept_compressor_starts_anew() {
    for len in [3000, 10, 500, 3000] {
        let text: Vec<u8> = b"to be or not to be ".iter().copied().cycle().take(len).collect();
        let part = part(&Message::User(&text));
        let mut buf = Vec::new();
        let mut writer = PacketWriter::new(&mut buf, FORMAT, true, ROOM);
        assert!(writer.push_encoded(&part));
        writer.finish_compressed();
        assert_eq!(buf, finish(&[part], true, true));
    }
}

#[test]
fn a_reused_buffer_is_not_allocated_again() {
    let (mut buf, room) = (Vec::new(), Room { head: 40, tail: 16, max_packet_bytes: 1400 });
    let fill = |buf: &mut Vec<u8>| {
        let mut writer = PacketWriter::new(buf, FORMAT, true, room);
        while writer.push(&Message::User(b"some bytes of the application")) {}
        writer.finish();
    };
    fill(&mut buf);
    let (place, capacity) = (buf.as_ptr(), buf.capacity());
    for _ in 0..3 {
        fill(&mut buf);
        assert_eq!((buf.as_ptr(), buf.capacity()), (place, capacity));
    }
}

fn encoded(samples: &[Sample]) -> Vec<Vec<u8>> {
    samples.iter().map(|sample| part(&sample.message())).collect()
}

proptest! {
    #[test]
    fn messages_survive_a_packet(samples in vec(sample(), 1..40), checksum: bool, compress: bool) {
        let parts = encoded(&samples);
        let bytes = finish(&parts, checksum, compress);
        prop_assert_eq!(bytes[0] == kind::CRC, checksum);
        prop_assert!(bytes.len() <= finish(&parts, checksum, false).len());
        let expected: Vec<_> = parts.into_iter().map(Ok).collect();
        prop_assert_eq!(read(&bytes), Ok(expected));
    }

    #[test]
    fn the_room_is_never_exceeded(
        samples in vec((sample(), any::<bool>()), 0..40),
        checksum: bool,
        compress: bool,
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
            let part = part(&message);
            let promised = part.len() + writer.part_overhead() <= before;
            let pushed = if *encoded { writer.push_encoded(&part) } else { writer.push(&message) };
            prop_assert!(pushed || !promised, "{} bytes into {}", part.len(), before);
            // Only a part that may stay alone can be larger than what was said to be free.
            prop_assert!(promised || !pushed || kept.is_empty());
            if pushed {
                kept.push(Ok(part));
            } else {
                prop_assert_eq!(writer.remaining(), before);
            }
        }
        prop_assert_eq!(writer.parts(), kept.len());
        let len = match compress {
            true => writer.finish_compressed(),
            false => writer.finish(),
        };
        prop_assert!(len == 0 || head + len + tail <= max_packet_bytes);
        if !kept.is_empty() {
            prop_assert!(buf.capacity() - buf.len() >= tail);
            prop_assert_eq!(read(&buf[head..]), Ok(kept));
        }
    }
}
