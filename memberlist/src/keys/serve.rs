//! One member's side: asking another, and doing what another asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memberlist_protocol::wire::Dialect;
use memberlist_protocol::wire::stream::{MessageFrames, StreamItem};
use memberlist_protocol::{ExchangeError, NodeId, Peer, Shown};
use memberlist_security::{
    Fingerprint, Keyring, KeyringError, KeyringFile, KeyringFileError, SecretKey,
};
use memberlist_transport::Transport;
use rand::TryRng;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{info, warn};

use super::message::{
    CHALLENGE, DONE, KeyRequest, NOT_SAVED, Once, REFUSED, TOPIC, decode_answer, decode_asked,
    decode_challenge, decode_greeting, encode_asked, encode_challenge, encode_greeting,
    encode_keys,
};
use super::{HeldKey, KeyFailure};
use crate::layers::{Changes, Keys, StreamKeys};
use crate::streams::{Channel, StreamContext, StreamFault, open, unexpected};

/// Asks a member over an encrypted stream; sealed with this key instead of the primary, if it is given,
/// which may be one that is only among the keys that there were when something was begun.
pub(crate) async fn ask<T: Transport>(
    transport: &T,
    context: &StreamContext,
    peer: &Peer,
    key: Option<Fingerprint>,
    begun: Option<&StreamKeys>,
    request: &KeyRequest,
) -> Result<Vec<HeldKey>, KeyFailure> {
    let primary = context.layers.sealing.keys().map(|keys| keys.keyring.primary());
    // Under a seal, whatever the switch for other traffic says.
    let key = key.or(primary);
    let mut channel = open(transport, context, peer, Dialect::Native, context.timeout, key).await?;
    if let Some(begun) = begun {
        channel.begin_with(begun);
    }
    ask_over(&mut channel, peer, request).await
}

/// Greets, is challenged, asks: see [`encode_greeting`].
pub(crate) async fn ask_over<S>(
    channel: &mut Channel<S>,
    peer: &Peer,
    request: &KeyRequest,
) -> Result<Vec<HeldKey>, KeyFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = once().map_err(|fault| fault.into_exchange_error(peer.clone()))?;
    let (status, body) = exchange(channel, peer, encode_greeting(&greeting)).await?;
    let challenge = decode_challenge(&body, &greeting).filter(|_| status == CHALLENGE);
    let challenge = challenge.ok_or(KeyFailure::BadAnswer)?;
    let to = peer.name.as_ref().map_or("", NodeId::as_str);
    let asked = encode_asked(&challenge, to, request);
    let (status, body) = exchange(channel, peer, asked).await?;
    decode_answer(status, &body, &greeting)
}

