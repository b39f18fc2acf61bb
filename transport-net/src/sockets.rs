//! The sockets of a transport: opening them all on their ports, and choosing one to send by.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use memberlist_transport::canonical_addr;
use memberlist_transport::ip::{self, Local};
use socket2::{Protocol, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::{BindError, NetConfig};

/// How many ports to try when port 0 is asked for, as Go memberlist does.
const PORT_ATTEMPTS: u32 = 10;

/// Connections that the system completes before they are accepted.
const LISTEN_BACKLOG: i32 = 1024;

#[derive(Debug)]
pub(crate) struct Udp {
    pub(crate) socket: UdpSocket,
    pub(crate) local: Local,
}

/// One UDP socket and one listener for each address, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: Vec<Udp>,
    pub(crate) tcp: Vec<TcpListener>,
    /// The least of the receive buffers, as the system reports it.
    pub(crate) udp_recv_buffer_bytes: usize,
}

impl Sockets {
    /// Opens them all. Must be called within a tokio runtime.
    pub(crate) fn open(config: &NetConfig) -> Result<Self, BindError> {
        let any_port = config.bind_addrs.iter().any(|addr| addr.port() == 0);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Self::open_once(config) {
                Err(error) if any_port && is_taken(&error) => {
                    if attempts == PORT_ATTEMPTS {
                        return Err(BindError::NoCommonPort { attempts, last: Box::new(error) });
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn open_once(config: &NetConfig) -> Result<Self, BindError> {
        let addrs: Vec<_> = config.bind_addrs.iter().map(|addr| canonical_addr(*addr)).collect();
        let any_v4 = addrs.iter().any(SocketAddr::is_ipv4);
        let mut sockets = Self { udp: vec![], tcp: vec![], udp_recv_buffer_bytes: usize::MAX };
        let mut found_port = None;
        for mut addr in addrs {
            let asks_any = addr.port() == 0;
            if asks_any {
                addr.set_port(found_port.unwrap_or(0));
            }
            // A dual-stack socket and an IPv4 one cannot share a port.
            let dual_stack = addr.ip() == Ipv6Addr::UNSPECIFIED && !any_v4;
            let local = Local { addr, dual_stack };
            let failed = |protocol| move |source| BindError::Socket { protocol, addr, source };
            let tcp = listen(local).map_err(failed("tcp"))?;
            addr = tcp.local_addr().map_err(failed("tcp"))?;
            if asks_any {
                found_port = Some(addr.port());
            }
            sockets.tcp.push(tcp);

            let local = Local { addr, dual_stack };
            let failed = |source| BindError::Socket { protocol: "udp", addr, source };
            let (socket, recv_buffer_bytes) = bind_udp(local, config).map_err(failed)?;
            sockets.udp_recv_buffer_bytes = sockets.udp_recv_buffer_bytes.min(recv_buffer_bytes);
            sockets.udp.push(Udp { socket, local });
        }
        Ok(sockets)
    }

    /// The socket to send by, and the destination in the form that it takes.
    pub(crate) fn towards(&self, to: SocketAddr) -> Option<(&UdpSocket, SocketAddr)> {
        let at = choose(self.udp.iter().map(|udp| udp.local), to)?;
        let udp = &self.udp[at];
        Some((&udp.socket, native_form(udp.local, to)))
    }
}

/// Whether another port may succeed. Windows says "permission denied" of ports it has set aside.
fn is_taken(error: &BindError) -> bool {
    let BindError::Socket { source, .. } = error else {
        return false;
    };
    matches!(source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn listen(local: Local) -> io::Result<TcpListener> {
    let socket = ip::new_socket(local, Type::STREAM, Protocol::TCP)?;
    // So that a restarted node gets its port though old connections linger. On Windows the option
    // means something else: to take a port that another process uses.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&local.addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_udp(local: Local, config: &NetConfig) -> io::Result<(UdpSocket, usize)> {
    let buffers = (config.udp_recv_buffer_bytes, config.udp_send_buffer_bytes);
    let (socket, recv_buffer_bytes) = ip::bind_udp(local, buffers.0, buffers.1)?;
    Ok((UdpSocket::from_std(socket)?, recv_buffer_bytes))
}

/// The first of the best: see [`NetConfig::bind_addrs`].
fn choose(locals: impl Iterator<Item = Local>, to: SocketAddr) -> Option<usize> {
    locals
        .enumerate()
        .filter(|(_, local)| local.dual_stack || local.addr.is_ipv4() == to.is_ipv4())
        .min_by_key(|(_, local)| {
            let ip = local.addr.ip();
            !ip.is_unspecified() && ip.is_loopback() != to.ip().is_loopback()
        })
        .map(|(at, _)| at)
}

/// An IPv6 socket takes IPv4 destinations in mapped form only.
fn native_form(local: Local, to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(v4) if local.addr.is_ipv6() => {
            SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
        }
        _ => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(addr: &str) -> Local {
        Local { addr: addr.parse().unwrap(), dual_stack: addr.starts_with("[::]") }
    }

    fn chosen(locals: &[&str], to: &str) -> Option<usize> {
        choose(locals.iter().map(|addr| local(addr)), to.parse().unwrap())
    }

    #[test]
    fn the_ip_version_must_fit() {
        assert_eq!(chosen(&["10.0.0.1:1", "[fd00::1]:1"], "[fd00::9]:1"), Some(1));
        assert_eq!(chosen(&["[fd00::1]:1", "10.0.0.1:1"], "10.0.0.9:1"), Some(1));
        assert_eq!(chosen(&["10.0.0.1:1"], "[fd00::9]:1"), None);
        assert_eq!(chosen(&["[fd00::1]:1"], "10.0.0.9:1"), None);
        assert_eq!(chosen(&["[::]:1"], "10.0.0.9:1"), Some(0));
    }

    #[test]
    fn loopback_is_for_loopback() {
        let two = ["127.0.0.1:1", "10.0.0.1:1", "10.0.0.2:1"];
        assert_eq!(chosen(&two, "127.0.0.1:2"), Some(0));
        assert_eq!(chosen(&two, "10.0.0.9:2"), Some(1));
        assert_eq!(chosen(&["10.0.0.1:1", "127.0.0.1:1"], "127.0.0.9:2"), Some(1));
        // Better than nothing: the system decides, and its error is reported.
        assert_eq!(chosen(&["127.0.0.1:1"], "10.0.0.9:2"), Some(0));
        assert_eq!(chosen(&["0.0.0.0:1"], "127.0.0.1:2"), Some(0));
    }

    #[test]
    fn only_ipv6_sockets_take_mapped_addresses() {
        let to: SocketAddr = "10.0.0.9:7".parse().unwrap();
        assert_eq!(native_form(local("[::]:1"), to).to_string(), "[::ffff:10.0.0.9]:7");
        assert_eq!(native_form(local("0.0.0.0:1"), to), to);
    }
}
