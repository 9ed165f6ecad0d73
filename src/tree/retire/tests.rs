use std::fs;
use std::path::PathBuf;

use super::super::fixture::{Fixture, OVER_ALL, OVER_LEAVES, meta, names, path};
use super::super::{Applier, KeptSessions, Staging};
use super::*;

const DAY: i64 = 86_400;

fn at(secs: i64) -> Timestamp {
    Timestamp { secs, nanos: 0 }
}

fn keep(days: u64, max_bytes: u64) -> Retention {
    Retention { age: Duration::from_secs(days * 86_400), max_bytes }
}

/// One session at `now` that replaces or deletes files of a page each, as expected or not.
fn session(fixture: &Fixture, now: i64, retention: Retention, work: impl FnOnce(&mut Applier, &Staging, &mut Attic)) {
    let staging = Staging::open(&fixture.root).unwrap();
    staging.write_state(b"a fleet's").unwrap();
    let mut attic = staging.attic(&session_name(at(now), 7)).unwrap();
    if retention.keeps_expected() {
        attic.keep_expected(retention.max_bytes);
    }
    work(&mut Applier::new(&fixture.root), &staging, &mut attic);
    staging.finish(true).unwrap();
    attic.settle(at(now), retention).unwrap();
}

fn delete(fixture: &Fixture, now: i64, retention: Retention, name: &str, expected: bool) {
    fs::write(fixture.path.join(name), [b'x'; 4000]).unwrap();
    session(fixture, now, retention, |applier, _, attic| {
        let _ = applier.remove_file(&path(name), &|_| expected, attic).unwrap();
    });
}

fn attic(fixture: &Fixture) -> PathBuf {
    fixture.path.join(".rfleet/attic")
}

/// What is kept, as `DAY why path`.
fn kept(fixture: &Fixture) -> Vec<String> {
    let Some(attic) = KeptSessions::open(&fixture.root).unwrap() else { return Vec::new() };
    let mut all = Vec::new();
    for session in attic.sessions().unwrap() {
        attic
            .each(&session, &RelPath::root(), &mut |path, _| {
                all.push(format!("{} {:?} {path}", &session.session[6..8], session.why));
                Ok(())
            })
            .unwrap();
    }
    all
}

#[test]
fn what_is_older_than_its_age_goes_and_the_rest_stays() {
    let fixture = Fixture::new();
    let week = keep(7, 1 << 30);
    for day in 0..4 {
        delete(&fixture, day * DAY, week, &format!("f{day}"), true);
        delete(&fixture, day * DAY + 1, week, &format!("d{day}"), false);
    }
    assert_eq!(kept(&fixture).len(), 8);
    // A commit that itself keeps nothing.
    session(&fixture, 9 * DAY, week, |_, _, _| {});
    assert_eq!(
        kept(&fixture),
        ["04 Unexpected d3", "04 Deleted f3", "03 Unexpected d2", "03 Deleted f2"],
        "the edge counts as kept"
    );
    session(&fixture, 400 * DAY, week, |_, _, _| {});
    assert_eq!((kept(&fixture), names(&attic(&fixture))), (vec![], vec!["sizes".to_owned()]));
}

#[test]
fn the_oldest_goes_first_where_it_is_too_much_and_never_what_was_not_expected() {
    let fixture = Fixture::new();
    delete(&fixture, 0, keep(7, 10_000), "by hand", false);
    for second in 1..6 {
        delete(&fixture, second * 10, keep(7, 10_000), &format!("f{second}"), true);
    }
    assert_eq!(kept(&fixture), ["01 Deleted f5", "01 Deleted f4", "01 Unexpected by hand"]);
    assert_eq!(attic_can_give_up(&fixture.root).unwrap().bytes, 2 * 4096);
    delete(&fixture, 100, keep(7, 4000), "large", true);
    assert_eq!(
        kept(&fixture),
        ["01 Unexpected by hand"],
        "what is more than all is not kept, and what is there is too much"
    );
}

