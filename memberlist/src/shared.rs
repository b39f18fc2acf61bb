//! What the handle and the tasks of a node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memberlist_protocol::{NodeId, Peer};
use memberlist_transport::Source;

use crate::events::Hub;
use crate::meter::Meter;

/// For reading: written by the node's tasks, without making them wait.
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) id: NodeId,
    pub(crate) health: AtomicU32,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) streams_refused: AtomicU64,
    pub(crate) packets_dropped: AtomicU64,
}

impl Shared {
    pub(crate) fn new(id: NodeId, meter: Meter) -> Self {
        Self {
            hub: Arc::new(Hub::new(meter)),
            id,
            health: AtomicU32::new(0),
            messages_dropped: AtomicU64::new(0),
            streams_refused: AtomicU64::new(0),
            packets_dropped: AtomicU64::new(0),
        }
    }
}

/// Where a packet or stream came from, in the words of the protocol. `None` if the name that the
/// transport has verified is none that a member can have: without it, the peer would pass for one of
/// which nothing is verified, and could speak for anybody.
pub(crate) fn peer_of(source: &Source) -> Option<Peer> {
    let name = source.authenticated_name.as_deref().map(NodeId::new).transpose().ok()?;
    Some(Peer { name, ..Peer::from(source.addr) })
}
