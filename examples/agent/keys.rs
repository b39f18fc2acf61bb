//! The commands about keys: what they ask for, what they do, what they say.

use std::collections::BTreeMap;
use std::fmt::Write;

use memberlist::security::{Fingerprint, KeyError, SecretKey};
use memberlist::{HeldKey, KeyFailure, KeyReport, Keys, KeysError, Memberlist, Transport};
use serde::Serialize;

use crate::report::{Report, clean, line};

/// What follows `keys`.
#[derive(Debug)]
pub(crate) enum KeysCommand {
    List,
    Install(SecretKey),
    Activate {
        key: Fingerprint,
        force: bool,
    },
    Remove {
        key: Fingerprint,
        force: bool,
    },
    Rotate(Option<SecretKey>),
    /// On this node alone.
    Here(HereStep),
}

/// A change of this node's keyring alone.
#[derive(Debug)]
pub(crate) enum HereStep {
    Install(SecretKey),
    Activate(Fingerprint),
    Remove(Fingerprint),
}

/// Which keys the members said they hold, after the step that they were asked to take.
#[derive(Serialize)]
pub(crate) struct KeysReport {
    step: &'static str,
    /// The key that the step was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// How many members were asked, this node included, and how many did it.
    members: usize,
    done: usize,
    keys: Vec<KeyRow>,
    /// Who did not do it, and why.
    failures: BTreeMap<String, String>,
    /// Who has failed or left, and so was not asked.
    absent: Vec<String>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct KeyRow {
    fingerprint: String,
    bits: usize,
    /// Members that hold it.
    held_by: usize,
    /// Members that seal with it.
    primary_of: usize,
}

impl KeysCommand {
    /// Reads what follows `keys`. Errors repeat none of it: it may be a key.
    pub(crate) fn parse(rest: &str) -> Result<Self, String> {
        let (flags, words): (Vec<&str>, Vec<&str>) =
            rest.split_whitespace().partition(|word| ["--force", "--here"].contains(word));
        let (force, here) = (flags.contains(&"--force"), flags.contains(&"--here"));
        if here {
            return HereStep::parse(&words, force).map(Self::Here);
        }
        let (command, forcible) = match words[..] {
            ["list"] => (Self::List, false),
            ["install", key] => (Self::Install(secret(key)?), false),
            ["activate", key] => (Self::Activate { key: named(key)?, force }, true),
            ["remove", key] => (Self::Remove { key: named(key)?, force }, true),
            ["rotate"] => (Self::Rotate(None), false),
            ["rotate", key] => (Self::Rotate(Some(secret(key)?)), false),
            ["install"] => return Err("keys install needs one KEY".to_owned()),
            ["activate" | "remove"] => {
                return Err("this needs the fingerprint of one key, or the key".to_owned());
            }
            ["list" | "install" | "activate" | "remove" | "rotate", ..] => {
                return Err("there is too much behind it".to_owned());
            }
            _ => return Err("keys needs list, install, activate, remove or rotate".to_owned()),
        };
        match force && !forcible {
            true => Err("--force is for activate and remove".to_owned()),
            false => Ok(command),
        }
    }

    /// Does it, on every live member.
    pub(crate) async fn carry_out(self, node: &Memberlist<impl Transport>) -> Report {
        let Some(keys) = node.keys() else {
            let text = "this node has no keys; start it with --key or --keyring";
            return Report::error(Some("keys"), text);
        };
        match self.ask(keys).await {
            Ok(report) => Report::Keys(report),
            Err(Fault(text)) => Report::error(Some("keys"), text),
        }
    }

    async fn ask<T: Transport>(self, keys: Keys<'_, T>) -> Result<KeysReport, Fault> {
        let mut note = None;
        let (step, key, report) = match self {
            Self::List => ("list", None, keys.list().await),
            Self::Install(key) => ("install", Some(key.fingerprint()), keys.install(key).await),
            Self::Activate { key, force } => {
                ("activate", Some(key), checked_unless(force, keys).activate(key).await?)
            }
            Self::Remove { key, force } => {
                // It is removed in any case: a member that is asked for it may have just got it.
                let before = keys.list().await;
                let unknown = before.is_complete() && !before.keys().contains_key(&key);
                note = unknown.then_some("no member had this key");
                ("remove", Some(key), checked_unless(force, keys).remove(key).await?)
            }
            Self::Rotate(None) => {
                let (key, report) = keys.rotate().await?;
                ("rotate", Some(key), report)
            }
            Self::Rotate(Some(key)) => {
                ("rotate", Some(key.fingerprint()), keys.rotate_to(key).await?)
            }
            Self::Here(step) => return Ok(step.carry_out(keys).await?),
        };
        Ok(KeysReport { note, ..KeysReport::new(step, key, &report) })
    }
}

impl HereStep {
    fn parse(words: &[&str], force: bool) -> Result<Self, String> {
        match *words {
            _ if force => Err("--force means nothing with --here, which checks nothing".to_owned()),
            ["install", key] => Ok(Self::Install(secret(key)?)),
            ["activate", key] => Ok(Self::Activate(named(key)?)),
            ["remove", key] => Ok(Self::Remove(named(key)?)),
            _ => Err("--here is for install, activate and remove of one key".to_owned()),
        }
    }

