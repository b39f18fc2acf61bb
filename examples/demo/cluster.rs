//! The nodes of the demo, and what they report.

use std::collections::HashSet;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memberlist::security::{KeySize, Keyring, SecretKey};
use memberlist::{
    Builder, Bytes, Config, Delegate, Encryption, Event, Memberlist, NodeState, UserMessage,
    WireFormat,
};
use tokio::sync::Notify;

use crate::network::Network;
use crate::{Flags, Preset, Wire};

/// The broadcast of the step that spreads one.
pub(crate) const HELLO: &str = "hello, cluster";

pub(crate) type Node<N> = Memberlist<<N as Network>::Transport>;

/// A node, running or not.
pub(crate) struct Slot<N: Network> {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    pub(crate) node: Option<Node<N>>,
}

/// All nodes, and what they have reported so far.
pub(crate) struct Cluster<N: Network> {
    pub(crate) slots: Vec<Slot<N>>,
    pub(crate) watch: Arc<Watch>,
    /// What a node that is started now encrypts with.
    pub(crate) key: Option<SecretKey>,
    network: N,
    preset: Preset,
    pub(crate) wire: Wire,
    label: String,
    compression: bool,
}

/// What the delegates of all nodes write down.
#[derive(Default)]
pub(crate) struct Watch {
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// Which nodes got the broadcast.
    pub(crate) messages: HashSet<String>,
    pub(crate) traffic: Traffic,
    /// Who is not running, so that its death is right.
    pub(crate) down: HashSet<String>,
    /// When the node that is down was first suspected and first declared dead.
    pub(crate) suspected_at: Option<Instant>,
    pub(crate) dead_at: Option<Instant>,
    /// Who has reported that death.
    pub(crate) reported_by: HashSet<String>,
    /// Who has ever been down: a snapshot may still show it so.
    was_down: HashSet<String>,
    /// Who was declared dead while it was well, by whom.
    pub(crate) false_deaths: Vec<(String, String)>,
}

/// What came of the messages that flow while the key is replaced.
#[derive(Default)]
pub(crate) struct Traffic {
    /// Receivers and payloads.
    pub(crate) reliable: HashSet<(String, Bytes)>,
    /// Reliable messages that had come before.
    pub(crate) twice: usize,
    pub(crate) broadcasts: usize,
}

impl Seen {
    fn death(&mut self, of: &str, by: &str) {
        if self.down.contains(of) {
            self.dead_at.get_or_insert_with(Instant::now);
            self.reported_by.insert(by.to_owned());
        } else {
            self.false_deaths.push((of.to_owned(), by.to_owned()));
        }
    }
}

impl Watch {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `holds`, asking again when something was reported, and at least now and then.
    pub(crate) async fn until(
        &self,
        what: &str,
        bound: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + bound;
        while !holds() {
            if Instant::now() >= deadline {
                return Err(format!("{what}: not within {bound:?}").into());
            }
            let _ = tokio::time::timeout(Duration::from_millis(10), self.changed.notified()).await;
        }
        Ok(())
    }
}

/// Reports what one node sees.
struct Reporter {
    name: String,
    watch: Arc<Watch>,
}

impl Delegate for Reporter {
    fn notify_message(&self, message: UserMessage) {
        let mut seen = self.watch.seen();
        if message.payload == HELLO {
            seen.messages.insert(self.name.clone());
        } else if !message.reliable {
            seen.traffic.broadcasts += 1;
        } else if !seen.traffic.reliable.insert((self.name.clone(), message.payload)) {
            seen.traffic.twice += 1;
        }
        drop(seen);
        self.watch.changed.notify_one();
    }

    fn notify_event(&self, event: &Event) {
        let mut seen = self.watch.seen();
        match event {
            Event::Suspected(member) if seen.down.contains(member.id().as_str()) => {
                seen.suspected_at.get_or_insert_with(Instant::now);
            }
            Event::Left(member) if member.state == NodeState::Dead => {
                seen.death(member.id().as_str(), &self.name);
            }
            // It stands for the events that were missed.
            Event::Snapshot { members, .. } => {
                for member in members.iter().filter(|member| member.state == NodeState::Dead) {
                    let name = member.id().as_str();
                    if seen.down.contains(name) || !seen.was_down.contains(name) {
                        seen.death(name, &self.name);
                    }
                }
            }
            _ => {}
        }
        drop(seen);
        self.watch.changed.notify_one();
    }
}

