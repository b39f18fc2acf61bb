//! Joining: the first exchange of states with a cluster (Go `Join`).
//!
//! A join is a push/pull with a seed. The seed learns of this node from the state that it is sent,
//! and gossips it; this node learns everybody. The caller tries as many seeds as it likes, at the
//! same time; each has its own result.
//!
//! A node that has left is alive again from its next join on. What it believes of others is from
//! before, and it has not kept it up: whom the seed does not know, it suspects, so that it brings
//! nobody back who is long forgotten. Nobody joins through a node that has left, but another that
//! comes back. (In Go a node that has left stays so until its process ends.)

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::push_pull::Purpose;
use super::{Membership, OperationId, StreamRequestKind};
use crate::message::Suspect;
use crate::node::{Node, NodeId, Peer};
use crate::wire::stream::RemoteState;

impl Membership {
    /// Joins the cluster of a seed; the end is reported as [`Event::JoinDone`](super::Event). A node
    /// that has left is alive again when it has succeeded, unless it has left again meanwhile.
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
        self.suspect_anew(now);
        if self.members.iter().any(|record| record.state().is_gone()) {
            self.arm_reconnect(now);
        }
    }

    /// The members of whom a seed's state does not say that they live.
    pub(super) fn unknown_to(&self, seed: &RemoteState) -> Vec<NodeId> {
        let known: HashSet<&NodeId> = (seed.nodes.iter())
            .filter(|record| record.state.is_live())
            .map(|record| &record.node.id)
            .collect();
        (self.members.iter())
            .filter(|record| record.state().is_live() && !known.contains(&record.node.id))
            .map(|record| record.node.id.clone())
            .collect()
    }

    /// Suspects members, without a failed probe.
    pub(super) fn doubt(&mut self, members: &[NodeId], now: Instant) {
        let own = self.id.clone();
        for member in members.iter().filter(|member| **member != own) {
            let Some(record) = self.members.get(member.as_str()) else { continue };
            let (incarnation, node) = (record.incarnation, member.as_str());
            self.suspect(&Suspect { incarnation, node, from: own.as_str() }, None, now);
        }
    }

    /// Changes the own meta, and tells everybody. The end of telling is reported as
    /// [`Event::BroadcastDone`](super::Event); with nobody to tell, at once.
    ///
    /// # Errors
    /// If it is too long.
    pub fn update_meta(
        &mut self,
        meta: bytes::Bytes,
        now: Instant,
    ) -> Result<OperationId, crate::error::MetaError> {
        super::check_meta(&self.config, &meta)?;
        let done = self.next_operation();
        let mut node = Node::clone(&self.own_record().node);
        node.meta = meta;
        if self.leaving {
            // Remembered for a later rejoin; nobody is to be told now.
            if let Some(record) = self.members.get_mut(self.id.as_str()) {
                record.node = Arc::new(node);
            }
            self.events.push_back(super::Event::BroadcastDone(done));
            return Ok(done);
        }
        let waiting = self.somebody_listens().then_some(done);
        self.announce_self(node, waiting, now);
        if waiting.is_none() {
            self.events.push_back(super::Event::BroadcastDone(done));
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
