//! What the papers measured, measured again on this implementation.

pub mod convergence;
pub mod dissemination;
pub mod lifeguard;
pub mod scale;
pub mod swim;

use std::time::Duration;

use memberlist_protocol::Config;

use crate::network::{Delay, LinkModel, PacketModel, StreamModel};
use crate::parallel::Stop;

/// How an experiment is run.
pub struct Effort<'a> {
    /// Runs at once.
    pub jobs: usize,
    /// Every run follows from this and its own number.
    pub seed: u64,
    /// Ends it early.
    pub stop: Stop,
    /// Hears of each run that is done: of how many, how many.
    pub progress: &'a mut dyn FnMut(usize, usize),
}

/// A data centre: half a millisecond there, up to a little more now and then.
pub fn lan_link(loss: f64) -> LinkModel {
    let delay = Delay::Exponential(Duration::from_micros(300), Duration::from_micros(200));
    LinkModel {
        packets: PacketModel { delay, loss, duplicate: 0.0 },
        // TCP retransmits: what a loss costs a stream is time, not the exchange.
        streams: StreamModel { delay, loss: 0.0 },
    }
}

/// The same settings without eager gossip, view digests and delta sync: news goes with ticks, and whole
/// states are exchanged, as in Go.
pub fn ticks_only(mut config: Config) -> Config {
    config.eager_gossip_spacing = Duration::ZERO;
    config.delta_sync = false;
    config
}

/// A seed for one of many runs.
fn run_seed(seed: u64, run: usize) -> u64 {
    (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_add((run as u64).wrapping_mul(0xd134_2543_de82_ef95))
}
