//! One long-lived node for a terminal or a script.
//!
//! ```text
//! cargo run --example agent -- --name a --bind 127.0.0.1:7946
//! cargo run --example agent -- --name b --bind 127.0.0.1:7947 --join 127.0.0.1:7946
//! cargo run --example agent -- keygen
//! ```
//!
//! Over QUIC every node shows a certificate; the files are watched, and used again when they change:
//!
//! ```text
//! cargo run --example agent -- certs --out certs --name a b
//! cargo run --example agent -- --name a --bind 127.0.0.1:7946 --transport quic --bind-name \
//!     --tls-cert certs/a.pem --tls-key certs/a.key --tls-ca certs/ca.pem
//! cargo run --example agent -- --name b --bind 127.0.0.1:7947 --transport quic --bind-name \
//!     --tls-cert certs/b.pem --tls-key certs/b.key --tls-ca certs/ca.pem --join 127.0.0.1:7946
//! ```
//!
//! With `--key` or `--keyring` it encrypts, and the commands `keys ...` show and change the keys of
//! the whole cluster; `--label` keeps clusters apart that could reach each other.
//!
//! With `--wire hashicorp` it takes part in a cluster of Go memberlist's nodes, such as a Serf pool.
//!
//! With `--http` it shows itself to browsers, live, and its metrics to Prometheus.
//!
//! It reads commands from standard input, one a line and one after another (`help` lists them), and
//! writes what happens and what it answers to standard output: aligned text, or with `--json` one
//! object a line. Logs go to standard error; `RUST_LOG` says which (default `warn`). The end of the
//! input leaves it running.
//!
//! It ends by `quit`, SIGINT or SIGTERM, after saying farewell to the cluster; a signal meanwhile
//! ends it at once. It ends as well when nobody reads its output any more. Exit status: 0 after a
//! farewell, 1 if it could not start or was ended at once, 2 for flags that cannot be used.
//!
//! What it shows of the library: a node over UDP and TCP or over QUIC, with certificates that change
//! while it runs, all events in order by a subscription, messages by a queue that holds senders back
//! while the output is slow, and an orderly end.

#[path = "agent/args.rs"]
mod args;
#[path = "agent/certs.rs"]
mod certs;
#[path = "agent/command.rs"]
mod command;
#[path = "agent/config_file.rs"]
mod config_file;
#[path = "agent/exporter.rs"]
mod exporter;
#[path = "agent/http.rs"]
mod http;
#[path = "agent/input.rs"]
mod input;
#[path = "agent/keys.rs"]
mod keys;
#[path = "agent/listener.rs"]
mod listener;
#[path = "agent/node.rs"]
mod node;
#[path = "agent/output.rs"]
mod output;
#[path = "agent/report.rs"]
mod report;
#[path = "agent/security.rs"]
mod security;
#[path = "agent/serf.rs"]
mod serf;
#[path = "agent/signals.rs"]
mod signals;
#[path = "agent/tls.rs"]
mod tls;
#[path = "agent/transport.rs"]
mod transport;
#[path = "agent/watch.rs"]
mod watch;
#[path = "agent/wire.rs"]
mod wire;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::quic::QuicTransport;
use memberlist::{Builder, Config, Memberlist};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::args::{Args, Refusal, Settings, Task};
use crate::http::{Http, Server};
use crate::node::{Agent, Stop, report_events, report_messages};
use crate::output::{Output, Writer};
use crate::report::{Report, lossy};
use crate::signals::Signals;
use crate::tls::{Reloader, TlsFiles};
use crate::transport::{AgentTransport, TransportSettings};

/// The exit status of a start that failed, and of an end without a farewell.
const FAILED: u8 = 1;
/// How long the last lines may take to be written, in case nobody reads them.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = match Task::read() {
        Ok(Task::Run(args)) => args,
        Ok(Task::Keygen(keygen)) => return keygen.print().unwrap_or_else(|error| fail(&error)),
        Ok(Task::PrintConfig(args)) => return args.print_config().unwrap_or_else(Refusal::tell),
        Ok(Task::Certs(certs)) => return certs.make().unwrap_or_else(|error| fail(&error)),
        Err(refusal) => return refusal.tell(),
    };
    let log = start_logging();
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(refusal) => return refusal.tell(),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let status = match runtime.block_on(run(&args, settings, log)) {
        Ok(status) => status,
        Err(error) => fail(&error),
    };
    // A host name may still be being looked up, on a thread that cannot be stopped.
    runtime.shutdown_background();
    status
}

async fn run(args: &Args, settings: Settings, log: LogLevel) -> Result<ExitCode, String> {
    let Settings { config, transport } = settings;
    let signals = Signals::listen().map_err(|error| error.to_string())?;
    match transport {
        TransportSettings::Net(net) => {
            let transport = NetTransport::bind(net).map_err(|error| error.to_string())?;
            serve(args, config, transport, None, signals, log).await
        }
        TransportSettings::Quic(quic, files) => {
            let transport = QuicTransport::bind(*quic).map_err(|error| error.to_string())?;
            serve(args, config, transport, Some(files), signals, log).await
        }
    }
}

