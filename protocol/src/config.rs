//! Every knob of the protocol, with Go memberlist's names in the words of this library.

use std::time::Duration;

use crate::error::{ConfigError, ConfigFault};
use crate::node::{MAX_NAME_BYTES, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Versions};
use crate::wire::WireFormat;
use crate::wire::sync::SyncLimits;

/// Bytes that the rest of an `alive` message may need beside name and meta, in any wire format,
/// with packet header and checksum.
pub const ALIVE_FIXED_BYTES: usize = 128;

/// The settings of one [`Membership`](crate::Membership).
///
/// Start from a preset ([`lan`](Self::lan), [`wan`](Self::wan), [`local`](Self::local)) and change
/// fields. All members of a cluster should use the same values; those that must agree say so.
///
/// ```
/// use std::time::Duration;
/// let mut config = memberlist_protocol::Config::lan();
/// config.probe_interval = Duration::from_secs(2);
/// config.validate()?;
/// # Ok::<(), memberlist_protocol::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How often one member is probed, round robin (SWIM §4.3). LAN 1 s, WAN 5 s, local 1 s.
    /// Smaller finds failures sooner and costs more packets. Zero switches failure detection *and*
    /// reaping off; suspicions that others raise then run as if it were 1 s. Go: `ProbeInterval`.
    pub probe_interval: Duration,
    /// How long to wait for the ack of a direct ping before relays are asked. LAN 500 ms, WAN 3 s,
    /// local 200 ms. Should be a good 99th percentile of the round trip; when too small, relays
    /// are asked needlessly. Must be less than `probe_interval`, and at most a day
    /// if that is zero: pings by hand and for others wait as long. Go: `ProbeTimeout`.
    pub probe_timeout: Duration,
    /// Where the transport measures round trips (QUIC does), a ping waits for this many of the
    /// member's instead of `probe_timeout`: 50 ms at least, and never longer than `probe_timeout`.
    /// Default 0: always `probe_timeout`. Too small: relays are asked although a member only paused
    /// for a moment. No such setting in Go.
    pub probe_timeout_round_trips: u32,
    /// How many relays are asked when a direct ping is not answered (SWIM §3.1, *k*). LAN and WAN
    /// 3, local 1; 0 asks none. Go: `IndirectChecks`.
    pub indirect_probes: usize,
    /// Whether a failed direct ping is also tried over a stream, which tells "dead" from "packets
    /// are lost". Default on. Go: `DisableTcpPings`, reversed.
    pub stream_ping: bool,

    /// The minimum suspicion timeout is `suspicion_mult × log10(N) × probe_interval`. LAN 4, WAN 6,
    /// local 3. Smaller declares death sooner and more often wrongly. Also sets how many
    /// confirmations bring the timeout to its minimum (`suspicion_mult − 2`). Go: `SuspicionMult`.
    pub suspicion_mult: u32,
    /// The suspicion timeout without any confirmation, as a multiple of the minimum (Lifeguard
    /// §IV-B). Default 6. Go: `SuspicionMaxTimeoutMult`.
    pub suspicion_max_timeout_mult: u32,
    /// Upper bound of the health score plus one: a node that doubts itself probes up to this many
    /// times slower (Lifeguard §IV-A). Default 8; 1 switches the scaling off. Go:
    /// `AwarenessMaxMultiplier`.
    pub awareness_max_multiplier: u32,
    /// The three Lifeguard extensions, each by itself. Default all on.
    pub lifeguard: Lifeguard,

    /// How often queued news is sent to `gossip_nodes` members. LAN 200 ms, WAN 500 ms,
    /// local 100 ms. Zero leaves only what rides on pings and acks. Nothing runs while nothing is
    /// queued. Go: `GossipInterval`.
    pub gossip_interval: Duration,
    /// To how many members per tick. LAN 3, WAN 4, local 3. Zero as for `gossip_interval`. Go:
    /// `GossipNodes`.
    pub gossip_nodes: usize,
    /// Fresh news is sent to `gossip_nodes` members at once and passed on at once by those for whom it
    /// is new, but no sooner than this after the last such round, so that what comes meanwhile travels
    /// together. LAN and local 10 ms, WAN 50 ms. Zero leaves it to the ticks, as in Go. Smaller is no
    /// faster where round trips are longer; larger than `gossip_interval` makes it pointless. News is
    /// not sent more often for it, see `retransmit_mult`, but earlier in smaller packets: up to a fifth more
    /// bytes while changes never cease. Accusations wait for the tick all the same.
    pub eager_gossip_spacing: Duration,
    /// How long a dead member is still told the news, so that it learns of its death and refutes;
    /// also the age at which dead and left members are reaped. LAN 30 s, WAN 60 s, local 15 s. Go:
    /// `GossipToTheDeadTime`.
    pub gossip_to_the_dead_time: Duration,
    /// Each item of news is sent `retransmit_mult × ceil(log10(N + 1))` times, and at least 8 times or
    /// to every member, whichever is less. LAN and WAN 4, local 2. Smaller costs less and misses more
    /// members until they are found by their digests, or without `delta_sync` by the next push/pull. Go:
    /// `RetransmitMult`.
    pub retransmit_mult: u32,
    /// The share of a packet's free room, in percent, that waiting user broadcasts may claim before
    /// membership news; either side may use what the other leaves. Default 25; 0 sends user
    /// broadcasts only in what is left, as Go does, and a busy cluster then starves them. At most 90,
    /// so that news is not starved either.
    pub user_broadcast_share_percent: u8,
    /// How many user broadcasts may wait. Default 4,096; the oldest and most transmitted is dropped
    /// and counted when full.
    pub max_user_broadcasts: usize,

    /// How often the whole state is exchanged with one random member; stretched in clusters of more
    /// than 32 by `ceil(log2 N − 5) + 1`. LAN 30 s, WAN 60 s, local 15 s. Zero switches the
    /// periodic exchange off (joining still exchanges). Go: `PushPullInterval`.
    pub push_pull_interval: Duration,
    /// Whether members compare digests of what they know on pings, acks and gossip (10 bytes each, 12 and
    /// the name on gossip), and exchange what differs. Default on. The whole state is then exchanged with such
    /// members at every tenth `push_pull_interval` only. Off: as in Go. Of the native format only; a member
    /// that shows no digest is treated as with it off.
    pub delta_sync: bool,
    /// The deadline of a stream exchange. LAN 10 s, WAN 30 s, local 1 s. Go: `TCPTimeout`.
    pub stream_timeout: Duration,
    /// How many inbound push/pulls are served at once. Default 128. As many more wait for their turn: for a
    /// thirtieth of `stream_timeout`, in Go's format for a third. After that, and beyond, one is told when to
    /// come back, in Go's format it is refused; either is counted. Go: `maxPushPullRequests`.
    pub max_push_pulls: usize,

    /// After this time a dead member's name may be taken over at another address. Default zero:
    /// only after it was reaped. Go: `DeadNodeReclaimTime`.
    pub dead_node_reclaim_time: Duration,
    /// How often one failed member is tried again, on average less often when few have failed (the
    /// chance is failed / alive, as in Serf). Default 30 s; zero switches it off.
    pub reconnect_interval: Duration,
    /// For how long a failed member is tried again. Default 24 h; zero switches it off.
    pub reconnect_timeout: Duration,
    /// How many reaped members are remembered, for reconnecting, for refusing stale news of them
    /// and for explaining their death. Default 1,024; the oldest is forgotten.
    pub max_tombstones: usize,

    /// The largest packet in bytes, outer layers included. Default 1,400, which needs no IP
    /// fragmentation on an Ethernet path. The transport may lower it per peer. 1,024 to 65,507. Go:
    /// `UDPBufferSize`.
    pub max_packet_bytes: usize,
    /// The longest meta in bytes, own and received; must agree in the cluster. Default 512. An
    /// announcement must fit a packet: this much meta, a name of 255 bytes and
    /// [`ALIVE_FIXED_BYTES`] more, and with the own name what the outer layers add. Go: `MetaMaxSize`.
    pub max_meta_bytes: usize,
    /// How many members are remembered at most, gone ones included; news of one more is dropped and
    /// counted. Default 131,072. A guard against a peer that invents names.
    pub max_members: usize,
    /// How many pings are relayed for others at once. Default 256; one more is dropped and counted.
    pub max_relays: usize,
    /// Whether an ack counts only when it comes from the address of the node that was asked (or of
    /// a relay that was). Default on. Switch it off only where a member's packets leave from
    /// another address than the one that it advertises; then a forged ack needs to guess a sequence
    /// number only.
    pub verify_ack_source: bool,

    /// The bytes on the wire; must agree in the cluster, where `Mixed` agrees with both others. Default
    /// native.
    pub wire_format: WireFormat,
    /// Whether packets carry a CRC-32, in Go's format those to members that announce protocol version 5 or
    /// higher. Default on. They do not while an outer layer authenticates them;
    /// see [`Membership::set_outer_layers`](crate::Membership::set_outer_layers).
    pub checksum: bool,
    /// Whether packets and streams are compressed: by LZ4 from 256 bytes on, in Go's format by LZW, and
    /// where that makes them smaller (streams in Go's format in any case). Default on. What comes compressed is read in any case. Without the cargo feature
    /// `compression` nothing is compressed, and what comes so is refused and counted. Go:
    /// `EnableCompression`.
    pub compression: bool,
    /// The protocol version announced as "current", 1 to 5. Default 2. In Go's format a node of version 1
    /// seals with encryption version 0. Go: `ProtocolVersion`.
    pub protocol_version: u8,
    /// The application's own versions: minimum, maximum, current. Default 0, 0, 0. A node whose
    /// current version is out of everybody's range is refused at push/pull. Go:
    /// `DelegateProtocolMin`, `Max`, `Version`.
    pub application_versions: (u8, u8, u8),
}

