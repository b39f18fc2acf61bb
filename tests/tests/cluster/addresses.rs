//! What only UDP and TCP have: IP versions and several addresses.

use std::net::SocketAddr;

use memberlist::net::{NetConfig, NetTransport};
use memberlist::{Config, Memberlist};
use memberlist_tests::wait::until_async;
use memberlist_tests::{agree, quick};

async fn node(name: &str, bind: &[&str], advertise: Option<&str>) -> Memberlist<NetTransport> {
    let addr = |text: &&str| -> SocketAddr { text.parse().unwrap() };
    let mut net = NetConfig::new(addr(&bind[0]));
    net.bind_addrs = bind.iter().map(addr).collect();
    net.advertise_addr = advertise.as_ref().map(addr);
    let config: Config = quick(name);
    Memberlist::start(NetTransport::bind(net).unwrap(), config).await.unwrap()
}

/// Nodes that others know by addresses of different IP versions are one cluster, if each has both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dual_stack() {
    let nodes = [
        node("wildcard4", &["[::]:0"], Some("127.0.0.1:0")).await,
        node("wildcard6", &["[::]:0"], Some("[::1]:0")).await,
        node("both4", &["127.0.0.1:0", "[::1]:0"], None).await,
        node("both6", &["[::1]:0", "127.0.0.1:0"], None).await,
    ];
    for node in &nodes[1..] {
        node.join([nodes[0].addr().to_string()]).await.unwrap();
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
    assert!(nodes.iter().any(|n| n.addr().is_ipv6()) && nodes.iter().any(|n| n.addr().is_ipv4()));
    for node in &nodes {
        until_async("it has probed the others", || async {
            node.stats().await.unwrap().probes_acked_direct >= 6
        })
        .await;
        for other in &nodes {
            if other.name() != node.name() {
                node.ping(other.name()).await.unwrap();
                node.send_reliable(other.name(), "hello").await.unwrap();
            }
        }
        let stats = node.stats().await.unwrap();
        assert_eq!((stats.probes_acked_stream, stats.send_errors), (0, 0), "{}", node.name());
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
}

/// A host name stands for all of its addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_host_name() {
    let seed = node("seed", &["127.0.0.1:0"], None).await;
    let joiner = node("joiner", &["127.0.0.1:0"], None).await;
    let results = joiner.join([format!("seed/localhost:{}", seed.addr().port())]).await.unwrap();
    assert!(results[0].is_joined());
    agree(&[&seed, &joiner]).await;
}
