//! Joining: the first exchange of states with a cluster (Go `Join`).
//!
//! A join is a push/pull with a seed. The seed learns of this node from the state that it is sent,
//! and gossips it; this node learns everybody. The caller tries as many seeds as it likes, at the
//! same time; each has its own result. A seed that has no place now says when to come back: see `busy`.
//!
//! A node that has left is alive again from its next join on. (In Go it stays so until its process
//! ends.) What it believes of others is from before, and it has not kept it up, so the seed's word
//! counts: whom the seed does not know, it suspects, without telling others, so that it brings nobody
//! back who is long forgotten, and calls nobody dead because the seed is new itself. Nobody joins
//! through a node that has left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::event::Death;
use super::members::Record;
use super::push_pull::Purpose;
use super::{Event, Membership, OperationId, StreamRequestKind};
use crate::config::ALIVE_FIXED_BYTES;
use crate::node::{Node, NodeId, NodeState, Peer, canonical};
use crate::wire::stream::{RemoteRecord, RemoteState};

impl Membership {
    /// Joins the cluster of a seed; the end is reported as [`Event::JoinDone`]. A node
    /// that has left is alive again when it has succeeded, unless it has left again meanwhile.
    ///
    /// A seed that is busy is asked again when it says, or another member that it names, under the same
    /// operation: at most ten times in all, the last at most three
    /// [`stream_timeout`](crate::Config::stream_timeout) after it was busy for the first time. Then it ends
    /// with [`ExchangeError::Busy`](crate::ExchangeError::Busy).
    pub fn join(&mut self, seed: Peer) -> OperationId {
        self.returning |= self.leaving;
        self.start_exchange(seed, StreamRequestKind::PushPull { join: true }, Purpose::Join)
    }

    /// Takes a farewell back: this node is alive again, at its next incarnation. Does nothing if it
    /// has not left.
    pub(super) fn rejoin(&mut self, now: Instant) {
        if !self.leaving {
            return;
        }
        self.leaving = false;
        self.returning = false;
        self.farewell = None;
        let node = Node::clone(&self.own_record().node);
        self.announce_self(node, None, now);
        if self.members.iter().any(|record| record.state().is_gone()) {
            self.arm_reconnect(now);
        }
    }

    /// A seed has answered: this node is back, and believes the seed where the two differ.
    pub(super) fn come_back(&mut self, seed: &RemoteState, now: Instant) {
        let known: HashMap<&NodeId, &RemoteRecord> =
            seed.nodes.iter().map(|record| (&record.node.id, record)).collect();
        for position in 0..self.members.len() {
            let ours = self.members.at(position);
            if known.get(&ours.node.id).is_some_and(|theirs| begins_anew(ours, theirs)) {
                self.end_life(position, now);
            }
        }
        let own = self.id.clone();
        let gone = |record: &Record| record.state().is_gone() && record.node.id != own;
        for record in self.members.remove_where(gone) {
            self.events.push_back(Event::Reaped(record.node.id.clone()));
        }
        let doubtful: Vec<NodeId> = (self.members.iter())
            .filter(|ours| !known.contains_key(&ours.node.id))
            .map(|ours| ours.node.id.clone())
            .collect();
        self.rejoin(now);
        for id in doubtful {
            self.doubt(&id, now);
        }
    }

    fn end_life(&mut self, position: usize, now: Instant) {
        let declared_by = self.id.clone();
        let death = Death { declared_by, at: now, left: false, probe: None, suspicion: None };
        self.members.at_mut(position).death = Some(Arc::new(death));
        self.members.set_state(position, NodeState::Dead, now);
        self.events.push_back(Event::Gone(self.members.at(position).to_member()));
    }

    /// Changes the own meta, and tells everybody. The end of telling is reported as
    /// [`Event::BroadcastDone`]; with nobody to tell, at once.
    ///
    /// # Errors
    /// If it is over [`max_meta_bytes`](crate::Config::max_meta_bytes), or beside the outer layers over
    /// what fits a packet.
    pub fn update_meta(
        &mut self,
        meta: bytes::Bytes,
        now: Instant,
    ) -> Result<OperationId, crate::error::MetaError> {
        let beside = self.id.as_str().len() + ALIVE_FIXED_BYTES + self.outer_overhead;
        let room = self.assured_packet_bytes.saturating_sub(beside);
        let (len, limit) = (meta.len(), self.config.max_meta_bytes.min(room));
        if len > limit {
            return Err(crate::error::MetaError { len, limit });
        }
        let done = self.next_operation();
        let mut node = Node::clone(&self.own_record().node);
        node.meta = meta;
        if self.leaving {
            // Remembered for a later rejoin; nobody is to be told now.
            if let Some(record) = self.members.get_mut(self.id.as_str()) {
                record.node = Arc::new(node);
            }
            self.events.push_back(Event::BroadcastDone(done));
            return Ok(done);
        }
        let waiting = self.somebody_listens().then_some(done);
        self.announce_self(node, waiting, now);
        if waiting.is_none() {
            self.events.push_back(Event::BroadcastDone(done));
        }
        Ok(done)
    }

    /// Whether there is another live member, and gossip to reach it: else there is nobody to wait
    /// for.
    pub(super) fn somebody_listens(&self) -> bool {
        let own = usize::from(self.own_record().state().is_live());
        let gossips = !self.config.gossip_interval.is_zero() && self.config.gossip_nodes > 0;
        self.members.live() > own && gossips
    }
}

/// Whether the seed speaks of another life of a member: at another address, or below the incarnation
/// of the one that is known here.
fn begins_anew(ours: &Record, theirs: &RemoteRecord) -> bool {
    ours.state().is_live()
        && (ours.node.addr != canonical(theirs.node.addr)
            || ours.incarnation() > theirs.incarnation)
}
