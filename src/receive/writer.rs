//! Content: staged, compared with its digest, placed.
//!
//! A file is made in the stage, gets its attributes there, and waits. When enough waits, or something
//! else is to be done, the batch is committed: synced to the disk where that is asked for, then
//! renamed to its place one by one. A path holds the old content or the new one, never a part.

use std::io::{self, Write};

use super::ahead::Block;
use super::digester::Digester;
use super::drift::Drift;
use super::expect::{Expectations, Was};
use super::hooks::Changed;
use super::owners::Foreign;
use super::policy::{Durability, Policy};
use super::protect::{Protect, Spared};
use super::quota::Account;
use super::rebuild::Open;
use super::remember::{Again, Failed, Replaceable};
use super::reuse::Reused;
use super::shortfall::Shortfalls;
use crate::delta::Op;
use crate::model::{Fidelity, Kind, Meta, OwnerMap, Problem, ProblemKind, RelPath};
use crate::tree::{
    Applier, Attic, Going, KeptSize, LocalAttributes, LocalMeta, Over, Placed, Root, Shortfall, Staged, StagedKind,
    Staging, Usage, problem_kind,
};
use crate::wire::{Committed, MAX_PROBLEMS, Record, RootState};

/// Bytes staged before they are committed. What is replaced is freed only then, so this is also
/// how much more room than the final state needs is taken.
const BATCH_BYTES: u64 = 64 << 20;

/// Files staged before they are committed.
const BATCH_FILES: usize = 4096;

/// Most bytes that the problems take that are told one by one: all go into one frame.
const MAX_PROBLEM_BYTES: usize = 1 << 20;

/// Why a session ends early.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There is no room left; what was staged is discarded.
    NoSpace(io::Error),
    /// The disk cannot be synced or the stage cannot be used.
    Failed(io::Error),
    /// The root would hold more than this host allows, which is said; what was staged is discarded.
    Quota(String),
    /// The primary breaks the protocol.
    Protocol(&'static str),
}

/// Everything that changes one root.
pub(super) struct Writer<'a> {
    pub(super) applier: Applier,
    pub(super) policy: &'a Policy,
    pub(super) fidelity: Fidelity,
    pub(super) owners: OwnerMap,
    pub(super) staging: Staging,
    pub(super) attic: Attic,
    /// What is taken to be where content comes.
    pub(super) expectations: Expectations,
    /// Directories that something else may take the place of.
    pub(super) replaceable: Replaceable,
    /// What the record becomes before the first directory is moved, if it must change.
    pub(super) state_before_moves: Option<RootState>,
    /// No directory may be moved any more.
    pub(super) moves_over: bool,
    /// The attributes of the root itself.
    pub(super) root_meta: Option<Meta>,
    /// Paths that did not get their content.
    pub(super) failed: Failed,
    /// Deletions that were announced and not done yet.
    pub(super) deletions_left: u64,
    pub(super) outcome: Committed,
    pub(super) drift: Drift,
    /// What the attic had to give up for want of room.
    pub(super) given_up: KeptSize,
    /// What is not changed, whatever comes.
    pub(super) protect: Protect,
    /// What would have been.
    pub(super) spared: Spared,
    /// Whose entries cannot be given to them here.
    pub(super) foreign: Foreign,
    /// What could not be set.
    pub(super) short: Shortfalls,
    /// What hooks are for.
    pub(super) changed: Changed<'a>,
    /// What may be made.
    pub(super) account: Option<Account>,
    waiting: Vec<(Staged, RelPath)>,
    pub(super) waiting_bytes: u64,
    pub(super) reused: Vec<Reused>,
    pub(super) reused_bytes: usize,
    again: Again,
    pub(super) open: Option<Open>,
    pub(super) digester: Digester,
    pub(super) files_done: u64,
    pub(super) bytes_done: u64,
    problem_bytes: usize,
}

