//! The node's task: the one owner of the machine.
//!
//! It waits for a packet, a command or the machine's next timeout, feeds the machine, and drains its
//! outputs. It never waits for the application or for a stream: those have tasks of their own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use memberlist_protocol::{
    BroadcastError, DropReason, Event as Happened, ExchangeError, Membership, OperationId, Peer,
    Shown, StreamRequest, StreamRequestKind, StreamResponse,
};
use memberlist_transport::{Destination, RecvError, SendError, Transport};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop::unconstrained;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{Instrument, debug, debug_span};

use crate::command::{Cancelled, Command};
use crate::delegate::UserMessage;
use crate::events::{Event, Notice};
use crate::layers::{Layers, Wrapping};
use crate::limit::Backoff;
use crate::lines::Lines;
use crate::messages::Delivery;
use crate::meter::Sample;
use crate::shared::{Shared, peer_of};
use crate::streams::{StreamContext, push_pull, stream_ping, sync, to_its_end};
use crate::turns::{Asking, Turns};
use crate::user_state;

/// The largest packet that any transport can receive.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Packets taken before commands and timers get their turn.
const PACKETS_PER_TURN: usize = 64;
/// Commands taken before packets get their turn.
const COMMANDS_PER_TURN: usize = 64;
/// Turns of packets that are taken before timers that are due.
const CATCH_UP_TURNS: usize = 64;
/// How long the packets of one turn, all together, wait for room in the network's buffers.
const SEND_PATIENCE: Duration = Duration::from_millis(20);
/// When timers are this late, the runtime may not know yet which sockets have something.
const STOOD_STILL: Duration = Duration::from_millis(10);
/// And when they are this late, it may explain why somebody seemed not to answer.
const STALLED: Duration = Duration::from_millis(100);

/// Peers that are given a key at the same time.
#[cfg(feature = "encryption")]
const MAX_HAND_OVERS: usize = 8;

thread_local! {
    /// One receive buffer a worker thread, however many nodes it runs.
    static RECEIVE_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; RECEIVE_BUFFER_BYTES]);
    /// And one for the packet that is being sent.
    static SEND_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Callers that wait for the end of an operation.
#[derive(Default)]
struct Waiting {
    joins: HashMap<OperationId, oneshot::Sender<Result<usize, ExchangeError>>>,
    /// Dropped when the join ends, however.
    joining: HashMap<OperationId, watch::Sender<()>>,
    pings: HashMap<OperationId, oneshot::Sender<Option<Duration>>>,
    /// Several callers may wait for one farewell.
    broadcasts: HashMap<OperationId, Vec<oneshot::Sender<()>>>,
}

pub(crate) struct Driver<T: Transport> {
    machine: Membership,
    transport: Arc<T>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Box<Command>>,
    /// For the stream tasks; weak, so that the node ends when its last handle is dropped.
    sender: mpsc::WeakSender<Box<Command>>,
    messages: mpsc::Sender<Box<Delivery>>,
    context: StreamContext,
    accepting: JoinHandle<()>,
    streams: JoinSet<()>,
    waiting: Waiting,
    /// Push/pulls of peers that wait for a place.
    turns: Turns,
    /// What the machine was told of the layers.
    wrapping: Option<Wrapping>,
    /// After an error nothing is received until then.
    deaf_until: Option<tokio::time::Instant>,
    receive_backoff: Backoff,
    lines: Lines,
    metered_at: Option<Instant>,
    /// Keys that are being given to peers.
    #[cfg(feature = "encryption")]
    hand_overs: Arc<tokio::sync::Semaphore>,
}

/// Whether the node goes on.
enum Flow {
    Continue,
    Shutdown(Option<oneshot::Sender<()>>),
}

impl<T: Transport> Driver<T> {
    #[allow(clippy::too_many_arguments, reason = "called once, by the builder")]
    pub(crate) fn new(
        machine: Membership,
        transport: Arc<T>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Box<Command>>,
        sender: mpsc::WeakSender<Box<Command>>,
        messages: mpsc::Sender<Box<Delivery>>,
        context: StreamContext,
        accepting: JoinHandle<()>,
    ) -> Self {
        Self {
            machine,
            transport,
            shared,
            commands,
            sender,
            messages,
            context,
            accepting,
            streams: JoinSet::new(),
            waiting: Waiting::default(),
            turns: Turns::default(),
            wrapping: None,
            deaf_until: None,
            receive_backoff: Backoff::default(),
            lines: Lines::default(),
            metered_at: None,
            #[cfg(feature = "encryption")]
            hand_overs: Arc::new(tokio::sync::Semaphore::new(MAX_HAND_OVERS)),
        }
    }

