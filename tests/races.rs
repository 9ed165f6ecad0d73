//! A local user swaps entries of a tree for others while rfleet works in it as root, on either side: nothing outside the
//! tree is changed, read or listed. The user is a process of its own; each kind of swap has a tree and a receiver, or a
//! push, of its own, all of them at the same time, and each kind of change is made again and again all along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "races/careless.rs"]
mod careless;
#[path = "races/session.rs"]
mod session;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::flipper::{FLIPS, Flip, Flipper, OUTSIDE_NAME, Outside, SECRET, be_flipper, tree};
use support::{Push, Scratch};

/// How long each kind of change is raced by each kind of swap.
const RACED: Duration = Duration::from_secs(11);

/// A race that was not both won and lost by then is not run.
const DEADLINE: Duration = Duration::from_secs(100);

/// How often something met what the user had put there, and how often not, by what was done.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, (u64, u64)>);

impl Tally {
    fn note(&mut self, what: &'static str, met: bool) {
        let (won, lost) = self.0.entry(what).or_default();
        *if met { won } else { lost } += 1;
    }

    fn merge(&mut self, other: &Tally) {
        for (what, (won, lost)) in &other.0 {
            let sum = self.0.entry(what).or_default();
            *sum = (sum.0 + won, sum.1 + lost);
        }
    }

    /// Panics unless all of `whats` were met and missed.
    fn assert_raced(&self, whats: &[&str]) {
        for what in whats {
            let (won, lost) = self.0.get(what).copied().unwrap_or_default();
            assert!(won > 0 && lost > 0, "{what} was not raced: {:?}", self.0);
        }
    }

    fn is_raced(&self, whats: &[&str]) -> bool {
        whats.iter().all(|what| self.0.get(what).is_some_and(|(won, lost)| *won > 0 && *lost > 0))
    }
}

/// A tree of the local user's, and what lies outside.
struct Arena {
    scratch: Scratch,
    root: PathBuf,
    outside: Outside,
}

impl Arena {
    fn new() -> Self {
        assert!(support::scratch::is_root(), "a race of root with another user: run it as root");
        let scratch = Scratch::new();
        // The user comes to the tree.
        fs::set_permissions(scratch.root(), fs::Permissions::from_mode(0o711)).unwrap();
        let root = scratch.dir("root");
        let outside = Outside::new(&scratch, "outside");
        tree(&root, &outside.path);
        Self { scratch, root, outside }
    }
}

/// Whether `bytes` hold something that is outside only.
fn leaks(bytes: &[u8]) -> bool {
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    holds(SECRET) || holds(OUTSIDE_NAME)
}

/// Panics if something from outside lies in `dir`.
fn assert_no_leak(dir: &Path, what: &str) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        assert!(!leaks(entry.file_name().as_bytes()), "{what}: {}", path.display());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => assert_no_leak(&path, what),
            kind if kind.is_file() => assert!(!leaks(&fs::read(&path).unwrap()), "{what}: {}", path.display()),
            _ => {}
        }
    }
}

/// Does `race` for each of `flips` on a thread of its own, and merges what came of it.
fn all_at_once(flips: &[Flip], race: impl Fn(Flip) -> Tally + Sync) -> Tally {
    std::thread::scope(|scope| {
        let threads: Vec<_> = flips.iter().map(|flip| scope.spawn(|| race(*flip))).collect();
        let mut all = Tally::default();
        for thread in threads {
            all.merge(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    })
}

#[test]
fn no_change_of_a_receiver_is_led_outside() {
    if be_flipper() {
        return;
    }
    let tally = all_at_once(&FLIPS, |flip| {
        let arena = Arena::new();
        let mut flipper = Flipper::start("no_change_of_a_receiver_is_led_outside", &arena.root, flip);
        let began = Instant::now();
        let mut tally = Tally::default();
        let mut round = 0;
        let expected = session::expected(flip);
        while began.elapsed() < RACED || (!tally.is_raced(expected) && began.elapsed() < DEADLINE) {
            session::run(&arena, round, &mut tally);
            round += 1;
        }
        flipper.assert_alive();
        drop(flipper);
        let what = format!("{flip:?}, {round} sessions");
        arena.outside.assert_untouched(&what);
        assert_no_leak(&arena.root, &what);
        tally.assert_raced(expected);
        tally
    });
    tally.assert_raced(session::ALL);
}

#[test]
fn no_read_of_a_push_is_led_outside() {
    if be_flipper() {
        return;
    }
    let flips = [Flip::Directory, Flip::Leaf, Flip::Kind, Flip::Above];
    all_at_once(&flips, |flip| {
        let arena = Arena::new();
        // Who follows this one leaves `told` out.
        fs::write(arena.root.join("w/.rfleetignore"), "nothing\n").unwrap();
        let copy = arena.scratch.path("copy");
        let mut flipper = Flipper::start("no_read_of_a_push_is_led_outside", &arena.root, flip);
        // What arrives there tells which of the two was seen.
        let swapped = match flip {
            Flip::Directory => "w/d",
            Flip::Above => "w",
            _ => "w/f",
        };
        let began = Instant::now();
        let (mut tally, mut rounds) = (Tally::default(), 0);
        while began.elapsed() < RACED || (!tally.is_raced(&["source"]) && began.elapsed() < DEADLINE) {
            let options = ["--delete", "-X", "--max-delete", "100%"];
            let outcome = Push::adhoc(&arena.scratch, &arena.root, &[&copy]).args(&options).run();
            assert!([Some(0), Some(3), Some(4)].contains(&outcome.code()), "{}", outcome.said());
            assert!(!leaks(outcome.said().as_bytes()) && !outcome.stderr.contains("panicked"), "{}", outcome.said());
            assert_no_leak(&copy, &format!("{flip:?}"));
            if let Ok(found) = fs::symlink_metadata(copy.join(swapped)) {
                tally.note("source", found.is_symlink() || (flip == Flip::Kind && !found.is_file()));
            }
            rounds += 1;
        }
        flipper.assert_alive();
        drop(flipper);
        let what = format!("{flip:?}, {rounds} pushes");
        arena.outside.assert_untouched(&what);
        tally.assert_raced(&["source"]);
        tally
    });
}
