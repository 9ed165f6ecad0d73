//! rfleet, as its users run it: by a configuration, from a timer, with an index and connections that outlive a run; and
//! ad hoc, with nothing before and after.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::judge::tail;
use crate::masters;
use crate::meter::Side;
use crate::supervise::RUNTIME;
use crate::tools::{Bench, Job};

/// The directory of what rfleet knows from one run to the next.
const STATE: &str = "state";
/// A copy of it.
const KEPT_STATE: &str = "state-kept";
/// How long a connection is kept: longer than any pause between two runs.
const PERSIST: &str = "persist = \"1h\"";

/// The rfleet under test.
pub struct Rfleet {
    /// Its program.
    pub program: PathBuf,
    /// Can connections be kept from one run to the next?
    pub keeps_connections: bool,
}

impl Rfleet {
    /// Look at what this build can do, in the directory `dir`.
    pub fn probe(program: &Path, dir: &Path) -> Result<Self> {
        let program = fs::canonicalize(program).with_context(|| format!("no rfleet at {}", program.display()))?;
        let file = dir.join("probe.toml");
        let root = "version = 1\nfleet = \"bench\"\n[[root]]\nname = \"probe\"\npath = \"/probe\"\n";
        fs::write(&file, format!("{root}[discovery]\nsource = \"static\"\nhosts = []\n[ssh]\n{PERSIST}\n"))?;
        let asked = Command::new(&program).arg("--config").arg(&file).arg("hosts").output()?;
        let said = String::from_utf8_lossy(&asked.stderr);
        let keeps_connections = !said.contains("`persist`");
        ensure!(asked.status.success() || !keeps_connections, "{} cannot be used: {said}", program.display());
        Ok(Self { program, keeps_connections })
    }
}

impl Bench {
    fn rfleet_program(&self) -> Result<&str> {
        self.rfleet.program.to_str().context("the path of rfleet is not UTF-8")
    }

    /// Ad hoc, to all hosts of the job.
    pub fn rfleet_adhoc(&self, job: &Job) -> Result<Command> {
        let program = self.rfleet_program()?;
        let mut command = self.accounting.command(Side::Primary, program);
        command.arg("push").arg(job.source);
        command.args(job.names().iter().map(|host| format!("{host}:{}", self.destination(host, job.root).display())));
        command.arg("--ssh-config").arg(&self.ssh_config).arg("--receiver").arg(format!("{program} receive"));
        command.args(["--delete", "--json", "--no-progress"]).stdin(Stdio::null());
        Ok(command)
    }

    /// By configuration, to all hosts of the job.
    pub fn rfleet_configured(&self, job: &Job) -> Result<Command> {
        let file = self.dir.join("rfleet.toml");
        fs::write(&file, self.configuration(job)?)?;
        let mut command = self.accounting.command(Side::Primary, self.rfleet_program()?);
        command.arg("--config").arg(file).args(["push", "--json", "--no-progress"]).stdin(Stdio::null());
        for (name, directory) in [("STATE_DIRECTORY", STATE), ("RUNTIME_DIRECTORY", RUNTIME)] {
            let path = self.dir.join(directory);
            if !path.exists() {
                DirBuilder::new().mode(0o700).create(&path)?;
            }
            command.env(name, path);
        }
        Ok(command)
    }

    fn configuration(&self, job: &Job) -> Result<String> {
        let names = job.names();
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut text = format!(
            "version = 1\nfleet = \"bench\"\n\n[[root]]\nname = {:?}\npath = {:?}\ndelete = true\nmax_delete = \"100%\"\n\n\
             [role]\nsource = \"static\"\nprimary = {own:?}\n\n[discovery]\nsource = \"static\"\nhosts = {names:?}\n\n\
             [push]\nparallel = {}\n\n[ssh]\nconfig = {:?}\nreceiver = \"{} receive\"\n",
            job.root,
            job.source,
            names.len().max(16),
            self.ssh_config,
            self.rfleet_program()?,
        );
        if self.rfleet.keeps_connections {
            writeln!(text, "{PERSIST}")?;
        }
        for name in names {
            let path = self.destination(&name, job.root);
            write!(text, "\n[[host]]\nname = {name:?}\npaths = {{ {} = {path:?} }}\n", job.root)?;
        }
        Ok(text)
    }

    /// Let the index learn what the hosts have now, and open the connections, outside any measurement.
    pub fn learn(&self, job: &Job) -> Result<()> {
        let done = self.rfleet_configured(job)?.args(["--full", "--adopt"]).output()?;
        if !done.status.success() {
            let [said, errors] = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            bail!("rfleet cannot learn what the hosts have, {}\n{errors}{}", done.status, tail(&said));
        }
        Ok(())
    }

    /// Close all connections.
    pub fn disconnect(&self) -> Result<()> {
        masters::stop(&self.dir.join(RUNTIME));
        remove(&self.dir.join(RUNTIME))
    }

    /// Take away all that rfleet knows from earlier runs.
    pub fn forget(&self) -> Result<()> {
        remove(&self.dir.join(STATE))
    }

    /// Keep what rfleet knows now, for [`Self::recall`].
    pub fn keep(&self) -> Result<()> {
        remove(&self.dir.join(KEPT_STATE))?;
        copy(&self.dir.join(STATE), &self.dir.join(KEPT_STATE))
    }

    /// Let rfleet know what it knew at the last [`Self::keep`], no more and no less.
    pub fn recall(&self) -> Result<()> {
        self.forget()?;
        copy(&self.dir.join(KEPT_STATE), &self.dir.join(STATE))
    }
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}
