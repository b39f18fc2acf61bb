//! Streams: reading and writing messages with deadlines and within a memory limit.
//!
//! Every exchange runs on a task of its own, so that neither a large state nor a slow peer holds up
//! the node. A direction of a stream is the format's preamble followed by records; see
//! `docs/WIRE.md`.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use memberlist_protocol::message::{Ack, Ping, PingSource};
use memberlist_protocol::wire::WireFormat;
use memberlist_protocol::wire::stream::{
    Assembler, FrameNumber, FrameReader, Held, MessageFrames, PushPullStart, SnapshotRecord,
    StreamError, StreamItem, StreamLimits, preamble,
};
use memberlist_protocol::{ExchangeError, NodeId, Peer, StreamResponse};
use memberlist_transport::{Destination, OpenError, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::error;

use crate::delegate::Delegate;
#[cfg(feature = "encryption")]
use crate::layers::StreamKeys;
use crate::layers::{KeyName, LayerError, Layers, StreamReader, StreamWriter};

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
    pub(crate) format: WireFormat,
    /// Whether what is written is compressed.
    pub(crate) compression: bool,
    pub(crate) limits: StreamLimits,
    /// The time for dialling, for a small exchange, and for each piece of a large one.
    pub(crate) timeout: Duration,
    pub(crate) budget: Arc<Semaphore>,
    /// All of the budget.
    pub(crate) budget_bytes: usize,
    pub(crate) delegate: Arc<dyn Delegate>,
    pub(crate) layers: Arc<Layers>,
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
    #[error("the peer closed the stream without an answer; it may have another label, or no time")]
    Eof,
    #[error("{0}")]
    Layer(#[from] LayerError),
    /// The peer refuses, in its words.
    #[error("{0}")]
    Refused(String),
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
            Self::Io(error) => ExchangeError::Io { peer, message: error.to_string() },
            Self::Stalled(timeout) => ExchangeError::Timeout { peer, timeout },
            Self::Layer(error) => {
                ExchangeError::Layer { peer, reason: error.reason(), message: error.to_string() }
            }
            Self::Refused(message) => ExchangeError::Refused { peer, message },
            // What this node did wrong is not held against the peer's answer.
            Self::NoState | Self::Panicked => ExchangeError::Io { peer, message: self.to_string() },
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
    frames: FrameReader,
    assembler: Assembler,
    number: FrameNumber,
    dialled: bool,
    wrote_preamble: bool,
    out: Vec<u8>,
    received: usize,
    pub(crate) budget: Budget,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// On a stream that this node opened; sealed with this key instead of the primary, if it is given.
    pub(crate) fn dialled(stream: S, context: StreamContext, key: Option<KeyName>) -> Self {
        let inbound = StreamReader::of_answer(Arc::clone(&context.layers));
        let outbound = StreamWriter::of_dialler(Arc::clone(&context.layers), key);
        Self { dialled: true, ..Self::new(stream, context, inbound, outbound) }
    }

    /// On a stream that a peer opened.
    pub(crate) fn accepted(stream: S, context: StreamContext) -> Self {
        let inbound = StreamReader::of_dialler(Arc::clone(&context.layers));
        let outbound = StreamWriter::of_answer(Arc::clone(&context.layers));
        Self::new(stream, context, inbound, outbound)
    }

    fn new(
        stream: S,
        context: StreamContext,
        inbound: StreamReader,
        outbound: StreamWriter,
    ) -> Self {
        Self {
            stream,
            dialled_at: None,
            inbound,
            outbound,
            frames: FrameReader::new(context.format, context.limits),
            assembler: Assembler::new(context.format, context.limits),
            number: FrameNumber::default(),
            dialled: false,
            wrote_preamble: false,
            out: Vec::new(),
            received: 0,
            budget: Budget::default(),
            context,
        }
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
            _ => Err(error.into()),
        }
    }

    /// Writes one message, piece by piece.
    pub(crate) async fn send(&mut self, message: MessageFrames) -> Result<(), StreamFault> {
        let mut message = message.compressed(self.context.compression);
        self.outbound.answer(&self.inbound);
        let dialled = self.dialled;
        loop {
            let (format, number) = (self.context.format, &mut self.number);
            let wrote_preamble = &mut self.wrote_preamble;
            let any = self.outbound.wrap(&mut self.out, |out| {
                if !std::mem::replace(wrote_preamble, true) {
                    preamble(format, out);
                }
                message.next_record(number, out)
            })?;
            if dialled {
                self.inbound.expect_answer(&self.outbound);
            }
            if !any {
                break;
            }
            let wrote = self.stream.write_all(&self.out);
            timeout(self.context.timeout, wrote).await.map_err(|_| self.stalled())??;
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
    /// the clear where it must be sealed only a refusal counts, which is `Refused`.
    pub(crate) async fn receive(&mut self) -> Result<StreamItem, StreamFault> {
        let received = match self.receive_any().await {
            received if self.inbound.is_refusal() => Err(refusal_in(received)),
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
            while let Some(payload) = self.frames.next_frame()? {
                let item = self.assembler.push(&payload)?;
                match item {
                    Some(StreamItem::PushPull(mut state)) => {
                        self.charge(state.nodes.len()).await?;
                        state.held = Held::new(std::mem::take(&mut self.budget));
                        return Ok(StreamItem::PushPull(state));
                    }
                    Some(item) => return Ok(item),
                    None => self.charge(self.assembler.pending_nodes()).await?,
                }
            }
            let read = timeout_at(deadline, self.stream.read(&mut buf));
            let len = read.await.map_err(|_| self.stalled())??;
            if len == 0 {
                if !self.inbound.is_whole()? {
                    return Err(StreamError::Truncated.into());
                }
                self.frames.finish()?;
                self.assembler.finish()?;
                return Err(StreamFault::Eof);
            }
            self.received += len;
            progress += len;
            self.charge(self.assembler.pending_nodes()).await?;
            if progress >= READ_BYTES {
                (deadline, progress) = (Instant::now() + self.context.timeout, 0);
            }
            self.inbound.push(&buf[..len], &mut self.frames)?;
        }
    }

    /// Tells a peer why what it said is refused: in the clear, unless it has shown that it has a key.
    pub(crate) async fn refuse(&mut self, text: &str) -> Result<(), StreamFault> {
        match self.inbound.opened_with() {
            Some(_) => self.send(MessageFrames::error(self.context.format, text)).await,
            None => self.refuse_in_the_clear(text).await,
        }
    }

    /// Tells a peer that shares no key with this node why it is refused. Under a seal it could not read
    /// that, and strangers would draw messages under the cluster's keys.
    pub(crate) async fn refuse_in_the_clear(&mut self, text: &str) -> Result<(), StreamFault> {
        self.outbound.refuse_in_the_clear();
        self.send(MessageFrames::error(self.context.format, text)).await
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

    /// Pays for what has been received and decoded, waiting for others to give back if it must.
    async fn charge(&mut self, decoded_nodes: usize) -> Result<(), StreamFault> {
        let content = self.received.max(self.assembler.pending_bytes());
        let held = content.saturating_add(decoded_nodes.saturating_mul(NODE_BYTES));
        // What is larger than all of the budget may go on alone: the message limits bound it.
        let charged = held.saturating_sub(FREE_BYTES).min(self.context.budget_bytes);
        let grown = self.budget.grow_to(charged, &self.context.budget);
        timeout(self.context.timeout, grown).await.map_err(|_| self.stalled())?
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
    within: Duration,
    key: Option<KeyName>,
) -> Result<Channel<T::Stream>, ExchangeError> {
    let to = Destination { addr: peer.addr, name: peer.name.as_ref().map(NodeId::to_arc) };
    match transport.open_stream(&to, within).await {
        Ok(stream) => {
            let mut channel = Channel::dialled(stream, context.clone(), key);
            channel.dialled_at = Some(peer.addr);
            Ok(channel)
        }
        Err(OpenError::Timeout { timeout, .. }) => {
            Err(ExchangeError::Timeout { peer: peer.clone(), timeout })
        }
        Err(OpenError::Closed) => Err(ExchangeError::Cancelled),
        Err(OpenError::Io { source, .. }) => {
            Err(ExchangeError::Io { peer: peer.clone(), message: source.to_string() })
        }
        Err(error) => Err(ExchangeError::Io { peer: peer.clone(), message: error.to_string() }),
    }
}

/// Exchanges states with a peer: sends the own, reads the other's.
pub(crate) async fn push_pull<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
    join: bool,
    records: Vec<SnapshotRecord>,
) -> Result<StreamResponse, ExchangeError> {
    let mut channel = open(transport, context, peer, context.timeout, None).await?;
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    let own = own_state(context, peer.name.clone(), join, records).map_err(fault)?;
    channel.ask(own).await.map_err(fault)?;
    match channel.receive().await.map_err(fault)? {
        StreamItem::PushPull(state) => Ok(StreamResponse::PushPull(state)),
        StreamItem::Error(message) => Err(ExchangeError::Refused { peer: peer.clone(), message }),
        other => Err(unexpected(peer, &other)),
    }
}

/// This node's state as a message; the application's part is asked for now. Without that part there
/// is no state: an empty one would be taken for the application's word.
pub(crate) fn own_state(
    context: &StreamContext,
    to: Option<NodeId>,
    join: bool,
    records: Vec<SnapshotRecord>,
) -> Result<MessageFrames, StreamFault> {
    let start = PushPullStart { from: context.own.clone(), to, join };
    let asked = catch_unwind(AssertUnwindSafe(|| context.delegate.local_state(join)));
    let user_state = asked.map_err(|_| {
        error!("the application's delegate panicked in local_state: no states are exchanged");
        StreamFault::NoState
    })?;
    Ok(MessageFrames::push_pull(context.format, start, records.into(), user_state))
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
    peer: &Peer,
    sequence: u32,
    source: SocketAddr,
    within: Duration,
) -> Result<StreamResponse, ExchangeError> {
    let exchange = async {
        let mut channel = open(transport, context, peer, within, None).await?;
        let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
        let node = peer.name.as_ref().map_or("", NodeId::as_str);
        let source = Some(PingSource { node: context.own.as_str(), addr: source });
        let ping = Ping { sequence, node, source };
        channel.ask(MessageFrames::ping(context.format, &ping)).await.map_err(fault)?;
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

/// Sends a message of the application and waits for its receipt.
pub(crate) async fn send_user_message<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: Peer,
    payload: Bytes,
) -> Result<(), ExchangeError> {
    let mut channel = open(transport, context, &peer, context.timeout, None).await?;
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    channel.ask(MessageFrames::user(context.format, payload)).await.map_err(fault)?;
    loop {
        match channel.receive().await.map_err(fault)? {
            StreamItem::Response { status: TAKEN, .. } => return Ok(()),
            StreamItem::Response { status: WAIT, .. } => {}
            StreamItem::Error(message) => return Err(ExchangeError::Refused { peer, message }),
            other => return Err(unexpected(&peer, &other)),
        }
    }
}

/// The receipt of a user message: taken, or still waiting for the application.
pub(crate) fn receipt(format: WireFormat, taken: bool) -> MessageFrames {
    MessageFrames::response(format, if taken { TAKEN } else { WAIT }, Bytes::new())
}

/// The answer to a ping.
pub(crate) fn ack(format: WireFormat, sequence: u32, payload: &[u8]) -> MessageFrames {
    MessageFrames::ack(format, &Ack { sequence, payload })
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
        _ => "a message of an unknown kind",
    };
    ExchangeError::BadAnswer { peer: peer.clone(), message: format!("{what} was not expected") }
}

#[cfg(test)]
mod tests {
    use memberlist_protocol::{Node, NodeState, Versions};
    use tokio::io::duplex;

    use super::*;

    const BUDGET_BYTES: usize = 1 << 20;

    fn context() -> StreamContext {
        StreamContext {
            own: NodeId::new("own").unwrap(),
            format: WireFormat::Native,
            compression: false,
            limits: StreamLimits::default(),
            timeout: Duration::from_secs(1),
            budget: Arc::new(Semaphore::new(Budget::units(BUDGET_BYTES))),
            budget_bytes: BUDGET_BYTES,
            delegate: Arc::new(()),
            layers: Arc::new(Layers::new(
                Default::default(),
                true,
                Default::default(),
                Default::default(),
            )),
        }
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
        let mut sender = Channel::dialled(far, context.clone(), None);
        let state = own_state(context, None, false, records(nodes)).unwrap();
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
