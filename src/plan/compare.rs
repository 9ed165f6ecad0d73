//! The comparison: two listings in, a [`Plan`] out.

use std::collections::{BTreeMap, HashSet};

use super::links::{Links, find};
use super::{Differences, DirectoryStep, EntryRef, FileStep, LinkStep, Plan, Removal, ReplacedDirectory, Step};
use crate::model::{
    Digest, DirListing, Expected, Fidelity, Kind, Listing, Meta, Node, OwnerFidelity, OwnerMap, Problem, ProblemKind,
    RelPath,
};

/// Below this a signature costs more than it saves: a small file is sent whole, compressed.
const MIN_DELTA_BYTES: u64 = 32 << 10;

/// What a receiver stages before it commits and frees what it replaces; see `receive`.
const BATCH_BYTES: u64 = 64 << 20;

/// What one host has, as far as it was asked.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// All its directories with their digests, in path order.
    pub directories: Vec<(RelPath, Digest)>,
    /// The directories that were listed entry by entry.
    pub listed: BTreeMap<RelPath, DirListing>,
    /// Number of its entries.
    pub entries: u64,
    /// Its numbers for the primary's owners.
    pub owners: OwnerMap,
    /// Directories of which nothing is known since they could not be read.
    pub unreadable: Vec<RelPath>,
}

/// How to compare.
#[derive(Clone, Copy)]
pub struct PlanOptions<'a> {
    /// Whether what the primary does not have is deleted.
    pub delete: bool,
    /// What the host can hold.
    pub fidelity: Fidelity,
    /// Whether a path (a directory: true) is left alone on both sides.
    pub excluded: &'a dyn Fn(&RelPath, bool) -> bool,
    /// Whether a directory can be renamed together with what is left alone in it.
    pub moves_along: &'a dyn Fn(&RelPath, &RelPath) -> bool,
}

/// What is known of one of the host's directories.
enum State<'a> {
    /// The host does not have it.
    Absent,
    /// It equals the primary's.
    Same,
    /// It was listed.
    Listed(&'a DirListing),
}

/// The host's directories that must be listed entry by entry: the root, those that differ from the
/// primary's and those that the primary does not have. `source` has the primary's directories with their
/// digests; the files `hidden` differ although the digests do not show it.
pub fn wanted_directories(
    source: &[(RelPath, Digest)],
    directories: &[(RelPath, Digest)],
    hidden: &[RelPath],
    excluded: &dyn Fn(&RelPath, bool) -> bool,
) -> Vec<RelPath> {
    let hidden: HashSet<RelPath> = hidden.iter().filter_map(|path| Some(path.split()?.0)).collect();
    let mut own = source.iter().peekable();
    let mut wanted: Vec<RelPath> = Vec::new();
    let mut excluded_top: Option<&RelPath> = None;
    for (path, digest) in directories {
        if excluded_top.is_some_and(|top| path.is_below(top)) {
            continue;
        }
        while own.next_if(|(dir, _)| dir < path).is_some() {}
        let same = own.peek().is_some_and(|(dir, own_digest)| dir == path && own_digest == digest);
        if path.is_root() || !same || hidden.contains(path) {
            if !path.is_root() && excluded(path, true) {
                excluded_top = Some(path);
            } else {
                wanted.push(path.clone());
            }
        }
    }
    wanted
}

/// Plans the changes that bring `destination` to `source`, whose directory digests are `digests`.
pub fn plan(source: &Listing, digests: &[Digest], destination: &Destination, options: &PlanOptions) -> Plan {
    let mut comparison = Comparison {
        source,
        digests,
        destination,
        options,
        links: Links::default(),
        touched: HashSet::new(),
        replaced_bytes: 0,
        sent_bytes: 0,
        largest_bytes: 0,
        plan: Plan::default(),
    };
    comparison.run();
    comparison.plan
}

struct Comparison<'a> {
    source: &'a Listing,
    digests: &'a [Digest],
    destination: &'a Destination,
    options: &'a PlanOptions<'a>,
    links: Links,
    /// Directories in which an entry is made or removed, which disturbs their times.
    touched: HashSet<u32>,
    replaced_bytes: u64,
    sent_bytes: u64,
    largest_bytes: u64,
    plan: Plan,
}

impl<'a> Comparison<'a> {
    fn run(&mut self) {
        self.links = Links::collect(self.source, self.destination);
        self.decide_link_groups();
        let mut directory_differences = BTreeMap::new();
        for dir in 0..self.source.dirs.len() {
            self.compare_directory(dir, &mut directory_differences);
        }
        self.plan.removals.reverse();
        self.expect_new_times();
        for dir in &self.touched {
            directory_differences.entry(*dir).or_default();
        }
        let steps = directory_differences.into_iter().rev();
        self.plan.directory_attributes = steps.map(|(dir, differences)| DirectoryStep { dir, differences }).collect();
        self.finish_totals();
    }