    /// Boxed, since a task has room for its future twice over: as it begins, and as it goes on.
    pub(crate) async fn run(mut self: Box<Self>) {
        let reply = loop {
            self.drain().await;
            match self.turn().await {
                Flow::Continue => self.publish_metrics(false),
                Flow::Shutdown(reply) => break reply,
            }
        };
        self.publish_metrics(true);
        self.accepting.abort();
        self.streams.abort_all();
        // Who waits hears of the end before its stream breaks with the transport.
        self.commands.close();
        self.transport.close().await;
        // Everything the node holds is gone before the caller goes on.
        drop(self);
        // The caller may have given up waiting.
        let _ = reply.map(|reply| reply.send(()));
    }

    /// Waits for something to do, and does it.
    async fn turn(&mut self) -> Flow {
        let wake = self.machine.poll_timeout().map(tokio::time::Instant::from_std);
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let deaf_until = self.deaf_until;
        let (machine, lines) = (&mut self.machine, &mut self.lines);
        let (transport, layers) = (&*self.transport, &*self.context.layers);
        let receiving = async {
            if let Some(at) = deaf_until {
                tokio::time::sleep_until(at).await;
            }
            poll_fn(|cx| receive(cx, transport, layers, machine, lines)).await
        };
        let flow = tokio::select! {
            received = receiving => self.received(received),
            command = self.commands.recv() => self.take_commands(command),
            () = sleep => Flow::Continue,
            Some(_) = self.streams.join_next() => Flow::Continue,
        };
        let late = wake.and_then(|at| tokio::time::Instant::now().checked_duration_since(at));
        if let Some(late) = late.filter(|late| *late >= STALLED) {
            self.note_stall(late);
        }
        match late {
            Some(late) if self.deaf_until.is_none() => self.catch_up(late).await,
            _ => {}
        }
        self.machine.handle_timeout(now());
        self.turns.serve(&mut self.machine, now());
        flow
    }

    /// Brings the metrics up to date, at the end or if it is time for it.
    fn publish_metrics(&mut self, at_the_end: bool) {
        let now = now();
        if !self.context.meter.is_due(self.metered_at, now) && !at_the_end {
            return;
        }
        self.metered_at = Some(now);
        let (shared, dropped) = (&self.shared, &self.shared.hub.dropped);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let messages = self.messages.max_capacity() - self.messages.capacity();
        let sample = Sample {
            stats: self.machine.stats(),
            gauges: self.machine.gauges(now),
            own_drops: [
                count(&shared.messages_dropped),
                count(&dropped.user_states),
                count(&dropped.pings),
                count(&shared.packets_dropped),
                count(&shared.streams_refused),
            ],
            commands: self.commands.len(),
            messages,
            events: shared.hub.waiting_events(),
            keys: self.context.layers.sealing.key_counts(),
        };
        self.context.meter.publish(&sample);
        if at_the_end {
            // A gauge keeps its value for ever, and nothing is there any more.
            let (gauges, keys) = (Default::default(), Vec::new());
            let nothing = Sample { gauges, keys, commands: 0, messages: 0, events: 0, ..sample };
            self.context.meter.publish(&nothing);
        }
    }

    fn note_stall(&mut self, late: Duration) {
        self.context.meter.stalled(late);
        self.machine.handle_stall(late, now());
        self.lines.stalled(late, self.machine.config().probe_timeout);
    }

    /// A socket that fails is left alone for a while; the rest of the node goes on meanwhile.
    fn received(&mut self, received: Result<(), RecvError>) -> Flow {
        match received {
            Ok(()) => {
                self.deaf_until = None;
                self.receive_backoff.reset();
            }
            Err(RecvError::Closed) => return Flow::Shutdown(None),
            Err(error) => {
                self.lines.unreceivable(&error);
                let pause = self.receive_backoff.pause();
                self.deaf_until = Some(tokio::time::Instant::now() + pause);
            }
        }
        Flow::Continue
    }

