//! Plans carried out on a model of a host: a map of paths to files.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Digest, Fidelity, Kind, Meta, OwnerMap};

const DIRECTORIES: [&str; 3] = ["", "d", "e"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What a file is: size, time and mode.
pub(super) type File = (u64, i64, u32);

/// A tree: which file each path is a name of.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) names: BTreeMap<RelPath, usize>,
    pub(super) files: Vec<File>,
}

fn leaf(directory: &str, name: &str) -> RelPath {
    let directory = RelPath::new_or_root(directory.as_bytes()).unwrap();
    // `d` is a directory in the root, and a file elsewhere.
    directory.join(if directory.is_root() && name == "d" { b"x" } else { name.as_bytes() }).unwrap()
}

fn model() -> impl Strategy<Value = Model> {
    let files = proptest::collection::vec((1u64..3, 0i64..2, 0u32..2), 5);
    let names = proptest::collection::vec(proptest::option::of(0usize..5), DIRECTORIES.len() * NAMES.len());
    (files, names).prop_map(|(files, chosen)| {
        let paths = DIRECTORIES.iter().flat_map(|directory| NAMES.iter().map(|name| leaf(directory, name)));
        let names = paths.zip(chosen).filter_map(|(path, file)| Some((path, file?))).collect();
        Model { names, files }
    })
}

pub(super) fn meta(file: &File) -> Meta {
    Meta { mode: file.2, mtime: Timestamp { secs: file.1, nanos: 0 }, ..Meta::default() }
}

impl Model {
    /// As a scan lists it.
    fn listing(&self) -> Listing {
        let mut listing = Listing::default();
        let mut first: BTreeMap<usize, RelPath> = BTreeMap::new();
        for directory in DIRECTORIES {
            let path = RelPath::new_or_root(directory.as_bytes()).unwrap();
            let mut nodes = Vec::new();
            if path.is_root() {
                let subdirectories = DIRECTORIES.iter().skip(1);
                nodes.extend(subdirectories.map(|name| Node {
                    name: name.as_bytes().into(),
                    kind: Kind::Directory,
                    meta: Meta::default(),
                }));
            }
            for (name, file) in self.names.iter().filter(|(name, _)| name.split().unwrap().0 == path) {
                let link = first.get(file).cloned().map(Box::new);
                first.entry(*file).or_insert_with(|| name.clone());
                let size_bytes = self.files[*file].0;
                let kind = Kind::File { size_bytes, link, digest: None };
                nodes.push(Node { name: name.name().into(), kind, meta: meta(&self.files[*file]) });
            }
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            listing.dirs.push(DirListing { path, meta: Meta::default(), nodes });
        }
        listing
    }

    fn file(&self, path: &RelPath) -> File {
        self.files[self.names[path]]
    }

    /// What a receiver finds at `path`.
    fn found(&self, path: &RelPath) -> Expected {
        let file = self.names.get(path).map(|file| self.files[*file]);
        file.map_or(Expected::Nothing, |file| Expected::File { size_bytes: file.0, mtime: meta(&file).mtime })
    }

    fn assert_found(&self, path: &RelPath, was: Expected) {
        // Directories are not in the model.
        if was != Expected::Directory {
            assert_eq!(self.found(path), was, "{path}");
        }
    }

    fn rename(&mut self, moves: &[(&RelPath, &RelPath)]) {
        let rebased = |path: &RelPath| {
            let (from, to) = moves.iter().find(|(from, _)| path == *from || path.is_below(from))?;
            let rest = &path.as_bytes()[from.as_bytes().len()..];
            RelPath::new(&[to.as_bytes(), rest].concat()).ok()
        };
        let names = std::mem::take(&mut self.names);
        self.names = names.into_iter().map(|(path, file)| (rebased(&path).unwrap_or(path), file)).collect();
    }

