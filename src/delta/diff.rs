//! New content against a signature: what can be copied from the basis, and what must be sent.

use super::parts::Progress;
use super::signature::{Signature, SignatureError};
use super::weak::Weak;

/// Content held at a time, in bytes (more only for blocks above 2 MiB, of which two must fit).
const SEGMENT_BYTES: usize = 4 << 20;

/// Longest literal that a [`Differ`] hands out, in bytes; longer ones come in pieces, so that each fits a block of payload.
pub const MAX_LITERAL_BYTES: usize = 1 << 20;

/// Longest copy that a [`Differ`] hands out, but for a block, in bytes: the other side does not wait for the end of a long
/// match before it begins.
const MAX_COPY_BYTES: u64 = 4 << 20;

/// Shortest piece of content that is handed out without being buffered, in bytes. Shorter ones are gathered: how a caller
/// cuts the content must not show in the number of operations.
const UNBUFFERED_BYTES: usize = 64 << 10;

/// Blocks hashed at once where the next ones are expected: the lanes of MD4 that AVX2 gives.
const ALIGNED_BLOCKS: usize = 8;

/// Bytes searched after the last good match before the search begins to skip.
const SEARCH_BYTES: u64 = 1 << 20;

/// Bytes searched between two skips, at least; two blocks, so that one of them lies there whole, if that is more.
const PROBE_BYTES: u64 = 32 << 10;

/// A skip is this fraction of what has gone unmatched: the bound of what skipping can lose.
const SKIP_FRACTION: u64 = 8;

/// Bytes of search that one matched byte pays for: content of which a fifth is old is searched throughout.
const SEARCH_PER_MATCH: u64 = 4;

/// Bytes that may be hashed for weak hashes that turn out wrong, before and for each byte of new content. Chance needs
/// little of it; a signature made to look right everywhere gets no more than half a pass over the content.
const WRONG_HASH_BYTES: u64 = 16 << 20;
const CONTENT_PER_WRONG_HASH: u64 = 2;

/// One step of making the new content, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Take `len` bytes that begin at byte `offset` of the basis.
    Copy {
        /// First byte, counted from the start of the basis.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Take these bytes.
    Literal(&'a [u8]),
}

/// What a difference came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffStats {
    /// Bytes that literals carry.
    pub literal_bytes: u64,
    /// Bytes that copies take from the basis.
    pub matched_bytes: u64,
    /// Copies and literals.
    pub ops: u64,
    /// Positions that were searched byte by byte: the slow part of the work.
    pub searched_bytes: u64,
    /// Bytes that were hashed because of a weak hash that turned out wrong.
    pub wrong_hash_bytes: u64,
}

/// The bounds of the work, apart so that tests can make them small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) segment: usize,
    pub(super) search: u64,
    pub(super) probe: u64,
    pub(super) wrong_hash: u64,
}

impl Limits {
    fn for_block(block: usize) -> Self {
        let block_bytes = block as u64;
        Self {
            segment: SEGMENT_BYTES.max(2 * block),
            search: SEARCH_BYTES.max(4 * block_bytes),
            probe: PROBE_BYTES.max(2 * block_bytes),
            wrong_hash: WRONG_HASH_BYTES,
        }
    }
}

/// How the next bytes are looked at.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// Block by block from here, `expected` being the block that should come if nothing moved.
    Aligned { expected: u64 },
    /// At every position, until a block is found or the credit is used up.
    Rolling,
    /// Not at all for `left` bytes; then aligned again.
    Skipping { left: u64 },
}

