//! One session: which message may come when, and what answers it.
//!
//! ```text
//! Hello ─► Welcome, Inventory ─► (GetDirectories, GetEntries)* ─► end of input
//!                                    └─► Begin ─► (Changes | block | GetSignatures | EndOfContent)* ─► Finish ─► Committed
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{getegid, geteuid, getgroups};
use thiserror::Error;

use super::inventory::Listed;
use super::link::{PrimaryLink, standard_streams};
use super::policy::{Durability, OwnerPolicy, Policy, Roots};
use super::writer::{WriteError, Writer};
use super::{owners, signature, state};
use crate::model::{Fidelity, Kind, Meta, OwnerMap, OwnerNames, Owners, Position, Problem, RelPath, Term};
use crate::tree::{Root, RootError, StageError, Staging, SystemOwners, read_state};
use crate::wire::{
    Begin, BlockReader, FrameKind, Hello, Refusal, RefusalKind, RootState, ToPrimary, ToReceiver, Welcome, WireError,
    choose_protocol, decode,
};

/// How often the primary is told how far we are.
const PROGRESS: Duration = Duration::from_millis(100);

/// Paths in one message: 500 of the longest fit into a frame.
const RESEND_PATHS: usize = 500;

/// Room that is left for others on the filesystem.
const SPARE_BYTES: u64 = 1 << 20;

/// Why a session ended without a commit.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The primary was told why.
    #[error("{0}")]
    Refused(String),
    /// The link failed or the primary does not speak the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The primary went away in the middle. Nothing half-done remains.
    #[error("the primary ended the connection in the middle")]
    Interrupted,
    /// Standard input or output cannot be used.
    #[error("standard input and output cannot be used: {0}")]
    Streams(#[source] io::Error),
}

impl From<Refusal> for ReceiveError {
    fn from(refusal: Refusal) -> Self {
        ReceiveError::Refused(refusal.message)
    }
}

/// Serves one primary on standard input and output.
///
/// # Errors
/// [`ReceiveError`]; the root then holds only whole files, old or new.
pub fn serve(roots: &Roots, policy: &Policy) -> Result<(), ReceiveError> {
    let (input, output) = standard_streams().map_err(ReceiveError::Streams)?;
    serve_on(input, output, roots, policy)
}

/// Tells whoever started this receiver why it does not serve.
pub fn refuse_to_start(message: &str) {
    let refusal = Refusal { kind: RefusalKind::Failed, message: message.to_owned() };
    if let Ok((input, output)) = standard_streams() {
        // As far as someone is there to be told.
        let _ = PrimaryLink::open(input, output).send(&ToPrimary::Refused(refusal));
    }
}

fn serve_on(input: OwnedFd, output: OwnedFd, roots: &Roots, policy: &Policy) -> Result<(), ReceiveError> {
    let mut session = Session { link: PrimaryLink::open(input, output), policy, owners: SystemOwners::new() };
    match session.run(roots) {
        Err(End::Refused(refusal)) => {
            // Told as far as someone is left to tell.
            let _ = session.link.send(&ToPrimary::Refused(refusal.clone()));
            Err(refusal.into())
        }
        Err(End::Wire(error)) => Err(error.into()),
        Err(End::Interrupted) => Err(ReceiveError::Interrupted),
        Ok(()) => Ok(()),
    }
}

enum End {
    Refused(Refusal),
    Wire(WireError),
    Interrupted,
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        End::Wire(error)
    }
}

fn refuse(kind: RefusalKind, message: impl Into<String>) -> End {
    End::Refused(Refusal { kind, message: message.into() })
}

fn misplaced(what: &str) -> End {
    refuse(RefusalKind::BadRequest, format!("the primary sent {what} where that has no place"))
}

/// A root as it was found.
struct Found {
    path: std::path::PathBuf,
    root: Option<Root>,
    state: Option<RootState>,
}

struct Session<'a> {
    link: PrimaryLink,
    policy: &'a Policy,
    owners: SystemOwners,
}

