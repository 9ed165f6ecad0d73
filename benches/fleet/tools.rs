//! The two tools, run the way their users run them, and the judge of what they made.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::meter::{Accounting, Cost, Side, measure};

/// A tool under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// The rsync that is installed.
    Rsync,
    /// rfleet as just built.
    Rfleet,
}

/// A tool and the way it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// `rsync`, for several hosts as many at a time under `xargs -P`.
    Rsync,
    /// `rsync` for one host after the other.
    RsyncLoop,
    /// `rfleet push` to all hosts.
    Rfleet,
    /// `rfleet push` to hosts that have nothing: what a workload is compared with, not a workload.
    RfleetPlain,
}

impl Contestant {
    /// Which tool it runs.
    pub fn tool(self) -> Tool {
        match self {
            Self::Rsync | Self::RsyncLoop => Tool::Rsync,
            Self::Rfleet | Self::RfleetPlain => Tool::Rfleet,
        }
    }

    /// What the tables call it.
    pub fn label(self, hosts: u64) -> String {
        match self {
            Self::Rsync if hosts > 1 => format!("xargs -P{hosts} rsync"),
            Self::Rsync => "rsync".into(),
            Self::RsyncLoop => "rsync in a loop".into(),
            Self::Rfleet => "rfleet".into(),
            Self::RfleetPlain => "rfleet, plain first send".into(),
        }
    }
}

/// What both tools need to know to run.
pub struct Bench {
    /// The directory everything lies in.
    pub dir: PathBuf,
    /// How costs are counted.
    pub accounting: Accounting,
    /// The configuration that makes ssh find the hosts.
    pub ssh_config: PathBuf,
    /// The rfleet under test.
    pub rfleet: PathBuf,
}

/// The name of a host.
pub fn host_name(number: u64) -> String {
    format!("web{number}")
}

impl Bench {
    /// Where a host keeps its copy of the root `root`.
    pub fn destination(&self, host: &str, root: &str) -> PathBuf {
        self.dir.join("hosts").join(host).join(root)
    }

    /// Let a contestant sync the directory `source` to `hosts` hosts, each into its own copy of `root`. Returns what it
    /// cost and, if the tool told, how many bytes it says it sent and received.
    pub fn run(&self, contestant: Contestant, source: &Path, root: &str, hosts: u64) -> Result<(Cost, Option<u64>)> {
        let names: Vec<String> = (1..=hosts).map(host_name).collect();
        let mut command = match contestant {
            Contestant::Rsync if hosts == 1 => self.rsync(source, &names[0], root),
            Contestant::Rsync => self.rsync_xargs(source, root, &names)?,
            Contestant::RsyncLoop => self.rsync_loop(source, root, &names),
            Contestant::Rfleet | Contestant::RfleetPlain => self.rfleet(source, root, &names)?,
        };
        let (output, errors) = (self.dir.join("output"), self.dir.join("errors"));
        command.stdout(File::create(&output)?).stderr(File::create(&errors)?);
        let name = match contestant.tool() {
            Tool::Rsync => "rsync".into(),
            Tool::Rfleet => kernel_name(&self.rfleet),
        };
        let (cost, status) = measure(&self.accounting, command, &name)?;
        let said = fs::read_to_string(&output)?;
        if !status.success() {
            bail!("{} failed, {status}\n{}{}", contestant.label(hosts), fs::read_to_string(&errors)?, tail(&said));
        }
        let own = match contestant.tool() {
            Tool::Rsync => rsync_bytes(&said),
            Tool::Rfleet => rfleet_bytes(&said),
        };
        Ok((cost, own))
    }

    /// The arguments of rsync for one host, `HOST` being its name.
    fn rsync_arguments(&self, source: &Path, host: &str, root: &str) -> Vec<OsString> {
        let shell = format!("ssh -F {}", self.ssh_config.display());
        let target = format!("{host}:{}/", self.destination(host, root).display());
        let mut from = source.as_os_str().to_owned();
        from.push("/");
        let fixed = ["-a", "--delete", "--stats", "-e"].map(OsString::from);
        fixed.into_iter().chain([shell.into(), from, target.into()]).collect()
    }

    fn rsync(&self, source: &Path, host: &str, root: &str) -> Command {
        let mut command = self.accounting.command(Side::Primary, "rsync");
        command.args(self.rsync_arguments(source, host, root)).stdin(Stdio::null());
        command
    }

