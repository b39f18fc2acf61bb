//! When the machine wants to be woken, and why.
//!
//! Timers are values in an ordered map: the earliest is the next wake-up, equal instants fire in
//! the order in which they were armed, and a cancelled timer is gone (nothing fires late and has to
//! be recognised as stale).

use std::collections::BTreeMap;
use std::time::Instant;

use super::OperationId;
use crate::node::NodeId;

/// What is to be done when the time has come.
#[derive(Clone, Debug)]
pub(super) enum Timer {
    /// Begin the next probe.
    ProbeTick,
    /// The direct ping of the running probe was not answered: ask relays.
    ProbeTimeout,
    /// The running probe ends.
    ProbeDeadline,
    /// Send queued news.
    GossipTick,
    /// Send fresh news.
    EagerRound,
    /// Compare members with somebody whose view differs.
    SyncDue,
    /// Exchange the whole state with somebody.
    PushPullTick,
    /// A join was told to come back: ask again.
    JoinRetry(OperationId),
    /// Try a failed member again.
    ReconnectTick,
    /// The suspicion of this member was not refuted.
    Suspicion(NodeId),
    /// A ping (relayed, by hand, or of a failed member) was not answered.
    PingExpiry(u32),
    /// A relayed ping is late: tell the requester.
    RelayNack(u32),
}

/// Identifies an armed timer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TimerKey(Instant, u64);

impl TimerKey {
    pub(super) fn at(self) -> Instant {
        self.0
    }
}

/// The armed timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    armed: BTreeMap<TimerKey, Timer>,
    serial: u64,
}

impl Timers {
    pub(super) fn arm(&mut self, at: Instant, timer: Timer) -> TimerKey {
        let key = TimerKey(at, self.serial);
        self.serial += 1;
        self.armed.insert(key, timer);
        key
    }

    pub(super) fn cancel(&mut self, key: TimerKey) {
        self.armed.remove(&key);
    }

    /// Takes the earliest timer if its time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let entry = self.armed.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.armed.first_key_value().map(|(key, _)| key.0)
    }

    /// The earliest of the suspicions.
    pub(super) fn next_suspicion(&self) -> Option<Instant> {
        let is_suspicion = |timer: &Timer| matches!(timer, Timer::Suspicion(_));
        self.armed.iter().find(|(_, timer)| is_suspicion(timer)).map(|(key, _)| key.0)
    }

    /// Takes the earliest of the suspicions if its time has come.
    pub(super) fn pop_due_suspicion(&mut self, now: Instant) -> Option<NodeId> {
        let (&key, id) =
            self.armed.range(..=TimerKey(now, u64::MAX)).find_map(|(key, timer)| match timer {
                Timer::Suspicion(id) => Some((key, id.clone())),
                _ => None,
            })?;
        self.armed.remove(&key);
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.armed.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn fires_in_order_and_not_before_its_time() {
        let t0 = Instant::now();
        let ms = |n| t0 + Duration::from_millis(n);
        let mut timers = Timers::default();
        timers.arm(ms(20), Timer::GossipTick);
        timers.arm(ms(10), Timer::PingExpiry(1));
        let cancelled = timers.arm(ms(5), Timer::ProbeTick);
        timers.arm(ms(10), Timer::PingExpiry(2));
        timers.cancel(cancelled);

        assert_eq!(timers.next(), Some(ms(10)));
        assert!(timers.pop_due(ms(9)).is_none());
        assert!(matches!(timers.pop_due(ms(10)), Some(Timer::PingExpiry(1))));
        assert!(matches!(timers.pop_due(ms(10)), Some(Timer::PingExpiry(2))));
        assert!(timers.pop_due(ms(19)).is_none());
        assert!(matches!(timers.pop_due(ms(30)), Some(Timer::GossipTick)));
        assert_eq!((timers.next(), timers.len()), (None, 0));
    }
}
