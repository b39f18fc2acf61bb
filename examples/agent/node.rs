//! The running agent: carries out commands, and reports what happens.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use memberlist::{
    Closed, Event, JoinError, LeaveError, Member, Memberlist, Messages, NodeState, SeedResult,
    Subscription, UserMessage,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use crate::LogLevel;
use crate::command::{self, Command};
use crate::config_file;
use crate::input::{Line, MAX_LINE_BYTES};
use crate::output::Output;
use crate::report::{Counts, MemberReport, Report};
use crate::signals::Signals;
use crate::tls::Reloader;
use crate::transport::AgentTransport;

/// How long others may take to be told: of the farewell, or of new meta. A farewell takes a few
/// gossip intervals, half a second each at the most.
const TELL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the agent is to end.
pub(crate) enum Stop {
    Quit,
    Signal(&'static str),
    /// Nothing can be written any more.
    OutputClosed,
}

/// Whether more commands are to be read.
enum Flow {
    Continue,
    Quit,
}

pub(crate) struct Agent<T: AgentTransport> {
    node: Memberlist<T>,
    output: Output,
    /// Of its certificates, if it has any.
    reloader: Option<Arc<Reloader<T>>>,
    log: LogLevel,
    /// A farewell that is being said. It goes on if the command that began it is given up.
    farewell: Option<JoinHandle<Result<(), LeaveError>>>,
}

impl<T: AgentTransport> Agent<T> {
    pub(crate) fn new(
        node: Memberlist<T>,
        output: Output,
        reloader: Option<Arc<Reloader<T>>>,
        log: LogLevel,
    ) -> Self {
        Self { node, output, reloader, log, farewell: None }
    }

    pub(crate) fn name(&self) -> &str {
        self.node.name()
    }

    /// Joins, then obeys until there is a reason to end.
    pub(crate) async fn serve(
        &mut self,
        seeds: &[String],
        lines: &mut mpsc::Receiver<Line>,
        signals: &mut Signals,
    ) -> Stop {
        let output = self.output.clone();
        let obey = async {
            if !seeds.is_empty() {
                self.join("--join", seeds).await;
            }
            while let Some(line) = lines.recv().await {
                if let Flow::Quit = self.obey(line).await {
                    return;
                }
            }
            std::future::pending().await
        };
        until_stopped(obey, signals, &output).await
    }

    /// Says farewell, or waits for the one that is being said. At once if that is done already.
    pub(crate) async fn say_farewell(&mut self) -> Result<(), LeaveError> {
        let farewell = self.farewell.get_or_insert_with(|| {
            let node = self.node.clone();
            tokio::spawn(async move { node.leave(TELL_TIMEOUT).await })
        });
        let told = farewell.await;
        self.farewell = None;
        told.unwrap_or(Err(LeaveError::Closed(Closed)))
    }

    pub(crate) async fn shutdown(&self) {
        self.node.shutdown().await;
    }

    async fn obey(&mut self, line: Line) -> Flow {
        let parsed = match line {
            Line::Text(line) => command::parse(&line),
            Line::NotUtf8 => {
                let text = "a line that is not UTF-8 was skipped";
                self.output.tell(Report::error(None, text)).await;
                return Flow::Continue;
            }
            Line::TooLong => {
                let text = format!("a line of more than {MAX_LINE_BYTES} bytes was skipped");
                self.output.tell(Report::error(None, text)).await;
                return Flow::Continue;
            }
        };
        match parsed {
            Ok(None) => Flow::Continue,
            Ok(Some(Command::Quit)) => Flow::Quit,
            Ok(Some(command)) => {
                self.carry_out(command).await;
                Flow::Continue
            }
            Err(bad) => {
                self.output.tell(Report::error(bad.command, bad.text)).await;
                Flow::Continue
            }
        }
    }

