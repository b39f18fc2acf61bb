//! Exchange of whole states over a stream (Go `pushPullNode`, `mergeRemoteState`).
//!
//! Anti-entropy: what gossip missed is repaired when two nodes compare all that they know, at
//! joining and from time to time. The machine asks for a stream and is given the other side's
//! state; writing its own is the stream's business, from a [snapshot](Membership::local_state).
//! A state is merged in slices, so that probes are answered in between. Invariants: the answer to a
//! push/pull is the state before the merge; a peer whose versions do not go with this cluster's
//! changes nothing.
//!
//! Departure from Go: who asks is refused before it is answered, not after, so that it learns of the
//! refusal, and of no members.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::busy::Retry;
use super::timer::Timer;
use super::{Event, Membership, OperationId, alive_of, scale};
use crate::error::ExchangeError;
use crate::message::{Dead, Suspect};
use crate::node::{Node, NodeId, NodeState, Peer, Versions, canonical};
use crate::stats::DropReason;
use crate::wire::Dialect;
use crate::wire::stream::{Busy, Held, RemoteRecord, RemoteState, SnapshotRecord};
use crate::wire::sync::SyncBody;

/// Records that are merged before other work gets its turn.
const SLICE_RECORDS: usize = 256;

/// A stream that the machine wants opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StreamRequest {
    /// To be given back with the response.
    pub id: OperationId,
    /// To whom.
    pub to: Peer,
    /// In which format.
    pub dialect: Dialect,
    /// What for.
    pub kind: StreamRequestKind,
    /// The time for everything from dialling to the end of the answer.
    pub timeout: Duration,
}

/// What a stream is wanted for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StreamRequestKind {
    /// Send the own state, read the peer's.
    PushPull {
        /// Whether this is the first contact with that cluster.
        join: bool,
    },
    /// Send a ping, read its ack.
    Ping {
        /// The sequence number for both.
        sequence: u32,
        /// The time left for it.
        timeout: Duration,
    },
    /// Send a step of comparing members, as a request on [`SYNC_TOPIC`]; read the response.
    Sync {
        /// The step.
        body: Bytes,
    },
    /// Exchange the applications' states, as far as they have changed; nothing of the machine's is part
    /// of it. Always in the native format.
    UserState,
}

/// The topic of requests that compare members; see [`Membership::serve_sync`].
pub const SYNC_TOPIC: u16 = 3;

/// What came of a [`StreamRequest`].
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum StreamResponse {
    /// The peer's state.
    PushPull(RemoteState),
    /// The ack of a ping.
    Ack {
        /// Its sequence number.
        sequence: u32,
    },
    /// The answer to a step of comparing members.
    Sync(SyncBody),
    /// The applications' states have been exchanged, or there was nothing to exchange.
    UserState,
    /// The peer had no place for a push/pull: when and where to ask again.
    Busy(Busy),
    /// Nothing.
    Failed(ExchangeError),
}

/// A stream that was asked for.
#[derive(Debug)]
pub(super) struct Exchange {
    peer: Peer,
    purpose: Purpose,
    /// Of a join that was told to come back before.
    retry: Option<Retry>,
}

/// Why a stream was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Join,
    Periodic,
    Reconnect,
    ProbePing,
    Sync,
    UserState,
}

/// A state on its way into the table.
#[derive(Debug)]
pub(super) struct Merge {
    peer: Peer,
    /// Whose state it is, in its own words.
    from: Option<NodeId>,
    /// Whether the peer's name is what the transport has verified, not what this node asked for.
    verified: bool,
    join: Option<OperationId>,
    /// Whether it is a cluster's first exchange with another.
    joining: bool,
    records: VecDeque<RemoteRecord>,
    user_state: Bytes,
    total: usize,
    _held: Held,
}

