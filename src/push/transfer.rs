//! Carries out one host's plan: says what is coming, sends content, then everything else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::mpsc;

use super::RootJob;
use super::channel::{Channel, ChannelError, Outgoing, shortened, told};
use super::rendezvous::{items_of, private_log};
use super::report::{HookReport, HostReport};
use super::session::SessionError;
use super::signatures::SignatureQuery;
use super::source::Source;
use crate::model::{Expected, Kind, Listing, Meta, Position, Problem, ProblemKind, RelPath, TimeFidelity};
use crate::observe::Phase;
use crate::payload::{Block, LogReader};
use crate::plan::{EntryRef, MoveStep, Plan};
use crate::wire::{Begin, Change, MAX_CHANGES, MAX_SIGNATURE_REQUESTS, SignatureRequest, ToPrimary, ToReceiver};

/// Bytes of names and targets in one message, about.
const MESSAGE_BYTES: usize = 256 << 10;

/// How long nothing is to be done for a host before it is seen that it is not the host's fault.
const IDLE: Duration = Duration::from_secs(1);

/// After so many times it is told that work goes on: by a question for nothing.
const IDLE_TOLD: u32 = 60;

/// How often files whose basis was not as expected are sent again. Once is enough unless someone
/// else writes there; what still fails is a problem.
const RESENDS: usize = 2;

/// What is to be done.
pub(super) struct Work<'a> {
    pub(super) job: &'a RootJob,
    pub(super) source: &'a Source,
    pub(super) listing: &'a Arc<Listing>,
    pub(super) plan: &'a Plan,
    /// The host is reached over a network.
    pub(super) remote: bool,
    /// The fleet's record is to be written there.
    pub(super) record: bool,
    /// What the host has when all is done.
    pub(super) position: Position,
    /// It lacks something from before.
    pub(super) lacks: bool,
    /// The times that the host's filesystem holds: what is expected there has no others.
    pub(super) times: TimeFidelity,
}

/// What came of it.
pub(super) struct Transferred {
    /// The host could not do everything. What the source could not give is not counted.
    pub(super) lacks: bool,
    /// The position that the host has recorded.
    pub(super) recorded: Position,
}

/// Does it.
pub(super) async fn run(
    channel: &mut Channel,
    work: Work<'_>,
    content: Vec<LogReader>,
    signatures: mpsc::UnboundedReceiver<SignatureQuery>,
    report: &mut HostReport,
) -> Result<Transferred, SessionError> {
    let Work { job, listing, plan, .. } = &work;
    let mut lacks = false;
    let begin = Begin {
        names: if plan.is_empty() { work.source.contents.names().clone() } else { listing.names.clone() },
        need_bytes: plan.totals.need_bytes.saturating_sub(work.source.bytes_of_holes(plan, listing)),
        need_inodes: plan.totals.created,
        deletions: plan.totals.deleted,
    };
    channel.send(&ToReceiver::Begin(begin)).await?;
    send_changes(channel, changes_before(plan, listing).map(|change| held(change, work.times))).await?;
    if !plan.files.is_empty() || !plan.reuses.is_empty() {
        let mut feed = Feed { channel, signatures, asked: HashMap::new(), next_id: 0 };
        feed.send_content(content, report).await?;
        lacks |= resend(channel, &work, report).await?;
    }
    send_changes(channel, changes_after(plan, listing).map(|change| held(change, work.times))).await?;
    job.monitor.phase(&report.name, Phase::Committing);
    // Whoever believes the host's record shall find everything there.
    let is_whole = report.problems.is_empty() && !work.lacks;
    let position = if is_whole { work.position } else { Position::default() };
    channel.send(&ToReceiver::Finish { position, record: work.record }).await?;
    let ToPrimary::Committed(committed) = channel.receive().await? else {
        return Err(ChannelError::Unexpected("something else than the end of a commit").into());
    };
    if committed.position != position {
        return Err(ChannelError::Unexpected("the commit of something else").into());
    }
    lacks |= !committed.problems.is_empty() || committed.more_problems > 0;
    let recorded = if lacks { Position::default() } else { position };
    report.drifted = report.drifted.saturating_add(committed.drifted);
    report.problems.extend(committed.problems.into_iter().map(told));
    report.more_problems = report.more_problems.saturating_add(committed.more_problems);
    report.notes.extend(committed.notes.into_iter().map(shortened));
    report.hooks.extend(committed.hooks.into_iter().map(HookReport::from));
    Ok(Transferred { lacks, recorded })
}

