//! Peers that are no nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memberlist::Transport;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::wait::until;

/// Somebody who accepts streams and does nothing sensible with them. Dropping it closes them all.
pub struct Fake {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// Accepts, and never says a word.
    pub fn silent<T: Transport>(transport: T) -> Self {
        Self::answering(transport, b"")
    }

    /// Accepts, says this, and holds the stream.
    pub fn answering<T: Transport>(transport: T, answer: &'static [u8]) -> Self {
        let (addr, accepted) = (transport.advertise_addr(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = transport.accept_stream().await {
                // Whoever hangs up early is no concern of a fake's.
                let _ = stream.write_all(answer).await;
                held.push(stream);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { addr, accepted, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it holds that many streams.
    pub async fn until_accepted(&self, count: usize) {
        until("the fake peer was dialled", || self.accepted.load(Ordering::Relaxed) >= count).await;
    }
}
