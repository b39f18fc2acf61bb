//! What came of a step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use memberlist_protocol::{ExchangeError, NodeId};
use memberlist_security::{Fingerprint, KeyInfo, KeySize, RandomnessError};

/// A key that a member holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeldKey {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// Its length.
    pub size: KeySize,
    /// Whether the member seals with it.
    pub primary: bool,
    /// Whether it is about to be removed: it opens, but cannot be activated until it is installed again.
    pub retired: bool,
    /// Which of its installs and retirements at that member was the last.
    pub(crate) revision: u64,
}

impl From<KeyInfo> for HeldKey {
    fn from(info: KeyInfo) -> Self {
        let KeyInfo { fingerprint, size, primary, retired, revision, .. } = info;
        Self { fingerprint, size, primary, retired, revision }
    }
}

/// Why a member did not do what it was asked.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFailure {
    /// It could not be asked, or gave no answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// It refused, in its words.
    #[error("refused: {0}")]
    Refused(String),
    /// Its keyring is changed, by this request or one before, but could not be saved: a restart takes
    /// the change back. Any request is done when the file can be written again.
    #[error("its keyring was changed, but not saved: {0}")]
    NotSaved(String),
    /// This node speaks to it in Go's format, in which keys are not changed over the wire.
    #[error(
        "it is spoken to in HashiCorp's format, which cannot carry this: change its keyring at the node \
         itself"
    )]
    NotNative,
    /// It answered what cannot be understood.
    #[error("answered what cannot be understood")]
    BadAnswer,
}

/// What one member answered.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct KeyAnswer {
    /// Where it was asked.
    pub addr: SocketAddr,
    /// What it holds now, the primary first; or why it did not do what it was asked.
    pub result: Result<Vec<HeldKey>, KeyFailure>,
}

impl KeyAnswer {
    /// Whether it said that it holds the key.
    pub fn holds(&self, key: &Fingerprint) -> bool {
        self.held(key).is_some()
    }

    pub(super) fn held(&self, key: &Fingerprint) -> Option<&HeldKey> {
        self.result.iter().flatten().find(|held| held.fingerprint == *key)
    }

    /// Whether it can be made to seal with the key.
    pub(super) fn may_activate(&self, key: &Fingerprint) -> bool {
        self.held(key).is_some_and(|held| !held.retired)
    }

    /// The key that it said it seals with.
    pub fn primary(&self) -> Option<Fingerprint> {
        self.result.iter().flatten().find(|held| held.primary).map(|held| held.fingerprint)
    }
}

/// How many members hold a key, and seal with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct KeyUse {
    /// Members that hold it.
    pub holders: usize,
    /// Members whose primary it is.
    pub primary_of: usize,
}

/// What every member answered.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct KeyReport {
    /// The answers by name, this node's included.
    pub answers: BTreeMap<NodeId, KeyAnswer>,
    /// Members that have failed or left, by name, for as long as they are remembered. They were not
    /// asked, and miss what was changed: one that comes back after its key was removed is refused, and
    /// needs the present keyring by hand.
    pub absent: Vec<NodeId>,
}

impl KeyReport {
    /// Whether every live member did what it was asked.
    pub fn is_complete(&self) -> bool {
        self.answers.values().all(|answer| answer.result.is_ok())
    }

    /// Who did not, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&NodeId, &KeyFailure)> {
        self.answers.iter().filter_map(|(id, answer)| Some((id, answer.result.as_ref().err()?)))
    }

    /// Which keys there are, and how many members have them.
    pub fn keys(&self) -> BTreeMap<Fingerprint, KeyUse> {
        let mut keys: BTreeMap<Fingerprint, KeyUse> = BTreeMap::new();
        for held in self.answers.values().flat_map(|answer| answer.result.iter().flatten()) {
            let uses = keys.entry(held.fingerprint).or_default();
            uses.holders += 1;
            uses.primary_of += usize::from(held.primary);
        }
        keys
    }

    pub(super) fn members_where(&self, wanted: impl Fn(&KeyAnswer) -> bool) -> BTreeSet<NodeId> {
        let wanted = self.answers.iter().filter(|(_, answer)| wanted(answer));
        wanted.map(|(id, _)| id.clone()).collect()
    }

    /// The revisions of a key at those who answered; nothing where it is not held.
    pub(super) fn revisions(&self, key: &Fingerprint) -> BTreeMap<NodeId, Option<u64>> {
        let revision = |answer: &KeyAnswer| answer.held(key).map(|held| held.revision);
        self.answers.iter().map(|(id, answer)| (id.clone(), revision(answer))).collect()
    }

    /// Whether a step may be taken: everybody answered, and is as it must be.
    pub(super) fn check(
        self,
        step: &'static str,
        key: Fingerprint,
        fits: impl Fn(&KeyAnswer) -> bool,
    ) -> Result<Self, KeysError> {
        let fits = |answer: &KeyAnswer| answer.result.is_ok() && fits(answer);
        let members = self.members_where(|answer| !fits(answer));
        if members.is_empty() {
            return Ok(self);
        }
        Err(KeysError::WouldCutOff { step, key, members, report: Box::new(self) })
    }

    pub(super) fn complete(self, step: &'static str) -> Result<Self, KeysError> {
        match self.is_complete() {
            true => Ok(self),
            false => Err(KeysError::Incomplete { step, report: Box::new(self) }),
        }
    }
}

