//! The stage that workloads play on: sources, hosts and what rfleet knows of them, made and changed between the runs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::args::Scale;
use crate::many;
use crate::meter::Cost;
use crate::random::Random;
use crate::tools::{Bench, Contestant, Job, Tool, host_name};
use crate::tree::{self, Tree};
use crate::workload::{Kind, Outcome, Run, Source, Workload};

/// Small edits made to the big file before each run.
const EDITS: u64 = 64;

/// The big file's name.
const BIG: &str = "dump.bin";

/// Makes what workloads need when they need it.
pub struct Stage<'a> {
    bench: &'a Bench,
    scale: Scale,
    only: Option<Tool>,
    seed: u64,
    random: Random,
    /// What is synced now. One source at a time: all at once need more memory than many machines have.
    current: Option<(Source, Tree)>,
    /// Hosts that may have a copy of it.
    copies: u64,
    /// Times that the album was renamed.
    renames: u64,
    /// Does rfleet know what the hosts have?
    knows: bool,
}

impl<'a> Stage<'a> {
    /// An empty stage.
    pub fn new(bench: &'a Bench, scale: Scale, seed: u64, only: Option<Tool>) -> Self {
        let random = Random::new(seed ^ 0xC0FF_EE00);
        Self { bench, scale, only, seed, random, current: None, copies: 0, renames: 0, knows: false }
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
        for number in 1..=workload.rounds(self.scale.rounds) {
            let mut round = Vec::new();
            for contestant in &contestants {
                let run =
                    self.run(workload, *contestant).with_context(|| format!("{}, round {number}", workload.name))?;
                let label = contestant.label(workload.hosts);
                let Cost { wall_seconds, cpu_seconds, .. } = run.cost;
                eprintln!("  {} round {number}: {label}: {wall_seconds:.3} s, CPU {cpu_seconds:.2} s", workload.name);
                if *contestant != Contestant::Walk {
                    // A benchmark of a wrong result is worthless: every byte of the first round's results is compared,
                    // and of later ones all that can be seen without reading contents.
                    self.bench.judge(&job(self.source()?, workload), number == 1)?;
                }
                round.push(run);
            }
            outcome.rounds.push(round);
            contestants.rotate_left(1);
        }
        Ok(outcome)
    }

    fn source(&self) -> Result<&Tree> {
        self.current.as_ref().map(|(_, tree)| tree).context("nothing is on stage")
    }

    /// Make what the workload starts from.
    fn set(&mut self, workload: &Workload) -> Result<()> {
        self.bench.disconnect()?;
        self.bench.forget()?;
        self.knows = false;
        if self.current.as_ref().is_none_or(|(source, _)| *source != workload.source) {
            if let Some((old, tree)) = self.current.take() {
                fs::remove_dir_all(tree.path)?;
                self.remove_copies(old, self.copies)?;
                self.copies = 0;
            }
            self.need_room(workload.memory_bytes(self.scale, workload.hosts + 1))?;
            let tree = self.make(workload.source)?;
            let Tree { directories, bytes, .. } = tree;
            eprintln!("  the source: {directories} directories, {:.1} MB", bytes as f64 / 1e6);
            self.current = Some((workload.source, tree));
        } else {
            self.need_room(workload.memory_bytes(self.scale, workload.hosts.saturating_sub(self.copies)))?;
        }
        self.copies = self.copies.max(workload.hosts);
        match workload.kind {
            Kind::FirstSync => {}
            Kind::AddedHosts => self.know_without(workload)?,
            _ => {
                // What another workload's index called their state says nothing to this one's.
                self.remove_records(workload)?;
                self.bench.make_equal(&job(self.source()?, workload))?;
            }
        }
        Ok(())
    }

    fn make(&mut self, source: Source) -> Result<Tree> {
        let path = self.bench.dir.join("source").join(source.root());
        fs::create_dir_all(path.parent().context("a source lies in a directory")?)?;
        match source {
            Source::Tree => tree::cms(&path, self.scale.files, self.seed),
            Source::Album => {
                self.renames = 0;
                many::album(&path, self.scale.files, self.seed)
            }
            Source::Wide => many::wide(&path, self.scale.wide_files(), self.seed),
            Source::Big => {
                let file = path.join(BIG);
                tree::big_file(&file, self.scale.big_bytes, &mut self.random)?;
                Ok(Tree { path, files: vec![file], directories: 1, bytes: self.scale.big_bytes })
            }
        }
    }

