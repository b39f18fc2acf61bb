//! Spreading news: what goes into packets, and to whom (SWIM §4.1; Go `gossip`, `getBroadcasts`).
//!
//! News rides on pings, acks and nacks, and is sent to `gossip_nodes` members at each gossip tick,
//! in the random order of the ring; no tick runs while nothing is queued. Invariants: a packet never exceeds the room that its
//! destination has; an item is sent as often as the retransmit limit says, and then no more;
//! neither membership news nor user broadcasts can starve the other.
//!
//! Fair share: while user broadcasts wait, every packet earns them `user_broadcast_share_percent`
//! of its free room as credit, and what the credit covers is kept free from membership news
//! (deficit round robin). What either side leaves is the other's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::broadcast::{BroadcastQueue, Encoded, Part, Relation, Space};
use super::members::Record;
use super::timer::Timer;
use super::{Event, Membership, OperationId, alive_of, scale};
use crate::error::BroadcastError;
use crate::message::{
    Ack, Broadcast, Dead, IndirectPing, Message, MessageKind, Nack, Ping, PingSource, Suspect, View,
};
use crate::node::{Node, NodeId, NodeState, Peer};
use crate::stats::{DropReason, PacketKind};
use crate::wire::{Dialect, PacketWriter, Room, WireFormat};

/// Packets that may wait for `poll_transmit`. An owner that drains after each input never comes
/// near it.
const MAX_OUTBOX: usize = 8192;

/// Items of each queue that are looked at to share a packet out. Bounded, since it is done for
/// every packet.
const LOOKED_AT: usize = 32;

/// What is carried along with an item of news.
#[derive(Debug)]
pub(super) struct News {
    pub(super) kind: MessageKind,
    /// Who waits for it to have been sent.
    pub(super) done: Option<OperationId>,
    pub(super) queued_at: Instant,
    /// An accusation waits for a tick: see `eager`.
    pub(super) held: bool,
}

/// How urgent a user broadcast is. The queues are served in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Priority {
    /// Before the others.
    High,
    /// The default.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

/// The user broadcasts, a queue a priority, and the room that they have earned.
#[derive(Debug)]
pub(super) struct UserQueues {
    /// Each with when it was queued.
    queues: [BroadcastQueue<Arc<str>, Instant>; 3],
    credit_bytes: usize,
}

impl UserQueues {
    pub(super) fn new(seed: u64) -> Self {
        Self { queues: [0, 1, 2].map(|i| BroadcastQueue::new(seed ^ i)), credit_bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(BroadcastQueue::len).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.queues.iter().map(BroadcastQueue::bytes).sum()
    }

    /// When the one was queued that has waited longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queues.iter().flat_map(BroadcastQueue::iter).map(|(_, at)| *at).min()
    }

    /// Drops the least urgent, most transmitted until `max` remain; gives how many.
    pub(super) fn prune(&mut self, max: usize) -> usize {
        let mut over = self.len().saturating_sub(max);
        let pruned = over;
        for queue in self.queues.iter_mut().rev() {
            let drop = over.min(queue.len());
            queue.prune(queue.len() - drop, |_| {});
            over -= drop;
        }
        pruned
    }

    /// Gives back what an empty queue does not need.
    fn release_memory(&mut self) {
        self.queues.iter_mut().for_each(BroadcastQueue::release_memory);
    }

    /// Whether a broadcast waits that was sent less often than this.
    pub(super) fn has_fresh(&self, below: u32) -> bool {
        self.queues.iter().any(|queue| queue.has_fresh(below, |_| true))
    }

    /// Drops what is sent in this format only.
    fn drop_all_only_in(&mut self, dialect: Dialect) {
        for queue in &mut self.queues {
            queue.remove_if(|_, encoded| encoded.is_only_in(dialect), |_| {});
        }
    }

