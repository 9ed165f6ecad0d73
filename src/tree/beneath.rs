//! Containment: [`Root`], [`Dir`] and [`Parents`].
//!
//! A [`Root`] is a held directory; a [`Dir`] is a held directory that was below it when it was
//! opened. Methods of [`Dir`] take one name each and refuse anything that could be more.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, AtFlags, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::rights::Rights;
use super::{attributes, times};
use crate::model::{AttributeFidelity, Attributes, Expected, Inode, Meta, RelPath, TimeFidelity, Timestamp};

/// How directories are opened when they are to be listed or synced.
pub(super) const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A handle that only names a directory: needs no right to read it.
pub(super) const NAME_DIR: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A handle that only names an entry of any kind, a symbolic link included.
pub(super) const NAME_ANY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Regular files for reading. NONBLOCK, so that a pipe that was swapped in cannot hang the open;
/// NOCTTY, so that a terminal cannot become ours.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// `openat2` gives EAGAIN when a rename somewhere makes its check undecidable. The kernel's own
/// selftests and systemd retry a few times; each retry is a full lookup, so this ends soon.
const OPENAT2_TRIES: usize = 32;

/// A synced directory tree, held by a handle. Clones share the handle.
#[derive(Clone, Debug)]
pub struct Root(Arc<Held>);

#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    /// As the operator named it; for messages only.
    path: PathBuf,
    /// Set when the kernel or a seccomp filter refuses `openat2`.
    without_openat2: AtomicBool,
}

/// What makes a root the same one as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootIdentity {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// The filesystem's id, stable where the filesystem has one.
    pub fsid: u64,
}

/// Room on a root's filesystem for the effective user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes available.
    pub bytes: u64,
    /// Inodes available; `None` where the filesystem does not count them.
    pub inodes: Option<u64>,
    /// Bytes of an allocation unit.
    pub block_bytes: u64,
}

impl Root {
    /// Takes a directory that was opened for reading.
    pub(super) fn held(fd: OwnedFd, path: &Path) -> Self {
        Root(Arc::new(Held { fd, path: path.to_owned(), without_openat2: AtomicBool::new(false) }))
    }

    /// As the operator named it; for messages, never for opening anything.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// What the root directory itself is.
    ///
    /// # Errors
    /// The operating system's.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(Stat::from(fs::fstat(&self.0.fd)?))
    }

    /// Which directory this is.
    ///
    /// # Errors
    /// The operating system's.
    pub fn identity(&self) -> io::Result<RootIdentity> {
        let stat = self.stat()?;
        let fsid = fs::fstatvfs(&self.0.fd)?.f_fsid;
        Ok(RootIdentity { dev: stat.dev, ino: stat.ino, fsid })
    }

    /// The kinds of extended attributes that a process with `rights` can set here, by the filesystem and by them.
    /// Changes nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn attributes(&self, rights: Rights) -> io::Result<AttributeFidelity> {
        Ok(attributes::possible(&self.dir(&RelPath::root())?, rights))
    }

    /// The times that files here can have. Changes nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn times(&self) -> io::Result<TimeFidelity> {
        Ok(times::held(&self.dir(&RelPath::root())?))
    }

    /// Room on the root's filesystem.
    ///
    /// # Errors
    /// The operating system's.
    pub fn free(&self) -> io::Result<FreeSpace> {
        let stat = fs::fstatvfs(&self.0.fd)?;
        Ok(FreeSpace {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: (stat.f_files > 0).then_some(stat.f_favail),
            block_bytes: stat.f_frsize,
        })
    }

    /// Whether `self` is `other` or lies anywhere inside it, by going up through parents.
    ///
    /// # Errors
    /// The operating system's, for instance when a parent may not be searched.
    pub fn is_same_or_inside(&self, other: &Root) -> io::Result<bool> {
        let wanted = other.stat()?;
        let mut here = self.stat()?;
        let mut at = fs::openat(&self.0.fd, c".", NAME_DIR, Mode::empty())?;
        loop {
            if here.is_same_inode(&wanted) {
                return Ok(true);
            }
            at = fs::openat(&at, c"..", NAME_DIR, Mode::empty())?;
            let above = Stat::from(fs::fstat(&at)?);
            if above.is_same_inode(&here) {
                return Ok(false);
            }
            here = above;
        }
    }

    /// Opens the directory `path` below the root, to list it and to work in it.
    ///
    /// # Errors
    /// `ENOTDIR` or `ELOOP` if a component is a symbolic link or no directory; else the operating
    /// system's.
    pub fn dir(&self, path: &RelPath) -> io::Result<Dir> {
        if path.is_root() {
            return Ok(Dir { fd: fs::openat(&self.0.fd, c".", LIST, Mode::empty())? });
        }
        if !self.0.without_openat2.load(Ordering::Relaxed) {
            match open_beneath(self.fd(), path.as_bytes(), LIST, BENEATH) {
                // EPERM is what seccomp filters answer for calls that they do not know.
                Err(Errno::NOSYS | Errno::PERM) => self.0.without_openat2.store(true, Ordering::Relaxed),
                opened => return Ok(Dir { fd: opened? }),
            }
        }
        self.dir_by_component(path)
    }

    /// One component at a time, each without following a link: what a component names can be
    /// swapped between two steps, but only for another directory of the one that is held.
    fn dir_by_component(&self, path: &RelPath) -> io::Result<Dir> {
        let mut at = fs::openat(&self.0.fd, c".", NAME_DIR, Mode::empty())?;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let flags = if names.peek().is_some() { NAME_DIR } else { LIST };
            at = fs::openat(&at, checked(name)?, flags, Mode::empty())?;
        }
        Ok(Dir { fd: at })
    }

    #[cfg(test)]
    pub(super) fn forget_openat2(&self) {
        self.0.without_openat2.store(true, Ordering::Relaxed);
    }
}

