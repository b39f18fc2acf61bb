//! Join addresses: how a user writes down a seed.
//!
//! The form is `[name/]host[:port]`, as Go memberlist reads it:
//!
//! - everything before the first `/` is the name that the node there must have;
//! - the host is an IP literal or a name to look up; an IPv6 literal may stand in brackets, and must
//!   if a port follows;
//! - the port is decimal; without one, the default applies.
//!
//! Nothing is looked up here.

use std::fmt;
use std::net::IpAddr;

/// Where to join, as the user wrote it, taken apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct JoinAddress {
    name: Option<String>,
    host: String,
    port: u16,
}

/// A text that is not a join address. Blame: the caller.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It begins with `/`.
    #[error(
        "\"{address}\" has no node name before the \"/\"; write \"name/host:port\", or leave the \
         \"/\" out"
    )]
    EmptyName {
        /// The whole text.
        address: String,
    },
    /// There is nothing where the host belongs.
    #[error("\"{address}\" has no host; write \"host:port\" or \"host\"")]
    EmptyHost {
        /// The whole text.
        address: String,
    },
    /// Colons or brackets do not add up.
    #[error("\"{address}\": {fault}; write an IPv6 address with a port as \"[::1]:7946\"")]
    Malformed {
        /// The whole text.
        address: String,
        /// What does not add up.
        fault: &'static str,
    },
    /// The port is not a number that a port can have.
    #[error("\"{address}\": \"{port}\" is not a port; write a decimal number from 0 to 65535")]
    Port {
        /// The whole text.
        address: String,
        /// What stands where the port belongs.
        port: String,
    },
}

impl JoinAddress {
    /// Takes `[name/]host[:port]` apart.
    ///
    /// # Errors
    /// If it is not of that form. Whether the host exists is not asked.
    pub fn parse(address: &str, default_port: u16) -> Result<Self, AddressError> {
        let (name, place) = match address.split_once('/') {
            Some(("", _)) => {
                let address = address.to_owned();
                return Err(AddressError::EmptyName { address });
            }
            Some((name, place)) => (Some(name.to_owned()), place),
            None => (None, address),
        };
        let complete = ensure_port(place, default_port);
        let (host, port) = split_host_port(&complete)
            .map_err(|fault| AddressError::Malformed { address: address.to_owned(), fault })?;
        let port = parse_port(port).ok_or_else(|| AddressError::Port {
            address: address.to_owned(),
            port: port.to_owned(),
        })?;
        if host.is_empty() {
            let address = address.to_owned();
            return Err(AddressError::EmptyHost { address });
        }
        let host = host.to_owned();
        Ok(Self { name, host, port })
    }

    /// The name that the node there must have, if one is asked for.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The host, without brackets: an IP literal or a name to look up.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, given or default.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as an IP, if it is a literal: then there is nothing to look up.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Writes what [`JoinAddress::parse`] reads back.
impl fmt::Display for JoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}/")?;
        }
        f.write_str(&join_host_port(&self.host, self.port))
    }
}

/// Whether a port is written behind the host. What follows a lone colon counts, even if it is
/// nothing or no number; of a bare IPv6 address no part is a port.
#[doc(hidden)]
pub fn has_port(place: &str) -> bool {
    if place.rfind('[') == Some(0) {
        return place.rfind(':') > place.rfind(']');
    }
    place.bytes().filter(|&byte| byte == b':').count() == 1
}

/// The same place with a port: the default, if it has none.
#[doc(hidden)]
pub fn ensure_port(place: &str, default_port: u16) -> String {
    if has_port(place) {
        return place.to_owned();
    }
    join_host_port(place.trim_matches(['[', ']']), default_port)
}

fn join_host_port(host: &str, port: u16) -> String {
    // A host with colons, or with a zone, can only be an IPv6 address.
    if host.contains([':', '%']) { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Splits `host:port` or `[host]:port`; the brackets go.
fn split_host_port(place: &str) -> Result<(&str, &str), &'static str> {
    const NO_PORT: &str = "a port is missing";
    const COLONS: &str = "there are too many colons";
    const BRACKETS: &str = "the brackets do not match";
    let (host, port, host_may_have_colons) = match place.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or(BRACKETS)?;
            let port = rest.strip_prefix(':').ok_or(NO_PORT)?;
            (host, port, true)
        }
        None => {
            let (host, port) = place.rsplit_once(':').ok_or(NO_PORT)?;
            (host, port, false)
        }
    };
    if port.contains(':') || (host.contains(':') && !host_may_have_colons) {
        return Err(COLONS);
    }
    if host.contains(['[', ']']) || port.contains(['[', ']']) {
        return Err(BRACKETS);
    }
    Ok((host, port))
}

