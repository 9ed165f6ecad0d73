//! The status and a few histograms in Prometheus' format; `docs/metrics.md` lists what there is.
//!
//! What the status has is written from it at each scrape, so what is no longer in it, a host that has left, is gone
//! from the metrics as well. That is why this is `prometheus-client`, whose collectors work so, and not `metrics` with
//! its exporter, which keeps every label that it has seen.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::status::{AgentState, FleetStatus, HostState, HostStatus, RootState, RootStatus, WatchMode};

/// Upper bounds in seconds: from what a quiet fleet on one network takes to a first sync of a large tree.
const BOUNDS: [f64; 14] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];

/// What is counted while it happens, for `/metrics`. Cheap to clone and to call.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Rises with everything that is recorded.
    version: AtomicU64,
    cycles: Mutex<HashMap<String, Kept>>,
    commits: Mutex<HashMap<(String, String), Kept>>,
    deliveries: Mutex<HashMap<(String, String), Kept>>,
}

/// A histogram, and whether it was of nobody in the status at the last scrape.
#[derive(Debug)]
struct Kept {
    histogram: Histogram,
    orphaned: bool,
}

impl Metrics {
    /// A cycle of `root` took so long: scan, plan and all hosts.
    pub fn cycle(&self, root: &str, seconds: f64) {
        self.observe(&self.shared.cycles, root.to_owned(), seconds);
    }

    /// A commit of `root` on `host` took so long, from its plan to its acknowledgement.
    pub fn commit(&self, root: &str, host: &str, seconds: f64) {
        self.observe(&self.shared.commits, (root.to_owned(), host.to_owned()), seconds);
    }

    /// A change of `root` was on `host` so long after it was noticed.
    pub fn delivered(&self, root: &str, host: &str, seconds: f64) {
        self.observe(&self.shared.deliveries, (root.to_owned(), host.to_owned()), seconds);
    }

    fn observe<K: Eq + Hash>(&self, of: &Mutex<HashMap<K, Kept>>, key: K, seconds: f64) {
        // A sum that is no number once would be none for ever.
        if !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        let mut all = lock(of);
        let kept = all.entry(key).or_insert_with(|| Kept { histogram: Histogram::new(BOUNDS), orphaned: false });
        kept.orphaned = false;
        kept.histogram.observe(seconds);
        self.shared.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Another number whenever something was recorded.
    pub(super) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Relaxed)
    }

    /// The exposition; `None` if it cannot be written.
    pub(super) fn render(&self, status: &Arc<FleetStatus>) -> Option<Vec<u8>> {
        let roots: HashSet<&str> = status.roots.iter().map(|root| root.name.as_str()).collect();
        let hosts = status.roots.iter().flat_map(|root| root.hosts.iter().map(|host| (&*root.name, &*host.name)));
        let hosts: HashSet<(&str, &str)> = hosts.collect();
        let known = |(root, host): &(String, String)| hosts.contains(&(root.as_str(), host.as_str()));
        let scrape = Scrape {
            cycles: taken(&self.shared.cycles, |root| roots.contains(root.as_str())),
            commits: taken(&self.shared.commits, known),
            deliveries: taken(&self.shared.deliveries, known),
            status: Arc::clone(status),
        };
        let mut registry = Registry::with_prefix("rfleet");
        registry.register_collector(Box::new(scrape));
        let mut out = String::new();
        text::encode(&mut out, &registry).ok()?;
        Some(out.into_bytes())
    }
}

/// The histograms of those that are `known`, in order. Lets go what has been of nobody for two scrapes: at the first one
/// the status may only be older than the record. Who records waits for no more than this.
fn taken<K: Clone + Eq + Hash + Ord>(of: &Mutex<HashMap<K, Kept>>, known: impl Fn(&K) -> bool) -> Vec<(K, Histogram)> {
    let mut taken = Vec::new();
    lock(of).retain(|key, kept| {
        let is_known = known(key);
        let keep = is_known || !kept.orphaned;
        kept.orphaned = !is_known;
        if is_known {
            taken.push((key.clone(), kept.histogram.clone()));
        }
        keep
    });
    taken.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    taken
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Scrape {
    status: Arc<FleetStatus>,
    cycles: Vec<(String, Histogram)>,
    commits: Vec<((String, String), Histogram)>,
    deliveries: Vec<((String, String), Histogram)>,
}

/// What a series is of, in the order of its labels.
type Labels<'l> = Vec<(&'static str, &'l str)>;

/// One value, with what it is of.
enum Value {
    Count(u64),
    Number(u64),
    Seconds(f64),
}

impl Value {
    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Value::Count(number) => encoder.encode_counter(number, None::<&Exemplar<Labels<'_>, f64>>),
            Value::Number(number) => encoder.encode_gauge(&i64::try_from(*number).unwrap_or(i64::MAX)),
            Value::Seconds(number) => encoder.encode_gauge(number),
        }
    }
}