#[test]
fn sizes_that_are_lost_or_damaged_are_made_anew() {
    let fixture = Fixture::new();
    let sizes = attic(&fixture).join("sizes");
    for (second, damage) in
        ["", "nonsense", "rfleet attic 1\nlooked x\nx y z\n../../x 1 1\n", "\u{0}"].iter().enumerate()
    {
        let second = i64::try_from(second).unwrap() * 10 + 1;
        delete(&fixture, second, keep(7, 1 << 30), &format!("f{second}"), true);
        fs::write(&sizes, damage).unwrap();
    }
    fs::remove_file(&sizes).unwrap();
    // Of an earlier version: no reason in its name, directories on the way as any other.
    fs::create_dir_all(attic(&fixture).join("19700101T000000Z-1/a/b")).unwrap();
    fs::write(attic(&fixture).join("19700101T000000Z-1/a/b/c"), "old").unwrap();
    fs::write(attic(&fixture).join("note"), "someone's").unwrap();
    session(&fixture, 100, keep(7, 1 << 30), |_, _, _| {});
    assert_eq!(attic_can_give_up(&fixture.root).unwrap().bytes, 4 * 4096);
    assert!(kept(&fixture).contains(&"01 Unexpected a/b/c".to_owned()));
    session(&fixture, 100 * DAY, keep(7, 1 << 30), |_, _, _| {});
    assert_eq!(names(&attic(&fixture)), ["note", "sizes"], "what is not ours stays");
}

#[test]
fn an_attic_that_is_turned_off_keeps_what_was_not_expected_without_end() {
    let fixture = Fixture::new();
    delete(&fixture, 1, keep(7, 1 << 30), "f", true);
    delete(&fixture, 2, keep(7, 1 << 30), "d", false);
    delete(&fixture, 400 * DAY, keep(0, 1 << 30), "g", true);
    assert_eq!(kept(&fixture), ["01 Unexpected d"]);
}

#[test]
fn a_directory_is_kept_with_its_attributes_and_one_that_stays_is_none() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let fixture = Fixture::with(&["gone", "stays", "whole"]);
    fs::create_dir(fixture.path.join("gone/empty")).unwrap();
    fs::create_dir(fixture.path.join("whole/in")).unwrap();
    for name in ["gone/f", "stays/f", "whole/in/f"] {
        fs::write(fixture.path.join(name), name).unwrap();
    }
    fs::set_permissions(fixture.path.join("gone"), fs::Permissions::from_mode(0o2751)).unwrap();
    session(&fixture, 5, keep(7, 1 << 30), |applier, staging, attic| {
        for name in ["gone/f", "stays/f"] {
            let _ = applier.remove_file(&path(name), &|_| true, attic).unwrap();
        }
        assert!(applier.remove_directory(&path("whole"), attic).is_err(), "it is not empty");
        applier.remove_directory(&path("gone/empty"), attic).unwrap();
        applier.remove_directory(&path("gone"), attic).unwrap();
        let file = staging.create_file(0o644).unwrap().seal(&meta(0o644, 7)).unwrap();
        let _ = applier.place(file, &path("whole"), OVER_ALL, attic).unwrap();
    });
    assert_eq!(
        kept(&fixture),
        [
            "01 Deleted gone",
            "01 Deleted gone/empty",
            "01 Deleted gone/f",
            "01 Deleted stays/f",
            "01 Replaced whole",
            "01 Replaced whole/in",
            "01 Replaced whole/in/f"
        ]
    );
    let gone = attic(&fixture).join("19700101T000005Z-7.deleted/gone");
    assert_eq!(fs::metadata(gone).unwrap().mode() & 0o7777, 0o2751);
    assert_eq!(names(&fixture.path.join(".rfleet")), ["attic", "lock", "state"]);
}

