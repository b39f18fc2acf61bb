//! Exact bytes, written down by hand from `docs/WIRE.md`.

use std::net::SocketAddr;

use super::hex;
use crate::error::NameError;
use crate::message::{
    Ack, Alive, Broadcast, Dead, IndirectPing, Message, MessageKind, Nack, Ping, PingSource,
    Suspect,
};
use crate::node::Versions;
use crate::stats::DropReason;
use crate::wire::{BodyError, Dialect, PacketError, read_packet};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The message is these bytes as a part, and these bytes are the message.
#[track_caller]
fn check(message: Message<'_>, digits: &str) {
    let part = hex(digits);
    let mut encoded = Vec::new();
    Dialect::Native.encode(&message, &mut encoded);
    assert_eq!(encoded, part, "{message:?}");
    assert_eq!(read_parts(&part), [Ok(message)]);
}

/// What the parts of a packet without a checksum are read as.
fn read_parts(parts: &[u8]) -> Vec<Result<Message<'_>, PacketError>> {
    let packet = [&hex("4d 01 00")[..], parts].concat().leak();
    read_packet(packet).unwrap().collect()
}

/// Kind and body as they are given, with the length between them.
fn framed(digits: &str) -> Vec<u8> {
    let bytes = hex(digits);
    let len = bytes.len() - 1;
    // Two bytes of length whatever it is.
    [&[bytes[0], (len & 0x7F) as u8 | 0x80, (len >> 7) as u8], &bytes[1..]].concat()
}

/// The kind and body make a message of this kind that is not understood.
#[track_caller]
fn refused(kind: MessageKind, digits: &str) -> BodyError {
    let part = framed(digits);
    let read = read_parts(&part);
    match read[..] {
        [Err(PacketError::Body { kind: at, error })] if at == kind => error,
        _ => panic!("{read:?}"),
    }
}

#[test]
fn pings() {
    let source = Some(PingSource { node: "a", addr: addr("10.0.0.1:7946") });
    check(
        Message::Ping(Ping { sequence: 7, node: "b", source, native: true }),
        "01 0e 07 0162 01 0161 04 0a000001 fb0a1f",
    );
    check(
        Message::Ping(Ping { sequence: 300, node: "", source: None, native: true }),
        "01 05 fb2c01 00 00",
    );
    let target = addr("[2001:db8::1]:7946");
    check(
        Message::IndirectPing(IndirectPing {
            sequence: 7,
            node: "c",
            target,
            nack: true,
            source: None,
        }),
        "02 19 07 01 0163 10 20010db8000000000000000000000001 fb0a1f 00",
    );
    check(
        Message::IndirectPing(IndirectPing { sequence: 7, node: "c", target, nack: false, source }),
        "02 23 07 00 0163 10 20010db8000000000000000000000001 fb0a1f
         01 0161 04 0a000001 fb0a1f",
    );
}

#[test]
fn answers() {
    let payload = &[0xDE, 0xAD];
    check(
        Message::Ack(Ack { sequence: u32::MAX, payload, native: true }),
        "03 08 fcffffffff 02 dead",
    );
    check(Message::Ack(Ack { sequence: 0, payload: &[], native: true }), "03 02 00 00");
    check(Message::Nack(Nack { sequence: 250 }), "04 01 fa");
    check(Message::Nack(Nack { sequence: 251 }), "04 03 fbfb00");
}

#[test]
fn news() {
    let suspect = Suspect { incarnation: 5, node: "b", from: "a" };
    check(Message::Suspect(suspect), "05 05 05 0162 0161");
    let dead = Dead { incarnation: 65_536, node: "b", from: "b" };
    check(Message::Dead(dead), "07 09 fc00000100 0162 0162");
    let alive = Alive {
        incarnation: 1,
        node: "b",
        addr: addr("10.0.0.2:7946"),
        wide_ipv4: true,
        meta: b"m",
        versions: Versions::new((1, 5, 2), (0, 0, 0)),
    };
    check(Message::Alive(alive), "06 15 01 01 0162 04 0a000002 fb0a1f 016d 06 010502000000");
    let bare =
        Alive { wide_ipv4: false, meta: &[], versions: Versions::from_bytes(&[1, 5]), ..alive };
    check(Message::Alive(bare), "06 10 01 00 0162 04 0a000002 fb0a1f 00 02 0105");
    check(Message::User(b"hi"), "08 02 6869");
    check(Message::User(b""), "08 00");
    let broadcast = Broadcast {
        origin: "b",
        epoch: 65_536,
        sequence: 1 << 32,
        hops: 3,
        priority: 2,
        payload: b"hi",
    };
    check(Message::Broadcast(broadcast), "09 15 fc00000100 fd0000000001000000 03 02 0162 026869");
}

#[test]
fn lengths_take_as_many_bytes_as_they_need() {
    let steps: [(usize, &[u8]); 6] = [
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
    ];
    for (len, length) in steps {
        let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut part = vec![0xEE];
        Dialect::Native.encode(&Message::User(&body), &mut part);
        assert_eq!(&part[..2 + length.len()], [&[0xEE, 8], length].concat());
        assert_eq!(part[2 + length.len()..], body);
        assert_eq!(read_parts(&part[1..]), [Ok(Message::User(&body))]);
    }
    // Longer than it needs to be: accepted up to five bytes.
    let long = hex("08 8280808000 6869");
    assert_eq!(read_parts(&long), [Ok(Message::User(b"hi"))]);
}

