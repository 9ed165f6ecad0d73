//! Which directories of a host are to be moved, and in which order.
//!
//! The host's tree is followed from the point in history at which it is: each move is made in thought
//! first, so that what comes next names paths as they are by then. What cannot be done by renames and
//! exchanges one after another gives `None`, and everything is compared instead.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::MoveStep;
use crate::model::{Changes, DirectoryId, Name, RelPath, Version};

/// A name in a directory.
pub(super) type Slot = (DirectoryId, Name);

/// A host's directories, as far as they changed, after the moves.
pub(super) struct Moved<'a> {
    changes: &'a Changes,
    pub(super) steps: Vec<MoveStep>,
    /// Directories that were made to move others into them.
    pub(super) made: HashSet<DirectoryId>,
    /// Where each directory is that is not where it is now.
    located: HashMap<DirectoryId, Slot>,
    /// Which entry of the past is in a slot, by its place in `changes.then`.
    slots: HashMap<Slot, usize>,
    /// Where each entry of the past is.
    pub(super) slot_of: Vec<Slot>,
    /// New directories that take over one of the past, which is gone now.
    alias: HashMap<DirectoryId, DirectoryId>,
    taken_over: HashMap<DirectoryId, DirectoryId>,
    /// By the directory's own number, its entry in `changes.then`.
    then: HashMap<DirectoryId, usize>,
    /// Directories whose place changed or that are new, by their own number.
    now: HashMap<DirectoryId, &'a Version>,
    settled: HashSet<DirectoryId>,
    under_way: HashSet<DirectoryId>,
}

impl<'a> Moved<'a> {
    /// Plans all moves; `None` if they are too entangled.
    pub(super) fn plan(changes: &'a Changes) -> Option<Self> {
        let slot = |version: &Version| (version.dir, version.node.name.clone());
        let mut moved = Moved {
            changes,
            steps: Vec::new(),
            made: HashSet::new(),
            located: HashMap::new(),
            slots: changes.then.iter().enumerate().map(|(at, version)| (slot(version), at)).collect(),
            slot_of: changes.then.iter().map(slot).collect(),
            alias: HashMap::new(),
            taken_over: HashMap::new(),
            then: changes.then.iter().enumerate().filter_map(|(at, version)| Some((version.own?, at))).collect(),
            now: changes.now.iter().filter_map(|version| Some((version.own?, version))).collect(),
            settled: HashSet::new(),
            under_way: HashSet::new(),
        };
        for (own, at) in &moved.then {
            moved.located.insert(*own, moved.slot_of[*at].clone());
        }
        let mut order: BTreeMap<RelPath, DirectoryId> = BTreeMap::new();
        for own in moved.then.keys().filter(|own| moved.has_moved(**own)) {
            order.insert(moved.path_now(*own)?, *own);
        }
        for own in order.into_values() {
            moved.settle(own)?;
        }
        moved.alias_the_rest();
        Some(moved)
    }

    fn has_moved(&self, own: DirectoryId) -> bool {
        let (Some(place), Some(at)) = (self.changes.places.get(&own), self.then.get(&own)) else { return false };
        let then = &self.changes.then[*at];
        (place.parent, &place.name) != (Some(then.dir), &then.node.name)
    }

    fn existed(&self, own: DirectoryId) -> bool {
        self.then.contains_key(&own) || !self.now.contains_key(&own)
    }

    /// The path of a directory that is there now.
    pub(super) fn path_now(&self, own: DirectoryId) -> Option<RelPath> {
        let place = self.changes.places.get(&own)?;
        match place.parent {
            None => Some(RelPath::root()),
            Some(parent) => self.path_now(parent)?.join(&place.name).ok(),
        }
    }

    /// The path of a directory on the host, after the moves so far.
    pub(super) fn path_there(&self, own: DirectoryId) -> Option<RelPath> {
        if let Some(by) = self.taken_over.get(&own) {
            return self.path_there(*by);
        }
        match self.located.get(&own) {
            Some((parent, name)) => self.path_there(*parent)?.join(name).ok(),
            None => {
                let place = self.changes.places.get(&own)?;
                match place.parent {
                    None => Some(RelPath::root()),
                    Some(parent) => self.path_there(parent)?.join(&place.name).ok(),
                }
            }
        }
    }

