//! A push of SRC to each DEST, without a configuration.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::destination::Destination;
use super::push::{Cycle, DEFAULT_PARALLEL, Options, Request, Root, usage};
use super::{Exit, complain, exclude};
use crate::plan::guard::DeleteLimit;
use crate::push::{Endpoint, Limiter, Reach};
use crate::transport::{HostKeys, SshOptions};

/// Silence after which a host is given up, where nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Bound on connecting, where nothing else is said.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A push of SRC to each DEST.
pub(super) fn unconfigured(
    source: &str,
    destinations: &[String],
    options: &Options,
    request: &Request,
) -> Result<Cycle, Exit> {
    options.check_ssh_config()?;
    let timeout = options.timeout()?;
    let ssh = SshOptions {
        config: options.ssh_config.clone(),
        identity_file: None,
        known_hosts: None,
        host_keys: HostKeys::Strict,
        connect_timeout: timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT).min(DEFAULT_CONNECT_TIMEOUT),
        keep: None,
    };
    let remote = options.receiver()?.unwrap_or_else(|| vec!["rfleet".into(), "receive".into()]);
    let local = own_receiver()?;
    let mut root = Root {
        name: String::new(),
        path: source.into(),
        require: None,
        selection: exclude::unconfigured(options)?,
        delete: request.delete,
        attributes: options.xattrs,
        delete_excluded: request.delete_excluded,
        max_delete: request.max_delete.unwrap_or(DeleteLimit::Default),
        local_destinations: Vec::new(),
        receivers: Vec::new(),
    };
    let mut endpoints = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for text in destinations {
        let destination = Destination::parse(text).map_err(usage)?;
        if !seen.insert(text) {
            return Err(usage(format!("destination `{}` is given twice", text.escape_debug())));
        }
        let is_named = |only: &String| match &destination {
            Destination::Ssh(target, _) => only == text || *only == target.host,
            Destination::Local(_) => only == text,
        };
        if !options.host.as_ref().is_none_or(is_named) {
            continue;
        }
        let (reach, receiver, directory) = match destination {
            Destination::Local(path) => {
                root.local_destinations.push(path.clone());
                (Reach::Local, &local, path.display().to_string())
            }
            Destination::Ssh(target, path) => (Reach::Ssh(target, ssh.clone()), &remote, path),
        };
        endpoints.push(Arc::new(Endpoint::new(text.clone(), reach)));
        root.receivers.push(receiver.iter().cloned().chain(["--to".into(), directory]).collect());
    }
    if endpoints.is_empty() {
        let only = options.host.as_deref().unwrap_or_default().escape_debug().to_string();
        return Err(usage(format!("--host {only}: no destination has this name")));
    }
    Ok(Cycle {
        fleet: None,
        roots: vec![root],
        endpoints,
        limiter: request.bytes_per_second.map(|rate| Arc::new(Limiter::new(rate))),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        parallel: DEFAULT_PARALLEL,
        index: None,
        usable: false,
        own_run: None,
        held: HashMap::new(),
    })
}

/// This very program as a receiver.
fn own_receiver() -> Result<Vec<String>, Exit> {
    let program = std::env::current_exe().ok().filter(|path| Path::exists(path));
    match program.as_deref().and_then(Path::to_str) {
        Some(program) => Ok(vec![program.to_owned(), "receive".into()]),
        None => {
            complain("cannot find this program's own file to start a receiver");
            Err(Exit::Failed)
        }
    }
}
