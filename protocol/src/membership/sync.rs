//! Delta sync: two nodes whose views differ exchange what differs.
//!
//! With `A` and `B` the live members, as (id, incarnation), that two nodes know, `D = A △ B`, `n` their
//! number and `b = 2^⌈log₂ n/4⌉ ≤ 2048` buckets, one sync costs both together about
//!
//! ```text
//! 2 b  +  2 |members of buckets that D touches|  +  records of D   bytes
//! ```
//!
//! so it follows the difference, whatever the size of the cluster: the first term is 4 KiB at most.
//! Digests of the buckets are compared, members of differing buckets are listed by marks, then records
//! go where they are missing or older. By packets as long as each step fits one, else over streams.
//! Afterwards `A = B` but for what either refuses: a record that the other holds for dead is answered
//! with that, which then is a suspicion, as in a push/pull.
//!
//! When: a node that hears another [view digest](super::digest) than its own, and for as long as gossip
//! should need no equal one, syncs with who showed it last. The time between two attempts doubles, up to
//! sixteen times that, until an equal digest is heard or much was found; and it is jittered. So a change
//! that reaches everybody by gossip starts no sync, a mass change no storm, and two nodes that never
//! agree cost a sync now and then, a counter and a warning. What a node serves is bounded by
//! [`MAX_SERVED_PER_SECOND`].
//!
//! Forged digests make a node compare its members once more than needed, or, if they equal its own,
//! later; lying lists make it send what the liar could have asked for in a push/pull. All that is learned
//! passes the rules of `transition`, as news from that member would.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;

use super::buckets::{Difference, order_for};
use super::digest::ViewDigest;
use super::gossip::Outgoing;
use super::per_second::PerSecond;
use super::push_pull::Purpose;
use super::relay::Answers;
use super::timer::{Timer, TimerKey};
use super::{Event, Membership, OperationId, StreamRequestKind, scale};
use crate::config::Config;
use crate::error::ExchangeError;
use crate::node::{NodeId, NodeState, Peer};
use crate::stats::DropReason;
use crate::wire::stream::{RemoteRecord, RemoteState};
use crate::wire::sync::{self, Listing, Partitioning, Records, SyncStep};
use crate::wire::{Dialect, WireFormat};

/// Steps of syncs that a node answers in a second.
const MAX_SERVED_PER_SECOND: u32 = 64;
/// How many times the patience the time between two attempts may become.
const MOST_PATIENCE: u32 = 16;
/// A sync that found a difference of so large a part of the members is followed by another soon.
const MUCH: usize = 64;
/// Members that are asked for their view at a time.
const ASKED: usize = 2;
/// So often in a row, at most.
const MOST_QUICK: u32 = 8;
/// So many records may be wanted by packet: they come back in one.
const MAX_WANTED_BY_PACKET: usize = 16;
/// Syncs without any effect after which the disagreement is reported, and reported again.
const FRUITLESS: [u32; 2] = [8, 64];
/// Full exchanges are this many times rarer with members that show their digests.
const FULL_EXCHANGE_TURNS: u32 = 10;

/// Whether this node agrees with others, and what it does about it.
#[derive(Debug)]
pub(super) struct DeltaSync {
    /// Since then the own view has changed, or another one was shown, and no equal one.
    differs_since: Option<Instant>,
    /// The own view as it was seen last.
    seen: ViewDigest,
    /// Some were asked for theirs.
    asked: bool,
    /// Who showed another one last.
    partner: Option<NodeId>,
    timer: Option<TimerKey>,
    /// Between the last attempt and the next.
    pause: Duration,
    /// How many more attempts may follow at once on one that has found much.
    quick_left: u32,
    running: Option<Running>,
    /// The own view at the last attempt.
    view: ViewDigest,
    /// The last attempt was answered.
    answered: bool,
    /// Attempts in a row that were answered and changed nothing here.
    fruitless: u32,
    /// Who is asked for its view when all that came is merged.
    ask: Option<Peer>,
    served: PerSecond,
    /// Periodic exchanges of states so far.
    turns: u32,
}

/// A comparison that this node began.
#[derive(Debug)]
struct Running {
    peer: Peer,
    partitioning: Partitioning,
    by_packet: bool,
    /// The stream on which a step is asked.
    stream: Option<OperationId>,
    /// Much of the members was found to differ.
    found_much: bool,
}