    /// The directory of the host that `own` is.
    fn there(&self, own: DirectoryId) -> DirectoryId {
        self.alias.get(&own).copied().unwrap_or(own)
    }

    fn is_inside(&self, mut own: DirectoryId, other: DirectoryId) -> bool {
        loop {
            if own == other {
                return true;
            }
            let above = match self.located.get(&own) {
                Some((parent, _)) => Some(*parent),
                None => self.changes.places.get(&own).and_then(|place| place.parent),
            };
            match above {
                Some(above) => own = self.taken_over.get(&above).copied().unwrap_or(above),
                None => return false,
            }
        }
    }

    /// Sees to it that a directory of now is at its path of now on the host, and so are those above.
    fn settle(&mut self, own: DirectoryId) -> Option<()> {
        if self.settled.contains(&own) {
            return Some(());
        }
        if !self.under_way.insert(own) {
            return None;
        }
        let place = self.changes.places.get(&own)?;
        if let Some(parent) = place.parent {
            self.settle(parent)?;
            let slot = (self.there(parent), place.name.clone());
            if !self.existed(own) {
                self.settle_new(own, slot)?;
            } else if self.located.get(&own).is_some_and(|located| *located != slot) {
                self.relocate(own, slot)?;
            }
        }
        self.under_way.remove(&own);
        self.settled.insert(own);
        Some(())
    }

    fn relocate(&mut self, own: DirectoryId, to_slot: Slot) -> Option<()> {
        let from = self.path_there(own)?;
        if self.is_inside(to_slot.0, own) {
            return None;
        }
        let to = self.path_there(to_slot.0)?.join(&to_slot.1).ok()?;
        let at = *self.then.get(&own)?;
        let from_slot = self.located.get(&own)?.clone();
        match self.slots.remove(&to_slot) {
            None => self.steps.push(MoveStep::Rename { from, to }),
            Some(other) => {
                if let Some(other_own) = self.changes.then[other].own {
                    if self.is_inside(own, other_own) {
                        return None;
                    }
                    self.located.insert(other_own, from_slot.clone());
                }
                self.slot_of[other] = from_slot.clone();
                self.slots.insert(from_slot.clone(), other);
                self.steps.push(MoveStep::Exchange { from, to });
            }
        }
        if self.slots.get(&from_slot) == Some(&at) {
            self.slots.remove(&from_slot);
        }
        self.slots.insert(to_slot.clone(), at);
        self.slot_of[at] = to_slot.clone();
        self.located.insert(own, to_slot);
        Some(())
    }

    /// Makes a directory that others are to be moved into, unless there is one that can be taken over.
    fn settle_new(&mut self, own: DirectoryId, slot: Slot) -> Option<()> {
        if let Some(occupant) = self.slots.get(&slot).copied() {
            // A file in its place must go first: that is beyond moves.
            let other = self.changes.then[occupant].own?;
            if !self.changes.places.contains_key(&other) {
                self.take_over(own, other);
                return Some(());
            }
            self.settle(other)?;
            if self.slots.contains_key(&slot) {
                return None;
            }
        }
        let path = self.path_there(slot.0)?.join(&slot.1).ok()?;
        self.steps.push(MoveStep::Make { path });
        self.made.insert(own);
        self.located.insert(own, slot);
        Some(())
    }

    fn take_over(&mut self, own: DirectoryId, other: DirectoryId) {
        self.alias.insert(own, other);
        self.taken_over.insert(other, own);
        if let Some(slot) = self.located.get(&other) {
            self.located.insert(own, slot.clone());
        }
    }

    /// New directories where one of the past is that has gone: the host's stays, and what is in it goes.
    fn alias_the_rest(&mut self) {
        let mut new: Vec<(RelPath, DirectoryId)> = self
            .now
            .keys()
            .filter(|own| !self.existed(**own) && !self.alias.contains_key(own) && !self.made.contains(own))
            .filter_map(|own| Some((self.path_now(*own)?, *own)))
            .collect();
        new.sort();
        for (_, own) in new {
            let Some(place) = self.changes.places.get(&own) else { continue };
            let Some(parent) = place.parent else { continue };
            let slot = (self.there(parent), place.name.clone());
            let occupant = self.slots.get(&slot).and_then(|at| self.changes.then[*at].own);
            if let Some(other) = occupant.filter(|other| !self.changes.places.contains_key(other)) {
                self.take_over(own, other);
            }
        }
    }
}
