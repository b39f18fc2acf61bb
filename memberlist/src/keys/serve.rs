//! One member's side: asking another, and doing what another asks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memberlist_protocol::wire::stream::{MessageFrames, StreamItem};
use memberlist_protocol::{ExchangeError, NodeId, Peer};
use memberlist_security::{Fingerprint, KeyringFile};
use memberlist_transport::Transport;
use rand::TryRng;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{info, warn};

use super::message::{
    CHALLENGE, DONE, KeyRequest, Once, REFUSED, TOPIC, decode_answer, decode_asked,
    decode_challenge, decode_greeting, encode_asked, encode_challenge, encode_greeting,
    encode_keys,
};
use super::{HeldKey, KeyFailure};
use crate::layers::Keys;
use crate::streams::{Channel, StreamContext, StreamFault, open, unexpected};

/// Asks a member over an encrypted stream; sealed with this key instead of the primary, if it is given.
pub(crate) async fn ask<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
    key: Option<Fingerprint>,
    request: &KeyRequest,
) -> Result<Vec<HeldKey>, KeyFailure> {
    let primary = context.layers.sealing.keys().map(|keys| keys.keyring.primary());
    // Under a seal, whatever the switch for other traffic says.
    let key = key.or(primary);
    let mut channel = open(transport, context, peer, context.timeout, key).await?;
    ask_over(&mut channel, context, peer, request).await
}

/// Greets, is challenged, asks: see [`encode_greeting`].
pub(crate) async fn ask_over<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    peer: &Peer,
    request: &KeyRequest,
) -> Result<Vec<HeldKey>, KeyFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = once().map_err(|fault| fault.into_exchange_error(peer.clone()))?;
    let (status, body) = exchange(channel, context, peer, encode_greeting(&greeting)).await?;
    let challenge = decode_challenge(&body, &greeting).filter(|_| status == CHALLENGE);
    let challenge = challenge.ok_or(KeyFailure::BadAnswer)?;
    let to = peer.name.as_ref().map_or("", NodeId::as_str);
    let asked = encode_asked(&challenge, to, request);
    let (status, body) = exchange(channel, context, peer, asked).await?;
    decode_answer(status, &body, &greeting)
}

async fn exchange<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    peer: &Peer,
    body: Vec<u8>,
) -> Result<(u8, Bytes), KeyFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    let message = MessageFrames::request(context.format, TOPIC, body.into());
    channel.ask(message).await.map_err(fault)?;
    match channel.receive().await.map_err(fault)? {
        // An answer in the clear could be anybody's.
        StreamItem::Response { status, body } if channel.opened_with().is_some() => {
            Ok((status, body))
        }
        StreamItem::Error(message) => Err(KeyFailure::Refused(message)),
        other => Err(unexpected(peer, &other).into()),
    }
}

fn once() -> Result<Once, StreamFault> {
    let mut bytes = Once::default();
    match rand::rngs::SysRng.try_fill_bytes(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(std::io::Error::other(error.to_string()).into()),
    }
}

/// Does what a peer asks over an encrypted stream.
pub(crate) async fn serve<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    peer: &Peer,
    body: &[u8],
) -> Result<(), StreamFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let keys = context.layers.sealing.keys().filter(|_| channel.opened_with().is_some());
    let Some(keys) = keys else {
        let text = "requests about keys are accepted over encrypted streams only";
        return channel.send(MessageFrames::error(context.format, text)).await;
    };
    let Some(greeting) = decode_greeting(body) else {
        let text = "requests about keys begin with a greeting";
        return channel.send(MessageFrames::error(context.format, text)).await;
    };
    let challenge = once()?;
    let body = encode_challenge(&challenge, &greeting);
    channel.send(MessageFrames::response(context.format, CHALLENGE, body.into())).await?;
    let StreamItem::Request { topic: TOPIC, body } = channel.receive().await? else {
        let text = "this message has no place behind a challenge";
        return channel.send(MessageFrames::error(context.format, text)).await;
    };
    let done = match decode_asked(&body, &challenge, context.own.as_str()) {
        Some(request) => {
            let done = apply(keys, &request).await;
            if request != KeyRequest::List {
                let done = done.as_ref().map(|_| ()).map_err(ToString::to_string);
                info!(%peer, request = request.name(), ?done, "keys of this node changed by a member");
            }
            done
        }
        None => Err(KeyFailure::Refused(
            "a request about keys for another stream or member, or not known here".to_owned(),
        )),
    };
    let (status, body) = match done {
        Ok(keys) => (DONE, encode_keys(&keys)),
        Err(KeyFailure::Refused(text)) => (REFUSED, text.into_bytes()),
        Err(other) => (REFUSED, other.to_string().into_bytes()),
    };
    let body = [&greeting[..], &body].concat();
    channel.send(MessageFrames::response(context.format, status, body.into())).await
}

