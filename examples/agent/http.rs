//! The page of a node, and the data behind it, over HTTP.
//!
//! There is no authentication: who can connect can read. So nothing can be changed here, whatever is
//! sent. What comes over the network is not trusted:
//!
//! - Names and meta of members are data. They go out as JSON or as plain text, and the page puts them
//!   into text nodes only; the headers forbid scripts other than the page's own, and that one to make
//!   elements out of text.
//! - The name that a browser was told to connect to is used for nothing. Where the agent listens on a
//!   loopback address only, another name than `localhost` is refused: it is a page of somebody else's
//!   whose name was made to lead here.
//! - Connections and those who look on are limited; one that is slow loses messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Json, Response, Sse, sse};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream::{self, Stream, StreamExt};
use memberlist::metrics::Metrics;
use memberlist::{Bytes, Memberlist};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, WeakSender, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::exporter::Exporter;
use crate::listener::Limited;
use crate::report::clean;
use crate::transport::AgentTransport;
use crate::watch::{BACKLOG, Snapshot, Watched};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Where they go in the page.
const STYLE_GOES_HERE: &str = "/* page.css */\n";
const SCRIPT_GOES_HERE: &str = "// page.js\n";
/// How many may look on at a time.
const MAX_LOOKERS_ON: usize = 32;
/// How many connections there may be, those of the lookers-on among them.
const MAX_CONNECTIONS: usize = 128;
/// How long a connection may take to send the head of its request. It serves one request: the next one
/// could be waited for without end.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers that are under way may take when the agent ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// The version of the text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An address that is listened at, for a node that is still to be started.
pub(crate) struct Http {
    listener: TcpListener,
    addr: SocketAddr,
    label: String,
    exporter: Exporter,
}

