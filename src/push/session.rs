//! One host's part of a push, from the first word to the last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::channel::{Channel, ChannelError, shortened, told};
use super::comparing::{mark_hidden, note_drift, note_kept, protected};
use super::contents::Contents;
use super::limit::Limits;
use super::line::Open;
use super::record::{Approach, Ended, Record};
use super::rendezvous::{Brought, Event, Verdict};
use super::report::{HostReport, HostState};
use super::source::Source;
use super::{HostJob, RootJob, inventory, transfer};
use crate::index::IndexError;
use crate::model::{Listing, Position, Problem, ProblemKind, RelPath};
use crate::observe::Phase;
use crate::payload::LogError;
use crate::plan::guard::{GuardRefusal, Ownership};
use crate::plan::{Plan, PlanOptions, Totals, itemize, leave_protected, plan};
use crate::transport::Exit;
use crate::wire::{
    Hello, Inventory, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, RefusalKind, RootState, ToPrimary, ToReceiver, Welcome,
};

/// Why a host's part ended early.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    /// It was not to be tried.
    #[error("{0}")]
    Held(String),
    /// No link.
    #[error("{0}")]
    Connect(String),
    /// The link, or what was said over it.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The content for this host is lost.
    #[error(transparent)]
    Content(#[from] LogError),
    /// The guard refused.
    #[error("{0}")]
    Guard(GuardRefusal),
    /// The source cannot be pushed at all; the report of the root says why.
    #[error("the source was refused")]
    NoSource,
    /// The push was told to stop.
    #[error("interrupted")]
    Stopped,
    /// The host does not have what its history says.
    #[error("what it has is not what it should have")]
    Drifted,
    /// The index fails.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// The source, once scanned; `Some(None)` if it was refused.
pub(super) type SourceReceiver = watch::Receiver<Option<Option<Arc<Source>>>>;

/// What all sessions of a push share.
pub(super) struct Context {
    pub(super) job: Arc<RootJob>,
    pub(super) source: SourceReceiver,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) started: Instant,
    /// Places for hosts that are being compared.
    pub(super) comparing: Semaphore,
    /// Places for hosts that are being sent to.
    pub(super) sending: Semaphore,
    /// One plan is made at a time: it takes milliseconds, and its memory serves the next one.
    pub(super) planning: Semaphore,
    /// The plans made so far, each once.
    pub(super) plans: Mutex<Vec<Planned>>,
    /// What is kept from push to push.
    pub(super) record: Option<Arc<Record>>,
}

/// A plan and what it refers to.
#[derive(Clone)]
pub(super) struct Planned {
    plan: Arc<Plan>,
    listing: Arc<Listing>,
    /// What the host has then.
    position: Position,
}

impl Context {
    /// Hosts in the same state have the same plan: for a large tree and many hosts, keeping one of
    /// them is what keeps memory small.
    fn share(&self, plan: Plan, listing: &Arc<Listing>, position: Position) -> Planned {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&Planned| {
            Arc::ptr_eq(&known.listing, listing) && known.position == position && *known.plan == plan
        };
        if let Some(same) = plans.iter().find(same) {
            return same.clone();
        }
        let planned = Planned { plan: Arc::new(plan), listing: Arc::clone(listing), position };
        plans.push(planned.clone());
        planned
    }
}

