//! Streams that no honest node opens.

use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::{Builder, ExchangeError, JoinError, Memberlist};
use memberlist_tests::{PATIENCE, agree, quick, until, within};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{check_growth, cluster, newcomer_joins, resident_kib};

/// What an attacker does with a stream.
#[derive(Clone)]
enum Attack {
    /// Says this, and then nothing.
    Say(Vec<u8>),
    /// Says this, ends its direction, and waits.
    SayAndEnd(Vec<u8>),
    /// Says this again and again, a byte at a time: slow, but never silent.
    Drip(Vec<u8>),
    /// Says this, and then random bytes without end.
    Pour(Vec<u8>),
}

/// Goes on until the victim ends the stream; gives what it answered to what was said.
async fn attack(mut stream: TcpStream, attack: Attack) -> Vec<u8> {
    match attack {
        Attack::Say(bytes) => drop(stream.write_all(&bytes).await),
        Attack::SayAndEnd(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Attack::Drip(bytes) => {
            let mut answer = [0; 1024];
            for byte in bytes.iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                let pause = Duration::from_millis(20);
                let answered = tokio::time::timeout(pause, stream.read(&mut answer)).await;
                if let Ok(Ok(0) | Err(_)) = answered {
                    break;
                }
            }
            return Vec::new();
        }
        Attack::Pour(bytes) => {
            let (mut rng, mut piece) = (StdRng::seed_from_u64(3), vec![0; 16 << 10]);
            let mut written = stream.write_all(&bytes).await;
            while written.is_ok() {
                rng.fill_bytes(&mut piece);
                written = stream.write_all(&piece).await;
            }
            return Vec::new();
        }
    }
    let mut answer = Vec::new();
    // Whether it is closed or reset is the victim's choice.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// A record of the native format, with a length as claimed.
fn record(claimed: u32, payload: &[u8]) -> Vec<u8> {
    [&[0x4d, 1], &claimed.to_be_bytes()[..], payload].concat()
}

/// The head of a push/pull that claims that many nodes and bytes of user state.
fn push_pull_head(nodes: u32, state: u32) -> Vec<u8> {
    let mut head = vec![0, 0, 0, 0, 0, 16, 1];
    for number in [nodes, state] {
        head.push(0xfc);
        head.extend(number.to_le_bytes());
    }
    head.extend([1, b'x', 0]);
    record(head.len() as u32, &head)
}

fn attacks() -> Vec<(&'static str, Attack)> {
    use Attack::{Drip, Pour, Say, SayAndEnd};
    let user_message = [&[0, 0, 0, 0, 0, 19], &[7; 64][..]].concat();
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &[9; 64][..]].concat();
    vec![
        ("nothing", Say(vec![])),
        ("nothing, ended", SayAndEnd(vec![])),
        ("a preamble", Say(vec![0x4d, 1])),
        ("a preamble, ended", SayAndEnd(vec![0x4d, 1])),
        ("half a message, ended", SayAndEnd(record(1000, &user_message))),
        ("half a message", Say(record(1000, &user_message))),
        ("a message by drops", Drip(record(20 << 20, &user_message))),
        ("preambles by drops", Drip(vec![0x4d, 1, 0, 0, 1, 0])),
        ("frames without end", Say(record(6, &[0, 0, 0, 0, 0, 19]))),
        ("a record of 4 GiB", Say(record(u32::MAX, &[0; 64]))),
        ("a record of 20 MiB", Say(record(20 << 20, &[0; 64]))),
        ("a record of nothing", Say(record(0, &[]))),
        ("another version", Say(vec![0x4d, 99])),
        ("a frame out of order", Say(record(11, b"\0\0\0\x07\x01\x13hello"))),
        ("a million nodes", Say(push_pull_head(1 << 20, 0))),
        ("four billion nodes", Say(push_pull_head(u32::MAX, u32::MAX))),
        ("20 MiB of user state", Say(push_pull_head(0, 20 << 20))),
        ("random bytes", Pour(vec![])),
        ("a random record", Pour(record(20 << 20, &[0, 0, 0, 0, 0, 19]))),
        ("skipped without end", Pour(record(20 << 20, &[0, 0, 0, 0, 0, 99]))),
        ("a Go push/pull", Say([&[6, 0x83, 0xa5], &b"Nodes"[..]].concat())),
        ("a Go label", Say([&[244, 5], &b"label"[..]].concat())),
        ("TLS", Say(tls)),
        ("HTTP", Say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())),
        ("an answer that nobody waits for", Say(record(7, &[0, 0, 0, 0, 1, 21, 0]))),
    ]
}

/// Whatever a peer does with a stream, the stream is ended by its deadline, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attack_ends() {
    let (cluster, nodes) = cluster(1000, |_| {}).await;
    let all: Vec<_> = nodes.iter().collect();
    let memory = resident_kib();
    let mut running = JoinSet::new();
    for _ in 0..3 {
        for (name, what) in attacks() {
            let stream = TcpStream::connect(all[0].addr()).await.unwrap();
            running.spawn(async move {
                let ended = tokio::time::timeout(PATIENCE, attack(stream, what)).await;
                (name, ended)
            });
        }
    }
    // Meanwhile honest nodes get what they want.
    all[1].send_reliable("n0", vec![1; 100_000]).await.unwrap();
    let mut endless = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (name, ended) = ended.unwrap();
        match ended {
            Ok(answer) => assert!(answer.len() < 2048, "{name} drew {} bytes", answer.len()),
            Err(_) => endless.push(name),
        }
    }
    assert_eq!(endless, [""; 0], "these streams were not ended");
    agree(&all).await;
    assert_eq!(all[0].streams_refused(), 0);
    check_growth(memory);
    newcomer_joins(&cluster, &nodes).await;
}

