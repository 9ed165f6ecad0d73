//! What the stories share: a hermetic place, trees, the oracle, real sshds, and the binary under test.
//!
//! Nothing here but `primary`, `victim` and `impostor`, which speak the protocol, knows the crate's own modules: the stories see only the binary,
//! as a user does.

// Each story file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod agent;
pub mod copy;
pub mod editor;
pub mod fleet;
pub mod flipper;
pub mod http;
pub mod impostor;
pub mod keep;
pub mod ledger;
pub mod oracle;
pub mod primary;
pub mod process;
pub mod properties;
pub mod rfleet;
pub mod rng;
pub mod scratch;
pub mod secondary;
pub mod shapes;
pub mod sshd;
pub mod tree;
pub mod versions;
pub mod victim;

pub use agent::Agent;
pub use copy::plain_copy;
pub use editor::Editor;
pub use fleet::Fleet;
pub use ledger::Ledger;
pub use oracle::assert_rsync_agrees;
pub use primary::Primary;
pub use rfleet::{Config, Outcome, Push, Report, Running, rfleet_bin};
pub use rng::Rng;
pub use scratch::{Scratch, wait_until};
pub use secondary::{Need, Secondary};
pub use shapes::{every_kind, mutate, random_tree};
pub use sshd::{Sshd, SshdOptions};
pub use tree::{Snapshot, Tree, assert_same, wait_until_old};