fn open_beneath(fd: BorrowedFd<'_>, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut tries = OPENAT2_TRIES;
    loop {
        match fs::openat2(fd, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries > 0 => tries -= 1,
            opened => return opened,
        }
    }
}

/// Which error of the operating system it is; `None` for none, and for one that is not the system's.
pub(super) fn errno<T>(result: &io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(result.as_ref().err()?)
}

#[cfg(test)]
std::thread_local! {
    /// Makes this thread's filesystems such that cannot rename without replacing, nor exchange.
    pub(super) static WITHOUT_RENAMEAT2: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Defence in depth: a name is one component, whoever made it.
pub(super) fn checked(name: &[u8]) -> Result<&[u8], Errno> {
    let is_one = !matches!(name, b"" | b"." | b"..") && !name.iter().any(|&byte| byte == b'/' || byte == 0);
    if is_one { Ok(name) } else { Err(Errno::INVAL) }
}

/// A directory at or below a root, held by a handle.
#[derive(Debug)]
pub struct Dir {
    pub(super) fd: OwnedFd,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All of these fail with `EINVAL` for a name that is not a single component, else with the
/// operating system's error. None follows a symbolic link.
#[allow(clippy::missing_errors_doc)]
impl Dir {
    /// What this directory itself is.
    pub fn stat_self(&self) -> io::Result<Stat> {
        Ok(Stat::from(fs::fstat(&self.fd)?))
    }

    /// What `name` is.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(Stat::from(fs::statat(&self.fd, checked(name)?, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Whether this directory is the topmost of its filesystem. What is above it is looked at, not opened.
    pub fn is_filesystem_root(&self) -> io::Result<bool> {
        let (own, above) = (self.stat_self()?, Stat::from(fs::statat(&self.fd, c"..", AtFlags::SYMLINK_NOFOLLOW)?));
        Ok(own.dev != above.dev || own.ino == above.ino)
    }

    /// Opens the directory `name`.
    pub fn open_dir(&self, name: &[u8]) -> io::Result<Dir> {
        Ok(Dir { fd: self.open(name, LIST)? })
    }

    /// Opens the directory at `way` below this one, which may have more components than a path of a root can; no `way`
    /// at all is this directory.
    pub(super) fn open_way(&self, way: &[u8]) -> io::Result<Dir> {
        let names = || way.split(|&byte| byte == b'/').filter(|_| !way.is_empty());
        names().try_for_each(|name| checked(name).map(drop))?;
        let way = if way.is_empty() { b"." } else { way };
        match open_beneath(self.fd.as_fd(), way, LIST, BENEATH) {
            Err(Errno::NOSYS | Errno::PERM) => {
                let mut at = fs::openat(&self.fd, c".", LIST, Mode::empty())?;
                for name in names() {
                    at = fs::openat(&at, name, LIST, Mode::empty())?;
                }
                Ok(Dir { fd: at })
            }
            opened => Ok(Dir { fd: opened? }),
        }
    }

    /// Opens the directory `name` if no mount lies on it. Without `openat2`, another filesystem
    /// is noticed, a second mount of the same one is not.
    pub(super) fn open_dir_same_mount(&self, name: &[u8]) -> io::Result<Dir> {
        match open_beneath(self.fd.as_fd(), checked(name)?, LIST, BENEATH | ResolveFlags::NO_XDEV) {
            Err(Errno::NOSYS | Errno::PERM) => {
                let dir = self.open_dir(name)?;
                if dir.stat_self()?.dev == self.stat_self()?.dev { Ok(dir) } else { Err(Errno::XDEV.into()) }
            }
            opened => Ok(Dir { fd: opened? }),
        }
    }

    /// Opens the regular file `name` for reading, with what it is.
    ///
    /// RACE: a pipe or device that is swapped in between the listing and this is opened, without
    /// blocking, and closed again unread. To put a device there takes the right to make one.
    pub fn open_file(&self, name: &[u8]) -> io::Result<(File, Stat)> {
        let fd = self.open(name, READ)?;
        let stat = Stat::from(fs::fstat(&fd)?);
        // ELOOP is also what the open gives for a symbolic link.
        if stat.is_file() { Ok((File::from(fd), stat)) } else { Err(Errno::LOOP.into()) }
    }

    /// Opens `name` with `flags`, to which the caller has added `O_NOFOLLOW`.
    pub(super) fn open(&self, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        Ok(fs::openat(&self.fd, checked(name)?, flags, Mode::empty())?)
    }

    /// Creates the file `name`, which must not exist, for reading and writing.
    pub(super) fn create_file(&self, name: &[u8], mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&self.fd, checked(name)?, flags, Mode::from_raw_mode(mode))?))
    }

    /// The target of the symbolic link `name`.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(fs::readlinkat(&self.fd, checked(name)?, Vec::new())?.into_bytes())
    }

    /// Creates the directory `name`.
    pub fn mkdir(&self, name: &[u8], mode: u32) -> io::Result<()> {
        Ok(fs::mkdirat(&self.fd, checked(name)?, Mode::from_raw_mode(mode))?)
    }

    /// Removes `name`, which is no directory.
    pub fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, checked(name)?, AtFlags::empty())?)
    }

    /// Removes the empty directory `name`.
    pub fn rmdir(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, checked(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Renames `name` to `to_name` in `to`, replacing what is there as rename(2) does.
    pub fn rename(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        Ok(fs::renameat(&self.fd, checked(name)?, &to.fd, checked(to_name)?)?)
    }

    /// Renames `name` to `to_name` in `to`, which must not exist. `EINVAL` where the filesystem
    /// cannot do it.
    pub fn rename_noreplace(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        self.renameat2(name, to, to_name, RenameFlags::NOREPLACE)
    }

    /// As [`Dir::rename_noreplace`], also where the filesystem cannot do it in one step.
    ///
    /// RACE: there, what is put at `to_name` between the look and the rename is replaced.
    pub fn rename_to_nothing(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        let renamed = self.rename_noreplace(name, to, to_name);
        match errno(&renamed) {
            Some(Errno::INVAL | Errno::NOSYS) => match to.stat(to_name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(name, to, to_name),
                Err(error) => Err(error),
                Ok(_) => Err(Errno::EXIST.into()),
            },
            _ => renamed,
        }
    }

    /// Swaps `name` and `to_name` in `to`. `EINVAL` where the filesystem cannot do it.
    pub fn exchange(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        self.renameat2(name, to, to_name, RenameFlags::EXCHANGE)
    }

    fn renameat2(&self, name: &[u8], to: &Dir, to_name: &[u8], flags: RenameFlags) -> io::Result<()> {
        let (name, to_name) = (checked(name)?, checked(to_name)?);
        #[cfg(test)]
        if WITHOUT_RENAMEAT2.get() {
            return Err(Errno::INVAL.into());
        }
        Ok(fs::renameat_with(&self.fd, name, &to.fd, to_name, flags)?)
    }

    /// Makes `to_name` in `to` a second name of `name`.
    pub fn link(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> io::Result<()> {
        Ok(fs::linkat(&self.fd, checked(name)?, &to.fd, checked(to_name)?, AtFlags::empty())?)
    }

    /// Creates the symbolic link `name` to `target`.
    pub fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.fd, checked(name)?)?)
    }

    /// Gives every name in this directory, unsorted, without `.` and `..`, to `visit`. `buffer`
    /// is scratch space that callers keep between directories.
    ///
    /// RACE: an entry that is renamed within the directory meanwhile may be missed under both
    /// names or given under both, as with every reader of directories.
    pub(super) fn each_name(
        &self,
        buffer: &mut [MaybeUninit<u8>],
        visit: &mut dyn FnMut(&CStr) -> io::Result<()>,
    ) -> io::Result<()> {
        fs::seek(&self.fd, fs::SeekFrom::Start(0))?;
        while self.next_names(buffer, visit)? {}
        Ok(())
    }

    /// As [`Dir::each_name`], one buffer full of them from where this handle is; whether there may be more.
    pub(super) fn next_names(
        &self,
        buffer: &mut [MaybeUninit<u8>],
        visit: &mut dyn FnMut(&CStr) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut entries = RawDir::new(&self.fd, buffer);
        loop {
            let entry = match entries.next() {
                None => return Ok(false),
                Some(Err(Errno::INTR)) => continue,
                Some(entry) => entry?,
            };
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                visit(entry.file_name())?;
            }
            if entries.is_buffer_empty() {
                return Ok(true);
            }
        }
    }
}

