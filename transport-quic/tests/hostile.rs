//! What no honest peer does: it is refused or dropped and counted, and the others go on.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use memberlist_transport::Transport;
use memberlist_transport_quic::{ClusterCa, QuicTransport};
use quinn::crypto::rustls::QuicClientConfig;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::UdpSocket;

use crate::common::{PATIENCE, bind, bind_with, ca, exchange, recv, to, until, within};

/// A bare QUIC client with a certificate of the cluster: an insider that follows no rules.
async fn insider(ca: &ClusterCa, server: &QuicTransport) -> (quinn::Endpoint, quinn::Connection) {
    insider_with(ca, server, quinn::TransportConfig::default()).await
}

async fn insider_with(
    ca: &ClusterCa,
    server: &QuicTransport,
    transport: quinn::TransportConfig,
) -> (quinn::Endpoint, quinn::Connection) {
    let certificate = ca.issue("insider").unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"memberlist/1".to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    let dialled = endpoint.connect_with(config, server.advertise_addr(), "node").unwrap();
    let connection = within("the handshake", dialled).await.unwrap();
    (endpoint, connection)
}

/// What comes on the port and is no QUIC, or is of no connection, is counted and gets no answer.
#[tokio::test]
async fn garbage_and_plain_packets_are_counted_and_draw_nothing() {
    let tls = ca().tls("node").unwrap();
    let (node, peer) = (bind(tls.clone()), bind(tls));
    exchange(&peer, &node, b"before").await;
    let before = node.stats().foreign_datagrams;
    let attacker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    // A packet of memberlist in the clear, of Go, of DNS, and noise of all sizes.
    let mut datagrams = vec![
        [&[0x4d, 1][..], &[7; 60]].concat(),
        vec![8, 1, 2, 3],
        [&[0, 1, 1, 0][..], &[0; 20]].concat(),
    ];
    for _ in 0..500 {
        let mut noise = vec![0; rng.random_range(1..1400)];
        rng.fill_bytes(&mut noise);
        datagrams.push(noise);
    }
    for datagram in &datagrams {
        attacker.send_to(datagram, node.advertise_addr()).await.unwrap();
        tokio::task::yield_now().await;
    }
    exchange(&peer, &node, b"after").await;
    until("most of it is counted", || {
        // A few look like the first packet of a handshake, or were lost.
        node.stats().foreign_datagrams >= before + datagrams.len() as u64 * 9 / 10
    })
    .await;
    assert_eq!((node.stats().connections_accepted, node.stats().migrations), (1, 0));
    let mut answer = [0; 2048];
    // Larger ones with a version that QUIC does not know may draw the versions that it does.
    while let Ok((len, _)) = attacker.try_recv_from(&mut answer) {
        assert!(len < 100, "{len} bytes were drawn");
    }
}

/// Handshakes that begin and do not go on.
#[tokio::test]
async fn handshakes_that_stall_are_limited_and_end() {
    let ca = ca();
    let node = bind_with(ca.tls("node").unwrap(), |config| {
        config.handshake_timeout = Duration::from_millis(700);
        config.retry_above_handshakes = 1000;
        config.max_handshakes = 8;
        config.max_handshakes_per_source = 4;
    });
    let stalled = first_packets(&ca, 12).await;
    let attacker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for first in &stalled {
        attacker.send_to(first, node.advertise_addr()).await.unwrap();
    }
    until("those over the limit are counted", || node.stats().handshakes_dropped_over_limit == 8)
        .await;
    until("the others time out", || node.stats().handshakes_timed_out == 4).await;
    let peer = bind(ca.tls("peer").unwrap());
    exchange(&peer, &node, b"undisturbed").await;
}

/// Outsiders hold all places for handshakes: who comes next gets in all the same.
#[tokio::test]
async fn handshakes_that_are_held_give_way() {
    let ca = ca();
    let node = bind_with(ca.tls("node").unwrap(), |config| {
        config.handshake_timeout = PATIENCE * 2;
        config.retry_above_handshakes = 1000;
        config.max_handshakes = 4;
    });
    let attacker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for first in first_packets(&ca, 4).await {
        attacker.send_to(&first, node.advertise_addr()).await.unwrap();
    }
    let peer = bind(ca.tls("peer").unwrap());
    until("they are there", || node.stats().udp_datagrams_received >= 4).await;
    exchange(&peer, &node, b"undisturbed").await;
    until("one is counted", || node.stats().handshakes_dropped_over_limit == 1).await;
    assert_eq!(node.stats().handshakes_timed_out, 0);
}

/// From a number on, who begins a handshake must show that it receives at its address.
#[tokio::test]
async fn a_flood_of_first_packets_is_asked_to_come_again() {
    let ca = ca();
    let node = bind_with(ca.tls("node").unwrap(), |config| config.retry_above_handshakes = 4);
    let flood = first_packets(&ca, 40).await;
    let attacker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for first in &flood {
        attacker.send_to(first, node.advertise_addr()).await.unwrap();
    }
    until("most are asked", || node.stats().retries_sent >= 36).await;
    // An honest one is asked as well, and comes again.
    let peer = bind(ca.tls("peer").unwrap());
    exchange(&peer, &node, b"undisturbed").await;
    assert!(node.stats().retries_sent >= 37);
}

