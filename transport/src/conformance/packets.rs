//! Checks of what the contract says of packets and addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use super::pair;
use super::support::{
    connect, destination, exchange, pattern, poll_once, recv, recv_whole, send_until_arrived,
    shutdown, within, write_all,
};
use crate::{SendError, Transport, canonical_addr};

/// The advertised address is canonical, can be sent to, and is the transport's alone.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn addresses_are_usable<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    for addr in [a.advertise_addr(), b.advertise_addr()] {
        assert!(!addr.ip().is_unspecified(), "the advertised address {addr} names no single node");
        assert_ne!(addr.port(), 0, "the advertised address {addr} has no port");
        assert_eq!(canonical_addr(addr), addr, "the advertised address is not canonical");
    }
    assert_ne!(a.advertise_addr(), b.advertise_addr(), "two transports advertise one address");
    close_both(a, b).await;
}

/// Packets of every size from one byte to the limit arrive as they were sent.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn packets_arrive_whole<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    let limit = a.max_packet_bytes(&destination(&b));
    assert!(limit > 0, "a transport that can send no packet at all");
    let doubling = (0..).map(|shift| 1_usize << shift).take_while(|len| *len < limit);
    for len in doubling.chain([3, 100, 508, limit / 2 + 1, limit - 1, limit]) {
        if (1..=limit).contains(&len) {
            exchange(&a, &b, len).await;
        }
    }
    // And the other way, on the same pair.
    exchange(&b, &a, b.max_packet_bytes(&destination(&a))).await;
    close_both(a, b).await;
}

/// Packets that many tasks send at the same time are not mixed up.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn concurrent_packets_arrive_whole<T: Transport>(
    make: impl AsyncFn(Option<SocketAddr>) -> T,
) {
    const SENDERS: usize = 8;
    const PACKETS: usize = 40;
    let (a, b) = pair(&make).await;
    let a = Arc::new(a);
    let to = destination(&b);
    let limit = a.max_packet_bytes(&to);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (a, to) = (Arc::clone(&a), to.clone());
            tokio::spawn(async move {
                for i in 0..PACKETS {
                    let len = 1 + (sender * PACKETS + i) * 4 % limit;
                    // A burst may be refused for want of room; what arrives must still be whole.
                    let _ = a.send_packet(&to, &pattern(len)).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut some_arrived = false;
    let receiving = async {
        while some_of(&senders) {
            // The senders' end wakes nobody here, so look at them now and then.
            if timeout(Duration::from_millis(20), recv_whole(&b)).await.is_ok() {
                some_arrived = true;
            }
        }
    };
    within("sending packets from many tasks", receiving).await;
    while !some_arrived && timeout(Duration::from_millis(200), recv_whole(&b)).await.is_ok() {
        some_arrived = true;
    }
    assert!(some_arrived, "of {} packets sent not one arrived", SENDERS * PACKETS);
    for sender in senders {
        within("a sending task", sender).await.expect("a sending task panicked");
    }
    exchange(&*a, &b, limit).await;
    a.close().await;
    b.close().await;
}

fn some_of(tasks: &[tokio::task::JoinHandle<()>]) -> bool {
    tasks.iter().any(|task| !task.is_finished())
}

/// A packet over the limit is refused with the right text, and no part of it is sent.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn oversize_packets_are_refused<T: Transport>(
    make: impl AsyncFn(Option<SocketAddr>) -> T,
) {
    let (a, b) = pair(&make).await;
    let to = destination(&b);
    let over = a.max_packet_bytes(&to) + 1;
    for excess in [over, over * 2, 70_000.max(over)] {
        match within("refusing a packet", a.send_packet(&to, &pattern(excess))).await {
            Err(SendError::TooLarge { to: named, len, limit }) => {
                assert_eq!(named, to.addr, "TooLarge names the wrong peer");
                assert_eq!(len, excess, "TooLarge names the wrong length");
                assert!(limit < excess, "TooLarge names a limit of {limit} for {excess} bytes");
            }
            other => panic!("a packet of {excess} bytes is over the limit, yet gave {other:?}"),
        }
    }
    // Had a part been sent, it would come first and not be whole.
    exchange(&a, &b, over - 1).await;
    close_both(a, b).await;
}

/// A packet of zero bytes is not delivered and does no harm.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn empty_packets_are_not_delivered<T: Transport>(
    make: impl AsyncFn(Option<SocketAddr>) -> T,
) {
    let (a, b) = pair(&make).await;
    for _ in 0..3 {
        match a.send_packet(&destination(&b), &[]).await {
            Ok(()) | Err(SendError::Io { .. }) => {}
            Err(error) => panic!("sending an empty packet gave: {error}"),
        }
    }
    // `recv_whole` panics on an empty packet.
    exchange(&a, &b, 1).await;
    exchange(&a, &b, 2).await;
    close_both(a, b).await;
}

/// A packet that does not fit the caller's buffer is dropped, not cut, and the next one arrives.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn unfit_packets_are_dropped<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    let to = destination(&b);
    let large = a.max_packet_bytes(&to);
    let mut buf = vec![0; large / 2];
    let arrived = async {
        loop {
            let _ = a.send_packet(&to, &pattern(large)).await;
            let _ = a.send_packet(&to, &pattern(large / 4)).await;
            let soon = timeout(Duration::from_millis(200), recv(&b, &mut buf));
            if let Ok(Ok((len, _))) = soon.await {
                return len;
            }
        }
    };
    let len = within("a packet that fits, after one that does not", arrived).await;
    assert_eq!(len, large / 4, "a packet that did not fit the buffer was delivered in part");
    assert!(buf[..len] == pattern(len), "a packet that fits was changed");
    close_both(a, b).await;
}

