//! LZW as Go memberlist has it: least significant bit first, literals of 8 bits, codes of 9 to 12 bits
//! (Go `compress/lzw`).
//!
//! Written here since the bytes must be Go's: encoders differ in when they start a full table anew. The
//! encoder's table is a hash table of (prefix, byte) as Go's; the decoder keeps the last byte and the
//! prefix of each code and unrolls from the end.

use crate::wire::compress::CompressionError;

/// Starts the table anew.
const CLEAR: u16 = 256;
/// Ends the stream.
const END: u16 = 257;
const MIN_WIDTH: u32 = 9;
const MAX_WIDTH: u32 = 12;
const TABLE_SIZE: usize = 1 << MAX_WIDTH;
/// The last code there is; the encoder starts anew instead of giving it out.
const LAST_CODE: u16 = (TABLE_SIZE - 1) as u16;
/// No code yet.
const NONE: u16 = u16::MAX;

/// Slots of the encoder's hash table: four times as many as codes, so that chains stay short.
const SLOTS: usize = 4 * TABLE_SIZE;
/// A slot that holds nothing. Others hold `prefix << 20 | byte << 12 | code`.
const EMPTY: u32 = 0;

/// Compresses one thing after the other, in memory that it keeps.
#[derive(Default)]
pub struct Encoder {
    slots: Vec<u32>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// Codes on their way out, the first in the lowest bits.
struct BitWriter<'b> {
    out: &'b mut Vec<u8>,
    bits: u32,
    count: u32,
    width: u32,
}

impl BitWriter<'_> {
    fn push(&mut self, code: u16) {
        self.bits |= u32::from(code) << self.count;
        self.count += self.width;
        while self.count >= 8 {
            self.out.push(self.bits as u8);
            self.bits >>= 8;
            self.count -= 8;
        }
    }

    fn finish(self) {
        if self.count > 0 {
            self.out.push(self.bits as u8);
        }
    }
}

/// The code that was given out last, and where codes get wider.
struct Codes {
    last: u16,
    overflow: u16,
}

impl Codes {
    const FRESH: Self = Self { last: END, overflow: 1 << MIN_WIDTH };
}

impl Encoder {
    /// Appends the compressed form of `content` to `out`.
    pub fn encode(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let mut bits = BitWriter { out, bits: 0, count: 0, width: MIN_WIDTH };
        bits.push(CLEAR);
        let Some((&first, rest)) = content.split_first() else {
            bits.push(END);
            return bits.finish();
        };
        self.clear();
        let (mut prefix, mut codes) = (u16::from(first), Codes::FRESH);
        for &byte in rest {
            let key = u32::from(prefix) << 8 | u32::from(byte);
            match self.find(key) {
                Ok(code) => prefix = code,
                Err(slot) => {
                    bits.push(prefix);
                    prefix = u16::from(byte);
                    match next_code(&mut codes, &mut bits) {
                        Some(code) => self.slots[slot] = key << 12 | u32::from(code),
                        None => self.clear(),
                    }
                }
            }
        }
        bits.push(prefix);
        next_code(&mut codes, &mut bits);
        bits.push(END);
        bits.finish();
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.slots.resize(SLOTS, EMPTY);
    }

