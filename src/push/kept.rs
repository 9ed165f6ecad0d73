//! What an agent keeps of a source from one cycle to the next, so that a cycle costs what changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::source::Counts;
use crate::index::{Identity, Index, IndexError};
use crate::model::OwnerNames;
use crate::tree::Scope;

/// The index of a root, open, and what its last scan found. Empty until the first whole scan.
#[derive(Default)]
pub struct Kept {
    remembered: Mutex<Option<Remembered>>,
    /// Reads the index in the file as it was at one time, while others write to it.
    reader: Mutex<Option<(PathBuf, Arc<Mutex<Index>>)>>,
}

/// See [`Kept`].
#[derive(Clone)]
pub(super) struct Remembered {
    /// What the index is of: of another source, or with other rules, nothing of this holds.
    pub(super) identity: Identity,
    pub(super) index: Arc<Mutex<Index>>,
    /// Names of all owners that were met.
    pub(super) names: OwnerNames,
    pub(super) counts: Counts,
    /// What was left out.
    pub(super) scope: Arc<Scope>,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the source `identity`. What was known of another is forgotten.
    pub(super) fn of(&self, identity: &Identity) -> Option<Remembered> {
        let mut kept = self.lock();
        let is_damaged = |kept: &Remembered| {
            let index = kept.index.lock().unwrap_or_else(PoisonError::into_inner);
            index.is_damaged()
        };
        if kept.as_ref().is_some_and(|kept| kept.identity != *identity || is_damaged(kept)) {
            *kept = None;
            *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        kept.clone()
    }

    pub(super) fn keep(&self, remembered: Remembered) {
        *self.lock() = Some(remembered);
    }

    /// A reader of the index in `file` that nobody else has now.
    pub(super) fn reader(&self, file: &Path) -> Result<Arc<Mutex<Index>>, IndexError> {
        let mut idle = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, reader)) = &*idle
            && of == file
            && Arc::strong_count(reader) == 1
        {
            return Ok(Arc::clone(reader));
        }
        let reader = Arc::new(Mutex::new(Index::open_to_read(file)?));
        *idle = Some((file.to_owned(), Arc::clone(&reader)));
        Ok(reader)
    }

    /// Forgets everything: the next cycle scans.
    pub fn forget(&self) {
        *self.lock() = None;
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
