//! What the primary takes to be at the paths that it will send content for.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::writer::WriteError;
use crate::model::{Expected, RelPath};

/// As many as the largest listing that a primary keeps.
const MAX_EXPECTATIONS: usize = 20_000_000;

/// What is expected at one path.
#[derive(Clone, Copy)]
pub(super) enum Was {
    /// This.
    Known(Expected),
    /// Something of this hash.
    Hashed(u64),
}

/// Expectations by path, 16 bytes each: for a million of them neither path nor state could be kept. Both
/// are hashed with keys of this process; where two paths fall together (one session in thirty million,
/// at a million paths) what is found there is taken to be unexpected, and kept.
#[derive(Default)]
pub(super) struct Expectations {
    keys: RandomState,
    by_path: HashMap<u64, u64>,
}

impl Expectations {
    /// Remembers that `was` is taken to be at `path`, until it is taken.
    ///
    /// # Errors
    /// `Protocol` for more of them than any plan has.
    pub(super) fn insert(&mut self, path: &RelPath, was: Expected) -> Result<(), WriteError> {
        let path = self.keys.hash_one(path.as_bytes());
        if was == Expected::Nothing {
            self.by_path.remove(&path);
        } else if self.by_path.len() < MAX_EXPECTATIONS {
            self.by_path.insert(path, self.keys.hash_one(was));
        } else {
            return Err(WriteError::Protocol("more expectations than a receiver keeps"));
        }
        Ok(())
    }

    /// Forgets what is taken to be at `path`, and tells.
    pub(super) fn take(&mut self, path: &RelPath) -> Was {
        // The usual first push pays for no hash.
        if self.by_path.is_empty() {
            return Was::Known(Expected::Nothing);
        }
        let path = self.keys.hash_one(path.as_bytes());
        self.by_path.remove(&path).map_or(Was::Known(Expected::Nothing), Was::Hashed)
    }

    /// Whether `found` is what `was` says.
    pub(super) fn holds(&self, was: Was, found: Expected) -> bool {
        match was {
            Was::Known(known) => known == found,
            Was::Hashed(hash) => self.keys.hash_one(found) == hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn an_expectation_holds_for_its_path_and_state_only_and_once() {
        let path = |name: &str| RelPath::new(name.as_bytes()).unwrap();
        let file = |size_bytes, nanos| Expected::File { size_bytes, mtime: Timestamp { secs: 1, nanos } };
        let states = [
            Expected::Nothing,
            Expected::Directory,
            Expected::Special,
            file(1, 1),
            file(2, 1),
            file(1, 2),
            Expected::Symlink { mtime: Timestamp { secs: 1, nanos: 1 } },
        ];
        let mut expectations = Expectations::default();
        for was in states {
            expectations.insert(&path("a"), was).unwrap();
            expectations.insert(&path("b"), file(9, 9)).unwrap();
            let taken = expectations.take(&path("a"));
            for found in states {
                assert_eq!(expectations.holds(taken, found), found == was, "{was:?} and {found:?}");
            }
            for nothing in [expectations.take(&path("a")), expectations.take(&path("a/b"))] {
                assert!(expectations.holds(nothing, Expected::Nothing));
                assert!(!expectations.holds(nothing, was) || was == Expected::Nothing);
            }
        }
        expectations.insert(&path("b"), Expected::Nothing).unwrap();
        assert!(expectations.by_path.is_empty());
    }
}