/// Does it on this node's own keyring, and keeps the keyring file up to date.
pub(crate) async fn apply(keys: &Keys, request: &KeyRequest) -> Result<Vec<HeldKey>, KeyFailure> {
    let ring = &keys.keyring;
    let changed = match request {
        KeyRequest::Install(key) => ring.install(key.clone()).map(|_| {
            lock(&keys.travelled).insert(key.fingerprint());
            true
        }),
        KeyRequest::Activate(key) => ring.activate(key).map(|()| true),
        // One that is not there is what was wanted.
        KeyRequest::Remove(key) if !ring.contains(key) => Ok(false),
        KeyRequest::Remove(key) => ring.remove(key).map(|()| true),
        KeyRequest::List => Ok(false),
    };
    if let (KeyRequest::Remove(key), Ok(_)) = (request, &changed) {
        lock(&keys.travelled).remove(key);
        // A rotation that was given up is not gone on with: whoever removes its key does not want it.
        let mut rotating = lock(&keys.rotating);
        if rotating.as_ref().is_some_and(|rotating| rotating.fingerprint() == *key) {
            *rotating = None;
        }
    }
    let changed = changed.map_err(|error| KeyFailure::Refused(error.to_string()))?;
    // What could not be saved before is not done until it is, whatever is asked: a key that comes
    // back with the next start is not removed.
    if changed || keys.unsaved.load(Ordering::Relaxed) {
        keys.unsaved.store(true, Ordering::Relaxed);
        save(keys).await?;
    }
    let held = ring.list().into_iter().map(|info| HeldKey {
        fingerprint: info.fingerprint,
        size: info.size,
        primary: info.primary,
    });
    Ok(held.collect())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn save(keys: &Keys) -> Result<(), KeyFailure> {
    let Some(path) = keys.file.clone() else { return Ok(()) };
    // Whoever saves last saves what is there then. The turn ends with the writing, even if nobody
    // waits for it any more.
    let turn = Arc::clone(&keys.saving).lock_owned().await;
    let (ring, unsaved) = (keys.keyring.clone(), Arc::clone(&keys.unsaved));
    let saving = move || {
        let _turn = turn;
        unsaved.store(false, Ordering::Relaxed);
        let saved = KeyringFile::save(path, &ring.keys());
        if saved.is_err() {
            unsaved.store(true, Ordering::Relaxed);
        }
        saved
    };
    let saved = tokio::task::spawn_blocking(saving).await;
    let error = match saved {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => {
            keys.unsaved.store(true, Ordering::Relaxed);
            panicked.to_string()
        }
    };
    warn!(
        error,
        "the keyring was changed, but its file was not: after a restart the change is lost"
    );
    Err(KeyFailure::Refused(format!("done, but not saved: {error}")))
}

/// Gives a peer that still uses another key than the primary this node's primary, so that it
/// understands the others: it has joined, or come back, during a rotation.
pub(crate) async fn hand_over<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
    its_key: Fingerprint,
) {
    let Some(keys) = context.layers.sealing.keys() else { return };
    let Some(primary) = keys.keyring.keys().into_iter().next() else { return };
    // One that was brought by hand may not be sent under the others: they may be why.
    if primary.fingerprint() == its_key || !lock(&keys.travelled).contains(&primary.fingerprint()) {
        return;
    }
    let request = KeyRequest::Install(primary);
    match ask(transport, context, peer, Some(its_key), &request).await {
        Ok(_) => info!(%peer, "gave the primary key to a member that uses an older one"),
        Err(KeyFailure::Exchange(ExchangeError::Cancelled)) => {}
        Err(failure) => warn!(%peer, %failure, "could not give the primary key to a member"),
    }
}
