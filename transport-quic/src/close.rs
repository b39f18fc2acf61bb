//! The end of a transport: what was handed over leaves, the peers are told, the port is free.

use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionError;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::connection::Conn;
use crate::error::CloseCode;
use crate::pool::lock;
use crate::socket::Socket;
use crate::stats::Counters;
use crate::transport::Shared;

/// How long `close` waits for packets and streams to leave, and then for the peers to be told.
const FLUSH: Duration = Duration::from_millis(500);
const FAREWELL: Duration = Duration::from_millis(300);
const FLUSH_PAUSE: Duration = Duration::from_millis(2);
/// How many of these pauses what has come may take to be read.
const READING_PAUSES: usize = 5;

impl Shared {
    pub(crate) async fn until_closed(&self) {
        // An error would mean that the sender is gone, and it lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Nothing more is taken from the caller or given to it.
    pub(crate) fn stop(&self) {
        self.closed.send_replace(true);
        self.packets.close();
    }

    /// Waits until what was handed over has left, within limits.
    pub(crate) async fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        loop {
            // In this order, as what waits is handed to a connection.
            let waiting = lock(&self.pool).has_waiting();
            let packets = waiting || self.conns().iter().any(|conn| conn.has_packets());
            if !packets && Arc::strong_count(&self.lingering) == 1 {
                break;
            }
            if timeout_at(deadline, sleep(FLUSH_PAUSE)).await.is_err() {
                break;
            }
        }
    }

    /// Ends all connections, tells the peers, and frees the port, even if the runtime ends meanwhile.
    pub(crate) fn farewell(&self) -> impl Future<Output = ()> + Send + use<> {
        let closes = ClosesSocket(Arc::clone(&self.socket));
        // Counted once it is closed: what was sent just before that is no farewell.
        let close = |conn: Arc<Conn>| {
            conn.quinn.close(CloseCode::Closed.code(), CloseCode::Closed.reason().as_bytes());
            (conn.quinn.stats().udp_tx.datagrams, conn)
        };
        let conns: Vec<_> = self.conns().into_iter().map(close).collect();
        self.end();
        let handshaking = Arc::downgrade(&self.handshaking);
        let counters = Arc::clone(&self.counters);
        // Without one, what has come and was not looked at has no answer.
        let endpoint = self.endpoint.clone();
        // Who has not been told by then finds out by the idle timeout.
        async move {
            let all_told = async {
                all_is_read(&counters).await;
                // Who is in the middle of a handshake is refused. One is the transport's.
                while handshaking.strong_count() > 1 {
                    sleep(FLUSH_PAUSE).await;
                }
                told(conns).await;
            };
            let _ = timeout(FAREWELL, all_told).await;
            drop((closes, endpoint));
        }
    }

    fn conns(&self) -> Vec<Arc<Conn>> {
        lock(&self.pool).all().map(|(conn, _)| Arc::clone(conn)).collect()
    }

    fn end(&self) {
        self.endpoint.close(CloseCode::Closed.code(), CloseCode::Closed.reason().as_bytes());
    }
}

struct ClosesSocket(Arc<Socket>);

impl Drop for ClosesSocket {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Waits until what had come has been read: who has just begun to dial is refused then. Others may go on
/// sending.
async fn all_is_read(counters: &Counters) {
    for _ in 0..READING_PAUSES {
        let received = counters.udp_datagrams_received.get();
        sleep(FLUSH_PAUSE).await;
        if counters.udp_datagrams_received.get() == received {
            break;
        }
    }
}

/// Waits until the peers of these connections, which are closed, have been told so.
async fn told(conns: Vec<(u64, Arc<Conn>)>) {
    let is_told = |counted: u64, conn: &Conn| {
        let by_peer =
            !matches!(conn.quinn.close_reason(), None | Some(ConnectionError::LocallyClosed));
        let stats = conn.quinn.stats();
        // One more datagram has been sent than when that was counted. Or it was sent before already, and
        // the peer has answered it with its own.
        by_peer || stats.udp_tx.datagrams > counted || stats.frame_rx.connection_close > 0
    };
    for (counted, conn) in conns {
        while !is_told(counted, &conn) {
            sleep(FLUSH_PAUSE).await;
        }
    }
}
