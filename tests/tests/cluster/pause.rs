//! A process that stood still.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use memberlist::Memberlist;
use memberlist::net::NetTransport;
use memberlist_tests::{quick, within};

const PACKETS: usize = 2000;
/// What the system counts for a small packet that waits, and some.
const WAITING_PACKET_BYTES: usize = 1024;

/// Before the timers that became due meanwhile conclude anything, all that has arrived is heard, not
/// only what tokio lets a task take at a time.
#[tokio::test(flavor = "current_thread")]
async fn what_has_arrived_is_heard_before_timers() {
    let transport = NetTransport::bind_addr("127.0.0.1:0".parse().unwrap()).unwrap();
    let packets = PACKETS.min(transport.udp_recv_buffer_bytes() / WAITING_PACKET_BYTES);
    let mut config = quick("paused");
    config.protocol.probe_interval = Duration::from_millis(20);
    config.protocol.probe_timeout = Duration::from_millis(10);
    let pause = config.protocol.probe_interval * 3;
    let node = Memberlist::start(transport, config).await.unwrap();
    within("its first turn", node.stats()).await.unwrap();

    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..packets {
        sender.send_to(b"not even a packet", node.addr()).unwrap();
    }
    // The only thread: nothing is received, and the next probe becomes due.
    thread::sleep(pause);
    // The first answer may come before the packets have their turn, the second comes after it.
    within("a turn", node.stats()).await.unwrap();
    let stats = within("the next turn", node.stats()).await.unwrap();
    assert_eq!(stats.packets_received, packets as u64);
}
