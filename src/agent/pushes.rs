//! `rfleet push` while an agent runs: a cycle of everything at once, with what the operator confirms, and what every host
//! came to by it.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::oneshot;

use super::host::Host;
use super::root::RootAgent;
use crate::push::{Extent, HostReport, HostState, RootJob, RootReport};

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct PushNow {
    /// Ids of plans that were confirmed.
    pub(super) confirmed: Vec<String>,
    /// Destinations of others are taken over.
    pub(super) adopt: bool,
    /// Everything is compared.
    pub(super) full: bool,
}

/// Those who wait for the end of theirs.
#[derive(Default)]
pub(super) struct Pushes(Vec<Waiting>);

struct Waiting {
    root: String,
    push: PushNow,
    /// The first cycle that began afterwards.
    first: Option<u64>,
    /// What came of it, once it is over.
    report: Option<RootReport>,
    /// What each host came to in the first of its cycles since then.
    hosts: HashMap<String, HostReport>,
    /// Hosts that missed the first cycle were tried once more.
    retried: bool,
    reply: oneshot::Sender<RootReport>,
}

impl Pushes {
    /// Has all of `roots` pushed; each answer comes when every host had its turn.
    pub(super) fn add(
        &mut self,
        push: &PushNow,
        roots: &mut [RootAgent],
        now: Instant,
    ) -> Vec<oneshot::Receiver<RootReport>> {
        let add = |root: &mut RootAgent| {
            root.read_events(now);
            root.push_now(push.full, now);
            let (reply, answer) = oneshot::channel();
            let (root, push) = (root.settings.name.clone(), push.clone());
            self.0.push(Waiting {
                root,
                push,
                first: None,
                report: None,
                hosts: HashMap::new(),
                retried: false,
                reply,
            });
            answer
        };
        roots.iter_mut().map(add).collect()
    }

    /// `cycle` of `root` begins: what was confirmed is for it, and for no other once everybody is answered.
    pub(super) fn begin(&mut self, root: &str, cycle: u64, job: &mut RootJob) {
        for waiting in self.0.iter_mut().filter(|waiting| waiting.root == root) {
            if waiting.first.is_none() && matches!(job.extent, Extent::Whole) {
                waiting.first = Some(cycle);
            }
            if waiting.first.is_some() {
                job.guard.confirmed.extend_from_slice(&waiting.push.confirmed);
                job.guard.adopt |= waiting.push.adopt;
            }
        }
    }

    pub(super) fn cycle_ended(&mut self, root: &str, cycle: u64, report: &RootReport) {
        let is_since = |waiting: &&mut Waiting| waiting.first.is_some_and(|first| first <= cycle);
        for waiting in self.0.iter_mut().filter(|waiting| waiting.root == root).filter(is_since) {
            for host in &report.hosts {
                waiting.hosts.entry(host.name.clone()).or_insert_with(|| host.clone());
            }
            match &mut waiting.report {
                Some(first) => first.refused = first.refused.take().or_else(|| report.refused.clone()),
                None if waiting.first == Some(cycle) => waiting.report = Some(report.clone()),
                None => {}
            }
        }
    }

    /// Answers those whose hosts all had their turn.
    pub(super) fn answer(&mut self, root: &mut RootAgent, now: Instant) {
        // Who has gone away meanwhile waits for nothing.
        self.0.retain(|waiting| !waiting.reply.is_closed());
        let mut at = 0;
        while at < self.0.len() {
            let waiting = &mut self.0[at];
            let is_own = waiting.root == root.settings.name;
            if is_own && !waiting.retried && waiting.report.is_some() && waiting.has_missed(root) {
                waiting.retried = true;
                root.push_now(false, now);
            }
            match if is_own { waiting.done(root) } else { None } {
                Some(report) => {
                    // As above.
                    let _ = self.0.swap_remove(at).reply.send(report);
                }
                None => at += 1,
            }
        }
    }
}

impl Waiting {
    /// Whether a host was still at something else when the first cycle began, failed there, and is not tried by itself yet.
    fn has_missed(&self, root: &RootAgent) -> bool {
        let missed = |host: &Host| host.busy.is_none() && !host.paused && host.failures() > 0;
        root.hosts.iter().any(|host| missed(host) && !self.hosts.contains_key(&host.settings.name))
    }

    fn done(&self, root: &RootAgent) -> Option<RootReport> {
        let mut report = self.report.clone()?;
        let is_refused = report.refused.is_some();
        let turn = |host: &Host| {
            let name = &host.settings.name;
            let failed = |error: &str| Some(HostReport { error: Some(error.to_owned()), ..HostReport::new(name) });
            match self.hosts.get(name) {
                Some(report) => Some(report.clone()),
                None if host.paused => failed("paused; `rfleet host resume` lets it go on"),
                None if is_refused => Some(HostReport { state: HostState::Refused, ..HostReport::new(name) }),
                None if host.busy.is_some() => None,
                // A cycle that is not over may be what brought it there.
                None if host.has().is_some() && host.at == root.head() && root.running.is_empty() => {
                    Some(HostReport { state: HostState::Unchanged, position: host.at, ..HostReport::new(name) })
                }
                None => None,
            }
        };
        report.hosts = root.hosts.iter().map(turn).collect::<Option<_>>()?;
        Some(report)
    }
}
