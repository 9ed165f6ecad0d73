//! One entry of the visible tree goes from old to new, or goes: [`put`] and [`take_away`].
//!
//! The caller says what it expects to be there. Where that is nothing, one rename that replaces
//! nothing does it. Otherwise the staged entry and what is there are exchanged: then what was there
//! lies in the stage, where nobody can swap it any more, and is looked at. As the new entry already (an
//! earlier run got so far): it is removed. As expected: likewise, or kept in the attic where that is wanted and
//! works. Else it is kept in the attic, or nothing is changed.
//!
//! There is a look before the exchange too. It decides nothing that the second look would not, but
//! what is already seen to be unexpected is exchanged by way of the attic: so it is kept even if this
//! process is killed between any two steps. Only what appears between the two looks, in a run that is
//! killed before it has moved it on, is lost with the stage.
//!
//! RACE: filesystems without RENAME_EXCHANGE have only the look before: what is put there between it
//! and the rename is replaced; and what is kept in the attic leaves its path empty for a moment.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::attic::{Attic, Why};
use super::beneath::{Dir, Stat, errno};
use super::stage::{StageDir, Staged, StagedKind};
use crate::model::{Expected, RelPath};

/// Whether what is there is what the caller takes to be there.
pub type Expectation<'e> = &'e dyn Fn(Expected) -> bool;

/// What a staged entry may take the place of.
#[derive(Clone, Copy)]
pub struct Over<'e> {
    /// Whether something is expected there. Anything else that is no directory is kept in the attic.
    pub expected: Expectation<'e>,
    /// A directory may be replaced that has at most this many entries, itself included.
    pub directory: Option<u64>,
}

/// What became of what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Placed {
    /// It was expected, or as it should become already, or there was nothing.
    AsExpected,
    /// It was something else, which is now in the attic.
    KeptAside,
}

/// A name in the visible tree.
pub(super) struct Site<'s> {
    pub(super) dir: &'s Dir,
    pub(super) name: &'s [u8],
    pub(super) path: &'s RelPath,
}

/// How often something may appear or vanish between a look and the rename before this is an error.
const TRIES: usize = 16;

/// Moves the staged entry to `site`. `survey` refuses directories that may not go; it is given the
/// most entries that they may have.
///
/// # Errors
/// `IsADirectory` for a directory that may not be replaced, else those of `survey` and of the
/// operating system. What was at `site` is there again.
pub(super) fn put(
    staged: &mut Staged,
    site: &Site<'_>,
    over: Over<'_>,
    survey: &dyn Fn(u64) -> io::Result<()>,
    attic: &mut Attic,
) -> io::Result<Placed> {
    let mut tried = Err(Errno::EXIST.into());
    if (over.expected)(Expected::Nothing) {
        tried = put_where_nothing_is(staged, site);
    }
    for _ in 0..TRIES {
        // Something is there after all, or not any more.
        if !matches!(errno(&tried), Some(Errno::EXIST | Errno::NOENT)) {
            break;
        }
        tried = match site.dir.stat(site.name) {
            Ok(there) if there.is_directory() => {
                survey(over.directory.ok_or(Errno::ISDIR)?)?;
                exchange(staged, site, over, Known { surveyed: true, as_wanted: None }, attic)
            }
            Ok(there) => put_over(staged, site, over, &there, attic),
            Err(error) if error.kind() == io::ErrorKind::NotFound => put_where_nothing_is(staged, site),
            Err(error) => Err(error),
        };
    }
    tried
}

pub(super) fn put_where_nothing_is(staged: &mut Staged, site: &Site<'_>) -> io::Result<Placed> {
    staged.entry.stage.dir.rename_to_nothing(&staged.entry.name, site.dir, site.name)?;
    staged.entry.armed = false;
    Ok(Placed::AsExpected)
}

/// Puts it in the place of `there`, which is no directory.
fn put_over(
    staged: &mut Staged,
    site: &Site<'_>,
    over: Over<'_>,
    there: &Stat,
    attic: &mut Attic,
) -> io::Result<Placed> {
    let mut as_wanted = None;
    if !(over.expected)(there.expected()) {
        let new = staged.entry.stage.dir.stat(&staged.entry.name)?;
        if !is_as_wanted(staged.kind, there, &new) {
            return exchange_with_attic(staged, site, attic);
        }
        as_wanted = Some(new);
    }
    exchange(staged, site, over, Known { surveyed: false, as_wanted }, attic)
}

