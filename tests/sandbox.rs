//! The receiver's confinement, as the kernel enforces it on the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rfleet::model::{Expected, Position, ProblemKind};
use rfleet::wire::Change;
use support::primary::path;
use support::scratch::tool_path;
use support::tree::set_mode;
use support::{Config, Outcome, Primary, Push, Scratch, rfleet_bin};

/// What a receiver does with a directory that is moved out of the root while the receiver holds it: the one way outside
/// that handles alone leave open. Returns the problems.
fn directory_moved_away(scratch: &Scratch, mut primary: Primary) -> Vec<ProblemKind> {
    let (root, outside) = (scratch.path("root"), scratch.dir("outside"));
    primary.begin(0);
    primary.changes([Change::MakeDirectory { path: path("d"), was: Expected::Nothing }]);
    primary.content("d/first", "1", 1);
    assert!(primary.resend().is_empty());
    assert!(root.join("d/first").exists());
    fs::rename(root.join("d"), outside.join("d")).unwrap();
    primary.content("d/second", "2", 2);
    assert!(primary.resend().is_empty());
    let committed = primary.finish(Position::default());
    committed.problems.iter().map(|problem| problem.kind).collect()
}

#[test]
fn a_confined_receiver_makes_nothing_outside_even_in_a_directory_that_it_holds() {
    for start in [Primary::of_fleet, |scratch: &Scratch, root: &Path| Primary::of_fleet_with(scratch, root, "")] {
        let scratch = Scratch::new();
        let primary = start(&scratch, &scratch.dir("root"));
        assert!(primary.welcome.notes.is_empty(), "{:?}", primary.welcome.notes);
        let problems = directory_moved_away(&scratch, primary);
        assert!(!scratch.path("outside/d/second").exists());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(!scratch.path("root/.rfleet/stage").exists());
    }
}

/// That the story above can tell.
#[test]
fn a_receiver_that_is_not_to_be_confined_is_not() {
    let scratch = Scratch::new();
    let primary = Primary::of_fleet_with(&scratch, &scratch.dir("root"), "sandbox = false");
    let status = fs::read_to_string(format!("/proc/{}/status", primary.pid())).unwrap();
    assert!(status.contains("NoNewPrivs:\t0"), "{status}");
    assert_eq!(directory_moved_away(&scratch, primary), []);
    assert_eq!(fs::read_to_string(scratch.path("outside/d/second")).unwrap(), "2");
}

#[test]
fn every_thread_is_without_new_privileges() {
    let scratch = Scratch::new();
    let mut primary = Primary::of_fleet(&scratch, &scratch.dir("root"));
    primary.begin(0);
    primary.content("f", "1", 1);
    assert!(primary.resend().is_empty());
    let tasks = fs::read_dir(format!("/proc/{}/task", primary.pid())).unwrap();
    let statuses: Vec<_> = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect();
    assert!(statuses.len() >= 2, "the heartbeat has a thread of its own");
    assert!(statuses.iter().all(|status| status.contains("NoNewPrivs:\t1")), "{statuses:?}");
    primary.finish(Position::default());
}

/// A push to a receiver that strace watches with `options`; besides what it saw.
fn traced(scratch: &Scratch, options: &[&str], root: &Path) -> (Outcome, String) {
    let log = scratch.path("strace.log");
    let strace = ["strace", "-f", "-qq", "-o", log.to_str().unwrap()];
    let receiver = [rfleet_bin().to_str().unwrap(), "receive"];
    let command = [&strace[..], options, &receiver].concat();
    let source = scratch.dir("source");
    let config = Config::new("cms").root("www", &source, "").host_command("box", &command, "www", root);
    let config = config.write(scratch, "rfleet.toml");
    let outcome = Push::configured(scratch, &config).env("PATH", tool_path()).run();
    (outcome, fs::read_to_string(log).unwrap())
}

const CALLS: [&str; 2] = ["-e", "trace=landlock_create_ruleset,landlock_restrict_self,read,openat,clone,clone3"];

/// Places of the lines with `call`.
fn places(log: &str, call: &str) -> Vec<usize> {
    log.lines().enumerate().filter(|(_, line)| line.contains(call)).map(|(at, _)| at).collect()
}

#[test]
fn a_receiver_confines_itself_before_it_reads_a_word_or_starts_a_thread() {
    let scratch = Scratch::new();
    fs::write(scratch.dir("source").join("f"), "x").unwrap();
    // The directory above a root that is not there, twice, and then the root; or the one root that there is.
    for (root, steps) in [("root", 3), ("root", 1)] {
        let (outcome, log) = traced(&scratch, &CALLS, &scratch.path(root));
        outcome.assert_code(0);
        let confined = places(&log, "landlock_restrict_self(");
        assert_eq!(confined.len(), steps, "{log}");
        assert!(log.lines().filter(|line| line.contains("landlock_restrict_self(")).all(|line| line.ends_with("= 0")));
        // What comes from the primary is read from standard input, of which the receiver has a handle of its own. A word
        // is its length and kind first.
        let heard = places(&log, "\\0\\0\\0\\0\\1\\1");
        assert!(confined[0] < *heard.first().expect("a greeting"), "{log}");
        let threads = [places(&log, "clone("), places(&log, "clone3(")].concat();
        assert!(confined[steps.min(2) - 1] < *threads.iter().min().expect("a heartbeat"), "{log}");
    }
    assert!(scratch.path("root/f").exists());
}

#[test]
fn where_landlock_cannot_be_had_it_is_said_once_and_the_push_goes_on() {
    for error in ["EPERM", "ENOSYS", "EOPNOTSUPP"] {
        let scratch = Scratch::new();
        fs::write(scratch.dir("source").join("f"), "x").unwrap();
        let inject = format!("inject=landlock_create_ruleset:error={error}");
        let options = ["-e", "trace=landlock_create_ruleset,landlock_restrict_self", "-e", &inject];
        let (outcome, log) = traced(&scratch, &options, &scratch.dir("root"));
        outcome.assert_code(0);
        assert!(scratch.path("root/f").exists());
        let report = outcome.report();
        let notes: Vec<_> = report.host("box").notes.iter().filter(|note| note.contains("sandbox")).collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        let why = if error == "EOPNOTSUPP" { "Landlock is not enabled" } else { "Landlock is not available here" };
        assert!(notes[0].contains(why), "{notes:?}");
        assert!(places(&log, "landlock_restrict_self(").is_empty(), "{log}");
    }
}

#[test]
fn a_root_behind_a_link_to_a_mount_with_another_mount_in_it_is_all_one_root() {
    let scratch = Scratch::new();
    let (source, disk) = (scratch.dir("source"), scratch.mount_tmpfs("disk", "mode=755"));
    scratch.mount_tmpfs("disk/volume", "mode=755");
    let root = scratch.path("root");
    std::os::unix::fs::symlink(&disk, &root).unwrap();
    fs::create_dir(source.join("volume")).unwrap();
    // What lies on another filesystem is made there and gets attributes; no content is renamed to there.
    fs::create_dir(source.join("volume/directory")).unwrap();
    set_mode(&source.join("volume/directory"), 0o750);
    for text in ["one", "another"] {
        fs::write(source.join("file"), text).unwrap();
        let (outcome, log) = traced(&scratch, &CALLS, &root);
        outcome.assert_code(0);
        assert_eq!(places(&log, "landlock_restrict_self(").len(), 1, "{log}");
    }
    assert_eq!(fs::read_to_string(disk.join("file")).unwrap(), "another");
    assert_eq!(fs::metadata(disk.join("volume/directory")).unwrap().permissions().mode() & 0o7777, 0o750);
}
