//! `.rfleet` of a root, and what a receiver remembers in it.

use std::io::{self, Read};

use rustix::io::Errno;
use rustix::process::geteuid;

use super::beneath::{Dir, LIST, Root};
use super::stage::StageError;
use crate::model::{RESERVED_NAME, RelPath, Timestamp};

pub(super) const STATE: &[u8] = b"state";

/// A state is a handful of numbers and names; anything longer is not ours.
pub(super) const MAX_STATE_BYTES: u64 = 64 * 1024;

/// The state that a receiver left in `root`; creates nothing. `None` if there is none.
///
/// # Errors
/// `InvalidData` if `.rfleet` or its state is not what a receiver of this user makes, else the
/// operating system's.
pub fn read_state(root: &Root) -> io::Result<Option<Vec<u8>>> {
    Ok(read_dated_state(root)?.map(|(bytes, _)| bytes))
}

/// As [`read_state`], with the time at which it was written.
///
/// # Errors
/// As for [`read_state`].
pub fn read_dated_state(root: &Root) -> io::Result<Option<(Vec<u8>, Timestamp)>> {
    let top = root.dir(&RelPath::root())?;
    match open_home(&top) {
        Ok(Some(home)) => state_in(&home),
        Ok(None) => Ok(None),
        Err(StageError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
    }
}

pub(super) fn state_in(home: &Dir) -> io::Result<Option<(Vec<u8>, Timestamp)>> {
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "`.rfleet/state` is not a state file of this user");
    let (file, stat) = match home.open_file(STATE) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => return Err(foreign()),
        Err(error) => return Err(error),
    };
    if stat.uid != geteuid().as_raw() || stat.size_bytes > MAX_STATE_BYTES {
        return Err(foreign());
    }
    let mut bytes = Vec::new();
    file.take(MAX_STATE_BYTES).read_to_end(&mut bytes)?;
    Ok(Some((bytes, stat.mtime)))
}

/// `.rfleet`, if it is there and is the effective user's.
pub(super) fn open_home(top: &Dir) -> Result<Option<Dir>, StageError> {
    let home = match top.open(RESERVED_NAME, LIST).map(|fd| Dir { fd }) {
        Ok(home) => home,
        Err(error) => {
            return match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => Ok(None),
                Some(Errno::NOTDIR | Errno::LOOP) => Err(StageError::NotADirectory),
                _ => Err(StageError::Io(error)),
            };
        }
    };
    let owner = home.stat_self()?.uid;
    if owner == geteuid().as_raw() { Ok(Some(home)) } else { Err(StageError::Foreign { owner }) }
}
