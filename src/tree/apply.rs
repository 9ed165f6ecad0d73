//! Changes to the visible tree: [`Applier`].
//!
//! Each change is one name in one held directory, so a component that is swapped meanwhile can at
//! worst make the change fail or happen in a directory that was below the root when it was opened.
//! What a path holds goes from old to new in one rename; a directory is swapped into the stage
//! and removed there, out of sight.
//!
//! What is in the way and is not what the caller expects is kept in the attic (see `place`), and a
//! directory is only ever replaced where the caller allowed it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{self, Mode};
use rustix::io::Errno;

use super::attic::Attic;
use super::beneath::{Dir, NAME_ANY, NAME_DIR, Parents, Root, Stat};
use super::dispose;
use super::meta::{self, Hold, LocalMeta, Shortfall};
use super::place::{self, Expectation, Over, Placed, Site};
use super::stage::{Staged, StagedKind, Staging};
use crate::model::{Expected, Kind, ProblemKind, RESERVED_NAME, RelPath};

/// What became of attributes that were to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum MetaSet {
    /// They are as asked for, but for this.
    Done(Shortfall),
    /// What is there is not what was expected; it was left as it is.
    Unexpected,
}

/// Changes one root. Paths in tree order are fastest, since parents stay open.
#[derive(Debug)]
pub struct Applier {
    parents: Parents,
    loosened: Vec<(RelPath, u32)>,
}

impl Applier {
    /// Changes to `root`.
    pub fn new(root: &Root) -> Self {
        Applier { parents: Parents::new(root), loosened: Vec::new() }
    }

    /// The open directories, for reading a basis or linking from the tree.
    pub fn parents(&mut self) -> &mut Parents {
        &mut self.parents
    }

    /// Gives the directories whose owner's rights had to be completed, to work in them, the modes
    /// that they had; those excepted that [`Applier::set_meta`] has given a new one since.
    pub fn restore_loosened(&mut self) {
        for (path, mode) in std::mem::take(&mut self.loosened).into_iter().rev() {
            // One that is gone needs no mode, and one that is not ours any more keeps what it has.
            let _ = self.parents.dir(&path).map(|dir| fs::fchmod(&*dir, Mode::from_raw_mode(mode)));
        }
    }

    /// Puts `staged` at `path`, atomically in the place of whatever non-directory is there, which is
    /// kept in `attic` unless it is expected or as it should be already. A directory that is there is
    /// replaced, with everything in it, only if `over` allows that; it waits in the stage for
    /// [`Staging::dispose_replaced`].
    ///
    /// # Errors
    /// `IsADirectory` if a directory is in the way and not allowed, `DirectoryNotEmpty` if it has more
    /// entries than allowed or another root's `.rfleet` lies below it, else the operating system's. On
    /// any error `staged` is discarded and `path` holds what it held.
    pub fn place(
        &mut self,
        mut staged: Staged,
        path: &RelPath,
        over: Over<'_>,
        attic: &mut Attic,
    ) -> io::Result<Placed> {
        let (dir, name) = self.parent(path)?;
        let site = Site { dir: &dir, name, path };
        let root = self.parents.root().clone();
        let survey = |limit| survey(&root, path, limit);
        let mut result = place::put(&mut staged, &site, over, &survey, attic);
        if is_denied(&result)
            && (self.loosen_dir(path, &dir) | (over.directory.is_some() && loosen_old_directory(&dir, name)))
        {
            result = place::put(&mut staged, &site, over, &survey, attic);
        }
        if result.is_ok() && (over.directory.is_some() || staged.kind == StagedKind::Directory) {
            self.parents.forget(path);
        }
        result
    }

    /// Makes the directory `path` with mode 0700, unless it is a directory already; whether it
    /// was made.
    ///
    /// # Errors
    /// `AlreadyExists` if something else is there, else the operating system's.
    pub fn make_directory(&mut self, path: &RelPath) -> io::Result<bool> {
        self.in_parent(path, |dir, name| match dir.mkdir(name, 0o700) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if dir.stat(name)?.is_directory() {
                    Ok(false)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        })
    }

