//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, ValueEnum};
use memberlist::address::JoinAddress;
use memberlist::net::NetConfig;
use memberlist::quic::QuicConfig;
use memberlist::{Config, NodeId};

use crate::certs::Certs;
use crate::command::HELP;
use crate::config_file::{self, ConfigFile};
use crate::report::{clean, without_keys};
use crate::security::{Keygen, Security};
use crate::tls::TlsFlags;
use crate::transport::{TransportKind, TransportSettings};
use crate::wire::Wire;

/// The exit status for flags that cannot be used; clap's own.
const BAD_FLAGS: u8 = 2;
/// The first word that asks for a key instead of a node.
const KEYGEN: &str = "keygen";
/// The first word that asks for certificates instead.
const CERTS: &str = "certs";

/// One long-lived member of a cluster, for a terminal or a script.
#[derive(Parser, Debug)]
#[command(name = "agent", version, args_override_self = true, after_help = after_help())]
pub(crate) struct Args {
    /// The name of this node: unique in the cluster, one word of 1 to 255 bytes
    #[arg(long)]
    name: Option<String>,

    /// Settings from a file, TOML or JSON: the fields of the library's Config, below [protocol] those of
    /// the protocol, below [agent] these flags; what is given here wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the settings that come of it all, as such a file, and end
    #[arg(long)]
    print_config: bool,

    /// Over what to speak, the same on all nodes
    #[arg(long, value_enum, default_value_t = TransportKind::Net)]
    transport: TransportKind,

    /// Where to listen; port 0 finds a free one
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<SocketAddr>,

    /// Where others reach this node, if that is not where it listens; port 0 stands for the bound one
    #[arg(long, value_name = "ADDR:PORT")]
    advertise: Option<SocketAddr>,

    /// A running member to join, as [name/]host[:port]; may be given several times. Tried again as long as
    /// this node is alone, names looked up anew
    #[arg(long, value_name = "ADDR")]
    pub(crate) join: Vec<String>,

    /// The timing: for one data centre, for several regions, or for one machine
    #[arg(long, value_enum)]
    preset: Option<Preset>,

    /// A text that every member gets to know
    #[arg(long, value_name = "TEXT")]
    meta: Option<String>,

    /// Write one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Show this node to browsers at http://ADDR:PORT/, and its metrics to Prometheus at /metrics; port 0
    /// finds a free one. Nothing can be changed there, but there is NO AUTHENTICATION: whoever can
    /// connect sees the names, addresses and meta of all members. Prefer 127.0.0.1
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<SocketAddr>,

    #[command(flatten)]
    tls: TlsFlags,

    #[command(flatten)]
    security: Security,

    #[command(flatten)]
    pub(crate) wire: Wire,

    /// What the file says.
    #[arg(skip)]
    file: Option<ConfigFile>,
}

/// What is wrong with a name. Commands name members by one word.
fn name_fault(name: &String) -> Option<String> {
    let word = !name.chars().any(|c| c.is_whitespace() || c.is_control());
    match NodeId::new(name) {
        Err(error) => Some(format!("--name: {error}")),
        Ok(_) if word => None,
        Ok(_) => Some(format!(
            "--name {name:?}: a name is one word, without spaces or control characters"
        )),
    }
}

/// What a node is made of.
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) transport: TransportSettings,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Preset {
    Lan,
    Wan,
    Local,
}

/// What the command line asks for.
pub(crate) enum Task {
    Run(Box<Args>),
    Keygen(Keygen),
    Certs(Certs),
    PrintConfig(Box<Args>),
}

/// Why there are no arguments.
pub(crate) enum Refusal {
    /// They cannot be used; in one line.
    Bad(String),
    /// Help or the version was asked for.
    Asked(clap::Error),
}

