//! Changes without content.

use super::writer::{WriteError, Writer};
use crate::model::{Expected, Kind, Meta, Problem, ProblemKind, RelPath};
use crate::tree::StagedKind;
use crate::wire::Change;

impl Writer<'_> {
    /// Carries out one change. What the operating system refuses is a problem of its path.
    pub(super) fn change(&mut self, change: Change) -> Result<(), WriteError> {
        match change {
            Change::Move { from, to, exchange } => self.move_directory(&from, &to, exchange),
            Change::Expect { .. } => Ok(()),
            Change::Reuse { path, .. } => self.reuse(path),
            Change::MakeDirectory { path, .. } => self.make_directory(path),
            Change::ReplaceDirectory { path, .. } => {
                self.may_delete(&path)?;
                self.replaceable.insert(path);
                Ok(())
            }
            Change::Link { path, to, .. } => self.link(path, &to),
            Change::Symlink { path, target, meta, .. } => self.symlink(path, target, &meta),
            Change::SetMeta { path, meta, was } => {
                let kind = if matches!(was, Expected::Symlink { .. }) {
                    Kind::Symlink { target: Box::default() }
                } else {
                    Kind::file(0)
                };
                self.set_meta(path, &kind, &meta)
            }
            Change::Remove { path, was } => self.remove(path, was == Expected::Directory),
            Change::SetDirectoryMeta { path, meta } => self.set_meta(path, &Kind::Directory, &meta),
        }
    }

    fn move_directory(&mut self, from: &RelPath, to: &RelPath, exchange: bool) -> Result<(), WriteError> {
        let moved = if exchange { Err(std::io::ErrorKind::Unsupported.into()) } else { self.applier.move_to(from, to) };
        moved.or_else(|error| self.fail(to.clone(), error))
    }

    fn reuse(&mut self, path: RelPath) -> Result<(), WriteError> {
        self.resend.push(path);
        Ok(())
    }

    fn make_directory(&mut self, path: RelPath) -> Result<(), WriteError> {
        match self.applier.make_directory(&path) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return self.fail(path, error),
        }
        // Something else stands there: a directory made aside takes its place in one step.
        let meta = self.local(&Kind::Directory, &Meta { mode: 0o700, ..Meta::default() });
        let plain = crate::tree::LocalMeta { uid: None, gid: None, ..meta };
        match self.staging.directory(&plain) {
            Ok(staged) => self.place(path, staged),
            Err(error) => self.fail(path, error),
        }
    }

    fn link(&mut self, path: RelPath, to: &RelPath) -> Result<(), WriteError> {
        if self.failed.contains(to) {
            let detail = "the file that it is a hard link of could not be brought over";
            self.problem(Problem::new(path, ProblemKind::Failed, detail));
            return Ok(());
        }
        let parent = self.applier.parents().parent(to);
        let staged = parent.and_then(|(dir, name)| self.staging.hard_link(&dir, name));
        match staged {
            Ok(staged) => self.place(path, staged),
            Err(error) => self.fail(path, error),
        }
    }

    fn symlink(&mut self, path: RelPath, target: Box<[u8]>, meta: &Meta) -> Result<(), WriteError> {
        let local = self.local(&Kind::Symlink { target: Box::default() }, meta);
        match self.staging.symlink(&target, &local) {
            Ok(staged) => {
                debug_assert_eq!(staged.kind(), StagedKind::Symlink);
                self.note_owner(meta, staged.owner_denied);
                self.place(path, staged)
            }
            Err(error) => self.fail(path, error),
        }
    }

    pub(super) fn set_meta(&mut self, path: RelPath, kind: &Kind, meta: &Meta) -> Result<(), WriteError> {
        if self.failed.contains(&path) {
            return Ok(());
        }
        let local = self.local(kind, meta);
        match self.applier.set_meta(&path, kind, &local) {
            Ok(denied) => {
                self.note_owner(meta, denied);
                Ok(())
            }
            Err(error) => self.fail(path, error),
        }
    }

    fn remove(&mut self, path: RelPath, directory: bool) -> Result<(), WriteError> {
        if path.is_root() {
            return Err(WriteError::Protocol("the removal of a root"));
        }
        self.may_delete(&path)?;
        let left = self.deletions_left.checked_sub(1);
        self.deletions_left = left.ok_or(WriteError::Protocol("more deletions than were announced"))?;
        let removed = if directory { self.applier.remove_directory(&path) } else { self.applier.remove_file(&path) };
        match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => self.fail(path, error),
            Ok(()) => Ok(()),
        }
    }

    /// The primary was told in the beginning that nothing is deleted here.
    fn may_delete(&self, _path: &RelPath) -> Result<(), WriteError> {
        if self.policy.allow_delete { Ok(()) } else { Err(WriteError::Protocol("a deletion where none are allowed")) }
    }
}
