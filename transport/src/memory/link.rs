//! What a link between two addresses does to the traffic on it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Longer delays act as this one, so that no configuration can overflow the clock.
const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How one direction between two addresses behaves. The default is a perfect link.
///
/// Meant to be written with the rest left at its default:
///
/// ```
/// use memberlist_transport::memory::LinkConfig;
/// let lossy = LinkConfig { loss: 0.2, ..LinkConfig::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkConfig {
    /// The time that a packet or a byte of a stream is under way. Default 0, at most a day.
    pub delay: Duration,
    /// Up to this much is added to `delay`, evenly drawn for each packet and each write to a stream.
    /// Packets may overtake each other by it; the bytes of a stream never do. Default 0.
    pub jitter: Duration,
    /// The share of packets that vanish, from 0 to 1. Values outside act as the nearer end.
    /// Streams lose nothing. Default 0.
    pub loss: f64,
    /// The share of packets that arrive twice, from 0 to 1. Values outside act as the nearer end.
    /// Default 0.
    pub duplicate: f64,
    /// Whether packets pass at all. Default `true`.
    pub packets_ok: bool,
    /// Whether streams pass at all, see [streams across a blocked link](super#streams). Default
    /// `true`.
    pub streams_ok: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            packets_ok: true,
            streams_ok: true,
        }
    }
}

impl LinkConfig {
    pub(super) fn draw_delay(&self, dice: &mut Dice) -> Duration {
        let jitter = self.jitter.min(MAX_DELAY).mul_f64(dice.share());
        self.delay.saturating_add(jitter).min(MAX_DELAY)
    }
}

/// The links of a network: one default, exceptions to it, and blocks that lie over both.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) default: LinkConfig,
    pub(super) special: HashMap<(SocketAddr, SocketAddr), LinkConfig>,
    pub(super) blocked: HashSet<(SocketAddr, SocketAddr)>,
}

impl Links {
    /// The link as it is now, blocks included.
    pub(super) fn get(&self, from: SocketAddr, to: SocketAddr) -> LinkConfig {
        let mut link = self.special.get(&(from, to)).copied().unwrap_or(self.default);
        if self.blocked.contains(&(from, to)) {
            link.packets_ok = false;
            link.streams_ok = false;
        }
        link
    }

    /// Whether a stream can make progress. It needs both directions, as TCP needs its
    /// acknowledgements.
    pub(super) fn streams_ok(&self, a: SocketAddr, b: SocketAddr) -> bool {
        self.get(a, b).streams_ok && self.get(b, a).streams_ok
    }
}

/// The random choices of one sender or of one stream. Each has its own, so that what it meets does
/// not depend on how its sends interleave with those of others.
#[derive(Debug)]
pub(super) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// `words` say whose dice these are; the same seed and words give the same draws.
    pub(super) fn new(seed: u64, words: impl IntoIterator<Item = u64>) -> Self {
        let mixed = words
            .into_iter()
            .fold(seed, |state, word| Xoshiro256PlusPlus::seed_from_u64(state ^ word).random());
        Self(Xoshiro256PlusPlus::seed_from_u64(mixed))
    }

    /// Evenly from 0 (included) to 1 (excluded).
    pub(super) fn share(&mut self) -> f64 {
        self.0.random()
    }

    pub(super) fn hits(&mut self, probability: f64) -> bool {
        self.share() < probability
    }
}

/// An address as words for [`Dice::new`].
pub(super) fn addr_words(addr: SocketAddr) -> [u64; 2] {
    let ip = match addr {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().to_bits(),
        SocketAddr::V6(v6) => v6.ip().to_bits(),
    };
    let port = u64::from(addr.port());
    [(ip >> 64) as u64, (ip as u64).rotate_left(16) ^ port]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_repeat_by_seed_and_owner() {
        let a: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let b: SocketAddr = "127.0.0.1:2".parse().unwrap();
        let draws = |seed, addr| {
            let mut dice = Dice::new(seed, addr_words(addr));
            [dice.share(), dice.share(), dice.share()]
        };
        assert_eq!(draws(1, a), draws(1, a));
        assert_ne!(draws(1, a), draws(1, b));
        assert_ne!(draws(1, a), draws(2, a));
    }

    #[test]
    fn shares_outside_the_range_are_harmless() {
        let mut dice = Dice::new(0, []);
        assert!(dice.hits(7.0));
        assert!(!dice.hits(-1.0));
        assert!(!dice.hits(f64::NAN));
    }

    #[test]
    fn a_block_lies_over_the_link_and_stops_streams_both_ways() {
        let a: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let b: SocketAddr = "127.0.0.1:2".parse().unwrap();
        let mut links = Links::default();
        links.blocked.insert((a, b));
        assert!(!links.get(a, b).packets_ok);
        assert!(links.get(b, a).packets_ok);
        assert!(!links.streams_ok(b, a));
    }
}
