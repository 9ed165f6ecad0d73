//! Every message in every state where it has no place, and every way to send no message at all.

use rfleet::delta::SignatureSpec;
use rfleet::model::{Digest, Expected, OwnerNames, Position, SpecialKind, Timestamp};
use rfleet::wire::{
    Begin, BlockWriter, Change, FrameKind, MAX_FRAME_BYTES, Record, RefusalKind, SignatureRequest, ToReceiver, encode,
    frame_bytes,
};

use super::Place;
use super::support::primary::{meta, path};
use super::support::victim::{Ended, Victim, hello};

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Greeted,
    ReadOnly,
    Listed,
    Changing,
    InFile,
    Resent,
}

const STATES: [State; 7] =
    [State::Start, State::Greeted, State::ReadOnly, State::Listed, State::Changing, State::InFile, State::Resent];

impl State {
    fn reach(self, place: &Place) -> Victim {
        let mut victim = place.victim();
        match self {
            State::Start => {}
            State::Greeted => victim.greet(false),
            State::ReadOnly => victim.greet(true),
            State::Listed => {
                victim.greet(false);
                victim.list();
            }
            State::Changing | State::InFile | State::Resent => {
                victim.begin(100);
                // Answered: from here on it changes.
                victim.send(&ToReceiver::GetSignatures { requests: vec![request()] });
                assert!(victim.receive().is_some());
            }
        }
        if self == State::InFile {
            let begin = Record::Begin { path: path("new"), meta: meta(0o644, 5), size_bytes: 100, basis: None };
            victim.send_bytes(&block(&begin, b""));
        }
        if self == State::Resent {
            victim.send(&ToReceiver::EndOfContent);
            assert!(victim.receive().is_some());
        }
        victim
    }

    /// Whether the message called `name` has a place.
    fn allows(self, name: &str) -> bool {
        let changes = ["changes", "end-of-content", "finish", "signatures", "file", "begin-file"];
        match self {
            State::Start => name == "hello",
            State::Greeted => ["list", "begin"].contains(&name),
            State::ReadOnly => name == "list",
            State::Listed => ["directories", "entries", "begin"].contains(&name),
            State::Changing => changes.contains(&name) || name.starts_with("change-"),
            State::Resent => changes.contains(&name) || (name.starts_with("change-") && name != "change-move"),
            State::InFile => ["signatures", "data", "hole", "end", "cancel"].contains(&name),
        }
    }
}

fn request() -> SignatureRequest {
    let spec = SignatureSpec { block_bytes: 512, strong_bytes: 8 };
    SignatureRequest {
        id: 7,
        path: path("none"),
        size_bytes: 1,
        mtime: Timestamp::default(),
        spec,
        offset: 0,
        bytes: 1,
    }
}

fn block(record: &Record, content: &[u8]) -> Vec<u8> {
    let mut block = BlockWriter::new();
    block.push(record, content);
    block.take_frame(None)
}

fn every_change() -> Vec<(&'static str, Change)> {
    let (at, was) = (path("new"), Expected::Nothing);
    let (to, meta) = (path("file"), meta(0o600, 9));
    let target = b"x".as_slice().into();
    let (size_bytes, mtime) = (4, meta.mtime);
    let file = Expected::File { size_bytes, mtime };
    vec![
        ("change-move", Change::Move { from: path("dir"), to: at.clone(), exchange: false }),
        ("change-make", Change::MakeDirectory { path: at.clone(), was }),
        ("change-replace", Change::ReplaceDirectory { path: path("dir"), entries: 2 }),
        ("change-expect", Change::Expect { path: to.clone(), was: file }),
        (
            "change-reuse",
            Change::Reuse { path: at.clone(), was, from: to.clone(), size_bytes, mtime, meta: meta.clone() },
        ),
        ("change-link", Change::Link { path: at.clone(), to: to.clone(), was }),
        ("change-symlink", Change::Symlink { path: at.clone(), target, meta: meta.clone(), was }),
        ("change-set", Change::SetMeta { path: to.clone(), meta: meta.clone(), was: file }),
        ("change-remove", Change::Remove { path: to, was: file }),
        ("change-set-directory", Change::SetDirectoryMeta { path: path("dir"), meta: meta.clone() }),
        ("change-special", Change::Special { path: at, kind: SpecialKind::Fifo, meta, was }),
    ]
}

