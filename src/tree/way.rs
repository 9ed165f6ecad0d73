//! What a scan leaves out on its way through a tree, by a [`Selection`] and the files of patterns that it meets.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use rustix::io::Errno;

use super::beneath::{Dir, Stat};
use super::scan::{Below, ScanOptions};
use super::selection::{IGNORE_FILE, LeftOut, Selection};
use super::shown::Shown;
use crate::model::{Digest, Name, PatternError, Patterns, Problem, ProblemKind, RESERVED_NAME, RelPath, Seen, Verdict};

/// The directory that filesystems make for their own repair, directly below their top.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// The largest file of patterns. Beyond it the directory counts as one that cannot be read.
const MAX_IGNORE_BYTES: u64 = 1 << 20;

/// What all files of patterns of a tree may have together, where they differ. A pattern takes up to a few hundred
/// times its length in memory, and whoever may write in the tree may write these files.
const MAX_ALL_BYTES: u64 = 8 << 20;

/// Lines of one file that are named one by one; the others are counted.
const NAMED_FAULTS: usize = 10;

/// Tries to read a file that is being written.
const TRIES: usize = 3;

/// The way to the directory that is being listed, with the patterns that hold there.
#[derive(Debug, Default)]
pub(super) struct Way {
    chain: Vec<(RelPath, Arc<Patterns>)>,
    /// By the digest of their text: many directories have the same file.
    known: HashMap<Digest, Known>,
    known_bytes: u64,
    /// What was left out so far.
    pub(super) left: LeftOut,
    /// Device of the directory come to last.
    dev: u64,
    /// Names of files in it that are too large.
    pub(super) large: Vec<Name>,
}

#[derive(Clone, Debug)]
struct Known {
    patterns: Arc<Patterns>,
    faults: Arc<[(usize, PatternError)]>,
}

impl Way {
    /// Is at a directory to which an earlier scan has found the way.
    pub(super) fn begin_below(&mut self, below: &Below<'_>) {
        let above = below.left.rules.iter().filter(|(dir, _)| below.path.is_below(dir));
        self.chain = above.map(|(dir, patterns)| (dir.clone(), Arc::clone(patterns))).collect();
    }

    /// Comes to the directory `path` and takes in its file of patterns: the digest of their text. Lines that are no
    /// patterns are added to `problems`.
    ///
    /// # Errors
    /// The patterns cannot be used: then it is not known what of the directory is meant.
    pub(super) fn enter(
        &mut self,
        path: &RelPath,
        shown: &mut Shown,
        problems: &mut Vec<Problem>,
    ) -> io::Result<Option<Digest>> {
        self.dev = shown.stat.dev;
        self.large.clear();
        self.chain.retain(|(above, _)| path.is_below(above));
        let Some(text) = shown.rules.take() else { return Ok(None) };
        let digest = Digest::of(&text);
        let known = self.understand(&text, digest)?;
        name_faults(path, &known.faults, problems);
        self.chain.push((path.clone(), Arc::clone(&known.patterns)));
        self.left.rules.insert(path.clone(), known.patterns);
        Ok(Some(digest))
    }

    fn understand(&mut self, text: &[u8], digest: Digest) -> io::Result<Known> {
        if let Some(known) = self.known.get(&digest) {
            return Ok(known.clone());
        }
        self.known_bytes += text.len() as u64;
        if self.known_bytes > MAX_ALL_BYTES {
            return Err(unusable("all of them together are longer than 8 MiB"));
        }
        let (patterns, faults) = Patterns::parse(text).map_err(|error| unusable(&error.to_string()))?;
        let known = Known { patterns: Arc::new(patterns), faults: faults.into() };
        self.known.insert(digest, known.clone());
        Ok(known)
    }

    /// Whether the entry `name` of the directory come to last, `parent`, is left out.
    pub(super) fn leaves_out(&mut self, dir: &Dir, parent: &RelPath, seen: &Seen, options: &ScanOptions<'_>) -> bool {
        let (name, is_directory) = (&*seen.node.name, seen.node.kind.is_directory());
        let selection = options.selection.filter(|selection| self.may_leave_out(selection, seen));
        let is_lost_and_found = name == LOST_AND_FOUND && is_directory && dir.is_filesystem_root().unwrap_or(false);
        // Most scans leave out nothing, and then no path is made.
        if selection.is_none() && options.filter.is_none() && !is_lost_and_found {
            return false;
        }
        // What cannot be named cannot be sent, and was reported.
        let Ok(path) = parent.join(name) else { return true };
        if is_lost_and_found {
            self.left.aside.insert(path);
            return true;
        }
        options.filter.is_some_and(|filter| filter.excludes(&path, is_directory))
            || selection.is_some_and(|selection| self.is_left_out(selection, path, seen))
    }

