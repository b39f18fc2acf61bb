//! Settings of a node as people write them in a file (cargo feature `serde`): those of the protocol below
//! `protocol`, keys below `encryption`, labels of metrics below `metrics`.

use std::fmt;

use bytes::Bytes;
use memberlist_protocol::human::{ConfigSeed, Faults, read_map};
use memberlist_protocol::human_fields;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::config::{Config, InboundLabel};

// Those that serde knows.
human_fields!(Config {
    seeds: plain,
    seed_retry_interval: words,
    default_port: plain,
    join_concurrency: plain,
    max_inbound_streams: plain,
    max_buffered_stream_bytes: plain,
    message_capacity: plain,
    event_capacity: plain,
    max_waiting_state_bytes: plain,
    label: plain,
    label_outgoing: plain,
    inbound_label: plain,
});

/// Those that are read in ways of their own.
const OTHERS: &[&str] = &[
    "name",
    "meta",
    "protocol",
    #[cfg(feature = "encryption")]
    "encryption",
    #[cfg(feature = "metrics")]
    "metrics",
    #[cfg(feature = "dns")]
    "dns",
];

/// Meta: a text, or numbers of bytes where it is none.
struct Meta(Bytes);

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into(),
            Written::Bytes(bytes) => bytes.into(),
        }))
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

struct ReadConfig;

impl<'de> Visitor<'de> for ReadConfig {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings of a node")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Config, M::Error> {
        let (mut config, mut faults) = (Config::lan(""), Faults::default());
        let known: Vec<&str> = Config::FIELDS.iter().chain(OTHERS).copied().collect();
        read_map(&mut map, "", &known, &mut faults, |name, map, faults| {
            match name {
                "name" => config.name = map.next_value()?,
                "meta" => config.meta = map.next_value::<Meta>()?.0,
                "protocol" => {
                    let seed = ConfigSeed { path: "protocol.", faults };
                    config.protocol = map.next_value_seed(seed)?;
                }
                #[cfg(feature = "encryption")]
                "encryption" => config.encryption = Some(map.next_value()?),
                #[cfg(feature = "metrics")]
                "metrics" => config.metrics = map.next_value()?,
                #[cfg(feature = "dns")]
                "dns" => config.dns = map.next_value()?,
                _ => return config.read_field(name, map),
            }
            Ok(true)
        })?;
        for fault in config.faults() {
            faults.rule("", fault.field, fault.rule);
        }
        faults.into_result().map(|()| config)
    }
}

impl<'de> Deserialize<'de> for Config {
    /// From a map of its fields; `name` must be among them. Where nothing is said the defaults of
    /// [`Config::lan`] apply, or those of the `preset` among the settings of `protocol`. A keyring file that is
    /// named is read.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReadConfig)
    }
}

impl Serialize for Config {
    /// Keys are never written; the place of the keyring file is.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("meta", &Meta(self.meta.clone()))?;
        self.write_fields(&mut map)?;
        map.serialize_entry("protocol", &self.protocol)?;
        #[cfg(feature = "encryption")]
        if let Some(encryption) = &self.encryption {
            map.serialize_entry("encryption", encryption)?;
        }
        #[cfg(feature = "metrics")]
        map.serialize_entry("metrics", &self.metrics)?;
        #[cfg(feature = "dns")]
        map.serialize_entry("dns", &self.dns)?;
        map.end()
    }
}

const INBOUND_LABELS: [(&str, InboundLabel); 3] = [
    ("check", InboundLabel::Check),
    ("optional", InboundLabel::Optional),
    ("stripped", InboundLabel::Stripped),
];

impl<'de> Deserialize<'de> for InboundLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = INBOUND_LABELS.iter().find(|(known, _)| *known == name);
        found.map(|(_, inbound)| *inbound).ok_or_else(|| {
            D::Error::custom(format!(
                "{name:?} is none of \"check\", \"optional\" and \"stripped\""
            ))
        })
    }
}

impl Serialize for InboundLabel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = INBOUND_LABELS.iter().find(|(_, inbound)| inbound == self);
        serializer.serialize_str(name.map_or("check", |(name, _)| name))
    }
}

#[cfg(feature = "encryption")]
mod encryption;

#[cfg(feature = "dns")]
mod dns {
    use memberlist_protocol::human::{Table, Words, read_table};

    use super::*;
    use crate::dns::Dns;

    impl Table for Dns {
        const PATH: &'static str = "dns.";
        const WHAT: &'static str = "servers and timeout of DNS";
        const NAMES: &'static [&'static str] = &["servers", "timeout"];

        fn unsaid() -> Self {
            Self::default()
        }

