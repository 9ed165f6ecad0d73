//! Long bases are described part by part: which parts are worth asking for, and when to wait for one.
//!
//! A description is paid for by what it finds. Content that has nothing to do with its basis gets the description of a
//! few parts and then of one byte in sixteen, each looked for where the content is by then; content that matches has the parts that come next described while it is
//! still being compared, so that neither side waits for the other.

use super::signature::SignatureSpec;
use std::collections::VecDeque;
use std::ops::Range;

/// Length of a part in bytes, about. A signer is done with it in 2 ms, so that little is done in vain; question and answer
/// add a hundredth to the records.
const PART_BYTES: u64 = 4 << 20;

/// Fewest blocks of a part, for the sake of the largest files: it bounds the number of parts to 4,096.
const PART_BLOCKS: u64 = 256;

/// Parts after the current one that are asked for while content matches: on a link that takes 50 ms there and back, 600 MB
/// are described in a second.
const AHEAD: u64 = 8;

/// Parts that may be described before anything has matched, beside the first.
const FREE_PARTS: u64 = 3;

/// Parts that the credit buys at most: how much may be described in vain where content that matched ends.
const MOST_CREDIT_PARTS: u64 = 16;

/// Bytes of basis that a matched byte pays for, as it pays for the search: content of which a quarter is old is described
/// throughout.
const BASIS_PER_MATCH: u64 = 4;

/// Bytes of new content that pay for one byte of basis where nothing matches.
const CONTENT_PER_BASIS: u64 = 16;

/// How a basis is cut into parts: all but the last of one length, which is a whole number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    basis_bytes: u64,
    part_bytes: u64,
}

impl Parts {
    /// The parts of a basis of `basis_bytes` whose signature is by `spec`.
    pub fn of(spec: SignatureSpec, basis_bytes: u64) -> Self {
        let block_bytes = u64::from(spec.block_bytes).max(1);
        Self { basis_bytes, part_bytes: (PART_BYTES / block_bytes).max(PART_BLOCKS) * block_bytes }
    }

    #[cfg(test)]
    pub(super) fn with_part_bytes(basis_bytes: u64, part_bytes: u64) -> Self {
        Self { basis_bytes, part_bytes }
    }

    /// Length of the basis in bytes.
    pub fn basis_bytes(self) -> u64 {
        self.basis_bytes
    }

    /// Length of a part in bytes; the last may be shorter.
    pub fn part_bytes(self) -> u64 {
        self.part_bytes
    }

    /// How many there are.
    pub fn count(self) -> u64 {
        self.basis_bytes.div_ceil(self.part_bytes)
    }

    /// The bytes of the basis that part `number` has; none if there is no such part.
    pub fn range(self, number: u64) -> Range<u64> {
        let start = number.saturating_mul(self.part_bytes).min(self.basis_bytes);
        start..start.saturating_add(self.part_bytes).min(self.basis_bytes)
    }

    /// Whether a peer may ask for the `bytes` from `offset` on: no more than a part, whole blocks, within the basis.
    pub fn allows(self, spec: SignatureSpec, offset: u64, bytes: u64) -> bool {
        let block_bytes = u64::from(spec.block_bytes).max(1);
        let is_whole = |bytes: u64| bytes.is_multiple_of(block_bytes);
        let end = offset.checked_add(bytes).filter(|end| *end <= self.basis_bytes);
        let ends_well = end.is_some_and(|end| is_whole(end) || end == self.basis_bytes);
        is_whole(offset) && ends_well && (1..=self.part_bytes).contains(&bytes)
    }

    /// The part that byte `offset` of the basis lies in, or would.
    fn at(self, offset: u64) -> u64 {
        offset / self.part_bytes
    }
}

/// How far a [`Differ`](super::Differ) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of new content that are decided.
    pub position: u64,
    /// Byte of the basis that should come next if nothing moved since the last match.
    pub follow: u64,
    /// Bytes of new content since the last match.
    pub unmatched_bytes: u64,
    /// Bytes found in the basis so far.
    pub matched_bytes: u64,
    /// Bytes of basis that will be looked at with the next decision.
    pub reach_bytes: u64,
}

