//! A listener with so many connections at a time and no more: those of the node itself come out of the
//! same supply of file descriptors.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

pub(crate) struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
    head_timeout: Duration,
}

/// A connection, and its place.
pub(crate) struct Placed {
    stream: TcpStream,
    /// Until the head of the first request is there.
    head: Option<Head>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Limited {
    pub(crate) fn new(listener: TcpListener, connections: usize, head_timeout: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(connections)), head_timeout }
    }
}

/// The head of a request that is waited for.
struct Head {
    until: Pin<Box<Sleep>>,
    /// How many line ends came in a row; carriage returns do not count.
    line_ends: usize,
}

impl Head {
    /// Whether it ends among these bytes, with an empty line.
    fn ends_in(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| {
            self.line_ends = match byte {
                b'\n' => self.line_ends + 1,
                b'\r' => self.line_ends,
                _ => 0,
            };
            self.line_ends == 2
        })
    }
}

impl Listener for Limited {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        // Never closed, so there is always one in the end. Who waits meanwhile, does in the backlog.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let head = Head { until: Box::pin(sleep(self.head_timeout)), line_ends: 0 };
        (Placed { stream, head: Some(head), _place: place }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(head) = &mut this.head else { return read };
        if buffer.filled().get(before..).is_some_and(|bytes| head.ends_in(bytes)) {
            this.head = None;
        } else if head.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn half_requests_do_not_keep_others_out() {
        const PLACES: usize = 4;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let limited = Limited::new(listener, PLACES, Duration::from_millis(200));
        let routes = Router::new().route("/metrics", get(async || "served"));
        let server = tokio::spawn(async move { axum::serve(limited, routes).await });
        let mut idle = Vec::new();
        for _ in 0..PLACES {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n").await.unwrap();
            idle.push(stream);
        }
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        assert!(answer.ends_with("served"), "{answer}");
        server.abort();
    }
}
