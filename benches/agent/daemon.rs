//! A running `rfleet agent`, and what it says of itself.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::judge::tail;
use crate::meter::Side;
use crate::stage::Stage;

/// The first sync of the largest tree takes no longer.
pub const FIRST_SYNC: Duration = Duration::from_secs(300);

/// How long it may take to end.
const FAREWELL: Duration = Duration::from_secs(60);

/// A running agent; dropped, it is stopped.
pub struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Start one with these lines of `[push]`; it answers.
    pub fn start(stage: &Stage, push: &str, ssh_config: &Path) -> Result<Self> {
        let configuration = stage.configuration(push, ssh_config)?;
        let program = stage.program.to_str().context("the path of rfleet is not UTF-8")?;
        let mut command = stage.accounting.command(Side::Primary, program);
        command.arg("--config").arg(configuration).arg("agent");
        command.env("STATE_DIRECTORY", stage.state()).env("RUNTIME_DIRECTORY", stage.runtime());
        let log = stage.dir.join("agent.log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let child = command.spawn().context("cannot start the agent")?;
        let mut agent = Self { child, socket: stage.state().join("agent.sock"), log };
        let deadline = Instant::now() + Duration::from_secs(20);
        while agent.status().is_err() {
            let ended = agent.child.try_wait()?.is_some();
            ensure!(!ended && Instant::now() < deadline, "the agent does not answer:\n{}", agent.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(agent)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(FIRST_SYNC + Duration::from_secs(30)))?;
        writeln!(stream, "{request}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Its only root, as it sees it.
    pub fn status(&self) -> Result<Value> {
        let mut answer = self.ask(&json!({"op": "status"}))?;
        Ok(answer["ok"]["roots"][0].take())
    }

    /// Wait until this many hosts have everything.
    pub fn wait(&self, hosts: usize, timeout: Duration) -> Result<()> {
        let timeout_ms = u64::try_from(timeout.as_millis())?;
        let answer = self.ask(&json!({"op": "wait", "paths": [], "hosts": hosts, "timeout_ms": timeout_ms}))?;
        if answer.get("ok").is_none() {
            bail!("not everything is on the hosts within {timeout:?}: {answer}\n{}", self.said());
        }
        Ok(())
    }

    /// End it in order.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the agent ended with {status}:\n{}", self.said());
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the agent does not end:\n{}", self.said())
    }

    fn signal(&self, signal: Signal) {
        // One that has ended hears nothing.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
