//! What the in-memory network does beyond the contract: delay, loss, partitions, limits.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use memberlist_transport::memory::{
    LinkConfig, MemoryBindError, MemoryNetwork, MemoryTransport, QUEUED_PACKETS,
    STREAM_BUFFER_BYTES,
};
use memberlist_transport::{OpenError, RecvError, SendError, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7946))
}

fn pair(network: &MemoryNetwork) -> (MemoryTransport, MemoryTransport) {
    (network.bind(addr(1)).unwrap(), network.bind(addr(2)).unwrap())
}

async fn send(from: &MemoryTransport, to: SocketAddr, packet: &[u8]) {
    from.send_packet(&to.into(), packet).await.unwrap();
}

async fn recv(on: &MemoryTransport) -> Vec<u8> {
    let mut buf = [0; 2048];
    let (len, _) = poll_fn(|cx| on.poll_recv_packet(cx, &mut buf)).await.unwrap();
    buf[..len].to_vec()
}

/// Everything that has arrived by now.
async fn recv_all(on: &MemoryTransport) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some(packet) = now_or_never(recv(on)).await {
        packets.push(packet);
    }
    packets
}

async fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn an_address_has_one_owner_at_a_time() {
    let network = MemoryNetwork::new(0);
    let first = network.bind(addr(1)).unwrap();
    assert_eq!(network.bind(addr(1)).unwrap_err(), MemoryBindError::InUse(addr(1)));
    first.close().await;
    let second = network.bind(addr(1)).unwrap();
    // The end of the old owner does not take the address from the new one.
    drop(first);
    assert_eq!(network.bind(addr(1)).unwrap_err(), MemoryBindError::InUse(addr(1)));
    drop(second);
    network.bind(addr(1)).unwrap();
}

#[tokio::test]
async fn odd_addresses() {
    let network = MemoryNetwork::new(0);
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    assert_eq!(network.bind(any).unwrap_err(), MemoryBindError::Unspecified(any));
    let mapped = network.bind("[::ffff:10.0.0.1]:7946".parse().unwrap()).unwrap();
    assert_eq!(mapped.advertise_addr(), addr(1));
    let ports = [0; 3].map(|port| network.bind(SocketAddr::from(([10, 0, 0, 9], port))).unwrap());
    let [a, b, c] = ports.map(|transport| transport.advertise_addr().port());
    assert!(a != b && b != c && a != c && a > 0);
}

#[tokio::test(start_paused = true)]
async fn delay_is_kept_and_one_way() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    let delayed = LinkConfig { delay: SECOND, ..LinkConfig::default() };
    network.set_link(addr(1), addr(2), delayed);
    let start = Instant::now();
    send(&a, addr(2), b"slow").await;
    send(&b, addr(1), b"fast").await;
    assert_eq!(recv(&a).await, b"fast");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(recv(&b).await, b"slow");
    assert!(start.elapsed() >= SECOND && start.elapsed() < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_packet_sent_later_can_arrive_earlier() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    network.set_default_link(LinkConfig { delay: SECOND, ..LinkConfig::default() });
    let waiting = recv(&b);
    let mut waiting = pin!(waiting);
    send(&a, addr(2), b"first").await;
    assert!(now_or_never(waiting.as_mut()).await.is_none());
    network.set_default_link(LinkConfig::default());
    send(&a, addr(2), b"second").await;
    assert_eq!(waiting.await, b"second");
    assert_eq!(recv(&b).await, b"first");
}

#[tokio::test]
async fn the_seed_decides_the_losses() {
    async fn survivors(seed: u64, others_send: bool) -> Vec<Vec<u8>> {
        let network = MemoryNetwork::new(seed);
        let (a, b) = pair(&network);
        let noise = network.bind(addr(3)).unwrap();
        network.set_default_link(LinkConfig { loss: 0.5, duplicate: 0.1, ..LinkConfig::default() });
        let mut packets = Vec::new();
        for i in 0..200_u8 {
            if others_send {
                send(&noise, addr(1), b"noise").await;
            }
            send(&a, addr(2), &[i]).await;
            packets.extend(recv_all(&b).await);
        }
        let stats = network.stats();
        assert!(stats.packets_lost > 0 && stats.packets_duplicated > 0, "{stats:?}");
        packets
    }
    assert_eq!(survivors(8, false).await, survivors(8, false).await);
    assert_ne!(survivors(8, false).await, survivors(9, false).await);
    // What others send does not change what `a` meets.
    assert_eq!(survivors(8, false).await, survivors(8, true).await);
}

