//! What a session remembers of paths: bounded, since the primary decides how many there are.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;

use super::writer::WriteError;
use crate::model::RelPath;

/// Paths that did not get their content. More than that in one session mean that nothing works here.
const MAX_FAILED: usize = 4_000_000;

/// Bytes of paths that are to come again; of what is beyond it the primary is only told.
const MAX_AGAIN_BYTES: usize = 64 << 20;

/// Bytes of paths of directories that may be replaced: no plan has more than a few.
const MAX_REPLACEABLE_BYTES: usize = 32 << 20;

/// Memory that a path takes beside its bytes, about.
const PATH_BYTES: usize = 48;

fn bytes(path: &RelPath) -> usize {
    path.as_bytes().len() + PATH_BYTES
}

/// Paths, eight bytes each, hashed with keys of this process. Where two fall together (as rarely as in
/// [`super::expect`]), nothing is done about the one after the other failed.
#[derive(Default)]
pub(super) struct Failed {
    keys: RandomState,
    hashes: HashSet<u64>,
}

impl Failed {
    /// # Errors
    /// `Failed` if there are too many to go on.
    pub(super) fn insert(&mut self, path: &RelPath) -> Result<(), WriteError> {
        if self.hashes.len() >= MAX_FAILED {
            return Err(WriteError::Failed(io::Error::other("too many paths cannot be brought over")));
        }
        self.hashes.insert(self.keys.hash_one(path.as_bytes()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &RelPath) {
        // The usual session pays for no hash.
        if !self.hashes.is_empty() {
            self.hashes.remove(&self.keys.hash_one(path.as_bytes()));
        }
    }

    pub(super) fn contains(&self, path: &RelPath) -> bool {
        !self.hashes.is_empty() && self.hashes.contains(&self.keys.hash_one(path.as_bytes()))
    }
}

/// Files that must come again.
#[derive(Default)]
pub(super) struct Again {
    paths: Vec<RelPath>,
    bytes: usize,
}

impl Again {
    /// Takes `path` if there is room for it.
    ///
    /// # Errors
    /// `path`, if there is none.
    pub(super) fn push(&mut self, path: RelPath) -> Result<(), RelPath> {
        if self.bytes + bytes(&path) > MAX_AGAIN_BYTES {
            return Err(path);
        }
        self.bytes += bytes(&path);
        self.paths.push(path);
        Ok(())
    }

    /// All, which are forgotten.
    pub(super) fn take(&mut self) -> Vec<RelPath> {
        self.bytes = 0;
        std::mem::take(&mut self.paths)
    }
}

/// Directories that something else may take the place of, with the entries that go then.
#[derive(Default)]
pub(super) struct Replaceable {
    entries: HashMap<RelPath, u64>,
    bytes: usize,
}

impl Replaceable {
    /// # Errors
    /// `Protocol` for more of them than any plan has.
    pub(super) fn insert(&mut self, path: RelPath, entries: u64) -> Result<(), WriteError> {
        self.bytes += bytes(&path);
        if self.bytes > MAX_REPLACEABLE_BYTES {
            return Err(WriteError::Protocol("more directories to be replaced than a receiver keeps"));
        }
        self.entries.insert(path, entries);
        Ok(())
    }

    /// The entries that go with `path`; `None` if it may not be replaced.
    pub(super) fn get(&self, path: &RelPath) -> Option<u64> {
        self.entries.get(path).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(at: usize) -> RelPath {
        RelPath::new(format!("{at}/{}", format!("{}/", "n".repeat(250)).repeat(15) + "n").as_bytes()).unwrap()
    }

    #[test]
    fn a_path_failed_until_it_did_not() {
        let mut failed = Failed::default();
        assert!(!failed.contains(&long(1)));
        failed.insert(&long(1)).unwrap();
        assert!(failed.contains(&long(1)) && !failed.contains(&long(2)));
        failed.remove(&long(1));
        assert!(!failed.contains(&long(1)));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut again = Again::default();
        let fits = (0..100_000).take_while(|at| again.push(long(*at)).is_ok()).count();
        assert!((MAX_AGAIN_BYTES / 5000..MAX_AGAIN_BYTES / 3000).contains(&fits), "{fits}");
        assert_eq!(again.take().len(), fits);
        assert!(again.push(long(0)).is_ok(), "what was told needs no room");
        let mut replaceable = Replaceable::default();
        let fits = (0..100_000).take_while(|at| replaceable.insert(long(*at), 1).is_ok()).count();
        assert!((MAX_REPLACEABLE_BYTES / 5000..MAX_REPLACEABLE_BYTES / 3000).contains(&fits), "{fits}");
        assert_eq!((replaceable.get(&long(0)), replaceable.get(&long(fits + 1))), (Some(1), None));
        let mut failed = Failed { hashes: (0..MAX_FAILED as u64).collect(), ..Failed::default() };
        assert!(failed.insert(&long(0)).is_err());
    }
}
