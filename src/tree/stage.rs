//! The private directory in which new content is made: [`Staging`].
//!
//! ```text
//! ROOT/.rfleet/          0700, of the effective user, else refused
//!              lock      held by flock(2) for as long as a Staging lives
//!              state     what a receiver remembers; written whole, by rename
//!              hooks     a mark: see [`Staging::mark`]
//!              stage/N   what is being made, or was replaced and is not yet removed
//!              attic/    what changes took away, see [`super::Attic`]
//! ```
//!
//! The lock file is removed by the last user while it is locked, so whoever gets a lock looks
//! whether the file and the directory are still the linked ones, and starts again if not.
//! Creating and removing `.rfleet` leaves the root's own times as they were.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, makedev};
use rustix::io::Errno;
use thiserror::Error;

use super::attic::{ATTIC, Attic, KeptSize};
use super::attributes;
use super::beneath::{Dir, LIST, NAME_ANY, Root, Stat};
use super::dispose;
use super::home::{MAX_STATE_BYTES, STATE, open_home, state_in};
use super::meta::{self, Hold, LocalMeta, Shortfall};
use super::retire;
use crate::model::{Expected, RESERVED_NAME, RelPath, SpecialKind, check_name};

const LOCK: &[u8] = b"lock";
const STAGE: &[u8] = b"stage";
const MARK: &[u8] = b"hooks";

/// How often a process that ends may pull the lock away before this one gives up as busy.
const OPEN_TRIES: usize = 16;

/// Why a root cannot be staged in.
#[derive(Debug, Error)]
pub enum StageError {
    /// Another process holds the lock.
    #[error("another rfleet is writing to this root")]
    Busy,
    /// `.rfleet` is something else than a directory.
    #[error("`.rfleet` in this root is not a directory")]
    NotADirectory,
    /// `.rfleet` belongs to another user.
    #[error("`.rfleet` in this root belongs to user {owner}, not to the user that rfleet runs as")]
    Foreign {
        /// Number of the owner.
        owner: u32,
    },
    /// The operating system refuses.
    #[error("cannot stage in `.rfleet` of this root: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for StageError {
    fn from(errno: Errno) -> Self {
        StageError::Io(errno.into())
    }
}

/// The stage itself, shared by everything staged.
#[derive(Debug)]
pub(super) struct StageDir {
    pub(super) dir: Dir,
    next: AtomicU64,
    /// What a new entry here looks like: its owner and group are those that files get too.
    fresh: Stat,
    /// Whether neither umask nor a default ACL takes from the mode of what is created here.
    exact_modes: bool,
    /// Directories that were swapped out of the tree and wait for their removal.
    replaced: Mutex<Vec<Box<[u8]>>>,
}

impl StageDir {
    pub(super) fn fresh_name(&self) -> Vec<u8> {
        self.next.fetch_add(1, Ordering::Relaxed).to_string().into_bytes()
    }

    fn remove(&self, name: &[u8]) -> io::Result<()> {
        dispose::remove(&self.dir, name, &mut || self.fresh_name())
    }

    pub(super) fn add_replaced(&self, name: Box<[u8]>) {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    fn dispose_replaced(&self) -> io::Result<()> {
        let names = std::mem::take(&mut *self.replaced.lock().unwrap_or_else(PoisonError::into_inner));
        let results: Vec<_> = names.iter().map(|name| self.remove(name)).collect();
        results.into_iter().collect()
    }
}

/// The right to change a root, and the place where that is prepared. Dropping it without
/// [`Staging::finish`] cleans up as well as it can and keeps a state that exists.
#[derive(Debug)]
pub struct Staging {
    top: Dir,
    home: Dir,
    pub(super) stage: Arc<StageDir>,
    /// Unlocks when it is closed.
    _lock: File,
    finished: Cell<bool>,
}

impl Staging {
    /// Creates `.rfleet` if it is missing, locks it and empties what an interrupted run left.
    ///
    /// # Errors
    /// [`StageError`]; `Busy` at once, without waiting.
    pub fn open(root: &Root) -> Result<Staging, StageError> {
        for _ in 0..OPEN_TRIES {
            if let Some(staging) = Self::try_open(root)? {
                return Ok(staging);
            }
        }
        Err(StageError::Busy)
    }

