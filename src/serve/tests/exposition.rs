//! `/metrics`, read back by a reader that takes nothing but what the format allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::Metrics;
use super::{HOSTILE, full, hostile};
use crate::status::{FleetStatus, HostState, HostStatus, Role, RootStatus};

type Labels = BTreeMap<String, String>;

/// Buckets, sum and count of a histogram.
type Series = (Vec<(f64, f64)>, Option<f64>, Option<f64>);

/// A family of the exposition.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    unit: Option<String>,
    /// Name of the sample and its labels, and its value.
    samples: Vec<(String, Labels, f64)>,
}

/// Reads an exposition as [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/) defines it, in
/// the part that is used here; panics at whatever is not so.
fn read(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with its end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in body.split_terminator('\n') {
        assert!(!line.is_empty(), "no empty lines");
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            if name != current {
                assert!(!families.contains_key(name), "{name} is in one piece");
                assert!(is_name(name), "{name}");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "what is said of {name} is said first");
            match what {
                "HELP" => assert!(std::mem::replace(&mut family.help, rest.into()).is_empty()),
                "TYPE" => assert!(std::mem::replace(&mut family.kind, rest.into()).is_empty()),
                "UNIT" => assert!(family.unit.replace(rest.into()).is_none()),
                other => panic!("{other}"),
            }
            continue;
        }
        let (name, labels, value) = sample(line);
        let family = families.get_mut(&current).expect("a sample belongs to a family");
        let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{name} is not of {current}"));
        let allowed: &[&str] = match family.kind.as_str() {
            "gauge" => &[""],
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{current} is a {other}"),
        };
        assert!(allowed.contains(&suffix), "{name} in a {}", family.kind);
        assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
        family.samples.push((name, labels, value));
    }
    families.iter().for_each(|(name, family)| check(name, family));
    families
}

/// What holds for a family as a whole, the conventions of names among it.
fn check(name: &str, family: &Family) {
    assert!(name.starts_with("rfleet_"), "{name}");
    assert!(family.help.ends_with('.') && family.help.len() > 9, "{name}: {}", family.help);
    assert!(!family.samples.is_empty(), "{name} has samples");
    let unit = family.unit.as_deref();
    assert!(unit.is_none_or(|unit| name.ends_with(&format!("_{unit}"))), "{name} is in {unit:?}");
    for bad in ["_total", "_ms", "_milliseconds", "_kib", "_mib", "_info", "_count", "_sum", "_bucket"] {
        assert!(!name.ends_with(bad), "{name}");
    }
    if family.kind == "counter" {
        family.samples.iter().for_each(|(_, _, value)| assert!(*value >= 0.0 && value.is_finite(), "{name}"));
    }
    if family.kind == "histogram" {
        check_histogram(name, family);
    }
}

fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Series> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let one = series.entry(labels).or_default();
        match sample.strip_prefix(name).unwrap() {
            "_bucket" => one.0.push((number(&bound.expect("a bucket has a bound")), *value)),
            "_sum" => one.1 = Some(*value),
            _ => one.2 = Some(*value),
        }
    }
    for (labels, (buckets, sum, count)) in series {
        assert!(buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1), "{name} {labels:?}");
        assert_eq!(buckets.last().map(|last| last.0), Some(f64::INFINITY));
        assert_eq!(buckets.last().map(|last| last.1), count);
        assert!(sum.is_some_and(f64::is_finite));
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        _ => {
            assert!(text.chars().all(|c| c.is_ascii_digit() || ".e-+".contains(c)), "{text} is no number");
            text.parse().unwrap()
        }
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect("a name ends");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{name}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (key, after) = rest.split_once("=\"").expect("a label has a value");
            assert!(is_name(key), "{key}");
            let (value, after) = quoted(after);
            assert!(labels.insert(key.to_owned(), value).is_none(), "{key} twice");
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',').expect("a comma between labels");
        }
    }
    let value = rest.strip_prefix(' ').expect("one space before the value");
    (name.to_owned(), labels, number(value))
}

