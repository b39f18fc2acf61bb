//! Replacing every certificate of a cluster over QUIC, and then their CA, while all nodes talk.
//!
//! Five nodes over loopback show each other certificates that speak for one name each (mutual TLS,
//! names bound). Each sends numbered messages to each other one, reliably, and broadcasts, without a
//! pause while certificates change. First each node gets a fresh certificate of the same CA; then the
//! CA is replaced by the steps of `QuicTransport::reload`: all trust both CAs, then all show a
//! certificate of the new one, then all trust the new one alone. In the end every reliable message
//! must have arrived exactly once, nobody may have been suspected or declared dead, and a node with a
//! certificate of the old CA must be refused.
//!
//! ```text
//! cargo run --release --example quic_mtls
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use memberlist::quic::{ClusterCa, QuicConfig, QuicTransport, TlsConfig};
use memberlist::{Builder, Config, Event, Memberlist, Messages, NodeState, Subscription};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

type Node = Memberlist<QuicTransport>;
type Failure = Box<dyn Error + Send + Sync>;

const NODES: usize = 5;
/// Between two messages of one node to one other.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two broadcasts of one node.
const BROADCAST_PAUSE: Duration = Duration::from_millis(200);
/// How many messages must arrive after a step before the next one, of each node at each other.
const MESSAGES_BETWEEN: usize = 50;
/// A bound for what takes seconds, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(120);

/// What came to one node.
#[derive(Default)]
struct Arrived {
    /// How often each reliable message came, by its text: who sent it, to whom, which number.
    reliable: BTreeMap<String, usize>,
    broadcasts: usize,
}

/// What is told to all who send and receive.
#[derive(Default)]
struct Traffic {
    stop: AtomicBool,
    /// Reliable messages that arrived.
    arrived: AtomicUsize,
    /// The first that could not be sent, and why.
    failed: OnceLock<String>,
}

/// The nodes, and what goes on between them.
struct Cluster {
    nodes: Vec<Node>,
    traffic: Arc<Traffic>,
    senders: JoinSet<Result<usize, Failure>>,
    broadcasters: JoinSet<Result<usize, Failure>>,
    receivers: JoinSet<Arrived>,
    watchers: Vec<JoinHandle<Vec<String>>>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("FAILED: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let (old, new) = (TlsConfig::cluster_ca()?, TlsConfig::cluster_ca()?);
    let cluster = Cluster::start(&old).await?;
    say(&format!("{NODES} nodes know each other, by certificates of the old CA, and talk"));

    let both = [&old, &new];
    let steps: [(&str, &ClusterCa, &[&ClusterCa]); 4] = [
        ("has a fresh certificate of the old CA", &old, &[&old]),
        ("trusts both CAs", &old, &both),
        ("has a certificate of the new CA", &new, &both),
        ("trusts the new CA alone", &new, &[&new]),
    ];
    for (what, issuer, trusted) in steps {
        cluster.reload(what, issuer, trusted).await?;
    }
    cluster.until_replaced().await?;
    say("no connection of before is left");

    refuse_old_certificate(&cluster, &old, &both).await?;
    say("a node with a certificate of the old CA was refused");
    cluster.end().await
}

impl Cluster {
    /// Nodes that know each other and talk.
    async fn start(ca: &ClusterCa) -> Result<Self, Failure> {
        let traffic = Arc::new(Traffic::default());
        let (mut nodes, mut watchers, mut receivers) = (Vec::new(), Vec::new(), JoinSet::new());
        for i in 0..NODES {
            let name = format!("node-{i}");
            let (node, messages) = start(&name, tls(&name, ca, &[ca])?).await?;
            watchers.push(tokio::spawn(watch(node.subscribe())));
            receivers.spawn(collect(messages, Arc::clone(&traffic)));
            nodes.push(node);
        }
        let seed = nodes[0].addr().to_string();
        try_join_all(nodes[1..].iter().map(|node| node.join([&seed]))).await?;
        let known = || nodes.iter().all(|node| node.alive_members().len() == NODES);
        until("all know each other", known).await?;

        let (mut senders, mut broadcasters) = (JoinSet::new(), JoinSet::new());
        for from in &nodes {
            broadcasters.spawn(broadcast(from.clone(), Arc::clone(&traffic)));
            for to in nodes.iter().filter(|to| to.name() != from.name()) {
                senders.spawn(send(from.clone(), to.name().to_owned(), Arc::clone(&traffic)));
            }
        }
        let cluster = Self { nodes, traffic, senders, broadcasters, receivers, watchers };
        cluster.talk_on().await?;
        Ok(cluster)
    }

