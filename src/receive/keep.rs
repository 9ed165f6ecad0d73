//! What the attic may take of the disk: a push comes first.

use std::io;
use std::path::Path;

use super::refusal::{End, SPARE_BYTES, check_room, has_room, stage_refusal, write_refusal};
use super::writer::{WriteError, Writer};
use crate::tree::{KeptSize, Retention, Root, Staging, Usage};
use crate::wire::Begin;

/// Takes the root for changes, if they fit; where only the attic is in their way, it gives up as much as it takes.
pub(super) fn open_staging(
    root: &Root,
    begin: &Begin,
    path: &Path,
    retention: Option<Retention>,
) -> Result<(Staging, KeptSize), End> {
    // Who has no policy about the attic does not touch it.
    if retention.is_none() {
        check_room(root, begin, path)?;
    }
    let staging = Staging::open(root).map_err(|error| stage_refusal(path, &error))?;
    let mut given_up = KeptSize::default();
    if !has_room(root, begin) {
        let gone = staging.give_up_attic(&mut |_| has_room(root, begin));
        given_up = gone.map_err(|error| write_refusal(path, &WriteError::Failed(error)))?;
        check_room(root, begin, path)?;
    }
    Ok((staging, given_up))
}

/// Has the attic give up as much as is missing in a quota, `short`.
pub(super) fn give_up(staging: &Staging, short: Usage) -> io::Result<KeptSize> {
    staging.give_up_attic(&mut |gone| gone.bytes >= short.bytes && gone.entries >= short.entries)
}

impl Writer<'_> {
    /// Where the quota does not hold what was charged: gives the attic up, as far as it takes.
    pub(super) fn keep_quota(&mut self, pending: Usage) -> Result<(), WriteError> {
        let Some(account) = &mut self.account else { return Ok(()) };
        let Some(short) = account.shortfall(Usage::default()).filter(|_| self.attic.keeps_expected()) else {
            return Ok(());
        };
        self.given_up.add(give_up(&self.staging, short).map_err(WriteError::Failed)?);
        account.count(self.applier.parents().root(), pending).map_err(WriteError::Failed)?;
        if !account.fits() {
            self.attic.keep_no_more("the quota is reached");
        }
        Ok(())
    }

    /// Where what is replaced was to make room for what comes, and is kept instead: gives the attic up, as far as it
    /// takes.
    pub(super) fn keep_room(&mut self) -> Result<(), WriteError> {
        let root = self.applier.parents().root().clone();
        // What follows is taken to be as much as what waits now: nobody has said how much is still to come.
        let need_bytes = self.waiting_bytes.saturating_add(SPARE_BYTES);
        let enough = || root.free().is_ok_and(|free| free.bytes >= need_bytes);
        if !self.attic.keeps_expected() || enough() {
            return Ok(());
        }
        self.given_up.add(self.staging.give_up_attic(&mut |_| enough()).map_err(WriteError::Failed)?);
        if !enough() {
            self.attic.keep_no_more("the disk is almost full");
        }
        Ok(())
    }

    /// What the operators should know of the attic.
    pub(super) fn note_attic(&mut self) {
        let notes = &mut self.outcome.notes;
        notes.extend(self.drift.told(&self.attic.place()));
        if let Some((count, reason)) = self.attic.unkept() {
            notes.push(format!("{count} entries were replaced or deleted and are not kept in the attic: {reason}"));
        }
        let KeptSize { bytes, entries } = self.given_up;
        if entries > 0 {
            notes.push(format!("the attic has given up {entries} entries of {bytes} bytes, to make room"));
        }
    }
}
