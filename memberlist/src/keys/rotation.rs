//! What a rotation does next, decided from what every member said it holds.
//!
//! Nobody sees all members at one moment, other rotations run at the same time, and requests of a
//! rotation that was given up may still arrive. So a key is activated only if two looks, one after the
//! other, found it at every member in the same revision, not retired; and removed only if two looks
//! found it retired, in the same revision, or gone. Between the two looks there was then a moment at
//! which that was so everywhere. Each member does either only while its key still has that revision.
//!
//! From this it follows that the primary of every member that was asked is held by all others that
//! were. Take one that seals with Y since an activation with its moment `a`, and another from which a
//! removal with its moment `r` took Y. Was `r` before `a`, then Y was back at `a`, and that removal is
//! over. Was it after, then the first member had Y retired at `r`, after `a`: either it did not seal
//! with it any more, or the revision had changed, and it refused the activation.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use memberlist_protocol::NodeId;
use memberlist_security::{Fingerprint, SecretKey};

use super::message::KeyRequest;
use super::report::{KeyReport, KeysError};

/// What each member is asked.
pub(super) type Requests = BTreeMap<NodeId, KeyRequest>;

/// What is to be done before the next look.
#[derive(PartialEq, Debug)]
pub(super) enum Step {
    /// Nothing more: everybody holds the new key alone.
    Done,
    /// Nothing: what was seen must be seen again.
    Look,
    /// Wait for so many pauses.
    Pause(u32),
    Ask(Requests),
}

/// A key at a member.
type Place = (NodeId, Fingerprint);

pub(super) struct Rotation {
    key: SecretKey,
    name: Fingerprint,
    /// Keys that there were at the beginning. Later ones are another rotation's.
    old: Option<BTreeSet<Fingerprint>>,
    /// What the last look has found.
    seen: BTreeMap<Place, u64>,
    /// Keys that were retired before the beginning.
    found_retired: Option<BTreeMap<Place, u64>>,
    installed: BTreeSet<NodeId>,
    activated: BTreeSet<NodeId>,
    retired: BTreeSet<Place>,
    /// Whether what was sealed with old keys has had time to arrive.
    paused: bool,
}

impl Rotation {
    pub(super) fn new(key: SecretKey) -> Self {
        Self {
            name: key.fingerprint(),
            key,
            old: None,
            seen: BTreeMap::new(),
            found_retired: None,
            installed: BTreeSet::new(),
            activated: BTreeSet::new(),
            retired: BTreeSet::new(),
            paused: false,
        }
    }

    /// The next step, by what everybody said; all must have answered.
    ///
    /// # Errors
    /// [`KeysError::Unsettled`] if another rotation is in the way. Two that took each other's steps
    /// back would never end.
    pub(super) fn next(&mut self, report: &KeyReport) -> Result<Step, KeysError> {
        let before = std::mem::replace(&mut self.seen, places(report, |_| true));
        let others: BTreeSet<_> =
            report.keys().into_keys().filter(|key| *key != self.name).collect();
        if self.old.is_none() {
            if !self.others_are_done(report)? {
                return Ok(Step::Pause(2));
            }
            self.old = Some(others.clone());
        }
        let old: BTreeSet<_> = self.old.iter().flatten().copied().collect();
        // Until its key is in use, it gives way.
        if self.activated.is_empty() && !others.is_subset(&old) {
            return Err(KeysError::Unsettled);
        }
        if let Some(step) = self.bring_in(report, &before)? {
            return Ok(step);
        }
        for key in others.intersection(&old) {
            if let Some(step) = self.retire(*key, report)? {
                return Ok(step);
            }
        }
        if !std::mem::replace(&mut self.paused, true) {
            return Ok(Step::Pause(1));
        }
        match (others.intersection(&old).next(), others.is_empty()) {
            (Some(key), _) if self.settled(key, report, &before) => {
                Ok(Step::Ask(remove(key, report)))
            }
            (Some(_), _) => Ok(Step::Look),
            (None, true) => Ok(Step::Done),
            (None, false) => Err(KeysError::Unsettled),
        }
    }

