//! Suspicion: the time between a failed probe and a death (SWIM §4.2, Lifeguard §IV-B; Go
//! `suspicion`).
//!
//! A suspicion starts at its longest timeout and shrinks with every *independent* confirmation, so
//! that a single accuser, which may itself be the sick one, has to wait, while several agree
//! quickly. Invariant: an accuser counts once, the originator never, and at most `wanted` count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::FailedProbe;
use super::scale::suspicion_timeout_after;
use super::timer::TimerKey;
use crate::node::NodeId;

/// No suspicion lasts longer, whatever the settings: no clock's arithmetic overflows then.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A running suspicion of one member.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub(super) timer: TimerKey,
    pub(super) began: Instant,
    /// The originator, then everybody whose confirmation counted.
    pub(super) accusers: Vec<NodeId>,
    pub(super) wanted: u32,
    pub(super) min: Duration,
    pub(super) max: Duration,
    /// The own probe that failed, if this node is an accuser.
    pub(super) probe: Option<Arc<FailedProbe>>,
}

/// How a suspicion is to run: decided once, when it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SuspicionPlan {
    pub(super) wanted: u32,
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl SuspicionPlan {
    /// `k = mult − 2` confirmations are wanted, unless the cluster has too few others to give them.
    pub(super) fn new(mult: u32, n: usize, min: Duration, max_mult: u32) -> Self {
        let k = mult.saturating_sub(2);
        let others = n.saturating_sub(2);
        let wanted = if others < k as usize { 0 } else { k };
        let max = min.saturating_mul(max_mult).min(LONGEST);
        Self { wanted, min: min.min(LONGEST), max }
    }

    /// The timeout without any confirmation.
    pub(super) fn first_timeout(&self) -> Duration {
        if self.wanted >= 1 { self.max } else { self.min }
    }
}

impl Suspicion {
    pub(super) fn confirmations(&self) -> u32 {
        (self.accusers.len() - 1) as u32
    }

    /// Counts an accuser; gives the new timeout, counted from the beginning, if it was news.
    pub(super) fn confirm(&mut self, from: &str) -> Option<Duration> {
        if self.confirmations() >= self.wanted || self.accusers.iter().any(|a| a.as_str() == from) {
            return None;
        }
        self.accusers.push(NodeId::new(from).ok()?);
        Some(suspicion_timeout_after(self.confirmations(), self.wanted, self.min, self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::timer::{Timer, Timers};

    fn suspicion(wanted: u32) -> Suspicion {
        let began = Instant::now();
        Suspicion {
            timer: Timers::default().arm(began, Timer::ProbeTick),
            began,
            accusers: vec![NodeId::new("me").unwrap()],
            wanted,
            min: Duration::from_millis(500),
            max: Duration::from_secs(2),
            probe: None,
        }
    }

    #[test]
    fn accusers_count_once_and_the_originator_never() {
        let mut s = suspicion(3);
        assert_eq!(s.confirm("me"), None);
        assert_eq!(s.confirm("a"), Some(Duration::from_millis(1250)));
        assert_eq!(s.confirm("a"), None);
        assert_eq!(s.confirm("b"), Some(Duration::from_millis(811)));
        assert_eq!(s.confirm("c"), Some(Duration::from_millis(500)));
        assert_eq!(s.confirm("d"), None);
        assert_eq!(s.confirmations(), 3);
    }

    #[test]
    fn nobody_can_confirm_where_none_is_wanted() {
        assert_eq!(suspicion(0).confirm("a"), None);
    }

    #[test]
    fn small_clusters_want_no_confirmation() {
        let plan = |mult, n| SuspicionPlan::new(mult, n, Duration::from_secs(1), 6).wanted;
        assert_eq!([plan(4, 1), plan(4, 3), plan(4, 4), plan(4, 100)], [0, 0, 2, 2]);
        assert_eq!([plan(6, 5), plan(6, 6), plan(3, 2), plan(3, 3)], [0, 4, 0, 1]);
        assert_eq!(plan(1, 100), 0);
        let plan = SuspicionPlan::new(4, 100, Duration::from_secs(8), 6);
        assert_eq!(plan.first_timeout(), Duration::from_secs(48));
        let plan = SuspicionPlan::new(1000, 1 << 17, Duration::from_secs(86_400_000), 1000);
        assert_eq!(plan.max, LONGEST);
    }
}
