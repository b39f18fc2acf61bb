//! A random scenario: how large the cluster is, how it is set, and which faults may happen.
//!
//! Everything follows from the seed. Each class of faults is switched on or off for the whole run
//! (swarm testing): a run with few classes goes deeper into what those can do together.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use memberlist_protocol::wire::Room;
use memberlist_protocol::{Config, Lifeguard, WireFormat};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::network::{Delay, LinkModel, PacketModel, ProcessId, StreamModel};

/// A class of faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// Packets are lost, streams break.
    Loss,
    /// Packets come twice.
    Duplication,
    /// Packets overtake each other.
    Reordering,
    /// Links hold everything back for a while.
    Clogging,
    /// Some cannot send to some others.
    OneWay,
    /// Two sides do not hear each other for a while.
    Partition,
    /// The same for longer than the dead are remembered in the table.
    LongPartition,
    /// Processes end without a word, and start again under their name and address.
    Crash,
    /// Processes start again under their name at another address.
    Move,
    /// Processes stand still.
    Freeze,
    /// Processes cannot send or receive, in short repeated spells.
    Block,
    /// Processes say farewell, and come back.
    Leave,
    /// Meta changes.
    Meta,
    /// Applications broadcast.
    Broadcast,
    /// Outer layers and the path leave less room in packets.
    TightPackets,
}

impl Fault {
    /// All classes.
    pub const ALL: [Self; 15] = [
        Self::Loss,
        Self::Duplication,
        Self::Reordering,
        Self::Clogging,
        Self::OneWay,
        Self::Partition,
        Self::LongPartition,
        Self::Crash,
        Self::Move,
        Self::Freeze,
        Self::Block,
        Self::Leave,
        Self::Meta,
        Self::Broadcast,
        Self::TightPackets,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplication => "duplication",
            Self::Reordering => "reordering",
            Self::Clogging => "clogging",
            Self::OneWay => "one-way partition",
            Self::Partition => "partition",
            Self::LongPartition => "long partition",
            Self::Crash => "crash and restart",
            Self::Move => "restart elsewhere",
            Self::Freeze => "freeze",
            Self::Block => "block",
            Self::Leave => "leave and return",
            Self::Meta => "meta",
            Self::Broadcast => "broadcast",
            Self::TightPackets => "tight packets",
        }
    }
}

/// One run, as its seed decides it.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// How many processes.
    pub nodes: usize,
    /// Which settings it started from, for the trace.
    pub preset: &'static str,
    /// Their settings.
    pub config: Config,
    /// The network without faults.
    pub link: LinkModel,
    /// What outer layers and path leave of a packet.
    pub room: Room,
    /// What may happen.
    pub faults: BTreeSet<Fault>,
    /// For how long.
    pub chaos: Duration,
    /// How often something happens in that time, on average.
    pub actions: u32,
    /// What the processes speak; see [`Scenario::speaking`].
    pub wire: WireFormat,
    /// Without eager gossip, view digests and delta sync.
    pub ticks_only: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5ce7_a210);
        let nodes = match rng.random_range(0..100) {
            0 => 200,
            // Small clusters are where formulas and rings have their edges.
            1..40 => rng.random_range(2..=8),
            _ => rng.random_range(9..=64),
        };
        let mut faults: BTreeSet<Fault> =
            Fault::ALL.into_iter().filter(|_| rng.random_bool(0.4)).collect();
        if faults.is_empty() {
            faults.extend(Fault::ALL.choose(&mut rng));
        }
        let (preset, config) = settings(nodes, &mut rng);
        let config = small_limits(seed, config);
        let tight = faults.contains(&Fault::TightPackets);
        let slow = config.probe_interval / 2;
        let mut chaos = slow * rng.random_range(60..360);
        if faults.contains(&Fault::LongPartition) {
            // So that one that begins early ends before the calm does it.
            chaos = chaos.max(long_partition(&config) + config.probe_interval * 45);
        }
        Self {
            seed,
            nodes,
            preset,
            link: quiet_link(&config, &mut rng),
            room: room(tight, &mut rng),
            faults,
            chaos,
            actions: rng.random_range(8..48),
            config,
            wire: WireFormat::Native,
            ticks_only: false,
        }
    }

    /// The same in another wire format. In a mixed cluster half of the processes read both formats and half,
    /// as Go's nodes do, that of Go alone; one that is started again may be of the other kind.
    #[must_use]
    pub fn speaking(self, wire: WireFormat) -> Self {
        Self { wire, ..self }
    }

    /// The same without eager gossip, view digests and delta sync.
    #[must_use]
    pub fn ticking(self, ticks_only: bool) -> Self {
        Self { ticks_only, ..self }
    }

    /// The settings of a process for one of its lives, the first being 1.
    pub fn config_of(&self, id: ProcessId, life: u32) -> Config {
        let mut config = self.config.clone();
        if self.ticks_only {
            config = crate::experiment::ticks_only(config);
        }
        config.wire_format = match self.wire {
            WireFormat::Mixed if (id + life) % 2 == 0 => WireFormat::Hashicorp,
            wire => wire,
        };
        config
    }

    /// Whether a class of faults may happen.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<&str> = self.faults.iter().map(|fault| fault.name()).collect();
        write!(f, "{} nodes, {}, {}", self.nodes, self.preset, faults.join(", "))
    }
}