    /// Sets the attributes of `path`, which must be of the kind `kind`, and as `expected` when it is looked
    /// at through the handle on which they are set. The root itself is always expected.
    ///
    /// # Errors
    /// `AlreadyExists` if it is of another kind, else the operating system's.
    pub fn set_meta(
        &mut self,
        path: &RelPath,
        kind: &Kind,
        meta: &LocalMeta,
        expected: Expectation<'_>,
    ) -> io::Result<MetaSet> {
        if path.is_root() {
            let root = self.parents.root();
            return set_on(Hold::Open(root.fd()), &root.stat()?, meta, &|_| true);
        }
        let result = self.in_parent(path, |dir, name| set_meta_in(dir, name, kind, meta, expected))?;
        if result != MetaSet::Unexpected {
            self.loosened.retain(|(loosened, _)| loosened != path);
        }
        Ok(result)
    }

    /// Removes `path`, which is anything but a directory; what is not `expected` is kept in `attic`.
    ///
    /// # Errors
    /// The operating system's, `IsADirectory` among them.
    pub fn remove_file(&mut self, path: &RelPath, expected: Expectation<'_>, attic: &mut Attic) -> io::Result<Placed> {
        self.in_parent(path, |dir, name| place::take_away(&Site { dir, name, path }, expected, attic))
    }

    /// Removes the directory `path` if it is empty; its attributes are kept in `attic` if such is kept there.
    ///
    /// # Errors
    /// The operating system's, `DirectoryNotEmpty` among them.
    pub fn remove_directory(&mut self, path: &RelPath, attic: &mut Attic) -> io::Result<()> {
        self.parents.forget(path);
        self.in_parent(path, |dir, name| {
            let looks = attic.looks_of(dir, name, path);
            dir.rmdir(name)?;
            if let Some(looks) = looks {
                attic.keep_directory(path, &looks);
            }
            Ok(())
        })
    }

    /// Puts `staged` at `path` if nothing is there.
    ///
    /// # Errors
    /// `AlreadyExists` if something is, else the operating system's. Then it is discarded.
    pub fn place_new(&mut self, mut staged: Staged, path: &RelPath) -> io::Result<()> {
        self.in_parent(path, |dir, name| place::put_where_nothing_is(&mut staged, &Site { dir, name, path }).map(drop))
    }

    /// Renames the directory `from` to `to`, where nothing may be; or, if they are to be exchanged,
    /// something must.
    ///
    /// RACE: what is put at `from` between the look and the rename is moved in its place, to where
    /// whoever did that could have moved it.
    ///
    /// # Errors
    /// `NotADirectory` if `from` is none, `AlreadyExists` if something is at `to`, `NotFound`, else the
    /// operating system's. Then both are where they were.
    pub fn move_directory(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        exchange: bool,
        staging: &Staging,
    ) -> io::Result<()> {
        let (to_dir, to_name) = self.parent(to)?;
        let (from_dir, from_name) = self.parent(from)?;
        if !from_dir.stat(from_name)?.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        let (source, target) =
            (Site { dir: &from_dir, name: from_name, path: from }, Site { dir: &to_dir, name: to_name, path: to });
        let rename = || match exchange {
            true => place::swap(&source, &target, &staging.stage),
            false => source.dir.rename_to_nothing(source.name, target.dir, target.name),
        };
        let mut result = rename();
        if is_denied(&result) {
            // A directory that gets another parent needs its owner's right to write, too.
            let loosened = [self.loosen_dir(from, &from_dir), self.loosen_dir(to, &to_dir)];
            let moved = [self.loosen_moved(&source), exchange && self.loosen_moved(&target)];
            if loosened.into_iter().chain(moved).any(|changed| changed) {
                result = rename();
            }
        }
        if result.is_ok() {
            self.parents.forget(from);
            self.parents.forget(to);
            for (path, _) in &mut self.loosened {
                let back = if exchange { rebased(path, to, from) } else { None };
                *path = rebased(path, from, to).or(back).unwrap_or_else(|| path.clone());
            }
        }
        result
    }

