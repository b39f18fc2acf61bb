//! Packets through the machine, and its queue of broadcasts.

use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion};
use memberlist::protocol::message::{Ack, Message, Ping, PingSource};
use memberlist::protocol::wire::{PacketReader, PacketWriter};
use memberlist::protocol::{Dialect, Membership, Peer, Priority, Relation, WireFormat};

use crate::support::{FORMATS, ROOM, addr, drain_into, machine, name, peer, updates};

const MEMBERS: usize = 200;
const NEW_PACKETS: usize = 50;

fn ping(dialect: Dialect) -> Vec<u8> {
    let (mut buf, own, from) = (Vec::new(), name(0), name(1));
    let source = Some(PingSource { node: &from, addr: addr(1) });
    let mut writer = PacketWriter::new(&mut buf, dialect, true, ROOM);
    assert!(writer.push(&Message::Ping(Ping { sequence: 7, node: &own, source, native: false })));
    writer.finish();
    buf
}

/// To whom the next packet is to be sent, and the number of the ping in it.
fn next_packet(machine: &mut Membership, packet: &mut Vec<u8>) -> Option<(Peer, Option<u32>)> {
    let to = machine.poll_transmit(packet, &mut |_| ROOM)?.to;
    let mut sequence = None;
    let mut reader = PacketReader::default();
    let read = reader.read(WireFormat::Native, packet).expect("a packet");
    read.for_each(|message| {
        if let Ok(Message::Ping(ping)) = message {
            sequence = Some(ping.sequence);
        }
    });
    Some((to, sequence))
}

fn write_ack(sequence: u32, buf: &mut Vec<u8>) {
    let mut writer = PacketWriter::new(buf, Dialect::Native, true, ROOM);
    assert!(writer.push(&Message::Ack(Ack { sequence, payload: b"", native: false })));
    writer.finish();
}

pub(crate) fn packets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine of 200");
    let now = Instant::now();
    for (what, format, dialect) in FORMATS {
        let (mut machine, ping) = (machine(format, MEMBERS, now), ping(dialect));
        let mut packet = Vec::with_capacity(2000);
        group.bench_function(BenchmarkId::new("ping in, ack out", what), |bencher| {
            bencher.iter(|| {
                machine.handle_packet(&peer(1), &ping, now).expect("a packet");
                assert_eq!(drain_into(&mut machine, &mut packet), 1);
            });
        });
        let known = updates(dialect, 1..21, 1);
        group.bench_function(BenchmarkId::new("20 known updates", what), |bencher| {
            bencher.iter(|| {
                machine.handle_packet(&peer(1), &known, now).expect("a packet");
                drain_into(&mut machine, &mut packet);
            });
        });
        let new: Vec<_> = (0..NEW_PACKETS)
            .map(|at| MEMBERS + 20 * at)
            .map(|first| updates(dialect, first..first + 20, 1))
            .collect();
        group.bench_function(BenchmarkId::new("50 packets of 20 new members", what), |bencher| {
            // A machine each, since they are new but once. So many, since tables grow in steps.
            bencher.iter_batched(
                || crate::support::machine(format, MEMBERS, now),
                |mut machine| {
                    for packet in &new {
                        machine.handle_packet(&peer(1), packet, now).expect("a packet");
                        while machine.poll_event().is_some() {}
                    }
                    machine
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("probe: tick, ping out, ack in", |bencher| {
        let mut machine = machine(WireFormat::Native, MEMBERS, now);
        let (mut packet, mut ack, mut at) = (Vec::with_capacity(2000), Vec::new(), now);
        bencher.iter(|| {
            at += Duration::from_secs(1);
            machine.handle_timeout(at);
            while let Some((to, ping)) = next_packet(&mut machine, &mut packet) {
                if let Some(sequence) = ping {
                    write_ack(sequence, &mut ack);
                    machine.handle_packet(&to, &ack, at).expect("a packet");
                }
            }
            drain_into(&mut machine, &mut packet);
        });
        assert_eq!(machine.health_score(), 0);
    });
    group.finish();
}

pub(crate) fn broadcast_queue(criterion: &mut Criterion) {
    const QUEUED: u32 = 10_000;
    const PER_PACKET: u32 = 20;
    let mut group = criterion.benchmark_group("broadcast queue of 10,000");
    let now = Instant::now();
    let mut queued = machine(WireFormat::Native, MEMBERS, now);
    let mut config = queued.config().clone();
    config.max_user_broadcasts = QUEUED as usize;
    queued.reconfigure(config, now).expect("the settings");
    let broadcast = |machine: &mut Membership, number: u32| {
        let payload = format!("a broadcast of some length, number {number:06}");
        let queued = machine.broadcast(payload.as_bytes(), Relation::Unique, Priority::Normal, now);
        queued.expect("it fits");
    };
    (0..QUEUED).for_each(|number| broadcast(&mut queued, number));
    group.bench_function("one more, and the oldest out", |bencher| {
        let mut number = QUEUED;
        bencher.iter(|| {
            number += 1;
            broadcast(&mut queued, number);
        });
    });
    let (ping, mut packet) = (ping(Dialect::Native), Vec::with_capacity(2000));
    group.bench_function("a packet filled from it", |bencher| {
        let mut number = 10 * QUEUED;
        bencher.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                // New ones in place of those that have been sent often enough.
                for _ in 0..PER_PACKET {
                    number += 1;
                    broadcast(&mut queued, number);
                }
                queued.handle_packet(&peer(1), &ping, now).expect("a packet");
                let began = Instant::now();
                // The ack, which carries as many as fit.
                assert!(queued.poll_transmit(&mut packet, &mut |_| ROOM).is_some());
                took += began.elapsed();
                assert!(packet.len() > 100, "many, alike, and compressed");
            }
            took
        });
    });
    group.finish();
}
