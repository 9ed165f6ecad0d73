//! Promises 2 and 3 when the power of a secondary fails: what was acknowledged is there, the rest is old or new, and the
//! next push converges.
//!
//! The secondary's root lies on an XFS of its own, whose power the test cuts: nothing that was not synced survives that,
//! and XFS, unlike ext4, makes no file whole that was renamed before it was synced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::scratch::{run_or_panic, tool_path};
use support::versions;
use support::{Config, Ledger, Push, Rng, Scratch, rfleet_bin};

const FILES: u64 = 12;

/// Cuts that come while a push is under way, and cuts right after one that was acknowledged.
const CUTS: usize = 50;
const LATE_CUTS: usize = 10;

const DISK: &str = "disk";

struct Story {
    scratch: Scratch,
    ledger: Ledger,
    config: PathBuf,
    version: u64,
}

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        let source = scratch.path("source");
        let copy = scratch.mount_image(DISK, &["mkfs.xfs", "-q"], 320 << 20).join("www");
        let far = Config::new("cms").root("www", &copy, "").lines("[receive]\ndurability = \"commit\"");
        let far = far.write(&scratch, "far.toml");
        let receive = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
        let config = Config::new("cms").root("www", &source, "delete = true\nmax_delete = \"100%\"");
        let config = config.host_command("box", &receive, "www", &copy).write(&scratch, "rfleet.toml");
        Self { scratch, ledger: Ledger::new(source, copy), config, version: 0 }
    }

    fn change(&mut self) {
        self.version += 1;
        versions::write(&self.ledger.source, FILES, self.version);
        versions::write_moving(&self.ledger.source, self.version);
        versions::write_small(&self.ledger.source, self.version);
    }

    fn push(&self) -> Push<'_> {
        Push::configured(&self.scratch, &self.config)
    }

    /// Everything is there, and was said to be; returns how long it took.
    fn converge(&mut self, what: &str) -> Duration {
        let outcome = self.push().run();
        assert_eq!(outcome.code(), Some(0), "{what}: {}", outcome.said());
        self.ledger.note_acknowledged(what);
        assert!(!self.ledger.copy.join(".rfleet/stage").exists(), "{what}: the stage is left");
        outcome.wall
    }

    /// The power fails now, and comes back when nobody uses the disk any more.
    fn cut(&self) {
        let mut xfs_io = Command::new("xfs_io");
        run_or_panic(xfs_io.args(["-x", "-c", "shutdown"]).arg(self.scratch.path(DISK)).env("PATH", tool_path()));
    }

    fn restart(&self) {
        self.scratch.assert_no_leftovers();
        self.scratch.unmount(DISK);
        self.scratch.mount_again(DISK);
    }
}

#[test]
fn power_cuts_tear_nothing_and_take_nothing_that_was_acknowledged() {
    let mut story = Story::new();
    let mut rng = Rng::new(31);
    story.change();
    story.converge("the first push");
    story.change();
    let mut clean = story.converge("a push");
    let (mut hit, mut late) = (0, 0);
    for attempt in 0..4 * (CUTS + LATE_CUTS) {
        if hit >= CUTS && late >= LATE_CUTS {
            break;
        }
        story.change();
        let what = format!("cut {attempt}, version {}", story.version);
        let running = story.push().start();
        let outcome = if late * CUTS < hit * LATE_CUTS {
            let outcome = running.finish();
            story.cut();
            outcome
        } else {
            // The story is about a random moment, so this is a wait for nothing but time.
            std::thread::sleep(clean * u32::try_from(rng.below(1_000)).unwrap() / 1_000);
            story.cut();
            running.finish()
        };
        story.restart();
        story.ledger.check(&outcome, "box", &what);
        if outcome.code() == Some(0) {
            late += 1;
            clean = clean * 9 / 10;
        } else {
            hit += 1;
        }
        // Sometimes the next push is cut, too, and meets what this one left.
        if !rng.chance(3) {
            clean = clean.max(story.converge(&what));
        }
    }
    story.converge("all cuts");
    assert!(hit >= CUTS && late >= LATE_CUTS, "{hit} cuts during a push and {late} after one, which takes {clean:?}");
}
