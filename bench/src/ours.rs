//! Our own nodes, as one of the libraries that are compared.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::protocol::NodeState;
use memberlist::quic::{QuicConfig, QuicTransport, TlsConfig};
use memberlist::security::{Keyring, SecretKey};
use memberlist::{
    Builder, Config, Encryption, Event, Memberlist, Messages, Subscription, Transport,
};
use memberlist_bench_fleet::protocol::Hello;
use memberlist_bench_fleet::{Implementation, KEY, Node, Observer, Spec};

/// How long a farewell may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

/// A transport that is compared.
pub trait BenchTransport: Transport + Sized {
    /// What the table calls it.
    const NAME: &'static str;

    /// Listens there.
    ///
    /// # Errors
    /// If the address is taken.
    fn listen(bind: SocketAddr) -> Result<Self, String>;
}

impl BenchTransport for NetTransport {
    const NAME: &'static str = "net";

    fn listen(bind: SocketAddr) -> Result<Self, String> {
        Self::bind_addr(bind).map_err(|error| error.to_string())
    }
}

/// One certificate for all: what is measured is the connections.
fn tls() -> TlsConfig {
    static TLS: OnceLock<TlsConfig> = OnceLock::new();
    let make = || TlsConfig::cluster_ca().and_then(|ca| ca.tls("node")).expect("certificates");
    TLS.get_or_init(make).clone()
}

impl BenchTransport for QuicTransport {
    const NAME: &'static str = "quic";

    fn listen(bind: SocketAddr) -> Result<Self, String> {
        Self::bind(QuicConfig::new(bind, tls())).map_err(|error| error.to_string())
    }
}

/// Our library over a transport.
#[derive(Debug)]
pub struct Ours<T>(std::marker::PhantomData<fn() -> T>);

impl<T> Default for Ours<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T: BenchTransport> Implementation for Ours<T> {
    type Node = OurNode<T>;

    fn hello(&self) -> Hello {
        Hello { implementation: T::NAME.into(), version: env!("CARGO_PKG_VERSION").into() }
    }

    async fn start(&self, spec: Spec, news: Observer) -> Result<Self::Node, String> {
        let mut config = Config::lan(spec.name);
        if spec.encrypted {
            let key = SecretKey::from_bytes(&KEY[..16]).map_err(|error| error.to_string())?;
            config.encryption = Some(Encryption::new(Keyring::new(key)));
        }
        let (builder, messages) = Builder::new(config).messages();
        let started = builder.start(T::listen(spec.bind)?).await;
        let node = started.map_err(|error| error.to_string())?;
        tokio::spawn(observe(node.subscribe(), messages, news));
        Ok(OurNode(node))
    }
}

/// A node of ours.
#[derive(Debug)]
pub struct OurNode<T: Transport>(Memberlist<T>);

async fn observe(mut events: Subscription, mut messages: Messages, news: Observer) {
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Left(member)) if member.state == NodeState::Dead => {
                    news.died(member.node.id.as_str());
                }
                Some(Event::Snapshot { members, .. }) => {
                    for member in members.iter().filter(|member| member.state == NodeState::Dead) {
                        news.died(member.node.id.as_str());
                    }
                }
                Some(_) => {}
                None => return,
            },
            message = messages.next() => match message {
                Some(message) => news.received(message.payload.len()),
                None => return,
            },
        }
    }
}

impl<T: BenchTransport> Node for OurNode<T> {
    fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    async fn join(&self, seed: SocketAddr) -> Result<(), String> {
        self.0.join([seed.to_string()]).await.map(drop).map_err(|error| error.to_string())
    }

    async fn live_count(&self) -> usize {
        self.0.member_count()
    }

    async fn broadcast(&self, payload: Vec<u8>) -> Result<(), String> {
        self.0.broadcast(payload).await.map_err(|error| error.to_string())
    }

    async fn leave(&self) -> Result<(), String> {
        self.0.leave(LEAVE_LIMIT).await.map_err(|error| error.to_string())
    }

    async fn stop(&self) {
        self.0.shutdown().await;
    }
}
