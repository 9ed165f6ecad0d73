//! The directories that a walk knows and has not come to yet, and a second thread that looks at the next of them ahead.
//!
//! A walk in path order is one long wait for system calls, and those of different directories can be waited for side by
//! side. What is known ahead are, in path order, the rest of the subdirectories where the walk is, then those of the
//! directory above it, and so on. Whoever is free takes the first that nobody has taken: the second thread all the
//! time, the walk itself while the one that it needs is being looked at. Nothing is judged ahead, so nobody looks into
//! a directory that is left out; and what fails ahead counts as not done: the walk looks again, and says what it found.
//!
//! What is held ahead is bounded by number ([`NEAR`], [`MOST`]) and by room ([`ROOM_BYTES`]), for handles and for memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::vec::IntoIter;

use super::beneath::{Dir, Root};
use super::shown::{ListBuffer, Shown, list_buffer};
use crate::model::{Name, RelPath};

/// Directories held open on the way down. Deeper ones are opened again from the root, so that a
/// deep tree cannot exhaust the process's descriptors (1,024 by default).
const MAX_HELD_DIRS: usize = 64;

/// How many are taken one after the other: two milliseconds' worth of directories with a hundred files each. More gains
/// nothing, and would take from [`MOST`] what deeper levels need.
const NEAR: usize = 16;

/// Directories that are taken at all levels together: where the walk goes down, those beside its way stay.
const MOST: usize = 64;

/// Room for what was seen in them; the last ones may exceed it by what is seen in one of them.
const ROOM_BYTES: usize = 4 << 20;

/// Entries that are seen ahead in one directory, and up to one piece more: the walk goes on with a larger one itself.
const ENTRIES_EACH: usize = 2048;

/// A directory whose subdirectories are ahead.
#[derive(Debug)]
struct Above {
    path: RelPath,
    /// `None` below [`MAX_HELD_DIRS`].
    dir: Option<Dir>,
}

impl Above {
    fn open(&self, root: &Root, name: &Name) -> io::Result<Dir> {
        match &self.dir {
            Some(dir) => dir.open_dir(name),
            None => root.dir(&self.path.join(name).map_err(io::Error::other)?),
        }
    }
}

/// How far it is with a directory that was taken.
#[derive(Debug)]
enum Taken {
    /// Somebody looks.
    Looking,
    /// It shows this, which takes so many bytes; nothing if the walk has to look itself.
    Done(Option<(Box<Shown>, usize)>),
}

/// What is ahead below one directory.
#[derive(Debug)]
struct Level {
    above: Arc<Above>,
    names: IntoIter<Name>,
    /// How many of them are gone.
    gone: usize,
    /// How far it is with the first that are not.
    taken: VecDeque<Taken>,
}

#[derive(Debug, Default)]
struct State {
    levels: Vec<Level>,
    /// How many are taken at all levels.
    count: usize,
    /// Room for what they show.
    room_bytes: usize,
    /// The second thread has nothing to do.
    idle: bool,
    /// The walk waits for a directory that is being looked at.
    waiting: bool,
    ended: bool,
}

impl State {
    /// The level of the first directory that nobody has taken, if there is room, and fewer than `near` are taken before it.
    fn first(&self, near: usize) -> Option<usize> {
        if self.count >= MOST || self.room_bytes >= ROOM_BYTES {
            return None;
        }
        let mut before = 0;
        for (depth, level) in self.levels.iter().enumerate().rev() {
            before += level.taken.len();
            if before >= near {
                return None;
            }
            if level.taken.len() < level.names.len() {
                return Some(depth);
            }
        }
        None
    }

    /// Takes back what was taken, for the walk.
    fn give(&mut self, taken: Option<Taken>) -> Option<Box<Shown>> {
        let Taken::Done(shown) = taken? else { return None };
        self.count -= 1;
        let (shown, room_bytes) = shown?;
        self.room_bytes -= room_bytes;
        Some(shown)
    }

    /// Whether the second thread is to be woken: it sleeps until there is something to do for a while.
    fn wakes(&mut self) -> bool {
        let wakes = self.idle && self.first(NEAR / 2).is_some();
        self.idle &= !wakes;
        wakes
    }
}

/// A directory that somebody has taken. It is done when this is dropped, come what may.
struct Turn<'a> {
    ahead: &'a Ahead<'a>,
    /// Its level, and its number there.
    place: (usize, usize),
    above: Arc<Above>,
    name: Name,
    shown: Option<Box<Shown>>,
}