    /// How many bytes of a packet in that format with that much `free` room are theirs.
    fn earn(
        &mut self,
        (dialect, overhead): (Dialect, usize),
        free: usize,
        share_percent: u8,
        most: usize,
    ) -> usize {
        if self.len() == 0 {
            self.credit_bytes = 0;
            return 0;
        }
        let earned = free * usize::from(share_percent) / 100;
        // Up to two packets, so that a large item can wait for a packet that holds it without
        // keeping smaller ones from those that do not.
        self.credit_bytes = (self.credit_bytes + earned).min(2 * most);
        let (mut reserve, mut credit) = (0, self.credit_bytes);
        let lens = |queue| BroadcastQueue::iter(queue).map(move |(item, _)| item.len_in(dialect));
        let sent = |queue| lens(queue).filter(|len| *len > 0).take(LOOKED_AT);
        for len in self.queues.iter().flat_map(sent) {
            let cost = len + overhead;
            if cost > most {
                continue;
            }
            // It is saved up for: what comes later, smaller as it may be, must not use that up.
            if cost > credit {
                break;
            }
            credit -= cost;
            if cost <= free - reserve {
                reserve += cost;
            }
        }
        reserve
    }
}

/// A packet that waits to be written.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A ping; with `accuse` also the suspicion that its target is to refute.
    Ping {
        to: Peer,
        /// If it is not to be in the format in which this peer is spoken to.
        dialect: Option<Dialect>,
        sequence: u32,
        accuse: Option<u32>,
        piggyback: bool,
    },
    IndirectPing {
        to: Peer,
        sequence: u32,
        target: Arc<Node>,
        nack: bool,
    },
    Ack {
        to: Peer,
        /// That of the question.
        dialect: Dialect,
        sequence: u32,
        payload: Bytes,
        piggyback: bool,
    },
    Nack {
        to: Peer,
        dialect: Dialect,
        sequence: u32,
    },
    /// A suspicion, for the member that is to refute it.
    Accuse {
        to: Peer,
        incarnation: u32,
        from: NodeId,
    },
    /// The own announcement, for somebody who has missed it.
    OwnAlive {
        to: Peer,
        /// That of what shows it.
        dialect: Dialect,
    },
    /// Queued news only; in an eager round only what is fresh.
    Gossip {
        to: Peer,
        eager: bool,
    },
    User {
        to: Peer,
        payload: Bytes,
    },
    /// The digest of the own view.
    View {
        to: Peer,
        ask: bool,
    },
    /// A step of comparing members.
    Sync {
        to: Peer,
        body: Bytes,
    },
}

impl Outgoing {
    fn to(&self) -> &Peer {
        match self {
            Self::Ping { to, .. }
            | Self::IndirectPing { to, .. }
            | Self::Ack { to, .. }
            | Self::Nack { to, .. }
            | Self::Accuse { to, .. }
            | Self::OwnAlive { to, .. }
            | Self::Gossip { to, .. }
            | Self::User { to, .. }
            | Self::View { to, .. }
            | Self::Sync { to, .. } => to,
        }
    }

    fn kind(&self) -> PacketKind {
        match self {
            Self::Ping { .. } => PacketKind::Ping,
            Self::IndirectPing { .. } => PacketKind::IndirectPing,
            Self::Ack { .. } => PacketKind::Ack,
            Self::Nack { .. } => PacketKind::Nack,
            Self::Accuse { .. } | Self::OwnAlive { .. } | Self::Gossip { .. } => PacketKind::Gossip,
            Self::User { .. } => PacketKind::User,
            Self::View { .. } | Self::Sync { .. } => PacketKind::Sync,
        }
    }

    /// The format, if it is not for the peer to decide.
    fn dialect(&self) -> Option<Dialect> {
        match self {
            Self::Ping { dialect, .. } => *dialect,
            Self::Ack { dialect, .. }
            | Self::Nack { dialect, .. }
            | Self::OwnAlive { dialect, .. } => Some(*dialect),
            Self::View { .. } | Self::Sync { .. } => Some(Dialect::Native),
            _ => None,
        }
    }
}

