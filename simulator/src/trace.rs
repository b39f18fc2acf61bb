//! What happened in a run: always a digest, on request a log that a person can read.

use std::fmt::Write as _;

use memberlist_protocol::{Event, Member};

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

    fn absorb(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.digest = (self.digest ^ u64::from_le_bytes(word)).wrapping_mul(PRIME);
            self.digest ^= self.digest >> 29;
        }
    }

    /// Bytes that a process was given.
    pub(crate) fn packet(&mut self, at: Time, to: ProcessId, bytes: &[u8]) {
        self.absorb(&at.0.to_le_bytes());
        self.absorb(&to.to_le_bytes());
        self.absorb(bytes);
    }

    /// Something that was done to a process or the network.
    pub(crate) fn note(&mut self, at: Time, what: &str) {
        self.absorb(&at.0.to_le_bytes());
        self.absorb(what.as_bytes());
        if let Some(log) = &mut self.log {
            // Writing to a string does not fail.
            let _ = writeln!(log, "{at}  {what}");
        }
    }

    /// Something that a machine told.
    pub(crate) fn happened(&mut self, at: Time, process: ProcessId, event: &Event) {
        self.absorb(&at.0.to_le_bytes());
        self.absorb(&process.to_le_bytes());
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
