//! `rfleet run-hooks`, the runner: started by `rfleet receive` before that confines itself, and nothing for people.
//!
//! A process of its own because whoever is confined starts no programs, and his children neither. It reads the
//! configuration as the receiver did, so all that can be had of it, by whoever starts it, is a hook of that
//! configuration. It runs in a process group of its own: who kills the receiver's leaves it the time to end what it has
//! started.

mod program;

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tokio::sync::mpsc;

use super::receive::{ReceiveArgs, prepare};
use super::{Exit, Global, complain};
use crate::receive::{HookRunner, Orders, Policy, Roots};

/// This program, also if another has taken its place on the disk.
const SELF: &str = "/proc/self/exe";

/// A runner as a process.
pub(super) struct Runner(Child);

impl Runner {
    /// Starts a runner for the receiver of `args`; `None` where there are no hooks.
    ///
    /// # Errors
    /// One line: it cannot be started, or does not know the same hooks.
    pub(super) fn start(
        global: &Global,
        args: &ReceiveArgs,
        (roots, policy): (&Roots, &Policy),
    ) -> Result<Option<(Self, HookRunner)>, String> {
        if policy.on_commit.is_empty() {
            return Ok(None);
        }
        let with = |key: &str, value: &OsStr| [OsStr::new(key), value].join(OsStr::new("="));
        let config = global.config.iter().map(|path| with("--config", path.as_os_str()));
        let named = args.root.iter().map(|root| with("--root", OsStr::new(root)));
        let words: Vec<OsString> = config.chain(named).collect();
        let mut command = Command::new(SELF);
        command.arg0("rfleet").arg("run-hooks").args(words).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let cannot = |error: &dyn std::fmt::Display| format!("the process that runs hooks cannot be started: {error}");
        let mut child = command.spawn().map_err(|error| cannot(&error))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(cannot(&"it has no pipes"));
        };
        let hooks = HookRunner::open(OwnedFd::from(orders), OwnedFd::from(answers), roots, &policy.on_commit)?;
        Ok(Some((Runner(child), hooks)))
    }

    /// Waits for its end, which comes with that of its pipe.
    pub(super) fn wait(mut self) {
        // However it ended, there is nobody left to be told.
        let _ = self.0.wait();
    }
}

pub(super) fn run(global: &Global, args: &ReceiveArgs) -> Exit {
    if std::io::stdin().is_terminal() {
        complain("run-hooks is started by `rfleet receive` only");
        return Exit::Usage;
    }
    let (roots, policy) = match prepare(global, args) {
        Ok(prepared) => prepared,
        Err(message) => {
            complain(message);
            return Exit::Usage;
        }
    };
    match serve(&roots, &policy) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(error);
            Exit::Failed
        }
    }
}

/// Runs hooks until the receiver ends.
fn serve(roots: &Roots, policy: &Policy) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    let (mut orders, mut answers) = Orders::open(input, output, roots, &policy.on_commit)?;
    let (ordered, mut next) = mpsc::channel(1);
    // A thread that ends with the process at the latest: it may hear nothing more.
    std::thread::spawn(move || {
        while let Ok(Some(due)) = orders.due() {
            if ordered.blocking_send(due).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        while let Some((due, path)) = next.recv().await {
            // Nothing is said while a hook is run, so what comes is the end, or someone who is not what he should be.
            let gone = async { drop(next.recv().await) };
            match program::run(&policy.on_commit[due.hook], &due, &path, gone).await {
                Some(end) => answers.ended(end)?,
                None => return Ok(()),
            }
        }
        Ok(())
    })
}
