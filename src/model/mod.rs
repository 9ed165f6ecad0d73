//! The nouns of rfleet: names, entries, listings, digests, terms, problems. No I/O, no clock.
//!
//! Every value here that can come from a peer, a bucket or a file is checked when it is made, so
//! the rest of the crate handles only valid ones.

mod address;
mod attributes;
mod digest;
mod entry;
mod fidelity;
mod history;
mod holes;
mod listing;
mod path;
mod patterns;
mod problem;
mod session;
mod shown;

pub use address::{AddressError, HostAddress, MAX_HOST_BYTES, check_host, check_user};
pub use attributes::{
    ACCESS_ACL, AclMap, AclName, Attribute, AttributeClass, AttributeFidelity, Attributes, AttributesError, CAPABILITY,
    DEFAULT_ACL, MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES,
};
pub use digest::{Digest, Hasher};
pub use entry::{Expected, Kind, Meta, Name, Node, SpecialKind, Timestamp};
pub use fidelity::{Fidelity, OwnerFidelity, TimeFidelity};
pub use history::{Changes, DirectoryId, FileId, Inode, Place, Seen, Version};
pub use holes::Holes;
pub use listing::{DirListing, Listing, ListingHasher, OwnerMap, OwnerNames, Owners, Side, View};
pub use path::{MAX_NAME_BYTES, MAX_PATH_BYTES, PathError, RESERVED_NAME, RelPath, check_name};
pub use patterns::{PatternError, Patterns, Verdict};
pub use problem::{Problem, ProblemKind};
pub use session::{SESSION_TIME_BYTES, session_name, session_time};
pub use shown::shown;

use serde::{Deserialize, Serialize};

/// Number of a change in an index; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

/// Chosen at random by each cycle that numbers changes: two histories that reach the same sequence,
/// as after an index was restored from a backup, differ in it. 0 means that nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(pub u64);

/// A point in the history of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The last change that counts.
    pub sequence: Sequence,
    /// The stamp of the cycle that numbered it.
    pub stamp: Stamp,
}

/// Fencing number of a primaryship, never reused; 0 means that no term was ever taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);
