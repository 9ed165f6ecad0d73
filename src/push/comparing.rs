//! What surrounds the comparison of a host with the source: what it must not see, what must be seen, what is told of it.

use std::collections::HashSet;
use std::sync::Arc;

use super::contents::History;
use super::report::HostReport;
use crate::model::{Digest, DirListing, Kind, Listing, Node, Patterns, RelPath};
use crate::plan::{Destination, Plan, drifted};
use crate::wire::Welcome;

/// Entries that had drifted that are named one by one.
const NAMED_DRIFT: usize = 10;

/// Directories that stay that are named one by one.
const NAMED_KEPT: usize = 10;

/// Most bytes of patterns that a host may have protected: they are matched here.
const MAX_PROTECT_BYTES: usize = 64 << 10;

/// What the host says that it leaves alone whatever comes. Not to send it spares both sides work; that it is
/// left alone is the host's own business. Patterns that cannot be understood here are none.
pub(super) fn protected(welcome: &Welcome) -> Patterns {
    let lines = || welcome.protect.iter().map(String::as_str);
    if lines().map(str::len).sum::<usize>() > MAX_PROTECT_BYTES {
        return Patterns::default();
    }
    Patterns::new(lines()).unwrap_or_default()
}

/// Lets the comparison see that the content of `hidden` differs where size and time do not show it.
pub(super) fn mark_hidden(listing: Arc<Listing>, destination: &mut Destination, hidden: &[RelPath]) -> Arc<Listing> {
    if hidden.is_empty() {
        return listing;
    }
    let mut listing = Listing::clone(&listing);
    let mark = |dir: Option<&mut DirListing>, name: &[u8], mark: u8| {
        let node = dir.and_then(|dir| dir.nodes.iter_mut().find(|node| *node.name == *name));
        if let Some(Node { kind: Kind::File { digest, .. }, .. }) = node {
            *digest = Some(Box::new(Digest([mark; 32])));
        }
    };
    for path in hidden {
        let Some((parent, name)) = path.split() else { continue };
        mark(listing.dirs.iter_mut().find(|dir| dir.path == parent), name, 1);
        mark(destination.listed.get_mut(&parent), name, 0);
    }
    Arc::new(listing)
}

/// Names the directories that stay though the primary does not have them.
pub(super) fn note_kept(report: &mut HostReport, plan: &Plan) {
    let kept = &plan.kept_directories;
    if kept.is_empty() {
        return;
    }
    let named: Vec<String> = kept.iter().take(NAMED_KEPT).map(ToString::to_string).collect();
    let more = kept.len().saturating_sub(NAMED_KEPT);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let what = match kept.len() {
        1 => "1 directory is gone here and stays there, as it holds what is left alone".to_owned(),
        count => format!("{count} directories are gone here and stay there, as they hold what is left alone"),
    };
    report.notes.push(format!("{what}: {}{more}", named.join(", ")));
}

/// Names what was not as the last push had left it.
pub(super) fn note_drift(report: &mut HostReport, plan: &Plan, listing: &Listing, past: &History) {
    let mut changed: HashSet<RelPath> = HashSet::new();
    for dir in &past.listing.dirs {
        changed.extend(dir.nodes.iter().filter_map(|node| dir.path.join(&node.name).ok()));
    }
    changed.extend(past.plan.removals.iter().map(|removal| removal.path.clone()));
    let drifted = drifted(plan, listing, &|path| changed.contains(path));
    if drifted.is_empty() {
        return;
    }
    report.drifted = report.drifted.saturating_add(drifted.len() as u64);
    let named: Vec<String> = drifted.iter().take(NAMED_DRIFT).map(ToString::to_string).collect();
    let more = drifted.len().saturating_sub(NAMED_DRIFT);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let note = format!("{} entries were not as the last push had left them: {}{more}", drifted.len(), named.join(", "));
    report.notes.push(note);
}
