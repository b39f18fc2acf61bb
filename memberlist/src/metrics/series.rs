//! The handles of a node's metrics, made once, and where each takes its value from.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memberlist_protocol::{DropReason, MessageKind, NodeState, PacketKind, Stats};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};

use super::Metrics;
use super::catalogue::{CATALOGUE, Metric, MetricKind, find};
use crate::config::Config;
use crate::meter::{OWN_DROPS, Role, Sample, Stamp};

/// How a count or a gauge is read.
type ReadCount = fn(&Stats) -> u64;
type ReadGauge = fn(&Sample<'_>) -> f64;
/// Values of one label, each with how it is read.
type ByLabel<R> = (&'static str, &'static str, &'static [(&'static str, R)]);

/// Where a counter takes its value from.
enum Counted {
    Stats(ReadCount),
    /// Of the label's value of that index.
    Indexed(fn(&Sample<'_>, usize) -> u64, usize),
}

/// A series of a counter.
struct Series {
    name: &'static str,
    labels: Vec<(&'static str, &'static str)>,
    counted: Counted,
}

/// The series of all counters but those of keys. Every node of a process has the same.
static COUNTED: LazyLock<Vec<Series>> = LazyLock::new(counted);

/// Counters without labels.
const PLAIN: &[(&str, ReadCount)] = &[
    ("memberlist.members.reaped", |s| s.reaped),
    ("memberlist.refutations", |s| s.refutations),
    ("memberlist.reconnects.tried", |s| s.reconnects),
    ("memberlist.reconnects.succeeded", |s| s.reconnects_succeeded),
    ("memberlist.probes.started", |s| s.probes),
    ("memberlist.probes.failed", |s| s.probes_failed),
    ("memberlist.probes.degraded", |s| s.probes_degraded),
    ("memberlist.suspicions.raised", |s| s.suspicions),
    ("memberlist.suspicions.confirmed", |s| s.suspicions_confirmed),
    ("memberlist.suspicions.refuted", |s| s.suspicions_refuted),
    ("memberlist.suspicions.expired", |s| s.suspicions_expired),
    ("memberlist.suspicions.degraded", |s| s.suspicions_degraded),
    ("memberlist.view.disagreements", |s| s.disagreements),
    ("memberlist.syncs.started", |s| s.syncs),
    ("memberlist.syncs.failed", |s| s.syncs_failed),
    ("memberlist.syncs.served", |s| s.sync_steps_served),
    ("memberlist.push_pulls.started", |s| s.push_pulls),
    ("memberlist.push_pulls.failed", |s| s.push_pulls_failed),
    ("memberlist.push_pulls.served", |s| s.push_pulls_served),
    ("memberlist.user_states.started", |s| s.user_state_exchanges),
    ("memberlist.user_states.failed", |s| s.user_state_exchanges_failed),
    ("memberlist.joins.deferred", |s| s.joins_deferred),
    ("memberlist.joins.retried", |s| s.joins_retried),
    ("memberlist.broadcasts.repeated", |s| s.broadcasts_repeated),
    ("memberlist.send.errors", |s| s.send_errors),
];

/// Counters of a label with a value each.
const LABELLED: &[ByLabel<ReadCount>] = &[
    (
        "memberlist.news.accepted",
        "kind",
        &[
            ("alive", |s| s.alives_accepted),
            ("suspect", |s| s.suspicions),
            ("dead", |s| s.deads_accepted),
        ],
    ),
    (
        "memberlist.probes.answered",
        "leg",
        &[
            ("direct", |s| s.probes_acked_direct),
            ("indirect", |s| s.probes_acked_indirect),
            ("stream", |s| s.probes_acked_stream),
        ],
    ),
    (
        "memberlist.probes.unanswered",
        "leg",
        &[
            ("direct", |s| s.probes_unanswered_direct),
            ("indirect", |s| s.probes_unanswered_indirect),
            ("stream", |s| s.probes_unanswered_stream),
        ],
    ),
    (
        "memberlist.view.digests",
        "result",
        &[
            ("equal", |s| s.views_equal),
            ("different", |s| s.views_different),
            ("stranger", |s| s.views_of_strangers),
        ],
    ),
    (
        "memberlist.sync.records",
        "direction",
        &[("sent", |s| s.sync_records_sent), ("received", |s| s.sync_records_received)],
    ),
    (
        "memberlist.packets.hashicorp",
        "direction",
        &[("sent", |s| s.packets_sent_hashicorp), ("received", |s| s.packets_received_hashicorp)],
    ),
    (
        "memberlist.encryption.failures",
        "cause",
        &[
            ("wrong_key", |s| s.drops(DropReason::WrongKey)),
            ("no_key", |s| s.drops(DropReason::NoKey)),
            ("plaintext_refused", |s| s.drops(DropReason::PlaintextRefused)),
            ("encryption_version", |s| s.drops(DropReason::EncryptionVersion)),
        ],
    ),
];

/// Gauges of a label with a value each.
const GAUGES: &[ByLabel<ReadGauge>] = &[
    (
        "memberlist.queue.items",
        "queue",
        &[
            ("news", |s| s.gauges.news.items as f64),
            ("user_broadcasts", |s| s.gauges.user_broadcasts.items as f64),
            ("packets", |s| s.gauges.pending.packets as f64),
            ("commands", |s| s.commands as f64),
            ("messages", |s| s.messages as f64),
            ("events", |s| s.events as f64),
        ],
    ),
    (
        "memberlist.queue.bytes",
        "queue",
        &[
            ("news", |s| s.gauges.news.bytes as f64),
            ("user_broadcasts", |s| s.gauges.user_broadcasts.bytes as f64),
        ],
    ),
    (
        "memberlist.queue.age",
        "queue",
        &[
            ("news", |s| s.gauges.news.oldest.as_secs_f64()),
            ("user_broadcasts", |s| s.gauges.user_broadcasts.oldest.as_secs_f64()),
        ],
    ),
    (
        "memberlist.pending",
        "what",
        &[
            ("timers", |s| s.gauges.pending.timers as f64),
            ("pings", |s| s.gauges.pending.pings as f64),
            ("relays", |s| s.gauges.pending.relays as f64),
            ("exchanges", |s| s.gauges.pending.exchanges as f64),
            ("deferred_joins", |s| s.gauges.pending.deferred_joins as f64),
            ("merges", |s| s.gauges.pending.merges as f64),
        ],
    ),
];

/// Where handles come from.
struct Registry<'a> {
    recorder: &'a dyn Recorder,
    labels: &'a [Label],
}

impl Registry<'_> {
    const METADATA: Metadata<'static> =
        Metadata::new("memberlist", Level::INFO, Some("memberlist"));

