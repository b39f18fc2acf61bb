//! What the application may tell the node, and be told by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::wire::stream::RemoteRecord;
use memberlist_protocol::{Member, Node, NodeId, Peer, Refusal};

use crate::events::Event;

/// A message of another node's application.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UserMessage {
    /// The bytes.
    pub payload: Bytes,
    /// Where they came from: the sender of a direct message, the last hop of a broadcast. For a
    /// reliable message over TCP the port is a passing one.
    pub from: SocketAddr,
    /// The member that made it, if it is a broadcast.
    pub origin: Option<NodeId>,
    /// Whether they came over a stream.
    pub reliable: bool,
}

/// The application's side of a node. Every method has a default that does nothing or agrees.
///
/// Methods come in three classes:
///
/// - **Decisions** ([`admit_alive`](Self::admit_alive), [`admit_merge`](Self::admit_merge),
///   [`ack_payload`](Self::ack_payload), [`broadcasts`](Self::broadcasts),
///   [`has_broadcasts`](Self::has_broadcasts),
///   [`allows_stream_ping`](Self::allows_stream_ping)) are called on the node's own task, in the
///   middle of its work: while they run, no ping is answered. Keep them short; they may read
///   ([`members`](crate::Memberlist::members)) but must not wait for the node. One that panics is
///   logged, and taken for a refusal, or for nothing to say.
/// - **State** ([`local_state`](Self::local_state)) is called on the task of the stream that needs
///   it; several may run at once.
/// - **Observations** (`notify_…` and [`merge_remote_state`](Self::merge_remote_state)) are called
///   one at a time and in order, from two sides: one for messages, one for everything else. They
///   run on tokio's threads for blocking work: they may block, and may call any method of the
///   handle, those that await through `tokio::runtime::Handle::current().block_on(…)`. While they
///   are slow, events wait, up to [`event_capacity`](crate::Config::event_capacity), after which a
///   snapshot replaces them; states of other applications, up to
///   [`max_waiting_state_bytes`](crate::Config::max_waiting_state_bytes), and results of pings, as
///   many as events, after which the newest are dropped and counted; and messages up to
///   [`message_capacity`](crate::Config::message_capacity). For much work that awaits, take the
///   messages from a [channel](crate::Builder::messages) or
///   [subscribe](crate::Memberlist::subscribe) instead. One that panics is logged, and called again
///   for what comes next.
///
/// By the time an observation is called, [`members`](crate::Memberlist::members) already shows it.
pub trait Delegate: Send + Sync + 'static {
    /// The meta to start with, at most `limit` bytes; none leaves
    /// [`Config::meta`](crate::Config::meta). Called once, by the start.
    fn node_meta(&self, limit: usize) -> Option<Bytes> {
        let _ = limit;
        None
    }

    // ---- decisions

    /// Whether a node may be a member; see
    /// [`Application::admit_alive`](memberlist_protocol::Application::admit_alive).
    ///
    /// # Errors
    /// The reason for refusing it.
    fn admit_alive(&self, node: &Node) -> Result<(), Refusal> {
        let _ = node;
        Ok(())
    }

    /// Whether to merge with the cluster of a peer that joins, or that is joined.
    ///
    /// # Errors
    /// The reason for refusing it.
    fn admit_merge(&self, peer: &Peer, nodes: &[RemoteRecord]) -> Result<(), Refusal> {
        let _ = (peer, nodes);
        Ok(())
    }

    /// Bytes to send along with the ack of a member's ping.
    fn ack_payload(&self) -> Bytes {
        Bytes::new()
    }

    /// Whether [`broadcasts`](Self::broadcasts) may have something. Asked at the start and at each
    /// gossip tick; after it said no, call
    /// [`broadcasts_available`](crate::Memberlist::broadcasts_available) to be asked again.
    fn has_broadcasts(&self) -> bool {
        false
    }

    /// Broadcasts for one packet: each costs its length plus `overhead` of the `limit`, in bytes.
    /// What goes over the limit is dropped and counted.
    fn broadcasts(&self, overhead: usize, limit: usize) -> Vec<Bytes> {
        let _ = (overhead, limit);
        Vec::new()
    }

    /// Whether this member may be pinged over a stream when its packets are lost.
    fn allows_stream_ping(&self, node: &Node) -> bool {
        let _ = node;
        true
    }

    // ---- state

    /// The application's state, at most 20 MiB. `join` says whether it is a first contact. Default none.
    /// If it panics, that exchange fails on both sides.
    ///
    /// Asked for in every exchange of states. Between full push/pulls it is sent only to who has neither
    /// merged it last nor an equal one, which is told by a digest of its bytes: give the same bytes for
    /// the same state, so without a time in them, and with what is in a map in a fixed order. Of two
    /// states with one digest, which nobody meets who does not construct them, the second is sent with
    /// the next change, full push/pull or join.
    fn local_state(&self, join: bool) -> Bytes {
        let _ = join;
        Bytes::new()
    }

    // ---- observations

    /// A user message or broadcast arrived. Not called when messages go to a
    /// [channel](crate::Builder::messages).
    fn notify_message(&self, message: UserMessage) {
        let _ = message;
    }

    /// Anything happened. The default calls the methods below.
    fn notify_event(&self, event: &Event) {
        match event {
            Event::Snapshot { members, missed } => self.notify_snapshot(members, *missed),
            Event::Joined(member) => self.notify_join(member),
            Event::Left(member) => self.notify_leave(member),
            Event::Updated(member) => self.notify_update(member),
            Event::Suspected(member) | Event::Cleared(member) => self.notify_state(member),
            Event::Conflict { existing, other } => self.notify_conflict(existing, other),
            Event::Forgotten(id) => self.notify_forgotten(id),
            Event::HealthChanged(_) | Event::Refuted { .. } => {}
        }
    }

    /// All known members, at the start and after events were missed: how many is said, 0 at the
    /// start.
    fn notify_snapshot(&self, members: &Arc<[Member]>, missed: u64) {
        let _ = (members, missed);
    }

    /// A member is new, or back.
    fn notify_join(&self, member: &Member) {
        let _ = member;
    }

    /// A member left or died; its [`death`](Member::death) says which and why.
    fn notify_leave(&self, member: &Member) {
        let _ = member;
    }

    /// A member announced other meta or versions.
    fn notify_update(&self, member: &Member) {
        let _ = member;
    }

    /// A member is suspected, or is not any more.
    fn notify_state(&self, member: &Member) {
        let _ = member;
    }

    /// Two nodes claim one name. The existing one stays.
    fn notify_conflict(&self, existing: &Arc<Node>, other: &Node) {
        let _ = (existing, other);
    }

    /// A gone member was forgotten.
    fn notify_forgotten(&self, id: &NodeId) {
        let _ = id;
    }

    /// A member answered a probe directly: its round-trip time and the payload of its ack.
    fn notify_ping_complete(&self, node: &Arc<Node>, rtt: Duration, payload: &Bytes) {
        let _ = (node, rtt, payload);
    }

    /// The state of another node's application, after the members that came with it were merged. Never
    /// empty. One that has not changed since may come again.
    fn merge_remote_state(&self, state: Bytes, join: bool) {
        let _ = (state, join);
    }
}

/// No application: agrees to everything, hears nothing.
impl Delegate for () {}
