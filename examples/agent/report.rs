//! What the agent says, as text or as JSON.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;

use memberlist::protocol::DropReason;
use memberlist::security::SecretKey;
use memberlist::{Explanation, Finding, Health, Member, NodeState, Stats, UserMessage};
use serde::Serialize;

use crate::command::HELP;
use crate::keys::KeysReport;
use crate::serf;

#[path = "text.rs"]
mod text;

pub(crate) use text::line;

/// One event or answer. As JSON the variant's name is in `event`, the fields beside it.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report {
    // ---- the agent itself
    /// It listens. `addr` is where, `advertise` is what others are told, `key` names the primary key.
    Ready {
        name: String,
        transport: &'static str,
        wire: &'static str,
        addr: SocketAddr,
        advertise: SocketAddr,
        meta: String,
        /// Serf's, if the meta is such.
        #[serde(skip_serializing_if = "Option::is_none")]
        tags: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "String::is_empty")]
        label: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Where the page is.
        #[serde(skip_serializing_if = "Option::is_none")]
        http: Option<SocketAddr>,
    },
    /// A signal came; it says farewell.
    Leaving {
        name: String,
        signal: &'static str,
    },
    /// It ends. The last line.
    Stopped {
        name: String,
    },
    /// Something was asked for and did not happen.
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<&'static str>,
        error: String,
    },

    // ---- what happens
    /// A member is new, or back.
    Join(MemberReport),
    /// A member said farewell.
    Leave(MemberReport),
    /// A member was declared dead; `reason` tells how it came to that.
    Dead(MemberReport),
    /// A member does not answer.
    Suspect(MemberReport),
    /// A suspected member is alive after all.
    Alive(MemberReport),
    /// A member has other meta.
    Update(MemberReport),
    /// A gone member is not remembered any more.
    Forgotten {
        name: String,
    },
    /// Another node, at `other`, claims the name of the member at `addr`.
    Conflict {
        name: String,
        addr: SocketAddr,
        other: SocketAddr,
    },
    /// This node contradicted news about itself.
    Refuted {
        accusation: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        incarnation: u32,
    },
    /// The health score changed.
    Awareness {
        score: u32,
    },
    /// Events were missed, because the output was slow; this is how things are now.
    Snapshot {
        missed: u64,
        members: Vec<MemberReport>,
    },
    /// A message from another node. Broadcasts come in packets and are not `reliable`; their `addr`
    /// is that of the last hop, their `name` that of the node they began at. Other messages have the
    /// name of the one member at their address, if there is one: nothing proves it.
    Message {
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        addr: SocketAddr,
        reliable: bool,
        bytes: usize,
        text: String,
    },

    /// The state of another node's application, as that gave it when states were exchanged; `join` if
    /// that was a first exchange.
    State {
        join: bool,
        bytes: usize,
        text: String,
    },

    // ---- answers
    /// Who is here (alive or suspect), and who was (dead or left).
    Members {
        members: Vec<MemberReport>,
        gone: Vec<MemberReport>,
    },
    /// A cluster was joined through these seeds; `members` counts who is here now.
    Joined {
        seeds: Vec<String>,
        members: usize,
    },
    /// The broadcast is queued.
    Broadcast {
        bytes: usize,
    },
    /// The member has the message, if it was sent reliably; else it is on its way.
    Sent {
        name: String,
        bytes: usize,
        reliable: bool,
    },
    /// The member answered.
    Pong {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        addr: Option<SocketAddr>,
        rtt_ms: f64,
    },
    /// The own meta was changed, and the others were told.
    Meta {
        name: String,
        meta: String,
    },
    /// Why a member is in its state, in words; `findings` are the conclusions alone.
    Explain(Words),
    /// How this node is, in words.
    Health(Words),
    Stats(Counts),
    /// The settings of the protocol, by field.
    Settings {
        settings: serde_json::Map<String, serde_json::Value>,
    },
    /// A setting was changed.
    Set {
        field: String,
        value: String,
    },
    Keys(KeysReport),
    /// The certificate files were read, by a command or because they changed: new connections use
    /// what is in them; or it could not be used, and the certificates of before stay in use.
    Tls {
        reloaded: bool,
        cert: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The farewell was said; the agent goes on running.
    Left {
        name: String,
    },
    Help {
        commands: BTreeMap<&'static str, &'static str>,
    },
}

