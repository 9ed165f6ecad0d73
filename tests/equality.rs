//! Promise 2: after a push a copy is its source, entry by entry, and a second push has nothing to send.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rstest::rstest;
use support::tree::{assert_no_state, at, set_time};
use support::{
    Config, Fleet, Outcome, Push, Rng, Scratch, Snapshot, Tree, assert_rsync_agrees, assert_same, every_kind, mutate,
    random_tree, rfleet_bin, wait_until,
};

fn assert_copies(source: &Path, copies: &[PathBuf]) {
    for copy in copies {
        assert_same(source, copy);
        assert_rsync_agrees(source, copy);
        assert_no_state(copy);
    }
}

fn assert_nothing_sent(outcome: &Outcome) {
    let report = outcome.report();
    assert_eq!(report.root().read_bytes, 0, "a push of an unchanged tree reads content: {}", outcome.said());
    for host in &report.root().hosts {
        assert_eq!((host.state.as_str(), host.files_sent), ("unchanged", 0), "{}", outcome.said());
        assert_eq!(host.created + host.updated + host.deleted + host.metadata, 0, "{}", outcome.said());
    }
}

#[test]
fn every_kind_of_entry_reaches_four_ssh_hosts_and_three_local_ones() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    every_kind().create(&source);
    let fleet = Fleet::start(&scratch, 4);
    let local: Vec<PathBuf> = (1..=3).map(|n| scratch.path(&format!("local{n}"))).collect();
    let also: Vec<String> = local.iter().map(|p| p.display().to_string()).collect();
    let copies: Vec<PathBuf> = fleet.hosts.iter().map(|h| h.path.clone()).chain(local).collect();

    let first = fleet.push(&scratch, &source, &also).arg("--delete").ok();
    assert_copies(&source, &copies);
    let report = first.report();
    assert_eq!(report.root().hosts.len(), 7, "{}", first.said());
    assert!(report.root().hosts.iter().all(|h| h.state == "done" && h.error.is_none()), "{}", first.said());
    let once = report.root().bytes;
    assert!(report.root().read_bytes <= once, "content is read once for all hosts: {}", first.said());

    let before: Vec<_> = copies.iter().map(|c| Snapshot::take(c)).collect();
    let second = fleet.push(&scratch, &source, &also).arg("--delete").ok();
    assert_nothing_sent(&second);
    for (copy, before) in copies.iter().zip(&before) {
        before.assert_equal(copy);
    }
    assert_copies(&source, &copies);

    let mut rng = Rng::new(2);
    mutate(&source, &mut rng, 60);
    fleet.push(&scratch, &source, &also).args(&["--delete", "--max-delete", "100%"]).ok();
    assert_copies(&source, &copies);
    scratch.assert_no_leftovers();
}

#[rstest]
fn random_trees_and_their_changes_arrive(#[values(1, 2, 3, 4, 5, 6)] seed: u64) {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    let mut rng = Rng::new(seed);
    random_tree(&source, &mut rng, 150);
    let fleet = Fleet::start(&scratch, 1);
    let local = scratch.path("local");
    let also = [local.display().to_string()];
    let copies = [fleet.hosts[0].path.clone(), local];
    for round in 0..6 {
        let pushed = fleet.push(&scratch, &source, &also).args(&["--delete", "--max-delete", "100%"]).run();
        assert_eq!(pushed.code(), Some(0), "seed {seed}, round {round}: {}", pushed.said());
        assert_copies(&source, &copies);
        let again = fleet.push(&scratch, &source, &also).arg("--delete").ok();
        assert_nothing_sent(&again);
        mutate(&source, &mut rng, 40);
    }
}