    /// Takes the packets that have already arrived. A process that stood still must hear what it was
    /// told meanwhile, before its timers conclude that nobody answered. `unconstrained`, since tokio
    /// would pretend after 128 packets that there are no more.
    async fn catch_up(&mut self, late: Duration) {
        if late >= STOOD_STILL {
            // The runtime looks at its sockets before it comes back to a task that yields.
            tokio::task::yield_now().await;
        }
        for _ in 0..CATCH_UP_TURNS {
            let (machine, lines) = (&mut self.machine, &mut self.lines);
            let (transport, layers) = (&*self.transport, &*self.context.layers);
            let received =
                poll_fn(|cx| Poll::Ready(receive(cx, transport, layers, machine, lines)));
            if !matches!(unconstrained(received).await, Poll::Ready(Ok(()))) {
                return;
            }
        }
    }

    fn take_commands(&mut self, first: Option<Box<Command>>) -> Flow {
        let Some(first) = first else { return Flow::Shutdown(None) };
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(command) = next {
            if let Flow::Shutdown(reply) = self.take_command(*command) {
                return Flow::Shutdown(reply);
            }
            taken += 1;
            // What is taken from the queue is carried out: nobody else would.
            next = if taken < COMMANDS_PER_TURN { self.commands.try_recv().ok() } else { None };
        }
        Flow::Continue
    }

    /// Answers go to callers that may have given up waiting: then they are dropped.
    fn take_command(&mut self, command: Command) -> Flow {
        let now = now();
        match command {
            // Nobody who has said farewell meanwhile comes back by itself.
            Command::Join { by_itself: true, reply, .. } if self.machine.has_left() => {
                let _ = reply.send(Err(ExchangeError::Cancelled));
            }
            Command::Join { peer, cancelled, reply, .. } => {
                let id = self.machine.join(peer);
                self.waiting.joins.insert(id, reply);
                self.watch_join(id, cancelled);
            }
            Command::Leave { reply } => {
                let id = self.machine.leave(now);
                self.waiting.broadcasts.entry(id).or_default().push(reply);
            }
            Command::UpdateMeta { meta, reply } => {
                let updated = self.machine.update_meta(meta, now).map(|id| {
                    let (sent, sent_later) = oneshot::channel();
                    self.waiting.broadcasts.entry(id).or_default().push(sent);
                    sent_later
                });
                let _ = reply.send(updated);
            }
            Command::Ping { peer, reply } => {
                let id = self.machine.ping(peer, now);
                self.waiting.pings.insert(id, reply);
            }
            Command::Broadcast { payload, relation, priority, reply } => {
                let _ = reply.send(self.machine.broadcast(&payload, relation, priority, now));
            }
            Command::Send { to, payload, reply } => drop(reply.send(self.send(to, payload))),
            Command::Dialect { peer, reply } => drop(reply.send(self.machine.dialect_for(&peer))),
            Command::Tombstone { name, reply } => {
                let found = self.machine.tombstones().find(|t| t.node.id.as_str() == &*name);
                let _ = reply.send(found.cloned());
            }
            #[cfg(feature = "encryption")]
            Command::Lost { reply } => {
                let _ = reply.send(self.machine.tombstones().map(|t| t.node.id.clone()).collect());
            }
            Command::BroadcastsAvailable => self.machine.user_broadcasts_available(now),
            Command::Stats { reply } => drop(reply.send(*self.machine.stats())),
            Command::Explain { name, reply } => drop(reply.send(self.machine.explain(&name, now))),
            Command::Health { reply } => drop(reply.send(self.machine.health(now))),
            Command::Settings { reply } => drop(reply.send(self.machine.config().clone())),
            Command::Reconfigure { settings, reply } => {
                let _ = reply.send(self.machine.reconfigure(*settings, now));
            }
            Command::RoundTrips { reply } => {
                drop(reply.send(self.machine.round_trips().collect()));
            }
            Command::Shutdown { reply } => return Flow::Shutdown(Some(reply)),
            #[cfg(feature = "encryption")]
            Command::HandOver(newcomer) => self.hand_over(newcomer),
            Command::CountDrop { reason } => self.machine.count_drop(reason),
            Command::GiveUpJoin { id } => {
                self.machine.cancel_join(id);
                // Ends its stream.
                self.waiting.joining.remove(&id);
            }
            Command::StreamDone { id, response } => {
                if let StreamResponse::Failed(ExchangeError::Layer { reason, .. }) = &response {
                    self.machine.count_drop(*reason);
                }
                self.machine.handle_stream_response(id, response, now);
            }
            Command::StreamPing { peer, node, source, reply } => {
                let (node, source) = (node.as_ref(), source.as_ref());
                let _ = reply.send(self.machine.handle_stream_ping(&peer, node, source));
            }
            Command::ServePushPull { peer, state, reply } => {
                self.turns.push(Asking { peer, state, reply }, &mut self.machine, now);
            }
            Command::TellBusy { asker, join, reply } => {
                drop(reply.send(self.machine.tell_busy(asker.as_ref(), join, now)));
            }
            Command::ServeSync { peer, body, reply } => {
                let _ = reply.send(self.machine.serve_sync(&peer, body, now));
            }
            Command::FinishPushPull { peer, state } => {
                self.machine.finish_push_pull(peer, state, now);
            }
        }
        Flow::Continue
    }

