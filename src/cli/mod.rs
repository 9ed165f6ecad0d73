//! The command line: one file per command.

// check
pub mod progress;
pub mod render;
