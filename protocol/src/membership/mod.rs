//! The machine: one node's part in the protocol.
//!
//! | module | mechanism |
//! |---|---|
//! | `members` | the member table and the probe ring |
//! | [`transition`](self) | what alive, suspect and dead messages change |
//! | `probe` | failure detection: direct, indirect, over a stream |
//! | `relay` | pings on behalf of others, answers to pings |
//! | `suspicion` | the time between a failed probe and a death |
//! | `awareness` | how far this node doubts itself |
//! | `refute` | contradicting news about oneself |
//! | `gossip` | spreading news: fan-out and byte budget |
//! | `eager` | passing fresh news on at once |
//! | `broadcast` | the transmit-limited queue of news |
//! | `dialect` | which format a peer is spoken to in |
//! | `user_broadcast` | the application's messages for everybody |
//! | `digest` | whether two nodes believe the same members alive |
//! | `sync` | when members with other views exchange what differs |
//! | `compare` | the steps of that |
//! | `buckets` | finding what differs |
//! | `push_pull` | exchange of whole states, in slices |
//! | `join`, `leave` | coming and going |
//! | `busy` | telling a crowd to come back, and coming back |
//! | `reap` | forgetting the dead, and remembering that they were |
//! | `reconnect` | finding failed members again |
//! | `reconfigure` | other settings while the node runs |
//! | `diary`, `findings`, `explain` | what is remembered, what follows, and why a member is in its state |
//! | `shown` | texts of peers, safe to show |
//! | `gauges` | how much there is of everything at one moment |
//! | `timer`, `scale`, `rate`, `event` | wake-ups, formulas, rates, what is reported |

mod awareness;
pub(crate) mod broadcast;
mod buckets;
mod busy;
mod compare;
mod dialect;
mod diary;
mod digest;
mod eager;
mod event;
mod explain;
mod findings;
mod gauges;
mod gossip;
mod join;
mod leave;
pub(crate) mod members;
mod probe;
mod push_pull;
mod rate;
mod reap;
mod reconfigure;
mod reconnect;
mod refute;
mod relay;
pub(crate) mod scale;
mod shown;
mod suspicion;
mod sync;
pub mod testing;
mod timer;
mod transition;
mod user_broadcast;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

pub use broadcast::{Encoded, Invalidates, Relation};
pub use diary::{HealthCause, HealthChange, ProbeOutcome, ProbeRecord, Stall, StreamRecord};
pub use event::{
    Death, Event, FailedProbe, Member, OperationId, RelayOutcome, StreamOutcome, SuspicionSummary,
};
pub use explain::{Explanation, Health, SuspicionStatus};
pub use findings::Finding;
pub use gauges::{Gauges, QueueGauge};
pub use gossip::{Priority, Transmit};
pub use push_pull::{SYNC_TOPIC, StreamRequest, StreamRequestKind, StreamResponse};
pub use reap::Tombstone;
pub use shown::Shown;

use self::awareness::Awareness;
use self::gossip::{Outgoing, UserQueues};
use self::members::{Members, Record};
use self::probe::Probe;
use self::push_pull::{Exchange, Merge};
use self::reap::Tombstones;
use self::relay::PendingPing;
use self::timer::{Timer, TimerKey, Timers};
use crate::config::Config;
use crate::error::{MetaError, Refusal, StartError};
use crate::message::{Alive, Message};
use crate::node::{Node, NodeId, NodeState, Peer, canonical};
use crate::stats::{DropReason, PacketKind, Stats};
use crate::wire::stream::RemoteRecord;
use crate::wire::{Dialect, Packet, PacketError, PacketReader};

/// The largest incarnation a peer may name: above it nobody could refute any more.
pub const MAX_INCARNATION: u32 = (1 << 31) - 1;

/// How far above the known incarnation a peer may jump.
pub const MAX_INCARNATION_JUMP: u32 = 1 << 20;

/// User messages that may wait for [`Membership::poll_event`]: more than an honest burst of packets
/// holds; one more is dropped and counted.
const MAX_WAITING_MESSAGES: usize = 4096;
/// Events for which there is memory while none waits.
const KEPT_EVENTS: usize = 8;

