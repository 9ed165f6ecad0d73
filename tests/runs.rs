//! One run after the other: they never overlap, and each knows which hosts those before it could not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use support::fleet::receiver;
use support::scratch::is_root;
use support::sshd::client_config;
use support::{Config, Outcome, Push, Running, Scratch, Sshd, Tree, assert_same, process, rfleet_bin, wait_until};

/// Two hosts behind commands; the receiver of `gate` waits until the file `go` is there.
struct Gate {
    scratch: Scratch,
    config: PathBuf,
}

impl Gate {
    fn new() -> Self {
        let scratch = Scratch::new();
        Tree::new().file("a", "x").create(&scratch.path("source"));
        let bin = rfleet_bin().to_str().unwrap();
        let (go, ended) = (scratch.path("go"), scratch.root().display());
        let body = format!("while [ ! -e {go:?} ] && [ -d {ended} ]; do sleep 0.02; done; exec {bin} receive \"$@\"");
        let gate = scratch.script("gate", &body);
        let config = Config::new("cms")
            .root("www", &scratch.path("source"), "")
            .hosts(&["gate", "box"])
            .host_command("gate", &[gate.to_str().unwrap()], "www", &scratch.path("copy-gate"))
            .host_command("box", &[bin, "receive"], "www", &scratch.path("copy-box"))
            .write(&scratch, "rfleet.toml");
        Self { scratch, config }
    }

    fn push(&self) -> Push<'_> {
        Push::configured(&self.scratch, &self.config)
    }

    /// A run that holds the lock.
    fn start(&self) -> Running {
        let running = self.push().start();
        let pid = format!("pid = {}\n", running.pid());
        let lock = self.scratch.path("state/cms.lock");
        let has_it = || fs::read_to_string(&lock).is_ok_and(|text| text.contains(&pid));
        wait_until("the first run", Duration::from_secs(20), has_it);
        running
    }

    fn open(&self) {
        self.scratch.write("go", "");
    }
}

#[test]
fn a_second_run_says_who_is_at_it_and_does_nothing() {
    let gate = Gate::new();
    let first = gate.start();
    let pid = first.pid().to_string();
    let repair = Push::command(&gate.scratch, &["verify", "--repair", "--config"]).arg(&gate.config);
    for second in [gate.push(), gate.push().args(&["--host", "box"]), repair] {
        let outcome = second.run();
        outcome.assert_code(0);
        outcome.assert_only_line(&["fleet cms", "rfleet push", &format!("pid {pid}"), "ago", "nothing was done"]);
        assert_eq!(outcome.stdout, "", "{}", outcome.said());
    }
    let quiet = gate.push().no_json().arg("-q").ok();
    assert_eq!(quiet.stderr, "");
    gate.open();
    first.finish().assert_code(0);
    gate.push().ok().report();
}

#[test]
fn what_changes_nothing_or_knows_no_fleet_need_not_wait() {
    let gate = Gate::new();
    let first = gate.start();
    let dry = gate.push().args(&["-n", "--host", "box"]).run();
    assert_eq!(dry.report().host("box").error, None, "{}", dry.said());
    let verify = ["verify", "--json", "--host", "box", "--config"];
    let verified = Push::command(&gate.scratch, &verify).arg(&gate.config).run();
    assert_eq!(verified.report().host("box").error, None, "{}", verified.said());
    let by_hand = Push::adhoc(&gate.scratch, &gate.scratch.path("source"), &[gate.scratch.path("by-hand")]).ok();
    assert_eq!(by_hand.report().root().hosts[0].state, "done");
    gate.open();
    first.finish().assert_code(0);
    assert_same(&gate.scratch.path("source"), &gate.scratch.path("copy-gate"));
}

#[test]
fn a_run_that_was_killed_holds_nobody_up() {
    let gate = Gate::new();
    let first = gate.start();
    first.signal(Signal::KILL);
    let outcome = first.finish();
    assert_eq!(outcome.code(), None, "{}", outcome.said());
    gate.open();
    gate.push().ok();
    assert_same(&gate.scratch.path("source"), &gate.scratch.path("copy-gate"));
    gate.scratch.assert_no_leftovers();
}

