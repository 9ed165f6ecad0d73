//! The source: the guards that need no host, and the scan.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::contents::{Contents, Tables};
use super::glance::{Glanced, glance_at};
use super::kept::Remembered;
use super::record::Record;
use super::survey;
use super::{Extent, Looked, RootJob};
use crate::index::{Index, IndexError};
use crate::model::{DirListing, Fidelity, Kind, Listing, Node, Problem, ProblemKind, RelPath, SpecialKind};
use crate::plan::Plan;
use crate::plan::guard::{Guard, GuardRefusal};
use crate::tree::{Parents, Root, RootError, ScanOptions, ScanReport, Scope, Selection, SystemOwners, Unwatched, scan};

/// A source that was scanned and may be pushed.
pub(super) struct Source {
    pub(super) root: Arc<Root>,
    pub(super) contents: Contents,
    pub(super) tables: Tables,
    pub(super) problems: Vec<Problem>,
    pub(super) counts: Counts,
    /// Extended attributes are synced.
    pub(super) attributes: bool,
    /// What is left alone on the hosts.
    pub(super) scope: Arc<Scope>,
    /// All of it was scanned.
    pub(super) whole: bool,
    /// Files that keep changing are waited for.
    pub(super) patient: bool,
    /// Told where that is which could not be sent.
    pub(super) unsent: Option<mpsc::UnboundedSender<RelPath>>,
    /// Directories that changes are not noticed in.
    pub(super) unwatched: Unwatched,
    /// Something came and went between two looks.
    pub(super) passed: bool,
}

/// A source in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) sockets: u64,
    pub(super) pipes: u64,
    pub(super) devices: u64,
}

impl Counts {
    /// Special files that a host of `fidelity` does not make, said to people.
    pub(super) fn left_out(&self, fidelity: Fidelity) -> Option<String> {
        let pipes = if fidelity.pipes { 0 } else { self.pipes };
        let devices = if fidelity.devices { 0 } else { self.devices };
        let what = match (pipes, devices) {
            (0, 0) => return None,
            (pipes, 0) => format!("{pipes} named pipe(s) are"),
            (0, devices) => format!("{devices} device(s) are"),
            (pipes, devices) => format!("{pipes} named pipe(s) and {devices} device(s) are"),
        };
        Some(format!("{what} not made there: that takes `[receive] devices`, and for devices root or cap_mknod"))
    }

    pub(super) fn add(&mut self, node: &Node) {
        self.entries += 1;
        self.bytes += node.kind.size_bytes();
        match node.kind {
            Kind::Special(SpecialKind::Socket) => self.sockets += 1,
            Kind::Special(SpecialKind::Fifo) => self.pipes += 1,
            Kind::Special(_) => self.devices += 1,
            _ => {}
        }
    }
}

/// Files from this length on are looked at for holes before room is asked for them.
const HOLES_FROM_BYTES: u64 = 4 << 20;

impl Source {
    /// What came of looking at it.
    pub(super) fn looked(&self) -> Looked {
        Looked {
            whole: self.whole,
            position: self.contents.position(),
            entries: self.counts.entries,
            unwatched: self.unwatched.clone(),
            passed: self.passed,
        }
    }

    /// Room that the files to be sent do not take, since they have holes. Costs a look at each large one.
    pub(super) fn bytes_of_holes(&self, plan: &Plan, listing: &Listing) -> u64 {
        let mut parents = Parents::new(&self.root);
        let large = plan.files.iter().map(|file| file.step.entry);
        let large = large.filter(|entry| entry.of(listing).1.kind.size_bytes() >= HOLES_FROM_BYTES);
        let holes = large.filter_map(|entry| {
            let path = entry.path(listing);
            let (dir, name) = parents.parent(&path).ok()?;
            let stat = dir.stat(name).ok()?;
            Some(stat.size_bytes.saturating_sub(stat.allocated_bytes))
        });
        holes.fold(0, u64::saturating_add)
    }

    /// Takes back the removals of what is there after all: a name that is renamed over while its
    /// directory is listed can be missing from the list. When in doubt, it is there. Whether any was: then
    /// the host has something of which the index says that it is gone.
    pub(super) fn confirm_removals(&self, plan: &mut Plan) -> bool {
        let mut parents = Parents::new(&self.root);
        let mut is_gone = |path: &RelPath, is_directory| {
            if self.scope.deletes(path, is_directory) {
                return true;
            }
            let looked = parents.parent(path).and_then(|(dir, name)| dir.stat(name));
            looked.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
        };
        let before = plan.removals.len();
        plan.removals.retain(|removal| is_gone(&removal.path, removal.is_directory()));
        let taken_back = (before - plan.removals.len()) as u64;
        plan.totals.deleted -= taken_back;
        plan.totals.overwritten -= taken_back;
        taken_back > 0
    }
}

fn refuse(guard: Guard, message: String) -> GuardRefusal {
    GuardRefusal { guard, message, plan: None }
}

