//! Signer, differ and patch together: any content from any basis, at a bounded price.

use super::diff::Limits;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use rstest::rstest;

/// Content that no compressor or chance match helps with.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(super) fn spec(block_bytes: u32) -> SignatureSpec {
    SignatureSpec { block_bytes, strong_bytes: 8 }
}

pub(super) fn sign_in_pieces(spec: SignatureSpec, basis: &[u8], piece: usize) -> Vec<u8> {
    let mut signer = Signer::new(spec, basis.len() as u64).unwrap();
    let mut records = Vec::new();
    for part in basis.chunks(piece) {
        signer.update(part);
        records.extend(signer.take());
    }
    records.extend(signer.finish().unwrap());
    records
}

fn signature(spec: SignatureSpec, basis: &[u8]) -> Signature {
    from_records(spec, basis.len(), sign_in_pieces(spec, basis, 1 << 20))
}

/// A signature of which all parts came.
fn from_records(spec: SignatureSpec, basis_bytes: usize, records: Vec<u8>) -> Signature {
    let mut signature = Signature::new(spec, basis_bytes as u64).unwrap();
    let mut rest = records.as_slice();
    for number in 0..signature.parts().count() {
        let range = signature.parts().range(number);
        let (part, after) = rest.split_at(spec.signature_bytes(range.end - range.start) as usize);
        signature.add_part(number, part.to_vec()).unwrap();
        rest = after;
    }
    assert!(rest.is_empty());
    signature
}

/// The naive receiver: judges each operation, then carries it out in memory.
pub(super) struct Receiver<'b> {
    pub(super) basis: &'b [u8],
    pub(super) check: PatchCheck,
    pub(super) made: Vec<u8>,
}

impl Receiver<'_> {
    pub(super) fn carry_out(&mut self, op: Op<'_>) {
        self.check.check(&op).unwrap();
        match op {
            Op::Copy { offset, len } => {
                self.made.extend_from_slice(&self.basis[offset as usize..(offset + len) as usize])
            }
            Op::Literal(bytes) => {
                assert!(bytes.len() <= MAX_LITERAL_BYTES);
                self.made.extend_from_slice(bytes);
            }
        }
    }
}

/// Runs a differ over `new` in pieces, checks that the receiver makes `new` of it, and returns what it cost.
fn run(mut differ: Differ<'_>, basis: &[u8], new: &[u8], piece: usize) -> DiffStats {
    let check = PatchCheck::new(basis.len() as u64, new.len() as u64);
    let mut receiver = Receiver { basis, check, made: Vec::new() };
    let mut sink = |op: Op<'_>| receiver.carry_out(op);
    new.chunks(piece).for_each(|part| differ.push(part, &mut sink));
    let stats = differ.finish(&mut sink);
    receiver.check.finish().unwrap();
    assert!(receiver.made == new, "the receiver made something else");
    assert_eq!(stats.literal_bytes + stats.matched_bytes, new.len() as u64);
    stats
}

fn cost(basis: &[u8], new: &[u8], block_bytes: u32) -> DiffStats {
    run(Differ::new(&mut signature(spec(block_bytes), basis)), basis, new, 100_003)
}

#[derive(Debug, Clone)]
pub(super) enum Edit {
    Overwrite { at: usize, len: usize, seed: u64 },
    Insert { at: usize, len: usize, seed: u64 },
    Delete { at: usize, len: usize },
    Move { from: usize, to: usize, len: usize },
    Append { len: usize, seed: u64 },
    Truncate { keep: usize },
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let (place, len) = (0..40_000usize, 0..3_000usize);
    prop_oneof![
        (place.clone(), len.clone(), any::<u64>()).prop_map(|(at, len, seed)| Edit::Overwrite { at, len, seed }),
        (place.clone(), len.clone(), any::<u64>()).prop_map(|(at, len, seed)| Edit::Insert { at, len, seed }),
        (place.clone(), len.clone()).prop_map(|(at, len)| Edit::Delete { at, len }),
        (place.clone(), place.clone(), len.clone()).prop_map(|(from, to, len)| Edit::Move { from, to, len }),
        (len, any::<u64>()).prop_map(|(len, seed)| Edit::Append { len, seed }),
        place.prop_map(|keep| Edit::Truncate { keep }),
    ]
}

