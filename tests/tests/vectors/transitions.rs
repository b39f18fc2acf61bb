//! One message to a machine in a known state: about another node, or about itself.

use std::time::{Duration, Instant};

use bytes::Bytes;
use memberlist_protocol::message::{Alive, Dead, Suspect};
use memberlist_protocol::wire::stream::RemoteRecord;
use memberlist_protocol::wire::{PacketWriter, Room, read_packet};
use memberlist_protocol::{
    Config, Dialect, DropReason, Event, Membership, Node, NodeId, NodeState, Versions,
};
use serde_json::{Map, Value, json};

use super::case::{Case, Outcome, Runner};
use super::{departures, go};

const OWN: &str = "foo";
const OTHER: &str = "bar";
const OWN_IP: [u8; 4] = [127, 0, 0, 1];
const OTHER_IP: [u8; 4] = [127, 0, 0, 2];
const MOVED_IP: [u8; 4] = [127, 0, 0, 9];
const PORT: u16 = 7946;
const MOVED_PORT: u16 = 7999;
const META: &[u8] = b"m";
/// What both nodes are known at.
pub(crate) const KNOWN: u32 = 5;

/// What a case does.
pub(crate) struct Inputs {
    pub(crate) subject: Subject,
    pub(crate) message: Given,
    reclaim: Duration,
}

/// Whom the message is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Another node, in that state; unknown if there is none.
    Other(Option<NodeState>),
    /// The own node.
    Own { leaving: bool },
}

/// The message, in the words of the case.
pub(crate) enum Given {
    Alive {
        what: String,
        incarnation: u32,
    },
    Suspect {
        incarnation: u32,
        from: String,
    },
    Dead {
        incarnation: u32,
        from: String,
    },
    /// A record of a push/pull; without a state, in one that nobody knows.
    PushPull {
        state: Option<NodeState>,
        incarnation: u32,
    },
}

impl Given {
    pub(crate) fn incarnation(&self) -> u32 {
        match self {
            Self::Alive { incarnation, .. }
            | Self::Suspect { incarnation, .. }
            | Self::Dead { incarnation, .. }
            | Self::PushPull { incarnation, .. } => *incarnation,
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, arguments) = text.strip_suffix(')')?.split_once('(')?;
        let accusation = || {
            let (incarnation, from) = arguments.strip_prefix("inc=")?.split_once(" from=")?;
            Some((incarnation.parse().ok()?, from.to_owned()))
        };
        Some(match kind {
            "alive" => {
                let (what, incarnation) = arguments.rsplit_once(" inc=")?;
                let (what, incarnation) = (what.to_owned(), incarnation.parse().ok()?);
                Self::Alive { what, incarnation }
            }
            "suspect" => {
                let (incarnation, from) = accusation()?;
                Self::Suspect { incarnation, from }
            }
            "dead" => {
                let (incarnation, from) = accusation()?;
                Self::Dead { incarnation, from }
            }
            "pushpull" => {
                let (state, incarnation) = arguments.strip_prefix("state=")?.split_once(" inc=")?;
                let state = match state.strip_prefix("unknown-state-") {
                    Some(number) => NodeState::from_u8(number.parse().ok()?),
                    None => Some(state_named(state)?),
                };
                Self::PushPull { state, incarnation: incarnation.parse().ok()? }
            }
            _ => return None,
        })
    }
}

fn state_named(name: &str) -> Option<NodeState> {
    let all = [NodeState::Alive, NodeState::Suspect, NodeState::Dead, NodeState::Left];
    all.into_iter().find(|state| state.to_string() == name)
}

