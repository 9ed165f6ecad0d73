//! Looks at single paths, for whoever knows where something happened.
//!
//! What is left out goes by the last scan, which a look never overrules: where it would have to, a scan is needed.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;

use rustix::io::Errno;

use super::beneath::{Dir, Root};
use super::selection::{IGNORE_FILE, Scope};
use super::shown::seen;
use crate::model::{Name, RESERVED_NAME, RelPath, Seen};

/// The directory that filesystems make for their own repair; what it is to a tree is decided by a scan.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// What a look found.
#[derive(Debug)]
pub enum Glimpse {
    /// Each name with what is there now.
    Names(Vec<(Name, Option<Seen>)>),
    /// The directory is not there.
    Gone,
    /// What is there, or what became of it, takes a scan of the tree.
    TakesScan,
}

/// Looks at `names` in the directory `path`. `scope` is what the last scan left out.
pub fn glance(root: &Root, path: &RelPath, names: &BTreeSet<Name>, scope: &Scope) -> Glimpse {
    if !path.is_root() && (scope.excludes(path, true) || scope.is_aside(path)) {
        return Glimpse::Names(Vec::new());
    }
    let opened = root.dir(path).and_then(|dir| Ok((dir.stat_self()?.dev, dir)));
    let (dev, dir) = match opened {
        Ok(opened) => opened,
        Err(error) if is_gone(&error) => return Glimpse::Gone,
        Err(_) => return Glimpse::TakesScan,
    };
    let looked = names.iter().filter(|name| ***name != *RESERVED_NAME);
    let looked = looked.map(|name| Some((name.clone(), look(&dir, dev, path, name, scope).ok()?)));
    looked.collect::<Option<Vec<_>>>().map_or(Glimpse::TakesScan, Glimpse::Names)
}

/// Only a scan can say what follows.
struct TakesScan;

fn look(dir: &Dir, dev: u64, parent: &RelPath, name: &Name, scope: &Scope) -> Result<Option<Seen>, TakesScan> {
    let path = parent.join(name).map_err(|_| TakesScan)?;
    if **name == *IGNORE_FILE {
        return Err(TakesScan);
    }
    if scope.is_aside(&path) {
        return Ok(None);
    }
    let was_large = scope.left().large.contains_key(&path);
    let name_c = CString::new(&**name).map_err(|_| TakesScan)?;
    let seen = match seen(dir, &name_c) {
        Ok(seen) => seen,
        Err(Errno::NOENT) if !was_large => return Ok(None),
        Err(_) => return Err(TakesScan),
    };
    let kind = &seen.node.kind;
    if scope.excludes(&path, kind.is_directory()) {
        return Ok(None);
    }
    if kind.is_directory() && (seen.inode.dev != dev || (**name == *LOST_AND_FOUND)) {
        return Err(TakesScan);
    }
    let is_large = scope.max_size_bytes().is_some_and(|most| kind.size_bytes() > most);
    match (is_large, was_large) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(seen)),
        _ => Err(TakesScan),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}
