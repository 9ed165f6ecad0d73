//! Reads files and turns them into blocks.

use std::sync::Arc;
use std::time::Duration;

use super::log::{Abandoned, Log, Outcome};
use crate::delta::{Differ, Op, Signature, SignatureSpec};
use crate::model::{Digest, Listing, Problem, ProblemKind, RelPath, Seen};
use crate::plan::{Basis, EntryRef};
use crate::tree::{ContentReader, Parents, ReadError, Root};
use crate::wire::{BlockWriter, Record};

/// Up to here a file travels whole in one record; a block holds many.
const SMALL_FILE_BYTES: u64 = 128 << 10;

/// How much is read at a time of a larger one.
const READ_BYTES: usize = 256 << 10;

/// Pauses before files that changed while they were read are tried again. A writer that is still
/// at it after the last is reported, and the next cycle tries anew.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];

/// A file to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// Which.
    pub entry: EntryRef,
    /// The receivers' file that a delta may refer to.
    pub basis: Option<Basis>,
}

/// A signature as a receiver gave it; not yet checked.
#[derive(Clone, Debug)]
pub struct PeerSignature {
    /// The lengths that were asked for.
    pub spec: SignatureSpec,
    /// The records.
    pub bytes: Vec<u8>,
}

/// Where signatures of receivers' files come from.
pub trait Signatures: Send {
    /// Says which items will be asked for, in order, so that asking costs no round trip for each. Those
    /// without a basis are passed over.
    fn announce(&mut self, items: &[Item]);
    /// Waits for the signature of the next announced item; `None`: send it in full.
    fn next(&mut self, item: &Item) -> Option<PeerSignature>;
}

/// For items without a basis.
pub struct NoSignatures;

