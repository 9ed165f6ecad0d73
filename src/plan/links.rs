//! Hard links: which name of a file holds its content, and which names are linked to it.
//!
//! Two rules make the partition into files right. All names of one file at the primary end up on
//! one file at the host, its *holder*. And one file at the host belongs to at most one file of the
//! primary: the first that *claims* it keeps it, any other gets its own content.

use std::collections::{HashMap, HashSet};

use super::EntryRef;
use super::compare::Destination;
use crate::model::{Listing, Node, RelPath};

/// What happens to the names that are hard links at the primary.
#[derive(Default)]
pub(super) struct Links {
    /// The primary's groups: first name, then all names in path order.
    groups: Vec<(RelPath, Vec<EntryRef>)>,
    /// First names of the host's groups that have a second name.
    shared: HashSet<RelPath>,
    /// The host's group (by first name) and the primary's (by first name) that keeps it.
    claims: HashMap<RelPath, RelPath>,
    /// Names to be linked, and to which.
    targets: HashMap<EntryRef, EntryRef>,
    /// Names in groups that are not linked anew: whether they are kept as they are.
    kept: HashMap<EntryRef, bool>,
    /// Directories of the primary in which a name of a group is not kept.
    changing: HashSet<u32>,
}

/// A name of a group of the primary's.
struct Member {
    entry: EntryRef,
    /// The host's group, if it has a file there.
    group: Option<RelPath>,
    /// That file cannot be told from the primary's.
    is_same: bool,
}

impl Links {
    pub(super) fn collect(source: &Listing, destination: &Destination) -> Self {
        let mut groups: HashMap<RelPath, Vec<EntryRef>> = HashMap::new();
        for (entry, node) in entries(source) {
            if let Some(first) = node.kind.link() {
                groups.entry(first.clone()).or_default().push(entry);
            }
        }
        for (first, members) in &mut groups {
            if let Some(entry) = find(source, first) {
                members.insert(0, entry);
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        let nodes = destination.listed.values().flat_map(|dir| &dir.nodes);
        let shared = nodes.filter_map(|node| node.kind.link().cloned()).collect();
        Links { groups, shared, ..Links::default() }
    }

    /// Chooses the holder of each group; `theirs` gives the host's entry at the same path, `owner` the
    /// primary's file that keeps the host's file of that first name whatever is decided here.
    pub(super) fn decide<'n>(
        &mut self,
        source: &'n Listing,
        theirs: impl Fn(EntryRef) -> Option<&'n Node>,
        owner: impl Fn(&RelPath) -> Option<RelPath>,
    ) {
        for (first, members) in std::mem::take(&mut self.groups) {
            let members: Vec<Member> = members
                .into_iter()
                .map(|entry| {
                    let (_, node) = entry.of(source);
                    let theirs = theirs(entry).filter(|theirs| theirs.kind.same_type(&node.kind));
                    let group = |theirs: &Node| theirs.kind.link().cloned().unwrap_or_else(|| entry.path(source));
                    let is_same = theirs.is_some_and(|theirs| node.same_content(theirs));
                    Member { entry, group: theirs.map(group), is_same }
                })
                .collect();
            // All names of the host's file have its content: if that is not right under one, it is under none.
            let differing: HashSet<&RelPath> =
                members.iter().filter(|member| !member.is_same).filter_map(|member| member.group.as_ref()).collect();
            let keepable = |member: &&Member| {
                member.group.as_ref().is_some_and(|group| {
                    member.is_same
                        && !differing.contains(group)
                        && self.claims.get(group).is_none_or(|by| *by == first)
                        && owner(group).is_none_or(|owner| owner == first)
                })
            };
            let kept = members.iter().find(keepable);
            let Some(holder) = kept.or(members.first()) else { continue };
            let holder_group = kept.and_then(|member| member.group.as_ref());
            if let Some(group) = holder_group {
                self.claims.insert(group.clone(), first.clone());
            }
            for member in &members {
                let is_holder = member.entry == holder.entry;
                let keeps = holder_group.is_some() && member.group.as_ref() == holder_group;
                if is_holder || keeps {
                    self.kept.insert(member.entry, keeps);
                } else {
                    self.targets.insert(member.entry, holder.entry);
                }
                if !keeps {
                    self.changing.insert(member.entry.dir);
                }
            }
        }
    }

    /// The name that `entry` is to be linked to.
    pub(super) fn target_of(&self, entry: EntryRef) -> Option<EntryRef> {
        self.targets.get(&entry).copied()
    }

    /// Whether a name in the directory, by its position in the listing, is to become another file's.
    pub(super) fn change_in(&self, dir: u32) -> bool {
        self.changing.contains(&dir)
    }

    /// For a name in a group: whether it is kept. `None` for a file with one name.
    pub(super) fn kept(&self, entry: EntryRef) -> Option<bool> {
        self.kept.get(&entry).copied()
    }

    /// The primary's file (by first name) that keeps the host's file `theirs`, if that has other names.
    pub(super) fn keeper(&self, path: &RelPath, theirs: &Node) -> Option<&RelPath> {
        self.claims.get(theirs.kind.link().unwrap_or(path))
    }

    /// Whether the primary's file `path`, which has one name, may keep the host's file `theirs`.
    pub(super) fn claim(&mut self, path: &RelPath, theirs: &Node) -> bool {
        let group = theirs.kind.link().unwrap_or(path);
        if theirs.kind.link().is_none() && !self.shared.contains(group) {
            return true;
        }
        self.claims.entry(group.clone()).or_insert_with(|| path.clone()) == path
    }
}

fn entries(source: &Listing) -> impl Iterator<Item = (EntryRef, &Node)> {
    (0u32..).zip(&source.dirs).flat_map(|(dir, listing)| {
        (0u32..).zip(&listing.nodes).map(move |(node, value)| (EntryRef { dir, node }, value))
    })
}

pub(super) fn find(source: &Listing, path: &RelPath) -> Option<EntryRef> {
    let (parent, name) = path.split()?;
    let dir = source.dirs.binary_search_by(|dir| dir.path.cmp(&parent)).ok()?;
    let node = source.dirs[dir].nodes.binary_search_by(|node| (*node.name).cmp(name)).ok()?;
    Some(EntryRef { dir: u32::try_from(dir).ok()?, node: u32::try_from(node).ok()? })
}
