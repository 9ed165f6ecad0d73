//! Which block of the basis has a given hash.
//!
//! Sorted tables, not a hash map: a peer chooses every hash in them, and a sorted table has no bad case. A million blocks
//! that share one weak hash are found as fast as a million that differ; memory is 8 bytes a block and a filter.
//!
//! The description of a basis comes in parts, so there are several tables. Adding one merges it with those that are not
//! much longer: there are never more than about log2 of the parts, and each block is moved as many times at most.

use std::cmp::Ordering;

/// Bits of the filter per block. One position in 64 then passes the filter by chance, which makes the tables' binary
/// searches a small part of the cost of a position.
const FILTER_BITS_PER_BLOCK: u64 = 64;

/// Smallest and largest filter, as powers of two of bits: 512 bytes, and 8 MiB, which is 64 bits for each of the most
/// blocks a signature may have.
const FILTER_POWERS: std::ops::RangeInclusive<u32> = 12..=26;

/// The records of a basis, as far as they have come, each found by the number of its block.
#[derive(Debug)]
pub(super) struct Records {
    parts: Vec<Option<Vec<u8>>>,
    part_blocks: u64,
    record_bytes: usize,
}

impl Records {
    /// None yet, of `parts` parts with `part_blocks` records each.
    pub(super) fn new(parts: u64, part_blocks: u64, record_bytes: usize) -> Self {
        Self { parts: (0..parts).map(|_| None).collect(), part_blocks, record_bytes }
    }

    /// Whether part `number` is there.
    pub(super) fn has_part(&self, number: u64) -> bool {
        usize::try_from(number).ok().and_then(|number| self.parts.get(number)).is_some_and(Option::is_some)
    }

    /// Takes the records of part `number`, if there is such a part.
    pub(super) fn put(&mut self, number: u64, records: Vec<u8>) {
        if let Some(part) = usize::try_from(number).ok().and_then(|number| self.parts.get_mut(number)) {
            *part = Some(records);
        }
    }

    /// The record of block `block`, or nothing when there is none.
    pub(super) fn get(&self, block: u64) -> Option<&[u8]> {
        let part = self.parts.get(usize::try_from(block / self.part_blocks).ok()?)?.as_ref()?;
        let start = usize::try_from(block % self.part_blocks).ok()?.checked_mul(self.record_bytes)?;
        part.get(start..start.checked_add(self.record_bytes)?)
    }
}

/// The index of whole blocks of a basis by their records (weak hash, then strong hash).
#[derive(Debug)]
pub(super) struct BlockIndex {
    /// Each at least twice as long as the next. A slot has the weak hash in the upper half, the block number in the lower;
    /// ordered by weak hash, then strong hash.
    tables: Vec<Vec<u64>>,
    filter: Vec<u64>,
    filter_shift: u32,
}

fn weak_of(slot: u64) -> u64 {
    slot >> 32
}

fn block_of(slot: u64) -> u64 {
    slot & u64::from(u32::MAX)
}

/// The weak hash at the head of a record.
fn weak_at(record: &[u8]) -> u32 {
    record.first_chunk::<4>().map_or(0, |head| u32::from_be_bytes(*head))
}

/// Brings slots into order; among equal records the first block is kept.
fn sort(slots: &mut Vec<u64>, records: &Records) {
    let strong = |slot: u64| records.get(block_of(slot));
    // Adaptive: two sorted tables one after the other are merged.
    slots.sort_by(|&a, &b| weak_of(a).cmp(&weak_of(b)).then_with(|| strong(a).cmp(&strong(b))).then_with(|| a.cmp(&b)));
    slots.dedup_by(|later, kept| weak_of(*later) == weak_of(*kept) && strong(*later) == strong(*kept));
}

impl BlockIndex {
    /// An empty index, for a basis of at most `most_blocks`.
    pub(super) fn new(most_blocks: u64) -> Self {
        let wanted = most_blocks.max(1).saturating_mul(FILTER_BITS_PER_BLOCK);
        let power = wanted.checked_next_power_of_two().map_or(u32::MAX, u64::trailing_zeros);
        let power = power.clamp(*FILTER_POWERS.start(), *FILTER_POWERS.end());
        Self { tables: Vec::new(), filter: vec![0; 1 << (power - 6)], filter_shift: 32 - power }
    }

