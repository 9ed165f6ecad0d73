//! The source where something happened, against its index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use super::contents::{Contents, Indexed};
use super::kept::Remembered;
use super::record::RecordJob;
use super::source::ScanError;
use super::survey::{LOOK_BYTES, Looking};
use super::{Paths, RootJob};
use crate::index::{IndexError, Merge, Taken};
use crate::model::{Attributes, Kind, Name, Node, Position, Problem, ProblemKind, RelPath, Seen};
use crate::tree::{
    AttributesReader, Below, Glimpse, Root, ScanOptions, ScanReport, SystemOwners, Unwatched, glance, survey,
};

/// What came of the looks.
pub(super) struct Glanced {
    pub(super) contents: Contents,
    pub(super) problems: Vec<Problem>,
    pub(super) unwatched: Unwatched,
    /// Something came and went between two looks.
    pub(super) passed: bool,
    pub(super) remembered: Remembered,
}

/// Looks at `paths`, and numbers what changed; `None` if it takes a scan of everything to know. Nothing is recorded
/// then.
pub(super) fn glance_at(
    job: &RootJob,
    root: &Root,
    options: &ScanOptions,
    keep: &RecordJob,
    (remembered, paths): (Remembered, &Paths),
) -> Result<Option<Glanced>, ScanError> {
    let index = Arc::clone(&remembered.index);
    let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
    let owners = SystemOwners::new();
    let mut looks = Looks {
        root,
        options,
        job,
        paths,
        owners: &owners,
        ahead: BTreeMap::new(),
        done: BTreeMap::new(),
        buffer: vec![0; LOOK_BYTES],
        attributes: job.attributes.then(AttributesReader::on_this_thread),
        problems: Vec::new(),
        unwatched: Unwatched::default(),
        passed: false,
        remembered,
    };
    let position = if paths.is_empty() {
        index.position().map_err(ScanError::Index)?
    } else {
        paths.keys().for_each(|path| looks.want(path));
        let mut merge = index.merge_names(keep.now).map_err(ScanError::Index)?;
        match looks.run(&mut merge) {
            Ok(true) => merge.finish(keep.stamp).map_err(ScanError::Index)?.position,
            Ok(false) => return Ok(None),
            Err(error) => return Err(error),
        }
    };
    let Looks { problems, unwatched, passed, mut remembered, .. } = looks;
    for name in index.acl_names().map_err(ScanError::Index)? {
        remembered.names.note_named(name, &owners);
    }
    remembered.counts.entries = index.entries().map_err(ScanError::Index)?;
    let contents = indexed(job, keep, &remembered, position).map_err(ScanError::Index)?;
    drop(index);
    Ok(Some(Glanced { contents, problems, unwatched, passed, remembered }))
}

fn indexed(
    job: &RootJob,
    keep: &RecordJob,
    remembered: &Remembered,
    position: Position,
) -> Result<Contents, IndexError> {
    let mut indexed = Indexed::new(Arc::clone(&remembered.index), remembered.names.clone(), position);
    indexed.scope = Arc::clone(&remembered.scope);
    if let Some(kept) = &job.kept {
        indexed = indexed.read_by(kept.reader(&keep.file)?)?;
    }
    Ok(Contents::Indexed(indexed))
}

/// Names of a directory.
type Names = BTreeSet<Name>;

struct Looks<'a> {
    root: &'a Root,
    options: &'a ScanOptions<'a>,
    job: &'a RootJob,
    paths: &'a Paths,
    owners: &'a SystemOwners,
    /// By directory, what is to be looked at.
    ahead: BTreeMap<RelPath, Names>,
    done: BTreeMap<RelPath, Names>,
    buffer: Vec<u8>,
    attributes: Option<AttributesReader>,
    problems: Vec<Problem>,
    unwatched: Unwatched,
    passed: bool,
    remembered: Remembered,
}