    fn describe(&self, metric: &Metric) {
        let (name, unit) = (metric.name.into(), Some(metric.unit));
        match metric.kind {
            MetricKind::Counter => self.recorder.describe_counter(name, unit, metric.help.into()),
            MetricKind::Gauge => self.recorder.describe_gauge(name, unit, metric.help.into()),
            MetricKind::Histogram => {
                self.recorder.describe_histogram(name, unit, metric.help.into());
            }
        }
    }

    fn key(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Key {
        debug_assert!(find(name).is_some_and(|m| m.labels.len() == labels.len()), "{name}");
        let own = labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned()));
        Key::from_parts(name, own.chain(self.labels.iter().cloned()).collect::<Vec<_>>())
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&self.key(name, labels), &Self::METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&self.key(name, labels), &Self::METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.register_histogram(&self.key(name, labels), &Self::METADATA)
    }
}

/// A direction or role, by index.
struct Pair<H>([H; 2]);

/// Keys that have series of their own.
const MAX_KEY_LABELS: usize = 64;
/// The label of all others.
const OTHER_KEYS: &str = "other";

const ROLES: [&str; 2] = ["asked", "served"];
const DIRECTIONS: [&str; 2] = ["sent", "received"];

/// Writes a node's metrics. Clones write the same.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Instruments>);

