//! What a configured secondary keeps of what pushes replace and delete, and how it comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::tree::set_time;
use support::{Config, Outcome, Push, Scratch, Tree, assert_same, plain_copy, rfleet_bin};

/// A primary, and a secondary with a configuration of its own.
struct Story {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
    far: PathBuf,
    config: PathBuf,
}

impl Story {
    fn new(receive: &str) -> Self {
        let scratch = Scratch::new();
        let copy = scratch.path("copy");
        Self::at(scratch, copy, receive)
    }

    fn at(scratch: Scratch, copy: PathBuf, receive: &str) -> Self {
        let source = scratch.dir("source");
        let far = Config::new("cms").root("www", &copy, "").lines("[receive]").lines(receive);
        let far = far.write(&scratch, "far.toml");
        let command = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
        let config = Config::new("cms")
            .root("www", &source, "max_delete = \"100%\"")
            .hosts(&["box"])
            .host_command("box", &command, "www", &copy)
            .write(&scratch, "rfleet.toml");
        Self { scratch, source, copy, far, config }
    }

    /// A file of the primary, of a time of its own.
    fn write(&self, name: &str, content: impl AsRef<[u8]>, secs: i64) {
        fs::write(self.source.join(name), content).unwrap();
        set_time(&self.source.join(name), (secs, 5));
    }

    fn push(&self) -> Outcome {
        Push::configured(&self.scratch, &self.config).arg("--adopt").ok()
    }

    fn attic(&self, words: &[&str]) -> Outcome {
        Push::command(&self.scratch, &["attic"]).args(words).arg("--config").arg(&self.far).run()
    }

    fn restore(&self, words: &[&str]) -> Outcome {
        let outcome = self.attic(&[&["restore"], words].concat());
        outcome.assert_code(0);
        outcome
    }

    /// `WHY PATH` of each entry that the attic lists, the newest session first.
    fn kept(&self) -> Vec<String> {
        let outcome = self.attic(&["list", "--json"]);
        outcome.assert_code(0);
        let all: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.said()));
        all.as_array().unwrap().iter().map(|one| format!("{} {}", text(one, "why"), text(one, "path"))).collect()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.copy.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn sessions(&self) -> Vec<String> {
        let names = fs::read_dir(self.copy.join(".rfleet/attic")).unwrap();
        let mut names: Vec<_> = names.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.contains('T'));
        names.sort();
        names
    }

    /// Gives what was kept so far the time of another session.
    fn age(&self, time: &str) {
        let attic = self.copy.join(".rfleet/attic");
        for name in self.sessions() {
            let why = name.split_once('.').map_or(String::new(), |(_, why)| format!(".{why}"));
            fs::rename(attic.join(&name), attic.join(format!("{time}-77{why}"))).unwrap();
        }
        // Else it would be looked for what has expired in an hour.
        fs::remove_file(attic.join("sizes")).unwrap();
    }
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_else(|| panic!("{key} in {object}")).to_owned()
}

#[test]
fn what_a_push_replaces_and_deletes_is_kept_listed_and_brought_back() {
    let story = Story::new("");
    story.write("changed", "old content", 1_000);
    story.write("deleted", "deleted content", 1_000);
    story.write("same", "same", 1_000);
    story.push();
    assert!(!story.copy.join(".rfleet/attic").exists(), "a first push keeps nothing");
    story.write("changed", "new", 2_000);
    fs::remove_file(story.source.join("deleted")).unwrap();
    let outcome = story.push();
    assert_eq!(outcome.report().host("box").notes, Vec::<String>::new(), "{}", outcome.said());
    assert_same(&story.source, &story.copy);
    assert_eq!(story.kept(), ["deleted deleted", "replaced changed"]);
    let listed = story.attic(&["list"]);
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.said());
    assert!(listed.stdout.contains("11 B  changed"), "{}", listed.said());
    assert_eq!(story.attic(&["list", "www", "changed"]).stdout.lines().count(), 1);
    assert_eq!(story.attic(&["list", "other"]).stdout, "");

    let before = fs::metadata(story.copy.join("same")).unwrap().ino();
    let said = story.restore(&["deleted"]);
    assert!(said.stdout.contains("next push"), "{}", said.said());
    let back = fs::metadata(story.copy.join("deleted")).unwrap();
    assert_eq!((story.text("deleted").as_str(), back.mtime(), back.mtime_nsec()), ("deleted content", 1_000, 5));
    assert_eq!(story.kept(), ["deleted deleted", "replaced changed"], "the attic keeps its own");

    let refused = story.attic(&["restore", "changed"]);
    refused.assert_code(4);
    refused.assert_only_line(&["changed exists", "--force"]);
    assert_eq!(story.text("changed"), "new");
    let elsewhere = story.scratch.dir("elsewhere");
    story.restore(&["www", "changed", "--to", elsewhere.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(elsewhere.join("changed")).unwrap(), "old content");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    story.attic(&["restore", "changed", "--to", elsewhere.to_str().unwrap()]).assert_code(4);
    story.restore(&["changed", "--force"]);
    assert_eq!(story.text("changed"), "old content");
    assert_eq!(story.kept(), ["unexpected changed", "deleted deleted", "replaced changed"]);

    // What was not brought back at the primary goes again, and is kept again.
    story.push();
    assert_same(&story.source, &story.copy);
    assert_eq!(fs::metadata(story.copy.join("same")).unwrap().ino(), before);
    let kept = story.kept();
    assert!(kept.contains(&"deleted deleted".to_owned()) && kept.len() >= 4, "{kept:?}");
    // Both have the path; the one that is named by its session is the one.
    let oldest = story.sessions()[0].clone();
    let old = story.scratch.dir("old");
    story.restore(&["deleted", "--from", oldest.split('.').next().unwrap(), "--to", old.to_str().unwrap()]);
    let unknown = story.attic(&["restore", "deleted", "--from", "20200101T000000Z-1"]);
    unknown.assert_code(1);
    unknown.assert_only_line(&["no session"]);
}