/// A peer that is refused in the middle of what it says hears why: closing the connection while some
/// of it is unread would reset it, and the answer could be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_outlives_what_was_not_read() {
    let cluster = memberlist_tests::Cluster::<memberlist::net::NetTransport>::new();
    let victim = cluster.node("victim").await;
    let refused = record(6, &[0, 0, 0, 0, 1, 99]);
    for said in [[&refused[..], &[7; 256 << 10]].concat(), b"GET / HTTP/1.1\r\n".repeat(16 << 10)] {
        let mut stream = TcpStream::connect(victim.addr()).await.unwrap();
        stream.write_all(&said).await.unwrap();
        let mut answer = Vec::new();
        within("the end of the answer", stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.is_empty());
    }
}

/// No more streams are served than the limit; of the others some are listened to for a moment, the rest is
/// closed at once, and all are counted. A join is told to come back. Once there is room again, joins work
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_streams() {
    const LIMIT: usize = 4;
    const OPENED: usize = 40;
    let cluster = memberlist_tests::Cluster::<memberlist::net::NetTransport>::new();
    let mut config = quick("victim");
    config.max_inbound_streams = LIMIT;
    config.protocol.stream_timeout = Duration::from_secs(3600);
    let victim = cluster.start(Builder::new(config)).await;
    let mut running = JoinSet::new();
    for _ in 0..OPENED {
        let stream = TcpStream::connect(victim.addr()).await.unwrap();
        running.spawn(attack(stream, Attack::Say(vec![0x4d])));
    }
    for _ in 0..OPENED - LIMIT {
        within("the end of a stream over the limit", running.join_next()).await;
    }
    assert_eq!(victim.streams_refused(), (OPENED - LIMIT) as u64);
    assert_eq!(running.len(), LIMIT);

    let joiner = cluster.node("joiner").await;
    let Err(JoinError::NoneReached(results)) = joiner.join([victim.addr().to_string()]).await
    else {
        panic!("there was room for a join");
    };
    let error = results[0].attempts[0].result.as_ref().unwrap_err();
    assert!(matches!(error, ExchangeError::Busy { .. }), "{error}");
    running.abort_all();
    until("the streams are closed", || {
        while running.try_join_next().is_some() {}
        running.is_empty()
    })
    .await;
    memberlist_tests::wait::until_async("a join works", || async {
        joiner.join([victim.addr().to_string()]).await.is_ok()
    })
    .await;
    agree(&[&victim, &joiner]).await;
}

/// A peer that asks for a large state and never reads it is hung up on as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_read() {
    struct Large;
    impl memberlist::Delegate for Large {
        fn local_state(&self, _: bool) -> memberlist::Bytes {
            vec![1; 16 << 20].into()
        }
    }
    let cluster = memberlist_tests::Cluster::<memberlist::net::NetTransport>::new();
    let mut config = quick("victim");
    config.max_inbound_streams = 1;
    config.protocol.stream_timeout = Duration::from_millis(500);
    config.protocol.compression = false;
    let victim = cluster.start(Builder::new(config).delegate(Large)).await;
    let mut stream = TcpStream::connect(victim.addr()).await.unwrap();
    // No nodes, no state: the shortest of questions.
    let mut question = vec![0, 0, 0, 0, 1, 16, 0, 0, 0, 1, b'x', 0];
    question = record(question.len() as u32, &question);
    stream.write_all(&question).await.unwrap();
    // Its first byte shows that the answer has begun.
    stream.readable().await.unwrap();
    let joiner = cluster.node("joiner").await;
    memberlist_tests::wait::until_async("its place is free", || async {
        joiner.join([victim.addr().to_string()]).await.is_ok()
    })
    .await;
    assert_eq!(victim.stats().await.unwrap().push_pulls_failed, 1);
}

/// As a Go node does with another label, other keys or another wire format. What may be wrong is said, whether
/// or not the connection is reset by it.
#[tokio::test]
async fn who_hangs_up_on_a_question_that_it_did_not_read_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let seed = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // TCP resets what is closed with bytes unread.
            stream.readable().await.unwrap();
        }
    });
    let transport = NetTransport::bind_addr("127.0.0.1:0".parse().unwrap()).unwrap();
    let node = Memberlist::start(transport, quick("node")).await.unwrap();
    let joined = within("the join", node.join([seed.as_str()])).await;
    let Err(JoinError::NoneReached(results)) = joined else { panic!("{joined:?}") };
    let error = results[0].attempts[0].result.as_ref().unwrap_err();
    assert!(
        error.to_string().contains("another label, other keys or another wire format"),
        "{error}"
    );
    node.shutdown().await;
}
