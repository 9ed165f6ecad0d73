//! Too much, too slowly, or nothing but signs of life: what a receiver bears, and for how long.

use std::time::Duration;

use rfleet::model::{Attribute, Attributes, Digest, Expected, Meta, OwnerNames, Position, RelPath};
use rfleet::wire::{BlockWriter, Change, FrameKind, Record, RefusalKind, ToPrimary, ToReceiver, encode, frame_bytes};

use super::Place;
use super::support::primary::{meta, path, seen};
use super::support::victim::Victim;

/// A name of 240 bytes below `dir`.
fn long(dir: &str, at: usize) -> RelPath {
    path(&format!("{dir}/{at:0>240}"))
}

#[test]
fn a_flood_of_heartbeats_ends_the_session() {
    let place = Place::new();
    let before = place.snapshot();
    let flood = encode(&ToReceiver::Heartbeat).repeat(100_000);
    for changing in [false, true] {
        let mut victim = place.victim();
        if changing {
            victim.begin(0)
        } else {
            victim.greet(false)
        }
        victim.send_bytes(&flood);
        let ended = victim.wait();
        assert!(ended.stderr.contains("signs of life"), "{}", ended.stderr);
        place.assert_refused(&before, &ended, "a flood of heartbeats");
    }
}

#[test]
fn whoever_trickles_is_given_up_in_every_state() {
    let place = Place::new();
    let before = place.snapshot();
    let hello = encode(&ToReceiver::Hello(super::support::victim::hello(false)));
    let question = encode(&ToReceiver::GetEntries { paths: vec![long("dir", 0); 999] });
    for (state, bytes) in [("greeting", &hello), ("comparing", &question), ("changing", &question)] {
        let mut victim = place.victim();
        match state {
            "comparing" => victim.greet(false),
            "changing" => victim.begin(0),
            _ => {}
        }
        let mut taken = 0;
        // Each byte comes well within the bound on silence; all of them would take many minutes.
        while victim.send_bytes(&bytes[taken..=taken]) {
            taken += 1;
            std::thread::sleep(Duration::from_millis(120));
            assert!(taken < 1000, "{state}: {taken} bytes, one by one, and still patient");
        }
        let ended = victim.wait();
        assert!(ended.stderr.contains("next to nothing"), "{}", ended.stderr);
        place.assert_refused(&before, &ended, state);
    }
}

#[test]
fn a_primary_that_only_lives_gives_the_root_back() {
    let place = Place::new();
    let before = place.snapshot();
    let mut victim = Victim::start(&place.scratch, &place.root, "timeout = \"200ms\"");
    victim.begin(0);
    let heartbeat = encode(&ToReceiver::Heartbeat);
    let mut beats = 0;
    while victim.send_bytes(&heartbeat) {
        beats += 1;
        std::thread::sleep(Duration::from_millis(15));
        assert!(beats < 4000, "it is still believed");
    }
    let ended = victim.wait();
    // Or it looked silent for the blink of an eye.
    let told = ["nothing goes on", "silent"].iter().any(|word| ended.stderr.contains(word));
    assert!(told, "{}", ended.stderr);
    place.assert_refused(&before, &ended, "nothing but heartbeats");
    // The root is free.
    let mut next = place.victim();
    next.begin(0);
    next.send(&ToReceiver::Finish { position: Position::default(), record: false });
    assert!(matches!(next.receive(), Some(ToPrimary::Committed(_))));
}

#[test]
fn a_primary_that_does_not_read_is_given_up() {
    let place = Place::new();
    for at in 0..2000 {
        std::fs::write(place.root.join(format!("dir/{at:0>200}")), "").unwrap();
    }
    let before = place.snapshot();
    let mut victim = Victim::unread(&place.scratch, &place.root, "timeout = \"2s\"");
    victim.send(&ToReceiver::Hello(super::support::victim::hello(false)));
    victim.send(&ToReceiver::List);
    let question = encode(&ToReceiver::GetEntries { paths: vec![path("dir"); 1000] });
    let mut asked = 0;
    while victim.send_bytes(&question) {
        asked += 1;
        assert!(asked < 10_000, "questions without end");
    }
    let ended = victim.wait();
    assert!(ended.stderr.contains("does not take"), "{}", ended.stderr);
    place.assert_refused(&before, &ended, "answers that nobody reads");
}

#[test]
fn paths_that_fail_without_end_take_little_memory() {
    let place = Place::new();
    let mut victim = place.victim();
    victim.begin(0);
    for message in 0..100 {
        let changes = (0..2000).map(|at| Change::Symlink {
            path: long("none", message * 2000 + at),
            target: b"x".as_slice().into(),
            meta: meta(0, 5),
            was: Expected::Nothing,
        });
        assert!(victim.send(&ToReceiver::Changes(changes.collect())));
    }
    victim.send(&ToReceiver::Finish { position: Position::default(), record: false });
    let Some(ToPrimary::Committed(committed)) = victim.receive() else { panic!("no end") };
    assert_eq!(committed.problems.len() as u64 + committed.more_problems, 200_000);
    assert!(committed.problems.len() <= 1000);
    let ended = victim.end();
    ended.assert_modest("failing paths");
    place.assert_safe("failing paths");
}

