//! Keys of the whole cluster: asked for, installed, activated and removed on every live member.
//!
//! Each step is sent to every live member over an encrypted stream, at most [`CONCURRENCY`] at a
//! time, and answered with what that member holds then. A step that would cut somebody off is refused
//! before anything changes. Members that join meanwhile are asked as well. (Go memberlist changes the
//! local keyring only.)

mod message;
mod report;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use futures_util::stream::{self, StreamExt};
use memberlist_protocol::{Member, NodeId, NodeState, Peer};
use memberlist_security::{Fingerprint, KeyInfo, SecretKey};
use memberlist_transport::Transport;

pub(crate) use message::{KeyRequest, TOPIC};
pub use report::{HeldKey, KeyAnswer, KeyFailure, KeyReport, KeyUse, KeysError};
use serve::lock;
pub(crate) use serve::{apply, hand_over, serve};

use crate::command::Command;
use crate::handle::Inner;
use crate::layers::Keys as LocalKeys;

/// Members that are asked at the same time.
const CONCURRENCY: usize = 16;
/// How often members that joined meanwhile are looked for.
const ROUNDS: usize = 3;
/// Steps of a rotation, each of which brings the cluster closer to its end or names who is in the way.
/// A full keyring has to be emptied key by key.
const ROTATION_STEPS: usize = 16 + memberlist_security::MAX_KEYS;

/// The keys of a cluster, seen from one member: see [`Memberlist::keys`](crate::Memberlist::keys).
///
/// A new key is brought in by [`install`](Self::install), [`activate`](Self::activate), and
/// [`remove`](Self::remove) of the old one, or by [`rotate`](Self::rotate), which does all three. All
/// of them can be repeated without harm. Every member may begin; two that rotate at the same time to
/// different keys are in each other's way and are told so.
///
/// A new key travels under the present one. If that has become known to others, bring the new one to
/// every node by hand.
pub struct Keys<'m, T: Transport> {
    inner: &'m Inner<T>,
    local: &'m LocalKeys,
    forced: bool,
}

impl<'m, T: Transport> Keys<'m, T> {
    pub(crate) fn new(inner: &'m Inner<T>) -> Option<Self> {
        let local = inner.context.layers.sealing.keys()?;
        Some(Self { inner, local, forced: false })
    }

    /// The same without the checks that keep members from being cut off, for [`activate`](Self::activate)
    /// and [`remove`](Self::remove). A rotation leaves nobody behind in any case.
    #[must_use]
    pub fn forced(self) -> Self {
        Self { forced: true, ..self }
    }

    /// The keys of this node, the primary first.
    pub fn local(&self) -> Vec<KeyInfo> {
        self.local.keyring.list()
    }

    /// Whether this node encrypts what it sends.
    pub fn encrypts_outgoing(&self) -> bool {
        self.local.encrypt_outgoing.load(Ordering::Relaxed)
    }

    /// Switches [`encrypt_outgoing`](crate::Encryption::encrypt_outgoing) of this node.
    pub fn set_encrypt_outgoing(&self, on: bool) {
        self.local.encrypt_outgoing.store(on, Ordering::Relaxed);
    }

    /// Whether this node refuses what is not encrypted.
    pub fn verifies_incoming(&self) -> bool {
        self.local.verify_incoming.load(Ordering::Relaxed)
    }

    /// Switches [`verify_incoming`](crate::Encryption::verify_incoming) of this node.
    pub fn set_verify_incoming(&self, on: bool) {
        self.local.verify_incoming.store(on, Ordering::Relaxed);
    }

    /// Asks every live member for its keys. Changes nothing.
    pub async fn list(&self) -> KeyReport {
        self.ask_all(&KeyRequest::List).await
    }

    /// Adds a key to every live member's keyring: from now on it opens what is sealed with it.
    pub async fn install(&self, key: SecretKey) -> KeyReport {
        self.ask_all(&KeyRequest::Install(key)).await
    }

    /// Makes an installed key the one that every live member seals with.
    ///
    /// # Errors
    /// [`KeysError::WouldCutOff`], and nothing is changed, if a live member does not have the key or
    /// does not say, unless [`forced`](Self::forced).
    pub async fn activate(&self, key: Fingerprint) -> Result<KeyReport, KeysError> {
        if !self.forced {
            let report = self.list().await;
            report.check("activate", |answer| answer.holds(&key))?;
        }
        Ok(self.ask_all(&KeyRequest::Activate(key)).await)
    }

    /// Removes a key from every live member's keyring. Give what was sealed before the new key was
    /// activated a moment to arrive: what comes later is dropped. A stream that was begun before goes
    /// on.
    ///
    /// # Errors
    /// [`KeysError::WouldCutOff`], and nothing is changed, if a live member still seals with the key
    /// or does not say, unless [`forced`](Self::forced). (A member refuses to remove its primary in
    /// any case.)
    pub async fn remove(&self, key: Fingerprint) -> Result<KeyReport, KeysError> {
        if !self.forced {
            let report = self.list().await;
            report.check("remove", |answer| answer.primary() != Some(key))?;
        }
        Ok(self.ask_all(&KeyRequest::Remove(key)).await)
    }

    /// Replaces all keys by a new one of the primary's size: afterwards every live member holds it
    /// alone. Gives its fingerprint, and what each member said last.
    ///
    /// # Errors
    /// As [`rotate_to`](Self::rotate_to). Call this again to go on with the same key.
    pub async fn rotate(&self) -> Result<(Fingerprint, KeyReport), KeysError> {
        let key = self.rotating()?;
        let name = key.fingerprint();
        let report = self.rotate_to(key).await?;
        let mut rotating = lock(&self.local.rotating);
        if rotating.as_ref().is_some_and(|key| key.fingerprint() == name) {
            *rotating = None;
        }
        drop(rotating);
        Ok((name, report))
    }

