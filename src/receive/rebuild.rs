//! A file that comes in pieces: made in the stage from literals and from this side's own old file.
//!
//! What is made counts only when its length and the digest of the whole are the announced ones. The old file
//! may change while it is read: then the digest does not match, and the file is asked for in full.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::writer::{WriteError, Writer};
use crate::delta::{Op, PatchCheck};
use crate::model::{Digest, Hasher, Kind, Meta, RelPath, Timestamp};
use crate::tree::{StagedFile, open_basis};

/// How much of a basis is read at a time.
pub(super) const COPY_BYTES: usize = 256 << 10;

/// A file that comes in pieces.
pub(super) struct Open {
    path: RelPath,
    meta: Meta,
    size_bytes: u64,
    /// `None` when what comes for it is to be passed over.
    target: Option<Target>,
}

struct Target {
    staged: StagedFile,
    basis: Option<File>,
    check: PatchCheck,
    hasher: Hasher,
    /// Whether the content ends with a hole, so that the length must be set.
    hole_at_end: bool,
}

impl Writer<'_> {
    pub(super) fn begin(
        &mut self,
        path: RelPath,
        meta: Meta,
        size_bytes: u64,
        basis: Option<(u64, Timestamp)>,
    ) -> Result<(), WriteError> {
        let mut open = Open { path, meta, size_bytes, target: None };
        let mut basis_file = None;
        let mut basis_bytes = 0;
        if let Some((expected_bytes, mtime)) = basis {
            match open_basis(self.applier.parents(), &open.path) {
                Ok((file, stat)) if stat.size_bytes == expected_bytes && stat.mtime == mtime => {
                    (basis_file, basis_bytes) = (Some(file), expected_bytes);
                }
                _ => {
                    self.resend.push(open.path.clone());
                    self.open = Some(open);
                    return Ok(());
                }
            }
        }
        let local = self.local(&Kind::file(size_bytes), &open.meta);
        match self.staging.create_file(local.mode) {
            Ok(staged) => {
                open.target = Some(Target {
                    staged,
                    basis: basis_file,
                    check: PatchCheck::new(basis_bytes, size_bytes),
                    hasher: Hasher::new(),
                    hole_at_end: false,
                });
            }
            Err(error) => self.fail(open.path.clone(), error)?,
        }
        self.open = Some(open);
        Ok(())
    }

    pub(super) fn piece(&mut self, op: Op<'_>) -> Result<(), WriteError> {
        let open = self.open.as_mut().ok_or(WriteError::Protocol("a piece of a file that did not begin"))?;
        let Some(target) = &mut open.target else { return Ok(()) };
        target.check.check(&op).map_err(|_| WriteError::Protocol("a piece that does not fit its file"))?;
        target.hole_at_end = false;
        let written = match op {
            Op::Literal(content) => {
                target.hasher.update(content);
                target.staged.file().write_all(content)
            }
            Op::Copy { offset, len } => target.copy(offset, len, &mut self.buffer),
        };
        self.bytes_done += match op {
            Op::Literal(content) => content.len() as u64,
            Op::Copy { len, .. } => len,
        };
        match written {
            Ok(()) => Ok(()),
            Err(error) => self.fail_open(error),
        }
    }

    pub(super) fn hole(&mut self, bytes: u64) -> Result<(), WriteError> {
        let open = self.open.as_mut().ok_or(WriteError::Protocol("a piece of a file that did not begin"))?;
        let Some(target) = &mut open.target else { return Ok(()) };
        // As a literal of that length, which it stands for: it must fit, and its zeros are hashed.
        let mut left = bytes;
        let zeros = [0; 64 << 10];
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
            let fits = target.check.check(&Op::Literal(&zeros[..step]));
            fits.map_err(|_| WriteError::Protocol("a hole that does not fit its file"))?;
            target.hasher.update(&zeros[..step]);
            left -= step as u64;
        }
        target.hole_at_end = true;
        let skip = i64::try_from(bytes).map_err(|_| WriteError::Protocol("a hole that does not fit its file"))?;
        match io::Seek::seek(target.staged.file(), io::SeekFrom::Current(skip)) {
            Ok(_) => Ok(()),
            Err(error) => self.fail_open(error),
        }
    }

    pub(super) fn end(&mut self, digest: Digest) -> Result<(), WriteError> {
        let open = self.open.take().ok_or(WriteError::Protocol("the end of a file that did not begin"))?;
        let Some(mut target) = open.target else { return Ok(()) };
        let whole = target.check.finish().is_ok() && target.hasher.finish() == digest;
        if !whole {
            self.resend.push(open.path);
            return Ok(());
        }
        let local = self.local(&Kind::file(open.size_bytes), &open.meta);
        let length = if target.hole_at_end { target.staged.file().set_len(open.size_bytes) } else { Ok(()) };
        let staged = length.and_then(|()| target.staged.seal(&local));
        self.staged(open.path, &open.meta, staged, open.size_bytes)
    }

    fn fail_open(&mut self, error: io::Error) -> Result<(), WriteError> {
        let path = match &mut self.open {
            Some(open) => {
                open.target = None;
                open.path.clone()
            }
            None => return Ok(()),
        };
        self.fail(path, error)
    }
}

impl Target {
    fn copy(&mut self, offset: u64, bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let basis = self.basis.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let (mut at, mut left) = (offset, bytes);
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = basis.read_at(&mut buffer[..want], at)?;
            if read == 0 {
                // The basis became shorter: the digest will not match, and the file comes again.
                return Ok(());
            }
            self.hasher.update(&buffer[..read]);
            self.staged.file().write_all(&buffer[..read])?;
            (at, left) = (at + read as u64, left - read as u64);
        }
        Ok(())
    }
}
