//! What is being done on each host, as the work itself tells.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{millis, now};
use crate::observe::{Monitor, Phase};
use crate::status::Doing;

/// For one root.
#[derive(Default)]
pub(super) struct DoingNow(Mutex<HashMap<String, Doing>>);

impl DoingNow {
    fn change(&self, host: &str, change: impl FnOnce(&mut Doing)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(host.to_owned()).or_default());
    }

    /// What is being done on `host`.
    pub(super) fn on(&self, host: &str) -> Option<Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }
}

impl Monitor for DoingNow {
    fn phase(&self, host: &str, phase: Phase) {
        let name = match phase {
            Phase::Connecting => "connecting",
            Phase::Comparing => "comparing",
            Phase::Waiting => "waiting",
            Phase::Sending => "sending",
            Phase::Committing => "committing",
            Phase::Done | Phase::Failed => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
                return;
            }
        };
        self.change(host, |doing| {
            doing.phase = name.to_owned();
            doing.since_ms = millis(now());
        });
    }

    fn planned(&self, host: &str, files: u64, bytes: u64) {
        self.change(host, |doing| {
            (doing.files, doing.bytes) = (0, 0);
            (doing.files_total, doing.bytes_total) = (files, bytes);
        });
    }

    fn progress(&self, host: &str, files: u64, bytes: u64) {
        self.change(host, |doing| (doing.files, doing.bytes) = (files, bytes));
    }
}
