//! The steps of the demo: each waits for what it claims.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use memberlist::NodeState;

use crate::cluster::{Cluster, HELLO};
use crate::display::Display;
use crate::network::Network;
use crate::rotate::rotate;
use crate::{Flags, Preset, Summary};

pub(crate) async fn run<N: Network>(
    flags: &Flags,
    display: &Display,
    summary: &mut Summary,
) -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::<N>::start(flags).await?;
    let encrypted = if flags.encrypt { ", encrypted with a shared key" } else { "" };
    display.begin(format!("{} nodes started on loopback{}{encrypted}", flags.nodes, N::ABOUT));
    let outcome = live(flags, &mut cluster, display, summary).await;
    let false_deaths = cluster.watch.seen().false_deaths.clone();
    summary.false_deaths = false_deaths.len();
    for (dead, by) in false_deaths {
        display.failed(&format!("{by} declared {dead} dead, which was well"));
    }
    shut_down(&cluster).await;
    if outcome.is_ok() {
        display.done("shut down", Duration::ZERO);
    }
    outcome
}

async fn live<N: Network>(
    flags: &Flags,
    cluster: &mut Cluster<N>,
    display: &Display,
    summary: &mut Summary,
) -> Result<(), Box<dyn Error>> {
    let patience = Patience::new(flags);
    summary.converge_s = Some(converge(cluster, display, &patience).await?);
    summary.broadcast_s = Some(broadcast(cluster, display, &patience).await?);
    summary.meta_s = Some(meta(cluster, display, &patience).await?);
    if flags.encrypt {
        summary.rotation = Some(rotate(cluster, display, patience.news).await?);
    }
    fail(cluster, display, &patience, summary).await?;
    summary.rejoin_s = Some(rejoin(cluster, display, &patience).await?);
    summary.leave_s = Some(leave(cluster, display, &patience).await?);
    Ok(())
}

async fn shut_down<N: Network>(cluster: &Cluster<N>) {
    for node in cluster.running() {
        node.shutdown().await;
    }
}

/// How long a step may take before it counts as failed. Generous: a busy machine is no failure.
struct Patience {
    news: Duration,
    detection: Duration,
}

impl Patience {
    fn new(flags: &Flags) -> Self {
        let protocol = match flags.preset {
            Preset::Local => memberlist::protocol::Config::local(),
            Preset::Lan => memberlist::protocol::Config::lan(),
            Preset::Wan => memberlist::protocol::Config::wan(),
        };
        // News that gossip missed comes with a push/pull, which large clusters do more rarely.
        let news = protocol.push_pull_interval * 6 + Duration::from_secs(30);
        // A round of probes until somebody looks, then the longest suspicion.
        let n = u32::from(flags.nodes);
        let log10 = f64::from(n).log10().max(1.0);
        let suspicion =
            protocol.probe_interval * protocol.suspicion_mult * protocol.suspicion_max_timeout_mult;
        let detection = protocol.probe_interval * (2 * n).min(20) + suspicion.mul_f64(log10) + news;
        Self { news, detection }
    }
}

async fn converge<N: Network>(
    cluster: &Cluster<N>,
    display: &Display,
    patience: &Patience,
) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    let seed = cluster.seed_addr();
    let joins = cluster.running().skip(1).map(|node| node.join([seed.as_str()]));
    let mut joins: FuturesUnordered<_> = joins.collect();
    while let Some(joined) = joins.next().await {
        joined?;
        display.show(cluster);
    }
    let holds = || {
        display.show(cluster);
        cluster.agrees()
    };
    cluster.watch.until("all nodes know each other", patience.news, holds).await?;
    let took = began.elapsed();
    display.done(&format!("{} nodes joined and agree", cluster.slots.len()), took);
    Ok(took.as_secs_f64())
}

async fn broadcast<N: Network>(
    cluster: &Cluster<N>,
    display: &Display,
    patience: &Patience,
) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    cluster.node(0)?.broadcast(HELLO).await?;
    let others = cluster.slots.len() - 1;
    let holds = || {
        display.show(cluster);
        cluster.watch.seen().messages.len() >= others
    };
    cluster.watch.until("everybody has the message", patience.news, holds).await?;
    let took = began.elapsed();
    display.done(&format!("a broadcast reached {others} nodes"), took);
    Ok(took.as_secs_f64())
}