/// The text up to the closing quote, and what comes after it.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().expect("something is escaped").1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                other => panic!("\\{other}"),
            }),
            '\n' => panic!("a line ends in a label"),
            other => value.push(other),
        }
    }
    panic!("a label has no end: {text}")
}

fn scrape(metrics: &Metrics, status: &FleetStatus) -> BTreeMap<String, Family> {
    let text = String::from_utf8(metrics.render(&Arc::new(status.clone())).unwrap()).unwrap();
    read(&text)
}

/// The value of the sample `name` with these labels.
fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let mut all = families.values().flat_map(|family| &family.samples);
    all.find(|(sample, labels, _)| sample == name && *labels == wanted).map(|(_, _, value)| *value)
}

fn recorded() -> Metrics {
    let metrics = Metrics::default();
    metrics.cycle("uploads", 0.3);
    metrics.commit("uploads", "web2", 1.5);
    metrics.delivered("uploads", "web2", 0.08);
    metrics.delivered("uploads", "web2", 40.0);
    metrics
}

#[test]
fn values_are_those_of_the_status() {
    let families = scrape(&recorded(), &full());
    let web2 = [("root", "uploads"), ("host", "web2")];
    let web3 = [("root", "uploads"), ("host", "web3")];
    let of = |name: &str, labels: &[(&str, &str)]| value(&families, name, labels);
    assert_eq!(of("rfleet_host_lag_seconds", &web2), Some(3.25));
    assert_eq!(of("rfleet_host_pending_changes", &web2), Some(1567.0));
    assert_eq!(of("rfleet_host_pending_changes", &web3), None, "not known");
    assert_eq!(of("rfleet_host_sent_bytes_total", &web2), Some(3_221_225_472.0));
    assert_eq!((of("rfleet_host_up", &web2), of("rfleet_host_up", &web3)), (Some(1.0), Some(0.0)));
    assert_eq!(of("rfleet_host_consecutive_failures", &web3), Some(12.0));
    assert_eq!(of("rfleet_root_sequence", &[("root", "uploads")]), Some(1_234_567.0));
    assert_eq!(of("rfleet_root_refused", &[("root", "site")]), Some(1.0));
    assert_eq!(of("rfleet_root_watch_degraded", &[("root", "uploads")]), Some(1.0));
    assert_eq!(of("rfleet_status_timestamp_seconds", &[]), Some(1_800_000_600.0));
    assert_eq!(of("rfleet_agent_degraded", &[]), Some(1.0));
    let info = [("version", "0.1.0"), ("fleet", "cms"), ("host", "web1"), ("role", "primary")];
    assert_eq!(of("rfleet_agent_info", &info), Some(1.0));
    let states = HostState::ALL.map(|state| {
        of("rfleet_host_state", &[("root", "uploads"), ("host", "web3"), ("state", state.word())]).unwrap()
    });
    assert_eq!(states.iter().sum::<f64>(), 1.0, "one of them");
    assert_eq!(of("rfleet_delivery_seconds_count", &web2), Some(2.0));
    let bucket = [("root", "uploads"), ("host", "web2"), ("le", "0.1")];
    assert_eq!(of("rfleet_delivery_seconds_bucket", &bucket), Some(1.0));
}

#[test]
fn hosts_and_roots_that_have_left_are_gone() {
    let metrics = recorded();
    let mut status = full();
    status.roots[0].hosts.retain(|host| host.name != "web2");
    for round in 0..3 {
        let families = scrape(&metrics, &status);
        let mut labels = families.values().flat_map(|family| &family.samples).map(|(_, labels, _)| labels);
        let left = |labels: &Labels| {
            labels.get("root").is_some_and(|root| root == "uploads")
                && labels.get("host").is_some_and(|host| host == "web2")
        };
        assert!(!labels.any(left), "{round}");
    }
    let web2 = [("root", "uploads"), ("host", "web2")];
    assert_eq!(value(&scrape(&metrics, &full()), "rfleet_delivery_seconds_count", &web2), None, "and forgotten");
    status.roots.clear();
    assert!(!scrape(&metrics, &status).keys().any(|name| name.starts_with("rfleet_cycle")));
}

