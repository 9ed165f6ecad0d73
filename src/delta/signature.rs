//! The description of a basis: one record for each block, a weak hash and the head of an MD4.
//!
//! On the wire a signature is its bare records in block order: 4 bytes of weak hash, big-endian, then `strong_bytes` of
//! MD4. There is no header: block and hash length come from the [`SignatureSpec`] that the asking side chose, and the
//! number of records follows from the length of the basis, so a signature has nothing in it that could contradict them.
//! That of a long basis is asked for and taken in parts ([`Parts`]), each of them as if it were a basis of its own.

use super::index::{BlockIndex, Records};
use super::parts::Parts;
use thiserror::Error;

/// Shortest block that is chosen, in bytes; below it the records of a small file outweigh what they save.
const SHORTEST_CHOSEN_BLOCK: u64 = 1 << 10;

/// Longest block chosen for the sake of the edits; from here on one edit costs so much that more records are cheaper.
const LONGEST_CHOSEN_BLOCK: u64 = 128 << 10;

/// Most records of a signature. It bounds what the records and their index take: 12 or 20 MB and 16 MB.
const MOST_BLOCKS: u64 = 1 << 20;

/// Block lengths that are accepted from a peer. The upper bound is what a segment may hold of content at once; with
/// [`MOST_BLOCKS`] it puts the largest basis at 4 TiB.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 512..=4 << 20;

/// Strong hash lengths that are accepted from a peer: less finds blocks that are not there, MD4 has no more.
const STRONG_BYTES: std::ops::RangeInclusive<u8> = 8..=16;

/// Basis length from which 12 bytes of strong hash are taken instead of 8 (see [`SignatureSpec::for_basis`]).
const LONG_HASH_FROM: u64 = 64 << 30;

/// Bytes of weak hash in a record.
const WEAK_BYTES: u8 = 4;

/// Bytes before the first record in what `fast_rsync` makes: magic, block length, strong hash length.
const LIBRARY_HEADER_BYTES: usize = 12;

/// How much a [`Signer`] hashes at a time, in bytes: what stays in a core's cache, but as many blocks as MD4 has lanes, up
/// to four times as much.
const SIGN_BATCH_BYTES: usize = 256 << 10;
const SIGN_BATCH_BLOCKS: usize = 8;

/// Block and strong-hash length of a signature, chosen by the primary alone from the basis length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SignatureSpec {
    /// Bytes of basis that one record describes; the last record may describe fewer.
    pub block_bytes: u32,
    /// Bytes of each block's MD4 that its record holds.
    pub strong_bytes: u8,
}

/// Why a [`SignatureSpec`] is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// The block length is zero, uselessly short, or more than is held in memory.
    #[error("a signature with blocks of {0} bytes")]
    BlockLength(u32),
    /// The strong hash is too short to find blocks by, or longer than MD4.
    #[error("a signature with strong hashes of {0} bytes")]
    StrongLength(u8),
    /// More records than are held in memory.
    #[error("a signature of {0} blocks")]
    TooManyBlocks(u64),
}

impl SignatureSpec {
    /// The lengths for a basis of `basis_bytes`.
    ///
    /// With blocks of `b` bytes a basis of `n` costs `12 n / b` bytes of records and about `b` bytes of literal for each
    /// edit. Half the square root of `n` is the best choice for 48 scattered edits and within a quarter of the best for
    /// 12 to 192. Where that would make more than about a million records, blocks grow instead.
    ///
    /// A search compares each position of the new content with each block, so it meets a block that is not there with
    /// probability `positions * blocks / 2^(8 * strong_bytes)`, times the chance that the weak hash agrees too, of
    /// which 2^-16 is a cautious view. Eight bytes keep that under 2^-25 up to 64 GiB (2^36 positions, 2^19 blocks,
    /// 2^-80); beyond, twelve bytes keep it under 2^-50. Such a match is noticed by the digest of the whole file and
    /// costs one full send.
    ///
    /// Beyond 4 TiB the result does not [`validate`](Self::validate): such a file is sent whole.
    pub fn for_basis(basis_bytes: u64) -> Self {
        let balanced = (basis_bytes.isqrt() / 2).clamp(SHORTEST_CHOSEN_BLOCK, LONGEST_CHOSEN_BLOCK);
        let block_bytes = balanced.max(basis_bytes.div_ceil(MOST_BLOCKS)).next_multiple_of(SHORTEST_CHOSEN_BLOCK);
        Self {
            block_bytes: u32::try_from(block_bytes).unwrap_or(u32::MAX),
            strong_bytes: if basis_bytes < LONG_HASH_FROM { 8 } else { 12 },
        }
    }

    /// Records that describe a basis of `basis_bytes`, the short last block included. Zero if the block length is zero.
    pub fn block_count(&self, basis_bytes: u64) -> u64 {
        if self.block_bytes == 0 { 0 } else { basis_bytes.div_ceil(u64::from(self.block_bytes)) }
    }

