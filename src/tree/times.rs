//! Which times a filesystem holds, found out by setting some.

use rustix::fs::{self, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::beneath::{Dir, Stat};
use crate::model::{TimeFidelity, Timestamp};

/// Set on a file that has no name and is gone at the end: nothing that anyone could see changes, not even the
/// times of the directory. Where such a file cannot be made, every time is taken to be held.
pub(super) fn held(dir: &Dir) -> TimeFidelity {
    probe(dir).unwrap_or(TimeFidelity::FULL)
}

fn probe(dir: &Dir) -> Result<TimeFidelity, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = fs::openat(dir, c".", flags, Mode::RUSR | Mode::WUSR)?;
    let held = |secs, nanos: u32| {
        let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
        fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        Ok::<Timestamp, Errno>(Stat::from(fs::fstat(&file)?).mtime)
    };
    let fraction = held(1, 999_999_999)?;
    let step_nanos = match (fraction.secs, fraction.nanos) {
        (1, nanos @ 1..=999_999_999) => 1_000_000_000 - nanos,
        (1, _) => 1_000_000_000,
        (0, 0) => 2_000_000_000,
        _ => return Err(Errno::RANGE),
    };
    let (first, last) = (held(i64::MIN, 0)?.secs, held(i64::MAX, 0)?.secs);
    // One that turns times round instead of cutting them off cannot be described so.
    if first < 0 && last > 0 { Ok(TimeFidelity { first, last, step_nanos }) } else { Err(Errno::RANGE) }
}
