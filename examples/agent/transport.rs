//! What the agent is made over, and what it needs of a transport that the library does not ask for.

use std::net::SocketAddr;

use clap::ValueEnum;
use memberlist::Transport;
use memberlist::net::{NetConfig, NetTransport};
use memberlist::quic::{QuicConfig, QuicTransport, TlsConfig};

use crate::tls::TlsFiles;

/// The transports to choose from.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum TransportKind {
    /// UDP and TCP on one port
    Net,
    /// QUIC on one UDP port, all encrypted; every node shows a certificate
    Quic,
}

/// A transport that can be bound.
pub(crate) enum TransportSettings {
    Net(NetConfig),
    Quic(Box<QuicConfig>, TlsFiles),
}

/// What differs from one transport to another.
pub(crate) trait AgentTransport: Transport {
    /// What it is called on the command line.
    const NAME: &'static str;
    /// Whether streams come from the port that their node listens at.
    const STREAMS_SHARE_PORT: bool;

    /// Where it listens.
    fn bound_addr(&self) -> Option<SocketAddr>;

    /// What it counted, by name.
    fn counts(&self) -> Vec<(&'static str, u64)>;

    /// Writes what it counted to the recorder that is in use.
    fn record_metrics(&self) {}

    /// Tells that recorder what it will be given.
    fn describe_metrics(&self) {}

    /// Shows and trusts other certificates from now on. After an error nothing has changed.
    fn reload_tls(&self, tls: TlsConfig) -> Result<(), String>;
}

impl AgentTransport for NetTransport {
    const NAME: &'static str = "net";
    const STREAMS_SHARE_PORT: bool = false;

    fn bound_addr(&self) -> Option<SocketAddr> {
        self.local_addrs().first().copied()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.stats().counts().collect()
    }

    fn reload_tls(&self, _: TlsConfig) -> Result<(), String> {
        Err("this transport has no certificates".to_owned())
    }
}

impl AgentTransport for QuicTransport {
    const NAME: &'static str = "quic";
    const STREAMS_SHARE_PORT: bool = true;

    fn bound_addr(&self) -> Option<SocketAddr> {
        Some(self.local_addr())
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.stats().counts().collect()
    }

    fn record_metrics(&self) {
        self.record_metrics();
    }

    fn describe_metrics(&self) {
        self.describe_metrics();
    }

    fn reload_tls(&self, tls: TlsConfig) -> Result<(), String> {
        self.reload(tls).map_err(|error| error.to_string())
    }
}
