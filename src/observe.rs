//! The port through which work says how far it is. What came of it is in the reports.

/// Where one host's part of a push is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connecting.
    Connecting,
    /// Comparing what it has with the source.
    Comparing,
    /// Waiting for the other hosts' plans, so that a guard can refuse before anything changes.
    Waiting,
    /// Receiving.
    Sending,
    /// Everything was sent; it makes it durable.
    Committing,
    /// Done.
    Done,
    /// Given up.
    Failed,
}

/// Told about progress. Called from several threads, often; must not block.
pub trait Monitor: Send + Sync {
    /// The scan of the source has seen `entries` so far.
    fn scanned(&self, entries: u64) {
        let _ = entries;
    }
    /// `host` is in `phase` now.
    fn phase(&self, host: &str, phase: Phase) {
        let _ = (host, phase);
    }
    /// `host` is to get this much.
    fn planned(&self, host: &str, files: u64, bytes: u64) {
        let _ = (host, files, bytes);
    }
    /// `host` has got this much.
    fn progress(&self, host: &str, files: u64, bytes: u64) {
        let _ = (host, files, bytes);
    }
}

/// Tells nobody.
pub struct Silent;

impl Monitor for Silent {}
