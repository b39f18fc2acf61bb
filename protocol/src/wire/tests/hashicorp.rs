//! HashiCorp memberlist's bytes. What Go itself writes and reads is in the captured vectors of the
//! `memberlist-tests` crate; here is what no capture shows: every value, limits, and enemies.

mod hostile;
mod lzw;
mod messages;
mod mixed;
mod packets;
mod streams;
mod streams_hostile;

use crate::message::Message;
use crate::wire::hashicorp::{Body, body, kind, lzw as codec};
use crate::wire::{Dialect, PacketError, PacketReader, PacketWriter, Room, WireFormat};

const FORMAT: Dialect = Dialect::Hashicorp;
const ROOM: Room = Room { head: 0, tail: 0, max_packet_bytes: 65_507 };

fn part(message: &Message<'_>) -> Vec<u8> {
    let mut part = Vec::new();
    FORMAT.encode(message, &mut part);
    part
}

/// A packet of these parts, which must fit.
fn packet(parts: &[Vec<u8>], checksum: bool) -> Vec<u8> {
    let mut buf = Vec::new();
    let mut writer = PacketWriter::new(&mut buf, FORMAT, checksum, ROOM);
    assert!(parts.iter().all(|part| writer.push_encoded(part)));
    writer.finish();
    buf
}

/// What is read of a packet, written again part by part.
fn read(packet: &[u8]) -> Result<Vec<Result<Vec<u8>, PacketError>>, PacketError> {
    let mut read = Vec::new();
    let mut reader = PacketReader::default();
    let packet = reader.read(WireFormat::Hashicorp, packet)?;
    packet.for_each(|message| read.push(message.map(|message| part(&message))));
    Ok(read)
}

/// A message that holds this one compressed.
fn compressed(content: &[u8]) -> Vec<u8> {
    let (mut buf, mut message) = (Vec::new(), vec![kind::COMPRESS]);
    codec::Encoder::default().encode(content, &mut buf);
    body::Compressed { algo: 0, buf: Some(buf.into()) }.write(&mut message);
    message
}

/// A compound of any parts, as no writer here would make it.
fn compound(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![kind::COMPOUND, u8::try_from(parts.len()).expect("one byte")];
    for part in parts {
        message.extend(u16::try_from(part.len()).expect("two bytes").to_be_bytes());
    }
    message.extend(parts.concat());
    message
}
