//! Which address to tell other nodes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use if_addrs::{IfOperStatus, get_if_addrs};

use super::Local;

/// The address to advertise for a transport whose first socket is `bound`.
///
/// That is `wanted`, if given, with the port that was bound in the place of port 0. Otherwise it is
/// `bound`, or, if that is a wildcard like `0.0.0.0`, an address of this machine's interfaces that
/// are up, by these rules in turn:
/// 1. of the wildcard's IP version; a dual-stack `[::]` takes any, and IPv4 before IPv6 where the
///    next rule leaves a choice;
/// 2. private (RFC 1918, or fc00::/7) before public, public before loopback; link-local never;
/// 3. the address from which the default route leaves, if it is among those left;
/// 4. the first in the system's order.
///
/// # Errors
/// If the system does not tell its interfaces.
pub fn advertise_addr(wanted: Option<SocketAddr>, bound: Local) -> io::Result<SocketAddr> {
    let port = bound.addr.port();
    if let Some(mut addr) = wanted {
        if addr.port() == 0 {
            addr.set_port(port);
        }
        return Ok(addr);
    }
    if !bound.addr.ip().is_unspecified() {
        return Ok(bound.addr);
    }
    let interfaces = interface_ips()?;
    let routes = [default_route_v4(), default_route_v6()];
    let ip = choose(bound, &interfaces, &routes.map(|route| route.ok()));
    Ok(SocketAddr::new(ip, port))
}

/// The best of `interfaces` for a wildcard. `routes` are the addresses from which the default
/// routes leave, where they are known.
fn choose(bound: Local, interfaces: &[IpAddr], routes: &[Option<IpAddr>]) -> IpAddr {
    let fits = |ip: &&IpAddr| bound.dual_stack || ip.is_ipv4() == bound.addr.is_ipv4();
    let rank = |ip: &&IpAddr| {
        let reach = reach(**ip)?;
        Some((reach, ip.is_ipv6(), !routes.contains(&Some(**ip))))
    };
    interfaces
        .iter()
        .filter(fits)
        .filter_map(|ip| Some((rank(&ip)?, *ip)))
        // `min_by_key` keeps the first of equals: the system's order is the last rule.
        .min_by_key(|(rank, _)| *rank)
        .map_or_else(|| loopback(bound), |(_, ip)| ip)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Private,
    Public,
    Loopback,
}

/// `None` for what cannot be advertised.
fn reach(ip: IpAddr) -> Option<Reach> {
    let (private, link_local) = match ip {
        IpAddr::V4(v4) => (v4.is_private(), v4.is_link_local()),
        IpAddr::V6(v6) => (v6.is_unique_local(), v6.is_unicast_link_local()),
    };
    if link_local || ip.is_unspecified() || ip.is_multicast() {
        None
    } else if ip.is_loopback() {
        Some(Reach::Loopback)
    } else if private {
        Some(Reach::Private)
    } else {
        Some(Reach::Public)
    }
}

fn loopback(bound: Local) -> IpAddr {
    if bound.addr.is_ipv4() || bound.dual_stack {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    }
}

/// The addresses of the interfaces that are not known to be down (an idle container bridge is).
fn interface_ips() -> io::Result<Vec<IpAddr>> {
    let down = [IfOperStatus::Down, IfOperStatus::LowerLayerDown, IfOperStatus::NotPresent];
    let interfaces = get_if_addrs()?;
    Ok(interfaces
        .into_iter()
        .filter(|interface| !down.contains(&interface.oper_status))
        .map(|interface| interface.ip())
        .collect())
}

/// Connecting a UDP socket sends nothing but makes the system choose a route. The peers' addresses
/// are of the ranges reserved for documentation, so only a default route leads there.
fn default_route_v4() -> io::Result<IpAddr> {
    source_towards((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into())
}

fn default_route_v6() -> io::Result<IpAddr> {
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    source_towards((Ipv6Addr::UNSPECIFIED, 0).into(), (documentation, 9).into())
}

fn source_towards(from: SocketAddr, to: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(addr: &str) -> Local {
        Local { addr: addr.parse().unwrap(), dual_stack: false }
    }

    fn dual() -> Local {
        Local { dual_stack: true, ..bound("[::]:7946") }
    }

    fn chosen(bound: Local, interfaces: &[&str], routes: &[&str]) -> String {
        let interfaces: Vec<_> = interfaces.iter().map(|ip| ip.parse().unwrap()).collect();
        let routes: Vec<_> = routes.iter().map(|ip| ip.parse().ok()).collect();
        choose(bound, &interfaces, &routes).to_string()
    }

    #[test]
    fn what_is_asked_for_wins_and_port_zero_is_filled_in() {
        let wanted = |addr: &str| {
            advertise_addr(Some(addr.parse().unwrap()), bound("0.0.0.0:7946")).unwrap().to_string()
        };
        assert_eq!(wanted("203.0.113.9:1234"), "203.0.113.9:1234");
        assert_eq!(wanted("203.0.113.9:0"), "203.0.113.9:7946");
    }

    #[test]
    fn a_bound_address_is_advertised_as_it_is() {
        let addr = advertise_addr(None, bound("127.0.0.1:7946")).unwrap();
        assert_eq!(addr.to_string(), "127.0.0.1:7946");
    }

    #[test]
    fn a_wildcard_advertises_something_usable() {
        let addr = advertise_addr(None, bound("0.0.0.0:7946")).unwrap();
        assert!(addr.is_ipv4() && !addr.ip().is_unspecified() && addr.port() == 7946, "{addr}");
    }

    #[test]
    fn private_before_public_before_loopback() {
        let v4 = bound("0.0.0.0:7946");
        let all = ["127.0.0.1", "169.254.0.5", "198.51.100.7", "10.0.0.5", "192.168.0.5"];
        assert_eq!(chosen(v4, &all, &[]), "10.0.0.5");
        assert_eq!(chosen(v4, &all[..3], &[]), "198.51.100.7");
        assert_eq!(chosen(v4, &all[..2], &[]), "127.0.0.1");
        assert_eq!(chosen(v4, &[], &[]), "127.0.0.1");
    }

    #[test]
    fn the_default_route_decides_among_equals_only() {
        let v4 = bound("0.0.0.0:7946");
        let two = ["172.17.0.1", "192.168.0.5", "198.51.100.7"];
        assert_eq!(chosen(v4, &two, &["192.168.0.5"]), "192.168.0.5");
        assert_eq!(chosen(v4, &two, &["198.51.100.7"]), "172.17.0.1");
        assert_eq!(chosen(v4, &two, &["10.9.9.9", "nonsense"]), "172.17.0.1");
    }

    #[test]
    fn the_ip_version_is_that_of_the_wildcard() {
        let both = ["::1", "fe80::5", "2001:db8::5", "fd00::5", "127.0.0.1", "192.168.0.5"];
        assert_eq!(chosen(bound("0.0.0.0:1"), &both, &[]), "192.168.0.5");
        assert_eq!(chosen(bound("[::]:1"), &both, &[]), "fd00::5");
        assert_eq!(chosen(bound("[::]:1"), &both[..3], &[]), "2001:db8::5");
        assert_eq!(chosen(bound("[::]:1"), &["127.0.0.1"], &[]), "::1");
        assert_eq!(chosen(dual(), &both, &[]), "192.168.0.5");
        assert_eq!(chosen(dual(), &both[..5], &[]), "fd00::5");
        assert_eq!(chosen(dual(), &["::1", "127.0.0.1"], &[]), "127.0.0.1");
    }
}
