//! The far end of a push: what `rfleet receive` does.
//!
//! Plain blocking code, one message after another. The primary is not trusted: it can name only roots
//! that this host's own configuration or command line names, every name is checked and every operation
//! stays below the root's handle (see [`crate::tree`]), and the local [`Policy`] is applied last.
//!
//! | file        | what it owns |
//! |-------------|--------------|
//! | `policy`    | which roots there are, and what may be done to them |
//! | `protect`   | what no primary changes |
//! | `sandbox`   | confinement to the roots |
//! | `link`      | frames on standard input and output, heartbeats, the bound on silence |
//! | `ahead`     | blocks, read and checked while others are written |
//! | `session`   | which message may come when, and what answers it |
//! | `refusal`   | how a session ends early |
//! | `inventory` | what the root holds |
//! | `signature` | signatures of files, for deltas |
//! | `writer`    | content: staged, checked, placed |
//! | `rebuild`   | a file that comes in pieces |
//! | `digester`  | its digest, on a thread of its own |
//! | `reuse`     | content that is there under another name |
//! | `changes`   | changes without content |
//! | `remember`  | which paths failed, come again or may be replaced |
//! | `expect`    | what the primary takes to be there |
//! | `drift`     | what was there instead |
//! | `keep`      | what the attic may take of the disk |
//! | `restore`   | what an operator brings back from it |
//! | `owners`    | which local numbers the primary's owners become |
//! | `shortfall` | what could not be set |
//! | `quota`     | how much a root may hold |
//! | `hooks`     | what this host has run after a commit, and the process that does it |
//! | `state`     | the record that a fleet leaves in a root |

mod ahead;
mod changes;
mod digester;
mod drift;
mod expect;
mod hooks;
mod inventory;
mod keep;
mod link;
mod owners;
mod policy;
mod protect;
mod quota;
mod rebuild;
mod refusal;
mod remember;
mod restore;
mod reuse;
mod sandbox;
mod session;
mod shortfall;
mod signature;
mod state;
mod writer;

pub use hooks::{Answers, CommitHook, Due, HOOK_TIMEOUT, HookEnd, HookRunner, MAX_HOOKS, Orders, clipped};
pub use policy::{Durability, OwnerPolicy, Policy, Quota, Roots, TIMEOUT};
pub use restore::{RestoreError, Restored, Wanted, restore, restore_to};
pub use session::{ReceiveError, refuse_to_start, serve};
pub use state::decode as decode_state;
