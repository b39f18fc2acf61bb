//! What is dropped, refused and given up, and that it is counted.

mod common;

use std::future::poll_fn;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use memberlist_transport::{OpenError, SendError, Transport};
use memberlist_transport_net::{NetConfig, NetTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::common::{PATIENCE, bind, exchange, recv, until, v4};

#[tokio::test]
async fn sources_that_are_not_allowed_are_dropped() {
    let closed = bind(|config| config.allowed = Some(vec!["127.0.0.2/32".parse().unwrap()]));
    let stranger = bind(|_| {});
    let friend = NetTransport::bind_addr("127.0.0.2:0".parse().unwrap()).unwrap();
    assert!(!closed.allows(stranger.advertise_addr().ip()));
    assert!(closed.allows(friend.advertise_addr().ip()));

    let to = closed.advertise_addr();
    stranger.send_packet(&to.into(), b"from a stranger").await.unwrap();
    // Packets over loopback keep their order, so the stranger's was seen before the friend's.
    assert_eq!(exchange(&friend, to, &closed, b"hello").await, friend.advertise_addr());
    assert_eq!(closed.stats().packets_dropped_not_allowed, 1);

    let mut refused = stranger.open_stream(&to.into(), PATIENCE).await.unwrap();
    let accepting = closed.accept_stream();
    tokio::select! {
        _ = accepting => panic!("a stranger's stream was accepted"),
        read = timeout(PATIENCE, refused.read_u8()) => {
            assert!(read.expect("the stranger's stream was not closed").is_err());
        }
    }
    assert_eq!(closed.stats().streams_dropped_not_allowed, 1);
    assert_eq!(closed.stats().streams_accepted, 0);
}

#[tokio::test]
async fn an_empty_allow_list_allows_nobody() {
    let closed = bind(|config| config.allowed = Some(vec![]));
    let peer = bind(|_| {});
    let receiving = recv(&closed);
    let sending = async {
        until("a packet dropped", || {
            let packet = UdpSocket::bind(v4(0)).unwrap();
            packet.send_to(b"x", closed.advertise_addr()).unwrap();
            closed.stats().packets_dropped_not_allowed > 0
        })
        .await;
    };
    tokio::select! {
        _ = receiving => panic!("a packet was received from nobody's friend"),
        () = sending => {}
    }
    // It can speak all the same.
    exchange(&closed, peer.advertise_addr(), &peer, b"x").await;
}

#[tokio::test]
async fn streams_over_the_limit_are_closed_until_one_ends() {
    let limited = bind(|config| config.max_inbound_streams = 2);
    let peer = bind(|_| {});
    let to = limited.advertise_addr().into();
    let dial = || async { peer.open_stream(&to, PATIENCE).await.unwrap() };

    let (_one, (_first, _)) = (dial().await, limited.accept_stream().await.unwrap());
    let (_two, (second, _)) = (dial().await, limited.accept_stream().await.unwrap());
    let mut three = dial().await;
    tokio::select! {
        _ = limited.accept_stream() => panic!("a stream over the limit was accepted"),
        read = timeout(PATIENCE, three.read_u8()) => {
            assert!(read.expect("the stream over the limit was not closed").is_err());
        }
    }
    assert_eq!(limited.stats().streams_dropped_over_limit, 1);

    drop(second);
    let _four = dial().await;
    timeout(PATIENCE, limited.accept_stream()).await.unwrap().unwrap();
    assert_eq!(limited.stats().streams_accepted, 3);
    assert_eq!(peer.stats().streams_opened, 4);
}

#[tokio::test]
async fn reading_from_a_silent_peer_ends() {
    let listening = bind(|config| config.read_timeout = Duration::from_millis(50));
    let peer = bind(|_| {});
    let mut near = peer.open_stream(&listening.advertise_addr().into(), PATIENCE).await.unwrap();
    near.write_u8(1).await.unwrap();
    let (mut far, _) = listening.accept_stream().await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), 1);
    let error = timeout(PATIENCE, far.read_u8()).await.expect("still waiting").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("read_timeout"), "{error}");
    // A byte that comes late is still a byte.
    near.write_u8(2).await.unwrap();
    until("the late byte", || listening.stats().streams_timed_out == 1).await;
    let late = async {
        loop {
            match far.read_u8().await {
                Ok(byte) => return byte,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(timeout(PATIENCE, late).await.unwrap(), 2);
}

#[tokio::test]
async fn writing_to_a_peer_that_does_not_read_ends() {
    let peer = bind(|_| {});
    let writing = bind(|config| config.write_timeout = Duration::from_millis(50));
    let mut near = writing.open_stream(&peer.advertise_addr().into(), PATIENCE).await.unwrap();
    let (_far, _) = peer.accept_stream().await.unwrap();
    let fill = async {
        loop {
            if let Err(error) = near.write_all(&[0; 64 << 10]).await {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, fill).await.expect("still writing");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("write_timeout"), "{error}");
    assert_eq!(writing.stats().streams_timed_out, 1);
}

#[tokio::test]
async fn a_stream_that_trickles_ends() {
    let listening = bind(|config| config.stream_timeout = Some(Duration::from_millis(200)));
    let peer = bind(|_| {});
    let mut near = peer.open_stream(&listening.advertise_addr().into(), PATIENCE).await.unwrap();
    let (mut far, _) = listening.accept_stream().await.unwrap();
    let trickle = async {
        while near.write_u8(1).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        loop {
            if let Err(error) = far.read_u8().await {
                return error;
            }
        }
    };
    let ended = async {
        tokio::select! {
            error = reading => error,
            () = trickle => panic!("the peer's writes ended first"),
        }
    };
    let error = timeout(PATIENCE, ended).await.expect("the stream did not end");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("stream_timeout"), "{error}");
}

#[tokio::test]
async fn an_idle_stream_ends_at_its_total_limit_too() {
    let listening = bind(|config| config.stream_timeout = Some(Duration::from_millis(50)));
    let peer = bind(|_| {});
    let _near = peer.open_stream(&listening.advertise_addr().into(), PATIENCE).await.unwrap();
    let (mut far, _) = listening.accept_stream().await.unwrap();
    for _ in 0..2 {
        let error = timeout(PATIENCE, far.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("stream_timeout"), "{error}");
    }
    assert_eq!(listening.stats().streams_timed_out, 1, "each stream counts once");
}

#[tokio::test]
async fn packets_are_counted() {
    let (a, b) = (bind(|config| config.max_packet_bytes = 600), bind(|_| {}));
    let to = b.advertise_addr();
    assert_eq!(a.max_packet_bytes(&to.into()), 600);
    let refused = a.send_packet(&to.into(), &[0; 601]).await;
    assert!(matches!(refused, Err(SendError::TooLarge { len: 601, limit: 600, .. })));
    a.send_packet(&to.into(), &[]).await.unwrap();
    let raw = UdpSocket::bind(v4(0)).unwrap();
    raw.send_to(&[], to).unwrap();
    // Larger than what this node sends is received all the same.
    raw.send_to(&[9; 5000], to).unwrap();
    assert_eq!(recv(&b).await.unwrap().0, [9; 5000]);
    exchange(&a, to, &b, &[1; 600]).await;

    let (sent, received) = (a.stats(), b.stats());
    assert_eq!(sent.packets_dropped_too_large, 1);
    assert_eq!(sent.packets_dropped_empty, 1);
    assert_eq!(sent.packet_bytes_sent, 600 * sent.packets_sent);
    assert_eq!(received.packets_dropped_empty, 1);
    assert!(received.packets_received >= 2 && received.packet_bytes_received >= 5600);
}

#[tokio::test]
async fn a_packet_that_does_not_fit_is_dropped_and_counted() {
    let (a, b) = (bind(|_| {}), bind(|_| {}));
    let to = b.advertise_addr().into();
    let mut buf = [0; 100];
    a.send_packet(&to, &[1; 101]).await.unwrap();
    a.send_packet(&to, &[2; 99]).await.unwrap();
    let receiving = poll_fn(|cx| b.poll_recv_packet(cx, &mut buf));
    let (len, _) = timeout(PATIENCE, receiving).await.unwrap().unwrap();
    assert_eq!(buf[..len], [2; 99]);
    assert_eq!(b.stats().packets_dropped_unfit, 1);
}

#[tokio::test]
async fn a_dial_that_fails_says_why() {
    let (a, b) = (bind(|_| {}), bind(|_| {}));
    let nobody = b.advertise_addr();
    b.close().await;
    match a.open_stream(&nobody.into(), PATIENCE).await {
        Err(OpenError::Io { to, source }) => {
            assert_eq!(to, nobody);
            assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
        }
        other => panic!("{other:?}"),
    }
    // The port that answered nothing does not disturb receiving either.
    a.send_packet(&nobody.into(), b"x").await.unwrap();
    exchange(&a, a.advertise_addr(), &a, b"to itself").await;
    assert_eq!(a.stats().streams_open_errors, 1);
}

/// Each number and time at its extremes works, or is an error of its own.
#[tokio::test]
async fn every_setting_at_its_extremes() {
    let sizes: [fn(&mut NetConfig, usize); 4] = [
        |config, n| config.udp_recv_buffer_bytes = n,
        |config, n| config.udp_send_buffer_bytes = n,
        |config, n| config.max_packet_bytes = n,
        |config, n| config.max_inbound_streams = n,
    ];
    let times: [fn(&mut NetConfig, Duration); 3] = [
        |config, time| config.read_timeout = time,
        |config, time| config.write_timeout = time,
        |config, time| config.stream_timeout = Some(time),
    ];
    let mut configs = Vec::new();
    let config = || NetConfig::new(v4(0));
    for (set, n) in sizes.iter().flat_map(|set| [0, usize::MAX].map(|n| (set, n))) {
        configs.push(config());
        set(configs.last_mut().unwrap(), n);
    }
    for (set, n) in times.iter().flat_map(|set| [Duration::ZERO, Duration::MAX].map(|n| (set, n))) {
        configs.push(config());
        set(configs.last_mut().unwrap(), n);
    }
    let (mut bound, peer) = (0, bind(|_| {}));
    for config in configs {
        let Ok(transport) = NetTransport::bind(config) else { continue };
        bound += 1;
        exchange(&peer, transport.advertise_addr(), &transport, b"hello").await;
        let mut stream =
            peer.open_stream(&transport.advertise_addr().into(), PATIENCE).await.unwrap();
        let (mut accepted, _) = transport.accept_stream().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        accepted.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
    }
    // Buffers of any size, unlimited streams, and endless times.
    assert_eq!(bound, 4 + 1 + 3);
}
