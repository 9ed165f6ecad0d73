//! A root to all hosts, side by side.

use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rendezvous::{Agenda, Meeting, meet};
use super::report::{HostReport, HostState, RootReport};
use super::session::{Context, run};
use super::source::{Source, open, scan_source};
use super::{HostJob, RootJob};
use crate::plan::guard::GuardRefusal;

/// Brings a root to `hosts`, all of them side by side, none waiting for a sick one.
pub async fn push_root(job: RootJob, hosts: Vec<HostJob>) -> RootReport {
    let job = Arc::new(job);
    let mut report = RootReport {
        name: job.name.clone(),
        path: job.path.clone(),
        entries: 0,
        bytes: 0,
        read_bytes: 0,
        refused: None,
        problems: Vec::new(),
        notes: Vec::new(),
        hosts: Vec::new(),
    };
    let started = Instant::now();
    // What needs no host is looked at before one is bothered.
    let root = match open(&job) {
        Ok(root) => root,
        Err(refusal) => {
            report.hosts = hosts.iter().map(|host| refused(&host.endpoint.name)).collect();
            report.refused = Some(refusal);
            return report;
        }
    };
    let (found, source) = watch::channel(None);
    let (events, inbox) = mpsc::unbounded_channel();
    let hosts: Vec<Arc<HostJob>> = hosts.into_iter().map(Arc::new).collect();
    let context = Arc::new(Context {
        source,
        events,
        started,
        comparing: Semaphore::new(job.parallel.max(1)),
        sending: Semaphore::new(job.parallel.max(1)),
        planning: Semaphore::new(1),
        plans: Mutex::default(),
        job: Arc::clone(&job),
    });
    let mut sessions = JoinSet::new();
    for (number, host) in hosts.iter().enumerate() {
        let (context, host) = (Arc::clone(&context), Arc::clone(host));
        sessions.spawn(async move { (number, run(context, number, host).await) });
    }
    drop(context);
    let scan_job = Arc::clone(&job);
    let scan = tokio::task::spawn_blocking(move || scan_source(&scan_job, root));
    let mut stop = job.stop.clone();
    let scanned = tokio::select! {
        scanned = scan => Some(scanned),
        // The scan ends with the process; nobody waits for it.
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let mut source_refused = false;
    let meeting = match scanned {
        None => Meeting::default(),
        Some(Ok(Ok(source))) => {
            let source = Arc::new(source);
            describe(&mut report, &source);
            let agenda = agenda(&job, &hosts, &source, started);
            found.send_replace(Some(Some(source)));
            meet(agenda, inbox).await
        }
        Some(Ok(Err(refusal))) => {
            source_refused = true;
            found.send_replace(Some(None));
            Meeting { refused: Some(refusal), outcomes: Vec::new() }
        }
        Some(Err(error)) => {
            source_refused = true;
            found.send_replace(Some(None));
            Meeting { refused: Some(defect(&job, &error.to_string())), outcomes: Vec::new() }
        }
    };
    if source_refused {
        // Nothing was changed and nothing will be: a host that is slow to connect is not waited for.
        sessions.abort_all();
    }
    let missing = if source_refused { HostState::Refused } else { HostState::Failed };
    collect(&mut report, meeting, sessions, &hosts, missing).await;
    report
}

fn agenda(job: &RootJob, hosts: &[Arc<HostJob>], source: &Arc<Source>, started: Instant) -> Agenda {
    Agenda {
        label: job.label(),
        settings: job.guard.clone(),
        names: hosts.iter().map(|host| host.endpoint.name.clone()).collect(),
        remote: hosts.iter().map(|host| host.endpoint.is_remote()).collect(),
        dry_run: job.dry_run,
        source: Arc::clone(source),
        started,
    }
}

fn describe(report: &mut RootReport, source: &Source) {
    report.entries = source.listing.entry_count();
    report.bytes = source.listing.content_bytes();
    report.problems.extend(source.problems.iter().cloned());
    let specials = source.listing.dirs.iter().flat_map(|dir| &dir.nodes);
    let specials = specials.filter(|node| matches!(node.kind, crate::model::Kind::Special(_))).count();
    if specials > 0 {
        report.notes.push(format!("{specials} special file(s) (sockets, pipes, devices) are not synced"));
    }
}

async fn collect(
    report: &mut RootReport,
    meeting: Meeting,
    mut sessions: JoinSet<(usize, HostReport)>,
    hosts: &[Arc<HostJob>],
    missing: HostState,
) {
    let mut reports: Vec<Option<HostReport>> = hosts.iter().map(|_| None).collect();
    while let Some(ended) = sessions.join_next().await {
        // A session that panicked shows as failed below.
        if let Ok((number, host)) = ended {
            reports[number] = Some(host);
        }
    }
    for outcome in meeting.outcomes {
        report.read_bytes += outcome.read_bytes;
        report.problems.extend(outcome.problems);
    }
    let missing = |name: &str| match missing {
        HostState::Refused => refused(name),
        _ => HostReport { error: Some("internal error".into()), ..HostReport::new(name) },
    };
    let with_names = reports.into_iter().zip(hosts);
    report.hosts = with_names.map(|(host, task)| host.unwrap_or_else(|| missing(&task.endpoint.name))).collect();
    report.refused = meeting.refused;
}

fn refused(name: &str) -> HostReport {
    HostReport { state: HostState::Refused, ..HostReport::new(name) }
}

fn defect(job: &RootJob, error: &str) -> GuardRefusal {
    let message = format!("root {}: the scan ended unexpectedly: {error}; nothing was changed", job.label());
    GuardRefusal { guard: crate::plan::guard::Guard::UnreadableSource, message, plan: None }
}
