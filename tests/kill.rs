//! Promises 1 and 3: a kill at any moment, on either side, leaves no partial file, and the next push converges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::tree::{assert_no_state, recorded_sequence};
use support::versions::{self, Reader};
use support::{
    Config, Fleet, Push, Rng, Running, Scratch, assert_rsync_agrees, assert_same, process, rfleet_bin, wait_until,
};

const FILES: u64 = 28;

/// Whom a story kills.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Sender,
    Receiver,
    /// The sender and all its receivers.
    Both,
    Ssh,
    Sshd,
}

struct Story {
    scratch: Scratch,
    source: PathBuf,
    copies: Vec<PathBuf>,
    fleet: Option<Fleet>,
    /// With a configuration, and so with a state on both sides.
    config: Option<PathBuf>,
    /// What the record of each copy says, as far as it is known to be true.
    sequences: RefCell<Vec<Option<u64>>>,
}

impl Story {
    /// With a version on the source and on the copies.
    fn local() -> Self {
        let scratch = Scratch::new();
        let copies = vec![scratch.path("copy1"), scratch.path("copy2")];
        Self::with(scratch, copies, None, None)
    }

    fn over_ssh() -> Self {
        let scratch = Scratch::new();
        let fleet = Fleet::start(&scratch, 1);
        let copies = vec![fleet.hosts[0].path.clone()];
        Self::with(scratch, copies, Some(fleet), None)
    }

    fn by_configuration() -> Self {
        let scratch = Scratch::new();
        let copies: Vec<_> = (1..=3).map(|n| scratch.path(&format!("copy{n}"))).collect();
        let bin = rfleet_bin().to_str().unwrap();
        let mut config =
            Config::new("cms").root("www", &scratch.path("source"), "delete = true\nmax_delete = \"100%\"");
        for (n, copy) in copies.iter().enumerate() {
            config = config.host_command(&format!("web{n}"), &[bin, "receive"], "www", copy);
        }
        let config = config.write(&scratch, "rfleet.toml");
        Self::with(scratch, copies, None, Some(config))
    }

    fn with(scratch: Scratch, copies: Vec<PathBuf>, fleet: Option<Fleet>, config: Option<PathBuf>) -> Self {
        let sequences = RefCell::new(vec![None; copies.len()]);
        Self { source: scratch.path("source"), scratch, copies, fleet, config, sequences }
    }

    /// The next version of the source; by configuration also with names that move.
    fn write(&self, version: u64) {
        versions::write(&self.source, FILES, version);
        if self.config.is_some() {
            versions::write_moving(&self.source, version);
        }
    }

