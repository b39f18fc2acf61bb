//! Streams: reading and writing messages with deadlines and within a memory limit.
//!
//! Every exchange runs on a task of its own, so that neither a large state nor a slow peer holds up
//! the node. Who opens a stream chooses the format, and is answered in it; see `docs/WIRE.md`.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use memberlist_protocol::message::{Ack, Ping, PingSource};
use memberlist_protocol::wire::stream::{
    Busy, FrameNumber, Held, MessageFrames, MessageReader, PushPullStart, SnapshotRecord,
    StreamError, StreamItem, StreamLimits, preamble,
};
use memberlist_protocol::wire::sync::{SyncBody, SyncLimits};
use memberlist_protocol::wire::{Dialect, WireFormat};
use memberlist_protocol::{ExchangeError, NodeId, Peer, SYNC_TOPIC, StreamResponse};
use memberlist_transport::{Destination, OpenError, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::error;

use crate::delegate::Delegate;
#[cfg(feature = "encryption")]
use crate::layers::StreamKeys;
use crate::layers::{KeyName, LayerError, Layers, StreamReader, StreamWriter};
use crate::limit::SharedLimit;
use crate::meter::{Meter, Open, Role};
use crate::user_state::UserStates;

/// How much is read at a time, and the least progress that a peer must make within a timeout.
const READ_BYTES: usize = 16 * 1024;
/// The first bytes of a stream are not charged to the common memory limit, so that a few large ones
/// cannot keep small exchanges waiting. What they may hold in all is bounded by the number of
/// streams.
const FREE_BYTES: usize = 64 * 1024;

/// What a refused peer may still send before the stream is closed.
const MAX_DRAINED_BYTES: usize = 1 << 20;

/// What a decoded node costs beside its bytes on the wire.
const NODE_BYTES: usize = 200;

/// The statuses of a receipt: the application has the message; it is slow, wait on.
const TAKEN: u8 = 0;
const WAIT: u8 = 1;

/// What all streams of a node share.
#[derive(Clone)]
pub(crate) struct StreamContext {
    pub(crate) own: NodeId,
    /// The port of a node that gives none, as old ones do in Go's format.
    pub(crate) port: u16,
    pub(crate) format: WireFormat,
    /// Whether what is written is compressed.
    pub(crate) compression: bool,
    pub(crate) limits: StreamLimits,
    pub(crate) sync_limits: SyncLimits,
    /// How much a peer may say before it is answered.
    pub(crate) max_question_bytes: usize,
    /// How many questions about user states are answered at once.
    pub(crate) max_user_states: usize,
    /// The time for dialling, for a small exchange, and for each piece of a large one.
    pub(crate) timeout: Duration,
    pub(crate) budget: Arc<Semaphore>,
    /// All of the budget.
    pub(crate) budget_bytes: usize,
    pub(crate) delegate: Arc<dyn Delegate>,
    pub(crate) layers: Arc<Layers>,
    pub(crate) user_states: Arc<UserStates>,
    pub(crate) meter: Meter,
    /// Lines about panics of the delegate.
    pub(crate) panics: Arc<SharedLimit>,
}

/// A share of the memory for messages that are being read, or wait for the application or to be
/// merged.
#[derive(Default)]
pub(crate) struct Budget(Option<OwnedSemaphorePermit>);

impl Budget {
    /// Shares are counted in KiB, since a semaphore counts to 2^29 only on small machines.
    pub(crate) fn units(bytes: usize) -> usize {
        bytes.div_ceil(1024).min(Semaphore::MAX_PERMITS)
    }

    /// Waits until `bytes` in all are covered.
    async fn grow_to(&mut self, bytes: usize, of: &Arc<Semaphore>) -> Result<(), StreamFault> {
        let have = self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(Self::units(bytes).saturating_sub(have)).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        let more =
            Arc::clone(of).acquire_many_owned(missing).await.map_err(|_| StreamFault::Eof)?;
        match &mut self.0 {
            Some(permit) => permit.merge(more),
            None => self.0 = Some(more),
        }
        Ok(())
    }
}

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(
        "the peer closed the stream without an answer; it may have another label, other keys or another wire format, or no time"
    )]
    Eof,
    /// The same of a peer that had not read all that it was sent.
    #[error(
        "{0}: the peer closed the stream without an answer; it may have another label, other keys or another wire format"
    )]
    Reset(io::Error),
    #[error("{0}")]
    Layer(#[from] LayerError),
    /// The peer refuses, in its words.
    #[error("{0}")]
    Refused(String),
    /// The peer has no place now.
    #[error("busy, told to come back in {} ms", .0.retry_after.as_millis())]
    Busy(Busy),
    /// The peer says more than is listened to.
    #[error("more was said than is listened to")]
    TooMuch,
    #[error("no progress within {0:?}")]
    Stalled(Duration),
    #[error("{0}")]
    Content(#[from] StreamError),
    #[error("this node's application panicked instead of giving its state")]
    NoState,
    #[error("the exchange panicked")]
    Panicked,
}

impl StreamFault {
    pub(crate) fn into_exchange_error(self, peer: Peer) -> ExchangeError {
        match self {
            // What this node did wrong is not held against the peer's answer.
            Self::Io(_) | Self::Reset(_) | Self::NoState | Self::Panicked => {
                ExchangeError::Io { peer, message: self.to_string(), refused: false }
            }
            Self::Stalled(timeout) => ExchangeError::Timeout { peer, timeout },
            Self::Layer(error) => {
                ExchangeError::Layer { peer, reason: error.reason(), message: error.to_string() }
            }
            Self::Refused(message) => ExchangeError::Refused { peer, message },
            Self::Busy(Busy { retry_after, .. }) => {
                ExchangeError::Busy { peer, attempts: 1, retry_after }
            }
            fault => ExchangeError::BadAnswer { peer, message: fault.to_string() },
        }
    }
}

/// One stream, as messages.
pub(crate) struct Channel<S> {
    stream: S,
    context: StreamContext,
    /// Whom this node asked, for log lines.
    dialled_at: Option<SocketAddr>,
    inbound: StreamReader,
    outbound: StreamWriter,
    messages: MessageReader,
    number: FrameNumber,
    /// The format that was chosen for a stream that this node opened.
    dialled: Option<Dialect>,
    wrote_preamble: bool,
    out: Vec<u8>,
    received: usize,
    sent: usize,
    pub(crate) budget: Budget,
    /// Counts it as open.
    _open: Open,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// On a stream that this node opened; sealed with this key instead of the primary, if it is given.
    pub(crate) fn dialled(
        stream: S,
        context: StreamContext,
        dialect: Dialect,
        key: Option<KeyName>,
    ) -> Self {
        let inbound = StreamReader::of_answer(Arc::clone(&context.layers));
        let outbound = StreamWriter::of_dialler(Arc::clone(&context.layers), key);
        let open = context.meter.stream(Role::Asked);
        Self { dialled: Some(dialect), ..Self::new(stream, context, inbound, outbound, open) }
    }

    /// On a stream that a peer opened.
    pub(crate) fn accepted(stream: S, context: StreamContext) -> Self {
        let inbound = StreamReader::of_dialler(Arc::clone(&context.layers));
        let outbound = StreamWriter::of_answer(Arc::clone(&context.layers));
        let open = context.meter.stream(Role::Served);
        Self::new(stream, context, inbound, outbound, open)
    }

    fn new(
        stream: S,
        context: StreamContext,
        inbound: StreamReader,
        outbound: StreamWriter,
        open: Open,
    ) -> Self {
        Self {
            stream,
            dialled_at: None,
            inbound,
            outbound,
            messages: MessageReader::new(context.format, context.limits, context.port)
                .asking_before_inflating(),
            number: FrameNumber::default(),
            dialled: None,
            wrote_preamble: false,
            out: Vec::new(),
            received: 0,
            sent: 0,
            budget: Budget::default(),
            context,
            _open: open,
        }
    }

    /// The format in which this node writes: that of the question.
    pub(crate) fn dialect(&self) -> Dialect {
        let asked = self.dialled.or_else(|| self.messages.dialect());
        asked.unwrap_or(self.context.format.towards_strangers())
    }

    /// Writes a question. A peer that refuses may hang up before it has read all of it: what it said
    /// is worth more than how the writing failed.
    pub(crate) async fn ask(&mut self, question: MessageFrames) -> Result<(), StreamFault> {
        let error = match self.send(question).await {
            Err(StreamFault::Io(error)) => error,
            sent => return sent,
        };
        match self.receive().await {
            Ok(StreamItem::Error(message)) | Err(StreamFault::Refused(message)) => {
                Err(StreamFault::Refused(message))
            }
            Err(StreamFault::Busy(busy)) => Err(StreamFault::Busy(busy)),
            _ => Err(self.unanswered(error)),
        }
    }

    /// Names what a peer may mean that hangs up on a question.
    fn unanswered(&self, error: io::Error) -> StreamFault {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        let hung_up = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset);
        match hung_up && self.dialled.is_some() && self.received == 0 {
            true => StreamFault::Reset(error),
            false => error.into(),
        }
    }

    /// Writes one message, piece by piece.
    pub(crate) async fn send(&mut self, message: MessageFrames) -> Result<(), StreamFault> {
        let mut message = message.compressed(self.context.compression);
        let dialect = self.dialect();
        self.outbound.answer(&self.inbound, dialect);
        loop {
            let (number, wrote_preamble) = (&mut self.number, &mut self.wrote_preamble);
            let any = self.outbound.wrap(&mut self.out, |out| {
                if !std::mem::replace(wrote_preamble, true) {
                    preamble(dialect, out);
                }
                message.next_record(number, out)
            })?;
            if self.dialled.is_some() {
                self.inbound.expect_answer(&self.outbound, dialect);
            }
            if !any {
                break;
            }
            let wrote = self.stream.write_all(&self.out);
            timeout(self.context.timeout, wrote).await.map_err(|_| self.stalled())??;
            self.sent += self.out.len();
            self.context.meter.stream_bytes(self.out.len(), 0);
        }
        timeout(self.context.timeout, self.stream.flush()).await.map_err(|_| self.stalled())??;
        Ok(())
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) -> Result<(), StreamFault> {
        timeout(self.context.timeout, self.stream.shutdown())
            .await
            .map_err(|_| self.stalled())??;
        Ok(())
    }

    /// Says that nothing more will be written, then reads and forgets what a refused peer still sends,
    /// until it closes the stream, for a while and up to a limit. To close TCP with bytes unread
    /// resets it, and a reset takes the answer with it (RFC 1122 section 4.2.2.13).
    pub(crate) async fn finish_refused(&mut self) -> Result<(), StreamFault> {
        self.finish().await?;
        let (mut buf, mut drained) = (vec![0; READ_BYTES], 0);
        let drain = async {
            while drained < MAX_DRAINED_BYTES {
                match self.stream.read(&mut buf).await? {
                    0 => break,
                    len => drained += len,
                }
            }
            Ok(())
        };
        timeout(self.context.timeout, drain).await.unwrap_or(Ok(()))
    }

    /// Reads one message; `Eof` if the peer closed the stream before its first byte. Of an answer in
    /// the clear where it must be sealed only a refusal counts, which is `Refused`. That a peer is busy, which
    /// may answer any question, is `Busy`.
    pub(crate) async fn receive(&mut self) -> Result<StreamItem, StreamFault> {
        let received = match self.receive_any().await {
            received if self.inbound.is_refusal() => Err(refusal_in(received)),
            Ok(StreamItem::Busy(busy)) if self.dialled.is_some() => Err(StreamFault::Busy(busy)),
            received => received,
        };
        if let (Err(StreamFault::Layer(error)), Some(addr)) = (&received, self.dialled_at) {
            self.context.layers.warn(addr, "answer", error);
        }
        received
    }

    async fn receive_any(&mut self) -> Result<StreamItem, StreamFault> {
        let mut buf = vec![0; READ_BYTES];
        let (mut deadline, mut progress) = (Instant::now() + self.context.timeout, 0);
        loop {
            match self.messages.next_item()? {
                Some(StreamItem::PushPull(mut state)) => {
                    self.charge(state.nodes.len()).await?;
                    state.held = Held::new(std::mem::take(&mut self.budget));
                    return Ok(StreamItem::PushPull(state));
                }
                Some(item) => return Ok(item),
                None => self.charge(self.messages.pending_nodes()).await?,
            }
            if self.messages.grant_inflating() {
                continue;
            }
            if self.received > self.context.max_question_bytes && self.dialled.is_none() {
                return Err(StreamFault::TooMuch);
            }
            let read = timeout_at(deadline, self.stream.read(&mut buf));
            let read = read.await.map_err(|_| self.stalled())?;
            let len = read.map_err(|error| self.unanswered(error))?;
            if len == 0 {
                if !self.inbound.is_whole()? {
                    return Err(StreamError::Truncated.into());
                }
                self.messages.finish()?;
                return Err(StreamFault::Eof);
            }
            self.received += len;
            self.context.meter.stream_bytes(0, len);
            progress += len;
            self.charge(self.messages.pending_nodes()).await?;
            // In Go's format a frame of 20 MiB is waited for. Who has no key must not hold that much of
            // what streams share for as long as it takes to trickle in.
            if progress >= READ_BYTES && !self.inbound.is_unproven() {
                (deadline, progress) = (Instant::now() + self.context.timeout, 0);
            }
            self.inbound.push(&buf[..len], &mut self.messages)?;
        }
    }

    /// Tells a peer why what it said is refused: in the clear, unless it has shown that it has a key.
    pub(crate) async fn refuse(&mut self, text: &str) -> Result<(), StreamFault> {
        match self.inbound.opened_with() {
            Some(_) => self.send_error(text).await,
            None => self.refuse_in_the_clear(text).await,
        }
    }

    /// Tells a peer that shares no key with this node why it is refused. Under a seal it could not read
    /// that, and strangers would draw messages under the cluster's keys.
    pub(crate) async fn refuse_in_the_clear(&mut self, text: &str) -> Result<(), StreamFault> {
        self.outbound.refuse_in_the_clear();
        self.send_error(text).await
    }

    /// Whether what came may be anybody's: sealed, and no key has opened any of it.
    pub(crate) fn is_unproven(&self) -> bool {
        self.inbound.is_unproven()
    }

    /// Says why there is no other answer.
    pub(crate) async fn send_error(&mut self, text: &str) -> Result<(), StreamFault> {
        self.send(MessageFrames::error(self.dialect(), text)).await
    }

    /// The key that opened what came last; nothing if it came in the clear.
    #[cfg(feature = "encryption")]
    pub(crate) fn opened_with(&self) -> Option<KeyName> {
        self.inbound.opened_with()
    }

    /// The keys that there were when the stream was begun.
    #[cfg(feature = "encryption")]
    pub(crate) fn begun(&self) -> StreamKeys {
        self.inbound.begun()
    }

    /// Lets keys be used that there were when something earlier was begun.
    #[cfg(feature = "encryption")]
    pub(crate) fn begin_with(&mut self, keys: &StreamKeys) {
        self.inbound.begin_with(keys.clone());
        self.outbound.begin_with(keys.clone());
    }

    /// Reads a step of comparing members, and pays for what it holds until that is merged.
    pub(crate) async fn read_sync(&mut self, body: &[u8]) -> Result<SyncBody, StreamFault> {
        let mut body = SyncBody::read(body, &self.context.sync_limits);
        self.charge(body.records()).await?;
        body.held = Held::new(std::mem::take(&mut self.budget));
        Ok(body)
    }

    /// Pays for what has been received and decoded, waiting for others to give back if it must.
    async fn charge(&mut self, decoded_nodes: usize) -> Result<(), StreamFault> {
        let content = self.received.max(self.messages.pending_bytes());
        let held = content.saturating_add(decoded_nodes.saturating_mul(NODE_BYTES));
        // What is larger than all of the budget may go on alone: the message limits bound it.
        let charged = held.saturating_sub(FREE_BYTES).min(self.context.budget_bytes);
        let grown = self.budget.grow_to(charged, &self.context.budget);
        timeout(self.context.timeout, grown).await.map_err(|_| self.stalled())?
    }

    /// Tells the metrics of a push/pull that went well and began then.
    pub(crate) fn meter_push_pull(&self, began: Instant) {
        let role = if self.dialled.is_some() { Role::Asked } else { Role::Served };
        self.context.meter.push_pull(role, began.elapsed(), self.sent, self.received);
    }

    fn stalled(&self) -> StreamFault {
        StreamFault::Stalled(self.context.timeout)
    }
}