/// Digits only: the standard parser would take a plus sign too.
fn parse_port(port: &str) -> Option<u16> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| port.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn parse(address: &str) -> Result<(Option<String>, String, u16), AddressError> {
        JoinAddress::parse(address, 7946).map(|a| (a.name, a.host, a.port))
    }

    #[test]
    fn every_part_may_be_there_or_not() {
        let parts = |name: Option<&str>, host: &str, port| {
            Ok((name.map(str::to_owned), host.to_owned(), port))
        };
        assert_eq!(parse("10.0.0.1"), parts(None, "10.0.0.1", 7946));
        assert_eq!(parse("10.0.0.1:80"), parts(None, "10.0.0.1", 80));
        assert_eq!(parse("seed.local"), parts(None, "seed.local", 7946));
        assert_eq!(parse("a/seed:1"), parts(Some("a"), "seed", 1));
        assert_eq!(parse("a/[::1]:1"), parts(Some("a"), "::1", 1));
        assert_eq!(parse("a/::1"), parts(Some("a"), "::1", 7946));
        assert_eq!(parse("[::1]"), parts(None, "::1", 7946));
        assert_eq!(parse("fe80::1%eth0"), parts(None, "fe80::1%eth0", 7946));
        assert_eq!(parse("a/b/c"), parts(Some("a"), "b/c", 7946));
        assert_eq!(parse("h:0"), parts(None, "h", 0));
        assert_eq!(parse("h:00080"), parts(None, "h", 80));
    }

    #[test]
    fn a_port_is_a_decimal_number_of_sixteen_bits() {
        for port in ["", "x", "-1", "+80", "65536", "0x50", "8 0", "99999999999999999999"] {
            let address = format!("10.0.0.1:{port}");
            let error = AddressError::Port { address: address.clone(), port: port.to_owned() };
            assert_eq!(parse(&address), Err(error));
        }
        assert_eq!(parse("10.0.0.1:65535").unwrap().2, 65_535);
    }

    #[test]
    fn a_name_or_host_that_is_announced_must_be_there() {
        for address in ["/10.0.0.1", "/"] {
            assert!(matches!(parse(address), Err(AddressError::EmptyName { .. })));
        }
        for address in ["", ":80", "[]:80", "a/", "a/:80", "[]"] {
            assert!(matches!(parse(address), Err(AddressError::EmptyHost { .. })), "{address}");
        }
    }

    #[test]
    fn brackets_and_colons_must_add_up() {
        for address in ["[::1:80", "[::1]80:1", "a[b:80", "a]b:80", "[::1]x:80", "[a]:b]:80"] {
            let result = parse(address);
            assert!(matches!(result, Err(AddressError::Malformed { .. })), "{address}: {result:?}");
        }
    }

    #[test]
    fn only_a_literal_has_an_ip() {
        let ip = |address| JoinAddress::parse(address, 1).unwrap().ip();
        assert_eq!(ip("10.0.0.1"), Some([10, 0, 0, 1].into()));
        assert_eq!(ip("a/[::1]:9"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(ip("localhost"), None);
        assert_eq!(ip("10.0.0.01"), None);
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for address in ["10.0.0.1:80", "a/host:1", "a/[::1]:7946", "[fe80::1%eth0]:1"] {
            let parsed = JoinAddress::parse(address, 1).unwrap();
            assert_eq!(parsed.to_string(), address);
            assert_eq!(JoinAddress::parse(&parsed.to_string(), 9), Ok(parsed));
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        let text = |address: &str| parse(address).unwrap_err().to_string();
        assert!(text("/x").contains("name/host:port"));
        assert!(text(":1").contains("host:port"));
        assert!(text("[::1").contains("[::1]:7946"));
        assert!(text("x:y").contains("0 to 65535"));
    }
}
