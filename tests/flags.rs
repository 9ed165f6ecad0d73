//! The flags of `push`, one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use support::tree::{assert_no_state, set_mode, set_time};
use support::{Fleet, Push, Rng, Scratch, Snapshot, Tree, assert_rsync_agrees, assert_same, every_kind, mutate};

fn places(scratch: &Scratch) -> (PathBuf, PathBuf) {
    (scratch.path("source"), scratch.path("copy"))
}

#[test]
fn dry_run_changes_nothing_anywhere_and_counts_what_would_be_done() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    every_kind().create(&source);
    let fleet = Fleet::start(&scratch, 1);
    let also = [copy.display().to_string()];
    fleet.push(&scratch, &source, &also).ok();
    mutate(&source, &mut Rng::new(8), 50);
    let watched = [source.clone(), copy.clone(), fleet.hosts[0].path.clone()];
    let before = watched.each_ref().map(|place| Snapshot::take(place));
    let flags = ["--delete", "--max-delete", "100%", "-i"];
    let dry = fleet.push(&scratch, &source, &also).arg("-n").args(&flags).ok();
    for (place, before) in watched.iter().zip(&before) {
        before.assert_untouched(place);
        assert_no_state(place);
    }
    let planned = dry.report();
    assert!(planned.dry_run && planned.root().hosts.iter().all(|h| h.state == "planned"), "{}", dry.said());
    let wet = fleet.push(&scratch, &source, &also).args(&flags).ok();
    for (would, did) in planned.root().hosts.iter().zip(&wet.report().root().hosts) {
        assert_eq!(would.changes, did.changes, "a dry run says what the push does");
        let counts = |h: &support::rfleet::HostReport| (h.created, h.updated, h.deleted, h.metadata);
        assert_eq!(counts(would), counts(did), "{}\n{}", dry.said(), wet.said());
    }
    assert_same(&source, &copy);
}

#[test]
fn dry_run_to_a_place_that_does_not_exist_creates_nothing() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a/b", "x").create(&source);
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).arg("--dry-run").ok();
    assert!(!copy.exists(), "{}", outcome.said());
    assert_eq!(outcome.report().root().hosts[0].created, 2, "{}", outcome.said());
}

#[test]
fn dry_run_shows_the_refusal_of_a_guard() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a", "x").create(&source);
    Tree::new().file("a", "x").file("b", "y").create(&copy);
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).args(&["-n", "--delete", "--max-delete", "0"]).run();
    outcome.assert_code(4);
}

#[test]
fn itemized_lines_are_rsyncs() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new()
        .file("edited", "before")
        .file("chmodded", "c")
        .file("touched", "t")
        .file("gone", "g")
        .file("dir/gone", "g")
        .file("linked", "l")
        .link("link", "edited")
        .create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    fs::write(source.join("edited"), "after, and longer").unwrap();
    set_mode(&source.join("chmodded"), 0o600);
    set_time(&source.join("touched"), (1_222_222_222, 7));
    fs::remove_file(source.join("gone")).unwrap();
    fs::remove_dir_all(source.join("dir")).unwrap();
    fs::hard_link(source.join("linked"), source.join("linked too")).unwrap();
    fs::create_dir(source.join("new dir")).unwrap();
    fs::write(source.join("new dir/file"), "new").unwrap();
    fs::remove_file(source.join("link")).unwrap();
    std::os::unix::fs::symlink("new dir", source.join("new link")).unwrap();
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).args(&["-n", "-i", "--delete"]).ok();
    let report = outcome.report();
    let changes = &report.root().hosts[0].changes;
    let has = |start: &str, end: &str| {
        assert!(
            changes.iter().any(|line| line.starts_with(start) && line.ends_with(end)),
            "no line {start}...{end} in {changes:#?}"
        );
    };
    has("<f.st", " edited");
    has(".f", " chmodded");
    has("cd+++++++++", " new dir/");
    has("<f+++++++++", " new dir/file");
    has("cL+++++++++", " new link -> new dir");
    has("hf", " linked");
    has("*deleting", " gone");
    has("*deleting", " dir/gone");
    has("*deleting", " dir/");
    has("*deleting", " link");
    let chmodded = changes.iter().find(|l| l.ends_with(" chmodded")).unwrap();
    assert_eq!(chmodded.as_bytes()[5], b'p', "{chmodded}");
    // The same lines for people, without JSON, and on stdout.
    let plain = Push::adhoc(&scratch, &source, &[&copy]).no_json().args(&["-n", "-i", "--delete"]).ok();
    for line in changes {
        assert!(plain.stdout.lines().any(|l| l.contains(line.as_str())), "{line:?} is missing in {}", plain.said());
    }
}

#[test]
fn names_with_control_characters_are_escaped_for_people() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a\x1b[31mred\nline\x07", "x").file(b"\xff\xfe", "y").create(&source);
    let plain = Push::adhoc(&scratch, &source, &[&copy]).no_json().args(&["-i"]).ok();
    let said = format!("{}{}", plain.stdout, plain.stderr);
    assert!(!said.contains('\x1b') && !said.contains('\x07'), "{said:?}");
    assert_same(&source, &copy);
}

#[test]
fn without_delete_what_is_only_there_stays() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a", "new").file("d/b", "new").create(&source);
    Tree::new().file("a", "older").file("extra", "kept").file("d/extra", "kept").file("x/y/z", "kept").create(&copy);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    for kept in ["extra", "d/extra", "x/y/z"] {
        assert_eq!(fs::read(copy.join(kept)).unwrap(), b"kept");
    }
    assert_eq!(fs::read(copy.join("a")).unwrap(), b"new");
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).arg("--delete").ok();
    assert_eq!(outcome.report().root().hosts[0].deleted, 5, "{}", outcome.said());
    assert_same(&source, &copy);
}

