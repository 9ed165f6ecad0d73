//! Plans from history carried out on a model of a host: what an index says of two trees, and the host that had
//! the first of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::tests::{File, Model, meta};
use super::*;
use crate::model::{Changes, DirectoryId, Fidelity, Inode, Kind, Meta, OwnerNames, Place, Version};

const EVERYTHING: PlanOptions =
    PlanOptions { delete: true, fidelity: Fidelity::FULL, excluded: &|_, _| false, moves_along: &|_, _| true };

const ROOT: DirectoryId = DirectoryId(1);
const LEAVES: [&str; 4] = ["a", "b", "c", "x"];

/// Directories by number, with the one that holds each and its name there.
type Directories = BTreeMap<DirectoryId, (DirectoryId, &'static str)>;

/// Where the directories 2 and 3 may be found, and what may have taken the place of one.
fn placements() -> Vec<Directories> {
    let of = |places: &[(i64, i64, &'static str)]| {
        places.iter().map(|(own, dir, name)| (DirectoryId(*own), (DirectoryId(*dir), *name))).collect()
    };
    vec![
        of(&[(2, 1, "d"), (3, 1, "e")]),
        of(&[(2, 1, "e"), (3, 1, "d")]),
        of(&[(2, 1, "f"), (3, 1, "e")]),
        of(&[(2, 1, "d"), (3, 2, "e")]),
        of(&[(2, 3, "d"), (3, 1, "f")]),
        of(&[(2, 1, "d")]),
        of(&[(3, 1, "e"), (4, 1, "d")]),
        of(&[(2, 4, "d"), (3, 4, "e"), (4, 1, "d")]),
    ]
}

/// A tree as an index has it: which inode each name in a directory is, and what is in that.
#[derive(Clone, Debug)]
struct Recorded {
    directories: Directories,
    names: BTreeMap<(DirectoryId, &'static str), usize>,
    files: Vec<File>,
}

fn recorded() -> impl Strategy<Value = Recorded> {
    let names = proptest::collection::vec(proptest::option::of(0usize..5), 4 * LEAVES.len());
    let files = proptest::collection::vec((1u64..3, 0i64..2, 0u32..2), 5);
    let placement = proptest::sample::select(placements());
    (placement, names, files).prop_map(|(directories, chosen, files)| {
        let slots = (1..5).flat_map(|dir| LEAVES.map(|name| (DirectoryId(dir), name)));
        let names = slots.zip(chosen).filter_map(|(slot, file)| Some((slot, file?)));
        let names = names.filter(|((dir, _), _)| *dir == ROOT || directories.contains_key(dir)).collect();
        Recorded { directories, names, files }
    })
}

/// A tree, and what became of it: most of it is as it was.
fn history() -> impl Strategy<Value = (Recorded, Recorded)> {
    let fresh = || proptest::collection::vec(any::<bool>(), 4 * LEAVES.len() + 5);
    (recorded(), recorded(), fresh(), fresh()).prop_map(|(mut before, other, fresh, rare)| {
        before.directories = placements().swap_remove(0);
        before.names.retain(|(dir, _), _| *dir != DirectoryId(4));
        let mut after = Recorded { directories: other.directories.clone(), ..before.clone() };
        for (at, slot) in (1..5).flat_map(|dir| LEAVES.map(|name| (DirectoryId(dir), name))).enumerate() {
            if fresh[at] && rare[at] {
                after.names.remove(&slot);
                after.names.extend(other.names.get(&slot).map(|file| (slot, *file)));
            }
        }
        for (at, file) in after.files.iter_mut().enumerate() {
            if fresh[4 * LEAVES.len() + at] {
                *file = other.files[at];
            }
        }
        after.names.retain(|(dir, _), _| *dir == ROOT || after.directories.contains_key(dir));
        (before, after)
    })
}

impl Recorded {
    fn path(&self, dir: DirectoryId) -> RelPath {
        match self.directories.get(&dir) {
            None => RelPath::root(),
            Some((parent, name)) => self.path(*parent).join(name.as_bytes()).unwrap(),
        }
    }

    /// Makes `slot` a name of `file`, or of nothing.
    fn name(&mut self, slot: (DirectoryId, &'static str), file: Option<usize>) {
        self.names.remove(&slot);
        self.names.extend(file.map(|file| (slot, file)));
    }

    fn model(&self) -> Model {
        let path = |dir: DirectoryId, name: &str| self.path(dir).join(name.as_bytes()).unwrap();
        let names = self.names.iter().map(|((dir, name), file)| (path(*dir, name), *file)).collect();
        Model { names, files: self.files.clone() }
    }

    /// The rows of an index.
    fn versions(&self) -> BTreeMap<(DirectoryId, &'static str), Version> {
        let files = self.names.iter().map(|((dir, name), file)| {
            let shared = self.names.values().filter(|other| *other == file).count() > 1;
            let state = &self.files[*file];
            let node = Node { name: name.as_bytes().into(), kind: Kind::file(state.0), meta: meta(state) };
            let inode = Inode { dev: 1, ino: *file as u64, shared, ..Inode::default() };
            ((*dir, *name), Version { dir: *dir, node, inode, own: None, digest: None, doubtful: false })
        });
        let directories = self.directories.iter().map(|(own, (dir, name))| {
            let node = Node { name: name.as_bytes().into(), kind: Kind::Directory, meta: Meta::default() };
            let inode = Inode { dev: 1, ino: own.0.cast_unsigned() + 100, ..Inode::default() };
            ((*dir, *name), Version { dir: *dir, node, inode, own: Some(*own), digest: None, doubtful: false })
        });
        files.chain(directories).collect()
    }
}

/// What an index says of both.
fn changes(before: &Recorded, after: &Recorded) -> Changes {
    let (old, new) = (before.versions(), after.versions());
    let now: Vec<Version> =
        new.iter().filter(|(slot, one)| old.get(*slot) != Some(one)).map(|(_, one)| one.clone()).collect();
    let then = old.iter().filter(|(slot, one)| new.get(*slot) != Some(one)).map(|(_, one)| one.clone());
    let content = |one: &Version| Digest([u8::try_from(one.inode.ino).unwrap(); 32]);
    let then: Vec<Version> = then.map(|one| Version { digest: Some(content(&one)), ..one }).collect();
    let inodes: HashSet<u64> =
        now.iter().chain(&then).filter(|one| one.inode.shared).map(|one| one.inode.ino).collect();
    let same = new.iter().filter(|(slot, one)| old.get(*slot) == Some(one)).map(|(_, one)| one);
    let same = same.filter(|one| one.inode.shared && inodes.contains(&one.inode.ino)).cloned().collect();
    let place = |own: &DirectoryId| {
        let (parent, name) = after.directories[own];
        (*own, Place { parent: Some(parent), name: name.as_bytes().into(), meta: Meta::default() })
    };
    let mut places: BTreeMap<_, _> = after.directories.keys().map(place).collect();
    places.insert(ROOT, Place { parent: None, name: Default::default(), meta: Meta::default() });
    let entries_then = old.len() as u64;
    Changes { now, then, same, places, root_then: None, root: Some(ROOT), entries_then }
}

fn plan_from(before: &Recorded, after: &Recorded) -> Option<HistoryPlan> {
    let options = EVERYTHING;
    plan_changes(&changes(before, after), OwnerNames::default(), &options)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_plan_from_history_brings_a_host_to_the_tree_of_now_with_its_hard_links((before, after) in history()) {
        let Some(HistoryPlan { listing, plan }) = plan_from(&before, &after) else { return Ok(()) };
        let mut host = before.model();
        host.carry_out(&plan, &listing);
        host.assert_is(&after.model());
    }
}

/// A file with the names `a`, `d/b` and `e/c`, and one with one name.
fn linked() -> Recorded {
    let names = [((ROOT, "a"), 0), ((DirectoryId(2), "b"), 0), ((DirectoryId(3), "c"), 0), ((ROOT, "x"), 1)];
    Recorded {
        directories: placements().swap_remove(0),
        names: names.into(),
        files: vec![(1, 0, 0), (2, 0, 0), (1, 1, 0)],
    }
}

/// What the plan does, after `change`: files sent, files reused, links made, attributes set, removals, moves.
fn steps(change: impl FnOnce(&mut Recorded)) -> [usize; 6] {
    let before = linked();
    let mut after = before.clone();
    change(&mut after);
    let HistoryPlan { listing, plan } = plan_from(&before, &after).expect("it is planned from history");
    let mut host = before.model();
    host.carry_out(&plan, &listing);
    host.assert_is(&after.model());
    let Plan { files, reuses, links, attributes, removals, moves, .. } = plan;
    [files.len(), reuses.len(), links.len(), attributes.len(), removals.len(), moves.len()]
}

#[test]
fn what_happens_to_linked_files_costs_what_changed() {
    let (root, d, e) = (ROOT, DirectoryId(2), DirectoryId(3));
    assert_eq!(steps(|tree| tree.files[0].2 = 7), [0, 0, 0, 3, 0, 0], "chmod");
    assert_eq!(steps(|tree| tree.files[0].1 = 7), [1, 0, 2, 0, 0, 0], "another content");
    assert_eq!(steps(|tree| tree.name((e, "x"), Some(0))), [0, 0, 1, 0, 0, 0], "one name more");
    assert_eq!(steps(|tree| tree.name((e, "a"), Some(1))), [0, 0, 1, 0, 0, 0], "a second name");
    assert_eq!(steps(|tree| tree.name((root, "a"), None)), [0, 0, 0, 0, 1, 0], "the first name goes");
    let renamed = |tree: &mut Recorded| {
        tree.name((d, "b"), None);
        tree.name((root, "b"), Some(0));
    };
    assert_eq!(steps(renamed), [0, 0, 1, 0, 1, 0], "one name is renamed");
    let all_renamed = |tree: &mut Recorded| {
        tree.names = [((root, "b"), 0), ((d, "c"), 0), ((e, "a"), 0), ((root, "x"), 1)].into();
    };
    assert_eq!(steps(all_renamed), [0, 1, 2, 0, 3, 0], "all names are renamed");
    assert_eq!(steps(|tree| tree.name((d, "b"), Some(2))), [1, 0, 0, 0, 0, 0], "a link is broken");
    assert_eq!(steps(|tree| tree.name((root, "x"), Some(0))), [0, 0, 1, 0, 0, 0], "a link over a file");
    let moved = |tree: &mut Recorded| tree.directories = placements().swap_remove(2);
    assert_eq!(steps(moved), [0, 0, 0, 0, 0, 1], "a directory with a name in it is renamed");
}

#[test]
fn a_hidden_change_under_one_name_is_one_of_all() {
    let before = linked();
    let mut after = before.clone();
    after.names.remove(&(ROOT, "a"));
    let mut changes = changes(&before, &after);
    // The other names are as they were: what is known of one of them says that the content is not.
    let mut hidden = changes.same.pop().unwrap();
    for (versions, byte) in [(&mut changes.now, 1), (&mut changes.then, 0)] {
        if let Kind::File { digest, .. } = &mut hidden.node.kind {
            *digest = Some(Box::new(Digest([byte; 32])));
        }
        versions.push(hidden.clone());
    }
    let options = EVERYTHING;
    let HistoryPlan { listing, plan } = plan_changes(&changes, OwnerNames::default(), &options).unwrap();
    let sent: BTreeSet<_> = plan.files.iter().map(|file| file.step.entry.path(&listing).to_string()).collect();
    let linked: BTreeSet<_> = plan.links.iter().map(|link| link.step.entry.path(&listing).to_string()).collect();
    assert_eq!((sent, linked), (BTreeSet::from(["d/b".to_owned()]), BTreeSet::from(["e/c".to_owned()])));
}

#[test]
fn where_something_else_was_sent_the_content_is_sent_again() {
    let before = linked();
    let mut after = before.clone();
    // `x` is a copy with the same time in the place of what was there, in this directory or in a new one.
    after.files.push(after.files[1]);
    after.name((ROOT, "x"), Some(3));
    let options = EVERYTHING;
    let sent = |doubtful| {
        let mut changes = changes(&before, &after);
        changes.then.iter_mut().for_each(|version| version.doubtful = doubtful);
        plan_changes(&changes, OwnerNames::default(), &options).unwrap().plan.files.len()
    };
    assert_eq!((sent(false), sent(true)), (0, 1));
}