/// Writes one family after another. A family without a series is left out.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn write<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Labels<'l>, Value)>,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        let kind = match series.peek() {
            None => return Ok(()),
            Some((_, Value::Count(_))) => MetricType::Counter,
            Some((_, Value::Number(_) | Value::Seconds(_))) => MetricType::Gauge,
        };
        let mut family = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in series {
            if labels.is_empty() {
                value.encode(&mut family)?;
            } else {
                value.encode(&mut family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn histogram<'l>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'l>, &'l Histogram)>,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        series.try_for_each(|(labels, histogram)| {
            let one: MetricEncoder<'_> = family.encode_family(&labels)?;
            histogram.encode(one)
        })
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.agent(&mut families)?;
        self.roots(&mut families)?;
        self.watches(&mut families)?;
        self.hosts(&mut families)?;
        self.traffic(&mut families)?;
        self.recorded(&mut families)
    }
}

impl Scrape {
    fn agent(&self, families: &mut Families<'_>) -> fmt::Result {
        let status = &self.status;
        let mut info = families.0.encode_descriptor("agent", "Who says this.", None, MetricType::Info)?;
        info.encode_info(&vec![
            ("version", status.software.as_str()),
            ("fleet", &status.fleet),
            ("host", &status.host),
            ("role", status.role.word()),
        ])?;
        let at = seconds(status.time_ms);
        let time = [(Labels::new(), Value::Seconds(at))];
        families.write("status_timestamp", "When the status was said.", Some(&Unit::Seconds), time)?;
        families.write("term", "Number of the primaryship.", None, [(Labels::new(), Value::Number(status.term))])?;
        let agent = status.agent.iter();
        let started = agent.clone().map(|agent| (Labels::new(), Value::Seconds(seconds(agent.started_ms))));
        families.write("agent_start_time", "When the agent started.", Some(&Unit::Seconds), started)?;
        let degraded = agent.map(|agent| (Labels::new(), flag(agent.state == AgentState::Degraded)));
        families.write("agent_degraded", "1 if something does not get on as it should.", None, degraded)
    }

    /// One value for each root.
    fn each<'s>(
        &'s self,
        value: impl Fn(&'s RootStatus) -> Option<Value>,
    ) -> impl Iterator<Item = (Labels<'s>, Value)> {
        self.status.roots.iter().filter_map(move |root| Some((vec![("root", root.name.as_str())], value(root)?)))
    }

    fn roots(&self, families: &mut Families<'_>) -> fmt::Result {
        let s = Some(&Unit::Seconds);
        let sequence = self.each(|root| Some(Value::Number(root.sequence)));
        families.write(
            "root_sequence",
            "The last change that this host has recorded, or has in full.",
            None,
            sequence,
        )?;
        let entries = self.each(|root| Some(Value::Number(root.entries)));
        families.write("root_entries", "Entries in the source.", None, entries)?;
        let size = self.each(|root| Some(Value::Number(root.bytes)));
        families.write("root_size", "Content in the source.", Some(&Unit::Bytes), size)?;
        let dirty = self.each(|root| Some(Value::Number(root.dirty)));
        families.write("root_dirty_paths", "Paths that changed and were not looked at yet.", None, dirty)?;
        let refused = self.each(|root| Some(flag(root.refused.is_some() || root.state == RootState::Refused)));
        families.write("root_refused", "1 if a guard refused the last cycle.", None, refused)?;
        let problems = self.each(|root| Some(Value::Number(root.problem_count)));
        families.write("root_problems", "Paths of the source that could not be sent.", None, problems)?;
        let committed = self.each(|root| root.committed_ms.map(|at| Value::Seconds(seconds(at))));
        let help = "When this secondary got what it has.";
        families.write("root_committed_timestamp", help, s, committed)?;
        let scans = self.each(|root| Some(Value::Count(root.scans)));
        families.write("root_scans", "Whole scans since the agent started.", None, scans)?;
        let scanned = self.each(|root| root.scanned_ms.map(|at| Value::Seconds(seconds(at))));
        families.write("root_last_scan_timestamp", "The end of the last whole scan.", s, scanned)?;
        let took = self.each(|root| root.scan_s.map(Value::Seconds));
        families.write("root_last_scan_duration", "How long the last whole scan took.", s, took)
    }

    fn watches(&self, families: &mut Families<'_>) -> fmt::Result {
        let watched = |root: &&RootStatus| root.watch.mode != WatchMode::Off || root.watch.reason.is_some();
        let each = |value: fn(&RootStatus) -> Value| {
            let roots = self.status.roots.iter().filter(watched);
            roots.map(move |root| (vec![("root", root.name.as_str())], value(root)))
        };
        let directories = each(|root| Value::Number(root.watch.directories));
        families.write("root_watched_directories", "Directories that are watched.", None, directories)?;
        let degraded = each(|root| flag(root.watch.reason.is_some()));
        let help = "1 if file events are asked for and not to be had in full.";
        families.write("root_watch_degraded", help, None, degraded)?;
        let overflows = each(|root| Value::Count(root.watch.overflows));
        let help = "Times that the kernel's queue of file events was full.";
        families.write("root_watch_overflows", help, None, overflows)
    }

