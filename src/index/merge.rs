//! A scan, directory by directory, against what is recorded. Costs memory for one directory and for
//! those above it, and a number for each directory of the tree.

mod names;

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::params;

use super::left::Left;
use super::row::{self, State};
use super::states::States;
use super::{Index, IndexError, number};
use names::Shared;
pub use names::Taken;

use crate::model::{Attributes, Digest, Inode, Kind, Name, Node, Position, RelPath, Seen, Stamp, Timestamp};

/// Kernels stamp files by a clock that ticks every 1 to 10 ms, or finer; twice that is safe.
const TICK_NANOS: i128 = 20_000_000;

/// A time without a fraction may come from a clock that ticks every two seconds.
const COARSE_TICK_NANOS: i128 = 2_000_000_000;

pub(super) const ROWS_OF_A_DIRECTORY: &str =
    "SELECT name, state, own, racy, target, digest, attributes FROM entries WHERE dir = ?1 ORDER BY name";

/// What a scan came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The point that is reached.
    pub position: Position,
    /// Changes that were numbered.
    pub changes: u64,
    /// Entries recorded.
    pub entries: u64,
}

/// Looks again at an entry that is new or not as it was.
pub trait Look {
    /// Reads a file of which the times cannot tell whether it changed; `None` if that is not possible.
    fn content(&mut self, seen: &Seen) -> Option<Digest>;

    /// Its extended attributes; `None` if they cannot be had now: then the next scan asks again.
    fn attributes(&mut self, seen: &Seen) -> Option<Attributes>;
}

/// A scan under way. Dropped before [`Merge::finish`] it has not happened.
pub struct Merge<'i> {
    index: &'i Index,
    /// When the scan began.
    started: Timestamp,
    first: i64,
    last: i64,
    entries: i64,
    /// Something was written, if only a time.
    dirty: bool,
    levels: Vec<Level>,
    /// Directories that were found in this scan.
    confirmed: HashSet<i64>,
    /// Directories that are not where they were, by device and inode. One that was renamed during a scan
    /// is recorded twice.
    orphans: HashMap<(u64, u64), Vec<Orphan>>,
    states: States,
    left: Left,
    /// The directory taken in last.
    current: Option<i64>,
    shared: Shared,
    /// It is a scan of everything, and what it leaves out is all that is left out.
    whole: bool,
    done: bool,
}

/// A directory on the way down.
struct Level {
    path: RelPath,
    children: HashMap<Name, i64>,
    /// Directories that are new in it, or were elsewhere.
    fresh: Vec<Name>,
}

struct Orphan {
    own: i64,
    /// Where its row still is.
    row: Option<(i64, Name)>,
}

/// A row that is not as the scan found it.
struct Old {
    node: Node,
    inode: Inode,
    own: Option<i64>,
    racy: bool,
    digest: Option<Digest>,
}

/// What is to be done about one name.
enum Finding<'s> {
    Vanished { name: Name, own: Option<i64>, inode: Inode },
    Appeared(&'s mut Seen),
    Differs(&'s mut Seen, Box<Old>),
}

impl Index {
    /// Begins to compare a scan, which began at `started`, with what is recorded. Files whose last change is
    /// then younger than their filesystem's clock can tell apart are looked at again by the next scan.
    ///
    /// # Errors
    /// The database fails.
    pub fn merge(&mut self, started: Timestamp) -> Result<Merge<'_>, IndexError> {
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let mut merge = Merge {
            index: self,
            started,
            first: 0,
            last: 0,
            entries: 0,
            dirty: false,
            levels: Vec::new(),
            confirmed: HashSet::new(),
            orphans: HashMap::new(),
            states: States::default(),
            left: Left::default(),
            current: None,
            shared: Shared::default(),
            whole: true,
            done: false,
        };
        merge.last = number(merge.index.position()?.sequence);
        merge.first = merge.last;
        merge.entries = merge.index.entries()?.cast_signed();
        Ok(merge)
    }
}

