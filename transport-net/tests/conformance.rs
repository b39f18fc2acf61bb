//! The transport keeps the contract, over each IP version and with several addresses.

mod common;

use std::net::SocketAddr;

use memberlist_transport::conformance;
use memberlist_transport_net::{NetConfig, NetTransport};

use crate::common::{has_ipv6, v4, v6};

#[tokio::test]
async fn ipv4() {
    conformance::check(async |addr| NetTransport::bind_addr(addr.unwrap_or(v4(0))).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv4_with_threads() {
    conformance::check(async |addr| NetTransport::bind_addr(addr.unwrap_or(v4(0))).unwrap()).await;
}

#[tokio::test]
async fn ipv6() {
    if has_ipv6() {
        conformance::check(async |addr| NetTransport::bind_addr(addr.unwrap_or(v6(0))).unwrap())
            .await;
    }
}

#[tokio::test]
async fn dual_stack_reached_by_ipv4() {
    if has_ipv6() {
        conformance::check(async |addr: Option<SocketAddr>| {
            let port = addr.map_or(0, |addr| addr.port());
            let mut config = NetConfig::new(format!("[::]:{port}").parse().unwrap());
            config.advertise_addr = Some(v4(0));
            NetTransport::bind(config).unwrap()
        })
        .await;
    }
}

#[tokio::test]
async fn several_addresses_and_the_largest_packets() {
    conformance::check(async |addr: Option<SocketAddr>| {
        let first = addr.unwrap_or(v4(0));
        let mut config = NetConfig::new(first);
        config.bind_addrs.push(format!("127.0.0.2:{}", first.port()).parse().unwrap());
        config.max_packet_bytes = 65_507;
        NetTransport::bind(config).unwrap()
    })
    .await;
}