/// What an entry is, as the operating system tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device number of its filesystem.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Number of its names.
    pub nlink: u64,
    /// Kind (`S_IFMT`) and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Room that it takes, in bytes: less than its length if it has holes.
    pub allocated_bytes: u64,
    /// For devices, which one.
    pub rdev: u64,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
}

impl Stat {
    /// What `file` is.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Stat::from(fs::fstat(file)?))
    }

    /// The kind.
    pub fn file_type(&self) -> fs::FileType {
        fs::FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.file_type() == fs::FileType::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == fs::FileType::RegularFile
    }

    /// Whether it may have holes; a filesystem that compresses says so of others too.
    pub fn may_have_holes(&self) -> bool {
        self.is_file() && self.allocated_bytes < self.size_bytes
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type() == fs::FileType::Symlink
    }

    /// The permission bits, `0o7777`.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Whether both are names of one thing.
    pub fn is_same_inode(&self, other: &Stat) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// What tells its inode from others.
    pub fn inode(&self) -> Inode {
        Inode { dev: self.dev, ino: self.ino, shared: self.is_file() && self.nlink > 1, ctime: self.ctime }
    }

    /// What a plan that saw this expects to find.
    pub fn expected(&self) -> Expected {
        match self.file_type() {
            fs::FileType::Directory => Expected::Directory,
            fs::FileType::RegularFile => Expected::File { size_bytes: self.size_bytes, mtime: self.mtime },
            fs::FileType::Symlink => Expected::Symlink { mtime: self.mtime },
            _ => Expected::Special,
        }
    }

    /// As an entry's attributes.
    pub fn meta(&self) -> Meta {
        Meta {
            mode: self.permissions(),
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            attributes: Attributes::default(),
        }
    }
}