    /// Ends a join when its caller has given it up, at any time: it may wait without a stream.
    fn watch_join(&mut self, id: OperationId, cancelled: Cancelled) {
        let sender = self.sender.clone();
        let (going_on, ended) = watch::channel(());
        self.waiting.joining.insert(id, going_on);
        self.streams.spawn(async move {
            tokio::select! {
                // Nothing is ever sent: this is the drop of the other end.
                _ = cancelled => {}
                () = ends(ended) => return,
            }
            if let Some(sender) = sender.upgrade() {
                // If the node is down, its joins have ended.
                let _ = sender.send(Command::GiveUpJoin { id }.into()).await;
            }
        });
    }

    /// The machine knows one limit for all; some peer's may have become smaller.
    fn send(&mut self, to: Peer, payload: Bytes) -> Result<(), BroadcastError> {
        let room = self.transport.max_packet_bytes(&destination(&to));
        let missing = self.machine.config().max_packet_bytes.saturating_sub(room);
        let limit = self.machine.max_user_message_bytes().saturating_sub(missing);
        match payload.len() {
            len if len > limit => Err(BroadcastError::TooLarge { len, limit }),
            _ => self.machine.send(to, payload),
        }
    }

    // ---- outputs ------------------------------------------------------------------------------

    async fn drain(&mut self) {
        let wrapping = self.fit_layers();
        self.send_packets(wrapping).await;
        while let Some(request) = self.machine.poll_stream_request() {
            self.open_stream(request);
        }
        self.tell_all();
    }

    /// Tells the machine when encryption was switched on or off. Gives how packets are to be wrapped:
    /// the machine leaves the checksum to a seal, so both must go by the same answer. The builder calls
    /// it as well.
    pub(crate) fn fit_layers(&mut self) -> Wrapping {
        let wrapping = self.context.layers.wrapping();
        if self.wrapping != Some(wrapping) {
            self.wrapping = Some(wrapping);
            self.machine.set_outer_layers(wrapping.head + wrapping.tail, wrapping.sealed);
        }
        wrapping
    }

    /// Publishes what has happened. The builder calls it as well, so that the handle shows this
    /// node from the first moment on.
    pub(crate) fn tell_all(&mut self) {
        while let Some(happened) = self.machine.poll_event() {
            self.tell(happened);
        }
    }

    /// Sends all that is to be sent. A network that has no room is waited for once, for a moment;
    /// after that, what it does not take at once is dropped: gossip repeats itself, and a node that
    /// waits answers nobody.
    async fn send_packets(&mut self, wrapping: Wrapping) {
        let mut packet = SEND_BUFFER.take();
        let mut patience = SEND_PATIENCE;
        let asks_rtt = self.machine.config().probe_timeout_round_trips > 0;
        loop {
            let transport = &*self.transport;
            let mut room = |to: &Peer| wrapping.room(transport.max_packet_bytes(&destination(to)));
            let Some(transmit) = self.machine.poll_transmit(&mut packet, &mut room) else { break };
            if let Err(error) = self.context.layers.wrap(&mut packet, wrapping) {
                self.shared.packets_dropped.fetch_add(1, Ordering::Relaxed);
                self.context.layers.warn(transmit.to.addr, "packet to it", &error);
                continue;
            }
            let to = destination(&transmit.to);
            if let Some(rtt) = asks_rtt.then(|| self.transport.rtt(&to)).flatten() {
                self.machine.handle_rtt(&transmit.to, rtt);
            }
            let sending = self.transport.send_packet(&to, &packet);
            match send_within(&mut patience, sending).await {
                None => drop(self.shared.packets_dropped.fetch_add(1, Ordering::Relaxed)),
                Some(Ok(()) | Err(SendError::Closed)) => {}
                Some(Err(error)) => {
                    self.machine.handle_send_error(&transmit.to, now());
                    self.lines.unsendable(&transmit.to, &error);
                }
            }
        }
        SEND_BUFFER.set(packet);
    }

