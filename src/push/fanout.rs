//! A root to all hosts, side by side.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::record::{Hosts, Record};
use super::rendezvous::{Agenda, Meeting, meet};
use super::report::{HostReport, HostState, RootReport, Skipped};
use super::session::{Context, run};
use super::source::{ScanError, Source, open, scan_source};
use super::{HostJob, RootJob};
use crate::index::IndexError;
use crate::model::RelPath;
use crate::plan::guard::GuardRefusal;
use crate::tree::Root;

/// Brings a root to `hosts`, all of them side by side, none waiting for a sick one.
pub async fn push_root(mut job: RootJob, hosts: Vec<HostJob>) -> RootReport {
    let looked = job.looked.take();
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
        skipped: None,
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
    let record = open_record(&job, &root, &hosts, &mut report).await;
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
        record: record.clone(),
        job: Arc::clone(&job),
    });
    let mut sessions = JoinSet::new();
    for (number, host) in hosts.iter().enumerate() {
        let (context, host) = (Arc::clone(&context), Arc::clone(host));
        let ended = job.ended.clone();
        sessions.spawn(async move {
            let report = run(context, number, host).await;
            if let Some(ended) = ended {
                // Whoever does not listen any more does not want to know.
                let _ = ended.send(report.clone());
            }
            (number, report)
        });
    }
    drop(context);
    let scan_job = Arc::clone(&job);
    let scan_record = record.clone();
    let scan = tokio::task::spawn_blocking(move || scan_with(&scan_job, root, scan_record.as_deref()));
    let mut stop = job.stop.clone();
    let scanned = tokio::select! {
        scanned = scan => Some(scanned),
        // The scan ends with the process; nobody waits for it.
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let mut source_refused = false;
    let mut unmounted = BTreeSet::new();
    let meeting = match scanned {
        None => Meeting::default(),
        Some(Ok(Ok((source, note)))) => {
            report.notes.extend(note);
            let source = Arc::new(source);
            if let Some(looked) = looked {
                // Whoever does not listen any more does not want to know.
                let _ = looked.send(source.looked());
            }
            describe(&mut report, &source, &job);
            unmounted.clone_from(&source.scope.left().unmounted);
            let exchanged = record.as_ref().is_some_and(|record| record.exchanged);
            let agenda = agenda(&job, &hosts, &source, exchanged, started);
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
    if let Some(record) = record {
        // Only who confirms what is deleted agrees to it.
        let agreed = !job.guard.confirmed.is_empty() && !job.selection.one_filesystem;
        close_record(record, &mut report, if agreed { unmounted } else { BTreeSet::new() }).await;
    }
    report
}

/// Opens what is kept from push to push. Without it everything is compared, which is slower, and said.
async fn open_record(
    job: &Arc<RootJob>,
    root: &Arc<Root>,
    hosts: &[HostJob],
    report: &mut RootReport,
) -> Option<Arc<Record>> {
    let keep = job.record.clone()?;
    let names: Vec<String> = hosts.iter().map(|host| host.endpoint.name.clone()).collect();
    let greeted = hosts.iter().any(|host| host.line.as_ref().is_none_or(|line| !line.is_alive()));
    let (job, root) = (Arc::clone(job), Arc::clone(root));
    let opened =
        tokio::task::spawn_blocking(move || Record::open(&job, &keep, &root, &Hosts { names: &names, greeted })).await;
    match opened.map_err(|error| error.to_string()).and_then(|opened| opened.map_err(|error| error.to_string())) {
        Ok(record) => {
            report.notes.extend(record.note());
            Some(Arc::new(record))
        }
        Err(error) => {
            report.notes.push(format!("{error}; every host is compared"));
            None
        }
    }
}

/// Scans with the index, or without it where it fails; then with a note for the operator.
fn scan_with(
    job: &RootJob,
    root: Arc<Root>,
    record: Option<&Record>,
) -> Result<(Source, Option<String>), GuardRefusal> {
    match scan_source(job, Arc::clone(&root), record) {
        Ok(source) => Ok((source, None)),
        Err(ScanError::Refused(refusal)) => Err(refusal),
        Err(ScanError::Index(error)) => {
            if let (Some(record), IndexError::Damaged(_)) = (record, &error) {
                record.index.lock().unwrap_or_else(PoisonError::into_inner).mark_damaged();
            }
            job.kept.iter().for_each(|kept| kept.forget());
            let note = format!("{error}; every host is compared, and the index is built anew");
            match scan_source(job, root, None) {
                Ok(source) => Ok((source, Some(note))),
                Err(ScanError::Refused(refusal)) => Err(refusal),
                Err(ScanError::Index(error)) => Err(defect(job, &error.to_string())),
            }
        }
    }
}

async fn close_record(record: Arc<Record>, report: &mut RootReport, unmounted: BTreeSet<RelPath>) {
    let accepted = report.refused.is_none()
        && report.hosts.iter().any(|host| matches!(host.state, HostState::Done | HostState::Unchanged));
    let closed = tokio::task::spawn_blocking(move || record.close(accepted, &unmounted)).await;
    if let Ok(Err(error)) = closed {
        report.notes.push(error.to_string());
    }
}

fn agenda(job: &RootJob, hosts: &[Arc<HostJob>], source: &Arc<Source>, exchanged: bool, started: Instant) -> Agenda {
    Agenda {
        label: job.label(),
        settings: job.guard.clone(),
        names: hosts.iter().map(|host| host.endpoint.name.clone()).collect(),
        remote: hosts.iter().map(|host| host.endpoint.is_remote()).collect(),
        dry_run: job.dry_run,
        source: Arc::clone(source),
        exchanged,
        unmounted: if job.selection.one_filesystem { BTreeSet::new() } else { source.scope.left().unmounted.clone() },
        started,
    }
}

/// Files that are too large that are kept by name.
const NAMED_LARGE: usize = 1000;

fn describe(report: &mut RootReport, source: &Source, job: &RootJob) {
    report.entries = source.counts.entries;
    report.bytes = source.counts.bytes;
    report.problems.extend(source.problems.iter().cloned());
    let sockets = source.counts.sockets;
    if sockets > 0 {
        report.notes.push(format!("{sockets} socket(s) are not synced: each belongs to the program that made it"));
    }
    let left = source.scope.left();
    if let (Some(max_size_bytes), false) = (job.selection.max_size_bytes, left.large.is_empty()) {
        let named = left.large.iter().take(NAMED_LARGE).map(|(path, size_bytes)| (path.clone(), *size_bytes));
        let files = left.large.len() as u64;
        report.skipped = Some(Skipped { max_size_bytes, files, named: named.collect() });
    }
    if job.selection.one_filesystem {
        for path in &left.unmounted {
            report.notes.push(format!(
                "nothing is mounted at {path}, where something was: it is left alone, as before. If it is a plain \
                 directory from now on, push once with one_filesystem = false"
            ));
        }
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
