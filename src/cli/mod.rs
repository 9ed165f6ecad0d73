//! The command line: one file per command. The only place that reads the configuration file, the
//! environment and the wall clock, and the only one that prints.

mod adhoc;
mod agent;
mod agent_client;
mod attic;
mod by_agent;
mod check;
mod destination;
mod exclude;
mod fleet;
mod history;
mod hooks;
mod host;
mod hosts;
mod index;
mod left;
mod logging;
mod own_run;
mod paused;
mod private_dir;
mod progress;
mod push;
mod receive;
mod render;
mod run_lock;
mod say;
mod signals;
mod state_dir;
mod status;
mod verify;
mod wait;
mod web;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};
use logging::LogFormat;

/// Where the configuration lies unless --config says otherwise.
const DEFAULT_CONFIG: &str = "/etc/rfleet/rfleet.toml";

/// What scripts can rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    /// Done, or not the primary, or another run is going on.
    Done = 0,
    /// Could not run.
    Failed = 1,
    /// Bad usage or configuration.
    Usage = 2,
    /// Some host or path failed and will be retried.
    Partial = 3,
    /// A guard refused: nothing was changed.
    Refused = 4,
    /// A newer primary exists.
    Fenced = 5,
}

#[derive(Parser)]
#[command(name = "rfleet", version, about = "rsync for a fleet: pushes directory trees to many hosts over SSH")]
#[command(
    after_help = "Exit codes: 0 done, or not the primary, or another run is going on; 1 could not run; 2 bad usage or configuration; \
                        3 some host or path failed and will be retried; 4 a guard refused, nothing was changed; \
                        5 a newer primary exists."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// The configuration file [default: /etc/rfleet/rfleet.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How logs on stderr look [default: text, or the journal's own under systemd]
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Push every root of the configuration to every secondary, or SRC to each DEST, once
    Push(push::PushArgs),
    /// The daemon: pushes on file events and every interval, for as long as it runs
    Agent(agent::AgentArgs),
    /// The far end: started over SSH, speaks rfleet's protocol on stdin and stdout
    Receive(receive::ReceiveArgs),
    /// Started by `receive` to run its hooks
    #[command(hide = true)]
    RunHooks(receive::ReceiveArgs),
    /// Compare every secondary with the primary; exit 0 equal, 3 different
    Verify(verify::VerifyArgs),
    /// Look for what would keep a push from working: one line each
    Check(CheckArgs),
    /// What discovery finds now
    Hosts(hosts::HostsArgs),
    /// How the fleet is: by the running agent, else as the last push left it; exit 0 well, 3 something is not
    Status(status::StatusArgs),
    /// Hold a host, let it go on, forget what is known of it
    Host(host::HostArgs),
    /// Return when hosts have what is here now
    Wait(wait::WaitArgs),
    /// What pushes replaced or deleted on this host: list it, bring it back
    Attic(attic::AtticArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// One JSON array
    #[arg(long)]
    json: bool,
}

/// Runs the command line; the result is the exit code.
pub fn main() -> u8 {
    let cli = Cli::parse();
    // What stays says what it does, one line for each cycle that did something.
    logging::start(&cli.global, matches!(cli.command, Command::Agent(_)));
    let exit = match &cli.command {
        Command::Push(args) => push::run(&cli.global, args),
        Command::Agent(args) => agent::run(&cli.global, args),
        Command::Receive(args) => receive::run(&cli.global, args),
        Command::RunHooks(args) => hooks::run(&cli.global, args),
        Command::Verify(args) => verify::run(&cli.global, args),
        Command::Check(args) => check::run(&cli.global, args),
        Command::Hosts(args) => hosts::run(&cli.global, args),
        Command::Status(args) => status::run(&cli.global, args),
        Command::Host(args) => host::run(&cli.global, args),
        Command::Wait(args) => wait::run(&cli.global, args),
        Command::Attic(args) => attic::run(&cli.global, args),
    };
    exit as u8
}

/// Prints an error as one line.
fn complain(what: impl std::fmt::Display) {
    say::err(format_args!("rfleet: {what}\n"));
}

impl Global {
    /// Where the configuration lies.
    fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    /// Loads the configuration; says what is wrong with it.
    fn load(&self) -> Result<Config, Exit> {
        let path = self.config_path();
        let config = Config::load(&path).map_err(|error: ConfigError| {
            complain(&error);
            Exit::Usage
        })?;
        let unavailable = config.unavailable();
        unavailable.iter().for_each(|line| complain(format!("{}: {line}", path.display())));
        config.warnings().iter().for_each(|line| tracing::warn!("{}: {line}", path.display()));
        if unavailable.is_empty() { Ok(config) } else { Err(Exit::Usage) }
    }
}

/// The runtime in which sessions live. Two threads: the work that takes time has its own.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| {
        complain(format!("cannot start: {error}"));
        Exit::Failed
    })
}
