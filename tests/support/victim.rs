//! A real receiver that a hostile primary talks to: what it answers, how it ends, what it costs.

use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rfleet::model::Term;
use rfleet::wire::{Begin, FrameKind, Hello, Refusal, ToPrimary, ToReceiver, decode, encode, read_frame};

use super::process;
use super::rfleet::rfleet_bin;
use super::scratch::{Scratch, tool_path};

/// The most memory that any peer may make a process take.
pub const MEMORY_BYTES: u64 = 200 << 20;

/// Beyond this the process gets no memory at all, and ends badly.
const ADDRESS_SPACE: &str = "--as=2147483648";

/// A process that has not ended so long after the last word hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A greeting as an honest primary's.
pub fn hello(read_only: bool) -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        software: "script".into(),
        fleet: Some("cms".into()),
        root: "data".into(),
        term: Term(0),
        primary: "script".into(),
        read_only,
        checksum: false,
        adopt: true,
        attributes: true,
    }
}

/// Follows the peak memory of a process.
pub struct Peak {
    bytes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peak {
    pub fn of(pid: u32) -> Self {
        let (bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&bytes), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(peak) = process::peak_resident_bytes(pid) {
                    seen.fetch_max(peak, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { bytes, stop, thread: Some(thread) }
    }

    pub fn bytes(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The receiver.
pub struct Victim {
    child: Child,
    input: Option<ChildStdin>,
    answers: Option<Receiver<ToPrimary>>,
    stderr: JoinHandle<String>,
    peak: Peak,
}

/// How it ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stderr: String,
    pub answers: Vec<ToPrimary>,
    pub peak: u64,
}

impl Victim {
    /// A receiver of the root `data` at `dir`; `receive` are lines of its own `[receive]`.
    pub fn start(scratch: &Scratch, dir: &Path, receive: &str) -> Self {
        Self::spawn(scratch, dir, receive, true)
    }

    /// One whose answers nobody reads.
    pub fn unread(scratch: &Scratch, dir: &Path, receive: &str) -> Self {
        Self::spawn(scratch, dir, receive, false)
    }

    fn spawn(scratch: &Scratch, dir: &Path, receive: &str, read: bool) -> Self {
        let config = Self::config(scratch, dir, receive);
        let mut command = Command::new("prlimit");
        scratch.hermetic(&mut command);
        command.env("PATH", tool_path()).arg(ADDRESS_SPACE).arg(rfleet_bin()).args(["receive", "--config"]).arg(config);
        Self::run(command, read)
    }

    /// The configuration of a receiver of the root `data` at `dir`.
    pub fn config(scratch: &Scratch, dir: &Path, receive: &str) -> PathBuf {
        let text =
            format!("version = 1\nfleet = \"cms\"\n[[root]]\nname = \"data\"\npath = {:?}\n", dir.to_str().unwrap());
        scratch.write("victim.toml", format!("{text}[receive]\n{receive}\n"))
    }

    /// The receiver that `command` leads to.
    pub fn behind(command: Command) -> Self {
        Self::run(command, true)
    }

    fn run(mut command: Command, read: bool) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let mut said = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = said.read_to_end(&mut all);
            String::from_utf8_lossy(&all).into_owned()
        });
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (tell, answers) = channel();
        if read {
            std::thread::spawn(move || {
                while let Ok(Some(frame)) = read_frame(&mut output) {
                    assert_eq!(frame.kind, FrameKind::Message);
                    match decode(&frame.body).unwrap() {
                        ToPrimary::Heartbeat
                        | ToPrimary::Progress { .. }
                        | ToPrimary::Listing { .. }
                        | ToPrimary::Hooks { .. } => {}
                        message => {
                            if tell.send(message).is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        } else {
            // Open, so that whoever writes there waits.
            std::mem::forget(output);
        }
        let peak = Peak::of(child.id());
        Self { child, input, answers: Some(answers), stderr, peak }
    }

    /// Sends bytes as they are; `false` once nobody takes them any more.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.input.as_mut().is_some_and(|input| input.write_all(bytes).is_ok())
    }

    pub fn send(&mut self, message: &ToReceiver) -> bool {
        self.send_bytes(&encode(message))
    }

    /// The next message that says something; `None` at the end.
    pub fn receive(&mut self) -> Option<ToPrimary> {
        let answer = self.answers.as_ref().unwrap().recv_timeout(DEADLINE);
        match answer {
            Ok(message) => Some(message),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no answer within {DEADLINE:?}"),
        }
    }

    pub fn greet(&mut self, read_only: bool) {
        self.send(&ToReceiver::Hello(hello(read_only)));
        assert!(matches!(self.receive(), Some(ToPrimary::Welcome(_))));
    }

    pub fn list(&mut self) {
        self.send(&ToReceiver::List);
        assert!(matches!(self.receive(), Some(ToPrimary::Inventory(_))));
    }

    /// Greets, and is about to change everything.
    pub fn begin(&mut self, deletions: u64) {
        self.greet(false);
        self.send(&ToReceiver::Begin(Begin { deletions, ..Begin::default() }));
    }

    /// Ends the input and waits for the end.
    pub fn end(mut self) -> Ended {
        self.input.take();
        self.wait()
    }

    /// Waits for the end while the input stays open.
    pub fn wait(mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > DEADLINE {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("the receiver did not end: {}", self.stderr.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let answers = self.answers.take().unwrap().into_iter().collect();
        let stderr = self.stderr.join().unwrap();
        Ended { code: status.code(), stderr, answers, peak: self.peak.bytes() }
    }
}

impl Ended {
    /// The last word, if it was a refusal.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.answers.last() {
            Some(ToPrimary::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// One clear line on standard error, the exit code of a session that failed, and no more memory than a receiver may take.
    pub fn assert_failed_in_order(&self, what: &str) {
        let Ended { code, stderr, peak, .. } = self;
        assert_eq!(*code, Some(1), "{what}: {stderr}");
        self.assert_modest(what);
        let lines: Vec<_> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(lines.len() == 1 && lines[0].len() < 6000, "{what}: {stderr}");
        assert!(*peak < MEMORY_BYTES, "{what}: {} MiB", peak >> 20);
    }

    pub fn assert_modest(&self, what: &str) {
        assert!(!self.stderr.contains("panicked"), "{what}: {}", self.stderr);
        assert!(self.peak < MEMORY_BYTES, "{what}: {} MiB", self.peak >> 20);
    }
}
