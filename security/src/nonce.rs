//! Nonces: 96 random bits for each sealed message, as Go memberlist takes them.
//!
//! Members share keys without talking about nonces, so a counter cannot be used. A system call for
//! each packet would cost as much as sealing a small one; each thread has a generator of its own
//! (ChaCha, cryptographically secure), seeded by the system, and seeded anew after
//! [`NONCES_PER_SEED`], which bounds what a look into the process' memory would tell.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::key::{RandomnessError, fill_random};

/// The length of a nonce in bytes.
pub(crate) const NONCE: usize = 12;

/// How many nonces are taken from one seed.
const NONCES_PER_SEED: u32 = 4096;

struct Source {
    generator: StdRng,
    left: u32,
}

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// The next nonce of this thread.
pub(crate) fn next_nonce() -> Result<[u8; NONCE], RandomnessError> {
    SOURCE.with_borrow_mut(|slot| match slot {
        Some(source) if source.left > 0 => Ok(source.take()),
        _ => {
            // The old generator goes first: it must not be used again if seeding fails.
            *slot = None;
            Ok(slot.insert(Source::seeded()?).take())
        }
    })
}

impl Source {
    fn seeded() -> Result<Self, RandomnessError> {
        let mut seed = <StdRng as SeedableRng>::Seed::default();
        fill_random(&mut seed)?;
        Ok(Self { generator: StdRng::from_seed(seed), left: NONCES_PER_SEED })
    }

    fn take(&mut self) -> [u8; NONCE] {
        self.left -= 1;
        let (high, low) = (self.generator.next_u64(), self.generator.next_u32());
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&high.to_le_bytes());
        nonce[8..].copy_from_slice(&low.to_le_bytes());
        nonce
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn none_comes_twice_in_any_thread() {
        let count = NONCES_PER_SEED as usize * 2 + 10;
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    (0..count).map(|_| next_nonce().unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut seen = HashSet::new();
        for thread in threads {
            seen.extend(thread.join().unwrap());
        }
        assert_eq!(seen.len(), 4 * count);
        // Every byte of a nonce is random.
        for i in 0..NONCE {
            let values: HashSet<u8> = seen.iter().map(|nonce| nonce[i]).collect();
            assert_eq!(values.len(), 256, "byte {i}");
        }
    }

    #[test]
    fn seeds_are_renewed() {
        let left = || SOURCE.with_borrow(|source| source.as_ref().unwrap().left);
        next_nonce().unwrap();
        assert_eq!(left(), NONCES_PER_SEED - 1);
        for _ in 1..NONCES_PER_SEED {
            next_nonce().unwrap();
        }
        assert_eq!(left(), 0);
        next_nonce().unwrap();
        assert_eq!(left(), NONCES_PER_SEED - 1);
    }
}
