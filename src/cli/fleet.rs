//! From the configuration to hosts and roots to be pushed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, RoleSource, RootConfig, StaticHost};
use crate::push::{Endpoint, Reach};
use crate::transport::{SshOptions, SshTarget};

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
        let endpoint = Arc::new(Endpoint::new(host.name.clone(), reach));
        Member { host, endpoint, receiver: words }
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
