//! Protocol 1 as bytes: `tests/golden/protocol-1.txt` holds each message, change and record once,
//! and `docs/protocol.md` explains some of them. Both are compared with what the crate does, so
//! that neither can drift: a host that runs an older version reads exactly these bytes.
//!
//! A difference here is a change of the format. It needs a new protocol number and a new golden
//! file beside this one, not new bytes in the old one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::path::{Path, PathBuf};

use rfleet::delta::{SignatureSpec, Signer};
use rfleet::model::{
    ACCESS_ACL, AclMap, Attribute, AttributeFidelity, Attributes, Digest, DirListing, Expected, Fidelity, Kind,
    Listing, Meta, Node, OwnerFidelity, OwnerMap, OwnerNames, Position, Problem, ProblemKind, RelPath, Sequence,
    SpecialKind, Stamp, Term, TimeFidelity, Timestamp,
};
use rfleet::wire::{
    Begin, BlockReader, BlockWriter, Change, Committed, FrameKind, HEADER_BYTES, Hello, HookResult, Inventory,
    PROTOCOL_MAX, Record, Refusal, RefusalKind, RootState, SignatureRequest, ToPrimary, ToReceiver, Welcome, decode,
    encode, read_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Frames by name, as bytes.
type Golden = BTreeMap<String, Vec<u8>>;

fn path(name: &str) -> RelPath {
    RelPath::new_or_root(name.as_bytes()).unwrap()
}

fn meta() -> Meta {
    Meta {
        mode: 0o644,
        uid: 33,
        gid: 33,
        mtime: Timestamp { secs: 1_700_000_000, nanos: 5 },
        attributes: Attributes::default(),
    }
}

fn was_file() -> Expected {
    Expected::File { size_bytes: 300, mtime: meta().mtime }
}

fn position() -> Position {
    Position { sequence: Sequence(300), stamp: Stamp(7) }
}

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        software: "0.1.0".into(),
        fleet: Some("cms".into()),
        root: "uploads".into(),
        term: Term(0),
        primary: "web1".into(),
        read_only: false,
        checksum: false,
        adopt: false,
        attributes: true,
    }
}

fn to_receiver() -> Vec<(&'static str, ToReceiver)> {
    let mut names = OwnerNames::default();
    names.users.insert(33, Some("www-data".into()));
    names.groups.insert(1000, None);
    let spec = SignatureSpec { block_bytes: 1024, strong_bytes: 8 };
    let request = SignatureRequest {
        id: 7,
        path: path("a.iso"),
        size_bytes: 40_000,
        mtime: Timestamp { secs: -1, nanos: 0 },
        spec,
        offset: 4096,
        bytes: 8192,
    };
    vec![
        ("Hello", ToReceiver::Hello(hello())),
        ("Heartbeat", ToReceiver::Heartbeat),
        ("List", ToReceiver::List),
        ("GetDirectories", ToReceiver::GetDirectories { names: names.clone() }),
        ("GetEntries", ToReceiver::GetEntries { paths: vec![path(""), path("2024/05")] }),
        ("GetSignatures", ToReceiver::GetSignatures { requests: vec![request] }),
        ("Begin", ToReceiver::Begin(Begin { names, need_bytes: 300, need_inodes: 2, deletions: 1 })),
        ("Changes", ToReceiver::Changes(vec![Change::MakeDirectory { path: path("2024"), was: Expected::Nothing }])),
        ("EndOfContent", ToReceiver::EndOfContent),
        ("Finish", ToReceiver::Finish { position: position(), record: true }),
    ]
}

fn changes() -> Vec<(&'static str, Change)> {
    let target: Box<[u8]> = b"../common".as_slice().into();
    let reuse = Change::Reuse {
        path: path("b"),
        was: Expected::Nothing,
        from: path("a"),
        size_bytes: 300,
        mtime: meta().mtime,
        meta: meta(),
    };
    vec![
        ("Move", Change::Move { from: path("d"), to: path("e"), exchange: false }),
        ("MakeDirectory", Change::MakeDirectory { path: path("d"), was: Expected::Special }),
        ("ReplaceDirectory", Change::ReplaceDirectory { path: path("d"), entries: 3 }),
        ("Expect", Change::Expect { path: path("a"), was: was_file() }),
        ("Reuse", reuse),
        ("Link", Change::Link { path: path("b"), to: path("a"), was: Expected::Nothing }),
        (
            "Symlink",
            Change::Symlink { path: path("l"), target, meta: meta(), was: Expected::Symlink { mtime: meta().mtime } },
        ),
        ("SetMeta", Change::SetMeta { path: path("a"), meta: meta(), was: was_file() }),
        ("Remove", Change::Remove { path: path("old"), was: Expected::Directory }),
        ("SetDirectoryMeta", Change::SetDirectoryMeta { path: path(""), meta: meta() }),
        (
            "Special",
            Change::Special {
                path: path("tty"),
                kind: SpecialKind::CharDevice { major: 4, minor: 300 },
                meta: meta(),
                was: Expected::Nothing,
            },
        ),
    ]
}