/// A member as this node sees it.
#[derive(Serialize)]
pub(crate) struct MemberReport {
    name: String,
    addr: SocketAddr,
    state: String,
    meta: String,
    /// Serf's, if the meta is such.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<BTreeMap<String, String>>,
    incarnation: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What the library says in words.
#[derive(Serialize)]
pub(crate) struct Words {
    name: String,
    /// 0 is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<u32>,
    findings: Vec<String>,
    text: Vec<String>,
}

/// What this node has counted. Counts of zero are left out. `drops` has what was dropped, refused or
/// failed, by the reasons of the protocol and the counters of the transport.
#[derive(Serialize)]
pub(crate) struct Counts {
    pub(crate) name: String,
    /// 0 is healthy.
    pub(crate) score: u32,
    /// How many members are alive or suspect, this node included.
    pub(crate) members: usize,
    counts: BTreeMap<&'static str, u64>,
    pub(crate) drops: BTreeMap<&'static str, u64>,
}

impl From<&Member> for MemberReport {
    fn from(member: &Member) -> Self {
        let dead = member.state == NodeState::Dead;
        let death = member.death.as_ref().filter(|_| dead);
        Self {
            name: member.id().to_string(),
            addr: member.addr(),
            state: member.state.to_string(),
            meta: lossy(&member.node.meta),
            tags: serf::decode(&member.node.meta),
            incarnation: member.incarnation,
            reason: death.map(ToString::to_string),
        }
    }
}

impl Report {
    /// The state of another application.
    pub(crate) fn state(state: &[u8], join: bool) -> Self {
        Self::State { join, bytes: state.len(), text: lossy(state) }
    }

    pub(crate) fn explain(explanation: &Explanation) -> Self {
        let name = explanation.name.as_str();
        Self::Explain(Words::new(name, None, &explanation.findings, explanation))
    }

    pub(crate) fn health(name: &str, health: &Health) -> Self {
        Self::Health(Words::new(name, Some(health.score), &health.findings, health))
    }

    pub(crate) fn settings(settings: &memberlist::protocol::Config) -> Self {
        match serde_json::to_value(settings) {
            Ok(serde_json::Value::Object(settings)) => Self::Settings { settings },
            Ok(_) => Self::error(Some("settings"), "the settings are no table"),
            Err(error) => Self::error(Some("settings"), error),
        }
    }

