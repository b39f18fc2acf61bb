//! A path between two nodes that loses, delays and cuts, and can change its own address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::sleep;

/// What the path does; it may change at any time.
#[derive(Default)]
pub struct Path {
    /// In percent.
    pub loss: AtomicU32,
    pub delay_ms: AtomicU32,
    /// Larger datagrams vanish; 0 lets all pass.
    pub max_bytes: AtomicUsize,
}

impl Path {
    fn loses(&self, rng: &mut StdRng, len: usize) -> bool {
        let most = self.max_bytes.load(Ordering::Relaxed);
        (most > 0 && len > most) || rng.random_range(0..100) < self.loss.load(Ordering::Relaxed)
    }
}

/// One client reaches one server by the relay's address; the server sees another address of the
/// relay, which [`move_on`](Relay::move_on) changes.
pub struct Relay {
    pub addr: SocketAddr,
    pub path: Arc<Path>,
    back: watch::Sender<Arc<UdpSocket>>,
}

async fn socket() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap())
}

fn pass(path: &Path, socket: &Arc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr) {
    let delay = Duration::from_millis(path.delay_ms.load(Ordering::Relaxed).into());
    let socket = Arc::clone(socket);
    tokio::spawn(async move {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        // Who does not listen any more loses it.
        let _ = socket.send_to(&datagram, to).await;
    });
}

impl Relay {
    pub async fn to(server: SocketAddr) -> Self {
        let (front, first) = (socket().await, socket().await);
        let addr = front.local_addr().unwrap();
        let path = Arc::new(Path::default());
        let (client, known) = watch::channel(None::<SocketAddr>);
        let (back, mut backs) = watch::channel(first);
        let (there, here) = (Arc::clone(&path), Arc::clone(&path));
        let listening = Arc::clone(&front);
        let sending = backs.clone();
        tokio::spawn(async move {
            let (mut buf, mut rng) = (vec![0; 65_536], StdRng::seed_from_u64(1));
            while let Ok((len, from)) = listening.recv_from(&mut buf).await {
                client.send_replace(Some(from));
                if !there.loses(&mut rng, len) {
                    let back = Arc::clone(&sending.borrow());
                    pass(&there, &back, buf[..len].to_vec(), server);
                }
            }
        });
        tokio::spawn(async move {
            let (mut buf, mut rng) = (vec![0; 65_536], StdRng::seed_from_u64(2));
            loop {
                let back = Arc::clone(&backs.borrow_and_update());
                tokio::select! {
                    received = back.recv_from(&mut buf) => {
                        let (Ok((len, _)), Some(to)) = (received, *known.borrow()) else { continue };
                        if !here.loses(&mut rng, len) {
                            pass(&here, &front, buf[..len].to_vec(), to);
                        }
                    }
                    changed = backs.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { addr, path, back }
    }

    /// From now on the server sees another address.
    pub async fn move_on(&self) -> SocketAddr {
        self.move_on_after(async |_| ()).await
    }

    /// As `move_on`, when something has been done with that address.
    pub async fn move_on_after(&self, act: impl AsyncFnOnce(SocketAddr)) -> SocketAddr {
        let next = socket().await;
        let addr = next.local_addr().unwrap();
        act(addr).await;
        self.back.send_replace(next);
        addr
    }
}
