//! A replicated map over delegates: every node has all of it, and takes writes at any time.
//!
//! A change goes to all by `broadcast`, within a moment. Who misses that (it was not there yet, it was
//! cut off, the change fits no packet) gets it later: `local_state` and `merge_remote_state` exchange whole maps at every join and,
//! now and then, between two members (push/pull). Two writes of one key are put in order by a counter
//! that runs ahead with everything seen (a Lamport clock), and by the writer's name where that ties:
//! the last writer wins, on all nodes alike, whatever arrives first. A deleted key leaves a mark (a
//! tombstone), so that an old copy does not bring it back.
//!
//! What this is not: a database. There is no consensus: a write is not confirmed by anybody, two at
//! the same time do not see each other and one of them is lost without a word; nothing spans two
//! keys; nothing is on disk, so a node that starts again must join before it writes. Tombstones stay
//! for ever, and the whole map travels at once, so it should be small (and must be under 20 MiB).
//!
//! ```text
//! cargo run --release --example kv
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use memberlist::net::NetTransport;
use memberlist::protocol::BroadcastError;
use memberlist::{Builder, Bytes, Config, Delegate, Memberlist};
use memberlist::{Priority, Relation, SendError, UserMessage};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

type Failure = Box<dyn Error + Send + Sync>;

/// A bound for what takes a second, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The counter when it was written, and the writer's name: the higher pair wins.
    version: (u64, String),
    /// Nothing if it was deleted.
    value: Option<String>,
}

/// In order of the keys: an equal map must have equal bytes, as those are what nodes compare before
/// they send each other a state.
type Entries = BTreeMap<String, Entry>;

#[derive(Debug, Default)]
struct Contents {
    entries: Entries,
    /// The highest counter that was seen, or given away.
    clock: u64,
    /// How many entries were news, by how they came.
    by_broadcast: usize,
    by_state: usize,
}

impl Contents {
    /// Takes what is newer than its own, and says how much that was. In whatever order, and however
    /// often it is given the same entries, the outcome is the same.
    fn merge(&mut self, entries: Entries) -> usize {
        let mut taken = 0;
        for (key, entry) in entries {
            self.clock = self.clock.max(entry.version.0);
            if self.entries.get(&key).is_none_or(|own| own.version < entry.version) {
                self.entries.insert(key, entry);
                taken += 1;
            }
        }
        taken
    }
}

/// The application's side of a node; clones are the same map.
#[derive(Clone, Debug, Default)]
struct Store(Arc<Mutex<Contents>>);

impl Store {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic elsewhere does not leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delegate for Store {
    fn notify_message(&self, message: UserMessage) {
        if let Some(change) = decode(&message.payload) {
            let mut contents = self.contents();
            contents.by_broadcast += contents.merge(change);
        }
    }

    fn local_state(&self, _join: bool) -> Bytes {
        // A panic here would fail this exchange alone; a map of strings does not fail, though.
        serde_json::to_vec(&self.contents().entries).expect("strings and numbers").into()
    }

    fn merge_remote_state(&self, state: Bytes, _join: bool) {
        if let Some(entries) = decode(&state) {
            let mut contents = self.contents();
            contents.by_state += contents.merge(entries);
        }
    }
}

/// What comes from the network may be anything.
fn decode(bytes: &[u8]) -> Option<Entries> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| say(&format!("not understood, and left alone: {error}")))
        .ok()
}

/// A node and its map.
struct Replica {
    node: Memberlist<NetTransport>,
    store: Store,
}

async fn start(name: &str) -> Result<Replica, Failure> {
    let store = Store::default();
    let mut config = Config::lan(name);
    // So that nobody waits for long in front of an example; the preset's 30 seconds suit most clusters.
    config.protocol.push_pull_interval = Duration::from_millis(300);
    let transport = NetTransport::bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let node = Builder::new(config).delegate(store.clone()).start(transport).await?;
    Ok(Replica { node, store })
}

