//! Objects of MessagePack with the fields of Go's messages, in any form that a decoder might take, and
//! some that none should.

use memberlist_protocol::wire::hashicorp::kind;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use self::Type::{Bool, Bytes, Number, Text};

#[derive(Clone, Copy)]
pub(crate) enum Type {
    Number,
    Bool,
    Text,
    Bytes,
}

/// The fields of a message in the order of their declaration.
pub(crate) type Spec = [(&'static str, Type)];

const PING: &Spec = &[
    ("SeqNo", Number),
    ("Node", Text),
    ("SourceAddr", Bytes),
    ("SourcePort", Number),
    ("SourceNode", Text),
];
const INDIRECT_PING: &Spec = &[
    ("SeqNo", Number),
    ("Target", Bytes),
    ("Port", Number),
    ("Node", Text),
    ("Nack", Bool),
    ("SourceAddr", Bytes),
    ("SourcePort", Number),
    ("SourceNode", Text),
];
const ACK: &Spec = &[("SeqNo", Number), ("Payload", Bytes)];
const NACK: &Spec = &[("SeqNo", Number)];
const ERROR: &Spec = &[("Error", Text)];
const ACCUSATION: &Spec = &[("Incarnation", Number), ("Node", Text), ("From", Text)];
const ALIVE: &Spec = &[
    ("Incarnation", Number),
    ("Node", Text),
    ("Addr", Bytes),
    ("Port", Number),
    ("Meta", Bytes),
    ("Vsn", Bytes),
];
const PUSH_PULL: &Spec = &[("Nodes", Number), ("UserStateLen", Number), ("Join", Bool)];
pub(crate) const NODE_STATE: &Spec = &[
    ("Name", Text),
    ("Addr", Bytes),
    ("Port", Number),
    ("Meta", Bytes),
    ("Incarnation", Number),
    ("State", Number),
    ("Vsn", Bytes),
];
const USER: &Spec = &[("UserMsgLen", Number)];
const COMPRESS: &Spec = &[("Algo", Number), ("Buf", Bytes)];

pub(crate) const IN_PACKETS: &[(u8, &Spec)] = &[
    (kind::PING, PING),
    (kind::INDIRECT_PING, INDIRECT_PING),
    (kind::ACK, ACK),
    (kind::NACK, NACK),
    (kind::SUSPECT, ACCUSATION),
    (kind::DEAD, ACCUSATION),
    (kind::ALIVE, ALIVE),
    (kind::ALIVE, ALIVE),
    (kind::COMPRESS, COMPRESS),
];
pub(crate) const IN_STREAMS: &[(u8, &Spec)] = &[
    (kind::PING, PING),
    (kind::ACK, ACK),
    (kind::ERROR, ERROR),
    (kind::PUSH_PULL, PUSH_PULL),
    (kind::PUSH_PULL, PUSH_PULL),
    (kind::PUSH_PULL, PUSH_PULL),
    (kind::USER, USER),
    (kind::COMPRESS, COMPRESS),
];

/// Numbers at the borders of something.
const NUMBERS: [i128; 24] = [
    0,
    0,
    0,
    1,
    1,
    2,
    3,
    4,
    5,
    42,
    127,
    128,
    255,
    256,
    7946,
    32_767,
    32_768,
    65_535,
    65_536,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    0x1_0000_0000,
    i64::MAX as i128,
    u64::MAX as i128,
];
const NEGATIVE: [i128; 8] =
    [-1, -32, -33, -128, -129, -32_769, i32::MIN as i128 - 1, i64::MIN as i128];

/// Appends an object of these fields.
pub(crate) fn object(random: &mut StdRng, spec: &Spec, out: &mut Vec<u8>) {
    match random.random_range(0..20) {
        0 => out.push(0xC0),
        1..5 => {
            let count = match random.random_range(0..3) {
                0 => random.random_range(0..=spec.len() + 2),
                _ => spec.len(),
            };
            array_header(random, count, out);
            for at in 0..count {
                field(random, spec.get(at).map(|(_, kind)| *kind), out);
            }
        }
        5 => any_value(random, 3, out),
        _ => map(random, spec, out),
    }
}

fn map(random: &mut StdRng, spec: &Spec, out: &mut Vec<u8>) {
    let mut fields: Vec<(&str, Option<Type>)> =
        spec.iter().map(|(key, kind)| (*key, Some(*kind))).collect();
    if random.random_bool(0.2) {
        let kept = random.random_range(0..=fields.len());
        fields.shuffle(random);
        fields.truncate(kept);
    } else if random.random_bool(0.5) {
        fields.sort_by_key(|(key, _)| *key);
    }
    while random.random_bool(0.2) {
        let more = match random.random_range(0..3) {
            0 => (*["node", "Sequence", "", "Nod", "Nodes2"].choose(random).unwrap(), None),
            _ => spec.choose(random).map(|(key, kind)| (*key, Some(*kind))).unwrap(),
        };
        let at = random.random_range(0..=fields.len());
        fields.insert(at, more);
    }
    map_header(random, fields.len(), out);
    for (key, kind) in fields {
        match random.random_range(0..60) {
            0 => any_value(random, 2, out),
            1..4 => raw(random, key.as_bytes(), out),
            _ => short_raw(key.as_bytes(), out),
        }
        field(random, kind, out);
    }
}

/// Appends a header whose numbers are what they should be.
pub(crate) fn header(random: &mut StdRng, numbers: &[(&str, u8)], out: &mut Vec<u8>) {
    map_header(random, numbers.len(), out);
    for (key, number) in numbers {
        short_raw(key.as_bytes(), out);
        integer(random, i128::from(*number), out);
    }
}

/// Appends a value that fits the field, or seldom any.
fn field(random: &mut StdRng, kind: Option<Type>, out: &mut Vec<u8>) {
    let kind = match random.random_range(0..16) {
        0 => None,
        1 => return out.push(0xC0),
        _ => kind,
    };
    match kind {
        None => any_value(random, 3, out),
        Some(Bool) => out.push(*[0xC2, 0xC3, 0, 1].choose(random).unwrap()),
        Some(Number) => {
            let number = *NUMBERS[..19].choose(random).unwrap();
            integer(random, number, out);
        }
        Some(Text) => {
            let text = text(random);
            raw(random, &text, out);
        }
        // More than the values that are taken.
        Some(Bytes) if random.random_range(0..2_000) == 0 => {
            array_header(random, 5_000, out);
            (0..5_000).for_each(|_| integer(random, 1, out));
        }
        Some(Bytes) => {
            let bytes = bytes(random);
            match random.random_range(0..12) {
                0 => numbers(random, &bytes, out),
                1 => pairs(random, &bytes, out),
                _ => raw(random, &bytes, out),
            }
        }
    }
}

fn text(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..12) {
        0 => Vec::new(),
        1 => vec![b'n'; random.random_range(250..260)],
        2 => b"not \xFF UTF-8".to_vec(),
        3 => "käse".into(),
        _ => vec![b'a' + random.random_range(0..9)],
    }
}

fn bytes(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; *[0, 3, 4, 4, 4, 4, 5, 6, 6, 16, 16, 33, 600].choose(random).unwrap()];
    random.fill_bytes(&mut bytes);
    if random.random_bool(0.5) {
        bytes.fill(0);
    }
    if bytes.len() == 16 && random.random_bool(0.5) {
        bytes[..12].copy_from_slice(b"\0\0\0\0\0\0\0\0\0\0\xFF\xFF");
    }
    bytes
}

