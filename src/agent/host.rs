//! One secondary as the agent knows it, for one root. Pure: the time and the chance are arguments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::settings::HostSettings;
use crate::model::{Position, Problem};
use crate::push::{HostReport, HostState as Outcome, Line};
use crate::status::{Doing, HISTORY_POINTS, HostState, HostStatus, LagPoint, NAMED_PROBLEMS, PathProblem};

/// The first wait after a failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long after something went otherwise than planned on a host everything there is compared, at the least.
const COMPARE_AFTER: Duration = Duration::from_secs(1);

/// What comparing may take of the time: one part in so many.
const COMPARE_SHARE: u32 = 20;

/// The first wait where comparing does not help; each further one doubles it.
const FIRST_COMPARE: Duration = Duration::from_secs(2);

/// The longest of these.
const LONGEST_COMPARE: Duration = Duration::from_secs(15 * 60);

/// No host is taken to be faster.
const FASTEST: Duration = Duration::from_millis(2);

/// Between two points of its history.
const HISTORY_STEP: Duration = Duration::from_secs(10);

/// A secondary.
pub(super) struct Host {
    pub(super) settings: HostSettings,
    pub(super) line: Arc<Line>,
    /// The cycle that it takes part in, and since when.
    pub(super) busy: Option<(u64, Instant)>,
    /// What it has; `None`: not known.
    pub(super) at: Option<Position>,
    /// What the cycle that it took part in last was to bring it to.
    pub(super) offered: Option<Position>,
    /// Nothing is sent to it.
    pub(super) paused: bool,
    /// Everything there is to be compared at the next try.
    pub(super) compare: bool,
    /// Not to be tried before.
    not_before: Option<Instant>,
    /// Something went otherwise than planned: everything there is compared then.
    compare_at: Option<Instant>,
    /// Comparisons that did not help.
    compares: u32,
    /// How long the last one took, and when it ended.
    compared: Option<(Duration, Instant)>,
    /// How long its last parts took, about.
    pace: Option<Duration>,
    failures: u32,
    status: HostStatus,
    history: VecDeque<LagPoint>,
    history_at: Option<Instant>,
    pub(super) doing: Option<Doing>,
}

impl Host {
    pub(super) fn new(settings: HostSettings) -> Self {
        let status =
            HostStatus { name: settings.name.clone(), address: settings.address.clone(), ..HostStatus::default() };
        Host {
            paused: settings.paused,
            settings,
            line: Arc::default(),
            busy: None,
            at: None,
            offered: None,
            compare: false,
            not_before: None,
            compare_at: None,
            compares: 0,
            compared: None,
            pace: None,
            failures: 0,
            status,
            history: VecDeque::new(),
            history_at: None,
            doing: None,
        }
    }

