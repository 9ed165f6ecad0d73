//! The binary under test: how to run it, and what it says.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;

use super::process;
use super::scratch::Scratch;

/// A run that takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(180);

pub fn rfleet_bin() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rfleet"))
}

/// One command line of rfleet, in the environment of a scratch.
#[derive(Clone)]
pub struct Push<'a> {
    scratch: &'a Scratch,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    json: bool,
}

impl<'a> Push<'a> {
    /// `rfleet push SRC DEST...`, with `--json`.
    pub fn adhoc(scratch: &'a Scratch, source: &Path, destinations: &[impl AsRef<OsStr>]) -> Self {
        let mut push = Self::command(scratch, &["push"]).arg(source);
        push.arguments.extend(destinations.iter().map(|d| d.as_ref().to_owned()));
        push.json = true;
        push
    }

    /// `rfleet push --config FILE`, with `--json`.
    pub fn configured(scratch: &'a Scratch, config: &Path) -> Self {
        let mut push = Self::command(scratch, &["push", "--config"]).arg(config);
        push.json = true;
        push
    }

    /// Any words, without `--json`.
    pub fn command(scratch: &'a Scratch, words: &[&str]) -> Self {
        Self { scratch, arguments: words.iter().map(OsString::from).collect(), environment: Vec::new(), json: false }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// A variable of its own in place of the scratch's.
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    pub fn no_json(mut self) -> Self {
        self.json = false;
        self
    }

    pub fn start(mut self) -> Running {
        if self.json {
            self.arguments.push("--json".into());
        }
        let mut command = Command::new(rfleet_bin());
        self.scratch.hermetic(&mut command);
        command.args(&self.arguments).envs(self.environment).current_dir(self.scratch.root());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (stdout, stderr) = (drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap()));
        let line = format!("rfleet {:?}", self.arguments);
        Running { child, stdout, stderr, start: Instant::now(), line, done: None }
    }

    pub fn run(self) -> Outcome {
        self.start().finish()
    }

    /// Runs it once more for people, without `--json`: the host's line or the one below it must have `cause`.
    pub fn assert_says(self, host: &str, cause: &str) {
        let outcome = self.no_json().run();
        let said = format!("{}\n{}", outcome.stdout, outcome.stderr).to_lowercase();
        let lines: Vec<_> = said.lines().collect();
        let (host, cause) = (host.to_lowercase(), cause.to_lowercase());
        let told = lines
            .iter()
            .enumerate()
            .any(|(n, line)| line.contains(&host) && lines[n..].iter().take(2).any(|l| l.contains(&cause)));
        assert!(told, "nothing that says {cause:?} of {host}:\n{}", outcome.said());
        let causes = lines.iter().filter(|line| line.contains(&cause)).count();
        assert!(causes <= 2, "{cause:?} is on {causes} lines:\n{}", outcome.said());
    }

