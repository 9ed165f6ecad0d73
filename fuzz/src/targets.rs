//! What is fuzzed: for each target a function of bytes that panics when a promise is broken.
//!
//! Only what the library shows to everyone is used. `tests/corpus.rs` runs the same functions over the corpus.

use std::collections::BTreeMap;
use std::path::Path;

use rfleet::config::Config;
use rfleet::delta::{Differ, MAX_LITERAL_BYTES, Op, PatchCheck, Signature, SignatureSpec, Signer};
use rfleet::model::{
    Digest, DirListing, Fidelity, Kind, Listing, MAX_NAME_BYTES, MAX_PATH_BYTES, Meta, Node, OwnerMap, Patterns,
    RESERVED_NAME, RelPath, check_name,
};
use rfleet::plan::{Destination, PlanOptions, plan, wanted_directories};
use rfleet::wire::{
    BlockReader, Frame, FrameKind, HEADER_BYTES, MAX_BLOCK_BYTES, MAX_FRAME_BYTES, ToPrimary, ToReceiver, decode,
    encode, read_frame,
};

/// One target.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("frames", frames),
    ("to_receiver", to_receiver),
    ("to_primary", to_primary),
    ("block", block),
    ("inventory", inventory),
    ("signature", signature),
    ("delta", delta),
    ("operations", operations),
    ("path", path),
    ("patterns", patterns),
    ("config", config),
];

/// The target of this name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// A stream of frames, as either side reads it: no frame is longer than it may be, and each is decoded.
pub fn frames(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(frame)) = read_frame(&mut rest) {
        assert!(frame.body.len() <= MAX_FRAME_BYTES);
        match frame.kind {
            FrameKind::Message => {
                to_receiver(&frame.body);
                to_primary(&frame.body);
            }
            _ => records(frame),
        }
    }
}

/// A message to a receiver: what can be decoded is the same when it is sent on.
pub fn to_receiver(data: &[u8]) {
    if let Ok(message) = decode::<ToReceiver>(data) {
        let again = encode(&message);
        assert_eq!(decode::<ToReceiver>(&again[HEADER_BYTES..]).expect("our own can be decoded"), message);
    }
}

/// A message to a primary, likewise.
pub fn to_primary(data: &[u8]) {
    if let Ok(message) = decode::<ToPrimary>(data) {
        let again = encode(&message);
        assert_eq!(decode::<ToPrimary>(&again[HEADER_BYTES..]).expect("our own can be decoded"), message);
    }
}

/// A content block, compressed if the first byte is odd.
pub fn block(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let kind = if first % 2 == 0 { FrameKind::Block } else { FrameKind::CompressedBlock };
    records(Frame { kind, body: body.to_vec() });
}

fn records(frame: Frame) {
    let Ok(mut block) = BlockReader::open(frame) else { return };
    let mut bytes = 0;
    while let Ok(Some((_, content))) = block.next_record() {
        bytes += content.len();
        assert!(bytes <= MAX_BLOCK_BYTES, "content of {bytes} bytes in one block");
    }
}

/// What a host lists, as a stream of messages: what is valid is compared and makes a plan, whatever it is, that names
/// only what the host or the source has.
pub fn inventory(data: &[u8]) {
    let mut rest = data;
    let mut host: BTreeMap<RelPath, DirListing> = BTreeMap::new();
    let mut owners = OwnerMap::default();
    while let Ok(Some(frame)) = read_frame(&mut rest) {
        match decode::<ToPrimary>(&frame.body) {
            Ok(ToPrimary::Entries(part)) if is_valid(&part) => drop(host.insert(part.path.clone(), part)),
            Ok(ToPrimary::Directories { owners: known, .. }) => owners = known,
            _ => {}
        }
    }
    let source = source();
    let excluded = |_: &RelPath, _: bool| false;
    let host = Listing { dirs: host.into_values().collect(), ..Listing::default() };
    let (digests, _) = source.digests(Fidelity::FULL);
    let (theirs, _) = host.digests(Fidelity::FULL);
    let directories: Vec<(RelPath, Digest)> =
        host.dirs.iter().zip(theirs).map(|(dir, digest)| (dir.path.clone(), digest)).collect();
    let own: Vec<_> = source.dirs.iter().map(|dir| dir.path.clone()).zip(digests.iter().copied()).collect();
    let wanted = wanted_directories(&own, &directories, &[], &excluded);
    let listed = wanted.iter().filter_map(|path| Some((path.clone(), host.dir(path)?.clone()))).collect();
    let destination = Destination { directories, listed, entries: host.entry_count(), owners, unreadable: Vec::new() };
    let options =
        PlanOptions { delete: true, fidelity: Fidelity::FULL, excluded: &excluded, moves_along: &|_, _| true };
    let plan = plan(&source, &digests, &destination, &options);
    for removal in &plan.removals {
        let (parent, name) = removal.path.split().expect("a root is not removed");
        assert!(host.dir(&parent).is_some_and(|dir| dir.find(name).is_some()), "{}: not listed", removal.path);
    }
}

