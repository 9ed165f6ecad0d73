//! Listings of a root in path order: one directory at a time, depth first.
//!
//! Memory is bounded by the directories on the way down and by what is looked at ahead, not by the tree.

use std::io;
use std::thread;

use rustix::io::Errno;

use super::ahead::Ahead;
use super::beneath::{Dir, Root};
use super::links::{LinkTable, Links};
use super::lister::Lister;
use super::read::ContentReader;
use super::selection::{LeftOut, Selection};
use super::shown::Shown;
use super::watch::{WatchError, Watcher};
use crate::model::{Digest, DirListing, Meta, Name, Node, OwnerNames, Owners, Problem, ProblemKind, RelPath, Seen};

/// Directories that a walk lists before it has a second thread look ahead: starting one takes as long as a few of them.
const ALONE: u64 = 32;

/// Says what a scan leaves out.
pub trait Filter: Sync {
    /// Whether `path` is left out; a directory with everything below it.
    fn excludes(&self, path: &RelPath, is_directory: bool) -> bool;
}

/// What a scan does beside listing.
#[derive(Clone, Copy, Default)]
pub struct ScanOptions<'a> {
    /// What is left out.
    pub filter: Option<&'a dyn Filter>,
    /// Read extended attributes: of every entry with [`scan`], of the root with [`survey`].
    pub attributes: bool,
    /// What of a source is synced.
    pub selection: Option<&'a Selection>,
    /// Read every file, once whatever names it has, and fill its digest.
    pub checksum: bool,
    /// Told the number of entries so far, once for each directory.
    pub on_progress: Option<&'a dyn Fn(u64)>,
    /// Watches each directory before it is listed.
    pub watcher: Option<&'a Watcher>,
    /// Only this directory, with all below it.
    pub below: Option<Below<'a>>,
}

/// A part of a tree, of which an earlier scan has seen the rest.
#[derive(Clone, Copy)]
pub struct Below<'a> {
    /// The directory.
    pub path: &'a RelPath,
    /// What that scan left out.
    pub left: &'a LeftOut,
}

/// Directories that could not be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwatched {
    /// Their number.
    pub directories: u64,
    /// Of the first that was not for the limit, why.
    pub error: Option<String>,
}

impl Unwatched {
    fn note(&mut self, added: Result<(), WatchError>, path: &RelPath) {
        match added {
            Ok(()) => return,
            Err(WatchError::Limit) => {}
            Err(WatchError::Failed(error)) => {
                self.error.get_or_insert_with(|| format!("{path}: {error}"));
            }
        }
        self.directories += 1;
    }
}

/// What a scan found beside the listings.
#[derive(Clone, Debug, Default)]
pub struct ScanReport {
    /// Names of all owners and groups that occur.
    pub names: OwnerNames,
    /// First names of files with several.
    pub links: LinkTable,
    /// Paths of which it is not known what they are or hold: neither they nor anything below them
    /// may be taken as absent. `Vanished` where a directory went away in the middle.
    pub unreadable: Vec<Problem>,
    /// Other entries that are left out (names that cannot be sent; the path is the directory's) or
    /// have no digest (content that could not be read).
    pub problems: Vec<Problem>,
    /// What the selection left out.
    pub left: LeftOut,
    /// Directories that changes are not noticed in.
    pub unwatched: Unwatched,
    /// Entries listed, the root itself not counted.
    pub entries: u64,
    /// Directories listed, the root counted.
    pub directories: u64,
}

/// Lists everything below `root`, in path order, each directory before those below it; its nodes
/// are sorted by name. [`RESERVED_NAME`] is left out at every level, `lost+found` at the top of a
/// filesystem, and so is what the filter and the selection exclude and what vanishes while it is looked at.
///
/// # Errors
/// What `visit` returns, or the root itself cannot be listed. Trouble further down is in the report.
pub fn scan(
    root: &Root,
    options: &ScanOptions<'_>,
    owners: &dyn Owners,
    visit: &mut dyn FnMut(DirListing) -> io::Result<()>,
) -> io::Result<ScanReport> {
    let list = |lister: &mut Lister<'_>, shown: &mut Shown, path, links: &mut LinkTable| {
        lister.list(shown, path, &mut Links::Grow(links))
    };
    walk(root, options, owners, ALONE, list, visit)
}

