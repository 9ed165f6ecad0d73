//! The loop: the next event, what it changes, what is due then.

mod ending;
mod publish;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::canary::Canary;
use super::control::{self, Asked};
use super::doing::DoingNow;
use super::notify::Manager;
use super::pushes::Pushes;
use super::root::{Begun, RootAgent};
use super::settings::Settings;
use super::tell;
use super::{Reload, Times, millis, now};
use crate::control::{HostAction, HostDone, Refusal, WaitDone, WaitHosts};
use crate::push::{HostReport, HostState, Looked, RootReport, push_root};
use crate::status::{FleetStatus, Role};
use crate::tree::Watcher;

/// How often what only a look can tell is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Between two reports of how the fleet is, while much happens.
const STATUS_STEP: Duration = Duration::from_millis(200);

/// How often a thread that waits for events looks whether anybody still wants them.
const LOOK_UP: Duration = Duration::from_secs(5);

/// The least time between two tellings that there are events.
const BLINK: Duration = Duration::from_millis(1);

/// Work that has not moved for so many times the patience with a host does not move any more.
const STUCK: u32 = 40;

/// Why an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Too many cycles in a row failed.
    Failing,
    /// A newer primary exists.
    Fenced,
}

enum Event {
    Looked(String, u64, Option<Looked>),
    HostEnded(String, u64, Box<HostReport>),
    CycleEnded(String, u64, Box<RootReport>, Instant),
    Asked(Asked),
}

/// Runs until it is told to stop. `status` is kept up to date.
///
/// # Errors
/// One line: the socket or the signals cannot be had.
pub async fn run(
    settings: Settings,
    reload: Reload,
    times: Arc<dyn Times>,
    status: watch::Sender<Arc<FleetStatus>>,
) -> Result<Ended, String> {
    let failed = |error: std::io::Error| format!("signals cannot be waited for: {error}");
    let signals = Signals {
        stop: [signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?],
        reload: signal(SignalKind::hangup()).map_err(failed)?,
    };
    let (outbox, inbox) = mpsc::unbounded_channel();
    let asked = outbox.clone();
    // Whoever asks after the end gets no answer, and sees the socket close.
    let tell = move |what| drop(asked.send(Event::Asked(what)));
    let socket = control::listen(&settings.state, tell, status.subscribe())?;
    let started = Instant::now();
    let owner = Owner {
        canary: Canary::new(&settings.state),
        manager: Manager::new(),
        roots: Vec::new(),
        doing: HashMap::new(),
        eyes: Arc::default(),
        eyes_of: HashMap::new(),
        outbox,
        times,
        reload,
        status,
        pushes: Pushes::default(),
        started: (started, millis(now())),
        published: None,
        ticked: None,
        failures: 0,
        ended: None,
        stopping: None,
        settings,
    };
    let ended = owner.run(inbox, signals).await;
    drop(socket);
    Ok(ended)
}

struct Signals {
    stop: [Signal; 2],
    reload: Signal,
}

/// What woke the owner.
enum Woken {
    Event(Event),
    Eyes,
    Time,
    Stop,
    Reload,
}

