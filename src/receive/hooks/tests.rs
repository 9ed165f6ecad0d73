use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;
use crate::receive::Roots;
use crate::wire::encode;

fn hook(pattern: &str) -> CommitHook {
    CommitHook { patterns: Patterns::new([pattern]).unwrap(), run: vec!["run".into()], timeout: HOOK_TIMEOUT }
}

fn path(name: &str) -> RelPath {
    RelPath::new_or_root(name.as_bytes()).unwrap()
}

fn names(changed: &Changed<'_>, at: usize) -> Vec<String> {
    changed.of_hook(1 << at).map(ToString::to_string).collect()
}

#[test]
fn a_hook_is_due_for_what_its_pattern_matches_and_each_name_counts_once() {
    let hooks = [hook("*.php"), hook("cache/"), hook("/a.php"), hook("never")];
    let mut changed = Changed::of(&hooks);
    for (name, is_directory) in
        [("b/a.php", false), ("a.php", false), ("cache", true), ("cache/x", false), ("d/cache", false), ("", true)]
    {
        changed.note(&path(name), is_directory);
        changed.note(&path(name), is_directory);
    }
    assert_eq!(names(&changed, 0), ["a.php", "b/a.php"]);
    assert_eq!(names(&changed, 1), ["cache", "cache/x"]);
    assert_eq!(names(&changed, 2), ["a.php"]);
    assert_eq!((changed.due, changed.nameless), (0b0111, 0));
}

/// The names of one hook are forgotten for want of room, and those of the others are not.
#[test]
fn names_without_end_take_little_memory_and_cost_the_hook_that_has_most() {
    let hooks = [hook("*"), hook("*.php"), hook("few")];
    let mut changed = Changed::of(&hooks);
    let long = "x".repeat(150);
    let mut most = 0;
    for at in 0..200_000 {
        changed.note(&path(&format!("{long}{at}.{}", if at % 4 == 0 { "php" } else { "txt" })), false);
        most = most.max(changed.bytes);
    }
    changed.note(&path("few"), false);
    assert!(most <= MAX_NAMES_BYTES, "{most}");
    assert_eq!((changed.due, changed.nameless), (0b111, 0b001));
    assert_eq!((names(&changed, 0).len(), names(&changed, 1).len(), names(&changed, 2).len()), (0, 50_000, 1));
    changed.all_unknown();
    assert_eq!((changed.nameless, changed.names.len(), changed.bytes), (0b111, 0, 0));
}

#[test]
fn texts_are_one_line_and_not_too_long() {
    assert_eq!(clipped(" a\u{1b}[2Jb\nc\r\n"), "a?[2Jb?c");
    assert_eq!(clipped(&"é".repeat(1000)).len(), MAX_HOOK_TEXT_BYTES);
    let quoted = CommitHook { run: vec!["echo".into(), "a b".into(), "$x\n".into()], ..hook("x") };
    assert_eq!(quoted.shown(), "echo 'a b' '$x?'");
}

fn roots() -> Roots {
    Roots { named: [("www".to_owned(), "/srv/www".into())].into(), unnamed: None }
}

/// Two pipes: the receiver's ends, then the runner's.
fn pipes() -> ((OwnedFd, OwnedFd), (OwnedFd, OwnedFd)) {
    let (input, orders) = rustix::pipe::pipe().unwrap();
    let (answers, output) = rustix::pipe::pipe().unwrap();
    ((orders, answers), (input, output))
}

#[test]
fn both_have_to_know_the_same_configuration() {
    let hooks = [hook("*.php")];
    let other = CommitHook { run: vec!["rm".into()], ..hook("*.php") };
    for (known, is_same) in [(&hooks[0], true), (&other, false)] {
        let ((orders, answers), (input, output)) = pipes();
        let _runner = Orders::open(input, output, &roots(), std::slice::from_ref(known)).unwrap();
        let opened = HookRunner::open(orders, answers, &roots(), &hooks);
        assert_eq!(opened.is_ok(), is_same);
        assert!(is_same || opened.err().unwrap().contains("configuration changed"));
    }
    let ((orders, answers), runner) = pipes();
    drop(runner);
    assert!(HookRunner::open(orders, answers, &roots(), &hooks).err().unwrap().contains("did not start"));
}

#[test]
fn what_is_due_arrives_whole_and_its_end_comes_back() {
    let hooks = [hook("a"), hook("b")];
    let ((orders, answers), (input, output)) = pipes();
    let (mut orders_in, mut answers_out) = Orders::open(input, output, &roots(), &hooks).unwrap();
    let mut runner = HookRunner::open(orders, answers, &roots(), &hooks).unwrap();
    let due = |bytes| Due {
        hook: 1,
        root: "www".into(),
        sequence: Sequence(u64::MAX),
        truncated: bytes == 0,
        names: vec![b'x'; bytes],
    };
    let end = HookEnd { ok: false, detail: "exit 1".into(), milliseconds: 7 };
    let answer = end.clone();
    let told = std::thread::spawn(move || {
        let mut told = Vec::new();
        while let Some((due, path)) = orders_in.due().unwrap() {
            assert_eq!(path.to_str(), Some("/srv/www"));
            told.push(due);
            answers_out.ended(answer.clone()).unwrap();
        }
        told
    });
    for bytes in [0, 3 << 20, MAX_NAMES_BYTES] {
        assert_eq!(runner.run(&due(bytes)).unwrap(), end);
    }
    drop(runner);
    assert!(told.join().unwrap() == [due(0), due(3 << 20), due(MAX_NAMES_BYTES)]);
}

/// A receiver that was taken over gets nothing run but what is configured.
#[test]
fn a_runner_believes_nothing_that_it_does_not_know() {
    let honest = Due { hook: 0, root: "www".into(), sequence: Sequence(1), truncated: false, names: b"a\0".to_vec() };
    for (due, is_known) in [
        (honest.clone(), true),
        (Due { hook: 1, ..honest.clone() }, false),
        (Due { root: "etc".into(), ..honest.clone() }, false),
        (Due { root: String::new(), ..honest.clone() }, false),
        (Due { names: vec![b'a'; MAX_NAMES_BYTES + 1], ..honest }, false),
    ] {
        let ((orders, answers), (input, output)) = pipes();
        let hooks = [hook("a")];
        let (mut asked, runner_out) = Orders::open(input, output, &roots(), &hooks).unwrap();
        let mut runner = HookRunner::open(orders, answers, &roots(), &hooks).unwrap();
        let asks = std::thread::spawn(move || runner.run(&due).is_ok());
        assert_eq!(matches!(asked.due(), Ok(Some(_))), is_known);
        drop((asked, runner_out));
        assert!(!asks.join().unwrap());
    }
    let ((orders, _answers), (input, output)) = pipes();
    let (mut asked, _) = Orders::open(input, output, &roots(), &[hook("a")]).unwrap();
    std::fs::File::from(orders).write_all(&encode(&"no order")).unwrap();
    assert!(asked.due().is_err());
}