    /// Whether something may be sent to it at `now`.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.busy.is_none() && !self.paused && self.not_before.is_none_or(|time| time <= now)
    }

    /// Whether there is a reason to speak to it though nothing has changed at the source, which is at `head`.
    pub(super) fn wants(&self, head: Position, now: Instant) -> bool {
        // What it did not take is offered again when all there is compared, not at once and without end.
        let is_left = self.compare_at.is_some() && self.offered == Some(head);
        let behind = self.at != Some(head) && !is_left;
        let due = self.compare || self.compare_at.is_some_and(|time| time <= now);
        behind || due || (self.not_before.is_some() && self.failures > 0)
    }

    /// What it has for sure.
    pub(super) fn has(&self) -> Option<Position> {
        self.at.filter(|_| self.compare_at.is_none())
    }

    /// When it wants something next that time alone brings.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.busy.is_some() || self.paused {
            return None;
        }
        [self.not_before, self.compare_at].into_iter().flatten().min()
    }

    /// What tells the fast from the slow; a host that is not known yet is slow.
    pub(super) fn pace(&self) -> Duration {
        self.pace.unwrap_or(Duration::MAX)
    }

    /// Takes part in `cycle`; whether everything there is to be compared.
    pub(super) fn begin(&mut self, cycle: u64, now: Instant) -> bool {
        self.busy = Some((cycle, now));
        let due = self.compare_at.is_some_and(|time| time <= now);
        std::mem::take(&mut self.compare) || due
    }

    /// A try ended at `now`. `chance` is any number.
    pub(super) fn end(&mut self, report: &HostReport, (now, now_ms): (Instant, u64), chance: u64) {
        let began = self.busy.take().map(|(_, began)| began);
        let took = began.map(|began| now.saturating_duration_since(began));
        self.pace = took.map(|took| self.pace.map_or(took, |pace| (pace * 3 + took) / 4)).or(self.pace);
        self.doing = None;
        let status = &mut self.status;
        status.drifted += report.drifted;
        status.files_sent += report.files_sent;
        status.bytes_sent += report.bytes_sent;
        status.error.clone_from(&report.error);
        match report.state {
            Outcome::Done | Outcome::Unchanged | Outcome::Planned | Outcome::Partial => {
                let is_turbulent = report.state == Outcome::Partial || report.unsure;
                // A comparison that found something has put it right.
                let is_turbulent = is_turbulent || (report.drifted > 0 && !report.reconciled);
                self.failures = 0;
                self.not_before = None;
                self.at = report.position;
                status.commits += u64::from(report.state != Outcome::Unchanged);
                self.note_problems(&report.problems, report.more_problems);
                if report.reconciled {
                    self.compared = took.map(|took| (took, now));
                    self.compares = if is_turbulent { self.compares.saturating_add(1) } else { 0 };
                    self.compare_at = None;
                }
                if is_turbulent && self.compare_at.is_none() {
                    // What was sent by then was not what is recorded, perhaps: only a comparison knows.
                    let fruitless = doubled(FIRST_COMPARE, self.compares, LONGEST_COMPARE, chance);
                    let wait = if self.compares > 0 { fruitless } else { COMPARE_AFTER };
                    let rested = self.compared.map(|(took, ended)| ended + took * COMPARE_SHARE);
                    self.compare_at = Some(rested.map_or(now + wait, |rested| rested.max(now + wait)));
                }
                if self.compare_at.is_none() {
                    self.status.success_ms = Some(now_ms);
                }
            }
            Outcome::Failed | Outcome::Refused => {
                self.failures = self.failures.saturating_add(1);
                self.at = None;
                self.not_before = Some(now + doubled(FIRST_WAIT, self.failures, LONGEST_WAIT, chance));
            }
        }
        self.status.state = match report.state {
            Outcome::Done | Outcome::Unchanged | Outcome::Planned => HostState::Current,
            Outcome::Partial => HostState::Partial,
            Outcome::Failed => HostState::Failed,
            Outcome::Refused => HostState::Refused,
        };
    }

    fn note_problems(&mut self, problems: &[Problem], more: u64) {
        self.status.problems = problems.iter().take(NAMED_PROBLEMS).map(path_problem).collect();
        self.status.problem_count = problems.len() as u64 + more;
    }

    /// Forgets what went wrong: it is tried at once.
    pub(super) fn try_now(&mut self) {
        self.not_before = None;
    }

    /// Failures without a success in between.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// What there is to say of it. `lag` is the age of the oldest change that it does not have.
    pub(super) fn status(
        &mut self,
        head: Option<Position>,
        lag: Duration,
        (now, now_ms): (Instant, u64),
    ) -> HostStatus {
        let failed = self.failures > 0;
        if self.history_at.is_none_or(|at| now.duration_since(at) >= HISTORY_STEP) {
            self.history_at = Some(now);
            self.history.push_back(LagPoint { at_ms: now_ms, lag_s: lag.as_secs_f64(), failed });
            if self.history.len() > HISTORY_POINTS {
                self.history.pop_front();
            }
        }
        let state = match self.status.state {
            _ if self.paused => HostState::Paused,
            state @ (HostState::Failed | HostState::Refused) => state,
            _ if self.busy.is_some() => HostState::Busy,
            state => state,
        };
        let sequence = |position: Position| position.sequence.0;
        let pending = head.zip(self.at).map(|(head, at)| sequence(head).saturating_sub(sequence(at)));
        let wait = self.not_before.filter(|_| failed).map(|time| time.saturating_duration_since(now));
        HostStatus {
            state,
            sequence: self.at.map_or(0, sequence),
            lag_s: lag.as_secs_f64(),
            pending,
            next_try_ms: wait.map(|wait| now_ms + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            failures: u64::from(self.failures),
            now: self.doing.clone(),
            history: self.history.iter().copied().collect(),
            ..self.status.clone()
        }
    }
}