/// What came in the clear in place of a sealed answer: why the peer refuses, or nothing that counts.
fn refusal_in(received: Result<StreamItem, StreamFault>) -> StreamFault {
    match received {
        Ok(StreamItem::Error(text)) => {
            StreamFault::Refused(format!("the peer says (not authenticated): {text}"))
        }
        Ok(_) | Err(StreamFault::Eof | StreamFault::Content(_)) => {
            LayerError::PlaintextRefused.into()
        }
        Err(fault) => fault,
    }
}

/// Opens a stream to a peer; sealed with this key instead of the primary, if it is given.
pub(crate) async fn open<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
    dialect: Dialect,
    within: Duration,
    key: Option<KeyName>,
) -> Result<Channel<T::Stream>, ExchangeError> {
    let to = Destination { addr: peer.addr, name: peer.name.as_ref().map(NodeId::to_eco_string) };
    match transport.open_stream(&to, within).await {
        Ok(stream) => {
            let mut channel = Channel::dialled(stream, context.clone(), dialect, key);
            channel.dialled_at = Some(peer.addr);
            Ok(channel)
        }
        Err(OpenError::Timeout { timeout, .. }) => {
            Err(ExchangeError::Timeout { peer: peer.clone(), timeout })
        }
        Err(OpenError::Closed) => Err(ExchangeError::Cancelled),
        Err(OpenError::Io { source, .. }) => {
            let refused = source.kind() == io::ErrorKind::ConnectionRefused;
            Err(ExchangeError::Io { peer: peer.clone(), message: source.to_string(), refused })
        }
        Err(error) => {
            let (peer, message) = (peer.clone(), error.to_string());
            Err(ExchangeError::Io { peer, message, refused: false })
        }
    }
}

