//! Dialogues about keys, and what a third party can do with those it has seen.

use std::sync::Arc;

use futures_util::FutureExt;
use memberlist_protocol::wire::Dialect;
use memberlist_protocol::wire::stream::{MessageFrames, StreamItem};
use memberlist_security::{Keyring, KeyringFile, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::message::{decode_challenge, encode_asked, encode_greeting};
use super::*;
use crate::config::Encryption;
use crate::layers::Sealing;
use crate::streams::{Channel, StreamContext};

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32]).unwrap()
}

fn name(n: u8) -> Fingerprint {
    key(n).fingerprint()
}

fn context(name: &str, keys: &[u8]) -> StreamContext {
    let mut keys = keys.iter().map(|n| key(*n));
    let keyring = Keyring::with_keys(keys.next().unwrap(), keys).unwrap();
    let sealing = Sealing::new(Some(&Encryption::new(keyring)), Version::V1);
    StreamContext::testing(name, sealing)
}

fn peer(name: &str) -> Peer {
    Peer::named("10.0.0.1:7946".parse().unwrap(), NodeId::new(name).unwrap())
}

fn holds(context: &StreamContext, n: u8) -> bool {
    context.layers.sealing.keys().unwrap().keyring.contains(&key(n).fingerprint())
}

/// Answers one dialogue.
async fn answer(stream: DuplexStream, context: StreamContext) {
    let mut channel = Channel::accepted(stream, context.clone());
    while let Ok(StreamItem::Request { topic: TOPIC, body }) = channel.receive().await {
        if serve(&mut channel, &context, &peer("asker"), &body).await.is_err() {
            return;
        }
    }
}

