//! Streams: accepting from all listeners in turn, and dialling.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use memberlist_transport::{OpenError, RecvError, StreamTimeouts, TimedStream, canonical_addr};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::NetStream;
use crate::transport::{Shared, keep_waker, lock, read};

/// The pause after an error that is not one connection's, such as too many open files; doubled for
/// each further one up to [`LONGEST_PAUSE`]. As in Go's `net/http`.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The log tells of such errors this often at most.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What accepting remembers between calls, so that a caller who gives up waiting changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    next_listener: usize,
    /// How long the last pause was; zero after a success.
    pause: Duration,
    pausing: Option<Pin<Box<Sleep>>>,
    warned: Option<Instant>,
    pub(crate) waker: Option<Waker>,
}

impl Acceptor {
    /// Ready when no pause is going on.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pausing) = &mut self.pausing {
            std::task::ready!(pausing.as_mut().poll(cx));
            self.pausing = None;
        }
        Poll::Ready(())
    }

    fn start_pause(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.pausing = Some(Box::pin(sleep(self.pause)));
    }

    fn warn(&mut self, error: &io::Error) {
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, "cannot accept streams for now");
        }
    }
}

impl Shared {
    pub(crate) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(NetStream, SocketAddr), RecvError>> {
        let sockets = read(&self.sockets);
        let Some(sockets) = &*sockets else {
            return Poll::Ready(Err(RecvError::Closed));
        };
        let mut acceptor = lock(&self.acceptor);
        keep_waker(&mut acceptor.waker, cx);
        loop {
            std::task::ready!(acceptor.poll_pause(cx));
            let count = sockets.tcp.len();
            let first = acceptor.next_listener;
            let accepted = (first..first + count).map(|at| at % count).find_map(|at| match sockets
                .tcp[at]
                .poll_accept(cx)
            {
                Poll::Ready(accepted) => Some((at, accepted)),
                Poll::Pending => None,
            });
            let Some((at, accepted)) = accepted else {
                return Poll::Pending;
            };
            acceptor.next_listener = at + 1;
            match accepted {
                Ok((tcp, from)) => {
                    acceptor.pause = Duration::ZERO;
                    if let Some(admitted) = self.admit(tcp, canonical_addr(from)) {
                        return Poll::Ready(Ok(admitted));
                    }
                }
                Err(error) => {
                    self.counters.streams_accept_errors.add_one();
                    if !concerns_one_connection(&error) {
                        acceptor.start_pause();
                        acceptor.warn(&error);
                    }
                }
            }
        }
    }

    /// The stream, unless it is not wanted; then it is closed.
    fn admit(&self, tcp: TcpStream, from: SocketAddr) -> Option<(NetStream, SocketAddr)> {
        if !self.config.allows(from.ip()) {
            self.counters.streams_dropped_not_allowed.add_one();
            return None;
        }
        let Ok(slot) = Arc::clone(&self.inbound_slots).try_acquire_owned() else {
            self.counters.streams_dropped_over_limit.add_one();
            return None;
        };
        // Fails only if the connection is broken already, which its reader will find out.
        let _ = tcp.set_nodelay(true);
        self.counters.streams_accepted.add_one();
        Some((self.stream(tcp, self.config.stream_timeout).holding(slot), from))
    }

    fn stream(&self, tcp: TcpStream, total: Option<Duration>) -> NetStream {
        let (read, write) = (self.config.read_timeout, self.config.write_timeout);
        let counters = Arc::clone(&self.counters);
        TimedStream::new(tcp, StreamTimeouts { read, write, total }, move || {
            counters.streams_timed_out.add_one();
        })
    }

    pub(crate) async fn dial(
        &self,
        to: SocketAddr,
        within: Duration,
    ) -> Result<NetStream, OpenError> {
        let dialled = tokio::select! {
            biased;
            () = self.closed() => return Err(OpenError::Closed),
            dialled = timeout(within, connect(to)) => dialled,
        };
        let failed = match dialled {
            Ok(Ok(tcp)) => {
                self.counters.streams_opened.add_one();
                return Ok(self.stream(tcp, None));
            }
            Ok(Err(source)) => OpenError::Io { to, source },
            Err(_) => OpenError::Timeout { to, timeout: within },
        };
        self.counters.streams_open_errors.add_one();
        Err(failed)
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(to).await?;
    // A dial to a port of this machine where nobody listens can be given that very port to dial
    // from, and TCP then connects the socket to itself.
    if tcp.local_addr()? == tcp.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Whether the error is that of a connection which ended before it was accepted. Linux passes on
/// several network errors that way.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_second() {
        let mut acceptor = Acceptor::default();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            acceptor.start_pause();
            pauses.push(acceptor.pause.as_millis());
            std::future::poll_fn(|cx| acceptor.poll_pause(cx)).await;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
