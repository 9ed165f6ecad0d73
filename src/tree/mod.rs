//! The only code that touches a synced directory. Plain blocking code; imports only the model.
//!
//! Everything works on held handles: [`Root`] is opened once, a directory below it by one
//! `openat2` that can neither leave the root nor follow a link, an entry by its single name in a
//! held directory. Nothing joins a path to the root's.
//!
//! | file       | what it owns |
//! |------------|--------------|
//! | `beneath`  | containment: [`Root`], [`Dir`], [`Parents`] |
//! | `below`    | what lies below a directory |
//! | `open`     | how the path that an operator named becomes a [`Root`] |
//! | `scan`     | listings of a root in path order |
//! | `ahead`    | what such a walk comes to next, looked at ahead by a second thread |
//! | `shown`    | what a directory shows, not judged |
//! | `lister`   | the listing that becomes of it |
//! | `glance`   | looks at single paths |
//! | `watch`    | file events |
//! | `links`    | files with several names, as a scan meets them |
//! | `selection` | what of a source is synced, `.rfleetignore` |
//! | `way`      | what a scan leaves out by it on its way |
//! | `read`     | content that cannot be torn |
//! | `stage`    | the private directory in which new content is made |
//! | `home`     | the directory of our own, and the state in it |
//! | `dispose`  | recursive removal inside the private directory |
//! | `meta`     | owner, mode and times through a handle |
//! | `rights`   | what this process may do beyond its user |
//! | `attributes` | extended attributes and ACLs, likewise |
//! | `apply`    | changes to the visible tree |
//! | `place`    | one entry of it goes from old to new, or goes |
//! | `attic`    | what was there and went |
//! | `kept`     | what lies in it |
//! | `retire`   | what leaves it, and when |
//! | `restore`  | copies of what lies in it |
//! | `times`    | which times a filesystem holds |
//! | `usage`    | how much room a root takes |
//! | `owners`   | names of users and groups |
//!
//! # Invariants
//! An unprivileged local user may write in the tree and may swap any component at any time.
//! - No call resolves more than one component except `openat2` with `RESOLVE_BENEATH |
//!   RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS` from the root's handle, or its replacement, one
//!   component at a time with `O_NOFOLLOW`. `..` is never resolved below a root (its device is looked at, to know a filesystem's top).
//! - Every open has `O_NOFOLLOW`, and what is read or changed through a handle was checked on that
//!   handle, not by name before.
//! - New content is made in a directory that only the effective user can enter, so its name cannot
//!   be swapped before the rename that makes it visible.
//!
//! RACE: a directory that is moved while it is held stays held, so a user who may move it can
//! have entries made in it at its new place. That place is one where this user may already make
//! and remove entries, and only directories that were below the root can be moved so. A receiver that is confined by
//! the kernel (`receive::sandbox`) is refused there.
//!
//! RACE: where `fs.protected_hardlinks` is 0, a user can plant a hard link to a foreign file of
//! the same filesystem below the root; changing its attributes changes that file. Linux has had
//! the protection since 3.6 and systemd turns it on.

mod ahead;
mod apply;
mod attic;
mod attributes;
mod below;
mod beneath;
mod dispose;
mod glance;
mod home;
mod kept;
mod links;
mod lister;
mod meta;
mod open;
mod owners;
mod place;
mod read;
mod restore;
mod retire;
mod rights;
mod scan;
mod selection;
mod shown;
mod stage;
mod times;
mod usage;
mod watch;
mod way;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod scan_tests;

pub use apply::{Applier, MetaSet, problem_kind};
pub use attic::{Attic, KeptSize, Why};
pub use attributes::{Found, LocalAttributes, Reader as AttributesReader, attributes_of, own_attributes};
pub use below::find_below;
pub use beneath::{Dir, FreeSpace, Parents, Root, RootIdentity, Stat};
pub use glance::{Glimpse, glance};
pub use home::{read_dated_state, read_state};
pub use kept::{KeptSession, KeptSessions};
pub use links::LinkTable;
pub use meta::{LocalMeta, Shortfall};
pub use open::RootError;
pub use owners::SystemOwners;
pub use place::{Expectation, Over, Placed};
pub use read::{ContentReader, ReadError, Whole, open_basis};
pub use restore::{RestoreShort, copy_kept_to, directory_looks};
pub use retire::{Retention, attic_can_give_up};
pub use rights::Rights;
pub use scan::{Below, Filter, ScanOptions, ScanReport, SeenDirectory, Unwatched, list_dir, look_again, scan, survey};
pub use selection::{IGNORE_FILE, LeftOut, Scope, Selection};
pub use stage::{StageError, Staged, StagedFile, StagedKind, Staging};
pub use usage::{Going, Usage, usage};
pub use watch::{Happening, Noticed, WatchError, Watcher, network_filesystem, watch_limit};
