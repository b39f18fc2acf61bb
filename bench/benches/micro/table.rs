//! The member table, small and large.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use memberlist::protocol::wire::stream::{RemoteRecord, RemoteState};
use memberlist::protocol::{Membership, NodeState, WireFormat};

use crate::support::{drain, machine, name, node, peer};

const SIZES: [usize; 3] = [100, 10_000, 100_000];

pub(crate) fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    let now = Instant::now();
    for members in SIZES {
        let mut machine = machine(WireFormat::Native, members, now);
        let names: Vec<_> = (0..members).map(|i| name(i * 7919 % members)).collect();
        let mut next = names.iter().cycle();
        group.bench_function(BenchmarkId::new("lookup", members), |bencher| {
            bencher.iter(|| machine.member(next.next().expect("a name")).is_some());
        });
        group.bench_function(BenchmarkId::new("three at random", members), |bencher| {
            bencher.iter(|| black_box(machine.testing_random(3)));
        });
        group.bench_function(BenchmarkId::new("next to probe", members), |bencher| {
            bencher.iter(|| black_box(machine.testing_next_to_probe(now)));
        });
    }
    group.finish();
}

/// The state of a peer that knows so many, one incarnation later or not.
fn state(members: usize, incarnation: u32) -> RemoteState {
    let record = |number| RemoteRecord {
        node: (*node(number)).clone(),
        incarnation,
        state: NodeState::Alive,
    };
    RemoteState { nodes: (0..members).map(record).collect(), ..RemoteState::default() }
}

fn merge(machine: &mut Membership, state: RemoteState, now: Instant) {
    machine.finish_push_pull(peer(1), Some(state), now);
    machine.testing_merge_all(now);
}

pub(crate) fn merges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge of a push/pull");
    group.sample_size(10);
    let now = Instant::now();
    for members in SIZES {
        group.throughput(Throughput::Elements(members as u64));
        let (mut all_known, known) = (machine(WireFormat::Native, members, now), state(members, 1));
        group.bench_function(BenchmarkId::new("all known", members), |bencher| {
            bencher.iter_batched(
                || known.clone(),
                |state| merge(&mut all_known, state, now),
                BatchSize::LargeInput,
            );
        });
        drain(&mut all_known);
        group.bench_function(BenchmarkId::new("all new", members), |bencher| {
            bencher.iter_batched(
                || (machine(WireFormat::Native, 1, now), known.clone()),
                |(mut machine, state)| {
                    merge(&mut machine, state, now);
                    machine
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}
