//! `rfleet push` where an agent runs: the agent does it, as nothing may come in between what it does.

use std::time::Instant;

use super::agent_client::AgentClient;
use super::push::{Options, Request, report};
use super::{Exit, Global, complain, fleet, render, state_dir};
use crate::config::Config;

/// Has the agent do it, if one runs here for this fleet; `None` if none does, or it is nothing that an agent comes in
/// between.
pub(super) fn push(global: &Global, options: &Options, request: &Request) -> Option<Exit> {
    if request.command != "push" || request.dry_run {
        return None;
    }
    let started = Instant::now();
    // What is wrong with either is said where they are loaded to be used.
    let config = Config::load(&global.config_path()).ok().filter(|config| config.unavailable().is_empty())?;
    let state = state_dir::locate().ok()?;
    let mut agent = AgentClient::connect(&state).ok()??;
    let fleet = agent.status().ok().map(|status| status.fleet)?;
    if fleet != config.fleet || !fleet::is_primary(&config, &fleet::own_name()) {
        return None;
    }
    if let Some(option) = not_for_agents(options, request) {
        complain(format!("{option}: an agent runs here and pushes by its configuration; stop it first"));
        return Some(Exit::Failed);
    }
    match agent.push(request.confirmed.clone(), request.adopt, request.full) {
        Ok(reports) => Some(report(global, options, request, Some(&fleet), &reports, started.elapsed())),
        Err(error) => {
            complain(render::shown(&error));
            Some(Exit::Failed)
        }
    }
}

/// What changes a single run, and is no business of an agent that goes on afterwards.
fn not_for_agents(options: &Options, request: &Request) -> Option<&'static str> {
    let given = [
        (request.itemize, "--itemize-changes"),
        (request.delete_excluded, "--delete-excluded"),
        (request.max_delete.is_some(), "--max-delete"),
        (request.bytes_per_second.is_some(), "--bwlimit"),
        (options.checksum, "--checksum"),
        (options.xattrs, "--xattrs"),
        (!options.exclude.is_empty(), "--exclude"),
        (options.host.is_some(), "--host"),
        (options.ssh_config.is_some(), "--ssh-config"),
        (options.receiver.is_some(), "--receiver"),
        (options.timeout.is_some(), "--timeout"),
    ];
    given.into_iter().find(|(is_given, _)| *is_given).map(|(_, option)| option)
}
