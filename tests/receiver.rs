//! What a receiver does with each change, by what is on disk and what it answers: a script plays the primary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rfleet::model::{Digest, Expected, Hasher, Holes, Position, ProblemKind, Sequence, SpecialKind, Stamp};
use rfleet::wire::{BlockWriter, Change, Committed, FrameKind, Record, RefusalKind, ToReceiver, encode, frame_bytes};
use support::primary::{meta, path, seen, time};
use support::{Primary, Scratch};

/// A root, and a place for the receivers of it.
struct Story {
    scratch: Scratch,
    root: PathBuf,
}

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        Self { scratch, root }
    }

    /// With `name=text` for a file, `name>target` for a link, `name/` for a directory.
    fn with(entries: &[&str]) -> Self {
        let story = Self::new();
        for entry in entries {
            if let Some((name, text)) = entry.split_once('=') {
                fs::write(story.at(name), text).unwrap();
            } else if let Some((name, target)) = entry.split_once('>') {
                symlink(target, story.at(name)).unwrap();
            } else {
                fs::create_dir(story.at(entry)).unwrap();
            }
        }
        story
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn was(&self, name: &str) -> Expected {
        seen(&self.at(name))
    }

    /// A session of a push without configuration, after its `Begin`.
    fn begin(&self, deletions: u64) -> Primary {
        let mut primary = Primary::adhoc(&self.scratch, &self.root);
        primary.begin(deletions);
        primary
    }

    fn fleet(&self) -> Primary {
        let mut primary = Primary::of_fleet(&self.scratch, &self.root);
        primary.begin(9);
        primary
    }

    /// The only session's directory in the attic.
    fn attic(&self) -> PathBuf {
        let sessions: Vec<_> = fs::read_dir(self.at(".rfleet/attic")).unwrap().map(|one| one.unwrap().path()).collect();
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions[0].clone()
    }

    /// Everything below `dir`, relative, sorted, `.rfleet` of the root left out.
    fn names_in(dir: &Path) -> Vec<String> {
        let mut names = Vec::new();
        let mut ahead = vec![dir.to_owned()];
        while let Some(next) = ahead.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let entry = entry.unwrap();
                if entry.file_name() == ".rfleet" {
                    continue;
                }
                names.push(entry.path().strip_prefix(dir).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    ahead.push(entry.path());
                }
            }
        }
        names.sort();
        names
    }

    fn names(&self) -> Vec<String> {
        Self::names_in(&self.root)
    }

    /// Nothing of rfleet is left.
    fn assert_clean(&self) {
        assert!(!self.at(".rfleet").exists(), "{:?}", Self::names_in(&self.at(".rfleet")));
    }
}

fn position(sequence: u64) -> Position {
    Position { sequence: Sequence(sequence), stamp: Stamp(77) }
}

fn nowhere() -> Position {
    Position::default()
}

