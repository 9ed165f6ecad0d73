//! One session: which message may come when, and what answers it.
//!
//! ```text
//! Hello ─► Welcome ─► [List ─► Inventory ─► (GetDirectories, GetEntries)*] ─► end of input
//!                 └─► Begin ─► (Changes | block | GetSignatures | EndOfContent)* ─► Finish ─► Committed
//! ```
//!
//! After `Committed` all of it after `Welcome` may come again: a primary that stays keeps its session.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::ahead::Incoming;
use super::hooks::HookRunner;
use super::inventory::Listed;
use super::keep::{make_room, make_room_in_quota, open_staging};
use super::link::{PrimaryLink, standard_streams};
use super::owners::{Ownership, Process};
use super::policy::{Policy, Roots, TIMEOUT};
use super::protect::Protect;
use super::quota::Account;
use super::refusal::{End, WriteEnd, check_names, misplaced, refuse, stage_refusal, write_refusal};
use super::sandbox::Sandbox;
use super::shortfall::Teller;
use super::signature::Signatures;
use super::state::{self, unknown_position};
use super::writer::{WriteError, Writer};
use crate::model::{
    AttributeFidelity, Fidelity, OwnerMap, OwnerNames, Owners, Position, RelPath, Term, TimeFidelity, Timestamp,
    session_name,
};
use crate::tree::{Attic, Rights, Root, RootError, Staging, SystemOwners, read_state};
use crate::wire::{
    Begin, Committed, FrameKind, Hello, MAX_RESEND, Refusal, RefusalKind, RootState, ToPrimary, ToReceiver, Welcome,
    WireError, choose_protocol, decode,
};

/// A record is shorter.
const RECORD_BYTES: usize = 4096;

/// How long, in seconds, what is kept aside lies in one place of the attic.
const ATTIC_SECONDS: i64 = 300;

/// How often the primary is told how far we are.
const PROGRESS: Duration = Duration::from_millis(100);

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

/// Tells the time.
pub type Clock = fn() -> Timestamp;

/// Serves one primary on standard input and output. What is kept aside can be found by the time of `clock`;
/// `runner` runs its hooks, if the policy has any.
///
/// # Errors
/// [`ReceiveError`]; the root then holds only whole files, old or new.
pub fn serve(roots: &Roots, policy: &Policy, runner: Option<HookRunner>, clock: Clock) -> Result<(), ReceiveError> {
    let (input, output) = standard_streams().map_err(ReceiveError::Streams)?;
    // Before anything is read, and before there is a second thread.
    let sandbox = Sandbox::enter(policy.sandbox, roots);
    serve_on(input, output, roots, (policy, runner), sandbox, clock)
}

/// Tells whoever started this receiver why it does not serve.
pub fn refuse_to_start(message: &str) {
    let refusal = Refusal { kind: RefusalKind::Failed, message: message.to_owned() };
    if let Ok((input, output)) = standard_streams() {
        // As far as someone is there to be told.
        let _ = PrimaryLink::open(input, output, TIMEOUT).send(&ToPrimary::Refused(refusal));
    }
}

fn serve_on(
    input: OwnedFd,
    output: OwnedFd,
    roots: &Roots,
    (policy, runner): (&Policy, Option<HookRunner>),
    sandbox: Sandbox,
    clock: Clock,
) -> Result<(), ReceiveError> {
    let named = clock();
    let name = session_name(named, std::process::id());
    let mut link = PrimaryLink::open(input, output, policy.timeout);
    let (owners, process) = (SystemOwners::new(), Process::own());
    let ownership = Ownership::of(&policy.owner, &owners, &process).map_err(|why| refuse(RefusalKind::Policy, why));
    let outcome = ownership.and_then(|ownership| {
        Session { link: &mut link, policy, runner, sandbox, owners, process, ownership, name, named, clock }.run(roots)
    });
    match outcome {
        Err(End::Refused(refusal)) => {
            // Told as far as someone is left to tell.
            let _ = link.send(&ToPrimary::Refused(refusal.clone()));
            Err(refusal.into())
        }
        Err(End::Wire(error)) => Err(error.into()),
        Err(End::Interrupted) => Err(ReceiveError::Interrupted),
        Ok(()) => Ok(()),
    }
}

/// A root as it was found.
struct Found {
    path: std::path::PathBuf,
    root: Option<Root>,
    state: Option<RootState>,
}

/// What a round leaves.
struct Finished {
    outcome: Committed,
    attic: Attic,
    /// The record that was written.
    state: Option<RootState>,
}

