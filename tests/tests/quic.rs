//! Clusters over QUIC: what only it has.

use std::sync::Arc;
use std::time::Duration;

use memberlist::quic::{ClusterCa, QuicConfig, QuicTransport, TlsConfig};
use memberlist::{Builder, Config, Event, Memberlist};
use memberlist_tests::lossy::LossyNetwork;
use memberlist_tests::{PATIENCE, until};

async fn node(
    network: &mut LossyNetwork,
    ca: &ClusterCa,
    config: Config,
) -> Memberlist<QuicTransport> {
    let tls = ca.tls(&config.name).unwrap().bind_names(true).unwrap();
    let relay = network.relay().await;
    let mut quic = QuicConfig::new("127.0.0.1:0".parse().unwrap(), tls);
    quic.advertise_addr = Some(relay.addr);
    let transport = QuicTransport::bind(quic).unwrap();
    network.connect(relay, transport.local_addr());
    Builder::new(config).start(transport).await.unwrap()
}

/// The settings of a data centre on a bad network: nobody is declared dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and a half of real time"]
async fn nobody_dies_of_a_lossy_network() {
    const NODES: usize = 20;
    const WATCHED: Duration = Duration::from_secs(60);
    let ca = TlsConfig::cluster_ca().unwrap();
    let mut network = LossyNetwork::new(10, Duration::from_millis(50));
    let mut nodes = Vec::new();
    for i in 0..NODES {
        nodes.push(node(&mut network, &ca, Config::lan(format!("n{i}"))).await);
    }
    for joiner in &nodes[1..] {
        // A join may be lost like anything else.
        let join = async || joiner.join([nodes[0].addr().to_string()]).await.is_ok();
        memberlist_tests::wait::until_async("the join", join).await;
    }
    let all = || nodes.iter().all(|node| node.member_count() == NODES);
    let agreed = async { until("all know all", all).await };
    tokio::time::timeout(4 * PATIENCE, agreed).await.unwrap();

    let deaths = Arc::new(std::sync::Mutex::new(Vec::new()));
    for node in &nodes {
        let (mut events, deaths) = (node.subscribe(), Arc::clone(&deaths));
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let Event::Left(member) = event {
                    deaths.lock().unwrap().push(member);
                }
            }
        });
    }
    tokio::time::sleep(WATCHED).await;
    assert!(deaths.lock().unwrap().is_empty(), "{:?}", deaths.lock().unwrap());
    assert!(all());
    for node in &nodes {
        let stats = node.stats().await.unwrap();
        assert!(stats.probes_acked_direct > 30, "{stats:?}");
        let lost: u64 = node.transport().connections().iter().map(|c| c.lost_packets).sum();
        assert!(lost > 0, "the network loses nothing");
    }
}