    fn rsync_xargs(&self, source: &Path, root: &str, hosts: &[String]) -> Result<Command> {
        let list = self.dir.join("host-names");
        fs::write(&list, hosts.join("\n"))?;
        let mut command = self.accounting.command(Side::Primary, "xargs");
        command.arg(format!("-P{}", hosts.len())).args(["-I{}", "rsync"]);
        command.args(self.rsync_arguments(source, "{}", root)).stdin(File::open(list)?);
        Ok(command)
    }

    fn rsync_loop(&self, source: &Path, root: &str, hosts: &[String]) -> Command {
        // The arguments of each host, one group after the other; the script takes a group at a time.
        let groups: Vec<_> = hosts.iter().map(|host| self.rsync_arguments(source, host, root)).collect();
        let size = groups.first().map_or(0, Vec::len);
        let words: String = (1..=size).map(|number| format!(" \"${{{number}}}\"")).collect();
        let script = format!("while [ $# -gt 0 ]; do rsync{words} || exit; shift {size}; done");
        let mut command = self.accounting.command(Side::Primary, "/bin/sh");
        command.args(["-c", &script, "sh"]).args(groups.into_iter().flatten()).stdin(Stdio::null());
        command
    }

    fn rfleet(&self, source: &Path, root: &str, hosts: &[String]) -> Result<Command> {
        let program = self.rfleet.to_str().context("the path of rfleet is not UTF-8")?;
        let mut command = self.accounting.command(Side::Primary, program);
        command.arg("push").arg(source);
        command.args(hosts.iter().map(|host| format!("{host}:{}", self.destination(host, root).display())));
        command.arg("--ssh-config").arg(&self.ssh_config).arg("--receiver").arg(format!("{program} receive"));
        command.args(["--delete", "--json", "--no-progress"]).stdin(Stdio::null());
        Ok(command)
    }

    /// Make a host's copy of `root` equal to `source`, outside any measurement.
    pub fn make_equal(&self, source: &Path, root: &str, hosts: u64) -> Result<()> {
        for number in 1..=hosts {
            let target = self.destination(&host_name(number), root);
            fs::create_dir_all(&target)?;
            let status =
                Command::new("rsync").args(["-a", "--delete"]).args([dotted(source), dotted(&target)]).status()?;
            ensure!(status.success(), "cannot prepare {}", target.display());
        }
        Ok(())
    }

    /// Fail unless every host's copy of `root` equals `source`: kinds, modes, owners, times and, with `contents`, each byte.
    pub fn judge(&self, source: &Path, root: &str, hosts: u64, contents: bool) -> Result<()> {
        for number in 1..=hosts {
            let target = self.destination(&host_name(number), root);
            let mut command = Command::new("rsync");
            command.args(["-aH", "--numeric-ids", "-n", "-i", "--delete", "--exclude=/.rfleet"]);
            command.args(contents.then_some("--checksum")).args([dotted(source), dotted(&target)]);
            let done = command.output()?;
            let found = String::from_utf8_lossy(&done.stdout);
            ensure!(done.status.success() && found.is_empty(), "{} is not equal:\n{}", target.display(), tail(&found));
        }
        Ok(())
    }
}

/// What the kernel calls a process of this program: the first 15 bytes of its file name.
fn kernel_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= 15).map(|(_, letter)| letter).collect()
}

/// The path with `/.`, which tells rsync to take what the directory holds.
fn dotted(path: &Path) -> PathBuf {
    path.join(".")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// What `rsync --stats` says of bytes, both directions, of all rsyncs that wrote to `output`.
fn rsync_bytes(output: &str) -> Option<u64> {
    let figures = output.lines().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("Total bytes sent: ").or_else(|| line.strip_prefix("Total bytes received: "))
    });
    figures.map(|figure| figure.replace([',', '.'], "").parse::<u64>().ok()).sum()
}

/// What `rfleet push --json` says of bytes, both directions, of all hosts.
fn rfleet_bytes(output: &str) -> Option<u64> {
    let report: Value = serde_json::from_str(output).ok()?;
    let hosts = report.get("roots")?.as_array()?.iter().filter_map(|root| root.get("hosts")?.as_array()).flatten();
    hosts.map(|host| Some(host.get("bytes_sent")?.as_u64()? + host.get("bytes_received")?.as_u64()?)).sum()
}
