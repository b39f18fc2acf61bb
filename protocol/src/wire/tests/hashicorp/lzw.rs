//! LZW against a slow and plain implementation of the same rules, and what Go's decoder takes.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::wire::CompressionError;
use crate::wire::hashicorp::lzw::{Decoder, Encoder, decode};

const CLEAR: u16 = 256;
const END: u16 = 257;

/// Codes as bits, each with its width, the lowest bit first.
fn pack(codes: &[(u16, u32)]) -> Vec<u8> {
    let bits = codes.iter().flat_map(|&(code, width)| (0..width).map(move |bit| code >> bit & 1));
    let bits: Vec<_> = bits.collect();
    let byte = |bits: &[u16]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | bit as u8);
    bits.chunks(8).map(byte).collect()
}

fn plainly_encoded(content: &[u8]) -> Vec<u8> {
    pack(&plain_codes(content))
}

/// Go's encoder in as few words as it has: strings in a map.
fn plain_codes(content: &[u8]) -> Vec<(u16, u32)> {
    let mut table: HashMap<Vec<u8>, u16> = HashMap::new();
    let (mut width, mut last, mut overflow) = (9, END, 512);
    let mut codes = vec![(CLEAR, 9)];
    let code = |table: &HashMap<Vec<u8>, u16>, text: &[u8]| match text {
        &[byte] => u16::from(byte),
        text => table[text],
    };
    let mut text: Vec<u8> = Vec::new();
    let mut emit = |text: &[u8], longer: Option<Vec<u8>>, table: &mut HashMap<Vec<u8>, u16>| {
        codes.push((code(table, text), width));
        last += 1;
        if last == overflow {
            width += 1;
            overflow *= 2;
        }
        if last == 4095 {
            codes.push((CLEAR, width));
            (width, last, overflow) = (9, END, 512);
            table.clear();
        } else if let Some(longer) = longer {
            table.insert(longer, last);
        }
        width
    };
    let mut end = 9;
    for &byte in content {
        let longer = [&text[..], &[byte]].concat();
        if text.is_empty() || table.contains_key(&longer) {
            text = longer;
        } else {
            emit(&text, Some(longer), &mut table);
            text = vec![byte];
        }
    }
    if !text.is_empty() {
        end = emit(&text, None, &mut table);
    }
    codes.push((END, end));
    codes
}

fn encoded(content: &[u8]) -> Vec<u8> {
    let mut out = b"kept".to_vec();
    Encoder::default().encode(content, &mut out);
    assert!(out.starts_with(b"kept"));
    out.split_off(4)
}

fn decoded(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = b"kept".to_vec();
    let done = decode(bytes, limit, &mut out);
    assert!(out.starts_with(b"kept"));
    let content = out.split_off(4);
    assert!(done.is_ok() || content.is_empty(), "what is refused leaves nothing");
    done.map(|()| content)
}

/// Bytes of which no two neighbours come twice, so that each is a code and fills the table.
fn no_pair_twice(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    // Walks over all bytes, each with an odd step of its own.
    'steps: for step in (1..=255_u8).step_by(2) {
        let mut byte = 0_u8;
        for _ in 0..255 {
            if bytes.len() == len {
                break 'steps;
            }
            bytes.push(byte);
            byte = byte.wrapping_add(step);
        }
    }
    bytes
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
    bytes
}

fn compare(content: &[u8]) {
    let bytes = encoded(content);
    assert_eq!(bytes, plainly_encoded(content), "{}", content.len());
    assert_eq!(decoded(&bytes, content.len()).as_deref(), Ok(content), "{}", content.len());
}

#[test]
fn a_full_table_starts_anew_where_go_does() {
    // 3,838 codes fill the table, and as many again a second time.
    let (codes, noise) = (no_pair_twice(9000), noise(9000));
    for (content, lengths) in
        [(&codes, 3832..3844), (&codes, 7670..7682), (&noise, 3880..4020), (&noise, 7800..8000)]
    {
        let clears = |len: usize| {
            plain_codes(&content[..len]).iter().filter(|(code, _)| *code == CLEAR).count()
        };
        assert_eq!(clears(lengths.start) + 1, clears(lengths.end), "{lengths:?}");
        // Every length where little is left to be seen, else some of them.
        let step = if lengths.len() > 100 { 3 } else { 1 };
        lengths.step_by(step).for_each(|len| compare(&content[..len]));
    }
    (3800..9000).step_by(397).for_each(|len| compare(&noise[..len]));
}

#[test]
fn widths_change_where_go_changes_them() {
    let (codes, noise) = (no_pair_twice(2000), noise(2000));
    for len in (0..30).chain(240..270).chain(500..530).chain(760..775).chain(1785..1800) {
        for content in [&noise[..len], &codes[..len], &vec![7; len]] {
            compare(content);
        }
    }
}

