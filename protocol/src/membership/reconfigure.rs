//! Changing settings while the node runs. Go has nothing of the kind: a change there is a restart.
//!
//! Invariant: a change is taken as a whole or not at all, and nothing that others, streams under way or
//! memory of the past depend on changes: such settings are listed in [`FIXED`]. A periodic task whose interval
//! changes begins anew, at a random part of it; what is under way (a probe, a suspicion) ends by the settings
//! that it began with.

use std::time::Instant;

use super::Membership;
use super::timer::Timer;
use crate::config::Config;
use crate::error::ReconfigureError;
use crate::stats::DropReason;

/// Whether a setting is the same in both.
type Same = fn(&Config, &Config) -> bool;

/// What cannot change.
const FIXED: [(&str, Same); 12] = [
    ("awareness_max_multiplier", |a, b| a.awareness_max_multiplier == b.awareness_max_multiplier),
    ("stream_timeout", |a, b| a.stream_timeout == b.stream_timeout),
    ("max_push_pulls", |a, b| a.max_push_pulls == b.max_push_pulls),
    ("max_tombstones", |a, b| a.max_tombstones == b.max_tombstones),
    ("max_packet_bytes", |a, b| a.max_packet_bytes == b.max_packet_bytes),
    ("max_meta_bytes", |a, b| a.max_meta_bytes == b.max_meta_bytes),
    ("max_members", |a, b| a.max_members == b.max_members),
    ("wire_format", |a, b| a.wire_format == b.wire_format),
    ("checksum", |a, b| a.checksum == b.checksum),
    ("compression", |a, b| a.compression == b.compression),
    ("protocol_version", |a, b| a.protocol_version == b.protocol_version),
    ("application_versions", |a, b| a.application_versions == b.application_versions),
];

impl Membership {
    /// Takes other settings from now on. The intervals, timeouts and multipliers of probing, suspicion, gossip,
    /// exchanges and reconnecting may change, and what is switched on of them.
    ///
    /// # Errors
    /// If the settings cannot be used, or one differs that cannot change; then nothing has changed.
    pub fn reconfigure(&mut self, config: Config, now: Instant) -> Result<(), ReconfigureError> {
        config.validate()?;
        let differing = FIXED.iter().filter(|(_, same)| !same(&self.config, &config));
        let fixed: Vec<&'static str> = differing.map(|(field, _)| *field).collect();
        if !fixed.is_empty() {
            return Err(ReconfigureError::Fixed { fields: fixed });
        }
        let old = std::mem::replace(&mut self.config, config);
        if old.probe_interval != self.config.probe_interval {
            self.restart_probing(now);
        }
        if old.push_pull_interval != self.config.push_pull_interval {
            self.restart_push_pull(now);
        }
        if old.gossip_interval != self.config.gossip_interval
            || old.gossip_nodes != self.config.gossip_nodes
        {
            self.restart_gossip(now);
        }
        self.restart_eager(now);
        for _ in 0..self.user.prune(self.config.max_user_broadcasts) {
            self.drop(DropReason::BroadcastQueueFull);
        }
        if !self.syncs() {
            // Nobody's view will confirm it.
            self.own_update = None;
        }
        if old.reconnect_interval != self.config.reconnect_interval {
            self.reconnect_timer.take().into_iter().for_each(|key| self.timers.cancel(key));
            self.arm_reconnect(now);
        }
        Ok(())
    }

    pub(super) fn restart_probing(&mut self, now: Instant) {
        self.probe_timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        if !self.config.probe_interval.is_zero() {
            let first = now + self.random_part(self.config.probe_interval);
            self.probe_timer = Some(self.timers.arm(first, Timer::ProbeTick));
        }
    }

    pub(super) fn restart_push_pull(&mut self, now: Instant) {
        self.push_pull_timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        if !self.config.push_pull_interval.is_zero() {
            let first = now + self.random_part(self.config.push_pull_interval);
            self.push_pull_timer = Some(self.timers.arm(first, Timer::PushPullTick));
        }
    }

    fn restart_gossip(&mut self, now: Instant) {
        self.gossip_timer.take().into_iter().for_each(|key| self.timers.cancel(key));
        self.gossip_phase = now + self.random_part(self.config.gossip_interval);
        // A tick that has nothing to send is the last.
        self.arm_gossip(now);
    }
}