/// Brings the root to one host and says how it went.
pub(super) async fn run(context: Arc<Context>, host: usize, task: Arc<HostJob>) -> HostReport {
    let name = task.endpoint.name.clone();
    let monitor = Arc::clone(&context.job.monitor);
    let mut session =
        Session { context: &context, host, task: &task, compare: false, left: false, report: HostReport::new(&name) };
    let mut outcome = session.run().await;
    if matches!(outcome, Err(SessionError::Drifted)) {
        // What is there is not what history says: it is looked at.
        session.compare = true;
        // Its hooks have run, and those that failed are not run again.
        let HostReport { drifted, hooks, .. } = session.report;
        session.report = HostReport { drifted, hooks, ..HostReport::new(&name) };
        outcome = session.run().await;
    }
    // The meeting must not wait for a host that is done with; for one that was there it means nothing.
    let _ = context.events.send(Event::Gone(host));
    let mut report = session.report;
    report.seconds = context.started.elapsed().as_secs_f64();
    match outcome {
        Ok(state) => {
            let problems = !report.problems.is_empty() || report.more_problems > 0;
            let incomplete = problems || report.hooks.iter().any(|hook| !hook.ok);
            report.state = if incomplete && state != HostState::Planned { HostState::Partial } else { state };
        }
        Err(SessionError::Guard(refusal)) => {
            report.state = HostState::Refused;
            report.error = Some(refusal.to_string());
        }
        Err(SessionError::NoSource) => report.state = HostState::Refused,
        Err(error) => {
            report.state = HostState::Failed;
            report.fenced = matches!(
                &error,
                SessionError::Channel(ChannelError::Refused(Refusal { kind: RefusalKind::Fenced, .. }))
            );
            report.error = Some(report.error.unwrap_or_else(|| error.to_string()));
        }
    }
    let failed = report.state == HostState::Failed;
    monitor.phase(&name, if failed { Phase::Failed } else { Phase::Done });
    report
}

/// Does `work` unless the push is told to stop.
async fn unless_stopped<T>(
    stop: &watch::Receiver<bool>,
    work: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => done,
        _ = stop.wait_for(|stop| *stop) => Err(SessionError::Stopped),
    }
}

struct Session<'a> {
    context: &'a Context,
    host: usize,
    task: &'a HostJob,
    /// Everything is to be compared.
    compare: bool,
    /// Something was left there of which it is not sure whether it is gone.
    left: bool,
    report: HostReport,
}

/// What a session has agreed on with its host.
struct Agreed {
    welcome: Welcome,
    approach: Approach,
    /// It is known to lack something.
    lacks: bool,
}

/// A round that went well.
struct Round {
    state: HostState,
    welcome: Welcome,
    /// What the host has now.
    at: Position,
    /// Less something that it had problems with.
    lacks: bool,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<HostState, SessionError> {
        let job = &self.context.job;
        if let Some(why) = &self.task.held {
            return Err(SessionError::Held(why.clone()));
        }
        let open = self.task.line.as_ref().filter(|line| line.is_alive()).and_then(|line| line.take());
        if let Some(open) = open {
            match self.go_on(open).await {
                Err(SessionError::Channel(error)) if error.is_stale() => {
                    // It went away, or somebody else was there, since the last cycle: from the start, then.
                    self.report = HostReport::new(&self.report.name);
                }
                outcome => return outcome,
            }
        }
        job.monitor.phase(&self.report.name, Phase::Connecting);
        // The semaphore is never closed; its error would only mean no limit.
        let place = self.context.comparing.acquire().await.ok();
        let stop = job.stop.clone();
        let link = unless_stopped(&stop, async {
            self.task.endpoint.start(&self.task.receiver).await.map_err(SessionError::Connect)
        });
        let link = link.await;
        self.report.reached = match &link {
            Ok(_) => Some(true),
            Err(SessionError::Stopped) => None,
            Err(_) => Some(false),
        };
        let link = link?;
        let (monitor, name) = (Arc::clone(&job.monitor), self.report.name.clone());
        let on_progress = Box::new(move |files, bytes| monitor.progress(&name, files, bytes));
        let limits = Limits::new(self.task.endpoint.limiter.as_ref(), job.limiter.as_ref());
        let mut channel = Channel::open(link, job.timeout, limits, on_progress);
        let outcome = unless_stopped(&stop, self.talk(&mut channel, place)).await;
        self.end_round(channel, outcome, (0, 0)).await
    }