/// Exchanges states with a peer: sends the own, reads the other's.
pub(crate) async fn push_pull<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
    dialect: Dialect,
    join: bool,
    records: Vec<SnapshotRecord>,
) -> Result<StreamResponse, ExchangeError> {
    let began = Instant::now();
    let mut channel = open(transport, context, peer, dialect, context.timeout, None).await?;
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    let own = own_state(context, dialect, peer.name.clone(), join, records).map_err(fault)?;
    let answer = match channel.ask(own).await {
        Ok(()) => channel.receive().await,
        Err(fault) => Err(fault),
    };
    match answer {
        Ok(StreamItem::PushPull(state)) => {
            channel.meter_push_pull(began);
            Ok(StreamResponse::PushPull(state))
        }
        Ok(StreamItem::Error(message)) => {
            Err(ExchangeError::Refused { peer: peer.clone(), message })
        }
        Ok(other) => Err(unexpected(peer, &other)),
        Err(StreamFault::Busy(busy)) => Ok(StreamResponse::Busy(busy)),
        Err(other) => Err(fault(other)),
    }
}

/// Sends a step of comparing members, reads its answer.
pub(crate) async fn sync<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
    dialect: Dialect,
    body: Bytes,
) -> Result<StreamResponse, ExchangeError> {
    let mut channel = open(transport, context, peer, dialect, context.timeout, None).await?;
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    channel.ask(MessageFrames::request(SYNC_TOPIC, body)).await.map_err(fault)?;
    match channel.receive().await.map_err(fault)? {
        StreamItem::Response { status: TAKEN, body } => {
            let body = channel.read_sync(&body).await.map_err(fault)?;
            Ok(StreamResponse::Sync(body))
        }
        StreamItem::Error(message) => Err(ExchangeError::Refused { peer: peer.clone(), message }),
        other => Err(unexpected(peer, &other)),
    }
}

