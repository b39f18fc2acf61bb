//! The checksum of a packet: CRC-32 with the IEEE polynomial, as in Ethernet, gzip and Go's
//! `hash/crc32`. It finds accidents, not attackers; an encrypted packet has its own proof.

use crc32fast::Hasher;

/// The checksum of two pieces as if they were one: what stands before the field and what follows.
pub(super) fn crc32(before: &[u8], after: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(before);
    hasher.update(after);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_ieee_polynomial() {
        assert_eq!(crc32(b"1234", b"56789"), 0xCBF4_3926);
        assert_eq!(crc32(b"", b""), 0);
    }
}
