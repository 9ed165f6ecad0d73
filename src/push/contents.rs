//! What the source holds, as plans need it: a listing in memory, or the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::index::{Index, IndexError, SharedFiles};
use crate::model::{
    Digest, DirListing, DirectoryId, Fidelity, Listing, ListingHasher, Meta, Name, Node, OwnerNames, Position, RelPath,
    Seen, Side, View,
};
use crate::payload::{Reading, Readings};
use crate::plan::{Destination, HistoryPlan, Item, Plan, PlanOptions, Runs, plan_changes};
use crate::tree::{ContentReader, Parents, Root, Scope, SystemOwners};

/// How much is read at a time of a file that was renamed.
const LOOK_BYTES: usize = 256 << 10;

/// The directories of the source, as receivers of one fidelity see them.
pub(super) struct Table {
    /// In path order.
    pub(super) directories: Vec<(RelPath, Digest)>,
    pub(super) whole: Digest,
    /// Files with several names; empty where the listing has them.
    shared: SharedFiles,
}

impl Table {
    fn digest(&self, path: &RelPath) -> Option<Digest> {
        let at = self.directories.binary_search_by(|(dir, _)| dir.cmp(path)).ok()?;
        Some(self.directories[at].1)
    }
}

/// A listing and the digests of its directories, one for each.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) listing: Arc<Listing>,
    pub(super) digests: Arc<Vec<Digest>>,
}

/// What the source holds.
pub(super) enum Contents {
    /// All of it, in memory.
    Listed(Arc<Listing>),
    /// By the index.
    Indexed(Indexed),
}

/// What the source holds by its index. Plans are made by what it held at one time: where others go on recording
/// meanwhile, a host would otherwise get more than it is said to have.
pub(super) struct Indexed {
    /// Where digests are noted.
    pub(super) index: Arc<Mutex<Index>>,
    /// Where plans are read from; the same one where nobody writes meanwhile.
    reader: Arc<Mutex<Index>>,
    /// What `reader` shows, while it is held there.
    frozen: Mutex<Option<Position>>,
    /// Names of all owners that occur.
    pub(super) names: OwnerNames,
    /// What a host had that had everything, when the source was looked at.
    pub(super) position: Position,
    /// What is left alone on the hosts.
    pub(super) scope: Arc<Scope>,
    listings: Mutex<Vec<(BTreeSet<RelPath>, Known)>>,
    histories: Mutex<Vec<Planned>>,
}

/// The point and the fidelity that a plan is for; `None` where there is none.
type Planned = (Position, Fidelity, Option<Arc<History>>);

/// A plan from history, shared by the hosts at one point.
pub(super) struct History {
    pub(super) listing: Arc<Listing>,
    pub(super) plan: Arc<Plan>,
}

impl Indexed {
    pub(super) fn new(index: Arc<Mutex<Index>>, names: OwnerNames, position: Position) -> Self {
        let (scope, reader) = (Arc::default(), Arc::clone(&index));
        let (frozen, listings, histories) = (Mutex::default(), Mutex::default(), Mutex::default());
        Indexed { index, reader, frozen, names, position, scope, listings, histories }
    }

    /// Reads by `reader`, which others do not have, from now on.
    ///
    /// # Errors
    /// The index fails.
    pub(super) fn read_by(mut self, reader: Arc<Mutex<Index>>) -> Result<Self, IndexError> {
        self.reader = reader;
        self.freeze()?;
        Ok(self)
    }