impl Merge<'_> {
    /// Takes in the next directory of the scan: its path, what it is itself, and what it holds, sorted by
    /// name. Directories come in path order. Extended attributes are asked for where something changed; those
    /// of the root itself are known.
    ///
    /// # Errors
    /// The database fails.
    pub fn directory(
        &mut self,
        path: &RelPath,
        itself: &Seen,
        entries: &mut [Seen],
        look: &mut dyn Look,
    ) -> Result<(), IndexError> {
        self.current = self.enter(path)?;
        let Some(dir) = self.current else { return Ok(()) };
        self.states.take_first(entries);
        if path.is_root() {
            self.root(itself)?;
        }
        let mut level = Level { path: path.clone(), children: HashMap::new(), fresh: Vec::new() };
        let findings = self.compare(dir, entries, &mut level)?;
        for finding in findings {
            self.take_in(dir, finding, &mut level, look)?;
        }
        self.levels.push(level);
        Ok(())
    }

    fn take_in(
        &mut self,
        dir: i64,
        finding: Finding<'_>,
        level: &mut Level,
        look: &mut dyn Look,
    ) -> Result<(), IndexError> {
        if !self.whole {
            self.shared.note(&finding);
        }
        match finding {
            Finding::Vanished { name, own: None, .. } => {
                let until = self.next();
                self.retire(dir, &name, until)
            }
            // Found under another name in this very directory.
            Finding::Vanished { own: Some(own), .. } if self.confirmed.contains(&own) => Ok(()),
            Finding::Vanished { name, own: Some(own), inode } => {
                let orphan = Orphan { own, row: Some((dir, name)) };
                self.orphans.entry((inode.dev, inode.ino)).or_default().push(orphan);
                Ok(())
            }
            Finding::Appeared(seen) => {
                ask(look, seen);
                self.appeared(dir, seen, level)
            }
            Finding::Differs(seen, old) => {
                ask(look, seen);
                self.differs(dir, seen, &old, level, look)
            }
        }
    }

    /// What was left out of the directory taken in last: the digest of its patterns, and files that are too large.
    pub fn left_out(&mut self, rules: Option<&Digest>, large: &[Name]) {
        let Some(dir) = self.current else { return };
        if let Some(digest) = rules {
            self.left.note_rules(dir, digest);
        }
        large.iter().for_each(|name| self.left.note_large(dir, name));
    }

    /// Where other filesystems are mounted now.
    pub fn mounted(&mut self, mounts: &BTreeSet<RelPath>) {
        self.left.note_mounts(mounts);
    }

    /// Ends the scan: what was not found is gone. Nothing is written if nothing changed.
    ///
    /// # Errors
    /// The database fails; then nothing has happened.
    pub fn finish(mut self, stamp: Stamp) -> Result<Summary, IndexError> {
        for orphan in std::mem::take(&mut self.orphans).into_values().flatten() {
            let until = self.next();
            if let Some((dir, name)) = orphan.row {
                self.retire(dir, &name, until)?;
            }
            self.bury(orphan.own, until)?;
        }
        if self.whole {
            let mut last = self.last;
            self.dirty |= self.left.keep(self.index, &mut || {
                last += 1;
                last
            })?;
            self.last = last;
        }
        let changes = (self.last - self.first).cast_unsigned();
        if changes > 0 {
            let mut note = self.index.db.prepare_cached("INSERT INTO stamps VALUES (?1, ?2, ?3)")?;
            note.execute(params![self.last, stamp.0.cast_signed(), self.entries])?;
            self.index.set("entries", self.entries)?;
        }
        self.index.db.execute_batch(if self.dirty { "COMMIT" } else { "ROLLBACK" })?;
        self.done = true;
        Ok(Summary { position: self.index.position()?, changes, entries: self.entries.cast_unsigned() })
    }

    fn next(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    /// The number of the directory `path`; `None` for one that its parent did not list.
    fn enter(&mut self, path: &RelPath) -> Result<Option<i64>, IndexError> {
        let Some((parent, name)) = path.split() else { return Ok(Some(self.index.root)) };
        while self.levels.last().is_some_and(|level| level.path != parent) {
            self.levels.pop();
        }
        Ok(self.levels.last().and_then(|level| level.children.get(name).copied()))
    }

    fn root(&mut self, itself: &Seen) -> Result<(), IndexError> {
        let state = row::state_of(&itself.node, &itself.inode);
        let (old, attributes): (Vec<u8>, Option<Vec<u8>>) =
            self.index.db.query_row("SELECT state, attributes FROM entries WHERE dir = 0", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if old == state && attributes == row::attributes_of(&itself.node.meta.attributes) {
            return Ok(());
        }
        let visible = match row::entry_of(b"", &old, None, attributes.as_deref()) {
            Ok((node, _)) => node.meta != itself.node.meta,
            Err(_) => true,
        };
        self.update(0, itself, &state, Change { visible, content: false, racy: false, digest: None })
    }

    fn compare<'s>(
        &mut self,
        dir: i64,
        entries: &'s mut [Seen],
        level: &mut Level,
    ) -> Result<Vec<Finding<'s>>, IndexError> {
        let mut findings = Vec::new();
        let mut statement = self.index.db.prepare_cached(ROWS_OF_A_DIRECTORY)?;
        let mut rows = statement.query([dir])?;
        let mut seen = entries.iter_mut().peekable();
        while let Some(found) = rows.next()? {
            let name = found.get_ref(0)?.as_blob().map_err(|_| DAMAGED)?;
            while let Some(new) = seen.next_if(|seen| *seen.node.name < *name) {
                findings.push(Finding::Appeared(new));
            }
            let state = found.get_ref(1)?.as_blob().map_err(|_| DAMAGED)?;
            let own: Option<i64> = found.get(2)?;
            let Some(new) = seen.next_if(|seen| *seen.node.name == *name) else {
                let (_, inode) = row::entry_of(name, state, Some(b""), None)?;
                findings.push(Finding::Vanished { name: name.into(), own, inode });
                continue;
            };
            let racy: i64 = found.get(3)?;
            if racy == 0 && *state == row::state_of(&new.node, &new.inode) {
                if let Some(own) = own {
                    self.confirmed.insert(own);
                    level.children.insert(name.into(), own);
                }
                continue;
            }
            let target = found.get_ref(4)?.as_blob_or_null().map_err(|_| DAMAGED)?;
            let attributes = found.get_ref(6)?.as_blob_or_null().map_err(|_| DAMAGED)?;
            let (node, inode) = row::entry_of(name, state, target, attributes)?;
            let digest = row::digest_of(found, 5)?;
            findings.push(Finding::Differs(new, Box::new(Old { node, inode, own, racy: racy != 0, digest })));
        }
        findings.extend(seen.map(Finding::Appeared));
        Ok(findings)
    }

    fn appeared(&mut self, dir: i64, seen: &Seen, level: &mut Level) -> Result<(), IndexError> {
        let at = self.next();
        let own = match seen.node.kind {
            Kind::Directory => {
                let own = match self.claim(&seen.inode, at)? {
                    Some(own) => own,
                    None => self.fresh_number()?,
                };
                self.confirmed.insert(own);
                level.children.insert(seen.node.name.clone(), own);
                level.fresh.push(seen.node.name.clone());
                Some(own)
            }
            _ => None,
        };
        self.insert(dir, seen, own, at)
    }

    fn differs(
        &mut self,
        dir: i64,
        seen: &Seen,
        old: &Old,
        level: &mut Level,
        look: &mut dyn Look,
    ) -> Result<(), IndexError> {
        let same_inode = (old.inode.dev, old.inode.ino) == (seen.inode.dev, seen.inode.ino);
        let is_directory = seen.node.kind.is_directory();
        if old.own.is_some_and(|own| self.confirmed.contains(&own)) {
            // The directory that was here was found under another name in this very directory.
            return self.appeared(dir, seen, level);
        }
        if !old.node.kind.same_type(&seen.node.kind) || (is_directory && !same_inode) {
            let at = self.next();
            self.retire(dir, &seen.node.name, at)?;
            if let Some(own) = old.own {
                let orphan = Orphan { own, row: None };
                self.orphans.entry((old.inode.dev, old.inode.ino)).or_default().push(orphan);
            }
            self.last -= 1;
            return self.appeared(dir, seen, level);
        }
        if let (true, Some(own)) = (is_directory, old.own) {
            self.confirmed.insert(own);
            level.children.insert(seen.node.name.clone(), own);
        }
        let change = self.judge(seen, old, same_inode, look);
        let state = row::state_of(&seen.node, &seen.inode);
        let as_it_was = !change.visible && old.racy == change.racy && old.digest == change.digest;
        if as_it_was && state == row::state_of(&old.node, &old.inode) {
            return Ok(());
        }
        self.update(dir, seen, &state, change)
    }

    /// What became of an entry that is of the kind that it was.
    fn judge(&self, seen: &Seen, old: &Old, same_inode: bool, look: &mut dyn Look) -> Change {
        let (new, before) = (&seen.node, &old.node);
        let meta = new.meta != before.meta;
        let racy = self.is_racy(seen);
        match &new.kind {
            Kind::Directory => Change { visible: meta, content: false, racy, digest: None },
            Kind::Symlink { .. } | Kind::Special(_) => {
                let content = new.kind != before.kind;
                Change { visible: content || meta, content, racy, digest: None }
            }
            Kind::File { .. } => {
                let differs = new.kind.size_bytes() != before.kind.size_bytes() || new.meta.mtime != before.meta.mtime;
                if differs {
                    return Change { visible: true, content: true, racy, digest: None };
                }
                let shared = seen.inode.shared != old.inode.shared;
                // A change of mode, owner or number of names explains a new ctime; else someone may have
                // written and put the time back.
                let explained = same_inode && (seen.inode.ctime == old.inode.ctime || meta || shared);
                if explained && !old.racy {
                    return Change { visible: meta || shared, content: false, racy, digest: old.digest };
                }
                let digest = look.content(seen);
                let content = digest.is_none() || digest != old.digest;
                Change { visible: content || meta || shared || !same_inode, content, racy, digest }
            }
        }
    }

    fn is_racy(&self, seen: &Seen) -> bool {
        let ctime = seen.inode.ctime;
        let tick = if ctime.nanos == 0 { COARSE_TICK_NANOS } else { TICK_NANOS };
        nanos(ctime) + tick >= nanos(self.started)
    }

    /// The number of a directory that was elsewhere and has not been found there; its row there goes.
    fn claim(&mut self, inode: &Inode, at: i64) -> Result<Option<i64>, IndexError> {
        if let Some(orphan) = self.orphans.get_mut(&(inode.dev, inode.ino)).and_then(Vec::pop) {
            if let Some((dir, name)) = orphan.row {
                self.retire(dir, &name, at)?;
            }
            return Ok(Some(orphan.own));
        }
        let found = {
            let mut statement = self.index.db.prepare_cached(
                "SELECT dir, name, state, own, target, attributes FROM entries WHERE inode = ?1 AND own IS NOT NULL AND dir > 0",
            )?;
            let mut rows = statement.query([inode.ino.cast_signed()])?;
            let mut found = None;
            while let (Some(row), None) = (rows.next()?, &found) {
                let version = row::version_of(row)?;
                let own = version.own.map_or(0, |own| own.0);
                if version.inode.dev == inode.dev && !self.confirmed.contains(&own) {
                    found = Some((own, version.dir.0, version.node.name));
                }
            }
            found
        };
        let Some((own, dir, name)) = found else { return Ok(None) };
        self.retire(dir, &name, at)?;
        Ok(Some(own))
    }

    fn fresh_number(&self) -> Result<i64, IndexError> {
        let last: i64 = self.index.get("last_directory")?.unwrap_or(self.index.root);
        self.index.set("last_directory", last + 1)?;
        Ok(last + 1)
    }

    fn insert(&mut self, dir: i64, seen: &Seen, own: Option<i64>, at: i64) -> Result<(), IndexError> {
        self.dirty = true;
        self.index.note_acls(&seen.node.meta)?;
        self.entries += 1;
        let mut statement = self.index.db.prepare_cached(
            "INSERT INTO entries (dir, name, state, own, inode, target, sequence, content, racy, attributes) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9)",
        )?;
        let inode = row::inode_key(&seen.node, &seen.inode);
        let state = row::state_of(&seen.node, &seen.inode);
        let target = target_of(&seen.node);
        let (racy, attributes) = (self.is_racy(seen), row::attributes_of(&seen.node.meta.attributes));
        statement.execute(params![dir, &*seen.node.name, state, own, inode, target, at, racy, attributes])?;
        Ok(())
    }

    fn update(&mut self, dir: i64, seen: &Seen, state: &State, change: Change) -> Result<(), IndexError> {
        self.dirty = true;
        self.index.note_acls(&seen.node.meta)?;
        if change.visible {
            let until = self.next();
            self.remember(dir, &seen.node.name, until)?;
        }
        let mut statement = self.index.db.prepare_cached(
            "UPDATE entries SET state = ?3, inode = ?4, target = ?5, racy = ?6, digest = ?7, attributes = ?11, \
             sequence = iif(?8, ?10, sequence), content = iif(?9, ?10, content) WHERE dir = ?1 AND name = ?2",
        )?;
        let inode = row::inode_key(&seen.node, &seen.inode);
        let digest = change.digest.map(|digest| digest.0);
        statement.execute(params![
            dir,
            &*seen.node.name,
            state,
            inode,
            target_of(&seen.node),
            change.racy,
            digest,
            change.visible,
            change.content,
            self.last,
            row::attributes_of(&seen.node.meta.attributes),
        ])?;
        Ok(())
    }

    /// Keeps what an entry is until `until`.
    fn remember(&mut self, dir: i64, name: &[u8], until: i64) -> Result<(), IndexError> {
        let mut statement = self.index.db.prepare_cached(
            "INSERT INTO past SELECT ?3, sequence, dir, name, state, own, target, digest, attributes FROM entries \
             WHERE dir = ?1 AND name = ?2",
        )?;
        statement.execute(params![dir, name, until])?;
        Ok(())
    }

    /// Takes an entry away; what it was is kept.
    fn retire(&mut self, dir: i64, name: &[u8], until: i64) -> Result<(), IndexError> {
        self.dirty = true;
        self.remember(dir, name, until)?;
        let mut statement = self.index.db.prepare_cached("DELETE FROM entries WHERE dir = ?1 AND name = ?2")?;
        self.entries -= i64::try_from(statement.execute(params![dir, name])?).unwrap_or(0);
        Ok(())
    }

    /// Takes away everything in the directory `own`.
    fn bury(&mut self, own: i64, until: i64) -> Result<(), IndexError> {
        let mut ahead = vec![own];
        while let Some(dir) = ahead.pop() {
            let mut below =
                self.index.db.prepare_cached("SELECT own FROM entries WHERE dir = ?1 AND own IS NOT NULL")?;
            for own in below.query_map([dir], |row| row.get(0))? {
                ahead.push(own?);
            }
            let mut keep = self.index.db.prepare_cached(
                "INSERT INTO past SELECT ?2, sequence, dir, name, state, own, target, digest, attributes FROM entries WHERE dir = ?1",
            )?;
            keep.execute(params![dir, until])?;
            let mut delete = self.index.db.prepare_cached("DELETE FROM entries WHERE dir = ?1")?;
            self.entries -= i64::try_from(delete.execute([dir])?).unwrap_or(0);
            self.dirty = true;
        }
        Ok(())
    }
}

impl Drop for Merge<'_> {
    fn drop(&mut self) {
        if !self.done {
            // If this fails, so does the next thing that is tried.
            let _ = self.index.db.execute_batch("ROLLBACK");
        }
    }
}

/// Asks for the attributes of an entry. One that cannot be asked is recorded with a time of change that it never had.
fn ask(look: &mut dyn Look, seen: &mut Seen) {
    match look.attributes(seen) {
        Some(attributes) => seen.node.meta.attributes = attributes,
        None => seen.inode.ctime = Timestamp::default(),
    }
}

fn nanos(time: Timestamp) -> i128 {
    i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos)
}

/// What became of an entry.
struct Change {
    /// Hosts are to be told.
    visible: bool,
    /// The content is another one.
    content: bool,
    racy: bool,
    digest: Option<Digest>,
}

const DAMAGED: IndexError = IndexError::Damaged("a column is not of the type that was written");

fn target_of(node: &Node) -> Option<&[u8]> {
    match &node.kind {
        Kind::Symlink { target } => Some(target),
        _ => None,
    }
}
