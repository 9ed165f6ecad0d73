//! A walk with a second thread finds what one alone finds, in the same order.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::fixture::{Fixture, is_unprivileged, path};
use super::links::Links;
use super::scan::{ScanOptions, ScanReport, SeenDirectory, walk};
use super::selection::Selection;
use super::{Filter, SystemOwners};
use crate::model::{DirListing, Patterns, Problem, ProblemKind, RelPath};

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A tree of `directories` with some of everything that a walk treats in its own way.
fn random_tree(at: &Path, directories: usize, random: &mut Random) {
    let mut dirs: Vec<PathBuf> = vec![at.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..directories {
        let above = &dirs[random.below(dirs.len() as u64) as usize];
        let name = ["d", "cache", "D-", "d.", "skipped"][random.below(5) as usize];
        let dir = above.join(format!("{name}{number}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..random.below(12) {
            let at = dir.join(format!("{}{file}", ["f", "x.tmp", "a-", "large", "y.bak"][random.below(5) as usize]));
            match random.below(8) {
                0 => symlink("anywhere", &at).unwrap(),
                1 if !files.is_empty() => {
                    fs::hard_link(&files[random.below(files.len() as u64) as usize], &at).unwrap();
                }
                _ => {
                    fs::write(&at, vec![b'x'; random.below(400) as usize]).unwrap();
                    files.push(at);
                }
            }
        }
        if random.below(6) == 0 {
            let text = ["*.tmp\n", "!x.tmp*\n/cache*\n", "large?\nd1*/\n", "*.bak*\n!*.bak2\n[\n"];
            fs::write(dir.join(".rfleetignore"), text[random.below(4) as usize]).unwrap();
        }
        if random.below(20) == 0 {
            fs::create_dir_all(dir.join(".rfleet/stage")).unwrap();
        }
        dirs.push(dir);
    }
}

struct Skipped;

impl Filter for Skipped {
    fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
        is_directory && path.name().starts_with(b"skipped")
    }
}

/// Enough for no tree to have a second thread.
const ALWAYS_ALONE: u64 = u64::MAX;

fn listed(fixture: &Fixture, options: &ScanOptions<'_>, alone: u64) -> (Vec<DirListing>, ScanReport) {
    let mut dirs = Vec::new();
    let visit = &mut |dir| {
        dirs.push(dir);
        Ok(())
    };
    let report = walk(
        &fixture.root,
        options,
        &SystemOwners::new(),
        alone,
        |lister, shown, path, links| lister.list(shown, path, &mut Links::Grow(links)),
        visit,
    );
    (dirs, report.unwrap())
}

fn surveyed(fixture: &Fixture, options: &ScanOptions<'_>, alone: u64) -> (Vec<SeenDirectory>, ScanReport) {
    let mut dirs = Vec::new();
    let visit = &mut |dir| {
        dirs.push(dir);
        Ok(())
    };
    let owners = SystemOwners::new();
    let report =
        walk(&fixture.root, options, &owners, alone, |lister, shown, path, _| lister.survey(shown, path), visit);
    (dirs, report.unwrap())
}

/// All that a report tells, but for nothing.
fn told(report: &ScanReport) -> String {
    let ScanReport { names, links, unreadable, problems, left, entries, directories, unwatched: _ } = report;
    let names = (names.users.iter().collect::<Vec<_>>(), names.groups.iter().collect::<Vec<_>>());
    format!("{names:?} {} {unreadable:?} {problems:?} {left:?} {entries} {directories}", links.len())
}

#[test]
fn a_second_thread_changes_nothing_of_what_is_listed_nor_of_its_order() {
    let mut second = 0;
    for seed in 1..=12 {
        let fixture = Fixture::new();
        random_tree(&fixture.path, 250, &mut Random(seed * 0x9E37_79B9));
        let exclude = Patterns::parse(b"*.tmp3\ncache1*\n").unwrap().0;
        let selection = Selection { exclude, max_size_bytes: Some(350), ..Selection::default() };
        let options = ScanOptions {
            filter: Some(&Skipped),
            selection: (seed % 3 > 0).then_some(&selection),
            checksum: seed % 4 == 0,
            attributes: seed % 2 == 0,
            on_progress: None,
            ..ScanOptions::default()
        };
        let (expected, alone) = listed(&fixture, &options, ALWAYS_ALONE);
        let (dirs, report) = listed(&fixture, &options, 1);
        assert!(dirs.is_sorted_by(|a, b| a.path < b.path));
        assert!(dirs == expected, "seed {seed}");
        assert_eq!(told(&report), told(&alone), "seed {seed}");
        assert_eq!(report.links, alone.links);
        second += dirs.len();

        let (expected, alone) = surveyed(&fixture, &options, ALWAYS_ALONE);
        let (dirs, report) = surveyed(&fixture, &options, 1);
        assert_eq!(format!("{dirs:?}"), format!("{expected:?}"), "seed {seed}");
        assert_eq!(told(&report), told(&alone), "seed {seed}");
    }
    assert!(second > 500, "hardly anything was left to list");
}

#[test]
fn directories_of_more_entries_than_are_looked_at_ahead_are_listed_whole() {
    let fixture = Fixture::new();
    let sizes = [0, 1, 700, 2_500, 9_000, 3, 2_100, 4_200];
    for (dir, size) in sizes.iter().enumerate() {
        let dir = fixture.path.join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..*size {
            fs::File::create(dir.join(format!("a-name-of-some-length-{file:08}"))).unwrap();
        }
    }
    let (dirs, report) = surveyed(&fixture, &ScanOptions::default(), 1);
    let found: Vec<usize> = dirs.iter().skip(1).map(|dir| dir.entries.len()).collect();
    assert_eq!(found, sizes);
    for dir in &dirs {
        assert!(dir.entries.is_sorted_by(|a, b| a.node.name < b.node.name), "{}", dir.path);
    }
    assert_eq!(report.entries, sizes.iter().sum::<usize>() as u64 + 8);
}

#[test]
fn what_cannot_be_read_ahead_is_reported_as_by_one_thread() {
    if !is_unprivileged("tree::scan_tests::what_cannot_be_read_ahead_is_reported_as_by_one_thread") {
        return;
    }
    let fixture = Fixture::new();
    random_tree(&fixture.path, 120, &mut Random(77));
    let (dirs, _) = listed(&fixture, &ScanOptions::default(), ALWAYS_ALONE);
    let change = |mode: &dyn Fn(usize) -> u32| {
        // From the deepest, since what is below a closed one cannot be reached.
        for (number, dir) in dirs.iter().enumerate().skip(1).rev() {
            let at = fixture.path.join(dir.path.to_string());
            let _ = fs::set_permissions(at, fs::Permissions::from_mode(mode(number)));
        }
    };
    change(&|number| [0o700, 0o000, 0o700, 0o400, 0o300][number % 5]);
    let selection = Selection::default();
    for selection in [None, Some(&selection)] {
        let options = ScanOptions { selection, ..ScanOptions::default() };
        let (expected, alone) = listed(&fixture, &options, ALWAYS_ALONE);
        let (dirs, report) = listed(&fixture, &options, 1);
        assert!(alone.unreadable.len() > 5, "too little that cannot be read: {:?}", alone.unreadable);
        assert!(dirs == expected);
        assert_eq!(told(&report), told(&alone));
    }
    for dir in dirs.iter().skip(1) {
        fs::set_permissions(fixture.path.join(dir.path.to_string()), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_directory_that_vanishes_while_the_walk_is_on_its_way_is_listed_or_reported() {
    let fixture = Fixture::new();
    for number in 0..200 {
        let dir = fixture.path.join(format!("d{number:03}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("f"), "x").unwrap();
    }
    symlink(&fixture.outside, fixture.path.join("link")).unwrap();
    let (mut seen, mut count) = (Vec::new(), 0);
    let report = walk(
        &fixture.root,
        &ScanOptions::default(),
        &SystemOwners::new(),
        1,
        |lister, shown, path, _| lister.survey(shown, path),
        &mut |dir: SeenDirectory| {
            assert!(dir.entries.iter().all(|seen| *seen.node.name != *b"secret"), "{}", dir.path);
            // The next one becomes a link, that after it and one far off go.
            if count % 10 == 1 {
                let at = |number: usize| fixture.path.join(format!("d{number:03}"));
                for gone in [count, count + 1, count + 100].into_iter().filter(|gone| *gone < 200) {
                    let _ = fs::remove_dir_all(at(gone));
                }
                symlink(&fixture.outside, at(count)).unwrap();
            }
            count += 1;
            seen.push((dir.path, dir.entries.len()));
            Ok(())
        },
    );
    let gone: Vec<&Problem> = report.as_ref().unwrap().unreadable.iter().collect();
    assert!(gone.iter().all(|problem| problem.kind == ProblemKind::Vanished), "{gone:?}");
    assert!(gone.iter().any(|problem| problem.path == path("d101")), "{gone:?}");
    let missing = (0..200).map(|number| path(&format!("d{number:03}"))).find(|path| {
        let listed = seen.iter().filter(|(seen, _)| seen == path).count();
        listed + gone.iter().filter(|problem| problem.path == *path).count() != 1
    });
    assert_eq!(missing, None, "neither listed nor reported, or both");
}

#[test]
fn a_walk_that_ends_early_ends_its_second_thread() {
    let fixture = Fixture::new();
    random_tree(&fixture.path, 200, &mut Random(5));
    for end in [1, 2, 20, 60] {
        let mut count = 0;
        let ended = walk(
            &fixture.root,
            &ScanOptions::default(),
            &SystemOwners::new(),
            1,
            |lister, shown, path, _| lister.survey(shown, path),
            &mut |_| {
                count += 1;
                if count == end { Err(std::io::Error::other("enough")) } else { Ok(()) }
            },
        );
        assert_eq!(ended.unwrap_err().to_string(), "enough");
        assert_eq!(count, end);
    }
}
