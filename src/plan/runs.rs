//! Files to be sent, kept short: a first sync names every file of the source, and says the same of each.

use super::{Basis, Differences, EntryRef, FileStep, Step};
use crate::model::Expected;

/// Something about an entry that is most often the same thing.
pub trait Uniform: Copy + PartialEq {
    /// The entry.
    fn entry(&self) -> EntryRef;
    /// What is most often said of an entry.
    fn usual(entry: EntryRef) -> Self;
}

impl Uniform for FileStep {
    fn entry(&self) -> EntryRef {
        self.step.entry
    }

    fn usual(entry: EntryRef) -> Self {
        FileStep { step: Step { entry, differences: Differences::NEW, was: Expected::Nothing }, delta: false }
    }
}

/// A file's content, as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// Which.
    pub entry: EntryRef,
    /// The receivers' file that a delta may refer to.
    pub basis: Option<Basis>,
}

impl Uniform for Item {
    fn entry(&self) -> EntryRef {
        self.entry
    }

    fn usual(entry: EntryRef) -> Self {
        Item { entry, basis: None }
    }
}

/// A list, in which neighbours in a directory of which the usual is said take no room of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs<T> {
    parts: Vec<Part<T>>,
    len: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<T> {
    One(Box<T>),
    /// The usual, of so many nodes of a directory.
    Usual {
        first: EntryRef,
        count: u32,
    },
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Runs { parts: Vec::new(), len: 0 }
    }
}

impl<T: Uniform> Runs<T> {
    /// Adds one at the end.
    pub fn push(&mut self, one: T) {
        self.len += 1;
        let entry = one.entry();
        if one != T::usual(entry) {
            return self.parts.push(Part::One(Box::new(one)));
        }
        match self.parts.last_mut() {
            Some(Part::Usual { first, count }) if first.dir == entry.dir && first.node + *count == entry.node => {
                *count += 1;
            }
            _ => self.parts.push(Part::Usual { first: entry, count: 1 }),
        }
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + Clone + '_ {
        self.parts.iter().flat_map(|part| {
            let (one, usual) = match part {
                Part::One(one) => (Some(**one), None),
                Part::Usual { first: EntryRef { dir, node }, count } => {
                    (None, Some((*node..node + count).map(|node| T::usual(EntryRef { dir: *dir, node }))))
                }
            };
            one.into_iter().chain(usual.into_iter().flatten())
        })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops those of which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        *self = self.iter().filter(|one| keep(one)).collect();
    }
}

impl<T: Uniform> FromIterator<T> for Runs<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut runs = Runs::default();
        all.into_iter().for_each(|one| runs.push(one));
        runs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Timestamp;

    fn item((dir, node, basis): (u32, u32, bool)) -> Item {
        let basis = basis.then_some(Basis { size_bytes: 1, mtime: Timestamp::default() });
        Item { entry: EntryRef { dir, node }, basis }
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_in_order(all in proptest::collection::vec((0u32..3, 0u32..4, any::<bool>()), 0..30)) {
            let all: Vec<Item> = all.into_iter().map(item).collect();
            let mut runs: Runs<Item> = all.iter().copied().collect();
            prop_assert_eq!(runs.iter().collect::<Vec<_>>(), all.clone());
            prop_assert_eq!((runs.len(), runs.is_empty()), (all.len(), all.is_empty()));
            let keep = |item: &Item| item.entry.node != 2;
            runs.retain(keep);
            let kept: Vec<Item> = all.into_iter().filter(keep).collect();
            prop_assert_eq!(runs.clone(), kept.iter().copied().collect());
            prop_assert_eq!(runs.iter().collect::<Vec<_>>(), kept);
        }
    }

    #[test]
    fn a_directory_that_is_new_takes_the_room_of_one_entry() {
        let runs: Runs<Item> = (0..1000).map(|node| item((7, node, false))).collect();
        assert_eq!((runs.parts.len(), runs.len()), (1, 1000));
    }
}
