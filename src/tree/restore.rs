//! Copies of what the attic keeps, made where they can be placed from: [`Staging::copy_kept`].
//!
//! A copy, so that the attic keeps its own until it expires, whatever is done with the one that was restored.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode, SeekFrom};
use rustix::io::Errno;

use super::attic::Why;
use super::attributes::attributes_of;
use super::beneath::{Dir, LIST, NAME_ANY, Parents, Root, Stat};
use super::dispose;
use super::kept::sorted_names;
use super::meta::{self, Hold, LocalMeta, Shortfall};
use super::stage::{Staged, StagedKind, Staging, private_stage};
use crate::model::RelPath;

/// What is read and written at a time, in bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// What could not be set, of how many entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreShort {
    /// Owner or group.
    pub owners: u64,
    /// Extended attributes: of the first, which and why.
    pub attribute: Option<String>,
}

impl Staging {
    /// Makes a copy of what `kept`, a session's directory in the attic, has at `path`: a file, a link, a pipe, or a
    /// directory with everything in it. Files that share their content there share it in the copy.
    ///
    /// # Errors
    /// The operating system's; then nothing is left of it.
    pub fn copy_kept(&self, kept: &Root, path: &RelPath, why: Why) -> io::Result<(Staged, RestoreShort)> {
        let name = self.stage.fresh_name();
        // From here on it goes if anything fails.
        let entry = self.entry(name.clone());
        let (stat, short) = copy(kept, path, why, &self.stage.dir, &name)?;
        let kind = if stat.is_directory() { StagedKind::Directory } else { StagedKind::File };
        Ok((Staged { entry, kind, short: Shortfall::default() }, short))
    }
}

/// As [`Staging::copy_kept`], to `name` in `dest`, a directory anywhere, where nothing may be.
///
/// # Errors
/// `AlreadyExists` if something is, else the operating system's; then nothing is left of it.
pub fn copy_kept_to(kept: &Root, path: &RelPath, why: Why, dest: &Root, name: &[u8]) -> io::Result<RestoreShort> {
    let dest = dest.dir(&RelPath::root())?;
    if dispose::exists(&dest, name)? {
        return Err(Errno::EXIST.into());
    }
    let own = format!(".rfleet-restore-{}", std::process::id()).into_bytes();
    dest.mkdir(&own, 0o700)?;
    let done = || {
        let stage = Arc::new(private_stage(dest.open_dir_same_mount(&own)?)?);
        let copied = copy(kept, path, why, &stage.dir, b"0").and_then(|(_, short)| {
            stage.dir.rename_to_nothing(b"0", &dest, name)?;
            fs::syncfs(&dest)?;
            Ok(short)
        });
        dispose::remove_all(&stage.dir, &mut || stage.fresh_name())?;
        copied
    };
    let copied = done();
    dest.rmdir(&own)?;
    copied
}

/// The attributes of a directory that led to `path` in the attic, if it was kept itself, and what to give one that
/// is made anew otherwise.
///
/// # Errors
/// The operating system's.
pub fn directory_looks(kept: &Root, path: &RelPath, why: Why, above: &Stat) -> io::Result<LocalMeta> {
    let (dir, name) = parent_of(kept, path)?;
    let stat = dir.stat(name)?;
    if stat.is_directory() && !why.is_way(&stat) {
        return looks_of(&dir, name, &stat);
    }
    let mode = above.permissions() & 0o7777;
    Ok(LocalMeta { mode, uid: Some(above.uid), gid: Some(above.gid), mtime: stat.mtime, ..LocalMeta::default() })
}

fn parent_of<'p>(root: &Root, path: &'p RelPath) -> io::Result<(Arc<Dir>, &'p [u8])> {
    Parents::new(root).parent(path)
}

