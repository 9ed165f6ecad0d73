//! The primary's clock jumps. What changed is pushed all the same, and nobody waits for a time that will not come.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};

use rstest::rstest;
use support::{Config, Ledger, Outcome, Scratch, rfleet_bin, versions};

const FILES: u64 = 6;

/// Jumps of the clock from push to push: far back, far ahead, and home again. On the way before 1970, too.
const JUMPS: [&str; 7] = ["-5y", "+20y", "-60y", "+1d", "+0", "-1h", "+0"];

fn faketime() -> PathBuf {
    let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    let found = places.iter().map(|place| Path::new(place).join("libfaketimeMT.so.1")).find(|path| path.exists());
    found.expect("libfaketimeMT.so.1 (Debian's libfaketime); tests/run installs it")
}

struct Story {
    scratch: Scratch,
    ledger: Ledger,
    config: PathBuf,
}

impl Story {
    fn new(receiver: &Path) -> Self {
        let scratch = Scratch::new();
        let ledger = Ledger::new(scratch.path("source"), scratch.path("www"));
        let config = Config::new("cms").root("www", &ledger.source, "delete = true\nmax_delete = \"100%\"");
        let receive = [receiver.to_str().unwrap(), "receive"];
        let config = config.host_command("box", &receive, "www", &ledger.copy).write(&scratch, "rfleet.toml");
        Self { scratch, ledger, config }
    }

    /// A push while the clock is `jump` away from what it is. The kernel's clock, which files get their times by, and
    /// the one that only counts stay as they are.
    fn push(&self, jump: &str) -> Outcome {
        let push = support::Push::configured(&self.scratch, &self.config).args(&["--timeout", "10s"]);
        push.env("LD_PRELOAD", faketime()).env("FAKETIME", jump).env("DONT_FAKE_MONOTONIC", "1").run()
    }
}

#[test]
fn the_clock_is_taken_for_another_one() {
    let scratch = Scratch::new();
    let mut date = std::process::Command::new("date");
    scratch.hermetic(&mut date);
    date.arg("+%Y").env("LD_PRELOAD", faketime()).env("FAKETIME", "+20y");
    let year: i32 = support::scratch::run_or_panic(&mut date).trim().parse().unwrap();
    assert!(year >= 2045, "{year}");
}

#[test]
fn what_changed_is_pushed_whatever_the_clock_says() {
    let mut story = Story::new(rfleet_bin());
    for (version, jump) in (1..).zip(JUMPS.iter().cycle().take(3 * JUMPS.len())) {
        versions::write(&story.ledger.source, FILES, version);
        versions::write_moving(&story.ledger.source, version);
        let outcome = story.push(jump);
        story.ledger.check(&outcome, "box", jump);
        outcome.assert_code(0);
        let again = story.push(jump);
        again.assert_code(0);
        assert_eq!(again.report().host("box").state, "unchanged", "{jump}: {}", again.said());
    }
}

/// A host fails again and again while the clock is `ahead`, and is well when it is right again.
#[rstest]
#[case::ten_years("+10y")]
#[case::an_hour("+1h")]
fn no_host_is_left_alone_until_a_time_that_was_never_meant(#[case] ahead: &str) {
    let place = Scratch::new();
    let receiver = place.script("receiver", "exit 1");
    let story = Story::new(&receiver);
    versions::write(&story.ledger.source, FILES, 1);
    for _ in 0..6 {
        story.push(ahead).assert_code(3);
    }
    place.script("receiver", &format!("exec {} \"$@\"", rfleet_bin().display()));
    let outcome = story.push("+0");
    outcome.assert_code(0);
    assert_eq!(outcome.report().host("box").state, "done", "{}", outcome.said());
}