/// Finds what new content shares with a basis, as the content streams by.
///
/// Unchanged content is followed block by block, eight at a time. A single block that differs between two that agree is
/// taken as edited in place. Where more differs, every position is searched until some block of the basis is found again.
/// Segment ends cost nothing: what is undecided there is looked at again with what follows.
///
/// **Content that has nothing in common** must not cost a search of every byte. Searching is paid from a credit of 1 MiB,
/// refilled by matches (4 bytes for each byte matched). When it is gone, an eighth of what has gone unmatched so far is
/// taken as literal unseen, then 32 KiB (or two blocks) are searched, and so on until the credit is full again. So of 1 GiB of unrelated
/// content less than 1 % is searched, and after `u` unmatched bytes (counted since the credit was last full) content that
/// matches again is found at the latest `u / 8` bytes and three blocks after it begins.
///
/// **A hostile signature** can make weak hashes agree and strong ones not. Bytes hashed in vain are limited to 16 MiB and
/// half of the content, together; beyond that a weak hash that agrees ends the search like a credit that is gone.
#[derive(Debug)]
pub struct Differ<'s> {
    signature: &'s mut Signature,
    limits: Limits,
    /// Content that is not decided yet, at most a segment.
    buffer: Vec<u8>,
    mode: Mode,
    /// Bytes that may still be searched.
    credit: u64,
    /// Bytes without a match since the credit was last full.
    unmatched: u64,
    /// Content given so far.
    content_bytes: u64,
    /// Content that is decided: where the buffer begins.
    decided_bytes: u64,
    /// Where the last match ended, in the new content and in the basis.
    met: (u64, u64),
    hashed: Vec<u8>,
    out: Output,
}

impl<'s> Differ<'s> {
    /// A differ for one new content against the basis of `signature`, of which more may become known on the way.
    pub fn new(signature: &'s mut Signature) -> Self {
        let limits = Limits::for_block(signature.spec().block_len());
        Self::with_limits(signature, limits)
    }

    pub(super) fn with_limits(signature: &'s mut Signature, limits: Limits) -> Self {
        Self {
            signature,
            limits,
            buffer: Vec::new(),
            mode: Mode::Aligned { expected: 0 },
            credit: limits.search,
            unmatched: 0,
            content_bytes: 0,
            decided_bytes: 0,
            met: (0, 0),
            hashed: Vec::new(),
            out: Output::default(),
        }
    }

