//! Answers in their place that cannot be true: listings out of order, names that are none, signatures of another length,
//! commits of something else.

use std::collections::BTreeMap;

use rfleet::model::{
    AclMap, Digest, DirListing, Fidelity, Kind, Meta, OwnerFidelity, OwnerMap, Position, Problem, ProblemKind, RelPath,
    Sequence, Stamp, TimeFidelity, Timestamp,
};
use rfleet::wire::{Committed, HookResult, Inventory, ToPrimary, Welcome};

use super::Story;
use super::support::impostor::{Awaited, LARGE, LARGE_BYTES, Line, entries, inventory, node, welcome};
use super::support::primary::path;

type Answers = Vec<ToPrimary>;

type Answering = fn(&Line) -> Answers;

/// Says something false where `awaited` is, and hears the primary out.
fn host(story: &mut Story, name: &str, awaited: Awaited, answers: impl FnOnce(&Line) -> Answers + Send + 'static) {
    story.host(name, move |line| {
        line.serve_until(awaited);
        let answers = answers(line);
        // Whoever has had enough does not hear the rest.
        let _ = answers.iter().all(|answer| line.say(answer));
        line.until_end();
    });
}

fn listed(paths: &[&str], last: bool) -> ToPrimary {
    let directories = paths.iter().map(|name| (path(name), Digest([7; 32]))).collect();
    ToPrimary::Directories { owners: OwnerMap::default(), directories, last }
}

fn named(at: &str, names: &[&[u8]]) -> ToPrimary {
    let nodes = names.iter().map(|name| node(name, Kind::file(5))).collect();
    ToPrimary::Entries(DirListing { path: path(at), meta: Meta::default(), nodes })
}

#[test]
fn inventories_that_do_not_add_up_fail_that_host_alone() {
    let mut story = Story::new();
    for (name, protocol) in [("protocol-0", 0), ("protocol-2", 2), ("protocol-max", u16::MAX)] {
        host(&mut story, name, Awaited::Welcome, move |_| vec![ToPrimary::Welcome(Welcome { protocol, ..welcome() })]);
    }
    let directories: [(&str, Answers); 5] = [
        ("unsorted", vec![listed(&["", "b", "a"], true)]),
        ("twice", vec![listed(&["", "a", "a"], true)]),
        ("root-last", vec![listed(&["a", ""], true)]),
        ("unsorted-parts", vec![listed(&["", "b"], false), listed(&["a"], true)]),
        ("empty-part", vec![listed(&[""], false), listed(&[], false)]),
    ];
    for (name, answers) in directories {
        host(&mut story, name, Awaited::Directories, move |_| answers);
    }
    let long = vec![b'n'; 256];
    let entries: Vec<(&str, Answers)> = vec![
        ("not-asked", vec![named("other", &[b"x"])]),
        ("dots", vec![named("", &[b".."])]),
        ("dot", vec![named("", &[b"."])]),
        ("nothing", vec![named("", &[b""])]),
        ("slash", vec![named("", &[b"a/b"])]),
        ("up", vec![named("", &[b"../outside"])]),
        ("absolute", vec![named("", &[b"/etc/passwd"])]),
        ("nul", vec![named("", &[b"a\0b"])]),
        ("reserved", vec![named("", &[b".rfleet"])]),
        ("long", vec![named("", &[&long])]),
        ("names-unsorted", vec![named("", &[b"b", b"a"])]),
        ("names-twice", vec![named("", &[b"a", b"a"])]),
        ("parts-unsorted", vec![named("", &[b"b"]), named("", &[b"a"])]),
        ("parts-twice", vec![named("", &[b"a"]), named("", &[b"a"])]),
        ("parts-empty", vec![named("", &[b"a"]), named("", &[])]),
    ];
    let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
    for (name, answers) in entries {
        host(&mut story, name, Awaited::Entries, move |_| answers);
    }
    let told = story.push(&[]);
    told.outcome.assert_code(3);
    for name in ["protocol-0", "protocol-2", "protocol-max"] {
        told.assert_failed(name, &["a protocol that was not offered"]);
    }
    for name in ["unsorted", "twice", "root-last", "unsorted-parts", "empty-part"].into_iter().chain(names) {
        told.assert_failed(name, &["out of order or too long"]);
    }
    told.join();
}