    /// The code of a prefix and a byte, or the slot for it.
    fn find(&self, key: u32) -> Result<u16, usize> {
        let mut slot = (key >> 12 ^ key) as usize % SLOTS;
        loop {
            let held = self.slots[slot];
            if held == EMPTY {
                return Err(slot);
            }
            if held >> 12 == key {
                return Ok((held & u32::from(LAST_CODE)) as u16);
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

/// Counts a code that was written; gives the number of the next entry, or nothing if the table was full
/// and has been started anew.
fn next_code(codes: &mut Codes, bits: &mut BitWriter<'_>) -> Option<u16> {
    codes.last += 1;
    if codes.last == codes.overflow {
        bits.width += 1;
        codes.overflow <<= 1;
    }
    if codes.last == LAST_CODE {
        bits.push(CLEAR);
        bits.width = MIN_WIDTH;
        *codes = Codes::FRESH;
        return None;
    }
    Some(codes.last)
}

/// Codes as they come in.
struct BitReader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    bits: u32,
    count: u32,
}

impl BitReader<'_> {
    fn next(&mut self, width: u32) -> Option<u16> {
        while self.count < width {
            self.bits |= u32::from(*self.bytes.next()?) << self.count;
            self.count += 8;
        }
        let code = self.bits & ((1 << width) - 1);
        self.bits >>= width;
        self.count -= width;
        Some(code as u16)
    }
}

/// The decoder's table. Of what it holds, only entries of the stream that is decoded are looked at.
struct Table {
    suffix: [u8; TABLE_SIZE],
    prefix: [u16; TABLE_SIZE],
}

/// Decompresses one thing after the other, in memory that it keeps: a packet may be made of many small
/// compressed messages.
#[derive(Default)]
pub struct Decoder {
    table: Option<Box<Table>>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// Appends the content of `compressed` to `out`, if it has no more than `limit` bytes. Bytes after
    /// the end code are ignored.
    ///
    /// # Errors
    /// If it is larger, or no stream of codes with an end; `out` is as it was.
    pub fn decode(
        &mut self,
        compressed: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        let start = out.len();
        let empty = || Box::new(Table { suffix: [0; TABLE_SIZE], prefix: [0; TABLE_SIZE] });
        let done = decode_codes(self.table.get_or_insert_with(empty), compressed, limit, out);
        if done.is_err() {
            out.truncate(start);
        }
        done
    }
}

/// As [`Decoder::decode`], for one thing alone.
///
/// # Errors
/// As there.
pub fn decode(compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    Decoder::default().decode(compressed, limit, out)
}

fn decode_codes(
    table: &mut Table,
    compressed: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let mut codes = BitReader { bytes: compressed.iter(), bits: 0, count: 0 };
    let (mut width, mut fresh, mut last) = (MIN_WIDTH, Codes::FRESH, NONE);
    let mut left = limit;
    loop {
        let code = codes.next(width).ok_or(CompressionError::Malformed)?;
        match code {
            CLEAR => {
                (width, fresh, last) = (MIN_WIDTH, Codes::FRESH, NONE);
                continue;
            }
            END => return Ok(()),
            _ if code > fresh.last => return Err(CompressionError::Malformed),
            _ => {}
        }
        let first = table
            .unroll(code, last, fresh.last, &mut left, out)
            .ok_or(CompressionError::TooLarge { claimed: limit.saturating_add(1), limit })?;
        if last != NONE {
            table.suffix[usize::from(fresh.last)] = first;
            table.prefix[usize::from(fresh.last)] = last;
        }
        last = code;
        fresh.last += 1;
        if fresh.last >= fresh.overflow {
            if width == MAX_WIDTH {
                // Full: no entry is added until it is cleared.
                last = NONE;
                fresh.last -= 1;
            } else {
                width += 1;
                fresh.overflow = 1 << width;
            }
        }
    }
}

impl Table {
    /// Appends what a code stands for and gives its first byte; nothing if it is more than `left`.
    fn unroll(
        &self,
        code: u16,
        last: u16,
        newest: u16,
        left: &mut usize,
        out: &mut Vec<u8>,
    ) -> Option<u8> {
        let at = out.len();
        // The newest code is not in the table: it is the last one and its own first byte.
        let unfinished = code == newest && last != NONE;
        let mut walk = if unfinished { last } else { code };
        if unfinished {
            out.push(0);
        }
        while walk > END {
            out.push(self.suffix[usize::from(walk)]);
            walk = self.prefix[usize::from(walk)];
        }
        let first = walk as u8;
        out.push(first);
        if unfinished {
            out[at] = first;
        }
        out[at..].reverse();
        *left = left.checked_sub(out.len() - at)?;
        Some(first)
    }
}
