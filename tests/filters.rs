//! What is synced and what is not: excludes, `.rfleetignore`, filesystems, sizes; and what hosts have of all that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::{Config, Outcome, Push, Scratch, Snapshot, Tree, rfleet_bin, wait_until_old};

/// A source, and a host with its copy, by configuration or without one.
struct Story {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
}

impl Story {
    fn new(tree: Tree) -> Self {
        let scratch = Scratch::new();
        let (source, copy) = (scratch.path("source"), scratch.path("copy"));
        tree.create(&source);
        Self { scratch, source, copy }
    }

    /// `extra` are lines of the root.
    fn configure(&self, extra: &str) {
        let receiver = [rfleet_bin().to_str().unwrap(), "receive"];
        let config = Config::new("cms").root("data", &self.source, &format!("max_delete = \"100%\"\n{extra}"));
        config.host_command("copy", &receiver, "data", &self.copy).write(&self.scratch, "rfleet.toml");
    }

    fn configured(&self) -> Push<'_> {
        wait_until_old(&self.source);
        Push::configured(&self.scratch, &self.scratch.path("rfleet.toml"))
    }

    fn adhoc(&self) -> Push<'_> {
        Push::adhoc(&self.scratch, &self.source, &[&self.copy])
    }

    fn names(&self) -> BTreeSet<String> {
        names(&self.copy)
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.source.join(name), text);
    }

    /// What only the host has. The times of the directories stay, so that nothing else differs.
    fn on_host(&self, name: &str, text: &str) {
        let at = self.copy.join(name);
        let above = at.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.copy));
        let times: Vec<_> = above.filter_map(|dir| Some((dir, fs::metadata(dir).ok()?.modified().unwrap()))).collect();
        write(&at, text);
        for (dir, time) in times {
            fs::File::open(dir).unwrap().set_modified(time).unwrap();
        }
    }

    fn on_host_text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.copy.join(name)).ok()
    }
}

fn write(at: &Path, text: &str) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