impl DeltaSync {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            differs_since: None,
            seen: ViewDigest::default(),
            asked: false,
            partner: None,
            timer: None,
            pause: Duration::ZERO,
            quick_left: MOST_QUICK,
            running: None,
            view: ViewDigest::default(),
            answered: false,
            fruitless: 0,
            ask: None,
            served: PerSecond::new(MAX_SERVED_PER_SECOND, now),
            turns: 0,
        }
    }

    pub(super) fn differs_since(&self) -> Option<Instant> {
        self.differs_since
    }

    /// This view needs nobody's confirmation.
    pub(super) fn testing_trust(&mut self, view: ViewDigest) {
        self.seen = view;
    }

    /// Whether this node compares members with that one by packets, with that salt.
    fn is_running(&self, salt: u64, with: &NodeId) -> bool {
        (self.running.as_ref()).is_some_and(|running| {
            running.by_packet
                && running.partitioning.salt == salt
                && running.peer.name.as_ref() == Some(with)
        })
    }
}

/// How long gossip may take before a difference is one: a tick and a half where news is passed on at once,
/// else the generations that it needs to reach all, and two.
fn patience(config: &Config, n: usize) -> Duration {
    if config.gossip_interval.is_zero() || config.gossip_nodes == 0 {
        return Duration::from_secs(1);
    }
    match config.eager_gossip_spacing.is_zero() {
        true => {
            config.gossip_interval.saturating_mul(scale::generations(config.gossip_nodes, n) + 2)
        }
        false => config.gossip_interval.max(config.eager_gossip_spacing).saturating_mul(3) / 2,
    }
}

impl Membership {
    /// Whether this node compares its view with others. Go's format has no words for it.
    pub(super) fn syncs(&self) -> bool {
        let speaks = self.config.wire_format.reads(Dialect::Native);
        self.config.delta_sync && speaks && !self.leaving
    }

    // ---- when ---------------------------------------------------------------------------------

    /// A member has shown the digest of its view.
    pub(super) fn hear_view(&mut self, from: &NodeId, digest: u64, now: Instant) {
        if !self.syncs() {
            return;
        }
        let Some(record) = self.members.get_mut(from.as_str()) else { return };
        if !record.state().is_live() {
            return;
        }
        record.shows_view = Some(true);
        let equal = digest == self.members.view().to_u64();
        self.note_confirmation(from, equal, now);
        if equal {
            self.stats.views_equal += 1;
            return self.agree();
        }
        self.stats.views_different += 1;
        self.sync.partner = Some(from.clone());
        self.doubt_view(now);
        if std::mem::take(&mut self.sync.asked) && self.sync.running.is_none() {
            self.arm_sync_at(now);
        }
    }

    /// A member has spoken to this one without showing a digest.
    pub(super) fn miss_view(&mut self, from: &NodeId) {
        if let Some(record) = self.members.get_mut(from.as_str()) {
            record.shows_view = record.shows_view.or(Some(false));
        }
    }

    /// Whether the own view has changed: then somebody is to confirm it.
    pub(super) fn watch_view(&mut self, now: Instant) {
        if self.sync.seen != self.members.view() {
            self.sync.seen = self.members.view();
            self.doubt_view(now);
        }
    }

    fn doubt_view(&mut self, now: Instant) {
        if self.sync.differs_since.is_none() && self.syncs() {
            self.sync.differs_since = Some(now);
            self.sync.pause = patience(&self.config, self.members.len());
            if self.sync.running.is_none() {
                self.arm_sync(self.sync.pause, now);
            }
        }
    }

    fn agree(&mut self) {
        self.sync.differs_since = None;
        self.sync.partner = None;
        self.sync.asked = false;
        self.sync.fruitless = 0;
        self.sync.answered = false;
        self.sync.quick_left = MOST_QUICK;
        if self.sync.running.is_none() {
            self.sync.timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        }
    }

    /// The next attempt is due after this, give or take.
    fn arm_sync(&mut self, pause: Duration, now: Instant) {
        let jitter = 1.0 + 0.5 * self.rng.random::<f64>();
        self.arm_sync_at(now + pause.mul_f64(jitter));
    }

    fn arm_sync_at(&mut self, at: Instant) {
        self.sync.timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        self.sync.timer = Some(self.timers.arm(at, Timer::SyncDue));
    }

