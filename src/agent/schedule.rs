//! When to look at what. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::RelPath;
use crate::push::Paths;
use crate::tree::Happening;

/// A file that is being made, and is not closed, gets so long at least: most are closed by then, and sent once.
const UNCLOSED: Duration = Duration::from_millis(5);

/// The longest rest between scans that lost events ask for.
const LONGEST_REST: Duration = Duration::from_secs(3);

/// Where events tell everything, a scan may take one part in so many of the time.
const SCAN_SHARE: u32 = 3000;

/// Paths beyond which a scan of everything is cheaper than remembering them.
const MOST_PATHS: usize = 100_000;

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Quiet time before a changed path is looked at.
    pub settle: Duration,
    /// ... but never later than this.
    pub settle_max: Duration,
    /// Between scans of everything, also where all is noticed.
    pub interval: Duration,
    /// ... up to this where they take long and find nothing that was not noticed; not below `interval`.
    pub longest_interval: Duration,
    /// Between scans of everything where not all is noticed.
    pub poll: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Dirty {
    first: Instant,
    due: Instant,
    /// A directory came: it is to be listed whatever it looks like.
    deep: bool,
    /// It could not be sent; nothing has happened to it since.
    resting: bool,
}

/// What is to be looked at, and when.
#[derive(Debug)]
pub(super) struct Schedule {
    timing: Timing,
    dirty: BTreeMap<RelPath, Dirty>,
    /// The earliest of `dirty`, as far as it is known.
    next: Option<Instant>,
    /// When everything is looked at next, and since when that is wanted.
    whole: Instant,
    wanted: Option<Instant>,
    /// Everything is noticed.
    all_noticed: bool,
    /// The last scan came for its time alone: nothing was known to be looked at.
    was_routine: bool,
    /// No scan before this: lost events are often lost again, and a scan finds what all of them meant.
    earliest: Instant,
}

/// What is to be looked at now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// `None`: everything.
    pub(super) paths: Option<Paths>,
    /// When the oldest change of it was noticed.
    pub(super) since: Instant,
}

