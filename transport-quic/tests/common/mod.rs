//! What the tests share.

#![allow(dead_code, unreachable_pub)] // each test file uses some of it

pub mod relay;

use std::net::SocketAddr;
use std::time::Duration;

use memberlist_transport::{Destination, RecvError, Source, Transport};
use memberlist_transport_quic::{ClusterCa, QuicConfig, QuicTransport, TlsConfig};

/// Longer than anything takes, even while other processes burn all cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn ca() -> ClusterCa {
    TlsConfig::cluster_ca().unwrap()
}

pub fn config(tls: TlsConfig) -> QuicConfig {
    QuicConfig::new("127.0.0.1:0".parse().unwrap(), tls)
}

pub fn bind(tls: TlsConfig) -> QuicTransport {
    QuicTransport::bind(config(tls)).unwrap()
}

pub fn bind_with(tls: TlsConfig, change: impl FnOnce(&mut QuicConfig)) -> QuicTransport {
    let mut config = config(tls);
    change(&mut config);
    QuicTransport::bind(config).unwrap()
}

pub fn to(transport: &QuicTransport) -> Destination {
    transport.advertise_addr().into()
}

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "still waiting: {what}");
}

pub async fn within<R>(what: &str, future: impl Future<Output = R>) -> R {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("still waiting: {what}"),
    }
}

pub async fn recv(transport: &QuicTransport) -> Result<(Vec<u8>, Source), RecvError> {
    let mut buf = vec![0; 65_536];
    let (len, source) = std::future::poll_fn(|cx| transport.poll_recv_packet(cx, &mut buf)).await?;
    buf.truncate(len);
    Ok((buf, source))
}

/// Sends a packet again and again until it has arrived.
pub async fn exchange(from: &QuicTransport, to: &QuicTransport, packet: &[u8]) -> Source {
    exchange_at(from, to, to.advertise_addr(), packet).await
}

/// As `exchange`, towards another address of the receiver.
pub async fn exchange_at(
    from: &QuicTransport,
    to: &QuicTransport,
    addr: SocketAddr,
    packet: &[u8],
) -> Source {
    let arrived = async {
        loop {
            let (got, source) = recv(to).await.unwrap();
            if got == packet {
                return source;
            }
        }
    };
    tokio::pin!(arrived);
    let sending = async {
        loop {
            // What is refused now may be taken later.
            let _ = from.send_packet(&addr.into(), packet).await;
            if let Ok(source) = tokio::time::timeout(Duration::from_millis(100), &mut arrived).await
            {
                return source;
            }
        }
    };
    within("the packet", sending).await
}