impl Inputs {
    pub(crate) fn read(case: &Case) -> Result<Self, String> {
        let text = case.text("message")?;
        let message = Given::read(text).ok_or_else(|| format!("unknown message {text}"))?;
        if let Some(leaving) = case.inputs.get("leaving") {
            let leaving = leaving.as_bool().ok_or("inputs.leaving is no flag")?;
            let subject = Subject::Own { leaving };
            return Ok(Self { subject, message, reclaim: Duration::ZERO });
        }
        let initial = match case.text("initial")? {
            "unknown" => None,
            name => Some(state_named(name).ok_or_else(|| format!("unknown state {name}"))?),
        };
        let reclaim = go::duration(case.text("reclaim")?).ok_or("inputs.reclaim is no duration")?;
        Ok(Self { subject: Subject::Other(initial), message, reclaim })
    }

    pub(crate) fn initial(&self) -> Option<NodeState> {
        match self.subject {
            Subject::Other(initial) => initial,
            Subject::Own { leaving: true } => Some(NodeState::Left),
            Subject::Own { leaving: false } => Some(NodeState::Alive),
        }
    }

    /// What is expected when the message changes nothing.
    pub(crate) fn unchanged(&self) -> Value {
        let initial = self.initial();
        let mut fields = Map::new();
        let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        set("known", json!(initial.is_some()));
        set("events", json!([]));
        set("queued", json!(0));
        set("health_score", json!(0));
        set("suspicion_timer", json!(initial == Some(NodeState::Suspect)));
        if let Some(state) = initial {
            let own = matches!(self.subject, Subject::Own { .. });
            let ip = if own { OWN_IP } else { OTHER_IP };
            set("state", json!(state.to_string()));
            set("incarnation", json!(KNOWN));
            set("addr", json!(std::net::SocketAddr::from((ip, PORT)).to_string()));
            set("meta", json!(if own { "" } else { "m" }));
            set("vsn", json!([1, 5, 2, 0, 0, 0]));
            set("state_change_updated", json!(false));
            if own {
                set("counter", json!(KNOWN));
            }
        }
        if initial == Some(NodeState::Suspect) {
            for (name, value) in
                [("confirmations", 0), ("k", 2), ("min_ms", 4000), ("max_ms", 24_000)]
            {
                set(name, json!(value));
            }
        }
        Value::Object(fields)
    }
}

pub(crate) fn runner(case: &Case) -> Option<Runner> {
    let remote = ["initial", "message", "reclaim"];
    (case.has_inputs(&remote) || case.has_inputs(&["leaving", "message"])).then_some(run)
}

/// A case that was not captured, to show a departure. Its expectation is the departure's own.
pub(crate) fn example(initial: &str, message: &str) -> Case {
    let inputs = match initial {
        "self" | "self leaving" => json!({ "leaving": initial != "self", "message": message }),
        _ => json!({ "initial": initial, "message": message, "reclaim": "0s" }),
    };
    Case {
        name: format!("example: {initial} + {message}"),
        inputs: inputs.as_object().cloned().unwrap_or_default(),
        hex: String::new(),
        expect: json!({}),
    }
}

fn run(case: &Case) -> Outcome {
    let inputs = Inputs::read(case)?;
    let mut expect = case.expect.clone();
    if !case.hex.is_empty() {
        expect["broadcasts"] = json!([go::broadcast(&case.hex)?]);
    }
    for departure in departures::of(&inputs) {
        (departure.instead)(&inputs, &mut expect);
    }
    let got = apply(&inputs)?;
    Ok(case.compare(&expect, &got))
}

/// Brings a machine into the state, applies the message, and describes what became of it.
fn apply(inputs: &Inputs) -> Result<Value, String> {
    let began = Instant::now();
    // The captured machine needed some time too: one hour and a little has passed.
    let now = began + Duration::from_secs(3600) + Duration::from_millis(1);
    let mut machine = set_up(inputs, began)?;
    match &inputs.message {
        Given::Alive { what, incarnation } => {
            machine.testing_alive(&variant(inputs, what, *incarnation)?, now);
        }
        Given::Suspect { incarnation, from } => {
            let node = inputs.node();
            machine.testing_suspect(&Suspect { incarnation: *incarnation, node, from }, now);
        }
        Given::Dead { incarnation, from } => {
            let node = inputs.node();
            machine.testing_dead(&Dead { incarnation: *incarnation, node, from }, now);
        }
        // A record in a state that is not known never gets as far as the machine.
        Given::PushPull { state: None, .. } => {}
        Given::PushPull { state: Some(state), incarnation } => {
            let alive = variant(inputs, "as known", *incarnation)?;
            let id = NodeId::new(alive.node).map_err(|error| error.to_string())?;
            let meta = Bytes::copy_from_slice(alive.meta);
            let node = Node::new(id, alive.addr, meta, alive.versions);
            let (incarnation, state) = (*incarnation, *state);
            machine.testing_merge(&RemoteRecord { node, incarnation, state }, now);
        }
    }
    describe(inputs, &mut machine, now)
}

