//! Nodes of the crate `memberlist` by al8n, over UDP and TCP on tokio; with `packets`, the cost of its
//! packets.

mod packets;

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use al8n::bytes::Bytes;
use al8n::delegate::{CompositeDelegate, EventDelegate, NodeDelegate, VoidDelegate};
use al8n::net::NetTransportOptions;
use al8n::proto::{EncryptionAlgorithm, MaybeResolvedAddress, NodeState, SecretKey};
use al8n::queue::TransmitLimitedQueue;
use al8n::tokio::{TokioSocketAddrResolver, TokioTcp, TokioTcpMemberlist};
use al8n::{Broadcast, Options};
use memberlist_bench_fleet::protocol::Hello;
use memberlist_bench_fleet::{Implementation, KEY, Node, Observer, Spec, serve, tell};

const LEAVE_LIMIT: Duration = Duration::from_secs(30);

type Id = smol_str::SmolStr;
type Delegate = CompositeDelegate<
    Id,
    SocketAddr,
    VoidDelegate<Id, SocketAddr>,
    VoidDelegate<Id, SocketAddr>,
    Deaths,
    VoidDelegate<Id, SocketAddr>,
    Arc<Messages>,
    VoidDelegate<Id, SocketAddr>,
>;

struct Al8n;

struct Peer {
    node: TokioTcpMemberlist<Id, TokioSocketAddrResolver, Delegate>,
    messages: Arc<Messages>,
    members: Arc<AtomicUsize>,
}

/// Tells who died.
struct Deaths(Observer);

impl EventDelegate for Deaths {
    type Id = Id;
    type Address = SocketAddr;

    async fn notify_join(&self, _: Arc<NodeState<Id, SocketAddr>>) {}

    async fn notify_leave(&self, node: Arc<NodeState<Id, SocketAddr>>) {
        // It is shown as it was, not as dead or left; but one that runs has not left either.
        self.0.died(node.id());
    }

    async fn notify_update(&self, _: Arc<NodeState<Id, SocketAddr>>) {}
}

/// Passes broadcasts on, each once, as the library leaves it to its user.
struct Messages {
    queue: TransmitLimitedQueue<Rumour, Arc<AtomicUsize>>,
    seen: Mutex<HashSet<Bytes>>,
    news: Observer,
}

/// A broadcast in the queue.
#[derive(Debug)]
struct Rumour(Bytes);

impl Broadcast for Rumour {
    type Id = String;
    type Message = Bytes;

    fn id(&self) -> Option<&String> {
        None
    }

    fn invalidates(&self, _: &Self) -> bool {
        false
    }

    fn message(&self) -> &Bytes {
        &self.0
    }

    fn encoded_len(message: &Bytes) -> usize {
        message.len()
    }

    async fn finished(&self) {}

    fn is_unique(&self) -> bool {
        true
    }
}

impl Messages {
    /// Whether it is new.
    fn see(&self, message: &Bytes) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(message.clone())
    }
}

impl NodeDelegate for Messages {
    async fn notify_message(&self, message: Cow<'_, [u8]>) {
        let message = Bytes::copy_from_slice(&message);
        if self.see(&message) {
            self.news.received(message.len());
            self.queue.queue_broadcast(Rumour(message)).await;
        }
    }

    async fn broadcast_messages<F>(&self, limit: usize, _: F) -> impl Iterator<Item = Bytes> + Send
    where
        F: Fn(Bytes) -> (usize, Bytes) + Send + Sync + 'static,
    {
        self.queue.get_broadcasts(limit).await.into_iter()
    }
}

impl Implementation for Al8n {
    type Node = Peer;

    fn hello(&self) -> Hello {
        Hello { implementation: "al8n".into(), version: "0.8.5".into() }
    }

    async fn start(&self, spec: Spec, news: Observer) -> Result<Peer, String> {
        let id = Id::new(&spec.name);
        let mut transport = NetTransportOptions::<Id, TokioSocketAddrResolver, TokioTcp>::new(id);
        transport.add_bind_address(spec.bind);
        // Its own defaults have these two the other way round; the others probe once a second.
        let mut options = Options::lan()
            .with_probe_interval(Duration::from_secs(1))
            .with_probe_timeout(Duration::from_millis(500));
        if spec.encrypted {
            let key = SecretKey::try_from(&KEY[..16]).map_err(|error| error.to_string())?;
            options = options
                .with_primary_key(key)
                .with_encryption_algo(EncryptionAlgorithm::default())
                .with_gossip_verify_outgoing(true)
                .with_gossip_verify_incoming(true);
        }
        let members = Arc::new(AtomicUsize::new(1));
        let messages = Arc::new(Messages {
            queue: TransmitLimitedQueue::new(4, Arc::clone(&members)),
            seen: Mutex::default(),
            news: news.clone(),
        });
        let delegate = CompositeDelegate::new()
            .with_event_delegate(Deaths(news))
            .with_node_delegate(Arc::clone(&messages));
        let started = TokioTcpMemberlist::with_delegate(delegate, transport, options).await;
        let node = started.map_err(|error| error.to_string())?;
        Ok(Peer { node, messages, members })
    }
}

impl Node for Peer {
    fn addr(&self) -> SocketAddr {
        *self.node.advertise_address()
    }

    async fn join(&self, seed: SocketAddr) -> Result<(), String> {
        let joined = self.node.join(MaybeResolvedAddress::Resolved(seed)).await;
        joined.map(drop).map_err(|error| error.to_string())
    }

    async fn live_count(&self) -> usize {
        let count = self.node.num_online_members().await;
        self.members.store(count, std::sync::atomic::Ordering::Relaxed);
        count
    }

    async fn broadcast(&self, payload: Vec<u8>) -> Result<(), String> {
        let payload = Bytes::from(payload);
        self.messages.see(&payload);
        self.messages.queue.queue_broadcast(Rumour(payload)).await;
        Ok(())
    }

    async fn leave(&self) -> Result<(), String> {
        self.node.leave(LEAVE_LIMIT).await.map(drop).map_err(|error| error.to_string())
    }

    async fn stop(&self) {
        if let Err(error) = self.node.shutdown().await {
            eprintln!("al8n: a node could not be stopped: {error}");
        }
    }
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("packets") if tell(&packets::measure()) => ExitCode::SUCCESS,
        Some("packets") => ExitCode::FAILURE,
        _ => serve(Al8n),
    }
}