impl Turn<'_> {
    fn look(mut self, buffer: &mut ListBuffer) {
        let look = |buffer: &mut ListBuffer| {
            let mut shown = self.ahead.look(&self.above, &self.name)?;
            while !shown.is_whole && shown.entries.len() + shown.unknown.len() < ENTRIES_EACH {
                shown.read_on(buffer)?;
            }
            io::Result::Ok(Box::new(shown))
        };
        self.shown = look(buffer).ok();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let shown = self.shown.take().map(|shown| {
            let room_bytes = shown.room_bytes();
            (shown, room_bytes)
        });
        let mut state = self.ahead.lock();
        state.room_bytes += shown.as_ref().map_or(0, |(_, room_bytes)| *room_bytes);
        let (depth, number) = self.place;
        // The walk does not come past a directory that is being looked at: both are where they were.
        let level = state.levels.get_mut(depth);
        if let Some(taken) = level.and_then(|level| level.taken.get_mut(number - level.gone)) {
            *taken = Taken::Done(shown);
        }
        if std::mem::take(&mut state.waiting) {
            self.ahead.done.notify_one();
        }
    }
}

/// All that is ahead.
#[derive(Debug)]
pub(super) struct Ahead<'r> {
    root: &'r Root,
    with_rules: bool,
    state: Mutex<State>,
    /// For the second thread.
    more: Condvar,
    /// For the walk.
    done: Condvar,
}

/// Ends the second thread when it is dropped.
#[must_use]
pub(super) struct Second<'a>(&'a Ahead<'a>);

impl Drop for Second<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.more.notify_one();
    }
}

impl<'r> Ahead<'r> {
    /// Nothing is ahead yet. `with_rules`: files of patterns count.
    pub(super) fn new(root: &'r Root, with_rules: bool) -> Self {
        Ahead { root, with_rules, state: Mutex::default(), more: Condvar::new(), done: Condvar::new() }
    }

