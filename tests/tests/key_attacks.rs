//! Attacks on labels, keys and rotation: what somebody can do who has no key, or an old one.

use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::security::{FRAME_HEAD, Label, Version, seal_frame};
use memberlist::{Builder, Encryption, NodeState};
use memberlist_tests::cluster::{join_all, until_state};
use memberlist_tests::keys::{Node, encrypted, held, key, keyring, keys, name};
use memberlist_tests::{Cluster, quick, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The bytes of a stream with one sealed message, as somebody on the way would have seen them.
fn captured(keys: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let frame = [&[0, 0, 0, 0, 1, kind][..], body].concat();
    let record = [b"M\x01", &(frame.len() as u32).to_be_bytes()[..], &frame].concat();
    let mut bytes = vec![0; FRAME_HEAD];
    bytes.extend_from_slice(&record);
    let keyring = keyring(keys);
    let _ =
        seal_frame(&keyring, None, Version::V1, &Label::none(), &mut bytes, FRAME_HEAD).unwrap();
    bytes
}

async fn play(to: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to.addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// A rotation to key 2 is taken back, since it became known. Whoever has seen the requests go by
/// brings it back, to one node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captured_requests_about_keys_do_nothing_later() {
    let cluster = Cluster::<NetTransport>::new();
    let victim = cluster.start(Builder::new(encrypted("victim", &[1]))).await;
    let install = captured(&[1], 20, &[&[0, 1, 1][..], &[2; 32]].concat());
    let activate = captured(&[1], 20, &[&[0, 1, 2][..], &name(2).to_bytes()].concat());
    play(&victim, &install).await;
    let _ = keys(&victim).forced().remove(name(2)).await;
    assert_eq!(held(&victim), [name(1)]);
    play(&victim, &install).await;
    play(&victim, &activate).await;
    assert_eq!(held(&victim), [name(1)]);
}

/// Key 1 became known; key 2 was brought to every node by hand, as the documentation says, and key 1
/// is not removed everywhere yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_brought_by_hand_is_not_given_to_who_has_the_old_one() {
    let cluster = Cluster::<NetTransport>::new();
    let member = cluster.start(Builder::new(encrypted("member", &[2, 1]))).await;
    let thief = cluster.start(Builder::new(encrypted("thief", &[1]))).await;
    let _ = thief.join([member.addr().to_string()]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(held(&thief), [name(1)]);
}

/// Somebody on the way, without a key, sends a node's own question back as the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_no_answer() {
    let cluster = Cluster::<NetTransport>::new();
    let node = cluster.start(Builder::new(encrypted("node", &[1]))).await;
    let mirror = TcpListener::bind((node.addr().ip(), 0)).await.unwrap();
    let at = mirror.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = mirror.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let joined = node.join([at.to_string()]).await;
    assert!(joined.is_err(), "joined a mirror: {joined:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_keyring_is_rotated() {
    let cluster = Cluster::<NetTransport>::new();
    let all: Vec<u8> = (1..=63).collect();
    let node = cluster.start(Builder::new(encrypted("node", &all))).await;
    let (new, _) = keys(&node).rotate().await.unwrap();
    assert_eq!(held(&node), [new]);
}

/// A few strangers without a key hold up what members say to each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_hold_no_memory_that_members_need() {
    let cluster = Cluster::<NetTransport>::new();
    let a = cluster.start(Builder::new(encrypted("a", &[1]))).await;
    let (builder, mut messages) = Builder::new(encrypted("b", &[1])).messages();
    let b = cluster.start(builder).await;
    tokio::spawn(async move { while messages.next().await.is_some() {} });
    join_all(&[a.clone(), b.clone()]).await;
    let mut strangers = Vec::new();
    for size in [20_000_000_u32, 20_000_000, 20_000_000, 9_000_000] {
        let mut stream = TcpStream::connect(b.addr()).await.unwrap();
        let header = [&[0x0A][..], &size.to_be_bytes()].concat();
        let _ = stream.write_all(&header).await;
        // All but a few bytes, of which it then sends some now and then.
        let most = vec![0; size as usize - 1_000_000];
        let _ = tokio::time::timeout(Duration::from_secs(4), stream.write_all(&most)).await;
        strangers.push(tokio::spawn(async move {
            while stream.write_all(&[0; 20_000]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }));
    }
    let sent = a.send_reliable("b", vec![7; 3_000_000]).await;
    strangers.iter().for_each(|stranger| stranger.abort());
    assert!(sent.is_ok(), "{sent:?}");
}

/// What is not in the file is not done, however often it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_not_saved_is_not_done() {
    let folder = std::env::temp_dir().join(format!("memberlist-rev4-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut config = quick("node");
    let file = folder.join("keyring.json");
    config.encryption = Some(Encryption::from_file(&file, vec![key(2), key(1)]).unwrap());
    let cluster = Cluster::<NetTransport>::new();
    let node = cluster.start(Builder::new(config)).await;
    std::fs::remove_dir_all(&folder).unwrap();
    for _ in 0..2 {
        let removed = keys(&node).remove(name(1)).await;
        assert!(!removed.is_ok_and(|report| report.is_complete()), "the file still has key 1");
    }
    assert!(!keys(&node).list().await.is_complete());
    std::fs::create_dir_all(&folder).unwrap();
    assert!(keys(&node).remove(name(1)).await.unwrap().is_complete());
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Both may fail, but neither cuts anybody off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_rotations_at_once_cut_nobody_off() {
    for round in 0..8 {
        let cluster = Cluster::<NetTransport>::new();
        let nodes = cluster
            .joined_with(4, |config| {
                config.encryption = Some(Encryption::new(keyring(&[1])));
            })
            .await;
        let (one, other) = (keys(&nodes[0]), keys(&nodes[3]));
        let late = async {
            tokio::time::sleep(Duration::from_millis(round * 3)).await;
            other.rotate_to(key(3)).await
        };
        let ended = tokio::join!(one.rotate_to(key(2)), late);
        let all: Vec<_> = nodes.iter().map(held).collect();
        for sealing in &all {
            let understood = all.iter().all(|held| held.contains(&sealing[0]));
            assert!(understood, "round {round}: {all:?} after {ended:?}");
        }
    }
}

/// One that has been away for longer than dead members are kept is named all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_for_long_is_named() {
    let cluster = Cluster::<NetTransport>::new();
    let nodes = cluster
        .joined_with(3, |config| {
            config.protocol.gossip_to_the_dead_time = Duration::from_secs(1);
            config.encryption = Some(Encryption::new(keyring(&[1])));
        })
        .await;
    let gone = nodes[2].name().to_string();
    nodes[2].shutdown().await;
    until_state(&nodes[..2].iter().collect::<Vec<_>>(), &gone, NodeState::Dead).await;
    until("it is forgotten", || nodes[0].known_members().iter().all(|m| m.id().as_str() != gone))
        .await;
    let (_, report) = keys(&nodes[0]).rotate().await.unwrap();
    let absent: Vec<_> = report.absent.iter().map(|id| id.as_str()).collect();
    assert_eq!(absent, [gone.as_str()]);
}

/// What no key opens is refused in the clear. A sealed refusal would spend messages of the key, for the
/// place on a stream that the stranger names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_draw_no_sealed_answers() {
    let cluster = Cluster::<NetTransport>::new();
    let mut config = encrypted("node", &[1]);
    // It seals nothing by itself.
    config.protocol.probe_interval = Duration::ZERO;
    config.protocol.push_pull_interval = Duration::ZERO;
    let node = cluster.start(Builder::new(config)).await;
    let frame = [&[0x0A, 0, 0, 0, 60, 1][..], b"captured-one", &[0; 47]].concat();
    let foreign = captured(&[2], 16, &[0, 0, 0, 1, b'x', 0]);
    let labelled = [&[0xF4, 1, b'x'][..], &frame].concat();
    for said in [&frame, &frame[..30].to_vec(), &foreign, &labelled, &b"M\x01".to_vec()] {
        let answer = play(&node, said).await;
        assert!(matches!(answer.first(), None | Some(b'M')), "{answer:?} to {said:?}");
    }
    let answer = play(&node, &frame).await;
    assert!(String::from_utf8_lossy(&answer).contains("no key here opens"), "{answer:?}");
    assert_eq!(keys(&node).local()[0].sealed, 0);
}

/// Anybody can say no to who asks under a seal, but nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_in_the_clear_is_told_as_one_that_proves_nothing() {
    let cluster = Cluster::<NetTransport>::new();
    let node = cluster.start(Builder::new(encrypted("node", &[1]))).await;
    // A direction with one frame: an error, and a push/pull without members.
    let refusal = b"M\x01\0\0\0\x08\0\0\0\0\x01\x16no";
    let state = b"M\x01\0\0\0\x0c\0\0\0\0\x01\x10\0\0\0\x01x\0";
    for (answer, told) in [
        (&refusal[..], "the peer says (not authenticated): no"),
        (&state[..], "it is not encrypted"),
        (&state[..3], "it is not encrypted"),
    ] {
        let listener = TcpListener::bind((node.addr().ip(), 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut question = Vec::new();
            let _ = stream.read_to_end(&mut question).await;
        });
        let error = node.join([at.to_string()]).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}
