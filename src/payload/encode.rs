//! Reads files and turns them into blocks.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::comparison::Comparison;
use super::log::{Abandoned, Log, Outcome};
use crate::delta::{Op, Signature, SignatureSpec};
use crate::model::{Digest, Listing, Meta, Problem, ProblemKind, RelPath, Seen};
use crate::plan::{Basis, Item, Runs};
use crate::tree::{ContentReader, Parents, ReadError, Root};
use crate::wire::{BlockWriter, Record};

/// Up to here a file travels whole in one record; a block holds many.
const SMALL_FILE_BYTES: u64 = 128 << 10;

/// How much is read at a time of a larger one.
const READ_BYTES: usize = 256 << 10;

/// How much may be copied by receivers before they are told to: a block that holds little is sent then.
const COPY_AHEAD_BYTES: u64 = 8 << 20;

/// Pauses before files that changed while they were read are tried again. A writer that is still
/// at it after the last is reported, and the next cycle tries anew.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];

/// Where signatures of receivers' files come from: records that a peer made, not yet checked. They are by
/// [`SignatureSpec::for_basis`], in [`Parts`](crate::delta::Parts).
pub trait Signatures: Send {
    /// Says which items will be asked for, in order, so that asking costs no round trip for each. Those
    /// without a basis are passed over.
    fn announce(&mut self, items: &Runs<Item>);
    /// Waits for the first part of the signature of the next announced item; `None`: send it in full.
    fn first(&mut self, item: &Item) -> Option<Vec<u8>>;
    /// Asks for the part of `item`'s signature that describes the bytes `part` of its basis.
    fn ask(&mut self, item: &Item, part: Range<u64>);
    /// Waits for the oldest part that was asked for and not answered; `None`: there is no more to be had.
    fn answer(&mut self) -> Option<Vec<u8>>;
}

/// For items without a basis.
pub struct NoSignatures;

impl Signatures for NoSignatures {
    fn announce(&mut self, _: &Runs<Item>) {}
    fn first(&mut self, _: &Item) -> Option<Vec<u8>> {
        None
    }
    fn ask(&mut self, _: &Item, _: Range<u64>) {}
    fn answer(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// A file that was read whole.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its path.
    pub path: RelPath,
    /// What it was when it was read.
    pub seen: Seen,
    /// Its digest.
    pub digest: Digest,
}

/// Told of every file that was read whole, and of those that could not be sent.
pub trait Readings: Send {
    /// Takes one.
    fn note(&mut self, reading: Reading);
    /// What is at `path` was not sent.
    fn note_unsent(&mut self, path: &RelPath);
}

/// What is to be encoded, and from where.
pub struct EncodeJob {
    /// The source.
    pub root: Arc<Root>,
    /// The listing that the items belong to.
    pub listing: Arc<Listing>,
    /// The files, in the order of the listing.
    pub items: Arc<Runs<Item>>,
    /// Where signatures come from.
    pub signatures: Box<dyn Signatures>,
    /// Who keeps the digests of what is read.
    pub readings: Option<Box<dyn Readings>>,
    /// Extended attributes go with the files.
    pub attributes: bool,
    /// zstd's level; `None`: not compressed, since the link is no bottleneck.
    pub level: Option<i32>,
    /// Whether files that keep changing are waited for. Who sends again soon does not hold the others up for them.
    pub patient: bool,
}

/// Encodes `job` into `log`; blocks the calling thread until all readers have taken or left it.
pub fn encode(job: EncodeJob, log: &Log) {
    let EncodeJob { root, listing, items, mut signatures, readings, attributes, level, patient } = job;
    signatures.announce(&items);
    let mut encoder = Encoder {
        parents: Parents::new(&root),
        readings,
        log,
        attributes,
        level,
        pauses: if patient { &RETRY_PAUSES } else { &[] },
        block: BlockWriter::new(),
        copied_bytes: 0,
        buffer: vec![0; READ_BYTES],
        outcome: Outcome::default(),
    };
    // An abandoned log has no one left to tell.
    let _ = encoder.run(&listing, &items, signatures.as_mut());
    // What was read is known before any receiver is told that this was all.
    drop(encoder.readings.take());
    log.finish(encoder.outcome);
}

struct Encoder<'a> {
    parents: Parents,
    readings: Option<Box<dyn Readings>>,
    log: &'a Log,
    attributes: bool,
    level: Option<i32>,
    pauses: &'static [Duration],
    block: BlockWriter,
    /// Bytes that the copies in `block` stand for.
    copied_bytes: u64,
    buffer: Vec<u8>,
    outcome: Outcome,
}

