//! The world: processes, network and clock, and the loop that moves them.
//!
//! Events are taken in the order of their time, equal times in the order in which they were
//! scheduled. All randomness comes from one seed. So the same seed and the same calls give the same
//! run, byte for byte; the [trace](crate::trace) proves it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memberlist_protocol::wire::Room;
use memberlist_protocol::wire::stream::RemoteState;
use memberlist_protocol::{
    Config, Event as Happened, ExchangeError, Membership, Node, NodeId, OperationId, Peer,
    Priority, Relation, StreamRequest, StreamRequestKind, StreamResponse,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::exchange::{self, Answer};
use crate::network::{Network, ProcessId};
use crate::parallel::Stop;
use crate::process::{Arrival, Departure, ExchangeId, Pause, Process, Question};
use crate::records::SharedRecords;
use crate::time::Time;
use crate::trace::Trace;

/// Sees everything that happens, as it happens.
pub trait Watch {
    /// A machine told something; its table already shows it.
    fn happened(&mut self, at: Time, process: &Process, happened: &Happened) {
        let _ = (at, process, happened);
    }

    /// A machine was given something to do, and has done it.
    fn stepped(&mut self, at: Time, process: &Process) {
        let _ = (at, process);
    }

    /// A packet was sent.
    fn sent(&mut self, at: Time, from: &Process, to: SocketAddr, bytes: &[u8]) {
        let _ = (at, from, to, bytes);
    }

    /// A process was started, stopped, paused or resumed.
    fn changed(&mut self, at: Time, process: &Process) {
        let _ = (at, process);
    }
}

/// Nobody watches.
impl Watch for () {}

/// What is to come.
#[derive(Debug)]
enum Event {
    Wake {
        process: ProcessId,
        life: u32,
    },
    Serve {
        process: ProcessId,
        life: u32,
    },
    /// The answer to a push/pull is out.
    Served {
        process: ProcessId,
        life: u32,
        peer: Peer,
        state: Box<RemoteState>,
        departure: Box<Departure>,
    },
    Arrive {
        process: ProcessId,
        life: Option<u32>,
        arrival: Arrival,
    },
}

struct Scheduled {
    at: Time,
    serial: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// A simulated cluster.
pub struct World<W: Watch = ()> {
    /// The links.
    pub network: Network,
    /// Who watches.
    pub watch: W,
    processes: Vec<Process>,
    events: BinaryHeap<Reverse<Scheduled>>,
    serial: u64,
    now: Time,
    /// What `Time::ZERO` is to the machines.
    epoch: Instant,
    rng: StdRng,
    records: SharedRecords,
    /// For packets, to be written into.
    packet: Vec<u8>,
    next_exchange: ExchangeId,
    trace: Trace,
    steps: u64,
    stream_bytes: u64,
    streams: u64,
    serving_time: Duration,
    stop: Stop,
    /// A planted bug: packets that get lost, whatever the links are like.
    #[cfg(test)]
    pub(crate) lose: Option<fn(&[u8]) -> bool>,
}

impl<W: Watch> World<W> {
    /// An empty world.
    pub fn new(seed: u64, network: Network, watch: W) -> Self {
        Self {
            network,
            watch,
            processes: Vec::new(),
            events: BinaryHeap::new(),
            serial: 0,
            now: Time::ZERO,
            epoch: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            records: SharedRecords::default(),
            packet: Vec::new(),
            next_exchange: 0,
            trace: Trace::default(),
            steps: 0,
            stream_bytes: 0,
            streams: 0,
            serving_time: Duration::ZERO,
            stop: Stop::default(),
            #[cfg(test)]
            lose: None,
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// All processes, up or not.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// One process.
    pub fn process(&self, id: ProcessId) -> &Process {
        &self.processes[id as usize]
    }

    #[cfg(test)]
    pub(crate) fn process_mut(&mut self, id: ProcessId) -> &mut Process {
        &mut self.processes[id as usize]
    }

    /// The machine of a process that is up.
    pub fn machine(&self, id: ProcessId) -> Option<&Membership> {
        self.processes[id as usize].machine()
    }

    /// The digest of everything that happened, and a log if it was asked for.
    pub fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// How many inputs the machines were given.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How many bytes were sent over streams.
    pub fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    /// How many streams were opened.
    pub fn streams(&self) -> u64 {
        self.streams
    }

    /// How long it takes to answer a push/pull; zero unless it is set. Until then it holds a place.
    pub fn set_serving_time(&mut self, time: Duration) {
        self.serving_time = time;
    }

    /// Lets time stand still as soon as that is asked.
    pub fn set_stop(&mut self, stop: Stop) {
        self.stop = stop;
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, what: &str) {
        self.trace.note(self.now, what);
    }

    /// Randomness for scripts; it belongs to the run like everything else.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    fn instant(&self) -> Instant {
        self.epoch + self.now.since_start()
    }

    // ---- what can be done to processes --------------------------------------------------------

    /// Adds a process and starts it; it is alone. Its packets are not compressed: the papers count
    /// bytes without that.
    pub fn add(&mut self, mut config: Config) -> ProcessId {
        config.compression = false;
        let id = self.processes.len() as ProcessId;
        let name = match NodeId::new(&format!("n{id}")) {
            Ok(name) => name,
            Err(_) => unreachable!("a name of a few digits is valid"),
        };
        let addr = address(id, 0);
        self.processes.push(Process::new(id, name, addr, config));
        self.start(id);
        id
    }

    /// Adds processes that all know each other: a cluster that agreed long ago. A stop that is asked
    /// meanwhile leaves it incomplete.
    pub fn add_cluster(&mut self, size: usize, config: &Config) {
        let first = self.processes.len();
        for _ in 0..size {
            if self.stop.is_asked() {
                return;
            }
            self.add(config.clone());
        }
        let now = self.instant();
        let nodes: Vec<Arc<Node>> = (self.processes[first..].iter())
            .filter_map(|process| process.machine().map(|machine| machine.own().node))
            .collect();
        for process in &mut self.processes[first..] {
            if self.stop.is_asked() {
                return;
            }
            if let Some(machine) = process.machine.as_mut() {
                machine.testing_adopt(&nodes, now);
                machine.testing_clear();
            }
        }
    }

    fn start(&mut self, id: ProcessId) {
        let (seed, now) = (self.rng.random(), self.instant());
        let process = &mut self.processes[id as usize];
        process.life += 1;
        process.well_since = self.now;
        let (config, name, addr) = (process.config.clone(), process.name.clone(), process.addr);
        let app = Box::new(self.records.clone());
        match Membership::new(config, name, addr, Bytes::new(), seed, now, app) {
            Ok(mut machine) => {
                machine.set_outer_layers(process.room.head + process.room.tail, false);
                process.machine = Some(machine);
            }
            Err(error) => unreachable!("scenarios have valid settings: {error}"),
        }
        self.trace.note(self.now, &format!("start  n{id} at {addr}"));
        self.watch.changed(self.now, &self.processes[id as usize]);
        self.drain(id);
    }

    /// Ends a process without a word.
    pub fn crash(&mut self, id: ProcessId) {
        if self.processes[id as usize].stop().is_none() {
            return;
        }
        self.trace.note(self.now, &format!("crash  n{id}"));
        self.watch.changed(self.now, &self.processes[id as usize]);
    }

    /// Gives a process other settings, with which it starts the next time.
    pub fn set_config(&mut self, id: ProcessId, config: Config) {
        self.processes[id as usize].config = config;
    }

    /// Starts a process again under its name, at its address or at a new one.
    pub fn restart(&mut self, id: ProcessId, new_address: bool) {
        self.crash(id);
        let process = &mut self.processes[id as usize];
        if new_address {
            process.addr = address(id, process.life);
        }
        self.start(id);
    }

    /// Makes a process stand still until it is [resumed](Self::resume).
    pub fn pause(&mut self, id: ProcessId, how: Pause) {
        let process = &mut self.processes[id as usize];
        if process.machine.is_none() || process.paused.is_some() {
            return;
        }
        process.paused = Some(how);
        self.trace.note(self.now, &format!("pause  n{id} {how:?}"));
        self.watch.changed(self.now, &self.processes[id as usize]);
    }

    /// How long a process takes over each arrival of a backlog, once it goes on. Zero: it has it all
    /// at once, before its timers run; else its timers run at once, beside the backlog.
    pub fn set_service_time(&mut self, id: ProcessId, time: Duration) {
        self.processes[id as usize].service_time = time;
    }

    /// Lets a process go on, with what has arrived meanwhile.
    pub fn resume(&mut self, id: ProcessId) {
        let process = &mut self.processes[id as usize];
        if process.paused.take().is_none() {
            return;
        }
        process.well_since = self.now;
        let departures = std::mem::take(&mut process.outbox);
        let arrivals = match process.service_time.is_zero() {
            true => std::mem::take(&mut process.inbox),
            false => VecDeque::new(),
        };
        self.trace.note(self.now, &format!("resume n{id}"));
        self.watch.changed(self.now, &self.processes[id as usize]);
        for departure in departures {
            self.depart(id, departure);
        }
        for arrival in arrivals {
            self.arrive(id, arrival);
        }
        self.wake(id);
        self.serve_next(id);
    }

    /// Schedules the next of a backlog.
    fn serve_next(&mut self, id: ProcessId) {
        let process = &mut self.processes[id as usize];
        if process.inbox.is_empty() || process.paused.is_some() {
            return;
        }
        let (at, life) = (self.now + process.service_time, process.life);
        process.serve_at = Some(at);
        self.schedule(at, Event::Serve { process: id, life });
    }

    fn serve(&mut self, id: ProcessId) {
        if let Some(arrival) = self.processes[id as usize].inbox.pop_front() {
            self.arrive(id, arrival);
        }
        self.serve_next(id);
    }

    /// Leaves less room in the packets of a process: `head` and `tail` bytes for outer layers, and a
    /// limit of the path.
    pub fn set_room(&mut self, id: ProcessId, room: Room) {
        self.processes[id as usize].room = room;
        self.with_machine(id, |machine| machine.set_outer_layers(room.head + room.tail, false));
    }

    /// Hands a packet to a process, from wherever.
    pub fn inject(&mut self, to: ProcessId, from: SocketAddr, bytes: Vec<u8>) {
        let addr = self.processes[to as usize].addr;
        let arrival = Arrival::Packet { from, to: addr, bytes };
        self.schedule(self.now, Event::Arrive { process: to, life: None, arrival });
    }

    /// Lets a process join the cluster of another.
    pub fn join(&mut self, id: ProcessId, seed: ProcessId) -> Option<OperationId> {
        let peer = Peer::from(self.processes[seed as usize].addr);
        let operation = self.with_machine(id, |machine| machine.join(peer));
        self.trace.note(self.now, &format!("join   n{id} through n{seed}"));
        operation
    }

    /// Lets a process say farewell.
    pub fn leave(&mut self, id: ProcessId) {
        let now = self.instant();
        self.with_machine(id, |machine| machine.leave(now));
        self.trace.note(self.now, &format!("leave  n{id}"));
    }

    /// Changes the meta of a process.
    pub fn update_meta(&mut self, id: ProcessId, meta: Bytes) {
        let now = self.instant();
        // Scripts stay within the limit.
        let updated = self.with_machine(id, |machine| machine.update_meta(meta, now));
        debug_assert!(updated.is_none_or(|result| result.is_ok()));
        self.trace.note(self.now, &format!("meta   n{id}"));
    }

    /// Lets a process broadcast bytes of its application.
    pub fn broadcast(&mut self, id: ProcessId, payload: &[u8]) {
        let now = self.instant();
        let queued = self.with_machine(id, |machine| {
            machine.broadcast(payload, Relation::Unique, Priority::Normal, now)
        });
        if let Some(Err(error)) = queued {
            self.trace.note(self.now, &format!("broadcast of n{id} refused: {error}"));
        }
    }

    /// Gives a machine something to do, and carries what comes of it.
    pub fn with_machine<R>(
        &mut self,
        id: ProcessId,
        act: impl FnOnce(&mut Membership) -> R,
    ) -> Option<R> {
        let result = act(self.processes[id as usize].machine.as_mut()?);
        self.drain(id);
        Some(result)
    }

    // ---- the loop -----------------------------------------------------------------------------

    /// Lets everything happen that is due until then.
    pub fn run_until(&mut self, end: Time) {
        while !self.stop.is_asked() {
            if !self.step(end) {
                self.now = self.now.max(end);
                break;
            }
        }
    }

    /// As [`run_until`](Self::run_until), for this long.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until `holds`, asked every `every`, but no longer than `limit`; says when it did.
    pub fn run_until_holds(
        &mut self,
        limit: Duration,
        every: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Option<Time> {
        let end = self.now + limit;
        loop {
            if holds(self) {
                return Some(self.now);
            }
            if self.now >= end || self.stop.is_asked() {
                return None;
            }
            self.run_until((self.now + every).min(end));
        }
    }

    /// Takes the next event, if it is due by then.
    fn step(&mut self, end: Time) -> bool {
        match self.events.peek() {
            Some(Reverse(next)) if next.at <= end => {}
            _ => return false,
        }
        let Some(Reverse(next)) = self.events.pop() else { return false };
        self.now = self.now.max(next.at);
        match next.event {
            Event::Wake { process, life } => {
                let target = &mut self.processes[process as usize];
                if target.life == life && target.wake_at == Some(next.at) {
                    target.wake_at = None;
                    if target.paused != Some(Pause::Frozen) {
                        self.wake(process);
                    }
                }
            }
            Event::Serve { process, life } => {
                let target = &mut self.processes[process as usize];
                let current = target.life == life && target.serve_at == Some(next.at);
                if current && target.paused.is_none() {
                    self.serve(process);
                }
            }
            Event::Served { process, life, peer, state, departure } => {
                let now = self.instant();
                let target = &mut self.processes[process as usize];
                if target.life == life {
                    if let Some(machine) = target.machine.as_mut() {
                        machine.finish_push_pull(peer, Some(*state), now);
                        self.depart(process, *departure);
                        self.drain(process);
                    }
                }
            }
            Event::Arrive { process, life, arrival } => {
                let target = &mut self.processes[process as usize];
                if target.machine.is_none() || life.is_some_and(|life| life != target.life) {
                    return true;
                }
                if matches!(&arrival, Arrival::Packet { to, .. } if *to != target.addr) {
                    return true;
                }
                if target.paused.is_some() || !target.inbox.is_empty() {
                    target.inbox.push_back(arrival);
                } else {
                    self.arrive(process, arrival);
                }
            }
        }
        true
    }

    fn wake(&mut self, id: ProcessId) {
        let now = self.instant();
        let stuck = self.processes[id as usize].is_stuck();
        if let Some(machine) = self.processes[id as usize].machine.as_mut() {
            match stuck {
                true => machine.testing_expire_suspicions(now),
                false => machine.handle_timeout(now),
            }
            self.drain(id);
        }
    }

    fn arrive(&mut self, id: ProcessId, arrival: Arrival) {
        let now = self.instant();
        let process = &mut self.processes[id as usize];
        let Some(machine) = process.machine.as_mut() else { return };
        match arrival {
            Arrival::Packet { from, bytes, .. } => {
                self.trace.packet(self.now, id, &bytes);
                // What cannot be read is counted by the machine.
                let _ = machine.handle_packet(&Peer::from(from), &bytes, now);
            }
            Arrival::Asked { exchange, from, bytes } => {
                let peer = Peer::from(self.processes[from as usize].addr);
                return self.answer(id, exchange, from, peer, &bytes);
            }
            Arrival::Answered { exchange, bytes } => {
                let Some(question) = process.questions.remove(&exchange) else { return };
                self.trace.packet(self.now, id, &bytes);
                let response = exchange::read_answer(machine.config(), &question, &bytes);
                machine.handle_stream_response(question.id, response, now);
            }
            Arrival::Unanswered { exchange, refused } => {
                let Some(Question { id: operation, peer, timeout, .. }) =
                    process.questions.remove(&exchange)
                else {
                    return;
                };
                let error = match refused {
                    true => {
                        let message = "connection refused".to_owned();
                        ExchangeError::Io { peer, message, refused }
                    }
                    false => ExchangeError::Timeout { peer, timeout },
                };
                machine.handle_stream_response(operation, StreamResponse::Failed(error), now);
            }
        }
        self.drain(id);
    }

    /// A peer asked over a stream: answers, then does what the question brings.
    fn answer(
        &mut self,
        id: ProcessId,
        exchange: ExchangeId,
        to: ProcessId,
        peer: Peer,
        bytes: &[u8],
    ) {
        let now = self.instant();
        self.trace.packet(self.now, id, bytes);
        let Some(machine) = self.processes[id as usize].machine.as_mut() else { return };
        if let Some(Answer { bytes, served }) = exchange::serve(machine, &peer, bytes, now) {
            let departure = Departure::Answer { exchange, to, bytes };
            match served {
                Some(state) if !self.serving_time.is_zero() => {
                    let (process, life) = (id, self.processes[id as usize].life);
                    let (state, departure) = (Box::new(state), Box::new(departure));
                    let served = Event::Served { process, life, peer, state, departure };
                    self.schedule(self.now + self.serving_time, served);
                }
                Some(state) => {
                    machine.finish_push_pull(peer, Some(state), now);
                    self.depart(id, departure);
                }
                None => self.depart(id, departure),
            }
        }
        self.drain(id);
    }

    /// Carries what a machine wants to send, tells what it tells, and schedules its next wake-up.
    fn drain(&mut self, id: ProcessId) {
        self.steps += 1;
        loop {
            let process = &mut self.processes[id as usize];
            let room = process.room;
            let Some(machine) = process.machine.as_mut() else { return };
            if let Some(transmit) = machine.poll_transmit(&mut self.packet, &mut |_| room) {
                // The layers' part of the packet stays empty and is not carried.
                let (to, bytes) = (transmit.to.addr, self.packet[room.head..].to_vec());
                self.watch.sent(self.now, process, to, &bytes);
                self.depart(id, Departure::Packet { to, bytes });
            } else if let Some(request) = machine.poll_stream_request() {
                self.depart(id, Departure::Ask { request });
            } else if let Some(happened) = machine.poll_event() {
                self.trace.happened(self.now, id, &happened);
                self.watch.happened(self.now, process, &happened);
            } else {
                break;
            }
        }
        self.watch.stepped(self.now, &self.processes[id as usize]);
        self.schedule_wake(id);
    }

    fn schedule_wake(&mut self, id: ProcessId) {
        let process = &self.processes[id as usize];
        let Some(machine) = process.machine.as_ref() else { return };
        let wanted = match process.is_stuck() {
            true => machine.testing_next_suspicion(),
            false => machine.poll_timeout(),
        };
        let Some(wanted) = wanted else { return };
        let at = Time::ZERO + wanted.saturating_duration_since(self.epoch);
        let at = at.max(self.now);
        if process.wake_at.is_none_or(|scheduled| at < scheduled) {
            let life = process.life;
            self.processes[id as usize].wake_at = Some(at);
            self.schedule(at, Event::Wake { process: id, life });
        }
    }

    fn schedule(&mut self, at: Time, event: Event) {
        let serial = self.serial;
        self.serial += 1;
        self.events.push(Reverse(Scheduled { at, serial, event }));
    }

    // ---- the way from one process to another --------------------------------------------------

    fn depart(&mut self, id: ProcessId, departure: Departure) {
        let process = &mut self.processes[id as usize];
        if process.paused.is_some() {
            return process.outbox.push_back(departure);
        }
        match departure {
            Departure::Packet { to, bytes } => self.carry_packet(id, to, bytes),
            Departure::Ask { request } => self.carry_question(id, request),
            Departure::Answer { exchange, to, bytes } => {
                self.stream_bytes += bytes.len() as u64;
                let life = self.processes[to as usize].life;
                if let Some(delay) = self.network.stream(id, to, self.now, &mut self.rng) {
                    let arrival = Arrival::Answered { exchange, bytes };
                    let event = Event::Arrive { process: to, life: Some(life), arrival };
                    self.schedule(self.now + delay, event);
                }
            }
        }
    }

    /// Whose address this is. A process that moved does not hear what goes to its old one.
    fn process_at(&self, addr: SocketAddr) -> Option<ProcessId> {
        let IpAddr::V4(ip) = addr.ip() else { return None };
        let [_, a, b, c] = ip.octets();
        let id = u32::from_be_bytes([0, a, b, c]).checked_sub(1)?;
        (self.processes.get(id as usize)?.addr == addr).then_some(id)
    }

    fn carry_packet(&mut self, from: ProcessId, to: SocketAddr, bytes: Vec<u8>) {
        #[cfg(test)]
        if self.lose.is_some_and(|lose| lose(&bytes)) {
            return;
        }
        let Some(target) = self.process_at(to) else { return };
        let fate = self.network.packet(from, target, self.now, &mut self.rng);
        let from = self.processes[from as usize].addr;
        if let Some(at) = fate.copy {
            let arrival = Arrival::Packet { from, to, bytes: bytes.clone() };
            self.schedule(at, Event::Arrive { process: target, life: None, arrival });
        }
        if let Some(at) = fate.arrives {
            let arrival = Arrival::Packet { from, to, bytes };
            self.schedule(at, Event::Arrive { process: target, life: None, arrival });
        }
    }

    /// Connects, sends the question, and makes sure that there is an end to waiting for the answer.
    fn carry_question(&mut self, id: ProcessId, request: StreamRequest) {
        let StreamRequest { id: operation, to, dialect, kind, timeout, .. } = request;
        if kind == StreamRequestKind::UserState {
            // Applications have no state here: as in a node, no stream is opened.
            let now = self.instant();
            if let Some(machine) = self.processes[id as usize].machine.as_mut() {
                machine.handle_stream_response(operation, StreamResponse::UserState, now);
            }
            return;
        }
        let exchange = self.next_exchange;
        self.next_exchange += 1;
        let ping = match kind {
            StreamRequestKind::Ping { sequence, .. } => Some(sequence),
            _ => None,
        };
        let process = &mut self.processes[id as usize];
        let Some(machine) = process.machine.as_ref() else { return };
        let bytes = exchange::write_question(machine, &to, dialect, &kind);
        let question = Question { id: operation, peer: to.clone(), timeout, ping };
        process.questions.insert(exchange, question);
        let life = Some(process.life);
        let unanswered = |refused| Event::Arrive {
            process: id,
            life,
            arrival: Arrival::Unanswered { exchange, refused },
        };
        self.schedule(self.now + timeout, unanswered(false));

        let Some(target) = self.process_at(to.addr) else { return };
        let Some(there) = self.stream_arrival(id, target, self.now) else { return };
        let Some(connected) = self.stream_arrival(target, id, there) else { return };
        if !self.processes[target as usize].is_up() {
            return self.schedule(connected, unanswered(true));
        }
        self.stream_bytes += bytes.len() as u64;
        self.streams += 1;
        let Some(asked) = self.stream_arrival(id, target, connected) else { return };
        let life = Some(self.processes[target as usize].life);
        let arrival = Arrival::Asked { exchange, from: id, bytes };
        self.schedule(asked, Event::Arrive { process: target, life, arrival });
    }

    /// When bytes of a stream that are sent then arrive, if they do.
    fn stream_arrival(&mut self, from: ProcessId, to: ProcessId, at: Time) -> Option<Time> {
        Some(at + self.network.stream(from, to, at, &mut self.rng)?)
    }

    /// When the last arrives of what is on its way now.
    pub fn last_arrival(&self) -> Time {
        let arrivals = self.events.iter().filter_map(|Reverse(scheduled)| match &scheduled.event {
            Event::Arrive { arrival: Arrival::Unanswered { .. }, .. } => None,
            Event::Arrive { .. } | Event::Served { .. } => Some(scheduled.at),
            _ => None,
        });
        arrivals.max().unwrap_or(self.now)
    }
}

/// The address of a process in its `life`th place: 10.x.y.z, the port counts the places.
fn address(id: ProcessId, place: u32) -> SocketAddr {
    let [_, a, b, c] = (id + 1).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, a, b, c), 7946 + (place % 50_000) as u16))
}
