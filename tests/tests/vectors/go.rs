//! Reading what Go wrote: durations and MessagePack.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use memberlist_protocol::canonical;
use memberlist_protocol::message::Message;
use serde_json::{Value, json};

/// Reads a duration as Go prints it: `1h0m0s`, `2.5s`, `300ms`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += Duration::from_secs_f64(number.parse::<f64>().ok()? * seconds);
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// A broadcast of ours in the words of [`broadcast`].
pub(crate) fn describe(message: &Message<'_>) -> Value {
    match message {
        Message::Alive(alive) => json!({
            "kind": "alive",
            "node": alive.node,
            "incarnation": alive.incarnation,
            "addr": alive.addr.to_string(),
            "wide_ipv4": alive.wide_ipv4,
            "meta": alive.meta,
            "vsn": alive.versions.as_bytes(),
        }),
        Message::Suspect(m) => accusation("suspect", m.node, m.incarnation, m.from),
        Message::Dead(m) => accusation("dead", m.node, m.incarnation, m.from),
        other => json!({ "kind": other.kind().as_str() }),
    }
}

fn accusation(kind: &str, node: &str, incarnation: u32, from: &str) -> Value {
    json!({ "kind": kind, "node": node, "incarnation": incarnation, "from": from })
}

/// Reads one captured broadcast: a type byte and a MessagePack map.
pub(crate) fn broadcast(hex: &str) -> Result<Value, String> {
    let bytes = from_hex(hex).ok_or("hex is not hexadecimal")?;
    let (&kind, mut body) = bytes.split_first().ok_or("hex is empty")?;
    let fields = read_map(&mut body).ok_or("hex is not a MessagePack map")?;
    if !body.is_empty() {
        return Err("hex has bytes behind the map".to_owned());
    }
    let text = |field: &str| match fields.get(field) {
        Some(Item::Raw(raw)) => {
            String::from_utf8(raw.clone()).map_err(|_| format!("{field} is not UTF-8"))
        }
        other => Err(format!("{field} is {other:?}")),
    };
    let number = |field: &str| match fields.get(field) {
        Some(Item::Number(number)) => {
            u32::try_from(*number).map_err(|_| format!("{field} is out of range"))
        }
        other => Err(format!("{field} is {other:?}")),
    };
    let raw = |field: &str| match fields.get(field) {
        Some(Item::Raw(raw)) => Ok(raw.clone()),
        Some(Item::Nil) => Ok(Vec::new()),
        other => Err(format!("{field} is {other:?}")),
    };
    match kind {
        3 | 5 => {
            let kind = if kind == 3 { "suspect" } else { "dead" };
            let (node, from) = (text("Node")?, text("From")?);
            Ok(accusation(kind, &node, number("Incarnation")?, &from))
        }
        4 => {
            let addr = raw("Addr")?;
            let ip: IpAddr = match (<[u8; 4]>::try_from(&*addr), <[u8; 16]>::try_from(&*addr)) {
                (Ok(v4), _) => v4.into(),
                (_, Ok(v6)) => v6.into(),
                _ => return Err(format!("Addr has {} bytes", addr.len())),
            };
            let port = u16::try_from(number("Port")?).map_err(|_| "Port is out of range")?;
            let addr = canonical(SocketAddr::new(ip, port));
            Ok(json!({
                "kind": "alive",
                "node": text("Node")?,
                "incarnation": number("Incarnation")?,
                "addr": addr.to_string(),
                "wide_ipv4": ip.is_ipv6() && addr.is_ipv4(),
                "meta": raw("Meta")?,
                "vsn": raw("Vsn")?,
            }))
        }
        other => Err(format!("hex is of type {other}, which is no news about a member")),
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| Some((nibble(pair[0])? * 16 + nibble(pair[1])?) as u8);
    digits.chunks(2).map(byte).collect()
}

/// As much of MessagePack as news about members needs.
#[derive(Debug)]
enum Item {
    Nil,
    Number(u64),
    Raw(Vec<u8>),
}

fn read_map(input: &mut &[u8]) -> Option<BTreeMap<String, Item>> {
    let fields = match take(input, 1)?[0] {
        header @ 0x80..=0x8f => usize::from(header & 0x0f),
        0xde => read_number(input, 2)? as usize,
        _ => return None,
    };
    let mut map = BTreeMap::new();
    for _ in 0..fields {
        let Item::Raw(key) = read_item(input)? else {
            return None;
        };
        map.insert(String::from_utf8(key).ok()?, read_item(input)?);
    }
    Some(map)
}

fn read_item(input: &mut &[u8]) -> Option<Item> {
    let header = take(input, 1)?[0];
    let raw = |len: usize, input: &mut &[u8]| Some(Item::Raw(take(input, len)?.to_vec()));
    match header {
        0x00..=0x7f => Some(Item::Number(header.into())),
        0xa0..=0xbf => raw(usize::from(header & 0x1f), input),
        0xc0 => Some(Item::Nil),
        0xc4 | 0xd9 => read_number(input, 1).and_then(|len| raw(len as usize, input)),
        0xc5 | 0xda => read_number(input, 2).and_then(|len| raw(len as usize, input)),
        0xc6 | 0xdb => read_number(input, 4).and_then(|len| raw(len as usize, input)),
        // Go writes signed fields too; a negative one is out of range for every field read here.
        0xcc..=0xcf => Some(Item::Number(read_number(input, 1 << (header - 0xcc))?)),
        0xd0..=0xd3 => Some(Item::Number(read_number(input, 1 << (header - 0xd0))?)),
        _ => None,
    }
}

fn read_number(input: &mut &[u8], bytes: usize) -> Option<u64> {
    let bytes = take(input, bytes)?;
    Some(bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

#[test]
fn vectors_durations_are_read_as_go_writes_them() {
    let secs = |n| Some(Duration::from_secs(n));
    assert_eq!(duration("0s"), secs(0));
    assert_eq!(duration("1m0s"), secs(60));
    assert_eq!(duration("2h0m0s"), secs(7200));
    assert_eq!(duration("1m0.5s"), Some(Duration::from_millis(60_500)));
    assert_eq!(duration("300ms"), Some(Duration::from_millis(300)));
    assert_eq!((duration(""), duration("5"), duration("5x")), (None, None, None));
}