    async fn carry_out(&mut self, command: Command) {
        let answer = match command {
            Command::Members => self.members(),
            Command::Broadcast(text) => {
                let bytes = text.len();
                match self.node.broadcast(text).await {
                    Ok(()) => Report::Broadcast { bytes },
                    Err(error) => Report::error(Some("broadcast"), error),
                }
            }
            Command::Send { name, text, reliably } => {
                let bytes = text.len();
                let sent = match reliably {
                    true => self.node.send_reliable(&name, text).await,
                    false => self.node.send(&name, text).await,
                };
                match sent {
                    Ok(()) => Report::Sent { name, bytes, reliable: reliably },
                    Err(error) => Report::error(Some("send"), error),
                }
            }
            Command::Ping(name) => match self.node.ping(&name).await {
                Ok(rtt) => Report::Pong {
                    addr: self.node.member(&name).map(|member| member.addr()),
                    name,
                    rtt_ms: rtt.as_secs_f64() * 1e3,
                },
                Err(error) => Report::error(Some("ping"), error),
            },
            Command::Meta(meta) => self.update_meta(meta).await,
            Command::Join(seeds) => return self.join("join", &seeds).await,
            Command::Explain(name) => self.explain(&name).await,
            Command::Health => match self.node.health().await {
                Ok(health) => Report::health(self.name(), &health),
                Err(error) => Report::error(Some("health"), error),
            },
            Command::Stats => match counts(&self.node).await {
                Ok(counts) => Report::Stats(counts),
                Err(error) => Report::error(Some("stats"), error),
            },
            Command::Settings => match self.node.settings().await {
                Ok(settings) => Report::settings(&settings),
                Err(error) => Report::error(Some("settings"), error),
            },
            Command::Set { field, value } => match self.set(&field, &value).await {
                Ok(()) => Report::Set { field, value },
                Err(error) => Report::error(Some("set"), error),
            },
            Command::Keys(command) => command.carry_out(&self.node).await,
            Command::TlsReload => match &self.reloader {
                Some(reloader) => reloader.reload().await,
                None => {
                    let text = "this node has no certificates; start it with --transport quic";
                    Report::error(Some("tls"), text)
                }
            },
            Command::Leave => match self.say_farewell().await {
                Ok(()) => Report::Left { name: self.name().to_owned() },
                Err(error) => Report::error(Some("leave"), error),
            },
            Command::Help => Report::help(),
            Command::Quit => return,
        };
        self.output.tell(answer).await;
    }

    fn members(&self) -> Report {
        let known = self.node.known_members();
        let (live, gone): (Vec<&Member>, Vec<&Member>) =
            known.iter().partition(|member| member.state.is_live());
        Report::Members {
            members: live.into_iter().map(MemberReport::from).collect(),
            gone: gone.into_iter().map(MemberReport::from).collect(),
        }
    }

    /// Changes a setting of the protocol, or which lines go to the log.
    async fn set(&self, field: &str, value: &str) -> Result<(), String> {
        if field == "log" {
            let filter = EnvFilter::try_new(value).map_err(|error| error.to_string())?;
            return self.log.reload(filter).map_err(|error| error.to_string());
        }
        let settings = self.node.settings().await.map_err(|error| error.to_string())?;
        let settings = config_file::changed(&settings, field, value)?;
        self.node.reconfigure(settings).await.map_err(|error| error.to_string())
    }

    async fn update_meta(&self, meta: String) -> Report {
        let update = self.node.update_meta(meta.clone());
        match timeout(TELL_TIMEOUT, update).await {
            Ok(Ok(())) => Report::Meta { name: self.name().to_owned(), meta },
            Ok(Err(error)) => Report::error(Some("meta"), error),
            Err(_) => {
                let text = "meta is changed, but telling the others takes long and goes on";
                Report::error(Some("meta"), text)
            }
        }
    }

    async fn explain(&self, name: &str) -> Report {
        match self.node.explain(name).await {
            Ok(Some(explanation)) => Report::explain(&explanation),
            Ok(None) => Report::error(Some("explain"), format!("{name:?} is not known here")),
            Err(error) => Report::error(Some("explain"), error),
        }
    }

