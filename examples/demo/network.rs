//! What the nodes of the demo speak over.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;

use memberlist::Transport;
use memberlist::net::NetTransport;
use memberlist::quic::{QuicConfig, QuicTransport, TlsConfig};

/// Gives each node its transport.
pub(crate) trait Network: Sized {
    /// What the nodes are started with.
    type Transport: Transport;

    /// How the first line of the demo goes on.
    const ABOUT: &'static str;

    /// Makes what the nodes of these names need.
    fn new(names: &[String]) -> Result<Self, Box<dyn Error>>;

    /// Binds the transport of a node; port 0 finds a free one.
    fn bind(&self, name: &str, addr: SocketAddr) -> Result<Self::Transport, Box<dyn Error>>;
}

/// UDP and TCP.
pub(crate) struct Net;

impl Network for Net {
    type Transport = NetTransport;

    const ABOUT: &'static str = "";

    fn new(_: &[String]) -> Result<Self, Box<dyn Error>> {
        Ok(Self)
    }

    fn bind(&self, _: &str, addr: SocketAddr) -> Result<NetTransport, Box<dyn Error>> {
        Ok(NetTransport::bind_addr(addr)?)
    }
}

/// QUIC, where each node has a certificate that speaks for its name alone. A node that is started
/// again has the same one.
pub(crate) struct Quic {
    certificates: HashMap<String, TlsConfig>,
}

impl Network for Quic {
    type Transport = QuicTransport;

    const ABOUT: &'static str =
        " over QUIC, each with a certificate of a CA made just now, bound to its name";

    fn new(names: &[String]) -> Result<Self, Box<dyn Error>> {
        let ca = TlsConfig::cluster_ca()?;
        let bound = |name: &String| Ok((name.clone(), ca.tls(name)?.bind_names(true)?));
        Ok(Self { certificates: names.iter().map(bound).collect::<Result<_, Box<dyn Error>>>()? })
    }

    fn bind(&self, name: &str, addr: SocketAddr) -> Result<QuicTransport, Box<dyn Error>> {
        let tls = self.certificates.get(name).ok_or("there is no certificate for this node")?;
        Ok(QuicTransport::bind(QuicConfig::new(addr, tls.clone()))?)
    }
}