#[test]
fn memory_is_used_again() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    for len in [5000, 0, 1, 300, 9000] {
        let (content, mut bytes, mut again) = (noise(len), Vec::new(), Vec::new());
        encoder.encode(&content, &mut bytes);
        assert_eq!(bytes, encoded(&content));
        decoder.decode(&bytes, len, &mut again).unwrap();
        assert_eq!(again, content);
        // A code of the last stream is none of the next.
        let stale = pack(&[(CLEAR, 9), (7, 9), (300, 9), (END, 9)]);
        let error = decoder.decode(&stale, 100, &mut again).unwrap_err();
        assert_eq!((error, again), (CompressionError::Malformed, content));
    }
}

#[test]
fn a_stream_is_read_as_go_reads_it() {
    let ok = |codes: &[(u16, u32)]| decoded(&pack(codes), 100).unwrap();
    // No clear code at the beginning, several of them, and one in the middle.
    assert_eq!(ok(&[(97, 9), (98, 9), (END, 9)]), b"ab");
    assert_eq!(ok(&[(CLEAR, 9), (CLEAR, 9), (97, 9), (END, 9)]), b"a");
    assert_eq!(ok(&[(97, 9), (98, 9), (258, 9), (CLEAR, 9), (99, 9), (END, 9)]), b"ababc");
    assert_eq!(ok(&[(END, 9)]), b"");
    // The code that is being made: a, aa, aaa.
    assert_eq!(ok(&[(97, 9), (258, 9), (259, 9), (END, 9)]), b"aaaaaa");
    // What follows the end does not matter.
    let mut behind = pack(&[(97, 9), (END, 9)]);
    behind.extend([0xff; 9]);
    assert_eq!(decoded(&behind, 1).unwrap(), b"a");

    let malformed = |codes: &[(u16, u32)]| {
        assert_eq!(decoded(&pack(codes), 100), Err(CompressionError::Malformed), "{codes:?}");
    };
    malformed(&[]);
    malformed(&[(CLEAR, 9)]);
    malformed(&[(97, 9), (98, 9)]);
    // A code that there is not yet: right after a clear not even the one that is being made.
    malformed(&[(258, 9), (END, 9)]);
    malformed(&[(97, 9), (259, 9), (END, 9)]);
    malformed(&[(97, 9), (98, 9), (CLEAR, 9), (258, 9), (END, 9)]);
}

#[test]
fn an_encoder_that_never_clears_is_understood() {
    // The table stays full: from then on all codes have 12 bits.
    let content = noise(6000);
    let (mut codes, mut last, mut width) = (Vec::new(), usize::from(END), 9);
    for &byte in &content {
        codes.push((u16::from(byte), width));
        last = (last + 1).min(4095);
        width = 9 + [512, 1024, 2048].iter().filter(|&&step| last >= step).count() as u32;
    }
    codes.push((4095, width));
    codes.push((END, width));
    let bytes = decoded(&pack(&codes), 7000).unwrap();
    assert_eq!(bytes[..6000], content);
    // The last code that was given out is the pair at which the table became full.
    let at = 4095 - usize::from(END) - 1;
    assert_eq!(bytes[6000..], content[at..at + 2]);
}

#[test]
fn the_limit_holds_to_the_byte() {
    for content in [vec![0; 5000], noise(5000), no_pair_twice(5000)] {
        let bytes = encoded(&content);
        for limit in [0, 1, 4999] {
            let error = CompressionError::TooLarge { claimed: limit + 1, limit };
            assert_eq!(decoded(&bytes, limit), Err(error));
        }
        assert_eq!(decoded(&bytes, 5000).map(|content| content.len()), Ok(5000));
    }
}

#[test]
fn a_bomb_costs_no_more_than_its_limit() {
    let bytes = encoded(&vec![0; 10_000_000]);
    let mut out = Vec::new();
    assert!(decode(&bytes, 65_507, &mut out).is_err());
    // One code stands for fewer than 4,096 bytes.
    assert!(out.capacity() <= 2 * (65_507 + 4096), "{}", out.capacity());
}

proptest! {
    #[test]
    fn what_is_compressed_comes_back(
        pieces in vec((vec(any::<u8>(), 1..40), 1usize..60), 0..20),
        few in any::<bool>(),
    ) {
        let bytes = pieces.iter().flat_map(|(piece, times)| piece.repeat(*times));
        let content: Vec<u8> = bytes.map(|byte| if few { byte & 3 } else { byte }).collect();
        let compressed = encoded(&content);
        prop_assert_eq!(&compressed, &plainly_encoded(&content));
        prop_assert_eq!(decoded(&compressed, content.len()), Ok(content));
    }

    #[test]
    fn garbage_is_an_error_or_within_the_limit(bytes in vec(any::<u8>(), 0..3000)) {
        if let Ok(content) = decoded(&bytes, 10_000) {
            prop_assert!(content.len() <= 10_000);
        }
    }

    #[test]
    fn damaged_streams_are_read_without_panic(
        len in 0usize..6000,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut: prop::sample::Index,
    ) {
        let mut bytes = encoded(&noise(len));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(content) = decoded(bytes, 10_000) {
                prop_assert!(content.len() <= 10_000);
            }
        }
    }
}
