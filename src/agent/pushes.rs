//! `rfleet push` while an agent runs: a cycle of everything at once, with what the operator confirms, and what every host
//! came to by it.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::oneshot;

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
            self.0.push(Waiting { root, push, first: None, report: None, hosts: HashMap::new(), reply });
            answer
        };
        roots.iter_mut().map(add).collect()
    }

    /// `cycle` of `root` begins; if it looks at everything, what was confirmed is for it, and for no other.
    pub(super) fn begin(&mut self, root: &str, cycle: u64, job: &mut RootJob) {
        if !matches!(job.extent, Extent::Whole) {
            return;
        }
        let guard = &mut job.guard;
        for waiting in self.0.iter_mut().filter(|waiting| waiting.root == root && waiting.first.is_none()) {
            waiting.first = Some(cycle);
            guard.confirmed.extend_from_slice(&waiting.push.confirmed);
            guard.adopt |= waiting.push.adopt;
        }
    }

    fn since(&mut self, root: &str, cycle: u64) -> impl Iterator<Item = &mut Waiting> {
        let is_since = move |first| first <= cycle;
        self.0.iter_mut().filter(move |waiting| waiting.root == root && waiting.first.is_some_and(is_since))
    }

    pub(super) fn host_ended(&mut self, root: &str, cycle: u64, report: &HostReport) {
        for waiting in self.since(root, cycle) {
            waiting.hosts.entry(report.name.clone()).or_insert_with(|| report.clone());
        }
    }

    pub(super) fn cycle_ended(&mut self, root: &str, cycle: u64, report: &RootReport) {
        for waiting in self.since(root, cycle).filter(|waiting| waiting.first == Some(cycle)) {
            for host in &report.hosts {
                // What the end of a host's part says may be less than what the cycle knows of it.
                waiting.hosts.insert(host.name.clone(), host.clone());
            }
            waiting.report = Some(report.clone());
        }
    }

    /// Answers those whose hosts all had their turn.
    pub(super) fn answer(&mut self, root: &RootAgent) {
        // Who has gone away meanwhile waits for nothing.
        self.0.retain(|waiting| !waiting.reply.is_closed());
        let mut at = 0;
        while at < self.0.len() {
            let waiting = &self.0[at];
            let done = if waiting.root == root.settings.name { waiting.done(root) } else { None };
            match done {
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
    fn done(&self, root: &RootAgent) -> Option<RootReport> {
        let mut report = self.report.clone()?;
        let is_refused = report.refused.is_some();
        let turn = |host: &super::host::Host| {
            let name = &host.settings.name;
            let failed = |error: &str| Some(HostReport { error: Some(error.to_owned()), ..HostReport::new(name) });
            match self.hosts.get(name) {
                Some(report) => Some(report.clone()),
                None if host.paused => failed("paused; `rfleet host resume` lets it go on"),
                None if is_refused => Some(HostReport { state: HostState::Refused, ..HostReport::new(name) }),
                None if host.busy.is_some() => None,
                None if host.failures() > 0 => failed("it failed before its turn; `rfleet status` says why"),
                None if host.has().is_some() && host.at == root.head() => {
                    Some(HostReport { state: HostState::Unchanged, position: host.at, ..HostReport::new(name) })
                }
                None => None,
            }
        };
        report.hosts = root.hosts.iter().map(turn).collect::<Option<_>>()?;
        Some(report)
    }
}