impl Inputs {
    fn node(&self) -> &'static str {
        if matches!(self.subject, Subject::Own { .. }) { OWN } else { OTHER }
    }
}

fn set_up(inputs: &Inputs, now: Instant) -> Result<Membership, String> {
    let mut config = Config::lan();
    config.dead_node_reclaim_time = inputs.reclaim;
    let id = NodeId::new(OWN).map_err(|error| error.to_string())?;
    let addr = (OWN_IP, PORT).into();
    let mut machine = Membership::new(config, id, addr, Bytes::new(), 1, now, Box::new(()))
        .map_err(|error| error.to_string())?;
    for i in 0..5 {
        machine.testing_alive(&alive(&format!("o{i}"), [127, 0, 1, i], 1), now);
    }
    machine.testing_set_incarnation(KNOWN);
    match inputs.subject {
        Subject::Own { leaving: false } | Subject::Other(None) => {}
        Subject::Own { leaving: true } => {
            machine.leave(now);
        }
        Subject::Other(Some(state)) => {
            let known = Alive { meta: META, ..alive(OTHER, OTHER_IP, KNOWN) };
            machine.testing_alive(&known, now);
            let (node, from, incarnation) = (OTHER, "o0", KNOWN);
            match state {
                NodeState::Alive => {}
                NodeState::Suspect => {
                    machine.testing_suspect(&Suspect { incarnation, node, from }, now);
                }
                NodeState::Dead => machine.testing_dead(&Dead { incarnation, node, from }, now),
                NodeState::Left => {
                    machine.testing_dead(&Dead { incarnation, node, from: node }, now);
                }
            }
        }
    }
    let state = machine.member(inputs.node()).map(|member| member.state);
    if state != inputs.initial() {
        return Err(format!("the machine could not be set up: {state:?}"));
    }
    machine.testing_clear();
    Ok(machine)
}

/// An announcement without meta, at the usual port and versions.
pub(crate) fn alive(node: &str, ip: [u8; 4], incarnation: u32) -> Alive<'_> {
    Alive {
        incarnation,
        node,
        addr: (ip, PORT).into(),
        wide_ipv4: false,
        meta: b"",
        versions: Versions::default(),
    }
}

/// The announcement that a case names.
fn variant(inputs: &Inputs, what: &str, incarnation: u32) -> Result<Alive<'static>, String> {
    let vsn = |bytes: &[u8]| Versions::from_bytes(bytes);
    if let Subject::Own { .. } = inputs.subject {
        let usual = alive(OWN, OWN_IP, incarnation);
        return Ok(match what {
            "identical" | "empty meta vs nil meta" => usual,
            // The record in a push/pull has bar's meta, whomever it is about.
            "as known" => usual,
            "other meta" => Alive { meta: b"x", ..usual },
            "other vsn" => Alive { versions: vsn(&[1, 5, 3, 0, 0, 0]), ..usual },
            "other addr" => Alive { addr: (MOVED_IP, PORT).into(), ..usual },
            _ => return Err(format!("unknown announcement of self: {what}")),
        });
    }
    let usual = Alive { meta: META, ..alive(OTHER, OTHER_IP, incarnation) };
    Ok(match what {
        "same addr, same meta" | "as known" => usual,
        "same addr, new meta" => Alive { meta: b"m2", ..usual },
        "new addr" => Alive { addr: (MOVED_IP, PORT).into(), ..usual },
        "new port" => Alive { addr: (OTHER_IP, MOVED_PORT).into(), ..usual },
        "vsn nil" => Alive { versions: vsn(&[]), ..usual },
        "vsn 3 bytes" => Alive { versions: vsn(&[1, 3, 2]), ..usual },
        "vsn pmin 0" => Alive { versions: vsn(&[0, 5, 2, 0, 0, 0]), ..usual },
        "vsn pmax 0" => Alive { versions: vsn(&[1, 0, 2, 0, 0, 0]), ..usual },
        "vsn pmin>pmax" => Alive { versions: vsn(&[4, 3, 2, 0, 0, 0]), ..usual },
        "vsn pcur outside range" => Alive { versions: vsn(&[1, 5, 9, 0, 0, 0]), ..usual },
        _ => return Err(format!("unknown announcement: {what}")),
    })
}