    /// Whether the selection may leave out such an entry here.
    fn may_leave_out(&self, selection: &Selection, seen: &Seen) -> bool {
        let by_place = !selection.foreign.is_empty() || !selection.mounts.is_empty() || seen.inode.dev != self.dev;
        !self.chain.is_empty()
            || !selection.exclude.is_empty()
            || !selection.first.is_empty()
            || (seen.node.kind.is_directory() && by_place)
            || selection.max_size_bytes.is_some_and(|most| seen.node.kind.size_bytes() > most)
    }

    fn is_left_out(&mut self, selection: &Selection, path: RelPath, seen: &Seen) -> bool {
        let (is_directory, size_bytes) = (seen.node.kind.is_directory(), seen.node.kind.size_bytes());
        if selection.foreign.contains(&path) || self.is_excluded(selection, &path, is_directory) {
            return true;
        }
        // By device, as others do it. Files have one of their own on some overlays: only directories tell.
        if is_directory && seen.inode.dev != self.dev {
            self.left.mounts.insert(path);
            return selection.one_filesystem;
        }
        if is_directory {
            return selection.one_filesystem && selection.mounts.contains(&path);
        }
        let is_large = selection.max_size_bytes.is_some_and(|most| size_bytes > most);
        if is_large {
            self.large.push(path.name().into());
            self.left.large.insert(path, size_bytes);
        }
        is_large
    }

    fn is_excluded(&self, selection: &Selection, path: &RelPath, is_directory: bool) -> bool {
        let bytes = path.as_bytes();
        let by_rules = || {
            self.chain.iter().rev().find_map(|(dir, patterns)| {
                let below = if dir.is_root() { bytes } else { &bytes[dir.as_bytes().len() + 1..] };
                patterns.verdict(below, is_directory)
            })
        };
        let verdict = selection.first.verdict(bytes, is_directory).or_else(by_rules);
        verdict.or_else(|| selection.exclude.verdict(bytes, is_directory)) == Some(Verdict::Excluded)
    }
}

/// A directory of the reserved name is another root's own. Anything else under this name is somebody's, and cannot
/// be synced.
pub(super) fn reserved_problem(dir: &Dir, parent: &RelPath) -> Option<Problem> {
    let is_own = dir.stat(RESERVED_NAME).map_or(true, |stat| stat.is_directory());
    let detail = "holds an entry with the name `.rfleet`, which is reserved, and this entry is not synced";
    (!is_own).then(|| Problem::new(parent.clone(), ProblemKind::Unsupported, detail))
}

fn name_faults(dir: &RelPath, faults: &[(usize, PatternError)], problems: &mut Vec<Problem>) {
    let Ok(file) = dir.join(IGNORE_FILE) else { return };
    let mut note = |detail: String| problems.push(Problem::new(file.clone(), ProblemKind::Unsupported, detail));
    for (line, error) in faults.iter().take(NAMED_FAULTS) {
        note(format!("line {line} is no pattern and does not count: {error}"));
    }
    if let more @ 1.. = faults.len().saturating_sub(NAMED_FAULTS) {
        note(format!("{more} more lines are no patterns and do not count"));
    }
}

fn unusable(why: &str) -> io::Error {
    io::Error::other(format!("its {} cannot be used: {why}", IGNORE_FILE.escape_ascii()))
}

/// The content of the file of patterns in `dir`; `None` where there is none.
///
/// # Errors
/// It cannot be read, or is none that is used.
///
/// RACE: who writes it in place, and not by rename, can be met after each look; what it then says for a
/// moment counts for one scan.
pub(super) fn read_rules(dir: &Dir) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..TRIES {
        let (file, before) = match dir.open_file(IGNORE_FILE) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Patterns are meant to count, and cannot be had.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                return Err(unusable("it is no regular file"));
            }
            Err(error) => return Err(unusable(&error.to_string())),
        };
        if before.size_bytes > MAX_IGNORE_BYTES {
            return Err(unusable("it is longer than 1 MiB"));
        }
        let mut text = Vec::new();
        let read = (&file).take(MAX_IGNORE_BYTES + 1).read_to_end(&mut text);
        read.map_err(|error| unusable(&error.to_string()))?;
        let after = Stat::of(&file)?;
        if text.len() as u64 == after.size_bytes && (before.mtime, before.ctime) == (after.mtime, after.ctime) {
            return Ok(Some(text));
        }
    }
    Err(unusable("it changed while it was read"))
}