/// Whether `there` is what `new` would make of it: by kind, size and time, or the very file that a hard link is of. Two
/// files that are edited by hand at once can have one size and time, and then neither is the other.
fn is_as_wanted(kind: StagedKind, there: &Stat, new: &Stat) -> bool {
    if kind == StagedKind::HardLink {
        return there.is_same_inode(new);
    }
    there.file_type() == new.file_type() && there.size_bytes == new.size_bytes && there.mtime == new.mtime
}

/// What the look before the exchange has told.
struct Known {
    /// There was a directory that may go.
    surveyed: bool,
    /// The new entry, if what was there looks like it.
    as_wanted: Option<Stat>,
}

/// Exchanges the staged entry with what is at `site`, and judges that where it cannot be swapped.
fn exchange(
    staged: &mut Staged,
    site: &Site<'_>,
    over: Over<'_>,
    known: Known,
    attic: &mut Attic,
) -> io::Result<Placed> {
    let stage = Arc::clone(&staged.entry.stage);
    let exchanged = stage.dir.exchange(&staged.entry.name, site.dir, site.name);
    match errno(&exchanged) {
        None => exchanged?,
        Some(Errno::INVAL | Errno::NOSYS) => return put_without_exchange(staged, site, known.surveyed, attic),
        Some(_) => return exchanged.map(|()| Placed::AsExpected),
    }
    let found = match stage.dir.stat(&staged.entry.name) {
        Ok(found) => found,
        Err(error) => return Err(take_back(staged, site, attic, error)),
    };
    if found.is_directory() {
        if !known.surveyed {
            return Err(take_back(staged, site, attic, Errno::ISDIR.into()));
        }
        staged.entry.armed = false;
        if !keep_replaced(staged, site, &found, attic) {
            stage.add_replaced(staged.entry.name.clone());
        }
        return Ok(Placed::AsExpected);
    }
    if known.as_wanted.is_some_and(|new| is_as_wanted(staged.kind, &found, &new)) {
        // The name in the stage is now that of the old entry, which goes with it.
        return Ok(Placed::AsExpected);
    }
    if (over.expected)(found.expected()) {
        staged.entry.armed = !keep_replaced(staged, site, &found, attic);
        return Ok(Placed::AsExpected);
    }
    match attic.take(&stage.dir, &staged.entry.name, site.path) {
        Ok(_) => {
            staged.entry.armed = false;
            Ok(Placed::KeptAside)
        }
        Err(error) => Err(take_back(staged, site, attic, error)),
    }
}

/// Keeps what the stage has in exchange for the staged entry, if such is kept; whether it was.
fn keep_replaced(staged: &Staged, site: &Site<'_>, found: &Stat, attic: &mut Attic) -> bool {
    let stage = Arc::clone(&staged.entry.stage);
    match attic.keep(&stage.dir, &staged.entry.name, site.path, found, Why::Replaced) {
        Some(Ok(_)) => true,
        refused => {
            attic.note_unkept(refused.and_then(Result::err));
            false
        }
    }
}

/// Exchanges once more, so that everything is as before; `error` again.
///
/// RACE: what someone has put in the place of the staged entry since then is discarded with it.
fn take_back(staged: &mut Staged, site: &Site<'_>, attic: &mut Attic, error: io::Error) -> io::Error {
    let stage = Arc::clone(&staged.entry.stage);
    if stage.dir.exchange(&staged.entry.name, site.dir, site.name).is_err() {
        // Its path is gone. The first error is the one to tell, and nothing else can be tried.
        let _ = attic.take(&stage.dir, &staged.entry.name, site.path);
        staged.entry.armed = false;
    }
    error
}