fn describe(inputs: &Inputs, machine: &mut Membership, now: Instant) -> Result<Value, String> {
    let events: Vec<String> = std::iter::from_fn(|| machine.poll_event())
        .filter_map(|event| in_gos_words(&event))
        .collect();
    let broadcasts = queued(machine)?;
    let stats = machine.stats();
    let dropped: Vec<&str> = (DropReason::ALL.iter())
        .filter(|reason| stats.drops(**reason) > 0)
        .map(|reason| reason.as_str())
        .collect();
    let mut got = json!({
        "events": events,
        "queued": broadcasts.len(),
        "broadcasts": broadcasts,
        "counter": machine.testing_incarnation(),
        "health_score": machine.health_score(),
        "dropped": dropped,
    });
    let suspicion = machine.testing_suspicion(inputs.node());
    got["suspicion_timer"] = json!(suspicion.is_some());
    if let Some(view) = suspicion {
        got["confirmations"] = json!(view.confirmations);
        got["k"] = json!(view.wanted);
        got["min_ms"] = json!(view.min.as_millis() as u64);
        got["max_ms"] = json!(view.max.as_millis() as u64);
    }
    let member = machine.member(inputs.node());
    got["known"] = json!(member.is_some());
    if let Some(member) = member {
        let ((a, b, c), (d, e, f)) =
            (member.node.versions.protocol(), member.node.versions.application());
        got["state"] = json!(member.state.to_string());
        got["incarnation"] = json!(member.incarnation);
        got["addr"] = json!(member.addr().to_string());
        got["meta"] = json!(String::from_utf8_lossy(&member.node.meta));
        got["vsn"] = json!([a, b, c, d, e, f]);
        got["state_change_updated"] = json!(member.since == now);
    }
    Ok(got)
}

/// The queued news, as read back from a packet.
pub(crate) fn queued(machine: &Membership) -> Result<Vec<Value>, String> {
    let room = Room { head: 0, tail: 0, max_packet_bytes: 65_507 };
    let mut packet = Vec::new();
    let mut writer = PacketWriter::new(&mut packet, Dialect::Native, true, room);
    for part in machine.testing_queued(Dialect::Native) {
        if !writer.push_encoded(&part) {
            return Err("the queued news do not fit a packet".to_owned());
        }
    }
    writer.finish();
    let messages = read_packet(&packet).map_err(|error| error.to_string())?;
    messages
        .map(|message| message.map(|m| go::describe(&m)).map_err(|error| error.to_string()))
        .collect()
}

/// What Go would have told its application, which knows fewer kinds of events.
fn in_gos_words(event: &Event) -> Option<String> {
    match event {
        Event::Joined(member) => Some(format!("join {}", member.id())),
        Event::Gone(member) => Some(format!("leave {}", member.id())),
        Event::Updated(member) => Some(format!("update {}", member.id())),
        Event::Conflict { existing, other } => {
            Some(format!("conflict existing={} other={}", existing.addr, other.addr))
        }
        _ => None,
    }
}
