//! Streams that peers open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use memberlist_protocol::wire::Dialect;
use memberlist_protocol::wire::stream::{MessageFrames, RemoteState, SnapshotRecord, StreamItem};
use memberlist_protocol::{DropReason, ExchangeError, Peer, SYNC_TOPIC};
use memberlist_transport::{RecvError, Source, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, warn};

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
use crate::user_state;

/// What a task that serves one stream needs.
struct Server {
    context: StreamContext,
    commands: mpsc::WeakSender<Command>,
    messages: mpsc::Sender<Delivery>,
}

/// Accepts streams until the transport is closed. Dropping the future ends every stream that is
/// being served.
pub(crate) async fn accept_streams<T: Transport>(
    transport: Arc<T>,
    context: StreamContext,
    commands: mpsc::WeakSender<Command>,
    messages: mpsc::Sender<Delivery>,
    max_streams: usize,
    shared: Arc<Shared>,
) {
    let server = Arc::new(Server { context, commands, messages });
    let mut serving = JoinSet::new();
    let (mut unaccepted, mut backoff) = (RateLimit::default(), Backoff::default());
    loop {
        let accepted = transport.accept_stream().await;
        if accepted.is_ok() {
            backoff.reset();
        }
        while serving.try_join_next().is_some() {}
        match accepted {
            Ok((stream, source)) if serving.len() < max_streams => {
                serving.spawn(serve(stream, source, Arc::clone(&server)));
            }
            Ok((_, source)) => {
                shared.streams_refused.fetch_add(1, Ordering::Relaxed);
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

async fn serve<S>(stream: S, source: Source, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(peer) = peer_of(&source) else {
        debug!(from = %source.addr, "stream closed at once: no member can have its verified name");
        return server.count(DropReason::IdentityMismatch).await;
    };
    let mut channel = Channel::accepted(stream, server.context.clone());
    let outcome = match channel.receive().await {
        Ok(item) => server.answer(&mut channel, &peer, item).await,
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
            let _ = commands.send(Command::CountDrop { reason }).await;
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
        if let Some(other) = state.to.as_ref().filter(|to| **to != self.context.own) {
            let text = format!("this is {}, not {other}", self.context.own);
            return channel.send_error(&text).await;
        }
        let command = |reply| Command::ServePushPull { peer: peer.clone(), state, reply };
        let (records, state) = match self.ask(command).await {
            Some(Ok(served)) => served,
            Some(Err(refusal)) => {
                let text = text_for_the_refused(&refusal);
                return channel.send_error(&text).await;
            }
            None => return Ok(()),
        };
        let answer = answer_with_own_state(channel, &self.context, &state, records);
        let sent = to_its_end(answer, |fault| fault).await;
        #[cfg(feature = "encryption")]
        self.hand_over(channel.opened_with(), channel.begun(), &state).await;
        let state = sent.is_ok().then_some(state);
        if let Some(commands) = self.commands.upgrade() {
            // If the node is down, nobody counts what is being served any more.
            let _ = commands.send(Command::FinishPushPull { peer: peer.clone(), state }).await;
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
            let _ = commands.send(Command::HandOver(newcomer)).await;
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
        let delivery = Delivery { message, _budget: std::mem::take(&mut channel.budget) };
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

    async fn ask<R>(&self, command: impl FnOnce(oneshot::Sender<R>) -> Command) -> Option<R> {
        let (reply, answer) = oneshot::channel();
        self.commands.upgrade()?.send(command(reply)).await.ok()?;
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
