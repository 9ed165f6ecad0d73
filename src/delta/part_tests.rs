//! A whole comparison with a signature that comes part by part, against the naive receiver.

use super::diff::Limits;
use super::tests::{Receiver, basis, edit, edited, noise, sign_in_pieces, spec};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use rstest::rstest;

const BLOCK: u32 = 1_024;
const PART: usize = 16 << 10;

/// What a comparison came to.
struct Came {
    stats: DiffStats,
    made: Vec<u8>,
    described_bytes: u64,
}

/// Compares as a primary does: asks, waits where it must, goes on. The receiver copies from `basis`; its description is
/// that of `described` for each part, which is refused when there is none.
fn compare(
    basis: &[u8],
    described: impl Fn(u64) -> Option<Vec<u8>>,
    new: &[u8],
    (block, part_bytes, segment): (u32, usize, usize),
) -> Came {
    let parts = Parts::with_part_bytes(basis.len() as u64, part_bytes as u64);
    let mut signature = Signature::with_parts(spec(block), parts);
    let records = |number: u64| {
        let range = parts.range(number);
        described(number)
            .map(|whole| sign_in_pieces(spec(block), &whole[range.start as usize..range.end as usize], 4_096))
    };
    let mut described_bytes = 0;
    if let Some(first) = records(0) {
        signature.add_part(0, first).unwrap();
        described_bytes += parts.range(0).end;
    }
    let mut plan = PartPlan::new(parts, new.len() as u64, |part| signature.has_part(part));
    let limits =
        Limits { segment: segment.max(2 * block as usize), search: 1 << 20, probe: 1 << 18, wrong_hash: 1 << 24 };
    let mut differ = Differ::with_limits(&mut signature, limits);
    let mut receiver =
        Receiver { basis, check: PatchCheck::new(basis.len() as u64, new.len() as u64), made: Vec::new() };
    let mut sink = |op: Op<'_>| receiver.carry_out(op);
    for piece in new.chunks(segment.div_ceil(4)).chain([&[][..]]) {
        let progress = differ.progress();
        while let Some(part) = plan.ask(&progress) {
            let range = parts.range(part);
            assert!(parts.allows(spec(block), range.start, range.end - range.start), "part {part}");
            described_bytes += range.end - range.start;
        }
        while plan.must_wait(&progress) {
            let part = plan.answered().unwrap();
            match records(part) {
                Some(records) => differ.add_part(part, records).unwrap(),
                None => plan.stop(),
            }
        }
        differ.push(piece, &mut sink);
    }
    let stats = differ.finish(&mut sink);
    receiver.check.finish().unwrap();
    Came { stats, made: receiver.made, described_bytes }
}

fn cost(basis: &[u8], new: &[u8]) -> Came {
    let came = compare(basis, |_| Some(basis.to_vec()), new, (BLOCK, PART, PART));
    assert!(came.made == new, "the receiver made something else");
    came
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_content_is_made_whichever_parts_are_refused(
        basis in basis(), edits in vec(edit(), 0..6), block in 512..1_100u32, part_blocks in 1..6usize,
        segment in 1_024..20_000usize, refused in vec(any::<bool>(), 40),
    ) {
        let new = edited(&basis, &edits);
        let answer = |part: u64| (!refused[part as usize % 40]).then(|| basis.clone());
        let came = compare(&basis, answer, &new, (block, part_blocks * block as usize, segment));
        prop_assert!(came.made == new);
    }

    /// What is made from a basis that changed is of the announced length and made of valid operations; whether it is right
    /// is for the digest to tell.
    #[test]
    fn a_basis_that_changes_between_two_parts_makes_no_invalid_operation(
        basis in basis(), edits in vec(edit(), 0..6), change in vec(edit(), 1..3), block in 512..1_100u32,
        part_blocks in 1..6usize, segment in 1_024..20_000usize, from in 0..20u64,
    ) {
        let new = edited(&basis, &edits);
        let mut changed = edited(&basis, &change);
        changed.resize(basis.len(), 0);
        let answer = |part: u64| Some(if part < from { basis.clone() } else { changed.clone() });
        let came = compare(&basis, answer, &new, (block, part_blocks * block as usize, segment));
        prop_assert_eq!(came.made.len(), new.len());
        if changed == basis {
            prop_assert!(came.made == new);
        }
    }
}

