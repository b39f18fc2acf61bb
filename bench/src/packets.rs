//! A packet of gossip under AES-128-GCM: made of messages and sealed, opened and read; beside the crate
//! `memberlist`'s.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command as Process;

use memberlist::protocol::message::{Alive, Message};
use memberlist::protocol::wire::{PacketReader, PacketWriter, Room};
use memberlist::protocol::{Dialect, Versions, WireFormat};
use memberlist::security::{Keyring, SecretKey};
use memberlist::testing::NodeLayers;
use memberlist::{Config, Encryption};
use memberlist_bench_fleet::KEY;
use memberlist_bench_fleet::packets::{PACKET_BYTES, PacketTimes};

use crate::cluster::programs::{Library, Programs};

/// Measures both in turn, and shows the medians.
///
/// # Errors
/// If the layers cannot be made. Without the other crate only ours is measured, and the table says so.
pub fn compare(rounds: u16) -> Result<String, String> {
    let peer = Programs::of_this_workspace().build(Library::Al8n);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(measure()?);
        if let Ok(program) = &peer {
            let output = Process::new(&program.path).arg("packets").output();
            let output = output.map_err(|error| error.to_string())?;
            let times = serde_json::from_slice(&output.stdout);
            theirs.push(times.map_err(|error| format!("al8n packets: {error}"))?);
        }
    }
    Ok(table(&ours, &theirs, peer.err()))
}

/// A figure of one measurement.
type Figure = fn(&PacketTimes) -> f64;

fn table(ours: &[PacketTimes], theirs: &[PacketTimes], absent: Option<String>) -> String {
    let median = |times: &[PacketTimes], of: Figure| {
        let mut all: Vec<f64> = times.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        crate::cluster::report::median(&all)
    };
    let rows: [(&str, Figure); 4] = [
        ("messages in the packet", |times| times.messages as f64),
        ("sealed packet, bytes", |times| times.bytes as f64),
        ("encode and seal, ns", |times| times.seal_ns),
        ("open and decode, ns", |times| times.open_ns),
    ];
    let mut text = format!("| {:<24} | {:>8} | {:>8} | ratio |\n", "median", "ours", "al8n");
    text.push_str("|---|---:|---:|---:|\n");
    for (what, of) in rows {
        let figures = [ours, theirs].map(|times| median(times, of));
        let shown =
            figures.map(|figure| figure.map_or("-".into(), |figure| format!("{figure:.0}")));
        let ratio = match figures {
            [Some(ours), Some(theirs)] => format!("{:.2}", ours / theirs),
            _ => "-".into(),
        };
        let _ = writeln!(text, "| {what:<24} | {:>8} | {:>8} | {ratio:>5} |", shown[0], shown[1]);
    }
    if let Some(why) = absent {
        let _ = writeln!(text, "\nal8n: NOT MEASURED, {why}");
    }
    text
}

fn measure() -> Result<PacketTimes, String> {
    let mut config = Config::lan("a");
    let key = SecretKey::from_bytes(&KEY[..16]).map_err(|error| error.to_string())?;
    config.encryption = Some(Encryption::new(Keyring::new(key)));
    let layers = NodeLayers::new(&config).map_err(|error| error.to_string())?;
    let names: Vec<String> = (0..200).map(|number| format!("node-{number:06}")).collect();
    let mut packet = Vec::new();
    seal(&layers, &names, &mut packet);
    let (arrived, mut copy) = (packet.clone(), Vec::new());
    let mut reader = PacketReader::default();
    let open = || {
        // Opening uses it up.
        copy.clear();
        copy.extend_from_slice(&arrived);
        let plain = layers.unwrap(&mut copy).expect("an honest packet");
        let mut messages = 0;
        let read = reader.read(WireFormat::Native, plain).expect("a packet");
        read.for_each(|message| messages += usize::from(std::hint::black_box(message).is_ok()));
        messages
    };
    Ok(PacketTimes::measure(|| seal(&layers, &names, &mut packet), open))
}

/// As many as fit, as the machine writes them, and sealed as the driver does.
fn seal(layers: &NodeLayers, names: &[String], packet: &mut Vec<u8>) -> usize {
    let head = layers.head();
    let room = Room { head, tail: 16, max_packet_bytes: head + PACKET_BYTES + 16 };
    // The seal is the checksum.
    let mut writer = PacketWriter::new(packet, Dialect::Native, false, room);
    for (name, number) in names.iter().zip(0_u8..) {
        let addr = SocketAddr::from(([10, 0, 0, number], 7946));
        let (meta, versions) = (&b"some meta"[..], Versions::default());
        let alive = Alive { incarnation: 1, node: name, addr, wide_ipv4: false, meta, versions };
        if !writer.push(&Message::Alive(alive)) {
            break;
        }
    }
    writer.finish();
    layers.wrap(packet).expect("a seal");
    packet.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_a_full_packet_and_is_read_again() {
        let times = measure().expect("the layers");
        assert!(times.messages > 20, "{times:?}");
        assert!((PACKET_BYTES - 50..PACKET_BYTES + 60).contains(&times.bytes), "{times:?}");
        let text = table(&[times], &[], Some("there is no network".into()));
        assert!(text.contains("NOT MEASURED, there is no network"), "{text}");
    }
}
