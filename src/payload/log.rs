//! A log of blocks with one writer and many readers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;

use super::block::Block;
use crate::model::Problem;

/// Blocks kept in memory; beyond it what a slow reader still needs goes to a file.
const WINDOW_BYTES: usize = 32 << 20;

/// How many blocks the writer may be ahead of the fastest reader.
const AHEAD_BLOCKS: usize = 8;

/// All readers are gone; nobody wants the rest.
#[derive(Debug, Error)]
#[error("nobody reads any more")]
pub struct Abandoned;

/// A block cannot be had.
#[derive(Debug, Error)]
pub enum LogError {
    /// The block was neither in memory nor in the spool file.
    #[error("content for this host is no longer kept (it fell far behind and the temporary directory is full?)")]
    Lost,
}

/// What came of the encoding, beside blocks.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Files that could not be sent.
    pub problems: Vec<Problem>,
    /// Files that are in the blocks.
    pub files: u64,
    /// Content read from the source.
    pub read_bytes: u64,
    /// Content that is in the blocks as such, before compression.
    pub literal_bytes: u64,
    /// Content that receivers take from their own files.
    pub matched_bytes: u64,
}

enum Slot {
    Memory(Block),
    Spooled(Block),
    Dropped,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Slot>,
    /// Every slot below this is no longer in memory.
    evicted: usize,
    memory_bytes: usize,
    spool: Option<Arc<File>>,
    spool_bytes: u64,
    /// Position of each reader; `None` when it is gone.
    readers: Vec<Option<usize>>,
    /// More readers may come and want everything from the start.
    open: bool,
    finished: bool,
    /// The writer ended without finishing.
    broken: bool,
    outcome: Outcome,
}

/// See the module.
pub struct Log {
    inner: Mutex<Inner>,
    /// Told when a reader moved or went.
    moved: Condvar,
    /// Counts what was appended.
    grown: watch::Sender<usize>,
}

impl Log {
    /// An empty log. While it is `open`, readers may still be added and everything is kept.
    pub fn new() -> Arc<Self> {
        let inner = Inner { open: true, ..Inner::default() };
        Arc::new(Log { inner: Mutex::new(inner), moved: Condvar::new(), grown: watch::channel(0).0 })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of another thread leaves plain data, never a half-done change that matters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader from the start.
    pub fn reader(self: &Arc<Self>) -> LogReader {
        let mut inner = self.lock();
        inner.readers.push(Some(0));
        self.moved.notify_all();
        LogReader { log: Arc::clone(self), id: inner.readers.len() - 1, position: 0, grown: self.grown.subscribe() }
    }

    /// No more readers will come.
    pub fn close(&self) {
        self.lock().open = false;
        self.moved.notify_all();
    }

    /// Appends a block, as soon as a reader is near enough to want it.
    ///
    /// # Errors
    /// All readers are gone.
    pub fn append(&self, block: Vec<u8>) -> Result<(), Abandoned> {
        // Made outside the lock. A reader that comes later finds the block too, if only as a copy.
        let block = if self.has_many_readers() { Block::shared(block) } else { Block::own(block) };
        let mut inner = self.lock();
        loop {
            let nearest = inner.readers.iter().flatten().max().copied();
            match nearest {
                Some(position) if inner.slots.len() < position + AHEAD_BLOCKS => break,
                None if !inner.open => return Err(Abandoned),
                _ => inner = self.moved.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
        inner.memory_bytes += block.bytes();
        inner.slots.push(Slot::Memory(block));
        inner.evict();
        self.grown.send_replace(inner.slots.len());
        Ok(())
    }

    fn has_many_readers(&self) -> bool {
        self.lock().readers.iter().flatten().nth(1).is_some()
    }

    /// Says that nothing more comes.
    pub fn finish(&self, outcome: Outcome) {
        let mut inner = self.lock();
        inner.outcome = outcome;
        inner.finished = true;
        self.grown.send_replace(usize::MAX);
    }

    /// Says that the writer is gone. If it did not finish, which only a defect can cause, readers get
    /// an error instead of waiting for ever.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.broken = !inner.finished;
        self.grown.send_replace(usize::MAX);
    }

    /// What came of it; complete once a reader has reached the end.
    pub fn outcome(&self) -> Outcome {
        self.lock().outcome.clone()
    }
}

impl Inner {
    /// Frees what nobody needs, and moves the oldest to the spool file while memory is over its bound.
    fn evict(&mut self) {
        let slowest = if self.open { 0 } else { self.readers.iter().flatten().min().copied().unwrap_or(usize::MAX) };
        while self.evicted < self.slots.len() {
            let needed = self.evicted >= slowest;
            if needed && self.memory_bytes <= WINDOW_BYTES {
                return;
            }
            let Slot::Memory(block) = &self.slots[self.evicted] else { return };
            let block = block.clone();
            self.memory_bytes -= block.bytes();
            self.slots[self.evicted] = if needed { self.spool(&block).unwrap_or(Slot::Dropped) } else { Slot::Dropped };
            self.evicted += 1;
        }
    }

    fn spool(&mut self, block: &Block) -> io::Result<Slot> {
        let file = match &self.spool {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.spool.insert(Arc::new(tempfile::tempfile()?))),
        };
        match block.memory() {
            Some(bytes) => file.write_all_at(bytes, self.spool_bytes)?,
            None => file.write_all_at(&block.read()?, self.spool_bytes)?,
        }
        let spooled = Block::in_file(file, self.spool_bytes, block.bytes());
        self.spool_bytes += block.bytes() as u64;
        Ok(Slot::Spooled(spooled))
    }
}

/// One host's place in a [`Log`].
pub struct LogReader {
    log: Arc<Log>,
    id: usize,
    position: usize,
    grown: watch::Receiver<usize>,
}

enum Found {
    Block(Block),
    Lost,
    End,
    NotYet,
}

impl LogReader {
    /// The next block, a whole frame; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The block is no longer kept.
    pub async fn next(&mut self) -> Result<Option<Block>, LogError> {
        loop {
            // Seen before looking, so that what comes in between is not slept through.
            self.grown.borrow_and_update();
            let block = match self.look() {
                Found::Block(block) => block,
                Found::Lost => return Err(LogError::Lost),
                Found::End => return Ok(None),
                Found::NotYet => {
                    // An error means that the log is gone, which cannot be while this holds it.
                    let _ = self.grown.changed().await;
                    continue;
                }
            };
            self.advance();
            return Ok(Some(block));
        }
    }