#[test]
fn what_is_recorded_before_the_status_knows_of_it_is_not_lost() {
    let metrics = recorded();
    let web2 = [("root", "uploads"), ("host", "web2")];
    assert_eq!(value(&scrape(&metrics, &FleetStatus::default()), "rfleet_delivery_seconds_count", &web2), None);
    assert_eq!(value(&scrape(&metrics, &full()), "rfleet_delivery_seconds_count", &web2), Some(2.0));
}

#[test]
fn labels_of_any_text_and_values_of_any_size_stay_in_the_format() {
    let mut status = hostile();
    for (number, host) in status.roots.iter_mut().flat_map(|root| &mut root.hosts).enumerate() {
        host.name = format!("{HOSTILE}\n\\\"{number}");
        (host.sequence, host.bytes_sent, host.problem_count) = (u64::MAX, u64::MAX, u64::MAX);
        host.lag_s = f64::MAX;
    }
    status.roots[1].name = "other".into();
    let families = scrape(&Metrics::default(), &status);
    let name = format!("{HOSTILE}\n\\\"0");
    assert!(value(&families, "rfleet_host_up", &[("root", HOSTILE), ("host", &name)]).is_some());
    let nothing = scrape(&Metrics::default(), &FleetStatus::default());
    assert!(nothing.contains_key("rfleet_agent"));
}

#[test]
fn what_is_no_time_is_not_recorded() {
    let metrics = recorded();
    for no_time in [f64::NAN, f64::INFINITY, -1.0] {
        metrics.delivered("uploads", "web2", no_time);
    }
    let web2 = [("root", "uploads"), ("host", "web2")];
    assert_eq!(value(&scrape(&metrics, &full()), "rfleet_delivery_seconds_count", &web2), Some(2.0));
}

#[test]
fn the_page_of_metrics_names_every_one_and_no_other() {
    let mut written: BTreeSet<String> = scrape(&recorded(), &full()).into_keys().collect();
    // A secondary has a time of its own.
    let root = RootStatus { name: "uploads".into(), committed_ms: Some(1), ..RootStatus::default() };
    let secondary = FleetStatus { role: Role::Secondary, roots: vec![root], ..FleetStatus::default() };
    let families = scrape(&Metrics::default(), &secondary);
    assert!(families.contains_key("rfleet_root_committed_timestamp_seconds"));
    written.extend(families.into_keys());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    // In the tables a name stands first in its line, as it is asked for: with the ending that its kind has.
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `rfleet_")?.split_once('`'));
    let listed: Vec<String> = rows.map(|(name, _)| format!("rfleet_{name}")).collect();
    let plain = |name: &String| {
        let name = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
        name.to_owned()
    };
    assert_eq!(listed.iter().map(plain).collect::<BTreeSet<_>>(), written);
    assert_eq!(listed.len(), written.len(), "each once");
    // What alerts ask for is there.
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prometheus-alerts.yml");
    let rules = std::fs::read_to_string(rules).unwrap();
    let asked: BTreeSet<&str> = rules
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("rfleet_"))
        .collect();
    assert!(asked.len() > 4, "{asked:?}");
    for name in asked {
        assert!(listed.iter().any(|listed| listed == name), "{name} is asked for and not there");
    }
}

#[test]
fn a_host_that_was_never_tried_is_neither_up_nor_in_another_state() {
    let host = HostStatus { name: "new".into(), ..HostStatus::default() };
    let root = RootStatus { name: "a".into(), hosts: vec![host], ..RootStatus::default() };
    let families = scrape(&Metrics::default(), &FleetStatus { roots: vec![root], ..FleetStatus::default() });
    let labels = [("root", "a"), ("host", "new")];
    assert_eq!(value(&families, "rfleet_host_up", &labels), Some(0.0));
    assert_eq!(value(&families, "rfleet_host_last_success_timestamp_seconds", &labels), None);
}
