//! What the tests share.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use memberlist_transport::{RecvError, Source, Transport};
use memberlist_transport_net::{NetConfig, NetTransport};
use tokio::time::timeout;

/// Only ends what hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn v4(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(crate) fn v6(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}

#[allow(clippy::print_stderr, reason = "a skipped test must say so")]
pub(crate) fn has_ipv6() -> bool {
    let has = UdpSocket::bind(v6(0)).is_ok();
    if !has {
        eprintln!("skipped: this machine has no ::1");
    }
    has
}

pub(crate) fn bind(change: impl FnOnce(&mut NetConfig)) -> NetTransport {
    let mut config = NetConfig::new(v4(0));
    change(&mut config);
    NetTransport::bind(config).unwrap()
}

pub(crate) async fn recv(on: &NetTransport) -> Result<(Vec<u8>, Source), RecvError> {
    let mut buf = vec![0; 65_536];
    let receiving = poll_fn(|cx| on.poll_recv_packet(cx, &mut buf));
    let (len, source) = timeout(PATIENCE, receiving).await.expect("no packet came")?;
    Ok((buf[..len].to_vec(), source))
}

/// Sends `packet` until `to` has received it at that address, and gives its source.
pub(crate) async fn exchange(
    from: &NetTransport,
    addr: SocketAddr,
    to: &NetTransport,
    packet: &[u8],
) -> SocketAddr {
    let until_arrived = async {
        loop {
            from.send_packet(&addr.into(), packet).await.unwrap();
            if let Ok(received) = timeout(Duration::from_millis(200), recv(to)).await {
                let (got, source) = received.unwrap();
                if got == packet {
                    return source.addr;
                }
            }
        }
    };
    timeout(PATIENCE, until_arrived).await.expect("the packet never arrived")
}

/// Waits until the condition holds, looking again while `meanwhile` runs.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}