#[test]
fn broken_framing_is_the_last_item() {
    for overflow in ["08 8280808010 6869", "08 ffffffffff01", "08 828080808000 6869"] {
        assert_eq!(read_parts(&hex(overflow)), [Err(PacketError::PartLength)], "{overflow}");
    }
    for cut in ["08", "08 03 6869", "08 ffffffff0f", "08 80", "08 80808080"] {
        assert_eq!(read_parts(&hex(cut)), [Err(PacketError::Truncated)], "{cut}");
    }
}

#[test]
fn names_are_judged() {
    use MessageKind::{Alive, Dead, IndirectPing, Ping, Suspect};
    let empty = BodyError::Name(NameError::Empty);
    assert_eq!(refused(Suspect, "05 05 00 0161"), empty);
    assert_eq!(refused(Suspect, "05 05 0162 00"), empty);
    assert_eq!(refused(Dead, "07 05 00 0161"), empty);
    assert_eq!(refused(Ping, "01 07 00 01 00 04 0a000001 fb0a1f"), empty);
    assert_eq!(refused(IndirectPing, "02 07 01 00 04 0a000001 fb0a1f 00"), empty);
    assert_eq!(refused(Alive, "06 01 00 00 04 0a000002 fb0a1f 00 00"), empty);
    assert_eq!(refused(Dead, "07 05 01ff 0161"), BodyError::NameNotUtf8);
    let long = format!("07 05 fb0001{} 0161 0000", "61".repeat(256));
    let error = refused(Dead, &long);
    assert_eq!(error, BodyError::Name(NameError::TooLong { len: 256 }));
    assert_eq!(error.reason(), DropReason::BadName);
}

#[test]
fn addresses_are_judged() {
    let refused = |digits| refused(MessageKind::Alive, digits);
    let bad = |text| BodyError::Address(addr(text));
    let cases = [
        ("06 01 00 0162 04 0a000002 00 00 00", bad("10.0.0.2:0")),
        ("06 01 00 0162 04 00000000 fb0a1f 00 00", bad("0.0.0.0:7946")),
        ("06 01 00 0162 04 e0000001 fb0a1f 00 00", bad("224.0.0.1:7946")),
        ("06 01 00 0162 00 fb0a1f 00 00", BodyError::AddressLength(0)),
        ("06 01 00 0162 05 0a00000200 fb0a1f 00 00", BodyError::AddressLength(5)),
    ];
    for (digits, error) in cases {
        assert_eq!(refused(digits), error, "{digits}");
        assert_eq!(error.reason(), DropReason::BadAddress);
    }
    let zero = "00".repeat(16);
    let unspecified = format!("06 01 00 0162 10 {zero} fb0a1f 00 00");
    assert_eq!(refused(&unspecified), bad("[::]:7946"));
}

#[test]
fn addresses_become_canonical() {
    let mapped = framed("06 01 01 0162 10 00000000000000000000ffff0a000002 fb0a1f 00 00");
    match read_parts(&mapped)[..] {
        [Ok(Message::Alive(alive))] => {
            assert_eq!(alive.addr, addr("10.0.0.2:7946"));
            assert!(alive.wide_ipv4);
        }
        ref other => panic!("{other:?}"),
    }
    // The flag means nothing on an IPv6 address.
    let v6 = framed("06 01 01 0162 10 20010db8000000000000000000000001 fb0a1f 00 00");
    assert!(matches!(read_parts(&v6)[..], [Ok(Message::Alive(Alive { wide_ipv4: false, .. }))]));
}

#[test]
fn fields_are_judged() {
    let source = refused(MessageKind::Ping, "01 07 00 02");
    assert!(matches!(source, BodyError::Malformed(_)), "{source}");
    // A 64-bit number where 32 bits are due.
    let number = refused(MessageKind::Nack, "04 fd0100000000000000");
    assert!(matches!(number, BodyError::Malformed(_)), "{number}");
    // A length of 2^64 - 1, and one of 4 GiB.
    let huge = refused(MessageKind::Ack, "03 07 fdffffffffffffffff");
    assert_eq!(huge.reason(), DropReason::Malformed);
    let huge = refused(MessageKind::Ack, "03 07 fcffffffff");
    assert_eq!(huge.reason(), DropReason::Malformed);
    assert_eq!(refused(MessageKind::Ack, "03 07 05 61"), BodyError::Truncated);
}

#[test]
fn later_versions_may_add() {
    // Bytes after a known body.
    let nack = hex("04 04 07 aabbcc");
    assert_eq!(read_parts(&nack), [Ok(Message::Nack(Nack { sequence: 7 }))]);
    // Unknown bits in flags.
    let alive = framed("06 01 fe 0162 04 0a000002 fb0a1f 00 00");
    assert!(matches!(read_parts(&alive)[..], [Ok(Message::Alive(Alive { wide_ipv4: false, .. }))]));
    // Unknown kinds between known ones.
    let parts = hex("04 01 07 63 02 0102 00 00 ff 00 04 01 08");
    assert_eq!(
        read_parts(&parts),
        [
            Ok(Message::Nack(Nack { sequence: 7 })),
            Err(PacketError::UnknownKind(0x63)),
            Err(PacketError::UnknownKind(0)),
            Err(PacketError::UnknownKind(0xFF)),
            Ok(Message::Nack(Nack { sequence: 8 })),
        ]
    );
}
