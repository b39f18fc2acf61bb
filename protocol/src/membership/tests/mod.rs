//! The machine in virtual time.
//!
//! Two harnesses. [`One`] is a single machine whose other side is written by hand, message by
//! message; [`Net`] is a cluster of machines connected by a simulated network. Both work on bytes,
//! check the machine's invariants after every step, and never sleep.

mod bad_input;
mod busy;
mod eager;
mod explain;
mod farewell;
mod gossip;
mod join_leave;
mod net;
mod probe;
mod push_pull;
mod reconfigure;
mod reconnect;
mod relay;
mod soak;
mod suspicion;
mod sync;
mod sync_attacks;
mod transitions;
mod user_state;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Application, Event, Membership};
use crate::message::{Ack, Alive, Dead, Message, MessageKind, Nack, Ping, PingSource, Suspect};
use crate::node::{NodeId, NodeState, Peer, Versions};
use crate::stats::DropReason;
use crate::wire::stream::{RemoteRecord, RemoteState, SnapshotRecord};
use crate::wire::{Dialect, PacketWriter, Room, inflate, read_packet};
use crate::{Config, Node};
use net::{Kind, Net};

/// Both sides of a packet are kept free, so that nothing counts on them being empty.
const ROOM: Room = Room { head: 5, tail: 7, max_packet_bytes: 1400 };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn name(i: usize) -> String {
    format!("n{i}")
}

fn id(i: usize) -> NodeId {
    NodeId::new(&name(i)).unwrap()
}

fn addr(i: usize) -> SocketAddr {
    let [.., high, low] = (i + 1).to_be_bytes();
    ([10, 0, high, low], 7946).into()
}

/// Where a packet of node `i` comes from.
fn peer(i: usize) -> Peer {
    addr(i).into()
}

/// LAN settings with neither exchanges nor comparisons of states: packets hold what a test asks for.
fn quiet() -> Config {
    let mut config = Config::lan();
    config.push_pull_interval = Duration::ZERO;
    config.reconnect_interval = Duration::ZERO;
    config.compression = false;
    config.delta_sync = false;
    config
}

fn alive(node: &str, i: usize, incarnation: u32) -> Alive<'_> {
    Alive {
        incarnation,
        node,
        addr: addr(i),
        wide_ipv4: false,
        meta: b"",
        versions: Versions::default(),
    }
}

fn suspect<'a>(node: &'a str, incarnation: u32, from: &'a str) -> Message<'a> {
    Message::Suspect(Suspect { incarnation, node, from })
}

fn dead<'a>(node: &'a str, incarnation: u32, from: &'a str) -> Message<'a> {
    Message::Dead(Dead { incarnation, node, from })
}

fn ack<'a>(sequence: u32) -> Message<'a> {
    Message::Ack(Ack { sequence, payload: b"", native: true })
}

fn nack<'a>(sequence: u32) -> Message<'a> {
    Message::Nack(Nack { sequence })
}

/// A ping as node `i` sends it to the machine.
fn ping<'a>(sequence: u32, from: &'a str, i: usize) -> Message<'a> {
    let source = Some(PingSource { node: from, addr: addr(i) });
    Message::Ping(Ping { sequence, node: "n0", source, native: true })
}

fn record(i: usize, incarnation: u32, state: NodeState) -> RemoteRecord {
    let node = Node::new(id(i), addr(i), Bytes::new(), Versions::default());
    RemoteRecord { node, incarnation, state }
}

fn state_of(join: bool, nodes: Vec<RemoteRecord>) -> RemoteState {
    RemoteState { join, nodes, ..RemoteState::default() }
}

fn to_remote(from: NodeId, join: bool, snapshot: &[SnapshotRecord]) -> RemoteState {
    let record = |record: &SnapshotRecord| RemoteRecord {
        node: Node::clone(&record.node),
        incarnation: record.incarnation,
        state: record.state,
    };
    let nodes = snapshot.iter().map(record).collect();
    RemoteState { from: Some(from), ..state_of(join, nodes) }
}

/// A packet with these messages.
fn packet(messages: &[Message<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 65_507 };
    let mut writer = PacketWriter::new(&mut bytes, Dialect::Native, true, room);
    for message in messages {
        assert!(writer.push(message), "a test's packet has room");
    }
    writer.finish();
    bytes
}

/// A packet that a machine sent.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sent {
    /// Since the beginning of the test.
    at: Duration,
    to: Peer,
    bytes: Vec<u8>,
}

