//! One root as the agent keeps it: what is to be looked at, what each host has, which cycle may begin.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::barrier::Barriers;
use super::host::{Host, path_problem, typical};
use super::random;
use super::schedule::Schedule;
use super::settings::{HostSettings, RootSettings, Settings};
use super::unsent::Unsent;
use super::watching::start_watching;
use crate::model::{Position, RelPath, Sequence, Stamp, Timestamp};
use crate::observe::Monitor;
use crate::push::{Extent, GuardSettings, HostJob, HostReport, Kept, Looked, RootJob, RootReport};
use crate::status::{NAMED_PROBLEMS, RootState, RootStatus, WatchMode, WatchStatus};
use crate::tree::{Noticed, Root, RootIdentity, Watcher, watch_limit};

/// A root that a guard refuses is looked at again after this, and later each time.
const FIRST_REFUSAL: Duration = Duration::from_secs(2);

/// The longest of these.
const LONGEST_REFUSAL: Duration = Duration::from_secs(60);

/// Hosts that are expected back within this are waited for, so that all share one reading.
const GATHER: Duration = Duration::from_millis(500);

/// Changes of which it is kept since when they are known.
const MOST_CHANGES: usize = 4096;

/// One root.
pub(super) struct RootAgent {
    pub(super) settings: RootSettings,
    kept: Arc<Kept>,
    /// `None` where events are not wanted or cannot be had.
    pub(super) watcher: Option<Arc<Watcher>>,
    watch: WatchStatus,
    pub(super) schedule: Schedule,
    pub(super) hosts: Vec<Host>,
    pub(super) barriers: Barriers,
    /// The cycle whose look is under way.
    looking: Option<Look>,
    cycles: u64,
    /// Cycles that are not over.
    pub(super) running: BTreeSet<u64>,
    /// What the source is at.
    head: Option<Position>,
    /// Changes: the number of the last of some, and since when these are known.
    changes: VecDeque<(Sequence, Instant)>,
    /// How long hosts take, about.
    typical: Duration,
    due_since: Option<Instant>,
    refusals: u32,
    held_until: Option<Instant>,
    identity: Option<RootIdentity>,
    status: RootStatus,
    /// Where that is which could not be sent.
    unsent: (mpsc::UnboundedSender<RelPath>, mpsc::UnboundedReceiver<RelPath>),
    tries: Unsent,
    /// Turns true when cycles are to stop where they are.
    pub(super) stop: watch::Sender<bool>,
}

struct Look {
    cycle: u64,
    since: Instant,
    began: Instant,
    whole: bool,
}

/// A cycle that is to begin.
pub(super) struct Begun {
    pub(super) cycle: u64,
    pub(super) job: RootJob,
    pub(super) hosts: Vec<HostJob>,
    pub(super) looked: oneshot::Receiver<Looked>,
    pub(super) ended: mpsc::UnboundedReceiver<HostReport>,
}

/// What was delivered to a host by the end of its part.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Delivered {
    /// For each group of changes, how long after it was noticed.
    pub(super) after: Vec<Duration>,
}

impl RootAgent {
    pub(super) fn new(settings: RootSettings, all: &Settings, now: Instant) -> Self {
        let (watcher, watch) = start_watching(&settings, all.events);
        let status = RootStatus {
            name: settings.name.clone(),
            path: settings.path.display().to_string(),
            ..RootStatus::default()
        };
        RootAgent {
            kept: Arc::default(),
            watcher,
            watch,
            schedule: Schedule::new(all.timing, now),
            hosts: Vec::new(),
            barriers: Barriers::default(),
            looking: None,
            cycles: 0,
            running: BTreeSet::new(),
            head: None,
            changes: VecDeque::new(),
            typical: Duration::from_millis(5),
            due_since: None,
            refusals: 0,
            held_until: None,
            identity: None,
            status,
            unsent: mpsc::unbounded_channel(),
            tries: Unsent::default(),
            stop: watch::channel(false).0,
            settings,
        }
    }

