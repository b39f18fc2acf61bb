//! Which connection leads to which peer: one for each, whichever side dialled it.
//!
//! Two nodes that dial each other at the same moment have two connections. Both ends draw the same
//! lot for each, from the secrets of its handshake, and keep the one with the lower lot. Which moment
//! is the same both ends see alike, as it is counted from the end of one handshake to the begin of the
//! other. At any other time the newer connection takes over: its dialler had a reason, such as a
//! restart or a new certificate. What was replaced still receives, and is closed a little later; see
//! [`crate::retire`].

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connection::Conn;
use crate::error::{CloseCode, DialError};

/// Packets to peers that are not connected yet may wait with this many bytes in all.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// Packets wait for a connection this long at most: what they say is old then, and who comes to the
/// address later is perhaps another.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// As many dials may go on for packets. More could not begin before the packets are too old.
const MAX_DIALS: usize = 4096;
/// The pause after a dial that failed, in which packets fail at once; doubled for each further
/// failure up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A packet is made soon after it was asked how large it may be; its connection may end in between.
const PROMISE: Duration = Duration::from_secs(2);

/// What a busy machine takes until it sees a packet that has come.
const SCHEDULING: Duration = Duration::from_millis(50);

/// Nothing that holds one of these locks leaves a half-made change behind when it panics.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A dial that is going on.
#[derive(Clone)]
pub(crate) struct Dialling {
    /// Ends with its outcome.
    pub(crate) outcome: watch::Receiver<Option<Result<Arc<Conn>, DialError>>>,
    /// Whether somebody waits for it who will not be kept waiting for others. Changed under the pool's lock.
    pub(crate) urgent: watch::Sender<bool>,
}

/// The last dial failed.
struct Failure {
    error: DialError,
    /// When the next may begin.
    until: Instant,
    pause: Duration,
}

/// A packet that waits for a connection.
struct Waiting {
    since: Instant,
    /// Who it is for, if that was said.
    name: Option<Box<str>>,
    packet: Bytes,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.packet.len() + self.name.as_ref().map_or(0, |name| name.len())
    }
}

#[derive(Default)]
struct PeerState {
    /// What packets and new streams take.
    conn: Option<Arc<Conn>>,
    dialling: Option<Dialling>,
    /// Until there is a connection; the oldest first.
    waiting: VecDeque<Waiting>,
    failure: Option<Failure>,
    /// The largest packet that this node was told it may send there.
    promised_bytes: usize,
    /// When that was last said.
    promised: Option<Instant>,
}

impl PeerState {
    /// Whether a packet waits that is not older.
    fn has_waiting(&self, than: Duration) -> bool {
        self.waiting.back().is_some_and(|newest| newest.since.elapsed() <= than)
    }

    fn is_idle(&self) -> bool {
        let pausing = |failure: &Failure| failure.until + LONGEST_PAUSE > Instant::now();
        self.conn.is_none()
            && self.dialling.is_none()
            && self.waiting.is_empty()
            && !self.failure.as_ref().is_some_and(pausing)
            && self.promised.is_none_or(|promised| promised.elapsed() >= PROMISE)
    }
}

pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) per_source: usize,
    pub(crate) waiting: usize,
}

pub(crate) struct Pool {
    limits: Limits,
    peers: HashMap<SocketAddr, PeerState>,
    /// All that exist, by their stable IDs.
    conns: HashMap<usize, Arc<Conn>>,
    /// How many connections each source has dialled.
    accepted_of: HashMap<IpAddr, usize>,
    waiting_bytes: usize,
    dials: usize,
    /// How many peers the last look at all of them left.
    pruned: usize,
}

/// What a new connection changes.
#[derive(Default)]
pub(crate) struct Admitted {
    /// Packets that waited for it, and the connection to send them by.
    pub(crate) waiting: Option<(Arc<Conn>, Vec<Bytes>)>,
    /// How many packets have waited for too long, or for somebody else.
    pub(crate) unsent: usize,
    /// Gives way.
    pub(crate) replaced: Option<Arc<Conn>>,
    /// Makes room.
    pub(crate) evicted: Option<Arc<Conn>>,
}