    /// Let rfleet know the source from a push to a host that takes no part.
    fn know_without(&self, workload: &Workload) -> Result<()> {
        self.remove_copies(workload.source, workload.hosts)?;
        let (source, root, other) = (&self.source()?.path, workload.source.root(), workload.hosts + 1);
        let target = self.bench.destination(&host_name(other), root);
        fs::create_dir_all(&target)?;
        self.bench.learn(&Job { source, root, hosts: other..=other })?;
        fs::remove_dir_all(target)?;
        self.bench.disconnect()?;
        self.bench.keep()
    }

    /// Prepare the next run, then run it.
    fn run(&mut self, workload: &Workload, contestant: Contestant) -> Result<Run> {
        match (workload.kind, contestant) {
            (Kind::FirstSync | Kind::AddedHosts, _) => {
                self.empty_hosts(workload)?;
                self.bench.disconnect()?;
                if workload.kind == Kind::AddedHosts { self.bench.recall()? } else { self.bench.forget()? }
            }
            (_, Contestant::RfleetPlain) => {
                // With the connections that other runs have left: what differs is what the hosts have.
                self.empty_hosts(workload)?;
                self.bench.forget()?;
            }
            (_, Contestant::RfleetAdhoc) => {
                self.remove_records(workload)?;
                self.knows = false;
            }
            (_, Contestant::Rfleet) if !self.knows => self.bench.learn(&job(self.source()?, workload))?,
            _ => {}
        }
        if contestant != Contestant::Walk {
            self.change(workload)?;
        }
        let (cost, account) = self.bench.run(contestant, &job(self.source()?, workload))?;
        self.knows = match contestant {
            Contestant::Rfleet | Contestant::RfleetPlain => true,
            _ => self.knows && workload.kind == Kind::NothingChanged,
        };
        Ok(Run { contestant, cost, account })
    }

    /// Change the source as the workload has it.
    fn change(&mut self, workload: &Workload) -> Result<()> {
        let (_, source) = self.current.as_ref().context("nothing is on stage")?;
        match workload.kind {
            Kind::FirstSync | Kind::AddedHosts | Kind::NothingChanged => {}
            Kind::Changed => tree::change_files(source, self.scale.changed, &mut self.random)?,
            Kind::RenameDirectory => {
                let name = |number| source.path.join(format!("album-{number}"));
                fs::rename(name(self.renames), name(self.renames + 1))?;
                self.renames += 1;
            }
            Kind::Edits => tree::edit_big_file(&source.path.join(BIG), EDITS, &mut self.random)?,
            Kind::Unrelated => tree::big_file(&source.path.join(BIG), self.scale.big_bytes, &mut self.random)?,
        }
        Ok(())
    }

    /// Leave an empty directory where each host has its copy.
    fn empty_hosts(&mut self, workload: &Workload) -> Result<()> {
        self.remove_copies(workload.source, workload.hosts)?;
        self.knows = false;
        for number in 1..=workload.hosts {
            fs::create_dir_all(self.bench.destination(&host_name(number), workload.source.root()))?;
        }
        Ok(())
    }

    fn remove_copies(&self, source: Source, hosts: u64) -> Result<()> {
        (1..=hosts).try_for_each(|number| remove(&self.bench.destination(&host_name(number), source.root())))
    }

    /// Remove what rfleet keeps in the copies.
    fn remove_records(&self, workload: &Workload) -> Result<()> {
        let copies = (1..=workload.hosts).map(|number| (host_name(number), workload.source.root()));
        copies.into_iter().try_for_each(|(host, root)| remove(&self.bench.destination(&host, root).join(".rfleet")))
    }

    /// Fail if less than `bytes` are free.
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

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// What a workload has the tools do.
fn job<'a>(source: &'a Tree, workload: &Workload) -> Job<'a> {
    Job { source: &source.path, root: workload.source.root(), hosts: 1..=workload.hosts }
}