    /// Takes over the hosts of new settings; those that are the same stay as they are.
    pub(super) fn take_hosts(&mut self, hosts: &[HostSettings]) {
        let mut before = std::mem::take(&mut self.hosts);
        for settings in hosts {
            let same = before.iter().position(|host| host.settings.identity == settings.identity);
            let host = match same {
                Some(at) => before.swap_remove(at),
                None => Host::new(settings.clone()),
            };
            self.hosts.push(host);
        }
    }

    /// Takes in what could not be sent.
    pub(super) fn note_unsent(&mut self, now: Instant) {
        while let Ok(path) = self.unsent.1.try_recv() {
            let rest = self.tries.rest(&path, now);
            self.schedule.want(path, rest, now);
        }
    }

    /// Looks at events without waiting for any.
    pub(super) fn read_events(&mut self, now: Instant) {
        let Some(watcher) = self.watcher.clone() else { return };
        let (schedule, watch) = (&mut self.schedule, &mut self.watch);
        let read = watcher.read(&mut |noticed| match noticed {
            Noticed::At(path, how) => schedule.note(path, how, now),
            Noticed::Lost => {
                watch.overflows += 1;
                schedule.want_whole(now);
            }
        });
        if let Err(error) = read {
            self.watch.reason = Some(format!("events cannot be read: {error}"));
            self.blind(now);
        }
    }

    /// Events are not to be relied on: a new watcher is made, and everything is scanned.
    pub(super) fn blind(&mut self, now: Instant) {
        let reason = self.watch.reason.take();
        let overflows = self.watch.overflows;
        (self.watcher, self.watch) = start_watching(&self.settings, self.watcher.is_some());
        self.watch.overflows = overflows;
        self.watch.reason = self.watch.reason.take().or(reason);
        self.kept.forget();
        self.schedule.want_whole(now);
    }

    /// Whether the root is the directory that it was; if not, everything is looked at. Costs two system calls.
    pub(super) fn check_identity(&mut self, now: Instant) {
        let found = Root::open(&self.settings.path).ok().and_then(|root| root.identity().ok());
        if self.identity.is_some() && found != self.identity {
            tracing::warn!("root {}: the source is another directory or filesystem than before", self.settings.name);
            self.held_until = None;
            self.refusals = 0;
            self.blind(now);
        }
        self.identity = found;
    }