    /// A file that is kept by its digest gets its time before its other names go: they have that by then.
    fn expect_new_times(&mut self) {
        for removal in &mut self.plan.removals {
            let Expected::File { mtime, .. } = &mut removal.was else { continue };
            let Some((parent, name)) = removal.path.split() else { continue };
            let theirs = self.destination.listed.get(&parent).and_then(|listed| listed.find(name));
            let keeper = theirs.and_then(|theirs| self.links.keeper(&removal.path, theirs));
            if let Some(entry) = keeper.and_then(|keeper| find(self.source, keeper)) {
                *mtime = entry.of(self.source).1.meta.mtime;
            }
        }
    }

    fn finish_totals(&mut self) {
        let growth = self.sent_bytes.saturating_sub(self.replaced_bytes);
        let staged = self.sent_bytes.min(BATCH_BYTES.saturating_add(self.largest_bytes));
        self.plan.totals.need_bytes = if self.replaced_bytes == 0 { self.sent_bytes } else { growth + staged };
        self.plan.totals.host_entries = self.destination.entries;
    }

    fn compare_directory(&mut self, at: usize, directories: &mut BTreeMap<u32, Differences>) {
        let dir = &self.source.dirs[at];
        let dir_number = index(at);
        let state = self.state(at);
        let listed = match state {
            State::Same => return self.change_links(dir_number),
            State::Absent => None,
            State::Listed(listed) => Some(listed),
        };
        if let (true, Some(listed)) = (dir.path.is_root(), listed) {
            let differences = self.differences(&Kind::Directory, &dir.meta, &listed.meta);
            if differences.any() {
                self.plan.totals.attributes += 1;
                directories.insert(dir_number, differences);
            }
        }
        for (node_at, node) in dir.nodes.iter().enumerate() {
            let entry = EntryRef { dir: dir_number, node: index(node_at) };
            let theirs = listed.and_then(|listed| listed.find(&node.name));
            if node.kind.is_directory() {
                self.compare_child_directory(entry, node, theirs, directories);
            } else {
                self.compare_leaf(entry, node, theirs);
            }
        }
        if let (true, Some(listed)) = (self.options.delete, listed) {
            let gone = listed.nodes.iter().filter(|theirs| dir.find(&theirs.name).is_none());
            for theirs in gone {
                self.remove(&dir.path, theirs, Some(dir_number));
            }
        }
    }

    /// In a directory that is as it should be, what names of files are to be if those files differ elsewhere.
    fn change_links(&mut self, dir_number: u32) {
        if !self.links.change_in(dir_number) {
            return;
        }
        let nodes = &self.source.dirs[dir_number as usize].nodes;
        for (node_at, node) in nodes.iter().enumerate() {
            let entry = EntryRef { dir: dir_number, node: index(node_at) };
            if self.links.target_of(entry).is_some() || self.links.kept(entry) == Some(false) {
                self.compare_file(entry, node, Some(node), 0);
            }
        }
    }

    fn compare_child_directory(
        &mut self,
        entry: EntryRef,
        node: &Node,
        theirs: Option<&Node>,
        directories: &mut BTreeMap<u32, Differences>,
    ) {
        let path = entry.path(self.source);
        // A subtree that could not be read on this side is not in the listing and is left alone.
        let Ok(own) = self.source.dirs.binary_search_by(|dir| dir.path.cmp(&path)) else { return };
        let differences = match theirs {
            Some(theirs) if theirs.kind.is_directory() => self.differences(&node.kind, &node.meta, &theirs.meta),
            _ => {
                self.plan.totals.created += 1;
                self.plan.totals.overwritten += u64::from(theirs.is_some());
                self.touched.insert(entry.dir);
                let was = theirs.map(Expected::of).unwrap_or_default();
                self.plan.directories.push(Step { entry, differences: Differences::NEW, was });
                directories.insert(index(own), Differences::NEW);
                return;
            }
        };
        if differences.any() {
            self.plan.totals.attributes += 1;
            directories.insert(index(own), differences);
        }
    }

    fn compare_leaf(&mut self, entry: EntryRef, node: &Node, theirs: Option<&Node>) {
        if !self.options.fidelity.has(&node.kind) {
            // Whatever the host has in its place stays.
            return;
        }
        let mut replaced_files = 0;
        if theirs.is_some_and(|theirs| theirs.kind.is_directory()) {
            match self.replaceable_entries(&entry.path(self.source)) {
                Ok(entries) => replaced_files = entries,
                Err(problem) => return self.plan.problems.push(problem),
            }
            self.plan.replaced_directories.push(ReplacedDirectory { entry, entries: replaced_files });
            self.plan.totals.deleted += replaced_files;
            self.plan.totals.overwritten += replaced_files;
        }
        match (&node.kind, theirs) {
            (Kind::Symlink { .. } | Kind::Special(_), Some(theirs)) if theirs.kind == node.kind => {
                self.attributes(entry, node, theirs);
            }
            (Kind::Special(_), _) => self.make(entry, node, theirs, replaced_files, |plan, step| {
                plan.specials.push(step);
            }),
            (Kind::Symlink { .. }, _) => self.make(entry, node, theirs, replaced_files, |plan, step| {
                plan.symlinks.push(step);
            }),
            _ => self.compare_file(entry, node, theirs, replaced_files),
        }
    }

