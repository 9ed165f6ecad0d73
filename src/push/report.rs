//! What came of a push.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Position, Problem, RelPath};
use crate::plan::Totals;
use crate::plan::guard::GuardRefusal;
use crate::wire::HookResult;

/// How one host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostState {
    /// Everything is there.
    Done,
    /// Nothing was to be done.
    Unchanged,
    /// Nothing was done because nothing was to be: this is what would be.
    Planned,
    /// Done but for the problems listed, or for hooks that failed.
    Partial,
    /// Given up; tried again at the next push.
    Failed,
    /// A guard refused; nothing was changed.
    Refused,
}

impl HostState {
    /// The name that scripts see.
    pub fn name(self) -> &'static str {
        match self {
            HostState::Done => "done",
            HostState::Unchanged => "unchanged",
            HostState::Planned => "planned",
            HostState::Partial => "partial",
            HostState::Failed => "failed",
            HostState::Refused => "refused",
        }
    }
}

/// A hook that a host's own configuration had it run after the commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookReport {
    /// The command, as words for people.
    pub command: String,
    /// Whether it ended well.
    pub ok: bool,
    /// How it ended: `exit 1`, `timeout after 60s`, with the last line that it said.
    pub detail: String,
    /// How long it took.
    pub seconds: f64,
}

impl From<HookResult> for HookReport {
    fn from(hook: HookResult) -> Self {
        // Their lengths were checked while they were decoded.
        let HookResult { command, ok, detail, milliseconds } = hook;
        HookReport { command, ok, detail, seconds: Duration::from_millis(milliseconds).as_secs_f64() }
    }
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostReport {
    /// The host's name.
    pub name: String,
    /// How it ended.
    pub state: HostState,
    /// Why it failed, one line.
    pub error: Option<String>,
    /// Whether there was somebody there; `None` if it was not tried, or not to its end.
    pub reached: Option<bool>,
    /// Whether it failed because a newer primary exists.
    pub fenced: bool,
    /// From the start of the push to the end of this host's part, in seconds.
    pub seconds: f64,
    /// The plan in numbers.
    pub totals: Totals,
    /// Files whose content was sent.
    pub files_sent: u64,
    /// Bytes written to the link, before SSH.
    pub bytes_sent: u64,
    /// Bytes read from the link, before SSH.
    pub bytes_received: u64,
    /// Content that was sent as such, before compression.
    pub literal_bytes: u64,
    /// Content that the host took from its own files.
    pub matched_bytes: u64,
    /// Paths that could not be handled there.
    pub problems: Vec<Problem>,
    /// Problems that found no place in the list.
    pub more_problems: u64,
    /// Entries that were not as the last push had left them.
    pub drifted: u64,
    /// What it has now, less what it had problems with; `None` if that is not known.
    pub position: Option<Position>,
    /// Everything there was compared.
    pub reconciled: bool,
    /// Something was left there of which it is not sure whether it is gone: everything is to be compared.
    pub unsure: bool,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// Its own hooks that ran after the commit, in their order.
    pub hooks: Vec<HookReport>,
    /// The changes in rsync's letters, where they were asked for.
    pub changes: Vec<String>,
}

impl HostReport {
    /// A host of which nothing is known yet.
    pub fn new(name: &str) -> Self {
        HostReport {
            name: name.to_owned(),
            state: HostState::Failed,
            error: None,
            reached: None,
            fenced: false,
            seconds: 0.0,
            totals: Totals::default(),
            files_sent: 0,
            bytes_sent: 0,
            bytes_received: 0,
            literal_bytes: 0,
            matched_bytes: 0,
            problems: Vec::new(),
            more_problems: 0,
            drifted: 0,
            position: None,
            reconciled: false,
            unsure: false,
            notes: Vec::new(),
            hooks: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// Files that are too large to be synced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The bound, in bytes.
    pub max_size_bytes: u64,
    /// Their number.
    pub files: u64,
    /// The first of them in path order, with their sizes in bytes.
    pub named: Vec<(RelPath, u64)>,
}

/// One root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootReport {
    /// Its name; empty for a push without configuration.
    pub name: String,
    /// The source directory.
    pub path: std::path::PathBuf,
    /// Entries in the source.
    pub entries: u64,
    /// Content in the source.
    pub bytes: u64,
    /// Content that was read to be sent; the same however many hosts there are.
    pub read_bytes: u64,
    /// Why nothing was changed anywhere.
    pub refused: Option<GuardRefusal>,
    /// Paths of the source that could not be sent.
    pub problems: Vec<Problem>,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// Files that are too large; `None` where there is none.
    pub skipped: Option<Skipped>,
    /// The hosts, in the order given.
    pub hosts: Vec<HostReport>,
}
