//! What a directory shows of itself: the part of a listing that any thread can do, since nothing is judged in it.
//!
//! Costs one `getdents` a buffer and one `fstatat` an entry; the kind that `getdents` hints at is not used for anything.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, FileType, major, minor, readlinkat, statat};
use rustix::io::Errno;

use super::beneath::{Dir, Stat};
use super::way::read_rules;
use crate::model::{Kind, Name, Node, RESERVED_NAME, Seen, SpecialKind};

/// Entries of a thousand-file directory fit; larger gains nothing measurable.
const LIST_BUFFER_BYTES: usize = 64 * 1024;

/// Tries to get one answer about an entry that keeps changing.
const TRIES: usize = 3;

/// Where names are read to; kept between directories.
pub(super) type ListBuffer = Vec<MaybeUninit<u8>>;

/// A fresh [`ListBuffer`].
pub(super) fn list_buffer() -> ListBuffer {
    vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES]
}

/// A directory, and what was read of it so far.
#[derive(Debug)]
pub(super) struct Shown {
    /// The directory.
    pub(super) dir: Dir,
    /// What it is itself.
    pub(super) stat: Stat,
    /// The text of its file of patterns, where they count and it has one.
    pub(super) rules: Option<Vec<u8>>,
    /// What it holds, as far as it was read and not taken out again; sorted by name if read in one piece.
    pub(super) entries: Vec<Seen>,
    /// Entries of which it is not known what they are.
    pub(super) unknown: Vec<(Name, Errno)>,
    /// Whether the reserved name was met, which is no entry.
    pub(super) has_reserved: bool,
    /// Whether this was all.
    pub(super) is_whole: bool,
}

impl Shown {
    /// Takes a directory that was opened to be listed; of its entries nothing is read yet.
    ///
    /// # Errors
    /// The operating system's, or its patterns are to be read and cannot be used.
    pub(super) fn of(dir: Dir, with_rules: bool) -> io::Result<Self> {
        let stat = dir.stat_self()?;
        let rules = if with_rules { read_rules(&dir)? } else { None };
        let (entries, unknown) = (Vec::new(), Vec::new());
        Ok(Shown { dir, stat, rules, entries, unknown, has_reserved: false, is_whole: false })
    }

    /// Reads the next piece, as much as `buffer` takes names, or finds that there is none. What vanishes while it is
    /// looked at is left out.
    ///
    /// # Errors
    /// The operating system's; what was read before is not all then.
    pub(super) fn read_on(&mut self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<()> {
        let (dir, entries, unknown) = (&self.dir, &mut self.entries, &mut self.unknown);
        let before = entries.len();
        let more = dir.next_names(buffer, &mut |name| {
            if name.to_bytes() == RESERVED_NAME {
                self.has_reserved = true;
                return Ok(());
            }
            match seen(dir, name) {
                Ok(seen) => entries.push(seen),
                Err(Errno::NOENT) => {}
                Err(errno) => unknown.push((name.to_bytes().into(), errno)),
            }
            Ok(())
        })?;
        // Here and not only when all is there, so that no thread but the one that reads pays for it.
        entries[before..].sort_unstable_by(|a, b| a.node.name.cmp(&b.node.name));
        self.is_whole = !more;
        Ok(())
    }

    /// Whether all that was read was taken out.
    pub(super) fn has_no_more(&self) -> bool {
        self.entries.is_empty() && self.unknown.is_empty() && !self.has_reserved
    }

    /// About what it takes in memory, in bytes.
    pub(super) fn room_bytes(&self) -> usize {
        let targets = self.entries.iter().map(|seen| match &seen.node.kind {
            Kind::Symlink { target } => target.len(),
            _ => 0,
        });
        let each = size_of::<Seen>() * self.entries.len() + size_of::<(Name, Errno)>() * self.unknown.len();
        size_of::<Self>() + each + targets.sum::<usize>() + self.rules.as_ref().map_or(0, Vec::len)
    }
}

/// What `name` is, by its inode; looks again when it becomes something else in the middle.
pub(super) fn seen(dir: &Dir, name: &CStr) -> Result<Seen, Errno> {
    let mut tries = TRIES;
    loop {
        let stat = Stat::from(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?);
        let kind = match stat.file_type() {
            FileType::RegularFile => Kind::file(stat.size_bytes),
            FileType::Directory => Kind::Directory,
            FileType::Symlink => match readlinkat(dir, name, Vec::new()) {
                Ok(target) => Kind::Symlink { target: target.into_bytes().into() },
                Err(Errno::INVAL) if tries > 1 => {
                    tries -= 1;
                    continue;
                }
                Err(errno) => return Err(errno),
            },
            FileType::Fifo => Kind::Special(SpecialKind::Fifo),
            FileType::Socket => Kind::Special(SpecialKind::Socket),
            FileType::CharacterDevice => {
                Kind::Special(SpecialKind::CharDevice { major: major(stat.rdev), minor: minor(stat.rdev) })
            }
            FileType::BlockDevice => {
                Kind::Special(SpecialKind::BlockDevice { major: major(stat.rdev), minor: minor(stat.rdev) })
            }
            FileType::Unknown => return Err(Errno::INVAL),
        };
        let node = Node { name: name.to_bytes().into(), kind, meta: stat.meta() };
        return Ok(Seen { node, inode: stat.inode() });
    }
}