/// Appends bytes as an array of numbers.
fn numbers(random: &mut StdRng, bytes: &[u8], out: &mut Vec<u8>) {
    array_header(random, bytes.len(), out);
    for byte in bytes {
        match random.random_range(0..100) {
            0 => any_value(random, 1, out),
            1 => out.push(0xC0),
            _ => integer(random, i128::from(*byte), out),
        }
    }
}

/// Appends bytes as a map of numbers.
fn pairs(random: &mut StdRng, bytes: &[u8], out: &mut Vec<u8>) {
    map_header(random, bytes.len() / 2, out);
    bytes[..bytes.len() / 2 * 2].iter().for_each(|byte| integer(random, i128::from(*byte), out));
}

/// Appends any value.
pub(crate) fn any_value(random: &mut StdRng, depth: u32, out: &mut Vec<u8>) {
    match random.random_range(0..if depth > 0 { 14 } else { 11 }) {
        0 => out.push(0xC0),
        1 => out.push(*[0xC2, 0xC3].choose(random).unwrap()),
        family @ (2 | 3) => {
            let borders: &[i128] = if family == 2 { &NUMBERS } else { &NEGATIVE };
            let number = *borders.choose(random).unwrap();
            integer(random, number, out);
        }
        4 => {
            out.push(0xCA);
            let float = [0.0, 1.0, 1.5, -1.0, f32::NAN, f32::INFINITY, 300.0];
            out.extend(float.choose(random).unwrap().to_be_bytes());
        }
        5 => {
            out.push(0xCB);
            let float = [0.0, 1.0, 1.5, -1.0, f64::NAN, f64::INFINITY, 70_000.0];
            out.extend(float.choose(random).unwrap().to_be_bytes());
        }
        6 => raw(random, b"foo", out),
        7 => {
            let text = text(random);
            raw(random, &text, out);
        }
        8 => extension(random, out),
        9 => out.push(random.random()),
        10 => {
            // Containers that never end.
            let len = random.random_range(0..4);
            out.extend(std::iter::repeat_n(0x91, len));
        }
        11 => {
            let len = random.random_range(0..4);
            array_header(random, len, out);
            (0..len).for_each(|_| any_value(random, depth - 1, out));
        }
        12 => {
            let len = random.random_range(0..4);
            map_header(random, len, out);
            for _ in 0..len {
                any_value(random, depth - 1, out);
                any_value(random, depth - 1, out);
            }
        }
        _ => {
            // As deep as codecs go.
            let nested =
                *[3, 100, 1_020, 1_021, 1_022, 1_023, 1_024, 1_025].choose(random).unwrap();
            let nested = if random.random_range(0..5) == 0 { nested } else { 2 };
            out.extend(std::iter::repeat_n(0x91, nested));
            out.push(0);
        }
    }
}