/// What a machine is waiting for or has not done yet, in numbers. Each is bounded, but for the
/// exchanges of joins that its owner asks for, and those joins that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Pending {
    /// Timers that are armed: at most six of the machine's own, two of the running probe, one a
    /// suspected member, one a join that was told to come back, two a ping.
    pub timers: usize,
    /// Pings other than that of the running probe that wait for their ack.
    pub pings: usize,
    /// Those of them that were sent for others: at most [`Config::max_relays`].
    pub relays: usize,
    /// Streams that were asked for and have not been answered.
    pub exchanges: usize,
    /// Joins that were told to come back, and wait for that. They are not among the exchanges.
    pub deferred_joins: usize,
    /// Push/pulls that are being served or whose records wait to be merged: of those that others
    /// began, at most [`Config::max_push_pulls`].
    pub merges: usize,
    /// Packets that wait for [`Membership::poll_transmit`].
    pub packets: usize,
}

/// Decisions of the application that the machine needs at once. Every method has a default.
///
/// The methods are called from inside the machine: they must answer quickly and without blocking.
pub trait Application {
    /// Whether a node may be a member. Asked for every announcement of another node that would
    /// change something; a refused one is dropped and counted.
    ///
    /// # Errors
    /// The reason for not admitting it.
    fn admit_alive(&mut self, node: &Node) -> Result<(), Refusal> {
        let _ = node;
        Ok(())
    }

    /// The record to keep of a node, called when one is new or has changed. Where many members live
    /// in one process (a simulation, a test), equal records can be kept once.
    fn share(&mut self, node: Node) -> Arc<Node> {
        Arc::new(node)
    }

    /// Whether to merge with a cluster, given all that it knows. Asked for joins only, by both
    /// sides.
    ///
    /// # Errors
    /// The reason for not merging.
    fn admit_merge(&mut self, peer: &Peer, nodes: &[RemoteRecord]) -> Result<(), Refusal> {
        let _ = (peer, nodes);
        Ok(())
    }

    /// Bytes to send along with the ack of a member's ping.
    fn ack_payload(&mut self) -> Bytes {
        Bytes::new()
    }

    /// Whether [`user_broadcasts`](Self::user_broadcasts) may have something. True keeps the gossip
    /// tick running even when no news is queued.
    fn has_user_broadcasts(&mut self) -> bool {
        false
    }

    /// User broadcasts for one packet. Each costs its length plus `overhead` of the `limit`, in
    /// bytes; what goes over it is dropped and counted.
    fn user_broadcasts(&mut self, overhead: usize, limit: usize) -> Vec<Bytes> {
        let _ = (overhead, limit);
        Vec::new()
    }

    /// Whether this member may be pinged over a stream when its packets are lost. Go:
    /// `DisableTcpPingsForNode`, reversed.
    fn allows_stream_ping(&mut self, node: &Node) -> bool {
        let _ = node;
        true
    }
}

impl Application for () {}

