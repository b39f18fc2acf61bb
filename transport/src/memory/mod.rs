//! A network inside the process, with delay, loss and partitions, for tests.
//!
//! A [`MemoryNetwork`] connects the [`MemoryTransport`]s that are bound to it. Links have a
//! direction: what `a` sends to `b` can be lost while `b` still reaches `a`. Every link follows the
//! default [`LinkConfig`] unless it is given its own, and can be blocked on top of that.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use memberlist_transport::Transport;
//! use memberlist_transport::memory::{LinkConfig, MemoryNetwork};
//!
//! let network = MemoryNetwork::new(7);
//! network.set_default_link(LinkConfig {
//!     delay: Duration::from_millis(5),
//!     ..LinkConfig::default()
//! });
//! let a = network.bind("10.0.0.1:7946".parse().unwrap()).unwrap();
//! let b = network.bind("10.0.0.2:7946".parse().unwrap()).unwrap();
//! a.send_packet(&b.advertise_addr().into(), b"hello").await.unwrap();
//! let mut buf = [0; 65_536];
//! let (len, source) =
//!     std::future::poll_fn(|cx| b.poll_recv_packet(cx, &mut buf)).await.unwrap();
//! assert_eq!((&buf[..len], source.addr), (&b"hello"[..], a.advertise_addr()));
//! # });
//! ```
//!
//! # Time
//! Delays use tokio's clock, so a test that pauses it runs without waiting.
//!
//! # Packets
//! What becomes of a packet is decided when it is sent: a block or a new setting does not touch
//! those under way. The choices come from a generator of the sender's own, made from the network's
//! seed and the sender's address when it is bound, so the same sends meet the same losses. A packet
//! to nobody vanishes. A receiver holds [`QUEUED_PACKETS`]; one more is dropped.
//!
//! # Streams
//! A stream and a dial need both directions of a link, as TCP needs its acknowledgements. Across a
//! blocked link a dial waits, and goes through if the link heals within its timeout; a stream that
//! is already open does not break but stalls, and goes on once the link heals. A dial takes a round
//! trip, bytes take the delay of their direction. Each direction holds [`STREAM_BUFFER_BYTES`], so
//! a delay limits the rate as a TCP window does. Each node holds [`QUEUED_STREAMS`] that it has not
//! accepted yet.

mod alarm;
mod endpoint;
mod link;
mod stats;
mod stream;
mod transport;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

pub use self::endpoint::{QUEUED_PACKETS, QUEUED_STREAMS};
pub use self::link::LinkConfig;
pub use self::stats::MemoryStats;
pub use self::stream::{MemoryStream, STREAM_BUFFER_BYTES};
pub use self::transport::MemoryTransport;

use self::endpoint::Endpoint;
use self::link::{Dice, Links, addr_words};
use self::stats::Counters;
use self::stream::Pipe;
use crate::canonical_addr;

/// The limit for one packet unless [`MemoryNetwork::set_max_packet_bytes`] changes it.
pub const DEFAULT_MAX_PACKET_BYTES: usize = 1400;

/// The first port that is given to an address that asks for any.
const FIRST_FREE_PORT: u16 = 1024;

/// Why an address could not be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryBindError {
    /// Another transport has this address.
    #[error("address {0} is in use on the in-memory network")]
    InUse(SocketAddr),
    /// An address like `0.0.0.0`. This network has no interfaces to choose from.
    #[error("address {0} names no single node; the in-memory network needs one")]
    Unspecified(SocketAddr),
    /// Port 0 was asked for and all ports of this IP address are taken.
    #[error("no free port left at {0} on the in-memory network")]
    NoFreePort(SocketAddr),
}

/// A network inside the process; see the [module's page](self). Clones are the same network.
#[derive(Clone)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    table: Mutex<Table>,
    /// Told after every change of the links, for dials that wait.
    links_changed: Notify,
    max_packet_bytes: AtomicUsize,
    counters: Counters,
}

struct Table {
    links: Links,
    endpoints: HashMap<SocketAddr, Arc<Endpoint>>,
    next_port: u16,
    /// All open streams' directions, to tell them of changed links, and some that are gone.
    pipes: Vec<Weak<Pipe>>,
    /// The length of `pipes` at which those that are gone are swept out.
    sweep_at: usize,
}