#[test]
fn excluded_paths_are_neither_sent_nor_deleted() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new()
        .file("a.tmp", "t")
        .file("keep.txt", "k")
        .file("cache/x", "c")
        .file("sub/cache/y", "c")
        .file("sub/b.tmp", "t")
        .file("sub/b.txt", "b")
        .file("anchored/log", "l")
        .file("sub/anchored/log", "l")
        .create(&source);
    Tree::new().file("cache/theirs", "stays").file("z.tmp", "stays").file("goes", "g").create(&copy);
    let excludes = ["--exclude", "*.tmp", "--exclude", "cache/", "--exclude", "/anchored"];
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).arg("--delete").args(&excludes).ok();
    let there = |path: &str| fs::symlink_metadata(copy.join(path)).is_ok();
    let arrived = ["keep.txt", "sub/b.txt", "sub/anchored/log", "cache/theirs", "z.tmp"];
    let absent = ["a.tmp", "cache/x", "sub/cache", "sub/b.tmp", "anchored", "goes"];
    assert!(arrived.iter().all(|p| there(p)), "{}", outcome.said());
    let wrong: Vec<_> = absent.iter().filter(|p| there(p)).collect();
    assert!(wrong.is_empty(), "{wrong:?}: {}", outcome.said());
    let again = Push::adhoc(&scratch, &source, &[&copy]).arg("--delete").args(&excludes).ok();
    assert_eq!(again.report().root().hosts[0].state, "unchanged", "{}", again.said());
}

#[test]
fn checksum_finds_what_size_and_time_hide() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a", "content one").file("d/b", vec![1; 200_000]).create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    let time = |name: &str| {
        let meta = fs::metadata(source.join(name)).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    let dir = (fs::metadata(source.join("d")).unwrap().mtime(), fs::metadata(source.join("d")).unwrap().mtime_nsec());
    for (name, content) in [("a", b"content two".to_vec()), ("d/b", vec![2; 200_000])] {
        let was = time(name);
        fs::write(source.join(name), content).unwrap();
        set_time(&source.join(name), was);
    }
    set_time(&source.join("d"), dir);
    let quick = Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert_eq!(quick.report().root().hosts[0].state, "unchanged", "{}", quick.said());
    let thorough = Push::adhoc(&scratch, &source, &[&copy]).arg("--checksum").ok();
    assert_eq!(thorough.report().root().hosts[0].updated, 2, "{}", thorough.said());
    assert_same(&source, &copy);
    assert_rsync_agrees(&source, &copy);
}

#[test]
fn checksum_heals_a_copy_that_rotted() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a", vec![5; 3_000_000]).file("b", "b").create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    let meta = fs::metadata(copy.join("a")).unwrap();
    let mut rotten = vec![5; 3_000_000];
    rotten[1_700_000] = 6;
    fs::write(copy.join("a"), rotten).unwrap();
    set_time(&copy.join("a"), (meta.mtime(), meta.mtime_nsec()));
    Push::adhoc(&scratch, &source, &[&copy]).arg("--checksum").ok();
    assert_same(&source, &copy);
}

#[test]
fn bwlimit_takes_about_size_by_rate() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("noise", Rng::new(4).bytes(4_000_000)).create(&source);
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).args(&["--bwlimit", "2MB"]).ok();
    assert_same(&source, &copy);
    let seconds = outcome.report().root().hosts[0].seconds;
    assert!(seconds > 1.0, "4 MB at 2 MB/s took {seconds:.2} s");
    assert!(outcome.wall < Duration::from_secs(15), "4 MB at 2 MB/s took {:?}", outcome.wall);
}

#[test]
fn host_takes_only_that_one() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    Tree::new().file("a", "x").create(&source);
    let fleet = Fleet::start(&scratch, 3);
    let name = fleet.hosts[1].destination();
    let outcome = fleet.push(&scratch, &source, &[]).args(&["--host", &name]).ok();
    assert_eq!(outcome.report().root().hosts.len(), 1, "{}", outcome.said());
    assert!(fleet.hosts[1].path.exists() && !fleet.hosts[0].path.exists() && !fleet.hosts[2].path.exists());
    let unknown = fleet.push(&scratch, &source, &[]).no_json().args(&["--host", "web9"]).run();
    unknown.assert_code(2);
    unknown.assert_line(&["web9"]);
}

#[test]
fn full_reconciles_and_finds_a_changed_copy() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a", "right").create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    fs::write(copy.join("a"), "wrong content").unwrap();
    Push::adhoc(&scratch, &source, &[&copy]).arg("--full").ok();
    assert_same(&source, &copy);
}

#[test]
fn the_summary_is_for_people_and_json_for_machines() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a", "x").create(&source);
    let plain = Push::adhoc(&scratch, &source, &[&copy]).no_json().ok();
    let said = format!("{}{}", plain.stdout, plain.stderr);
    assert!(said.contains(copy.to_str().unwrap()), "the summary names the host: {}", plain.said());
    assert!(!said.contains('\x1b') && !said.contains('\r'), "progress without a terminal: {}", plain.said());
    let json = Push::adhoc(&scratch, &source, &[&copy]).ok();
    let report = json.report();
    assert_eq!((report.command.as_str(), report.exit_code, report.fleet.as_deref()), ("push", 0, None));
    assert!(report.seconds > 0.0 && report.root().entries >= 1 && report.root().bytes == 1, "{}", json.said());
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let scratch = Scratch::new();
    let (source, copy) = places(&scratch);
    Tree::new().file("a", "x").create(&source);
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).no_json().arg("-q").ok();
    assert!(outcome.stderr.is_empty(), "{}", outcome.said());
}
