//! What a running node adds to its machine: the published view, and its task.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion};
use memberlist::memory::MemoryNetwork;
use memberlist::protocol::WireFormat;
use memberlist::testing::PublishedView;
use memberlist::{Builder, Config};

use crate::support::machine;

pub(crate) fn published_view(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("published view");
    for members in [100, 10_000] {
        let all: Vec<_> = machine(WireFormat::Native, members, Instant::now()).members().collect();
        let view = PublishedView::default();
        all.iter().for_each(|member| view.update(member.clone()));
        let mut next = all.iter().cycle();
        group.bench_function(BenchmarkId::new("one member changes", members), |bencher| {
            bencher.iter(|| view.update(next.next().expect("a member").clone()));
        });
        group.bench_function(BenchmarkId::new("a change, and the list", members), |bencher| {
            bencher.iter(|| {
                view.update(next.next().expect("a member").clone());
                black_box(view.members())
            });
        });
        group.bench_function(BenchmarkId::new("the list again", members), |bencher| {
            bencher.iter(|| black_box(view.members()));
        });
    }
    group.finish();
}

/// A ping by hand: command, packet, the other node's task, packet, answer. No socket is in it.
pub(crate) fn round_trip(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (from, _to) = runtime.block_on(async {
        let network = MemoryNetwork::new(1);
        let start = async |name: &str, addr: &str| {
            let mut config = Config::lan(name);
            config.protocol.probe_interval = std::time::Duration::ZERO;
            let transport = network.bind(addr.parse().expect("an address")).expect("it is free");
            Builder::new(config).start(transport).await.expect("the settings")
        };
        let from = start("a", "10.0.0.1:7946").await;
        let to = start("b", "10.0.0.2:7946").await;
        from.join(["10.0.0.2:7946"]).await.expect("the join");
        (from, to)
    });
    criterion.bench_function("driver: ping by hand over the memory network", |bencher| {
        bencher.iter(|| runtime.block_on(from.ping("b")).expect("an answer"));
    });
}
