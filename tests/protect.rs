//! `[receive] protect`: nothing that a primary sends changes what a secondary protects. A script plays a primary that
//! does not care; then a real one that does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rfleet::delta::SignatureSpec;
use rfleet::model::{Expected, Kind, Meta, Position, ProblemKind, RelPath, SpecialKind};
use rfleet::wire::{Change, Committed, SignatureRequest, ToPrimary, ToReceiver};
use support::primary::{meta, path, seen};
use support::{Config, Outcome, Primary, Push, Scratch, Snapshot, Tree, assert_same, rfleet_bin, wait_until_old};

const PROTECT: &str = "devices = true\nprotect = [\"config.php\", \"/cache/\", \"*.local\", \"!kept.local\"]";

/// A root of a host with protected entries at several places, and others beside them.
struct Story {
    scratch: Scratch,
    root: PathBuf,
    before: Snapshot,
}

/// What is protected in it.
const PROTECTED: [&str; 7] =
    ["config.php", "cache", "cache/a", "cache/sub", "cache/sub/b", "d/e/config.php", "d/x.local"];

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        let root = scratch.path("root");
        let mut tree = Tree::new().file("other", "other").file("d/other", "other").file("kept.local", "other");
        for name in PROTECTED.iter().filter(|name| !matches!(**name, "cache" | "cache/sub")) {
            tree = tree.file(name, format!("secret of {name}"));
        }
        tree.create(&root);
        fs::set_permissions(root.join("config.php"), fs::Permissions::from_mode(0o640)).unwrap();
        let before = Snapshot::take(&root);
        Self { scratch, root, before }
    }

    fn begin(&self) -> Primary {
        let mut primary = Primary::of_fleet_with(&self.scratch, &self.root, PROTECT);
        primary.begin(1000);
        primary
    }

    fn was(&self, name: &str) -> Expected {
        seen(&self.root.join(name))
    }

    /// Nothing of what is protected has changed, to the inode and its times.
    fn assert_untouched(&self, what: &str) {
        let now = Snapshot::take(&self.root);
        for name in PROTECTED {
            let of = |snapshot: &Snapshot| snapshot.entries.get(name.as_bytes()).cloned();
            assert!(of(&self.before) == of(&now), "{what}: {name} is not what it was");
        }
    }
}

fn remove(name: &str, was: Expected) -> Change {
    Change::Remove { path: path(name), was }
}

fn spared(committed: &Committed) -> Vec<&String> {
    committed.notes.iter().filter(|note| note.contains("protected")).collect()
}

#[test]
fn no_change_of_a_protected_entry_is_made_and_one_note_tells() {
    for name in PROTECTED {
        let story = Story::new();
        let was = story.was(name);
        let new_meta = Meta { mode: 0o777, ..meta(0o777, 9) };
        let file_was = if was == Expected::Directory { story.was("other") } else { was };
        let target = b"/etc".as_slice().into();
        let mut primary = story.begin();
        primary.changes([
            Change::MakeDirectory { path: path(name), was },
            Change::Expect { path: path(name), was },
            Change::ReplaceDirectory { path: path(name), entries: 100 },
        ]);
        primary.content(name, "of the primary", 9);
        primary.resend();
        primary.changes([
            Change::Symlink { path: path(name), target, meta: new_meta.clone(), was },
            Change::Special { path: path(name), kind: SpecialKind::Fifo, meta: new_meta.clone(), was },
            Change::Link { path: path(name), to: path("other"), was },
            Change::SetMeta { path: path(name), meta: new_meta.clone(), was: file_was },
            remove(name, was),
            Change::SetDirectoryMeta { path: path(name), meta: new_meta },
        ]);
        let committed = primary.finish(Position::default());
        story.assert_untouched(name);
        assert_eq!((committed.problems.len(), committed.drifted), (0, 0), "{name}: {committed:?}");
        let notes = spared(&committed);
        assert_eq!(notes.len(), 1, "{committed:?}");
        assert!(notes[0].starts_with("1 entry is protected") && notes[0].ends_with(name), "{notes:?}");
    }
}

