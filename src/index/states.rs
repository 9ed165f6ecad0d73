//! One state for all names of a file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::{Kind, Meta, Seen, Timestamp};

/// The files with several names that a scan has met, as their first name was seen: size, attributes and time of
/// the last change, by device and inode number.
#[derive(Default)]
pub(super) struct States(HashMap<(u64, u64), (u64, Meta, Timestamp)>);

impl States {
    /// Brings all names of a file in `entries` to the state of that which came first. A file can change between the
    /// looks at two of its names; with both states in the record a host would get the later time for the earlier
    /// content. What came later is found by the next scan, under all names.
    pub(super) fn take_first(&mut self, entries: &mut [Seen]) {
        for seen in entries.iter_mut().filter(|seen| seen.inode.shared) {
            match self.0.entry((seen.inode.dev, seen.inode.ino)) {
                Entry::Vacant(place) => {
                    place.insert((seen.node.kind.size_bytes(), seen.node.meta.clone(), seen.inode.ctime));
                }
                Entry::Occupied(first) => {
                    let (size_bytes, meta, ctime) = first.get();
                    if (seen.node.kind.size_bytes(), &seen.node.meta, &seen.inode.ctime) != (*size_bytes, meta, ctime) {
                        seen.node.kind = Kind::file(*size_bytes);
                        seen.node.meta = meta.clone();
                        seen.inode.ctime = *ctime;
                    }
                }
            }
        }
    }
}
