//! What an index remembers of entries: [`Seen`] as a scan finds them, [`Version`] as the past holds them.

use super::{Digest, Meta, Name, Node, Timestamp};

/// What tells an inode from others and from its own past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inode {
    /// Device number of its filesystem.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Whether it is a file that has several names.
    pub shared: bool,
    /// Last change of anything.
    pub ctime: Timestamp,
}

/// What tells a file from others in the record of a scan. Of a file with several names some can be recorded as
/// they were before, where their directory was not found: these names are not taken for one with the others,
/// since a host holds what is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    dev: u64,
    ino: u64,
    size_bytes: u64,
    mtime: Timestamp,
}

impl FileId {
    /// The file that `node`, of this inode, is a name of.
    pub fn of(node: &Node, inode: &Inode) -> Self {
        FileId { dev: inode.dev, ino: inode.ino, size_bytes: node.kind.size_bytes(), mtime: node.meta.mtime }
    }
}

/// One entry as a scan finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The entry; a hard link is not marked as one.
    pub node: Node,
    /// Its inode.
    pub inode: Inode,
}

/// A directory of an index. It keeps its number when it is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub i64);

/// One entry at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The directory that holds it.
    pub dir: DirectoryId,
    /// The entry.
    pub node: Node,
    /// Its inode.
    pub inode: Inode,
    /// For a directory, its own number.
    pub own: Option<DirectoryId>,
    /// For a file that has gone or changed, the digest of what it held, if that was read.
    pub digest: Option<Digest>,
    /// For a file that has gone or changed: what was sent for it, or for another name of it, was not this.
    pub doubtful: bool,
}

/// A directory that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory that holds it; `None` for the root.
    pub parent: Option<DirectoryId>,
    /// Its name there; empty for the root.
    pub name: Name,
    /// Its attributes.
    pub meta: Meta,
}

/// What happened after some point of a history, and what is needed to tell where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries that are not as they were.
    pub now: Vec<Version>,
    /// What was there in their places, and what has gone.
    pub then: Vec<Version>,
    /// Other names of the files among these, which are as they were.
    pub same: Vec<Version>,
    /// The directories of now that any of these lies in, and those above, by number.
    pub places: std::collections::BTreeMap<DirectoryId, Place>,
    /// The attributes of the root at that point, where they were others than now.
    pub root_then: Option<Meta>,
    /// Number of the root.
    pub root: Option<DirectoryId>,
    /// Entries that there were at that point.
    pub entries_then: u64,
}