    /// The log that is read.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    fn look(&self) -> Found {
        let inner = self.log.lock();
        match inner.slots.get(self.position) {
            Some(Slot::Memory(block) | Slot::Spooled(block)) => Found::Block(block.clone()),
            Some(Slot::Dropped) => Found::Lost,
            None if inner.finished => Found::End,
            None if inner.broken => Found::Lost,
            None => Found::NotYet,
        }
    }

    fn advance(&mut self) {
        self.position += 1;
        let mut inner = self.log.lock();
        inner.readers[self.id] = Some(self.position);
        inner.evict();
        self.log.moved.notify_all();
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        let mut inner = self.log.lock();
        inner.readers[self.id] = None;
        inner.evict();
        self.log.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: usize, bytes: usize) -> Vec<u8> {
        vec![u8::try_from(number % 251).unwrap(); bytes]
    }

    async fn drain(mut reader: LogReader, blocks: usize, bytes: usize) {
        for number in 0..blocks {
            let next = reader.next().await.unwrap().unwrap();
            assert_eq!(next.read().unwrap(), block(number, bytes), "block {number}");
        }
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_gets_everything_and_memory_stays_bounded() {
        let (blocks, bytes) = (200, 1 << 20);
        let log = Log::new();
        let (fast, slow) = (log.reader(), log.reader());
        log.close();
        let writer = Arc::clone(&log);
        let produced = std::thread::spawn(move || {
            for number in 0..blocks {
                writer.append(block(number, bytes)).unwrap();
                assert!(writer.lock().memory_bytes <= WINDOW_BYTES);
            }
            writer.finish(Outcome::default());
        });
        drain(fast, blocks, bytes).await;
        drain(slow, blocks, bytes).await;
        produced.join().unwrap();
        assert_eq!(log.lock().memory_bytes, 0);
    }

    #[tokio::test]
    async fn a_late_reader_starts_at_the_start_while_the_log_is_open() {
        let log = Log::new();
        let early = log.reader();
        let writer = Arc::clone(&log);
        let produced = std::thread::spawn(move || {
            (0..100).for_each(|number| writer.append(block(number, 1 << 19)).unwrap());
            writer.finish(Outcome::default());
        });
        drain(early, 100, 1 << 19).await;
        let late = log.reader();
        log.close();
        drain(late, 100, 1 << 19).await;
        produced.join().unwrap();
    }

    #[test]
    fn the_writer_stops_when_nobody_is_left() {
        let log = Log::new();
        let reader = log.reader();
        log.close();
        log.append(vec![1]).unwrap();
        drop(reader);
        assert!(log.append(vec![2]).is_err());
    }
}