    #[cfg(feature = "encryption")]
    fn hand_over(&mut self, newcomer: crate::keys::Newcomer) {
        // The peer asks for more by itself: with its next exchange of states.
        let Ok(permit) = Arc::clone(&self.hand_overs).try_acquire_owned() else { return };
        let (transport, context) = (Arc::clone(&self.transport), self.context.clone());
        let task = async move {
            let _permit = permit;
            crate::keys::hand_over(&*transport, &context, newcomer).await;
        };
        self.streams.spawn(task.in_current_span());
    }

    fn open_stream(&mut self, request: StreamRequest) {
        // Weak: a peer that does not answer keeps no node whose last handle is gone.
        let sender = self.sender.clone();
        let cancelled = self.waiting.joining.get(&request.id).map(watch::Sender::subscribe);
        let transport = Arc::clone(&self.transport);
        let context = self.context.clone();
        let (id, peer, dialect) = (request.id, request.to.clone(), request.dialect);
        let records = match request.kind {
            StreamRequestKind::PushPull { .. } => self.machine.local_state(),
            _ => Vec::new(),
        };
        let span = debug_span!("exchange", kind = kind_of(&request.kind), %peer);
        let task = async move {
            let exchange = async {
                match request.kind {
                    StreamRequestKind::PushPull { join } => {
                        push_pull(&*transport, &context, &peer, dialect, join, records).await
                    }
                    StreamRequestKind::Ping { sequence, timeout } => {
                        let source = transport.advertise_addr();
                        let to = (&peer, dialect);
                        stream_ping(&*transport, &context, to, sequence, source, timeout).await
                    }
                    StreamRequestKind::Sync { body } => {
                        sync(&*transport, &context, &peer, dialect, body).await
                    }
                    StreamRequestKind::UserState => {
                        user_state::exchange(&*transport, &context, &peer).await
                    }
                    _ => Err(ExchangeError::Cancelled),
                }
            };
            let exchange = to_its_end(exchange, |fault| fault.into_exchange_error(peer.clone()));
            let result = tokio::select! {
                result = exchange => result,
                () = given_up(cancelled) => Err(ExchangeError::Cancelled),
            };
            let response = result.unwrap_or_else(StreamResponse::Failed);
            if let Some(sender) = sender.upgrade() {
                // If the node is down, nobody waits for it.
                let _ = sender.send(Command::StreamDone { id, response }.into()).await;
            }
        };
        // A span that is filtered out has no parents either.
        self.streams.spawn(task.instrument(span).in_current_span());
    }