    /// No equal digest has been heard for long enough, or no answer has come.
    pub(super) fn sync_due(&mut self, now: Instant) {
        self.sync.timer = None;
        if let Some(Running { peer, by_packet, .. }) = self.sync.running.take() {
            self.stats.syncs_failed += 1;
            if by_packet && self.syncs() && self.is_live(&peer) {
                // Packets may be lost where streams get through.
                return self.begin_sync(peer, false, now);
            }
            return self.sync_ended(false, now);
        }
        if !self.syncs() || self.sync.differs_since.is_none() {
            self.sync.differs_since = None;
            return;
        }
        let Some(peer) = self.sync_partner() else {
            return self.ask_some(now);
        };
        self.report_disagreement(&peer);
        self.begin_sync(peer, true, now);
    }

    /// An attempt is over: another one follows if there is still no agreement.
    fn sync_ended(&mut self, found_much: bool, now: Instant) {
        self.sync.running = None;
        let patience = patience(&self.config, self.members.len());
        if found_much && self.sync.quick_left > 0 {
            self.sync.quick_left -= 1;
            return self.arm_sync(patience / 4, now);
        }
        self.arm_sync(self.sync.pause, now);
        let most = patience.saturating_mul(MOST_PATIENCE);
        self.sync.pause = self.sync.pause.saturating_mul(2).min(most);
    }

    fn is_live(&self, peer: &Peer) -> bool {
        let record = peer.name.as_ref().and_then(|name| self.members.get(name.as_str()));
        record.is_some_and(|record| record.state().is_live())
    }

    /// Who showed another digest last, if it is there.
    fn sync_partner(&mut self) -> Option<Peer> {
        let partner = self.sync.partner.take()?;
        let record = self.members.get(partner.as_str())?;
        let peer = Peer::named(record.node.addr, record.node.id.clone());
        record.state().is_live().then_some(peer)
    }

    /// Nobody has shown its view since this node's has changed: asks some who may.
    fn ask_some(&mut self, now: Instant) {
        let (own, mixed) = (&self.id, self.config.wire_format == WireFormat::Mixed);
        let chosen = self.members.next_in_ring(ASKED, |record| {
            record.state() == NodeState::Alive
                && record.node.id != *own
                && record.shows_view != Some(false)
                && (record.native || !mixed)
        });
        if chosen.is_empty() {
            // Should one come, its digest begins this anew.
            self.sync.differs_since = None;
            return;
        }
        for position in chosen {
            let node = &self.members.at(position).node;
            let to = Peer::named(node.addr, node.id.clone());
            self.send_later(Outgoing::View { to, ask: true });
        }
        self.sync.asked = true;
        self.sync_ended(false, now);
    }

    fn report_disagreement(&mut self, peer: &Peer) {
        let changed = self.sync.view != self.members.view();
        if !std::mem::take(&mut self.sync.answered) || changed {
            self.sync.fruitless = if changed { 0 } else { self.sync.fruitless };
            return;
        }
        self.sync.fruitless += 1;
        let [first, again] = FRUITLESS;
        let since = self.sync.differs_since;
        let due = self.sync.fruitless == first || self.sync.fruitless % again == 0;
        if let (true, Some(since), Some(member)) = (due, since, &peer.name) {
            self.stats.disagreements += 1;
            self.events.push_back(Event::Disagreement { member: member.clone(), since });
        }
    }

    /// Whether a periodic exchange with this member is to be one of whole states.
    pub(super) fn is_full_exchange_due(&mut self, position: usize) -> bool {
        self.sync.turns = self.sync.turns.wrapping_add(1);
        let record = self.members.at(position);
        let peer = Peer::named(record.node.addr, record.node.id.clone());
        !self.config.delta_sync
            || record.shows_view == Some(false)
            || self.dialect_for(&peer) == Dialect::Hashicorp
            || self.sync.turns % FULL_EXCHANGE_TURNS == 0
    }

    // ---- the side that asks -------------------------------------------------------------------

    pub(super) fn begin_sync(&mut self, peer: Peer, by_packet: bool, now: Instant) {
        let order = order_for(self.members.live());
        let partitioning = Partitioning { salt: self.rng.random(), order };
        let mut body = Vec::new();
        sync::write_digests(partitioning, &self.bucket_digests(partitioning), &mut body);
        self.stats.syncs += 1;
        self.sync.view = self.members.view();
        let (stream, found_much) = (None, false);
        let running = Running { peer, partitioning, by_packet, stream, found_much };
        self.ask_step(running, body, now);
    }

