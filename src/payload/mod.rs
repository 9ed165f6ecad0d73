//! Content, read, hashed and encoded once, handed to many hosts.
//!
//! An [`encode`] run on its own thread reads the files of some plan steps and appends finished blocks
//! to a [`Log`]; every host that needs those files reads the log at its own pace. What all readers have
//! passed is dropped; what a slow one still needs moves from memory to an unlinked file. Nothing is
//! produced before a reader is near.

mod block;
mod comparison;
mod encode;
mod log;

pub use block::Block;
pub use encode::{EncodeJob, NoSignatures, Reading, Readings, Signatures, encode};
pub use log::{Abandoned, Log, LogError, LogReader, Outcome};
