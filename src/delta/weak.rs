//! The weak rolling hash of a block: librsync's, as `fast_rsync` writes it into a signature.
//!
//! Two sums over the bytes of the block, each taken modulo 2^16; here they run in 32 bits and are cut when read, which
//! gives the same value because 2^16 divides 2^32.

/// What librsync adds to each byte, so that runs of zeros still depend on their length.
const CHARACTER_OFFSET: u32 = 31;

/// The hash of the block that begins at some position; rolled one byte forward it is that of the next position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weak {
    sum: u32,
    weighted: u32,
    block_bytes: u32,
}

impl Weak {
    /// The hash of `block`, which `block_bytes` says the length of.
    pub(super) fn of(block: &[u8], block_bytes: u32) -> Self {
        let (mut sum, mut weighted, mut weight) = (0u32, 0u32, block_bytes);
        for &byte in block {
            let value = u32::from(byte) + CHARACTER_OFFSET;
            sum = sum.wrapping_add(value);
            weighted = weighted.wrapping_add(value.wrapping_mul(weight));
            weight = weight.wrapping_sub(1);
        }
        Self { sum, weighted, block_bytes }
    }

    /// Moves the block one byte forward: `old` leaves in front, `new` enters behind.
    #[inline]
    pub(super) fn roll(&mut self, old: u8, new: u8) {
        let (old, new) = (u32::from(old), u32::from(new));
        self.sum = self.sum.wrapping_add(new).wrapping_sub(old);
        let leaving = self.block_bytes.wrapping_mul(old + CHARACTER_OFFSET);
        self.weighted = self.weighted.wrapping_add(self.sum).wrapping_sub(leaving);
    }

    /// The 32 bits as a signature record has them (big-endian there).
    #[inline]
    pub(super) fn value(self) -> u32 {
        (self.sum & 0xffff) | (self.weighted << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(block: &[u8], block_bytes: u32) -> u32 {
        let options = fast_rsync::SignatureOptions { block_size: block_bytes, crypto_hash_size: 8 };
        let signature = fast_rsync::Signature::calculate(block, options);
        u32::from_be_bytes(signature.serialized()[12..16].try_into().unwrap())
    }

    proptest! {
        #[test]
        fn rolled_and_fresh_hashes_are_those_of_fast_rsync(
            bytes in proptest::collection::vec(any::<u8>(), 2..700), part in 0.0f64..1.0
        ) {
            let block = 1 + ((bytes.len() - 2) as f64 * part) as usize;
            let mut weak = Weak::of(&bytes[..block], block as u32);
            prop_assert_eq!(weak.value(), reference(&bytes[..block], block as u32));
            for start in 1..=bytes.len() - block {
                weak.roll(bytes[start - 1], bytes[start + block - 1]);
                prop_assert_eq!(weak.value(), reference(&bytes[start..start + block], block as u32));
            }
        }
    }

    #[test]
    fn blocks_longer_than_the_sums_are_wide_agree_too() {
        let bytes: Vec<u8> = (0..200_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut weak = Weak::of(&bytes[..200_000], 200_000);
        assert_eq!(weak.value(), reference(&bytes[..200_000], 200_000));
        weak.roll(bytes[0], bytes[200_000]);
        assert_eq!(weak.value(), reference(&bytes[1..], 200_000));
    }
}
