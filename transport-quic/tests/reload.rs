//! Certificates that change under traffic.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memberlist_transport::{Destination, Transport};
use memberlist_transport_quic::{ClusterCa, QuicTransport, TlsConfig, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::relay::Relay;
use crate::common::{
    PATIENCE, bind, bind_with, ca, exchange, exchange_at, recv, to, until, within,
};

/// A certificate of one CA, where these are trusted.
fn tls(issuer: &ClusterCa, trusted: &[&ClusterCa]) -> TlsConfig {
    let node = issuer.issue("node").unwrap();
    let trusted: String = trusted.iter().map(|ca| ca.cert_pem()).collect();
    TlsConfig::from_pem(node.cert_pem.as_bytes(), node.key_pem.as_bytes(), trusted.as_bytes())
        .unwrap()
}

/// Two nodes are brought from one CA to another, step by step, while packets and a stream go between
/// them; what is sent one by one arrives, and the stream is not cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_brought_to_another_ca() {
    let (old, new) = (ca(), ca());
    let nodes = [(); 2].map(|()| Arc::new(bind(tls(&old, &[&old]))));
    let [a, b] = &nodes;
    let mut near = a.open_stream(&to(b), PATIENCE).await.unwrap();
    near.write_all(b"begun").await.unwrap();
    let (mut far, _) = within("the stream", b.accept_stream()).await.unwrap();

    let (over, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let traffic = {
        let (a, b, over) = (Arc::clone(a), Arc::clone(b), Arc::clone(&over));
        let lost = Arc::clone(&lost);
        tokio::spawn(async move {
            let mut sent = 0_u32;
            while !over.load(Ordering::Relaxed) {
                sent += 1;
                a.send_packet(&to(&b), &sent.to_be_bytes()).await.unwrap();
                let arrived = async { while recv(&b).await.unwrap().0 != sent.to_be_bytes() {} };
                if tokio::time::timeout(PATIENCE, arrived).await.is_err() {
                    lost.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sent
        })
    };
    let steps: [&dyn Fn() -> TlsConfig; 3] =
        [&|| tls(&old, &[&old, &new]), &|| tls(&new, &[&old, &new]), &|| tls(&new, &[&new])];
    for step in steps {
        for node in &nodes {
            node.reload(step()).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // Whatever was made with the old certificates goes, except for what carries the stream.
    near.write_all(b", and ended").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = Vec::new();
    within("the rest", far.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"begun, and ended");
    drop((near, far));
    until("one connection is left", || nodes.iter().all(|node| node.connections().len() == 1))
        .await;
    over.store(true, Ordering::Relaxed);
    assert!(traffic.await.unwrap() > 10);
    assert!(!lost.load(Ordering::Relaxed), "packets were lost");
    // Nobody speaks by the old CA any more.
    let late = bind(tls(&old, &[&old, &new]));
    late.send_packet(&to(a), b"late").await.unwrap();
    until("it is refused", || a.stats().handshakes_failed == 1).await;
}

/// Ten seconds after a CA was taken away nobody is connected by it, be there traffic or not.
#[tokio::test]
async fn a_ca_that_is_taken_away_takes_its_connections_along() {
    let (old, new) = (ca(), ca());
    let a = bind(tls(&new, &[&old, &new]));
    let b = bind(tls(&old, &[&old, &new]));
    exchange(&b, &a, b"before").await;
    a.reload(tls(&new, &[&new])).unwrap();
    until("the connection is gone", || a.connections().is_empty()).await;
    let refused = async {
        while a.stats().handshakes_failed == 0 {
            // Whether it waits or fails, it does not arrive.
            let _ = b.send_packet(&to(&a), b"after").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("it is refused", refused).await;
    assert_eq!(a.stats().packets_received, 1);
}

/// A peer of a CA that was taken away opens one stream before it ends the other: it is not heard any
/// more all the same.
#[tokio::test]
async fn a_ca_that_is_taken_away_does_not_live_on_by_streams() {
    let (old, new) = (ca(), ca());
    let a = Arc::new(bind(tls(&new, &[&old, &new])));
    let b = bind(tls(&old, &[&old, &new]));
    tokio::spawn(answer(Arc::clone(&a)));
    let mut held = b.open_stream(&to(&a), PATIENCE).await.unwrap();
    held.write_all(b"x").await.unwrap();
    until("the first stream", || a.stats().streams_accepted == 1).await;
    a.reload(tls(&new, &[&new])).unwrap();
    let overlapping = async {
        while a.stats().streams_dropped_revoked == 0 {
            let mut next = b.open_stream(&to(&a), PATIENCE).await.unwrap();
            // It may be refused.
            let _ = next.write_all(b"x").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if a.stats().streams_dropped_revoked == 0 {
                held = next;
            }
        }
    };
    within("streams are refused", overlapping).await;
    let heard = a.stats().packets_received;
    b.send_packet(&to(&a), b"still here").await.unwrap();
    until("packets are dropped", || a.stats().packets_dropped_revoked == 1).await;
    assert_eq!(a.stats().packets_received, heard);
    held.shutdown().await.unwrap();
    drop(held);
    until("the connection is gone", || a.connections().is_empty()).await;
}

/// Peers that do not accept the new certificate are dialled now and then, not at every packet, and hear
/// this node by the old connection meanwhile.
#[tokio::test]
async fn a_certificate_that_peers_refuse_does_no_harm_at_first() {
    let (ours, foreign) = (ca(), ca());
    let (a, b) = (bind(tls(&ours, &[&ours])), bind(tls(&ours, &[&ours])));
    exchange(&a, &b, b"before").await;
    a.reload(tls(&foreign, &[&ours, &foreign])).unwrap();
    for i in 0..50_u8 {
        a.send_packet(&to(&b), &[i]).await.unwrap();
        while within("the packet", recv(&b)).await.unwrap().0 != [i] {}
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut stream = a.open_stream(&to(&b), PATIENCE).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    within("the stream", b.accept_stream()).await.unwrap();
    let dials = a.stats().connections_dialled + a.stats().dials_failed;
    assert!((2..15).contains(&dials), "{dials} dials");
    assert_eq!(b.stats().connections_accepted, 1);
}

/// A node keeps its name while it runs, and so must its certificate.
#[tokio::test]
async fn a_certificate_of_another_name_is_not_taken() {
    let ca = ca();
    let bound = |name: &str| ca.tls(name).unwrap().bind_names(true).unwrap();
    let (a, b) = (bind(bound("a")), bind(bound("b")));
    let error = a.reload(bound("b")).unwrap_err();
    assert!(matches!(error, TlsError::OtherName { .. }), "{error}");
    assert_eq!(error.to_string(), "the certificate is b's, and the one in use is a's");
    assert_eq!(exchange(&a, &b, b"x").await.authenticated_name.as_deref(), Some("a"));
    a.reload(bound("a")).unwrap();
    // Without names bound, any will do.
    a.reload(ca.tls("b").unwrap()).unwrap();
}

/// Answers every stream.
async fn answer(node: Arc<QuicTransport>) {
    while let Ok((mut stream, _)) = node.accept_stream().await {
        tokio::spawn(async move {
            let mut heard = Vec::new();
            if stream.read_to_end(&mut heard).await.is_ok() {
                // Who asked tells of a failure.
                let _ = stream.write_all(&heard).await;
                let _ = stream.shutdown().await;
            }
        });
    }
}

/// Opens one stream after another, and gives the first that was cut.
async fn ask(
    from: Arc<QuicTransport>,
    to: Destination,
    over: Arc<AtomicBool>,
) -> std::io::Result<()> {
    while !over.load(Ordering::Relaxed) {
        let mut stream = from.open_stream(&to, PATIENCE).await.map_err(std::io::Error::other)?;
        stream.write_all(b"question").await?;
        stream.shutdown().await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        assert_eq!(heard, b"question");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The ends of a connection may disagree which of two gives way, when both dial while certificates
/// change: no stream may be cut by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_is_cut_by_a_reload_on_either_side() {
    let ca = ca();
    let nodes = [(); 6].map(|()| Arc::new(bind(tls(&ca, &[&ca]))));
    let over = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    for (i, from) in nodes.iter().enumerate() {
        tokio::spawn(answer(Arc::clone(from)));
        for (_, other) in nodes.iter().enumerate().filter(|(k, _)| *k != i) {
            asking.push(tokio::spawn(ask(Arc::clone(from), to(other), Arc::clone(&over))));
        }
    }
    for _ in 0..4 {
        for node in &nodes {
            node.reload(tls(&ca, &[&ca])).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let settled = |node: &Arc<QuicTransport>| {
        let connections = node.connections();
        connections.len() == nodes.len() - 1 && connections.iter().all(|of| of.in_use)
    };
    until("one connection for each peer", || nodes.iter().all(settled)).await;
    over.store(true, Ordering::Relaxed);
    for asked in asking {
        within("the last answer", asked).await.unwrap().unwrap();
    }
}

/// A certificate changes right after a connection was made: both ends take the one that is dialled
/// then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_take_what_is_dialled_after_a_reload() {
    let ca = ca();
    for _ in 0..4 {
        let (a, b) = (bind(tls(&ca, &[&ca])), bind(tls(&ca, &[&ca])));
        exchange(&b, &a, b"before").await;
        // Longer than the moment in which two dials count as one.
        tokio::time::sleep(Duration::from_millis(200)).await;
        a.reload(tls(&ca, &[&ca])).unwrap();
        let agreed = |dialled: &[bool; 2]| {
            let used = |node: &QuicTransport| {
                node.connections().iter().filter(|of| of.in_use).map(|of| of.dialled).collect()
            };
            let used: [Vec<bool>; 2] = [used(&a), used(&b)];
            used == dialled.map(|dialled| vec![dialled])
        };
        a.send_packet(&to(&b), b"after").await.unwrap();
        until("a's dial is taken", || agreed(&[true, false])).await;
        until("the old one is gone", || [&a, &b].iter().all(|of| of.connections().len() == 1))
            .await;
        assert!(agreed(&[true, false]));
    }
}

/// A handshake that began with a CA that is taken away, and ends when the others are closed already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_of_before_the_reload_brings_no_lasting_connection() {
    let (old, new) = (ca(), ca());
    let slow = |tls| bind_with(tls, |config| config.handshake_timeout = PATIENCE * 2);
    let a = slow(tls(&new, &[&old, &new]));
    let b = slow(tls(&old, &[&old, &new]));
    let relay = Relay::to(a.advertise_addr()).await;
    relay.path.delay_ms.store(300, Ordering::Relaxed);
    b.send_packet(&relay.addr.into(), b"x").await.unwrap();
    until("the answer is on its way", || a.stats().udp_datagrams_sent > 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    relay.path.loss.store(100, Ordering::Relaxed);
    a.reload(tls(&new, &[&new])).unwrap();
    // All of before the reload is closed by then.
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    relay.path.loss.store(0, Ordering::Relaxed);
    until("the handshake ends", || a.stats().connections_accepted == 1).await;
    until("the connection is gone", || a.connections().is_empty()).await;
}

/// What was written to the end and let go arrives, on a path that takes long for it, though its
/// connection has given way.
#[tokio::test]
async fn the_end_of_a_stream_is_not_cut_by_a_reload() {
    const BYTES: usize = 1 << 19;
    let tls = ca().tls("node").unwrap();
    let (a, b) = (bind(tls.clone()), bind(tls.clone()));
    let relay = Relay::to(b.advertise_addr()).await;
    relay.path.delay_ms.store(200, Ordering::Relaxed);
    let mut near = a.open_stream(&relay.addr.into(), PATIENCE).await.unwrap();
    near.write_all(&[0]).await.unwrap();
    let (mut far, _) = within("the stream", b.accept_stream()).await.unwrap();
    a.reload(tls).unwrap();
    exchange_at(&a, &b, relay.addr, b"by the next connection").await;
    until("the first gives way", || a.stats().connections_replaced == 1).await;

    near.write_all(&[7; BYTES]).await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    let mut arrived = Vec::new();
    within("the end", far.read_to_end(&mut arrived)).await.unwrap();
    assert_eq!(arrived.len(), 1 + BYTES);
    drop(far);
    until("the first is closed", || a.connections().len() == 1).await;
}

/// Files are watched by a thread of their own, say.
#[tokio::test]
async fn a_thread_outside_the_runtime_may_reload() {
    let tls = ca().tls("node").unwrap();
    let (a, b) = (bind(tls.clone()), bind(tls.clone()));
    exchange(&a, &b, b"before").await;
    std::thread::scope(|scope| scope.spawn(|| a.reload(tls)).join()).unwrap().unwrap();
    // Nothing is sent by it.
    until("the connection of before is closed", || a.connections().is_empty()).await;
    exchange(&a, &b, b"after").await;
}

/// Files of long ago do not take the place of what works.
#[tokio::test]
async fn an_expired_certificate_is_not_taken() {
    let ca = ca();
    let (a, b) = (bind(ca.tls("a").unwrap()), bind(ca.tls("b").unwrap()));
    let old = ca.issue_for("a", Duration::ZERO).unwrap();
    let (cert, key) = (old.cert_pem.as_bytes(), old.key_pem.as_bytes());
    let old = TlsConfig::from_pem(cert, key, ca.cert_pem().as_bytes()).unwrap();
    // The clock of certificates counts in seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = a.reload(old).unwrap_err();
    assert!(matches!(error, TlsError::Expired { .. }), "{error}");
    assert_eq!(error.to_string(), "the certificate has expired");
    exchange(&a, &b, b"x").await;
    exchange(&b, &a, b"y").await;
}