    /// Gives every node a certificate of this CA, and these CAs to trust. One step of replacing a CA
    /// must be done on every node before the next.
    async fn reload(
        &self,
        what: &str,
        issuer: &ClusterCa,
        trusted: &[&ClusterCa],
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let before = self.handshakes();
        for node in &self.nodes {
            node.transport().reload(tls(node.name(), issuer, trusted)?)?;
            // In a real cluster nodes come to it one after another, too.
            sleep(PAUSE).await;
        }
        let messages = self.talk_on().await?;
        let (handshakes, took) = (self.handshakes() - before, began.elapsed().as_secs_f64());
        say(&format!(
            "every node {what}: {messages} reliable messages arrived meanwhile, {handshakes} \
             connections were made anew, {took:.3} s"
        ));
        Ok(())
    }

    /// Waits until many more messages have arrived, and says how many.
    async fn talk_on(&self) -> Result<usize, Failure> {
        let (arrived, failed) = (&self.traffic.arrived, &self.traffic.failed);
        let before = arrived.load(Ordering::Relaxed);
        let enough = before + NODES * (NODES - 1) * MESSAGES_BETWEEN;
        let done = || arrived.load(Ordering::Relaxed) >= enough || failed.get().is_some();
        until("messages flow", done).await?;
        match failed.get() {
            Some(error) => Err(error.as_str().into()),
            None => Ok(arrived.load(Ordering::Relaxed) - before),
        }
    }

    /// How many connections were made so far.
    fn handshakes(&self) -> u64 {
        self.nodes.iter().map(|node| node.transport().stats().connections_dialled).sum()
    }

    /// Waits until each node has one connection with each other one and no more: those of before a
    /// reload are closed within ten seconds.
    async fn until_replaced(&self) -> Result<(), Failure> {
        let settled = |node: &Node| {
            let connections = node.transport().connections();
            connections.len() == NODES - 1 && connections.iter().all(|of| of.in_use)
        };
        until("old connections are closed", || self.nodes.iter().all(settled)).await
    }

    /// Ends the traffic, and checks what came of it.
    async fn end(mut self) -> Result<(), Failure> {
        self.traffic.stop.store(true, Ordering::Relaxed);
        let sent = sum(&mut self.senders).await?;
        let broadcasts = sum(&mut self.broadcasters).await?;
        for node in &self.nodes {
            let (alive, suspicions) = (node.alive_members().len(), node.stats().await?.suspicions);
            if alive != NODES || suspicions > 0 {
                let name = node.name();
                return Err(format!("{name} sees {alive} alive, suspected {suspicions}").into());
            }
        }
        // What is acknowledged is in the receiver's queue, which `collect` empties to its end.
        join_all(self.nodes.iter().map(Node::shutdown)).await;
        for watcher in self.watchers {
            if let Some(event) = watcher.await?.first() {
                return Err(event.as_str().into());
            }
        }
        let mut arrived = Arrived::default();
        while let Some(of_one) = self.receivers.join_next().await {
            let of_one = of_one?;
            arrived.reliable.extend(of_one.reliable);
            arrived.broadcasts += of_one.broadcasts;
        }
        let (texts, times) = (arrived.reliable.len(), arrived.reliable.values().sum::<usize>());
        if texts != sent || times != sent {
            return Err(format!("{sent} sent, {texts} arrived, {times} times").into());
        }
        say(&format!(
            "all {sent} reliable messages arrived exactly once, and {} of {} copies of broadcasts, \
             which are best effort; nobody was suspected",
            arrived.broadcasts,
            broadcasts * (NODES - 1)
        ));
        Ok(())
    }
}

/// A certificate of this CA that speaks for one name, and these CAs to trust.
fn tls(name: &str, issuer: &ClusterCa, trusted: &[&ClusterCa]) -> Result<TlsConfig, Failure> {
    let node = issuer.issue(name)?;
    let trusted: String = trusted.iter().map(|ca| ca.cert_pem()).collect();
    let (cert, key) = (node.cert_pem.as_bytes(), node.key_pem.as_bytes());
    Ok(TlsConfig::from_pem(cert, key, trusted.as_bytes())?.bind_names(true)?)
}

async fn start(name: &str, tls: TlsConfig) -> Result<(Node, Messages), Failure> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let transport = QuicTransport::bind(QuicConfig::new(any_port, tls))?;
    let (builder, messages) = Builder::new(Config::lan(name)).messages();
    Ok((builder.start(transport).await?, messages))
}