    /// Takes the next bytes of the new content, in pieces of any length, and hands what is decided to `sink`.
    pub fn push(&mut self, mut data: &[u8], sink: &mut impl FnMut(Op<'_>)) {
        self.content_bytes += data.len() as u64;
        while !data.is_empty() {
            if self.buffer.is_empty() && data.len() >= UNBUFFERED_BYTES {
                let taken = self.skip(data, sink);
                self.decided_bytes += taken as u64;
                data = &data[taken..];
            }
            let room = self.limits.segment - self.buffer.len();
            let (head, rest) = data.split_at(data.len().min(room));
            self.buffer.extend_from_slice(head);
            data = rest;
            if self.buffer.len() == self.limits.segment {
                self.decide(false, sink);
            }
        }
    }

    /// Passes a hole of `bytes`: what comes before it is handed out, behind it the basis is taken to go on as far on.
    pub fn pass_hole(&mut self, bytes: u64, sink: &mut impl FnMut(Op<'_>)) {
        self.decide(true, sink);
        self.out.flush(sink);
        self.content_bytes += bytes;
        self.decided_bytes += bytes;
        let block = u64::from(self.signature.spec().block_bytes);
        let follow = self.progress().follow;
        self.mode = match follow.next_multiple_of(block) - follow {
            0 => Mode::Aligned { expected: follow / block },
            left => Mode::Skipping { left },
        };
    }

    /// How far the content is decided, and where in the basis it is.
    pub fn progress(&self) -> Progress {
        let unmatched_bytes = self.decided_bytes - self.met.0;
        Progress {
            position: self.decided_bytes,
            follow: self.met.1 + unmatched_bytes,
            unmatched_bytes,
            matched_bytes: self.out.stats.matched_bytes,
            reach_bytes: (self.limits.segment + 2 * self.signature.spec().block_len()) as u64,
        }
    }

    /// Takes the description of another part of the basis. What was skipped until now is looked at from here on.
    ///
    /// # Errors
    /// As [`Signature::add_part`].
    pub fn add_part(&mut self, number: u64, records: Vec<u8>) -> Result<(), SignatureError> {
        self.signature.add_part(number, records)?;
        if let Mode::Skipping { left } = self.mode {
            // From a place where a block would begin if nothing moved since the last match.
            let block = u64::from(self.signature.spec().block_bytes);
            let follow = self.progress().follow;
            self.mode = Mode::Skipping { left: left.min(follow.next_multiple_of(block) - follow) };
        }
        Ok(())
    }

    /// Ends the content, hands out what is left and says what it came to.
    pub fn finish(mut self, sink: &mut impl FnMut(Op<'_>)) -> DiffStats {
        self.decide(true, sink);
        self.out.flush(sink);
        self.out.stats
    }

    /// Decides what can be decided of the buffer; when `last`, all of it.
    fn decide(&mut self, last: bool, sink: &mut impl FnMut(Op<'_>)) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let decided = self.walk(&buffer, last, sink);
        self.decided_bytes += decided as u64;
        buffer.drain(..decided);
        self.buffer = buffer;
    }

    /// Walks `window` and returns how many of its bytes were handed out. The rest is shorter than the blocks that the
    /// current mode wants to see at once; nothing is left when `last`.
    fn walk(&mut self, window: &[u8], last: bool, sink: &mut impl FnMut(Op<'_>)) -> usize {
        let block = self.signature.spec().block_len();
        let many = if last || self.limits.segment < 2 * ALIGNED_BLOCKS * block { 1 } else { ALIGNED_BLOCKS };
        let mut at = Place { position: 0, literal: 0 };
        loop {
            let rest = window.len() - at.position;
            match self.mode {
                Mode::Aligned { expected } if rest >= many * block => self.follow(window, expected, &mut at, sink),
                Mode::Rolling if rest >= block => self.search(window, &mut at, sink),
                Mode::Skipping { .. } if rest > 0 => at.position += self.skipped(rest),
                _ => break,
            }
        }
        if last {
            self.match_tail(window, &mut at, sink);
            at.position = window.len();
        }
        self.out.literal(&window[at.literal..at.position], sink);
        at.position
    }

    /// Follows the basis from block `expected` on, for up to eight blocks. Ends further on: still aligned, or rolling.
    fn follow(&mut self, window: &[u8], expected: u64, at: &mut Place, sink: &mut impl FnMut(Op<'_>)) {
        if expected == self.signature.whole_blocks() && self.match_short_block(window, at, sink) {
            self.mode = Mode::Aligned { expected: expected + 1 };
            return;
        }
        let (block, record_bytes) = (self.signature.spec().block_len(), self.signature.spec().record_bytes());
        let start = at.position;
        let count = ((window.len() - start) / block).min(ALIGNED_BLOCKS);
        let mut hashed = std::mem::take(&mut self.hashed);
        hashed.clear();
        self.signature.spec().append_records(&window[start..start + count * block], &mut hashed);
        let (mut expected, whole_blocks) = (expected, self.signature.whole_blocks());
        let mut records = hashed.chunks_exact(record_bytes).peekable();
        self.mode = loop {
            // The short last block may come here; the next call looks for it.
            if expected == whole_blocks && records.len() < count && self.signature.tail_len() > 0 {
                break Mode::Aligned { expected };
            }
            let Some(record) = records.next() else { break Mode::Aligned { expected } };
            if let Some(found) = self.signature.find(record, Some(expected)) {
                self.matched(window, at, found, block, sink);
                expected = found + 1;
            } else if records.peek().is_some_and(|next| self.signature.find(next, Some(expected + 1)).is_some()) {
                self.pass(at, block);
                expected += 1;
            } else if records.len() == 0 && at.position > start {
                // Whether the basis goes on behind this block is seen once it is the first of the blocks looked at.
                break Mode::Aligned { expected };
            } else {
                // This position is known not to match; the search starts at the next.
                self.pass(at, 1);
                break Mode::Rolling;
            }
        };
        self.hashed = hashed;
    }

    /// Searches from here until a block is found, the credit is gone or no whole block is left in the window.
    fn search(&mut self, window: &[u8], at: &mut Place, sink: &mut impl FnMut(Op<'_>)) {
        let block = self.signature.spec().block_len();
        let last_start = window.len() - block;
        let mut weak = Weak::of(&window[at.position..at.position + block], self.signature.spec().block_bytes);
        while at.position <= last_start {
            if self.credit == 0 {
                return self.start_skipping();
            }
            let affordable = usize::try_from(self.credit).unwrap_or(usize::MAX);
            let tested = self.scan(&window[at.position..], &mut weak, affordable);
            self.searched(at, tested.passed);
            if !tested.candidate {
                continue;
            }
            if !self.may_hash_in_vain(block) {
                return self.start_skipping();
            }
            if let Some(found) = self.find_at(&window[at.position..at.position + block]) {
                self.matched(window, at, found, block, sink);
                self.mode = Mode::Aligned { expected: found + 1 };
                return;
            }
            self.out.stats.wrong_hash_bytes += block as u64;
            if let Some(&new) = window.get(at.position + block) {
                weak.roll(window[at.position], new);
            }
            self.searched(at, 1);
        }
    }

    /// Passes positions of `content` whose weak hash no block has: at most `affordable`. `weak` is the hash at the first
    /// position before, and at the one that stopped the scan after; past the last whole block it means nothing.
    fn scan(&self, content: &[u8], weak: &mut Weak, affordable: usize) -> Scan {
        let index = self.signature.index();
        let is_candidate = |weak: &Weak| index.may_have(weak.value()) && index.has(weak.value());
        let entering = &content[self.signature.spec().block_len()..];
        let mut passed = 0;
        for (&old, &new) in content.iter().zip(entering).take(affordable) {
            if is_candidate(weak) {
                return Scan { passed, candidate: true };
            }
            weak.roll(old, new);
            passed += 1;
        }
        if passed == affordable {
            return Scan { passed, candidate: false };
        }
        // The last position: there is nothing to roll in behind it.
        let candidate = is_candidate(weak);
        Scan { passed: passed + usize::from(!candidate), candidate }
    }

    /// The block that `content`, of block length, equals by weak and strong hash.
    fn find_at(&mut self, content: &[u8]) -> Option<u64> {
        self.hashed.clear();
        self.signature.spec().append_records(content, &mut self.hashed);
        self.signature.find(&self.hashed, None)
    }

    /// Whether `content`, of the length of the short last block, equals it.
    fn is_short_block(&mut self, content: &[u8]) -> bool {
        self.hashed.clear();
        self.signature.spec().append_records(content, &mut self.hashed);
        self.signature.tail_record() == Some(self.hashed.as_slice())
    }

    /// Matches the short last block of the basis at the current place: content that was appended to follows it.
    fn match_short_block(&mut self, window: &[u8], at: &mut Place, sink: &mut impl FnMut(Op<'_>)) -> bool {
        let tail = self.signature.tail_len();
        let found = match window.get(at.position..at.position + tail) {
            Some(content) if tail > 0 => self.is_short_block(content),
            _ => false,
        };
        if found {
            self.matched(window, at, self.signature.whole_blocks(), tail, sink);
        }
        found
    }

    /// Matches the short last block of the basis in what is left of the content: where it is expected, else at the end.
    fn match_tail(&mut self, window: &[u8], at: &mut Place, sink: &mut impl FnMut(Op<'_>)) {
        let expects_it = matches!(self.mode, Mode::Aligned { expected } if expected == self.signature.whole_blocks());
        if expects_it && self.match_short_block(window, at, sink) {
            return;
        }
        let start = window.len().saturating_sub(self.signature.tail_len());
        if start >= at.position {
            at.position = start;
            self.match_short_block(window, at, sink);
        }
    }

    /// Hands out the literal before this place, then `len` bytes from block `found` on.
    fn matched(&mut self, window: &[u8], at: &mut Place, found: u64, len: usize, sink: &mut impl FnMut(Op<'_>)) {
        let bytes = len as u64;
        self.out.literal(&window[at.literal..at.position], sink);
        self.out.copy(found * u64::from(self.signature.spec().block_bytes), bytes, sink);
        at.position += len;
        at.literal = at.position;
        let basis_end = found * u64::from(self.signature.spec().block_bytes) + bytes;
        self.met = (self.decided_bytes + at.position as u64, basis_end);
        self.credit = self.credit.saturating_add(bytes * SEARCH_PER_MATCH).min(self.limits.search);
        if self.credit == self.limits.search {
            self.unmatched = 0;
        }
    }

    fn pass(&mut self, at: &mut Place, len: usize) {
        at.position += len;
        self.unmatched += len as u64;
    }

    fn searched(&mut self, at: &mut Place, len: usize) {
        self.pass(at, len);
        self.credit = self.credit.saturating_sub(len as u64);
        self.out.stats.searched_bytes += len as u64;
    }

    /// Whether a hash over `len` bytes is allowed even if it turns out to be for nothing.
    fn may_hash_in_vain(&self, len: usize) -> bool {
        let allowed = self.limits.wrong_hash + self.content_bytes / CONTENT_PER_WRONG_HASH;
        self.out.stats.wrong_hash_bytes + len as u64 <= allowed
    }

    /// Gives up searching for a while: whole blocks, so that content edited in place is still aligned afterwards.
    fn start_skipping(&mut self) {
        let wanted = (self.unmatched / SKIP_FRACTION).max(1);
        let left = wanted.next_multiple_of(u64::from(self.signature.spec().block_bytes));
        self.mode = Mode::Skipping { left };
    }

    /// Takes up to `available` bytes into the current skip; when it is over, the next probe begins.
    fn skipped(&mut self, available: usize) -> usize {
        let Mode::Skipping { left } = self.mode else { return 0 };
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(available);
        let left = left - taken as u64;
        self.unmatched += taken as u64;
        self.mode = Mode::Skipping { left };
        if left == 0 {
            self.credit = self.limits.probe;
            self.mode = Mode::Aligned { expected: self.nothing_expected() };
        }
        taken
    }

    /// A block number that stands for none, also when counted on: where no block is likelier than another.
    fn nothing_expected(&self) -> u64 {
        self.signature.whole_blocks() + 1
    }

    /// Hands out the part of `data` that is skipped without buffering it.
    fn skip(&mut self, data: &[u8], sink: &mut impl FnMut(Op<'_>)) -> usize {
        let taken = self.skipped(data.len());
        self.out.literal(&data[..taken], sink);
        taken
    }
}

/// Where a walk is in its window: bytes from `literal` to `position` are unmatched and not handed out yet.
struct Place {
    position: usize,
    literal: usize,
}

/// How far a scan came: `passed` positions match nothing, and the one after them is a candidate or not looked at.
struct Scan {
    passed: usize,
    candidate: bool,
}

/// Hands out operations, copies that continue each other as one.
#[derive(Debug, Default)]
struct Output {
    pending: Option<(u64, u64)>,
    stats: DiffStats,
}

impl Output {
    fn copy(&mut self, offset: u64, len: u64, sink: &mut impl FnMut(Op<'_>)) {
        self.stats.matched_bytes += len;
        match &mut self.pending {
            Some((start, pending)) if *start + *pending == offset && *pending < MAX_COPY_BYTES => *pending += len,
            _ => {
                self.flush(sink);
                self.pending = Some((offset, len));
            }
        }
    }

    fn literal(&mut self, bytes: &[u8], sink: &mut impl FnMut(Op<'_>)) {
        for piece in bytes.chunks(MAX_LITERAL_BYTES) {
            self.flush(sink);
            self.stats.literal_bytes += piece.len() as u64;
            self.stats.ops += 1;
            sink(Op::Literal(piece));
        }
    }

    fn flush(&mut self, sink: &mut impl FnMut(Op<'_>)) {
        if let Some((offset, len)) = self.pending.take() {
            self.stats.ops += 1;
            sink(Op::Copy { offset, len });
        }
    }
}