#[test]
fn signatures_that_do_not_fit_fail_that_host_alone() {
    let mut story = Story::new();
    let answers: [(&str, Answering); 4] = [
        ("too-long", |line| {
            let id = line.requests[0].id;
            vec![ToPrimary::Signature { id, bytes: vec![1; 2 << 20], last: true }]
        }),
        ("too-long-in-parts", |line| {
            let part = ToPrimary::Signature { id: line.requests[0].id, bytes: vec![1; 1000], last: false };
            vec![part; 5000]
        }),
        ("empty-parts", |line| vec![ToPrimary::Signature { id: line.requests[0].id, bytes: Vec::new(), last: false }]),
        ("twice", |line| vec![ToPrimary::NoSignature { id: line.requests[0].id }; 2]),
    ];
    for (name, answers) in answers {
        host(&mut story, name, Awaited::Signatures, answers);
    }
    let told = story.push(&[]);
    told.outcome.assert_code(3);
    for name in ["too-long", "too-long-in-parts", "empty-parts", "twice"] {
        told.assert_failed(name, &["a signature that", "an empty part of a signature", "something else than"]);
    }
    told.join();
}

/// One that describes another file, and one that is cut off: more is sent, and the right content.
#[test]
fn signatures_of_something_else_cost_bytes_and_no_more() {
    for (name, cut) in [("random", 0), ("short", 1)] {
        let mut story = Story::new();
        story.host(name, move |line| {
            line.serve_until(Awaited::Signatures);
            let request = line.requests[0].clone();
            let bytes = usize::try_from(request.spec.signature_bytes(request.bytes)).unwrap() - cut;
            line.say(&ToPrimary::Signature { id: request.id, bytes: vec![3; bytes], last: true });
            line.serve_until(Awaited::Commit);
            let position = line.position;
            line.say(&ToPrimary::Committed(Committed { position, ..Committed::default() }));
            line.until_end();
        });
        let told = story.push(&[]);
        told.outcome.assert_code(0);
        let host = told.host(name);
        assert!(host.literal_bytes >= LARGE_BYTES as u64, "{host:?}");
        told.join();
    }
}

#[test]
fn what_was_never_sent_is_not_sent_again_and_nothing_is_sent_for_ever() {
    let mut story = Story::new();
    // Answers each `EndOfContent` for as long as it is asked.
    let never = ["never", "sent", "d/e/f/g"];
    let again = [("stranger", never.map(path).to_vec()), ("always", vec![path(LARGE)]), ("all", vec![path("a"); 3])];
    for (name, paths) in again {
        story.host(name, move |line| {
            loop {
                line.serve_until(Awaited::Resend);
                line.say(&ToPrimary::Resend { paths: paths.clone(), last: true });
                line.rounds += 1;
                if line.rounds == 3 {
                    break;
                }
            }
            line.serve_until(Awaited::Commit);
            let position = line.position;
            line.say(&ToPrimary::Committed(Committed { position, ..Committed::default() }));
            line.until_end();
        });
    }
    host(&mut story, "too-many", Awaited::Resend, |_| {
        vec![ToPrimary::Resend { paths: vec![path("a"); 400], last: true }]
    });
    host(&mut story, "empty-parts", Awaited::Resend, |_| vec![ToPrimary::Resend { paths: Vec::new(), last: false }]);
    let told = story.push(&[]);
    told.outcome.assert_code(3);
    for name in ["stranger", "always", "all"] {
        let host = told.host(name);
        assert_eq!(host.state, "partial", "{host:?}");
        assert!(host.problems.iter().all(|problem| problem.cause.contains("not what was sent")), "{host:?}");
    }
    told.assert_failed("too-many", &["more to be sent again than was sent"]);
    told.assert_failed("empty-parts", &["an empty part of what is to be sent again"]);
    told.join();
}

