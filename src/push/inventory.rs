//! Asks a receiver what it has, as little as needed, and checks what it says.

use std::collections::BTreeMap;

use super::channel::{Channel, ChannelError};
use super::contents::Table;
use crate::model::{DirListing, OwnerNames, RelPath, check_name};
use crate::plan::{Destination, wanted_directories};
use crate::wire::{Inventory, ToPrimary, ToReceiver};

/// Directories asked for in one message. One is answered before the next is asked.
const ASK_DIRECTORIES: usize = 1000;

/// Most bytes of names in one such message.
const ASK_BYTES: usize = 512 << 10;

/// Most directories that a receiver may have: ten times what the largest trees have.
const MAX_DIRECTORIES: usize = 10_000_000;

/// Most entries that are listed for one plan; what differs beyond it comes with later pushes or
/// by splitting the root.
const MAX_ENTRIES: usize = 20_000_000;

const HOSTILE: ChannelError = ChannelError::Unexpected("an inventory that is out of order or too long");

/// Fetches what a plan against the source in `table` needs to know.
pub(super) async fn fetch(
    channel: &mut Channel,
    names: &OwnerNames,
    table: &Table,
    hidden: &[RelPath],
    inventory: &Inventory,
    excluded: &(dyn Fn(&RelPath, bool) -> bool + Sync),
) -> Result<Destination, ChannelError> {
    let mut destination = Destination {
        entries: inventory.entries,
        unreadable: inventory.unreadable.iter().map(|problem| problem.path.clone()).collect(),
        ..Destination::default()
    };
    channel.send(&ToReceiver::GetDirectories { names: names.clone() }).await?;
    loop {
        let ToPrimary::Directories { owners, directories, last } = channel.receive().await? else {
            return Err(ChannelError::Unexpected("something else than directories"));
        };
        if destination.directories.is_empty() {
            destination.owners = owners;
        }
        for (path, digest) in directories {
            let after = destination.directories.last().is_none_or(|(before, _)| *before < path);
            if !after || destination.directories.len() >= MAX_DIRECTORIES {
                return Err(HOSTILE);
            }
            destination.directories.push((path, digest));
        }
        if last {
            break;
        }
    }
    let wanted =
        wanted_directories(&table.directories, &destination.directories, hidden, &|path, dir| excluded(path, dir));
    let mut entries = 0;
    let mut rest = &wanted[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(chunk_len(rest));
        rest = after;
        channel.send(&ToReceiver::GetEntries { paths: chunk.to_vec() }).await?;
        entries += receive_entries(channel, chunk, &mut destination.listed).await?;
        if entries > MAX_ENTRIES {
            return Err(HOSTILE);
        }
    }
    Ok(destination)
}

fn chunk_len(paths: &[RelPath]) -> usize {
    let mut bytes = 0;
    let fits = paths.iter().take(ASK_DIRECTORIES).take_while(|path| {
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
) -> Result<usize, ChannelError> {
    let mut asked = asked.iter().peekable();
    let mut count = 0;
    loop {
        let part = match channel.receive().await? {
            ToPrimary::Entries(part) => part,
            ToPrimary::EndOfEntries => return Ok(count),
            _ => return Err(ChannelError::Unexpected("something else than entries")),
        };
        while asked.next_if(|path| **path < part.path).is_some() {}
        count += part.nodes.len().max(1);
        if asked.peek() != Some(&&part.path) || count > MAX_ENTRIES || !is_valid(&part) {
            return Err(HOSTILE);
        }
        match listed.get_mut(&part.path) {
            None => drop(listed.insert(part.path.clone(), part)),
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