impl Sent {
    fn messages(&self) -> Vec<Message<'_>> {
        let messages = read_packet(&self.bytes).unwrap();
        messages.map(|message| message.unwrap()).collect()
    }

    fn kinds(&self) -> Vec<MessageKind> {
        self.messages().iter().map(Message::kind).collect()
    }

    /// The sequence number of the ping or indirect ping that it starts with.
    fn sequence(&self) -> u32 {
        match self.messages()[0] {
            Message::Ping(ping) => ping.sequence,
            Message::IndirectPing(ping) => ping.sequence,
            other => panic!("no ping: {other:?}"),
        }
    }

    fn to_name(&self) -> &str {
        self.to.name.as_ref().map_or("", NodeId::as_str)
    }
}

/// Takes all packets that wait, and checks that each keeps to the room.
fn take_packets(machine: &mut Membership, at: Duration, room: Room) -> Vec<Sent> {
    let mut buf = Vec::new();
    let mut sent = Vec::new();
    while let Some(transmit) = machine.poll_transmit(&mut buf, &mut |_| room) {
        let limit = room.max_packet_bytes.min(machine.config.max_packet_bytes);
        assert_eq!(buf.len(), room.head + transmit.len);
        assert!(buf.len() + room.tail <= limit, "{} over {limit}", buf.len() + room.tail);
        let mut scratch = Vec::new();
        let plain = inflate(&buf[room.head..], &mut scratch).unwrap();
        let bytes = plain.to_vec();
        sent.push(Sent { at, to: transmit.to, bytes });
    }
    sent
}

/// What must hold of a machine between any two calls.
fn check_invariants(machine: &Membership) {
    let members = &machine.members;
    let live = || members.iter().filter(|record| record.state().is_live());
    assert_eq!(members.live(), live().count());
    let mut view = super::digest::ViewDigest::default();
    live().for_each(|record| view.add(record.node.id.as_str(), record.incarnation()));
    assert_eq!(members.view(), view);
    assert!(members.len() <= machine.config.max_members);
    for (at, record) in members.iter().enumerate() {
        let name = record.node.id.as_str();
        assert_eq!(members.position(name), Some(at));
        assert_eq!(record.suspicion.is_some(), record.state() == NodeState::Suspect, "{name}");
        assert_eq!(record.death.is_some(), record.state().is_gone(), "{name}");
        assert!(machine.tombstone(name).is_none(), "{name} is known and buried");
    }
    assert!(machine.tombstones().count() <= machine.config.max_tombstones);
    assert_eq!(machine.own().incarnation, machine.incarnation);
    let own = if machine.leaving { NodeState::Left } else { NodeState::Alive };
    assert_eq!(machine.own().state, own);
    assert!(machine.health_score() < machine.config.awareness_max_multiplier);
    assert!(machine.relays <= machine.config.max_relays);
    assert!(machine.relays <= machine.pending_pings.len());
    assert!(machine.user.len() <= machine.config.max_user_broadcasts);
}

/// One machine, `n0`, whose surroundings the test plays.
struct One {
    machine: Membership,
    began: Instant,
    now: Instant,
    sent: Vec<Sent>,
    room: Room,
    /// Whoever is pinged answers at once.
    healthy: bool,
}

impl One {
    fn new(config: Config) -> Self {
        Self::with_app(config, ())
    }

    fn with_app(config: Config, app: impl Application + Send + 'static) -> Self {
        Self::seeded(config, app, 7)
    }

    fn seeded(config: Config, app: impl Application + Send + 'static, seed: u64) -> Self {
        let now = Instant::now();
        let app = Box::new(app);
        let machine =
            Membership::new(config, id(0), addr(0), Bytes::new(), seed, now, app).unwrap();
        let mut one =
            Self { machine, began: now, now, sent: Vec::new(), room: ROOM, healthy: false };
        one.machine.testing_clear();
        one
    }

    /// A machine that knows `n1` to `n{others}` at incarnation 1 and has nothing to say.
    fn knowing(config: Config, others: usize) -> Self {
        let mut one = Self::new(config);
        one.know(1..=others);
        one
    }

    fn know(&mut self, nodes: impl IntoIterator<Item = usize>) {
        for i in nodes {
            self.machine.testing_alive(&alive(&name(i), i, 1), self.now);
            assert_eq!(self.state(i), Some(NodeState::Alive));
        }
        self.machine.testing_clear();
        self.drain();
    }

    fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// Changes the health score, as if this node had been accused.
    fn doubt(&mut self, by: i32) {
        let cause = super::HealthCause::Accused { of: NodeState::Suspect, by: None };
        self.machine.change_health(by, cause, self.now);
    }

