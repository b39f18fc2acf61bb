//! A node against what a network can hold: garbage, liars, and peers that speak something else.

#[path = "hostile/packets.rs"]
mod packets;
#[path = "hostile/streams.rs"]
mod streams;

use memberlist::Config;
use memberlist::net::NetTransport;
use memberlist_tests::{Cluster, TestNode, quick};

type Node = TestNode<NetTransport>;

/// Three joined nodes, of which the first is the victim, with the streams' patience as given.
async fn cluster(
    stream_timeout_ms: u64,
    change: impl Fn(&mut Config),
) -> (Cluster<NetTransport>, Vec<Node>) {
    let cluster = Cluster::new();
    let nodes = cluster
        .joined_with(3, |config| {
            config.protocol.stream_timeout = std::time::Duration::from_millis(stream_timeout_ms);
            // A death by mistake, because the machine is busy, would take this long.
            config.protocol.suspicion_mult = 10;
            change(config);
        })
        .await;
    (cluster, nodes)
}

/// More than an attack may cost: allocators keep what they once had, and other tests of this process
/// run at the same time. What is to be seen is a leak, or an allocation by what an attacker claims.
const MAX_GROWTH_KIB: u64 = 192 << 10;

/// The memory of this process, in KiB; nothing where there is no `/proc`.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn check_growth(before: Option<u64>) {
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        let grown = after.saturating_sub(before);
        assert!(grown < MAX_GROWTH_KIB, "{grown} KiB more than before the attack");
    }
}

/// A node that joins after the attack finds everybody.
async fn newcomer_joins(cluster: &Cluster<NetTransport>, nodes: &[Node]) {
    let newcomer = cluster.start(memberlist::Builder::new(quick("newcomer"))).await;
    newcomer.join([nodes[0].addr().to_string()]).await.unwrap();
    memberlist_tests::agree(&nodes.iter().chain([&newcomer]).collect::<Vec<_>>()).await;
}