/// Opens the source and looks at what can be seen without a scan.
///
/// # Errors
/// A guard refuses.
pub(super) fn open(job: &RootJob) -> Result<Arc<Root>, GuardRefusal> {
    let label = job.label();
    let root = Root::open(&job.path).map_err(|error| {
        refuse(Guard::Source, format!("root {label}: {error}; nothing was changed. Is the volume mounted?"))
    })?;
    if let Some(require) = &job.require {
        check_require(&root, require).map_err(|why| {
            let file = require.display();
            let message = format!(
                "root {label}: the required file `{file}` {why}, so the source is taken as not mounted; nothing was \
                 changed. Mount it, or create the file if this is the right source"
            );
            refuse(Guard::Require, message)
        })?;
    }
    for destination in &job.local_destinations {
        check_overlap(&root, destination).map_err(|why| {
            let message = format!(
                "root {label}: {} {why}; nothing was changed. Choose another destination",
                destination.display()
            );
            refuse(Guard::Overlap, message)
        })?;
    }
    Ok(Arc::new(root))
}

/// Looks for the file that proves that `root` is mounted.
///
/// # Errors
/// What is the matter with it, to follow its name: "does not exist".
pub fn check_require(root: &Root, require: &Path) -> Result<(), String> {
    use std::os::unix::ffi::OsStrExt;
    // The file may carry the reserved prefix as part of a longer name, as `.rfleet-root` does.
    let path = RelPath::new(require.as_os_str().as_bytes()).map_err(|error| format!("is no usable name: {error}"))?;
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be looked at: {error}"),
    };
    let Some((parent, name)) = path.split() else { return Err("is no usable name".into()) };
    let dir = root.dir(&parent).map_err(missing)?;
    dir.stat(name).map(drop).map_err(missing)
}

