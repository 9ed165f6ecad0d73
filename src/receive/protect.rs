//! What no primary changes here, whatever it sends: entries that `[receive] protect` names, with all that is
//! below them, and `lost+found` at the top of a filesystem.
//!
//! Such an entry is not listed, and its content is not described by signatures. A change of it is left
//! undone, and a directory that holds one is neither moved nor replaced nor deleted. That is as the operator
//! wants it, so it is counted and told in one line, and is no problem.

use std::collections::HashSet;
use std::io;

use super::drift::{MAX_NAMED, named};
use crate::model::{Patterns, RelPath};
use crate::tree::{Filter, Root, find_below};

/// Paths that are told apart; of more, some are counted twice.
const MAX_TOLD_APART: usize = 10_000;

/// What is protected.
#[derive(Clone, Debug)]
pub(super) struct Protect {
    patterns: Patterns,
    lost_and_found: bool,
}

impl Protect {
    /// In `root`; `None` is one that does not exist yet.
    pub(super) fn of(patterns: &Patterns, root: Option<&Root>) -> Self {
        let top = root.and_then(|root| root.dir(&RelPath::root()).ok());
        let lost_and_found = top.is_some_and(|top| top.is_filesystem_root().unwrap_or(true));
        Protect { patterns: patterns.clone(), lost_and_found }
    }

    /// As what a scan leaves out; `None` if that is nothing.
    pub(super) fn filter(&self) -> Option<&dyn Filter> {
        (!self.is_idle()).then_some(self as &dyn Filter)
    }

    fn is_idle(&self) -> bool {
        self.patterns.is_empty() && !self.lost_and_found
    }

    /// Whether `path` is protected, whatever is there.
    pub(super) fn holds(&self, path: &RelPath) -> bool {
        let is_lost_and_found = || path.components().next() == Some(b"lost+found");
        self.patterns.protects(path) || (self.lost_and_found && is_lost_and_found())
    }

    /// A protected path at `path` or below it.
    ///
    /// # Errors
    /// It cannot be looked through.
    pub(super) fn find(&self, root: &Root, path: &RelPath) -> io::Result<Option<RelPath>> {
        if self.is_idle() {
            return Ok(None);
        }
        find_below(root, path, &mut |path, _| self.holds(path))
    }

    /// What would be taken out of its protection, or put where something is protected, if the directory `from`
    /// became `to`.
    ///
    /// # Errors
    /// It cannot be looked through.
    pub(super) fn find_moved(&self, root: &Root, from: &RelPath, to: &RelPath) -> io::Result<Option<RelPath>> {
        if self.is_idle() {
            return Ok(None);
        }
        let there = |path: &RelPath| {
            let rest = &path.as_bytes()[from.as_bytes().len()..];
            // What cannot be named there cannot be moved there either.
            RelPath::new(&[to.as_bytes(), rest].concat()).is_ok_and(|path| self.holds(&path))
        };
        find_below(root, from, &mut |path, _| self.holds(path) || there(path))
    }
}

impl Filter for Protect {
    fn excludes(&self, path: &RelPath, _: bool) -> bool {
        self.holds(path)
    }
}

/// Protected entries that the primary would have changed.
#[derive(Default)]
pub(super) struct Spared {
    known: HashSet<RelPath>,
    first: Vec<RelPath>,
    count: u64,
}

impl Spared {
    pub(super) fn note(&mut self, path: &RelPath) {
        if self.known.contains(path) {
            return;
        }
        self.count += 1;
        if self.known.len() < MAX_TOLD_APART {
            self.known.insert(path.clone());
        }
        if self.first.len() < MAX_NAMED {
            self.first.push(path.clone());
        }
    }

    /// One line for people, if there is something to say.
    pub(super) fn told(&self) -> Option<String> {
        let what = match self.count {
            0 => return None,
            1 => "1 entry is protected there and was left as it is".to_owned(),
            count => format!("{count} entries are protected there and were left as they are"),
        };
        Some(format!("{what}: {}", named(&self.first, self.count)))
    }
}
