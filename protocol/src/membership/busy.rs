//! A crowd that asks at the same moment: telling it to come back, and coming back.
//!
//! A seed that many join at once serves some of them and tells each of the rest when to ask again, so that
//! they come one after the other, and whom they may ask instead. Each of them promises a part of the
//! time ahead, so whoever is told later comes later. Nothing is kept of an asker: the promise is a moment
//! on the seed's clock, and costs it nothing if nobody comes. (Go has a limit only: it closes what is over
//! it, and the join fails.)
//!
//! The asker trusts the answer no further than it must. Invariants: a join asks ten times at most, the last
//! time at most three stream timeouts after the first answer, whatever it is told; it asks only its
//! seed and members that the seed itself names, these under their names; and what such a member says
//! is no worse for it than the seed's silence, since the seed is then asked again.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::push_pull::Purpose;
use super::timer::{Timer, TimerKey};
use super::{Membership, OperationId, StreamRequestKind};
use crate::error::ExchangeError;
use crate::node::{NodeId, NodeState, Peer};
use crate::stats::DropReason;
use crate::wire::stream::{Busy, MAX_BUSY_OTHERS, MAX_RETRY_AFTER};

/// How often a join asks, the first time included.
const MAX_ATTEMPTS: u32 = 10;
/// After the first busy answer it asks for this many stream timeouts.
const PATIENCE_TIMEOUTS: u32 = 3;
/// How long one push/pull may hold its place, for the promise of places.
const EXPECTED_SERVICE: Duration = Duration::from_millis(100);
/// The least time after which anybody is asked again: below, asking is most of the work.
const MIN_RETRY_AFTER: Duration = Duration::from_millis(100);
/// The jitter on either side, as parts of the time: who was told together must not come together.
const JITTER: f64 = 0.25;

/// A join that was told to come back.
#[derive(Debug)]
pub(super) struct Retry {
    seed: Peer,
    attempts: u32,
    /// No attempt begins later.
    until: Instant,
}

/// One that waits to ask again.
#[derive(Debug)]
pub(super) struct DeferredJoin {
    next: Peer,
    retry: Retry,
    timer: TimerKey,
}

impl Membership {
    // ---- the side that is asked ---------------------------------------------------------------

    /// Whether another push/pull would be served now. A question that was refused as
    /// [`ExchangeError::Busy`] may be tried again when it is so.
    pub fn has_push_pull_place(&self) -> bool {
        self.serving + self.merges.len() < self.config.max_push_pulls
    }

    /// What to tell in the native format whoever wanted a push/pull and cannot be served: a time that
    /// grows with every one who is told, and random live members. `asker` is the name by its own words.
    /// Counted as [`joins_deferred`](crate::Stats::joins_deferred), or if it does not join as
    /// [`DropReason::TooManyPushPulls`].
    pub fn tell_busy(&mut self, asker: Option<&NodeId>, join: bool, now: Instant) -> Busy {
        match join {
            true => self.stats.joins_deferred += 1,
            false => self.drop(DropReason::TooManyPushPulls),
        }
        let places = u32::try_from(self.config.max_push_pulls).unwrap_or(u32::MAX).max(1);
        let patience = self.config.stream_timeout.min(MAX_RETRY_AFTER);
        let until = self.promised_until.map_or(now, |until| until.max(now));
        let until = (until + EXPECTED_SERVICE / places).min(now + patience);
        self.promised_until = Some(until);
        let wait = (until - now).max(MIN_RETRY_AFTER);
        let retry_after = self.jittered(wait).min(MAX_RETRY_AFTER);
        Busy { retry_after, others: self.others_for(asker) }
    }

    /// Members that are alive, but for the asker; nobody if this node has left, or everybody might have.
    fn others_for(&mut self, asker: Option<&NodeId>) -> Vec<Peer> {
        if self.leaving {
            return Vec::new();
        }
        let own = &self.id;
        let chosen = self.members.random(MAX_BUSY_OTHERS, &mut self.rng, |record| {
            let id = &record.node.id;
            record.state() == NodeState::Alive && id != own && Some(id) != asker
        });
        let node = |position| &self.members.at(position).node;
        chosen.into_iter().map(|at| Peer::named(node(at).addr, node(at).id.clone())).collect()
    }

    // ---- the side that asks -------------------------------------------------------------------

