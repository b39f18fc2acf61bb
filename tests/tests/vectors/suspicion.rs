//! One suspicion and its confirmations, message by message.

use std::time::Instant;

use memberlist_protocol::message::Suspect;
use memberlist_protocol::{Config, Membership, NodeId};
use serde_json::{Value, json};

use super::case::{Case, Outcome, Runner};
use super::transitions::{alive, queued};

const SUSPECTED: &str = "bar";

pub(crate) fn runner(case: &Case) -> Option<Runner> {
    (case.has_inputs(&["num_nodes"]) && case.expect.is_array()).then_some(run)
}

fn run(case: &Case) -> Outcome {
    let now = Instant::now();
    let mut machine = machine(case.number("num_nodes")?, now)?;
    let steps = case.expect.as_array().ok_or("expect is no list")?;
    let mut got = Vec::new();
    for step in steps {
        let from = step.get("from").and_then(Value::as_str).ok_or("a step has no `from`")?;
        machine.testing_clear();
        let suspect = Suspect { incarnation: 1, node: SUSPECTED, from };
        machine.testing_suspect(&suspect, now);
        let view = machine.testing_suspicion(SUSPECTED).ok_or("no suspicion is running")?;
        let passed_on = json!([{
            "kind": "suspect", "node": SUSPECTED, "incarnation": 1, "from": from,
        }]);
        got.push(json!({
            "from": from,
            "n": view.confirmations,
            "k": view.wanted,
            "min_ms": view.min.as_millis() as u64,
            "max_ms": view.max.as_millis() as u64,
            "regossiped": json!(queued(&machine)?) == passed_on,
        }));
    }
    Ok(case.compare(&case.expect, &Value::Array(got)))
}

/// A machine that knows `n` nodes; at least itself and the one that is suspected, which makes no
/// difference: Go treats clusters of up to three alike.
fn machine(n: usize, now: Instant) -> Result<Membership, String> {
    let mut config = Config::lan();
    config.max_members = n.max(2);
    let id = NodeId::new("foo").map_err(|error| error.to_string())?;
    let addr = ([127, 0, 0, 1], 7946).into();
    let mut machine = Membership::new(config, id, addr, Default::default(), 1, now, Box::new(()))
        .map_err(|error| error.to_string())?;
    machine.testing_alive(&alive(SUSPECTED, [127, 0, 0, 2], 1), now);
    for i in 2..n {
        let i = u32::try_from(i).map_err(|_| "too many nodes")?;
        let [_, b, c, d] = i.to_be_bytes();
        machine.testing_alive(&alive(&format!("o{i}"), [10, b, c, d], 1), now);
    }
    assert_eq!(machine.known_members(), n.max(2));
    Ok(machine)
}
