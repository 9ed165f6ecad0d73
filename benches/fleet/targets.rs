//! What rfleet is to reach, next to what was measured. It informs; nothing fails by it.

use crate::args::Scale;
use crate::figures::{number, table};
use crate::meter::Cost;
use crate::report::pairs;
use crate::tools::Contestant;
use crate::workload::{Kind, Outcome, Source};

/// A bound on a figure.
#[derive(Clone, Copy)]
enum Bound {
    /// It must not be more than the first number, and better not than the second.
    Most(f64, f64),
    /// It must not be less.
    Least(f64),
    /// It is of interest, without a bound.
    Open,
}

/// A figure, and what it is to be.
struct Target {
    what: String,
    bound: Bound,
    /// NaN if it was not measured.
    measured: f64,
}

impl Target {
    fn new(what: impl Into<String>, bound: Bound, measured: Option<f64>) -> Self {
        Self { what: what.into(), bound, measured: measured.unwrap_or(f64::NAN) }
    }

    fn row(&self) -> Vec<String> {
        let show = |value| number(value, 3);
        let (must, aim) = match self.bound {
            Bound::Most(most, aim) => {
                (format!("<= {}", show(most)), if aim < most { show(aim) } else { String::new() })
            }
            Bound::Least(least) => (format!(">= {}", show(least)), String::new()),
            Bound::Open => (String::new(), String::new()),
        };
        let met = match self.bound {
            _ if !self.measured.is_finite() => "not measured",
            Bound::Most(most, aim) if self.measured <= aim && aim < most => "yes, the aim too",
            Bound::Most(most, _) if self.measured <= most => "yes",
            Bound::Least(least) if self.measured >= least => "yes",
            Bound::Open => "",
            Bound::Most(..) | Bound::Least(_) => "no",
        };
        vec![self.what.clone(), must, aim, show(self.measured), met.to_owned()]
    }
}

/// The table of targets.
pub fn render(outcomes: &[Outcome], scale: Scale) -> String {
    let mut targets = against_rsync(outcomes);
    targets.extend(against_itself(outcomes));
    targets.extend(many_files(outcomes));
    let mut rows = vec![["target", "must be", "aim", "measured", "met"].map(String::from).to_vec()];
    rows.extend(targets.iter().map(Target::row));
    let (plain, markdown) = table(&rows, 1);
    let scale = if scale.is_full() { "" } else { "The targets are those of the full scale; this run had another.\n\n" };
    format!("{scale}{plain}\n{markdown}")
}

/// The outcome of a kind of work on a source, with one host or with several.
fn find(outcomes: &[Outcome], kind: Kind, source: Source, several: bool) -> Option<&Outcome> {
    let fits = |outcome: &&Outcome| {
        let workload = &outcome.workload;
        (workload.kind, workload.source, workload.hosts > 1) == (kind, source, several)
    };
    outcomes.iter().find(fits)
}

fn wall(cost: &Cost) -> f64 {
    cost.wall_seconds
}

fn cpu(cost: &Cost) -> f64 {
    cost.cpu_seconds
}

fn sender_cpu(cost: &Cost) -> f64 {
    cost.sender_cpu_seconds
}

fn wire(cost: &Cost) -> f64 {
    cost.wire_bytes as f64
}

