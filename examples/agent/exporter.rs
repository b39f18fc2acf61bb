//! The node's metrics, as text for Prometheus.
//!
//! The exporter crate writes the names as they are, with underscores for dots: `memberlist.probe.rtt`
//! becomes `memberlist_probe_rtt`, and as a histogram `memberlist_probe_rtt_bucket`, `_sum` and
//! `_count`. The dashboard and the alerts in `docs` know them by these names.

use std::sync::Arc;

use memberlist::Memberlist;
use memberlist::metrics::{CATALOGUE, MetricKind, Metrics};
use metrics::Unit;
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::transport::AgentTransport;

/// From a round trip within one machine to an exchange that nearly took too long.
const SECONDS: &[f64] = &[
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];
/// From a packet to the largest state.
const BYTES: &[f64] =
    &[256.0, 512.0, 1024.0, 1452.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 16_777_216.0];
const SHARE: &[f64] = &[0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5];
/// The histograms of QUIC, which are in no catalogue.
const QUIC: [(&str, &[f64]); 3] = [
    ("memberlist.quic.rtt", SECONDS),
    ("memberlist.quic.mtu", BYTES),
    ("memberlist.quic.loss", SHARE),
];

/// Where one node writes its metrics, and what they are read from.
pub(crate) struct Exporter {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Exporter {
    /// For the node of this name, in the cluster of this label.
    pub(crate) fn new(name: &str, label: &str) -> Result<Self, String> {
        let mut builder = PrometheusBuilder::new()
            .add_global_label("node", name)
            .add_global_label("cluster", label);
        let own = CATALOGUE.iter().filter(|metric| metric.kind == MetricKind::Histogram);
        let own = own
            .map(|metric| (metric.name, if metric.unit == Unit::Bytes { BYTES } else { SECONDS }));
        // With buckets the values of several nodes can be added up, which quantiles cannot.
        for (name, bounds) in own.chain(QUIC) {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
                .map_err(|error| error.to_string())?;
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        Ok(Self { recorder: Arc::new(recorder), handle })
    }

    /// The settings of a node that writes here.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::default().with_recorder(Arc::clone(&self.recorder))
    }

    /// Tells what the transport's metrics mean. Once, before the first reading.
    pub(crate) fn describe<T: AgentTransport>(&self, transport: &T) {
        metrics::with_local_recorder(&*self.recorder, || transport.describe_metrics());
    }

    /// All that there is now.
    pub(crate) fn render<T: AgentTransport>(&self, node: &Memberlist<T>) -> String {
        metrics::with_local_recorder(&*self.recorder, || node.transport().record_metrics());
        self.handle.render()
    }

    /// Puts measurements into their buckets. Without it they pile up while nobody reads.
    pub(crate) fn tidy(&self) {
        self.handle.run_upkeep();
    }
}