impl Membership {
    /// All that this node knows, to be sent in a push/pull; only its own record when it has left.
    /// Cheap: the records are shared.
    pub fn local_state(&self) -> Vec<SnapshotRecord> {
        (self.members.iter())
            .filter(|record| !self.leaving || record.node.id == self.id)
            .map(|record| SnapshotRecord {
                node: Arc::clone(&record.node),
                incarnation: record.incarnation(),
                state: record.state(),
            })
            .collect()
    }

    pub(super) fn push_pull_tick(&mut self, now: Instant) {
        let interval =
            scale::push_pull_interval(self.config.push_pull_interval, self.members.len());
        self.push_pull_timer = Some(self.timers.arm(now + interval, Timer::PushPullTick));
        if self.leaving {
            return;
        }
        let own = &self.id;
        let chosen = self.members.random(1, &mut self.rng, |record| {
            record.state() == NodeState::Alive && record.node.id != *own
        });
        let Some(&position) = chosen.first() else {
            return;
        };
        let is_full_due = self.is_full_exchange_due(position);
        let node = &self.members.at(position).node;
        let peer = Peer::named(node.addr, node.id.clone());
        let (kind, purpose) = match is_full_due {
            true => (StreamRequestKind::PushPull { join: false }, Purpose::Periodic),
            false => (StreamRequestKind::UserState, Purpose::UserState),
        };
        self.start_exchange(peer, kind, purpose);
    }

    pub(super) fn start_exchange(
        &mut self,
        to: Peer,
        kind: StreamRequestKind,
        purpose: Purpose,
    ) -> OperationId {
        let id = self.next_operation();
        self.request_exchange(id, to, kind, purpose, None);
        id
    }

    pub(super) fn request_exchange(
        &mut self,
        id: OperationId,
        to: Peer,
        kind: StreamRequestKind,
        purpose: Purpose,
        retry: Option<Retry>,
    ) {
        let timeout = match kind {
            StreamRequestKind::PushPull { .. } => {
                self.stats.push_pulls += 1;
                self.config.stream_timeout
            }
            StreamRequestKind::Sync { .. } => self.config.stream_timeout,
            StreamRequestKind::UserState => {
                self.stats.user_state_exchanges += 1;
                self.config.stream_timeout
            }
            StreamRequestKind::Ping { timeout, .. } => timeout,
        };
        self.exchanges.insert(id, Exchange { peer: to.clone(), purpose, retry });
        let dialect = match kind {
            // Who shows a digest reads it, whatever else is known.
            StreamRequestKind::Sync { .. } | StreamRequestKind::UserState => Dialect::Native,
            _ => self.dialect_for(&to),
        };
        self.requests.push_back(StreamRequest { id, to, dialect, kind, timeout });
    }

    /// Takes the exchange of a join back. Whether there was one.
    pub(super) fn forget_join(&mut self, id: OperationId) -> Option<Peer> {
        let is_join = |exchange: &Exchange| exchange.purpose == Purpose::Join;
        self.exchanges.get(&id).filter(|exchange| is_join(exchange))?;
        self.requests.retain(|request| request.id != id);
        self.exchanges.remove(&id).map(|exchange| exchange.peer)
    }

    pub(super) fn is_exchanging(&self, purpose: Purpose) -> bool {
        self.exchanges.values().any(|exchange| exchange.purpose == purpose)
    }

