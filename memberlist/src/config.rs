//! Settings of a node: the protocol's, and those of the driver around it.

#[cfg(feature = "encryption")]
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "encryption")]
use memberlist_security::{Keyring, KeyringFile, KeyringFileError, SecretKey};
#[cfg(feature = "encryption")]
use tracing::{debug, info, warn};

/// The settings of one [`Memberlist`](crate::Memberlist).
///
/// Start from a preset and change fields.
///
/// ```
/// let mut config = memberlist::Config::lan("cache-7");
/// config.meta = "zone=b".into();
/// config.protocol.indirect_probes = 5;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// This node's name: unique in the cluster, 1 to 255 bytes.
    pub name: String,
    /// Free bytes that every member gets to know, at most
    /// [`max_meta_bytes`](memberlist_protocol::Config::max_meta_bytes). Default none. That much meta must
    /// fit a packet beside name, label and, where there are keys, what sealing adds.
    pub meta: Bytes,
    /// Every knob of the protocol.
    pub protocol: memberlist_protocol::Config,
    /// Members to join as long as this node is alone, from its start on: names among them are looked up again each
    /// time. As for [`join`](crate::Memberlist::join). Default none: nobody is joined but by `join`.
    pub seeds: Vec<String>,
    /// The longest pause between two attempts at the seeds; the first is 1 s, and it doubles. Default 30 s. At
    /// least 1 s.
    pub seed_retry_interval: Duration,
    /// How names of seeds are looked up.
    #[cfg(feature = "dns")]
    pub dns: crate::dns::Dns,
    /// The port of seeds that are given without one. Default 7946, as in Go.
    pub default_port: u16,
    /// Join exchanges that run at the same time; more seeds wait for their turn. Default 16. Too
    /// many of them is load for the seeds.
    pub join_concurrency: usize,
    /// Inbound streams that are served at once. Default 256. Twice as many more are listened to for a moment
    /// (72 KiB; two seconds, or a third of `stream_timeout` if that is less) and told to come back; one more
    /// is closed and counted.
    pub max_inbound_streams: usize,
    /// Bytes of stream messages that are held at once, over all streams: while being read, while
    /// waiting for the application, and while the members of a state wait to be merged, each of
    /// which counts 200 bytes beside those that came. The first 64 KiB of a stream are not counted.
    /// Default 64 MiB. A stream that would go over it waits, and is dropped at its deadline. Must be
    /// at least the largest message; a state that alone is larger may hold all of it.
    pub max_buffered_stream_bytes: usize,
    /// User messages that wait for the application. Default 1,024. When full, messages by packet
    /// are dropped and counted, those by stream hold their stream back.
    pub message_capacity: usize,
    /// Events that wait for one subscriber. Default 1,024. When full, the subscriber gets a fresh
    /// snapshot instead. As many results of pings wait for the delegate beside them; further ones
    /// are dropped and counted.
    pub event_capacity: usize,
    /// Bytes of user states that wait for
    /// [`merge_remote_state`](crate::Delegate::merge_remote_state), each with 128 bytes more than its
    /// own. Default 40 MiB; must be more than the largest user state, 20 MiB. When full, the newest
    /// is dropped and counted: a later exchange of states brings another.
    pub max_waiting_state_bytes: usize,
    /// The name of the cluster on a shared network, at most 255 bytes; all nodes need the same.
    /// Default none. Packets and streams of other clusters are refused and counted. Go: `Label`.
    pub label: String,
    /// Whether what is sent carries the label. Default on; off only while a running cluster is given
    /// its label, see [`InboundLabel`]: with [`InboundLabel::Check`] that is an error.
    pub label_outgoing: bool,
    /// What is done with the label of what comes. Default [`InboundLabel::Check`].
    pub inbound_label: InboundLabel,
    /// The keys, if what travels is encrypted. Default none.
    #[cfg(feature = "encryption")]
    pub encryption: Option<Encryption>,
    /// Where metrics go, and how they are marked. Default to the global recorder, unmarked.
    #[cfg(feature = "metrics")]
    pub metrics: crate::metrics::Metrics,
}

/// What a node does with the label of what comes.
///
/// A running cluster is given its label in three steps, each on every node before the next: the label
/// with [`Optional`](Self::Optional) and [`label_outgoing`](Config::label_outgoing) off; then
/// `label_outgoing` on; then [`Check`](Self::Check).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum InboundLabel {
    /// It must be this node's.
    #[default]
    Check,
    /// It must be this node's or none.
    Optional,
    /// The transport has taken it off: what comes is of this cluster, and a label that is there all
    /// the same is refused as doubled. Go: `SkipInboundLabelCheck`.
    Stripped,
}

