use super::*;
use crate::model::RelPath;
use crate::plan::Totals;
use crate::plan::guard::Guard;

fn problem(path: &[u8], kind: ProblemKind, detail: &str) -> Problem {
    Problem::new(RelPath::new_or_root(path).unwrap(), kind, detail)
}

fn host(name: &str, state: HostState) -> HostReport {
    HostReport { state, seconds: 0.4321, ..HostReport::new(name) }
}

fn done(name: &str) -> HostReport {
    let totals =
        Totals { created: 12, updated: 3, deleted: 1, attributes: 4, content_bytes: 1 << 20, ..Totals::default() };
    HostReport {
        totals,
        files_sent: 15,
        bytes_sent: 1_258_291,
        bytes_received: 4096,
        literal_bytes: 1 << 20,
        matched_bytes: 7,
        ..host(name, HostState::Done)
    }
}

fn failed_hook() -> HookReport {
    HookReport { command: "reload 'php fpm'".into(), ok: false, detail: "exit 1: no\u{1b}".into(), seconds: 0.1234 }
}

fn report(hosts: Vec<HostReport>) -> RootReport {
    RootReport {
        name: "uploads".into(),
        path: "/srv/uploads".into(),
        entries: 1204,
        bytes: 3 << 30,
        read_bytes: 1 << 20,
        refused: None,
        problems: Vec::new(),
        notes: Vec::new(),
        skipped: None,
        hosts,
    }
}

#[test]
fn hooks_that_failed_are_shown_and_the_others_to_who_wants_to_know_more() {
    let done = HookReport { command: "purge".into(), ok: true, detail: "exit 0".into(), seconds: 61.0 };
    let host = HostReport { hooks: vec![done, failed_hook()], ..host("web1", HostState::Partial) };
    let shown = |verbose| summary("push", &[report(vec![host.clone()])], 1.0, false, verbose);
    let lines = |text: String| -> Vec<String> {
        text.lines().filter(|line| line.contains("hook ")).map(|line| line.trim().to_owned()).collect()
    };
    let failed = "hook failed: reload 'php fpm': exit 1: no\\u{1b} (0.1 s)";
    assert_eq!(lines(shown(false)), [failed]);
    assert_eq!(lines(shown(true)), ["hook done: purge: exit 0 (61.0 s)", failed]);
}

