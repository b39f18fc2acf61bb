//! The keys of a node as people write them, below `encryption`.

use std::path::PathBuf;

use memberlist_security::{Keyring, SecretKey};
use serde::de::SeqAccess;

use super::*;
use crate::config::Encryption;

const FIELDS: &[&str] =
    &["keys", "keyring_file", "encrypt_outgoing", "verify_incoming", "accept_v0"];

#[derive(Default)]
struct Written {
    keys: Vec<SecretKey>,
    keyring_file: Option<PathBuf>,
    encrypt_outgoing: Option<bool>,
    verify_incoming: Option<bool>,
    accept_v0: Option<bool>,
}

impl Written {
    fn into_encryption(self) -> Result<Encryption, String> {
        let mut encryption = match self.keyring_file {
            Some(path) => {
                Encryption::from_file(path, self.keys).map_err(|error| error.to_string())?
            }
            None => {
                let mut keys = self.keys.into_iter();
                let primary = keys.next().ok_or("`encryption` needs `keys` or a `keyring_file`")?;
                let keyring = Keyring::with_keys(primary, keys);
                Encryption::new(keyring.map_err(|error| error.to_string())?)
            }
        };
        encryption.encrypt_outgoing = self.encrypt_outgoing.unwrap_or(true);
        encryption.verify_incoming = self.verify_incoming.unwrap_or(true);
        encryption.accept_v0 = self.accept_v0.unwrap_or(false);
        Ok(encryption)
    }
}

struct ReadEncryption;

impl<'de> Visitor<'de> for ReadEncryption {
    type Value = Encryption;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys, or the keyring file, and how they are used")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Encryption, M::Error> {
        let (mut written, mut faults) = (Written::default(), Faults::default());
        read_map(&mut map, "encryption.", FIELDS, &mut faults, |name, map, faults| {
            let taken = match name {
                _ if is_key(name) => {
                    map.next_value::<IgnoredAny>()?;
                    faults.rule(
                        "encryption.",
                        "(a key)",
                        "stands where the name of a setting belongs",
                    );
                    return Ok(true);
                }
                "keys" => entry(map)?.keys().map(|keys| written.keys = keys),
                "keyring_file" => entry(map)?.path().map(|path| written.keyring_file = path),
                "encrypt_outgoing" => entry(map)?.switch().map(|on| written.encrypt_outgoing = on),
                "verify_incoming" => entry(map)?.switch().map(|on| written.verify_incoming = on),
                "accept_v0" => entry(map)?.switch().map(|on| written.accept_v0 = on),
                _ => return Ok(false),
            };
            if let Err(rule) = taken {
                faults.rule("encryption.", name, rule);
            }
            Ok(true)
        })?;
        faults.into_result()?;
        written.into_encryption().map_err(M::Error::custom)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Encryption, E> {
        Err(E::custom("`encryption` must be a table with `keys` or a `keyring_file`, not a text"))
    }
}

/// What stands behind a name. A text may be a key wherever it stands, so what is wrong with it is told
/// without it; the errors of serde would repeat it.
enum Entry {
    Nothing,
    Text(String),
    Switch(bool),
    List(Vec<Entry>),
    Other,
}

impl Entry {
    /// The keys of a list, or of a text that is one.
    fn keys(self) -> Result<Vec<SecretKey>, &'static str> {
        let entries = match self {
            Self::List(entries) => entries,
            text @ Self::Text(_) => vec![text],
            _ => return Err("must be a list of keys in base64"),
        };
        let key = |entry| match entry {
            Self::Text(text) => text.parse::<SecretKey>().map_err(|_| "must be keys in base64"),
            _ => Err("must be keys in base64, each of them a text"),
        };
        entries.into_iter().map(key).collect()
    }

    fn path(self) -> Result<Option<PathBuf>, &'static str> {
        match self {
            Self::Nothing => Ok(None),
            Self::Text(text) if is_key(&text) => {
                Err("must be the path of a file, and is a key, which belongs in `keys`")
            }
            Self::Text(text) => Ok(Some(text.into())),
            _ => Err("must be the path of a file"),
        }
    }

    fn switch(self) -> Result<Option<bool>, &'static str> {
        match self {
            Self::Nothing => Ok(None),
            Self::Switch(on) => Ok(Some(on)),
            _ => Err("must be true or false"),
        }
    }
}

fn entry<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Entry, M::Error> {
    map.next_value()
}

fn is_key(text: &str) -> bool {
    SecretKey::from_base64(text).is_ok()
}

struct ReadEntry;

impl<'de> Visitor<'de> for ReadEntry {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list or a switch")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Entry, E> {
        Ok(Entry::Switch(on))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Entry, E> {
        Ok(Entry::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Entry, E> {
        Ok(Entry::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Entry, E> {
        Ok(Entry::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Entry, E> {
        Ok(Entry::Nothing)
    }

    fn visit_none<E: Error>(self) -> Result<Entry, E> {
        Ok(Entry::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Entry, S::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Entry::List(entries))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entry, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Entry::Other)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadEntry)
    }
}

impl<'de> Deserialize<'de> for Encryption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What is asked for a map refuses a text itself, and repeats it.
        deserializer.deserialize_any(ReadEncryption)
    }
}

impl Serialize for Encryption {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(path) = &self.keyring_file {
            map.serialize_entry("keyring_file", path)?;
        }
        map.serialize_entry("encrypt_outgoing", &self.encrypt_outgoing)?;
        map.serialize_entry("verify_incoming", &self.verify_incoming)?;
        map.serialize_entry("accept_v0", &self.accept_v0)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn read(encryption: &str) -> Result<Config, String> {
        let text = format!(r#"{{"name": "a", "encryption": {encryption}}}"#).replace("KEY", KEY);
        // As a value, and as a text: they tell of wrong types in ways of their own.
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let read = Config::deserialize(value).map_err(|error| error.to_string());
        assert_eq!(read.is_ok(), serde_json::from_str::<Config>(&text).is_ok());
        read
    }

    #[test]
    fn no_error_repeats_a_key_wherever_it_stands() {
        for (encryption, says) in [
            (r#""KEY""#, "`encryption` must be a table"),
            (r#"{"keys": {"a": "KEY"}}"#, "`encryption.keys` must be a list"),
            (r#"{"keys": ["KEY", ["KEY"]]}"#, "`encryption.keys` must be keys"),
            (r#"{"keys": ["KEY", 7]}"#, "`encryption.keys` must be keys"),
            (r#"{"keys": ["KEY", "xKEY"]}"#, "`encryption.keys` must be keys"),
            (r#"{"keys": "KEYx"}"#, "`encryption.keys` must be keys"),
            (r#"{"keyring_file": "KEY"}"#, "`encryption.keyring_file` must be the path"),
            (r#"{"keys": ["KEY"], "accept_v0": "KEY"}"#, "`encryption.accept_v0` must be true"),
            (r#"{"keys": ["KEY"], "KEY": true}"#, "(a key)"),
        ] {
            let error = read(encryption).unwrap_err();
            assert!(error.contains(says), "{encryption}: {error}");
            assert!(!error.contains(&KEY[4..20]), "{encryption}: {error}");
        }
    }

    #[test]
    fn one_key_needs_no_list() {
        for encryption in [r#"{"keys": "KEY"}"#, r#"{"keys": ["KEY"], "keyring_file": null}"#] {
            assert!(read(encryption).unwrap().encryption.is_some());
        }
    }
}
