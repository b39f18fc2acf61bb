//! Waiting on conditions, with one generous bound for all.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use memberlist::{Memberlist, Transport};
use tokio::time::{Instant, sleep, timeout};

/// After this long a test gives up. Nothing that works takes a tenth of it, even on a machine that
/// is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL_EVERY: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "gave up waiting for this: {what}");
        sleep(POLL_EVERY).await;
    }
}

/// Waits until the condition, which has to be awaited itself, holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub async fn until_async<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "gave up waiting for this: {what}");
        sleep(POLL_EVERY).await;
    }
}

/// Waits for a future.
///
/// # Panics
/// If it is not ready within [`PATIENCE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("gave up waiting for this: {what}"),
    }
}

/// What one node believes, or what is true.
type View = BTreeSet<(String, SocketAddr, u32, Vec<u8>)>;

/// Waits until these nodes know each other as they are (address, incarnation and meta), all alive,
/// and know of no other live node.
///
/// # Panics
/// If they do not within [`PATIENCE`]; the text shows what each of them believes.
pub async fn agree<T: Transport>(nodes: &[&Memberlist<T>]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let truth: View = nodes.iter().filter_map(|node| node.own()).map(entry).collect();
        let agrees = |node: &&Memberlist<T>| {
            let suspected = node.member_count() != node.alive_members().len();
            !suspected && node.alive_members().into_iter().map(entry).collect::<View>() == truth
        };
        if truth.len() == nodes.len() && nodes.iter().all(agrees) {
            return;
        }
        assert!(Instant::now() < deadline, "no agreement on {truth:?}:{}", describe(nodes));
        sleep(POLL_EVERY).await;
    }
}

fn entry(member: memberlist::Member) -> (String, SocketAddr, u32, Vec<u8>) {
    let meta = member.node.meta.to_vec();
    (member.id().to_string(), member.addr(), member.incarnation, meta)
}

/// What these nodes believe, a line for each member of each.
pub fn describe<T: Transport>(nodes: &[&Memberlist<T>]) -> String {
    let mut text = String::new();
    for node in nodes {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n{} ({}) knows:", node.name(), node.addr());
        for member in node.known_members().iter() {
            let _ = write!(
                text,
                "\n  {} {} {} {} {}",
                member.id(),
                member.addr(),
                member.state,
                member.incarnation,
                member.death.as_deref().map(ToString::to_string).unwrap_or_default()
            );
        }
    }
    text
}