impl<'a> Writer<'a> {
    /// `session` names it in the attic.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn new(
        root: &Root,
        staging: Staging,
        session: &str,
        policy: &'a Policy,
        fidelity: Fidelity,
        owners: OwnerMap,
    ) -> io::Result<Self> {
        let mut attic = staging.attic(session)?;
        if let Some(retention) = policy.attic.filter(|retention| retention.keeps_expected()) {
            attic.keep_expected(retention.max_bytes);
        }
        Ok(Writer {
            attic,
            applier: Applier::new(root),
            policy,
            fidelity,
            owners,
            staging,
            expectations: Expectations::default(),
            replaceable: Replaceable::default(),
            state_before_moves: None,
            moves_over: false,
            root_meta: None,
            failed: Failed::default(),
            deletions_left: 0,
            outcome: Committed::default(),
            drift: Drift::default(),
            given_up: KeptSize::default(),
            protect: Protect::of(&policy.protect, Some(root)),
            spared: Spared::default(),
            foreign: Foreign::default(),
            short: Shortfalls::default(),
            changed: Changed::of(&policy.on_commit),
            account: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            reused: Vec::new(),
            reused_bytes: 0,
            again: Again::default(),
            open: None,
            digester: Digester::new(),
            files_done: 0,
            bytes_done: 0,
            problem_bytes: 0,
        })
    }

    /// What the primary's attributes become here.
    pub(super) fn local(&self, kind: &Kind, meta: &Meta) -> LocalMeta {
        LocalMeta {
            mode: self.fidelity.mode(kind, meta.mode),
            uid: self.owners.users.get(&meta.uid).copied().flatten(),
            gid: self.owners.groups.get(&meta.gid).copied().flatten(),
            mtime: self.fidelity.times.held(meta.mtime),
            attributes: LocalAttributes {
                managed: self.fidelity.attributes,
                wanted: meta.attributes.kept(self.fidelity.attributes, &self.owners.acl),
            },
        }
    }

    /// Tells what could not be set of an entry, and counts what is not as it should be.
    pub(super) fn note_shortfall(&mut self, path: &RelPath, kind: &Kind, meta: &Meta, short: Shortfall) {
        let is_foreign = self.foreign.users.contains(&meta.uid) || self.foreign.groups.contains(&meta.gid);
        self.short.note(kind, meta, self.fidelity, short.owner || is_foreign);
        self.short.setgid += u64::from(short.setgid);
        if let Some(detail) = short.attribute {
            self.problem(Problem::new(path.clone(), ProblemKind::Denied, detail));
        }
    }

    /// Takes room for an entry that is about to be made at `path`.
    pub(super) fn charge_entry(&mut self, path: &RelPath, content_bytes: u64, meta: &Meta) -> Result<(), WriteError> {
        let Some(account) = &self.account else { return Ok(()) };
        let name_bytes = path.split_bytes().map_or(0, |(_, name)| name.len());
        self.charge(account.entry(name_bytes, content_bytes, meta.attributes.bytes()))
    }

    /// Takes room for the attributes of an entry that is there.
    pub(super) fn charge_attributes(&mut self, meta: &Meta) -> Result<(), WriteError> {
        let bytes = self.account.as_ref().map(|account| account.blocks(meta.attributes.bytes() as u64));
        bytes.map_or(Ok(()), |bytes| self.charge(Usage { bytes, entries: 0 }))
    }

    /// Takes room for another name of something.
    pub(super) fn charge_name(&mut self, path: &RelPath) -> Result<(), WriteError> {
        let bytes = self.account.as_ref().map(|account| account.entry(path.as_bytes().len(), 0, 0).bytes);
        bytes.map_or(Ok(()), |bytes| self.charge(Usage { bytes, entries: 0 }))
    }

    /// Takes room for what is about to be made.
    pub(super) fn charge(&mut self, needed: Usage) -> Result<(), WriteError> {
        // What needs no room is welcome in a root that has more than its quota already.
        if needed == Usage::default() || self.account.as_mut().is_none_or(|account| account.charge(needed)) {
            return Ok(());
        }
        // What takes the place of something else makes room.
        self.commit_batch()?;
        let Some(account) = &mut self.account else { return Ok(()) };
        if !account.fits() {
            account.recount(self.applier.parents().root(), needed).map_err(WriteError::Failed)?;
        }
        self.keep_quota(needed)?;
        let Some(account) = &self.account else { return Ok(()) };
        if account.fits() { Ok(()) } else { Err(WriteError::Quota(account.told())) }
    }

    /// Takes one block.
    pub(super) fn block(&mut self, mut block: Block) -> Result<(), WriteError> {
        self.moves_over = true;
        while let Some((record, content, is_intact)) =
            block.next_record().map_err(|_| WriteError::Protocol("a content block that cannot be read"))?
        {
            self.record(record, content, is_intact)?;
        }
        Ok(())
    }

    /// Whether `path` is protected; then nothing is done about it but to tell.
    pub(super) fn spares(&mut self, path: &RelPath) -> bool {
        let spares = self.protect.holds(path);
        if spares {
            self.spared.note(path);
        }
        spares
    }

    /// Whether something at or below `path` is protected, or may be.
    pub(super) fn holds_protected(&mut self, path: &RelPath) -> bool {
        match self.protect.find(self.applier.parents().root(), path) {
            Ok(None) => false,
            Ok(Some(found)) => {
                self.spared.note(&found);
                true
            }
            Err(_) => {
                self.spared.note(path);
                true
            }
        }
    }

    fn record(&mut self, record: Record, content: &[u8], is_intact: bool) -> Result<(), WriteError> {
        match record {
            Record::File { path, meta, .. } if self.open.is_none() && !path.is_root() => {
                if self.spares(&path) {
                    Ok(())
                } else if is_intact {
                    self.small(path, &meta, content)
                } else {
                    self.send_again(path)
                }
            }
            Record::Begin { path, meta, size_bytes, basis } if self.open.is_none() && !path.is_root() => {
                self.begin(path, meta, size_bytes, basis)
            }
            Record::Data { .. } => self.piece(Op::Literal(content)),
            Record::Copy { offset, bytes } => self.piece(Op::Copy { offset, len: bytes }),
            Record::Hole { bytes } => self.hole(bytes),
            Record::End { digest } => self.end(digest),
            Record::Cancel => {
                self.open.take().map(drop).ok_or(WriteError::Protocol("the end of a file that did not begin"))
            }
            Record::File { .. } | Record::Begin { .. } => Err(WriteError::Protocol("a file inside another")),
        }
    }

    fn small(&mut self, path: RelPath, meta: &Meta, content: &[u8]) -> Result<(), WriteError> {
        self.charge_entry(&path, content.len() as u64, meta)?;
        let local = self.local(&Kind::file(content.len() as u64), meta);
        let staged = self.staging.create_file(local.mode).and_then(|mut staged| {
            staged.file().write_all(content)?;
            staged.seal(&local)
        });
        self.bytes_done = self.bytes_done.saturating_add(content.len() as u64);
        self.staged(path, meta, staged, content.len() as u64)
    }

    pub(super) fn staged(
        &mut self,
        path: RelPath,
        meta: &Meta,
        staged: io::Result<Staged>,
        bytes: u64,
    ) -> Result<(), WriteError> {
        self.files_done += 1;
        match staged {
            Ok(mut staged) => {
                self.note_shortfall(&path, &Kind::file(bytes), meta, std::mem::take(&mut staged.short));
                self.waiting.push((staged, path));
                // A file of holes has any length.
                self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
                let full = self.waiting.len() >= BATCH_FILES || self.waiting_bytes >= BATCH_BYTES;
                if full { self.commit_batch() } else { Ok(()) }
            }
            Err(error) => self.fail(path, error),
        }
    }

    /// Puts a staged entry to its place at once, where `was` is taken to be; whether that could be done.
    pub(super) fn place(&mut self, path: RelPath, staged: Staged, was: Was) -> Result<bool, WriteError> {
        // Whatever led here: nothing is put where something is protected.
        if self.spares(&path) || (self.replaceable.get(&path).is_some() && self.holds_protected(&path)) {
            self.failed.insert(&path)?;
            return Ok(false);
        }
        if self.replaceable.get(&path).is_some() {
            self.note_all_below(&path, None);
        }
        // What is kept takes the room that it took before.
        let is_freed = self.account.is_some() && !self.attic.keeps_expected();
        let going = is_freed.then(|| Going::at(self.applier.parents(), &path)).flatten();
        let expected = |found| self.expectations.holds(was, found);
        let over = Over { expected: &expected, directory: self.replaceable.get(&path) };
        let is_directory = staged.kind() == StagedKind::Directory;
        match self.applier.place(staged, &path, over, &mut self.attic) {
            Ok(placed) => {
                self.note_changed(&path, is_directory);
                if let (Some(account), Some(going)) = (&mut self.account, going) {
                    account.credit(going.freed());
                }
                self.note_placed(&path, placed);
                self.failed.remove(&path);
                Ok(true)
            }
            Err(error) => self.fail(path, error).map(|()| false),
        }
    }

    /// Notes if something else than expected was at `path`.
    pub(super) fn note_placed(&mut self, path: &RelPath, placed: Placed) {
        if placed == Placed::KeptAside {
            self.outcome.drifted += 1;
            self.drift.note(path);
        }
    }

    /// Makes everything that waits visible.
    pub(super) fn commit_batch(&mut self) -> Result<(), WriteError> {
        self.place_reused()?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.make_durable()?;
        self.keep_room()?;
        self.waiting_bytes = 0;
        for (staged, path) in std::mem::take(&mut self.waiting) {
            let was = self.expectations.take(&path);
            self.place(path, staged, was)?;
        }
        Ok(())
    }

    pub(super) fn make_durable(&self) -> Result<(), WriteError> {
        match self.policy.durability {
            Durability::None => Ok(()),
            Durability::Commit => self.applier.sync().map_err(WriteError::Failed),
        }
    }

    /// All content has come; which files must come again?
    pub(super) fn end_of_content(&mut self) -> Result<Vec<RelPath>, WriteError> {
        if self.open.is_some() {
            return Err(WriteError::Protocol("the end of all content inside a file"));
        }
        self.moves_over = true;
        self.commit_batch()?;
        let again = self.again.take();
        again.iter().try_for_each(|path| self.failed.insert(path))?;
        Ok(again)
    }

    /// Has the content of `path` sent again, in full.
    pub(super) fn send_again(&mut self, path: RelPath) -> Result<(), WriteError> {
        match self.again.push(path) {
            Ok(()) => Ok(()),
            Err(path) => self.fail_as(path, ProblemKind::Corrupt, io::Error::other("it came with another content")),
        }
    }

    /// Whether a file is under way.
    pub(super) fn is_inside_file(&self) -> bool {
        self.open.is_some()
    }

    /// Notes that `path` could not be brought over; a full disk ends everything.
    pub(super) fn fail(&mut self, path: RelPath, error: io::Error) -> Result<(), WriteError> {
        let kind = problem_kind(&error);
        self.fail_as(path, kind, error)
    }

    /// As [`Writer::fail`], with the kind of the problem.
    pub(super) fn fail_as(&mut self, path: RelPath, kind: ProblemKind, error: io::Error) -> Result<(), WriteError> {
        match kind {
            ProblemKind::NoSpace => return Err(WriteError::NoSpace(error)),
            // Something is there, or is not, that the plan takes to be otherwise.
            ProblemKind::Conflict | ProblemKind::Vanished => self.outcome.drifted += 1,
            _ => {}
        }
        let detail = match kind {
            ProblemKind::Conflict => "something else is in its place".to_owned(),
            _ => error.to_string(),
        };
        self.failed.insert(&path)?;
        self.problem(Problem::new(path, kind, detail));
        Ok(())
    }

    /// Whether something could not be brought over.
    pub(super) fn has_problems(&self) -> bool {
        !self.outcome.problems.is_empty()
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        self.problem_bytes += problem.path.as_bytes().len() + problem.detail.len();
        if self.outcome.problems.len() < MAX_PROBLEMS && self.problem_bytes < MAX_PROBLEM_BYTES {
            self.outcome.problems.push(problem);
        } else {
            self.outcome.more_problems += 1;
        }
    }
}
