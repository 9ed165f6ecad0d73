//! What directories show becomes listings: what is left out goes, and what is told of it is collected.
//!
//! **Hard links.** The *first* name of a file is the first in listing order: directories in path
//! order, names within each. A walk that hands out each directory before those below it cannot
//! know names further down, and listing order is as much a property of the tree as path order
//! is, so two hosts with equal trees find equal links.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use super::attributes::{self, Found, attributes_of};
use super::beneath::Dir;
use super::links::Links;
use super::meta::Hold;
use super::read::{ContentReader, ReadError};
use super::scan::{ScanOptions, SeenDirectory};
use super::shown::{ListBuffer, Shown, list_buffer};
use super::way::{Way, reserved_problem};
use crate::model::{
    DirListing, Inode, Kind, MAX_PATH_BYTES, Meta, Name, Node, PathError, Problem, ProblemKind, RelPath, Seen,
    check_name,
};

/// Content is read in pieces of this size where digests are asked for.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Tries to get one answer about a file's content that keeps changing.
const TRIES: usize = 3;

/// Makes listings, in path order; its buffers are used again for each.
pub(super) struct Lister<'a> {
    options: ScanOptions<'a>,
    pub(super) way: Way,
    pub(super) list_buffer: ListBuffer,
    read_buffer: Vec<u8>,
    /// What is not known, as `ScanReport` has it.
    pub(super) unreadable: Vec<Problem>,
    /// Likewise.
    pub(super) problems: Vec<Problem>,
}

