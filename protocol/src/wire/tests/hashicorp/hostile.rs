//! Packets of enemies: nested, inflated, random and damaged ones.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::hex;
use super::super::samples::{Sample, sample};
use super::{compound, compressed, packet, part, read};
use crate::message::{Message, Nack};
use crate::stats::DropReason;
use crate::wire::{CompressionError, PacketError, PacketReader, WireFormat};

/// The most that a packet may hold decompressed.
const MOST: usize = 65_507;
/// What a reader may keep, whatever came: what was inflated, and the places of parts of two bytes.
const MOST_KEPT: usize = 6 << 20;

fn nack() -> Vec<u8> {
    part(&Message::Nack(Nack { sequence: 7 }))
}

/// Wraps a message so often.
fn wrapped(times: usize, wrap: impl Fn(Vec<u8>, usize) -> Vec<u8>) -> Vec<u8> {
    (0..times).fold(nack(), wrap)
}

#[test]
fn layers_nest_eight_deep() {
    let only_compounds = |inner: Vec<u8>, _| compound(&[inner]);
    let only_compressed = |inner: Vec<u8>, _| compressed(&inner);
    let both = |inner: Vec<u8>, i| {
        if i % 2 == 0 { compound(&[inner]) } else { compressed(&inner) }
    };
    for times in 0..=8 {
        assert_eq!(read(&wrapped(times, only_compounds)), Ok(vec![Ok(nack())]), "{times}");
        assert_eq!(read(&wrapped(times, only_compressed)), Ok(vec![Ok(nack())]), "{times}");
        assert_eq!(read(&wrapped(times, both)), Ok(vec![Ok(nack())]), "{times}");
    }
    for times in [9, 10] {
        let in_a_part = Ok(vec![Err(PacketError::NestedTooDeep)]);
        assert_eq!(read(&wrapped(times, only_compounds)), in_a_part);
        // Nothing of it can be read, as there is only one message.
        assert_eq!(read(&wrapped(times, only_compressed)), Err(PacketError::NestedTooDeep));
        let error = match read(&wrapped(times, both)) {
            Ok(parts) => parts.into_iter().find_map(Result::err),
            Err(error) => Some(error),
        };
        assert_eq!(error.map(|error| error.reason()), Some(DropReason::Malformed));
    }
    // Beside one that is too deep, the others are read.
    let whole = compound(&[wrapped(8, only_compounds), nack()]);
    assert_eq!(read(&whole), Ok(vec![Err(PacketError::NestedTooDeep), Ok(nack())]));
}

#[test]
fn what_is_in_compressed_compounds_is_read_in_its_order() {
    let user = |byte: u8| part(&Message::User(&[byte; 40]));
    let inner = compressed(&compound(&[user(2), compressed(&user(3)), user(4)]));
    let whole = compressed(&compound(&[user(1), inner, user(5)]));
    let expected: Vec<_> = (1..=5).map(|byte| Ok(user(byte))).collect();
    assert_eq!(read(&whole), Ok(expected));
}

#[test]
fn a_packet_inflates_to_no_more_than_the_largest_datagram() {
    let zeros = |len: usize| part(&Message::User(&vec![0; len - 1]));
    assert_eq!(read(&compressed(&zeros(MOST))), Ok(vec![Ok(zeros(MOST))]));
    let bomb = compressed(&zeros(MOST + 1));
    assert!(bomb.len() < 1000);
    let error = read(&bomb).unwrap_err();
    assert!(
        matches!(error, PacketError::Compression(CompressionError::TooLarge { limit: MOST, .. })),
        "{error}"
    );
    assert_eq!(error.reason(), DropReason::Compression);
    // All its layers together.
    let half = compressed(&zeros(40_000));
    let read = read(&compound(&[half.clone(), half])).unwrap();
    assert_eq!(read[0], Ok(zeros(40_000)));
    assert!(matches!(read[1], Err(PacketError::Compression(_))));
}

#[test]
fn a_bomb_costs_bounded_memory() {
    let larger = compressed(&vec![0; 10_000_000]);
    let full = compressed(&vec![0; MOST]);
    let empty = compressed(&[]);
    let parts = |part: &[u8], len: usize| vec![part.to_vec(); (len / (part.len() + 2)).min(255)];
    // Compounds of nothing, which cost the most places for their bytes.
    let hollow = compound(&vec![vec![]; 255]);
    let mut bombs = vec![
        larger,
        compound(&parts(&full, 60_000)),
        compound(&parts(&empty, 60_000)),
        compound(&parts(&hollow, 60_000)),
        compressed(&compound(&parts(&hollow, 60_000))),
        compressed(&compound(&parts(&compressed(&hollow), 60_000))),
        compressed(&compound(&parts(&full, 60_000))),
    ];
    bombs.push(compound(&parts(&bombs[4], 60_000)));
    bombs.push(compound(&parts(&bombs[5], 60_000)));
    let mut reader = PacketReader::default();
    for (i, bomb) in bombs.iter().enumerate() {
        let mut messages = 0;
        if let Ok(packet) = reader.read(WireFormat::Hashicorp, bomb) {
            assert!(packet.content_bytes() <= MOST + bomb.len(), "bomb {i}");
            packet.for_each(|_| messages += 1);
        }
        assert!(messages <= MOST, "bomb {i}");
        assert!(reader.reserved_bytes() < MOST_KEPT, "bomb {i}: {}", reader.reserved_bytes());
    }
}

