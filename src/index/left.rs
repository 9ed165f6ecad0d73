//! What scans left out, as far as it bears on histories.
//!
//! History tells what hosts have only of what is synced. Where patterns change, or a file is no longer too
//! large, hosts may have anything at the paths that are synced from now on, or had them kept when they were
//! deleted here. So that is a break: hosts that have not passed it are compared. Directories are meant by
//! their numbers: one that is renamed takes its file of patterns along, and nothing breaks.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Index, IndexError, number, schema};
use crate::model::{Digest, Position, RelPath};

/// Fact: what the last scan left out.
const LEFT: &str = "left";
/// Fact: the first change after the last break.
const BREAK: &str = "break";
/// Fact: what is a mount point, or was one when somebody last agreed to what became of it.
pub(super) const MOUNTS: &str = "mounts";

/// What one scan leaves out.
#[derive(Default)]
pub(super) struct Left {
    /// Number of the directory, `r` and the digest of its patterns, or `l` and the name of a file.
    marks: BTreeSet<Vec<u8>>,
    /// Where other filesystems are mounted, by path.
    mounts: BTreeSet<RelPath>,
}

const RULES: u8 = b'r';
const LARGE: u8 = b'l';

impl Left {
    pub(super) fn note_rules(&mut self, dir: i64, digest: &Digest) {
        self.marks.insert([&dir.to_le_bytes()[..], &[RULES], &digest.0].concat());
    }

    pub(super) fn note_large(&mut self, dir: i64, name: &[u8]) {
        self.marks.insert([&dir.to_le_bytes()[..], &[LARGE], name].concat());
    }

    pub(super) fn note_mounts(&mut self, mounts: &BTreeSet<RelPath>) {
        self.mounts.clone_from(mounts);
    }

    /// Writes it down where it is news, with the number of a new change if it is a break. Whether anything
    /// was written.
    pub(super) fn keep(&self, index: &Index, next: &mut dyn FnMut() -> i64) -> Result<bool, IndexError> {
        let stored: Option<Vec<u8>> = index.get(LEFT)?;
        let known: BTreeSet<Vec<u8>> = stored.as_deref().map(unpacked).unwrap_or_default();
        let mut written = false;
        if stored.is_none() || known != self.marks {
            let is_break = |mark: &&Vec<u8>| mark.get(8) == Some(&RULES);
            let news = self.marks.difference(&known).any(|mark| is_break(&mark));
            let gone = known.difference(&self.marks).next().is_some();
            if stored.is_some() && (news || gone) {
                index.set(BREAK, next())?;
            }
            index.set(LEFT, packed(&self.marks))?;
            written = true;
        }
        let known = index.mounts()?;
        if !self.mounts.is_subset(&known) {
            index.set(MOUNTS, packed_paths(known.union(&self.mounts)))?;
            written = true;
        }
        Ok(written)
    }
}

impl Index {
    /// Whether what happened after `position` is known without a break.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_unbroken_since(&self, position: Position) -> Result<bool, IndexError> {
        Ok(self.get::<i64>(BREAK)?.is_none_or(|first| number(position.sequence) >= first))
    }

    /// What is a mount point, or was one and is not forgotten.
    ///
    /// # Errors
    /// The database fails.
    pub fn mounts(&self) -> Result<BTreeSet<RelPath>, IndexError> {
        Ok(unpacked_paths(&self.get::<Vec<u8>>(MOUNTS)?.unwrap_or_default()))
    }

    /// As [`Index::mounts`], of the index of `source` in `file`, for a run that does not use it otherwise.
    pub fn mounts_in(file: &Path, source: &Path) -> BTreeSet<RelPath> {
        unpacked_paths(&schema::mounts_of(file, source).unwrap_or_default())
    }

    /// Forgets that these were mount points.
    ///
    /// # Errors
    /// The database fails.
    pub fn forget_mounts(&self, mounts: &BTreeSet<RelPath>) -> Result<(), IndexError> {
        let known = self.mounts()?;
        self.set(MOUNTS, packed_paths(known.difference(mounts)))
    }
}

/// No path holds a NUL.
fn packed_paths<'p>(paths: impl Iterator<Item = &'p RelPath>) -> Vec<u8> {
    paths.flat_map(|path| [path.as_bytes(), b"\0"]).flatten().copied().collect()
}

fn unpacked_paths(bytes: &[u8]) -> BTreeSet<RelPath> {
    bytes.split(|&byte| byte == 0).filter_map(|path| RelPath::new(path).ok()).collect()
}

/// Each with its length before it.
fn packed(marks: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mark in marks {
        // A name has at most 255 bytes.
        let length = u16::try_from(mark.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_le_bytes());
        bytes.extend(mark);
    }
    bytes
}

/// What is damaged is left out: then it is news, and hosts are compared.
fn unpacked(mut bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut marks = BTreeSet::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length));
        let Some((mark, rest)) = rest.split_at_checked(length) else { break };
        marks.insert(mark.to_vec());
        bytes = rest;
    }
    marks
}