#[tokio::test]
async fn blocks_are_one_way_and_partitions_both_ways() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    let c = network.bind(addr(3)).unwrap();

    network.block(addr(1), addr(2));
    send(&a, addr(2), b"blocked").await;
    send(&b, addr(1), b"passes").await;
    assert!(recv_all(&b).await.is_empty());
    assert_eq!(recv_all(&a).await, [b"passes"]);
    network.unblock(addr(1), addr(2));

    network.partition(&[addr(1)], &[addr(2), addr(3)]);
    send(&a, addr(2), b"cut").await;
    send(&c, addr(1), b"cut").await;
    send(&c, addr(2), b"same side").await;
    assert!(recv_all(&a).await.is_empty());
    assert_eq!(recv_all(&b).await, [b"same side"]);

    network.heal();
    send(&a, addr(2), b"healed").await;
    assert_eq!(recv_all(&b).await, [b"healed"]);
    assert_eq!(network.stats().packets_blocked, 3);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    for _ in 0..QUEUED_PACKETS + 5 {
        send(&a, addr(2), b"x").await;
    }
    assert_eq!(recv_all(&b).await.len(), QUEUED_PACKETS);
    send(&a, addr(9), b"to nobody").await;
    let stats = network.stats();
    assert_eq!(stats.packets_overflowed, 5);
    assert_eq!(stats.packets_unreachable, 1);
    assert_eq!(stats.packets_delivered, QUEUED_PACKETS as u64);
}

#[tokio::test]
async fn the_packet_limit_can_be_changed() {
    let network = MemoryNetwork::new(0);
    let (a, _b) = pair(&network);
    network.set_max_packet_bytes(10);
    assert_eq!(a.max_packet_bytes(&addr(2).into()), 10);
    let refused = a.send_packet(&addr(2).into(), &[0; 11]).await;
    assert!(matches!(refused, Err(SendError::TooLarge { len: 11, limit: 10, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_dial_across_a_block_waits_for_it_to_heal() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    // Even the way back is enough: there are no acknowledgements.
    network.block(addr(2), addr(1));
    let refused = a.open_stream(&addr(2).into(), SECOND).await;
    assert!(matches!(refused, Err(OpenError::Timeout { timeout: SECOND, .. })), "{refused:?}");
    assert!(now_or_never(b.accept_stream()).await.is_none());

    let to = addr(2).into();
    let mut dial = pin!(a.open_stream(&to, SECOND));
    assert!(now_or_never(dial.as_mut()).await.is_none());
    network.heal();
    dial.await.unwrap();
    b.accept_stream().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_ends_a_dial_that_waits() {
    let network = MemoryNetwork::new(0);
    let (a, _b) = pair(&network);
    network.block(addr(1), addr(2));
    let to = addr(2).into();
    let mut dial = pin!(a.open_stream(&to, SECOND));
    assert!(now_or_never(dial.as_mut()).await.is_none());
    a.close().await;
    assert!(matches!(dial.await, Err(OpenError::Closed)));
    assert!(matches!(a.accept_stream().await, Err(RecvError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_stalls_across_a_block_and_goes_on() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    let mut near = a.open_stream(&addr(2).into(), SECOND).await.unwrap();
    let (mut far, _) = b.accept_stream().await.unwrap();

    network.set_link(addr(1), addr(2), LinkConfig { streams_ok: false, ..LinkConfig::default() });
    send(&a, addr(2), b"packets pass").await;
    assert_eq!(recv(&b).await, b"packets pass");

    let data = vec![7; STREAM_BUFFER_BYTES + 1];
    let mut writing = pin!(async {
        near.write_all(&data).await.unwrap();
        near.shutdown().await.unwrap();
    });
    assert!(now_or_never(writing.as_mut()).await.is_none(), "the buffer is bounded");
    let mut received = Vec::new();
    assert!(timeout(SECOND, far.read_u8()).await.is_err());

    let heal = async { network.set_link(addr(1), addr(2), LinkConfig::default()) };
    let (_, (), ()) = tokio::join!(far.read_to_end(&mut received), heal, writing);
    assert!(received == data);
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_its_links_delay() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    network.set_default_link(LinkConfig { delay: SECOND, ..LinkConfig::default() });
    let start = Instant::now();
    let mut near = a.open_stream(&addr(2).into(), 10 * SECOND).await.unwrap();
    assert!(start.elapsed() >= 2 * SECOND, "a dial takes a round trip");
    let (mut far, _) = b.accept_stream().await.unwrap();
    near.write_u8(1).await.unwrap();
    drop(near);
    assert_eq!(far.read_u8().await.unwrap(), 1);
    assert!(far.read_u8().await.is_err(), "the end comes after the bytes");
    assert!(start.elapsed() >= 3 * SECOND);
    assert_eq!(network.stats().streams_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn absurd_settings_do_no_harm() {
    let network = MemoryNetwork::new(0);
    let (a, b) = pair(&network);
    let endless =
        LinkConfig { delay: Duration::MAX, jitter: Duration::MAX, ..LinkConfig::default() };
    network.set_default_link(endless);
    send(&a, addr(2), b"late").await;
    assert_eq!(recv(&b).await, b"late");
    network.set_default_link(LinkConfig { loss: f64::NAN, ..LinkConfig::default() });
    send(&a, addr(2), b"lucky").await;
    assert_eq!(recv(&b).await, b"lucky");
}
