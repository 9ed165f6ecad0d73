//! How a session ends before its commit, and what the primary is told then.

use std::io;
use std::path::Path;

use super::writer::WriteError;
use crate::model::ProblemKind;
use crate::tree::{Root, StageError, problem_kind};
use crate::wire::{Begin, Hello, Refusal, RefusalKind, WireError};

/// Room that is left for others on the filesystem.
pub(super) const SPARE_BYTES: u64 = 1 << 20;

/// Longest name of a fleet, a root, a primary or its software.
const MAX_NAME_BYTES: usize = 4096;

/// How a session ends early.
pub(super) enum End {
    Refused(Refusal),
    Wire(WireError),
    Interrupted,
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        End::Wire(error)
    }
}

/// The primary is told why.
pub(super) fn refuse(kind: RefusalKind, message: impl Into<String>) -> End {
    End::Refused(Refusal { kind, message: message.into() })
}

/// The primary does not keep to the protocol.
pub(super) fn misplaced(what: &str) -> End {
    refuse(RefusalKind::BadRequest, format!("the primary sent {what} where that has no place"))
}

/// How taking changes can end early.
pub(super) enum WriteEnd {
    Session(End),
    Write(WriteError),
}

impl From<End> for WriteEnd {
    fn from(end: End) -> Self {
        WriteEnd::Session(end)
    }
}

impl From<WriteError> for WriteEnd {
    fn from(error: WriteError) -> Self {
        WriteEnd::Write(error)
    }
}

impl WriteEnd {
    /// As the end of the session of the root at `path`.
    pub(super) fn on(self, path: &Path) -> End {
        match self {
            WriteEnd::Session(end) => end,
            WriteEnd::Write(error) => write_refusal(path, &error),
        }
    }
}

/// Refuses a greeting with names that no fleet, root or host has: they go into records and messages.
pub(super) fn check_names(hello: &Hello) -> Result<(), End> {
    let fleet = hello.fleet.as_deref().unwrap_or_default();
    let fits = [fleet, &hello.root, &hello.primary, &hello.software].iter().all(|name| name.len() <= MAX_NAME_BYTES);
    if fits { Ok(()) } else { Err(misplaced("a name that is too long")) }
}

/// Whether what comes fits, as far as the primary has counted it.
pub(super) fn has_room(root: &Root, begin: &Begin) -> bool {
    check_room(root, begin, Path::new("")).is_ok()
}

/// Refuses before anything is changed what would not fit.
pub(super) fn check_room(root: &Root, begin: &Begin, path: &Path) -> Result<(), End> {
    let Ok(free) = root.free() else { return Ok(()) };
    if begin.need_bytes > 0 && begin.need_bytes.saturating_add(SPARE_BYTES) > free.bytes {
        let message = format!(
            "{}: the disk is too full: {} bytes are needed and {} are free; nothing was changed",
            path.display(),
            begin.need_bytes,
            free.bytes
        );
        return Err(refuse(RefusalKind::NoSpace, message));
    }
    if let Some(free_inodes) = free.inodes.filter(|free| begin.need_inodes > *free) {
        let message = format!(
            "{}: the filesystem has too few inodes: {} are needed and {} are free; nothing was changed",
            path.display(),
            begin.need_inodes,
            free_inodes
        );
        return Err(refuse(RefusalKind::NoSpace, message));
    }
    Ok(())
}

pub(super) fn stage_refusal(path: &Path, error: &StageError) -> End {
    if let StageError::Io(error) = error
        && problem_kind(error) == ProblemKind::NoSpace
    {
        return no_space(path, error);
    }
    let kind = if matches!(error, StageError::Busy) { RefusalKind::Busy } else { RefusalKind::BadRoot };
    refuse(kind, format!("{}: {error}", path.display()))
}

/// Of the disk, or of a quota of the filesystem's for this user or directory.
fn no_space(path: &Path, error: &io::Error) -> End {
    let message = format!("{}: no room is left: {error}; what was under way was discarded", path.display());
    refuse(RefusalKind::NoSpace, message)
}

pub(super) fn write_refusal(path: &Path, error: &WriteError) -> End {
    match error {
        WriteError::NoSpace(error) => no_space(path, error),
        WriteError::Quota(why) => {
            refuse(RefusalKind::NoSpace, format!("{}: {why}; what was under way was discarded", path.display()))
        }
        // A sync tells of writes that went before.
        WriteError::Failed(error) if problem_kind(error) == ProblemKind::NoSpace => no_space(path, error),
        WriteError::Failed(error) => refuse(RefusalKind::Failed, format!("{}: {error}", path.display())),
        WriteError::Protocol(what) => misplaced(what),
    }
}
