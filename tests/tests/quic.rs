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

/// A node whose certificate has another name is told at the start, not by the silence of all others.
#[tokio::test]
async fn the_name_must_be_the_certificates() {
    let ca = TlsConfig::cluster_ca().unwrap();
    let addr = "127.0.0.1:0".parse().unwrap();
    let bind = |bound| {
        let tls = ca.tls("a").unwrap().bind_names(bound).unwrap();
        QuicTransport::bind(QuicConfig::new(addr, tls)).unwrap()
    };
    let error = Builder::new(Config::lan("b")).start(bind(true)).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("b") && error.to_string().contains("a's"), "{error}");
    Builder::new(Config::lan("a")).start(bind(true)).await.unwrap();
    Builder::new(Config::lan("b")).start(bind(false)).await.unwrap();
}

/// A member cannot speak for itself under another's name, whatever it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_believed_under_its_own_name_only() {
    let ca = TlsConfig::cluster_ca().unwrap();
    let start = async |name: &str, certified: &str| {
        let tls = ca.tls(certified).unwrap().bind_names(name == certified).unwrap();
        let quic = QuicConfig::new("127.0.0.1:0".parse().unwrap(), tls);
        let transport = QuicTransport::bind(quic).unwrap();
        Builder::new(memberlist_tests::quick(name)).start(transport).await.unwrap()
    };
    let (a, b) = (start("a", "a").await, start("b", "b").await);
    b.join([a.addr().to_string()]).await.unwrap();
    memberlist_tests::agree(&[&a, &b]).await;
    // It has a certificate of the cluster, and calls itself after somebody else.
    let liar = start("c", "mallory").await;
    let refused = liar.join([a.addr().to_string()]).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("the name is c, and mallory was expected"), "{text}");
    let ping = memberlist_tests::wait::until_async("its packets are refused", async || {
        // It knows nobody, so it speaks to an address.
        let _ = liar.join([b.addr().to_string()]).await;
        b.stats().await.unwrap().drops_total() > 0
    });
    ping.await;
    assert_eq!((a.member_count(), b.member_count()), (2, 2));
}

/// Labels and the keyring work inside QUIC as they do elsewhere, rotation included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_keys_work_inside_quic() {
    let cluster = memberlist_tests::Cluster::<QuicTransport>::new();
    let with = |name: &str, label: &str| {
        let mut config = memberlist_tests::keys::encrypted(name, &[1]);
        config.label = label.to_owned();
        Builder::new(config)
    };
    let a = cluster.start(with("a", "blue")).await;
    let b = cluster.start(with("b", "blue")).await;
    b.join([a.addr().to_string()]).await.unwrap();
    memberlist_tests::agree(&[&a, &b]).await;
    let (new, report) = a.keys().unwrap().rotate().await.unwrap();
    assert_eq!(report.failures().count(), 0);
    let held = |node: &memberlist_tests::TestNode<QuicTransport>| -> Vec<_> {
        node.keys().unwrap().local().into_iter().map(|key| key.fingerprint).collect()
    };
    assert_eq!((held(&a), held(&b)), (vec![new], vec![new]));
    b.send_reliable("a", "under the new key").await.unwrap();

    let red = cluster.start(with("red", "red")).await;
    let error = red.join([a.addr().to_string()]).await.unwrap_err();
    assert!(error.to_string().contains("label"), "{error}");
    let late = cluster.start(with("late", "blue")).await;
    late.join([a.addr().to_string()]).await.unwrap_err();
    assert_eq!(a.member_count(), 2);
}
