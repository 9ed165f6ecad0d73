//! What the agent says of itself.

use std::sync::Arc;
use std::time::Instant;

use super::super::root::RootAgent;
use super::super::{millis, now as now_on_the_wall};
use super::Owner;
use crate::status::{AgentState, AgentStatus, FleetStatus, Role, SCHEMA};

/// A change that is not on a host that can be reached after so many times the patience with it is a fault.
const LATE: u32 = 4;

impl Owner {
    fn state(&self, now: Instant) -> (AgentState, Vec<String>) {
        let mut reasons = Vec::new();
        for root in &self.roots {
            let name = &root.settings.name;
            reasons.extend(root.troubles(now, self.settings.timeout * LATE).map(|why| format!("root {name}: {why}")));
        }
        let state = match () {
            () if self.stopping.is_some() => AgentState::Stopping,
            () if !reasons.is_empty() => AgentState::Degraded,
            () if self.settings.role == Role::Primary && !self.roots.iter().all(RootAgent::has_begun) => {
                AgentState::Starting
            }
            () => AgentState::Ok,
        };
        (state, reasons)
    }

    pub(super) fn summary(&self, now: Instant) -> String {
        let (state, reasons) = self.state(now);
        let hosts = self.settings.hosts.len();
        let behind = self.roots.iter().flat_map(|root| root.hosts.iter().filter(|host| host.at != root.head())).count();
        let reason = reasons.first().map(|reason| format!("; {reason}")).unwrap_or_default();
        format!("{state:?}: {} root(s), {hosts} host(s), {behind} behind{reason}", self.roots.len())
    }

    pub(super) fn publish(&mut self, now: Instant) {
        self.published = Some(now);
        let time_ms = millis(now_on_the_wall());
        let (state, reasons) = self.state(now);
        for root in &mut self.roots {
            let Some(doing) = self.doing.get(&root.settings.name) else { continue };
            for host in &mut root.hosts {
                host.doing = host.busy.and_then(|_| doing.on(&host.settings.name));
            }
        }
        let (roots, writer) = match self.settings.role {
            Role::Secondary => (self.settings.received)(),
            _ => (self.roots.iter_mut().map(|root| root.status((now, time_ms))).collect(), None),
        };
        let status = FleetStatus {
            schema: SCHEMA,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            fleet: self.settings.fleet.clone(),
            host: self.settings.host.clone(),
            role: self.settings.role,
            primary: self.settings.primary.clone().or(writer),
            term: self.settings.term.0,
            time_ms,
            agent: Some(AgentStatus { pid: std::process::id(), started_ms: self.started.1, state, reasons }),
            roots,
        };
        self.status.send_replace(Arc::new(status));
    }
}
