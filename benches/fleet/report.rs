//! The figures as tables: aligned for a terminal, and as Markdown for the documentation.

use crate::meter::Cost;
use crate::tools::{Contestant, Tool};
use crate::workload::Outcome;

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

/// The middle of some figures; of an even number of them, the mean of the middle two. NaN for none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

impl Outcome {
    fn costs(&self, contestant: Contestant) -> impl Iterator<Item = &Cost> {
        self.rounds.iter().flatten().filter(move |run| run.contestant == contestant).map(|run| &run.cost)
    }

    /// The contestants, in the order of the first round.
    fn contestants(&self) -> Vec<Contestant> {
        self.rounds.first().into_iter().flatten().map(|run| run.contestant).collect()
    }

    fn median_of(&self, contestant: Contestant, figure: fn(&Cost) -> f64) -> f64 {
        median(self.costs(contestant).map(figure))
    }

    /// The median over the rounds of a figure of `above` by that of `below` in the same round.
    fn ratio(&self, above: Contestant, below: Contestant, figure: fn(&Cost) -> f64) -> f64 {
        median(self.costs(above).zip(self.costs(below)).map(|(above, below)| figure(above) / figure(below)))
    }

    fn row(&self, contestant: Contestant) -> Vec<String> {
        let of = |figure| self.median_of(contestant, figure);
        let walls = || self.costs(contestant).map(|cost| cost.wall_seconds);
        let (least, most) = (walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max));
        let own = self.rounds.iter().flatten().filter(|run| run.contestant == contestant);
        let own = median(own.filter_map(|run| Some(run.own_bytes? as f64 / 1e6)));
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

fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "-".into() }
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
    let widths: Vec<usize> =
        (0..TITLES.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>, separator: &str| {
        let cells = row.iter().zip(&widths).enumerate();
        let padded = cells.map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join(separator)
    };
    let plain: String = rows.iter().map(|row| line(row, "  ").trim_end().to_owned() + "\n").collect();
    let rule: Vec<String> =
        (0..TITLES.len()).map(|column| if column < 2 { "---".to_owned() } else { "---:".to_owned() }).collect();
    rows.insert(1, rule);
    let markdown: String = rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    format!("{plain}\n{}\n\n{markdown}", comparisons(outcomes).join("\n"))
}

/// What a single row cannot say.
fn comparisons(outcomes: &[Outcome]) -> Vec<String> {
    let mut lines = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.contestants().contains(&Contestant::RfleetPlain)) {
        let speed = outcome.ratio(Contestant::RfleetPlain, Contestant::Rfleet, |cost| cost.wall_seconds);
        lines.push(format!("{}: speed relative to rfleet's plain first send: {speed:.2}", outcome.workload.name));
    }
    for many in outcomes.iter().filter(|outcome| outcome.workload.hosts > 1) {
        let work = many.workload.name.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit());
        let Some(one) = outcomes.iter().find(|outcome| outcome.workload.name == format!("{work}-1")) else { continue };
        for contestant in many.contestants().into_iter().filter(|contestant| one.contestants().contains(contestant)) {
            let sender = |outcome: &Outcome| outcome.median_of(contestant, |cost| cost.sender_cpu_seconds);
            let name = if contestant.tool() == Tool::Rsync { "rsync" } else { "rfleet" };
            let (ratio, hosts) = (sender(many) / sender(one), many.workload.hosts);
            lines.push(format!("{work}: {name}'s own CPU on the primary, {hosts} hosts by 1: {}", number(ratio, 2)));
        }
    }
    lines
}
