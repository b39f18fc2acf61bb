//! Delta sync, how: the steps by which two nodes find what their live members differ in, and exchange it
//! ([`sync`](super::sync) says when).
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
//! Each step is taken once a sync, from the member that was asked, so a sync ends whatever it says. What a node
//! serves is bounded by [`steps_per_second`], and by what a push/pull may hold: at most
//! [`max_members`](crate::Config::max_members) records or places in one step, which come with their share of
//! the memory for streams.

use std::time::Instant;

use bytes::Bytes;
use rand::RngExt;

use super::buckets::{Difference, order_for};
use super::gossip::Outgoing;
use super::push_pull::Purpose;
use super::relay::Answers;
use super::sync::patience;
use super::{Event, Membership, OperationId, StreamRequestKind};
use crate::error::ExchangeError;
use crate::node::{NodeId, Peer};
use crate::stats::DropReason;
use crate::wire::stream::RemoteState;
use crate::wire::sync::{self, Listing, Partitioning, Records, SyncBody, SyncStep};

/// Steps of syncs that a node answers in a second, and that of strangers over streams.
const MAX_SERVED_PER_SECOND: (u32, u32) = (64, 16);
/// In clusters of up to so many members. A step costs a hash or two of each, so in larger ones they are fewer.
const FULL_RATE_MEMBERS: usize = 4096;
/// A sync that found a difference of so large a part of the members is followed by another soon.
const MUCH: usize = 64;
/// So many records may be wanted by packet: they come back in one.
const MAX_WANTED_BY_PACKET: usize = 16;

/// A comparison that this node began.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) peer: Peer,
    /// The digests of both views when it began.
    pub(super) views: (u64, u64),
    partitioning: Partitioning,
    /// What this node showed of its buckets.
    digests: Vec<u16>,
    by_packet: bool,
    /// The stream on which a step is asked.
    stream: Option<OperationId>,
    /// The peer has listed its members: it does so once.
    listed: bool,
    /// Much of the members was found to differ.
    pub(super) found_much: bool,
}

impl Running {
    /// Whether it goes by packets with that one, with that salt, and has come that far.
    fn expects(&self, salt: u64, with: &NodeId, listed: bool) -> bool {
        self.by_packet
            && self.listed == listed
            && self.partitioning.salt == salt
            && self.peer.name.as_ref() == Some(with)
    }
}

/// Of so many a second in small clusters, those in one of `n` members.
fn steps_per_second(most: u32, n: usize) -> u32 {
    let scaled = most as usize * FULL_RATE_MEMBERS / n.max(FULL_RATE_MEMBERS);
    u32::try_from(scaled).unwrap_or(most).max(2)
}

impl Membership {
    // ---- the side that asks -------------------------------------------------------------------

