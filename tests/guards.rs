//! Promise 4 and the other guards: exit 4, one line, nothing changed anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Config, Outcome, Push, Scratch, Snapshot, Tree, assert_same, rfleet_bin};

/// A source and two copies of an older state, and what they look like.
struct Story {
    scratch: Scratch,
    source: PathBuf,
    copies: [PathBuf; 2],
}

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        let source = scratch.path("source");
        let copies = [scratch.path("copy1"), scratch.path("copy2")];
        numbered(200).create(&source);
        for copy in &copies {
            numbered(200).file("extra", "only here").create(copy);
        }
        Self { scratch, source, copies }
    }

    fn push(&self) -> Push<'_> {
        Push::adhoc(&self.scratch, &self.source, &self.copies).arg("--delete")
    }

    /// Runs `push`, which a guard must refuse with `words` in its line, and looks that nothing changed.
    fn assert_refused(&self, push: Push<'_>, words: &[&str]) -> Outcome {
        let before = self.copies.each_ref().map(|copy| Snapshot::take(copy));
        let source = Snapshot::take(&self.source);
        let outcome = push.run();
        assert_refusal(&outcome, words);
        for (copy, before) in self.copies.iter().zip(&before) {
            before.assert_untouched(copy);
        }
        source.assert_untouched(&self.source);
        outcome
    }
}

fn numbered(count: usize) -> Tree {
    (0..count).fold(Tree::new(), |tree, n| tree.file(format!("d{}/{n}", n % 7), format!("file {n}")))
}

fn assert_refusal(outcome: &Outcome, words: &[&str]) {
    outcome.assert_code(4);
    outcome.assert_only_line(words);
    let report = outcome.report();
    let refused = report.root().refused.as_ref();
    let refused = refused.unwrap_or_else(|| panic!("no refusal in the report: {}", outcome.said()));
    assert!(!refused.message.is_empty() && !refused.guard.is_empty(), "{}", outcome.said());
    assert!(report.root().hosts.iter().all(|h| h.state != "done"), "{}", outcome.said());
}

#[test]
fn a_missing_source_is_refused() {
    let story = Story::new();
    fs::rename(&story.source, story.scratch.path("moved")).unwrap();
    let outcome = story.assert_refused(story.push(), &[story.source.to_str().unwrap()]);
    assert!(!story.source.exists(), "{}", outcome.said());
}

#[test]
fn an_empty_source_is_refused() {
    let story = Story::new();
    fs::remove_dir_all(&story.source).unwrap();
    fs::create_dir(&story.source).unwrap();
    story.assert_refused(story.push(), &[story.source.to_str().unwrap(), "empty"]);
}

#[test]
fn an_empty_source_is_refused_also_without_deletions() {
    let story = Story::new();
    fs::remove_dir_all(&story.source).unwrap();
    fs::create_dir(&story.source).unwrap();
    let push = Push::adhoc(&story.scratch, &story.source, &story.copies);
    story.assert_refused(push, &["empty"]);
}

#[test]
fn a_source_that_is_a_file_is_refused() {
    let story = Story::new();
    fs::remove_dir_all(&story.source).unwrap();
    fs::write(&story.source, "not a directory").unwrap();
    story.assert_refused(story.push(), &[story.source.to_str().unwrap(), "directory"]);
}

/// Root may read everything, so an unreadable directory takes a user without that right.
#[test]
fn a_source_that_is_unreadable_in_part_is_refused() {
    let scratch = Scratch::new();
    assert!(support::scratch::is_root(), "this story changes the user and needs root: run it as root");
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    numbered(30).file("secret/a", "a").dir("secret").mode(0o700).create(&source);
    numbered(30).file("secret/a", "old").create(&copy);
    for place in [scratch.root(), &copy] {
        support::tree::set_mode(place, 0o755);
    }
    let before = Snapshot::take(&copy);
    // The binary may lie where only root can go, so the user gets a copy of it.
    let bin = scratch.path("rfleet");
    fs::copy(rfleet_bin(), &bin).unwrap();
    let mut command = std::process::Command::new("setpriv");
    scratch.hermetic(&mut command);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&bin).arg("push");
    let output = command.arg(&source).arg(&copy).args(["--delete", "--json"]).output().expect("setpriv (util-linux)");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.lines().count() == 1 && said.contains("secret"), "{said}");
    before.assert_untouched(&copy);
}