impl Session<'_> {
    fn run(&mut self, roots: &Roots) -> Result<(), End> {
        let ToReceiver::Hello(hello) = self.message()?.ok_or(End::Interrupted)? else {
            return Err(misplaced("something else than a greeting"));
        };
        let found = self.open_root(roots, &hello)?;
        let fidelity = self.fidelity();
        self.welcome(&hello, &found, fidelity)?;
        match self.compare(&found, &hello, fidelity)? {
            None => Ok(()),
            Some(_) if hello.read_only => Err(misplaced("a change in a comparison")),
            Some(begin) => self.write(&hello, found, fidelity, begin),
        }
    }

    /// The next message; `None` at the end of input.
    fn message(&mut self) -> Result<Option<ToReceiver>, End> {
        loop {
            let Some(frame) = self.link.receive()? else { return Ok(None) };
            if frame.kind != FrameKind::Message {
                return Err(misplaced("content"));
            }
            match decode(&frame.body)? {
                ToReceiver::Heartbeat => {}
                message => return Ok(Some(message)),
            }
        }
    }

    fn open_root(&self, roots: &Roots, hello: &Hello) -> Result<Found, End> {
        if choose_protocol(hello.protocol_min, hello.protocol_max).is_none() {
            let message = format!(
                "this receiver is rfleet {} and speaks another protocol than the primary's {}; install the same or the \
                 next version on both",
                env!("CARGO_PKG_VERSION"),
                hello.software.escape_debug(),
            );
            return Err(refuse(RefusalKind::Protocol, message));
        }
        let path = roots.find(&hello.root).map_err(|why| refuse(RefusalKind::UnknownRoot, why))?.to_owned();
        let root = match Root::open(&path) {
            Ok(root) => Some(root),
            Err(RootError::Missing { .. }) => None,
            Err(error) => return Err(refuse(RefusalKind::BadRoot, error.to_string())),
        };
        let state = match &root {
            Some(root) => self.look_at_state(root, hello, &path)?,
            None => None,
        };
        Ok(Found { path, root, state })
    }

    /// Reads the fleet's record, and cleans up after a run that was interrupted.
    fn look_at_state(&self, root: &Root, hello: &Hello, path: &std::path::Path) -> Result<Option<RootState>, End> {
        let bad = |error: &dyn std::fmt::Display| refuse(RefusalKind::BadRoot, format!("{}: {error}", path.display()));
        let bytes = read_state(root).map_err(|error| bad(&error))?;
        let state = bytes.as_deref().and_then(state::decode);
        if !hello.read_only && Staging::has_leftovers(root).map_err(|error| bad(&error))? {
            let staging = Staging::open(root).map_err(|error| stage_refusal(path, &error))?;
            staging.finish(bytes.is_some()).map_err(|error| bad(&error))?;
        }
        let (Some(fleet), Some(state)) = (&hello.fleet, state) else { return Ok(None) };
        let other_primary = state.term == hello.term && state.term != Term(0) && state.primary != hello.primary;
        if state.fleet == *fleet && (state.term > hello.term || other_primary) {
            let message = format!(
                "fenced: {} is primary since term {}, and this push is of term {}",
                state.primary.escape_debug(),
                state.term.0,
                hello.term.0
            );
            return Err(refuse(RefusalKind::Fenced, message));
        }
        Ok(Some(state))
    }

    fn privileged(&self) -> bool {
        geteuid().is_root()
    }

    fn fidelity(&self) -> Fidelity {
        let owner = self.privileged() && matches!(self.policy.owner, OwnerPolicy::Preserve | OwnerPolicy::Numeric);
        // setuid would lend the rights of whoever owns the file here instead of its owner's at home.
        Fidelity { owner, setuid: self.policy.setuid && self.privileged() }
    }

    fn welcome(&self, hello: &Hello, found: &Found, fidelity: Fidelity) -> Result<(), End> {
        // A root that does not exist yet is judged by the directory that it would be made in.
        let place = found.root.clone().or_else(|| Root::open_parent(&found.path).ok());
        let free = place.as_ref().and_then(|place| place.free().ok());
        let welcome = Welcome {
            protocol: choose_protocol(hello.protocol_min, hello.protocol_max).unwrap_or_default(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            fidelity,
            allow_delete: self.policy.allow_delete,
            state: found.state.clone(),
            free_bytes: free.as_ref().map_or(u64::MAX, |free| free.bytes),
            free_inodes: free.as_ref().and_then(|free| free.inodes),
            writable: place.as_ref().is_some_and(Root::is_writable),
            notes: Vec::new(),
        };
        Ok(self.link.send(&ToPrimary::Welcome(welcome))?)
    }

    /// Answers questions until changes begin, or the primary has seen enough.
    fn compare(&mut self, found: &Found, hello: &Hello, fidelity: Fidelity) -> Result<Option<Begin>, End> {
        let mut listed = None;
        while let Some(message) = self.message()? {
            match (message, &listed) {
                (ToReceiver::List, None) => listed = Some(self.list(found, hello, fidelity)?),
                (ToReceiver::GetDirectories { names }, Some(listed)) => {
                    let owners = self.map_owners(&names);
                    listed.send_directories(owners, &self.link.output)?;
                }
                (ToReceiver::GetEntries { paths }, Some(listed)) => {
                    listed.send_entries(found.root.as_ref(), &paths, &self.link.output)?
                }
                (ToReceiver::Begin(begin), _) => return Ok(Some(begin)),
                _ => return Err(misplaced("something else than a question")),
            }
        }
        Ok(None)
    }

    fn list(&self, found: &Found, hello: &Hello, fidelity: Fidelity) -> Result<Listed, End> {
        let root = found.root.as_ref();
        let listed = Listed::of(root, fidelity, hello.checksum, &self.owners, &self.link.output).map_err(|error| {
            refuse(RefusalKind::BadRoot, format!("{}: cannot be listed: {error}", found.path.display()))
        })?;
        self.link.send(&ToPrimary::Inventory(listed.inventory.clone()))?;
        Ok(listed)
    }

    fn map_owners(&self, names: &OwnerNames) -> OwnerMap {
        let own_groups = (!self.privileged()).then(own_groups);
        owners::map(names, &self.policy.owner, &self.owners, own_groups.as_deref())
    }

    fn write(&mut self, hello: &Hello, found: Found, fidelity: Fidelity, begin: Begin) -> Result<(), End> {
        let Found { path, root, state: recorded } = found;
        if begin.deletions > 0 && !self.policy.allow_delete {
            let message = "deletions are not allowed here ([receive] allow_delete = false); nothing was changed";
            return Err(refuse(RefusalKind::Policy, message));
        }
        let root = match root {
            Some(root) => root,
            None => Root::open_or_create(&path).map_err(|error| refuse(RefusalKind::BadRoot, error.to_string()))?,
        };
        check_room(&root, &begin, &path)?;
        let staging = Staging::open(&root).map_err(|error| stage_refusal(&path, &error))?;
        let kept = staging.read_state().is_ok_and(|state| state.is_some());
        let is_own = |fleet: &str, state: &RootState| state.fleet == fleet && state.root == hello.root;
        if let (Some(fleet), Some(state)) = (&hello.fleet, &recorded)
            && !is_own(fleet, state)
            && !hello.adopt
        {
            // The primary's guard has refused this already, if it is honest.
            let message = format!("{} belongs to fleet {}", path.display(), state.fleet.escape_debug());
            return Err(refuse(RefusalKind::OtherFleet, message));
        }
        if let Some(fleet) =
            hello.fleet.as_ref().filter(|fleet| !recorded.as_ref().is_some_and(|state| is_own(fleet, state)))
        {
            // From here on the root is this fleet's, also if this push does not come to its end.
            let claim = record(hello, fleet, Position::default());
            staging
                .write_state(&state::encode(&claim))
                .map_err(|error| write_refusal(&path, &WriteError::Failed(error)))?;
        }
        let mut writer = Writer::new(&root, staging, self.policy, fidelity, self.map_owners(&begin.names));
        writer.deletions_left = begin.deletions;
        if !self.privileged() {
            let own = geteuid().as_raw();
            writer.foreign_users = owners::foreign_users(&begin.names, &self.policy.owner, &self.owners, own);
        }
        let mut root_meta = None;
        let finish = self.take_changes(&mut writer, &mut root_meta).map_err(|end| end.on(&path))?;
        let keep_state = hello.fleet.is_some() || kept;
        let outcome = self.finish(writer, hello, finish, root_meta, keep_state).map_err(|end| end.on(&path))?;
        Ok(self.link.send(&ToPrimary::Committed(outcome))?)
    }

    /// Takes changes and content until the primary says that it was all.
    fn take_changes(
        &mut self,
        writer: &mut Writer,
        root_meta: &mut Option<Meta>,
    ) -> Result<(Position, bool), WriteEnd> {
        let mut told = Instant::now();
        loop {
            let frame = self.link.receive().map_err(End::Wire)?.ok_or(End::Interrupted)?;
            if frame.kind != FrameKind::Message {
                writer.block(BlockReader::open(frame).map_err(End::Wire)?)?;
                if told.elapsed() >= PROGRESS {
                    told = Instant::now();
                    let progress = ToPrimary::Progress { files: writer.files_done, bytes: writer.bytes_done };
                    self.link.send(&progress).map_err(End::Wire)?;
                }
                continue;
            }
            match decode(&frame.body).map_err(End::Wire)? {
                ToReceiver::Heartbeat => {}
                ToReceiver::GetSignatures { requests } => {
                    for request in &requests {
                        signature::answer(request, writer.applier.parents(), &self.link.output).map_err(End::Wire)?;
                    }
                }
                _ if writer.is_inside_file() => return Err(misplaced("a message inside a file").into()),
                ToReceiver::Changes(changes) => {
                    writer.commit_batch()?;
                    for change in changes {
                        match change {
                            crate::wire::Change::SetDirectoryMeta { path, meta } if path.is_root() => {
                                *root_meta = Some(meta);
                            }
                            change => writer.change(change)?,
                        }
                    }
                }
                ToReceiver::EndOfContent => {
                    self.send_resend(&writer.end_of_content()?).map_err(End::Wire)?;
                }
                ToReceiver::Finish { position, record } => {
                    writer.commit_batch()?;
                    return Ok((position, record));
                }
                _ => return Err(misplaced("a question in the middle of changes").into()),
            }
        }
    }

    /// Says what is to be sent again.
    fn send_resend(&self, mut paths: &[RelPath]) -> Result<(), WireError> {
        loop {
            let (part, rest) = paths.split_at(paths.len().min(RESEND_PATHS));
            paths = rest;
            self.link.send(&ToPrimary::Resend { paths: part.to_vec(), last: paths.is_empty() })?;
            if paths.is_empty() {
                return Ok(());
            }
        }
    }

    fn finish(
        &mut self,
        mut writer: Writer,
        hello: &Hello,
        (position, wanted): (Position, bool),
        root_meta: Option<Meta>,
        keep_state: bool,
    ) -> Result<crate::wire::Committed, WriteEnd> {
        writer.applier.restore_loosened();
        writer.make_durable()?;
        if let (Some(fleet), true) = (&hello.fleet, wanted) {
            let state = record(hello, fleet, position);
            writer.staging.write_state(&state::encode(&state)).map_err(WriteError::Failed)?;
        }
        if writer.owners_denied > 0 {
            let own = geteuid().as_raw();
            let user = self.owners.user_name(own).unwrap_or_else(|| own.to_string());
            writer.outcome.notes.push(format!(
                "the owner of {} entries could not be set: the receiver runs as {user}, which may not give files away",
                writer.owners_denied
            ));
        }
        let root_local = root_meta.map(|meta| writer.local(&Kind::Directory, &meta));
        let Writer { staging, mut applier, mut outcome, .. } = writer;
        staging.finish(keep_state).map_err(WriteError::Failed)?;
        if let Some(local) = root_local {
            // Last of all: taking `.rfleet` away has changed the time.
            if let Err(error) = applier.set_meta(&RelPath::root(), &Kind::Directory, &local) {
                let kind = crate::tree::problem_kind(&error);
                outcome.problems.push(Problem::new(RelPath::root(), kind, error.to_string()));
            }
            if self.policy.durability == Durability::Commit {
                applier.sync().map_err(WriteError::Failed)?;
            }
        }
        outcome.position = position;
        Ok(outcome)
    }
}