/// Sends in full what could not be built from a basis. Whether something could not be brought over even so.
async fn resend(channel: &mut Channel, work: &Work<'_>, report: &mut HostReport) -> Result<bool, SessionError> {
    for round in 0.. {
        channel.send(&ToReceiver::EndOfContent).await?;
        let paths = receive_resend(channel, work.plan.files.len() + work.plan.reuses.len()).await?;
        if paths.is_empty() {
            return Ok(false);
        }
        if round == RESENDS {
            let detail = "what arrived was not what was sent, repeatedly";
            let problems = paths.into_iter().map(|path| Problem::new(path, ProblemKind::Corrupt, detail));
            report.problems.extend(problems);
            return Ok(true);
        }
        let paths: HashSet<RelPath> = paths.into_iter().collect();
        let items = items_of(work.plan, work.listing, &paths);
        let content = vec![private_log(work.source, work.listing, items, work.remote)];
        let (_, signatures) = mpsc::unbounded_channel();
        let mut feed = Feed { channel, signatures, asked: HashMap::new(), next_id: 0 };
        feed.send_content(content, report).await?;
    }
    Ok(false)
}

/// Takes the list of what is to be sent again, which cannot be longer than what was sent.
async fn receive_resend(channel: &mut Channel, sent: usize) -> Result<Vec<RelPath>, ChannelError> {
    let mut all = Vec::new();
    loop {
        let ToPrimary::Resend { paths, last } = channel.receive().await? else {
            return Err(ChannelError::Unexpected("something else than what is to be sent again"));
        };
        if paths.is_empty() && !last {
            return Err(ChannelError::Unexpected("an empty part of what is to be sent again"));
        }
        all.extend(paths);
        if all.len() > sent {
            return Err(ChannelError::Unexpected("more to be sent again than was sent"));
        }
        if last {
            return Ok(all);
        }
    }
}

/// A query under way.
struct Asked {
    bytes: Vec<u8>,
    expected: u64,
    answer: blocking::Sender<Option<Vec<u8>>>,
}

/// Sends blocks, and meanwhile passes on questions for signatures and their answers.
struct Feed<'a> {
    channel: &'a mut Channel,
    signatures: mpsc::UnboundedReceiver<SignatureQuery>,
    asked: HashMap<u32, Asked>,
    next_id: u32,
}

enum Happened {
    Block(Option<Block>),
    Message(ToPrimary),
    Query(SignatureQuery),
    Sent,
    Idle,
}