fn every_record() -> Vec<(&'static str, Record, &'static [u8])> {
    let digest = Digest::of(b"text");
    let meta = meta(0o644, 5);
    vec![
        ("file", Record::File { path: path("other"), meta: meta.clone(), bytes: 4, digest }, b"text"),
        ("begin-file", Record::Begin { path: path("other"), meta, size_bytes: 4, basis: None }, b""),
        ("data", Record::Data { bytes: 4 }, b"text"),
        ("copy", Record::Copy { offset: 0, bytes: 4 }, b""),
        ("hole", Record::Hole { bytes: 4 }, b""),
        ("end", Record::End { digest }, b""),
        ("cancel", Record::Cancel, b""),
    ]
}

/// Every message, by name, as a frame.
fn every_message() -> Vec<(&'static str, Vec<u8>)> {
    let names = OwnerNames::default();
    let messages = [
        ("hello", ToReceiver::Hello(hello(false))),
        ("list", ToReceiver::List),
        ("directories", ToReceiver::GetDirectories { names }),
        ("entries", ToReceiver::GetEntries { paths: vec![path("dir")] }),
        ("signatures", ToReceiver::GetSignatures { requests: vec![request()] }),
        ("begin", ToReceiver::Begin(Begin::default())),
        ("changes", ToReceiver::Changes(Vec::new())),
        ("end-of-content", ToReceiver::EndOfContent),
        ("finish", ToReceiver::Finish { position: Position::default(), record: true }),
    ];
    let messages = messages.iter().map(|(name, message)| (*name, encode(message)));
    let changes = every_change().into_iter().map(|(name, change)| (name, encode(&ToReceiver::Changes(vec![change]))));
    let records = every_record().into_iter().map(|(name, record, content)| (name, block(&record, content)));
    messages.chain(changes).chain(records).collect()
}

/// Refused, with the words of the protocol.
fn assert_misplaced(ended: &Ended, what: &str) {
    let refusal = ended.refusal().unwrap_or_else(|| panic!("{what}: no refusal, but {}", ended.stderr));
    assert_eq!(refusal.kind, RefusalKind::BadRequest, "{what}: {}", refusal.message);
}

