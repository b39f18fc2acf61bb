//! Packets: sending by the right socket, receiving from all of them in turn.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use memberlist_transport::{RecvError, SendError, canonical_addr};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::transport::{Shared, keep_waker, lock, read};

/// How long a packet waits for room in the socket's buffer. A burst is gone by then unless the
/// machine is overloaded, and then the packet is better dropped: gossip repeats itself.
const ROOM_PATIENCE: Duration = Duration::from_millis(20);

/// No UDP payload is larger, so a buffer of this size cuts none.
const LARGEST_PAYLOAD_BYTES: usize = 65_535;

impl Shared {
    pub(crate) async fn send(&self, to: SocketAddr, packet: &[u8]) -> Result<(), SendError> {
        let limit = self.config.max_packet_bytes;
        if packet.len() > limit {
            self.counters.packets_dropped_too_large.add_one();
            return Err(SendError::TooLarge { to, len: packet.len(), limit });
        }
        if packet.is_empty() {
            self.with_socket(to, |_, _| ())?;
            self.counters.packets_dropped_empty.add_one();
            return Ok(());
        }
        match self.with_socket(to, |socket, to| socket.try_send_to(packet, to))? {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.send_when_room(to, packet).await
            }
            outcome => self.account(to, outcome),
        }
    }

    async fn send_when_room(&self, to: SocketAddr, packet: &[u8]) -> Result<(), SendError> {
        let sending = async {
            // One waits at the sockets at a time, since they remember one waker each. An error
            // would mean a closed semaphore, which this one never is.
            let _turn = self.send_turn.acquire().await;
            poll_fn(|cx| match self.with_socket(to, |s, to| s.poll_send_to(cx, packet, to)) {
                Ok(polled) => polled.map(|outcome| self.account(to, outcome)),
                Err(error) => Poll::Ready(Err(error)),
            })
            .await
        };
        tokio::select! {
            biased;
            () = self.closed() => Err(SendError::Closed),
            sent = timeout(ROOM_PATIENCE, sending) => sent.unwrap_or_else(|_| {
                self.counters.packets_dropped_busy.add_one();
                Ok(())
            }),
        }
    }

    fn with_socket<R>(
        &self,
        to: SocketAddr,
        using: impl FnOnce(&UdpSocket, SocketAddr) -> R,
    ) -> Result<R, SendError> {
        let sockets = read(&self.sockets);
        let Some(sockets) = &*sockets else {
            return Err(SendError::Closed);
        };
        let Some((socket, to)) = sockets.towards(to) else {
            self.counters.packets_send_errors.add_one();
            let version = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            let text = format!("no bind address of this node is {version}");
            let source = io::Error::new(io::ErrorKind::AddrNotAvailable, text);
            return Err(SendError::Io { to, source });
        };
        Ok(using(socket, to))
    }

    fn account(&self, to: SocketAddr, outcome: io::Result<usize>) -> Result<(), SendError> {
        match outcome {
            Ok(len) => {
                self.counters.packets_sent.add_one();
                self.counters.packet_bytes_sent.add(len);
                Ok(())
            }
            Err(source) => {
                self.counters.packets_send_errors.add_one();
                Err(SendError::Io { to, source })
            }
        }
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, SocketAddr), RecvError>> {
        let sockets = read(&self.sockets);
        let Some(sockets) = &*sockets else {
            return Poll::Ready(Err(RecvError::Closed));
        };
        let count = sockets.udp.len();
        let first = self.next_udp.load(Ordering::Relaxed);
        for at in (first..first + count).map(|at| at % count) {
            if let Poll::Ready(received) = self.poll_recv_from(&sockets.udp[at].socket, cx, buf) {
                // The others have their turn first, so that a busy socket starves none.
                self.next_udp.store(at + 1, Ordering::Relaxed);
                return Poll::Ready(received.map_err(RecvError::Io));
            }
        }
        keep_waker(&mut lock(&self.recv_waker), cx);
        Poll::Pending
    }

    /// The next packet of one socket that is wanted.
    fn poll_recv_from(
        &self,
        socket: &UdpSocket,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            let mut filled = ReadBuf::new(buf);
            let from = match std::task::ready!(socket.poll_recv_from(cx, &mut filled)) {
                Ok(from) => canonical_addr(from),
                Err(error) => {
                    self.counters.packet_receive_errors.add_one();
                    if concerns_one_packet(&error) {
                        continue;
                    }
                    return Poll::Ready(Err(error));
                }
            };
            let len = filled.filled().len();
            if !self.config.allows(from.ip()) {
                self.counters.packets_dropped_not_allowed.add_one();
            } else if len == 0 {
                self.counters.packets_dropped_empty.add_one();
            } else if len == buf.len() && len < LARGEST_PAYLOAD_BYTES {
                // The system cuts without a word, so a full buffer counts as cut.
                self.counters.packets_dropped_unfit.add_one();
            } else {
                self.counters.packets_received.add_one();
                self.counters.packet_bytes_received.add(len);
                return Poll::Ready(Ok((len, from)));
            }
        }
    }
}

/// Some systems report by a receive what became of a packet sent before, as when nobody listens
/// at its port. That says nothing of the socket.
fn concerns_one_packet(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::Interrupted
    )
}
