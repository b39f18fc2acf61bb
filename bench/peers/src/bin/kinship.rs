//! Nodes of the crate `kinship`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use kinship::{Cluster, Config, Event, Events, Key};
use memberlist_bench_fleet::protocol::Hello;
use memberlist_bench_fleet::{Implementation, KEY, Node, Observer, Spec, serve};

const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// The largest broadcast of the benchmark; its default is 256 bytes.
const BROADCAST_BYTES: usize = 1024;

struct Kinship;

struct Peer(Cluster);

impl Implementation for Kinship {
    type Node = Peer;

    fn hello(&self) -> Hello {
        Hello { implementation: "kinship".into(), version: "0.5.0".into() }
    }

    async fn start(&self, spec: Spec, news: Observer) -> Result<Peer, String> {
        let config = Config::lan()
            .with_name(spec.name)
            .with_bind(spec.bind)
            .with_max_user_broadcast(BROADCAST_BYTES);
        let config = match spec.encrypted {
            true => config.with_keys([Key::from_bytes(KEY)]),
            false => config.with_insecure_plaintext(true),
        };
        let cluster = Cluster::start(config).await.map_err(|error| error.to_string())?;
        tokio::spawn(observe(cluster.events(), news));
        Ok(Peer(cluster))
    }
}

async fn observe(mut events: Events, news: Observer) {
    while let Some(event) = events.recv().await {
        match event {
            Event::MemberDead(member) => news.died(&member.name),
            Event::UserMessage { data, .. } => news.received(data.len()),
            _ => {}
        }
    }
}

impl Node for Peer {
    fn addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    async fn join(&self, seed: SocketAddr) -> Result<(), String> {
        self.0.join([seed]).await.map(drop).map_err(|error| error.to_string())
    }

    async fn live_count(&self) -> usize {
        self.0.members().len()
    }

    async fn broadcast(&self, payload: Vec<u8>) -> Result<(), String> {
        self.0.broadcast(payload).await.map_err(|error| error.to_string())
    }

    async fn leave(&self) -> Result<(), String> {
        self.0.leave(LEAVE_LIMIT).await.map_err(|error| error.to_string())
    }

    async fn stop(&self) {
        self.0.close().await;
    }
}

fn main() -> ExitCode {
    serve(Kinship)
}