impl Looks<'_> {
    /// Wants a look at `path`, and at the directory that holds it, whose time changes with what it holds.
    fn want(&mut self, path: &RelPath) {
        let Some((parent, _)) = path.split() else {
            self.ahead.entry(RelPath::root()).or_default();
            return;
        };
        self.want_entry(path);
        match parent.is_root() {
            true => drop(self.ahead.entry(parent).or_default()),
            false => self.want_entry(&parent),
        }
    }

    fn want_entry(&mut self, path: &RelPath) {
        let Some((parent, name)) = path.split() else { return };
        let name = Name::from(name);
        if !self.done.get(&parent).is_some_and(|names| names.contains(&name)) {
            self.ahead.entry(parent).or_default().insert(name);
        }
    }

    /// Whether it was possible without a scan.
    fn run(&mut self, merge: &mut Merge<'_>) -> Result<bool, ScanError> {
        loop {
            if self.ahead.is_empty() {
                merge.other_names().map_err(ScanError::Index)?.iter().for_each(|path| self.want_entry(path));
            }
            let Some((dir, names)) = self.ahead.pop_first() else { return Ok(true) };
            self.done.entry(dir.clone()).or_default().extend(names.iter().cloned());
            let looked = match glance(self.root, &dir, &names, &self.remembered.scope) {
                Glimpse::Names(looked) => looked,
                Glimpse::TakesScan => return Ok(false),
                Glimpse::Gone if dir.is_root() => return Ok(false),
                Glimpse::Gone => {
                    self.want(&dir);
                    continue;
                }
            };
            if !self.take_in(merge, &dir, looked)? {
                return Ok(false);
            }
        }
    }

    fn take_in(
        &mut self,
        merge: &mut Merge<'_>,
        dir: &RelPath,
        mut looked: Vec<(Name, Option<Seen>)>,
    ) -> Result<bool, ScanError> {
        let Ok(itself) = self.root.dir(dir).and_then(|dir| dir.stat_self()) else {
            self.want(dir);
            return Ok(!dir.is_root());
        };
        if dir.is_root() {
            let node = Node { name: Name::default(), kind: Kind::Directory, meta: itself.meta() };
            let mut seen = Seen { node, inode: itself.inode() };
            if self.job.attributes {
                let Some(attributes) = self.root_attributes() else { return Ok(false) };
                seen.node.meta.attributes = attributes;
            }
            self.remembered.names.note(&seen.node.meta, self.owners);
            merge.root_itself(&seen).map_err(ScanError::Index)?;
        }
        for seen in looked.iter().filter_map(|(_, seen)| seen.as_ref()) {
            self.remembered.names.note(&seen.node.meta, self.owners);
        }
        let mut look = Looking {
            root: self.root,
            path: dir,
            itself: itself.inode(),
            handle: None,
            buffer: &mut self.buffer,
            attributes: self.attributes.as_mut(),
            problems: &mut self.problems,
        };
        let Some(mut taken) = merge.names(dir, &mut looked, &mut look).map_err(ScanError::Index)? else {
            // Nothing is known of the directory either: whoever looks at its name takes it in with all that it holds.
            self.want(dir);
            let above = dir.split().map(|(above, name)| (above, Name::from(name)));
            return Ok(
                above.is_some_and(|(above, name)| self.ahead.get(&above).is_some_and(|ahead| ahead.contains(&name)))
            );
        };
        let directories =
            looked.iter().filter(|(_, seen)| seen.as_ref().is_some_and(|seen| seen.node.kind.is_directory()));
        for (name, _) in directories {
            let is_deep = dir.join(name).is_ok_and(|path| self.paths.get(&path) == Some(&true));
            if is_deep && !taken.fresh.contains(name) {
                taken.fresh.push(name.clone());
            }
        }
        self.follow(merge, dir, taken)
    }

    /// The root's own; `None` where they cannot be read now.
    fn root_attributes(&mut self) -> Option<Attributes> {
        let root = self.root.dir(&RelPath::root()).ok()?;
        crate::tree::own_attributes(&root).ok().map(|found| found.attributes)
    }

    fn follow(&mut self, merge: &mut Merge<'_>, dir: &RelPath, taken: Taken) -> Result<bool, ScanError> {
        self.passed |= taken.passed;
        let join = |name: &Name| dir.join(name).ok();
        if let Some(watcher) = &self.job.watcher {
            taken.gone.iter().filter_map(join).for_each(|path| watcher.forget(&path));
        }
        for path in taken.fresh.iter().filter_map(join) {
            match self.list(merge, &path) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => return Err(ScanError::Index(error)),
            }
        }
        Ok(true)
    }

    /// Takes in a directory that came, with all below it.
    fn list(&mut self, merge: &mut Merge<'_>, path: &RelPath) -> Result<bool, IndexError> {
        let scope = Arc::clone(&self.remembered.scope);
        let below = Below { path, left: scope.left() };
        let options = ScanOptions { below: Some(below), ..*self.options };
        let mut failed = None;
        let root = self.root;
        let (buffer, attributes, problems) = (&mut self.buffer, &mut self.attributes, &mut self.problems);
        let listed = survey(root, &options, self.owners, &mut |mut dir| {
            let mut look = Looking {
                root,
                path: &dir.path,
                itself: dir.itself.inode,
                handle: None,
                buffer: &mut *buffer,
                attributes: attributes.as_mut(),
                problems: &mut *problems,
            };
            let merged = merge.directory(&dir.path, &dir.itself, &mut dir.entries, &mut look);
            let above = dir.path.split().map_or_else(RelPath::root, |(above, _)| above);
            let holder = root.dir(&above).and_then(|above| above.stat_self());
            let itself = merged.and_then(|()| {
                // If it is gone, that is noticed too.
                let Ok(holder) = holder else { return Ok(()) };
                let mut look = Looking { path: &above, handle: None, itself: holder.inode(), ..look };
                merge.directory_itself(&dir.path, &dir.itself, &mut look)
            });
            itself.map_err(|error| {
                failed = Some(error);
                std::io::Error::other("the index fails")
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let report = match listed {
            Ok(report) => report,
            // Whatever took it away again is noticed too, in the directory that held it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(_) => return Ok(false),
        };
        let ScanReport { names, unreadable, problems, left, unwatched, .. } = report;
        let is_left =
            !(left.rules.is_empty() && left.large.is_empty() && left.mounts.is_empty() && left.aside.is_empty());
        let is_plain = !is_left && unreadable.iter().all(|problem| problem.kind == ProblemKind::Vanished);
        self.remembered.names.users.extend(names.users);
        self.remembered.names.groups.extend(names.groups);
        self.problems.extend(problems);
        self.unwatched.directories += unwatched.directories;
        self.unwatched.error = self.unwatched.error.take().or(unwatched.error);
        for (dir, names) in &mut self.ahead {
            if dir == path || dir.is_below(path) {
                names.clear();
            }
        }
        Ok(is_plain)
    }
}
