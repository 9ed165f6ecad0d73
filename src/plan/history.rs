//! From what happened after a point in history to a plan for a host that is at that point.
//!
//! Nothing of the host is looked at: the index knows what it had. Both sides are written down as
//! listings that hold only what changed, the host's with the moves of directories made already, and
//! compared as any two listings are.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::moves::Moved;
use super::{Basis, Destination, Differences, DirectoryStep, MoveStep, Plan, PlanOptions, ReuseStep, plan};
use crate::model::{
    Changes, Digest, DirListing, FileId, Inode, Kind, Listing, Meta, Name, Node, OwnerMap, OwnerNames, RelPath,
    Timestamp, Version,
};

/// Nodes by directory.
type Directories = BTreeMap<RelPath, Vec<Node>>;

/// A plan for the hosts at one point, and the listing that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPlan {
    /// What changed, as it is now.
    pub listing: Listing,
    /// The plan.
    pub plan: Plan,
}

/// Plans `changes` for hosts of the fidelity in `options`. `None` if moves of directories are so
/// entangled that comparing everything is the better way.
pub fn plan_changes(changes: &Changes, names: OwnerNames, options: &PlanOptions) -> Option<HistoryPlan> {
    let moved = Moved::plan(changes)?;
    if !options.delete && !moved.steps.is_empty() {
        // A move takes the old name away.
        return None;
    }
    let along = |step: &MoveStep| match step {
        MoveStep::Make { .. } => true,
        MoveStep::Rename { from, to } | MoveStep::Exchange { from, to } => (options.moves_along)(from, to),
    };
    if !moved.steps.iter().all(along) {
        // What is left alone on a host stays where it is.
        return None;
    }
    let (mut listing, inodes) = source(changes, &moved, names)?;
    let mut destination = destination(changes, &moved, &listing)?;
    distrust(&mut listing, &mut destination, changes, &moved);
    // Never equal to what is said of the destination's: each is compared entry by entry.
    let digests = vec![Digest([1; 32]); listing.dirs.len()];
    let mut plan = plan(&listing, &digests, &destination, options);
    plan.moves = moved.steps.clone();
    touch_parents(&mut plan, &listing, changes, &moved);
    if options.delete {
        reuse(&mut plan, &listing, changes, &moved, &inodes);
    }
    Some(HistoryPlan { listing, plan })
}

/// Moves change the times of the directories that they lead from and to, also where these were recorded after the move
/// and before it was noticed, and do not look changed.
fn touch_parents(plan: &mut Plan, listing: &Listing, changes: &Changes, moved: &Moved) {
    if plan.moves.is_empty() {
        return;
    }
    let directories = changes.now.iter().chain(&changes.then).filter(|version| version.own.is_some());
    let parents = directories.filter_map(|version| changes.places.contains_key(&version.dir).then_some(version.dir));
    let paths: HashSet<RelPath> = parents.filter_map(|own| moved.path_now(own)).collect();
    let known: HashSet<u32> = plan.directory_attributes.iter().map(|step| step.dir).collect();
    let at = |path: &RelPath| listing.dirs.binary_search_by(|dir| dir.path.cmp(path)).ok();
    let dirs = paths.iter().filter_map(at).filter_map(|dir| u32::try_from(dir).ok());
    let steps =
        dirs.filter(|dir| !known.contains(dir)).map(|dir| DirectoryStep { dir, differences: Differences::default() });
    plan.directory_attributes.extend(steps.collect::<Vec<_>>());
    // The deepest first: each changes the time of none that comes after it.
    plan.directory_attributes.sort_by_key(|step| std::cmp::Reverse(step.dir));
}

fn source(changes: &Changes, moved: &Moved, names: OwnerNames) -> Option<(Listing, HashMap<RelPath, Inode>)> {
    let mut directories = Directories::new();
    let mut inodes = HashMap::new();
    let mut metas: BTreeMap<RelPath, Meta> = BTreeMap::new();
    metas.insert(RelPath::root(), changes.places.get(&changes.root?)?.meta.clone());
    directories.entry(RelPath::root()).or_default();
    let mut links = Links::default();
    for version in changes.now.iter().chain(&changes.same) {
        let dir = moved.path_now(version.dir)?;
        let path = dir.join(&version.node.name).ok()?;
        links.note(version, &dir);
        metas.entry(dir.clone()).or_insert_with(|| changes.places[&version.dir].meta.clone());
        if version.own.is_some() {
            metas.insert(path.clone(), version.node.meta.clone());
            directories.entry(path.clone()).or_default();
        }
        inodes.insert(path, version.inode);
        directories.entry(dir).or_default().push(version.node.clone());
    }
    // What went from a directory goes, even if the directory does not look changed; so does a directory that moves.
    let left = changes.then.iter().filter(|version| version.own.is_some()).map(|version| &version.dir);
    for own in moved.slot_of.iter().map(|(own, _)| own).chain(left) {
        let Some(place) = changes.places.get(own) else { continue };
        let dir = moved.path_now(*own)?;
        metas.entry(dir.clone()).or_insert_with(|| place.meta.clone());
        directories.entry(dir).or_default();
    }
    links.mark(&mut directories);
    let dirs = directories.into_iter().map(|(path, nodes)| {
        let meta = metas.get(&path).cloned().unwrap_or_default();
        sorted(path, meta, nodes)
    });
    Some((Listing { dirs: dirs.collect(), names }, inodes))
}

