//! Counters. Nothing is dropped without one of them going up.

use crate::message::MessageKind;

/// Why something that came from the network, or could not go to it, was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DropReason {
    /// Bytes ran out in the middle of a packet or message.
    Truncated,
    /// Bytes that no encoder writes.
    Malformed,
    /// The checksum does not match.
    Checksum,
    /// Compressed content that is malformed, would be too large, or came to a node that was built
    /// without compression.
    Compression,
    /// A packet or stream of another wire format.
    WrongFormat,
    /// A version of the wire format that this node does not know.
    WrongVersion,
    /// No label, while this node has one.
    LabelMissing,
    /// A label, while this node has none.
    LabelUnexpected,
    /// Another label than this node's.
    LabelMismatch,
    /// A label that is doubled, empty or cut off.
    LabelMalformed,
    /// Encrypted, and no key of this node opens it: another key or label, or changed bytes.
    WrongKey,
    /// Encrypted, while this node has no keys.
    NoKey,
    /// Not encrypted, while this node accepts encrypted packets and streams only.
    PlaintextRefused,
    /// An encryption version that is not accepted here.
    EncryptionVersion,
    /// A message kind that this node does not know, or one that has no place where it was found.
    UnknownKind,
    /// A name that is empty, over 255 bytes or not UTF-8.
    BadName,
    /// An address that cannot be a node's: port 0, unspecified or multicast IP, odd length.
    BadAddress,
    /// Meta over [`Config::max_meta_bytes`](crate::Config::max_meta_bytes).
    MetaTooLarge,
    /// A frame, message or state over the limits of a stream.
    TooLarge,
    /// Version numbers that contradict themselves.
    BadVersions,
    /// An incarnation of 0, or of 2^31 and more.
    IncarnationOutOfRange,
    /// An incarnation more than 2^20 above the known one.
    IncarnationJump,
    /// A left member's name, claimed at another address without a higher incarnation.
    NameTaken,
    /// A name that is in use, claimed at another address.
    AddressConflict,
    /// News of a reaped member that is not newer than what is remembered of it.
    StaleNews,
    /// The application did not admit the node or the merge.
    NotAdmitted,
    /// The peer spoke under another name than its certificate's, or that is none a member can have.
    IdentityMismatch,
    /// The member table is full.
    TooManyMembers,
    /// A ping that named another node.
    WrongNode,
    /// An ack or nack that nobody waits for (late, repeated or invented).
    UnexpectedAck,
    /// An ack or nack from somebody who was not asked.
    AckFromStranger,
    /// An indirect ping for a node that is not a member, or not at that address.
    RelayTarget,
    /// Too many pings are being relayed.
    TooManyRelays,
    /// More pings in one packet, or more old accusations in it or in a second, than are answered.
    TooManyAnswers,
    /// A push/pull that was refused, since too many were being served. Joins in the native format are
    /// told to come back instead: see [`Stats::joins_deferred`].
    TooManyPushPulls,
    /// A push/pull whose versions do not go with this cluster's.
    Incompatible,
    /// More packets wait to be sent than are kept.
    SendQueueFull,
    /// A message that does not fit the packet limit of its destination.
    TooLargeToSend,
    /// A user broadcast pushed out of a full queue.
    BroadcastQueueFull,
    /// A user message that came while too many waited for the owner of the machine.
    MessageQueueFull,
    /// A step of comparing members that nobody waits for, from a stranger, or to a node that does not
    /// compare.
    UnexpectedSync,
    /// More steps of comparing members in a second than are answered.
    TooManySyncs,
}