/// Asks over a line on which everything is heard: the answer, and what either side said.
async fn tapped(
    asker: &StreamContext,
    answerer: &StreamContext,
    as_whom: &str,
    request: &KeyRequest,
) -> (Result<Vec<HeldKey>, KeyFailure>, [Vec<u8>; 2]) {
    let ((near, tap_near), (tap_far, far)) = (duplex(1 << 16), duplex(1 << 16));
    tokio::spawn(answer(far, answerer.clone()));
    let (mut near_in, mut near_out) = tokio::io::split(tap_near);
    let (mut far_in, mut far_out) = tokio::io::split(tap_far);
    async fn pass(
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWriteExt + Unpin),
    ) -> Vec<u8> {
        let (mut heard, mut buf) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = from.read(&mut buf).await {
            heard.extend_from_slice(&buf[..len]);
            if to.write_all(&buf[..len]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        heard
    }
    let asking = async {
        let mut channel = Channel::dialled(near, asker.clone(), Dialect::Native, None);
        let answer = serve::ask_over(&mut channel, &peer(as_whom), request).await;
        drop(channel);
        answer
    };
    let (answer, asked, answered) =
        tokio::join!(asking, pass(&mut near_in, &mut far_out), pass(&mut far_in, &mut near_out),);
    (answer, [asked, answered])
}

#[tokio::test]
async fn what_was_captured_changes_nothing_later() {
    let (asker, member) = (context("asker", &[1]), context("member", &[1]));
    let (done, [asked, _]) = tapped(&asker, &member, "member", &KeyRequest::Install(key(2))).await;
    assert_eq!(done.unwrap().len(), 2);
    let ring = &member.layers.sealing.keys().unwrap().keyring;
    ring.remove(&name(2)).unwrap();
    // The same bytes once more.
    let (mut near, far) = duplex(1 << 16);
    let answering = tokio::spawn(answer(far, member.clone()));
    near.write_all(&asked).await.unwrap();
    near.shutdown().await.unwrap();
    answering.await.unwrap();
    assert!(!holds(&member, 2));
}

#[tokio::test]
async fn an_old_answer_is_none() {
    let (asker, member) = (context("asker", &[1]), context("member", &[1]));
    let (_, [_, answered]) = tapped(&asker, &member, "member", &KeyRequest::List).await;
    let (near, mut far) = duplex(1 << 16);
    far.write_all(&answered).await.unwrap();
    let mut channel = Channel::dialled(near, asker.clone(), Dialect::Native, None);
    let answer = serve::ask_over(&mut channel, &peer("member"), &KeyRequest::List).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn a_request_reaches_whom_it_is_for_or_nobody() {
    let (asker, other) = (context("asker", &[1]), context("other", &[1]));
    let (refused, _) = tapped(&asker, &other, "member", &KeyRequest::Install(key(2))).await;
    assert!(matches!(refused, Err(KeyFailure::Refused(_))), "{refused:?}");
    assert!(!holds(&other, 2));
}

/// A stream that was begun before a key was removed goes on, but does not install another.
#[tokio::test]
async fn a_removed_key_changes_no_keys() {
    let (thief, member) = (context("thief", &[1]), context("member", &[2, 1]));
    let (near, far) = duplex(1 << 16);
    tokio::spawn(answer(far, member.clone()));
    let mut channel = Channel::dialled(near, thief.clone(), Dialect::Native, Some(name(1)));
    let request = |body: Vec<u8>| MessageFrames::request(TOPIC, body.into());
    let greeting = [7; 16];
    channel.send(request(encode_greeting(&greeting))).await.unwrap();
    let StreamItem::Response { body, .. } = channel.receive().await.unwrap() else {
        panic!("it is challenged");
    };
    let challenge = decode_challenge(&body, &greeting).unwrap();
    let keys = member.layers.sealing.keys().unwrap();
    apply(keys, &KeyRequest::Remove(name(1), None)).await.unwrap();
    let asked = encode_asked(&challenge, "member", &KeyRequest::Install(key(6)));
    channel.send(request(asked)).await.unwrap();
    let StreamItem::Response { status: message::REFUSED, .. } = channel.receive().await.unwrap()
    else {
        panic!("it is refused");
    };
    assert!(!holds(&member, 6));
}

/// Both want it gone, and it is.
#[tokio::test]
async fn what_is_not_there_is_removed() {
    let member = context("member", &[1, 2]);
    let keys = member.layers.sealing.keys().unwrap();
    let name = name(2);
    for request in [
        KeyRequest::Remove(name, None),
        KeyRequest::Remove(name, None),
        KeyRequest::Remove(name, Some(0)),
        KeyRequest::Retire(name),
    ] {
        assert_eq!(apply(keys, &request).await.unwrap().len(), 1, "{request:?}");
    }
}

/// Whoever sees that a key is gone, and asks, hears that it is done when the file has it.
#[tokio::test]
async fn a_list_waits_for_the_file() {
    let folder = std::env::temp_dir().join(format!("memberlist-listed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("keyring.json");
    let encryption = Encryption::from_file(&file, vec![key(2), key(1)]).unwrap();
    let sealing = Sealing::new(Some(&encryption), Version::V1);
    let keys = sealing.keys().unwrap();
    // Somebody else is writing.
    let turn = Arc::clone(&keys.saving).lock_owned().await;
    let remove = KeyRequest::Remove(name(1), None);
    let mut removing = Box::pin(apply(keys, &remove));
    assert!((&mut removing).now_or_never().is_none());
    assert_eq!(keys.keyring.list().len(), 1);
    let mut listing = Box::pin(apply(keys, &KeyRequest::List));
    assert!((&mut listing).now_or_never().is_none());
    drop(turn);
    let (removed, listed) = tokio::join!(removing, listing);
    assert_eq!((removed.unwrap().len(), listed.unwrap().len()), (1, 1));
    assert_eq!(KeyringFile::load(&file).unwrap().keys.len(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A member that missed a rotation, or has keys that were brought by hand, gives nobody its primary.
#[tokio::test]
async fn only_a_key_that_came_later_is_handed_over() {
    let given = |member: &StreamContext, to: u8| {
        let primary = serve::newer_primary(member.layers.sealing.keys().unwrap(), name(to));
        primary.map(|key| key.fingerprint())
    };
    let member = context("member", &[1]);
    let keys = member.layers.sealing.keys().unwrap();
    apply(keys, &KeyRequest::Install(key(2))).await.unwrap();
    assert_eq!(given(&member, 2), None, "2 is newer");
    apply(keys, &KeyRequest::Activate(name(2), None)).await.unwrap();
    assert_eq!(given(&member, 2), None, "it has it");
    assert_eq!(given(&member, 1), Some(name(2)));
    apply(keys, &KeyRequest::Retire(name(1))).await.unwrap();
    assert_eq!(given(&member, 1), Some(name(2)));
    apply(keys, &KeyRequest::Remove(name(1), None)).await.unwrap();
    assert_eq!(given(&member, 1), Some(name(2)), "an exchange was begun before");
    assert_eq!(given(&context("member", &[2, 1]), 1), None, "brought by hand");
}

/// What asks about keys may run on a task of its own.
#[test]
fn futures_about_keys_can_be_spawned() {
    fn check<T: Transport>(node: crate::Memberlist<T>, key: SecretKey) {
        fn spawnable(_: impl Future<Output = ()> + Send + 'static) {}
        let name = key.fingerprint();
        spawnable(async move {
            let Some(keys) = node.keys() else { return };
            let _ = keys.list().await;
            let _ = keys.install(key.clone()).await;
            let _ = keys.activate(name).await;
            let _ = keys.remove(name).await;
            let _ = keys.rotate().await;
            let _ = keys.rotate_to(key).await;
        });
    }
    let _ = check::<memberlist_transport::memory::MemoryTransport>;
}
