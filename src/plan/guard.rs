//! The guard: refuses a plan that looks like an accident, before a byte leaves.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Plan;
use crate::model::{Hasher, RelPath};

/// Below this many deletions the limit that nobody chose does not refuse: a quarter of a small tree
/// is a handful of files.
const DEFAULT_FLOOR: u64 = 100;

/// How many of a host's entries one push may delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteLimit {
    /// Nobody chose: a quarter, but never fewer than 100.
    Default,
    /// This many.
    Count(u64),
    /// This many in a hundred.
    Percent(u8),
}

impl DeleteLimit {
    /// The most that may be deleted of `entries`.
    pub fn allowed(self, entries: u64) -> u64 {
        let percent = |percent: u8| u64::try_from(u128::from(entries) * u128::from(percent) / 100).unwrap_or(u64::MAX);
        match self {
            DeleteLimit::Default => percent(25).max(DEFAULT_FLOOR),
            DeleteLimit::Count(count) => count,
            DeleteLimit::Percent(share) => percent(share),
        }
    }
}

impl fmt::Display for DeleteLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeleteLimit::Default => f.write_str("25%"),
            DeleteLimit::Count(count) => write!(f, "{count}"),
            DeleteLimit::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Which guard refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// The source is not there, or is no directory.
    Source,
    /// The source is empty.
    EmptySource,
    /// A part of the source cannot be read.
    UnreadableSource,
    /// The file that proves that the source is mounted is not there.
    Require,
    /// One lies inside the other.
    Overlap,
    /// The source is not the one that was pushed before.
    Exchanged,
    /// What was mounted in the source is not there.
    Unmounted,
    /// Too many deletions.
    MaxDelete,
    /// The destination was not used by this fleet before.
    Adopt,
}

impl Guard {
    /// The name that scripts see.
    pub fn name(self) -> &'static str {
        match self {
            Guard::Source => "source",
            Guard::EmptySource => "empty-source",
            Guard::UnreadableSource => "unreadable-source",
            Guard::Require => "require",
            Guard::Overlap => "overlap",
            Guard::Exchanged => "exchanged",
            Guard::Unmounted => "unmounted",
            Guard::MaxDelete => "max-delete",
            Guard::Adopt => "adopt",
        }
    }
}

/// A refusal. Nothing was changed anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRefusal {
    /// Which guard.
    pub guard: Guard,
    /// One line: the root, the numbers, the way out.
    pub message: String,
    /// The plan's id, where it can be confirmed.
    pub plan: Option<String>,
}

impl fmt::Display for GuardRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Whose a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This fleet has used it before, or may take it, or there is no fleet.
    Own,
    /// No fleet has left a record there.
    Unknown,
    /// Another root says that it is its own.
    Other {
        /// The fleet's name.
        fleet: String,
        /// The root's name.
        root: String,
    },
}

/// One host's plan as the guard sees it.
pub struct GuardedHost<'a> {
    /// The host's name.
    pub name: &'a str,
    /// Its plan.
    pub plan: &'a Plan,
    /// Whose the destination is.
    pub ownership: Ownership,
}

/// What the operator allows.
pub struct GuardOptions<'a> {
    /// What to call the root in messages.
    pub root: &'a str,
    /// The most that may be deleted on each host.
    pub max_delete: DeleteLimit,
    /// Ids of plans that were confirmed.
    pub confirmed: &'a [String],
    /// The source is another directory or filesystem than the one that was pushed before.
    pub exchanged: bool,
    /// Where something was mounted in the source when it was pushed before, and is not now.
    pub unmounted: &'a BTreeSet<RelPath>,
}

/// Looks at the plans of all hosts together: if one is refused, nothing is sent to any.
///
/// # Errors
/// The first refusal; it names all hosts that it concerns.
pub fn check(hosts: &[GuardedHost], options: &GuardOptions) -> Result<(), GuardRefusal> {
    check_adoption(hosts, options)?;
    check_unmounted(hosts, options)?;
    check_deletions(hosts, options)
}