/// The parts of Lifeguard that can be switched off, as the paper's experiments do (§V).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Lifeguard {
    /// LHA-Probe: the probe interval grows with the health score, and relays are asked for nacks.
    pub health_aware_probe: bool,
    /// LHA-Suspicion: the timeout starts high and shrinks with independent confirmations, which are
    /// passed on. Off: the minimum from the start.
    pub dynamic_suspicion: bool,
    /// Buddy system: who pings a suspected member tells it so at once.
    pub buddy_system: bool,
}

impl Lifeguard {
    /// Everything on: the default.
    pub const ON: Self =
        Self { health_aware_probe: true, dynamic_suspicion: true, buddy_system: true };
    /// Everything off: plain SWIM with suspicion.
    pub const OFF: Self =
        Self { health_aware_probe: false, dynamic_suspicion: false, buddy_system: false };
}

impl Default for Lifeguard {
    fn default() -> Self {
        Self::ON
    }
}

impl Config {
    /// For one data centre: round trips of a few milliseconds.
    pub fn lan() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            probe_timeout_round_trips: 0,
            indirect_probes: 3,
            stream_ping: true,
            suspicion_mult: 4,
            suspicion_max_timeout_mult: 6,
            awareness_max_multiplier: 8,
            lifeguard: Lifeguard::ON,
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            eager_gossip_spacing: Duration::from_millis(10),
            gossip_to_the_dead_time: Duration::from_secs(30),
            retransmit_mult: 4,
            user_broadcast_share_percent: 25,
            max_user_broadcasts: 4096,
            push_pull_interval: Duration::from_secs(30),
            delta_sync: true,
            stream_timeout: Duration::from_secs(10),
            max_push_pulls: 128,
            dead_node_reclaim_time: Duration::ZERO,
            reconnect_interval: Duration::from_secs(30),
            reconnect_timeout: Duration::from_secs(24 * 3600),
            max_tombstones: 1024,
            max_packet_bytes: 1400,
            max_meta_bytes: 512,
            max_members: 131_072,
            max_relays: 256,
            verify_ack_source: true,
            wire_format: WireFormat::Native,
            checksum: true,
            compression: true,
            protocol_version: 2,
            application_versions: (0, 0, 0),
        }
    }

    /// For nodes in several regions: slower and more patient.
    pub fn wan() -> Self {
        Self {
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            suspicion_mult: 6,
            gossip_interval: Duration::from_millis(500),
            gossip_nodes: 4,
            eager_gossip_spacing: Duration::from_millis(50),
            gossip_to_the_dead_time: Duration::from_secs(60),
            push_pull_interval: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(30),
            ..Self::lan()
        }
    }

    /// For nodes on one machine: quick, for development and tests.
    pub fn local() -> Self {
        Self {
            probe_timeout: Duration::from_millis(200),
            indirect_probes: 1,
            suspicion_mult: 3,
            gossip_interval: Duration::from_millis(100),
            gossip_to_the_dead_time: Duration::from_secs(15),
            retransmit_mult: 2,
            push_pull_interval: Duration::from_secs(15),
            stream_timeout: Duration::from_secs(1),
            ..Self::lan()
        }
    }

    /// The version numbers that this configuration announces.
    pub fn versions(&self) -> Versions {
        Versions::new(
            (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, self.protocol_version),
            self.application_versions,
        )
    }

    /// What a step of comparing members may hold.
    pub fn sync_limits(&self) -> SyncLimits {
        SyncLimits { max_meta_bytes: self.max_meta_bytes, max_members: self.max_members }
    }

    /// Checks the settings as a whole. What goes around packets is not known here: see
    /// [`Membership::set_outer_layers`](crate::Membership::set_outer_layers).
    ///
    /// # Errors
    /// Every fault found, not only the first.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let mut require = |holds: bool, field: &'static str, rule: &'static str| {
            if !holds {
                faults.push(ConfigFault { field, rule });
            }
        };
        require(
            self.probe_interval.is_zero() || self.probe_timeout < self.probe_interval,
            "probe_timeout",
            "must be less than probe_interval",
        );
        require(
            self.probe_interval.is_zero() || !self.probe_timeout.is_zero(),
            "probe_timeout",
            "must be more than zero",
        );
        require(
            (1..=1000).contains(&self.suspicion_mult),
            "suspicion_mult",
            "must be between 1 and 1000",
        );
        require(
            (1..=1000).contains(&self.suspicion_max_timeout_mult),
            "suspicion_max_timeout_mult",
            "must be between 1 and 1000",
        );
        require(
            (1..=1000).contains(&self.awareness_max_multiplier),
            "awareness_max_multiplier",
            "must be between 1 and 1000",
        );
        require(
            (1..=1000).contains(&self.retransmit_mult),
            "retransmit_mult",
            "must be between 1 and 1000",
        );
        require(
            self.user_broadcast_share_percent <= 90,
            "user_broadcast_share_percent",
            "must be between 0 and 90",
        );
        let intervals = [
            ("probe_interval", self.probe_interval),
            ("probe_timeout", self.probe_timeout),
            ("gossip_interval", self.gossip_interval),
            ("eager_gossip_spacing", self.eager_gossip_spacing),
            ("push_pull_interval", self.push_pull_interval),
            ("reconnect_interval", self.reconnect_interval),
            ("stream_timeout", self.stream_timeout),
        ];
        for (field, interval) in intervals {
            require(interval <= Duration::from_secs(86_400), field, "must be at most a day");
        }
        require(!self.stream_timeout.is_zero(), "stream_timeout", "must be more than zero");
        require(
            (1024..=65_507).contains(&self.max_packet_bytes),
            "max_packet_bytes",
            "must be between 1024 and 65507",
        );
        require(
            self.max_meta_bytes
                <= self.max_packet_bytes.saturating_sub(MAX_NAME_BYTES + ALIVE_FIXED_BYTES),
            "max_meta_bytes",
            "an announcement (meta, a name of 255 bytes and 128 bytes more) must fit max_packet_bytes",
        );
        require(self.max_members >= 1, "max_members", "must be at least 1");
        require(
            (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION_MAX).contains(&self.protocol_version),
            "protocol_version",
            "must be between 1 and 5",
        );
        let (min, max, current) = self.application_versions;
        require(
            min <= current && current <= max,
            "application_versions",
            "minimum, maximum and current must be in order",
        );
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }
}