impl Signatures for NoSignatures {
    fn announce(&mut self, _: &[Item]) {}
    fn next(&mut self, _: &Item) -> Option<PeerSignature> {
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

/// Told of every file that was read whole.
pub trait Readings: Send {
    /// Takes one.
    fn note(&mut self, reading: Reading);
}

/// What is to be encoded, and from where.
pub struct EncodeJob {
    /// The source.
    pub root: Arc<Root>,
    /// The listing that the items belong to.
    pub listing: Arc<Listing>,
    /// The files, in the order of the listing.
    pub items: Arc<Vec<Item>>,
    /// Where signatures come from.
    pub signatures: Box<dyn Signatures>,
    /// Who keeps the digests of what is read.
    pub readings: Option<Box<dyn Readings>>,
    /// zstd's level; `None`: not compressed, since the link is no bottleneck.
    pub level: Option<i32>,
}

/// Encodes `job` into `log`; blocks the calling thread until all readers have taken or left it.
pub fn encode(job: EncodeJob, log: &Log) {
    let EncodeJob { root, listing, items, mut signatures, readings, level } = job;
    signatures.announce(&items);
    let mut encoder = Encoder {
        parents: Parents::new(&root),
        readings,
        log,
        level,
        block: BlockWriter::new(),
        buffer: vec![0; READ_BYTES],
        outcome: Outcome::default(),
    };
    // An abandoned log has no one left to tell.
    let _ = encoder.run(&listing, &items, signatures.as_mut());
    log.finish(encoder.outcome);
}

struct Encoder<'a> {
    parents: Parents,
    readings: Option<Box<dyn Readings>>,
    log: &'a Log,
    level: Option<i32>,
    block: BlockWriter,
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

/// A file, with the signature of the receivers' where there is one.
type Pending = (RelPath, Option<(Basis, Arc<Signature>)>);

impl Encoder<'_> {
    fn run(&mut self, listing: &Listing, items: &[Item], signatures: &mut dyn Signatures) -> Result<(), Abandoned> {
        let mut again: Vec<Pending> = Vec::new();
        // Whole files first: the receivers compute signatures meanwhile.
        let whole = items.iter().filter(|item| item.basis.is_none());
        for item in whole.chain(items.iter().filter(|item| item.basis.is_some())) {
            let signature = item.basis.and_then(|basis| checked_signature(item, basis, signatures));
            let pending = (item.entry.path(listing), signature);
            self.attempt(pending, &mut again)?;
        }
        for pause in RETRY_PAUSES {
            if again.is_empty() {
                break;
            }
            self.flush()?;
            std::thread::sleep(pause);
            for pending in std::mem::take(&mut again) {
                self.attempt(pending, &mut again)?;
            }
        }
        for (path, _) in again {
            let detail = "it kept changing while it was read; it was not sent";
            self.outcome.problems.push(Problem::new(path, ProblemKind::Changing, detail));
        }
        self.flush()
    }

    /// Encodes one file, or notes why not; a file that changed goes to `again`.
    fn attempt(&mut self, pending: Pending, again: &mut Vec<Pending>) -> Result<(), Abandoned> {
        match self.file(&pending) {
            Ok(()) => self.outcome.files += 1,
            Err(Failed::Abandoned) => return Err(Abandoned),
            Err(Failed::Read(ReadError::Changed)) => again.push(pending),
            Err(Failed::Read(error)) => {
                let problem = Problem::new(pending.0, error.problem_kind(), error.to_string());
                self.outcome.problems.push(problem);
            }
        }
        Ok(())
    }

    fn file(&mut self, (path, signature): &Pending) -> Result<(), Failed> {
        let content = ContentReader::open(&mut self.parents, path)?;
        match signature {
            None if content.size_bytes() <= SMALL_FILE_BYTES => self.small(path, content),
            _ => self.large(path, content, signature.as_ref()).inspect_err(|_| self.block.push(&Record::Cancel, &[])),
        }
    }

    fn small(&mut self, path: &RelPath, mut content: ContentReader) -> Result<(), Failed> {
        let meta = content.meta().clone();
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

    /// The digest of content that was read whole; whoever keeps it is told.
    fn finish(&mut self, path: &RelPath, content: ContentReader) -> Result<Digest, ReadError> {
        let seen = content.seen(path.name());
        let digest = content.finish()?;
        if let Some(readings) = &mut self.readings {
            readings.note(Reading { path: path.clone(), seen, digest });
        }
        Ok(digest)
    }

    fn large(
        &mut self,
        path: &RelPath,
        mut content: ContentReader,
        signature: Option<&(Basis, Arc<Signature>)>,
    ) -> Result<(), Failed> {
        let basis = signature.map(|(basis, _)| (basis.size_bytes, basis.mtime));
        let size_bytes = content.size_bytes();
        let begin = Record::Begin { path: path.clone(), meta: content.meta().clone(), size_bytes, basis };
        self.block.push(&begin, &[]);
        let mut differ = signature.map(|(_, signature)| Differ::new(signature));
        let mut buffer = std::mem::take(&mut self.buffer);
        let copied = self.copy_content(&mut content, &mut buffer, differ.as_mut());
        self.buffer = buffer;
        copied?;
        if let Some(differ) = differ {
            let mut sent = Ok(());
            differ.finish(&mut |op| {
                if sent.is_ok() {
                    sent = self.op(op);
                }
            });
            sent?;
        }
        let digest = self.finish(path, content)?;
        self.block.push(&Record::End { digest }, &[]);
        self.flush_if_full()?;
        Ok(())
    }

    /// Reads to the announced end, no further: a file that grows for ever ends too.
    fn copy_content(
        &mut self,
        content: &mut ContentReader,
        buffer: &mut [u8],
        mut differ: Option<&mut Differ>,
    ) -> Result<(), Failed> {
        let mut left = content.size_bytes();
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = content.read(&mut buffer[..want])?;
            if read == 0 {
                return Err(Failed::Read(ReadError::Changed));
            }
            left -= read as u64;
            self.outcome.read_bytes += read as u64;
            match &mut differ {
                None => self.literal(&buffer[..read])?,
                Some(differ) => {
                    let mut sent = Ok(());
                    differ.push(&buffer[..read], &mut |op| {
                        if sent.is_ok() {
                            sent = self.op(op);
                        }
                    });
                    sent?;
                }
            }
        }
        Ok(())
    }

    fn op(&mut self, op: Op<'_>) -> Result<(), Abandoned> {
        match op {
            Op::Copy { offset, len } => {
                self.outcome.matched_bytes += len;
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
        if self.block.is_full() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Abandoned> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.log.append(self.block.take_frame(self.level))
    }
}

/// The signature of `item`'s basis, if a receiver gives one that is valid.
fn checked_signature(item: &Item, basis: Basis, signatures: &mut dyn Signatures) -> Option<(Basis, Arc<Signature>)> {
    let PeerSignature { spec, bytes } = signatures.next(item)?;
    let signature = Signature::from_peer(spec, basis.size_bytes, bytes).ok()?;
    Some((basis, Arc::new(signature)))
}