/// What a destination is to this node: news is for members, and counts as told only if they hear it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// No member: a ping from it must not use up the news.
    Stranger,
    /// A member that is believed alive.
    There,
    /// One that is suspected, gone, or was reaped.
    Doubtful,
}

/// How news comes into a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Riding {
    /// In one that is sent for something else.
    Along,
    /// In one that a tick sends.
    Tick,
    /// In one of an eager round: fresh news only.
    Eager,
}

/// A packet that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Transmit {
    /// Whom it is for.
    pub to: Peer,
    /// Its length in bytes, without head and tail.
    pub len: usize,
}

impl Membership {
    /// Writes the next packet into `buf`.
    ///
    /// `room` is asked first, with the destination: how large the whole packet may be, and how many
    /// bytes the outer layers need in front of and behind the content, so that sealing can happen
    /// in place. `buf` is cleared; the content begins at `head`, and capacity for `tail` is
    /// reserved.
    pub fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        room: &mut dyn FnMut(&Peer) -> Room,
    ) -> Option<Transmit> {
        loop {
            let outgoing = self.outbox.pop_front()?;
            let to = outgoing.to().clone();
            let mut room = room(&to);
            room.max_packet_bytes = room.max_packet_bytes.min(self.config.max_packet_bytes);
            let eager = matches!(outgoing, Outgoing::Gossip { eager: true, .. });
            let kind = outgoing.kind();
            if let Some(len) = self.write_packet(outgoing, buf, room) {
                if eager {
                    self.eager.charge(len + self.outer_overhead);
                }
                self.stats.count_packet_sent(kind, len);
                return Some(Transmit { to, len });
            }
        }
    }

    /// `None` if there is nothing to send after all.
    fn write_packet(&mut self, out: Outgoing, buf: &mut Vec<u8>, room: Room) -> Option<usize> {
        let dialect = out.dialect().unwrap_or_else(|| self.dialect_for(out.to()));
        let checksum = self.checksum_for(out.to(), dialect);
        let mut writer = PacketWriter::new(buf, dialect, checksum, room);
        let native = self.config.wire_format.announces_native();
        let standing = self.standing(out.to());
        let riding = match out {
            Outgoing::Gossip { eager: true, .. } => Riding::Eager,
            Outgoing::Gossip { eager: false, .. } => Riding::Tick,
            _ => Riding::Along,
        };
        let peer = out.to().clone();
        let own = Arc::clone(&self.own_record().node);
        let source = Some(PingSource { node: own.id.as_str(), addr: own.addr });
        let (wrote, piggyback) = match out {
            Outgoing::Ping { to, sequence, accuse, piggyback, .. } => {
                let node = to.name.as_ref().map_or("", NodeId::as_str);
                let ping = Ping { sequence, node, source, native };
                let wrote = self.write(&mut writer, &Message::Ping(ping));
                // Better a ping without the accusation than none.
                if let Some(incarnation) = accuse.filter(|_| wrote) {
                    let from = own.id.as_str();
                    let suspect = Message::Suspect(Suspect { incarnation, node, from });
                    self.write(&mut writer, &suspect);
                }
                (wrote, piggyback)
            }
            Outgoing::IndirectPing { sequence, target, nack, .. } => {
                let (node, target) = (target.id.as_str(), target.addr);
                let ping = IndirectPing { sequence, node, target, nack, source };
                (self.write(&mut writer, &Message::IndirectPing(ping)), true)
            }
            Outgoing::Ack { sequence, payload, piggyback, .. } => {
                let ack = |payload| Message::Ack(Ack { sequence, payload, native });
                // Better an ack without its payload than none.
                let wrote =
                    self.write(&mut writer, &ack(&payload)) || self.write(&mut writer, &ack(&[]));
                // Who still asks when the farewell has been told has missed it.
                if wrote && piggyback && self.leaving && self.farewell.is_none() {
                    let (node, incarnation) = (own.id.as_str(), self.incarnation);
                    let farewell = Message::Dead(Dead { incarnation, node, from: node });
                    self.write(&mut writer, &farewell);
                }
                (wrote, piggyback)
            }
            Outgoing::Nack { sequence, .. } => {
                (self.write(&mut writer, &Message::Nack(Nack { sequence })), false)
            }
            Outgoing::User { payload, .. } => {
                (self.write(&mut writer, &Message::User(&payload)), false)
            }
            Outgoing::Accuse { to, incarnation, from } => {
                let node = to.name.as_ref().map_or("", NodeId::as_str);
                let suspect = Suspect { incarnation, node, from: from.as_str() };
                (self.write(&mut writer, &Message::Suspect(suspect)), false)
            }
            Outgoing::OwnAlive { .. } => {
                let alive = Message::Alive(alive_of(&own, self.incarnation));
                (self.write(&mut writer, &alive), false)
            }
            Outgoing::View { ask, .. } => {
                let view = self.own_view(own.id.as_str(), ask);
                (self.write(&mut writer, &Message::View(view)), false)
            }
            Outgoing::Sync { body, .. } => {
                // First who speaks.
                let view = self.own_view(own.id.as_str(), false);
                let wrote = self.write(&mut writer, &Message::View(view))
                    && self.write(&mut writer, &Message::Sync(&body));
                (wrote, false)
            }
            Outgoing::Gossip { .. } => (true, true),
        };
        let shows_view = standing == Standing::There
            && wrote
            && piggyback
            && dialect == Dialect::Native
            && self.syncs();
        if shows_view && riding == Riding::Along {
            let view = Message::View(self.own_view("", false));
            self.write(&mut writer, &view);
        }
        match standing {
            Standing::Stranger => {}
            _ if !wrote || !piggyback => {}
            Standing::There => self.fill(&mut writer, &peer, true, riding),
            Standing::Doubtful => self.fill(&mut writer, &peer, false, riding),
        }
        if !wrote || writer.parts() == 0 {
            return None;
        }
        // Eager packets are many and small; ticks and pings follow.
        if shows_view && riding == Riding::Tick {
            let view = Message::View(self.own_view(own.id.as_str(), false));
            // If it fits.
            if writer.push(&view) {
                self.stats.count_sent(MessageKind::View);
            }
        }
        self.stats.packets_sent_hashicorp += u64::from(dialect == Dialect::Hashicorp);
        Some(match self.config.compression {
            true => writer.finish_compressed(),
            false => writer.finish(),
        })
    }

    fn own_view<'a>(&self, node: &'a str, ask: bool) -> View<'a> {
        View { digest: self.members.view().to_u64(), node, ask }
    }

    fn write(&mut self, writer: &mut PacketWriter<'_>, message: &Message<'_>) -> bool {
        let wrote = writer.push(message);
        match wrote {
            true => self.stats.count_sent(message.kind()),
            false => self.drop(DropReason::TooLargeToSend),
        }
        wrote
    }

    fn standing(&self, peer: &Peer) -> Standing {
        let record = peer.name.as_ref().and_then(|name| self.members.get(name.as_str()));
        match record.map(Record::state) {
            // Two sides that buried each other find each other by what rides on such answers.
            None if peer
                .name
                .as_ref()
                .is_some_and(|n| self.tombstones.get(n.as_str()).is_some()) =>
            {
                Standing::Doubtful
            }
            None => Standing::Stranger,
            Some(NodeState::Alive) => Standing::There,
            Some(_) => Standing::Doubtful,
        }
    }

    /// Fills the rest of a packet with what is queued.
    /// What goes to a member that may not be there (`is_there` is false) is no transmission: news must
    /// not be used up on those who cannot hear it. Nor is what rides on pings and acks, where every
    /// member is to be told once: only gossip goes round, the others meet the same member twice.
    fn fill(&mut self, writer: &mut PacketWriter<'_>, to: &Peer, is_there: bool, riding: Riding) {
        let (dialect, overhead) = (writer.dialect(), writer.part_overhead());
        let n = self.members.len();
        let limit = scale::news_limit(self.config.retransmit_mult, n);
        let (user_limit, passed_on_limit) = self.user_broadcast_limits(limit, n);
        let (share, most) =
            (self.config.user_broadcast_share_percent, self.config.max_packet_bytes);
        let everybody = scale::others(n);
        let gossips = !self.config.gossip_interval.is_zero() && self.config.gossip_nodes > 0;
        let counted = |limit: u32| {
            let goes_round = riding != Riding::Along || !gossips;
            let counts = is_there && (goes_round || limit != everybody);
            counts.then_some(limit)
        };
        let counted_user = |encoded: &Encoded| match encoded.is_only_in(Dialect::Native) {
            true => counted(passed_on_limit),
            false => counted(user_limit),
        };
        let eager = riding == Riding::Eager;
        let (news_below, user_below) = match eager {
            true => self.fresh_below(),
            false => (u32::MAX, u32::MAX),
        };
        let free = writer.remaining();
        let reserve = self.user.earn((dialect, overhead), free, share, most);

        let (events, stats) = (&mut self.events, &mut self.stats);
        self.news.take(
            Space { dialect, overhead, budget: free - reserve },
            (news_below, |news: &News| !(eager && news.held)),
            |_| counted(limit),
            |part, news| {
                let fits = push(writer, part);
                if fits {
                    stats.count_sent(news.kind);
                }
                fits
            },
            |news| events.extend(news.done.map(Event::BroadcastDone)),
        );

        let free = writer.remaining();
        let mut used = 0;
        for queue in &mut self.user.queues {
            let space = Space { dialect, overhead, budget: writer.remaining() };
            let take = |part: Part<'_>, _: &Instant| {
                let fits = push(writer, part);
                if fits {
                    stats.count_sent(MessageKind::Broadcast);
                }
                fits
            };
            used += queue.take(space, (user_below, |_: &Instant| true), counted_user, take, |_| {});
        }
        // Room that news had no use for is free of charge.
        let charged = used.saturating_sub(free.saturating_sub(reserve));
        self.user.credit_bytes = self.user.credit_bytes.saturating_sub(charged);
        // The application counts the transmissions of its own broadcasts itself: at ticks, as in Go.
        if riding != Riding::Eager {
            self.fill_from_application(writer, to);
        }
    }

    /// How often a user broadcast is sent, and how often one that goes out in the native format alone.
    /// Nobody passes it on who is spoken to in Go's format: where that is spoken every member is to get
    /// it from here. What is passed on its origin sends to all of them already.
    pub(super) fn user_broadcast_limits(&self, news_limit: u32, n: usize) -> (u32, u32) {
        let limit = scale::user_broadcast_limit(news_limit, n);
        match self.config.wire_format {
            WireFormat::Native => (limit, limit),
            WireFormat::Hashicorp | WireFormat::Mixed => (limit.max(scale::others(n)), limit),
        }
    }

    /// What is passed on in a mixed cluster is not sent in Go's format. Where nobody is spoken to in the
    /// other it would wait for ever, and the tick with it.
    fn drop_what_no_member_is_sent(&mut self) {
        if self.config.wire_format != WireFormat::Mixed || self.user.len() == 0 {
            return;
        }
        let mut others = self.members.iter().filter(|record| record.node.id != self.id);
        if !others.any(|record| record.native && record.state().is_live()) {
            self.user.drop_all_only_in(Dialect::Native);
        }
    }

    fn fill_from_application(&mut self, writer: &mut PacketWriter<'_>, to: &Peer) {
        // A user message costs at most kind and length beside its bytes.
        const MESSAGE_OVERHEAD: usize = 4;
        let overhead = writer.part_overhead() + MESSAGE_OVERHEAD;
        if writer.remaining() <= overhead || !self.app.has_user_broadcasts() {
            return;
        }
        for payload in self.app.user_broadcasts(overhead, writer.remaining()) {
            if writer.is_full() {
                // The application was told of the room, and gave what fits it.
                self.send_later(Outgoing::User { to: to.clone(), payload });
            } else {
                self.write(writer, &Message::User(&payload));
            }
        }
    }

    // ---- what is queued -----------------------------------------------------------------------

    /// Queues news about a member, replacing older news about it. Who has said farewell has no news
    /// of others.
    pub(super) fn queue_news(
        &mut self,
        about: NodeId,
        message: &Message<'_>,
        done: Option<OperationId>,
        now: Instant,
    ) {
        if self.leaving && about != self.id {
            return;
        }
        let encoded = self.encode(message);
        let held = match message {
            Message::Suspect(_) => true,
            Message::Dead(Dead { from, .. }) => self.is_self(from) && about != self.id,
            _ => false,
        };
        let news = News { kind: message.kind(), done, queued_at: now, held };
        self.queue_encoded(about, encoded, news);
    }

    /// Queues what a member has announced, as its record has it. Who has said farewell has no news of
    /// others.
    pub(super) fn queue_announcement(&mut self, node: Arc<Node>, incarnation: u32, now: Instant) {
        if self.leaving && node.id != self.id {
            return;
        }
        let mut lens = [0; 2];
        for dialect in self.dialects() {
            self.scratch.clear();
            dialect.encode(&Message::Alive(alive_of(&node, incarnation)), &mut self.scratch);
            // What is longer fits no packet, and is dropped for it.
            lens[dialect as usize] = u16::try_from(self.scratch.len()).unwrap_or(u16::MAX);
        }
        let about = node.id.clone();
        let encoded = Encoded::alive(node, incarnation, lens);
        let news = News { kind: MessageKind::Alive, done: None, queued_at: now, held: false };
        self.queue_encoded(about, encoded, news);
    }

    fn queue_encoded(&mut self, about: NodeId, encoded: Encoded, news: News) {
        let now = news.queued_at;
        if encoded.len() > self.largest_part_bytes() {
            self.drop(DropReason::TooLargeToSend);
            return self.events.extend(news.done.map(Event::BroadcastDone));
        }
        let events = &mut self.events;
        self.news.push(encoded, Relation::Named(about), news, |replaced| {
            events.extend(replaced.done.map(Event::BroadcastDone));
        });
        self.arm_gossip(now);
        self.arm_eager(now);
    }

    /// Queues bytes for the applications of all other members: they pass them on among themselves,
    /// and each application gets them once, in no order. Best effort, but gossip rarely misses a
    /// member. In Go's format they are user messages, which this node sends to each member itself.
    ///
    /// # Errors
    /// If they do not fit a packet, or this node has left.
    pub fn broadcast(
        &mut self,
        payload: &[u8],
        relation: Relation<Arc<str>>,
        priority: Priority,
        now: Instant,
    ) -> Result<(), BroadcastError> {
        if self.leaving {
            return Err(BroadcastError::Left);
        }
        if self.config.max_user_broadcasts == 0 {
            return Err(BroadcastError::Disabled);
        }
        let limit = self.max_broadcast_bytes();
        if payload.len() > limit {
            return Err(BroadcastError::TooLarge { len: payload.len(), limit });
        }
        self.broadcasts_made += 1;
        let origin = self.id.clone();
        let encoded = self.encode(&Message::Broadcast(Broadcast {
            origin: origin.as_str(),
            epoch: self.broadcast_epoch,
            sequence: self.broadcasts_made,
            hops: 0,
            priority: priority as u8,
            payload,
        }));
        let relation = on_payload(relation, self.config.wire_format);
        self.queue_user(encoded, relation, priority, now);
        Ok(())
    }

    pub(super) fn queue_user(
        &mut self,
        encoded: Encoded,
        relation: Relation<Arc<str>>,
        priority: Priority,
        now: Instant,
    ) {
        if encoded.len() > self.largest_part_bytes() {
            return self.drop(DropReason::TooLargeToSend);
        }
        self.user.queues[priority as usize].push(encoded, relation, now, |_| {});
        for _ in 0..self.user.prune(self.config.max_user_broadcasts) {
            self.drop(DropReason::BroadcastQueueFull);
        }
        self.arm_gossip(now);
        self.arm_eager(now);
    }

    /// Sends bytes to one node in one packet, best effort.
    ///
    /// # Errors
    /// If they do not fit a packet.
    pub fn send(&mut self, to: Peer, payload: Bytes) -> Result<(), BroadcastError> {
        self.check_user_bytes(payload.len())?;
        self.send_later(Outgoing::User { to, payload });
        Ok(())
    }

    /// The largest encoded message in bytes that fits any packet of this node.
    pub(super) fn largest_part_bytes(&self) -> usize {
        let framing = self
            .dialects()
            .map(|dialect| dialect.packet_overhead(self.checksum) + dialect.part_overhead());
        let framing = framing.max().unwrap_or_default();
        self.assured_packet_bytes.saturating_sub(framing + self.outer_overhead)
    }

    /// The formats that this node speaks.
    fn dialects(&self) -> impl Iterator<Item = Dialect> + use<> {
        let format = self.config.wire_format;
        [Dialect::Native, Dialect::Hashicorp].into_iter().filter(move |d| format.reads(*d))
    }

    /// What is queued must be sendable: it would wait for ever, and the tick with it.
    pub(super) fn drop_what_fits_no_packet(&mut self) {
        let most = self.largest_part_bytes();
        let events = &mut self.events;
        let mut dropped = self.news.remove_if(
            |_, encoded| encoded.len() > most,
            |news| events.extend(news.done.map(Event::BroadcastDone)),
        );
        for queue in &mut self.user.queues {
            dropped += queue.remove_if(|_, encoded| encoded.len() > most, |_| {});
        }
        (0..dropped).for_each(|_| self.drop(DropReason::TooLargeToSend));
    }

    /// The largest user message in bytes that fits a packet.
    pub fn max_user_message_bytes(&self) -> usize {
        // Kind, and in the native format a length of up to three bytes.
        self.largest_part_bytes().saturating_sub(4)
    }

    /// The largest user broadcast in bytes that fits a packet.
    pub fn max_broadcast_bytes(&self) -> usize {
        // Epoch, number, hops and priority, and the lengths of name and payload.
        const HEAD_BYTES: usize = 5 + 9 + 1 + 1 + 3 + 3;
        self.max_user_message_bytes().saturating_sub(HEAD_BYTES + self.id.as_str().len())
    }

    fn check_user_bytes(&self, len: usize) -> Result<(), BroadcastError> {
        let limit = self.max_user_message_bytes();
        if len > limit { Err(BroadcastError::TooLarge { len, limit }) } else { Ok(()) }
    }

    /// Encodes a message in every format in which it may be sent.
    pub(super) fn encode(&mut self, message: &Message<'_>) -> Encoded {
        self.scratch.clear();
        let mut native_len = 0;
        for dialect in self.dialects() {
            // Of a broadcast in Go's format nobody could tell that it came before: only its origin sends
            // it so.
            let passed_on = matches!(message, Message::Broadcast(broadcast) if broadcast.hops > 0);
            if dialect == Dialect::Hashicorp && passed_on {
                continue;
            }
            dialect.encode(message, &mut self.scratch);
            if dialect == Dialect::Native {
                native_len = self.scratch.len();
            }
        }
        Encoded::joined(&self.scratch, native_len)
    }

    pub(super) fn send_later(&mut self, outgoing: Outgoing) {
        if self.outbox.len() >= MAX_OUTBOX {
            return self.drop(DropReason::SendQueueFull);
        }
        self.outbox.push_back(outgoing);
    }

    // ---- the tick -----------------------------------------------------------------------------

    /// Tells that [`Application::has_user_broadcasts`](super::Application::has_user_broadcasts) has
    /// become true.
    pub fn user_broadcasts_available(&mut self, now: Instant) {
        self.arm_gossip(now);
    }

    /// Makes sure that a tick is coming.
    pub(super) fn arm_gossip(&mut self, now: Instant) {
        let interval = self.config.gossip_interval;
        if self.gossip_timer.is_some() || interval.is_zero() || self.config.gossip_nodes == 0 {
            return;
        }
        let next = next_in_phase(self.gossip_phase, interval, now);
        self.gossip_timer = Some(self.timers.arm(next, Timer::GossipTick));
    }

    pub(super) fn gossip_tick(&mut self, now: Instant) {
        self.gossip_timer = None;
        self.drop_what_no_member_is_sent();
        if self.news.is_empty() && self.user.len() == 0 && !self.app.has_user_broadcasts() {
            self.release_memory();
            return;
        }
        let (own, window) = (&self.id, self.config.gossip_to_the_dead_time);
        let chosen = self.members.next_in_ring(self.config.gossip_nodes, |record| {
            let told = match record.state() {
                NodeState::Alive | NodeState::Suspect => true,
                NodeState::Dead => now.saturating_duration_since(record.since) <= window,
                NodeState::Left => false,
            };
            told && record.node.id != *own
        });
        if chosen.is_empty() {
            let waiting = self.news.tags_mut().filter_map(|news| news.done.take());
            self.events.extend(waiting.map(Event::BroadcastDone));
            // The next change of the table starts the tick again.
            if !self.app.has_user_broadcasts() {
                return;
            }
        }
        for position in chosen {
            let node = &self.members.at(position).node;
            let to = Peer::named(node.addr, node.id.clone());
            self.send_later(Outgoing::Gossip { to, eager: false });
        }
        self.arm_gossip(now);
        self.release_accusations(now);
    }

    /// Gives back what only busy times need, now that nothing is left to tell.
    fn release_memory(&mut self) {
        self.news.release_memory();
        self.user.release_memory();
        self.outbox.shrink_to_fit();
        self.requests.shrink_to_fit();
        self.merges.shrink_to_fit();
        if self.exchanges.is_empty() {
            // An empty map keeps its root.
            self.exchanges = Default::default();
        }
        self.reader = Default::default();
    }
}

