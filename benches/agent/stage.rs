//! The stage that workloads play on: a source, the hosts' copies of it, and the configurations that lead there.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::judge;
use crate::masters;
use crate::meter::Accounting;
use crate::random::Random;
use crate::sshd::Sshd;
use crate::supervise::RUNTIME;

/// The directory of what the agent knows and of its socket.
const STATE: &str = "state";

/// What all workloads need to know.
pub struct Stage {
    /// The directory everything lies in.
    pub dir: PathBuf,
    /// How processes are found.
    pub accounting: Accounting,
    /// The server that plays all hosts.
    pub sshd: Sshd,
    /// The rfleet under test.
    pub program: PathBuf,
    /// The rsync that judges.
    pub rsync: PathBuf,
    /// Hosts of the fleet.
    pub hosts: usize,
    /// Further lines of the agent's `[push]` table.
    pub push: String,
    /// What all content follows from.
    pub seed: u64,
}

/// The name of a host, the first being 1.
pub fn host_name(number: usize) -> String {
    format!("web{number}")
}

impl Stage {
    /// The tree that is watched.
    pub fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    /// Where a host has its copy.
    pub fn copy(&self, host: usize) -> PathBuf {
        self.dir.join("hosts").join(host_name(host)).join("www")
    }

    /// All of these.
    pub fn copies(&self) -> Vec<PathBuf> {
        (1..=self.hosts).map(|host| self.copy(host)).collect()
    }

    /// Where the agent keeps what it knows.
    pub fn state(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// Where it keeps its connections.
    pub fn runtime(&self) -> PathBuf {
        self.dir.join(RUNTIME)
    }

    /// Begin anew: nothing is connected, known or copied, and the source has `files` files of `bytes` bytes in
    /// `directories` directories. Returns these, relative to it.
    pub fn set(&self, directories: u64, files: u64, bytes: usize) -> Result<Vec<PathBuf>> {
        masters::stop(&self.runtime());
        for name in ["source", "hosts", STATE, RUNTIME] {
            let path = self.dir.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        for private in [STATE, RUNTIME] {
            DirBuilder::new().mode(0o700).create(self.dir.join(private))?;
        }
        let mut random = Random::new(self.seed);
        let source = self.source();
        let names: Vec<PathBuf> = (0..directories.max(1))
            .map(|number| PathBuf::from(format!("shelf-{:02}/box-{:02}", number / 100, number % 100)))
            .collect();
        for name in &names {
            fs::create_dir_all(source.join(name))?;
        }
        let mut content = vec![0; bytes];
        for number in 0..files {
            random.fill(&mut content);
            let name = &names[usize::try_from(number % directories.max(1))?];
            fs::write(source.join(name).join(format!("item-{number:06}")), &content)?;
        }
        for copy in self.copies() {
            fs::create_dir_all(copy)?;
        }
        Ok(names)
    }

    /// Write the client's configuration in which `others` are reached at another port, and return its path.
    pub fn ssh_config(&self, others: &[(usize, u16)]) -> Result<PathBuf> {
        let mut text = String::new();
        for (host, port) in others {
            writeln!(text, "Host {}\n  Port {port}", host_name(*host))?;
        }
        // ssh takes the first value that it finds.
        text += &fs::read_to_string(&self.sshd.client_config)?;
        let path = self.dir.join("ssh_config");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Write the configuration of an agent with these lines of `[push]`, and return its path.
    pub fn configuration(&self, push: &str, ssh_config: &Path) -> Result<PathBuf> {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let names: Vec<String> = (1..=self.hosts).map(host_name).collect();
        let mut text = format!(
            "version = 1\nfleet = \"bench\"\n\n[[root]]\nname = \"www\"\npath = {:?}\ndelete = true\nmax_delete = \"100%\"\n\n\
             [role]\nsource = \"static\"\nprimary = {own:?}\n\n[discovery]\nsource = \"static\"\nhosts = {names:?}\n\n\
             [push]\nparallel = {}\n{push}\n{}\n\n[ssh]\nconfig = {ssh_config:?}\nreceiver = \"{} receive\"\n",
            self.source(),
            self.hosts.max(16),
            self.push,
            self.program.display(),
        );
        for (name, copy) in names.iter().zip(self.copies()) {
            write!(text, "\n[[host]]\nname = {name:?}\npaths = {{ www = {copy:?} }}\n")?;
        }
        let path = self.dir.join("rfleet.toml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Fail unless these copies equal the source, byte for byte.
    pub fn judge(&self, hosts: impl IntoIterator<Item = usize>) -> Result<()> {
        hosts.into_iter().try_for_each(|host| judge::equal(&self.rsync, &self.source(), &self.copy(host), true))
    }
}