/// The first packets of handshakes that nobody goes on with.
async fn first_packets(ca: &ClusterCa, count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for _ in 0..count {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = silent.local_addr().unwrap();
        let dialler = bind(ca.tls("dialler").unwrap());
        dialler.send_packet(&addr.into(), b"x").await.unwrap();
        let mut buf = vec![0; 2048];
        let (len, _) = within("a first packet", silent.recv_from(&mut buf)).await.unwrap();
        packets.push(buf[..len].to_vec());
    }
    packets
}

/// An insider fills what one peer may have of the queue, and no more.
#[tokio::test]
async fn a_flood_of_packets_leaves_room_for_others() {
    let ca = ca();
    let node = bind_with(ca.tls("node").unwrap(), |config| config.max_packets_received = 64);
    let (_endpoint, flooding) = insider(&ca, &node).await;
    until("it floods", || {
        for _ in 0..200 {
            let _ = flooding.send_datagram(vec![7; 1000].into());
        }
        node.stats().packets_dropped_over_limit > 1000
    })
    .await;
    assert!(node.stats().packets_received <= 16);
    let peer = bind(ca.tls("peer").unwrap());
    peer.send_packet(&to(&node), b"honest").await.unwrap();
    let honest = async { while recv(&node).await.unwrap().0 != b"honest" {} };
    within("the honest packet", honest).await;
}

/// An insider opens streams and says nothing: over the limits they are refused, and others still get
/// through once the silent ones have timed out.
#[tokio::test]
async fn streams_that_stall_are_limited_and_end() {
    let ca = ca();
    let node = bind_with(ca.tls("node").unwrap(), |config| {
        config.max_inbound_streams = 4;
        config.max_inbound_streams_per_connection = 6;
        config.read_timeout = Duration::from_millis(300);
    });
    let (_endpoint, stalling) = insider(&ca, &node).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        let (mut send, recv) = stalling.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        streams.push((send, recv));
    }
    let more = tokio::time::timeout(Duration::from_millis(200), stalling.open_bi()).await;
    assert!(more.is_err(), "more streams than one connection may have");
    until("those over the limit are refused", || node.stats().streams_dropped_over_limit == 2)
        .await;
    for _ in 0..4 {
        let (mut stream, _) = within("a stream", node.accept_stream()).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        let error = within("the timeout", stream.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
    assert_eq!(node.stats().streams_timed_out, 4);
    let peer = bind(ca.tls("peer").unwrap());
    let mut stream = peer.open_stream(&to(&node), PATIENCE).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"y").await.unwrap();
    within("the honest stream", node.accept_stream()).await.unwrap();
}

/// Packets on streams that are too long, cut, empty, or never end.
#[tokio::test]
async fn packet_streams_that_make_no_packet_are_counted() {
    let ca = ca();
    let node = bind(ca.tls("node").unwrap());
    let (_endpoint, connection) = insider(&ca, &node).await;
    let mut long = connection.open_uni().await.unwrap();
    // It is stopped somewhere in the middle.
    let _ = long.write_all(&vec![7; 200_000]).await;
    let _ = long.finish();
    until("too long", || node.stats().packet_streams_failed == 1).await;
    let mut cut = connection.open_uni().await.unwrap();
    cut.write_all(b"half a pac").await.unwrap();
    cut.reset(0_u32.into()).unwrap();
    until("cut", || node.stats().packet_streams_failed == 2).await;
    connection.open_uni().await.unwrap().finish().unwrap();
    until("empty", || node.stats().packets_dropped_empty == 1).await;
    let mut endless = connection.open_uni().await.unwrap();
    endless.write_all(b"and so on").await.unwrap();
    until("never ended", || node.stats().packet_streams_failed == 3).await;
    // After all that, one that is whole arrives.
    let mut whole = connection.open_uni().await.unwrap();
    whole.write_all(&[9; 3000]).await.unwrap();
    whole.finish().unwrap();
    assert_eq!(within("the whole one", recv(&node)).await.unwrap().0, [9; 3000]);
}

#[tokio::test]
async fn who_offers_no_datagrams_is_no_peer() {
    let ca = ca();
    let node = bind(ca.tls("node").unwrap());
    let before = node.stats().handshakes_failed;
    let mut transport = quinn::TransportConfig::default();
    transport.datagram_receive_buffer_size(None);
    let (_endpoint, connection) = insider_with(&ca, &node, transport).await;
    let end = within("the refusal", connection.closed()).await;
    assert!(end.to_string().contains("datagrams"), "{end}");
    assert_eq!(node.stats().handshakes_failed, before + 1);
}
