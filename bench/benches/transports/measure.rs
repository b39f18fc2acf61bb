//! The measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memberlist::protocol::message::{Alive, Message};
use memberlist::protocol::wire::{PacketWriter, Room};
use memberlist::protocol::{Dialect, Versions};
use memberlist::quic::QuicTransport;
use memberlist::transport::Destination;
use memberlist::{Config, Transport};

use crate::node::{BenchTransport, pair, quiet, start};

pub(crate) const BULK_BYTES: usize = 50_000_000;
/// The largest reliable message is 20 MiB.
const BULK_PIECE_BYTES: usize = BULK_BYTES / 3;
const PINGS: usize = 3000;
const PACKET_BYTES: usize = 1100;
const MEASURED: Duration = Duration::from_secs(3);
const CLUSTER: usize = 50;
const MEMBERS: usize = 1000;
const JOINS: usize = 15;

pub(crate) struct Times {
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) count: usize,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        Self { median: at(50), p99: at(99), count: times.len() }
    }
}

/// Pings one after the other, alone or while that much is on its way to the same node.
pub(crate) async fn ping<T: BenchTransport>(bulk: Option<usize>) -> Times {
    let [a, b] = pair::<T>().await;
    for _ in 0..100 {
        a.ping("b").await.expect("a warm-up ping");
    }
    let sent = Arc::new(AtomicBool::new(bulk.is_none()));
    if bulk.is_some() {
        let (a, sent) = (a.clone(), Arc::clone(&sent));
        tokio::spawn(async move {
            let piece = vec![7; BULK_PIECE_BYTES];
            for _ in 0..3 {
                a.send_reliable("b", piece.clone()).await.expect("the bulk");
            }
            sent.store(true, Ordering::Relaxed);
        });
    }
    let mut times = Vec::new();
    while match bulk {
        Some(_) => !sent.load(Ordering::Relaxed),
        None => times.len() < PINGS,
    } {
        times.push(a.ping("b").await.expect("a ping"));
    }
    a.shutdown().await;
    b.shutdown().await;
    Times::of(times)
}

