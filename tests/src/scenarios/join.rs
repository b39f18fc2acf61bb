//! Coming in.

use std::time::Duration;

use memberlist::address::AddressError;
use memberlist::{Builder, ExchangeError, JoinError, SeedError, SeedResult};
use tokio::io::AsyncReadExt;

use crate::attack::Fake;
use crate::transports::TestTransport;
use crate::wait::{agree, until, within};
use crate::{Cluster, TestNode, quick};

/// Never reached: what waits for it is woken by something else.
const FOREVER: Duration = Duration::from_secs(3600);

fn error(result: &SeedResult) -> &ExchangeError {
    result.attempts[0].result.as_ref().unwrap_err()
}

fn seeds_of(results: &Result<Vec<SeedResult>, JoinError>) -> &[SeedResult] {
    match results {
        Ok(results) | Err(JoinError::NoneReached(results)) => results,
        Err(error) => panic!("{error}"),
    }
}

/// A node whose streams never run into their deadline.
async fn patient_node<T: TestTransport>(cluster: &Cluster<T>, name: &str) -> TestNode<T> {
    let mut config = quick(name);
    config.protocol.stream_timeout = FOREVER;
    cluster.start(Builder::new(config)).await
}

/// Good, dead, hostile and misspelt seeds at the same time: each has its own result, and the one
/// that never answers holds nobody up.
pub async fn many_seeds<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let joiner = patient_node(&cluster, "joiner").await;
    let silent = Fake::silent(cluster.transport().await);
    let garbage = Fake::answering(cluster.transport().await, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let dead = cluster.nobody().await;

    let seeds = [
        silent.addr().to_string(),
        a.addr().to_string(),
        garbage.addr().to_string(),
        dead.to_string(),
        b.addr().to_string(),
        "[::1".to_owned(),
        format!("somebody/{}", a.addr()),
        format!("b/{}", b.addr()),
        a.addr().to_string(),
    ];
    let joining = {
        let (joiner, seeds) = (joiner.clone(), seeds.clone());
        tokio::spawn(async move { joiner.join(seeds).await })
    };
    // The silent seed is still being waited for.
    agree(&[&a, &b, &joiner]).await;
    silent.until_accepted(1).await;
    assert!(!joining.is_finished());
    drop(silent);

    let results = within("the join", joining).await.unwrap().unwrap();
    let given: Vec<_> = results.iter().map(|result| &result.seed).collect();
    assert_eq!(given, seeds.iter().collect::<Vec<_>>());
    let joined: Vec<_> = results.iter().map(SeedResult::is_joined).collect();
    assert_eq!(joined, [false, true, false, false, true, false, false, true, true]);
    assert!(matches!(error(&results[2]), ExchangeError::BadAnswer { .. }), "{results:?}");
    assert!(is_nobody(error(&results[3])), "{results:?}");
    let malformed = SeedError::Address(AddressError::Malformed {
        address: "[::1".to_owned(),
        fault: "the brackets do not match",
    });
    assert_eq!(results[5].error.as_ref().unwrap().to_string(), malformed.to_string());
    // The text says who was found instead.
    let stranger = error(&results[6]).to_string();
    assert!(stranger.contains("somebody") && stranger.contains("is a,"), "{stranger}");
    assert_eq!(results[1].attempts[0].addr, a.addr());
}

/// Where nobody is, TCP is refused, and QUIC gets no answer.
fn is_nobody(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::Io { .. } | ExchangeError::Timeout { .. })
}

/// A join that is dropped stops dialling and hangs up; the node goes on.
pub async fn cancelled<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let joiner = patient_node(&cluster, "joiner").await;
    let fake = cluster.transport().await;
    let seed = fake.advertise_addr().to_string();
    let joining = {
        let joiner = joiner.clone();
        tokio::spawn(async move { joiner.join([seed]).await })
    };
    let (mut stream, _) = within("the dial", fake.accept_stream()).await.unwrap();
    stream.read_u8().await.unwrap();
    joining.abort();
    // To its end, which a stream that is kept open would never reach.
    let mut rest = Vec::new();
    let _ = within("the end of the stream", stream.read_to_end(&mut rest)).await;

    let other = cluster.node("other").await;
    joiner.join([other.addr().to_string()]).await.unwrap();
    agree(&[&joiner, &other]).await;
}

