//! Peers that go away and come back at their address.

mod common;

use std::time::{Duration, Instant};

use memberlist_transport::Transport;
use memberlist_transport_quic::QuicTransport;

use crate::common::{bind, bind_with, ca, exchange, recv, to, within};

/// Two probe intervals of the LAN preset, and what a busy machine takes.
const SOON: Duration = Duration::from_secs(5);

/// Sends every 100 ms until something arrives, and gives how long that took.
async fn until_heard(from: &QuicTransport, by: &QuicTransport) -> Duration {
    let began = Instant::now();
    let sending = async {
        loop {
            let _ = from.send_packet(&to(by), b"are you there?").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        received = within("the packet", recv(by)) => drop(received.unwrap()),
        () = sending => unreachable!(),
    }
    began.elapsed()
}

#[tokio::test]
async fn who_comes_back_after_a_while_is_found_soon() {
    let ca = ca();
    let (a, b) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    exchange(&a, &b, b"before").await;
    let addr = b.advertise_addr();
    b.close().await;
    drop(b);
    // It is missed for longer than a dial takes.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        let _ = a.send_packet(&addr.into(), b"are you there?").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let b = bind_with(ca.tls("b").unwrap(), |config| config.bind_addr = addr);
    let took = until_heard(&a, &b).await;
    assert!(took < SOON, "{took:?}");
}