#[test]
fn too_many_deletions_are_refused_until_they_are_confirmed() {
    let story = Story::new();
    for n in 0..150 {
        let _ = fs::remove_file(story.source.join(format!("d{}/{n}", n % 7)));
    }
    let outcome = story.assert_refused(story.push(), &["151", "--confirm-deletes"]);
    let plan = outcome.report().root().refused.as_ref().unwrap().plan.clone();
    let plan = plan.unwrap_or_else(|| panic!("no plan to confirm: {}", outcome.said()));
    outcome.assert_line(&["--confirm-deletes", &plan]);

    let wrong = story.push().args(&["--confirm-deletes", "0000000000000000"]);
    story.assert_refused(wrong, &["--confirm-deletes"]);

    story.push().args(&["--confirm-deletes", &plan]).ok();
    story.copies.iter().for_each(|copy| assert_same(&story.source, copy));
}

#[test]
fn a_confirmation_is_for_one_plan_only() {
    let story = Story::new();
    for n in 0..150 {
        let _ = fs::remove_file(story.source.join(format!("d{}/{n}", n % 7)));
    }
    let outcome = story.assert_refused(story.push(), &["--confirm-deletes"]);
    let plan = outcome.report().root().refused.as_ref().unwrap().plan.clone().unwrap();
    fs::remove_file(story.source.join(format!("d{}/{}", 160 % 7, 160))).unwrap();
    story.assert_refused(story.push().args(&["--confirm-deletes", &plan]), &["152", "--confirm-deletes"]);
}

#[test]
fn a_hundred_deletions_pass_the_default_budget() {
    let story = Story::new();
    for n in 0..90 {
        fs::remove_file(story.source.join(format!("d{}/{n}", n % 7))).unwrap();
    }
    story.push().ok();
    story.copies.iter().for_each(|copy| assert_same(&story.source, copy));
}

#[test]
fn max_delete_takes_a_count_or_a_share() {
    let story = Story::new();
    for n in 0..20 {
        fs::remove_file(story.source.join(format!("d{}/{n}", n % 7))).unwrap();
    }
    // 21 of 208 entries: twenty files and the extra one.
    story.assert_refused(story.push().args(&["--max-delete", "20"]), &["21"]);
    story.assert_refused(story.push().args(&["--max-delete", "5%"]), &["21"]);
    story.assert_refused(story.push().args(&["--max-delete", "0"]), &["21"]);
    story.push().args(&["--max-delete", "21"]).ok();
    story.copies.iter().for_each(|copy| assert_same(&story.source, copy));
}

#[test]
fn deletions_hidden_in_a_change_of_type_are_counted() {
    let story = Story::new();
    for n in 0..7 {
        fs::remove_dir_all(story.source.join(format!("d{n}"))).unwrap();
        fs::write(story.source.join(format!("d{n}")), "a file now").unwrap();
    }
    story.assert_refused(story.push(), &["--confirm-deletes"]);
}

#[test]
fn one_host_over_the_budget_stops_all() {
    let story = Story::new();
    (0..300).fold(Tree::new(), |tree, n| tree.file(format!("more/{n}"), "m")).create(&story.copies[1]);
    fs::write(story.source.join("new"), "new").unwrap();
    story.assert_refused(story.push(), &["--confirm-deletes"]);
}