    /// A message, and who is known to have sent it.
    pub(crate) fn message(message: UserMessage, name: Option<String>) -> Self {
        Self::Message {
            name,
            addr: message.from,
            reliable: message.reliable,
            bytes: message.payload.len(),
            text: lossy(&message.payload),
        }
    }
}

impl Words {
    fn new(name: &str, score: Option<u32>, findings: &[Finding], text: &impl Display) -> Self {
        let text = text.to_string();
        Self {
            name: name.to_owned(),
            score,
            findings: findings.iter().map(ToString::to_string).collect(),
            text: text.lines().map(str::to_owned).collect(),
        }
    }
}

impl Counts {
    pub(crate) fn new(
        (name, score, members): (String, u32, usize),
        stats: &Stats,
        transport: Vec<(&'static str, u64)>,
        own_drops: [(&'static str, u64); 2],
    ) -> Self {
        let counts = [
            ("packets_received", stats.packets_received),
            ("packets_sent", stats.packets_sent),
            ("packets_received_hashicorp", stats.packets_received_hashicorp),
            ("packets_sent_hashicorp", stats.packets_sent_hashicorp),
            ("probes", stats.probes),
            ("probes_failed", stats.probes_failed),
            ("suspicions", stats.suspicions),
            ("suspicions_refuted", stats.suspicions_refuted),
            ("suspicions_expired", stats.suspicions_expired),
            ("refutations", stats.refutations),
            ("push_pulls", stats.push_pulls),
            ("push_pulls_failed", stats.push_pulls_failed),
            ("joins_deferred", stats.joins_deferred),
            ("joins_retried", stats.joins_retried),
            ("reconnects", stats.reconnects),
            ("send_errors", stats.send_errors),
        ];
        let protocol = DropReason::ALL.map(|reason| (reason.as_str(), stats.drops(reason)));
        let called = |words: &'static [&str]| {
            move |(name, _): &(&'static str, u64)| words.iter().any(|word| name.contains(word))
        };
        let faults = transport.iter().copied().filter(called(&["errors", "timed_out"]));
        let transport = transport.iter().copied().filter(called(&["dropped", "refused", "failed"]));
        let drops = protocol.into_iter().chain(transport).chain(own_drops);
        let nonzero = |(_, count): &(&'static str, u64)| *count > 0;
        Self {
            name,
            score,
            members,
            counts: counts.into_iter().chain(faults).filter(nonzero).collect(),
            drops: drops.filter(nonzero).collect(),
        }
    }
}

impl Report {
    pub(crate) fn error(command: Option<&'static str>, error: impl Display) -> Self {
        Self::Error { command, error: without_keys(&error.to_string()) }
    }

    pub(crate) fn help() -> Self {
        Self::Help { commands: HELP.into_iter().collect() }
    }

    /// Without a line end. Text may be of several lines, JSON never is.
    pub(crate) fn render(&self, json: bool) -> String {
        match json {
            // Plain maps with texts as keys: there is nothing that JSON cannot hold.
            true => escaped(&serde_json::to_string(self).unwrap_or_default()),
            false => self.text(),
        }
    }
}

/// As text, with marks in place of what is not UTF-8.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether it steers a terminal: a control character, or one that turns the direction of the text.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON with nothing in it that steers a terminal. Such characters stand in its texts alone.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match steers(c) {
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    escaped
}

/// The same with nothing in it that steers the terminal: peers say what they like.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => clean.extend(c.escape_default()),
            false => clean.push(c),
        }
    }
    clean
}

/// The text without the keys in it: they may have got to any place of the command line,
/// the file or a command.
pub(crate) fn without_keys(text: &str) -> String {
    // As long as those of 16 and 32 bytes are, which end in `=`; what stands before them may touch them.
    const PADDED: [usize; 2] = [24, 44];
    let mut masked = text.to_owned();
    let of_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    for word in text.split(|c| !of_base64(c)) {
        let word = word.trim_start_matches('=');
        let ends = PADDED.iter().filter_map(|len| word.get(word.len().checked_sub(*len)?..));
        let ends = ends.filter(|end| end.ends_with('='));
        let value = word.split_once('=').map(|(_, value)| value);
        for key in std::iter::once(word).chain(value).chain(ends) {
            if SecretKey::from_base64(key).is_ok() {
                masked = masked.replace(key, "(a key)");
            }
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peers_say_does_not_steer_the_terminal() {
        let text = "a\u{1b}[31m\n\u{9b}b\u{202e}c\u{2069}";
        let report = Report::Forgotten { name: text.to_owned() };
        for json in [true, false] {
            let line = report.render(json);
            assert!(!line.chars().any(steers), "{line:?}");
            assert!(line.contains("202e"), "{line}");
        }
        let again: serde_json::Value = serde_json::from_str(&report.render(true)).unwrap();
        assert_eq!(again["name"], text);
    }

    #[test]
    fn keys_are_masked_wherever_they_stand() {
        for len in [16, 24, 32] {
            let key = SecretKey::from_bytes(&vec![7; len]).unwrap();
            let key = key.to_base64();
            let key = key.as_str();
            for text in [key.to_owned(), format!("{key:?}: bad"), format!("--bind={key}; no")] {
                let masked = without_keys(&text);
                assert_eq!(masked, text.replace(key, "(a key)"));
                assert!(
                    matches!(Report::error(None, &text), Report::Error { error, .. } if error == masked)
                );
            }
        }
        assert_eq!(
            without_keys("/etc/agent/a.toml: none == all"),
            "/etc/agent/a.toml: none == all"
        );
    }
}