    fn tell(&mut self, happened: Happened) {
        match happened {
            Happened::UserMessage { from, origin, payload } => {
                let message = UserMessage { payload, from, origin, reliable: false };
                let delivery = Delivery { message, _budget: Default::default() }.into();
                if self.messages.try_send(delivery).is_err() {
                    self.shared.messages_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Happened::Converged { after } => self.context.meter.converged(after),
            Happened::PingCompleted { node, rtt, payload } => {
                self.context.meter.round_trip(rtt);
                self.shared.hub.publish(Notice::PingCompleted { node, rtt, payload });
            }
            Happened::UserState { from, state, join } => {
                let Some(merged) = self.context.user_states.merge_pushed(from, state, join) else {
                    return;
                };
                // A digest of 20 MiB takes longer than this task may.
                let user_states = Arc::clone(&self.context.user_states);
                self.streams.spawn(async move { user_states.remember(merged) });
            }
            Happened::PingDone { id, rtt } => {
                self.waiting.pings.remove(&id).map(|reply| reply.send(rtt));
            }
            Happened::JoinDone { id, peer, result } => {
                debug!(peer = %Shown(&peer), ?result, "join ended");
                self.waiting.joining.remove(&id);
                self.waiting.joins.remove(&id).map(|reply| reply.send(result));
            }
            Happened::BroadcastDone(id) => {
                for reply in self.waiting.broadcasts.remove(&id).unwrap_or_default() {
                    let _ = reply.send(());
                }
            }
            Happened::ExchangeFailed(error) => {
                debug!(error = %Shown(error), "exchange of states failed");
            }
            Happened::Disagreement { member, since } => {
                self.lines.disagreement(&self.shared.id, &member, since, now());
            }
            Happened::PacketsLost { node, stray_ack } => {
                self.lines.packets_lost(&node, stray_ack);
            }
            other => self.publish(other),
        }
    }

    fn publish(&mut self, happened: Happened) {
        let event = match happened {
            Happened::Joined(member) => {
                self.lines.joined(&member);
                Event::Joined(member)
            }
            Happened::Gone(member) => {
                self.lines.gone(&member);
                Event::Left(member)
            }
            Happened::Updated(member) => Event::Updated(member),
            Happened::Suspected(member) => {
                debug!(node = %Shown(member.id()), addr = %member.addr(), "suspected");
                Event::Suspected(member)
            }
            Happened::Cleared(member) => Event::Cleared(member),
            Happened::Reaped(id) => Event::Forgotten(id),
            Happened::Conflict { existing, other } => {
                self.lines.conflict(&existing, &other);
                Event::Conflict { existing, other }
            }
            Happened::HealthChanged(score) => {
                self.shared.health.store(score, Ordering::Relaxed);
                Event::HealthChanged(score)
            }
            Happened::Renewed(member) => {
                return self.shared.hub.renew(member.id().as_str(), member.incarnation);
            }
            Happened::Refuted { accusation, by, incarnation } => {
                debug!(%accusation, ?by, incarnation, "contradicted news about this node");
                self.shared.hub.renew(self.shared.id.as_str(), incarnation);
                Event::Refuted { accusation, by, incarnation }
            }
            _ => return,
        };
        self.shared.hub.publish(Notice::Event(event));
    }
}

/// However the task ends, by shutdown or by a panic of the application's delegate in the middle of
/// it: nobody is left waiting.
impl<T: Transport> Drop for Driver<T> {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.hub.close();
    }
}

/// Sends, and takes the time that it waits off the patience; nothing if that ran out.
async fn send_within<R>(patience: &mut Duration, sending: impl Future<Output = R>) -> Option<R> {
    let mut sending = std::pin::pin!(sending);
    if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await {
        return Some(sent);
    }
    if patience.is_zero() {
        return None;
    }
    let began = tokio::time::Instant::now();
    let sent = tokio::time::timeout(*patience, sending).await.ok();
    *patience = patience.saturating_sub(began.elapsed());
    sent
}

/// Feeds the packets that have arrived to the machine.
fn receive<T: Transport>(
    cx: &mut Context<'_>,
    transport: &T,
    layers: &Layers,
    machine: &mut Membership,
    lines: &mut Lines,
) -> Poll<Result<(), RecvError>> {
    RECEIVE_BUFFER.with_borrow_mut(|buf| {
        let now = now();
        for taken in 0..PACKETS_PER_TURN {
            match transport.poll_recv_packet(cx, buf) {
                Poll::Ready(Ok((len, source))) => {
                    let Some(peer) = peer_of(&source) else {
                        machine.count_drop(DropReason::IdentityMismatch);
                        continue;
                    };
                    let packet = match layers.unwrap(&mut buf[..len]) {
                        Ok(packet) => packet,
                        Err(error) => {
                            machine.count_drop(error.reason());
                            layers.warn(peer.addr, "packet", &error);
                            continue;
                        }
                    };
                    if let Err(error) = machine.handle_packet(&peer, packet, now) {
                        lines.unreadable(&peer, &error);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    })
}

/// For the log.
fn kind_of(request: &StreamRequestKind) -> &'static str {
    match request {
        StreamRequestKind::PushPull { join: true } => "join",
        StreamRequestKind::PushPull { join: false } => "push_pull",
        StreamRequestKind::Ping { .. } => "ping",
        StreamRequestKind::Sync { .. } => "sync",
        StreamRequestKind::UserState => "user_state",
        _ => "other",
    }
}

/// Until a join ends that is watched; never for what is no join.
async fn given_up(watched: Option<watch::Receiver<()>>) {
    match watched {
        Some(watched) => ends(watched).await,
        None => std::future::pending().await,
    }
}

async fn ends(mut watched: watch::Receiver<()>) {
    while watched.changed().await.is_ok() {}
}

fn destination(peer: &Peer) -> Destination {
    Destination { addr: peer.addr, name: peer.name.as_ref().map(|name| name.to_eco_string()) }
}

/// The runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
