//! What is measured: each workload, what it works on, and who takes part.

use crate::args::Scale;
use crate::meter::Cost;
use crate::tools::{Account, Contestant, Tool};

/// What happens before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The hosts have nothing, and rfleet knows nothing.
    FirstSync,
    /// The hosts have nothing and are new to rfleet, which knows the source.
    AddedHosts,
    /// The hosts have everything.
    NothingChanged,
    /// A few files of many have changed.
    Changed,
    /// A directory of many files got another name.
    RenameDirectory,
    /// A big file has small edits.
    Edits,
    /// A big file was replaced by another of the same size.
    Unrelated,
}

/// What is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The tree of a site.
    Tree,
    /// A directory with very many files.
    Album,
    /// A tree of very many tiny files.
    Wide,
    /// One big file.
    Big,
}

impl Source {
    /// The root's name.
    pub fn root(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Album => "album",
            Self::Wide => "wide",
            Self::Big => "big",
        }
    }
}

/// One kind of work on a number of hosts.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What filters and tables call it.
    pub name: String,
    /// What happens before a run.
    pub kind: Kind,
    /// What is synced.
    pub source: Source,
    /// How many hosts take part.
    pub hosts: u64,
}

/// One measured run.
pub struct Run {
    /// Who ran.
    pub contestant: Contestant,
    /// What it cost.
    pub cost: Cost,
    /// What the tool said of it.
    pub account: Account,
}

/// A workload and its runs: one per contestant and round, round by round.
pub struct Outcome {
    /// What was done.
    pub workload: Workload,
    /// Each round's runs.
    pub rounds: Vec<Vec<Run>>,
}

/// Every workload at this scale, source by source.
pub fn all(scale: Scale) -> Vec<Workload> {
    let fleet = scale.hosts;
    let table = [
        ("first-sync", Kind::FirstSync, Source::Tree, 1),
        ("nothing-changed", Kind::NothingChanged, Source::Tree, 1),
        ("changed", Kind::Changed, Source::Tree, 1),
        ("first-sync", Kind::FirstSync, Source::Tree, fleet),
        ("added-hosts", Kind::AddedHosts, Source::Tree, fleet),
        ("nothing-changed", Kind::NothingChanged, Source::Tree, fleet),
        ("changed", Kind::Changed, Source::Tree, fleet),
        ("rename-dir", Kind::RenameDirectory, Source::Album, fleet),
        ("big-tree-first", Kind::FirstSync, Source::Wide, 1),
        ("big-tree-scan", Kind::NothingChanged, Source::Wide, 1),
        ("edits", Kind::Edits, Source::Big, 1),
        ("edits", Kind::Edits, Source::Big, fleet),
        ("unrelated", Kind::Unrelated, Source::Big, 1),
    ];
    let mut workloads: Vec<Workload> = Vec::new();
    for (name, kind, source, hosts) in table {
        let name = if source == Source::Wide { name.to_owned() } else { format!("{name}-{hosts}") };
        if workloads.iter().all(|workload| workload.name != name) {
            workloads.push(Workload { name, kind, source, hosts });
        }
    }
    workloads
}

impl Workload {
    /// Who takes part; with `only`, of that tool.
    pub fn contestants(&self, only: Option<Tool>) -> Vec<Contestant> {
        use Contestant::{Rfleet, RfleetAdhoc, RfleetPlain, Rsync, RsyncLoop, Walk};
        let all: &[Contestant] = match (self.kind, self.source) {
            (Kind::NothingChanged, Source::Wide) => &[Rsync, Rfleet, Walk],
            (Kind::NothingChanged, _) if self.hosts > 1 => &[Rsync, RsyncLoop, Rfleet, RfleetAdhoc],
            (Kind::AddedHosts, _) => &[Rfleet],
            (Kind::Unrelated, _) => &[Rsync, Rfleet, RfleetPlain],
            _ => &[Rsync, Rfleet],
        };
        all.iter().copied().filter(|contestant| only.is_none_or(|tool| tool == contestant.tool())).collect()
    }

    /// One run of each contestant that does not count: programs and pages are then in memory. Not where a run takes
    /// so long that this drowns.
    pub fn warms_up(&self) -> bool {
        match self.kind {
            Kind::FirstSync => self.hosts == 1 && self.source != Source::Wide,
            Kind::NothingChanged | Kind::Changed => true,
            Kind::Edits | Kind::Unrelated => self.hosts == 1,
            Kind::AddedHosts | Kind::RenameDirectory => false,
        }
    }

    /// Of several rounds, how many this workload needs: a first sync of the big tree is there for its memory, which does
    /// not vary.
    pub fn rounds(&self, asked: u64) -> u64 {
        if self.kind == Kind::FirstSync && self.source == Source::Wide { 1 } else { asked }
    }

    /// Bytes of memory that so many copies take, the source being one: old and new ones at once where both must exist
    /// for a time.
    pub fn memory_bytes(&self, scale: Scale, copies: u64) -> u64 {
        match self.source {
            // 8.2 kB of content a file, and what the filesystem adds.
            Source::Tree => scale.files.saturating_mul(13_000).saturating_mul(copies),
            // A page and an inode each; rsync makes the new ones before it deletes the old.
            Source::Album => scale.files.saturating_mul(6_000).saturating_mul(2 * copies),
            Source::Wide => scale.wide_files().saturating_mul(6_000).saturating_mul(copies),
            Source::Big => scale.big_bytes.saturating_mul(2 * copies),
        }
    }
}
