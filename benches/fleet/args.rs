//! What the command line of the bench says, and the two scales it runs at.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::tools::Tool;

/// Measure rfleet against rsync, in the same run, over a real sshd on loopback.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench fleet --")]
pub struct Args {
    /// Run only the workloads whose name contains one of these words
    pub filters: Vec<String>,
    /// Regular files in the CMS-like tree; in a renamed directory as many, in the big tree ten times as many [default: 100000]
    #[arg(long)]
    files: Option<u64>,
    /// Size of the big file in megabytes (10^6) [default: 1000]
    #[arg(long)]
    big_mb: Option<u64>,
    /// Hosts of the fleet workloads [default: 8]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    hosts: Option<u64>,
    /// Measured rounds of each workload [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: Option<u64>,
    /// Files changed before each run of the "changed" workload [default: 100]
    #[arg(long)]
    changed: Option<u64>,
    /// Seed of all generated content
    #[arg(long, default_value_t = 20_190_101)]
    pub seed: u64,
    /// Measure one tool only
    #[arg(long, value_enum)]
    pub only: Option<Tool>,
    /// Where the trees go: a filesystem in memory, or the bench measures the disk
    #[arg(long, default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Use another build of rfleet instead of the one cargo just made
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rfleet"))]
    pub rfleet: PathBuf,
    /// Use another rsync than the one in PATH, on both sides
    #[arg(long)]
    rsync: Option<PathBuf>,
    /// Print the names of the workloads and stop
    #[arg(long)]
    pub list: bool,
    /// Walk this tree, print how many entries it has, and stop: what a scan is compared with
    #[arg(long, hide = true)]
    pub walk: Option<PathBuf>,
    /// What cargo adds for `cargo bench`; without it everything is scaled down to a smoke test
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much work a run does.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Regular files in the tree.
    pub files: u64,
    /// Size of the big file in bytes.
    pub big_bytes: u64,
    /// Hosts of the fleet workloads.
    pub hosts: u64,
    /// Measured rounds.
    pub rounds: u64,
    /// Files changed before a run of the "changed" workload.
    pub changed: u64,
}

impl Scale {
    /// Regular files in the tree that is big by their number.
    pub fn wide_files(self) -> u64 {
        self.files.saturating_mul(10)
    }

    /// Do the targets speak of this scale?
    pub fn is_full(self) -> bool {
        self.files == 100_000 && self.big_bytes == 1_000_000_000 && self.hosts == 8 && self.changed == 100
    }
}

impl Args {
    /// True when `cargo test --all-targets` and not `cargo bench` started this program.
    pub fn is_smoke_test(&self) -> bool {
        !self.bench
    }

    /// The rsync to compare with: a path, or a name to look for.
    pub fn rsync(&self) -> &Path {
        self.rsync.as_deref().unwrap_or(Path::new("rsync"))
    }

    /// The scale asked for: the full one under `cargo bench`, a few seconds' worth otherwise.
    pub fn scale(&self) -> Scale {
        let default = if self.bench {
            Scale { files: 100_000, big_bytes: 1_000_000_000, hosts: 8, rounds: 3, changed: 100 }
        } else {
            Scale { files: 300, big_bytes: 4_000_000, hosts: 2, rounds: 1, changed: 10 }
        };
        Scale {
            files: self.files.unwrap_or(default.files).max(1),
            big_bytes: self.big_mb.map_or(default.big_bytes, |mb| mb.max(1).saturating_mul(1_000_000)),
            hosts: self.hosts.unwrap_or(default.hosts),
            rounds: self.rounds.unwrap_or(default.rounds),
            changed: self.changed.unwrap_or(default.changed),
        }
    }
}