/// This node's state as a message; the application's part is asked for now. Without that part there
/// is no state: an empty one would be taken for the application's word.
pub(crate) fn own_state(
    context: &StreamContext,
    dialect: Dialect,
    to: Option<NodeId>,
    join: bool,
    records: Vec<SnapshotRecord>,
) -> Result<MessageFrames, StreamFault> {
    let start = PushPullStart { from: context.own.clone(), to, join };
    let user_state = application_state(context, join)?;
    Ok(MessageFrames::push_pull(dialect, start, records.into(), user_state))
}

/// What the application gives for its state.
pub(crate) fn application_state(context: &StreamContext, join: bool) -> Result<Bytes, StreamFault> {
    let asked = catch_unwind(AssertUnwindSafe(|| context.delegate.local_state(join)));
    asked.map_err(|_| {
        if let Some(more) = context.panics.allow() {
            error!(
                more,
                "the application's delegate panicked in local_state: no states are exchanged"
            );
        }
        StreamFault::NoState
    })
}

/// Runs an exchange to its end, even if that is a panic: who waits for it must hear of it.
pub(crate) async fn to_its_end<R, E>(
    exchange: impl Future<Output = Result<R, E>>,
    into_error: impl FnOnce(StreamFault) -> E,
) -> Result<R, E> {
    AssertUnwindSafe(exchange).catch_unwind().await.unwrap_or_else(|_| {
        error!("an exchange over a stream panicked");
        Err(into_error(StreamFault::Panicked))
    })
}