    /// `None` when a process that ends removed something in between.
    fn try_open(root: &Root) -> Result<Option<Staging>, StageError> {
        let top = root.dir(&RelPath::root())?;
        match keeping_times(&top, || top.mkdir(RESERVED_NAME, 0o700)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let Some(home) = open_home(&top)? else { return Ok(None) };
        if home.stat_self()?.permissions() != 0o700 {
            fs::fchmod(&home, Mode::from_raw_mode(0o700))?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = match fs::openat(&home, LOCK, flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        match fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(StageError::Busy),
            locked => locked?,
        }
        if !is_linked(&home, LOCK, &lock)? || !is_linked(&top, RESERVED_NAME, &home)? {
            return Ok(None);
        }
        let stage = Arc::new(fresh_stage(&home)?);
        Ok(Some(Staging { top, home, stage, _lock: File::from(lock), finished: Cell::new(false) }))
    }

    /// Whether a run that was interrupted left something in `root`, or one is under way. Changes
    /// nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn has_leftovers(root: &Root) -> io::Result<bool> {
        let top = root.dir(&RelPath::root())?;
        match top.open(RESERVED_NAME, LIST).map(|fd| Dir { fd }) {
            Ok(home) if dispose::exists(&home, STAGE)? => Ok(true),
            Ok(home) if dispose::exists(&home, STATE)? => Ok(false),
            // An attic stays also where nothing else is kept, and alone.
            Ok(home) => Ok(dispose::exists(&home, LOCK)? || !dispose::exists(&home, ATTIC)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The attic for what a session of this name keeps; nothing is made yet.
    ///
    /// # Errors
    /// `EINVAL` if `session` is not one name, else the operating system's.
    pub fn attic(&self, session: &str) -> io::Result<Attic> {
        check_name(session.as_bytes()).map_err(|_| Errno::INVAL)?;
        let home = Dir { fd: fs::openat(&self.home, c".", LIST, Mode::empty())? };
        Ok(Attic::new(home, Arc::clone(&self.stage), session))
    }

    /// Makes room at the cost of the attic: what was kept though it was expected goes, the oldest first, until there
    /// is `enough`, given what has gone so far. How much went.
    ///
    /// # Errors
    /// The operating system's.
    pub fn give_up_attic(&self, enough: &mut dyn FnMut(KeptSize) -> bool) -> io::Result<KeptSize> {
        retire::give_up(&self.home, enough)
    }

    /// From here on nothing that is made inherits an ACL, by way of the stage, from the root: for those who set ACLs.
    pub fn shed_acls(&self) {
        attributes::without_acls(&self.stage.dir);
    }

    /// Starts a file that will have `mode` (used to spare a call when it is sealed so).
    ///
    /// # Errors
    /// The operating system's.
    pub fn create_file(&self, mode: u32) -> io::Result<StagedFile> {
        // Nobody else can enter the stage, so the file may have its final mode from the start;
        // setuid and setgid would be cleared by writing.
        let created_mode = if self.stage.exact_modes { mode & 0o777 } else { 0o600 };
        let name = self.stage.fresh_name();
        let file = self.stage.dir.create_file(&name, created_mode)?;
        Ok(StagedFile { file, created_mode, entry: self.entry(name) })
    }

    /// Makes a symbolic link to `target`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn symlink(&self, target: &[u8], meta: &LocalMeta) -> io::Result<Staged> {
        let name = self.stage.fresh_name();
        self.stage.dir.symlink(target, &name)?;
        let entry = self.entry(name);
        let handle = self.stage.dir.open(&entry.name, NAME_ANY)?;
        let now = Stat::from(fs::fstat(&handle)?);
        let short = meta::set(Hold::Named(handle.as_fd()), &now, meta, true)?;
        Ok(Staged { entry, kind: StagedKind::Symlink, short })
    }

    /// Makes a named pipe or a device.
    ///
    /// # Errors
    /// `EINVAL` for a socket, else the operating system's.
    pub fn special(&self, kind: SpecialKind, meta: &LocalMeta) -> io::Result<Staged> {
        let (file_type, device) = match kind {
            SpecialKind::Fifo => (FileType::Fifo, 0),
            SpecialKind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            SpecialKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            SpecialKind::Socket => return Err(Errno::INVAL.into()),
        };
        let name = self.stage.fresh_name();
        fs::mknodat(&self.stage.dir, &*name, file_type, Mode::RUSR | Mode::WUSR, device)?;
        let entry = self.entry(name);
        // Only named: to open a device can be to act on it.
        let handle = self.stage.dir.open(&entry.name, NAME_ANY)?;
        let short = meta::set(Hold::Named(handle.as_fd()), &Stat::from(fs::fstat(&handle)?), meta, true)?;
        Ok(Staged { entry, kind: StagedKind::Special, short })
    }

    /// Makes a second name of the regular file `name` in `dir`, whose attributes stay its own.
    ///
    /// # Errors
    /// `ELOOP` if it is no regular file, else the operating system's.
    pub fn hard_link(&self, dir: &Dir, name: &[u8]) -> io::Result<Staged> {
        let staged_name = self.stage.fresh_name();
        dir.link(name, &self.stage.dir, &staged_name)?;
        let entry = self.entry(staged_name);
        // Looked at where nobody can swap it any more.
        if !self.stage.dir.stat(&entry.name)?.is_file() {
            return Err(Errno::LOOP.into());
        }
        Ok(Staged { entry, kind: StagedKind::HardLink, short: Shortfall::default() })
    }

    /// Makes an empty directory. Its owner keeps all rights for now, since it is to be moved and
    /// filled; whoever places it sets its final mode and times after that.
    ///
    /// # Errors
    /// The operating system's.
    pub fn directory(&self, meta: &LocalMeta) -> io::Result<Staged> {
        let name = self.stage.fresh_name();
        self.stage.dir.mkdir(&name, 0o700)?;
        let entry = self.entry(name);
        let dir = self.stage.dir.open_dir(&entry.name)?;
        let meta = LocalMeta { mode: meta.mode | 0o700, ..meta.clone() };
        let short = meta::set(Hold::Open(dir.as_fd()), &dir.stat_self()?, &meta, true)?;
        Ok(Staged { entry, kind: StagedKind::Directory, short })
    }

    /// Removes the directories that were replaced so far, recursively: by handle, following no
    /// link and crossing no mount.
    ///
    /// # Errors
    /// The first failure of the operating system; the others were removed.
    pub fn dispose_replaced(&self) -> io::Result<()> {
        self.stage.dispose_replaced()
    }

    /// What the last [`Staging::write_state`] wrote.
    ///
    /// # Errors
    /// As [`read_state`].
    pub fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(state_in(&self.home)?.map(|(bytes, _)| bytes))
    }

    /// Replaces the state by `bytes`, durably and at once.
    ///
    /// # Errors
    /// `InvalidInput` beyond 64 KiB, else the operating system's.
    pub fn write_state(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > MAX_STATE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the state is longer than 64 KiB"));
        }
        let mut staged = self.create_file(0o600)?;
        staged.file.write_all(bytes)?;
        staged.file.sync_all()?;
        self.stage.dir.rename(&staged.entry.name, &self.home, STATE)?;
        staged.entry.armed = false;
        Ok(fs::fsync(&self.home)?)
    }

    /// Leaves a mark, which stays until [`Staging::unmark`] whatever becomes of this process; `false` if there is one
    /// already. It is durable with what is synced next.
    ///
    /// # Errors
    /// The operating system's.
    pub fn mark(&self) -> io::Result<bool> {
        match self.home.create_file(MARK, 0o600) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the mark away, if there is one. Also after [`Staging::finish`] with a state that is kept.
    ///
    /// # Errors
    /// The operating system's.
    pub fn unmark(&self) -> io::Result<()> {
        match self.home.unlink(MARK) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The last use, up to letting go of the lock: removes the stage and, unless `keep_state`, everything else but
    /// an attic that holds something: where there is none, nothing of rfleet remains.
    ///
    /// # Errors
    /// The operating system's; as much as possible was removed.
    pub fn finish(&self, keep_state: bool) -> io::Result<()> {
        self.finished.set(true);
        self.clean_up(keep_state)
    }

    fn clean_up(&self, keep_state: bool) -> io::Result<()> {
        dispose::remove_all(&self.stage.dir, &mut || self.stage.fresh_name())?;
        self.home.rmdir(STAGE)?;
        if keep_state {
            return Ok(());
        }
        match self.home.unlink(STATE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Last in the directory and still locked: who waits for it sees that it is gone.
        self.home.unlink(LOCK)?;
        if !is_linked(&self.top, RESERVED_NAME, &self.home)? {
            return Ok(());
        }
        match keeping_times(&self.top, || self.top.rmdir(RESERVED_NAME)) {
            // There is an attic; or the next process has made its lock already, or has even come to its own end.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
            result => result,
        }
    }

    pub(super) fn entry(&self, name: Vec<u8>) -> Entry {
        Entry { stage: Arc::clone(&self.stage), name: name.into(), armed: true }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.finished.get() {
            let keep_state = dispose::exists(&self.home, STATE).unwrap_or(true);
            // The next run cleans what remains.
            let _ = self.clean_up(keep_state);
        }
    }
}

/// A name in the stage, removed when dropped unless it was placed.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stage: Arc<StageDir>,
    pub(super) name: Box<[u8]>,
    pub(super) armed: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed now goes with the stage.
            let _ = self.stage.remove(&self.name);
        }
    }
}

/// A file that is being made. Dropping it removes it.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    created_mode: u32,
    entry: Entry,
}

impl StagedFile {
    /// The file, open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the finished content its attributes and closes it. Not synced.
    ///
    /// # Errors
    /// The operating system's; that the owner may not be set is told in the result.
    pub fn seal(self, meta: &LocalMeta) -> io::Result<Staged> {
        let stage = &self.entry.stage;
        let now = if stage.exact_modes {
            // Known without asking.
            Stat { mode: fs::FileType::RegularFile.as_raw_mode() | self.created_mode, ..stage.fresh }
        } else {
            Stat::from(fs::fstat(&self.file)?)
        };
        let short = meta::set(Hold::Open(self.file.as_fd()), &now, meta, true)?;
        Ok(Staged { entry: self.entry, kind: StagedKind::File, short })
    }
}

/// What was staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagedKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe or a device.
    Special,
    /// A second name of a file that is in the tree.
    HardLink,
    /// An empty directory.
    Directory,
}