    /// Goes on with a session of an earlier cycle.
    async fn go_on(&mut self, open: Open) -> Result<HostState, SessionError> {
        let Open { mut channel, welcome, at, lacks } = open;
        self.report.reached = Some(true);
        channel.begin_round();
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let before = (count(&channel.shared.sent_bytes), count(&channel.shared.received_bytes));
        let place = self.context.comparing.acquire().await.ok();
        let stop = self.context.job.stop.clone();
        let round = async {
            let due = self.compare
                || self.task.compare
                || self.context.record.as_ref().is_none_or(|record| record.is_verify_due(&self.report.name));
            let approach = if due { Approach::Reconcile(Some(at)) } else { Approach::History(at) };
            self.tell(Event::Welcomed(self.host));
            if due {
                channel.send(&ToReceiver::List).await?;
            }
            self.round(&mut channel, place, Agreed { welcome, approach, lacks }).await
        };
        let outcome = unless_stopped(&stop, round).await;
        self.end_round(channel, outcome, before).await
    }

    /// Keeps the session for the next cycle. Where there is none, or it failed, the link is ended in order, so that the
    /// receiver can clean up.
    async fn end_round(
        &mut self,
        channel: Channel,
        outcome: Result<Round, SessionError>,
        (sent, received): (u64, u64),
    ) -> Result<HostState, SessionError> {
        let shared = Arc::clone(&channel.shared);
        let mut ended = None;
        let outcome = match (outcome, &self.task.line) {
            (Ok(Round { state, welcome, at, lacks }), Some(line)) => {
                line.put(Open { channel, welcome, at, lacks });
                Ok(state)
            }
            (outcome, _) => {
                ended = Some(channel.close().await);
                outcome.map(|round| round.state)
            }
        };
        self.report.bytes_sent = shared.sent_bytes.load(Ordering::Relaxed) - sent;
        self.report.bytes_received = shared.received_bytes.load(Ordering::Relaxed) - received;
        if let (Err(SessionError::Channel(error)), Some((exit, said))) = (&outcome, ended) {
            let unheard = shared.messages.load(Ordering::Relaxed) == 0;
            if unheard && matches!(error, ChannelError::Silent(_)) {
                // The link leads nowhere.
                self.report.reached = Some(false);
            }
            self.report.error = explain(error, exit, said, &self.task.receiver, unheard);
        }
        outcome
    }

    async fn talk(
        &mut self,
        channel: &mut Channel,
        comparing: Option<SemaphorePermit<'_>>,
    ) -> Result<Round, SessionError> {
        let agreed = self.greet(channel).await?;
        self.report.notes.extend(agreed.welcome.notes.iter().cloned().map(shortened));
        self.round(channel, comparing, agreed).await
    }

    /// From what is known of the host to what it is told, and has then.
    async fn round(
        &mut self,
        channel: &mut Channel,
        comparing: Option<SemaphorePermit<'_>>,
        agreed: Agreed,
    ) -> Result<Round, SessionError> {
        let job = Arc::clone(&self.context.job);
        let (source, agreed, planned) = self.plan(channel, agreed).await?;
        drop(comparing);
        self.report.notes.extend(source.counts.left_out(agreed.welcome.fidelity));
        let Planned { plan, listing, position } = &planned;
        let position = *position;
        self.report.totals = plan.totals;
        self.report.problems.extend(plan.problems.iter().cloned());
        if job.itemize {
            self.report.changes = itemize(plan, listing);
        }
        job.monitor.planned(&self.report.name, plan.files.len() as u64, plan.totals.content_bytes);
        job.monitor.phase(&self.report.name, Phase::Waiting);
        let (queries, signatures) = mpsc::unbounded_channel();
        let ownership = ownership(&job, agreed.welcome.state.as_ref());
        let is_recorded = ownership == Ownership::Own;
        let content = match self.meet(&planned, ownership, queries).await? {
            Verdict::Go(content) => content,
            Verdict::Refused(refusal) => return Err(SessionError::Guard(refusal)),
        };
        let from_history = matches!(agreed.approach, Approach::History(_));
        let mut round = Round {
            state: if plan.is_empty() { HostState::Unchanged } else { HostState::Done },
            welcome: agreed.welcome.clone(),
            at: position,
            lacks: (from_history && agreed.lacks) || self.left || !self.report.problems.is_empty(),
        };
        if job.dry_run {
            let state = if plan.is_empty() { HostState::Unchanged } else { HostState::Planned };
            return Ok(Round { state, ..round });
        }
        let recorded = agreed.welcome.state.as_ref().is_some_and(|state| {
            is_recorded && state.position == position && state.term == job.term && state.primary == job.primary
        });
        let record = job.fleet.is_some();
        if !plan.is_empty() || (record && !recorded) {
            let _sending = self.context.sending.acquire().await.ok();
            job.monitor.phase(&self.report.name, Phase::Sending);
            self.begin().await?;
            let remote = self.task.endpoint.is_remote();
            let times = agreed.welcome.fidelity.times;
            let lacks = round.lacks;
            let work =
                transfer::Work { job: &job, source: &source, listing, plan, remote, record, position, times, lacks };
            let done = transfer::run(channel, work, content, signatures, &mut self.report).await?;
            round.lacks |= done.lacks;
            round.welcome.state = job.fleet.clone().map(|fleet| RootState {
                fleet,
                root: job.name.clone(),
                term: job.term,
                primary: job.primary.clone(),
                position: done.recorded,
            });
        }
        (self.report.position, self.report.unsure) = (Some(position), self.left);
        self.report.reconciled = !from_history;
        self.note(&agreed, position, round.lacks).await?;
        Ok(round)
    }

