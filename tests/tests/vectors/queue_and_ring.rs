//! What the broadcast queue gives out, and which part of the probe ring is reaped.

use memberlist_protocol::membership::testing::{
    BroadcastQueue, Part, Space, named, partition_to_end, retransmit_limit,
};
use memberlist_protocol::{Dialect, Encoded, Relation};
use serde_json::{Value, json};

use super::case::{Case, Outcome, Runner};

pub(crate) fn runner(case: &Case) -> Option<Runner> {
    let queue = ["items", "limit", "num_nodes", "overhead", "retransmit_mult"];
    if case.has_inputs(&queue) {
        Some(run_queue)
    } else if case.has_inputs(&["nodes"]) {
        Some(run_ring)
    } else {
        None
    }
}

fn run_queue(case: &Case) -> Outcome {
    let items = case.inputs["items"].as_array().ok_or("inputs.items is no list")?;
    let mut queue = BroadcastQueue::new(1);
    for (i, item) in items.iter().enumerate() {
        let parts = item.as_str().and_then(|item| item.rsplit_once(':'));
        let (name, len) = parts.ok_or("an item is not name:length")?;
        let len: usize = len.parse().map_err(|_| "an item's length is no number")?;
        let relation = if name.is_empty() { Relation::Unique } else { named(name) };
        let encoded = Encoded::new(Dialect::Native, &vec![0; len]);
        queue.push(encoded, relation, i, |_| {});
    }
    let limit = retransmit_limit(case.number("retransmit_mult")?, case.number("num_nodes")?);
    let (overhead, budget) = (case.number("overhead")?, case.number("limit")?);
    let rounds = case.expect.as_array().ok_or("expect is no list")?.len();
    let mut got = Vec::new();
    for _ in 0..rounds {
        let mut taken = Vec::new();
        let take = |part: Part<'_>, i: &usize| {
            let Part::Encoded(bytes) = part else { unreachable!("none is queued") };
            taken.push(format!("item{i}:{}", bytes.len()));
            true
        };
        let space = Space { dialect: Dialect::Native, overhead, budget };
        queue.take(space, (u32::MAX, |_: &_| true), |_| Some(limit), take, |_| {});
        got.push(json!({ "got": taken, "left": queue.len() }));
    }
    Ok(case.compare(&case.expect, &Value::Array(got)))
}

fn run_ring(case: &Case) -> Outcome {
    let letters = case.text("nodes")?;
    if let Some(letter) = letters.chars().find(|letter| !"ASDLdl".contains(*letter)) {
        return Err(format!("unknown letter {letter}"));
    }
    let mut ring: Vec<(usize, char)> = letters.chars().enumerate().collect();
    // D and L are dead and left for longer than the dead are told the news; d and l are not.
    let first_dead = partition_to_end(&mut ring, |(_, letter)| matches!(letter, 'D' | 'L'));
    let order: Vec<String> = ring.iter().map(|(i, letter)| format!("{i}{letter}")).collect();
    Ok(case.compare(&case.expect, &json!({ "first_dead": first_dead, "order": order })))
}