    /// Retired keys are another rotation's that has come far: it is given time to remove them. If
    /// nothing happens, it was given up.
    fn others_are_done(&mut self, report: &KeyReport) -> Result<bool, KeysError> {
        let retired = places(report, |retired| retired);
        match self.found_retired.replace(retired.clone()) {
            _ if retired.is_empty() => Ok(true),
            None => Ok(false),
            Some(found) if found == retired => Ok(true),
            Some(_) => Err(KeysError::Unsettled),
        }
    }

    /// Installs and activates the new key.
    fn bring_in(
        &mut self,
        report: &KeyReport,
        before: &BTreeMap<Place, u64>,
    ) -> Result<Option<Step>, KeysError> {
        let missing = report.members_where(|answer| !answer.may_activate(&self.name));
        if !missing.is_empty() {
            let install = |id: &NodeId| (id.clone(), KeyRequest::Install(self.key.clone()));
            let requests = missing.iter().map(install).collect();
            return first_time(&mut self.installed, missing).map(|()| Some(Step::Ask(requests)));
        }
        let behind = report.members_where(|answer| answer.primary() != Some(self.name));
        if behind.is_empty() {
            return Ok(None);
        }
        if !self.settled(&self.name, report, before) {
            return Ok(Some(Step::Look));
        }
        let mut requests = activate(&self.name, report);
        requests.retain(|id, _| behind.contains(id));
        first_time(&mut self.activated, behind).map(|()| Some(Step::Ask(requests)))
    }

    fn retire(&mut self, key: Fingerprint, report: &KeyReport) -> Result<Option<Step>, KeysError> {
        let holders = report.members_where(|answer| answer.may_activate(&key));
        if holders.is_empty() {
            return Ok(None);
        }
        let requests = holders.iter().map(|id| (id.clone(), KeyRequest::Retire(key))).collect();
        let places = holders.into_iter().map(|id| (id, key)).collect();
        first_time(&mut self.retired, places).map(|()| Some(Step::Ask(requests)))
    }

    /// Whether the last look has found the key at the same members in the same revisions.
    fn settled(
        &self,
        key: &Fingerprint,
        report: &KeyReport,
        before: &BTreeMap<Place, u64>,
    ) -> bool {
        let same = |id: &NodeId| {
            let place = (id.clone(), *key);
            // Whom the last look did not find is not known to be without the key.
            let known = before.keys().any(|(member, _)| member == id);
            known && before.get(&place) == self.seen.get(&place)
        };
        report.answers.keys().all(same)
    }
}

/// The keys that were found, by whether they are retired, with their revisions.
fn places(report: &KeyReport, wanted: impl Fn(bool) -> bool) -> BTreeMap<Place, u64> {
    let mut places = BTreeMap::new();
    for (id, answer) in &report.answers {
        let held = answer.result.iter().flatten().filter(|held| wanted(held.retired));
        places.extend(held.map(|held| ((id.clone(), held.fingerprint), held.revision)));
    }
    places
}

/// Notes what is asked. What was asked before has been undone by somebody.
fn first_time<T: Ord>(asked: &mut BTreeSet<T>, now: BTreeSet<T>) -> Result<(), KeysError> {
    match asked.is_disjoint(&now) {
        true => {
            asked.extend(now);
            Ok(())
        }
        false => Err(KeysError::Unsettled),
    }
}

/// Requests to activate the key as it was seen. Where it was not, no revision that it may have got
/// meanwhile is 0.
pub(super) fn activate(key: &Fingerprint, report: &KeyReport) -> Requests {
    let revisions = report.revisions(key).into_iter();
    revisions.map(|(id, revision)| (id, KeyRequest::Activate(*key, revision.or(Some(0))))).collect()
}

/// Requests to remove the key as it was seen; so too.
pub(super) fn remove(key: &Fingerprint, report: &KeyReport) -> Requests {
    let revisions = report.revisions(key).into_iter();
    revisions.map(|(id, revision)| (id, KeyRequest::Remove(*key, revision.or(Some(0))))).collect()
}
