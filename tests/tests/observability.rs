//! What an agent shows over HTTP: its metrics, its state, its page in a real browser; and whether the
//! dashboard and the alerts in `docs` speak of metrics that there are.
#![cfg(unix)]

#[path = "observability/browser.rs"]
mod browser;
#[path = "observability/devtools.rs"]
mod devtools;
#[path = "observability/documents.rs"]
mod documents;
#[path = "observability/exporter.rs"]
mod exporter;
#[path = "observability/http.rs"]
mod http;
#[path = "observability/page.rs"]
mod page;
// What drives the agent in its own tests; not all of it is needed here.
#[allow(dead_code)]
#[path = "agent/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "agent/program.rs"]
mod program;
