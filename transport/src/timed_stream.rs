//! A byte pipe that does not wait for ever.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a [`TimedStream`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTimeouts {
    /// How long a read may wait for a byte, from the first read that waits; `read_timeout` in errors.
    pub read: Duration,
    /// How long a write may wait for room, from the first write that waits; `write_timeout` in errors.
    pub write: Duration,
    /// How long the stream may last in all, if there is a limit; `stream_timeout` in errors.
    pub total: Option<Duration>,
}

/// A stream whose reads and writes fail with [`io::ErrorKind::TimedOut`] when they wait too long, or
/// when the whole has lasted too long: what a transport hands out, so that a peer which stalls holds
/// nothing for ever.
///
/// The time is looked at while the stream is read or written, not otherwise: one that is neither
/// used nor dropped stays.
pub struct TimedStream<S> {
    // Before `_slot`, so that the connection is closed when another may take its place.
    inner: S,
    reading: Patience,
    writing: Patience,
    /// When the stream must be over, if it has such a limit.
    ends: Option<Instant>,
    on_timeout: Option<Box<dyn FnOnce() + Send>>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl<S> TimedStream<S> {
    /// Calls `on_timeout` when it times out for the first time.
    pub fn new(
        inner: S,
        timeouts: StreamTimeouts,
        on_timeout: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self {
            inner,
            reading: Patience::new(timeouts.read),
            writing: Patience::new(timeouts.write),
            ends: timeouts.total.and_then(|limit| Instant::now().checked_add(limit)),
            on_timeout: Some(Box::new(on_timeout)),
            _slot: None,
        }
    }

    /// Holds this place among the streams until it is dropped.
    #[must_use]
    pub fn holding(self, slot: OwnedSemaphorePermit) -> Self {
        Self { _slot: Some(slot), ..self }
    }

    /// `Err` once the whole stream has lasted too long.
    fn check_end(&mut self) -> io::Result<()> {
        match self.ends {
            Some(ends) if Instant::now() >= ends => {
                Err(self.time_out("the stream lasted longer than stream_timeout"))
            }
            _ => Ok(()),
        }
    }

    fn time_out(&mut self, text: &'static str) -> io::Error {
        if let Some(told) = self.on_timeout.take() {
            told();
        }
        io::Error::new(io::ErrorKind::TimedOut, text)
    }

    /// What a write gave, or the error that it waited too long.
    fn watch_write<R>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.writing.satisfied();
            return outcome;
        }
        ready!(self.writing.poll_end(self.ends, cx));
        self.check_end()?;
        Poll::Ready(Err(self.time_out("no room to write within write_timeout")))
    }
}

impl<S: fmt::Debug> fmt::Debug for TimedStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedStream").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_end()?;
        let outcome = Pin::new(&mut this.inner).poll_read(cx, buf);
        if outcome.is_ready() {
            this.reading.satisfied();
            return outcome;
        }
        ready!(this.reading.poll_end(this.ends, cx));
        this.check_end()?;
        Poll::Ready(Err(this.time_out("no byte came within read_timeout")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_end()?;
        let outcome = Pin::new(&mut this.inner).poll_write(cx, data);
        this.watch_write(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_end()?;
        let outcome = Pin::new(&mut this.inner).poll_write_vectored(cx, parts);
        this.watch_write(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// How long one direction may wait. Each has its own alarm, as the two halves of a split stream are
/// polled by different tasks.
struct Patience {
    limit: Duration,
    /// When the wait that goes on has lasted too long.
    due: Option<Instant>,
    /// Made at the first wait, and moved only when it rings or must ring earlier: most reads end
    /// long before it, and moving it for each would cost more than the read.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, due: None, alarm: None }
    }

    fn satisfied(&mut self) {
        self.due = None;
    }

    /// Ready when the wait has lasted too long, or at `ends`.
    fn poll_end(&mut self, ends: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        if self.due.is_none() {
            // A limit that overflows the clock is none.
            self.due = Instant::now().checked_add(self.limit);
        }
        let Some(due) = self.due.into_iter().chain(ends).min() else {
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if alarm.deadline() > due {
            alarm.as_mut().reset(due);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if alarm.deadline() >= due {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn ended(patience: &mut Patience, ends: Option<Instant>) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| patience.poll_end(ends, cx)).await;
        start.elapsed()
    }

    async fn wait_a_little(patience: &mut Patience) {
        let some = tokio::time::timeout(Duration::from_secs(6), ended(patience, None)).await;
        assert!(some.is_err(), "patience ended too early");
        patience.satisfied();
    }

    const LIMIT: Duration = Duration::from_secs(10);

    /// Tokio's timers round up to a millisecond.
    fn about(got: Duration, wanted: Duration) -> bool {
        got >= wanted && got < wanted + Duration::from_millis(10)
    }

    #[tokio::test(start_paused = true)]
    async fn patience_lasts_its_limit_from_each_new_wait() {
        let mut patience = Patience::new(LIMIT);
        wait_a_little(&mut patience).await;
        wait_a_little(&mut patience).await;
        let took = ended(&mut patience, None).await;
        assert!(about(took, LIMIT), "{took:?}");
        // Without a byte since, it stays at its end.
        assert!(about(ended(&mut patience, None).await, Duration::ZERO));
        patience.satisfied();
        assert!(about(ended(&mut patience, None).await, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_stream_comes_first() {
        let mut patience = Patience::new(LIMIT);
        wait_a_little(&mut patience).await;
        let second = Duration::from_secs(1);
        let took = ended(&mut patience, Some(Instant::now() + second)).await;
        assert!(about(took, second), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_limit_is_none() {
        let mut patience = Patience::new(Duration::MAX);
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, ended(&mut patience, None)).await.is_err());
    }
}