impl MemoryNetwork {
    /// A network with perfect links. `seed` decides losses, duplicates and jitter.
    pub fn new(seed: u64) -> Self {
        let table = Table {
            links: Links::default(),
            endpoints: HashMap::new(),
            next_port: FIRST_FREE_PORT,
            pipes: Vec::new(),
            sweep_at: 64,
        };
        Self {
            shared: Arc::new(Shared {
                seed,
                table: Mutex::new(table),
                links_changed: Notify::new(),
                max_packet_bytes: AtomicUsize::new(DEFAULT_MAX_PACKET_BYTES),
                counters: Counters::default(),
            }),
        }
    }

    /// Puts a node on the network. Port 0 takes a free port. The address is free again once the
    /// transport is closed or dropped.
    ///
    /// # Errors
    /// [`MemoryBindError`] if the address is taken or not that of one node.
    pub fn bind(&self, addr: SocketAddr) -> Result<MemoryTransport, MemoryBindError> {
        let mut addr = canonical_addr(addr);
        if addr.ip().is_unspecified() {
            return Err(MemoryBindError::Unspecified(addr));
        }
        let mut table = self.table();
        if addr.port() == 0 {
            addr.set_port(table.free_port(addr).ok_or(MemoryBindError::NoFreePort(addr))?);
        }
        let Entry::Vacant(place) = table.endpoints.entry(addr) else {
            return Err(MemoryBindError::InUse(addr));
        };
        let dice = Dice::new(self.shared.seed, addr_words(addr));
        let endpoint = Arc::clone(place.insert(Arc::new(Endpoint::new(addr, dice))));
        drop(table);
        Ok(MemoryTransport::new(self.clone(), endpoint))
    }

    /// Sets the limit for one packet, from now on and for all nodes. Default
    /// [`DEFAULT_MAX_PACKET_BYTES`].
    pub fn set_max_packet_bytes(&self, max_packet_bytes: usize) {
        self.shared.max_packet_bytes.store(max_packet_bytes, Ordering::Relaxed);
    }

    /// Sets how all links behave that have no setting of their own.
    pub fn set_default_link(&self, link: LinkConfig) {
        self.change_links(|links| links.default = link);
    }

    /// Sets how one direction of one link behaves.
    pub fn set_link(&self, from: SocketAddr, to: SocketAddr, link: LinkConfig) {
        self.change_links(|links| {
            links.special.insert(canonical_pair(from, to), link);
        });
    }

    /// Blocks one direction of one link: packets vanish, streams stall.
    pub fn block(&self, from: SocketAddr, to: SocketAddr) {
        self.change_links(|links| {
            links.blocked.insert(canonical_pair(from, to));
        });
    }

    /// Ends a block of one direction of one link.
    pub fn unblock(&self, from: SocketAddr, to: SocketAddr) {
        self.change_links(|links| {
            links.blocked.remove(&canonical_pair(from, to));
        });
    }

    /// Blocks every link between the two sides, both ways. Links within a side stay.
    pub fn partition(&self, one_side: &[SocketAddr], other_side: &[SocketAddr]) {
        self.change_links(|links| {
            for &a in one_side {
                for &b in other_side {
                    links.blocked.insert(canonical_pair(a, b));
                    links.blocked.insert(canonical_pair(b, a));
                }
            }
        });
    }

    /// Ends all blocks and partitions. Settings of links stay.
    pub fn heal(&self) {
        self.change_links(|links| links.blocked.clear());
    }