/// Pings a peer over a stream.
pub(crate) async fn stream_ping<T: Transport>(
    transport: &T,
    context: &StreamContext,
    (peer, dialect): (&Peer, Dialect),
    sequence: u32,
    source: SocketAddr,
    within: Duration,
) -> Result<StreamResponse, ExchangeError> {
    let exchange = async {
        let mut channel = open(transport, context, peer, dialect, within, None).await?;
        let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
        let node = peer.name.as_ref().map_or("", NodeId::as_str);
        let source = Some(PingSource { node: context.own.as_str(), addr: source });
        let native = context.format.announces_native();
        let ping = Ping { sequence, node, source, native };
        channel.ask(MessageFrames::ping(dialect, &ping)).await.map_err(fault)?;
        match channel.receive().await.map_err(fault)? {
            StreamItem::Ack { sequence: acked, .. } if acked == sequence => {
                Ok(StreamResponse::Ack { sequence })
            }
            other => Err(unexpected(peer, &other)),
        }
    };
    let late = || ExchangeError::Timeout { peer: peer.clone(), timeout: within };
    timeout(within, exchange).await.unwrap_or_else(|_| Err(late()))
}

/// Sends a message of the application and waits for its receipt. In Go's format there is none: then
/// the peer has taken it when it closes the stream.
pub(crate) async fn send_user_message<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: Peer,
    dialect: Dialect,
    payload: Bytes,
) -> Result<(), ExchangeError> {
    let mut channel = open(transport, context, &peer, dialect, context.timeout, None).await?;
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    channel.ask(MessageFrames::user(dialect, payload)).await.map_err(fault)?;
    if dialect == Dialect::Hashicorp {
        channel.finish().await.map_err(fault)?;
    }
    loop {
        match channel.receive().await {
            Ok(StreamItem::Response { status: TAKEN, .. }) => return Ok(()),
            Ok(StreamItem::Response { status: WAIT, .. }) => {}
            Ok(StreamItem::Error(message)) => return Err(ExchangeError::Refused { peer, message }),
            Ok(other) => return Err(unexpected(&peer, &other)),
            Err(StreamFault::Eof) if dialect == Dialect::Hashicorp => return Ok(()),
            Err(error) => return Err(fault(error)),
        }
    }
}

