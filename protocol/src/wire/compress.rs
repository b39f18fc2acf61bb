//! Compression: LZ4 blocks (the raw block format, without a frame), for whole packets and for the
//! bodies of stream frames.
//!
//! What is compressed stands as `length | block`, the length being that of the content, in LEB128. It
//! is used only where it makes the whole smaller, and only from [`LEAST_BYTES`] on. A reader never
//! reserves more than its limit, nor more than the block could possibly hold.

use super::native::{length_bytes, take_length};

/// Content below this many bytes is sent as it is.
const LEAST_BYTES: usize = 256;
/// No byte of an LZ4 block stands for more bytes of content.
const MAX_RATIO: usize = 255;

/// Why compressed content was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// It would be larger than such content may be, in bytes.
    #[error("it would be {claimed} bytes, over the limit of {limit}")]
    TooLarge {
        /// Its length by its own words.
        claimed: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// It is not what it says it is.
    #[error("it is malformed")]
    Malformed,
    /// This node was built without compression.
    #[error("this node was built without compression")]
    Unsupported,
}

/// Compresses one thing after the other, in memory that it keeps.
#[derive(Default)]
pub(crate) struct Compressor {
    #[cfg(feature = "compression")]
    table: Option<lz4_flex::block::CompressTable>,
    block: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("kept_bytes", &self.block.capacity()).finish()
    }
}

impl Compressor {
    /// Replaces `buf[from..]` by its compressed form if that is shorter; says whether it did.
    pub(super) fn compress(&mut self, buf: &mut Vec<u8>, from: usize) -> bool {
        let content = &buf[from..];
        if content.len() < LEAST_BYTES {
            return false;
        }
        let Ok(claimed) = u32::try_from(content.len()) else { return false };
        let (length, used) = length_bytes(claimed);
        let len = self.block(content);
        if len == 0 || used + len >= content.len() {
            return false;
        }
        buf.truncate(from);
        buf.extend_from_slice(&length[..used]);
        buf.extend_from_slice(&self.block[..len]);
        true
    }

    /// The length of the content as a block; 0 if it cannot be made.
    #[cfg(feature = "compression")]
    fn block(&mut self, content: &[u8]) -> usize {
        use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
        let most = get_maximum_output_size(content.len());
        if self.block.len() < most {
            self.block.resize(most, 0);
        }
        let table = self.table.get_or_insert_with(CompressTable::small);
        compress_into_with_table(content, &mut self.block, table).unwrap_or(0)
    }

    #[cfg(not(feature = "compression"))]
    fn block(&mut self, _: &[u8]) -> usize {
        0
    }
}

/// Appends the content of `compressed` to `out`, if it has no more than `limit` bytes.
pub(super) fn decompress(
    mut compressed: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let claimed = take_length(&mut compressed).map_err(|_| CompressionError::Malformed)?;
    if claimed > limit {
        return Err(CompressionError::TooLarge { claimed, limit });
    }
    // A lie about the length reserves no more than its own size allows.
    if claimed > compressed.len().saturating_mul(MAX_RATIO) {
        return Err(CompressionError::Malformed);
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let done = unblock(compressed, &mut out[start..]);
    if done != Ok(claimed) {
        out.truncate(start);
        return Err(done.err().unwrap_or(CompressionError::Malformed));
    }
    Ok(())
}

#[cfg(feature = "compression")]
fn unblock(block: &[u8], content: &mut [u8]) -> Result<usize, CompressionError> {
    lz4_flex::block::decompress_into(block, content).map_err(|_| CompressionError::Malformed)
}

#[cfg(not(feature = "compression"))]
fn unblock(_: &[u8], _: &mut [u8]) -> Result<usize, CompressionError> {
    Err(CompressionError::Unsupported)
}

#[cfg(all(test, feature = "compression"))]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn compressed(content: &[u8]) -> Option<Vec<u8>> {
        let mut buf = content.to_vec();
        Compressor::default().compress(&mut buf, 0).then_some(buf)
    }

    fn content(compressed: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
        let mut out = b"kept".to_vec();
        decompress(compressed, limit, &mut out)?;
        assert!(out.starts_with(b"kept"));
        Ok(out.split_off(4))
    }

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        assert_eq!(compressed(&[7; LEAST_BYTES - 1]), None);
        assert!(compressed(&[7; LEAST_BYTES]).unwrap().len() < 20);
        let mut noise = [0; 2000];
        rand::rngs::StdRng::seed_from_u64(1).fill_bytes(&mut noise);
        assert_eq!(compressed(&noise), None);
    }

    #[test]
    fn memory_is_bounded_by_the_limit_and_by_what_came() {
        let bomb = compressed(&vec![0; 1 << 20]).unwrap();
        assert_eq!(content(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        let limit = (1 << 20) - 1;
        assert_eq!(
            content(&bomb, limit),
            Err(CompressionError::TooLarge { claimed: 1 << 20, limit })
        );
        // 16 MiB out of two bytes.
        let mut lie = Vec::new();
        lie.extend_from_slice(&length_bytes(16 << 20).0[..4]);
        lie.extend_from_slice(&[0, 0]);
        assert_eq!(content(&lie, usize::MAX), Err(CompressionError::Malformed));
    }

    #[test]
    fn a_length_that_is_not_the_contents_is_malformed() {
        let good = compressed(&[7; 300]).unwrap();
        for wrong in [299_u32, 301, 0] {
            let mut bad = length_bytes(wrong).0[..length_bytes(wrong).1].to_vec();
            bad.extend_from_slice(&good[2..]);
            assert_eq!(content(&bad, 1000), Err(CompressionError::Malformed), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(piece in prop::collection::vec(any::<u8>(), 1..50), times in 1_usize..100) {
            let original = piece.repeat(times);
            if let Some(compressed) = compressed(&original) {
                prop_assert!(compressed.len() < original.len());
                prop_assert_eq!(content(&compressed, original.len()), Ok(original));
            }
        }

        #[test]
        fn garbage_is_an_error_or_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(content) = content(&bytes, 1000) {
                prop_assert!(content.len() <= 1000);
            }
        }
    }
}
