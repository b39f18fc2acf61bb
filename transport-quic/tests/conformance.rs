//! The contract of `Transport`, over real sockets.

mod common;

use std::net::SocketAddr;

use memberlist_transport::conformance;
use memberlist_transport_quic::{QuicConfig, QuicTransport};

use crate::common::ca;

async fn check(fresh: &str) {
    let (ca, fresh): (_, SocketAddr) = (ca(), fresh.parse().unwrap());
    conformance::check(async |addr| {
        let tls = ca.tls("node").unwrap();
        QuicTransport::bind(QuicConfig::new(addr.unwrap_or(fresh), tls)).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv4_with_threads() {
    check("127.0.0.1:0").await;
}

#[tokio::test]
async fn ipv6() {
    check("[::1]:0").await;
}