#[test]
fn a_state_directory_that_cannot_be_trusted_is_named_and_nothing_is_done() {
    let gate = Gate::new();
    let state = gate.scratch.path("state");
    let refused = |words: &[&str]| {
        let outcome = gate.push().no_json().run();
        outcome.assert_code(1);
        outcome.assert_only_line(words);
        assert!(!gate.scratch.path("copy-box").exists());
    };
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    refused(&["state directory", "others may write", "chmod go-w"]);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let sentinel = gate.scratch.write("sentinel", "untouched");
    symlink(&sentinel, state.join("cms.lock")).unwrap();
    refused(&["cms.lock"]);
    assert_eq!(fs::read_to_string(sentinel).unwrap(), "untouched");
    assert!(is_root(), "this story gives a directory away and needs root: run it as root");
    std::os::unix::fs::chown(&state, Some(12345), None).unwrap();
    refused(&["state directory", "belongs to user 12345", "STATE_DIRECTORY"]);
}

/// A host whose connections fail until it is mended, each leaving a line, and one that works.
struct Dead {
    scratch: Scratch,
    sshd: Sshd,
    config: PathBuf,
}

impl Dead {
    fn new() -> Self {
        let scratch = Scratch::new();
        Tree::new().file("a", "x").create(&scratch.path("source"));
        let sshd = Sshd::start(&scratch, "sshd");
        let proxy = scratch.script("proxy", &format!("echo try >> {}; exit 1", scratch.path("tries").display()));
        let block = sshd.client_block("dead", &format!("  ProxyCommand {}", proxy.display()));
        let client = client_config(&scratch, "ssh_config", &[block]);
        fs::write(scratch.dir("more").join("b"), "y").unwrap();
        let bin = rfleet_bin().display().to_string();
        let places = |host: &str| {
            let place = |root: &str| scratch.path(&format!("copy-{host}{root}"));
            format!("[[host]]\nname = \"{host}\"\npaths = {{ www = {:?}, more = {:?} }}\n", place(""), place("-more"))
        };
        let config = Config::new("cms")
            .root("www", &scratch.path("source"), "")
            .root("more", &scratch.path("more"), "")
            .hosts(&["dead", "box"])
            .lines(&places("dead"))
            .lines(&format!("{}command = [{bin:?}, \"receive\"]", places("box")))
            .lines(&format!("[ssh]\nconfig = {client:?}\nreceiver = {:?}", receiver()))
            .write(&scratch, "rfleet.toml");
        Self { scratch, sshd, config }
    }

    fn tries(&self) -> usize {
        fs::read_to_string(self.scratch.path("tries")).unwrap_or_default().lines().count()
    }

    fn mend(&self) {
        client_config(&self.scratch, "ssh_config", &[self.sshd.client_block("dead", "")]);
    }

    fn record(&self) -> PathBuf {
        self.scratch.path("state/cms.hosts.toml")
    }

    /// Pushes and returns what is said of the dead host in both roots.
    fn push(&self, words: &[&str]) -> (Outcome, String) {
        let outcome = Push::configured(&self.scratch, &self.config).args(words).run();
        let report = outcome.report();
        let errors: Vec<_> = report.roots.iter().map(|root| &root.hosts[0]).map(|host| &host.error).collect();
        assert_eq!(errors[0], errors[1]);
        let error = errors[0].clone().unwrap_or_default();
        (outcome, error)
    }

