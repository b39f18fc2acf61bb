//! Binding: ports, several addresses, both IP versions, what is advertised, and giving it all back.

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use memberlist_transport::{SendError, Transport};
use memberlist_transport_net::{BindError, NetConfig, NetTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{PATIENCE, bind, exchange, has_ipv6, recv, v4, v6};

#[tokio::test]
async fn port_zero_is_one_port_for_all() {
    let transport = bind(|config| {
        config.bind_addrs = vec![v4(0), "127.0.0.2:0".parse().unwrap()];
        if has_ipv6() {
            config.bind_addrs.push(v6(0));
        }
    });
    let port = transport.advertise_addr().port();
    assert_ne!(port, 0);
    for addr in transport.local_addrs() {
        assert_eq!(addr.port(), port);
        let udp = UdpSocket::bind(addr).unwrap_err();
        assert_eq!(udp.kind(), io::ErrorKind::AddrInUse);
        std::net::TcpStream::connect(addr).unwrap();
    }
}

#[tokio::test]
async fn a_fixed_port_that_is_taken_is_an_error() {
    // A port that is free for both, of which one is then taken.
    let before = bind(|_| {});
    let addr = before.advertise_addr();
    before.close().await;
    let _taken = UdpSocket::bind(addr).unwrap();
    match NetTransport::bind_addr(addr) {
        Err(BindError::Socket { protocol, addr: named, source }) => {
            assert_eq!((protocol, named), ("udp", addr));
            assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
        }
        other => panic!("{other:?}"),
    }
    // What was opened before the error is closed.
    let _free = TcpListener::bind(addr).unwrap();
}

#[test]
fn binding_outside_a_runtime_is_an_error() {
    assert!(matches!(NetTransport::bind_addr(v4(0)), Err(BindError::NoRuntime)));
}

#[tokio::test]
async fn a_wrong_configuration_is_an_error() {
    let mut config = NetConfig::new(v4(0));
    config.bind_addrs.clear();
    assert!(matches!(NetTransport::bind(config), Err(BindError::NoBindAddress)));
}

#[tokio::test]
async fn every_address_receives_and_answers() {
    let second: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let many = bind(|config| config.bind_addrs.push(second));
    let one = bind(|_| {});
    for addr in many.local_addrs() {
        let source = exchange(&one, *addr, &many, b"ask").await;
        assert_eq!(source, one.advertise_addr());
        let mut near = one.open_stream(&(*addr).into(), PATIENCE).await.unwrap();
        near.write_u8(7).await.unwrap();
        let (mut far, _) = many.accept_stream().await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), 7);
    }
    // One busy address does not starve the other.
    for i in 0..20 {
        one.send_packet(&many.local_addrs()[0].into(), &[i]).await.unwrap();
        one.send_packet(&many.local_addrs()[1].into(), &[100 + i]).await.unwrap();
    }
    // Lets the runtime learn that both sockets have packets.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut first_four = Vec::new();
    while first_four.len() < 4 {
        // Others may be late copies of the questions above.
        if let [number] = recv(&many).await.unwrap().0[..] {
            first_four.push(number);
        }
    }
    let low = first_four.into_iter().filter(|number| *number < 100).count();
    assert_eq!(low, 2, "the sockets are not read in turn");
}

