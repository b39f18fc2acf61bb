//! What a transport costs: UDP + TCP beside QUIC, the same work over both.
//!
//! Each figure is of one process on loopback, so both ends compete for the same cores; compare the two
//! columns of one run. Name parts of the table to run only those: `-- ping bulk`.
#![allow(missing_docs, clippy::print_stdout)]

#[path = "transports/measure.rs"]
mod measure;
#[path = "transports/node.rs"]
mod node;

use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::quic::QuicTransport;

use crate::node::BenchTransport;

/// A row of the table.
struct Row {
    what: &'static str,
    unit: &'static str,
    /// Over UDP + TCP, and over QUIC.
    values: [f64; 2],
}

impl Row {
    fn print(&self) {
        let [net, quic] = self.values;
        let ratio = quic / net;
        println!("{:<44} {net:>10.3} {quic:>10.3} {ratio:>7.2}  {}", self.what, self.unit);
    }
}

/// Which transport is measured.
async fn both<A, B>(net: A, quic: B) -> [A::Output; 2]
where
    A: Future,
    B: Future<Output = A::Output>,
{
    [net.await, quic.await]
}

fn row(what: &'static str, unit: &'static str, values: [f64; 2]) {
    Row { what, unit, values }.print();
}

fn millis([net, quic]: [Duration; 2]) -> [f64; 2] {
    [net, quic].map(|time| time.as_secs_f64() * 1e3)
}

async fn ping() {
    let [net, quic] =
        both(measure::ping::<NetTransport>(None), measure::ping::<QuicTransport>(None)).await;
    row("ping RTT, idle, median", "ms", millis([net.median, quic.median]));
    row("ping RTT, idle, 99 %", "ms", millis([net.p99, quic.p99]));
}

async fn bulk() {
    let bulk = Some(measure::BULK_BYTES);
    let [net, quic] =
        both(measure::ping::<NetTransport>(bulk), measure::ping::<QuicTransport>(bulk)).await;
    row("ping RTT beside 50 MB, median", "ms", millis([net.median, quic.median]));
    row("ping RTT beside 50 MB, 99 %", "ms", millis([net.p99, quic.p99]));
    row("  pings meanwhile", "", [net.count as f64, quic.count as f64]);
}

async fn packets() {
    let values =
        both(measure::packets::<NetTransport>(), measure::packets::<QuicTransport>()).await;
    row("packets of 1,100 bytes received", "1/s", values);
}

async fn messages() {
    let values =
        both(measure::messages::<NetTransport>(1), measure::messages::<QuicTransport>(1)).await;
    row("reliable messages of 100 bytes, one by one", "1/s", values);
    let values =
        both(measure::messages::<NetTransport>(16), measure::messages::<QuicTransport>(16)).await;
    row("reliable messages of 100 bytes, 16 at a time", "1/s", values);
    let values =
        both(measure::throughput::<NetTransport>(), measure::throughput::<QuicTransport>()).await;
    row("reliable messages of 16 MB", "MB/s", values);
}

async fn push_pull() {
    let values =
        both(measure::push_pull::<NetTransport>(), measure::push_pull::<QuicTransport>()).await;
    row("join of a cluster of 1,000, median", "ms", millis(values));
}

async fn idle() {
    let values = both(measure::idle::<NetTransport>(), measure::idle::<QuicTransport>()).await;
    row("50 nodes idle, processor time of each", "ms/s", values);
}

async fn memory() {
    let bytes = measure::memory_per_connection().await;
    println!(
        "{:<44} {:>10} {:>10.1} {:>7}  KiB",
        "memory of a QUIC connection, each end",
        "-",
        bytes / 1024.0,
        "-"
    );
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    println!("{:<44} {:>10} {:>10} {:>7}", "", "net", "quic", "ratio");
    let run = |part: &str, work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        if is_wanted(part) {
            // A runtime each, so that nothing of one part goes on in the next.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(work);
        }
    };
    // First, while the process is small.
    run("memory", Box::pin(memory()));
    run("ping", Box::pin(ping()));
    run("bulk", Box::pin(bulk()));
    run("packets", Box::pin(packets()));
    run("messages", Box::pin(messages()));
    run("push_pull", Box::pin(push_pull()));
    run("idle", Box::pin(idle()));
}

/// Every transport of the table is one of these.
const _: fn() = || {
    fn is_measured<T: BenchTransport>() {}
    is_measured::<NetTransport>();
    is_measured::<QuicTransport>();
};
