//! What an agent is told to do: plain values, made from the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Stamp, Term, Timestamp};
use crate::plan::guard::DeleteLimit;
use crate::push::{Endpoint, Limiter, RecordJob};
use crate::status::{Role, RootStatus};
use crate::tree::Selection;

pub use super::schedule::Timing;

/// What an agent does. Where two of these agree on a root or a host, a reload leaves it alone.
#[derive(Clone)]
pub struct Settings {
    /// The fleet.
    pub fleet: String,
    /// This host.
    pub host: String,
    /// What it is.
    pub role: Role,
    /// The primary's name, where it is known.
    pub primary: Option<String>,
    /// The primaryship.
    pub term: Term,
    /// What is pushed; nothing on a secondary.
    pub roots: Vec<RootSettings>,
    /// The secondaries.
    pub hosts: Vec<HostSettings>,
    /// When to look.
    pub timing: Timing,
    /// File events are used.
    pub events: bool,
    /// Silence after which a host is given up.
    pub timeout: Duration,
    /// Hosts that are compared, and hosts that are sent to, at a time.
    pub parallel: usize,
    /// The bound on what is sent, for all hosts together.
    pub limiter: Option<Arc<Limiter>>,
    /// Failed cycles in a row after which the agent ends; 0 is never.
    pub max_failures: u32,
    /// Where what it knows is kept, and where its socket is.
    pub state: PathBuf,
    /// Remembers hosts that are held.
    pub hold: Hold,
    /// Tells what a secondary has.
    pub received: Received,
}

/// Writes down that a host is held, or no longer; whether that is news. The error is one line.
pub type Hold = Arc<dyn Fn(&str, bool) -> Result<bool, String> + Send + Sync>;

/// What is in the roots of a secondary, as it is on its disk, and the primary that wrote it last.
pub type Received = Arc<dyn Fn() -> (Vec<RootStatus>, Option<String>) + Send + Sync>;

/// One root.
#[derive(Clone, Debug, PartialEq)]
pub struct RootSettings {
    /// Its name.
    pub name: String,
    /// Where it lies here.
    pub path: PathBuf,
    /// A file that must exist in it.
    pub require: Option<PathBuf>,
    /// What of it is synced.
    pub selection: Selection,
    /// Delete what it does not have.
    pub delete: bool,
    /// Delete what patterns leave out.
    pub delete_excluded: bool,
    /// Extended attributes are synced.
    pub attributes: bool,
    /// The most that a cycle may delete on a host.
    pub max_delete: DeleteLimit,
    /// What is kept of it, as of no time in particular.
    pub record: RecordTemplate,
}

/// Where a root's index lies and what it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordTemplate {
    /// The index's file.
    pub file: PathBuf,
    /// What tells this machine from others.
    pub machine: String,
    /// What of the source is synced, as text.
    pub filter: String,
    /// After this everything on a host is compared again.
    pub verify_interval: Duration,
}

impl RecordTemplate {
    pub(super) fn at(&self, now: Timestamp, stamp: Stamp, full: bool) -> RecordJob {
        RecordJob {
            file: self.file.clone(),
            machine: self.machine.clone(),
            filter: self.filter.clone(),
            stamp,
            now,
            verify_interval: self.verify_interval,
            full,
        }
    }
}

/// One secondary.
#[derive(Clone)]
pub struct HostSettings {
    /// Its name.
    pub name: String,
    /// Where it is reached, for people.
    pub address: String,
    /// Everything about how it is reached, as text: the same text is the same host.
    pub identity: String,
    /// The way to it.
    pub endpoint: Arc<Endpoint>,
    /// What to run there to get a receiver, for each root.
    pub receivers: Vec<Vec<String>>,
    /// Nothing is sent to it until it is resumed.
    pub paused: bool,
}