struct Session<'a> {
    link: &'a mut PrimaryLink,
    policy: &'a Policy,
    runner: Option<HookRunner>,
    sandbox: Sandbox,
    owners: SystemOwners,
    process: Process,
    ownership: Ownership,
    /// In the attic.
    name: String,
    /// The time in it.
    named: Timestamp,
    clock: Clock,
}

impl Session<'_> {
    fn run(&mut self, roots: &Roots) -> Result<(), End> {
        let ToReceiver::Hello(hello) = self.message()?.ok_or(End::Interrupted)? else {
            return Err(misplaced("something else than a greeting"));
        };
        self.link.greeted();
        check_names(&hello)?;
        let mut found = self.open_root(roots, &hello)?;
        // A root that does not exist yet is judged by the directory that it would be made in.
        let place = found.root.clone().or_else(|| Root::open_parent(&found.path).ok());
        let fidelity = self.fidelity(&hello, place.as_ref());
        self.welcome(&hello, &found, place.as_ref(), fidelity)?;
        while let Some(begin) = self.compare(&mut found, &hello, fidelity)? {
            if hello.read_only {
                return Err(misplaced("a change in a comparison"));
            }
            found = self.write(&hello, found, fidelity, begin)?;
        }
        Ok(())
    }

    /// Looks again whether the root is the one that the primary knows of.
    fn look_again(&self, found: &Found) -> Result<(), End> {
        let stale = |why: &str| refuse(RefusalKind::Stale, format!("{}: {why} meanwhile", found.path.display()));
        let Some(before) = &found.root else { return Ok(()) };
        let now = Root::open(&found.path).map_err(|_| stale("it went away, or became something else,"))?;
        let same = now.identity().ok().zip(before.identity().ok()).is_some_and(|(now, before)| now == before);
        if same { Ok(()) } else { Err(stale("it became another directory or filesystem")) }
    }

    /// In the attic, what is kept in some minutes lies together: a session may last for weeks.
    fn rename(&mut self) {
        let now = (self.clock)();
        let age = now.secs.saturating_sub(self.named.secs);
        if !(0..ATTIC_SECONDS).contains(&age) {
            (self.name, self.named) = (session_name(now, std::process::id()), now);
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
                ToReceiver::Heartbeat => self.link.lives(false)?,
                message => return Ok(Some(message)),
            }
        }
    }

    fn open_root(&mut self, roots: &Roots, hello: &Hello) -> Result<Found, End> {
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
        self.sandbox.narrow(&path);
        self.link.start_heartbeat();
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

    /// What can be held at `place`, by the filesystem, this process's rights and the policy.
    fn fidelity(&self, hello: &Hello, place: Option<&Root>) -> Fidelity {
        let rights = Rights::own();
        // setuid would lend the rights of whoever owns the file here instead of its owner's at home.
        let setuid = self.policy.setuid && rights.sets_ids();
        let wanted = place.filter(|_| hello.attributes);
        let possible = wanted.and_then(|place| place.attributes(rights).ok()).unwrap_or(AttributeFidelity::NONE);
        Fidelity {
            owner: self.ownership.fidelity(&self.process),
            setuid,
            attributes: AttributeFidelity {
                capability: possible.capability && setuid,
                label: possible.label && self.policy.labels,
                ..possible
            },
            pipes: self.policy.devices,
            devices: self.policy.devices && rights.makes_devices(),
            times: place.and_then(|place| place.times().ok()).unwrap_or(TimeFidelity::FULL),
        }
    }

    fn welcome(&self, hello: &Hello, found: &Found, place: Option<&Root>, fidelity: Fidelity) -> Result<(), End> {
        let free = place.and_then(|place| place.free().ok());
        let welcome = Welcome {
            protocol: choose_protocol(hello.protocol_min, hello.protocol_max).unwrap_or_default(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            fidelity,
            allow_delete: self.policy.allow_delete,
            state: found.state.clone(),
            free_bytes: free.as_ref().map_or(u64::MAX, |free| free.bytes),
            free_inodes: free.as_ref().and_then(|free| free.inodes),
            writable: place.is_some_and(Root::is_writable),
            protect: self.policy.protect.lines().map(str::to_owned).collect(),
            notes: self.sandbox.note().into_iter().collect(),
        };
        Ok(self.link.send(&ToPrimary::Welcome(welcome))?)
    }

    /// Answers questions until changes begin, or the primary has seen enough.
    fn compare(&mut self, found: &mut Found, hello: &Hello, fidelity: Fidelity) -> Result<Option<Begin>, End> {
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
        self.look_again(found)?;
        let root = found.root.as_ref();
        let protect = Protect::of(&self.policy.protect, root);
        let listed =
            Listed::of(root, protect, fidelity, hello.checksum, &self.owners, &self.link.output).map_err(|error| {
                refuse(RefusalKind::BadRoot, format!("{}: cannot be listed: {error}", found.path.display()))
            })?;
        self.link.send(&ToPrimary::Inventory(listed.inventory.clone()))?;
        Ok(listed)
    }

    fn map_owners(&self, names: &OwnerNames) -> OwnerMap {
        self.ownership.map(names, &self.owners, &self.process)
    }

    fn write(&mut self, hello: &Hello, found: Found, fidelity: Fidelity, begin: Begin) -> Result<Found, End> {
        self.look_again(&found)?;
        self.rename();
        let Found { path, root, state: told } = found;
        if begin.deletions > 0 && !self.policy.allow_delete {
            let message = "deletions are not allowed here ([receive] allow_delete = false); nothing was changed";
            return Err(refuse(RefusalKind::Policy, message));
        }
        let root = match root {
            Some(root) => root,
            None => {
                // Not even the root is made for what would not fit.
                let place = Root::open_parent(&path).ok();
                self.account(&begin, &path, None, place.as_ref())?;
                let made = Root::open_or_create(&path);
                let root = made.map_err(|error| refuse(RefusalKind::BadRoot, error.to_string()))?;
                self.sandbox.narrow(&path);
                self.link.start_heartbeat();
                root
            }
        };
        let staging = open_staging(&root, &begin, &path, self.policy.attic)?;
        let bytes = staging.read_state().ok().flatten();
        // Once more, under the lock.
        let recorded = bytes.as_deref().and_then(state::decode);
        let is_own = |fleet: &str, state: &RootState| state.fleet == fleet && state.root == hello.root;
        if let (Some(fleet), Some(state)) = (&hello.fleet, &recorded)
            && !is_own(fleet, state)
            && !hello.adopt
        {
            // The primary's guard has refused this already, if it is honest.
            let message = format!("{} belongs to fleet {}", path.display(), state.fleet.escape_debug());
            return Err(refuse(RefusalKind::OtherFleet, message));
        }
        if hello.fleet.is_some() && recorded != told {
            let message = format!("{}: another push changed it meanwhile", path.display());
            return Err(refuse(RefusalKind::Stale, message));
        }
        let mut given_up = make_room(&staging, &root, &begin, &path)?;
        let mut account = match self.account(&begin, &path, Some(&root), Some(&root)) {
            Err(_) if self.policy.attic.is_some() => {
                given_up.add(make_room_in_quota(self.policy.quota, &staging, &root, &begin, &path)?);
                self.account(&begin, &path, Some(&root), Some(&root))?
            }
            account => account?,
        };
        let claim = match (&hello.fleet, &recorded) {
            // From here on the root is this fleet's, also if this push does not come to its end.
            (Some(fleet), state) => (!state.as_ref().is_some_and(|state| is_own(fleet, state)))
                .then(|| record(hello, fleet, Position::default())),
            // A push without configuration takes the root away from the position that its fleet knows.
            (None, state) => unknown_position(state.as_ref()),
        };
        if let Some(account) = &mut account {
            // The record, which is made beside the one that is there.
            account.charge(account.entry("state".len(), RECORD_BYTES as u64, 0));
        }
        if let Some(claim) = &claim {
            let written = staging.write_state(&state::encode(claim));
            written.map_err(|error| write_refusal(&path, &WriteError::Failed(error)))?;
        }
        if fidelity.attributes.acl {
            staging.shed_acls();
        }
        let owners = self.map_owners(&begin.names);
        let mut writer = Writer::new(&root, staging, &self.name, self.policy, fidelity, owners)
            .map_err(|error| write_refusal(&path, &WriteError::Failed(error)))?;
        (writer.deletions_left, writer.given_up) = (begin.deletions, given_up);
        writer.account = account;
        writer.state_before_moves = unknown_position(claim.as_ref().or(recorded.as_ref()));
        writer.foreign = self.ownership.foreign(&begin.names, &self.owners, &self.process);
        let signatures = Signatures::new(&root, writer.protect.clone(), &self.link.output);
        let keep_state = hello.fleet.is_some() || bytes.is_some();
        writer.expect_hooks(keep_state).map_err(|error| write_refusal(&path, &error))?;
        let finish = self.take_changes(&mut writer, signatures).map_err(|end| {
            writer.release_hooks();
            end.on(&path)
        })?;
        let finished = self.finish(writer, hello, finish, keep_state).map_err(|end| end.on(&path))?;
        self.link.send(&ToPrimary::Committed(finished.outcome))?;
        if let Some(retention) = self.policy.attic
            && let Err(error) = finished.attic.settle((self.clock)(), retention)
        {
            tracing::warn!("{}: the attic cannot be seen to: {error}", path.display());
        }
        let state = finished.state.or(claim).or(recorded);
        Ok(Found { path, root: Some(root), state })
    }

    /// What this host's quota leaves for what `begin` announces; `None` without a quota.
    fn account(
        &self,
        begin: &Begin,
        path: &std::path::Path,
        root: Option<&Root>,
        place: Option<&Root>,
    ) -> Result<Option<Account>, End> {
        let account = Account::open(self.policy.quota, root, place).map_err(|error| {
            let message = format!("{}: it cannot be counted for its quota: {error}", path.display());
            refuse(RefusalKind::BadRoot, message)
        })?;
        account.as_ref().map_or(Ok(()), |account| account.admit(begin, path))?;
        Ok(account)
    }

    /// Takes changes and content until the primary says that it was all.
    fn take_changes(&mut self, writer: &mut Writer, mut signatures: Signatures) -> Result<(Position, bool), WriteEnd> {
        let mut told = Instant::now();
        self.link.worked();
        loop {
            match self.link.receive_ahead().map_err(End::Wire)?.ok_or(End::Interrupted)? {
                Incoming::Block(block) => {
                    writer.block(block)?;
                    if told.elapsed() >= PROGRESS {
                        told = Instant::now();
                        let progress = ToPrimary::Progress { files: writer.files_done, bytes: writer.bytes_done };
                        self.link.send(&progress).map_err(End::Wire)?;
                    }
                }
                Incoming::Message(frame) => match decode(&frame.body).map_err(End::Wire)? {
                    ToReceiver::Heartbeat => {
                        self.link.lives(true).map_err(End::Wire)?;
                        continue;
                    }
                    ToReceiver::GetSignatures { requests } => {
                        for request in requests {
                            signatures.ask(request).map_err(WriteError::Failed)?;
                        }
                    }
                    _ if writer.is_inside_file() => return Err(misplaced("a message inside a file").into()),
                    ToReceiver::Changes(changes) => {
                        for change in changes {
                            writer.change(change)?;
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
                },
            }
            self.link.worked();
        }
    }

    /// Says what is to be sent again.
    fn send_resend(&self, mut paths: &[RelPath]) -> Result<(), WireError> {
        loop {
            let (part, rest) = paths.split_at(paths.len().min(MAX_RESEND));
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
        keep_state: bool,
    ) -> Result<Finished, WriteEnd> {
        let mut written = None;
        writer.applier.restore_loosened();
        // Before the record, which says that everything is done.
        if keep_state {
            writer.set_root_meta();
        }
        writer.make_durable()?;
        if let (Some(fleet), true) = (&hello.fleet, wanted) {
            // Whoever believes the record shall find everything: with less, the next push compares.
            let held = if writer.has_problems() { Position::default() } else { position };
            let state = record(hello, fleet, held);
            writer.staging.write_state(&state::encode(&state)).map_err(WriteError::Failed)?;
            written = Some(state);
        }
        writer.staging.finish(keep_state).map_err(WriteError::Failed)?;
        if !keep_state {
            // Only now: taking `.rfleet` away needs the right to write, and changes the time.
            writer.set_root_meta();
            writer.make_durable()?;
        }
        self.note_shortfalls(&mut writer);
        writer.outcome.position = position;
        // Still under the lock, so that hooks of two pushes do not run side by side.
        writer.outcome.hooks = writer.run_hooks(self.runner.as_mut(), &hello.root, &self.link.output);
        Ok(Finished { outcome: writer.outcome, attic: writer.attic, state: written })
    }

    /// What the operators of the primary should know of this push.
    fn note_shortfalls(&self, writer: &mut Writer) {
        writer.note_attic();
        writer.outcome.notes.extend(writer.spared.told());
        let own = self.process.uid;
        let teller = Teller {
            user: &self.owners.user_name(own).unwrap_or_else(|| own.to_string()),
            missing: &Rights::own().missing_to_give_away(),
            setuid: self.policy.setuid,
            labels: self.policy.labels,
        };
        writer.outcome.notes.extend(writer.short.told(&teller));
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