/// Exchanges by way of the attic, so that what is at `site` is kept at whatever moment this ends.
fn exchange_with_attic(staged: &mut Staged, site: &Site<'_>, attic: &mut Attic) -> io::Result<Placed> {
    let stage = Arc::clone(&staged.entry.stage);
    let kept = attic.take(&stage.dir, &staged.entry.name, site.path)?;
    let to_stage = || kept.dir.rename(&kept.name, &stage.dir, &staged.entry.name);
    let exchanged = kept.dir.exchange(&kept.name, site.dir, site.name);
    match errno(&exchanged) {
        None => {}
        Some(Errno::INVAL | Errno::NOSYS) => {
            to_stage()?;
            let kept = attic.take(site.dir, site.name, site.path)?;
            put_back_directory(&kept.dir, &kept.name, site)?;
            let placed = put_where_nothing_is(staged, site);
            if placed.is_err() {
                // If this fails too, it is kept where it is.
                let _ = kept.dir.rename_to_nothing(&kept.name, site.dir, site.name);
            }
            return placed.map(|_| Placed::KeptAside);
        }
        Some(_) => {
            to_stage()?;
            return exchanged.map(|()| Placed::KeptAside);
        }
    }
    let is_directory = kept.dir.stat(&kept.name).is_ok_and(|found| found.is_directory());
    if is_directory && kept.dir.exchange(&kept.name, site.dir, site.name).is_ok() {
        to_stage()?;
        return Err(Errno::ISDIR.into());
    }
    staged.entry.armed = false;
    Ok(Placed::KeptAside)
}

/// Replaces what the look before has found to be right.
fn put_without_exchange(staged: &mut Staged, site: &Site<'_>, surveyed: bool, attic: &mut Attic) -> io::Result<Placed> {
    let stage = Arc::clone(&staged.entry.stage);
    if staged.kind != StagedKind::Directory && !surveyed {
        // Another name of it before it goes, so that its path is never empty.
        let kept = attic.keep_by_link(site.dir, site.name, site.path);
        stage.dir.rename(&staged.entry.name, site.dir, site.name)?;
        // Two names of one file: rename(2) does nothing then, and the staged one remains.
        staged.entry.armed = staged.kind == StagedKind::HardLink;
        attic.note_unkept(kept.and_then(Result::err));
        return Ok(Placed::AsExpected);
    }
    // Not atomic: for a moment nothing is there. No filesystem of this kind can do better.
    let aside = stage.fresh_name();
    site.dir.rename(site.name, &stage.dir, &aside)?;
    if let Err(error) = stage.dir.rename(&staged.entry.name, site.dir, site.name) {
        // If this fails too, the first error is the one to tell.
        let _ = stage.dir.rename_to_nothing(&aside, site.dir, site.name);
        return Err(error);
    }
    staged.entry.armed = false;
    let found = stage.dir.stat(&aside)?;
    match attic.keep(&stage.dir, &aside, site.path, &found, Why::Replaced) {
        Some(Ok(_)) => {}
        refused => {
            attic.note_unkept(refused.and_then(Result::err));
            stage.add_replaced(aside.into());
        }
    }
    Ok(Placed::AsExpected)
}

/// Exchanges what is at two places, both of which hold something.
///
/// RACE: without RENAME_EXCHANGE each of them is empty for a moment, and who is killed in it leaves
/// what was at `target` in the stage. Such a filesystem can do no better.
pub(super) fn swap(source: &Site<'_>, target: &Site<'_>, stage: &StageDir) -> io::Result<()> {
    let exchanged = source.dir.exchange(source.name, target.dir, target.name);
    if !matches!(errno(&exchanged), Some(Errno::INVAL | Errno::NOSYS)) {
        return exchanged;
    }
    let aside = stage.fresh_name();
    target.dir.rename(target.name, &stage.dir, &aside)?;
    let moved = source.dir.rename_to_nothing(source.name, target.dir, target.name);
    let back = if moved.is_ok() { source } else { target };
    stage.dir.rename_to_nothing(&aside, back.dir, back.name)?;
    moved
}

