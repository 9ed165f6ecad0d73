//! The daemon: one owner takes the next event, changes what it knows, and begins what is due.
//!
//! ```text
//! file events ─┐                                       ┌─ look and push (a task a cycle) ─► looked, host ended, ended
//! time ────────┼─► owner: roots, hosts, who waits ─────┤
//! requests ────┤                                       └─ status ─► serve, `rfleet status`
//! signals ─────┘
//! ```
//!
//! | file       | what it owns |
//! |------------|--------------|
//! | `settings` | what it is told to do |
//! | `schedule` | pure: when to look at what |
//! | `host`     | pure: one secondary, when it is tried |
//! | `barrier`  | pure: who waits for what |
//! | `unsent`   | pure: when what could not be sent is looked at again |
//! | `watching` | why a root is watched, or is not |
//! | `root`     | one root: which cycle may begin |
//! | `owner`    | the loop |
//! | `tell`     | what a cycle came to, for the log |
//! | `pushes`   | `rfleet push` while an agent runs |
//! | `control`  | the socket of `rfleet status`, `wait` and `host` |
//! | `canary`   | proof that events still come |
//! | `notify`   | what systemd is told |
//! | `doing`    | what is being done on each host |

mod barrier;
mod canary;
mod control;
mod doing;
mod host;
mod notify;
mod owner;
mod pushes;
mod root;
mod schedule;
mod settings;
mod tell;
mod unsent;
mod watching;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

pub use owner::{Ended, run};
pub use settings::{Hold, HostSettings, Received, RecordTemplate, RootSettings, Settings, Timing};

use crate::model::Timestamp;
use crate::status::FleetStatus;

/// How the agent tells others of its fleet.
pub type StatusReceiver = watch::Receiver<Arc<FleetStatus>>;

/// Makes the settings anew, as after an edit of the configuration; else one line that says why not.
pub type Reload = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// Hears how long things take.
pub trait Times: Send + Sync {
    /// A cycle of a root, from its begin to the end of its last host.
    fn cycle(&self, root: &str, took: Duration);
    /// A host's part of a cycle that changed something there.
    fn commit(&self, root: &str, host: &str, took: Duration);
    /// From a change to a host having it.
    fn delivered(&self, root: &str, host: &str, after: Duration);
}

/// The time of day.
fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let secs = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    Timestamp { secs, nanos: passed.subsec_nanos() }
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.secs).unwrap_or(0).saturating_mul(1000).saturating_add(u64::from(time.nanos / 1_000_000))
}

/// Any number. Random keys are what this hasher is made with.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
