//! Pings on behalf of others, and the answers to pings (SWIM §3.1; nacks: Lifeguard §IV-A; Go
//! `handlePing`, `handleIndirectPing`, `handleAck`, `handleNack`).
//!
//! Invariants: an ack counts only for a ping that waits, and only from the node that was pinged;
//! this node sends answers only to the source of the packet that asked or to the address of a known
//! member, and only so many a packet as an honest packet can ask for; the pings it relays go to
//! members only, and are bounded in number.
//!
//! Departures from Go: a relay says nack after 80 % of `probe_timeout`, as the paper has it, or of
//! what the probe has left after its direct leg if that is less, so that it arrives before the probe
//! ends (Go waits for all of `probe_timeout`, and on a healthy node always comes too late); the ack
//! payload goes to members only.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::gossip::Outgoing;
use super::timer::{Timer, TimerKey};
use super::{Event, Membership, OperationId};
use crate::message::{Ack, IndirectPing, Nack, Ping, PingSource};
use crate::node::{NodeId, Peer, canonical};
use crate::stats::DropReason;
use crate::wire::Dialect;

/// The fewest bytes of a packet that an honest ping takes; smaller ones are possible only without a
/// source, which this library and Go never leave out.
const HONEST_PING_BYTES: usize = 24;

/// How many of its pings are answered however short a packet is.
const LEAST_ANSWERS: usize = 2;

/// What one packet may still draw in answers.
#[derive(Debug)]
pub(super) struct Answers {
    /// The format of the packet, and of the answers.
    pub(super) dialect: Dialect,
    pub(super) left: usize,
    /// Only one answer carries news along: many small pings must not draw many full packets.
    pub(super) news: bool,
    /// An honest packet brings at most one accusation of this node, or farewell, that is out of date.
    pub(super) old_news: bool,
    /// Which member sent the packet, once something in it has told.
    pub(super) speaker: Option<NodeId>,
    /// The digest of its view.
    pub(super) view: Option<u64>,
}

impl Answers {
    pub(super) fn take(&mut self) -> bool {
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }
}

/// A ping, other than that of the running probe, that waits for its ack.
#[derive(Debug)]
pub(super) struct PendingPing {
    pub(super) target: Peer,
    pub(super) expiry: TimerKey,
    pub(super) purpose: Purpose,
}

/// Why a ping was sent.
#[derive(Debug)]
pub(super) enum Purpose {
    /// For another node, which gets an ack, or a nack when the ack is late.
    Relay { requester: Peer, sequence: u32, nack: Option<TimerKey>, dialect: Dialect },
    /// By hand.
    Manual { id: OperationId, sent_at: Instant },
    /// To see whether a failed member is back, under its name; then states are exchanged.
    Reconnect { member: NodeId },
    /// To let a reaped member refute; its refutation comes with the ack.
    AskToRefute,
}

/// Why an answer does not count that came from another than was asked at this address.
pub(super) fn not_from(from: &Peer, asked: SocketAddr) -> DropReason {
    match from.addr == asked && from.name.is_some() {
        true => DropReason::IdentityMismatch,
        false => DropReason::AckFromStranger,
    }
}

impl Membership {
    /// How much of one packet is answered that came with that many bytes. Many pings are few bytes when
    /// they are compressed, or without what an honest one says.
    pub(super) fn answers_per_packet(&self, dialect: Dialect, came: usize) -> Answers {
        let most = self.config.max_packet_bytes / HONEST_PING_BYTES;
        let paid = (came / HONEST_PING_BYTES).max(LEAST_ANSWERS);
        let (speaker, view) = (None, None);
        Answers { dialect, left: paid.min(most), news: true, old_news: true, speaker, view }
    }

    pub(super) fn handle_ping(
        &mut self,
        from: &Peer,
        ping: &Ping<'_>,
        answers: &mut Answers,
        now: Instant,
    ) {
        if !ping.node.is_empty() && !self.is_self(ping.node) {
            return self.drop(DropReason::WrongNode);
        }
        if self.impersonates(from, ping.source) {
            return self.drop(DropReason::IdentityMismatch);
        }
        if let Some(source) = ping.source {
            self.learn_dialect(source.node, from, ping.native);
            self.tell_the_buried(from, source, answers, now);
        }
        if !self.take_answer(answers) {
            return;
        }
        let (to, is_member) = self.answer_address(from, ping.source);
        if is_member && to.addr == from.addr {
            answers.speaker.clone_from(&to.name);
        }
        let payload = if is_member { self.app.ack_payload() } else { Bytes::new() };
        let piggyback = std::mem::take(&mut answers.news);
        let (dialect, sequence) = (answers.dialect, ping.sequence);
        self.send_later(Outgoing::Ack { to, dialect, sequence, payload, piggyback });
    }