    /// Takes what came of a [`StreamRequest`].
    pub fn handle_stream_response(
        &mut self,
        id: OperationId,
        response: StreamResponse,
        now: Instant,
    ) {
        let Some(Exchange { peer, purpose, retry }) = self.exchanges.remove(&id) else {
            return;
        };
        let join = (purpose == Purpose::Join).then_some(id);
        let error = match &response {
            StreamResponse::Failed(error) => Some(error),
            _ => None,
        };
        if error.is_some() {
            self.forget_dialect(&peer);
        }
        self.note_stream(&peer, error, now);
        match response {
            response if purpose == Purpose::Sync => {
                let answer = match response {
                    StreamResponse::Sync(body) => Ok(body),
                    StreamResponse::Failed(error) => Err(error),
                    _ => Err(of_another_kind(peer)),
                };
                self.sync_answered(id, answer, now);
            }
            StreamResponse::UserState if purpose == Purpose::UserState => {}
            StreamResponse::Failed(error) if purpose == Purpose::UserState => {
                self.user_state_failed(error);
            }
            _ if purpose == Purpose::UserState => self.user_state_failed(of_another_kind(peer)),
            StreamResponse::PushPull(state) if purpose != Purpose::ProbePing => {
                if purpose == Purpose::Reconnect {
                    self.stats.reconnects_succeeded += 1;
                }
                match self.check_merge(&peer, &state, join.is_some()) {
                    Ok(()) => self.merge(peer, false, state, join, join.is_some(), now),
                    Err(error) => self.attempt_failed(peer, join, retry, error, now),
                }
            }
            StreamResponse::Ack { sequence } if purpose == Purpose::ProbePing => {
                self.probe_stream_done(id, Some(sequence));
            }
            StreamResponse::Failed(_) if purpose == Purpose::ProbePing => {
                self.probe_stream_done(id, None);
            }
            StreamResponse::Busy(busy) if purpose == Purpose::Join => {
                self.defer_join(id, peer, retry, busy, now);
            }
            StreamResponse::Busy(Busy { retry_after, .. }) => {
                let error = ExchangeError::Busy { peer: peer.clone(), attempts: 1, retry_after };
                self.exchange_failed(peer, join, error);
            }
            StreamResponse::Failed(error) => self.attempt_failed(peer, join, retry, error, now),
            StreamResponse::Ack { .. }
            | StreamResponse::PushPull(_)
            | StreamResponse::Sync(_)
            | StreamResponse::UserState => {
                let error = of_another_kind(peer.clone());
                self.attempt_failed(peer, join, retry, error, now);
            }
        }
    }

    /// Nothing else hangs on it: the next turn tries again, with somebody.
    fn user_state_failed(&mut self, error: ExchangeError) {
        self.stats.user_state_exchanges_failed += 1;
        self.events.push_back(Event::ExchangeFailed(error));
    }

    pub(super) fn exchange_failed(
        &mut self,
        peer: Peer,
        join: Option<OperationId>,
        error: ExchangeError,
    ) {
        self.stats.push_pulls_failed += 1;
        self.events.push_back(match join {
            Some(id) => Event::JoinDone { id, peer, result: Err(error) },
            None => Event::ExchangeFailed(error),
        });
    }

    /// A peer has sent its state and wants ours: gives what to answer. Must be followed by
    /// [`finish_push_pull`](Self::finish_push_pull), whatever becomes of the answer.
    ///
    /// # Errors
    /// If the peer's state is not to be merged, or it wants to join through this node, which has left: the
    /// peer is to be told so. [`ExchangeError::Busy`] if too many are being served: the question may be
    /// tried again later; when it is given up, [`tell_busy`](Self::tell_busy) has the answer. Nothing else
    /// has to follow.
    pub fn serve_push_pull(
        &mut self,
        peer: &Peer,
        state: &RemoteState,
    ) -> Result<Vec<SnapshotRecord>, ExchangeError> {
        // One whose records wait to be merged is not done with.
        let busy = self.serving + self.merges.len();
        if busy >= self.config.max_push_pulls {
            let (peer, retry_after) = (peer.clone(), self.config.stream_timeout);
            return Err(ExchangeError::Busy { peer, attempts: 1, retry_after });
        }
        let checked = match self.leaving && state.join {
            true => {
                let message = format!("{} has left the cluster", self.id);
                Err(ExchangeError::Refused { peer: peer.clone(), message })
            }
            false => self.check_merge(peer, state, state.join),
        };
        if let Err(error) = checked {
            self.exchange_failed(peer.clone(), None, error.clone());
            return Err(error);
        }
        self.serving += 1;
        Ok(self.local_state())
    }

