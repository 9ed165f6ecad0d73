//! Connections that outlive a push by configuration: the next run uses them, and none that is dead, hangs or was made
//! under another configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rstest::rstest;
use rustix::process::{Pid, Signal, getsid};
use support::fleet::receiver;
use support::scratch::is_root;
use support::sshd::client_config;
use support::{Config, Outcome, Push, Scratch, Sshd, Tree, assert_same, process, wait_until};

/// A primary with two roots and one host behind a real sshd.
struct Story {
    scratch: Scratch,
    sshd: Sshd,
}

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        for root in ["www", "media"] {
            Tree::new().file("a", root).file("d/b", "x").create(&scratch.path(root));
        }
        let sshd = Sshd::start(&scratch, "sshd");
        client_config(&scratch, "ssh_config", &[sshd.client_block("web2", "")]);
        Self { scratch, sshd }
    }

    /// `ssh` are further lines of `[ssh]`.
    fn config(&self, ssh: &str) -> PathBuf {
        let path = |name: &str| self.scratch.path(name);
        let copies = format!("paths = {{ www = {:?}, media = {:?} }}", path("copy-www"), path("copy-media"));
        Config::new("cms")
            .root("www", &path("www"), "")
            .root("media", &path("media"), "")
            .hosts(&["web2"])
            .lines(&format!("[[host]]\nname = \"web2\"\n{copies}"))
            .lines(&format!("[ssh]\nconfig = {:?}\nreceiver = {:?}\n{ssh}", path("ssh_config"), receiver()))
            .write(&self.scratch, "rfleet.toml")
    }

    /// Changes the source and pushes it.
    fn push(&self, ssh: &str, content: &str) -> Outcome {
        fs::write(self.scratch.path("www/a"), content).unwrap();
        let outcome = Push::configured(&self.scratch, &self.config(ssh)).ok();
        for root in ["www", "media"] {
            assert_same(&self.scratch.path(root), &self.scratch.path(&format!("copy-{root}")));
        }
        outcome
    }

    /// The only kept connection.
    fn master(&self) -> u32 {
        let masters = self.scratch.masters();
        assert_eq!(masters.len(), 1, "{:?}", self.scratch.leftovers());
        masters[0]
    }

    fn assert_one_socket(&self) {
        assert_eq!(self.scratch.sockets().len(), 1, "{:?}", self.scratch.sockets());
    }
}

#[test]
fn the_next_runs_need_no_new_connection() {
    let story = Story::new();
    for round in ["one", "two!", "three"] {
        story.push("", round);
        assert_eq!(story.sshd.logins(), 1, "{}", story.sshd.log());
    }
    Push::command(&story.scratch, &["verify", "--config"]).arg(story.config("")).ok();
    assert_eq!(story.sshd.logins(), 1, "verify uses it, too");
    let master = story.master();
    let session = getsid(Pid::from_raw(i32::try_from(master).unwrap())).unwrap();
    assert_eq!(session.as_raw_nonzero().get().cast_unsigned(), master, "no terminal of ours can interrupt it");
    for number in 0..3 {
        let open = fs::read_link(format!("/proc/{master}/fd/{number}")).unwrap();
        assert_eq!(open, PathBuf::from("/dev/null"), "descriptor {number}");
    }
    assert_eq!(fs::read_link(format!("/proc/{master}/cwd")).unwrap(), PathBuf::from("/"));
    story.assert_one_socket();
    assert_eq!(fs::read_dir(story.scratch.path("tmp")).unwrap().count(), 0, "nothing else is left");
}

#[test]
fn a_push_by_hand_and_a_check_have_connections_of_their_own() {
    let story = Story::new();
    let destination = format!("web2:{}", story.scratch.path("by-hand").display());
    let push = Push::adhoc(&story.scratch, &story.scratch.path("www"), &[destination]);
    support::fleet::over_ssh(push, &story.scratch.path("ssh_config")).ok();
    story.scratch.assert_no_leftovers();
    story.push("", "one");
    Push::command(&story.scratch, &["check", "--config"]).arg(story.config("")).ok();
    assert_eq!(story.sshd.logins(), 3, "{}", story.sshd.log());
    story.master();
}

#[test]
fn without_persist_nothing_is_left() {
    let story = Story::new();
    for (round, content) in ["one", "two!"].into_iter().enumerate() {
        story.push("persist = \"0s\"", content);
        assert_eq!(story.sshd.logins(), round + 1);
        story.scratch.assert_no_leftovers();
    }
    assert_eq!(story.scratch.sockets(), Vec::<PathBuf>::new());
}

