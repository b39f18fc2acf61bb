//! A chat: lines to all by `broadcast`, lines to one by `send_reliable`, comings and goings by events.
//!
//! Without arguments three people, "ada", "bob" and "eve", talk in one process over loopback UDP and
//! TCP, and it is checked who hears what. With a name it is a chat for people:
//!
//! ```text
//! cargo run --release --example chat
//! cargo run --release --example chat -- --name ada --bind 127.0.0.1:7946
//! cargo run --release --example chat -- --name bob --bind 127.0.0.1:7947 --join 127.0.0.1:7946
//! ```
//!
//! There a line goes to all, `/to NAME text` to one, `/who` tells who is here, `/quit` leaves.

use std::error::Error;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Parser;
use memberlist::{Builder, Config, Event, Member, Memberlist, NodeState, net::NetTransport};
use memberlist::{Messages, Subscription, UserMessage};
use tokio::sync::mpsc;
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;
type Screen = mpsc::UnboundedSender<String>;

/// A bound for what takes a second, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(60);

/// Talks with other members of a cluster; without a name, shows how that looks.
#[derive(Parser, Debug)]
struct Flags {
    /// Your name, which nobody else has.
    #[arg(long, requires = "bind")]
    name: Option<String>,
    /// The address under which the others reach you.
    #[arg(long, requires = "name")]
    bind: Option<SocketAddr>,
    /// The address of somebody who is there already.
    #[arg(long, requires = "name")]
    join: Option<String>,
}

struct Person {
    node: Memberlist<NetTransport>,
    /// What stands on the screen from now on.
    lines: mpsc::UnboundedReceiver<String>,
    /// What stands there already.
    seen: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let flags = Flags::parse();
    match (flags.name, flags.bind) {
        (Some(name), Some(bind)) => talk(&name, bind, flags.join).await,
        _ => show().await,
    }
}

/// Three people in one process.
async fn show() -> Result<(), Failure> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut ada = Person::start("ada", any_port).await?;
    let mut bob = Person::start("bob", any_port).await?;
    let mut eve = Person::start("eve", any_port).await?;
    let seed = ada.node.addr().to_string();
    bob.node.join([&seed]).await?;
    eve.node.join([&seed]).await?;
    // Bob never spoke to eve's node: ada's told him of her.
    bob.sees("* eve is here").await?;
    eve.sees("* bob is here").await?;

    ada.obey("Good morning, all!").await?;
    bob.sees("ada: Good morning, all!").await?;
    eve.sees("ada: Good morning, all!").await?;
    eve.obey("/to bob Coffee at ten?").await?;
    bob.sees("eve, to you alone: Coffee at ten?").await?;
    eve.obey("/quit").await?;
    ada.sees("* eve has left").await?;
    bob.sees("* eve has left").await?;

    bob.node.shutdown().await;
    ada.node.shutdown().await;
    while let Some(line) = ada.lines.recv().await {
        ada.seen.push(line);
    }
    match ada.seen.iter().any(|line| line.contains("Coffee")) {
        true => Err("ada heard what was for bob alone".into()),
        false => Ok(()),
    }
}

/// One person at the keyboard.
async fn talk(name: &str, bind: SocketAddr, seed: Option<String>) -> Result<(), Failure> {
    let mut person = Person::start(name, bind).await?;
    if let Some(seed) = seed {
        person.node.join([seed]).await?;
    }
    say(&format!("You are {name} at {}. /to NAME text, /who, /quit", person.node.addr()));
    let mut typed = typed_lines();
    loop {
        let line = tokio::select! {
            Some(line) = person.lines.recv() => {
                say(&line);
                continue;
            }
            typed = typed.recv() => typed.unwrap_or_else(|| "/quit".to_owned()),
            _ = tokio::signal::ctrl_c() => "/quit".to_owned(),
        };
        match person.obey(&line).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // Nobody has that name, it fits no packet, …: the chat goes on.
            Err(error) => say(&format!("! {error}")),
        }
    }
}

impl Person {
    async fn start(name: &str, bind: SocketAddr) -> Result<Self, Failure> {
        let (builder, messages) = Builder::new(Config::lan(name)).messages();
        let node = builder.start(NetTransport::bind_addr(bind)?).await?;
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(listen(node.subscribe(), messages, sender));
        Ok(Self { node, lines, seen: Vec::new() })
    }

    /// Does what was typed, and says whether the person is still there.
    async fn obey(&self, line: &str) -> Result<bool, Failure> {
        // The receiver of a reliable message is not told who sent it, so the name is in the text: it is
        // what the sender claims, and any member could claim another.
        let own_name = self.node.name();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("/quit", _) => {
                // Without it the others would think for some seconds that the node has failed.
                self.node.leave(Duration::from_secs(5)).await?;
                self.node.shutdown().await;
                return Ok(false);
            }
            ("/who", _) => {
                let members = self.node.members();
                members.iter().for_each(|m| say(&format!("  {} is {}", m.id(), m.state)));
            }
            ("/to", rest) => {
                let (name, text) = rest.split_once(' ').ok_or("/to NAME text")?;
                self.node.send_reliable(name, format!("{own_name}, to you alone: {text}")).await?;
            }
            _ => self.node.broadcast(format!("{own_name}: {line}")).await?,
        }
        Ok(true)
    }

    /// Waits until that line is on the screen.
    async fn sees(&mut self, wanted: &str) -> Result<(), Failure> {
        let name = self.node.name().to_owned();
        while !self.seen.iter().any(|line| line == wanted) {
            match timeout(BOUND, self.lines.recv()).await {
                Ok(Some(line)) => self.seen.push(line),
                _ => return Err(format!("{name} saw {:?}, but not {wanted:?}", self.seen).into()),
            }
        }
        say(&format!("[{name}'s screen] {wanted}"));
        Ok(())
    }
}

/// Makes lines of what happens at a node, until it is shut down.
async fn listen(mut events: Subscription, mut messages: Messages, lines: Screen) {
    loop {
        let new = tokio::select! {
            Some(event) = events.next() => notices(&event),
            Some(message) = messages.next() => vec![spoken(&message)],
            else => return,
        };
        for line in new {
            // An error means that the screen is gone.
            let _ = lines.send(line);
        }
    }
}

fn notices(event: &Event) -> Vec<String> {
    let here = |member: &Member| format!("* {} is here", member.id());
    match event {
        // Who is in the snapshot has no `Joined` of its own.
        Event::Snapshot { members, .. } => {
            members.iter().filter(|member| member.state.is_live()).map(here).collect()
        }
        Event::Joined(member) => vec![here(member)],
        Event::Left(member) if member.state == NodeState::Left => {
            vec![format!("* {} has left", member.id())]
        }
        Event::Left(member) => vec![format!("* {} does not answer any more", member.id())],
        _ => Vec::new(),
    }
}

fn spoken(message: &UserMessage) -> String {
    // It came from the network: it may be anything, and must not give commands to a terminal.
    String::from_utf8_lossy(&message.payload).replace(char::is_control, "?")
}

/// Standard input, read by a thread of its own: such a read cannot be given up, and must not hold up
/// the end of the process.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines();
        lines.map_while(Result::ok).try_for_each(|line| sender.blocking_send(line))
    });
    receiver
}

fn say(line: &str) {
    // An error means that nobody reads.
    let _ = writeln!(std::io::stdout(), "{line}");
}