    /// Does what a receiver does, in its order, and looks as it does.
    pub(super) fn carry_out(&mut self, plan: &Plan, source: &Listing) {
        let take = |node: &Node| (node.kind.size_bytes(), node.meta.mtime.secs, node.meta.mode);
        for step in &plan.moves {
            match step {
                MoveStep::Make { .. } => {}
                MoveStep::Rename { from, to } => self.rename(&[(from, to)]),
                MoveStep::Exchange { from, to } => self.rename(&[(from, to), (to, from)]),
            }
        }
        // All are staged before any is placed.
        let staged = plan.reuses.iter().map(|reuse| {
            let Basis { size_bytes, mtime } = reuse.content;
            self.assert_found(&reuse.from, Expected::File { size_bytes, mtime });
            self.names[&reuse.from]
        });
        let staged: Vec<usize> = staged.collect();
        for (reuse, file) in plan.reuses.iter().zip(staged) {
            let path = reuse.step.entry.path(source);
            self.assert_found(&path, reuse.step.was);
            self.names.insert(path, file);
            self.files[file] = take(reuse.step.entry.of(source).1);
        }
        for step in plan.files.iter() {
            let path = step.step.entry.path(source);
            self.assert_found(&path, step.step.was);
            self.files.push(take(step.step.entry.of(source).1));
            self.names.insert(path, self.files.len() - 1);
        }
        for link in &plan.links {
            let path = link.step.entry.path(source);
            self.assert_found(&path, link.step.was);
            let file = self.names[&link.to.path(source)];
            self.names.insert(path, file);
        }
        for step in &plan.attributes {
            let path = step.entry.path(source);
            let (_, time, mode) = take(step.entry.of(source).1);
            let file = self.names[&path];
            if self.files[file].1 != time {
                self.assert_found(&path, step.was);
            }
            self.files[file] = (self.files[file].0, time, mode);
        }
        for removal in plan.removals.iter().filter(|removal| !removal.is_directory()) {
            self.assert_found(&removal.path, removal.was);
            assert!(self.names.remove(&removal.path).is_some(), "{} was not there", removal.path);
        }
        for removal in plan.removals.iter().filter(|removal| removal.is_directory()) {
            assert!(!self.names.keys().any(|path| path.is_below(&removal.path)), "{} is not empty", removal.path);
        }
    }

    pub(super) fn assert_is(&self, other: &Model) {
        assert_eq!(self.names.keys().collect::<Vec<_>>(), other.names.keys().collect::<Vec<_>>());
        for (path, file) in &self.names {
            assert_eq!(self.file(path), other.file(path), "{path}");
            for (second, second_file) in &self.names {
                let linked = other.names[path] == other.names[second];
                assert_eq!(file == second_file, linked, "{path} and {second}");
            }
        }
    }
}

/// Asks as a push does: only the directories that differ are listed.
fn plan_for(source: &Listing, host: &Listing) -> Plan {
    let (digests, _) = source.digests(Fidelity::FULL);
    let (theirs, _) = host.digests(Fidelity::FULL);
    let directories: Vec<(RelPath, Digest)> =
        host.dirs.iter().zip(theirs).map(|(dir, digest)| (dir.path.clone(), digest)).collect();
    let excluded = |_: &RelPath, _: bool| false;
    let own: Vec<_> = source.dirs.iter().map(|dir| dir.path.clone()).zip(digests.iter().copied()).collect();
    let wanted = wanted_directories(&own, &directories, &[], &excluded);
    let listed = wanted.iter().map(|path| (path.clone(), host.dir(path).unwrap().clone())).collect();
    let destination = Destination {
        directories,
        listed,
        entries: host.entry_count(),
        owners: OwnerMap::default(),
        unreadable: vec![],
    };
    let options =
        PlanOptions { delete: true, fidelity: Fidelity::FULL, excluded: &excluded, moves_along: &|_, _| true };
    plan(source, &digests, &destination, &options)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_plan_brings_any_tree_to_any_other_with_its_hard_links(source in model(), mut host in model()) {
        let listing = source.listing();
        let plan = plan_for(&listing, &host.listing());
        host.carry_out(&plan, &listing);
        host.assert_is(&source);
        prop_assert!(plan_for(&listing, &host.listing()).is_empty(), "nothing is left to do");
    }
}

