//! The in-memory network keeps the contract, on good links and on bad ones.

use std::net::SocketAddr;
use std::time::Duration;

use memberlist_transport::conformance;
use memberlist_transport::memory::{LinkConfig, MemoryNetwork, MemoryTransport};

fn bind(network: &MemoryNetwork, addr: Option<SocketAddr>) -> MemoryTransport {
    network.bind(addr.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap()
}

#[tokio::test]
async fn perfect_links() {
    let network = MemoryNetwork::new(1);
    conformance::check(async |addr| bind(&network, addr)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perfect_links_with_threads() {
    let network = MemoryNetwork::new(2);
    conformance::check(async |addr| bind(&network, addr)).await;
}

#[tokio::test(start_paused = true)]
async fn delayed_lossy_links() {
    let network = MemoryNetwork::new(3);
    network.set_default_link(LinkConfig {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(5),
        loss: 0.1,
        duplicate: 0.1,
        ..LinkConfig::default()
    });
    conformance::check(async |addr| bind(&network, addr)).await;
    let stats = network.stats();
    assert!(stats.packets_lost > 0 && stats.packets_duplicated > 0, "{stats:?}");
}
