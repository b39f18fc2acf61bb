//! The wire format: messages alone, layers alone, whole packets and streams, in both directions.
//!
//! What a case is about is seen from its inputs and from the first byte of what was captured.

mod decode;
mod fields;
mod framing;
mod messages;
mod packets;
mod streams;

use memberlist_protocol::Dialect;
use memberlist_protocol::wire::{PacketReader, PacketWriter, Room, WireFormat};
use memberlist_security::{Keyring, Label, SecretKey, Version};
use serde_json::{Value, json};

use super::case::{Case, Mismatch, Runner};
use super::go::from_hex;

pub(crate) fn runner(case: &Case) -> Option<Runner> {
    let runners = [
        decode::runner(case),
        framing::runner(case),
        packets::runner(case),
        streams::runner(case),
        messages::runner(case),
    ];
    runners.into_iter().flatten().next()
}

/// Whether nothing but its bytes says what values the messages of a case have, so that others would be
/// as good.
pub(crate) fn has_free_values(case: &Case) -> bool {
    let has = |field: &str| case.inputs.contains_key(field);
    let described = has("payload") || has("nodes");
    let state_of_an_answer = has("request") && case.hex.starts_with("06");
    match runner(case) {
        Some(_) if has("to") => !described,
        Some(_) if has("nonce") || has("request") => {
            state_of_an_answer || !described && !has("request")
        }
        _ => false,
    }
}

fn captured(case: &Case) -> Result<Vec<u8>, String> {
    from_hex(&case.hex).ok_or("hex is not hexadecimal".to_owned())
}

/// A field of hexadecimal digits.
fn hex_field(case: &Case, field: &str) -> Result<Vec<u8>, String> {
    from_hex(case.text(field)?).ok_or(format!("inputs.{field} is not hexadecimal"))
}

/// Something expected beside the bytes, which none of these cases has.
fn nothing_more(case: &Case) -> Vec<Mismatch> {
    match &case.expect {
        Value::Null => Vec::new(),
        expect => case.compare(expect, &Value::Null),
    }
}

/// The key and the nonce of what was sealed; nothing if none are given.
fn sealing(case: &Case) -> Result<Option<(Keyring, [u8; 12])>, String> {
    if !case.inputs.contains_key("key") {
        return Ok(None);
    }
    let key = SecretKey::from_hex(case.text("key")?).map_err(|error| error.to_string())?;
    let nonce = hex_field(case, "nonce")?;
    let nonce = nonce.try_into().map_err(|_| "inputs.nonce has not 12 bytes".to_owned())?;
    Ok(Some((Keyring::new(key), nonce)))
}

/// The version that something sealed begins with.
fn version_of(sealed: &[u8]) -> Result<Version, String> {
    match sealed.first() {
        Some(0) => Ok(Version::V0),
        Some(1) => Ok(Version::V1),
        other => Err(format!("sealed with version {other:?}")),
    }
}

/// What is in front of a packet or stream, and the rest.
fn split_label(bytes: &[u8]) -> Result<(Label, &[u8]), String> {
    let (label, rest) = Label::split(bytes).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(label).map_err(|error| error.to_string())?;
    Ok((Label::new(text).map_err(|error| error.to_string())?, rest))
}

fn with_label(label: &Label, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; label.header_len()];
    label.write_header(&mut bytes);
    bytes.extend_from_slice(rest);
    bytes
}

/// The parts of a packet as this library would write them, or what it says to one that it does not
/// understand.
fn parts_of(packet: &[u8]) -> Result<Vec<Result<Vec<u8>, String>>, String> {
    let mut reader = PacketReader::default();
    let read = reader.read(WireFormat::Hashicorp, packet).map_err(|error| error.to_string())?;
    let mut parts = Vec::new();
    read.for_each(|message| {
        parts.push(message.map_err(|error| error.to_string()).map(|message| {
            let mut part = Vec::new();
            Dialect::Hashicorp.encode(&message, &mut part);
            part
        }));
    });
    Ok(parts)
}

/// A packet of these parts.
fn packet_of(parts: &[Vec<u8>], checksum: bool, compressed: bool) -> Result<Vec<u8>, String> {
    let mut packet = Vec::new();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 65_507 };
    let mut writer = PacketWriter::new(&mut packet, Dialect::Hashicorp, checksum, room);
    if !parts.iter().all(|part| writer.push_encoded(part)) {
        return Err("the parts do not fit a packet".to_owned());
    }
    match compressed {
        true => writer.finish_compressed(),
        false => writer.finish(),
    };
    Ok(packet)
}

/// Where this library means to write other bytes than Go; the runners check what it writes instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Departure {
    /// Go wraps the last part of a split compound even if it is alone, and an empty list: a lone part
    /// goes without here, which saves four bytes, and nothing is not sent.
    LonePartIsBare,
    /// Go tells an empty byte array from none: nothing here does, so none is written.
    EmptyIsNil,
    /// Go keeps the parts of an incomplete source and ignores them: they are not kept here.
    IncompleteSource,
    /// Go takes names that are empty, too long or not UTF-8, and addresses that no node can have:
    /// they are refused here, and counted.
    RefusedField,
    /// The words of a refusal are this library's own, and they are in the clear for a peer that has
    /// shown no key: sealed, it could not read them.
    WordsOfRefusal,
}

impl Departure {
    /// Ours against what it is to be instead of Go's.
    fn check(self, case: &Case, instead: impl Into<Value>, got: impl Into<Value>) -> Vec<Mismatch> {
        let (field, instead, got) = (format!("{self:?}"), instead.into(), got.into());
        case.compare(&json!({ field.as_str(): instead }), &json!({ field.as_str(): got }))
    }
}