#[tokio::test]
async fn a_dual_stack_wildcard_speaks_both_versions() {
    if !has_ipv6() {
        return;
    }
    let dual = NetTransport::bind_addr("[::]:0".parse().unwrap()).unwrap();
    let port = dual.advertise_addr().port();
    for (other, addr) in [(v4(0), v4(port)), (v6(0), v6(port))] {
        let other = NetTransport::bind_addr(other).unwrap();
        let source = exchange(&other, addr, &dual, b"ask").await;
        assert_eq!(source, other.advertise_addr(), "sources are canonical");
        exchange(&dual, source, &other, b"answer").await;

        let mut near = other.open_stream(&addr.into(), PATIENCE).await.unwrap();
        near.write_u8(7).await.unwrap();
        let (_far, source) = dual.accept_stream().await.unwrap();
        assert_eq!(source.addr.is_ipv4(), addr.is_ipv4(), "sources are canonical");
    }
    // A destination in mapped form is the same destination.
    let other = NetTransport::bind_addr(v4(0)).unwrap();
    let mapped: SocketAddr =
        format!("[::ffff:127.0.0.1]:{}", other.advertise_addr().port()).parse().unwrap();
    exchange(&dual, mapped, &other, b"mapped").await;
}

#[tokio::test]
async fn both_wildcards_can_be_bound_side_by_side() {
    if !has_ipv6() {
        return;
    }
    let transport = bind(|config| {
        config.bind_addrs = vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    });
    let port = transport.advertise_addr().port();
    let (by4, by6) = (bind(|_| {}), NetTransport::bind_addr(v6(0)).unwrap());
    exchange(&by4, v4(port), &transport, b"by IPv4").await;
    exchange(&by6, v6(port), &transport, b"by IPv6").await;
    exchange(&transport, by4.advertise_addr(), &by4, b"to IPv4").await;
    exchange(&transport, by6.advertise_addr(), &by6, b"to IPv6").await;
}

#[tokio::test]
async fn no_socket_of_the_right_version_is_an_error() {
    let transport = bind(|_| {});
    let to = v6(7946);
    match transport.send_packet(&to.into(), b"x").await {
        Err(SendError::Io { to: named, source }) => {
            assert_eq!(named, to);
            assert_eq!(source.to_string(), "no bind address of this node is IPv6");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(transport.stats().packets_send_errors, 1);
}

#[tokio::test]
async fn what_is_advertised() {
    let transport = bind(|config| config.advertise_addr = Some("203.0.113.1:0".parse().unwrap()));
    let port = transport.local_addrs()[0].port();
    assert_eq!(transport.advertise_addr(), SocketAddr::from(([203, 0, 113, 1], port)));

    let wildcard = NetTransport::bind_addr("0.0.0.0:0".parse().unwrap()).unwrap();
    let addr = wildcard.advertise_addr();
    assert!(addr.is_ipv4() && !addr.ip().is_unspecified() && addr.port() != 0, "{addr}");
    exchange(&wildcard, addr, &wildcard, b"to itself").await;
}

#[tokio::test]
async fn close_frees_the_ports_while_calls_wait() {
    let transport = std::sync::Arc::new(bind(|_| {}));
    let addr = transport.advertise_addr();
    let waiting = {
        let transport = std::sync::Arc::clone(&transport);
        tokio::spawn(async move { transport.accept_stream().await.map(|_| ()) })
    };
    exchange(&transport, addr, &transport, b"to itself").await;
    transport.close().await;
    let _udp = UdpSocket::bind(addr).unwrap();
    let _tcp = TcpListener::bind(addr).unwrap();
    let ended = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(memberlist_transport::RecvError::Closed)));
}

#[tokio::test]
async fn streams_outlive_the_transport() {
    let (a, b) = (bind(|_| {}), bind(|_| {}));
    let mut near = a.open_stream(&b.advertise_addr().into(), PATIENCE).await.unwrap();
    let (mut far, source) = b.accept_stream().await.unwrap();
    assert_eq!(source.addr.ip(), IpAddr::from([127, 0, 0, 1]));
    a.close().await;
    drop(b);
    near.write_u8(1).await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), 1);
}

#[tokio::test]
async fn buffers_are_reported() {
    let small = bind(|config| config.udp_recv_buffer_bytes = 8 << 10);
    let large = bind(|_| {});
    assert!(small.udp_recv_buffer_bytes() > 0);
    assert!(large.udp_recv_buffer_bytes() > small.udp_recv_buffer_bytes());
}
