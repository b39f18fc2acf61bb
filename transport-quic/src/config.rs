//! The settings of a transport.

use std::net::SocketAddr;
use std::time::Duration;

use memberlist_transport::canonical_addr;

use crate::{BindError, TlsConfig};

/// QUIC holds some memory for each stream that a peer may open, opened or not.
const MOST_STREAMS: u32 = 4096;
/// QUIC counts it in milliseconds, and takes none for no limit.
const LEAST_IDLE_TIMEOUT: Duration = Duration::from_millis(1);
/// No path takes longer, and handshakes would never send anything again.
const LONGEST_INITIAL_RTT: Duration = Duration::from_secs(10);

/// The settings of a [`QuicTransport`](crate::QuicTransport). Made by [`QuicConfig::new`], then
/// changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuicConfig {
    /// The UDP address to listen at. Port 0 finds a free one; `[::]` takes IPv4 as well.
    pub bind_addr: SocketAddr,

    /// The address that other nodes shall use to reach this one. Port 0 stands for the port that
    /// was bound. Set it behind NAT or a port mapping.
    ///
    /// Default `None`: `bind_addr` as it was bound, or, if that is a wildcard like `0.0.0.0`, an
    /// address of this machine, by the rules of
    /// [`ip::advertise_addr`](memberlist_transport::ip::advertise_addr): private before public.
    pub advertise_addr: Option<SocketAddr>,

    /// This node's certificate and the CAs it trusts; see
    /// [`QuicTransport::reload`](crate::QuicTransport::reload) for changing them.
    pub tls: TlsConfig,

    /// The size in bytes to ask for the UDP socket's receive buffer. The system may give less (Linux:
    /// `net.core.rmem_max`); what it refuses is asked for again by half.
    ///
    /// Default 2 MiB. Too small: bursts are lost before they are read. Too large: memory of the
    /// kernel, and old news under overload.
    pub udp_recv_buffer_bytes: usize,

    /// As `udp_recv_buffer_bytes`, for sending. Default 2 MiB.
    pub udp_send_buffer_bytes: usize,

    /// How long a handshake may take, in either direction. Default 5 s. Too small: no connection over
    /// slow or lossy links. Too large: silent peers hold handshakes for long.
    pub handshake_timeout: Duration,

    /// How long a connection lives on which nothing comes. Default 60 s. There is no keep-alive
    /// traffic: probes and gossip are that.
    ///
    /// Too small: a handshake (a round trip, and about a millisecond of processor time on each side)
    /// before most probes. Too large: memory for peers that are never spoken to.
    pub idle_timeout: Duration,

    /// How long a peer may leave unanswered what it must answer, three round trips at least; then it
    /// is taken for restarted, and dialled anew while the old connection stays in use until the new
    /// one is there.
    ///
    /// Default 300 ms: before a probe turns from packets to a stream. Too small: needless handshakes
    /// with slow peers. Too large: a peer that restarted without a farewell stays silent for longer.
    pub unanswered_timeout: Duration,

    /// The round-trip time to assume of a peer before one was measured; a lost handshake packet is
    /// sent again after three times this. At most 10 s. Default 100 ms (RFC 9002 assumes 333 ms).
    pub initial_rtt: Duration,

    /// How many connections may exist, at least 2. One more, and the one that was not used for
    /// longest and carries no stream is closed; if each does, the new one is refused.
    ///
    /// Default 4096. Too small: connections are made and evicted all the time. Too large: memory, see
    /// the README for how much each takes.
    pub max_connections: usize,

    /// How many connections one IP address may have dialled here at a time. Default 1024: all the
    /// nodes behind one address translation. Too small: many nodes on one machine are refused.
    pub max_connections_per_source: usize,

    /// How many handshakes of peers may be in progress at a time; one more, and the oldest is dropped
    /// and counted. Default 256.
    pub max_handshakes: usize,

    /// As `max_handshakes`, of one IPv4 address or one /64 network of IPv6; one more is ignored and
    /// counted, so that its dialler tries again. Default 64.
    pub max_handshakes_per_source: usize,

    /// From how many handshakes in progress on a peer must first show that it receives at the address
    /// it sends from (a QUIC Retry, which costs a round trip): a flood with forged addresses ends
    /// there. 0 asks always. Default 32.
    pub retry_above_handshakes: usize,

    /// How many streams that peers opened may exist at a time. One more is refused at once and
    /// counted. Default 1024. Too small: push/pulls of a large cluster are refused.
    pub max_inbound_streams: usize,

    /// As `max_inbound_streams`, of one connection; a peer that wants to open more waits. At most 4096.
    /// Default 64.
    pub max_inbound_streams_per_connection: u32,

    /// How many packets to one peer wait while a connection to it is made, for a second at most; one
    /// more, and the oldest is dropped. Default 64. Too small: bursts are lost at first contact. Too large: old news.
    pub max_packets_waiting: usize,

    /// How many received packets wait to be taken, of 2 KiB on average; more are dropped. One connection
    /// may fill a quarter of it. Default 4096, so 8 MiB.
    pub max_packets_received: usize,

    /// How long a read may wait for a byte, on any stream; then it fails with
    /// [`TimedOut`](std::io::ErrorKind::TimedOut). Default 60 s: a last resort above the deadlines of
    /// the protocol.
    pub read_timeout: Duration,

    /// How long a write may wait for room, on any stream; as `read_timeout` otherwise. Default 60 s.
    /// So long may what was written take to arrive when its stream is dropped, too: the connection
    /// gives way to no other before that.
    pub write_timeout: Duration,

    /// How long a stream that a peer opened may last in all. `None` sets no limit. Default 5 minutes.
    pub stream_timeout: Option<Duration>,
}