/// Joins that cannot work say why, each in its own words, and change nothing.
pub async fn typed_errors<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let node = cluster.node("a").await;
    let none: [&str; 0] = [];
    assert!(matches!(node.join(none).await, Err(JoinError::NoSeeds)));

    let long = format!("{}/10.0.0.1", "x".repeat(256));
    let bad = ["", "[::1", "/10.0.0.1", "10.0.0.1:65536", &long];
    let results = node.join(bad).await;
    for (seed, result) in bad.iter().zip(seeds_of(&results)) {
        let named = matches!(result.error, Some(SeedError::Name(_)));
        let malformed = matches!(result.error, Some(SeedError::Address(_)));
        assert!(named || malformed, "{seed}: {result:?}");
        assert_eq!(named, *seed == long);
        assert_eq!((result.attempts.len(), &*result.seed), (0, *seed));
    }

    let unresolved = node.join(["no-such-host.invalid:7946"]).await.unwrap_err();
    assert!(unresolved.to_string().contains("no-such-host.invalid"), "{unresolved}");
    let results = Err(unresolved);
    assert!(matches!(seeds_of(&results)[0].error, Some(SeedError::Resolve { .. })));

    let dead = cluster.nobody().await;
    let refused = node.join([dead.to_string()]).await;
    assert!(is_nobody(error(&seeds_of(&refused)[0])), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains(&dead.to_string()));

    let mut config = quick("hasty");
    config.protocol.stream_timeout = Duration::from_millis(200);
    let hasty = cluster.start(Builder::new(config)).await;
    let silent = Fake::silent(cluster.transport().await);
    let late = within("the timeout", hasty.join([silent.addr().to_string()])).await;
    assert!(matches!(error(&seeds_of(&late)[0]), ExchangeError::Timeout { .. }), "{late:?}");

    for node in [&node, &hasty] {
        assert_eq!((node.member_count(), node.known_members().len()), (1, 1));
    }
}

/// Whoever lists itself among the seeds, as shared configuration does, comes to no harm.
pub async fn through_itself<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let seeds = [a.addr().to_string(), b.addr().to_string()];
    within("the join of a", a.join(&seeds)).await.unwrap();
    within("the join of b", b.join(&seeds)).await.unwrap();
    agree(&[&a, &b]).await;
    assert_eq!(a.own().unwrap().incarnation, 1);
    let alone = cluster.node("c").await;
    let _ = within("a join to nobody else", alone.join([alone.addr().to_string()])).await;
    assert_eq!(alone.member_count(), 1);
}

/// Twenty nodes that join one seed at the same moment agree.
pub async fn crowd<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let mut nodes = Vec::new();
    for i in 0..20 {
        nodes.push(cluster.node(&format!("n{i}")).await);
    }
    let seed = nodes[0].addr().to_string();
    let joins: Vec<_> = nodes[1..]
        .iter()
        .map(|node| {
            let (node, seed) = (node.clone(), seed.clone());
            tokio::spawn(async move { node.join([seed]).await.map(drop) })
        })
        .collect();
    for join in joins {
        within("a join", join).await.unwrap().unwrap();
    }
    agree(&nodes.iter().collect::<Vec<_>>()).await;
}

/// Two clusters become one when one member of one joins one member of the other.
pub async fn of_clusters<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let one = cluster.joined(3).await;
    let others = [cluster.node("x").await, cluster.node("y").await];
    others[0].join([others[1].addr().to_string()]).await.unwrap();
    agree(&[&others[0], &others[1]]).await;
    others[1].join([one[2].addr().to_string()]).await.unwrap();
    let all: Vec<_> = one.iter().chain(&others).collect();
    agree(&all).await;
    until("the seed counted the exchange", || all.iter().all(|n| n.member_count() == 5)).await;
}
