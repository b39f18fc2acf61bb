//! Whole streams: what the dialling side sends, and what a node answers.

use std::sync::Arc;

use memberlist_protocol::message::{Ack, Ping, PingSource};
use memberlist_protocol::wire::stream::{
    FrameNumber, MessageFrames, MessageReader, PushPullStart, RemoteRecord, RemoteState,
    SnapshotRecord, StreamItem, StreamLimits,
};
use memberlist_protocol::wire::{WireFormat, hashicorp::kind};
use memberlist_protocol::{Dialect, Node, NodeId, NodeState, Versions};
use memberlist_security::testing::seal_frame_with_nonce;
use memberlist_security::{
    FRAME_HEAD, FRAME_HEADER, FrameHeader, Keyring, Label, Version, open_frame,
};
use serde_json::json;

use super::super::case::{Case, Mismatch, Outcome, Runner};
use super::super::go::to_hex;
use super::{
    Departure, captured, hex_field, nothing_more, sealing, split_label, version_of, with_label,
};

/// The node that was asked.
const ASKED: &str = "foo";
const MAX_FRAME_BYTES: usize = 1 << 20;

pub(super) fn runner(case: &Case) -> Option<Runner> {
    let has = |field: &str| case.inputs.contains_key(field);
    let all_known = |known: &[&str]| {
        let known = |key: &String| {
            ["key", "nonce"].contains(&key.as_str()) || known.contains(&key.as_str())
        };
        case.inputs.keys().all(known)
    };
    let message = has("nonce") && all_known(&["payload"]) && !case.hex.is_empty();
    let state = has("nodes") && all_known(&["join", "nodes", "user_state"]);
    if has("request") && all_known(&["request"]) {
        Some(run_answer)
    } else {
        (message || state).then_some(run_question as Runner)
    }
}

/// What was around the one message of a direction, to be put there again.
struct Around {
    compressed: bool,
    sealed: Option<Version>,
}

/// Takes off what is around a message.
fn open_stream(
    rest: &[u8],
    keyring: Option<&Keyring>,
    label: &Label,
) -> Result<(Around, Vec<u8>), String> {
    let Some(keyring) = keyring.filter(|_| rest.first() == Some(&kind::ENCRYPT)) else {
        let compressed = rest.first() == Some(&kind::COMPRESS);
        return Ok((Around { compressed, sealed: None }, rest.to_vec()));
    };
    let header = FrameHeader::parse(rest, MAX_FRAME_BYTES).map_err(|error| error.to_string())?;
    let header = header.ok_or("a frame without a whole header")?;
    let mut sealed = rest[FRAME_HEADER..].to_vec();
    let version = version_of(&sealed)?;
    let opened = open_frame(keyring, label, header, &mut sealed, true);
    let content = opened.map_err(|error| error.to_string())?.0.to_vec();
    let compressed = content.first() == Some(&kind::COMPRESS);
    Ok((Around { compressed, sealed: Some(version) }, content))
}

/// The one message of a direction.
fn read(content: &[u8]) -> Result<StreamItem, String> {
    let mut reader = MessageReader::new(WireFormat::Hashicorp, StreamLimits::default(), 7946);
    reader.push(content);
    let item = reader.next_item().map_err(|error| error.to_string())?;
    item.ok_or("the stream ends in the middle of a message".to_owned())
}

/// The message in the bytes of a stream.
fn write(
    item: &StreamItem,
    around: &Around,
    sealing: Option<&(Keyring, [u8; 12])>,
    label: &Label,
) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; FRAME_HEAD];
    let mut frames = frames(item)?.compressed(around.compressed);
    let mut number = FrameNumber::default();
    while frames.next_record(&mut number, &mut bytes) {}
    let begin = match (around.sealed, sealing) {
        (None, _) => FRAME_HEAD,
        (Some(_), None) => return Err("no key".to_owned()),
        (Some(version), Some((keyring, nonce))) => {
            seal_frame_with_nonce(keyring, version, nonce, label, &mut bytes, FRAME_HEAD)
                .map_err(|error| error.to_string())?
                .begin
        }
    };
    Ok(bytes.split_off(begin))
}

