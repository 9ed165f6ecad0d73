//! A file that comes in pieces: made in the stage from literals and from this side's own old file.
//!
//! What is made counts only when its length and the digest of the whole are the announced ones. The old file
//! may change while it is read: then the digest does not match, and the file is asked for in full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, FsWord, SeekFrom, copy_file_range, fallocate, fstatfs, seek};
use rustix::io::Errno;

use super::digester::Digester;
use super::writer::{WriteError, Writer};
use crate::delta::{Op, PatchCheck};
use crate::model::{Digest, Holes, Kind, Meta, RelPath, Timestamp};
use crate::tree::{StagedFile, Usage, open_basis};

/// Filesystems on which files can share blocks, by their magic numbers: XFS, Btrfs, bcachefs. Elsewhere the kernel would
/// copy, and the copy would have to be read once more for the digest.
const SHARING: [FsWord; 3] = [0x5846_5342, 0x9123_683e, 0xca45_1a4e];

/// Length of the blocks that are shared.
const SHARED_BLOCK_BYTES: u64 = 4096;

/// From here on sharing is worth its calls.
const SHARE_FROM_BYTES: u64 = 64 << 10;

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
    /// Whether blocks of the basis can be shared instead of copied.
    shares: bool,
    check: PatchCheck,
    holes: Holes,
    /// Announced, and set with the first hole.
    size_bytes: u64,
    has_length: bool,
    /// Whether the basis may have holes, which are kept.
    basis_has_holes: bool,
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
        if self.spares(&open.path) {
            self.open = Some(open);
            return Ok(());
        }
        let mut basis_file = None;
        let mut basis_bytes = 0;
        let mut basis_has_holes = false;
        if let Some((expected_bytes, mtime)) = basis {
            match open_basis(self.applier.parents(), &open.path) {
                Ok((file, stat)) if stat.size_bytes == expected_bytes && stat.mtime == mtime => {
                    (basis_file, basis_bytes) = (Some(file), expected_bytes);
                    basis_has_holes = stat.may_have_holes();
                }
                _ => {
                    self.send_again(open.path.clone())?;
                    self.open = Some(open);
                    return Ok(());
                }
            }
        }
        self.charge_entry(&open.path, 1, &open.meta)?;
        let local = self.local(&Kind::file(size_bytes), &open.meta);
        match self.staging.create_file(local.mode) {
            Ok(staged) => {
                self.digester.begin(size_bytes);
                open.target = Some(Target {
                    staged,
                    shares: basis_file.as_ref().is_some_and(can_share),
                    basis: basis_file,
                    check: PatchCheck::new(basis_bytes, size_bytes),
                    holes: Holes::default(),
                    size_bytes,
                    has_length: false,
                    basis_has_holes,
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
        let at = target.check.made_bytes();
        target.check.check(&op).map_err(|_| WriteError::Protocol("a piece that does not fit its file"))?;
        let bytes = match op {
            Op::Literal(content) => content.len() as u64,
            Op::Copy { len, .. } => len,
        };
        self.charge(Usage { bytes, entries: 0 })?;
        // Asked for once more, since what waits may have been placed meanwhile.
        let Some(target) = self.open.as_mut().and_then(|open| open.target.as_mut()) else { return Ok(()) };
        let written = match op {
            Op::Literal(content) => {
                target.staged.file().write_all_at(content, at).and_then(|()| self.digester.add(content))
            }
            Op::Copy { offset, len } => target.copy(offset, at, len, &mut self.digester),
        };
        self.bytes_done = self.bytes_done.saturating_add(bytes);
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let Some(open) = self.open.as_mut() else { return Ok(()) };
                open.target = None;
                let path = open.path.clone();
                self.send_again(path)
            }
            Err(error) => self.fail_open(error),
        }
    }

    pub(super) fn hole(&mut self, bytes: u64) -> Result<(), WriteError> {
        let open = self.open.as_mut().ok_or(WriteError::Protocol("a piece of a file that did not begin"))?;
        let Some(target) = &mut open.target else { return Ok(()) };
        let at = target.check.made_bytes();
        target.check.check_hole(bytes).map_err(|_| WriteError::Protocol("a hole that does not fit its file"))?;
        // Whatever length a primary names costs nothing: what is not written is a hole.
        target.holes.add(at, bytes);
        let made = target.make_hole(at, bytes);
        self.bytes_done = self.bytes_done.saturating_add(bytes);
        match made {
            Ok(()) => Ok(()),
            Err(error) => self.fail_open(error),
        }
    }

    pub(super) fn end(&mut self, digest: Digest) -> Result<(), WriteError> {
        let open = self.open.take().ok_or(WriteError::Protocol("the end of a file that did not begin"))?;
        let Some(target) = open.target else { return Ok(()) };
        let hashed = target.holes.trailer().map_or(Ok(()), |trailer| self.digester.add(&trailer));
        let found = match hashed.and_then(|()| self.digester.finish()) {
            Ok(found) => found,
            Err(error) => return self.fail(open.path, error),
        };
        if target.check.finish().is_err() || found != digest {
            return self.send_again(open.path);
        }
        let local = self.local(&Kind::file(open.size_bytes), &open.meta);
        let staged = target.staged.seal(&local);
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
    /// Takes `bytes` from `offset` of the basis to `at` of the new file.
    fn copy(&mut self, offset: u64, at: u64, bytes: u64, digester: &mut Digester) -> io::Result<()> {
        let mut done = 0;
        if self.shares && bytes >= SHARE_FROM_BYTES && offset % SHARED_BLOCK_BYTES == at % SHARED_BLOCK_BYTES {
            let head = offset.next_multiple_of(SHARED_BLOCK_BYTES) - offset;
            self.copy_bytes(offset, at, head, digester)?;
            let whole = (bytes - head) / SHARED_BLOCK_BYTES * SHARED_BLOCK_BYTES;
            if self.basis_has_holes {
                digester.allow_zeros(self.hole_bytes(offset + head, offset + head + whole)?)?;
            }
            done = head + self.share(offset + head, at + head, whole)?;
            // Of what is in the new file, not of the basis: that may be written to meanwhile.
            digester.add_range(self.staged.file(), at + head..at + done)?;
        }
        self.copy_rest(offset + done, at + done, bytes - done, digester)
    }

    /// Copies what cannot be shared. Holes of the basis stay holes.
    fn copy_rest(&mut self, offset: u64, at: u64, bytes: u64, digester: &mut Digester) -> io::Result<()> {
        let mut done = 0;
        while self.basis_has_holes && done < bytes {
            let (data, hole) = self.next_data(offset + done, offset + bytes)?;
            self.make_hole(at + done, data - (offset + done))?;
            self.pass_zeros(data - (offset + done), digester)?;
            self.copy_bytes(data, at + (data - offset), hole - data, digester)?;
            if hole == offset + done {
                // No more is to be learned of its holes.
                self.basis_has_holes = false;
            }
            done = hole - offset;
        }
        self.copy_bytes(offset + done, at + done, bytes - done, digester)
    }

    /// Leaves a hole of `bytes` at `at`. The length is set at once: filesystems such as XFS take room ahead for what
    /// grows, and that room would stay where the hole is.
    fn make_hole(&mut self, at: u64, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let file = self.staged.file();
        if !self.has_length {
            file.set_len(self.size_bytes)?;
            self.has_length = true;
        }
        // Where that cannot be done, what was taken ahead stays; it reads as zeros.
        let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, bytes);
        Ok(())
    }

    /// Where in the basis the next data begins and ends, both from `from` on and at most at `end`.
    fn next_data(&self, from: u64, end: u64) -> io::Result<(u64, u64)> {
        let basis = self.basis.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let data = match seek(basis, SeekFrom::Data(from)) {
            Ok(data) => data.min(end),
            Err(Errno::NXIO) => end,
            Err(_) => from,
        };
        Ok((data, seek(basis, SeekFrom::Hole(data)).map_or(end, |hole| hole.clamp(data, end))))
    }

    /// Bytes of the basis from `from` to `end` that are holes.
    fn hole_bytes(&self, mut from: u64, end: u64) -> io::Result<u64> {
        let mut bytes = 0;
        while from < end {
            let (data, hole) = self.next_data(from, end)?;
            bytes += data - from;
            if hole == from {
                break;
            }
            from = hole;
        }
        Ok(bytes)
    }

    /// Hashes zeros that are not written.
    fn pass_zeros(&self, bytes: u64, digester: &mut Digester) -> io::Result<()> {
        digester.allow_zeros(bytes)?;
        let mut left = bytes;
        while left > 0 {
            let mut piece = digester.piece()?;
            let zeros = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            piece[..zeros].fill(0);
            digester.add_piece(piece, zeros)?;
            left -= zeros as u64;
        }
        Ok(())
    }

    /// Shares blocks of the basis, as far as that goes; how many bytes it went.
    fn share(&mut self, offset: u64, at: u64, bytes: u64) -> io::Result<u64> {
        let basis = self.basis.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let (mut from, mut to) = (offset, at);
        while from < offset + bytes {
            let left = usize::try_from(offset + bytes - from).unwrap_or(usize::MAX);
            match copy_file_range(basis, Some(&mut from), self.staged.file(), Some(&mut to), left) {
                Ok(1..) => {}
                Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                // The end of a basis that became shorter, or a filesystem that does not like it after all.
                Ok(0) | Err(_) => {
                    self.shares = false;
                    break;
                }
            }
        }
        Ok(from - offset)
    }

    fn copy_bytes(&mut self, offset: u64, at: u64, bytes: u64, digester: &mut Digester) -> io::Result<()> {
        let basis = self.basis.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let mut done = 0;
        while done < bytes {
            let mut piece = digester.piece()?;
            let want = usize::try_from(bytes - done).unwrap_or(usize::MAX).min(piece.len());
            let read = basis.read_at(&mut piece[..want], offset + done)?;
            self.staged.file().write_all_at(&piece[..read], at + done)?;
            digester.add_piece(piece, read)?;
            if read == 0 {
                // The basis became shorter: the digest will not match, and the file comes again.
                return Ok(());
            }
            done += read as u64;
        }
        Ok(())
    }
}

fn can_share(basis: &File) -> bool {
    fstatfs(basis).is_ok_and(|stat| SHARING.contains(&stat.f_type))
}
