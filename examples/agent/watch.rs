//! What the page shows of a node: how everything is now, and what changes, as JSON.
//!
//! One task watches for all who look on. It subscribes once, writes each change once, and asks the
//! node for its counts once a second while anybody looks. Whoever is too slow loses messages, never
//! holds up others, and is given the whole state again.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::sse;
use memberlist::{Closed, Event, Member, Memberlist, NodeId, NodeState};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval};

use crate::exporter::Exporter;
use crate::node::{counts, event_report};
use crate::report::{MemberReport, Report};
use crate::transport::AgentTransport;

/// Changes that wait for somebody who looks on.
pub(crate) const BACKLOG: usize = 256;
const STATS_EVERY: Duration = Duration::from_secs(1);
/// How soon a browser comes back when it has lost the agent.
const COME_BACK: Duration = Duration::from_secs(2);

/// Everything there is to know at one moment.
#[derive(Serialize)]
pub(crate) struct Snapshot {
    node: About,
    members: Vec<MemberView>,
    stats: StatsView,
    /// Changes that somebody who looks on was not told.
    missed: u64,
}

/// Who this node is.
#[derive(Serialize)]
struct About {
    name: String,
    addr: SocketAddr,
    transport: &'static str,
    cluster: String,
    version: &'static str,
}

/// A member, as far as this node knows.
#[derive(Serialize)]
struct MemberView {
    #[serde(flatten)]
    member: MemberReport,
    own: bool,
    /// For how long it has been in its state.
    since_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
}

/// How this node is, and what it has counted since it started.
#[derive(Serialize)]
struct StatsView {
    /// When, on a clock that only tells how far two of these are apart.
    at_seconds: f64,
    health: HealthView,
    /// How many members are in each state.
    members: BTreeMap<String, usize>,
    packets: Traffic,
    bytes: Traffic,
    /// What was dropped, refused or failed, by reason; of those, the sum.
    drops: BTreeMap<&'static str, u64>,
    drops_total: u64,
    /// The last round trip to each member that has answered this node: pairs, as names are anything.
    rtt_ms: Vec<(NodeName, f64)>,
}

#[derive(Serialize)]
struct HealthView {
    /// 0 is healthy.
    score: u32,
    max_score: u32,
    findings: Vec<String>,
    text: String,
}

#[derive(Serialize)]
struct Traffic {
    sent: u64,
    received: u64,
}

/// A change, as the agent reports it, and since when the member is in its state.
#[derive(Serialize)]
struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    since_seconds: Option<f64>,
    #[serde(flatten)]
    report: Report,
}

type NodeName = String;

/// What is watched, and by what name the cluster goes.
pub(crate) struct Watched<T: AgentTransport> {
    pub(crate) node: Memberlist<T>,
    label: String,
    started: Instant,
}

impl<T: AgentTransport> Watched<T> {
    pub(crate) fn new(node: Memberlist<T>, label: String) -> Self {
        Self { node, label, started: Instant::now() }
    }

    /// How everything is now.
    pub(crate) async fn snapshot(&self, missed: u64) -> Result<Snapshot, Closed> {
        let round_trips: HashMap<NodeId, Duration> =
            self.node.round_trips().await?.into_iter().collect();
        let members = self.node.known_members();
        let view = |member: &Member| MemberView {
            own: member.id().as_str() == self.node.name(),
            since_seconds: member.since.elapsed().as_secs_f64(),
            rtt_ms: round_trips.get(member.id()).copied().map(millis),
            member: member.into(),
        };
        let node = About {
            name: self.node.name().to_owned(),
            addr: self.node.addr(),
            transport: T::NAME,
            cluster: self.label.clone(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let members = members.iter().map(view).collect();
        Ok(Snapshot { node, members, stats: self.stats().await?, missed })
    }

    async fn stats(&self) -> Result<StatsView, Closed> {
        let (health, stats) = (self.node.health().await?, self.node.stats().await?);
        let drops = counts(&self.node).await?.drops;
        let mut members: BTreeMap<String, usize> =
            NodeState::ALL.map(|state| (state.to_string(), 0)).into_iter().collect();
        for member in self.node.known_members().iter() {
            *members.entry(member.state.to_string()).or_default() += 1;
        }
        let rtts = self.node.round_trips().await?.into_iter();
        Ok(StatsView {
            at_seconds: self.started.elapsed().as_secs_f64(),
            health: HealthView {
                score: health.score,
                max_score: health.max_score,
                findings: health.findings.iter().map(ToString::to_string).collect(),
                text: health.to_string(),
            },
            members,
            packets: Traffic { sent: stats.packets_sent, received: stats.packets_received },
            bytes: Traffic { sent: stats.bytes_sent, received: stats.bytes_received },
            drops_total: drops.values().sum(),
            drops,
            rtt_ms: rtts.map(|(id, rtt)| (id.to_string(), millis(rtt))).collect(),
        })
    }

    /// The snapshot as a message.
    pub(crate) async fn snapshot_message(&self, missed: u64) -> Option<sse::Event> {
        let snapshot = self.snapshot(missed).await.ok()?;
        message("snapshot", &snapshot).map(|message| message.retry(COME_BACK))
    }

    /// Tells all changes, until the node is shut down; then whoever looks on sees the end.
    pub(crate) async fn tell(
        &self,
        exporter: Arc<Exporter>,
        lookers_on: broadcast::Sender<sse::Event>,
    ) {
        let mut events = self.node.subscribe();
        let mut ticks = interval(STATS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.change(event).await,
                    None => return,
                },
                _ = ticks.tick() => {
                    exporter.tidy();
                    match lookers_on.receiver_count() {
                        0 => None,
                        _ => self.stats().await.ok().and_then(|stats| message("stats", &stats)),
                    }
                }
            };
            // It is no error if nobody looks on.
            message.map(|message| lookers_on.send(message));
        }
    }

    async fn change(&self, event: Event) -> Option<sse::Event> {
        let since_seconds = match &event {
            // Everybody begins with a snapshot of his own.
            Event::Snapshot { missed: 0, .. } => return None,
            Event::Snapshot { missed, .. } => return self.snapshot_message(*missed).await,
            Event::Joined(member)
            | Event::Left(member)
            | Event::Updated(member)
            | Event::Suspected(member)
            | Event::Cleared(member) => Some(member.since.elapsed().as_secs_f64()),
            _ => None,
        };
        message("change", &Change { since_seconds, report: event_report(event)? })
    }
}

/// Nothing if it cannot be written as JSON, which none of these is.
fn message(kind: &str, data: &impl Serialize) -> Option<sse::Event> {
    sse::Event::default().event(kind).json_data(data).ok()
}

fn millis(rtt: Duration) -> f64 {
    rtt.as_secs_f64() * 1e3
}
