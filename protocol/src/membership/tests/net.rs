//! A cluster of machines on a simulated network.

use std::collections::BTreeMap;

use super::*;
use crate::error::ExchangeError;
use crate::membership::{OperationId, StreamRequest, StreamRequestKind, StreamResponse};
use crate::wire::sync::SyncBody;

/// What a loss rule looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A packet that starts with such a message.
    Packet(MessageKind),
    /// A stream, in the direction in which it is opened.
    Stream,
}

/// Says for sender, receiver and kind whether it is lost.
type Lost = Box<dyn FnMut(usize, usize, Kind) -> bool>;

/// One machine and what its application saw.
pub(super) struct Host {
    pub(super) machine: Membership,
    pub(super) events: Vec<(Duration, Event)>,
    pub(super) room: Room,
    up: bool,
    /// Neither runs nor loses anything: what arrives waits.
    paused: bool,
    held: Vec<Flight>,
}

/// Something under way.
enum Flight {
    Packet { from: usize, to: usize, bytes: Vec<u8> },
    Request { from: usize, to: usize, request: StreamRequest, state: RemoteState },
    Response { to: usize, id: OperationId, response: StreamResponse },
}

impl Flight {
    fn to(&self) -> usize {
        match self {
            Self::Packet { to, .. } | Self::Request { to, .. } | Self::Response { to, .. } => *to,
        }
    }
}

pub(super) struct Net {
    pub(super) hosts: Vec<Host>,
    pub(super) now: Instant,
    pub(super) began: Instant,
    /// The time one way.
    pub(super) delay: Duration,
    /// Every packet that was sent, with its sender.
    pub(super) log: Vec<(usize, Sent)>,
    config: Config,
    seed: u64,
    lost: Lost,
    flights: BTreeMap<(Instant, u64), Flight>,
    next_flight: u64,
}

impl Net {
    /// Machines that do not know of each other.
    pub(super) fn strangers(n: usize, config: Config, seed: u64) -> Self {
        let now = Instant::now();
        let mut net = Self {
            hosts: Vec::new(),
            now,
            began: now,
            delay: ms(5),
            log: Vec::new(),
            config,
            seed,
            lost: Box::new(|_, _, _| false),
            flights: BTreeMap::new(),
            next_flight: 0,
        };
        for i in 0..n {
            let machine = net.make(i);
            net.hosts.push(Host {
                machine,
                events: Vec::new(),
                room: ROOM,
                up: true,
                paused: false,
                held: Vec::new(),
            });
            net.drain(i);
        }
        net
    }

    /// Machines that all know each other and have nothing to say.
    pub(super) fn cluster(n: usize, config: Config, seed: u64) -> Self {
        let mut net = Self::strangers(n, config, seed);
        for i in 0..n {
            for j in (0..n).filter(|j| *j != i) {
                let machine = &mut net.hosts[i].machine;
                machine.testing_alive(&alive(&name(j), j, 1), net.now);
            }
            net.hosts[i].machine.testing_clear();
            net.hosts[i].events.clear();
        }
        net
    }

    fn make(&mut self, i: usize) -> Membership {
        self.seed += 1;
        let (config, seed, app) = (self.config.clone(), self.seed, Box::new(()));
        Membership::new(config, id(i), addr(i), Bytes::new(), seed, self.now, app).unwrap()
    }

    pub(super) fn lose(&mut self, lost: impl FnMut(usize, usize, Kind) -> bool + 'static) {
        self.lost = Box::new(lost);
    }

    pub(super) fn lose_nothing(&mut self) {
        self.lose(|_, _, _| false);
    }

    /// The process is gone, without a word.
    pub(super) fn crash(&mut self, i: usize) {
        self.hosts[i].up = false;
    }

    /// A new process under the same name and address.
    pub(super) fn restart(&mut self, i: usize) {
        self.hosts[i].machine = self.make(i);
        self.hosts[i].up = true;
        self.drain(i);
    }

    /// The process stands still; what arrives waits for it.
    pub(super) fn pause(&mut self, i: usize) {
        self.hosts[i].paused = true;
    }

