//! Who may take part: keys, labels and compression, from the command line.
//!
//! What is given as a key never comes back in an error: keys are spoken of by their place or their
//! fingerprint.

use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use memberlist::security::{KeySize, Keyring, KeyringFileError, Label, RandomnessError, SecretKey};
use memberlist::{Config, Encryption, InboundLabel};

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Keys, labels, compression")]
pub(crate) struct Security {
    /// A key of the cluster, as "agent keygen" prints it: the first one seals, each one opens; may be
    /// given several times. Who may list this machine's processes sees it; when there is a keyring
    /// file, --keyring alone is enough
    #[arg(long = "key", value_name = "BASE64", num_args = 1..)]
    keys: Vec<KeyText>,

    /// The file that keeps the keys and is kept up to date: a JSON list of them in base64, as Serf's.
    /// If it is not there yet, it is made of what is given with --key; if it is there, its keys are
    /// used, and not those
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,

    /// Send in the clear: a step on the way from a plain cluster to an encrypted one
    #[arg(long)]
    no_encrypt_outgoing: bool,

    /// Accept what is not encrypted: another step on that way
    #[arg(long)]
    no_verify_incoming: bool,

    /// Open what old nodes of protocol version 1 seal, of which the version is not proven
    #[arg(long)]
    accept_v0: bool,

    /// The name of the cluster, the same on all of its nodes; those with another one are kept apart
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    /// Send without the label: a step on the way to a cluster with one
    #[arg(long)]
    no_label_outgoing: bool,

    /// Accept what has no label: another step on that way
    #[arg(long)]
    no_require_label: bool,

    /// Do not compress what is sent; what comes compressed is read all the same
    #[arg(long)]
    no_compress: bool,
}

/// What was given as a key. It is not shown.
#[derive(Clone)]
struct KeyText(String);

impl FromStr for KeyText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(..)")
    }
}

impl Security {
    /// Whether the flags go together, or with what a file of settings may say. Opens no file.
    pub(crate) fn check(&self, has_file: bool) -> Result<(), String> {
        let label = self.label.as_deref().unwrap_or_default();
        Label::new(label).map_err(|error| format!("--label: {error}"))?;
        let keyless = self.keys.is_empty() && self.keyring.is_none() && !has_file;
        let labelless = label.is_empty() && !has_file;
        let switches = [
            (self.no_encrypt_outgoing && keyless, "--no-encrypt-outgoing", "--key or --keyring"),
            (self.no_verify_incoming && keyless, "--no-verify-incoming", "--key or --keyring"),
            (self.accept_v0 && keyless, "--accept-v0", "--key or --keyring"),
            (self.no_label_outgoing && labelless, "--no-label-outgoing", "--label"),
            (self.no_require_label && labelless, "--no-require-label", "--label"),
        ];
        match switches.iter().find(|(alone, ..)| *alone) {
            Some((_, switch, needs)) => Err(format!("{switch} means nothing without {needs}")),
            None => self.keys().map(drop),
        }
    }

    /// Brings all of it into the settings of the node. Reads the keyring file, or makes it.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), String> {
        config.protocol.compression &= !self.no_compress;
        if let Some(label) = &self.label {
            config.label = label.clone();
        }
        config.label_outgoing &= !self.no_label_outgoing;
        if self.no_require_label {
            config.inbound_label = InboundLabel::Optional;
        }
        if let Some(encryption) = self.encryption()? {
            config.encryption = Some(encryption);
        }
        if let Some(encryption) = &mut config.encryption {
            encryption.encrypt_outgoing &= !self.no_encrypt_outgoing;
            encryption.verify_incoming &= !self.no_verify_incoming;
            encryption.accept_v0 |= self.accept_v0;
        }
        Ok(())
    }

    fn encryption(&self) -> Result<Option<Encryption>, String> {
        let keys = self.keys()?;
        if let Some(file) = &self.keyring {
            let encryption = Encryption::from_file(file, keys).map_err(|error| match error {
                KeyringFileError::Missing { .. } => {
                    format!("--keyring: {error}; give a --key to make it of")
                }
                KeyringFileError::NotJson { .. } => {
                    format!("--keyring: {error}; a bare key is given with --key")
                }
                KeyringFileError::Empty { .. } => {
                    format!("--keyring: {error}; without the file, it is made of a --key")
                }
                error => format!("--keyring: {error}"),
            })?;
            return Ok(Some(encryption));
        }
        let mut keys = keys.into_iter();
        let Some(primary) = keys.next() else { return Ok(None) };
        let keyring =
            Keyring::with_keys(primary, keys).map_err(|error| format!("--key: {error}"))?;
        Ok(Some(Encryption::new(keyring)))
    }

    fn keys(&self) -> Result<Vec<SecretKey>, String> {
        let key = |(at, text): (usize, &KeyText)| {
            SecretKey::from_base64(&text.0)
                .map_err(|error| format!("--key number {}, read as base64: {error}", at + 1))
        };
        self.keys.iter().enumerate().map(key).collect()
    }
}

/// Prints a new key for a cluster, in base64, and nothing else.
#[derive(Parser, Debug)]
#[command(name = "agent keygen")]
pub(crate) struct Keygen {
    /// How long the key is
    #[arg(long, value_enum, default_value_t = Bits::Bits256)]
    bits: Bits,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Bits {
    #[value(name = "128")]
    Bits128,
    #[value(name = "192")]
    Bits192,
    #[value(name = "256")]
    Bits256,
}

impl Keygen {
    pub(crate) fn print(&self) -> Result<ExitCode, String> {
        let size = match self.bits {
            Bits::Bits128 => KeySize::Bits128,
            Bits::Bits192 => KeySize::Bits192,
            Bits::Bits256 => KeySize::Bits256,
        };
        let key = SecretKey::generate(size).map_err(|error: RandomnessError| error.to_string())?;
        let mut output = std::io::stdout().lock();
        writeln!(output, "{}", key.to_base64().as_str())
            .and_then(|()| output.flush())
            .map_err(|error| format!("could not write the key: {error}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
