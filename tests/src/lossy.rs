//! A network of relays on loopback that lose and delay.
//!
//! Every node has a relay of its own, which is the address that it advertises. A datagram to a relay
//! goes on to the relay's node, and leaves by the sender's relay: so to the receiver it comes from the
//! address that the sender advertises, and the answer takes the same way back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The relays of one network; they end when it is dropped.
pub struct LossyNetwork {
    loss_percent: u32,
    delay: Duration,
    nodes: Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>,
    relays: JoinSet<()>,
}

impl LossyNetwork {
    /// One that loses this share of all datagrams, and delays each.
    pub fn new(loss_percent: u32, delay: Duration) -> Self {
        Self { loss_percent, delay, nodes: Arc::default(), relays: JoinSet::new() }
    }

    /// A relay for a node that is still to be started: the address to advertise, and what to call
    /// with the address where the node listens.
    pub async fn relay(&mut self) -> Relay {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        Relay { addr: socket.local_addr().unwrap(), socket }
    }

    /// Connects a node that listens there with its relay.
    pub fn connect(&mut self, relay: Relay, node: SocketAddr) {
        lock(&self.nodes).insert(node, Arc::clone(&relay.socket));
        let (loss, delay) = (self.loss_percent, self.delay);
        let nodes = Arc::clone(&self.nodes);
        let mut rng = StdRng::seed_from_u64(relay.addr.port().into());
        self.relays.spawn(async move {
            let mut buf = vec![0; 65_536];
            loop {
                let Ok((len, from)) = relay.socket.recv_from(&mut buf).await else { continue };
                let Some(sender) = lock(&nodes).get(&from).cloned() else { continue };
                if rng.random_range(0..100) < loss {
                    continue;
                }
                let datagram = buf[..len].to_vec();
                tokio::spawn(async move {
                    sleep(delay).await;
                    // What cannot be sent is lost like the rest.
                    let _ = sender.send_to(&datagram, node).await;
                });
            }
        });
    }
}

/// A relay that is not connected yet.
pub struct Relay {
    /// What the node advertises.
    pub addr: SocketAddr,
    socket: Arc<UdpSocket>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
