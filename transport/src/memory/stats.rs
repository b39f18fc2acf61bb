//! What happened on the network, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the network was made, over all its nodes. Taken with
/// [`MemoryNetwork::stats`](super::MemoryNetwork::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Packets that a sender handed over, whatever became of them.
    pub packets_sent: u64,
    /// Packets that a receiver took, duplicates included.
    pub packets_delivered: u64,
    /// Packets that the link lost by [`LinkConfig::loss`](super::LinkConfig::loss).
    pub packets_lost: u64,
    /// Packets that the link doubled by [`LinkConfig::duplicate`](super::LinkConfig::duplicate).
    pub packets_duplicated: u64,
    /// Packets stopped by a block, a partition or `packets_ok: false`.
    pub packets_blocked: u64,
    /// Packets to an address where nobody listens.
    pub packets_unreachable: u64,
    /// Packets dropped because the receiver's queue was full.
    pub packets_overflowed: u64,
    /// Packets dropped because they did not fit the receiver's buffer.
    pub packets_unfit: u64,
    /// Packets of zero bytes, which are never delivered.
    pub packets_empty: u64,
    /// Streams that were opened.
    pub streams_opened: u64,
    /// Dials to an address where nobody listens.
    pub streams_refused: u64,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The live side of [`MemoryStats`].
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> MemoryStats {
                MemoryStats { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    packets_sent,
    packets_delivered,
    packets_lost,
    packets_duplicated,
    packets_blocked,
    packets_unreachable,
    packets_overflowed,
    packets_unfit,
    packets_empty,
    streams_opened,
    streams_refused,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
