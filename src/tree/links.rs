//! Files with several names, as a scan meets them: the first name, and the state that all names have.
//!
//! A file can change between the looks at two of its names. A plan that were given both states would set the
//! later time on the earlier content, which no comparison of size and time finds again. So a file has one state
//! in a scan, that of its first name: what came later is found by the next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::{Digest, Inode, Kind, Meta, Node, RelPath};

/// A file as its first name was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Linked {
    first: RelPath,
    size_bytes: u64,
    meta: Meta,
    digest: Option<Box<Digest>>,
}

/// Each file that has several names, by device and inode number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTable(HashMap<(u64, u64), Linked>);

impl LinkTable {
    /// Number of files with several names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where first names of hard links come from.
pub(super) enum Links<'t> {
    /// Each new one is the first of its file.
    Grow(&'t mut LinkTable),
    /// Only what is known counts.
    Fixed(&'t LinkTable),
}

impl Links<'_> {
    /// Makes `node`, found at `path`, a link if that is not the first name of its file, with the state of that
    /// name. A directory that is listed again has the states that it has now; of those, a digest is known only
    /// if size and time are what they were.
    pub(super) fn complete(&self, inode: &Inode, path: &RelPath, node: &mut Node) {
        let key = (inode.dev, inode.ino);
        let (table, is_again) = match self {
            Links::Grow(table) => (&**table, false),
            Links::Fixed(table) => (*table, true),
        };
        let Some(known) = table.0.get(&key).filter(|known| known.first != *path) else { return };
        let link = Some(Box::new(known.first.clone()));
        let size_bytes = node.kind.size_bytes();
        let is_as_seen = (size_bytes, node.meta.mtime) == (known.size_bytes, known.meta.mtime);
        if is_again && !is_as_seen {
            node.kind = Kind::File { size_bytes, link, digest: None };
            return;
        }
        if !is_again {
            node.meta = known.meta.clone();
        }
        node.kind = Kind::File { size_bytes: known.size_bytes, link, digest: known.digest.clone() };
    }

    /// Takes note of the first name of a file, whose node is complete.
    pub(super) fn note(&mut self, inode: &Inode, path: RelPath, node: &Node) {
        let Links::Grow(table) = self else { return };
        if let (Entry::Vacant(place), Kind::File { size_bytes, digest, .. }) =
            (table.0.entry((inode.dev, inode.ino)), &node.kind)
        {
            let (size_bytes, digest) = (*size_bytes, digest.clone());
            place.insert(Linked { first: path, size_bytes, meta: node.meta.clone(), digest });
        }
    }
}
