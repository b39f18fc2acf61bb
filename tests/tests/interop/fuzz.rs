//! The decoders against Go's: random and mutated packets and streams, each read by both.
//!
//! First the bodies as such, which must agree field by field; then what the library makes of them, which
//! must follow from Go's reading and the [limits](limits::Limit) that are documented.
//! `MEMBERLIST_FUZZ_CASES` says how many cases, `MEMBERLIST_FUZZ_SEED` which.

#[path = "fuzz/cases.rs"]
mod cases;
#[path = "fuzz/limits.rs"]
mod limits;
#[path = "fuzz/objects.rs"]
mod objects;
#[path = "fuzz/raw.rs"]
mod raw;

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use memberlist_protocol::wire::stream::{MessageReader, StreamItem, StreamLimits};
use memberlist_protocol::wire::{PacketReader, WireFormat};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use self::cases::Cases;
use self::limits::Limit;
use self::raw::Walk;
use crate::go_peer::{self, hex};

const CASES: u64 = 100_000;
/// What one run of the Go peer reads.
const BATCH: u64 = 5_000;
const DEFAULT_PORT: u16 = 7946;
/// How deep layers may nest in a packet, and how much they may hold.
const MAX_NESTING: usize = 8;
const MAX_INFLATED_BYTES: usize = 65_507;

/// How often each limit was met.
type Met = BTreeMap<Limit, u64>;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
fn both_libraries_read_the_same_of_random_bytes() {
    let (count, seed) = (number("MEMBERLIST_FUZZ_CASES", CASES), number("MEMBERLIST_FUZZ_SEED", 1));
    let batches: Vec<u64> = (0..count.div_ceil(BATCH)).collect();
    let vectors = &vectors();
    let (met, wrong) = thread::scope(|scope| {
        let (even, odd): (Vec<u64>, Vec<u64>) = batches.iter().partition(|batch| *batch % 2 == 0);
        let halves = [even, odd].map(|half| {
            scope.spawn(move || {
                let (mut met, mut wrong) = (Met::new(), Vec::new());
                for batch in half {
                    let random = StdRng::seed_from_u64(seed << 32 | batch);
                    check_batch(Cases::new(random, vectors.clone()), &mut met, &mut wrong);
                }
                (met, wrong)
            })
        });
        let [(mut met, mut wrong), (more_met, more_wrong)] =
            halves.map(|half| half.join().unwrap());
        more_met.into_iter().for_each(|(limit, count)| *met.entry(limit).or_default() += count);
        wrong.extend(more_wrong);
        (met, wrong)
    });
    let first = &wrong[..wrong.len().min(10)];
    assert!(wrong.is_empty(), "{} disagreements, such as\n{}", wrong.len(), first.join("\n"));
    // Or the cases are not what they should be.
    let rare = [Limit::NativeWireMalformed];
    for limit in ALL_LIMITS.iter().filter(|limit| !rare.contains(limit) && count >= CASES) {
        assert!(met.contains_key(limit), "{limit:?} was never met: {met:?}");
    }
}

const ALL_LIMITS: [Limit; 11] = [
    Limit::NameNotUtf8,
    Limit::NameEmpty,
    Limit::NameOver255Bytes,
    Limit::AddressNot4Or16Bytes,
    Limit::AddressOfNoNode,
    Limit::MetaOver512BytesOnAStream,
    Limit::Over4096Values,
    Limit::ObjectOver128KibOnAStream,
    Limit::NestedDeeperThan8,
    Limit::InflatedOver65507BytesInAPacket,
    Limit::NativeWireMalformed,
];

/// What Go memberlist wrote once, a type byte in front of what has none.
fn vectors() -> Vec<Vec<u8>> {
    let mut vectors = Vec::new();
    for file in ["messages", "framing", "packets", "streams", "decode"] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/hashicorp");
        let text = fs::read_to_string(format!("{folder}/{file}.json")).unwrap();
        for vector in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
            let mut bytes = limits::from_hex(&vector["hex"]);
            if let Some(kind) = kind_of(vector["inputs"]["struct"].as_str().unwrap_or_default()) {
                bytes.insert(0, kind);
            }
            if bytes.len() < 4096 {
                vectors.push(bytes);
            }
        }
    }
    vectors
}

fn kind_of(message: &str) -> Option<u8> {
    let kinds = [("ping", 0), ("indirectPingReq", 1), ("ackResp", 2), ("suspect", 3), ("alive", 4)];
    kinds.iter().find(|(name, _)| *name == message).map(|(_, kind)| *kind)
}

fn check_batch(mut cases: Cases, met: &mut Met, wrong: &mut Vec<String>) {
    let cases: Vec<(&str, Vec<u8>)> = (0..BATCH).map(|_| cases.next()).collect();
    for ((kind, bytes), leaves) in cases.iter().zip(go_peer::decode(&cases)) {
        let go = leaves.as_array().unwrap();
        let result = match *kind {
            "packet" => check_packet(bytes, go, met),
            _ => check_stream(bytes, &go[0], met),
        };
        if let Err(what) = result {
            let go: String = leaves.to_string().chars().take(2_000).collect();
            let bytes: String = hex(bytes).chars().take(4_000).collect();
            wrong.push(format!("{kind} {bytes}\n  Go: {go}\n  {what}"));
        }
    }
}