/// An answer sent to a packet's source reaches the sender; the source is canonical.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn sources_can_be_answered<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    let source = exchange(&a, &b, 10).await;
    assert_eq!(canonical_addr(source.addr), source.addr, "a packet's source is not canonical");
    send_until_arrived(&b, &source.addr.into(), &a, 11).await;

    let (mut near, mut far) = connect(&a, &b).await;
    shutdown(&mut near).await;
    shutdown(&mut far).await;
    close_both(a, b).await;
}

/// Receives that are each given up after one poll get the packets nevertheless; a send that is
/// given up sent the packet whole or not at all.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn cancelled_receives_lose_nothing<T: Transport>(
    make: impl AsyncFn(Option<SocketAddr>) -> T,
) {
    let (a, b) = pair(&make).await;
    let to = destination(&b);
    for len in 1..30 {
        let packet = pattern(len);
        let arriving = async {
            for round in 0.. {
                if round % RESEND_EVERY == 0 {
                    let _ = poll_once(std::pin::pin!(a.send_packet(&to, &packet))).await;
                }
                match poll_once(std::pin::pin!(recv_whole(&b))).await {
                    Some((got, _)) if got == len => return,
                    // A late copy of an earlier packet.
                    Some(_) => {}
                    None => sleep(Duration::from_millis(1)).await,
                }
            }
        };
        within("a packet, by receives that are given up", arriving).await;
    }
    close_both(a, b).await;
}

/// Rounds of [`cancelled_receives_lose_nothing`] after which a packet is taken for lost.
const RESEND_EVERY: usize = 100;

/// Packets pass while a stream between the same two nodes is full and its reader does not read.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn packets_pass_a_busy_stream<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    const BULK_BYTES: usize = 8 << 20;
    let (a, b) = pair(&make).await;
    let (mut near, mut far) = connect(&a, &b).await;
    let bulk = pattern(BULK_BYTES);
    let writing = async {
        write_all(&mut near, &bulk).await;
        shutdown(&mut near).await;
    };
    let others = async {
        for len in 1..20 {
            exchange(&a, &b, len).await;
            exchange(&b, &a, len).await;
        }
        let mut got = Vec::new();
        within("reading the stream's bulk", far.read_to_end(&mut got))
            .await
            .expect("a stream broke while packets were sent");
        got
    };
    let ((), got) = tokio::join!(writing, others);
    assert!(got == bulk, "a stream's bytes were changed while packets were sent");
    close_both(a, b).await;
}

async fn close_both<T: Transport>(a: T, b: T) {
    a.close().await;
    b.close().await;
}