struct Instruments {
    settings: Metrics,
    labels: Vec<Label>,
    /// In the order of [`COUNTED`], with what was written so far. Only what is added is, so that nodes of one
    /// process may share a counter, and one that is started again goes on with it.
    counters: Vec<(Counter, AtomicU64)>,
    gauges: Vec<(Gauge, ReadGauge)>,
    members: Vec<Gauge>,
    streams_open: Pair<Gauge>,
    keys: Mutex<KeySeries>,
    round_trip: Histogram,
    lag: Histogram,
    stall: Histogram,
    event_lag: Histogram,
    push_pull_duration: Pair<Histogram>,
    push_pull_size: Pair<Histogram>,
    streams: Pair<Counter>,
    open: [AtomicUsize; 2],
    stream_bytes: Pair<Counter>,
}

/// The counters of keys.
#[derive(Default)]
struct KeySeries {
    /// Of the keys that are held.
    held: HashMap<String, [(Counter, AtomicU64); 2]>,
    /// Every label that was ever given out: a recorder forgets none.
    labels: HashSet<String>,
}

impl KeySeries {
    /// Members install keys: whoever does so without end must not make series without end.
    fn label<'a>(&mut self, fingerprint: &'a str) -> &'a str {
        if self.labels.len() < MAX_KEY_LABELS {
            self.labels.insert(fingerprint.to_owned());
        }
        if self.labels.contains(fingerprint) { fingerprint } else { OTHER_KEYS }
    }
}

/// A stream that is open.
pub(crate) struct Open(Arc<Instruments>, Role);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meter {
    pub(crate) fn of(config: &Config) -> Self {
        Self::new(&config.metrics)
    }

    /// Takes the recorder that the settings name, or the global one, and describes everything to it.
    fn new(settings: &Metrics) -> Self {
        let labels: Vec<Label> = settings
            .labels
            .iter()
            .map(|(name, value)| Label::new(name.clone(), value.clone()))
            .collect();
        let make = |recorder: &dyn Recorder| {
            let registry = Registry { recorder, labels: &labels };
            CATALOGUE.iter().for_each(|metric| registry.describe(metric));
            instruments(settings, labels.clone(), &registry)
        };
        Self(Arc::new(match &settings.recorder {
            Some(recorder) => make(&**recorder),
            None => metrics::with_recorder(make),
        }))
    }

    /// Whether counters and gauges are to be brought up to date.
    pub(crate) fn is_due(&self, last: Option<Instant>, now: Instant) -> bool {
        last.is_none_or(|at| now.saturating_duration_since(at) >= self.0.settings.interval)
    }

    pub(crate) fn publish(&self, sample: &Sample<'_>) {
        let instruments = &*self.0;
        for ((counter, written), series) in instruments.counters.iter().zip(&*COUNTED) {
            let count = match series.counted {
                Counted::Stats(read) => read(sample.stats),
                Counted::Indexed(read, index) => read(sample, index),
            };
            add(counter, written, count);
        }
        for (gauge, read) in &instruments.gauges {
            gauge.set(read(sample));
        }
        for (gauge, count) in instruments.members.iter().zip(sample.gauges.members) {
            gauge.set(count as f64);
        }
        // Without even itself among the members the node has ended, and its streams end with it.
        let ended = sample.gauges.members.iter().all(|count| *count == 0);
        for (gauge, open) in instruments.streams_open.0.iter().zip(&instruments.open) {
            let open = if ended { 0 } else { open.load(Ordering::Relaxed) };
            gauge.set(open as f64);
        }
        instruments.publish_keys(sample);
    }

