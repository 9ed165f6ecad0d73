//! What a host was known to have, and what it may therefore be found to have after something went wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::rfleet::Outcome;
use super::tree::{Snapshot, recorded_sequence};
use super::versions;

/// A source of [`versions`] and one copy of it.
pub struct Ledger {
    pub source: PathBuf,
    pub copy: PathBuf,
    /// What the host had when it last said that it has everything: files with their versions, and its record.
    acknowledged: BTreeMap<u64, u64>,
    sequence: Option<u64>,
}

impl Ledger {
    pub fn new(source: PathBuf, copy: PathBuf) -> Self {
        Self { source, copy, acknowledged: BTreeMap::new(), sequence: None }
    }

    fn assert_complete(&self, what: &str) {
        let differences = Snapshot::take(&self.source).differences(&Snapshot::take(&self.copy));
        assert!(differences.is_empty(), "not all is there: {}\n{what}", differences.join("\n"));
    }

    /// The host says that it has everything: it has, and has cleaned up.
    pub fn note_acknowledged(&mut self, what: &str) {
        self.assert_complete(what);
        self.acknowledged = versions::whole(&self.copy).unwrap_or_else(|e| panic!("{what}: {e}"));
        self.sequence = recorded_sequence(&self.copy);
    }

    /// What there is after a push to the host called `host` that something went wrong with: all of it if it said so,
    /// else each file old or new, and a record that is true. Where single paths failed, and were named, their files may
    /// be missing: what had another name before may have gone from there.
    pub fn check(&mut self, outcome: &Outcome, host: &str, what: &str) {
        if outcome.code() == Some(0) {
            assert_eq!(outcome.report().host(host).state, "done", "{what}: {}", outcome.said());
            self.note_acknowledged(&format!("{what}: {}", outcome.said()));
            return;
        }
        assert_eq!(outcome.code(), Some(3), "{what}: {}", outcome.said());
        let failed =
            outcome.report().host(host).problems.iter().map(|problem| problem.path.clone()).collect::<Vec<_>>();
        self.check_copy(&failed, &format!("{what}: {}", outcome.said()));
    }

    /// The copy after a push that did not come to its end, or in which the paths `failed` could not be brought over.
    fn check_copy(&mut self, failed: &[String], what: &str) {
        let there = versions::whole(&self.copy).unwrap_or_else(|e| panic!("{what}: {e}"));
        let wanted = versions::whole(&self.source).unwrap();
        for (id, old) in self.acknowledged.iter().filter(|(id, _)| !versions::may_be_missing(**id)) {
            let Some(new) = wanted.get(id) else { continue };
            let Some(found) = there.get(id) else {
                assert!(!failed.is_empty(), "{what}: file {id} is gone");
                continue;
            };
            assert!((old..=new).contains(&found), "{what}: file {id} is {found}, not {old} to {new}");
        }
        // A record that says more than was acknowledged was on its way to be, and is true. One of a copy in which
        // directories are being moved says nothing.
        let sequence = recorded_sequence(&self.copy);
        if sequence == Some(0) {
            return;
        }
        assert!(sequence >= self.sequence, "{what}: the record went from {:?} to {sequence:?}", self.sequence);
        if sequence > self.sequence {
            self.assert_complete(what);
            self.sequence = sequence;
        }
    }
}
