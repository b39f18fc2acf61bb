//! What Go's decoder makes of bytes that no encoder of its own writes.

use memberlist_protocol::wire::hashicorp::{ReadError, Reader, body};
use serde_json::{Value, json};

use super::super::case::{Case, Outcome, Runner};
use super::captured;
use super::fields::Described;

pub(super) fn runner(case: &Case) -> Option<Runner> {
    (case.has_inputs(&["struct"]) && case.expect.get("error").is_some()).then_some(run as Runner)
}

fn run(case: &Case) -> Outcome {
    let bytes = captured(case)?;
    match case.text("struct")? {
        "ping" => run_as::<body::Ping<'_>>(case, &bytes),
        "indirectPingReq" => run_as::<body::IndirectPing<'_>>(case, &bytes),
        "ackResp" => run_as::<body::Ack<'_>>(case, &bytes),
        "nackResp" => run_as::<body::Nack>(case, &bytes),
        "errResp" => run_as::<body::ErrorAnswer<'_>>(case, &bytes),
        "suspect" | "dead" => run_as::<body::Accusation<'_>>(case, &bytes),
        "alive" => run_as::<body::Alive<'_>>(case, &bytes),
        "pushPullHeader" => run_as::<body::PushPullHeader>(case, &bytes),
        "pushNodeState" => run_as::<body::NodeState<'_>>(case, &bytes),
        "userMsgHeader" => run_as::<body::UserHeader>(case, &bytes),
        "compress" => run_as::<body::Compressed<'_>>(case, &bytes),
        other => Err(format!("unknown struct {other}")),
    }
}

/// Of what is refused, only that it is: Go's struct then holds what came before the fault, which
/// nobody looks at.
fn run_as<'a, B: Described<'a>>(case: &Case, bytes: &'a [u8]) -> Outcome {
    let theirs = case.expect["error"].as_str().ok_or("expect.error is not a text")?;
    Ok(match B::read(&mut Reader::new(bytes)) {
        Ok(body) => {
            let mut got = body.show();
            got.insert("error".to_owned(), "".into());
            case.compare(&case.expect, &Value::Object(got))
        }
        Err(error) => {
            let ours = format!("{error:?}");
            let got = if is_same(error, theirs) { theirs } else { &ours };
            case.compare(&json!({ "error": theirs }), &json!({ "error": got }))
        }
    })
}

/// Whether Go's words say the same as this error.
fn is_same(error: ReadError, theirs: &str) -> bool {
    let ReadError::Malformed(what) = error else {
        return matches!(theirs, "EOF" | "unexpected EOF");
    };
    let Some((place, theirs)) = theirs.split_once(": ") else { return false };
    let said = [
        ("overflow", "out of range"),
        ("negative", "negative"),
        ("cannot decode unsigned integer", "not an integer"),
        ("cannot decode signed integer", "not an integer"),
        ("cannot decode bool", "truth value"),
        ("invalid byte descriptor", "text"),
        ("invalid byte descriptor", "byte array"),
        ("only encoded map or array", "neither a map nor an array"),
        ("depth", "nested too deep"),
    ];
    let mut pairs = said.iter().filter(|(go, _)| theirs.contains(go)).peekable();
    // Words that are not listed may be about anything.
    let unlisted = pairs.peek().is_none();
    place.starts_with("msgpack decode error [pos ")
        && (unlisted || pairs.any(|(_, ours)| what.contains(ours)))
}