/// As a primary judges a part of a directory.
fn is_valid(part: &DirListing) -> bool {
    part.nodes.iter().all(|node| check_name(&node.name).is_ok())
        && part.nodes.windows(2).all(|pair| pair[0].name < pair[1].name)
}

/// A small tree: `a`, `b/`, `b/c`, `l`.
fn source() -> Listing {
    let node = |name: &str, kind| Node { name: name.as_bytes().into(), kind, meta: Meta::default() };
    let dir = |path: &str, nodes| DirListing {
        path: RelPath::new_or_root(path.as_bytes()).expect("a path"),
        meta: Meta::default(),
        nodes,
    };
    let link = Kind::Symlink { target: b"a".as_slice().into() };
    let top = vec![node("a", Kind::file(3)), node("b", Kind::Directory), node("l", link)];
    Listing { dirs: vec![dir("", top), dir("b", vec![node("c", Kind::file(70_000))])], ..Listing::default() }
}

/// A host's signature and content to be compared with it: whatever it says, the content comes out whole, and no
/// operation reaches outside the basis.
pub fn signature(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<8>() else { return };
    let spec = SignatureSpec {
        block_bytes: u32::from(u16::from_le_bytes([head[0], head[1]])) << (head[2] % 12),
        strong_bytes: head[3],
    };
    let basis_bytes = u64::from(u32::from_le_bytes([head[4], head[5], head[6], 0]));
    let Ok(mut signature) = Signature::new(spec, basis_bytes) else { return };
    assert!(spec.signature_bytes(basis_bytes) <= 1 << 32);
    let mut records = rest;
    for number in 0..signature.parts().count().min(64) {
        let range = signature.parts().range(number);
        let wanted = usize::try_from(spec.signature_bytes(range.end - range.start)).expect("it was judged");
        let (part, after) = records.split_at(wanted.min(records.len()));
        records = after;
        assert_eq!(signature.add_part(number, part.to_vec()).is_ok(), part.len() == wanted);
    }
    compare(&mut signature, None, basis_bytes, rest, 1 + usize::from(head[7]));
}

/// Honest signing, comparing and applying of any two contents gives the new one.
pub fn delta(data: &[u8]) {
    let Some((&[block, split, piece], rest)) = data.split_first_chunk::<3>() else { return };
    let (basis, new) = rest.split_at(rest.len() * usize::from(split) / 255);
    // Repeated, so that there are blocks at all.
    let (basis, new) = (basis.repeat(4), [new, basis, new, new].concat());
    let spec = SignatureSpec { block_bytes: 64 << (block % 4), strong_bytes: 8 };
    let Ok(mut signer) = Signer::new(spec, basis.len() as u64) else { return };
    basis.chunks(1 + usize::from(piece)).for_each(|part| signer.update(part));
    let records = signer.finish().expect("all of the basis was given");
    let mut signature = Signature::new(spec, basis.len() as u64).expect("the signer took it");
    if signature.parts().count() > 0 {
        signature.add_part(0, records).expect("it is what the signer made");
    }
    compare(&mut signature, Some(&basis), basis.len() as u64, &new, 1 + usize::from(piece));
}

