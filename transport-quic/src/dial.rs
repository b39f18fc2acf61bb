//! Dialling: at most one dial to a peer at a time, that all who want to speak to it wait for.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use memberlist_transport::canonical_addr;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::connection::Conn;
use crate::error::{DialError, in_words};
use crate::pool::{Dialling, Pool, lock};
use crate::transport::Shared;

/// A handshake without any answer begins anew after this time, and after twice as long each time:
/// QUIC sends its first packet again at ever longer intervals, and who comes up late would be found
/// late.
const SILENCE: Duration = Duration::from_millis(1500);

/// How many handshakes of each kind are begun for packets at a time: what is late on a machine that is busy with
/// handshakes is begun again, and with too many nothing is done any more.
const TURNS: usize = 2;

/// A handshake that does not end counts for so many pauses. Where the peer is far away or silent that is 60
/// ms, timers being late by up to one, so that each turn begins 16 a second; on a busy machine each pause takes
/// longer.
const TURN_PAUSES: usize = 10;
const TURN_PAUSE: Duration = Duration::from_millis(5);

/// How long answers that have come may take to be looked at.
const LATE_ANSWER: Duration = Duration::from_millis(20);

/// How often it is looked whether the peer has accepted the handshake, which takes a round trip.
const CONFIRMATION_PAUSE: Duration = Duration::from_millis(2);

/// Turns to dial. Each kind waits for its like only: who has no connection never waits for those that have one
/// already, and a first contact not for peers that are known to be silent.
pub(crate) struct DialTurns {
    /// To addresses of which nothing is known.
    first: Semaphore,
    /// Where the last dial failed.
    again: Semaphore,
    /// For a connection that is outdated, or perhaps dead.
    anew: Semaphore,
}

impl DialTurns {
    pub(crate) fn new() -> Self {
        let [first, again, anew] = [(); 3].map(|()| Semaphore::new(TURNS));
        Self { first, again, anew }
    }
}

impl Shared {
    /// The dial to this address that is going on, or a new one. `urgent`: the caller will not be kept
    /// waiting for others.
    pub(crate) fn dial(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
        urgent: bool,
    ) -> Dialling {
        self.dial_from(&mut lock(&self.pool), addr, name, urgent)
    }

    /// As `dial`, for who looks into the pool before.
    pub(crate) fn dial_from(
        self: &Arc<Self>,
        pool: &mut Pool,
        addr: SocketAddr,
        name: Option<&str>,
        urgent: bool,
    ) -> Dialling {
        if let Some(dialling) = pool.dialling(addr) {
            if urgent {
                dialling.urgent.send_replace(true);
            }
            return dialling;
        }
        let there = pool.get(addr);
        let known = there.map(|conn| conn.id());
        let silent = there.filter(|conn| self.is_unanswered(conn)).cloned();
        let failed = pool.has_failed(addr);
        let (done, outcome) = watch::channel(None);
        let urgent = watch::Sender::new(urgent);
        let dialling = Dialling { outcome, urgent: urgent.clone() };
        pool.begin_dial(addr, dialling.clone());
        let (shared, name) = (Arc::clone(self), name.map(str::to_owned));
        let dial = Dial { shared, addr, name, known, silent, failed, urgent };
        // In the runtime that lives as long as the socket, as others may come to wait for it.
        self.runtime.spawn(async move {
            if let Some(dialled) = dial.run().await {
                // If nobody waits for it, the pool has it all the same.
                let _ = done.send(Some(dialled));
            }
        });
        dialling
    }
}

/// A dial from its place in the queue to its outcome.
struct Dial {
    shared: Arc<Shared>,
    addr: SocketAddr,
    name: Option<String>,
    /// The connection that was there when it was asked for.
    known: Option<usize>,
    /// The same, if it did not answer.
    silent: Option<Arc<Conn>>,
    /// The last dial failed.
    failed: bool,
    urgent: watch::Sender<bool>,
}

impl Dial {
    /// The outcome, or nothing if meanwhile nobody needs one any more.
    async fn run(self) -> Option<Result<Arc<Conn>, DialError>> {
        let shared = &self.shared;
        let mut dialled = self.late_answer().await.map(Ok);
        if dialled.is_none() {
            let turn = self.turn().await;
            dialled = self.made_meanwhile().or_else(|| self.answered()).map(Ok);
            if dialled.is_none() {
                if self.gives_up() {
                    return None;
                }
                let name = self.name.as_deref();
                dialled = Some(shared.dial_in_turn(self.addr, name, turn).await);
            }
        }
        let failure = dialled.as_ref().and_then(|dialled| dialled.as_ref().err()).cloned();
        if failure.is_some() {
            shared.counters.dials_failed.add_one();
        }
        self.end(&mut lock(&shared.pool), failure);
        dialled
    }

