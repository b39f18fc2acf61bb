//! What the `metrics` facade is told.

mod common;

use memberlist_transport_quic::QuicTransport;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::common::{bind, ca, exchange};

fn value(told: &Snapshotter, name: &str) -> Option<DebugValue> {
    let all = told.snapshot().into_vec().into_iter();
    let mut named = all.filter(|(key, ..)| key.key().name() == name);
    named.next().map(|(.., value)| value)
}

#[tokio::test]
async fn counts_and_connections_are_told() {
    let ca = ca();
    let (a, b) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    exchange(&a, &b, b"hello").await;
    let recorder = DebuggingRecorder::new();
    let told = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        QuicTransport::describe_metrics(&a);
        a.record_metrics();
    });
    let sent = a.stats().packets_sent;
    assert_eq!(value(&told, "memberlist.quic.packets_sent"), Some(DebugValue::Counter(sent)));
    metrics::with_local_recorder(&recorder, || a.record_metrics());
    let connections = value(&told, "memberlist.quic.connections");
    assert_eq!(connections, Some(DebugValue::Gauge(1.0.into())));
    metrics::with_local_recorder(&recorder, || a.record_metrics());
    let Some(DebugValue::Histogram(rtts)) = value(&told, "memberlist.quic.rtt") else {
        panic!("no round-trip times");
    };
    assert!(rtts.iter().all(|rtt| rtt.0 > 0.0 && rtt.0 < 1.0), "{rtts:?}");
}
