//! The configuration file: what it says, checked and with defaults filled in.
//!
//! Raw, then built: `document` turns text into the structs of `raw` (TOML, `${ENV}`, known keys,
//! types), `build` turns those into the plain values of `options` (defaults, ranges, what must
//! hold between sections). Only [`Config::load`] reads a file and the environment. Each error is one
//! line with file, line and key; the first one found is reported. `docs/configuration.md` is the
//! operator's reference of every key.

mod build;
mod document;
mod error;
mod expand;
mod open;
mod options;
mod raw;
mod suggest;
mod unavailable;
mod values;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use error::ConfigError;
pub use options::{
    AddressSource, Bandwidth, CloudfrontConfig, CommitHook, DEFAULT_LISTEN, DiscoveryConfig, DiscoverySource,
    Durability, FailoverConfig, HostConfig, HostKeys, Listen, MirrorConfig, OwnerPolicy, PushConfig, Quota,
    ReceiveConfig, RoleConfig, RoleSource, RootConfig, ServeConfig, SshConfig,
};
pub use values::{DeleteLimit, ValueError, parse_bytes, parse_duration, parse_rate};

use crate::model::RelPath;
use document::Document;

/// The configuration of a fleet, the same on every host of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The fleet's name.
    pub fleet: String,
    /// The directory trees, at least one, with unique names.
    pub roots: Vec<RootConfig>,
    /// How a host knows whether it is the primary; `None` if the file does not say.
    pub role: Option<RoleConfig>,
    /// Who is in the fleet.
    pub discovery: DiscoveryConfig,
    /// What is special about single hosts, with unique names.
    pub hosts: Vec<HostConfig>,
    /// How the primary pushes.
    pub push: PushConfig,
    /// How hosts are reached.
    pub ssh: SshConfig,
    /// This host's policy as a secondary.
    pub receive: ReceiveConfig,
    /// The copy in a bucket.
    pub mirror: Option<MirrorConfig>,
    /// The right to be primary.
    pub failover: Option<FailoverConfig>,
    /// HTTP for status, metrics and health.
    pub serve: ServeConfig,
    /// The file this was read from.
    pub path: PathBuf,
    warnings: Vec<String>,
}

/// A member of the fleet that the configuration itself names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticHost {
    /// What it is called in options, logs and results.
    pub name: String,
    /// Where SSH connects to: a name, an IPv4 address, or an IPv6 address without brackets.
    pub address: String,
    /// The user to log in as; `None` leaves it to `[ssh] user`.
    pub user: Option<String>,
    /// The SSH port; `None` leaves it to ssh.
    pub port: Option<u16>,
}

impl Config {
    /// Reads the file at `path`, with `${ENV}` from this process's environment.
    ///
    /// # Errors
    /// Any [`ConfigError`]; each names the file and, where there is one, the line and the key.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = open::read(path)?;
        Config::parse(&text, path, |name| std::env::var(name).ok())
    }

    /// Parses `text` as the content of `path`, with `${ENV}` from `env`. Reads nothing.
    ///
    /// # Errors
    /// Any [`ConfigError`] but `Read` and `Untrusted`.
    pub fn parse(text: &str, path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let (document, raw) = Document::parse(path, text, &env)?;
        build::build(raw, path).map_err(|fault| document.explain(fault))
    }

    /// What the file asks for and this version cannot do yet, one line each. A caller that would
    /// act on the configuration refuses if there is any.
    pub fn unavailable(&self) -> Vec<String> {
        unavailable::unavailable(self)
    }

    /// What is worth a line in the log though the configuration is used.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What `[[host]]` says about the host of this name.
    pub fn host(&self, name: &str) -> Option<&HostConfig> {
        self.hosts.iter().find(|host| same_host(&host.name, name))
    }

    /// The most that may be sent to the host of this name alone, in bytes per second.
    pub fn host_bandwidth(&self, name: &str) -> Option<u64> {
        match self.host(name).and_then(|host| host.bandwidth) {
            Some(Bandwidth::Limited(rate)) => Some(rate),
            Some(Bandwidth::Unlimited) => None,
            None => self.push.host_bandwidth,
        }
    }

    /// The root of this name.
    pub fn root(&self, name: &str) -> Option<&RootConfig> {
        self.roots.iter().find(|root| root.name == name)
    }

    /// Where other roots lie inside `root`, on this host or another. Relative to it.
    pub fn roots_inside(&self, root: &RootConfig) -> BTreeSet<RelPath> {
        let everywhere = self.hosts.iter().map(|host| host.name.as_str()).chain([""]);
        let inside = everywhere.flat_map(|host| {
            let outer = self.root_path(root, host);
            let below = self.roots.iter().filter_map(move |other| self.root_path(other, host).strip_prefix(outer).ok());
            below.filter_map(|below| RelPath::new(below.as_os_str().as_bytes()).ok())
        });
        inside.collect()
    }

    /// Where `root` lies on the host of this name.
    pub fn root_path<'c>(&'c self, root: &'c RootConfig, host: &str) -> &'c Path {
        self.host(host).and_then(|host| host.paths.get(&root.name)).unwrap_or(&root.path)
    }

    /// The members of the fleet by the configuration alone, in the order of the file; none unless
    /// the source of discovery is static.
    ///
    /// These are the entries of `[discovery] hosts`, each completed by the `[[host]]` of the same
    /// name, then every other `[[host]]` that has a `command`. Without a `hosts` key every
    /// `[[host]]` is a member.
    pub fn static_hosts(&self) -> Vec<StaticHost> {
        if self.discovery.source != DiscoverySource::Static {
            return Vec::new();
        }
        let listed = self.discovery.hosts.as_deref().unwrap_or_default();
        let mut members: Vec<StaticHost> = listed
            .iter()
            .map(|entry| StaticHost {
                name: entry.host.clone(),
                address: entry.host.clone(),
                user: entry.user.clone(),
                port: entry.port.or_else(|| self.host(&entry.host).and_then(|host| host.port)),
            })
            .collect();
        let every_table = self.discovery.hosts.is_none();
        for host in &self.hosts {
            let is_listed = listed.iter().any(|entry| same_host(&entry.host, &host.name));
            if !is_listed && (every_table || host.command.is_some()) {
                let (name, address) = (host.name.clone(), host.name.clone());
                members.push(StaticHost { name, address, user: None, port: host.port });
            }
        }
        members
    }
}

/// Whether two host names are the same; DNS does not tell their letters' case apart.
fn same_host(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests;