    fn compare_file(&mut self, entry: EntryRef, node: &Node, theirs: Option<&Node>, replaced_entries: u64) {
        if let Some(to) = self.links.target_of(entry) {
            return self
                .make(entry, node, theirs, replaced_entries, |plan, step| plan.links.push(LinkStep { step, to }));
        }
        if let Some(theirs) = theirs.filter(|theirs| theirs.kind.same_type(&node.kind)) {
            let keep = match self.links.kept(entry) {
                Some(keep) => keep,
                None => node.same_content(theirs) && self.claim(entry, theirs),
            };
            if keep {
                return self.attributes(entry, node, theirs);
            }
        }
        // What a host says of its files can be any number.
        let replaced = theirs.map_or(0, |theirs| round_up(theirs.kind.size_bytes()));
        self.replaced_bytes = self.replaced_bytes.saturating_add(replaced);
        let worth = |file: &&Node| file.kind.size_bytes() >= MIN_DELTA_BYTES;
        let delta = theirs.is_some_and(|theirs| worth(&theirs) && worth(&node));
        let bytes = round_up(node.kind.size_bytes());
        self.sent_bytes += bytes;
        self.largest_bytes = self.largest_bytes.max(bytes);
        self.plan.totals.content_bytes += node.kind.size_bytes();
        self.make(entry, node, theirs, replaced_entries, |plan, step| plan.files.push(FileStep { step, delta }));
    }

    /// Whether the file `entry`, which has one name, may keep the host's file in its place.
    fn claim(&mut self, entry: EntryRef, theirs: &Node) -> bool {
        let taken = theirs.kind.link().is_some_and(|first| self.owner_in_same_directory(first).is_some());
        !taken && self.links.claim(&entry.path(self.source), theirs)
    }

    /// If `first` lies in a directory that is as it should be, it keeps its file: for which of the
    /// primary's files, by first name.
    fn owner_in_same_directory(&self, first: &RelPath) -> Option<RelPath> {
        let (dir, name) = first.split()?;
        let node = self.source.dir(&dir)?.find(name)?;
        self.dir_is_same(&dir).then(|| node.kind.link().unwrap_or(first).clone())
    }

    /// Adds a step that makes or replaces an entry.
    fn make(
        &mut self,
        entry: EntryRef,
        node: &Node,
        theirs: Option<&Node>,
        replaced_entries: u64,
        add: impl FnOnce(&mut Plan, Step),
    ) {
        let differences = match theirs {
            Some(theirs) if theirs.kind.same_type(&node.kind) => {
                self.plan.totals.updated += 1;
                self.plan.totals.overwritten += 1;
                Differences {
                    content: content_differs(node, theirs),
                    size: node.kind.size_bytes() != theirs.kind.size_bytes(),
                    ..self.differences(&node.kind, &node.meta, &theirs.meta)
                }
            }
            _ => {
                self.plan.totals.created += 1;
                self.plan.totals.overwritten += u64::from(theirs.is_some() && replaced_entries == 0);
                Differences::NEW
            }
        };
        self.touched.insert(entry.dir);
        let was = theirs.map(Expected::of).unwrap_or_default();
        add(&mut self.plan, Step { entry, differences, was });
    }

    fn attributes(&mut self, entry: EntryRef, node: &Node, theirs: &Node) {
        let differences = self.differences(&node.kind, &node.meta, &theirs.meta);
        if differences.any() {
            self.plan.totals.attributes += 1;
            self.plan.attributes.push(Step { entry, differences, was: Expected::of(theirs) });
        }
    }

    fn differences(&self, kind: &Kind, own: &Meta, theirs: &Meta) -> Differences {
        let fidelity = self.options.fidelity;
        let owners = &self.destination.owners;
        let differs = |wanted: Option<&Option<u32>>, has: u32| matches!(wanted, Some(Some(id)) if *id != has);
        let owned = fidelity.owner != OwnerFidelity::Unset;
        let (acl, attributes) = own.attributes.differ(&theirs.attributes, fidelity.attributes, &owners.acl);
        Differences {
            time: fidelity.times.held(own.mtime) != fidelity.times.held(theirs.mtime),
            mode: fidelity.mode(kind, own.mode) != fidelity.mode(kind, theirs.mode),
            owner: owned && differs(owners.users.get(&own.uid), theirs.uid),
            group: owned && differs(owners.groups.get(&own.gid), theirs.gid),
            acl,
            attributes,
            ..Differences::default()
        }
    }

