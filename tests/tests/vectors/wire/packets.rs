//! Whole packets: taken apart down to the messages, and put together again.

use memberlist_protocol::Dialect;
use memberlist_protocol::message::Message;
use memberlist_protocol::wire::hashicorp::kind;
use memberlist_security::testing::seal_with_nonce;
use memberlist_security::{HEAD, Version, open};
use serde_json::json;

use super::super::case::{Case, Outcome, Runner};
use super::super::go::to_hex;
use super::{
    Departure, captured, nothing_more, packet_of, parts_of, sealing, split_label, version_of,
    with_label,
};

/// Type byte and sum.
const CRC_BYTES: usize = 5;
/// What a compound of one part has before it.
const HEAD_OF_ONE: usize = 4;

pub(super) fn runner(case: &Case) -> Option<Runner> {
    let known = ["ProtocolVersion", "key", "label", "nonce", "payload", "to"];
    let all_known = case.inputs.keys().all(|key| known.contains(&key.as_str()));
    (all_known && case.inputs.contains_key("to")).then_some(run as Runner)
}

fn run(case: &Case) -> Outcome {
    let bytes = captured(case)?;
    let (label, rest) = split_label(&bytes)?;
    let mut content = rest.to_vec();
    let mut sealed = None;
    if let Some((keyring, nonce)) = sealing(case)? {
        let opened = open(&keyring, label.as_bytes(), &mut content, true);
        let len = opened.map_err(|error| error.to_string())?.len();
        content = content[HEAD..HEAD + len].to_vec();
        sealed = Some((keyring, nonce, version_of(rest)?));
    }
    let checksum = content.first() == Some(&kind::CRC);
    let inner = &content[if checksum { CRC_BYTES } else { 0 }..];
    let compressed = inner.first() == Some(&kind::COMPRESS);
    let lone = inner.starts_with(&[kind::COMPOUND, 1]);
    let parts: Result<Vec<_>, String> = parts_of(&content)?.into_iter().collect();
    let parts = parts?;
    let ours = packet_of(&parts, checksum, compressed)?;

    let mut found = nothing_more(case);
    if let (true, Some(part)) = (lone, inner.get(HEAD_OF_ONE..)) {
        let expect = packet_of(&[part.to_vec()], checksum, compressed)?;
        found.extend(Departure::LonePartIsBare.check(case, to_hex(&expect), to_hex(&ours)));
    } else {
        let mut ours = ours;
        if let Some((keyring, nonce, version)) = &sealed {
            ours.splice(..0, [0; HEAD]);
            let begin =
                seal_with_nonce(keyring, *version, nonce, label.as_bytes(), &mut ours, HEAD);
            ours.drain(..begin.map_err(|error| error.to_string())?.begin);
        }
        let ours = with_label(&label, &ours);
        found.extend(case.compare(&json!({ "hex": case.hex }), &json!({ "hex": to_hex(&ours) })));
    }

    // Only what is said of it.
    let mut expect = case.inputs.clone();
    expect.remove("to");
    let version = sealed.map(|(_, _, version)| if version == Version::V0 { 0 } else { 1 });
    if let Some(protocol) = expect.remove("ProtocolVersion") {
        // Only the first version of the protocol pads what it seals.
        let padded = if protocol == 1 { 0 } else { 1 };
        found.extend(case.compare(&json!({ "sealed": padded }), &json!({ "sealed": version })));
    }
    expect.entry("label").or_insert(json!(""));
    if let Some(payload) = expect.remove("payload") {
        let payload = payload.as_str().ok_or("inputs.payload is not a text")?;
        let mut part = Vec::new();
        Dialect::Hashicorp.encode(&Message::User(payload.as_bytes()), &mut part);
        let read: Vec<_> = parts.iter().map(|part| to_hex(part)).collect();
        found.extend(case.compare(&json!([to_hex(&part)]), &json!(read)));
    }
    found.extend(case.compare(&expect["label"], &json!(label.as_str())));
    Ok(found)
}
