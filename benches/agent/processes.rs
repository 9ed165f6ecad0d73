//! The processes of a fleet, by what they are: their processor time, memory and open files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::meter::{Accounting, Side, Stat};

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The agent.
    Agent,
    /// An ssh client of the agent's, its masters too.
    Ssh,
    /// A receiver.
    Receiver,
    /// sshd, its sessions, and the shells in them.
    Sshd,
}

/// All of them, as the tables list them.
pub const KINDS: [(Kind, &str); 4] =
    [(Kind::Agent, "agent"), (Kind::Ssh, "ssh"), (Kind::Receiver, "receivers"), (Kind::Sshd, "sshd")];

/// The processes that run now.
pub fn all(accounting: &Accounting, agent: u32) -> Vec<(u32, Kind)> {
    let near = accounting.members(Side::Primary).into_iter().map(|pid| match pid {
        pid if pid == agent => (pid, Kind::Agent),
        pid => (pid, Kind::Ssh),
    });
    let far = accounting.members(Side::Far).into_iter().map(|pid| match is_receiver(pid) {
        true => (pid, Kind::Receiver),
        false => (pid, Kind::Sshd),
    });
    near.chain(far).collect()
}

/// The arguments of a process, one string; empty if it is gone.
fn arguments(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// Whether it is a receiver: not the shell that starts one, which names it too.
fn is_receiver(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    !name.starts_with("sh") && arguments(pid).split_whitespace().nth(1) == Some("receive")
}

/// The receivers whose copy is `copy`.
pub fn receivers_of(accounting: &Accounting, copy: &Path) -> Vec<u32> {
    let named = format!("={}", copy.display());
    let mut found = accounting.members(Side::Far);
    found.retain(|pid| is_receiver(*pid) && arguments(*pid).contains(&named));
    found
}

/// Processor time of each process so far, in seconds.
pub struct Times(HashMap<u32, (Kind, f64)>);

impl Times {
    /// Of all that run now.
    pub fn take(accounting: &Accounting, agent: u32) -> Self {
        let stat = |(pid, kind)| Some((pid, (kind, Stat::read(pid)?.own_seconds)));
        Self(all(accounting, agent).into_iter().filter_map(stat).collect())
    }

    /// What those of this kind have used since `before`, and how many they are now. What has ended since is not
    /// counted.
    pub fn since(&self, before: &Self, kind: Kind) -> (f64, usize) {
        let of_kind = self.0.iter().filter(|(_, (own, _))| *own == kind);
        let spent = of_kind.map(|(pid, (_, seconds))| seconds - before.0.get(pid).map_or(0.0, |(_, before)| *before));
        let spent: Vec<f64> = spent.collect();
        (spent.iter().sum(), spent.len())
    }
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Its resident set.
    pub resident: f64,
    /// What of it is its own: no file, nothing shared.
    pub own: f64,
    /// The largest resident set that it has had.
    pub peak: f64,
}

impl Memory {
    /// That of a process that is there.
    pub fn read(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such line in its status")?;
            anyhow::Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
        };
        Ok(Self { resident: figure("VmRSS:")?, own: figure("RssAnon:")?, peak: figure("VmHWM:")? })
    }
}

/// Open files of a process.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Bytes of the files in a directory and below.
pub fn directory_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(seen) if seen.is_dir() => directory_bytes(&entry.path()),
        Ok(seen) => seen.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
