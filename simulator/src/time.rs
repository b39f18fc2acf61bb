//! Virtual time: nanoseconds since the beginning of a run.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Time(pub u64);

impl Time {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// How long after the beginning.
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Seconds after the beginning.
    pub fn as_secs_f64(self) -> f64 {
        self.since_start().as_secs_f64()
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:10.4}", self.as_secs_f64())
    }
}