/// Decides which parts of a basis are asked for. The answers are expected in the order of the questions.
#[derive(Debug)]
pub struct PartPlan {
    parts: Parts,
    new_bytes: u64,
    known: Vec<bool>,
    under_way: VecDeque<u64>,
    /// Bytes of basis that may still be asked for.
    credit: u64,
    seen: (u64, u64),
    stopped: bool,
}

impl PartPlan {
    /// A plan for new content of `new_bytes`, when those parts are there already that `known` says.
    pub fn new(parts: Parts, new_bytes: u64, known: impl Fn(u64) -> bool) -> Self {
        Self {
            parts,
            new_bytes,
            known: (0..parts.count()).map(known).collect(),
            under_way: VecDeque::new(),
            credit: FREE_PARTS * parts.part_bytes,
            seen: (0, 0),
            stopped: false,
        }
    }

    /// The parts that it is about.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// The next part to ask for now; to be called until there is none.
    pub fn ask(&mut self, progress: &Progress) -> Option<u64> {
        let (position, matched) = std::mem::replace(&mut self.seen, (progress.position, progress.matched_bytes));
        let earned = (progress.matched_bytes - matched).saturating_mul(BASIS_PER_MATCH)
            + (progress.position / CONTENT_PER_BASIS - position / CONTENT_PER_BASIS);
        self.credit = self.credit.saturating_add(earned).min(MOST_CREDIT_PARTS * self.parts.part_bytes);
        if self.stopped || self.credit < self.parts.part_bytes {
            return None;
        }
        let ahead = match progress {
            _ if !self.is_lost(progress) && progress.matched_bytes > 0 => 0..=AHEAD,
            Progress { position: 0, .. } => 0..=1,
            // The part of the current place would have to be waited for; the next one is there in time.
            _ => 1..=1,
        };
        let places = self.places(progress).into_iter().flatten().map(|place| self.parts.at(place));
        let mut wanted = places.flat_map(|part| ahead.clone().map(move |ahead| part + ahead));
        let part = wanted.find(|part| usize::try_from(*part).ok().and_then(|at| self.known.get(at)) == Some(&false))?;
        self.known[usize::try_from(part).ok()?] = true;
        self.under_way.push_back(part);
        self.credit -= self.parts.part_bytes;
        Some(part)
    }

    /// Whether the next answer must be there before the differ goes on.
    pub fn must_wait(&self, progress: &Progress) -> bool {
        let reach = match progress {
            _ if self.is_lost(progress) => 0,
            // Something may have been cut out: what follows is looked for in all that was asked for.
            Progress { unmatched_bytes, reach_bytes, .. } if *unmatched_bytes > reach_bytes / 8 => {
                reach_bytes + AHEAD * self.parts.part_bytes
            }
            _ => progress.reach_bytes,
        };
        self.places(progress).into_iter().flatten().any(|place| {
            let needed = self.parts.at(place)..=self.parts.at(place.saturating_add(reach));
            self.under_way.iter().any(|part| needed.contains(part))
        })
    }

    /// Takes note that the next answer is there: which part it is about.
    pub fn answered(&mut self) -> Option<u64> {
        self.under_way.pop_front()
    }

    /// No more parts: the peer does not give them.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether so much has gone unmatched that no part is likelier than another.
    fn is_lost(&self, progress: &Progress) -> bool {
        progress.unmatched_bytes > self.parts.part_bytes
    }