/// Deletions where something is missing that was mounted there look like a volume that is not mounted.
fn check_unmounted(hosts: &[GuardedHost], options: &GuardOptions) -> Result<(), GuardRefusal> {
    if options.unmounted.is_empty() {
        return Ok(());
    }
    let place = |path: &RelPath| options.unmounted.iter().find(|at| *at == path || path.is_below(at));
    let missing = |host: &&GuardedHost| host.plan.removals.iter().find_map(|removal| place(&removal.path));
    let concerned: Vec<_> = hosts.iter().filter(|host| missing(host).is_some()).collect();
    let Some((first, at)) = concerned.first().and_then(|first| Some((first, missing(first)?))) else { return Ok(()) };
    let id = plan_id(options.root, &concerned);
    if options.confirmed.contains(&id) {
        return Ok(());
    }
    let count = first.plan.removals.iter().filter(|removal| place(&removal.path).is_some()).count();
    let message = format!(
        "root {}: nothing is mounted at {at}, where something was at an earlier push, and {count} entries on {}{} would \
         be deleted there; nothing was changed. Mount it; if it is not to come back, add --confirm-deletes {id}",
        options.root,
        first.name,
        and_more(concerned.len()),
    );
    Err(GuardRefusal { guard: Guard::Unmounted, message, plan: Some(id) })
}

fn check_adoption(hosts: &[GuardedHost], options: &GuardOptions) -> Result<(), GuardRefusal> {
    let refuse = |message| Err(GuardRefusal { guard: Guard::Adopt, message, plan: None });
    for host in hosts {
        if let Ownership::Other { fleet, root } = &host.ownership {
            return refuse(format!(
                "root {}: the destination on {} belongs to root {} of fleet {}; nothing was changed. If it is to be \
                 taken over, say --adopt once",
                options.root,
                host.name,
                root.escape_debug(),
                fleet.escape_debug(),
            ));
        }
    }
    let is_foreign = |host: &&GuardedHost| host.ownership == Ownership::Unknown && host.plan.totals.overwritten > 0;
    let foreign: Vec<_> = hosts.iter().filter(is_foreign).collect();
    let Some(first) = foreign.first() else { return Ok(()) };
    refuse(format!(
        "root {}: the destination on {}{} was not used by this fleet before, and {} of its {} entries would be \
         deleted or replaced; nothing was changed. If it is the right place, say --adopt once",
        options.root,
        first.name,
        and_more(foreign.len()),
        first.plan.totals.overwritten,
        first.plan.totals.host_entries,
    ))
}

/// Names the other hosts that a refusal concerns by their number.
fn and_more(hosts: usize) -> String {
    match hosts {
        0 | 1 => String::new(),
        2 => " (and 1 more host)".into(),
        more => format!(" (and {} more hosts)", more - 1),
    }
}

fn check_deletions(hosts: &[GuardedHost], options: &GuardOptions) -> Result<(), GuardRefusal> {
    let beyond = |host: &&GuardedHost| {
        let totals = &host.plan.totals;
        totals.deleted > options.max_delete.allowed(totals.host_entries) || (options.exchanged && totals.deleted > 0)
    };
    let violating: Vec<_> = hosts.iter().filter(beyond).collect();
    let Some(first) = violating.first() else { return Ok(()) };
    let id = plan_id(options.root, &violating);
    if options.confirmed.contains(&id) {
        return Ok(());
    }
    let more =
        if violating.len() > 1 { format!(" (and on {} more hosts)", violating.len() - 1) } else { String::new() };
    if options.exchanged {
        let message = format!(
            "root {}: the source is another directory or filesystem than before, and {} of {} entries on {}{more} would \
             be deleted; nothing was changed. Is the right volume mounted? If that is meant, add --confirm-deletes {id}",
            options.root, first.plan.totals.deleted, first.plan.totals.host_entries, first.name,
        );
        return Err(GuardRefusal { guard: Guard::Exchanged, message, plan: Some(id) });
    }
    let message = format!(
        "root {}: {} of {} entries on {}{more} would be deleted, more than the limit of {}; nothing was changed. If that \
         is meant, add --confirm-deletes {id}",
        options.root, first.plan.totals.deleted, first.plan.totals.host_entries, first.name, options.max_delete,
    );
    Err(GuardRefusal { guard: Guard::MaxDelete, message, plan: Some(id) })
}

/// Names exactly these deletions: a confirmation holds for them and no others.
fn plan_id(root: &str, hosts: &[&GuardedHost]) -> String {
    let mut hasher = Hasher::new();
    hasher.update_framed(root.as_bytes());
    // Hosts come in any order.
    let mut hosts = hosts.to_vec();
    hosts.sort_by_key(|host| host.name);
    for host in hosts {
        hasher.update_framed(host.name.as_bytes());
        hasher.update(&host.plan.totals.deleted.to_le_bytes());
        let removals = host.plan.removals.iter().map(|removal| &removal.path);
        removals.map(RelPath::as_bytes).for_each(|path| hasher.update_framed(path));
    }
    let digest = hasher.finish().to_string();
    digest[..12].to_owned()
}