/// Why a step was not taken, or a rotation did not come to its end.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The step would cut members off: they do not have the key that is to be activated, or have it
    /// [retired](HeldKey::retired); they still seal with the one that is to be removed; or did not say.
    /// The step was not taken.
    #[error("to {step} this key would cut off {}; it was not done", reasons(key, members, report))]
    WouldCutOff {
        /// Which step.
        step: &'static str,
        /// Of which key.
        key: Fingerprint,
        /// Whom.
        members: BTreeSet<NodeId>,
        /// What everybody said.
        report: Box<KeyReport>,
    },
    /// Members did not do what they were asked. What was done stays; nobody was cut off.
    #[error("the rotation stopped at `{step}`: {}{}", failures(report), way_on(report))]
    Incomplete {
        /// At which step.
        step: &'static str,
        /// What everybody said.
        report: Box<KeyReport>,
    },
    /// The keys of the cluster went on changing: somebody else rotates, too. Nobody was cut off. What
    /// was done stays, until either is repeated when the other has ended.
    #[error("the cluster's keys keep changing: does another member rotate at the same time?")]
    Unsettled,
    /// This node is leaving the cluster, or has left: it does not know any more who is in it.
    #[error("this node has left the cluster; ask one of its members, or join again")]
    Left,
    /// The system gave no randomness for a new key.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
}

/// Who would be cut off, those of one reason together.
fn reasons(key: &Fingerprint, members: &BTreeSet<NodeId>, report: &KeyReport) -> String {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for id in members {
        let reason = match report.answers.get(id).map(|answer| (answer, answer.held(key))) {
            Some((KeyAnswer { result: Err(failure), .. }, _)) => failure.to_string(),
            Some((_, Some(held))) if held.primary => "seals with it".to_owned(),
            Some((_, Some(held))) if held.retired => "has it, but about to be removed".to_owned(),
            Some((_, Some(_))) => "has got it again".to_owned(),
            Some((_, None)) => "does not have it".to_owned(),
            None => "did not answer".to_owned(),
        };
        groups.entry(reason).or_default().push(id.as_str());
    }
    let group = |(reason, names): (String, Vec<&str>)| format!("{} ({reason})", names.join(", "));
    groups.into_iter().map(group).collect::<Vec<_>>().join("; ")
}

fn failures(report: &KeyReport) -> String {
    let each = report.failures().map(|(id, failure)| format!("{id}: {failure}"));
    each.collect::<Vec<_>>().join("; ")
}

/// To repeat it helps only where all members can do it at some time.
fn way_on(report: &KeyReport) -> &'static str {
    match report.failures().any(|(_, failure)| *failure == KeyFailure::NotNative) {
        true => "; while such members are there, change each node's keys by itself",
        false => "; repeat it to go on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_cannot_go_on_is_not_to_be_repeated() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 7946));
        let told = |failure| {
            let answer = KeyAnswer { addr, result: Err(failure) };
            let answers = [(NodeId::new("a").unwrap(), answer)].into();
            let report = Box::new(KeyReport { answers, absent: Vec::new() });
            KeysError::Incomplete { step: "list", report }.to_string()
        };
        let busy = told(KeyFailure::Refused("busy".to_owned()));
        assert_eq!(busy, "the rotation stopped at `list`: a: refused: busy; repeat it to go on");
        let go = told(KeyFailure::NotNative);
        assert!(go.ends_with("change each node's keys by itself"), "{go}");
        assert!(!go.contains("repeat"), "{go}");
    }

    #[test]
    fn who_would_be_cut_off_is_told_with_the_reason() {
        let key = Fingerprint::from_bytes([7; 8]);
        let held = |primary, retired| {
            let size = KeySize::Bits256;
            Ok(vec![HeldKey { fingerprint: key, size, primary, retired, revision: 1 }])
        };
        let answers = [
            ("a", Ok(vec![])),
            ("b", Ok(vec![])),
            ("c", held(false, true)),
            ("d", Err(KeyFailure::NotSaved("disk full".to_owned()))),
            ("e", held(true, false)),
            ("f", held(false, false)),
        ];
        let addr = SocketAddr::from(([10, 0, 0, 1], 7946));
        let answer = |(name, result)| (NodeId::new(name).unwrap(), KeyAnswer { addr, result });
        let answers = answers.map(answer).into();
        let report = KeyReport { answers, absent: Vec::new() };
        let told = |step, fits: fn(&KeyAnswer) -> bool| {
            report.clone().check(step, key, fits).unwrap_err().to_string()
        };
        assert_eq!(
            told("activate", |answer| answer
                .result
                .as_ref()
                .is_ok_and(|held| !held.is_empty() && !held[0].retired)),
            "to activate this key would cut off a, b (does not have it); c (has it, but about to \
             be removed); d (its keyring was changed, but not saved: disk full); it was not done"
        );
        assert_eq!(
            told("remove", |answer| answer.result.as_ref().is_ok_and(Vec::is_empty)),
            "to remove this key would cut off f (has got it again); c (has it, but about to be \
             removed); d (its keyring was changed, but not saved: disk full); e (seals with it); it \
             was not done"
        );
    }
}