    pub(super) fn handle_indirect_ping(
        &mut self,
        from: &Peer,
        request: &IndirectPing<'_>,
        answers: &mut Answers,
        now: Instant,
    ) {
        if self.impersonates(from, request.source) {
            return self.drop(DropReason::IdentityMismatch);
        }
        // Old peers of Go's format do not say the port: all have the same.
        let mut asked = canonical(request.target);
        if asked.port() == 0 {
            asked.set_port(self.own_record().node.addr.port());
        }
        let target = match self.members.get(request.node) {
            Some(record) if record.node.addr == asked => {
                Peer::named(record.node.addr, record.node.id.clone())
            }
            _ => return self.drop(DropReason::RelayTarget),
        };
        if !self.take_answer(answers) {
            return;
        }
        if self.relays >= self.config.max_relays {
            return self.drop(DropReason::TooManyRelays);
        }
        let (requester, _) = self.answer_address(from, request.source);
        let nack = request.nack.then(|| now + self.nack_delay());
        let expiry = now + self.config.probe_timeout;
        self.relays += 1;
        let own_sequence = self.next_sequence;
        let nack = nack.map(|at| self.timers.arm(at, Timer::RelayNack(own_sequence)));
        let (sequence, dialect) = (request.sequence, answers.dialect);
        let purpose = Purpose::Relay { requester, sequence, nack, dialect };
        self.send_ping(target, None, expiry, purpose);
    }

    /// How long a relay waits before it says nack. The prober asks when its direct ping has timed out,
    /// and judges the nacks at the end of its interval, which is taken to be this node's own.
    fn nack_delay(&self) -> Duration {
        let (interval, timeout) = (self.config.probe_interval, self.config.probe_timeout);
        let left = if interval.is_zero() { timeout } else { interval.saturating_sub(timeout) };
        left.min(timeout).mul_f64(0.8)
    }

    /// Sends a ping that is not a probe's. `accuse` tells the target, as a member that was
    /// suspected or died at that incarnation, to refute.
    pub(super) fn send_ping(
        &mut self,
        to: Peer,
        accuse: Option<u32>,
        expiry: Instant,
        purpose: Purpose,
    ) {
        let sequence = self.next_sequence();
        let expiry = self.timers.arm(expiry, Timer::PingExpiry(sequence));
        let is_relay = matches!(purpose, Purpose::Relay { .. });
        let pending = PendingPing { target: to.clone(), expiry, purpose };
        self.pending_pings.insert(sequence, pending);
        // What somebody else asked for carries no news: it would be spent on one member.
        let piggyback = accuse.is_none() && !is_relay;
        // Who may be back is asked once only, and may read either format.
        let dialect = self.dialect_for(&to);
        let other = accuse.and_then(|_| self.other_dialect(dialect));
        let ping = |to, dialect| Outgoing::Ping { to, dialect, sequence, accuse, piggyback };
        self.send_later(ping(to.clone(), Some(dialect)));
        if other.is_some() {
            self.send_later(ping(to, other));
        }
    }

    /// Pings a node by hand; the end is reported as [`Event::PingDone`]. An empty name asks whoever
    /// is at the address. Nothing else changes by it.
    pub fn ping(&mut self, to: Peer, now: Instant) -> OperationId {
        let id = self.next_operation();
        let expiry = now + self.config.probe_timeout.max(Duration::from_millis(1));
        self.send_ping(to, None, expiry, Purpose::Manual { id, sent_at: now });
        id
    }

    pub(super) fn handle_ack(&mut self, from: &Peer, ack: &Ack<'_>, now: Instant) {
        if self.probe_acked(from, ack, now) {
            return;
        }
        let Some(pending) = self.pending_pings.get(&ack.sequence) else {
            return self.drop(DropReason::UnexpectedAck);
        };
        if !self.is_from(from, &pending.target) {
            let reason = not_from(from, pending.target.addr);
            return self.drop(reason);
        }
        let Some(pending) = self.pending_pings.remove(&ack.sequence) else {
            return;
        };
        self.timers.cancel(pending.expiry);
        if let Some(name) = &pending.target.name {
            self.learn_dialect(name.as_str(), from, ack.native);
        }
        match pending.purpose {
            Purpose::Relay { requester, sequence, nack, dialect } => {
                self.relays -= 1;
                nack.into_iter().for_each(|key| self.timers.cancel(key));
                let payload = Bytes::new();
                let to = requester;
                let ack = Outgoing::Ack { to, dialect, sequence, payload, piggyback: false };
                self.send_later(ack);
            }
            Purpose::Manual { id, sent_at } => {
                let rtt = Some(now.saturating_duration_since(sent_at));
                self.events.push_back(Event::PingDone { id, rtt });
            }
            Purpose::Reconnect { member } => self.reconnect_answered(member, from),
            Purpose::AskToRefute => {}
        }
    }