#[test]
fn nothing_takes_the_place_of_a_protected_file_even_as_the_only_change() {
    let kinds: [fn(RelPath, Meta, Expected) -> Change; 2] = [
        |path, meta, was| Change::Special { path, kind: SpecialKind::Fifo, meta, was },
        |path, meta, was| Change::Symlink { path, target: b"/etc".as_slice().into(), meta, was },
    ];
    for (name, make) in
        ["config.php", "cache/a", "d/x.local"].into_iter().flat_map(|name| kinds.map(|make| (name, make)))
    {
        let story = Story::new();
        let change = make(path(name), meta(0o777, 9), story.was(name));
        let mut primary = story.begin();
        primary.resend();
        primary.changes([change.clone()]);
        let committed = primary.finish(Position::default());
        story.assert_untouched(&format!("{change:?}"));
        assert_eq!((committed.problems.len(), spared(&committed).len()), (0, 1), "{change:?}: {committed:?}");
    }
}

#[test]
fn nothing_new_comes_where_something_would_be_protected() {
    let story = Story::new();
    fs::remove_file(story.root.join("config.php")).unwrap();
    fs::remove_dir_all(story.root.join("cache")).unwrap();
    let mut primary = story.begin();
    primary.changes([
        Change::MakeDirectory { path: path("cache"), was: Expected::Nothing },
        Change::MakeDirectory { path: path("new"), was: Expected::Nothing },
    ]);
    for name in ["config.php", "cache/planted", "new/config.php", "new/y.local", "new/fine"] {
        primary.content(name, "of the primary", 9);
    }
    primary.resend();
    primary.changes([Change::MakeDirectory { path: path("new/config.php"), was: Expected::Nothing }]);
    let committed = primary.finish(Position::default());
    assert!(committed.problems.is_empty(), "{committed:?}");
    assert!(spared(&committed)[0].starts_with("5 entries are protected"), "{committed:?}");
    assert_eq!(fs::read_dir(story.root.join("new")).unwrap().count(), 1);
    assert!(!story.root.join("config.php").exists() && !story.root.join("cache").exists());
}

#[test]
fn a_directory_that_holds_something_protected_is_neither_moved_nor_replaced_nor_deleted() {
    // Each in a session of its own: what comes first, what is left of it.
    let moves =
        [("d", "z", false), ("d/e", "z", false), ("d", "plain", true), ("plain", "d", true), ("cache", "z", false)];
    for (from, to, exchange) in moves {
        let story = Story::new();
        fs::create_dir(story.root.join("plain")).unwrap();
        let mut primary = story.begin();
        primary.changes([Change::Move { from: path(from), to: path(to), exchange }]);
        let committed = primary.finish(Position::default());
        story.assert_untouched(&format!("{from} to {to}"));
        let kinds: Vec<_> = committed.problems.iter().map(|one| (one.path.to_string(), one.kind)).collect();
        assert_eq!(kinds, [(to.to_owned(), ProblemKind::Conflict)], "the primary is to compare");
    }
    for name in ["d", "d/e"] {
        let story = Story::new();
        let mut primary = story.begin();
        primary.changes([
            Change::ReplaceDirectory { path: path(name), entries: 100 },
            Change::Expect { path: path(name), was: Expected::Directory },
        ]);
        primary.content(name, "a file in its place", 9);
        primary.resend();
        let committed = primary.finish(Position::default());
        story.assert_untouched(name);
        assert_eq!((committed.problems.len(), spared(&committed).len()), (0, 1), "{committed:?}");
    }
    let story = Story::new();
    let mut primary = story.begin();
    let removals =
        [remove("d/other", story.was("d/other")), remove("d/e", story.was("d/e")), remove("d", story.was("d"))];
    primary.changes(removals);
    let committed = primary.finish(Position::default());
    story.assert_untouched("deleted");
    assert!(!story.root.join("d/other").exists());
    assert_eq!((committed.problems.len(), spared(&committed).len()), (0, 1), "{committed:?}");
}

