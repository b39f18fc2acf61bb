//! Native packets: a header, then parts, which may be compressed together.
//!
//! What is read borrows from the packet.

use super::{LengthError, MAGIC, VERSION, decode_body, kind_of, take_counted};
use crate::message::Message;
use crate::wire::checksum::crc32;
use crate::wire::compress::{Compressor, decompress};
use crate::wire::error::PacketError;

/// Magic byte, version, flags.
const HEADER_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;
/// Bit 0 of the flags: a checksum follows the header.
const HAS_CHECKSUM: u8 = 1;
/// Bit 1 of the flags: the parts are compressed.
const IS_COMPRESSED: u8 = 2;
/// The most bytes of parts that a compressed packet may hold: what fits the largest UDP datagram, as
/// they were packed.
const MAX_PARTS_BYTES: usize = 65_507;

/// What the header takes, in bytes.
pub(in super::super) const fn overhead(checksum: bool) -> usize {
    HEADER_BYTES + if checksum { CHECKSUM_BYTES } else { 0 }
}

/// Makes the packet `buf[start..]` of its header and parts.
pub(in super::super) fn finish(
    buf: &mut Vec<u8>,
    start: usize,
    checksum: bool,
    compressor: Option<&mut Compressor>,
) {
    let compressed = compressor.is_some_and(|c| c.compress(buf, start + overhead(checksum)));
    if compressed {
        buf[start + HEADER_BYTES - 1] |= IS_COMPRESSED;
    }
    if checksum {
        write_checksum(&mut buf[start..]);
    }
}

/// Appends the header, with room for the checksum if there is to be one.
pub(in super::super) fn write_header(buf: &mut Vec<u8>, checksum: bool) {
    let flags = if checksum { HAS_CHECKSUM } else { 0 };
    buf.extend_from_slice(&[MAGIC, VERSION, flags]);
    if checksum {
        buf.extend_from_slice(&[0; CHECKSUM_BYTES]);
    }
}

fn write_checksum(packet: &mut [u8]) {
    let (header, rest) = packet.split_at_mut(HEADER_BYTES);
    let (field, parts) = rest.split_at_mut(CHECKSUM_BYTES);
    field.copy_from_slice(&crc32(header, parts).to_be_bytes());
}

/// Takes the compression off a packet, if it has any: gives the packet as it would be without, in
/// `scratch`, or the one that came. Content of a compressed packet over 65,507 bytes is refused.
///
/// # Errors
/// As those of [`read_packet`], or if it cannot be decompressed.
pub fn inflate<'a>(packet: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], PacketError> {
    let (flags, rest) = read_header(packet)?;
    if flags & IS_COMPRESSED == 0 {
        return Ok(packet);
    }
    scratch.clear();
    // The checksum has been checked.
    write_header(scratch, false);
    decompress(rest, MAX_PARTS_BYTES, scratch)?;
    Ok(scratch)
}

/// Reads the header and checks the checksum; gives the messages one by one.
///
/// # Errors
/// If the packet as a whole is not to be read: cut off in the header, damaged, of another format or
/// version, or compressed (see [`inflate`]).
pub fn read_packet(packet: &[u8]) -> Result<PacketMessages<'_>, PacketError> {
    let (flags, rest) = read_header(packet)?;
    if flags & IS_COMPRESSED != 0 {
        return Err(PacketError::UnknownFlags(flags));
    }
    Ok(PacketMessages { rest })
}

/// Reads one part by itself, as it stands in a packet.
pub(crate) fn read_part(part: &[u8]) -> Result<Message<'_>, PacketError> {
    PacketMessages { rest: part }.next().unwrap_or(Err(PacketError::Truncated))
}

/// Takes the header off a packet; gives its flags and the rest.
fn read_header(packet: &[u8]) -> Result<(u8, &[u8]), PacketError> {
    let first = *packet.first().ok_or(PacketError::Truncated)?;
    if first != MAGIC {
        return Err(PacketError::WrongFormat { first });
    }
    let version = *packet.get(1).ok_or(PacketError::Truncated)?;
    if version != VERSION {
        return Err(PacketError::WrongVersion(version));
    }
    let (header, rest) = packet.split_at_checked(HEADER_BYTES).ok_or(PacketError::Truncated)?;
    let flags = header[HEADER_BYTES - 1];
    if flags & !(HAS_CHECKSUM | IS_COMPRESSED) != 0 {
        return Err(PacketError::UnknownFlags(flags));
    }
    if flags & HAS_CHECKSUM == 0 {
        return Ok((flags, rest));
    }
    let (field, parts) = rest.split_first_chunk().ok_or(PacketError::Truncated)?;
    let (stated, computed) = (u32::from_be_bytes(*field), crc32(header, parts));
    match stated == computed {
        true => Ok((flags, parts)),
        false => Err(PacketError::Checksum { stated, computed }),
    }
}

/// The messages of a packet, in their order.
///
/// An error of one part (bad body, unknown kind) does not end the iteration. Where the framing
/// itself is broken, the error is the last item.
#[derive(Clone, Debug)]
pub struct PacketMessages<'a> {
    rest: &'a [u8],
}

impl<'a> PacketMessages<'a> {
    #[inline(always)]
    fn read_next(&mut self) -> Result<Message<'a>, PacketError> {
        // On a broken frame `rest` stays empty, which ends the iteration.
        let rest = std::mem::take(&mut self.rest);
        let (&number, mut rest) = rest.split_first().ok_or(PacketError::Truncated)?;
        let body = take_counted(&mut rest).map_err(|error| match error {
            LengthError::Truncated => PacketError::Truncated,
            LengthError::Overflow => PacketError::PartLength,
        })?;
        self.rest = rest;
        let kind = kind_of(number).ok_or(PacketError::UnknownKind(number))?;
        decode_body(kind, body).map_err(|error| PacketError::Body { kind, error })
    }
}

impl<'a> Iterator for PacketMessages<'a> {
    type Item = Result<Message<'a>, PacketError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        (!self.rest.is_empty()).then(|| self.read_next())
    }
}

impl std::iter::FusedIterator for PacketMessages<'_> {}