#[test]
fn a_connection_ends_by_itself_when_its_time_is_over() {
    let story = Story::new();
    story.push("persist = \"1s\"", "one");
    story.scratch.assert_no_leftovers();
    assert_eq!(story.scratch.sockets(), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_master_and_the_socket_it_left_are_replaced() {
    let story = Story::new();
    story.push("", "one");
    let left = story.scratch.sockets();
    story.scratch.stop_masters();
    assert_eq!(story.scratch.sockets(), left, "a killed master removes nothing");
    for round in ["two!", "three"] {
        story.push("", round);
        assert_eq!(story.sshd.logins(), 2, "{}", story.sshd.log());
    }
    story.assert_one_socket();
    assert_ne!(story.scratch.sockets(), left);
}

#[test]
fn a_master_that_hangs_is_replaced_and_does_no_harm_when_it_wakes() {
    let story = Story::new();
    story.push("persist = \"5m\"", "one");
    let old = story.master();
    process::signal(old, Signal::STOP);
    story.push("persist = \"5m\"", "two!");
    assert_eq!(story.sshd.logins(), 2, "{}", story.sshd.log());
    process::signal(old, Signal::CONT);
    // Told to end, it removes its own socket only.
    process::signal(old, Signal::TERM);
    wait_until("the old master to end", Duration::from_secs(20), || !process::alive(old));
    story.push("persist = \"5m\"", "three");
    assert_eq!(story.sshd.logins(), 2, "{}", story.sshd.log());
    story.master();
    story.assert_one_socket();
}

#[test]
fn a_connection_whose_other_end_hangs_is_replaced() {
    let story = Story::new();
    story.push("connect_timeout = \"4s\"", "one");
    for pid in story.sshd.sessions() {
        process::signal(pid, Signal::STOP);
    }
    for round in ["two!", "three"] {
        story.push("connect_timeout = \"4s\"", round);
        assert_eq!(story.sshd.logins(), 2, "{}", story.sshd.log());
    }
    story.assert_one_socket();
}

#[test]
fn a_restarted_server_is_connected_anew() {
    let mut story = Story::new();
    story.push("", "one");
    story.sshd.restart(&story.scratch);
    for round in ["two!", "three"] {
        story.push("", round);
        assert_eq!(story.sshd.logins(), 1, "{}", story.sshd.log());
    }
    story.master();
}

#[rstest]
#[case::key(|story: &Story| {
    let key = story.sshd.path("user_key");
    fs::copy(&key, story.scratch.path("copy")).unwrap();
    fs::rename(story.scratch.path("copy"), key).unwrap();
})]
#[case::known_hosts(|story: &Story| append(story.sshd.path("known_hosts")))]
#[case::ssh_config(|story: &Story| append(story.scratch.path("ssh_config")))]
fn another_configuration_leads_to_another_connection(#[case] change: fn(&Story)) {
    let story = Story::new();
    let path = |name: &str| story.sshd.path(name);
    let ssh = format!("identity_file = {:?}\nknown_hosts = {:?}", path("user_key"), path("known_hosts"));
    story.push(&ssh, "one");
    change(&story);
    for round in ["two!", "three"] {
        story.push(&ssh, round);
        assert_eq!(story.sshd.logins(), 2, "{}", story.sshd.log());
    }
    story.push(&format!("{ssh}\npersist = \"9m\""), "four");
    assert_eq!(story.sshd.logins(), 3, "{}", story.sshd.log());
}

fn append(path: PathBuf) {
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text + "# a remark\n").unwrap();
}

#[test]
fn a_first_host_key_that_is_taken_does_not_cost_a_second_connection() {
    let story = Story::new();
    let known = story.scratch.path("known");
    let block = story.sshd.client_block("web2", &format!("  UserKnownHostsFile {}", known.display()));
    client_config(&story.scratch, "ssh_config", &[block]);
    let ssh = format!("host_keys = \"accept-new\"\nknown_hosts = {known:?}");
    for round in ["one", "two!"] {
        story.push(&ssh, round);
        assert_eq!(story.sshd.logins(), 1, "{}", story.sshd.log());
    }
    assert!(fs::read_to_string(known).unwrap().contains("ssh-ed25519"));
}

#[test]
fn runs_at_the_same_time_make_one_connection() {
    let story = Story::new();
    story.push("persist = \"0s\"", "one");
    let config = story.config("");
    let start = || Push::command(&story.scratch, &["verify", "--config"]).arg(&config).start();
    let runs: Vec<_> = (0..4).map(|_| start()).collect();
    for run in runs {
        run.finish().assert_code(0);
    }
    assert_eq!(story.sshd.logins(), 2, "{}", story.sshd.log());
    story.master();
    story.assert_one_socket();
}

#[test]
fn sockets_do_not_lie_in_a_directory_of_someone_else() {
    assert!(is_root(), "this story gives a directory away and needs root: run it as root");
    let story = Story::new();
    std::os::unix::fs::chown(story.scratch.path("run"), Some(12345), None).unwrap();
    let outcome = story.push("", "one");
    outcome.assert_only_line(&["connections end with this run", "belongs to user 12345"]);
    story.scratch.assert_no_leftovers();
    assert!(!story.scratch.path("run/ssh").exists());
}
