//! Finding a cluster by itself: [`Config::seeds`](crate::Config::seeds) are tried as long as the node is alone.
//!
//! A node that is started before the others, or whose names lead nowhere yet, finds them later. Invariant: at most
//! one attempt at a time, each at least [`FIRST_PAUSE`] after the one before, at longest
//! [`Config::seed_retry_interval`](crate::Config::seed_retry_interval); a node that knows anybody, or has left, asks
//! nobody; and the task ends with the node, which it does not keep alive.

use std::sync::{Arc, Weak};
use std::time::Duration;

use memberlist_protocol::{NodeState, Shown};
use memberlist_transport::Transport;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;
use tracing::{Instrument, debug, error_span, info, warn};

use crate::error::SeedResult;
use crate::handle::{Inner, Memberlist};

/// The pause after the first attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often an attempt looks whether anybody else holds the node.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// Those of the task itself, while it tries.
const OWN_HANDLES: usize = 2;

/// Joins the seeds whenever the node is alone.
pub(crate) async fn join_while_alone<T: Transport>(
    node: Weak<Inner<T>>,
    seeds: Vec<String>,
    longest: Duration,
    mut rng: StdRng,
) {
    let mut pause = FIRST_PAUSE.min(longest);
    loop {
        // Not held while it sleeps: the node ends with its last handle.
        let Some(inner) = node.upgrade().filter(|inner| !inner.commands.is_closed()) else {
            return;
        };
        let node = Memberlist::of(Arc::clone(&inner));
        match is_alone(&node) {
            true => tokio::select! {
                () = attempt(&node, &seeds, pause >= longest) => {}
                () = abandoned(&inner) => return,
            },
            false => pause = FIRST_PAUSE.min(longest),
        }
        let wait = pause.mul_f64(rng.random_range(0.75..1.25));
        if is_alone(&node) {
            pause = (pause * 2).min(longest);
        }
        drop((node, inner));
        sleep(wait).await;
    }
}

/// Until nobody else holds the node. An attempt can take as long as a seed is silent, and must not keep the
/// node's port until then.
async fn abandoned<T: Transport>(inner: &Arc<Inner<T>>) {
    while Arc::strong_count(inner) > OWN_HANDLES {
        sleep(LOOK_AROUND).await;
    }
}

fn is_alone<T: Transport>(node: &Memberlist<T>) -> bool {
    let there = node.own().is_some_and(|own| own.state != NodeState::Left);
    there && node.member_count() <= 1
}

/// Who is `long` alone says so: it may be that the seeds are wrong. At the start of a cluster somebody has to
/// be the first.
async fn attempt<T: Transport>(node: &Memberlist<T>, seeds: &[String], long: bool) {
    match node.join_all(seeds, true).await {
        Ok(results) => {
            let joined = results.iter().filter(|seed| SeedResult::is_joined(seed)).count();
            if !is_alone(node) {
                info!(seeds = joined, members = node.member_count(), "found the cluster");
            }
        }
        Err(error) if long => {
            warn!(error = %Shown(&error), "this node is alone: no seed can be joined; trying again");
        }
        Err(error) => debug!(error = %Shown(&error), "no seed could be joined; trying again"),
    }
}

impl<T: Transport> Inner<T> {
    /// Starts the task, if there are seeds. Nodes that are started together must not ask together, so each
    /// has its own random number.
    pub(crate) fn seek(self: &Arc<Self>, random: u64) {
        let (seeds, longest) = (self.config.seeds.clone(), self.config.seed_retry_interval);
        if !seeds.is_empty() {
            let rng = StdRng::seed_from_u64(random);
            let task = join_while_alone(Arc::downgrade(self), seeds, longest, rng);
            tokio::spawn(task.instrument(error_span!("memberlist", own = %self.shared.id)));
        }
    }
}