    /// Where in the basis the next content may come from: where the last match would go on, and, before one and long
    /// after one, as far from the end as the new content is from its own.
    fn places(&self, progress: &Progress) -> [Option<u64>; 2] {
        let is_open = progress.matched_bytes == 0 || self.is_lost(progress);
        let left = self.new_bytes.saturating_sub(progress.position);
        let from_end = self.parts.basis_bytes.saturating_sub(left);
        [Some(progress.follow), Some(from_end).filter(|_| is_open)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 1 << 20;

    fn plan(basis_parts: u64, new_bytes: u64) -> PartPlan {
        PartPlan::new(Parts::with_part_bytes(basis_parts * PART, PART), new_bytes, |part| part == 0)
    }

    fn at(position: u64, follow: u64, unmatched_bytes: u64) -> Progress {
        let matched_bytes = position - unmatched_bytes;
        Progress { position, follow, unmatched_bytes, matched_bytes, reach_bytes: PART / 4 }
    }

    fn asked(plan: &mut PartPlan, progress: &Progress) -> Vec<u64> {
        std::iter::from_fn(|| plan.ask(progress)).collect()
    }

    #[test]
    fn parts_cover_the_basis_without_gaps() {
        let spec = SignatureSpec::for_basis(1_000_000_001);
        let parts = Parts::of(spec, 1_000_000_001);
        assert_eq!(parts.part_bytes() % u64::from(spec.block_bytes), 0);
        let ranges: Vec<Range<u64>> = (0..parts.count()).map(|number| parts.range(number)).collect();
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start && !pair[1].is_empty()));
        assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, 1_000_000_001));
        assert!(parts.range(parts.count()).is_empty() && parts.range(u64::MAX).is_empty());
        let largest = 4u64 << 40;
        assert!(Parts::of(SignatureSpec::for_basis(largest), largest).count() <= 4096);
    }

    #[test]
    fn only_whole_blocks_of_at_most_a_part_may_be_asked_for() {
        let spec = SignatureSpec { block_bytes: 1024, strong_bytes: 8 };
        let parts = Parts::with_part_bytes(10_000, 4096);
        for (offset, bytes) in [(0, 4096), (0, 1024), (4096, 4096), (8192, 1808), (1024, 2048)] {
            assert!(parts.allows(spec, offset, bytes), "{bytes} from {offset}");
        }
        let refused =
            [(0, 0), (1, 1024), (0, 1023), (0, 5120), (8192, 1024 * 2), (8192, 1807), (10_240, 1), (u64::MAX, 2)];
        for (offset, bytes) in refused {
            assert!(!parts.allows(spec, offset, bytes), "{bytes} from {offset}");
        }
    }

    #[test]
    fn matching_content_has_the_next_parts_described_ahead() {
        let mut plan = plan(100, 100 * PART);
        assert_eq!(asked(&mut plan, &at(0, 0, 0)), [1]);
        assert_eq!(asked(&mut plan, &at(PART / 4, PART / 4, 0)), [2, 3, 4]);
        assert!(!plan.must_wait(&at(PART / 4, PART / 4, 0)));
        // The next decision reaches into part 1.
        assert!(plan.must_wait(&at(PART * 7 / 8, PART * 7 / 8, 0)));
        assert_eq!(plan.answered(), Some(1));
        assert!(!plan.must_wait(&at(PART * 7 / 8, PART * 7 / 8, 0)));
        for step in 1..100 {
            let progress = at(step * PART, step * PART, 0);
            asked(&mut plan, &progress);
            while plan.must_wait(&progress) {
                plan.answered();
            }
        }
        assert!(plan.known.iter().all(|known| *known));
    }

    #[test]
    fn unrelated_content_is_hardly_described() {
        let mut plan = plan(1000, 1000 * PART);
        let mut described = 0;
        for step in 0..4000 {
            let position = step * PART / 4;
            described += asked(&mut plan, &at(position, position, position)).len();
            while plan.must_wait(&at(position, position, position)) {
                plan.answered();
            }
        }
        assert!((40..80).contains(&described), "{described} of 1000");
    }

    #[test]
    fn what_was_cut_out_in_front_is_looked_for_from_the_end() {
        let mut plan = plan(100, 60 * PART);
        assert_eq!(asked(&mut plan, &at(0, 0, 0)), [1, 40, 41]);
        // Found there, it goes on from there.
        let found = Progress { position: PART / 2, follow: 40 * PART + PART / 2, ..at(PART / 2, 0, 0) };
        assert_eq!(asked(&mut plan, &found), [42, 43]);
    }

    #[test]
    fn a_plan_that_was_stopped_asks_no_more() {
        let mut plan = plan(100, 100 * PART);
        plan.stop();
        assert_eq!(plan.ask(&at(0, 0, 0)), None);
    }
}
