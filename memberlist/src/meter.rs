//! What is measured outside the machine, and handed to the metrics from time to time.
//!
//! Without the cargo feature `metrics` there is a [`Meter`] that does nothing.

use std::time::Instant;

use memberlist_protocol::{Gauges, Stats};

#[cfg(feature = "metrics")]
pub(crate) use crate::metrics::{Meter, Open};

/// Everything that is counted, at one moment.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody reads it then"))]
pub(crate) struct Sample<'a> {
    pub(crate) stats: &'a Stats,
    pub(crate) gauges: Gauges,
    /// Dropped outside the machine, by reason: see [`OWN_DROPS`].
    pub(crate) own_drops: [u64; OWN_DROPS.len()],
    /// Waiting commands, messages, and events of the slowest subscriber.
    pub(crate) commands: usize,
    pub(crate) messages: usize,
    pub(crate) events: usize,
    pub(crate) keys: Vec<KeyCounts>,
}

/// How often a key was used.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody reads it then"))]
pub(crate) struct KeyCounts {
    pub(crate) fingerprint: String,
    pub(crate) sealed: u64,
    pub(crate) opened: u64,
}

/// Reasons for drops outside the machine.
pub(crate) const OWN_DROPS: [&str; 5] = [
    "application_slow_message",
    "application_slow_state",
    "application_slow_ping",
    "network_full",
    "stream_refused",
];

/// On which side of a stream this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// It opened the stream.
    Asked,
    /// Others did.
    Served,
}

/// When something began to wait.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp(pub(crate) Instant);

#[cfg(feature = "metrics")]
impl Stamp {
    pub(crate) fn now() -> Self {
        Self(tokio::time::Instant::now().into_std())
    }
}

#[cfg(not(feature = "metrics"))]
mod unmetered {
    use std::time::Duration;

    use super::{Instant, Role, Sample};
    use crate::config::Config;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Stamp;

    impl Stamp {
        pub(crate) fn now() -> Self {
            Self
        }
    }

    /// Measures nothing.
    #[derive(Clone, Debug)]
    #[cfg_attr(test, derive(Default))]
    pub(crate) struct Meter;

    impl Meter {
        pub(crate) fn of(_: &Config) -> Self {
            Self
        }
        pub(crate) fn is_due(&self, _: Option<Instant>, _: Instant) -> bool {
            false
        }
        pub(crate) fn publish(&self, _: &Sample<'_>) {}
        pub(crate) fn round_trip(&self, _: Duration) {}
        pub(crate) fn converged(&self, _: Duration) {}
        pub(crate) fn stalled(&self, _: Duration) {}
        pub(crate) fn event_taken(&self, _: Stamp) {}
        pub(crate) fn stream(&self, _: Role) -> Open {
            Open
        }
        pub(crate) fn stream_bytes(&self, _: usize, _: usize) {}
        pub(crate) fn push_pull(&self, _: Role, _: Duration, _: usize, _: usize) {}
    }

    /// A stream that is not counted.
    pub(crate) struct Open;
}
#[cfg(not(feature = "metrics"))]
pub(crate) use unmetered::{Meter, Open, Stamp};