/// Kinds and paths of the problems, sorted.
fn problems(committed: &Committed) -> Vec<(String, ProblemKind)> {
    let mut all: Vec<_> = committed.problems.iter().map(|one| (one.path.to_string(), one.kind)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn conflicts(names: &[&str]) -> Vec<(String, ProblemKind)> {
    names.iter().map(|name| ((*name).to_owned(), ProblemKind::Conflict)).collect()
}

fn expect(name: &str, was: Expected) -> Change {
    Change::Expect { path: path(name), was }
}

fn remove(name: &str, was: Expected) -> Change {
    Change::Remove { path: path(name), was }
}

fn move_to(from: &str, to: &str, exchange: bool) -> Change {
    Change::Move { from: path(from), to: path(to), exchange }
}

/// `name` gets what is at `from`, which is `content`.
fn reuse(name: &str, was: Expected, from: &str, content: Expected) -> Change {
    let Expected::File { size_bytes, mtime } = content else { panic!("{from} is no file") };
    let meta = rfleet::model::Meta { mtime, ..meta(0o640, 0) };
    Change::Reuse { path: path(name), was, from: path(from), size_bytes, mtime, meta }
}

/// A time that nothing here has.
fn other_time(was: Expected) -> Expected {
    match was {
        Expected::File { size_bytes, .. } => Expected::File { size_bytes, mtime: time(1) },
        _ => Expected::Symlink { mtime: time(1) },
    }
}

#[test]
fn content_replaces_what_is_expected_and_leaves_nothing_behind() {
    let story = Story::with(&["file=old", "link>old", "same=new"]);
    let mut primary = story.begin(0);
    let expected = ["file", "link", "gone"].map(|name| expect(name, story.was(name)));
    primary.changes(expected);
    for name in ["file", "link", "fresh", "gone"] {
        primary.content(name, "new", 7);
    }
    // An earlier push came so far and was interrupted.
    fs::File::open(story.at("same"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(7, 5))
        .unwrap();
    primary.content("same", "new", 7);
    assert_eq!(primary.resend(), []);
    let committed = primary.finish(nowhere());
    assert_eq!((committed.drifted, committed.problems.len(), committed.notes.len()), (0, 0, 0), "{committed:?}");
    for name in ["file", "link", "fresh", "gone", "same"] {
        assert_eq!((story.text(name), fs::symlink_metadata(story.at(name)).unwrap().mtime()), ("new".into(), 7));
    }
    story.assert_clean();
}

#[test]
fn what_was_not_expected_is_kept_aside_and_named() {
    let story = Story::with(&["d/", "d/file=by hand", "d/changed=by hand", "link>by hand", "removed=by hand", "dir/"]);
    fs::set_permissions(story.at("d/file"), fs::Permissions::from_mode(0o604)).unwrap();
    let inodes =
        ["d/file", "d/changed", "link", "removed"].map(|name| fs::symlink_metadata(story.at(name)).unwrap().ino());
    let mut primary = story.begin(1);
    let pid = primary.pid();
    primary.changes([
        expect("d/changed", other_time(story.was("d/changed"))),
        expect("dir", other_time(story.was("d/file"))),
    ]);
    for name in ["d/file", "d/changed", "dir"] {
        primary.content(name, "new", 7);
    }
    primary.resend();
    let target = b"new".as_slice().into();
    let link = Change::Symlink { path: path("link"), target, meta: meta(0, 7), was: other_time(story.was("link")) };
    primary.changes([link, remove("removed", other_time(story.was("removed")))]);
    let committed = primary.finish(nowhere());
    assert_eq!((committed.drifted, problems(&committed)), (5, conflicts(&["dir"])));
    assert_eq!([story.text("d/file"), story.text("d/changed")], ["new", "new"]);
    assert_eq!(fs::read_link(story.at("link")).unwrap(), Path::new("new"));
    assert!(story.at("dir").is_dir() && !story.at("removed").exists());

    let attic = story.attic();
    let name = attic.file_name().unwrap().to_str().unwrap();
    let (moment, process) = name.split_once("Z-").unwrap();
    let digits = moment.split_once('T').map(|(day, clock)| (day.len(), clock.len()));
    assert_eq!((digits, process), (Some((8, 6)), pid.to_string().as_str()), "{name}");
    assert_eq!(Story::names_in(&attic), ["d", "d/changed", "d/file", "link", "removed"]);
    let kept =
        ["d/file", "d/changed", "link", "removed"].map(|name| fs::symlink_metadata(attic.join(name)).unwrap().ino());
    assert_eq!(kept, inodes);
    assert_eq!(fs::metadata(attic.join("d/file")).unwrap().mode() & 0o7777, 0o604);
    for dir in [story.at(".rfleet"), story.at(".rfleet/attic"), attic.clone(), attic.join("d")] {
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700, "{}", dir.display());
    }
    let note = format!("kept in .rfleet/attic/{name}: d/file, d/changed, link, removed");
    assert!(committed.notes.iter().any(|told| told.ends_with(&note)), "{:?}", committed.notes);
    assert_eq!(fs::read_dir(story.at(".rfleet")).unwrap().count(), 1, "only the attic stays");

    // The next session has nothing to do with it.
    let mut primary = story.begin(0);
    primary.content("other", "new", 7);
    primary.resend();
    assert_eq!(primary.finish(nowhere()).drifted, 0);
    assert_eq!(story.attic(), attic);
}

#[test]
fn twenty_are_named_and_the_others_counted() {
    let story = Story::new();
    let mut primary = story.begin(0);
    for at in 0..23 {
        fs::write(story.at(&format!("f{at:02}")), "by hand").unwrap();
        primary.content(&format!("f{at:02}"), "new", 7);
    }
    primary.resend();
    let committed = primary.finish(nowhere());
    assert_eq!(committed.drifted, 23);
    let [note] = committed.notes.as_slice() else { panic!("{:?}", committed.notes) };
    assert!(note.contains("f00, f01") && note.ends_with("f18, f19 and 3 more"), "{note}");
}

#[test]
fn attributes_are_set_only_on_what_they_are_for() {
    let story = Story::with(&["right=text", "done=text", "changed=text", "longer=text!", "link>x", "other>x", "dir/"]);
    let was = story.was("right");
    let changes = ["right", "done", "changed", "longer", "link", "other", "dir", "gone"].map(|name| {
        let was = match name {
            "link" => story.was("link"),
            "other" => other_time(story.was("other")),
            "changed" => other_time(was),
            _ => was,
        };
        Change::SetMeta { path: path(name), meta: meta(0o600, 9), was }
    });
    // As an interrupted push has left it.
    fs::File::open(story.at("done"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(9, 5))
        .unwrap();
    let before = ["changed", "longer", "other"].map(|name| fs::symlink_metadata(story.at(name)).unwrap().ctime_nsec());
    let mut primary = story.begin(0);
    primary.changes(changes);
    let committed = primary.finish(nowhere());
    let mut expected = conflicts(&["changed", "dir", "gone", "longer", "other"]);
    expected[2].1 = ProblemKind::Vanished;
    assert_eq!((problems(&committed), committed.drifted), (expected, 5));
    let told = committed.problems.iter().find(|problem| problem.path == path("changed")).unwrap();
    assert_eq!(told.detail, "its content is not what it should be");
    for name in ["right", "done"] {
        let found = fs::metadata(story.at(name)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o600, 9), "{name}");
    }
    assert_eq!(fs::symlink_metadata(story.at("link")).unwrap().mtime(), 9);
    let after = ["changed", "longer", "other"].map(|name| fs::symlink_metadata(story.at(name)).unwrap().ctime_nsec());
    assert_eq!(after, before, "nothing was set");
    story.assert_clean();
}

#[test]
fn links_and_directories_take_the_place_of_what_is_expected() {
    let story = Story::with(&["to=text", "a=old", "b=by hand", "c=old", "d=by hand"]);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| story.was(name));
    let link = |name: &str, was| Change::Link { path: path(name), to: path("to"), was };
    let make = |name: &str, was| Change::MakeDirectory { path: path(name), was };
    let mut primary = story.begin(0);
    primary.changes([make("c", c), make("d", other_time(d)), make("c", Expected::Nothing)]);
    primary.changes([link("a", a), link("b", other_time(b)), link("fresh", Expected::Nothing)]);
    let committed = primary.finish(nowhere());
    assert_eq!((committed.drifted, committed.problems.len()), (2, 0), "{committed:?}");
    assert_eq!(fs::metadata(story.at("to")).unwrap().nlink(), 4);
    assert!(story.at("c").is_dir() && story.at("d").is_dir());
    assert_eq!(Story::names_in(&story.attic()), ["b", "d"]);
}

#[test]
fn removals_take_only_what_they_name() {
    let story = Story::with(&["full/", "full/x=by hand", "empty/", "file=x", "dir-now/", "file-now=x", "gone/"]);
    let file = story.was("file");
    fs::remove_dir(story.at("gone")).unwrap();
    let mut primary = story.begin(6);
    primary.changes([
        remove("full", Expected::Directory),
        remove("empty", Expected::Directory),
        remove("file", file),
        remove("dir-now", file),
        remove("file-now", Expected::Directory),
        remove("gone", Expected::Directory),
    ]);
    let committed = primary.finish(nowhere());
    assert_eq!((problems(&committed), committed.drifted), (conflicts(&["dir-now", "file-now", "full"]), 3));
    assert_eq!(story.names(), ["dir-now", "file-now", "full", "full/x"]);
    story.assert_clean();
}

#[test]
fn directories_move_before_anything_else() {
    let story = Story::with(&["a/", "a/x=a", "b/", "b/y=b", "f=file", "d/", "d/z=d"]);
    let mut primary = story.begin(0);
    let make = Change::MakeDirectory { path: path("new"), was: Expected::Nothing };
    primary.changes([make, move_to("a", "new/a", false)]);
    primary.changes([move_to("b", "f", true), move_to("d", "a", false), move_to("a", "d", false)]);
    // The paths are those after the moves.
    primary.content("new/a/fresh", "new", 7);
    primary.resend();
    let committed = primary.finish(nowhere());
    assert_eq!((committed.drifted, committed.problems.len()), (0, 0), "{committed:?}");
    assert_eq!(story.names(), ["b", "d", "d/z", "f", "f/y", "new", "new/a", "new/a/fresh", "new/a/x"]);
    assert_eq!((story.text("b"), story.text("f/y")), ("file".into(), "b".into()));
    story.assert_clean();
}

#[test]
fn a_move_that_does_not_fit_does_nothing() {
    let story = Story::with(&["a/", "a/x=a", "b/", "f=file", "l>a"]);
    let before = story.names();
    let mut primary = story.begin(0);
    primary.changes([
        move_to("none", "missing-source", false),
        move_to("f", "file-source", false),
        move_to("l", "link-source", false),
        move_to("a", "b", false),
        move_to("a", "missing-target", true),
        move_to("a", "none/x", false),
    ]);
    let committed = primary.finish(nowhere());
    let expected = conflicts(&["b", "file-source", "link-source", "missing-source", "missing-target", "none/x"]);
    assert_eq!((problems(&committed), committed.drifted), (expected, 6));
    assert_eq!(story.names(), before);
    story.assert_clean();
}

#[test]
fn a_move_out_of_order_or_into_itself_ends_the_session() {
    let story = Story::with(&["a/", "a/b/", "f=x", "g=x"]);
    let before = story.names();
    let f = story.was("f");
    let link = Change::Link { path: path("l"), to: path("none"), was: Expected::Nothing };
    let first = [
        expect("f", f),
        reuse("h", Expected::Nothing, "g", story.was("g")),
        link,
        Change::ReplaceDirectory { path: path("a"), entries: 2 },
        Change::SetMeta {
            path: path("f"),
            meta: rfleet::model::Meta { mtime: time(3), ..meta(0o644, 3) },
            was: other_time(f),
        },
        Change::SetDirectoryMeta { path: path(""), meta: meta(0o755, 7) },
        remove("none", f),
    ];
    for change in first {
        let mut primary = story.begin(9);
        primary.changes([change.clone(), move_to("a", "z", false)]);
        let refusal = primary.refused();
        assert_eq!(refusal.kind, RefusalKind::BadRequest, "{change:?}");
        assert!(refusal.message.contains("the move of a directory after other changes"), "{}", refusal.message);
    }
    let mut primary = story.begin(0);
    primary.content("c", "new", 7);
    primary.changes([move_to("a", "z", false)]);
    assert_eq!(primary.refused().kind, RefusalKind::BadRequest);
    let mut primary = story.begin(0);
    primary.resend();
    primary.changes([move_to("a", "z", false)]);
    assert_eq!(primary.refused().kind, RefusalKind::BadRequest);
    for (from, to) in [("", "z"), ("a", ""), ("a", "a"), ("a", "a/c"), ("a/b", "a")] {
        for exchange in [false, true] {
            let mut primary = story.begin(0);
            primary.changes([move_to(from, to, exchange)]);
            assert!(primary.refused().message.contains("into itself"), "{from} to {to}");
        }
    }
    assert_eq!(story.names(), before);
    story.assert_clean();
}

#[test]
fn names_that_lead_elsewhere_are_not_even_read() {
    let story = Story::with(&["d/", "d/x=x"]);
    fs::write(story.scratch.path("outside"), "sentinel").unwrap();
    for (name, hostile) in [("aa", ".."), ("aaaaaaa", ".rfleet"), ("aa/bbbbbbb", "../outside"), ("abbbb", "/root")] {
        for change in [
            move_to("d", name, false),
            move_to(name, "d", true),
            expect(name, Expected::Nothing),
            reuse(name, Expected::Nothing, "d/x", story.was("d/x")),
            reuse("c", Expected::Nothing, name, story.was("d/x")),
        ] {
            let mut bytes = encode(&ToReceiver::Changes(vec![change]));
            let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
            bytes[at..at + name.len()].copy_from_slice(hostile.as_bytes());
            let mut primary = story.begin(9);
            primary.send_bytes(&bytes);
            primary.ended_badly();
        }
    }
    assert_eq!(story.names(), ["d", "d/x"]);
    assert_eq!(fs::read_to_string(story.scratch.path("outside")).unwrap(), "sentinel");
    story.assert_clean();
}

#[test]
fn files_change_their_names_without_their_content() {
    let story = Story::with(&["a=one", "b=other", "from=moved", "d/", "c=chain"]);
    let [a, b, from, c] = ["a", "b", "from", "c"].map(|name| story.was(name));
    let inodes = ["b", "a", "from"].map(|name| fs::metadata(story.at(name)).unwrap().ino());
    let mut primary = story.begin(1);
    // In messages of their own: all are staged before the first is placed.
    for change in [
        reuse("a", a, "b", b),
        reuse("b", b, "a", a),
        reuse("d/to", Expected::Nothing, "from", from),
        reuse("kept", Expected::Nothing, "c", c),
        expect("c", c),
    ] {
        primary.changes([change]);
    }
    primary.content("c", "new", 7);
    assert_eq!(primary.resend(), []);
    primary.changes([remove("from", from)]);
    let committed = primary.finish(nowhere());
    assert_eq!((committed.drifted, committed.problems.len()), (0, 0), "{committed:?}");
    assert_eq!([story.text("a"), story.text("b"), story.text("d/to")], ["other", "one", "moved"]);
    assert_eq!([story.text("kept"), story.text("c")], ["chain", "new"]);
    assert!(!story.at("from").exists());
    for (name, inode) in ["a", "b", "d/to"].into_iter().zip(inodes) {
        let found = fs::metadata(story.at(name)).unwrap();
        assert_eq!((found.ino(), found.nlink(), found.mode() & 0o7777), (inode, 1, 0o640), "{name}");
    }
    story.assert_clean();
}

#[test]
fn what_cannot_be_reused_is_asked_for() {
    let story = Story::with(&["file=text", "dir/", "link>file", "taken=by hand", "kept=old"]);
    let (file, kept) = (story.was("file"), story.was("kept"));
    let Expected::File { size_bytes, mtime } = file else { panic!() };
    let longer = Expected::File { size_bytes: size_bytes + 1, mtime };
    let mut primary = story.begin(0);
    primary.changes([
        reuse("r1", Expected::Nothing, "none", file),
        reuse("r2", Expected::Nothing, "none/x", file),
        reuse("r3", Expected::Nothing, "dir", file),
        reuse("r4", Expected::Nothing, "link", file),
        reuse("r5", Expected::Nothing, "file", other_time(file)),
        reuse("kept", kept, "file", longer),
        reuse("taken", Expected::Nothing, "file", file),
        reuse("none/x", Expected::Nothing, "file", file),
    ]);
    let asked: Vec<String> = primary.resend().iter().map(ToString::to_string).collect();
    assert_eq!(asked, ["r1", "r2", "r3", "r4", "r5", "kept"]);
    for name in &asked {
        primary.content(name, "sent", 7);
    }
    assert_eq!(primary.resend(), []);
    let committed = primary.finish(nowhere());
    // What stands in the way of a reused file is kept as it is for any other; what was to be replaced is known still.
    assert_eq!(problems(&committed), [("none/x".to_owned(), ProblemKind::Vanished)]);
    assert_eq!(committed.drifted, 2);
    assert_eq!(Story::names_in(&story.attic()), ["taken"]);
    assert!(asked.iter().all(|name| story.text(name) == "sent"));
    assert_eq!(story.text("taken"), "text");
    assert_eq!(fs::metadata(story.at("file")).unwrap().nlink(), 2);
}

#[test]
fn a_reused_root_ends_the_session() {
    let story = Story::with(&["f=x"]);
    for (to, from) in [("", "f"), ("g", "")] {
        let mut primary = story.begin(0);
        primary.changes([reuse(to, Expected::Nothing, from, story.was("f"))]);
        assert_eq!(primary.refused().kind, RefusalKind::BadRequest);
    }
    assert_eq!(story.names(), ["f"]);
}

#[test]
fn a_directory_is_replaced_with_no_more_than_was_announced() {
    let entries = ["d/", "d/e/", "d/e/f=x", "e/", "e/x=x", "e/by-hand=x"];
    let story = Story::with(&entries);
    let replace = |name: &str, entries| Change::ReplaceDirectory { path: path(name), entries };
    let mut primary = story.begin(5);
    primary.changes([
        replace("d", 3),
        replace("e", 2),
        expect("d", Expected::Directory),
        expect("e", Expected::Directory),
    ]);
    for name in ["d", "e"] {
        primary.content(name, "new", 7);
    }
    primary.resend();
    let committed = primary.finish(nowhere());
    assert_eq!((problems(&committed), committed.drifted), (conflicts(&["e"]), 1));
    assert_eq!(story.text("d"), "new");
    assert_eq!(story.names(), ["d", "e", "e/by-hand", "e/x"]);
    story.assert_clean();
}

#[test]
fn deletions_beyond_the_announced_end_the_session() {
    let story = Story::with(&["a=x", "b=x", "d/", "d/f=x"]);
    let replace = |entries| Change::ReplaceDirectory { path: path("d"), entries };
    let a = story.was("a");
    for (announced, changes) in [
        (0, vec![remove("a", a)]),
        (0, vec![replace(1)]),
        (2, vec![replace(2), remove("a", a)]),
        (2, vec![replace(3)]),
        (2, vec![replace(u64::MAX)]),
    ] {
        let mut primary = story.begin(announced);
        primary.changes(changes.clone());
        let refusal = primary.refused();
        assert!(refusal.message.contains("more deletions than were announced"), "{changes:?}: {}", refusal.message);
    }
    assert_eq!(story.names(), ["a", "b", "d", "d/f"]);
    let mut primary = story.begin(1);
    primary.changes([remove("a", a), remove("b", story.was("b"))]);
    assert_eq!(primary.refused().kind, RefusalKind::BadRequest);
    assert_eq!(story.names(), ["b", "d", "d/f"]);
    story.assert_clean();
}

#[test]
fn changes_that_mean_nothing_end_the_session() {
    let story = Story::with(&["d/", "f=x"]);
    let set = |was| Change::SetMeta { path: path("d"), meta: meta(0o700, 7), was };
    for change in [
        remove("f", Expected::Nothing),
        remove("", Expected::Directory),
        set(Expected::Directory),
        set(Expected::Nothing),
        Change::Special { path: path("s"), kind: SpecialKind::Socket, meta: meta(0o600, 7), was: Expected::Nothing },
    ] {
        let mut primary = story.begin(9);
        primary.changes([change.clone()]);
        assert_eq!(primary.refused().kind, RefusalKind::BadRequest, "{change:?}");
    }
    let mut primary = Primary::adhoc(&story.scratch, &story.root);
    assert_eq!(primary.list().entries, 2);
    primary.send(&ToReceiver::List);
    assert_eq!(primary.refused().kind, RefusalKind::BadRequest);
    let mut primary = Primary::adhoc(&story.scratch, &story.root);
    primary.send(&ToReceiver::GetEntries { paths: vec![path("")] });
    assert_eq!(primary.refused().kind, RefusalKind::BadRequest);
    assert_eq!(story.names(), ["d", "f"]);
}

#[test]
fn the_position_is_known_only_while_it_is_true() {
    let story = Story::with(&["d/", "d/x=x"]);
    let known = |story: &Story| {
        let primary = Primary::of_fleet(&story.scratch, &story.root);
        let state = primary.welcome.state.clone();
        primary.kill();
        state.map(|state| (state.fleet, state.position))
    };
    let at = |position| Some(("cms".to_owned(), position));
    assert_eq!(known(&story), None);
    // From its first change on the root is the fleet's.
    let mut primary = story.fleet();
    primary.content("f", "one", 7);
    primary.resend();
    primary.kill();
    assert_eq!(known(&story), at(nowhere()));
    assert_eq!(story.fleet().finish(position(300)).position, position(300));
    assert_eq!(known(&story), at(position(300)));

    // Content and removals leave the position of a push that does not come to its end.
    let mut primary = story.fleet();
    primary.changes([expect("f", story.was("f"))]);
    primary.content("f", "two", 8);
    primary.resend();
    primary.kill();
    assert_eq!(known(&story), at(position(300)));

    // After a move, paths mean something else.
    let mut primary = story.fleet();
    primary.changes([move_to("d", "e", false)]);
    primary.resend();
    primary.kill();
    assert_eq!(story.text("e/x"), "x");
    assert_eq!(known(&story), at(nowhere()));

    // A push without configuration leaves the record, and a root that its fleet does not know.
    story.fleet().finish(position(301));
    assert_eq!(known(&story), at(position(301)));
    let primary = story.begin(0);
    assert_eq!(primary.welcome.state, None);
    primary.finish(nowhere());
    assert_eq!(known(&story), at(nowhere()));
}

/// What is kept aside survives however the session ends.
#[test]
fn what_is_kept_aside_stays_when_the_receiver_is_killed_or_refuses() {
    for kill in [true, false] {
        let story = Story::with(&["f=by hand"]);
        let mut primary = story.begin(0);
        primary.content("f", "new", 7);
        primary.resend();
        if kill {
            primary.kill();
        } else {
            primary.changes([remove("f", Expected::Nothing)]);
            primary.refused();
        }
        story.begin(0).finish(nowhere());
        assert_eq!(story.text("f"), "new");
        assert_eq!(fs::read_to_string(story.attic().join("f")).unwrap(), "by hand");
    }
}

/// Sends records without content.
fn send_records(primary: &mut Primary, records: &[Record]) {
    let mut block = BlockWriter::new();
    records.iter().for_each(|record| block.push(record, &[]));
    primary.send_bytes(&block.take_frame(None));
}

/// A hole is a length and no work: 2^60 bytes of zeros could not be hashed in this test's life.
#[test]
fn a_hole_of_any_length_costs_nothing() {
    const BYTES: u64 = 1 << 60;
    let story = Story::with(&[]);
    let mut holes = Holes::default();
    holes.add(0, BYTES);
    let mut hasher = Hasher::new();
    hasher.update(&holes.trailer().unwrap());
    let begin = || Record::Begin { path: path("f"), meta: meta(0o644, 7), size_bytes: BYTES, basis: None };
    let mut primary = story.begin(0);
    send_records(&mut primary, &[begin(), Record::Hole { bytes: BYTES }, Record::End { digest: hasher.finish() }]);
    assert!(primary.resend().is_empty());
    primary.finish(nowhere());
    let found = fs::metadata(story.root.join("f")).unwrap();
    assert_eq!((found.len(), found.blocks()), (BYTES, 0));

    // Another place or length of a hole is another content.
    let mut primary = story.begin(0);
    let parts = [Record::Hole { bytes: BYTES / 2 }, Record::Hole { bytes: BYTES / 2 }];
    let [first, second] = parts;
    send_records(&mut primary, &[begin(), first, second, Record::End { digest: hasher.finish() }]);
    assert_eq!(primary.resend(), [path("f")]);
    primary.kill();

    // What is more than announced, and a flood of holes, end the session.
    let too_long = vec![begin(), Record::Hole { bytes: BYTES }, Record::Hole { bytes: 1 }];
    let flood = [vec![begin()], vec![Record::Hole { bytes: 1 }; 100]].concat();
    for records in [too_long, flood, vec![begin(), Record::Hole { bytes: 0 }]] {
        let mut primary = story.begin(0);
        send_records(&mut primary, &records);
        let refusal = primary.refused();
        assert!(refusal.message.contains("a hole that does not fit its file"), "{}", refusal.message);
    }
    story.assert_clean();
}

/// Blocks of a full size, which are read ahead: the small file `wrong` is announced with another content in the third,
/// and a large file goes from the fourth to the sixth.
fn full_blocks(wrong: Option<&str>) -> Vec<Vec<u8>> {
    let large = noise(2_500_000);
    let mut pieces = large.chunks(900_000);
    let blocks = (0..6).map(|number| {
        let mut block = BlockWriter::new();
        let mut push = |name: &str, content: &[u8]| {
            let digest = if wrong == Some(name) { Digest([0; 32]) } else { Digest::of(content) };
            let record = Record::File { path: path(name), meta: meta(0o644, 7), bytes: content.len() as u64, digest };
            block.push(&record, content);
        };
        if number < 3 {
            (0..12).for_each(|at| push(&format!("f{number}-{at}"), &noise(90_000 + number * 100 + at)));
        } else {
            if number == 3 {
                (0..2).for_each(|at| push(&format!("f3-{at}"), &noise(90_000 + at)));
                let size_bytes = large.len() as u64;
                block.push(&Record::Begin { path: path("large"), meta: meta(0o644, 7), size_bytes, basis: None }, &[]);
            }
            let piece = pieces.next().unwrap();
            block.push(&Record::Data { bytes: piece.len() as u64 }, piece);
            if number == 5 {
                block.push(&Record::End { digest: Digest::of(&large) }, &[]);
            }
        }
        block.take_frame(Some(1).filter(|_| number % 2 == 1))
    });
    blocks.collect()
}

/// Bytes that differ with their number and do not repeat soon.
fn noise(bytes: usize) -> Vec<u8> {
    (bytes as u64..).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).take(bytes).collect()
}