/// Why a file did not make it into the blocks.
enum Failed {
    Abandoned,
    Read(ReadError),
}

impl From<Abandoned> for Failed {
    fn from(_: Abandoned) -> Self {
        Failed::Abandoned
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Failed::Read(error)
    }
}

/// A file, with what is known of the signature of the receivers' where there is one.
struct Pending {
    path: RelPath,
    item: Item,
    signature: Option<(Basis, Signature)>,
}

impl Encoder<'_> {
    fn run(&mut self, listing: &Listing, items: &Runs<Item>, signatures: &mut dyn Signatures) -> Result<(), Abandoned> {
        let mut again: Vec<Pending> = Vec::new();
        // Whole files first: the receivers compute signatures meanwhile.
        let whole = items.iter().filter(|item| item.basis.is_none());
        for item in whole.chain(items.iter().filter(|item| item.basis.is_some())) {
            let signature = item.basis.and_then(|basis| first_part(&item, basis, signatures));
            let pending = Pending { path: item.entry.path(listing), item, signature };
            self.attempt(pending, signatures, &mut again)?;
        }
        for &pause in self.pauses {
            if again.is_empty() {
                break;
            }
            self.flush()?;
            std::thread::sleep(pause);
            for pending in std::mem::take(&mut again) {
                self.attempt(pending, signatures, &mut again)?;
            }
        }
        for pending in again {
            let detail = "it kept changing while it was read; it was not sent";
            self.note_problem(Problem::new(pending.path, ProblemKind::Changing, detail));
        }
        self.flush()
    }

    fn note_problem(&mut self, problem: Problem) {
        if let Some(readings) = &mut self.readings {
            readings.note_unsent(&problem.path);
        }
        self.outcome.problems.push(problem);
    }

    /// Encodes one file, or notes why not; a file that changed goes to `again`.
    fn attempt(
        &mut self,
        mut pending: Pending,
        signatures: &mut dyn Signatures,
        again: &mut Vec<Pending>,
    ) -> Result<(), Abandoned> {
        match self.file(&mut pending, signatures) {
            Ok(()) => self.outcome.files += 1,
            Err(Failed::Abandoned) => return Err(Abandoned),
            Err(Failed::Read(ReadError::Changed)) => again.push(pending),
            Err(Failed::Read(error)) => {
                let problem = Problem::new(pending.path, error.problem_kind(), error.to_string());
                self.note_problem(problem);
            }
        }
        Ok(())
    }

    fn file(&mut self, pending: &mut Pending, signatures: &mut dyn Signatures) -> Result<(), Failed> {
        let content = ContentReader::open(&mut self.parents, &pending.path)?.keeping_holes();
        if pending.signature.is_none() && !content.keeps_holes() && content.size_bytes() <= SMALL_FILE_BYTES {
            return self.small(&pending.path, content);
        }
        self.large(pending, content, signatures).inspect_err(|_| self.block.push(&Record::Cancel, &[]))
    }

    fn small(&mut self, path: &RelPath, mut content: ContentReader) -> Result<(), Failed> {
        let meta = self.meta(path, &content)?;
        let mut bytes = 0;
        // One byte more than announced, so that growth is seen.
        while bytes < self.buffer.len() {
            match content.read(&mut self.buffer[bytes..])? {
                0 => break,
                read => bytes += read,
            }
        }
        let digest = self.finish(path, content)?;
        let record = Record::File { path: path.clone(), meta, bytes: bytes as u64, digest };
        self.block.push(&record, &self.buffer[..bytes]);
        self.outcome.read_bytes += bytes as u64;
        self.outcome.literal_bytes += bytes as u64;
        self.flush_if_full()?;
        Ok(())
    }

    fn meta(&mut self, path: &RelPath, content: &ContentReader) -> Result<Meta, ReadError> {
        let mut meta = content.meta();
        if self.attributes {
            let found = content.attributes()?;
            meta.attributes = found.attributes;
            let problem = |detail| Problem::new(path.clone(), ProblemKind::Unreadable, detail);
            self.outcome.problems.extend(found.left_out.map(problem));
        }
        Ok(meta)
    }

    /// The digest of content that was read whole; whoever keeps it is told, unless the places of holes are part of it.
    fn finish(&mut self, path: &RelPath, content: ContentReader) -> Result<Digest, ReadError> {
        let seen = content.seen(path.name());
        let whole = content.finish()?;
        if let (Some(readings), false) = (&mut self.readings, whole.has_holes) {
            readings.note(Reading { path: path.clone(), seen, digest: whole.digest });
        }
        Ok(whole.digest)
    }

    fn large(
        &mut self,
        pending: &mut Pending,
        mut content: ContentReader,
        signatures: &mut dyn Signatures,
    ) -> Result<(), Failed> {
        let basis = pending.signature.as_ref().map(|(basis, _)| (basis.size_bytes, basis.mtime));
        let (size_bytes, meta) = (content.size_bytes(), self.meta(&pending.path, &content)?);
        self.block.push(&Record::Begin { path: pending.path.clone(), meta, size_bytes, basis }, &[]);
        let mut buffer = std::mem::take(&mut self.buffer);
        let copied = match &mut pending.signature {
            None => self.whole(&mut content, &mut buffer),
            Some((_, signature)) => {
                let comparison = Comparison::new(&pending.item, signature, size_bytes, signatures);
                self.compared(&mut content, &mut buffer, comparison)
            }
        };
        self.buffer = buffer;
        copied?;
        let digest = self.finish(&pending.path, content)?;
        self.block.push(&Record::End { digest }, &[]);
        self.flush_if_full()?;
        Ok(())
    }

    fn whole(&mut self, content: &mut ContentReader, buffer: &mut [u8]) -> Result<(), Failed> {
        loop {
            match self.read(content, buffer)? {
                0 => match content.skip_hole()? {
                    0 if content.is_at_end() => return Ok(()),
                    0 => {}
                    hole => self.hole(hole)?,
                },
                read => self.literal(&buffer[..read])?,
            }
        }
    }

    fn hole(&mut self, bytes: u64) -> Result<(), Abandoned> {
        self.block.push(&Record::Hole { bytes }, &[]);
        self.flush_if_full()
    }

    fn compared(
        &mut self,
        content: &mut ContentReader,
        buffer: &mut [u8],
        mut comparison: Comparison<'_>,
    ) -> Result<(), Failed> {
        let mut sent = Ok(());
        loop {
            let read = self.read(content, buffer)?;
            let mut sink = |op: Op<'_>| {
                if sent.is_ok() {
                    sent = self.op(op);
                }
            };
            if read > 0 {
                comparison.push(&buffer[..read], &mut sink);
                std::mem::replace(&mut sent, Ok(()))?;
                continue;
            }
            match content.skip_hole()? {
                0 if content.is_at_end() => {
                    comparison.finish(&mut sink);
                    return Ok(sent?);
                }
                0 => {}
                hole => {
                    comparison.hole(hole, &mut sink);
                    std::mem::replace(&mut sent, Ok(()))?;
                    self.hole(hole)?;
                }
            }
        }
    }

    /// Reads up to the length at the open, no further: a file that grows for ever ends too.
    fn read(&mut self, content: &mut ContentReader, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let read = content.read(buffer)?;
        self.outcome.read_bytes += read as u64;
        Ok(read)
    }

    fn op(&mut self, op: Op<'_>) -> Result<(), Abandoned> {
        match op {
            Op::Copy { offset, len } => {
                self.outcome.matched_bytes += len;
                self.copied_bytes += len;
                self.block.push(&Record::Copy { offset, bytes: len }, &[]);
                self.flush_if_full()
            }
            Op::Literal(bytes) => self.literal(bytes),
        }
    }

    fn literal(&mut self, mut bytes: &[u8]) -> Result<(), Abandoned> {
        self.outcome.literal_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(self.block.room().max(1)));
            self.block.push(&Record::Data { bytes: piece.len() as u64 }, piece);
            self.flush_if_full()?;
            bytes = rest;
        }
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<(), Abandoned> {
        if self.block.is_full() || self.copied_bytes >= COPY_AHEAD_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Abandoned> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.copied_bytes = 0;
        self.log.append(self.block.take_frame(self.level))
    }
}

/// The signature of `item`'s basis with its first part, if a receiver gives one that is valid.
fn first_part(item: &Item, basis: Basis, signatures: &mut dyn Signatures) -> Option<(Basis, Signature)> {
    let records = signatures.first(item)?;
    let mut signature = Signature::new(SignatureSpec::for_basis(basis.size_bytes), basis.size_bytes).ok()?;
    signature.add_part(0, records).ok()?;
    Some((basis, signature))
}