    /// Names of all owners, also of those that were recorded since the source was looked at.
    fn names_of<'m>(&self, metas: impl Iterator<Item = &'m Meta>) -> OwnerNames {
        let mut names = self.names.clone();
        if !self.is_alone() {
            let owners = SystemOwners::new();
            let mut last = None;
            for meta in metas {
                // Neighbours mostly have one owner: this spares two look-ups for each.
                let owner = (meta.uid, meta.gid);
                if last.replace(owner) != Some(owner) || !meta.attributes.is_empty() {
                    names.note(meta, &owners);
                }
            }
        }
        names
    }

    fn is_alone(&self) -> bool {
        Arc::ptr_eq(&self.reader, &self.index)
    }

    /// What a host will have by a plan that is made next.
    ///
    /// # Errors
    /// The index fails.
    pub(super) fn freeze(&self) -> Result<Position, IndexError> {
        if self.is_alone() {
            return Ok(self.position);
        }
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = *frozen {
            return Ok(position);
        }
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.histories.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let position = self.lock().freeze()?;
        *frozen = Some(position);
        Ok(position)
    }

    /// All plans are made: what is written need not be kept apart any more.
    pub(super) fn thaw(&self) {
        if !self.is_alone() {
            *self.frozen.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.lock().thaw();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Index> {
        // A panic in there leaves a transaction that was not committed.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, fidelity: Fidelity) -> Result<Table, IndexError> {
        let index = self.lock();
        let shared = index.shared_files()?;
        let view = View { fidelity, names: &self.names, side: Side::Primary };
        let mut whole = ListingHasher::default();
        let mut directories = Vec::new();
        index.each_directory(&shared, &mut |dir| {
            let digest = dir.digest(view);
            whole.add(&dir, &digest, view);
            directories.push((dir.path, digest));
        })?;
        Ok(Table { directories, whole: whole.finish(), shared })
    }

    fn listing(&self, table: &Table, wanted: BTreeSet<RelPath>) -> Result<Known, IndexError> {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = listings.iter().find(|(paths, _)| *paths == wanted) {
            return Ok(known.clone());
        }
        let dirs = self.lock().directories(&wanted, &table.shared)?;
        let names = self.names_of(dirs.iter().flat_map(|dir| &dir.nodes).map(|node| &node.meta));
        let listing = Listing { dirs: with_children(dirs), names };
        let digests = listing.dirs.iter().map(|dir| table.digest(&dir.path).unwrap_or(Digest([0; 32])));
        let known = Known { digests: Arc::new(digests.collect()), listing: Arc::new(listing) };
        listings.push((wanted, known.clone()));
        Ok(known)
    }

    /// The plan for hosts of `fidelity` that are at `from`; `None` where everything is to be compared.
    pub(super) fn history(
        &self,
        from: Position,
        fidelity: Fidelity,
        delete: bool,
        root: &Root,
    ) -> Result<Option<Arc<History>>, IndexError> {
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., known)) = histories.iter().find(|(at, of, _)| (*at, *of) == (from, fidelity)) {
            return Ok(known.clone());
        }
        let unbroken = self.lock().is_unbroken_since(from)?;
        let planned = match unbroken {
            true => {
                let changes = self.lock().changes_since(from)?;
                let excluded = |path: &RelPath, is_directory| self.scope.keeps(path, is_directory);
                let moves_along = |from: &RelPath, to: &RelPath| self.scope.moves_along(from, to);
                let options = PlanOptions { delete, fidelity, excluded: &excluded, moves_along: &moves_along };
                let names = self.names_of(changes.now.iter().chain(&changes.then).map(|version| &version.node.meta));
                plan_changes(&changes, names, &options)
            }
            false => None,
        };
        let history = planned.map(|HistoryPlan { listing, mut plan }| {
            confirm_reuses(&mut plan, &listing, root);
            Arc::new(History { listing: Arc::new(listing), plan: Arc::new(plan) })
        });
        histories.push((from, fidelity, history.clone()));
        Ok(history)
    }
}

/// Makes sure that files that were renamed were not written to as well, with their times put back: a look
/// at the own disk costs less than sending them.
fn confirm_reuses(plan: &mut Plan, listing: &Listing, root: &Root) {
    let mut parents = Parents::new(root);
    let mut buffer = vec![0; LOOK_BYTES];
    plan.confirm_reuses(&mut |reuse| {
        let path = reuse.step.entry.path(listing);
        let Ok(reader) = ContentReader::open(&mut parents, &path) else { return false };
        let same = (reader.size_bytes(), reader.meta().mtime) == (reuse.content.size_bytes, reuse.content.mtime);
        same && reader.digest(&mut buffer).is_ok_and(|digest| digest == reuse.digest)
    });
}

/// Adds to `dirs` the directories that they hold, without what those hold: their attributes belong to
/// what is compared.
fn with_children(dirs: Vec<DirListing>) -> Vec<DirListing> {
    let mut all: BTreeMap<RelPath, DirListing> = BTreeMap::new();
    for dir in dirs {
        for node in dir.nodes.iter().filter(|node| node.kind.is_directory()) {
            if let Ok(path) = dir.path.join(&node.name) {
                let stub = || DirListing { path: path.clone(), meta: node.meta.clone(), nodes: Vec::new() };
                all.entry(path.clone()).or_insert_with(stub);
            }
        }
        all.insert(dir.path.clone(), dir);
    }
    all.into_values().collect()
}