impl From<fs::Stat> for Stat {
    // The widths of these fields differ between processors.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    fn from(stat: fs::Stat) -> Self {
        let time = |secs: i64, nanos: u64| Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Stat {
            dev: stat.st_dev.into(),
            ino: stat.st_ino.into(),
            nlink: stat.st_nlink.into(),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            // In units of 512 bytes, whatever the filesystem's are.
            allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            rdev: stat.st_rdev.into(),
            mtime: time(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            ctime: time(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
        }
    }
}

/// Handles kept by [`Parents`]: a directory, and the one that hard links or moves come from, for
/// the tree and its neighbours.
const KEPT_PARENTS: usize = 4;

/// Opens the directories of a sequence of paths and keeps the last few open, so that a thousand
/// files of one directory open it once.
///
/// RACE: a directory that another process moves away or replaces while it is kept goes on being
/// used; what is done in it is found missing, and done again, by the next cycle.
#[derive(Debug)]
pub struct Parents {
    root: Root,
    /// The most recently used last.
    kept: Vec<(Box<[u8]>, Arc<Dir>)>,
}

impl Parents {
    /// Parents below `root`, none of them open yet.
    pub fn new(root: &Root) -> Self {
        Parents { root: root.clone(), kept: Vec::with_capacity(KEPT_PARENTS) }
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The directory that holds `path`, and its name there.
    ///
    /// # Errors
    /// `EINVAL` for the root itself, else as [`Root::dir`].
    pub fn parent<'p>(&mut self, path: &'p RelPath) -> io::Result<(Arc<Dir>, &'p [u8])> {
        let (parent, name) = path.split_bytes().ok_or(Errno::INVAL)?;
        let dir = match self.find(parent) {
            Some(dir) => dir,
            None => {
                let parent = RelPath::new_or_root(parent).map_err(|_| Errno::INVAL)?;
                let dir = Arc::new(self.root.dir(&parent)?);
                self.keep(&parent, dir)
            }
        };
        Ok((dir, name))
    }

