//! Which hosts could not be reached lately: a small file for each fleet in the state directory.
//! It saves tries that would fail; without it every host is tried, so a damaged one does no harm.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state_dir::StateDir;
use crate::push::{Failures, RootReport};

/// Version of the format.
const VERSION: u32 = 1;

/// Largest file that is believed: ten thousand hosts with a line of error each fit.
const MAX_BYTES: u64 = 8 << 20;

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    hosts: BTreeMap<String, Failed>,
}

/// A host that could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    in_a_row: u32,
    /// Seconds after 1970.
    last_s: u64,
    error: String,
}

/// The hosts of a fleet that could not be reached.
#[derive(Debug, Default)]
pub(super) struct History {
    hosts: BTreeMap<String, Failed>,
}

fn file(fleet: &str) -> String {
    format!("{fleet}.hosts.toml")
}

impl History {
    /// Reads the file of `fleet`; one that cannot be understood is none, and the log says so.
    pub(super) fn load(state: &StateDir, fleet: &str) -> Self {
        let read = state.read(&file(fleet), MAX_BYTES).map_err(|error| error.to_string());
        let hosts = read.and_then(|bytes| bytes.map_or_else(|| Ok(BTreeMap::new()), |bytes| parse(&bytes)));
        hosts.map(|hosts| History { hosts }).unwrap_or_else(|error| {
            let path = state.path().join(file(fleet));
            tracing::warn!("{}: every host is tried, this cannot be used: {error}", path.display());
            History::default()
        })
    }

    /// Which hosts are not to be tried yet at `now_s`, and what their reports say.
    pub(super) fn held(&self, now_s: u64) -> HashMap<String, String> {
        let held = |(name, failed): (&String, &Failed)| {
            let failures = Failures { in_a_row: failed.in_a_row, last_s: failed.last_s };
            let wait = failures.wait(now_s, chance(name, failed.in_a_row))?;
            let line = format!(
                "not tried: {} failures in a row, last: {}; next try in {} (rfleet push --host {name} tries at once)",
                failed.in_a_row,
                failed.error,
                minutes(wait),
            );
            Some((name.clone(), line))
        };
        self.hosts.iter().filter_map(held).collect()
    }

    /// What is known of the host's failures: how many in a row, the last error, and when it is tried again, in
    /// seconds after 1970.
    pub(super) fn failures(&self, name: &str, now_s: u64) -> Option<(u32, &str, u64)> {
        let failed = self.hosts.get(name)?;
        let failures = Failures { in_a_row: failed.in_a_row, last_s: failed.last_s };
        let wait = failures.wait(now_s, chance(name, failed.in_a_row)).unwrap_or_default();
        Some((failed.in_a_row, &failed.error, now_s + wait.as_secs()))
    }

    /// Takes in what came of a run at `now_s`, and forgets hosts that are not `members`. Whether
    /// something is different now.
    fn learn(&mut self, reports: &[RootReport], members: &[String], now_s: u64) -> bool {
        let before = self.hosts.clone();
        let mut reached: BTreeMap<&str, (bool, &str)> = BTreeMap::new();
        for host in reports.iter().flat_map(|root| &root.hosts) {
            if let Some(now) = host.reached {
                let error = host.error.as_deref().unwrap_or_default();
                let so_far = reached.entry(&host.name).or_insert((now, error));
                // One root that found nobody is enough.
                if !now {
                    *so_far = (false, error);
                }
            }
        }
        for (name, (reached, error)) in reached {
            if reached {
                self.hosts.remove(name);
            } else {
                let in_a_row = self.hosts.get(name).map_or(0, |failed| failed.in_a_row).saturating_add(1);
                let error = error.chars().map(|char| if char.is_control() { '?' } else { char }).take(300).collect();
                self.hosts.insert(name.to_owned(), Failed { in_a_row, last_s: now_s, error });
            }
        }
        self.hosts.retain(|name, _| members.contains(name));
        self.hosts != before
    }

    /// Takes in what came of a run at `now_s` and writes it down if something is different now.
    ///
    /// # Errors
    /// One line: the next run will know less.
    pub(super) fn record(
        &mut self,
        state: &StateDir,
        fleet: &str,
        reports: &[RootReport],
        members: &[String],
        now_s: u64,
    ) -> Result<(), String> {
        if !self.learn(reports, members, now_s) {
            return Ok(());
        }
        let stored = Stored { version: VERSION, hosts: self.hosts.clone() };
        let written = match toml::to_string(&stored) {
            _ if self.hosts.is_empty() => state.remove(&file(fleet)),
            Ok(text) => state.replace(&file(fleet), text.as_bytes()),
            Err(error) => Err(std::io::Error::other(error)),
        };
        written.map_err(|error| format!("{}: {error}", state.path().join(file(fleet)).display()))
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Failed>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let stored: Stored = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if stored.version == VERSION { Ok(stored.hosts) } else { Err(format!("it has version {}", stored.version)) }
}

/// Differs from host to host and from failure to failure, and stays for each.
fn chance(name: &str, in_a_row: u32) -> u64 {
    let hash = blake3::hash(format!("{name}\n{in_a_row}").as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests;
