//! How connections come, are shared, give way and go.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memberlist_transport::{OpenError, Transport};
use memberlist_transport_quic::{QuicConfig, QuicTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::relay::Relay;
use crate::common::{
    PATIENCE, bind, bind_with, ca, config, exchange, exchange_at, recv, to, until, within,
};

fn in_use(transport: &QuicTransport) -> usize {
    transport.connections().iter().filter(|connection| connection.in_use).count()
}

/// Two dials at the same moment make two connections, and both sides keep the same one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_dials_settle_on_one() {
    let ca = ca();
    let tls = ca.tls("node").unwrap();
    let mut settled = 0;
    for _ in 0..8 {
        let (a, b) = (bind(tls.clone()), bind(tls.clone()));
        let (to_a, to_b) = (to(&a), to(&b));
        let sent = tokio::join!(a.send_packet(&to_b, b"a to b"), b.send_packet(&to_a, b"b to a"));
        sent.0.unwrap();
        sent.1.unwrap();
        let arrived = tokio::join!(within("a's", recv(&b)), within("b's", recv(&a)));
        assert_eq!(
            (arrived.0.unwrap().0, arrived.1.unwrap().0),
            (b"a to b".into(), b"b to a".into())
        );
        until("one connection is left", || {
            [&a, &b].map(|t| (t.connections().len(), in_use(t))) == [(1, 1); 2]
        })
        .await;
        settled += a.stats().connections_replaced;
        // They are the two ends of one connection: what one has dialled, the other has accepted.
        assert_ne!(a.connections()[0].dialled, b.connections()[0].dialled);
        exchange(&a, &b, b"still").await;
        exchange(&b, &a, b"there").await;
        assert_eq!([&a, &b].map(in_use), [1, 1]);
    }
    assert!(settled > 0, "not once did both dial");
}

#[tokio::test]
async fn a_node_may_speak_to_itself() {
    let ca = ca();
    let node = bind(ca.tls("node").unwrap());
    exchange(&node, &node, b"it is me").await;
    let mut near = node.open_stream(&to(&node), PATIENCE).await.unwrap();
    near.write_all(b"and me").await.unwrap();
    near.shutdown().await.unwrap();
    let (mut far, _) = within("the stream", node.accept_stream()).await.unwrap();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"and me");
    // Neither end takes the other's place.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((node.connections().len(), node.stats().connections_replaced), (2, 0));
}

#[tokio::test]
async fn the_longest_unused_connection_makes_room() {
    let ca = ca();
    let tls = ca.tls("node").unwrap();
    let hub = bind_with(tls.clone(), |config| config.max_connections = 3);
    let peers: Vec<_> = (0..4).map(|_| bind(tls.clone())).collect();
    exchange(&hub, &peers[0], b"0").await;
    exchange(&hub, &peers[1], b"1").await;
    // The first has a stream, which nobody takes away.
    let mut stream = hub.open_stream(&to(&peers[0]), PATIENCE).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let (mut far, _) = within("the stream", peers[0].accept_stream()).await.unwrap();
    exchange(&hub, &peers[2], b"2").await;
    exchange(&hub, &peers[3], b"3").await;
    assert_eq!((hub.connections().len(), hub.stats().connections_evicted), (3, 1));
    assert!(hub.connections().iter().all(|c| c.addr != peers[1].advertise_addr()));
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"x");
    // Who was evicted is found again.
    exchange(&peers[1], &hub, b"again").await;
    exchange(&hub, &peers[1], b"hello").await;
}

#[tokio::test]
async fn one_source_gets_so_many_connections() {
    let ca = ca();
    let tls = ca.tls("node").unwrap();
    let hub = bind_with(tls.clone(), |config| config.max_connections_per_source = 2);
    let peers: Vec<_> = (0..3).map(|_| bind(tls.clone())).collect();
    exchange(&peers[0], &hub, b"0").await;
    exchange(&peers[1], &hub, b"1").await;
    peers[2].send_packet(&to(&hub), b"2").await.unwrap();
    until("the third is refused", || hub.stats().connections_refused_over_limit == 1).await;
    until("it is told", || peers[2].stats().dials_failed >= 1).await;
    let told = peers[2].send_packet(&to(&hub), b"2").await.unwrap_err();
    assert!(told.to_string().contains("too many connections"), "{told}");
    // What this node dials itself is not limited, and when one goes there is room again.
    exchange(&hub, &peers[2], b"from here").await;
    peers[0].close().await;
    until("it is gone", || hub.connections().len() == 2).await;
}

