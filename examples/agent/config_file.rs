//! Settings from a file, and the settings that there are in the end.
//!
//! A file is TOML, or JSON if its name ends so. At its top stand the fields of the library's `Config`, below `protocol`
//! those of the protocol; below `agent` the flags of the command line without their dashes. What is given on the
//! command line itself wins.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use memberlist::Config;
use memberlist::protocol::human::Faults;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The entry below `protocol` that says from which preset the others depart.
const PRESET: &str = "preset";

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    /// The settings of the node.
    settings: Map<String, Value>,
    /// As flags: those of `agent`.
    pub(crate) flags: Vec<OsString>,
}

impl ConfigFile {
    /// Reads it; `known` are the names that may stand below `agent`.
    pub(crate) fn read(path: &Path, known: &[&str]) -> Result<Self, String> {
        let named = |error: String| format!("--config {}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let settings: Result<Map<String, Value>, String> = match is_json {
            true => serde_json::from_str(&text)
                .map_err(|error| error.to_string())
                .and_then(Unique::table),
            false => toml::from_str(&text).map_err(|error| toml_fault(&text, &error)),
        };
        let mut settings = settings.map_err(named)?;
        let agent = settings.remove("agent").unwrap_or_default();
        let mut file = Self { settings, flags: Vec::new() };
        match flags(&agent, known) {
            Ok(flags) => file.flags = flags,
            // What is wrong with the rest is told at once.
            Err(fault) => {
                let rest = file.config(file.name().unwrap_or("a"), None).err();
                return Err(named([fault].into_iter().chain(rest).collect::<Vec<_>>().join("; ")));
            }
        }
        Ok(file)
    }

    /// The name of the node, if the file says it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.settings.get("name")?.as_str()
    }

    /// The settings of the node of this name, and with this preset if one is named.
    pub(crate) fn config(&self, name: &str, preset: Option<&str>) -> Result<Config, String> {
        let mut settings = self.settings.clone();
        settings.insert("name".to_owned(), name.into());
        if let Some(preset) = preset {
            let protocol = settings.entry("protocol").or_insert_with(|| Map::new().into());
            if let Value::Object(protocol) = protocol {
                protocol.insert(PRESET.to_owned(), preset.into());
            }
        }
        Config::deserialize(Value::Object(settings)).map_err(|error| error.to_string())
    }
}

/// What is wrong, and in which line. The line itself is not repeated: a key may stand in it.
fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => {
            format!("line {}: {}", before.matches('\n').count() + 1, error.message().trim_end())
        }
        None => error.message().trim_end().to_owned(),
    }
}

/// A value of JSON in which no name stands twice: serde_json takes the last.
struct Unique(Value);

impl Unique {
    fn table(self) -> Result<Map<String, Value>, String> {
        match self.0 {
            Value::Object(entries) => Ok(entries),
            _ => Err("the settings are no table".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadUnique).map(Self)
    }
}

struct ReadUnique;

impl<'de> Visitor<'de> for ReadUnique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Value, E> {
        Ok(on.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Value, S::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Value, M::Error> {
        let mut entries = Map::new();
        while let Some((name, Unique(value))) = map.next_entry::<String, Unique>()? {
            if entries.contains_key(&name) {
                return Err(M::Error::custom(format!("`{name}` is given twice")));
            }
            entries.insert(name, value);
        }
        Ok(Value::Object(entries))
    }
}

/// The entries of `agent` as flags.
fn flags(agent: &Value, known: &[&str]) -> Result<Vec<OsString>, String> {
    let Value::Object(entries) = agent else {
        return if agent.is_null() {
            Ok(Vec::new())
        } else {
            Err("`agent` is no table".to_owned())
        };
    };
    let (mut flags, mut faults) = (Vec::new(), Faults::default());
    for (name, value) in entries {
        if name == "name" {
            faults.rule("agent.", name, "stands at the top of the file");
            continue;
        }
        if !known.contains(&name.as_str()) {
            faults.unknown("agent.", name, known);
            continue;
        }
        let flag = format!("--{}", name.replace('_', "-"));
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            match value {
                Value::Bool(true) => flags.push(flag.clone()),
                Value::Bool(false) => {}
                Value::String(text) => flags.push(format!("{flag}={text}")),
                Value::Number(number) => flags.push(format!("{flag}={number}")),
                _ => faults.rule("agent.", name, "is neither a text, a number nor a switch"),
            }
        }
    }
    faults.into_result::<serde_json::Error>().map_err(|error| error.to_string())?;
    Ok(flags.into_iter().map(OsString::from).collect())
}

/// The settings of a node, with these flags, as a file that gives the same.
pub(crate) fn as_toml(config: &Config, flags: toml::Table) -> Result<String, String> {
    let settings = serde_json::to_value(config).map_err(|error| error.to_string())?;
    let Some(toml::Value::Table(mut table)) = toml_value("", settings)? else {
        return Err("the settings are no table".to_owned());
    };
    // A table puts values before tables, as TOML needs them.
    table.insert("agent".to_owned(), toml::Value::Table(flags));
    toml::to_string(&table).map_err(|error| error.to_string())
}

/// The same in TOML, which has nothing for null; `path` is what it is called.
fn toml_value(path: &str, value: Value) -> Result<Option<toml::Value>, String> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(on) => on.into(),
        Value::String(text) => text.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) if number.is_f64() => float.into(),
            _ => return Err(format!("`{path}`: {number} is more than a TOML file can hold")),
        },
        Value::Array(values) => {
            let values = values.into_iter().filter_map(|value| toml_value(path, value).transpose());
            toml::Value::Array(values.collect::<Result<_, _>>()?)
        }
        Value::Object(entries) => {
            let mut table = toml::Table::new();
            for (name, value) in entries {
                let dot = if path.is_empty() { "" } else { "." };
                if let Some(value) = toml_value(&format!("{path}{dot}{name}"), value)? {
                    table.insert(name, value);
                }
            }
            toml::Value::Table(table)
        }
    }))
}

/// The settings of the protocol with one of them changed: `gossip_nodes 5`, `probe_interval 2s`.
pub(crate) fn changed(
    settings: &memberlist::protocol::Config,
    field: &str,
    value: &str,
) -> Result<memberlist::protocol::Config, String> {
    let mut fields = match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err("the settings are no table".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    if field == PRESET {
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        return Err(format!(
            "`{PRESET}` is where a file of settings begins, and cannot be set while the node runs; what \
             can be set is one of {}, as far as it needs no restart",
            names.join(", ")
        ));
    }
    // What is no number, switch or list is a text.
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    fields.insert(field.to_owned(), value);
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}
