//! Promise 5: a sick host does not delay the others beyond their own work, and promise 8: it is named with its cause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use support::fleet::over_ssh;
use support::sshd::client_config;
use support::{
    Config, Fleet, Outcome, Push, Report, Rng, Scratch, Snapshot, Sshd, assert_rsync_agrees, assert_same, process,
    random_tree, rfleet_bin, wait_until,
};

/// Room for a busy machine on top of the ratio that is promised.
const SLACK_SECONDS: f64 = 1.5;

/// A port that refuses: bound, so that nobody else gets it, and never listened on.
struct RefusedPort {
    _socket: tokio::net::TcpSocket,
    port: u16,
}

impl RefusedPort {
    fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { _socket: socket, port }
    }
}

fn slowest(report: &Report, names: &[String]) -> f64 {
    names.iter().map(|name| report.host(name).seconds).fold(0.0, f64::max)
}

fn assert_failed(outcome: &Outcome, name: &str, causes: &[&str]) {
    let report = outcome.report();
    let host = report.host(name);
    assert_eq!(host.state, "failed", "{}", outcome.said());
    let error = host.error.as_deref().unwrap_or_else(|| panic!("no cause for {name}: {}", outcome.said()));
    let fits = causes.iter().any(|cause| error.to_lowercase().contains(cause));
    assert!(fits, "{name} failed for {error:?}, expected one of {causes:?}: {}", outcome.said());
    assert!(!error.trim().contains('\n'), "the cause is one line: {error:?}");
}

#[test]
fn two_of_eight_hosts_down_and_one_hanging_do_not_delay_the_other_five() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    let mut rng = Rng::new(1);
    random_tree(&source, &mut rng, 300);
    std::fs::write(source.join("large"), rng.bytes(20_000_000)).unwrap();

    let sshd = Sshd::start(&scratch, "sshd");
    let (down1, down2) = (RefusedPort::new(), RefusedPort::new());
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut blocks = Vec::new();
    for n in 1..=8 {
        let other = match n {
            2 => format!("  Port {}", down1.port),
            5 => format!("  Port {}", hanging.local_addr().unwrap().port()),
            7 => format!("  Port {}", down2.port),
            _ => String::new(),
        };
        blocks.push(sshd.client_block(&format!("web{n}"), &other));
    }
    let client = client_config(&scratch, "ssh_config", &blocks);
    let destination = |n: usize, round: &str| format!("web{n}:{}", scratch.path(&format!("{round}/web{n}")).display());
    let good = |round: &str| [1, 3, 4, 6, 8].map(|n| destination(n, round)).to_vec();
    for round in ["warm", "alone", "among"] {
        scratch.dir(round);
    }

    over_ssh(Push::adhoc(&scratch, &source, &good("warm")), &client).ok();
    let alone = over_ssh(Push::adhoc(&scratch, &source, &good("alone")), &client).ok();
    let all: Vec<_> = (1..=8).map(|n| destination(n, "among")).collect();
    let among = over_ssh(Push::adhoc(&scratch, &source, &all), &client).args(&["--timeout", "5s"]).run();

    among.assert_code(3);
    let (before, now) = (alone.report(), among.report());
    assert_eq!(now.exit_code, 3);
    let (slow_alone, slow_among) = (slowest(&before, &good("alone")), slowest(&now, &good("among")));
    assert!(
        slow_among <= slow_alone * 1.2 + SLACK_SECONDS,
        "the five took {slow_among:.2} s among sick hosts and {slow_alone:.2} s alone: {}",
        among.said()
    );
    assert!(among.wall < Duration::from_secs(5 + 15), "the hanging host held it up for {:?}", among.wall);
    for n in [1, 3, 4, 6, 8] {
        assert_eq!(now.host(&destination(n, "among")).state, "done", "{}", among.said());
        let copy = scratch.path(&format!("among/web{n}"));
        assert_same(&source, &copy);
        assert_rsync_agrees(&source, &copy);
    }
    for n in [2, 7] {
        assert_failed(&among, &destination(n, "among"), &["refused"]);
    }
    assert_failed(&among, &destination(5, "among"), &["timed out", "timeout", "no answer", "silent", "did not answer"]);
    scratch.assert_no_leftovers();
}