/// The groups that an unprivileged process may give its files to.
fn own_groups() -> Vec<u32> {
    let mut groups = vec![getegid().as_raw()];
    groups.extend(getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
    groups
}

/// How taking changes can end early.
enum WriteEnd {
    Session(End),
    Write(WriteError),
}

impl From<End> for WriteEnd {
    fn from(end: End) -> Self {
        WriteEnd::Session(end)
    }
}

impl From<WriteError> for WriteEnd {
    fn from(error: WriteError) -> Self {
        WriteEnd::Write(error)
    }
}

impl WriteEnd {
    fn on(self, path: &std::path::Path) -> End {
        match self {
            WriteEnd::Session(end) => end,
            WriteEnd::Write(error) => write_refusal(path, &error),
        }
    }
}

fn record(hello: &Hello, fleet: &str, position: Position) -> RootState {
    RootState {
        fleet: fleet.to_owned(),
        root: hello.root.clone(),
        term: hello.term,
        primary: hello.primary.clone(),
        position,
    }
}

/// Refuses before anything is changed what would not fit.
fn check_room(root: &Root, begin: &Begin, path: &std::path::Path) -> Result<(), End> {
    let Ok(free) = root.free() else { return Ok(()) };
    if begin.need_bytes > 0 && begin.need_bytes.saturating_add(SPARE_BYTES) > free.bytes {
        let message = format!(
            "{}: the disk is too full: {} bytes are needed and {} are free; nothing was changed",
            path.display(),
            begin.need_bytes,
            free.bytes
        );
        return Err(refuse(RefusalKind::NoSpace, message));
    }
    if let Some(free_inodes) = free.inodes.filter(|free| begin.need_inodes > *free) {
        let message = format!(
            "{}: the filesystem has too few inodes: {} are needed and {} are free; nothing was changed",
            path.display(),
            begin.need_inodes,
            free_inodes
        );
        return Err(refuse(RefusalKind::NoSpace, message));
    }
    Ok(())
}

fn stage_refusal(path: &std::path::Path, error: &StageError) -> End {
    let kind = if matches!(error, StageError::Busy) { RefusalKind::Busy } else { RefusalKind::BadRoot };
    refuse(kind, format!("{}: {error}", path.display()))
}

fn write_refusal(path: &std::path::Path, error: &WriteError) -> End {
    match error {
        WriteError::NoSpace(error) => refuse(
            RefusalKind::NoSpace,
            format!("{}: no room is left: {error}; what was under way was discarded", path.display()),
        ),
        WriteError::Failed(error) => refuse(RefusalKind::Failed, format!("{}: {error}", path.display())),
        WriteError::Protocol(what) => misplaced(what),
    }
}
