//! Content differences.