/// Packets to nobody are dropped from the front of a short queue, and all when the dial fails.
#[tokio::test]
async fn packets_wait_for_a_connection_in_a_bounded_queue() {
    let ca = ca();
    let node = bind_with(ca.tls("node").unwrap(), |config| {
        config.max_packets_waiting = 4;
        config.handshake_timeout = Duration::from_millis(500);
    });
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nobody = silent.local_addr().unwrap().into();
    for i in 0..10 {
        node.send_packet(&nobody, &[i]).await.unwrap();
    }
    assert_eq!(node.stats().packets_dropped_waiting, 6);
    until("the dial fails", || node.stats().dials_failed == 1).await;
    assert_eq!(node.stats().packets_dropped_waiting, 10);
    let error = node.send_packet(&nobody, b"x").await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
    // After a pause it is tried again.
    until("the next dial fails", || {
        let _ = futures_ready(node.send_packet(&nobody, b"x"));
        node.stats().dials_failed == 2
    })
    .await;

    let peer = bind(ca.tls("peer").unwrap());
    for i in 0..10 {
        node.send_packet(&to(&peer), &[i]).await.unwrap();
    }
    let mut arrived = Vec::new();
    while arrived.len() < 4 {
        arrived.push(within("the packets", recv(&peer)).await.unwrap().0[0]);
    }
    assert_eq!(arrived, [6, 7, 8, 9]);
}

/// The outcome of a future that does not wait.
fn futures_ready<R>(future: impl Future<Output = R>) -> R {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

/// Two threads send while a dial ends: each packet has a fate that is counted, and no second dial
/// begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_in_the_moment_of_a_connection_are_not_stranded() {
    let ca = ca();
    let tls = ca.tls("node").unwrap();
    let node = Arc::new(bind_with(tls.clone(), |config| config.max_packets_waiting = 1_000_000));
    let (mut calls, rounds) = (0, 30);
    for made in 0..rounds {
        let peer = bind(tls.clone());
        let sending = [(); 2].map(|()| {
            let (node, to) = (Arc::clone(&node), to(&peer));
            tokio::task::spawn_blocking(move || {
                let (mut sent, mut after) = (0, 0);
                while after < 20 {
                    futures_ready(node.send_packet(&to, b"x")).unwrap();
                    sent += 1;
                    after += u64::from(node.stats().connections_dialled > made);
                }
                sent
            })
        });
        for sent in sending {
            calls += within("the packets", sent).await.unwrap();
        }
        within("what was sent", recv(&peer)).await.unwrap();
        assert_eq!(node.stats().connections_dialled, made + 1);
        peer.close().await;
    }
    until("all are gone", || node.connections().is_empty()).await;
    let stats = node.stats();
    assert_eq!(stats.packets_sent + stats.packets_dropped_waiting, calls);
}

/// A peer whose address changes on the way, as behind address translation, keeps its connection and
/// is answered where it is now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_is_followed() {
    let ca = ca();
    let (client, server) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    let relay = Relay::to(server.advertise_addr()).await;
    let before = exchange_at(&client, &server, relay.addr, b"before").await;
    let moved = relay.move_on().await;
    assert_ne!(moved, before.addr);
    // Should the new path answer late, QUIC goes back to the old one until the next packet (RFC 9000 section 9.3.2).
    let follows =
        async { while exchange_at(&client, &server, relay.addr, b"after").await.addr != moved {} };
    within("it is followed", follows).await;
    until("it is noticed", || server.stats().migrations >= 1).await;
    // The answer goes there, over the same connection.
    exchange_at(&server, &client, moved, b"answer").await;
    until("it is there", || server.connections()[0].addr == moved).await;
    assert_eq!((server.stats().connections_accepted, server.stats().connections_dialled), (1, 0));
}

