//! What a file may ask for and this version does not do yet. The list shrinks with each release.
//!
//! Two kinds:
//!
//! - What changes which host is primary, where it pushes, or what a cycle does: the caller refuses
//!   ([`unavailable`]). To ignore it would push from or to the wrong hosts, or leave undone what the
//!   operator relies on: another `[role] source` or `[discovery] source`, `[mirror]`, `[failover]`.
//! - What only the agent uses, as a one-shot push has no use for it by its nature: nothing is said.
//!   `[serve]`, `[push] events`, `interval`, `settle`, `settle_max`, `verify_interval` and
//!   `max_failures`, `[discovery] refresh`; also the keys of a discovery source that is not in use,
//!   and `key` of a root without a mirror.

use super::options::{DiscoverySource, RoleSource};
use super::{Config, same_host};

/// What this version cannot do although the file asks for it, one line each.
pub(super) fn unavailable(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |asked: bool, line: &str| {
        if asked {
            lines.push(line.to_owned());
        }
    };
    let role = config.role.as_ref().map(|role| role.source);
    let other_role = role.is_some_and(|source| source != RoleSource::Static);
    add(other_role, "[role] source: this version knows only `static`");
    let other_discovery = config.discovery.source != DiscoverySource::Static;
    add(other_discovery, "[discovery] source: this version knows only `static`");
    add(config.mirror.is_some(), "[mirror]: this version keeps no mirror");
    add(config.failover.is_some(), "[failover]: this version has no failover");
    lines
}

/// What is worth a line in the log though the configuration is used.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if config.discovery.source == DiscoverySource::Static {
        let members = config.static_hosts();
        for host in config.hosts.iter().filter(|host| !members.iter().any(|member| same_host(&member.name, &host.name)))
        {
            lines.push(format!("[[host]] {}: not in [discovery] hosts, so not a member of the fleet", host.name));
        }
    }
    lines
}