impl Task {
    /// Reads and checks the command line. Nothing is opened or resolved yet.
    pub(crate) fn read() -> Result<Self, Refusal> {
        let given = || std::env::args_os().skip(1);
        let first = given().next().unwrap_or_default();
        if first == KEYGEN {
            return Ok(Self::Keygen(Keygen::try_parse_from(given())?));
        }
        if first == CERTS {
            let certs = Certs::try_parse_from(given())?;
            certs.check().map_err(Refusal::bad)?;
            return Ok(Self::Certs(certs));
        }
        let mut args = Args::try_parse()?;
        if let Some(path) = &args.config {
            let known = Args::in_a_file();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let file = ConfigFile::read(path, &known).map_err(Refusal::bad)?;
            let program = std::env::args_os().take(1);
            args = Args::try_parse_from(program.chain(file.flags.clone()).chain(given()))?;
            args.name = args.name.or_else(|| file.name().map(str::to_owned));
            args.file = Some(file);
        }
        args.check().map_err(Refusal::bad)?;
        let args = Box::new(args);
        Ok(if args.print_config { Self::PrintConfig(args) } else { Self::Run(args) })
    }
}

impl Args {
    fn check(&self) -> Result<(), String> {
        self.security.check(self.file.is_some())?;
        self.tls.check(self.transport == TransportKind::Quic)?;
        let missing = |what: &str| format!("{what} is missing, on the command line and in a file");
        let mut faults = Vec::new();
        faults.extend(self.name.as_ref().map_or_else(|| Some(missing("--name")), name_fault));
        faults.extend(self.bind.is_none().then(|| missing("--bind")));
        let config = match self.plain_config() {
            Ok(config) if faults.is_empty() => config,
            read => {
                faults.extend(read.err());
                return Err(faults.join("; "));
            }
        };
        let (len, limit) = (config.meta.len(), config.protocol.max_meta_bytes);
        if len > limit {
            let flag = if self.wire.meta().is_some() { "--tag" } else { "--meta" };
            return Err(format!("{flag}: {len} bytes are over the limit of {limit}"));
        }
        for seed in &self.join {
            JoinAddress::parse(seed, config.default_port)
                .map_err(|error| format!("--join: {error}"))?;
        }
        match self.advertise {
            Some(addr) if addr.ip().is_unspecified() || addr.ip().is_multicast() => {
                Err(format!("--advertise {addr}: this names no single node"))
            }
            _ => Ok(()),
        }
    }

    /// The settings of the node. Reads the keyring file, or makes it, and the certificates.
    pub(crate) fn settings(&self) -> Result<Settings, Refusal> {
        let transport = self.transport_settings().map_err(Refusal::bad)?;
        let mut config = self.plain_config().map_err(Refusal::bad)?;
        self.security.apply(&mut config).map_err(Refusal::bad)?;
        self.wire.apply(&mut config);
        // In the file there may be others.
        config.seeds.extend(self.join.iter().cloned());
        Ok(Settings { config, transport })
    }

    /// The names that may stand below `agent` in a file of settings: flags that ask for something else than a
    /// node, or say where its settings are, may not.
    fn in_a_file() -> Vec<String> {
        const ELSEWHERE: [&str; 5] = ["config", "help", "name", "print-config", "version"];
        let command = Self::command();
        let flags = command.get_arguments().filter_map(|flag| flag.get_long());
        let flags = flags.filter(|flag| !ELSEWHERE.contains(flag));
        flags.map(|flag| flag.replace('-', "_")).collect()
    }