#[test]
fn a_source_inside_the_destination_or_the_reverse_is_refused() {
    let scratch = Scratch::new();
    let outer = scratch.path("outer");
    numbered(20).create(&outer);
    numbered(20).create(&outer.join("inner"));
    std::os::unix::fs::symlink(&outer, scratch.path("alias")).unwrap();
    let inner = outer.join("inner");
    let cases: [(&Path, PathBuf); 5] = [
        (&inner, outer.clone()),
        (&outer, inner.clone()),
        (&outer, outer.clone()),
        (&outer, scratch.path("alias")),
        (&outer, inner.join("new")),
    ];
    for (source, copy) in cases {
        let before = Snapshot::take(&outer);
        let outcome = Push::adhoc(&scratch, source, &[&copy]).arg("--delete").run();
        assert_refusal(&outcome, &[copy.to_str().unwrap()]);
        before.assert_untouched(&outer);
    }
}

fn configured(scratch: &Scratch, source: &Path, extra: &str) -> (PathBuf, PathBuf) {
    let copy = scratch.path("configured-copy");
    let config = Config::new("cms")
        .root("www", source, extra)
        .hosts(&["web2"])
        .host_command("web2", &[rfleet_bin().to_str().unwrap(), "receive"], "www", &copy)
        .write(scratch, "rfleet.toml");
    (config, copy)
}

#[test]
fn a_source_without_its_required_file_is_refused() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    numbered(20).file(".rfleet-root", "").create(&source);
    let (config, copy) = configured(&scratch, &source, "delete = true\nrequire = \".rfleet-root\"");
    Push::configured(&scratch, &config).ok();
    assert_same(&source, &copy);
    let before = Snapshot::take(&copy);
    fs::remove_file(source.join(".rfleet-root")).unwrap();
    fs::write(source.join("new"), "new").unwrap();
    let outcome = Push::configured(&scratch, &config).run();
    assert_refusal(&outcome, &["www", ".rfleet-root"]);
    before.assert_untouched(&copy);
}

#[test]
fn a_foreign_destination_is_refused_until_it_is_adopted() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    numbered(20).create(&source);
    let (config, copy) = configured(&scratch, &source, "delete = true");
    Tree::new().file("theirs", "someone else's").file("d1/1", "different").create(&copy);
    let before = Snapshot::take(&copy);
    let outcome = Push::configured(&scratch, &config).run();
    assert_refusal(&outcome, &["www", "--adopt"]);
    before.assert_untouched(&copy);
    assert!(!copy.join(".rfleet").exists(), "state was left by a refusal");

    Push::configured(&scratch, &config).arg("--adopt").ok();
    assert_same(&source, &copy);
    // Once is enough: the root is the fleet's from now on.
    fs::remove_file(source.join("d1/1")).unwrap();
    Push::configured(&scratch, &config).ok();
    assert_same(&source, &copy);
}

#[test]
fn a_foreign_destination_where_nothing_would_be_lost_needs_no_adoption() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    numbered(20).create(&source);
    let (config, copy) = configured(&scratch, &source, "delete = true");
    (0..10).fold(Tree::new(), |tree, n| tree.file(format!("d{}/{n}", n % 7), format!("file {n}"))).create(&copy);
    let same = std::process::Command::new("rsync")
        .args(["-a", "--existing"])
        .arg(format!("{}/", source.display()))
        .arg(&copy)
        .status();
    assert!(same.unwrap().success());
    Push::configured(&scratch, &config).ok();
    assert_same(&source, &copy);
}

#[test]
fn a_destination_of_another_fleet_is_refused() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    numbered(20).create(&source);
    let (config, copy) = configured(&scratch, &source, "delete = true");
    Push::configured(&scratch, &config).ok();
    let other = scratch.path("other-source");
    numbered(3).file("else", "else").create(&other);
    let theirs = Config::new("blog")
        .root("www", &other, "delete = true")
        .hosts(&["web2"])
        .host_command("web2", &[rfleet_bin().to_str().unwrap(), "receive"], "www", &copy)
        .write(&scratch, "other.toml");
    let before = Snapshot::take(&copy);
    let outcome = Push::configured(&scratch, &theirs).run();
    assert_refusal(&outcome, &["www", "--adopt"]);
    before.assert_untouched(&copy);
}
