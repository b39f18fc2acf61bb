//! Checks of what the contract says of streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::pair;
use super::support::{
    HELLO, accept, accept_silent, connect, destination, open, pattern, poll_once, read_to_end,
    shutdown, within, write_all,
};
use crate::{OpenError, Transport, canonical_addr};

/// Several megabytes go both ways at the same time, in order and without loss.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn streams_carry_bulk_both_ways<T: Transport>(
    make: impl AsyncFn(Option<SocketAddr>) -> T,
) {
    let (a, b) = pair(&make).await;
    let (near, far) = connect(&a, &b).await;
    let (there, back) = (pattern(4 << 20), pattern(3 << 20));
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let ((), (), at_far, at_near) = tokio::join!(
        async {
            write_all(&mut near_write, &there).await;
            shutdown(&mut near_write).await;
        },
        async {
            write_all(&mut far_write, &back).await;
            shutdown(&mut far_write).await;
        },
        read_to_end(&mut far_read),
        read_to_end(&mut near_read),
    );
    assert!(at_far == there, "{} bytes sent, {} others arrived", there.len(), at_far.len());
    assert!(at_near == back, "{} bytes sent, {} others arrived", back.len(), at_near.len());
    close_both(a, b).await;
}

/// After one side's `shutdown` its peer reads the end, and can still answer.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn streams_close_by_halves<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    let (mut near, mut far) = connect(&a, &b).await;

    write_all(&mut near, b"question").await;
    shutdown(&mut near).await;
    assert_eq!(read_to_end(&mut far).await, b"question");
    let again = within("a second read at the end", far.read(&mut [0; 8])).await;
    assert!(matches!(again, Ok(0)), "the end of a stream must stay: a later read gave {again:?}");

    write_all(&mut far, b"answer").await;
    shutdown(&mut far).await;
    assert_eq!(read_to_end(&mut near).await, b"answer");
    close_both(a, b).await;
}

/// Many streams run at the same time, in both directions, without mixing.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn streams_run_side_by_side<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    const STREAMS: usize = 48;
    let (a, b) = pair(&make).await;
    let (a, b) = (Arc::new(a), Arc::new(b));
    let echoing = [Arc::clone(&a), Arc::clone(&b)].map(|on| tokio::spawn(echo(on, STREAMS / 2)));
    let dialling: Vec<_> = (0..STREAMS)
        .map(|i| {
            let (from, to) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            tokio::spawn(async move {
                let mut stream = open(&*from, &*to).await;
                let data = pattern(10_000 + i);
                write_all(&mut stream, &data).await;
                shutdown(&mut stream).await;
                assert!(read_to_end(&mut stream).await == data, "an echo differs from its sound");
            })
        })
        .collect();
    for task in dialling.into_iter().chain(echoing) {
        if let Err(error) = within("one of many streams", task).await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    a.close().await;
    b.close().await;
}

/// Accepts `count` streams and sends back what each of them brings.
async fn echo<T: Transport>(on: Arc<T>, count: usize) {
    let mut echoes = Vec::new();
    for _ in 0..count {
        let (mut stream, source) = accept(&*on).await;
        assert_eq!(canonical_addr(source.addr), source.addr, "a stream's source is not canonical");
        echoes.push(tokio::spawn(async move {
            let data = read_to_end(&mut stream).await;
            write_all(&mut stream, &data).await;
            shutdown(&mut stream).await;
        }));
    }
    for echo in echoes {
        if let Err(error) = within("an echo", echo).await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// A stream that is dropped without `shutdown` ends for the peer, be it by an error.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn dropped_streams_end<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    let (near, mut far) = connect(&a, &b).await;
    drop(near);
    let mut rest = Vec::new();
    let _ =
        within("the end of a stream that the dialler dropped", far.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"", "bytes came from nowhere");

    let (mut near, far) = connect(&a, &b).await;
    drop(far);
    let _ =
        within("the end of a stream that the acceptor dropped", near.read_to_end(&mut rest)).await;
    let writing = async { while near.write_all(&[0; 4096]).await.is_ok() {} };
    within("an error when writing to a dropped stream", writing).await;
    close_both(a, b).await;
}

/// Dialling an address where nobody listens ends with an error, in time.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn dials_to_nobody_fail<T: Transport>(make: impl AsyncFn(Option<SocketAddr>) -> T) {
    let (a, b) = pair(&make).await;
    let nobody = destination(&b);
    b.close().await;
    drop(b);
    let limit = Duration::from_secs(1);
    match within("a dial to nobody", a.open_stream(&nobody, limit)).await {
        Err(OpenError::Io { to, .. }) => assert_eq!(to, nobody.addr, "the error names another"),
        Err(OpenError::Timeout { to, timeout }) => {
            assert_eq!(to, nobody.addr, "the error names another");
            assert_eq!(timeout, limit, "the error names another time than was given");
        }
        Err(error) => panic!("a dial to nobody ended with the wrong error: {error}"),
        Ok(_) => panic!("a dial to nobody gave a stream"),
    }
    // Sending to nobody may fail or not, but it must come back.
    let _ = within("sending to nobody", a.send_packet(&nobody, b"hello")).await;
    a.close().await;
}

/// A dial that is given up leaves no stream open at the peer, and does not disturb later ones.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn cancelled_dials_leave_nothing<T: Transport>(
    make: impl AsyncFn(Option<SocketAddr>) -> T,
) {
    let (a, b) = pair(&make).await;
    let to = destination(&b);
    for polls in 1..16 {
        let mut dial = Box::pin(a.open_stream(&to, Duration::from_secs(10)));
        for _ in 0..polls {
            if poll_once(dial.as_mut()).await.is_some() {
                break;
            }
            yield_now().await;
        }
    }
    let wanted = async {
        let mut stream = open(&a, &b).await;
        shutdown(&mut stream).await;
        stream
    };
    let (_stream, ()) = tokio::join!(wanted, until_hello(&b));
    close_both(a, b).await;
}

/// Accepts until the stream that says hello. All others must end without a word.
async fn until_hello<T: Transport>(on: &T) {
    loop {
        let (mut stream, _) = accept_silent(on).await;
        let mut said = Vec::new();
        let _ = within("the end of a dial that was given up", stream.read_to_end(&mut said)).await;
        if said == [HELLO] {
            return;
        }
        assert_eq!(said, b"", "a dial that was given up brought bytes");
    }
}

/// Waiting for a stream can be given up again and again without losing one.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn cancelled_accepts_lose_nothing<T: Transport>(
    make: impl AsyncFn(Option<SocketAddr>) -> T,
) {
    const STREAMS: usize = 20;
    let (a, b) = pair(&make).await;
    let dialling = async {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(open(&a, &b).await);
        }
        streams
    };
    let accepting = async {
        let mut streams = Vec::new();
        while streams.len() < STREAMS {
            match poll_once(std::pin::pin!(b.accept_stream())).await {
                Some(Ok((stream, _))) => streams.push(stream),
                Some(Err(error)) => panic!("accepting on an open transport failed: {error}"),
                // A clock that is paused moves on only when all tasks wait.
                None => sleep(Duration::from_millis(1)).await,
            }
        }
        streams
    };
    let both = async { tokio::join!(dialling, accepting) };
    let (near, far) = within("accepting all streams by waits that are given up", both).await;
    for mut stream in near {
        shutdown(&mut stream).await;
    }
    for mut stream in far {
        assert_eq!(read_to_end(&mut stream).await, [HELLO]);
    }
    close_both(a, b).await;
}

async fn close_both<T: Transport>(a: T, b: T) {
    a.close().await;
    b.close().await;
}
