//! The write end of the pipe that leads to a receiver.
//!
//! Two things keep a host cheap. Blocks that lie in a file are spliced: the pipe takes their pages, and nothing
//! is copied. And the pipe is large and is filled in large steps: ssh takes 16 or 32 KiB at a time, and following
//! each read with a write of its own costs more than moving the bytes. A receiver on this host takes all there is;
//! then there is no reason to rest.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};
use tokio::net::unix::pipe;

use crate::payload::Block;

/// Size that is asked for once there are blocks to send: what every user may have. 64 such pipes are the default
/// limit of a user; whoever is beyond keeps the pipe as it is.
const PIPE_BYTES: usize = 1 << 20;

/// Size from which a full pipe can be left alone for a while.
const ROOMY_BYTES: usize = 512 << 10;

/// How long a full, roomy pipe is left alone after its reader took something.
const REST: Duration = Duration::from_millis(1);

/// A reader that takes less than this at a time is rested for.
const SMALL_BYTES: usize = 128 << 10;

/// A reader that takes more than this during a rest is too fast to be rested for.
const LARGE_BYTES: usize = 384 << 10;

/// Why a block did not get through.
#[derive(Debug)]
pub(super) enum OutputError {
    /// Nobody reads any more.
    Link,
    /// The block cannot be read back.
    Block(io::Error),
}

/// See the module.
pub(super) struct Output {
    pipe: pipe::Sender,
    enlarged: bool,
    roomy: bool,
    /// Whether the reader takes little at a time.
    rests: bool,
    splices: bool,
}

impl Output {
    /// Takes over the write end of a pipe. Needs a tokio runtime.
    ///
    /// # Errors
    /// It is no pipe, or the runtime cannot watch it.
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Output {
            pipe: pipe::Sender::from_owned_fd(pipe)?,
            enlarged: false,
            roomy: false,
            rests: false,
            splices: true,
        })
    }

    /// Writes all of `bytes`.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let moved = self.step(rest.len(), |pipe| rustix::io::write(pipe, rest)).await;
            done += moved.map_err(|_| OutputError::Link)?;
        }
        Ok(())
    }

    /// Writes the bytes of `block` from `start` on, `count` of them.
    pub(super) async fn write_block(&mut self, block: &Block, start: usize, count: usize) -> Result<(), OutputError> {
        self.enlarge();
        if let Some(bytes) = block.memory() {
            return self.write(&bytes[start..start + count]).await;
        }
        let mut done = 0;
        while let (Some((file, offset)), true) = (block.pages(), done < count && self.splices) {
            let mut at = offset + (start + done) as u64;
            let moved = self.step(count - done, |pipe| {
                // Pages that were given to the disk meanwhile are waited for here; they rarely were.
                splice(file, Some(&mut at), pipe, None, count - done, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
            });
            match moved.await {
                Ok(0) => return Err(OutputError::Block(io::ErrorKind::UnexpectedEof.into())),
                Ok(moved) => done += moved,
                // A filesystem or a kind of output that cannot splice.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.splices = false,
                Err(Errno::PIPE | Errno::BADF) => return Err(OutputError::Link),
                Err(error) => return Err(OutputError::Block(error.into())),
            }
        }
        if done < count {
            let bytes = block.read().map_err(OutputError::Block)?;
            self.write(&bytes[start + done..start + count]).await?;
        }
        Ok(())
    }

    /// Makes the pipe larger, once.
    fn enlarge(&mut self) {
        if !std::mem::replace(&mut self.enlarged, true) {
            let size = fcntl_setpipe_size(&self.pipe, PIPE_BYTES);
            self.roomy = size.is_ok_and(|bytes| bytes >= ROOMY_BYTES);
        }
    }

    /// Does `act`, which moves up to `wanted` bytes without waiting, as soon as there is room for some.
    async fn step(
        &mut self,
        wanted: usize,
        mut act: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Result<usize, Errno> {
        let mut was_full = false;
        loop {
            // Fails only when the runtime ends.
            self.pipe.writable().await.map_err(|_| Errno::PIPE)?;
            if was_full && self.rests {
                tokio::time::sleep(REST).await;
            }
            match self.pipe.try_io(|| Ok(act(self.pipe.as_fd())?)) {
                Ok(moved) => {
                    if was_full && moved > LARGE_BYTES {
                        self.rests = false;
                    } else if was_full && moved < wanted.min(SMALL_BYTES) {
                        self.rests = self.roomy;
                    }
                    return Ok(moved);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => was_full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::PIPE)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use super::*;
    use crate::payload::{Log, Outcome};

    /// Noise, so that a piece out of place shows.
    fn content(bytes: usize) -> Vec<u8> {
        (0u64..).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).take(bytes).collect()
    }

    /// Blocks of odd lengths as two readers of a log get them, written in pieces of at most `piece` bytes.
    async fn through_a_pipe(piece: usize, splices: bool) -> (Vec<u8>, Vec<u8>) {
        let lengths = [1usize << 20, 5, 4096, 3_000_001, 4097];
        let sent: Vec<u8> = content(lengths.iter().sum());
        let log = Log::new();
        let (mut first, second) = (log.reader(), log.reader());
        log.close();
        let mut at = 0;
        for length in lengths {
            log.append(sent[at..at + length].to_vec()).unwrap();
            at += length;
        }
        log.finish(Outcome::default());
        drop(second);
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(writer.into()).unwrap();
        output.splices = splices;
        let received = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        while let Some(block) = first.next().await.unwrap() {
            assert!(block.pages().is_some(), "two readers share a block's pages");
            let mut start = 0;
            while start < block.bytes() {
                let count = piece.min(block.bytes() - start);
                output.write_block(&block, start, count).await.unwrap();
                start += count;
            }
        }
        drop(output);
        (sent, received.await.unwrap().unwrap())
    }

    #[tokio::test]
    async fn what_is_spliced_arrives_whole_and_in_order() {
        for (piece, splices) in [(usize::MAX, true), (10_000, true), (usize::MAX, false), (65_536, false)] {
            let (sent, received) = through_a_pipe(piece, splices).await;
            assert!(sent == received, "pieces of {piece}, spliced: {splices}");
        }
    }

    #[tokio::test]
    async fn pages_in_a_pipe_outlive_the_block_and_its_log() {
        let log = Log::new();
        let (mut first, mut second) = (log.reader(), log.reader());
        log.close();
        let sent = content(300_000);
        log.append(sent.clone()).unwrap();
        log.finish(Outcome::default());
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(writer.into()).unwrap();
        let block = first.next().await.unwrap().unwrap();
        output.write_block(&block, 0, block.bytes()).await.unwrap();
        assert!(second.next().await.unwrap().is_some());
        assert_eq!(Arc::strong_count(&log), 3);
        drop((block, first, second, log, output));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        assert!(sent == received);
    }

    #[tokio::test]
    async fn a_reader_that_went_is_noticed() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(writer.into()).unwrap();
        drop(reader);
        assert!(matches!(output.write(b"x").await, Err(OutputError::Link)));
    }
}
