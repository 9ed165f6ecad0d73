//! Content that cannot be torn.
//!
//! A file is opened below the root, looked at, read and hashed in one pass, and looked at again.
//! What was read counts only if both looks agree and exactly the announced number of bytes came.
//! No mapping of a live file: a truncation would kill the process.
//!
//! RACE: where the filesystem's clock is coarser than two writes of equal length, a write that
//! follows the first look within one tick of the write before it is not seen. Kernels before 6.13
//! tick at 1 to 10 ms; the next cycle sees such a file unless nothing in it changes any more.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::Errno;
use thiserror::Error;

use super::beneath::{Dir, Parents, Stat};
use crate::model::{Digest, Hasher, Meta, ProblemKind, RelPath};

/// Below this, the kernel's first read-ahead covers the file and advice only costs a call.
const ADVISE_FROM_BYTES: u64 = 1 << 20;

/// Why content could not be read whole.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is gone.
    #[error("it vanished")]
    Vanished,
    /// It is no longer a regular file.
    #[error("it is not a regular file any more")]
    NotRegular,
    /// It changed while it was read; another try may succeed.
    #[error("it changed while it was read")]
    Changed,
    /// There is no right to read it.
    #[error("permission denied")]
    Denied,
    /// The operating system fails otherwise.
    #[error("{0}")]
    Io(io::Error),
}

impl ReadError {
    /// The class of problem this is.
    pub fn problem_kind(&self) -> ProblemKind {
        match self {
            ReadError::Vanished | ReadError::NotRegular => ProblemKind::Vanished,
            ReadError::Changed => ProblemKind::Changing,
            ReadError::Denied | ReadError::Io(_) => ProblemKind::Unreadable,
        }
    }
}

impl From<&ReadError> for ProblemKind {
    fn from(error: &ReadError) -> Self {
        error.problem_kind()
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            // ENOTDIR: a parent was replaced. ESTALE: removed on a file server.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => ReadError::Vanished,
            // A symbolic link, a socket, a directory opened for what it is not.
            Some(Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::NODEV) => ReadError::NotRegular,
            Some(Errno::ACCESS | Errno::PERM) => ReadError::Denied,
            _ => ReadError::Io(error),
        }
    }
}

/// One file being read, once, from its start to its end.
pub struct ContentReader {
    file: File,
    first: Stat,
    read_bytes: u64,
    hasher: Hasher,
}

impl ContentReader {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// [`ReadError`], never `Changed`.
    pub fn open(parents: &mut Parents, path: &RelPath) -> Result<Self, ReadError> {
        let (dir, name) = parents.parent(path)?;
        Self::open_in(&dir, name)
    }

    /// Opens the file `name` of `dir`.
    ///
    /// # Errors
    /// [`ReadError`], never `Changed`.
    pub fn open_in(dir: &Dir, name: &[u8]) -> Result<Self, ReadError> {
        let (file, first) = dir.open_file(name)?;
        if first.size_bytes >= ADVISE_FROM_BYTES {
            // Only advice; a filesystem that ignores it is read all the same.
            let _ = fadvise(&file, 0, None, Advice::Sequential);
        }
        Ok(ContentReader { file, first, read_bytes: 0, hasher: Hasher::new() })
    }

    /// Length at the open, in bytes: exactly as much will be read.
    pub fn size_bytes(&self) -> u64 {
        self.first.size_bytes
    }

    /// Attributes at the open.
    pub fn meta(&self) -> Meta {
        self.first.meta()
    }

    /// What the file was at the open.
    pub fn stat(&self) -> &Stat {
        &self.first
    }

    /// Reads and hashes the next bytes into `buf`; 0 after [`ContentReader::size_bytes`] bytes.
    ///
    /// # Errors
    /// `Changed` when the file ends early, else `Io`.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        let left = self.first.size_bytes - self.read_bytes;
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if take == 0 {
            return Ok(0);
        }
        loop {
            match self.file.read(&mut buf[..take]) {
                Ok(0) => return Err(ReadError::Changed),
                Ok(count) => {
                    self.hasher.update(&buf[..count]);
                    self.read_bytes += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::from(error)),
            }
        }
    }

    /// The digest of the whole content, if it is whole and was not changed meanwhile.
    ///
    /// # Errors
    /// `Changed` if any of this does not hold, else `Io`.
    pub fn finish(self) -> Result<Digest, ReadError> {
        let last = Stat::from(fstat(&self.file).map_err(io::Error::from)?);
        let seen = |stat: &Stat| (stat.size_bytes, stat.mtime, stat.ctime, stat.ino);
        if self.read_bytes == self.first.size_bytes && seen(&last) == seen(&self.first) {
            Ok(self.hasher.finish())
        } else {
            Err(ReadError::Changed)
        }
    }

    /// Reads what is left and finishes; `scratch` is the buffer to use.
    ///
    /// # Errors
    /// As [`ContentReader::read`] and [`ContentReader::finish`].
    pub fn digest(mut self, scratch: &mut [u8]) -> Result<Digest, ReadError> {
        while self.read(scratch)? > 0 {}
        self.finish()
    }
}

/// Opens a receiver's own old file `path` as the basis of a delta. It may change while it is
/// read: what is built from it is checked as a whole before it is used.
///
/// # Errors
/// `ELOOP` if it is not a regular file, else the operating system's.
pub fn open_basis(parents: &mut Parents, path: &RelPath) -> io::Result<(File, Stat)> {
    let (dir, name) = parents.parent(path)?;
    dir.open_file(name)
}