#[test]
fn a_deleted_directory_comes_back_with_all_that_it_had() {
    let story = Story::new("");
    let dir = story.source.join("d");
    Tree::new()
        .dir("d")
        .mode(0o2750)
        .dir("d/empty")
        .mode(0o711)
        .dir("d/in")
        .file("d/in/file", "content")
        .mode(0o640)
        .time(1_000, 7)
        .hard("d/other name", "d/in/file")
        .link("d/link", "in/file")
        .file("d/\u{1b}[31m name", "x")
        .file("stays", "x")
        .create(&story.source);
    let set = Command::new("setfattr").args(["-n", "user.kept", "-v", "1"]).arg(dir.join("in/file")).status();
    let attributes = set.is_ok_and(|status| status.success());
    story.push();
    let before = story.scratch.path("before");
    plain_copy(&story.copy, &before);
    fs::remove_dir_all(before.join(".rfleet")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    story.push();
    assert!(!story.copy.join("d").exists());
    let listed = story.attic(&["list"]);
    assert!(listed.stdout.contains("directory") && !listed.stdout.contains('\u{1b}'), "{}", listed.said());
    let elsewhere = story.scratch.dir("elsewhere");
    story.restore(&["d/in/file", "--to", elsewhere.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(elsewhere.join("file")).unwrap(), "content");
    story.restore(&["d"]);
    // The times of directories are those of their last change, which was the removal of what they held.
    for name in ["", "d", "d/in", "d/empty"] {
        set_time(&story.copy.join(name), (5_000, 0));
        set_time(&before.join(name), (5_000, 0));
    }
    assert_same(&before, &story.copy);
    if attributes {
        let found =
            Command::new("getfattr").args(["-d", "--absolute-names"]).arg(story.copy.join("d/in/file")).output();
        assert!(String::from_utf8_lossy(&found.unwrap().stdout).contains("user.kept"));
    }
    // One entry of it, where its directory is missing again.
    story.push();
    story.restore(&["d/in/file"]);
    assert_eq!(story.text("d/in/file"), "content");
    assert_eq!(fs::metadata(story.copy.join("d")).unwrap().mode() & 0o7777, 0o2750);
}

#[test]
fn entries_of_a_directory_that_stays_are_no_directory_to_bring_back() {
    let story = Story::new("");
    Tree::new().file("d/a", "a").file("d/b", "b").create(&story.source);
    story.push();
    fs::remove_file(story.source.join("d/a")).unwrap();
    story.push();
    assert_eq!(story.kept(), ["deleted d/a"]);
    for wrong in [&["restore", "d"][..], &["restore", "d/b"], &["restore", "nothing"]] {
        let outcome = story.attic(wrong);
        outcome.assert_code(1);
        outcome.assert_only_line(&["attic", wrong[1]]);
    }
    for wrong in [&["restore", "../d"][..], &["restore", "/etc/passwd"], &["restore", ".rfleet/state"]] {
        story.attic(wrong).assert_code(2);
    }
    story.attic(&["restore", "nowhere", "d/a"]).assert_code(2);
    story.restore(&["d/a"]);
    assert_eq!(story.text("d/a"), "a");
    let directory = story.attic(&["restore", "d/a", "--to", "/nonexistent"]);
    directory.assert_code(1);
}

#[test]
fn what_was_only_renamed_or_given_other_attributes_is_not_kept() {
    let story = Story::new("");
    Tree::new().file("a", vec![b'a'; 70_000]).file("b", "b").file("c", "c").create(&story.source);
    support::wait_until_old(&story.source);
    story.push();
    fs::rename(story.source.join("a"), story.source.join("renamed")).unwrap();
    fs::set_permissions(story.source.join("b"), fs::Permissions::from_mode(0o600)).unwrap();
    story.push();
    assert_same(&story.source, &story.copy);
    assert_eq!(story.kept(), Vec::<String>::new());
}

#[test]
fn a_root_that_is_in_use_is_left_alone() {
    let story = Story::new("");
    story.write("f", "old", 1_000);
    story.write("stays", "", 1_000);
    story.push();
    fs::remove_file(story.source.join("f")).unwrap();
    story.push();
    let lock = fs::File::open(story.copy.join(".rfleet/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let busy = story.attic(&["restore", "f"]);
    busy.assert_code(1);
    busy.assert_only_line(&["another rfleet"]);
    assert!(!story.copy.join("f").exists());
    assert_eq!(story.kept(), ["deleted f"], "to look takes no lock");
    drop(lock);
    story.restore(&["f"]);
}

#[test]
fn a_push_without_configuration_and_an_attic_that_is_off_keep_nothing() {
    let story = Story::new("attic = 0");
    story.write("f", "old", 1_000);
    story.push();
    story.write("f", "newer", 2_000);
    story.push();
    assert!(!story.copy.join(".rfleet/attic").exists());
    let other = story.scratch.path("other");
    Push::adhoc(&story.scratch, &story.source, &[&other]).ok();
    story.write("f", "newest of all", 3_000);
    Push::adhoc(&story.scratch, &story.source, &[&other]).ok();
    assert!(!other.join(".rfleet").exists());
}

#[test]
fn age_and_size_bound_it_and_what_was_not_expected_goes_by_age_only() {
    let story = Story::new("attic = \"7d\"\nattic_max = \"1MiB\"");
    story.write("f", vec![1; 600_000], 1_000);
    story.push();
    fs::write(story.copy.join("f"), "by hand").unwrap();
    story.write("f", vec![2; 600_001], 2_000);
    let outcome = story.push();
    assert_eq!(story.kept(), ["unexpected f"], "{}", outcome.said());
    for (round, secs) in [(3, 3_000), (4, 4_000)] {
        story.write("f", vec![round; 600_000 + usize::from(round)], secs);
        story.push();
    }
    let mut kept = story.kept();
    kept.sort();
    // The older of two that are too much has gone.
    assert_eq!(kept, ["replaced f", "unexpected f"]);
    let elsewhere = story.scratch.dir("elsewhere");
    let replaced = story.sessions().into_iter().find(|name| name.ends_with(".replaced")).unwrap();
    story.restore(&["f", "--from", &replaced, "--to", elsewhere.to_str().unwrap()]);
    assert_eq!(fs::read(elsewhere.join("f")).unwrap(), vec![3; 600_003]);
    story.age("20260101T000000Z");
    story.write("g", "new", 1_000);
    story.push();
    assert_eq!(story.kept(), Vec::<String>::new());
}

#[test]
fn a_full_disk_costs_the_attic_and_not_the_push() {
    let scratch = Scratch::new();
    let small = scratch.mount_tmpfs("small", "size=40m");
    let story = Story::at(scratch, small.join("copy"), "");
    for round in 0..4_u8 {
        story.write("large", vec![round; 11 << 20], i64::from(round) + 1_000);
        let outcome = story.push();
        assert_same(&story.source, &story.copy);
        let told = outcome.report().host("box").notes.iter().any(|note| note.contains("attic has given up"));
        // Three of them fit, and the room for the next one is made at the cost of the oldest.
        assert_eq!(told, round >= 2, "{round}: {}", outcome.said());
    }
    assert_eq!(story.kept(), ["replaced large"]);
}

#[test]
fn more_than_the_attic_takes_is_replaced_all_the_same_and_counted() {
    let story = Story::new("attic_max = \"1MiB\"");
    for name in ["a", "b", "c"] {
        story.write(name, vec![0; 500_000], 1_000);
    }
    story.push();
    for name in ["a", "b", "c"] {
        story.write(name, vec![1; 500_001], 2_000);
    }
    let outcome = story.push();
    assert_same(&story.source, &story.copy);
    let notes = outcome.report().host("box").notes.clone();
    assert!(notes.iter().any(|note| note.starts_with("1 entries") && note.contains("attic_max")), "{notes:?}");
    assert_eq!(story.kept(), ["replaced a", "replaced b"]);
}

#[test]
fn nobody_else_can_look_into_an_attic_or_put_anything_there() {
    let story = Story::new("");
    Tree::new().file("f", "secret").mode(0o644).file("stays", "").create(&story.source);
    story.push();
    fs::remove_file(story.source.join("f")).unwrap();
    story.push();
    for dir in [".rfleet", ".rfleet/attic"] {
        assert_eq!(fs::metadata(story.copy.join(dir)).unwrap().mode() & 0o7777, 0o700, "{dir}");
    }
    // A link in its place is neither followed nor listed, and stops no push.
    let attic = story.copy.join(".rfleet/attic");
    fs::rename(&attic, story.scratch.path("aside")).unwrap();
    let outside = story.scratch.dir("outside");
    symlink(&outside, &attic).unwrap();
    story.attic(&["list"]).assert_code(1);
    story.attic(&["restore", "f"]).assert_code(1);
    Tree::new().file("g", "x").create(&story.source);
    story.push();
    fs::remove_file(story.source.join("g")).unwrap();
    let outcome = story.push();
    assert!(!story.copy.join("g").exists());
    let notes = outcome.report().host("box").notes.clone();
    assert!(notes.iter().any(|note| note.contains("not kept in the attic")), "{notes:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
