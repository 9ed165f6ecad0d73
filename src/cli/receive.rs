//! `rfleet receive`: the far end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::hooks::Runner;
use super::{DEFAULT_CONFIG, Exit, Global, complain, fleet};
use crate::config::Config;
use crate::model::Timestamp;
use crate::receive::{self, Policy, Roots};
use crate::tree::Retention;

/// Arguments of `rfleet receive`.
#[derive(Args)]
#[command(after_help = "As a forced command in authorized_keys:\n  \
    restrict,command=\"rfleet receive --config /etc/rfleet/rfleet.toml\" ssh-ed25519 AAAA...\n\
    Then only the roots of that file exist, whatever the primary asks for.")]
pub(super) struct ReceiveArgs {
    /// The directory that a push without configuration writes to
    #[arg(long, value_name = "DIR", conflicts_with = "root")]
    to: Option<PathBuf>,
    /// A root and its directory, unless the configuration here names that root (repeatable)
    #[arg(long, value_name = "NAME=DIR")]
    pub(super) root: Vec<String>,
}

pub(super) fn run(global: &Global, args: &ReceiveArgs) -> Exit {
    let refuse = |message: String, exit| {
        complain(&message);
        receive::refuse_to_start(&message);
        exit
    };
    let (roots, policy) = match prepare(global, args) {
        Ok(prepared) => prepared,
        Err(message) => return refuse(message, Exit::Usage),
    };
    // While programs can still be started, and with the umask that they should have.
    let (runner, hooks) = match Runner::start(global, args, (&roots, &policy)) {
        Ok(started) => started.unzip(),
        Err(message) => return refuse(message, Exit::Failed),
    };
    // Modes come from the primary and this host's policy, not from a login shell's umask.
    rustix::process::umask(rustix::fs::Mode::empty());
    let served = receive::serve(&roots, &policy, hooks, now);
    if let Some(runner) = runner {
        runner.wait();
    }
    match served {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(error);
            Exit::Failed
        }
    }
}

/// 1970 for a clock that is before it.
pub(super) fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { secs: i64::try_from(elapsed.as_secs()).unwrap_or_default(), nanos: elapsed.subsec_nanos() }
}

/// The roots that there are here, and what may be done to them.
pub(super) fn prepare(global: &Global, args: &ReceiveArgs) -> Result<(Roots, Policy), String> {
    if let Some(directory) = &args.to {
        if global.config.is_some() {
            return Err("--to and --config exclude each other: a configuration names its own roots".into());
        }
        let roots = Roots { unnamed: Some(directory.clone()), ..Roots::default() };
        return Ok((roots, Policy::unconfigured()));
    }
    let mut roots = Roots::default();
    for root in &args.root {
        let named = root.split_once('=').filter(|(name, path)| !name.is_empty() && path.starts_with('/'));
        let (name, path) = named.ok_or(format!("--root {}: expected NAME=/DIR", root.escape_debug()))?;
        roots.named.insert(name.to_owned(), path.into());
    }
    let path = match &global.config {
        Some(path) => Some(path.as_path()),
        None => Some(Path::new(DEFAULT_CONFIG)).filter(|path| path.exists()),
    };
    let Some(path) = path else { return Ok((roots, Policy::unconfigured())) };
    let config = Config::load(path).map_err(|error| format!("this receiver's configuration: {error}"))?;
    roots.named.extend(roots_here(&config));
    Ok((roots, policy(&config)))
}

/// The roots of the configuration, and where they lie on this host.
pub(super) fn roots_here(config: &Config) -> BTreeMap<String, PathBuf> {
    let own = fleet::own_name();
    let own = config.hosts.iter().map(|host| &*host.name).find(|name| fleet::is_own(name, &own)).unwrap_or(&own);
    config.roots.iter().map(|root| (root.name.clone(), config.root_path(root, own).to_owned())).collect()
}

fn policy(config: &Config) -> Policy {
    Policy {
        allow_delete: config.receive.allow_delete,
        owner: config.receive.owner.clone(),
        setuid: config.receive.setuid,
        devices: config.receive.devices,
        labels: config.receive.labels,
        durability: config.receive.durability,
        quota: config.receive.quota,
        sandbox: config.receive.sandbox,
        protect: config.receive.protect.clone(),
        timeout: config.receive.timeout,
        attic: Some(Retention { age: config.receive.attic.unwrap_or_default(), max_bytes: config.receive.attic_max }),
        on_commit: config.receive.on_commit.clone(),
    }
}
