//! Where the index of each root lies, and what it is told of this host and this run.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::fleet;
use super::push::Root;
use crate::model::{Stamp, Timestamp};
use crate::push::RecordJob;

/// What tells a machine from its copies, on every host with systemd and many others.
const MACHINE_ID: &str = "/etc/machine-id";

/// The indexes of a fleet.
#[derive(Clone, Debug)]
pub(super) struct Indexes {
    directory: PathBuf,
    fleet: String,
    verify_interval: Duration,
    now: Timestamp,
}

impl Indexes {
    pub(super) fn new(directory: PathBuf, fleet: String, verify_interval: Duration) -> Self {
        let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let secs = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
        Indexes { directory, fleet, verify_interval, now: Timestamp { secs, nanos: passed.subsec_nanos() } }
    }

    /// Where the index of the root `name` lies.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        index_file(&self.directory, &self.fleet, name)
    }

    /// The index of `root`.
    pub(super) fn of(&self, root: &Root, full: bool) -> RecordJob {
        RecordJob {
            file: self.file(&root.name),
            machine: machine(),
            filter: root.selection.identity(root.delete_excluded),
            // Random keys are what this hasher is made with.
            stamp: Stamp(RandomState::new().build_hasher().finish().max(1)),
            now: self.now,
            verify_interval: self.verify_interval,
            full,
        }
    }
}

/// Where the index of `root` in `fleet` lies below the state directory.
pub(super) fn index_file(directory: &Path, fleet: &str, root: &str) -> PathBuf {
    // Neither name can hold a colon.
    directory.join(format!("{fleet}:{root}.index"))
}

pub(super) fn machine() -> String {
    let id = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    if id.trim().is_empty() { fleet::own_name() } else { id.trim().to_owned() }
}
