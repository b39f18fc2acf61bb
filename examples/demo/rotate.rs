//! The step that needs keys: they are replaced on every node while messages flow.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memberlist::security::{KeySize, SecretKey};
use memberlist::{Memberlist, SendError, Transport};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Wire;
use crate::cluster::{Cluster, Node};
use crate::display::Display;
use crate::network::Network;

/// Reliable messages of each node before the rotation begins, and again after its end.
const MESSAGES_AROUND: usize = 10;
/// How long a node waits from one message to the next.
const PAUSE: Duration = Duration::from_millis(10);
/// One message in so many is a broadcast to all instead.
const BROADCAST_EVERY: usize = 5;
/// How long the last broadcasts are waited for.
const FOR_BROADCASTS: Duration = Duration::from_secs(3);

/// What the step did.
#[derive(Debug, Serialize)]
pub(crate) struct Rotation {
    /// From its first request until the last node holds the new key alone.
    took_s: f64,
    /// Reliable messages sent while the step ran; all of them arrived, once.
    reliable: usize,
    /// Broadcasts sent, times the other nodes,
    broadcast_copies: usize,
    /// and how many of these copies arrived. Broadcasts are best effort.
    broadcast_copies_received: usize,
}

pub(crate) async fn rotate<N: Network>(
    cluster: &mut Cluster<N>,
    display: &Display,
    patience: Duration,
) -> Result<Rotation, Box<dyn Error>> {
    // A node that is under suspicion already does not count as suspected by the rotation.
    let watch = Arc::clone(&cluster.watch);
    watch.until("nobody is suspected before the rotation", patience, || cluster.agrees()).await?;
    let suspected_before = suspicions(cluster).await?;
    let deaths_before = watch.seen().false_deaths.len();

    let stop = Arc::new(AtomicBool::new(false));
    let nodes: Vec<Node<N>> = cluster.running().cloned().collect();
    let mut senders = JoinSet::new();
    for (i, node) in nodes.iter().enumerate() {
        let others = (1..nodes.len()).map(|k| nodes[(i + k) % nodes.len()].name().to_owned());
        senders.spawn(talk(node.clone(), others.collect(), Arc::clone(&stop)));
    }
    let received = || watch.seen().traffic.reliable.len();
    let around = nodes.len() * MESSAGES_AROUND;
    let flow = || {
        display.show(cluster);
        received() >= around
    };
    watch.until("messages flow", patience, flow).await?;

    let new = SecretKey::generate(KeySize::Bits256)?;
    let began = Instant::now();
    if cluster.wire == Wire::Native {
        let keys = cluster.node(0)?.keys().ok_or("the nodes have no keys")?;
        keys.rotate_to(new.clone()).await?;
    } else {
        rotate_each(&nodes, &new).await?;
    }
    let took = began.elapsed();

    let so_far = received();
    let flow_on = || {
        display.show(cluster);
        received() >= so_far + around
    };
    watch.until("messages flow under the new key", patience, flow_on).await?;
    stop.store(true, Ordering::Relaxed);
    let (mut reliable, mut broadcasts) = (0, 0);
    while let Some(sent) = senders.join_next().await {
        let sent = sent??;
        reliable += sent.reliable;
        broadcasts += sent.broadcasts;
    }

    let all_came = || {
        display.show(cluster);
        received() >= reliable
    };
    watch.until("every reliable message arrives", patience, all_came).await?;
    let copies = broadcasts * (nodes.len() - 1);
    // They may be lost, so this is no condition.
    let all_copies = || watch.seen().traffic.broadcasts >= copies;
    let _ = watch.until("every broadcast arrives", FOR_BROADCASTS, all_copies).await;

    for node in &nodes {
        let held: Vec<_> = node.keys().iter().flat_map(|keys| keys.local()).collect();
        if held.len() != 1 || held[0].fingerprint != new.fingerprint() {
            return Err(format!("{} does not hold the new key alone", node.name()).into());
        }
    }
    let (twice, broadcast_copies_received) = {
        let seen = watch.seen();
        (seen.traffic.twice, seen.traffic.broadcasts)
    };
    if twice > 0 {
        return Err(format!("{twice} reliable messages came twice").into());
    }
    let suspected = suspicions(cluster).await? - suspected_before;
    if suspected > 0 || watch.seen().false_deaths.len() > deaths_before {
        return Err("a node was suspected or declared dead during the rotation".into());
    }

    display.done(&format!("the key of all {} nodes was replaced", nodes.len()), took);
    display.note(&format!(
        "meanwhile {reliable} reliable messages arrived, each once, and \
         {broadcast_copies_received} of {copies} copies of broadcasts; nobody was suspected"
    ));
    cluster.key = Some(new);
    Ok(Rotation {
        took_s: took.as_secs_f64(),
        reliable,
        broadcast_copies: copies,
        broadcast_copies_received,
    })
}

/// What one node sent.
struct Sent {
    reliable: usize,
    broadcasts: usize,
}

/// In Go's format keys are not changed over the wire: each step is taken on every node by itself, before
/// the next.
async fn rotate_each<T: Transport>(
    nodes: &[Memberlist<T>],
    new: &SecretKey,
) -> Result<(), Box<dyn Error>> {
    let keys: Option<Vec<_>> = nodes.iter().map(Memberlist::keys).collect();
    let keys = keys.ok_or("the nodes have no keys")?;
    for keys in &keys {
        keys.install_here(new.clone()).await?;
    }
    for keys in &keys {
        keys.activate_here(new.fingerprint()).await?;
    }
    // What was sealed before arrives meanwhile.
    sleep(FOR_BROADCASTS).await;
    for keys in &keys {
        for old in keys.local().into_iter().filter(|old| old.fingerprint != new.fingerprint()) {
            keys.remove_here(old.fingerprint).await?;
        }
    }
    Ok(())
}

/// Sends to one other after another, and now and then to all, until told to stop.
async fn talk<T: Transport>(
    node: Memberlist<T>,
    others: Vec<String>,
    stop: Arc<AtomicBool>,
) -> Result<Sent, SendError> {
    let mut sent = Sent { reliable: 0, broadcasts: 0 };
    for (number, to) in others.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let payload = format!("traffic {} {number}", node.name());
        if number % BROADCAST_EVERY == 0 {
            node.broadcast(payload).await?;
            sent.broadcasts += 1;
        } else {
            node.send_reliable(to, payload).await?;
            sent.reliable += 1;
        }
        sleep(PAUSE).await;
    }
    Ok(sent)
}

/// How often any of the nodes has suspected another so far.
async fn suspicions<N: Network>(cluster: &Cluster<N>) -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for node in cluster.running() {
        sum += node.stats().await?.suspicions;
    }
    Ok(sum)
}
