//! What is kept from one push to the next: the index, and where each host is in its history.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::RootJob;
use super::kept::Remembered;
use crate::index::{Condition, HostRecord, Identity, Index, IndexError};
use crate::model::{Fidelity, Position, RelPath, Stamp, Timestamp};
use crate::tree::Root;
use crate::wire::Welcome;

/// A host's record is written again after this, if nothing else changed.
const SEEN_SECONDS: u64 = 3600;

/// Where and how a push keeps what it learns.
#[derive(Clone, Debug)]
pub struct RecordJob {
    /// The index's file.
    pub file: PathBuf,
    /// What tells this machine from others.
    pub machine: String,
    /// What of the source is synced, as text.
    pub filter: String,
    /// A random number for the changes that this push finds.
    pub stamp: Stamp,
    /// The time at which the push began.
    pub now: Timestamp,
    /// After this everything on a host is compared again.
    pub verify_interval: Duration,
    /// Compare everything on every host.
    pub full: bool,
}

/// What was kept.
pub(super) struct Record {
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) condition: Condition,
    /// The source is another one than before, and that was not accepted yet.
    pub(super) exchanged: bool,
    positions: HashSet<Position>,
    hosts: HashMap<String, HostRecord>,
    /// Hosts that something was changed on, and of which it is not known yet how it ended.
    begun: Mutex<HashSet<String>>,
    job: RecordJob,
    pub(super) identity: Identity,
    /// What an earlier cycle of this process knew.
    pub(super) remembered: Option<Remembered>,
}

/// The hosts of a push.
pub(super) struct Hosts<'a> {
    pub(super) names: &'a [String],
    /// One of them is greeted: it may be anywhere in history.
    pub(super) greeted: bool,
}

/// How a host is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approach {
    /// By what changed since it was here last.
    History(Position),
    /// By comparing everything; where it is in history, if that is known.
    Reconcile(Option<Position>),
}

impl Record {
    /// Opens what is kept for `root`. Blocks.
    ///
    /// # Errors
    /// The index can neither be read nor made.
    pub(super) fn open(job: &RootJob, keep: &RecordJob, root: &Root, hosts: &Hosts<'_>) -> Result<Self, IndexError> {
        let source = root.identity().map_or((0, 0, 0), |identity| (identity.dev, identity.ino, identity.fsid));
        let identity = Identity {
            machine: keep.machine.clone(),
            path: job.path.clone(),
            filter: keep.filter.clone(),
            attributes: job.attributes,
            source,
        };
        let remembered = job.kept.as_ref().and_then(|kept| kept.of(&identity));
        let (shared, condition) = match &remembered {
            Some(remembered) => (Arc::clone(&remembered.index), Condition::Known),
            None => {
                let (index, condition) = Index::open(&keep.file, &identity)?;
                (Arc::new(Mutex::new(index)), condition)
            }
        };
        let index = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = HashMap::new();
        for host in hosts.names {
            if let Some(record) = index.host(host)? {
                records.insert(host.clone(), record);
            }
        }
        let positions = if hosts.greeted { index.positions()?.into_iter().collect() } else { HashSet::new() };
        let exchanged = index.is_exchanged()?;
        drop(index);
        let (begun, job) = (Mutex::default(), keep.clone());
        Ok(Record { condition, exchanged, positions, hosts: records, begun, job, index: shared, identity, remembered })
    }

    /// What an operator should know of it.
    pub(super) fn note(&self) -> Option<String> {
        let reason = self.condition.reason()?;
        Some(format!("the index {reason}: it was built anew, and every host is compared"))
    }

    /// How `host` is brought up to date.
    pub(super) fn approach(&self, job: &RootJob, host: &str, welcome: &Welcome) -> Approach {
        let ours = |state: &&crate::wire::RootState| {
            job.fleet.as_ref() == Some(&state.fleet) && state.root == job.name && state.term <= job.term
        };
        let at = welcome.state.as_ref().filter(ours).map(|state| state.position);
        let at = at.filter(|position| self.positions.contains(position));
        match (at, self.hosts.get(host)) {
            (Some(position), Some(record)) if !self.is_due(record, welcome.fidelity) => Approach::History(position),
            _ => Approach::Reconcile(at),
        }
    }

    fn is_due(&self, record: &HostRecord, fidelity: Fidelity) -> bool {
        self.is_old(record) || record.incomplete || record.fidelity != fidelity.to_string()
    }

