//! Sealed messages, frames and labels, byte by byte. Go's version 0 is accepted here, as Go does.

use memberlist_security::testing::{seal_frame_with_nonce, seal_with_nonce};
use memberlist_security::{
    FRAME_HEAD, FRAME_HEADER, FrameError, FrameHeader, HEAD, Keyring, Label, LabelError, OpenError,
    SecretKey, Version, open, open_frame,
};
use serde_json::{Value, json};

use super::case::{Case, Outcome, Runner};
use super::go::{from_hex, to_hex};

/// The key of the cases that name none.
const KEY: &str = "000102030405060708090a0b0c0d0e0f";
const MAX_FRAME_BYTES: usize = 1 << 20;

pub(crate) fn runner(case: &Case) -> Option<Runner> {
    if case.has_inputs(&["aad", "key", "nonce", "plaintext", "version"]) {
        Some(run_packet)
    } else if case.has_inputs(&["aad", "key", "label", "nonce", "plaintext"]) {
        Some(run_frame)
    } else if case.has_inputs(&["label", "packet"]) {
        Some(run_label)
    } else if case.has_inputs(&[]) && case.expect.is_string() {
        Some(run_refused)
    } else if case.has_inputs(&[]) && case.expect.get("rest").is_some() {
        Some(run_split)
    } else {
        None
    }
}

fn bytes(case: &Case, field: &str) -> Result<Vec<u8>, String> {
    from_hex(case.text(field)?).ok_or(format!("inputs.{field} is not hexadecimal"))
}

fn message(case: &Case) -> Result<Vec<u8>, String> {
    from_hex(&case.hex).ok_or("hex is not hexadecimal".to_owned())
}

fn keyring(key: &str) -> Result<Keyring, String> {
    SecretKey::from_hex(key).map(Keyring::new).map_err(|error| error.to_string())
}

fn nonce(case: &Case) -> Result<[u8; 12], String> {
    bytes(case, "nonce")?.try_into().map_err(|_| "inputs.nonce has not 12 bytes".to_owned())
}

fn version(number: u8) -> Result<Version, String> {
    match number {
        0 => Ok(Version::V0),
        1 => Ok(Version::V1),
        other => Err(format!("unknown version {other}")),
    }
}

/// A buffer with room before the content.
fn with_head(head: usize, content: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; head];
    buffer.extend_from_slice(content);
    buffer
}

/// The captured bytes and, where there is one, the expected result, against ours. Also what Go has
/// sealed must open to what it sealed.
fn compare(case: &Case, ours: &[u8], opened: Result<String, String>) -> Outcome {
    let captured = json!({ "hex": case.hex, "opened": case.text("plaintext")? });
    let opened = opened.unwrap_or_else(|error| error);
    let mut found = case.compare(&captured, &json!({ "hex": to_hex(ours), "opened": opened }));
    if !case.expect.is_null() {
        found.extend(case.compare(&case.expect, &json!({ "len": ours.len() })));
    }
    Ok(found)
}

fn run_packet(case: &Case) -> Outcome {
    let (keyring, aad) = (keyring(case.text("key")?)?, bytes(case, "aad")?);
    let version = version(case.number("version")?)?;
    let mut ours = with_head(HEAD, &bytes(case, "plaintext")?);
    let sealed = seal_with_nonce(&keyring, version, &nonce(case)?, &aad, &mut ours, HEAD);
    let begin = sealed.map_err(|error| error.to_string())?.begin;
    let ours = &ours[begin..];
    let mut theirs = message(case)?;
    let opened = open(&keyring, &aad, &mut theirs, true).map(|content| to_hex(content));
    compare(case, ours, opened.map_err(|error| error.to_string()))
}

fn run_frame(case: &Case) -> Outcome {
    let keyring = keyring(case.text("key")?)?;
    let label = Label::new(case.text("label")?).map_err(|error| error.to_string())?;
    let mut theirs = message(case)?;
    // The version is not among the inputs.
    let version = version(*theirs.get(FRAME_HEADER).ok_or("hex is no frame")?)?;
    let mut ours = with_head(FRAME_HEAD, &bytes(case, "plaintext")?);
    let sealed =
        seal_frame_with_nonce(&keyring, version, &nonce(case)?, &label, &mut ours, FRAME_HEAD);
    let begin = sealed.map_err(|error| error.to_string())?.begin;
    let ours = &ours[begin..];
    let aad = [&ours[..FRAME_HEADER], label.as_bytes()].concat();
    let opened = open_captured_frame(&keyring, &label, &mut theirs);
    let mut found = compare(case, ours, opened.map_err(|error| error.to_string()))?;
    found.extend(case.compare(&case.inputs["aad"], &json!(to_hex(&aad))));
    Ok(found)
}

fn open_captured_frame(
    keyring: &Keyring,
    label: &Label,
    frame: &mut [u8],
) -> Result<String, FrameError> {
    let Some(header) = FrameHeader::parse(frame, MAX_FRAME_BYTES)? else {
        return Ok("no whole header".to_owned());
    };
    let message = &mut frame[FRAME_HEADER..];
    open_frame(keyring, label, header, message, true).map(|(content, _)| to_hex(content))
}

/// A message that Go refuses, in Go's words.
fn run_refused(case: &Case) -> Outcome {
    let mut message = message(case)?;
    let got = match open(&keyring(KEY)?, b"", &mut message, true) {
        Ok(_) => String::new(),
        Err(OpenError::TooShort { len: 0, .. }) => "cannot decrypt empty payload".to_owned(),
        Err(OpenError::TooShort { len, .. }) => format!("payload is too small to decrypt: {len}"),
        Err(OpenError::UnknownVersion(version)) => {
            format!("unsupported encryption version {version}")
        }
        Err(OpenError::NoKeyFits) => "no installed keys could decrypt the message".to_owned(),
        Err(other) => other.to_string(),
    };
    Ok(case.compare(&case.expect, &Value::String(got)))
}

/// A header that is written, and read again.
fn run_label(case: &Case) -> Outcome {
    let label = Label::new(case.text("label")?).map_err(|error| error.to_string())?;
    let mut ours = with_head(label.header_len(), &bytes(case, "packet")?);
    label.write_header(&mut ours);
    let theirs = message(case)?;
    let rest = label.check(&theirs, false).map(to_hex).unwrap_or_else(|error| error.to_string());
    let captured = json!({ "hex": case.hex, "rest": case.inputs["packet"] });
    let mut found = case.compare(&captured, &json!({ "hex": to_hex(&ours), "rest": rest }));
    if !case.expect.is_null() {
        found.extend(case.compare(&case.expect, &Value::Null));
    }
    Ok(found)
}

/// A header that is read, good or broken, in Go's words.
fn run_split(case: &Case) -> Outcome {
    let packet = message(case)?;
    let (error, label, rest) = match Label::split(&packet) {
        Ok((label, rest)) => (String::new(), label, rest),
        Err(LabelError::Truncated) => {
            ("cannot decode label; packet has been truncated".to_owned(), &b""[..], &b""[..])
        }
        Err(LabelError::Empty) => {
            ("label header cannot be empty when present".to_owned(), &b""[..], &b""[..])
        }
        Err(other) => (other.to_string(), &b""[..], &b""[..]),
    };
    let got = json!({
        "error": error,
        "label": String::from_utf8_lossy(label),
        "rest": to_hex(rest),
    });
    Ok(case.compare(&case.expect, &got))
}
