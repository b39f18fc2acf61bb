//! Queues, timers and relays stay under their limits.

use memberlist_protocol::{Config, Membership, Pending};

use super::{Check, Scene, Verdict};
use crate::process::Process;

pub(crate) struct Limits;

impl Check for Limits {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn stepped(&mut self, scene: &Scene<'_>, process: &Process) -> Verdict {
        let Some(machine) = process.machine() else { return Ok(()) };
        let over = Held::by(machine).over(process.config(), scene.truth.names());
        over.map_or(Ok(()), |what| Err(format!("n{} has {what}", process.id)))
    }
}

/// What a machine holds.
struct Held {
    pending: Pending,
    user_broadcasts: usize,
    tombstones: usize,
}

impl Held {
    fn by(machine: &Membership) -> Self {
        let (_, user_broadcasts) = machine.queued_broadcasts();
        let tombstones = machine.tombstones().count();
        Self { pending: machine.pending(), user_broadcasts, tombstones }
    }

    /// The first of what is more than these settings and so many names allow.
    fn over(&self, config: &Config, names: usize) -> Option<String> {
        let pending = &self.pending;
        // Beside relays: one of a reaped name, and one a reconnect tick. Each lives for a probe timeout.
        let ticks = match config.reconnect_interval.as_nanos() {
            0 => 0,
            interval => config.probe_timeout.as_nanos().div_ceil(interval) as usize,
        };
        let limits = [
            ("relays", pending.relays, config.max_relays),
            ("pings", pending.pings, config.max_relays + names + ticks),
            // Six of its own, two of the running probe, one a suspicion, two a ping, one a deferred join.
            ("timers", pending.timers, 8 + names + 2 * pending.pings + pending.deferred_joins),
            ("user broadcasts", self.user_broadcasts, config.max_user_broadcasts),
            ("tombstones", self.tombstones, config.max_tombstones),
            ("merges", pending.merges, config.max_push_pulls + pending.exchanges + 1),
            // The world carries all that a machine sends before it gives it anything else to do.
            ("packets", pending.packets, 0),
        ];
        let (what, is, limit) = limits.into_iter().find(|(_, is, limit)| is > limit)?;
        Some(format!("{is} {what}, at most {limit} expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_one_too_many_away() {
        let mut config = Config::lan();
        (config.max_relays, config.max_user_broadcasts) = (3, 4);
        (config.max_tombstones, config.max_push_pulls) = (5, 6);
        let full = || {
            let mut pending = Pending::default();
            (pending.relays, pending.pings, pending.timers) = (3, 3 + 10 + 1, 8 + 10 + 28);
            (pending.exchanges, pending.merges) = (2, 9);
            Held { pending, user_broadcasts: 4, tombstones: 5 }
        };
        assert_eq!(full().over(&config, 10), None);
        type Add = fn(&mut Held);
        let more: [(&str, Add); 7] = [
            ("4 relays, at most 3", |held| held.pending.relays += 1),
            // Two timers belong to it.
            ("15 pings, at most 14", |held| held.pending.pings += 1),
            ("47 timers, at most 46", |held| held.pending.timers += 1),
            ("5 user broadcasts, at most 4", |held| held.user_broadcasts += 1),
            ("6 tombstones, at most 5", |held| held.tombstones += 1),
            ("10 merges, at most 9", |held| held.pending.merges += 1),
            ("1 packets, at most 0", |held| held.pending.packets += 1),
        ];
        for (says, add) in more {
            let mut held = full();
            add(&mut held);
            let what = held.over(&config, 10).unwrap_or_default();
            assert!(what.starts_with(says), "{what}");
        }
    }
}
