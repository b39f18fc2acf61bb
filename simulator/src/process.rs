//! One process of the simulated cluster: a real protocol machine, and what can be done to it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use memberlist_protocol::wire::Room;
use memberlist_protocol::{Config, Membership, NodeId, OperationId, Peer, StreamRequest};

use crate::network::ProcessId;
use crate::time::Time;

/// How a process stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// Nothing runs, as when the machine sleeps or the scheduler starves it. What arrives waits.
    Frozen,
    /// What arrives waits, and so does what is sent, together with whatever wants to send: a probe
    /// waits in its first ping, and no other begins. Suspicions go on and run out. The slow member of
    /// the Lifeguard paper, which blocks around its sends and receives.
    Blocked,
}

/// Something that reached a process.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Packet {
        from: SocketAddr,
        /// The address that it was sent to: a process may have moved meanwhile.
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// A peer asks over a stream.
    Asked { exchange: ExchangeId, from: ProcessId, bytes: Vec<u8> },
    /// The answer to an own question.
    Answered { exchange: ExchangeId, bytes: Vec<u8> },
    /// No answer to an own question.
    Unanswered { exchange: ExchangeId, refused: bool },
}

/// Something that a process sends.
#[derive(Clone, Debug)]
pub(crate) enum Departure {
    Packet { to: SocketAddr, bytes: Vec<u8> },
    Ask { request: StreamRequest },
    Answer { exchange: ExchangeId, to: ProcessId, bytes: Vec<u8> },
}

/// A question over a stream and its answer, in the whole world.
pub(crate) type ExchangeId = u64;

/// A question that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) id: OperationId,
    pub(crate) peer: Peer,
    /// How long it waits.
    pub(crate) timeout: Duration,
    /// The sequence number, if it is a ping.
    pub(crate) ping: Option<u32>,
}

/// A running or stopped process.
pub struct Process {
    /// Its index in the world.
    pub id: ProcessId,
    /// Its name, kept over restarts.
    pub name: NodeId,
    /// Its address; a restart may change it.
    pub addr: SocketAddr,
    /// Counts its starts, so that what belongs to an earlier life is not taken for the present one's.
    pub life: u32,
    pub(crate) config: Config,
    pub(crate) machine: Option<Membership>,
    pub(crate) paused: Option<Pause>,
    pub(crate) inbox: VecDeque<Arrival>,
    /// How long it takes over each arrival of a backlog, once it goes on.
    pub(crate) service_time: Duration,
    /// When it takes the next of the backlog.
    pub(crate) serve_at: Option<Time>,
    pub(crate) outbox: VecDeque<Departure>,
    /// The wake-up that is scheduled.
    pub(crate) wake_at: Option<Time>,
    pub(crate) questions: BTreeMap<ExchangeId, Question>,
    /// What outer layers and path leave for a packet; no layers, and no limit but the machine's.
    pub room: Room,
    /// Since when it runs without interruption: neither started nor resumed since.
    pub well_since: Time,
}

impl Process {
    pub(crate) fn new(id: ProcessId, name: NodeId, addr: SocketAddr, config: Config) -> Self {
        Self {
            id,
            name,
            addr,
            life: 0,
            config,
            machine: None,
            paused: None,
            inbox: VecDeque::new(),
            service_time: Duration::ZERO,
            serve_at: None,
            outbox: VecDeque::new(),
            wake_at: None,
            questions: BTreeMap::new(),
            room: Room { head: 0, tail: 0, max_packet_bytes: usize::MAX },
            well_since: Time::ZERO,
        }
    }

    /// The machine, if the process is up.
    pub fn machine(&self) -> Option<&Membership> {
        self.machine.as_ref()
    }

    /// Whether the process is there at all.
    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// How it stands still, if it does.
    pub fn paused(&self) -> Option<Pause> {
        self.paused
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it is blocked, and something wants to send.
    pub(crate) fn is_stuck(&self) -> bool {
        self.paused == Some(Pause::Blocked) && !self.outbox.is_empty()
    }

    /// Whether it is up, runs, and has not said farewell.
    pub fn is_member(&self) -> bool {
        self.paused.is_none() && self.machine.as_ref().is_some_and(|machine| !machine.has_left())
    }

    /// Whether it has said farewell and waits for an answer that may bring it back.
    pub fn is_returning(&self) -> bool {
        let Some(machine) = &self.machine else { return false };
        let waits = !self.questions.is_empty() || machine.pending().deferred_joins > 0;
        machine.has_left() && waits
    }

    /// Ends it on the spot; what waited is lost.
    pub(crate) fn stop(&mut self) -> Option<Membership> {
        self.paused = None;
        self.inbox.clear();
        self.outbox.clear();
        self.questions.clear();
        self.wake_at = None;
        self.serve_at = None;
        self.machine.take()
    }
}