async fn exchange<S>(
    channel: &mut Channel<S>,
    peer: &Peer,
    body: Vec<u8>,
) -> Result<(u8, Bytes), KeyFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let fault = |fault: StreamFault| fault.into_exchange_error(peer.clone());
    let message = MessageFrames::request(TOPIC, body.into());
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
        return channel.send_error(text).await;
    };
    let Some(greeting) = decode_greeting(body) else {
        let text = "requests about keys begin with a greeting";
        return channel.send_error(text).await;
    };
    let challenge = once()?;
    let body = encode_challenge(&challenge, &greeting);
    channel.send(MessageFrames::response(CHALLENGE, body.into())).await?;
    let StreamItem::Request { topic: TOPIC, body } = channel.receive().await? else {
        let text = "this message has no place behind a challenge";
        return channel.send_error(text).await;
    };
    let done = match decode_asked(&body, &challenge, context.own.as_str()) {
        // A stream that was begun with a key goes on when that is removed, but changes no keys.
        Some(_) if !channel.opened_with().is_some_and(|key| keys.keyring.contains(&key)) => {
            Err(KeyFailure::Refused("the key of this request was removed".to_owned()))
        }
        Some(request) => {
            let done = apply(keys, &request).await;
            if request != KeyRequest::List {
                note_change(keys, peer, &request, &done);
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
        Err(KeyFailure::NotSaved(text)) => (NOT_SAVED, text.into_bytes()),
        Err(other) => (REFUSED, other.to_string().into_bytes()),
    };
    let body = [&greeting[..], &body].concat();
    channel.send(MessageFrames::response(status, body.into())).await
}

fn note_change(
    keys: &Keys,
    peer: &Peer,
    request: &KeyRequest,
    done: &Result<Vec<HeldKey>, KeyFailure>,
) {
    let Some(more) = keys.lines.changed.allow() else { return };
    let done = done.as_ref().map(|_| ()).map_err(ToString::to_string);
    info!(peer = %Shown(peer), request = request.name(), ?done, more, "keys of this node changed by a member");
}

/// Does it on this node's own keyring, and keeps the keyring file up to date.
pub(crate) async fn apply(keys: &Keys, request: &KeyRequest) -> Result<Vec<HeldKey>, KeyFailure> {
    let changed = {
        let mut changes = lock(&keys.changes);
        let changed = change(&keys.keyring, request);
        changes.made += u64::from(changed == Ok(true));
        changed
    };
    if changed.is_ok() {
        note(keys, request);
    }
    changed.map_err(|error| KeyFailure::Refused(error.to_string()))?;
    // What could not be saved before is not done until it is, whatever is asked: a key that comes
    // back with the next start is not removed.
    save(keys).await?;
    Ok(keys.keyring.list().into_iter().map(HeldKey::from).collect())
}

/// Tells whether the file has to be written.
fn change(ring: &Keyring, request: &KeyRequest) -> Result<bool, KeyringError> {
    let removed = match request {
        KeyRequest::List => return Ok(false),
        KeyRequest::Install(key) => return ring.install(key.clone()).map(|_| true),
        KeyRequest::Activate(key, None) => return ring.activate(key).map(|()| true),
        KeyRequest::Activate(key, Some(revision)) => {
            return ring.activate_if(key, *revision).map(|()| true);
        }
        // The file does not tell which are retired.
        KeyRequest::Retire(key) => ring.retire(key).map(|()| false),
        KeyRequest::Remove(key, None) => ring.remove(key).map(|()| true),
        KeyRequest::Remove(key, Some(revision)) => ring.remove_if(key, *revision).map(|()| true),
    };
    match removed {
        // One that is not there is what was wanted.
        Err(KeyringError::NotInstalled(_)) => Ok(false),
        removed => removed,
    }
}

/// What is remembered of a key beside the keyring.
fn note(keys: &Keys, request: &KeyRequest) {
    match request {
        KeyRequest::Install(key) => drop(lock(&keys.travelled).insert(key.fingerprint())),
        KeyRequest::Remove(key, _) => {
            lock(&keys.travelled).remove(key);
            // A rotation that was given up is not gone on with: whoever removes its key does not want
            // it.
            lock(&keys.rotating).take_if(|rotating| rotating.key.fingerprint() == *key);
        }
        _ => {}
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the file has all changes.
async fn save(keys: &Keys) -> Result<(), KeyFailure> {
    let Some(path) = keys.file.clone() else { return Ok(()) };
    let unsaved = |changes: &Changes| changes.made != changes.saved;
    if !unsaved(&lock(&keys.changes)) {
        return Ok(());
    }
    // Whoever saves last saves what is there then. The turn ends with the writing, even if nobody
    // waits for it any more.
    let turn = Arc::clone(&keys.saving).lock_owned().await;
    let (ring, changes) = (keys.keyring.clone(), Arc::clone(&keys.changes));
    let saving = move || {
        let _turn = turn;
        let (made, held) = {
            let changes = lock(&changes);
            if !unsaved(&changes) {
                return Ok(());
            }
            (changes.made, ring.keys())
        };
        KeyringFile::save(path, &held)?;
        lock(&changes).saved = made;
        Ok(())
    };
    let saved: Result<Result<(), KeyringFileError>, _> = tokio::task::spawn_blocking(saving).await;
    let error = match saved {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    if let Some(more) = keys.lines.unsaved.allow() {
        warn!(
            error,
            more,
            "the keyring was changed, but its file was not: after a restart the change is lost"
        );
    }
    Err(KeyFailure::NotSaved(error))
}

/// Gives a peer that still uses another key than the primary this node's primary, so that it
/// understands the others: it has joined, or come back, during a rotation. One that joins is made to
/// seal with it as well, since whoever rotates may not hear of it in time.
pub(crate) async fn hand_over<T: Transport>(
    transport: &T,
    context: &StreamContext,
    newcomer: Newcomer,
) {
    let Some(keys) = context.layers.sealing.keys() else { return };
    let Some(primary) = newer_primary(keys, newcomer.key) else { return };
    let given = give(transport, context, keys, &newcomer, primary).await;
    if matches!(given, Err(KeyFailure::Exchange(ExchangeError::Cancelled))) {
        return;
    }
    let Some(more) = keys.lines.given.allow() else { return };
    let peer = Shown(&newcomer.peer);
    match given {
        Ok(()) => info!(%peer, more, "gave the primary key to a member that uses an older one"),
        Err(failure) => {
            warn!(%peer, failure = %Shown(failure), more, "could not give the primary key to a member");
        }
    }
}

async fn give<T: Transport>(
    transport: &T,
    context: &StreamContext,
    keys: &Keys,
    newcomer: &Newcomer,
    primary: SecretKey,
) -> Result<(), KeyFailure> {
    let (peer, name) = (&newcomer.peer, primary.fingerprint());
    let (with, begun) = (Some(newcomer.key), Some(&newcomer.begun));
    let request = KeyRequest::Install(primary);
    let held = ask(transport, context, peer, with, begun, &request).await?;
    let given = held.iter().find(|held| held.fingerprint == name && !held.primary);
    // No member removes what is the primary of another: while it is one here, it may be one there.
    let wanted = newcomer.joins && keys.keyring.primary() == name;
    let Some(given) = given.filter(|_| wanted) else { return Ok(()) };
    let request = KeyRequest::Activate(name, Some(given.revision));
    ask(transport, context, peer, Some(name), None, &request).await.map(drop)
}

/// A peer that has exchanged states under another key than this node's primary.
pub(crate) struct Newcomer {
    pub(crate) peer: Peer,
    /// The key that it used.
    pub(crate) key: Fingerprint,
    /// The keys of this node when the exchange began: the other may be gone when the peer is dialled.
    pub(crate) begun: StreamKeys,
    /// Whether it was its first exchange.
    pub(crate) joins: bool,
}

/// The primary, if it has been sent about the cluster after that key: one that was brought by hand may
/// not be sent under the others, which may be why. And whoever has missed a rotation must not give its
/// old key to those who have not.
pub(super) fn newer_primary(keys: &Keys, than: Fingerprint) -> Option<SecretKey> {
    let held = keys.keyring.list();
    let primary = held.first().filter(|primary| primary.fingerprint != than)?;
    let other = held.iter().find(|held| held.fingerprint == than);
    let newer = other.is_none_or(|other| other.retired || other.revision < primary.revision);
    let name = primary.fingerprint;
    let travelled = lock(&keys.travelled).contains(&name);
    let mut all = keys.keyring.keys().into_iter();
    all.find(|key| key.fingerprint() == name).filter(|_| newer && travelled)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use memberlist_security::Version;
    use tracing::span;

    use super::*;
    use crate::layers::{KEY_LINES, Sealing};

    /// Counts lines.
    struct Count(Arc<AtomicU64>);

    impl tracing::Subscriber for Count {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn a_member_that_changes_keys_without_end_fills_no_log() {
        let (lines, peer) = (
            Arc::<AtomicU64>::default(),
            Peer::from(std::net::SocketAddr::from(([10, 0, 0, 1], 1))),
        );
        let key = SecretKey::generate(memberlist_security::KeySize::Bits128).unwrap();
        let request = KeyRequest::Install(key.clone());
        let sealing = Sealing::new(Some(&crate::Encryption::new(Keyring::new(key))), Version::V1);
        let keys = sealing.keys().unwrap();
        tracing::subscriber::with_default(Count(Arc::clone(&lines)), || {
            (0..1000).for_each(|_| note_change(keys, &peer, &request, &Ok(Vec::new())));
        });
        assert_eq!(lines.load(Ordering::Relaxed), KEY_LINES);
    }
}