/// The life of a node, over any transport.
async fn serve<T: AgentTransport>(
    args: &Args,
    mut config: Config,
    transport: T,
    files: Option<TlsFiles>,
    mut signals: Signals,
    log: LogLevel,
) -> Result<ExitCode, String> {
    let http = match args.http {
        Some(at) => Some(Http::bind(at, &config.name, &config.label).await?),
        None => None,
    };
    if let Some(http) = &http {
        let labels = std::mem::take(&mut config.metrics.labels);
        config.metrics = http.metrics();
        if !labels.is_empty() {
            config.metrics.labels = labels;
        }
    }
    let (output, writer) = Output::start(args.json);
    let state = args.wire.state(output.clone());
    let label = config.label.clone();
    let (builder, messages) = Builder::new(config).delegate(state).messages();
    let node = builder.start(transport).await.map_err(|error| error.to_string())?;
    output.tell(ready(args, label, &node, http.as_ref().map(Http::addr)).await).await;
    let page = http.map(|http| http.serve(node.clone())).transpose()?;
    let reporters = [
        tokio::spawn(report_events(node.subscribe(), node.name().to_owned(), output.clone())),
        tokio::spawn(report_messages(messages, node.clone(), output.clone())),
    ];
    let reloader = files.map(|files| Arc::new(Reloader::new(node.clone(), files)));
    let watch = reloader.clone().map(|reloader| {
        let output = output.clone();
        tokio::spawn(async move { reloader.watch(output).await })
    });

    let mut agent = Agent::new(node.clone(), output.clone(), reloader, log);
    let mut lines = input::start();
    let stop = agent.serve(&args.join, &mut lines, &mut signals).await;
    // The writer ends when nothing holds the output any more.
    watch.iter().for_each(JoinHandle::abort);
    let status = end(agent, stop, &mut signals, &output, (reporters, page)).await;
    Ok(finish(output, writer).await.unwrap_or(status))
}

async fn ready<T: AgentTransport>(
    args: &Args,
    label: String,
    node: &Memberlist<T>,
    http: Option<SocketAddr>,
) -> Report {
    let meta = node.own().map(|own| own.node.meta.clone()).unwrap_or_default();
    let format = node.settings().await.map(|settings| settings.wire_format).unwrap_or_default();
    let primary = node.keys().and_then(|keys| keys.local().into_iter().next());
    Report::Ready {
        name: node.name().to_owned(),
        transport: T::NAME,
        wire: wire::name(format),
        addr: node.transport().bound_addr().unwrap_or(args.bind()),
        advertise: node.addr(),
        meta: lossy(&meta),
        tags: serf::decode(&meta),
        label,
        key: primary.map(|key| key.fingerprint.to_string()),
        http,
    }
}

/// Says farewell and closes the node. From here on lines that find no room are left out: an output
/// that is stuck must not hold up the end.
async fn end<T: AgentTransport>(
    mut agent: Agent<T>,
    stop: Stop,
    signals: &mut Signals,
    output: &Output,
    (reporters, page): ([JoinHandle<()>; 2], Option<Server>),
) -> ExitCode {
    let name = agent.name().to_owned();
    if let Stop::Signal(signal) = stop {
        output.try_tell(Report::Leaving { name: name.clone(), signal });
    }
    tokio::select! {
        biased;
        // At once: no farewell, and nothing is closed but by the end of the process.
        _ = signals.next() => {
            reporters.iter().for_each(JoinHandle::abort);
            return ExitCode::from(FAILED);
        }
        told = agent.say_farewell() => {
            if let Err(error) = told {
                output.try_tell(Report::error(None, error));
            }
        }
    }
    agent.shutdown().await;
    if let Some(page) = page {
        page.end().await;
    }
    // The reporters end with the node, after the last event.
    for mut reporter in reporters {
        if timeout(LAST_LINES, &mut reporter).await.is_err() {
            reporter.abort();
        }
    }
    output.try_tell(Report::Stopped { name });
    ExitCode::SUCCESS
}

/// Waits for the last lines; gives a status only if the output failed.
async fn finish(output: Output, writer: Writer) -> Option<ExitCode> {
    drop(output);
    match timeout(LAST_LINES, writer.finished()).await {
        Ok(Err(error)) => Some(fail(&format!("could not write the output: {error}"))),
        _ => None,
    }
}

/// One line for somebody who starts the agent and sees it end.
fn fail(text: &str) -> ExitCode {
    // There is nobody to tell if this fails too.
    let _ = writeln!(std::io::stderr(), "error: {text}");
    ExitCode::from(FAILED)
}

/// Which lines go to the log, which can be changed while the agent runs.
type LogLevel = reload::Handle<EnvFilter, Registry>;

fn start_logging() -> LogLevel {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let (filter, level) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Its way to tell of a closed standard error is to panic.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    level
}
