//! Whether settings can be used: by themselves, with each other, and over a transport.

use std::sync::Arc;

use memberlist_protocol::wire::stream::StreamLimits;
use memberlist_protocol::{ConfigError, ConfigFault, NodeId};
use memberlist_security::Label;
use memberlist_transport::Transport;
use tracing::warn;

use crate::address::JoinAddress;
use crate::config::{Config, InboundLabel};
use crate::error::StartError;
use crate::layers::{Layers, Reserved, Sealing};

/// What settings turn out to be.
pub(crate) struct Checked {
    pub(crate) id: NodeId,
    /// What the transport takes to every peer at any time.
    pub(crate) assured_packet_bytes: usize,
    pub(crate) layers: Arc<Layers>,
}

pub(crate) fn check<T: Transport>(config: &Config, transport: &T) -> Result<Checked, StartError> {
    let id = NodeId::new(&config.name)?;
    let layers = Arc::new(layers(config)?);
    config.validate().map_err(memberlist_protocol::StartError::from)?;
    check_name(&id, transport)?;
    let assured_packet_bytes = assured(transport)?;
    // What must reach everybody must fit the smallest packets.
    let mut smallest = config.protocol.clone();
    smallest.max_packet_bytes = smallest.max_packet_bytes.min(assured_packet_bytes);
    smallest.validate().map_err(memberlist_protocol::StartError::from)?;
    check_announcement(&smallest, &id, &layers)?;
    if let Some(warning) = contradiction(config)? {
        warn!(node = %id, "{warning}");
    }
    Ok(Checked { id, assured_packet_bytes, layers })
}

/// What is wrong with the limits around the protocol.
fn limit_faults(config: &Config) -> Vec<ConfigFault> {
    let limits = stream_limits(config);
    let checks = [
        (
            "seed_retry_interval",
            (1..=86_400).contains(&config.seed_retry_interval.as_secs()),
            "must be between 1 s and a day",
        ),
        ("join_concurrency", config.join_concurrency >= 1, "must be at least 1"),
        ("max_inbound_streams", config.max_inbound_streams >= 1, "must be at least 1"),
        ("message_capacity", config.message_capacity >= 1, "must be at least 1"),
        ("event_capacity", config.event_capacity >= 1, "must be at least 1"),
        (
            "max_buffered_stream_bytes",
            config.max_buffered_stream_bytes >= limits.max_message_bytes,
            "must be at least the largest message, 40 MiB",
        ),
        (
            "max_waiting_state_bytes",
            config.max_waiting_state_bytes > limits.max_user_bytes,
            "must be more than the largest user state, 20 MiB",
        ),
    ];
    let broken = checks.into_iter().filter(|(_, holds, _)| !holds);
    broken.map(|(field, _, rule)| ConfigFault { field, rule }).collect()
}

impl Config {
    /// Checks the settings as a whole, as far as they can be judged without a transport: those of the
    /// protocol too.
    ///
    /// # Errors
    /// Every fault found, not only the first.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = self.faults();
        faults.extend(self.protocol.validate().err().into_iter().flat_map(|error| error.faults));
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }

    /// Those of this crate's settings.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = limit_faults(self);
        let mut require = |holds: bool, field, rule| {
            if !holds {
                faults.push(ConfigFault { field, rule });
            }
        };
        let readable = |seed: &String| JoinAddress::parse(seed, self.default_port).is_ok();
        require(self.seeds.iter().all(readable), "seeds", "must be written as [name/]host[:port]");
        require(NodeId::new(&self.name).is_ok(), "name", "must have 1 to 255 bytes");
        require(Label::new(&self.label).is_ok(), "label", "must have at most 255 bytes");
        faults
    }
}

pub(crate) fn stream_limits(config: &Config) -> StreamLimits {
    let mut limits = StreamLimits::default();
    limits.max_meta_bytes = config.protocol.max_meta_bytes;
    limits
}

/// The smallest packets that the protocol can work with, in bytes.
const LEAST_PACKET_BYTES: usize = 1024;

fn assured<T: Transport>(transport: &T) -> Result<usize, StartError> {
    let limit = transport.assured_packet_bytes();
    match limit < LEAST_PACKET_BYTES {
        true => Err(StartError::TransportPackets { limit, least: LEAST_PACKET_BYTES }),
        false => Ok(limit),
    }
}

