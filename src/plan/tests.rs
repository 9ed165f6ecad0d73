//! Plans carried out on a model of a host: a map of paths to files.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Digest, Fidelity, Kind, Meta, OwnerMap};

const DIRECTORIES: [&str; 3] = ["", "d", "e"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What a file is: size, time and mode.
type File = (u64, i64, u32);

/// A tree: which file each path is a name of.
#[derive(Clone, Debug, Default)]
struct Model {
    names: BTreeMap<RelPath, usize>,
    files: Vec<File>,
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

fn meta(file: &File) -> Meta {
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

    /// Does what a receiver does.
    fn carry_out(&mut self, plan: &Plan, source: &Listing) {
        let take = |node: &Node| (node.kind.size_bytes(), node.meta.mtime.secs, node.meta.mode);
        for step in &plan.files {
            self.files.push(take(step.step.entry.of(source).1));
            self.names.insert(step.step.entry.path(source), self.files.len() - 1);
        }
        for link in &plan.links {
            let file = self.names[&link.to.path(source)];
            self.names.insert(link.step.entry.path(source), file);
        }
        for step in &plan.attributes {
            let file = self.names[&step.entry.path(source)];
            let (_, time, mode) = take(step.entry.of(source).1);
            self.files[file] = (self.files[file].0, time, mode);
        }
        for removal in &plan.removals {
            assert!(self.names.remove(&removal.path).is_some(), "{} was not there", removal.path);
        }
    }

    fn assert_is(&self, other: &Model) {
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
