//! The transports that the scenarios run over.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use memberlist::memory::{MemoryNetwork, MemoryTransport};
use memberlist::net::{NetConfig, NetTransport};
use memberlist::quic::{QuicConfig, QuicTransport, TlsConfig};
use memberlist::{Transport, WireFormat};

/// Why a transport could not be bound.
pub type BindError = Box<dyn Error + Send + Sync>;

/// A transport that a [`Cluster`](crate::Cluster) can make as many of as it likes.
pub trait TestTransport: Transport + Sized {
    /// What connects them, where that is not the machine's own network.
    type Network: Clone + Send + Sync + 'static;

    /// What the nodes of a cluster over it speak.
    const WIRE: WireFormat = WireFormat::Native;

    /// A new network.
    fn network() -> Self::Network;

    /// Binds one transport; port 0 takes a free port.
    fn bind(
        network: &Self::Network,
        at: SocketAddr,
    ) -> impl Future<Output = Result<Self, BindError>> + Send;
}

/// Longer than any test, so that the library's own deadlines are what is seen.
const TRANSPORT_TIMEOUT: Duration = Duration::from_secs(600);

impl TestTransport for NetTransport {
    type Network = ();

    fn network() {}

    async fn bind((): &(), at: SocketAddr) -> Result<Self, BindError> {
        let mut config = NetConfig::new(at);
        config.read_timeout = TRANSPORT_TIMEOUT;
        config.write_timeout = TRANSPORT_TIMEOUT;
        Ok(Self::bind(config)?)
    }
}

/// The certificates of all clusters, as it takes time to make them. Names are not bound: one
/// certificate serves all nodes.
fn quic_tls() -> &'static TlsConfig {
    static TLS: OnceLock<TlsConfig> = OnceLock::new();
    TLS.get_or_init(|| TlsConfig::cluster_ca().unwrap().tls("node").unwrap())
}

impl TestTransport for QuicTransport {
    type Network = ();

    fn network() {}

    async fn bind((): &(), at: SocketAddr) -> Result<Self, BindError> {
        let mut config = QuicConfig::new(at, quic_tls().clone());
        config.read_timeout = TRANSPORT_TIMEOUT;
        config.write_timeout = TRANSPORT_TIMEOUT;
        Ok(Self::bind(config)?)
    }
}

impl TestTransport for MemoryTransport {
    type Network = MemoryNetwork;

    fn network() -> MemoryNetwork {
        MemoryNetwork::new(1)
    }

    async fn bind(network: &MemoryNetwork, at: SocketAddr) -> Result<Self, BindError> {
        Ok(network.bind(at)?)
    }
}