    /// That it is missing is found by `check`, and is no fault of the other settings.
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("a")
    }

    /// Where to listen. The flags are checked: it is there.
    pub(crate) fn bind(&self) -> SocketAddr {
        self.bind.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The settings without what other groups of flags say.
    fn plain_config(&self) -> Result<Config, String> {
        let name = self.name();
        let mut config = match (&self.file, self.preset.unwrap_or(Preset::Lan)) {
            (Some(file), _) => {
                let named = self.config.as_deref().unwrap_or(Path::new("")).display();
                let preset = self.preset.and_then(|preset| preset.to_possible_value());
                let preset = preset.as_ref().map(PossibleValue::get_name);
                file.config(name, preset).map_err(|error| format!("--config {named}: {error}"))?
            }
            (None, Preset::Lan) => Config::lan(name),
            (None, Preset::Wan) => Config::wan(name),
            (None, Preset::Local) => Config::local(name),
        };
        let meta = self.wire.meta().or_else(|| self.meta.clone().map(String::into_bytes));
        if let Some(meta) = meta {
            config.meta = meta.into();
        }
        Ok(config)
    }

    /// The flags that are no settings of the node.
    fn as_table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        let mut put = |flag: &str, value: toml::Value| drop(table.insert(flag.to_owned(), value));
        put("bind", self.bind().to_string().into());
        let transport = self.transport.to_possible_value();
        if let Some(name) = transport.as_ref().map(PossibleValue::get_name) {
            put("transport", name.into());
        }
        if let Some(addr) = self.advertise {
            put("advertise", addr.to_string().into());
        }
        if let Some(addr) = self.http {
            put("http", addr.to_string().into());
        }
        self.tls.each(&mut put);
        if let Some(state) = self.wire.own_state() {
            put("state", state.into());
        }
        put("join", self.join.clone().into());
        put("json", self.json.into());
        table
    }

    /// Prints the settings that come of flags and file.
    pub(crate) fn print_config(&self) -> Result<ExitCode, Refusal> {
        let mut config = self.plain_config().map_err(Refusal::bad)?;
        self.security.apply(&mut config).map_err(Refusal::bad)?;
        self.wire.apply(&mut config);
        let text = config_file::as_toml(&config, self.as_table()).map_err(Refusal::bad)?;
        let mut output = std::io::stdout().lock();
        write!(output, "{text}")
            .and_then(|()| output.flush())
            .map_err(|error| Refusal::bad(format!("could not write the settings: {error}")))?;
        Ok(ExitCode::SUCCESS)
    }

    fn transport_settings(&self) -> Result<TransportSettings, String> {
        // The flags are checked: there are files if they are needed.
        let Some(files) = self.tls.files(self.name()) else {
            let mut config = NetConfig::new(self.bind());
            config.advertise_addr = self.advertise;
            return Ok(TransportSettings::Net(config));
        };
        let mut config = QuicConfig::new(self.bind(), files.load()?);
        config.advertise_addr = self.advertise;
        Ok(TransportSettings::Quic(Box::new(config), files))
    }
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        match error.use_stderr() {
            true => Self::Bad(first_paragraph(&error)),
            false => Self::Asked(error),
        }
    }
}

impl Refusal {
    fn bad(text: String) -> Self {
        Self::Bad(format!("error: {}", clean(&without_keys(&text))))
    }

    /// Tells it where it belongs, and gives the exit status.
    pub(crate) fn tell(self) -> ExitCode {
        // There is nobody to tell if telling fails.
        match self {
            Self::Bad(line) => {
                let _ = writeln!(std::io::stderr(), "{line}");
                ExitCode::from(BAD_FLAGS)
            }
            Self::Asked(error) => {
                let _ = error.print();
                ExitCode::SUCCESS
            }
        }
    }
}

/// What is wrong, without tips and usage, as one line. A value that belongs to no flag may be a key
/// that got there by mistake, and is not repeated; nor is a key in any other place.
fn first_paragraph(error: &clap::Error) -> String {
    let invalid = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.as_str(),
        _ => "",
    };
    if error.kind() == ErrorKind::UnknownArgument && !invalid.starts_with('-') {
        return "error: a value belongs to no flag; try --help".to_owned();
    }
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    format!("{}; try --help", clean(&without_keys(&words.join(" "))))
}

fn after_help() -> String {
    let mut help = format!(
        "agent {KEYGEN} [--bits 128|192|256] prints a new key, and ends.\n\
         agent {CERTS} --out DIR --name NAME... makes certificates for development, and ends.\n\n\
         Commands on standard input, one a line:\n"
    );
    for (command, what) in HELP {
        help.push_str(&format!("  {command:<16} {what}\n"));
    }
    help
}
