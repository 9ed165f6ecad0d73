//! A tree in memory, scanned as a filesystem is, and what the index says of it.

use std::collections::BTreeMap;

use rusqlite::StatementStatus;

use super::*;
use crate::model::{Attribute, Attributes, Changes, Digest, Inode, Kind, Meta, Node, RelPath, Seen, Timestamp};

/// What a path is: its inode and, for files, the size.
type Tree = BTreeMap<&'static str, (u64, Option<u64>)>;

fn identity() -> Identity {
    Identity { machine: "m".into(), path: "/src".into(), filter: String::new(), attributes: true, source: (1, 2, 3) }
}

fn seen(name: &str, ino: u64, size: Option<u64>, shared: bool) -> Seen {
    let kind = size.map_or(Kind::Directory, Kind::file);
    let meta = Meta { mode: 0o644, mtime: Timestamp { secs: 7, nanos: 1 }, ..Meta::default() };
    let node = Node { name: name.as_bytes().into(), kind, meta };
    Seen { node, inode: Inode { dev: 1, ino, shared, ctime: Timestamp { secs: 7, nanos: 1 } } }
}

/// Sees nothing but what a listing shows.
struct Blind;

impl Look for Blind {
    fn content(&mut self, _: &Seen) -> Option<Digest> {
        None
    }
    fn attributes(&mut self, _: &Seen) -> Option<Attributes> {
        Some(Attributes::default())
    }
}

fn scan(index: &mut Index, tree: &Tree, stamp: u64) -> Summary {
    let mut merge = index.merge(Timestamp { secs: 100, nanos: 0 }).unwrap();
    let links = |ino: u64| tree.values().filter(|(other, size)| *other == ino && size.is_some()).count();
    let mut dirs: Vec<(RelPath, u64)> = vec![(RelPath::root(), 1)];
    let subdirectories = tree.iter().filter(|(_, (_, size))| size.is_none());
    dirs.extend(subdirectories.map(|(path, (ino, _))| (RelPath::new(path.as_bytes()).unwrap(), *ino)));
    dirs.sort();
    for (path, ino) in dirs {
        let children = tree.iter().filter_map(|(child, (ino, size))| {
            let child = RelPath::new(child.as_bytes()).unwrap();
            let (parent, name) = child.split()?;
            (parent == path).then(|| seen(std::str::from_utf8(name).unwrap(), *ino, *size, links(*ino) > 1))
        });
        let mut entries: Vec<Seen> = children.collect();
        entries.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        merge.directory(&path, &seen("", ino, None, false), &mut entries, &mut Blind).unwrap();
    }
    merge.finish(Stamp(stamp)).unwrap()
}

fn names(index: &Index) -> Vec<String> {
    let mut found = Vec::new();
    let shared = index.shared_files().unwrap();
    index
        .each_directory(&shared, &mut |dir| {
            for node in &dir.nodes {
                let link = node.kind.link().map(|link| format!("={link}")).unwrap_or_default();
                found.push(format!("{}{link}", dir.path.join(&node.name).unwrap()));
            }
        })
        .unwrap();
    found.sort();
    found
}

fn told(changes: &Changes) -> (Vec<String>, Vec<String>) {
    let of = |versions: &[crate::model::Version]| {
        let mut all: Vec<_> = versions.iter().map(|one| String::from_utf8_lossy(&one.node.name).into_owned()).collect();
        all.sort();
        all
    };
    (of(&changes.now), of(&changes.then))
}

fn fresh() -> (tempfile::TempDir, Index) {
    let directory = tempfile::tempdir().unwrap();
    let (index, condition) = Index::open(&directory.path().join("i.db"), &identity()).unwrap();
    assert_eq!(condition, Condition::New);
    (directory, index)
}

#[test]
fn what_was_scanned_is_what_is_listed_and_nothing_changed_is_nothing_written() {
    let (_directory, mut index) = fresh();
    let tree = Tree::from([
        ("a", (2, None)),
        ("a/f", (3, Some(1))),
        ("b", (4, None)),
        ("b/g", (3, Some(1))),
        ("x", (5, Some(9))),
    ]);
    let first = scan(&mut index, &tree, 1);
    assert_eq!(names(&index), ["a", "a/f", "b", "b/g=a/f", "x"]);
    assert_eq!((first.entries, first.changes), (5, 6));
    let second = scan(&mut index, &tree, 2);
    assert_eq!((second.changes, second.position), (0, first.position));
    assert!(index.knows(first.position).unwrap());
    assert!(!index.knows(Position { stamp: Stamp(2), ..first.position }).unwrap());
    assert!(!index.knows(Position::default()).unwrap());
}