#[test]
fn content_that_is_wrong_without_end_takes_little_memory() {
    let place = Place::new();
    let mut victim = place.victim();
    victim.begin(0);
    let (mut sent, mut bytes) = (0, 0);
    // More than is remembered of what must come again.
    while bytes < 80 << 20 {
        let mut block = BlockWriter::new();
        while !block.is_full() {
            let digest = Digest([0; 32]);
            let record = Record::File { path: long("wrong", sent), meta: meta(0o644, 5), bytes: 1, digest };
            block.push(&record, b"x");
            sent += 1;
        }
        bytes += block.len();
        assert!(victim.send_bytes(&block.take_frame(None)));
    }
    victim.send(&ToReceiver::EndOfContent);
    let mut again = 0;
    loop {
        match victim.receive() {
            Some(ToPrimary::Resend { paths, last }) => {
                again += paths.len();
                if last {
                    break;
                }
            }
            other => panic!("no list but {other:?}"),
        }
    }
    victim.send(&ToReceiver::Finish { position: Position::default(), record: false });
    let Some(ToPrimary::Committed(committed)) = victim.receive() else { panic!("no end") };
    // Nothing is forgotten silently.
    let told = committed.problems.len() as u64 + committed.more_problems;
    assert!(again > 100_000 && told > 0, "{again} and {told}");
    assert_eq!(again as u64 + told, sent as u64);
    victim.end().assert_modest("wrong content");
    place.assert_safe("wrong content");
}

#[test]
fn what_a_receiver_remembers_for_a_primary_is_bounded() {
    let place = Place::new();
    let mut victim = place.victim();
    victim.begin(u64::MAX);
    let mut at = 0;
    let ended = loop {
        let changes = (0..2000).map(|n| Change::ReplaceDirectory { path: long("none", at + n), entries: 0 });
        if !victim.send(&ToReceiver::Changes(changes.collect())) {
            break victim.wait();
        }
        at += 2000;
        assert!(at < 1_000_000, "directories to be replaced without end");
    };
    ended.assert_failed_in_order("directories to be replaced");
    assert_eq!(ended.refusal().unwrap().kind, RefusalKind::BadRequest);

    let mut victim = place.victim();
    victim.begin(0);
    for message in 0..500u32 {
        let changes = (0..2000u32).map(|at| {
            let name = (message * 2000 + at).to_string();
            Change::Expect { path: path(&name), was: Expected::Symlink { mtime: meta(0, 5).mtime } }
        });
        assert!(victim.send(&ToReceiver::Changes(changes.collect())));
    }
    victim.send(&ToReceiver::Finish { position: Position::default(), record: false });
    assert!(matches!(victim.receive(), Some(ToPrimary::Committed(_))));
    victim.end().assert_modest("a million expectations");
    place.assert_safe("expectations");
}

#[test]
fn attributes_without_end_take_little_memory() {
    let place = Place::new();
    let Expected::File { size_bytes, mtime } = seen(&place.root.join("file")) else { panic!("no file") };
    let value = |at: u8| Attribute { name: format!("user.{at}").into_bytes(), value: vec![at; 60_000] };
    let attributes = Attributes::new((0..4).map(value).collect()).unwrap();
    let mut victim = place.victim();
    victim.begin(0);
    for at in 0..1200 {
        let change = Change::Reuse {
            path: path(&format!("reused{at}")),
            was: Expected::Nothing,
            from: path("file"),
            size_bytes,
            mtime,
            meta: Meta { attributes: attributes.clone(), mtime, mode: 0o644, ..Meta::default() },
        };
        assert!(victim.send(&ToReceiver::Changes(vec![change])));
    }
    victim.send(&ToReceiver::Finish { position: Position::default(), record: false });
    assert!(matches!(victim.receive(), Some(ToPrimary::Committed(_))));
    victim.end().assert_modest("attributes");
    place.assert_safe("attributes");
}

/// What is small in a frame and large in memory.
#[test]
fn lists_of_next_to_nothing_are_refused_before_they_take_memory() {
    let place = Place::new();
    let before = place.snapshot();
    let users = (0..100_000).map(|at| (at, None)).collect();
    let names = OwnerNames { users, ..OwnerNames::default() };
    let mut changes = vec![7, 0xa0, 0xc2, 0x1e];
    // 500,000 times: replace the root, of no entries.
    changes.extend([2, 0, 0].repeat(500_000));
    let mut paths = vec![4, 0xc0, 0x84, 0x3d];
    paths.extend([0].repeat(1_000_000));
    let frames = [
        ("changes", frame_bytes(FrameKind::Message, &changes)),
        ("paths", frame_bytes(FrameKind::Message, &paths)),
        ("owners", encode(&ToReceiver::GetDirectories { names })),
    ];
    for (what, bytes) in frames {
        let mut victim = place.victim();
        if what == "changes" {
            victim.begin(0);
        } else {
            victim.greet(false);
            victim.list();
        }
        victim.send_bytes(&bytes);
        let ended = victim.wait();
        assert!(ended.stderr.contains("cannot be decoded"), "{what}: {}", ended.stderr);
        assert!(ended.peak < 40 << 20, "{what}: {} MiB", ended.peak >> 20);
        place.assert_refused(&before, &ended, what);
    }
}