fn frames(item: &StreamItem) -> Result<MessageFrames, String> {
    let dialect = Dialect::Hashicorp;
    Ok(match item {
        StreamItem::Ping { sequence, node, source } => {
            let node = node.as_ref().map_or("", NodeId::as_str);
            let source = source.as_ref();
            let source = source.map(|(id, addr)| PingSource { node: id.as_str(), addr: *addr });
            MessageFrames::ping(dialect, &Ping { sequence: *sequence, node, source, native: false })
        }
        StreamItem::Ack { sequence, payload } => {
            MessageFrames::ack(dialect, &Ack { sequence: *sequence, payload, native: false })
        }
        StreamItem::User(bytes) => MessageFrames::user(dialect, bytes.clone()),
        StreamItem::Error(text) => MessageFrames::error(dialect, text),
        StreamItem::PushPull(state) => {
            // Neither name is on Go's wire.
            let from = NodeId::new(ASKED).map_err(|error| error.to_string())?;
            let start = PushPullStart { from, to: None, join: state.join };
            let record = |record: &RemoteRecord| SnapshotRecord {
                node: Arc::new(record.node.clone()),
                incarnation: record.incarnation,
                state: record.state,
            };
            let records = state.nodes.iter().map(record).collect();
            MessageFrames::push_pull(dialect, start, records, state.user_state.clone())
        }
        other => return Err(format!("{other:?} is not written in Go's format")),
    })
}

/// What the dialling side sends.
fn run_question(case: &Case) -> Outcome {
    let (bytes, sealing) = (captured(case)?, sealing(case)?);
    let (label, rest) = split_label(&bytes)?;
    let (around, content) =
        open_stream(rest, sealing.as_ref().map(|(keyring, _)| keyring), &label)?;
    let item = read(&content)?;
    let ours = with_label(&label, &write(&item, &around, sealing.as_ref(), &label)?);
    let mut found = case.compare(&json!({ "hex": case.hex }), &json!({ "hex": to_hex(&ours) }));
    let expect = if case.inputs.contains_key("payload") {
        Some(StreamItem::User(case.text("payload")?.as_bytes().to_vec().into()))
    } else if case.inputs.contains_key("nodes") {
        let mut state = state(case)?;
        // The nodes are described as they are with any later version of the protocol.
        let own = state.nodes.iter_mut().filter(|record| record.node.id.as_str() == ASKED);
        own.filter(|_| around.sealed == Some(Version::V0)).for_each(speaks_first_protocol);
        Some(StreamItem::PushPull(state))
    } else {
        None
    };
    match (expect, &item) {
        (None, StreamItem::Ping { .. }) => {}
        (None, other) => found.push(case.fault(&format!("{other:?} in place of a ping"))),
        (Some(expect), item) => {
            let shown = |item: &StreamItem| json!(format!("{item:?}"));
            found.extend(case.compare(&shown(&expect), &shown(item)));
        }
    }
    found.extend(nothing_more(case));
    Ok(found)
}

/// The state of the inputs.
fn state(case: &Case) -> Result<RemoteState, String> {
    let nodes: Option<Vec<_>> =
        case.text("nodes")?.split("; ").filter(|node| !node.is_empty()).map(node).collect();
    let join = case.inputs.get("join").and_then(serde_json::Value::as_bool);
    Ok(RemoteState {
        join: join.ok_or("inputs.join is not a flag")?,
        nodes: nodes.ok_or("inputs.nodes cannot be read")?,
        user_state: case.text("user_state")?.as_bytes().to_vec().into(),
        ..RemoteState::default()
    })
}

/// Only nodes that speak the first version of the protocol pad what they seal, and they say so.
fn speaks_first_protocol(record: &mut RemoteRecord) {
    if let [min, max, _, rest @ ..] = record.node.versions.as_bytes() {
        record.node.versions = Versions::from_bytes(&[&[*min, *max, 1], rest].concat());
    }
}

/// Reads `foo 127.0.0.1:7946 inc 1 alive vsn 1,5,2,0,0,0 meta 'm'`.
fn node(text: &str) -> Option<RemoteRecord> {
    let words: Vec<&str> = text.splitn(9, ' ').collect();
    let &[name, addr, "inc", incarnation, state, "vsn", versions, "meta", meta] = words.as_slice()
    else {
        return None;
    };
    let versions: Option<Vec<u8>> = versions.split(',').map(|number| number.parse().ok()).collect();
    let meta = match meta {
        "nil" => "",
        meta => meta.strip_prefix('\'')?.strip_suffix('\'')?,
    };
    let state = match state {
        "alive" => NodeState::Alive,
        "suspect" => NodeState::Suspect,
        "dead" => NodeState::Dead,
        "left" => NodeState::Left,
        _ => return None,
    };
    let meta = meta.as_bytes().to_vec().into();
    let versions = Versions::from_bytes(&versions?);
    let node = Node::new(NodeId::new(name).ok()?, addr.parse().ok()?, meta, versions);
    Some(RemoteRecord { node, incarnation: incarnation.parse().ok()?, state })
}

