//! A transport of one's own: nodes that talk over Unix domain sockets, all in one folder.
//!
//! Members are addressed by IP address and port, so a transport for anything else has to say how its
//! places are called. Here the node `10.0.0.1:7946` has two sockets in the folder, named after it:
//! a datagram socket for packets and a listening one for streams. What the contract of `Transport` asks
//! for beyond the obvious is said at each place. The library's conformance suite tries it all, and then
//! two nodes meet.
//!
//! ```text
//! cargo run --release --example custom_transport
//! ```

#[cfg(unix)]
mod unix {
    use std::io::{self, ErrorKind, Write};
    use std::net::SocketAddr;
    use std::os::unix::net::UnixDatagram as StdDatagram;
    use std::path::{Path, PathBuf};
    use std::task::{Context, Poll, ready};
    use std::{cell::Cell, error::Error, time::Duration};

    use futures::{FutureExt, task::AtomicWaker};
    use memberlist::transport::{Destination, OpenError, RecvError, SendError, Source};
    use memberlist::transport::{canonical_addr, conformance};
    use memberlist::{Builder, Config, Memberlist, Transport};
    use tokio::net::{UnixDatagram, UnixListener, UnixStream};
    use tokio::{io::ReadBuf, sync::watch, time::sleep};

    /// The largest packet; datagrams between processes of one machine could be larger.
    const MAX_PACKET_BYTES: usize = 8192;

    /// Full, nobody there any more, or never: all that loses a packet on any network.
    const LOST: [ErrorKind; 3] =
        [ErrorKind::WouldBlock, ErrorKind::ConnectionRefused, ErrorKind::NotFound];

    /// A node's way to the others of one folder.
    struct UnixTransport {
        folder: PathBuf,
        addr: SocketAddr,
        packets: UnixDatagram,
        /// The same socket, for sending past the runtime: see `send_packet`.
        sender: StdDatagram,
        streams: UnixListener,
        closed: watch::Sender<bool>,
        receiver: AtomicWaker,
    }

    impl UnixTransport {
        fn bind(folder: &Path, addr: SocketAddr) -> io::Result<Self> {
            let addr = canonical_addr(addr);
            let packets = StdDatagram::bind(socket(folder, addr, "packets"))?;
            packets.set_nonblocking(true)?;
            let streams = UnixListener::bind(socket(folder, addr, "streams"))?;
            Ok(Self {
                folder: folder.to_owned(),
                addr,
                sender: packets.try_clone()?,
                packets: UnixDatagram::from_std(packets)?,
                streams,
                closed: watch::Sender::new(false),
                receiver: AtomicWaker::new(),
            })
        }

        async fn closed(&self) {
            // The sender lives as long as `self`, so this cannot fail.
            let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
        }

        fn unlink(&self) {
            // Only once: after that the names may be those of another transport's sockets.
            if !self.closed.send_replace(true) {
                for of in ["packets", "streams"] {
                    // If the folder is gone, so are the names.
                    let _ = std::fs::remove_file(socket(&self.folder, self.addr, of));
                }
            }
        }
    }

    impl Transport for UnixTransport {
        type Stream = UnixStream;

        fn advertise_addr(&self) -> SocketAddr {
            self.addr
        }

        async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
            let (to, len, limit) = (canonical_addr(to.addr), packet.len(), MAX_PACKET_BYTES);
            if *self.closed.borrow() {
                return Err(SendError::Closed);
            }
            if len > limit {
                return Err(SendError::TooLarge { to, len, limit });
            }
            // Not by tokio's `send_to`: it waits while the queue of this one receiver is full, and the
            // contract says that packets are dropped then.
            match self.sender.send_to(packet, socket(&self.folder, to, "packets")) {
                Ok(_) => Ok(()),
                Err(error) if LOST.contains(&error.kind()) => Ok(()),
                Err(source) => Err(SendError::Io { to, source }),
            }
        }