fn destination(changes: &Changes, moved: &Moved, source: &Listing) -> Option<Destination> {
    let mut directories = Directories::new();
    let mut links = Links::default();
    let mut add = |version: &Version, dir: RelPath, name: &[u8]| {
        let node = Node { name: name.into(), ..version.node.clone() };
        let placed = Version { node, ..version.clone() };
        links.note(&placed, &dir);
        if version.own.is_some() {
            directories.entry(dir.join(name).ok()?).or_default();
        }
        directories.entry(dir).or_default().push(placed.node);
        Some(())
    };
    for (version, (dir, name)) in changes.then.iter().zip(&moved.slot_of) {
        add(version, moved.path_there(*dir)?, name)?;
    }
    for version in &changes.same {
        add(version, moved.path_now(version.dir)?, &version.node.name)?;
    }
    for own in &moved.made {
        let (dir, name) = moved.path_now(*own)?.split().map(|(dir, name)| (dir, name.to_vec()))?;
        // As it was made: everything about it is to be set.
        let meta = Meta { mode: 0o700, mtime: Timestamp { secs: i64::MIN, nanos: 0 }, ..Meta::default() };
        let node = Node { name: name.into(), kind: Kind::Directory, meta };
        directories.entry(dir.join(&node.name).ok()?).or_default();
        directories.entry(dir).or_default().push(node);
    }
    // Directories of the primary in which something changed are there, unless they are new.
    let owns = |versions: &[Version]| versions.iter().filter_map(|version| version.own).collect::<HashSet<_>>();
    let (now, then) = (owns(&changes.now), owns(&changes.then));
    for own in changes.places.keys().filter(|own| then.contains(own) || !now.contains(own)) {
        let path = moved.path_now(*own)?;
        if moved.path_there(*own).as_ref() == Some(&path) && source.dir(&path).is_some() {
            directories.entry(path).or_default();
        }
    }
    links.mark(&mut directories);
    let root_meta = changes.root_then.clone().or_else(|| Some(source.dirs.first()?.meta.clone()))?;
    let listed: BTreeMap<RelPath, DirListing> = directories
        .into_iter()
        .map(|(path, nodes)| {
            let meta = if path.is_root() { root_meta.clone() } else { Meta::default() };
            (path.clone(), sorted(path, meta, nodes))
        })
        .collect();
    let directories = listed.keys().map(|path| (path.clone(), Digest([0; 32]))).collect();
    let same = |id: &u32| (*id, Some(*id));
    let owners = OwnerMap {
        users: source.names.users.keys().map(same).collect(),
        groups: source.names.groups.keys().map(same).collect(),
        ..OwnerMap::default()
    };
    Some(Destination { directories, listed, entries: changes.entries_then, owners, unreadable: Vec::new() })
}

/// Where the size and the time that are recorded say nothing of the content on the host: under the name of a file
/// that changed places with a directory, since nothing of it was recorded there; and where something else was sent.
fn distrust(listing: &mut Listing, destination: &mut Destination, changes: &Changes, moved: &Moved) {
    let mark = |dir: Option<&mut DirListing>, name: &[u8], mark: u8| {
        let node = dir.and_then(|dir| dir.nodes.iter_mut().find(|node| *node.name == *name));
        if let Some(Node { kind: Kind::File { digest, .. }, .. }) = node {
            *digest = Some(Box::new(Digest([mark; 32])));
        }
    };
    for (version, (dir, name)) in changes.then.iter().zip(&moved.slot_of) {
        let in_place = (version.dir, &version.node.name) == (*dir, name);
        if version.own.is_some() || (in_place && !version.doubtful) {
            continue;
        }
        let Some(path) = moved.path_there(*dir) else { continue };
        mark(destination.listed.get_mut(&path), name, 0);
        mark(listing.dirs.iter_mut().find(|dir| dir.path == path), name, 1);
    }
}

fn sorted(path: RelPath, meta: Meta, mut nodes: Vec<Node>) -> DirListing {
    nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    nodes.dedup_by(|a, b| a.name == b.name);
    DirListing { path, meta, nodes }
}

/// Names of one file: the directory, and the name in it.
type Names = Vec<(RelPath, Name)>;

/// Names of files with several names: of each that changed all, since its other names come with the changes.
#[derive(Default)]
struct Links(HashMap<FileId, Names>);