#[test]
fn a_receiver_that_stops_in_the_middle_is_given_up_after_the_timeout() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    let mut rng = Rng::new(2);
    random_tree(&source, &mut rng, 100);
    for n in 0..8 {
        std::fs::write(source.join(format!("large{n}")), rng.bytes(12_000_000)).unwrap();
    }
    let (good, sick) = (Sshd::start(&scratch, "good"), Sshd::start(&scratch, "sick"));
    let client = client_config(&scratch, "ssh_config", &[good.client_block("good", ""), sick.client_block("sick", "")]);
    let name = |alias: &str| format!("{alias}:{}", scratch.path(&format!("{alias}-copy")).display());
    let push = Push::adhoc(&scratch, &source, &[name("good"), name("sick")]);
    let mut running = over_ssh(push, &client).args(&["--timeout", "4s"]).start();
    wait_until("a receiver to stop", Duration::from_secs(30), || {
        let found = sick.receivers();
        found.iter().for_each(|&pid| process::signal(pid, Signal::STOP));
        !found.is_empty() || running.is_over()
    });
    let outcome = running.finish_within(Duration::from_secs(60));
    outcome.assert_code(3);
    assert!(outcome.wall < Duration::from_secs(4 + 20), "{}", outcome.said());
    assert_eq!(outcome.report().host(&name("good")).state, "done", "{}", outcome.said());
    assert_failed(
        &outcome,
        &name("sick"),
        &["timed out", "timeout", "no answer", "silent", "silence", "did not answer"],
    );
    assert_same(&source, &scratch.path("good-copy"));
    for pid in sick.receivers() {
        process::signal(pid, Signal::CONT);
    }
    scratch.assert_no_leftovers();
    over_ssh(Push::adhoc(&scratch, &source, &[name("sick")]), &client).arg("--delete").ok();
    assert_same(&source, &scratch.path("sick-copy"));
}

#[test]
fn commands_that_hang_end_or_are_missing_are_named_and_the_others_done() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    random_tree(&source, &mut Rng::new(3), 60);
    let bin = rfleet_bin().to_str().unwrap();
    let copy = |name: &str| -> PathBuf { scratch.path(&format!("{name}-copy")) };
    let config = Config::new("cms")
        .root("www", &source, "delete = true")
        .hosts(&["good", "sleeps", "ends", "missing", "closes"])
        .host_command("good", &[bin, "receive"], "www", &copy("good"))
        .host_command("sleeps", &["sh", "-c", "sleep 1000"], "www", &copy("sleeps"))
        .host_command("ends", &["sh", "-c", "echo kaput >&2; exit 7"], "www", &copy("ends"))
        .host_command("missing", &["/nonexistent/rfleet", "receive"], "www", &copy("missing"))
        .host_command("closes", &["sh", "-c", "exec >&- <&-; sleep 1000"], "www", &copy("closes"))
        .write(&scratch, "rfleet.toml");
    let outcome = Push::configured(&scratch, &config).args(&["--timeout", "3s"]).run();
    outcome.assert_code(3);
    assert!(outcome.wall < Duration::from_secs(20), "{}", outcome.said());
    assert_eq!(outcome.report().host("good").state, "done", "{}", outcome.said());
    assert_same(&source, &copy("good"));
    assert_failed(&outcome, "sleeps", &["timed out", "timeout", "no answer", "silent", "silence", "did not answer"]);
    assert_failed(&outcome, "ends", &["kaput"]);
    assert_failed(&outcome, "missing", &["no such file", "not found"]);
    assert_failed(&outcome, "closes", &["clos", "ended", "eof", "end of"]);
    for name in ["sleeps", "ends", "missing", "closes"] {
        assert!(!copy(name).exists());
    }
    scratch.assert_no_leftovers();
}

#[test]
fn a_second_push_brings_the_recovered_host_up_to_date() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    random_tree(&source, &mut Rng::new(4), 60);
    let fleet = Fleet::start(&scratch, 2);
    let sick = fleet.hosts[1].path.clone();
    // A file where the destination directory's parent should be.
    let parent = sick.parent().unwrap().to_owned();
    std::fs::remove_dir(&parent).unwrap();
    std::fs::write(&parent, "in the way").unwrap();
    let outcome = fleet.push(&scratch, &source, &[]).run();
    outcome.assert_code(3);
    assert_failed(&outcome, &fleet.hosts[1].destination(), &["not a directory"]);
    assert_same(&source, &fleet.hosts[0].path);
    std::fs::remove_file(&parent).unwrap();
    std::fs::create_dir(&parent).unwrap();
    let before = Snapshot::take(&fleet.hosts[0].path);
    let outcome = fleet.push(&scratch, &source, &[]).ok();
    assert_eq!(outcome.report().host(&fleet.hosts[0].destination()).state, "unchanged");
    before.assert_equal(&fleet.hosts[0].path);
    assert_same(&source, &sick);
}
