//! Nodes and transports for the table.

use std::sync::OnceLock;

use memberlist::net::NetTransport;
use memberlist::quic::{QuicConfig, QuicTransport, TlsConfig};
use memberlist::{Builder, Config, Memberlist, Messages, Transport};

/// A transport that is measured.
pub(crate) trait BenchTransport: Transport + Sized {
    /// On a free port of loopback.
    fn bind() -> Self;
}

impl BenchTransport for NetTransport {
    fn bind() -> Self {
        Self::bind_addr("127.0.0.1:0".parse().expect("an address")).expect("a free port")
    }
}

/// One certificate for all: what is measured is the connections.
fn tls() -> TlsConfig {
    static TLS: OnceLock<TlsConfig> = OnceLock::new();
    let make = || TlsConfig::cluster_ca().and_then(|ca| ca.tls("node")).expect("certificates");
    TLS.get_or_init(make).clone()
}

impl BenchTransport for QuicTransport {
    fn bind() -> Self {
        let addr = "127.0.0.1:0".parse().expect("an address");
        Self::bind(QuicConfig::new(addr, tls())).expect("a free port")
    }
}

pub(crate) async fn start<T: BenchTransport>(config: Config) -> (Memberlist<T>, Messages) {
    let (builder, messages) = Builder::new(config).messages();
    let node = builder.start(<T as BenchTransport>::bind()).await.expect("the settings");
    (node, messages)
}

/// Two nodes that know each other and do nothing by themselves; the second takes all messages.
pub(crate) async fn pair<T: BenchTransport>() -> [Memberlist<T>; 2] {
    let (a, _) = start::<T>(quiet("a")).await;
    let (b, mut messages) = start::<T>(quiet("b")).await;
    tokio::spawn(async move { while messages.next().await.is_some() {} });
    a.join([b.addr().to_string()]).await.expect("the join");
    [a, b]
}

/// Without probes and periodic exchanges.
pub(crate) fn quiet(name: &str) -> Config {
    let mut config = Config::lan(name);
    config.protocol.probe_interval = std::time::Duration::ZERO;
    config.protocol.push_pull_interval = std::time::Duration::ZERO;
    config
}