pub(super) fn edited(basis: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut new = basis.to_vec();
    for edit in edits {
        let within = |at: usize, len: usize, total: usize| (at.min(total), at.saturating_add(len).min(total));
        match *edit {
            Edit::Overwrite { at, len, seed } => {
                let (start, end) = within(at, len, new.len());
                new[start..end].copy_from_slice(&noise(seed, end - start));
            }
            Edit::Insert { at, len, seed } => {
                let (start, _) = within(at, 0, new.len());
                new.splice(start..start, noise(seed, len));
            }
            Edit::Delete { at, len } => {
                let (start, end) = within(at, len, new.len());
                new.drain(start..end);
            }
            Edit::Move { from, to, len } => {
                let (start, end) = within(from, len, new.len());
                let moved: Vec<u8> = new.drain(start..end).collect();
                let (place, _) = within(to, 0, new.len());
                new.splice(place..place, moved);
            }
            Edit::Append { len, seed } => new.extend(noise(seed, len)),
            Edit::Truncate { keep } => new.truncate(keep),
        }
    }
    new
}

/// A basis of noise, of zeros, of a short period, or of few distinct blocks.
pub(super) fn basis() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (any::<u64>(), 0..40_000usize).prop_map(|(seed, len)| noise(seed, len)),
        1 => (0..20_000usize).prop_map(|len| vec![0; len]),
        1 => (vec(any::<u8>(), 1..700), 0..20_000usize)
            .prop_map(|(period, len)| period.iter().copied().cycle().take(len).collect()),
        1 => (any::<u64>(), vec(0..4u64, 0..40))
            .prop_map(|(seed, blocks)| blocks.iter().flat_map(|b| noise(seed ^ b, 512)).collect()),
    ]
}