#[test]
fn a_commit_removes_no_more_than_its_bound_and_the_next_ones_the_rest() {
    let fixture = Fixture::new();
    let session_dir = attic(&fixture).join("19700101T000001Z-1.deleted");
    delete(&fixture, 0, keep(7, 1 << 30), "f", true);
    let many = usize::try_from(REMOVED_AT_ONCE).unwrap() / 10;
    for dir in 0..21 {
        fs::create_dir_all(session_dir.join(format!("d{dir}"))).unwrap();
        for file in 0..many / 2 {
            fs::write(session_dir.join(format!("d{dir}/{file}")), "").unwrap();
            fs::write(session_dir.join(format!("{dir}-{file}")), "").unwrap();
        }
    }
    let left = || {
        let gone = attic(&fixture).join(".gone");
        let below = |dir: &str| names(&gone.join(dir)).len();
        if gone.exists() { names(&gone).iter().map(|dir| below(dir)).sum() } else { 0 }
    };
    session(&fixture, 30 * DAY, keep(7, 1 << 30), |_, _, _| {});
    assert_eq!(kept(&fixture), Vec::<String>::new());
    let first = left();
    assert!(first > 0 && first < 21 * many, "{first}");
    session(&fixture, 30 * DAY + 1, keep(7, 1 << 30), |_, _, _| {});
    session(&fixture, 30 * DAY + 2, keep(7, 1 << 30), |_, _, _| {});
    assert_eq!((left(), names(&attic(&fixture))), (0, vec!["sizes".to_owned()]));
}

#[test]
fn room_is_made_from_the_oldest_of_what_was_expected_and_from_nothing_else() {
    let fixture = Fixture::new();
    delete(&fixture, 1, keep(7, 1 << 30), "by hand", false);
    for second in 2..6 {
        delete(&fixture, second, keep(7, 1 << 30), &format!("f{second}"), true);
    }
    let staging = Staging::open(&fixture.root).unwrap();
    let mut asked = 0;
    let given_up = staging.give_up_attic(&mut |_| {
        asked += 1;
        asked > 2
    });
    assert_eq!(given_up.unwrap(), KeptSize { bytes: 2 * 4096, entries: 2 });
    assert_eq!(kept(&fixture), ["01 Deleted f5", "01 Deleted f4", "01 Unexpected by hand"]);
    staging.give_up_attic(&mut |_| false).unwrap();
    assert_eq!(kept(&fixture), ["01 Unexpected by hand"]);
    assert_eq!(attic_can_give_up(&fixture.root).unwrap(), KeptSize::default());
}

#[test]
fn where_nothing_can_be_exchanged_what_is_replaced_is_kept_by_a_second_name() {
    use super::super::beneath::WITHOUT_RENAMEAT2;
    let fixture = Fixture::with(&["f=old"]);
    WITHOUT_RENAMEAT2.set(true);
    session(&fixture, 5, keep(7, 1 << 30), |applier, staging, attic| {
        let file = staging.create_file(0o644).unwrap().seal(&meta(0o644, 7)).unwrap();
        let _ = applier.place(file, &path("f"), OVER_LEAVES, attic).unwrap();
        assert_eq!(attic.unkept(), None);
    });
    WITHOUT_RENAMEAT2.set(false);
    assert_eq!((kept(&fixture), fixture.text("f")), (vec!["01 Replaced f".to_owned()], String::new()));
    assert_eq!(fs::read_to_string(attic(&fixture).join("19700101T000005Z-7.replaced/f")).unwrap(), "old");
}

#[test]
fn an_attic_that_cannot_be_used_stops_no_push_of_what_is_expected() {
    let fixture = Fixture::with(&["f=old", "g=old"]);
    fs::create_dir(fixture.path.join(".rfleet")).unwrap();
    std::os::unix::fs::symlink(&fixture.outside, attic(&fixture)).unwrap();
    let staging = Staging::open(&fixture.root).unwrap();
    let mut kept = staging.attic("19700101T000005Z-7").unwrap();
    kept.keep_expected(1 << 30);
    let mut applier = Applier::new(&fixture.root);
    let file = staging.create_file(0o644).unwrap().seal(&meta(0o644, 7)).unwrap();
    let _ = applier.place(file, &path("f"), OVER_LEAVES, &mut kept).unwrap();
    let _ = applier.remove_file(&path("g"), &|_| true, &mut kept).unwrap();
    assert_eq!((fixture.text("f").as_str(), fixture.path.join("g").exists()), ("", false));
    assert_eq!(kept.unkept().unwrap().0, 2);
    assert!(names(&fixture.path.join(".rfleet/stage")).is_empty());
    fixture.assert_outside_untouched();
}
