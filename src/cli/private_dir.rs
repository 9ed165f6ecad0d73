//! Directories of our own outside the roots: for sockets and for state. Nobody else may be able to
//! put something there, so each is opened by handle, over no foreign symbolic link, and looked at.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::tree::{Root, RootError};

/// Permission bits that let group or others change something.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A directory of the effective user that nobody else can change.
#[derive(Debug)]
pub(super) struct PrivateDir {
    pub(super) handle: OwnedFd,
    pub(super) path: PathBuf,
}

impl PrivateDir {
    /// Opens `path`; what is missing of it is made with mode 0700.
    ///
    /// # Errors
    /// One line: it cannot be had, belongs to someone else, or others may write to it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let handle = open_or_create(path)?;
        let stat = rustix::fs::fstat(&handle).map_err(|error| format!("{shown}: {error}"))?;
        if stat.st_uid != geteuid().as_raw() {
            return Err(format!("{shown} belongs to user {}, not to the one who runs rfleet", stat.st_uid));
        }
        if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
            return Err(format!(
                "others may write to {shown} (mode {:04o}); `chmod go-w {shown}`",
                stat.st_mode & 0o7777
            ));
        }
        Ok(PrivateDir { handle, path: path.to_owned() })
    }

    /// The directory `name` in this one, with no rights for anybody else, whatever this one allows.
    ///
    /// # Errors
    /// As for [`PrivateDir::open`]; a symbolic link is never followed.
    pub(super) fn secret(&self, name: &str) -> Result<Self, String> {
        let path = self.path.join(name);
        let failed = |error: Errno| format!("{}: {error}", path.display());
        let handle = make(&self.handle, Path::new(name)).map_err(failed)?;
        let stat = rustix::fs::fstat(&handle).map_err(failed)?;
        if stat.st_uid != geteuid().as_raw() {
            return Err(format!("{} belongs to user {}", path.display(), stat.st_uid));
        }
        // Ours, so its mode is, too: nobody loses what they should have.
        rustix::fs::fchmod(&handle, Mode::RWXU).map_err(failed)?;
        Ok(PrivateDir { handle, path })
    }
}

fn open_or_create(path: &Path) -> Result<OwnedFd, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match Root::open(path) {
        Ok(found) => return found.to_handle().map_err(|error| failed(&error)),
        Err(RootError::Missing(_)) => {}
        Err(error) => return Err(error.to_string()),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(&"there is no such directory"));
    };
    make(&open_or_create(parent)?, Path::new(name)).map_err(|error| failed(&error))
}

/// Opens `name` in `parent`, not over a link; makes it where it is missing.
fn make(parent: &OwnedFd, name: &Path) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        // Another process may have been faster; what is there is looked at by the caller.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// The first of the directories that systemd names in `variable`, which separates several by colons.
pub(super) fn from_systemd(variable: &str) -> Option<PathBuf> {
    let text = std::env::var(variable).ok()?;
    text.split(':').next().map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The directory that an XDG variable names; one that is not absolute is to be ignored.
pub(super) fn from_xdg(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(|value: OsString| PathBuf::from(value)).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_missing_is_made_for_the_own_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let made = PrivateDir::open(&path).unwrap();
        assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(PrivateDir::open(&path).is_ok(), "what systemd makes can be looked at by others");
        made.secret("ssh").unwrap();
        fs::set_permissions(path.join("ssh"), fs::Permissions::from_mode(0o777)).unwrap();
        made.secret("ssh").unwrap();
        assert_eq!(mode(&path.join("ssh")), 0o700);
    }

    #[test]
    fn what_others_can_write_or_planted_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (open, link, file) = (dir.path().join("open"), dir.path().join("link"), dir.path().join("file"));
        fs::create_dir(&open).unwrap();
        fs::write(&file, "").unwrap();
        symlink(&open, &link).unwrap();
        for bits in [0o720, 0o702, 0o777] {
            fs::set_permissions(&open, fs::Permissions::from_mode(bits)).unwrap();
            let error = PrivateDir::open(&open).unwrap_err();
            assert!(error.contains("chmod go-w"), "{error}");
        }
        assert!(PrivateDir::open(&file).is_err());
        fs::set_permissions(&open, fs::Permissions::from_mode(0o700)).unwrap();
        let within = PrivateDir::open(&open).unwrap();
        symlink(dir.path(), open.join("ssh")).unwrap();
        assert!(within.secret("ssh").is_err(), "no link is followed in it");
        if geteuid().is_root() {
            lchown(&link, Some(12345), None).unwrap();
            let error = PrivateDir::open(&link).unwrap_err();
            assert!(error.contains("belongs to user 12345"), "{error}");
            chown(&open, Some(12345), None).unwrap();
            let error = PrivateDir::open(&open).unwrap_err();
            assert!(error.contains("belongs to user 12345"), "{error}");
        }
    }
}
