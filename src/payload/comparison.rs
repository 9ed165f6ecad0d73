//! New content against the receivers' old one, whose signature comes part by part.

use super::encode::Signatures;
use crate::delta::{Differ, Op, PartPlan, Signature};
use crate::plan::Item;

/// Asks for the parts of a signature as a comparison needs them. Dropping it waits for what is under way, so that no
/// answer comes when nobody expects it.
pub(super) struct Comparison<'c> {
    item: &'c Item,
    signatures: &'c mut dyn Signatures,
    plan: PartPlan,
    differ: Option<Differ<'c>>,
}

impl<'c> Comparison<'c> {
    /// For new content of `new_bytes` against the basis of `item`, of which `signature` has the first part.
    pub(super) fn new(
        item: &'c Item,
        signature: &'c mut Signature,
        new_bytes: u64,
        signatures: &'c mut dyn Signatures,
    ) -> Self {
        let plan = PartPlan::new(signature.parts(), new_bytes, |part| signature.has_part(part));
        Comparison { item, signatures, plan, differ: Some(Differ::new(signature)) }
    }

    /// Takes the next bytes of the new content and hands what is decided to `sink`.
    pub(super) fn push(&mut self, data: &[u8], sink: &mut impl FnMut(Op<'_>)) {
        self.prepare();
        if let Some(differ) = &mut self.differ {
            differ.push(data, sink);
        }
    }

    /// Hands out what is left before a hole of `bytes`, which is no part of the comparison.
    pub(super) fn hole(&mut self, bytes: u64, sink: &mut impl FnMut(Op<'_>)) {
        self.prepare();
        if let Some(differ) = &mut self.differ {
            differ.pass_hole(bytes, sink);
        }
    }

    /// Ends the content and hands out what is left.
    pub(super) fn finish(mut self, sink: &mut impl FnMut(Op<'_>)) {
        self.prepare();
        if let Some(differ) = self.differ.take() {
            differ.finish(sink);
        }
    }

    /// Asks for the parts that come next, and waits for those that are needed now.
    fn prepare(&mut self) {
        let Some(differ) = &mut self.differ else { return };
        let progress = differ.progress();
        while let Some(part) = self.plan.ask(&progress) {
            self.signatures.ask(self.item, self.plan.parts().range(part));
        }
        while self.plan.must_wait(&progress) {
            let (part, records) = (self.plan.answered(), self.signatures.answer());
            let added = part.zip(records).is_some_and(|(part, records)| differ.add_part(part, records).is_ok());
            if !added {
                // The file there is not as expected any more, or whoever has it answers nonsense.
                self.plan.stop();
            }
        }
    }
}

impl Drop for Comparison<'_> {
    fn drop(&mut self) {
        while self.plan.answered().is_some() {
            self.signatures.answer();
        }
    }
}
