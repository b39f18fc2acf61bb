//! Service discovery: members announce a service in their meta, a consumer keeps a table by events, and
//! a page shows it.
//!
//! The meta of a member is free bytes that all others get to know with it, at most 512; here it is
//! `web=10.0.0.1:8080`. The page is at `/`, and the same for programs at `/services.json`. Without
//! arguments the program starts three services and the page, fetches it, kills a service, waits until
//! that is gone from the page, and ends; with an address the page stays until Ctrl-C:
//!
//! ```text
//! cargo run --release --example service_discovery
//! cargo run --release --example service_discovery -- --serve 127.0.0.1:8080
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use memberlist::net::NetTransport;
use memberlist::{Config, Event, Member, Memberlist, Subscription};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

type Failure = Box<dyn Error + Send + Sync>;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// A bound for what takes seconds, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(60);

/// Lists the services of a cluster on a page.
#[derive(Parser, Debug)]
struct Flags {
    /// Keep the page at this address until Ctrl-C.
    #[arg(long)]
    serve: Option<SocketAddr>,
}

/// A live member, and what it announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Listed {
    member: String,
    addr: SocketAddr,
    /// `alive` or `suspect`; whether to call a suspect is for the consumer to decide.
    state: String,
    /// Nothing if the member offers none.
    service: Option<Service>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Service {
    name: String,
    at: SocketAddr,
}

/// By the members' names. Who reads it holds a `watch::Receiver`, and could wait for changes too.
type Table = BTreeMap<String, Listed>;

impl From<&Member> for Listed {
    fn from(member: &Member) -> Self {
        // Meta comes from the network: it may be anything. What is no service is listed without one.
        let service = || {
            let (name, at) = std::str::from_utf8(&member.node.meta).ok()?.split_once('=')?;
            Some(Service { name: name.to_owned(), at: at.parse().ok()? })
        };
        Self {
            member: member.id().to_string(),
            addr: member.addr(),
            state: member.state.to_string(),
            service: service(),
        }
    }
}

/// Keeps the table up to date, until the node is shut down.
async fn follow(mut events: Subscription, table: watch::Sender<Table>) {
    while let Some(event) = events.next().await {
        table.send_modify(|table| match &event {
            // At first, and again if this task was too slow: what the table holds by then is void.
            Event::Snapshot { members, .. } => {
                let live = members.iter().filter(|member| member.state.is_live());
                *table = live.map(|member| (member.id().to_string(), member.into())).collect();
            }
            // All that leaves a member alive: its meta, its address or its state may be new.
            Event::Joined(member)
            | Event::Updated(member)
            | Event::Suspected(member)
            | Event::Cleared(member) => {
                table.insert(member.id().to_string(), member.into());
            }
            Event::Left(member) => {
                table.remove(member.id().as_str());
            }
            _ => {}
        });
    }
}

fn page(table: watch::Receiver<Table>) -> Router {
    Router::new().route("/", get(html)).route("/services.json", get(json)).with_state(table)
}

async fn json(State(table): State<watch::Receiver<Table>>) -> Json<Vec<Listed>> {
    Json(table.borrow().values().cloned().collect())
}

async fn html(State(table): State<watch::Receiver<Table>>) -> Html<String> {
    let mut rows = String::new();
    for Listed { member, addr, state, service } in table.borrow().values() {
        let service =
            service.as_ref().map_or("-".to_owned(), |s| format!("{} at {}", s.name, s.at));
        let (member, service) = (escape(member), escape(&service));
        // Writing into a string cannot fail.
        let _ = writeln!(rows, "<tr><td>{member}<td>{addr}<td>{state}<td>{service}");
    }
    let head = "<!doctype html><title>Services</title><meta http-equiv=refresh content=2>";
    Html(format!(
        "{head}\n<table>\n<tr><th>member<th>address<th>state<th>service\n{rows}</table>\n"
    ))
}

/// Names and meta are other nodes' words: they must not become part of the page's markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let flags = Flags::parse();
    let consumer = start("consumer", "").await?;
    let (sender, table) = watch::channel(Table::new());
    tokio::spawn(follow(consumer.subscribe(), sender));
    let listener = TcpListener::bind(flags.serve.unwrap_or(ANY_PORT)).await?;
    let at = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, page(table)).into_future());

    let mut services = Vec::new();
    for (name, meta) in [
        ("web-1", "web=10.0.0.1:8080"),
        ("web-2", "web=10.0.0.2:8080"),
        ("cache", "redis=10.0.0.3:6379"),
    ] {
        let service = start(name, meta).await?;
        service.join([consumer.addr().to_string()]).await?;
        services.push(service);
    }
    say(&format!("http://{at}/ and http://{at}/services.json"));
    if flags.serve.is_some() {
        return Ok(tokio::signal::ctrl_c().await?);
    }

    let listed = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:6379"];
    let all =
        until_page(at, "all services are listed", |page| listed.iter().all(|s| page.contains(s)));
    say(&all.await?);
    // No farewell: as if its machine had lost power. The page says so once the others are sure.
    services[1].shutdown().await;
    let gone = until_page(at, "web-2 is not listed any more", |page| !page.contains("web-2"));
    say(&gone.await?);
    let json = fetch(at, "/services.json").await?;
    say(&json);
    match (json.contains("web-2"), json.contains("10.0.0.1:8080")) {
        (false, true) => Ok(()),
        _ => Err("the two pages do not say the same".into()),
    }
}

async fn start(name: &str, meta: &'static str) -> Result<Memberlist<NetTransport>, Failure> {
    let mut config = Config::local(name).with_meta(meta);
    // A death is certain after some seconds, so that nobody waits for long in front of an example.
    config.protocol.probe_interval = Duration::from_millis(500);
    config.protocol.suspicion_max_timeout_mult = 2;
    Ok(Memberlist::start(NetTransport::bind_addr(ANY_PORT)?, config).await?)
}

/// Fetches the page until it is as wanted.
async fn until_page(
    at: SocketAddr,
    what: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<String, Failure> {
    let looking = async {
        loop {
            let page = fetch(at, "/").await?;
            if wanted(&page) {
                return Ok(page);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let page = timeout(BOUND, looking).await.unwrap_or_else(|_| Err("not in time".into()));
    page.inspect(|_| say(what)).map_err(|error: Failure| format!("{what}: {error}").into())
}

/// What a browser does, in short.
async fn fetch(at: SocketAddr, path: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(format!("an answer that is no page: {answer}").into()),
    }
}

fn say(line: &str) {
    // An error means that nobody reads.
    let _ = writeln!(std::io::stdout(), "{line}");
}
