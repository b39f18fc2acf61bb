//! Settings as people write them in a file: names of fields, durations such as `200ms`, and all that is wrong
//! with them at once (cargo feature `serde`).
//!
//! Written by hand instead of derived, for three things that people expect of a settings file: it may begin with
//! a preset, it refuses unknown names and says which was meant, and it tells every fault, not only the first.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Lifeguard};
use crate::wire::WireFormat;

/// A duration in words, such as `200ms`, `1m 30s` or `0s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words(pub Duration);

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as \"200ms\" or \"1m 30s\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Words, E> {
                humantime::parse_duration(text).map(Words).map_err(|error| {
                    let expected = "a duration is written as \"200ms\" or \"1m 30s\"";
                    E::custom(format!("{text:?}: {error}; {expected}"))
                })
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// What is wrong with a settings file, in one text.
#[derive(Debug, Default)]
pub struct Faults(Vec<String>);

impl Faults {
    /// A name that there is not, below that path, where these are known.
    pub fn unknown(&mut self, path: &str, name: &str, known: &[&str]) {
        let meant = nearest(name, known).map(|known| format!(", did you mean `{path}{known}`?"));
        self.0.push(format!("unknown setting `{path}{name}`{}", meant.unwrap_or_default()));
    }

    /// A value that cannot be used.
    pub fn rule(&mut self, path: &str, field: &str, rule: &str) {
        self.0.push(format!("`{path}{field}` {rule}"));
    }

    /// All of them, if there are any.
    ///
    /// # Errors
    /// If there is one.
    pub fn into_result<E: Error>(self) -> Result<(), E> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(E::custom(self.0.join("; "))),
        }
    }
}

/// Reads a map by its names, which are `known`: `read` takes one value, or says that there is no such name. A
/// value that cannot be read is a fault like others, and what stands behind it is read all the same.
///
/// # Errors
/// If it is no map of names at all.
pub fn read_map<'de, M: MapAccess<'de>>(
    map: &mut M,
    path: &str,
    known: &[&str],
    faults: &mut Faults,
    mut read: impl FnMut(&str, &mut M, &mut Faults) -> Result<bool, M::Error>,
) -> Result<(), M::Error> {
    loop {
        let name = match map.next_key::<String>() {
            Ok(Some(name)) => name,
            Ok(None) => return Ok(()),
            // A format that is read as it comes may be lost after a bad value; what is known by then is told.
            Err(_) if !faults.0.is_empty() => return Ok(()),
            Err(error) => return Err(error),
        };
        match read(&name, map, faults) {
            Ok(true) => {}
            Ok(false) => {
                map.next_value::<IgnoredAny>()?;
                faults.unknown(path, &name, known);
            }
            Err(error) => faults.0.push(format!("`{path}{name}`: {error}")),
        }
    }
}

/// What is written as a table of its own, in which everything may be left out.
pub trait Table: Sized {
    /// What stands before its names in a fault, such as `dns.`.
    const PATH: &'static str;
    /// What it is, where something else stands in its place.
    const WHAT: &'static str;
    /// The names.
    const NAMES: &'static [&'static str];

    /// With nothing said.
    fn unsaid() -> Self;

    /// Reads one value; false if there is no such name.
    ///
    /// # Errors
    /// If the value is of another type.
    fn read<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<bool, M::Error>;
}

/// Reads a table.
///
/// # Errors
/// All that is wrong with it.
pub fn read_table<'de, T: Table, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Read<T>(T);
    impl<'de, T: Table> Visitor<'de> for Read<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::WHAT)
        }
        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<T, M::Error> {
            let (Self(mut table), mut faults) = (self, Faults::default());
            read_map(&mut map, T::PATH, T::NAMES, &mut faults, |name, map, _| {
                table.read(name, map)
            })?;
            faults.into_result().map(|()| table)
        }
    }
    deserializer.deserialize_map(Read(T::unsaid()))
}

/// The name that was probably meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let likeness = |known: &&'a str| (strsim::jaro_winkler(&name.to_lowercase(), known), *known);
    let best = known.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}

