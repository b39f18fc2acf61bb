//! Checks of what the contract says of closing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::yield_now;

use super::pair;
use super::support::{
    BUFFER_BYTES, connect, destination, exchange, read_to_end, recv, shutdown, within, write_all,
};
use crate::{OpenError, RecvError, SendError, Transport};

/// `close` ends the calls that wait, every later call says `Closed`, and it can be called again.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn close_ends_all_calls<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    exchange(&a, &b, 9).await;
    // Packets sent more than once may still be under way, and end a receive before `close` does.
    let receiving = async {
        let mut buf = vec![0; BUFFER_BYTES];
        loop {
            match recv(&a, &mut buf).await {
                Ok(_) => {}
                other => return other.map(|_| ()),
            }
        }
    };
    let accepting = async { a.accept_stream().await.map(|_| ()) };
    let closing = async {
        // Gives the two others time to wait; they must end whether they came to it or not.
        for _ in 0..10 {
            yield_now().await;
        }
        a.close().await;
    };
    let all = async { tokio::join!(receiving, accepting, closing) };
    let (received, accepted, ()) = within("close, and the end of calls that waited", all).await;
    assert!(is_closed(&received), "a receive that waited for close gave {received:?}");
    assert!(is_closed(&accepted), "an accept that waited for close gave {accepted:?}");

    within("a second close", a.close()).await;
    for _ in 0..2 {
        all_calls_say_closed(&a, &b).await;
    }
    b.close().await;
}

async fn all_calls_say_closed<T: Transport>(closed: &T, peer: &T) {
    let received = within("a receive after close", recv(closed, &mut [0; 64])).await.map(|_| ());
    assert!(is_closed(&received), "a receive after close gave {received:?}");
    let accepted = within("an accept after close", closed.accept_stream()).await.map(|_| ());
    assert!(is_closed(&accepted), "an accept after close gave {accepted:?}");

    let to = destination(peer);
    let sent = within("a send after close", closed.send_packet(&to, b"x")).await;
    assert!(matches!(sent, Err(SendError::Closed)), "a send after close gave {sent:?}");
    let dial = closed.open_stream(&to, Duration::from_secs(5));
    let opened = within("a dial after close", dial).await.map(|_| ());
    assert!(matches!(opened, Err(OpenError::Closed)), "a dial after close gave {opened:?}");
}

fn is_closed(outcome: &Result<(), RecvError>) -> bool {
    matches!(outcome, Err(RecvError::Closed))
}

/// When `close` returns, the address can be taken over, though the closed transport still exists;
/// the new one is reached there by packets and streams.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn close_frees_the_address<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (peer, old) = pair(&make).await;
    let addr = old.advertise_addr();
    exchange(&peer, &old, 20).await;
    let (mut near, mut far) = connect(&peer, &old).await;
    shutdown(&mut near).await;
    shutdown(&mut far).await;
    assert_eq!(read_to_end(&mut near).await, b"");

    within("close", old.close()).await;
    let new = make(Some(addr)).await;
    assert_eq!(new.advertise_addr(), addr, "made for one address, advertises another");
    exchange(&peer, &new, 21).await;
    exchange(&new, &peer, 22).await;
    let (mut near, mut far) = connect(&peer, &new).await;
    write_all(&mut near, b"to the new one").await;
    shutdown(&mut near).await;
    assert_eq!(read_to_end(&mut far).await, b"to the new one");

    new.close().await;
    peer.close().await;
}
