//! Whether a peer's operations may be carried out: judged one by one, before anything is copied or written.

use super::Op;
use thiserror::Error;

/// Operations that are free of the ratio below: short files, the tail of a basis, literals cut at frames.
const FREE_OPS: u64 = 64;

/// Bytes that an operation must produce on average. The shortest block is 512 bytes and at most one literal stands
/// between two copies, so an honest delta stays above; a flood of one-byte operations, a system call each, does not.
const BYTES_PER_OP: u64 = 256;

/// Why a sequence of operations is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// A copy or a literal of no bytes.
    #[error("an operation of a delta is empty")]
    Empty,
    /// A copy that does not lie within the basis.
    #[error("a delta copies {len} bytes at {offset} of a basis of {basis_bytes} bytes")]
    OutsideBasis {
        /// Where the copy begins in the basis, in bytes.
        offset: u64,
        /// How many bytes it takes.
        len: u64,
        /// How long the basis is.
        basis_bytes: u64,
    },
    /// More content than was announced.
    #[error("a delta makes more than the announced {new_bytes} bytes")]
    TooLong {
        /// The announced length of the new content.
        new_bytes: u64,
    },
    /// Less content than was announced.
    #[error("a delta makes {made_bytes} of the announced {new_bytes} bytes")]
    TooShort {
        /// What the operations made.
        made_bytes: u64,
        /// The announced length of the new content.
        new_bytes: u64,
    },
    /// More operations than that much content can need.
    #[error("a delta takes {ops} operations to make {made_bytes} bytes")]
    TooManyOps {
        /// Operations so far.
        ops: u64,
        /// Bytes that they made.
        made_bytes: u64,
    },
}

/// Judges the operations of one delta in order.
///
/// After each `Ok` it holds that every copy lay within the basis and that what has been made is no longer than announced;
/// after [`finish`](Self::finish) it is exactly as long. What was made may still be the wrong content: only a digest of
/// the whole tells.
#[derive(Debug)]
pub struct PatchCheck {
    basis_bytes: u64,
    new_bytes: u64,
    made_bytes: u64,
    ops: u64,
}

impl PatchCheck {
    /// For a delta from a basis of `basis_bytes` (as measured here) to content of `new_bytes` (as announced).
    pub fn new(basis_bytes: u64, new_bytes: u64) -> Self {
        Self { basis_bytes, new_bytes, made_bytes: 0, ops: 0 }
    }

    /// Judges the next operation; carry it out only after `Ok`. After an error the delta is lost as a whole.
    pub fn check(&mut self, op: &Op<'_>) -> Result<(), PatchError> {
        let len = match *op {
            Op::Copy { offset, len } => {
                if offset.checked_add(len).is_none_or(|end| end > self.basis_bytes) {
                    return Err(PatchError::OutsideBasis { offset, len, basis_bytes: self.basis_bytes });
                }
                len
            }
            Op::Literal(bytes) => bytes.len() as u64,
        };
        self.made(len)
    }

    /// Judges a hole of `len` bytes, which is an operation like another.
    pub fn check_hole(&mut self, len: u64) -> Result<(), PatchError> {
        self.made(len)
    }

    fn made(&mut self, len: u64) -> Result<(), PatchError> {
        if len == 0 {
            return Err(PatchError::Empty);
        }
        if len > self.new_bytes - self.made_bytes {
            return Err(PatchError::TooLong { new_bytes: self.new_bytes });
        }
        self.made_bytes += len;
        self.ops += 1;
        if self.ops > FREE_OPS + self.made_bytes / BYTES_PER_OP {
            return Err(PatchError::TooManyOps { ops: self.ops, made_bytes: self.made_bytes });
        }
        Ok(())
    }

    /// Bytes made so far: the place in the new content where the next operation writes.
    pub fn made_bytes(&self) -> u64 {
        self.made_bytes
    }

    /// Says that no operation follows.
    pub fn finish(self) -> Result<(), PatchError> {
        if self.made_bytes == self.new_bytes {
            return Ok(());
        }
        Err(PatchError::TooShort { made_bytes: self.made_bytes, new_bytes: self.new_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const COPY_ALL: Op<'static> = Op::Copy { offset: 0, len: 100 };

    #[rstest]
    #[case::nothing(0, &[], Ok(()))]
    #[case::whole_basis(100, &[COPY_ALL], Ok(()))]
    #[case::basis_twice(201, &[COPY_ALL, Op::Literal(b"x"), COPY_ALL], Ok(()))]
    #[case::last_byte(1, &[Op::Copy { offset: 99, len: 1 }], Ok(()))]
    #[case::empty_copy(1, &[Op::Copy { offset: 5, len: 0 }], Err(PatchError::Empty))]
    #[case::empty_literal(1, &[Op::Literal(b"")], Err(PatchError::Empty))]
    #[case::one_past(9, &[Op::Copy { offset: 99, len: 2 }], Err(PatchError::OutsideBasis { offset: 99, len: 2, basis_bytes: 100 }))]
    #[case::far_past(9, &[Op::Copy { offset: 1 << 60, len: 1 }], Err(PatchError::OutsideBasis { offset: 1 << 60, len: 1, basis_bytes: 100 }))]
    #[case::wraps(9, &[Op::Copy { offset: u64::MAX, len: 2 }], Err(PatchError::OutsideBasis { offset: u64::MAX, len: 2, basis_bytes: 100 }))]
    #[case::wraps_to_inside(9, &[Op::Copy { offset: 1, len: u64::MAX }], Err(PatchError::OutsideBasis { offset: 1, len: u64::MAX, basis_bytes: 100 }))]
    #[case::copy_too_long(99, &[COPY_ALL], Err(PatchError::TooLong { new_bytes: 99 }))]
    #[case::literal_too_long(2, &[Op::Literal(b"ab"), Op::Literal(b"c")], Err(PatchError::TooLong { new_bytes: 2 }))]
    #[case::short(3, &[Op::Literal(b"ab")], Err(PatchError::TooShort { made_bytes: 2, new_bytes: 3 }))]
    #[case::announced_without_ops(u64::MAX, &[], Err(PatchError::TooShort { made_bytes: 0, new_bytes: u64::MAX }))]
    fn only_operations_that_make_exactly_the_announced_content_from_the_basis_pass(
        #[case] new_bytes: u64,
        #[case] ops: &[Op<'_>],
        #[case] expected: Result<(), PatchError>,
    ) {
        let mut check = PatchCheck::new(100, new_bytes);
        let judged = ops.iter().try_for_each(|op| check.check(op)).and_then(|()| check.finish());
        assert_eq!(judged, expected);
    }

    #[test]
    fn a_flood_of_tiny_operations_is_cut_off_early() {
        let mut check = PatchCheck::new(100, 1 << 40);
        let taken = (0..1_000_000).take_while(|_| check.check(&Op::Copy { offset: 0, len: 1 }).is_ok()).count();
        assert!(taken < 70, "{taken} one-byte copies were taken");
    }

    #[test]
    fn the_densest_honest_delta_passes() {
        let mut check = PatchCheck::new(512, 513 * 100_000);
        for _ in 0..100_000 {
            check.check(&Op::Copy { offset: 0, len: 512 }).unwrap();
            check.check(&Op::Literal(b"x")).unwrap();
        }
        check.finish().unwrap();
    }
}