fn to_primary() -> Vec<(&'static str, ToPrimary)> {
    let state = RootState {
        fleet: "cms".into(),
        root: "uploads".into(),
        term: Term(0),
        primary: "web1".into(),
        position: position(),
    };
    let welcome = Welcome {
        protocol: 1,
        software: "0.1.0".into(),
        fidelity: fidelity(),
        allow_delete: true,
        state: Some(state),
        free_bytes: 1 << 40,
        free_inodes: Some(1_000_000),
        writable: true,
        protect: vec!["wp-config.php".into(), "/cache/".into()],
        notes: vec!["a note".into()],
    };
    let problem = Problem::new(path("x"), ProblemKind::Unreadable, "permission denied");
    let mut owners = OwnerMap::default();
    owners.users.insert(33, Some(48));
    owners.groups.insert(1000, None);
    owners.acl = AclMap { users: [(33, 48)].into(), groups: [(1000, 7)].into() };
    let digest = Digest([0x11; 32]);
    let inventory = Inventory { digest, directories: 3, entries: 200, unreadable: vec![problem.clone()] };
    let hook = HookResult { command: "reload".into(), ok: false, detail: "exit 1".into(), milliseconds: 300 };
    let committed = Committed {
        position: position(),
        drifted: 1,
        problems: vec![problem],
        more_problems: 0,
        notes: Vec::new(),
        hooks: vec![hook],
    };
    vec![
        ("Welcome", ToPrimary::Welcome(welcome)),
        ("Refused", ToPrimary::Refused(Refusal { kind: RefusalKind::Busy, message: "another rfleet".into() })),
        ("Heartbeat", ToPrimary::Heartbeat),
        ("Inventory", ToPrimary::Inventory(inventory)),
        ("Directories", ToPrimary::Directories { owners, directories: vec![(path(""), digest)], last: true }),
        ("Entries", ToPrimary::Entries(listing().dirs.remove(0))),
        ("EndOfEntries", ToPrimary::EndOfEntries),
        ("Signature", ToPrimary::Signature { id: 7, bytes: vec![1, 2, 3], last: true }),
        ("NoSignature", ToPrimary::NoSignature { id: 7 }),
        ("Progress", ToPrimary::Progress { files: 4096, bytes: 1 << 20 }),
        ("Resend", ToPrimary::Resend { paths: vec![path("a.iso")], last: true }),
        ("Committed", ToPrimary::Committed(committed)),
        ("Listing", ToPrimary::Listing { entries: 100_000 }),
        ("Hooks", ToPrimary::Hooks { done: 2 }),
    ]
}

fn records() -> Vec<(&'static str, Record, &'static [u8])> {
    let basis = Some((40_000, Timestamp { secs: 1_600_000_000, nanos: 0 }));
    let digest = Digest::of(b"hello\n");
    vec![
        ("File", Record::File { path: path("a"), meta: meta(), bytes: 6, digest }, b"hello\n"),
        ("Begin", Record::Begin { path: path("a.iso"), meta: meta(), size_bytes: 50_000, basis }, b""),
        ("Data", Record::Data { bytes: 3 }, b"abc"),
        ("Copy", Record::Copy { offset: 1024, bytes: 39_000 }, b""),
        ("Hole", Record::Hole { bytes: 65_536 }, b""),
        ("End", Record::End { digest }, b""),
        ("Cancel", Record::Cancel, b""),
    ]
}

/// Name of a compressed block. What zstd makes of it may change with its version, so it is only decoded.
const COMPRESSED: &str = "decode-only/compressed-block";

fn compressible() -> (Record, Vec<u8>) {
    let content = b"<?php\n".repeat(100);
    let digest = Digest::of(&content);
    (Record::File { path: path("a.php"), meta: meta(), bytes: 600, digest }, content)
}

