//! What a packet of gossip costs: made of messages and sealed, and opened and taken apart.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The length of the packet before it is sealed; each library puts as many messages into it as fit.
pub const PACKET_BYTES: usize = 1400;
/// Of one direction.
const MEASURED: Duration = Duration::from_millis(500);
const BATCH: u32 = 50;

/// What a library took for one packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PacketTimes {
    /// Messages in the packet: announcements of members, each with a name of eleven bytes, an IPv4
    /// address and nine bytes of meta.
    pub messages: usize,
    /// Length of the sealed packet.
    pub bytes: usize,
    /// Nanoseconds to make and seal it, the median of batches.
    pub seal_ns: f64,
    /// Nanoseconds to open it and read its messages, the median of batches.
    pub open_ns: f64,
}

impl PacketTimes {
    /// Measures. `seal` gives the length of the packet, `open` the number of messages in it.
    pub fn measure(mut seal: impl FnMut() -> usize, mut open: impl FnMut() -> usize) -> Self {
        let (bytes, messages) = (seal(), open());
        let (seal_ns, open_ns) = (median_ns(seal), median_ns(open));
        Self { messages, bytes, seal_ns, open_ns }
    }
}

fn median_ns(mut work: impl FnMut() -> usize) -> f64 {
    let (began, mut batches) = (Instant::now(), Vec::new());
    while began.elapsed() < MEASURED {
        let batch = Instant::now();
        for _ in 0..BATCH {
            black_box(work());
        }
        batches.push(batch.elapsed());
    }
    batches.sort();
    batches[batches.len() / 2].as_nanos() as f64 / f64::from(BATCH)
}
