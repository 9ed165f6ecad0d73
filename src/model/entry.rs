//! What a directory holds: [`Node`].

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Attributes, Digest, RelPath};

/// A point in time as filesystems keep it, before 1970 and after 2038 too. Packed, since listings of millions of
/// entries are held in memory.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970, possibly negative.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

/// What an entry has beside its kind and content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Number of the owner on the host that made this value.
    pub uid: u32,
    /// Number of the group on the host that made this value.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes, ACLs included.
    pub attributes: Attributes,
}

/// Entries that have no content of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
        /// The first name of the same file, if this is not it (a hard link). First in the order of a listing:
        /// directories in path order, names within each.
        link: Option<Box<RelPath>>,
        /// Digest of the content, where it was asked for.
        digest: Option<Box<Digest>>,
    },
    /// A symbolic link with its target, verbatim.
    Symlink {
        /// The target.
        target: Box<[u8]>,
    },
    /// Anything else.
    Special(SpecialKind),
}

impl Kind {
    /// A plain file of `size_bytes`.
    pub fn file(size_bytes: u64) -> Self {
        Kind::File { size_bytes, link: None, digest: None }
    }

    /// Length of the content, 0 for anything but a file.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Kind::File { size_bytes, .. } => *size_bytes,
            _ => 0,
        }
    }

    /// For a hard link, the first name of its file.
    pub fn link(&self) -> Option<&RelPath> {
        match self {
            Kind::File { link, .. } => link.as_deref(),
            _ => None,
        }
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Kind::Directory)
    }

    /// Whether both are of one kind, whatever they hold.
    pub fn same_type(&self, other: &Kind) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What a plan takes to be at a path. A receiver compares before it replaces or deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expected {
    /// Nothing.
    #[default]
    Nothing,
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
        /// Its time.
        mtime: Timestamp,
    },
    /// A symbolic link.
    Symlink {
        /// Its time.
        mtime: Timestamp,
    },
    /// Anything else.
    Special,
}

impl Expected {
    /// What is expected where `node` was seen.
    pub fn of(node: &Node) -> Self {
        match &node.kind {
            Kind::Directory => Expected::Directory,
            Kind::File { size_bytes, .. } => Expected::File { size_bytes: *size_bytes, mtime: node.meta.mtime },
            Kind::Symlink { .. } => Expected::Symlink { mtime: node.meta.mtime },
            Kind::Special(_) => Expected::Special,
        }
    }
}

/// The name of an entry in its directory. A short one takes no room beside the entry.
pub type Name = SmallVec<[u8; NAME_BYTES]>;

/// As many bytes as lie where a longer name has its length and place.
const NAME_BYTES: usize = 16;

/// One entry as its directory lists it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the directory.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// What else it has.
    pub meta: Meta,
}

impl Node {
    /// Whether the content cannot be told apart by size and time, or by digest where both have one.
    /// Links are compared by their first name, symbolic links by their target.
    pub fn same_content(&self, other: &Node) -> bool {
        match (&self.kind, &other.kind) {
            (
                Kind::File { size_bytes, digest: Some(digest), .. },
                Kind::File { size_bytes: other_bytes, digest: Some(other_digest), .. },
            ) => size_bytes == other_bytes && digest == other_digest,
            (Kind::File { size_bytes, .. }, Kind::File { size_bytes: other_bytes, .. }) => {
                size_bytes == other_bytes && self.meta.mtime == other.meta.mtime
            }
            (kind, other_kind) => kind == other_kind,
        }
    }
}