/// Removes what is at `site`, if it is no directory.
///
/// # Errors
/// `IsADirectory` for a directory, `NotFound` where nothing is, else the operating system's.
pub(super) fn take_away(site: &Site<'_>, expected: Expectation<'_>, attic: &mut Attic) -> io::Result<Placed> {
    let there = site.dir.stat(site.name)?;
    if there.is_directory() {
        return Err(Errno::ISDIR.into());
    }
    if !(expected)(there.expected()) {
        let kept = attic.take(site.dir, site.name, site.path)?;
        return put_back_directory(&kept.dir, &kept.name, site).map(|()| Placed::KeptAside);
    }
    let refused = match attic.keep(site.dir, site.name, site.path, &there, Why::Deleted) {
        Some(Ok(kept)) => {
            put_back_directory(&kept.dir, &kept.name, site)?;
            if (expected)(kept.dir.stat(&kept.name)?.expected()) {
                return Ok(Placed::AsExpected);
            }
            // If this fails it is kept all the same, where it is.
            let _ = attic.take(&kept.dir, &kept.name, site.path);
            return Ok(Placed::KeptAside);
        }
        refused => refused.and_then(Result::err),
    };
    let stage = Arc::clone(&attic.stage);
    let aside = stage.fresh_name();
    site.dir.rename(site.name, &stage.dir, &aside)?;
    put_back_directory(&stage.dir, &aside, site)?;
    if (expected)(stage.dir.stat(&aside)?.expected()) {
        stage.dir.unlink(&aside)?;
        attic.note_unkept(refused);
        return Ok(Placed::AsExpected);
    }
    let kept = attic.take(&stage.dir, &aside, site.path);
    if kept.is_err() {
        // If this fails too, something new is there already.
        let _ = stage.dir.rename_to_nothing(&aside, site.dir, site.name);
    }
    kept.map(|_| Placed::KeptAside)
}