#[test]
fn a_move_to_where_something_would_be_protected_is_not_made() {
    let story = Story::new();
    Tree::new().file("p/a", "x").file("q/cfg/f", "x").create(&story.root.join("in"));
    let mut primary = story.begin();
    primary.changes([
        Change::Move { from: path("in/p"), to: path("new.local"), exchange: false },
        Change::Move { from: path("in/q"), to: path("cache/q"), exchange: false },
    ]);
    let committed = primary.finish(Position::default());
    story.assert_untouched("moved in");
    assert_eq!(committed.problems.len(), 2, "{committed:?}");
    assert!(story.root.join("in/p/a").exists() && story.root.join("in/q/cfg/f").exists());
}

#[test]
fn no_other_name_is_made_of_a_protected_file() {
    let story = Story::new();
    let Expected::File { size_bytes, mtime } = story.was("config.php") else { panic!("a file") };
    let mut primary = story.begin();
    let reuse = Change::Reuse {
        path: path("again"),
        was: Expected::Nothing,
        from: path("config.php"),
        size_bytes,
        mtime,
        meta: meta(0o777, 9),
    };
    primary.changes([reuse]);
    assert_eq!(primary.resend(), [path("again")], "the content is asked for");
    let link = |name: &str, to: &str| Change::Link { path: path(name), to: path(to), was: Expected::Nothing };
    primary.changes([link("linked", "config.php"), link("linked2", "cache/a")]);
    let committed = primary.finish(Position::default());
    story.assert_untouched("linked");
    assert!(committed.problems.iter().all(|one| one.kind == ProblemKind::Denied), "{committed:?}");
    assert_eq!(committed.problems.len(), 2);
    assert!(["again", "linked", "linked2"].iter().all(|name| !story.root.join(name).exists()));
}

#[test]
fn what_is_protected_is_neither_listed_nor_described() {
    let story = Story::new();
    let big = "x".repeat(100_000);
    fs::write(story.root.join("config.php"), &big).unwrap();
    let Expected::File { size_bytes, mtime } = story.was("config.php") else { panic!("a file") };
    let mut primary = Primary::of_fleet_with(&story.scratch, &story.root, PROTECT);
    assert_eq!(primary.welcome.protect, ["config.php", "/cache/", "*.local", "!kept.local"]);
    let inventory = primary.list();
    // d, d/e, d/other, kept.local, other
    assert_eq!((inventory.directories, inventory.entries), (3, 5));
    let asked = ["", "cache", "cache/sub", "d", "d/e"].map(path).to_vec();
    primary.send(&ToReceiver::GetEntries { paths: asked });
    let mut names = Vec::new();
    while let Some(ToPrimary::Entries(part)) = primary.receive() {
        names.extend(
            part.nodes.iter().map(|node| (part.path.to_string(), String::from_utf8_lossy(&node.name).into_owned())),
        );
        assert!(part.nodes.iter().all(|node| !matches!(node.kind, Kind::Special(_))));
    }
    let expected = [(".", "d"), (".", "kept.local"), (".", "other"), ("d", "e"), ("d", "other")];
    assert_eq!(names, expected.map(|(dir, name)| (dir.to_owned(), name.to_owned())));
    primary.begin(0);
    let spec = SignatureSpec { block_bytes: 4096, strong_bytes: 8 };
    let request =
        SignatureRequest { id: 7, path: path("config.php"), size_bytes, mtime, spec, offset: 0, bytes: size_bytes };
    primary.send(&ToReceiver::GetSignatures { requests: vec![request] });
    assert_eq!(primary.receive(), Some(ToPrimary::NoSignature { id: 7 }));
    primary.kill();
}

/// A real primary and a host behind a command, with the receiver's own configuration.
fn host(scratch: &Scratch, receive: &str) -> (PathBuf, PathBuf, PathBuf) {
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let far = Config::new("cms").root("data", &copy, "").lines(&format!("[receive]\n{receive}"));
    let far = far.write(scratch, "far.toml");
    let receiver = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
    let config = Config::new("cms").root("data", &source, "max_delete = \"100%\"");
    let config = config.host_command("copy", &receiver, "data", &copy).write(scratch, "rfleet.toml");
    (source, copy, config)
}