#[test]
fn every_change_of_type_arrives() {
    let kinds = ["file", "dir", "full-dir", "link", "hard", "missing"];
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let make = |path: &Path, kind: &str| match kind {
        "file" => fs::write(path, format!("file at {}", path.display())).unwrap(),
        "dir" => fs::create_dir(path).unwrap(),
        "full-dir" => Tree::new().file("a", "1").file("b/c", "2").link("b/d", "c").create(path),
        "link" => std::os::unix::fs::symlink("anchor", path).unwrap(),
        "hard" => fs::hard_link(source.join("anchor"), path).unwrap(),
        _ => {}
    };
    let names = || kinds.iter().flat_map(|from| kinds.iter().map(move |to| (*from, *to)));
    Tree::new().file("anchor", "the anchor").create(&source);
    for (from, to) in names() {
        make(&source.join(format!("{from} to {to}")), from);
    }
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert_copies(&source, std::slice::from_ref(&copy));
    for (from, to) in names() {
        let path = source.join(format!("{from} to {to}"));
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).unwrap();
        } else if from != "missing" {
            fs::remove_file(&path).unwrap();
        }
        make(&path, to);
    }
    Push::adhoc(&scratch, &source, &[&copy]).args(&["--delete", "--max-delete", "100%"]).ok();
    assert_copies(&source, &[copy]);
}

#[test]
fn a_directory_that_is_read_only_for_its_owner_can_change() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("locked/old", "1").file("locked/gone", "1").dir("locked").mode(0o555).create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    support::tree::set_mode(&source.join("locked"), 0o755);
    fs::remove_file(source.join("locked/gone")).unwrap();
    fs::write(source.join("locked/new"), "2").unwrap();
    support::tree::set_mode(&source.join("locked"), 0o555);
    Push::adhoc(&scratch, &source, &[&copy]).args(&["--delete"]).ok();
    assert_copies(&source, &[copy]);
}

#[test]
fn only_attributes_changed_sends_no_content() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("a", vec![7; 300_000]).file("d/b", "b").link("l", "a").create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    support::tree::set_mode(&source.join("a"), 0o600);
    support::tree::set_mode(&source.join("d"), 0o711);
    set_time(&source.join("d"), (1_222_222_222, 2));
    set_time(&source.join("l"), (1_222_222_222, 3));
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).ok();
    let report = outcome.report();
    let host = &report.root().hosts[0];
    assert_eq!((host.files_sent, report.root().read_bytes), (0, 0), "{}", outcome.said());
    assert!(host.bytes_sent < 20_000, "{}", outcome.said());
    assert_copies(&source, &[copy]);
}

#[test]
fn a_file_whose_time_alone_changed_sends_no_literal_content() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("a", Rng::new(1).bytes(3_000_000)).create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    set_time(&source.join("a"), (1_222_222_222, 2));
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).ok();
    let sent = outcome.report().root().hosts[0].bytes_sent;
    assert!(sent < 100_000, "{sent} bytes for a touch: {}", outcome.said());
    assert_copies(&source, &[copy]);
}

#[test]
fn entries_named_like_our_state_are_reserved_and_never_sent() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("a", "a").file(".rfleet/state", "mine").file("sub/.rfleet/x", "mine").create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert!(copy.join("a").exists());
    assert_no_state(&copy);
    assert!(fs::symlink_metadata(copy.join("sub/.rfleet")).is_err(), "a reserved name was sent");
}

#[test]
fn a_trailing_slash_means_nothing() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    Tree::new().file("a/b", "x").create(&source);
    let slashed = |path: &Path| format!("{}/", path.display());
    let (plain, ended) = (scratch.path("plain"), scratch.path("ended"));
    Push::adhoc(&scratch, &source, &[plain.display().to_string(), slashed(&ended)]).ok();
    let third = scratch.path("third");
    Push::adhoc(&scratch, Path::new(&slashed(&source)), &[&third]).ok();
    assert_copies(&source, &[plain, ended, third]);
}

#[test]
fn the_source_is_not_touched() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    every_kind().create(&source);
    let before = Snapshot::take(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    before.assert_untouched(&source);
}

#[test]
fn a_destination_below_a_link_of_the_operator_is_followed() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    Tree::new().file("a", "x").create(&source);
    let real = scratch.dir("volume");
    std::os::unix::fs::symlink(&real, scratch.path("link")).unwrap();
    Push::adhoc(&scratch, &source, &[scratch.path("link").join("www")]).ok();
    assert_copies(&source, &[real.join("www")]);
}

#[test]
fn a_link_in_the_destination_is_replaced_and_never_followed() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("dir/file", "new").file("plain", "new").create(&source);
    let outside = scratch.path("outside");
    Tree::new().file("file", "sentinel").create(&outside);
    Tree::new()
        .link("dir", outside.as_os_str().as_encoded_bytes())
        .link("plain", outside.join("file").as_os_str().as_encoded_bytes())
        .create(&copy);
    let before = Snapshot::take(&outside);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    before.assert_untouched(&outside);
    assert_copies(&source, &[copy]);
}