    fn drain(&mut self) {
        let at = self.elapsed();
        let sent = take_packets(&mut self.machine, at, self.room);
        check_invariants(&self.machine);
        for packet in sent {
            if let (Message::Ping(ping), true) = (packet.messages()[0], self.healthy) {
                let answer = self::packet(&[ack(ping.sequence)]);
                let from = Peer::from(packet.to.addr);
                self.machine.handle_packet(&from, &answer, self.now).unwrap();
            }
            self.sent.push(packet);
        }
    }

    fn receive(&mut self, from: usize, messages: &[Message<'_>]) {
        self.receive_from(&peer(from), messages);
    }

    fn receive_from(&mut self, from: &Peer, messages: &[Message<'_>]) {
        self.machine.handle_packet(from, &packet(messages), self.now).unwrap();
        self.drain();
    }

    /// Lets time pass, with all that is due.
    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        let mut steps = 0;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            self.drain();
            steps += 1;
            assert!(steps < 100_000, "the machine wants to be woken again and again");
        }
        self.now = end;
    }

    /// The packets sent since the last call.
    fn sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// The packets sent since the last call that start with a message of that kind.
    fn sent_first(&mut self, kind: MessageKind) -> Vec<Sent> {
        let starts = |sent: &Sent| sent.messages()[0].kind() == kind;
        self.sent().into_iter().filter(starts).collect()
    }

    /// Lets time pass until the next probe begins; gives its ping.
    fn next_ping(&mut self) -> Sent {
        self.sent();
        for _ in 0..100_000 {
            let at = self.machine.poll_timeout().expect("a probe is coming");
            self.advance(at.saturating_duration_since(self.now));
            if let Some(ping) = self.sent_first(MessageKind::Ping).pop() {
                return ping;
            }
        }
        panic!("no probe began");
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }

    /// The names of events since the last call, such as `joined n1`.
    fn event_names(&mut self) -> Vec<String> {
        self.events().iter().map(event_name).collect()
    }

    fn state(&self, i: usize) -> Option<NodeState> {
        self.machine.member(&name(i)).map(|member| member.state)
    }

    fn incarnation(&self, i: usize) -> u32 {
        self.machine.member(&name(i)).unwrap().incarnation
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.machine.stats().drops(reason)
    }

    /// The news that wait to be sent.
    fn queued(&self) -> Vec<Sent> {
        let parts = self.machine.testing_queued(Dialect::Native);
        let wrap = |part: &Bytes| {
            let mut bytes = packet(&[]);
            let room = Room { head: 0, tail: 0, max_packet_bytes: 65_507 };
            let mut writer = PacketWriter::new(&mut bytes, Dialect::Native, true, room);
            assert!(writer.push_encoded(part));
            writer.finish();
            Sent { at: self.elapsed(), to: peer(0), bytes }
        };
        parts.iter().map(wrap).collect()
    }

    /// All that a test can see of the beliefs: to show that nothing changed.
    fn beliefs(&self) -> Vec<(String, SocketAddr, u32, NodeState, Bytes, Instant)> {
        let mut all: Vec<_> = (self.machine.members())
            .map(|m| {
                let meta = m.node.meta.clone();
                (m.id().to_string(), m.addr(), m.incarnation, m.state, meta, m.since)
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

fn event_name(event: &Event) -> String {
    match event {
        Event::Joined(member) => format!("joined {}", member.id()),
        Event::Gone(member) => format!("gone {}", member.id()),
        Event::Updated(member) => format!("updated {}", member.id()),
        Event::Renewed(member) => format!("renewed {}", member.id()),
        Event::Suspected(member) => format!("suspected {}", member.id()),
        Event::Cleared(member) => format!("cleared {}", member.id()),
        Event::Reaped(id) => format!("reaped {id}"),
        Event::Conflict { existing, .. } => format!("conflict {}", existing.id),
        Event::UserMessage { .. } => "user message".to_owned(),
        Event::PingCompleted { node, .. } => format!("ping completed {}", node.id),
        Event::PingDone { rtt, .. } => format!("ping done {}", rtt.is_some()),
        Event::JoinDone { result, .. } => format!("join done {}", result.is_ok()),
        Event::ExchangeFailed(_) => "exchange failed".to_owned(),
        Event::UserState { .. } => "user state".to_owned(),
        Event::BroadcastDone(_) => "broadcast done".to_owned(),
        Event::Converged { .. } => "converged".to_owned(),
        Event::HealthChanged(score) => format!("health {score}"),
        Event::Refuted { incarnation, .. } => format!("refuted {incarnation}"),
        Event::Disagreement { member, .. } => format!("disagreement with {member}"),
        Event::PacketsLost { node, .. } => format!("packets lost {}", node.id),
    }
}
