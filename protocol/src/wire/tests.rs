//! Tests of the bytes. The files below go from exact bytes to random ones.

mod arrival;
#[cfg(feature = "compression")]
mod compression;
mod docs;
mod golden;
mod hashicorp;
mod packets;
mod samples;
mod streams;

/// Bytes from hex digits; white space is free.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hex digit") as u8)
        .collect();
    assert_eq!(digits.len() % 2, 0, "whole bytes");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
