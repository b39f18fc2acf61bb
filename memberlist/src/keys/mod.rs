//! Keys of the whole cluster: asked for, installed, activated and removed on every live member.
//!
//! Each step is sent to every live member over an encrypted stream, at most [`CONCURRENCY`] at a
//! time, and answered with what that member holds then. A step that would cut somebody off is refused
//! before it is taken, and by each member if the key was changed since it was looked at: see
//! [`rotation`]. (Go memberlist changes the local keyring only.)

mod message;
mod report;
mod rotation;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use memberlist_protocol::wire::Dialect;
use memberlist_protocol::{ExchangeError, Member, NodeId, NodeState, Peer};
use memberlist_security::{Fingerprint, KeyInfo, SecretKey};
use memberlist_transport::Transport;

pub(crate) use message::{KeyRequest, TOPIC};
pub use report::{HeldKey, KeyAnswer, KeyFailure, KeyReport, KeyUse, KeysError};
use rotation::{Requests, Rotation, Step};
use serve::lock;
pub(crate) use serve::{Newcomer, apply, hand_over, serve};

use crate::command::Command;
use crate::handle::Inner;
use crate::layers::{Keys as LocalKeys, Rotating};

/// Members that are asked at the same time.
const CONCURRENCY: usize = 16;
/// How often members that joined meanwhile are looked for.
const ROUNDS: usize = 3;
/// Steps of a rotation, each of which brings the cluster closer to its end or names who is in the way.
/// A full keyring has to be emptied key by key: each is retired, seen, and removed.
const ROTATION_STEPS: usize = 32 + 3 * memberlist_security::MAX_KEYS;
/// How often the members are looked at until two looks agree.
const LOOKS: usize = 4;
/// The pause before a removal of a node that does not probe.
const PAUSE: Duration = Duration::from_secs(1);