#[test]
fn a_file_that_changes_between_the_looks_at_two_of_its_names_is_recorded_as_it_was_first_seen() {
    let (_directory, mut index) = fresh();
    let tree = Tree::from([("a", (2, None)), ("a/f", (3, Some(1))), ("b", (4, None)), ("b/g", (3, Some(1)))]);
    let first = scan(&mut index, &tree, 1);
    let path = |name: &str| RelPath::new(name.as_bytes()).unwrap();
    let file = |name, (mode, secs)| {
        let mut file = seen(name, 3, Some(1), true);
        file.node.meta.mode = mode;
        (file.node.meta.mtime.secs, file.inode.ctime.secs) = (secs, secs);
        file
    };
    let mut survey = |f: Seen, g: Seen, stamp| {
        let mut merge = index.merge(Timestamp { secs: 100, nanos: 0 }).unwrap();
        let mut root = [seen("a", 2, None, false), seen("b", 4, None, false)];
        merge.directory(&RelPath::root(), &seen("", 1, None, false), &mut root, &mut Blind).unwrap();
        merge.directory(&path("a"), &seen("", 2, None, false), &mut [f], &mut Blind).unwrap();
        merge.directory(&path("b"), &seen("", 4, None, false), &mut [g], &mut Blind).unwrap();
        merge.finish(Stamp(stamp)).unwrap()
    };
    let (before, after) = ((0o644, 7), (0o600, 50));
    assert_eq!(survey(file("f", before), file("g", after), 2).changes, 0, "nothing but its second name has changed");
    assert_eq!(survey(file("f", after), file("g", after), 3).changes, 2, "the next scan finds both");
    let changes = index.changes_since(first.position).unwrap();
    let states = |versions: &[crate::model::Version]| {
        versions.iter().map(|one| (one.node.meta.mode, one.node.meta.mtime.secs)).collect::<Vec<_>>()
    };
    assert_eq!((states(&changes.then), states(&changes.now)), (vec![before; 2], vec![after; 2]));
}

#[test]
fn names_that_are_recorded_in_different_states_are_not_one_file() {
    let (_directory, mut index) = fresh();
    let tree = Tree::from([("a", (2, None)), ("a/f", (3, Some(1))), ("a/g", (3, Some(1))), ("h", (3, Some(1)))]);
    scan(&mut index, &tree, 1);
    assert_eq!(names(&index), ["a", "a/f=h", "a/g=h", "h"]);
    // The file is written to, and its directory is listed in the root but gone when it is to be looked into.
    let mut merge = index.merge(Timestamp { secs: 100, nanos: 0 }).unwrap();
    let mut root = [seen("a", 2, None, false), seen("h", 3, Some(2), true)];
    merge.directory(&RelPath::root(), &seen("", 1, None, false), &mut root, &mut Blind).unwrap();
    merge.finish(Stamp(2)).unwrap();
    assert_eq!(names(&index), ["a", "a/f", "a/g=a/f", "h"]);
}

#[test]
fn a_directory_that_moves_is_one_change_whatever_it_holds() {
    let (_directory, mut index) = fresh();
    let tree = Tree::from([("a", (2, None)), ("a/d", (6, None)), ("a/d/f", (3, Some(1))), ("z", (4, None))]);
    let first = scan(&mut index, &tree, 1);
    let tree = Tree::from([("q", (2, None)), ("q/f", (3, Some(1))), ("z", (4, None)), ("z/e", (6, None))]);
    // `a` became `q`, `a/d` became `z/e`, and `f` moved from one to the other.
    let second = scan(&mut index, &tree, 2);
    assert_eq!(names(&index), ["q", "q/f", "z", "z/e"]);
    let changes = index.changes_since(first.position).unwrap();
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&changes), (owned(&["e", "f", "q"]), owned(&["a", "d", "f"])));
    assert_eq!((changes.entries_then, second.entries), (4, 4));
}

#[test]
fn every_point_of_a_history_keeps_what_was_there() {
    let (_directory, mut index) = fresh();
    let trees = [
        Tree::from([("a", (2, None)), ("a/f", (3, Some(1)))]),
        Tree::from([("a", (2, None)), ("a/f", (3, Some(2))), ("n", (9, Some(1)))]),
        Tree::from([("a", (8, Some(5))), ("n", (9, Some(1)))]),
        Tree::from([("a", (8, Some(5)))]),
    ];
    let points: Vec<Position> = (1..).zip(&trees).map(|(stamp, tree)| scan(&mut index, tree, stamp).position).collect();
    let since = |at: usize| told(&index.changes_since(points[at]).unwrap());
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(since(0), (owned(&["a"]), owned(&["a", "f"])));
    assert_eq!(since(1), (owned(&["a"]), owned(&["a", "f", "n"])));
    assert_eq!(since(2), (owned(&[]), owned(&["n"])));
    assert_eq!(since(3), (owned(&[]), owned(&[])));
}

