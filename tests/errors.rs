//! What goes wrong at the edges is one clear line with the right exit code, and nothing is changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};

use rstest::rstest;
use support::fleet::{over_ssh, receiver};
use support::scratch::run_or_panic;
use support::sshd::client_config;
use support::tree::assert_no_state;
use support::{Outcome, Push, Rng, Scratch, Snapshot, Sshd, Tree, assert_same, rfleet_bin};

/// A healthy host and a sick one behind one sshd, each with a copy of something older.
struct Pair {
    scratch: Scratch,
    sshd: Sshd,
    source: PathBuf,
    good: PathBuf,
    sick: PathBuf,
}

impl Pair {
    fn new() -> Self {
        let scratch = Scratch::new();
        let sshd = Sshd::start(&scratch, "sshd");
        let (source, good, sick) = (scratch.path("source"), scratch.path("good"), scratch.path("sick"));
        Tree::new().file("a", "new a").file("d/b", "new b").create(&source);
        for copy in [&good, &sick] {
            Tree::new().file("a", "old").file("kept", "kept").create(copy);
        }
        Self { scratch, sshd, source, good, sick }
    }

    fn name(&self, alias: &str) -> String {
        format!("{alias}:{}", self.scratch.path(alias).display())
    }

    fn client(&self, sick: &str) -> PathBuf {
        let blocks = [self.sshd.client_block("good", ""), self.sshd.client_block("sick", sick)];
        client_config(&self.scratch, "ssh_config", &blocks)
    }

    /// Pushes to both; the good one must be done and the sick one untouched and failed with one of `causes`.
    fn assert_sick_fails(&self, client: &Path, causes: &[&str]) -> Outcome {
        let before = Snapshot::take(&self.sick);
        let push = Push::adhoc(&self.scratch, &self.source, &[self.name("good"), self.name("sick")]);
        let push = over_ssh(push, client).args(&["--timeout", "10s"]);
        let outcome = push.clone().run();
        let cause = self.assert_failed(&outcome, causes);
        push.assert_says(&self.name("sick"), &cause);
        before.assert_untouched(&self.sick);
        assert_eq!(outcome.report().host(&self.name("good")).state, "done", "{}", outcome.said());
        assert_eq!(std::fs::read(self.good.join("d/b")).unwrap(), b"new b");
        self.scratch.assert_no_leftovers();
        outcome
    }

    fn assert_failed(&self, outcome: &Outcome, causes: &[&str]) -> String {
        outcome.assert_code(3);
        assert_clear(outcome, &self.name("sick"), causes)
    }
}

/// The host's state and cause in the report; returns which of `causes` it says.
fn assert_clear(outcome: &Outcome, host: &str, causes: &[&str]) -> String {
    let report = outcome.report();
    let found = report.host(host);
    assert_eq!(found.state, "failed", "{}", outcome.said());
    let error = found.error.clone().unwrap_or_default();
    let cause = causes.iter().find(|cause| error.to_lowercase().contains(&cause.to_lowercase()));
    let cause = cause.unwrap_or_else(|| panic!("{error:?} says none of {causes:?}: {}", outcome.said()));
    assert!(!error.contains('\n') && error.len() < 400, "one clear line: {error:?}");
    (*cause).to_owned()
}

#[test]
fn an_unknown_host_key_is_refused() {
    let pair = Pair::new();
    let empty = pair.scratch.write("known_hosts.empty", "");
    let client = pair.client(&format!("  UserKnownHostsFile {}", empty.display()));
    pair.assert_sick_fails(&client, &["host key"]);
    assert_eq!(std::fs::read(empty).unwrap(), b"", "a key was added without being asked for");
}

