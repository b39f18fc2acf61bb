//! Streams of enemies, and how much work a stream is.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::hex;
use super::super::samples::{Sending, record};
use super::compressed;
use super::streams::{go_sending, header, node, receive, write};
use crate::node::NodeId;
use crate::wire::hashicorp::stream::MessageReader as HashicorpReader;
use crate::wire::stream::*;

const PORT: u16 = 7946;

/// How often objects were tried and how many bytes were read for that, when the bytes come in pieces of
/// this length.
fn work(bytes: &[u8], piece: usize) -> (usize, usize) {
    let mut reader = HashicorpReader::new(StreamLimits::default(), PORT);
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        if !matches!(reader.next_item(), Ok(None)) {
            break;
        }
    }
    reader.tried
}

fn nodes(count: u16) -> Vec<u8> {
    let node = node("Port=05;Incarnation=cd1234;State=01;Vsn=a6010502000000;Meta=a401020304");
    let count_of = format!("cd {count:04x}");
    [header(&count_of, "00"), node.repeat(count.into())].concat()
}

#[test]
fn reading_takes_linear_time() {
    for piece in [1, 2, 13, 100, 1460, 65_536] {
        let (once, twice) = (nodes(500), nodes(1000));
        let ((few, bytes), (many, more)) = (work(&once, piece), work(&twice, piece));
        assert!(many <= 2 * few + 10, "{many} tries, {few} for half of it, in {piece}s");
        assert!(more <= 2 * bytes + 1000, "{more} bytes, {bytes} for half of it, in {piece}s");
        // An object is tried again only when what it lacked is there.
        assert!(many <= twice.chunks(piece).count() + 1001, "{many}");
        assert!(more <= 40 * twice.len(), "{more} of {}", twice.len());
    }
    // In pieces of a usual size, nothing but the object at the border is read twice.
    let whole = nodes(1000);
    assert!(work(&whole, 1460).1 <= whole.len() + whole.len() / 5);
}

#[test]
fn what_is_long_is_waited_for() {
    // A user message, a user state, what is compressed, and one large field.
    let user = write(&Sending::User(vec![7; 300_000].into()), false);
    let state = [header("00", "ce 000493e0"), vec![7; 300_000]].concat();
    let noise: Vec<u8> =
        (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let packed = compressed(&write(&Sending::User(noise.into()), false));
    let field = [hex("02 81 a7 5061796c6f6164 c6 0001f000"), vec![7; 0x1f000]].concat();
    for bytes in [user, state, packed, field] {
        assert!(matches!(receive(&bytes, &[7], StreamLimits::default()).0, Ok(Some(_))));
        let (tries, read) = work(&bytes, 1);
        assert!(tries < 60, "{tries} tries");
        assert!(read <= 3 * bytes.len(), "{read} bytes");
    }
}

/// The worst object: a value in each byte. What one byte that arrives can cost has a limit.
#[test]
fn an_object_of_many_values_has_an_end() {
    let values = |len: u16| {
        let head = format!("02 82 a1 78 dc {len:04x}");
        [hex(&head), vec![7; len.into()], hex("a5 5365714e6f 09")].concat()
    };
    let most = values(4096 - 5);
    assert!(matches!(receive(&most, &[1], StreamLimits::default()).0, Ok(Some(_))));
    let (tries, read) = work(&most, 1);
    assert!(tries <= most.len() && read <= most.len() * most.len());
    let over = values(65_535);
    let (tries, _) = work(&over, 1);
    assert!(tries <= 4100, "{tries}");
    assert_eq!(
        receive(&over, &[1], StreamLimits::default()),
        receive(&over, &[usize::MAX], StreamLimits::default())
    );
}

#[test]
fn memory_follows_what_arrived() {
    let bytes = nodes(2000);
    let mut reader = HashicorpReader::new(StreamLimits::default(), PORT);
    let mut arrived = 0;
    for piece in bytes[..bytes.len() - 1].chunks(1000) {
        reader.push(piece);
        assert_eq!(reader.next_item(), Ok(None));
        arrived += piece.len();
        // A record is larger than its bytes, and room for as many again may be kept.
        let most = 4096 + 8 * arrived;
        assert!(reader.reserved_bytes() <= most, "{} of {arrived}", reader.reserved_bytes());
        assert!(reader.pending_bytes() <= arrived);
    }
    assert_eq!(reader.pending_nodes(), 1999);
    // After the message nothing is kept.
    reader.push(&bytes[bytes.len() - 1..]);
    assert!(matches!(reader.next_item(), Ok(Some(StreamItem::PushPull(_)))));
    for _ in 0..100 {
        reader.push(&[0; 10_000]);
    }
    assert!(reader.reserved_bytes() < 1024);
}

/// In any pieces the same comes of it, whatever it is.
fn check(bytes: &[u8], pieces: &[usize]) {
    let limits = StreamLimits {
        max_message_bytes: 400_000,
        max_frame_bytes: 100_000,
        max_user_bytes: 300_000,
        max_nodes: 1000,
        ..StreamLimits::default()
    };
    let at_once = receive(bytes, &[usize::MAX], limits);
    assert_eq!(receive(bytes, pieces, limits), at_once);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in vec(any::<u8>(), 0..600),
        first in 0u8..16,
        pieces in vec(1usize..100, 1..5),
    ) {
        check(&bytes, &pieces);
        check(&[&[first], &bytes[..]].concat(), &pieces);
        // Behind something that is right.
        check(&[header("02", "05"), bytes.clone()].concat(), &pieces);
        check(&[header("03", "05"), node("Port=05"), bytes.clone()].concat(), &pieces);
        check(&[&hex("09 82 a4 416c676f 00 a3 427566 da 0040"), &bytes[..]].concat(), &pieces);
        check(&compressed(&[&[first], &bytes[..]].concat()), &pieces);
    }

    #[test]
    fn damaged_streams_are_read_without_panic(
        message in go_sending(),
        is_compressed: bool,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        pieces in vec(1usize..5000, 1..5),
        cut: prop::sample::Index,
    ) {
        let mut bytes = write(&message, is_compressed);
        for (at, byte) in damage {
            // The interesting bytes are at the front of long messages.
            let at = at.index(bytes.len().min(500));
            bytes[at] = byte;
        }
        check(&bytes, &pieces);
        check(&bytes[..cut.index(bytes.len())], &pieces);
    }

    /// The message within a compressed one is damaged.
    #[test]
    fn damage_within_compression_is_found_without_panic(
        records in vec(record(), 1..20),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        pieces in vec(1usize..500, 1..5),
    ) {
        let start = PushPullStart { from: NodeId::new("a").unwrap(), to: None, join: false };
        let mut bytes = write(&Sending::PushPull(start, records, "state".into()), false);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check(&compressed(&bytes), &pieces);
    }
}
