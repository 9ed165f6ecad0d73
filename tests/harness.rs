//! The stories' own tools must be able to fail: the comparer, the checks of versions, the real sshd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rstest::rstest;
use support::scratch::run_or_panic;
use support::sshd::client_config;
use support::tree::{set_mode, set_time};
use support::{
    Rng, Scratch, Snapshot, Sshd, SshdOptions, Tree, assert_rsync_agrees, assert_same, every_kind, mutate, process,
    random_tree, versions, wait_until,
};

/// A fresh and exact copy. (rsync itself leaves a directory's nanoseconds alone when the seconds are right.)
fn exact_copy(source: &Path, copy: &Path) {
    if copy.exists() {
        fs::remove_dir_all(copy).unwrap();
    }
    run_or_panic(Command::new("cp").arg("-aT").arg(source).arg(copy));
}

#[test]
fn the_comparer_agrees_with_rsync_on_every_kind_and_after_mutations() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    every_kind().create(&source);
    exact_copy(&source, &copy);
    assert_same(&source, &copy);
    assert_rsync_agrees(&source, &copy);
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        random_tree(&source.join(format!("random{seed}")), &mut rng, 60);
        mutate(&source, &mut rng, 60);
        assert!(!Snapshot::take(&source).differences(&Snapshot::take(&copy)).is_empty(), "mutations are seen");
        exact_copy(&source, &copy);
        assert_same(&source, &copy);
        assert_rsync_agrees(&source, &copy);
    }
}

#[test]
fn the_same_seed_makes_the_same_tree() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.path("one"), scratch.path("two"));
    for root in [&one, &two] {
        let mut rng = Rng::new(5);
        random_tree(root, &mut rng, 80);
        mutate(root, &mut rng, 40);
    }
    let names = |root: &Path| Snapshot::take(root).entries.into_keys().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&two));
}

#[rstest]
#[case::content(|copy: &Path| { let time = fs::metadata(copy.join("a")).unwrap().modified().unwrap();
    fs::write(copy.join("a"), "A").unwrap(); fs::File::open(copy.join("a")).unwrap().set_modified(time).unwrap(); })]
#[case::time(|copy: &Path| set_time(&copy.join("a"), (1_500_000_000, 123_456_788)))]
#[case::time_of_directory(|copy: &Path| set_time(&copy.join("d"), (1, 1)))]
#[case::time_of_link(|copy: &Path| set_time(&copy.join("l"), (1, 1)))]
#[case::time_of_root(|copy: &Path| set_time(copy, (1, 1)))]
#[case::mode(|copy: &Path| set_mode(&copy.join("a"), 0o640))]
#[case::owner(|copy: &Path| std::os::unix::fs::lchown(copy.join("l"), Some(7), None).unwrap())]
#[case::extra(|copy: &Path| fs::write(copy.join("d/extra"), "").unwrap())]
#[case::missing(|copy: &Path| fs::remove_file(copy.join("d/b")).unwrap())]
#[case::target(|copy: &Path| { fs::remove_file(copy.join("l")).unwrap();
    std::os::unix::fs::symlink("other", copy.join("l")).unwrap(); })]
#[case::hard_link(|copy: &Path| { fs::copy(copy.join("h"), copy.join("x")).unwrap();
    fs::rename(copy.join("x"), copy.join("h")).unwrap(); })]
#[case::kind(|copy: &Path| { fs::remove_file(copy.join("a")).unwrap(); fs::create_dir(copy.join("a")).unwrap(); })]
fn the_comparer_sees(#[case] damage: fn(&Path)) {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("a", "a").file("d/b", "b").dir("d").link("l", "a").file("g", "g").hard("h", "g").create(&source);
    exact_copy(&source, &copy);
    assert_same(&source, &copy);
    damage(&copy);
    assert!(!Snapshot::take(&source).differences(&Snapshot::take(&copy)).is_empty());
}

#[test]
fn a_torn_version_is_seen() {
    for id in 0..30 {
        let (old, new) = (versions::content(id, 3), versions::content(id, 4));
        assert_eq!((versions::check(&old), versions::check(&new)), (Ok(3), Ok(4)));
        assert!(versions::check(&new[..new.len() - 1]).is_err() && versions::check(&new[..30]).is_err());
        if old.len() > 600 && new.len() > 600 {
            let half = 36 + (old.len().min(new.len()) - 36) / 2;
            assert!(versions::check(&[&old[..100], &new[100..]].concat()).is_err(), "{id}");
            assert!(old.len() < 5_000 || versions::check(&[&new[..half], &old[half..]].concat()).is_err(), "{id}");
        }
    }
}

#[test]
fn the_sshd_lets_us_in_forces_a_command_and_leaves_no_process() {
    let scratch = Scratch::new();
    let (plain, forced) = (
        Sshd::start(&scratch, "plain"),
        Sshd::start_with(
            &scratch,
            "forced",
            &SshdOptions { forced_command: Some("echo \"forced\"".into()), ..SshdOptions::default() },
        ),
    );
    let blocks = [plain.client_block("plain", ""), forced.client_block("forced", "")];
    let client = client_config(&scratch, "ssh_config", &blocks);
    let ask = |host: &str, words: &str| {
        let mut ssh = Command::new("ssh");
        scratch.hermetic(&mut ssh);
        run_or_panic(ssh.arg("-F").arg(&client).args([host, words]))
    };
    assert_eq!(ask("plain", "echo hello"), "hello\n");
    assert_eq!(ask("forced", "echo hello"), "forced\n");
    let mut ssh = Command::new("ssh");
    scratch.hermetic(&mut ssh);
    let mut long = ssh.arg("-F").arg(&client).args(["plain", "exec sleep 1000"]).spawn().unwrap();
    let sleeping = || {
        process::marked(scratch.root())
            .iter()
            .any(|&pid| process::arguments(pid).first().is_some_and(|a| a == b"sleep"))
    };
    wait_until("the session", Duration::from_secs(20), sleeping);
    let sshd = plain.pid();
    drop(plain);
    long.wait().unwrap();
    assert!(!process::alive(sshd));
    scratch.assert_no_leftovers();
}