impl Contents {
    /// The directories as receivers of `fidelity` see them.
    ///
    /// # Errors
    /// The index fails.
    pub(super) fn table(&self, fidelity: Fidelity) -> Result<Table, IndexError> {
        match self {
            Contents::Indexed(indexed) => indexed.table(fidelity),
            Contents::Listed(listing) => {
                let (digests, whole) = listing.digests(fidelity);
                let directories = listing.dirs.iter().map(|dir| dir.path.clone()).zip(digests).collect();
                Ok(Table { directories, whole, shared: SharedFiles::default() })
            }
        }
    }

    /// What is to be compared with `destination`: at least the directories that differ.
    ///
    /// # Errors
    /// The index fails.
    pub(super) fn listing(
        &self,
        table: &Table,
        destination: &Destination,
        hidden: &[RelPath],
    ) -> Result<Known, IndexError> {
        match self {
            Contents::Listed(listing) => {
                let digests = table.directories.iter().map(|(_, digest)| *digest);
                Ok(Known { listing: Arc::clone(listing), digests: Arc::new(digests.collect()) })
            }
            Contents::Indexed(indexed) => indexed.listing(table, differing(table, destination, hidden)),
        }
    }

    /// Who keeps the digests of what is read of `items`. `unsent` is told where that is which could not be.
    pub(super) fn readings(
        &self,
        items: &Runs<Item>,
        listing: &Arc<Listing>,
        unsent: Option<mpsc::UnboundedSender<RelPath>>,
    ) -> Option<Box<dyn Readings>> {
        match self {
            Contents::Listed(_) => None,
            Contents::Indexed(indexed) => {
                let index = Arc::clone(&indexed.index);
                let planned = unsent.map(|unsent| PlannedFiles::new(indexed, items, listing, unsent));
                Some(Box::new(Keeper { index, waiting: Vec::new(), lost: Vec::new(), planned }))
            }
        }
    }

    /// Names of all owners that occur.
    pub(super) fn names(&self) -> &OwnerNames {
        match self {
            Contents::Listed(listing) => &listing.names,
            Contents::Indexed(indexed) => &indexed.names,
        }
    }

    /// What a host will have by a plan that is made next.
    ///
    /// # Errors
    /// The index fails.
    pub(super) fn freeze(&self) -> Result<Position, IndexError> {
        match self {
            Contents::Listed(_) => Ok(Position::default()),
            Contents::Indexed(indexed) => indexed.freeze(),
        }
    }

    /// All plans are made.
    pub(super) fn thaw(&self) {
        if let Contents::Indexed(indexed) = self {
            indexed.thaw();
        }
    }

    /// What a host had that had everything, when the source was looked at.
    pub(super) fn position(&self) -> Position {
        match self {
            Contents::Listed(_) => Position::default(),
            Contents::Indexed(indexed) => indexed.position,
        }
    }
}

/// Digests that wait to be kept.
const READINGS: usize = 4096;

/// Keeps the digests of what is read.
struct Keeper {
    index: Arc<Mutex<Index>>,
    waiting: Vec<(RelPath, Seen, Digest)>,
    lost: Vec<(DirectoryId, Name)>,
    /// Where others record what changes while files are read.
    planned: Option<PlannedFiles>,
}

/// Files as a plan has them.
struct PlannedFiles {
    listing: Arc<Listing>,
    /// Other names of files, by the first.
    links: HashMap<RelPath, Vec<RelPath>>,
    /// Numbers of their directories: these may be renamed while their files are read.
    ids: HashMap<RelPath, DirectoryId>,
    /// Told where that is which hosts did not get as it is recorded.
    unsent: mpsc::UnboundedSender<RelPath>,
}

impl PlannedFiles {
    fn new(
        indexed: &Indexed,
        items: &Runs<Item>,
        listing: &Arc<Listing>,
        unsent: mpsc::UnboundedSender<RelPath>,
    ) -> Self {
        let mut dirs: BTreeSet<RelPath> = items.iter().map(|item| item.entry.of(listing).0.path.clone()).collect();
        let mut links: HashMap<RelPath, Vec<RelPath>> = HashMap::new();
        for dir in &listing.dirs {
            for (node, first) in dir.nodes.iter().filter_map(|node| Some((node, node.kind.link()?))) {
                links.entry(first.clone()).or_default().extend(dir.path.join(&node.name));
                dirs.insert(dir.path.clone());
            }
        }
        // Without them nothing is found again before the next scan.
        let ids = indexed.lock().directory_ids(&dirs).unwrap_or_default();
        PlannedFiles { listing: Arc::clone(listing), links, ids, unsent }
    }

