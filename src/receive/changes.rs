//! Changes without content.

use super::expect::Was;
use super::state;
use super::writer::{WriteError, Writer};
use crate::model::{Expected, Kind, Meta, Problem, ProblemKind, RelPath, SpecialKind};
use crate::tree::{Expectation, LocalMeta, MetaSet, Placed, StagedKind, problem_kind};
use crate::wire::Change;

impl Writer<'_> {
    /// Carries out one change. What the operating system refuses is a problem of its path.
    pub(super) fn change(&mut self, change: Change) -> Result<(), WriteError> {
        match change {
            Change::Move { .. } if self.moves_over => {
                return Err(WriteError::Protocol("the move of a directory after other changes"));
            }
            Change::Move { .. } | Change::MakeDirectory { .. } => {}
            _ => self.moves_over = true,
        }
        match change {
            // They change nothing yet, and what is to be staged before anything is placed goes on waiting.
            Change::Reuse { .. } | Change::Expect { .. } | Change::ReplaceDirectory { .. } => {}
            _ => self.commit_batch()?,
        }
        match change {
            Change::Move { from, to, exchange } => self.move_directory(&from, to, exchange),
            Change::Expect { path, was } => self.expectations.insert(&path, was),
            Change::Reuse { path, was, from, size_bytes, mtime, meta } => {
                self.reuse(path, was, &from, (size_bytes, mtime), meta)
            }
            Change::MakeDirectory { ref path, .. }
            | Change::Link { ref path, .. }
            | Change::Symlink { ref path, .. }
            | Change::Special { ref path, .. }
            | Change::SetMeta { ref path, .. }
            | Change::SetDirectoryMeta { ref path, .. }
                if self.spares(path) =>
            {
                Ok(())
            }
            Change::MakeDirectory { path, was } => self.make_directory(path, was),
            Change::ReplaceDirectory { path, entries } => {
                // It holds itself at least.
                self.count_deletions(entries.max(1))?;
                self.replaceable.insert(path, entries)
            }
            Change::Link { path, to, was } => self.link(path, &to, was),
            Change::Symlink { path, target, meta, was } => self.symlink(path, target, &meta, was),
            Change::Special { path, kind, meta, was } => self.special(path, kind, &meta, was),
            Change::SetMeta { path, meta, was } => self.set_leaf_meta(path, &meta, was),
            Change::Remove { path, was } => self.remove(path, was),
            // Set last of all: see `set_root_meta`.
            Change::SetDirectoryMeta { path, meta } if path.is_root() => {
                self.root_meta = Some(meta);
                Ok(())
            }
            Change::SetDirectoryMeta { path, meta } => self.set_meta(path, &Kind::Directory, &meta, &|_| true),
        }
    }

    /// A directory that cannot be moved as asked for is not where the plan takes it to be.
    fn move_directory(&mut self, from: &RelPath, to: RelPath, exchange: bool) -> Result<(), WriteError> {
        if from.is_root() || to.is_root() || *from == to || from.is_below(&to) || to.is_below(from) {
            return Err(WriteError::Protocol("the move of a directory into itself"));
        }
        if let Some(state) = self.state_before_moves.take() {
            // From here on the root is at no known position until all changes are done.
            self.staging.write_state(&state::encode(&state)).map_err(WriteError::Failed)?;
        }
        if self.moves_protected(from, &to) || (exchange && self.moves_protected(&to, from)) {
            self.outcome.drifted += 1;
            let detail = "it is not moved, since it holds what is protected here";
            self.failed.insert(&to)?;
            self.problem(Problem::new(to, ProblemKind::Conflict, detail));
            return Ok(());
        }
        let Err(error) = self.applier.move_directory(from, &to, exchange, &self.staging) else {
            self.note_all_below(&to, Some(from));
            if exchange {
                self.note_all_below(from, Some(&to));
            }
            return Ok(());
        };
        match problem_kind(&error) {
            ProblemKind::Vanished => self.fail_as(to, ProblemKind::Conflict, error),
            kind => self.fail_as(to, kind, error),
        }
    }

    /// Whether `from` or `to` is protected, or something that would be moved is, there or here. Then the primary
    /// compares, and leaves it where it is.
    fn moves_protected(&mut self, from: &RelPath, to: &RelPath) -> bool {
        let found = self.protect.find_moved(self.applier.parents().root(), from, to);
        !matches!(found, Ok(None)) || self.protect.holds(from) || self.protect.holds(to)
    }

    fn make_directory(&mut self, path: RelPath, was: Expected) -> Result<(), WriteError> {
        self.charge_entry(&path, 1, &Meta::default())?;
        match self.applier.make_directory(&path) {
            Ok(made) => {
                if made {
                    self.note_changed(&path, true);
                }
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return self.fail(path, error),
        }
        // Something else stands there: a directory made aside takes its place in one step.
        let meta = self.local(&Kind::Directory, &Meta { mode: 0o700, ..Meta::default() });
        match self.staging.directory(&LocalMeta { uid: None, gid: None, ..meta }) {
            Ok(staged) => self.place(path, staged, Was::Known(was)).map(drop),
            Err(error) => self.fail(path, error),
        }
    }

    fn link(&mut self, path: RelPath, to: &RelPath, was: Expected) -> Result<(), WriteError> {
        if self.protect.holds(to) {
            let detail = "the file that it is a hard link of is protected here";
            self.problem(Problem::new(path, ProblemKind::Denied, detail));
            return Ok(());
        }
        if self.failed.contains(to) {
            let detail = "the file that it is a hard link of could not be brought over";
            self.problem(Problem::new(path, ProblemKind::Failed, detail));
            return Ok(());
        }
        self.charge_name(&path)?;
        let parent = self.applier.parents().parent(to);
        let staged = parent.and_then(|(dir, name)| self.staging.hard_link(&dir, name));
        match staged {
            Ok(staged) => self.place(path, staged, Was::Known(was)).map(drop),
            Err(error) => self.fail(path, error),
        }
    }

    fn symlink(&mut self, path: RelPath, target: Box<[u8]>, meta: &Meta, was: Expected) -> Result<(), WriteError> {
        self.charge_entry(&path, target.len() as u64, meta)?;
        let local = self.local(&Kind::Symlink { target: Box::default() }, meta);
        match self.staging.symlink(&target, &local) {
            Ok(mut staged) => {
                debug_assert_eq!(staged.kind(), StagedKind::Symlink);
                self.note_shortfall(
                    &path,
                    &Kind::Symlink { target: Box::default() },
                    meta,
                    std::mem::take(&mut staged.short),
                );
                self.place(path, staged, Was::Known(was)).map(drop)
            }
            Err(error) => self.fail(path, error),
        }
    }

    fn special(&mut self, path: RelPath, kind: SpecialKind, meta: &Meta, was: Expected) -> Result<(), WriteError> {
        let kind = Kind::Special(kind);
        let (Kind::Special(special), true) = (&kind, self.fidelity.has(&kind)) else {
            // The primary was told in the greeting what is made here.
            return Err(WriteError::Protocol("a special file that is not made here"));
        };
        self.charge_entry(&path, 0, meta)?;
        let local = self.local(&kind, meta);
        match self.staging.special(*special, &local) {
            Ok(mut staged) => {
                self.note_shortfall(&path, &kind, meta, std::mem::take(&mut staged.short));
                self.place(path, staged, Was::Known(was)).map(drop)
            }
            Err(error) => self.fail(path, error),
        }
    }

    /// The attributes of anything but a directory that is as expected, or has them already.
    fn set_leaf_meta(&mut self, path: RelPath, meta: &Meta, was: Expected) -> Result<(), WriteError> {
        let mtime = self.fidelity.times.held(meta.mtime);
        let (kind, done) = match was {
            Expected::File { size_bytes, .. } => (Kind::file(size_bytes), Expected::File { size_bytes, mtime }),
            Expected::Symlink { .. } => (Kind::Symlink { target: Box::default() }, Expected::Symlink { mtime }),
            Expected::Special => (Kind::Special(SpecialKind::Fifo), Expected::Special),
            _ => return Err(WriteError::Protocol("attributes of nothing, or of a directory among others")),
        };
        self.set_meta(path, &kind, meta, &|found| found == was || found == done)
    }

    pub(super) fn set_meta(
        &mut self,
        path: RelPath,
        kind: &Kind,
        meta: &Meta,
        expected: Expectation<'_>,
    ) -> Result<(), WriteError> {
        if self.failed.contains(&path) {
            return Ok(());
        }
        self.charge_attributes(meta)?;
        let local = self.local(kind, meta);
        match self.applier.set_meta(&path, kind, &local, expected) {
            Ok(MetaSet::Unexpected) => {
                self.outcome.drifted += 1;
                self.problem(Problem::new(path, ProblemKind::Conflict, "its content is not what it should be"));
                Ok(())
            }
            Ok(MetaSet::Done(short)) => {
                self.note_changed(&path, *kind == Kind::Directory);
                self.note_shortfall(&path, kind, meta, short);
                Ok(())
            }
            Err(error) => self.fail(path, error),
        }
    }

    /// Sets the attributes of the root itself, if the primary sent any, when nothing in it changes any more.
    pub(super) fn set_root_meta(&mut self) {
        let Some(meta) = self.root_meta.take() else { return };
        let local = self.local(&Kind::Directory, &meta);
        match self.applier.set_meta(&RelPath::root(), &Kind::Directory, &local, &|_| true) {
            Ok(MetaSet::Done(short)) => self.note_shortfall(&RelPath::root(), &Kind::Directory, &meta, short),
            Ok(MetaSet::Unexpected) => {}
            Err(error) => self.problem(Problem::new(RelPath::root(), problem_kind(&error), error.to_string())),
        }
    }

    fn remove(&mut self, path: RelPath, was: Expected) -> Result<(), WriteError> {
        if path.is_root() || was == Expected::Nothing {
            return Err(WriteError::Protocol("the removal of a root, or of nothing"));
        }
        self.count_deletions(1)?;
        if self.spares(&path) {
            return Ok(());
        }
        let removed = if was == Expected::Directory {
            self.applier.remove_directory(&path, &mut self.attic).map(|()| Placed::AsExpected)
        } else {
            self.applier.remove_file(&path, &|found| found == was, &mut self.attic)
        };
        match removed {
            Ok(placed) => {
                self.note_changed(&path, was == Expected::Directory);
                self.note_placed(&path, placed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // It holds nothing that the primary can know of.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && self.holds_protected(&path) => {}
            Err(error) => return self.fail(path, error),
        }
        Ok(())
    }

    /// The primary was told in the beginning if nothing is deleted here, and has told how much is.
    fn count_deletions(&mut self, count: u64) -> Result<(), WriteError> {
        if !self.policy.allow_delete {
            return Err(WriteError::Protocol("a deletion where none are allowed"));
        }
        let left = self.deletions_left.checked_sub(count);
        self.deletions_left = left.ok_or(WriteError::Protocol("more deletions than were announced"))?;
        Ok(())
    }
}
