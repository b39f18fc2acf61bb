//! A suite that checks the [contract](crate::Transport#contract) against any implementation.
//!
//! [`check`] runs it all; each check is public too, to run alone while something fails. A check
//! panics with a text that says what was broken. It makes its transports with the closure given to
//! it, which is passed `None` for a fresh address of its choice, on which transports made before
//! can be reached, or the address that a closed transport had, to take it over.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use memberlist_transport::conformance;
//! use memberlist_transport::memory::MemoryNetwork;
//!
//! let network = MemoryNetwork::new(0);
//! conformance::check(async |addr| {
//!     network.bind(addr.unwrap_or("127.0.0.1:0".parse().unwrap())).unwrap()
//! })
//! .await;
//! # });
//! ```
//!
//! The checks dial by address alone, without names, as a node does with its first seeds. They send
//! a packet again until it arrives, as packets may be lost; but a transport under test should lose
//! few, and its streams should not break. Waits are bounded by 30 s of tokio's clock each.
//!
//! Not checked, for want of a general way: that a full queue drops packets and holds back no one,
//! that `SendError::Io` is said when it should be, and [`rtt`](crate::Transport::rtt).

mod close;
mod packets;
mod streams;
mod support;

use std::net::SocketAddr;

use crate::Transport;

pub use self::close::{close_ends_all_calls, close_frees_the_address};
pub use self::packets::{
    addresses_are_usable, cancelled_receives_lose_nothing, concurrent_packets_arrive_whole,
    empty_packets_are_not_delivered, oversize_packets_are_refused, packets_arrive_whole,
    packets_pass_a_busy_stream, sources_can_be_answered, unfit_packets_are_dropped,
};
pub use self::streams::{
    cancelled_accepts_lose_nothing, cancelled_dials_leave_nothing, dials_to_nobody_fail,
    dropped_streams_end, streams_carry_bulk_both_ways, streams_close_by_halves,
    streams_run_side_by_side,
};

/// Runs every check, one after the other.
///
/// # Panics
/// If the transport breaks the contract.
pub async fn check<T, F>(make: F)
where
    T: Transport,
    F: AsyncFn(Option<SocketAddr>) -> T,
{
    addresses_are_usable(&make).await;
    packets_arrive_whole(&make).await;
    concurrent_packets_arrive_whole(&make).await;
    oversize_packets_are_refused(&make).await;
    empty_packets_are_not_delivered(&make).await;
    unfit_packets_are_dropped(&make).await;
    sources_can_be_answered(&make).await;
    cancelled_receives_lose_nothing(&make).await;
    packets_pass_a_busy_stream(&make).await;

    streams_carry_bulk_both_ways(&make).await;
    streams_close_by_halves(&make).await;
    streams_run_side_by_side(&make).await;
    dropped_streams_end(&make).await;
    dials_to_nobody_fail(&make).await;
    cancelled_dials_leave_nothing(&make).await;
    cancelled_accepts_lose_nothing(&make).await;

    close_ends_all_calls(&make).await;
    close_frees_the_address(&make).await;
}

/// Two fresh transports.
async fn pair<T: Transport>(make: &impl AsyncFn(Option<SocketAddr>) -> T) -> (T, T) {
    (make(None).await, make(None).await)
}
