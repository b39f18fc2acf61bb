//! The node's lines in the log, each kind at a bounded rate: what peers do must not fill a disk.
//!
//! A healthy cluster says nothing above `debug` but who joins and who goes. `warn` is for what somebody should
//! look at, `error` for an application that panics.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memberlist_protocol::wire::PacketError;
use memberlist_protocol::{DropReason, Member, Node, NodeId, Peer, Shown};
use memberlist_transport::{RecvError, SendError};
use tracing::{debug, info, warn};

use crate::limit::RateLimit;

/// Lines about members that come or go in a spacing: a cluster of a thousand may join at once.
const MEMBER_LINES: u64 = 1000;

/// When each kind was written last.
#[derive(Debug)]
pub(crate) struct Lines {
    unreceivable: RateLimit,
    unreadable: RateLimit,
    unsendable: RateLimit,
    conflicts: RateLimit,
    stalls: RateLimit,
    packets_lost: RateLimit,
    disagreements: RateLimit,
    members: RateLimit,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            unreceivable: RateLimit::default(),
            unreadable: RateLimit::default(),
            unsendable: RateLimit::default(),
            conflicts: RateLimit::default(),
            stalls: RateLimit::default(),
            packets_lost: RateLimit::default(),
            disagreements: RateLimit::default(),
            members: RateLimit::of(MEMBER_LINES),
        }
    }
}

impl Lines {
    pub(crate) fn unreceivable(&mut self, error: &RecvError) {
        if let Some(more) = self.unreceivable.allow() {
            warn!(error = %Shown(error), more, "could not receive a packet");
        }
    }

    pub(crate) fn unsendable(&mut self, to: &Peer, error: &SendError) {
        if let Some(more) = self.unsendable.allow() {
            warn!(to = %Shown(to), error = %Shown(error), more, "could not send a packet");
        }
    }

    pub(crate) fn unreadable(&mut self, peer: &Peer, error: &PacketError) {
        let Some(more) = self.unreadable.allow() else { return };
        match error.reason() {
            DropReason::WrongFormat | DropReason::WrongVersion => {
                warn!(peer = %Shown(peer), error = %Shown(error), more,
                    "a packet of another format: check that all nodes use the same wire format, label and \
                    encryption");
            }
            _ => {
                warn!(peer = %Shown(peer), error = %Shown(error), more, "unreadable packet");
            }
        }
    }

    /// This node did what was due so much too late; answers are waited for as long as `patience`.
    pub(crate) fn stalled(&mut self, late: Duration, patience: Duration) {
        if late < patience {
            return debug!(?late, "this node ran late");
        }
        if let Some(more) = self.stalls.allow() {
            warn!(
                ?late,
                more,
                "this node stood still: answers that it waited for may have been late by that"
            );
        }
    }

    pub(crate) fn joined(&mut self, member: &Member) {
        if let Some(more) = self.members.allow() {
            let incarnation = member.incarnation;
            info!(node = %Shown(member.id()), addr = %member.addr(), incarnation, more, "joined");
        }
    }

    pub(crate) fn gone(&mut self, member: &Member) {
        let Some(more) = self.members.allow() else { return };
        let reason = member.death.as_deref().map(ToString::to_string).unwrap_or_default();
        let (incarnation, state) = (member.incarnation, member.state);
        info!(node = %Shown(member.id()), addr = %member.addr(), incarnation, more, %state, "{}",
            Shown(reason));
    }

    pub(crate) fn conflict(&mut self, existing: &Node, other: &Node) {
        if let Some(more) = self.conflicts.allow() {
            warn!(node = %Shown(&existing.id), mine = %existing.addr, theirs = %other.addr, more,
                "two nodes claim one name");
        }
    }

    pub(crate) fn disagreement(
        &mut self,
        own: &NodeId,
        member: &NodeId,
        since: Instant,
        now: Instant,
    ) {
        if let Some(more) = self.disagreements.allow() {
            let seconds = now.saturating_duration_since(since).as_secs();
            warn!(%own, member = %Shown(member), seconds, more,
                "this node and that member believe different members alive, and comparing them does not help");
        }
    }

    pub(crate) fn packets_lost(&mut self, node: &Node, stray_ack: Option<SocketAddr>) {
        let Some(more) = self.packets_lost.allow() else { return };
        match stray_ack {
            Some(from) => warn!(node = %Shown(&node.id), addr = %node.addr, %from, more,
                "answers from another address than it advertises: set its advertise address, or switch \
                `verify_ack_source` off"),
            None => warn!(node = %Shown(&node.id), addr = %node.addr, more,
                "answers over a stream only: packets to it or from it are lost"),
        }
    }
}
