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
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, SeekFrom, fadvise, fstat, seek};
use rustix::io::Errno;
use thiserror::Error;

use super::attributes::{self, Found};
use super::beneath::{Dir, Parents, Stat};
use super::meta::Hold;
use crate::model::{Digest, Hasher, Holes, Kind, Meta, Node, ProblemKind, RelPath, Seen};

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
    /// Where the piece of content that is being read ends, at the latest.
    data_until: u64,
    /// Holes that were passed, where they are to be kept.
    holes: Option<Holes>,
}

/// Content that was read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its digest; that of its holes counts in.
    pub digest: Digest,
    /// Whether holes were passed: then the digest is not that of the content alone.
    pub has_holes: bool,
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
        Ok(ContentReader { file, first, read_bytes: 0, hasher: Hasher::new(), data_until: u64::MAX, holes: None })
    }

    /// Lets [`ContentReader::skip_hole`] pass holes, if the file has any: they are not read.
    pub fn keeping_holes(mut self) -> Self {
        if self.first.may_have_holes() {
            self.holes = Some(Holes::default());
            self.data_until = 0;
        }
        self
    }

    /// Whether all of it was read or passed.
    pub fn is_at_end(&self) -> bool {
        self.read_bytes >= self.first.size_bytes
    }

    /// Whether holes are looked for.
    pub fn keeps_holes(&self) -> bool {
        self.holes.is_some()
    }

    /// Passes the hole that is next, if there is one; its length. To be called whenever
    /// [`ContentReader::read`] has given nothing, until that is at the end.
    ///
    /// # Errors
    /// `Changed` when the file ends early, else `Io`.
    pub fn skip_hole(&mut self) -> Result<u64, ReadError> {
        let (at, end) = (self.read_bytes, self.first.size_bytes);
        if self.holes.is_none() || at < self.data_until || at >= end {
            return Ok(0);
        }
        let data = match seek(&self.file, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            // Nothing but a hole up to the end. That the end is where it was, the last look tells.
            Err(Errno::NXIO) => end,
            // A filesystem without holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(ReadError::from(io::Error::from(errno))),
        };
        let hole = match seek(&self.file, SeekFrom::Hole(data)) {
            Ok(hole) if hole > data => hole,
            _ => end,
        };
        self.data_until = hole;
        self.read_bytes = data;
        let bytes = data.saturating_sub(at);
        if let (Some(holes), true) = (&mut self.holes, bytes > 0) {
            holes.add(at, bytes);
        }
        Ok(bytes)
    }

    /// Length at the open, in bytes: exactly as much will be read.
    pub fn size_bytes(&self) -> u64 {
        self.first.size_bytes
    }

    /// Attributes at the open.
    pub fn meta(&self) -> Meta {
        self.first.meta()
    }

    /// Its extended attributes, and why some of them are left out. What changes them later changes the file.
    ///
    /// # Errors
    /// `Io`.
    pub fn attributes(&self) -> Result<Found, ReadError> {
        attributes::read(Hold::Open(self.file.as_fd())).map_err(ReadError::Io)
    }

    /// What the file was at the open, as an index keeps it.
    pub fn seen(&self, name: &[u8]) -> Seen {
        let node = Node { name: name.into(), kind: Kind::file(self.first.size_bytes), meta: self.first.meta() };
        Seen { node, inode: self.first.inode() }
    }

    /// What the file was at the open.
    pub fn stat(&self) -> &Stat {
        &self.first
    }

    /// Reads and hashes the next bytes into `buf`; 0 after [`ContentReader::size_bytes`] bytes, and before a
    /// hole that may be passed.
    ///
    /// # Errors
    /// `Changed` when the file ends early, else `Io`.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        let left = self.first.size_bytes.min(self.data_until).saturating_sub(self.read_bytes);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if take == 0 {
            return Ok(0);
        }
        loop {
            match self.file.read_at(&mut buf[..take], self.read_bytes) {
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
    pub fn finish(mut self) -> Result<Whole, ReadError> {
        let last = Stat::from(fstat(&self.file).map_err(io::Error::from)?);
        let seen = |stat: &Stat| (stat.size_bytes, stat.mtime, stat.ctime, stat.ino);
        if self.read_bytes == self.first.size_bytes && seen(&last) == seen(&self.first) {
            let trailer = self.holes.as_ref().and_then(Holes::trailer);
            if let Some(trailer) = &trailer {
                self.hasher.update(trailer);
            }
            Ok(Whole { digest: self.hasher.finish(), has_holes: trailer.is_some() })
        } else {
            Err(ReadError::Changed)
        }
    }

    /// Reads what is left, holes as the zeros that they are, and finishes; `scratch` is the buffer to use.
    ///
    /// # Errors
    /// As [`ContentReader::read`] and [`ContentReader::finish`].
    pub fn digest(mut self, scratch: &mut [u8]) -> Result<Digest, ReadError> {
        (self.data_until, self.holes) = (u64::MAX, None);
        while self.read(scratch)? > 0 {}
        Ok(self.finish()?.digest)
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, is_unprivileged, path};
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn open(fixture: &Fixture, name: &str) -> Result<ContentReader, ReadError> {
        ContentReader::open(&mut Parents::new(&fixture.root), &path(name))
    }

    #[test]
    fn whole_content_has_its_digest() {
        let text = "x".repeat(3 << 20);
        let fixture = Fixture::with(&["d", "d/f=hello", "empty="]);
        fs::write(fixture.path.join("large"), &text).unwrap();
        for (name, content) in [("d/f", "hello"), ("empty", ""), ("large", &text)] {
            let reader = open(&fixture, name).unwrap();
            assert_eq!(reader.size_bytes(), content.len() as u64);
            assert_eq!(reader.digest(&mut [0; 4096]).unwrap(), Digest::of(content.as_bytes()));
        }
    }

    #[test]
    fn torn_content_is_never_whole() {
        type Change = fn(&std::path::Path);
        let changes: [(&str, Change); 5] = [
            ("grows", |at| fs::OpenOptions::new().append(true).open(at).unwrap().write_all(b"more").unwrap()),
            ("shrinks", |at| fs::OpenOptions::new().write(true).open(at).unwrap().set_len(3).unwrap()),
            ("is written over", |at| {
                let mut file = fs::OpenOptions::new().write(true).open(at).unwrap();
                file.write_all(b"H").unwrap();
                // A coarse clock must not hide it from the test.
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }),
            ("has its times put back", |at| {
                let file = fs::OpenOptions::new().write(true).open(at).unwrap();
                file.set_modified(file.metadata().unwrap().modified().unwrap()).unwrap();
                file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
            }),
            ("is emptied", |at| fs::write(at, "").unwrap()),
        ];
        for (what, change) in changes {
            let fixture = Fixture::with(&["f=hello world"]);
            let mut reader = open(&fixture, "f").unwrap();
            reader.read(&mut [0; 2]).unwrap();
            wait_for_a_tick(&fixture);
            change(&fixture.path.join("f"));
            let result = reader.digest(&mut [0; 64]);
            assert!(matches!(result, Err(ReadError::Changed)), "{what}: {result:?}");
        }
    }

    /// Until the filesystem's clock has moved on from now.
    fn wait_for_a_tick(fixture: &Fixture) {
        let probe = fixture.outside.join("secret");
        let ctime = || {
            fs::set_permissions(&probe, fs::Permissions::from_mode(0o644)).unwrap();
            let meta = fs::metadata(&probe).unwrap();
            use std::os::unix::fs::MetadataExt;
            (meta.ctime(), meta.ctime_nsec())
        };
        let start = ctime();
        while ctime() == start {}
    }

    #[test]
    fn what_is_replaced_while_it_is_read_is_read_whole_as_it_was() {
        let fixture = Fixture::with(&["f=old content", "new=new"]);
        let mut reader = open(&fixture, "f").unwrap();
        reader.read(&mut [0; 2]).unwrap();
        fs::rename(fixture.path.join("new"), fixture.path.join("f")).unwrap();
        // The unlinking changes the ctime: it counts as changed, and the next try reads the new one.
        assert!(!matches!(reader.digest(&mut [0; 64]), Ok(digest) if digest != Digest::of(b"old content")));
        assert_eq!(open(&fixture, "f").unwrap().digest(&mut [0; 64]).unwrap(), Digest::of(b"new"));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let fixture = Fixture::with(&["d", "l>f", "f=x"]);
        assert!(matches!(open(&fixture, "none"), Err(ReadError::Vanished)));
        assert!(matches!(open(&fixture, "f/x"), Err(ReadError::Vanished)));
        assert!(matches!(open(&fixture, "d"), Err(ReadError::NotRegular)));
        assert!(matches!(open(&fixture, "l"), Err(ReadError::NotRegular)));
        assert!(open_basis(&mut Parents::new(&fixture.root), &path("l")).is_err());
        assert_eq!(open_basis(&mut Parents::new(&fixture.root), &path("f")).unwrap().1.size_bytes, 1);
    }

    #[test]
    fn a_file_without_the_right_to_read_is_denied() {
        if is_unprivileged("tree::read::tests::a_file_without_the_right_to_read_is_denied") {
            let fixture = Fixture::with(&["f=x"]);
            fs::set_permissions(fixture.path.join("f"), fs::Permissions::from_mode(0o000)).unwrap();
            assert!(matches!(open(&fixture, "f"), Err(ReadError::Denied)));
        }
    }
}