    /// Every seed that fails has its line, whether others succeed or not.
    async fn join(&self, command: &'static str, seeds: &[String]) {
        let results = match self.node.join(seeds).await {
            Ok(results) | Err(JoinError::NoneReached(results)) => results,
            Err(error) => {
                self.output.tell(Report::error(Some(command), error)).await;
                return;
            }
        };
        let (joined, failed): (Vec<_>, Vec<_>) =
            results.into_iter().partition(SeedResult::is_joined);
        for seed in &failed {
            self.output.tell(Report::error(Some(command), why_not(seed))).await;
        }
        let answer = match joined.is_empty() {
            true => {
                let text = match command {
                    // The node has them as its own.
                    "--join" => {
                        "no seed could be joined; the agent goes on, and tries again while it is alone"
                    }
                    _ => "no seed could be joined; the agent goes on without",
                };
                Report::error(Some(command), text)
            }
            false => Report::Joined {
                seeds: joined.into_iter().map(|seed| seed.seed).collect(),
                members: self.node.member_count(),
            },
        };
        self.output.tell(answer).await;
    }
}

/// What the node and its transport have counted.
pub(crate) async fn counts<T: AgentTransport>(node: &Memberlist<T>) -> Result<Counts, Closed> {
    let own_drops = [
        ("messages_dropped", node.messages_dropped()),
        ("streams_refused", node.streams_refused()),
    ];
    Ok(Counts::new(
        (node.name().to_owned(), node.health_score(), node.member_count()),
        &node.stats().await?,
        node.transport().counts(),
        own_drops,
    ))
}

fn why_not(seed: &SeedResult) -> String {
    let mut faults: Vec<String> = seed.error.iter().map(ToString::to_string).collect();
    for attempt in &seed.attempts {
        faults.extend(attempt.result.as_ref().err().map(ToString::to_string));
    }
    format!("could not join {}: {}", seed.seed, faults.join("; "))
}

/// Runs until the work is done, which means to quit, or something else ends it.
async fn until_stopped(
    work: impl Future<Output = ()>,
    signals: &mut Signals,
    output: &Output,
) -> Stop {
    tokio::select! {
        biased;
        signal = signals.next() => Stop::Signal(signal),
        () = output.closed() => Stop::OutputClosed,
        () = work => Stop::Quit,
    }
}

/// Reports every event until the node is shut down.
pub(crate) async fn report_events(mut events: Subscription, own: String, output: Output) {
    // `ready` has said already that this node is there.
    let mut introduced = false;
    while let Some(event) = events.next().await {
        if let Event::Joined(member) = &event {
            if member.id().as_str() == own && !std::mem::replace(&mut introduced, true) {
                continue;
            }
        }
        if let Event::Snapshot { members, missed: 0 } = &event {
            // The first: who came before this subscription began.
            introduced |= members.iter().any(|member| member.id().as_str() == own);
            for member in members.iter().filter(|m| m.id().as_str() != own) {
                output.tell(Report::Join(member.into())).await;
            }
            continue;
        }
        if let Some(report) = event_report(event) {
            output.tell(report).await;
        }
    }
}

/// Reports every message until the node is shut down.
pub(crate) async fn report_messages<T: AgentTransport>(
    mut messages: Messages,
    node: Memberlist<T>,
    output: Output,
) {
    while let Some(message) = messages.next().await {
        let name = sender_of(&message, &node);
        output.tell(Report::message(message, name)).await;
    }
}

/// Where a message began, or else the member at its address. Where a stream's port is a passing one,
/// the IP address must do, if only one other member has it.
fn sender_of<T: AgentTransport>(message: &UserMessage, node: &Memberlist<T>) -> Option<String> {
    if let Some(origin) = &message.origin {
        return Some(origin.to_string());
    }
    let others = node.members().into_iter().filter(|member| member.id().as_str() != node.name());
    let passing_port = message.reliable && !T::STREAMS_SHARE_PORT;
    let mut at_address = others.filter(|member| match passing_port {
        true => member.addr().ip() == message.from.ip(),
        false => member.addr() == message.from,
    });
    let first = at_address.next()?;
    at_address.next().is_none().then(|| first.id().to_string())
}

pub(crate) fn event_report(event: Event) -> Option<Report> {
    Some(match event {
        Event::Snapshot { members, missed } => {
            Report::Snapshot { missed, members: members.iter().map(MemberReport::from).collect() }
        }
        Event::Joined(member) => Report::Join((&member).into()),
        Event::Left(member) if member.state == NodeState::Left => Report::Leave((&member).into()),
        Event::Left(member) => Report::Dead((&member).into()),
        Event::Updated(member) => Report::Update((&member).into()),
        Event::Suspected(member) => Report::Suspect((&member).into()),
        Event::Cleared(member) => Report::Alive((&member).into()),
        Event::Forgotten(id) => Report::Forgotten { name: id.to_string() },
        Event::Conflict { existing, other } => Report::Conflict {
            name: existing.id.to_string(),
            addr: existing.addr,
            other: other.addr,
        },
        Event::HealthChanged(score) => Report::Awareness { score },
        Event::Refuted { accusation, by, incarnation } => Report::Refuted {
            accusation: accusation.to_string(),
            by: by.map(|id| id.to_string()),
            incarnation,
        },
        // Events of later versions of the library.
        _ => return None,
    })
}
