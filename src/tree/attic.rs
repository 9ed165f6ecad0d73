//! Where a root keeps what changes take away: [`Attic`].
//!
//! ```text
//! ROOT/.rfleet/attic/
//!     20261121T134500Z-4711/            what was in the way of a session's changes and was not expected
//!         as/in/the/root                with its attributes; directories on the way are 0700
//!     20261121T134500Z-4711.deleted/    what it deleted, as it was to
//!     20261121T134500Z-4711.replaced/   what it replaced, likewise; directories on the way are 1700
//!     sizes, .gone/                     see [`super::retire`]
//! ```
//!
//! What was not expected is kept by every session, and a change is not made where that fails. What was expected
//! is kept where [`Attic::keep_expected`] says so, as far as that works: a push does not fail for it.
//!
//! Entries come here by rename, so they keep everything that they have, cost no room and never leave
//! their filesystem. Nothing here is replaced: a name that is taken gets a number. A deleted directory is emptied
//! entry by entry before it goes, so it is made anew here and gets the attributes that it had: that tells it from
//! those on the way.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::geteuid;

use super::attributes::attributes_of;
use super::beneath::{Dir, Stat, errno};
use super::kept::measure;
use super::meta::{self, Hold, LocalMeta};
use super::stage::StageDir;
use crate::model::{MAX_NAME_BYTES, RESERVED_NAME, RelPath, session_time};

/// Below `.rfleet`.
pub(super) const ATTIC: &[u8] = b"attic";

/// How many names are tried for one entry. A session keeps a path again only when someone else
/// goes on writing there.
const MAX_NUMBER: u32 = 10_000;

/// The mode of a directory on the way to what is kept, which is of our making. Nobody gives a directory that
/// nobody else may enter the bit that keeps others from deleting in it.
const WAY_MODE: u32 = 0o1700;

/// Paths that are left out; of more, the rest is kept.
const MAX_LEFT_OUT: usize = 4_000_000;

/// Why something is in the attic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It was not what a change took to be there.
    Unexpected,
    /// It was deleted, as it was to be.
    Deleted,
    /// Something else took its place, as it was to be.
    Replaced,
}

impl Why {
    const ALL: [Why; 3] = [Why::Unexpected, Why::Deleted, Why::Replaced];

    const fn suffix(self) -> &'static str {
        match self {
            Why::Unexpected => "",
            Why::Deleted => ".deleted",
            Why::Replaced => ".replaced",
        }
    }

    /// Session and reason of a directory in the attic; `None` for a name that is no such directory's.
    pub(super) fn of(directory: &str) -> Option<(&str, Why)> {
        let why = Why::ALL.into_iter().rev().find(|why| directory.ends_with(why.suffix()))?;
        let session = &directory[..directory.len() - why.suffix().len()];
        session_time(session).map(|_| (session, why))
    }

    /// Whether `stat` is that of a directory that only leads to what is kept.
    pub(super) fn is_way(self, stat: &Stat) -> bool {
        stat.is_directory() && (self == Why::Unexpected || stat.permissions() == WAY_MODE)
    }
}

/// How much is kept: each name of a file counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptSize {
    /// Room that it takes, in bytes, directories apart.
    pub bytes: u64,
    /// Number of entries, directories included.
    pub entries: u64,
}

impl KeptSize {
    pub(super) fn of(stat: &Stat) -> Self {
        KeptSize { bytes: if stat.is_directory() { 0 } else { stat.allocated_bytes }, entries: 1 }
    }

    /// Adds `other` to it.
    pub fn add(&mut self, other: KeptSize) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.entries = self.entries.saturating_add(other.entries);
    }
}

/// The attic of one session. Made when something is first kept.
#[derive(Debug)]
pub struct Attic {
    /// `.rfleet`.
    pub(super) home: Dir,
    /// Where entries are looked at before they are kept.
    pub(super) stage: Arc<StageDir>,
    pub(super) session: String,
    corners: [Corner; 3],
    keeping: Option<Keeping>,
}

/// What one reason has put here.
#[derive(Debug, Default)]
struct Corner {
    top: Option<Arc<Dir>>,
    /// The directory used last, by its path in the root.
    last: Option<(Box<[u8]>, Arc<Dir>)>,
    size: KeptSize,
}

/// What is kept of the expected.
#[derive(Debug)]
struct Keeping {
    max_bytes: u64,
    keys: RandomState,
    left_out: HashSet<u64>,
    unkept: u64,
    reason: Option<String>,
    /// What it means that `max_bytes` are reached.
    full: &'static str,
}

/// Something in the attic.
pub(super) struct Kept {
    pub(super) dir: Arc<Dir>,
    pub(super) name: Vec<u8>,
}

