//! What is measured: each workload, what it needs before a run, and its rounds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::args::Scale;
use crate::meter::Cost;
use crate::random::Random;
use crate::tools::{Bench, Contestant, Tool, host_name};
use crate::tree::{self, Tree};

/// Small edits made to the big file before each run.
const EDITS: u64 = 64;

/// What happens between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The hosts have nothing.
    FirstSync,
    /// The hosts have everything.
    NothingChanged,
    /// A few files of many have changed.
    Changed,
    /// A big file has small edits.
    Edits,
    /// A big file was replaced by another of the same size.
    Unrelated,
}

/// One kind of work on a number of hosts.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What filters and tables call it.
    pub name: String,
    kind: Kind,
    /// How many hosts take part.
    pub hosts: u64,
}

/// One measured run.
pub struct Run {
    /// Who ran.
    pub contestant: Contestant,
    /// What it cost.
    pub cost: Cost,
    /// Bytes on the wire by the tool's own account.
    pub own_bytes: Option<u64>,
}

/// A workload and its runs: one per contestant and round, round by round.
pub struct Outcome {
    /// What was done.
    pub workload: Workload,
    /// Each round's runs.
    pub rounds: Vec<Vec<Run>>,
}

/// Every workload at this scale, in the order that needs the least memory.
pub fn all(scale: Scale) -> Vec<Workload> {
    let fleet = scale.hosts;
    let table = [
        ("first-sync", Kind::FirstSync, 1),
        ("nothing-changed", Kind::NothingChanged, 1),
        ("first-sync", Kind::FirstSync, fleet),
        ("nothing-changed", Kind::NothingChanged, fleet),
        ("changed", Kind::Changed, fleet),
        ("edits", Kind::Edits, 1),
        ("edits", Kind::Edits, fleet),
        ("unrelated", Kind::Unrelated, 1),
    ];
    let mut workloads: Vec<Workload> = Vec::new();
    for (name, kind, hosts) in table {
        let name = format!("{name}-{hosts}");
        if workloads.iter().all(|workload| workload.name != name) {
            workloads.push(Workload { name, kind, hosts });
        }
    }
    workloads
}

impl Workload {
    /// Does it work on the big file, or on the tree?
    fn is_big(&self) -> bool {
        matches!(self.kind, Kind::Edits | Kind::Unrelated)
    }

    fn contestants(&self, only: Option<Tool>) -> Vec<Contestant> {
        let all: &[Contestant] = match self.kind {
            Kind::NothingChanged if self.hosts > 1 => &[Contestant::Rsync, Contestant::RsyncLoop, Contestant::Rfleet],
            Kind::Unrelated => &[Contestant::Rsync, Contestant::Rfleet, Contestant::RfleetPlain],
            _ => &[Contestant::Rsync, Contestant::Rfleet],
        };
        all.iter().copied().filter(|contestant| only.is_none_or(|tool| tool == contestant.tool())).collect()
    }

    /// One run of each contestant that does not count: programs and pages are then in memory. Not where a run takes
    /// so long that this drowns.
    fn warms_up(&self) -> bool {
        self.hosts == 1 || matches!(self.kind, Kind::NothingChanged | Kind::Changed)
    }
}

/// The stage the workloads play on; it makes what they need when they need it.
pub struct Stage<'a> {
    bench: &'a Bench,
    scale: Scale,
    only: Option<Tool>,
    seed: u64,
    random: Random,
    tree: Option<Tree>,
    big: PathBuf,
}

impl<'a> Stage<'a> {
    /// An empty stage.
    pub fn new(bench: &'a Bench, scale: Scale, seed: u64, only: Option<Tool>) -> Self {
        let big = bench.dir.join("big/dump.bin");
        Self { bench, scale, only, seed, random: Random::new(seed ^ 0xC0FF_EE00), tree: None, big }
    }

    /// Run a workload to its end.
    pub fn play(&mut self, workload: &Workload) -> Result<Outcome> {
        self.set(workload)?;
        let mut contestants = workload.contestants(self.only);
        let mut outcome = Outcome { workload: workload.clone(), rounds: Vec::new() };
        if workload.warms_up() {
            for contestant in &contestants {
                self.run(workload, *contestant).with_context(|| format!("{}, warming up", workload.name))?;
            }
        }
        for number in 1..=self.scale.rounds {
            let mut round = Vec::new();
            for contestant in &contestants {
                let run =
                    self.run(workload, *contestant).with_context(|| format!("{}, round {number}", workload.name))?;
                let label = contestant.label(workload.hosts);
                let Cost { wall_seconds, cpu_seconds, .. } = run.cost;
                eprintln!("  {} round {number}: {label}: {wall_seconds:.3} s, CPU {cpu_seconds:.2} s", workload.name);
                self.judge(workload, number == 1)?;
                round.push(run);
            }
            outcome.rounds.push(round);
            contestants.rotate_left(1);
        }
        Ok(outcome)
    }

