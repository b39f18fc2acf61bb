//! QUIC's own settings, and opening the endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use memberlist_transport::canonical_addr;
use memberlist_transport::ip::{self, Local};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use ring::hmac;
use ring::rand::SystemRandom;

use crate::socket::{CountingIds, Socket};
use crate::stats::Counters;
use crate::{BindError, QuicConfig, TlsConfig, TlsError};

/// Bytes of packets that a connection holds while the path takes no more; then the oldest is dropped.
const DATAGRAM_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of received packets that a connection holds until its task takes them; then the oldest is
/// dropped.
const DATAGRAM_RECEIVE_BUFFER_BYTES: usize = 256 * 1024;
/// Streams that carry a packet each, of one peer at a time.
const MAX_PACKET_STREAMS: u32 = 16;
/// What a peer may send on a stream, and on all its streams, before it is read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Handshakes that wait to be looked at.
const MAX_INCOMING: usize = 1024;

/// The certificates in force, in the form that QUIC takes.
pub(crate) struct Certificates {
    pub(crate) tls: TlsConfig,
    pub(crate) client: ClientConfig,
    /// Grows with each reload.
    pub(crate) generation: u64,
}

impl Certificates {
    pub(crate) fn new(
        tls: TlsConfig,
        config: &QuicConfig,
        generation: u64,
    ) -> Result<(Self, ServerConfig), TlsError> {
        let transport = Arc::new(transport_config(config));
        let mut server = ServerConfig::with_crypto(Arc::new(tls.quic_server()?));
        server.transport_config(Arc::clone(&transport)).max_incoming(MAX_INCOMING);
        let mut client = ClientConfig::new(Arc::new(tls.quic_client()?));
        client.transport_config(transport);
        Ok((Self { tls, client, generation }, server))
    }
}

fn transport_config(config: &QuicConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    // QUIC counts it in milliseconds, below 2^62.
    let idle = IdleTimeout::try_from(config.idle_timeout)
        .unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(None)
        .initial_rtt(config.initial_rtt)
        .max_concurrent_bidi_streams(VarInt::from_u32(config.max_inbound_streams_per_connection))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_PACKET_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER_BYTES);
    transport
}

/// An endpoint that is open.
pub(crate) struct Opened {
    pub(crate) endpoint: Endpoint,
    pub(crate) local: Local,
    /// What peers shall use.
    pub(crate) advertised: SocketAddr,
    pub(crate) socket: Arc<Socket>,
}

/// Binds the socket. Must be called within a tokio runtime.
pub(crate) fn open(
    config: &QuicConfig,
    server: ServerConfig,
    counters: &Arc<Counters>,
) -> Result<Opened, BindError> {
    let addr = canonical_addr(config.bind_addr);
    let failed = |source| BindError::Socket { addr, source };
    let dual_stack = addr.is_ipv6() && addr.ip().is_unspecified();
    let buffers = (config.udp_recv_buffer_bytes, config.udp_send_buffer_bytes);
    let (socket, _) =
        ip::bind_udp(Local { addr, dual_stack }, buffers.0, buffers.1).map_err(failed)?;
    let local = Local { addr: socket.local_addr().map_err(failed)?, dual_stack };
    let advertised = ip::advertise_addr(config.advertise_addr.map(canonical_addr), local)
        .map_err(BindError::Interfaces)?;
    let socket = Arc::new(Socket::new(socket, Arc::clone(counters)).map_err(failed)?);
    let endpoint = Endpoint::new_with_abstract_socket(
        endpoint_config(config, advertised, counters).map_err(failed)?,
        Some(server),
        Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>,
        Arc::new(TokioRuntime),
    )
    .map_err(failed)?;
    Ok(Opened { endpoint, local, advertised, socket })
}

/// With keys that last, a node that has restarted tells its peers so when they go on with a
/// connection of before (RFC 9000 section 10.3); without, they find out by its silence.
fn endpoint_config(
    config: &QuicConfig,
    addr: SocketAddr,
    counters: &Arc<Counters>,
) -> io::Result<EndpointConfig> {
    let lasting = config.tls.lasting_key(addr);
    let ids = lasting.as_ref().map(|key| {
        let tag = hmac::sign(key, b"connection ids");
        tag.as_ref().iter().take(8).fold(0, |key, byte| (key << 8) | u64::from(*byte))
    });
    let reset_key = match lasting {
        Some(key) => key,
        None => hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no randomness"))?,
    };
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    let counters = Arc::clone(counters);
    endpoint
        .grease_quic_bit(false)
        .min_reset_interval(Duration::from_millis(5))
        .cid_generator(move || Box::new(CountingIds::new(ids, Arc::clone(&counters))));
    Ok(endpoint)
}
