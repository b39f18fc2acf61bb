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

use futures_util::stream::{self, StreamExt};
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup_ip::LookupIp;
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

/// Questions that are under way at the same time: a name may have a thousand SRV records.
const MAX_QUESTIONS: usize = 64;

/// One for IPv4 and one for IPv6: where a server is silent about one of them, the other's answer counts.
type Resolvers = [TokioResolver; 2];

/// Looks names up.
pub(crate) struct Lookup {
    settings: Dns,
    /// Made when the first name is looked up: most seeds are addresses.
    resolvers: OnceLock<Result<Resolvers, String>>,
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(&self.settings).finish()
    }
}

impl Lookup {
    pub(crate) fn new(settings: Dns) -> Self {
        Self { settings, resolvers: OnceLock::new() }
    }

    /// All addresses of a name, with that port or those of its SRV records: those that are known when the time
    /// is over, however many questions have no answer then.
    pub(crate) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let resolvers =
            self.resolvers.get_or_init(|| self.make()).as_ref().map_err(Clone::clone)?;
        let mut answers = Answers::default();
        let asking = async {
            match host.starts_with('_') {
                true => answers.ask_services(resolvers, host).await,
                false => answers.ask(resolvers, vec![(host.to_owned(), port)]).await,
            }
        };
        let in_time = tokio::time::timeout(self.settings.timeout, asking).await.is_ok();
        match answers {
            Answers { found, .. } if !found.is_empty() => Ok(found),
            _ if !in_time => Err(format!("no answer within {:?}", self.settings.timeout)),
            Answers { fault: Some((of, fault)), .. } if of == host => Err(fault),
            Answers { fault: Some((of, fault)), .. } => Err(format!("{of}: {fault}")),
            Answers { found, .. } => Ok(found),
        }
    }

    fn make(&self) -> Result<Resolvers, String> {
        let only = |strategy| self.make_for(strategy);
        Ok([only(LookupIpStrategy::Ipv4Only)?, only(LookupIpStrategy::Ipv6Only)?])
    }

    fn make_for(&self, strategy: LookupIpStrategy) -> Result<TokioResolver, String> {
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
        self.set(builder.options_mut(), strategy);
        Ok(builder.build())
    }

    fn set(&self, options: &mut ResolverOpts, strategy: LookupIpStrategy) {
        options.ip_strategy = strategy;
        options.cache_size = 0;
        options.try_tcp_on_error = true;
        options.edns0 = true;
        // Two attempts are three questions, which have to fit the time for all.
        options.timeout = (self.settings.timeout / 4).max(Duration::from_millis(1));
        options.attempts = 2;
    }
}

/// What is known of a name.
#[derive(Default)]
struct Answers {
    found: Vec<SocketAddr>,
    /// What went wrong, and with which name.
    fault: Option<(String, String)>,
}

impl Answers {
    /// Asks for the targets of a service, and for their addresses.
    async fn ask_services(&mut self, resolvers: &Resolvers, host: &str) {
        match resolvers[0].srv_lookup(host).await {
            Ok(records) => {
                let mut targets = Vec::new();
                for record in records.iter() {
                    targets.push((record.target().to_utf8(), record.port()));
                }
                self.ask(resolvers, targets).await;
            }
            Err(error) => self.fault = Some((host.to_owned(), in_words(&error))),
        }
    }

    /// Asks for the addresses of several names, at the same time: one that is silent hides none.
    async fn ask(&mut self, resolvers: &Resolvers, targets: Vec<(String, u16)>) {
        let mut questions = Vec::new();
        for (host, port) in targets {
            let [v4, v6] = resolvers;
            questions.push(question(v4, host.clone(), port));
            questions.push(question(v6, host, port));
        }
        let mut asking = stream::iter(questions).buffer_unordered(MAX_QUESTIONS);
        while let Some((answer, host, port)) = asking.next().await {
            match answer {
                Ok(ips) => self.found.extend(ips.iter().map(|ip| SocketAddr::new(ip, port))),
                // That there is none is what matters least.
                Err(error) if self.fault.is_none() || !is_unknown(&error) => {
                    self.fault = Some((host, in_words(&error)));
                }
                Err(_) => {}
            }
        }
    }
}

async fn question(
    resolver: &TokioResolver,
    host: String,
    port: u16,
) -> (Result<LookupIp, ResolveError>, String, u16) {
    (resolver.lookup_ip(host.as_str()).await, host, port)
}

fn is_unknown(error: &ResolveError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

fn in_words(error: &ResolveError) -> String {
    match is_unknown(error) {
        true => "the name is not known, or has no such records".to_owned(),
        false => error.to_string(),
    }
}
