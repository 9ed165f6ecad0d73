//! A duplex byte link to a receiver: over SSH, or to a process on this host. Knows no message.

mod child;
mod ssh;

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

pub use child::spawn;
pub use ssh::{HostKeys, SshError, SshKeep, SshOptions, SshSession, SshTarget};

/// What a receiver wrote to its standard error, its end at most.
#[derive(Clone)]
pub struct ErrorText {
    text: Arc<Mutex<Vec<u8>>>,
    /// Turns true when everything was read.
    complete: watch::Receiver<bool>,
}

/// How long the rest of it may take when the process has ended. A child of it can hold it open.
const ERROR_TEXT_GRACE: Duration = Duration::from_millis(500);

/// Most that is kept of it.
const ERROR_TEXT_BYTES: usize = 4096;

impl ErrorText {
    /// Starts collecting from `stderr`.
    fn collect(mut stderr: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let (done, complete) = watch::channel(false);
        let sink = Arc::clone(&text);
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
                let mut text = sink.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend_from_slice(&buffer[..read]);
                let excess = text.len().saturating_sub(ERROR_TEXT_BYTES);
                text.drain(..excess);
            }
            done.send_replace(true);
        });
        ErrorText { text, complete }
    }

    /// Waits for the rest of it, not for long.
    pub async fn complete(&self) {
        let mut complete = self.complete.clone();
        // Either it is complete, or what there is must do.
        let _ = tokio::time::timeout(ERROR_TEXT_GRACE, complete.wait_for(|complete| *complete)).await;
    }

    /// The last line that says something, fit for a terminal.
    pub fn last_line(&self) -> Option<String> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().map(|char| if char.is_control() { '?' } else { char }).take(300).collect())
    }
}

/// How the process at the other end stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// The shell at the far side does not know the command.
    NotFound,
    /// By a signal, or with the connection.
    Lost,
}

impl Exit {
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(127) => Exit::NotFound,
            Some(code) => Exit::Code(code),
            None => Exit::Lost,
        }
    }
}

/// A process of this host that leads a group of its own.
struct LocalProcess(tokio::process::Child);

impl LocalProcess {
    /// Ends the process and what it started: a wrapper must not leave a receiver behind.
    fn kill(&mut self) {
        // Without a number it was waited for already, and the number may be another's by now.
        let group = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // A group that is gone is what is wanted.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

enum Process {
    Local(Box<LocalProcess>),
    Remote(Box<openssh::Child<Arc<openssh::Session>>>),
}

/// The process behind a link. Dropping it ends a local one.
pub struct Peer {
    process: Process,
    /// What it said on standard error.
    pub errors: ErrorText,
}

impl Peer {
    /// Waits until the process has stopped, at most for `grace`; then a local one is killed, and a
    /// remote one left to notice that its input has ended.
    pub async fn wait(self, grace: Duration) -> Exit {
        match self.process {
            Process::Local(mut process) => match tokio::time::timeout(grace, process.0.wait()).await {
                Ok(status) => status.map_or(Exit::Lost, Exit::of),
                Err(_) => {
                    process.kill();
                    // Only so that no zombie stays.
                    let _ = process.0.wait().await;
                    Exit::Lost
                }
            },
            Process::Remote(child) => match tokio::time::timeout(grace, child.wait()).await {
                Ok(Ok(status)) => Exit::of(status),
                Ok(Err(openssh::Error::Remote(error))) if error.kind() == io::ErrorKind::NotFound => Exit::NotFound,
                _ => Exit::Lost,
            },
        }
    }
}

/// A receiver's standard input and output.
pub struct Link {
    /// What it says.
    pub input: Box<dyn AsyncRead + Send + Unpin>,
    /// What it hears: the write end of a pipe, blocking as it is.
    pub output: OwnedFd,
    /// The process itself.
    pub peer: Peer,
}
