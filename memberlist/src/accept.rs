//! Streams that peers open.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memberlist_protocol::wire::Dialect;
use memberlist_protocol::wire::stream::{
    Busy, MessageFrames, RemoteState, SnapshotRecord, StreamItem,
};
use memberlist_protocol::{DropReason, ExchangeError, NodeId, Peer, SYNC_TOPIC};
use memberlist_transport::{RecvError, Source, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument, debug, debug_span, warn};

use crate::command::Command;
use crate::delegate::UserMessage;
#[cfg(feature = "encryption")]
use crate::keys::Newcomer;
use crate::layers::LayerError;
#[cfg(feature = "encryption")]
use crate::layers::{KeyName, StreamKeys};
use crate::limit::{Backoff, RateLimit};
use crate::messages::Delivery;
use crate::shared::{Shared, peer_of};
use crate::streams::{Channel, StreamContext, StreamFault, ack, own_state, receipt, to_its_end};
use crate::turns::Served;
use crate::user_state;

/// While all that may be served are, this many times as many are listened to, to be turned away.
const TURNED_AWAY_PER_SERVED: usize = 2;
/// What is listened to of one that is turned away: a record and its seal, with which it is known in which
/// format and under which key it is to be told so.
const TURNED_AWAY_BYTES: usize = 72 * 1024;
/// How long one that is turned away may take over its question, at most.
const TURNED_AWAY_TIME: Duration = Duration::from_secs(2);
/// How long a further stream is kept waiting, before it is closed: a crowd may come faster than tasks are run.
const CROWD_PATIENCE: Duration = Duration::from_millis(50);
/// When those are to come back who want something else than a push/pull.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What peers are told that read nothing else.
const TOO_MANY: &str = "too many exchanges are being served here; try again later";

/// What a task that serves one stream needs.
struct Server {
    context: StreamContext,
    commands: mpsc::WeakSender<Box<Command>>,
    messages: mpsc::Sender<Box<Delivery>>,
    shared: Arc<Shared>,
}

/// Whether a stream has a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Served,
    TurnedAway,
}

