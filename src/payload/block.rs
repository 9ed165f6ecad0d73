//! A finished block, where its readers can share it.
//!
//! What goes to one host lies in this process's memory. What goes to several lies in pages of an anonymous
//! file: the kernel can hand a pipe those pages themselves (splice), so that a host more costs no copy.
//!
//! RACE: a page stays in a pipe until it is read there, long after the block may have been dropped here.
//! That is safe only because what was written is never written again: each block has a file of its own,
//! sealed against writing, and the spool file is only ever appended to. A dropped file's pages live on in the
//! pipes that hold them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// A block as the bytes of a frame. Cloning it copies nothing.
#[derive(Clone, Debug)]
pub struct Block {
    place: Place,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Arc<Vec<u8>>),
    Pages { file: Arc<File>, offset: u64 },
}

impl Block {
    /// A block for one reader.
    pub(super) fn own(bytes: Vec<u8>) -> Self {
        Block { bytes: bytes.len(), place: Place::Memory(Arc::new(bytes)) }
    }

    /// A block for several readers; as [`Block::own`] where the kernel gives no anonymous file.
    pub(super) fn shared(bytes: Vec<u8>) -> Self {
        match anonymous(&bytes) {
            Ok(file) => Block::in_file(Arc::new(file), 0, bytes.len()),
            Err(_) => Block::own(bytes),
        }
    }

    /// A block that lies at `offset` of `file`, where nothing is ever written again.
    pub(super) fn in_file(file: Arc<File>, offset: u64, bytes: usize) -> Self {
        Block { place: Place::Pages { file, offset }, bytes }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes, if they lie in this process's memory.
    pub fn memory(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Memory(bytes) => Some(bytes),
            Place::Pages { .. } => None,
        }
    }

    /// The file whose pages hold the bytes, and the offset of the first, if they lie in one.
    pub fn pages(&self) -> Option<(BorrowedFd<'_>, u64)> {
        match &self.place {
            Place::Memory(_) => None,
            Place::Pages { file, offset } => Some((file.as_fd(), *offset)),
        }
    }

    /// A copy of the bytes, wherever they lie.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match &self.place {
            Place::Memory(bytes) => Ok(bytes.to_vec()),
            Place::Pages { file, offset } => {
                let mut bytes = vec![0; self.bytes];
                file.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes)
            }
        }
    }
}

/// An anonymous file that holds `bytes` and never anything else.
fn anonymous(bytes: &[u8]) -> io::Result<File> {
    let file = File::from(memfd_create(c"rfleet-block", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all_at(bytes, 0)?;
    // FUTURE_WRITE, since WRITE would look through all pages for somebody who writes already.
    fcntl_add_seals(&file, SealFlags::FUTURE_WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_block_is_read_back_and_cannot_be_written() {
        let block = Block::shared(vec![7; 5000]);
        assert_eq!((block.bytes(), block.read().unwrap()), (5000, vec![7; 5000]));
        let Place::Pages { file, .. } = &block.place else { panic!("no anonymous file on this system") };
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
    }
}