#[test]
fn names_of_any_bytes_survive_a_rename() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let mut tree = Tree::new();
    for byte in (1..=255u8).filter(|b| *b != b'/' && *b != b'.') {
        tree = tree.file([byte], [byte]).file([b'x', byte, b'y'], [byte; 3]);
    }
    tree.create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    for byte in (128..=255u8).filter(|b| b % 3 == 0) {
        fs::rename(at(&source, [byte]), at(&source, [byte, byte])).unwrap();
    }
    Push::adhoc(&scratch, &source, &[&copy]).args(&["--delete", "--max-delete", "100%"]).ok();
    assert_copies(&source, &[copy]);
}

const TIME: (i64, i64) = (1_111_111_111, 5);

/// Writes another content of the same size and gives the file its time back: only its content tells.
fn change_unseen(path: &Path) {
    let size = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
    fs::write(path, "?".repeat(size)).unwrap();
    set_time(path, TIME);
}

fn link(root: &Path, from: &str, to: &str) {
    let _ = fs::remove_file(root.join(to));
    fs::hard_link(root.join(from), root.join(to)).unwrap();
}

/// Whatever names a file has, here or there, its content is compared under all of them.
#[rstest]
#[case::one_file_on_both_sides(|copy: &Path| change_unseen(&copy.join("b/second")))]
#[case::its_first_name_a_file_of_its_own(|copy: &Path| {
    fs::remove_file(copy.join("a/first")).unwrap();
    fs::write(copy.join("a/first"), "a linked file").unwrap();
    set_time(&copy.join("a/first"), TIME);
    change_unseen(&copy.join("b/second"));
})]
#[case::another_name_a_file_of_its_own(|copy: &Path| {
    fs::remove_file(copy.join("b/second")).unwrap();
    fs::write(copy.join("b/second"), "?? ?????? ????").unwrap();
    change_unseen(&copy.join("b/second"));
})]
#[case::two_files_made_one_there(|copy: &Path| {
    link(copy, "alone", "also alone");
    change_unseen(&copy.join("alone"));
})]
#[case::a_name_more_there(|copy: &Path| {
    change_unseen(&copy.join("alone"));
    link(copy, "alone", "a/extra");
    link(copy, "alone", "z/extra");
})]
#[case::another_time_and_a_name_more_there(|copy: &Path| {
    link(copy, "alone", "z/extra");
    set_time(&copy.join("alone"), (1_222_222_222, 6));
})]
fn a_content_that_differs_under_equal_size_and_time_is_found_under_every_name(#[case] damage: fn(&Path)) {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let file = |tree: Tree, path: &str, content: &str| tree.file(path, content).time(TIME.0, TIME.1);
    let tree = file(Tree::new().dir("a").dir("b").dir("z"), "a/first", "a linked file");
    let tree = file(file(tree, "alone", "one with one name"), "also alone", "one with one name");
    tree.create(&source);
    link(&source, "a/first", "b/second");
    link(&source, "a/first", "z/third");
    let config = Config::new("cms")
        .root("www", &source, "delete = true\nmax_delete = \"100%\"")
        .hosts(&["box"])
        .host_command("box", &[rfleet_bin().to_str().unwrap(), "receive"], "www", &copy)
        .write(&scratch, "rfleet.toml");
    Push::configured(&scratch, &config).ok();
    let verify = || Push::command(&scratch, &["verify", "--checksum", "--config"]).arg(&config).run();
    verify().assert_code(0);
    damage(&copy);
    verify().assert_code(3);
    let outcome = Push::configured(&scratch, &config).arg("--checksum").ok();
    assert_same(&source, &copy);
    assert_rsync_agrees(&source, &copy);
    assert!(!copy.join(".rfleet/attic").exists(), "what was compared was expected: {}", outcome.said());
    verify().assert_code(0);
}

