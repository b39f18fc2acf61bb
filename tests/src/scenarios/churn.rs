//! Everything at once, for a while.

use std::net::SocketAddr;
use std::time::Duration;

use memberlist::{Builder, Config};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::cluster::{addrs, join_all};
use crate::events::check;
use crate::transports::TestTransport;
use crate::wait::{PATIENCE, agree, until, until_async, within};
use crate::{Cluster, EventLog, TestNode, quick};

const NODES: usize = 20;
/// These are never stopped: they are the seeds, and one of them is the witness.
const STABLE: usize = 2;

enum Slot<T: TestTransport> {
    Up(TestNode<T>),
    Left(TestNode<T>),
    Down(SocketAddr),
}

fn settings(slot: usize) -> Config {
    let mut config = quick(&format!("n{slot}"));
    config.event_capacity = 1 << 20;
    config.protocol.reconnect_interval = Duration::from_millis(500);
    config.protocol.gossip_to_the_dead_time = Duration::from_secs(4);
    config.protocol.push_pull_interval = Duration::from_secs(3);
    config
}

struct Churn<T: TestTransport> {
    cluster: Cluster<T>,
    slots: Vec<Slot<T>>,
    rng: StdRng,
    metas: u32,
}

impl<T: TestTransport> Churn<T> {
    fn node(&self, slot: usize) -> Option<&TestNode<T>> {
        match &self.slots[slot] {
            Slot::Up(node) | Slot::Left(node) => Some(node),
            Slot::Down(_) => None,
        }
    }

    fn nodes(&self) -> Vec<&TestNode<T>> {
        (0..NODES).filter_map(|slot| self.node(slot)).collect()
    }

    async fn join(&self, node: &TestNode<T>) {
        let seeds: Vec<_> =
            (0..STABLE).filter_map(|s| self.node(s)).map(|n| n.addr().to_string()).collect();
        // In a partition both seeds may be on the other side.
        let _ = within("a join", node.join(seeds)).await;
    }

    /// Brings a slot up, however it went down.
    async fn bring_up(&mut self, slot: usize) {
        let node = match &self.slots[slot] {
            Slot::Up(_) => return,
            Slot::Left(node) => node.clone(),
            Slot::Down(at) => self.cluster.start_at(*at, Builder::new(settings(slot))).await,
        };
        self.join(&node).await;
        self.slots[slot] = Slot::Up(node);
    }

    async fn step(&mut self) {
        let slot = self.rng.random_range(STABLE..NODES);
        let down = NODES - self.nodes().len();
        match (self.rng.random_range(0..10), &self.slots[slot]) {
            (0..=1, Slot::Up(node) | Slot::Left(node)) if down < NODES / 3 => {
                let at = node.addr();
                node.shutdown().await;
                self.slots[slot] = Slot::Down(at);
            }
            (2, Slot::Up(node)) => {
                let node = node.clone();
                // In a partition it may take longer than one would wait.
                let _ = node.leave(Duration::from_secs(1)).await;
                self.slots[slot] = Slot::Left(node);
            }
            (3..=5, _) => self.bring_up(slot).await,
            (6, Slot::Up(node)) => {
                self.metas += 1;
                let node = node.clone();
                let meta = self.metas.to_string();
                tokio::spawn(async move { node.update_meta(meta).await });
            }
            (7, Slot::Up(node)) => drop(node.broadcast("to all").await),
            (8, Slot::Up(node)) => {
                let to = format!("n{}", self.rng.random_range(0..NODES));
                let node = node.clone();
                tokio::spawn(async move { node.send_reliable(&to, vec![0; 100_000]).await });
            }
            (9, _) => {
                self.cluster.rules().heal();
                if self.rng.random_bool(0.5) {
                    let all = addrs(&self.nodes());
                    let at = self.rng.random_range(1..all.len());
                    self.cluster.rules().partition(&all[..at], &all[at..]);
                }
            }
            _ => {}
        }
    }
}

/// Twenty nodes that die, return, leave, join, change and talk, through partitions, for that long:
/// afterwards they agree, and all that a witness was told was possible.
pub async fn churn<T: TestTransport>(lasts: Duration, seed: u64) {
    let cluster = Cluster::<T>::new();
    let mut nodes = Vec::new();
    for slot in 0..NODES {
        nodes.push(cluster.start(Builder::new(settings(slot))).await);
    }
    join_all(&nodes).await;
    let log = EventLog::of(&nodes[0]).await;
    let rng = StdRng::seed_from_u64(seed);
    let slots = nodes.into_iter().map(Slot::Up).collect();
    let mut churn = Churn { cluster, slots, rng, metas: 0 };
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        churn.step().await;
        let pause = churn.rng.random_range(10..200);
        sleep(Duration::from_millis(pause)).await;
    }

    churn.cluster.rules().heal();
    for slot in 0..NODES {
        churn.bring_up(slot).await;
    }
    // Nobody looks for a node that had left, and whose way back in a partition had failed.
    for node in &churn.nodes()[STABLE..] {
        churn.join(node).await;
    }
    agree(&churn.nodes()).await;
    // Nothing was lost on the way from the witness to whoever listens to it.
    let expected = || {
        let known = churn.nodes()[0].known_members();
        known.iter().map(|m| (m.id().to_string(), m.state)).collect()
    };
    until("the witness has told all", || check(&log.all()) == expected()).await;
    until_async("every member answers", || async { churn.nodes()[0].ping("n19").await.is_ok() })
        .await;
    for node in churn.nodes() {
        node.leave(PATIENCE).await.unwrap();
    }
}