/// How a node encrypts.
///
/// A running cluster is brought from plain to encrypted in three steps, each on every node before the
/// next: keys, with both switches off; then [`encrypt_outgoing`](Self::encrypt_outgoing) on; then
/// [`verify_incoming`](Self::verify_incoming) on. The switches can be changed at run time: see
/// `Memberlist::keys`.
///
/// ```
/// use memberlist::{Config, Encryption};
/// use memberlist::security::{KeySize, Keyring, SecretKey};
///
/// let key = SecretKey::generate(KeySize::Bits256)?;
/// let mut config = Config::wan("db-3");
/// config.encryption = Some(Encryption::new(Keyring::new(key)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "encryption")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Encryption {
    /// The keys. A clone of it stays connected: it may be changed here while the node runs.
    pub keyring: Keyring,
    /// Whether what is sent is encrypted. Default on. Off while `verify_incoming` is on, nodes refuse each
    /// other, which is warned of at the start. A stream goes on as it was begun, whatever is switched.
    /// Go: `GossipVerifyOutgoing`.
    pub encrypt_outgoing: bool,
    /// Whether what comes in the clear is refused. Default on. When it is switched on, streams in the
    /// clear that are under way end. Go: `GossipVerifyIncoming`.
    pub verify_incoming: bool,
    /// Whether encryption version 0 is opened, as Go nodes of protocol version 1 write it. Default
    /// off: somebody on the way could then cut captured messages short.
    pub accept_v0: bool,
    /// Where the keyring is written whenever a request of the cluster changes it. Default nowhere. A
    /// relative path means the folder in which the process is when the node is started.
    pub keyring_file: Option<PathBuf>,
}

#[cfg(feature = "encryption")]
impl Encryption {
    /// With these keys, both switches on.
    pub fn new(keyring: Keyring) -> Self {
        Self {
            keyring,
            encrypt_outgoing: true,
            verify_incoming: true,
            accept_v0: false,
            keyring_file: None,
        }
    }

    /// With the keys of a file, which is kept up to date: a JSON array of keys in base64, the primary
    /// first, as Serf writes it. If there is no such file yet, it is made of `keys`. A relative path
    /// means the folder in which the process is now, wherever it goes later. What a process that was
    /// killed while it wrote the file left beside it is removed.
    ///
    /// # Errors
    /// If the file cannot be read or written, or there are no keys.
    pub fn from_file(
        path: impl Into<PathBuf>,
        keys: Vec<SecretKey>,
    ) -> Result<Self, KeyringFileError> {
        let path = path.into();
        let path = std::path::absolute(&path)
            .map_err(|error| KeyringFileError::Unreadable { path, error })?;
        match KeyringFile::remove_leftovers(&path) {
            Ok(0) => {}
            Ok(removed) => {
                info!(path = %path.display(), removed, "removed what was left beside the \
                keyring file by a process that was killed while it wrote it")
            }
            // A folder that cannot be read, or is not there: the file itself says what matters.
            Err(error) => {
                debug!(path = %path.display(), %error, "nothing was looked for beside the \
                keyring file")
            }
        }
        let keys = match KeyringFile::load(&path) {
            Ok(file) => {
                if file.open_to_others {
                    warn!(path = %path.display(), "the keyring file can be read by others; \
                        make it mode 0600");
                }
                if !keys.is_empty() && keys[0] != file.keys[0] {
                    warn!(path = %path.display(), "the keyring file counts, not the keys given \
                        besides: they differ");
                }
                file.keys
            }
            Err(KeyringFileError::Missing { .. }) if !keys.is_empty() => {
                KeyringFile::save(&path, &keys)?;
                keys
            }
            Err(error) => return Err(error),
        };
        let mut keys = keys.into_iter();
        let primary = keys.next().ok_or_else(|| KeyringFileError::Empty { path: path.clone() })?;
        let keyring = Keyring::with_keys(primary, keys)
            .map_err(|_| KeyringFileError::TooMany { path: path.clone() })?;
        Ok(Self { keyring_file: Some(path), ..Self::new(keyring) })
    }
}

impl Config {
    /// For one data centre; see [`memberlist_protocol::Config::lan`].
    pub fn lan(name: impl Into<String>) -> Self {
        Self::with_protocol(name, memberlist_protocol::Config::lan())
    }

    /// For nodes in several regions; see [`memberlist_protocol::Config::wan`].
    pub fn wan(name: impl Into<String>) -> Self {
        Self::with_protocol(name, memberlist_protocol::Config::wan())
    }

    /// For nodes on one machine; see [`memberlist_protocol::Config::local`].
    pub fn local(name: impl Into<String>) -> Self {
        Self::with_protocol(name, memberlist_protocol::Config::local())
    }

    /// With settings of the protocol made by hand.
    pub fn with_protocol(name: impl Into<String>, protocol: memberlist_protocol::Config) -> Self {
        Self {
            name: name.into(),
            meta: Bytes::new(),
            protocol,
            seeds: Vec::new(),
            seed_retry_interval: Duration::from_secs(30),
            #[cfg(feature = "dns")]
            dns: Default::default(),
            default_port: 7946,
            join_concurrency: 16,
            max_inbound_streams: 256,
            max_buffered_stream_bytes: 64 << 20,
            message_capacity: 1024,
            event_capacity: 1024,
            max_waiting_state_bytes: 40 << 20,
            label: String::new(),
            label_outgoing: true,
            inbound_label: InboundLabel::default(),
            #[cfg(feature = "encryption")]
            encryption: None,
            #[cfg(feature = "metrics")]
            metrics: Default::default(),
        }
    }

    /// The same with this meta.
    pub fn with_meta(mut self, meta: impl Into<Bytes>) -> Self {
        self.meta = meta.into();
        self
    }
}