    /// Asks by packet if that is wanted and fits, else over a stream.
    fn ask_step(&mut self, mut running: Running, body: Vec<u8>, now: Instant) {
        running.by_packet &= body.len() <= self.largest_sync_body_bytes();
        let (to, body) = (running.peer.clone(), Bytes::from(body));
        let wait = match running.by_packet {
            true => {
                self.send_later(Outgoing::Sync { to, body });
                patience(&self.config, self.members.len())
            }
            false => {
                let kind = StreamRequestKind::Sync { body };
                running.stream = Some(self.start_exchange(to, kind, Purpose::Sync));
                // The stream's owner tells of its end; this is for one who does not.
                self.config.stream_timeout * 2
            }
        };
        self.sync.running = Some(running);
        self.arm_sync_at(now + wait);
    }

    /// What came of a stream on which a step was asked.
    pub(super) fn sync_answered(
        &mut self,
        id: OperationId,
        answer: Result<Bytes, ExchangeError>,
        now: Instant,
    ) {
        let running = self.sync.running.as_ref();
        let Some(running) = running.filter(|running| running.stream == Some(id)) else {
            // It was given up.
            return;
        };
        let partitioning = running.partitioning;
        let body = match answer {
            Ok(body) => body,
            Err(error) => {
                self.stats.syncs_failed += 1;
                self.events.push_back(Event::ExchangeFailed(error));
                return self.sync_ended(false, now);
            }
        };
        match sync::read(&body, self.config.max_meta_bytes) {
            Ok(SyncStep::Listing(listing)) if listing.partitioning == partitioning => {
                self.compare(&listing, now);
            }
            Ok(SyncStep::Records(records)) if records.partitioning == partitioning => {
                self.take_answer_records(records, now);
            }
            Ok(_) => self.sync_failed(DropReason::UnexpectedSync, now),
            Err(error) => self.sync_failed(error.reason(), now),
        }
    }

    fn sync_failed(&mut self, reason: DropReason, now: Instant) {
        self.drop(reason);
        self.stats.syncs_failed += 1;
        self.sync_ended(false, now);
    }

    /// The peer has listed its members in the differing buckets.
    fn compare(&mut self, listing: &Listing, now: Instant) {
        let Some(mut running) = self.sync.running.take() else { return };
        let Difference { records, wanted, wanted_count } = self.difference(listing);
        let found = records.len() + wanted_count;
        self.sync.answered = true;
        if found == 0 {
            return self.sync_ended(false, now);
        }
        self.stats.sync_records_sent += records.len() as u64;
        let mut body = Vec::new();
        sync::write_records(listing.partitioning, &wanted, &records, &mut body);
        running.found_much = found * MUCH >= self.members.live();
        running.by_packet &= wanted_count <= MAX_WANTED_BY_PACKET;
        self.ask_step(running, body, now);
    }

    /// The peer has sent what was wanted, and what it holds for dead of what it was sent.
    fn take_answer_records(&mut self, records: Records, now: Instant) {
        let Some(Running { peer, by_packet, found_much, .. }) = self.sync.running.take() else {
            return;
        };
        let Records { partitioning, records, skipped, .. } = records;
        let contradictions = self.contradictions(&records);
        if !contradictions.is_empty() {
            let mut body = Vec::new();
            let most = self.largest_sync_body_bytes();
            self.write_fitting(partitioning, &contradictions, most, &mut body);
            self.send_later(Outgoing::Sync { to: peer.clone(), body: body.into() });
        }
        if !by_packet {
            self.sync.ask = Some(peer.clone());
        }
        self.sync_ended(found_much, now);
        self.merge_synced(peer, false, records, skipped, now);
    }

    // ---- the side that answers ----------------------------------------------------------------

    /// A step came in a packet, from this member or a stranger.
    pub(super) fn handle_sync(
        &mut self,
        from: &Peer,
        speaker: Option<NodeId>,
        body: &[u8],
        answers: &mut Answers,
        now: Instant,
    ) {
        let Some(name) = speaker.filter(|_| self.syncs()) else {
            return self.drop(DropReason::UnexpectedSync);
        };
        let step = match sync::read(body, self.config.max_meta_bytes) {
            Ok(step) => step,
            Err(error) => return self.drop(error.reason()),
        };
        let peer = Peer::named(from.addr, name.clone());
        match step {
            SyncStep::Listing(listing)
                if self.sync.is_running(listing.partitioning.salt, &name) =>
            {
                self.compare(&listing, now);
            }
            SyncStep::TooLarge { salt } if self.sync.is_running(salt, &name) => {
                self.begin_sync(peer, false, now);
            }
            SyncStep::Records(records)
                if self.sync.is_running(records.partitioning.salt, &name) =>
            {
                self.take_answer_records(records, now);
            }
            SyncStep::Listing(_) | SyncStep::TooLarge { .. } => {
                self.drop(DropReason::UnexpectedSync);
            }
            step => {
                if !self.take_answer(answers) {
                    return;
                }
                if !self.sync.served.allows(now) {
                    return self.drop(DropReason::TooManySyncs);
                }
                let most = self.largest_sync_body_bytes();
                let verified = from.name.is_some();
                if let Some(body) = self.serve_step(&peer, verified, step, most, now) {
                    self.send_later(Outgoing::Sync { to: peer, body: body.into() });
                }
            }
        }
    }

