//! One member's side: asking another, and doing what another asks.

use bytes::Bytes;
use memberlist_protocol::wire::stream::{MessageFrames, StreamItem};
use memberlist_protocol::{ExchangeError, Peer};
use memberlist_security::{Fingerprint, KeyringFile};
use memberlist_transport::Transport;
use rand::TryRng;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{info, warn};

use super::message::{
    DONE, KeyRequest, Mark, REFUSED, TOPIC, after_mark, decode_answer, decode_begin, encode_begin,
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
    ask_on(&mut channel, context, peer, request).await
}

async fn ask_on<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    peer: &Peer,
    request: &KeyRequest,
) -> Result<Vec<HeldKey>, KeyFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let own = mark()?;
    let theirs = exchange(channel, context, peer, encode_begin(&own)).await?;
    let theirs = match theirs {
        (DONE, body) => after_mark(&body, &own).map(<[u8]>::to_vec).ok_or(KeyFailure::BadAnswer)?,
        (status, body) => return decode_answer(status, &body),
    };
    let request = [&theirs[..], &request.encode()].concat();
    let (status, body) = exchange(channel, context, peer, request).await?;
    decode_answer(status, after_mark(&body, &own).ok_or(KeyFailure::BadAnswer)?)
}

/// One message there, and the answer.
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
    channel.send(message).await.map_err(fault)?;
    match channel.receive().await.map_err(fault)? {
        // An answer in the clear could be anybody's.
        StreamItem::Response { status, body } if channel.opened_with().is_some() => {
            Ok((status, body))
        }
        StreamItem::Error(message) => Err(KeyFailure::Refused(message)),
        other => Err(unexpected(peer, &other).into()),
    }
}

fn mark() -> Result<Mark, KeyFailure> {
    let mut mark = Mark::default();
    let filled = rand::rngs::SysRng.try_fill_bytes(&mut mark);
    filled.map_err(|error| KeyFailure::Refused(format!("no randomness here: {error}")))?;
    Ok(mark)
}

/// Does what a peer asks over an encrypted stream; `body` is its first message.
pub(crate) async fn serve<S>(
    channel: &mut Channel<S>,
    context: &StreamContext,
    peer: &Peer,
    body: &[u8],
) -> Result<(), StreamFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let format = context.format;
    let keys = context.layers.sealing.keys().filter(|_| channel.opened_with().is_some());
    let (Some(keys), Some(theirs)) = (keys, decode_begin(body)) else {
        let text =
            "requests about keys are accepted over encrypted streams only, and begin with a mark";
        return channel.send(MessageFrames::error(format, text)).await;
    };
    let own = match mark() {
        Ok(own) => own,
        Err(failure) => {
            return channel.send(MessageFrames::error(format, &failure.to_string())).await;
        }
    };
    let begun = [&theirs[..], &own].concat();
    channel.send(MessageFrames::response(format, DONE, begun.into())).await?;
    let body = match channel.receive().await? {
        StreamItem::Request { topic: TOPIC, body } if channel.opened_with().is_some() => body,
        _ => return Ok(()),
    };
    let done = match after_mark(&body, &own).and_then(KeyRequest::decode) {
        Some(request) => carry_out(keys, peer, &request).await,
        None => Err(KeyFailure::Refused("a request about keys that is not known here".to_owned())),
    };
    let (status, body) = match done {
        Ok(keys) => (DONE, encode_keys(&keys)),
        Err(KeyFailure::Refused(text)) => (REFUSED, text.into_bytes()),
        Err(other) => (REFUSED, other.to_string().into_bytes()),
    };
    let answer = [&theirs[..], &body].concat();
    channel.send(MessageFrames::response(format, status, answer.into())).await
}

async fn carry_out(
    keys: &Keys,
    peer: &Peer,
    request: &KeyRequest,
) -> Result<Vec<HeldKey>, KeyFailure> {
    let done = apply(keys, request).await;
    if *request != KeyRequest::List {
        let done = done.as_ref().map(|_| ()).map_err(ToString::to_string);
        info!(%peer, request = request.name(), ?done, "a member changed this node's keys");
    }
    done
}

/// Does it on this node's own keyring, and keeps the keyring file up to date.
pub(crate) async fn apply(keys: &Keys, request: &KeyRequest) -> Result<Vec<HeldKey>, KeyFailure> {
    let ring = &keys.keyring;
    let changed = match request {
        KeyRequest::Install(key) => ring.install(key.clone()).map(|_| true),
        KeyRequest::Activate(key) => ring.activate(key).map(|()| true),
        // One that is not there is what was wanted.
        KeyRequest::Remove(key) if !ring.contains(key) => Ok(false),
        KeyRequest::Remove(key) => ring.remove(key).map(|()| true),
        KeyRequest::List => Ok(false),
    };
    let changed = changed.map_err(|error| KeyFailure::Refused(error.to_string()))?;
    if changed {
        save(keys).await?;
    }
    let held = ring.list().into_iter().map(|info| HeldKey {
        fingerprint: info.fingerprint,
        size: info.size,
        primary: info.primary,
    });
    Ok(held.collect())
}