    /// Remembers that the host is about to be changed.
    async fn begin(&self) -> Result<(), SessionError> {
        let Some(record) = self.context.record.clone() else { return Ok(()) };
        let name = self.report.name.clone();
        let noted = tokio::task::spawn_blocking(move || record.note_begun(&name)).await;
        Ok(noted.map_err(|error| SessionError::Connect(error.to_string()))??)
    }

    /// Remembers how far the host is, unless it has to be looked at first.
    async fn note(&mut self, agreed: &Agreed, position: Position, lacks: bool) -> Result<(), SessionError> {
        let Some(record) = self.context.record.clone() else { return Ok(()) };
        let surprise = |problem: &Problem| matches!(problem.kind, ProblemKind::Conflict | ProblemKind::Vanished);
        let from_history = matches!(agreed.approach, Approach::History(_));
        if from_history && self.report.problems.iter().any(surprise) {
            return Err(SessionError::Drifted);
        }
        let incomplete = self.left || lacks || !self.report.problems.is_empty() || self.report.more_problems > 0;
        let ended = Ended { position, reconciled: !from_history, fidelity: agreed.welcome.fidelity, incomplete };
        let name = self.report.name.clone();
        let noted = tokio::task::spawn_blocking(move || record.note_host(&name, ended)).await;
        Ok(noted.map_err(|error| SessionError::Connect(error.to_string()))??)
    }

