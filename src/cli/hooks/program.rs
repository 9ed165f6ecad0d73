//! One hook, from its start to its end.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};

use crate::receive::{CommitHook, Due, HookEnd};

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is kept of the runner's environment.
const KEPT: [&str; 3] = ["HOME", "USER", "LOGNAME"];

/// How long a hook whose time is up has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// How long the end of what a program wrote may take when it has ended. A child of it can hold it open.
const DRAIN: Duration = Duration::from_millis(200);

/// Most of it that is kept.
const SAID_BYTES: usize = 4096;

/// Most of its last line that is told, in characters.
const SAID_CHARS: usize = 300;

/// How a hook came to its end.
enum Outcome {
    Ended(io::Result<ExitStatus>),
    TimedOut,
    Gone,
}

/// Runs `hook` for what changed in the root at `path`. `None` if the receiver is `gone` before its end: then it is
/// killed.
pub(super) async fn run(hook: &CommitHook, due: &Due, path: &Path, gone: impl Future<Output = ()>) -> Option<HookEnd> {
    let started = Instant::now();
    let end = |ok, detail| {
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(HookEnd { ok, detail, milliseconds })
    };
    let mut child = match spawn(hook, due, path) {
        Ok(child) => child,
        Err(error) => return end(false, format!("cannot be started: {error}")),
    };
    let (stdin, mut stderr) = (child.stdin.take(), child.stderr.take());
    let mut said = Vec::new();
    let outcome = {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Nobody has to read them.
                let _ = stdin.write_all(&due.names).await;
            }
        };
        let talk = async {
            tokio::join!(feed, listen(stderr.as_mut(), &mut said));
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            status = child.wait() => Outcome::Ended(status),
            () = sleep(hook.timeout) => Outcome::TimedOut,
            () = gone => Outcome::Gone,
            never = talk => match never {},
        }
    };
    match outcome {
        Outcome::Ended(status) => {
            // What it has started and left behind may go on; it is not waited for.
            let _ = timeout(DRAIN, listen(stderr.as_mut(), &mut said)).await;
            let ok = status.as_ref().is_ok_and(ExitStatus::success);
            let how = status.map_or_else(|error| format!("its end is not known: {error}"), in_words);
            end(ok, with_last_line(how, &said))
        }
        Outcome::TimedOut => {
            stop(&mut child, stderr.as_mut(), &mut said).await;
            let limit = match hook.timeout.subsec_millis() {
                0 => format!("{}s", hook.timeout.as_secs()),
                _ => format!("{}ms", hook.timeout.as_millis()),
            };
            // It was cut off in the middle of a line, perhaps.
            let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(&said[..], |end| &said[..end]);
            end(false, with_last_line(format!("timeout after {limit}"), whole))
        }
        Outcome::Gone => {
            signal(&child, Signal::KILL);
            None
        }
    }
}

/// Names go nowhere but to its standard input: they may be anything.
fn spawn(hook: &CommitHook, due: &Due, path: &Path) -> io::Result<Child> {
    let (program, args) = hook.run.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut command = Command::new(program);
    command.args(args).current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
    command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("RFLEET_ROOT", &due.root).env("RFLEET_ROOT_PATH", path);
    command.env("RFLEET_SEQUENCE", due.sequence.0.to_string());
    if due.truncated {
        command.env("RFLEET_TRUNCATED", "1");
    }
    command.spawn()
}

/// Keeps the end of what comes, until nothing more can.
async fn listen(stderr: Option<&mut ChildStderr>, said: &mut Vec<u8>) {
    let Some(stderr) = stderr else { return };
    let mut buffer = [0; SAID_BYTES];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..read]);
        said.drain(..said.len().saturating_sub(SAID_BYTES));
    }
}

/// Ends it with all of its process group: it is asked to, then it has to. Nobody waits for it before that, so the
/// number of the group cannot be another's.
async fn stop(child: &mut Child, stderr: Option<&mut ChildStderr>, said: &mut Vec<u8>) {
    signal(child, Signal::TERM);
    let ended = async {
        while !has_ended(child) {
            sleep(LOOK).await;
        }
    };
    let _ = timeout(GRACE, async { tokio::join!(ended, timeout(DRAIN, listen(stderr, said))) }).await;
    signal(child, Signal::KILL);
    // One that is stuck in the kernel is left there.
    let _ = timeout(GRACE, child.wait()).await;
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

fn has_ended(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    pid(child).is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
}

/// To the whole group. One that is gone is what is wanted.
fn signal(child: &Child, signal: Signal) {
    if let Some(group) = pid(child) {
        let _ = kill_process_group(group, signal);
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn with_last_line(how: String, said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("{how}: {}", line.trim().chars().take(SAID_CHARS).collect::<String>()),
        None => how,
    }
}