    /// Whether hosts got something else than was planned.
    fn differs(&self, path: &RelPath, seen: &Seen) -> bool {
        let node = path.split().and_then(|(dir, name)| {
            let nodes = &self.listing.dir(&dir)?.nodes;
            Some(&nodes[nodes.binary_search_by(|node| (*node.name).cmp(name)).ok()?])
        });
        let is_it = |node: &Node| {
            (node.kind.size_bytes(), node.meta.mtime) == (seen.node.kind.size_bytes(), seen.node.meta.mtime)
        };
        !node.is_some_and(is_it)
    }

    /// All names under which hosts have what they got for `path`.
    fn names(&self, path: &RelPath) -> Vec<(DirectoryId, Name)> {
        let others = self.links.get(path).into_iter().flatten();
        let place = |path: &RelPath| {
            let (dir, name) = path.split()?;
            Some((*self.ids.get(&dir)?, Name::from(name)))
        };
        std::iter::once(path).chain(others).filter_map(place).collect()
    }
}

impl Readings for Keeper {
    fn note(&mut self, reading: Reading) {
        if let Some(planned) = self.planned.as_ref().filter(|planned| planned.differs(&reading.path, &reading.seen)) {
            self.lost.extend(planned.names(&reading.path));
            return;
        }
        self.waiting.push((reading.path, reading.seen, reading.digest));
        if self.waiting.len() >= READINGS {
            self.keep();
        }
    }

    fn note_unsent(&mut self, path: &RelPath) {
        if let Some(planned) = &self.planned {
            self.lost.extend(planned.names(path));
        }
    }
}

impl Keeper {
    fn keep(&mut self) {
        let (waiting, lost) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.lost));
        if waiting.is_empty() && lost.is_empty() {
            return;
        }
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        // No host has what could not be sent as it is recorded: the next look takes it as changed.
        let noted = index.note_digests(&waiting).and_then(|()| index.distrust_all(&lost));
        if let (Ok(places), Some(planned)) = (&noted, &self.planned) {
            // Whoever does not listen any more does not look again.
            places.iter().for_each(|path| drop(planned.unsent.send(path.clone())));
        }
        if noted.is_err() {
            // It would not know what hosts have that is not what it says: built anew, it has them compared.
            index.mark_damaged();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.keep();
    }
}

/// The directories of the source that a plan has to look into: the root, those that differ or that the
/// host does not have, and those that hold other names of files in them.
fn differing(table: &Table, destination: &Destination, hidden: &[RelPath]) -> BTreeSet<RelPath> {
    let mut theirs = destination.directories.iter().peekable();
    let mut wanted = BTreeSet::from([RelPath::root()]);
    for (path, digest) in &table.directories {
        while theirs.next_if(|(dir, _)| dir < path).is_some() {}
        let same = theirs.peek().is_some_and(|(dir, their_digest)| dir == path && their_digest == digest);
        if !same || destination.listed.contains_key(path) {
            wanted.insert(path.clone());
        }
    }
    wanted.extend(hidden.iter().filter_map(|path| Some(path.split()?.0)));
    let nodes = destination.listed.values().flat_map(|dir| &dir.nodes);
    wanted.extend(nodes.filter_map(|node| Some(node.kind.link()?.split()?.0)));
    let related = table.shared.related(&wanted);
    wanted.extend(related);
    wanted
}

/// Tables by fidelity and by what they were read from, each made once.
#[derive(Default)]
pub(super) struct Tables(Mutex<HashMap<(Fidelity, Position), Arc<Table>>>);

impl Tables {
    pub(super) fn of(
        &self,
        contents: &Contents,
        fidelity: Fidelity,
        position: Position,
    ) -> Result<Arc<Table>, IndexError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = known.get(&(fidelity, position)) {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(contents.table(fidelity)?);
        known.insert((fidelity, position), Arc::clone(&table));
        Ok(table)
    }
}
