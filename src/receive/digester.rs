//! The digest of a file that is being made: of a large one on a thread of its own, while the next piece is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use crate::model::{Digest, Hasher};

/// Length of a piece: the two that are in work at a time fit the cache of a core.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces between the two threads, one of them being written and one hashed.
const PIECES: usize = 4;

/// Files from this length on are hashed aside; for shorter ones handing over costs more than it gains.
const ASIDE_FROM_BYTES: u64 = 4 << 20;

/// Zeros of holes in old files that are hashed in one session, in bytes: some seconds' work.
const MAX_ZEROS: u64 = 16 << 30;

/// What the thread is to do next.
enum Job {
    /// A new file: forget what came so far.
    Begin,
    /// Add the first bytes of this piece.
    Piece(Vec<u8>, usize),
    /// Add this range of the file.
    Range(File, std::ops::Range<u64>),
    /// Say what it came to.
    Finish,
}

struct Aside {
    jobs: SyncSender<Job>,
    pieces: Receiver<Vec<u8>>,
    digests: Receiver<io::Result<Digest>>,
}

/// From so many processors on, one of them has time for the digests: the others decrypt and write.
const CORES: usize = 3;

/// Hashes one file after the other.
pub(super) struct Digester {
    /// Whether a thread of its own is worth it on this machine.
    has_cores: bool,
    hasher: Hasher,
    piece: Vec<u8>,
    aside: Option<Aside>,
    is_aside: bool,
    /// Zeros of holes that may still be hashed.
    zeros_left: u64,
}

impl Digester {
    pub(super) fn new() -> Self {
        let has_cores = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= CORES);
        Digester {
            has_cores,
            hasher: Hasher::default(),
            piece: Vec::new(),
            aside: None,
            is_aside: false,
            zeros_left: MAX_ZEROS,
        }
    }

    /// Begins a file of `size_bytes`; what came of the one before is forgotten.
    pub(super) fn begin(&mut self, size_bytes: u64) {
        self.is_aside = false;
        if self.has_cores && size_bytes >= ASIDE_FROM_BYTES {
            if self.aside.is_none() {
                // A system without room for a thread does without.
                self.aside = Aside::start().ok();
            }
            self.is_aside = self.aside.as_ref().is_some_and(|aside| aside.jobs.send(Job::Begin).is_ok());
        }
        if !self.is_aside {
            self.hasher = Hasher::new();
        }
    }

    /// Counts zeros that cost processor time and no room: whoever had a file made with a hole of any length could have them
    /// hashed again and again.
    ///
    /// # Errors
    /// `FileTooLarge`: there were too many in this session. The file can come without reference to the old one.
    pub(super) fn allow_zeros(&mut self, bytes: u64) -> io::Result<()> {
        self.zeros_left = self.zeros_left.checked_sub(bytes).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(())
    }

    /// A piece to be filled, of a good length.
    pub(super) fn piece(&mut self) -> io::Result<Vec<u8>> {
        if let Some(aside) = self.used() {
            return aside.pieces.recv().map_err(|_| gone());
        }
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(PIECE_BYTES, 0);
        Ok(piece)
    }

    /// Adds the first `bytes` of a piece.
    pub(super) fn add_piece(&mut self, piece: Vec<u8>, bytes: usize) -> io::Result<()> {
        if let Some(aside) = self.used() {
            return aside.jobs.send(Job::Piece(piece, bytes)).map_err(|_| gone());
        }
        self.hasher.update(&piece[..bytes]);
        self.piece = piece;
        Ok(())
    }

    /// Adds content that stays with its owner.
    pub(super) fn add(&mut self, content: &[u8]) -> io::Result<()> {
        if self.used().is_none() {
            self.hasher.update(content);
            return Ok(());
        }
        for part in content.chunks(PIECE_BYTES) {
            let mut piece = self.piece()?;
            piece[..part.len()].copy_from_slice(part);
            self.add_piece(piece, part.len())?;
        }
        Ok(())
    }

    /// Adds a range of `file`, which nobody else writes.
    pub(super) fn add_range(&mut self, file: &File, range: std::ops::Range<u64>) -> io::Result<()> {
        match self.used() {
            Some(aside) => aside.jobs.send(Job::Range(file.try_clone()?, range)).map_err(|_| gone()),
            None => {
                let mut piece = self.piece()?;
                let added = add_range(&mut self.hasher, file, range, &mut piece);
                self.piece = piece;
                added
            }
        }
    }

    /// The digest of all that was added since the file began.
    pub(super) fn finish(&mut self) -> io::Result<Digest> {
        match self.used() {
            None => Ok(self.hasher.finish()),
            Some(aside) => {
                aside.jobs.send(Job::Finish).map_err(|_| gone())?;
                aside.digests.recv().map_err(|_| gone())?
            }
        }
    }

    fn used(&self) -> Option<&Aside> {
        self.aside.as_ref().filter(|_| self.is_aside)
    }
}

