//! Settings from a file, and the settings that there are in the end.
//!
//! A file is TOML, or JSON if its name ends so. At its top stand the fields of the library's `Config`, below `protocol`
//! those of the protocol; below `agent` the flags of the command line without their dashes. What is given on the
//! command line itself wins.

use std::ffi::OsString;
use std::path::Path;

use memberlist::Config;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    /// The settings of the node.
    settings: Map<String, Value>,
    /// As flags: those of `agent`.
    pub(crate) flags: Vec<OsString>,
}

impl ConfigFile {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let named = |error: String| format!("--config {}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let settings: Result<Map<String, Value>, String> = match is_json {
            true => serde_json::from_str(&text).map_err(|error| error.to_string()),
            false => toml::from_str(&text).map_err(|error| error.to_string()),
        };
        let mut settings = settings.map_err(named)?;
        let agent = settings.remove("agent").unwrap_or_default();
        let flags = flags(&agent).map_err(named)?;
        Ok(Self { settings, flags })
    }

    /// The name of the node, if the file says it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.settings.get("name")?.as_str()
    }

    /// The settings of the node of this name.
    pub(crate) fn config(&self, name: &str) -> Result<Config, String> {
        let mut settings = self.settings.clone();
        settings.insert("name".to_owned(), name.into());
        Config::deserialize(Value::Object(settings)).map_err(|error| error.to_string())
    }
}

/// The entries of `agent` as flags.
fn flags(agent: &Value) -> Result<Vec<OsString>, String> {
    let Value::Object(entries) = agent else {
        return if agent.is_null() {
            Ok(Vec::new())
        } else {
            Err("`agent` is no table".to_owned())
        };
    };
    let mut flags = Vec::new();
    for (name, value) in entries {
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
                _ => {
                    return Err(format!("`agent.{name}` is neither a text, a number nor a switch"));
                }
            }
        }
    }
    Ok(flags.into_iter().map(OsString::from).collect())
}

/// The settings of a node, with these flags, as a file that gives the same.
pub(crate) fn as_toml(config: &Config, flags: toml::Table) -> Result<String, String> {
    // A table puts values before tables, as TOML needs them.
    let mut table = toml::Table::try_from(config).map_err(|error| error.to_string())?;
    table.insert("agent".to_owned(), toml::Value::Table(flags));
    toml::to_string(&table).map_err(|error| error.to_string())
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
    // What is no number, switch or list is a text.
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    fields.insert(field.to_owned(), value);
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}