impl Pool {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            peers: HashMap::new(),
            conns: HashMap::new(),
            accepted_of: HashMap::new(),
            waiting_bytes: 0,
            dials: 0,
            pruned: 0,
        }
    }

    /// The connection to this address.
    pub(crate) fn get(&self, addr: SocketAddr) -> Option<&Arc<Conn>> {
        self.peers.get(&addr)?.conn.as_ref().filter(|conn| conn.is_usable())
    }

    /// All connections, and whether each is in use.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<Conn>, bool)> {
        self.conns.values().map(|conn| (conn, self.in_use(conn)))
    }

    fn in_use(&self, conn: &Arc<Conn>) -> bool {
        let used = self.peers.get(&lock(&conn.key)).and_then(|peer| peer.conn.as_ref());
        used.is_some_and(|used| used.id() == conn.id())
    }

    /// Remembers how large a packet this node was told it may send there.
    pub(crate) fn promise(&mut self, addr: SocketAddr, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&addr) {
            peer.promised_bytes = peer.promised_bytes.max(bytes);
            peer.promised = Some(Instant::now());
        }
    }

    pub(crate) fn promised(&self, addr: SocketAddr) -> usize {
        self.peers.get(&addr).map_or(0, |peer| peer.promised_bytes)
    }

    /// Why a dial there would fail for now, and packets without a connection do.
    pub(crate) fn failing(&self, addr: SocketAddr) -> Option<DialError> {
        let failure = self.peers.get(&addr)?.failure.as_ref()?;
        (failure.until > Instant::now()).then(|| failure.error.clone())
    }

    /// The dial that is going on.
    pub(crate) fn dialling(&self, addr: SocketAddr) -> Option<Dialling> {
        self.peers.get(&addr)?.dialling.clone()
    }

    /// Whether so many dials go on, for whatever, that packets may begin no other.
    pub(crate) fn is_full_of_dials(&self) -> bool {
        self.dials >= MAX_DIALS
    }

    /// Whether the last dial failed, and no connection that was made since has ended well.
    pub(crate) fn has_failed(&self, addr: SocketAddr) -> bool {
        self.peers.get(&addr).is_some_and(|peer| peer.failure.is_some())
    }

    /// Whether a packet waits that a connection would not come too late for.
    pub(crate) fn is_worth_a_dial(&self, addr: SocketAddr) -> bool {
        self.peers.get(&addr).is_some_and(|peer| peer.has_waiting(MAX_WAIT / 2))
    }

    /// Whether packets wait for a dial that are not too old to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        self.peers.values().any(|peer| peer.dialling.is_some() && peer.has_waiting(MAX_WAIT))
    }

    /// Notes a dial that begins.
    pub(crate) fn begin_dial(&mut self, addr: SocketAddr, dialling: Dialling) {
        self.prune();
        let before = self.peers.entry(addr).or_default().dialling.replace(dialling);
        self.dials += usize::from(before.is_none());
    }

    /// Forgets peers of which nothing is to be remembered, when there are many.
    fn prune(&mut self) {
        if self.peers.len() / 2 > self.limits.connections.max(self.pruned) {
            self.peers.retain(|_, peer| !peer.is_idle());
            // All are looked at only when as many have come again.
            self.pruned = self.peers.len();
        }
    }

    /// Keeps a packet until there is a connection, and gives how many had to be dropped for want of
    /// room: the oldest.
    pub(crate) fn wait(&mut self, addr: SocketAddr, name: Option<&str>, packet: Bytes) -> usize {
        let peer = self.peers.entry(addr).or_default();
        let waiting = Waiting { since: Instant::now(), name: name.map(Box::from), packet };
        self.waiting_bytes += waiting.bytes();
        peer.waiting.push_back(waiting);
        let mut dropped = 0;
        while peer.waiting.len() > self.limits.waiting || self.waiting_bytes > MAX_WAITING_BYTES {
            let Some(oldest) = peer.waiting.pop_front() else { break };
            self.waiting_bytes -= oldest.bytes();
            dropped += 1;
        }
        dropped
    }

    /// The packets that wait.
    fn take_waiting(&mut self, addr: SocketAddr) -> VecDeque<Waiting> {
        let Some(peer) = self.peers.get_mut(&addr) else { return VecDeque::new() };
        let waiting = std::mem::take(&mut peer.waiting);
        self.waiting_bytes -= waiting.iter().map(Waiting::bytes).sum::<usize>();
        waiting
    }

    /// Notes that a dial is over, and gives how many packets that waited for it are lost.
    pub(crate) fn end_dial(&mut self, addr: SocketAddr, failure: Option<DialError>) -> usize {
        let Some(peer) = self.peers.get_mut(&addr) else { return 0 };
        if peer.dialling.take().is_some() {
            self.dials -= 1;
        }
        if let Some(error) = failure {
            self.fail(addr, error);
        }
        // After one that was made, what came for a connection that is over again.
        self.take_waiting(addr).len()
    }

    /// Lets packets there fail for a while.
    pub(crate) fn fail(&mut self, addr: SocketAddr, error: DialError) {
        let Some(peer) = self.peers.get_mut(&addr) else { return };
        let last = peer.failure.as_ref().map(|failure| failure.pause);
        // A dial without an answer has taken its time already.
        let last = last.filter(|_| !matches!(error, DialError::Timeout(_)));
        let pause = last.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        peer.failure = Some(Failure { error, until: Instant::now() + pause, pause });
    }

    /// The peer was heard: failures are forgotten.
    pub(crate) fn forget_failure(&mut self, addr: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(&addr) {
            peer.failure = None;
        }
    }

    /// Takes a new connection in.
    ///
    /// # Errors
    /// If there is no room for it.
    pub(crate) fn admit(&mut self, conn: &Arc<Conn>) -> Result<Admitted, CloseCode> {
        let addr = *lock(&conn.key);
        let mut admitted = Admitted::default();
        if !conn.dialled {
            let of_source = self.accepted_of.get(&addr.ip()).copied().unwrap_or(0);
            if of_source >= self.limits.per_source && !self.takes_over(addr) {
                return Err(CloseCode::TooMany);
            }
        }
        if self.conns.len() >= self.limits.connections {
            let idle = self.conns.values().filter(|conn| conn.streams() == 0);
            let oldest = idle.min_by_key(|conn| conn.last_used()).cloned();
            admitted.evicted = Some(oldest.ok_or(CloseCode::TooMany)?);
        }
        if !conn.dialled {
            *self.accepted_of.entry(addr.ip()).or_default() += 1;
        }
        self.prune();
        self.conns.insert(conn.id(), Arc::clone(conn));
        if let Some(evicted) = &admitted.evicted {
            self.remove(evicted);
        }
        let peer = self.peers.entry(addr).or_default();
        let (keep, replaced) = match peer.conn.take() {
            None => (Arc::clone(conn), None),
            Some(old) => settle(old, conn),
        };
        peer.conn = Some(Arc::clone(&keep));
        admitted.replaced = replaced;
        self.hand_over(addr, keep, &mut admitted);
        Ok(admitted)
    }

    /// Gives out what waits for this address, to which there is a connection now.
    fn hand_over(&mut self, addr: SocketAddr, conn: Arc<Conn>, admitted: &mut Admitted) {
        let waiting = self.take_waiting(addr);
        let all = waiting.len();
        let fits = |waiting: &Waiting| {
            waiting.since.elapsed() <= MAX_WAIT && conn.is(waiting.name.as_deref())
        };
        let packets = waiting.into_iter().filter(fits).map(|waiting| waiting.packet);
        let packets: Vec<_> = packets.collect();
        admitted.unsent = all - packets.len();
        admitted.waiting = (!packets.is_empty()).then_some((conn, packets));
    }

    /// Whether a connection from this address replaces one, instead of being one more of its source: a
    /// peer that cannot change its certificate would be worse than one connection more for a moment.
    fn takes_over(&self, addr: SocketAddr) -> bool {
        self.conns.values().filter(|conn| *lock(&conn.key) == addr).take(2).count() == 1
    }

    /// Forgets a connection that is over.
    pub(crate) fn remove(&mut self, conn: &Arc<Conn>) {
        if self.conns.remove(&conn.id()).is_none() {
            return;
        }
        let addr = *lock(&conn.key);
        if let Some(peer) = self.peers.get_mut(&addr) {
            if peer.conn.as_ref().is_some_and(|used| used.id() == conn.id()) {
                peer.conn = None;
            }
            if peer.is_idle() {
                self.peers.remove(&addr);
            }
        }
        if !conn.dialled {
            self.uncount_accepted(addr.ip());
        }
    }

    fn uncount_accepted(&mut self, source: IpAddr) {
        if let Some(count) = self.accepted_of.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.accepted_of.remove(&source);
            }
        }
    }

    /// The peer goes on from another address. A connection that is there already stays in use. Nothing if
    /// that was known.
    pub(crate) fn rekey(&mut self, id: usize, addr: SocketAddr) -> Option<Admitted> {
        let conn = self.conns.get(&id).cloned()?;
        let before = std::mem::replace(&mut *lock(&conn.key), addr);
        if before == addr {
            return None;
        }
        if !conn.dialled {
            self.uncount_accepted(before.ip());
            *self.accepted_of.entry(addr.ip()).or_default() += 1;
        }
        let mut used = None;
        if let Some(peer) = self.peers.get_mut(&before) {
            if peer.conn.as_ref().is_some_and(|conn| conn.id() == id) {
                used = peer.conn.take();
            }
            if peer.is_idle() {
                self.peers.remove(&before);
            }
        }
        let peer = self.peers.entry(addr).or_default();
        if peer.conn.as_ref().is_none_or(|conn| !conn.is_usable()) {
            peer.conn = used.or(peer.conn.take());
        }
        let mut admitted = Admitted::default();
        if let Some(conn) = peer.conn.clone().filter(|conn| conn.is_usable()) {
            self.hand_over(addr, conn, &mut admitted);
        }
        Some(admitted)
    }
}