    /// Starts the second thread. Where there is none to be had, the walk does without.
    pub(super) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Second<'s> {
        // Nothing needs this thread.
        let _ = thread::Builder::new().name("scan".into()).spawn_scoped(scope, || self.look_ahead());
        Second(self)
    }

    /// The directory that the walk begins with.
    pub(super) fn top(&self, path: &RelPath) -> io::Result<Shown> {
        Shown::of(self.root.dir(path)?, self.with_rules)
    }

    /// Goes down into `dir`, which is at `path`: its subdirectories `names`, sorted, are the next.
    pub(super) fn enter(&self, path: RelPath, dir: Dir, names: Vec<Name>) {
        if names.is_empty() {
            return;
        }
        let mut state = self.lock();
        let dir = (state.levels.len() < MAX_HELD_DIRS).then_some(dir);
        let above = Arc::new(Above { path, dir });
        state.levels.push(Level { above, names: names.into_iter(), gone: 0, taken: VecDeque::new() });
        self.wake(state);
    }

    /// The next directory, and what it shows as far as it was looked at; `None` at the end of the walk.
    pub(super) fn next(&self, buffer: &mut ListBuffer) -> Option<(RelPath, io::Result<Shown>)> {
        let mut state = self.lock();
        let (path, above, name, shown) = loop {
            let level = state.levels.last_mut()?;
            if matches!(level.taken.front(), Some(Taken::Looking)) {
                state = self.work_or_wait(state, buffer);
                continue;
            }
            let Some(name) = level.names.next() else {
                state.levels.pop();
                continue;
            };
            level.gone += 1;
            let (above, taken) = (Arc::clone(&level.above), level.taken.pop_front());
            let shown = state.give(taken);
            // INVARIANT: the names were joined once already, when they were listed.
            let Ok(path) = above.path.join(&name) else { continue };
            break (path, above, name, shown);
        };
        self.wake(state);
        Some((path, shown.map_or_else(|| self.look(&above, &name), |shown| Ok(*shown))))
    }

    /// What the second thread does.
    fn look_ahead(&self) {
        let mut buffer = list_buffer();
        let mut state = self.lock();
        while !state.ended {
            if let Some(turn) = self.turn(&mut state) {
                drop(state);
                turn.look(&mut buffer);
                state = self.lock();
            } else {
                state.idle = true;
                state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// What the walk does while the directory that it needs is being looked at.
    fn work_or_wait<'a>(&'a self, mut state: MutexGuard<'a, State>, buffer: &mut ListBuffer) -> MutexGuard<'a, State> {
        if let Some(turn) = self.turn(&mut state) {
            drop(state);
            turn.look(buffer);
            return self.lock();
        }
        state.waiting = true;
        self.done.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn turn<'a>(&'a self, state: &mut State) -> Option<Turn<'a>> {
        let depth = state.first(NEAR)?;
        let level = state.levels.get_mut(depth)?;
        let name = level.names.as_slice().get(level.taken.len())?.clone();
        let (above, place) = (Arc::clone(&level.above), (depth, level.gone + level.taken.len()));
        level.taken.push_back(Taken::Looking);
        state.count += 1;
        Some(Turn { ahead: self, place, above, name, shown: None })
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wakes = state.wakes();
        drop(state);
        if wakes {
            self.more.notify_one();
        }
    }

    fn look(&self, above: &Above, name: &Name) -> io::Result<Shown> {
        Shown::of(above.open(self.root, name)?, self.with_rules)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    use super::super::fixture::Fixture;
    use super::*;

    /// Until the second thread finds nothing more that it may take.
    fn idle<'a>(ahead: &'a Ahead<'_>) -> MutexGuard<'a, State> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let state = ahead.lock();
            if state.idle && state.first(NEAR).is_none() {
                return state;
            }
            assert!(Instant::now() < deadline, "it never comes to an end: {state:?}");
            drop(state);
            thread::yield_now();
        }
    }

    fn names(count: usize) -> Vec<Name> {
        (0..count).map(|number| format!("d{number:03}").as_bytes().into()).collect()
    }

    /// Goes down by the first of `count` directories again and again.
    fn nested(fixture: &Fixture, depth: usize, count: usize) {
        let mut at = fixture.path.clone();
        for _ in 0..depth {
            for name in names(count) {
                fs::create_dir(at.join(String::from_utf8(name.to_vec()).unwrap())).unwrap();
            }
            at.push("d000");
        }
    }

    #[test]
    fn no_more_directories_are_held_than_the_bounds_say() {
        let fixture = Fixture::new();
        nested(&fixture, 7, 40);
        let ahead = Ahead::new(&fixture.root, false);
        let mut buffer = list_buffer();
        thread::scope(|scope| {
            let _second = ahead.start(scope);
            let mut here = Some((RelPath::root(), ahead.top(&RelPath::root())));
            let mut counts = Vec::new();
            while let Some((path, shown)) = here.take_if(|(path, _)| path.components().count() < 7) {
                ahead.enter(path, shown.unwrap().dir, names(40));
                counts.push(idle(&ahead).count);
                here = ahead.next(&mut buffer);
            }
            // What was taken first on each level is where the walk went down.
            assert_eq!(counts, [16, 31, 46, 61, 64, 64, 64]);
            // They are all listed, and once, though there is room for none of the last.
            let mut paths = vec![here.unwrap().0];
            while let Some((path, shown)) = ahead.next(&mut buffer) {
                assert!(shown.is_ok(), "{path}");
                paths.push(path);
            }
            assert_eq!(paths.len(), 7 * 39 + 1);
            assert!(paths.is_sorted_by(|a, b| a < b));
        });
        let state = ahead.lock();
        assert_eq!((state.count, state.room_bytes, state.levels.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_held_takes_no_more_room_than_the_bound_and_one_directory() {
        let fixture = Fixture::new();
        nested(&fixture, 1, 14);
        let target = "x/".repeat(2_000);
        for dir in fs::read_dir(&fixture.path).unwrap() {
            let dir = dir.unwrap().path();
            (0..150).for_each(|number| symlink(&target, dir.join(number.to_string())).unwrap());
        }
        let ahead = Ahead::new(&fixture.root, false);
        thread::scope(|scope| {
            let _second = ahead.start(scope);
            ahead.enter(RelPath::root(), ahead.top(&RelPath::root()).unwrap().dir, names(14));
            let room_bytes = idle(&ahead).room_bytes;
            assert!((ROOM_BYTES..ROOM_BYTES + 150 * 4_500).contains(&room_bytes), "{room_bytes}");
            let (mut buffer, mut entries) = (list_buffer(), 0);
            while let Some((_, shown)) = ahead.next(&mut buffer) {
                let mut shown = shown.unwrap();
                while !shown.is_whole {
                    shown.read_on(&mut buffer).unwrap();
                }
                entries += shown.entries.len();
            }
            assert_eq!(entries, 14 * 150);
        });
    }

    #[test]
    fn what_fails_ahead_is_tried_again_by_the_walk() {
        let fixture = Fixture::with(&["d", "d/f=x"]);
        let ahead = Ahead::new(&fixture.root, false);
        let absent: Vec<Name> = vec![b"d".as_slice().into(), b"later".as_slice().into()];
        thread::scope(|scope| {
            let _second = ahead.start(scope);
            ahead.enter(RelPath::root(), ahead.top(&RelPath::root()).unwrap().dir, absent);
            assert_eq!(idle(&ahead).count, 2);
            fs::create_dir(fixture.path.join("later")).unwrap();
            let mut buffer = list_buffer();
            let shown = std::iter::from_fn(|| ahead.next(&mut buffer)).map(|(_, shown)| shown.unwrap());
            assert_eq!(shown.map(|shown| shown.is_whole).collect::<Vec<_>>(), [true, false]);
        });
    }
}
