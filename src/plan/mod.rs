//! From what the primary has and what one host has to the ordered changes that close the gap.
//!
//! Pure: no filesystem, no socket, no clock. [`wanted_directories`] says which of the host's
//! directories must be listed entry by entry, [`plan`] compares, [`plan_changes`] plans from history alone, [`guard`] refuses what looks like an
//! accident, [`itemize`] says it in rsync's letters.

mod compare;
pub mod guard;
mod history;
#[cfg(test)]
mod history_tests;
mod itemize;
mod links;
mod moves;
mod protect;
mod runs;
#[cfg(test)]
mod tests;

pub use compare::{Destination, PlanOptions, plan, wanted_directories};
pub use history::{HistoryPlan, drifted, plan_changes};
pub use itemize::itemize;
pub use protect::leave_protected;
pub use runs::{Item, Runs};

use crate::model::{Digest, DirListing, Expected, Listing, Node, Problem, RelPath, Timestamp};

/// An entry of the primary's listing, by position: a plan for 100,000 files stays small, also for
/// many hosts at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryRef {
    dir: u32,
    node: u32,
}

impl EntryRef {
    /// The directory that holds the entry, and the entry.
    pub fn of(self, listing: &Listing) -> (&DirListing, &Node) {
        let dir = &listing.dirs[self.dir as usize];
        (dir, &dir.nodes[self.node as usize])
    }

    /// The entry's path.
    pub fn path(self, listing: &Listing) -> RelPath {
        let (dir, node) = self.of(listing);
        // INVARIANT: a scan leaves out names that cannot be joined, so a listing holds none.
        #[expect(clippy::expect_used)]
        dir.path.join(&node.name).expect("names in a listing can be joined")
    }
}

/// What differs between the primary's entry and the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// The host has nothing of this kind there.
    pub new: bool,
    /// The content by digest, or the target of a symbolic link.
    pub content: bool,
    /// The size.
    pub size: bool,
    /// The time of the last change.
    pub time: bool,
    /// The permission bits.
    pub mode: bool,
    /// The owner.
    pub owner: bool,
    /// The group.
    pub group: bool,
    /// An ACL.
    pub acl: bool,
    /// Other extended attributes.
    pub attributes: bool,
}

impl Differences {
    /// Of an entry that the host does not have.
    pub const NEW: Self = Differences {
        new: true,
        content: false,
        size: false,
        time: false,
        mode: false,
        owner: false,
        group: false,
        acl: false,
        attributes: false,
    };

    /// Whether there is any.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// One entry to be brought to what the primary has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The entry.
    pub entry: EntryRef,
    /// Why.
    pub differences: Differences,
    /// What the host has in its place.
    pub was: Expected,
}

/// The host's own file that a delta refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    /// Its size by the inventory.
    pub size_bytes: u64,
    /// Its time by the inventory.
    pub mtime: Timestamp,
}

/// A file whose content is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStep {
    /// Which, and why.
    pub step: Step,
    /// What the host has in its place is worth a delta.
    pub delta: bool,
}

impl FileStep {
    /// The host's file that a delta refers to.
    pub fn basis(&self) -> Option<Basis> {
        match self.step.was {
            Expected::File { size_bytes, mtime } if self.delta => Some(Basis { size_bytes, mtime }),
            _ => None,
        }
    }
}

/// A directory to be moved as a whole, before anything else is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// Make a directory that one is to be moved into.
    Make {
        /// The directory.
        path: RelPath,
    },
    /// Rename a directory to where nothing is.
    Rename {
        /// Its path.
        from: RelPath,
        /// Its path from now on.
        to: RelPath,
    },
    /// Exchange a directory with what is at its new path.
    Exchange {
        /// Its path.
        from: RelPath,
        /// Its path from now on.
        to: RelPath,
    },
}

/// A file whose content the host has under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReuseStep {
    /// Which, and why.
    pub step: Step,
    /// The other name.
    pub from: RelPath,
    /// The file there.
    pub content: Basis,
    /// Digest of its content; that the entry has the same is to be made sure of.
    pub digest: Digest,
}

/// A name to be made another name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStep {
    /// Which, and why.
    pub step: Step,
    /// The name that holds the content.
    pub to: EntryRef,
}

/// An entry of the host's that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its path.
    pub path: RelPath,
    /// What the host has there.
    pub was: Expected,
}

impl Removal {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.was == Expected::Directory
    }
}

/// A directory that something else takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacedDirectory {
    /// What takes its place.
    pub entry: EntryRef,
    /// The entries that go, the directory itself included.
    pub entries: u64,
}

/// A directory whose attributes are set when everything in it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryStep {
    /// Position of the directory in the listing.
    pub dir: u32,
    /// What differs; nothing where only the work in it disturbs its time.
    pub differences: Differences,
}

/// The ordered changes that bring one host from what it has to what the primary has. The fields are
/// in the order in which they are carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Directories to be moved; the paths of all that follows are those after it.
    pub moves: Vec<MoveStep>,
    /// Directories to be made, parents first.
    pub directories: Vec<Step>,
    /// Directories that something else takes the place of.
    pub replaced_directories: Vec<ReplacedDirectory>,
    /// Files of which the host has the content under another name.
    pub reuses: Vec<ReuseStep>,
    /// Files to be sent.
    pub files: Runs<FileStep>,
    /// Hard links to be made.
    pub links: Vec<LinkStep>,
    /// Symbolic links to be made.
    pub symlinks: Vec<Step>,
    /// Named pipes and devices to be made.
    pub specials: Vec<Step>,
    /// Anything but directories of which only attributes are to be set.
    pub attributes: Vec<Step>,
    /// What is to go, deepest first.
    pub removals: Vec<Removal>,
    /// Attributes of directories, deepest first.
    pub directory_attributes: Vec<DirectoryStep>,
    /// Entries that cannot be brought over, with the reasons.
    pub problems: Vec<Problem>,
    /// Directories that the primary does not have and that stay, since something in them is left alone; the
    /// topmost of each.
    pub kept_directories: Vec<RelPath>,
    /// In sum.
    pub totals: Totals,
}

/// A plan in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Entries that the host gets.
    pub created: u64,
    /// Entries whose content or target is replaced.
    pub updated: u64,
    /// Entries that go, those inside replaced directories included.
    pub deleted: u64,
    /// Entries of the host's that are deleted or whose content is replaced.
    pub overwritten: u64,
    /// Entries of which only attributes are set.
    pub attributes: u64,
    /// Content of the files to be sent.
    pub content_bytes: u64,
    /// Room that is needed beyond what is freed on the way.
    pub need_bytes: u64,
    /// Entries that the host had.
    pub host_entries: u64,
}

impl Plan {
    /// Has the content of those files sent that `is_same` finds to be another than under the old name.
    pub fn confirm_reuses(&mut self, is_same: &mut dyn FnMut(&ReuseStep) -> bool) {
        let mut files: Vec<FileStep> = self.files.iter().collect();
        for reuse in std::mem::take(&mut self.reuses) {
            if is_same(&reuse) {
                self.reuses.push(reuse);
                continue;
            }
            self.totals.content_bytes += reuse.content.size_bytes;
            self.totals.need_bytes += reuse.content.size_bytes;
            files.push(FileStep { step: reuse.step, delta: false });
        }
        files.sort_by_key(|file| file.step.entry);
        self.files = files.into_iter().collect();
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        let Totals { created, updated, deleted, attributes, .. } = self.totals;
        created + updated + deleted + attributes == 0 && self.moves.is_empty() && self.directory_attributes.is_empty()
    }
}
