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
use crate::index::{IndexError, Look};
use crate::model::{AclName, Attributes, Digest, Inode, Position, Problem, ProblemKind, RelPath, Seen};
use crate::plan::guard::GuardRefusal;
use crate::tree::{
    AttributesReader, Dir, Found, Root, ScanOptions, ScanReport, SeenDirectory, SystemOwners, look_again, survey,
};

/// How much is read at a time of a file that is looked at again.
pub(super) const LOOK_BYTES: usize = 256 << 10;

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
        let merging = thread::Builder::new().spawn_scoped(scope, || merge(job, root, record, keep, inbox));
        let merging = merging.map_err(|error| ScanError::Refused(unscannable(job, &error)))?;
        let scanned = scan(job, root, options, batches);
        Ok((scanned, merging.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
    })?;
    // Where the index fails, the scan ends early, and not for a reason of its own.
    let merged = merged.map_err(ScanError::Index)?;
    let (counts, mut report) = scanned.map_err(ScanError::Refused)?;
    let Merged { position, acl_names, problems } = merged.unwrap_or_default();
    report.problems.extend(problems);
    let owners = SystemOwners::new();
    acl_names.into_iter().for_each(|name| report.names.note_named(name, &owners));
    let mut indexed = Indexed::new(Arc::clone(&record.index), report.names.clone(), position);
    if let Some(kept) = &job.kept {
        let reader = kept.reader(&keep.file).map_err(ScanError::Index)?;
        indexed = indexed.read_by(reader).map_err(ScanError::Index)?;
    }
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
    let mut visit = |dir: SeenDirectory| {
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

/// What came of recording it.
#[derive(Default)]
struct Merged {
    position: Position,
    /// Whom ACLs name.
    acl_names: Vec<AclName>,
    problems: Vec<Problem>,
}

/// Looks again at entries of one directory.
///
/// RACE: the directory was closed since it was listed, and another may have its path by now. What is in that one says
/// nothing of the entries that were listed, however alike they look: so it has to be the same.
pub(super) struct Looking<'a> {
    pub(super) root: &'a Root,
    pub(super) path: &'a RelPath,
    /// What the directory was when it was listed.
    pub(super) itself: Inode,
    /// Opened when it is needed.
    pub(super) handle: Option<Option<Dir>>,
    pub(super) buffer: &'a mut [u8],
    /// `None` if they are not synced.
    pub(super) attributes: Option<&'a mut AttributesReader>,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Looking<'_> {
    fn open_once(&mut self) {
        if self.handle.is_none() {
            self.handle = Some(self.open());
        }
    }

    /// The directory; `None` if it is gone from its path.
    fn open(&mut self) -> Option<Dir> {
        let dir = self.root.dir(self.path).ok()?;
        let now = dir.stat_self().ok()?.inode();
        ((now.dev, now.ino) == (self.itself.dev, self.itself.ino)).then_some(dir)
    }
}

impl Look for Looking<'_> {
    fn content(&mut self, seen: &Seen) -> Option<Digest> {
        self.open_once();
        look_again(self.handle.as_ref()?.as_ref()?, seen, self.buffer)
    }

    fn attributes(&mut self, seen: &Seen) -> Option<Attributes> {
        if self.attributes.is_none() {
            return Some(Attributes::default());
        }
        self.open_once();
        let dir = self.handle.as_ref()?.as_ref()?;
        let read = self.attributes.as_mut()?.read(dir, &seen.node.name);
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // It went, or was renamed, since it was listed.
            return None;
        }
        let is_read = read.is_ok();
        let found = Found::or_nothing(read);
        if let (Some(detail), Ok(path)) = (found.left_out, self.path.join(&seen.node.name)) {
            self.problems.push(Problem::new(path, ProblemKind::Unreadable, detail));
        }
        is_read.then_some(found.attributes)
    }
}

/// Records what is in `inbox`; `None`, and nothing is recorded, if the scan did not come to its end.
fn merge(
    job: &RootJob,
    root: &Root,
    record: &Record,
    keep: &RecordJob,
    inbox: Receiver<Seeing>,
) -> Result<Option<Merged>, IndexError> {
    let mut index = record.index.lock().unwrap_or_else(PoisonError::into_inner);
    let mut merge = index.merge(keep.now)?;
    let mut buffer = vec![0; LOOK_BYTES];
    let mut problems = Vec::new();
    let mut attributes = job.attributes.then(AttributesReader::on_this_thread);
    for said in inbox {
        let directories = match said {
            Seeing::Directories(directories) => directories,
            Seeing::Whole { mounts } => {
                merge.mounted(&mounts);
                let position = merge.finish(keep.stamp)?.position;
                return Ok(Some(Merged { position, acl_names: index.acl_names()?, problems }));
            }
        };
        for mut dir in directories {
            let mut look = Looking {
                root,
                path: &dir.path,
                itself: dir.itself.inode,
                handle: None,
                buffer: &mut buffer,
                attributes: attributes.as_mut(),
                problems: &mut problems,
            };
            merge.directory(&dir.path, &dir.itself, &mut dir.entries, &mut look)?;
            merge.left_out(dir.rules.as_ref(), &dir.large);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Node};

    #[test]
    fn what_lies_where_a_directory_was_is_not_taken_for_what_it_held() {
        let directory = tempfile::tempdir().unwrap();
        let (held, other) = (directory.path().join("d"), directory.path().join("other"));
        for dir in [&held, &other] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("f"), "x").unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let path = RelPath::new(b"d").unwrap();
        let dir = root.dir(&path).unwrap();
        let itself = dir.stat_self().unwrap().inode();
        let stat = dir.stat(b"f").unwrap();
        let node = Node { name: b"f".as_slice().into(), kind: Kind::file(1), meta: stat.meta() };
        let seen = Seen { node, inode: stat.inode() };
        let asked = || {
            let (mut buffer, mut problems) = (vec![0; 16], Vec::new());
            let mut attributes = AttributesReader::on_this_thread();
            let mut look = Looking {
                root: &root,
                path: &path,
                itself,
                handle: None,
                buffer: &mut buffer,
                attributes: Some(&mut attributes),
                problems: &mut problems,
            };
            (look.content(&seen).is_some(), look.attributes(&seen).is_some())
        };
        assert_eq!(asked(), (true, true));
        let time = std::fs::metadata(held.join("f")).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(other.join("f")).unwrap().set_modified(time).unwrap();
        std::fs::rename(&held, directory.path().join("gone")).unwrap();
        assert_eq!(asked(), (false, false), "nothing is there");
        std::fs::rename(&other, &held).unwrap();
        assert_eq!(asked(), (false, false), "another directory with a file that looks the same");
    }
}