/// The keys of a cluster, seen from one member: see [`Memberlist::keys`](crate::Memberlist::keys).
///
/// A new key is brought in by [`install`](Self::install), [`activate`](Self::activate), and
/// [`remove`](Self::remove) of the old one, or by [`rotate`](Self::rotate), which does all three. All
/// of them can be repeated without harm. Every member may begin; two that rotate at the same time to
/// different keys are in each other's way and are told so.
///
/// Whatever the order in which the requests of any number of rotations arrive, repeated or given up in
/// the middle: of the members that were all asked, each has the key that the others seal with. Only
/// [`forced`](Self::forced) steps can break that, and who changes a keyring by hand.
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

    /// Adds a key to this node's keyring alone. For clusters with nodes of Go memberlist, whose keyrings
    /// cannot be changed from here: change every node's by itself, step by step.
    ///
    /// # Errors
    /// [`KeyFailure::Refused`] if the keyring is full, [`KeyFailure::NotSaved`].
    pub async fn install_here(&self, key: SecretKey) -> Result<Vec<HeldKey>, KeyFailure> {
        apply(self.local, &KeyRequest::Install(key)).await
    }

    /// Makes an installed key the one that this node seals with; see
    /// [`install_here`](Self::install_here). Every node must have it first.
    ///
    /// # Errors
    /// [`KeyFailure::Refused`] if it is not installed here, [`KeyFailure::NotSaved`].
    pub async fn activate_here(&self, key: Fingerprint) -> Result<Vec<HeldKey>, KeyFailure> {
        apply(self.local, &KeyRequest::Activate(key, None)).await
    }

    /// Removes a key from this node's keyring alone; see [`install_here`](Self::install_here). No node may
    /// seal with it any more.
    ///
    /// # Errors
    /// [`KeyFailure::Refused`] if it is the primary, [`KeyFailure::NotSaved`].
    pub async fn remove_here(&self, key: Fingerprint) -> Result<Vec<HeldKey>, KeyFailure> {
        apply(self.local, &KeyRequest::Remove(key, None)).await
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
    /// [`KeysError::WouldCutOff`], and nothing is changed, if a live member does not have the key, has
    /// it [retired](HeldKey::retired), or does not say; [`KeysError::Unsettled`] if the key is being
    /// installed or removed meanwhile. Neither if [`forced`](Self::forced). [`KeysError::Left`].
    pub async fn activate(&self, key: Fingerprint) -> Result<KeyReport, KeysError> {
        self.check_present()?;
        if self.forced {
            return Ok(self.ask_all(&KeyRequest::Activate(key, None)).await);
        }
        let report = self.agreed("activate", &key, |answer| answer.may_activate(&key)).await?;
        Ok(self.ask(rotation::activate(&key, &report)).await)
    }

    /// Removes a key from every live member's keyring: retires it everywhere first, so that nobody can
    /// activate it meanwhile. Give what was sealed before the new key was activated a moment to
    /// arrive: what comes later is dropped. A stream that was begun before goes on.
    ///
    /// # Errors
    /// [`KeysError::WouldCutOff`], and nothing is removed, if a live member still seals with the key
    /// or does not say; [`KeysError::Unsettled`] if the key is being installed meanwhile. Neither if
    /// [`forced`](Self::forced), which removes it at once. (A member refuses to remove its primary in
    /// any case.) [`KeysError::Left`].
    pub async fn remove(&self, key: Fingerprint) -> Result<KeyReport, KeysError> {
        self.check_present()?;
        if self.forced {
            return Ok(self.ask_all(&KeyRequest::Remove(key, None)).await);
        }
        let report = self.list().await;
        report.check("remove", key, |answer| answer.primary() != Some(key))?;
        let retired = |answer: &KeyAnswer| !answer.may_activate(&key);
        self.ask_all(&KeyRequest::Retire(key)).await.check("remove", key, retired)?;
        let report = self.agreed("remove", &key, retired).await?;
        Ok(self.ask(rotation::remove(&key, &report)).await)
    }

    /// What two looks, one after the other, found alike of this key: so it was at one moment.
    async fn agreed(
        &self,
        step: &'static str,
        key: &Fingerprint,
        fits: impl Fn(&KeyAnswer) -> bool,
    ) -> Result<KeyReport, KeysError> {
        let mut seen = None;
        for _ in 0..LOOKS {
            let report = self.list().await.check(step, *key, &fits)?;
            let revisions = report.revisions(key);
            if seen.as_ref() == Some(&revisions) {
                return Ok(report);
            }
            seen = Some(revisions);
        }
        Err(KeysError::Unsettled)
    }

    /// Replaces all keys by a new one of the primary's size: afterwards every live member holds it
    /// alone. Gives its fingerprint, and what each member said last.
    ///
    /// A member without a [`keyring_file`](crate::Encryption::keyring_file) has the new key in memory
    /// only: started again with its old one, it is refused.
    ///
    /// # Errors
    /// As [`rotate_to`](Self::rotate_to). Call this again to go on with the same key.
    pub async fn rotate(&self) -> Result<(Fingerprint, KeyReport), KeysError> {
        let key = self.rotating()?;
        let name = key.fingerprint();
        let report = self.rotate_to(key).await?;
        lock(&self.local.rotating).take_if(|rotating| rotating.key.fingerprint() == name);
        Ok((name, report))
    }

    /// The key of a rotation that did not come to its end, or a new one. Two calls at once share one.
    /// It is not gone on with if the cluster's keys were replaced or its key is being removed.
    fn rotating(&self) -> Result<SecretKey, KeysError> {
        let held = self.local();
        let primary = self.local.keyring.primary();
        let mut rotating = lock(&self.local.rotating);
        let wanted = |rotating: &&Rotating| {
            let name = rotating.key.fingerprint();
            let retired = held.iter().any(|held| held.fingerprint == name && held.retired);
            !retired && [rotating.primary, name].contains(&primary)
        };
        if let Some(rotating) = rotating.as_ref().filter(wanted) {
            return Ok(rotating.key.clone());
        }
        let size = held.first().map_or(memberlist_security::KeySize::Bits256, |k| k.size);
        let key = SecretKey::generate(size)?;
        *rotating = Some(Rotating { key: key.clone(), primary });
        Ok(key)
    }

    /// Replaces all keys by this one: installs it on every live member, activates it on every one when
    /// all have it, retires the others when all seal with it, and removes them. Before that it waits
    /// for one [`probe_interval`](memberlist_protocol::Config::probe_interval) (a second if that is
    /// zero), in which what was sealed before arrives. Members that join meanwhile are brought along.
    /// Stopped in the middle, it loses nobody; called again with the same key, it goes on. If it finds
    /// keys retired at the beginning, it gives the other rotation two such intervals to end.
    ///
    /// # Errors
    /// [`KeysError::Incomplete`] with the last report if a live member could not be brought along: it
    /// names who and why. No step is taken that would cut that member off. [`KeysError::Unsettled`] if
    /// another rotation takes its steps back or has brought in a key of its own: it gives way, after
    /// at most one more interval.
    /// [`KeysError::Left`].
    pub async fn rotate_to(&self, key: SecretKey) -> Result<KeyReport, KeysError> {
        let probe_interval = self.inner.config.protocol.probe_interval;
        let pause = if probe_interval.is_zero() { PAUSE } else { probe_interval };
        let name = key.fingerprint();
        let ended = self.rotate_with(Rotation::new(key), pause).await;
        if ended == Err(KeysError::Unsettled) {
            // Two that are repeated at once must not stay in step: each key has its own share of a pause.
            let [high, low, ..] = name.to_bytes();
            let share = u32::from(u16::from_be_bytes([high, low]));
            tokio::time::sleep(pause / (1 << 16) * share).await;
        }
        ended
    }

    async fn rotate_with(
        &self,
        mut rotation: Rotation,
        pause: Duration,
    ) -> Result<KeyReport, KeysError> {
        for _ in 0..ROTATION_STEPS {
            self.check_present()?;
            let report = self.list().await.complete("list")?;
            match rotation.next(&report)? {
                Step::Done => return Ok(report),
                Step::Look => {}
                Step::Pause(times) => tokio::time::sleep(pause.saturating_mul(times)).await,
                Step::Ask(requests) => {
                    let step = requests.values().next().map_or("list", KeyRequest::name);
                    self.ask(requests).await.complete(step)?;
                }
            }
        }
        Err(KeysError::Unsettled)
    }

    /// Who has left does not hear any more who is in the cluster.
    fn check_present(&self) -> Result<(), KeysError> {
        let own = self.inner.shared.hub.member(self.inner.shared.id.as_str());
        match own.is_some_and(|own| own.state == NodeState::Left) {
            true => Err(KeysError::Left),
            false => Ok(()),
        }
    }

    /// Asks all live members, and those that join meanwhile.
    async fn ask_all(&self, request: &KeyRequest) -> KeyReport {
        let mut report = KeyReport::default();
        for _ in 0..ROUNDS {
            let live = self.live().into_keys();
            let new = live.filter(|id| !report.answers.contains_key(id));
            let requests: Requests = new.map(|id| (id, request.clone())).collect();
            if requests.is_empty() {
                break;
            }
            report.answers.append(&mut self.ask(requests).await.answers);
        }
        report.absent = self.absent().await;
        report
    }

    /// Asks these members, this node last: until then it understands all the others.
    async fn ask(&self, mut requests: Requests) -> KeyReport {
        let own = &self.inner.shared.id;
        let own_request = requests.remove(own);
        let mut live = self.live();
        let asked =
            requests.into_iter().filter_map(|(id, request)| Some((live.remove(&id)?, request)));
        let asked: Vec<(Member, KeyRequest)> = asked.collect();
        let asking = asked.into_iter().map(|(member, request)| async move {
            let peer = Peer::named(member.addr(), member.id().clone());
            let result = self.ask_one(&request, &peer).await;
            (member.id().clone(), KeyAnswer { addr: member.addr(), result })
        });
        let mut answers: BTreeMap<NodeId, KeyAnswer> =
            stream::iter(asking).buffer_unordered(CONCURRENCY).collect().await;
        if let Some(request) = own_request {
            let addr = self.inner.transport.advertise_addr();
            let result = apply(self.local, &request).await;
            answers.insert(own.clone(), KeyAnswer { addr, result });
        }
        KeyReport { answers, absent: self.absent().await }
    }

    async fn ask_one(&self, request: &KeyRequest, peer: &Peer) -> Result<Vec<HeldKey>, KeyFailure> {
        let (transport, context) = (&*self.inner.transport, &self.inner.context);
        match self.inner.dialect_for(peer).await {
            Ok(Dialect::Native) => {}
            Ok(Dialect::Hashicorp) => return Err(KeyFailure::NotNative),
            Err(_closed) => return Err(ExchangeError::Cancelled.into()),
        }
        let asked = serve::ask(transport, context, peer, None, None, request).await;
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

    /// Members that failed or left, those that are not kept in the list any more included: they miss
    /// every change until they are back. Who has left may still run, and come back with its old keys.
    async fn absent(&self) -> Vec<NodeId> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        // If the node is down, there is nobody to ask, and what is in the list is told.
        let _ = self.inner.commands.send(Command::Lost { reply }.into()).await;
        let lost = answer.await.unwrap_or_default();
        let members = self.inner.shared.hub.members();
        let gone = members.iter().filter(|member| !member.state.is_live());
        let all: BTreeSet<_> = gone.map(|member| member.id().clone()).chain(lost).collect();
        all.into_iter().collect()
    }
}