impl<'a> Lister<'a> {
    pub(super) fn new(options: ScanOptions<'a>) -> Self {
        Lister {
            options,
            way: Way::default(),
            list_buffer: list_buffer(),
            read_buffer: if options.checksum { vec![0; READ_BUFFER_BYTES] } else { Vec::new() },
            unreadable: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Takes in what `shown` has, and what it still has to show.
    ///
    /// # Errors
    /// It cannot be read to its end, or its patterns cannot be used.
    pub(super) fn list(&mut self, shown: &mut Shown, path: RelPath, links: &mut Links<'_>) -> io::Result<DirListing> {
        let mut meta = shown.stat.meta();
        self.way.enter(&path, shown, &mut self.problems)?;
        self.read_own_attributes(&shown.dir, &path, &mut meta);
        let mut nodes: Vec<Node> = Vec::new();
        // Few files have several names: their numbers are kept apart, so that nodes stay small to sort.
        let mut linked: HashMap<Name, Inode> = HashMap::new();
        while let Some(piece) = self.next_piece(shown, &path)? {
            nodes.reserve(piece.len());
            for Seen { mut node, inode } in piece {
                if self.options.attributes {
                    let found = attributes_of(&shown.dir, &node.name);
                    self.take_attributes(found, path.join(&node.name), &mut node.meta);
                }
                if inode.shared {
                    linked.insert(node.name.clone(), inode);
                }
                nodes.push(node);
            }
        }
        nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A name can come twice when its directory changes while it is listed.
        nodes.dedup_by(|a, b| a.name == b.name);
        if self.options.checksum || !linked.is_empty() {
            for node in &mut nodes {
                let inode = linked.get(&node.name);
                self.complete(&shown.dir, &path, node, inode, links);
            }
        }
        Ok(DirListing { path, meta, nodes })
    }

    /// As [`Lister::list`], for an index.
    ///
    /// # Errors
    /// As there.
    pub(super) fn survey(&mut self, shown: &mut Shown, path: RelPath) -> io::Result<SeenDirectory> {
        let mut itself = Node { name: Name::default(), kind: Kind::Directory, meta: shown.stat.meta() };
        let rules = self.way.enter(&path, shown, &mut self.problems)?;
        if path.is_root() {
            self.read_own_attributes(&shown.dir, &path, &mut itself.meta);
        }
        let mut entries: Vec<Seen> = Vec::new();
        while let Some(mut piece) = self.next_piece(shown, &path)? {
            if entries.is_empty() {
                entries = piece;
            } else {
                entries.append(&mut piece);
            }
        }
        entries.sort_unstable_by(|a, b| a.node.name.cmp(&b.node.name));
        // As in `list`.
        entries.dedup_by(|a, b| a.node.name == b.node.name);
        let large = std::mem::take(&mut self.way.large);
        Ok(SeenDirectory { path, itself: Seen { node: itself, inode: shown.stat.inode() }, entries, rules, large })
    }

    /// What is not left out of the next piece, each judged on its own, since a directory may hold any number of
    /// entries of which nearly all are left out; `None` at the end.
    fn next_piece(&mut self, shown: &mut Shown, path: &RelPath) -> io::Result<Option<Vec<Seen>>> {
        if shown.has_no_more() {
            if shown.is_whole {
                return Ok(None);
            }
            shown.read_on(&mut self.list_buffer)?;
        }
        if std::mem::take(&mut shown.has_reserved) {
            self.problems.extend(reserved_problem(&shown.dir, path));
        }
        for (name, errno) in shown.unknown.drain(..) {
            if let Ok(path) = path.join(&name) {
                let detail = io::Error::from(errno).to_string();
                self.unreadable.push(Problem::new(path, ProblemKind::Unreadable, detail));
            }
        }
        let mut piece = std::mem::take(&mut shown.entries);
        piece.retain(|seen| self.takes(&shown.dir, path, seen));
        if piece.len() < piece.capacity() / 4 {
            piece.shrink_to_fit();
        }
        Ok(Some(piece))
    }

    /// Whether the entry is not left out.
    fn takes(&mut self, dir: &Dir, parent: &RelPath, seen: &Seen) -> bool {
        if let Err(error) = joins(parent, &seen.node.name) {
            let detail = format!("holds an entry whose name cannot be sent: {error}");
            self.problems.push(Problem::new(parent.clone(), ProblemKind::Unsupported, detail));
            return false;
        }
        !self.way.leaves_out(dir, parent, seen, &self.options)
    }

    fn take_attributes(&mut self, found: io::Result<Found>, path: Result<RelPath, PathError>, meta: &mut Meta) {
        let found = Found::or_nothing(found);
        meta.attributes = found.attributes;
        if let (Some(detail), Ok(path)) = (found.left_out, path) {
            self.problems.push(Problem::new(path, ProblemKind::Unreadable, detail));
        }
    }

    fn read_own_attributes(&mut self, dir: &Dir, path: &RelPath, meta: &mut Meta) {
        if self.options.attributes {
            self.take_attributes(attributes::read(Hold::Open(dir.as_fd())), Ok(path.clone()), meta);
        }
    }

    /// Fills what is known only in name order (links) or costs reading (digests).
    fn complete(
        &mut self,
        dir: &Dir,
        parent: &RelPath,
        node: &mut Node,
        linked: Option<&Inode>,
        links: &mut Links<'_>,
    ) {
        let linked = linked.and_then(|inode| Some((inode, parent.join(&node.name).ok()?)));
        if let Some((inode, path)) = &linked {
            links.complete(inode, path, node);
        }
        let Kind::File { link, digest, .. } = &node.kind else { return };
        let is_first = link.is_none();
        // A later name has the digest of the first, none if that could not be read.
        let is_known = digest.is_some() || (!is_first && matches!(links, Links::Grow(_)));
        if self.options.checksum && !is_known {
            self.fill_digest(dir, parent, node);
        }
        if let (true, Some((inode, path))) = (is_first, linked) {
            links.note(inode, path, node);
        }
    }

    fn fill_digest(&mut self, dir: &Dir, parent: &RelPath, node: &mut Node) {
        let mut tries = TRIES;
        let result = loop {
            match self.read_node(dir, node) {
                Err(ReadError::Changed) if tries > 1 => tries -= 1,
                result => break result,
            }
        };
        if let (Err(error), Ok(path)) = (result, parent.join(&node.name)) {
            self.problems.push(Problem::new(path, error.problem_kind(), error.to_string()));
        }
    }

    fn read_node(&mut self, dir: &Dir, node: &mut Node) -> Result<(), ReadError> {
        let reader = ContentReader::open_in(dir, &node.name)?;
        let (size_bytes, meta) = (reader.size_bytes(), reader.meta());
        let digest = reader.digest(&mut self.read_buffer)?;
        // Size, times and digest are of one moment, which may be later than the listing's.
        let link = match &mut node.kind {
            Kind::File { link, .. } => link.take(),
            _ => None,
        };
        node.kind = Kind::File { size_bytes, link, digest: Some(Box::new(digest)) };
        node.meta = Meta { attributes: std::mem::take(&mut node.meta.attributes), ..meta };
        Ok(())
    }
}

/// Whether `parent.join(name)` is valid, without making it.
fn joins(parent: &RelPath, name: &[u8]) -> Result<(), PathError> {
    check_name(name)?;
    if parent.as_bytes().len() + 1 + name.len() > MAX_PATH_BYTES {
        return parent.join(name).map(|_| ());
    }
    Ok(())
}