    pub(crate) fn round_trip(&self, rtt: Duration) {
        self.0.round_trip.record(rtt);
    }

    pub(crate) fn converged(&self, after: Duration) {
        self.0.lag.record(after);
    }

    pub(crate) fn stalled(&self, late: Duration) {
        self.0.stall.record(late);
    }

    pub(crate) fn event_taken(&self, waited_since: Stamp) {
        let now = Stamp::now();
        self.0.event_lag.record(now.0.saturating_duration_since(waited_since.0));
    }

    /// Counts a stream, and that it is open until the result is dropped.
    pub(crate) fn stream(&self, role: Role) -> Open {
        self.0.streams.0[role as usize].increment(1);
        self.0.open[role as usize].fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.0), role)
    }

    pub(crate) fn stream_bytes(&self, sent: usize, received: usize) {
        let [out, came] = &self.0.stream_bytes.0;
        out.increment(sent as u64);
        came.increment(received as u64);
    }

    /// A push/pull that went well.
    pub(crate) fn push_pull(&self, role: Role, took: Duration, sent: usize, received: usize) {
        self.0.push_pull_duration.0[role as usize].record(took);
        let [out, came] = &self.0.push_pull_size.0;
        out.record(sent as f64);
        came.record(received as f64);
    }
}

#[cfg(test)]
impl Default for Meter {
    fn default() -> Self {
        Self::new(&Metrics::default())
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.0.settings).finish()
    }
}

impl Instruments {
    /// A key that is new gets its counters; in the recorder those of a removed one keep their last value.
    fn publish_keys(&self, sample: &Sample<'_>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.held.retain(|held, _| sample.keys.iter().any(|key| key.fingerprint == *held));
        for key in &sample.keys {
            if !keys.held.contains_key(&key.fingerprint) {
                let made = self.key_counters(keys.label(&key.fingerprint));
                keys.held.insert(key.fingerprint.clone(), made);
            }
            let Some([sealed, opened]) = keys.held.get(&key.fingerprint) else { continue };
            add(&sealed.0, &sealed.1, key.sealed);
            add(&opened.0, &opened.1, key.opened);
        }
    }

    fn key_counters(&self, label: &str) -> [(Counter, AtomicU64); 2] {
        let make = |recorder: &dyn Recorder| {
            let registry = Registry { recorder, labels: &self.labels };
            ["memberlist.key.sealed", "memberlist.key.opened"]
                .map(|name| (registry.counter(name, &[("key", label)]), AtomicU64::new(0)))
        };
        match &self.settings.recorder {
            Some(recorder) => make(&**recorder),
            None => metrics::with_recorder(make),
        }
    }
}

/// Writes what a count has grown by.
fn add(counter: &Counter, written: &AtomicU64, count: u64) {
    let before = written.swap(count, Ordering::Relaxed);
    // A key that was removed and installed again counts from zero.
    let grown = if count >= before { count - before } else { count };
    if grown > 0 {
        counter.increment(grown);
    }
}

fn instruments(settings: &Metrics, labels: Vec<Label>, registry: &Registry<'_>) -> Instruments {
    let pair = |name: &'static str, label: &'static str, values: [&str; 2]| {
        Pair(values.map(|value| registry.histogram(name, &[(label, value)])))
    };
    let counted = |name: &'static str, label: &'static str, values: [&str; 2]| {
        Pair(values.map(|value| registry.counter(name, &[(label, value)])))
    };
    Instruments {
        settings: settings.clone(),
        labels,
        counters: (COUNTED.iter())
            .map(|series| (registry.counter(series.name, &series.labels), AtomicU64::new(0)))
            .collect(),
        gauges: gauges(registry),
        members: (NodeState::ALL.iter())
            .map(|state| registry.gauge("memberlist.members", &[("state", &state.to_string())]))
            .collect(),
        streams_open: Pair(
            ROLES.map(|role| registry.gauge("memberlist.streams.open", &[("role", role)])),
        ),
        keys: Mutex::default(),
        round_trip: registry.histogram("memberlist.probe.rtt", &[]),
        lag: registry.histogram("memberlist.convergence.lag", &[]),
        stall: registry.histogram("memberlist.health.stall", &[]),
        event_lag: registry.histogram("memberlist.event.lag", &[]),
        push_pull_duration: pair("memberlist.push_pull.duration", "role", ROLES),
        push_pull_size: pair("memberlist.push_pull.size", "direction", DIRECTIONS),
        streams: counted("memberlist.streams", "role", ROLES),
        open: Default::default(),
        stream_bytes: counted("memberlist.stream.bytes", "direction", DIRECTIONS),
    }
}

