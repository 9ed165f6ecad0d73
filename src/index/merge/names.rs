//! Single names against what is recorded, for whoever knows where something happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::params;

use super::super::row;
use super::super::{Index, IndexError};
use super::{DAMAGED, Finding, Level, Look, Merge, Old};
use crate::model::{DirectoryId, Inode, Name, RelPath, Seen, Timestamp};

/// What a look at some names of a directory leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Directories that are new here: each is to be taken in with all below it before other names are.
    pub fresh: Vec<Name>,
    /// Directories that are no longer here.
    pub gone: Vec<Name>,
    /// Other names of files that were looked at under one of several: they are to be looked at as well.
    pub related: BTreeSet<RelPath>,
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
            let shared = seen.as_ref().filter(|seen| seen.inode.shared).map(|seen| seen.inode);
            let Some((finding, before)) = self.compare_name(dir, name, seen.as_mut())? else { continue };
            for inode in [shared, before.filter(|inode| inode.shared)].into_iter().flatten() {
                taken.related.extend(self.names_of(inode)?);
            }
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

    /// What is to be done about one name, and the inode that is recorded for it.
    fn compare_name<'s>(
        &self,
        dir: i64,
        name: &Name,
        seen: Option<&'s mut Seen>,
    ) -> Result<Option<(Finding<'s>, Option<Inode>)>, IndexError> {
        let mut statement = self.index.db.prepare_cached(
            "SELECT state, own, racy, target, digest, attributes FROM entries WHERE dir = ?1 AND name = ?2",
        )?;
        let mut rows = statement.query(params![dir, &**name])?;
        let Some(found) = rows.next()? else {
            return Ok(seen.map(|seen| (Finding::Appeared(seen), None)));
        };
        let state = found.get_ref(0)?.as_blob().map_err(|_| DAMAGED)?;
        let own: Option<i64> = found.get(1)?;
        let racy: i64 = found.get(2)?;
        let Some(new) = seen else {
            let (_, inode) = row::entry_of(name, state, Some(b""), None)?;
            let own = own.map(|own| (own, inode));
            return Ok(Some((Finding::Vanished { name: name.clone(), own }, Some(inode))));
        };
        if racy == 0 && *state == row::state_of(&new.node, &new.inode) {
            return Ok(None);
        }
        let target = found.get_ref(3)?.as_blob_or_null().map_err(|_| DAMAGED)?;
        let attributes = found.get_ref(5)?.as_blob_or_null().map_err(|_| DAMAGED)?;
        let (node, inode) = row::entry_of(name, state, target, attributes)?;
        let digest = row::digest_of(found, 4)?;
        let old = Old { node, inode, own, racy: racy != 0, digest };
        Ok(Some((Finding::Differs(new, Box::new(old)), Some(inode))))
    }

    /// The recorded names of a file.
    fn names_of(&self, inode: Inode) -> Result<Vec<RelPath>, IndexError> {
        let mut statement = self.index.db.prepare_cached(
            "SELECT dir, name, state, own, target, attributes FROM entries WHERE inode = ?1 AND own IS NULL AND dir > 0",
        )?;
        let mut rows = statement.query([inode.ino.cast_signed()])?;
        let mut names = Vec::new();
        while let Some(found) = rows.next()? {
            let version = row::version_of(found)?;
            if version.inode.dev == inode.dev {
                names.push(self.index.path_of(DirectoryId(version.dir.0), &version.node.name)?);
            }
        }
        Ok(names)
    }
}