    /// Length in bytes of the signature of a basis of `basis_bytes`; `u64::MAX` if it is beyond counting.
    pub fn signature_bytes(&self, basis_bytes: u64) -> u64 {
        self.block_count(basis_bytes).saturating_mul(u64::from(WEAK_BYTES) + u64::from(self.strong_bytes))
    }

    /// Whether a signature by this spec of a basis of `basis_bytes` is one that may be made or taken. What passes takes
    /// at most 20 MiB of records, 4 MiB of content held at once, and one pass over the basis.
    pub fn validate(&self, basis_bytes: u64) -> Result<(), SpecError> {
        if !BLOCK_BYTES.contains(&self.block_bytes) {
            return Err(SpecError::BlockLength(self.block_bytes));
        }
        if !STRONG_BYTES.contains(&self.strong_bytes) {
            return Err(SpecError::StrongLength(self.strong_bytes));
        }
        match self.block_count(basis_bytes) {
            0..=MOST_BLOCKS => Ok(()),
            blocks => Err(SpecError::TooManyBlocks(blocks)),
        }
    }

    /// Bytes of one record.
    pub(super) fn record_bytes(self) -> usize {
        usize::from(WEAK_BYTES) + usize::from(self.strong_bytes)
    }

    /// Bytes of one block, as a length in memory.
    pub(super) fn block_len(self) -> usize {
        self.block_bytes as usize
    }

    /// Appends the records of `content` to `records`: one for each whole block, and one for a shorter rest. Only for a
    /// spec that was validated; the library panics on others.
    pub(super) fn append_records(self, content: &[u8], records: &mut Vec<u8>) {
        let crypto_hash_size = u32::from(self.strong_bytes);
        let options = fast_rsync::SignatureOptions { block_size: self.block_bytes, crypto_hash_size };
        let signature = fast_rsync::Signature::calculate(content, options);
        records.extend_from_slice(signature.serialized().get(LIBRARY_HEADER_BYTES..).unwrap_or_default());
    }
}

/// The basis had another length than agreed when it was read: whoever asked for its signature cannot use it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the basis has changed: {expected_bytes} bytes were agreed, {found_bytes} were read")]
pub struct BasisChanged {
    /// The agreed length.
    pub expected_bytes: u64,
    /// What was given to the signer until it ended or gave up.
    pub found_bytes: u64,
}

/// Makes a signature of a basis that streams by.
///
/// It holds at most one batch (1 MiB, or one block if that is longer) of content and the records not yet taken, and it
/// never makes more records than the agreed length of the basis has, however long the basis turns out to be.
#[derive(Debug)]
pub struct Signer {
    spec: SignatureSpec,
    basis_bytes: u64,
    found_bytes: u64,
    batch_bytes: usize,
    pending: Vec<u8>,
    records: Vec<u8>,
    /// Of a batch of zeros, once it was needed.
    zeros: Vec<u8>,
}

impl Signer {
    /// A signer for a basis of `basis_bytes` by `spec`, which is validated: it may come from a peer.
    pub fn new(spec: SignatureSpec, basis_bytes: u64) -> Result<Self, SpecError> {
        spec.validate(basis_bytes)?;
        let block = spec.block_len();
        let wanted = (SIGN_BATCH_BLOCKS * block).clamp(SIGN_BATCH_BYTES, 4 * SIGN_BATCH_BYTES);
        let batch_bytes = (wanted / block).max(1) * block;
        Ok(Self {
            spec,
            basis_bytes,
            found_bytes: 0,
            batch_bytes,
            pending: Vec::new(),
            records: Vec::new(),
            zeros: Vec::new(),
        })
    }

    /// How many bytes are hashed at a time: pieces of this length are not copied.
    pub fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Takes the next bytes of the basis, in pieces of any length.
    pub fn update(&mut self, mut data: &[u8]) {
        self.found_bytes = self.found_bytes.saturating_add(data.len() as u64);
        if self.found_bytes > self.basis_bytes {
            return;
        }
        while !data.is_empty() {
            if self.pending.is_empty() && data.len() >= self.batch_bytes {
                let (batch, rest) = data.split_at(self.batch_bytes);
                self.spec.append_records(batch, &mut self.records);
                data = rest;
                continue;
            }
            let (head, rest) = data.split_at(data.len().min(self.batch_bytes - self.pending.len()));
            self.pending.extend_from_slice(head);
            data = rest;
            if self.pending.len() == self.batch_bytes {
                self.spec.append_records(&self.pending, &mut self.records);
                self.pending.clear();
            }
        }
    }

    /// As [`update`](Self::update) with [`batch_bytes`](Self::batch_bytes) zeros, which are hashed only once.
    pub fn update_zeros(&mut self) {
        let found_bytes = self.found_bytes.saturating_add(self.batch_bytes as u64);
        if !self.pending.is_empty() || found_bytes > self.basis_bytes {
            return self.update(&vec![0; self.batch_bytes]);
        }
        if self.zeros.is_empty() {
            self.spec.append_records(&vec![0; self.batch_bytes], &mut self.zeros);
        }
        self.found_bytes = found_bytes;
        self.records.extend_from_slice(&self.zeros);
    }

