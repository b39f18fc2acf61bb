//! Reliable messages.

use std::time::Duration;

use memberlist::{Builder, Bytes, SendError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::messages::{listener, next};
use crate::transports::TestTransport;
use crate::wait::{until, within};
use crate::{Cluster, quick};

/// From nothing to a mebibyte, each arrives as it was sent and is confirmed.
pub async fn sizes<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let a = cluster.node("a").await;
    let (b, mut messages) = listener(&cluster, "b", 16).await;
    a.join([b.addr().to_string()]).await.unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for len in [0, 1, 1400, 64 << 10, (64 << 10) + 1, 1 << 20] {
        let mut payload = vec![0; len];
        rng.fill_bytes(&mut payload);
        let payload = Bytes::from(payload);
        within("the receipt", a.send_reliable("b", payload.clone())).await.unwrap();
        let message = next(&mut messages).await;
        assert!(message.payload == payload, "{len} bytes came as {}", message.payload.len());
        assert!(message.reliable && message.origin.is_none());
    }
}

/// What is too long or has nobody to go to is refused before a stream is opened.
pub async fn refused<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let a = cluster.node("a").await;
    let (b, mut messages) = listener(&cluster, "b", 16).await;
    a.join([b.addr().to_string()]).await.unwrap();
    let limit = 20 << 20;
    let refused = a.send_reliable("b", vec![0; limit + 1]).await;
    assert_eq!(refused, Err(SendError::TooLarge { len: limit + 1, limit }));
    let stranger = a.send_reliable("c", "hello").await;
    assert_eq!(stranger, Err(SendError::NotAMember("c".to_owned())));
    a.send_reliable("b", "the first to arrive").await.unwrap();
    assert_eq!(next(&mut messages).await.payload, "the first to arrive");
}

/// An application that takes no messages holds the senders back, for longer than any deadline; when
/// it goes on, nothing is lost and nothing comes twice.
pub async fn slow_application<T: TestTransport>() {
    const SENT: usize = 8;
    const ROOM: usize = 2;
    let cluster = Cluster::<T>::new();
    let timeout = Duration::from_secs(1);
    let mut config = quick("a");
    config.protocol.stream_timeout = timeout;
    let a = cluster.start(Builder::new(config)).await;
    let mut config = quick("b");
    (config.message_capacity, config.protocol.stream_timeout) = (ROOM, timeout);
    let (builder, mut messages) = Builder::new(config).messages();
    let b = cluster.start(builder).await;
    a.join([b.addr().to_string()]).await.unwrap();

    let sends: Vec<_> = (0..SENT)
        .map(|i| {
            let a = a.clone();
            tokio::spawn(async move { a.send_reliable("b", i.to_string()).await })
        })
        .collect();
    let confirmed = || sends.iter().filter(|send| send.is_finished()).count();
    until("the queue is full", || confirmed() == ROOM).await;
    // Not a wait for something: the deadline passes while the application sleeps.
    tokio::time::sleep(timeout * 2).await;
    assert_eq!(confirmed(), ROOM);

    let mut arrived = Vec::new();
    for _ in 0..SENT {
        arrived.push(String::from_utf8(next(&mut messages).await.payload.to_vec()).unwrap());
    }
    for send in sends {
        within("a receipt", send).await.unwrap().unwrap();
    }
    arrived.sort();
    assert_eq!(arrived, (0..SENT).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// A member that has no application for messages any more says so.
pub async fn nobody_listens<T: TestTransport>() {
    let cluster = Cluster::<T>::new();
    let a = cluster.node("a").await;
    let (b, messages) = listener(&cluster, "b", 16).await;
    a.join([b.addr().to_string()]).await.unwrap();
    drop(messages);
    let refused = within("the refusal", a.send_reliable("b", "hello")).await.unwrap_err();
    assert!(matches!(refused, SendError::Exchange(memberlist::ExchangeError::Refused { .. })));
    a.send("b", "dropped").await.unwrap();
    until("it is counted", || b.messages_dropped() == 1).await;
}