impl Links {
    fn note(&mut self, version: &Version, dir: &RelPath) {
        if version.inode.shared {
            let names = self.0.entry(FileId::of(&version.node, &version.inode)).or_default();
            names.push((dir.clone(), version.node.name.clone()));
        }
    }

    /// Marks all but the first names as links to those.
    fn mark(self, directories: &mut Directories) {
        for mut names in self.0.into_values() {
            names.sort();
            let Some(((first_dir, first), others)) = names.split_first() else { continue };
            let Ok(first) = first_dir.join(first) else { continue };
            for (dir, name) in others {
                let node = directories.get_mut(dir).and_then(|nodes| nodes.iter_mut().find(|node| node.name == *name));
                if let Some(Node { kind: Kind::File { link, .. }, .. }) = node {
                    *link = Some(Box::new(first.clone()));
                }
            }
        }
    }
}

/// What tells a file that was renamed.
fn content(node: &Node, inode: &Inode) -> Option<FileId> {
    matches!(node.kind, Kind::File { digest: None, .. }).then(|| FileId::of(node, inode))
}

/// A file of the host's whose names are all known.
struct Old {
    names: Vec<RelPath>,
    digest: Option<Digest>,
}

/// The files that the host has and of which something changed.
fn olds(changes: &Changes, moved: &Moved) -> HashMap<FileId, Old> {
    let then = changes.then.iter().zip(&moved.slot_of).map(|(version, (dir, name))| {
        let path = moved.path_there(*dir).and_then(|dir| dir.join(name).ok());
        (version, path)
    });
    let same = changes.same.iter().map(|version| {
        let path = moved.path_now(version.dir).and_then(|dir| dir.join(&version.node.name).ok());
        (version, path)
    });
    let mut olds: HashMap<FileId, Old> = HashMap::new();
    for (version, path) in then.chain(same) {
        if let (Some(id), Some(path)) = (content(&version.node, &version.inode), path) {
            let old = olds.entry(id).or_insert_with(|| Old { names: Vec::new(), digest: None });
            old.names.push(path);
            old.digest = old.digest.or(version.digest);
        }
    }
    olds
}

/// Takes from the files to be sent those that the host has under another name.
fn reuse(plan: &mut Plan, listing: &Listing, changes: &Changes, moved: &Moved, inodes: &HashMap<RelPath, Inode>) {
    let mut olds = olds(changes, moved);
    let going = going(plan, listing);
    // What keeps a name would be one with the new file, which it is not.
    olds.retain(|_, old| old.names.iter().all(|name| going.contains(name)));
    let mut saved = 0;
    let reuses = &mut plan.reuses;
    plan.files.retain(|file| {
        let path = file.step.entry.path(listing);
        let (_, node) = file.step.entry.of(listing);
        let id = inodes.get(&path).and_then(|inode| content(node, inode));
        // Once: two files that are recorded apart are to be two.
        let found = id.and_then(|id| olds.remove(&id)).filter(|old| !old.names.contains(&path));
        let Some((from, digest)) = found.and_then(|old| Some((old.names.into_iter().next()?, old.digest?))) else {
            return true;
        };
        let size_bytes = node.kind.size_bytes();
        saved += size_bytes;
        let content = Basis { size_bytes, mtime: node.meta.mtime };
        reuses.push(ReuseStep { step: file.step, from, content, digest });
        false
    });
    plan.totals.content_bytes -= saved;
    if plan.files.is_empty() {
        plan.totals.need_bytes = 0;
    }
}

/// The names on the host that will not be names of what they are names of now. Any other stays beside the new
/// name: another file of the same content may have taken it over, and the two are not one.
fn going(plan: &Plan, listing: &Listing) -> HashSet<RelPath> {
    let files = plan.files.iter().map(|file| file.step);
    let replaced =
        files.chain(plan.links.iter().map(|link| link.step)).chain(plan.symlinks.iter().chain(&plan.specials).copied());
    let replaced = replaced.chain(plan.directories.iter().copied()).map(|step| step.entry.path(listing));
    replaced.chain(plan.removals.iter().map(|removal| removal.path.clone())).collect()
}

/// Paths that differ at the host from what it was taken to have.
pub fn drifted(plan: &Plan, listing: &Listing, changed: &dyn Fn(&RelPath) -> bool) -> Vec<RelPath> {
    let steps = plan.directories.iter().copied().chain(plan.files.iter().map(|file| file.step));
    let steps = steps.chain(plan.links.iter().map(|link| link.step)).chain(plan.symlinks.iter().copied());
    let steps = steps.chain(plan.specials.iter().copied()).chain(plan.attributes.iter().copied());
    let paths = steps.map(|step| step.entry.path(listing)).chain(plan.removals.iter().map(|one| one.path.clone()));
    paths.filter(|path| !changed(path)).collect()
}