#[test]
fn what_is_compressed_otherwise_is_malformed() {
    let malformed = Err(PacketError::Compression(CompressionError::Malformed));
    let good = compressed(&nack());
    assert_eq!(read(&good), Ok(vec![Ok(nack())]));
    let mut algo = good.clone();
    assert_eq!(&algo[2..8], b"\xa4Algo\x00");
    algo[7] = 1;
    for bad in [
        algo,
        hex("09"),
        hex("09 c1"),
        // No buffer, and one without an end code.
        hex("09 81 a4 416c676f 00"),
        hex("09 82 a4 416c676f 00 a3 427566 a2 0003"),
        good[..good.len() - 3].to_vec(),
    ] {
        assert_eq!(read(&bad), malformed, "{bad:02x?}");
    }
    // Of nothing, nothing can be read.
    assert_eq!(read(&compressed(&[])), Ok(vec![Err(PacketError::Truncated)]));
}

#[test]
fn a_reader_remembers_nothing() {
    let mut reader = PacketReader::default();
    let honest = compressed(&compound(&[nack(), nack()]));
    for other in [compressed(&vec![0; 70_000]), hex("07 05"), honest.clone(), hex("63"), vec![]] {
        let _ = reader.read(WireFormat::Hashicorp, &other);
        let mut read = Vec::new();
        let packet = reader.read(WireFormat::Hashicorp, &honest).unwrap();
        packet.for_each(|message| read.push(message.map(|message| part(&message))));
        assert_eq!(read, [Ok(nack()), Ok(nack())]);
    }
}

/// What holds for any bytes at all.
fn check(bytes: &[u8]) {
    let (mut reader, mut understood) = (PacketReader::default(), Vec::new());
    let Ok(packet) = reader.read(WireFormat::Hashicorp, bytes) else { return };
    assert!(packet.content_bytes() <= MOST + bytes.len());
    let mut messages = 0;
    packet.for_each(|message| {
        messages += 1;
        understood.extend(message.map(|message| part(&message)));
    });
    assert!(messages <= MOST + bytes.len());
    assert!(reader.reserved_bytes() < MOST_KEPT);
    // What was understood can be written again, and means the same.
    for part in understood.into_iter().filter(|part| part.len() > 1) {
        assert_eq!(read(&part), Ok(vec![Ok(part.clone())]));
    }
}

fn honest(samples: &[Sample], checksum: bool, layers: u8) -> Vec<u8> {
    let parts: Vec<_> = samples.iter().map(|sample| part(&sample.message())).collect();
    match layers {
        0 => packet(&parts, checksum),
        1 => compressed(&packet(&parts, checksum)),
        2 => compound(&[compressed(&packet(&parts, false)), parts[0].clone()]),
        _ => packet(&[compressed(&compound(&[packet(&parts, false)])), parts[0].clone()], checksum),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..600), first in 0u8..16) {
        check(&bytes);
        check(&[&[first], &bytes[..]].concat());
        // Behind something that is right.
        check(&[&hex("07 02 0003 0040"), &bytes[..]].concat());
        check(&[&hex("09 82 a4 416c676f 00 a3 427566 da 0040"), &bytes[..]].concat());
        check(&compressed(&bytes));
        check(&compressed(&[&[first], &bytes[..]].concat()));
    }

    #[test]
    fn damaged_packets_are_read_without_panic(
        samples in vec(sample(), 1..5),
        layers in 0u8..4,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut: prop::sample::Index,
        behind in vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = honest(&samples, false, layers);
        for (at, byte) in damage {
            // The interesting bytes are at the front.
            let at = at.index(bytes.len().min(300));
            bytes[at] = byte;
        }
        check(&bytes);
        check(&bytes[..cut.index(bytes.len())]);
        check(&[bytes, behind].concat());
    }

    #[test]
    fn honest_packets_in_layers_are_read(samples in vec(sample(), 1..5), layers in 0u8..4) {
        let bytes = honest(&samples, layers != 1, layers);
        let parts: Vec<_> = samples.iter().map(|sample| Ok(part(&sample.message()))).collect();
        let read = read(&bytes);
        if layers == 1 {
            prop_assert_eq!(read, Ok(parts));
        } else {
            let again = if layers == 0 { None } else { Some(parts[0].clone()) };
            prop_assert_eq!(read, Ok(parts.into_iter().chain(again).collect::<Vec<_>>()));
        }
    }
}
