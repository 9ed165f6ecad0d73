//! Numbers that do not add up, names that lead elsewhere, and entries where no honest plan has any.

use std::fs;

use rfleet::delta::SignatureSpec;
use rfleet::model::{Digest, Expected, Meta, Position, ProblemKind, RelPath, Timestamp};
use rfleet::wire::{
    Begin, BlockWriter, Change, FrameKind, Record, RefusalKind, SignatureRequest, ToPrimary, ToReceiver, encode,
    frame_bytes,
};

use super::Place;
use super::support::primary::{meta, path, seen};
use super::support::victim::{Ended, Victim, hello};

fn blocks(records: &[(Record, &[u8])]) -> Vec<u8> {
    let mut block = BlockWriter::new();
    records.iter().for_each(|(record, content)| block.push(record, content));
    block.take_frame(None)
}

fn begin(name: &str, size_bytes: u64, basis: Option<(u64, Timestamp)>) -> Record {
    Record::Begin { path: path(name), meta: meta(0o644, 5), size_bytes, basis }
}

fn file(name: &str, text: &'static [u8]) -> (Record, &'static [u8]) {
    let digest = Digest::of(text);
    (Record::File { path: path(name), meta: meta(0o644, 5), bytes: text.len() as u64, digest }, text)
}

fn basis(place: &Place, name: &str) -> (u64, Timestamp) {
    match seen(&place.root.join(name)) {
        Expected::File { size_bytes, mtime } => (size_bytes, mtime),
        other => panic!("{name} is {other:?}"),
    }
}

/// Asks what must come again, and then for the end.
fn finish(mut victim: Victim) -> (Vec<RelPath>, Ended) {
    victim.send(&ToReceiver::EndOfContent);
    let paths = match victim.receive() {
        Some(ToPrimary::Resend { paths, last: true }) => paths,
        other => panic!("no list of what comes again but {other:?}: {}", victim.end().stderr),
    };
    victim.send(&ToReceiver::Finish { position: Position::default(), record: false });
    let ended = victim.end();
    (paths, ended)
}

#[test]
fn pieces_that_do_not_add_up_end_the_session() {
    let place = Place::new();
    let before = place.snapshot();
    let (size, mtime) = basis(&place, "large");
    let known = Some((size, mtime));
    let copy = |offset, bytes| (Record::Copy { offset, bytes }, b"".as_slice());
    let hole = |bytes| (Record::Hole { bytes }, b"".as_slice());
    let data = |content: &'static [u8]| (Record::Data { bytes: content.len() as u64 }, content);
    let pieces = [
        ("a copy beyond the basis", 100, known, vec![copy(size, 1)]),
        ("a copy that overflows", 100, known, vec![copy(u64::MAX, 2)]),
        ("a copy of everything there is", 100, known, vec![copy(0, u64::MAX)]),
        ("a copy without a basis", 100, None, vec![copy(0, 1)]),
        ("more copied than announced", 100, known, vec![copy(0, 101)]),
        ("more sent than announced", 3, None, vec![data(b"text")]),
        ("more in all than announced", 5, known, vec![data(b"text"), copy(0, 2)]),
        ("a hole beyond the end", 100, None, vec![hole(101)]),
        ("a hole that overflows", 100, None, vec![data(b"text"), hole(u64::MAX)]),
        ("an empty piece", 100, None, vec![data(b"")]),
        ("an empty copy", 100, known, vec![copy(0, 0)]),
        ("an empty hole", 100, None, vec![hole(0)]),
        ("a flood of pieces", 100, known, vec![copy(0, 1); 80]),
    ];
    for (what, size_bytes, basis, pieces) in pieces {
        let mut victim = place.victim();
        victim.begin(0);
        let all: Vec<_> = [(begin("large", size_bytes, basis), b"".as_slice())].into_iter().chain(pieces).collect();
        victim.send_bytes(&blocks(&all));
        let ended = victim.wait();
        assert_eq!(ended.refusal().map(|refusal| refusal.kind), Some(RefusalKind::BadRequest), "{what}");
        place.assert_refused(&before, &ended, what);
    }
}

