use super::*;
use crate::push::{HostReport, HostState};

fn report(hosts: &[(&str, Option<bool>)]) -> RootReport {
    let host = |(name, reached): &(&str, Option<bool>)| HostReport {
        reached: *reached,
        state: HostState::Failed,
        error: Some("no\u{1b} route".into()),
        ..HostReport::new(name)
    };
    RootReport {
        name: "www".into(),
        path: "/srv/www".into(),
        entries: 0,
        bytes: 0,
        read_bytes: 0,
        refused: None,
        problems: Vec::new(),
        notes: Vec::new(),
        skipped: None,
        hosts: hosts.iter().map(host).collect(),
    }
}

fn members(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_host_is_held_from_its_second_failure_and_one_success_clears_it() {
    let mut history = History::default();
    let all = members(&["dead", "sick", "good"]);
    let dead = report(&[("dead", Some(false)), ("sick", None), ("good", Some(true))]);
    assert!(history.learn(std::slice::from_ref(&dead), &all, 1_000));
    assert!(history.held(1_000).is_empty());
    // Two roots are one run.
    history.learn(&[dead.clone(), dead], &all, 1_000);
    let held = history.held(1_000);
    assert_eq!(held.len(), 1);
    let line = &held["dead"];
    assert!(line.starts_with("not tried: 2 failures in a row, last: no? route; next try in "), "{line}");
    assert!(line.ends_with(" (rfleet push --host dead tries at once)"), "{line}");
    assert!(history.held(1_061).is_empty());
    assert!(!history.learn(&[report(&[("dead", None)])], &all, 1_000), "a host that was not tried is as it was");
    assert!(history.learn(&[report(&[("dead", Some(true))])], &all, 1_000));
    assert!(history.held(1_000).is_empty());
}

#[test]
fn a_root_that_finds_nobody_counts_and_a_former_member_is_forgotten() {
    let mut history = History::default();
    let roots = [report(&[("dead", Some(true))]), report(&[("dead", Some(false))]), report(&[("dead", Some(true))])];
    history.learn(&roots, &members(&["dead"]), 5);
    assert_eq!(history.hosts["dead"].in_a_row, 1);
    assert!(history.learn(&[], &members(&["other"]), 5));
    assert!(history.hosts.is_empty());
}

#[test]
fn a_damaged_file_is_not_believed() {
    let good = "version = 1\n[hosts.\"a.b\"]\nin_a_row = 2\nlast_s = 7\nerror = \"x\"\n";
    let failed = Failed { in_a_row: 2, last_s: 7, error: "x".into() };
    assert_eq!(parse(good.as_bytes()), Ok(BTreeMap::from([("a.b".to_owned(), failed)])));
    for bad in [&good[..40], &good.replace('1', "2"), &good.replace("2", "-2"), "", "\u{0}"] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(parse(b"\xff").is_err());
}

#[test]
fn times_are_told_in_one_unit() {
    let told = [0, 59, 60, 61, 120, 900].map(|seconds| minutes(Duration::from_secs(seconds)));
    assert_eq!(told, ["1 s", "59 s", "1 min", "2 min", "2 min", "15 min"]);
}