fn settings(nodes: usize, rng: &mut StdRng) -> (&'static str, Config) {
    let (preset, mut config) = match rng.random_range(0..10) {
        0..6 => ("lan", Config::lan()),
        6..9 => ("local", Config::local()),
        _ => ("wan", Config::wan()),
    };
    if rng.random_bool(0.3) {
        config.lifeguard = Lifeguard::OFF;
        config.lifeguard.health_aware_probe = rng.random();
        config.lifeguard.dynamic_suspicion = rng.random();
        config.lifeguard.buddy_system = rng.random();
    }
    if rng.random_bool(0.2) {
        config.indirect_probes = rng.random_range(0..=4);
        config.stream_ping = rng.random();
    }
    if rng.random_bool(0.2) {
        config.gossip_nodes = rng.random_range(1..=4);
        config.retransmit_mult = rng.random_range(1..=5);
        config.user_broadcast_share_percent = rng.random_range(0..=90);
    }
    if rng.random_bool(0.2) {
        config.dead_node_reclaim_time = config.probe_interval * rng.random_range(1..60);
    }
    if rng.random_bool(0.2) {
        config.max_relays = rng.random_range(0..=3);
        config.max_user_broadcasts = rng.random_range(0..=8);
    }
    // So that the last of many failed members is tried before they are given up.
    config.reconnect_interval = match nodes {
        ..=64 => Duration::from_secs(*[5, 10, 30].choose(rng).unwrap_or(&30)),
        _ => Duration::from_secs(5),
    };
    (preset, config)
}

/// Now and then limits are so small that they are reached. They come from a sequence of their own, so
/// that a seed's other settings do not depend on them.
fn small_limits(seed: u64, mut config: Config) -> Config {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x11a1_7500);
    if rng.random_bool(0.1) {
        config.max_tombstones = rng.random_range(0..=4);
    }
    if rng.random_bool(0.1) {
        config.max_push_pulls = rng.random_range(1..=3);
    }
    if rng.random_bool(0.1) {
        config.max_relays = rng.random_range(0..=3);
    }
    if rng.random_bool(0.1) {
        config.max_user_broadcasts = rng.random_range(0..=3);
    }
    config
}

/// How long a long partition lasts at least: longer than the dead are remembered in the table.
pub(crate) fn long_partition(config: &Config) -> Duration {
    config.gossip_to_the_dead_time * 2
}

/// Delays of a network in which no probe fails: the round trip stays well below the probe timeout.
fn quiet_link(config: &Config, rng: &mut StdRng) -> LinkModel {
    let most = config.probe_timeout / 8;
    let least = Duration::from_micros(rng.random_range(50..2000));
    let delay = match rng.random_range(0..3) {
        0 => Delay::Fixed(least),
        1 => Delay::Uniform(least, most),
        _ => Delay::Exponential(least, most / 20),
    };
    LinkModel {
        packets: PacketModel { delay, loss: 0.0, duplicate: 0.0 },
        streams: StreamModel { delay, loss: 0.0 },
    }
}

fn room(tight: bool, rng: &mut StdRng) -> Room {
    if !tight {
        return Room { head: 0, tail: 0, max_packet_bytes: usize::MAX };
    }
    Room {
        head: rng.random_range(0..=64),
        tail: rng.random_range(0..=32),
        max_packet_bytes: rng.random_range(1024..=1500),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::bounds;

    #[test]
    fn scenarios_differ_and_cover_everything() {
        let scenarios: Vec<Scenario> = (0..500).map(Scenario::new).collect();
        for fault in Fault::ALL {
            let with = scenarios.iter().filter(|scenario| scenario.has(fault)).count();
            assert!((100..400).contains(&with), "{fault:?}: {with}");
        }
        for nodes in [2, 8, 200] {
            assert!(scenarios.iter().any(|scenario| scenario.nodes == nodes), "{nodes}");
        }
        for preset in ["lan", "wan", "local"] {
            assert!(scenarios.iter().any(|scenario| scenario.preset == preset), "{preset}");
        }
        assert_eq!(scenarios[7], Scenario::new(7));
    }

    #[test]
    fn settings_are_valid_and_failed_members_are_tried_for_longer_than_the_bound() {
        for seed in 0..2000 {
            let scenario = Scenario::new(seed);
            scenario.config.validate().unwrap();
            let bound = bounds::reconnect(&scenario.config, scenario.nodes);
            assert!(bound + scenario.chaos < scenario.config.reconnect_timeout, "seed {seed}");
        }
    }
}