impl Default for Config {
    /// [`Config::lan`].
    fn default() -> Self {
        Self::lan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_carry_gos_values() {
        for preset in [Config::lan(), Config::wan(), Config::local()] {
            preset.validate().unwrap();
        }
        let wan = Config::wan();
        assert_eq!((wan.probe_interval.as_secs(), wan.probe_timeout.as_secs()), (5, 3));
        assert_eq!((wan.suspicion_mult, wan.gossip_nodes, wan.retransmit_mult), (6, 4, 4));
        let local = Config::local();
        assert_eq!((local.suspicion_mult, local.indirect_probes, local.retransmit_mult), (3, 1, 2));
        assert_eq!(local.push_pull_interval.as_secs(), 15);
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let mut config = Config::lan();
        config.probe_timeout = config.probe_interval;
        config.retransmit_mult = 0;
        config.max_meta_bytes = 5000;
        config.protocol_version = 6;
        config.user_broadcast_share_percent = 91;
        config.push_pull_interval = Duration::MAX;
        let error = config.validate().unwrap_err();
        let fields: Vec<_> = error.faults.iter().map(|fault| fault.field).collect();
        assert_eq!(
            fields,
            [
                "probe_timeout",
                "retransmit_mult",
                "user_broadcast_share_percent",
                "push_pull_interval",
                "max_meta_bytes",
                "protocol_version"
            ]
        );
        assert!(error.to_string().contains("max_meta_bytes"), "{error}");
    }

    #[test]
    fn no_number_is_too_large_to_be_judged() {
        let mut config = Config::lan();
        config.max_meta_bytes = usize::MAX;
        assert_eq!(config.validate().unwrap_err().faults[0].field, "max_meta_bytes");
    }

    #[test]
    fn without_probes_the_timeout_of_a_ping_is_bounded_all_the_same() {
        let mut config = Config::lan();
        config.probe_interval = Duration::ZERO;
        config.probe_timeout = Duration::MAX;
        let error = config.validate().unwrap_err();
        assert_eq!(error.faults.len(), 1);
        assert_eq!(error.faults[0].field, "probe_timeout");
    }
}