/// The packet limit follows the path: it grows when larger datagrams are found to pass, and what is
/// too large again after the path has changed takes a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_packet_limit_follows_the_path() {
    let ca = ca();
    let (client, server) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    let relay = Relay::to(server.advertise_addr()).await;
    let to = relay.addr.into();
    let first = client.max_packet_bytes(&to);
    assert_eq!(first, client.assured_packet_bytes());
    exchange_at(&client, &server, relay.addr, b"hello").await;
    until("a larger limit", || client.max_packet_bytes(&to) > 1350).await;
    let large = client.max_packet_bytes(&to);
    exchange_at(&client, &server, relay.addr, &vec![7; large]).await;
    assert_eq!(client.stats().packets_sent_by_stream, 0);

    // From here on, large datagrams vanish.
    relay.path.max_bytes.store(1250, Ordering::Relaxed);
    let large = vec![8; large];
    exchange_at(&client, &server, relay.addr, &large).await;
    assert!(client.max_packet_bytes(&to) < large.len());
    assert!(client.stats().packets_sent_by_stream > 0);
    // What was never promised is refused as ever.
    let over = client.send_packet(&to, &vec![9; 1500]).await;
    assert!(over.is_err());
    // A close waits for packets on streams as well.
    let last = vec![9; large.len()];
    client.send_packet(&to, &last).await.unwrap();
    client.close().await;
    let arrived = async { while recv(&server).await.unwrap().0 != last {} };
    within("the last packet", arrived).await;
}

#[tokio::test]
async fn a_packet_right_before_the_close_arrives() {
    let ca = ca();
    let (a, b) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    // There is no connection yet.
    a.send_packet(&to(&b), b"farewell").await.unwrap();
    a.close().await;
    assert_eq!(within("the packet", recv(&b)).await.unwrap().0, b"farewell");
}

/// Nothing was sent, so nothing is to be answered.
#[tokio::test]
async fn a_peer_that_was_not_asked_is_not_taken_for_dead() {
    let ca = ca();
    let (a, b) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    exchange(&a, &b, b"x").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        // Longer than a peer may leave unanswered what it must answer.
        tokio::time::sleep(Duration::from_millis(400)).await;
        held.push(a.open_stream(&to(&b), PATIENCE).await.unwrap());
    }
    assert_eq!(a.stats().connections_dialled, 1);
}

/// The one connection that a source may have is replaced after a reload without a gap.
#[tokio::test]
async fn a_connection_is_replaced_at_the_limit_of_its_source() {
    let ca = ca();
    let hub = bind_with(ca.tls("hub").unwrap(), |config| config.max_connections_per_source = 1);
    let a = bind(ca.tls("a").unwrap());
    exchange(&a, &hub, b"before").await;
    a.reload(ca.tls("a").unwrap()).unwrap();
    a.send_packet(&to(&hub), b"after").await.unwrap();
    until("it is replaced", || a.stats().connections_replaced == 1).await;
    until("the old one is gone", || hub.connections().len() == 1).await;
    exchange(&a, &hub, b"still").await;
    assert_eq!((hub.stats().connections_refused_over_limit, a.stats().dials_failed), (0, 0));
}

/// What cannot leave is told at once, not by a silence.
#[tokio::test]
async fn an_address_of_the_other_version_is_told() {
    let tls = ca().tls("node").unwrap();
    let v4 = bind(tls.clone());
    let v6 = bind_with(tls, |config| config.bind_addr = "[::1]:0".parse().unwrap());
    for (from, peer, version) in [(&v4, &v6, "IPv6"), (&v6, &v4, "IPv4")] {
        let error = from.send_packet(&to(peer), b"x").await.unwrap_err().to_string();
        assert!(error.contains(version), "{error}");
        let error = from.open_stream(&to(peer), PATIENCE).await.unwrap_err();
        let OpenError::Io { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::AddrNotAvailable);
    }
}

/// A round trip that is longer than the pause after which a silent handshake begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_path_connects() {
    let ca = ca();
    let slow = |name: &str| {
        bind_with(ca.tls(name).unwrap(), |config| {
            config.handshake_timeout = Duration::from_secs(20);
        })
    };
    let (client, server) = (slow("a"), slow("b"));
    let relay = Relay::to(server.advertise_addr()).await;
    relay.path.delay_ms.store(800, Ordering::Relaxed);
    client.open_stream(&relay.addr.into(), PATIENCE).await.unwrap();
}