    async fn greet(&mut self, channel: &mut Channel) -> Result<Agreed, SessionError> {
        let job = &self.context.job;
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            fleet: job.fleet.clone(),
            root: job.name.clone(),
            term: job.term,
            primary: job.primary.clone(),
            read_only: job.dry_run,
            checksum: job.checksum,
            adopt: job.guard.adopt,
            attributes: job.attributes,
        };
        channel.send(&ToReceiver::Hello(hello)).await?;
        // An absolute bound: whoever trickles bytes does not hold us longer than one who says nothing.
        let welcome =
            timeout(job.timeout, channel.receive()).await.map_err(|_| ChannelError::Silent(job.timeout))??;
        let ToPrimary::Welcome(welcome) = welcome else {
            return Err(ChannelError::Unexpected("something else than a welcome").into());
        };
        if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol) {
            return Err(ChannelError::Unexpected("a protocol that was not offered").into());
        }
        self.tell(Event::Welcomed(self.host));
        job.monitor.phase(&self.report.name, Phase::Comparing);
        let approach = match &self.context.record {
            Some(record) => record.approach(job, &self.report.name, &welcome),
            None => Approach::Reconcile(None),
        };
        let compare = self.compare || self.task.compare;
        let approach = match approach {
            Approach::History(position) if compare => Approach::Reconcile(Some(position)),
            approach => approach,
        };
        if let Approach::Reconcile(_) = approach {
            // It lists its root while the source is scanned.
            channel.send(&ToReceiver::List).await?;
        }
        Ok(Agreed { welcome, approach, lacks: false })
    }

    async fn source(&self) -> Option<Arc<Source>> {
        let mut source = self.context.source.clone();
        // The sender goes only after it has said something.
        let scanned = source.wait_for(Option::is_some).await.ok()?;
        scanned.as_ref()?.clone()
    }

    /// Makes the plan, from history or by comparing.
    async fn plan(
        &mut self,
        channel: &mut Channel,
        mut agreed: Agreed,
    ) -> Result<(Arc<Source>, Agreed, Planned), SessionError> {
        let delete = self.context.job.delete;
        let fidelity = agreed.welcome.fidelity;
        if let Approach::History(from) = agreed.approach {
            let Some(source) = self.source().await else { return Err(SessionError::NoSource) };
            let planning = Arc::clone(&source);
            let protect = protected(&agreed.welcome);
            let planned = self
                .aside(move || {
                    let Contents::Indexed(indexed) = &planning.contents else { return Ok(Err(None)) };
                    let position = indexed.freeze()?;
                    if !indexed.lock().knows(from)? {
                        return Ok(Err(None));
                    }
                    let Some(history) = indexed.history(from, fidelity, delete, &planning.root)? else {
                        return Ok(Err(Some(from)));
                    };
                    let (mut plan, listing) = (Arc::clone(&history.plan), Arc::clone(&history.listing));
                    if !protect.is_empty() {
                        leave_protected(Arc::make_mut(&mut plan), &listing, &protect);
                    }
                    // A look at a single path knows that it is gone; what came there since is news of its own.
                    let unsure = planning.whole && !plan.removals.is_empty();
                    let left = unsure && planning.confirm_removals(Arc::make_mut(&mut plan));
                    Ok(Ok((Planned { plan, listing, position }, left)))
                })
                .await?;
            match planned {
                Ok((planned, left)) => {
                    self.left = left;
                    return Ok((source, agreed, planned));
                }
                Err(from) => agreed.approach = Approach::Reconcile(from),
            }
            channel.send(&ToReceiver::List).await?;
        }
        let ToPrimary::Inventory(inventory) = channel.receive().await? else {
            return Err(ChannelError::Unexpected("something else than an inventory").into());
        };
        let Some(source) = self.source().await else { return Err(SessionError::NoSource) };
        let planned = self.compare(channel, &source, &agreed, &inventory).await?;
        Ok((source, agreed, planned))
    }

    /// Does blocking work on another thread.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, SessionError> {
        let turn = self.context.planning.acquire().await.ok();
        let done = tokio::task::spawn_blocking(work).await;
        drop(turn);
        let done = done.map_err(|error| SessionError::Connect(format!("the plan could not be made: {error}")))?;
        Ok(done?)
    }

    /// Makes the plan by comparing what the host has.
    async fn compare(
        &mut self,
        channel: &mut Channel,
        source: &Arc<Source>,
        agreed: &Agreed,
        inventory: &Inventory,
    ) -> Result<Planned, SessionError> {
        self.report.problems.extend(inventory.unreadable.iter().cloned().map(told));
        let (delete, fidelity) = (self.context.job.delete, agreed.welcome.fidelity);
        let Approach::Reconcile(at) = agreed.approach else { return Err(SessionError::NoSource) };
        let preparing = Arc::clone(source);
        let (position, table, past, hidden) = self
            .aside(move || {
                let position = preparing.contents.freeze()?;
                let table = preparing.tables.of(&preparing.contents, fidelity, position)?;
                let Contents::Indexed(indexed) = &preparing.contents else {
                    return Ok((position, table, None, Vec::new()));
                };
                let past = at.map(|at| indexed.history(at, fidelity, delete, &preparing.root)).transpose()?.flatten();
                let hidden = indexed.lock().hidden_changes(at.map(|at| at.sequence))?;
                Ok((position, table, past, hidden))
            })
            .await?;
        if inventory.digest == table.whole && inventory.unreadable.is_empty() && hidden.is_empty() {
            let totals = Totals { host_entries: inventory.entries, ..Totals::default() };
            let plan = Plan { totals, ..Plan::default() };
            return Ok(Planned { plan: Arc::new(plan), listing: Arc::default(), position });
        }
        let (scope, protect) = (Arc::clone(&source.scope), protected(&agreed.welcome));
        let excluded = move |path: &RelPath, dir: bool| scope.keeps(path, dir);
        let names = source.contents.names();
        let (mut destination, gone) =
            inventory::fetch(channel, names, (&table, source.counts.entries), &hidden, inventory, &excluded).await?;
        self.report.problems.extend(gone);
        let planning = Arc::clone(source);
        let (plan, listing, left) = self
            .aside(move || {
                let known = planning.contents.listing(&table, &destination, &hidden)?;
                let options = PlanOptions { delete, fidelity, excluded: &excluded, moves_along: &|_, _| true };
                let listing = mark_hidden(known.listing, &mut destination, &hidden);
                let mut plan = plan(&listing, &known.digests, &destination, &options);
                if !protect.is_empty() {
                    leave_protected(&mut plan, &listing, &protect);
                }
                let left = planning.confirm_removals(&mut plan);
                Ok((plan, listing, left))
            })
            .await?;
        self.left = left;
        note_kept(&mut self.report, &plan);
        if let (Some(_), Some(past)) = (at, past) {
            note_drift(&mut self.report, &plan, &listing, &past);
        }
        Ok(self.context.share(plan, &listing, position))
    }

    async fn meet(
        &self,
        planned: &Planned,
        ownership: Ownership,
        signatures: mpsc::UnboundedSender<super::signatures::SignatureQuery>,
    ) -> Result<Verdict, SessionError> {
        let (verdict, decided) = oneshot::channel();
        let Planned { plan, listing, .. } = planned.clone();
        self.tell(Event::Planned(self.host, Brought { plan, listing, ownership, signatures, verdict }));
        // Without an answer nothing was allowed: the guard has not spoken.
        decided.await.map_err(|_| SessionError::Stopped)
    }

    fn tell(&self, event: Event) {
        // The meeting outlives every session that it has not heard the end of.
        let _ = self.context.events.send(event);
    }
}