/// The protocol state of one node: SWIM with the Lifeguard extensions, without I/O.
///
/// There is no clock, thread, socket or global randomness inside. The owner passes the time in and
/// carries the bytes; the same seed and the same calls give the same run. Four kinds of methods:
///
/// - **inputs**: [`handle_packet`](Self::handle_packet), [`handle_timeout`](Self::handle_timeout),
///   [`handle_send_error`](Self::handle_send_error), and for streams
///   [`handle_stream_ping`](Self::handle_stream_ping),
///   [`serve_push_pull`](Self::serve_push_pull) with
///   [`finish_push_pull`](Self::finish_push_pull) or [`tell_busy`](Self::tell_busy),
///   [`handle_stream_response`](Self::handle_stream_response);
/// - **commands**: [`join`](Self::join), [`cancel_join`](Self::cancel_join), [`leave`](Self::leave),
///   [`update_meta`](Self::update_meta), [`ping`](Self::ping), [`broadcast`](Self::broadcast),
///   [`send`](Self::send);
/// - **outputs**: [`poll_transmit`](Self::poll_transmit),
///   [`poll_stream_request`](Self::poll_stream_request), [`poll_event`](Self::poll_event),
///   [`poll_timeout`](Self::poll_timeout);
/// - **getters**: [`members`](Self::members), [`own`](Self::own),
///   [`health_score`](Self::health_score), [`stats`](Self::stats) and others.
///
/// After any input or command, drain the first three outputs until they give `None`, then ask
/// `poll_timeout` when to call `handle_timeout` next. `now` must not go backwards.
///
/// ```
/// use std::time::Instant;
/// use memberlist_protocol::{Config, Membership, NodeId, wire::Room};
///
/// let id = NodeId::new("a")?;
/// let now = Instant::now();
/// let addr = "127.0.0.1:7946".parse()?;
/// let mut node = Membership::new(Config::lan(), id, addr, Default::default(), 42, now, Box::new(()))?;
/// node.join("127.0.0.1:7947".parse::<std::net::SocketAddr>()?.into());
///
/// let mut packet = Vec::new();
/// let room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };
/// while let Some(transmit) = node.poll_transmit(&mut packet, &mut |_| room) { /* send it */ }
/// while let Some(request) = node.poll_stream_request() { /* open a stream */ }
/// while let Some(event) = node.poll_event() { /* tell the application */ }
/// let wake_at = node.poll_timeout();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Membership {
    config: Config,
    app: Box<dyn Application + Send>,
    rng: StdRng,
    stats: Stats,
    /// The own name; the own record is in the table like any other.
    id: NodeId,
    /// The own incarnation. The record's follows it.
    incarnation: u32,
    settled: refute::Settled,
    leaving: bool,
    /// It has left, and wants to be alive again when a join succeeds.
    returning: bool,
    /// The farewell that is still being sent.
    farewell: Option<OperationId>,
    /// It was said again, at a later incarnation.
    farewell_repeated: bool,
    members: Members,
    tombstones: Tombstones,
    awareness: Awareness,
    timers: Timers,

    probe_timer: Option<TimerKey>,
    push_pull_timer: Option<TimerKey>,
    probe: Option<Probe>,
    /// A probe was due while another was running.
    probe_overdue: bool,
    pending_pings: BTreeMap<u32, PendingPing>,
    relays: usize,
    next_sequence: u32,

    news: broadcast::BroadcastQueue<NodeId, gossip::News>,
    user: UserQueues,
    /// Of this run; its broadcasts are numbered within it.
    broadcast_epoch: u32,
    broadcasts_made: u64,
    seen_broadcasts: user_broadcast::SeenBroadcasts,
    gossip_timer: Option<TimerKey>,
    gossip_phase: Instant,
    eager: eager::Eager,
    reconnect_timer: Option<TimerKey>,
    /// What the outer layers add to a packet, in bytes.
    outer_overhead: usize,
    /// What fits to every peer at any time.
    assured_packet_bytes: usize,
    /// Whether packets carry one.
    checksum: bool,

    exchanges: BTreeMap<OperationId, Exchange>,
    deferred_joins: BTreeMap<OperationId, busy::DeferredJoin>,
    /// Until when places were promised to those who were told to come back.
    promised_until: Option<Instant>,
    serving: usize,
    merges: VecDeque<Merge>,
    /// Merges are waiting for their next slice since then.
    merge_due: Option<Instant>,
    next_operation: NonZeroU64,
    sync: sync::DeltaSync,
    own_update: Option<digest::OwnUpdate>,
    diary: diary::Diary,

    outbox: VecDeque<Outgoing>,
    requests: VecDeque<StreamRequest>,
    events: VecDeque<Event>,
    /// User messages among the events.
    waiting_messages: usize,
    scratch: Vec<u8>,
    reader: PacketReader,
}

impl Membership {
    /// A node that is alive and alone. `seed` fixes every random choice; outside of tests it must
    /// come from the system's randomness.
    ///
    /// # Errors
    /// If the settings, the address or the meta cannot be used.
    pub fn new(
        config: Config,
        id: NodeId,
        addr: SocketAddr,
        meta: Bytes,
        seed: u64,
        now: Instant,
        app: Box<dyn Application + Send>,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let (len, limit) = (meta.len(), config.max_meta_bytes);
        if len > limit {
            return Err(MetaError { len, limit }.into());
        }
        let addr = canonical(addr);
        if addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast() {
            return Err(StartError::Address(addr));
        }
        let mut rng = members::seeded_rng(seed);
        let members = Members::new(&mut rng);
        let news = broadcast::BroadcastQueue::new(rng.random());
        let user = UserQueues::new(rng.random());
        let (next_sequence, broadcast_epoch) = (rng.random(), rng.random());
        let seen_broadcasts = user_broadcast::SeenBroadcasts::new(rng.random());
        let checksum = config.checksum;
        let eager = eager::Eager::new(&config, now);
        let mut machine = Self {
            awareness: Awareness::new(config.awareness_max_multiplier),
            tombstones: Tombstones::new(config.max_tombstones, rng.random()),
            assured_packet_bytes: config.max_packet_bytes,
            config,
            app,
            rng,
            stats: Stats::default(),
            id: id.clone(),
            incarnation: 0,
            settled: refute::Settled::new(now),
            leaving: false,
            returning: false,
            farewell: None,
            farewell_repeated: false,
            members,
            timers: Timers::default(),
            probe_timer: None,
            push_pull_timer: None,
            probe: None,
            probe_overdue: false,
            pending_pings: BTreeMap::new(),
            relays: 0,
            next_sequence,
            news,
            user,
            broadcast_epoch,
            broadcasts_made: 0,
            seen_broadcasts,
            gossip_timer: None,
            gossip_phase: now,
            eager,
            reconnect_timer: None,
            outer_overhead: 0,
            checksum,
            exchanges: BTreeMap::new(),
            deferred_joins: BTreeMap::new(),
            promised_until: None,
            serving: 0,
            merges: VecDeque::new(),
            merge_due: None,
            next_operation: NonZeroU64::MIN,
            sync: sync::DeltaSync::new(now),
            own_update: None,
            diary: diary::Diary::default(),
            outbox: VecDeque::new(),
            requests: VecDeque::new(),
            events: VecDeque::new(),
            waiting_messages: 0,
            scratch: Vec::new(),
            reader: PacketReader::default(),
        };
        let node = Node::new(id, addr, meta, machine.config.versions());
        machine.start_timers(now);
        machine.announce_self(node, None, now);
        Ok(machine)
    }

