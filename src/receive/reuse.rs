//! Content that the root has under another name: staged as a hard link of it, placed with the next batch.
//!
//! All of a session are staged before anything is placed, so two files can change their names. The
//! attributes are set when the file has its new name: until then the old one shares them.

use super::expect::Was;
use super::writer::{WriteError, Writer};
use crate::model::{Expected, Kind, Meta, RelPath, Timestamp};
use crate::tree::{Staged, StagedKind};

/// Files that wait; beyond it they are placed. Staged they take about 200 bytes of memory each.
const MAX_WAITING: usize = 100_000;

/// Bytes of their names and attributes, likewise.
const MAX_WAITING_BYTES: usize = 32 << 20;

/// One that waits.
pub(super) struct Reused {
    staged: Staged,
    path: RelPath,
    was: Expected,
    content: Expected,
    meta: Meta,
}

impl Writer<'_> {
    /// Stages what lies at `from`, a file of this size and time. If it is not that, or cannot have another
    /// name, the primary is asked for the content.
    pub(super) fn reuse(
        &mut self,
        path: RelPath,
        was: Expected,
        from: &RelPath,
        (size_bytes, mtime): (u64, Timestamp),
        meta: Meta,
    ) -> Result<(), WriteError> {
        if path.is_root() || from.is_root() {
            return Err(WriteError::Protocol("the content of a root"));
        }
        if self.spares(&path) {
            return Ok(());
        }
        if self.protect.holds(from) {
            // Another name of it would be a way to change it.
            self.expectations.insert(&path, was)?;
            return self.send_again(path);
        }
        let content = Expected::File { size_bytes, mtime };
        let linked = self.applier.parents().parent(from).and_then(|(dir, name)| self.staging.hard_link(&dir, name));
        // Looked at in the stage, where it cannot be swapped any more.
        match linked.and_then(|staged| Ok((staged.found()? == content).then_some(staged))) {
            Ok(Some(staged)) => {
                self.reused_bytes += path.as_bytes().len() + meta.attributes.bytes();
                // Its content lives on, so neither its removal nor its replacement takes anything away.
                self.attic.leave_out(from);
                self.reused.push(Reused { staged, path, was, content, meta });
            }
            _ => {
                self.expectations.insert(&path, was)?;
                self.send_again(path)?;
            }
        }
        if self.reused.len() >= MAX_WAITING || self.reused_bytes >= MAX_WAITING_BYTES {
            self.commit_batch()
        } else {
            Ok(())
        }
    }

    /// Places all that wait.
    pub(super) fn place_reused(&mut self) -> Result<(), WriteError> {
        self.reused_bytes = 0;
        for Reused { staged, path, was, content, meta } in std::mem::take(&mut self.reused) {
            debug_assert_eq!(staged.kind(), StagedKind::HardLink);
            self.files_done += 1;
            if self.place(path.clone(), staged, Was::Known(was))? {
                self.set_meta(path, &Kind::file(0), &meta, &|found| found == content)?;
            }
        }
        Ok(())
    }
}
