//! Transports over which nodes speak another wire format, so that every scenario can be run in it.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use memberlist::transport::{Destination, EcoString, OpenError, RecvError, SendError, Source};
use memberlist::{Transport, WireFormat};

use crate::transports::{BindError, TestTransport};

/// Names a wire format by a type.
pub trait Wire: Send + Sync + 'static {
    /// The format.
    const FORMAT: WireFormat;
}

/// Go's.
pub struct Hashicorp;

impl Wire for Hashicorp {
    const FORMAT: WireFormat = WireFormat::Hashicorp;
}

/// Both.
pub struct Mixed;

impl Wire for Mixed {
    const FORMAT: WireFormat = WireFormat::Mixed;
}

/// A transport that is what is inside, of a cluster that speaks that format.
pub struct Speaking<W, T> {
    inner: T,
    wire: PhantomData<W>,
}

impl<W: Wire, T: TestTransport> TestTransport for Speaking<W, T> {
    type Network = T::Network;

    const WIRE: WireFormat = W::FORMAT;

    fn network() -> T::Network {
        T::network()
    }

    async fn bind(network: &T::Network, at: SocketAddr) -> Result<Self, BindError> {
        Ok(Self { inner: T::bind(network, at).await?, wire: PhantomData })
    }
}

impl<W: Wire, T: Transport> Transport for Speaking<W, T> {
    type Stream = T::Stream;

    fn advertise_addr(&self) -> SocketAddr {
        self.inner.advertise_addr()
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        self.inner.send_packet(to, packet).await
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        self.inner.poll_recv_packet(cx, buf)
    }

    async fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> Result<T::Stream, OpenError> {
        self.inner.open_stream(to, timeout).await
    }

    async fn accept_stream(&self) -> Result<(T::Stream, Source), RecvError> {
        self.inner.accept_stream().await
    }

    fn max_packet_bytes(&self, to: &Destination) -> usize {
        self.inner.max_packet_bytes(to)
    }

    fn assured_packet_bytes(&self) -> usize {
        self.inner.assured_packet_bytes()
    }

    fn rtt(&self, to: &Destination) -> Option<Duration> {
        self.inner.rtt(to)
    }

    fn is_encrypted(&self) -> bool {
        self.inner.is_encrypted()
    }

    fn own_name(&self) -> Option<EcoString> {
        self.inner.own_name()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