impl Feed<'_> {
    async fn send_content(&mut self, content: Vec<LogReader>, report: &mut HostReport) -> Result<(), SessionError> {
        for mut reader in content {
            self.send_log(&mut reader).await?;
            let outcome = reader.log().outcome();
            report.files_sent += outcome.files;
            report.literal_bytes += outcome.literal_bytes;
            report.matched_bytes += outcome.matched_bytes;
            report.problems.extend(outcome.problems);
        }
        Ok(())
    }

    async fn send_log(&mut self, reader: &mut LogReader) -> Result<(), SessionError> {
        let outgoing = self.channel.outgoing();
        let mut waiting: Option<Block> = None;
        let mut idle = 0;
        loop {
            let happened = tokio::select! {
                message = self.channel.receive() => Happened::Message(message?),
                Some(query) = self.signatures.recv() => Happened::Query(query),
                permit = Channel::reserve(&outgoing), if waiting.is_some() => {
                    if let Some(block) = waiting.take() {
                        permit?.send(Outgoing::Shared(block));
                    }
                    Happened::Sent
                }
                block = reader.next(), if waiting.is_none() => Happened::Block(block?),
                () = tokio::time::sleep(IDLE), if waiting.is_none() && self.asked.is_empty() => Happened::Idle,
            };
            match happened {
                Happened::Idle => {
                    // Content is being read that this host has already. It owes nothing meanwhile, and is told so.
                    idle += 1;
                    self.channel.shared.moved();
                    if idle % IDLE_TOLD == 0 {
                        self.channel.send(&ToReceiver::GetSignatures { requests: Vec::new() }).await?;
                    }
                }
                Happened::Sent => {}
                Happened::Block(None) => return Ok(()),
                Happened::Block(block) => waiting = block,
                Happened::Message(message) => self.take_signature(message)?,
                Happened::Query(query) => self.ask(query).await?,
            }
        }
    }

    async fn ask(&mut self, first: SignatureQuery) -> Result<(), SessionError> {
        let mut requests = Vec::new();
        let mut next = Some(first);
        while let Some(query) = next {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            let SignatureQuery { path, basis, spec, part, answer } = query;
            let (offset, bytes) = (part.start, part.end - part.start);
            self.asked.insert(id, Asked { bytes: Vec::new(), expected: spec.signature_bytes(bytes), answer });
            let (size_bytes, mtime) = (basis.size_bytes, basis.mtime);
            requests.push(SignatureRequest { id, path, size_bytes, mtime, spec, offset, bytes });
            next = if requests.len() < MAX_SIGNATURE_REQUESTS { self.signatures.try_recv().ok() } else { None };
        }
        Ok(self.channel.send(&ToReceiver::GetSignatures { requests }).await?)
    }

    fn take_signature(&mut self, message: ToPrimary) -> Result<(), ChannelError> {
        let unexpected = ChannelError::Unexpected("a signature that was not asked for");
        match message {
            ToPrimary::Signature { id, bytes, last } => {
                let asked = self.asked.get_mut(&id).ok_or(unexpected)?;
                if bytes.is_empty() && !last {
                    return Err(ChannelError::Unexpected("an empty part of a signature"));
                }
                if asked.bytes.len() as u64 + bytes.len() as u64 > asked.expected {
                    return Err(ChannelError::Unexpected("a signature that is too long"));
                }
                asked.bytes.extend_from_slice(&bytes);
                if last && let Some(asked) = self.asked.remove(&id) {
                    // Nobody waits any more if another host was asked meanwhile.
                    let _ = asked.answer.send(Some(asked.bytes));
                }
                Ok(())
            }
            ToPrimary::NoSignature { id } => {
                let asked = self.asked.remove(&id).ok_or(unexpected)?;
                let _ = asked.answer.send(None);
                Ok(())
            }
            _ => Err(ChannelError::Unexpected("something else than a signature")),
        }
    }
}

/// `change` with what is expected at the host as its filesystem holds it: history knows only what was sent.
fn held(mut change: Change, times: TimeFidelity) -> Change {
    if let Change::Reuse { mtime, .. } = &mut change {
        *mtime = times.held(*mtime);
    }
    match &mut change {
        Change::MakeDirectory { was, .. }
        | Change::Expect { was, .. }
        | Change::Reuse { was, .. }
        | Change::Link { was, .. }
        | Change::Symlink { was, .. }
        | Change::SetMeta { was, .. }
        | Change::Special { was, .. }
        | Change::Remove { was, .. } => match was {
            Expected::File { mtime, .. } | Expected::Symlink { mtime } => *mtime = times.held(*mtime),
            Expected::Nothing | Expected::Directory | Expected::Special => {}
        },
        Change::Move { .. } | Change::ReplaceDirectory { .. } | Change::SetDirectoryMeta { .. } => {}
    }
    change
}

