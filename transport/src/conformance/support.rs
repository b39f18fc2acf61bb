//! What the checks share: bounded waits, and packets that show whether they are whole.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::{Destination, RecvError, Source, Transport};

/// How long anything may take. Long enough for a loaded machine, since it only ends what hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait for a packet before it is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// A receive buffer as the contract asks for.
pub(super) const BUFFER_BYTES: usize = 65_536;

/// The outcome of `future`, or a panic that says what did not happen.
pub(super) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

pub(super) fn destination<T: Transport>(of: &T) -> Destination {
    of.advertise_addr().into()
}

/// The content of a packet or stream of `len` bytes. It depends on the length at every byte, so a
/// cut packet, or two in one, differ from every whole packet.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    let mut state = (len as u32).wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

pub(super) async fn recv<T: Transport>(
    on: &T,
    buf: &mut [u8],
) -> Result<(usize, Source), RecvError> {
    poll_fn(|cx| on.poll_recv_packet(cx, buf)).await
}

/// Receives a packet made by [`pattern`], and checks that it is whole.
pub(super) async fn recv_whole<T: Transport>(on: &T) -> (usize, Source) {
    let mut buf = vec![0; BUFFER_BYTES];
    loop {
        match recv(on, &mut buf).await {
            Ok((0, source)) => panic!("a packet of zero bytes was delivered from {}", source.addr),
            Ok((len, source)) => {
                assert!(
                    buf[..len] == pattern(len),
                    "a packet of {len} bytes arrived that was not sent as it is: packets must \
                     arrive whole, unjoined and unchanged"
                );
                return (len, source);
            }
            // "Something passing": calling again is what the contract asks for.
            Err(RecvError::Io(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("receiving on an open transport failed: {error}"),
        }
    }
}

/// Sends a packet of `len` bytes, again and again since packets may be lost, until it arrived.
pub(super) async fn exchange<T: Transport>(from: &T, to: &T, len: usize) -> Source {
    send_until_arrived(from, &destination(to), to, len).await
}

/// As [`exchange`], with the destination given.
pub(super) async fn send_until_arrived<T: Transport>(
    from: &T,
    destination: &Destination,
    to: &T,
    len: usize,
) -> Source {
    let packet = pattern(len);
    let arrived = async {
        loop {
            let (got, source) = recv_whole(to).await;
            if got == len {
                return source;
            }
        }
    };
    tokio::pin!(arrived);
    let sending = async {
        loop {
            if let Err(error) = from.send_packet(destination, &packet).await {
                panic!("sending {len} bytes to {destination} failed: {error}");
            }
            if let Ok(source) = timeout(RESEND_AFTER, &mut arrived).await {
                return source;
            }
        }
    };
    within(
        &format!("a packet of {len} bytes from {} to {destination}", from.advertise_addr()),
        sending,
    )
    .await
}

/// Opens a stream and writes a first byte, so that the acceptor sees it also with transports that
/// announce a stream by its first byte.
pub(super) async fn open<T: Transport>(from: &T, to: &T) -> T::Stream {
    let to = destination(to);
    let mut stream = match within("opening a stream", from.open_stream(&to, PATIENCE)).await {
        Ok(stream) => stream,
        Err(error) => panic!("opening a stream to {to} failed: {error}"),
    };
    write_all(&mut stream, &[HELLO]).await;
    stream
}

/// The first byte of every stream that [`open`] opens.
pub(super) const HELLO: u8 = 0x5a;

/// Accepts a stream that [`open`] opened, and reads its first byte.
pub(super) async fn accept<T: Transport>(on: &T) -> (T::Stream, Source) {
    let (mut stream, source) = accept_silent(on).await;
    let mut first = [0];
    match within("the first byte of a stream", stream.read_exact(&mut first)).await {
        Ok(_) => assert_eq!(first, [HELLO], "a stream began with a byte that was not sent"),
        Err(error) => panic!("reading the first byte of a stream failed: {error}"),
    }
    (stream, source)
}

/// Accepts a stream and reads nothing of it.
pub(super) async fn accept_silent<T: Transport>(on: &T) -> (T::Stream, Source) {
    loop {
        match within("accepting a stream", on.accept_stream()).await {
            Ok(accepted) => return accepted,
            Err(RecvError::Io(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("accepting on an open transport failed: {error}"),
        }
    }
}

/// A stream between the two: the dialler's end, then the acceptor's.
pub(super) async fn connect<T: Transport>(from: &T, to: &T) -> (T::Stream, T::Stream) {
    let (near, (far, _)) = tokio::join!(open(from, to), accept(to));
    (near, far)
}

pub(super) async fn write_all<S: AsyncWrite + Unpin>(stream: &mut S, data: &[u8]) {
    let written = async {
        stream.write_all(data).await?;
        stream.flush().await
    };
    if let Err(error) = within("writing to a stream", written).await {
        panic!("writing {} bytes to a stream failed: {error}", data.len());
    }
}

pub(super) async fn shutdown<S: AsyncWrite + Unpin>(stream: &mut S) {
    if let Err(error) = within("shutting down a stream", stream.shutdown()).await {
        panic!("shutting down a stream failed: {error}");
    }
}

pub(super) async fn read_to_end<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut data = Vec::new();
    match within("reading a stream to its end", stream.read_to_end(&mut data)).await {
        Ok(_) => data,
        Err(error) => panic!("reading a stream failed after {} bytes: {error}", data.len()),
    }
}

/// Polls once, with the task's own waker.
pub(super) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_show_cuts_and_joins() {
        let sizes = [1, 2, 3, 64, 256, 508, 1399, 1400];
        for a in sizes.into_iter().filter(|a| *a > 3) {
            for cut in 3..a {
                assert_ne!(pattern(a)[..cut], pattern(cut));
            }
            for b in sizes {
                assert_ne!([pattern(a), pattern(b)].concat(), pattern(a + b));
            }
        }
    }
}
