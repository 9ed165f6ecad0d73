//! The figures as tables: aligned for a terminal, and as Markdown for the documentation.

use crate::figures::{median, number, table};
use crate::meter::Cost;
use crate::tools::{Account, Contestant};
use crate::workload::{Kind, Outcome, Run};

const TITLES: [&str; 12] = [
    "workload",
    "tool",
    "wall s (min-max)",
    "CPU s",
    "sender CPU s",
    "peak MB primary",
    "peak MB far",
    "wire MB",
    "own MB",
    "wall ratio",
    "CPU ratio",
    "others %",
];

impl Outcome {
    fn runs(&self, contestant: Contestant) -> impl Iterator<Item = &Run> {
        self.rounds.iter().flatten().filter(move |run| run.contestant == contestant)
    }

    fn costs(&self, contestant: Contestant) -> impl Iterator<Item = &Cost> {
        self.runs(contestant).map(|run| &run.cost)
    }

    /// The contestants, in the order of the first round.
    fn contestants(&self) -> Vec<Contestant> {
        self.rounds.first().into_iter().flatten().map(|run| run.contestant).collect()
    }

    /// The median over the rounds of a figure.
    pub fn median_of(&self, contestant: Contestant, figure: fn(&Cost) -> f64) -> f64 {
        median(self.costs(contestant).map(figure))
    }

    /// The median over the rounds of a figure of `above` by that of `below` in the same round.
    pub fn ratio(&self, above: Contestant, below: Contestant, figure: fn(&Cost) -> f64) -> f64 {
        median(self.costs(above).zip(self.costs(below)).map(|(above, below)| figure(above) / figure(below)))
    }

    /// The largest of all rounds.
    pub fn most(&self, contestant: Contestant, figure: fn(&Cost) -> u64) -> u64 {
        self.costs(contestant).map(figure).max().unwrap_or(0)
    }

    /// The median over the rounds of a figure that the tool itself gave.
    pub fn median_account(&self, contestant: Contestant, figure: fn(&Account) -> Option<u64>) -> f64 {
        median(self.runs(contestant).filter_map(|run| Some(figure(&run.account)? as f64)))
    }

    /// Content that rfleet read by what the source has: 1 if each byte was read once, however many hosts received it.
    pub fn read_share(&self) -> f64 {
        let of = |figure| self.median_account(Contestant::Rfleet, figure);
        of(|account| account.read_bytes) / of(|account| account.source_bytes)
    }

    fn row(&self, contestant: Contestant) -> Vec<String> {
        let of = |figure| self.median_of(contestant, figure);
        let walls = || self.costs(contestant).map(|cost| cost.wall_seconds);
        let (least, most) = (walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max));
        let own = self.median_account(contestant, |account| account.bytes) / 1e6;
        let ratio = |figure| match contestant {
            Contestant::Rsync => String::new(),
            _ => number(self.ratio(contestant, Contestant::Rsync, figure), 3),
        };
        vec![
            self.workload.name.clone(),
            contestant.label(self.workload.hosts),
            format!("{:.3} ({least:.3}-{most:.3})", of(|cost| cost.wall_seconds)),
            number(of(|cost| cost.cpu_seconds), 3),
            number(of(|cost| cost.sender_cpu_seconds), 2),
            seen(of(|cost| cost.primary_peak_bytes as f64 / 1e6)),
            seen(of(|cost| cost.far_peak_bytes as f64 / 1e6)),
            number(of(|cost| cost.wire_bytes as f64 / 1e6), 3),
            number(own, 3),
            ratio(|cost| cost.wall_seconds),
            ratio(|cost| cost.cpu_seconds),
            number(100.0 * of(|cost| cost.foreign_share), 0),
        ]
    }
}

/// A peak in megabytes; none if the sampler came too late to see a process.
fn seen(megabytes: f64) -> String {
    if megabytes > 0.0 { number(megabytes, 1) } else { "-".into() }
}

/// Both tables, and the comparisons that span more than a row.
pub fn render(outcomes: &[Outcome]) -> String {
    let mut rows = vec![TITLES.map(String::from).to_vec()];
    for outcome in outcomes {
        rows.extend(outcome.contestants().into_iter().map(|contestant| outcome.row(contestant)));
    }
    let (plain, markdown) = table(&rows, 2);
    format!("{plain}\n{}\n\n{markdown}", comparisons(outcomes).join("\n"))
}

/// Pairs of workloads that differ only in the number of hosts, those with several first.
pub fn pairs(outcomes: &[Outcome]) -> impl Iterator<Item = (&Outcome, &Outcome)> {
    outcomes.iter().filter(|many| many.workload.hosts > 1).filter_map(|many| {
        let like = |one: &&Outcome| {
            (one.workload.kind, one.workload.source, one.workload.hosts)
                == (many.workload.kind, many.workload.source, 1)
        };
        Some((many, outcomes.iter().find(like)?))
    })
}

/// What a single row cannot say.
fn comparisons(outcomes: &[Outcome]) -> Vec<String> {
    let mut lines = Vec::new();
    for outcome in outcomes {
        let (name, contestants) = (&outcome.workload.name, outcome.contestants());
        let ratio = |above, below, figure| number(outcome.ratio(above, below, figure), 2);
        if contestants.contains(&Contestant::RfleetPlain) {
            let speed = ratio(Contestant::RfleetPlain, Contestant::Rfleet, |cost| cost.wall_seconds);
            lines.push(format!("{name}: speed relative to rfleet's plain first send: {speed}"));
        }
        let walks = contestants.contains(&Contestant::Walk);
        for contestant in contestants.iter().copied().filter(|other| walks && *other != Contestant::Walk) {
            let by_walk = |figure| ratio(contestant, Contestant::Walk, figure);
            let label = contestant.label(outcome.workload.hosts);
            let (wall, cpu) = (by_walk(|cost| cost.wall_seconds), by_walk(|cost| cost.cpu_seconds));
            let sender = by_walk(|cost| cost.sender_cpu_seconds);
            lines.push(format!("{name}: {label} by the bare walk: wall {wall}, CPU {cpu}, sender CPU {sender}"));
        }
        if outcome.workload.kind == Kind::AddedHosts {
            let times = number(outcome.read_share(), 3);
            lines.push(format!("{name}: bytes read by bytes of the source, for all hosts together: {times}"));
        }
        if outcome.workload.kind == Kind::RenameDirectory {
            for contestant in contestants {
                let bytes = number(outcome.median_account(contestant, |account| account.most_host_bytes) / 1e3, 1);
                lines.push(format!("{name}: {}, kB to and from one host: {bytes}", contestant.label(1)));
            }
        }
    }
    for (many, one) in pairs(outcomes) {
        for contestant in many.contestants().into_iter().filter(|contestant| one.contestants().contains(contestant)) {
            let sender = |outcome: &Outcome| outcome.median_of(contestant, |cost| cost.sender_cpu_seconds);
            let (ratio, hosts) = (number(sender(many) / sender(one), 2), many.workload.hosts);
            let (name, label) = (&many.workload.name, contestant.label(1));
            lines.push(format!("{name}: {label}'s own CPU on the primary, {hosts} hosts by 1: {ratio}"));
        }
    }
    lines
}