/// What a node answers.
fn run_answer(case: &Case) -> Outcome {
    let (bytes, sealing) = (captured(case)?, sealing(case)?);
    let request = hex_field(case, "request")?;
    let (label, request) = split_label(&request)?;
    let is_sealed = |bytes: &[u8]| bytes.first() == Some(&kind::ENCRYPT);
    // Each configuration has the same key, which is in use where anything is sealed.
    let seals = is_sealed(request) || is_sealed(&bytes);
    let keyring = sealing.as_ref().filter(|_| seals).map(|(keyring, _)| keyring);
    let mut found = nothing_more(case);
    let asked = match (keyring, is_sealed(request)) {
        (Some(_), false) => Err(Refused::Plain),
        (None, true) => Err(Refused::Sealed),
        _ => match open_stream(request, keyring, &label) {
            Ok((_, content)) => Ok(read(&content)?),
            Err(_) => Err(Refused::NoKeyFits),
        },
    };
    if bytes.is_empty() {
        let ours = match asked {
            // It is not asked itself, or nothing is asked.
            Ok(StreamItem::Ping { node: Some(node), .. }) if node.as_str() != ASKED => {
                String::new()
            }
            Ok(StreamItem::User(_) | StreamItem::Unknown(_)) => String::new(),
            asked => format!("an answer to {asked:?}"),
        };
        found.extend(case.compare(&json!(""), &json!(ours)));
        return Ok(found);
    }
    // The answer has no label header, but is sealed with the label.
    let (around, content) = open_stream(&bytes, keyring, &label)?;
    let captured = read(&content)?;
    let answer = match (asked, captured) {
        (Ok(StreamItem::Ping { sequence, node, .. }), _)
            if node.as_ref().is_none_or(|node| node.as_str() == ASKED) =>
        {
            StreamItem::Ack { sequence, payload: Default::default() }
        }
        // What the node knows is not among the inputs.
        (Ok(StreamItem::PushPull(asked)), StreamItem::PushPull(state)) => {
            StreamItem::PushPull(RemoteState { join: asked.join, ..state })
        }
        (Err(refused), StreamItem::Error(_)) => {
            found.extend(refused.check(case, request, &label));
            StreamItem::Error(refused.go().to_owned())
        }
        (asked, captured) => return Err(format!("{asked:?} was answered with {captured:?}")),
    };
    let ours = write(&answer, &around, sealing.as_ref(), &label)?;
    found.extend(case.compare(&json!({ "hex": case.hex }), &json!({ "hex": to_hex(&ours) })));
    Ok(found)
}

/// Why Go's frame layer refuses a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    /// It must be sealed.
    Plain,
    /// It is sealed, and there is no key here.
    Sealed,
    /// No key here opens it.
    NoKeyFits,
}

impl Refused {
    /// Go's words.
    fn go(self) -> &'static str {
        match self {
            Self::Plain => "encryption is configured but remote state is not encrypted",
            Self::Sealed => "remote state is encrypted and encryption is not configured",
            Self::NoKeyFits => "no installed keys could decrypt the message",
        }
    }

    /// What is said here in place of that.
    fn check(self, case: &Case, request: &[u8], label: &Label) -> Vec<Mismatch> {
        let (expect, got) = match self {
            Self::Plain => (
                "does not encrypt",
                FrameHeader::parse(request, MAX_FRAME_BYTES).err().map(|error| error.to_string()),
            ),
            Self::Sealed => ("this node has no key", read(request).err()),
            Self::NoKeyFits => {
                let keyring = sealing(case).ok().flatten().map(|(keyring, _)| keyring);
                ("key", open_stream(request, keyring.as_ref(), label).err())
            }
        };
        let got = got.unwrap_or_else(|| "nothing".to_owned());
        let got = if got.contains(expect) { expect.to_owned() } else { got };
        Departure::WordsOfRefusal.check(case, expect, got)
    }
}
