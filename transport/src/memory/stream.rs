//! Streams of the in-memory network: two pipes, one each way.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::link::{Dice, LinkConfig};
use super::lock;

/// The bytes that one direction of a stream holds, under way and unread together. A writer that is
/// this far ahead of its reader waits.
pub const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// One end of a stream between two [`MemoryTransport`](super::MemoryTransport)s.
///
/// Dropping it is a `shutdown` of what it writes, after the bytes already written; the other end's
/// writes fail with [`io::ErrorKind::BrokenPipe`] from then on.
pub struct MemoryStream {
    outgoing: Arc<Pipe>,
    incoming: Arc<Pipe>,
}

impl MemoryStream {
    /// The end that writes into `outgoing` and reads from `incoming`.
    pub(super) fn new(outgoing: Arc<Pipe>, incoming: Arc<Pipe>) -> Self {
        Self { outgoing, incoming }
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStream")
            .field("local", &self.outgoing.from)
            .field("peer", &self.outgoing.to)
            .finish()
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.incoming.poll_read(cx, buf).map(Ok)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.outgoing.finish();
        self.incoming.abandon();
    }
}

/// One direction of a stream.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    state: Mutex<PipeState>,
}

#[derive(Debug)]
struct PipeState {
    /// What is under way or unread, each with the time at which it can be read; times never go back.
    chunks: VecDeque<(Instant, Bytes)>,
    buffered_bytes: usize,
    last_due: Instant,
    /// When the end becomes visible to the reader, once the writer has finished.
    end_due: Option<Instant>,
    reader_gone: bool,
    link: LinkConfig,
    stalled: bool,
    dice: Dice,
    alarm: Alarm,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
}

impl Pipe {
    /// Over a perfect link, until [`set_link`](Self::set_link) says otherwise.
    pub(super) fn new(from: SocketAddr, to: SocketAddr, dice: Dice) -> Self {
        let state = PipeState {
            chunks: VecDeque::new(),
            buffered_bytes: 0,
            last_due: Instant::now(),
            end_due: None,
            reader_gone: false,
            link: LinkConfig::default(),
            stalled: false,
            dice,
            alarm: Alarm::default(),
            read_waker: None,
            write_waker: None,
        };
        Self { from, to, state: Mutex::new(state) }
    }

    /// Follows a change of the link. The wakers are for the caller to wake once it holds no lock.
    pub(super) fn set_link(&self, link: LinkConfig, stalled: bool) -> [Option<Waker>; 2] {
        let mut state = self.state();
        state.link = link;
        state.stalled = stalled;
        if stalled {
            return [None, None];
        }
        [state.read_waker.take(), state.write_waker.take()]
    }

    fn state(&self) -> MutexGuard<'_, PipeState> {
        lock(&self.state)
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        // Across a stalled link the writer cannot learn that its reader is gone.
        if state.end_due.is_some() || (state.reader_gone && !state.stalled) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let len = data.len().min(STREAM_BUFFER_BYTES - state.buffered_bytes);
        if len == 0 {
            state.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let due = state.next_due();
        state.chunks.push_back((due, Bytes::copy_from_slice(&data[..len])));
        state.buffered_bytes += len;
        let reader = state.read_waker.take();
        drop(state);
        wake(reader);
        Poll::Ready(Ok(len))
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<()> {
        let mut state = self.state();
        let before = buf.remaining();
        let outcome = state.poll_fill(cx, buf);
        if buf.remaining() == before {
            if outcome.is_pending() {
                state.read_waker = Some(cx.waker().clone());
            }
            return outcome;
        }
        let writer = state.write_waker.take();
        drop(state);
        wake(writer);
        Poll::Ready(())
    }

    /// The writer has no more to say.
    fn finish(&self) {
        let mut state = self.state();
        if state.end_due.is_none() {
            state.end_due = Some(state.next_due());
        }
        let reader = state.read_waker.take();
        drop(state);
        wake(reader);
    }

    /// The reader will not read again.
    fn abandon(&self) {
        let mut state = self.state();
        state.reader_gone = true;
        state.chunks.clear();
        state.buffered_bytes = 0;
        let writer = state.write_waker.take();
        drop(state);
        wake(writer);
    }
}

impl PipeState {
    fn next_due(&mut self) -> Instant {
        let due = Instant::now() + self.link.draw_delay(&mut self.dice);
        self.last_due = self.last_due.max(due);
        self.last_due
    }

    /// Moves what has arrived into `buf`. Ready at the end of the stream or with `buf` full; pending
    /// otherwise, also if something was moved.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<()> {
        if self.stalled {
            return Poll::Pending;
        }
        while buf.remaining() > 0 {
            let Some((due, chunk)) = self.chunks.front_mut() else {
                return match self.end_due {
                    Some(due) => self.alarm.poll_until(due, cx),
                    None => Poll::Pending,
                };
            };
            if self.alarm.poll_until(*due, cx).is_pending() {
                return Poll::Pending;
            }
            let len = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..len]);
            chunk.advance(len);
            self.buffered_bytes -= len;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        Poll::Ready(())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
