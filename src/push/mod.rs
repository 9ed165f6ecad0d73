//! One cycle: a root is brought to all hosts.
//!
//! [`push_root`] scans the source while one session for each host connects and asks for its
//! inventory. Each session makes its plan and brings it to the `rendezvous`, where the guard looks at
//! all of them together and where the content that several hosts need is bundled, so that it is read
//! and encoded once. From there on the sessions run independently to their end.

mod backoff;
mod channel;
mod comparing;
mod contents;
mod endpoint;
mod fanout;
mod glance;
#[cfg(test)]
mod glance_tests;
mod inventory;
mod kept;
mod limit;
mod line;
mod output;
mod probe;
mod record;
mod rendezvous;
mod report;
mod session;
mod signatures;
mod source;
mod survey;
mod transfer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use backoff::Failures;
pub use endpoint::{Endpoint, Reach};
pub use fanout::push_root;
pub use kept::Kept;
pub use limit::Limiter;
pub use line::Line;
pub use probe::{Probe, ProbeError, ProbeRequest, probe};
pub use record::RecordJob;
pub use rendezvous::GuardSettings;
pub use report::{HookReport, HostReport, HostState, RootReport, Skipped};
pub use source::check_require;

use tokio::sync::{mpsc, oneshot};

use crate::model::{Position, RelPath, Term};
use crate::observe::Monitor;
use crate::tree::{Selection, Unwatched, Watcher};

/// One host's part of a [`RootJob`].
pub struct HostJob {
    /// The host.
    pub endpoint: Arc<Endpoint>,
    /// What to run to get a receiver for this root there.
    pub receiver: Vec<String>,
    /// Why the host is not to be tried this time; its report says so.
    pub held: Option<String>,
    /// Everything there is to be compared.
    pub compare: bool,
    /// Where the session is kept open for the next cycle; `None`: it ends with this one.
    pub line: Option<Arc<Line>>,
}

/// How much of the source is looked at.
#[derive(Clone, Debug, Default)]
pub enum Extent {
    /// All of it.
    #[default]
    Whole,
    /// These paths, and what came with them; all of it where that does not tell.
    Paths(Arc<Paths>),
}

/// Paths to be looked at; of a directory, whether it is to be listed with all below it even if it looks as it did: it
/// may be another one.
pub type Paths = BTreeMap<RelPath, bool>;

/// What became of the look at the source: told as soon as it is known, before any host has it.
#[derive(Clone, Debug)]
pub struct Looked {
    /// All of it was scanned.
    pub whole: bool,
    /// What a host has that has everything.
    pub position: Position,
    /// Entries in the source.
    pub entries: u64,
    /// Directories that changes are not noticed in.
    pub unwatched: Unwatched,
    /// Something came and went between two looks. If it was another name of a file, what was done by it is not known.
    pub passed: bool,
}

/// A root and what to do with it.
pub struct RootJob {
    /// The fleet; `None` for a push without configuration.
    pub fleet: Option<String>,
    /// The root's name; empty for a push without configuration.
    pub name: String,
    /// The source directory.
    pub path: PathBuf,
    /// A file that must exist in the source.
    pub require: Option<PathBuf>,
    /// Destinations on this host, to be compared with the source's place.
    pub local_destinations: Vec<PathBuf>,
    /// What of the source is synced.
    pub selection: Selection,
    /// Delete on the hosts what patterns leave out.
    pub delete_excluded: bool,
    /// Delete what the source does not have.
    pub delete: bool,
    /// Compare contents.
    pub checksum: bool,
    /// Sync extended attributes and ACLs.
    pub attributes: bool,
    /// How much of the source is looked at.
    pub extent: Extent,
    /// What is kept of the source in memory from one cycle to the next; only with `record`.
    pub kept: Option<Arc<Kept>>,
    /// Watches the directories that are listed.
    pub watcher: Option<Arc<Watcher>>,
    /// Told what became of the look at the source. Dropped where a guard refuses.
    pub looked: Option<oneshot::Sender<Looked>>,
    /// Told where that is by now which could not be sent: it is to be looked at again.
    pub unsent: Option<mpsc::UnboundedSender<RelPath>>,
    /// Told of each host as soon as its part is over.
    pub ended: Option<mpsc::UnboundedSender<HostReport>>,
    /// Change nothing.
    pub dry_run: bool,
    /// Keep the lines of the changes.
    pub itemize: bool,
    /// What is kept from one push to the next; `None`: nothing.
    pub record: Option<RecordJob>,
    /// The index of earlier pushes, for what it remembers of mount points where `record` is not to be used.
    pub memory: Option<PathBuf>,
    /// What the guard allows.
    pub guard: GuardSettings,
    /// The primaryship.
    pub term: Term,
    /// This host's name.
    pub primary: String,
    /// Silence after which a host is given up.
    pub timeout: Duration,
    /// Hosts that are compared, and hosts that are sent to, at a time.
    pub parallel: usize,
    /// The bound on what is sent, for all hosts together.
    pub limiter: Option<Arc<Limiter>>,
    /// Told about progress.
    pub monitor: Arc<dyn Monitor>,
    /// Turns true when the push is to stop.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

impl RootJob {
    /// What to call the root in messages.
    pub fn label(&self) -> String {
        if self.name.is_empty() { self.path.display().to_string() } else { self.name.clone() }
    }
}
