//! Who takes part, how a run of any of them is measured, and what it says of itself.

use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::judge::tail;
use crate::meter::{Accounting, Cost, Side, measure};
use crate::rfleet::Rfleet;

/// A tool under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// rsync, as installed.
    Rsync,
    /// rfleet, as just built.
    Rfleet,
}

/// A tool and the way it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// `rsync`, for several hosts as many at a time under `xargs -P`.
    Rsync,
    /// `rsync` for one host after the other.
    RsyncLoop,
    /// `rfleet push` by a configuration.
    Rfleet,
    /// `rfleet push SRC DEST ...`: no index, no connection that outlives the run.
    RfleetAdhoc,
    /// `rfleet push` by a configuration to hosts that have nothing: what a workload is compared with, not a workload.
    RfleetPlain,
    /// A bare walk of the source: what a scan is compared with.
    Walk,
}

impl Contestant {
    /// Which tool it runs, or belongs to.
    pub fn tool(self) -> Tool {
        match self {
            Self::Rsync | Self::RsyncLoop => Tool::Rsync,
            Self::Rfleet | Self::RfleetAdhoc | Self::RfleetPlain | Self::Walk => Tool::Rfleet,
        }
    }

    /// What the tables call it.
    pub fn label(self, hosts: u64) -> String {
        match self {
            Self::Rsync if hosts > 1 => format!("xargs -P{hosts} rsync"),
            Self::Rsync => "rsync".into(),
            Self::RsyncLoop => "rsync in a loop".into(),
            Self::Rfleet => "rfleet".into(),
            Self::RfleetAdhoc => "rfleet SRC DEST ...".into(),
            Self::RfleetPlain => "rfleet, plain first send".into(),
            Self::Walk => "bare walk".into(),
        }
    }
}

/// What all tools need to know to run.
pub struct Bench {
    /// The directory everything lies in.
    pub dir: PathBuf,
    /// How costs are counted.
    pub accounting: Accounting,
    /// The configuration that makes ssh find the hosts.
    pub ssh_config: PathBuf,
    /// The rsync to compare with, on both sides.
    pub rsync: PathBuf,
    /// The rfleet under test.
    pub rfleet: Rfleet,
}

/// What is to be synced to where.
pub struct Job<'a> {
    /// The directory whose contents are synced.
    pub source: &'a Path,
    /// The root's name; each host has its own copy.
    pub root: &'a str,
    /// The numbers of the hosts.
    pub hosts: RangeInclusive<u64>,
}

impl Job<'_> {
    /// The names of the hosts.
    pub fn names(&self) -> Vec<String> {
        self.hosts.clone().map(host_name).collect()
    }
}

/// The name of a host.
pub fn host_name(number: u64) -> String {
    format!("web{number}")
}

/// What a tool says of its own run, as far as it does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Bytes sent and received, all hosts together.
    pub bytes: Option<u64>,
    /// The same of the host with the most.
    pub most_host_bytes: Option<u64>,
    /// Bytes of content read from the source.
    pub read_bytes: Option<u64>,
    /// Bytes of content that the source has.
    pub source_bytes: Option<u64>,
}

impl Bench {
    /// Where a host keeps its copy of the root `root`.
    pub fn destination(&self, host: &str, root: &str) -> PathBuf {
        self.dir.join("hosts").join(host).join(root)
    }

    /// Let a contestant do the job. Returns what it cost and what it said.
    pub fn run(&self, contestant: Contestant, job: &Job) -> Result<(Cost, Account)> {
        let walker = std::env::current_exe()?;
        let mut command = match contestant {
            Contestant::Rsync => self.rsync_command(job)?,
            Contestant::RsyncLoop => self.rsync_loop(job)?,
            Contestant::Rfleet | Contestant::RfleetPlain => self.rfleet_configured(job)?,
            Contestant::RfleetAdhoc => self.rfleet_adhoc(job)?,
            Contestant::Walk => {
                let program = walker.to_str().context("the path of the bench is not UTF-8")?;
                let mut command = self.accounting.command(Side::Primary, program);
                command.arg("--walk").arg(job.source);
                command
            }
        };
        let name = match contestant {
            Contestant::Walk => kernel_name(&walker),
            _ if contestant.tool() == Tool::Rsync => kernel_name(&self.rsync),
            _ => kernel_name(&self.rfleet.program),
        };
        let (output, errors) = (self.dir.join("output"), self.dir.join("errors"));
        command.stdout(File::create(&output)?).stderr(File::create(&errors)?);
        let (cost, status) = measure(&self.accounting, command, &name)?;
        let said = fs::read_to_string(&output)?;
        if !status.success() {
            let label = contestant.label(job.hosts.clone().count().try_into()?);
            bail!("{label} failed, {status}\n{}{}", fs::read_to_string(&errors)?, tail(&said));
        }
        let account = match contestant {
            Contestant::Walk => Account::default(),
            _ if contestant.tool() == Tool::Rsync => rsync_account(&said),
            _ => rfleet_account(&said).unwrap_or_default(),
        };
        Ok((cost, account))
    }
}

/// What the kernel calls a process of this program: the first 15 bytes of its file name.
fn kernel_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= 15).map(|(_, letter)| letter).collect()
}

/// What `rsync --stats` says, of all rsyncs that wrote to `output`.
fn rsync_account(output: &str) -> Account {
    let figures = |title: &str| -> Vec<u64> {
        let lines = output.lines().filter_map(|line| line.trim().strip_prefix(title));
        lines.filter_map(|figure| figure.replace([',', '.'], "").parse().ok()).collect()
    };
    let (sent, received) = (figures("Total bytes sent: "), figures("Total bytes received: "));
    let (hosts, bytes) = (sent.len() as u64, sent.iter().chain(&received).sum::<u64>());
    // Lines of several rsyncs mix, so that a host's two figures are not told from others': the mean instead.
    Account { bytes: Some(bytes), most_host_bytes: bytes.checked_div(hosts), ..Account::default() }
}

/// What `rfleet push --json` says.
fn rfleet_account(output: &str) -> Option<Account> {
    let report: Value = serde_json::from_str(output).ok()?;
    let roots = report.get("roots")?.as_array()?;
    let hosts = roots.iter().filter_map(|root| root.get("hosts")?.as_array()).flatten();
    let of_host = |host: &Value| Some(host.get("bytes_sent")?.as_u64()? + host.get("bytes_received")?.as_u64()?);
    let bytes: Vec<u64> = hosts.map(of_host).collect::<Option<_>>()?;
    let total = |key| roots.iter().map(|root| root.get(key)?.as_u64()).sum();
    Some(Account {
        bytes: Some(bytes.iter().sum()),
        most_host_bytes: bytes.iter().max().copied(),
        read_bytes: total("read_bytes"),
        source_bytes: total("bytes"),
    })
}