        fn read<'de, M: MapAccess<'de>>(
            &mut self,
            name: &str,
            map: &mut M,
        ) -> Result<bool, M::Error> {
            match name {
                "servers" => self.servers = map.next_value()?,
                "timeout" => self.timeout = map.next_value::<Words>()?.0,
                _ => return Ok(false),
            }
            Ok(true)
        }
    }

    impl<'de> Deserialize<'de> for Dns {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            read_table(deserializer)
        }
    }

    impl Serialize for Dns {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("servers", &self.servers)?;
            map.serialize_entry("timeout", &Words(self.timeout))?;
            map.end()
        }
    }
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::collections::BTreeMap;

    use memberlist_protocol::human::{Table, Words, read_table};

    use super::*;
    use crate::metrics::Metrics;

    impl Table for Metrics {
        const PATH: &'static str = "metrics.";
        const WHAT: &'static str = "labels and interval of metrics";
        const NAMES: &'static [&'static str] = &["labels", "interval"];

        fn unsaid() -> Self {
            Self::default()
        }

        fn read<'de, M: MapAccess<'de>>(
            &mut self,
            name: &str,
            map: &mut M,
        ) -> Result<bool, M::Error> {
            match name {
                "labels" => {
                    let labels = map.next_value::<BTreeMap<String, String>>()?;
                    self.labels = labels.into_iter().collect();
                }
                "interval" => self.interval = map.next_value::<Words>()?.0,
                _ => return Ok(false),
            }
            Ok(true)
        }
    }

    impl<'de> Deserialize<'de> for Metrics {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            read_table(deserializer)
        }
    }

    impl Serialize for Metrics {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("labels", &labels)?;
            map.serialize_entry("interval", &Words(self.interval))?;
            map.end()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn no_field_is_forgotten() {
        let text = format!("{:#?}", Config::lan("a"));
        let fields = text.lines().filter_map(|line| line.strip_prefix("    "));
        let mut fields: Vec<_> = fields
            .filter(|line| !line.starts_with([' ', ')', '}', ']']))
            .filter_map(|line| Some(line.split_once(':')?.0))
            .collect();
        let mut known: Vec<_> = Config::FIELDS.iter().chain(OTHERS).copied().collect();
        fields.sort_unstable();
        known.sort_unstable();
        assert_eq!(fields, known);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut config = Config::wan("cache-7");
        config.meta = Bytes::from_static(b"\xff\0");
        config.label = "blue".to_owned();
        config.inbound_label = InboundLabel::Optional;
        config.max_inbound_streams = 17;
        let text = serde_json::to_string(&config).unwrap();
        let again = read(&text).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        config.meta = "zone=b".into();
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""meta":"zone=b""#), "{text}");
        assert_eq!(read(&text).unwrap().meta, config.meta);
    }

    #[test]
    fn little_need_be_said() {
        let config = read(r#"{"name": "a", "protocol": {"preset": "wan"}}"#).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::wan("a")));
    }

    #[test]
    fn every_fault_of_every_part_is_told_at_once() {
        let error = read(
            r#"{"lable": "blue", "join_concurrency": 0, "event_capacity": 0, "seeds": 7,
                "protocol": {"gossip_node": 4, "retransmit_mult": 0}}"#,
        )
        .unwrap_err();
        for part in [
            "unknown setting `lable`, did you mean `label`?",
            "`seeds`: invalid type",
            "unknown setting `protocol.gossip_node`, did you mean `protocol.gossip_nodes`?",
            "`protocol.retransmit_mult` must be between 1 and 1000",
            "`join_concurrency` must be at least 1",
            "`event_capacity` must be at least 1",
            "`name` must have 1 to 255 bytes",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn metrics_have_labels_and_an_interval() {
        let config = read(
            r#"{"name": "a", "metrics": {"labels": {"node": "a", "cluster": "b"}, "interval": "5s"}}"#,
        )
        .unwrap();
        assert_eq!(config.metrics.interval, Duration::from_secs(5));
        assert_eq!(config.metrics.labels[0], ("cluster".to_owned(), "b".to_owned()));
        let error = read(r#"{"name": "a", "metrics": {"label": {}}}"#).unwrap_err();
        assert!(error.contains("`metrics.labels`"), "{error}");
    }

    #[cfg(feature = "encryption")]
    #[test]
    fn keys_are_read_and_never_written() {
        use memberlist_security::{KeySize, SecretKey};

        let key = SecretKey::generate(KeySize::Bits128).unwrap().to_base64();
        let text = format!(
            r#"{{"name": "a", "encryption": {{"keys": ["{}"], "verify_incoming": false}}}}"#,
            key.as_str()
        );
        let config = read(&text).unwrap();
        let encryption = config.encryption.as_ref().unwrap();
        assert!(encryption.encrypt_outgoing && !encryption.verify_incoming);
        let written = serde_json::to_string(&config).unwrap();
        assert!(!written.contains(key.as_str()) && !format!("{config:?}").contains(key.as_str()));

        for (bad, says) in [
            (r#"{"name": "a", "encryption": {}}"#, "`keys` or a `keyring_file`"),
            (r#"{"name": "a", "encryption": {"keys": ["secret!"]}}"#, "must be keys in base64"),
            (r#"{"name": "a", "encryption": {"keyring": "x"}}"#, "`encryption.keyring_file`"),
            (r#"{"name": "a", "encryption": {"keyring_file": "/no/such/file"}}"#, "/no/such/file"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(says) && !error.contains("secret!"), "{error}");
        }
    }
}
