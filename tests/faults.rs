//! A system call fails, or the process dies at it: never a torn file, a wrong deletion or a lie, and the next push
//! converges.
//!
//! strace makes the Nth call of one kind fail on the real binary. So each step of a commit is met in turn, and not
//! only those that a full or broken disk happens to fail first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use support::scratch::{run_or_panic, tool_path};
use support::{Config, Ledger, Outcome, Push, Rng, Scratch, rfleet_bin, versions};

const FILES: u64 = 7;

/// The calls by which a receiver changes something.
const CHANGING: [&str; 13] = [
    "openat",
    "mkdirat",
    "write",
    "pwrite64",
    "renameat2",
    "linkat",
    "symlinkat",
    "ftruncate",
    "copy_file_range",
    "fsync",
    "syncfs",
    "unlinkat",
    "utimensat",
];

/// Those by which it looks, and sets attributes.
const OTHER: [&str; 7] = ["openat2", "getdents64", "newfstatat", "fstat", "read", "fchmod", "pread64"];

struct Story {
    scratch: Scratch,
    ledger: Ledger,
    version: u64,
}

/// One fault: `call` number `nth` of each thread ends by `how`.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: &'static str,
    how: &'static str,
    nth: usize,
}

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (source, copy) = (scratch.path("source"), scratch.path("www"));
        let far = Config::new("cms").root("www", &copy, "").lines("[receive]\ndurability = \"commit\"");
        far.write(&scratch, "far.toml");
        let mut story = Self { ledger: Ledger::new(source, copy), scratch, version: 0 };
        story.change();
        story.converge("the first push");
        story.change();
        story.converge("a push");
        story
    }

    fn change(&mut self) {
        self.version += 1;
        versions::write(&self.ledger.source, FILES, self.version);
        versions::write_moving(&self.ledger.source, self.version);
    }

    /// To a version in which `call` is of use.
    fn change_for(&mut self, call: &str) {
        self.change();
        while call == "symlinkat" && self.version % 3 != versions::HAS_SYMLINK {
            self.change();
        }
    }

    fn trace(&self) -> PathBuf {
        self.scratch.path("trace")
    }

    fn strace(&self, fault: Fault) -> Vec<String> {
        let Fault { call, how, nth } = fault;
        let trace = self.trace().display().to_string();
        let inject = format!("inject={call}:{how}:when={nth}");
        ["strace", "-f", "-qq", "-o", &trace, "-e", &format!("trace={call}"), "-e", &inject, "--"]
            .map(String::from)
            .into()
    }

    /// A configuration whose receiver runs under `wrapper`.
    fn config(&self, wrapper: &[String]) -> PathBuf {
        let (bin, far) = (rfleet_bin().display().to_string(), self.scratch.path("far.toml").display().to_string());
        let receive = [bin, "receive".into(), "--config".into(), far];
        let command: Vec<&str> = wrapper.iter().chain(&receive).map(String::as_str).collect();
        let config = Config::new("cms").root("www", &self.ledger.source, "delete = true\nmax_delete = \"100%\"");
        config.host_command("box", &command, "www", &self.ledger.copy).write(&self.scratch, "rfleet.toml")
    }

    fn push(&self, config: &Path) -> Push<'_> {
        Push::configured(&self.scratch, config).args(&["--timeout", "5s"])
    }

    fn converge(&mut self, what: &str) {
        // Named, so that a host that failed again and again is not left alone for a while.
        let outcome = self.push(&self.config(&[])).args(&["--host", "box"]).run();
        assert_eq!(outcome.code(), Some(0), "the push after {what}: {}", outcome.said());
        self.ledger.note_acknowledged(what);
        assert!(!self.ledger.copy.join(".rfleet/stage").exists(), "{what}: the stage is left");
    }

    /// How often one thread of a receiver makes `call` while a version arrives.
    fn count(&mut self, call: &'static str) -> usize {
        self.change_for(call);
        let never = Fault { call, how: "error=EIO", nth: 60_000 };
        let outcome = self.push(&self.config(&self.strace(never))).args(&["--host", "box"]).run();
        self.ledger.check(&outcome, "box", call);
        outcome.assert_code(0);
        let mut counts: HashMap<String, usize> = HashMap::new();
        for line in std::fs::read_to_string(self.trace()).unwrap().lines() {
            *counts.entry(line.split(' ').next().unwrap().into()).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    /// The early calls and the last ones, where the commit ends, and some in between.
    fn each_step(&mut self, call: &'static str, how: &'static str) {
        let count = self.count(call);
        let mut steps: Vec<usize> =
            [1, 2, 3, 5, 8, 13, 21, 34, 55, 89].into_iter().filter(|nth| *nth <= count).collect();
        steps.extend(count.saturating_sub(4).max(1)..=count);
        steps.sort_unstable();
        steps.dedup();
        let mut hits = 0;
        for nth in steps {
            let fault = Fault { call, how, nth };
            self.change_for(call);
            let what = format!("{fault:?} of {count}, version {}", self.version);
            let outcome = self.push(&self.config(&self.strace(fault))).args(&["--host", "box"]).run();
            assert_no_panic(&outcome, &what);
            self.scratch.assert_no_leftovers();
            self.ledger.check(&outcome, "box", &what);
            let trace = std::fs::read_to_string(self.trace()).unwrap_or_default();
            hits += usize::from(trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL"));
            if nth % 3 != 0 {
                self.converge(&what);
            }
        }
        self.converge("all of them");
        assert!(count == 0 || hits > 0, "no {call} of {count} was met");
    }
}

fn assert_no_panic(outcome: &Outcome, what: &str) {
    let said = outcome.said();
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{what}: {said}");
}

#[rstest]
#[case::broken_disk("error=EIO", &CHANGING)]
#[case::nothing_can_be_read("error=EIO", &OTHER)]
#[case::full_disk("error=ENOSPC", &CHANGING[..11])]
#[case::quota("error=EDQUOT", &CHANGING[..11])]
#[case::death("signal=KILL", &CHANGING)]
fn a_receiver_whose_calls_fail_one_by_one_loses_nothing(#[case] how: &'static str, #[case] calls: &[&'static str]) {
    let mut story = Story::new();
    for call in calls {
        story.each_step(call, how);
    }
}

/// A kernel that finds the filesystem of a secondary damaged lets nobody write to it any more, in the middle of a push.
#[test]
fn a_filesystem_that_becomes_read_only_in_the_middle_is_named() {
    let scratch = Scratch::new();
    let copy = scratch.mount_image(DISK, &["mkfs.ext4", "-q", "-e", "remount-ro"], 320 << 20).join("www");
    let source = scratch.path("source");
    let far = Config::new("cms").root("www", &copy, "").write(&scratch, "far.toml");
    let receive = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
    let config = Config::new("cms").root("www", &source, "delete = true\nmax_delete = \"100%\"");
    let config = config.host_command("box", &receive, "www", &copy).write(&scratch, "rfleet.toml");
    let mut ledger = Ledger::new(source, copy);
    let push = || Push::configured(&scratch, &config).args(&["--timeout", "10s", "--host", "box"]);
    let mut rng = Rng::new(5);
    versions::write(&ledger.source, 4 * FILES, 1);
    let clean = push().ok().wall;
    ledger.note_acknowledged("the first push");
    let mut named = 0;
    for version in 2..=40 {
        if named == 5 {
            break;
        }
        versions::write(&ledger.source, 4 * FILES, version);
        let running = push().start();
        // The story is about a random moment, so this is a wait for nothing but time.
        std::thread::sleep(clean * u32::try_from(rng.below(1_000)).unwrap() / 1_000);
        damage(&scratch);
        let outcome = running.finish();
        repair(&scratch);
        let what = format!("version {version}");
        assert_no_panic(&outcome, &what);
        ledger.check(&outcome, "box", &what);
        if outcome.code() == Some(3) {
            let said = outcome.stderr.to_lowercase();
            assert!(said.contains("read-only") || said.contains("input/output"), "{}", outcome.said());
            named += 1;
        }
        let again = push().run();
        assert_eq!(again.code(), Some(0), "{what}: {}", again.said());
        ledger.note_acknowledged(&what);
    }
    assert_eq!(named, 5, "pushes that met it");
}

const DISK: &str = "disk";

fn damage(scratch: &Scratch) {
    let image = scratch.path(&format!("{DISK}.image"));
    let listed =
        run_or_panic(Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(image).env("PATH", tool_path()));
    let device = listed.trim().trim_start_matches("/dev/");
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").unwrap();
}

fn repair(scratch: &Scratch) {
    scratch.assert_no_leftovers();
    scratch.unmount(DISK);
    let image = scratch.path(&format!("{DISK}.image"));
    // It exits with 1 when it has mended something.
    let mended = Command::new("e2fsck").arg("-fy").arg(image).env("PATH", tool_path()).output().unwrap();
    assert!(mended.status.code() <= Some(1), "{mended:?}");
    scratch.mount_again(DISK);
}
