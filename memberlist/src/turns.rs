//! Push/pulls of peers that wait for a place.
//!
//! The machine serves so many at once. Who comes then waits in line here, for as long as its stream's task
//! wants to; what it sent stays paid for out of the memory of streams. Few enough wait that the last
//! has a chance to be served in that time.

use std::collections::VecDeque;
use std::time::Instant;

use memberlist_protocol::wire::stream::{RemoteState, SnapshotRecord};
use memberlist_protocol::{ExchangeError, Membership, Peer};
use tokio::sync::oneshot;

/// The state of this node, and that of the peer again.
pub(crate) type Served = (Vec<SnapshotRecord>, RemoteState);

/// A peer that has sent its state and wants this node's.
pub(crate) struct Asking {
    pub(crate) peer: Peer,
    pub(crate) state: RemoteState,
    /// Dropped at the other end when it waits no longer.
    pub(crate) reply: oneshot::Sender<Result<Served, ExchangeError>>,
}

/// Those who wait: at most as many as may be served at once.
#[derive(Default)]
pub(crate) struct Turns(VecDeque<Asking>);

impl Turns {
    /// Serves it now or lets it wait. One too many is told at once that there is no place.
    pub(crate) fn push(&mut self, asking: Asking, machine: &mut Membership, now: Instant) {
        // What nobody waits for must not hold its memory, nor a place in line.
        self.0.retain(|asking| !asking.reply.is_closed());
        let limit = machine.config().max_push_pulls;
        if machine.has_push_pull_place() && self.0.is_empty() {
            serve(asking, machine, now);
        } else if self.0.len() < limit {
            self.0.push_back(asking);
        } else {
            let (peer, retry_after) = (asking.peer, machine.config().stream_timeout);
            // The task may have ended.
            let busy = ExchangeError::Busy { peer, attempts: 1, retry_after };
            let _ = asking.reply.send(Err(busy));
        }
    }

    /// Serves as many as there is room for.
    pub(crate) fn serve(&mut self, machine: &mut Membership, now: Instant) {
        while !self.0.is_empty() && machine.has_push_pull_place() {
            match self.0.pop_front() {
                Some(asking) if asking.reply.is_closed() => {}
                Some(asking) => serve(asking, machine, now),
                None => return,
            }
        }
    }
}

fn serve(Asking { peer, state, reply }: Asking, machine: &mut Membership, now: Instant) {
    let served = machine.serve_push_pull(&peer, &state);
    // Nothing has to follow on a refusal, even if nobody hears of it.
    if let Err(Ok(_)) = reply.send(served.map(|records| (records, state))) {
        machine.finish_push_pull(peer, None, now);
    }
}