#[test]
fn every_message_where_it_has_no_place_is_refused() {
    let place = Place::new();
    let before = place.snapshot();
    let mut tried = 0;
    for state in STATES {
        for (name, bytes) in every_message() {
            if state.allows(name) {
                continue;
            }
            let what = format!("{name} in {state:?}");
            let mut victim = state.reach(&place);
            victim.send_bytes(&bytes);
            let ended = victim.wait();
            assert_misplaced(&ended, &what);
            place.assert_refused(&before, &ended, &what);
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn messages_that_have_a_place_are_not_refused() {
    // Else the table above would prove nothing.
    for state in STATES {
        for (name, bytes) in every_message() {
            if !state.allows(name) || name == "begin-file" {
                continue;
            }
            let place = Place::new();
            let mut victim = state.reach(&place);
            victim.send_bytes(&bytes);
            if state == State::InFile {
                victim.send_bytes(&block(&Record::Cancel, b""));
            }
            let ended = victim.end();
            let misplaced = ended.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::BadRequest);
            // A special file is what this receiver does not make, and a file that was cancelled is none any more.
            let expected = name == "change-special" || (state == State::InFile && ["end", "cancel"].contains(&name));
            assert_eq!(misplaced, expected, "{name} in {state:?}: {}", ended.stderr);
            place.assert_safe(name);
            assert!(!ended.stderr.contains("panicked"), "{name} in {state:?}: {}", ended.stderr);
        }
    }
}

/// What is no message at all.
fn noise() -> Vec<(&'static str, Vec<u8>)> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes().to_vec();
    let list = encode(&ToReceiver::List);
    let with = |body: &[u8]| frame_bytes(FrameKind::Message, body);
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    let mut lying = zstd::bulk::compress(&vec![7; 1 << 20], 1).unwrap();
    // The content size in the header of a frame: four bytes after magic number and descriptor.
    lying[5..9].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
    vec![
        ("a text", b"Last login: Sat Nov 21 on pts/0\r\n".to_vec()),
        ("an endless length", [u32::MAX.to_le_bytes().as_slice(), &[0]].concat()),
        ("a length over the limit", [length(MAX_FRAME_BYTES + 1), vec![0]].concat()),
        ("an unknown kind", [length(0), vec![3]].concat()),
        ("the highest kind", [length(0), vec![255]].concat()),
        ("an empty message", with(b"")),
        ("an unknown message", with(&[10])),
        ("a number without end", with(&[0xff; 100])),
        ("more after a message", with(&[2, 0])),
        ("a list of four billion", with(&[7, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("a list of 2^64", with(&[7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])),
        ("a path of 2^63", with(&[4, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])),
        ("random bytes", with(&(0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>())),
        ("zeros of a whole frame", with(&vec![0; MAX_FRAME_BYTES])),
        ("a bomb", frame_bytes(FrameKind::CompressedBlock, &bomb)),
        ("a bomb of another length than it says", frame_bytes(FrameKind::CompressedBlock, &lying)),
        ("no zstd at all", frame_bytes(FrameKind::CompressedBlock, b"no zstd at all")),
        ("a block that is too long", frame_bytes(FrameKind::Block, &vec![6; 3 << 20])),
        ("an unknown record", frame_bytes(FrameKind::Block, &[7])),
        ("a frame that is cut off", list[..list.len() - 1].to_vec()),
        ("a header that is cut off", list[..3].to_vec()),
    ]
}

#[test]
fn what_is_no_message_ends_the_session_in_every_state() {
    let place = Place::new();
    let before = place.snapshot();
    for state in STATES {
        for (name, bytes) in noise() {
            let what = format!("{name} in {state:?}");
            let mut victim = state.reach(&place);
            victim.send_bytes(&bytes);
            let ended = victim.end();
            place.assert_refused(&before, &ended, &what);
        }
    }
}

#[test]
fn the_end_of_the_input_in_every_state_leaves_nothing_half_done() {
    let place = Place::new();
    let before = place.snapshot();
    for state in STATES {
        let what = format!("the end in {state:?}");
        let ended = state.reach(&place).end();
        ended.assert_modest(&what);
        // While nothing is being changed it is an orderly one.
        let orderly = matches!(state, State::Greeted | State::ReadOnly | State::Listed);
        assert_eq!(ended.code, Some(if orderly { 0 } else { 1 }), "{what}: {}", ended.stderr);
        assert_eq!(ended.refusal(), None, "{what}");
        place.assert_safe(&what);
        for (name, entry) in before.entries.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(place.snapshot().entries.get(name) == Some(entry), "{what}");
        }
    }
}

#[test]
fn silence_in_every_state_and_half_a_frame_are_given_up() {
    let half = encode(&ToReceiver::GetEntries { paths: vec![path("dir"); 9] });
    // All at the same time: each waits for two seconds.
    let mut waiting = Vec::new();
    for state in STATES {
        for bytes in [0, 3, 9] {
            let place = Place::new();
            let before = place.snapshot();
            let mut victim = state.reach(&place);
            victim.send_bytes(&half[..bytes]);
            waiting.push((format!("silence after {bytes} bytes in {state:?}"), place, before, victim));
        }
    }
    for (what, place, before, victim) in waiting {
        let ended = victim.wait();
        assert!(ended.stderr.contains("silent"), "{what}: {}", ended.stderr);
        place.assert_refused(&before, &ended, &what);
    }
}
