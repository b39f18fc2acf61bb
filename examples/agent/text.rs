//! Reports as aligned text, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Counts, MemberReport, Report, Words, clean};
use crate::command::HELP;

impl Report {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Ready {
                name,
                transport,
                wire,
                addr,
                advertise,
                meta,
                tags,
                label,
                key,
                http,
            } => {
                let mut rest = addr.to_string();
                if addr != advertise {
                    rest.push_str(&format!(", advertised as {advertise}"));
                }
                rest.push_str(&format!("  over {transport}"));
                if *wire != "native" {
                    rest.push_str(&format!("  wire {wire}"));
                }
                if !label.is_empty() {
                    rest.push_str(&format!("  label {label:?}"));
                }
                if let Some(key) = key {
                    rest.push_str(&format!("  key {key}"));
                }
                if let Some(http) = http {
                    rest.push_str(&format!("  http {http}"));
                }
                line("ready", name, &with_tags_or_meta(rest, tags.as_ref(), meta))
            }
            Self::Leaving { name, signal } => {
                line("leaving", name, &format!("by {signal}; once more to end at once"))
            }
            Self::Stopped { name } => line("stopped", name, ""),
            Self::Error { error, .. } => line("error", "", error),

            Self::Join(member) => member.text("join"),
            Self::Leave(member) => member.text("leave"),
            Self::Dead(member) => member.text("dead"),
            Self::Suspect(member) => member.text("suspect"),
            Self::Alive(member) => member.text("alive"),
            Self::Update(member) => member.text("update"),
            Self::Forgotten { name } => line("forgotten", name, ""),
            Self::Conflict { name, addr, other } => {
                let claim = format!("{addr} has this name, {other} claims it too");
                line("conflict", name, &claim)
            }
            Self::Refuted { accusation, by, .. } => {
                let by = by.as_deref().unwrap_or("somebody");
                line("refuted", by, &format!("said that this node is {accusation}"))
            }
            Self::Awareness { score } => line("awareness", "", &format!("health score {score}")),
            Self::Snapshot { missed, members } => {
                let title = format!("{missed} events were missed; this is how things are now");
                table(line("snapshot", "", &title), members, &[])
            }
            Self::Message { name, addr, reliable, text, .. } => {
                let how = if *reliable { "reliable" } else { "packet" };
                let name = name.as_deref().unwrap_or_default();
                line("message", name, &format!("{addr:<21}  {how:<8}  {text}"))
            }

            Self::State { join, text, .. } => {
                let when = if *join { "join" } else { "exchange" };
                line("state", "", &format!("{when:<8}  {text}"))
            }

            Self::Members { members, gone } => {
                let title = format!("{} here, {} gone", members.len(), gone.len());
                table(line("members", "", &title), members, gone)
            }
            Self::Joined { seeds, members } => {
                let rest = format!("{members} members here, through {}", seeds.join(", "));
                line("joined", "", &rest)
            }
            Self::Broadcast { bytes } => line("broadcast", "", &format!("{bytes} bytes")),
            Self::Sent { name, bytes, reliable } => {
                let how = if *reliable { "" } else { ", best effort" };
                line("sent", name, &format!("{bytes} bytes{how}"))
            }
            Self::Pong { name, addr, rtt_ms } => {
                let addr = addr.map(|addr| addr.to_string()).unwrap_or_default();
                line("pong", name, &format!("{addr:<21}  {rtt_ms:.3} ms"))
            }
            Self::Meta { name, meta } => line("meta", name, meta),
            Self::Explain(words) => words.text("explain"),
            Self::Health(words) => words.text("health"),
            Self::Stats(counts) => counts.text(),
            Self::Settings { settings } => {
                let setting = |(field, value): (&String, &serde_json::Value)| {
                    line("setting", "", &format!("{field} {value}"))
                };
                settings.iter().map(setting).collect::<Vec<_>>().join("\n")
            }
            Self::Set { field, value } => line("set", "", &format!("{field} {value}")),
            Self::Keys(keys) => keys.text(),
            Self::Tls { cert, error, .. } => match error {
                None => line("tls", "reloaded", &format!("new connections use {cert}")),
                Some(error) => {
                    let rest = format!("{error}; the certificates of before stay in use");
                    line("tls", "not reloaded", &rest)
                }
            },
            Self::Left { name } => line("left", name, "still running; \"join ADDR\" to return"),
            Self::Help { .. } => {
                let lines = HELP.map(|(command, what)| line("help", command, what));
                lines.join("\n")
            }
        }
    }
}

impl Words {
    /// What stands in several lines is indented below the first.
    fn text(&self, word: &str) -> String {
        let mut lines = self.text.iter().map(|text| clean(text));
        let mut all = line(word, &self.name, &lines.next().unwrap_or_default());
        lines.for_each(|text| all.push_str(&format!("\n  {text}")));
        all
    }
}

impl MemberReport {
    fn text(&self, word: &str) -> String {
        let rest = format!("{:<21}", self.addr);
        let mut rest = with_tags_or_meta(rest, self.tags.as_ref(), &self.meta);
        if let Some(reason) = &self.reason {
            rest.push_str(&format!("  {reason}"));
        }
        line(word, &self.name, &rest)
    }
}

impl Counts {
    fn text(&self) -> String {
        let title = format!("score {}, {} members here", self.score, self.members);
        let mut text = line("stats", &self.name, &title);
        for (word, counts) in [("counted", &self.counts), ("dropped", &self.drops)] {
            for (what, count) in counts {
                let _ = write!(text, "\n{}", line(word, "", &format!("{count:>8} {what}")));
            }
        }
        text
    }
}

/// What all lines look like: event, name, the rest.
pub(crate) fn line(word: &str, name: &str, rest: &str) -> String {
    let (name, rest) = (clean(name), clean(rest));
    format!("{word:<9} {name:<16} {rest}").trim_end().to_owned()
}

fn table(title: String, members: &[MemberReport], gone: &[MemberReport]) -> String {
    let all = || members.iter().chain(gone);
    let width = |of: fn(&MemberReport) -> usize| all().map(of).max().unwrap_or(0);
    let names = width(|member| clean(&member.name).chars().count());
    let addrs = width(|member| member.addr.to_string().len());
    let mut text = title;
    for member in all() {
        let name = clean(&member.name);
        let addr = member.addr.to_string();
        let meta = member.tags.as_ref().map_or_else(|| clean(&member.meta), shown);
        let row = format!("  {name:<names$}  {addr:<addrs$}  {:<7}  {meta}", member.state);
        text.push('\n');
        text.push_str(row.trim_end());
    }
    text
}

fn with_tags_or_meta(
    mut text: String,
    tags: Option<&BTreeMap<String, String>>,
    meta: &str,
) -> String {
    match tags {
        Some(tags) => text.push_str(&format!("  tags {}", shown(tags))),
        None if !meta.is_empty() => text.push_str(&format!("  meta {meta:?}")),
        None => {}
    }
    text
}

/// Tags as in `serf members`.
fn shown(tags: &BTreeMap<String, String>) -> String {
    let tag = |(key, value): (&String, &String)| format!("{}={}", clean(key), clean(value));
    tags.iter().map(tag).collect::<Vec<_>>().join(",")
}
