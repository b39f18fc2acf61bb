//! The manual says what the code says, where a machine can tell.

use std::fmt::Debug;

use crate::Config;

const TUNING: &str = include_str!("tuning.md");

const NOWHERE: [String; 0] = [];

/// The fields of a struct with their values, from how it is shown in many lines; a value of several lines
/// is left out.
fn fields(shown: &impl Debug) -> Vec<(String, String)> {
    let shown = format!("{shown:#?}");
    let own =
        |line: &&str| line.starts_with("    ") && !line[4..].starts_with([' ', '}', ')', ']']);
    let fields = shown.lines().filter(own).filter_map(|line| line.trim().split_once(": "));
    fields.map(|(name, value)| (name.to_owned(), value.trim_end_matches(',').to_owned())).collect()
}

/// The cells behind a field's name, if the page has a row for it alone.
fn row(field: &str) -> Option<Vec<String>> {
    let start = format!("| `{field}` |");
    let line = TUNING.lines().find(|line| line.starts_with(&start))?;
    Some(line[start.len()..].split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// As a reader writes it, without what makes it readable.
fn plain(cell: &str) -> String {
    match cell {
        "on" => "true".to_owned(),
        "off" => "false".to_owned(),
        cell => cell.replace([',', ' '], ""),
    }
}

fn unnamed(fields: Vec<(String, String)>) -> Vec<String> {
    let names = fields.into_iter().map(|(name, _)| name);
    names.filter(|name| !TUNING.contains(&format!("`{name}`"))).collect()
}

#[test]
fn every_setting_is_on_the_page_about_tuning() {
    let config = Config::lan("a");
    assert!(fields(&config).len() >= 13, "{:?}", fields(&config));
    assert!(fields(&config.protocol).len() >= 34, "{:?}", fields(&config.protocol));
    assert_eq!(fields(&config.protocol.lifeguard).len(), 3);
    assert_eq!(unnamed(fields(&config)), NOWHERE);
    assert_eq!(unnamed(fields(&config.protocol)), NOWHERE);
    assert_eq!(unnamed(fields(&config.protocol.lifeguard)), NOWHERE);
    #[cfg(feature = "metrics")]
    assert_eq!(unnamed(fields(&config.metrics)), NOWHERE);
    #[cfg(feature = "dns")]
    assert_eq!(unnamed(fields(&config.dns)), NOWHERE);
}

#[cfg(feature = "encryption")]
#[test]
fn every_setting_of_encryption_is_named() {
    use memberlist_security::{KeySize, Keyring, SecretKey};

    let key = SecretKey::generate(KeySize::Bits128).unwrap();
    let encryption = fields(&crate::Encryption::new(Keyring::new(key)));
    assert!(encryption.len() >= 5, "{encryption:?}");
    assert_eq!(unnamed(encryption), NOWHERE);
}

#[test]
fn the_defaults_on_the_page_are_those_of_the_presets() {
    let presets = [Config::lan("a"), Config::wan("a"), Config::local("a")];
    let [lan, wan, local] = presets.map(|preset| fields(&preset.protocol));
    let mut checked = 0;
    for ((lan, wan), local) in lan.iter().zip(&wan).zip(&local) {
        let field = &lan.0;
        let of_many_lines = lan.1.ends_with(['{', '(', '[']);
        if of_many_lines {
            continue;
        }
        let row = row(field).unwrap_or_else(|| panic!("no row for {field}"));
        let told: Vec<String> = row.iter().take(3).map(|cell| plain(cell)).collect();
        assert_eq!(told, [lan.1.as_str(), &wan.1, &local.1], "{field}");
        checked += 1;
    }
    assert!(checked >= 32, "only {checked} were checked");

    for (field, value) in fields(&Config::lan("a")) {
        let of_a_number = value.parse::<u64>().is_ok();
        if let Some(row) = row(&field).filter(|_| of_a_number) {
            assert_eq!(plain(&row[0]), value, "{field}");
        }
    }
}

#[cfg(feature = "metrics")]
#[test]
fn the_table_of_metrics_is_the_catalogue() {
    use crate::metrics::CATALOGUE;

    let row = |metric: &crate::metrics::Metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, unit) = (metric.kind.as_str(), metric.unit.as_str());
        let (name, labels) = (metric.name, labels.join(", "));
        format!("| `{name}` | {kind} | {unit} | {labels} | {} | {} |", metric.help, metric.go)
    };
    let wanted: Vec<String> = CATALOGUE.iter().map(row).collect();
    let page = include_str!("operating.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `memberlist.")).collect();
    let rows: Vec<&str> =
        rows.into_iter().filter(|line| line.matches(" | ").count() == 5).collect();
    assert_eq!(rows, wanted);
}