async fn meta<N: Network>(
    cluster: &Cluster<N>,
    display: &Display,
    patience: &Patience,
) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    let name = cluster.slots[1].name.clone();
    // Not awaited to its end: others know long before it has been sent as often as news is.
    let node = cluster.node(1)?.clone();
    let update = tokio::spawn(async move { node.update_meta("role=leader").await });
    let holds = || {
        display.show(cluster);
        cluster
            .running()
            .all(|node| node.member(&name).is_some_and(|member| member.node.meta == "role=leader"))
    };
    cluster.watch.until("everybody knows the new meta", patience.news, holds).await?;
    let took = began.elapsed();
    update.await??;
    display.done(&format!("everybody knows that {name} is role=leader"), took);
    Ok(took.as_secs_f64())
}

async fn fail<N: Network>(
    cluster: &mut Cluster<N>,
    display: &Display,
    patience: &Patience,
    summary: &mut Summary,
) -> Result<(), Box<dyn Error>> {
    let victim = cluster.slots.len() - 1;
    let name = cluster.slots[victim].name.clone();
    let began = Instant::now();
    cluster.kill(victim).await;
    display.note(&format!("{name} was stopped without a farewell"));

    let watch = Arc::clone(&cluster.watch);
    let since = |at: Option<Instant>| at.map(|at| at.duration_since(began));
    let suspected = || {
        display.show(cluster);
        watch.seen().suspected_at.is_some()
    };
    watch.until("somebody suspects it", patience.detection, suspected).await?;
    let took = since(watch.seen().suspected_at).unwrap_or_default();
    summary.suspect_s = Some(took.as_secs_f64());
    display.done(&format!("{name} is suspected"), took);

    let all = || {
        display.show(cluster);
        cluster.all_see(&name, NodeState::Dead)
    };
    watch.until("all know that it is dead", patience.detection, all).await?;
    let took = began.elapsed();
    summary.detect_first_s = since(watch.seen().dead_at).map(|first| first.as_secs_f64());
    summary.detect_all_s = Some(took.as_secs_f64());
    display.done(&format!("all know that {name} is dead"), took);
    watch.until("all have reported it", patience.news, || cluster.all_reported()).await?;

    // The member that declared it dead knows most about why.
    let reasons = cluster.running().filter_map(|node| node.member(&name)?.death);
    if let Some(death) = reasons.max_by_key(|death| death.probe.is_some()) {
        display.note(&format!("{name}: {death}"));
    }
    Ok(())
}

async fn rejoin<N: Network>(
    cluster: &mut Cluster<N>,
    display: &Display,
    patience: &Patience,
) -> Result<f64, Box<dyn Error>> {
    let victim = cluster.slots.len() - 1;
    let name = cluster.slots[victim].name.clone();
    let began = Instant::now();
    cluster.restart(victim).await?;
    let holds = || {
        display.show(cluster);
        cluster.agrees()
    };
    cluster.watch.until("all see it back", patience.news, holds).await?;
    let took = began.elapsed();
    display.done(&format!("{name} was started again, and all see it back"), took);
    Ok(took.as_secs_f64())
}

async fn leave<N: Network>(
    cluster: &mut Cluster<N>,
    display: &Display,
    patience: &Patience,
) -> Result<f64, Box<dyn Error>> {
    let leaver = cluster.slots.len() - 2;
    let name = cluster.slots[leaver].name.clone();
    let began = Instant::now();
    cluster.node(leaver)?.leave(patience.news).await?;
    let holds = || {
        display.show(cluster);
        cluster.all_see(&name, NodeState::Left)
    };
    cluster.watch.until("all know that it left", patience.news, holds).await?;
    let took = began.elapsed();
    display.done(&format!("{name} left, and all know that it did"), took);
    Ok(took.as_secs_f64())
}