pub(super) fn path_problem(problem: &Problem) -> PathProblem {
    PathProblem {
        path: problem.path.to_string(),
        kind: format!("{:?}", problem.kind).to_lowercase(),
        detail: problem.detail.clone(),
    }
}

/// How long hosts take, about, after one more took `took`. A slow one counts as twice as slow as the others: what it
/// takes is no measure of when they are back.
pub(super) fn typical(before: Duration, took: Duration) -> Duration {
    (before * 7 + took.min(before * 2).max(FASTEST)) / 8
}

/// `first`, doubled for each time after the first, at most `longest`, less up to a quarter by `chance`: hosts that
/// failed together do not come back together.
fn doubled(first: Duration, times: u32, longest: Duration, chance: u64) -> Duration {
    let whole = 2_u32.checked_pow(times.saturating_sub(1)).and_then(|factor| first.checked_mul(factor));
    let whole = whole.map_or(longest, |whole| whole.min(longest));
    // Below 1000, so it fits.
    whole - whole / 4 * u32::try_from(chance % 1000).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sequence;
    use crate::push::{Endpoint, Reach};

    const MS: Duration = Duration::from_millis(1);

    fn host() -> Host {
        Host::new(HostSettings {
            name: "web2".into(),
            address: String::new(),
            identity: String::new(),
            endpoint: Arc::new(Endpoint::new("web2", Reach::Local)),
            receivers: Vec::new(),
            paused: false,
        })
    }

    fn ended(host: &mut Host, state: Outcome, position: Option<Position>, at: Instant) {
        let report = HostReport { state, position, ..HostReport::new("web2") };
        host.end(&report, (at, 0), 0);
    }

    #[test]
    fn what_a_host_cannot_take_is_offered_again_later_and_what_is_new_at_once() {
        let position = |sequence| Position { sequence: Sequence(sequence), ..Position::default() };
        let mut host = host();
        let now = Instant::now();
        assert!(host.wants(position(5), now));
        host.begin(1, now);
        host.offered = Some(position(5));
        ended(&mut host, Outcome::Partial, Some(position(0)), now);
        assert!(!host.wants(position(5), now), "a problem that lasts is no reason to try at once");
        assert!(host.wants(position(6), now), "a change is");
        assert!(host.wants(position(5), now + COMPARE_AFTER));
        let mut at = now;
        for _ in 0..12 {
            at = host.next().unwrap();
            assert!(host.begin(1, at));
            let report = HostReport {
                state: Outcome::Partial,
                position: Some(position(0)),
                reconciled: true,
                ..HostReport::new("web2")
            };
            host.end(&report, (at, 0), 0);
            assert!(!host.wants(position(5), at));
        }
        assert_eq!(host.next(), Some(at + LONGEST_COMPARE));
    }

    #[test]
    fn one_slow_host_of_many_does_not_make_the_others_wait() {
        let mut now = 5 * MS;
        for turn in 0..800 {
            now = typical(now, if turn % 8 == 0 { Duration::from_secs(5) } else { 5 * MS });
            assert!(now < 8 * MS, "{now:?}");
        }
        let all_are_slow = (0..60).fold(now, |before, _| typical(before, 300 * MS));
        assert!(all_are_slow > 250 * MS, "{all_are_slow:?}");
        let all_are_fast = (0..60).fold(all_are_slow, |before, _| typical(before, Duration::ZERO));
        assert!(all_are_fast < 3 * MS, "{all_are_fast:?}");
    }
}