    /// Writes everything that was changed on the root's filesystem to its disk.
    ///
    /// # Errors
    /// The operating system's: then nothing is known to be durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::syncfs(self.parents.root().fd())?)
    }

    fn in_parent<T>(&mut self, path: &RelPath, mut work: impl FnMut(&Dir, &[u8]) -> io::Result<T>) -> io::Result<T> {
        let (dir, name) = self.parent(path)?;
        let result = work(&dir, name);
        if is_denied(&result) && self.loosen_dir(path, &dir) { work(&dir, name) } else { result }
    }

    fn parent<'p>(&mut self, path: &'p RelPath) -> io::Result<(Arc<Dir>, &'p [u8])> {
        let result = self.parents.parent(path);
        if is_denied(&result) && self.loosen_way(path)? { self.parents.parent(path) } else { result }
    }

    /// Completes the owner's rights on the held parent of `path`; whether that changed anything.
    fn loosen_dir(&mut self, path: &RelPath, dir: &Dir) -> bool {
        let Some((parent, _)) = path.split() else { return false };
        let Ok(stat) = dir.stat_self() else { return false };
        let mode = stat.permissions();
        if mode & 0o700 == 0o700 || fs::fchmod(dir, Mode::from_raw_mode(mode | 0o700)).is_err() {
            return false;
        }
        self.note_loosened(parent, mode);
        true
    }

    /// Completes the owner's rights on the directory at `site`, which is to be moved.
    fn loosen_moved(&mut self, site: &Site<'_>) -> bool {
        let Ok(named) = site.dir.open(site.name, NAME_DIR) else { return false };
        let loosened = fs::fstat(&named).is_ok_and(|stat| Stat::from(stat).permissions() & 0o700 == 0o700);
        let Some(mode) = (!loosened).then(|| meta::loosen(&named).ok()).flatten() else { return false };
        self.note_loosened(site.path.clone(), mode);
        true
    }

    /// Completes the owner's rights on every directory above `path` that lacks them.
    fn loosen_way(&mut self, path: &RelPath) -> io::Result<bool> {
        let Some((parent, _)) = path.split() else { return Ok(false) };
        let mut at = fs::openat(self.parents.root().fd(), c".", NAME_DIR, Mode::empty())?;
        let mut here = RelPath::root();
        let mut changed = false;
        for name in parent.components() {
            at = fs::openat(&at, name, NAME_DIR, Mode::empty())?;
            here = here.join(name).map_err(|_| Errno::INVAL)?;
            if Stat::from(fs::fstat(&at)?).permissions() & 0o700 != 0o700
                && let Ok(mode) = meta::loosen(&at)
            {
                self.note_loosened(here.clone(), mode);
                changed = true;
            }
        }
        Ok(changed)
    }

    /// The first mode counts: a later one is of our making.
    fn note_loosened(&mut self, path: RelPath, mode: u32) {
        if !self.loosened.iter().any(|(known, _)| *known == path) {
            self.loosened.push((path, mode));
        }
    }
}

/// The place of `path` after `from` has become `to`; `None` if it does not lie there.
fn rebased(path: &RelPath, from: &RelPath, to: &RelPath) -> Option<RelPath> {
    if path != from && !path.is_below(from) {
        return None;
    }
    let rest = &path.as_bytes()[from.as_bytes().len()..];
    RelPath::new(&[to.as_bytes(), rest].concat()).ok()
}

/// Looks through the directory `path` before it is replaced.
///
/// RACE: what is made in it after this look goes with it.
///
/// # Errors
/// `DirectoryNotEmpty` if it has more entries than `limit`, itself included, or another root's `.rfleet`
/// lies anywhere below it; else the operating system's.
fn survey(root: &Root, path: &RelPath, limit: u64) -> io::Result<()> {
    let mut ahead = vec![path.clone()];
    let mut entries = 1;
    while let Some(path) = ahead.pop() {
        let (count, names) = match root.dir(&path).and_then(|dir| dispose::entries_and_directories(&dir)) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        entries += count as u64;
        if entries > limit || names.iter().any(|name| **name == *RESERVED_NAME) {
            return Err(Errno::NOTEMPTY.into());
        }
        for name in names {
            // Nobody can have seen, and announced, what lies deeper than a path can say.
            ahead.push(path.join(&name).map_err(|_| Errno::NOTEMPTY)?);
        }
    }
    Ok(())
}