    fn is_old(&self, record: &HostRecord) -> bool {
        let now = seconds(self.job.now);
        let age = Duration::from_secs(now.saturating_sub(record.reconciled));
        // A clock that was put back must not put off the comparison for ever.
        self.job.full || age >= self.job.verify_interval || record.reconciled > now
    }

    /// Whether `host`, of which all else is known, was not compared for too long.
    pub(super) fn is_verify_due(&self, host: &str) -> bool {
        self.hosts.get(host).is_none_or(|record| self.is_old(record))
    }

    /// Remembers that `host` is about to be changed. If nothing is heard of how that ended, since this process was
    /// killed, say, then what could not be brought over is known to nobody: the next push compares.
    ///
    /// # Errors
    /// The index fails.
    pub(super) fn note_begun(&self, host: &str) -> Result<(), IndexError> {
        let Some(before) = self.hosts.get(host) else { return Ok(()) };
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
        self.lock().set_host(host, &HostRecord { incomplete: true, ..before.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how a push to `host` ended.
    ///
    /// # Errors
    /// The index fails.
    pub(super) fn note_host(&self, host: &str, ended: Ended) -> Result<(), IndexError> {
        let now = seconds(self.job.now);
        let before = self.hosts.get(host).cloned().unwrap_or_default();
        let record = HostRecord {
            sequence: ended.position.sequence,
            reconciled: if ended.reconciled { now } else { before.reconciled },
            seen: now,
            fidelity: ended.fidelity.to_string(),
            incomplete: ended.incomplete,
        };
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
        let fresh = !begun && before.seen + SEEN_SECONDS > now;
        if fresh && (HostRecord { seen: before.seen, ..record.clone() }) == before {
            return Ok(());
        }
        self.lock().set_host(host, &record)
    }

    /// What was a mount point at an earlier scan. Where that cannot be read the scan will say so.
    pub(super) fn mounts(&self) -> BTreeSet<RelPath> {
        self.lock().mounts().unwrap_or_default()
    }

    /// Drops what nobody needs, and accepts the source if all was well; with it that nothing is mounted any
    /// more at `unmounted`.
    pub(super) fn close(&self, accepted: bool, unmounted: &BTreeSet<RelPath>) -> Result<(), IndexError> {
        let index = self.lock();
        if accepted {
            index.accept()?;
            if !unmounted.is_empty() {
                index.forget_mounts(unmounted)?;
            }
        }
        index.forget_the_past(seconds(self.job.now))
    }
}

/// How a push to a host ended.
pub(super) struct Ended {
    pub(super) position: Position,
    pub(super) reconciled: bool,
    pub(super) fidelity: Fidelity,
    pub(super) incomplete: bool,
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.secs).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(file: &std::path::Path) -> Record {
        let identity = Identity {
            machine: "m".into(),
            path: "/src".into(),
            filter: String::new(),
            attributes: false,
            source: (1, 2, 3),
        };
        let (index, condition) = Index::open(file, &identity).unwrap();
        let job = RecordJob {
            file: file.to_owned(),
            machine: identity.machine.clone(),
            filter: identity.filter.clone(),
            stamp: Stamp(1),
            now: Timestamp { secs: 1_000_000, nanos: 0 },
            verify_interval: Duration::from_secs(3600),
            full: false,
        };
        let hosts = index.host("web2").unwrap().map(|record| ("web2".to_owned(), record)).into_iter().collect();
        let index = Arc::new(Mutex::new(index));
        let (positions, begun) = (HashSet::new(), Mutex::default());
        Record { index, condition, exchanged: false, positions, hosts, begun, job, identity, remembered: None }
    }

    #[test]
    fn a_host_of_which_nobody_heard_how_it_ended_is_compared() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("index");
        let ended =
            || Ended { position: Position::default(), reconciled: true, fidelity: Fidelity::FULL, incomplete: false };
        let is_due = || {
            let record = record(&file);
            record.is_due(&record.hosts["web2"], Fidelity::FULL)
        };
        record(&file).note_host("web2", ended()).unwrap();
        assert!(!is_due());
        record(&file).note_begun("web2").unwrap();
        assert!(is_due(), "killed in between");
        let again = record(&file);
        again.note_begun("web2").unwrap();
        again.note_host("web2", ended()).unwrap();
        assert!(!is_due());
    }
}
