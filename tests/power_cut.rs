//! Promises 2 and 3 when the power of a secondary fails: what was acknowledged is there, the rest is old or new, and the
//! next push converges.
//!
//! The secondary's root lies on an XFS of its own, whose power the test cuts: nothing that was not synced survives that,
//! and XFS, unlike ext4, makes no file whole that was renamed before it was synced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::scratch::{run_or_panic, tool_path};
use support::tree::recorded_sequence;
use support::versions;
use support::{Config, Outcome, Push, Rng, Scratch, assert_same, rfleet_bin};

const FILES: u64 = 12;

/// Cuts that come while a push is under way, and cuts right after one that was acknowledged.
const CUTS: usize = 50;
const LATE_CUTS: usize = 10;

const DISK: &str = "disk";

struct Story {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
    config: PathBuf,
    version: u64,
    /// What the host had when it last said that it has everything: files with their versions, and its record.
    acknowledged: BTreeMap<u64, u64>,
    sequence: Option<u64>,
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
        Self { scratch, source, copy, config, version: 0, acknowledged: BTreeMap::new(), sequence: None }
    }

    fn change(&mut self) {
        self.version += 1;
        versions::write(&self.source, FILES, self.version);
        versions::write_moving(&self.source, self.version);
        versions::write_small(&self.source, self.version);
    }

    fn push(&self) -> Push<'_> {
        Push::configured(&self.scratch, &self.config)
    }

    /// Everything is there, and was said to be; returns how long it took.
    fn converge(&mut self, what: &str) -> Duration {
        let outcome = self.push().run();
        assert_eq!(outcome.code(), Some(0), "{what}: {}", outcome.said());
        self.note_acknowledged(what);
        assert!(!self.copy.join(".rfleet/stage").exists(), "{what}: the stage is left");
        outcome.wall
    }

    fn note_acknowledged(&mut self, what: &str) {
        assert_same(&self.source, &self.copy);
        self.acknowledged = versions::whole(&self.copy).unwrap_or_else(|e| panic!("{what}: {e}"));
        self.sequence = recorded_sequence(&self.copy);
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

    /// What the disk holds after the power came back.
    fn check(&mut self, outcome: &Outcome, what: &str) {
        if outcome.code() == Some(0) {
            assert_eq!(outcome.report().host("box").state, "done", "{what}: {}", outcome.said());
            self.note_acknowledged(what);
            return;
        }
        assert_eq!(outcome.code(), Some(3), "{what}: {}", outcome.said());
        let there = versions::whole(&self.copy).unwrap_or_else(|e| panic!("{what}: {e}\n{}", outcome.said()));
        let wanted = versions::whole(&self.source).unwrap();
        for (id, old) in self.acknowledged.iter().filter(|(id, _)| !versions::COMES_AND_GOES.contains(id)) {
            let Some(new) = wanted.get(id) else { continue };
            let found = there.get(id).unwrap_or_else(|| panic!("{what}: file {id} is gone\n{}", outcome.said()));
            assert!((old..=new).contains(&found), "{what}: file {id} is {found}, not {old} to {new}");
        }
        // A record that says more than was acknowledged was on its way to be, and is true. One of a copy in which
        // directories are being moved says nothing.
        let sequence = recorded_sequence(&self.copy);
        if sequence == Some(0) {
            return;
        }
        assert!(sequence >= self.sequence, "{what}: the record went from {:?} to {sequence:?}", self.sequence);
        if sequence > self.sequence {
            assert_same(&self.source, &self.copy);
            self.sequence = sequence;
        }
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
        story.check(&outcome, &what);
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
