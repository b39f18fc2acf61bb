//! Exchange of the applications' states alone, as far as they have changed (`docs/WIRE.md`).
//!
//! A push/pull brings the application's state along with the members. Where members are compared by
//! digests instead, so is this: each side shows the digest of its state, and a state travels only to
//! who has neither it nor an equal one. With unchanged states an exchange is two short messages.
//!
//! Invariant: what is remembered of a peer is the digest of the last bytes of that peer's which this
//! node's delegate is told of, computed here. Bytes for which there was no room are not remembered, so
//! they come again. Two states of one digest are taken for one: that a state has changed is then not
//! noticed until its next change or the next full push/pull. The key of the digest is known to all, so
//! who may choose what is in a state may be able to make such a pair; it is no signature.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memberlist_protocol::wire::Dialect;
use memberlist_protocol::wire::stream::{MessageFrames, StreamError, StreamItem};
use memberlist_protocol::{DropReason, ExchangeError, NodeId, Peer, StreamResponse};
use memberlist_transport::Transport;
use siphasher::sip128::SipHasher13;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::events::{Hub, Notice};
use crate::streams::{Channel, StreamContext, StreamFault, application_state, open, unexpected};

#[cfg(test)]
mod tests;

/// The topic of requests about the application's state.
pub(crate) const TOPIC: u16 = 2;

/// Peers of which is remembered what was merged from them last.
const MAX_REMEMBERED: usize = 4096;

const DIGEST_KEY: &[u8; 16] = b"memberlist state";

/// The status of every response; a refusal is an error.
const DONE: u8 = 0;

/// Flags of an answer.
const WANTED: u8 = 1;
const FOLLOWS: u8 = 2;

/// What tells one state from another: SipHash-1-3 of 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Digest([u8; 16]);

impl Digest {
    /// Nothing for an empty state, which is none.
    fn of(state: &[u8]) -> Option<Self> {
        let digest = || Self(SipHasher13::new_with_key(DIGEST_KEY).hash(state).as_bytes());
        (!state.is_empty()).then(digest)
    }
}

// ---- what was merged ------------------------------------------------------------------------------

/// The way of others' states to the delegate, and what it was told of last, by peer.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct UserStates {
    hub: Arc<Hub>,
    merged: Mutex<Merged>,
    /// Questions that are being answered: each may hold a whole state.
    serving: AtomicUsize,
}

/// A question that is being answered.
struct Serving<'a>(&'a AtomicUsize);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A state that waits for the delegate, whose digest is not known yet.
pub(crate) struct Unremembered {
    from: NodeId,
    turn: u64,
    state: Bytes,
}

impl UserStates {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, merged: Mutex::default(), serving: AtomicUsize::new(0) }
    }

    /// A place to answer a question, if fewer than so many are being answered.
    fn serving(&self, most: usize) -> Option<Serving<'_>> {
        let taken = Serving(&self.serving);
        let others = self.serving.fetch_add(1, Ordering::Relaxed);
        (others < most).then_some(taken)
    }

    /// What was merged last from that peer.
    fn held(&self, from: &NodeId) -> Option<Digest> {
        self.merged().held(from)
    }

    /// Tells the delegate of a state with that digest, unless this is what it was told of last; says
    /// whether there was room.
    fn merge(&self, from: &NodeId, digest: Digest, state: Bytes) -> bool {
        // Held until it is remembered, so that the order is that of the queue.
        let mut merged = self.merged();
        if merged.held(from) == Some(digest) {
            return true;
        }
        let from_there = Some(from.clone());
        let taken = self.hub.publish(Notice::UserState { from: from_there, state, join: false });
        if taken {
            merged.put(from, Some(digest));
        }
        taken
    }

    /// Tells the delegate of a state that came with a push/pull. What was merged before from that peer
    /// is forgotten at once; [`remember`](Self::remember) is to follow where there is time for it. One of
    /// a join is not remembered: an application may take less from it than from any other.
    pub(crate) fn merge_pushed(
        &self,
        from: Option<NodeId>,
        state: Bytes,
        join: bool,
    ) -> Option<Unremembered> {
        let mut merged = self.merged();
        let notice = Notice::UserState { from: from.clone(), state: state.clone(), join };
        let taken = self.hub.publish(notice);
        let from = from.filter(|_| taken)?;
        if join {
            merged.forget(&from);
            return None;
        }
        let turn = merged.put(&from, None);
        Some(Unremembered { from, turn, state })
    }

    /// The delegate has failed to take a state of that peer's: it may come again.
    pub(crate) fn forget(&self, from: &NodeId) {
        self.merged().forget(from);
    }

    /// Remembers that state, unless another has come from there meanwhile.
    pub(crate) fn remember(&self, Unremembered { from, turn, state }: Unremembered) {
        let digest = Digest::of(&state);
        let mut merged = self.merged();
        if let Some(held) = merged.digests.get_mut(&from).filter(|held| held.turn == turn) {
            held.digest = digest;
        }
    }

    fn merged(&self) -> MutexGuard<'_, Merged> {
        // What it guards is consistent after every call: see `events`.
        self.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last state merged from each peer, as digests; the oldest is forgotten.
