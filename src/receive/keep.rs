//! What the attic may take of the disk: a push comes first.

use std::io;
use std::path::Path;

use super::policy::Quota;
use super::quota::Account;
use super::refusal::{End, SPARE_BYTES, check_room, has_room, stage_refusal, write_refusal};
use super::writer::{WriteError, Writer};
use crate::tree::{KeptSize, Retention, Root, Staging, Usage, attic_can_give_up};
use crate::wire::Begin;

/// Takes the root for changes, if they fit, or would if the attic gave up what it can.
pub(super) fn open_staging(
    root: &Root,
    begin: &Begin,
    path: &Path,
    retention: Option<Retention>,
) -> Result<Staging, End> {
    // Who has no policy about the attic does not touch it.
    if retention.is_none() || !would_have_room(root, begin) {
        check_room(root, begin, path)?;
    }
    Staging::open(root).map_err(|error| stage_refusal(path, &error))
}

fn would_have_room(root: &Root, begin: &Begin) -> bool {
    let (Ok(free), Ok(kept)) = (root.free(), attic_can_give_up(root)) else { return false };
    let bytes = begin.need_bytes.saturating_add(SPARE_BYTES) <= free.bytes.saturating_add(kept.bytes);
    bytes && free.inodes.is_none_or(|free| begin.need_inodes <= free.saturating_add(kept.entries))
}

/// Where only the attic is in the way of what comes, it gives up as much as it takes. A push that is refused for
/// another reason must not come so far.
pub(super) fn make_room(staging: &Staging, root: &Root, begin: &Begin, path: &Path) -> Result<KeptSize, End> {
    if has_room(root, begin) {
        return Ok(KeptSize::default());
    }
    let gone = staging.give_up_attic(&mut |_| has_room(root, begin));
    let gone = gone.map_err(|error| write_refusal(path, &WriteError::Failed(error)))?;
    check_room(root, begin, path)?;
    Ok(gone)
}

/// As [`make_room`], in this host's quota: nothing is given up where all of it would not be enough.
pub(super) fn make_room_in_quota(
    quota: Quota,
    staging: &Staging,
    root: &Root,
    begin: &Begin,
    path: &Path,
) -> Result<KeptSize, End> {
    let make = || -> io::Result<KeptSize> {
        let account = Account::open(quota, Some(root), Some(root))?;
        let Some(short) = account.and_then(|account| account.shortfall(account.announced(begin))) else {
            return Ok(KeptSize::default());
        };
        let kept = attic_can_give_up(root)?;
        if is_enough(kept, short) { give_up(staging, short) } else { Ok(KeptSize::default()) }
    };
    make().map_err(|error| write_refusal(path, &WriteError::Failed(error)))
}

fn is_enough(kept: KeptSize, short: Usage) -> bool {
    kept.bytes >= short.bytes && kept.entries >= short.entries
}

/// Has the attic give up as much as is missing in a quota, `short`.
fn give_up(staging: &Staging, short: Usage) -> io::Result<KeptSize> {
    staging.give_up_attic(&mut |gone| is_enough(gone, short))
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
