//! File events of a tree, from inotify, by handle.
//!
//! An event only says where to look; what is there is found by looking. Each directory is watched through the handle
//! it is listed by, so nothing that is swapped in on the way to it leads a watch out of the tree. The kernel counts
//! watches by inode: a directory that is renamed keeps its watch, and gets its new path here when it is watched again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::beneath::Dir;
use crate::model::{RESERVED_NAME, RelPath};

/// Room for a few hundred events a call.
const BUFFER_BYTES: usize = 64 << 10;

const WANTED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// What happened at a path, as far as it bears on when to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// Attributes changed, or the number of its names.
    Attributes,
    /// It was made, or is being written.
    Writing,
    /// Whoever wrote it has closed it, or it was renamed to here, or it is gone: this is over.
    Complete,
    /// A directory came to be here, with whatever it holds.
    Directory,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// Something happened at this path.
    At(RelPath, Happening),
    /// Events were lost, or a filesystem went away: anything may have happened.
    Lost,
}

/// Why a directory is not watched.
#[derive(Debug)]
pub enum WatchError {
    /// The user's limit of watches is reached.
    Limit,
    /// Another reason.
    Failed(io::Error),
}

/// Watches the directories of a tree.
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    paths: HashMap<i32, RelPath>,
    numbers: BTreeMap<RelPath, i32>,
}

impl Watcher {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The operating system's, as where the user has too many instances.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Watcher { inotify, tables: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the directory `dir`, which is at `path`. To be called before it is listed.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn add(&self, dir: &Dir, path: &RelPath) -> Result<(), WatchError> {
        // Held until the number has its path, or an event would find none.
        let mut tables = self.lock();
        let handle = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        let number = inotify::add_watch(&self.inotify, handle, WANTED).map_err(|errno| match errno {
            Errno::NOSPC => WatchError::Limit,
            errno => WatchError::Failed(errno.into()),
        })?;
        if let Some(before) = tables.paths.insert(number, path.clone())
            && before != *path
        {
            // It was renamed; what has its place by now is watched under another number.
            if tables.numbers.get(&before) == Some(&number) {
                tables.numbers.remove(&before);
            }
        }
        if let Some(before) = tables.numbers.insert(path.clone(), number)
            && before != number
        {
            tables.paths.remove(&before);
            self.drop_watch(before);
        }
        Ok(())
    }

    /// Stops watching `path` and all below it, which are gone.
    pub fn forget(&self, path: &RelPath) {
        let mut tables = self.lock();
        let below = tables.numbers.range((Bound::Included(path.clone()), Bound::Unbounded));
        let below = below.take_while(|(one, _)| *one == path || one.is_below(path));
        let gone: Vec<(RelPath, i32)> = below.map(|(path, number)| (path.clone(), *number)).collect();
        for (path, number) in gone {
            tables.numbers.remove(&path);
            tables.paths.remove(&number);
            self.drop_watch(number);
        }
    }

    fn drop_watch(&self, number: i32) {
        // What is deleted is no longer watched: that is no error.
        let _ = inotify::remove_watch(&self.inotify, number);
    }

    /// Waits until there are events, at most `time`; whether there are.
    ///
    /// # Errors
    /// The operating system's.
    pub fn wait(&self, time: Duration) -> io::Result<bool> {
        let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&time)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Directories that are watched.
    pub fn directories(&self) -> usize {
        self.lock().numbers.len()
    }

    /// Takes all events that are there, without waiting.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read(&self, visit: &mut dyn FnMut(Noticed)) -> io::Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    if let Some(noticed) = self.understand(&event) {
                        visit(noticed);
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn understand(&self, event: &inotify::Event<'_>) -> Option<Noticed> {
        let what = event.events();
        if what.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
            return Some(Noticed::Lost);
        }
        let mut tables = self.lock();
        if what.contains(ReadFlags::IGNORED) {
            if let Some(path) = tables.paths.remove(&event.wd())
                && tables.numbers.get(&path) == Some(&event.wd())
            {
                tables.numbers.remove(&path);
            }
            return None;
        }
        let dir = tables.paths.get(&event.wd())?;
        let path = match event.file_name().map(std::ffi::CStr::to_bytes) {
            None | Some(b"") => dir.clone(),
            Some(RESERVED_NAME) => return None,
            // A name that cannot be sent is a problem of its directory, which a scan reports.
            Some(name) => dir.join(name).ok()?,
        };
        Some(Noticed::At(path, happening(what)))
    }
}

