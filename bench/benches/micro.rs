//! The parts of a node one by one: codec, layers, machine, member table, queue, published view, driver.
//!
//! Name a group to run only that: `cargo bench -p memberlist-bench --bench micro -- table`.
#![allow(missing_docs)]

#[path = "micro/codec.rs"]
mod codec;
#[path = "micro/layers.rs"]
mod layers;
#[path = "micro/machine.rs"]
mod machine;
#[path = "micro/node.rs"]
mod node;
#[path = "micro/support.rs"]
mod support;
#[path = "micro/table.rs"]
mod table;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
}

criterion_group! {
    name = benches;
    config = settings();
    targets = codec::packets, codec::push_pulls, layers::layers, machine::packets,
        machine::broadcast_queue, table::lookups, table::merges, node::published_view,
        node::round_trip
}
criterion_main!(benches);
