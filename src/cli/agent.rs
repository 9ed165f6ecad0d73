//! `rfleet agent`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;

use super::index::Indexes;
use super::own_run::OwnRun;
use super::push::DEFAULT_PARALLEL;
use super::{Exit, Global, complain, exclude, fleet, runtime};
use crate::agent::{self, Ended, HostSettings, RecordTemplate, RootSettings, Settings, Times, Timing};
use crate::config::{Config, RootConfig};
use crate::model::Term;
use crate::plan::guard::DeleteLimit;
use crate::push::Limiter;
use crate::status::{FleetStatus, Role};

/// Between scans of everything where not all changes are noticed.
const POLL: Duration = Duration::from_secs(2);

/// Arguments of `rfleet agent`.
#[derive(Args)]
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
    let indexes = own_run.indexes(config.push.verify_interval);
    let state = own_run.state().to_owned();
    let settings = settings(&config, args, &indexes, state.clone());
    let path = global.config_path();
    let again = args.ssh_config.clone();
    let reload: agent::Reload = Arc::new(move || {
        let config = Config::load(&path).map_err(|error| error.to_string())?;
        if let Some(line) = config.unavailable().first() {
            return Err(line.clone());
        }
        Ok(self::settings(&config, &AgentArgs { ssh_config: again.clone() }, &indexes, state.clone()))
    });
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let (status, _told) = watch::channel(Arc::new(FleetStatus::default()));
    let ended = runtime.block_on(agent::run(settings, reload, Arc::new(Untimed), status));
    runtime.shutdown_background();
    drop(own_run);
    match ended {
        Ok(Ended::Stopped) => Exit::Done,
        Ok(Ended::Failing) => {
            complain(format!("{} cycles in a row failed ([push] max_failures)", config.push.max_failures));
            Exit::Failed
        }
        Ok(Ended::Fenced) => {
            complain("a newer primary exists; this agent pushes no more");
            Exit::Fenced
        }
        Err(error) => {
            complain(error);
            Exit::Failed
        }
    }
}

struct Untimed;

impl Times for Untimed {
    fn cycle(&self, _: &str, _: Duration) {}
    fn commit(&self, _: &str, _: &str, _: Duration) {}
    fn delivered(&self, _: &str, _: &str, _: Duration) {}
}

fn settings(config: &Config, args: &AgentArgs, indexes: &Indexes, state: PathBuf) -> Settings {
    let own = fleet::own_name();
    let is_primary = fleet::is_primary(config, &own);
    let role = if is_primary { Role::Primary } else { Role::Secondary };
    let primary =
        config.role.as_ref().and_then(|role| role.primary.clone()).or_else(|| is_primary.then(|| own.clone()));
    let ssh = fleet::ssh_options(config, args.ssh_config.as_ref());
    let members = if is_primary { fleet::members(config, &ssh, None, &own) } else { Vec::new() };
    let host = |member: &fleet::Member| {
        let receivers: Vec<_> = config.roots.iter().map(|root| member.receiver_of(config, root)).collect();
        let bandwidth = config.host_bandwidth(&member.host.name);
        HostSettings {
            name: member.host.name.clone(),
            address: member.host.address.clone(),
            identity: format!("{:?}", (&member.host, &receivers, bandwidth, &ssh)),
            endpoint: Arc::clone(&member.endpoint),
            receivers,
            paused: false,
        }
    };
    let push = &config.push;
    let roots = config.roots.iter().filter(|_| is_primary);
    Settings {
        fleet: config.fleet.clone(),
        host: own,
        role,
        primary,
        term: Term(0),
        roots: roots.map(|root| root_settings(config, root, indexes)).collect(),
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
        state,
    }
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