impl QuicConfig {
    /// The defaults.
    pub fn new(bind_addr: SocketAddr, tls: TlsConfig) -> Self {
        Self {
            bind_addr,
            advertise_addr: None,
            tls,
            udp_recv_buffer_bytes: 2 << 20,
            udp_send_buffer_bytes: 2 << 20,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            unanswered_timeout: Duration::from_millis(300),
            initial_rtt: Duration::from_millis(100),
            max_connections: 4096,
            max_connections_per_source: 1024,
            max_handshakes: 256,
            max_handshakes_per_source: 64,
            retry_above_handshakes: 32,
            max_inbound_streams: 1024,
            max_inbound_streams_per_connection: 64,
            max_packets_waiting: 64,
            max_packets_received: 4096,
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            stream_timeout: Some(Duration::from_secs(5 * 60)),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), BindError> {
        for (name, got, least) in [
            ("max_connections", self.max_connections, 2),
            ("max_connections_per_source", self.max_connections_per_source, 1),
            ("max_handshakes", self.max_handshakes, 1),
            ("max_handshakes_per_source", self.max_handshakes_per_source, 1),
            ("max_inbound_streams", self.max_inbound_streams, 1),
            ("max_packets_waiting", self.max_packets_waiting, 1),
            ("max_packets_received", self.max_packets_received, 4),
        ] {
            if got < least {
                let allowed = if least == 1 { "1 or more" } else { "more" };
                return Err(BindError::Setting { name, got: got.to_string(), allowed });
            }
        }
        if self.max_inbound_streams_per_connection == 0 {
            let name = "max_inbound_streams_per_connection";
            return Err(BindError::Setting { name, got: "0".to_owned(), allowed: "1 or more" });
        }
        if self.max_inbound_streams_per_connection > MOST_STREAMS {
            let (name, got) =
                ("max_inbound_streams_per_connection", self.max_inbound_streams_per_connection);
            return Err(BindError::Setting { name, got: got.to_string(), allowed: "4096 at most" });
        }
        if self.initial_rtt > LONGEST_INITIAL_RTT {
            let got = format!("{:?}", self.initial_rtt);
            return Err(BindError::Setting { name: "initial_rtt", got, allowed: "10 s at most" });
        }
        if self.idle_timeout < LEAST_IDLE_TIMEOUT {
            let got = format!("{:?}", self.idle_timeout);
            return Err(BindError::Setting { name: "idle_timeout", got, allowed: "1 ms or more" });
        }
        for (name, timeout) in [
            ("handshake_timeout", Some(self.handshake_timeout)),
            ("unanswered_timeout", Some(self.unanswered_timeout)),
            ("initial_rtt", Some(self.initial_rtt)),
            ("read_timeout", Some(self.read_timeout)),
            ("write_timeout", Some(self.write_timeout)),
            ("stream_timeout", self.stream_timeout),
        ] {
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                let allowed = "more than zero";
                return Err(BindError::Setting { name, got: "0".to_owned(), allowed });
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
