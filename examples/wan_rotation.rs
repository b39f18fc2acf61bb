//! Replacing the key of a cluster several times, while all of its nodes talk to each other.
//!
//! Six nodes with the settings for a wide area, encrypted, labelled and compressed, over real UDP and
//! TCP sockets on loopback. Each sends numbered messages to each other one, reliably, without a
//! pause for the rotations. One node after another calls `rotate()`, which takes one probe interval:
//! so long the old key is kept for what was sealed with it. In the end every message must have arrived
//! exactly once, nobody may have been suspected, and each node must hold the last key alone.
//!
//! ```text
//! cargo run --release --example wan_rotation
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use memberlist::net::NetTransport;
use memberlist::security::{KeySize, Keyring, SecretKey};
use memberlist::{Builder, Config, Encryption, Memberlist, Messages, Stats};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

type Node = Memberlist<NetTransport>;
type Failure = Box<dyn Error + Send + Sync>;
/// How often each message came, by its text: who sent it, to whom, which number.
type Arrived = BTreeMap<String, usize>;

const NODES: usize = 6;
const ROTATIONS: usize = 4;
/// Between two messages of one node to one other.
const PAUSE: Duration = Duration::from_millis(50);
/// Makes messages long enough to be compressed.
const FILLER: &str = " and so on, and so forth, as in a text that says the same again";
/// A bound for what takes seconds, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(120);

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
    let key = SecretKey::generate(KeySize::Bits256)?;
    say(&format!("{NODES} nodes, WAN settings, key {}", key.fingerprint()));
    let (mut nodes, mut receivers) = (Vec::new(), JoinSet::new());
    for i in 0..NODES {
        let (node, messages) = start(&format!("node-{i}"), &key).await?;
        nodes.push(node);
        receivers.spawn(collect(messages));
    }
    let seed = nodes[0].addr().to_string();
    try_join_all(nodes[1..].iter().map(|node| node.join([&seed]))).await?;
    until("all know each other", || nodes.iter().all(|n| n.alive_members().len() == NODES)).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.name() != from.name()) {
            senders.spawn(send(from.clone(), to.name().to_owned(), Arc::clone(&stop)));
        }
    }

    let mut last = key.fingerprint();
    for i in 0..ROTATIONS {
        let node = &nodes[i % NODES];
        let began = Instant::now();
        let keys = node.keys().ok_or("the nodes have no keys")?;
        let (new, report) = keys.rotate().await?;
        let (members, took) = (report.answers.len(), began.elapsed().as_secs_f64());
        say(&format!("{} replaced {last} by {new} on {members} nodes, {took:.3} s", node.name()));
        last = new;
    }
    try_join_all(nodes.iter().map(probes_others)).await?;

    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    while let Some(done) = senders.join_next().await {
        sent += done??;
    }
    for node in &nodes {
        let held = node.keys().map(|keys| keys.local()).unwrap_or_default();
        if held.len() != 1 || held[0].fingerprint != last {
            return Err(format!("{} does not hold the last key alone", node.name()).into());
        }
        let suspicions = node.stats().await?.suspicions;
        if suspicions > 0 {
            return Err(format!("{} suspected others {suspicions} times", node.name()).into());
        }
    }
    // What is acknowledged is in the receiver's queue, which `collect` empties to its end.
    join_all(nodes.iter().map(Node::shutdown)).await;
    let mut arrived = Arrived::new();
    while let Some(of_one) = receivers.join_next().await {
        arrived.extend(of_one?);
    }
    if arrived.len() != sent || arrived.values().any(|times| *times != 1) {
        let times: usize = arrived.values().sum();
        return Err(format!("{sent} sent, {} arrived, {times} times", arrived.len()).into());
    }
    say(&format!("all {sent} messages arrived exactly once; nobody was suspected"));
    Ok(())
}

async fn start(name: &str, key: &SecretKey) -> Result<(Node, Messages), Failure> {
    let mut config = Config::wan(name);
    config.label = "wan-rotation".to_owned();
    config.encryption = Some(Encryption::new(Keyring::new(key.clone())));
    // On by default; said here to be seen.
    config.protocol.compression = true;
    let (builder, messages) = Builder::new(config).messages();
    let transport = NetTransport::bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok((builder.start(transport).await?, messages))
}

/// Sends numbered messages to one other node until told to stop, and counts them.
async fn send(from: Node, to: String, stop: Arc<AtomicBool>) -> Result<usize, Failure> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{} to {to}: {sent}{}", from.name(), FILLER.repeat(10));
        let outcome = from.send_reliable(&to, text).await;
        outcome.map_err(|error| format!("{} to {to}: {error}", from.name()))?;
        sent += 1;
        sleep(PAUSE).await;
    }
    Ok(sent)
}

/// Takes the messages of one node until it is shut down.
async fn collect(mut messages: Messages) -> Arrived {
    let mut arrived = Arrived::new();
    while let Some(message) = messages.next().await {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        *arrived.entry(text).or_default() += 1;
    }
    arrived
}

/// Waits until a node has begun a probe after now, and knows its result.
async fn probes_others(node: &Node) -> Result<(), Failure> {
    let begun = node.stats().await?.probes;
    let looking = async {
        while ended_probes(&node.stats().await?) <= begun {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    timeout(BOUND, looking).await.map_err(|_| format!("{} does not probe", node.name()))?
}

fn ended_probes(stats: &Stats) -> u64 {
    let by_packet = stats.probes_acked_direct + stats.probes_acked_indirect;
    by_packet + stats.probes_acked_stream + stats.probes_failed
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