impl Schedule {
    /// Everything is due at once.
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Schedule {
            timing,
            dirty: BTreeMap::new(),
            next: None,
            whole: now,
            wanted: Some(now),
            all_noticed: false,
            was_routine: false,
            earliest: now,
        }
    }

    /// From now on it goes by these times.
    pub(super) fn retime(&mut self, timing: Timing, now: Instant) {
        self.whole = self.whole.min(now + timing.interval);
        self.timing = timing;
    }

    /// Something happened at `path`.
    pub(super) fn note(&mut self, path: RelPath, how: Happening, now: Instant) {
        let settle = match how {
            Happening::Complete | Happening::Directory => Duration::ZERO,
            Happening::Writing => self.timing.settle.max(UNCLOSED),
            Happening::Attributes => self.timing.settle,
        };
        self.add(path, settle, how == Happening::Directory, now);
    }

    /// `path` is to be looked at after `delay`, at the latest.
    pub(super) fn want(&mut self, path: RelPath, delay: Duration, now: Instant) {
        self.make_room(now);
        let due = now + delay;
        // What happens to it meanwhile has it looked at as ever, with all the time that it has to settle.
        self.dirty.entry(path).or_insert(Dirty { first: due, due, deep: false, resting: true });
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }

    fn make_room(&mut self, now: Instant) {
        if self.dirty.len() >= MOST_PATHS {
            self.dirty.clear();
            self.want_whole(now);
        }
    }

    fn add(&mut self, path: RelPath, delay: Duration, deep: bool, now: Instant) {
        self.make_room(now);
        let latest = self.timing.settle_max;
        let due = now + delay;
        let dirty = self.dirty.entry(path).or_insert(Dirty { first: now, due, deep, resting: false });
        dirty.deep |= deep;
        dirty.resting = false;
        // What was over stays over, whatever attributes are set on it afterwards.
        dirty.due = if dirty.due <= now { dirty.due } else { due.min(dirty.first + latest) };
        let due = dirty.due;
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }

    /// Anything may have happened.
    pub(super) fn want_whole(&mut self, now: Instant) {
        self.wanted.get_or_insert(now);
        self.whole = self.whole.min(now.max(self.earliest));
    }

    /// No longer waits for anything to settle.
    pub(super) fn flush(&mut self, now: Instant) {
        self.dirty.values_mut().for_each(|dirty| dirty.due = dirty.due.min(now));
        self.next = (!self.dirty.is_empty()).then_some(now);
    }

    /// Whether there is something to be looked at that may well be sent then.
    pub(super) fn is_pending(&self) -> bool {
        self.dirty.values().any(|dirty| !dirty.resting)
    }

    /// Paths that are to be looked at.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Whether something is known to be looked at, now or later.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.wanted.is_some()
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        self.next.map_or(self.whole, |next| next.min(self.whole))
    }

    /// Takes what is due at `now`; `None` if nothing is.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        if self.whole <= now {
            let oldest = self.dirty.values().map(|dirty| dirty.first).min();
            let since = [self.wanted, oldest].into_iter().flatten().min();
            self.was_routine = since.is_none();
            self.dirty.clear();
            (self.next, self.wanted) = (None, None);
            // Until it is known how long it took.
            self.whole = now + self.timing.interval;
            return Some(Due { paths: None, since: since.unwrap_or(now) });
        }
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let (due, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.dirty).into_iter().partition(|(_, dirty)| dirty.due <= now);
        self.dirty = later;
        self.next = self.dirty.values().map(|dirty| dirty.due).min();
        let since = due.values().map(|dirty| dirty.first).min()?;
        let paths = due.into_iter().map(|(path, dirty)| (path, dirty.deep)).collect();
        Some(Due { paths: Some(paths), since })
    }

    /// A scan of everything ended at `now` and took `took`; `all_noticed`: what changes from now on is noticed;
    /// `found`: it found something.
    pub(super) fn scanned(&mut self, now: Instant, took: Duration, all_noticed: bool, found: bool) {
        self.all_noticed = all_noticed;
        self.earliest = now + (took * 3).min(LONGEST_REST);
        let Timing { interval, longest_interval, poll, .. } = self.timing;
        let interval = match all_noticed {
            // What nothing was noticed of was not there either: events are to be relied on.
            true if self.was_routine && !found => interval.max((took * SCAN_SHARE).min(longest_interval)),
            true => interval,
            false => poll.min(interval),
        };
        // A scan shall not take more than a tenth of the time.
        self.whole = match self.wanted {
            None => now + interval.max(took * 10),
            Some(_) => self.earliest,
        };
    }

    /// Something may have happened that no event tells of: the next scan comes after the interval, whatever is proven.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.whole = self.whole.min(now + self.timing.interval);
    }

    /// What was taken could not be looked at: everything is, after `delay`.
    pub(super) fn failed(&mut self, now: Instant, delay: Duration) {
        self.wanted.get_or_insert(now);
        self.whole = now + delay;
    }

    /// Whether what changes is noticed.
    pub(super) fn all_noticed(&self) -> bool {
        self.all_noticed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn scanned(now: Instant) -> Schedule {
        let timing = Timing {
            settle: 50 * MS,
            settle_max: 200 * MS,
            interval: 60_000 * MS,
            longest_interval: 900_000 * MS,
            poll: 2_000 * MS,
        };
        let mut schedule = Schedule::new(timing, now);
        assert_eq!(schedule.take(now), Some(Due { paths: None, since: now }));
        schedule.scanned(now, MS, true, false);
        schedule
    }

    fn taken(schedule: &mut Schedule, now: Instant) -> Option<Vec<String>> {
        let paths = schedule.take(now)?.paths?;
        Some(paths.keys().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_closed_is_due_at_once_and_what_is_written_when_it_is_quiet() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        schedule.note(path("closed"), Happening::Complete, now);
        schedule.note(path("written"), Happening::Writing, now);
        assert_eq!(schedule.next(), now);
        assert_eq!(taken(&mut schedule, now), Some(vec!["closed".into()]));
        assert_eq!(taken(&mut schedule, now + 49 * MS), None);
        schedule.note(path("written"), Happening::Writing, now + 49 * MS);
        assert_eq!(taken(&mut schedule, now + 98 * MS), None);
        assert_eq!(taken(&mut schedule, now + 99 * MS), Some(vec!["written".into()]));
        assert!(!schedule.is_dirty());
    }

    #[test]
    fn what_never_rests_is_due_in_the_end() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        for step in 0..20 {
            schedule.note(path("log"), Happening::Writing, now + step * 10 * MS);
        }
        assert_eq!(taken(&mut schedule, now + 199 * MS), None);
        assert_eq!(taken(&mut schedule, now + 200 * MS), Some(vec!["log".into()]));
    }

    #[test]
    fn attributes_after_the_close_do_not_hold_it_back() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        schedule.note(path("f"), Happening::Complete, now);
        schedule.note(path("f"), Happening::Attributes, now + MS);
        assert_eq!(taken(&mut schedule, now + MS), Some(vec!["f".into()]));
    }

    #[test]
    fn everything_comes_at_its_interval_with_what_is_dirty_or_when_events_are_lost() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        assert_eq!(schedule.take(now + 59_999 * MS), None);
        schedule.note(path("f"), Happening::Writing, now + 59_990 * MS);
        let due = schedule.take(now + 60_000 * MS).unwrap();
        assert_eq!(due, Due { paths: None, since: now + 59_990 * MS });
        schedule.scanned(now + 60_001 * MS, MS, true, false);
        assert!(!schedule.is_dirty());
        schedule.want_whole(now + 61_000 * MS);
        let due = schedule.take(now + 61_005 * MS).unwrap();
        assert_eq!(due, Due { paths: None, since: now + 61_000 * MS });
        schedule.scanned(now + 61_105 * MS, 100 * MS, true, false);
        schedule.want_whole(now + 61_106 * MS);
        assert_eq!(schedule.take(now + 61_404 * MS), None, "scans that follow each other rest in between");
        assert!(schedule.take(now + 61_405 * MS).is_some());
    }

    #[test]
    fn where_not_all_is_noticed_scans_come_often_but_take_a_tenth_of_the_time_at_most() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        schedule.scanned(now, MS, false, false);
        assert_eq!(schedule.next(), now + 2_000 * MS);
        schedule.scanned(now, 5_000 * MS, false, false);
        assert_eq!(schedule.next(), now + 50_000 * MS);
    }

    #[test]
    fn where_events_are_proven_scans_take_a_three_thousandth_of_the_time() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        schedule.scanned(now, 300 * MS, true, false);
        assert_eq!(schedule.next(), now + 60_000 * MS, "the first scan proves nothing");
        let mut at = now + 60_000 * MS;
        let mut scan = |how: &dyn Fn(&mut Schedule, Instant), took: u32, found: bool| {
            how(&mut schedule, at);
            assert!(schedule.take(at).is_some_and(|due| due.paths.is_none()));
            schedule.scanned(at, took * MS, true, found);
            let wait = schedule.next() - at;
            at += wait;
            wait.as_millis()
        };
        let nothing = |_: &mut Schedule, _: Instant| {};
        assert_eq!(scan(&nothing, 100, false), 300_000);
        assert_eq!(scan(&nothing, 20, false), 60_000, "no sooner than the interval");
        assert_eq!(scan(&nothing, 5_000, false), 900_000, "no later than the longest");
        assert_eq!(scan(&nothing, 300, true), 60_000, "what no event told");
        assert_eq!(scan(&nothing, 100, false), 300_000);
        let lost = |schedule: &mut Schedule, at: Instant| schedule.want_whole(at);
        assert_eq!(scan(&lost, 300, false), 60_000, "events were lost");
        let busy = |schedule: &mut Schedule, at: Instant| schedule.note(path("f"), Happening::Writing, at);
        assert_eq!(scan(&busy, 300, false), 60_000, "it does not tell whether anything was missed");
    }

    #[test]
    fn a_doubt_brings_the_next_scan_after_the_interval_and_no_sooner() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        let at = now + 60_000 * MS;
        assert!(schedule.take(at).is_some());
        schedule.scanned(at, 100 * MS, true, false);
        assert_eq!(schedule.next(), at + 300_000 * MS);
        schedule.doubt(at + 10_000 * MS);
        schedule.doubt(at + 20_000 * MS);
        assert_eq!(schedule.next(), at + 70_000 * MS);
    }

    #[test]
    fn what_rests_is_looked_at_sooner_if_something_happens_to_it() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        schedule.want(path("f"), 30_000 * MS, now);
        assert_eq!(schedule.next(), now + 30_000 * MS);
        schedule.note(path("f"), Happening::Writing, now + 5_000 * MS);
        assert_eq!(schedule.next(), now + 5_050 * MS);
        schedule.note(path("f"), Happening::Writing, now + 5_040 * MS);
        assert_eq!(schedule.take(now + 5_060 * MS), None);
        assert!(schedule.take(now + 5_090 * MS).is_some());
    }

    #[test]
    fn a_flush_waits_for_nothing() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        schedule.note(path("f"), Happening::Writing, now);
        schedule.flush(now);
        assert_eq!(taken(&mut schedule, now), Some(vec!["f".into()]));
    }

    #[test]
    fn too_many_paths_are_one_scan() {
        let now = Instant::now();
        let mut schedule = scanned(now);
        for number in 0..=MOST_PATHS {
            schedule.note(path(&number.to_string()), Happening::Complete, now);
        }
        assert!(schedule.dirty() <= 1);
        assert_eq!(schedule.take(now + 3 * MS), Some(Due { paths: None, since: now }));
    }
}
