//! The settings of a transport.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use memberlist_transport::canonical_addr;

use crate::BindError;

/// The least [`NetConfig::max_packet_bytes`]: what every IPv4 host must accept (576 bytes), less the
/// largest IP and UDP headers.
const MIN_PACKET_BYTES: usize = 508;

/// The greatest [`NetConfig::max_packet_bytes`]: the largest UDP payload over IPv4.
const MAX_PACKET_BYTES: usize = 65_507;

/// The settings of a [`NetTransport`](crate::NetTransport). Made by [`NetConfig::new`], then changed
/// field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NetConfig {
    /// The addresses to listen at, each by UDP and TCP. At least one.
    ///
    /// - Port 0 finds a port that is free everywhere: all addresses that ask for port 0 get the
    ///   same one.
    /// - `[::]` listens by IPv4 as well ("dual stack"), unless an IPv4 address is in this list too.
    /// - A packet leaves by the first socket of its destination's IP version; a socket bound to a
    ///   loopback address comes last for destinations elsewhere, and the others last for loopback.
    ///   Without a socket of that version the packet is not sent.
    pub bind_addrs: Vec<SocketAddr>,

    /// The address that other nodes shall use to reach this one. Port 0 stands for the port that
    /// was bound. Set it behind NAT or a port mapping.
    ///
    /// Default `None`: the first of `bind_addrs` as it was bound, or, if that is a wildcard like
    /// `0.0.0.0`, an address of this machine, by the rules of
    /// [`ip::advertise_addr`](memberlist_transport::ip::advertise_addr): private before public.
    ///
    /// On a machine with several networks set it, rather than trust these rules.
    pub advertise_addr: Option<SocketAddr>,

    /// The size in bytes to ask for each UDP socket's receive buffer. The system may give less
    /// (Linux: `net.core.rmem_max`); what it refuses is asked for again by half. See
    /// [`NetTransport::udp_recv_buffer_bytes`](crate::NetTransport::udp_recv_buffer_bytes).
    ///
    /// Default 2 MiB, as in Go memberlist. Too small: bursts are lost before they are read, and
    /// members are suspected wrongly. Too large: memory of the kernel, and old news under overload.
    pub udp_recv_buffer_bytes: usize,

    /// As `udp_recv_buffer_bytes`, for sending. Default 2 MiB. Too small: bursts of gossip are
    /// dropped here and counted in [`NetStats::packets_dropped_busy`](crate::NetStats).
    pub udp_send_buffer_bytes: usize,

    /// The largest packet in bytes that this node sends, 508 to 65,507. Larger ones are received all
    /// the same.
    ///
    /// Default 1400, as in Go memberlist: fits an Ethernet frame with room for a tunnel's headers.
    /// Too small: more packets for the same news. Too large: IP fragments packets, and the loss of
    /// one fragment loses the packet; some networks drop all fragments.
    pub max_packet_bytes: usize,

    /// How many streams that peers opened may exist at a time, at least 1. A stream counts until
    /// it is dropped. One more is accepted and closed at once, so that its dialler does not wait,
    /// and counted.
    ///
    /// Default 1024. Too small: push/pulls of a large cluster are refused. Too large: a flood of
    /// connections takes all file descriptors.
    pub max_inbound_streams: usize,

    /// How long a read may wait for a byte, on any stream; then it fails with
    /// [`TimedOut`](std::io::ErrorKind::TimedOut). The time runs from the first read that waits.
    ///
    /// Default 60 s: a last resort above the deadlines of the protocol, which know what a stream is
    /// for. Too small: push/pulls break off on slow links. Too large: silent peers hold their streams
    /// for long.
    pub read_timeout: Duration,

    /// How long a write may wait for room, on any stream; as `read_timeout` otherwise. Default 60 s.
    pub write_timeout: Duration,

    /// How long a stream that a peer opened may last in all; reads and writes after that fail with
    /// [`TimedOut`](std::io::ErrorKind::TimedOut). `None` sets no limit.
    ///
    /// Default 5 minutes. Too small: large states are cut off. Too large: a peer that sends a byte
    /// now and then holds a stream for that long.
    pub stream_timeout: Option<Duration>,

    /// The networks from which packets and streams are taken; others are dropped and counted.
    /// `None` allows all, an empty list nobody. What this node sends or dials is not limited.
    ///
    /// Default `None`. Go memberlist's `CIDRsAllowed` looks at the addresses of members instead;
    /// here it is the source of what arrives.
    pub allowed: Option<Vec<IpNet>>,
}

