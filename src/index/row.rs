//! Entries as bytes: fixed places, so that an entry that did not change is one comparison.

use rusqlite::Row;

use super::IndexError;
use crate::model::{
    Attribute, Attributes, Digest, DirectoryId, Inode, Kind, Meta, Node, SpecialKind, Timestamp, Version,
};

/// Bytes of an entry's state.
pub(super) const STATE_BYTES: usize = 75;

/// What is recorded of an entry beside its name and target.
pub(super) type State = [u8; STATE_BYTES];

struct Cursor<'a>(&'a mut [u8]);

impl Cursor<'_> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let (head, rest) = std::mem::take(&mut self.0).split_at_mut(N);
        head.copy_from_slice(&bytes);
        self.0 = rest;
    }
}

/// The state of an entry.
pub(super) fn state_of(node: &Node, inode: &Inode) -> State {
    let mut state = [0; STATE_BYTES];
    let mut to = Cursor(&mut state);
    let (kind, major, minor) = match &node.kind {
        Kind::Directory => (b'd', 0, 0),
        Kind::File { .. } => (b'f', 0, 0),
        Kind::Symlink { .. } => (b'l', 0, 0),
        Kind::Special(SpecialKind::Fifo) => (b'p', 0, 0),
        Kind::Special(SpecialKind::Socket) => (b's', 0, 0),
        Kind::Special(SpecialKind::CharDevice { major, minor }) => (b'c', *major, *minor),
        Kind::Special(SpecialKind::BlockDevice { major, minor }) => (b'b', *major, *minor),
    };
    to.put([kind, u8::from(inode.shared)]);
    to.put(node.kind.size_bytes().to_le_bytes());
    to.put(node.meta.mtime.secs.to_le_bytes());
    to.put(node.meta.mtime.nanos.to_le_bytes());
    to.put(node.meta.mode.to_le_bytes());
    to.put(node.meta.uid.to_le_bytes());
    to.put(node.meta.gid.to_le_bytes());
    to.put(inode.dev.to_le_bytes());
    to.put(inode.ino.to_le_bytes());
    to.put(inode.ctime.secs.to_le_bytes());
    to.put(inode.ctime.nanos.to_le_bytes());
    to.put(major.to_le_bytes());
    to.put(minor.to_le_bytes());
    state
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DAMAGED)?;
        self.0 = rest;
        Ok(*head)
    }
}

const DAMAGED: IndexError = IndexError::Damaged("a row is not what was written");

/// The entry of a row.
pub(super) fn entry_of(
    name: &[u8],
    state: &[u8],
    target: Option<&[u8]>,
    attributes: Option<&[u8]>,
) -> Result<(Node, Inode), IndexError> {
    let mut from = Reader(state);
    let [kind, shared] = from.take()?;
    let size_bytes = u64::from_le_bytes(from.take()?);
    let mtime = Timestamp { secs: i64::from_le_bytes(from.take()?), nanos: u32::from_le_bytes(from.take()?) };
    let mode = u32::from_le_bytes(from.take()?);
    let (uid, gid) = (u32::from_le_bytes(from.take()?), u32::from_le_bytes(from.take()?));
    let (dev, ino) = (u64::from_le_bytes(from.take()?), u64::from_le_bytes(from.take()?));
    let ctime = Timestamp { secs: i64::from_le_bytes(from.take()?), nanos: u32::from_le_bytes(from.take()?) };
    let (major, minor) = (u32::from_le_bytes(from.take()?), u32::from_le_bytes(from.take()?));
    let kind = match kind {
        b'd' => Kind::Directory,
        b'f' => Kind::file(size_bytes),
        b'l' => Kind::Symlink { target: target.ok_or(DAMAGED)?.into() },
        b'p' => Kind::Special(SpecialKind::Fifo),
        b's' => Kind::Special(SpecialKind::Socket),
        b'c' => Kind::Special(SpecialKind::CharDevice { major, minor }),
        b'b' => Kind::Special(SpecialKind::BlockDevice { major, minor }),
        _ => return Err(DAMAGED),
    };
    let attributes = attributes.map(attributes_from).transpose()?.unwrap_or_default();
    let meta = Meta { mode, uid, gid, mtime, attributes };
    Ok((Node { name: name.into(), kind, meta }, Inode { dev, ino, shared: shared != 0, ctime }))
}

/// Device and inode number in a state.
pub(super) fn file_of(state: &[u8]) -> Result<(u64, u64), IndexError> {
    const BEFORE: usize = 2 + 8 + 8 + 4 + 4 + 4 + 4;
    let mut from = Reader(state.get(BEFORE..).ok_or(DAMAGED)?);
    Ok((u64::from_le_bytes(from.take()?), u64::from_le_bytes(from.take()?)))
}

/// Extended attributes as bytes, nothing where there are none: of each the lengths of name and value, then both.
pub(super) fn attributes_of(attributes: &Attributes) -> Option<Vec<u8>> {
    if attributes.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(attributes.bytes());
    for Attribute { name, value } in attributes.iter() {
        // Both are within bounds that fit.
        bytes.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
    }
    Some(bytes)
}

fn attributes_from(bytes: &[u8]) -> Result<Attributes, IndexError> {
    let mut from = Reader(bytes);
    let mut all = Vec::new();
    while !from.0.is_empty() {
        let name_bytes = usize::from(u16::from_le_bytes(from.take()?));
        let value_bytes = usize::try_from(u32::from_le_bytes(from.take()?)).map_err(|_| DAMAGED)?;
        let (name, rest) = from.0.split_at_checked(name_bytes).ok_or(DAMAGED)?;
        let (value, rest) = rest.split_at_checked(value_bytes).ok_or(DAMAGED)?;
        from.0 = rest;
        all.push(Attribute { name: name.into(), value: value.into() });
    }
    Attributes::new(all).map_err(|_| DAMAGED)
}

/// `dir, name, state, own, target, attributes` of a row, in this order, as a version.
pub(super) fn version_of(row: &Row) -> Result<Version, IndexError> {
    let name = row.get_ref(1)?.as_blob().map_err(|_| DAMAGED)?;
    let state = row.get_ref(2)?.as_blob().map_err(|_| DAMAGED)?;
    let target = row.get_ref(4)?.as_blob_or_null().map_err(|_| DAMAGED)?;
    let attributes = row.get_ref(5)?.as_blob_or_null().map_err(|_| DAMAGED)?;
    let (node, inode) = entry_of(name, state, target, attributes)?;
    let own: Option<i64> = row.get(3)?;
    Ok(Version { dir: DirectoryId(row.get(0)?), node, inode, own: own.map(DirectoryId), digest: None, doubtful: false })
}

/// In place of a digest: hosts may hold something else.
pub(super) const DOUBT: Digest = Digest([0; 32]);

/// A digest in column `column`.
pub(super) fn digest_of(row: &Row, column: usize) -> Result<Option<Digest>, IndexError> {
    let bytes = row.get_ref(column)?.as_blob_or_null().map_err(|_| DAMAGED)?;
    bytes.map(|bytes| bytes.try_into().map(Digest).map_err(|_| DAMAGED)).transpose()
}

/// What `by_inode` holds of an entry: only for those that are looked for by it.
pub(super) fn inode_key(node: &Node, inode: &Inode) -> Option<i64> {
    (node.kind.is_directory() || inode.shared).then(|| inode.ino.cast_signed())
}
