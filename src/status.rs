//! What a running agent says of itself and its fleet: the document behind `rfleet status --json`, `/status.json`
//! and the page.
//!
//! Times are milliseconds since 1970 by the clock of the host that says it, spans are seconds. Fields are only ever
//! added; a change of meaning raises [`SCHEMA`].

use serde::{Deserialize, Serialize};

/// Version of the document.
pub const SCHEMA: u32 = 1;

/// Most problems that are named for one host or root; the rest is counted.
pub const NAMED_PROBLEMS: usize = 20;

/// Points of a host's history that are kept.
pub const HISTORY_POINTS: usize = 60;

/// One host's view of its fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of rfleet.
    pub software: String,
    /// The fleet's name.
    pub fleet: String,
    /// This host's name.
    pub host: String,
    /// What it is in the fleet.
    pub role: Role,
    /// The primary's name, where it is known.
    pub primary: Option<String>,
    /// Fencing number of the primaryship.
    pub term: u64,
    /// When this was said.
    pub time_ms: u64,
    /// The process that says it; `None` where no agent runs, and this is what the last push left.
    pub agent: Option<AgentStatus>,
    /// The roots: as their primary has them, or as they are here.
    pub roots: Vec<RootStatus>,
}

impl FleetStatus {
    /// Whether everything is as it should be: no root and no host needs a look, and the agent, where one runs, has no
    /// complaint of its own.
    pub fn is_well(&self) -> bool {
        self.agent.as_ref().is_none_or(|agent| agent.state != AgentState::Degraded)
            && self.roots.iter().all(|root| root.is_well() && root.hosts.iter().all(HostStatus::is_well))
    }
}

/// What a host is in the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Not known (yet).
    #[default]
    Unknown,
    /// It pushes.
    Primary,
    /// It is pushed to.
    Secondary,
}

impl Role {
    /// The word in the document.
    pub fn word(self) -> &'static str {
        match self {
            Role::Unknown => "unknown",
            Role::Primary => "primary",
            Role::Secondary => "secondary",
        }
    }
}

/// The agent's process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_ms: u64,
    /// How it is.
    pub state: AgentState,
    /// Why it is degraded, one line each.
    pub reasons: Vec<String>,
}

/// How an agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// The first cycle is not done.
    #[default]
    Starting,
    /// All is well.
    Ok,
    /// Something does not get on as it should; see the reasons.
    Degraded,
    /// It finishes what is under way and ends.
    Stopping,
}

impl AgentState {
    /// The word in the document.
    pub fn word(self) -> &'static str {
        match self {
            AgentState::Starting => "starting",
            AgentState::Ok => "ok",
            AgentState::Degraded => "degraded",
            AgentState::Stopping => "stopping",
        }
    }
}

/// One root.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RootStatus {
    /// Its name.
    pub name: String,
    /// Where it lies on this host.
    pub path: String,
    /// How it is.
    pub state: RootState,
    /// On the primary the last change that is recorded, on a secondary the last that it has in full.
    pub sequence: u64,
    /// Secondary: when it had this.
    pub committed_ms: Option<u64>,
    /// Entries in the source.
    pub entries: u64,
    /// Content in the source, in bytes.
    pub bytes: u64,
    /// Paths that changed and were not looked at yet.
    pub dirty: u64,
    /// Why a guard refused the last cycle, one line.
    pub refused: Option<String>,
    /// The end of the last whole scan.
    pub scanned_ms: Option<u64>,
    /// How long it took.
    pub scan_s: Option<f64>,
    /// Whole scans since the agent started.
    pub scans: u64,
    /// How changes are noticed.
    pub watch: WatchStatus,
    /// Paths of the source that could not be sent: the first of them.
    pub problems: Vec<PathProblem>,
    /// Their number.
    pub problem_count: u64,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// The secondaries; empty on one.
    pub hosts: Vec<HostStatus>,
}

impl RootStatus {
    /// Whether the root itself is as it should be; its hosts are not looked at.
    pub fn is_well(&self) -> bool {
        self.state == RootState::Ok && self.refused.is_none() && self.problem_count == 0
    }
}

/// How a root is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// As it should be.
    Ok,
    /// A guard refuses: nothing is changed anywhere.
    Refused,
}

impl RootState {
    /// The word in the document.
    pub fn word(self) -> &'static str {
        match self {
            RootState::Unknown => "unknown",
            RootState::Ok => "ok",
            RootState::Refused => "refused",
        }
    }
}

/// How changes of a root are noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// By what.
    pub mode: WatchMode,
    /// Directories that are watched.
    pub directories: u64,
    /// Times that the kernel's queue was full, and everything was scanned.
    pub overflows: u64,
    /// Why it is not `events` although it is asked for, with the way out.
    pub reason: Option<String>,
}

/// By what changes are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchMode {
    /// Not at all.
    #[default]
    Off,
    /// File events, and a scan every interval.
    Events,
    /// Scans only.
    Scans,
}

impl WatchMode {
    /// The word in the document.
    pub fn word(self) -> &'static str {
        match self {
            WatchMode::Off => "off",
            WatchMode::Events => "events",
            WatchMode::Scans => "scans",
        }
    }
}

/// A path that could not be handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProblem {
    /// The path below the root; bytes that are no text are escaped.
    pub path: String,
    /// The class of the cause, as in `rfleet push --json`.
    pub kind: String,
    /// The cause.
    pub detail: String,
}