fn counted() -> Vec<Series> {
    let plain = PLAIN.iter().map(|(name, read)| (*name, vec![], Counted::Stats(*read)));
    let labelled = LABELLED.iter().flat_map(|(name, label, values)| {
        let series = |(value, read): &_| (*name, vec![(*label, *value)], Counted::Stats(*read));
        values.iter().map(series)
    });
    let mut all: Vec<_> = plain.chain(labelled).collect();
    let mut indexed = |name, labels: &[_], read, index| {
        all.push((name, labels.to_vec(), Counted::Indexed(read, index)));
    };
    for (index, kind) in PacketKind::ALL.iter().enumerate() {
        let [sent, received] =
            DIRECTIONS.map(|direction| [("kind", kind.as_str()), ("direction", direction)]);
        indexed(
            "memberlist.packets",
            &sent,
            |s, i| s.stats.packets_sent_of(PacketKind::ALL[i]).packets,
            index,
        );
        indexed(
            "memberlist.packets",
            &received,
            |s, i| s.stats.packets_received_of(PacketKind::ALL[i]).packets,
            index,
        );
        indexed(
            "memberlist.packet.bytes",
            &sent,
            |s, i| s.stats.packets_sent_of(PacketKind::ALL[i]).bytes,
            index,
        );
        indexed(
            "memberlist.packet.bytes",
            &received,
            |s, i| s.stats.packets_received_of(PacketKind::ALL[i]).bytes,
            index,
        );
    }
    for (index, kind) in MessageKind::ALL.iter().enumerate() {
        let [sent, received] =
            DIRECTIONS.map(|direction| [("kind", kind.as_str()), ("direction", direction)]);
        indexed("memberlist.messages", &sent, |s, i| s.stats.sent(MessageKind::ALL[i]), index);
        indexed(
            "memberlist.messages",
            &received,
            |s, i| s.stats.received(MessageKind::ALL[i]),
            index,
        );
    }
    for (index, reason) in DropReason::ALL.iter().enumerate() {
        let label = [("reason", reason.as_str())];
        indexed("memberlist.drops", &label, |s, i| s.stats.drops(DropReason::ALL[i]), index);
    }
    for (index, reason) in OWN_DROPS.iter().enumerate() {
        indexed("memberlist.drops", &[("reason", *reason)], |s, i| s.own_drops[i], index);
    }
    all.into_iter().map(|(name, labels, counted)| Series { name, labels, counted }).collect()
}

fn gauges(registry: &Registry<'_>) -> Vec<(Gauge, ReadGauge)> {
    let plain: [(&'static str, ReadGauge); 3] = [
        ("memberlist.health.score", |s| f64::from(s.gauges.health_score)),
        ("memberlist.view.unconfirmed", |s| s.gauges.view_unconfirmed.as_secs_f64()),
        ("memberlist.keys", |s| s.keys.len() as f64),
    ];
    let plain = plain.map(|(name, read)| (registry.gauge(name, &[]), read));
    let labelled = GAUGES.iter().flat_map(|(name, label, values)| {
        values.iter().map(move |(value, read)| (registry.gauge(name, &[(label, value)]), *read))
    });
    plain.into_iter().chain(labelled).collect()
}