/// A directory that appeared between the look and the rename goes back to `site`.
fn put_back_directory(dir: &Dir, name: &[u8], site: &Site<'_>) -> io::Result<()> {
    if !dir.stat(name)?.is_directory() {
        return Ok(());
    }
    dir.rename_to_nothing(name, site.dir, site.name)?;
    Err(Errno::ISDIR.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

    use super::super::apply::Applier;
    use super::super::beneath::WITHOUT_RENAMEAT2;
    use super::super::fixture::{Fixture, OVER_LEAVES, meta, names, path};
    use super::super::stage::Staging;
    use super::*;
    use crate::model::Timestamp;

    /// What is made at `d/x`.
    const THERE: [&str; 6] = ["nothing", "file", "symlink", "fifo", "directory", "as wanted"];

    fn make(fixture: &Fixture, there: &str) -> PathBuf {
        let at = fixture.path.join("d/x");
        match there {
            "file" => fs::write(&at, "old").unwrap(),
            "as wanted" => fs::write(&at, "done").unwrap(),
            "symlink" => symlink("old", &at).unwrap(),
            "fifo" => mknodat(CWD, &at, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap(),
            "directory" => fs::create_dir(&at).unwrap(),
            _ => return at,
        }
        let mtime = if there == "as wanted" { time(7) } else { time(5) };
        let now = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
        let times = Timestamps { last_access: now, last_modification: now };
        utimensat(CWD, &at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        at
    }

    fn time(secs: i64) -> Timestamp {
        meta(0, secs).mtime
    }

    /// All that may be expected: of each kind what is there, and what is not.
    fn expectations() -> Vec<Expected> {
        let file = |size_bytes, secs| Expected::File { size_bytes, mtime: time(secs) };
        let symlink = |secs| Expected::Symlink { mtime: time(secs) };
        let others = [Expected::Nothing, Expected::Directory, Expected::Special];
        [file(3, 5), file(3, 6), file(4, 5), symlink(5), symlink(6)].into_iter().chain(others).collect()
    }

    fn is_there(there: &str) -> Expected {
        match there {
            "nothing" => Expected::Nothing,
            "file" => Expected::File { size_bytes: 3, mtime: time(5) },
            "as wanted" => Expected::File { size_bytes: 4, mtime: time(7) },
            "symlink" => Expected::Symlink { mtime: time(5) },
            "fifo" => Expected::Special,
            _ => Expected::Directory,
        }
    }

    fn file(staging: &Staging) -> Staged {
        let mut file = staging.create_file(0o644).unwrap();
        file.file().write_all(b"done").unwrap();
        file.seal(&meta(0o644, 7)).unwrap()
    }

    /// The inode in the attic, if there is one, which must be all of the attic.
    fn kept(fixture: &Fixture) -> Option<u64> {
        let attic = fixture.path.join(".rfleet/attic/session");
        let dir = fs::symlink_metadata(&attic).ok()?;
        assert_eq!(dir.mode() & 0o7777, 0o700);
        assert_eq!((names(&attic), names(&attic.join("d"))), (vec!["d".into()], vec!["x".into()]));
        let kept = fs::symlink_metadata(attic.join("d/x")).unwrap();
        assert_eq!((kept.mtime(), kept.mtime_nsec()), (time(5).secs, time(5).nanos.into()));
        assert!(kept.file_type().is_fifo() == (kept.mode() & 0o777 == 0o640), "attributes are as they were");
        Some(kept.ino())
    }

    /// Each row of: filesystem, what is there, what is expected, what comes.
    #[test]
    fn what_is_expected_is_replaced_and_all_else_is_kept() {
        let mut rows = 0;
        for without in [false, true] {
            for there in THERE {
                for was in expectations() {
                    for new in ["file", "symlink", "directory", "hard link"] {
                        rows += 1;
                        WITHOUT_RENAMEAT2.set(without);
                        let row = format!("{new} in the place of {there}, {was:?} expected, {without}");
                        let fixture = Fixture::with(&["d", "other=linked"]);
                        let at = make(&fixture, there);
                        let before = fs::symlink_metadata(&at).ok().map(|there| there.ino());
                        let staging = Staging::open(&fixture.root).unwrap();
                        let top = fixture.root.dir(&RelPath::root()).unwrap();
                        let staged = match new {
                            "file" => file(&staging),
                            "symlink" => staging.symlink(b"new", &meta(0, 7)).unwrap(),
                            "directory" => staging.directory(&meta(0o755, 7)).unwrap(),
                            _ => staging.hard_link(&top, b"other").unwrap(),
                        };
                        let expected = staging.stage.dir.stat(&staged.entry.name).unwrap();
                        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
                        let over = Over { expected: &|found| found == was, directory: None };
                        let placed = apply.place(staged, &path("d/x"), over, &mut attic);
                        let after = fs::symlink_metadata(&at).unwrap().ino();
                        if there == "directory" {
                            assert_eq!(errno(&placed), Some(Errno::ISDIR), "{row}");
                            assert_eq!((Some(after), kept(&fixture)), (before, None), "{row}");
                            continue;
                        }
                        let wanted = there == "as wanted" && new == "file";
                        let drifted = there != "nothing" && was != is_there(there) && !wanted;
                        let outcome = if drifted { Placed::KeptAside } else { Placed::AsExpected };
                        assert_eq!(placed.unwrap(), outcome, "{row}");
                        assert_eq!(after, expected.ino, "{row}");
                        if there != "as wanted" {
                            assert_eq!(kept(&fixture), before.filter(|_| drifted), "{row}");
                        }
                        staging.dispose_replaced().unwrap();
                        assert!(names(&fixture.path.join(".rfleet/stage")).is_empty(), "{row}");
                        staging.finish(false).unwrap();
                        assert_eq!(fixture.path.join(".rfleet").exists(), drifted, "{row}");
                        assert!(!Staging::has_leftovers(&fixture.root).unwrap(), "{row}");
                    }
                }
            }
        }
        WITHOUT_RENAMEAT2.set(false);
        assert_eq!(rows, 2 * 6 * 8 * 4);
    }

    #[test]
    fn what_is_expected_is_removed_and_all_else_is_kept() {
        for there in THERE {
            for was in expectations() {
                let row = format!("{there}, {was:?} expected");
                let fixture = Fixture::with(&["d"]);
                let at = make(&fixture, there);
                let before = fs::symlink_metadata(&at).ok().map(|there| there.ino());
                let staging = Staging::open(&fixture.root).unwrap();
                let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
                let removed = apply.remove_file(&path("d/x"), &|found| found == was, &mut attic);
                match there {
                    "nothing" => assert_eq!(errno(&removed), Some(Errno::NOENT), "{row}"),
                    "directory" => {
                        assert_eq!(errno(&removed), Some(Errno::ISDIR), "{row}");
                        assert!(at.is_dir(), "{row}");
                    }
                    _ => {
                        let drifted = was != is_there(there);
                        let outcome = if drifted { Placed::KeptAside } else { Placed::AsExpected };
                        assert_eq!(removed.unwrap(), outcome, "{row}");
                        assert!(fs::symlink_metadata(&at).is_err(), "{row}");
                        if there != "as wanted" {
                            assert_eq!(kept(&fixture), before.filter(|_| drifted), "{row}");
                        }
                    }
                }
                assert!(names(&fixture.path.join(".rfleet/stage")).is_empty(), "{row}");
            }
        }
    }

    #[test]
    fn another_file_of_the_size_and_time_of_a_hard_link_is_kept_and_the_same_file_is_not() {
        let fixture = Fixture::with(&["d", "other=two"]);
        let at = make(&fixture, "file");
        let now = Timespec { tv_sec: time(5).secs, tv_nsec: time(5).nanos.into() };
        let times = Timestamps { last_access: now, last_modification: now };
        utimensat(CWD, fixture.path.join("other"), &times, AtFlags::empty()).unwrap();
        let staging = Staging::open(&fixture.root).unwrap();
        let top = fixture.root.dir(&RelPath::root()).unwrap();
        let before = fs::symlink_metadata(&at).unwrap().ino();
        for outcome in [Placed::KeptAside, Placed::AsExpected] {
            let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
            let over = Over { expected: &|_| false, ..OVER_LEAVES };
            let staged = staging.hard_link(&top, b"other").unwrap();
            assert_eq!(apply.place(staged, &path("d/x"), over, &mut attic).unwrap(), outcome);
            assert_eq!((fixture.text("d/x").as_str(), kept(&fixture)), ("two", Some(before)));
        }
    }

    #[test]
    fn a_name_that_is_taken_in_the_attic_gets_a_number() {
        let longest = "n".repeat(255);
        let fixture = Fixture::new();
        let staging = Staging::open(&fixture.root).unwrap();
        let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
        let mut keep = |name: &str, text: &str| {
            fs::write(fixture.path.join(name), text).unwrap();
            let over = Over { expected: &|_| false, ..OVER_LEAVES };
            assert_eq!(apply.place(file(&staging), &path(name), over, &mut attic).unwrap(), Placed::KeptAside);
            assert_eq!(apply.remove_file(&path(name), &|_| true, &mut attic).unwrap(), Placed::AsExpected);
        };
        for text in ["one", "second", "third one"] {
            keep("a", text);
            keep(&longest, text);
        }
        fs::create_dir(fixture.path.join("a")).unwrap();
        keep("a/b", "below");
        let session = fixture.path.join(".rfleet/attic/session");
        let text = |name: &str| fs::read_to_string(session.join(name)).unwrap();
        assert_eq!([text("a"), text("a.1"), text("a.2")], ["one", "second", "third one"]);
        assert_eq!(text("a.3/b"), "below");
        let cut = |number: usize| format!("{}.{number}", "n".repeat(253));
        assert_eq!([text(&longest), text(&cut(1)), text(&cut(2))], ["one", "second", "third one"]);
    }

    #[test]
    fn an_attic_that_leads_elsewhere_is_not_used() {
        let fixture = Fixture::with(&["f=precious"]);
        let staging = Staging::open(&fixture.root).unwrap();
        let attic = fixture.path.join(".rfleet/attic");
        assert!(staging.attic("..").is_err() && staging.attic("a/b").is_err());
        symlink(&fixture.outside, &attic).unwrap();
        let try_all = |what: &str| {
            let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
            let over = Over { expected: &|_| false, ..OVER_LEAVES };
            assert!(apply.place(file(&staging), &path("f"), over, &mut attic).is_err(), "{what}");
            assert!(apply.remove_file(&path("f"), &|_| false, &mut attic).is_err(), "{what}");
            assert_eq!(fixture.text("f"), "precious", "{what}");
            assert!(names(&fixture.path.join(".rfleet/stage")).is_empty(), "{what}");
        };
        try_all("a link");
        fs::remove_file(&attic).unwrap();
        fs::write(&attic, "").unwrap();
        try_all("a file");
        fs::remove_file(&attic).unwrap();
        fs::create_dir(&attic).unwrap();
        symlink(&fixture.outside, attic.join("session")).unwrap();
        try_all("a link for the session");
        fs::remove_file(attic.join("session")).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&attic, Some(12345), None).unwrap();
            try_all("someone else's");
            std::os::unix::fs::lchown(&attic, Some(0), None).unwrap();
        }
        fs::set_permissions(&attic, fs::Permissions::from_mode(0o755)).unwrap();
        fixture.assert_outside_untouched();
    }
}
