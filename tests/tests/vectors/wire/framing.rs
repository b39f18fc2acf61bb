//! Layers by themselves: compounds, whole and cut short, checksums and LZW.

use memberlist_protocol::wire::hashicorp::lzw;
use memberlist_protocol::wire::{PacketError, PacketReader, WireFormat};
use serde_json::{Value, json};

use super::super::case::{Case, Outcome, Runner};
use super::super::go::{from_hex, to_hex};
use super::{Departure, captured, hex_field, nothing_more, packet_of, parts_of};

/// Type byte, number of parts, and the length of one.
const HEAD_OF_ONE: usize = 4;

pub(super) fn runner(case: &Case) -> Option<Runner> {
    let is = |fields: &[&str]| case.has_inputs(fields);
    if is(&["parts"]) {
        Some(run_compound)
    } else if is(&["message_i"]) {
        Some(run_split)
    } else if is(&["of"]) {
        Some(run_cut)
    } else if is(&["payload"]) && case.hex.starts_with("0c") {
        Some(run_checksum)
    } else if is(&["len", "note"]) || is(&["input", "len", "note"]) {
        Some(run_lzw)
    } else {
        None
    }
}

/// What was read, in hexadecimal; what was not understood, in words.
fn shown(parts: &[Result<Vec<u8>, String>]) -> Vec<String> {
    let show = |part: &Result<Vec<u8>, String>| match part {
        Ok(part) => to_hex(part),
        Err(error) => error.clone(),
    };
    parts.iter().map(show).collect()
}

/// A compound of these parts: as captured, and as we write it.
fn compare_compound(case: &Case, parts: &[Vec<u8>]) -> Outcome {
    let expect: Vec<String> = parts.iter().map(|part| to_hex(part)).collect();
    let bytes = captured(case)?;
    let read = shown(&parts_of(&bytes)?);
    let mut found = case.compare(&json!({ "read": expect }), &json!({ "read": read }));
    let ours = packet_of(parts, false, false)?;
    match parts {
        [] | [_] => {
            let bare = case.hex.get(2 * HEAD_OF_ONE..).unwrap_or_default();
            found.extend(Departure::LonePartIsBare.check(case, bare, to_hex(&ours)));
        }
        _ => found.extend(case.compare(&json!(case.hex), &json!(to_hex(&ours)))),
    }
    Ok(found)
}

fn run_compound(case: &Case) -> Outcome {
    let parts = case.inputs["parts"].as_array().ok_or("inputs.parts is not a list")?;
    let part = |part: &Value| part.as_str().and_then(from_hex);
    let parts: Option<Vec<_>> = parts.iter().map(part).collect();
    let mut found = compare_compound(case, &parts.ok_or("a part is not hexadecimal")?)?;
    found.extend(nothing_more(case));
    Ok(found)
}

/// One compound of a list that is too long for one: user messages that are numbered by their byte.
fn run_split(case: &Case) -> Outcome {
    if case.text("message_i")? != "08 <i>" {
        return Err("inputs.message_i: unknown messages".to_owned());
    }
    let bytes = captured(case)?;
    // Behind as many lengths as there are parts, which are of the same length.
    let first = *bytes.get(bytes.len() / 2 + 2).ok_or("hex has no part")?;
    let count = case.expect["count"].as_u64().ok_or("expect.count is not a number")?;
    // The messages before are in full compounds, of 255 each.
    let begins = (0..256).map(|full| full * 255_u64).find(|begin| *begin as u8 == first);
    let begin = begins.ok_or("no compound begins with this number")?;
    let parts: Vec<Vec<u8>> = (begin..begin + count).map(|i| vec![8, i as u8]).collect();
    compare_compound(case, &parts)
}

/// A compound that ends early: what is complete counts.
fn run_cut(case: &Case) -> Outcome {
    let (whole, bytes) = (hex_field(case, "of")?, captured(case)?);
    let mut found = Vec::new();
    if !whole.starts_with(&bytes) {
        found.push(case.fault("hex is no beginning of inputs.of"));
    }
    let got = match PacketReader::default().read(WireFormat::Hashicorp, &bytes) {
        Ok(_) => {
            let parts = parts_of(&bytes)?;
            let whole: Vec<_> = parts.iter().filter_map(|part| part.as_ref().ok()).collect();
            let truncated = parts.len() - whole.len();
            let whole: Vec<_> = whole.into_iter().map(|part| to_hex(part)).collect();
            json!({ "error": "", "parts": whole, "truncated": truncated })
        }
        Err(PacketError::Truncated) => {
            let without = bytes.len() == 1;
            let error =
                if without { "missing compound length byte" } else { "truncated len slice" };
            json!({ "error": error, "parts": [], "truncated": 0 })
        }
        Err(error) => json!({ "error": error.to_string(), "parts": [], "truncated": 0 }),
    };
    found.extend(case.compare(&case.expect, &got));
    Ok(found)
}

/// A checksum before bytes that need not be a message.
fn run_checksum(case: &Case) -> Outcome {
    let (payload, bytes) = (hex_field(case, "payload")?, captured(case)?);
    let ours = packet_of(std::slice::from_ref(&payload), true, false)?;
    let mut reader = PacketReader::default();
    // What is behind the sum need not be whole.
    let read = match reader.read(WireFormat::Hashicorp, &bytes) {
        Err(error @ PacketError::Checksum { .. }) => error.to_string(),
        _ => String::new(),
    };
    let expect = json!({ "hex": case.hex, "read": "" });
    let mut found = case.compare(&expect, &json!({ "hex": to_hex(&ours), "read": read }));
    // Each byte that is damaged is found.
    for at in 1..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let read = reader.read(WireFormat::Hashicorp, &damaged);
        if !matches!(read, Err(PacketError::Checksum { .. })) {
            found.push(case.fault("damage goes unnoticed"));
        }
    }
    found.extend(nothing_more(case));
    Ok(found)
}

fn run_lzw(case: &Case) -> Outcome {
    let (bytes, len) = (captured(case)?, case.number::<usize>("len")?);
    let mut content = Vec::new();
    lzw::decode(&bytes, len, &mut content).map_err(|error| error.to_string())?;
    let mut ours = Vec::new();
    lzw::Encoder::default().encode(&content, &mut ours);
    let got = json!({ "hex": to_hex(&ours), "len": content.len() });
    let mut found = case.compare(&json!({ "hex": case.hex, "len": len }), &got);
    let generated = [zeros(len), noise(len)];
    let content = to_hex(&content);
    match case.inputs.get("input") {
        Some(input) => found.extend(case.compare(input, &json!(content))),
        None if generated.contains(&content) => {}
        None => found.push(case.fault("neither of the contents that the note describes")),
    }
    found.extend(nothing_more(case));
    Ok(found)
}

/// `zeros_N` of the note.
fn zeros(len: usize) -> String {
    to_hex(&vec![0; len])
}

/// `lcg_N` of the note.
fn noise(len: usize) -> String {
    let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let numbers = std::iter::successors(Some(12_345), next).skip(1);
    let bytes: Vec<u8> = numbers.take(len).map(|x: u32| (x >> 24) as u8).collect();
    to_hex(&bytes)
}