fn limits() -> impl Strategy<Value = Option<Limits>> {
    let small = (1_024usize..20_000, 0..9_000u64, 1..3_000u64, 0..30_000u64)
        .prop_map(|(segment, search, probe, wrong_hash)| Limits { segment, search, probe, wrong_hash });
    prop_oneof![1 => Just(None), 3 => small.prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_content_is_made_from_any_basis(
        basis in basis(), edits in vec(edit(), 0..6), block in 512..1_100u32,
        piece in 1..9_000usize, limits in limits(),
    ) {
        let new = edited(&basis, &edits);
        let mut signature = signature(spec(block), &basis);
        let differ = match limits {
            None => Differ::new(&mut signature),
            Some(limits) => Differ::with_limits(&mut signature, Limits { segment: limits.segment.max(2 * block as usize), ..limits }),
        };
        run(differ, &basis, &new, piece);
    }

    #[test]
    fn no_more_literal_bytes_than_the_library_that_sees_all_at_once(
        seed in any::<u64>(), len in 0..60_000usize, edits in vec(edit(), 0..6), block in 512..1_100u32,
        segment in 2_200..20_000usize, piece in 1..9_000usize,
    ) {
        let basis = noise(seed, len);
        let new = edited(&basis, &edits);
        let mut signature = signature(spec(block), &basis);
        let limits = Limits { segment, search: 1 << 20, probe: 1 << 18, wrong_hash: 1 << 24 };
        let ours = run(Differ::with_limits(&mut signature, limits), &basis, &new, piece);

        let options = fast_rsync::SignatureOptions { block_size: block, crypto_hash_size: 8 };
        let theirs = fast_rsync::Signature::calculate(&basis, options);
        let mut delta = Vec::new();
        fast_rsync::diff(&theirs.index(), &new, &mut delta).unwrap();
        // Their delta is literals and at most 17 bytes an operation; ours may at most mistake, once an edit, which of
        // two overlapping places to take.
        let slack = (edits.len() as u64 + 1) * 16;
        prop_assert!(ours.literal_bytes <= delta.len() as u64 + slack, "{ours:?}, theirs {}", delta.len());
    }

    #[test]
    fn made_up_records_change_what_is_sent_never_what_is_made(
        seed in any::<u64>(), len in 0..30_000usize, block in 512..1_100u32, damage in vec((any::<usize>(), any::<u8>()), 0..200),
        piece in 1..9_000usize, segment in 2_200..20_000usize,
    ) {
        let basis = noise(seed, len);
        let mut records = sign_in_pieces(spec(block), &basis, 4_096);
        for (at, value) in damage {
            if !records.is_empty() {
                let at = at % records.len();
                records[at] = value;
            }
        }
        let mut signature = from_records(spec(block), len, records);
        let limits = Limits { segment, search: 4_000, probe: 2_000, wrong_hash: 10_000 };
        let mut differ = Differ::with_limits(&mut signature, limits);
        // A damaged record can only name a block it does not describe if MD4 is met by chance.
        let check = PatchCheck::new(len as u64, len as u64);
        let mut receiver = Receiver { basis: &basis, check, made: Vec::new() };
        let mut sink = |op: Op<'_>| receiver.carry_out(op);
        basis.chunks(piece).for_each(|part| differ.push(part, &mut sink));
        differ.finish(&mut sink);
        prop_assert!(receiver.made == basis);
    }
}

#[rstest]
#[case::nothing_from_nothing(0, 0)]
#[case::something_from_nothing(0, 5_000)]
#[case::nothing_from_something(5_000, 0)]
#[case::both_below_a_block(100, 90)]
#[case::one_byte(1, 1)]
#[case::new_below_a_block(5_000, 90)]
#[case::basis_below_a_block(90, 5_000)]
#[case::exactly_a_block(1_024, 1_024)]
#[case::exactly_blocks(8_192, 4_096)]
fn short_and_empty_content_works(#[case] basis_len: usize, #[case] new_len: usize) {
    let long = noise(1, 10_000);
    let (basis, other) = (&long[..basis_len], noise(2, new_len));
    let same_start = &long[..new_len];
    for piece in [1, 7, 1_024, 10_000] {
        let mut signature = signature(spec(1_024), basis);
        run(Differ::new(&mut signature), basis, same_start, piece);
        run(Differ::new(&mut signature), basis, &other, piece);
    }
}

#[rstest]
#[case::identical(|basis: &[u8]| basis.to_vec(), 0)]
#[case::appended(|basis: &[u8]| [basis, &[7; 5_000]].concat(), 5_000)]
#[case::prepended(|basis: &[u8]| [&[7; 5_000], basis].concat(), 5_000)]
#[case::inserted(|basis: &[u8]| [&basis[..1_000_000], b"inserted", &basis[1_000_000..]].concat(), 1_024 + 8)]
#[case::deleted(|basis: &[u8]| [&basis[..1_000_000], &basis[1_000_007..]].concat(), 2 * 1_024)]
#[case::in_place(|basis: &[u8]| { let mut new = basis.to_vec(); new[1_000_000] ^= 1; new }, 1_024)]
#[case::two_neighbours(|basis: &[u8]| { let mut new = basis.to_vec(); new[1_024_000] ^= 1; new[1_023_999] ^= 1; new }, 2_048)]
#[case::halves_exchanged(|basis: &[u8]| [&basis[5_000_000..], &basis[..5_000_000]].concat(), 3 * 1_024)]
#[case::cut_in_a_block(|basis: &[u8]| basis[..5_000_000].to_vec(), 1_024)]
#[case::doubled(|basis: &[u8]| [basis, basis].concat(), 0)]
fn an_edit_costs_its_own_length_and_the_blocks_it_touches(
    #[case] change: fn(&[u8]) -> Vec<u8>,
    #[case] literal_at_most: u64,
) {
    // Several segments, and a short block at the end.
    let basis = noise(3, 10_000_123);
    let stats = cost(&basis, &change(&basis), 1_024);
    assert!(stats.literal_bytes <= literal_at_most, "{stats:?}");
    assert!(stats.ops <= 8, "{stats:?}");
}

#[test]
fn a_basis_below_one_block_is_found_before_what_was_appended_and_after_what_was_prepended() {
    let basis = noise(4, 700);
    assert_eq!(cost(&basis, &[&basis[..], &[1; 3_000]].concat(), 1_024).literal_bytes, 3_000);
    assert_eq!(cost(&basis, &[&[1; 3_000], &basis[..]].concat(), 1_024).literal_bytes, 3_000);
    assert_eq!(cost(&basis, &basis, 1_024).literal_bytes, 0);
}

#[test]
fn a_short_last_block_is_found_before_less_than_a_block_of_more() {
    let basis = noise(13, 10 * 1_024 + 700);
    assert_eq!(cost(&basis, &[&basis[..], &[1; 10]].concat(), 1_024).literal_bytes, 10);
}

#[test]
fn how_content_is_cut_does_not_show_in_the_number_of_operations() {
    // Long enough that a skip outlives the buffer.
    let (basis, unrelated) = (noise(14, 3 << 20), noise(15, 30 << 20));
    let mut signature = signature(spec(1_024), &basis);
    for piece in [10, 1_000, 100_000, 30 << 20] {
        let stats = run(Differ::new(&mut signature), &basis, &unrelated, piece);
        assert!(stats.ops < 400, "pieces of {piece}: {stats:?}");
    }
}

#[test]
fn a_last_record_made_up_to_look_like_a_whole_block_copies_nothing_beyond_the_basis() {
    let (basis, new) = (noise(16, 4 * 1_024 + 1), noise(17, 8 * 1_024));
    let mut records = sign_in_pieces(spec(1_024), &basis, 4_096);
    records[4 * 12..].copy_from_slice(&sign_in_pieces(spec(1_024), &new[..1_024], 1_024));
    let mut signature = from_records(spec(1_024), basis.len(), records);
    let new = [&basis[..4_096], &new[..]].concat();
    assert_eq!(run(Differ::new(&mut signature), &basis, &new, 4_096).matched_bytes, 4_096);
}

#[test]
fn equal_blocks_are_copied_as_one_run() {
    let zeros = vec![0; 3_000_000];
    let stats = cost(&zeros, &zeros, 1_024);
    assert_eq!((stats.ops, stats.literal_bytes), (1, 0));
}

#[test]
fn a_gigabyte_with_64_edits_costs_less_than_rsync_sends() {
    let basis_bytes = 1u64 << 30;
    let spec = SignatureSpec::for_basis(basis_bytes);
    // Each edit makes at most the blocks that it touches literal: one, and two for an edit across a boundary, of which
    // 100-byte edits make fewer than one in a hundred. An operation takes at most 20 bytes.
    let most = spec.signature_bytes(basis_bytes) + 65 * u64::from(spec.block_bytes) + 129 * 20;
    assert!(most < 2_000_000, "{most} bytes, rsync sends 2.2 MB");
}

#[test]
fn a_smaller_file_with_64_edits_keeps_to_the_same_reckoning() {
    let basis = noise(5, 32 << 20);
    let spec = SignatureSpec::for_basis(basis.len() as u64);
    let mut new = basis.clone();
    for edit in 0..64usize {
        let at = edit * 500_009 + 1_000;
        new[at..at + 20].copy_from_slice(&noise(edit as u64 + 9, 20));
    }
    let stats = run(Differ::new(&mut signature(spec, &basis)), &basis, &new, 1 << 20);
    assert!(stats.literal_bytes <= 66 * u64::from(spec.block_bytes), "{stats:?}");
    assert_eq!(stats.searched_bytes, 0, "edits in place need no search: {stats:?}");
}

#[test]
fn unrelated_content_is_hardly_searched() {
    let basis = noise(6, 64 << 20);
    let stats = run(Differ::new(&mut signature(spec(4_096), &basis)), &basis, &noise(7, 256 << 20), 1 << 20);
    assert_eq!(stats.matched_bytes, 0);
    assert!(stats.searched_bytes * 25 < 256 << 20, "{stats:?}");
}

#[test]
fn stray_matches_do_not_make_unrelated_content_searched_throughout() {
    let basis = noise(18, 16 << 20);
    let stray = basis.chunks(4_096).zip(0u64..).take(256);
    let new: Vec<u8> = stray.flat_map(|(old, i)| [old.to_vec(), noise(i + 99, 250_001)].concat()).collect();
    let stats = cost(&basis, &new, 4_096);
    assert!(stats.searched_bytes * 5 < new.len() as u64, "{stats:?}");
}

#[rstest]
#[case(3 << 20)]
#[case(20 << 20)]
#[case(40 << 20)]
fn after_a_rewritten_part_the_rest_is_found_within_the_stated_bound(#[case] rewritten: usize) {
    let basis = noise(8, 64 << 20);
    for shift in [0usize, 1, 12_345] {
        let new = [&noise(9, rewritten + shift)[..], &basis[rewritten..]].concat();
        let stats = cost(&basis, &new, 4_096);
        let bound = (rewritten + shift) as u64 * 9 / 8 + 3 * 4_096;
        assert!(stats.literal_bytes <= bound, "{stats:?}, bound {bound}");
    }
}

#[test]
fn content_of_which_a_quarter_is_old_is_found_throughout() {
    // Three new blocks of odd length before each old one, so that nothing is aligned.
    let basis = noise(10, 16 << 20);
    let new: Vec<u8> =
        basis.chunks(4_096).zip(0u64..).flat_map(|(old, i)| [noise(i + 77, 12_001), old.to_vec()].concat()).collect();
    let stats = cost(&basis, &new, 4_096);
    assert_eq!(stats.matched_bytes, 16 << 20, "{stats:?}");
}

/// Weak hashes that agree with the content, strong ones that do not.
fn hostile_records(content: &[u8], block: u32, blocks: usize, distinct: usize) -> Vec<u8> {
    let block = block as usize;
    let starts = (0..blocks).map(|i| i % distinct);
    starts
        .zip(0u64..)
        .flat_map(|(start, i)| {
            let honest = sign_in_pieces(spec(block as u32), &content[start..start + block], block);
            [honest[..4].to_vec(), i.to_be_bytes().to_vec()].concat()
        })
        .collect()
}

#[rstest]
#[case::one_weak_hash_for_all(1)]
#[case::a_weak_hash_for_every_offset(509)]
fn hashing_for_a_hostile_signature_is_bounded(#[case] period: usize) {
    let block = 16_384u32;
    let content: Vec<u8> = noise(11, period).into_iter().cycle().take(64 << 20).collect();
    let blocks = content.len() / block as usize;
    let records = hostile_records(&content, block, blocks, period);
    let mut signature = from_records(spec(block), content.len(), records);
    let stats = run(Differ::new(&mut signature), &vec![0; content.len()], &content, 1 << 20);
    assert_eq!(stats.matched_bytes, 0);
    assert!(stats.wrong_hash_bytes <= (16 << 20) + (content.len() as u64) / 2, "{stats:?}");
    assert!(stats.searched_bytes <= content.len() as u64 / 8, "{stats:?}");
}

#[rstest]
#[case::zero_block(spec(0), SpecError::BlockLength(0))]
#[case::one_byte_blocks(spec(1), SpecError::BlockLength(1))]
#[case::just_too_short(spec(511), SpecError::BlockLength(511))]
#[case::huge_block(spec((4 << 20) + 1), SpecError::BlockLength((4 << 20) + 1))]
#[case::largest_block(spec(u32::MAX), SpecError::BlockLength(u32::MAX))]
#[case::no_strong_hash(SignatureSpec { block_bytes: 1_024, strong_bytes: 0 }, SpecError::StrongLength(0))]
#[case::short_strong_hash(SignatureSpec { block_bytes: 1_024, strong_bytes: 7 }, SpecError::StrongLength(7))]
#[case::longer_than_md4(SignatureSpec { block_bytes: 1_024, strong_bytes: 17 }, SpecError::StrongLength(17))]
#[case::longest_strong_hash(SignatureSpec { block_bytes: 1_024, strong_bytes: 255 }, SpecError::StrongLength(255))]
#[case::too_many_blocks(spec(512), SpecError::TooManyBlocks((1 << 20) + 1))]
fn hostile_specs_are_refused_on_both_sides(#[case] spec: SignatureSpec, #[case] expected: SpecError) {
    let basis_bytes = (512 << 20) + 1;
    assert_eq!(spec.validate(basis_bytes), Err(expected.clone()));
    assert_eq!(Signer::new(spec, basis_bytes).err(), Some(expected.clone()));
    assert_eq!(Signature::new(spec, basis_bytes).err(), Some(expected));
}

#[rstest]
#[case::nothing(0)]
#[case::one_record_short(4 * 12)]
#[case::one_byte_short(5 * 12 - 1)]
#[case::one_byte_long(5 * 12 + 1)]
#[case::one_record_long(6 * 12)]
#[case::with_the_library_header(5 * 12 + 12)]
fn a_signature_of_another_length_is_refused(#[case] bytes: usize) {
    let mut signature = Signature::new(spec(1_024), 4_097).unwrap();
    let refused = signature.add_part(0, vec![0; bytes]).err();
    assert_eq!(refused, Some(SignatureError::Length { expected_bytes: 60, found_bytes: bytes as u64 }));
    assert!(!signature.has_part(0));
    assert!(signature.add_part(1, vec![0; 60]).is_err(), "there is only one part");
    assert!(signature.add_part(0, vec![0; 60]).is_ok());
    assert!(signature.has_part(0));
}

#[rstest]
#[case(0, 1 << 10, 8)]
#[case(1, 1 << 10, 8)]
#[case(1 << 20, 1 << 10, 8)]
#[case(1_000_000_000, 16 << 10, 8)]
#[case(1 << 30, 16 << 10, 8)]
#[case(100 << 30, 128 << 10, 12)]
#[case(1 << 40, 1 << 20, 12)]
#[case(4 << 40, 4 << 20, 12)]
fn chosen_specs_are_balanced_and_valid(#[case] basis_bytes: u64, #[case] block_bytes: u32, #[case] strong_bytes: u8) {
    let spec = SignatureSpec::for_basis(basis_bytes);
    assert_eq!(spec, SignatureSpec { block_bytes, strong_bytes });
    assert_eq!(spec.validate(basis_bytes), Ok(()));
    assert!(spec.signature_bytes(basis_bytes) <= 20 << 20);
}

#[test]
fn every_length_that_a_file_can_have_gets_a_spec_or_a_refusal() {
    for power in 0..64 {
        for basis_bytes in [(1u64 << power) - 1, 1 << power, (1 << power) + 1, u64::MAX] {
            let valid = SignatureSpec::for_basis(basis_bytes).validate(basis_bytes).is_ok();
            assert_eq!(valid, basis_bytes <= 4 << 40, "{basis_bytes}");
        }
    }
}

#[test]
fn a_signer_refuses_a_basis_that_changed_and_never_makes_more_than_agreed() {
    let mut shrunk = Signer::new(spec(1_024), 5_000).unwrap();
    shrunk.update(&[0; 4_999]);
    assert_eq!(shrunk.finish(), Err(BasisChanged { expected_bytes: 5_000, found_bytes: 4_999 }));

    let mut grown = Signer::new(spec(1_024), 5_000).unwrap();
    let mut made = 0;
    for _ in 0..10_000 {
        grown.update(&[0; 4_096]);
        made += grown.take().len() as u64;
    }
    assert!(made <= spec(1_024).signature_bytes(5_000));
    assert!(grown.finish().is_err());
}

#[test]
fn a_signature_does_not_depend_on_how_the_basis_was_cut() {
    let basis = noise(12, 3_000_001);
    let whole = sign_in_pieces(spec(1_000), &basis, basis.len());
    assert_eq!(whole.len() as u64, spec(1_000).signature_bytes(basis.len() as u64));
    for piece in [999, 1_000, 65_536, 1 << 20] {
        assert!(sign_in_pieces(spec(1_000), &basis, piece) == whole, "pieces of {piece}");
    }
    let options = fast_rsync::SignatureOptions { block_size: 1_000, crypto_hash_size: 8 };
    assert!(fast_rsync::Signature::calculate(&basis, options).serialized()[12..] == whole);
}

#[test]
fn zeros_have_the_same_records_whether_they_are_hashed_or_known() {
    for block_bytes in [512, 1_000, 70_000] {
        let batch = Signer::new(spec(block_bytes), 1 << 20).unwrap().batch_bytes();
        let mut basis = vec![7; batch];
        basis.extend(vec![0; 3 * batch]);
        basis.extend(vec![9; 777]);
        let mut hashed = Signer::new(spec(block_bytes), basis.len() as u64).unwrap();
        hashed.update(&basis);
        let mut known = Signer::new(spec(block_bytes), basis.len() as u64).unwrap();
        known.update(&basis[..batch]);
        (0..3).for_each(|_| known.update_zeros());
        known.update(&basis[4 * batch..]);
        assert_eq!(known.finish().unwrap(), hashed.finish().unwrap(), "{block_bytes}");
        // In the middle of a batch they are hashed.
        let mut shifted = Signer::new(spec(block_bytes), 100 + batch as u64).unwrap();
        shifted.update(&[7; 100]);
        shifted.update_zeros();
        let mut plain = Signer::new(spec(block_bytes), 100 + batch as u64).unwrap();
        plain.update(&[[7; 100].as_slice(), &vec![0; batch]].concat());
        assert_eq!(shifted.finish().unwrap(), plain.finish().unwrap(), "{block_bytes}");
        let mut beyond = Signer::new(spec(block_bytes), 100).unwrap();
        beyond.update_zeros();
        assert!(beyond.finish().is_err());
    }
}
