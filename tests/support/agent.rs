//! A running `rfleet agent`, and what it says of itself.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::process;
use super::rfleet::rfleet_bin;
use super::scratch::{STATE, Scratch, wait_until};
use super::tree::Snapshot;

/// Trees are to be equal within this, whatever happened: three times what it may take on a machine that does nothing else.
pub const SOON: Duration = Duration::from_secs(30);

pub struct Agent {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Agent {
    pub fn start(scratch: &Scratch, config: &Path, arguments: &[&str]) -> Self {
        Self::start_as(scratch, config, arguments, &[])
    }

    /// Behind `wrapper`, a program and its arguments that run what follows.
    pub fn start_as(scratch: &Scratch, config: &Path, arguments: &[&str], wrapper: &[&str]) -> Self {
        let log = scratch.path("agent.log");
        let words: Vec<&str> = wrapper.iter().copied().chain([rfleet_bin().to_str().unwrap()]).collect();
        let mut command = Command::new(words[0]);
        scratch.hermetic(&mut command);
        command.args(&words[1..]).args(["agent", "--config"]).arg(config).args(arguments);
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.current_dir(scratch.root()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let agent = Self { child, log, socket: scratch.path(STATE).join("agent.sock") };
        wait_until("the agent answers", SOON, || agent.ask(&json!({"op": "status"})).is_some());
        agent
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The answer to a request; `None` where nobody listens.
    pub fn ask(&self, request: &Value) -> Option<Value> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        writeln!(stream, "{request}").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    pub fn status(&self) -> Value {
        self.ask(&json!({"op": "status"})).expect("an agent that answers")["ok"].clone()
    }

    /// The first root, as the agent sees it.
    pub fn root(&self) -> Value {
        self.status()["roots"][0].clone()
    }

    pub fn host(&self, name: &str) -> Value {
        let root = self.root();
        let hosts = root["hosts"].as_array().unwrap();
        hosts.iter().find(|host| host["name"] == name).unwrap_or_else(|| panic!("no {name} in {root}")).clone()
    }

    /// Waits until `hosts` have everything, by the agent's own word.
    pub fn wait(&self, hosts: Value, timeout: Duration) -> Value {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap();
        self.ask(&json!({"op": "wait", "paths": [], "hosts": hosts, "timeout_ms": timeout_ms})).unwrap()
    }

    /// Waits until all `copies` are as `source` is.
    pub fn wait_equal(&mut self, what: &str, source: &Path, copies: &[PathBuf]) {
        let began = Instant::now();
        loop {
            // What is compared must not change meanwhile; where this is in vain the trees tell what is missing.
            self.wait(json!("all"), SOON.saturating_sub(began.elapsed()));
            let wanted = Snapshot::take(source);
            let differences: Vec<_> = copies
                .iter()
                .filter_map(|copy| {
                    Some((copy, wanted.differences(&Snapshot::take(copy)))).filter(|found| !found.1.is_empty())
                })
                .collect();
            if differences.is_empty() {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the agent ended: {}", self.log());
            assert!(
                began.elapsed() < SOON,
                "{what}: not equal within {SOON:?}: {differences:?}\n{:#}\n{}",
                self.status(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it in order.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut ended = None;
        wait_until("the agent ends", Duration::from_secs(45), || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            process::kill_tree(self.pid());
            let _ = self.child.wait();
        }
    }
}
