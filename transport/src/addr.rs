//! Canonical socket addresses.

use std::net::{SocketAddr, SocketAddrV6};

/// The one form in which an address is passed about: an IPv4-mapped IPv6 address becomes the IPv4
/// address it stands for, and the IPv6 flow label is cleared. The scope of a link-local address
/// stays, since without it the address cannot be reached.
///
/// A dual-stack socket reports IPv4 peers in mapped form; without this the same peer would have two
/// addresses and count as two.
pub fn canonical_addr(addr: SocketAddr) -> SocketAddr {
    let SocketAddr::V6(v6) = addr else {
        return addr;
    };
    match v6.ip().to_ipv4_mapped() {
        Some(v4) => SocketAddr::new(v4.into(), v6.port()),
        None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_becomes_v4_and_the_rest_stays() {
        let canonical = |s: &str| canonical_addr(s.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:10.0.0.1]:7946"), "10.0.0.1:7946");
        assert_eq!(canonical("10.0.0.1:7946"), "10.0.0.1:7946");
        assert_eq!(canonical("[2001:db8::1]:7946"), "[2001:db8::1]:7946");
        assert_eq!(canonical("[fe80::1%3]:7946"), "[fe80::1%3]:7946");
    }

    #[test]
    fn flow_label_is_cleared() {
        let labelled = SocketAddrV6::new("2001:db8::1".parse().unwrap(), 1, 77, 0);
        let plain = SocketAddrV6::new("2001:db8::1".parse().unwrap(), 1, 0, 0);
        assert_eq!(canonical_addr(labelled.into()), SocketAddr::from(plain));
    }
}
