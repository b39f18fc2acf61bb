//! The conformance suite notices broken transports, and says what is wrong with them.

use std::future::pending;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use memberlist_transport::memory::{MemoryNetwork, MemoryStream, MemoryTransport};
use memberlist_transport::{
    Destination, OpenError, RecvError, SendError, Source, Transport, conformance,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    CutsPackets,
    JoinsPackets,
    DeliversEmptyPackets,
    SendsOversizePackets,
    InventsSources,
    HangsOnDials,
    KeepsGivenUpDials,
    LosesGivenUpAccepts,
    IgnoresClose,
    KeepsItsAddress,
}

struct Broken {
    inner: Arc<MemoryTransport>,
    fault: Fault,
    held_back: Mutex<Vec<u8>>,
    kept_streams: Arc<Mutex<Vec<MemoryStream>>>,
}

impl Broken {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn join(&self, packet: &[u8]) -> Vec<u8> {
        let mut held_back = self.held_back.lock().unwrap();
        held_back.extend_from_slice(packet);
        if held_back.len() > 40 { std::mem::take(&mut held_back) } else { Vec::new() }
    }
}

impl Transport for Broken {
    type Stream = MemoryStream;

    fn advertise_addr(&self) -> SocketAddr {
        self.inner.advertise_addr()
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        if self.has(Fault::JoinsPackets) {
            return self.inner.send_packet(to, &self.join(packet)).await;
        }
        match self.inner.send_packet(to, packet).await {
            Err(SendError::TooLarge { .. }) if self.has(Fault::SendsOversizePackets) => Ok(()),
            outcome => outcome,
        }
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        self.inner.poll_recv_packet(cx, buf).map_ok(|(len, mut source)| {
            if self.has(Fault::InventsSources) {
                source.addr.set_port(9);
            }
            match self.fault {
                Fault::CutsPackets => (len.min(100), source),
                Fault::DeliversEmptyPackets => (0, source),
                _ => (len, source),
            }
        })
    }

    async fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> Result<MemoryStream, OpenError> {
        if self.has(Fault::KeepsGivenUpDials) {
            let (inner, to, kept) =
                (Arc::clone(&self.inner), to.clone(), Arc::clone(&self.kept_streams));
            let dial = tokio::spawn(async move {
                let stream = inner.open_stream(&to, timeout).await?;
                kept.lock().unwrap().push(stream);
                Ok(())
            });
            dial.await.unwrap()?;
            return Ok(self.kept_streams.lock().unwrap().pop().unwrap());
        }
        match self.inner.open_stream(to, timeout).await {
            Err(OpenError::Io { .. }) if self.has(Fault::HangsOnDials) => pending().await,
            outcome => outcome,
        }
    }

    async fn accept_stream(&self) -> Result<(MemoryStream, Source), RecvError> {
        let accepted = self.inner.accept_stream().await?;
        if self.has(Fault::LosesGivenUpAccepts) {
            tokio::task::yield_now().await;
        }
        Ok(accepted)
    }

    fn max_packet_bytes(&self, to: &Destination) -> usize {
        self.inner.max_packet_bytes(to)
    }

    async fn close(&self) {
        if !self.has(Fault::IgnoresClose) && !self.has(Fault::KeepsItsAddress) {
            self.inner.close().await;
        }
    }
}

/// What the whole suite says of a transport with this fault.
fn verdict(fault: Fault) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let network = MemoryNetwork::new(5);
    let make = async |addr: Option<SocketAddr>| Broken {
        inner: Arc::new(network.bind(addr.unwrap_or(([127, 0, 0, 1], 0).into())).unwrap()),
        fault,
        held_back: Mutex::default(),
        kept_streams: Arc::default(),
    };
    let checking = || match fault {
        // The suite as a whole stops at the first check, which here would be about waiting calls.
        Fault::KeepsItsAddress => runtime.block_on(conformance::close_frees_the_address(make)),
        _ => runtime.block_on(conformance::check(make)),
    };
    catch_unwind(AssertUnwindSafe(checking)).map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(_) => String::from("a panic without a formatted text"),
    })
}

#[test]
fn nothing_is_said_of_a_sound_transport() {
    verdict(Fault::None).unwrap();
}

#[test]
fn each_fault_is_named() {
    for (fault, says) in [
        (Fault::CutsPackets, "must arrive whole"),
        (Fault::JoinsPackets, "must arrive whole"),
        (Fault::DeliversEmptyPackets, "a packet of zero bytes was delivered"),
        (Fault::SendsOversizePackets, "is over the limit, yet gave Ok"),
        (Fault::InventsSources, "127.0.0.1:9"),
        (Fault::HangsOnDials, "a dial to nobody: did not happen"),
        (Fault::KeepsGivenUpDials, "the end of a dial that was given up: did not happen"),
        (Fault::LosesGivenUpAccepts, "accepting all streams by waits that are given up"),
        (Fault::IgnoresClose, "close, and the end of calls that waited"),
        (Fault::KeepsItsAddress, "InUse"),
    ] {
        let said = verdict(fault).expect_err(&format!("{fault:?} went unnoticed"));
        assert!(said.contains(says), "{fault:?} was called: {said}");
    }
}