#[test]
fn a_changed_host_key_is_refused() {
    let pair = Pair::new();
    let mut keygen = std::process::Command::new("ssh-keygen");
    run_or_panic(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(pair.scratch.path("other_key")));
    let other = std::fs::read_to_string(pair.scratch.path("other_key.pub")).unwrap();
    let line = format!("[127.0.0.1]:{} {other}", pair.sshd.port());
    let known = pair.scratch.write("known_hosts.other", line);
    let client = pair.client(&format!("  UserKnownHostsFile {}", known.display()));
    pair.assert_sick_fails(&client, &["host key", "host identification"]);
}

#[test]
fn a_key_that_the_host_does_not_accept_is_named() {
    let pair = Pair::new();
    let mut keygen = std::process::Command::new("ssh-keygen");
    run_or_panic(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(pair.scratch.path("stranger")));
    // The first IdentityFile does not replace the block's own, so the block's own is left out by a wrong name.
    let wrong = pair.scratch.path("stranger");
    let block = pair.sshd.client_block("sick", "");
    let own = pair.sshd.path("user_key").display().to_string();
    let blocks = [pair.sshd.client_block("good", ""), block.replace(&own, wrong.to_str().unwrap())];
    let client = client_config(&pair.scratch, "ssh_config", &blocks);
    pair.assert_sick_fails(&client, &["permission denied"]);
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let pair = Pair::new();
    let client = pair.client("  HostName does-not-exist.invalid");
    pair.assert_sick_fails(&client, &["resolve"]);
}

/// What the far side runs instead of a receiver of this version.
#[rstest]
#[case::missing("/nonexistent/rfleet receive", &["not found", "no such file"])]
#[case::garbage("SCRIPT echo Welcome to web1, have a nice day", &["protocol", "receiver", "rfleet"])]
#[case::silent_end("SCRIPT exit 0", &["ended", "closed", "end of", "exit"])]
#[case::old("SCRIPT echo rfleet 0.0.1: unknown command receive >&2; exit 2", &["unknown command receive"])]
#[case::binary_garbage("SCRIPT head -c 100000 /dev/urandom; cat >/dev/null", &["protocol", "receiver", "rfleet", "frame"])]
#[case::zeros("SCRIPT head -c 100000 /dev/zero; cat >/dev/null", &["protocol", "receiver", "rfleet", "frame"])]
#[case::echo("SCRIPT exec cat", &["protocol", "receiver", "rfleet", "unexpected", "message"])]
fn a_receiver_that_is_none_is_named(#[case] command: &str, #[case] causes: &[&str]) {
    let pair = Pair::new();
    let client = pair.client("");
    let command = match command.strip_prefix("SCRIPT ") {
        Some(body) => pair.scratch.script("old-rfleet", body).display().to_string(),
        None => command.to_owned(),
    };
    let before = Snapshot::take(&pair.sick);
    let push = Push::adhoc(&pair.scratch, &pair.source, &[pair.name("sick")]).arg("--ssh-config").arg(&client).args(&[
        "--timeout",
        "5s",
        "--receiver",
        &command,
    ]);
    let outcome = push.clone().run();
    let cause = pair.assert_failed(&outcome, causes);
    push.assert_says(&pair.name("sick"), &cause);
    before.assert_untouched(&pair.sick);
    pair.scratch.assert_no_leftovers();
}

#[test]
fn a_shell_that_greets_on_stdout_before_the_receiver_is_named_or_read_over() {
    let pair = Pair::new();
    let client = pair.client("");
    let script = pair.scratch.script("greeting", &format!("echo Last login: today\nexec {}", receiver()));
    let before = Snapshot::take(&pair.sick);
    let outcome = Push::adhoc(&pair.scratch, &pair.source, &[pair.name("sick")])
        .arg("--ssh-config")
        .arg(&client)
        .args(&["--timeout", "5s", "--receiver", script.to_str().unwrap()])
        .run();
    if outcome.code() != Some(0) {
        pair.assert_failed(&outcome, &["protocol", "receiver", "rfleet"]);
        before.assert_untouched(&pair.sick);
    }
}

