//! Queues, timers and relays stay under their limits.

use super::{Check, Scene, Verdict};
use crate::process::Process;

pub(crate) struct Limits;

impl Check for Limits {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn stepped(&mut self, scene: &Scene<'_>, process: &Process) -> Verdict {
        let Some(machine) = process.machine() else { return Ok(()) };
        let (config, names) = (process.config(), scene.truth.names());
        let pending = machine.pending();
        let (news, user) = machine.queued_broadcasts();
        let tombstones = machine.tombstones().count();
        let limits = [
            ("relays", pending.relays, config.max_relays),
            // Beside relays: one failed member a reconnect tick, one tombstone that is asked.
            ("pings", pending.pings, config.max_relays + 2 * names),
            ("timers", pending.timers, 7 + names + 2 * pending.pings),
            ("news", news, names),
            ("user broadcasts", user, config.max_user_broadcasts),
            ("tombstones", tombstones, config.max_tombstones.min(names)),
            ("members", machine.known_members(), names),
            ("merges", pending.merges, config.max_push_pulls + pending.exchanges + 1),
            ("packets", pending.packets, 0),
        ];
        for (what, is, limit) in limits {
            if is > limit {
                return Err(format!("n{} has {is} {what}, at most {limit} expected", process.id));
            }
        }
        Ok(())
    }
}