fn first(outcome: &Outcome) -> (String, Vec<String>, usize) {
    let report = outcome.report();
    let host = &report.root().hosts[0];
    (host.state.clone(), host.notes.clone(), host.problems.len())
}

#[test]
fn a_host_that_has_all_but_what_it_protects_is_up_to_date() {
    let scratch = Scratch::new();
    let (source, copy, config) = host(&scratch, "protect = [\"config.php\", \"/cache/\"]");
    Tree::new()
        .file("a", "1")
        .file("config.php", "primary's")
        .file("cache/x", "primary's")
        .file("d/f", "1")
        .create(&source);
    Tree::new().file("config.php", "host's").file("cache/own", "host's").create(&copy);
    let before = Snapshot::take(&copy);
    let text = |name: &str| fs::read_to_string(copy.join(name)).unwrap();
    let push = |flags: &[&str]| {
        wait_until_old(&source);
        Push::configured(&scratch, &config).args(flags)
    };
    push(&["--adopt"]).ok();
    assert_eq!((text("config.php"), text("cache/own"), text("a")), ("host's".into(), "host's".into(), "1".into()));
    assert!(!copy.join("cache/x").exists());
    for flags in [&[][..], &["--full"]] {
        assert_eq!(first(&push(flags).ok()).0, "unchanged");
    }
    Push::command(&scratch, &["verify", "--config", config.to_str().unwrap()]).ok();
    // By history: changed, renamed and gone.
    fs::write(source.join("config.php"), "primary's second").unwrap();
    fs::rename(source.join("cache"), source.join("cache2")).unwrap();
    fs::rename(source.join("d"), source.join("e")).unwrap();
    let outcome = push(&[]).ok();
    assert_eq!(first(&outcome).2, 0, "{}", outcome.said());
    assert_eq!(
        (text("config.php"), text("cache/own"), text("cache2/x")),
        ("host's".into(), "host's".into(), "primary's".into())
    );
    fs::remove_file(source.join("config.php")).unwrap();
    fs::rename(source.join("a"), source.join("b")).unwrap();
    push(&[]).ok();
    assert_eq!((text("config.php"), text("b")), ("host's".into(), "1".into()));
    assert_eq!(first(&push(&["--full"]).ok()).0, "unchanged");
    let now = Snapshot::take(&copy);
    for name in ["config.php", "cache/own"] {
        assert!(before.entries[name.as_bytes()] == now.entries[name.as_bytes()], "{name} is not what it was");
    }
}

#[test]
fn a_renamed_directory_leaves_behind_what_the_host_protects_in_it() {
    let scratch = Scratch::new();
    let (source, copy, config) = host(&scratch, "protect = [\"*.local\"]");
    Tree::new().file("d/f", "1").file("d/e/g", "1").file("k", "1").create(&source);
    let push = |flags: &[&str]| {
        wait_until_old(&source);
        Push::configured(&scratch, &config).args(flags)
    };
    push(&[]).ok();
    fs::write(copy.join("d/e/x.local"), "host's").unwrap();
    fs::rename(source.join("d"), source.join("z")).unwrap();
    let outcome = push(&[]).ok();
    assert_eq!(first(&outcome).2, 0, "{}", outcome.said());
    assert_eq!(fs::read_to_string(copy.join("d/e/x.local")).unwrap(), "host's");
    assert!(!copy.join("d/f").exists() && !copy.join("z/e/x.local").exists());
    assert_same(&source.join("z"), &copy.join("z"));
}

#[test]
fn protected_patterns_that_are_none_end_a_receiver_at_once() {
    let scratch = Scratch::new();
    let (source, copy, config) = host(&scratch, "protect = [\"a[b\"]");
    Tree::new().file("a", "1").create(&source);
    let outcome = Push::configured(&scratch, &config).run();
    outcome.assert_code(3);
    let error = outcome.report().host("copy").error.clone().unwrap();
    assert!(error.contains("protect") && error.contains("not closed"), "{}", outcome.said());
    assert!(!copy.exists());
}