#[test]
fn a_full_disk_is_named_and_the_old_copy_stays() {
    let scratch = Scratch::new();
    let small = scratch.mount_tmpfs("small", "size=2m");
    let (source, good, sick) = (scratch.path("source"), scratch.path("good"), small.join("www"));
    let mut rng = Rng::new(1);
    let mut tree = Tree::new().file("page", "new");
    for n in 0..40 {
        tree = tree.file(format!("photos/{n}"), rng.bytes(150_000));
    }
    tree.create(&source);
    Tree::new().file("page", "older").file("photos/3", "old photo").create(&sick);
    let before = Snapshot::take(&sick);
    let push = Push::adhoc(&scratch, &source, &[&good, &sick]);
    let outcome = push.clone().run();
    outcome.assert_code(3);
    let cause =
        assert_clear(&outcome, sick.to_str().unwrap(), &["no space left", "free space", "does not fit", "full"]);
    push.assert_says(sick.to_str().unwrap(), &cause);
    before.assert_equal(&sick);
    assert_no_state(&sick);
    assert_same(&source, &good);
    scratch.assert_no_leftovers();
}

#[test]
fn a_disk_out_of_inodes_is_named_and_the_old_copy_stays() {
    let scratch = Scratch::new();
    let small = scratch.mount_tmpfs("small", "size=50m,nr_inodes=60");
    let (source, sick) = (scratch.path("source"), small.join("www"));
    let mut tree = Tree::new().file("page", "new");
    for n in 0..200 {
        tree = tree.file(format!("notes/{n}"), format!("note {n}"));
    }
    tree.create(&source);
    Tree::new().file("page", "older").create(&sick);
    let before = Snapshot::take(&sick);
    let push = Push::adhoc(&scratch, &source, &[&sick]);
    let outcome = push.clone().run();
    outcome.assert_code(3);
    let cause = assert_clear(&outcome, sick.to_str().unwrap(), &["no space left", "inodes", "full"]);
    push.assert_says(sick.to_str().unwrap(), &cause);
    before.assert_equal(&sick);
    assert_no_state(&sick);
    assert_eq!(Snapshot::take(&small).entries.len(), before.entries.len() + 1, "something is left on the disk");
}

#[test]
fn a_read_only_root_is_named_and_untouched() {
    let scratch = Scratch::new();
    let (source, good, below) = (scratch.path("source"), scratch.path("good"), scratch.path("below"));
    Tree::new().file("a", "new").create(&source);
    Tree::new().file("a", "older").create(&below);
    let sick = scratch.mount_read_only(&below, "sick");
    let before = Snapshot::take(&sick);
    let push = Push::adhoc(&scratch, &source, &[&good, &sick]);
    let outcome = push.clone().run();
    outcome.assert_code(3);
    let cause = assert_clear(&outcome, sick.to_str().unwrap(), &["read-only"]);
    push.assert_says(sick.to_str().unwrap(), &cause);
    before.assert_untouched(&sick);
    assert_same(&source, &good);
}

#[test]
fn an_unchanged_read_only_root_is_no_error() {
    let scratch = Scratch::new();
    let (source, below) = (scratch.path("source"), scratch.path("below"));
    Tree::new().file("a", "same").create(&source);
    Push::adhoc(&scratch, &source, &[&below]).ok();
    let sick = scratch.mount_read_only(&below, "sick");
    let outcome = Push::adhoc(&scratch, &source, &[&sick]).ok();
    assert_eq!(outcome.report().root().hosts[0].state, "unchanged", "{}", outcome.said());
}