        fn poll_recv_packet(
            &self,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<Result<(usize, Source), RecvError>> {
            // Before the question whether it is closed, so that no close between the two is missed.
            self.receiver.register(cx.waker());
            let mut received = [0; MAX_PACKET_BYTES + 1];
            loop {
                if *self.closed.borrow() {
                    return Poll::Ready(Err(RecvError::Closed));
                }
                // Not into `buf`: the system cuts off what does not fit, and the contract says that a
                // part of a packet is never delivered.
                let mut packet = ReadBuf::new(&mut received);
                let from = ready!(self.packets.poll_recv_from(cx, &mut packet))?;
                let (packet, source) = (packet.filled(), from.as_pathname().and_then(address));
                // Nor is a packet of zero bytes, or one of a socket that is no member's.
                let room = buf.get_mut(..packet.len()).filter(|room| !room.is_empty());
                if let (Some(room), Some(source), ..=MAX_PACKET_BYTES) =
                    (room, source, packet.len())
                {
                    room.copy_from_slice(packet);
                    return Poll::Ready(Ok((packet.len(), source.into())));
                }
            }
        }

        async fn open_stream(
            &self,
            to: &Destination,
            within: Duration,
        ) -> Result<UnixStream, OpenError> {
            let to = canonical_addr(to.addr);
            let dial = UnixStream::connect(socket(&self.folder, to, "streams"));
            tokio::select! {
                biased;
                () = self.closed() => Err(OpenError::Closed),
                dialled = dial => dialled.map_err(|source| OpenError::Io { to, source }),
                () = sleep(within) => Err(OpenError::Timeout { to, timeout: within }),
            }
        }

        async fn accept_stream(&self) -> Result<(UnixStream, Source), RecvError> {
            // The dialler's end has no name, and needs none: no stream is answered by its address.
            let nameless = SocketAddr::from(([127, 0, 0, 1], 0));
            tokio::select! {
                biased;
                () = self.closed() => Err(RecvError::Closed),
                // The contract: giving up an accept loses no stream. With tokio's that is so.
                accepted = self.streams.accept() => Ok((accepted?.0, nameless.into())),
            }
        }

        fn max_packet_bytes(&self, _: &Destination) -> usize {
            MAX_PACKET_BYTES
        }

        async fn close(&self) {
            self.unlink();
            // Whoever has dialled and was not accepted hears the end now, not when this is dropped.
            while let Some(Ok(stream)) = self.streams.accept().now_or_never() {
                drop(stream);
            }
            self.receiver.wake();
        }
    }

    impl Drop for UnixTransport {
        fn drop(&mut self) {
            self.unlink();
        }
    }

    /// The socket of that node for packets or for streams.
    fn socket(folder: &Path, addr: SocketAddr, of: &str) -> PathBuf {
        folder.join(format!("{addr}.{of}"))
    }

    /// Whose packet socket that is.
    fn address(socket: &Path) -> Option<SocketAddr> {
        socket.file_name()?.to_str()?.strip_suffix(".packets")?.parse().ok()
    }

    pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
        let (mut out, folder, last_port) = (io::stdout(), tempfile::tempdir()?, Cell::new(1024));
        let fresh = || SocketAddr::from(([10, 0, 0, 1], last_port.replace(last_port.get() + 1)));
        let bind = |addr: Option<_>| UnixTransport::bind(folder.path(), addr.unwrap_or_else(fresh));
        // It panics with a text that says what was broken. In a crate of its own this is a test.
        conformance::check(async |addr| bind(addr).expect("two sockets")).await;
        writeln!(out, "the transport keeps the contract, as far as the suite can tell")?;

        let (builder, mut messages) = Builder::new(Config::lan("a")).messages();
        let a = builder.start(bind(None)?).await?;
        let b = Memberlist::start(bind(None)?, Config::lan("b")).await?;
        b.join([a.addr().to_string()]).await?;
        writeln!(out, "b has joined a at {}; a ping took {:?}", a.addr(), b.ping("a").await?)?;
        b.send_reliable("a", "by a stream between two sockets").await?;
        let message = messages.next().await.ok_or("a was shut down")?;
        writeln!(out, "a got {:?}", message.payload)?;

        a.shutdown().await;
        b.shutdown().await;
        Ok(())
    }
}

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    unix::run().await
}

#[cfg(not(unix))]
fn main() {
    panic!("there are no Unix sockets here");
}
