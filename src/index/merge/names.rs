//! Single names against what is recorded, for whoever knows where something happened.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::{Rows, params};

use super::super::row;
use super::super::{Index, IndexError};
use super::{Change, DAMAGED, Finding, Level, Look, Merge, Old, ask};
use crate::model::{DirectoryId, Inode, Name, Node, RelPath, Seen, Timestamp};

/// What a look at some names of a directory leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Directories that are new here: each is to be taken in with all below it before other names are.
    pub fresh: Vec<Name>,
    /// Directories that are no longer here.
    pub gone: Vec<Name>,
    /// A name is neither here nor recorded: whatever it was has come and gone.
    pub passed: bool,
}

/// Device and inode number.
type FileId = (u64, u64);

/// Files that have several names, or had, of which one was not as it is recorded. What was done by that name bears on
/// the others, of which the kernel tells nothing.
#[derive(Debug, Default)]
pub(super) struct Shared {
    changed: HashSet<FileId>,
    /// Those of them that got a name: they may have had a single one so far.
    linked: HashSet<FileId>,
    /// Directories that are gone whose files have been noted.
    buried: HashSet<i64>,
}

impl Shared {
    pub(super) fn note(&mut self, finding: &Finding<'_>) {
        let (before, now) = match finding {
            Finding::Vanished { inode, .. } => (Some(*inode), None),
            Finding::Appeared(seen) => (None, Some(seen.inode)),
            Finding::Differs(seen, old) => (Some(old.inode), Some(seen.inode)),
        };
        let file = |inode: Option<Inode>| inode.filter(|inode| inode.shared).map(|inode| (inode.dev, inode.ino));
        self.changed.extend(file(before));
        self.changed.extend(file(now));
        let same = before.is_some_and(|before| now.is_some_and(|now| (before.dev, before.ino) == (now.dev, now.ino)));
        if !same {
            self.linked.extend(file(now));
        }
    }
}

/// One name against its row.
enum Compared<'s> {
    /// Neither is there.
    Nothing,
    /// They are the same; of a directory, its number.
    Same(Option<i64>),
    /// What is to be done.
    Found(Finding<'s>),
}

impl Index {
    /// Begins to take in looks at single names at the time `started`; see [`Index::merge`]. What is not looked at
    /// stays as it is recorded.
    ///
    /// # Errors
    /// The database fails.
    pub fn merge_names(&mut self, started: Timestamp) -> Result<Merge<'_>, IndexError> {
        let mut merge = self.merge(started)?;
        merge.whole = false;
        Ok(merge)
    }
}

