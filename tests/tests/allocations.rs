//! What a packet costs in allocations when nothing happens in the cluster: the memory of a node is there
//! by then, and probes, answers and ticks go on in it.
//!
//! One test alone in its process, since everything in it is counted.

#![allow(clippy::print_stderr)]

use std::alloc::System;
use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::protocol::{PacketKind, Stats};
use memberlist::security::{Keyring, SecretKey};
use memberlist::{Config, Encryption, Memberlist};
use memberlist_tests::{agree, within};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// For each packet that a node sends or receives.
const MOST_ALLOCATIONS: f64 = 0.5;
const NODES: usize = 4;
const PACKETS: u64 = 2000;
const LOOK_EVERY: Duration = Duration::from_millis(500);

type Node = Memberlist<NetTransport>;

async fn start(number: usize, encrypted: bool) -> Node {
    let mut config = Config::lan(format!("node-{number}"));
    config.protocol.probe_interval = Duration::from_millis(10);
    config.protocol.probe_timeout = Duration::from_millis(9);
    // Exchanges of states are streams, not packets.
    config.protocol.push_pull_interval = Duration::ZERO;
    if encrypted {
        let key = SecretKey::from_bytes(&[7; 16]).unwrap();
        config.encryption = Some(Encryption::new(Keyring::new(key)));
    }
    let transport = NetTransport::bind_addr("127.0.0.1:0".parse().unwrap()).unwrap();
    Memberlist::start(transport, config).await.unwrap()
}

async fn packets(nodes: &[Node], count: impl Fn(&Stats) -> u64) -> u64 {
    let mut packets = 0;
    for node in nodes {
        packets += count(&node.stats().await.unwrap());
    }
    packets
}

fn all(stats: &Stats) -> u64 {
    stats.packets_sent + stats.packets_received
}

/// Until the news of the joins has been told.
async fn quiet(nodes: &[Node]) {
    let gossip = |stats: &Stats| stats.packets_sent_of(PacketKind::Gossip).packets;
    let mut before = None;
    let told = async {
        loop {
            let now = packets(nodes, gossip).await;
            if before.replace(now) == Some(now) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    within("all is told", told).await;
}

/// Allocations for each packet of a cluster that is left alone.
async fn allocations_per_packet(encrypted: bool) -> f64 {
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(start(number, encrypted).await);
    }
    let seed = nodes[0].addr().to_string();
    for node in &nodes[1..] {
        node.join([&seed]).await.unwrap();
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
    quiet(&nodes).await;
    let before = packets(&nodes, all).await;
    let region = Region::new(ALLOCATOR);
    let counting = async {
        loop {
            // Asking allocates too, so it is not done often.
            tokio::time::sleep(LOOK_EVERY).await;
            let counted = packets(&nodes, all).await - before;
            if counted >= PACKETS {
                return counted;
            }
        }
    };
    let counted = within("packets enough", counting).await;
    let change = region.change();
    for node in &nodes {
        node.shutdown().await;
    }
    (change.allocations + change.reallocations) as f64 / counted as f64
}

#[test]
fn packets_allocate_next_to_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for encrypted in [false, true] {
        let allocations = runtime.block_on(allocations_per_packet(encrypted));
        let shown = format!("encrypted: {encrypted}, allocations a packet: {allocations:.2}");
        eprintln!("{shown}");
        assert!(allocations <= MOST_ALLOCATIONS, "{shown}");
    }
}
