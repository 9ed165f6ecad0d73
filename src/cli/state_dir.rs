//! The state directory: what this host remembers from one run to the next. Nobody else may change
//! what lies in it; every file is opened below its handle, over no link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::private_dir::{PrivateDir, from_systemd, from_xdg};

/// Where it lies on a host where rfleet runs as root.
const SYSTEM: &str = "/var/lib/rfleet";

/// The open directory.
#[derive(Debug)]
pub(super) struct StateDir(PrivateDir);

/// Where the state directory of this process lies: what systemd says, else the system's if this
/// process may use it, else the user's.
///
/// # Errors
/// One line, if the environment names none.
pub(super) fn locate() -> Result<PathBuf, String> {
    let is_own = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.uid() == geteuid().as_raw());
    let system = || Some(PathBuf::from(SYSTEM)).filter(|path| geteuid().is_root() || is_own(path));
    let own = || {
        let home = || std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".local/state"));
        from_xdg("XDG_STATE_HOME").or_else(home).map(|base| base.join("rfleet"))
    };
    from_systemd("STATE_DIRECTORY")
        .or_else(system)
        .or_else(own)
        .ok_or_else(|| "there is no place for state: neither STATE_DIRECTORY nor HOME is set".to_owned())
}

impl StateDir {
    /// Opens the state directory of this process; makes it, mode 0700, where it is missing.
    ///
    /// # Errors
    /// One line that names the directory and what is wrong with it.
    pub(super) fn open() -> Result<Self, String> {
        Self::open_at(&locate()?)
    }

    /// Opens the state directory of this process; `None` where there is none, which stays so.
    ///
    /// # Errors
    /// As for [`StateDir::open`].
    pub(super) fn existing() -> Result<Option<Self>, String> {
        let path = locate()?;
        if path.exists() { Self::open_at(&path).map(Some) } else { Ok(None) }
    }

    pub(super) fn open_at(path: &Path) -> Result<Self, String> {
        let opened = PrivateDir::open(path).map(StateDir);
        opened.map_err(|error| format!("state directory: {error}; STATE_DIRECTORY can name another one"))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Opens the file `name` for reading and writing, mode 0600; makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be opened, or is not a file of the own user alone.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDWR | OFlags::CREATE)
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let careful = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file: File = rustix::fs::openat(&self.0.handle, name, flags | careful, Mode::RUSR | Mode::WUSR)?.into();
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != geteuid().as_raw() {
            return Err(io::Error::other("it is not a regular file of the user who runs rfleet"));
        }
        Ok(file)
    }

    /// What is in the file `name`, at most `most` bytes; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, is larger, or is not a file of the own user.
    pub(super) fn read(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_with(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::other(format!("it is larger than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Puts `bytes` in the place of the file `name`, whole and on disk, or not at all. Only one process
    /// at a time may do so.
    ///
    /// # Errors
    /// It cannot be written; then the old file is as it was.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        // What an interrupted run left.
        self.remove(&new)?;
        let mut file = self.open_with(&new, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        Ok(rustix::fs::renameat(&self.0.handle, &new, &self.0.handle, name)?)
    }

    /// Removes the file `name`, if there is one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0.handle, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open_at(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn files_are_replaced_whole_and_for_the_own_user_alone() {
        let (_dir, state) = state();
        assert_eq!(state.read("a", 10).unwrap(), None);
        fs::write(state.path().join("a.new"), "left by an interrupted run").unwrap();
        for content in ["one", "two!"] {
            state.replace("a", content.as_bytes()).unwrap();
            assert_eq!(state.read("a", 4).unwrap().unwrap(), content.as_bytes());
        }
        assert!(state.read("a", 3).unwrap_err().to_string().contains("larger than 3 bytes"));
        let mode = fs::metadata(state.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
        state.remove("a").unwrap();
        state.remove("a").unwrap();
        assert_eq!(state.read("a", 3).unwrap(), None);
    }

    #[test]
    fn planted_links_and_pipes_are_not_followed() {
        let (dir, state) = state();
        let outside = dir.path().join("outside");
        fs::write(&outside, "sentinel").unwrap();
        for name in ["link", "new.new"] {
            symlink(&outside, state.path().join(name)).unwrap();
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, state.path().join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        for name in ["link", "pipe"] {
            assert!(state.open_file(name).is_err(), "{name}");
            assert!(state.read(name, 100).is_err(), "{name}");
        }
        state.replace("new", b"x").unwrap();
        state.replace("link", b"x").unwrap();
        assert_eq!(fs::read_to_string(outside).unwrap(), "sentinel");
    }
}
