//! What a node did and how it is, for the `metrics` facade.
//!
//! A node writes into a recorder: the one of its [`Metrics::recorder`], or the global one that the
//! process installed **before the node was started**. [`CATALOGUE`] lists every name; the manual has it as a
//! table, with what the Go library calls the same. Counters and gauges are brought up to date after
//! something has happened at the node, [`Metrics::interval`] apart: no timer runs for it, and an idle node has its
//! probes. Histograms are recorded at once. Without the cargo feature `metrics` nothing of this exists.
//!
//! ```
//! use memberlist::{Config, metrics::Metrics};
//!
//! let mut config = Config::lan("cache-7");
//! config.metrics = Metrics::labelled([("node", "cache-7"), ("cluster", "blue")]);
//! ```

mod catalogue;
mod series;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::Recorder;

pub use catalogue::{CATALOGUE, Metric, MetricKind};
pub(crate) use series::{Meter, Open};

/// Where a node's metrics go, and how they are marked.
#[derive(Clone)]
#[non_exhaustive]
pub struct Metrics {
    /// Labels that all metrics of this node carry, such as its name and its cluster's. Default none: where
    /// several nodes of one process share a recorder, they need some that differ.
    pub labels: Vec<(String, String)>,
    /// A recorder for this node alone. Default none: the global one at the start.
    pub recorder: Option<Arc<dyn Recorder + Send + Sync>>,
    /// How old counters and gauges may be while something happens at the node. Default 5 s; zero brings them up
    /// to date after everything that does, which costs some microseconds each time.
    pub interval: Duration,
}

impl Metrics {
    /// With these labels.
    pub fn labelled<K: Into<String>, V: Into<String>>(
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { labels, ..Self::default() }
    }

    /// The same with a recorder for this node alone.
    pub fn with_recorder(mut self, recorder: impl Recorder + Send + Sync + 'static) -> Self {
        self.recorder = Some(Arc::new(recorder));
        self
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { labels: Vec::new(), recorder: None, interval: Duration::from_secs(5) }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("labels", &self.labels)
            .field("recorder", &self.recorder.as_ref().map(|_| "of its own"))
            .field("interval", &self.interval)
            .finish()
    }
}
