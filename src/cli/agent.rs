//! `rfleet agent`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;

use super::index::Indexes;
use super::left::now_ms;
use super::own_run::OwnRun;
use super::paused::Paused;
use super::push::DEFAULT_PARALLEL;
use super::state_dir::StateDir;
use super::web::Web;
use super::{Exit, Global, complain, exclude, fleet, runtime};
use crate::agent::{self, Ended, Hold, HostSettings, Received, RecordTemplate, RootSettings, Settings, Times, Timing};
use crate::config::{Config, RootConfig};
use crate::model::Term;
use crate::plan::guard::DeleteLimit;
use crate::push::Limiter;
use crate::serve::Metrics;
use crate::status::{FleetStatus, Role};

/// Between scans of everything where not all changes are noticed.
const POLL: Duration = Duration::from_secs(2);

/// Arguments of `rfleet agent`.
#[derive(Args, Clone)]
#[command(after_help = "The same command runs on every host of the fleet: where the host is the primary it pushes, \
    everywhere else it says how the host is. SIGHUP reads the configuration again, SIGTERM ends it in order.")]
pub(super) struct AgentArgs {
    /// An ssh_config file, passed to ssh
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &AgentArgs) -> Exit {
    let config = match global.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if let Some(file) = args.ssh_config.as_ref().filter(|file| !file.is_file()) {
        return super::push::usage(format!("--ssh-config {}: there is no such file", file.display()));
    }
    // For as long as it runs: no push of the command line comes in between.
    let own_run = match OwnRun::begin(&config, "agent", global.quiet) {
        Ok(Some(own_run)) => own_run,
        Ok(None) => return Exit::Failed,
        Err(exit) => return exit,
    };
    let kept = Kept { indexes: own_run.indexes(config.push.verify_interval), state: Arc::clone(own_run.state()) };
    let settings = match settings(&config, args, &kept) {
        Ok(settings) => settings,
        Err(error) => return failed(error),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let ended = runtime.block_on(serve_and_run(global.config_path(), args, &config, settings, kept));
    runtime.shutdown_background();
    drop(own_run);
    match ended {
        Ok(Ended::Stopped) => Exit::Done,
        Ok(Ended::Failing) => {
            failed(format!("{} cycles in a row failed ([push] max_failures)", config.push.max_failures))
        }
        Ok(Ended::Fenced) => {
            complain("a newer primary exists; this agent pushes no more");
            Exit::Fenced
        }
        Err(exit) => exit,
    }
}

fn failed(error: impl std::fmt::Display) -> Exit {
    complain(error);
    Exit::Failed
}

/// Runs the agent, with its status on HTTP. Errors were said.
async fn serve_and_run(
    path: PathBuf,
    args: &AgentArgs,
    config: &Config,
    settings: Settings,
    kept: Kept,
) -> Result<Ended, Exit> {
    let (status, told) = watch::channel(Arc::new(FleetStatus::default()));
    let metrics = Metrics::default();
    let web = Web::start(&config.serve, told, metrics.clone()).map_err(super::push::usage)?;
    let (changes, args) = (web.changes(), args.clone());
    let reload: agent::Reload = Arc::new(move || {
        let config = Config::load(&path).map_err(|error| error.to_string())?;
        if let Some(line) = config.unavailable().first() {
            return Err(line.clone());
        }
        let settings = self::settings(&config, &args, &kept)?;
        // It is there as long as the agent.
        let _ = changes.send(config.serve);
        Ok(settings)
    });
    let ended = agent::run(settings, reload, Arc::new(Recorder(metrics)), status).await;
    web.stop().await;
    ended.map_err(failed)
}

/// Has the metrics count what the agent tells.
struct Recorder(Metrics);

impl Times for Recorder {
    fn cycle(&self, root: &str, took: Duration) {
        self.0.cycle(root, took.as_secs_f64());
    }

    fn commit(&self, root: &str, host: &str, took: Duration) {
        self.0.commit(root, host, took.as_secs_f64());
    }

    fn delivered(&self, root: &str, host: &str, after: Duration) {
        self.0.delivered(root, host, after.as_secs_f64());
    }
}

/// What outlives a reload.
struct Kept {
    indexes: Indexes,
    state: Arc<StateDir>,
}

/// # Errors
/// One line: which hosts are paused cannot be told.
fn settings(config: &Config, args: &AgentArgs, kept: &Kept) -> Result<Settings, String> {
    let own = fleet::own_name();
    let is_primary = fleet::is_primary(config, &own);
    let role = if is_primary { Role::Primary } else { Role::Secondary };
    let primary =
        config.role.as_ref().and_then(|role| role.primary.clone()).or_else(|| is_primary.then(|| own.clone()));
    let ssh = fleet::ssh_options(config, args.ssh_config.as_ref());
    let members = if is_primary { fleet::members(config, &ssh, None, &own) } else { Vec::new() };
    let paused = Paused::load(&kept.state, &config.fleet)?;
    let host = |member: &fleet::Member| {
        let receivers: Vec<_> = config.roots.iter().map(|root| member.receiver_of(config, root)).collect();
        let bandwidth = config.host_bandwidth(&member.host.name);
        HostSettings {
            name: member.host.name.clone(),
            address: member.host.address.clone(),
            identity: format!("{:?}", (&member.host, &receivers, bandwidth, &ssh)),
            endpoint: Arc::clone(&member.endpoint),
            receivers,
            paused: paused.since(&member.host.name).is_some(),
        }
    };
    let push = &config.push;
    let roots = config.roots.iter().filter(|_| is_primary);
    Ok(Settings {
        fleet: config.fleet.clone(),
        host: own,
        role,
        primary,
        term: Term(0),
        roots: roots.map(|root| root_settings(config, root, &kept.indexes)).collect(),
        hosts: members.iter().map(host).collect(),
        timing: Timing {
            settle: push.settle,
            settle_max: push.settle_max,
            interval: push.interval,
            longest_interval: push.longest_interval,
            poll: POLL.min(push.interval),
        },
        events: push.events,
        timeout: push.timeout,
        parallel: usize::try_from(push.parallel).unwrap_or(DEFAULT_PARALLEL),
        limiter: push.bandwidth.map(|rate| Arc::new(Limiter::new(rate))),
        max_failures: push.max_failures,
        state: kept.state.path().to_owned(),
        hold: hold(Arc::clone(&kept.state), config.fleet.clone()),
        received: received(config.clone()),
    })
}

fn hold(state: Arc<StateDir>, fleet: String) -> Hold {
    Arc::new(move |host, held| Paused::set(&state, &fleet, host, held, now_ms() / 1000))
}

fn received(config: Config) -> Received {
    Arc::new(move || {
        let (roots, primary) = super::left::received(&config);
        (roots, primary.map(|(_, name)| name))
    })
}

fn root_settings(config: &Config, root: &RootConfig, indexes: &Indexes) -> RootSettings {
    let selection = exclude::configured(config, root);
    RootSettings {
        name: root.name.clone(),
        path: root.path.clone(),
        require: root.require.as_ref().map(PathBuf::from),
        record: RecordTemplate {
            file: indexes.file(&root.name),
            machine: super::index::machine(),
            filter: selection.identity(root.delete_excluded),
            verify_interval: config.push.verify_interval,
        },
        selection,
        delete: root.delete,
        delete_excluded: root.delete_excluded,
        attributes: root.xattrs,
        max_delete: root.max_delete.unwrap_or(DeleteLimit::Default),
    }
}
