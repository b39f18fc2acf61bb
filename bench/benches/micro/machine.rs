//! Packets through the machine, and its queue of broadcasts.

use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion};
use memberlist::protocol::message::{Message, Ping, PingSource};
use memberlist::protocol::wire::PacketWriter;
use memberlist::protocol::{Dialect, Priority, Relation, WireFormat};

use crate::support::{FORMATS, ROOM, addr, drain_into, machine, name, peer, updates};

const MEMBERS: usize = 200;

fn ping(dialect: Dialect) -> Vec<u8> {
    let (mut buf, own, from) = (Vec::new(), name(0), name(1));
    let source = Some(PingSource { node: &from, addr: addr(1) });
    let mut writer = PacketWriter::new(&mut buf, dialect, true, ROOM);
    assert!(writer.push(&Message::Ping(Ping { sequence: 7, node: &own, source, native: false })));
    writer.finish();
    buf
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
        let new = updates(dialect, MEMBERS..MEMBERS + 20, 1);
        group.bench_function(BenchmarkId::new("20 new members", what), |bencher| {
            // A machine each, since they are new but once.
            bencher.iter_batched(
                || crate::support::machine(format, MEMBERS, now),
                |mut machine| {
                    machine.handle_packet(&peer(1), &new, now).expect("a packet");
                    machine
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("probe tick", |bencher| {
        let mut machine = machine(WireFormat::Native, MEMBERS, now);
        let (mut packet, mut at) = (Vec::with_capacity(2000), now);
        bencher.iter(|| {
            at += Duration::from_secs(1);
            machine.handle_timeout(at);
            drain_into(&mut machine, &mut packet);
        });
    });
    group.finish();
}

pub(crate) fn broadcast_queue(criterion: &mut Criterion) {
    const QUEUED: u32 = 10_000;
    let mut group = criterion.benchmark_group("broadcast queue of 10,000");
    let now = Instant::now();
    let mut queued = machine(WireFormat::Native, MEMBERS, now);
    let mut config = queued.config().clone();
    config.max_user_broadcasts = QUEUED as usize;
    queued.reconfigure(config, now).expect("the settings");
    let broadcast = |machine: &mut memberlist::protocol::Membership, number: u32| {
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
        bencher.iter(|| {
            queued.handle_packet(&peer(1), &ping, now).expect("a packet");
            // The ack, which carries as many as fit.
            assert!(queued.poll_transmit(&mut packet, &mut |_| ROOM).is_some());
            assert!(packet.len() > 1000);
            while queued.poll_event().is_some() {}
        });
    });
    group.finish();
}