/// What must be done before content comes.
fn changes_before<'a>(plan: &'a Plan, listing: &'a Listing) -> impl Iterator<Item = Change> + Send + 'a {
    let path = |entry: EntryRef| entry.path(listing);
    let moved = plan.moves.iter().map(|step| match step {
        MoveStep::Make { path } => Change::MakeDirectory { path: path.clone(), was: Expected::Nothing },
        MoveStep::Rename { from, to } => Change::Move { from: from.clone(), to: to.clone(), exchange: false },
        MoveStep::Exchange { from, to } => Change::Move { from: from.clone(), to: to.clone(), exchange: true },
    });
    let replaced = plan
        .replaced_directories
        .iter()
        .map(move |replaced| Change::ReplaceDirectory { path: path(replaced.entry), entries: replaced.entries });
    let made = plan.directories.iter().map(move |step| Change::MakeDirectory { path: path(step.entry), was: step.was });
    let reused = plan.reuses.iter().map(move |reuse| Change::Reuse {
        path: path(reuse.step.entry),
        was: reuse.step.was,
        from: reuse.from.clone(),
        size_bytes: reuse.content.size_bytes,
        mtime: reuse.content.mtime,
        meta: reuse.step.entry.of(listing).1.meta.clone(),
    });
    let replacing = plan.files.iter().map(|file| file.step).filter(|step| step.was != Expected::Nothing);
    let expected = replacing.map(move |step| Change::Expect { path: path(step.entry), was: step.was });
    moved.chain(replaced).chain(made).chain(reused).chain(expected)
}

/// What must be done when all content is there.
fn changes_after<'a>(plan: &'a Plan, listing: &'a Listing) -> impl Iterator<Item = Change> + Send + 'a {
    let links = plan.links.iter().map(|link| Change::Link {
        path: link.step.entry.path(listing),
        to: link.to.path(listing),
        was: link.step.was,
    });
    let symlinks = plan.symlinks.iter().map(|step| {
        let (_, node) = step.entry.of(listing);
        let target = match &node.kind {
            Kind::Symlink { target } => target.clone(),
            _ => Box::default(),
        };
        Change::Symlink { path: step.entry.path(listing), target, meta: node.meta.clone(), was: step.was }
    });
    let specials = plan.specials.iter().filter_map(|step| {
        let (_, node) = step.entry.of(listing);
        let Kind::Special(kind) = node.kind else { return None };
        Some(Change::Special { path: step.entry.path(listing), kind, meta: node.meta.clone(), was: step.was })
    });
    let attributes = plan.attributes.iter().map(|step| {
        let (_, node) = step.entry.of(listing);
        Change::SetMeta { path: step.entry.path(listing), meta: node.meta.clone(), was: step.was }
    });
    let removals = plan.removals.iter().map(|removal| Change::Remove { path: removal.path.clone(), was: removal.was });
    let directories = plan.directory_attributes.iter().map(|step| {
        let path = &listing.dirs[step.dir as usize].path;
        Change::SetDirectoryMeta { path: path.clone(), meta: directory_meta(listing, step.dir) }
    });
    links.chain(symlinks).chain(specials).chain(attributes).chain(removals).chain(directories)
}

/// The attributes of a directory as its parent's listing has them.
fn directory_meta(listing: &Listing, dir: u32) -> Meta {
    listing.dirs[dir as usize].meta.clone()
}

async fn send_changes(channel: &Channel, changes: impl Iterator<Item = Change> + Send) -> Result<(), ChannelError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    for change in changes {
        bytes += change_bytes(&change);
        batch.push(change);
        if batch.len() >= MAX_CHANGES || bytes >= MESSAGE_BYTES {
            channel.send(&ToReceiver::Changes(std::mem::take(&mut batch))).await?;
            bytes = 0;
        }
    }
    if batch.is_empty() { Ok(()) } else { channel.send(&ToReceiver::Changes(batch)).await }
}

/// About what a change takes in a message.
fn change_bytes(change: &Change) -> usize {
    let meta = |meta: &Meta| 32 + meta.attributes.bytes();
    match change {
        Change::MakeDirectory { path, .. }
        | Change::ReplaceDirectory { path, .. }
        | Change::Expect { path, .. }
        | Change::Remove { path, .. } => path.as_bytes().len() + 24,
        Change::Move { from, to, .. } => from.as_bytes().len() + to.as_bytes().len(),
        Change::Link { path, to, .. } => path.as_bytes().len() + to.as_bytes().len() + 24,
        Change::Reuse { path, from, meta: own, .. } => path.as_bytes().len() + from.as_bytes().len() + 48 + meta(own),
        Change::Symlink { path, target, meta: own, .. } => path.as_bytes().len() + target.len() + meta(own),
        Change::SetMeta { path, meta: own, .. }
        | Change::Special { path, meta: own, .. }
        | Change::SetDirectoryMeta { path, meta: own } => path.as_bytes().len() + meta(own),
    }
}
