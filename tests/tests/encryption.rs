//! Labels and encryption on real sockets: who is let in, who is not and why, and keys that change
//! while everything runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::protocol::DropReason;
use memberlist::security::{KeySize, KeyringFile, SecretKey};
use memberlist::{
    Builder, Bytes, Config, Delegate, Encryption, ExchangeError, InboundLabel, JoinError,
    KeyFailure, KeysError, NodeState,
};
use memberlist_tests::cluster::{join_all, until_state};
use memberlist_tests::keys::{Node, encrypted, held, key, keyring, keys, name};
use memberlist_tests::wait::until_async;
use memberlist_tests::{Cluster, EventLog, agree, quick, until};

/// Why a join failed, at its only address.
fn reason(error: &JoinError) -> &ExchangeError {
    let JoinError::NoneReached(seeds) = error else { panic!("{error}") };
    seeds[0].attempts[0].result.as_ref().unwrap_err()
}

async fn refused(joiner: &Node, seed: &Node) -> ExchangeError {
    let error = joiner.join([seed.addr().to_string()]).await.unwrap_err();
    assert_eq!(seed.member_count(), 1, "{} was let in", joiner.name());
    reason(&error).clone()
}

async fn drops(node: &Node, reason: DropReason) -> u64 {
    node.stats().await.unwrap().drops(reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_another_key_or_none_stays_out_and_says_why() {
    let cluster = Cluster::<NetTransport>::new();
    let seed = cluster.start(Builder::new(encrypted("seed", &[1]))).await;
    let wrong = cluster.start(Builder::new(encrypted("wrong", &[2]))).await;
    let plain = cluster.node("plain").await;

    let error = refused(&wrong, &seed).await;
    let ExchangeError::Refused { message, .. } = &error else { panic!("{error}") };
    assert!(message.contains("(not authenticated): no key here opens what came"), "{message}");
    assert_eq!(drops(&seed, DropReason::WrongKey).await, 1);

    let error = refused(&plain, &seed).await;
    let ExchangeError::Refused { message, .. } = &error else { panic!("{error}") };
    assert!(message.contains("only encrypted streams"), "{message}");
    assert_eq!(drops(&seed, DropReason::PlaintextRefused).await, 1);

    // The other way round, the seed has no keys.
    let error = {
        let error = seed.join([plain.addr().to_string()]).await.unwrap_err();
        reason(&error).clone()
    };
    assert!(matches!(&error, ExchangeError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("there are no keys here"), "{error}");
    assert_eq!(drops(&plain, DropReason::NoKey).await, 1);

    let right = cluster.start(Builder::new(encrypted("right", &[2, 1]))).await;
    // It opens what comes with the second key, but seals with one that the seed does not have.
    refused(&right, &seed).await;
    let right = cluster.start(Builder::new(encrypted("right", &[1, 2]))).await;
    join_all(&[seed, right]).await;
}

/// One that is still writing when it is refused hears why all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_much_and_has_another_key_hears_so() {
    struct Large;
    impl Delegate for Large {
        fn local_state(&self, _: bool) -> Bytes {
            vec![1; 12 << 20].into()
        }
    }
    let cluster = Cluster::<NetTransport>::new();
    let seed = cluster.start(Builder::new(encrypted("seed", &[1]))).await;
    let mut config = encrypted("joiner", &[2]);
    config.protocol.compression = false;
    let joiner = cluster.start(Builder::new(config).delegate(Large)).await;
    for _ in 0..10 {
        let error = refused(&joiner, &seed).await;
        assert!(error.to_string().contains("no key here opens what came"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_do_not_fit_are_counted_by_their_fault() {
    let cluster = Cluster::<NetTransport>::new();
    let labelled = |name: &str, label: &str, keys: &[u8]| {
        let mut config = encrypted(name, keys);
        config.label = label.to_owned();
        config
    };
    let victim = cluster.start(Builder::new(labelled("victim", "a", &[1]))).await;
    let senders = [
        (labelled("other-key", "a", &[2]), DropReason::WrongKey),
        (labelled("other-label", "b", &[1]), DropReason::LabelMismatch),
        (labelled("no-label", "", &[1]), DropReason::LabelMissing),
        (quick("nothing"), DropReason::LabelMissing),
        (
            {
                let mut config = quick("no-key");
                config.label = "a".to_owned();
                config
            },
            DropReason::PlaintextRefused,
        ),
    ];
    for (config, reason) in senders {
        let before = drops(&victim, reason).await;
        let sender = cluster.start(Builder::new(config)).await;
        sender.send_to(victim.addr(), b"hello".as_slice()).await.unwrap();
        until_async("it is counted", || async { drops(&victim, reason).await > before }).await;
    }
    // And of an unlabelled node without keys.
    let victim = cluster.node("open").await;
    let sender = cluster.start(Builder::new(labelled("sender", "a", &[1]))).await;
    sender.send_to(victim.addr(), b"hello".as_slice()).await.unwrap();
    until_async("a label is unexpected", || async {
        drops(&victim, DropReason::LabelUnexpected).await == 1
    })
    .await;
    let sender = cluster.start(Builder::new(encrypted("sealer", &[1]))).await;
    sender.send_to(victim.addr(), b"hello".as_slice()).await.unwrap();
    until_async("there is no key", || async { drops(&victim, DropReason::NoKey).await == 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_with_different_labels_do_not_mix() {
    let cluster = Cluster::<NetTransport>::new();
    let labelled = |name: &str, label: &str| {
        let mut config = quick(name);
        config.label = label.to_owned();
        config
    };
    let a = cluster.start(Builder::new(labelled("a", "blue"))).await;
    let b = cluster.start(Builder::new(labelled("b", "red"))).await;
    let error = refused(&b, &a).await;
    assert!(error.to_string().contains("another label"), "{error}");
    assert_eq!(drops(&a, DropReason::LabelMismatch).await, 1);
    let c = cluster.start(Builder::new(labelled("c", "blue"))).await;
    join_all(&[a, c]).await;
}

/// All accept the label, then all send it, then all check it; node by node, encrypted or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_cluster_is_given_its_label() {
    for key in [None, Some(1)] {
        let step = |name: &str, label: &str, outgoing: bool, inbound: InboundLabel| {
            let mut config = quick(name);
            config.label = label.to_owned();
            config.label_outgoing = outgoing;
            config.inbound_label = inbound;
            config.encryption = key.map(|n| Encryption::new(keyring(&[n])));
            config
        };
        let cluster = Cluster::<NetTransport>::new();
        let steps = [
            ("", true, InboundLabel::Check),
            ("blue", false, InboundLabel::Optional),
            ("blue", true, InboundLabel::Optional),
            ("blue", true, InboundLabel::Check),
        ];
        let mut nodes: Vec<Node> = Vec::new();
        for (label, outgoing, inbound) in steps {
            for i in 0..3 {
                // One node at a time is replaced.
                if let Some(old) = nodes.get(i) {
                    old.leave(Duration::from_secs(30)).await.unwrap();
                    old.shutdown().await;
                }
                let config = step(&format!("n{i}"), label, outgoing, inbound);
                let node = cluster.start(Builder::new(config)).await;
                let other = nodes.iter().enumerate().find(|(j, _)| *j != i);
                if let Some((_, other)) = other {
                    node.join([other.addr().to_string()]).await.unwrap();
                }
                match nodes.get_mut(i) {
                    Some(place) => *place = node,
                    None => nodes.push(node),
                }
                agree(&nodes.iter().collect::<Vec<_>>()).await;
            }
        }
        // Now nobody gets in without it.
        let stranger = cluster.start(Builder::new(step("x", "", true, InboundLabel::Check))).await;
        stranger.join([nodes[0].addr().to_string()]).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_is_too_long_is_an_error() {
    let cluster = Cluster::<NetTransport>::new();
    let mut config = quick("a");
    config.label = "x".repeat(256);
    let transport = cluster.transport().await;
    let error = Builder::new(config).start(transport).await.unwrap_err();
    assert!(error.to_string().contains("255"), "{error}");
}

/// Keys everywhere; then all encrypt; then all refuse what is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_cluster_is_brought_to_encryption_without_a_stop() {
    let cluster = Cluster::<NetTransport>::new();
    let nodes = cluster
        .joined_with(4, |config| {
            let mut encryption = Encryption::new(keyring(&[1]));
            encryption.encrypt_outgoing = false;
            encryption.verify_incoming = false;
            config.encryption = Some(encryption);
        })
        .await;
    let plain = cluster.node("plain").await;
    plain.join([nodes[0].addr().to_string()]).await.unwrap();
    agree(&nodes.iter().chain([&plain]).collect::<Vec<_>>()).await;
    // A node that has no keys yet is replaced by one that has.
    plain.leave(Duration::from_secs(30)).await.unwrap();
    plain.shutdown().await;
    until_state(&nodes.iter().collect::<Vec<_>>(), "plain", NodeState::Left).await;

    let mut logs = Vec::new();
    for node in &nodes {
        logs.push(EventLog::of(node).await);
    }
    for step in [
        |node: &Node| keys(node).set_encrypt_outgoing(true),
        |node: &Node| keys(node).set_verify_incoming(true),
    ] {
        for node in &nodes {
            step(node);
            // Packets go both ways between it and all others.
            for other in nodes.iter().filter(|other| other.name() != node.name()) {
                until_async("it is answered", || async {
                    node.ping(other.name()).await.is_ok() && other.ping(node.name()).await.is_ok()
                })
                .await;
            }
        }
    }
    assert!(keys(&nodes[0]).encrypts_outgoing() && keys(&nodes[0]).verifies_incoming());
    let newcomer = cluster.start(Builder::new(encrypted("new", &[1]))).await;
    newcomer.join([nodes[3].addr().to_string()]).await.unwrap();
    agree(&nodes.iter().chain([&newcomer]).collect::<Vec<_>>()).await;
    for node in &nodes {
        assert_eq!(drops(node, DropReason::PlaintextRefused).await, 0, "{}", node.name());
    }
    for log in &logs {
        assert_eq!(log.gone(), [] as [&str; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_would_cut_somebody_off_are_refused() {
    let cluster = Cluster::<NetTransport>::new();
    let nodes = cluster
        .joined_with(3, |config| {
            config.encryption = Some(Encryption::new(keyring(&[1])));
        })
        .await;
    let report = keys(&nodes[0]).list().await;
    assert_eq!(report.keys()[&name(1)].primary_of, 3);
    let error = keys(&nodes[0]).activate(name(2)).await.unwrap_err();
    let KeysError::WouldCutOff { members, .. } = &error else { panic!("{error}") };
    assert_eq!(members.len(), 3);

    let report = keys(&nodes[0]).install(key(2)).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.keys()[&name(2)].holders, 3);
    assert!(nodes.iter().all(|node| held(node) == [name(1), name(2)]));
    // Twice does no harm.
    assert!(keys(&nodes[2]).install(key(2)).await.is_complete());

    let error = keys(&nodes[0]).remove(name(1)).await.unwrap_err();
    assert!(matches!(error, KeysError::WouldCutOff { step: "remove", .. }), "{error}");
    // Even by force nobody removes its primary.
    let report = keys(&nodes[0]).forced().remove(name(1)).await.unwrap();
    assert_eq!(report.failures().count(), 3);
    assert!(report.failures().all(|(_, why)| matches!(why, KeyFailure::Refused(_))));

    assert!(keys(&nodes[1]).activate(name(2)).await.unwrap().is_complete());
    assert!(nodes.iter().all(|node| held(node) == [name(2), name(1)]));
    assert!(keys(&nodes[2]).remove(name(1)).await.unwrap().is_complete());
    assert!(nodes.iter().all(|node| held(node) == [name(2)]));
    agree(&nodes.iter().collect::<Vec<_>>()).await;
}

/// A node is stopped, started again and joined while the key is replaced and messages flow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_replaced_under_traffic() {
    let patient = |mut config: Config| {
        // A death by mistake, because the machine is busy, would take this long.
        config.protocol.suspicion_mult = 10;
        config
    };
    let cluster = Cluster::<NetTransport>::new();
    let mut nodes = Vec::new();
    for i in 0..4 {
        let config = patient(encrypted(&format!("n{i}"), &[1]));
        nodes.push(cluster.start(Builder::new(config)).await);
    }
    let (builder, mut messages) = Builder::new(patient(encrypted("receiver", &[1]))).messages();
    let receiver = cluster.start(builder).await;
    nodes.push(receiver.clone());
    join_all(&nodes).await;

    let away = nodes[3].addr();
    let (sender, stop) = (nodes[0].clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let sending = tokio::spawn(async move {
        let mut sent = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            sender.send_reliable("receiver", sent.to_be_bytes().to_vec()).await.unwrap();
            sent += 1;
        }
        sent
    });
    let taking = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while let Some(message) = messages.next().await {
            let number = u64::from_be_bytes(message.payload.as_ref().try_into().unwrap());
            assert!(seen.insert(number), "{number} came twice");
        }
        seen
    });

    nodes[3].shutdown().await;
    let survivors: Vec<&Node> = nodes[..3].iter().chain([&receiver]).collect();
    until_state(&survivors, "n3", NodeState::Dead).await;
    // One that joins when the new key is in use already, with the old one.
    assert!(keys(&nodes[1]).install(key(2)).await.is_complete());
    assert!(keys(&nodes[1]).activate(name(2)).await.unwrap().is_complete());
    let newcomer = cluster.start(Builder::new(patient(encrypted("newcomer", &[1])))).await;
    newcomer.join([nodes[0].addr().to_string()]).await.unwrap();
    until("it is given the new key, and seals with it", || held(&newcomer)[0] == name(2)).await;
    let all: Vec<&Node> = survivors.iter().copied().chain([&newcomer]).collect();
    agree(&all).await;

    // From another member, and to its end.
    let report = keys(&nodes[2]).rotate_to(key(2)).await.unwrap();
    assert!(report.is_complete());
    let absent: Vec<_> = report.absent.iter().map(|id| id.as_str()).collect();
    assert_eq!(absent, ["n3"]);
    assert!(all.iter().all(|node| held(node) == [name(2)]));

    // Who was away comes back with what it had, is not let in, and says why.
    let back = cluster.start_at(away, Builder::new(patient(encrypted("n3", &[1])))).await;
    let error = back.join([nodes[0].addr().to_string()]).await.unwrap_err();
    let ExchangeError::Refused { message, .. } = reason(&error) else { panic!("{error}") };
    assert!(message.contains("no key here"), "{message}");
    back.shutdown().await;
    let back = cluster.start_at(away, Builder::new(patient(encrypted("n3", &[2])))).await;
    back.join([nodes[0].addr().to_string()]).await.unwrap();
    let all: Vec<&Node> = all.into_iter().chain([&back]).collect();
    agree(&all).await;

    stop.store(true, Ordering::Relaxed);
    let sent = sending.await.unwrap();
    receiver.shutdown().await;
    let seen = taking.await.unwrap();
    assert!(sent > 10);
    assert_eq!(seen.len() as u64, sent, "of the messages that were acknowledged");
}

/// The receiver confirms with the key that the message came with, and the sender has it no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_begun_with_a_key_is_ended_with_it() {
    let cluster = Cluster::<NetTransport>::new();
    let ring = keyring(&[1]);
    let mut config = quick("sender");
    config.encryption = Some(Encryption::new(ring.clone()));
    // It seals nothing but what the test sends.
    config.protocol.probe_interval = Duration::ZERO;
    let sender = cluster.start(Builder::new(config)).await;
    let mut config = encrypted("receiver", &[1]);
    // When one message waits for the application, the next one is not confirmed.
    config.message_capacity = 1;
    config.protocol.probe_interval = Duration::ZERO;
    let (builder, mut messages) = Builder::new(config).messages();
    let receiver = cluster.start(builder).await;
    join_all(&[sender.clone(), receiver.clone()]).await;
    sender.send_reliable("receiver", "first").await.unwrap();

    let sealed = || ring.list()[0].sealed;
    let before = sealed();
    let second = {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send_reliable("receiver", "second").await })
    };
    until("the second is sealed", || sealed() > before).await;
    ring.install(key(2)).unwrap();
    ring.activate(&name(2)).unwrap();
    ring.remove(&name(1)).unwrap();
    assert!(!second.is_finished());
    for text in ["first", "second"] {
        assert_eq!(messages.next().await.unwrap().payload, text);
    }
    second.await.unwrap().unwrap();
}

/// It goes on with the key that it had begun with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_was_stopped_goes_on() {
    let folder = std::env::temp_dir().join(format!("memberlist-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("keyring.json");
    let cluster = Cluster::<NetTransport>::new();
    let mut nodes = Vec::new();
    for i in 0..3 {
        let mut config = encrypted(&format!("n{i}"), &[1]);
        config.protocol.suspicion_mult = 10;
        if i == 2 {
            config.encryption = Some(Encryption::from_file(&file, vec![key(1)]).unwrap());
        }
        nodes.push(cluster.start(Builder::new(config)).await);
    }
    join_all(&nodes).await;
    // One member cannot save its keys: it says so, and nobody goes on without it.
    std::fs::remove_dir_all(&folder).unwrap();
    let error = keys(&nodes[0]).rotate().await.unwrap_err();
    let KeysError::Incomplete { step: "install", report } = &error else { panic!("{error}") };
    let failed: Vec<_> = report.failures().map(|(id, _)| id.as_str()).collect();
    assert_eq!(failed, ["n2"]);
    assert!(error.to_string().contains("not saved"), "{error}");
    assert!(nodes.iter().all(|node| held(node)[0] == name(1)));
    agree(&nodes.iter().collect::<Vec<_>>()).await;

    std::fs::create_dir_all(&folder).unwrap();
    let begun = held(&nodes[0])[1];
    let (new, _) = keys(&nodes[0]).rotate().await.unwrap();
    assert_eq!(new, begun);
    assert!(nodes.iter().all(|node| held(node) == [new]));
    let saved = KeyringFile::load(&file).unwrap();
    let saved: Vec<_> = saved.keys.iter().map(SecretKey::fingerprint).collect();
    assert_eq!(saved, [new]);
    assert_eq!(keys(&nodes[0]).local()[0].size, KeySize::Bits256);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Whoever speaks to a node in the clear cannot ask it about keys, even while it accepts that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_about_keys_in_the_clear_are_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = Cluster::<NetTransport>::new();
    let mut encryption = Encryption::new(keyring(&[1]));
    encryption.verify_incoming = false;
    let mut config = quick("victim");
    config.encryption = Some(encryption);
    let victim = cluster.start(Builder::new(config)).await;
    let mut stream = tokio::net::TcpStream::connect(victim.addr()).await.unwrap();
    // Topic 1, install, 16 bytes.
    let body = [&[0, 1, 1][..], &[7; 16]].concat();
    let frame = [&[0, 0, 0, 0, 1, 20][..], &body].concat();
    let bytes = [b"M\x01", &(frame.len() as u32).to_be_bytes()[..], &frame].concat();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // The answer is sealed as everything is; what counts is that nothing changed.
    assert!(!answer.is_empty());
    assert_eq!(held(&victim), [name(1)]);
}
