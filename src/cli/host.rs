//! `rfleet host`: hold a host, let it go on, forget what is known of it.

use std::path::Path;

use clap::{Args, Subcommand};

use super::agent_client::AgentClient;
use super::index::index_file;
use super::left::now_ms;
use super::own_run::OwnRun;
use super::paused::Paused;
use super::push::usage;
use super::render::shown;
use super::state_dir::{self, StateDir};
use super::{Exit, Global, complain, fleet, say};
use crate::config::Config;
use crate::control::HostAction;
use crate::index::Index;

/// Arguments of `rfleet host`.
#[derive(Args)]
pub(super) struct HostArgs {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Subcommand)]
enum HostCommand {
    /// Send nothing to NAME until it is resumed; `rfleet push` says so and exits with 3
    Pause(Name),
    /// Push to NAME again
    Resume(Name),
    /// Forget what is known of NAME: everything there is compared next
    Reset(Name),
}

#[derive(Args)]
struct Name {
    /// The host, as `rfleet hosts` names it
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) fn run(global: &Global, args: &HostArgs) -> Exit {
    let (action, name) = match &args.command {
        HostCommand::Pause(Name { name }) => (HostAction::Pause, name),
        HostCommand::Resume(Name { name }) => (HostAction::Resume, name),
        HostCommand::Reset(Name { name }) => (HostAction::Reset, name),
    };
    let config = match global.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    match act(global, &config, action, name) {
        Ok(changed) => {
            if !global.quiet {
                say::out(format_args!("{}: {}\n", shown(name), outcome(action, changed)));
            }
            Exit::Done
        }
        Err(exit) => exit,
    }
}

fn outcome(action: HostAction, changed: bool) -> &'static str {
    match (action, changed) {
        (HostAction::Pause, true) => "paused",
        (HostAction::Pause, false) => "it was paused already",
        (HostAction::Resume, true) => "resumed",
        (HostAction::Resume, false) => "it was not paused",
        (HostAction::Reset, true) => "everything there is compared next",
        (HostAction::Reset, false) => "nothing was known of it",
    }
}

fn failed(error: impl std::fmt::Display) -> Exit {
    complain(error);
    Exit::Failed
}

/// Whether anything is different now. Errors were said.
fn act(global: &Global, config: &Config, action: HostAction, name: &str) -> Result<bool, Exit> {
    let directory = state_dir::locate().map_err(failed)?;
    if let Some(mut agent) = AgentClient::connect(&directory).map_err(failed)? {
        // It may know hosts that were found while it runs.
        return agent.host(action, name).map(|done| done.changed).map_err(failed);
    }
    let own = fleet::own_name();
    if !fleet::is_primary(config, &own) {
        return Err(failed(format!("{own} is not the primary; only that holds hosts")));
    }
    // One that has left the fleet can be let go, or forgotten, too.
    let known = config.static_hosts().iter().any(|host| host.name == name && !fleet::is_own(&host.name, &own));
    if !known && action == HostAction::Pause {
        return Err(usage(format!("{}: no secondary has this name", shown(name))));
    }
    match action {
        HostAction::Reset => reset(global, config, &directory, name),
        _ => {
            let state = StateDir::open().map_err(failed)?;
            Paused::set(&state, &config.fleet, name, action == HostAction::Pause, now_ms() / 1000).map_err(failed)
        }
    }
}

/// Under the lock of a run: a push that is going on would write down again what it knows.
fn reset(global: &Global, config: &Config, directory: &Path, name: &str) -> Result<bool, Exit> {
    let Some(_run) = OwnRun::begin(config, "host reset", global.quiet)? else { return Err(Exit::Failed) };
    let mut changed = false;
    for root in &config.roots {
        let file = index_file(directory, &config.fleet, &root.name);
        changed |= Index::forget_host(&file, name).map_err(|error| failed(format!("{}: {error}", file.display())))?;
    }
    Ok(changed)
}
