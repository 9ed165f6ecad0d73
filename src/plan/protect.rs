//! What a host protects from every primary, taken out of its plan.

use std::collections::HashSet;

use super::{DirectoryStep, Plan, Step};
use crate::model::{Expected, Listing, Patterns};

/// Takes everything out of `plan` that concerns an entry that `protect` names, or what is below it. The host does
/// none of it anyway; so a plan in which nothing else is left is empty, and the host is up to date.
pub fn leave_protected(plan: &mut Plan, listing: &Listing, protect: &Patterns) {
    let totals = &mut plan.totals;
    let mut is_left = |step: &Step| {
        if !protect.protects(&step.entry.path(listing)) {
            return false;
        }
        let number = if step.differences.new { &mut totals.created } else { &mut totals.updated };
        *number = number.saturating_sub(1);
        totals.overwritten = totals.overwritten.saturating_sub(u64::from(step.was != Expected::Nothing));
        true
    };
    let mut spared_bytes = 0;
    plan.directories.retain(|step| !is_left(step));
    plan.reuses.retain(|reuse| !is_left(&reuse.step));
    plan.links.retain(|link| !is_left(&link.step));
    plan.symlinks.retain(|step| !is_left(step));
    plan.specials.retain(|step| !is_left(step));
    plan.files.retain(|file| {
        let left = is_left(&file.step);
        spared_bytes += if left { file.step.entry.of(listing).1.kind.size_bytes() } else { 0 };
        !left
    });
    totals.content_bytes = totals.content_bytes.saturating_sub(spared_bytes);
    totals.need_bytes = totals.need_bytes.saturating_sub(spared_bytes);
    plan.attributes.retain(|step| !protect.protects(&step.entry.path(listing)));
    plan.replaced_directories.retain(|replaced| {
        let left = protect.protects(&replaced.entry.path(listing));
        totals.deleted = totals.deleted.saturating_sub(if left { replaced.entries } else { 0 });
        !left
    });
    plan.removals.retain(|removal| {
        let left = protect.protects(&removal.path);
        totals.deleted = totals.deleted.saturating_sub(u64::from(left));
        totals.overwritten = totals.overwritten.saturating_sub(u64::from(left));
        !left
    });
    leave_directories(plan, listing, protect);
}

/// Directories in which nothing is done any more need no time set.
fn leave_directories(plan: &mut Plan, listing: &Listing, protect: &Patterns) {
    let steps = plan.directories.iter().chain(&plan.symlinks).chain(&plan.specials).map(|step| step.entry);
    let steps = steps.chain(plan.files.iter().map(|file| file.step.entry));
    let steps = steps.chain(plan.reuses.iter().map(|reuse| reuse.step.entry));
    let steps = steps.chain(plan.links.iter().map(|link| link.step.entry));
    let mut touched: HashSet<u32> = steps.map(|entry| entry.dir).collect();
    let parents = plan.removals.iter().filter_map(|removal| Some(removal.path.split()?.0));
    let at = |path| listing.dirs.binary_search_by(|dir| dir.path.cmp(&path)).ok();
    touched.extend(parents.filter_map(at).filter_map(|at| u32::try_from(at).ok()));
    let keeps = |step: &DirectoryStep| {
        let path = &listing.dirs[step.dir as usize].path;
        (step.differences.any() || touched.contains(&step.dir)) && !protect.protects(path)
    };
    plan.directory_attributes.retain(keeps);
    let of_directories =
        plan.directory_attributes.iter().filter(|step| !step.differences.new && step.differences.any());
    plan.totals.attributes = (plan.attributes.len() + of_directories.count()) as u64;
}