    pub(super) fn resume(&mut self, i: usize) {
        self.hosts[i].paused = false;
        for flight in std::mem::take(&mut self.hosts[i].held) {
            self.fly(Duration::ZERO, flight);
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// Runs a command on a machine, and carries away what it gives out.
    pub(super) fn call<R>(
        &mut self,
        i: usize,
        command: impl FnOnce(&mut Membership, Instant) -> R,
    ) -> R {
        let result = command(&mut self.hosts[i].machine, self.now);
        self.drain(i);
        result
    }

    pub(super) fn state(&self, at: usize, of: usize) -> Option<NodeState> {
        self.hosts[at].machine.member(&name(of)).map(|member| member.state)
    }

    /// Whether every machine that runs believes exactly these to be alive.
    pub(super) fn agree_on(&self, alive: &[usize]) -> bool {
        let knows = |host: &Host, i: usize| {
            let member = host.machine.member(&name(i));
            member.is_some_and(|member| member.state == NodeState::Alive)
        };
        self.hosts.iter().filter(|host| host.up).all(|host| {
            host.machine.live_members() == alive.len() && alive.iter().all(|i| knows(host, *i))
        })
    }

    /// The names of the events at a machine since the last call.
    pub(super) fn event_names(&mut self, i: usize) -> Vec<String> {
        let events = std::mem::take(&mut self.hosts[i].events);
        events.iter().map(|(_, event)| event_name(event)).collect()
    }

    /// Lets time pass until the condition holds; gives how long that took.
    pub(super) fn until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let (began, end) = (self.now, self.now + limit);
        while !holds(self) {
            if !self.step(end) {
                return None;
            }
        }
        Some(self.now - began)
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Does the next thing that is due before `end`; false if there is none.
    fn step(&mut self, end: Instant) -> bool {
        let flight = self.flights.keys().next().map(|key| key.0);
        let running = self.hosts.iter().enumerate().filter(|(_, host)| host.up && !host.paused);
        let timer = running
            .filter_map(|(i, host)| Some((host.machine.poll_timeout()?.max(self.now), i)))
            .min();
        let next = [flight, timer.map(|timer| timer.0)].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= end) else {
            self.now = end;
            return false;
        };
        self.now = next;
        // Packets that have arrived go first, as the machine asks for.
        if flight == Some(next) {
            if let Some((_, flight)) = self.flights.pop_first() {
                self.land(flight);
            }
        } else if let Some((_, i)) = timer {
            self.hosts[i].machine.handle_timeout(self.now);
            self.drain(i);
        }
        true
    }

    fn fly(&mut self, time: Duration, flight: Flight) {
        self.next_flight += 1;
        self.flights.insert((self.now + time, self.next_flight), flight);
    }

    fn land(&mut self, flight: Flight) {
        let to = flight.to();
        if self.hosts[to].paused {
            return self.hosts[to].held.push(flight);
        }
        let (now, up) = (self.now, self.hosts[to].up);
        let machine = &mut self.hosts[to].machine;
        match flight {
            Flight::Packet { from, bytes, .. } if up => {
                machine.handle_packet(&peer(from), &bytes, now).unwrap();
            }
            Flight::Packet { .. } => return,
            Flight::Response { id, response, .. } if up => {
                machine.handle_stream_response(id, response, now);
            }
            Flight::Response { .. } => return,
            Flight::Request { from, request, state, .. } => {
                let response = if up {
                    serve(machine, from, &request, state, now)
                } else {
                    let (peer, message) = (request.to.clone(), "connection refused".to_owned());
                    StreamResponse::Failed(ExchangeError::Io { peer, message, refused: true })
                };
                let id = request.id;
                self.fly(self.delay, Flight::Response { to: from, id, response });
            }
        }
        self.drain(to);
    }

    /// Carries away what a machine gives out.
    fn drain(&mut self, i: usize) {
        let at = self.elapsed();
        let room = self.hosts[i].room;
        for sent in take_packets(&mut self.hosts[i].machine, at, room) {
            let kind = Kind::Packet(sent.kinds()[0]);
            let to = self.host_at(sent.to.addr);
            self.log.push((i, sent.clone()));
            if let Some(to) = to.filter(|to| !(self.lost)(i, *to, kind)) {
                let bytes = sent.bytes;
                self.fly(self.delay, Flight::Packet { from: i, to, bytes });
            }
        }
        while let Some(request) = self.hosts[i].machine.poll_stream_request() {
            let id = request.id;
            let to = self.host_at(request.to.addr);
            if let Some(to) = to.filter(|to| !(self.lost)(i, *to, Kind::Stream)) {
                let machine = &self.hosts[i].machine;
                let join = request.kind == StreamRequestKind::PushPull { join: true };
                let state = to_remote(machine.id().clone(), join, &machine.local_state());
                self.fly(self.delay, Flight::Request { from: i, to, request, state });
            } else {
                let (peer, timeout) = (request.to, request.timeout);
                let error = ExchangeError::Timeout { peer, timeout };
                let response = StreamResponse::Failed(error);
                self.fly(timeout, Flight::Response { to: i, id, response });
            }
        }
        let host = &mut self.hosts[i];
        while let Some(event) = host.machine.poll_event() {
            host.events.push((at, event));
        }
        check_invariants(&host.machine);
    }

    fn host_at(&self, at: SocketAddr) -> Option<usize> {
        (0..self.hosts.len()).find(|i| addr(*i) == at)
    }
}

/// What the accepting side of a stream does.
fn serve(
    machine: &mut Membership,
    from_index: usize,
    request: &StreamRequest,
    state: RemoteState,
    now: Instant,
) -> StreamResponse {
    let from = peer(from_index);
    match &request.kind {
        StreamRequestKind::Sync { body } => {
            let limits = machine.config.sync_limits();
            let read = |body: &[u8]| SyncBody::read(body, &limits);
            match machine.serve_sync(&from, read(body), now) {
                Ok(answer) => StreamResponse::Sync(read(&answer)),
                Err(error) => StreamResponse::Failed(error),
            }
        }
        &StreamRequestKind::PushPull { join } => match machine.serve_push_pull(&from, &state) {
            Ok(snapshot) => {
                let own = to_remote(machine.id().clone(), join, &snapshot);
                machine.finish_push_pull(from, Some(state), now);
                StreamResponse::PushPull(own)
            }
            Err(ExchangeError::Busy { .. }) => {
                StreamResponse::Busy(machine.tell_busy(state.from.as_ref(), join, now))
            }
            Err(error) => StreamResponse::Failed(error),
        },
        StreamRequestKind::UserState => StreamResponse::UserState,
        &StreamRequestKind::Ping { sequence, .. } => {
            let source = NodeId::new(&name(from_index)).ok();
            match machine.handle_stream_ping(&from, request.to.name.as_ref(), source.as_ref()) {
                true => StreamResponse::Ack { sequence },
                false => {
                    let (peer, message) = (request.to.clone(), "closed".to_owned());
                    StreamResponse::Failed(ExchangeError::Io { peer, message, refused: false })
                }
            }
        }
    }
}
