//! Listings and places of what is there now.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{OptionalExtension, Transaction, params};

use super::row;
use super::{Index, IndexError};
use crate::model::{
    AclName, Digest, DirListing, DirectoryId, FileId, Inode, Kind, Meta, Name, Node, Place, RelPath, Seen,
};

const BAD_NAME: IndexError = IndexError::Damaged("it holds a name that cannot be");

/// Names of one file: the directory, and the name in it.
type Names = Vec<(RelPath, Name)>;

/// The names of each file that has several, in the order of a listing; the first of them is its first name.
#[derive(Debug, Default)]
pub struct SharedFiles(HashMap<FileId, Names>);

impl SharedFiles {
    /// The first name of the file, if `name` in `dir` is another one.
    fn link(&self, node: &Node, inode: &Inode, dir: &RelPath) -> Result<Option<Box<RelPath>>, IndexError> {
        let Some((first_dir, first)) = self.0.get(&FileId::of(node, inode)).and_then(|names| names.first()) else {
            return Ok(None);
        };
        if first_dir == dir && *first == node.name {
            return Ok(None);
        }
        Ok(Some(Box::new(first_dir.join(first).map_err(|_| BAD_NAME)?)))
    }

    /// The directories that hold other names of the files in `dirs`.
    pub fn related(&self, dirs: &BTreeSet<RelPath>) -> BTreeSet<RelPath> {
        let groups = self.0.values().filter(|names| names.iter().any(|(dir, _)| dirs.contains(dir)));
        groups.flatten().map(|(dir, _)| dir.clone()).collect()
    }
}

impl Index {
    /// All files that have several names.
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn shared_files(&self) -> Result<SharedFiles, IndexError> {
        let mut places = Paths::default();
        let mut files: HashMap<FileId, Names> = HashMap::new();
        let mut statement = self.db.prepare_cached(
            "SELECT dir, name, state, own, target, attributes FROM entries WHERE inode IS NOT NULL AND own IS NULL",
        )?;
        let mut rows = statement.query([])?;
        while let Some(found) = rows.next()? {
            let version = row::version_of(found)?;
            let dir = places.of(self, version.dir)?;
            files.entry(FileId::of(&version.node, &version.inode)).or_default().push((dir, version.node.name));
        }
        files.values_mut().for_each(|names| names.sort());
        Ok(SharedFiles(files))
    }

    /// Remembers whom the ACLs in `meta` name.
    pub(super) fn note_acls(&self, meta: &Meta) -> Result<(), IndexError> {
        for name in meta.attributes.named() {
            let (is_group, id) = match name {
                AclName::User(id) => (false, id),
                AclName::Group(id) => (true, id),
            };
            let mut note = self.db.prepare_cached("INSERT OR IGNORE INTO acl_names VALUES (?1, ?2)")?;
            note.execute(params![is_group, id])?;
        }
        Ok(())
    }

    /// Users and groups that ACLs name, or did.
    ///
    /// # Errors
    /// The database fails.
    pub fn acl_names(&self) -> Result<Vec<AclName>, IndexError> {
        let mut statement = self.db.prepare_cached("SELECT is_group, id FROM acl_names")?;
        let names = statement.query_map([], |row| {
            let id = row.get(1)?;
            Ok(if row.get(0)? { AclName::Group(id) } else { AclName::User(id) })
        })?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    /// Gives every directory, in path order, to `visit`.
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn each_directory(&self, shared: &SharedFiles, visit: &mut dyn FnMut(DirListing)) -> Result<(), IndexError> {
        let _reading = self.reading()?;
        let mut ahead = vec![(RelPath::root(), self.root, self.root_meta()?)];
        while let Some((path, own, meta)) = ahead.pop() {
            let (listing, below) = self.directory(path, own, meta, shared)?;
            let below = below.into_iter().rev().map(|(at, own)| {
                let node = &listing.nodes[at];
                Ok((listing.path.join(&node.name).map_err(|_| BAD_NAME)?, own, node.meta.clone()))
            });
            ahead.extend(below.collect::<Result<Vec<_>, IndexError>>()?);
            visit(listing);
        }
        Ok(())
    }

    /// The directories `paths` (sorted) that are there, with all that they hold.
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn directories(&self, paths: &BTreeSet<RelPath>, shared: &SharedFiles) -> Result<Vec<DirListing>, IndexError> {
        let _reading = self.reading()?;
        let mut known: BTreeMap<RelPath, (i64, Meta)> = BTreeMap::new();
        known.insert(RelPath::root(), (self.root, self.root_meta()?));
        let mut listings = Vec::new();
        for path in paths {
            let Some((own, meta)) = self.find_directory(path, &mut known)? else { continue };
            let (mut listing, _) = self.directory(path.clone(), own, meta, shared)?;
            // All of these are held at a time.
            listing.nodes.shrink_to_fit();
            listings.push(listing);
        }
        Ok(listings)
    }

    /// One transaction for many statements that only read: each would lock the database anew.
    fn reading(&self) -> Result<Option<Transaction<'_>>, IndexError> {
        let is_free = self.db.is_autocommit();
        Ok(is_free.then(|| self.db.unchecked_transaction()).transpose()?)
    }