    /// The answer to a push/pull has been sent (then `state` is what the peer had sent, and what
    /// [`serve_push_pull`](Self::serve_push_pull) admitted) or not.
    pub fn finish_push_pull(&mut self, peer: Peer, state: Option<RemoteState>, now: Instant) {
        self.serving = self.serving.saturating_sub(1);
        match state {
            Some(state) => {
                self.stats.push_pulls_served += 1;
                let join = state.join;
                let verified = peer.name.is_some();
                if let Some(name) = peer.name.as_ref().or(state.from.as_ref()) {
                    self.note_inbound_stream(name, now);
                }
                self.merge(peer, verified, state, None, join, now);
            }
            None => self.stats.push_pulls_failed += 1,
        }
    }

    pub(super) fn merge(
        &mut self,
        peer: Peer,
        verified: bool,
        state: RemoteState,
        join: Option<OperationId>,
        joining: bool,
        now: Instant,
    ) {
        for _ in 0..state.skipped {
            self.drop(DropReason::Malformed);
        }
        for reason in &state.refused {
            self.drop(*reason);
        }
        if join.is_some() && self.returning {
            self.come_back(&state, now);
        }
        let total = state.nodes.len();
        let (records, user_state, _held) = (state.nodes.into(), state.user_state, state.held);
        let from = state.from.or_else(|| peer.name.clone());
        let merge =
            Merge { peer, from, verified, join, joining, records, user_state, total, _held };
        self.merges.push_back(merge);
        self.merge_slice(now);
    }

    /// Whether that state may be merged at all.
    fn check_merge(
        &mut self,
        peer: &Peer,
        state: &RemoteState,
        joining: bool,
    ) -> Result<(), ExchangeError> {
        // A recycled address must not weld two clusters together.
        let answered = state.from.as_ref().or_else(|| name_at(peer, &state.nodes));
        if let (Some(asked), Some(answered)) = (&peer.name, answered) {
            if asked != answered {
                self.drop(DropReason::WrongNode);
                let message = format!("the name is {answered}, and {asked} was expected");
                return Err(ExchangeError::BadAnswer { peer: peer.clone(), message });
            }
        }
        if let Err(message) = self.check_compatible(&state.nodes) {
            self.drop(DropReason::Incompatible);
            return Err(ExchangeError::Incompatible { peer: peer.clone(), message });
        }
        if joining {
            if let Err(refusal) = self.app.admit_merge(peer, &state.nodes) {
                self.drop(DropReason::NotAdmitted);
                let message = refusal.to_string();
                return Err(ExchangeError::MergeRefused { peer: peer.clone(), message });
            }
        }
        Ok(())
    }

    /// Applies a part of the oldest merge; the rest waits for the next call.
    pub(super) fn merge_slice(&mut self, now: Instant) {
        self.merge_due = None;
        let Some(mut merge) = self.merges.pop_front() else {
            return;
        };
        for _ in 0..SLICE_RECORDS {
            let Some(record) = merge.records.pop_front() else {
                break;
            };
            let node = &record.node;
            if merge.verified && self.poses_as(&merge.peer, node.id.as_str(), node.addr) {
                self.drop(DropReason::IdentityMismatch);
                continue;
            }
            if merge.join.is_some() {
                self.catch_up(&record);
            }
            self.merge_record(&record, now);
        }
        if merge.records.is_empty() {
            self.merged(merge);
        } else {
            // In turn: a small one does not wait for a large one.
            self.merges.push_back(merge);
        }
        self.watch_view(now);
        match self.merges.is_empty() {
            true => self.ask_for_view(),
            false => self.merge_due = Some(now),
        }
    }

    /// The application hears of the peer's state when it knows the peer's members.
    fn merged(&mut self, merge: Merge) {
        if !merge.user_state.is_empty() {
            let (from, state, join) = (merge.from, merge.user_state, merge.joining);
            self.events.push_back(Event::UserState { from, state, join });
        }
        if let Some(id) = merge.join {
            let (peer, result) = (merge.peer, Ok(merge.total));
            self.events.push_back(Event::JoinDone { id, peer, result });
        }
    }

