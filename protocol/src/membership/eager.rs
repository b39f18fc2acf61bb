//! Eager gossip: fresh news goes out at once, and is passed on at once by those for whom it is new.
//!
//! A round sends what was sent less than `e = ⌈3 l / 4⌉` times, with `l` the retransmit limit (where `l`
//! reaches every member, `e = l`), to `gossip_nodes` live members. Rounds follow each other at
//! `eager_gossip_spacing` while there is such news; the rest of the transmissions is the ticks', which
//! repair what was lost. With `r` bytes a second that full ticks may send, the invariant over any time
//! `t` is
//!
//! ```text
//! transmissions of an item by a node ≤ l
//! eager bytes of a node in t         ≤ r · t / 5 + 2 rounds in full packets + 1 packet
//! ```
//!
//! The first holds since eager rounds and ticks count together, the second by a token bucket. An item is
//! passed on only by a node whose table it changed, so no member can make news go round: to be passed on
//! again it must be newer, and it costs its author a packet.
//!
//! Accusations do not run. Suspicions, and deaths by the own timers, wait for the tick at every node, so that
//! the refutation, which does run, overtakes them: a slow member that hears both in the moment in which it is
//! awake must not hear the first alone. And the accuser may be the one that was deaf: what it is about to hear
//! takes the conclusion back before it is out. So failures are detected as soon as without eager gossip, and
//! false ones are not believed by more.
//!
//! News is missed by a given member with a chance of about `e^-e`; with 1,000 members `l` is 16 and `e`
//! is 12, one miss in 160 updates, and the next tick finds it.

use std::time::{Duration, Instant};

use super::Membership;
use super::gossip::Outgoing;
use super::scale;
use super::timer::{Timer, TimerKey};
use crate::config::Config;
use crate::node::{NodeState, Peer};

/// Of what full ticks may send, so much may be sent beside them, in percent.
const SHARE_PERCENT: u64 = 20;
/// Full rounds that may be sent at once after a quiet time.
const BURST_ROUNDS: u64 = 2;
/// What a UDP packet costs besides its content, in bytes.
const HEADER_BYTES: usize = 28;

/// When the next round is due, and what it may cost.
#[derive(Debug)]
pub(super) struct Eager {
    timer: Option<TimerKey>,
    last_round: Option<Instant>,
    bucket: Bucket,
}

/// Tokens of a byte each. It goes below zero by one packet at most, which is then waited for.
#[derive(Debug)]
struct Bucket {
    tokens: i64,
    filled_at: Instant,
    /// Fractions of a byte that the last filling left, in byte nanoseconds.
    rest: u128,
}

/// What full ticks send in an interval, in bytes.
fn tick_bytes(config: &Config) -> u64 {
    (config.gossip_nodes as u64).saturating_mul(config.max_packet_bytes as u64)
}

impl Bucket {
    fn most(config: &Config) -> i64 {
        i64::try_from(tick_bytes(config).saturating_mul(BURST_ROUNDS)).unwrap_or(i64::MAX)
    }

    /// Byte nanoseconds that a nanosecond earns, times the interval.
    fn earned(config: &Config, time: Duration) -> u128 {
        u128::from(tick_bytes(config) / 100 * SHARE_PERCENT).saturating_mul(time.as_nanos())
    }

    fn fill(&mut self, config: &Config, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at);
        let interval = config.gossip_interval.as_nanos().max(1);
        let earned = Self::earned(config, since).saturating_add(self.rest);
        self.filled_at = now;
        self.rest = earned % interval;
        let earned = i64::try_from(earned / interval).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(earned).min(Self::most(config));
    }

    /// The time until there is a token again.
    fn wait(&self, config: &Config) -> Duration {
        let missing = u128::try_from(1 - self.tokens).unwrap_or(0);
        let nanos = missing.saturating_mul(config.gossip_interval.as_nanos());
        let rate = u128::from(tick_bytes(config) / 100 * SHARE_PERCENT).max(1);
        Duration::from_nanos(u64::try_from(nanos.div_ceil(rate)).unwrap_or(u64::MAX))
    }
}