    pub(super) fn begin_sync(
        &mut self,
        peer: Peer,
        views: (u64, u64),
        by_packet: bool,
        now: Instant,
    ) {
        let order = order_for(self.members.live());
        let partitioning = Partitioning { salt: self.rng.random(), order };
        let mut body = Vec::new();
        let digests = self.bucket_digests(partitioning);
        sync::write_digests(partitioning, &digests, &mut body);
        self.stats.syncs += 1;
        let (stream, listed, found_much) = (None, false, false);
        let running =
            Running { peer, views, partitioning, digests, by_packet, stream, listed, found_much };
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

    /// No answer has come. Packets may be lost where streams get through.
    pub(super) fn unanswered(&mut self, running: Running, now: Instant) {
        self.stats.syncs_failed += 1;
        match running.by_packet && self.syncs() && self.is_live(&running.peer) {
            true => self.begin_sync(running.peer, running.views, false, now),
            false => self.sync_ended(running, false, now),
        }
    }

    /// What came of a stream on which a step was asked.
    pub(super) fn sync_answered(
        &mut self,
        id: OperationId,
        answer: Result<SyncBody, ExchangeError>,
        now: Instant,
    ) {
        let Some(running) = self.sync.running.take_if(|running| running.stream == Some(id)) else {
            // It was given up.
            return;
        };
        let SyncBody { step, held } = match answer {
            // Who has left speaks of itself alone.
            Ok(body) if self.syncs() => body,
            Ok(_) => return self.sync_ended(running, false, now),
            Err(error) => {
                self.stats.syncs_failed += 1;
                self.events.push_back(Event::ExchangeFailed(error));
                return self.sync_ended(running, false, now);
            }
        };
        let (partitioning, listed) = (running.partitioning, running.listed);
        match step {
            Ok(SyncStep::Listing(listing)) if !listed && listing.partitioning == partitioning => {
                self.compare(running, &listing, now);
            }
            Ok(SyncStep::Records(records)) if listed && records.partitioning == partitioning => {
                let state = RemoteState { held, ..RemoteState::default() };
                self.take_answer_records(running, records, state, now);
            }
            Ok(_) => self.sync_failed(running, DropReason::UnexpectedSync, now),
            Err(error) => self.sync_failed(running, error.reason(), now),
        }
    }

    fn sync_failed(&mut self, running: Running, reason: DropReason, now: Instant) {
        self.drop(reason);
        self.stats.syncs_failed += 1;
        self.sync_ended(running, false, now);
    }

    /// The peer has listed its members in the differing buckets.
    fn compare(&mut self, mut running: Running, listing: &Listing, now: Instant) {
        let Difference { records, wanted, wanted_count } =
            self.difference(listing, &running.digests);
        let found = records.len() + wanted_count;
        if found == 0 {
            return self.sync_ended(running, true, now);
        }
        self.stats.sync_records_sent += records.len() as u64;
        let mut body = Vec::new();
        sync::write_records(listing.partitioning, &wanted, &records, &mut body);
        running.listed = true;
        running.found_much = found * MUCH >= self.members.live();
        let fits = body.len() <= self.largest_sync_body_bytes();
        if running.by_packet && fits && wanted_count == 0 {
            // Nothing is to come back. Should it be lost, another digest shows it.
            let to = running.peer.clone();
            self.send_later(Outgoing::Sync { to, body: body.into() });
            return self.sync_ended(running, true, now);
        }
        running.by_packet &= wanted_count <= MAX_WANTED_BY_PACKET;
        self.ask_step(running, body, now);
    }

    /// The peer has sent what was wanted, and what it knows better of what it was sent.
    fn take_answer_records(
        &mut self,
        running: Running,
        records: Records,
        state: RemoteState,
        now: Instant,
    ) {
        let peer = running.peer.clone();
        let contradictions = self.contradictions(&records.records);
        if !contradictions.is_empty() {
            let mut body = Vec::new();
            let most = self.largest_sync_body_bytes();
            self.write_fitting(records.partitioning, &contradictions, most, &mut body);
            self.send_later(Outgoing::Sync { to: peer.clone(), body: body.into() });
        }
        if !running.by_packet {
            self.sync.ask = Some(peer.clone());
        }
        self.sync_ended(running, true, now);
        self.merge_synced(peer, false, records, state, now);
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
        let step = match sync::read(body, &self.config.sync_limits()) {
            Ok(step) => step,
            Err(error) => return self.drop(error.reason()),
        };
        let expected = |salt: u64, listed: bool| {
            move |running: &mut Running| running.expects(salt, &name, listed)
        };
        let running = match &step {
            SyncStep::Listing(listing) => {
                self.sync.running.take_if(expected(listing.partitioning.salt, false))
            }
            SyncStep::TooLarge { salt } => self.sync.running.take_if(expected(*salt, false)),
            SyncStep::Records(records) => {
                self.sync.running.take_if(expected(records.partitioning.salt, true))
            }
            SyncStep::Digests(_) => None,
        };
        match (step, running) {
            (SyncStep::Listing(listing), Some(running)) => self.compare(running, &listing, now),
            (SyncStep::TooLarge { .. }, Some(Running { peer, views, .. })) => {
                self.begin_sync(peer, views, false, now);
            }
            (SyncStep::Records(records), Some(running)) => {
                self.take_answer_records(running, records, RemoteState::default(), now);
            }
            (SyncStep::Listing(_) | SyncStep::TooLarge { .. }, _) => {
                self.drop(DropReason::UnexpectedSync);
            }
            (step, _) => self.serve_packet(from, step, answers, now),
        }
    }

    /// A question came in a packet of a member's.
    fn serve_packet(&mut self, from: &Peer, step: SyncStep, answers: &mut Answers, now: Instant) {
        if !self.take_answer(answers) {
            return;
        }
        let most = steps_per_second(MAX_SERVED_PER_SECOND.0, self.members.len());
        if !self.sync.served.allows(most, now) {
            return self.drop(DropReason::TooManySyncs);
        }
        let (most, verified) = (self.largest_sync_body_bytes(), from.name.is_some());
        let peer = Peer { addr: from.addr, name: answers.speaker.clone() };
        let state = RemoteState::default();
        if let Some(body) = self.serve_step(&peer, verified, step, state, most, now) {
            self.send_later(Outgoing::Sync { to: peer, body: body.into() });
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
        body: SyncBody,
        now: Instant,
    ) -> Result<Bytes, ExchangeError> {
        let refused = |message: &str| {
            Err(ExchangeError::Refused { peer: peer.clone(), message: message.to_owned() })
        };
        if !self.syncs() {
            return refused("this node compares no members");
        }
        let n = self.members.len();
        let (members, strangers) = MAX_SERVED_PER_SECOND;
        let allowed = match self.is_at_a_members(peer) {
            true => self.sync.served.allows(steps_per_second(members, n), now),
            false => self.sync.served_strangers.allows(steps_per_second(strangers, n), now),
        };
        if !allowed {
            self.drop(DropReason::TooManySyncs);
            return refused("too many are comparing their members with this node");
        }
        let step = match body.step {
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
        let state = RemoteState { held: body.held, ..RemoteState::default() };
        let answer = self.serve_step(peer, verified, step, state, usize::MAX, now);
        Ok(answer.unwrap_or_default().into())
    }

    /// Whether a stream comes from a live member, or from where one is: of its port nothing is known.
    fn is_at_a_members(&self, peer: &Peer) -> bool {
        match &peer.name {
            Some(_) => self.is_live(peer),
            None => (self.members.iter())
                .any(|record| record.state().is_live() && record.node.addr.ip() == peer.addr.ip()),
        }
    }

    /// Answers in at most so many bytes; nothing if there is nothing to say.
    fn serve_step(
        &mut self,
        peer: &Peer,
        verified: bool,
        step: SyncStep,
        state: RemoteState,
        most: usize,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.stats.sync_steps_served += 1;
        let mut body = Vec::new();
        match step {
            SyncStep::Digests(digests) => {
                if let Some(buckets) = self.differing(&digests, most) {
                    sync::write_listing(digests.partitioning, &buckets, &mut body);
                }
                if body.is_empty() || body.len() > most {
                    body.clear();
                    sync::write_too_large(digests.partitioning.salt, &mut body);
                }
            }
            SyncStep::Records(records) => {
                let mut answer = self.wanted_records(records.partitioning, &records.wanted);
                answer.extend(self.contradictions(&records.records));
                let asked = most == usize::MAX || !records.wanted.is_empty() || !answer.is_empty();
                self.stats.sync_records_sent += answer.len() as u64;
                self.write_fitting(records.partitioning, &answer, most, &mut body);
                self.merge_synced(peer.clone(), verified, records, state, now);
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
        Records { records, skipped, .. }: Records,
        state: RemoteState,
        now: Instant,
    ) {
        self.stats.sync_records_received += records.len() as u64;
        if self.merges.len() >= self.config.max_push_pulls {
            return self.drop(DropReason::TooManyPushPulls);
        }
        let state = RemoteState { nodes: records, skipped, ..state };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_steps_are_served_in_large_clusters() {
        let served = |n| steps_per_second(64, n);
        assert_eq!([served(1), served(4096), served(8192), served(100_000)], [64, 64, 32, 2]);
        assert_eq!(served(usize::MAX / 64), 2);
    }
}
