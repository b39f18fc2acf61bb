//! The dashboard and the alerts in `docs`.

use std::collections::BTreeMap;
use std::fs;

use memberlist::metrics::{CATALOGUE, Metric, MetricKind};
use memberlist::quic::QuicStats;
use serde_json::Value;

use crate::exporter::exported;

fn document(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words in it that look like metrics.
fn metrics_in(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("memberlist_")).collect()
}

/// Checks that there are such metrics, and that they are used as what they are; gives how many names.
fn check(text: &str) -> usize {
    let catalogue: BTreeMap<String, &Metric> =
        CATALOGUE.iter().map(|metric| (exported(metric.name), metric)).collect();
    let histogram = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| catalogue.get(word.strip_suffix(part)?))
    };
    let words = metrics_in(text);
    let quic: Vec<_> = QuicStats::default().counts().map(|(name, _)| name).collect();
    for word in &words {
        if let Some(name) = word.strip_prefix("memberlist_quic_") {
            assert!(quic.contains(&name), "{word}");
            continue;
        }
        match (catalogue.get(*word), histogram(word)) {
            (Some(metric), _) => assert_ne!(metric.kind, MetricKind::Histogram, "{word}"),
            (None, Some(metric)) => assert_eq!(metric.kind, MetricKind::Histogram, "{word}"),
            (None, None) => panic!("there is no metric {word}"),
        }
    }
    words.len()
}

/// Every text in it under one of these keys.
fn texts(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| texts(value, keys, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if keys.contains(&key.as_str()) => found.push(text.clone()),
                    _ => texts(value, keys, found),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&document("grafana-dashboard.json")).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, &["expr", "query", "definition"], &mut queries);
    let asked: usize = queries.iter().map(|query| check(query)).sum();
    assert!(asked > 40, "{queries:#?}");

    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["type"] == "datasource"));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: std::collections::BTreeSet<_> =
        panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
}

#[test]
fn the_alerts_watch_metrics_that_there_are_and_say_what_to_do() {
    let alerts = document("alerts.yml");
    assert!(check(&alerts) > 10);
    let lines = |start: &str| alerts.lines().filter(|line| line.trim().starts_with(start)).count();
    let rules = lines("- alert:");
    assert!(rules >= 9, "{rules}");
    for part in ["expr:", "summary:", "description:", "severity:"] {
        assert_eq!(lines(part), rules, "{part}");
    }
}