/// One directory with what an index keeps of its entries.
#[derive(Clone, Debug)]
pub struct SeenDirectory {
    /// The directory.
    pub path: RelPath,
    /// What it is itself; the name is empty.
    pub itself: Seen,
    /// What it holds, sorted by name.
    pub entries: Vec<Seen>,
    /// Digest of its file of patterns, where it has one.
    pub rules: Option<Digest>,
    /// Names of the files in it that are too large.
    pub large: Vec<Name>,
}

/// As [`scan`], for an index: with inodes, without hard links, which the index finds by them.
///
/// # Errors
/// As [`scan`].
pub fn survey(
    root: &Root,
    options: &ScanOptions<'_>,
    owners: &dyn Owners,
    visit: &mut dyn FnMut(SeenDirectory) -> io::Result<()>,
) -> io::Result<ScanReport> {
    let list = |lister: &mut Lister<'_>, shown: &mut Shown, path, _: &mut LinkTable| lister.survey(shown, path);
    walk(root, options, owners, ALONE, list, visit)
}

/// The digest of the file `name` in `dir` as it is now, if it is of the size and time that `seen` has.
pub fn look_again(dir: &Dir, seen: &Seen, buffer: &mut [u8]) -> Option<Digest> {
    let reader = ContentReader::open_in(dir, &seen.node.name).ok()?;
    let same = reader.size_bytes() == seen.node.kind.size_bytes() && reader.meta().mtime == seen.node.meta.mtime;
    if same { reader.digest(buffer).ok() } else { None }
}

/// A directory that was listed, in one form or another.
pub(super) trait Listed {
    fn meta(&self) -> &Meta;
    fn nodes(&self) -> impl ExactSizeIterator<Item = &Node>;
}

impl Listed for DirListing {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.iter()
    }
}

impl Listed for SeenDirectory {
    fn meta(&self) -> &Meta {
        &self.itself.node.meta
    }
    fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.entries.iter().map(|seen| &seen.node)
    }
}

