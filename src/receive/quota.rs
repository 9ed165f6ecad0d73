//! How much a root may hold on this host, whatever a primary sends.
//!
//! A quota is as a disk of that size: what is under way counts while the old is still there, and so do `.rfleet`, the
//! attic and what others put into the root. When a push begins the root is counted; what it announces has to fit, or
//! nothing is changed. From then on everything that is made is added before it is made, at most as much as it can
//! take; what was replaced and is gone is taken off. Where that sum reaches the quota the root is counted once more,
//! and only what does not fit by that ends the session.

use std::io;
use std::path::Path;

use super::policy::Quota;
use super::refusal::{End, refuse};
use crate::tree::{Root, Usage, usage};
use crate::wire::{Begin, RefusalKind};

/// What is charged at least between two counts, in bytes and in entries: a primary that keeps a root at its limit does
/// not have it counted for every file.
const COUNT_AFTER: Usage = Usage { bytes: 16 << 20, entries: 1024 };

/// What a directory takes for a name, beside twice the name: where it grows its blocks are half full.
const NAME_BYTES: u64 = 64;

/// Where a filesystem does not say.
const DEFAULT_BLOCK_BYTES: u64 = 4096;

/// What a session has taken of a quota.
pub(super) struct Account {
    quota: Quota,
    /// At most.
    used: Usage,
    /// Since the root was counted.
    charged: Usage,
    block_bytes: u64,
}

impl Account {
    /// Counts `root`, where there is one; `place` is it, or the directory that it is made in. `None` without a quota.
    ///
    /// # Errors
    /// The root cannot be counted.
    pub(super) fn open(quota: Quota, root: Option<&Root>, place: Option<&Root>) -> io::Result<Option<Self>> {
        if quota == Quota::default() {
            return Ok(None);
        }
        let used = root.map_or(Ok(Usage::default()), usage)?;
        let free = place.and_then(|place| place.free().ok());
        let block_bytes = free.map_or(DEFAULT_BLOCK_BYTES, |free| free.block_bytes.max(1));
        Ok(Some(Account { quota, used, charged: Usage::default(), block_bytes }))
    }

    /// Refuses, before anything is changed, what the announcement says will not fit.
    pub(super) fn admit(&self, begin: &Begin, path: &Path) -> Result<(), End> {
        let needed = self.announced(begin);
        if needed == Usage::default() {
            // Welcome also where there is no room: it may be what makes some.
            return Ok(());
        }
        let Some(Limit { setting, unit, most, used, needed }) = self.exceeded(needed) else { return Ok(()) };
        let message = format!(
            "{}: more than its quota on this host: up to {needed} {unit} are needed, {used} are taken of the {most} that \
             [receive] {setting} allows; nothing was changed; raise the quota there, or exclude or remove something",
            path.display()
        );
        Err(refuse(RefusalKind::NoSpace, message))
    }

    /// What `begin` says that will be needed, at most.
    pub(super) fn announced(&self, begin: &Begin) -> Usage {
        // An entry takes whole blocks.
        let rounding = begin.need_inodes.saturating_mul(self.block_bytes);
        Usage { bytes: begin.need_bytes.saturating_add(rounding), entries: begin.need_inodes }
    }

    /// How much has to go before `needed` fits; `None` if it does.
    pub(super) fn shortfall(&self, needed: Usage) -> Option<Usage> {
        let over = |most: Option<u64>, used: u64, needed: u64| {
            most.map_or(0, |most| used.saturating_add(needed).saturating_sub(most))
        };
        let short = Usage {
            bytes: over(self.quota.bytes, self.used.bytes, needed.bytes),
            entries: over(self.quota.entries, self.used.entries, needed.entries),
        };
        (short != Usage::default()).then_some(short)
    }

    /// Takes room for what is about to be made. Whether it fits by what is known.
    pub(super) fn charge(&mut self, needed: Usage) -> bool {
        for sum in [&mut self.used, &mut self.charged] {
            sum.bytes = sum.bytes.saturating_add(needed.bytes);
            sum.entries = sum.entries.saturating_add(needed.entries);
        }
        self.fits()
    }

    /// Gives back what was freed.
    pub(super) fn credit(&mut self, freed: Usage) {
        self.used.bytes = self.used.bytes.saturating_sub(freed.bytes);
        self.used.entries = self.used.entries.saturating_sub(freed.entries);
    }

    /// Whether what was charged fits.
    pub(super) fn fits(&self) -> bool {
        self.exceeded(Usage::default()).is_none()
    }

    /// Counts anew, with `pending`, which was charged and is not made yet, on top; unless it was done a moment ago.
    ///
    /// # Errors
    /// The root cannot be counted.
    pub(super) fn recount(&mut self, root: &Root, pending: Usage) -> io::Result<()> {
        if self.charged.bytes >= COUNT_AFTER.bytes || self.charged.entries >= COUNT_AFTER.entries {
            self.count(root, pending)?;
        }
        Ok(())
    }

    /// Counts anew, with `pending`, which was charged and is not made yet, on top.
    ///
    /// # Errors
    /// The root cannot be counted.
    pub(super) fn count(&mut self, root: &Root, pending: Usage) -> io::Result<()> {
        self.used = usage(root)?;
        self.charged = Usage::default();
        self.charge(pending);
        Ok(())
    }

    /// Why the session ends.
    pub(super) fn told(&self) -> String {
        let limit = self.exceeded(Usage::default());
        limit.map_or_else(String::new, |Limit { setting, unit, most, .. }| {
            format!("the quota on this host is reached: {most} {unit} by [receive] {setting}")
        })
    }

    /// The most that an entry takes: content and attributes in whole blocks, and its name in its directory.
    pub(super) fn entry(&self, name_bytes: usize, content_bytes: u64, attribute_bytes: usize) -> Usage {
        let name = (name_bytes as u64).saturating_mul(2).saturating_add(NAME_BYTES);
        let parts = [self.blocks(content_bytes), self.blocks(attribute_bytes as u64), name];
        Usage { bytes: parts.into_iter().fold(0, u64::saturating_add), entries: 1 }
    }

    /// As much as takes whole blocks.
    pub(super) fn blocks(&self, bytes: u64) -> u64 {
        bytes.checked_next_multiple_of(self.block_bytes).unwrap_or(u64::MAX)
    }

    fn exceeded(&self, needed: Usage) -> Option<Limit> {
        let Quota { bytes, entries } = self.quota;
        let bytes = ("quota", "bytes", bytes, self.used.bytes, needed.bytes);
        let entries = ("quota_entries", "entries", entries, self.used.entries, needed.entries);
        [bytes, entries].into_iter().find_map(|(setting, unit, most, used, needed)| {
            let most = most.filter(|most| used.saturating_add(needed) > *most)?;
            Some(Limit { setting, unit, most, used, needed })
        })
    }
}

/// One that is exceeded.
struct Limit {
    setting: &'static str,
    unit: &'static str,
    most: u64,
    used: u64,
    needed: u64,
}