    /// What happened so far.
    pub fn stats(&self) -> MemoryStats {
        self.shared.counters.snapshot()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.shared.table)
    }

    fn change_links(&self, change: impl FnOnce(&mut Links)) {
        let mut wakers = Vec::new();
        let mut table = self.table();
        change(&mut table.links);
        // Kept beyond the lock: the last owner of a pipe drops wakers, and with them perhaps more.
        let pipes: Vec<_> = table.pipes.iter().filter_map(Weak::upgrade).collect();
        for pipe in &pipes {
            let stalled = !table.links.streams_ok(pipe.from, pipe.to);
            wakers.extend(pipe.set_link(table.links.get(pipe.from, pipe.to), stalled));
        }
        drop(table);
        wakers.into_iter().flatten().for_each(std::task::Waker::wake);
        self.shared.links_changed.notify_waiters();
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn max_packet_bytes(&self) -> usize {
        self.shared.max_packet_bytes.load(Ordering::Relaxed)
    }

    fn endpoint(&self, addr: SocketAddr) -> Option<Arc<Endpoint>> {
        self.table().endpoints.get(&addr).cloned()
    }

    fn route(&self, from: SocketAddr, to: SocketAddr) -> (LinkConfig, Option<Arc<Endpoint>>) {
        let table = self.table();
        (table.links.get(from, to), table.endpoints.get(&to).cloned())
    }

    /// Frees the address, if it is still this endpoint's: by now another may have it.
    fn remove(&self, endpoint: &Arc<Endpoint>) {
        let mut table = self.table();
        if let Entry::Occupied(place) = table.endpoints.entry(endpoint.addr) {
            if Arc::ptr_eq(place.get(), endpoint) {
                place.remove();
            }
        }
    }

    fn are_streams_ok(&self, a: SocketAddr, b: SocketAddr) -> bool {
        self.table().links.streams_ok(a, b)
    }

    /// Waits until a stream between the two could make progress.
    async fn streams_ok(&self, a: SocketAddr, b: SocketAddr) {
        loop {
            // Asked for before the check, so that no change between the two is missed.
            let changed = self.shared.links_changed.notified();
            if self.are_streams_ok(a, b) {
                return;
            }
            changed.await;
        }
    }

    /// The time from one to the other and back, for the stream of that running number.
    fn draw_round_trip(&self, from: SocketAddr, to: SocketAddr, number: u64) -> Duration {
        let table = self.table();
        let [there, back] = [table.links.get(from, to), table.links.get(to, from)];
        drop(table);
        let mut dice = self.stream_dice(from, to, number);
        there.draw_delay(&mut dice) + back.draw_delay(&mut dice)
    }

    fn stream_dice(&self, from: SocketAddr, to: SocketAddr, number: u64) -> Dice {
        let words = addr_words(from).into_iter().chain(addr_words(to)).chain([number]);
        Dice::new(self.shared.seed, words)
    }

    /// A new stream's two ends: that of `from`, and that of `to`.
    fn connect(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        number: u64,
    ) -> (MemoryStream, MemoryStream) {
        let mut table = self.table();
        let stalled = !table.links.streams_ok(from, to);
        let mut pipe = |a: SocketAddr, b: SocketAddr| {
            let pipe = Pipe::new(a, b, self.stream_dice(a, b, number));
            pipe.set_link(table.links.get(a, b), stalled);
            let pipe = Arc::new(pipe);
            table.register(&pipe);
            pipe
        };
        let (there, back) = (pipe(from, to), pipe(to, from));
        let near = MemoryStream::new(Arc::clone(&there), Arc::clone(&back));
        (near, MemoryStream::new(back, there))
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork")
            .field("seed", &self.shared.seed)
            .field("nodes", &self.table().endpoints.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Ports are given out in turn, so that one just freed is not given to somebody else at once.
    fn free_port(&mut self, mut addr: SocketAddr) -> Option<u16> {
        for _ in FIRST_FREE_PORT..=u16::MAX {
            addr.set_port(self.next_port);
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
            if !self.endpoints.contains_key(&addr) {
                return Some(addr.port());
            }
        }
        None
    }

    fn register(&mut self, pipe: &Arc<Pipe>) {
        if self.pipes.len() >= self.sweep_at {
            self.pipes.retain(|pipe| pipe.strong_count() > 0);
            self.sweep_at = (2 * self.pipes.len()).max(64);
        }
        self.pipes.push(Arc::downgrade(pipe));
    }
}

fn canonical_pair(from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    (canonical_addr(from), canonical_addr(to))
}

/// Nothing that holds one of these locks leaves a half-made change behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