    /// A peer's belief counts as news, but its verdict of death only as a suspicion: the member gets
    /// its chance to refute. So does one of whose earlier life, at another address, the peer has heard
    /// the farewell (Go believes that).
    pub(super) fn merge_record(&mut self, record: &RemoteRecord, now: Instant) {
        let (node, incarnation) = (record.node.id.as_str(), record.incarnation);
        match record.state {
            NodeState::Alive => self.alive(&alive_of(&record.node, incarnation), now),
            NodeState::Left if !self.lives_elsewhere(&record.node) => {
                self.dead(&Dead { incarnation, node, from: node }, now);
            }
            NodeState::Left | NodeState::Dead | NodeState::Suspect => {
                let own = self.id.clone();
                self.suspect(&Suspect { incarnation, node, from: own.as_str() }, None, now);
            }
        }
    }

    /// Whether the name is in use at another address than the record's.
    fn lives_elsewhere(&self, node: &Node) -> bool {
        (self.members.get(node.id.as_str()))
            .is_some_and(|known| known.state().is_live() && known.node.addr != canonical(node.addr))
    }

    /// Every live node's current version must lie in the range that all live nodes of both sides
    /// understand (Go `verifyProtocol`, which judges the dead as well, and those that announce no
    /// versions: one such record then makes every exchange fail).
    fn check_compatible(&self, remote: &[RemoteRecord]) -> Result<(), String> {
        // Who announced no versions is stored with zeros.
        let announced = |node: &Node| node.versions.is_complete() && node.versions.protocol().1 > 0;
        let remote = (remote.iter())
            .filter(|record| record.state == NodeState::Alive)
            .map(|record| &record.node);
        let local = (self.members.iter())
            .filter(|record| record.state() == NodeState::Alive)
            .map(|record| &*record.node);
        let live = remote.chain(local).filter(|node| announced(node));
        let (protocol, application) = common_ranges(live.clone().map(|node| node.versions));
        for node in live {
            let ((_, _, protocol_now), (_, _, application_now)) =
                (node.versions.protocol(), node.versions.application());
            let checks = [
                ("protocol", protocol_now, protocol),
                ("application", application_now, application),
            ];
            for (what, version, (low, high)) in checks {
                if !(low..=high).contains(&version) {
                    return Err(format!(
                        "node {} speaks {what} version {version}, all others together {low} to {high}",
                        node.id
                    ));
                }
            }
        }
        Ok(())
    }
}

fn of_another_kind(peer: Peer) -> ExchangeError {
    ExchangeError::BadAnswer { peer, message: "an answer of another kind".to_owned() }
}

/// Who a peer is that does not say so itself, as in Go's format: the one that is alive at its address, in its
/// own words. Nobody, if its address is not the one that it announces.
fn name_at<'s>(peer: &Peer, nodes: &'s [RemoteRecord]) -> Option<&'s NodeId> {
    let mut there = (nodes.iter())
        .filter(|record| record.state == NodeState::Alive && record.node.addr == peer.addr)
        .map(|record| &record.node.id);
    let first = there.next()?;
    // An earlier tenant of the address may not have been missed yet.
    let asked = there.find(|name| peer.name.as_ref() == Some(*name));
    Some(asked.unwrap_or(first))
}

/// The range of protocol versions, and of application versions, that all of them understand.
fn common_ranges(all: impl Iterator<Item = Versions>) -> ((u8, u8), (u8, u8)) {
    all.fold(((0, 255), (0, 255)), |(protocol, application), versions| {
        let narrow =
            |(low, high): (u8, u8), (min, max, _): (u8, u8, u8)| (low.max(min), high.min(max));
        (narrow(protocol, versions.protocol()), narrow(application, versions.application()))
    })
}
