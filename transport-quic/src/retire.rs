//! The end of connections that give way to others.
//!
//! The two ends of a connection do not always agree which one gives way: when both dial while
//! certificates change, one end may know a connection as made before the change and the other as made
//! after it. Each then goes on with its own, which works, as both receive on either. So what gave way
//! is not closed under a peer that still uses it. If the peer goes on doing so, one more dial settles
//! it: the new connection is younger than both by so much that either end takes it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::connection::Conn;
use crate::error::CloseCode;
use crate::pool::lock;
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
            // An earlier dial would be taken for one of the same moment.
            if dialled.elapsed() > shared.config.handshake_timeout + LOOK_PAUSE {
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
        tokio::spawn(async move {
            while conn.streams() > 0 && conn.quinn.close_reason().is_none() {
                sleep(LOOK_PAUSE).await;
            }
            close_replaced(&conn);
        });
    }
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
            self.dial(addr, conn.name.as_deref());
        }
    }
}
