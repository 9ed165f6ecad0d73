//! Changes to the visible tree: [`Applier`].
//!
//! Each change is one name in one held directory, so a component that is swapped meanwhile can at
//! worst make the change fail or happen in a directory that was below the root when it was opened.
//! What a path holds goes from old to new in one rename; a directory is swapped into the stage
//! and removed there, out of sight.
//!
//! RACE: between a look at a name and its rename, another process can put something else there,
//! which is then replaced as the old content would have been. A directory is only ever replaced
//! where the caller allowed it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode};
use rustix::io::Errno;

use super::beneath::{Dir, NAME_ANY, NAME_DIR, Parents, Root, Stat};
use super::dispose;
use super::meta::{self, Hold, LocalMeta};
use super::stage::{Staged, StagedKind};
use crate::model::{Kind, ProblemKind, RESERVED_NAME, RelPath, SpecialKind};

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

    /// Puts `staged` at `path`, atomically in the place of whatever non-directory is there. A
    /// directory that is there is replaced, with everything in it, only if `allow_directory`; it
    /// waits in the stage for [`super::Staging::dispose_replaced`].
    ///
    /// # Errors
    /// `IsADirectory` or `AlreadyExists` if a directory is in the way and not allowed,
    /// `DirectoryNotEmpty` if another root's `.rfleet` lies below it, else the operating system's. On any error `staged` is discarded and `path` holds what it held.
    pub fn place(&mut self, mut staged: Staged, path: &RelPath, allow_directory: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let mut result = self.put(&mut staged, path, (&dir, name), allow_directory);
        if is_denied(&result) && (self.loosen_dir(path, &dir) | (allow_directory && loosen_old_directory(&dir, name))) {
            result = self.put(&mut staged, path, (&dir, name), allow_directory);
        }
        if let Ok(true) = result {
            self.parents.forget(path);
        }
        result.map(|_| ())
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

    /// Sets the attributes of `path`, which must be of the kind `kind`; whether the owner or the
    /// group could not be set for want of the right to.
    ///
    /// # Errors
    /// `AlreadyExists` if it is of another kind, else the operating system's.
    pub fn set_meta(&mut self, path: &RelPath, kind: &Kind, meta: &LocalMeta) -> io::Result<bool> {
        if path.is_root() {
            let root = self.parents.root();
            return meta::set(Hold::Open(root.fd()), &root.stat()?, meta);
        }
        let denied = self.in_parent(path, |dir, name| set_meta_in(dir, name, kind, meta))?;
        self.loosened.retain(|(loosened, _)| loosened != path);
        Ok(denied)
    }

    /// Removes `path`, which is anything but a directory.
    ///
    /// # Errors
    /// The operating system's, `IsADirectory` among them.
    pub fn remove_file(&mut self, path: &RelPath) -> io::Result<()> {
        self.in_parent(path, |dir, name| dir.unlink(name))
    }

    /// Removes the directory `path` if it is empty.
    ///
    /// # Errors
    /// The operating system's, `DirectoryNotEmpty` among them.
    pub fn remove_directory(&mut self, path: &RelPath) -> io::Result<()> {
        self.parents.forget(path);
        self.in_parent(path, |dir, name| dir.rmdir(name))
    }

    /// Renames `from` to `to`, where nothing may be.
    ///
    /// # Errors
    /// `AlreadyExists` if something is there, else the operating system's.
    pub fn move_to(&mut self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let (to_dir, to_name) = self.parent(to)?;
        let (from_dir, from_name) = self.parent(from)?;
        let rename = || rename_to_nothing(&from_dir, from_name, &to_dir, to_name);
        let mut result = rename();
        if is_denied(&result) && (self.loosen_dir(from, &from_dir) | self.loosen_dir(to, &to_dir)) {
            result = rename();
        }
        self.parents.forget(from);
        result
    }

    /// Writes everything that was changed on the root's filesystem to its disk.
    ///
    /// # Errors
    /// The operating system's: then nothing is known to be durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::syncfs(self.parents.root().fd())?)
    }

    /// As [`put`], with a look through a directory before it is replaced.
    fn put(&self, staged: &mut Staged, path: &RelPath, at: (&Dir, &[u8]), allow_directory: bool) -> io::Result<bool> {
        let result = put(staged, at.0, at.1, false);
        if !allow_directory || !matches!(errno(&result), Some(Errno::ISDIR | Errno::EXIST)) {
            return result;
        }
        if self.holds_a_root(path)? {
            return Err(Errno::NOTEMPTY.into());
        }
        put(staged, at.0, at.1, true)
    }

    /// Whether another root's `.rfleet` lies anywhere below the directory `path`.
    ///
    /// RACE: one that is made between this look and the replacement goes with its directory.
    fn holds_a_root(&self, path: &RelPath) -> io::Result<bool> {
        let mut ahead = vec![path.clone()];
        while let Some(path) = ahead.pop() {
            match self.parents.root().dir(&path).and_then(|dir| dispose::directories(&dir)) {
                Ok(names) if names.iter().any(|name| **name == *RESERVED_NAME) => return Ok(true),
                // Names that make the path too long lie deeper than any root can.
                Ok(names) => ahead.extend(names.iter().filter_map(|name| path.join(name).ok())),
                // Gone or withheld: no root that this user serves is there.
                Err(error) if matches!(problem_kind(&error), ProblemKind::Failed) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(false)
    }

    fn in_parent<T>(&mut self, path: &RelPath, work: impl Fn(&Dir, &[u8]) -> io::Result<T>) -> io::Result<T> {
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

/// A directory needs its owner's right to write for being moved to another parent. It is on its
/// way to be removed, so nobody sets its mode again.
fn loosen_old_directory(dir: &Dir, name: &[u8]) -> bool {
    dir.open(name, NAME_DIR).and_then(meta::loosen).is_ok()
}

fn is_denied<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| Errno::from_io_error(error) == Some(Errno::ACCESS))
}

fn errno<T>(result: &io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(result.as_ref().err()?)
}

/// Moves the staged entry to `name` in `dir`; whether a directory was replaced or put there.
fn put(staged: &mut Staged, dir: &Dir, name: &[u8], allow_directory: bool) -> io::Result<bool> {
    if staged.kind == StagedKind::Directory {
        return put_directory(staged, dir, name, allow_directory);
    }
    let stage = Arc::clone(&staged.entry.stage);
    let renamed = stage.dir.rename(&staged.entry.name, dir, name);
    match errno(&renamed) {
        None => {
            // Two names of one file: rename(2) does nothing then, and the staged one remains.
            staged.entry.armed = staged.kind == StagedKind::HardLink;
            renamed.map(|()| false)
        }
        Some(Errno::ISDIR) if allow_directory => swap(staged, dir, name).map(|()| true),
        Some(_) => renamed.map(|()| false),
    }
}

fn put_directory(staged: &mut Staged, dir: &Dir, name: &[u8], allow_directory: bool) -> io::Result<bool> {
    let stage = Arc::clone(&staged.entry.stage);
    let renamed = rename_to_nothing(&stage.dir, &staged.entry.name, dir, name);
    match errno(&renamed) {
        Some(Errno::EXIST) => {}
        error => {
            staged.entry.armed = error.is_some();
            return renamed.map(|()| true);
        }
    }
    if dir.stat(name)?.is_directory() && !allow_directory {
        return Err(Errno::EXIST.into());
    }
    swap(staged, dir, name)?;
    Ok(true)
}

/// Exchanges the staged entry with what is at `name`, which then waits for its removal.
fn swap(staged: &mut Staged, dir: &Dir, name: &[u8]) -> io::Result<()> {
    let stage = Arc::clone(&staged.entry.stage);
    let exchanged = stage.dir.exchange(&staged.entry.name, dir, name);
    match errno(&exchanged) {
        None => {
            stage.add_replaced(staged.entry.name.clone());
            staged.entry.armed = false;
            exchanged
        }
        Some(Errno::INVAL | Errno::NOSYS) => {
            // Not atomic: for a moment nothing is at `name`. No filesystem of this kind can do better.
            let aside = stage.fresh_name();
            dir.rename(name, &stage.dir, &aside)?;
            if let Err(error) = stage.dir.rename(&staged.entry.name, dir, name) {
                // If this fails too, the first error is the one to tell.
                let _ = rename_to_nothing(&stage.dir, &aside, dir, name);
                return Err(error);
            }
            staged.entry.armed = false;
            stage.add_replaced(aside.into());
            Ok(())
        }
        Some(_) => exchanged,
    }
}

fn rename_to_nothing(from: &Dir, from_name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
    let renamed = from.rename_noreplace(from_name, to, to_name);
    match errno(&renamed) {
        Some(Errno::INVAL | Errno::NOSYS) => match to.stat(to_name) {
            // RACE: what is put there between the look and the rename is replaced, on filesystems
            // without RENAME_NOREPLACE only.
            Err(error) if error.kind() == io::ErrorKind::NotFound => from.rename(from_name, to, to_name),
            Err(error) => Err(error),
            Ok(_) => Err(Errno::EXIST.into()),
        },
        _ => renamed,
    }
}

fn set_meta_in(dir: &Dir, name: &[u8], kind: &Kind, meta: &LocalMeta) -> io::Result<bool> {
    let opened = match kind {
        Kind::Directory => Some(dir.open_dir(name).map(|dir| dir.fd)),
        Kind::File { .. } => Some(dir.open_file(name).map(|(file, _)| file.into())),
        // Never opened: that could block or act on a device.
        Kind::Symlink { .. } | Kind::Special(_) => None,
    };
    match opened {
        Some(Ok(fd)) => return meta::set(Hold::Open(fd.as_fd()), &Stat::from(fs::fstat(&fd)?), meta),
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
    if stat.file_type() == file_type(kind) {
        meta::set(Hold::Named(named.as_fd()), &stat, meta)
    } else {
        Err(Errno::EXIST.into())
    }
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File { .. } => FileType::RegularFile,
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::Special(SpecialKind::Fifo) => FileType::Fifo,
        Kind::Special(SpecialKind::Socket) => FileType::Socket,
        Kind::Special(SpecialKind::CharDevice { .. }) => FileType::CharacterDevice,
        Kind::Special(SpecialKind::BlockDevice { .. }) => FileType::BlockDevice,
    }
}

/// The class of problem that an error of this module is.
pub fn problem_kind(error: &io::Error) -> ProblemKind {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::STALE) => ProblemKind::Vanished,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ProblemKind::Denied,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => ProblemKind::NoSpace,
        Some(Errno::EXIST | Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY | Errno::LOOP | Errno::BUSY) => {
            ProblemKind::Conflict
        }
        Some(Errno::NAMETOOLONG | Errno::OPNOTSUPP) => ProblemKind::Unsupported,
        _ => ProblemKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::fixture::{Fixture, is_unprivileged, meta, names, path};
    use super::super::stage::Staging;
    use super::*;

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
                let mut apply = Applier::new(&fixture.root);
                let stage = || match new {
                    "file" => file(&staging, "new"),
                    "link" => staging.symlink(b"target", &meta(0, 7)).unwrap(),
                    "dir" => staging.directory(&meta(0o755, 7)).unwrap(),
                    _ => staging.hard_link(&top, b"other").unwrap(),
                };
                if matches!(old, "dir" | "full") {
                    let refused = apply.place(stage(), &at, false).unwrap_err();
                    assert_eq!(problem_kind(&refused), ProblemKind::Conflict, "{old} to {new}");
                    assert!(shown.is_dir());
                }
                apply.place(stage(), &at, true).unwrap_or_else(|error| panic!("{old} to {new}: {error}"));
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
        let mut apply = Applier::new(&fixture.root);
        let error = apply.place(file(&staging, "new"), &path("d"), true).unwrap_err();
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
        Applier::new(&fixture.root).place(staging.hard_link(&top, b"a").unwrap(), &path("b"), false).unwrap();
        assert!(names(&fixture.path.join(".rfleet/stage")).is_empty());
        assert_eq!(std_fs::metadata(fixture.path.join("b")).unwrap().nlink(), 2);
    }

    #[test]
    fn a_failed_place_changes_nothing_and_discards() {
        let fixture = Fixture::with(&["f=old", "l>f"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let mut apply = Applier::new(&fixture.root);
        for name in ["f/x", "l/x", "none/x"] {
            assert!(apply.place(file(&staging, "new"), &path(name), true).is_err());
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
            assert!(!apply.set_meta(&path(name), &kind, &meta(mode, 42)).unwrap());
            let found = std_fs::symlink_metadata(fixture.path.join(name)).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), (42, 123_456_789), "{name}");
            assert!(name == "l" || found.mode() & 0o7777 == mode, "{name}");
        }
        for (name, kind) in [("f", Kind::Directory), ("d", Kind::file(1)), ("l", Kind::file(1)), ("f", link.clone())] {
            let error = apply.set_meta(&path(name), &kind, &meta(0o777, 1)).unwrap_err();
            assert_eq!(problem_kind(&error), ProblemKind::Conflict, "{name}");
        }
        apply.set_meta(&RelPath::root(), &Kind::Directory, &meta(0o711, 3)).unwrap();
        assert_eq!(std_fs::metadata(&fixture.path).unwrap().mode() & 0o7777, 0o711);
        assert_eq!(problem_kind(&apply.set_meta(&path("x"), &link, &meta(0, 1)).unwrap_err()), ProblemKind::Vanished);
    }

    #[test]
    fn directories_are_made_and_removed_one_at_a_time() {
        let fixture = Fixture::with(&["f=x", "l>d"]);
        let mut apply = Applier::new(&fixture.root);
        assert!(apply.make_directory(&path("d")).unwrap());
        assert!(!apply.make_directory(&path("d")).unwrap());
        assert!(apply.make_directory(&path("d/e")).unwrap());
        for name in ["f", "l"] {
            assert_eq!(problem_kind(&apply.make_directory(&path(name)).unwrap_err()), ProblemKind::Conflict);
        }
        assert_eq!(problem_kind(&apply.remove_directory(&path("d")).unwrap_err()), ProblemKind::Conflict);
        assert!(apply.remove_directory(&path("f")).is_err());
        assert!(apply.remove_directory(&path("l")).is_err());
        assert_eq!(problem_kind(&apply.remove_file(&path("d")).unwrap_err()), ProblemKind::Conflict);
        apply.move_to(&path("d/e"), &path("g")).unwrap();
        assert_eq!(problem_kind(&apply.move_to(&path("g"), &path("f")).unwrap_err()), ProblemKind::Conflict);
        apply.remove_directory(&path("d")).unwrap();
        apply.remove_file(&path("l")).unwrap();
        apply.sync().unwrap();
        assert_eq!(fixture.names(), ["f", "g"]);
    }

    #[test]
    fn a_directory_made_anew_under_the_same_name_is_the_one_that_is_used() {
        let fixture = Fixture::with(&["d", "d/f=x"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let mut apply = Applier::new(&fixture.root);
        apply.remove_file(&path("d/f")).unwrap();
        apply.remove_directory(&path("d")).unwrap();
        apply.make_directory(&path("d")).unwrap();
        apply.place(file(&staging, "new"), &path("d/f"), false).unwrap();
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
        let mut apply = Applier::new(&fixture.root);
        apply.place(file(&staging, "new"), &path("a/b/f"), false).unwrap();
        apply.remove_file(&path("c/f")).unwrap();
        apply.place(file(&staging, "was r"), &path("r"), true).unwrap();
        apply.set_meta(&path("s"), &Kind::file(0), &meta(0o600, 5)).unwrap();
        staging.finish(false).unwrap();
        assert_eq!(
            (fixture.text("a/b/f"), fixture.text("r"), fixture.text("s")),
            ("new".into(), "was r".into(), "secret".into())
        );
        let mode_of = |name: &str| std_fs::metadata(fixture.path.join(name)).unwrap().mode() & 0o7777;
        apply.set_meta(&path("a/b"), &Kind::Directory, &meta(0o500, 1)).unwrap();
        assert_eq!((mode_of("a/b"), mode_of("c")), (0o500, 0o755 & 0o555 | 0o700));
        apply.restore_loosened();
        assert_eq!((mode_of("c"), mode_of("a")), (0o555, 0o444));
        mode("a", 0o700);
        // The primary's new mode stands; only the others get back what they had.
        assert_eq!(mode_of("a/b"), 0o500);
        mode("a", 0o700);
    }
}
