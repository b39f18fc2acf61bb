//! Peers that go away and come back at their address.

mod common;

use std::time::{Duration, Instant};

use memberlist_transport::{Destination, Transport};
use memberlist_transport_quic::{QuicTransport, TlsConfig};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::common::{bind, bind_with, ca, exchange, recv, to, until, within};

/// Two probe intervals of the LAN preset, and what a busy machine takes.
const SOON: Duration = Duration::from_secs(5);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

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

/// The first dials the second, and each has heard the other; whatever a node does goes on in its own
/// runtime.
fn met(runtime_a: &Runtime, a: &QuicTransport, runtime_b: &Runtime, b: &QuicTransport) {
    runtime_a.block_on(a.send_packet(&to(b), b"hello")).unwrap();
    runtime_b.block_on(within("the packet", recv(b))).unwrap();
    runtime_b.block_on(b.send_packet(&to(a), b"you too")).unwrap();
    runtime_a.block_on(within("the answer", recv(a))).unwrap();
}

/// A peer ends without a word, as a process that is killed, and comes back with other certificates:
/// packets and streams find it soon. Gives the one that stayed.
fn killed(before: TlsConfig, after: TlsConfig) -> (QuicTransport, Runtime) {
    let (living, dying) = (runtime(), runtime());
    let a = living.block_on(async { bind(before.clone()) });
    let b = dying.block_on(async { bind(before) });
    met(&living, &a, &dying, &b);
    let addr = b.advertise_addr();
    // Its tasks end where they are, and then its socket: nobody is left to say anything.
    dying.shutdown_timeout(Duration::from_secs(5));
    drop(b);
    living.block_on(async {
        // The peer has noticed nothing.
        assert_eq!(a.connections().len(), 1);
        let b = bind_with(after, |config| config.bind_addr = addr);
        let took = until_heard(&a, &b).await;
        assert!(took < SOON, "{took:?}");
        let mut stream = a.open_stream(&to(&b), SOON).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        within("the stream", b.accept_stream()).await.unwrap();
    });
    (a, living)
}

/// With the same private key, the new process tells that it does not know the connection.
#[test]
fn a_killed_peer_is_found_by_its_reset() {
    let tls = ca().tls("b").unwrap();
    let (a, living) = killed(tls.clone(), tls);
    living.block_on(until("the reset is counted", || a.stats().peers_restarted == 1));
    living.block_on(a.close());
}

/// With another one, its silence tells.
#[test]
fn a_killed_peer_is_found_by_its_silence() {
    let ca = ca();
    let (a, living) = killed(ca.tls("b").unwrap(), ca.tls("b").unwrap());
    assert_eq!(a.stats().peers_restarted, 0);
    assert_eq!(a.stats().connections_dialled, 2);
    living.block_on(a.close());
}

/// A dialler that was killed is heard at once when it dials again, and its old connection goes.
#[test]
fn a_killed_dialler_takes_over() {
    let (living, dying, tls) = (runtime(), runtime(), ca().tls("node").unwrap());
    let a = living.block_on(async { bind(tls.clone()) });
    let b = dying.block_on(async { bind(tls.clone()) });
    met(&dying, &b, &living, &a);
    let addr = b.advertise_addr();
    dying.shutdown_timeout(Duration::from_secs(5));
    drop(b);
    living.block_on(async {
        let b = bind_with(tls, |config| config.bind_addr = addr);
        exchange(&b, &a, b"after").await;
        exchange(&a, &b, b"and back").await;
        assert_eq!((a.stats().connections_accepted, a.stats().connections_dialled), (2, 0));
        until("the old one is gone", || a.connections().len() == 1).await;
        a.close().await;
        b.close().await;
    });
}

/// Who was dialled a moment ago, is killed and comes back with another key takes over by its dial, at
/// both ends: what each sends arrives at once, and nobody dials again.
#[test]
fn a_peer_that_was_just_dialled_takes_over_when_it_comes_back() {
    let ca = ca();
    // Each time the lot falls differently.
    for _ in 0..4 {
        let (living, dying) = (runtime(), runtime());
        let a = living.block_on(async { bind(ca.tls("a").unwrap()) });
        let b = dying.block_on(async { bind(ca.tls("b").unwrap()) });
        met(&living, &a, &dying, &b);
        let addr = b.advertise_addr();
        dying.shutdown_timeout(Duration::from_secs(5));
        drop(b);
        living.block_on(async {
            // Longer than the moment in which two dials count as one.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let b = bind_with(ca.tls("b").unwrap(), |config| config.bind_addr = addr);
            exchange(&b, &a, b"back").await;
            a.send_packet(&to(&b), b"welcome").await.unwrap();
            within("the answer", recv(&b)).await.unwrap();
            until("the old one is gone", || a.connections().len() == 1).await;
            let dialled = [&a, &b].map(|node| node.stats().connections_dialled);
            assert_eq!(dialled, [1, 1]);
            a.close().await;
            b.close().await;
        });
    }
}

/// Another member, whose name is bound, comes to the address of one that was killed, and is found by
/// who sends to it.
#[test]
fn a_new_member_at_the_address_of_a_killed_one_is_found() {
    let ca = ca();
    let bound = |name: &str| ca.tls(name).unwrap().bind_names(true).unwrap();
    let (living, dying) = (runtime(), runtime());
    let a = living.block_on(async { bind(bound("a")) });
    let b = dying.block_on(async { bind(bound("b")) });
    met(&living, &a, &dying, &b);
    let addr = b.advertise_addr();
    dying.shutdown_timeout(Duration::from_secs(5));
    drop(b);
    living.block_on(async {
        let c = bind_with(bound("c"), |config| config.bind_addr = addr);
        let to_c = Destination { name: Some("c".into()), ..to(&c) };
        let began = Instant::now();
        let sending = async {
            loop {
                let _ = a.send_packet(&to_c, b"are you c?").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            received = within("the packet", recv(&c)) => drop(received.unwrap()),
            () = sending => unreachable!(),
        }
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(a.stats().connections_dialled, 2);
        a.close().await;
    });
}
