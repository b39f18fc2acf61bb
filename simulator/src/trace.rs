//! What happened in a run: always a digest, on request a log that a person can read.

use std::fmt::Write as _;
use std::net::SocketAddr;

use memberlist_protocol::{Event, Member};

use crate::explore::truth::member_of;
use crate::network::ProcessId;
use crate::time::Time;

/// FNV-1a, 64 bits: enough to tell two runs apart, and the same on every machine.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The digest of a run, and its log.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    log: Option<String>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { digest: OFFSET, log: None }
    }
}

impl Trace {
    /// Begins to keep a log.
    pub fn keep_log(&mut self) {
        self.log.get_or_insert_with(String::new);
    }

    /// The log so far, if one is kept.
    pub fn log(&self) -> &str {
        self.log.as_deref().unwrap_or_default()
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    fn word(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(PRIME);
        self.digest ^= self.digest >> 29;
    }

    /// With their number, so that the zeros that fill the last word up are not taken for content.
    fn absorb(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn absorb_member(&mut self, member: &Member) {
        self.absorb(member.id().as_str().as_bytes());
        self.word(u64::from(member.incarnation) << 8 | member.state as u64);
        self.absorb_addr(member.addr());
        self.absorb(&member.node.meta);
    }

    fn absorb_addr(&mut self, addr: SocketAddr) {
        match addr {
            SocketAddr::V4(addr) => {
                self.word(u64::from(addr.ip().to_bits()) << 16 | u64::from(addr.port()));
            }
            SocketAddr::V6(addr) => {
                self.absorb(&addr.ip().octets());
                self.word(u64::from(addr.port()));
            }
        }
    }

    /// The kind, and all of the content that the bytes which machines were given do not show.
    fn absorb_event(&mut self, event: &Event) {
        let mut kind = |kind| self.word(kind);
        match event {
            Event::Joined(_) => kind(1),
            Event::Gone(_) => kind(2),
            Event::Updated(_) => kind(3),
            Event::Renewed(_) => kind(4),
            Event::Suspected(_) => kind(5),
            Event::Cleared(_) => kind(6),
            Event::Reaped(id) => {
                kind(7);
                self.absorb(id.as_str().as_bytes());
            }
            Event::Conflict { existing, other } => {
                kind(8);
                self.absorb(existing.id.as_str().as_bytes());
                self.absorb_addr(existing.addr);
                self.absorb_addr(other.addr);
            }
            Event::UserMessage { from, payload, .. } => {
                kind(9);
                self.absorb_addr(*from);
                self.absorb(payload);
            }
            Event::PingCompleted { node, rtt, .. } => {
                kind(10);
                self.absorb(node.id.as_str().as_bytes());
                self.word(rtt.as_nanos() as u64);
            }
            Event::JoinDone { peer, result, .. } => {
                kind(11);
                self.absorb_addr(peer.addr);
                self.word(result.as_ref().map_or(u64::MAX, |records| *records as u64));
            }
            Event::HealthChanged(score) => {
                kind(12);
                self.word(u64::from(*score));
            }
            Event::Refuted { accusation, incarnation, .. } => {
                kind(13);
                self.word(u64::from(*incarnation) << 8 | *accusation as u64);
            }
            Event::PacketsLost { node, .. } => {
                kind(14);
                self.absorb(node.id.as_str().as_bytes());
            }
            Event::ExchangeFailed(_) => kind(15),
            Event::BroadcastDone(_) => kind(16),
            Event::PingDone { .. } => kind(17),
            Event::UserState { .. } => kind(18),
            _ => kind(0),
        }
        if let Some(member) = member_of(event) {
            self.absorb_member(member);
        }
    }

    /// Bytes that a process was given.
    pub(crate) fn packet(&mut self, at: Time, to: ProcessId, bytes: &[u8]) {
        self.word(at.0);
        self.word(u64::from(to));
        self.absorb(bytes);
    }

    /// Something that was done to a process or the network.
    pub(crate) fn note(&mut self, at: Time, what: &str) {
        self.word(at.0);
        self.absorb(what.as_bytes());
        if let Some(log) = &mut self.log {
            // Writing to a string does not fail.
            let _ = writeln!(log, "{at}  {what}");
        }
    }

    /// Something that a machine told.
    pub(crate) fn happened(&mut self, at: Time, process: ProcessId, event: &Event) {
        self.word(at.0);
        self.word(u64::from(process));
        self.absorb_event(event);
        if let (Some(log), Some(what)) = (&mut self.log, describe(event)) {
            // Writing to a string does not fail.
            let _ = writeln!(log, "{at}  n{process:<5} {what}");
        }
    }
}

fn describe(event: &Event) -> Option<String> {
    let member = |what: &str, member: &Member| {
        Some(format!("{what} {} (incarnation {})", member.id(), member.incarnation))
    };
    match event {
        Event::Joined(m) => member("sees join", m),
        Event::Gone(m) => {
            let why = m.death.as_ref().map(|death| death.to_string()).unwrap_or_default();
            Some(format!("sees {} {} (incarnation {}): {why}", m.id(), m.state, m.incarnation))
        }
        Event::Updated(m) => member("sees update", m),
        Event::Suspected(m) => member("suspects", m),
        Event::Cleared(m) => member("clears", m),
        Event::Reaped(id) => Some(format!("reaps {id}")),
        Event::Conflict { existing, other } => {
            Some(format!("sees {} at {} and {}", existing.id, existing.addr, other.addr))
        }
        Event::Refuted { accusation, incarnation, .. } => {
            Some(format!("contradicts being {accusation} (incarnation {incarnation})"))
        }
        Event::JoinDone { peer, result, .. } => match result {
            Ok(records) => Some(format!("joined through {peer}: {records} records")),
            Err(error) => Some(format!("join failed: {error}")),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use memberlist_protocol::{Config, NodeState};

    use super::*;
    use crate::network::{LinkModel, Network};
    use crate::world::World;

    fn digest(act: impl Fn(&mut Trace)) -> u64 {
        let mut trace = Trace::default();
        act(&mut trace);
        trace.digest()
    }

    #[test]
    fn bytes_differ_also_in_how_many_zeros_end_them() {
        let of = |bytes: &[u8]| digest(|trace| trace.packet(Time::ZERO, 1, bytes));
        assert_ne!(of(b"ab"), of(b"ab\0"));
        assert_eq!(of(b"ab"), of(b"ab"));
    }

    #[test]
    fn events_differ_in_kind_name_state_incarnation_and_address() {
        let of = |event: &Event| digest(|trace| trace.happened(Time::ZERO, 1, event));
        let mut world = World::new(1, Network::new(LinkModel::perfect(Duration::ZERO)), ());
        let id = world.add(Config::lan());
        let Some(member) = world.machine(id).map(|machine| machine.own()) else { return };
        let changed = |change: fn(&mut Member)| {
            let mut other = member.clone();
            change(&mut other);
            of(&Event::Joined(other))
        };
        let digests = [
            of(&Event::Joined(member.clone())),
            of(&Event::Updated(member.clone())),
            changed(|member| member.state = NodeState::Suspect),
            changed(|member| member.incarnation += 1),
            changed(|member| Arc::make_mut(&mut member.node).addr.set_port(9)),
            changed(|member| Arc::make_mut(&mut member.node).meta = Bytes::from_static(b"x")),
            of(&Event::HealthChanged(1)),
            of(&Event::HealthChanged(2)),
        ];
        let distinct: BTreeSet<u64> = digests.into_iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }
}