    /// A join's peer is busy: waits, unless there has been enough of that.
    pub(super) fn defer_join(
        &mut self,
        id: OperationId,
        peer: Peer,
        retry: Option<Retry>,
        busy: Busy,
        now: Instant,
    ) {
        if self.leaving && !self.returning {
            return self.exchange_failed(peer, Some(id), ExchangeError::Cancelled);
        }
        let patience = self.config.stream_timeout.saturating_mul(PATIENCE_TIMEOUTS);
        let retry = retry.unwrap_or_else(|| {
            // An endless patience is as good as a long one.
            let until = now.checked_add(patience).unwrap_or(now + MAX_RETRY_AFTER * MAX_ATTEMPTS);
            Retry { seed: peer.clone(), attempts: 1, until }
        });
        let next = match peer == retry.seed {
            true => self.one_of(busy.others).unwrap_or_else(|| retry.seed.clone()),
            false => retry.seed.clone(),
        };
        let retry_after = busy.retry_after.min(MAX_RETRY_AFTER);
        let (seed, attempts) = (retry.seed.clone(), retry.attempts);
        // Later than told, never earlier.
        let wait = retry_after.max(MIN_RETRY_AFTER);
        let wait = wait + self.random_part(wait.mul_f64(JITTER));
        let error = ExchangeError::Busy { peer: seed, attempts, retry_after };
        self.ask_later(id, next, retry, wait, error, now);
    }

    /// An exchange has failed. A join at a member that its busy seed has named goes back to the seed.
    pub(super) fn attempt_failed(
        &mut self,
        peer: Peer,
        join: Option<OperationId>,
        retry: Option<Retry>,
        error: ExchangeError,
        now: Instant,
    ) {
        let gone = error == ExchangeError::Cancelled || (self.leaving && !self.returning);
        match (join, retry) {
            (Some(id), Some(retry)) if peer != retry.seed && !gone => {
                let wait = self.jittered(MIN_RETRY_AFTER);
                self.ask_later(id, retry.seed.clone(), retry, wait, error, now);
            }
            (join, _) => self.exchange_failed(peer, join, error),
        }
    }

    /// Waits to ask somebody; or ends the join with the error, if that would be once too often.
    fn ask_later(
        &mut self,
        id: OperationId,
        next: Peer,
        retry: Retry,
        wait: Duration,
        error: ExchangeError,
        now: Instant,
    ) {
        let at = now + wait;
        if retry.attempts >= MAX_ATTEMPTS || at > retry.until {
            return self.exchange_failed(retry.seed, Some(id), error);
        }
        let timer = self.timers.arm(at, Timer::JoinRetry(id));
        self.deferred_joins.insert(id, DeferredJoin { next, retry, timer });
    }

    pub(super) fn retry_join(&mut self, id: OperationId) {
        let Some(DeferredJoin { next, mut retry, .. }) = self.deferred_joins.remove(&id) else {
            return;
        };
        retry.attempts += 1;
        self.stats.joins_retried += 1;
        let kind = StreamRequestKind::PushPull { join: true };
        self.request_exchange(id, next, kind, Purpose::Join, Some(retry));
    }

    /// One of the members that a busy seed has named, if it can be anybody but this node.
    fn one_of(&mut self, mut others: Vec<Peer>) -> Option<Peer> {
        let own = self.own_record().node.addr;
        let another = |other: &Peer| {
            let named = other.name.as_ref().is_some_and(|name| *name != self.id);
            named && other.addr != own
        };
        others.retain(another);
        others.truncate(MAX_BUSY_OTHERS);
        match others.len() {
            0 => None,
            n => Some(others.swap_remove(self.rng.random_range(0..n))),
        }
    }

    /// Ends a join that nobody waits for any more, whether it is being exchanged or waits to ask again: with
    /// [`ExchangeError::Cancelled`]. Its answer, should it come, is not merged. Does nothing once it has
    /// ended, or its state is being merged.
    pub fn cancel_join(&mut self, id: OperationId) {
        let waiting = self.deferred_joins.remove(&id).map(|join| {
            self.timers.cancel(join.timer);
            join.retry.seed
        });
        if let Some(peer) = waiting.or_else(|| self.forget_join(id)) {
            self.exchange_failed(peer, Some(id), ExchangeError::Cancelled);
        }
    }

    /// This node leaves: joins that wait do not go on.
    pub(super) fn end_deferred_joins(&mut self) {
        for (id, join) in std::mem::take(&mut self.deferred_joins) {
            self.timers.cancel(join.timer);
            self.exchange_failed(join.retry.seed, Some(id), ExchangeError::Cancelled);
        }
    }

    fn jittered(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.random_range(1.0 - JITTER..1.0 + JITTER))
    }
}
