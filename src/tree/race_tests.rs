//! A local user swaps components while rfleet works: nothing outside the root is read or changed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant};

use super::fixture::{Fixture, OVER_ALL, OVER_LEAVES, flip_while, meta, path};
use super::{Applier, ContentReader, Expectation, Over, Parents, Placed, ScanOptions, Staging, SystemOwners, scan};
use crate::model::{Expected, Kind, Timestamp};

/// Enough for thousands of swaps between any two system calls.
const ROUNDS: u64 = 3_000;

/// The rounds of a race: at least [`ROUNDS`], and on a busy machine until it was seen both won and
/// lost, which `round` tells, or a deadline shows that it is not run at all.
fn race(mut round: impl FnMut(u64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut both_seen = false;
    for at in 0.. {
        both_seen = round(at);
        if (at >= ROUNDS && both_seen) || Instant::now() > deadline {
            break;
        }
    }
    assert!(both_seen, "the race was not run");
}

/// `d` is a directory with `f` and `sub/`, and `e` a link to the outside, which has the same names.
fn flipping() -> Fixture {
    let fixture = Fixture::with(&["d", "d/sub", "d/f=inside", "d/g=inside"]);
    symlink(&fixture.outside, fixture.path.join("e")).unwrap();
    fixture
}

fn outside_state(fixture: &Fixture) -> (u32, i64, i64, u64, i64, i64) {
    let dir = fs::metadata(&fixture.outside).unwrap();
    let file = fs::metadata(fixture.outside.join("secret")).unwrap();
    (dir.mode(), dir.mtime(), dir.mtime_nsec(), dir.nlink(), file.ctime(), file.ctime_nsec())
}

#[test]
fn a_swapped_directory_leads_no_scan_and_no_read_outside() {
    let fixture = flipping();
    fs::write(fixture.path.join("d/secret"), "inside").unwrap();
    // Enough before it for a second thread, and beside it for both.
    for number in 0..40 {
        fs::create_dir(fixture.path.join(format!("a{number}"))).unwrap();
        fs::create_dir(fixture.path.join(format!("d{number}"))).unwrap();
    }
    flip_while(&fixture.path.join("d"), &fixture.path.join("e"), || {
        let mut buffer = [0; 64];
        let (mut read, mut listed) = (0, 0);
        race(|round| {
            let mut parents = Parents::new(&fixture.root);
            if let Ok(mut reader) = ContentReader::open(&mut parents, &path("d/secret")) {
                let count = reader.read(&mut buffer).unwrap();
                assert_eq!(&buffer[..count], b"inside");
                read += 1;
            }
            if round % 8 == 0 {
                scan(&fixture.root, &ScanOptions::default(), &SystemOwners::new(), &mut |dir| {
                    if dir.path == path("d") || dir.path == path("e") {
                        assert!(dir.find(b"f").is_some(), "a listing of {} that is not d's", dir.path);
                        listed += 1;
                    }
                    Ok(())
                })
                .unwrap();
            }
            read > 0 && listed > 0 && read <= round
        });
    });
}

#[test]
fn a_swapped_directory_leads_no_change_outside() {
    let fixture = flipping();
    let before = outside_state(&fixture);
    let staging = Staging::open(&fixture.root).unwrap();
    let mut attic = staging.attic("session").unwrap();
    flip_while(&fixture.path.join("d"), &fixture.path.join("e"), || {
        let mut done = 0;
        race(|round| {
            // A new one each time, so that the directory is looked up again.
            let mut apply = Applier::new(&fixture.root);
            let result = match round % 8 {
                0 => {
                    let mut file = staging.create_file(0o644).unwrap();
                    file.file().write_all(b"new").unwrap();
                    let over = if round % 2 == 0 { OVER_LEAVES } else { Over { expected: &|_| false, ..OVER_LEAVES } };
                    apply.place(file.seal(&meta(0o644, 1)).unwrap(), &path("d/secret"), over, &mut attic).map(drop)
                }
                1 => apply.make_directory(&path("d/made")).map(|_| ()),
                2 => apply.remove_file(&path("d/secret"), &|_| round % 3 == 0, &mut attic).map(drop),
                3 => apply.remove_directory(&path("d/made"), &mut attic),
                4 => apply.set_meta(&path("d"), &Kind::Directory, &meta(0o711, 5), &|_| true).map(drop),
                5 => apply.set_meta(&path("d/f"), &Kind::file(0), &meta(0o600, 5), &|_| true).map(drop),
                6 => match apply.move_directory(&path("d/sub"), &path("d/moved"), false, &staging) {
                    Ok(()) => apply.move_directory(&path("d/moved"), &path("d/sub"), false, &staging),
                    failed => failed,
                },
                _ => {
                    let link = staging.symlink(b"x", &meta(0, 7)).unwrap();
                    apply.place(link, &path("d/link"), OVER_ALL, &mut attic).map(drop)
                }
            };
            done += u64::from(result.is_ok());
            done > 0 && done <= round
        });
    });
    fixture.assert_outside_untouched();
    assert_eq!(outside_state(&fixture), before);
}

#[test]
fn a_swapped_leaf_is_never_followed() {
    let fixture = Fixture::with(&["f=inside"]);
    symlink(fixture.outside.join("secret"), fixture.path.join("l")).unwrap();
    let before = outside_state(&fixture);
    flip_while(&fixture.path.join("f"), &fixture.path.join("l"), || {
        let mut apply = Applier::new(&fixture.root);
        let (mut read, mut set) = (0, 0);
        race(|round| {
            let mode = if round % 2 == 0 { 0o600 } else { 0o640 };
            set += u64::from(apply.set_meta(&path("f"), &Kind::file(0), &meta(mode, 9), &|_| true).is_ok());
            if let Ok(reader) = ContentReader::open(apply.parents(), &path("f")) {
                assert_eq!(reader.size_bytes(), "inside".len() as u64);
                read += 1;
            }
            read > 0 && set > 0 && read <= round
        });
    });
    assert_eq!(outside_state(&fixture), before);
}

/// Someone else makes files of their own at a path, whenever nothing is there. Each has a second name
/// elsewhere, so its number of names tells whether it was ever removed.
#[test]
fn what_appears_at_a_path_meanwhile_is_never_lost() {
    let fixture = Fixture::new();
    let (at, theirs) = (fixture.path.join("f"), fixture.outside.join("theirs"));
    fs::create_dir(&theirs).unwrap();
    let ours = Expected::File { size_bytes: 4, mtime: Timestamp { secs: 7, nanos: 123_456_789 } };
    let (nothing, only_ours): (Expectation, Expectation) =
        (&|found| found == Expected::Nothing, &|found| found == ours);
    let staging = Staging::open(&fixture.root).unwrap();
    let (mut apply, mut attic) = (Applier::new(&fixture.root), staging.attic("session").unwrap());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut made = 0;
            while !stopped() {
                let own = theirs.join(made.to_string());
                fs::write(&own, "their own").unwrap();
                while fs::hard_link(&own, &at).is_err() && !stopped() {}
                made += 1;
            }
        });
        let (mut kept, mut clean) = (0, 0);
        race(|_| {
            let mut file = staging.create_file(0o644).unwrap();
            file.file().write_all(b"ours").unwrap();
            let over = Over { expected: nothing, directory: None };
            let placed = apply.place(file.seal(&meta(0o644, 7)).unwrap(), &path("f"), over, &mut attic).unwrap();
            let removed = apply.remove_file(&path("f"), only_ours, &mut attic);
            for done in [Ok(placed), removed].into_iter().flatten() {
                match done {
                    Placed::KeptAside => kept += 1,
                    Placed::AsExpected => clean += 1,
                }
            }
            kept > 0 && clean > 0
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    staging.finish(false).unwrap();
    let mut names: Vec<u64> = super::fixture::names(&theirs).iter().map(|name| name.parse().unwrap()).collect();
    names.sort_unstable();
    // The last one may never have got its second name.
    names.pop();
    assert!(names.len() > 1);
    for name in names {
        assert_eq!(fs::metadata(theirs.join(name.to_string())).unwrap().nlink(), 2, "{name} is gone");
    }
}