/// Copies what `kept` has at `path` to `name` in `to`, where nothing is and nobody else can look.
fn copy(kept: &Root, path: &RelPath, why: Why, to: &Dir, name: &[u8]) -> io::Result<(Stat, RestoreShort)> {
    let mut copying = Copying { short: RestoreShort::default(), linked: HashMap::new() };
    let (from, kept_name) = parent_of(kept, path)?;
    let stat = from.stat(kept_name)?;
    if !stat.is_directory() {
        copying.leaf(&from, kept_name, &stat, to, name)?;
        return Ok((stat, copying.short));
    }
    to.mkdir(name, 0o700)?;
    let copied = Root::held(to.open_dir(name)?.fd, "".as_ref());
    let within = Root::held(from.open(kept_name, LIST)?, "".as_ref());
    let mut ahead = vec![RelPath::root()];
    let mut made = vec![];
    while let Some(path) = ahead.pop() {
        let (source, target) = (within.dir(&path)?, copied.dir(&path)?);
        for name in sorted_names(&source)? {
            let child = path.join(&name).map_err(|_| Errno::NAMETOOLONG)?;
            let stat = source.stat(&name)?;
            if stat.is_directory() {
                target.mkdir(&name, 0o700)?;
                ahead.push(child);
            } else {
                copying.leaf_of(&source, &stat, &child, &copied, &target)?;
            }
        }
        made.push(path);
    }
    // Above what they hold, and after it.
    for path in made.into_iter().rev() {
        let (dir, name) = if path.is_root() { (Arc::clone(&from), kept_name) } else { parent_of(&within, &path)? };
        let stat = dir.stat(name)?;
        let mut looks = looks_of(&dir, name, &stat)?;
        if why.is_way(&stat) {
            looks.mode = 0o755;
        }
        let target = copied.dir(&path)?;
        let set = meta::set(Hold::Open(target.as_fd()), &target.stat_self()?, &looks, true)?;
        copying.note(set);
    }
    Ok((stat, copying.short))
}

struct Copying {
    short: RestoreShort,
    /// Where in the copy the first name of a file with several names is.
    linked: HashMap<(u64, u64), RelPath>,
}

impl Copying {
    /// Copies one entry of a directory, or makes it a further name of what was copied already.
    fn leaf_of(&mut self, from: &Dir, stat: &Stat, path: &RelPath, copied: &Root, to: &Dir) -> io::Result<()> {
        let name = path.name();
        if stat.nlink > 1 && stat.is_file() {
            if let Some(first) = self.linked.get(&(stat.dev, stat.ino)) {
                let (dir, first) = parent_of(copied, first)?;
                return dir.link(first, to, name);
            }
            self.linked.insert((stat.dev, stat.ino), path.clone());
        }
        self.leaf(from, name, stat, to, name)
    }

    fn leaf(&mut self, from: &Dir, name: &[u8], stat: &Stat, to: &Dir, to_name: &[u8]) -> io::Result<()> {
        let looks = looks_of(from, name, stat)?;
        let set = match stat.file_type() {
            FileType::RegularFile => {
                let (mut source, _) = from.open_file(name)?;
                let mut file = to.create_file(to_name, 0o600)?;
                copy_content(&mut source, &mut file, stat.size_bytes)?;
                meta::set(Hold::Open(file.as_fd()), &Stat::of(&file)?, &looks, true)?
            }
            FileType::Symlink => {
                to.symlink(&from.read_link(name)?, to_name)?;
                set_named(to, to_name, &looks)?
            }
            kind => {
                fs::mknodat(to, to_name, kind, Mode::RUSR | Mode::WUSR, stat.rdev)?;
                set_named(to, to_name, &looks)?
            }
        };
        self.note(set);
        Ok(())
    }

    fn note(&mut self, set: Shortfall) {
        self.short.owners += u64::from(set.owner);
        self.short.attribute = self.short.attribute.take().or(set.attribute);
    }
}

fn set_named(dir: &Dir, name: &[u8], looks: &LocalMeta) -> io::Result<Shortfall> {
    let named = dir.open(name, NAME_ANY)?;
    meta::set(Hold::Named(named.as_fd()), &Stat::from(fs::fstat(&named)?), looks, true)
}

fn looks_of(dir: &Dir, name: &[u8], stat: &Stat) -> io::Result<LocalMeta> {
    Ok(LocalMeta::of(stat, attributes_of(dir, name)?.attributes))
}

/// Copies what is data, and leaves what is a hole one.
fn copy_content(source: &mut File, target: &mut File, size_bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size_bytes {
        let (start, end) = match fs::seek(&*source, SeekFrom::Data(at)) {
            Ok(start) => (start, fs::seek(&*source, SeekFrom::Hole(start))?),
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            // The filesystem tells of no holes.
            Err(Errno::INVAL) => (at, size_bytes),
            Err(errno) => return Err(errno.into()),
        };
        let mut piece = start;
        fs::seek(&*source, SeekFrom::Start(start))?;
        fs::seek(&*target, SeekFrom::Start(start))?;
        while piece < end {
            let copied = io::copy(&mut source.take(PIECE_BYTES.min(end - piece)), target)?;
            if copied == 0 {
                break;
            }
            piece += copied;
        }
        at = end;
    }
    target.flush()?;
    target.set_len(size_bytes)
}
