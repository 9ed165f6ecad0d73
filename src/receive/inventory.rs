//! What the root holds: listed once at the start, directory by directory.
//!
//! Only each directory's digest is kept. The directories that turn out to differ are listed again when
//! they are asked for, so memory does not grow with the number of files.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use super::link::Output;
use super::protect::Protect;
use crate::model::{Digest, DirListing, Fidelity, ListingHasher, OwnerMap, OwnerNames, Problem, RelPath, Side, View};
use crate::tree::{LinkTable, Root, ScanOptions, SystemOwners, list_dir, scan};
use crate::wire::{Inventory, MAX_DIRECTORIES, MAX_NODES, MAX_PROBLEMS, ToPrimary, WireError};

/// Bytes of names and targets in one message, about.
const MESSAGE_BYTES: usize = 256 << 10;

/// How often the primary is told how far the listing is.
const PROGRESS: Duration = Duration::from_secs(1);

/// What is remembered of a root that was listed.
pub(super) struct Listed {
    directories: Vec<(RelPath, Digest)>,
    links: LinkTable,
    checksum: bool,
    attributes: bool,
    protect: Protect,
    pub(super) inventory: Inventory,
}

impl Listed {
    /// Lists `root`, but for what `protect` holds; `None` is a root that does not exist yet.
    pub(super) fn of(
        root: Option<&Root>,
        protect: Protect,
        fidelity: Fidelity,
        checksum: bool,
        owners: &SystemOwners,
        output: &Output,
    ) -> io::Result<Self> {
        let mut listed = Listed {
            directories: Vec::new(),
            links: LinkTable::default(),
            checksum,
            attributes: fidelity.attributes.any(),
            protect,
            inventory: Inventory {
                digest: ListingHasher::default().finish(),
                directories: 0,
                entries: 0,
                unreadable: Vec::new(),
            },
        };
        let Some(root) = root else { return Ok(listed) };
        let mut whole = ListingHasher::default();
        let mut names = OwnerNames::default();
        let directories = &mut listed.directories;
        let told = Cell::new(Instant::now());
        let tell = |entries| {
            if told.get().elapsed() >= PROGRESS {
                told.set(Instant::now());
                // A link that is gone is noticed when the inventory is sent.
                let _ = output.send(&ToPrimary::Listing { entries });
            }
        };
        let attributes = fidelity.attributes.any();
        let filter = listed.protect.filter();
        let options = ScanOptions { filter, checksum, attributes, on_progress: Some(&tell), ..ScanOptions::default() };
        let report = scan(root, &options, owners, &mut |dir| {
            names.note(&dir.meta, owners);
            dir.nodes.iter().for_each(|node| names.note(&node.meta, owners));
            let view = View { fidelity, names: &names, side: Side::Receiver };
            let digest = dir.digest(view);
            whole.add(&dir, &digest, view);
            directories.push((dir.path, digest));
            Ok(())
        })?;
        let unreadable_bytes: usize = report.unreadable.iter().map(|problem| problem.path.as_bytes().len()).sum();
        // More of them mean that something is wrong with the root.
        if report.unreadable.len() > MAX_PROBLEMS || unreadable_bytes > MESSAGE_BYTES {
            return Err(io::Error::other(format!("{} parts of it cannot be read", report.unreadable.len())));
        }
        listed.links = report.links;
        listed.inventory = Inventory {
            digest: whole.finish(),
            directories: report.directories,
            entries: report.entries,
            unreadable: report.unreadable,
        };
        Ok(listed)
    }

    /// Sends all directories.
    pub(super) fn send_directories(&self, owners: OwnerMap, output: &Output) -> Result<(), WireError> {
        let mut owners = Some(owners);
        let mut rest = &self.directories[..];
        loop {
            let mut bytes = 0;
            let fits = rest.iter().take(MAX_DIRECTORIES).take_while(|(path, _)| {
                bytes += path.as_bytes().len() + 40;
                bytes <= MESSAGE_BYTES
            });
            let (part, after) = rest.split_at(fits.count());
            rest = after;
            let last = rest.is_empty();
            let owners = owners.take().unwrap_or_default();
            output.send(&ToPrimary::Directories { owners, directories: part.to_vec(), last })?;
            if last {
                return Ok(());
            }
        }
    }

    /// Sends what the directories in `paths` hold now. One that is gone, or of which not all can be told any more, is
    /// left out: what is not listed would be taken as not there.
    pub(super) fn send_entries(
        &self,
        root: Option<&Root>,
        paths: &[RelPath],
        output: &Output,
    ) -> Result<(), WireError> {
        let filter = self.protect.filter();
        let (checksum, attributes) = (self.checksum, self.attributes);
        let options = ScanOptions { filter, checksum, attributes, ..ScanOptions::default() };
        for path in paths.iter().filter(|path| !self.protect.holds(path)) {
            let Some(root) = root else { break };
            let mut unreadable = Vec::new();
            let listing = list_dir(root, path, &options, &self.links, &mut unreadable);
            let is_told = |problem: &Problem| self.inventory.unreadable.iter().any(|told| told.path == problem.path);
            match listing {
                Ok(listing) if unreadable.iter().all(is_told) => send_listing(listing, output)?,
                _ => {}
            }
        }
        output.send(&ToPrimary::EndOfEntries)
    }
}

fn send_listing(listing: DirListing, output: &Output) -> Result<(), WireError> {
    let DirListing { path, meta, nodes } = listing;
    let mut nodes = nodes.into_iter().peekable();
    loop {
        let mut part = Vec::new();
        let mut bytes = 0;
        while part.len() < MAX_NODES && bytes < MESSAGE_BYTES {
            let Some(node) = nodes.next() else { break };
            bytes += node.name.len()
                + node.kind.link().map_or(0, |link| link.as_bytes().len())
                + node.meta.attributes.bytes()
                + 64;
            part.push(node);
        }
        let part = DirListing { path: path.clone(), meta: meta.clone(), nodes: part };
        output.send(&ToPrimary::Entries(part))?;
        if nodes.peek().is_none() {
            return Ok(());
        }
    }
}