    /// One value for each root and host.
    fn every<'s>(
        &'s self,
        value: impl Fn(&'s HostStatus) -> Option<Value> + Copy,
    ) -> impl Iterator<Item = (Labels<'s>, Value)> {
        self.status
            .roots
            .iter()
            .flat_map(move |root| root.hosts.iter().filter_map(move |host| Some((of_host(root, host), value(host)?))))
    }

    fn hosts(&self, families: &mut Families<'_>) -> fmt::Result {
        let up = self.every(|host| {
            let known = !matches!(host.state, HostState::Unknown | HostState::Failed);
            Some(flag(known && host.failures == 0))
        });
        families.write("host_up", "1 if the last try did not fail.", None, up)?;
        let states = self.status.roots.iter().flat_map(|root| {
            root.hosts.iter().flat_map(move |host| {
                HostState::ALL.into_iter().map(move |state| {
                    let mut labels = of_host(root, host);
                    labels.push(("state", state.word()));
                    (labels, flag(host.state == state))
                })
            })
        });
        families.write("host_state", "1 for the state that the host is in.", None, states)?;
        let sequence = self.every(|host| Some(Value::Number(host.sequence)));
        families.write("host_sequence", "The last change that the host has.", None, sequence)?;
        let lag = self.every(|host| Some(Value::Seconds(host.lag_s)));
        let help = "Age of the oldest change that the host does not have.";
        families.write("host_lag", help, Some(&Unit::Seconds), lag)?;
        let pending = self.every(|host| host.pending.map(Value::Number));
        let help = "Changes that the host does not have; absent where everything is to be compared.";
        families.write("host_pending_changes", help, None, pending)?;
        let success = self.every(|host| host.success_ms.map(|at| Value::Seconds(seconds(at))));
        let help = "When the host last had everything; absent if never.";
        families.write("host_last_success_timestamp", help, Some(&Unit::Seconds), success)?;
        let failures = self.every(|host| Some(Value::Number(host.failures)));
        families.write("host_consecutive_failures", "Failures without a success in between.", None, failures)?;
        let problems = self.every(|host| Some(Value::Number(host.problem_count)));
        families.write("host_problems", "Paths that could not be handled there.", None, problems)?;
        let failed = |host: &HostStatus| host.hooks.iter().filter(|hook| !hook.ok).count();
        let hooks = self.every(|host| Some(Value::Number(u64::try_from(failed(host)).unwrap_or(u64::MAX))));
        families.write("host_failed_hooks", "Hooks that failed after the host's last commit.", None, hooks)
    }

    fn traffic(&self, families: &mut Families<'_>) -> fmt::Result {
        let commits = self.every(|host| Some(Value::Count(host.commits)));
        families.write("host_commits", "Commits since the agent started.", None, commits)?;
        let files = self.every(|host| Some(Value::Count(host.files_sent)));
        families.write("host_sent_files", "Files sent since the agent started.", None, files)?;
        let bytes = self.every(|host| Some(Value::Count(host.bytes_sent)));
        let help = "Written to the link since the agent started, before SSH.";
        families.write("host_sent", help, Some(&Unit::Bytes), bytes)?;
        let drifted = self.every(|host| Some(Value::Count(host.drifted)));
        let help = "Entries that were not as they had been left, since the agent started.";
        families.write("host_drifted_entries", help, None, drifted)
    }

    fn recorded(&self, families: &mut Families<'_>) -> fmt::Result {
        let series = self.cycles.iter().map(|(root, histogram)| (vec![("root", root.as_str())], histogram));
        families.histogram("cycle_duration", "How long a cycle of a root took.", series)?;
        let help = "How long a commit took, from its plan to its acknowledgement.";
        families.histogram("commit_duration", help, of_hosts(&self.commits))?;
        let help = "From the moment a change is noticed to its being on the host.";
        families.histogram("delivery", help, of_hosts(&self.deliveries))
    }
}

fn of_hosts(all: &[((String, String), Histogram)]) -> impl Iterator<Item = (Labels<'_>, &Histogram)> {
    all.iter().map(|((root, host), histogram)| (vec![("root", root.as_str()), ("host", host)], histogram))
}

fn of_host<'s>(root: &'s RootStatus, host: &'s HostStatus) -> Labels<'s> {
    vec![("root", &root.name), ("host", &host.name)]
}

fn flag(is: bool) -> Value {
    Value::Number(u64::from(is))
}

/// Since 1970, from milliseconds.
fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
