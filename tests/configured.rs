//! A push by configuration: static hosts, commands instead of SSH, and receivers with a policy of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use support::fleet::receiver;
use support::sshd::client_config;
use support::{
    Config, Push, Rng, Scratch, Snapshot, Sshd, SshdOptions, Tree, assert_rsync_agrees, assert_same, every_kind,
    mutate, random_tree, rfleet_bin,
};

fn ssh_section(client: &Path) -> String {
    format!("[ssh]\nconfig = {:?}\nreceiver = {:?}\n", client.display().to_string(), receiver())
}

#[test]
fn two_roots_to_hosts_over_ssh_and_over_a_command() {
    let scratch = Scratch::new();
    let (www, media) = (scratch.path("www"), scratch.path("media"));
    every_kind().create(&www);
    random_tree(&media, &mut Rng::new(1), 60);
    let sshd = Sshd::start(&scratch, "sshd");
    let client = client_config(&scratch, "ssh_config", &[sshd.client_block("web2", "")]);
    let copy = |host: &str, root: &str| scratch.dir(host).join(root);
    let bin = rfleet_bin().display().to_string();
    let paths =
        |host: &str| format!("paths = {{ www = {:?}, media = {:?} }}\n", copy(host, "www"), copy(host, "media"));
    let config = Config::new("cms")
        .root("www", &www, "delete = true\nmax_delete = \"100%\"")
        .root("media", &media, "delete = true\nmax_delete = \"100%\"")
        .hosts(&["web2", "box"])
        .lines(&format!("[[host]]\nname = \"web2\"\n{}", paths("web2")))
        .lines(&format!("[[host]]\nname = \"box\"\ncommand = [{bin:?}, \"receive\"]\n{}", paths("box")))
        .lines(&ssh_section(&client))
        .write(&scratch, "rfleet.toml");
    for round in 0..3 {
        let outcome = Push::configured(&scratch, &config).ok();
        let report = outcome.report();
        assert_eq!((report.fleet.as_deref(), report.roots.len()), (Some("cms"), 2), "{}", outcome.said());
        for (source, root) in [(&www, "www"), (&media, "media")] {
            for host in ["web2", "box"] {
                assert_same(source, &copy(host, root));
                assert_rsync_agrees(source, &copy(host, root));
                let state = fs::symlink_metadata(copy(host, root).join(".rfleet")).unwrap();
                assert_eq!(state.permissions().mode() & 0o777, 0o700, "state is private");
            }
            mutate(source, &mut Rng::new(round), 30);
        }
    }
    let only = Push::configured(&scratch, &config).args(&["--host", "box"]).ok();
    assert!(only.report().roots.iter().all(|r| r.hosts.len() == 1 && r.hosts[0].name == "box"), "{}", only.said());
    assert_same(&www, &copy("box", "www"));
    scratch.stop_masters();
    scratch.assert_no_leftovers();
}

#[test]
fn a_second_configured_push_of_the_same_tree_sends_nothing() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    every_kind().create(&source);
    let config = Config::new("cms")
        .root("www", &source, "delete = true")
        .hosts(&["box"])
        .host_command("box", &[rfleet_bin().to_str().unwrap(), "receive"], "www", &copy)
        .write(&scratch, "rfleet.toml");
    Push::configured(&scratch, &config).ok();
    let before = Snapshot::take(&copy);
    let again = Push::configured(&scratch, &config).ok();
    let report = again.report();
    let host = report.host("box");
    assert_eq!(
        (host.state.as_str(), host.files_sent, report.root().read_bytes),
        ("unchanged", 0, 0),
        "{}",
        again.said()
    );
    before.assert_equal(&copy);
}

#[test]
fn a_host_with_a_limit_is_slow_and_the_others_are_not_held_back() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    Tree::new().create(&source);
    fs::write(source.join("large"), Rng::new(9).bytes(1_500_000)).unwrap();
    let command = [rfleet_bin().to_str().unwrap(), "receive"];
    let config = Config::new("cms")
        .root("www", &source, "")
        .hosts(&["slow", "free"])
        .host_command("slow", &command, "www", &scratch.path("slow"))
        .lines("bandwidth = \"500KB\"")
        .host_command("free", &command, "www", &scratch.path("free"))
        .lines("bandwidth = 0\n[push]\nhost_bandwidth = \"1KB\"")
        .write(&scratch, "rfleet.toml");
    let outcome = Push::configured(&scratch, &config).ok();
    let report = outcome.report();
    let (slow, free) = (report.host("slow").seconds, report.host("free").seconds);
    // What the slow one gets takes three seconds at its rate, and at the rate of all hosts half an hour.
    assert!(slow >= 2.5 && free < slow, "{slow} {free}: {}", outcome.said());
    for host in ["slow", "free"] {
        assert_same(&source, &scratch.path(host));
    }
}

/// The far side is a forced command: what the client asks for is ignored, and only the roots of its own file exist.
struct Forced {
    scratch: Scratch,
    sshd: Sshd,
}