/// A configuration or a command line that cannot be right: exit 2, one line that names the word.
#[rstest]
#[case::key("version = 1\nfleet = \"x\"\n[[root]]\nname = \"a\"\npath = \"/a\"\n[push]\nintervall = \"5s\"\n", &["intervall", "interval"])]
#[case::section("version = 1\nfleet = \"x\"\n[pusch]\nevents = true\n", &["pusch", "push"])]
#[case::root_key("version = 1\nfleet = \"x\"\n[[root]]\nname = \"a\"\npath = \"/a\"\nexlude = []\n", &["exlude", "exclude"])]
#[case::duration("version = 1\nfleet = \"x\"\n[[root]]\nname = \"a\"\npath = \"/a\"\n[push]\ninterval = \"5 parsecs\"\n", &["interval", "parsecs"])]
#[case::syntax("version = 1\nfleet = \n", &["rfleet.toml", "2"])]
#[case::kind("version = 1\nfleet = \"x\"\n[[root]]\nname = \"a\"\npath = \"/a\"\n[push]\nparallel = \"many\"\n", &["parallel"])]
#[case::version("version = 9\nfleet = \"x\"\n", &["version", "9"])]
fn a_bad_configuration_is_exit_2_and_names_the_key(#[case] text: &str, #[case] words: &[&str]) {
    let scratch = Scratch::new();
    let config = scratch.write("rfleet.toml", text);
    let outcome = Push::configured(&scratch, &config).no_json().run();
    outcome.assert_code(2);
    outcome.assert_only_line(words);
}

#[test]
fn a_missing_configuration_is_named() {
    let scratch = Scratch::new();
    let outcome = Push::configured(&scratch, &scratch.path("none.toml")).no_json().run();
    assert!(matches!(outcome.code(), Some(1 | 2)), "{}", outcome.said());
    outcome.assert_only_line(&["none.toml"]);
}

#[rstest]
#[case(&["push", "--no-such-flag"])]
#[case(&["push", "source-only"])]
#[case(&["no-such-command"])]
#[case(&["push", "source", "copy", "--max-delete", "many"])]
#[case(&["push", "source", "copy", "--bwlimit", "fast"])]
#[case(&["push", "source", "-oProxyCommand=touch x:/path"])]
#[case(&["push", "source", "--", "-oProxyCommand=touch x:/path"])]
fn bad_usage_is_exit_2_and_changes_nothing(#[case] words: &[&str]) {
    let scratch = Scratch::new();
    Tree::new().file("a", "a").create(&scratch.path("source"));
    let outcome = Push::command(&scratch, words).run();
    outcome.assert_code(2);
    assert!(!outcome.stderr.trim().is_empty(), "{}", outcome.said());
    assert!(!scratch.path("copy").exists() && !scratch.path("x").exists());
}

#[test]
fn the_same_destination_twice_is_refused() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("a", "a").create(&source);
    let outcome = Push::adhoc(&scratch, &source, &[&copy, &copy]).no_json().run();
    assert!(matches!(outcome.code(), Some(2 | 4)), "{}", outcome.said());
    assert!(!copy.exists(), "two receivers must not work on one directory");
}

#[test]
fn words_for_the_far_side_are_never_a_shell_for_this_one() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    Tree::new().file("a", "a").create(&source);
    let sshd = Sshd::start(&scratch, "sshd");
    let client = client_config(&scratch, "ssh_config", &[sshd.client_block("web1", "")]);
    let odd = scratch.path("odd $(touch planted) `touch planted`; touch planted ' \" \\ name");
    let destination = format!("web1:{}", odd.display());
    over_ssh(Push::adhoc(&scratch, &source, &[destination]), &client).ok();
    assert_same(&source, &odd);
    assert!(!scratch.path("planted").exists() && !Path::new("/root/planted").exists());
}

#[test]
fn help_and_version_are_results() {
    let scratch = Scratch::new();
    for words in [&["--help"][..], &["push", "--help"], &["--version"]] {
        let outcome = Push::command(&scratch, words).ok();
        assert!(outcome.stdout.contains("rfleet") && outcome.stderr.is_empty(), "{}", outcome.said());
    }
    assert!(rfleet_bin().exists());
}
