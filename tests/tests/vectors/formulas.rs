//! Formulas by cluster size, what is left of a suspicion, and join addresses.

use std::net::IpAddr;
use std::time::Duration;

use memberlist::address::{AddressError, JoinAddress, ensure_port, has_port};
use memberlist_protocol::membership::testing::{
    push_pull_interval, retransmit_limit, suspicion_timeout, suspicion_timeout_after,
};
use serde_json::{Map, Value, json};

use super::case::{Case, Outcome, Runner};
use super::go;

/// What the cases were captured with.
const ENSURED_PORT: u16 = 8301;
const JOIN_PORT: u16 = 7946;

pub(crate) fn runner(case: &Case) -> Option<Runner> {
    let expects = |field| case.expect.get(field).is_some();
    if case.has_inputs(&["n"]) {
        Some(by_cluster_size)
    } else if case.has_inputs(&["n", "k", "elapsed_ns", "min_ns", "max_ns"]) {
        Some(remaining)
    } else if case.has_inputs(&["s"]) && expects("hasPort") {
        Some(port)
    } else if case.has_inputs(&["s"]) && expects("addrs") {
        Some(resolve)
    } else {
        None
    }
}

/// The name of an expected field says which formula: `retransmitLimit_mult4`,
/// `suspicionTimeout_mult4_1s_ns`, `pushPullScale_30s_s`.
fn by_cluster_size(case: &Case) -> Outcome {
    let n: usize = case.number("n")?;
    let mut got = Map::new();
    for field in case.expect.as_object().ok_or("expect is no object")?.keys() {
        let value = formula(field, n).ok_or_else(|| format!("unknown formula {field}"))?;
        got.insert(field.clone(), value);
    }
    Ok(case.compare(&case.expect, &Value::Object(got)))
}

fn formula(field: &str, n: usize) -> Option<Value> {
    let words: Vec<&str> = field.split('_').collect();
    let mult = |word: &str| word.strip_prefix("mult")?.parse::<u32>().ok();
    match words[..] {
        ["retransmitLimit", m] => Some(json!(retransmit_limit(mult(m)?, n))),
        ["suspicionTimeout", m, interval, "ns"] => {
            let timeout = suspicion_timeout(mult(m)?, n, go::duration(interval)?);
            Some(json!(timeout.as_nanos() as u64))
        }
        ["pushPullScale", interval, "s"] => {
            Some(json!(push_pull_interval(go::duration(interval)?, n).as_secs()))
        }
        _ => None,
    }
}

fn remaining(case: &Case) -> Outcome {
    let nanos = |field| case.number(field).map(Duration::from_nanos);
    let (min, max, elapsed) = (nanos("min_ns")?, nanos("max_ns")?, nanos("elapsed_ns")?);
    let timeout = suspicion_timeout_after(case.number("n")?, case.number("k")?, min, max);
    let left = timeout.as_nanos() as i64 - elapsed.as_nanos() as i64;
    Ok(case.compare(&case.expect, &json!(left)))
}

fn port(case: &Case) -> Outcome {
    let place = case.text("s")?;
    let got = json!({
        "hasPort": has_port(place),
        "ensurePort": ensure_port(place, ENSURED_PORT),
    });
    Ok(case.compare(&case.expect, &got))
}

/// What Go says when an address is of no use, by the part of its text that does not vary.
const GO_ERRORS: [(&str, &str); 9] = [
    ("empty node name", "no name"),
    ("invalid syntax", "bad port"),
    ("value out of range", "bad port"),
    ("missing port", "malformed"),
    ("too many colons", "malformed"),
    ("missing ']'", "malformed"),
    ("unexpected '", "malformed"),
    ("no such host", "nothing to dial"),
    ("lookup ", "nothing to dial"),
];

fn resolve(case: &Case) -> Outcome {
    let text = case.expect.get("error").and_then(Value::as_str).ok_or("expect.error is no text")?;
    let error = if text.is_empty() {
        ""
    } else {
        let known = GO_ERRORS.iter().find(|(part, _)| text.contains(part));
        known.ok_or_else(|| format!("unknown error of Go: {text}"))?.1
    };
    let mut expect = case.expect.clone();
    expect["error"] = json!(error);

    let (addrs, error) = match JoinAddress::parse(case.text("s")?, JOIN_PORT) {
        Ok(address) => match (address.ip(), found_by_lookup(&case.expect)) {
            (Some(ip), _) => (vec![describe(&address, ip)], ""),
            // A host that would be looked up; nothing of that name exists where this was captured.
            (None, found) if found.is_empty() => (vec![], "nothing to dial"),
            (None, found) => (found.into_iter().map(|ip| describe(&address, ip)).collect(), ""),
        },
        Err(AddressError::EmptyName { .. }) => (vec![], "no name"),
        Err(AddressError::Port { .. }) => (vec![], "bad port"),
        Err(AddressError::Malformed { .. }) => (vec![], "malformed"),
        // Go looks the empty name up and finds nothing.
        Err(AddressError::EmptyHost { .. }) => (vec![], "nothing to dial"),
        Err(other) => return Err(format!("an error without a counterpart in Go: {other}")),
    };
    Ok(case.compare(&expect, &json!({ "addrs": addrs, "error": error })))
}

/// The addresses that Go found. Looking up is not tested here, what is added to them is.
fn found_by_lookup(expect: &Value) -> Vec<IpAddr> {
    let ip = |text: &str| text.strip_prefix("ip=")?.split(' ').next()?.parse().ok();
    let addrs = expect.get("addrs").and_then(Value::as_array);
    let texts = addrs.into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(ip).collect()
}

fn describe(address: &JoinAddress, ip: IpAddr) -> String {
    let (ip, port) = (ip.to_canonical(), address.port());
    format!("ip={ip} port={port} name={:?}", address.name().unwrap_or(""))
}
