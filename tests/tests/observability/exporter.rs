//! `/metrics`: everything in the catalogue, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use memberlist::metrics::{CATALOGUE, MetricKind};

use crate::http::{start, until};
use crate::process::know_each_other;
use crate::program::{Folder, KEY, run_to_end};

/// The name that Prometheus sees.
pub(crate) fn exported(name: &str) -> String {
    name.replace('.', "_")
}

/// What a page has: the kind of each metric, and all samples.
struct Page {
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Page {
    fn read(text: &str) -> Self {
        let (mut kinds, mut samples) = (BTreeMap::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
            } else if !line.starts_with("# HELP ") {
                samples.push(sample(line));
            }
        }
        Self { kinds, samples }
    }

    /// The sum of all samples of that name.
    fn total(&self, name: &str) -> f64 {
        self.samples.iter().filter(|(found, ..)| found == name).map(|(.., value)| value).sum()
    }

    fn has(&self, name: &str) -> bool {
        self.kinds.contains_key(name)
    }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("no labels: {line}"));
    let (labels, value) = rest.rsplit_once("} ").unwrap();
    let labels = labels.split("\",").map(|label| {
        let (name, value) = label.split_once("=\"").unwrap();
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}

#[test]
fn every_metric_of_the_catalogue_is_there_and_no_other() {
    let flags = ["--key", KEY, "--label", "blue"];
    let (a, http) = start("a", &flags);
    let seed = a.addr.clone();
    let join = [&flags[..], &["--join", &seed]].concat();
    let mut agents = vec![a];
    for name in ["b", "c", "d"] {
        let (mut agent, _) = start(name, &join);
        agent.event("joined");
        agents.push(agent);
    }
    know_each_other(&mut agents);

    // Something is announced, so that others can agree with it. Then the process stands still for so
    // long that it is missed, and goes on.
    agents[0].ask("meta new", "meta");
    agents[0].signal("STOP");
    agents[1].event_of("suspect", "a");
    agents[0].signal("CONT");
    agents[1].wait("a is back", |line| {
        line["name"] == "a" && (line["event"] == "alive" || line["event"] == "join")
    });

    let histograms: Vec<String> = CATALOGUE
        .iter()
        .filter(|metric| metric.kind == MetricKind::Histogram)
        .map(|metric| exported(metric.name))
        .collect();
    let recorded = |page: &Page| {
        histograms.iter().all(|name| page.total(&format!("{name}_count")) > 0.0)
            && page.has("memberlist_key_sealed")
            && page.total("memberlist_refutations") > 0.0
    };
    let answer = until(&http, "/metrics", "a value of each kind", |answer| {
        recorded(&Page::read(&answer.body))
    });
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = Page::read(&answer.body);
    let expected: BTreeMap<String, String> = CATALOGUE
        .iter()
        .map(|metric| (exported(metric.name), metric.kind.as_str().to_owned()))
        .collect();
    assert_eq!(page.kinds, expected);

    for metric in CATALOGUE {
        let name = exported(metric.name);
        let parts: Vec<String> = match metric.kind {
            MetricKind::Histogram => {
                ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).into()
            }
            _ => vec![name.clone()],
        };
        for part in parts {
            let mut labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
            labels.extend(["node", "cluster"]);
            if part.ends_with("_bucket") {
                labels.insert("le");
            }
            let of: Vec<_> = page.samples.iter().filter(|(found, ..)| *found == part).collect();
            assert!(!of.is_empty(), "{part} has no value");
            for (_, found, _) in of {
                assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), labels);
                assert_eq!((found["node"].as_str(), found["cluster"].as_str()), ("a", "blue"));
            }
        }
    }
}

#[test]
fn over_quic_the_transport_has_metrics_too() {
    let folder = Folder::new("observability-quic");
    let out = folder.file("certs");
    let made = run_to_end(&["certs", "--out", &out, "--name", "a", "--name", "b"]);
    assert!(made.status.success(), "{made:?}");
    let start = |name: &'static str, more: &[&str]| {
        let file = |name: &str, extension: &str| format!("{out}/{name}.{extension}");
        let (cert, key, ca) = (file(name, "pem"), file(name, "key"), file("ca", "pem"));
        let files = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca];
        start(name, &[&["--transport", "quic"], &files[..], more].concat())
    };
    let (a, http) = start("a", &[]);
    let (mut b, _) = start("b", &["--join", &a.addr]);
    b.event("joined");

    let answer = until(&http, "/metrics", "a connection", |answer| {
        let page = Page::read(&answer.body);
        page.total("memberlist_quic_connections") >= 1.0
            && page.total("memberlist_quic_rtt_count") >= 1.0
            && page.total("memberlist_quic_packets_sent") >= 1.0
    });
    let page = Page::read(&answer.body);
    assert_eq!(page.kinds["memberlist_quic_loss"], "histogram");
    assert!(page.has("memberlist_members"));
    let known: BTreeSet<String> = CATALOGUE.iter().map(|metric| exported(metric.name)).collect();
    let strange = |name: &&String| !known.contains(*name) && !name.starts_with("memberlist_quic_");
    assert_eq!(page.kinds.keys().filter(strange).collect::<Vec<_>>(), [""; 0]);
    for (name, labels, _) in &page.samples {
        assert_eq!(labels["node"], "a", "{name}");
    }
}
