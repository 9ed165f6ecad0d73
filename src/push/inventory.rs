//! Asks a receiver what it has, as little as needed, and checks what it says.

use std::collections::BTreeMap;

use super::channel::{Channel, ChannelError};
use super::contents::Table;
use crate::model::{DirListing, Kind, Node, OwnerNames, Problem, ProblemKind, RelPath, check_name};
use crate::plan::{Destination, wanted_directories};
use crate::wire::{Inventory, MAX_ASKED_DIRECTORIES, ToPrimary, ToReceiver};

/// Most bytes of names in one question for directories. One is answered before the next is asked.
const ASK_BYTES: usize = 512 << 10;

/// Most directories that a receiver may have: ten times what the largest trees have.
const MAX_DIRECTORIES: usize = 10_000_000;

/// Memory that the listing of any host may take, in bytes: a million entries, and more than that in short names.
const LISTED_BYTES: usize = 256 << 20;

/// Memory that it may take besides, for each entry of the source: a host may have several times what the source has.
const LISTED_BYTES_PER_ENTRY: u64 = 4096;

/// Memory that an entry takes beside its name, about.
const ENTRY_BYTES: usize = 160;

/// Most entries that are listed for one plan; what differs beyond it comes with later pushes or
/// by splitting the root.
const MAX_ENTRIES: usize = 20_000_000;

const HOSTILE: ChannelError = ChannelError::Unexpected("an inventory that is out of order or too long");

/// What a host may still list.
struct Room {
    entries: usize,
    bytes: usize,
}

impl Room {
    /// For a source of `own_entries`.
    fn new(own_entries: u64) -> Self {
        let own = usize::try_from(own_entries.saturating_mul(LISTED_BYTES_PER_ENTRY)).unwrap_or(usize::MAX);
        Room { entries: MAX_ENTRIES, bytes: LISTED_BYTES.saturating_add(own) }
    }

    /// Takes room for something that has `bytes` of names and the like.
    fn take(&mut self, bytes: usize) -> Result<(), ChannelError> {
        self.entries = self.entries.checked_sub(1).ok_or(HOSTILE)?;
        self.bytes = self.bytes.checked_sub(ENTRY_BYTES + bytes).ok_or(HOSTILE)?;
        Ok(())
    }

    fn take_node(&mut self, node: &Node) -> Result<(), ChannelError> {
        let own = match &node.kind {
            Kind::Symlink { target } => target.len(),
            kind => kind.link().map_or(0, |link| link.as_bytes().len()),
        };
        self.take(node.name.len() + own + node.meta.attributes.bytes())
    }
}

/// Fetches what a plan against the source in `table`, of `own_entries`, needs to know. A directory that was there and
/// cannot be listed any more is a problem, and left alone as one that could not be read in the first place.
pub(super) async fn fetch(
    channel: &mut Channel,
    names: &OwnerNames,
    (table, own_entries): (&Table, u64),
    hidden: &[RelPath],
    inventory: &Inventory,
    excluded: &(dyn Fn(&RelPath, bool) -> bool + Sync),
) -> Result<(Destination, Vec<Problem>), ChannelError> {
    let mut room = Room::new(own_entries);
    let mut destination = Destination {
        entries: inventory.entries,
        unreadable: inventory.unreadable.iter().map(|problem| problem.path.clone()).collect(),
        ..Destination::default()
    };
    channel.send(&ToReceiver::GetDirectories { names: names.clone() }).await?;
    receive_directories(channel, &mut destination, &mut room).await?;
    let wanted =
        wanted_directories(&table.directories, &destination.directories, hidden, &|path, dir| excluded(path, dir));
    let mut rest = &wanted[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(chunk_len(rest));
        rest = after;
        channel.send(&ToReceiver::GetEntries { paths: chunk.to_vec() }).await?;
        receive_entries(channel, chunk, &mut destination.listed, &mut room).await?;
    }
    let gone: Vec<_> = wanted.into_iter().filter(|path| !destination.listed.contains_key(path)).collect();
    if gone.iter().any(RelPath::is_root) {
        return Err(ChannelError::Unexpected("an inventory of a root that is gone"));
    }
    destination.unreadable.extend(gone.iter().cloned());
    let told = |path| Problem::new(path, ProblemKind::Vanished, "it was listed, and then could not be looked into");
    Ok((destination, gone.into_iter().map(told).collect()))
}

/// Takes all directories, in order.
async fn receive_directories(
    channel: &mut Channel,
    destination: &mut Destination,
    room: &mut Room,
) -> Result<(), ChannelError> {
    loop {
        let ToPrimary::Directories { owners, directories, last } = channel.receive().await? else {
            return Err(ChannelError::Unexpected("something else than directories"));
        };
        if destination.directories.is_empty() {
            destination.owners = owners;
        }
        if directories.is_empty() && !last {
            return Err(HOSTILE);
        }
        for (path, digest) in directories {
            let after = destination.directories.last().is_none_or(|(before, _)| *before < path);
            if !after || destination.directories.len() >= MAX_DIRECTORIES {
                return Err(HOSTILE);
            }
            room.take(path.as_bytes().len())?;
            destination.directories.push((path, digest));
        }
        if last {
            return Ok(());
        }
    }
}

fn chunk_len(paths: &[RelPath]) -> usize {
    let mut bytes = 0;
    let fits = paths.iter().take(MAX_ASKED_DIRECTORIES).take_while(|path| {
        bytes += path.as_bytes().len() + 8;
        bytes <= ASK_BYTES
    });
    fits.count().max(1)
}

/// Takes the answer to one question: some of the directories asked for, in order, each in parts.
async fn receive_entries(
    channel: &mut Channel,
    asked: &[RelPath],
    listed: &mut BTreeMap<RelPath, DirListing>,
    room: &mut Room,
) -> Result<(), ChannelError> {
    let mut asked = asked.iter().peekable();
    loop {
        let part = match channel.receive().await? {
            ToPrimary::Entries(part) => part,
            ToPrimary::EndOfEntries => return Ok(()),
            _ => return Err(ChannelError::Unexpected("something else than entries")),
        };
        while asked.next_if(|path| **path < part.path).is_some() {}
        if asked.peek() != Some(&&part.path) || !is_valid(&part) {
            return Err(HOSTILE);
        }
        part.nodes.iter().try_for_each(|node| room.take_node(node))?;
        match listed.get_mut(&part.path) {
            None => {
                room.take(part.path.as_bytes().len() + part.meta.attributes.bytes())?;
                listed.insert(part.path.clone(), part);
            }
            Some(listing) => {
                let before = listing.nodes.last().map(|node| &node.name);
                if part.nodes.first().map(|node| &node.name) <= before {
                    return Err(HOSTILE);
                }
                listing.nodes.extend(part.nodes);
            }
        }
    }
}

/// Whether the names are names, sorted, each once.
fn is_valid(part: &DirListing) -> bool {
    part.nodes.iter().all(|node| check_name(&node.name).is_ok())
        && part.nodes.windows(2).all(|pair| pair[0].name < pair[1].name)
}