#[test]
fn the_past_goes_when_all_have_passed_it() {
    let (_directory, mut index) = fresh();
    let mut tree = Tree::from([("f", (3, Some(1)))]);
    let first = scan(&mut index, &tree, 1).position;
    tree.insert("f", (3, Some(2)));
    let second = scan(&mut index, &tree, 2).position;
    let at = |sequence| HostRecord { sequence, seen: 1000, ..HostRecord::default() };
    index.set_host("fast", &at(second.sequence)).unwrap();
    index.set_host("slow", &at(first.sequence)).unwrap();
    index.forget_the_past(1000).unwrap();
    assert!(index.knows(first).unwrap());
    assert_eq!(told(&index.changes_since(first).unwrap()).1, ["f"]);
    // Not heard of for longer than anybody waits.
    index.set_host("fast", &HostRecord { seen: 100_000_000, ..at(second.sequence) }).unwrap();
    index.forget_the_past(100_000_000).unwrap();
    assert!(!index.knows(first).unwrap());
    assert!(index.knows(second).unwrap());
}

#[test]
fn an_index_of_something_else_is_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("i.db");
    let tree = Tree::from([("f", (3, Some(1)))]);
    let fill = || {
        let (mut index, _) = Index::open(&file, &identity()).unwrap();
        scan(&mut index, &tree, 1);
    };
    let reopened = |identity: &Identity| {
        let (index, condition) = Index::open(&file, identity).unwrap();
        (condition, index.entries().unwrap(), index.is_exchanged().unwrap())
    };
    fill();
    assert_eq!(reopened(&identity()), (Condition::Known, 1, false));
    let one_number = Identity { source: (9, 2, 3), ..identity() };
    assert_eq!(reopened(&one_number), (Condition::Known, 1, false));
    let other = Identity { source: (9, 2, 9), ..identity() };
    assert_eq!(reopened(&other), (Condition::OtherSource, 0, true));
    assert_eq!(reopened(&other), (Condition::Known, 0, true), "until a push of it was accepted");
    Index::open(&file, &other).unwrap().0.accept().unwrap();
    assert_eq!(reopened(&other), (Condition::Known, 0, false));
    assert_eq!(reopened(&Identity { machine: "n".into(), ..other.clone() }).0, Condition::OtherMachine);
    assert_eq!(reopened(&Identity { filter: "*.o".into(), machine: "n".into(), ..other }).0, Condition::OtherOptions);
    fill();
    for damage in [&b""[..], b"garbage", &[0; 5000]] {
        std::fs::write(&file, damage).unwrap();
        assert!(matches!(reopened(&identity()).0, Condition::Damaged | Condition::OtherVersion), "{damage:?}");
        fill();
    }
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    assert!(reopened(&identity()).0 != Condition::Known || scan_fails(&file));
    Index::open(&file, &identity()).unwrap().0.mark_damaged();
    assert_eq!(reopened(&identity()).0, Condition::Damaged);
}

fn scan_fails(file: &std::path::Path) -> bool {
    let (index, _) = Index::open(file, &identity()).unwrap();
    index.each_directory(&SharedFiles::default(), &mut |_| {}).is_err()
}

#[test]
fn a_scan_that_is_not_finished_has_not_happened() {
    let (_directory, mut index) = fresh();
    let tree = Tree::from([("f", (3, Some(1)))]);
    let before = scan(&mut index, &tree, 1).position;
    let mut merge = index.merge(Timestamp::default()).unwrap();
    merge.directory(&RelPath::root(), &seen("", 1, None, false), &mut [], &mut Blind).unwrap();
    drop(merge);
    assert_eq!(index.position().unwrap(), before);
    assert_eq!(names(&index), ["f"]);
}