async fn save(keys: &Keys) -> Result<(), KeyFailure> {
    let Some(path) = keys.file.clone() else { return Ok(()) };
    // Whoever saves last saves what is there then.
    let _turn = keys.saving.lock().await;
    let ring = keys.keyring.clone();
    let saved = tokio::task::spawn_blocking(move || KeyringFile::save(path, &ring.keys())).await;
    let error = match saved {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
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
    if primary.fingerprint() == its_key {
        return;
    }
    let request = KeyRequest::Install(primary);
    match ask(transport, context, peer, Some(its_key), &request).await {
        Ok(_) => info!(%peer, "gave the primary key to a member that uses an older one"),
        Err(KeyFailure::Exchange(ExchangeError::Cancelled)) => {}
        Err(failure) => warn!(%peer, %failure, "could not give the primary key to a member"),
    }
}

#[cfg(test)]
mod tests {
    use memberlist_security::{Keyring, SecretKey};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::config::{Config, Encryption};

    fn key(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 16]).unwrap()
    }

    fn context(keyring: &Keyring) -> StreamContext {
        let mut config = Config::local("x");
        config.encryption = Some(Encryption::new(keyring.clone()));
        crate::builder::testing_stream_context(&config)
    }

    fn peer() -> Peer {
        Peer::from("10.0.0.1:7946".parse::<std::net::SocketAddr>().unwrap())
    }

    /// Copies until the end, and keeps what it has copied.
    async fn tap(
        mut from: tokio::io::ReadHalf<DuplexStream>,
        mut to: tokio::io::WriteHalf<DuplexStream>,
    ) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut buf = [0; 1024];
        while let Ok(len @ 1..) = from.read(&mut buf).await {
            kept.extend_from_slice(&buf[..len]);
            to.write_all(&buf[..len]).await.unwrap();
        }
        let _ = to.shutdown().await;
        kept
    }

    async fn serve_on(stream: DuplexStream, context: StreamContext) {
        let mut channel = Channel::accepted(stream, context.clone());
        if let Ok(StreamItem::Request { body, .. }) = channel.receive().await {
            let _ = serve(&mut channel, &context, &peer(), &body).await;
        }
    }

    /// Somebody on the way keeps what was said, and says it again later.
    #[tokio::test]
    async fn what_is_said_again_changes_nothing() {
        let ring = Keyring::with_keys(key(1), [key(2)]).unwrap();
        let (asks, serves) =
            (context(&ring), context(&Keyring::with_keys(key(1), [key(2)]).unwrap()));
        let served = &serves.layers.sealing.keys().unwrap().keyring;
        let (near, a) = duplex(1 << 16);
        let (b, far) = duplex(1 << 16);
        let ((a_in, a_out), (b_in, b_out)) = (tokio::io::split(a), tokio::io::split(b));
        let (there, back) = (tokio::spawn(tap(a_in, b_out)), tokio::spawn(tap(b_in, a_out)));
        let serving = tokio::spawn(serve_on(far, serves.clone()));
        let mut channel = Channel::dialled(near, asks.clone(), None);
        let request = KeyRequest::Activate(key(2).fingerprint());
        let held = ask_on(&mut channel, &asks, &peer(), &request).await.unwrap();
        assert_eq!(held[0].fingerprint, key(2).fingerprint());
        drop(channel);
        serving.await.unwrap();
        let (asked, answered) = (there.await.unwrap(), back.await.unwrap());
        assert!(asked.len() > 100 && answered.len() > 100);

        // The questions again, after the key was changed back.
        served.activate(&key(1).fingerprint()).unwrap();
        let (mut near, far) = duplex(1 << 16);
        let serving = tokio::spawn(serve_on(far, serves.clone()));
        near.write_all(&asked).await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        serving.await.unwrap();
        assert_eq!(served.primary(), key(1).fingerprint());

        // The answers again, to another question.
        let (near, mut far) = duplex(1 << 16);
        far.write_all(&answered).await.unwrap();
        let mut channel = Channel::dialled(near, asks.clone(), None);
        let again = ask_on(&mut channel, &asks, &peer(), &KeyRequest::List).await;
        assert_eq!(again, Err(KeyFailure::BadAnswer));
    }
}