/// Whether Go refuses it. Where it panics, nobody could have read it.
fn is_refused(leaf: &Value) -> bool {
    leaf.get("error").is_some() || leaf.get("panic").is_some()
}

/// Compares the bodies field by field.
fn check_bodies(walk: &Walk, go: &[Value], met: &mut Met) -> Result<bool, String> {
    let same = |ours: &Value, go: &Value| match is_refused(go) {
        true => ours["type"] == go["type"] && is_refused(ours),
        false => ours == go,
    };
    if walk.leaves.len() == go.len() && walk.leaves.iter().zip(go).all(|(a, b)| same(a, b)) {
        return Ok(true);
    }
    // The only limits of bodies as such.
    let limit = match walk.too_many_values {
        true => Limit::Over4096Values,
        false if walk.names_native_wire => Limit::NativeWireMalformed,
        false => return Err(format!("ours, as bodies: {}", json!(walk.leaves))),
    };
    *met.entry(limit).or_default() += 1;
    Ok(false)
}

fn check_packet(bytes: &[u8], go: &[Value], met: &mut Met) -> Result<(), String> {
    let walk = Walk::packet(bytes);
    if !check_bodies(&walk, go, met)? {
        return Ok(());
    }
    let mut ours: Vec<Result<Value, String>> = Vec::new();
    let mut reader = PacketReader::default();
    match reader.read(WireFormat::Hashicorp, bytes) {
        Ok(packet) => packet.for_each(|part| {
            ours.push(
                part.map(|part| limits::of_message(&part)).map_err(|error| error.to_string()),
            );
        }),
        Err(error) => ours.push(Err(error.to_string())),
    }
    let refused = |words: &str| ours.iter().any(|part| matches!(part, Err(e) if e.contains(words)));
    for (over, limit, words) in [
        (walk.nesting > MAX_NESTING, Limit::NestedDeeperThan8, "nested too deep"),
        (
            walk.inflated > MAX_INFLATED_BYTES,
            Limit::InflatedOver65507BytesInAPacket,
            "over the limit",
        ),
    ] {
        if over {
            *met.entry(limit).or_default() += 1;
            // One limit hides the other.
            return match refused(words) || walk.nesting > MAX_NESTING {
                true => Ok(()),
                false => Err(format!("{limit:?} is not kept: {ours:?}")),
            };
        }
    }
    let mut expected = Vec::new();
    for leaf in go {
        match leaf["truncated"].as_u64() {
            // Each part that is cut off counts.
            Some(parts) => (0..parts).for_each(|_| expected.push(Err(()))),
            None if is_refused(leaf) => expected.push(Err(())),
            None => expected.push(limits::in_packet(leaf).map_err(|limit| {
                *met.entry(limit).or_default() += 1;
            })),
        }
    }
    let same = |(ours, go): (&Result<Value, String>, &Result<Value, ()>)| {
        ours.as_ref().ok() == go.as_ref().ok()
    };
    match ours.len() == expected.len() && ours.iter().zip(&expected).all(same) {
        true => Ok(()),
        false => Err(format!("ours: {ours:?}")),
    }
}

fn check_stream(bytes: &[u8], go: &Value, met: &mut Met) -> Result<(), String> {
    let walk = Walk::stream(bytes);
    if !check_bodies(&walk, std::slice::from_ref(go), met)? {
        return Ok(());
    }
    let whole = read_stream(&[bytes]);
    // However it comes in pieces.
    let half = bytes.split_at(bytes.len() / 2);
    let pieces = read_stream(&[half.0, half.1]);
    if whole.as_ref().ok() != pieces.as_ref().ok() {
        return Err(format!("at once {whole:?}, in pieces {pieces:?}"));
    }
    if walk.object_too_long {
        *met.entry(Limit::ObjectOver128KibOnAStream).or_default() += 1;
        return whole.err().map(drop).ok_or_else(|| "an object is too long".to_owned());
    }
    let mut refused = |limit| *met.entry(limit).or_default() += 1;
    let expected = match is_refused(go) {
        true => Err(()),
        false => limits::in_stream(go, &mut refused).map_err(&mut refused),
    };
    match (&whole, &expected) {
        (Ok(ours), Ok(expected)) if ours == expected => Ok(()),
        (Err(_), Err(())) => Ok(()),
        _ => Err(format!("ours: {whole:?}, expected {expected:?}")),
    }
}

fn read_stream(pieces: &[&[u8]]) -> Result<Value, String> {
    let limits = StreamLimits::default();
    let mut reader = MessageReader::new(WireFormat::Hashicorp, limits, DEFAULT_PORT);
    for piece in pieces {
        reader.push(piece);
        match reader.next_item().map_err(|error| error.to_string())? {
            Some(StreamItem::Unknown(kind)) => return Err(format!("unknown {kind}")),
            Some(item) => return Ok(limits::of_item(&item)),
            None => {}
        }
    }
    reader.finish().map_err(|error| error.to_string())?;
    Err("it was empty".to_owned())
}