    pub(super) fn handle_nack(&mut self, from: &Peer, nack: Nack) {
        self.probe_nacked(from, nack.sequence);
    }

    /// The relayed ping is late: say so, but go on waiting until it expires.
    pub(super) fn relay_late(&mut self, sequence: u32) {
        let Some(pending) = self.pending_pings.get_mut(&sequence) else {
            return;
        };
        let Purpose::Relay { requester, sequence, nack, dialect } = &mut pending.purpose else {
            return;
        };
        *nack = None;
        let (to, dialect) = (requester.clone(), *dialect);
        let nack = Outgoing::Nack { to, dialect, sequence: *sequence };
        self.send_later(nack);
    }

    pub(super) fn ping_expired(&mut self, sequence: u32) {
        let Some(pending) = self.pending_pings.remove(&sequence) else {
            return;
        };
        match pending.purpose {
            Purpose::Relay { nack, .. } => {
                self.relays -= 1;
                nack.into_iter().for_each(|key| self.timers.cancel(key));
            }
            Purpose::Manual { id, .. } => {
                self.events.push_back(Event::PingDone { id, rtt: None });
            }
            Purpose::Reconnect { .. } | Purpose::AskToRefute => {}
        }
    }

    /// A ping for `node` came over a stream, from somebody who calls itself `source`: says whether
    /// to ack it. One for another node gets no answer, nor one under a false name.
    pub fn handle_stream_ping(
        &mut self,
        from: &Peer,
        node: Option<&NodeId>,
        source: Option<&NodeId>,
    ) -> bool {
        let refusal = match (&from.name, source) {
            (Some(verified), Some(claimed)) if verified != claimed => DropReason::IdentityMismatch,
            _ if node.is_some_and(|node| *node != self.id) => DropReason::WrongNode,
            _ => return true,
        };
        self.drop(refusal);
        false
    }

    /// Where the answer goes: to the address that the sender names if a member of that name has it, or
    /// had it when it was reaped, else back to the source of the packet. Also says whether it is a
    /// member.
    ///
    /// Not to an address of the other IP version: a node that has both waits for the answer from the
    /// address that it asked, and this node can answer from there by the packet's version only.
    fn answer_address(&self, from: &Peer, source: Option<PingSource<'_>>) -> (Peer, bool) {
        let known = source.and_then(|source| {
            let (node, is_member) = match self.members.get(source.node) {
                Some(record) => (&record.node, true),
                None => (&self.tombstones.get(source.node)?.node, false),
            };
            let same_version = node.addr.is_ipv4() == from.addr.is_ipv4();
            let same = same_version && node.addr == canonical(source.addr);
            same.then(|| (Peer::named(node.addr, node.id.clone()), is_member))
        });
        known.unwrap_or_else(|| (from.clone(), false))
    }

    /// Whether the packet's sender, known by its certificate, gives another name.
    fn impersonates(&self, from: &Peer, source: Option<PingSource<'_>>) -> bool {
        match (&from.name, source) {
            (Some(verified), Some(source)) => {
                !source.node.is_empty() && verified.as_str() != source.node
            }
            _ => false,
        }
    }

    /// Whether a packet comes from whom it should: by the name that the transport has verified, if it
    /// verifies any; else by its address, as far as that is checked.
    pub(super) fn is_from(&self, from: &Peer, asked: &Peer) -> bool {
        match (&from.name, &asked.name) {
            (Some(verified), Some(asked)) => verified == asked,
            _ => !self.config.verify_ack_source || from.addr == asked.addr,
        }
    }

    /// Whether a peer whose name the transport has verified presents itself, by its own address, under
    /// another name. What it says of others it may say.
    pub(super) fn poses_as(&self, from: &Peer, node: &str, addr: SocketAddr) -> bool {
        let another = from.name.as_ref().is_some_and(|verified| verified.as_str() != node);
        another && canonical(addr) == from.addr
    }

    pub(super) fn take_answer(&mut self, answers: &mut Answers) -> bool {
        let taken = answers.take();
        if !taken {
            self.drop(DropReason::TooManyAnswers);
        }
        taken
    }
}