/// Reads and writes the fields of a type by name: `field: kind`, where the kind is `words` for a duration
/// and `plain` for what serde knows.
#[doc(hidden)]
#[macro_export]
macro_rules! human_fields {
    ($type:ty { $($field:ident : $kind:ident),* $(,)? }) => {
        impl $type {
            /// The names of the fields.
            pub(crate) const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Reads one value; false if there is no such field.
            fn read_field<'de, M: serde::de::MapAccess<'de>>(
                &mut self,
                name: &str,
                map: &mut M,
            ) -> Result<bool, M::Error> {
                match name {
                    $(stringify!($field) => {
                        $crate::human_fields!(@read $kind, self.$field, map);
                    })*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            /// Takes the field of that name from another.
            #[allow(dead_code, reason = "where there is nothing to depart from")]
            pub(crate) fn take_field(&mut self, name: &str, from: &Self) {
                match name {
                    $(stringify!($field) => self.$field = from.$field.clone(),)*
                    _ => {}
                }
            }

            fn write_fields<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                $($crate::human_fields!(@write $kind, self.$field, map, stringify!($field));)*
                Ok(())
            }
        }
    };
    (@read words, $place:expr, $map:expr) => { $place = $map.next_value::<$crate::human::Words>()?.0 };
    (@read plain, $place:expr, $map:expr) => { $place = $map.next_value()? };
    (@write words, $place:expr, $map:expr, $name:expr) => {
        $map.serialize_entry($name, &$crate::human::Words($place))?
    };
    (@write plain, $place:expr, $map:expr, $name:expr) => { $map.serialize_entry($name, &$place)? };
}

human_fields!(Config {
    probe_interval: words,
    probe_timeout: words,
    probe_timeout_round_trips: plain,
    indirect_probes: plain,
    stream_ping: plain,
    suspicion_mult: plain,
    suspicion_max_timeout_mult: plain,
    awareness_max_multiplier: plain,
    lifeguard: plain,
    gossip_interval: words,
    gossip_nodes: plain,
    eager_gossip_spacing: words,
    gossip_to_the_dead_time: words,
    retransmit_mult: plain,
    user_broadcast_share_percent: plain,
    max_user_broadcasts: plain,
    push_pull_interval: words,
    delta_sync: plain,
    stream_timeout: words,
    max_push_pulls: plain,
    dead_node_reclaim_time: words,
    reconnect_interval: words,
    reconnect_timeout: words,
    max_tombstones: plain,
    max_packet_bytes: plain,
    max_meta_bytes: plain,
    max_members: plain,
    max_relays: plain,
    verify_ack_source: plain,
    wire_format: plain,
    checksum: plain,
    compression: plain,
    protocol_version: plain,
    application_versions: plain,
});

human_fields!(Lifeguard {
    health_aware_probe: plain,
    dynamic_suspicion: plain,
    buddy_system: plain,
});

/// The name of the entry that says from which preset the others depart.
pub const PRESET: &str = "preset";

/// The preset of that name.
pub fn preset(name: &str) -> Option<Config> {
    match name {
        "lan" => Some(Config::lan()),
        "wan" => Some(Config::wan()),
        "local" => Some(Config::local()),
        _ => None,
    }
}

/// Reads settings, and puts what is wrong with them among the faults, under that path.
pub struct ConfigSeed<'a> {
    /// What stands before the names in a fault, such as `protocol.`.
    pub path: &'a str,
    /// Where the faults go.
    pub faults: &'a mut Faults,
}

impl<'de> DeserializeSeed<'de> for ConfigSeed<'_> {
    type Value = Config;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Config, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ConfigSeed<'_> {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings of the protocol")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Config, M::Error> {
        let Self { path, faults } = self;
        // The preset may stand behind what departs from it.
        let (mut base, mut given, mut named) = (Config::lan(), Config::lan(), Vec::new());
        let known: Vec<&str> = Config::FIELDS.iter().copied().chain([PRESET]).collect();
        read_map(&mut map, path, &known, faults, |name, map, faults| {
            if name != PRESET {
                let is_field = given.read_field(name, map)?;
                named.extend(is_field.then(|| name.to_owned()));
                return Ok(is_field);
            }
            match preset(&map.next_value::<String>()?) {
                Some(preset) => base = preset,
                None => faults.rule(path, PRESET, "must be \"lan\", \"wan\" or \"local\""),
            }
            Ok(true)
        })?;
        for name in named {
            base.take_field(&name, &given);
        }
        for fault in base.validate().err().into_iter().flat_map(|error| error.faults) {
            faults.rule(path, fault.field, fault.rule);
        }
        Ok(base)
    }
}

impl<'de> Deserialize<'de> for Config {
    /// From a map of its fields, and of `preset`: `lan` (the default), `wan` or `local`, from which they depart.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut faults = Faults::default();
        let config = ConfigSeed { path: "", faults: &mut faults }.deserialize(deserializer);
        faults.into_result()?;
        config
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Self::FIELDS.len()))?;
        self.write_fields(&mut map)?;
        map.end()
    }
}

impl Table for Lifeguard {
    const PATH: &'static str = "lifeguard.";
    const WHAT: &'static str = "the extensions of Lifeguard, each true or false";
    const NAMES: &'static [&'static str] = Self::FIELDS;

    fn unsaid() -> Self {
        Self::ON
    }

    fn read<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<bool, M::Error> {
        self.read_field(name, map)
    }
}

impl<'de> Deserialize<'de> for Lifeguard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_table(deserializer)
    }
}

impl Serialize for Lifeguard {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Self::FIELDS.len()))?;
        self.write_fields(&mut map)?;
        map.end()
    }
}

