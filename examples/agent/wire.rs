//! Which bytes to speak, and what nodes of Go memberlist want to know of this one.

use std::str::FromStr;

use clap::ValueEnum;
use memberlist::{Bytes, Config, Delegate, WireFormat};

use crate::output::Output;
use crate::report::Report;
use crate::serf::{self, Tag};

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Clusters with nodes of Go memberlist")]
pub(crate) struct Wire {
    /// The format on the wire: this library's own; HashiCorp's, for a Go cluster; or both, for one whose
    /// Go nodes are being replaced
    #[arg(long, value_enum)]
    wire: Option<Format>,

    /// The protocol version to announce as the current one, as ProtocolVersion in Go; 1 also seals and
    /// opens as old nodes do
    #[arg(long, value_name = "1-5", value_parser = clap::value_parser!(u8).range(1..=5))]
    protocol_version: Option<u8>,

    /// The versions of what runs above memberlist: a Serf pool demands 2:5:4
    #[arg(long, value_name = "MIN:MAX:CUR")]
    delegate_versions: Option<Versions>,

    /// A tag as members of a Serf pool have them, in place of --meta; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", conflicts_with = "meta")]
    tags: Vec<Tag>,

    /// A text for every node that exchanges states with this one; what they give is shown
    #[arg(long, value_name = "TEXT")]
    state: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Format {
    Native,
    Hashicorp,
    Mixed,
}

#[derive(Clone, Copy, Debug)]
struct Versions(u8, u8, u8);

impl FromStr for Versions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u8>, _> = text.split(':').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[min, max, current]) if (min..=max).contains(&current) => {
                Ok(Self(min, max, current))
            }
            _ => {
                Err("three numbers of 0 to 255, MIN:MAX:CUR, the last between the others"
                    .to_owned())
            }
        }
    }
}

impl Wire {
    /// Brings all of it into the settings of the node.
    pub(crate) fn apply(&self, config: &mut Config) {
        let protocol = &mut config.protocol;
        match self.wire {
            Some(Format::Native) => protocol.wire_format = WireFormat::Native,
            Some(Format::Hashicorp) => protocol.wire_format = WireFormat::Hashicorp,
            Some(Format::Mixed) => protocol.wire_format = WireFormat::Mixed,
            None => {}
        }
        if let Some(version) = self.protocol_version {
            protocol.protocol_version = version;
        }
        if let Some(Versions(min, max, current)) = self.delegate_versions {
            protocol.application_versions = (min, max, current);
        }
        // Where nodes seal as old ones do, what is sealed so must be opened.
        if let Some(encryption) = &mut config.encryption {
            encryption.accept_v0 |= config.protocol.protocol_version == 1;
        }
    }

    /// The meta that Serf's tags make, if there are any.
    pub(crate) fn meta(&self) -> Option<Vec<u8>> {
        (!self.tags.is_empty()).then(|| serf::encode(&self.tags))
    }

    /// The text for other nodes, if there is one.
    pub(crate) fn own_state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// What gives out the own state, and shows those of others.
    pub(crate) fn state(&self, output: Output) -> State {
        State { own: self.state.clone().unwrap_or_default().into(), output }
    }
}

/// The name of a format.
pub(crate) fn name(format: WireFormat) -> &'static str {
    match format {
        WireFormat::Hashicorp => "hashicorp",
        WireFormat::Mixed => "mixed",
        _ => "native",
    }
}

/// The application's state, as far as the agent has one.
pub(crate) struct State {
    own: Bytes,
    output: Output,
}

impl Delegate for State {
    fn local_state(&self, _: bool) -> Bytes {
        self.own.clone()
    }

    fn merge_remote_state(&self, state: Bytes, join: bool) {
        self.output.try_tell(Report::state(&state, join));
    }
}