    /// Runs and expects exit code 0.
    pub fn ok(self) -> Outcome {
        let outcome = self.run();
        outcome.assert_code(0);
        outcome
    }
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

/// A started run.
pub struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    start: Instant,
    line: String,
    done: Option<ExitStatus>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`, unless the end was noticed already: the id may be another's by then.
    pub fn signal(&self, signal: Signal) {
        if self.done.is_none() {
            process::signal(self.pid(), signal);
        }
    }

    pub fn is_over(&mut self) -> bool {
        if self.done.is_none() {
            self.done = self.child.try_wait().unwrap();
        }
        self.done.is_some()
    }

    /// The receivers that run as children of this command now.
    pub fn receivers(&self) -> Vec<u32> {
        process::descendants(self.pid()).into_iter().filter(|&pid| process::is_receiver(pid)).collect()
    }

    /// Waits for the end; kills and panics after three minutes.
    pub fn finish(self) -> Outcome {
        self.finish_within(DEADLINE)
    }

    pub fn finish_within(mut self, deadline: Duration) -> Outcome {
        while !self.is_over() {
            if self.start.elapsed() > deadline {
                process::kill_tree(self.pid());
                let _ = self.child.wait();
                panic!("{} did not end within {deadline:?}", self.line);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = self.done.unwrap();
        let wall = self.start.elapsed();
        let text = |handle: JoinHandle<Vec<u8>>| String::from_utf8_lossy(&handle.join().unwrap()).into_owned();
        Outcome { status, stdout: text(self.stdout), stderr: text(self.stderr), wall, line: self.line }
    }
}

/// What a run left.
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub wall: Duration,
    line: String,
}

impl Outcome {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Everything said, for a failing assertion.
    pub fn said(&self) -> String {
        let stdout: String = self.stdout.chars().take(6_000).collect();
        let stderr: String = self.stderr.chars().take(6_000).collect();
        format!("{}\n{}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", self.line, self.status)
    }

    pub fn assert_code(&self, code: i32) {
        assert_eq!(self.code(), Some(code), "{}", self.said());
    }

    /// The one JSON document on stdout.
    pub fn report(&self) -> Report {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not the report: {e}\n{}", self.said()))
    }

    /// Panics unless one line of stderr holds all of `words`, case aside.
    pub fn assert_line(&self, words: &[&str]) {
        let found = self.stderr.lines().any(|line| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(&word.to_lowercase()))
        });
        assert!(found, "no line of stderr with {words:?}:\n{}", self.said());
    }

    /// Panics unless stderr is one line, which holds all of `words`.
    pub fn assert_only_line(&self, words: &[&str]) {
        let lines = self.stderr.lines().filter(|l| !l.trim().is_empty()).count();
        assert_eq!(lines, 1, "one line on stderr expected:\n{}", self.said());
        self.assert_line(words);
    }
}

/// What `push --json` prints.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub command: String,
    pub fleet: Option<String>,
    pub dry_run: bool,
    pub exit_code: i32,
    pub seconds: f64,
    pub roots: Vec<RootReport>,
}

#[derive(Debug, Deserialize)]
pub struct RootReport {
    pub name: String,
    pub path: String,
    pub entries: u64,
    pub bytes: u64,
    pub read_bytes: u64,
    pub refused: Option<Refused>,
    pub problems: Vec<Problem>,
    pub hosts: Vec<HostReport>,
}

#[derive(Debug, Deserialize)]
pub struct Refused {
    pub guard: String,
    pub message: String,
    pub plan: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Problem {
    pub path: String,
    pub cause: String,
}

#[derive(Debug, Deserialize)]
pub struct HookReport {
    pub command: String,
    pub ok: bool,
    pub detail: String,
    pub seconds: f64,
}

#[derive(Debug, Deserialize)]
pub struct HostReport {
    pub name: String,
    pub state: String,
    pub error: Option<String>,
    pub seconds: f64,
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
    pub metadata: u64,
    pub files_sent: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub literal_bytes: u64,
    pub matched_bytes: u64,
    pub problems: Vec<Problem>,
    pub notes: Vec<String>,
    pub hooks: Vec<HookReport>,
    #[serde(default)]
    pub changes: Vec<String>,
}

impl Report {
    /// The only root.
    pub fn root(&self) -> &RootReport {
        assert_eq!(self.roots.len(), 1, "{self:?}");
        &self.roots[0]
    }

    /// The host of the only root by its name.
    pub fn host(&self, name: &str) -> &HostReport {
        let host = self.root().hosts.iter().find(|h| h.name == name);
        host.unwrap_or_else(|| panic!("no host {name} in {self:#?}"))
    }
}

/// A configuration file, written part by part.
pub struct Config {
    text: String,
}

impl Config {
    pub fn new(fleet: &str) -> Self {
        Self {
            text: format!(
                "version = 1\nfleet = \"{fleet}\"\n[role]\nsource = \"static\"\nprimary = \"{}\"\n",
                hostname()
            ),
        }
    }

    /// `extra` are further lines of the root's table.
    pub fn root(mut self, name: &str, path: &Path, extra: &str) -> Self {
        self.text += &format!("[[root]]\nname = \"{name}\"\npath = {:?}\n{extra}\n", path.display().to_string());
        self
    }

    pub fn hosts(mut self, names: &[&str]) -> Self {
        self.text += &format!("[discovery]\nsource = \"static\"\nhosts = {names:?}\n");
        self
    }

    /// A host behind a command, with its own place for a root.
    pub fn host_command(mut self, name: &str, command: &[&str], root: &str, path: &Path) -> Self {
        let path = path.display().to_string();
        self.text += &format!("[[host]]\nname = \"{name}\"\ncommand = {command:?}\npaths = {{ {root} = {path:?} }}\n");
        self
    }

    /// A host with its own place for a root.
    pub fn host_path(mut self, name: &str, root: &str, path: &Path) -> Self {
        let path = path.display().to_string();
        self.text += &format!("[[host]]\nname = \"{name}\"\npaths = {{ {root} = {path:?} }}\n");
        self
    }

    pub fn lines(mut self, lines: &str) -> Self {
        self.text += lines;
        self.text += "\n";
        self
    }

    pub fn write_to(&self, path: &Path) {
        std::fs::write(path, &self.text).unwrap();
    }

    pub fn write(&self, scratch: &Scratch, name: &str) -> PathBuf {
        scratch.write(name, &self.text)
    }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