/// Under another name than its certificate's, nobody would believe this node what it says of itself.
fn check_name<T: Transport>(id: &NodeId, transport: &T) -> Result<(), StartError> {
    match transport.own_name() {
        Some(certified) if *certified != *id.as_str() => {
            Err(StartError::CertifiedName { name: id.clone(), certified: certified.to_string() })
        }
        _ => Ok(()),
    }
}

/// Whatever is switched on while the node runs, it must be able to announce itself.
fn check_announcement(
    protocol: &memberlist_protocol::Config,
    id: &NodeId,
    layers: &Layers,
) -> Result<(), StartError> {
    let (max_packet_bytes, max_meta_bytes) = (protocol.max_packet_bytes, protocol.max_meta_bytes);
    let (name, rest) = (id.as_str().len(), memberlist_protocol::ALIVE_FIXED_BYTES);
    let Reserved { label, sealing } = layers.reserved();
    match max_meta_bytes.saturating_add(name + rest + label + sealing) > max_packet_bytes {
        true => Err(StartError::Announcement {
            max_packet_bytes,
            max_meta_bytes,
            name,
            rest,
            label,
            sealing,
        }),
        false => Ok(()),
    }
}

/// Settings that are no step of any roll-out: an error if they cannot be changed while the node runs,
/// else what to warn of.
fn contradiction(config: &Config) -> Result<Option<&'static str>, StartError> {
    if !config.label.is_empty()
        && !config.label_outgoing
        && config.inbound_label == InboundLabel::Check
    {
        return Err(StartError::Contradiction(
            "`label_outgoing` is off while `inbound_label` is `Check`: this node would refuse what \
             nodes like it send; a roll-out of a label begins with `Optional`",
        ));
    }
    #[cfg(feature = "encryption")]
    if config.encryption.as_ref().is_some_and(|it| it.verify_incoming && !it.encrypt_outgoing) {
        return Ok(Some(
            "`encrypt_outgoing` is off while `verify_incoming` is on: nodes with these settings refuse \
             each other's packets and streams; switch one of them, and in a roll-out `verify_incoming` \
             on last, in the way back off first",
        ));
    }
    #[cfg(feature = "encryption")]
    if sealing_version(config) == memberlist_security::Version::V0
        && config.encryption.as_ref().is_some_and(|it| !it.accept_v0)
    {
        return Ok(Some(
            "a node of protocol version 1 seals with encryption version 0, which it does not open without \
             `accept_v0`: nodes with these settings cannot read each other",
        ));
    }
    Ok(None)
}

/// What goes around packets and streams.
pub(crate) fn layers(config: &Config) -> Result<Layers, StartError> {
    let label = Label::new(&config.label)?;
    let format = config.protocol.wire_format;
    #[cfg(feature = "encryption")]
    let sealing = Sealing::new(config.encryption.as_ref(), sealing_version(config));
    #[cfg(not(feature = "encryption"))]
    let sealing = Sealing;
    Ok(Layers::new(format, label, config.label_outgoing, config.inbound_label, sealing))
}

/// Go: `encryptionVersion`.
#[cfg(feature = "encryption")]
fn sealing_version(config: &Config) -> memberlist_security::Version {
    use memberlist_protocol::WireFormat;
    use memberlist_security::Version;
    match config.protocol.wire_format {
        WireFormat::Hashicorp | WireFormat::Mixed if config.protocol.protocol_version == 1 => {
            Version::V0
        }
        _ => Version::V1,
    }
}

#[cfg(all(test, feature = "encryption"))]
mod tests {
    use memberlist_security::{KeySize, Keyring, SecretKey};

    use super::*;
    use crate::config::Encryption;

    /// The switches can be turned while the node runs, so it is started.
    #[test]
    fn who_refuses_what_nodes_like_it_send_is_warned() {
        for (encrypt_outgoing, verify_incoming, warned) in
            [(true, true, false), (true, false, false), (false, false, false), (false, true, true)]
        {
            let key = SecretKey::generate(KeySize::Bits256).unwrap();
            let mut encryption = Encryption::new(Keyring::new(key));
            encryption.encrypt_outgoing = encrypt_outgoing;
            encryption.verify_incoming = verify_incoming;
            let mut config = Config::lan("a");
            config.encryption = Some(encryption);
            let warning = contradiction(&config).unwrap();
            assert_eq!(warning.is_some(), warned, "{encrypt_outgoing} {verify_incoming}");
        }
    }
}
