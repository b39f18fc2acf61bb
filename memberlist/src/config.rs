//! Settings of a node: the protocol's, and those of the driver around it.

use bytes::Bytes;

/// The settings of one [`Memberlist`](crate::Memberlist).
///
/// Start from a preset and change fields.
///
/// ```
/// let mut config = memberlist::Config::lan("cache-7");
/// config.meta = "zone=b".into();
/// config.protocol.indirect_probes = 5;
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// This node's name: unique in the cluster, 1 to 255 bytes.
    pub name: String,
    /// Free bytes that every member gets to know, at most
    /// [`max_meta_bytes`](memberlist_protocol::Config::max_meta_bytes). Default none.
    pub meta: Bytes,
    /// Every knob of the protocol.
    pub protocol: memberlist_protocol::Config,
    /// The port of seeds that are given without one. Default 7946, as in Go.
    pub default_port: u16,
    /// Join exchanges that run at the same time; more seeds wait for their turn. Default 16. Too
    /// many of them is load for the seeds.
    pub join_concurrency: usize,
    /// Inbound streams that are served at once; one more is closed and counted. Default 256.
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
            default_port: 7946,
            join_concurrency: 16,
            max_inbound_streams: 256,
            max_buffered_stream_bytes: 64 << 20,
            message_capacity: 1024,
            event_capacity: 1024,
            max_waiting_state_bytes: 40 << 20,
        }
    }

    /// The same with this meta.
    pub fn with_meta(mut self, meta: impl Into<Bytes>) -> Self {
        self.meta = meta.into();
        self
    }
}
