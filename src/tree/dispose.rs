//! Recursive removal inside the private staging directory.
//!
//! Entries are not removed where they lie deep in a tree: each directory that is found is renamed
//! up into the staging directory and emptied there. So the depth of a tree costs neither handles
//! nor stack, no link is ever followed (each step takes one name in a held directory), and no
//! mount is crossed, because a rename does not cross one.

use std::io;
use std::mem::MaybeUninit;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::beneath::{Dir, NAME_DIR};
use super::meta::loosen;

const LIST_BUFFER_BYTES: usize = 32 * 1024;

/// How many names of a directory are held at a time, so that a million of them cost no memory.
const NAMES_AT_ONCE: usize = 4096;

/// Removes `name`, whatever it is, from `stage`. `fresh` gives names that are unused there.
pub(super) fn remove(stage: &Dir, name: &[u8], fresh: &mut dyn FnMut() -> Vec<u8>) -> io::Result<()> {
    remove_some(stage, name, fresh, &mut u64::MAX.clone())
}

/// As [`remove`], but ends when `budget`, a number of entries, is used up. Then what is left of `name` lies in
/// `stage`, some of it under fresh names.
pub(super) fn remove_some(
    stage: &Dir,
    name: &[u8],
    fresh: &mut dyn FnMut() -> Vec<u8>,
    budget: &mut u64,
) -> io::Result<()> {
    let mut ahead = vec![name.to_vec()];
    let mut failed = None;
    while let Some(name) = ahead.pop() {
        if *budget == 0 {
            break;
        }
        if let Err(error) = remove_one(stage, &name, fresh, &mut ahead, budget) {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes everything from `stage`.
pub(super) fn remove_all(stage: &Dir, fresh: &mut dyn FnMut() -> Vec<u8>) -> io::Result<()> {
    let mut failed = None;
    for name in names(stage)? {
        if let Err(error) = remove(stage, &name, fresh) {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

fn remove_one(
    stage: &Dir,
    name: &[u8],
    fresh: &mut dyn FnMut() -> Vec<u8>,
    ahead: &mut Vec<Vec<u8>>,
    budget: &mut u64,
) -> io::Result<()> {
    *budget = budget.saturating_sub(1);
    match errno_of(stage.unlink(name)) {
        None | Some(Errno::NOENT) => return Ok(()),
        // POSIX has EPERM for a directory, Linux EISDIR.
        Some(Errno::ISDIR | Errno::PERM) => {}
        Some(errno) => return Err(errno.into()),
    }
    let dir = open_forced(stage, name)?;
    loop {
        let mut progress = false;
        for child in first_names(&dir, NAMES_AT_ONCE)? {
            if *budget == 0 {
                return Ok(());
            }
            *budget -= 1;
            match errno_of(dir.unlink(&child)) {
                None => progress = true,
                Some(Errno::NOENT) => {}
                Some(Errno::ISDIR | Errno::PERM) => {
                    ahead.push(lift(&dir, &child, stage, fresh)?);
                    progress = true;
                }
                Some(errno) => return Err(errno.into()),
            }
        }
        if !progress {
            return stage.rmdir(name);
        }
    }
}

/// Renames the directory `child` up into `stage`; its name there.
fn lift(dir: &Dir, child: &[u8], stage: &Dir, fresh: &mut dyn FnMut() -> Vec<u8>) -> io::Result<Vec<u8>> {
    let name = fresh();
    match errno_of(dir.rename(child, stage, &name)) {
        None => Ok(name),
        // To move a directory is to write its `..`, for which its own mode must allow writing.
        Some(Errno::ACCESS) => {
            loosen(dir.open(child, NAME_DIR)?)?;
            dir.rename(child, stage, &name)?;
            Ok(name)
        }
        Some(errno) => Err(errno.into()),
    }
}

/// Opens a directory to empty it, taking the rights for it where its mode withholds them.
fn open_forced(stage: &Dir, name: &[u8]) -> io::Result<Dir> {
    let needs = 0o700;
    if let Ok(stat) = stage.stat(name)
        && stat.permissions() & needs != needs
    {
        // A failure shows again at the open.
        let _ = stage.open(name, NAME_DIR).and_then(loosen);
    }
    stage.open_dir_same_mount(name)
}

/// All names in `dir`.
pub(super) fn names(dir: &Dir) -> io::Result<Vec<Vec<u8>>> {
    first_names(dir, usize::MAX)
}

/// At most `most` of the names in `dir`.
fn first_names(dir: &Dir, most: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES];
    let mut names = Vec::new();
    let listed = dir.each_name(&mut buffer, &mut |name| {
        if names.len() == most {
            return Err(io::ErrorKind::Interrupted.into());
        }
        names.push(name.to_bytes().to_vec());
        Ok(())
    });
    if names.len() < most {
        listed?;
    }
    Ok(names)
}

/// Number of the entries in `dir`, and the names of the directories among them.
pub(super) fn entries_and_directories(dir: &Dir) -> io::Result<(usize, Vec<Vec<u8>>)> {
    let mut names = names(dir)?;
    let entries = names.len();
    names.retain(|name| dir.stat(name).is_ok_and(|stat| stat.is_directory()));
    Ok((entries, names))
}

fn errno_of(result: io::Result<()>) -> Option<Errno> {
    result.err().map(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Whether the entry exists, following nothing.
pub(super) fn exists(dir: &Dir, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
