//! lsyncd, as its users run it, with nothing to wait for.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::meter::Side;
use crate::stage::{Stage, host_name};
use crate::supervise::find_program;

/// The program, where it is installed.
pub fn program() -> Option<PathBuf> {
    find_program(Path::new("lsyncd"))
}

/// A running lsyncd; dropped, it is stopped.
pub struct Lsyncd {
    child: Child,
}

impl Lsyncd {
    /// Start one that syncs to all hosts by rsync, without delay. With `keeps`, ssh keeps its connections.
    pub fn start(stage: &Stage, keeps: bool) -> Result<Self> {
        let mut ssh_config = String::new();
        if keeps {
            let sockets = stage.runtime().join("l-%n");
            write!(
                ssh_config,
                "Host *\n  ControlMaster auto\n  ControlPersist 1h\n  ControlPath {}\n",
                sockets.display()
            )?;
        }
        ssh_config += &fs::read_to_string(&stage.sshd.client_config)?;
        let ssh_file = stage.dir.join("lsyncd_ssh_config");
        fs::write(&ssh_file, ssh_config)?;
        let log = stage.dir.join("lsyncd.log");
        let mut text = format!(
            "settings {{ nodaemon = true, insist = true, maxProcesses = {}, inotifyMode = \"CloseWrite\", logfile = {log:?} }}\n",
            4 * stage.hosts
        );
        for host in 1..=stage.hosts {
            writeln!(
                text,
                "sync {{ default.rsync, source = {:?}, target = \"{}:{}/\", delay = 0,\n  rsync = {{ archive = true, \
                 binary = {:?}, rsync_path = {:?}, rsh = \"ssh -F {}\" }} }}",
                stage.source(),
                host_name(host),
                stage.copy(host).display(),
                stage.rsync,
                stage.rsync,
                ssh_file.display(),
            )?;
        }
        let file = stage.dir.join("lsyncd.lua");
        fs::write(&file, text)?;
        let program = program().context("no lsyncd")?;
        let program = program.to_str().context("the path of lsyncd is not UTF-8")?;
        let mut command = stage.accounting.command(Side::Primary, program);
        let output = fs::File::create(stage.dir.join("lsyncd.output"))?;
        command.arg(file).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self { child: command.spawn()? })
    }
}

impl Drop for Lsyncd {
    fn drop(&mut self) {
        // It ends its rsyncs itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