    fn push(&self) -> Push<'_> {
        if let Some(config) = &self.config {
            return Push::configured(&self.scratch, config).args(&["--timeout", "10s"]);
        }
        let push = match &self.fleet {
            Some(fleet) => fleet.push(&self.scratch, &self.source, &[]),
            None => Push::adhoc(&self.scratch, &self.source, &self.copies),
        };
        push.args(&["--delete", "--max-delete", "100%", "--timeout", "10s"])
    }

    /// The processes of this kind that belong to the running push.
    fn victims(&self, running: &Running, victim: Victim) -> Vec<u32> {
        let marked = || process::marked(self.scratch.root());
        match victim {
            Victim::Sender => vec![running.pid()],
            Victim::Both => running.receivers().into_iter().chain([running.pid()]).collect(),
            Victim::Receiver => self.fleet.as_ref().map_or_else(|| running.receivers(), |f| f.sshd.receivers()),
            Victim::Ssh => marked().into_iter().filter(|&pid| process::is_ssh_client(pid)).collect(),
            Victim::Sshd => self.fleet.as_ref().map(|f| process::descendants(f.sshd.pid())).unwrap_or_default(),
        }
    }

    /// A whole push must succeed and make the copies equal; returns how long it took.
    fn converge(&self, what: &str) -> Duration {
        let outcome = self.push().run();
        assert_eq!(outcome.code(), Some(0), "the push after {what}: {}", outcome.said());
        for copy in &self.copies {
            assert_same(&self.source, copy);
            if self.config.is_some() {
                assert!(recorded_sequence(copy) > Some(0), "{what}: {} has no position", copy.display());
                assert!(!copy.join(".rfleet/stage").exists(), "{what}: the stage is left in {}", copy.display());
            } else {
                assert_no_state(copy);
            }
        }
        self.check_records(what);
        outcome.wall
    }

    /// A record that says more than before is of the source as it is now, since nothing else was pushed meanwhile. One
    /// of a copy in which directories are being moved says nothing.
    fn check_records(&self, what: &str) {
        if self.config.is_none() {
            return;
        }
        for (copy, known) in self.copies.iter().zip(self.sequences.borrow_mut().iter_mut()) {
            let now = recorded_sequence(copy).filter(|sequence| *sequence > 0);
            if now.is_none() && known.is_some() {
                continue;
            }
            if known.is_some() && now != *known {
                assert!(now > *known, "{what}: the record of {} went from {known:?} to {now:?}", copy.display());
                assert_same(&self.source, copy);
            }
            *known = now;
        }
    }

    /// Pushes version after version, each killed at a random moment, until `kills` hit; then a whole push.
    fn run(&self, victim: Victim, kills: usize, seed: u64) {
        let mut rng = Rng::new(seed);
        self.write(1);
        self.converge("nothing");
        let mut clean = self.time_of_one_push();
        let reader = Reader::watch(self.copies.clone(), FILES);
        let (mut hit, mut version) = (0, 2);
        for attempt in 0..kills * 8 {
            if hit == kills {
                break;
            }
            version += 1;
            self.write(version);
            let what = format!("kill {hit} of {victim:?}, seed {seed}, attempt {attempt}");
            let in_time = self.kill_once(victim, clean, &mut rng, &what);
            if self.config.is_some() {
                self.wait_for_receivers(&what);
                self.check_records(&what);
                self.copies
                    .iter()
                    .for_each(|copy| drop(versions::whole(copy).unwrap_or_else(|e| panic!("{what}: {e}"))));
            }
            hit += usize::from(in_time);
            // Sometimes a second change comes before the next push, or the next push is killed as well.
            if !rng.chance(5) {
                clean = self.converge(&what);
            } else if !in_time {
                clean /= 2;
            }
        }
        self.converge("all kills");
        assert_eq!(hit, kills, "only {hit} kills of {victim:?} hit a running push (seed {seed}, one takes {clean:?})");
        assert!(reader.finish() > 50, "the reader hardly read");
        for copy in &self.copies {
            assert_rsync_agrees(&self.source, copy);
        }
    }

    fn time_of_one_push(&self) -> Duration {
        self.write(2);
        self.converge("nothing")
    }

    /// True when the kill hit: the victim was there, and the push did not get done.
    fn kill_once(&self, victim: Victim, clean: Duration, rng: &mut Rng, what: &str) -> bool {
        let mut running = self.push().start();
        if victim != Victim::Sender {
            let found = || running.is_over() || !self.victims(&running, victim).is_empty();
            wait_until("a victim", Duration::from_secs(30), found);
        }
        // The story is about a random moment, so this is a wait for nothing but time.
        let share = u32::try_from(rng.below(1_000)).unwrap();
        let span = if victim == Victim::Sender { clean } else { clean / 2 };
        std::thread::sleep(span * share / 1_000);
        let victims = self.victims(&running, victim);
        // In either order: a sender that outlives its receivers for a moment, or the other way round.
        if rng.chance(2) {
            victims.iter().for_each(|&pid| process::kill(pid));
        } else {
            victims.iter().rev().for_each(|&pid| process::kill(pid));
        }
        let start = Instant::now();
        let outcome = running.finish_within(Duration::from_secs(60));
        if matches!(victim, Victim::Sender | Victim::Both) {
            self.wait_for_receivers(what);
            return outcome.code().is_none();
        }
        assert!(matches!(outcome.code(), Some(0 | 3)), "{what}: {}", outcome.said());
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: the sender noticed after {:?}", start.elapsed());
        if outcome.code() == Some(3) {
            let report = outcome.report();
            assert!(report.root().hosts.iter().any(|h| h.error.is_some()), "{what}: {}", outcome.said());
        }
        outcome.code() == Some(3)
    }

    /// The receivers of a killed sender end by themselves. (Its ssh master may linger: nobody is left to end it.)
    fn wait_for_receivers(&self, what: &str) {
        let left = || process::marked(self.scratch.root()).into_iter().filter(|&pid| process::is_receiver(pid));
        let deadline = Instant::now() + Duration::from_secs(30);
        while left().next().is_some() {
            let said: Vec<_> = left().map(process::describe).collect();
            assert!(Instant::now() < deadline, "{what}: receivers stay behind:\n{}", said.join("\n"));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn killed_sender_to_local_copies() {
    Story::local().run(Victim::Sender, 60, 11);
}

#[test]
fn killed_local_receivers() {
    Story::local().run(Victim::Receiver, 50, 12);
}

#[test]
fn killed_sender_over_ssh() {
    Story::over_ssh().run(Victim::Sender, 30, 13);
}

#[test]
fn killed_receiver_over_ssh() {
    Story::over_ssh().run(Victim::Receiver, 30, 14);
}

#[test]
fn killed_ssh_client() {
    Story::over_ssh().run(Victim::Ssh, 25, 15);
}

#[test]
fn killed_sshd_session() {
    Story::over_ssh().run(Victim::Sshd, 15, 16);
}

#[test]
fn killed_sender_by_configuration() {
    Story::by_configuration().run(Victim::Sender, 40, 17);
}

#[test]
fn killed_receivers_by_configuration() {
    Story::by_configuration().run(Victim::Receiver, 40, 18);
}

#[test]
fn killed_sender_and_receivers_by_configuration() {
    Story::by_configuration().run(Victim::Both, 40, 19);
}

/// An interrupt ends the push soon, with the exit code of a partial push, and leaves nothing half-done.
fn interrupted(story: &Story, signal: Signal, seed: u64) {
    let mut rng = Rng::new(seed);
    versions::write(&story.source, FILES, 1);
    story.converge("nothing");
    let mut clean = story.time_of_one_push();
    let reader = Reader::watch(story.copies.clone(), FILES);
    let mut hit = 0;
    for version in 3..60 {
        versions::write(&story.source, FILES, version);
        let mut running = story.push().start();
        let there = || running.is_over() || !story.victims(&running, Victim::Receiver).is_empty();
        wait_until("a receiver", Duration::from_secs(30), there);
        std::thread::sleep(clean * u32::try_from(rng.below(500)).unwrap() / 1_000);
        let start = Instant::now();
        running.signal(signal);
        let outcome = running.finish_within(Duration::from_secs(30));
        assert!(matches!(outcome.code(), Some(0 | 3)), "{signal:?} at {version}: {}", outcome.said());
        assert!(start.elapsed() < Duration::from_secs(8), "{signal:?} took {:?}", start.elapsed());
        hit += usize::from(outcome.code() == Some(3));
        if outcome.code() == Some(0) {
            clean = clean * 3 / 4;
        }
        story.scratch.assert_no_leftovers();
        for copy in &story.copies {
            assert_no_state(copy);
        }
        if hit == 6 {
            break;
        }
    }
    assert_eq!(hit, 6, "interrupts that came in time");
    story.converge("interrupts");
    reader.finish();
}

#[test]
fn interrupt_leaves_nothing_half_done() {
    interrupted(&Story::local(), Signal::INT, 21);
}

#[test]
fn termination_over_ssh_leaves_nothing_half_done() {
    interrupted(&Story::over_ssh(), Signal::TERM, 22);
}