#[test]
fn content_that_is_not_as_announced_is_asked_for_again_and_never_placed() {
    let place = Place::new();
    let before = place.snapshot();
    let known = basis(&place, "large");
    let wrong = Digest::of(b"something else");
    let mut victim = place.victim();
    victim.begin(0);
    let small = Record::File { path: path("file"), meta: meta(0o644, 5), bytes: 4, digest: wrong };
    let other = (known.0, Timestamp { secs: 1, nanos: 1 });
    let end = (Record::End { digest: wrong }, b"".as_slice());
    let copy = (Record::Copy { offset: 0, bytes: known.0 }, b"".as_slice());
    victim.send_bytes(&blocks(&[
        (small, b"new!"),
        (begin("large", known.0, Some(known)), b""),
        copy.clone(),
        end.clone(),
        // Shorter than announced, whatever its digest.
        (begin("short", 100, None), b""),
        (Record::Data { bytes: 4 }, b"text"),
        (Record::End { digest: Digest::of(b"text") }, b""),
        // A basis that is not there, another's, one outside.
        (begin("dir/inner", known.0, Some(other)), b""),
        copy.clone(),
        end.clone(),
        (begin("link/secret", 8, Some((8, known.1))), b""),
        (Record::Copy { offset: 0, bytes: 8 }, b""),
        (Record::End { digest: Digest::of(b"sentinel") }, b""),
    ]));
    let (again, ended) = finish(victim);
    let again: Vec<_> = again.iter().map(ToString::to_string).collect();
    assert_eq!(again, ["file", "large", "short", "dir/inner", "link/secret"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    place.assert_safe("content");
    let now = place.snapshot();
    for (name, entry) in before.entries.iter().filter(|(name, _)| !name.is_empty()) {
        assert!(now.entries.get(name) == Some(entry), "{}", String::from_utf8_lossy(name));
    }
    assert!(!now.entries.contains_key(b"short".as_slice()));
}

/// A file of any length costs no room and no time, also as a basis.
#[test]
fn lengths_without_end_cost_next_to_nothing() {
    const LONG: u64 = 1 << 42;
    let place = Place::new();
    let sparse = fs::File::create(place.root.join("sparse")).unwrap();
    sparse.set_len(LONG).unwrap();
    drop(sparse);
    let known = basis(&place, "sparse");
    let mut victim = Victim::start(&place.scratch, &place.root, "timeout = \"60s\"");
    victim.begin(0);
    let spec = SignatureSpec { block_bytes: 4 << 20, strong_bytes: 16 };
    let part = 256 * (4 << 20);
    let request = |at: u32| SignatureRequest {
        id: at,
        path: path("sparse"),
        size_bytes: known.0,
        mtime: known.1,
        spec,
        offset: u64::from(at) * part,
        bytes: part,
    };
    victim.send(&ToReceiver::GetSignatures { requests: (0..100).map(request).collect() });
    for at in 0..100 {
        let answer = victim.receive();
        let is_whole = |bytes: &[u8]| bytes.len() == 256 * 20 && bytes.chunks(20).all(|record| record == &bytes[..20]);
        assert!(
            matches!(&answer, Some(ToPrimary::Signature { id, bytes, last: true }) if *id == at && is_whole(bytes))
        );
    }
    victim.send_bytes(&blocks(&[
        (begin("sparse", LONG, Some(known)), b""),
        (Record::Copy { offset: 0, bytes: LONG }, b""),
        (Record::End { digest: Digest::of(b"") }, b""),
        (begin("huge", u64::MAX, None), b""),
        (Record::Hole { bytes: u64::MAX }, b""),
        (Record::End { digest: Digest::of(b"") }, b""),
    ]));
    let (again, ended) = finish(victim);
    assert!(again.contains(&path("sparse")), "{again:?}");
    ended.assert_modest("a sparse basis");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    place.assert_safe("a sparse basis");
}

#[test]
fn signatures_that_mean_nothing_are_not_made() {
    let place = Place::new();
    let (size_bytes, mtime) = basis(&place, "large");
    let good = SignatureRequest {
        id: 1,
        path: path("large"),
        size_bytes,
        mtime,
        spec: SignatureSpec { block_bytes: 1024, strong_bytes: 8 },
        offset: 0,
        bytes: size_bytes,
    };
    let spec = |block_bytes, strong_bytes| SignatureRequest {
        spec: SignatureSpec { block_bytes, strong_bytes },
        ..good.clone()
    };
    let requests = vec![
        spec(0, 8),
        spec(1, 8),
        spec(511, 8),
        spec((4 << 20) + 1, 8),
        spec(u32::MAX, 8),
        spec(1024, 0),
        spec(1024, 7),
        spec(1024, 17),
        spec(1024, 255),
        SignatureRequest { size_bytes: u64::MAX, bytes: u64::MAX, ..good.clone() },
        SignatureRequest { bytes: u64::MAX, ..good.clone() },
        SignatureRequest { offset: u64::MAX, ..good.clone() },
        SignatureRequest { offset: 1, bytes: size_bytes - 1, ..good.clone() },
        SignatureRequest { bytes: 0, ..good.clone() },
        SignatureRequest { mtime: Timestamp { secs: i64::MAX, nanos: u32::MAX }, ..good.clone() },
        SignatureRequest { path: path("dir"), ..good.clone() },
        SignatureRequest { path: path("link"), ..good.clone() },
        SignatureRequest { path: path("link/secret"), size_bytes: 8, bytes: 8, ..good.clone() },
        SignatureRequest { path: path("file/below"), ..good.clone() },
        SignatureRequest { path: RelPath::root(), ..good.clone() },
    ];
    let mut victim = place.victim();
    victim.begin(0);
    let count = requests.len();
    victim.send(&ToReceiver::GetSignatures { requests });
    for _ in 0..count {
        assert_eq!(victim.receive(), Some(ToPrimary::NoSignature { id: 1 }));
    }
    victim.send(&ToReceiver::GetSignatures { requests: vec![good] });
    assert!(matches!(victim.receive(), Some(ToPrimary::Signature { last: true, .. })));
    let ended = victim.end();
    ended.assert_failed_in_order("an end while changing");
    place.assert_safe("signatures");
}

/// Bytes of a change that makes the directory of this name, which no type of ours holds.
fn make(name: &[u8]) -> Vec<u8> {
    let mut body = vec![7, 1, 1];
    let mut length = name.len();
    while length >= 0x80 {
        body.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    body.push(u8::try_from(length).unwrap());
    body.extend_from_slice(name);
    body.push(0);
    frame_bytes(FrameKind::Message, &body)
}

#[test]
fn names_that_lead_elsewhere_end_the_session() {
    let place = Place::new();
    let before = place.snapshot();
    let long = vec![b'n'; 256];
    let deep = b"n/".repeat(2048);
    let names: [&[u8]; 17] = [
        b"..",
        b"../outside",
        b"dir/../../outside/x",
        b".",
        b"./x",
        b"dir/.",
        b"/",
        b"/etc/x",
        b"a//b",
        b"x/",
        b"a\0b",
        b".rfleet",
        b".rfleet/stage/x",
        b"dir/.rfleet/attic",
        &long,
        &deep,
        b"dir/..",
    ];
    for name in names {
        let what = format!("`{}`", String::from_utf8_lossy(&name[..name.len().min(40)]));
        let mut victim = place.victim();
        victim.begin(0);
        victim.send_bytes(&make(name));
        let ended = victim.wait();
        place.assert_refused(&before, &ended, &what);
    }
    // As long as a name may be, with bytes that no terminal likes.
    let mut victim = place.victim();
    victim.begin(0);
    for name in [&long[1..], b"\x1b]0;x\x07\n\r\xff", b"-rf", b".rfleetx", b"..."] {
        victim.send_bytes(&make(name));
    }
    let (_, ended) = finish(victim);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Beside the fleet's record.
    assert_eq!(fs::read_dir(&place.root).unwrap().count(), 4 + 5 + 1);
    place.assert_safe("names of any bytes");
}

#[test]
fn entries_below_files_and_links_are_problems_and_nothing_comes_outside() {
    let place = Place::new();
    let outside = place.root.parent().unwrap().join("outside");
    let mut victim = place.victim();
    victim.begin(50);
    let was = Expected::Nothing;
    let target: Box<[u8]> = outside.to_str().unwrap().as_bytes().into();
    let dots: Box<[u8]> = b"../outside".as_slice().into();
    let link =
        |name: &str, target: &[u8]| Change::Symlink { path: path(name), target: target.into(), meta: meta(0, 5), was };
    // A name that is a directory, then content of it, then a link of the same name, then content below again.
    victim.send(&ToReceiver::Changes(vec![
        Change::MakeDirectory { path: path("d"), was },
        Change::MakeDirectory { path: path("d"), was },
        Change::MakeDirectory { path: path("link/made"), was },
        Change::MakeDirectory { path: path("file/made"), was },
        Change::MakeDirectory { path: path("none/made"), was },
    ]));
    victim.send_bytes(&blocks(&[
        file("d/content", b"first"),
        file("link/secret", b"planted"),
        file("link/new", b"planted"),
        file("file/below", b"planted"),
        file("d/content", b"again"),
    ]));
    victim.send(&ToReceiver::EndOfContent);
    assert!(matches!(victim.receive(), Some(ToPrimary::Resend { .. })));
    victim.send(&ToReceiver::Changes(vec![
        link("planted", &target),
        link("planted/deeper", &dots),
        link("d/up", b"../../outside"),
        Change::Link { path: path("d/hard"), to: path("link/secret"), was },
        Change::Link { path: path("link/hard"), to: path("file"), was },
        Change::Link { path: path("d/of-link"), to: path("link"), was },
        Change::SetMeta { path: path("planted/secret"), meta: meta(0o666, 9), was: seen(&outside.join("secret")) },
        Change::SetDirectoryMeta { path: path("planted"), meta: meta(0o777, 9) },
        Change::SetDirectoryMeta { path: path("d/up"), meta: meta(0o777, 9) },
        Change::Remove { path: path("link/secret"), was: seen(&outside.join("secret")) },
        Change::Remove { path: path("d/up/dir"), was: Expected::Directory },
        Change::ReplaceDirectory { path: path("link/dir"), entries: 1 },
    ]));
    victim.send_bytes(&blocks(&[
        file("planted/x", b"planted"),
        file("d/up/x", b"planted"),
        file("link/dir", b"planted"),
    ]));
    let (_, ended) = finish(victim);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let Some(ToPrimary::Committed(committed)) = ended.answers.last() else { panic!("no end") };
    assert!(committed.problems.len() >= 14, "{:#?}", committed.problems);
    let is_told = |name: &str| committed.problems.iter().any(|problem| problem.path == path(name));
    for name in ["link/secret", "link/new", "file/below", "planted/x", "d/up/x", "link/hard", "planted", "d/up"] {
        assert!(is_told(name), "{name}: {:#?}", committed.problems);
    }
    assert!(committed.problems.iter().all(|problem| problem.kind != ProblemKind::NoSpace));
    assert_eq!(place.text("d/content"), "again");
    place.assert_safe("entries below links");
}

#[test]
fn numbers_without_end_in_what_is_announced_are_refused() {
    let place = Place::new();
    let before = place.snapshot();
    let announced = [
        (Begin { need_bytes: u64::MAX, ..Begin::default() }, RefusalKind::NoSpace),
        (Begin { need_inodes: u64::MAX, ..Begin::default() }, RefusalKind::NoSpace),
    ];
    for (begin, kind) in announced {
        let mut victim = place.victim();
        victim.greet(false);
        victim.send(&ToReceiver::Begin(begin));
        let ended = victim.wait();
        assert_eq!(ended.refusal().map(|refusal| refusal.kind), Some(kind), "{}", ended.stderr);
        place.assert_refused(&before, &ended, "room without end");
    }
    // Counted down to the last, and beyond it.
    let mut victim = place.victim();
    victim.begin(u64::MAX);
    let replace = |name: &str, entries| Change::ReplaceDirectory { path: path(name), entries };
    victim.send(&ToReceiver::Changes(vec![replace("dir", u64::MAX), replace("other", 0)]));
    let ended = victim.wait();
    assert_eq!(ended.refusal().map(|refusal| refusal.kind), Some(RefusalKind::BadRequest), "{}", ended.stderr);
    place.assert_refused(&before, &ended, "deletions without end");
    // Names in the greeting go into records and messages.
    for hello in [
        rfleet::wire::Hello { root: "r".repeat(5000), ..hello(false) },
        rfleet::wire::Hello { fleet: Some("\u{1b}".repeat(1 << 20)), ..hello(false) },
        rfleet::wire::Hello { primary: "p".repeat(4 << 19), ..hello(false) },
        rfleet::wire::Hello { software: "s".repeat(1 << 20), protocol_min: 9, protocol_max: 9, ..hello(false) },
    ] {
        let mut victim = place.victim();
        victim.send_bytes(&encode(&ToReceiver::Hello(hello)));
        let ended = victim.wait();
        assert_eq!(ended.refusal().map(|refusal| refusal.kind), Some(RefusalKind::BadRequest), "{}", ended.stderr);
        place.assert_refused(&before, &ended, "a name without end");
    }
}

/// Attributes of a time, an owner and a mode that no filesystem has.
#[test]
fn attributes_that_cannot_be_set_are_told_or_cut_and_nothing_panics() {
    let place = Place::new();
    let mut victim = place.victim();
    victim.begin(0);
    let was = seen(&place.root.join("file"));
    let times = [(i64::MIN, 0), (i64::MAX, 999_999_999), (0, u32::MAX), (-1, 1_000_000_000)];
    let metas = times.map(|(secs, nanos)| Meta {
        mode: u32::MAX,
        uid: u32::MAX,
        gid: u32::MAX,
        mtime: Timestamp { secs, nanos },
        ..Meta::default()
    });
    for meta in metas {
        let digest = Digest::of(b"text");
        let name = format!("t{}-{}", { meta.mtime.secs }, { meta.mtime.nanos });
        let record = Record::File { path: path(&name), meta: meta.clone(), bytes: 4, digest };
        victim.send_bytes(&blocks(&[(record, b"text")]));
        victim.send(&ToReceiver::Changes(vec![
            Change::SetMeta { path: path("file"), meta: meta.clone(), was },
            Change::SetDirectoryMeta { path: path("dir"), meta },
        ]));
    }
    let (_, ended) = finish(victim);
    ended.assert_modest("odd attributes");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    place.assert_safe("odd attributes");
    assert_eq!(place.text("file"), "text");
}