fn against_rsync(outcomes: &[Outcome]) -> Vec<Target> {
    type Row = (&'static str, Kind, Source, bool, fn(&Cost) -> f64, Bound);
    let (tree, big) = (Source::Tree, Source::Big);
    let rows: [Row; 9] = [
        ("nothing changed, 8 hosts: wall", Kind::NothingChanged, tree, true, wall, Bound::Most(1.0 / 7.0, 0.1)),
        ("nothing changed, 8 hosts: CPU", Kind::NothingChanged, tree, true, cpu, Bound::Most(1.0 / 7.0, 0.1)),
        ("changed, 8 hosts: wall", Kind::Changed, tree, true, wall, Bound::Most(1.0 / 6.0, 1.0 / 6.0)),
        ("first sync, 8 hosts: wall", Kind::FirstSync, tree, true, wall, Bound::Most(0.6, 0.5)),
        ("first sync, 1 host: wall", Kind::FirstSync, tree, false, wall, Bound::Most(0.8, 0.65)),
        ("edits, 8 hosts: wall", Kind::Edits, big, true, wall, Bound::Most(0.5, 0.3)),
        ("edits, 8 hosts: bytes on the wire", Kind::Edits, big, true, wire, Bound::Most(1.0, 1.0)),
        ("renamed directory, 8 hosts: wall", Kind::RenameDirectory, Source::Album, true, wall, Bound::Open),
        (
            "renamed directory, 8 hosts: bytes on the wire",
            Kind::RenameDirectory,
            Source::Album,
            true,
            wire,
            Bound::Open,
        ),
    ];
    rows.into_iter()
        .map(|(what, kind, source, several, figure, bound)| {
            let outcome = find(outcomes, kind, source, several);
            let ratio = outcome.map(|outcome| outcome.ratio(Contestant::Rfleet, Contestant::Rsync, figure));
            Target::new(format!("{what}, by rsync's"), bound, ratio)
        })
        .collect()
}

fn against_itself(outcomes: &[Outcome]) -> Vec<Target> {
    let unrelated = find(outcomes, Kind::Unrelated, Source::Big, false);
    let speed = unrelated.map(|outcome| outcome.ratio(Contestant::RfleetPlain, Contestant::Rfleet, wall));
    let mut targets = vec![Target::new("unrelated content: speed by that of a plain send", Bound::Least(0.9), speed)];
    for (many, one) in pairs(outcomes) {
        let of = |outcome: &Outcome| outcome.median_of(Contestant::Rfleet, sender_cpu);
        let (name, hosts) = (&many.workload.name, many.workload.hosts);
        let what = format!("{name}: rfleet's own CPU on the primary, {hosts} hosts by 1");
        targets.push(Target::new(what, Bound::Most(1.3, 1.1), Some(of(many) / of(one))));
    }
    let added = find(outcomes, Kind::AddedHosts, Source::Tree, true);
    let read = added.map(Outcome::read_share);
    targets.push(Target::new("hosts added: bytes read by bytes of the source", Bound::Most(1.0, 1.0), read));
    let renamed = find(outcomes, Kind::RenameDirectory, Source::Album, true);
    let seconds = renamed.map(|outcome| outcome.median_of(Contestant::Rfleet, wall));
    targets.push(Target::new("renamed directory, 8 hosts: seconds", Bound::Most(1.0, 1.0), seconds));
    let bytes = renamed.map(|outcome| outcome.median_account(Contestant::Rfleet, |account| account.most_host_bytes));
    let kilobytes = bytes.map(|bytes| bytes / 1e3);
    targets.push(Target::new("renamed directory, 8 hosts: kB to and from one host", Bound::Open, kilobytes));
    targets
}

fn many_files(outcomes: &[Outcome]) -> Vec<Target> {
    let scan = find(outcomes, Kind::NothingChanged, Source::Wide, false);
    let by_walk = |figure| scan.map(|outcome| outcome.ratio(Contestant::Rfleet, Contestant::Walk, figure));
    let mut targets = vec![
        Target::new("1,000,000 files, nothing changed: wall by a bare walk's", Bound::Most(1.3, 1.1), by_walk(wall)),
        Target::new("1,000,000 files, nothing changed: CPU by a bare walk's", Bound::Most(1.3, 1.1), by_walk(cpu)),
    ];
    let first = find(outcomes, Kind::FirstSync, Source::Wide, false);
    for (what, outcome) in [("first sync", first), ("nothing changed", scan)] {
        let peak = |figure| outcome.and_then(|outcome| megabytes(outcome.most(Contestant::Rfleet, figure)));
        let (primary, far) = (peak(|cost| cost.primary_peak_bytes), peak(|cost| cost.far_peak_bytes));
        targets.push(Target::new(
            format!("1,000,000 files, {what}: peak MB primary"),
            Bound::Most(150.0, 150.0),
            primary,
        ));
        targets.push(Target::new(format!("1,000,000 files, {what}: peak MB receiver"), Bound::Most(64.0, 64.0), far));
    }
    targets.push(largest_peak(outcomes, "primary", |cost| cost.primary_peak_bytes, 150.0));
    targets.push(largest_peak(outcomes, "receiver", |cost| cost.far_peak_bytes, 64.0));
    targets
}

fn largest_peak(outcomes: &[Outcome], side: &str, figure: fn(&Cost) -> u64, most: f64) -> Target {
    let peaks = outcomes.iter().map(|outcome| (outcome.most(Contestant::Rfleet, figure), &outcome.workload.name));
    let (peak, name) = peaks.max().map_or((0, "none"), |(peak, name)| (peak, name.as_str()));
    let what = format!("largest peak of all workloads, MB {side} ({name})");
    Target::new(what, Bound::Most(most, most), megabytes(peak))
}

/// None if no process lived long enough to be seen.
fn megabytes(bytes: u64) -> Option<f64> {
    (bytes > 0).then_some(bytes as f64 / 1e6)
}
