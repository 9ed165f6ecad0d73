//! From the configuration to hosts and roots to be pushed.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::geteuid;

use super::private_dir::{PrivateDir, from_systemd, from_xdg};
use crate::config::{Config, RoleSource, RootConfig, StaticHost};
use crate::push::{Endpoint, Reach};
use crate::transport::{SshKeep, SshOptions, SshTarget};

/// A secondary and how to run a receiver there.
pub(super) struct Member {
    pub(super) host: StaticHost,
    pub(super) endpoint: Arc<Endpoint>,
    /// The receiver's words, without the root.
    receiver: Vec<String>,
}

/// This host's name.
pub(super) fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether `name` (short or full) is this host, whose name is `own`.
pub(super) fn is_own(name: &str, own: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let both_full = name.contains('.') && own.contains('.');
    if both_full { name.eq_ignore_ascii_case(own) } else { short(name) == short(own) }
}

/// Whether this host is the primary. A configuration that does not say makes it so.
pub(super) fn is_primary(config: &Config, own: &str) -> bool {
    match &config.role {
        Some(role) if role.source == RoleSource::Static => {
            role.primary.as_deref().is_none_or(|primary| is_own(primary, own))
        }
        _ => true,
    }
}

/// Options for ssh, with what the command line says on top.
pub(super) fn ssh_options(config: &Config, config_file: Option<&PathBuf>) -> SshOptions {
    SshOptions {
        config: config_file.cloned().or_else(|| config.ssh.config.clone()),
        identity_file: config.ssh.identity_file.clone(),
        known_hosts: config.ssh.known_hosts.clone(),
        host_keys: config.ssh.host_keys,
        connect_timeout: config.ssh.connect_timeout,
        keep: None,
    }
}

/// How connections outlive this process; `None` where the configuration does not want it, or there
/// is no safe place for their sockets. That is no reason not to push.
pub(super) fn ssh_keep(config: &Config) -> Option<SshKeep> {
    let idle = config.ssh.persist?;
    let own_temporary = PathBuf::from(format!("/tmp/rfleet-{}", geteuid().as_raw()));
    let base = from_systemd("RUNTIME_DIRECTORY")
        .or_else(|| geteuid().is_root().then(|| "/run/rfleet".into()))
        .or_else(|| from_xdg("XDG_RUNTIME_DIR").map(|directory| directory.join("rfleet")))
        // The path of a socket must be short, and this one is.
        .filter(|base| base.as_os_str().len() + "/ssh".len() <= SshKeep::MAX_DIRECTORY_BYTES)
        .unwrap_or(own_temporary);
    match PrivateDir::open(&base).and_then(|base| base.secret("ssh")) {
        Ok(directory) => Some(SshKeep { directory: directory.path, idle }),
        Err(error) => {
            tracing::warn!("connections end with this run, there is no safe place for their sockets: {error}");
            None
        }
    }
}

/// The secondaries: what the configuration lists, without this host.
pub(super) fn members(config: &Config, ssh: &SshOptions, receiver: Option<&[String]>, own: &str) -> Vec<Member> {
    let others = config.static_hosts().into_iter().filter(|host| !is_own(&host.name, own));
    let member = |host: StaticHost| {
        let command = config.host(&host.name).and_then(|host| host.command.clone());
        let (reach, words) = match command {
            Some(command) => (Reach::Local, command),
            None => {
                let target = SshTarget {
                    host: host.address.clone(),
                    user: host.user.clone().or_else(|| config.ssh.user.clone()),
                    port: host.port,
                };
                let words = receiver.map_or_else(|| config.ssh.receiver.clone(), <[String]>::to_vec);
                (Reach::Ssh(target, ssh.clone()), words)
            }
        };
        let endpoint = Endpoint::new(host.name.clone(), reach).limited(config.host_bandwidth(&host.name));
        Member { host, endpoint: Arc::new(endpoint), receiver: words }
    };
    others.map(member).collect()
}

impl Member {
    /// The words that start a receiver of `root` there. A receiver with a configuration of its own
    /// knows the root and where it lies; to another one the command line says it.
    pub(super) fn receiver_of(&self, config: &Config, root: &RootConfig) -> Vec<String> {
        let path = config.root_path(root, &self.host.name).display();
        let place = ["--root".to_owned(), format!("{}={path}", root.name)];
        self.receiver.iter().cloned().chain(place).collect()
    }
}