    /// A step came over a stream: gives the bytes of the answer.
    ///
    /// # Errors
    /// If this node has left or does not sync, too many steps are being answered, or it is not one that
    /// can be asked.
    pub fn serve_sync(
        &mut self,
        peer: &Peer,
        body: &[u8],
        now: Instant,
    ) -> Result<Bytes, ExchangeError> {
        let refused = |message: &str| {
            Err(ExchangeError::Refused { peer: peer.clone(), message: message.to_owned() })
        };
        if !self.syncs() {
            return refused("this node compares no members");
        }
        if !self.sync.served.allows(now) {
            self.drop(DropReason::TooManySyncs);
            return refused("too many are comparing their members with this node");
        }
        let step = match sync::read(body, self.config.max_meta_bytes) {
            Ok(step @ (SyncStep::Digests(_) | SyncStep::Records(_))) => step,
            Ok(_) => {
                self.drop(DropReason::UnexpectedSync);
                return refused("this step is no question");
            }
            Err(error) => {
                self.drop(error.reason());
                let message = error.to_string();
                return Err(ExchangeError::BadAnswer { peer: peer.clone(), message });
            }
        };
        let verified = peer.name.is_some();
        let answer = self.serve_step(peer, verified, step, usize::MAX, now);
        Ok(answer.unwrap_or_default().into())
    }

    /// Answers in at most so many bytes; nothing if there is nothing to say.
    fn serve_step(
        &mut self,
        peer: &Peer,
        verified: bool,
        step: SyncStep,
        most: usize,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.stats.sync_steps_served += 1;
        let mut body = Vec::new();
        match step {
            SyncStep::Digests(digests) => {
                let salt = digests.partitioning.salt;
                let buckets = self.differing(&digests);
                sync::write_listing(digests.partitioning, &buckets, &mut body);
                if body.len() > most {
                    body.clear();
                    sync::write_too_large(salt, &mut body);
                }
            }
            SyncStep::Records(Records { partitioning, wanted, records, skipped }) => {
                let mut answer = self.wanted_records(partitioning, &wanted);
                answer.extend(self.contradictions(&records));
                let asked = most == usize::MAX || !wanted.is_empty() || !answer.is_empty();
                self.stats.sync_records_sent += answer.len() as u64;
                self.write_fitting(partitioning, &answer, most, &mut body);
                self.merge_synced(peer.clone(), verified, records, skipped, now);
                if !asked {
                    return None;
                }
            }
            SyncStep::Listing(_) | SyncStep::TooLarge { .. } => return None,
        }
        Some(body)
    }

    fn merge_synced(
        &mut self,
        peer: Peer,
        verified: bool,
        nodes: Vec<RemoteRecord>,
        skipped: usize,
        now: Instant,
    ) {
        self.stats.sync_records_received += nodes.len() as u64;
        if self.merges.len() >= self.config.max_push_pulls {
            return self.drop(DropReason::TooManyPushPulls);
        }
        let state = RemoteState { nodes, skipped, ..RemoteState::default() };
        self.merge(peer, verified, state, None, false, now);
    }

    /// All that came is merged: asks whether both agree now.
    pub(super) fn ask_for_view(&mut self) {
        if let Some(to) = self.sync.ask.take() {
            self.send_later(Outgoing::View { to, ask: true });
        }
    }

    fn largest_sync_body_bytes(&self) -> usize {
        // Kind and length of the step; kind, length, digest, flags and length of the name before it.
        const BESIDE: usize = 1 + 3 + 1 + 2 + 8 + 1 + 3;
        self.largest_part_bytes().saturating_sub(BESIDE + self.id.as_str().len())
    }
}