#[rstest]
#[case::identical(|basis: &[u8]| basis.to_vec(), 0)]
#[case::appended(|basis: &[u8]| [basis, &noise(2, 20 * PART)[..]].concat(), 20 * PART)]
#[case::prepended(|basis: &[u8]| [&noise(2, 20 * PART + 7)[..], basis].concat(), 20 * PART + 7)]
#[case::inserted_a_little(|basis: &[u8]| [&basis[..40 * PART + 99], b"inserted", &basis[40 * PART + 99..]].concat(), 1_024 + 8)]
#[case::inserted_many_parts(|basis: &[u8]| [&basis[..40 * PART], &noise(2, 9 * PART + 1)[..], &basis[40 * PART..]].concat(), 9 * PART + 1_025)]
#[case::cut_a_little(|basis: &[u8]| [&basis[..40 * PART - 5], &basis[40 * PART + 5..]].concat(), 2 * 1_024)]
#[case::cut_some_parts(|basis: &[u8]| [&basis[..40 * PART], &basis[44 * PART + 5..]].concat(), PART)]
#[case::cut_many_parts(|basis: &[u8]| [&basis[..40 * PART], &basis[80 * PART + 5..]].concat(), 4 * PART)]
#[case::cut_in_front(|basis: &[u8]| basis[70 * PART + 5..].to_vec(), 1_024)]
#[case::cut_off(|basis: &[u8]| basis[..50 * PART + 5].to_vec(), 1_024)]
#[case::rewritten_some_parts(|basis: &[u8]| [&basis[..40 * PART], &noise(2, 9 * PART)[..], &basis[49 * PART..]].concat(), 11 * PART)]
#[case::rewritten_most(|basis: &[u8]| [&noise(2, 60 * PART)[..], &basis[60 * PART..]].concat(), 60 * PART + 18 * PART)]
#[case::edited_everywhere(|basis: &[u8]| {
    let mut new = basis.to_vec();
    (0..100).for_each(|edit| new[edit * 20_011] ^= 1);
    new
}, 100 * 1_024)]
fn a_change_costs_no_more_than_stated_if_the_signature_comes_in_parts(
    #[case] change: fn(&[u8]) -> Vec<u8>,
    #[case] literal_at_most: usize,
) {
    let basis = noise(1, 150 * PART + 333);
    let came = cost(&basis, &change(&basis));
    assert!(came.stats.literal_bytes <= literal_at_most as u64, "{:?}, at most {literal_at_most}", came.stats);
}

#[test]
fn unrelated_content_has_few_parts_described() {
    let (basis, new) = (noise(1, 400 * PART), noise(2, 400 * PART));
    let came = cost(&basis, &new);
    assert!(came.described_bytes * 10 <= basis.len() as u64, "{} of {}", came.described_bytes, basis.len());
    let whole = cost(&basis, &basis);
    assert_eq!(whole.described_bytes, basis.len() as u64);
}

/// Behind a hole the basis goes on, wherever its blocks begin.
#[test]
fn content_matches_behind_a_hole() {
    for (start, bytes) in [(100_000, 300_000), (0, 65_536), (123_457, 7_001), (700_000, 300_000)] {
        let mut old = noise(1, 1_000_000);
        old[start..start + bytes].fill(0);
        let mut new = old.clone();
        new[600_000..600_010].fill(9);
        let spec = spec(1024);
        let mut signature = Signature::new(spec, old.len() as u64).unwrap();
        signature.add_part(0, sign_in_pieces(spec, &old, 1 << 20)).unwrap();
        let check = PatchCheck::new(old.len() as u64, new.len() as u64);
        let mut receiver = Receiver { basis: &old, check, made: Vec::new() };
        let mut differ = Differ::new(&mut signature);
        differ.push(&new[..start], &mut |op| receiver.carry_out(op));
        differ.pass_hole(bytes as u64, &mut |op| receiver.carry_out(op));
        assert_eq!(receiver.made.len(), start, "all before the hole is handed out before it");
        receiver.check.check_hole(bytes as u64).unwrap();
        receiver.made.resize(start + bytes, 0);
        differ.push(&new[start + bytes..], &mut |op| receiver.carry_out(op));
        let stats = differ.finish(&mut |op| receiver.carry_out(op));
        assert_eq!(receiver.made, new);
        receiver.check.finish().unwrap();
        assert!(stats.literal_bytes < 5 * 1024, "a hole at {start} cost {} bytes", stats.literal_bytes);
    }
}
