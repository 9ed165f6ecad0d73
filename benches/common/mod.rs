//! What the benches share: the surroundings of a run, a real sshd, the cost of processes, seeded numbers, tables.

// Each bench compiles this module for itself and uses a part of it.
#![allow(dead_code)]

pub mod figures;
pub mod judge;
pub mod masters;
pub mod meter;
pub mod random;
pub mod sshd;
pub mod supervise;