    /// Adds the blocks of this range, whose records are in `records`.
    pub(super) fn add(&mut self, blocks: std::ops::Range<u64>, records: &Records) {
        let with_record = |block| Some((u64::from(weak_at(records.get(block)?)) << 32) | block);
        let mut table: Vec<u64> = blocks.filter_map(with_record).collect();
        for &slot in &table {
            let (word, bit) = self.filter_place(weak_of(slot));
            self.filter[word] |= bit;
        }
        sort(&mut table, records);
        while let Some(mut longer) = self.tables.pop_if(|longer| longer.len() < 2 * table.len()) {
            longer.append(&mut table);
            sort(&mut longer, records);
            table = longer;
        }
        self.tables.push(table);
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
        self.tables.iter().any(|table| {
            let at = table.partition_point(|&slot| weak_of(slot) < weak);
            table.get(at).is_some_and(|&slot| weak_of(slot) == weak)
        })
    }

    /// The first block whose record equals `wanted`; `records` are those the index was made of.
    pub(super) fn find(&self, wanted: &[u8], records: &Records) -> Option<u64> {
        let weak = weak_at(wanted);
        if !self.may_have(weak) {
            return None;
        }
        let order = |&slot: &u64| match weak_of(slot).cmp(&u64::from(weak)) {
            Ordering::Equal => records.get(block_of(slot)).cmp(&Some(wanted)),
            other => other,
        };
        let found = self.tables.iter().filter_map(|table| Some(block_of(table[table.binary_search_by(order).ok()?])));
        found.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index of `records` in parts of `part_blocks`, added in the order of `parts`.
    fn indexed(records: &[u8], part_blocks: usize, parts: &[u64]) -> (BlockIndex, Records) {
        let blocks = records.len() / 12;
        let mut all = Records::new(blocks.div_ceil(part_blocks) as u64, part_blocks as u64, 12);
        let mut index = BlockIndex::new(blocks as u64);
        for &part in parts {
            let start = part as usize * part_blocks;
            let end = (start + part_blocks).min(blocks);
            all.put(part, records[start * 12..end * 12].to_vec());
            index.add(start as u64..end as u64, &all);
        }
        (index, all)
    }

    #[test]
    fn a_chain_of_equal_weak_hashes_is_searched_by_halving() {
        let records: Vec<u8> =
            (0..50_000u64).flat_map(|i| [[1, 2, 3, 4].to_vec(), (i * 7).to_be_bytes().to_vec()].concat()).collect();
        let (index, records) = indexed(&records, 50_000, &[0]);
        assert!(index.has(0x0102_0304) && !index.has(0x0102_0305));
        for block in [0u64, 1, 24_999, 49_999] {
            assert_eq!(index.find(records.get(block).unwrap(), &records), Some(block));
        }
        assert_eq!(index.find(&[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 1], &records), None);
    }

    #[test]
    fn of_equal_blocks_the_first_is_found_in_whatever_order_the_parts_come() {
        let records = [[9u8; 12], [5; 12], [9; 12], [5; 12], [9; 12]].concat();
        for parts in [&[0u64, 1, 2][..], &[2, 1, 0], &[1, 0, 2]] {
            let (index, records) = indexed(&records, 2, parts);
            assert_eq!(index.find(&[9; 12], &records), Some(0), "{parts:?}");
            assert_eq!(index.find(&[5; 12], &records), Some(1), "{parts:?}");
        }
        let (index, records) = indexed(&records, 2, &[2, 1]);
        assert_eq!((index.find(&[9; 12], &records), index.find(&[5; 12], &records)), (Some(2), Some(3)));
        let (index, records) = indexed(&[], 2, &[]);
        assert_eq!(index.find(&[0; 12], &records), None);
    }

    #[test]
    fn many_parts_make_few_tables_and_lose_nothing() {
        let records: Vec<u8> =
            (0..6_400u64).flat_map(|i| [&(i * 7919).to_be_bytes()[4..], &i.to_be_bytes()].concat()).collect();
        let parts: Vec<u64> = (0..64).map(|part| part * 37 % 64).collect();
        let (index, records) = indexed(&records, 100, &parts);
        assert!(index.tables.len() <= 7, "{} tables", index.tables.len());
        assert!((0..6_400).all(|block| index.find(records.get(block).unwrap(), &records) == Some(block)));
    }
}