    /// Takes the records that are finished, so that a long signature can be sent while the basis is still being read.
    /// The pieces taken, then what [`finish`](Self::finish) returns, in order, are the signature.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.records)
    }

    /// Ends the basis: the records not yet taken, or that the basis was shorter or longer than agreed.
    pub fn finish(mut self) -> Result<Vec<u8>, BasisChanged> {
        if self.found_bytes != self.basis_bytes {
            return Err(BasisChanged { expected_bytes: self.basis_bytes, found_bytes: self.found_bytes });
        }
        if !self.pending.is_empty() {
            self.spec.append_records(&self.pending, &mut self.records);
        }
        Ok(self.records)
    }
}

/// Why a part of a peer's signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The records are not exactly as many bytes as the basis must have.
    #[error("a signature of {found_bytes} bytes where {expected_bytes} were due")]
    Length {
        /// What spec and basis length require.
        expected_bytes: u64,
        /// What came.
        found_bytes: u64,
    },
}

/// A basis as far as its signature describes it, indexed for a [`Differ`](super::Differ).
///
/// Whatever a peer put into the records, memory is what [`SignatureSpec::validate`] allows, indexing takes
/// `n log² n` steps and a look-up `log² n`. Records that describe no content merely match nothing.
#[derive(Debug)]
pub struct Signature {
    spec: SignatureSpec,
    parts: Parts,
    records: Records,
    index: BlockIndex,
}

impl Signature {
    /// The signature by `spec` of a basis of `basis_bytes`, of which no part is known yet.
    ///
    /// # Errors
    /// The spec is refused, before anything is allocated.
    pub fn new(spec: SignatureSpec, basis_bytes: u64) -> Result<Self, SpecError> {
        spec.validate(basis_bytes)?;
        Ok(Self::with_parts(spec, Parts::of(spec, basis_bytes)))
    }

    pub(super) fn with_parts(spec: SignatureSpec, parts: Parts) -> Self {
        let part_blocks = (parts.part_bytes() / u64::from(spec.block_bytes)).max(1);
        let records = Records::new(parts.count(), part_blocks, spec.record_bytes());
        let index = BlockIndex::new(spec.block_count(parts.basis_bytes()));
        Self { spec, parts, records, index }
    }

    /// Takes the records that a peer sent for part `number` of its basis. What is there already stays.
    ///
    /// The length is checked before anything is done; to know what to read from the wire beforehand, use
    /// [`SignatureSpec::signature_bytes`] of the part's length.
    ///
    /// # Errors
    /// The records are not as many as the part must have; a part that does not exist must have none.
    pub fn add_part(&mut self, number: u64, records: Vec<u8>) -> Result<(), SignatureError> {
        let range = self.parts.range(number);
        let expected_bytes = self.spec.signature_bytes(range.end - range.start);
        let found_bytes = records.len() as u64;
        if expected_bytes != found_bytes {
            return Err(SignatureError::Length { expected_bytes, found_bytes });
        }
        if !range.is_empty() && !self.records.has_part(number) {
            self.records.put(number, records);
            let block_bytes = u64::from(self.spec.block_bytes);
            // A short last block has a record but no place in the index: it can only match content of its own length.
            self.index.add(range.start / block_bytes..range.end / block_bytes, &self.records);
        }
        Ok(())
    }

    /// Whether part `number` is known.
    pub fn has_part(&self, number: u64) -> bool {
        self.records.has_part(number)
    }

    /// The spec it was made by.
    pub fn spec(&self) -> SignatureSpec {
        self.spec
    }

    /// The parts that it comes in.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    pub(super) fn index(&self) -> &BlockIndex {
        &self.index
    }

    /// Blocks of full length.
    pub(super) fn whole_blocks(&self) -> u64 {
        self.parts.basis_bytes() / u64::from(self.spec.block_bytes)
    }

    /// Length of the short block after the whole ones; 0 if there is none.
    pub(super) fn tail_len(&self) -> usize {
        // INVARIANT: a remainder by a u32 fits a usize on every platform with 32 bits or more.
        (self.parts.basis_bytes() % u64::from(self.spec.block_bytes)) as usize
    }

    /// The record of the short last block.
    pub(super) fn tail_record(&self) -> Option<&[u8]> {
        self.records.get(self.whole_blocks())
    }

    /// A whole block that `record` describes: `expected` if it does, otherwise the first such block.
    pub(super) fn find(&self, record: &[u8], expected: Option<u64>) -> Option<u64> {
        let is_expected = |&block: &u64| block < self.whole_blocks() && self.records.get(block) == Some(record);
        expected.filter(is_expected).or_else(|| self.index.find(record, &self.records))
    }
}