/// Compares `new` with a signature, judges what comes of it, and carries it out where the basis is there.
fn compare(signature: &mut Signature, basis: Option<&[u8]>, basis_bytes: u64, new: &[u8], piece: usize) {
    let mut check = PatchCheck::new(basis_bytes, new.len() as u64);
    let mut made = Vec::new();
    let mut take = |op: Op<'_>| {
        check.check(&op).expect("what is sent is what a receiver takes");
        match (op, basis) {
            (Op::Literal(bytes), _) => {
                assert!(bytes.len() <= MAX_LITERAL_BYTES);
                made.extend_from_slice(bytes);
            }
            (Op::Copy { offset, len }, Some(basis)) => {
                made.extend_from_slice(&basis[offset as usize..(offset + len) as usize]);
            }
            (Op::Copy { .. }, None) => {}
        }
    };
    let mut differ = Differ::new(signature);
    new.chunks(piece).for_each(|part| differ.push(part, &mut take));
    let stats = differ.finish(&mut take);
    assert_eq!(stats.literal_bytes + stats.matched_bytes, new.len() as u64);
    check.finish().expect("the whole content comes out");
    assert!(basis.is_none() || made == new, "another content came out");
}

/// Operations that a primary made up, as a receiver judges them: what passes stays inside the basis and makes exactly
/// as much as was announced.
pub fn operations(data: &[u8]) {
    let Some((head, mut rest)) = data.split_first_chunk::<16>() else { return };
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let (basis_bytes, new_bytes) = (word(&head[..8]), word(&head[8..]));
    let mut check = PatchCheck::new(basis_bytes, new_bytes);
    let mut made = 0_u64;
    while let Some((op, after)) = rest.split_first_chunk::<17>() {
        rest = after;
        let (first, second) = (word(&op[1..9]), word(&op[9..]));
        let passed = match op[0] % 3 {
            0 => {
                let passed = check.check(&Op::Copy { offset: first, len: second }).is_ok();
                assert!(!passed || first.checked_add(second).is_some_and(|end| end <= basis_bytes && second > 0));
                passed.then_some(second)
            }
            1 => {
                let len = usize::try_from(second % 64).expect("it is small").min(rest.len());
                check.check(&Op::Literal(&rest[..len])).is_ok().then_some(len as u64)
            }
            _ => check.check_hole(second).is_ok().then_some(second),
        };
        let Some(bytes) = passed else { return };
        made = made.checked_add(bytes).expect("it was counted");
        assert!(made <= new_bytes && made == check.made_bytes());
    }
    assert_eq!(check.finish().is_ok(), made == new_bytes);
}

/// A name from the wire: what is taken leads nowhere but below.
pub fn path(data: &[u8]) {
    let Ok(path) = RelPath::new(data) else { return };
    assert!(!data.is_empty() && data.len() <= MAX_PATH_BYTES && !data.contains(&0) && data[0] != b'/');
    for name in data.split(|&byte| byte == b'/') {
        assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES && name != b"." && name != b"..");
        assert!(*name != *RESERVED_NAME && check_name(name).is_ok());
    }
    let (parent, name) = path.split().expect("it is not the root");
    assert_eq!(parent.join(name).expect("its own parts"), path);
    assert!(!path.to_string().chars().any(char::is_control), "it could move a cursor");
}

/// Patterns, and a path that they judge: the first line is the path.
pub fn patterns(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let (path, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok((patterns, _)) = Patterns::parse(text) else { return };
    if let Ok(path) = RelPath::new(path) {
        let excluded = patterns.excludes(&path, false);
        assert!(!excluded || !patterns.is_empty());
        assert!(!excluded || patterns.protects(&path));
    }
}

/// A configuration: what is wrong is one line.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, Path::new("F"), |name| (name == "HOME").then(|| "/root".to_owned())) {
        Ok(config) => {
            assert!(!config.roots.is_empty());
            let lines = config.unavailable();
            assert!(lines.iter().chain(config.warnings()).all(|line| !line.contains('\n')));
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}
