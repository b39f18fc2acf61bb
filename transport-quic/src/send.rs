//! What the caller sends: packets, and streams that it opens, by a connection that is there or is made.

use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use memberlist_transport::{OpenError, SendError};
use quinn::ConnectionError;
use tokio::time::timeout;

use crate::QuicStream;
use crate::connection::{Conn, Handed};
use crate::error::{DialError, in_words};
use crate::pool::{Pool, lock};
use crate::transport::{MIN_PACKET_BYTES, Shared};

impl Shared {
    pub(crate) fn send(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
        packet: &[u8],
    ) -> Result<(), SendError> {
        if *self.closed.borrow() {
            return Err(SendError::Closed);
        }
        if packet.is_empty() {
            self.counters.packets_dropped_empty.add_one();
            return Ok(());
        }
        let limit = self.max_packet_bytes(addr);
        if packet.len() > limit.max(lock(&self.pool).promised(addr)) {
            self.counters.packets_dropped_too_large.add_one();
            return Err(SendError::TooLarge { to: addr, len: packet.len(), limit });
        }
        let pool = lock(&self.pool);
        let Some(conn) = pool.get(addr).cloned() else {
            return self.send_later(pool, addr, name, packet);
        };
        drop(pool);
        if self.is_outdated(&conn) && lock(&self.pool).failing(addr).is_none() {
            self.dial(addr, name, false);
        }
        if !conn.is(name) {
            return Err(self.not_sent(addr, self.wrong_name(&conn, name)));
        }
        self.send_by(&conn, Bytes::copy_from_slice(packet));
        Ok(())
    }

    pub(crate) fn send_by(&self, conn: &Arc<Conn>, packet: Bytes) {
        let len = packet.len();
        match conn.send(packet, &self.counters) {
            Handed::Datagram => self.counters.packets_sent.add_one(),
            Handed::Stream => self.counters.packets_sent_by_stream.add_one(),
            Handed::Dropped => return self.counters.packets_dropped_busy.add_one(),
            // It ended this moment, and the packet with it, as if on its way.
            Handed::Lost => return self.counters.packets_dropped_waiting.add_one(),
        }
        self.counters.packet_bytes_sent.add(len);
    }

    /// Without a connection: makes one, and lets the packet wait for it. Nothing comes between the look
    /// for a connection and the wait, so that no packet waits for one that is there already.
    fn send_later(
        self: &Arc<Self>,
        mut pool: MutexGuard<'_, Pool>,
        addr: SocketAddr,
        name: Option<&str>,
        packet: &[u8],
    ) -> Result<(), SendError> {
        let dialling = pool.dialling(addr).is_some();
        let failing = self.check_version(addr).err().or_else(|| pool.failing(addr));
        if let (false, Some(error)) = (dialling, failing) {
            drop(pool);
            return Err(self.not_sent(addr, error));
        }
        if !dialling && pool.is_full_of_dials() {
            drop(pool);
            self.counters.packets_dropped_waiting.add_one();
            return Ok(());
        }
        let dropped = pool.wait(addr, name, Bytes::copy_from_slice(packet));
        self.dial_from(&mut pool, addr, name, false);
        drop(pool);
        self.counters.packets_dropped_waiting.add(dropped);
        Ok(())
    }

    fn not_sent(&self, to: SocketAddr, error: DialError) -> SendError {
        self.counters.packets_send_errors.add_one();
        SendError::Io { to, source: error.into_io() }
    }

    pub(crate) fn max_packet_bytes(&self, addr: SocketAddr) -> usize {
        let mut pool = lock(&self.pool);
        let now = pool.get(addr).map_or(0, |conn| conn.max_datagram_bytes());
        let now = now.max(MIN_PACKET_BYTES);
        pool.promise(addr, now);
        now
    }

    /// Whether a connection should be replaced: it does not answer, or is of before a reload.
    pub(crate) fn is_outdated(&self, conn: &Conn) -> bool {
        self.is_unanswered(conn) || conn.generation != self.certificates.load().generation
    }

    pub(crate) fn is_unanswered(&self, conn: &Conn) -> bool {
        conn.is_unanswered(self.config.unanswered_timeout)
    }

    pub(crate) async fn open(
        self: &Arc<Self>,
        to: SocketAddr,
        name: Option<&str>,
        within: Duration,
    ) -> Result<QuicStream, OpenError> {
        let opening = async {
            let conn = self.connection(to, name).await?;
            match conn.open_stream(self).await {
                Ok(stream) => Ok(stream),
                Err(ConnectionError::LocallyClosed) if *self.closed.borrow() => {
                    Err(DialError::Closed)
                }
                // It ended this moment: once more, with a new one.
                Err(_) => {
                    let conn = self.connection(to, name).await?;
                    let opened = conn.open_stream(self).await;
                    opened.map_err(|error| DialError::Refused(in_words(&error)))
                }
            }
        };
        let opened = tokio::select! {
            biased;
            () = self.until_closed() => return Err(OpenError::Closed),
            opened = timeout(within, opening) => opened,
        };
        match opened {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(DialError::Closed)) => Err(OpenError::Closed),
            Ok(Err(DialError::Timeout(timeout))) => Err(OpenError::Timeout { to, timeout }),
            Ok(Err(error)) => Err(OpenError::Io { to, source: error.into_io() }),
            Err(_) => Err(OpenError::Timeout { to, timeout: within }),
        }
    }

    /// The connection to this peer, which is dialled if it is not there.
    async fn connection(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
    ) -> Result<Arc<Conn>, DialError> {
        let conn = lock(&self.pool).get(addr).cloned();
        let conn = match conn {
            Some(conn) if !self.is_outdated(&conn) => conn,
            conn => match self.dialled(addr, name).await {
                Ok(dialled) => dialled,
                // One of before a reload works as long as it is there.
                Err(error) => conn.filter(|conn| !self.is_unanswered(conn)).ok_or(error)?,
            },
        };
        match conn.is(name) {
            true => Ok(conn),
            false => Err(self.wrong_name(&conn, name)),
        }
    }

    /// Another member may have come to the address since: if the one that was there does not answer,
    /// the next packet or stream dials.
    fn wrong_name(&self, conn: &Conn, wanted: Option<&str>) -> DialError {
        self.counters.names_refused.add_one();
        conn.ask();
        DialError::WrongName {
            found: conn.name.as_deref().unwrap_or_default().to_owned(),
            wanted: wanted.unwrap_or_default().to_owned(),
        }
    }

    async fn dialled(
        self: &Arc<Self>,
        addr: SocketAddr,
        name: Option<&str>,
    ) -> Result<Arc<Conn>, DialError> {
        let mut dialling = self.dial(addr, name, true);
        let done = dialling.outcome.wait_for(Option::is_some).await;
        let dialled = done.ok().and_then(|done| done.clone());
        // Without an outcome the runtime is going down.
        let dialled = dialled.unwrap_or(Err(DialError::Closed))?;
        // A peer that dialled at the same moment may have settled on its own.
        Ok(lock(&self.pool).get(addr).cloned().unwrap_or(dialled))
    }
}
