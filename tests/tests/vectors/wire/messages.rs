//! Messages alone: their fields, and the bytes that Go writes for them.

use memberlist_protocol::Dialect;
use memberlist_protocol::message::Message;
use memberlist_protocol::wire::hashicorp::{Body, Reader, body, kind, lzw};
use memberlist_protocol::wire::{PacketReader, WireFormat};
use serde_json::json;

use super::super::case::{Case, Mismatch, Outcome, Runner};
use super::super::go::{from_hex, to_hex};
use super::fields::{Described, repeated};
use super::{Departure, captured, nothing_more, parts_of};

/// Runs a case of a message that this library has.
macro_rules! message {
    ($kind:ident, $body:ty, $kept:expr) => {
        |case| {
            let bytes = captured(case)?;
            run_message::<$body>(case, kind::$kind, &bytes, $kept)
        }
    };
}

/// Runs a case of a body that is part of something else.
macro_rules! body {
    ($kind:expr, $body:ident) => {
        |case| {
            let bytes = captured(case)?;
            run_body(case, $kind, body::$body::from_inputs(&case.inputs)?, &bytes)
        }
    };
}

pub(super) fn runner(case: &Case) -> Option<Runner> {
    let inputs = &case.inputs;
    // The only body that comes without its type.
    if body::NodeState::fits(inputs) {
        return Some(body!(None, NodeState));
    }
    let (fits, run): (bool, Runner) = match from_hex(case.hex.get(..2)?)?[0] {
        kind::PING => (
            body::Ping::fits(inputs),
            message!(PING, body::Ping<'_>, |mut body| {
                let body::Ping { source_addr, source_node, source_port, .. } = &mut body;
                keep_source(source_addr, source_node, source_port);
                body
            }),
        ),
        kind::INDIRECT_PING => (
            body::IndirectPing::fits(inputs),
            message!(INDIRECT_PING, body::IndirectPing<'_>, |mut body| {
                let body::IndirectPing { source_addr, source_node, source_port, .. } = &mut body;
                keep_source(source_addr, source_node, source_port);
                body
            }),
        ),
        kind::ACK => (body::Ack::fits(inputs), message!(ACK, body::Ack<'_>, |body| body)),
        kind::NACK => (body::Nack::fits(inputs), message!(NACK, body::Nack, |body| body)),
        kind::SUSPECT => {
            (body::Accusation::fits(inputs), message!(SUSPECT, body::Accusation<'_>, |body| body))
        }
        kind::DEAD => {
            (body::Accusation::fits(inputs), message!(DEAD, body::Accusation<'_>, |body| body))
        }
        kind::ALIVE => (body::Alive::fits(inputs), message!(ALIVE, body::Alive<'_>, |body| body)),
        kind::ERROR => (body::ErrorAnswer::fits(inputs), body!(Some(kind::ERROR), ErrorAnswer)),
        kind::PUSH_PULL => {
            (body::PushPullHeader::fits(inputs), body!(Some(kind::PUSH_PULL), PushPullHeader))
        }
        kind::USER if body::UserHeader::fits(inputs) => (true, body!(Some(kind::USER), UserHeader)),
        kind::USER => (case.has_inputs(&["payload"]), run_user),
        kind::COMPRESS => (case.has_inputs(&["payload"]), run_compressed),
        _ => return None,
    };
    fits.then_some(run)
}

/// The body alone, written and read.
fn run_body<'a, B: Described<'a>>(
    case: &Case,
    kind: Option<u8>,
    fields: B,
    bytes: &'a [u8],
) -> Outcome {
    let mut ours: Vec<u8> = kind.into_iter().collect();
    let mut reader = Reader::new(bytes.get(ours.len()..).unwrap_or_default());
    fields.write(&mut ours);
    let read = match B::read(&mut reader) {
        Ok(body) => format!("{body:?}, {} bytes left", reader.rest().len()),
        Err(error) => format!("{error:?}"),
    };
    let expect = json!({ "hex": case.hex, "read": format!("{fields:?}, 0 bytes left") });
    let mut found = case.compare(&expect, &json!({ "hex": to_hex(&ours), "read": read }));
    found.extend(nothing_more(case));
    Ok(found)
}

/// The same, and as a message of this library: read from a packet, and written into one. `kept` is
/// what a message keeps of the body.
fn run_message<'a, B: Described<'a>>(
    case: &Case,
    kind: u8,
    bytes: &'a [u8],
    kept: impl Fn(B) -> B,
) -> Outcome {
    let fields = B::from_inputs(&case.inputs)?;
    let whole = fields.clone().without_empty_arrays();
    let kept = kept(whole.clone());
    let all = kept == whole;
    let departure = if all { Departure::EmptyIsNil } else { Departure::IncompleteSource };
    let mut found = run_body(case, Some(kind), fields, bytes)?;
    if let Some(reason) = kept.refused() {
        found.extend(check_refused(case, bytes, reason));
        return Ok(found);
    }
    let mut expect = vec![kind];
    kept.write(&mut expect);
    let got = match parts_of(bytes)?.as_slice() {
        [Ok(part)] => to_hex(part),
        other => format!("{other:?}"),
    };
    found.extend(departure.check(case, to_hex(&expect), got));
    Ok(found)
}

/// See [`Departure::IncompleteSource`].
fn keep_source(addr: &mut body::Bytes<'_>, node: &mut body::Text<'_>, port: &mut u16) {
    if addr.is_none() || *port == 0 {
        (*addr, *node, *port) = Default::default();
    }
}

fn check_refused(case: &Case, bytes: &[u8], reason: &str) -> Vec<Mismatch> {
    let got = match parts_of(bytes) {
        Ok(parts) => format!("{parts:?}"),
        Err(error) => error,
    };
    let got = if got.contains(reason) && got.contains("Err(") { reason.to_owned() } else { got };
    Departure::RefusedField.check(case, reason, got)
}

/// A text, of which `'a' x 31` is one.
fn payload(case: &Case) -> Result<Vec<u8>, String> {
    let text = case.text("payload")?;
    Ok(repeated(text).unwrap_or_else(|| text.as_bytes().to_vec()))
}

fn run_user(case: &Case) -> Outcome {
    let (bytes, payload) = (captured(case)?, payload(case)?);
    let mut ours = Vec::new();
    Dialect::Hashicorp.encode(&Message::User(&payload), &mut ours);
    let (mut reader, mut read) = (PacketReader::default(), Vec::new());
    let packet = reader.read(WireFormat::Hashicorp, &bytes).map_err(|error| error.to_string())?;
    packet.for_each(|message| read.push(format!("{message:?}")));
    let message: Result<_, ()> = Ok(Message::User(&payload));
    let expect = json!({ "hex": case.hex, "read": [format!("{message:?}")] });
    let mut found = case.compare(&expect, &json!({ "hex": to_hex(&ours), "read": read }));
    found.extend(nothing_more(case));
    Ok(found)
}

fn run_compressed(case: &Case) -> Outcome {
    let (bytes, payload) = (captured(case)?, payload(case)?);
    let (mut buf, mut ours) = (Vec::new(), vec![kind::COMPRESS]);
    lzw::Encoder::default().encode(&payload, &mut buf);
    let body = body::Compressed { algo: 0, buf: Some(buf.into()) };
    body.write(&mut ours);
    let read = body::Compressed::read(&mut Reader::new(&bytes[1..]));
    let read = read.map_err(|error| format!("{error:?}"))?;
    let mut content = Vec::new();
    let done = lzw::decode(read.buf.as_deref().unwrap_or_default(), payload.len(), &mut content);
    let read = done.map(|()| to_hex(&content)).unwrap_or_else(|error| error.to_string());
    let expect = json!({ "hex": case.hex, "read": to_hex(&payload) });
    let mut found = case.compare(&expect, &json!({ "hex": to_hex(&ours), "read": read }));
    found.extend(nothing_more(case));
    Ok(found)
}
