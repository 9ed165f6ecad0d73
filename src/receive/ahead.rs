//! What the primary sends, ahead of whoever makes files of it: while one block is written, the next ones are read,
//! decompressed and compared with their digests, on a thread of their own.
//!
//! Only blocks are read ahead. After a message nothing is read until whoever deals with it asks for more: a
//! message may be the last that has a place, and signs of life count for the time in which they are looked at. So not more
//! than a handful of blocks is ever held, and nothing of what follows the last message is taken from the link.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::model::Digest;
use crate::wire::{BlockReader, Frame, FrameKind, Record, WireError};

/// Blocks that wait to be written. One more is being read and one written, of about a megabyte each.
const BLOCKS: usize = 2;

/// What the primary sends while it changes a root.
pub(super) enum Incoming {
    Message(Frame),
    Block(Block),
}

impl Incoming {
    /// Decompresses a block.
    pub(super) fn of(frame: Frame) -> Result<Self, WireError> {
        match frame.kind {
            FrameKind::Message => Ok(Incoming::Message(frame)),
            FrameKind::Block | FrameKind::CompressedBlock => Ok(Incoming::Block(Block::open(frame)?)),
        }
    }
}

/// A block, with what is known of its files.
pub(super) struct Block {
    reader: BlockReader,
    /// Of as many whole files from the next one on as were looked at: whether their content is the announced one.
    intact: std::vec::IntoIter<bool>,
}

impl Block {
    fn open(frame: Frame) -> Result<Self, WireError> {
        Ok(Block { reader: BlockReader::open(frame)?, intact: Vec::new().into_iter() })
    }

    /// Whether more are likely to come.
    pub(super) fn is_full(&self) -> bool {
        self.reader.is_full()
    }

    /// Compares whole files with their digests, up to a record that cannot be read: that is for the writer to find.
    fn check(&mut self) {
        let mut intact = Vec::new();
        while let Ok(Some((record, content))) = self.reader.next_record() {
            if let Record::File { digest, .. } = record {
                intact.push(Digest::of(content) == digest);
            }
        }
        self.reader.rewind();
        self.intact = intact.into_iter();
    }

    /// The next record and its content, and whether that is the announced one, if the record has all of it.
    ///
    /// # Errors
    /// As [`BlockReader::next_record`].
    pub(super) fn next_record(&mut self) -> Result<Option<(Record, &[u8], bool)>, WireError> {
        let Some((record, content)) = self.reader.next_record()? else { return Ok(None) };
        let is_intact = match &record {
            Record::File { digest, .. } => self.intact.next().unwrap_or_else(|| Digest::of(content) == *digest),
            _ => false,
        };
        Ok(Some((record, content, is_intact)))
    }
}

type Taken = Result<Option<Incoming>, WireError>;

/// The near end of the thread. It is not waited for when this is dropped: it may be waiting for the primary, and ends
/// with the process.
pub(super) struct Ahead {
    taken: Receiver<Taken>,
    go_on: Sender<()>,
    /// Whether the thread waits to be told to go on.
    waits: bool,
}

impl Ahead {
    /// Reads on where `next_frame` is, as confined as the caller is.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(
        next_frame: impl FnMut() -> Result<Option<Frame>, WireError> + Send + 'static,
    ) -> io::Result<Self> {
        let (found, taken) = sync_channel(BLOCKS);
        let (go_on, asked) = channel();
        std::thread::Builder::new().name("ahead".into()).spawn(move || read(next_frame, &found, &asked))?;
        Ok(Ahead { taken, go_on, waits: false })
    }

    /// What comes next; `None` when the primary has ended. What came before is dealt with.
    ///
    /// # Errors
    /// Those of the link, and a block that cannot be decompressed, each when all that came before it has been taken.
    pub(super) fn next(&mut self) -> Taken {
        if std::mem::take(&mut self.waits) {
            // If it is gone, the next line tells.
            let _ = self.go_on.send(());
        }
        // Only a defect ends the thread before its owner.
        let gone = |_| io::Error::other("what the primary sends can no longer be read");
        let taken = self.taken.recv().map_err(gone)?;
        self.waits = !matches!(taken, Ok(Some(Incoming::Block(_))));
        taken
    }
}

fn read(
    mut next_frame: impl FnMut() -> Result<Option<Frame>, WireError>,
    found: &SyncSender<Taken>,
    asked: &Receiver<()>,
) {
    loop {
        let mut next = next_frame().and_then(|frame| frame.map(Incoming::of).transpose());
        if let Ok(Some(Incoming::Block(block))) = &mut next {
            block.check();
        }
        let is_block = matches!(next, Ok(Some(Incoming::Block(_))));
        if found.send(next).is_err() || (!is_block && asked.recv().is_err()) {
            return;
        }
    }
}