fn happening(what: ReadFlags) -> Happening {
    let arrived = ReadFlags::CREATE | ReadFlags::MOVED_TO;
    if what.contains(ReadFlags::ISDIR) && what.intersects(arrived) {
        Happening::Directory
    } else if what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM | ReadFlags::DELETE)
    {
        Happening::Complete
    } else if what.intersects(ReadFlags::CREATE | ReadFlags::MODIFY) {
        Happening::Writing
    } else {
        Happening::Attributes
    }
}

/// Filesystems that other hosts write to as well, or that a program makes up: by their magic numbers (statfs(2)).
const NETWORK: [(u32, &str); 14] = [
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x786F_4256, "vboxsf"),
];

/// What kind of filesystem `path` lies on, if it is one whose changes are not all told here.
pub fn network_filesystem(path: &Path) -> Option<&'static str> {
    // The lowest 32 bits: the field has another width on each architecture.
    let magic = rustix::fs::statfs(path).ok()?.f_type as u64 & 0xFFFF_FFFF;
    NETWORK.iter().find(|(number, _)| u64::from(*number) == magic).map(|(_, name)| *name)
}

/// The bound on watches of this user, for messages; `None` where it cannot be read.
pub fn watch_limit() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Root;
    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        root: Root,
        watcher: Watcher,
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let root = Root::open(directory.path()).unwrap();
            let place = Place { directory, root, watcher: Watcher::new().unwrap() };
            place.watch("");
            place
        }

        fn watch(&self, at: &str) {
            let path = if at.is_empty() { RelPath::root() } else { path(at) };
            self.watcher.add(&self.root.dir(&path).unwrap(), &path).unwrap();
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(name)
        }

        fn noticed(&self) -> Vec<Noticed> {
            let mut all = Vec::new();
            self.watcher.read(&mut |one| all.push(one)).unwrap();
            all.dedup();
            all
        }
    }

    #[test]
    fn what_happens_is_noticed_at_its_path() {
        let place = Place::new();
        std::fs::write(place.at("f"), "x").unwrap();
        std::fs::create_dir(place.at("d")).unwrap();
        let at = |name, how| Noticed::At(path(name), how);
        let expected = [at("f", Happening::Writing), at("f", Happening::Complete), at("d", Happening::Directory)];
        assert_eq!(place.noticed(), expected);
        std::fs::File::open(place.at("f")).unwrap();
        assert_eq!(place.noticed(), [], "a look is no change");
        std::fs::rename(place.at("f"), place.at("g")).unwrap();
        assert_eq!(place.noticed(), [at("f", Happening::Complete), at("g", Happening::Complete)]);
        std::fs::create_dir(place.at(".rfleet")).unwrap();
        assert_eq!(place.noticed(), [], "the reserved name is nobody's business");
    }

    #[test]
    fn a_renamed_directory_is_known_by_its_new_path_however_it_is_told() {
        for forgets_first in [true, false] {
            let place = Place::new();
            std::fs::create_dir_all(place.at("a/below")).unwrap();
            ["a", "a/below"].iter().for_each(|dir| place.watch(dir));
            place.noticed();
            std::fs::rename(place.at("a"), place.at("b")).unwrap();
            if forgets_first {
                place.watcher.forget(&path("a"));
            }
            ["b", "b/below"].iter().for_each(|dir| place.watch(dir));
            if !forgets_first {
                place.watcher.forget(&path("a"));
            }
            place.noticed();
            std::fs::write(place.at("b/below/f"), "").unwrap();
            let seen = place.noticed();
            assert!(seen.contains(&Noticed::At(path("b/below/f"), Happening::Complete)), "{seen:?}");
            assert_eq!(place.watcher.directories(), 3);
        }
    }

    #[test]
    fn what_is_gone_is_no_longer_watched() {
        let place = Place::new();
        std::fs::create_dir_all(place.at("a/b")).unwrap();
        ["a", "a/b"].iter().for_each(|dir| place.watch(dir));
        std::fs::remove_dir_all(place.at("a")).unwrap();
        place.noticed();
        assert_eq!(place.watcher.directories(), 1);
    }

    #[test]
    fn a_local_filesystem_is_none_of_the_network() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(network_filesystem(directory.path()), None);
        assert_eq!(network_filesystem(Path::new("/proc")), None);
    }

    #[test]
    fn too_much_at_once_is_told_as_lost() {
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        let place = Place::new();
        for number in 0..limit {
            std::fs::write(place.at(&format!("f{}", number % 50)), "x").unwrap();
        }
        assert!(place.noticed().contains(&Noticed::Lost));
    }
}