impl DropReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 42] = [
        Self::Truncated,
        Self::Malformed,
        Self::Checksum,
        Self::Compression,
        Self::WrongFormat,
        Self::WrongVersion,
        Self::LabelMissing,
        Self::LabelUnexpected,
        Self::LabelMismatch,
        Self::LabelMalformed,
        Self::WrongKey,
        Self::NoKey,
        Self::PlaintextRefused,
        Self::EncryptionVersion,
        Self::UnknownKind,
        Self::BadName,
        Self::BadAddress,
        Self::MetaTooLarge,
        Self::TooLarge,
        Self::BadVersions,
        Self::IncarnationOutOfRange,
        Self::IncarnationJump,
        Self::NameTaken,
        Self::AddressConflict,
        Self::StaleNews,
        Self::NotAdmitted,
        Self::IdentityMismatch,
        Self::TooManyMembers,
        Self::WrongNode,
        Self::UnexpectedAck,
        Self::AckFromStranger,
        Self::RelayTarget,
        Self::TooManyRelays,
        Self::TooManyAnswers,
        Self::TooManyPushPulls,
        Self::Incompatible,
        Self::SendQueueFull,
        Self::TooLargeToSend,
        Self::BroadcastQueueFull,
        Self::MessageQueueFull,
        Self::UnexpectedSync,
        Self::TooManySyncs,
    ];

    /// A short name for metrics and logs, such as `bad_name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::Compression => "compression",
            Self::WrongFormat => "wrong_format",
            Self::WrongVersion => "wrong_version",
            Self::LabelMissing => "label_missing",
            Self::LabelUnexpected => "label_unexpected",
            Self::LabelMismatch => "label_mismatch",
            Self::LabelMalformed => "label_malformed",
            Self::WrongKey => "wrong_key",
            Self::NoKey => "no_key",
            Self::PlaintextRefused => "plaintext_refused",
            Self::EncryptionVersion => "encryption_version",
            Self::UnknownKind => "unknown_kind",
            Self::BadName => "bad_name",
            Self::BadAddress => "bad_address",
            Self::MetaTooLarge => "meta_too_large",
            Self::TooLarge => "too_large",
            Self::BadVersions => "bad_versions",
            Self::IncarnationOutOfRange => "incarnation_out_of_range",
            Self::IncarnationJump => "incarnation_jump",
            Self::NameTaken => "name_taken",
            Self::AddressConflict => "address_conflict",
            Self::StaleNews => "stale_news",
            Self::NotAdmitted => "not_admitted",
            Self::IdentityMismatch => "identity_mismatch",
            Self::TooManyMembers => "too_many_members",
            Self::WrongNode => "wrong_node",
            Self::UnexpectedAck => "unexpected_ack",
            Self::AckFromStranger => "ack_from_stranger",
            Self::RelayTarget => "relay_target",
            Self::TooManyRelays => "too_many_relays",
            Self::TooManyAnswers => "too_many_answers",
            Self::TooManyPushPulls => "too_many_push_pulls",
            Self::Incompatible => "incompatible",
            Self::SendQueueFull => "send_queue_full",
            Self::TooLargeToSend => "too_large_to_send",
            Self::BroadcastQueueFull => "broadcast_queue_full",
            Self::MessageQueueFull => "message_queue_full",
            Self::UnexpectedSync => "unexpected_sync",
            Self::TooManySyncs => "too_many_syncs",
        }
    }
}

/// What a packet is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum PacketKind {
    /// A ping, of a probe or by hand.
    Ping,
    /// A question to ping somebody else.
    IndirectPing,
    /// The answer to a ping.
    Ack,
    /// That somebody else did not answer.
    Nack,
    /// News about members, and user broadcasts.
    Gossip,
    /// A user message for one member.
    User,
    /// View digests and steps of comparing members.
    Sync,
    /// What could not be read, of those that came; nothing in it could.
    Unreadable,
}

impl PacketKind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 8] = [
        Self::Ping,
        Self::IndirectPing,
        Self::Ack,
        Self::Nack,
        Self::Gossip,
        Self::User,
        Self::Sync,
        Self::Unreadable,
    ];

    /// A short name for metrics and logs, such as `indirect_ping`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::IndirectPing => "indirect_ping",
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Gossip => "gossip",
            Self::User => "user",
            Self::Sync => "sync",
            Self::Unreadable => "unreadable",
        }
    }

    /// Of a packet that begins with that kind so far, if any of it was read, and goes on with this
    /// message. In the native format a step of a comparison stands behind the digest of the view.
    pub(crate) fn of(so_far: Option<Self>, message: MessageKind) -> Self {
        match (so_far, message) {
            (Some(kind), _) => kind,
            (None, MessageKind::Ping) => Self::Ping,
            (None, MessageKind::IndirectPing) => Self::IndirectPing,
            (None, MessageKind::Ack) => Self::Ack,
            (None, MessageKind::Nack) => Self::Nack,
            (None, MessageKind::User) => Self::User,
            (None, MessageKind::View | MessageKind::Sync) => Self::Sync,
            (None, _) => Self::Gossip,
        }
    }
}

/// Packets and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Packets {
    /// How many.
    pub packets: u64,
    /// Their bytes, without the outer layers.
    pub bytes: u64,
}

impl Packets {
    fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// One counter a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Drops([u64; DropReason::ALL.len()]);

// Arrays have a default up to 32 elements only.
impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

/// What the machine has counted since it was made. All numbers only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Packets handed to [`handle_packet`](crate::Membership::handle_packet).
    pub packets_received: u64,
    /// Their bytes, after the outer layers were taken off.
    pub bytes_received: u64,
    /// Packets given out by [`poll_transmit`](crate::Membership::poll_transmit).
    pub packets_sent: u64,
    /// Their bytes, before the outer layers.
    pub bytes_sent: u64,
    /// Packets that came in Go's format.
    pub packets_received_hashicorp: u64,
    /// Packets given out in Go's format.
    pub packets_sent_hashicorp: u64,
    packets_received_by: [Packets; PacketKind::ALL.len()],
    packets_sent_by: [Packets; PacketKind::ALL.len()],
    received: [u64; MessageKind::ALL.len()],
    sent: [u64; MessageKind::ALL.len()],
    drops: Drops,

