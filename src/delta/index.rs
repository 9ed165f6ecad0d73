//! Which block of the basis has a given hash.
//!
//! A sorted table, not a hash map: a peer chooses every hash in it, and a sorted table has no bad case. A million blocks
//! that share one weak hash are found as fast as a million that differ; memory is 8 bytes a block and a filter.

use std::cmp::Ordering;

/// Bits of the filter per block. One position in 64 then passes the filter by chance, which makes the table's binary
/// search a small part of the cost of a position.
const FILTER_BITS_PER_BLOCK: usize = 64;

/// Smallest and largest filter, as powers of two of bits: 512 bytes, and 8 MiB, which is 64 bits for each of the most
/// blocks a signature may have.
const FILTER_POWERS: std::ops::RangeInclusive<u32> = 12..=26;

/// The index of the whole blocks of a basis by their records (weak hash, then strong hash).
#[derive(Debug)]
pub(super) struct BlockIndex {
    /// Weak hash in the upper half, block number in the lower; ordered by weak hash, then strong hash.
    slots: Vec<u64>,
    filter: Vec<u64>,
    filter_shift: u32,
}

fn weak_of(slot: u64) -> u64 {
    slot >> 32
}

fn block_of(slot: u64) -> u64 {
    slot & u64::from(u32::MAX)
}

/// Record number `block` in `records`, or nothing when there is none.
pub(super) fn record(records: &[u8], record_bytes: usize, block: u64) -> Option<&[u8]> {
    let start = usize::try_from(block).ok()?.checked_mul(record_bytes)?;
    records.get(start..start.checked_add(record_bytes)?)
}

/// The weak hash at the head of a record.
fn weak_at(record: &[u8]) -> u32 {
    record.first_chunk::<4>().map_or(0, |head| u32::from_be_bytes(*head))
}

impl BlockIndex {
    /// Indexes `records`, each of `record_bytes`; among equal ones the first block is kept.
    pub(super) fn new(records: &[u8], record_bytes: usize) -> Self {
        let mut slots: Vec<u64> = (0u64..)
            .zip(records.chunks_exact(record_bytes))
            .map(|(block, record)| (u64::from(weak_at(record)) << 32) | block)
            .collect();
        slots.sort_unstable();
        let strong = |slot: u64| record(records, record_bytes, block_of(slot));
        for chain in slots.chunk_by_mut(|a, b| weak_of(*a) == weak_of(*b)).filter(|chain| chain.len() > 1) {
            chain.sort_unstable_by(|a, b| strong(*a).cmp(&strong(*b)).then(a.cmp(b)));
        }
        slots.dedup_by(|later, kept| strong(*later) == strong(*kept));

        let wanted = (slots.len().max(1) * FILTER_BITS_PER_BLOCK).next_power_of_two().trailing_zeros();
        let power = wanted.clamp(*FILTER_POWERS.start(), *FILTER_POWERS.end());
        let mut index = Self { slots, filter: vec![0; 1 << (power - 6)], filter_shift: 32 - power };
        for at in 0..index.slots.len() {
            let (word, bit) = index.filter_place(weak_of(index.slots[at]));
            index.filter[word] |= bit;
        }
        index
    }

    #[inline]
    fn filter_place(&self, weak: u64) -> (usize, u64) {
        // Multiplying by 2^32 over the golden ratio spreads hashes whose sums differ little (short blocks, plain text).
        let spread = (weak.wrapping_mul(0x9E37_79B1) & u64::from(u32::MAX)) >> self.filter_shift;
        ((spread >> 6) as usize, 1 << (spread & 63))
    }

    /// Whether a block with this weak hash may exist: no is certain, yes is usually a block.
    #[inline]
    pub(super) fn may_have(&self, weak: u32) -> bool {
        let (word, bit) = self.filter_place(u64::from(weak));
        self.filter[word] & bit != 0
    }

    /// Whether a block with this weak hash exists.
    pub(super) fn has(&self, weak: u32) -> bool {
        let weak = u64::from(weak);
        let at = self.slots.partition_point(|&slot| weak_of(slot) < weak);
        self.slots.get(at).is_some_and(|&slot| weak_of(slot) == weak)
    }

    /// The first block whose record equals `wanted`; `records` are those the index was made of.
    pub(super) fn find(&self, wanted: &[u8], records: &[u8]) -> Option<u64> {
        let weak = weak_at(wanted);
        if !self.may_have(weak) {
            return None;
        }
        let order = |&slot: &u64| match weak_of(slot).cmp(&u64::from(weak)) {
            Ordering::Equal => record(records, wanted.len(), block_of(slot)).cmp(&Some(wanted)),
            other => other,
        };
        let at = self.slots.binary_search_by(order).ok()?;
        Some(block_of(self.slots[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_equal_weak_hashes_is_searched_by_halving() {
        let records: Vec<u8> =
            (0..50_000u64).flat_map(|i| [[1, 2, 3, 4].to_vec(), (i * 7).to_be_bytes().to_vec()].concat()).collect();
        let index = BlockIndex::new(&records, 12);
        assert!(index.has(0x0102_0304) && !index.has(0x0102_0305));
        for block in [0u64, 1, 24_999, 49_999] {
            assert_eq!(index.find(record(&records, 12, block).unwrap(), &records), Some(block));
        }
        assert_eq!(index.find(&[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 1], &records), None);
    }

    #[test]
    fn of_equal_blocks_the_first_is_found() {
        let records = [[9u8; 12], [5; 12], [9; 12], [5; 12]].concat();
        let index = BlockIndex::new(&records, 12);
        assert_eq!(index.find(&[9; 12], &records), Some(0));
        assert_eq!(index.find(&[5; 12], &records), Some(1));
        assert_eq!(BlockIndex::new(&[], 12).find(&[0; 12], &[]), None);
    }
}