impl Forced {
    fn new(policy: &str) -> Self {
        let scratch = Scratch::new();
        let far = Config::new("cms").root("www", &scratch.dir("far/www"), "").lines(policy).write(&scratch, "far.toml");
        let command = format!("{} receive --config {}", rfleet_bin().display(), far.display());
        let options = SshdOptions { forced_command: Some(command), ..SshdOptions::default() };
        let sshd = Sshd::start_with(&scratch, "sshd", &options);
        Self { scratch, sshd }
    }

    fn config(&self, root: &str, source: &Path, path: Option<&Path>) -> std::path::PathBuf {
        let client = client_config(&self.scratch, "ssh_config", &[self.sshd.client_block("web2", "")]);
        let mut config =
            Config::new("cms").root(root, source, "delete = true").hosts(&["web2"]).lines(&ssh_section(&client));
        if let Some(path) = path {
            config = config.host_path("web2", root, path);
        }
        config.write(&self.scratch, "rfleet.toml")
    }
}

#[test]
fn a_forced_receiver_takes_its_own_roots_by_name() {
    let forced = Forced::new("");
    let source = forced.scratch.path("source");
    every_kind().create(&source);
    let config = forced.config("www", &source, None);
    Push::configured(&forced.scratch, &config).ok();
    let copy = forced.scratch.path("far/www");
    assert_same(&source, &copy);
    assert_rsync_agrees(&source, &copy);
}

#[test]
fn a_forced_receiver_is_not_led_to_another_path() {
    let forced = Forced::new("");
    let (source, elsewhere) = (forced.scratch.path("source"), forced.scratch.path("elsewhere"));
    Tree::new().file("a", "x").create(&source);
    Tree::new().file("theirs", "sentinel").create(&elsewhere);
    let before = Snapshot::take(&elsewhere);
    let config = forced.config("www", &source, Some(&elsewhere));
    let outcome = Push::configured(&forced.scratch, &config).run();
    before.assert_untouched(&elsewhere);
    if outcome.code() == Some(0) {
        assert_same(&source, &forced.scratch.path("far/www"));
    }
}

#[test]
fn a_forced_receiver_refuses_a_root_it_does_not_know() {
    let forced = Forced::new("");
    let source = forced.scratch.path("source");
    Tree::new().file("a", "x").create(&source);
    let before = Snapshot::take(&forced.scratch.path("far/www"));
    let config = forced.config("unknown-root", &source, Some(&forced.scratch.path("planted")));
    let outcome = Push::configured(&forced.scratch, &config).run();
    outcome.assert_code(3);
    let report = outcome.report();
    let error = report.host("web2").error.clone().unwrap_or_default();
    assert!(error.contains("unknown-root"), "{}", outcome.said());
    before.assert_untouched(&forced.scratch.path("far/www"));
    assert!(!forced.scratch.path("planted").exists());
}

#[test]
fn a_forced_receiver_refuses_an_adhoc_push_to_a_path() {
    let forced = Forced::new("");
    let source = forced.scratch.path("source");
    Tree::new().file("a", "x").create(&source);
    let client = client_config(&forced.scratch, "ssh_config", &[forced.sshd.client_block("web2", "")]);
    let planted = forced.scratch.path("planted");
    let destination = format!("web2:{}", planted.display());
    let push = Push::adhoc(&forced.scratch, &source, &[destination]);
    let outcome = support::fleet::over_ssh(push, &client).run();
    outcome.assert_code(3);
    assert!(!planted.exists(), "{}", outcome.said());
    assert_eq!(fs::read_dir(forced.scratch.path("far/www")).unwrap().count(), 0);
}

#[test]
fn a_receiver_that_allows_no_deletion_keeps_everything_and_says_so() {
    let forced = Forced::new("[receive]\nallow_delete = false");
    let source = forced.scratch.path("source");
    Tree::new().file("a", "x").file("b", "y").create(&source);
    let config = forced.config("www", &source, None);
    Push::configured(&forced.scratch, &config).ok();
    fs::remove_file(source.join("b")).unwrap();
    fs::write(source.join("c"), "z").unwrap();
    let outcome = Push::configured(&forced.scratch, &config).run();
    let copy = forced.scratch.path("far/www");
    assert!(copy.join("b").exists(), "{}", outcome.said());
    assert!(outcome.stdout.contains("allow_delete") || outcome.stdout.contains("delet"), "{}", outcome.said());
}

#[test]
fn a_host_that_is_not_the_primary_pushes_nothing() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new().file("a", "x").create(&source);
    let text = format!(
        "version = 1\nfleet = \"cms\"\n[[root]]\nname = \"www\"\npath = {source:?}\n[role]\nsource = \"static\"\n\
         primary = \"some-other-host\"\n[discovery]\nsource = \"static\"\nhosts = [\"box\"]\n[[host]]\nname = \"box\"\n\
         command = [{:?}, \"receive\"]\npaths = {{ www = {copy:?} }}\n",
        rfleet_bin().display().to_string(),
    );
    let config = scratch.write("rfleet.toml", text);
    Push::configured(&scratch, &config).no_json().ok();
    assert!(!copy.exists());
}