/// Only a defect ends the thread before its owner.
fn gone() -> io::Error {
    io::Error::other("the digest could not be computed")
}

fn add_range(hasher: &mut Hasher, file: &File, range: std::ops::Range<u64>, piece: &mut [u8]) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(piece.len());
        file.read_exact_at(&mut piece[..want], at)?;
        hasher.update(&piece[..want]);
        at += want as u64;
    }
    Ok(())
}

impl Aside {
    fn start() -> io::Result<Self> {
        // No more jobs than pieces wait, so that a file of many ranges holds few handles.
        let (jobs, todo) = sync_channel(PIECES);
        let (spare, pieces) = channel();
        let (answer, digests) = channel();
        for _ in 0..PIECES {
            // The other end is in this very function.
            let _ = spare.send(vec![0; PIECE_BYTES]);
        }
        std::thread::Builder::new().name("digest".into()).spawn(move || {
            let (mut hasher, mut outcome, mut own) = (Hasher::new(), Ok(()), Vec::new());
            for job in todo {
                match job {
                    Job::Begin => (hasher, outcome) = (Hasher::new(), Ok(())),
                    Job::Piece(piece, bytes) => {
                        hasher.update(&piece[..bytes]);
                        // Whoever does not want it back is about to end this thread.
                        let _ = spare.send(piece);
                    }
                    Job::Range(file, range) => {
                        own.resize(PIECE_BYTES, 0);
                        outcome = outcome.and_then(|()| add_range(&mut hasher, &file, range, &mut own));
                    }
                    Job::Finish => {
                        let ended: io::Result<()> = std::mem::replace(&mut outcome, Ok(()));
                        if answer.send(ended.map(|()| hasher.finish())).is_err() {
                            return;
                        }
                    }
                }
            }
        })?;
        Ok(Aside { jobs, pieces, digests })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn here_and_aside_a_file_has_the_digest_of_its_bytes_in_order() {
        let content: Vec<u8> = (0u32..3_000_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mut digester = Digester { has_cores: true, ..Digester::new() };
        for announced in [0, content.len() as u64, 1, ASIDE_FROM_BYTES] {
            digester.begin(announced);
            digester.add(b"of a file that was given up").unwrap();
            digester.begin(announced);
            let (first, second) = (700_001, 9_000_000);
            digester.add(&content[..first]).unwrap();
            digester.add_range(&file, first as u64..second as u64).unwrap();
            for part in content[second..].chunks(100_000) {
                let mut piece = digester.piece().unwrap();
                piece[..part.len()].copy_from_slice(part);
                digester.add_piece(piece, part.len()).unwrap();
            }
            assert_eq!(digester.finish().unwrap(), Digest::of(&content), "announced: {announced}");
        }
    }

    #[test]
    fn a_range_that_is_not_there_is_an_error_of_that_file_alone() {
        let file = tempfile::tempfile().unwrap();
        let mut digester = Digester { has_cores: true, ..Digester::new() };
        digester.begin(ASIDE_FROM_BYTES);
        digester.add_range(&file, 0..1).unwrap();
        digester.add(b"more").unwrap();
        assert!(digester.finish().is_err());
        digester.begin(ASIDE_FROM_BYTES);
        assert_eq!(digester.finish().unwrap(), Digest::of(b""));
    }
}
