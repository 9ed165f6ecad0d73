//! What the tests of this module share.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::{LocalMeta, Over, Root};
use crate::model::{RelPath, Timestamp};

/// A root with an outside next to it that nothing may touch.
pub struct Fixture {
    pub root: Root,
    pub path: PathBuf,
    pub outside: PathBuf,
    _dir: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = TempDir::new_in(place).unwrap();
        let (path, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "sentinel").unwrap();
        Fixture { root: Root::open(&path).unwrap(), path, outside, _dir: dir }
    }

    /// `a/` is a directory, `a=text` a file with this text, `a>target` a symbolic link.
    pub fn with(entries: &[&str]) -> Self {
        let fixture = Self::new();
        for entry in entries {
            let at = |name: &str| fixture.path.join(name);
            if let Some((name, text)) = entry.split_once('=') {
                fs::write(at(name), text).unwrap();
            } else if let Some((name, target)) = entry.split_once('>') {
                symlink(target, at(name)).unwrap();
            } else {
                fs::create_dir(at(entry)).unwrap();
            }
        }
        fixture
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap()
    }

    /// Names in the root, sorted, `.rfleet` included.
    pub fn names(&self) -> Vec<String> {
        names(&self.path)
    }

    pub fn assert_outside_untouched(&self) {
        assert_eq!(names(&self.outside), ["secret"]);
        assert_eq!(fs::read_to_string(self.outside.join("secret")).unwrap(), "sentinel");
    }
}

pub fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn path(name: &str) -> RelPath {
    RelPath::new_or_root(name.as_bytes()).unwrap()
}

pub fn meta(mode: u32, secs: i64) -> LocalMeta {
    LocalMeta { mode, mtime: Timestamp { secs, nanos: 123_456_789 }, ..LocalMeta::default() }
}

/// In the place of anything that is no directory.
pub const OVER_LEAVES: Over<'static> = Over { expected: &|_| true, directory: None };

/// In the place of anything.
pub const OVER_ALL: Over<'static> = Over { expected: &|_| true, directory: Some(u64::MAX) };

/// Swaps two names for as long as it lives.
pub fn flip_while<T>(one: &Path, other: &Path, work: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(
                    CWD,
                    one.as_os_str().as_bytes(),
                    CWD,
                    other.as_os_str().as_bytes(),
                    RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        });
        let _stop = Stop(&stop);
        work()
    })
}

/// Runs the test `name` again as an unprivileged user if this is root's process: `true` means
/// that this is the process to do the test in.
pub fn is_unprivileged(name: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let status = Command::new("/proc/self/exe")
        .args(["--exact", name, "--nocapture"])
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&status.stdout).into_owned() + &String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success() && told.contains("1 passed"), "{told}");
    false
}
