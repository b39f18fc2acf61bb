//! Which format a peer is spoken to in: of interest in a mixed cluster only
//! ([`WireFormat::Mixed`](crate::wire::WireFormat)).
//!
//! A peer is spoken to in Go's format until it is known to read the native one: it says so in its pings
//! and acks, which Go passes over, or sends them in the native format. An answer is in the format of the
//! question. What is known of a peer ends with a ping or ack that does not say so, with its death, and
//! with an exchange that fails. Invariant: a member that was replaced by one of the other kind is never
//! suspected for that, since a ping that is not answered is sent again in the other format before the
//! probe ends.

use super::{Membership, Record};
use crate::node::{Peer, canonical};
use crate::wire::{Dialect, WireFormat};

impl Membership {
    /// The format in which this node speaks to a peer of its own accord.
    pub fn dialect_for(&self, peer: &Peer) -> Dialect {
        let format = self.config.wire_format;
        if format != WireFormat::Mixed {
            return format.towards_strangers();
        }
        let record = peer.name.as_ref().and_then(|name| self.members.get(name.as_str()));
        match record.is_some_and(|record| record.native && record.node.addr == peer.addr) {
            true => Dialect::Native,
            false => format.towards_strangers(),
        }
    }

    /// A ping or ack came from a member, which says by that whether it reads the native format.
    pub(super) fn learn_dialect(&mut self, name: &str, from: &Peer, native: bool) {
        if self.config.wire_format != WireFormat::Mixed {
            return;
        }
        if let Some(record) = self.members.get_mut(name) {
            if canonical(from.addr) == record.node.addr {
                record.native = native;
            }
        }
    }

    /// What was known of a peer may be out of date.
    pub(super) fn forget_dialect(&mut self, peer: &Peer) {
        if let Some(name) = &peer.name {
            self.learn_dialect(name.as_str(), peer, false);
        }
    }

    /// The format to try with a peer that has not answered in this one. What was learned of it meanwhile
    /// is of no account: it may come of another process at its address.
    pub(super) fn other_dialect(&self, tried: Dialect) -> Option<Dialect> {
        (self.config.wire_format == WireFormat::Mixed).then_some(match tried {
            Dialect::Native => Dialect::Hashicorp,
            Dialect::Hashicorp => Dialect::Native,
        })
    }

    /// Whether a packet to this peer is to carry a checksum. In Go's format only peers of version 5 are
    /// known to read it.
    pub(super) fn checksum_for(&self, peer: &Peer, dialect: Dialect) -> bool {
        let reads = || {
            let record = peer.name.as_ref().and_then(|name| self.members.get(name.as_str()));
            record.is_some_and(|record: &Record| record.node.versions.protocol().1 >= 5)
        };
        self.checksum && (dialect == Dialect::Native || reads())
    }
}
