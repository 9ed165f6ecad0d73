//! Where a root keeps what was in the way of a change and was not what the change expected: [`Attic`].
//!
//! ```text
//! ROOT/.rfleet/attic/20261121T134500Z-4711/   one directory for each session that keeps something
//!                    as/in/the/root           with its attributes; directories on the way are 0700
//! ```
//!
//! Entries come here by rename, so they keep everything that they have, cost no room and never leave
//! their filesystem. Nothing here is replaced: a name that is taken gets a number.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::geteuid;

use super::beneath::{Dir, errno};
use super::stage::StageDir;
use crate::model::{MAX_NAME_BYTES, RESERVED_NAME, RelPath};

/// Below `.rfleet`.
pub(super) const ATTIC: &[u8] = b"attic";

/// How many names are tried for one entry. A session keeps a path again only when someone else
/// goes on writing there.
const MAX_NUMBER: u32 = 10_000;

/// The attic of one session. Made when something is first kept.
#[derive(Debug)]
pub struct Attic {
    /// `.rfleet`.
    home: Dir,
    /// Where entries are looked at before they are kept.
    pub(super) stage: Arc<StageDir>,
    session: String,
    top: Option<Arc<Dir>>,
    /// The directory used last, by its path in the root.
    last: Option<(Box<[u8]>, Arc<Dir>)>,
}

/// Something in the attic.
pub(super) struct Kept {
    pub(super) dir: Arc<Dir>,
    pub(super) name: Vec<u8>,
}

impl Attic {
    /// `session` is one name, the same for everything that a session keeps.
    pub(super) fn new(home: Dir, stage: Arc<StageDir>, session: &str) -> Self {
        Attic { home, stage, session: session.to_owned(), top: None, last: None }
    }

    /// The session's directory, as a path below the root; for messages.
    pub fn place(&self) -> String {
        format!("{}/{}/{}", RESERVED_NAME.escape_ascii(), ATTIC.escape_ascii(), self.session)
    }

    /// Moves `name` in `from` here, under the path that it has in the root.
    ///
    /// # Errors
    /// The operating system's; then it is where it was.
    pub(super) fn take(&mut self, from: &Dir, name: &[u8], path: &RelPath) -> io::Result<Kept> {
        let (parent, wanted) = path.split_bytes().ok_or(Errno::INVAL)?;
        let dir = self.directory(parent)?;
        for number in 0..MAX_NUMBER {
            let here = numbered(wanted, number);
            let taken = from.rename_to_nothing(name, &dir, &here);
            if errno(&taken) != Some(Errno::EXIST) {
                return taken.map(|()| Kept { dir, name: here });
            }
        }
        Err(Errno::EXIST.into())
    }

    /// The directory for what was in `parent`, made where it is missing.
    fn directory(&mut self, parent: &[u8]) -> io::Result<Arc<Dir>> {
        if let Some((known, dir)) = &self.last
            && **known == *parent
        {
            return Ok(Arc::clone(dir));
        }
        let mut at = self.top()?;
        for name in parent.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            at = Arc::new(enter(&at, name)?);
        }
        self.last = Some((parent.into(), Arc::clone(&at)));
        Ok(at)
    }

    fn top(&mut self) -> io::Result<Arc<Dir>> {
        if let Some(top) = &self.top {
            return Ok(Arc::clone(top));
        }
        let attic = make_and_open(&self.home, ATTIC)?;
        if attic.stat_self()?.uid != geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "`.rfleet/attic` belongs to another user"));
        }
        let top = Arc::new(make_and_open(&attic, self.session.as_bytes())?);
        Ok(Arc::clone(self.top.insert(top)))
    }
}

/// The directory `name` in `at`, or one with a number where something else is kept under this name.
fn enter(at: &Dir, name: &[u8]) -> io::Result<Dir> {
    for number in 0..MAX_NUMBER {
        let opened = make_and_open(at, &numbered(name, number));
        if !matches!(errno(&opened), Some(Errno::NOTDIR | Errno::LOOP)) {
            return opened;
        }
    }
    Err(Errno::EXIST.into())
}

fn make_and_open(at: &Dir, name: &[u8]) -> io::Result<Dir> {
    let made = at.mkdir(name, 0o700);
    if !matches!(errno(&made), None | Some(Errno::EXIST)) {
        made?;
    }
    at.open_dir_same_mount(name)
}

/// `name` for 0, else `name.number`, cut so that it stays a name.
fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    if number == 0 {
        return name.to_vec();
    }
    let suffix = format!(".{number}");
    let mut numbered = name[..name.len().min(MAX_NAME_BYTES - suffix.len())].to_vec();
    numbered.extend_from_slice(suffix.as_bytes());
    numbered
}
