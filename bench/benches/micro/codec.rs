//! Packets and push/pulls in both formats.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion};
use memberlist::protocol::message::{Ack, Message, Ping, PingSource};
use memberlist::protocol::wire::stream::{
    FrameNumber, MessageFrames, MessageReader, PushPullStart, SnapshotRecord, StreamLimits,
    preamble,
};
use memberlist::protocol::wire::{PacketReader, PacketWriter};
use memberlist::protocol::{Dialect, WireFormat};

use crate::support::{FORMATS, ROOM, addr, machine, node, updates, write_updates};

/// Updates in a packet, and members in a push/pull.
const UPDATES: usize = 20;
const MEMBERS: usize = 1000;

pub(crate) fn packets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for (name, format, dialect) in FORMATS {
        let mut buf = Vec::with_capacity(2000);
        group.bench_function(BenchmarkId::new("encode ping", name), |bencher| {
            bencher.iter(|| write_ping(dialect, black_box(&mut buf)));
        });
        let mut buf = Vec::with_capacity(2000);
        group.bench_function(BenchmarkId::new("encode ack", name), |bencher| {
            bencher.iter(|| {
                let ack = Ack { sequence: 7, payload: b"", native: false };
                write(dialect, black_box(&mut buf), &[Message::Ack(ack)]);
            });
        });
        group.bench_function(BenchmarkId::new("encode 20 updates", name), |bencher| {
            let nodes: Vec<_> = (0..UPDATES).map(node).collect();
            let mut buf = Vec::with_capacity(2500);
            bencher.iter(|| write_updates(dialect, black_box(&nodes), 1, &mut buf));
        });
        let mut ping = Vec::new();
        write_ping(dialect, &mut ping);
        for (what, packet) in [("ping", ping), ("20 updates", updates(dialect, 0..UPDATES, 1))] {
            let mut reader = PacketReader::default();
            group.bench_function(BenchmarkId::new(format!("decode {what}"), name), |bencher| {
                bencher.iter(|| {
                    let mut read = 0;
                    let packet = reader.read(format, black_box(&packet)).expect("a packet");
                    packet.for_each(|message| read += usize::from(message.is_ok()));
                    assert!(read > 0);
                });
            });
        }
    }
    group.finish();
}

fn write(dialect: Dialect, buf: &mut Vec<u8>, messages: &[Message<'_>]) {
    let mut writer = PacketWriter::new(buf, dialect, true, ROOM);
    for message in messages {
        assert!(writer.push(message));
    }
    writer.finish();
}

fn write_ping(dialect: Dialect, buf: &mut Vec<u8>) {
    let source = Some(PingSource { node: "node-000001", addr: addr(1) });
    let ping = Ping { sequence: 7, node: "node-000002", source, native: false };
    write(dialect, buf, &[Message::Ping(ping)]);
}

pub(crate) fn push_pulls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec push/pull of 1,000");
    for (name, format, dialect) in FORMATS {
        for compressed in [false, true] {
            let how = if compressed { "compressed" } else { "plain" };
            let records: Arc<[SnapshotRecord]> =
                machine(format, MEMBERS, Instant::now()).local_state().into();
            let id = BenchmarkId::new(format!("encode {how}"), name);
            group.bench_function(id, |bencher| {
                bencher.iter(|| state(dialect, Arc::clone(black_box(&records)), compressed));
            });
            let bytes = state(dialect, records, compressed);
            group.bench_function(BenchmarkId::new(format!("decode {how}"), name), |bencher| {
                bencher.iter(|| read(format, black_box(&bytes)));
            });
        }
    }
    group.finish();
}

fn state(dialect: Dialect, records: Arc<[SnapshotRecord]>, compressed: bool) -> Vec<u8> {
    let start = PushPullStart { from: node(0).id.clone(), to: None, join: true };
    let frames = MessageFrames::push_pull(dialect, start, records, Bytes::new());
    let (mut frames, mut number) = (frames.compressed(compressed), FrameNumber::default());
    let mut out = Vec::new();
    preamble(dialect, &mut out);
    while frames.next_record(&mut number, &mut out) {}
    out
}

fn read(format: WireFormat, bytes: &[u8]) {
    let mut reader = MessageReader::new(format, StreamLimits::default(), 7946);
    reader.push(bytes);
    let item = reader.next_item().expect("a push/pull");
    assert!(item.is_some(), "the whole of it has arrived");
}
