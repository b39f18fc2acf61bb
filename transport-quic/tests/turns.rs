//! Handshakes that packets wait for begin a few at a time: who is held up by that, and who is not.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memberlist_transport::{Destination, Transport};
use memberlist_transport_quic::{ClusterCa, QuicTransport};

use crate::common::relay::Relay;
use crate::common::{
    PATIENCE, bind, bind_with, ca, exchange, exchange_at, recv, to, until, within,
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// An address at which nobody answers.
fn silent(number: u32) -> Destination {
    let ip = std::net::Ipv4Addr::from_bits(0x7F10_0001 + number);
    std::net::SocketAddr::from((ip, 9)).into()
}

async fn speak_to_silent(node: &QuicTransport, numbers: std::ops::Range<u32>) {
    for number in numbers {
        // Refused for a while if the last dial has failed.
        let _ = node.send_packet(&silent(number), b"x").await;
    }
}

/// Handshakes for packets take turns, which silent peers give up soon; a stream waits for nobody.
#[tokio::test]
async fn few_handshakes_begin_at_once_and_silent_peers_hold_up_nobody_for_long() {
    let ca = ca();
    let node = bind(ca.tls("node").unwrap());
    let (peer, other) = (bind(ca.tls("peer").unwrap()), bind(ca.tls("other").unwrap()));
    let mut silent = Vec::new();
    for _ in 0..12 {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let nobody = socket.local_addr().unwrap().into();
        node.send_packet(&nobody, b"x").await.unwrap();
        silent.push(socket);
        if silent.len() == 4 {
            node.send_packet(&to(&peer), b"behind some").await.unwrap();
        }
    }
    let to_other = to(&other);
    node.send_packet(&to_other, b"behind all").await.unwrap();
    within("the first begins", silent[0].readable()).await.unwrap();
    let begun = |socket: &tokio::net::UdpSocket| socket.try_recv_from(&mut [0; 2000]).is_ok();
    assert!(!silent[6..].iter().any(begun), "all begin at once");

    within("a stream", node.open_stream(&to_other, PATIENCE)).await.unwrap();
    assert!(!begun(&silent[11]), "the stream waited for its turn");
    assert_eq!(within("a packet", recv(&peer)).await.unwrap().0, b"behind some");
    // On a busy machine perhaps so late that nothing is begun any more.
    let given_up = || node.stats().packets_dropped_waiting > 0;
    until("all have had their turn", || begun(&silent[11]) || given_up()).await;
    assert_eq!(node.stats().dials_delayed, 12);
}

/// What is too old to be sent keeps no place before others.
#[tokio::test]
async fn dials_that_only_old_packets_wait_for_are_given_up() {
    let ca = ca();
    let (node, peer) = (bind(ca.tls("node").unwrap()), bind(ca.tls("peer").unwrap()));
    // In turn they would take a minute or more.
    speak_to_silent(&node, 0..3000).await;
    exchange(&node, &peer, b"behind them").await;
    until("most are given up", || node.stats().packets_dropped_waiting >= 2900).await;
}

/// Members that are gone may be spoken to for a long time.
#[tokio::test]
async fn peers_that_do_not_answer_hold_up_nobody_again_and_again() {
    let ca = ca();
    let node = Arc::new(bind_with(ca.tls("node").unwrap(), |config| {
        config.handshake_timeout = Duration::from_millis(300);
    }));
    const SILENT: u32 = 150;
    let speaking = Arc::clone(&node);
    let speaks = tokio::spawn(async move {
        loop {
            speak_to_silent(&speaking, 0..SILENT).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    until("each has failed", || node.stats().dials_failed >= 2 * u64::from(SILENT)).await;
    let before = node.stats().dials_failed;
    let peer = bind(ca.tls("peer").unwrap());
    exchange(&node, &peer, b"first contact").await;
    let failed_meanwhile = node.stats().dials_failed - before;
    speaks.abort();
    assert!(failed_meanwhile < u64::from(SILENT / 2), "behind {failed_meanwhile} others");
}

/// Peers that the node has connections to, each by a path of its own.
async fn connected(
    node: &QuicTransport,
    ca: &ClusterCa,
    count: usize,
) -> Vec<(QuicTransport, Relay)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let peer = bind(ca.tls("peer").unwrap());
        let relay = Relay::to(peer.advertise_addr()).await;
        exchange_at(node, &peer, relay.addr, b"hello").await;
        all.push((peer, relay));
    }
    all
}

#[tokio::test]
async fn first_contacts_do_not_wait_for_connections_that_are_replaced() {
    let ca = ca();
    let node = bind(ca.tls("node").unwrap());
    let others = connected(&node, &ca, 60).await;
    for (_, relay) in &others {
        // So that a turn is over before the handshake is.
        relay.path.delay_ms.store(60, Ordering::Relaxed);
    }
    node.reload(ca.tls("node").unwrap()).unwrap();
    for (_, relay) in &others {
        node.send_packet(&relay.addr.into(), b"x").await.unwrap();
    }
    let before = node.stats().connections_dialled;
    let peer = bind(ca.tls("new").unwrap());
    exchange(&node, &peer, b"first contact").await;
    let meanwhile = node.stats().connections_dialled - before;
    assert!(meanwhile < 30, "behind {meanwhile} others");
}

/// One is heard again while its dial waits for its turn; another has failed before it was up.
#[tokio::test]
async fn connections_that_are_silent_hold_up_only_each_other() {
    let ca = ca();
    let node = bind_with(ca.tls("node").unwrap(), |config| {
        config.handshake_timeout = Duration::from_millis(500);
    });
    let mut others = connected(&node, &ca, 60).await;
    let reserved = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let late = reserved.local_addr().unwrap();
    node.send_packet(&late.into(), b"too early").await.unwrap();
    until("that has failed", || node.stats().dials_failed == 1).await;
    drop(reserved);

    others.iter().for_each(|(_, relay)| relay.path.loss.store(100, Ordering::Relaxed));
    let speak = async |others: &[(QuicTransport, Relay)]| {
        for (_, relay) in others {
            let _ = node.send_packet(&relay.addr.into(), b"are you there").await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let dialled = node.stats().connections_dialled;
    while node.stats().dials_delayed < 57 {
        speak(&others).await;
    }
    let (peer, relay) = others.pop().unwrap();
    relay.path.loss.store(0, Ordering::Relaxed);
    exchange_at(&node, &peer, relay.addr, b"the path is mended").await;

    let up = bind_with(ca.tls("up").unwrap(), |config| config.bind_addr = late);
    let failed = node.stats().dials_failed;
    exchange(&node, &up, b"now it is there").await;
    let meanwhile = node.stats().dials_failed - failed;
    assert!(meanwhile < 30, "behind {meanwhile} others");

    while node.stats().dials_failed < failed + 120 {
        speak(&others).await;
        exchange_at(&node, &peer, relay.addr, b"all along").await;
    }
    assert_eq!(node.stats().connections_dialled, dialled + 1, "that to the late one");
}

/// Peers whose first datagram has just come are told of the end, and do not dial on.
#[test]
fn who_dials_a_node_that_closes_is_refused_at_once() {
    let ca = ca();
    // It does nothing until it closes.
    let own = runtime();
    let node = own.block_on(async {
        bind_with(ca.tls("node").unwrap(), |config| {
            config.max_handshakes_per_source = 256;
            config.retry_above_handshakes = 256;
        })
    });
    let patient = || {
        bind_with(ca.tls("peer").unwrap(), |config| {
            // Longer than the test waits.
            config.handshake_timeout = 2 * PATIENCE;
            config.idle_timeout = 2 * PATIENCE;
        })
    };
    let others = runtime();
    let peers: Vec<_> = others.block_on(async { (0..60).map(|_| patient()).collect() });
    others.block_on(async {
        for peer in &peers {
            peer.send_packet(&to(&node), b"x").await.unwrap();
        }
        let all_sent = || peers.iter().all(|peer| peer.stats().udp_datagrams_sent > 0);
        until("they have dialled", all_sent).await;
    });
    let addr = node.advertise_addr();
    own.block_on(async {
        // As `close`, but without a moment for packets to leave.
        drop(node);
        until("the port is free", || std::net::UdpSocket::bind(addr).is_ok()).await;
    });
    let is_told = |peer: &QuicTransport| {
        let stats = peer.stats();
        stats.dials_failed > 0 || stats.connections_dialled > 0 && peer.connections().is_empty()
    };
    others.block_on(until("all are told", || peers.iter().all(is_told)));
}

/// The peer has dialled while this node's dial waited for its turn; then that is of before a reload.
#[tokio::test]
async fn a_stream_takes_no_outdated_connection_for_what_its_dial_made() {
    let ca = ca();
    let (node, peer) = (bind(ca.tls("node").unwrap()), bind(ca.tls("peer").unwrap()));
    speak_to_silent(&node, 0..300).await;
    node.send_packet(&to(&peer), b"waits").await.unwrap();
    exchange(&peer, &node, b"from there").await;
    node.reload(ca.tls("node").unwrap()).unwrap();
    within("a stream", node.open_stream(&to(&peer), PATIENCE)).await.unwrap();
    assert_eq!(node.stats().connections_dialled, 1);
}

#[tokio::test]
async fn packets_that_wait_for_a_turn_leave_before_the_end() {
    let ca = ca();
    let (node, peer) = (bind(ca.tls("node").unwrap()), bind(ca.tls("peer").unwrap()));
    speak_to_silent(&node, 0..100).await;
    node.send_packet(&to(&peer), b"the last word").await.unwrap();
    node.close().await;
    assert_eq!(within("it", recv(&peer)).await.unwrap().0, b"the last word");
}

#[tokio::test]
async fn dials_for_packets_have_a_limit_and_streams_none() {
    let ca = ca();
    let (node, peer) = (bind(ca.tls("node").unwrap()), bind(ca.tls("peer").unwrap()));
    // No task of this runtime runs meanwhile.
    speak_to_silent(&node, 0..5000).await;
    assert_eq!(node.stats().packets_dropped_waiting, 5000 - 4096);
    speak_to_silent(&node, 0..1).await;
    assert_eq!(node.stats().packets_dropped_waiting, 5000 - 4096);
    within("a stream", node.open_stream(&to(&peer), PATIENCE)).await.unwrap();
    // What is too old makes room for others.
    until("it is given up", || node.stats().packets_dropped_waiting >= 4900).await;
    let before = node.stats().packets_dropped_waiting;
    speak_to_silent(&node, 5000..6000).await;
    assert_eq!(node.stats().packets_dropped_waiting, before);
}

/// A connection moves to an address for which packets wait.
#[tokio::test]
async fn packets_that_wait_for_an_address_take_the_connection_that_moves_there() {
    let ca = ca();
    let (node, peer) = (bind(ca.tls("node").unwrap()), bind(ca.tls("peer").unwrap()));
    let relay = Relay::to(node.advertise_addr()).await;
    exchange_at(&peer, &node, relay.addr, b"before").await;
    let moving = async {
        // Where the move takes longer than packets wait for, once more.
        for round in 0_u32.. {
            let silent = round * 100..round * 100 + 100;
            let waits = async |addr: std::net::SocketAddr| {
                speak_to_silent(&node, silent).await;
                node.send_packet(&addr.into(), b"waits").await.unwrap();
            };
            relay.move_on_after(waits).await;
            exchange_at(&peer, &node, relay.addr, b"after").await;
            let arrived = tokio::time::timeout(Duration::from_millis(500), recv(&peer)).await;
            if let Ok(arrived) = arrived {
                return arrived.unwrap().0;
            }
        }
        unreachable!("rounds have no end")
    };
    assert_eq!(within("it follows the peer", moving).await, b"waits");
    assert_eq!(node.stats().connections_dialled, 0);
}

/// A dial belongs to all who wait for it.
#[test]
fn a_dial_outlives_the_runtime_of_who_asked_for_it() {
    let ca = ca();
    let own = runtime();
    let (node, peer) =
        own.block_on(async { (bind(ca.tls("node").unwrap()), bind(ca.tls("peer").unwrap())) });
    runtime().block_on(node.send_packet(&to(&peer), b"from elsewhere")).unwrap();
    let arrived = own.block_on(async { within("it", recv(&peer)).await.unwrap().0 });
    assert_eq!(arrived, b"from elsewhere");
}