    /// Plans the removal of `theirs` in `parent` with all it holds; false if something in it stays.
    fn remove(&mut self, parent: &RelPath, theirs: &Node, touches: Option<u32>) -> bool {
        let Ok(path) = parent.join(&theirs.name) else { return false };
        let directory = theirs.kind.is_directory();
        if (self.options.excluded)(&path, directory) || self.destination.unreadable.contains(&path) {
            return false;
        }
        let at = self.plan.removals.len();
        let mut empty = true;
        if directory {
            // Its place is before what is in it: the list is turned round at the end.
            let Some(listing) = self.destination.listed.get(&path) else { return false };
            for child in &listing.nodes {
                empty &= self.remove(&path, child, None);
            }
        }
        if let (Some(dir), true) = (touches, empty || self.plan.removals.len() > at) {
            self.touched.insert(dir);
        }
        if directory && !empty && touches.is_some() {
            self.plan.kept_directories.push(path.clone());
        }
        if empty {
            self.plan.removals.insert(at, Removal { path, was: Expected::of(theirs) });
            self.plan.totals.deleted += 1;
            self.plan.totals.overwritten += 1;
        }
        empty
    }

    /// Number of entries that go when something else takes the place of the directory `path`.
    fn replaceable_entries(&self, path: &RelPath) -> Result<u64, Problem> {
        let refuse = |detail: &str| Problem::new(path.clone(), ProblemKind::Conflict, detail);
        let mut entries = 1;
        let directories = &self.destination.directories;
        let start = directories.partition_point(|(dir, _)| dir < path);
        for (dir, _) in directories[start..].iter().take_while(|(dir, _)| dir == path || dir.is_below(path)) {
            let Some(listing) = self.destination.listed.get(dir) else {
                return Err(refuse("a directory that holds excluded entries is in its place"));
            };
            entries += listing.nodes.len() as u64;
            let keeps = |node: &Node| {
                let child = dir.join(&node.name);
                child.map_or(true, |child| (self.options.excluded)(&child, node.kind.is_directory()))
            };
            if listing.nodes.iter().any(keeps) {
                return Err(refuse("a directory that holds excluded entries is in its place"));
            }
        }
        if self.destination.unreadable.iter().any(|dir| dir == path || dir.is_below(path)) {
            return Err(refuse("a directory that cannot be read is in its place"));
        }
        if entries > 1 && !self.options.delete {
            return Err(refuse(
                "a directory that is not empty is in its place, and nothing is deleted without --delete",
            ));
        }
        Ok(entries)
    }

    /// Decides, for each group of hard links, which name holds the content and which are linked to it.
    fn decide_link_groups(&mut self) {
        let mut links = std::mem::take(&mut self.links);
        let theirs = |entry: EntryRef| {
            let (dir, node) = entry.of(self.source);
            match self.state(entry.dir as usize) {
                State::Absent => None,
                State::Same => Some(node),
                State::Listed(listed) => listed.find(&dir.nodes[entry.node as usize].name),
            }
        };
        links.decide(self.source, theirs, |first| self.owner_in_same_directory(first));
        self.links = links;
    }

    fn state(&self, at: usize) -> State<'a> {
        let path = &self.source.dirs[at].path;
        if let Some(listed) = self.destination.listed.get(path) {
            return State::Listed(listed);
        }
        match self.destination.directories.binary_search_by(|(dir, _)| dir.cmp(path)) {
            Ok(theirs) if self.destination.directories[theirs].1 == self.digests[at] => State::Same,
            _ => State::Absent,
        }
    }

    fn dir_is_same(&self, path: &RelPath) -> bool {
        let found = self.source.dirs.binary_search_by(|dir| dir.path.cmp(path));
        found.is_ok_and(|at| matches!(self.state(at), State::Same))
    }
}

fn content_differs(own: &Node, theirs: &Node) -> bool {
    match (&own.kind, &theirs.kind) {
        (Kind::File { digest: Some(own), .. }, Kind::File { digest: Some(theirs), .. }) => own != theirs,
        (Kind::Symlink { target: own }, Kind::Symlink { target: theirs }) => own != theirs,
        (Kind::Special(own), Kind::Special(theirs)) => own != theirs,
        _ => false,
    }
}

/// Filesystems give out room in blocks.
fn round_up(bytes: u64) -> u64 {
    bytes.saturating_add(4095) / 4096 * 4096
}

/// Positions in a listing are 32 bits: a directory or a tree of four billion entries does not fit
/// into memory before it does not fit into this.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