#[test]
fn a_summary_has_a_line_for_each_host_and_a_total() {
    let mut partial = host("a-long-name.example", HostState::Partial);
    partial.problems = vec![problem(b"x", ProblemKind::Denied, "may not be written")];
    partial.notes = vec!["runs as www-data".into()];
    let mut failed = host("web3", HostState::Failed);
    failed.error = Some("the host key is not known".into());
    let mut source = report(vec![done("web1"), partial, failed]);
    source.problems = vec![problem(b"y", ProblemKind::Changing, "changed while it was read")];
    source.notes = vec!["1 special file(s)".into()];
    insta::assert_snapshot!(summary("push", &[source], 1.25, false, false), @r"
    uploads  /srv/uploads  (1,204 entries, 3.00 GiB)
      problem: y: changed while it was read
      note: 1 special file(s)
      web1                 done     12 created  3 updated  1 deleted  15 files  1.20 MiB sent  0.4 s
      a-long-name.example  partial   0 created  0 updated  0 deleted   0 files       0 B sent  0.4 s
          problem: x: may not be written
          note: runs as www-data
      web3                 failed    0 created  0 updated  0 deleted   0 files       0 B sent  0.4 s
          error: the host key is not known
    3 hosts: 1 failed, 1 partial, 1 done; 15 files, 1.20 MiB sent; 2 problems; 1.2 s
    ");
}

#[test]
fn a_dry_run_says_what_would_be_sent_and_that_nothing_was_changed() {
    let planned = HostReport { state: HostState::Planned, files_sent: 0, bytes_sent: 0, ..done("web1") };
    insta::assert_snapshot!(summary("push", &[report(vec![planned])], 0.5, true, false), @r"
    uploads  /srv/uploads  (1,204 entries, 3.00 GiB)
      web1  planned  12 created  3 updated  1 deleted  1.00 MiB to send  0.4 s
    1 host: 1 planned; 1.00 MiB to send; 0.5 s (dry run: nothing was changed)
    ");
}

#[test]
fn a_verification_speaks_of_equal_and_different() {
    let different = HostReport { state: HostState::Planned, ..done("web1") };
    let equal = host("web2", HostState::Unchanged);
    insta::assert_snapshot!(summary("verify", &[report(vec![different, equal])], 0.5, true, false), @r"
    uploads  /srv/uploads  (1,204 entries, 3.00 GiB)
      web1  different  12 created  3 updated  1 deleted  1.00 MiB to send  0.4 s
      web2  equal       0 created  0 updated  0 deleted       0 B to send  0.4 s
    2 hosts: 1 different, 1 equal; 1.00 MiB to send; 0.5 s
    ");
}

#[test]
fn a_repair_says_what_was_sent() {
    let text = summary("verify", &[report(vec![done("web1")])], 0.5, false, false);
    assert!(text.contains("web1  repaired  12 created"), "{text}");
    assert!(text.contains("1.20 MiB sent"), "{text}");
}

#[test]
fn a_refusal_is_left_to_standard_error() {
    let refused = HostReport { error: Some("guard text".into()), ..host("web1", HostState::Refused) };
    let mut source = report(vec![refused]);
    source.refused = Some(GuardRefusal { guard: Guard::MaxDelete, message: "guard text".into(), plan: None });
    let text = summary("push", &[source], 0.5, false, false);
    assert!(!text.contains("guard text"), "{text}");
    assert!(text.contains("web1  refused\n"), "{text}");
}

#[test]
fn a_host_that_was_refused_alone_says_why() {
    let refused = HostReport { error: Some("came late".into()), ..host("web1", HostState::Refused) };
    let text = summary("push", &[report(vec![refused, done("web2")])], 0.5, false, false);
    assert!(text.contains("web1  refused\n      error: came late\n"), "{text}");
}

#[test]
fn a_host_counts_once_by_its_worst_root() {
    let roots = [report(vec![done("web1"), done("web2")]), report(vec![host("web1", HostState::Failed), done("web2")])];
    let text = summary("push", &roots, 0.5, false, false);
    assert!(text.ends_with("2 hosts: 1 failed, 1 done; 45 files, 3.60 MiB sent; 0.5 s\n"), "{text}");
}

#[test]
fn twenty_problems_are_shown_and_the_rest_is_counted() {
    let mut partial = host("web1", HostState::Partial);
    let name = |number: u32| format!("file{number}").into_bytes();
    partial.problems = (0..25).map(|number| problem(&name(number), ProblemKind::NoSpace, "full")).collect();
    partial.more_problems = 3;
    let text = summary("push", &[report(vec![partial])], 0.5, false, false);
    assert_eq!(text.matches("problem: ").count(), 20);
    assert!(text.contains("      and 8 more\n"), "{text}");
    assert!(text.contains("28 problems"), "{text}");
}

/// Names from a tree or a peer reach terminals escaped, and JSON whole.
#[test]
fn nothing_hostile_reaches_a_terminal() {
    let bad = "a\x1b[2J\n\r\u{9b}1m\u{202e}b";
    let mut host = host(bad, HostState::Failed);
    host.error = Some(bad.into());
    host.notes = vec![bad.into()];
    host.problems = vec![problem(bad.as_bytes(), ProblemKind::Failed, bad)];
    let mut source = report(vec![host]);
    source.name = bad.into();
    source.path = bad.into();
    source.notes = vec![bad.into()];
    source.problems = vec![problem(b"\xff\x1b", ProblemKind::Failed, bad)];
    let reports = [source];
    let text = summary("push", &reports, 0.5, false, false);
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    assert!(!text.contains('\u{202e}'), "{text:?}");
    assert_eq!(text.lines().count(), 8, "{text}");

    let document = json("push", None, false, 3, 0.5, &reports).to_string();
    let back: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(back["roots"][0]["hosts"][0]["name"], bad);
    assert_eq!(back["roots"][0]["problems"][0]["path_hex"], "ff1b");
    assert_eq!(back["roots"][0]["problems"][0]["path"], "\u{fffd}\x1b");
}

#[test]
fn what_is_skipped_is_counted_and_named_only_if_more_is_to_be_said() {
    let named = vec![(RelPath::new(b"d/big\n").unwrap(), 2000), (RelPath::new(b"huge").unwrap(), 3 << 30)];
    let skipped = Some(Skipped { max_size_bytes: 1000, files: 3, named });
    let told = |verbose| {
        let source = RootReport { skipped: skipped.clone(), ..report(vec![done("web1")]) };
        let text = summary("push", &[source], 0.5, false, verbose);
        text.lines().skip(1).take_while(|line| !line.contains("web1")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(false), ["  skipped: 3 files are larger than 1000 B"]);
    let named = ["    d/big\\n (1.95 KiB)", "    huge (3.00 GiB)", "    and 1 more"];
    assert_eq!(told(true)[1..], named);
}

#[test]
fn the_document_has_exactly_the_documented_keys() {
    let mut host = done("web1");
    host.problems = vec![problem(b"", ProblemKind::NoSpace, "full")];
    host.hooks = vec![failed_hook()];
    let mut source = report(vec![host]);
    source.refused =
        Some(GuardRefusal { guard: Guard::MaxDelete, message: "too many".into(), plan: Some("0123".into()) });
    let named = vec![(RelPath::new(b"big").unwrap(), 2000)];
    source.skipped = Some(Skipped { max_size_bytes: 1000, files: 3, named });
    let document = json("push", Some("cms"), false, 4, 1.23456, &[source]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap(), @r#"
    {
      "command": "push",
      "dry_run": false,
      "exit_code": 4,
      "fleet": "cms",
      "roots": [
        {
          "bytes": 3221225472,
          "entries": 1204,
          "hosts": [
            {
              "bytes_received": 4096,
              "bytes_sent": 1258291,
              "created": 12,
              "deleted": 1,
              "drifted": 0,
              "error": null,
              "files_sent": 15,
              "hooks": [
                {
                  "command": "reload 'php fpm'",
                  "detail": "exit 1: no\u001b",
                  "ok": false,
                  "seconds": 0.123
                }
              ],
              "literal_bytes": 1048576,
              "matched_bytes": 7,
              "metadata": 4,
              "more_problems": 0,
              "name": "web1",
              "notes": [],
              "problems": [
                {
                  "cause": "full",
                  "kind": "no-space",
                  "path": "."
                }
              ],
              "seconds": 0.432,
              "state": "done",
              "updated": 3
            }
          ],
          "name": "uploads",
          "notes": [],
          "path": "/srv/uploads",
          "problems": [],
          "read_bytes": 1048576,
          "refused": {
            "guard": "max-delete",
            "message": "too many",
            "plan": "0123"
          },
          "skipped": {
            "count": 3,
            "files": [
              {
                "bytes": 2000,
                "path": "big"
              }
            ],
            "max_size": 1000
          }
        }
      ],
      "seconds": 1.235
    }
    "#);
}

#[test]
fn changes_are_there_only_if_there_are_any() {
    let mut host = done("web1");
    let document = |host: &HostReport| json("push", None, false, 0, 0.0, &[report(vec![host.clone()])]);
    assert_eq!(document(&host)["roots"][0]["hosts"][0].get("changes"), None);
    host.changes = vec![">f+++++++++ a".into()];
    assert_eq!(document(&host)["roots"][0]["hosts"][0]["changes"], json!([">f+++++++++ a"]));
}

#[test]
fn what_is_shown_once_is_shown_the_same_again() {
    let once = shown("a\\n\n\x07");
    assert_eq!(once, "a\\n\\n\\u{7}");
    assert_eq!(shown(&once), once);
}
