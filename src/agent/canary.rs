//! Proof that events still come: a file of our own that is written every so often, and has to be noticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::model::RelPath;
use crate::tree::{Noticed, Root, Watcher};

/// How often it is written.
const EVERY: Duration = Duration::from_secs(10);

/// How long the event may take.
const PATIENCE: Duration = Duration::from_secs(5);

const NAME: &str = "canary";

/// See the module.
pub(super) struct Canary {
    directory: PathBuf,
    watcher: Option<Watcher>,
    written: Option<Instant>,
    heard: bool,
}

impl Canary {
    /// In a directory below the state directory that nothing else writes to. Where it cannot be made, it proves nothing.
    pub(super) fn new(state: &Path) -> Self {
        let directory = state.join("canary");
        let watcher = watch(&directory);
        if watcher.is_none() {
            tracing::debug!("file events are not probed: {} cannot be watched", directory.display());
        }
        Canary { directory, watcher, written: None, heard: true }
    }

    /// Writes it if it is time to; whether events come, as far as is known.
    pub(super) fn probe(&mut self, now: Instant) -> bool {
        let Some(watcher) = &self.watcher else { return true };
        let mut heard = false;
        if watcher.read(&mut |noticed| heard |= matches!(noticed, Noticed::At(..))).is_err() {
            return false;
        }
        self.heard |= heard;
        let silent = |written: Instant| !self.heard && now.duration_since(written) >= PATIENCE;
        if self.written.is_some_and(silent) {
            return false;
        }
        if self.written.is_none_or(|written| now.duration_since(written) >= EVERY) {
            // A full disk is no proof of anything.
            if fs::write(self.directory.join(NAME), b"").is_ok() {
                (self.written, self.heard) = (Some(now), false);
            }
        }
        true
    }
}

fn watch(directory: &Path) -> Option<Watcher> {
    fs::create_dir_all(directory).ok()?;
    let watcher = Watcher::new().ok()?;
    let top = RelPath::root();
    let dir = Root::open(directory).ok()?.dir(&top).ok()?;
    watcher.add(&dir, &top).ok()?;
    Some(watcher)
}
