//! Handshakes that peers begin, and the limits on them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use memberlist_transport::canonical_addr;
use quinn::Incoming;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::connection::Conn;
use crate::error::in_words;
use crate::pool::lock;
use crate::transport::Shared;

/// Handshakes in progress.
#[derive(Default)]
struct Handshakes {
    next: u64,
    /// The oldest first.
    all: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    of: HashMap<IpAddr, usize>,
}

impl Handshakes {
    fn remove(&mut self, id: u64) -> Option<Arc<Notify>> {
        let (source, dropped) = self.all.remove(&id)?;
        if let Some(count) = self.of.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&source);
            }
        }
        Some(dropped)
    }
}

/// One handshake's place.
struct Place {
    handshakes: Arc<Mutex<Handshakes>>,
    id: u64,
    /// Told when another takes the place.
    dropped: Arc<Notify>,
}

impl Place {
    /// Nothing if there are too many of this source. If there are too many in all, the oldest is
    /// dropped: honest ones take a few round trips, and who holds many has let them grow old.
    fn take(
        handshakes: &Arc<Mutex<Handshakes>>,
        ip: IpAddr,
        max: usize,
        max_of_one: usize,
    ) -> Option<Self> {
        let source = source_of(ip);
        let mut state = lock(handshakes);
        if state.of.get(&source).copied().unwrap_or(0) >= max_of_one {
            return None;
        }
        if state.all.len() >= max {
            let oldest = state.all.keys().next().copied();
            if let Some(dropped) = oldest.and_then(|oldest| state.remove(oldest)) {
                // It waits for this, or will.
                dropped.notify_one();
            }
        }
        let (id, dropped) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        state.all.insert(id, (source, Arc::clone(&dropped)));
        *state.of.entry(source).or_default() += 1;
        Some(Self { handshakes: Arc::clone(handshakes), id, dropped })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.handshakes).remove(self.id);
    }
}

/// What counts as one source: an IPv4 address, or the 64 bits of an IPv6 address that name a network,
/// as whoever has one address of it has them all.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Accepts connections until the transport is closed.
pub(crate) async fn accept_connections(shared: Arc<Shared>) {
    let handshakes = Arc::new(Mutex::new(Handshakes::default()));
    let config = &shared.config;
    while let Some(incoming) = shared.endpoint.accept().await {
        let ip = canonical_addr(incoming.remote_address()).ip();
        let in_progress = lock(&handshakes).all.len();
        if in_progress >= config.retry_above_handshakes && !incoming.remote_address_validated() {
            shared.counters.retries_sent.add_one();
            // It may be retried, as it is not validated.
            let _ = incoming.retry();
            continue;
        }
        let (max, max_of_one) = (config.max_handshakes, config.max_handshakes_per_source);
        match Place::take(&handshakes, ip, max, max_of_one) {
            Some(place) => {
                let handshake = handshake(Arc::clone(&shared), incoming);
                let shared = Arc::clone(&shared);
                let handshaking = Arc::clone(&shared.handshaking);
                tokio::spawn(async move {
                    let _handshaking = handshaking;
                    tokio::select! {
                        () = place.dropped.notified() => {
                            shared.counters.handshakes_dropped_over_limit.add_one();
                        }
                        () = handshake => {}
                    }
                });
            }
            None => {
                shared.counters.handshakes_dropped_over_limit.add_one();
                incoming.ignore();
            }
        }
    }
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming) {
    let from = canonical_addr(incoming.remote_address());
    let began = Instant::now();
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
    let conn = Conn::new(quinn.clone(), false, &certificates, began);
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
        // The oldest of all gives way.
        let fourth = take(b);
        assert!(fourth.is_some() && !lock(&handshakes).all.contains_key(&0));
        assert!(take(b).is_none());
        drop(second);
        assert!(take(a).is_some());
        drop((first, third, fourth));
        let state = lock(&handshakes);
        assert_eq!((state.all.len(), state.of.len()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