/// Packets a second that arrive when one sender goes as fast as it can.
pub(crate) async fn packets<T: BenchTransport>() -> f64 {
    let (from, to) = (<T as BenchTransport>::bind(), <T as BenchTransport>::bind());
    let (from, addr) = (Arc::new(from), Destination::from(to.advertise_addr()));
    let (over, sender) = (Arc::new(AtomicBool::new(false)), Arc::clone(&from));
    let sending = {
        let over = Arc::clone(&over);
        tokio::spawn(async move {
            let packet = [7; PACKET_BYTES];
            let mut sent = 0_u32;
            while !over.load(Ordering::Relaxed) {
                // One that is not taken is lost, like others on their way.
                let _ = sender.send_packet(&addr, &packet).await;
                sent += 1;
                if sent % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    let mut buf = vec![0; 65_536];
    let mut receive = async || {
        std::future::poll_fn(|cx| to.poll_recv_packet(cx, &mut buf)).await.expect("a packet");
    };
    receive().await;
    let (began, mut received) = (Instant::now(), 0_u32);
    while began.elapsed() < MEASURED {
        receive().await;
        received += 1;
    }
    let rate = f64::from(received) / began.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    let _ = sending.await;
    from.close().await;
    to.close().await;
    rate
}

/// Small reliable messages a second, so many at a time.
pub(crate) async fn messages<T: BenchTransport>(at_a_time: usize) -> f64 {
    let [a, b] = pair::<T>().await;
    let began = Instant::now();
    let senders: Vec<_> = (0..at_a_time)
        .map(|_| {
            let a = a.clone();
            tokio::spawn(async move {
                let mut sent = 0_u32;
                while began.elapsed() < MEASURED {
                    a.send_reliable("b", vec![7; 100]).await.expect("a message");
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    let mut sent = 0;
    for sender in senders {
        sent += sender.await.expect("a sender");
    }
    let rate = f64::from(sent) / began.elapsed().as_secs_f64();
    a.shutdown().await;
    b.shutdown().await;
    rate
}

/// Megabytes a second in large reliable messages.
pub(crate) async fn throughput<T: BenchTransport>() -> f64 {
    const PIECES: usize = 8;
    let [a, b] = pair::<T>().await;
    let piece = vec![7; 16_000_000];
    a.send_reliable("b", piece.clone()).await.expect("a warm-up");
    let began = Instant::now();
    for _ in 0..PIECES {
        a.send_reliable("b", piece.clone()).await.expect("a message");
    }
    let rate = (PIECES * piece.len()) as f64 / 1e6 / began.elapsed().as_secs_f64();
    a.shutdown().await;
    b.shutdown().await;
    rate
}

/// The time of a join of a node that knows 1,000 members, by nodes that know nobody.
pub(crate) async fn push_pull<T: BenchTransport>() -> Duration {
    let (seed, _) = start::<T>(quiet("seed")).await;
    let stranger = <T as BenchTransport>::bind();
    let to = Destination::from(seed.addr());
    for first in (0..MEMBERS - 1).step_by(10) {
        stranger.send_packet(&to, &introduction(first)).await.expect("news");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while seed.member_count() < MEMBERS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut times = Vec::new();
    for i in 0..JOINS {
        let (joiner, _) = start::<T>(quiet(&format!("joiner{i}"))).await;
        let began = Instant::now();
        joiner.join([seed.addr().to_string()]).await.expect("the join");
        times.push(began.elapsed());
        assert!(joiner.member_count() >= MEMBERS);
        joiner.shutdown().await;
    }
    seed.shutdown().await;
    stranger.close().await;
    Times::of(times).median
}

/// News of ten members at addresses where nobody is.
fn introduction(first: usize) -> Vec<u8> {
    let names: Vec<String> = (first..first + 10).map(|i| format!("member-{i:04}")).collect();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 1150 };
    let mut buf = Vec::new();
    let mut writer = PacketWriter::new(&mut buf, Dialect::Native, true, room);
    for (i, node) in (first..).zip(&names) {
        let addr = ([10, 9, (i >> 8) as u8, i as u8], 7946).into();
        let (meta, versions) = (&b"some meta of a member"[..], Versions::default());
        let alive = Alive { incarnation: 1, node, addr, wide_ipv4: false, meta, versions };
        assert!(writer.push(&Message::Alive(alive)));
    }
    writer.finish();
    buf
}

/// The processor time in milliseconds a second that each node of an idle cluster takes.
pub(crate) async fn idle<T: BenchTransport>() -> f64 {
    const WATCHED: Duration = Duration::from_secs(20);
    let mut nodes = Vec::new();
    for i in 0..CLUSTER {
        nodes.push(start::<T>(Config::lan(format!("n{i}"))).await);
    }
    let seed = nodes[0].0.addr().to_string();
    for (node, _) in &nodes[1..] {
        node.join([seed.as_str()]).await.expect("the join");
    }
    while nodes.iter().any(|(node, _)| node.member_count() < CLUSTER) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // News is spread, connections are made.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = processor_time();
    tokio::time::sleep(WATCHED).await;
    let spent = processor_time() - before;
    for (node, _) in nodes {
        node.shutdown().await;
    }
    spent.as_secs_f64() * 1e3 / WATCHED.as_secs_f64() / CLUSTER as f64
}

/// Bytes that each end of a connection takes: of a mesh, against the same transports before it.
pub(crate) async fn memory_per_connection() -> f64 {
    const TRANSPORTS: usize = 40;
    let transports: Vec<_> =
        (0..TRANSPORTS).map(|_| <QuicTransport as BenchTransport>::bind()).collect();
    // The first connections, so that what each transport allocates once is there.
    for pair in transports.chunks(2) {
        meet(&pair[0], &pair[1]).await;
    }
    let ends = |all: &[QuicTransport]| all.iter().map(|t| t.connections().len()).sum::<usize>();
    let (before, few) = (resident_bytes(), ends(&transports));
    for (i, from) in transports.iter().enumerate() {
        for to in &transports[i + 1..] {
            meet(from, to).await;
        }
    }
    let (after, many) = (resident_bytes(), ends(&transports));
    for transport in &transports {
        transport.close().await;
    }
    (after - before) / (many - few) as f64
}

/// Both send, so that each has heard the other.
async fn meet(a: &QuicTransport, b: &QuicTransport) {
    for (from, to) in [(a, b), (b, a)] {
        let sent = from.send_packet(&to.advertise_addr().into(), b"hello").await;
        sent.expect("a packet");
        let mut buf = [0; 65_536];
        std::future::poll_fn(|cx| to.poll_recv_packet(cx, &mut buf)).await.expect("it arrives");
    }
}

fn resident_bytes() -> f64 {
    field("/proc/self/status", "VmRSS:").map_or(f64::NAN, |kib| kib * 1024.0)
}

fn field(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// User and system time of this process so far, in the hundredths of a second that Linux counts in.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold spaces; the times are fields 14 and 15 of the line.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
