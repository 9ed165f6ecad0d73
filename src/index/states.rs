//! One state for all names of a file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::{Kind, Meta, Seen, Timestamp};

/// The files with several names that a scan has met, as their first name was seen: size, attributes and time of
/// the last change, by device and inode number.
#[derive(Default)]
pub(super) struct States(HashMap<(u64, u64), (u64, Meta, Timestamp)>);

impl States {
    /// `entries` with all names of a file in the state of that which came first. A file can change between the
    /// looks at two of its names; with both states in the record a host would get the later time for the earlier
    /// content. What came later is found by the next scan, under all names.
    pub(super) fn of_first_names<'s>(&mut self, entries: &'s [Seen]) -> Cow<'s, [Seen]> {
        let mut all = Cow::Borrowed(entries);
        for (at, seen) in entries.iter().enumerate().filter(|(_, seen)| seen.inode.shared) {
            let size_bytes = seen.node.kind.size_bytes();
            match self.0.entry((seen.inode.dev, seen.inode.ino)) {
                Entry::Vacant(place) => {
                    place.insert((size_bytes, seen.node.meta.clone(), seen.inode.ctime));
                }
                Entry::Occupied(first) => {
                    let (first_bytes, meta, ctime) = first.get();
                    if (size_bytes, &seen.node.meta, &seen.inode.ctime) != (*first_bytes, meta, ctime) {
                        let later = &mut all.to_mut()[at];
                        later.node.kind = Kind::file(*first_bytes);
                        later.node.meta = meta.clone();
                        later.inode.ctime = *ctime;
                    }
                }
            }
        }
        all
    }
}