impl Replica {
    /// Writes here, and tells all others; no value deletes the key.
    async fn write(&self, key: &str, value: Option<&str>) -> Result<(), Failure> {
        let change = {
            let mut contents = self.store.contents();
            let version = (contents.clock.saturating_add(1), self.node.name().to_owned());
            let entry = Entry { version, value: value.map(str::to_owned) };
            let change = Entries::from([(key.to_owned(), entry)]);
            contents.merge(change.clone());
            serde_json::to_vec(&change)?
        };
        // An older change of this key that still waits to be sent is not worth sending any more.
        let relation = Relation::Named(key.into());
        match self.node.broadcast_with(change, relation, Priority::Normal).await {
            // More than a packet carries: the next push/pull brings it.
            Err(SendError::Broadcast(BroadcastError::TooLarge { .. })) => Ok(()),
            other => Ok(other?),
        }
    }

    fn has(&self, key: &str, value: &str) -> bool {
        let contents = self.store.contents();
        contents.entries.get(key).is_some_and(|entry| entry.value.as_deref() == Some(value))
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let [a, b, c] = [start("a").await?, start("b").await?, start("c").await?];
    let seed = a.node.addr().to_string();
    b.node.join([&seed]).await?;
    c.node.join([&seed]).await?;
    let three = [&a, &b, &c];
    let known = || three.iter().all(|replica| replica.node.member_count() == three.len());
    until("all three know each other", known).await?;

    a.write("colour", Some("red")).await?;
    b.write("lunch", Some("soup")).await?;
    c.write("door", Some("open")).await?;
    until("three writes are everywhere", || agree(&three, &["colour", "door", "lunch"])).await?;
    b.write("colour", Some("green")).await?;
    c.write("lunch", None).await?;
    let changed = || agree(&three, &["colour", "door"]) && a.has("colour", "green");
    until("one is overwritten, one is deleted", changed).await?;

    // Its broadcast reaches nobody: other members have it by push/pull alone.
    let poem = "and so on, ".repeat(500);
    a.write("poem", Some(&poem)).await?;
    let came = |replica: &&Replica| replica.store.contents().by_state > 0;
    let arrived = || agree(&three, &["colour", "door", "poem"]) && three[1..].iter().all(came);
    until("what fits no packet has come by push/pull", arrived).await?;

    // It has missed everything, and what it wrote alone is older than what the others know of lunch.
    let d = start("d").await?;
    d.write("lunch", Some("stale bread")).await?;
    d.write("lamp", Some("on")).await?;
    d.node.join([&seed]).await?;
    let four = [&a, &b, &c, &d];
    let arrived = || agree(&four, &["colour", "door", "lamp", "poem"]) && came(&&d);
    until("a fourth has joined, and all four maps are equal", arrived).await?;
    for replica in four {
        let (name, contents) = (replica.node.name(), replica.store.contents());
        let (broadcast, state) = (contents.by_broadcast, contents.by_state);
        say(&format!("  {name}: news by broadcast {broadcast}, by push/pull {state}"));
    }
    join_all(four.map(|replica| replica.node.shutdown())).await;
    Ok(())
}

/// Whether all have the same, tombstones and versions too, and these keys are what is not deleted.
fn agree(replicas: &[&Replica], keys: &[&str]) -> bool {
    let first = replicas[0].store.contents().entries.clone();
    let live = first.iter().filter(|(_, entry)| entry.value.is_some()).map(|(key, _)| key);
    live.eq(keys) && replicas.iter().all(|replica| replica.store.contents().entries == first)
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<(), Failure> {
    let looking = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, looking).await.map_err(|_| format!("{what}: not within {BOUND:?}"))?;
    say(what);
    Ok(())
}

fn say(line: &str) {
    // An error means that nobody reads.
    let _ = writeln!(std::io::stdout(), "{line}");
}
