//! What a cycle came to, for the log.

use std::time::Duration;

use crate::model::{Problem, shown};
use crate::push::{HostReport, HostState, RootReport};

/// One line for a cycle that did something; none for one that did not.
pub(super) fn say(report: &RootReport, took: Duration) {
    let root = &report.name;
    for host in &report.hosts {
        if let Some(error) = &host.error {
            tracing::warn!(root, host = host.name, "{}: {}", host.name, shown(error));
        }
        let own = host.problems.iter().filter(|problem| !report.problems.contains(problem));
        let told = |problem: &Problem| {
            tracing::warn!(root, host = host.name, "{}: {}", host.name, shown(&problem.to_string()));
        };
        own.for_each(told);
        host.notes.iter().for_each(|note| tracing::info!(root, host = host.name, "{}: {}", host.name, shown(note)));
    }
    report.problems.iter().for_each(|problem| tracing::warn!(root, "{}", shown(&problem.to_string())));
    report.notes.iter().for_each(|note| tracing::info!(root, "{}", shown(note)));
    let done: Vec<&HostReport> =
        report.hosts.iter().filter(|host| matches!(host.state, HostState::Done | HostState::Partial)).collect();
    if done.is_empty() {
        return;
    }
    let most = |count: fn(&HostReport) -> u64| done.iter().map(|host| count(host)).max().unwrap_or(0);
    let (files, deleted) = (most(|host| host.files_sent), most(|host| host.totals.deleted));
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(hosts = done.len(), files, deleted, milliseconds, "{root}: pushed");
}