#[test]
fn what_is_read_ahead_is_placed_in_order_and_judged_by_its_own_digest() {
    let story = Story::with(&[]);
    let mut primary = story.begin(0);
    full_blocks(Some("f2-5")).iter().for_each(|block| primary.send_bytes(block));
    assert_eq!(primary.resend(), [path("f2-5")]);
    assert!(!story.at("f2-5").exists());
    // What follows a message is taken as before, whole, up to the end.
    full_blocks(None)[..3].iter().for_each(|block| primary.send_bytes(block));
    assert!(primary.resend().is_empty());
    primary.changes([Change::Symlink {
        path: path("link"),
        target: b"large".as_slice().into(),
        meta: meta(0o777, 7),
        was: Expected::Nothing,
    }]);
    let committed = primary.finish(nowhere());
    assert_eq!((committed.problems, committed.drifted), (Vec::new(), 0));
    for (number, files) in [12, 12, 12, 2].into_iter().enumerate() {
        for at in 0..files {
            let bytes = if number < 3 { 90_000 + number * 100 + at } else { 90_000 + at };
            assert!(fs::read(story.at(&format!("f{number}-{at}"))).unwrap() == noise(bytes), "f{number}-{at}");
        }
    }
    assert!(fs::read(story.at("large")).unwrap() == noise(2_500_000));
    assert_eq!(fs::read_link(story.at("link")).unwrap(), Path::new("large"));
    story.assert_clean();
}

#[test]
fn a_link_that_breaks_while_it_is_read_ahead_leaves_nothing_half_done() {
    for damaged in [true, false] {
        let story = Story::with(&["f0-0=old"]);
        let mut primary = story.begin(0);
        let blocks = full_blocks(None);
        blocks[..4].iter().for_each(|block| primary.send_bytes(block));
        if damaged {
            primary.send_bytes(&frame_bytes(FrameKind::CompressedBlock, b"no zstd"));
            primary.ended_badly();
        } else {
            // In the middle of a block, and of a large file.
            primary.send_bytes(&blocks[4][..500_000]);
            primary.hang_up();
        }
        assert_eq!(story.names(), ["f0-0"]);
        assert_eq!(story.text("f0-0"), "old");
        story.assert_clean();
    }
}
