//! A local user who swaps what lies in a tree for something else, as fast as the machine allows: a process of its own under
//! another user, and a place outside the tree that it would like to lead others to.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, mknodat, renameat_with, utimensat};

use super::scratch::Scratch;

/// The local user.
pub const USER: u32 = 65_534;

/// What is in the file outside, and nowhere else.
pub const SECRET: &str = "SENTINEL-4f1c9d";

/// A name outside, and nowhere else.
pub const OUTSIDE_NAME: &str = "only-outside-4f1c9d";

/// Tells a process of this test binary that it is the local user, and what to do.
const TASK: &str = "RFLEET_TEST_FLIPPER";

/// What is swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flip {
    /// The directory `w/d` and a link to the place outside.
    Directory,
    /// The file `w/f` and a link to the file outside; its `.rfleetignore` and a link to another one.
    Leaf,
    /// The file `w/f`, a pipe, a directory and a hard link, in turn.
    Kind,
    /// The directory `w` that holds it all, and a link to the place outside.
    Above,
    /// `.rfleet` and a directory of the user's own, or a link.
    Home,
}

pub const FLIPS: [Flip; 5] = [Flip::Directory, Flip::Leaf, Flip::Kind, Flip::Above, Flip::Home];

/// What lies outside: its names are those of the tree, so that any of them can be led there.
pub struct Outside {
    pub path: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Outside {
    pub fn new(scratch: &Scratch, name: &str) -> Self {
        let path = scratch.dir(name);
        for dir in ["d", "d/sub", "sub", "made", "d/made"] {
            fs::create_dir_all(path.join(dir)).unwrap();
        }
        for file in ["secret", "d/secret", "f", "d/f", OUTSIDE_NAME, "d/only-outside-4f1c9d"] {
            fs::write(path.join(file), SECRET).unwrap();
            fs::set_permissions(path.join(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(path.join("ignore"), "told\n").unwrap();
        fs::set_permissions(path.join("ignore"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut outside = Self { path, before: BTreeMap::new() };
        outside.rearm();
        outside
    }

    /// Has every read show again: the time of access is older than any other.
    pub fn rearm(&mut self) {
        let old = Timespec { tv_sec: 1, tv_nsec: 0 };
        let keep = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        for path in self.state().into_keys() {
            let times = Timestamps { last_access: old, last_modification: keep };
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        self.before = self.state();
    }

    /// Names, and of each mode, owner, links and all times; no content is read for it.
    fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        let mut ahead = vec![self.path.clone()];
        while let Some(path) = ahead.pop() {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if found.is_dir() {
                ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            let [atime, mtime, ctime] = [found.atime(), found.mtime(), found.ctime()];
            let nanos = (found.mtime_nsec(), found.ctime_nsec());
            // Only files: directories are listed by this very function.
            let atime = if found.is_dir() { 0 } else { atime };
            let (mode, uid, gid, links) = (found.mode(), found.uid(), found.gid(), found.nlink());
            all.insert(path, format!("{mode:o} {uid}:{gid} {links} {} {atime} {mtime} {ctime} {nanos:?}", found.len()));
        }
        all
    }

    /// What is another than before; empty if nothing was touched.
    pub fn differences(&self) -> Vec<String> {
        let now = self.state();
        let mut lines = Vec::new();
        for (path, was) in &self.before {
            match now.get(path) {
                Some(is) if is == was => {}
                is => lines.push(format!("{}: {was} -> {is:?}", path.display())),
            }
        }
        lines
            .extend(now.keys().filter(|path| !self.before.contains_key(*path)).map(|new| format!("{}", new.display())));
        lines
    }

    pub fn assert_untouched(&self, what: &str) {
        let differences = self.differences();
        assert!(differences.is_empty(), "{what}: something outside was touched or read:\n{}", differences.join("\n"));
    }
}

/// Makes a tree of the local user's in `root`, with all that is swapped in it.
pub fn tree(root: &Path, outside: &Path) {
    let at = |name: &str| root.join(name);
    for dir in ["w", "w/d", "w/d/sub", "w/q", "home"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for file in ["w/f", "w/d/secret", "w/d/f", "told", "w/told"] {
        fs::write(at(file), "inside").unwrap();
    }
    fs::write(at("w/ignore"), "nothing\n").unwrap();
    symlink(outside, at("w/e")).unwrap();
    symlink(outside, at("v")).unwrap();
    symlink(outside, at("home-link")).unwrap();
    symlink(outside.join("secret"), at("w/l")).unwrap();
    symlink(outside.join("ignore"), at("w/ignore-link")).unwrap();
    mknodat(CWD, at("w/p"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        std::os::unix::fs::lchown(&path, Some(USER), Some(USER)).unwrap();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    chown(root, Some(USER), Some(USER)).unwrap();
}

/// The process of the local user; it ends with this.
pub struct Flipper {
    child: Child,
}

impl Flipper {
    /// Starts it for `root`. `test` is the name of the running test, which calls [`be_flipper`] first of all.
    pub fn start(test: &str, root: &Path, flip: Flip) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", test, "--nocapture"]).env(TASK, format!("{flip:?}")).current_dir(root);
        command.uid(USER).gid(USER).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap() }
    }

    pub fn assert_alive(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the flipper has ended");
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process is the local user's; then it has done its work when this returns.
pub fn be_flipper() -> bool {
    let Ok(task) = std::env::var(TASK) else { return false };
    let flip = FLIPS.into_iter().find(|flip| format!("{flip:?}") == task).expect("a task that is known");
    // Whoever started this holds the other end.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    loop {
        swap(flip);
    }
}

/// What is not there just now is so at the next round: others work in the tree as well.
fn exchange(one: &str, other: &str) {
    let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
}

fn swap(flip: Flip) {
    match flip {
        Flip::Directory => exchange("w/d", "w/e"),
        Flip::Leaf => {
            exchange("w/f", "w/l");
            exchange("w/d/secret", "w/l");
            exchange("w/.rfleetignore", "w/ignore-link");
        }
        Flip::Kind => {
            for other in ["w/p", "w/q", "w/h", "w/l"] {
                exchange("w/f", other);
            }
            exchange("w/d/made", "w/p");
            exchange("w/d/secret", "w/q");
            // A second name of a file of one's own.
            let _ = fs::remove_file("w/h");
            let _ = fs::hard_link("told", "w/h");
        }
        Flip::Above => exchange("w", "v"),
        Flip::Home => {
            exchange(".rfleet", "home");
            exchange(".rfleet", "home-link");
        }
    }
}