/// Whether source and destination lie one inside the other. A destination that does not exist yet is
/// judged by the directory that it will be made in.
fn check_overlap(source: &Root, destination: &Path) -> Result<(), &'static str> {
    let failed = |_| "cannot be compared with the source's place";
    match Root::open(destination) {
        Ok(there) if there.is_same_or_inside(source).map_err(failed)? => Err("is the source or lies inside it"),
        Ok(there) if source.is_same_or_inside(&there).map_err(failed)? => Err("holds the source"),
        Ok(_) => Ok(()),
        Err(RootError::Missing(_)) => match nearest(destination) {
            Some(there) if there.is_same_or_inside(source).map_err(failed)? => Err("would lie inside the source"),
            // The receiver says what is wrong with its root.
            _ => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

/// The nearest directory above `path` that exists.
fn nearest(path: &Path) -> Option<Root> {
    let above = path.ancestors().skip(1).map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    above.map(Root::open).find_map(Result::ok)
}

/// Why a scan has no source to give.
#[derive(Debug)]
pub(super) enum ScanError {
    /// A guard refuses.
    Refused(GuardRefusal),
    /// The index failed: the scan is to be done without it.
    Index(IndexError),
}

/// Scans the source.
///
/// # Errors
/// A guard refuses: the source is empty, or a part of it cannot be read. Or the index fails.
pub(super) fn scan_source(job: &RootJob, root: Arc<Root>, record: Option<&Record>) -> Result<Source, ScanError> {
    let monitor = Arc::clone(&job.monitor);
    let report_progress = |entries| monitor.scanned(entries);
    let mounts = match (record, &job.memory) {
        (Some(record), _) => record.mounts(),
        (None, Some(file)) => Index::mounts_in(file, &job.path),
        (None, None) => BTreeSet::new(),
    };
    let selection = Selection { mounts, ..job.selection.clone() };
    let options = ScanOptions {
        filter: None,
        selection: Some(&selection),
        checksum: job.checksum,
        attributes: job.attributes,
        on_progress: Some(&report_progress),
        watcher: job.watcher.as_deref(),
        below: None,
    };
    if let Some(source) = glance_source(job, &root, &options, record)? {
        return Ok(source);
    }
    let keep = job.record.as_ref().zip(record);
    let (mut contents, counts, report) = match keep {
        Some((keep, record)) => survey::survey_source(job, &root, &options, record, keep)?,
        None => list_source(job, &root, &options).map_err(ScanError::Refused)?,
    };
    let vanished = report.unreadable.into_iter();
    let scope = Arc::new(Scope::new(selection, report.left, job.delete_excluded));
    if let Contents::Indexed(indexed) = &mut contents {
        indexed.scope = Arc::clone(&scope);
        if let (Some(kept), Some(record)) = (&job.kept, record) {
            kept.keep(Remembered {
                identity: record.identity.clone(),
                index: Arc::clone(&record.index),
                names: report.names,
                counts,
                scope: Arc::clone(&scope),
            });
        }
    }
    Ok(Source {
        whole: true,
        patient: job.kept.is_none(),
        unsent: job.unsent.clone(),
        unwatched: report.unwatched,
        passed: false,
        root,
        contents,
        tables: Tables::default(),
        problems: report.problems.into_iter().chain(vanished).collect(),
        counts,
        attributes: job.attributes,
        scope,
    })
}

/// Looks at the source where something happened; `None` where all of it is to be scanned.
fn glance_source(
    job: &RootJob,
    root: &Arc<Root>,
    options: &ScanOptions,
    record: Option<&Record>,
) -> Result<Option<Source>, ScanError> {
    let (Extent::Paths(paths), Some(kept)) = (&job.extent, &job.kept) else { return Ok(None) };
    let Some((keep, remembered)) = job.record.as_ref().zip(record.and_then(|record| record.remembered.clone())) else {
        return Ok(None);
    };
    let Some(glanced) = glance_at(job, root, options, keep, (remembered, paths))? else { return Ok(None) };
    let Glanced { contents, problems, unwatched, passed, remembered } = glanced;
    let (counts, scope) = (remembered.counts, Arc::clone(&remembered.scope));
    if counts.entries == 0 {
        // Whether an empty source may be pushed is for those to say who look at all of it.
        return Ok(None);
    }
    kept.keep(remembered);
    let (root, tables, attributes) = (Arc::clone(root), Tables::default(), job.attributes);
    Ok(Some(Source {
        root,
        contents,
        tables,
        problems,
        counts,
        attributes,
        scope,
        whole: false,
        patient: false,
        unsent: job.unsent.clone(),
        unwatched,
        passed,
    }))
}

/// Lists the source into memory.
fn list_source(
    job: &RootJob,
    root: &Root,
    options: &ScanOptions,
) -> Result<(Contents, Counts, ScanReport), GuardRefusal> {
    let mut listing = Listing::default();
    let mut counts = Counts::default();
    let mut collect = |dir: DirListing| {
        dir.nodes.iter().for_each(|node| counts.add(node));
        listing.dirs.push(dir);
        Ok(())
    };
    let report = scan(root, options, &SystemOwners::new(), &mut collect).map_err(|error| unscannable(job, &error))?;
    counts.bytes = listing.content_bytes();
    check_scan(job, &report, counts)?;
    listing.names = report.names.clone();
    Ok((Contents::Listed(Arc::new(listing)), counts, report))
}

pub(super) fn unscannable(job: &RootJob, error: &std::io::Error) -> GuardRefusal {
    let (label, path) = (job.label(), job.path.display());
    let message = format!("root {label}: {path} cannot be scanned: {error}; nothing was changed");
    refuse(Guard::UnreadableSource, message)
}

/// The guards that need a whole scan.
pub(super) fn check_scan(job: &RootJob, report: &ScanReport, counts: Counts) -> Result<(), GuardRefusal> {
    let label = job.label();
    // A directory that went away in the middle is how a live tree is: it is gone at the next scan.
    let mut unreadable = report.unreadable.iter().filter(|problem| problem.kind != ProblemKind::Vanished);
    if let Some(first) = unreadable.next() {
        let message = format!(
            "root {label}: {} part(s) of the source cannot be read, first {first}; nothing was changed. Mend the \
             permissions or exclude the path",
            unreadable.count() + 1,
        );
        return Err(refuse(Guard::UnreadableSource, message));
    }
    if counts.entries == 0 {
        let message = format!(
            "root {label}: the source {} is empty; an empty source is never pushed, nothing was changed. Is the volume \
             mounted? (one file in it is enough)",
            job.path.display(),
        );
        return Err(refuse(Guard::EmptySource, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Expected;
    use crate::plan::{Removal, Totals};

    #[test]
    fn what_is_there_after_all_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("d/kept"), "x").unwrap();
        let root = Arc::new(Root::open(directory.path()).unwrap());
        let source = Source {
            root,
            contents: Contents::Listed(Arc::default()),
            tables: Tables::default(),
            problems: Vec::new(),
            counts: Counts::default(),
            attributes: false,
            scope: Arc::default(),
            whole: true,
            patient: true,
            unsent: None,
            unwatched: Unwatched::default(),
            passed: false,
        };
        let removal = |(name, directory): (&str, bool)| Removal {
            path: RelPath::new(name.as_bytes()).unwrap(),
            was: if directory { Expected::Directory } else { Expected::Special },
        };
        let planned = [("d/kept", false), ("d/gone", false), ("d", true), ("d/kept/below", false), ("e/f", false)];
        let totals = Totals { deleted: 5, overwritten: 6, ..Totals::default() };
        let mut plan = Plan { removals: planned.map(removal).to_vec(), totals, ..Plan::default() };
        source.confirm_removals(&mut plan);
        let left = [("d/gone", false), ("d/kept/below", false), ("e/f", false)];
        assert_eq!(plan.removals, left.map(removal));
        assert_eq!((plan.totals.deleted, plan.totals.overwritten), (3, 4));
    }
}
