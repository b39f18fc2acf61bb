//! Handshakes that peers begin, and the limits on them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use memberlist_transport::canonical_addr;
use quinn::Incoming;
use tokio::time::timeout;

use crate::connection::Conn;
use crate::error::in_words;
use crate::pool::lock;
use crate::transport::Shared;

/// Handshakes in progress.
#[derive(Default)]
struct Handshakes {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One handshake's place.
struct Place {
    handshakes: Arc<Mutex<Handshakes>>,
    ip: IpAddr,
}

impl Place {
    /// Nothing if there are too many.
    fn take(
        handshakes: &Arc<Mutex<Handshakes>>,
        ip: IpAddr,
        max: usize,
        max_of_one: usize,
    ) -> Option<Self> {
        let mut state = lock(handshakes);
        let of_one = state.of.get(&ip).copied().unwrap_or(0);
        if state.all >= max || of_one >= max_of_one {
            return None;
        }
        state.all += 1;
        state.of.insert(ip, of_one + 1);
        Some(Self { handshakes: Arc::clone(handshakes), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.handshakes);
        state.all -= 1;
        if let Some(count) = state.of.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                state.of.remove(&self.ip);
            }
        }
    }
}

/// Accepts connections until the transport is closed.
pub(crate) async fn accept_connections(shared: Arc<Shared>) {
    let handshakes = Arc::new(Mutex::new(Handshakes::default()));
    let config = &shared.config;
    while let Some(incoming) = shared.endpoint.accept().await {
        let ip = canonical_addr(incoming.remote_address()).ip();
        let in_progress = lock(&handshakes).all;
        if in_progress >= config.retry_above_handshakes && !incoming.remote_address_validated() {
            shared.counters.retries_sent.add_one();
            // It may be retried, as it is not validated.
            let _ = incoming.retry();
            continue;
        }
        let (max, max_of_one) = (config.max_handshakes, config.max_handshakes_per_source);
        match Place::take(&handshakes, ip, max, max_of_one) {
            Some(place) => {
                tokio::spawn(handshake(Arc::clone(&shared), incoming, place));
            }
            None => {
                shared.counters.handshakes_dropped_over_limit.add_one();
                incoming.ignore();
            }
        }
    }
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming, _place: Place) {
    let from = canonical_addr(incoming.remote_address());
    let certificates = shared.certificates.load_full();
    let accepting = async { incoming.accept()?.await };
    let quinn = match timeout(shared.config.handshake_timeout, accepting).await {
        Ok(Ok(quinn)) => quinn,
        Ok(Err(error)) => {
            shared.counters.handshakes_failed.add_one();
            return shared.warn(from, &in_words(&error));
        }
        Err(_) => return shared.counters.handshakes_timed_out.add_one(),
    };
    let binds_names = certificates.tls.binds_names();
    let conn = Conn::new(quinn.clone(), false, certificates.generation, binds_names);
    match conn.and_then(|conn| shared.admit(&conn)) {
        Ok(()) => shared.counters.connections_accepted.add_one(),
        Err(code) => {
            shared.count_refused(code);
            quinn.close(code.code(), code.reason().as_bytes());
            shared.warn(from, code.reason());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_limited_in_all_and_of_one_source() {
        let handshakes = Arc::default();
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let take = |ip| Place::take(&handshakes, ip, 3, 2);
        let first = take(a);
        let second = take(a);
        assert!(first.is_some() && second.is_some() && take(a).is_none());
        let third = take(b);
        assert!(third.is_some() && take(b).is_none());
        drop(first);
        assert!(take(a).is_some());
        drop((second, third));
        let left = lock(&handshakes);
        assert_eq!((left.all, left.of.len()), (0, 0));
    }
}
