//! No packet is larger than its budget, outer layers included.

use super::{Check, Scene, Verdict};
use crate::process::Process;

pub(crate) struct Budget;

impl Check for Budget {
    fn name(&self) -> &'static str {
        "budget"
    }

    fn sent(&mut self, _: &Scene<'_>, process: &Process, bytes: &[u8]) -> Verdict {
        let room = process.room;
        let limit = room.max_packet_bytes.min(process.config().max_packet_bytes);
        let whole = room.head + bytes.len() + room.tail;
        if whole <= limit {
            return Ok(());
        }
        Err(format!("n{} sent {whole} bytes, at most {limit} allowed", process.id))
    }
}