fn extension(random: &mut StdRng, out: &mut Vec<u8>) {
    let len = *[1, 2, 4, 8, 12, 16, 3, 0, 5].choose(random).unwrap();
    let kind: u8 = *[0xFF, 0xFF, 0, 1, 5, 0x80].choose(random).unwrap();
    let fixed = [(1, 0xD4), (2, 0xD5), (4, 0xD6), (8, 0xD7), (16, 0xD8)];
    match fixed.iter().find(|(fixed, _)| *fixed == len && random.random_bool(0.5)) {
        Some((_, marker)) => out.push(*marker),
        None => match random.random_range(0..3) {
            0 => out.extend([0xC7, len]),
            1 => out.extend([0xC8, 0, len]),
            _ => out.extend([0xC9, 0, 0, 0, len]),
        },
    }
    out.push(kind);
    let mut content = vec![0; len.into()];
    random.fill_bytes(&mut content);
    out.extend(content);
}

/// Appends a number in some family that holds it, or now and then in one that cuts it off.
fn integer(random: &mut StdRng, number: i128, out: &mut Vec<u8>) {
    let families = [
        (0x00, 0, 127),
        (0xE0, -32, -1),
        (0xCC, 0, 0xFF),
        (0xCD, 0, 0xFFFF),
        (0xCE, 0, 0xFFFF_FFFF),
        (0xCF, 0, u64::MAX.into()),
        (0xD0, i8::MIN.into(), i8::MAX.into()),
        (0xD1, i16::MIN.into(), i16::MAX.into()),
        (0xD2, i32::MIN.into(), i32::MAX.into()),
        (0xD3, i64::MIN.into(), i64::MAX.into()),
    ];
    let fits = |(_, min, max): &&(u8, i128, i128)| (*min..=*max).contains(&number);
    let fitting: Vec<_> = families.iter().filter(fits).collect();
    let (marker, ..) = **fitting.choose(random).unwrap();
    let bytes = number.to_be_bytes();
    match marker {
        0x00 | 0xE0 => out.push(bytes[15]),
        marker => {
            out.push(marker);
            let len = 1 << ((marker - 0xCC) % 4);
            out.extend_from_slice(&bytes[16 - len..]);
        }
    }
}

fn short_raw(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(0xA0 | bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Appends a text or bytes in some family that holds them.
fn raw(random: &mut StdRng, bytes: &[u8], out: &mut Vec<u8>) {
    let len = bytes.len();
    let widest = [0xDB, 0xC6];
    match random.random_range(0..6) {
        0 => {
            out.push(*widest.choose(random).unwrap());
            out.extend((len as u32).to_be_bytes());
        }
        1 => {
            out.push(*[0xDA, 0xC5].choose(random).unwrap());
            out.extend((len as u16).to_be_bytes());
        }
        2 if len < 256 => out.extend([*[0xD9, 0xC4].choose(random).unwrap(), len as u8]),
        _ if len < 32 => out.push(0xA0 | len as u8),
        _ => {
            out.push(0xDA);
            out.extend((len as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

fn array_header(random: &mut StdRng, len: usize, out: &mut Vec<u8>) {
    container(random, len, [0x90, 0xDC, 0xDD], out);
}

fn map_header(random: &mut StdRng, len: usize, out: &mut Vec<u8>) {
    container(random, len, [0x80, 0xDE, 0xDF], out);
}

fn container(random: &mut StdRng, len: usize, markers: [u8; 3], out: &mut Vec<u8>) {
    let len = match random.random_range(0..40) {
        0 => len + 1,
        1 => len.saturating_sub(1),
        _ => len,
    };
    match random.random_range(0..8) {
        0 => {
            out.push(markers[1]);
            out.extend((len as u16).to_be_bytes());
        }
        1 => {
            out.push(markers[2]);
            out.extend((len as u32).to_be_bytes());
        }
        _ if len < 16 => out.push(markers[0] | len as u8),
        _ => {
            out.push(markers[1]);
            out.extend((len as u16).to_be_bytes());
        }
    }
}
