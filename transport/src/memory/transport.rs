//! The [`Transport`] of one node on a [`MemoryNetwork`].

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::endpoint::{Endpoint, Fate};
use super::{MemoryNetwork, MemoryStream};
use crate::{Destination, OpenError, RecvError, SendError, Source, Transport, canonical_addr};

/// A node's way onto a [`MemoryNetwork`], made by [`MemoryNetwork::bind`]. Dropping it closes it.
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    endpoint: Arc<Endpoint>,
}

impl MemoryTransport {
    pub(super) fn new(network: MemoryNetwork, endpoint: Arc<Endpoint>) -> Self {
        Self { network, endpoint }
    }

    fn close_now(&self) {
        self.network.remove(&self.endpoint);
        self.endpoint.close();
    }

    fn send_now(&self, to: SocketAddr, packet: &[u8]) -> Result<(), SendError> {
        if self.endpoint.is_closed() {
            return Err(SendError::Closed);
        }
        let limit = self.network.max_packet_bytes();
        if packet.len() > limit {
            return Err(SendError::TooLarge { to, len: packet.len(), limit });
        }
        let counters = self.network.counters();
        if packet.is_empty() {
            counters.packets_empty.add_one();
            return Ok(());
        }
        counters.packets_sent.add_one();
        let (link, target) = self.network.route(self.endpoint.addr, to);
        // Drawn even if the packet goes nowhere, so that a block does not shift later draws.
        let fate = self.endpoint.draw_fate(&link);
        if !link.packets_ok {
            counters.packets_blocked.add_one();
            return Ok(());
        }
        let Some(target) = target else {
            counters.packets_unreachable.add_one();
            return Ok(());
        };
        let push = |packet: Bytes, after| {
            target.push_packet(self.endpoint.addr, packet, after, counters);
        };
        match fate {
            Fate::Lost => counters.packets_lost.add_one(),
            Fate::Arrives { after } => push(Bytes::copy_from_slice(packet), after),
            Fate::ArrivesTwice { after, again_after } => {
                counters.packets_duplicated.add_one();
                let packet = Bytes::copy_from_slice(packet);
                push(packet.clone(), after);
                push(packet, again_after);
            }
        }
        Ok(())
    }

    async fn dial(&self, to: SocketAddr) -> Result<MemoryStream, OpenError> {
        let from = self.endpoint.addr;
        let number = self.endpoint.next_stream_number();
        loop {
            self.network.streams_ok(from, to).await;
            let round_trip = self.network.draw_round_trip(from, to, number);
            if round_trip.is_zero() {
                break;
            }
            sleep(round_trip).await;
            if self.network.are_streams_ok(from, to) {
                break;
            }
        }
        let refused = || {
            self.network.counters().streams_refused.add_one();
            OpenError::Io { to, source: io::ErrorKind::ConnectionRefused.into() }
        };
        let target = self.network.endpoint(to).ok_or_else(refused)?;
        let room = target.stream_room.acquire().await.map_err(|_| refused())?;
        // From here to the end nothing waits, so a dial that is given up leaves nothing behind.
        let (near, far) = self.network.connect(from, to, number);
        target.push_stream(from, far).map_err(|_| refused())?;
        room.forget();
        self.network.counters().streams_opened.add_one();
        Ok(near)
    }
}

impl Transport for MemoryTransport {
    type Stream = MemoryStream;

    fn advertise_addr(&self) -> SocketAddr {
        self.endpoint.addr
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        self.send_now(canonical_addr(to.addr), packet)
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        self.endpoint
            .poll_packet(cx, buf, self.network.counters())
            .map_ok(|(len, from)| (len, from.into()))
    }

    async fn open_stream(
        &self,
        to: &Destination,
        within: Duration,
    ) -> Result<MemoryStream, OpenError> {
        let to = canonical_addr(to.addr);
        tokio::select! {
            biased;
            () = self.endpoint.closed() => Err(OpenError::Closed),
            dialled = timeout(within, self.dial(to)) => {
                dialled.unwrap_or(Err(OpenError::Timeout { to, timeout: within }))
            }
        }
    }

    async fn accept_stream(&self) -> Result<(MemoryStream, Source), RecvError> {
        let (stream, from) = poll_fn(|cx| self.endpoint.poll_stream(cx)).await?;
        Ok((stream, from.into()))
    }

    fn max_packet_bytes(&self, _: &Destination) -> usize {
        self.network.max_packet_bytes()
    }

    async fn close(&self) {
        self.close_now();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.close_now();
    }
}
