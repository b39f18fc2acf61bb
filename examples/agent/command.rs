//! The commands on standard input.

use crate::keys::KeysCommand;

/// What a line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Members,
    Broadcast(String),
    Send { name: String, text: String, reliably: bool },
    Ping(String),
    Meta(String),
    Join(Vec<String>),
    Explain(String),
    Health,
    Stats,
    Settings,
    Set { field: String, value: String },
    Keys(KeysCommand),
    TlsReload,
    Leave,
    Help,
    Quit,
}

/// A line that is no command.
#[derive(Debug)]
pub(crate) struct BadCommand {
    /// Its first word, if that is a command.
    pub(crate) command: Option<&'static str>,
    pub(crate) text: String,
}

/// Every command with what it does, in the order of the help.
pub(crate) const HELP: [(&str, &str); 22] = [
    ("members", "show who is here, and who was"),
    ("join ADDR...", "join a cluster through any of these members"),
    ("broadcast TEXT", "send to every member, best effort"),
    ("send NAME TEXT", "send to one member, reliably"),
    ("send-packet NAME TEXT", "send to one member in one packet, best effort"),
    ("ping NAME", "measure the round trip to a member"),
    ("meta [TEXT]", "change this node's meta, to none without TEXT, and tell everybody"),
    ("explain NAME", "say why a member is in its state"),
    ("health", "say how this node is, and why it doubts itself if it does"),
    ("stats", "show what was counted"),
    ("settings", "show the settings of the protocol as they are now"),
    ("set FIELD VALUE", "change one of them, or \"log\" to what goes to the log, as RUST_LOG"),
    ("keys list", "show the cluster's keys, and how many members have them"),
    ("keys install KEY", "let every member open what is sealed with this key too, in base64"),
    ("keys activate ID", "let every member seal with this key, a fingerprint or base64"),
    ("keys remove ID", "take this key from every member; --force here or before skips checks"),
    ("keys rotate", "replace all keys by a new one, or by the KEY behind it"),
    ("keys ... --here", "install, activate or remove a key of this node alone"),
    ("tls reload", "read the certificate files again now, over QUIC"),
    ("leave", "say farewell, and go on running; join again to return"),
    ("help", "show this"),
    ("quit", "say farewell, and end"),
];

/// The longest unknown word that an error repeats, in bytes. Keys are longer, and not repeated.
const MAX_ECHO_BYTES: usize = 16;

/// Reads a line; `None` if it is blank.
pub(crate) fn parse(line: &str) -> Result<Option<Command>, BadCommand> {
    let (word, rest) = split_word(line);
    if word.is_empty() {
        return Ok(None);
    }
    let Some(command) =
        HELP.iter().map(|(usage, _)| split_word(usage).0).find(|command| *command == word)
    else {
        let echo = match word.len() <= MAX_ECHO_BYTES {
            true => format!(" {word:?}"),
            false => String::new(),
        };
        let text = format!("unknown command{echo}; \"help\" lists the commands");
        return Err(BadCommand { command: None, text });
    };
    // TEXT is taken as it stands, spaces inside and at its end included.
    let text = || required(command, rest, "TEXT").map(str::to_owned);
    Ok(Some(match command {
        "broadcast" => Command::Broadcast(text()?),
        "meta" => Command::Meta(rest.to_owned()),
        "send" | "send-packet" => {
            let (name, text) = split_word(rest);
            Command::Send {
                reliably: command == "send",
                name: required(command, name, "NAME and TEXT")?.to_owned(),
                text: required(command, text, "TEXT after NAME")?.to_owned(),
            }
        }
        "set" => {
            let (field, value) = split_word(rest);
            Command::Set {
                field: required(command, field, "FIELD and VALUE")?.to_owned(),
                value: required(command, value.trim_end(), "VALUE after FIELD")?.to_owned(),
            }
        }
        "ping" | "explain" => {
            let (name, more) = split_word(required(command, rest, "NAME")?);
            nothing(command, more)?;
            let name = name.to_owned();
            if command == "ping" { Command::Ping(name) } else { Command::Explain(name) }
        }
        "join" => {
            let seeds = required(command, rest, "at least one ADDR")?;
            Command::Join(seeds.split_whitespace().map(str::to_owned).collect())
        }
        "keys" => {
            let bad = |text| BadCommand { command: Some(command), text };
            Command::Keys(KeysCommand::parse(rest).map_err(bad)?)
        }
        "tls" => match split_word(rest) {
            ("reload", more) => {
                nothing(command, more)?;
                Command::TlsReload
            }
            _ => {
                let text = "tls needs reload".to_owned();
                return Err(BadCommand { command: Some(command), text });
            }
        },
        _ => {
            nothing(command, rest)?;
            match command {
                "members" => Command::Members,
                "health" => Command::Health,
                "stats" => Command::Stats,
                "settings" => Command::Settings,
                "leave" => Command::Leave,
                "quit" => Command::Quit,
                _ => Command::Help,
            }
        }
    }))
}

/// The first word, and what stands behind the space after it.
fn split_word(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    (word, rest.trim_start())
}

fn required<'a>(command: &'static str, rest: &'a str, what: &str) -> Result<&'a str, BadCommand> {
    match rest.is_empty() {
        false => Ok(rest),
        true => Err(BadCommand { command: Some(command), text: format!("{command} needs {what}") }),
    }
}

fn nothing(command: &'static str, rest: &str) -> Result<(), BadCommand> {
    match rest.is_empty() {
        true => Ok(()),
        false => Err(BadCommand {
            command: Some(command),
            text: format!("{command}: there is too much behind it"),
        }),
    }
}