/// Dropped without a close while a stream is held: the port is free soon.
#[tokio::test]
async fn a_dropped_transport_frees_its_port() {
    let ca = ca();
    let (a, b) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    exchange(&a, &b, b"x").await;
    let held = a.open_stream(&to(&b), PATIENCE).await.unwrap();
    let addr = a.advertise_addr();
    drop(a);
    until("the peer is told", || b.connections().is_empty()).await;
    until("the port is free", || std::net::UdpSocket::bind(addr).is_ok()).await;
    drop(held);
}

/// Closed while datagrams come without a pause: the port is free at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_transport_has_freed_its_port() {
    let tls = ca().tls("node").unwrap();
    for _ in 0..200 {
        let node = bind(tls.clone());
        let addr = node.advertise_addr();
        let needed = Arc::new(());
        let flooding = Arc::downgrade(&needed);
        let flood = std::thread::spawn(move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            while flooding.strong_count() > 0 {
                // Fails when nobody listens any more.
                let _ = socket.send_to(&[7; 1200], addr);
            }
        });
        until("they come", || node.stats().udp_datagrams_received > 100).await;
        node.close().await;
        std::net::UdpSocket::bind(addr).unwrap();
        drop(needed);
        flood.join().unwrap();
    }
}

#[tokio::test]
async fn settings_without_bounds_work_or_are_refused() {
    let tls = ca().tls("node").unwrap();
    let endless = bind_with(tls.clone(), |config| {
        config.max_connections = usize::MAX;
        config.max_connections_per_source = usize::MAX;
        config.max_handshakes = usize::MAX;
        config.max_handshakes_per_source = usize::MAX;
        config.max_inbound_streams = usize::MAX;
        config.max_packets_waiting = usize::MAX;
        config.max_packets_received = usize::MAX;
        config.udp_recv_buffer_bytes = usize::MAX;
        config.udp_send_buffer_bytes = usize::MAX;
        config.handshake_timeout = Duration::MAX;
        config.idle_timeout = Duration::MAX;
        config.unanswered_timeout = Duration::MAX;
        config.read_timeout = Duration::MAX;
        config.write_timeout = Duration::MAX;
        config.stream_timeout = Some(Duration::MAX);
    });
    exchange(&endless, &bind(tls.clone()), b"x").await;
    let refused = |change: fn(&mut QuicConfig)| {
        let mut config = config(tls.clone());
        change(&mut config);
        QuicTransport::bind(config).unwrap_err().to_string()
    };
    let error = refused(|config| config.initial_rtt = Duration::MAX);
    assert!(error.contains("initial_rtt"), "{error}");
    // Of less than a millisecond QUIC makes none at all.
    let error = refused(|config| config.idle_timeout = Duration::from_micros(999));
    assert!(error.contains("idle_timeout"), "{error}");
    let error = refused(|config| config.max_inbound_streams_per_connection = u32::MAX);
    assert!(error.contains("max_inbound_streams_per_connection"), "{error}");
}

/// What was let pass as small enough is not too large because the connection has just ended.
#[tokio::test]
async fn a_promised_size_outlives_the_connection() {
    let ca = ca();
    let (a, b) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    exchange(&a, &b, b"x").await;
    until("a larger limit", || a.max_packet_bytes(&to(&b)) > 1350).await;
    b.close().await;
    let large = a.max_packet_bytes(&to(&b)).max(1351);
    until("it is gone", || a.connections().is_empty()).await;
    a.send_packet(&to(&b), &vec![7; large]).await.unwrap();
}

/// This process was stopped for a while: answers have come, and nobody has looked at them yet.
#[tokio::test]
async fn a_pause_of_ones_own_does_not_make_peers_look_dead() {
    let tls = ca().tls("node").unwrap();
    let node = bind(tls.clone());
    let peers = [(); 5].map(|()| bind(tls.clone()));
    for peer in &peers {
        exchange(&node, peer, b"x").await;
    }
    let pause = Duration::from_millis(400);
    tokio::time::sleep(pause).await;
    for peer in &peers {
        node.send_packet(&to(peer), b"before").await.unwrap();
    }
    std::thread::sleep(pause);
    for peer in &peers {
        node.send_packet(&to(peer), b"after").await.unwrap();
    }
    for peer in &peers {
        exchange(&node, peer, b"still").await;
    }
    assert_eq!(node.stats().connections_dialled, 5);
}