#[derive(Debug, Default)]
struct Merged {
    digests: HashMap<NodeId, Held>,
    /// By their turns.
    order: BTreeMap<u64, NodeId>,
    turns: u64,
}

#[derive(Debug)]
struct Held {
    /// Nothing while it is not known.
    digest: Option<Digest>,
    turn: u64,
}

impl Merged {
    fn held(&self, from: &NodeId) -> Option<Digest> {
        self.digests.get(from)?.digest
    }

    fn put(&mut self, from: &NodeId, digest: Option<Digest>) -> u64 {
        self.turns += 1;
        let turn = self.turns;
        if let Some(old) = self.digests.insert(from.clone(), Held { digest, turn }) {
            self.order.remove(&old.turn);
        }
        self.order.insert(turn, from.clone());
        if self.digests.len() > MAX_REMEMBERED {
            if let Some((_, oldest)) = self.order.pop_first() {
                self.digests.remove(&oldest);
            }
        }
        turn
    }

    fn forget(&mut self, from: &NodeId) {
        if let Some(old) = self.digests.remove(from) {
            self.order.remove(&old.turn);
        }
    }
}

// ---- messages -------------------------------------------------------------------------------------

/// What is asked first.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Question {
    from: NodeId,
    /// Whoever else has taken the address must not answer.
    to: NodeId,
    /// The asker's state.
    own: Option<Digest>,
    /// What the asker has merged last of the other's.
    held: Option<Digest>,
}

impl Question {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for name in [&self.from, &self.to] {
            // Names have at most 255 bytes.
            body.push(name.as_str().len() as u8);
            body.extend_from_slice(name.as_str().as_bytes());
        }
        write_digest(self.own, &mut body);
        write_digest(self.held, &mut body);
        body
    }

    fn decode(mut body: &[u8]) -> Result<Self, StreamError> {
        let bad = StreamError::Malformed("a question about user states");
        let rest = &mut body;
        let mut read = || {
            let (from, to) = (read_name(rest)?, read_name(rest)?);
            let question = Self { from, to, own: read_digest(rest)?, held: read_digest(rest)? };
            rest.is_empty().then_some(question)
        };
        read().ok_or(bad)
    }
}

/// What is answered. If a state follows, it is a response of its own: so either side's state may be as
/// long as a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Answer {
    /// The asker's state is wanted.
    wanted: bool,
    /// The answering side's state follows.
    follows: bool,
    own: Option<Digest>,
}

impl Answer {
    /// To that question, of a node with that state that has merged this one of the asker's last.
    fn to(question: &Question, own: Option<Digest>, held: Option<Digest>) -> Self {
        Self {
            wanted: is_wanted(question.own, own, held),
            follows: is_wanted(own, question.own, question.held),
            own,
        }
    }

    /// Whether that is an answer to this question.
    fn fits(&self, question: &Question) -> bool {
        self.follows == is_wanted(self.own, question.own, question.held)
            && (!self.wanted || is_wanted(question.own, self.own, None))
    }

    fn encode(self) -> Vec<u8> {
        let mut body = vec![u8::from(self.wanted) * WANTED + u8::from(self.follows) * FOLLOWS];
        write_digest(self.own, &mut body);
        body
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (&flags, mut rest) = body.split_first()?;
        let own = read_digest(&mut rest)?;
        let (wanted, follows) = (flags & WANTED != 0, flags & FOLLOWS != 0);
        rest.is_empty().then_some(Self { wanted, follows, own })
    }
}

/// Whether that state is to go to a node with this one that has merged `held` last.
fn is_wanted(state: Option<Digest>, own: Option<Digest>, held: Option<Digest>) -> bool {
    state.is_some() && state != own && state != held
}

fn write_digest(digest: Option<Digest>, body: &mut Vec<u8>) {
    body.push(u8::from(digest.is_some()));
    body.extend(digest.iter().flat_map(|digest| digest.0));
}

fn read_digest(body: &mut &[u8]) -> Option<Option<Digest>> {
    let (&present, rest) = body.split_first()?;
    let (digest, rest) = match present {
        0 => (None, rest),
        1 => rest.split_first_chunk().map(|(digest, rest)| (Some(Digest(*digest)), rest))?,
        _ => return None,
    };
    *body = rest;
    Some(digest)
}

fn read_name(body: &mut &[u8]) -> Option<NodeId> {
    let (&len, rest) = body.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(len))?;
    *body = rest;
    NodeId::new(std::str::from_utf8(name).ok()?).ok()
}

// ---- the side that asks ---------------------------------------------------------------------------

/// What the application of this node gives for its state.
struct Own {
    state: Bytes,
    digest: Option<Digest>,
}

impl Own {
    fn ask(context: &StreamContext) -> Result<Self, StreamFault> {
        let state = application_state(context, false)?;
        let (len, limit) = (state.len(), context.limits.max_user_bytes);
        if len > limit {
            // The peer would read all of that before it refuses, turn by turn.
            let text = format!("this node's application has {len} bytes of state, over {limit}");
            return Err(io::Error::other(text).into());
        }
        Ok(Self { digest: Digest::of(&state), state })
    }
}

