//! Names of seeds, by DNS (cargo feature `dns`).
//!
//! A name is asked for its IPv4 and its IPv6 addresses, of which all count; one that begins with an underscore, as
//! `_memberlist._udp.example.com`, for its SRV records (RFC 2782), which bring their ports. An answer that is cut
//! off is asked for again over TCP, so that a name may have hundreds of addresses. Nothing is cached: who asks
//! again, because it is alone, wants to know what is there now. Go asks over TCP first, for addresses alone.

use std::fmt;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::{ResolveError, TokioResolver};

/// How names of seeds are looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Dns {
    /// The servers to ask, over UDP and TCP. Default none: those of the system, and its file of hosts.
    pub servers: Vec<SocketAddr>,
    /// How long one seed's name may take, with all that its records lead to. Default 10 s.
    pub timeout: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Duration::from_secs(10) }
    }
}

/// Looks names up.
pub(crate) struct Lookup {
    settings: Dns,
    /// Made when the first name is looked up: most seeds are addresses.
    resolver: OnceLock<Result<TokioResolver, String>>,
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(&self.settings).finish()
    }
}

impl Lookup {
    pub(crate) fn new(settings: Dns) -> Self {
        Self { settings, resolver: OnceLock::new() }
    }

    /// All addresses of a name, with that port or those of its SRV records.
    pub(crate) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let resolver = self.resolver.get_or_init(|| self.make()).as_ref().map_err(Clone::clone)?;
        let looking_up = async {
            match host.starts_with('_') {
                true => services(resolver, host).await,
                false => Ok(ips(resolver, host, port).await?),
            }
        };
        match tokio::time::timeout(self.settings.timeout, looking_up).await {
            Ok(found) => found,
            Err(_) => Err(format!("no answer within {:?}", self.settings.timeout)),
        }
    }

    fn make(&self) -> Result<TokioResolver, String> {
        let mut builder = match self.settings.servers.is_empty() {
            true => TokioResolver::builder_tokio().map_err(|error| error.to_string())?,
            false => {
                let mut config = ResolverConfig::new();
                for &server in &self.settings.servers {
                    for protocol in [Protocol::Udp, Protocol::Tcp] {
                        config.add_name_server(NameServerConfig::new(server, protocol));
                    }
                }
                TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
            }
        };
        self.set(builder.options_mut());
        Ok(builder.build())
    }

    fn set(&self, options: &mut ResolverOpts) {
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        options.try_tcp_on_error = true;
        options.edns0 = true;
        // Two attempts fit the time for all.
        options.timeout = (self.settings.timeout / 3).max(Duration::from_millis(1));
        options.attempts = 2;
    }
}

async fn ips(resolver: &TokioResolver, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = resolver.lookup_ip(host).await.map_err(in_words)?;
    Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// The addresses of all targets; one that has none does not hide the others.
async fn services(resolver: &TokioResolver, host: &str) -> Result<Vec<SocketAddr>, String> {
    let records = resolver.srv_lookup(host).await.map_err(in_words)?;
    let (mut found, mut fault) = (Vec::new(), None);
    for record in records.iter() {
        match ips(resolver, &record.target().to_utf8(), record.port()).await {
            Ok(addrs) => found.extend(addrs),
            Err(error) => fault = Some(format!("{}: {error}", record.target())),
        }
    }
    match fault.filter(|_| found.is_empty()) {
        Some(fault) => Err(fault),
        None => Ok(found),
    }
}

fn in_words(error: ResolveError) -> String {
    match error.is_no_records_found() || error.is_nx_domain() {
        true => "the name is not known, or has no such records".to_owned(),
        false => error.to_string(),
    }
}
