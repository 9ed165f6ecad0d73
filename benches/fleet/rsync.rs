//! rsync, as its users run it, and as the judge of what both tools made.

use std::ffi::OsString;
use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::judge::{self, LEAVE, dotted};
use crate::meter::Side;
use crate::tools::{Bench, Job, host_name};

impl Bench {
    /// The arguments of rsync for one host, `host` being its name.
    fn rsync_arguments(&self, job: &Job, host: &str) -> Vec<OsString> {
        let shell = format!("ssh -F {}", self.ssh_config.display());
        let far = format!("--rsync-path={}", self.rsync.display());
        let target = format!("{host}:{}/", self.destination(host, job.root).display());
        let mut from = job.source.as_os_str().to_owned();
        from.push("/");
        let fixed = ["-a", "--delete", "--stats", LEAVE].map(OsString::from);
        fixed.into_iter().chain([far.into(), "-e".into(), shell.into(), from, target.into()]).collect()
    }

    fn rsync_path(&self) -> Result<&str> {
        self.rsync.to_str().context("the path of rsync is not UTF-8")
    }

    /// A run for one host, or for several as many at a time under `xargs`.
    pub fn rsync_command(&self, job: &Job) -> Result<Command> {
        let hosts = job.names();
        if let [host] = hosts.as_slice() {
            let mut command = self.accounting.command(Side::Primary, self.rsync_path()?);
            command.args(self.rsync_arguments(job, host)).stdin(Stdio::null());
            return Ok(command);
        }
        let list = self.dir.join("host-names");
        fs::write(&list, hosts.join("\n"))?;
        let mut command = self.accounting.command(Side::Primary, "xargs");
        command.arg(format!("-P{}", hosts.len())).args(["-I{}", self.rsync_path()?]);
        command.args(self.rsync_arguments(job, "{}")).stdin(File::open(list)?);
        Ok(command)
    }

    /// A run for each host, one after the other.
    pub fn rsync_loop(&self, job: &Job) -> Result<Command> {
        // The arguments of each host, one group after the other; the script takes a group at a time.
        let groups: Vec<_> = job.names().iter().map(|host| self.rsync_arguments(job, host)).collect();
        let size = groups.first().map_or(0, Vec::len);
        let words: String = (1..=size).map(|number| format!(" \"${{{number}}}\"")).collect();
        let script = format!("while [ $# -gt 0 ]; do \"$0\"{words} || exit; shift {size}; done");
        let mut command = self.accounting.command(Side::Primary, "/bin/sh");
        command.args(["-c", &script, self.rsync_path()?]).args(groups.into_iter().flatten()).stdin(Stdio::null());
        Ok(command)
    }

    /// Make every host's copy equal to the source, outside any measurement.
    pub fn make_equal(&self, job: &Job) -> Result<()> {
        for number in job.hosts.clone() {
            let target = self.destination(&host_name(number), job.root);
            fs::create_dir_all(&target)?;
            let mut command = Command::new(&self.rsync);
            command.args(["-a", "--delete", LEAVE]).args([dotted(job.source), dotted(&target)]);
            ensure!(command.status()?.success(), "cannot prepare {}", target.display());
        }
        Ok(())
    }

    /// Fail unless every host's copy equals the source: kinds, modes, owners, times and, with `contents`, each byte.
    pub fn judge(&self, job: &Job, contents: bool) -> Result<()> {
        for number in job.hosts.clone() {
            let target = self.destination(&host_name(number), job.root);
            judge::equal(&self.rsync, job.source, &target, contents)?;
        }
        Ok(())
    }
}