impl NetConfig {
    /// The defaults, for one address; see [`bind_addrs`](Self::bind_addrs).
    pub fn new(bind_addr: SocketAddr) -> Self {
        Self {
            bind_addrs: vec![bind_addr],
            advertise_addr: None,
            udp_recv_buffer_bytes: 2 << 20,
            udp_send_buffer_bytes: 2 << 20,
            max_packet_bytes: 1400,
            max_inbound_streams: 1024,
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            stream_timeout: Some(Duration::from_secs(5 * 60)),
            allowed: None,
        }
    }

    /// Whether packets and streams from this address are taken, by [`allowed`](Self::allowed).
    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match &self.allowed {
            None => true,
            Some(networks) => networks.iter().any(|network| network.contains(&ip)),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), BindError> {
        if self.bind_addrs.is_empty() {
            return Err(BindError::NoBindAddress);
        }
        if !(MIN_PACKET_BYTES..=MAX_PACKET_BYTES).contains(&self.max_packet_bytes) {
            return Err(BindError::MaxPacketBytes {
                got: self.max_packet_bytes,
                min: MIN_PACKET_BYTES,
                max: MAX_PACKET_BYTES,
            });
        }
        if self.max_inbound_streams == 0 {
            return Err(BindError::NoInboundStreams);
        }
        for (name, timeout) in [
            ("read_timeout", Some(self.read_timeout)),
            ("write_timeout", Some(self.write_timeout)),
            ("stream_timeout", self.stream_timeout),
        ] {
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(BindError::ZeroTimeout { name });
            }
        }
        match self.advertise_addr.map(canonical_addr) {
            Some(addr) if addr.ip().is_unspecified() => {
                Err(BindError::UnusableAdvertiseAddr { addr })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetConfig {
        NetConfig::new("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn defaults_are_valid() {
        config().validate().unwrap();
    }

    #[test]
    fn each_wrong_setting_has_its_error() {
        let wrong = |change: fn(&mut NetConfig)| {
            let mut config = config();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert!(matches!(wrong(|c| c.bind_addrs.clear()), BindError::NoBindAddress));
        for bytes in [0, 507, 65_508] {
            let mut config = config();
            config.max_packet_bytes = bytes;
            let error = config.validate().unwrap_err();
            assert!(matches!(error, BindError::MaxPacketBytes { got, .. } if got == bytes));
        }
        assert!(matches!(wrong(|c| c.max_inbound_streams = 0), BindError::NoInboundStreams));
        assert!(matches!(
            wrong(|c| c.stream_timeout = Some(Duration::ZERO)),
            BindError::ZeroTimeout { name: "stream_timeout" }
        ));
        assert!(matches!(
            wrong(|c| c.advertise_addr = Some("[::ffff:0.0.0.0]:1".parse().unwrap())),
            BindError::UnusableAdvertiseAddr { .. }
        ));
    }

    #[test]
    fn the_allow_list() {
        let allows = |list: Option<&[&str]>, ip: &str| {
            let mut config = config();
            config.allowed = list.map(|list| list.iter().map(|s| s.parse().unwrap()).collect());
            config.allows(ip.parse().unwrap())
        };
        assert!(allows(None, "8.8.8.8"));
        assert!(!allows(Some(&[]), "127.0.0.1"), "an empty list allows nobody");
        let private = Some(&["10.0.0.0/8", "fd00::/8"][..]);
        assert!(allows(private, "10.255.0.1"));
        assert!(allows(private, "::ffff:10.0.0.1"), "mapped addresses count as IPv4");
        assert!(allows(private, "fd12::1"));
        assert!(!allows(private, "11.0.0.1"));
        assert!(!allows(private, "fe80::1"));
    }
}