/// The owner may do all, user 33 may read, others nothing.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x04\0\x21\0\0\0\x04\0\x04\0\xff\xff\xff\xff\
    \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

/// What a receiver says that holds much, to the second.
fn fidelity() -> Fidelity {
    Fidelity {
        owner: OwnerFidelity::Fixed { uid: 33, gid: 7 },
        setuid: false,
        attributes: AttributeFidelity { trusted: false, label: false, ..AttributeFidelity::FULL },
        pipes: true,
        devices: false,
        times: TimeFidelity { first: -(1 << 31), last: (1 << 31) - 1, step_nanos: 1_000_000_000 },
    }
}

/// The root with one entry of each kind, attributes and owners included.
fn listing() -> Listing {
    let node = |name: &str, kind: Kind| Node { name: name.as_bytes().into(), kind, meta: meta() };
    let link = Some(Box::new(path("file")));
    let digest = Some(Box::new(Digest([0x22; 32])));
    let target: Box<[u8]> = b"file".as_slice().into();
    let mut nodes = vec![
        node("char", Kind::Special(SpecialKind::CharDevice { major: 1, minor: 3 })),
        node("dir", Kind::Directory),
        node("disk", Kind::Special(SpecialKind::BlockDevice { major: 8, minor: 1 })),
        node("fifo", Kind::Special(SpecialKind::Fifo)),
        node("file", Kind::File { size_bytes: 6, link: None, digest }),
        node("link", Kind::File { size_bytes: 6, link, digest: None }),
        node("socket", Kind::Special(SpecialKind::Socket)),
        node("symlink", Kind::Symlink { target }),
    ];
    let attribute = |name: &[u8], value: &[u8]| Attribute { name: name.to_vec(), value: value.to_vec() };
    nodes[1].meta.attributes = Attributes::new(vec![attribute(ACCESS_ACL, ACL), attribute(b"user.x", b"y")]).unwrap();
    let mut names = OwnerNames::default();
    names.users.insert(33, Some("www-data".into()));
    names.groups.insert(33, None);
    Listing { dirs: vec![DirListing { path: path(""), meta: meta(), nodes }], names }
}

/// A root that holds the file `a`, as the document shows it.
fn small_listing() -> Listing {
    let mut listing = listing();
    listing.dirs[0].nodes = vec![Node { name: b"a".as_slice().into(), kind: Kind::file(6), meta: meta() }];
    listing
}

fn signature() -> Vec<u8> {
    let spec = SignatureSpec { block_bytes: 512, strong_bytes: 8 };
    let mut signer = Signer::new(spec, 600).unwrap();
    signer.update(&[b'a'; 600]);
    signer.finish().unwrap()
}

/// Everything that the crate encodes today.
fn encoded() -> Golden {
    let mut golden = Golden::new();
    for (name, message) in to_receiver() {
        golden.insert(format!("to-receiver/{name}"), encode(&message));
    }
    for (name, change) in changes() {
        golden.insert(format!("change/{name}"), encode(&ToReceiver::Changes(vec![change])));
    }
    for (name, message) in to_primary() {
        golden.insert(format!("to-primary/{name}"), encode(&message));
    }
    for (name, record, content) in records() {
        let mut block = BlockWriter::new();
        block.push(&record, content);
        golden.insert(format!("record/{name}"), block.take_frame(None));
    }
    for (name, listing) in [("all-kinds", listing()), ("one-file", small_listing())] {
        for (suffix, fidelity) in [("full", Fidelity::FULL), ("some", fidelity()), ("none", Fidelity::LEAST)] {
            let (directories, whole) = listing.digests(fidelity);
            golden.insert(format!("digest/{name}/{suffix}/directory"), directories[0].0.to_vec());
            golden.insert(format!("digest/{name}/{suffix}/whole"), whole.0.to_vec());
        }
    }
    golden.insert("signature/600-times-a".into(), signature());
    let (record, content) = compressible();
    let mut block = BlockWriter::new();
    block.push(&record, &content);
    golden.insert(COMPRESSED.into(), block.take_frame(Some(1)));
    golden
}

fn golden_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/protocol-1.txt")
}

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")).unwrap()
}

