//! rfleet: rsync for a fleet.
//!
//! One primary host pushes directory trees to many secondaries over SSH. What changes on the
//! primary flows one way:
//!
//! ```text
//! disk ─► tree::scan ─► plan (+guard) ─► payload ─┬─ push::session ══ SSH ══ receive ─► tree::stage ─► tree::apply
//!                                        (encoded ├─ push::session ══ SSH ══ receive ─► …
//!                                          once)  └─ …
//! ```
//!
//! | module        | what it owns |
//! |---------------|--------------|
//! | [`agent`]     | the daemon: the next event, what it changes, what is due |
//! | [`model`]     | the nouns, no I/O: names, entries, digests, terms, problems |
//! | [`observe`]   | the port through which work reports counts, progress and problems |
//! | [`status`]    | what an agent says of itself and its fleet |
//! | [`control`]   | what is asked of an agent over its socket, and answered |
//! | [`tree`]      | the only code that touches a synced directory |
//! | [`plan`]      | pure: two listings to ordered changes; the guard |
//! | [`delta`]     | signatures, differences and patches of one file's content |
//! | [`payload`]   | content read, hashed and encoded once, handed to many hosts |
//! | [`wire`]      | messages and frames, validated into typed values |
//! | [`discovery`] | who is in the fleet, and who of them is the primary |
//! | [`transport`] | a duplex byte link: SSH, a child process, any command |
//! | [`push`]      | one cycle: a session for each host, all of them side by side |
//! | [`receive`]   | the far end of a session and its own policy |
//! | [`serve`]     | the status over HTTP: the page, metrics, health |
//! | [`config`]    | what the file says, validated |
//! | [`cli`]       | one file per command |
//!
//! `tests/architecture.rs` holds which of them may import which.

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod delta;
pub mod discovery;
pub mod index;
pub mod model;
pub mod observe;
pub mod payload;
pub mod plan;
pub mod push;
pub mod receive;
pub mod serve;
pub mod status;
pub mod transport;
pub mod tree;
pub mod wire;