    /// Staggers the periodic work, so that nodes started together do not stay in step.
    fn start_timers(&mut self, now: Instant) {
        self.gossip_phase = now + self.random_part(self.config.gossip_interval);
        self.restart_probing(now);
        self.restart_push_pull(now);
    }

    fn random_part(&mut self, of: Duration) -> Duration {
        of.mul_f64(self.rng.random::<f64>())
    }

    // ---- inputs -------------------------------------------------------------------------------

    /// Takes one packet, without its outer layers. `from.name` is the name that the transport has
    /// verified, if it verifies any.
    ///
    /// # Errors
    /// If the packet as a whole cannot be read; it has been counted. (A message in it that cannot
    /// be read is counted and skipped.)
    pub fn handle_packet(
        &mut self,
        from: &Peer,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), PacketError> {
        let mut reader = std::mem::take(&mut self.reader);
        let read = reader.read(self.config.wire_format, packet);
        let read = read.map(|content| self.handle_messages(from, packet.len(), content, now));
        match &read {
            Ok(kind) => {
                self.diary.last_packet = Some(now);
                self.stats.count_packet_received(*kind, packet.len());
            }
            Err(error) => {
                self.drop(error.reason());
                self.stats.count_packet_received(PacketKind::Unreadable, packet.len());
            }
        }
        self.reader = reader;
        read.map(drop)
    }

    fn handle_messages(
        &mut self,
        from: &Peer,
        came: usize,
        packet: Packet<'_>,
        now: Instant,
    ) -> PacketKind {
        let dialect = packet.dialect();
        self.stats.packets_received_hashicorp += u64::from(dialect == Dialect::Hashicorp);
        let mut answers = self.answers_per_packet(dialect, came);
        let mut kind = None;
        packet.for_each(|message| match message {
            Ok(message) => {
                kind = Some(PacketKind::of(kind, message.kind()));
                self.handle_message(from, &message, &mut answers, now);
            }
            Err(error) => self.drop(error.reason()),
        });
        if let Some(speaker) = &answers.speaker {
            self.note_heard(speaker.as_str(), now);
        }
        // The sender's view has in it what else the packet says.
        match (answers.speaker, answers.view) {
            (Some(speaker), Some(digest)) => self.hear_view(&speaker, digest, now),
            (Some(speaker), None) => self.miss_view(&speaker),
            (None, _) => {}
        }
        self.watch_view(now);
        kind.unwrap_or(PacketKind::Unreadable)
    }

    fn handle_message(
        &mut self,
        from: &Peer,
        message: &Message<'_>,
        answers: &mut relay::Answers,
        now: Instant,
    ) {
        self.stats.count_received(message.kind());
        match message {
            Message::Ping(ping) => self.handle_ping(from, ping, answers, now),
            Message::IndirectPing(ping) => self.handle_indirect_ping(from, ping, answers, now),
            Message::Ack(ack) => {
                answers.speaker = self.asked_member(from, ack.sequence);
                self.handle_ack(from, ack, now);
            }
            Message::Nack(nack) => self.handle_nack(from, *nack),
            Message::Suspect(suspect) => {
                self.answer_old_accusation(from, suspect, answers, now);
                self.repeat_farewell(suspect, now);
                self.suspect(suspect, None, now);
            }
            Message::Alive(alive) if self.poses_as(from, alive.node, alive.addr) => {
                self.drop(DropReason::IdentityMismatch);
            }
            Message::Alive(alive) => self.alive(alive, now),
            Message::Dead(dead) => {
                self.answer_old_farewell(from, dead, answers, now);
                self.dead(dead, now);
            }
            Message::User(payload) => self.deliver(from.addr, None, payload),
            Message::Broadcast(broadcast) => self.handle_broadcast(from.addr, broadcast, now),
            Message::View(view) => self.handle_view(from, view, answers),
            Message::Sync(body) => {
                self.handle_sync(from, answers.speaker.clone(), body, answers, now);
            }
        }
    }

