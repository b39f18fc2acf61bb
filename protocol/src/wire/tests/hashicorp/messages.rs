//! Each message: what is kept of it, and what is refused.

use proptest::prelude::*;

use super::super::hex;
use super::super::samples::sample;
use super::{FORMAT, part, read};
use crate::message::{Ack, Message, MessageKind, Ping};
use crate::stats::DropReason;
use crate::wire::hashicorp::{Body, ReadError, Reader, body};
use crate::wire::{PacketError, PacketReader, WireFormat};

/// What Go's format keeps of a message: a broadcast is a user message there.
fn kept<'a>(message: &Message<'a>) -> Message<'a> {
    match *message {
        Message::Broadcast(broadcast) => Message::User(broadcast.payload),
        message => message,
    }
}

fn reason(packet: &[u8]) -> DropReason {
    match read(packet).expect("the packet is whole").as_slice() {
        [Err(error)] => error.reason(),
        other => panic!("{other:02x?}"),
    }
}

/// A message of this type whose body is these fields, as keys of text and values of hex digits.
fn message(kind: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut message = vec![kind, 0x80 | fields.len() as u8];
    for (key, value) in fields {
        message.push(0xa0 | key.len() as u8);
        message.extend(key.as_bytes());
        message.extend(hex(value));
    }
    message
}

#[test]
fn names_and_addresses_that_nobody_has_are_refused() {
    let long = format!("da0100 {}", "61".repeat(256));
    let longest = format!("da00ff {}", "61".repeat(255));
    let accused = |node: &str| message(3, &[("From", "a161"), ("Node", node)]);
    assert_eq!(reason(&accused("a0")), DropReason::BadName);
    assert_eq!(reason(&accused("c0")), DropReason::BadName);
    assert_eq!(reason(&accused("a1ff")), DropReason::BadName);
    assert_eq!(reason(&accused(&long)), DropReason::BadName);
    assert!(matches!(read(&accused(&longest)).unwrap()[..], [Ok(_)]));
    // Who accuses must have a name as well; who pings need not, and may mean anybody.
    assert_eq!(reason(&message(5, &[("Node", "a161")])), DropReason::BadName);
    assert!(matches!(read(&message(0, &[])).unwrap()[..], [Ok(_)]));
    let at =
        |addr: &str, port: &str| message(4, &[("Addr", addr), ("Node", "a161"), ("Port", port)]);
    assert!(matches!(read(&at("a47f000001", "01")).unwrap()[..], [Ok(_)]));
    for (addr, port) in [
        ("c0", "01"),
        ("a0", "01"),
        ("a37f0000", "01"),
        ("a57f00000101", "01"),
        ("a400000000", "01"),
        ("a4e0000001", "01"),
        ("a47f000001", "00"),
    ] {
        assert_eq!(reason(&at(addr, port)), DropReason::BadAddress, "{addr} {port}");
    }
}

#[test]
fn an_ipv4_address_keeps_its_length() {
    let at = |addr: &str| message(4, &[("Addr", addr), ("Node", "a161"), ("Port", "01")]);
    for (addr, wide) in [("a40a000001", false), ("b000000000000000000000ffff0a000001", true)] {
        let bytes = at(addr);
        let mut reader = PacketReader::default();
        let packet = reader.read(WireFormat::Hashicorp, &bytes).unwrap();
        packet.for_each(|message| match message.unwrap() {
            Message::Alive(alive) => {
                assert_eq!((alive.addr, alive.wide_ipv4), ("10.0.0.1:1".parse().unwrap(), wide));
            }
            other => panic!("{other:?}"),
        });
        let again = read(&bytes).unwrap().remove(0).unwrap();
        let field = hex(addr);
        assert!(again.windows(field.len()).any(|piece| piece == field));
    }
}

#[test]
fn what_is_malformed_says_so() {
    // A number for a text, a text for a number, out of range, cut off.
    let cases: [(&[u8], DropReason); 6] = [
        (&message(3, &[("Node", "05")]), DropReason::Malformed),
        (&message(3, &[("Incarnation", "a161")]), DropReason::Malformed),
        (&message(4, &[("Port", "ce00010000")]), DropReason::Malformed),
        (&message(0, &[("SeqNo", "ff")]), DropReason::Malformed),
        (&hex("03 82 a4 4e6f6465"), DropReason::Truncated),
        (&hex("0d 81 a5 4572726f72 a0"), DropReason::UnknownKind),
    ];
    for (bytes, expected) in cases {
        assert_eq!(reason(bytes), expected, "{bytes:02x?}");
    }
    assert_eq!(
        read(&message(1, &[("Node", "05")])).unwrap()[0].clone().map_err(|error| match error {
            PacketError::Body { kind, .. } => kind,
            error => panic!("{error}"),
        }),
        Err(MessageKind::IndirectPing)
    );
}