/// One secondary and one root.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// How it is.
    pub state: HostState,
    /// The last change that it has; 0 where it is not known.
    pub sequence: u64,
    /// Age of the oldest change that it does not have, in seconds; 0 where it has all.
    pub lag_s: f64,
    /// Changes that it does not have; `None` where everything is to be compared.
    pub pending: Option<u64>,
    /// When it last had everything.
    pub success_ms: Option<u64>,
    /// When it is tried again.
    pub next_try_ms: Option<u64>,
    /// Why the last try failed, one line.
    pub error: Option<String>,
    /// Failures without a success in between.
    pub failures: u64,
    /// Paths that could not be handled there: the first of them.
    pub problems: Vec<PathProblem>,
    /// Their number.
    pub problem_count: u64,
    /// Entries that were not as they had been left, since the agent started.
    pub drifted: u64,
    /// Commits since the agent started.
    pub commits: u64,
    /// Files sent since the agent started.
    pub files_sent: u64,
    /// Bytes written to the link since the agent started, before SSH.
    pub bytes_sent: u64,
    /// What is being done there.
    pub now: Option<Doing>,
    /// What its own hooks said after its last commit with any.
    pub hooks: Vec<HookStatus>,
    /// The lag, about once every ten seconds, oldest first; [`HISTORY_POINTS`] at most.
    pub history: Vec<LagPoint>,
}

impl HostStatus {
    /// Whether the host has everything, or is about to, and nothing failed there.
    pub fn is_well(&self) -> bool {
        let state = matches!(self.state, HostState::Current | HostState::Busy);
        state && self.failures == 0 && self.problem_count == 0 && self.hooks.iter().all(|hook| hook.ok)
    }
}

/// How a host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Not tried yet.
    #[default]
    Unknown,
    /// It has everything.
    Current,
    /// Something is being done there.
    Busy,
    /// It has all but some paths; they are tried again.
    Partial,
    /// It failed and is tried again.
    Failed,
    /// A guard refuses, or the host does.
    Refused,
    /// Held by the operator.
    Paused,
}

impl HostState {
    /// All of them.
    pub const ALL: [HostState; 7] = [
        HostState::Unknown,
        HostState::Current,
        HostState::Busy,
        HostState::Partial,
        HostState::Failed,
        HostState::Refused,
        HostState::Paused,
    ];

    /// The word in the document.
    pub fn word(self) -> &'static str {
        match self {
            HostState::Unknown => "unknown",
            HostState::Current => "current",
            HostState::Busy => "busy",
            HostState::Partial => "partial",
            HostState::Failed => "failed",
            HostState::Refused => "refused",
            HostState::Paused => "paused",
        }
    }
}

/// What is being done on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// `connecting`, `comparing`, `waiting`, `sending`, `committing`.
    pub phase: String,
    /// Since when.
    pub since_ms: u64,
    /// Files done.
    pub files: u64,
    /// Of so many.
    pub files_total: u64,
    /// Bytes of content done.
    pub bytes: u64,
    /// Of so many.
    pub bytes_total: u64,
}

/// The lag at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LagPoint {
    /// When.
    pub at_ms: u64,
    /// The lag then, in seconds.
    pub lag_s: f64,
    /// Whether the host's last try had failed.
    pub failed: bool,
}

/// What became of a hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookStatus {
    /// The command, as words for people.
    pub command: String,
    /// Whether it ended well.
    pub ok: bool,
    /// How it ended: `exit 1`, `timeout`, with the last line that it said.
    pub detail: String,
    /// How long it took.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_document(value: impl Serialize) -> String {
        serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn words_are_those_of_the_document() {
        HostState::ALL.iter().for_each(|state| assert_eq!(in_document(state), state.word()));
        let states = [AgentState::Starting, AgentState::Ok, AgentState::Degraded, AgentState::Stopping];
        states.iter().for_each(|state| assert_eq!(in_document(state), state.word()));
        let roles = [Role::Unknown, Role::Primary, Role::Secondary];
        roles.iter().for_each(|role| assert_eq!(in_document(role), role.word()));
        let states = [RootState::Unknown, RootState::Ok, RootState::Refused];
        states.iter().for_each(|state| assert_eq!(in_document(state), state.word()));
        let modes = [WatchMode::Off, WatchMode::Events, WatchMode::Scans];
        modes.iter().for_each(|mode| assert_eq!(in_document(mode), mode.word()));
    }

    #[test]
    fn anything_that_needs_a_look_makes_it_unwell() {
        let host = HostStatus { state: HostState::Current, ..HostStatus::default() };
        let root = RootStatus { state: RootState::Ok, hosts: vec![host], ..RootStatus::default() };
        let agent = AgentStatus { state: AgentState::Ok, ..AgentStatus::default() };
        let well = FleetStatus { agent: Some(agent), roots: vec![root], ..FleetStatus::default() };
        assert!(well.is_well());
        let spoilt: [fn(&mut FleetStatus); 8] = [
            |fleet| fleet.agent.as_mut().unwrap().state = AgentState::Degraded,
            |fleet| fleet.roots[0].state = RootState::Unknown,
            |fleet| fleet.roots[0].refused = Some("too many".into()),
            |fleet| fleet.roots[0].problem_count = 1,
            |fleet| fleet.roots[0].hosts[0].state = HostState::Paused,
            |fleet| fleet.roots[0].hosts[0].failures = 1,
            |fleet| fleet.roots[0].hosts[0].problem_count = 1,
            |fleet| fleet.roots[0].hosts[0].hooks.push(HookStatus::default()),
        ];
        for (number, spoil) in spoilt.iter().enumerate() {
            let mut fleet = well.clone();
            spoil(&mut fleet);
            assert!(!fleet.is_well(), "{number}");
        }
    }
}
