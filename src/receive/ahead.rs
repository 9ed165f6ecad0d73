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

/// A record, its content, and whether that is the announced one.
pub(super) type Checked<'a> = (Record, &'a [u8], bool);

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
    pub(super) fn next_record(&mut self) -> Result<Option<Checked<'_>>, WireError> {
        let Some((record, content)) = self.reader.next_record()? else { return Ok(None) };
        let is_intact = match &record {
            Record::File { digest, .. } => self.intact.next().unwrap_or_else(|| Digest::of(content) == *digest),
            _ => false,
        };
        Ok(Some((record, content, is_intact)))
    }
}

type Taken = Result<Option<Incoming>, WireError>;

/// Reads the next frame; `None` at the end.
type NextFrame<I> = fn(&mut I) -> Result<Option<Frame>, WireError>;

/// The near end of the thread. It is not waited for when this is dropped: it may be waiting for the primary, and ends
/// with the process.
pub(super) struct Ahead {
    taken: Receiver<Taken>,
    go_on: Sender<()>,
    /// Whether the thread waits to be told to go on.
    waits: bool,
}

impl Ahead {
    /// Reads on from `input`, frame by frame with `next_frame`, as confined as the caller is. Gives `input` back where the
    /// system has no room for a thread.
    pub(super) fn start<I: Send + 'static>(input: I, next_frame: NextFrame<I>) -> Result<Self, I> {
        let (found, taken) = sync_channel(BLOCKS);
        let (go_on, asked) = channel();
        let (hand_over, handed) = channel();
        let work = move || {
            if let Ok(input) = handed.recv() {
                read(input, next_frame, &found, &asked);
            }
        };
        match std::thread::Builder::new().name("ahead".into()).spawn(work) {
            Ok(_) => hand_over.send(input).map(|()| Ahead { taken, go_on, waits: false }).map_err(|unsent| unsent.0),
            Err(_) => Err(input),
        }
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

fn read<I>(mut input: I, next_frame: NextFrame<I>, found: &SyncSender<Taken>, asked: &Receiver<()>) {
    loop {
        let mut next = next_frame(&mut input).and_then(|frame| frame.map(Incoming::of).transpose());
        if let Ok(Some(Incoming::Block(block))) = &mut next {
            block.check();
        }
        let is_block = matches!(next, Ok(Some(Incoming::Block(_))));
        if found.send(next).is_err() || (!is_block && asked.recv().is_err()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::model::{Meta, RelPath};
    use crate::wire::{BlockWriter, ToReceiver, encode, read_frame};

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn file(name: &str, content: &[u8], digest: Digest) -> Record {
        let path = RelPath::new(name.as_bytes()).unwrap();
        Record::File { path, meta: Meta::default(), bytes: content.len() as u64, digest }
    }

    fn frame(bytes: &[u8]) -> Frame {
        read_frame(&mut &bytes[..]).unwrap().unwrap()
    }

    fn block(records: &[(Record, &[u8])]) -> Frame {
        let mut block = BlockWriter::new();
        records.iter().for_each(|(record, content)| block.push(record, content));
        frame(&block.take_frame(None))
    }

    fn small_block() -> Frame {
        block(&[(file("a", b"x", Digest::of(b"x")), b"x")])
    }

    fn message() -> Frame {
        frame(&encode(&ToReceiver::EndOfContent))
    }

    /// Frames, how many of them were read, and what is dropped when nobody can read more.
    type Frames = (std::vec::IntoIter<Frame>, Arc<AtomicUsize>, mpsc::Sender<()>);

    /// Reads `frames` ahead; how many were read, and whoever is told when the thread has ended.
    fn ahead_of(frames: Vec<Frame>) -> (Ahead, Arc<AtomicUsize>, mpsc::Receiver<()>) {
        let (read, (alive, ended)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel::<()>());
        let frames: Frames = (frames.into_iter(), Arc::clone(&read), alive);
        let ahead = Ahead::start(frames, |(frames, read, _)| {
            read.fetch_add(1, Ordering::SeqCst);
            Ok(frames.next())
        });
        (ahead.unwrap_or_else(|_| panic!("no thread")), read, ended)
    }

    #[test]
    fn every_file_is_judged_by_its_own_digest_ahead_and_not() {
        let good = |name| (file(name, b"content", Digest::of(b"content")), b"content".as_slice());
        let wrong = (file("wrong", b"content", Digest::of(b"other")), b"content".as_slice());
        let begin =
            Record::Begin { path: RelPath::new(b"l").unwrap(), meta: Meta::default(), size_bytes: 7, basis: None };
        let piece = (Record::Data { bytes: 7 }, b"content".as_slice());
        let records = [good("a"), wrong, (begin, b""), piece, (Record::Cancel, b""), good("b")];
        for is_checked in [true, false] {
            let mut block = Block::open(block(&records)).unwrap();
            if is_checked {
                block.check();
                assert_eq!(block.intact.as_slice(), [true, false, true]);
            }
            for (at, (record, content)) in records.iter().enumerate() {
                let expected = (record.clone(), *content, matches!(at, 0 | 5));
                assert_eq!(block.next_record().unwrap(), Some(expected), "checked: {is_checked}");
            }
            assert_eq!(block.next_record().unwrap(), None);
        }
    }

    #[test]
    fn what_cannot_be_read_comes_after_what_can() {
        let mut cut_off = block(&[(file("a", b"x", Digest::of(b"x")), b"x"), (Record::Data { bytes: 1 }, b"y")]);
        cut_off.body.pop();
        let damaged = Frame { kind: FrameKind::CompressedBlock, body: b"no zstd".to_vec() };
        let (mut ahead, ..) = ahead_of(vec![cut_off, damaged]);
        let Ok(Some(Incoming::Block(mut block))) = ahead.next() else { panic!("no block") };
        assert!(matches!(block.next_record(), Ok(Some((Record::File { .. }, b"x", true)))));
        assert!(matches!(block.next_record(), Err(WireError::BadBlock(_))));
        assert!(matches!(ahead.next(), Err(WireError::BadBlock(_))));
        assert!(matches!(ahead.next(), Ok(None)));
    }

    #[test]
    fn nothing_behind_a_message_is_read_before_it_is_dealt_with() {
        let frames = vec![small_block(), small_block(), message(), small_block(), message(), small_block()];
        let (mut ahead, read, ended) = ahead_of(frames);
        for (at, up_to) in [3, 3, 3, 5, 5].into_iter().enumerate() {
            let next = ahead.next();
            assert_eq!(matches!(next, Ok(Some(Incoming::Message(_)))), matches!(at, 2 | 4));
            assert!(read.load(Ordering::SeqCst) <= up_to);
        }
        drop(ahead);
        assert_eq!(ended.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
        assert_eq!(read.load(Ordering::SeqCst), 5, "what follows the last message was left alone");
    }

    #[test]
    fn only_a_few_blocks_are_held() {
        let (mut ahead, read, ended) = ahead_of(vec![small_block(); 100]);
        for taken in 1..=50 {
            assert!(matches!(ahead.next(), Ok(Some(Incoming::Block(_)))));
            let held = read.load(Ordering::SeqCst).saturating_sub(taken);
            assert!(held <= BLOCKS + 1, "{held}");
        }
        // Whoever gives up ends it, whatever waits.
        drop(ahead);
        assert_eq!(ended.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