/// Appends a queued message; false, and nothing changed, if it does not fit.
fn push(writer: &mut PacketWriter<'_>, part: Part<'_>) -> bool {
    match part {
        Part::Encoded(bytes) => writer.push_encoded(bytes),
        Part::Alive(node, incarnation) => writer.push(&Message::Alive(alive_of(node, incarnation))),
    }
}

/// The queue holds encoded broadcasts; the application judges their payload.
fn on_payload(relation: Relation<Arc<str>>, format: WireFormat) -> Relation<Arc<str>> {
    // The queue shows an item in the native format if it has it in both.
    let dialect = if format.reads(Dialect::Native) { Dialect::Native } else { Dialect::Hashicorp };
    match relation {
        Relation::Invalidating(judge) => Relation::Invalidating(Box::new(move |encoded| {
            dialect.decode(encoded, |message| match message {
                Ok(Message::Broadcast(broadcast)) => judge(broadcast.payload),
                Ok(Message::User(payload)) => judge(payload),
                _ => false,
            })
        })),
        other => other,
    }
}

/// The first instant after `now` that is a whole number of intervals from `phase`.
fn next_in_phase(phase: Instant, interval: Duration, now: Instant) -> Instant {
    if phase > now {
        return phase;
    }
    let since = now.saturating_duration_since(phase).as_nanos();
    let rest = interval.as_nanos() - since % interval.as_nanos();
    now + Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_phase() {
        let t0 = Instant::now();
        let ms = |n| t0 + Duration::from_millis(n);
        let interval = Duration::from_millis(200);
        assert_eq!(next_in_phase(ms(70), interval, t0), ms(70));
        assert_eq!(next_in_phase(ms(70), interval, ms(70)), ms(270));
        assert_eq!(next_in_phase(ms(70), interval, ms(269)), ms(270));
        assert_eq!(next_in_phase(ms(70), interval, ms(1071)), ms(1270));
    }
}