    /// Gives a user message to the owner, unless it has let too many wait.
    fn deliver(&mut self, from: SocketAddr, origin: Option<NodeId>, payload: &[u8]) {
        if self.waiting_messages >= MAX_WAITING_MESSAGES {
            return self.drop(DropReason::MessageQueueFull);
        }
        self.waiting_messages += 1;
        let payload = Bytes::copy_from_slice(payload);
        self.events.push_back(Event::UserMessage { from, origin, payload });
    }

    /// Does what is due. Call it when the time of [`poll_timeout`](Self::poll_timeout) has come;
    /// earlier or more often does no harm. One call applies at most one slice of a large merge.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::ProbeTick => self.probe_tick(now),
                Timer::ProbeTimeout => self.probe_timeout(now),
                Timer::ProbeDeadline => self.probe_deadline(now),
                Timer::GossipTick => self.gossip_tick(now),
                Timer::EagerRound => self.eager_round(now),
                Timer::SyncDue => self.sync_due(now),
                Timer::PushPullTick => self.push_pull_tick(now),
                Timer::JoinRetry(id) => self.retry_join(id),
                Timer::ReconnectTick => self.reconnect_tick(now),
                Timer::Suspicion(id) => self.suspicion_expired(&id, now),
                Timer::PingExpiry(sequence) => self.ping_expired(sequence),
                Timer::RelayNack(sequence) => self.relay_late(sequence),
            }
        }
        self.merge_slice(now);
    }

    /// Tells that a packet to this peer could not be sent ("network unreachable"). If it was the
    /// ping of the running probe, relays are asked at once.
    pub fn handle_send_error(&mut self, to: &Peer, now: Instant) {
        self.stats.send_errors += 1;
        self.probe_send_failed(to, now);
    }

    /// Tells how many bytes the outer layers (label, encryption) add to a packet, and whether they
    /// authenticate it: then it carries no checksum. Both may change at any time; what is queued is
    /// packed accordingly.
    ///
    /// The caller must see to it that an announcement still fits: the longest meta, the own name and
    /// [`ALIVE_FIXED_BYTES`](crate::ALIVE_FIXED_BYTES) besides these bytes. A node whose announcement
    /// fits no packet cannot contradict its own death.
    pub fn set_outer_layers(&mut self, overhead_bytes: usize, authenticate: bool) {
        self.outer_overhead = overhead_bytes;
        self.checksum = self.config.checksum && !authenticate;
        self.drop_what_fits_no_packet();
    }

    /// Tells how large a packet fits to every peer at any time, if the limit differs from peer to peer:
    /// what waits to be sent to anybody must fit it. Until then, and at most,
    /// [`Config::max_packet_bytes`].
    pub fn set_assured_packet_bytes(&mut self, bytes: usize) {
        self.assured_packet_bytes = bytes.min(self.config.max_packet_bytes);
        self.drop_what_fits_no_packet();
    }

    /// Counts something that was dropped before it came here, or after it left.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.stats.count_drop(reason);
    }

    // ---- outputs ------------------------------------------------------------------------------

    /// The next thing to tell the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if matches!(&event, Event::BroadcastDone(id) if self.farewell == Some(*id)) {
            self.farewell = None;
        }
        self.waiting_messages -= usize::from(matches!(event, Event::UserMessage { .. }));
        if self.events.is_empty() {
            // A burst must not keep its memory for ever.
            self.events.shrink_to(KEPT_EVENTS);
        }
        Some(event)
    }

    /// The next stream to open. Each request must be answered once with
    /// [`handle_stream_response`](Self::handle_stream_response).
    pub fn poll_stream_request(&mut self) -> Option<StreamRequest> {
        self.requests.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called. A time in the past means
    /// at once, after packets that have already arrived.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.merge_due].into_iter().flatten().min()
    }

    // ---- getters ------------------------------------------------------------------------------

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The own name.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// This node as it announces itself.
    pub fn own(&self) -> Member {
        self.own_record().to_member()
    }

    /// Every known record, dead and left ones included until they are reaped.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().map(Record::to_member)
    }

    /// One member by name.
    pub fn member(&self, name: &str) -> Option<Member> {
        self.members.get(name).map(Record::to_member)
    }

    /// The last round trip of a direct ping, of each known member that ever answered one.
    pub fn round_trips(&self) -> impl Iterator<Item = (NodeId, Duration)> + '_ {
        self.members.iter().filter_map(|record| Some((record.node.id.clone(), record.rtt()?)))
    }

    /// How many members are alive or suspect, this node included (while it has not left).
    pub fn live_members(&self) -> usize {
        self.members.live()
    }

    /// The estimated cluster size: all known records.
    pub fn known_members(&self) -> usize {
        self.members.len()
    }

    /// How far this node doubts itself: 0 is healthy, below
    /// [`Config::awareness_max_multiplier`].
    pub fn health_score(&self) -> u32 {
        self.awareness.score()
    }

    /// Whether this node has said farewell (and not joined again).
    pub fn has_left(&self) -> bool {
        self.leaving
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What is remembered of reaped members, oldest first.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.iter()
    }

    /// Bytes of news and user broadcasts that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.news.bytes() + self.user.bytes()
    }

    /// Items of news about members, and user broadcasts, that wait to be sent.
    pub fn queued_broadcasts(&self) -> (usize, usize) {
        (self.news.len(), self.user.len())
    }

    /// How much is under way.
    pub fn pending(&self) -> Pending {
        Pending {
            timers: self.timers.len(),
            pings: self.pending_pings.len(),
            relays: self.relays,
            exchanges: self.exchanges.len(),
            deferred_joins: self.deferred_joins.len(),
            merges: self.serving + self.merges.len(),
            packets: self.outbox.len(),
        }
    }

    // ---- shared by the mechanisms -------------------------------------------------------------

    fn own_record(&self) -> &Record {
        // The own record is inserted by `new` and never reaped.
        match self.members.get(self.id.as_str()) {
            Some(record) => record,
            None => unreachable!("the own record is never removed"),
        }
    }

    fn is_self(&self, name: &str) -> bool {
        self.id.as_str() == name
    }

    fn drop(&mut self, reason: DropReason) {
        self.stats.count_drop(reason);
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        sequence
    }

    fn next_operation(&mut self) -> OperationId {
        let id = self.next_operation;
        self.next_operation = id.saturating_add(1);
        OperationId(id)
    }

    fn change_health(&mut self, delta: i32, cause: HealthCause, now: Instant) {
        // Without LHA-Probe nothing would ever lower the score again.
        if self.config.lifeguard.health_aware_probe && self.awareness.apply(delta) {
            let score = self.awareness.score();
            self.diary.note_health(HealthChange { at: now, score, cause });
            self.events.push_back(Event::HealthChanged(score));
        }
    }

    /// Makes this node alive at its next incarnation and tells the others.
    fn announce_self(&mut self, node: Node, done: Option<OperationId>, now: Instant) {
        self.incarnation += 1;
        let node = Arc::new(node);
        let position = match self.members.position(self.id.as_str()) {
            Some(position) => position,
            None => {
                let record = Record::new(Arc::clone(&node), 0, NodeState::Dead, now);
                self.members.insert(record, &mut self.rng)
            }
        };
        self.members.set_incarnation(position, self.incarnation);
        let record = self.members.at_mut(position);
        let was = record.state();
        let changed = record.node != node;
        record.node = node;
        if was != NodeState::Alive {
            self.members.at_mut(position).death = None;
            self.members.set_state(position, NodeState::Alive, now);
        }
        self.queue_own_alive(done, now);
        let member = self.members.at(position).to_member();
        if was.is_gone() {
            self.events.push_back(Event::Joined(member));
        } else if changed {
            self.events.push_back(Event::Updated(member));
        }
    }
}

/// An announcement that borrows from a record.
/// By how much the largest things that a node holds grow: by an eighth, since doubling would leave half of
/// them unused.
fn growth(len: usize) -> usize {
    len / 8 + 16
}

fn alive_of(node: &Node, incarnation: u32) -> Alive<'_> {
    Alive {
        incarnation,
        node: node.id.as_str(),
        addr: node.addr,
        wide_ipv4: node.wide_ipv4,
        meta: &node.meta,
        versions: node.versions,
    }
}