/// A node that comes late: it trusts whom the others trust, but has a certificate of the old CA.
async fn refuse_old_certificate(
    cluster: &Cluster,
    old: &ClusterCa,
    trusted: &[&ClusterCa],
) -> Result<(), Failure> {
    let failed = |node: &Node| node.transport().stats().handshakes_failed;
    let seed = &cluster.nodes[0];
    let before = failed(seed);
    let (late, _) = start("late", tls("late", old, trusted)?).await?;
    let joined = late.join([seed.addr().to_string()]).await;
    match joined {
        Ok(_) => return Err("a node with a certificate of the old CA was let in".into()),
        Err(error) => say(&format!("  it was told: {error}")),
    }
    until("the refusal is counted", || failed(seed) > before).await?;
    late.shutdown().await;
    match cluster.nodes.iter().any(|node| node.member("late").is_some()) {
        true => Err("a node that was refused is a member".into()),
        false => Ok(()),
    }
}

/// Sends numbered messages to one other node until told to stop, and counts them.
async fn send(from: Node, to: String, traffic: Arc<Traffic>) -> Result<usize, Failure> {
    let mut sent = 0;
    while !traffic.stop.load(Ordering::Relaxed) {
        let text = format!("{} to {to}: {sent}", from.name());
        if let Err(error) = from.send_reliable(&to, text).await {
            let error = format!("{} to {to}: {error}", from.name());
            return Err(traffic.failed.get_or_init(|| error).as_str().into());
        }
        sent += 1;
        sleep(PAUSE).await;
    }
    Ok(sent)
}

/// Sends numbered broadcasts until told to stop, and counts them.
async fn broadcast(from: Node, traffic: Arc<Traffic>) -> Result<usize, Failure> {
    let mut sent = 0;
    while !traffic.stop.load(Ordering::Relaxed) {
        from.broadcast(format!("{} to all: {sent}", from.name())).await?;
        sent += 1;
        sleep(BROADCAST_PAUSE).await;
    }
    Ok(sent)
}

async fn sum(counts: &mut JoinSet<Result<usize, Failure>>) -> Result<usize, Failure> {
    let mut sum = 0;
    while let Some(count) = counts.join_next().await {
        sum += count??;
    }
    Ok(sum)
}

/// Takes the messages of one node until it is shut down.
async fn collect(mut messages: Messages, traffic: Arc<Traffic>) -> Arrived {
    let mut arrived = Arrived::default();
    while let Some(message) = messages.next().await {
        if message.reliable {
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            *arrived.reliable.entry(text).or_default() += 1;
            traffic.arrived.fetch_add(1, Ordering::Relaxed);
        } else {
            arrived.broadcasts += 1;
        }
    }
    arrived
}

/// Writes down what must not happen, until the node is shut down.
async fn watch(mut events: Subscription) -> Vec<String> {
    let mut wrong = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Suspected(member) => wrong.push(format!("{} was suspected", member.id())),
            Event::Left(member) if member.state == NodeState::Dead => {
                wrong.push(format!("{} was declared dead", member.id()));
            }
            _ => {}
        }
    }
    wrong
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<(), Failure> {
    let looking = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    Ok(timeout(BOUND, looking).await.map_err(|_| format!("{what}: not within {BOUND:?}"))?)
}

fn say(line: &str) {
    // An error means that nobody reads.
    let _ = writeln!(std::io::stdout(), "{line}");
}
