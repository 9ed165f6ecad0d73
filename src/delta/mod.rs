//! Content differences: how a file that changed crosses the wire as what changed.
//!
//! ```text
//! basis ─► Signer ─► records ══ wire ══► Signature ─┐        (part by part, as a PartPlan asks)
//!                                       new file ───┴─► Differ ─► Op, Op, … ══ wire ══► PatchCheck ─► copy or write
//! ```
//!
//! The side that has the old content (the basis) describes it block by block ([`Signer`]); the side that has the new
//! content checks that description ([`Signature`]) and walks the new content against it ([`Differ`]), which yields
//! operations ([`Op`]); the side with the basis judges each operation ([`PatchCheck`]) before it carries it out.
//! Everything streams: what is held is a few megabytes of content, plus on the differing side the signature and its
//! index, which are bounded however long the basis is. A long basis is described part by part, ahead of the comparison
//! and only as long as there is something to find ([`PartPlan`]).
//!
//! The module is pure: bytes in, bytes or operations out. It knows no file, socket, clock or environment. It promises
//! that a signature or an operation that a peer made up costs bounded memory and bounded work; it does **not** promise
//! that applying operations gives the right content. MD4 finds blocks and proves nothing, so whoever applies a delta
//! compares a cryptographic digest of the whole result before using it.
//!
//! # What comes from `fast_rsync`, and what does not
//! Every hash is `fast_rsync`'s: the records are those of its librsync signature (without the 12-byte header), computed
//! by its many-lane MD4, both when signing and when matching. Its `diff` is not used, for three reasons: it wants the
//! whole content in one buffer; it hashes a whole block for every position whose weak hash occurs in the signature, up
//! to 1,024 times for each of the weak hashes, which a hostile signature for repetitive content turns into hours; and it
//! always searches at every offset, which is slow exactly where there is nothing to find. The search here takes the
//! expected next block first, many at a time, and rolls only where that fails (see [`Differ`]).

mod diff;
mod index;
mod parts;
mod patch;
mod signature;
mod weak;

pub use diff::{DiffStats, Differ, MAX_LITERAL_BYTES, Op};
pub use parts::{PartPlan, Parts, Progress};
pub use patch::{PatchCheck, PatchError};
pub use signature::{BasisChanged, Signature, SignatureError, SignatureSpec, Signer, SpecError};

#[cfg(test)]
mod part_tests;
#[cfg(test)]
mod tests;