    /// The directory `path` itself.
    ///
    /// # Errors
    /// As [`Root::dir`].
    pub fn dir(&mut self, path: &RelPath) -> io::Result<Arc<Dir>> {
        match self.find(path.as_bytes()) {
            Some(dir) => Ok(dir),
            None => {
                let dir = Arc::new(self.root.dir(path)?);
                Ok(self.keep(path, dir))
            }
        }
    }

    /// Closes `path` and everything below it, which no longer has these names.
    pub fn forget(&mut self, path: &RelPath) {
        self.kept.retain(|(kept, _)| {
            let rest = kept.strip_prefix(path.as_bytes());
            !rest.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/') || path.is_root())
        });
    }

    fn find(&mut self, path: &[u8]) -> Option<Arc<Dir>> {
        let at = self.kept.iter().rposition(|(kept, _)| **kept == *path)?;
        if at + 1 < self.kept.len() {
            let found = self.kept.remove(at);
            self.kept.push(found);
        }
        self.kept.last().map(|(_, dir)| Arc::clone(dir))
    }

    fn keep(&mut self, path: &RelPath, dir: Arc<Dir>) -> Arc<Dir> {
        if self.kept.len() >= KEPT_PARENTS {
            self.kept.remove(0);
        }
        self.kept.push((path.as_bytes().into(), Arc::clone(&dir)));
        dir
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, path};
    use super::*;
    use std::os::unix::fs::symlink;

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
        Errno::from_io_error(&result.unwrap_err()).unwrap()
    }

    #[test]
    fn no_path_leads_through_a_symbolic_link_with_or_without_openat2() {
        let fixture = Fixture::with(&["d", "d/e", "d/e/f=x", "up>..", "self>d", "file=x"]);
        symlink(&fixture.outside, fixture.path.join("out")).unwrap();
        symlink("../../outside", fixture.path.join("d/out")).unwrap();
        for without in [false, true] {
            if without {
                fixture.root.forget_openat2();
            }
            for name in ["out", "up", "self", "self/e", "d/out", "up/outside", "file", "file/x"] {
                let errno = errno(fixture.root.dir(&path(name)));
                assert!(matches!(errno, Errno::LOOP | Errno::NOTDIR), "{name}: {errno}");
            }
            assert_eq!(errno(fixture.root.dir(&path("none/x"))), Errno::NOENT);
            assert!(fixture.root.dir(&path("d/e")).unwrap().stat(b"f").unwrap().is_file());
            assert!(fixture.root.dir(&path("")).unwrap().stat(b"d").unwrap().is_directory());
        }
    }