/// Something finished that waits to be placed. Dropping it discards it.
#[derive(Debug)]
pub struct Staged {
    pub(super) entry: Entry,
    pub(super) kind: StagedKind,
    /// What could not be set.
    pub short: Shortfall,
}

impl Staged {
    /// What it is.
    pub fn kind(&self) -> StagedKind {
        self.kind
    }

    /// What it is now, as a plan would expect it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn found(&self) -> io::Result<Expected> {
        Ok(self.entry.stage.dir.stat(&self.entry.name)?.expected())
    }

    /// Removes it.
    pub fn discard(self) {}
}

/// Empties what is there and makes the stage anew, which tells how new entries look here.
fn fresh_stage(home: &Dir) -> io::Result<StageDir> {
    match home.open(STAGE, LIST).map(|fd| Dir { fd }) {
        Ok(old) => {
            // Far above every number that a run reaches, so that lifted directories clash with none.
            let mut next = u64::MAX / 2;
            dispose::remove_all(&old, &mut || {
                next += 1;
                next.to_string().into_bytes()
            })?;
            home.rmdir(STAGE)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => home.unlink(STAGE)?,
    }
    // All rights, to see whether they come out; the directory above keeps everyone else away.
    home.mkdir(STAGE, 0o777)?;
    let dir = home.open_dir(STAGE)?;
    let fresh = dir.stat_self()?;
    let exact_modes = fresh.permissions() & 0o777 == 0o777;
    Ok(StageDir { dir, next: AtomicU64::new(0), fresh, exact_modes, replaced: Mutex::default() })
}

/// The stage that `dir`, made a moment ago for nobody else to enter, is.
pub(super) fn private_stage(dir: Dir) -> io::Result<StageDir> {
    let fresh = dir.stat_self()?;
    Ok(StageDir { dir, next: AtomicU64::new(1), fresh, exact_modes: false, replaced: Mutex::default() })
}

/// Whether `name` in `dir` is what is held.
fn is_linked(dir: &Dir, name: &[u8], held: impl AsFd) -> Result<bool, Errno> {
    let held = Stat::from(fs::fstat(held)?);
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(linked) => Ok(Stat::from(linked).is_same_inode(&held)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Does `change` to the entries of `dir` and puts its times back.
fn keeping_times(dir: &Dir, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let before = dir.stat_self()?;
    change()?;
    // Only its owner may; to anyone else the directory's time is not worth an error.
    let _ = fs::futimens(dir, &meta::times(before.mtime));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

    use super::super::fixture::{Fixture, is_unprivileged, meta, names, path};
    use super::super::home::read_state;
    use super::*;
    use rustix::process::geteuid;

    fn home(fixture: &Fixture) -> std::path::PathBuf {
        fixture.path.join(".rfleet")
    }

    #[test]
    fn finish_leaves_nothing_and_the_root_as_it_was() {
        let fixture = Fixture::with(&["f=x"]);
        let file = fs::File::open(&fixture.path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let staging = Staging::open(&fixture.root).unwrap();
        assert_eq!(fs::metadata(home(&fixture)).unwrap().permissions().mode() & 0o7777, 0o700);
        let kept_alive = staging.create_file(0o644).unwrap();
        let _ = staging.symlink(b"x", &meta(0, 1)).unwrap();
        let directory = staging.directory(&meta(0o555, 1)).unwrap();
        staging.finish(false).unwrap();
        drop((kept_alive, directory));
        assert_eq!(fixture.names(), ["f"]);
        assert_eq!(fs::metadata(&fixture.path).unwrap().mtime(), 0);
    }

    #[test]
    fn the_lock_admits_one_and_the_next_after_it() {
        let fixture = Fixture::new();
        let staging = Staging::open(&fixture.root).unwrap();
        assert!(matches!(Staging::open(&fixture.root), Err(StageError::Busy)));
        staging.finish(true).unwrap();
        drop(staging);
        assert_eq!(names(&home(&fixture)), ["lock"]);
        drop(Staging::open(&fixture.root).unwrap());
        assert!(fixture.names().is_empty());
    }

    #[test]
    fn many_at_once_never_hold_it_together() {
        use std::sync::atomic::AtomicUsize;
        let fixture = Fixture::new();
        let (inside, got) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        match Staging::open(&fixture.root) {
                            Ok(staging) => {
                                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                                got.fetch_add(1, Ordering::SeqCst);
                                staging.create_file(0o600).unwrap();
                                inside.fetch_sub(1, Ordering::SeqCst);
                                staging.finish(false).unwrap();
                            }
                            Err(StageError::Busy) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        assert!(got.into_inner() > 0);
        assert!(fixture.names().is_empty());
    }

    #[test]
    fn what_an_interrupted_run_left_is_removed_without_following_links() {
        let fixture = Fixture::with(&[".rfleet", ".rfleet/stage", ".rfleet/stage/0=x", ".rfleet/lock="]);
        let stage = home(&fixture).join("stage");
        fs::create_dir_all(stage.join("1/a/b/c")).unwrap();
        fs::write(stage.join("1/a/b/file"), "x").unwrap();
        symlink(&fixture.outside, stage.join("1/a/out")).unwrap();
        symlink(&fixture.outside, stage.join("2")).unwrap();
        fs::set_permissions(stage.join("1/a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        assert!(Staging::has_leftovers(&fixture.root).unwrap());
        let staging = Staging::open(&fixture.root).unwrap();
        assert!(names(&stage).is_empty());
        fixture.assert_outside_untouched();
        staging.write_state(b"s").unwrap();
        staging.finish(true).unwrap();
        assert!(!Staging::has_leftovers(&fixture.root).unwrap());
        assert!(!Staging::has_leftovers(&Fixture::new().root).unwrap());
    }

    #[test]
    fn an_unprivileged_run_removes_read_only_leftovers() {
        let name = "tree::stage::tests::what_an_interrupted_run_left_is_removed_without_following_links";
        // As root the modes in it hold nobody back, so it runs once more without these rights.
        if is_unprivileged(name) {
            what_an_interrupted_run_left_is_removed_without_following_links();
        }
    }

    #[test]
    fn a_home_that_is_a_link_a_file_or_someone_else_s_is_refused() {
        let fixture = Fixture::new();
        symlink(&fixture.outside, home(&fixture)).unwrap();
        assert!(matches!(Staging::open(&fixture.root), Err(StageError::NotADirectory)));
        assert!(read_state(&fixture.root).is_err());
        fixture.assert_outside_untouched();
        fs::remove_file(home(&fixture)).unwrap();
        fs::write(home(&fixture), "").unwrap();
        assert!(matches!(Staging::open(&fixture.root), Err(StageError::NotADirectory)));
        if geteuid().is_root() {
            fs::remove_file(home(&fixture)).unwrap();
            fs::create_dir(home(&fixture)).unwrap();
            lchown(home(&fixture), Some(12345), None).unwrap();
            assert!(matches!(Staging::open(&fixture.root), Err(StageError::Foreign { owner: 12345 })));
            assert!(read_state(&fixture.root).is_err());
        }
    }

    #[test]
    fn a_wider_home_is_narrowed() {
        let fixture = Fixture::with(&[".rfleet"]);
        fs::set_permissions(home(&fixture), fs::Permissions::from_mode(0o777)).unwrap();
        let _staging = Staging::open(&fixture.root).unwrap();
        assert_eq!(fs::metadata(home(&fixture)).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_state_is_written_whole_and_read_without_creating_anything() {
        let fixture = Fixture::new();
        assert_eq!(read_state(&fixture.root).unwrap(), None);
        assert!(fixture.names().is_empty());
        let staging = Staging::open(&fixture.root).unwrap();
        assert_eq!(staging.read_state().unwrap(), None);
        staging.write_state(b"one").unwrap();
        staging.write_state(b"two").unwrap();
        assert!(staging.write_state(&vec![0; 70_000]).is_err());
        drop(staging);
        assert_eq!(read_state(&fixture.root).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(names(&home(&fixture)), ["lock", "state"]);
        fs::remove_file(home(&fixture).join("state")).unwrap();
        symlink(fixture.outside.join("secret"), home(&fixture).join("state")).unwrap();
        assert_eq!(read_state(&fixture.root).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// Set for the process that runs a test once more as a receiver runs: with umask 0.
    const UMASK_0: &str = "RFLEET_TEST_UMASK_0";

    #[test]
    fn a_sealed_file_has_all_its_attributes_with_umask_0_too() {
        let name = "tree::stage::tests::a_sealed_file_has_all_its_attributes";
        let mut again = std::process::Command::new("/proc/self/exe");
        let output = again.args(["--exact", name]).env(UMASK_0, "1").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
    }

    #[test]
    fn a_sealed_file_has_all_its_attributes() {
        if std::env::var_os(UMASK_0).is_some() {
            rustix::process::umask(Mode::empty());
        }
        let fixture = Fixture::new();
        let staging = Staging::open(&fixture.root).unwrap();
        assert_eq!(staging.stage.exact_modes, std::env::var_os(UMASK_0).is_some());
        for mode in [0o644, 0o400, 0o000, 0o6755, 0o1777] {
            let mut file = staging.create_file(mode).unwrap();
            file.file().write_all(b"text").unwrap();
            let staged = file.seal(&meta(mode, -5)).unwrap();
            let stat = staging.stage.dir.stat(&staged.entry.name).unwrap();
            assert_eq!((stat.permissions(), stat.size_bytes), (mode, 4));
            assert_eq!((stat.mtime.secs, stat.mtime.nanos), (-5, 123_456_789));
        }
        if geteuid().is_root() {
            let owned = LocalMeta { uid: Some(1234), gid: Some(5678), ..meta(0o6711, 1) };
            let staged = staging.create_file(0o6711).unwrap().seal(&owned).unwrap();
            let stat = staging.stage.dir.stat(&staged.entry.name).unwrap();
            assert_eq!((stat.uid, stat.gid, stat.permissions()), (1234, 5678, 0o6711));
            let link = staging.symlink(b"target", &owned).unwrap();
            let stat = staging.stage.dir.stat(&link.entry.name).unwrap();
            assert_eq!((stat.uid, stat.gid, stat.mtime.secs), (1234, 5678, 1));
            assert!(!staged.short.owner && !link.short.owner);
        }
    }

    #[test]
    fn without_the_right_to_chown_it_is_told_and_setuid_is_left_out() {
        if !is_unprivileged("tree::stage::tests::without_the_right_to_chown_it_is_told_and_setuid_is_left_out") {
            return;
        }
        let fixture = Fixture::new();
        let staging = Staging::open(&fixture.root).unwrap();
        let foreign = LocalMeta { uid: Some(0), gid: Some(0), ..meta(0o6755, 1) };
        let staged = staging.create_file(0o755).unwrap().seal(&foreign).unwrap();
        assert!(staged.short.owner);
        assert_eq!(staging.stage.dir.stat(&staged.entry.name).unwrap().permissions(), 0o755);
        assert!(staging.symlink(b"x", &foreign).unwrap().short.owner);
        let own = LocalMeta { uid: Some(geteuid().as_raw()), ..meta(0o4755, 1) };
        let staged = staging.create_file(0o755).unwrap().seal(&own).unwrap();
        assert!(!staged.short.owner);
        assert_eq!(staging.stage.dir.stat(&staged.entry.name).unwrap().permissions(), 0o4755);
    }

    #[test]
    fn special_files_are_made_and_never_opened() {
        let fixture = Fixture::new();
        let staging = Staging::open(&fixture.root).unwrap();
        let pipe = staging.special(SpecialKind::Fifo, &meta(0o620, 9)).unwrap();
        let stat = staging.stage.dir.stat(&pipe.entry.name).unwrap();
        assert_eq!((stat.file_type(), stat.permissions(), stat.mtime.secs), (FileType::Fifo, 0o620, 9));
        assert!(staging.special(SpecialKind::Socket, &meta(0o620, 9)).is_err());
        let device = staging.special(SpecialKind::BlockDevice { major: 259, minor: 70_000 }, &meta(0o600, 9));
        assert_eq!(device.is_ok(), geteuid().is_root());
        if let Ok(device) = device {
            let stat = staging.stage.dir.stat(&device.entry.name).unwrap();
            assert_eq!((stat.file_type(), stat.rdev), (FileType::BlockDevice, makedev(259, 70_000)));
        }
    }

    #[test]
    fn only_regular_files_are_hard_linked() {
        let fixture = Fixture::with(&["f=x", "l>f", "d"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let top = fixture.root.dir(&path("")).unwrap();
        assert_eq!(staging.hard_link(&top, b"f").unwrap().kind(), StagedKind::HardLink);
        assert!(staging.hard_link(&top, b"l").is_err());
        assert!(staging.hard_link(&top, b"d").is_err());
        assert!(names(&home(&fixture).join("stage")).is_empty());
    }
}
