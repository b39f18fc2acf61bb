//! A node whose metrics Prometheus can read.
//!
//! The library writes to whatever recorder the node is given; here it is one of the node's own, of the
//! crate `metrics-exporter-prometheus`, and a page at `/metrics` shows what is in it.
//!
//! ```text
//! cargo run --example prometheus
//! cargo run --example prometheus -- --serve 127.0.0.1:9100
//! ```
//!
//! The first starts two nodes on loopback, reads the page as Prometheus would, shows a few lines of it
//! and ends. The second stays: `scrape_configs: [{job_name: memberlist, static_configs: [{targets:
//! ["127.0.0.1:9100"]}]}]`. A dashboard and alerts for these metrics are in `docs`.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use clap::Parser;
use memberlist::metrics::{CATALOGUE, MetricKind, Metrics};
use memberlist::net::NetTransport;
use memberlist::{Config, Memberlist};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, sleep};

type Failure = Box<dyn Error + Send + Sync>;

/// The upper bounds of buckets: seconds, and bytes.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
const BYTES: &[f64] = &[1024.0, 16384.0, 262_144.0, 4_194_304.0];
/// Measurements are sorted into buckets that often, whether anybody reads or not.
const UPKEEP: Duration = Duration::from_secs(5);
/// A bound for what takes a second, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(60);
/// What the demonstration looks for.
const SHOWN: [&str; 4] = [
    "memberlist_members{",
    "memberlist_health_score{",
    "memberlist_probe_rtt_count{",
    "memberlist_packets{",
];

/// A node whose metrics Prometheus can read.
#[derive(Parser)]
struct Args {
    /// Stay, with the metrics of one node at http://ADDR:PORT/metrics, for whoever can connect
    #[arg(long, value_name = "ADDR:PORT")]
    serve: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("FAILED: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let at = args.serve.unwrap_or(([127, 0, 0, 1], 0).into());
    let listener = TcpListener::bind(at).await?;
    let at = listener.local_addr()?;
    let (node, handle) = start("node-1").await?;
    let app = Router::new().route("/metrics", get(async move || handle.render()));
    let server = async { axum::serve(listener, app).await };
    say(&format!("metrics of {} at http://{at}/metrics", node.name()));
    if args.serve.is_some() {
        return Ok(server.await?);
    }
    tokio::select! {
        served = server => Ok(served?),
        shown = demonstrate(&node, at) => shown,
    }
}

/// Starts a node with a recorder of its own.
async fn start(name: &str) -> Result<(Memberlist<NetTransport>, PrometheusHandle), Failure> {
    // Prometheus tells nodes apart by these labels; no member ever is one.
    let mut builder = PrometheusBuilder::new()
        .add_global_label("node", name)
        .add_global_label("cluster", "example");
    for metric in CATALOGUE.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        let bytes = metric.unit == metrics::Unit::Bytes;
        let matcher = Matcher::Full(metric.name.to_owned());
        builder = builder.set_buckets_for_metric(matcher, if bytes { BYTES } else { SECONDS })?;
    }
    let recorder = builder.build_recorder();
    let (handle, upkeep) = (recorder.handle(), recorder.handle());
    tokio::spawn(async move {
        let mut ticks = interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });

    let mut config = Config::local(name);
    config.metrics = Metrics::default().with_recorder(recorder);
    let transport = NetTransport::bind_addr("127.0.0.1:0".parse()?)?;
    Ok((Memberlist::start(transport, config).await?, handle))
}

/// Lets a second node join, and reads the page until what it did is there.
async fn demonstrate(node: &Memberlist<NetTransport>, at: SocketAddr) -> Result<(), Failure> {
    let (other, _) = start("node-2").await?;
    other.join([node.addr().to_string()]).await?;
    let deadline = Instant::now() + BOUND;
    let complete = |page: &str| {
        page.lines().any(|line| line.starts_with(SHOWN[0]) && line.ends_with(" 2"))
            && page.lines().any(|line| line.starts_with(SHOWN[2]) && !line.ends_with(" 0"))
    };
    let page = loop {
        let page = fetch(at).await?;
        if complete(&page) {
            break page;
        }
        if Instant::now() > deadline {
            return Err("two members and a round trip are not on the page".into());
        }
        sleep(Duration::from_millis(100)).await;
    };
    let missing = CATALOGUE.iter().map(|metric| metric.name.replace('.', "_")).find(|name| {
        // Keys have metrics of their own where there are keys.
        !name.starts_with("memberlist_key_") && !page.contains(&format!("# TYPE {name} "))
    });
    if let Some(name) = missing {
        return Err(format!("{name} is documented and not on the page").into());
    }
    for line in page.lines().filter(|line| SHOWN.iter().any(|name| line.starts_with(name))) {
        say(line);
    }
    say(&format!("and {} lines more", page.lines().count()));
    node.shutdown().await;
    other.shutdown().await;
    Ok(())
}

/// Reads the page, in the simplest way that HTTP has.
async fn fetch(at: SocketAddr) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, page)) if head.contains(" 200 ") => Ok(page.to_owned()),
        _ => Err(format!("no page came: {answer}").into()),
    }
}

fn say(line: &str) {
    // There is nobody to tell if this fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}
