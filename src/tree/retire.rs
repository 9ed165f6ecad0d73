//! What leaves the attic, and when: [`Retention`].
//!
//! ```text
//! ROOT/.rfleet/attic/sizes    a line for each directory of a session: name, bytes, entries
//!                    .gone/   what has left and is not yet removed
//! ```
//!
//! The sizes save a walk of everything at each commit. They count for this only, so they are neither synced nor
//! missed: what has no line is looked through and gets one. Whole directories of sessions leave, by one rename each,
//! and are emptied after that, some of them by the next commits. All this happens when the commit is
//! acknowledged and the root is free again, under a lock of the attic alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::attic::{Attic, KeptSize, Why, make_and_open};
use super::beneath::{Dir, Root};
use super::dispose;
use super::home::open_home;
use super::kept::{KeptSession, measure, open_attic, sessions_in};
use crate::model::{RelPath, SESSION_TIME_BYTES, Timestamp, session_name};

const SIZES: &[u8] = b"sizes";
const SIZES_NEW: &[u8] = b"sizes.new";
const GONE: &[u8] = b".gone";

/// First line of the sizes, with the version of the format.
const HEAD: &str = "rfleet attic 1";

/// A line for each of a hundred thousand sessions fits.
const MAX_SIZES_BYTES: u64 = 16 << 20;

/// Longest time between two looks for what has expired, in seconds.
const LOOK_SECONDS: i64 = 3600;

/// Entries that a commit removes, and at least twice what it has kept itself, so that nothing piles up.
const REMOVED_AT_ONCE: u64 = 20_000;

/// How long what changes take away is kept, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Nothing is kept for longer. Zero: what is expected is not kept, and the rest without end.
    pub age: Duration,
    /// Most bytes of what was expected; of that the oldest goes first. What was not expected does not count.
    pub max_bytes: u64,
}

impl Retention {
    /// Whether what is expected is kept.
    pub fn keeps_expected(&self) -> bool {
        !self.age.is_zero() && self.max_bytes > 0
    }

    /// Sessions whose time is before this have expired, by the reason; `None`: none ever does.
    fn oldest(&self, now: Timestamp, why: Why) -> Option<String> {
        let age = i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX);
        let secs = now.secs.saturating_sub(age).max(0);
        let mut name = session_name(Timestamp { secs, nanos: 0 }, 0);
        name.truncate(SESSION_TIME_BYTES);
        match why {
            Why::Unexpected if self.age.is_zero() => None,
            _ if !self.keeps_expected() && why != Why::Unexpected => Some("~".into()),
            _ => Some(name),
        }
    }
}

/// What is known of the sizes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sizes {
    /// When it was last looked what has expired, in seconds after 1970; `None`: never, as far as is known.
    looked: Option<i64>,
    by_directory: BTreeMap<String, KeptSize>,
}

impl Sizes {
    /// Reads them; a line that makes no sense is left out.
    fn load(attic: &Dir) -> Sizes {
        let mut text = String::new();
        let read = attic.open_file(SIZES).and_then(|(file, _)| file.take(MAX_SIZES_BYTES).read_to_string(&mut text));
        let mut lines = text.lines();
        let mut sizes = Sizes::default();
        if read.is_err() || lines.next() != Some(HEAD) {
            return sizes;
        }
        for line in lines {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["looked", secs] => sizes.looked = secs.parse().ok(),
                [name, bytes, entries] if Why::of(name).is_some() => {
                    if let (Ok(bytes), Ok(entries)) = (bytes.parse(), entries.parse()) {
                        sizes.by_directory.insert(name.to_owned(), KeptSize { bytes, entries });
                    }
                }
                _ => {}
            }
        }
        sizes
    }

    fn save(&self, attic: &Dir) -> io::Result<()> {
        let mut text = format!("{HEAD}\nlooked {}\n", self.looked.unwrap_or_default());
        for (name, size) in &self.by_directory {
            text += &format!("{name} {} {}\n", size.bytes, size.entries);
        }
        let _ = attic.unlink(SIZES_NEW);
        let mut file: File = attic.create_file(SIZES_NEW, 0o600)?;
        file.write_all(text.as_bytes())?;
        attic.rename(SIZES_NEW, attic, SIZES)
    }

    /// Bytes of what was expected.
    fn expected_bytes(&self) -> u64 {
        let expected =
            self.by_directory.iter().filter(|(name, _)| Why::of(name).is_none_or(|of| of.1 != Why::Unexpected));
        expected.fold(0, |sum, (_, size)| sum.saturating_add(size.bytes))
    }

    /// Makes them those of `found`, and looks through what has no line; sessions after `last` are still at work.
    fn complete(&mut self, attic: &Dir, found: &[KeptSession], last: &str) {
        let names: std::collections::BTreeSet<_> = found.iter().map(|one| one.directory.as_str()).collect();
        self.by_directory.retain(|name, _| names.contains(name.as_str()));
        for one in found {
            if !self.by_directory.contains_key(&one.directory)
                && one.session.as_str() <= last
                && let Ok(size) = measure(attic, one.directory.as_bytes())
            {
                self.by_directory.insert(one.directory.clone(), size);
            }
        }
    }
}

