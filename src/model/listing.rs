//! A root as a sequence of directory listings, and the digests by which two hosts compare them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, Hasher, Kind, Meta, Node, RelPath, SpecialKind};

/// One directory: what it is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirListing {
    /// The directory.
    pub path: RelPath,
    /// The directory's own attributes (for the root there is no other place for them).
    pub meta: Meta,
    /// What it holds, sorted by name, each name once.
    pub nodes: Vec<Node>,
}

impl DirListing {
    /// The entry `name`.
    pub fn find(&self, name: &[u8]) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|node| (*node.name).cmp(name)).ok()?;
        self.nodes.get(at)
    }

    /// Digest of the names, kinds and attributes in this directory, as far as a receiver of
    /// `fidelity` can hold them. The directory's own attributes belong to its parent's digest.
    pub fn digest(&self, fidelity: Fidelity, names: &OwnerNames) -> Digest {
        let mut hasher = Hasher::new();
        for node in &self.nodes {
            hasher.update_framed(&node.name);
            hash_kind(&mut hasher, &node.kind);
            hash_meta(&mut hasher, &node.kind, &node.meta, fidelity, names);
        }
        hasher.finish()
    }
}

fn hash_kind(hasher: &mut Hasher, kind: &Kind) {
    match kind {
        Kind::Directory => hasher.update(b"d"),
        Kind::File { size_bytes, link, digest } => {
            hasher.update(b"f");
            hasher.update(&size_bytes.to_le_bytes());
            hasher.update_framed(link.as_ref().map_or(&[], |link| link.as_bytes()));
            hasher.update_framed(digest.as_ref().map_or(&[], |digest| &digest.0));
        }
        Kind::Symlink { target } => {
            hasher.update(b"l");
            hasher.update_framed(target);
        }
        Kind::Special(special) => {
            let (tag, major, minor) = match special {
                SpecialKind::Fifo => (b"p", 0, 0),
                SpecialKind::Socket => (b"s", 0, 0),
                SpecialKind::CharDevice { major, minor } => (b"c", *major, *minor),
                SpecialKind::BlockDevice { major, minor } => (b"b", *major, *minor),
            };
            hasher.update(tag);
            hasher.update(&major.to_le_bytes());
            hasher.update(&minor.to_le_bytes());
        }
    }
}

fn hash_meta(hasher: &mut Hasher, kind: &Kind, meta: &Meta, fidelity: Fidelity, names: &OwnerNames) {
    hasher.update(&fidelity.mode(kind, meta.mode).to_le_bytes());
    hasher.update(&meta.mtime.secs.to_le_bytes());
    hasher.update(&meta.mtime.nanos.to_le_bytes());
    if fidelity.owner {
        hash_owner(hasher, names.users.get(&meta.uid), meta.uid);
        hash_owner(hasher, names.groups.get(&meta.gid), meta.gid);
    }
    for attribute in &meta.attributes {
        hasher.update_framed(&attribute.name);
        hasher.update_framed(&attribute.value);
    }
}

/// By name, since numbers differ between hosts; by number where there is no name.
fn hash_owner(hasher: &mut Hasher, name: Option<&Option<Box<str>>>, id: u32) {
    match name {
        Some(Some(name)) => hasher.update_framed(name.as_bytes()),
        _ => hasher.update(&id.to_le_bytes()),
    }
}

/// What a receiver is able and allowed to hold. Both sides compare through it, so that what cannot
/// be set is not found different again at every push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Owner and group of others can be set.
    pub owner: bool,
    /// setuid and setgid of files are kept.
    pub setuid: bool,
}

impl Fidelity {
    /// Everything is held.
    pub const FULL: Fidelity = Fidelity { owner: true, setuid: true };

    /// The permission bits that remain of `mode` at such a receiver. Symbolic links have none.
    pub fn mode(self, kind: &Kind, mode: u32) -> u32 {
        match kind {
            Kind::Symlink { .. } => 0,
            Kind::File { .. } if !self.setuid => mode & 0o1777,
            _ => mode & 0o7777,
        }
    }
}

/// Names of owners and groups by number, `None` for a number without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerNames {
    /// Users.
    pub users: BTreeMap<u32, Option<Box<str>>>,
    /// Groups.
    pub groups: BTreeMap<u32, Option<Box<str>>>,
}

/// Which of the receiver's numbers an owner of the primary becomes; `None`: it is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerMap {
    /// Users, by the primary's number.
    pub users: BTreeMap<u32, Option<u32>>,
    /// Groups, by the primary's number.
    pub groups: BTreeMap<u32, Option<u32>>,
}

/// Looks up names of owners and groups; the operating system's database, or a table in a test.
pub trait Owners {
    /// Name of the user `uid`.
    fn user_name(&self, uid: u32) -> Option<String>;
    /// Name of the group `gid`.
    fn group_name(&self, gid: u32) -> Option<String>;
    /// Number of the user `name`.
    fn user_id(&self, name: &str) -> Option<u32>;
    /// Number of the group `name`.
    fn group_id(&self, name: &str) -> Option<u32>;
}

impl OwnerNames {
    /// Adds the names of `meta`'s owner and group, asking `owners` once for each number.
    pub fn note(&mut self, meta: &Meta, owners: &dyn Owners) {
        self.users.entry(meta.uid).or_insert_with(|| owners.user_name(meta.uid).map(Into::into));
        self.groups.entry(meta.gid).or_insert_with(|| owners.group_name(meta.gid).map(Into::into));
    }
}

/// A whole root, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The directories in path order, the root first.
    pub dirs: Vec<DirListing>,
    /// Names of all owners and groups that occur.
    pub names: OwnerNames,
}

impl Listing {
    /// The directory `path`.
    pub fn dir(&self, path: &RelPath) -> Option<&DirListing> {
        let at = self.dirs.binary_search_by(|dir| dir.path.cmp(path)).ok()?;
        self.dirs.get(at)
    }

    /// Number of entries, the root itself not counted.
    pub fn entry_count(&self) -> u64 {
        self.dirs.iter().map(|dir| dir.nodes.len() as u64).sum()
    }

    /// Bytes of content; hard links count once.
    pub fn content_bytes(&self) -> u64 {
        let files = self.dirs.iter().flat_map(|dir| &dir.nodes).filter(|node| node.kind.link().is_none());
        files.map(|node| node.kind.size_bytes()).sum()
    }

    /// Digests of all directories, in order, and of the whole.
    pub fn digests(&self, fidelity: Fidelity) -> (Vec<Digest>, Digest) {
        let mut whole = ListingHasher::default();
        let digests = self.dirs.iter().map(|dir| {
            let digest = dir.digest(fidelity, &self.names);
            whole.add(dir, &digest, fidelity, &self.names);
            digest
        });
        (digests.collect(), whole.finish())
    }
}

/// Digest of a whole listing, from its directories in path order.
#[derive(Default)]
pub struct ListingHasher(Hasher);

impl ListingHasher {
    /// Adds the next directory with its own digest.
    pub fn add(&mut self, dir: &DirListing, digest: &Digest, fidelity: Fidelity, names: &OwnerNames) {
        if dir.path.is_root() {
            hash_meta(&mut self.0, &Kind::Directory, &dir.meta, fidelity, names);
        }
        self.0.update_framed(dir.path.as_bytes());
        self.0.update(&digest.0);
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}
