//! Churn: a minute of virtual time over several seeds, and a minute over real sockets when asked for
//! with `cargo test -p memberlist-tests --test stress -- --ignored`.

use std::time::Duration;

use memberlist::memory::MemoryTransport;
use memberlist::net::NetTransport;
use memberlist_tests::scenarios::churn::churn;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn churn_in_virtual_time() {
    for seed in 0..3 {
        churn::<MemoryTransport>(MINUTE, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes more than a minute"]
async fn churn_over_sockets() {
    churn::<NetTransport>(MINUTE, 1).await;
}