    /// Waits until few others of its kind dial, but not if it is urgent.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let shared = &self.shared;
        let turns = match (self.known, self.failed) {
            (Some(_), _) => &shared.dial_turns.anew,
            (None, true) => &shared.dial_turns.again,
            (None, false) => &shared.dial_turns.first,
        };
        if let Ok(turn) = turns.try_acquire() {
            return Some(turn);
        }
        let mut urgent = self.urgent.subscribe();
        if !*urgent.borrow_and_update() {
            shared.counters.dials_delayed.add_one();
        }
        let hurried = async {
            // An error would mean that the sender is gone, and `self` has one.
            let _ = urgent.wait_for(|urgent| *urgent).await;
        };
        tokio::select! {
            biased;
            () = hurried => None,
            // What waits has a moment left to leave.
            () = shared.until_closed() => None,
            turn = turns.acquire() => turn.ok(),
        }
    }

    /// A connection that does what this dial is for: the peer has dialled.
    fn made_meanwhile(&self) -> Option<Arc<Conn>> {
        let made = lock(&self.shared.pool).get(self.addr).cloned()?;
        (self.known != Some(made.id()) && !self.shared.is_outdated(&made)).then_some(made)
    }

    /// The silent connection, if its peer was only not listened to: after a pause of this process answers
    /// may have come that nobody has looked at yet.
    async fn late_answer(&self) -> Option<Arc<Conn>> {
        if self.silent.is_some() {
            sleep(LATE_ANSWER).await;
        }
        self.answered()
    }

    /// The silent connection, if the peer has been heard again.
    fn answered(&self) -> Option<Arc<Conn>> {
        let conn = self.silent.as_ref()?;
        (conn.is_usable() && !self.shared.is_outdated(conn)).then(|| Arc::clone(conn))
    }

    /// Whether the packets that asked for it have waited for too long, and nobody else needs it.
    fn gives_up(&self) -> bool {
        let mut pool = lock(&self.shared.pool);
        // Looked at under the lock under which others join.
        let lives_on = !*self.shared.closed.borrow();
        let needed = pool.is_worth_a_dial(self.addr)
            || lives_on && (*self.urgent.borrow() || self.known.is_some());
        if !needed {
            self.end(&mut pool, None);
        }
        !needed
    }

    fn end(&self, pool: &mut Pool, failure: Option<DialError>) {
        let lost = pool.end_dial(self.addr, failure);
        self.shared.counters.packets_dropped_waiting.add(lost);
    }
}

impl Shared {
    /// Gives the turn back when it has dialled, or after a moment: where the peer is far or silent a handshake
    /// takes time, but none of the processor's.
    async fn dial_in_turn(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
        turn: Option<SemaphorePermit<'_>>,
    ) -> Result<Arc<Conn>, DialError> {
        let mut dial = pin!(self.dial_once(addr, name));
        tokio::select! {
            dialled = &mut dial => return dialled,
            () = turn_is_over() => drop(turn),
        }
        dial.await
    }

    /// Whether the socket takes packets for this address.
    pub(crate) fn check_version(&self, to: SocketAddr) -> Result<(), DialError> {
        match self.local.dual_stack || self.local.addr.is_ipv4() == to.is_ipv4() {
            true => Ok(()),
            false => Err(DialError::OtherVersion(if to.is_ipv4() { "IPv4" } else { "IPv6" })),
        }
    }

    async fn dial_once(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
    ) -> Result<Arc<Conn>, DialError> {
        self.check_version(addr)?;
        let certificates = self.certificates.load_full();
        let server_name = certificates.tls.server_name(name, addr.ip());
        let within = self.config.handshake_timeout;
        let _handshaking = Arc::clone(&self.handshaking);
        let connecting = async {
            let mut silence = SILENCE;
            loop {
                let began = Instant::now();
                let client = certificates.client.clone();
                let mut connecting = self.endpoint.connect_with(client, addr, &server_name)?;
                let answer = async { connecting.handshake_data().await.map(drop) };
                match timeout(silence, answer).await {
                    Ok(Ok(())) => {
                        let made = connecting.await;
                        let made = made.map_err(|error| DialError::Refused(in_words(&error)));
                        break made.map(|quinn| (quinn, began));
                    }
                    Ok(Err(error)) => break Err(DialError::Refused(in_words(&error))),
                    // The path may be as long as that.
                    Err(_) => silence *= 2,
                }
            }
        };
        let connected = async {
            let (quinn, began) = connecting.await?;
            // What works is not given up for what the peer may still refuse.
            if lock(&self.pool).get(addr).is_some() {
                confirmed(&quinn).await?;
            }
            Ok((quinn, began))
        };
        let connected = timeout(within, connected).await;
        let (quinn, began) = connected.unwrap_or(Err(DialError::Timeout(within)))?;
        let conn = Conn::new(quinn.clone(), true, &certificates, began);
        let conn = conn.and_then(|conn| self.admit(&conn).map(|()| conn));
        let conn = conn.map_err(|code| {
            self.count_refused(code);
            quinn.close(code.code(), code.reason().as_bytes());
            DialError::Refused(code.reason().to_owned())
        })?;
        self.counters.connections_dialled.add_one();
        debug_assert_eq!(canonical_addr(conn.quinn.remote_address()), *lock(&conn.key));
        Ok(conn)
    }
}

async fn turn_is_over() {
    for _ in 0..TURN_PAUSES {
        sleep(TURN_PAUSE).await;
    }
}

/// Waits until the peer has accepted this node's certificate. TLS lets a client go on before that; the
/// server says so with its HANDSHAKE_DONE frame (RFC 9001 section 4.1.2).
async fn confirmed(quinn: &quinn::Connection) -> Result<(), DialError> {
    while quinn.stats().frame_rx.handshake_done == 0 {
        if let Some(reason) = quinn.close_reason() {
            return Err(DialError::Refused(in_words(&reason)));
        }
        sleep(CONFIRMATION_PAUSE).await;
    }
    Ok(())
}
