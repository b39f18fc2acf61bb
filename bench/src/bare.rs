//! What nobody can do without: each node pings another once a second and is answered, over tokio's sockets,
//! and that is all. No membership is kept, no failure is noticed. Its figures are the floor that this
//! runtime and this kernel set for those of a library with the same settings.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use memberlist_bench_fleet::protocol::Hello;
use memberlist_bench_fleet::{Implementation, Node, Observer, Spec};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// As in the settings for a LAN.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// About as long as a ping is that carries no news.
const PING: [u8; 40] = [b'p'; 40];
const ACK: [u8; 20] = [b'a'; 20];

/// Nodes that ping each other.
#[derive(Clone, Debug, Default)]
pub struct Bare {
    addrs: Arc<Mutex<Vec<SocketAddr>>>,
}

/// One of them.
#[derive(Debug)]
pub struct BareNode {
    all: Bare,
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Bare {
    fn with_addrs<R>(&self, with: impl FnOnce(&mut Vec<SocketAddr>) -> R) -> R {
        with(&mut self.addrs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Implementation for Bare {
    type Node = BareNode;

    fn hello(&self) -> Hello {
        Hello { implementation: "bare".into(), version: env!("CARGO_PKG_VERSION").into() }
    }

    async fn start(&self, spec: Spec, _: Observer) -> Result<BareNode, String> {
        let socket = UdpSocket::bind(spec.bind).await.map_err(|error| error.to_string())?;
        let addr = socket.local_addr().map_err(|error| error.to_string())?;
        let number = self.with_addrs(|addrs| {
            addrs.push(addr);
            addrs.len()
        });
        let task = tokio::spawn(ping_and_answer(socket, self.clone(), number));
        Ok(BareNode { all: self.clone(), addr, task })
    }
}

async fn ping_and_answer(socket: UdpSocket, all: Bare, number: usize) {
    let mut buf = [0; 2048];
    // At different moments, as nodes are that were started one after the other.
    let mut next = Instant::now() + PROBE_INTERVAL * (number as u32 % 199) / 199;
    let mut target = number;
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buf) => {
                if let Ok((len, from)) = received {
                    if buf[..len].starts_with(b"p") {
                        // One that is lost is answered no worse than another.
                        let _ = socket.try_send_to(&ACK, from);
                    }
                }
            }
            () = sleep_until(next) => {
                next += PROBE_INTERVAL;
                target += 1;
                let to = all.with_addrs(|addrs| addrs[target % addrs.len()]);
                let _ = socket.try_send_to(&PING, to);
            }
        }
    }
}

impl Node for BareNode {
    fn addr(&self) -> SocketAddr {
        self.addr
    }

    async fn join(&self, _: SocketAddr) -> Result<(), String> {
        Ok(())
    }

    async fn live_count(&self) -> usize {
        self.all.with_addrs(|addrs| addrs.len())
    }

    async fn broadcast(&self, _: Vec<u8>) -> Result<(), String> {
        Err("it has none".into())
    }

    async fn leave(&self) -> Result<(), String> {
        Err("it has none".into())
    }

    async fn stop(&self) {
        self.task.abort();
    }
}