#[test]
fn the_commit_of_something_else_is_none_and_numbers_without_end_are_borne() {
    let mut story = Story::new();
    for (name, position) in
        [("other", Position { sequence: Sequence(u64::MAX), stamp: Stamp(1) }), ("unknown", Position::default())]
    {
        host(&mut story, name, Awaited::Commit, move |_| {
            vec![ToPrimary::Committed(Committed { position, ..Committed::default() })]
        });
    }
    host(&mut story, "endless", Awaited::Commit, |line| {
        let problem = |at| {
            Problem::new(
                path(&format!("\u{1b}[2J{at}")),
                ProblemKind::Corrupt,
                "\n\u{7}".repeat(if at == 0 { 100_000 } else { 400 }),
            )
        };
        let hook = |at| HookResult {
            command: "\u{1b}[2Jrm\n".repeat(100),
            ok: at % 2 == 0,
            detail: "\u{202e}exit 0\n".repeat(90),
            milliseconds: u64::MAX,
        };
        let hooks = (0..100).map(|done| ToPrimary::Hooks { done: done * (u64::MAX / 100) });
        let committed = ToPrimary::Committed(Committed {
            position: line.position,
            drifted: u64::MAX,
            problems: (0..1000).map(problem).collect(),
            more_problems: u64::MAX,
            notes: vec!["\u{1b}[31m".repeat(5000); 100],
            hooks: (0..32).map(hook).collect(),
        });
        hooks.chain([committed]).collect()
    });
    let told = story.push(&[]);
    told.outcome.assert_code(3);
    for name in ["other", "unknown"] {
        told.assert_failed(name, &["the commit of something else"]);
    }
    let host = told.host("endless");
    assert_eq!(host.state, "partial");
    assert!(host.notes.iter().all(|note| note.chars().count() < 5000));
    assert!(host.problems.iter().all(|problem| problem.cause.chars().count() < 5000));
    assert_eq!(host.hooks.iter().filter(|hook| hook.ok).count(), 16);
    assert!(!told.outcome.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", told.outcome.stderr);
    told.join();
}

/// Nothing of this breaks a rule; it is only what no filesystem holds.
#[test]
fn answers_that_no_honest_host_gives_do_no_harm() {
    let mut story = Story::new();
    let times = [
        TimeFidelity { first: i64::MAX, last: i64::MIN, step_nanos: 0 },
        TimeFidelity { first: 5, last: -5, step_nanos: u32::MAX },
        TimeFidelity { first: i64::MIN, last: i64::MAX, step_nanos: u32::MAX },
    ];
    let finish = |line: &mut Line| {
        line.serve_until(Awaited::Commit);
        let position = line.position;
        line.say(&ToPrimary::Committed(Committed { position, ..Committed::default() }));
        line.until_end();
    };
    for (at, times) in times.into_iter().enumerate() {
        story.host(&format!("times-{at}"), move |line| {
            line.serve_until(Awaited::Welcome);
            let owner = OwnerFidelity::Fixed { uid: u32::MAX, gid: u32::MAX };
            let fidelity = Fidelity { times, owner, ..welcome().fidelity };
            let notes = vec!["\u{1b}[2J\n".repeat(5_000); 100];
            let protect = vec!["**/".repeat(1000); 60];
            line.say(&ToPrimary::Welcome(Welcome { fidelity, notes, protect, free_bytes: 0, ..welcome() }));
            finish(line);
        });
    }
    story.host("sizes", move |line| {
        line.serve_until(Awaited::Inventory);
        line.say(&ToPrimary::Inventory(Inventory { entries: u64::MAX, directories: u64::MAX, ..inventory() }));
        line.serve_until(Awaited::Directories);
        let names: BTreeMap<u32, Option<u32>> = (0..60_000).map(|at| (at, Some(u32::MAX - at))).collect();
        let acl = AclMap { users: (0..60_000).map(|at| (at, 0)).collect(), groups: BTreeMap::new() };
        let owners = OwnerMap { users: names.clone(), groups: names, acl };
        let directories = vec![(RelPath::root(), Digest([0; 32])), (path("d"), Digest([0; 32]))];
        line.say(&ToPrimary::Directories { owners, directories, last: true });
        line.serve_until(Awaited::Entries);
        let link = Kind::File { size_bytes: u64::MAX, link: Some(Box::new(path("d/nowhere"))), digest: None };
        let mut nodes = vec![
            node(b"a", Kind::file(u64::MAX)),
            node(b"d", Kind::Symlink { target: vec![b'/'; 100_000].into() }),
            node(b"l", link),
            node(LARGE.as_bytes(), Kind::file(u64::MAX)),
        ];
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        for node in &mut nodes {
            node.meta.mtime = Timestamp { secs: i64::MIN, nanos: u32::MAX };
            node.meta.mode = u32::MAX;
        }
        line.say(&ToPrimary::Entries(DirListing { nodes, ..entries() }));
        line.say(&ToPrimary::EndOfEntries);
        finish(line);
    });
    let told = story.push(&[]);
    for host in &told.outcome.report().roots[0].hosts {
        assert!(["done", "partial"].contains(&host.state.as_str()), "{host:?}");
    }
    told.join();
}