/// A directory needs its owner's right to write for being moved to another parent. It is on its
/// way to be removed, so nobody sets its mode again.
fn loosen_old_directory(dir: &Dir, name: &[u8]) -> bool {
    dir.open(name, NAME_DIR).and_then(meta::loosen).is_ok()
}

fn is_denied<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| Errno::from_io_error(error) == Some(Errno::ACCESS))
}

fn set_meta_in(
    dir: &Dir,
    name: &[u8],
    kind: &Kind,
    meta: &LocalMeta,
    expected: Expectation<'_>,
) -> io::Result<MetaSet> {
    let opened = match kind {
        Kind::Directory => Some(dir.open_dir(name).map(|dir| dir.fd)),
        Kind::File { .. } => Some(dir.open_file(name).map(|(file, _)| file.into())),
        // Never opened: that could block or act on a device.
        Kind::Symlink { .. } | Kind::Special(_) => None,
    };
    match opened {
        Some(Ok(fd)) => return set_on(Hold::Open(fd.as_fd()), &Stat::from(fs::fstat(&fd)?), meta, expected),
        // Its owner may change what it may not read.
        Some(Err(error)) if Errno::from_io_error(&error) != Some(Errno::ACCESS) => {
            return Err(match Errno::from_io_error(&error) {
                Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO) => Errno::EXIST.into(),
                _ => error,
            });
        }
        _ => {}
    }
    let named = dir.open(name, NAME_ANY)?;
    let stat = Stat::from(fs::fstat(&named)?);
    if is_of_kind(&stat, kind) {
        set_on(Hold::Named(named.as_fd()), &stat, meta, expected)
    } else {
        Err(Errno::EXIST.into())
    }
}

/// RACE: what someone writes after this look gets the time too, and goes unnoticed by a comparison of
/// size and time if it keeps the size.
fn set_on(hold: Hold<'_>, now: &Stat, meta: &LocalMeta, expected: Expectation<'_>) -> io::Result<MetaSet> {
    if !expected(now.expected()) {
        return Ok(MetaSet::Unexpected);
    }
    Ok(MetaSet::Done(meta::set(hold, now, meta, false)?))
}

/// Special files are of one kind here: only their attributes are touched.
fn is_of_kind(stat: &Stat, kind: &Kind) -> bool {
    match kind {
        Kind::Directory => stat.is_directory(),
        Kind::File { .. } => stat.is_file(),
        Kind::Symlink { .. } => stat.is_symlink(),
        Kind::Special(_) => stat.expected() == Expected::Special,
    }
}

