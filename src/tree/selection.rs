//! What of a source is synced: what is asked for ([`Selection`]), what a scan left out by it ([`LeftOut`]), and
//! what follows for the hosts ([`Scope`]).
//!
//! Precedence is git's: patterns of the command line go before those of a `.rfleetignore`, a deeper one of
//! these before a higher one, and all of them before the root's own list. What lies below an excluded
//! directory cannot be taken in again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Patterns, RelPath, Verdict};

/// The file of patterns that each directory may hold. It is synced as any other.
pub const IGNORE_FILE: &[u8] = b".rfleetignore";

/// What of a source is synced, as the configuration and the command line have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The root's own list, which all others go before.
    pub exclude: Patterns,
    /// The command line's, which goes before all others.
    pub first: Patterns,
    /// Directories that belong to others (roots inside this one): never touched, whatever any pattern says.
    pub foreign: BTreeSet<RelPath>,
    /// Whether other filesystems that are mounted below are left out.
    pub one_filesystem: bool,
    /// Larger files are left out.
    pub max_size_bytes: Option<u64>,
    /// What was a mount point at an earlier scan.
    pub mounts: BTreeSet<RelPath>,
}

/// What a scan found beside what it listed.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// The patterns of each directory that has a file of them.
    pub rules: BTreeMap<RelPath, Arc<Patterns>>,
    /// Files that are too large.
    pub large: BTreeMap<RelPath, u64>,
    /// Directories on which another filesystem is mounted now.
    pub mounts: BTreeSet<RelPath>,
    /// What was a mount point and is none now.
    pub unmounted: BTreeSet<RelPath>,
    /// Directories that were left out for what they are, not for a pattern.
    pub aside: BTreeSet<RelPath>,
}

impl Selection {
    /// What tells selections apart, as text: hosts that were brought up to date by one are compared by another.
    pub fn identity(&self, delete_excluded: bool) -> String {
        let lists = [&self.exclude, &self.first].map(|list| list.lines().collect::<Vec<_>>().join("\n"));
        let foreign: Vec<String> = self.foreign.iter().map(ToString::to_string).collect();
        let (one, size) = (self.one_filesystem, self.max_size_bytes);
        format!("{}\n//\n{}\n//\n{foreign:?} {one} {size:?} {delete_excluded}", lists[0], lists[1])
    }
}

impl LeftOut {
    fn holds(&self, selection: &Selection, part: &RelPath) -> bool {
        let of_others = selection.foreign.contains(part) || self.aside.contains(part);
        of_others || (selection.one_filesystem && (self.mounts.contains(part) || self.unmounted.contains(part)))
    }
}

/// What is left alone on the hosts, by a scan of the source.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    selection: Selection,
    left: LeftOut,
    delete_excluded: bool,
    /// As `left.rules`, by the bytes of the directory.
    rules: HashMap<Box<[u8]>, Arc<Patterns>>,
}

impl Scope {
    /// Of a scan by `selection` that left this out. With `delete_excluded` patterns do not keep anything on a host.
    pub fn new(selection: Selection, left: LeftOut, delete_excluded: bool) -> Self {
        let rules = left.rules.iter().map(|(dir, patterns)| (dir.as_bytes().into(), Arc::clone(patterns))).collect();
        Scope { selection, left, delete_excluded, rules }
    }

    /// Whether what a host has at `path` is left alone, with all that is below it.
    pub fn keeps(&self, path: &RelPath, is_directory: bool) -> bool {
        let aside = |part: &[u8]| RelPath::new(part).is_ok_and(|part| self.left.holds(&self.selection, &part));
        let has_aside =
            !self.selection.foreign.is_empty() || !self.left.aside.is_empty() || !self.left.mounts.is_empty();
        let has_aside = has_aside || !self.left.unmounted.is_empty();
        (has_aside && path.prefixes().any(|(part, _)| aside(part)))
            || self.left.large.contains_key(path)
            || (!self.delete_excluded && self.excludes(path, is_directory))
    }

    /// Whether patterns leave out `path`, or a directory above it.
    pub fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
        let lists = [&self.selection.exclude, &self.selection.first];
        if self.rules.is_empty() && lists.iter().all(|list| list.is_empty()) {
            return false;
        }
        path.prefixes().any(|(part, is_whole)| self.verdict(part, !is_whole || is_directory) == Some(Verdict::Excluded))
    }

    fn verdict(&self, path: &[u8], is_directory: bool) -> Option<Verdict> {
        let first = self.selection.first.verdict(path, is_directory);
        let by_rules = || {
            above(path).find_map(|dir| {
                let below = if dir.is_empty() { path } else { &path[dir.len() + 1..] };
                self.rules.get(dir)?.verdict(below, is_directory)
            })
        };
        let by_rules = first.or_else(|| if self.rules.is_empty() { None } else { by_rules() });
        by_rules.or_else(|| self.selection.exclude.verdict(path, is_directory))
    }

    /// Whether a directory can be renamed from `from` to `to` on a host together with what is left alone in it: it
    /// is left alone there as well, and nothing else is.
    pub fn moves_along(&self, from: &RelPath, to: &RelPath) -> bool {
        let lists = [&self.selection.exclude, &self.selection.first];
        let knows = |patterns: &Patterns, path: &RelPath, dir: &[u8]| {
            let below = if dir.is_empty() { path.as_bytes() } else { &path.as_bytes()[dir.len() + 1..] };
            patterns.know_place(below)
        };
        if [from, to].iter().any(|path| lists.iter().any(|list| knows(list, path, b""))) {
            return false;
        }
        let (there, here) = (self.ruled_above(from), self.ruled_above(to));
        let bound = |path: &RelPath, dirs: &[&[u8]], others: &[&[u8]]| {
            dirs.iter().any(|dir| {
                let patterns = &self.rules[*dir];
                !patterns.is_empty() && (!others.contains(dir) || knows(patterns, path, dir))
            })
        };
        let is_inside = |path: &RelPath| {
            let sets = [&self.selection.foreign, &self.left.aside, &self.left.mounts, &self.left.unmounted];
            sets.iter().any(|set| set.iter().any(|one| one == path || one.is_below(path)))
        };
        !bound(from, &there, &here) && !bound(to, &here, &there) && !is_inside(from) && !is_inside(to)
    }

    /// The directories above `path` that have patterns, the nearest first.
    fn ruled_above<'p>(&self, path: &'p RelPath) -> Vec<&'p [u8]> {
        above(path.as_bytes()).filter(|dir| self.rules.contains_key(*dir)).collect()
    }

    /// What the scan left out.
    pub fn left(&self) -> &LeftOut {
        &self.left
    }

    /// Whether `path` is a directory that is left out for what it is, not for a pattern.
    pub fn is_aside(&self, path: &RelPath) -> bool {
        self.left.holds(&self.selection, path)
    }

    /// The bound on the size of files.
    pub fn max_size_bytes(&self) -> Option<u64> {
        self.selection.max_size_bytes
    }

    /// Whether what the source itself still has is to go from the hosts, since a pattern leaves it out.
    pub fn deletes(&self, path: &RelPath, is_directory: bool) -> bool {
        self.delete_excluded && self.excludes(path, is_directory)
    }
}

/// The directories above `path`, the nearest first; the root is empty.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at]).chain([&path[..0]])
}
