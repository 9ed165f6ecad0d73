//! What happened after a point.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::{OptionalExtension, Row, params};

use super::row;
use super::{Index, IndexError, number};
use crate::model::{Changes, Digest, DirectoryId, Kind, Meta, Name, Position, RelPath, Sequence, Version};

/// Stands for a content that is another one, where size and time do not show it.
const BEFORE: Digest = Digest([0; 32]);
const AFTER: Digest = Digest([1; 32]);

/// An entry with the sequence of its content.
struct Current {
    version: Version,
    content: i64,
}

impl Index {
    /// What is not as it was at `from`, which is [known](Index::knows).
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn changes_since(&self, from: Position) -> Result<Changes, IndexError> {
        let since = number(from.sequence);
        let current = self.current(since)?;
        let mut then = self.past(since)?;
        let content: HashMap<_, _> =
            current.iter().map(|one| ((one.version.dir, one.version.node.name.clone()), one.content)).collect();
        let mut now: Vec<Version> = current.into_iter().map(|one| one.version).collect();
        mark_hidden_changes(&mut now, &mut then, |key| content.get(key).is_some_and(|content| *content > since));
        let same = self.other_names(since, &now, &then)?;
        let mut changes = Changes { now, then, same, ..Changes::default() };
        self.add_places(&mut changes)?;
        changes.root = Some(DirectoryId(self.root));
        changes.root_then = self.root_meta_at(since)?;
        let entries = self
            .db
            .query_row("SELECT entries FROM stamps WHERE sequence = ?1", [since], |row| row.get::<_, i64>(0))
            .optional()?;
        changes.entries_then = entries.unwrap_or(0).cast_unsigned();
        Ok(changes)
    }

    /// Files whose content changed after `from`, or as far back as is known, although size and time do not
    /// show it: a comparison with a host that may have missed it finds them equal.
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn hidden_changes(&self, from: Option<Sequence>) -> Result<Vec<RelPath>, IndexError> {
        // Of a state, the first byte is the kind, and size and time follow the second.
        let mut statement = self.db.prepare_cached(
            "SELECT DISTINCT e.dir, e.name FROM past p JOIN entries e ON e.dir = p.dir AND e.name = p.name \
             WHERE p.until > ?1 AND e.content >= p.until AND substr(e.state, 1, 1) = x'66' \
             AND substr(p.state, 1, 1) = x'66' AND substr(e.state, 3, 20) = substr(p.state, 3, 20)",
        )?;
        let from = from.map_or(0, number);
        let found =
            collect(&mut statement, params![from], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        found.into_iter().map(|(dir, name)| self.path_of(DirectoryId(dir), &name)).collect()
    }

    fn current(&self, since: i64) -> Result<Vec<Current>, IndexError> {
        let mut statement = self.db.prepare_cached(
            "SELECT dir, name, state, own, target, attributes, content FROM entries INDEXED BY by_sequence \
             WHERE sequence > ?1 AND dir > 0",
        )?;
        collect(&mut statement, params![since], |row| {
            Ok(Current { version: row::version_of(row)?, content: row.get(6)? })
        })
    }

    fn past(&self, since: i64) -> Result<Vec<Version>, IndexError> {
        let mut statement = self.db.prepare_cached(
            "SELECT dir, name, state, own, target, attributes, digest FROM past WHERE until > ?1 AND since <= ?1 AND dir > 0",
        )?;
        collect(&mut statement, params![since], |row| {
            let digest = row::digest_of(row, 6)?;
            let doubtful = digest == Some(row::DOUBT);
            Ok(Version { digest: digest.filter(|_| !doubtful), doubtful, ..row::version_of(row)? })
        })
    }

    fn root_meta_at(&self, since: i64) -> Result<Option<Meta>, IndexError> {
        let mut statement = self
            .db
            .prepare_cached("SELECT state, attributes FROM past WHERE until > ?1 AND since <= ?1 AND dir = 0")?;
        let found: Option<(Vec<u8>, Option<Vec<u8>>)> =
            statement.query_row([since], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let meta = |(state, attributes): (Vec<u8>, Option<Vec<u8>>)| {
            Ok(row::entry_of(b"", &state, None, attributes.as_deref())?.0.meta)
        };
        found.map(meta).transpose()
    }

    /// The names, as they were and are, of files that have or had several and of which one has changed.
    fn other_names(&self, since: i64, now: &[Version], then: &[Version]) -> Result<Vec<Version>, IndexError> {
        let shared = now.iter().chain(then).filter(|version| version.inode.shared);
        let inodes: HashSet<(u64, u64)> = shared.map(|version| (version.inode.dev, version.inode.ino)).collect();
        let mut statement = self.db.prepare_cached(
            "SELECT dir, name, state, own, target, attributes FROM entries \
             WHERE inode = ?1 AND own IS NULL AND sequence <= ?2 AND dir > 0",
        )?;
        let mut names = Vec::new();
        for (dev, ino) in inodes {
            let found = collect(&mut statement, params![ino.cast_signed(), since], row::version_of)?;
            names.extend(found.into_iter().filter(|version| version.inode.dev == dev));
        }
        Ok(names)
    }

    fn add_places(&self, changes: &mut Changes) -> Result<(), IndexError> {
        let versions = changes.now.iter().chain(&changes.then).chain(&changes.same);
        let mut ahead: BTreeSet<DirectoryId> =
            versions.flat_map(|version| [Some(version.dir), version.own]).flatten().collect();
        ahead.insert(DirectoryId(self.root));
        let mut places = BTreeMap::new();
        while let Some(own) = ahead.pop_first() {
            let Some(place) = self.place(own)? else { continue };
            ahead.extend(place.parent.filter(|parent| !places.contains_key(parent)));
            places.insert(own, place);
        }
        changes.places = places;
        Ok(())
    }
}

fn collect<T>(
    statement: &mut rusqlite::Statement,
    params: impl rusqlite::Params,
    take: impl Fn(&Row) -> Result<T, IndexError>,
) -> Result<Vec<T>, IndexError> {
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(take(row)?);
    }
    Ok(all)
}

/// Content that changed although size and time are what they were shows by digests.
fn mark_hidden_changes(now: &mut [Version], then: &mut [Version], changed: impl Fn(&(DirectoryId, Name)) -> bool) {
    let before: HashMap<_, usize> =
        then.iter().enumerate().map(|(at, version)| ((version.dir, version.node.name.clone()), at)).collect();
    for version in now {
        let key = (version.dir, version.node.name.clone());
        let Some(old) = before.get(&key).filter(|_| changed(&key)).map(|at| &mut then[*at].node) else { continue };
        if !old.same_content(&version.node) {
            continue;
        }
        if let (Kind::File { digest: new, .. }, Kind::File { digest: old, .. }) =
            (&mut version.node.kind, &mut old.kind)
        {
            (*new, *old) = (Some(Box::new(AFTER)), Some(Box::new(BEFORE)));
        }
    }
}