    async fn carry_out<T: Transport>(self, keys: Keys<'_, T>) -> Result<KeysReport, KeyFailure> {
        let (step, key, held) = match self {
            Self::Install(key) => ("install", key.fingerprint(), keys.install_here(key).await?),
            Self::Activate(key) => ("activate", key, keys.activate_here(key).await?),
            Self::Remove(key) => ("remove", key, keys.remove_here(key).await?),
        };
        let row = |held: &HeldKey| KeyRow {
            fingerprint: held.fingerprint.to_string(),
            bits: held.size.bytes() * 8,
            held_by: 1,
            primary_of: usize::from(held.primary),
        };
        Ok(KeysReport {
            step,
            key: Some(key.to_string()),
            members: 1,
            done: 1,
            keys: held.iter().map(row).collect(),
            failures: BTreeMap::new(),
            absent: Vec::new(),
            note: Some("of this node alone"),
        })
    }
}

/// Why a step was not taken, in words.
struct Fault(String);

impl From<KeysError> for Fault {
    fn from(error: KeysError) -> Self {
        Self(error.to_string())
    }
}

impl From<KeyFailure> for Fault {
    fn from(error: KeyFailure) -> Self {
        Self(error.to_string())
    }
}

/// With the checks that keep members from being cut off, unless forced.
fn checked_unless<T: Transport>(forced: bool, keys: Keys<'_, T>) -> Keys<'_, T> {
    if forced { keys.forced() } else { keys }
}

fn secret(text: &str) -> Result<SecretKey, String> {
    SecretKey::from_base64(text).map_err(|error: KeyError| format!("read as base64: {error}"))
}

/// A fingerprint, or that of the key that is given.
fn named(text: &str) -> Result<Fingerprint, String> {
    let key = || SecretKey::from_base64(text).map(|key| key.fingerprint());
    text.parse().or_else(|_| key()).map_err(|_: KeyError| {
        "this is neither a fingerprint of 16 hexadecimal digits nor a key in base64".to_owned()
    })
}

impl KeysReport {
    fn new(step: &'static str, key: Option<Fingerprint>, report: &KeyReport) -> Self {
        let held = report.answers.values().flat_map(|answer| answer.result.iter().flatten());
        let bits: BTreeMap<Fingerprint, usize> =
            held.map(|held| (held.fingerprint, held.size.bytes() * 8)).collect();
        let row = |(fingerprint, uses): (Fingerprint, memberlist::KeyUse)| KeyRow {
            fingerprint: fingerprint.to_string(),
            bits: bits.get(&fingerprint).copied().unwrap_or_default(),
            held_by: uses.holders,
            primary_of: uses.primary_of,
        };
        let failures: BTreeMap<String, String> =
            report.failures().map(|(id, why)| (id.to_string(), why.to_string())).collect();
        Self {
            step,
            key: key.map(|key| key.to_string()),
            members: report.answers.len(),
            done: report.answers.len() - failures.len(),
            keys: report.keys().into_iter().map(row).collect(),
            failures,
            absent: report.absent.iter().map(ToString::to_string).collect(),
            note: None,
        }
    }

    /// A table of several lines.
    pub(crate) fn text(&self) -> String {
        let key = self.key.as_ref().map(|key| format!("{key}  ")).unwrap_or_default();
        let did = if self.step == "list" { "answered" } else { "did it" };
        let title = format!("{key}{} of {} members {did}", self.done, self.members);
        let mut text = line("keys", self.step, &title);
        if let Some(note) = self.note {
            let _ = write!(text, "; {note}");
        }
        text.push_str("\n  fingerprint       bits  held by  seals with it");
        for row in &self.keys {
            let KeyRow { fingerprint, bits, held_by, primary_of } = row;
            let _ =
                write!(text, "\n  {fingerprint:<16}  {bits:>4}  {held_by:>7}  {primary_of:>13}");
        }
        for (name, why) in &self.failures {
            let _ = write!(text, "\n  failed  {}: {}", clean(name), clean(why));
        }
        for name in &self.absent {
            let _ = write!(text, "\n  away    {}: not asked", clean(name));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_repeat_no_key() {
        let key = SecretKey::from_bytes(&[7; 32]).unwrap();
        let text = key.to_base64();
        let (text, cut) = (text.as_str(), &text[1..]);
        for line in [
            text.to_owned(),
            format!("instal {text}"),
            format!("install {cut}"),
            format!("install {text} {text}"),
            format!("activate {cut}"),
            format!("remove {text} {text}"),
            format!("rotate {cut}"),
            format!("rotate --force {text}"),
            format!("list {text}"),
        ] {
            let error = KeysCommand::parse(&line).unwrap_err();
            assert!(!error.contains(&cut[..8]), "{error}");
        }
    }

    #[test]
    fn a_key_is_named_by_its_fingerprint_or_itself() {
        let key = SecretKey::from_bytes(&[7; 32]).unwrap();
        let name = key.fingerprint();
        for (text, forced) in [
            (format!("remove {name}"), false),
            (format!("remove {} --force", key.to_base64().as_str()), true),
            (format!(" --force  remove {name}"), true),
        ] {
            let command = KeysCommand::parse(&text).unwrap();
            let KeysCommand::Remove { key, force } = command else { panic!("{command:?}") };
            assert_eq!((key, force), (name, forced));
        }
    }
}
