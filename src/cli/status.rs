//! `rfleet status`: how the fleet is, by the running agent, else as the last push left it.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use super::agent_client::AgentClient;
use super::push::usage;
use super::render::shown;
use super::state_dir::StateDir;
use super::{Exit, Global, complain, left, say};
use crate::config::Config;
use crate::status::{FleetStatus, RootState};

mod table;

/// Time between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// Arguments of `rfleet status`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all is well; 1 nothing can be known; 2 usage; 3 some host or root is not as it should be."
)]
pub(super) struct StatusArgs {
    /// One JSON document; with --watch one a line
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Only this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only this root
    #[arg(long, value_name = "NAME")]
    root: Option<String>,
}

pub(super) fn run(global: &Global, args: &StatusArgs) -> Exit {
    let config = match global.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if args.watch {
        return watch(&config, args);
    }
    match look(&config, args) {
        Err((exit, error)) => {
            complain(error);
            exit
        }
        Ok(status) => {
            if args.json {
                say::out(format_args!("{}\n", serde_json::to_string_pretty(&status).unwrap_or_default()));
            } else if !global.quiet {
                say::out(format_args!("{}", table::render(&status)));
            }
            let exit = judge(&status);
            if exit == Exit::Failed {
                complain("nothing is known: no agent runs here, and no push has left anything");
            }
            exit
        }
    }
}

/// The status, or an exit code and one line.
fn look(config: &Config, args: &StatusArgs) -> Result<FleetStatus, (Exit, String)> {
    let failed = |error: String| (Exit::Failed, error);
    let state = StateDir::existing().map_err(failed)?;
    let agent = state.as_ref().map_or(Ok(None), |state| AgentClient::connect(state.path())).map_err(failed)?;
    let mut status = match agent {
        Some(mut agent) => agent.status().map_err(|error| failed(shown(&error)))?,
        None => left::status(config, state.as_ref()).map_err(failed)?,
    };
    let unknown =
        |what: &str, name: &str| (Exit::Usage, format!("--{what} {}: there is none of this name", shown(name)));
    if let Some(name) = &args.root {
        status.roots.retain(|root| root.name == *name);
        if status.roots.is_empty() {
            return Err(unknown("root", name));
        }
    }
    if let Some(name) = &args.host {
        status.roots.iter_mut().for_each(|root| root.hosts.retain(|host| host.name == *name));
        if status.roots.iter().all(|root| root.hosts.is_empty()) {
            return Err(unknown("host", name));
        }
    }
    Ok(status)
}

fn judge(status: &FleetStatus) -> Exit {
    let nothing = status.roots.iter().all(|root| root.state == RootState::Unknown && root.sequence == 0);
    match status.is_well() {
        _ if status.agent.is_none() && nothing => Exit::Failed,
        true => Exit::Done,
        false => Exit::Partial,
    }
}

/// Looks again and again. Ctrl-C ends it, as does whoever stops reading.
fn watch(config: &Config, args: &StatusArgs) -> Exit {
    let in_place = !args.json && io::stdout().is_terminal();
    loop {
        let text = match look(config, args) {
            Err((Exit::Usage, error)) => return usage(error),
            // An agent that is started anew will be there again.
            Err((_, error)) if args.json => {
                complain(error);
                String::new()
            }
            Err((_, error)) => format!("rfleet: {error}\n"),
            Ok(status) if args.json => serde_json::to_string(&status).map(|line| line + "\n").unwrap_or_default(),
            Ok(status) => table::render(&status),
        };
        let written = if in_place { redraw(&text) } else { repeat(&text) };
        if let Err(error) = written {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Exit::Done;
            }
            complain(format!("standard output cannot be written: {error}"));
            return Exit::Failed;
        }
        std::thread::sleep(EVERY);
    }
}

fn repeat(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// From the top, each line to its end, then what is below: so that nothing flickers.
fn redraw(text: &str) -> io::Result<()> {
    repeat(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))
}
