//! How the path that an operator named becomes a held [`Root`].
//!
//! The path is walked one component at a time. A symbolic link on the way is followed only if
//! root or the effective user owns it: anyone else's could have been planted to lead a privileged
//! process elsewhere. Links themselves are read through the handle whose owner was checked.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

use super::beneath::{LIST, NAME_ANY, NAME_DIR, Root, Stat};

/// As many links as Linux itself follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Why a path could not be opened as a root.
#[derive(Debug, Error)]
pub enum RootError {
    /// Nothing is there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It, or something on the way, is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A symbolic link on the way belongs to someone who is not trusted with it.
    #[error(
        "{}: the symbolic link {} belongs to user {owner}; only links of root or of the own user are followed",
        .path.display(), .link.display()
    )]
    ForeignLink {
        /// The path that was asked for.
        path: PathBuf,
        /// The link.
        link: PathBuf,
        /// Number of its owner.
        owner: u32,
    },
    /// The operating system refuses.
    #[error("cannot open {}: {source}", .path.display())]
    Io {
        /// The path that was asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Root {
    /// Opens the directory `path`, from the working directory if it is relative.
    ///
    /// # Errors
    /// [`RootError`] says what is in the way.
    pub fn open(path: &Path) -> Result<Root, RootError> {
        let dir = Walk::new(path)?.finish()?;
        match fs::openat(&dir, c".", LIST, Mode::empty()) {
            Ok(fd) => Ok(Root::held(fd, path)),
            Err(errno) => Err(io_error(path, errno)),
        }
    }

    /// As [`Root::open`]; creates the last component (mode 0755) if only that is missing.
    ///
    /// # Errors
    /// [`RootError`]; `Missing` names the parent if that is what is missing.
    pub fn open_or_create(path: &Path) -> Result<Root, RootError> {
        match Root::open(path) {
            Err(RootError::Missing(_)) => {}
            opened => return opened,
        }
        let name = path.file_name().ok_or_else(|| RootError::Missing(path.to_owned()))?;
        let dir = Walk::new(parent_of(path))?.finish()?;
        match fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
            // EEXIST: another process was faster, or it is a link that leads nowhere; the open tells.
            Ok(()) | Err(Errno::EXIST) => Root::open(path),
            Err(errno) => Err(io_error(path, errno)),
        }
    }

    /// Opens the directory in which [`Root::open_or_create`] would make `path`.
    ///
    /// # Errors
    /// [`RootError`] says what is in the way.
    pub fn open_parent(path: &Path) -> Result<Root, RootError> {
        Root::open(parent_of(path))
    }

    /// Another handle of the directory, for one that is not synced and only shares the rules about its path.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn to_handle(&self) -> io::Result<OwnedFd> {
        self.fd().try_clone_to_owned()
    }

    /// Whether the effective user may make and remove entries directly in this directory. Changes nothing.
    pub fn is_writable(&self) -> bool {
        let access = fs::Access::WRITE_OK | fs::Access::EXEC_OK;
        match fs::accessat(self.fd(), c".", access, AtFlags::EACCESS) {
            // What seccomp filters answer for calls that they do not know. Without the flag an older call
            // answers for the real user, who is the effective one unless the program is setuid.
            Err(Errno::NOSYS | Errno::PERM) => fs::accessat(self.fd(), c".", access, AtFlags::empty()).is_ok(),
            answer => answer.is_ok(),
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn io_error(path: &Path, errno: Errno) -> RootError {
    RootError::Io { path: path.to_owned(), source: errno.into() }
}

/// A walk from `/` or the working directory towards `path`.
struct Walk<'p> {
    path: &'p Path,
    at: OwnedFd,
    /// Where `at` is, as far as names tell; for messages.
    shown: PathBuf,
    ahead: VecDeque<Vec<u8>>,
    links: usize,
}

impl<'p> Walk<'p> {
    fn new(path: &'p Path) -> Result<Self, RootError> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() {
            return Err(RootError::Missing(path.to_owned()));
        }
        let (at, shown) = Self::start(bytes).map_err(|errno| io_error(path, errno))?;
        let mut walk = Walk { path, at, shown, ahead: VecDeque::new(), links: 0 };
        walk.put_ahead(bytes);
        Ok(walk)
    }

    fn start(bytes: &[u8]) -> Result<(OwnedFd, PathBuf), Errno> {
        let (place, shown) = if bytes.starts_with(b"/") { (c"/", "/") } else { (c".", "") };
        // Neither name can be a link.
        Ok((fs::open(place, NAME_DIR, Mode::empty())?, PathBuf::from(shown)))
    }

    fn put_ahead(&mut self, bytes: &[u8]) {
        for name in bytes.split(|&byte| byte == b'/').rev() {
            if !matches!(name, b"" | b".") {
                self.ahead.push_front(name.to_vec());
            }
        }
    }

    fn finish(mut self) -> Result<OwnedFd, RootError> {
        while let Some(name) = self.ahead.pop_front() {
            self.step(&name)?;
        }
        Ok(self.at)
    }

    fn step(&mut self, name: &[u8]) -> Result<(), RootError> {
        let shown = self.shown.join(OsStr::from_bytes(name));
        let fd = fs::openat(&self.at, name, NAME_ANY, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => RootError::Missing(shown.clone()),
            errno => io_error(self.path, errno),
        })?;
        let stat = fs::fstat(&fd).map(Stat::from).map_err(|errno| io_error(self.path, errno))?;
        if stat.is_symlink() {
            return self.follow(&fd, &stat, shown);
        }
        if !stat.is_directory() {
            return Err(RootError::NotADirectory(shown));
        }
        self.at = fd;
        self.shown = shown;
        Ok(())
    }

    fn follow(&mut self, link: &OwnedFd, stat: &Stat, shown: PathBuf) -> Result<(), RootError> {
        if stat.uid != 0 && stat.uid != geteuid().as_raw() {
            return Err(RootError::ForeignLink { path: self.path.to_owned(), link: shown, owner: stat.uid });
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(io_error(self.path, Errno::LOOP));
        }
        let target = fs::readlinkat(link, c"", Vec::new()).map_err(|errno| io_error(self.path, errno))?;
        if target.as_bytes().starts_with(b"/") {
            (self.at, self.shown) = Self::start(b"/").map_err(|errno| io_error(self.path, errno))?;
        }
        self.put_ahead(target.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, is_unprivileged};
    use super::*;
    use std::os::unix::fs::{lchown, symlink};

    #[test]
    fn own_links_are_followed_on_the_way_and_at_the_end() {
        let fixture = Fixture::with(&["d", "d/e", "l>d/e", "m>l", "dangling>none", "f=x", "loop>loop"]);
        symlink(fixture.path.join("d"), fixture.path.join("absolute")).unwrap();
        let open = |name: &str| Root::open(&fixture.path.join(name));
        let identity = |name: &str| open(name).unwrap().identity().unwrap();
        for name in ["l", "m", "absolute/e", "d/../d/e", "d/./e/", "absolute/../l"] {
            assert_eq!(identity(name), identity("d/e"), "{name}");
        }
        assert!(matches!(open("none"), Err(RootError::Missing(path)) if path.ends_with("none")));
        assert!(matches!(open("dangling"), Err(RootError::Missing(_))));
        assert!(matches!(open("none/x"), Err(RootError::Missing(path)) if path.ends_with("none")));
        assert!(matches!(open("f"), Err(RootError::NotADirectory(_))));
        assert!(matches!(open("f/x"), Err(RootError::NotADirectory(_))));
        assert!(matches!(open("loop"), Err(RootError::Io { .. })));
        assert!(matches!(Root::open(Path::new("")), Err(RootError::Missing(_))));
        assert!(Root::open(Path::new(".")).is_ok());
        assert!(Root::open(Path::new("src/..")).is_ok());
    }

    #[test]
    fn a_link_of_someone_else_is_refused_wherever_it_is() {
        let fixture = Fixture::with(&["d", "d/e", "l>d"]);
        let link = fixture.path.join("l");
        if !rustix::process::geteuid().is_root() {
            // Someone else's link that exists everywhere: none can be made without rights.
            return;
        }
        lchown(&link, Some(12345), Some(12345)).unwrap();
        for name in ["l", "l/e"] {
            let error = Root::open(&fixture.path.join(name)).unwrap_err();
            assert!(matches!(&error, RootError::ForeignLink { owner: 12345, .. }), "{error}");
            assert!(error.to_string().contains(link.to_str().unwrap()), "{error}");
        }
        assert!(matches!(Root::open_or_create(&fixture.path.join("l/new")), Err(RootError::ForeignLink { .. })));
        assert!(!fixture.path.join("d/new").exists());
    }

    #[test]
    fn only_the_last_component_is_created() {
        let fixture = Fixture::with(&["dangling>none"]);
        assert!(Root::open_or_create(&fixture.path.join("new/")).is_ok());
        assert!(Root::open_or_create(&fixture.path.join("new")).is_ok());
        assert!(matches!(Root::open_or_create(&fixture.path.join("a/b")), Err(RootError::Missing(_))));
        assert!(matches!(Root::open_or_create(&fixture.path.join("dangling")), Err(RootError::Missing(_))));
        assert_eq!(fixture.names(), ["dangling", "new"]);
    }

    #[test]
    fn a_root_under_a_directory_that_may_only_be_passed_is_opened() {
        if !is_unprivileged("tree::open::tests::a_root_under_a_directory_that_may_only_be_passed_is_opened") {
            return;
        }
        let fixture = Fixture::with(&["d", "d/e"]);
        let mode = |mode| std::fs::set_permissions(fixture.path.join("d"), std::fs::Permissions::from_mode(mode));
        use std::os::unix::fs::PermissionsExt;
        mode(0o100).unwrap();
        assert!(Root::open(&fixture.path.join("d/e")).is_ok());
        assert!(matches!(Root::open(&fixture.path.join("d")), Err(RootError::Io { .. })));
        mode(0o700).unwrap();
    }
}