/// How much the attic of `root` can give up: what was expected, of the sessions that are over. Each name of a file
/// counts. Nothing where there is no attic.
///
/// # Errors
/// The operating system's.
pub fn attic_can_give_up(root: &Root) -> io::Result<KeptSize> {
    let home = open_home(&root.dir(&RelPath::root())?).map_err(io::Error::other)?;
    let mut sum = KeptSize::default();
    let Some(attic) = home.map(|home| open_attic(&home)).transpose()?.flatten() else { return Ok(sum) };
    let sizes = Sizes::load(&attic);
    for one in sessions_in(&attic)?.iter().filter(|one| one.why != Why::Unexpected) {
        let known = sizes.by_directory.get(&one.directory).copied();
        sum.add(known.map_or_else(|| measure(&attic, one.directory.as_bytes()), Ok)?);
    }
    Ok(sum)
}

impl Attic {
    /// Ends the session, whose changes are acknowledged: notes what it kept, and has go what `retention` says at `now`.
    ///
    /// # Errors
    /// The operating system's; the next commit tries again.
    pub fn settle(self, now: Timestamp, retention: Retention) -> io::Result<()> {
        let Some(attic) = open_attic(&self.home)? else { return Ok(()) };
        if flock(&attic, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Whoever has it, or comes next, sees to everything.
            return Ok(());
        }
        let mut sizes = Sizes::load(&attic);
        let mut changed = false;
        for (directory, size) in self.sizes() {
            match size {
                // A session of several rounds adds to what it kept before.
                Some(size) => sizes.by_directory.entry(directory).or_default().add(size),
                None => drop(sizes.by_directory.insert(directory.clone(), measure(&attic, directory.as_bytes())?)),
            }
            changed = true;
        }
        let apart = i64::try_from(retention.age.as_secs() / 24).unwrap_or(i64::MAX).min(LOOK_SECONDS);
        let since = sizes.looked.map_or(i64::MAX, |looked| now.secs.saturating_sub(looked));
        let too_much = sizes.expected_bytes() > retention.max_bytes || !retention.keeps_expected();
        // A clock that was set back makes it negative.
        if too_much || since >= apart || since < 0 {
            let found = sessions_in(&attic)?;
            sizes.complete(&attic, &found, &self.session);
            retire(&attic, &mut sizes, &found, now, retention)?;
            sizes.looked = Some(now.secs);
            changed = true;
        }
        if changed {
            sizes.save(&attic)?;
        }
        let mut budget = REMOVED_AT_ONCE.max(self.expected_entries().saturating_mul(2));
        empty(&attic, &mut budget)
    }
}

/// Has go what has expired, then the oldest that is too much.
fn retire(
    attic: &Dir,
    sizes: &mut Sizes,
    found: &[KeptSession],
    now: Timestamp,
    retention: Retention,
) -> io::Result<()> {
    let mut left: Vec<&KeptSession> = Vec::new();
    for one in found {
        let oldest = retention.oldest(now, one.why);
        if oldest.is_some_and(|oldest| *one.session < *oldest) {
            send_away(attic, sizes, &one.directory)?;
        } else if one.why != Why::Unexpected {
            left.push(one);
        }
    }
    left.sort();
    let mut bytes = sizes.expected_bytes();
    for one in left {
        if bytes <= retention.max_bytes {
            break;
        }
        bytes = bytes.saturating_sub(sizes.by_directory.get(&one.directory).map_or(0, |size| size.bytes));
        send_away(attic, sizes, &one.directory)?;
    }
    Ok(())
}

fn send_away(attic: &Dir, sizes: &mut Sizes, directory: &str) -> io::Result<()> {
    let gone = make_and_open(attic, GONE, 0o700)?;
    attic.rename_to_nothing(directory.as_bytes(), &gone, directory.as_bytes())?;
    sizes.by_directory.remove(directory);
    Ok(())
}

/// Removes what has left, `budget` entries of it.
fn empty(attic: &Dir, budget: &mut u64) -> io::Result<()> {
    let gone = match attic.open_dir_same_mount(GONE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let names = dispose::names(&gone)?;
    let number = |name: &Vec<u8>| std::str::from_utf8(name).ok()?.parse::<u64>().ok();
    // An earlier commit may have come to its bound and left some.
    let mut next = names.iter().filter_map(number).max().unwrap_or(0);
    let mut fresh = || {
        next += 1;
        next.to_string().into_bytes()
    };
    for name in names {
        dispose::remove_some(&gone, &name, &mut fresh, budget)?;
        if *budget == 0 {
            return Ok(());
        }
    }
    attic.rmdir(GONE)
}

/// Has the oldest of what was expected go, and removes it, until there is `enough` room, given what
/// has gone so far; how much went.
pub(super) fn give_up(home: &Dir, enough: &mut dyn FnMut(KeptSize) -> bool) -> io::Result<KeptSize> {
    let mut given_up = KeptSize::default();
    let Some(attic) = open_attic(home)? else { return Ok(given_up) };
    // Who has it has acknowledged its commit, and is soon done.
    flock(&attic, FlockOperation::LockExclusive)?;
    empty(&attic, &mut u64::MAX.clone())?;
    let mut sizes = Sizes::load(&attic);
    let mut sessions = sessions_in(&attic)?;
    sessions.retain(|one| one.why != Why::Unexpected);
    sessions.sort();
    for one in sessions {
        if enough(given_up) {
            break;
        }
        let known = sizes.by_directory.get(&one.directory).copied();
        given_up.add(known.map_or_else(|| measure(&attic, one.directory.as_bytes()), Ok)?);
        send_away(&attic, &mut sizes, &one.directory)?;
        empty(&attic, &mut u64::MAX.clone())?;
    }
    if given_up != KeptSize::default() {
        // On a full disk this may fail, and only means that they are looked for again.
        let _ = sizes.save(&attic);
    }
    Ok(given_up)
}

#[cfg(test)]
mod tests;
