//! The source: the guards that need no host, and the scan.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::RootJob;
use crate::model::{Digest, Fidelity, Listing, Problem, ProblemKind, RelPath};
use crate::plan::Plan;
use crate::plan::guard::{Guard, GuardRefusal};
use crate::tree::{Filter, Parents, Root, RootError, ScanOptions, SystemOwners, scan};

/// A source that was scanned and may be pushed.
pub(super) struct Source {
    pub(super) root: Arc<Root>,
    pub(super) listing: Arc<Listing>,
    pub(super) problems: Vec<Problem>,
    digests: Mutex<HashMap<(bool, bool), Arc<Digests>>>,
}

/// Digests of the source as receivers of one fidelity see it.
pub(super) struct Digests {
    pub(super) directories: Vec<Digest>,
    pub(super) whole: Digest,
}

impl Source {
    /// The digests for `fidelity`, computed once for all hosts that have it.
    pub(super) fn digests(&self, fidelity: Fidelity) -> Arc<Digests> {
        let mut known = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let digests = known.entry((fidelity.owner, fidelity.setuid)).or_insert_with(|| {
            let (directories, whole) = self.listing.digests(fidelity);
            Arc::new(Digests { directories, whole })
        });
        Arc::clone(digests)
    }
}

impl Source {
    /// Takes back the removals of what is there after all: a name that is renamed over while its
    /// directory is listed can be missing from the list. When in doubt, it is there.
    pub(super) fn confirm_removals(&self, plan: &mut Plan) {
        let mut parents = Parents::new(&self.root);
        let mut is_gone = |path: &RelPath| {
            let looked = parents.parent(path).and_then(|(dir, name)| dir.stat(name));
            looked.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
        };
        let before = plan.removals.len();
        plan.removals.retain(|removal| is_gone(&removal.path));
        let taken_back = (before - plan.removals.len()) as u64;
        plan.totals.deleted -= taken_back;
        plan.totals.overwritten -= taken_back;
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

/// Scans the source.
///
/// # Errors
/// A guard refuses: the source is empty, or a part of it cannot be read.
pub(super) fn scan_source(job: &RootJob, root: Arc<Root>) -> Result<Source, GuardRefusal> {
    let label = job.label();
    let mut listing = Listing::default();
    let monitor = Arc::clone(&job.monitor);
    let report_progress = |entries| monitor.scanned(entries);
    let options = ScanOptions {
        filter: job.filter.as_deref().map(|filter| filter as &dyn Filter),
        checksum: job.checksum,
        on_progress: Some(&report_progress),
    };
    let mut collect = |dir| {
        listing.dirs.push(dir);
        Ok(())
    };
    let report = scan(&root, &options, &SystemOwners::new(), &mut collect).map_err(|error| {
        let message = format!("root {label}: {} cannot be scanned: {error}; nothing was changed", job.path.display());
        refuse(Guard::UnreadableSource, message)
    })?;
    // A directory that went away in the middle is how a live tree is: it is gone at the next scan.
    let (vanished, unreadable): (Vec<_>, Vec<_>) =
        report.unreadable.into_iter().partition(|problem| problem.kind == ProblemKind::Vanished);
    if let Some(first) = unreadable.first() {
        let message = format!(
            "root {label}: {} part(s) of the source cannot be read, first {first}; nothing was changed. Mend the \
             permissions or exclude the path",
            unreadable.len(),
        );
        return Err(refuse(Guard::UnreadableSource, message));
    }
    if listing.entry_count() == 0 {
        let message = format!(
            "root {label}: the source {} is empty; an empty source is never pushed, nothing was changed. Is the volume \
             mounted? (one file in it is enough)",
            job.path.display(),
        );
        return Err(refuse(Guard::EmptySource, message));
    }
    listing.names = report.names;
    Ok(Source {
        root,
        listing: Arc::new(listing),
        problems: report.problems.into_iter().chain(vanished).collect(),
        digests: Mutex::default(),
    })
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
        let source = Source { root, listing: Arc::default(), problems: Vec::new(), digests: Mutex::default() };
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
