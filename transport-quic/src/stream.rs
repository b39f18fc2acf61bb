//! A bidirectional QUIC stream as one byte pipe.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use memberlist_transport::TimedStream;
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::connection::StreamGuard;
use crate::error::in_words;

/// A stream of [`QuicTransport`](crate::QuicTransport): it waits no longer than set by
/// [`read_timeout`](crate::QuicConfig::read_timeout),
/// [`write_timeout`](crate::QuicConfig::write_timeout) and, if the peer opened it,
/// [`stream_timeout`](crate::QuicConfig::stream_timeout).
pub type QuicStream = TimedStream<BiStream>;

/// Both halves of a bidirectional QUIC stream. Dropping it ends what was written, and stops what is
/// not read.
pub struct BiStream {
    /// Taken when dropped.
    send: Option<SendStream>,
    recv: RecvStream,
    guard: Arc<StreamGuard>,
}

/// How long what was written may take to arrive after the stream was dropped, before a transport that
/// is being closed waits no longer.
const LINGER: Duration = Duration::from_secs(1);

impl BiStream {
    pub(crate) fn new(send: SendStream, recv: RecvStream, guard: StreamGuard) -> Self {
        Self { send: Some(send), recv, guard: Arc::new(guard) }
    }

    fn send(&mut self) -> io::Result<Pin<&mut SendStream>> {
        self.send.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// The error, or, if the connection has ended, why it did.
    fn explained<R>(&self, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        outcome.map_err(|error| match self.guard.end() {
            Some(reason) => io::Error::new(error.kind(), in_words(&reason)),
            None => error,
        })
    }
}

impl fmt::Debug for BiStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BiStream").field("id", &self.recv.id()).finish_non_exhaustive()
    }
}

/// TCP delivers what was written after the socket is closed; here the connection does: it gives way to
/// no other before that, and a transport that is being closed waits for it a little.
impl Drop for BiStream {
    fn drop(&mut self) {
        let Some(mut send) = self.send.take() else { return };
        // Fails if it was finished already, which is as well.
        let _ = send.finish();
        if let (Ok(runtime), Some(tracker)) =
            (tokio::runtime::Handle::try_current(), self.guard.lingering())
        {
            let guard = Arc::clone(&self.guard);
            runtime.spawn(async move {
                // Whether it arrived, or was refused, or takes too long: it is over.
                let mut over = pin!(timeout(guard.tail_timeout(), send.stopped()));
                if timeout(LINGER, &mut over).await.is_err() {
                    drop(tracker);
                    let _ = over.await;
                }
            });
        }
    }
}

impl AsyncRead for BiStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf);
        self.explained(outcome)
    }
}

impl AsyncWrite for BiStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = AsyncWrite::poll_write(self.send()?, cx, data);
        self.explained(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self.send()?, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self.send()?, cx)
    }
}
