//! One run at a time: a lock in the state directory. It is a lock on an open file, so it ends with
//! the process that holds it, however that ends.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::Duration;

use indicatif::HumanDuration;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::state_dir::StateDir;

/// Most that is read of what the holder wrote.
const MAX_BYTES: u64 = 1024;

/// The right to run, for as long as it is there.
#[derive(Debug)]
pub(super) struct RunLock {
    _file: File,
}

/// Who asked for the lock came too late, or not.
#[derive(Debug)]
pub(super) enum Locked {
    Ours(RunLock),
    /// Another process has it; who, for people.
    Held(String),
}

/// What the file says, for people only: the lock itself is what counts.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    command: String,
    /// Seconds after 1970.
    started_s: u64,
}

/// Takes the lock of `fleet` for `command` at `now_s`, in seconds after 1970. Does not wait.
///
/// # Errors
/// The file cannot be opened or written.
pub(super) fn take(state: &StateDir, fleet: &str, command: &str, now_s: u64) -> io::Result<Locked> {
    let mut file = state.open_file(&format!("{fleet}.lock"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Locked::Held(describe(&file, now_s))),
        Err(error) => return Err(error.into()),
    }
    let holder = Holder { pid: std::process::id(), command: command.to_owned(), started_s: now_s };
    // Numbers and a word always make TOML.
    let text = toml::to_string(&holder).unwrap_or_default();
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    Ok(Locked::Ours(RunLock { _file: file }))
}

fn describe(file: &File, now_s: u64) -> String {
    let mut text = String::new();
    let holder = file.take(MAX_BYTES).read_to_string(&mut text).ok().and_then(|_| toml::from_str::<Holder>(&text).ok());
    match holder {
        Some(Holder { pid, command, started_s }) => {
            let ago = HumanDuration(Duration::from_secs(now_s.saturating_sub(started_s)));
            format!("`rfleet {}` is running (pid {pid}, since {ago} ago)", command.escape_debug())
        }
        // It has the lock and did not write yet, or could not.
        None => "another run is going on".to_owned(),
    }
}
