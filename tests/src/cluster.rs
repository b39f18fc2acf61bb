//! Nodes by the dozen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use memberlist::{Builder, Config, Memberlist, NodeState};

use crate::filter::{FilterTransport, Rules};
use crate::transports::TestTransport;
use crate::wait::{agree, until};

/// A node of a [`Cluster`].
pub type TestNode<T> = Memberlist<FilterTransport<T>>;

/// Where nodes of one test are made. They end when their handles are dropped.
pub struct Cluster<T: TestTransport> {
    network: T::Network,
    rules: Rules,
    ip: IpAddr,
}

impl<T: TestTransport> Default for Cluster<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: TestTransport> Cluster<T> {
    /// With an IPv4 address of its own.
    pub fn new() -> Self {
        Self::at(own_loopback())
    }

    /// At this IP address.
    pub fn at(ip: IpAddr) -> Self {
        Self { network: T::network(), rules: Rules::default(), ip }
    }

    /// The rules that lie over the network.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// An address of which the port is still to be found.
    pub fn any(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 0)
    }

    /// A bare transport on the same network, for what is no node.
    pub async fn transport(&self) -> T {
        T::bind(&self.network, self.any()).await.unwrap()
    }

    /// Whether this address is free.
    pub async fn is_free(&self, at: SocketAddr) -> bool {
        match T::bind(&self.network, at).await {
            Ok(transport) => {
                transport.close().await;
                true
            }
            Err(_) => false,
        }
    }

    /// An address where nobody is.
    pub async fn nobody(&self) -> SocketAddr {
        let transport = self.transport().await;
        let addr = transport.advertise_addr();
        transport.close().await;
        addr
    }

    /// Starts a node.
    pub async fn start(&self, builder: Builder) -> TestNode<T> {
        self.start_at(self.any(), builder).await
    }

    /// Starts a node at this address.
    pub async fn start_at(&self, at: SocketAddr, mut builder: Builder) -> TestNode<T> {
        builder.config().protocol.wire_format = T::WIRE;
        let transport = T::bind(&self.network, at).await.unwrap();
        builder.start(FilterTransport::new(transport, self.rules.clone())).await.unwrap()
    }

    /// Starts a node with the settings of [`quick`].
    pub async fn node(&self, name: &str) -> TestNode<T> {
        self.start(Builder::new(quick(name))).await
    }

    /// Starts that many nodes, `n0`, `n1` and so on, with [`quick`] settings that `change` may
    /// change, and joins them all.
    pub async fn joined_with(&self, n: usize, change: impl Fn(&mut Config)) -> Vec<TestNode<T>> {
        let mut nodes = Vec::new();
        for i in 0..n {
            let mut config = quick(&format!("n{i}"));
            change(&mut config);
            nodes.push(self.start(Builder::new(config)).await);
        }
        join_all(&nodes).await;
        nodes
    }

    /// Starts that many nodes with [`quick`] settings and joins them all.
    pub async fn joined(&self, n: usize) -> Vec<TestNode<T>> {
        self.joined_with(n, |_| {}).await
    }
}

/// Joins all to the first, and waits until they agree.
pub async fn join_all<T: TestTransport>(nodes: &[TestNode<T>]) {
    for node in &nodes[1..] {
        node.join([nodes[0].addr().to_string()]).await.unwrap();
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
}

/// The addresses of these nodes.
pub fn addrs<T: TestTransport>(nodes: &[&TestNode<T>]) -> Vec<SocketAddr> {
    nodes.iter().map(|node| node.addr()).collect()
}

/// In what state one node believes another to be, if it knows it.
pub fn state<T: TestTransport>(at: &TestNode<T>, name: &str) -> Option<NodeState> {
    at.member(name).map(|member| member.state)
}

/// Waits until all these nodes believe that member to be in that state.
pub async fn until_state<T: TestTransport>(nodes: &[&TestNode<T>], name: &str, is: NodeState) {
    let what = format!("{name} is {is} everywhere");
    until(&what, || nodes.iter().all(|node| state(node, name) == Some(is))).await;
}

/// The preset for one machine, at double speed: a death takes one to three seconds.
pub fn quick(name: &str) -> Config {
    let mut config = Config::local(name);
    let protocol = &mut config.protocol;
    protocol.probe_interval = Duration::from_millis(400);
    protocol.probe_timeout = Duration::from_millis(150);
    protocol.gossip_interval = Duration::from_millis(50);
    protocol.suspicion_max_timeout_mult = 2;
    // The preset's second is short when other tests take both cores.
    protocol.stream_timeout = Duration::from_secs(5);
    config
}

/// A loopback address that no other cluster has. News of a member that is gone goes on being sent to
/// its address for a while; with one address for all, some other test's node may have got the port,
/// and would believe it.
pub fn own_loopback() -> IpAddr {
    static CLUSTERS: AtomicU32 = AtomicU32::new(0);
    if !cfg!(target_os = "linux") {
        // Elsewhere only 127.0.0.1 is there without being set up.
        return Ipv4Addr::LOCALHOST.into();
    }
    let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let [_, _, process_high, process_low] = std::process::id().to_be_bytes();
    // 127.0.x.x is left to those who use 127.0.0.1; the last part is neither 0 nor 255.
    let [_, _, _, host] = (number % 254 + 1).to_be_bytes();
    Ipv4Addr::new(127, process_high % 255 + 1, process_low, host).into()
}