fn golden() -> Golden {
    let text = std::fs::read_to_string(golden_file()).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, hex) = line.split_once(' ').expect("a line is a name and hex");
            (name.to_owned(), from_hex(hex))
        })
        .collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|char| !char.is_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "hex has two digits a byte: {text}");
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("it is hex")).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn what_is_encoded_is_what_protocol_1_says() {
    assert_eq!(PROTOCOL_MAX, 1, "a new protocol needs a golden file of its own");
    let (golden, encoded) = (golden(), encoded());
    let mut text = String::new();
    for (name, bytes) in &encoded {
        let _ = writeln!(text, "{name} {}", to_hex(bytes));
    }
    let actual = Path::new(env!("CARGO_TARGET_TMPDIR")).join("protocol-1.txt");
    std::fs::write(&actual, text).unwrap();
    for (name, bytes) in encoded.iter().filter(|(name, _)| *name != COMPRESSED) {
        let expected = golden.get(name).map(|bytes| to_hex(bytes));
        assert_eq!(Some(to_hex(bytes)), expected, "{name}; all of it is in {}", actual.display());
    }
    let own = |name: &&String| !encoded.contains_key(*name);
    assert_eq!(golden.keys().find(own), None, "the golden file has something that is not encoded any more");
}

fn decodes<M: DeserializeOwned + Serialize + PartialEq + Debug>(golden: &Golden, name: &str, message: M) {
    let bytes = &golden[name];
    let frame = read_frame(&mut bytes.as_slice()).unwrap().unwrap();
    assert_eq!((frame.kind, frame.body.len()), (FrameKind::Message, bytes.len() - HEADER_BYTES), "{name}");
    assert_eq!(decode::<M>(&frame.body).unwrap(), message, "{name}");
}

#[test]
fn what_protocol_1_says_is_decoded() {
    let golden = golden();
    for (name, message) in to_receiver() {
        decodes(&golden, &format!("to-receiver/{name}"), message);
    }
    for (name, change) in changes() {
        decodes(&golden, &format!("change/{name}"), ToReceiver::Changes(vec![change]));
    }
    for (name, message) in to_primary() {
        decodes(&golden, &format!("to-primary/{name}"), message);
    }
    for (name, record, content) in records() {
        block_holds(&golden[&format!("record/{name}")], FrameKind::Block, &record, content);
    }
    let (record, content) = compressible();
    block_holds(&golden[COMPRESSED], FrameKind::CompressedBlock, &record, &content);
}

fn block_holds(bytes: &[u8], kind: FrameKind, record: &Record, content: &[u8]) {
    let frame = read_frame(&mut &bytes[..]).unwrap().unwrap();
    assert_eq!(frame.kind, kind);
    let mut block = BlockReader::open(frame).unwrap();
    assert_eq!(block.next_record().unwrap(), Some((record.clone(), content)));
    assert!(block.next_record().unwrap().is_none());
}

#[test]
fn the_document_numbers_every_variant_as_it_is() {
    let document = document();
    for (name, bytes) in &encoded() {
        // After the header: a message's or record's number; in `Changes`, the count and the change's number.
        let (section, at) = match name.split_once('/').unwrap() {
            ("to-receiver", _) => ("## Messages to the receiver", HEADER_BYTES),
            ("to-primary", _) => ("## Messages to the primary", HEADER_BYTES),
            ("change", _) => ("## Changes", HEADER_BYTES + 2),
            ("record", _) => ("## Content blocks", HEADER_BYTES),
            _ => continue,
        };
        let variant = name.split_once('/').unwrap().1;
        let row = format!("| {} | `{variant}` |", bytes[at]);
        let text = document.split_once(section).unwrap_or_else(|| panic!("the document has {section}")).1;
        let text = text.split("\n## ").next().unwrap();
        assert!(text.contains(&row), "{section} has no row {row}");
    }
}

#[test]
fn the_examples_in_the_document_are_what_happens() {
    let (golden, document) = (golden(), document());
    let mut examples = 0;
    let mut rest = document.as_str();
    while let Some((_, after)) = rest.split_once("\n```hex ") {
        let (block, after) = after.split_once("\n```").expect("an example ends");
        let (name, lines) = block.split_once('\n').expect("an example has lines");
        // Each line is hex, two spaces, and what it means.
        let hex: String = lines.lines().map(|line| line.split("  ").next().unwrap()).collect();
        let bytes = from_hex(&hex);
        let expected = match name.strip_prefix("hashed ") {
            Some(name) => (Digest::of(&bytes).0.to_vec(), &golden[name]),
            None => (bytes, &golden[name]),
        };
        assert_eq!(to_hex(&expected.0), to_hex(expected.1), "{name}");
        examples += 1;
        rest = after;
    }
    assert!(examples >= 6, "the document shows {examples} examples");
}