/// Exchanges the applications' states with a member. A node that has none opens no stream: who has one
/// asks by itself.
pub(crate) async fn exchange<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
) -> Result<StreamResponse, ExchangeError> {
    let own = Own::ask(context).map_err(|fault| fault.into_exchange_error(peer.clone()))?;
    if own.digest.is_some() {
        let within = context.timeout;
        let mut channel = open(transport, context, peer, Dialect::Native, within, None).await?;
        ask(&mut channel, context, peer, own).await?;
    }
    Ok(StreamResponse::UserState)
}

async fn ask<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    peer: &Peer,
    own: Own,
) -> Result<(), ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    let bad = |message: &str| {
        Err(ExchangeError::BadAnswer { peer: peer.clone(), message: message.to_owned() })
    };
    // What is merged is remembered by name.
    let Some(to) = peer.name.clone() else { return Err(ExchangeError::Cancelled) };
    let held = context.user_states.held(&to);
    let question = Question { from: context.own.clone(), to, own: own.digest, held };
    let request = MessageFrames::request(TOPIC, question.encode().into());
    channel.ask(request).await.map_err(fault)?;
    let answer = match Answer::decode(&response(channel, peer).await?) {
        Some(answer) if answer.fits(&question) => answer,
        Some(_) => return bad("it sends or wants a user state that it should not, or sends none"),
        None => return bad("an answer about user states that is not understood"),
    };
    if answer.follows {
        let state = response(channel, peer).await?;
        match Digest::of(&state).filter(|digest| Some(*digest) == answer.own) {
            Some(digest) => {
                // If there is no room, that is counted, and the state comes again.
                let _ = context.user_states.merge(&question.to, digest, state);
            }
            None => return bad("its user state is another than its digest says"),
        }
    }
    if answer.wanted {
        channel.ask(MessageFrames::request(TOPIC, own.state)).await.map_err(fault)?;
        if !response(channel, peer).await?.is_empty() {
            return bad("more than a receipt for a user state");
        }
    }
    Ok(())
}

async fn response<S>(channel: &mut Channel<S>, peer: &Peer) -> Result<Bytes, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match channel.receive().await {
        Ok(StreamItem::Response { status: DONE, body }) => Ok(body),
        Ok(StreamItem::Error(message)) => {
            Err(ExchangeError::Refused { peer: peer.clone(), message })
        }
        Ok(other) => Err(unexpected(peer, &other)),
        Err(fault) => Err(fault.into_exchange_error(peer.clone())),
    }
}

// ---- the side that answers ------------------------------------------------------------------------

/// Answers a question about user states, and takes the asker's if it is wanted. Gives a reason to be
/// counted if the asker was refused; content that is not understood is left to the caller.
pub(crate) async fn serve<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    peer: &Peer,
    body: &[u8],
) -> Result<Option<DropReason>, StreamFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let question = Question::decode(body)?;
    if question.to != context.own {
        let text = format!("this is {}, not {}", context.own, question.to);
        return channel.send_error(&text).await.map(|()| Some(DropReason::WrongNode));
    }
    if let Some(name) = peer.name.as_ref().filter(|name| **name != question.from) {
        let text = format!("{name} cannot ask for {}", question.from);
        return channel.send_error(&text).await.map(|()| Some(DropReason::IdentityMismatch));
    }
    let Some(_serving) = context.user_states.serving(context.max_user_states) else {
        let text = "too many user states are being exchanged here; try again later";
        return channel.send_error(text).await.map(|()| Some(DropReason::TooManyPushPulls));
    };
    let own = match Own::ask(context) {
        Ok(own) => own,
        Err(fault) => {
            let told = channel.send_error(&fault.to_string()).await;
            return told.and(Err(fault));
        }
    };
    let states = &context.user_states;
    let answer = Answer::to(&question, own.digest, states.held(&question.from));
    // One that is not sent is let go before the peer is waited for.
    let own = Some(own.state).filter(|_| answer.follows);
    channel.send(MessageFrames::response(DONE, answer.encode().into())).await?;
    if let Some(state) = own {
        channel.send(MessageFrames::response(DONE, state)).await?;
    }
    if !answer.wanted {
        return Ok(None);
    }
    let StreamItem::Request { topic: TOPIC, body: state } = channel.receive().await? else {
        let text = "this message has no place in an exchange of user states";
        return channel.send_error(text).await.map(|()| Some(DropReason::UnknownKind));
    };
    let digest = Digest::of(&state).filter(|digest| Some(*digest) == question.own);
    let Some(digest) = digest else {
        let text = "a user state is another than its digest says";
        return Err(StreamError::Malformed(text).into());
    };
    if !states.merge(&question.from, digest, state) {
        let text = "too many states wait for this node's application";
        return channel.send_error(text).await.map(|()| None);
    }
    channel.send(MessageFrames::response(DONE, Bytes::new())).await.map(|()| None)
}