struct Owner {
    settings: Settings,
    roots: Vec<RootAgent>,
    doing: HashMap<String, Arc<DoingNow>>,
    /// Told when there are events to be read.
    eyes: Arc<Notify>,
    eyes_of: HashMap<String, Weak<Watcher>>,
    outbox: mpsc::UnboundedSender<Event>,
    manager: Manager,
    canary: Canary,
    times: Arc<dyn Times>,
    reload: Reload,
    status: watch::Sender<Arc<FleetStatus>>,
    pushes: Pushes,
    started: (Instant, u64),
    published: Option<Instant>,
    ticked: Option<Instant>,
    /// Cycles in a row that came to nothing.
    failures: u32,
    ended: Option<Ended>,
    /// When to end at the latest.
    stopping: Option<Instant>,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>, mut signals: Signals) -> Ended {
        self.take_settings(self.settings.clone(), Instant::now());
        self.manager.ready();
        let ended = loop {
            let now = Instant::now();
            self.act(now);
            if let Some(ended) = self.is_over(now) {
                break ended;
            }
            let [terminate, interrupt] = &mut signals.stop;
            let woken = tokio::select! {
                Some(event) = inbox.recv() => Woken::Event(event),
                () = self.eyes.notified() => Woken::Eyes,
                () = tokio::time::sleep_until(self.next(now).into()) => Woken::Time,
                _ = terminate.recv() => Woken::Stop,
                _ = interrupt.recv() => Woken::Stop,
                _ = signals.reload.recv() => Woken::Reload,
            };
            let now = Instant::now();
            match woken {
                Woken::Event(event) => {
                    self.take(event, now);
                    // What came together is acted on together.
                    while let Ok(event) = inbox.try_recv() {
                        self.take(event, now);
                    }
                }
                Woken::Eyes => self.roots.iter_mut().for_each(|root| root.read_events(now)),
                Woken::Time => {}
                Woken::Stop => self.stop(now),
                Woken::Reload => self.load_again(now),
            }
        };
        self.say_farewell(inbox).await;
        ended
    }

    fn next(&self, now: Instant) -> Instant {
        let roots = self.roots.iter().map(|root| root.next(now)).min();
        let tick = self.ticked.map_or(now, |ticked| ticked + TICK);
        // Whatever was due a moment ago and could not begin is tried again, but not without rest.
        roots.map_or(tick, |next| next.min(tick)).max(now + Duration::from_millis(1))
    }

    fn take(&mut self, event: Event, now: Instant) {
        let times = (now, millis(super::now()));
        match event {
            Event::Looked(name, cycle, looked) => {
                let Some(root) = self.roots.iter_mut().find(|root| root.settings.name == name) else { return };
                if looked.is_none() {
                    root.barriers.look_failed(cycle);
                }
                root.looked(cycle, looked, times);
            }
            Event::HostEnded(name, cycle, report) => self.host_ended(&name, cycle, &report, times),
            Event::CycleEnded(name, cycle, report, began) => {
                let took = now.saturating_duration_since(began);
                self.times.cycle(&name, took);
                self.count_failures(&report);
                tell::say(&report, took);
                self.pushes.cycle_ended(&name, cycle, &report);
                if let Some(root) = self.roots.iter_mut().find(|root| root.settings.name == name) {
                    root.ended(cycle, &report, now);
                }
            }
            Event::Asked(asked) => self.answer(asked, now),
        }
    }

    fn host_ended(&mut self, name: &str, cycle: u64, report: &HostReport, times: (Instant, u64)) {
        if report.fenced {
            self.ended = Some(Ended::Fenced);
        }
        let Some(root) = self.roots.iter_mut().find(|root| root.settings.name == name) else { return };
        if matches!(report.state, HostState::Done | HostState::Partial) {
            self.times.commit(name, &report.name, Duration::try_from_secs_f64(report.seconds).unwrap_or_default());
        }
        for after in root.host_ended(cycle, report, times).after {
            self.times.delivered(name, &report.name, after);
        }
    }

    fn count_failures(&mut self, report: &RootReport) {
        let works = |host: &HostReport| !matches!(host.state, HostState::Failed | HostState::Refused);
        let failed = report.refused.is_some() || (!report.hosts.is_empty() && !report.hosts.iter().any(works));
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        if self.settings.max_failures > 0 && self.failures >= self.settings.max_failures {
            self.ended = Some(Ended::Failing);
        }
    }

    /// Begins what is due, answers who waits, tells how things are.
    fn act(&mut self, now: Instant) {
        if self.ticked.is_none_or(|ticked| now.duration_since(ticked) >= TICK) {
            self.tick(now);
        }
        for at in 0..self.roots.len() {
            self.roots[at].note_unsent(now);
            let name = &self.roots[at].settings.name;
            let doing = Arc::clone(self.doing.entry(name.clone()).or_default());
            while let Some(mut begun) = self.roots[at].begin(&self.settings, (now, super::now()), doing.clone()) {
                self.pushes.begin(&self.roots[at].settings.name, begun.cycle, &mut begun.job);
                spawn(self.roots[at].settings.name.clone(), begun, &self.outbox);
            }
            let root = &mut self.roots[at];
            let hosts: Vec<_> =
                root.hosts.iter().map(|host| (host.settings.name.as_str(), host.has().map(|at| at.sequence))).collect();
            root.barriers.answer(&hosts);
            self.pushes.answer(root, now);
        }
        if self.published.is_none_or(|published| now.duration_since(published) >= STATUS_STEP) {
            self.publish(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.ticked = Some(now);
        if !self.canary.probe(now) {
            self.roots.iter_mut().for_each(|root| root.blind(now));
            self.canary = Canary::new(&self.settings.state);
            tracing::error!("file events do not come any more: everything is scanned, and watched anew");
        }
        for root in &mut self.roots {
            root.check_identity(now);
            for host in &mut root.hosts {
                if host.busy.is_none() && host.at.is_some() && !host.line.is_alive() {
                    // It is greeted again, and says itself what it has.
                    host.at = None;
                }
            }
        }
        self.open_eyes();
        let line = self.summary(now);
        if !self.roots.iter().any(|root| root.is_stuck(now, self.settings.timeout * STUCK)) {
            self.manager.alive(now, &line);
        }
    }

    /// Has events of each root waited for.
    fn open_eyes(&mut self) {
        for root in &self.roots {
            let name = &root.settings.name;
            let known = self.eyes_of.get(name).map(Weak::as_ptr);
            if known == root.watcher.as_ref().map(Arc::as_ptr) {
                continue;
            }
            self.eyes_of.remove(name);
            let Some(watcher) = &root.watcher else { continue };
            let (own, eyes) = (Arc::downgrade(watcher), Arc::clone(&self.eyes));
            let waits = std::thread::Builder::new().name("eyes".into()).spawn(move || wait_for_events(&own, &eyes));
            match waits {
                Ok(_) => drop(self.eyes_of.insert(name.clone(), Arc::downgrade(watcher))),
                Err(error) => tracing::error!("file events cannot be waited for: {error}"),
            }
        }
    }

    fn answer(&mut self, asked: Asked, now: Instant) {
        match asked {
            Asked::Status(reply) => {
                self.publish(now);
                // Whoever asked may have gone.
                let _ = reply.send(Arc::clone(&self.status.borrow()));
            }
            Asked::Host(action, name, reply) => {
                let _ = reply.send(self.change_host(action, &name));
            }
            Asked::Push(push, reply) => {
                let _ = reply.send(self.pushes.add(&push, &mut self.roots, now));
            }
            Asked::Wait(roots, hosts, reply) => {
                let _ = reply.send(self.wait(&roots, hosts, now));
            }
        }
    }

    fn change_host(&mut self, action: HostAction, name: &str) -> Result<HostDone, Refusal> {
        let refused = |error: String| Refusal { error, late: Vec::new() };
        if self.settings.role != Role::Primary {
            return Err(refused(format!("{} is not the primary; only that holds hosts", self.settings.host)));
        }
        let is_known = self.settings.hosts.iter().any(|host| host.name == name);
        let kept = match action {
            // One that has left the fleet can be let go, too.
            HostAction::Pause | HostAction::Resume if is_known || action == HostAction::Resume => {
                (self.settings.hold)(name, action == HostAction::Pause).map_err(refused)?
            }
            _ => false,
        };
        if !is_known && !kept {
            return Err(refused(format!("no secondary has the name {}", name.escape_debug())));
        }
        let mut done = HostDone { changed: kept };
        for host in self.roots.iter_mut().flat_map(|root| &mut root.hosts).filter(|host| host.settings.name == name) {
            done.changed |= match action {
                HostAction::Pause => !std::mem::replace(&mut host.paused, true),
                HostAction::Resume => {
                    host.try_now();
                    std::mem::replace(&mut host.paused, false)
                }
                HostAction::Reset => {
                    (host.compare, host.at) = (true, None);
                    host.try_now();
                    true
                }
            };
        }
        Ok(done)
    }

    /// Waits for `roots`, by name, all of them if there are none.
    fn wait(
        &mut self,
        roots: &[String],
        hosts: WaitHosts,
        now: Instant,
    ) -> Vec<oneshot::Receiver<Result<WaitDone, Refusal>>> {
        let wanted = |root: &&mut RootAgent| roots.is_empty() || roots.contains(&root.settings.name);
        let mut answers = Vec::new();
        for root in self.roots.iter_mut().filter(wanted) {
            // What has happened so far is in the kernel's queue by now.
            root.read_events(now);
            if !root.schedule.all_noticed() && root.head().is_some() {
                root.schedule.want_whole(now);
            }
            root.schedule.flush(now);
            let (reply, answer) = oneshot::channel();
            let head = root.head().map(|head| head.sequence);
            let is_dirty = root.schedule.is_dirty();
            let looking = root.looking();
            root.barriers.add((looking, is_dirty, head), hosts, reply);
            answers.push(answer);
        }
        answers
    }

    /// Takes over new settings; what is the same goes on undisturbed.
    fn take_settings(&mut self, settings: Settings, now: Instant) {
        let mut before = std::mem::take(&mut self.roots);
        for root in &settings.roots {
            let same = before.iter().position(|known| known.settings == *root);
            let mut known = match same {
                Some(at) => before.swap_remove(at),
                None => RootAgent::new(root.clone(), &settings, now),
            };
            known.schedule.retime(settings.timing, now);
            known.take_hosts(&settings.hosts);
            self.roots.push(known);
        }
        for gone in before {
            gone.stop.send_replace(true);
            self.eyes_of.remove(&gone.settings.name);
        }
        self.settings = settings;
        self.open_eyes();
    }

    fn load_again(&mut self, now: Instant) {
        self.manager.reloading();
        match (self.reload)() {
            Ok(settings) => {
                self.take_settings(settings, now);
                tracing::info!("the configuration was read again");
            }
            Err(error) => tracing::error!("the configuration is left as it was: {error}"),
        }
        self.manager.ready();
    }
}

/// Tells `eyes` when there are events to be read, until nobody else has the watcher.
fn wait_for_events(watcher: &Weak<Watcher>, eyes: &Notify) {
    while let Some(watcher) = watcher.upgrade() {
        match watcher.wait(LOOK_UP) {
            Ok(true) => {
                eyes.notify_one();
                // They are read meanwhile, and those that follow come together.
                std::thread::sleep(BLINK);
            }
            Ok(false) => {}
            Err(error) => return tracing::error!("file events cannot be waited for: {error}"),
        }
    }
}

/// Runs a cycle, and tells the owner what becomes of it.
fn spawn(root: String, begun: Begun, outbox: &mpsc::UnboundedSender<Event>) {
    let Begun { cycle, job, hosts, looked, mut ended } = begun;
    // The owner takes what is told until the end of the process.
    let tell = |outbox: &mpsc::UnboundedSender<Event>, event| drop(outbox.send(event));
    let (name, to) = (root.clone(), outbox.clone());
    let hosts_ended = tokio::spawn(async move {
        tell(&to, Event::Looked(name.clone(), cycle, looked.await.ok()));
        while let Some(report) = ended.recv().await {
            tell(&to, Event::HostEnded(name.clone(), cycle, Box::new(report)));
        }
    });
    let to = outbox.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        let report = push_root(job, hosts).await;
        // What each host came to is told first.
        let _ = hosts_ended.await;
        tell(&to, Event::CycleEnded(root, cycle, Box::new(report), began));
    });
}