    /// Probes begun.
    pub probes: u64,
    /// Probes answered by the direct ping.
    pub probes_acked_direct: u64,
    /// Probes answered through a relay.
    pub probes_acked_indirect: u64,
    /// Probes answered over a stream only: packets to or from that member are lost.
    pub probes_acked_stream: u64,
    /// Probes that nobody answered.
    pub probes_failed: u64,
    /// Probes whose direct ping was not answered within `probe_timeout`, however they ended.
    pub probes_unanswered_direct: u64,
    /// Probes in which relays were asked, and neither they nor the member itself answered by packet.
    pub probes_unanswered_indirect: u64,
    /// Probes that failed, with the ping over a stream that was tried.
    pub probes_unanswered_stream: u64,
    /// Probes begun with an interval stretched by the health score. Go: `degraded.probe`.
    pub probes_degraded: u64,
    /// Suspicions that began here, by own probe or by news. Go: `msg.suspect`.
    pub suspicions: u64,
    /// Independent confirmations of a running suspicion.
    pub suspicions_confirmed: u64,
    /// Suspicions that a newer alive message ended.
    pub suspicions_refuted: u64,
    /// Suspicions that ran out: the member was declared dead here.
    pub suspicions_expired: u64,
    /// Of those, how many with fewer confirmations than wanted. Go: `degraded.timeout`.
    pub suspicions_degraded: u64,
    /// Alive messages that changed something. Go: `msg.alive`.
    pub alives_accepted: u64,
    /// Deaths and farewells that changed something. Go: `msg.dead`.
    pub deads_accepted: u64,
    /// How often this node had to contradict news about itself.
    pub refutations: u64,
    /// Exchanges of state begun, joins included. Go: `tcp.connect`.
    pub push_pulls: u64,
    /// Exchanges that failed.
    pub push_pulls_failed: u64,
    /// Exchanges served to others.
    pub push_pulls_served: u64,
    /// Exchanges of the applications' states alone begun here, those included that an empty own state
    /// ends at once.
    pub user_state_exchanges: u64,
    /// Of those, how many failed, whatever had been exchanged by then.
    pub user_state_exchanges_failed: u64,
    /// Joins of others that were told to come back, since too many push/pulls were being served.
    pub joins_deferred: u64,
    /// How often own joins asked again, after a seed had told them to.
    pub joins_retried: u64,
    /// Failed members tried again.
    pub reconnects: u64,
    /// Failed members that answered and were merged again.
    pub reconnects_succeeded: u64,
    /// User broadcasts that came again, as most do on their way through the cluster.
    pub broadcasts_repeated: u64,
    /// View digests heard from members that equal the own one.
    pub views_equal: u64,
    /// View digests heard from members that differ from the own one.
    pub views_different: u64,
    /// View digests of whom this node knows no member at that address by that name, itself included.
    pub views_of_strangers: u64,
    /// Comparisons of members begun here.
    pub syncs: u64,
    /// Of those, how many got an answer that cannot be used, or none in time.
    pub syncs_failed: u64,
    /// Steps of comparisons that others began, answered here.
    pub sync_steps_served: u64,
    /// Records sent in comparisons.
    pub sync_records_sent: u64,
    /// Records that came in comparisons.
    pub sync_records_received: u64,
    /// How often a member was reported whose view has stayed another than the own one.
    pub disagreements: u64,
    /// Members forgotten some time after their death.
    pub reaped: u64,
    /// Packets that the network refused to send.
    pub send_errors: u64,
    /// How often the machine was told that it ran too late.
    pub stalls: u64,
}

impl Stats {
    /// Messages of this kind that were read.
    pub fn received(&self, kind: MessageKind) -> u64 {
        self.received[kind as usize]
    }

    /// Messages of this kind that were written into packets.
    pub fn sent(&self, kind: MessageKind) -> u64 {
        self.sent[kind as usize]
    }

    /// Packets of this kind that came.
    pub fn packets_received_of(&self, kind: PacketKind) -> Packets {
        self.packets_received_by[kind as usize]
    }

    /// Packets of this kind that were given out.
    pub fn packets_sent_of(&self, kind: PacketKind) -> Packets {
        self.packets_sent_by[kind as usize]
    }

    /// Drops for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize]
    }

    /// All drops.
    pub fn drops_total(&self) -> u64 {
        self.drops.0.iter().sum()
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.drops.0[reason as usize] += 1;
    }

    pub(crate) fn count_packet_received(&mut self, kind: PacketKind, bytes: usize) {
        self.packets_received += 1;
        self.bytes_received += bytes as u64;
        self.packets_received_by[kind as usize].count(bytes);
    }

    pub(crate) fn count_packet_sent(&mut self, kind: PacketKind, bytes: usize) {
        self.packets_sent += 1;
        self.bytes_sent += bytes as u64;
        self.packets_sent_by[kind as usize].count(bytes);
    }

    pub(crate) fn count_received(&mut self, kind: MessageKind) {
        self.received[kind as usize] += 1;
    }

    pub(crate) fn count_sent(&mut self, kind: MessageKind) {
        self.sent[kind as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_the_order_of_the_discriminants() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i, "{}", reason.as_str());
        }
        for (i, kind) in MessageKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, i, "{}", kind.as_str());
        }
        for (i, kind) in PacketKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, i, "{}", kind.as_str());
        }
    }
}
