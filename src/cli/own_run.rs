//! A run by configuration that changes something: one at a time, and it knows which hosts the runs
//! before it could not reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::history::History;
use super::index::Indexes;
use super::paused::Paused;
use super::run_lock::{self, Locked, RunLock};
use super::state_dir::StateDir;
use super::{Exit, complain};
use crate::config::Config;
use crate::push::RootReport;
use crate::serve::words::ago;

/// The run. Others wait for their time until it is dropped.
#[derive(Debug)]
pub(super) struct OwnRun {
    state: Arc<StateDir>,
    _lock: RunLock,
    history: History,
    paused: Paused,
    fleet: String,
    members: Vec<String>,
}

impl OwnRun {
    /// Begins a run of `command`; `None` if another one is going on, which was said then.
    ///
    /// # Errors
    /// There is no usable state directory, which was said.
    pub(super) fn begin(config: &Config, command: &str, quiet: bool) -> Result<Option<Self>, Exit> {
        let failed = |error: String| {
            complain(error);
            Exit::Failed
        };
        let state = StateDir::open().map_err(failed)?;
        let fleet = config.fleet.clone();
        let locked = run_lock::take(&state, &fleet, command, now_s());
        let locked = locked.map_err(|error| {
            let path = state.path().join(format!("{fleet}.lock"));
            failed(format!("{}: {error}", path.display()))
        });
        let lock = match locked? {
            Locked::Ours(lock) => lock,
            Locked::Held(who) => {
                if !quiet {
                    complain(format!("fleet {fleet}: {who}; nothing was done"));
                }
                return Ok(None);
            }
        };
        let members = config.static_hosts().into_iter().map(|host| host.name).collect();
        let history = History::load(&state, &fleet);
        let paused = Paused::load(&state, &fleet).map_err(failed)?;
        Ok(Some(OwnRun { state: Arc::new(state), _lock: lock, history, paused, fleet, members }))
    }

    /// The state directory.
    pub(super) fn state(&self) -> &Arc<StateDir> {
        &self.state
    }

    /// Hosts that are not to be tried, with the reason: those that are paused, and, unless it is to be done
    /// `at_once`, those that could not be reached lately.
    pub(super) fn held(&self, at_once: bool) -> HashMap<String, String> {
        let now_s = now_s();
        let mut held = if at_once { HashMap::new() } else { self.history.held(now_s) };
        for (host, since_s) in self.paused.hosts() {
            let since = ago(now_s.saturating_mul(1000), since_s.saturating_mul(1000));
            held.insert(host.to_owned(), format!("paused {since}; `rfleet host resume {host}` lets it go on"));
        }
        held
    }

    /// What is kept of each root.
    pub(super) fn indexes(&self, verify_interval: Duration) -> Indexes {
        Indexes::new(self.state.path().to_owned(), self.fleet.clone(), verify_interval)
    }

    /// Remembers what came of it for the next run.
    pub(super) fn record(&mut self, reports: &[RootReport]) {
        let recorded = self.history.record(&self.state, &self.fleet, reports, &self.members, now_s());
        if let Err(error) = recorded {
            tracing::warn!("which hosts could not be reached is not remembered: {error}");
        }
    }
}

/// The time, in seconds after 1970.
fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
