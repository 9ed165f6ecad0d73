//! The source against its index: one thread scans, another compares with what is recorded.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use super::RootJob;
use super::contents::{Contents, Indexed};
use super::record::{Record, RecordJob};
use super::source::{Counts, ScanError, check_scan, unscannable};
use crate::index::{IndexError, Summary};
use crate::model::{RelPath, Seen};
use crate::plan::guard::GuardRefusal;
use crate::tree::{Dir, Root, ScanOptions, ScanReport, SeenDirectory, SystemOwners, look_again, survey};

/// How much is read at a time of a file that is looked at again.
const LOOK_BYTES: usize = 256 << 10;

/// Entries that are handed over at a time: one directory at a time costs more than it gains.
const BATCH_ENTRIES: usize = 2048;

/// How many batches the scan may be ahead.
const BATCHES_AHEAD: usize = 4;

/// What the scan says.
enum Seeing {
    Directories(Vec<SeenDirectory>),
    /// The scan is whole, and what was found may be recorded; these are the mount points that were left out.
    Whole {
        mounts: BTreeSet<RelPath>,
    },
}

/// Compares the source with its index, and numbers what changed.
pub(super) fn survey_source(
    job: &RootJob,
    root: &Root,
    options: &ScanOptions,
    record: &Record,
    keep: &RecordJob,
) -> Result<(Contents, Counts, ScanReport), ScanError> {
    let (batches, inbox) = sync_channel(BATCHES_AHEAD);
    let (scanned, merged) = thread::scope(|scope| {
        let merging = thread::Builder::new().spawn_scoped(scope, || merge(root, record, keep, inbox));
        let merging = merging.map_err(|error| ScanError::Refused(unscannable(job, &error)))?;
        let scanned = scan(job, root, options, batches);
        Ok((scanned, merging.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
    })?;
    // Where the index fails, the scan ends early, and not for a reason of its own.
    let summary = merged.map_err(ScanError::Index)?;
    let (counts, report) = scanned.map_err(ScanError::Refused)?;
    let position = summary.unwrap_or_default().position;
    let indexed = Indexed::new(Arc::clone(&record.index), report.names.clone(), position);
    Ok((Contents::Indexed(indexed), counts, report))
}

/// Lists the source into `batches`; if it is a source that may be pushed, the last word says so.
fn scan(
    job: &RootJob,
    root: &Root,
    options: &ScanOptions,
    batches: SyncSender<Seeing>,
) -> Result<(Counts, ScanReport), GuardRefusal> {
    let mut counts = Counts::default();
    let mut batch = Vec::new();
    let mut waiting = 0;
    let gone = |_| io::Error::other("the index ended early");
    let mut visit = |dir: SeenDirectory, _: &Dir| {
        dir.entries.iter().for_each(|seen| counts.add(&seen.node));
        waiting += 1 + dir.entries.len();
        batch.push(dir);
        if waiting < BATCH_ENTRIES {
            return Ok(());
        }
        waiting = 0;
        batches.send(Seeing::Directories(std::mem::take(&mut batch))).map_err(gone)
    };
    let report = survey(root, options, &SystemOwners::new(), &mut visit).map_err(|error| unscannable(job, &error))?;
    check_scan(job, &report, counts)?;
    let last = [Seeing::Directories(batch), Seeing::Whole { mounts: report.left.mounts.clone() }]
        .into_iter()
        .try_for_each(|said| batches.send(said));
    last.map_err(|error| unscannable(job, &gone(error)))?;
    Ok((counts, report))
}

/// Records what is in `inbox`; `None`, and nothing is recorded, if the scan did not come to its end.
fn merge(
    root: &Root,
    record: &Record,
    keep: &RecordJob,
    inbox: Receiver<Seeing>,
) -> Result<Option<Summary>, IndexError> {
    let mut index = record.index.lock().unwrap_or_else(PoisonError::into_inner);
    let mut merge = index.merge(keep.now)?;
    let mut buffer = vec![0; LOOK_BYTES];
    for said in inbox {
        let directories = match said {
            Seeing::Directories(directories) => directories,
            Seeing::Whole { mounts } => {
                merge.mounted(&mounts);
                return merge.finish(keep.stamp).map(Some);
            }
        };
        for dir in directories {
            let mut handle = None;
            let mut look = |seen: &Seen| {
                let handle = handle.get_or_insert_with(|| root.dir(&dir.path).ok()).as_ref()?;
                look_again(handle, seen, &mut buffer)
            };
            merge.directory(&dir.path, &dir.itself, &dir.entries, &mut look)?;
            merge.left_out(dir.rules.as_ref(), &dir.large);
        }
    }
    Ok(None)
}