    /// When something is to be done that only time brings.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let far = now + Duration::from_secs(3600);
        if self.looking.is_some() || self.waits_for_all() {
            // What ends that tells so.
            return far;
        }
        let hosts = self.hosts.iter().filter_map(Host::next);
        let look = Some(self.schedule.next());
        let gather = self.due_since.map(|since| since + GATHER.min(self.typical * 2));
        let next = hosts.chain(look).chain(gather).min().unwrap_or(far);
        self.held_until.map_or(next, |held| held.max(next))
    }

    /// Whether nothing can begin before a host is back.
    fn waits_for_all(&self) -> bool {
        let busy = self.hosts.iter().any(|host| host.busy.is_some());
        busy && self.hosts.iter().all(|host| host.busy.is_some() || host.paused)
    }

    /// Begins a cycle if there is a reason to, and somebody to send to.
    pub(super) fn begin(
        &mut self,
        all: &Settings,
        (now, time): (Instant, Timestamp),
        monitor: Arc<dyn Monitor>,
    ) -> Option<Begun> {
        if self.looking.is_some() || self.held_until.is_some_and(|held| held > now) {
            return None;
        }
        let is_due = self.schedule.next() <= now;
        let is_wanted = |host: &Host| host.is_ready(now) && self.head.is_some_and(|head| host.wants(head, now));
        if !is_due && !self.hosts.iter().any(is_wanted) {
            return None;
        }
        if self.waits_for_hosts(now) {
            return None;
        }
        self.due_since = None;
        let due = self.schedule.take(now);
        self.cycles += 1;
        let (extent, since) = match due {
            Some(due) => (due.paths.map_or(Extent::Whole, |paths| Extent::Paths(Arc::new(paths))), due.since),
            None => (Extent::Paths(Arc::default()), now),
        };
        let cycle = self.cycles;
        self.looking = Some(Look { cycle, since, began: now, whole: matches!(extent, Extent::Whole) });
        self.running.insert(cycle);
        self.barriers.look_begins(cycle);
        let mut ready: Vec<&mut Host> = self.hosts.iter_mut().filter(|host| host.is_ready(now)).collect();
        // The first is asked what all others have, too.
        ready.sort_by_key(|host| host.pace());
        let root = all.roots.iter().position(|root| root.name == self.settings.name)?;
        let hosts: Vec<HostJob> = ready
            .into_iter()
            .inspect(|host| host.settings.endpoint.forget_failure())
            .map(|host| HostJob {
                compare: host.begin(cycle, now),
                endpoint: Arc::clone(&host.settings.endpoint),
                receiver: host.settings.receivers.get(root).cloned().unwrap_or_default(),
                held: None,
                line: Some(Arc::clone(&host.line)),
            })
            .collect();
        let (tell_looked, looked) = oneshot::channel();
        let (tell_ended, ended) = mpsc::unbounded_channel();
        let job =
            RootJob { looked: Some(tell_looked), ended: Some(tell_ended), ..self.job(all, extent, time, monitor) };
        Some(Begun { cycle, job, hosts, looked, ended })
    }

    /// Whether hosts that are at work are likely to be back soon. Those that take much longer than usual are not
    /// waited for.
    fn waits_for_hosts(&mut self, now: Instant) -> bool {
        let at_work = |host: &Host| host.busy.map(|(_, since)| now.saturating_duration_since(since));
        let soon = self.hosts.iter().filter_map(at_work).any(|age| age < GATHER.min(self.typical * 3));
        if !soon {
            // Changes wait for somebody to send them to; a scan of everything tells the status at least.
            let idle = self.hosts.iter().all(|host| !host.is_ready(now));
            let busy = self.hosts.iter().any(|host| host.busy.is_some());
            return idle && busy;
        }
        let since = *self.due_since.get_or_insert(now);
        now.saturating_duration_since(since) < GATHER.min(self.typical * 2)
    }

    fn job(&self, all: &Settings, extent: Extent, time: Timestamp, monitor: Arc<dyn Monitor>) -> RootJob {
        let settings = &self.settings;
        RootJob {
            fleet: Some(all.fleet.clone()),
            name: settings.name.clone(),
            path: settings.path.clone(),
            require: settings.require.clone(),
            local_destinations: Vec::new(),
            selection: settings.selection.clone(),
            delete_excluded: settings.delete_excluded,
            delete: settings.delete,
            checksum: false,
            attributes: settings.attributes,
            extent,
            kept: Some(Arc::clone(&self.kept)),
            watcher: self.watcher.clone(),
            looked: None,
            ended: None,
            unsent: Some(self.unsent.0.clone()),
            dry_run: false,
            itemize: false,
            record: Some(settings.record.at(time, Stamp(random().max(1)), false)),
            memory: None,
            guard: GuardSettings { max_delete: settings.max_delete, confirmed: Vec::new(), adopt: false },
            term: all.term,
            primary: all.host.clone(),
            timeout: all.timeout,
            parallel: all.parallel,
            limiter: all.limiter.clone(),
            monitor,
            stop: self.stop.subscribe(),
        }
    }

    /// The look of `cycle` is over; `None`: a guard refused.
    pub(super) fn looked(&mut self, cycle: u64, looked: Option<Looked>, (now, now_ms): (Instant, u64)) {
        let Some(look) = self.looking.take_if(|look| look.cycle == cycle) else { return };
        let took = now.saturating_duration_since(look.began);
        let Some(looked) = looked else {
            self.refusals = self.refusals.saturating_add(1);
            let factor = 2_u32.saturating_pow(self.refusals.saturating_sub(1));
            let rest = FIRST_REFUSAL.saturating_mul(factor).min(LONGEST_REFUSAL);
            self.held_until = Some(now + rest);
            self.schedule.failed(now, rest);
            return;
        };
        self.note_unwatched(&looked);
        let advanced = self.head.is_none_or(|head| head.sequence < looked.position.sequence);
        if looked.whole {
            if !look.whole {
                // It took more than was asked for: what that is called is told by `scans`.
                tracing::debug!("root {}: everything was scanned", self.settings.name);
            }
            self.status.scans += 1;
            (self.status.scan_s, self.status.scanned_ms) = (Some(took.as_secs_f64()), Some(now_ms));
            let all_noticed = self.watch.mode == WatchMode::Events && self.watch.reason.is_none();
            self.schedule.scanned(now, took, all_noticed, advanced);
        }
        if looked.passed {
            self.schedule.doubt(now);
        }
        self.status.entries = looked.entries;
        if advanced {
            self.changes.push_back((looked.position.sequence, look.since));
            self.trim();
        }
        self.head = Some(looked.position);
        for host in self.hosts.iter_mut().filter(|host| host.busy.is_some_and(|(busy, _)| busy == cycle)) {
            host.offered = Some(looked.position);
        }
        self.barriers.look_ended(cycle, looked.position.sequence);
    }

    fn note_unwatched(&mut self, looked: &Looked) {
        let unwatched = &looked.unwatched;
        if unwatched.directories > 0 {
            let watched = self.watcher.as_ref().map_or(0, |watcher| watcher.directories());
            let limit = watch_limit().map_or_else(|| "unknown".to_owned(), |limit| limit.to_string());
            let why = unwatched.error.clone().unwrap_or_else(|| {
                format!(
                    "{} directories need a watch, and the limit of this user ({limit}, fs.inotify.max_user_watches) leaves \
                     {} without one; raise it: sysctl -w fs.inotify.max_user_watches={}",
                    watched as u64 + unwatched.directories,
                    unwatched.directories,
                    (watched as u64 + unwatched.directories).saturating_mul(2).next_power_of_two().max(65_536),
                )
            });
            self.watch.reason = Some(why);
        } else if looked.whole && self.watcher.is_some() {
            self.watch.reason = None;
        }
    }

    /// Forgets changes that every host has, and then every other one, but the oldest.
    fn trim(&mut self) {
        let lowest = self.hosts.iter().map(|host| host.at.map_or(Sequence(0), |at| at.sequence)).min();
        let lowest = lowest.or(self.head.map(|head| head.sequence)).unwrap_or(Sequence(0));
        while self.changes.front().is_some_and(|(sequence, _)| *sequence <= lowest) {
            self.changes.pop_front();
        }
        if self.changes.len() > MOST_CHANGES {
            let all = std::mem::take(&mut self.changes);
            self.changes = all.into_iter().enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, one)| one).collect();
        }
    }

    /// A host's part of `cycle` is over.
    pub(super) fn host_ended(&mut self, cycle: u64, report: &HostReport, times: (Instant, u64)) -> Delivered {
        let now = times.0;
        let Some(host) = self.hosts.iter_mut().find(|host| host.settings.name == report.name) else {
            return Delivered::default();
        };
        let Some((_, began)) = host.busy.filter(|(busy, _)| *busy == cycle) else { return Delivered::default() };
        let before = host.at.map(|at| at.sequence);
        host.end(report, times, random());
        let after = host.at.map(|at| at.sequence);
        if after.is_some() {
            self.typical = typical(self.typical, now.saturating_duration_since(began));
        }
        let (Some(before), Some(after)) = (before, after) else { return Delivered::default() };
        let delivered =
            self.changes.iter().filter(|(sequence, _)| (before..=after).contains(sequence) && *sequence > before);
        Delivered { after: delivered.map(|(_, since)| now.saturating_duration_since(*since)).collect() }
    }

    /// All of `cycle` is over.
    pub(super) fn ended(&mut self, cycle: u64, report: &RootReport, now: Instant) {
        self.running.remove(&cycle);
        for host in self.hosts.iter_mut().filter(|host| host.busy.is_some_and(|(busy, _)| busy == cycle)) {
            // Its part ended without a word.
            host.busy = None;
        }
        self.status.notes.clone_from(&report.notes);
        self.status.refused = report.refused.as_ref().map(ToString::to_string);
        if let Some(refusal) = &self.status.refused {
            tracing::error!("root {}: refused: {refusal}", self.settings.name);
            self.status.state = RootState::Refused;
            if self.held_until.is_none_or(|held| held <= now) {
                // The plan was refused, not the source: the same again in a while.
                self.refusals = self.refusals.saturating_add(1);
                let factor = 2_u32.saturating_pow(self.refusals.saturating_sub(1));
                self.held_until = Some(now + FIRST_REFUSAL.saturating_mul(factor).min(LONGEST_REFUSAL));
            }
        } else {
            (self.refusals, self.held_until) = (0, None);
            self.status.state = RootState::Ok;
            self.status.bytes = report.bytes;
            self.status.problems = report.problems.iter().take(NAMED_PROBLEMS).map(path_problem).collect();
            self.status.problem_count = report.problems.len() as u64;
        }
        self.trim();
    }

    /// The age of the oldest change that a host at `at` does not have.
    fn lag(&self, at: Option<Position>, now: Instant) -> Duration {
        let has = at.map_or(Sequence(0), |at| at.sequence);
        let oldest = self.changes.iter().find(|(sequence, _)| *sequence > has);
        oldest.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }

    /// Everything is looked at and tried at once, whatever was refused or failed before. With `compare` everything on
    /// the hosts is compared.
    pub(super) fn push_now(&mut self, compare: bool, now: Instant) {
        (self.refusals, self.held_until) = (0, None);
        self.schedule.want_whole(now);
        for host in &mut self.hosts {
            host.compare |= compare;
            host.try_now();
        }
    }

    /// Where the source is; `None` before the first look.
    pub(super) fn head(&self) -> Option<Position> {
        self.head
    }

    /// Whether a look is under way, and of which cycle.
    pub(super) fn looking(&self) -> Option<u64> {
        self.looking.as_ref().map(|look| look.cycle)
    }

    /// What there is to say of it.
    pub(super) fn status(&mut self, (now, now_ms): (Instant, u64)) -> RootStatus {
        let lags: Vec<Duration> = self.hosts.iter().map(|host| self.lag(host.at, now)).collect();
        let head = self.head;
        let hosts = self.hosts.iter_mut().zip(lags).map(|(host, lag)| host.status(head, lag, (now, now_ms)));
        let hosts = hosts.collect();
        let directories = self.watcher.as_ref().map_or(0, |watcher| watcher.directories() as u64);
        let mode = match (&self.watcher, &self.watch.reason) {
            (Some(_), None) => WatchMode::Events,
            _ => WatchMode::Scans,
        };
        RootStatus {
            sequence: head.map_or(0, |head| head.sequence.0),
            dirty: self.schedule.dirty() as u64,
            watch: WatchStatus { mode, directories, ..self.watch.clone() },
            hosts,
            ..self.status.clone()
        }
    }

    /// Why it is not as it should be, though no host is to blame.
    pub(super) fn troubles(&self, now: Instant, late: Duration) -> impl Iterator<Item = String> {
        let watch = self.watch.reason.clone();
        let refused = self.status.refused.as_ref().map(|refused| format!("refused: {refused}"));
        let look = self.looking.as_ref().map(|look| now.saturating_duration_since(look.began));
        let look = look.filter(|age| *age > late).map(|age| format!("it is being looked at for {} s", age.as_secs()));
        let held_up = self.hosts.iter().filter(|host| host.failures() == 0 && !host.paused);
        let held_up: Vec<String> = held_up
            .filter_map(|host| {
                let lag = self.lag(host.at, now);
                let name = &host.settings.name;
                (lag > late)
                    .then(|| format!("{name} lacks what changed {} s ago, and it is not known why", lag.as_secs()))
            })
            .collect();
        let held_up = if self.held_until.is_some() { Vec::new() } else { held_up };
        watch.into_iter().chain(refused).chain(look).chain(held_up)
    }

    /// Whether nothing moves any more.
    pub(super) fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        let look = self.looking.as_ref().is_some_and(|look| now.saturating_duration_since(look.began) > patience);
        let lagging = |host: &Host| host.busy.is_none() && host.is_ready(now) && self.lag(host.at, now) > patience;
        look || (self.held_until.is_none() && self.hosts.iter().any(lagging))
    }

    /// Whether the first cycle is done.
    pub(super) fn has_begun(&self) -> bool {
        self.status.state != RootState::Unknown
    }
}