/// Gives every entry one attribute, and counts how often it is asked.
struct Giving(&'static str, usize);

impl Look for Giving {
    fn content(&mut self, _: &Seen) -> Option<Digest> {
        None
    }
    fn attributes(&mut self, _: &Seen) -> Option<Attributes> {
        self.1 += 1;
        let one = |name: &str, value: &str| Attribute { name: name.into(), value: value.into() };
        // One that has none to give cannot be asked.
        (!self.0.is_empty()).then(|| Attributes::new(vec![one("trusted.b", ""), one("user.a", self.0)]).unwrap())
    }
}

#[test]
fn attributes_are_asked_for_only_where_something_changed() {
    let (_directory, mut index) = fresh();
    let mut pass = |value: &'static str, ctime: i64, stamp: u64| {
        let mut merge = index.merge(Timestamp { secs: 100, nanos: 0 }).unwrap();
        let mut entries = [seen("d", 2, None, false), seen("f", 3, Some(1), false)];
        entries[1].inode.ctime = Timestamp { secs: ctime, nanos: 1 };
        let mut look = Giving(value, 0);
        merge.directory(&RelPath::root(), &seen("", 1, None, false), &mut entries, &mut look).unwrap();
        let below = RelPath::new(b"d").unwrap();
        merge.directory(&below, &seen("d", 2, None, false), &mut [], &mut look).unwrap();
        let summary = merge.finish(Stamp(stamp)).unwrap();
        let mut found = Vec::new();
        index
            .each_directory(&SharedFiles::default(), &mut |dir| {
                let value = |node: &Node| node.meta.attributes.get(b"user.a").map(<[u8]>::to_vec);
                found.extend(dir.nodes.iter().map(value));
            })
            .unwrap();
        (summary.changes, look.1, found)
    };
    let values = |d: &str, f: &str| vec![Some(d.as_bytes().to_vec()), Some(f.as_bytes().to_vec())];
    // The root is the third.
    assert_eq!(pass("1", 7, 1), (3, 2, values("1", "1")));
    assert_eq!(pass("2", 7, 2), (0, 0, values("1", "1")));
    assert_eq!(pass("2", 8, 3), (1, 1, values("1", "2")));
    assert_eq!(pass("", 9, 4).1, 1, "could not be asked");
    assert_eq!(pass("3", 9, 5), (1, 1, values("1", "3")), "and is asked again, although it did not change since");
}

#[test]
fn what_was_read_and_is_not_what_is_recorded_is_taken_as_changed_under_all_names() {
    let (_directory, mut index) = fresh();
    let path = |name: &str| RelPath::new(name.as_bytes()).unwrap();
    let tree = Tree::from([
        ("d", (2, None)),
        ("d/f", (3, Some(1))),
        ("d/g", (3, Some(1))),
        ("h", (4, Some(1))),
        ("i", (5, Some(1))),
    ]);
    let first = scan(&mut index, &tree, 1).position;
    let digest = Digest::of(b"read");
    let as_recorded = seen("i", 5, Some(1), false);
    // A file that is recorded in no other way than it was read stays as it is.
    index.note_digests(&[(path("i"), as_recorded, digest)]).unwrap();
    assert_eq!(scan(&mut index, &tree, 2).changes, 0);
    let others = [("d/f", 8, false), ("h", 4, true)].map(|(name, ino, shared)| {
        let name = path(name);
        let read = seen(std::str::from_utf8(name.name()).unwrap(), ino, Some(1), shared);
        (name, read, digest)
    });
    index.note_digests(&others).unwrap();
    let mut moved = tree.clone();
    moved.retain(|path, _| !path.starts_with('d'));
    moved.extend([("e", (2, None)), ("e/f", (3, Some(1))), ("e/g", (3, Some(1)))]);
    scan(&mut index, &moved, 3);
    let changes = index.changes_since(first).unwrap();
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&changes), (owned(&["e", "f", "g", "h"]), owned(&["d", "f", "g", "h"])));
    let content = changes.now.iter().zip(&changes.then).filter(|(now, _)| now.own.is_none());
    for (now, then) in content {
        assert!(!now.node.same_content(&then.node), "it is sent, although size and time are the same");
        assert!(then.doubtful && !now.doubtful && then.digest.is_none());
    }
}

#[test]
fn a_directory_is_read_by_a_statement_that_is_planned_once() {
    let (_directory, mut index) = fresh();
    let tree = Tree::from([("a", (2, None)), ("a/f", (3, Some(1))), ("b", (4, None)), ("c", (5, None))]);
    for stamp in 1..=3 {
        scan(&mut index, &tree, stamp);
    }
    let statement = index.db.prepare_cached(merge::ROWS_OF_A_DIRECTORY).unwrap();
    let of = |what| statement.get_status(what);
    assert_eq!((of(StatementStatus::Run), of(StatementStatus::RePrepare)), (12, 0));
}