/// Which of two connections with one peer stays in use, and which is replaced.
fn settle(old: Arc<Conn>, new: &Arc<Conn>) -> (Arc<Conn>, Option<Arc<Conn>>) {
    if old.lot == new.lot {
        // The two ends of one connection: this node dialled itself.
        return (old, None);
    }
    // Who dialled did not know of the other connection yet.
    let at_once = old.dialled != new.dialled
        && old.name == new.name
        && new.began < old.established + same_moment(&[&old, new]);
    match at_once && old.lot < new.lot && old.is_usable() {
        true => (old, Some(Arc::clone(new))),
        false => (Arc::clone(new), Some(old)),
    }
}

/// A handshake that begins within this time after a connection was made here may have begun before it
/// was made there: what one end sees last, the other saw up to a round trip before.
pub(crate) fn same_moment(conns: &[&Conn]) -> Duration {
    let rtt = conns.iter().map(|conn| conn.quinn.rtt()).max().unwrap_or_default();
    rtt * 2 + SCHEDULING
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peers that are not connected are forgotten when there are many, but nothing that waits is.
    #[test]
    fn what_waits_is_counted_until_it_is_taken() {
        let mut pool = Pool::new(Limits { connections: 2, per_source: 9, waiting: 64 });
        let addr = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let dialling =
            || Dialling { outcome: watch::channel(None).1, urgent: watch::Sender::new(false) };
        let dial = |pool: &mut Pool, port| pool.begin_dial(addr(port), dialling());
        for round in 0..60 {
            for _ in 0..64 {
                pool.wait(addr(1000 + round), None, Bytes::from_static(&[7; 1000]));
            }
            // Those of other threads.
            (1..7).for_each(|port| dial(&mut pool, port));
        }
        let lost: usize = (0..60).map(|round| pool.end_dial(addr(1000 + round), None)).sum();
        assert_eq!((lost, pool.waiting_bytes), (60 * 64, 0));
    }
}