/// Whose a destination is by its record. A push without a fleet writes wherever it is told to.
fn ownership(job: &RootJob, state: Option<&RootState>) -> Ownership {
    match (&job.fleet, state) {
        (None, _) => Ownership::Own,
        (Some(_), None) => Ownership::Unknown,
        (Some(fleet), Some(state)) if state.fleet == *fleet && state.root == job.name => Ownership::Own,
        (Some(_), Some(state)) => {
            Ownership::Other { fleet: shortened(state.fleet.clone()), root: shortened(state.root.clone()) }
        }
    }
}

/// Puts what a shell, a missing program or a stranger did into words.
pub(super) fn explain(
    error: &ChannelError,
    exit: Exit,
    said: Option<String>,
    receiver: &[String],
    unheard: bool,
) -> Option<String> {
    let said = said.map(|said| format!(" (it said: {said})")).unwrap_or_default();
    let command = receiver.join(" ");
    match error {
        ChannelError::Closed if unheard && exit == Exit::NotFound => Some(format!(
            "`{command}` was not found there{said}; install rfleet on that host, or name its place with --receiver or \
             [ssh] receiver"
        )),
        ChannelError::Closed if unheard => {
            Some(format!("`{command}` ended before it said anything{said}; is it an rfleet receiver?"))
        }
        ChannelError::Closed => Some(format!("the connection ended in the middle{said}; the next push goes on")),
        ChannelError::Wire(wire) if unheard => Some(format!(
            "what answered is no rfleet receiver, or an older one, or its shell prints something first: {wire}{said}"
        )),
        ChannelError::Refused(_) => None,
        other => Some(format!("{other}{said}")),
    }
}