impl<N: Network> Cluster<N> {
    pub(crate) async fn start(flags: &Flags) -> Result<Self, Box<dyn Error>> {
        let names: Vec<String> = (0..flags.nodes).map(|i| format!("node-{i}")).collect();
        let mut cluster = Self {
            slots: Vec::new(),
            watch: Arc::new(Watch::default()),
            key: flags.encrypt.then(|| SecretKey::generate(KeySize::Bits256)).transpose()?,
            network: N::new(&names)?,
            preset: flags.preset,
            wire: flags.wire,
            label: flags.label.clone(),
            compression: !flags.no_compress,
        };
        for name in names {
            let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
            let node = cluster.start_node(&name, any_port).await?;
            cluster.slots.push(Slot { name, addr: node.addr(), node: Some(node) });
        }
        Ok(cluster)
    }

    async fn start_node(&self, name: &str, addr: SocketAddr) -> Result<Node<N>, Box<dyn Error>> {
        let mut config = match self.preset {
            Preset::Local => Config::local(name),
            Preset::Lan => Config::lan(name),
            Preset::Wan => Config::wan(name),
        };
        config.label = self.label.clone();
        config.protocol.compression = self.compression;
        config.protocol.wire_format = match self.wire {
            Wire::Native => WireFormat::Native,
            Wire::Hashicorp => WireFormat::Hashicorp,
            Wire::Mixed => WireFormat::Mixed,
        };
        config.encryption = self.key.clone().map(|key| Encryption::new(Keyring::new(key)));
        let reporter = Reporter { name: name.to_owned(), watch: Arc::clone(&self.watch) };
        let transport = self.network.bind(name, addr)?;
        Ok(Builder::new(config.with_meta("demo")).delegate(reporter).start(transport).await?)
    }

    /// Ends a node without a farewell.
    pub(crate) async fn kill(&mut self, at: usize) {
        let name = self.slots[at].name.clone();
        {
            let mut seen = self.watch.seen();
            seen.was_down.insert(name.clone());
            seen.down.insert(name);
            seen.reported_by.clear();
        }
        if let Some(node) = self.slots[at].node.take() {
            node.shutdown().await;
        }
    }

    /// Starts a node again under its name and address.
    pub(crate) async fn restart(&mut self, at: usize) -> Result<(), Box<dyn Error>> {
        let (name, addr) = (self.slots[at].name.clone(), self.slots[at].addr);
        let node = self.start_node(&name, addr).await?;
        self.watch.seen().down.remove(&name);
        node.join([self.seed_addr()]).await?;
        self.slots[at].node = Some(node);
        Ok(())
    }

    pub(crate) fn seed_addr(&self) -> String {
        self.slots[0].addr.to_string()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Node<N>> {
        self.slots.iter().filter_map(|slot| slot.node.as_ref())
    }

    pub(crate) fn node(&self, at: usize) -> Result<&Node<N>, Box<dyn Error>> {
        self.slots[at].node.as_ref().ok_or_else(|| "that node is not running".into())
    }

    /// Whether every running node sees this one in this state.
    pub(crate) fn all_see(&self, name: &str, state: NodeState) -> bool {
        self.running().all(|node| node.member(name).is_some_and(|member| member.state == state))
    }

    /// Whether every running node has reported the death of the one that is down. Reports come later
    /// than the view shows it, and one that came after a restart would count as false.
    pub(crate) fn all_reported(&self) -> bool {
        let seen = self.watch.seen();
        self.running().all(|node| seen.reported_by.contains(node.name()))
    }

    /// Whether every running node sees every running node alive, and nobody else.
    pub(crate) fn agrees(&self) -> bool {
        let running = self.running().count();
        self.running().all(|node| node.member_count() == running)
            && self.running().all(|node| node.alive_members().len() == running)
    }
}
