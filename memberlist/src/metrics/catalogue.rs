//! Every metric of a node, by name.

use metrics::Unit;

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows, from zero at the start of the node.
    Counter,
    /// How much there is now.
    Gauge,
    /// Single measurements.
    Histogram,
}

impl MetricKind {
    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric, as it is described to the recorder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, in parts between dots. Exporters may put other signs there: Prometheus has
    /// underscores.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: Unit,
    /// The names of its labels, beside those of [`Metrics::labels`](super::Metrics::labels). Their values
    /// are few, and no peer can add any: no member is a label.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
    /// What the Go library has instead, if it has something.
    pub go: &'static str,
}

const fn metric(
    name: &'static str,
    kind: MetricKind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
    go: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help, go }
}

use MetricKind::{Counter, Gauge, Histogram};
use Unit::{Bytes, Count, Seconds};

const DIRECTION: &[&str] = &["direction"];
const KIND_AND_DIRECTION: &[&str] = &["kind", "direction"];
const KEY: &[&str] = &["key"];
const LEG: &[&str] = &["leg"];
const QUEUE: &[&str] = &["queue"];
const ROLE: &[&str] = &["role"];
const NONE: &[&str] = &[];

/// All metrics of a node, whatever its settings. A transport may have more of its own: see
/// `QuicTransport::record_metrics`.
pub const CATALOGUE: &[Metric] = &[
    // ---- members
    metric(
        "memberlist.members",
        Gauge,
        Count,
        &["state"],
        "members that are known here, by state: alive, suspect, dead, left",
        "memberlist.node.instances",
    ),
    metric(
        "memberlist.members.reaped",
        Counter,
        Count,
        NONE,
        "gone members that were forgotten",
        "",
    ),
    metric(
        "memberlist.news.accepted",
        Counter,
        Count,
        &["kind"],
        "news that changed something here: alive, suspect, dead (farewells are among these)",
        "memberlist.msg.alive, .suspect, .dead",
    ),
    metric(
        "memberlist.refutations",
        Counter,
        Count,
        NONE,
        "news about this node itself that it contradicted",
        "",
    ),
    metric(
        "memberlist.reconnects.tried",
        Counter,
        Count,
        NONE,
        "failed members that were tried again",
        "",
    ),
    metric(
        "memberlist.reconnects.succeeded",
        Counter,
        Count,
        NONE,
        "failed members that answered that, and are back",
        "",
    ),
    // ---- failure detection
    metric(
        "memberlist.health.score",
        Gauge,
        Count,
        NONE,
        "how far this node doubts itself: 0 is healthy",
        "memberlist.health.score",
    ),
    metric(
        "memberlist.health.stall",
        Histogram,
        Seconds,
        NONE,
        "how late this node did what was due, where that was 0.1 s or more",
        "",
    ),
    metric(
        "memberlist.probes.started",
        Counter,
        Count,
        NONE,
        "probes of members",
        "memberlist.probeNode",
    ),
    metric(
        "memberlist.probes.answered",
        Counter,
        Count,
        LEG,
        "probes that were answered, by the first leg that was: direct, indirect, stream",
        "",
    ),
    metric(
        "memberlist.probes.unanswered",
        Counter,
        Count,
        LEG,
        "legs of probes that were tried and not answered: direct, indirect, stream",
        "",
    ),
    metric("memberlist.probes.failed", Counter, Count, NONE, "probes that nobody answered", ""),
    metric(
        "memberlist.probes.degraded",
        Counter,
        Count,
        NONE,
        "probes with an interval stretched by the health score",
        "memberlist.degraded.probe",
    ),
    metric("memberlist.probe.rtt", Histogram, Seconds, NONE, "round trips of direct pings", ""),
    metric(
        "memberlist.suspicions.raised",
        Counter,
        Count,
        NONE,
        "suspicions that began here, by an own probe or by news",
        "memberlist.msg.suspect",
    ),
    metric(
        "memberlist.suspicions.confirmed",
        Counter,
        Count,
        NONE,
        "independent confirmations of a running suspicion",
        "",
    ),
    metric(
        "memberlist.suspicions.refuted",
        Counter,
        Count,
        NONE,
        "suspicions that the member contradicted",
        "",
    ),
    metric(
        "memberlist.suspicions.expired",
        Counter,
        Count,
        NONE,
        "suspicions that ended in a death",
        "",
    ),
    metric(
        "memberlist.suspicions.degraded",
        Counter,
        Count,
        NONE,
        "of those, how many with fewer confirmations than wanted",
        "memberlist.degraded.timeout",
    ),
    // ---- dissemination
    metric(
        "memberlist.convergence.lag",
        Histogram,
        Seconds,
        NONE,
        "from an announcement of this node until three members in a row showed the same view as it",
        "",
    ),
    metric(
        "memberlist.view.unconfirmed",
        Gauge,
        Seconds,
        NONE,
        "for how long no member has shown the view that this node has",
        "",
    ),
    metric(
        "memberlist.view.digests",
        Counter,
        Count,
        &["result"],
        "view digests heard: equal, different, stranger",
        "",
    ),
    metric(
        "memberlist.view.disagreements",
        Counter,
        Count,
        NONE,
        "reports of a member whose view stays another than the own one",
        "",
    ),
    metric(
        "memberlist.syncs.started",
        Counter,
        Count,
        NONE,
        "comparisons of members begun here",
        "",
    ),
    metric(
        "memberlist.syncs.failed",
        Counter,
        Count,
        NONE,
        "of those, how many got no answer, or none that can be used",
        "",
    ),
    metric(
        "memberlist.syncs.served",
        Counter,
        Count,
        NONE,
        "steps of others' comparisons that were answered",
        "",
    ),
    metric(
        "memberlist.sync.records",
        Counter,
        Count,
        DIRECTION,
        "records in comparisons: sent, received",
        "",
    ),
    metric(
        "memberlist.push_pulls.started",
        Counter,
        Count,
        NONE,
        "exchanges of whole states begun here, joins included",
        "memberlist.tcp.connect, memberlist.pushPullNode",
    ),
    metric(
        "memberlist.push_pulls.failed",
        Counter,
        Count,
        NONE,
        "exchanges of whole states that failed",
        "",
    ),
    metric(
        "memberlist.push_pulls.served",
        Counter,
        Count,
        NONE,
        "exchanges of whole states that others began",
        "",
    ),
    metric(
        "memberlist.push_pull.duration",
        Histogram,
        Seconds,
        ROLE,
        "how long those took that went well, by this node's part: asked, served",
        "memberlist.pushPullNode",
    ),
    metric(
        "memberlist.push_pull.size",
        Histogram,
        Bytes,
        DIRECTION,
        "how large they were on the wire: sent, received",
        "memberlist.size.local, memberlist.size.remote",
    ),
    metric(
        "memberlist.user_states.started",
        Counter,
        Count,
        NONE,
        "exchanges of the applications' states alone begun here",
        "",
    ),
    metric("memberlist.user_states.failed", Counter, Count, NONE, "of those, how many failed", ""),
    metric(
        "memberlist.joins.deferred",
        Counter,
        Count,
        NONE,
        "joins of others that were told to come back",
        "",
    ),
    metric("memberlist.joins.retried", Counter, Count, NONE, "how often own joins came back", ""),
    metric(
        "memberlist.broadcasts.repeated",
        Counter,
        Count,
        NONE,
        "user broadcasts that came again, as most do on their way",
        "",
    ),
    // ---- traffic
    metric(
        "memberlist.packets",
        Counter,
        Count,
        KIND_AND_DIRECTION,
        "packets by what they are for: ping, indirect_ping, ack, nack, gossip, user, sync, unreadable; sent, received",
        "",
    ),
    metric(
        "memberlist.packet.bytes",
        Counter,
        Bytes,
        KIND_AND_DIRECTION,
        "their bytes, without label and encryption",
        "memberlist.udp.sent, memberlist.udp.received",
    ),
    metric(
        "memberlist.packets.hashicorp",
        Counter,
        Count,
        DIRECTION,
        "of the packets, those in Go's format",
        "",
    ),
    metric(
        "memberlist.messages",
        Counter,
        Count,
        KIND_AND_DIRECTION,
        "messages in packets, by kind",
        "",
    ),
    metric("memberlist.send.errors", Counter, Count, NONE, "packets that the network refused", ""),
    metric(
        "memberlist.streams",
        Counter,
        Count,
        ROLE,
        "streams by who opened them: asked (this node), served (others)",
        "memberlist.tcp.accept, memberlist.tcp.connect",
    ),
    metric("memberlist.streams.open", Gauge, Count, ROLE, "streams that are open now", ""),
    metric(
        "memberlist.stream.bytes",
        Counter,
        Bytes,
        DIRECTION,
        "bytes on streams, on the wire",
        "memberlist.tcp.sent",
    ),
    metric(
        "memberlist.drops",
        Counter,
        Count,
        &["reason"],
        "what was dropped or refused, by reason",
        "",
    ),
    // ---- keys
    metric(
        "memberlist.encryption.failures",
        Counter,
        Count,
        &["cause"],
        "packets and streams refused by the keys: wrong_key, no_key, plaintext_refused, encryption_version",
        "",
    ),
    metric("memberlist.keys", Gauge, Count, NONE, "keys in the keyring", ""),
    metric(
        "memberlist.key.sealed",
        Counter,
        Count,
        KEY,
        "messages sealed with a key, by its fingerprint; of more than 64 keys since the start the rest as other",
        "",
    ),
    metric("memberlist.key.opened", Counter, Count, KEY, "messages opened with a key", ""),
    // ---- queues
    metric(
        "memberlist.queue.items",
        Gauge,
        Count,
        QUEUE,
        "what waits: news, user_broadcasts, packets, commands, messages, events (of the slowest subscriber)",
        "memberlist.queue.broadcasts",
    ),
    metric(
        "memberlist.queue.bytes",
        Gauge,
        Bytes,
        QUEUE,
        "bytes of news and user_broadcasts that wait",
        "",
    ),
    metric(
        "memberlist.queue.age",
        Gauge,
        Seconds,
        QUEUE,
        "for how long the oldest of news and user_broadcasts has waited",
        "",
    ),
    metric(
        "memberlist.pending",
        Gauge,
        Count,
        &["what"],
        "what is under way: timers, pings, relays, exchanges, deferred_joins, merges",
        "",
    ),
    metric(
        "memberlist.event.lag",
        Histogram,
        Seconds,
        NONE,
        "how long events waited until a subscriber or the delegate took them",
        "",
    ),
];

/// The metric of that name.
pub(super) fn find(name: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|metric| metric.name == name)
}