/// Accepts streams until the transport is closed. Dropping the future ends every stream that is
/// being served.
pub(crate) async fn accept_streams<T: Transport>(
    transport: Arc<T>,
    context: StreamContext,
    commands: mpsc::WeakSender<Box<Command>>,
    messages: mpsc::Sender<Box<Delivery>>,
    max_streams: usize,
    shared: Arc<Shared>,
) {
    let server = Arc::new(Server { context, commands, messages, shared });
    let (mut serving, mut turning_away) = (JoinSet::new(), JoinSet::new());
    let max_turned_away = max_streams.saturating_mul(TURNED_AWAY_PER_SERVED);
    let (mut unaccepted, mut backoff) = (RateLimit::default(), Backoff::default());
    loop {
        let accepted = transport.accept_stream().await;
        if accepted.is_ok() {
            backoff.reset();
        }
        while serving.try_join_next().is_some() {}
        while turning_away.try_join_next().is_some() {}
        if accepted.is_ok() && serving.len() >= max_streams && turning_away.len() >= max_turned_away
        {
            let place = async {
                tokio::select! {
                    Some(_) = serving.join_next() => {}
                    Some(_) = turning_away.join_next() => {}
                }
            };
            // Whether there is one now is seen below.
            let _ = tokio::time::timeout(CROWD_PATIENCE, place).await;
        }
        match accepted {
            Ok((stream, source)) if serving.len() < max_streams => {
                let span = debug_span!("stream", from = %source.addr);
                let task = serve(stream, source, Stage::Served, Arc::clone(&server));
                serving.spawn(task.instrument(span).in_current_span());
            }
            Ok((stream, source)) if turning_away.len() < max_turned_away => {
                let span = debug_span!("stream", from = %source.addr, turned_away = true);
                let task = serve(stream, source, Stage::TurnedAway, Arc::clone(&server));
                turning_away.spawn(task.instrument(span).in_current_span());
            }
            Ok((_, source)) => {
                server.count_refused();
                debug!(from = %source.addr, "stream closed at once: {max_streams} are being served");
            }
            Err(RecvError::Closed) => return,
            Err(error) => {
                if let Some(more) = unaccepted.allow() {
                    warn!(%error, more, "could not accept a stream");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

async fn serve<S>(stream: S, source: Source, stage: Stage, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(peer) = peer_of(&source) else {
        debug!(from = %source.addr, "stream closed at once: no member can have its verified name");
        return server.count(DropReason::IdentityMismatch).await;
    };
    let mut context = server.context.clone();
    if stage == Stage::TurnedAway {
        context.timeout = (context.timeout / 3).min(TURNED_AWAY_TIME);
        context.max_question_bytes = TURNED_AWAY_BYTES;
    }
    let patience = context.timeout;
    let mut channel = Channel::accepted(stream, context);
    let received = match stage {
        Stage::Served => channel.receive().await,
        // In all, however well it gets on.
        Stage::TurnedAway => match tokio::time::timeout(patience, channel.receive()).await {
            Ok(received) => received,
            Err(_) => Err(StreamFault::Stalled(patience)),
        },
    };
    let unread = matches!(received, Err(StreamFault::TooMuch));
    if stage == Stage::TurnedAway && received.is_err() && !unread {
        server.count_refused();
    }
    let outcome = match received {
        Ok(item) if stage == Stage::TurnedAway => {
            server.turn_away(&mut channel, &peer, Some(item)).await
        }
        Ok(item) => server.answer(&mut channel, &peer, item).await,
        Err(StreamFault::TooMuch) => server.turn_away(&mut channel, &peer, None).await,
        Err(StreamFault::Eof) => return,
        Err(StreamFault::Layer(error)) => {
            server.context.layers.warn(peer.addr, "stream", &error);
            server.count(error.reason()).await;
            server.refuse(&mut channel, &error).await.and(Err(error.into()))
        }
        Err(StreamFault::Content(error)) => {
            server.count(error.reason()).await;
            // Tell a peer that speaks the same format what is wrong with it, as Go does.
            channel.refuse(&error.to_string()).await.and(Err(error.into()))
        }
        Err(fault) => Err(fault),
    };
    let finished = match &outcome {
        Ok(()) if unread => channel.finish_refused().await,
        Ok(()) => channel.finish().await,
        Err(StreamFault::Layer(_) | StreamFault::Content(_)) => channel.finish_refused().await,
        Err(_) => Ok(()),
    };
    if let Err(fault) = outcome.and(finished) {
        debug!(%peer, %fault, "stream ended early");
    }
}

impl Server {
    async fn answer<S>(
        &self,
        channel: &mut Channel<S>,
        peer: &Peer,
        item: StreamItem,
    ) -> Result<(), StreamFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let format = self.context.format;
        match item {
            StreamItem::Ping { sequence, node, source } => {
                let (peer, source) = (peer.clone(), source.map(|(name, _)| name));
                let command = |reply| Command::StreamPing { peer, node, source, reply };
                match self.ask(command).await {
                    Some(true) => channel.send(ack(channel.dialect(), format, sequence)).await,
                    _ => Ok(()),
                }
            }
            StreamItem::PushPull(state) => self.push_pull(channel, peer, state).await,
            StreamItem::User(payload) => {
                let message =
                    UserMessage { payload, from: peer.addr, origin: None, reliable: true };
                self.deliver(channel, message).await
            }
            #[cfg(feature = "encryption")]
            StreamItem::Request { topic: crate::keys::TOPIC, body } => {
                crate::keys::serve(channel, &self.context, peer, &body).await
            }
            StreamItem::Request { topic: SYNC_TOPIC, body } => {
                let body = channel.read_sync(&body).await?;
                let command = |reply| Command::ServeSync { peer: peer.clone(), body, reply };
                match self.ask(command).await {
                    Some(Ok(answer)) => channel.send(MessageFrames::response(0, answer)).await,
                    Some(Err(refusal)) => channel.send_error(&text_for_the_refused(&refusal)).await,
                    None => Ok(()),
                }
            }
            StreamItem::Request { topic: user_state::TOPIC, body } => {
                match user_state::serve(channel, &self.context, peer, &body).await {
                    Ok(Some(reason)) => {
                        self.count(reason).await;
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(StreamFault::Content(error)) => {
                        self.count(error.reason()).await;
                        channel.refuse(&error.to_string()).await.and(Err(error.into()))
                    }
                    Err(fault) => Err(fault),
                }
            }
            StreamItem::Request { topic, .. } => {
                let text = format!("this node has no answers on topic {topic}");
                channel.send_error(&text).await
            }
            _ => {
                let text = "this message has no place at the beginning of a stream";
                channel.send_error(text).await
            }
        }
    }

    fn count_refused(&self) {
        self.shared.streams_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells a peer for whose stream there is no place to come back, if it was read that far.
    async fn turn_away<S>(
        &self,
        channel: &mut Channel<S>,
        peer: &Peer,
        item: Option<StreamItem>,
    ) -> Result<(), StreamFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match item {
            // To answer is as cheap, and without an answer this node may be suspected.
            Some(item @ StreamItem::Ping { .. }) => self.answer(channel, peer, item).await,
            Some(StreamItem::PushPull(state)) => match self.meant_for_another(&state) {
                Some(text) => channel.send_error(&text).await,
                None => self.tell_busy(channel, state.from.clone(), state.join).await,
            },
            _ => {
                self.count_refused();
                // Nothing proves that it is meant for this node: it is told of no others.
                let busy = Busy { retry_after: RETRY_AFTER, others: Vec::new() };
                match channel.dialect() {
                    _ if channel.is_unproven() => channel.refuse_in_the_clear(TOO_MANY).await,
                    Dialect::Native => channel.send(MessageFrames::busy(&busy)).await,
                    Dialect::Hashicorp => channel.send_error(TOO_MANY).await,
                }
            }
        }
    }

    /// Tells a peer whose push/pull cannot be served to come back. Go's format has no word for that.
    async fn tell_busy<S>(
        &self,
        channel: &mut Channel<S>,
        asker: Option<NodeId>,
        join: bool,
    ) -> Result<(), StreamFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if channel.dialect() == Dialect::Hashicorp {
            self.count(DropReason::TooManyPushPulls).await;
            return channel.send_error(TOO_MANY).await;
        }
        match self.ask(|reply| Command::TellBusy { asker, join, reply }).await {
            Some(busy) => channel.send(MessageFrames::busy(&busy)).await,
            None => Ok(()),
        }
    }

    fn meant_for_another(&self, state: &RemoteState) -> Option<String> {
        let other = state.to.as_ref().filter(|to| **to != self.context.own)?;
        Some(format!("this is {}, not {other}", self.context.own))
    }

    /// Tells a peer whose label or keys do not fit, as far as it can read that, and without telling
    /// what would fit.
    async fn refuse<S>(
        &self,
        channel: &mut Channel<S>,
        error: &LayerError,
    ) -> Result<(), StreamFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let text = match error {
            LayerError::PlaintextRefused => {
                "only encrypted streams are accepted here: this cluster's keyring is needed"
            }
            LayerError::NoKey => "what came is encrypted, and there are no keys here",
            LayerError::WrongKey => {
                "no key here opens what came: compare the keyrings (`keys list`) and labels"
            }
            LayerError::Label(_) if !self.context.layers.sealing.seals_outgoing() => {
                "another label is expected here"
            }
            // A label that does not fit is part of what a key proves: nothing is told about it.
            _ => return Ok(()),
        };
        channel.refuse_in_the_clear(text).await
    }

    async fn count(&self, reason: DropReason) {
        if let Some(commands) = self.commands.upgrade() {
            // If the node is down, nobody counts any more.
            let _ = commands.send(Command::CountDrop { reason }.into()).await;
        }
    }

    /// Answers with the own state as it is before the merge, then merges.
    async fn push_pull<S>(
        &self,
        channel: &mut Channel<S>,
        peer: &Peer,
        state: RemoteState,
    ) -> Result<(), StreamFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(text) = self.meant_for_another(&state) {
            return channel.send_error(&text).await;
        }
        let (asker, join) = (state.from.clone(), state.join);
        let patience = match channel.dialect() {
            // It can be told to come back, so that it does not keep others from coming.
            Dialect::Native => self.context.timeout / 30,
            Dialect::Hashicorp => self.context.timeout / 3,
        };
        let (records, state) = match self.turn(peer.clone(), state, patience).await {
            Some(Ok(served)) => served,
            Some(Err(ExchangeError::Busy { .. })) => {
                return self.tell_busy(channel, asker, join).await;
            }
            Some(Err(refusal)) => {
                let text = text_for_the_refused(&refusal);
                return channel.send_error(&text).await;
            }
            None => return Ok(()),
        };
        let began = Instant::now();
        let answer = answer_with_own_state(channel, &self.context, &state, records);
        let sent = to_its_end(answer, |fault| fault).await;
        if sent.is_ok() {
            channel.meter_push_pull(began);
        }
        #[cfg(feature = "encryption")]
        self.hand_over(channel.opened_with(), channel.begun(), &state).await;
        let state = sent.is_ok().then_some(state);
        if let Some(commands) = self.commands.upgrade() {
            // If the node is down, nobody counts what is being served any more.
            let _ =
                commands.send(Command::FinishPushPull { peer: peer.clone(), state }.into()).await;
        }
        sent
    }

    /// A peer that uses another key than this node's primary is given that.
    #[cfg(feature = "encryption")]
    async fn hand_over(&self, asked_with: Option<KeyName>, begun: StreamKeys, state: &RemoteState) {
        let primary = self.context.layers.sealing.keys().map(|keys| keys.keyring.primary());
        let key = asked_with.filter(|key| Some(*key) != primary);
        let own = state.nodes.iter().find(|record| Some(&record.node.id) == state.from.as_ref());
        let (Some(key), Some(own)) = (key, own) else { return };
        let peer = Peer::named(own.node.addr, own.node.id.clone());
        if let Some(commands) = self.commands.upgrade() {
            // If the node is down, it gives nothing.
            let newcomer = Newcomer { peer, key, begun, joins: state.join };
            let _ = commands.send(Command::HandOver(newcomer).into()).await;
        }
    }

    /// Hands a message to the application; while that has no room, the sender is told to wait.
    async fn deliver<S>(
        &self,
        channel: &mut Channel<S>,
        message: UserMessage,
    ) -> Result<(), StreamFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let receipts = channel.dialect() == Dialect::Native;
        let delivery = Delivery { message, _budget: std::mem::take(&mut channel.budget) }.into();
        let mut waiting = std::pin::pin!(self.messages.send(delivery));
        loop {
            match tokio::time::timeout(self.context.timeout / 3, &mut waiting).await {
                Ok(Ok(())) if receipts => return channel.send(receipt(true)).await,
                // In Go's format the end of the stream is the receipt.
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => {
                    let text = "this node's application takes no messages any more";
                    return channel.send_error(text).await;
                }
                Err(_) if receipts => channel.send(receipt(false)).await?,
                Err(_) => {}
            }
        }
    }

    /// Waits for the turn of a push/pull.
    async fn turn(
        &self,
        peer: Peer,
        state: RemoteState,
        patience: Duration,
    ) -> Option<Result<Served, ExchangeError>> {
        let (reply, mut answer) = oneshot::channel();
        let busy = ExchangeError::Busy { peer: peer.clone(), attempts: 1, retry_after: patience };
        let command = Command::ServePushPull { peer, state, reply };
        self.commands.upgrade()?.send(command.into()).await.ok()?;
        match tokio::time::timeout(patience, &mut answer).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                // What was given at this very moment must be finished.
                answer.close();
                Some(answer.try_recv().unwrap_or(Err(busy)))
            }
        }
    }

    async fn ask<R>(&self, command: impl FnOnce(oneshot::Sender<R>) -> Command) -> Option<R> {
        let (reply, answer) = oneshot::channel();
        self.commands.upgrade()?.send(Box::new(command(reply))).await.ok()?;
        answer.await.ok()
    }
}

async fn answer_with_own_state<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    to: &RemoteState,
    records: Vec<SnapshotRecord>,
) -> Result<(), StreamFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match own_state(context, channel.dialect(), to.from.clone(), to.join, records) {
        Ok(own) => channel.send(own).await,
        Err(fault) => {
            let told = channel.send_error(&fault.to_string()).await;
            told.and(Err(fault))
        }
    }
}

/// The reason without the address, which the peer knows.
fn text_for_the_refused(refusal: &ExchangeError) -> String {
    match refusal {
        ExchangeError::Refused { message, .. }
        | ExchangeError::MergeRefused { message, .. }
        | ExchangeError::Incompatible { message, .. }
        | ExchangeError::BadAnswer { message, .. } => message.clone(),
        other => other.to_string(),
    }
}