#[test]
fn limits_allow_what_they_say() {
    use guard::DeleteLimit;
    assert_eq!(DeleteLimit::Default.allowed(10), 100);
    assert_eq!(DeleteLimit::Default.allowed(1000), 250);
    assert_eq!(DeleteLimit::Percent(10).allowed(5), 0);
    assert_eq!(DeleteLimit::Percent(100).allowed(u64::MAX), u64::MAX);
    assert_eq!(DeleteLimit::Count(3).allowed(u64::MAX), 3);
}

/// The node at `path`.
fn node_at<'l>(listing: &'l mut Listing, path: &str) -> &'l mut Node {
    let (dir, name) = RelPath::new(path.as_bytes()).unwrap().split().map(|(dir, name)| (dir, name.to_vec())).unwrap();
    let dir = listing.dirs.iter_mut().find(|listing| listing.path == dir).unwrap();
    dir.nodes.iter_mut().find(|node| *node.name == *name).unwrap()
}

fn set_digest(listing: &mut Listing, path: &str, byte: u8) {
    if let Kind::File { digest, .. } = &mut node_at(listing, path).kind {
        *digest = Some(Box::new(Digest([byte; 32])));
    }
}

/// A file with the names `a`, `d/b` and `e/c`.
fn linked() -> Listing {
    let names = [("", "a"), ("d", "b"), ("e", "c")].map(|(directory, name)| (leaf(directory, name), 0));
    Model { names: names.into(), files: vec![(5, 1, 0o644)] }.listing()
}

#[test]
fn a_file_whose_names_differ_is_sent_and_no_name_gets_the_time_alone() {
    let (mut source, host) = (linked(), linked());
    node_at(&mut source, "d/b").meta.mtime.secs = 9;
    let plan = plan_for(&source, &host);
    let paths = |steps: Vec<Step>| steps.iter().map(|step| step.entry.path(&source).to_string()).collect::<Vec<_>>();
    assert_eq!(paths(plan.files.iter().map(|file| file.step).collect()), ["a"]);
    assert_eq!(paths(plan.links.iter().map(|link| link.step).collect()), ["d/b", "e/c"]);
    assert!(plan.attributes.is_empty());
}

#[test]
fn another_content_of_equal_size_and_time_is_found_under_any_name() {
    for other in [2, 1] {
        let (mut source, mut host) = (linked(), linked());
        for path in ["a", "d/b", "e/c"] {
            set_digest(&mut source, path, 1);
            set_digest(&mut host, path, other);
        }
        let plan = plan_for(&source, &host);
        let expected = if other == 1 { (0, 0) } else { (1, 2) };
        assert_eq!((plan.files.len(), plan.links.len()), expected);
    }
}

#[test]
fn what_goes_beside_a_kept_name_is_expected_with_the_time_that_it_has_by_then() {
    let (source, mut host) = (linked(), linked());
    let mut source = source;
    source.dirs[2].nodes.clear();
    for path in ["a", "d/b"] {
        set_digest(&mut source, path, 1);
        node_at(&mut source, path).meta.mtime.secs = 9;
    }
    for path in ["a", "d/b", "e/c"] {
        set_digest(&mut host, path, 1);
    }
    let plan = plan_for(&source, &host);
    assert_eq!((plan.files.len(), plan.attributes.len()), (0, 2));
    let was = Expected::File { size_bytes: 5, mtime: Timestamp { secs: 9, nanos: 0 } };
    let path = RelPath::new(b"e/c").unwrap();
    assert_eq!(plan.removals, [Removal { path, was }]);
}