/// The receipt of a user message: taken, or still waiting for the application.
pub(crate) fn receipt(taken: bool) -> MessageFrames {
    MessageFrames::response(if taken { TAKEN } else { WAIT }, Bytes::new())
}

/// The answer to a ping.
pub(crate) fn ack(dialect: Dialect, format: WireFormat, sequence: u32) -> MessageFrames {
    let ack = Ack { sequence, payload: &[], native: format.announces_native() };
    MessageFrames::ack(dialect, &ack)
}

pub(crate) fn unexpected(peer: &Peer, item: &StreamItem) -> ExchangeError {
    let what = match item {
        StreamItem::Ping { .. } => "a ping",
        StreamItem::Ack { .. } => "an ack",
        StreamItem::PushPull(_) => "a state",
        StreamItem::User(_) => "a user message",
        StreamItem::Request { .. } => "a request",
        StreamItem::Response { .. } => "a response",
        StreamItem::Error(_) => "an error",
        StreamItem::Busy(_) => "that it is busy",
        _ => "a message of an unknown kind",
    };
    ExchangeError::BadAnswer { peer: peer.clone(), message: format!("{what} was not expected") }
}

/// What tests of streams have in common.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::layers::Sealing;

    pub(crate) const BUDGET_BYTES: usize = 1 << 20;

    impl StreamContext {
        /// A node without an application.
        pub(crate) fn testing(own: &str, sealing: Sealing) -> Self {
            let (format, labels) = (WireFormat::Native, Default::default());
            let layers = Layers::new(format, labels, true, Default::default(), sealing);
            Self {
                own: NodeId::new(own).unwrap(),
                port: 7946,
                format,
                compression: false,
                limits: StreamLimits::default(),
                sync_limits: memberlist_protocol::Config::lan().sync_limits(),
                max_question_bytes: usize::MAX,
                max_user_states: 8,
                timeout: Duration::from_secs(1),
                budget: Arc::new(Semaphore::new(Budget::units(BUDGET_BYTES))),
                budget_bytes: BUDGET_BYTES,
                delegate: Arc::new(()),
                layers: Arc::new(layers),
                user_states: Arc::default(),
                meter: Meter::default(),
                panics: Arc::default(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use memberlist_protocol::{Node, NodeState, Versions};
    use tokio::io::duplex;

    use super::testing::BUDGET_BYTES;
    use super::*;

    fn context() -> StreamContext {
        StreamContext::testing("own", Default::default())
    }

    fn records(n: usize) -> Vec<SnapshotRecord> {
        let addr = "10.0.0.1:7946".parse().unwrap();
        (0..n)
            .map(|i| {
                let id = NodeId::new(&format!("n{i}")).unwrap();
                let node = Arc::new(Node::new(id, addr, Bytes::new(), Versions::default()));
                SnapshotRecord { node, incarnation: 1, state: NodeState::Alive }
            })
            .collect()
    }

    /// Receives a state of that many nodes over a stream that ends then.
    async fn received(context: &StreamContext, nodes: usize) -> Result<StreamItem, StreamFault> {
        let (near, far) = duplex(1 << 16);
        let mut sender = Channel::dialled(far, context.clone(), Dialect::Native, None);
        let state = own_state(context, Dialect::Native, None, false, records(nodes)).unwrap();
        let sent = async move { sender.send(state).await };
        let mut receiver = Channel::accepted(near, context.clone());
        tokio::join!(sent, receiver.receive()).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_holds_its_share_until_it_is_merged() {
        let (context, nodes) = (context(), 2000);
        let all = context.budget.available_permits();
        let state = received(&context, nodes).await.unwrap();
        let held = all - context.budget.available_permits();
        assert!(held >= Budget::units(nodes * NODE_BYTES - FREE_BYTES), "{held} KiB");
        drop(state);
        assert_eq!(context.budget.available_permits(), all);
    }

    /// A few KiB in Go's format may hold a thousand times as much.
    #[tokio::test(start_paused = true)]
    async fn what_is_compressed_holds_the_share_of_what_it_is_decompressed() {
        let mut context = StreamContext { compression: true, ..context() };
        context.format = WireFormat::Hashicorp;
        let all = context.budget.available_permits();
        let user = async |payload: Vec<u8>| {
            let (near, far) = duplex(1 << 16);
            let mut sender = Channel::dialled(far, context.clone(), Dialect::Hashicorp, None);
            let mut receiver = Channel::accepted(near, context.clone());
            let sent = sender.send(MessageFrames::user(Dialect::Hashicorp, payload.into()));
            let (sent, received) = tokio::join!(sent, receiver.receive());
            sent.unwrap();
            received.map(|item| (item, receiver))
        };
        let (_, first) = user(vec![7; 700_000]).await.unwrap();
        assert!(first.received < 10_000);
        let held = all - context.budget.available_permits();
        assert!(held >= Budget::units(700_000 - FREE_BYTES), "{held} KiB");
        // Small ones go on; another large one waits for that share.
        user(vec![7; 60_000]).await.unwrap();
        assert!(matches!(user(vec![7; 700_000]).await, Err(StreamFault::Stalled(_))));
        drop(first);
        user(vec![7; 700_000]).await.unwrap();
        assert_eq!(context.budget.available_permits(), all);
    }

    #[cfg(feature = "encryption")]
    #[tokio::test(start_paused = true)]
    async fn a_frame_that_no_key_has_opened_has_one_timeout() {
        use memberlist_security::{KeySize, Keyring, SecretKey, Version};

        let key = SecretKey::generate(KeySize::Bits128).unwrap();
        let encryption = crate::config::Encryption::new(Keyring::new(key));
        let sealing = crate::layers::Sealing::new(Some(&encryption), Version::V1);
        let (format, label) = (WireFormat::Hashicorp, Default::default());
        let layers = Arc::new(Layers::new(format, label, true, Default::default(), sealing));
        let context = StreamContext { format, layers, ..context() };
        let (near, mut far) = duplex(1 << 16);
        let began = Instant::now();
        let trickle = async {
            far.write_all(&[0x0A, 0x01, 0, 0, 0]).await?;
            for _ in 0..60 {
                far.write_all(&[7; READ_BYTES]).await?;
                tokio::time::sleep(context.timeout / 2).await;
            }
            Ok::<_, io::Error>(())
        };
        let received = async {
            let received = Channel::accepted(near, context.clone()).receive().await;
            (received, began.elapsed())
        };
        let (_, (received, took)) = tokio::join!(trickle, received);
        assert!(matches!(received, Err(StreamFault::Stalled(_))), "{received:?}");
        assert!(took <= 2 * context.timeout, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn small_states_hold_nothing_and_huge_ones_take_all() {
        let context = context();
        let all = context.budget.available_permits();
        let small = received(&context, 100).await.unwrap();
        assert_eq!(context.budget.available_permits(), all);
        let huge = received(&context, 2 * BUDGET_BYTES / NODE_BYTES).await.unwrap();
        assert_eq!(context.budget.available_permits(), 0);
        assert!(matches!(received(&context, 2000).await, Err(StreamFault::Stalled(_))));
        received(&context, 100).await.unwrap();
        drop((small, huge));
        assert_eq!(context.budget.available_permits(), all);
    }
}