/// `alone`: how many directories are listed before there is a second thread.
pub(super) fn walk<T: Listed>(
    root: &Root,
    options: &ScanOptions<'_>,
    owners: &dyn Owners,
    alone: u64,
    mut list: impl FnMut(&mut Lister<'_>, &mut Shown, RelPath, &mut LinkTable) -> io::Result<T>,
    visit: &mut dyn FnMut(T) -> io::Result<()>,
) -> io::Result<ScanReport> {
    let mut report = ScanReport::default();
    let mut lister = Lister::new(*options);
    let with_rules = options.selection.is_some();
    let ahead = Ahead::new(root, with_rules);
    let top = options.below.map_or_else(RelPath::root, |below| below.path.clone());
    if let Some(below) = options.below {
        lister.way.begin_below(&below);
    }
    // Each directory has to be watched before it is looked at: then nothing is looked at ahead.
    let alone = if options.watcher.is_some() { u64::MAX } else { alone };
    thread::scope(|scope| {
        let mut second = None;
        let mut next = Some((top.clone(), ahead.top(&top)));
        while let Some((path, shown)) = next {
            let listed = shown.and_then(|mut shown| {
                if let Some(watcher) = options.watcher {
                    report.unwatched.note(watcher.add(&shown.dir, &path), &path);
                    shown = Shown::of(shown.dir, with_rules)?;
                }
                let listing = list(&mut lister, &mut shown, path.clone(), &mut report.links)?;
                Ok((listing, shown.dir))
            });
            match listed {
                Ok((listing, dir)) => {
                    let below = take_in(&listing, options, owners, &mut report);
                    visit(listing)?;
                    ahead.enter(path, dir, below);
                }
                Err(error) if path == top => return Err(error),
                Err(error) => report.unreadable.push(unreadable(path, &error)),
            }
            report.unreadable.append(&mut lister.unreadable);
            report.problems.append(&mut lister.problems);
            if report.directories >= alone && second.is_none() {
                second = Some(ahead.start(scope));
            }
            next = ahead.next(&mut lister.list_buffer);
        }
        Ok(())
    })?;
    report.left = lister.way.left;
    if let Some(selection) = options.selection {
        report.left.unmounted = selection.mounts.difference(&report.left.mounts).cloned().collect();
    }
    Ok(report)
}

/// Accounts for a listing: the directories in it, sorted.
fn take_in<T: Listed>(
    listing: &T,
    options: &ScanOptions<'_>,
    owners: &dyn Owners,
    report: &mut ScanReport,
) -> Vec<Name> {
    report.names.note(listing.meta(), owners);
    let mut last = (listing.meta().uid, listing.meta().gid);
    for node in listing.nodes() {
        // Neighbours mostly have one owner: this spares two look-ups for each.
        if last != (node.meta.uid, node.meta.gid) || !node.meta.attributes.is_empty() {
            last = (node.meta.uid, node.meta.gid);
            report.names.note(&node.meta, owners);
        }
    }
    report.directories += 1;
    report.entries += listing.nodes().len() as u64;
    if let Some(progress) = options.on_progress {
        progress(report.entries);
    }
    listing.nodes().filter(|node| node.kind.is_directory()).map(|node| node.name.clone()).collect()
}

/// Lists the one directory `path` again, with the links that a scan of the same tree found, as
/// that scan would list it. Entries of which it is not known what they are are missing, and added to `unreadable`.
///
/// RACE: an inode number that was freed and given to a new file with several names since that
/// scan makes the new file look like a link of the old one's first name. It takes a deletion and
/// two creations between both calls; the next scan finds the difference.
///
/// # Errors
/// `NotFound` if the directory has vanished, else the operating system's.
pub fn list_dir(
    root: &Root,
    path: &RelPath,
    options: &ScanOptions<'_>,
    links: &LinkTable,
    unreadable: &mut Vec<Problem>,
) -> io::Result<DirListing> {
    let mut shown = Shown::of(root.dir(path)?, options.selection.is_some())?;
    let mut lister = Lister::new(*options);
    let listing = lister.list(&mut shown, path.clone(), &mut Links::Fixed(links))?;
    unreadable.append(&mut lister.unreadable);
    Ok(listing)
}

fn unreadable(path: RelPath, error: &io::Error) -> Problem {
    let kind = match Errno::from_io_error(error) {
        // What was listed as a directory a moment ago is gone or is something else now.
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => ProblemKind::Vanished,
        _ => ProblemKind::Unreadable,
    };
    Problem::new(path, kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::fixture::{Fixture, is_unprivileged, path};
    use super::super::owners::SystemOwners;
    use super::*;
    use crate::model::{Digest, Kind, Listing};

    fn scanned(fixture: &Fixture, options: &ScanOptions<'_>) -> (Listing, ScanReport) {
        let mut dirs = Vec::new();
        let report = scan(&fixture.root, options, &SystemOwners::new(), &mut |dir| {
            dirs.push(dir);
            Ok(())
        });
        let report = report.unwrap();
        (Listing { dirs, names: report.names.clone() }, report)
    }

    fn dir_paths(listing: &Listing) -> Vec<String> {
        listing.dirs.iter().map(|dir| dir.path.to_string()).collect()
    }

    #[test]
    fn directories_come_in_path_order_and_nodes_by_name() {
        let fixture =
            Fixture::with(&["a", "a/b", "a/b/c", "a-b", "a.b", "ab", "a/z=1", "a/b.c", "l>a", "f=text", "a/.hidden=x"]);
        let (listing, report) = scanned(&fixture, &ScanOptions::default());
        assert_eq!(dir_paths(&listing), [".", "a", "a/b", "a/b/c", "a/b.c", "a-b", "a.b", "ab"]);
        assert!(listing.dirs.is_sorted_by(|a, b| a.path < b.path));
        for dir in &listing.dirs {
            assert!(dir.nodes.is_sorted_by(|a, b| a.name < b.name), "{}", dir.path);
        }
        let top = listing.dir(&RelPath::root()).unwrap();
        assert_eq!(top.find(b"l").unwrap().kind, Kind::Symlink { target: b"a".as_slice().into() });
        assert_eq!(top.find(b"f").unwrap().kind, Kind::file(4));
        assert_eq!(report.entries, listing.entry_count());
        assert_eq!(report.directories, 8);
        assert!(report.unreadable.is_empty() && report.problems.is_empty());
        assert_eq!(report.names.users.len(), 1);
    }

    #[test]
    fn names_of_any_bytes_survive_and_the_reserved_one_is_never_seen() {
        let fixture = Fixture::with(&["d", ".rfleet", ".rfleet/stage", "d/.rfleet", "d/.rfleet/lock=", ".rfleetx=1"]);
        let odd: [&[u8]; 4] = [b"\xff\xfe", b"new\nline", b"-rf", &[b'n'; 255]];
        for name in odd {
            fs::write(fixture.path.join(OsStr::from_bytes(name)), "x").unwrap();
        }
        let (listing, report) = scanned(&fixture, &ScanOptions::default());
        assert_eq!(dir_paths(&listing), [".", "d"]);
        assert!(listing.dirs[1].nodes.is_empty());
        assert!(odd.iter().all(|name| listing.dirs[0].find(name).is_some()));
        assert_eq!(report.entries, 6);
    }

    #[test]
    fn an_excluded_directory_is_not_entered() {
        struct Cache;
        impl Filter for Cache {
            fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
                assert!(!path.is_below(&super::super::fixture::path("cache")), "{path} was looked at");
                (path.name() == b"cache" && is_directory) || path.name().ends_with(b".tmp")
            }
        }
        let fixture = Fixture::with(&["cache", "cache/x=1", "d", "d/cache=file", "d/y.tmp=1"]);
        let options = ScanOptions { filter: Some(&Cache), ..ScanOptions::default() };
        let (listing, _) = scanned(&fixture, &options);
        assert_eq!(dir_paths(&listing), [".", "d"]);
        assert_eq!(listing.dirs[1].nodes.len(), 1);
    }

    #[test]
    fn hard_links_name_the_first_of_their_file_and_one_directory_can_be_listed_again() {
        let fixture = Fixture::with(&["a", "b", "a/one=x", "b/single=y", "pair1=z"]);
        let link = |from: &str, to: &str| fs::hard_link(fixture.path.join(from), fixture.path.join(to)).unwrap();
        link("a/one", "a/two");
        link("a/one", "b/three");
        link("pair1", "pair2");
        let (listing, report) = scanned(&fixture, &ScanOptions::default());
        let link_of = |dir: &str, name: &str| {
            let node = listing.dir(&path(dir)).unwrap().find(name.as_bytes()).unwrap();
            node.kind.link().map(|link| link.to_string())
        };
        assert_eq!(link_of("a", "one"), None);
        assert_eq!(link_of("a", "two").as_deref(), Some("a/one"));
        assert_eq!(link_of("b", "three").as_deref(), Some("a/one"));
        assert_eq!(link_of("b", "single"), None);
        assert_eq!(link_of("", "pair2").as_deref(), Some("pair1"));
        assert_eq!(report.links.len(), 2);
        for dir in &listing.dirs {
            let mut problems = Vec::new();
            let again =
                list_dir(&fixture.root, &dir.path, &ScanOptions::default(), &report.links, &mut problems).unwrap();
            assert_eq!(&again, dir);
            assert!(problems.is_empty());
        }
        let gone = list_dir(&fixture.root, &path("c"), &ScanOptions::default(), &report.links, &mut Vec::new());
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn checksums_are_of_the_content_and_all_names_of_a_file_have_it() {
        let fixture = Fixture::with(&["a=hello", "d", "empty="]);
        fs::hard_link(fixture.path.join("a"), fixture.path.join("b")).unwrap();
        fs::hard_link(fixture.path.join("a"), fixture.path.join("d/c")).unwrap();
        let options = ScanOptions { checksum: true, ..ScanOptions::default() };
        let (listing, report) = scanned(&fixture, &options);
        let digest = |listing: &DirListing, name: &[u8]| match &listing.find(name).unwrap().kind {
            Kind::File { digest, .. } => digest.clone().map(|digest| *digest),
            _ => None,
        };
        assert_eq!(digest(&listing.dirs[0], b"a"), Some(Digest::of(b"hello")));
        assert_eq!(digest(&listing.dirs[0], b"empty"), Some(Digest::of(b"")));
        assert_eq!(digest(&listing.dirs[0], b"b"), Some(Digest::of(b"hello")));
        assert_eq!(digest(&listing.dirs[1], b"c"), Some(Digest::of(b"hello")));
        assert!(report.problems.is_empty());
        // One directory, listed again after the file was written to by its first name.
        fs::write(fixture.path.join("a"), "hello, you").unwrap();
        let again = list_dir(&fixture.root, &path("d"), &options, &report.links, &mut Vec::new()).unwrap();
        assert_eq!(digest(&again, b"c"), Some(Digest::of(b"hello, you")));
        assert_eq!(again.find(b"c").unwrap().kind.link(), Some(&path("a")));
    }

    #[test]
    fn a_file_that_changes_between_the_looks_at_two_of_its_names_has_one_state() {
        for checksum in [false, true] {
            let fixture = Fixture::with(&["a", "a/one=first", "b"]);
            fs::hard_link(fixture.path.join("a/one"), fixture.path.join("b/two")).unwrap();
            let options = ScanOptions { checksum, ..ScanOptions::default() };
            let mut dirs = Vec::new();
            scan(&fixture.root, &options, &SystemOwners::new(), &mut |dir| {
                if dir.path == path("a") {
                    fs::write(fixture.path.join("a/one"), "later").unwrap();
                    fs::set_permissions(fixture.path.join("a/one"), fs::Permissions::from_mode(0o601)).unwrap();
                    let file = fs::File::options().write(true).open(fixture.path.join("a/one")).unwrap();
                    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
                }
                dirs.push(dir);
                Ok(())
            })
            .unwrap();
            let (one, two) = (&dirs[1].nodes[0], &dirs[2].nodes[0]);
            assert_ne!({ one.meta.mtime.secs }, 0, "it was seen before");
            assert_eq!(two.meta, one.meta);
            assert!(two.same_content(one) && two.kind.link() == Some(&path("a/one")));
        }
    }

    #[test]
    fn what_cannot_be_read_is_reported_and_the_rest_listed() {
        if !is_unprivileged("tree::scan::tests::what_cannot_be_read_is_reported_and_the_rest_listed") {
            return;
        }
        let fixture = Fixture::with(&["a", "a/f=x", "b", "b/f=x", "c", "c/f=x", "d=x"]);
        let mode = |name: &str, mode| fs::set_permissions(fixture.path.join(name), fs::Permissions::from_mode(mode));
        mode("a", 0o000).unwrap();
        mode("b", 0o400).unwrap();
        mode("d", 0o000).unwrap();
        let options = ScanOptions { checksum: true, ..ScanOptions::default() };
        let (listing, report) = scanned(&fixture, &options);
        let shown = |problems: &[Problem]| -> Vec<_> {
            problems.iter().map(|problem| (problem.path.to_string(), problem.kind)).collect()
        };
        mode("a", 0o700).unwrap();
        mode("b", 0o700).unwrap();
        assert_eq!(dir_paths(&listing), [".", "b", "c"]);
        assert_eq!(listing.dirs[0].nodes.len(), 4);
        let unreadable = ProblemKind::Unreadable;
        assert_eq!(shown(&report.unreadable), [("a".to_owned(), unreadable), ("b/f".to_owned(), unreadable)]);
        assert_eq!(shown(&report.problems), [("d".to_owned(), unreadable)]);
    }

    #[test]
    fn a_directory_that_vanishes_or_becomes_a_link_in_the_middle_is_reported_not_followed() {
        let fixture = Fixture::with(&["a", "b", "b/f=x", "c"]);
        let report = scan(&fixture.root, &ScanOptions::default(), &SystemOwners::new(), &mut |dir| {
            if dir.path == path("a") {
                fs::remove_dir_all(fixture.path.join("b")).unwrap();
                fs::remove_dir(fixture.path.join("c")).unwrap();
                symlink(&fixture.outside, fixture.path.join("c")).unwrap();
            }
            assert!(dir.find(b"secret").is_none());
            Ok(())
        });
        let report = report.unwrap();
        let found: Vec<_> = report.unreadable.iter().map(|problem| (problem.path.clone(), problem.kind)).collect();
        assert_eq!(found, [(path("b"), ProblemKind::Vanished), (path("c"), ProblemKind::Vanished)]);
    }

    #[test]
    fn a_tree_deeper_than_the_held_directories_and_than_any_path_is_scanned_as_far_as_names_go() {
        let fixture = Fixture::new();
        let mut dir = fixture.root.dir(&RelPath::root()).unwrap();
        for _ in 0..2100 {
            dir.mkdir(b"d", 0o755).unwrap();
            dir = dir.open_dir(b"d").unwrap();
        }
        let (listing, report) = scanned(&fixture, &ScanOptions::default());
        assert_eq!(listing.dirs.len(), 1 + 2048);
        assert_eq!(report.problems.len(), 1);
        assert_eq!(report.problems[0].kind, ProblemKind::Unsupported);
        assert!(report.unreadable.is_empty());
    }
}