const WIRE_FORMATS: [(&str, WireFormat); 3] = [
    ("native", WireFormat::Native),
    ("hashicorp", WireFormat::Hashicorp),
    ("mixed", WireFormat::Mixed),
];

impl<'de> Deserialize<'de> for WireFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let format = WIRE_FORMATS.iter().find(|(known, _)| *known == name);
        format.map(|(_, format)| *format).ok_or_else(|| {
            D::Error::custom(format!(
                "{name:?} is no wire format: \"native\", \"hashicorp\" and \"mixed\" are"
            ))
        })
    }
}

impl Serialize for WireFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = WIRE_FORMATS.iter().find(|(_, format)| format == self);
        serializer.serialize_str(name.map_or("native", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The names of a type's fields, as `Debug` writes them.
    fn debugged(value: &impl fmt::Debug) -> Vec<String> {
        let text = format!("{value:#?}");
        let fields = text.lines().filter_map(|line| line.strip_prefix("    "));
        let names = fields.filter(|line| !line.starts_with([' ', ')', '}']));
        names.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
    }

    #[test]
    fn no_field_is_forgotten() {
        assert_eq!(debugged(&Config::lan()), Config::FIELDS);
        assert_eq!(debugged(&Lifeguard::ON), Lifeguard::FIELDS);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut config = Config::wan();
        config.lifeguard = Lifeguard::OFF;
        config.wire_format = WireFormat::Mixed;
        config.application_versions = (1, 3, 2);
        config.reconnect_timeout = Duration::from_millis(90_061_001);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains("\"probe_timeout\":\"3s\""), "{text}");
        assert!(text.contains("\"wire_format\":\"mixed\""), "{text}");
        assert_eq!(read(&text).unwrap(), config);
    }

    #[test]
    fn what_is_not_said_is_as_in_the_preset_wherever_that_stands() {
        assert_eq!(read("{}").unwrap(), Config::lan());
        let config =
            read(r#"{"gossip_nodes": 7, "preset": "wan", "probe_interval": "4s"}"#).unwrap();
        let (gossip_nodes, probe_interval) = (7, Duration::from_secs(4));
        assert_eq!(config, Config { gossip_nodes, probe_interval, ..Config::wan() });
    }

    #[test]
    fn every_fault_is_told_at_once_with_what_was_meant() {
        let error = read(
            r#"{"probe_intervall": "1s", "Gossip_Nodes": 1, "xyz": 0, "retransmit_mult": 0,
                "probe_timeout": "5s", "preset": "moon"}"#,
        )
        .unwrap_err();
        for part in [
            "unknown setting `probe_intervall`, did you mean `probe_interval`?",
            "unknown setting `Gossip_Nodes`, did you mean `gossip_nodes`?",
            "unknown setting `xyz`;",
            "`preset` must be \"lan\", \"wan\" or \"local\"",
            "`retransmit_mult` must be between 1 and 1000",
            "`probe_timeout` must be less than probe_interval",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for bad in ["5", "\"5\"", "\"five seconds\"", "\"-1s\"", "\"\""] {
            let error = read(&format!("{{\"probe_interval\": {bad}}}")).unwrap_err();
            assert!(
                error.contains("200ms") && error.contains("`probe_interval`"),
                "{bad}: {error}"
            );
        }
        assert!(read(r#"{"probe_interval": "99999999999999999999s"}"#).is_err());
        let zero = read(r#"{"probe_interval": "0s"}"#).unwrap();
        assert_eq!(zero.probe_interval, Duration::ZERO);
        assert!(read(r#"{"wire_format": "go"}"#).unwrap_err().contains("hashicorp"));
        assert!(read(r#"{"lifeguard": {"buddy": true}}"#).unwrap_err().contains("buddy_system"));
    }

    #[test]
    fn a_value_of_another_type_hides_no_other_fault() {
        let text = r#"{"gossip_nodes": "3", "probe_intervall": "1s", "probe_timeout": 5, "lifeguard":
            {"buddy": true}, "retransmit_mult": 0}"#;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        for error in [
            Config::deserialize(value).map_err(|error| error.to_string()).unwrap_err(),
            read(text).unwrap_err(),
        ] {
            for part in [
                "`gossip_nodes`: invalid type",
                "did you mean `probe_interval`?",
                "`probe_timeout`: ",
                "did you mean `lifeguard.buddy_system`?",
                "`retransmit_mult` must be between",
            ] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        // Where a text cannot be followed any more, what was found is told.
        let error = read(r#"{"probe_intervall": "1s", "gossip_nodes": {"a": [1]}, "x": 1}"#);
        assert!(error.unwrap_err().contains("did you mean `probe_interval`?"));
        assert!(read("{\"probe_interval\": \"1s\", ").is_err());
    }
}
