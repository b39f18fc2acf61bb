//! What came of a step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use memberlist_protocol::{ExchangeError, NodeId};
use memberlist_security::{Fingerprint, KeySize, RandomnessError};

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
        self.result.iter().flatten().any(|held| held.fingerprint == *key)
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
    /// Members that have failed, by name. They were not asked, and miss what was changed: one that
    /// comes back after its key was removed is refused, and needs the present keyring by hand.
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

    /// Another key than this that somebody holds, and who does.
    pub(super) fn other_key(&self, than: &Fingerprint) -> Option<(Fingerprint, BTreeSet<NodeId>)> {
        let key = self.keys().into_keys().find(|key| key != than)?;
        Some((key, self.members_where(|answer| answer.holds(&key))))
    }

    /// Whether a step may be taken: everybody answered, and is as it must be.
    pub(super) fn check(
        self,
        step: &'static str,
        fits: impl Fn(&KeyAnswer) -> bool,
    ) -> Result<(), KeysError> {
        let fits = |answer: &KeyAnswer| answer.result.is_ok() && fits(answer);
        let members = self.members_where(|answer| !fits(answer));
        if members.is_empty() {
            return Ok(());
        }
        Err(KeysError::WouldCutOff { step, members, report: Box::new(self) })
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
    /// The step would cut members off: they do not have the key that is to be activated, still seal
    /// with the one that is to be removed, or did not say. Nothing was changed.
    #[error("to {step} this key would cut off {}; nothing was changed", names(members))]
    WouldCutOff {
        /// Which step.
        step: &'static str,
        /// Whom.
        members: BTreeSet<NodeId>,
        /// What everybody said.
        report: Box<KeyReport>,
    },
    /// Members did not do what they were asked. What was done stays; nobody was cut off.
    #[error("the rotation stopped at `{step}`: {}; repeat it to go on", failures(report))]
    Incomplete {
        /// At which step.
        step: &'static str,
        /// What everybody said.
        report: Box<KeyReport>,
    },
    /// The keys of the cluster went on changing: somebody else rotates, too.
    #[error("the cluster's keys keep changing: does another member rotate at the same time?")]
    Unsettled,
    /// The system gave no randomness for a new key.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
}

fn names(members: &BTreeSet<NodeId>) -> String {
    members.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

fn failures(report: &KeyReport) -> String {
    let each = report.failures().map(|(id, failure)| format!("{id}: {failure}"));
    each.collect::<Vec<_>>().join("; ")
}