#[test]
fn the_native_format_is_announced_with_its_version() {
    let announced = |version: &str| message(0, &[("NativeWire", version)]);
    let is_native = |bytes: &[u8]| {
        let (mut reader, mut native) = (PacketReader::default(), false);
        reader.read(WireFormat::Hashicorp, bytes).unwrap().for_each(|message| {
            let Ok(Message::Ping(ping)) = message else { panic!("{message:?}") };
            native = ping.native;
        });
        native
    };
    assert!(is_native(&announced("01")));
    // A version that this node does not read is none.
    assert!(!is_native(&announced("02")));
    assert!(!is_native(&message(0, &[])));
    let ping = Ping { sequence: 1, node: "a", source: None, native: false };
    let mut bytes = part(&Message::Ping(ping));
    assert_eq!(bytes, hex("00 82 a4 4e6f6465 a1 61 a5 5365714e6f 01"));
    let ack = Ack { sequence: 1, payload: b"", native: true };
    bytes = part(&Message::Ack(ack));
    assert!(bytes.windows(11).any(|piece| piece == b"NativeWire\x01"));
}

/// An ack with one field more that nobody knows: an array of so many small numbers.
fn ack_of_values(len: u32) -> Vec<u8> {
    let mut body = hex("82 a1 78 dd");
    body.extend(len.to_be_bytes());
    body.extend(std::iter::repeat_n(7, len as usize));
    body.extend(hex("a5 5365714e6f 09"));
    body
}

#[test]
fn an_object_has_at_most_4096_values() {
    // The map, two keys, the array and the last number are values too.
    let most = ack_of_values(4096 - 5);
    let ack = body::Ack::read(&mut Reader::new(&most)).unwrap();
    assert_eq!(ack.seq_no, 9);
    let error = body::Ack::read(&mut Reader::new(&ack_of_values(4096 - 4))).unwrap_err();
    assert_eq!(error, ReadError::Malformed("an object of too many values"));
    // The same holds for an array of numbers that is a field.
    let mut payload = hex("81 a7 5061796c6f6164 dd 00010000");
    payload.extend([1; 65_536]);
    let error = body::Ack::read(&mut Reader::new(&payload)).unwrap_err();
    assert_eq!(error, ReadError::Malformed("an object of too many values"));
}

#[test]
fn containers_may_nest_as_deep_as_go_follows() {
    let nested = |depth: usize| {
        let mut body = hex("81 a1 78");
        body.extend(std::iter::repeat_n(0x91, depth));
        body.push(0xc0);
        body::Nack::read(&mut Reader::new(&body)).map(|_| ())
    };
    // The object itself counts.
    assert_eq!(nested(1022), Ok(()));
    assert_eq!(nested(1023), Err(ReadError::Malformed("containers nested too deep")));
}

#[test]
fn a_length_that_is_announced_says_what_is_needed() {
    let needs = |digits: &str| {
        let bytes = hex(digits);
        match body::Ack::read(&mut Reader::new(&bytes)) {
            Err(ReadError::Truncated { needs }) => needs,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(needs(""), 1);
    assert_eq!(needs("81"), 2);
    assert_eq!(needs("81 a7"), 9);
    assert_eq!(needs("81 a7 5061796c6f6164 db 0000"), 14);
    assert_eq!(needs("81 a7 5061796c6f6164 db ffffffff"), 14 + u32::MAX as usize);
    // As many as there are, not as many as are claimed.
    assert_eq!(needs("81 a7 5061796c6f6164 dd ffffffff 01 02"), 17);
    assert_eq!(needs("df ffffffff a1 78 01"), 9);
}

proptest! {
    #[test]
    fn every_message_comes_back(sample in sample()) {
        let (message, mut read) = (sample.message(), 0);
        let bytes = part(&message);
        FORMAT.decode(&bytes, |decoded| {
            prop_assert_eq!(decoded, Ok(kept(&message)));
            Ok(())
        })?;
        let mut reader = PacketReader::default();
        reader.read(WireFormat::Hashicorp, &bytes).unwrap().for_each(|decoded| {
            assert_eq!(decoded, Ok(kept(&message)));
            read += 1;
        });
        prop_assert_eq!(read, 1);
    }

    /// A user message is as long as its packet says; all others say where they end.
    #[test]
    fn every_prefix_of_a_body_is_truncated(sample in sample(), at: prop::sample::Index) {
        let bytes = part(&sample.message());
        if bytes[0] != 8 {
            let cut = 1 + at.index(bytes.len() - 1);
            let expected = DropReason::Truncated;
            prop_assert_eq!(reason(&bytes[..cut]), expected);
            // What follows the body does not matter.
            let longer = [&bytes[..], &[0xc1, 7]].concat();
            prop_assert_eq!(read(&longer).unwrap(), vec![Ok(bytes)]);
        }
    }

    #[test]
    fn a_message_is_written_only_where_it_fits(sample in sample(), before in 0usize..20) {
        let message = sample.message();
        let whole = [vec![9; before], part(&message)].concat();
        for missing in [0, 1, 7] {
            let mut out = vec![9; before];
            let limit = whole.len().saturating_sub(missing);
            let fits = FORMAT.encode_within(&message, limit, &mut out);
            prop_assert_eq!(fits, missing == 0);
            prop_assert_eq!(&out[..], if fits { &whole[..] } else { &whole[..before] });
        }
    }
}