fn names(root: &Path) -> BTreeSet<String> {
    let all = Snapshot::take(root).entries;
    all.into_keys().filter(|name| !name.is_empty()).map(|name| String::from_utf8(name).unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The state of the only host.
fn state(outcome: &Outcome) -> String {
    outcome.report().root().hosts[0].state.clone()
}

fn notes(outcome: &Outcome) -> Vec<String> {
    outcome.report().root().hosts[0].notes.clone()
}

#[test]
fn a_file_of_patterns_counts_from_its_directory_on_and_is_synced_itself() {
    let tree = Tree::new()
        .file(".rfleetignore", "*.log\n/only-here\n")
        .file("a.log", "x")
        .file("only-here", "x")
        .file("d/only-here", "x")
        .file("d/a.log", "x")
        .file("d/e/.rfleetignore", "!keep.log\ncache/\n")
        .file("d/e/keep.log", "x")
        .file("d/e/f/keep.log", "x")
        .file("d/e/a.log", "x")
        .file("d/e/cache/keep.log", "x")
        .file("d/keep.log", "x");
    let story = Story::new(tree);
    story.adhoc().ok();
    let expected =
        [".rfleetignore", "d", "d/e", "d/e/.rfleetignore", "d/e/f", "d/e/f/keep.log", "d/e/keep.log", "d/only-here"];
    assert_eq!(story.names(), set(&expected));
    assert_eq!(state(&story.adhoc().ok()), "unchanged");
}

#[test]
fn a_change_of_the_patterns_counts_in_the_same_push_and_hosts_keep_what_is_excluded_now() {
    for by_index in [false, true] {
        let story = Story::new(Tree::new().file("a.log", "1").file("b", "1").file("d/c.log", "1"));
        story.configure("");
        let push = || if by_index { story.configured() } else { story.adhoc().arg("--delete") };
        push().ok();
        story.write(".rfleetignore", "*.log\n");
        story.write("a.log", "22");
        fs::remove_file(story.source.join("d/c.log")).unwrap();
        push().ok();
        let excluded = [".rfleetignore", "a.log", "b", "d", "d/c.log"];
        assert_eq!(story.names(), set(&excluded), "by index: {by_index}");
        assert_eq!(story.on_host_text("a.log").as_deref(), Some("1"));
        assert_eq!(state(&push().ok()), "unchanged");
        // Taken in again: what is there is what the primary has, and what it does not have goes.
        fs::remove_file(story.source.join(".rfleetignore")).unwrap();
        push().ok();
        assert_eq!(story.names(), set(&["a.log", "b", "d"]), "by index: {by_index}");
        assert_eq!(story.on_host_text("a.log").as_deref(), Some("22"));
        assert!(!story.copy.join(".rfleet/attic").exists());
        assert_eq!(state(&push().ok()), "unchanged");
    }
}

#[test]
fn a_path_that_the_configuration_excludes_stays_on_the_hosts() {
    let story = Story::new(Tree::new().file("a.log", "1").file("b", "1").file("cache/c", "1"));
    story.configure("");
    story.configured().ok();
    story.configure("exclude = [\"*.log\", \"/cache/\"]");
    fs::remove_file(story.source.join("a.log")).unwrap();
    fs::remove_dir_all(story.source.join("cache")).unwrap();
    for _ in 0..2 {
        story.configured().ok();
        assert_eq!(story.names(), set(&["a.log", "b", "cache", "cache/c"]));
    }
    story.write("b", "22");
    story.configured().ok();
    assert_eq!(story.names(), set(&["a.log", "b", "cache", "cache/c"]));
}

#[test]
fn delete_excluded_takes_it_away() {
    let story = Story::new(Tree::new().file("a.log", "1").file("b", "1").file("cache/c", "1"));
    story.configure("");
    story.configured().ok();
    story.on_host("cache/own", "of the host");
    story.configure("exclude = [\"*.log\", \"/cache/\"]\ndelete_excluded = true");
    story.configured().ok();
    assert_eq!(story.names(), set(&["b"]));
    assert_eq!(state(&story.configured().ok()), "unchanged");
    assert!(story.source.join("a.log").exists() && story.source.join("cache/c").exists());
    // Also where the file of patterns says it, and the index knows the path.
    story.write("d/x.tmp", "1");
    story.configured().ok();
    assert!(story.copy.join("d/x.tmp").exists());
    story.write(".rfleetignore", "*.tmp\n");
    story.configured().ok();
    assert_eq!(story.names(), set(&[".rfleetignore", "b", "d"]));
}

#[test]
fn delete_excluded_on_the_command_line() {
    let story = Story::new(Tree::new().file("a.log", "1").file("b", "1"));
    story.adhoc().ok();
    let with = |flags: &[&str]| story.adhoc().args(&["--exclude", "*.log"]).args(flags);
    with(&["--delete"]).ok();
    assert_eq!(story.names(), set(&["a.log", "b"]));
    with(&["--delete-excluded"]).no_json().run().assert_code(2);
    with(&["--delete", "--delete-excluded"]).ok();
    assert_eq!(story.names(), set(&["b"]));
    // By configuration for one run: what hosts know is not disturbed by it.
    let story = Story::new(Tree::new().file("a.log", "1").file("b", "1"));
    story.configure("");
    story.configured().ok();
    story.configure("exclude = [\"*.log\"]");
    story.configured().ok();
    assert_eq!(story.names(), set(&["a.log", "b"]));
    story.configured().arg("--delete-excluded").ok();
    assert_eq!(story.names(), set(&["b"]));
    story.write("c", "1");
    story.configured().ok();
    assert_eq!(story.names(), set(&["b", "c"]));
}

#[test]
fn what_is_excluded_in_a_directory_that_is_renamed_moves_along_or_stays_where_it_is() {
    for (rules, stays) in [("cache/\n*.tmp\n", false), ("/a/cache/\n/a/*.tmp\n", true)] {
        let story = Story::new(Tree::new().file("a/f", "1").file("a/d/g", "1").file(".rfleetignore", rules));
        story.configure("");
        story.configured().ok();
        story.on_host("a/cache/own", "of the host");
        story.on_host("a/x.tmp", "of the host");
        let inode = fs::metadata(story.copy.join("a/d/g")).unwrap().ino();
        fs::rename(story.source.join("a"), story.source.join("b")).unwrap();
        let outcome = story.configured().ok();
        let mut expected = set(&[".rfleetignore", "b", "b/d", "b/d/g", "b/f"]);
        let own =
            if stays { ["a", "a/cache", "a/cache/own", "a/x.tmp"] } else { ["b", "b/cache", "b/cache/own", "b/x.tmp"] };
        expected.extend(set(&own));
        assert_eq!(story.names(), expected, "{rules:?}: {}", outcome.said());
        let (from, to) = if stays { ("a", "a") } else { ("b", "b") };
        assert_eq!(story.on_host_text(&format!("{from}/cache/own")).as_deref(), Some("of the host"));
        assert_eq!(story.on_host_text(&format!("{to}/x.tmp")).as_deref(), Some("of the host"));
        let moved = fs::metadata(story.copy.join("b/d/g")).unwrap().ino() == inode;
        assert_eq!(moved, !stays, "a directory is renamed where that takes nothing along that stays");
        let kept = notes(&outcome).into_iter().filter(|note| note.contains("left alone")).collect::<Vec<_>>();
        assert_eq!(kept.len(), usize::from(stays), "{}", outcome.said());
        assert_eq!(state(&story.configured().ok()), "unchanged");
        assert_eq!(state(&story.configured().arg("--full").ok()), "unchanged");
        assert_eq!(story.names(), expected);
    }
}

#[test]
fn a_directory_that_is_renamed_takes_its_own_file_of_patterns_along() {
    let story = Story::new(Tree::new().file("a/.rfleetignore", "/cache/\n").file("a/f", "1").file("k", "1"));
    story.configure("");
    story.configured().ok();
    story.on_host("a/cache/own", "of the host");
    let inode = fs::metadata(story.copy.join("a/f")).unwrap().ino();
    fs::create_dir(story.source.join("z")).unwrap();
    fs::rename(story.source.join("a"), story.source.join("z/b")).unwrap();
    story.configured().ok();
    assert_eq!(fs::metadata(story.copy.join("z/b/f")).unwrap().ino(), inode);
    assert_eq!(story.on_host_text("z/b/cache/own").as_deref(), Some("of the host"));
    assert!(!story.copy.join("a").exists());
    assert_eq!(state(&story.configured().arg("--full").ok()), "unchanged");
}

#[test]
fn a_directory_that_goes_stays_where_it_holds_what_is_excluded_and_one_line_says_so() {
    let story = Story::new(Tree::new().file("a/f", "1").file("a/d/g", "1").file("k", "1"));
    story.configure("exclude = [\"cache/\"]");
    story.configured().ok();
    story.on_host("a/d/cache/own", "of the host");
    fs::remove_dir_all(story.source.join("a")).unwrap();
    for round in 0..3 {
        let outcome = match round {
            0 => story.configured().ok(),
            _ => story.configured().arg("--full").ok(),
        };
        assert_eq!(story.names(), set(&["a", "a/d", "a/d/cache", "a/d/cache/own", "k"]));
        let notes = notes(&outcome);
        assert_eq!(notes.len(), 1, "{}", outcome.said());
        assert!(notes[0].contains("1 directory") && notes[0].ends_with(": a"), "{notes:?}");
        assert!(outcome.report().root().hosts[0].problems.is_empty(), "{}", outcome.said());
    }
    let quiet = story.configured().ok();
    assert_eq!((state(&quiet), notes(&quiet).len()), ("unchanged".into(), 0), "{}", quiet.said());
}

#[test]
fn patterns_that_are_none_are_problems_with_their_lines_and_the_others_count() {
    let story = Story::new(Tree::new().file("d/.rfleetignore", "*.log\na[b\n!\\\n*.tmp\n").file("d/a.log", "1"));
    story.write("d/b.tmp", "1");
    story.write("d/c", "1");
    let outcome = story.adhoc().run();
    outcome.assert_code(3);
    assert_eq!(story.names(), set(&["d", "d/.rfleetignore", "d/c"]));
    let report = outcome.report();
    let told: Vec<_> = report.root().problems.iter().map(|one| (one.path.as_str(), one.cause.as_str())).collect();
    assert_eq!(told.len(), 2, "{}", outcome.said());
    assert!(told.iter().all(|(path, _)| *path == "d/.rfleetignore"), "{told:?}");
    assert!(told[0].1.contains("line 2") && told[1].1.contains("line 3"), "{told:?}");
}

#[test]
fn a_file_of_patterns_that_cannot_be_used_makes_its_directory_unreadable_and_nothing_is_deleted() {
    for kind in ["link", "link outside", "pipe", "directory", "too long"] {
        let story = Story::new(Tree::new().file("d/gone", "1").file("k", "1"));
        story.adhoc().ok();
        let outside = story.scratch.write("outside", "*\n");
        fs::remove_file(story.source.join("d/gone")).unwrap();
        let at = story.source.join("d/.rfleetignore");
        match kind {
            "link" => symlink("../k", &at).unwrap(),
            "link outside" => symlink(outside, &at).unwrap(),
            "pipe" => mknodat(CWD, &at, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
            "directory" => fs::create_dir(&at).unwrap(),
            _ => fs::write(&at, vec![b'\n'; (1 << 20) + 1]).unwrap(),
        }
        let before = Snapshot::take(&story.copy);
        let outcome = story.adhoc().arg("--delete").run();
        outcome.assert_code(4);
        outcome.assert_only_line(&["d: its .rfleetignore cannot be used", "nothing was changed"]);
        before.assert_untouched(&story.copy);
    }
    // As long as it may be.
    let story = Story::new(Tree::new().file("k", "1").file("a.log", "1"));
    let mut text = b"*.log\n".to_vec();
    text.resize(1 << 20, b'\n');
    fs::write(story.source.join(".rfleetignore"), text).unwrap();
    story.adhoc().ok();
    assert_eq!(story.names(), set(&[".rfleetignore", "k"]));
}

#[test]
fn the_command_line_goes_before_files_of_patterns_and_these_before_the_configuration() {
    let story = Story::new(Tree::new().file(".rfleetignore", "!a.log\n!b.log\n").file("a.log", "1").file("b.log", "1"));
    story.write("c.log", "1");
    story.configure("exclude = [\"*.log\"]");
    story.configured().args(&["--exclude", "b.log"]).ok();
    assert_eq!(story.names(), set(&[".rfleetignore", "a.log"]));
}

#[test]
fn a_root_inside_another_is_never_touched_whatever_a_file_of_patterns_says() {
    let story = Story::new(Tree::new().file(".rfleetignore", "!/media/\n!*\n").file("k", "1"));
    let media = story.scratch.path("media");
    Tree::new().file("of-media", "1").create(&media);
    let receiver = [rfleet_bin().to_str().unwrap(), "receive"];
    let host = format!(
        "[[host]]\nname = \"copy\"\ncommand = {receiver:?}\npaths = {{ data = {:?}, media = {:?} }}",
        story.copy.display().to_string(),
        story.copy.join("media").display().to_string()
    );
    let root = "exclude = [\"/media/\"]\ndelete_excluded = true\nmax_delete = \"100%\"";
    let config = Config::new("cms").root("data", &story.source, root).root("media", &media, "max_delete = \"100%\"");
    config.lines(&host).write(&story.scratch, "rfleet.toml");
    story.write("media/planted", "of the outer source");
    for round in 0..3 {
        story.configured().args(if round == 2 { &["--full"] } else { &[] }).ok();
        assert_eq!(names(&story.copy.join("media")), set(&["of-media"]));
        assert!(story.on_host_text("media/planted").is_none());
    }
}

#[test]
fn larger_files_are_skipped_and_told_once_and_hosts_keep_what_they_have() {
    let story = Story::new(Tree::new().file("small", "x").file("d/grows", "old").file("e/grows", "old"));
    story.configure("max_size = 1000");
    story.configured().ok();
    story.write("d/grows", &"x".repeat(1001));
    story.write("e/exact", &"x".repeat(1000));
    story.write("new", &"x".repeat(5000));
    let outcome = story.configured().ok();
    let skipped = &serde_json::from_str::<serde_json::Value>(&outcome.stdout).unwrap()["roots"][0]["skipped"];
    assert_eq!((&skipped["count"], &skipped["max_size"]), (&2.into(), &1000.into()), "{}", outcome.said());
    assert_eq!(skipped["files"][0], serde_json::json!({"path": "d/grows", "bytes": 1001}));
    assert_eq!(story.on_host_text("d/grows").as_deref(), Some("old"));
    assert!(story.copy.join("e/exact").exists() && !story.copy.join("new").exists());
    for flags in [&[][..], &["--full"]] {
        assert_eq!(state(&story.configured().args(flags).ok()), "unchanged");
        assert_eq!(story.on_host_text("d/grows").as_deref(), Some("old"));
    }
    let said = story.configured().no_json().ok();
    assert!(said.stdout.contains("skipped: 2 files are larger than 1000 B"), "{}", said.said());
    assert!(!said.stdout.contains("d/grows"), "{}", said.said());
    let said = story.configured().no_json().arg("-v").ok();
    assert!(said.stdout.contains("d/grows (1001 B)") && said.stdout.contains("new ("), "{}", said.said());
    // In a directory that is renamed it goes along.
    fs::rename(story.source.join("d"), story.source.join("f")).unwrap();
    story.configured().ok();
    assert_eq!(story.on_host_text("f/grows").as_deref(), Some("old"));
    assert!(!story.copy.join("d").exists());
    // Small again: what the host has is known by a look, and nothing of it is taken for someone else's.
    story.write("f/grows", "small again");
    let outcome = story.configured().ok();
    assert_eq!(story.on_host_text("f/grows").as_deref(), Some("small again"), "{}", outcome.said());
    assert!(!story.copy.join(".rfleet/attic").exists(), "{}", outcome.said());
    // Gone: so it is from the hosts.
    story.write("f/grows", &"x".repeat(1001));
    story.configured().ok();
    fs::remove_file(story.source.join("f/grows")).unwrap();
    story.configured().ok();
    assert!(!story.copy.join("f/grows").exists());
}

#[test]
fn a_filesystem_that_is_not_mounted_any_more_deletes_nothing_until_that_is_confirmed() {
    let story = Story::new(Tree::new().file("k", "1").file("d/f", "1"));
    let volume = story.scratch.mount_tmpfs("source/d/volume", "size=1m");
    Tree::new().file("v", "of the volume").file("w/x", "of the volume").create(&volume);
    story.configure("");
    story.configured().ok();
    let all = set(&["d", "d/f", "d/volume", "d/volume/v", "d/volume/w", "d/volume/w/x", "k"]);
    assert_eq!(story.names(), all);
    umount(&volume);
    story.write("k", "22");
    for flags in [&[][..], &["--full"], &["--checksum"], &["--exclude", "*.none"], &["--delete-excluded"]] {
        let before = Snapshot::take(&story.copy);
        let outcome = story.configured().args(flags).run();
        outcome.assert_code(4);
        outcome.assert_only_line(&["d/volume", "mounted", "nothing was changed"]);
        before.assert_untouched(&story.copy);
    }
    // Other patterns make no other disk.
    story.configure("exclude = [\"*.none\"]");
    story.configured().run().assert_code(4);
    assert_eq!(story.names(), all);
    // It comes back.
    let volume = story.scratch.mount_tmpfs("source/d/volume", "size=1m");
    Tree::new().file("v", "of the volume").file("w/x", "of the volume").create(&volume);
    story.configured().ok();
    assert_eq!(story.names(), all);
    umount(&volume);
    // Its mount point goes, too.
    fs::remove_dir(&volume).unwrap();
    let refused = story.configured().run();
    refused.assert_code(4);
    let plan = refused.report().root().refused.as_ref().unwrap().plan.clone().unwrap();
    story.configured().args(&["--confirm-deletes", &plan]).ok();
    assert_eq!(story.names(), set(&["d", "d/f", "k"]));
    // Agreed to once, it is a plain directory from then on.
    story.write("d/volume/plain", "1");
    story.configured().ok();
    fs::remove_dir_all(&volume).unwrap();
    story.configured().ok();
    assert_eq!(story.names(), set(&["d", "d/f", "k"]));
}

fn umount(at: &Path) {
    assert!(std::process::Command::new("umount").arg(at).status().unwrap().success());
}

#[test]
fn one_filesystem_leaves_out_what_is_mounted_and_hosts_keep_what_they_have_there() {
    for by_index in [false, true] {
        let story = Story::new(Tree::new().file("k", "1").file("d/f", "1"));
        let volume = story.scratch.mount_tmpfs("source/d/volume", "size=1m");
        Tree::new().file("v", "of the volume").create(&volume);
        story.configure("one_filesystem = true");
        let push = || if by_index { story.configured() } else { story.configured().arg("--checksum") };
        push().ok();
        assert_eq!(story.names(), set(&["d", "d/f", "k"]));
        story.on_host("d/volume/own", "of the host");
        push().arg("--full").ok();
        let kept = set(&["d", "d/f", "d/volume", "d/volume/own", "k"]);
        assert_eq!(story.names(), kept);
        if !by_index {
            continue;
        }
        // Not mounted for once, or for ever: what is below comes to nobody, and nothing goes.
        umount(&volume);
        story.write("d/volume/below", "below the mount point");
        let outcome = push().arg("--full").ok();
        assert_eq!(story.names(), kept, "{}", outcome.said());
        let said = outcome.stdout.matches("nothing is mounted at d/volume").count();
        assert_eq!(said, 1, "{}", outcome.said());
        fs::remove_dir_all(&volume).unwrap();
        push().arg("--full").ok();
        assert_eq!(story.names(), kept);
    }
}

#[test]
fn lost_and_found_is_left_out_at_the_top_of_a_filesystem_only() {
    let story = Story::new(Tree::new().file("unused", "1"));
    let source = story.scratch.mount_image("disk", &["mkfs.ext4", "-q"], 8 << 20);
    write(&source.join("a/lost+found/x"), "1");
    assert!(source.join("lost+found").is_dir());
    Push::adhoc(&story.scratch, &source, &[&story.copy]).arg("--delete").ok();
    assert_eq!(story.names(), set(&["a", "a/lost+found", "a/lost+found/x"]));
    // On a host it is not deleted.
    Push::adhoc(&story.scratch, &story.source, &[&source]).arg("--delete").ok();
    assert_eq!(names(&source), set(&["lost+found", "unused"]));
}