    /// As if the last failure were two hours old.
    fn let_time_pass(&self) {
        let text = fs::read_to_string(self.record()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let line = lines.iter_mut().find(|line| line.starts_with("last_s = ")).unwrap();
        let seconds: u64 = line["last_s = ".len()..].parse().unwrap();
        *line = format!("last_s = {}", seconds - 7200);
        fs::write(self.record(), lines.join("\n")).unwrap();
    }
}

#[test]
fn a_host_that_fails_again_and_again_is_left_alone_for_a_while() {
    let dead = Dead::new();
    for tries in [1, 2] {
        let (outcome, error) = dead.push(&[]);
        outcome.assert_code(3);
        assert!(error.starts_with("ssh"), "{error}");
        assert_eq!(dead.tries(), tries, "{}", outcome.said());
    }
    let (held, error) = dead.push(&[]);
    held.assert_code(3);
    assert_eq!(dead.tries(), 2, "{}", held.said());
    assert!(error.starts_with("not tried: 2 failures in a row, last: ssh"), "{error}");
    assert!(error.ends_with("(rfleet push --host dead tries at once)"), "{error}");
    let report = held.report();
    for root in &report.roots {
        assert_eq!((root.hosts[0].name.as_str(), root.hosts[0].state.as_str()), ("dead", "failed"));
        assert_eq!(root.hosts[1].state, "unchanged", "{}", held.said());
    }
    Push::configured(&dead.scratch, &dead.config).assert_says("dead", "not tried: 2 failures");
    dead.let_time_pass();
    dead.push(&[]).0.assert_code(3);
    assert_eq!(dead.tries(), 3);
    let (_, error) = dead.push(&[]);
    assert!(error.starts_with("not tried: 3 failures in a row"), "{error}");
}

#[test]
fn a_host_that_is_named_is_tried_at_once_and_a_success_clears_it() {
    let dead = Dead::new();
    for _ in 0..2 {
        dead.push(&[]).0.assert_code(3);
    }
    for (words, tries) in [(&["--host", "dead"][..], 3), (&["--full"], 4), (&["-n"], 5)] {
        let (outcome, error) = dead.push(words);
        outcome.assert_code(3);
        assert!(error.starts_with("ssh"), "{error}");
        assert_eq!(dead.tries(), tries, "{words:?}");
    }
    let (_, error) = dead.push(&[]);
    assert!(error.starts_with("not tried: 4 failures in a row"), "a dry run is not remembered: {error}");
    dead.mend();
    dead.push(&["--host", "dead"]).0.assert_code(0);
    assert_same(&dead.scratch.path("source"), &dead.scratch.path("copy-dead"));
    assert!(!dead.record().exists());
    dead.push(&[]).0.assert_code(0);
}

#[test]
fn a_damaged_record_holds_nobody_and_is_said_once() {
    let dead = Dead::new();
    for _ in 0..2 {
        dead.push(&[]).0.assert_code(3);
    }
    fs::write(dead.record(), "version = 1\n[hosts.dead\n").unwrap();
    let (outcome, error) = dead.push(&[]);
    assert!(error.starts_with("ssh"), "{error}");
    assert_eq!(dead.tries(), 3);
    let told = outcome.stderr.lines().filter(|line| line.contains("cms.hosts.toml")).count();
    assert_eq!(told, 1, "{}", outcome.said());
    let (again, _) = dead.push(&[]);
    assert!(!again.stderr.contains("cms.hosts.toml"), "{}", again.said());
}

#[test]
fn a_guard_that_refuses_and_a_missing_receiver_hold_nobody() {
    let scratch = Scratch::new();
    let source: &Path = &scratch.path("source");
    Tree::new().file("a", "x").create(source);
    let config = Config::new("cms")
        .root("www", source, "require = \"a\"")
        .hosts(&["ends"])
        .host_command("ends", &["sh", "-c", "echo kaput >&2; exit 7"], "www", &scratch.path("copy"))
        .write(&scratch, "rfleet.toml");
    for _ in 0..3 {
        let outcome = Push::configured(&scratch, &config).run();
        outcome.assert_code(3);
        let error = outcome.report().host("ends").error.clone().unwrap_or_default();
        assert!(error.contains("kaput"), "{error}");
    }
    fs::remove_file(source.join("a")).unwrap();
    Push::configured(&scratch, &config).run().assert_code(4);
    assert!(!scratch.path("state/cms.hosts.toml").exists());
    assert!(process::marked(scratch.root()).is_empty());
}