impl Attic {
    /// `session` is one name, the same for everything that a session keeps.
    pub(super) fn new(home: Dir, stage: Arc<StageDir>, session: &str) -> Self {
        Attic { home, stage, session: session.to_owned(), corners: Default::default(), keeping: None }
    }

    /// From here on what is replaced or deleted as expected is kept, up to `max_bytes` of it.
    pub fn keep_expected(&mut self, max_bytes: u64) {
        let (keys, full) = (RandomState::new(), "it would be more than `[receive] attic_max`");
        self.keeping = Some(Keeping { max_bytes, keys, left_out: HashSet::new(), unkept: 0, reason: None, full });
    }

    /// From here on nothing more is kept of what is expected.
    pub fn keep_no_more(&mut self, reason: &'static str) {
        if let Some(keeping) = &mut self.keeping {
            (keeping.max_bytes, keeping.full) = (0, reason);
        }
    }

    /// Whether what is expected is kept, from now on.
    pub fn keeps_expected(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| keeping.max_bytes > 0)
    }

    /// What is at `path` is not worth keeping: it lives on under another name.
    pub fn leave_out(&mut self, path: &RelPath) {
        if let Some(keeping) = &mut self.keeping
            && keeping.left_out.len() < MAX_LEFT_OUT
        {
            keeping.left_out.insert(keeping.keys.hash_one(path.as_bytes()));
        }
    }

    /// The directory of what was not expected, as a path below the root; for messages.
    pub fn place(&self) -> String {
        format!("{}/{}/{}", RESERVED_NAME.escape_ascii(), ATTIC.escape_ascii(), self.session)
    }

    /// How many entries should have been kept and could not be, and why the first of them; `None` if there are none.
    pub fn unkept(&self) -> Option<(u64, &str)> {
        let keeping = self.keeping.as_ref().filter(|keeping| keeping.unkept > 0)?;
        Some((keeping.unkept, keeping.reason.as_deref().unwrap_or_default()))
    }

    /// What this session has put into each directory. `None`: more than is counted.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (String, Option<KeptSize>)> {
        let used = Why::ALL.into_iter().zip(&self.corners).filter(|(_, corner)| corner.top.is_some());
        used.map(|(why, corner)| {
            let size = (why != Why::Unexpected).then_some(corner.size);
            (format!("{}{}", self.session, why.suffix()), size)
        })
    }

    /// Entries that this session has kept though they were expected.
    pub(super) fn expected_entries(&self) -> u64 {
        self.corners.iter().map(|corner| corner.size.entries).sum()
    }

    fn is_kept(&self, path: &RelPath) -> bool {
        let left_out = |keeping: &Keeping| keeping.left_out.contains(&keeping.keys.hash_one(path.as_bytes()));
        self.keeping.as_ref().is_some_and(|keeping| keeping.left_out.is_empty() || !left_out(keeping))
    }

    /// Moves `name` in `from` here, under the path that it has in the root, since it was not expected.
    ///
    /// # Errors
    /// The operating system's; then it is where it was.
    pub(super) fn take(&mut self, from: &Dir, name: &[u8], path: &RelPath) -> io::Result<Kept> {
        self.put(path, Why::Unexpected, |dir, here| from.rename_to_nothing(name, dir, here))
    }

    /// As [`Attic::take`] for something expected, `there`. `None` if such is not kept.
    pub(super) fn keep(
        &mut self,
        from: &Dir,
        name: &[u8],
        path: &RelPath,
        there: &Stat,
        why: Why,
    ) -> Option<io::Result<Kept>> {
        self.keep_by(
            path,
            why,
            || if there.is_directory() { measure(from, name) } else { Ok(KeptSize::of(there)) },
            |dir, here| from.rename_to_nothing(name, dir, here),
        )
    }

    /// Keeps `name` in `from`, no directory, under a second name before something replaces it.
    pub(super) fn keep_by_link(&mut self, from: &Dir, name: &[u8], path: &RelPath) -> Option<io::Result<Kept>> {
        let size = || from.stat(name).map(|there| KeptSize::of(&there));
        self.keep_by(path, Why::Replaced, size, |dir, here| from.link(name, dir, here))
    }

    fn keep_by(
        &mut self,
        path: &RelPath,
        why: Why,
        size: impl FnOnce() -> io::Result<KeptSize>,
        way: impl Fn(&Dir, &[u8]) -> io::Result<()>,
    ) -> Option<io::Result<Kept>> {
        if !self.is_kept(path) {
            return None;
        }
        let size = match size() {
            Ok(size) => size,
            Err(error) => return Some(Err(error)),
        };
        let so_far: u64 = self.corners.iter().map(|corner| corner.size.bytes).sum();
        let keeping = self.keeping.as_ref()?;
        if keeping.max_bytes == 0 || keeping.max_bytes < so_far.saturating_add(size.bytes) {
            return Some(Err(io::Error::new(io::ErrorKind::QuotaExceeded, keeping.full)));
        }
        let kept = self.put(path, why, way);
        if kept.is_ok() {
            self.corners[why as usize].size.add(size);
        }
        Some(kept)
    }

    /// Counts what is gone and could not be kept.
    pub(super) fn note_unkept(&mut self, refused: Option<io::Error>) {
        if let (Some(keeping), Some(error)) = (&mut self.keeping, refused) {
            keeping.unkept += 1;
            keeping.reason.get_or_insert_with(|| error.to_string());
        }
    }

    /// The attributes of the directory `name` in `dir`, which is to be removed, if it is one to keep.
    pub(super) fn looks_of(&self, dir: &Dir, name: &[u8], path: &RelPath) -> Option<LocalMeta> {
        if !self.is_kept(path) {
            return None;
        }
        let stat = dir.stat(name).ok()?;
        let attributes = attributes_of(dir, name).unwrap_or_default().attributes;
        Some(LocalMeta::of(&stat, attributes))
    }

    /// Keeps the directory `path` that was removed, and looked so.
    pub(super) fn keep_directory(&mut self, path: &RelPath, looks: &LocalMeta) {
        let kept = self.directory(Why::Deleted, path.as_bytes()).and_then(|dir| {
            let now = dir.stat_self()?;
            // What cannot be set is not worth a word: its entries are kept.
            meta::set(Hold::Open(dir.as_fd()), &now, looks, true).map(drop)
        });
        let corner = &mut self.corners[Why::Deleted as usize];
        corner.last = None;
        match kept {
            Ok(()) => corner.size.entries += 1,
            Err(error) => self.note_unkept(Some(error)),
        }
    }

    fn put(&mut self, path: &RelPath, why: Why, way: impl Fn(&Dir, &[u8]) -> io::Result<()>) -> io::Result<Kept> {
        let (parent, wanted) = path.split_bytes().ok_or(Errno::INVAL)?;
        let dir = self.directory(why, parent)?;
        for number in 0..MAX_NUMBER {
            let here = numbered(wanted, number);
            let taken = way(&dir, &here);
            if errno(&taken) != Some(Errno::EXIST) {
                return taken.map(|()| Kept { dir, name: here });
            }
        }
        Err(Errno::EXIST.into())
    }

    /// The directory for what was in `parent`, made where it is missing.
    fn directory(&mut self, why: Why, parent: &[u8]) -> io::Result<Arc<Dir>> {
        if let Some((known, dir)) = &self.corners[why as usize].last
            && **known == *parent
        {
            return Ok(Arc::clone(dir));
        }
        let mut at = self.top(why)?;
        let mode = if why == Why::Unexpected { 0o700 } else { WAY_MODE };
        for name in parent.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            at = Arc::new(enter(&at, name, mode)?);
        }
        self.corners[why as usize].last = Some((parent.into(), Arc::clone(&at)));
        Ok(at)
    }

    fn top(&mut self, why: Why) -> io::Result<Arc<Dir>> {
        if let Some(top) = &self.corners[why as usize].top {
            return Ok(Arc::clone(top));
        }
        let attic = make_and_open(&self.home, ATTIC, 0o700)?;
        check_owner(&attic)?;
        let directory = format!("{}{}", self.session, why.suffix());
        let top = Arc::new(make_and_open(&attic, directory.as_bytes(), 0o700)?);
        Ok(Arc::clone(self.corners[why as usize].top.insert(top)))
    }
}