    /// The key of a rotation that did not come to its end, or a new one. Two calls at once share one.
    fn rotating(&self) -> Result<SecretKey, KeysError> {
        let mut rotating = lock(&self.local.rotating);
        if let Some(key) = &*rotating {
            return Ok(key.clone());
        }
        let size = self.local().first().map_or(memberlist_security::KeySize::Bits256, |k| k.size);
        let key = SecretKey::generate(size)?;
        *rotating = Some(key.clone());
        Ok(key)
    }

    /// Replaces all keys by this one: installs it on every live member, activates it on every one when
    /// all have it, removes the others when all seal with it. Before that it waits for one
    /// [`probe_interval`](memberlist_protocol::Config::probe_interval), in which what was sealed before
    /// arrives. Members that join meanwhile are brought along. Stopped in the middle, it loses nobody;
    /// called again with the same key, it goes on.
    ///
    /// # Errors
    /// [`KeysError::Incomplete`] with the last report if a live member could not be brought along: it
    /// names who and why. No step is taken that would cut that member off.
    pub async fn rotate_to(&self, key: SecretKey) -> Result<KeyReport, KeysError> {
        let name = key.fingerprint();
        let mut settled = false;
        let mut old: Option<BTreeSet<Fingerprint>> = None;
        for _ in 0..ROTATION_STEPS {
            let report = self.list().await;
            let report = report.complete("list")?;
            // A key that was not there at the beginning is another rotation's: to remove it may cut off
            // those who have begun to seal with it.
            let others: BTreeSet<_> =
                report.keys().into_keys().filter(|key| *key != name).collect();
            if !others.is_subset(old.get_or_insert_with(|| others.clone())) {
                return Err(KeysError::Unsettled);
            }
            let missing = report.members_where(|answer| !answer.holds(&name));
            let behind = report.members_where(|answer| answer.primary() != Some(name));
            let (request, to) = if !missing.is_empty() {
                (KeyRequest::Install(key.clone()), missing)
            } else if !behind.is_empty() {
                (KeyRequest::Activate(name), behind)
            } else if let Some((other, holders)) = report.other_key(&name) {
                if !std::mem::replace(&mut settled, true) {
                    tokio::time::sleep(self.inner.config.protocol.probe_interval).await;
                    continue;
                }
                (KeyRequest::Remove(other), holders)
            } else {
                return Ok(report);
            };
            let step = request.name();
            self.ask(&request, &to).await.complete(step)?;
        }
        Err(KeysError::Unsettled)
    }

    /// Asks all live members, and those that join meanwhile.
    async fn ask_all(&self, request: &KeyRequest) -> KeyReport {
        let mut report = KeyReport::default();
        for _ in 0..ROUNDS {
            let asked: BTreeSet<NodeId> = report.answers.keys().cloned().collect();
            let live = self.live();
            let new: BTreeSet<NodeId> =
                live.keys().filter(|id| !asked.contains(*id)).cloned().collect();
            if new.is_empty() {
                break;
            }
            report.answers.append(&mut self.ask(request, &new).await.answers);
        }
        report.absent = self.absent().await;
        report
    }

    /// Asks these members, this node last: until then it understands all the others.
    async fn ask(&self, request: &KeyRequest, whom: &BTreeSet<NodeId>) -> KeyReport {
        let own = &self.inner.shared.id;
        let live = self.live();
        let others = whom.iter().filter(|id| *id != own).filter_map(|id| live.get(id).cloned());
        let asking = others.map(|member| async move {
            let peer = Peer::named(member.addr(), member.id().clone());
            let result = self.ask_one(request, &peer).await;
            (member.id().clone(), KeyAnswer { addr: member.addr(), result })
        });
        let mut answers: BTreeMap<NodeId, KeyAnswer> =
            stream::iter(asking).buffer_unordered(CONCURRENCY).collect().await;
        if whom.contains(own) {
            let addr = self.inner.transport.advertise_addr();
            let result = apply(self.local, request).await;
            answers.insert(own.clone(), KeyAnswer { addr, result });
        }
        KeyReport { answers, absent: self.absent().await }
    }

    async fn ask_one(&self, request: &KeyRequest, peer: &Peer) -> Result<Vec<HeldKey>, KeyFailure> {
        let (transport, context) = (&*self.inner.transport, &self.inner.context);
        let asked = serve::ask(transport, context, peer, None, request).await;
        if let Err(KeyFailure::Exchange(error)) = &asked {
            self.inner.count_layer_fault(Some(error)).await;
        }
        asked
    }

    fn live(&self) -> BTreeMap<NodeId, Member> {
        let members = self.inner.shared.hub.members();
        let live = members.iter().filter(|member| member.state.is_live());
        live.map(|member| (member.id().clone(), member.clone())).collect()
    }

    /// Members that failed, those that are not kept in the list any more included: they miss every
    /// change until they are back.
    async fn absent(&self) -> Vec<NodeId> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        // If the node is down, there is nobody to ask, and what is in the list is told.
        let _ = self.inner.commands.send(Command::Lost { reply }).await;
        let lost = answer.await.unwrap_or_default();
        let members = self.inner.shared.hub.members();
        let dead = members.iter().filter(|member| member.state == NodeState::Dead);
        let all: BTreeSet<_> = dead.map(|member| member.id().clone()).chain(lost).collect();
        all.into_iter().collect()
    }
}