impl Eager {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let bucket = Bucket { tokens: Bucket::most(config), filled_at: now, rest: 0 };
        Self { timer: None, last_round: None, bucket }
    }

    /// A packet of a round was sent.
    pub(super) fn charge(&mut self, packet_bytes: usize) {
        let cost = i64::try_from(packet_bytes + HEADER_BYTES).unwrap_or(i64::MAX);
        self.bucket.tokens = self.bucket.tokens.saturating_sub(cost);
    }
}

/// How often an item is sent in eager rounds, of all its transmissions. What is to be sent to every
/// member is sent in one walk round the ring: rounds that leave it out would skip some.
fn eager_limit(limit: u32, others: u32) -> u32 {
    if limit >= others { limit } else { limit - limit / 4 }
}

impl Membership {
    fn is_eager(&self) -> bool {
        let config = &self.config;
        let spaced = !config.eager_gossip_spacing.is_zero();
        spaced && !config.gossip_interval.is_zero() && config.gossip_nodes > 0
    }

    /// Makes sure that a round is coming for what was queued.
    pub(super) fn arm_eager(&mut self, now: Instant) {
        if !self.is_eager() || self.eager.timer.is_some() {
            return;
        }
        let spacing = self.config.eager_gossip_spacing;
        let next = self.eager.last_round.map_or(now, |at| at + spacing);
        self.eager.timer = Some(self.timers.arm(next.max(now), Timer::EagerRound));
    }

    /// The settings have changed: what was armed by the old ones no longer holds.
    pub(super) fn restart_eager(&mut self, now: Instant) {
        self.eager.timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        self.arm_eager(now);
    }

    /// A tick was sent: accusations run from now on, and the tick was their first round.
    pub(super) fn release_accusations(&mut self, now: Instant) {
        let mut held = false;
        for news in self.news.tags_mut() {
            held |= std::mem::take(&mut news.held);
        }
        if held {
            self.eager.last_round = Some(now);
            self.arm_eager(now);
        }
    }

    /// What is sent in a round now: what was sent less often than this.
    pub(super) fn fresh_below(&self) -> (u32, u32) {
        let n = self.members.len();
        let news = scale::news_limit(self.config.retransmit_mult, n);
        let (user, _) = self.user_broadcast_limits(news, n);
        let others = scale::others(n);
        (eager_limit(news, others), eager_limit(user, others))
    }

    pub(super) fn eager_round(&mut self, now: Instant) {
        self.eager.timer = None;
        let (news, user) = self.fresh_below();
        if !self.news.has_fresh(news, |news| !news.held) && !self.user.has_fresh(user) {
            return;
        }
        self.eager.bucket.fill(&self.config, now);
        if self.eager.bucket.tokens <= 0 {
            let at = now + self.eager.bucket.wait(&self.config);
            self.eager.timer = Some(self.timers.arm(at, Timer::EagerRound));
            return;
        }
        let packet = self.config.max_packet_bytes + HEADER_BYTES;
        let affordable = self.eager.bucket.tokens as usize / packet;
        let fan_out = affordable.clamp(1, self.config.gossip_nodes);
        let own = &self.id;
        // Those who are suspected too: who is accused must hear of it, to contradict.
        let chosen = self
            .members
            .next_in_ring(fan_out, |record| record.state().is_live() && record.node.id != *own);
        let mut heard = false;
        for position in chosen {
            let record = self.members.at(position);
            heard |= record.state() == NodeState::Alive;
            let node = &record.node;
            let to = Peer::named(node.addr, node.id.clone());
            self.send_later(Outgoing::Gossip { to, eager: true });
        }
        self.eager.last_round = Some(now);
        if heard {
            // What only suspects are told does not count, and would go round for ever.
            self.arm_eager(now);
        }
    }
}
