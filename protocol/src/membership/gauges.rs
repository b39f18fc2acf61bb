//! What can be read off the machine at one moment, for dashboards: how many members, how much waits and
//! for how long. Counters are in [`Stats`](crate::Stats). Asking looks at every record and at all that is
//! queued once, so ask some times a second at most.

use std::time::{Duration, Instant};

use super::{Membership, Pending};
use crate::node::NodeState;

/// A queue at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct QueueGauge {
    /// How many items wait.
    pub items: usize,
    /// Their encoded bytes.
    pub bytes: usize,
    /// For how long the oldest has been there; zero if none is.
    pub oldest: Duration,
}

/// The machine at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Gauges {
    /// Members in each state, in the order of [`NodeState::ALL`], this node included.
    pub members: [usize; NodeState::ALL.len()],
    /// The health score: 0 is healthy.
    pub health_score: u32,
    /// News about members that waits to be sent as often as news is.
    pub news: QueueGauge,
    /// User broadcasts that do.
    pub user_broadcasts: QueueGauge,
    /// What is under way.
    pub pending: Pending,
    /// For how long no member has shown the view that this node has; zero if one has, or none is asked.
    pub view_unconfirmed: Duration,
}

impl Membership {
    /// What can be read off it now.
    pub fn gauges(&self, now: Instant) -> Gauges {
        let mut members = [0; NodeState::ALL.len()];
        for record in self.members.iter() {
            members[record.state() as usize] += 1;
        }
        let age = |oldest: Option<Instant>| {
            oldest.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
        };
        let news = self.news.iter().map(|(_, news)| news.queued_at).min();
        Gauges {
            members,
            health_score: self.health_score(),
            news: QueueGauge {
                items: self.news.len(),
                bytes: self.news.bytes(),
                oldest: age(news),
            },
            user_broadcasts: QueueGauge {
                items: self.user.len(),
                bytes: self.user.bytes(),
                oldest: age(self.user.oldest()),
            },
            pending: self.pending(),
            view_unconfirmed: age(self.sync.differs_since()),
        }
    }
}
