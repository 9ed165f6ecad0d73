//! Content with holes, as its digest sees it: [`Holes`].

use super::Hasher;

/// The holes of one file, from its start on.
///
/// A hole costs the same whatever its length: its zeros are not hashed, its place and length are.
#[derive(Clone, Default)]
pub struct Holes(Option<Hasher>);

impl Holes {
    /// Adds the next hole, `bytes` long from `offset` on.
    pub fn add(&mut self, offset: u64, bytes: u64) {
        let hasher = self.0.get_or_insert_default();
        hasher.update(&offset.to_le_bytes());
        hasher.update(&bytes.to_le_bytes());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What is hashed after the rest of the content; nothing without holes.
    pub fn trailer(&self) -> Option<[u8; 32]> {
        self.0.as_ref().map(|hasher| hasher.finish().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_told_apart_by_place_and_length_at_no_cost() {
        let trailer = |holes: &[(u64, u64)]| {
            let mut all = Holes::default();
            holes.iter().for_each(|(offset, bytes)| all.add(*offset, *bytes));
            all.trailer()
        };
        assert_eq!(trailer(&[]), None);
        let different = [trailer(&[(0, u64::MAX)]), trailer(&[(0, 1)]), trailer(&[(1, 1)]), trailer(&[(0, 1), (1, 1)])];
        for (at, one) in different.iter().enumerate() {
            assert!(one.is_some() && !different[..at].contains(one));
        }
    }
}
