//! A root as a sequence of directory listings, and the digests by which two hosts compare them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::attributes::{ACL_GROUP, ACL_USER, acl_entries};
use super::{
    AclMap, AclName, Attribute, AttributeClass, Digest, Fidelity, Hasher, Kind, Meta, Node, OwnerFidelity, RelPath,
    SpecialKind,
};

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

    /// Digest of the names, kinds and attributes in this directory, as far as a receiver can hold
    /// them. The directory's own attributes belong to its parent's digest.
    pub fn digest(&self, view: View<'_>) -> Digest {
        let mut hasher = Hasher::new();
        // What the receiver does not take is not there for it; what it has beyond that, it has.
        let there = |node: &&Node| view.side == Side::Receiver || view.fidelity.has(&node.kind);
        for node in self.nodes.iter().filter(there) {
            hasher.update_framed(&node.name);
            hash_kind(&mut hasher, &node.kind);
            hash_meta(&mut hasher, &node.kind, &node.meta, view);
        }
        hasher.finish()
    }
}

/// Whose entries are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The primary's, as they should be at the receiver.
    Primary,
    /// The receiver's own.
    Receiver,
}

/// How entries are looked at for a digest that both sides can compute.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the receiver can hold.
    pub fidelity: Fidelity,
    /// Names of all owners that occur.
    pub names: &'a OwnerNames,
    /// Whose entries they are.
    pub side: Side,
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

fn hash_meta(hasher: &mut Hasher, kind: &Kind, meta: &Meta, view: View<'_>) {
    let View { fidelity, names, side } = view;
    let mtime = fidelity.times.held(meta.mtime);
    hasher.update(&fidelity.mode(kind, meta.mode).to_le_bytes());
    hasher.update(&mtime.secs.to_le_bytes());
    hasher.update(&mtime.nanos.to_le_bytes());
    match fidelity.owner {
        OwnerFidelity::Unset => {}
        OwnerFidelity::Kept => {
            hash_owner(hasher, names.users.get(&meta.uid), meta.uid);
            hash_owner(hasher, names.groups.get(&meta.gid), meta.gid);
        }
        OwnerFidelity::Fixed { .. } => hasher.update(&[u8::from(side == Side::Primary || fidelity.is_owned(meta))]),
    }
    let held = || meta.attributes.iter().filter(|one| fidelity.attributes.holds(&one.name));
    hasher.update(&u32::try_from(held().count()).unwrap_or(u32::MAX).to_le_bytes());
    for attribute in held() {
        hasher.update_framed(&attribute.name);
        hash_value(hasher, attribute, names);
    }
}

/// ACLs with the names of users and groups, like owners.
fn hash_value(hasher: &mut Hasher, attribute: &Attribute, names: &OwnerNames) {
    let is_acl = AttributeClass::of(&attribute.name) == Some(AttributeClass::Acl);
    match acl_entries(&attribute.value).filter(|_| is_acl) {
        None => hasher.update_framed(&attribute.value),
        Some(entries) => {
            hasher.update(&(attribute.value.len() as u64).to_le_bytes());
            for entry in entries {
                hasher.update(&entry.tag.to_le_bytes());
                hasher.update(&entry.permissions.to_le_bytes());
                match entry.tag {
                    ACL_USER => hash_owner(hasher, names.users.get(&entry.id), entry.id),
                    ACL_GROUP => hash_owner(hasher, names.groups.get(&entry.id), entry.id),
                    _ => {}
                }
            }
        }
    }
}

/// By name, since numbers differ between hosts; by number where there is no name.
fn hash_owner(hasher: &mut Hasher, name: Option<&Option<Box<str>>>, id: u32) {
    match name {
        Some(Some(name)) => hasher.update_framed(name.as_bytes()),
        _ => hasher.update(&id.to_le_bytes()),
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
    /// What they become in ACLs.
    pub acl: AclMap,
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
        for name in meta.attributes.named() {
            self.note_named(name, owners);
        }
    }

    /// Adds the name of a user or group that an ACL names.
    pub fn note_named(&mut self, name: AclName, owners: &dyn Owners) {
        match name {
            AclName::User(id) => drop(self.users.entry(id).or_insert_with(|| owners.user_name(id).map(Into::into))),
            AclName::Group(id) => drop(self.groups.entry(id).or_insert_with(|| owners.group_name(id).map(Into::into))),
        }
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

    /// Digests of all directories, in order, and of the whole, as they should be at a receiver of `fidelity`.
    pub fn digests(&self, fidelity: Fidelity) -> (Vec<Digest>, Digest) {
        let view = View { fidelity, names: &self.names, side: Side::Primary };
        let mut whole = ListingHasher::default();
        let digests = self.dirs.iter().map(|dir| {
            let digest = dir.digest(view);
            whole.add(dir, &digest, view);
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
    pub fn add(&mut self, dir: &DirListing, digest: &Digest, view: View<'_>) {
        if dir.path.is_root() {
            hash_meta(&mut self.0, &Kind::Directory, &dir.meta, view);
        }
        self.0.update_framed(dir.path.as_bytes());
        self.0.update(&digest.0);
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}