/// What happens to files with several names costs what changed: a host at a known point is not compared, so what
/// was done there by hand stays.
#[test]
fn linked_files_are_pushed_from_history() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new()
        .dir("b")
        .file("a/first", "a linked file")
        .file("c/single", "a file with one name")
        .file("witness", "as pushed")
        .time(TIME.0, TIME.1)
        .create(&source);
    link(&source, "a/first", "b/second");
    let config = Config::new("cms")
        .root("www", &source, "delete = true\nmax_delete = \"100%\"")
        .hosts(&["box"])
        .host_command("box", &[rfleet_bin().to_str().unwrap(), "receive"], "www", &copy)
        .write(&scratch, "rfleet.toml");
    Push::configured(&scratch, &config).ok();
    let others = |tree: &Path| {
        let mut seen = Snapshot::take(tree);
        seen.entries.remove(&b"witness"[..]);
        seen
    };
    fs::write(copy.join("witness"), "changed by hand").unwrap();
    let rename = |from: &str, to: &str| fs::rename(source.join(from), source.join(to)).unwrap();
    let changes: [(&str, &dyn Fn()); 9] = [
        ("mode", &|| support::tree::set_mode(&source.join("b/second"), 0o600)),
        ("content", &|| fs::write(source.join("b/second"), "another content").unwrap()),
        ("one more name", &|| link(&source, "a/first", "a/third")),
        ("a second name", &|| link(&source, "c/single", "b/single, too")),
        ("one name less", &|| fs::remove_file(source.join("a/first")).unwrap()),
        ("a name renamed", &|| rename("a/third", "c/third")),
        ("all names renamed", &|| {
            rename("c/single", "a/x");
            rename("b/single, too", "c/y");
        }),
        ("a directory renamed", &|| rename("b", "d")),
        ("a name of its own", &|| {
            fs::write(source.join("d/new"), "its own content").unwrap();
            rename("d/new", "d/second");
        }),
    ];
    for (what, change) in changes {
        change();
        let outcome = Push::configured(&scratch, &config).ok();
        let differences = others(&source).differences(&others(&copy));
        assert!(differences.is_empty(), "{what}: {}\n{}", differences.join("\n"), outcome.said());
        let witness = fs::read_to_string(copy.join("witness")).unwrap();
        assert_eq!(witness, "changed by hand", "{what}: {}", outcome.said());
    }
    Push::configured(&scratch, &config).arg("--full").ok();
    assert_same(&source, &copy);
}

/// The first name of a file becomes another file after the scan and before it is read: what is sent for it is the
/// other file, and the names that were linked to it get their own content with the next push.
#[test]
fn a_first_name_that_becomes_another_file_in_the_middle_leaves_the_other_names_wrong_for_one_push_only() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    Tree::new().dir("b").dir("c").file("a/first", "a linked file").time(TIME.0, TIME.1).create(&source);
    link(&source, "a/first", "b/second");
    link(&source, "a/first", "c/third");
    let bin = rfleet_bin().to_str().unwrap();
    let (go, ended) = (scratch.path("go"), scratch.root().display());
    let body = format!("while [ ! -e {go:?} ] && [ -d {ended} ]; do sleep 0.02; done; exec {bin} receive \"$@\"");
    let gate = scratch.script("gate", &body);
    let config = Config::new("cms")
        .root("www", &source, "delete = true\nmax_delete = \"100%\"")
        .hosts(&["box", "gate"])
        .host_command("box", &[bin, "receive"], "www", &scratch.path("box"))
        .host_command("gate", &[gate.to_str().unwrap()], "www", &scratch.path("copy"))
        .write(&scratch, "rfleet.toml");
    let push = |host: &str| Push::configured(&scratch, &config).args(&["--host", host]);
    // The content is read once, so that it is known to be the same when only the number of names has changed.
    push("box").ok();
    fs::write(source.join("a/new"), "what a scan has to record").unwrap();
    let running = push("gate").start();
    let is_recorded = |path: PathBuf| {
        path.to_string_lossy().ends_with("-wal") && fs::metadata(path).is_ok_and(|found| found.len() > 0)
    };
    wait_until("the end of the scan", Duration::from_secs(60), || {
        files_below(&scratch.path("state")).into_iter().any(is_recorded)
    });
    fs::write(source.join("a/other"), "another file that took its name").unwrap();
    fs::rename(source.join("a/other"), source.join("a/first")).unwrap();
    scratch.write("go", "");
    running.finish().assert_code(0);
    push("gate").ok();
    assert_same(&source, &scratch.path("copy"));
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten().map(|child| child.path());
    found.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