impl Merge<'_> {
    /// Takes in what the root itself is.
    ///
    /// # Errors
    /// The database fails.
    pub fn root_itself(&mut self, itself: &Seen) -> Result<(), IndexError> {
        self.root(itself)
    }

    /// Takes in some names of the directory `path`, each with what is there; `None` if the directory is not recorded:
    /// then its own name is to be looked at first.
    ///
    /// # Errors
    /// The database fails.
    pub fn names(
        &mut self,
        path: &RelPath,
        names: &mut [(Name, Option<Seen>)],
        look: &mut dyn Look,
    ) -> Result<Option<Taken>, IndexError> {
        let mut known = BTreeMap::from([(RelPath::root(), (self.index.root, self.index.root_meta()?))]);
        let Some((dir, _)) = self.index.find_directory(path, &mut known)? else { return Ok(None) };
        let mut taken = Taken::default();
        let mut level = Level { path: path.clone(), children: HashMap::new(), fresh: Vec::new() };
        for (name, seen) in names {
            if let Some(seen) = seen {
                self.states.take_first(std::slice::from_mut(seen));
            }
            let is_directory = seen.as_ref().is_some_and(|seen| seen.node.kind.is_directory());
            let finding = match self.compare_name(dir, name, seen.as_mut())? {
                Compared::Nothing => {
                    taken.passed = true;
                    continue;
                }
                Compared::Same(own) => {
                    if let Some(own) = own.filter(|_| is_directory) {
                        // Whoever knows better than its own attributes tell lists it.
                        self.confirmed.insert(own);
                        level.children.insert(name.clone(), own);
                    }
                    continue;
                }
                Compared::Found(finding) => finding,
            };
            if let Finding::Vanished { own: Some(_), .. } = &finding {
                taken.gone.push(name.clone());
            }
            if let Finding::Differs(seen, old) = &finding
                && old.own.is_some()
                && (old.inode.dev, old.inode.ino) != (seen.inode.dev, seen.inode.ino)
            {
                taken.gone.push(name.clone());
            }
            self.take_in(dir, finding, &mut level, look)?;
        }
        taken.fresh = std::mem::take(&mut level.fresh);
        self.levels.clear();
        self.levels.push(level);
        Ok(Some(taken))
    }

    /// Takes in what the directory `path` is itself by a later look than the one that found it: what came in between
    /// is in it, and nobody tells of that.
    ///
    /// # Errors
    /// The database fails.
    pub fn directory_itself(&mut self, path: &RelPath, seen: &Seen, look: &mut dyn Look) -> Result<(), IndexError> {
        let Some((parent, name)) = path.split() else { return self.root(seen) };
        let mut known = BTreeMap::from([(RelPath::root(), (self.index.root, self.index.root_meta()?))]);
        let Some((dir, _)) = self.index.find_directory(&parent, &mut known)? else { return Ok(()) };
        let mut seen = Seen { node: Node { name: name.into(), ..seen.node.clone() }, inode: seen.inode };
        let name = seen.node.name.clone();
        let inode = (seen.inode.dev, seen.inode.ino);
        let Compared::Found(Finding::Differs(seen, old)) = self.compare_name(dir, &name, Some(&mut seen))? else {
            return Ok(());
        };
        if (old.inode.dev, old.inode.ino) != inode {
            // Another has its place by now, which is news of its own.
            return Ok(());
        }
        ask(look, seen);
        let change =
            Change { visible: seen.node.meta != old.node.meta, content: false, racy: self.is_racy(seen), digest: None };
        let state = row::state_of(&seen.node, &seen.inode);
        self.update(dir, seen, &state, change)
    }

    /// What is to be done about one name.
    fn compare_name<'s>(&self, dir: i64, name: &Name, seen: Option<&'s mut Seen>) -> Result<Compared<'s>, IndexError> {
        let mut statement = self.index.db.prepare_cached(
            "SELECT state, own, racy, target, digest, attributes FROM entries WHERE dir = ?1 AND name = ?2",
        )?;
        let mut rows = statement.query(params![dir, &**name])?;
        let Some(found) = rows.next()? else {
            return Ok(seen.map_or(Compared::Nothing, |seen| Compared::Found(Finding::Appeared(seen))));
        };
        let state = found.get_ref(0)?.as_blob().map_err(|_| DAMAGED)?;
        let own: Option<i64> = found.get(1)?;
        let racy: i64 = found.get(2)?;
        let Some(new) = seen else {
            let (_, inode) = row::entry_of(name, state, Some(b""), None)?;
            return Ok(Compared::Found(Finding::Vanished { name: name.clone(), own, inode }));
        };
        if racy == 0 && *state == row::state_of(&new.node, &new.inode) {
            return Ok(Compared::Same(own));
        }
        let target = found.get_ref(3)?.as_blob_or_null().map_err(|_| DAMAGED)?;
        let attributes = found.get_ref(5)?.as_blob_or_null().map_err(|_| DAMAGED)?;
        let (node, inode) = row::entry_of(name, state, target, attributes)?;
        let digest = row::digest_of(found, 4)?;
        let old = Old { node, inode, own, racy: racy != 0, digest };
        Ok(Compared::Found(Finding::Differs(new, Box::new(old))))
    }

    /// The recorded names of files of which another name was not as recorded, as far as they are in directories that
    /// are still there. What was told once is not told again.
    ///
    /// # Errors
    /// The database fails.
    pub fn other_names(&mut self) -> Result<BTreeSet<RelPath>, IndexError> {
        self.note_buried()?;
        let changed = std::mem::take(&mut self.shared.changed);
        let linked = std::mem::take(&mut self.shared.linked);
        let mut found = BTreeSet::new();
        let mut by_inode = self
            .index
            .db
            .prepare_cached("SELECT dir, name, state FROM entries WHERE inode = ?1 AND own IS NULL AND dir > 0")?;
        for (_, ino) in &changed {
            let mut rows = by_inode.query([ino.cast_signed()])?;
            self.keep_names(&mut rows, &changed, &mut found)?;
        }
        if !linked.is_empty() {
            // A file that had one name when it was recorded is only found by going through all of them.
            let mut single = self.index.db.prepare_cached(
                "SELECT dir, name, state FROM entries WHERE inode IS NULL AND substr(state, 1, 1) = x'66'",
            )?;
            let mut rows = single.query([])?;
            self.keep_names(&mut rows, &linked, &mut found)?;
        }
        Ok(found)
    }

    /// Notes the files in directories that are gone, or not found again yet.
    fn note_buried(&mut self) -> Result<(), IndexError> {
        let mut ahead: Vec<i64> = self.orphans.values().flatten().map(|orphan| orphan.own).collect();
        let mut below =
            self.index.db.prepare_cached("SELECT own, state FROM entries WHERE dir = ?1 AND inode NOT NULL")?;
        while let Some(dir) = ahead.pop() {
            if !self.shared.buried.insert(dir) {
                continue;
            }
            let mut rows = below.query([dir])?;
            while let Some(row) = rows.next()? {
                match row.get::<_, Option<i64>>(0)? {
                    Some(own) => ahead.push(own),
                    None => {
                        let state = row.get_ref(1)?.as_blob().map_err(|_| DAMAGED)?;
                        self.shared.changed.insert(row::file_of(state)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn keep_names(
        &self,
        rows: &mut Rows<'_>,
        files: &HashSet<FileId>,
        found: &mut BTreeSet<RelPath>,
    ) -> Result<(), IndexError> {
        while let Some(row) = rows.next()? {
            let state = row.get_ref(2)?.as_blob().map_err(|_| DAMAGED)?;
            if files.contains(&row::file_of(state)?) {
                let name = row.get_ref(1)?.as_blob().map_err(|_| DAMAGED)?;
                // What lies in a directory that is gone goes with it.
                found.extend(self.index.path_of_known(DirectoryId(row.get(0)?), name)?);
            }
        }
        Ok(())
    }
}
