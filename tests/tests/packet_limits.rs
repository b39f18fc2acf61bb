//! Nodes whose transport carries less than the protocol would send.

use memberlist::memory::{MemoryNetwork, MemoryTransport};
use memberlist::protocol::{BroadcastError, DropReason};
use memberlist::{Builder, Memberlist, Messages, SendError, StartError};
use memberlist_tests::{agree, quick, within};

/// What does not fit is refused with the limit, and what fits the limit arrives.
fn refused(outcome: Result<(), SendError>) -> usize {
    match outcome {
        Err(SendError::Broadcast(BroadcastError::TooLarge { len: 1300, limit })) => limit,
        other => panic!("{other:?}"),
    }
}

fn bind(network: &MemoryNetwork) -> MemoryTransport {
    network.bind("10.0.0.1:0".parse().unwrap()).unwrap()
}

async fn two(network: &MemoryNetwork) -> ([Memberlist<MemoryTransport>; 2], Messages) {
    let a = Builder::new(quick("a")).start(bind(network)).await.unwrap();
    let (builder, messages) = Builder::new(quick("b")).messages();
    let b = builder.start(bind(network)).await.unwrap();
    a.join([b.addr().to_string()]).await.unwrap();
    agree(&[&a, &b]).await;
    ([a, b], messages)
}

#[tokio::test(start_paused = true)]
async fn a_transport_with_small_packets() {
    let network = MemoryNetwork::new(1);
    network.set_max_packet_bytes(1200);
    let ([a, _b], mut messages) = two(&network).await;
    let to_one = refused(a.send("b", vec![0; 1300]).await);
    let to_all = refused(a.broadcast(vec![0; 1300]).await);
    a.send("b", vec![0; to_one]).await.unwrap();
    assert_eq!(within("a message", messages.next()).await.unwrap().payload.len(), to_one);
    a.broadcast(vec![0; to_all]).await.unwrap();
    assert_eq!(within("a broadcast", messages.next()).await.unwrap().payload.len(), to_all);
    assert_eq!(a.stats().await.unwrap().drops(DropReason::TooLargeToSend), 0);
}

#[tokio::test(start_paused = true)]
async fn a_way_that_has_become_narrower() {
    let network = MemoryNetwork::new(1);
    let ([a, _b], mut messages) = two(&network).await;
    network.set_max_packet_bytes(1200);
    let limit = refused(a.send("b", vec![0; 1300]).await);
    a.send("b", vec![0; limit]).await.unwrap();
    assert_eq!(within("a message", messages.next()).await.unwrap().payload.len(), limit);
}

#[tokio::test(start_paused = true)]
async fn a_transport_with_packets_that_are_too_small() {
    let network = MemoryNetwork::new(1);
    network.set_max_packet_bytes(1000);
    let refused = Memberlist::start(bind(&network), quick("a")).await.unwrap_err();
    let right = matches!(refused, StartError::TransportPackets { limit: 1000, least: 1024 });
    assert!(right, "{refused}");
}