/// Refuses an attic of another user.
pub(super) fn check_owner(attic: &Dir) -> io::Result<()> {
    if attic.stat_self()?.uid == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "`.rfleet/attic` belongs to another user"))
}

/// The directory `name` in `at`, or one with a number where something else is kept under this name.
fn enter(at: &Dir, name: &[u8], mode: u32) -> io::Result<Dir> {
    for number in 0..MAX_NUMBER {
        let opened = make_and_open(at, &numbered(name, number), mode);
        if !matches!(errno(&opened), Some(Errno::NOTDIR | Errno::LOOP)) {
            return opened;
        }
    }
    Err(Errno::EXIST.into())
}

pub(super) fn make_and_open(at: &Dir, name: &[u8], mode: u32) -> io::Result<Dir> {
    let made = at.mkdir(name, mode);
    if !matches!(errno(&made), None | Some(Errno::EXIST)) {
        made?;
    }
    at.open_dir_same_mount(name)
}

/// `name` for 0, else `name.number`, cut so that it stays a name.
fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    if number == 0 {
        return name.to_vec();
    }
    let suffix = format!(".{number}");
    let mut numbered = name[..name.len().min(MAX_NAME_BYTES - suffix.len())].to_vec();
    numbered.extend_from_slice(suffix.as_bytes());
    numbered
}