    /// Keeps the digest of a file that was read whole, if it is the one that is recorded. If it is not, hosts have
    /// something else under this name than is recorded, and under its other names. The next scan may not see that:
    /// the name, or its directory, may have become another's only while it was read. So it is taken as changed then.
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn note_digests(&self, readings: &[(RelPath, Seen, Digest)]) -> Result<(), IndexError> {
        let transaction = self.db.unchecked_transaction()?;
        let mut known: BTreeMap<RelPath, (i64, Meta)> = BTreeMap::new();
        known.insert(RelPath::root(), (self.root, self.root_meta()?));
        // What was doubted once in a push is doubted until the next scan.
        let mut one = self.db.prepare_cached(
            "UPDATE entries SET digest = ?4 WHERE dir = ?1 AND name = ?2 AND state = ?3 AND digest IS NOT ?5",
        )?;
        let mut all = self.db.prepare_cached(
            "UPDATE entries SET digest = ?3 WHERE inode = ?1 AND own IS NULL AND state = ?2 AND digest IS NOT ?4",
        )?;
        for (path, seen, digest) in readings {
            let Some((parent, name)) = path.split() else { continue };
            let Some((dir, _)) = self.find_directory(&parent, &mut known)? else { continue };
            let state = row::state_of(&seen.node, &seen.inode);
            if one.execute(params![dir, name, state, digest.0, row::DOUBT.0])? == 0 {
                self.distrust(dir, name)?;
            } else if seen.inode.shared {
                all.execute(params![seen.inode.ino.cast_signed(), state, digest.0, row::DOUBT.0])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// The numbers of the directories at `paths`, as far as they are there.
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn directory_ids(&self, paths: &BTreeSet<RelPath>) -> Result<HashMap<RelPath, DirectoryId>, IndexError> {
        let mut known: BTreeMap<RelPath, (i64, Meta)> = BTreeMap::new();
        known.insert(RelPath::root(), (self.root, self.root_meta()?));
        let mut ids = HashMap::new();
        for path in paths {
            if let Some((dir, _)) = self.find_directory(path, &mut known)? {
                ids.insert(path.clone(), DirectoryId(dir));
            }
        }
        Ok(ids)
    }

    /// Has the next look at these files take what is there as changed: it could not be sent as it is recorded. Returns
    /// where they are by now.
    ///
    /// # Errors
    /// The database fails or is damaged.
    pub fn distrust_all(&self, files: &[(DirectoryId, Name)]) -> Result<Vec<RelPath>, IndexError> {
        let transaction = self.db.unchecked_transaction()?;
        let mut places = Vec::new();
        for (dir, name) in files {
            self.distrust(dir.0, name)?;
            places.extend(self.path_of_known(*dir, name)?);
        }
        transaction.commit()?;
        Ok(places)
    }

    /// Has the next scan take the content of an entry as changed, under all names of the file, and whatever comes
    /// in their places then.
    fn distrust(&self, dir: i64, name: &[u8]) -> Result<(), IndexError> {
        let mut one =
            self.db.prepare_cached("UPDATE entries SET digest = ?3, racy = 1 WHERE dir = ?1 AND name = ?2")?;
        one.execute(params![dir, name, row::DOUBT.0])?;
        let mut others = self.db.prepare_cached(
            "UPDATE entries SET digest = ?3, racy = 1 WHERE own IS NULL \
             AND inode = (SELECT inode FROM entries WHERE dir = ?1 AND name = ?2)",
        )?;
        others.execute(params![dir, name, row::DOUBT.0])?;
        Ok(())
    }

    pub(super) fn find_directory(
        &self,
        path: &RelPath,
        known: &mut BTreeMap<RelPath, (i64, Meta)>,
    ) -> Result<Option<(i64, Meta)>, IndexError> {
        if let Some(found) = known.get(path) {
            return Ok(Some(found.clone()));
        }
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let Some((dir, _)) = self.find_directory(&parent, known)? else { return Ok(None) };
        let mut statement = self.db.prepare_cached(
            "SELECT dir, name, state, own, target, attributes FROM entries WHERE dir = ?1 AND name = ?2 AND own IS NOT NULL",
        )?;
        let mut rows = statement.query(params![dir, name])?;
        let Some(found) = rows.next()? else { return Ok(None) };
        let version = row::version_of(found)?;
        let found = (version.own.map_or(0, |own| own.0), version.node.meta);
        known.insert(path.clone(), found.clone());
        Ok(Some(found))
    }

    /// One directory, and the positions and numbers of the directories in it.
    fn directory(
        &self,
        path: RelPath,
        own: i64,
        meta: Meta,
        shared: &SharedFiles,
    ) -> Result<(DirListing, Vec<(usize, i64)>), IndexError> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut below = Vec::new();
        let mut statement = self.db.prepare_cached(
            "SELECT dir, name, state, own, target, attributes FROM entries WHERE dir = ?1 ORDER BY name",
        )?;
        let mut rows = statement.query([own])?;
        while let Some(found) = rows.next()? {
            let mut version = row::version_of(found)?;
            if version.inode.shared {
                let first = shared.link(&version.node, &version.inode, &path)?;
                if let Kind::File { link, .. } = &mut version.node.kind {
                    *link = first;
                }
            }
            if let Some(own) = version.own {
                below.push((nodes.len(), own.0));
            }
            nodes.push(version.node);
        }
        Ok((DirListing { path, meta, nodes }, below))
    }

    /// The path of `name` in the directory `dir`.
    pub(super) fn path_of(&self, dir: DirectoryId, name: &[u8]) -> Result<RelPath, IndexError> {
        Paths::default().of(self, dir)?.join(name).map_err(|_| BAD_NAME)
    }

    /// As [`Index::path_of`]; `None` if the directory is no longer there.
    pub(super) fn path_of_known(&self, dir: DirectoryId, name: &[u8]) -> Result<Option<RelPath>, IndexError> {
        let mut names = vec![Name::from(name)];
        let mut at = Some(dir);
        while let Some(dir) = at {
            let Some(place) = self.place(dir)? else { return Ok(None) };
            if place.parent.is_some() {
                names.push(place.name);
            }
            at = place.parent;
        }
        let joined = names.iter().rev().try_fold(RelPath::root(), |path, name| path.join(name));
        Ok(Some(joined.map_err(|_| BAD_NAME)?))
    }

    pub(super) fn root_meta(&self) -> Result<Meta, IndexError> {
        let (state, attributes): (Vec<u8>, Option<Vec<u8>>) =
            self.db.query_row("SELECT state, attributes FROM entries WHERE dir = 0", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        Ok(row::entry_of(b"", &state, None, attributes.as_deref())?.0.meta)
    }

    /// Where the directory `own` is now; `None` if it is gone.
    pub(super) fn place(&self, own: DirectoryId) -> Result<Option<Place>, IndexError> {
        if own.0 == self.root {
            return Ok(Some(Place { parent: None, name: Name::default(), meta: self.root_meta()? }));
        }
        let mut statement =
            self.db.prepare_cached("SELECT dir, name, state, own, target, attributes FROM entries WHERE own = ?1")?;
        let found = statement.query_row([own.0], |found| Ok(row::version_of(found))).optional()?.transpose()?;
        Ok(found.map(|version| Place { parent: Some(version.dir), name: version.node.name, meta: version.node.meta }))
    }
}

/// Paths of directories by number, each looked up once.
#[derive(Default)]
struct Paths(HashMap<DirectoryId, RelPath>);

impl Paths {
    fn of(&mut self, index: &Index, own: DirectoryId) -> Result<RelPath, IndexError> {
        if let Some(path) = self.0.get(&own) {
            return Ok(path.clone());
        }
        let place = index.place(own)?.ok_or(IndexError::Damaged("an entry lies in a directory that is not there"))?;
        let path = match place.parent {
            None => RelPath::root(),
            Some(parent) => self.of(index, parent)?.join(&place.name).map_err(|_| BAD_NAME)?,
        };
        self.0.insert(own, path.clone());
        Ok(path)
    }
}
