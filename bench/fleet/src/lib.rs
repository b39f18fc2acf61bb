//! Many nodes of one membership library in one process, driven line by line.
//!
//! The side-by-side benchmark puts every library through the same scenario. A library takes part by a
//! program that speaks the [`protocol`]: it reads one [`Command`] a line, carries it out on its nodes and
//! answers by one [`Answer`] a line. Who drives it reads its processor time, memory and traffic from the
//! outside, so that no program judges itself by more than a clock.
//!
//! For a library in Rust, [`Implementation`] and [`Node`] are all there is to write, and [`serve`] is the
//! program. `tests/go-peer/fleet.go` is the same in Go.

mod fleet;
mod news;
pub mod packets;
pub mod protocol;

use std::future::Future;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

pub use self::fleet::Fleet;
pub use self::news::News;
use self::protocol::{Answer, Command, Hello};

/// The key of encrypted clusters: the first 16 bytes where a library takes AES-128, all of them elsewhere.
pub const KEY: [u8; 32] = *b"a key that everybody may know, 1";

/// A membership library.
pub trait Implementation: Send + Sync + 'static {
    /// One running node.
    type Node: Node;

    /// What the table calls it, and its version.
    fn hello(&self) -> Hello;

    /// Starts a node that knows nobody, with the library's settings for a LAN.
    fn start(
        &self,
        spec: Spec,
        news: Observer,
    ) -> impl Future<Output = Result<Self::Node, String>> + Send;
}

/// A node of a library.
pub trait Node: Send + Sync + 'static {
    /// Where others reach it.
    fn addr(&self) -> SocketAddr;

    /// Joins the cluster of a node.
    fn join(&self, seed: SocketAddr) -> impl Future<Output = Result<(), String>> + Send;

    /// How many members it takes for running, itself included; suspected ones count.
    fn live_count(&self) -> impl Future<Output = usize> + Send;

    /// Sends this to all other members.
    fn broadcast(&self, payload: Vec<u8>) -> impl Future<Output = Result<(), String>> + Send;

    /// Says farewell.
    fn leave(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Ends it without a farewell, as near to a crash as the library offers. Its port is free afterwards.
    fn stop(&self) -> impl Future<Output = ()> + Send;
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Where it listens: a port of loopback, 0 for any.
    pub bind: SocketAddr,
    /// Whether the cluster has [`KEY`].
    pub encrypted: bool,
}

/// One node's way to tell what happened to it.
#[derive(Clone, Debug)]
pub struct Observer {
    number: usize,
    news: Arc<News>,
}

impl Observer {
    /// The node declared a member dead, not merely suspected, and not left.
    pub fn died(&self, name: &str) {
        self.news.died(self.number, name);
    }

    /// The node received a broadcast of so many bytes.
    pub fn received(&self, bytes: usize) {
        self.news.received(self.number, bytes);
    }
}

/// The program of a library: obeys standard input until it ends.
///
/// # Panics
/// If no runtime can be made.
pub fn serve<I: Implementation>(implementation: I) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime with its threads");
    let hello = implementation.hello();
    if !tell(&hello) {
        return ExitCode::FAILURE;
    }
    let mut fleet = Fleet::new(implementation);
    for line in commands() {
        let answer = match parse(&line) {
            Ok(command) => runtime.block_on(fleet.obey(command)),
            Err(error) => Answer::failed(error),
        };
        if !tell(&answer) {
            break;
        }
    }
    ExitCode::FAILURE
}

/// The lines of standard input. The process ends with them, in the middle of a command too: whoever drives
/// it is gone then.
fn commands() -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            // Nobody listens any more when nobody reads the answers.
            let _ = sender.send(line);
        }
        std::process::exit(0);
    });
    receiver
}

fn parse(line: &str) -> Result<Command, String> {
    serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))
}

/// Prints this as one JSON object on a line, and tells whether somebody reads.
pub fn tell(what: &impl serde::Serialize) -> bool {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, what).is_ok() && writeln!(out).is_ok() && out.flush().is_ok()
}