/// The server of a node that runs.
pub(crate) struct Server {
    /// Dropping it asks for the end.
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// What every answer is made of.
struct Site<T: AgentTransport> {
    watched: Arc<Watched<T>>,
    exporter: Arc<Exporter>,
    /// Ends with the task that tells them.
    changes: WeakSender<sse::Event>,
    places: Arc<Semaphore>,
    on_loopback: bool,
    page: Bytes,
    /// What it may do.
    policy: HeaderValue,
}

type Refused = (StatusCode, &'static str);

const ENDING: Refused = (StatusCode::SERVICE_UNAVAILABLE, "this node is ending\n");

impl Http {
    pub(crate) async fn bind(at: SocketAddr, name: &str, label: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("--http {at}: {error}");
        let listener = TcpListener::bind(at).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, addr, label: label.to_owned(), exporter: Exporter::new(name, label)? })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// With these the node has to be started.
    pub(crate) fn metrics(&self) -> Metrics {
        self.exporter.metrics()
    }

    pub(crate) fn serve<T: AgentTransport>(self, node: Memberlist<T>) -> Result<Server, String> {
        self.exporter.describe(node.transport());
        let (watched, exporter) =
            (Arc::new(Watched::new(node, self.label)), Arc::new(self.exporter));
        let (sender, _) = broadcast::channel(BACKLOG);
        let (page, policy) = page()?;
        let site = Arc::new(Site {
            watched: Arc::clone(&watched),
            exporter: Arc::clone(&exporter),
            changes: sender.downgrade(),
            places: Arc::new(Semaphore::new(MAX_LOOKERS_ON)),
            on_loopback: self.addr.ip().to_canonical().is_loopback(),
            page,
            policy,
        });
        tokio::spawn(async move { watched.tell(exporter, sender).await });
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = Limited::new(self.listener, MAX_CONNECTIONS, HEAD_TIMEOUT);
        let server = tokio::spawn(async move {
            let until = async {
                // Dropped or used, both mean the end.
                let _ = stopped.await;
            };
            let served = axum::serve(listener, routes(site)).with_graceful_shutdown(until);
            if let Err(error) = served.await {
                tracing::warn!(%error, "the page is not served any more");
            }
        });
        Ok(Server { stop, server })
    }
}

impl Server {
    /// Takes no more connections, and gives answers a moment. The streams of changes have ended with
    /// the node.
    pub(crate) async fn end(mut self) {
        drop(self.stop);
        if timeout(LAST_ANSWERS, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

fn routes<T: AgentTransport>(site: Arc<Site<T>>) -> Router {
    Router::new()
        .route("/", get(front::<T>))
        .route("/events", get(events::<T>))
        .route("/state.json", get(state::<T>))
        .route("/explain/{*name}", get(explain::<T>))
        .route("/metrics", get(metrics::<T>))
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such page\n"))
        .layer(from_fn_with_state(Arc::clone(&site), guard::<T>))
        .with_state(site)
}

async fn front<T: AgentTransport>(State(site): State<Arc<Site<T>>>) -> Html<Bytes> {
    Html(site.page.clone())
}

async fn state<T: AgentTransport>(
    State(site): State<Arc<Site<T>>>,
) -> Result<Json<Snapshot>, Refused> {
    site.watched.snapshot(0).await.map(Json).map_err(|_| ENDING)
}

async fn explain<T: AgentTransport>(
    State(site): State<Arc<Site<T>>>,
    Path(name): Path<String>,
) -> Result<String, Refused> {
    match site.watched.node.explain(&name).await {
        Ok(Some(explanation)) => {
            let text = explanation.to_string();
            Ok(text.lines().map(|line| clean(line) + "\n").collect())
        }
        Ok(None) => Err((StatusCode::NOT_FOUND, "no member of that name is known here\n")),
        Err(_) => Err(ENDING),
    }
}

async fn metrics<T: AgentTransport>(State(site): State<Arc<Site<T>>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], site.exporter.render(&site.watched.node))
}

/// Server-sent events: a `snapshot`, then each `change`, and `stats` every second. After messages that
/// were lost another `snapshot`.
async fn events<T: AgentTransport>(
    State(site): State<Arc<Site<T>>>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, axum::Error>>>, Refused> {
    let place = Arc::clone(&site.places).try_acquire_owned().map_err(|_| {
        (StatusCode::SERVICE_UNAVAILABLE, "too many look on already; /state.json has the same\n")
    })?;
    let changes = site.changes.upgrade().ok_or(ENDING)?.subscribe();
    let looker_on = LookerOn { site, changes, lost: Some(0), _place: place };
    Ok(Sse::new(stream::unfold(looker_on, LookerOn::next).map(Ok)))
}

/// Somebody who looks on. It takes the next message when the one before is on its way.
struct LookerOn<T: AgentTransport> {
    site: Arc<Site<T>>,
    changes: broadcast::Receiver<sse::Event>,
    /// How many messages it has lost, if it is to be told everything.
    lost: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl<T: AgentTransport> LookerOn<T> {
    async fn next(mut self) -> Option<(sse::Event, Self)> {
        if self.lost.is_none() {
            match self.changes.recv().await {
                Ok(message) => return Some((message, self)),
                Err(RecvError::Lagged(lost)) => self.lost = Some(lost),
                Err(RecvError::Closed) => return None,
            }
        }
        // What waits is older than the snapshot; what comes while that is made is not, or twice in it.
        self.changes = self.changes.resubscribe();
        let snapshot = self.site.watched.snapshot_message(self.lost.take()?).await?;
        Some((snapshot, self))
    }
}

/// Refuses those who were lured here, and says to browsers what an answer may be used for.
async fn guard<T: AgentTransport>(
    State(site): State<Arc<Site<T>>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match site.on_loopback && !names_this_machine(request.headers()) {
        true => {
            (StatusCode::FORBIDDEN, "use the address that the agent listens at\n").into_response()
        }
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, site.policy.clone());
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONNECTION, "close"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the request was meant for an IP address or for `localhost`. Programs may leave it out,
/// browsers do not.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
}

/// The page, with its style and script in it, and what it may do: that script and that style, named by
/// their hashes, and asking this server.
fn page() -> Result<(Bytes, HeaderValue), String> {
    let whole = PAGE.replace(STYLE_GOES_HERE, STYLE).replace(SCRIPT_GOES_HERE, SCRIPT);
    // The line end behind the tag counts.
    let hash = |content: &str| BASE64_STANDARD.encode(Sha256::digest(format!("\n{content}")));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    let policy = HeaderValue::from_str(&policy).map_err(|error| error.to_string())?;
    Ok((whole.into(), policy))
}