/// The class of problem that an error of this module is.
pub fn problem_kind(error: &io::Error) -> ProblemKind {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::STALE) => ProblemKind::Vanished,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ProblemKind::Denied,
        Some(Errno::NOSPC | Errno::DQUOT) => ProblemKind::NoSpace,
        Some(Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY | Errno::LOOP | Errno::BUSY) => {
            ProblemKind::Conflict
        }
        Some(Errno::NAMETOOLONG | Errno::OPNOTSUPP | Errno::FBIG) => ProblemKind::Unsupported,
        _ => ProblemKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::beneath::WITHOUT_RENAMEAT2;
    use super::super::fixture::{Fixture, OVER_ALL, OVER_LEAVES, is_unprivileged, meta, names, path};
    use super::*;
    use rustix::fs::FileType;

    fn file(staging: &Staging, text: &str) -> Staged {
        let mut file = staging.create_file(0o644).unwrap();
        file.file().write_all(text.as_bytes()).unwrap();
        file.seal(&meta(0o644, 7)).unwrap()
    }

    #[test]
    fn every_kind_replaces_every_other() {
        for old in ["file", "link", "dir", "full", "fifo", "nothing"] {
            for new in ["file", "link", "dir", "hard"] {
                let fixture = Fixture::with(&["other=linked", "x-file=old", "x-link>nowhere", "x-dir", "x-full"]);
                std_fs::create_dir_all(fixture.path.join("x-full/a/b")).unwrap();
                std_fs::write(fixture.path.join("x-full/a/b/f"), "deep").unwrap();
                let top = fixture.root.dir(&RelPath::root()).unwrap();
                fs::mknodat(&top, "x-fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
                let at = path(&format!("x-{old}"));
                let shown = fixture.path.join(at.as_path());
                let staging = Staging::open(&fixture.root).unwrap();
                let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
                let stage = || match new {
                    "file" => file(&staging, "new"),
                    "link" => staging.symlink(b"target", &meta(0, 7)).unwrap(),
                    "dir" => staging.directory(&meta(0o755, 7)).unwrap(),
                    _ => staging.hard_link(&top, b"other").unwrap(),
                };
                if matches!(old, "dir" | "full") {
                    let refused = apply.place(stage(), &at, OVER_LEAVES, &mut attic).unwrap_err();
                    assert_eq!(problem_kind(&refused), ProblemKind::Conflict, "{old} to {new}");
                    assert!(shown.is_dir());
                }
                let placed = apply.place(stage(), &at, OVER_ALL, &mut attic);
                assert_eq!(placed.unwrap_or_else(|error| panic!("{old} to {new}: {error}")), Placed::AsExpected);
                let found = std_fs::symlink_metadata(&shown).unwrap();
                match new {
                    "file" => assert_eq!(std_fs::read_to_string(&shown).unwrap(), "new"),
                    "link" => assert_eq!(std_fs::read_link(&shown).unwrap().to_str(), Some("target")),
                    "dir" => assert!(found.is_dir() && names(&shown).is_empty()),
                    _ => assert_eq!(found.nlink(), 2),
                }
                staging.dispose_replaced().unwrap();
                assert!(names(&fixture.path.join(".rfleet/stage")).is_empty(), "{old} to {new}");
                staging.finish(false).unwrap();
                assert!(!fixture.names().contains(&".rfleet".to_owned()));
            }
        }
    }

    #[test]
    fn another_root_s_state_below_a_directory_keeps_it() {
        let fixture = Fixture::with(&["d", "d/e", "d/e/.rfleet", "d/e/.rfleet/state=precious", "d/f=x"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        let error = apply.place(file(&staging, "new"), &path("d"), OVER_ALL, &mut attic).unwrap_err();
        assert_eq!(problem_kind(&error), ProblemKind::Conflict);
        assert_eq!(fixture.text("d/e/.rfleet/state"), "precious");
        assert_eq!(names(&fixture.path.join("d")), ["e", "f"]);
    }

    #[test]
    fn placing_a_second_name_where_it_is_already_leaves_no_third() {
        let fixture = Fixture::with(&["a=x"]);
        std_fs::hard_link(fixture.path.join("a"), fixture.path.join("b")).unwrap();
        let staging = Staging::open(&fixture.root).unwrap();
        let top = fixture.root.dir(&RelPath::root()).unwrap();
        let mut attic = staging.attic("session").unwrap();
        for expected in [true, false] {
            let (link, over) =
                (staging.hard_link(&top, b"a").unwrap(), Over { expected: &|_| expected, directory: None });
            let placed = Applier::new(&fixture.root).place(link, &path("b"), over, &mut attic).unwrap();
            assert_eq!(placed, Placed::AsExpected, "it is what it should be");
        }
        assert!(names(&fixture.path.join(".rfleet/stage")).is_empty());
        assert_eq!(std_fs::metadata(fixture.path.join("b")).unwrap().nlink(), 2);
    }

    #[test]
    fn a_failed_place_changes_nothing_and_discards() {
        let fixture = Fixture::with(&["f=old", "l>f"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        for name in ["f/x", "l/x", "none/x"] {
            assert!(apply.place(file(&staging, "new"), &path(name), OVER_ALL, &mut attic).is_err());
        }
        assert!(names(&fixture.path.join(".rfleet/stage")).is_empty());
        assert_eq!(fixture.text("f"), "old");
    }

    #[test]
    fn attributes_are_set_on_what_is_there_and_only_if_it_is_of_that_kind() {
        let fixture = Fixture::with(&["f=x", "d", "l>f"]);
        let mut apply = Applier::new(&fixture.root);
        let link = Kind::Symlink { target: b"f".as_slice().into() };
        for (name, kind, mode) in [("f", Kind::file(1), 0o4711), ("d", Kind::Directory, 0o2750), ("l", link.clone(), 0)]
        {
            assert_eq!(
                apply.set_meta(&path(name), &kind, &meta(mode, 42), &|_| true).unwrap(),
                MetaSet::Done(Shortfall::default())
            );
            let found = std_fs::symlink_metadata(fixture.path.join(name)).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), (42, 123_456_789), "{name}");
            assert!(name == "l" || found.mode() & 0o7777 == mode, "{name}");
        }
        for (name, kind) in [("f", Kind::Directory), ("d", Kind::file(1)), ("l", Kind::file(1)), ("f", link.clone())] {
            let error = apply.set_meta(&path(name), &kind, &meta(0o777, 1), &|_| true).unwrap_err();
            assert_eq!(problem_kind(&error), ProblemKind::Conflict, "{name}");
        }
        let refused = apply.set_meta(&path("f"), &Kind::file(1), &meta(0o777, 1), &|found| {
            assert_eq!(found, Expected::File { size_bytes: 1, mtime: meta(0, 42).mtime });
            false
        });
        assert_eq!(refused.unwrap(), MetaSet::Unexpected);
        let found = std_fs::metadata(fixture.path.join("f")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o4711, 42));
        let set = apply.set_meta(&RelPath::root(), &Kind::Directory, &meta(0o711, 3), &|_| false);
        assert_eq!(set.unwrap(), MetaSet::Done(Shortfall::default()));
        assert_eq!(std_fs::metadata(&fixture.path).unwrap().mode() & 0o7777, 0o711);
        assert_eq!(
            problem_kind(&apply.set_meta(&path("x"), &link, &meta(0, 1), &|_| true).unwrap_err()),
            ProblemKind::Vanished
        );
    }

    #[test]
    fn directories_are_made_and_removed_one_at_a_time() {
        let fixture = Fixture::with(&["f=x", "l>d"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        assert!(apply.make_directory(&path("d")).unwrap());
        assert!(!apply.make_directory(&path("d")).unwrap());
        assert!(apply.make_directory(&path("d/e")).unwrap());
        for name in ["f", "l"] {
            assert_eq!(problem_kind(&apply.make_directory(&path(name)).unwrap_err()), ProblemKind::Conflict);
        }
        assert_eq!(problem_kind(&apply.remove_directory(&path("d"), &mut attic).unwrap_err()), ProblemKind::Conflict);
        assert!(apply.remove_directory(&path("f"), &mut attic).is_err());
        assert!(apply.remove_directory(&path("l"), &mut attic).is_err());
        assert_eq!(
            problem_kind(&apply.remove_file(&path("d"), &|_| true, &mut attic).unwrap_err()),
            ProblemKind::Conflict
        );
        apply.remove_directory(&path("d/e"), &mut attic).unwrap();
        apply.remove_directory(&path("d"), &mut attic).unwrap();
        assert_eq!(apply.remove_file(&path("l"), &|_| true, &mut attic).unwrap(), Placed::AsExpected);
        apply.sync().unwrap();
        staging.finish(false).unwrap();
        assert_eq!(fixture.names(), ["f"]);
    }

    #[test]
    fn a_directory_made_anew_under_the_same_name_is_the_one_that_is_used() {
        let fixture = Fixture::with(&["d", "d/f=x"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        let _ = apply.remove_file(&path("d/f"), &|_| true, &mut attic).unwrap();
        apply.remove_directory(&path("d"), &mut attic).unwrap();
        apply.make_directory(&path("d")).unwrap();
        let _ = apply.place(file(&staging, "new"), &path("d/f"), OVER_LEAVES, &mut attic).unwrap();
        assert_eq!(fixture.text("d/f"), "new");
    }

    #[test]
    fn an_unprivileged_receiver_works_in_directories_that_withhold_its_own_rights() {
        let name = "tree::apply::tests::an_unprivileged_receiver_works_in_directories_that_withhold_its_own_rights";
        if !is_unprivileged(name) {
            return;
        }
        let fixture = Fixture::with(&["a", "a/b", "a/b/f=old", "c", "c/f=x", "r", "r/f=x", "s=secret"]);
        let mode = |name: &str, mode| {
            std_fs::set_permissions(fixture.path.join(name), std_fs::Permissions::from_mode(mode)).unwrap();
        };
        for (name, bits) in [("a/b", 0o555), ("a", 0o444), ("c", 0o555), ("r", 0o555), ("s", 0o000)] {
            mode(name, bits);
        }
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        let placed = apply.place(file(&staging, "new"), &path("a/b/f"), OVER_LEAVES, &mut attic);
        assert_eq!(placed.unwrap(), Placed::AsExpected);
        assert_eq!(apply.remove_file(&path("c/f"), &|_| false, &mut attic).unwrap(), Placed::KeptAside);
        let placed = apply.place(file(&staging, "was r"), &path("r"), OVER_ALL, &mut attic);
        assert_eq!(placed.unwrap(), Placed::AsExpected);
        let set = apply.set_meta(&path("s"), &Kind::file(0), &meta(0o600, 5), &|_| true);
        assert_eq!(set.unwrap(), MetaSet::Done(Shortfall::default()));
        staging.finish(false).unwrap();
        assert_eq!(
            (fixture.text("a/b/f"), fixture.text("r"), fixture.text("s")),
            ("new".into(), "was r".into(), "secret".into())
        );
        let mode_of = |name: &str| std_fs::metadata(fixture.path.join(name)).unwrap().mode() & 0o7777;
        let _ = apply.set_meta(&path("a/b"), &Kind::Directory, &meta(0o500, 1), &|_| true).unwrap();
        assert_eq!((mode_of("a/b"), mode_of("c")), (0o500, 0o755 & 0o555 | 0o700));
        apply.restore_loosened();
        assert_eq!((mode_of("c"), mode_of("a")), (0o555, 0o444));
        mode("a", 0o700);
        // The primary's new mode stands; only the others get back what they had.
        assert_eq!(mode_of("a/b"), 0o500);
        mode("a", 0o700);
    }

    #[test]
    fn a_directory_goes_to_where_nothing_is_or_changes_places() {
        for without in [false, true] {
            WITHOUT_RENAMEAT2.set(without);
            let fixture = Fixture::with(&["a", "a/x=a", "b", "b/y=b", "f=file", "l>a", "into"]);
            let staging = Staging::open(&fixture.root).unwrap();
            let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
            // Held, so that what is kept open must be forgotten.
            for name in ["a/x", "b/y", "into/z"] {
                apply.parents().parent(&path(name)).unwrap();
            }
            let refused = [
                ("none", "c", false, ProblemKind::Vanished),
                ("f", "c", false, ProblemKind::Conflict),
                ("l", "c", false, ProblemKind::Conflict),
                ("a", "b", false, ProblemKind::Conflict),
                ("a", "l", false, ProblemKind::Conflict),
                ("a", "none", true, ProblemKind::Vanished),
                ("a", "none/x", false, ProblemKind::Vanished),
                ("f", "a", true, ProblemKind::Conflict),
            ];
            for (from, to, exchange, kind) in refused {
                let error = apply.move_directory(&path(from), &path(to), exchange, &staging).unwrap_err();
                assert_eq!(problem_kind(&error), kind, "{from} to {to}");
            }
            assert_eq!(fixture.names(), [".rfleet", "a", "b", "f", "into", "l"]);
            apply.move_directory(&path("a"), &path("b"), true, &staging).unwrap();
            assert_eq!((fixture.text("b/x"), fixture.text("a/y")), ("a".into(), "b".into()));
            apply.move_directory(&path("b"), &path("into/c"), false, &staging).unwrap();
            apply.move_directory(&path("a"), &path("f"), true, &staging).unwrap();
            assert_eq!((fixture.text("f/y"), fixture.text("a")), ("b".into(), "file".into()));
            let _ = apply.place(file(&staging, "new"), &path("f/x"), OVER_LEAVES, &mut attic).unwrap();
            let _ = apply.place(file(&staging, "new"), &path("into/c/z"), OVER_LEAVES, &mut attic).unwrap();
            assert_eq!(names(&fixture.path.join("f")), ["x", "y"]);
            assert_eq!(names(&fixture.path.join("into/c")), ["x", "z"]);
            assert!(names(&fixture.path.join(".rfleet/stage")).is_empty());
            WITHOUT_RENAMEAT2.set(false);
        }
    }

    #[test]
    fn an_unprivileged_receiver_moves_directories_that_withhold_its_own_rights() {
        let name = "tree::apply::tests::an_unprivileged_receiver_moves_directories_that_withhold_its_own_rights";
        if !is_unprivileged(name) {
            return;
        }
        let fixture = Fixture::with(&["from", "from/d", "from/d/sub", "from/d/f=x", "to", "to/e", "to/e/g=y"]);
        let modes = |bits: [(&str, u32); 5]| {
            for (name, bits) in bits {
                std_fs::set_permissions(fixture.path.join(name), std_fs::Permissions::from_mode(bits)).unwrap();
            }
        };
        modes([("from/d/sub", 0o500), ("from/d", 0o555), ("to/e", 0o511), ("from", 0o500), ("to", 0o511)]);
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        let _ = apply.place(file(&staging, "new"), &path("from/d/sub/f"), OVER_LEAVES, &mut attic).unwrap();
        apply.move_directory(&path("from/d"), &path("to/e"), true, &staging).unwrap();
        apply.move_directory(&path("to/e"), &path("to/d"), false, &staging).unwrap();
        apply.restore_loosened();
        let mode_of = |name: &str| std_fs::metadata(fixture.path.join(name)).unwrap().mode() & 0o7777;
        let found = ["from", "to", "to/d", "to/d/sub", "from/d"].map(mode_of);
        assert_eq!(found, [0o500, 0o511, 0o555, 0o500, 0o511]);
        assert_eq!((fixture.text("to/d/f"), fixture.text("from/d/g")), ("x".into(), "y".into()));
        modes([("to", 0o700), ("to/d", 0o700), ("to/d/sub", 0o700), ("from", 0o700), ("from/d", 0o700)]);
    }

    #[test]
    fn a_directory_with_more_than_was_announced_stays() {
        let fixture = Fixture::with(&["d", "d/e", "d/e/f=x", "d/l>e", "d/g=y"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        for limit in 0..5 {
            let over = Over { directory: Some(limit), ..OVER_LEAVES };
            let error = apply.place(file(&staging, "new"), &path("d"), over, &mut attic).unwrap_err();
            assert_eq!(problem_kind(&error), ProblemKind::Conflict, "{limit}");
            assert_eq!(fixture.text("d/e/f"), "x");
        }
        let over = Over { directory: Some(5), ..OVER_LEAVES };
        assert_eq!(apply.place(file(&staging, "new"), &path("d"), over, &mut attic).unwrap(), Placed::AsExpected);
        assert_eq!(fixture.text("d"), "new");
    }

    #[test]
    fn what_is_placed_anew_replaces_nothing_and_is_discarded_then() {
        let fixture = Fixture::with(&["d", "d/f=someone's"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let mut apply = Applier::new(&fixture.root);
        let refused = apply.place_new(file(&staging, "ours"), &path("d/f")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(apply.place_new(staging.directory(&meta(0o755, 7)).unwrap(), &path("d")).is_err());
        assert_eq!(fixture.text("d/f"), "someone's");
        apply.place_new(file(&staging, "ours"), &path("d/g")).unwrap();
        assert_eq!(fixture.text("d/g"), "ours");
        assert!(names(&fixture.path.join(".rfleet/stage")).is_empty());
    }
}
