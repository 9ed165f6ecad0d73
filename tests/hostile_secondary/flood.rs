//! Too much, too slowly, or nothing but signs of life: what a primary bears of one host, and for how long.

use std::time::Duration;

use rfleet::model::{Digest, DirListing, Kind, Meta, OwnerMap};
use rfleet::wire::{ToPrimary, encode};

use super::Story;
use super::support::impostor::{AWAITED, Awaited, Impostor, Line, node};
use super::support::primary::path;
use super::support::victim::MEMORY_BYTES;

/// What the listing of one host may take, and a process besides.
const LISTING_BYTES: u64 = MEMORY_BYTES + (256 << 20);

/// Says the same for as long as somebody hears it.
fn repeat(line: &mut Line, every: Duration, mut message: impl FnMut(u64) -> ToPrimary) {
    let mut at = 0;
    while line.say(&message(at)) {
        at += 1;
        std::thread::sleep(every);
        assert!(at < 100_000_000, "for ever");
    }
}

#[test]
fn signs_of_life_without_end_fail_that_host_alone() {
    let mut story = Story::new();
    for awaited in AWAITED {
        story.host(&format!("{awaited:?}").to_lowercase(), move |line| {
            line.serve_until(awaited);
            let flood = encode(&ToPrimary::Heartbeat).repeat(10_000);
            let rounds = (0..10_000).take_while(|_| line.say_bytes(&flood)).count();
            assert!(rounds < 10_000, "{rounds} floods");
        });
    }
    story.host("listing", |line| {
        line.serve_until(Awaited::Inventory);
        repeat(line, Duration::ZERO, |entries| ToPrimary::Listing { entries });
    });
    story.host("progress", |line| {
        line.serve_until(Awaited::Content);
        repeat(line, Duration::ZERO, |bytes| ToPrimary::Progress { files: u64::MAX, bytes });
    });
    let told = story.push(&[]);
    told.outcome.assert_code(3);
    for awaited in AWAITED {
        told.assert_failed(&format!("{awaited:?}").to_lowercase(), &["signs of life"]);
    }
    for name in ["listing", "progress"] {
        told.assert_failed(name, &["signs of life"]);
    }
    assert!(told.peak < MEMORY_BYTES, "{} MiB", told.peak >> 20);
    told.join();
}

#[test]
fn who_only_lives_or_never_gets_on_is_given_up() {
    let mut story = Story::new();
    for awaited in AWAITED {
        story.host(&format!("{awaited:?}").to_lowercase(), move |line| {
            line.serve_until(awaited);
            repeat(line, Duration::from_millis(100), |_| ToPrimary::Heartbeat);
        });
    }
    story.host("same-listing", |line| {
        line.serve_until(Awaited::Inventory);
        repeat(line, Duration::from_millis(100), |_| ToPrimary::Listing { entries: 5 });
    });
    story.host("same-progress", |line| {
        line.serve_until(Awaited::Content);
        repeat(line, Duration::from_millis(100), |_| ToPrimary::Progress { files: 5, bytes: 5 });
    });
    story.host("trickle", |line| {
        line.serve_until(Awaited::Inventory);
        let long = encode(&ToPrimary::Signature { id: 1, bytes: vec![0; 3 << 20], last: true });
        let mut at = 0;
        while line.say_bytes(&long[at..=at]) {
            at += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // The honest ones beat once a second.
    let told = story.push_to_impostors(&["--timeout", "1s"]);
    told.outcome.assert_code(3);
    // The greeting has an absolute bound; all else may take twenty times that.
    told.assert_failed("welcome", &["silent"]);
    for awaited in AWAITED.into_iter().filter(|awaited| *awaited != Awaited::Welcome) {
        told.assert_failed(&format!("{awaited:?}").to_lowercase(), &["nothing went on"]);
    }
    for name in ["same-listing", "same-progress", "trickle"] {
        told.assert_failed(name, &["nothing went on"]);
    }
    told.join();
}

/// Standard error is for people, and for as many bytes as a person reads.
#[test]
fn complaints_without_end_are_cut_and_escaped() {
    let mut story = Story::new();
    let floods = [
        ("lines", "printf '\\033[2Jno\\007\\n' >&2; while echo mischief >&2; do :; done"),
        ("one-line", "tr '\\0' '\\033' </dev/zero >&2"),
        ("last-words", "printf 'first\\n\\033[2J\\033]0;gone\\007' >&2; exit 3"),
    ];
    for (name, flood) in floods {
        story.impostors.push(Impostor::program(name, &["sh", "-c", flood]));
    }
    let told = story.push(&["--timeout", "3s"]);
    told.outcome.assert_code(3);
    for (name, _) in floods {
        told.assert_failed(name, &[]);
        let error = told.host(name).error.unwrap_or_default();
        assert!(error.len() < 2000 && !error.contains('\u{1b}') && !error.contains('\u{7}'), "{name}: {error:?}");
    }
    assert!(told.peak < MEMORY_BYTES, "{} MiB", told.peak >> 20);
    told.join();
}

fn long(at: usize) -> String {
    format!("{at:0>240}")
}

#[test]
fn a_listing_without_end_takes_a_bounded_share_of_memory() {
    for kind in ["directories", "entries", "targets"] {
        let mut story = Story::new();
        story.host(kind, move |line| {
            line.serve_until(if kind == "directories" { Awaited::Directories } else { Awaited::Entries });
            let mut at = 0;
            loop {
                let message = if kind == "directories" {
                    let paths = (at..at + 4000).map(|at| (path(&long(at)), Digest([1; 32]))).collect();
                    ToPrimary::Directories { owners: OwnerMap::default(), directories: paths, last: false }
                } else {
                    let kind = |_| match kind {
                        "targets" => Kind::Symlink { target: vec![b'x'; 100_000].into() },
                        _ => Kind::Directory,
                    };
                    let count = if let Kind::Directory = kind(()) { 2000 } else { 30 };
                    let nodes = (at..at + count).map(|at| node(long(at).as_bytes(), kind(()))).collect();
                    ToPrimary::Entries(DirListing { path: path(""), meta: Meta::default(), nodes })
                };
                if !line.say(&message) {
                    break;
                }
                at += 4000;
                assert!(at < 100_000_000, "for ever");
            }
        });
        let told = story.push(&[]);
        told.outcome.assert_code(3);
        told.assert_failed(kind, &["out of order or too long"]);
        assert!(told.peak < LISTING_BYTES, "{kind}: {} MiB", told.peak >> 20);
        told.join();
    }
}

/// Messages that are small in a frame and large in memory, while the primary waits for other hosts and asks for none.
#[test]
fn messages_that_nobody_waits_for_take_little_memory() {
    let mut story = Story::new();
    for at in 0..4 {
        story.host(&format!("hoarder-{at}"), |line| {
            line.serve_until(Awaited::Entries);
            line.say(&ToPrimary::Entries(super::support::impostor::entries()));
            line.say(&ToPrimary::EndOfEntries);
            let message = ToPrimary::Signature { id: 1, bytes: vec![1; (4 << 20) - 100], last: true };
            while line.say(&message) {}
        });
    }
    let told = story.push(&[]);
    told.outcome.assert_code(3);
    for at in 0..4 {
        told.assert_failed(&format!("hoarder-{at}"), &["where that has no place"]);
    }
    assert!(told.peak < MEMORY_BYTES, "{} MiB", told.peak >> 20);
    told.join();
}