    #[test]
    fn a_name_that_is_more_than_one_component_is_invalid_everywhere() {
        let fixture = Fixture::with(&["d", "f=x"]);
        let dir = fixture.root.dir(&path("d")).unwrap();
        for name in [&b""[..], b".", b"..", b"../f", b"a/b", b"/etc", b"a\0b"] {
            let results = [
                dir.stat(name).map(|_| ()),
                dir.open_dir(name).map(|_| ()),
                dir.open_file(name).map(|_| ()),
                dir.read_link(name).map(|_| ()),
                dir.mkdir(name, 0o700),
                dir.unlink(name),
                dir.rmdir(name),
                dir.rename(name, &dir, b"x"),
                dir.rename(b"x", &dir, name),
                dir.rename_noreplace(b"x", &dir, name),
                dir.exchange(name, &dir, b"x"),
                dir.link(name, &dir, b"x"),
                dir.link(b"x", &dir, name),
                dir.symlink(b"x", name),
                dir.create_file(name, 0o600).map(|_| ()),
            ];
            for (at, result) in results.into_iter().enumerate() {
                assert_eq!(errno(result), Errno::INVAL, "call {at} with {name:?}");
            }
        }
        assert_eq!(fixture.names(), ["d", "f"]);
    }

    #[test]
    fn only_regular_files_are_opened_and_a_pipe_does_not_block() {
        let fixture = Fixture::with(&["d", "l>f", "f=x"]);
        let fifo = rustix::fs::FileType::Fifo;
        fs::mknodat(fs::open(&fixture.path, LIST, Mode::empty()).unwrap(), "p", fifo, Mode::RUSR, 0).unwrap();
        let top = fixture.root.dir(&path("")).unwrap();
        for name in [&b"d"[..], b"l", b"p"] {
            assert_eq!(errno(top.open_file(name)), Errno::LOOP, "{name:?}");
        }
        assert_eq!(top.open_file(b"f").unwrap().1.size_bytes, 1);
    }

    #[test]
    fn the_longest_path_is_opened() {
        let fixture = Fixture::new();
        let mut dir = fixture.root.dir(&RelPath::root()).unwrap();
        for _ in 0..2047 {
            dir.mkdir(b"d", 0o755).unwrap();
            dir = dir.open_dir(b"d").unwrap();
        }
        dir.mkdir(b"e", 0o755).unwrap();
        let mut longest = "d/".repeat(2047);
        longest.push('e');
        assert_eq!(longest.len(), crate::model::MAX_PATH_BYTES);
        assert!(fixture.root.dir(&path(&longest)).is_ok());
        fixture.root.forget_openat2();
        assert!(fixture.root.dir(&path(&longest)).is_ok());
    }

    #[test]
    fn inside_is_by_identity() {
        let fixture = Fixture::with(&["d", "d/e", "de"]);
        let open = |name: &str| Root::open(&fixture.path.join(name)).unwrap();
        assert!(open("d/e").is_same_or_inside(&fixture.root).unwrap());
        assert!(open("d").is_same_or_inside(&open("d")).unwrap());
        assert!(!open("de").is_same_or_inside(&open("d")).unwrap());
        assert!(!fixture.root.is_same_or_inside(&open("d")).unwrap());
        assert!(fixture.root.is_same_or_inside(&Root::open(Path::new("/")).unwrap()).unwrap());
        assert_eq!(open("d").identity().unwrap(), open("d").identity().unwrap());
        assert_ne!(open("d").identity().unwrap(), open("de").identity().unwrap());
        assert!(fixture.root.free().unwrap().bytes > 0);
    }

    #[test]
    fn parents_are_opened_once_and_forgotten_with_everything_below() {
        let fixture = Fixture::with(&["a", "a/b", "ab"]);
        let mut parents = Parents::new(&fixture.root);
        let (first, name) = parents.parent(&path("a/b/x")).map(|(dir, name)| (dir, name.to_vec())).unwrap();
        assert_eq!(name, b"x");
        let (again, _) = parents.parent(&path("a/b/y")).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let (beside, _) = parents.parent(&path("ab/x")).unwrap();
        parents.forget(&path("a"));
        assert!(!Arc::ptr_eq(&first, &parents.parent(&path("a/b/z")).unwrap().0));
        assert!(Arc::ptr_eq(&beside, &parents.parent(&path("ab/z")).unwrap().0));
        assert_eq!(errno(parents.parent(&RelPath::root()).map(|_| ())), Errno::INVAL);
    }
}
