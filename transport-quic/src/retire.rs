//! The end of connections that give way to others.
//!
//! The two ends of a connection do not always agree which one gives way: when packets are lost or late,
//! two dials look to one end as begun at the same moment and to the other not. Each then goes on with
//! its own, which works, as both receive on either. So what gave way is not closed under a peer that
//! still uses it. If the peer goes on doing so, one more dial settles it: the new connection is younger
//! than both by so much that either end takes it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::connection::Conn;
use crate::error::CloseCode;
use crate::pool::{lock, same_moment};
use crate::transport::Shared;

/// A connection that was replaced is closed after this time, so that what is on its way arrives.
const REPLACED_GRACE: Duration = Duration::from_secs(2);
/// A peer that was not heard on a connection for this long does not use it.
const QUIET: Duration = Duration::from_secs(1);
/// A connection that was replaced is closed after this time, be it used or not.
const REPLACED_LIMIT: Duration = Duration::from_secs(30);
/// Connections of before a reload that are still in use are dialled anew after this time, whoever
/// uses them,
const RELOAD_DIAL: Duration = Duration::from_secs(6);
/// and closed after this much more.
const RELOAD_GRACE: Duration = Duration::from_secs(4);
/// Streams keep a connection of before a reload for this long at most, if they have no limit.
const STREAMS_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How often a connection that shall be closed is looked at for what goes on.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Closes a connection that was replaced, when neither end needs it any more.
pub(crate) async fn retire(shared: Weak<Shared>, conn: Arc<Conn>) {
    let replaced = Instant::now();
    let mut dialled = replaced;
    sleep(REPLACED_GRACE).await;
    while conn.quinn.close_reason().is_none() {
        let in_use = conn.last_used().elapsed() < QUIET && replaced.elapsed() < REPLACED_LIMIT;
        if !in_use && conn.streams() == 0 {
            break;
        }
        if in_use {
            let Some(shared) = shared.upgrade() else { return };
            // An earlier dial might be taken for one of the same moment.
            if dialled.elapsed() > REPLACED_GRACE + same_moment(&[&conn]) {
                dialled = Instant::now();
                shared.dial_anew(&conn);
            }
        }
        sleep(LOOK_PAUSE).await;
    }
    close_replaced(&conn);
}

/// Ends the connections of before this generation of certificates.
pub(crate) async fn retire_before(weak: Weak<Shared>, generation: u64) {
    let reloaded = Instant::now();
    sleep(RELOAD_DIAL).await;
    let Some(shared) = weak.upgrade() else { return };
    for (conn, in_use) in outdated(&shared, generation) {
        // The peer alone may have used it, and knows of no reason for another.
        if in_use && conn.last_used() >= reloaded {
            shared.dial_anew(&conn);
        }
    }
    // Nothing that is closed by its user shall live on for this.
    drop(shared);
    sleep(RELOAD_GRACE).await;
    let Some(shared) = weak.upgrade() else { return };
    for (conn, _) in outdated(&shared, generation) {
        tokio::spawn(revoke(conn, shared.config.stream_timeout));
    }
}

/// Ends a connection whose handshake began before a reload and ended after it: perhaps too late for
/// [`retire_before`] to see it.
pub(crate) async fn retire_late(weak: Weak<Shared>, conn: Arc<Conn>) {
    sleep(QUIET).await;
    let Some(shared) = weak.upgrade() else { return };
    shared.dial_anew(&conn);
    let stream_timeout = shared.config.stream_timeout;
    drop(shared);
    sleep(RELOAD_GRACE).await;
    revoke(conn, stream_timeout).await;
}

/// Takes nothing more by a connection of certificates that are gone, and closes it when the streams
/// that are there have ended.
async fn revoke(conn: Arc<Conn>, stream_timeout: Option<Duration>) {
    conn.revoke();
    let (began, limit) = (Instant::now(), stream_timeout.unwrap_or(STREAMS_LIMIT));
    while conn.streams() > 0 && began.elapsed() < limit && conn.quinn.close_reason().is_none() {
        sleep(LOOK_PAUSE).await;
    }
    close_replaced(&conn);
}

/// The connections of before this generation, and whether each is in use.
fn outdated(shared: &Shared, generation: u64) -> Vec<(Arc<Conn>, bool)> {
    let pool = lock(&shared.pool);
    let old = pool.all().filter(|(conn, _)| conn.generation < generation);
    old.map(|(conn, in_use)| (Arc::clone(conn), in_use)).collect()
}

fn close_replaced(conn: &Conn) {
    conn.quinn.close(CloseCode::Replaced.code(), CloseCode::Replaced.reason().as_bytes());
}

impl Shared {
    /// Makes another connection to the peer of this one.
    fn dial_anew(self: &Arc<Self>, conn: &Conn) {
        let addr = *lock(&conn.key);
        if lock(&self.pool).failing(addr).is_none() {
            self.dial(addr, conn.name.as_deref(), true);
        }
    }
}
