//! From a seed as it is written down to the addresses where it may be.
//!
//! Without the cargo feature `dns` the system looks names up, on a thread for blocking work. With it a resolver
//! of this process's own does: see [`Dns`](crate::Dns).

use std::net::SocketAddr;

use crate::address::JoinAddress;
use crate::config::Config;

/// One seed is tried at so many addresses at most: a name may have thousands.
const MAX_ADDRESSES: usize = 256;

/// Looks names up.
pub(crate) struct Resolver {
    #[cfg(feature = "dns")]
    dns: crate::dns::Lookup,
}

impl Resolver {
    #[cfg_attr(not(feature = "dns"), allow(unused_variables, reason = "the system has its own"))]
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            #[cfg(feature = "dns")]
            dns: crate::dns::Lookup::new(config.dns.clone()),
        }
    }

    /// The addresses of a seed, in order; an error in words.
    pub(crate) async fn addresses(&self, seed: &JoinAddress) -> Result<Vec<SocketAddr>, String> {
        let found = match seed.ip() {
            Some(ip) => vec![SocketAddr::new(ip, seed.port())],
            None => self.look_up(seed.host(), seed.port()).await?,
        };
        let mut addrs: Vec<SocketAddr> =
            found.into_iter().map(memberlist_protocol::canonical).collect();
        addrs.sort();
        addrs.dedup();
        addrs.truncate(MAX_ADDRESSES);
        match addrs.is_empty() {
            true => Err("the name has no addresses".to_owned()),
            false => Ok(addrs),
        }
    }

    #[cfg(not(feature = "dns"))]
    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((host, port)).await;
        found.map(Iterator::collect).map_err(|error| error.to_string())
    }

    #[cfg(feature = "dns")]
    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        self.dns.addresses(host, port).await
    }
}
