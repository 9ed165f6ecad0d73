//! What the command line of the bench says, and the two scales it runs at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

/// Measure `rfleet agent` over a real sshd on loopback; its latency also against lsyncd.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench agent --")]
pub struct Args {
    /// Run only the workloads whose name contains one of these words
    pub filters: Vec<String>,
    /// Hosts of the fleet [default: 8]
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=64))]
    hosts: Option<u16>,
    /// Measured rounds of the latency workloads [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: Option<u64>,
    /// Files that a round of `latency` writes with rfleet; with lsyncd a fifth of it [default: 200]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    samples: Option<u64>,
    /// Files of the idle tree [default: 100000]
    #[arg(long)]
    files: Option<u64>,
    /// How long to look, in seconds: `idle` 200, `load` 60, `soak` 1200, each part of `sick` 40, if it is not given
    #[arg(long)]
    seconds: Option<u64>,
    /// Files a second of `load` [default: 2000]
    #[arg(long)]
    rate: Option<u64>,
    /// Seed of all generated content
    #[arg(long, default_value_t = 20_190_101)]
    pub seed: u64,
    /// Where the trees go: a filesystem in memory, or the bench measures the disk
    #[arg(long, default_value = "/dev/shm")]
    pub dir: PathBuf,
    /// Use another build of rfleet instead of the one cargo just made
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rfleet"))]
    pub rfleet: PathBuf,
    /// Use another rsync than the one in PATH
    #[arg(long, default_value = "rsync")]
    rsync: PathBuf,
    /// Measure rfleet alone
    #[arg(long)]
    pub only_rfleet: bool,
    /// Further lines of the agent's `[push]` table
    #[arg(long, default_value = "")]
    pub push: String,
    /// Print the names of the workloads and stop
    #[arg(long)]
    pub list: bool,
    /// What cargo adds for `cargo bench`; without it everything is scaled down to a smoke test
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much work a run does.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Hosts of the fleet.
    pub hosts: usize,
    /// Rounds of the latency workloads.
    pub rounds: u64,
    /// Files that a round of `latency` writes.
    pub samples: u64,
    /// Files of the idle tree.
    pub files: u64,
    /// Files a second of `load`.
    pub rate: u64,
    seconds: Option<u64>,
    is_smoke_test: bool,
}

impl Scale {
    /// How long a workload looks that takes `seconds` at the full scale.
    pub fn span(self, seconds: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.is_smoke_test { 2 } else { seconds }))
    }
}

impl Args {
    /// True when `cargo test --all-targets` and not `cargo bench` started this program.
    pub fn is_smoke_test(&self) -> bool {
        !self.bench
    }

    /// The rsync that judges, and that lsyncd runs: a path, or a name to look for.
    pub fn rsync(&self) -> &Path {
        &self.rsync
    }

    /// The scale asked for: the full one under `cargo bench`, a few seconds' worth otherwise.
    pub fn scale(&self) -> Scale {
        let small = self.is_smoke_test();
        let of = |asked: Option<u64>, full, smoke| asked.unwrap_or(if small { smoke } else { full });
        Scale {
            hosts: usize::from(self.hosts.unwrap_or(if small { 2 } else { 8 })),
            rounds: of(self.rounds, 2, 1),
            samples: of(self.samples, 200, 5),
            files: of(self.files, 100_000, 200),
            rate: of(self.rate, 2000, 50),
            seconds: self.seconds,
            is_smoke_test: small,
        }
    }
}
