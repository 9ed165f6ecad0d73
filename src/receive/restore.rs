//! What an operator brings back from a root's attic.

use std::io;

use thiserror::Error;

use super::state::{self, unknown_position};
use crate::model::{Kind, RelPath, Timestamp, session_name};
use crate::tree::{
    Applier, KeptSession, KeptSessions, Over, Placed, RestoreShort, Root, StageError, Staging, Stat, copy_kept_to,
    directory_looks,
};

/// What is to be brought back.
#[derive(Clone, Debug)]
pub struct Wanted<'w> {
    /// As it was in the root.
    pub path: &'w RelPath,
    /// The session that it is taken from, or its directory in the attic; without one the newest that has it.
    pub from: Option<&'w str>,
}

/// What was brought back.
#[derive(Clone, Debug)]
pub struct Restored {
    /// From where.
    pub session: KeptSession,
    /// What could not be set.
    pub short: RestoreShort,
    /// What was there is in the attic now.
    pub replaced: bool,
}

/// Why nothing was brought back.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The attic has no such path.
    #[error("the attic has no {0}")]
    NotKept(RelPath),
    /// It has no such session.
    #[error("the attic has no session `{}`", .0.escape_debug())]
    NoSession(String),
    /// What it has there is a directory that was not deleted itself.
    #[error("the attic has entries of the directory {0}, but not the directory: name one of them")]
    OnlyBelow(RelPath),
    /// Something is there.
    #[error("{0} exists; nothing was changed")]
    Exists(RelPath),
    /// A directory is there.
    #[error("{0} is a directory, which is not replaced; nothing was changed")]
    IsDirectory(RelPath),
    /// The root cannot be taken.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The operating system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Copies what is wanted to its place in `root`, where nothing may be unless `force`; then what is there goes to the
/// attic, as of a session at `now`. The next push compares everything.
///
/// # Errors
/// [`RestoreError`]; the root is as it was.
pub fn restore(root: &Root, wanted: &Wanted<'_>, force: bool, now: Timestamp) -> Result<Restored, RestoreError> {
    let (session, kept) = find(root, wanted)?;
    let path = wanted.path;
    let staging = Staging::open(root)?;
    let bytes = staging.read_state()?;
    let mut applier = Applier::new(root);
    let outcome = (|| {
        check_place(root, path, force)?;
        let (staged, short) = staging.copy_kept(&kept, path, session.why)?;
        make_way(root, &mut applier, &kept, &session, path)?;
        if let Some(unknown) = unknown_position(bytes.as_deref().and_then(state::decode).as_ref()) {
            staging.write_state(&state::encode(&unknown))?;
        }
        let placed = if force {
            let mut attic = staging.attic(&session_name(now, std::process::id()))?;
            let over = Over { expected: &|found| found == crate::model::Expected::Nothing, directory: None };
            applier.place(staged, path, over, &mut attic)
        } else {
            applier.place_new(staged, path).map(|()| Placed::AsExpected)
        };
        let replaced = match placed {
            Ok(placed) => placed == Placed::KeptAside,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(RestoreError::Exists(path.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                return Err(RestoreError::IsDirectory(path.clone()));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Restored { session, short, replaced })
    })();
    applier.restore_loosened();
    let synced = applier.sync();
    staging.finish(bytes.is_some())?;
    let restored = outcome?;
    synced?;
    Ok(restored)
}

/// Copies what is wanted into the directory `dest`, anywhere, where nothing may have its name.
///
/// # Errors
/// [`RestoreError`]; nothing was changed.
pub fn restore_to(root: &Root, wanted: &Wanted<'_>, dest: &Root) -> Result<Restored, RestoreError> {
    let (session, kept) = find(root, wanted)?;
    match copy_kept_to(&kept, wanted.path, session.why, dest, wanted.path.name()) {
        Ok(short) => Ok(Restored { session, short, replaced: false }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(RestoreError::Exists(wanted.path.clone())),
        Err(error) => Err(error.into()),
    }
}

/// The newest session that has what is wanted, opened.
fn find(root: &Root, wanted: &Wanted<'_>) -> Result<(KeptSession, Root), RestoreError> {
    let not_kept = || RestoreError::NotKept(wanted.path.clone());
    let (parent, name) = wanted.path.split().ok_or_else(not_kept)?;
    let attic = KeptSessions::open(root)?.ok_or_else(not_kept)?;
    let mut sessions = attic.sessions()?;
    if let Some(from) = wanted.from {
        sessions.retain(|one| one.session == from || one.directory == from);
        if sessions.is_empty() {
            return Err(RestoreError::NoSession(from.to_owned()));
        }
    }
    let mut only_below = false;
    for session in sessions {
        let kept = attic.open_session(&session)?;
        match kept.dir(&parent).and_then(|dir| dir.stat(name)) {
            Ok(stat) if session.is_way(&stat) => only_below = true,
            Ok(_) => return Ok((session, kept)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(if only_below { RestoreError::OnlyBelow(wanted.path.clone()) } else { not_kept() })
}

/// A look before the work; what comes to be there after it is noticed when the copy takes its place.
fn check_place(root: &Root, path: &RelPath, force: bool) -> Result<(), RestoreError> {
    match look(root, path) {
        Ok(there) if there.is_directory() && force => Err(RestoreError::IsDirectory(path.clone())),
        Ok(_) if !force => Err(RestoreError::Exists(path.clone())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn look(root: &Root, path: &RelPath) -> io::Result<Stat> {
    let Some((parent, name)) = path.split() else { return root.stat() };
    root.dir(&parent)?.stat(name)
}

/// Makes the directories that lead to `path`, where they are missing: as the attic has them, else as the one above.
fn make_way(
    root: &Root,
    applier: &mut Applier,
    kept: &Root,
    session: &KeptSession,
    path: &RelPath,
) -> Result<(), RestoreError> {
    let mut missing = Vec::new();
    let mut at = path.clone();
    while let Some((parent, _)) = at.split().filter(|(parent, _)| !parent.is_root()) {
        match look(root, &parent) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(parent.clone()),
            Err(error) => return Err(error.into()),
        }
        at = parent;
    }
    for directory in missing.into_iter().rev() {
        let above = look(root, &directory.split().map(|(parent, _)| parent).unwrap_or_else(RelPath::root))?;
        let looks = directory_looks(kept, &directory, session.why, &above)?;
        if applier.make_directory(&directory)? {
            // What cannot be set is told of what was asked for, not of the way there.
            let _ = applier.set_meta(&directory, &Kind::Directory, &looks, &|_| true)?;
        }
    }
    Ok(())
}