    /// Make what the workload starts from.
    fn set(&mut self, workload: &Workload) -> Result<()> {
        if workload.is_big() {
            // The trees go first: both at once need more memory than many machines have.
            if let Some(tree) = self.tree.take() {
                fs::remove_dir_all(tree.path)?;
                self.empty_hosts("tree", self.scale.hosts)?;
            }
            // Old copies, and the new ones that a tool makes beside them, on every host.
            self.need_room(self.scale.big_bytes.saturating_mul(workload.hosts * 2 + 2))?;
            if !self.big.exists() {
                tree::big_file(&self.big, self.scale.big_bytes, &mut self.random)?;
            }
        } else if self.tree.is_none() {
            // 8.2 kB a file, and what the filesystem adds.
            self.need_room(self.scale.files.saturating_mul(13_000).saturating_mul(workload.hosts + 1))?;
            let tree = tree::cms(&self.bench.dir.join("tree"), self.scale.files, self.seed)?;
            let (files, directories, megabytes) = (tree.files.len(), tree.directories, tree.bytes / 1_000_000);
            eprintln!("  the tree: {files} files, {directories} directories, {megabytes} MB");
            self.tree = Some(tree);
        }
        if !matches!(workload.kind, Kind::FirstSync) {
            self.bench.make_equal(self.source(workload), root(workload), workload.hosts)?;
        }
        Ok(())
    }

    /// Prepare the next run, then run it.
    fn run(&mut self, workload: &Workload, contestant: Contestant) -> Result<Run> {
        match workload.kind {
            Kind::FirstSync => self.empty_hosts(root(workload), workload.hosts)?,
            Kind::NothingChanged => {}
            Kind::Changed => {
                let tree = self.tree.as_ref().context("no tree")?;
                tree::change_files(tree, self.scale.changed, &mut self.random)?;
            }
            Kind::Edits => tree::edit_big_file(&self.big, EDITS, &mut self.random)?,
            Kind::Unrelated => {
                tree::big_file(&self.big, self.scale.big_bytes, &mut self.random)?;
                if contestant == Contestant::RfleetPlain {
                    self.empty_hosts(root(workload), workload.hosts)?;
                }
            }
        }
        let source = self.source(workload);
        let (cost, own_bytes) = self.bench.run(contestant, source, root(workload), workload.hosts)?;
        Ok(Run { contestant, cost, own_bytes })
    }

    /// A benchmark of a wrong result is worthless: every byte of the first round's results is compared, and of later
    /// ones all that can be seen without reading contents.
    fn judge(&self, workload: &Workload, contents: bool) -> Result<()> {
        self.bench.judge(self.source(workload), root(workload), workload.hosts, contents)
    }

    fn source(&self, workload: &Workload) -> &Path {
        match &self.tree {
            Some(tree) if !workload.is_big() => &tree.path,
            _ => self.big.parent().unwrap_or(&self.big),
        }
    }

    /// Leave an empty directory where each host has its copy of `root`.
    fn empty_hosts(&self, root: &str, hosts: u64) -> Result<()> {
        for number in 1..=hosts {
            let target = self.bench.destination(&host_name(number), root);
            if target.exists() {
                fs::remove_dir_all(&target).with_context(|| format!("cannot empty {}", target.display()))?;
            }
            fs::create_dir_all(&target)?;
        }
        Ok(())
    }

    /// Fail if less than `bytes` are free; what the hosts hold already counts as free.
    fn need_room(&self, bytes: u64) -> Result<()> {
        let filesystem = rustix::fs::statvfs(&self.bench.dir)?;
        let free = filesystem.f_bavail.saturating_mul(filesystem.f_frsize);
        let memory = fs::read_to_string("/proc/meminfo")?;
        let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
        let available = line.trim().trim_end_matches(" kB").parse::<u64>()?.saturating_mul(1024);
        let (need, have) = (bytes / 1_000_000, free.min(available) / 1_000_000);
        ensure!(need <= have, "needs {need} MB in memory, {have} MB are free: try --files, --big-mb or --hosts");
        Ok(())
    }
}

/// The name of the root that a workload syncs.
fn root(workload: &Workload) -> &'static str {
    if workload.is_big() { "big" } else { "tree" }
}
