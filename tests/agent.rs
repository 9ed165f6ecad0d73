//! Stories of the agent: what happens on the primary is on every secondary soon, whatever happens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use support::agent::SOON;
use support::{Agent, Config, Editor, Fleet, Rng, Scratch, Tree, process, rfleet_bin, wait_until};

/// Some secondaries on this host, each behind a receiver of its own.
struct Local {
    scratch: Scratch,
    source: PathBuf,
    copies: Vec<PathBuf>,
}

impl Local {
    fn new(hosts: usize) -> Self {
        let scratch = Scratch::new();
        let source = scratch.dir("src");
        fs::write(source.join("anchor"), "here").unwrap();
        let copies = (1..=hosts).map(|number| scratch.path(&format!("web{number}"))).collect();
        Local { scratch, source, copies }
    }

    fn config(&self, lines: &str) -> Config {
        let names: Vec<String> = (1..=self.copies.len()).map(|number| format!("web{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut config = Config::new("cms")
            .root("www", &self.source, "delete = true\nmax_delete = \"100%\"")
            .hosts(&names)
            .lines(&format!("[push]\n{lines}"));
        let receiver = rfleet_bin().to_str().unwrap();
        for (name, copy) in names.iter().zip(&self.copies) {
            config = config.host_command(name, &[receiver, "receive"], "www", copy);
        }
        config
    }

    fn start(&self, lines: &str) -> Agent {
        Agent::start(&self.scratch, &self.config(lines).write(&self.scratch, "rfleet.toml"), &[])
    }

    fn wait_equal(&self, agent: &mut Agent, what: &str) {
        agent.wait_equal(what, &self.source, &self.copies);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }
}

/// With a scan an hour only what is noticed is sent.
const EVENTS_ONLY: &str = "interval = \"1h\"";

#[test]
fn its_socket_is_for_the_agents_user_alone() {
    let local = Local::new(1);
    let agent = local.start(EVENTS_ONLY);
    let state = local.scratch.path(support::scratch::STATE);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join("agent.sock"))), (0o700, 0o600));
    drop(agent);
}

#[test]
fn each_kind_of_change_is_everywhere_soon_without_a_scan() {
    let local = Local::new(2);
    let mut agent = local.start(EVENTS_ONLY);
    local.wait_equal(&mut agent, "the first cycle");
    let tree = Tree::new().dir("a").dir("a/b").file("a/b/f", "one").file("g", "two").link("l", "a/b/f").hard("h", "g");
    tree.create(&local.source);
    local.wait_equal(&mut agent, "a tree that came");
    fs::write(local.at("a/b/f"), "one and more").unwrap();
    local.wait_equal(&mut agent, "content");
    fs::set_permissions(local.at("g"), fs::Permissions::from_mode(0o600)).unwrap();
    local.wait_equal(&mut agent, "the mode, under both names");
    fs::rename(local.at("a"), local.at("z")).unwrap();
    local.wait_equal(&mut agent, "a renamed directory");
    fs::write(local.at("z/b/new"), "in the renamed one").unwrap();
    local.wait_equal(&mut agent, "what came into it");
    fs::remove_file(local.at("l")).unwrap();
    fs::create_dir(local.at("l")).unwrap();
    local.wait_equal(&mut agent, "a link that became a directory");
    fs::remove_dir_all(local.at("z")).unwrap();
    fs::remove_file(local.at("h")).unwrap();
    local.wait_equal(&mut agent, "what went");
    let root = agent.root();
    assert_eq!((&root["scans"], &root["watch"]["mode"]), (&json!(1), &json!("events")), "{root:#}");
    assert!(agent.stop().success());
    local.scratch.assert_no_leftovers();
}

#[test]
fn new_directories_are_never_missed_however_fast_they_fill() {
    let local = Local::new(1);
    let mut agent = local.start(EVENTS_ONLY);
    local.wait_equal(&mut agent, "the first cycle");
    for round in 0..60 {
        let deep = local.at(&format!("r{round}/a/b/c/d"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "x").unwrap();
        fs::write(local.at(&format!("r{round}/a/b/g")), "y").unwrap();
        std::thread::sleep(Duration::from_millis(round % 7));
    }
    local.wait_equal(&mut agent, "mkdir -p and writes at once");
    for round in 0..60 {
        let (from, to) = (local.at(&format!("r{round}")), local.at(&format!("s{}", (round * 7) % 60)));
        fs::rename(&from, &to).unwrap();
        fs::write(to.join("a/b/c/late"), "z").unwrap();
    }
    local.wait_equal(&mut agent, "a storm of renames");
    let outside = local.scratch.dir("outside");
    for round in 0..30 {
        let (inside, out) = (local.at(&format!("s{round}")), outside.join(format!("o{round}")));
        fs::rename(&inside, &out).unwrap();
        fs::write(out.join("a/while-out"), "w").unwrap();
        if round % 2 == 0 {
            fs::rename(&out, local.at(&format!("back{round}"))).unwrap();
            fs::write(local.at(&format!("back{round}/a/b/again")), "w").unwrap();
        }
    }
    local.wait_equal(&mut agent, "directories that went out, changed there, and came back");
    fs::write(outside.join("o1/a/unseen"), "not ours").unwrap();
    fs::write(local.at("last"), "x").unwrap();
    local.wait_equal(&mut agent, "what is outside stays outside");
    assert_eq!(agent.root()["scans"], 1);
}

/// Events alone tell of everything, as long as each file has one name.
#[test]
fn random_histories_end_equal() {
    for seed in [1, 2, 3] {
        let local = Local::new(2);
        let editor = Editor::without_links(&local.source, Rng::new(seed), 60);
        a_history_ends_equal(seed, &local, editor, EVENTS_ONLY);
    }
}

/// The kernel tells of a change by the name that it was made by. If that came and went between two looks, it takes a
/// scan to find it at the other names.
#[test]
fn random_histories_with_hard_links_end_equal() {
    for seed in [11, 12] {
        let local = Local::new(2);
        let editor = Editor::start(&local.source, Rng::new(seed), 60);
        a_history_ends_equal(seed, &local, editor, "interval = \"3s\"");
    }
}

fn a_history_ends_equal(seed: u64, local: &Local, mut editor: Editor, push: &str) {
    let mut agent = local.start(push);
    for round in 0..3 {
        let mut pace = Rng::new(seed * 100 + round);
        for _ in 0..80 {
            editor.act();
            if pace.chance(4) {
                std::thread::sleep(Duration::from_millis(pace.below(12) as u64));
            }
        }
        local.wait_equal(&mut agent, &format!("seed {seed}, round {round}"));
    }
    assert!(agent.stop().success(), "seed {seed}");
}

#[test]
fn more_events_than_the_kernel_keeps_are_no_loss() {
    let local = Local::new(2);
    let mut agent = local.start(EVENTS_ONLY);
    local.wait_equal(&mut agent, "the first cycle");
    fs::create_dir(local.at("d")).unwrap();
    local.wait_equal(&mut agent, "a directory");
    agent.signal(Signal::STOP);
    for number in 0..20_000 {
        fs::write(local.at(&format!("d/{number}")), "x").unwrap();
        if number % 3 > 0 {
            fs::remove_file(local.at(&format!("d/{number}"))).unwrap();
        }
    }
    fs::write(local.at("last"), "x").unwrap();
    agent.signal(Signal::CONT);
    local.wait_equal(&mut agent, "after a burst");
    let root = agent.root();
    assert!(root["watch"]["overflows"].as_u64().unwrap() >= 1, "{root:#}");
    fs::write(local.at("d/after"), "x").unwrap();
    local.wait_equal(&mut agent, "afterwards");
    assert_eq!(agent.root()["watch"]["mode"], "events");
}

#[test]
fn a_limit_of_watches_is_told_and_what_is_not_watched_is_scanned() {
    let local = Local::new(1);
    for number in 0..200 {
        fs::create_dir(local.at(&format!("d{number}"))).unwrap();
    }
    let config = local.config("interval = \"1h\"").write(&local.scratch, "rfleet.toml");
    let limited = "echo 100 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c", limited];
    let mut agent = Agent::start_as(&local.scratch, &config, &[], &wrapper);
    local.wait_equal(&mut agent, "the first cycle");
    for number in 0..200 {
        fs::write(local.at(&format!("d{number}/f")), "x").unwrap();
    }
    local.wait_equal(&mut agent, "in all directories, watched or not");
    let status = agent.status();
    let watch = &status["roots"][0]["watch"];
    assert_eq!(watch["mode"], "scans", "{status:#}");
    let reason = watch["reason"].as_str().unwrap();
    assert!(reason.contains("201 directories") && reason.contains("fs.inotify.max_user_watches"), "{reason}");
    assert_eq!(status["agent"]["state"], "degraded");
}

#[test]
fn the_same_size_within_the_same_millisecond_is_noticed() {
    let local = Local::new(1);
    let mut agent = local.start(EVENTS_ONLY);
    local.wait_equal(&mut agent, "the first cycle");
    for round in 0..40_u32 {
        let path = local.at("f");
        fs::write(&path, format!("{round:08}a")).unwrap();
        fs::write(&path, format!("{round:08}b")).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(round) * 300));
        // As an editor that puts the time back.
        fs::write(&path, format!("{round:08}c")).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        if round % 8 == 7 {
            local.wait_equal(&mut agent, &format!("round {round}"));
        }
    }
}

#[test]
fn a_file_that_is_written_for_long_does_not_hold_up_the_others_and_arrives_whole() {
    let local = Local::new(2);
    let mut agent = local.start("interval = \"1h\"\nsettle = \"50ms\"\nsettle_max = \"1s\"");
    local.wait_equal(&mut agent, "the first cycle");
    let mut long = File::create(local.at("long")).unwrap();
    let began = Instant::now();
    let mut others = 0;
    while began.elapsed() < Duration::from_secs(6) {
        long.write_all(&[b'x'; 5000]).unwrap();
        if began.elapsed() > Duration::from_millis(500) * others {
            others += 1;
            let name = format!("other{others}");
            fs::write(local.at(&name), "x").unwrap();
            let here = || local.copies.iter().all(|copy| copy.join(&name).exists());
            wait_until("another file meanwhile", Duration::from_secs(2), here);
        }
        // Long enough to be read in between: what changes while it is read is never sent.
        std::thread::sleep(Duration::from_millis(40));
    }
    let some = |copy: &PathBuf| fs::metadata(copy.join("long")).is_ok_and(|found| found.len() > 0);
    assert!(local.copies.iter().all(some), "what was there after a second was sent");
    drop(long);
    local.wait_equal(&mut agent, "closed at last");
}

#[test]
fn what_is_mounted_over_the_source_deletes_nothing_and_is_got_over() {
    if !support::scratch::is_root() {
        return;
    }
    let local = Local::new(2);
    let source = local.scratch.mount_tmpfs("src", "size=10m");
    fs::write(source.join("anchor"), "here").unwrap();
    fs::create_dir(source.join("d")).unwrap();
    fs::write(source.join("d/f"), "x").unwrap();
    let mut agent = local.start("interval = \"1h\"");
    local.wait_equal(&mut agent, "the first cycle");
    let before = support::Snapshot::take(&source);
    let over = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&source).status().unwrap();
    assert!(over.success());
    wait_until("the guard speaks", SOON, || agent.root()["state"] == "refused");
    fs::write(source.join("other"), "of another volume").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    local.copies.iter().for_each(|copy| before.assert_equal(copy));
    let under = std::process::Command::new("umount").arg(&source).status().unwrap();
    assert!(under.success());
    fs::write(source.join("d/after"), "x").unwrap();
    local.wait_equal(&mut agent, "as it was before");
    wait_until("all is well again", SOON, || agent.root()["state"] == "ok");
    fs::write(source.join("d/later"), "x").unwrap();
    local.wait_equal(&mut agent, "events are noticed again");
}

#[test]
fn an_emptied_source_is_refused_until_it_is_filled_again() {
    let local = Local::new(1);
    fs::create_dir(local.at("d")).unwrap();
    let mut agent = local.start("interval = \"1h\"");
    local.wait_equal(&mut agent, "the first cycle");
    fs::remove_dir_all(local.at("d")).unwrap();
    fs::remove_file(local.at("anchor")).unwrap();
    wait_until("the guard speaks", SOON, || agent.root()["state"] == "refused");
    assert!(local.copies[0].join("anchor").exists(), "the last of it stays");
    fs::write(local.at("anchor"), "back").unwrap();
    local.wait_equal(&mut agent, "filled again");
}

#[test]
fn who_waits_is_answered_when_it_is_everywhere_and_not_before() {
    let local = Local::new(3);
    let mut agent = local.start("interval = \"1h\"\nsettle = \"5s\"\nsettle_max = \"10s\"");
    local.wait_equal(&mut agent, "the first cycle");
    for round in 0..30 {
        let name = format!("upload{round}");
        // Not closed: by itself it would be sent five seconds later.
        let mut file = File::create(local.at(&name)).unwrap();
        file.write_all(b"content").unwrap();
        let answer = agent.wait(json!("all"), SOON);
        assert_eq!(answer["ok"]["hosts"], json!(["web1", "web2", "web3"]), "{answer}");
        for copy in &local.copies {
            assert_eq!(fs::read(copy.join(&name)).unwrap(), b"content", "round {round}");
        }
    }
    let nobody = agent.ask(&json!({"op": "wait", "paths": ["/nowhere"], "hosts": "all", "timeout_ms": 1000})).unwrap();
    assert!(nobody["error"].as_str().unwrap().contains("no root"), "{nobody}");
}

#[test]
fn a_stopped_host_is_waited_for_by_those_who_want_all_and_delays_nobody_else() {
    let local = Local::new(3);
    let mut agent = local.start("interval = \"1h\"\ntimeout = \"20s\"");
    local.wait_equal(&mut agent, "the first cycle");
    let receivers: Vec<u32> = process::descendants(agent.pid());
    let is_of = |pid: &&u32| process::arguments(**pid).iter().any(|word| word.ends_with(b"web3"));
    let third = *receivers.iter().find(is_of).expect("a receiver that stays");
    process::signal(third, Signal::STOP);
    for round in 0..20 {
        let name = format!("f{round}");
        fs::write(local.at(&name), "x").unwrap();
        let answer = agent.wait(json!(2), Duration::from_secs(2));
        assert_eq!(answer["ok"]["hosts"], json!(["web1", "web2"]), "round {round}: {answer}");
    }
    let late = agent.wait(json!("all"), Duration::from_millis(300));
    assert_eq!(late["late"], json!(["web3"]), "{late}");
    process::signal(third, Signal::CONT);
    local.wait_equal(&mut agent, "it goes on");
    assert!(agent.wait(json!("all"), SOON)["ok"].is_object());
}

#[test]
fn a_host_that_went_away_is_found_again_with_what_it_missed() {
    let scratch = Scratch::new();
    let source = scratch.dir("src");
    fs::write(source.join("anchor"), "here").unwrap();
    let mut fleet = Fleet::start(&scratch, 3);
    let copies: Vec<PathBuf> = fleet.hosts.iter().map(|host| host.path.clone()).collect();
    let mut config = Config::new("cms").root("www", &source, "delete = true").hosts(&["web1", "web2", "web3"]);
    for host in &fleet.hosts {
        config = config.host_path(&host.alias, "www", &host.path);
    }
    let ssh = fleet.client.to_str().unwrap().to_owned();
    let lines =
        format!("[push]\ninterval = \"1h\"\ntimeout = \"5s\"\n[ssh]\nreceiver = {:?}", support::fleet::receiver());
    let config = config.lines(&lines).write(&scratch, "rfleet.toml");
    let mut agent = Agent::start(&scratch, &config, &["--ssh-config", &ssh]);
    agent.wait_equal("the first cycle", &source, &copies);
    for round in 0..3 {
        // The whole way there ends: sshd and its sessions.
        fleet.sshd.sessions().into_iter().for_each(process::kill);
        fleet.sshd.restart(&scratch);
        fs::write(source.join(format!("missed{round}")), "x").unwrap();
        agent.wait_equal(&format!("round {round}"), &source, &copies);
    }
    let root = agent.root();
    assert_eq!(root["scans"], 1, "{root:#}");
    assert!(agent.stop().success());
}

#[test]
fn hosts_come_and_go_by_reload_and_nobody_else_notices() {
    let mut local = Local::new(2);
    let config = local.scratch.path("rfleet.toml");
    let mut agent = local.start(EVENTS_ONLY);
    local.wait_equal(&mut agent, "the first cycle");
    let before: Vec<u32> = process::descendants(agent.pid());
    local.copies.push(local.scratch.path("web3"));
    local.config(EVENTS_ONLY).write_to(&config);
    agent.signal(Signal::HUP);
    local.wait_equal(&mut agent, "a third host");
    let after: Vec<u32> = process::descendants(agent.pid());
    assert!(before.iter().all(|pid| after.contains(pid)), "sessions of the others go on: {before:?} {after:?}");
    assert_eq!(agent.root()["scans"], 1);
    fs::write(&config, "version = 1\nnonsense = true").unwrap();
    agent.signal(Signal::HUP);
    wait_until("it says what is wrong", SOON, || agent.log().contains("nonsense"));
    fs::write(local.at("still"), "x").unwrap();
    local.wait_equal(&mut agent, "as before");
    local.copies.remove(0);
    let names = ["web2", "web3"];
    let mut config_without = Config::new("cms").root("www", &local.source, "delete = true").hosts(&names);
    for (name, copy) in names.iter().zip(&local.copies) {
        let receiver = rfleet_bin().to_str().unwrap();
        config_without = config_without.host_command(name, &[receiver, "receive"], "www", copy);
    }
    config_without.lines("[push]\ninterval = \"1h\"").write_to(&config);
    agent.signal(Signal::HUP);
    wait_until("the first host is dropped", SOON, || agent.root()["hosts"].as_array().unwrap().len() == 2);
    fs::write(local.at("later"), "x").unwrap();
    local.wait_equal(&mut agent, "without it");
    assert!(!local.scratch.path("web1").join("later").exists());
}

#[test]
fn what_is_pending_is_sent_before_the_end() {
    let local = Local::new(2);
    let mut agent = local.start("interval = \"1h\"\nsettle = \"10s\"\nsettle_max = \"20s\"");
    local.wait_equal(&mut agent, "the first cycle");
    let mut file = File::create(local.at("unsettled")).unwrap();
    file.write_all(b"content").unwrap();
    let began = Instant::now();
    assert!(agent.stop().success());
    assert!(began.elapsed() < Duration::from_secs(8));
    for copy in &local.copies {
        assert_eq!(fs::read(copy.join("unsettled")).unwrap(), b"content");
    }
    local.scratch.assert_no_leftovers();
}

#[test]
fn a_paused_host_gets_nothing_until_it_is_resumed() {
    let local = Local::new(2);
    let mut agent = local.start(EVENTS_ONLY);
    local.wait_equal(&mut agent, "the first cycle");
    let host = |action: &str| agent.ask(&json!({"op": "host", "action": action, "name": "web2"})).unwrap();
    assert_eq!(host("pause")["ok"]["changed"], true);
    assert_eq!(host("pause")["ok"]["changed"], false);
    fs::write(local.at("f"), "x").unwrap();
    assert_eq!(agent.wait(json!(1), SOON)["ok"]["hosts"], json!(["web1"]));
    assert!(!local.copies[1].join("f").exists());
    assert_eq!(agent.host("web2")["state"], "paused");
    assert_eq!(host("resume")["ok"]["changed"], true);
    local.wait_equal(&mut agent, "resumed");
    let nobody = agent.ask(&json!({"op": "host", "action": "pause", "name": "web9"})).unwrap();
    assert!(nobody["error"].as_str().unwrap().contains("web9"));
}

#[test]
fn a_push_of_the_command_line_is_done_by_the_agent() {
    let local = Local::new(2);
    let mut agent = local.start(EVENTS_ONLY);
    local.wait_equal(&mut agent, "the first cycle");
    let config = local.scratch.path("rfleet.toml");
    let push = |words: &[&str]| support::Push::configured(&local.scratch, &config).args(words);
    fs::remove_file(local.copies[0].join("anchor")).unwrap();
    let report = push(&[]).ok().report();
    assert_eq!((report.root().name.as_str(), report.host("web2").state.as_str()), ("www", "unchanged"));
    assert!(!local.copies[0].join("anchor").exists(), "nothing changed here, so nothing is looked at there");
    let full = push(&["--full"]).ok().report();
    assert_eq!((full.host("web1").created, full.host("web1").state.as_str()), (1, "done"));
    local.wait_equal(&mut agent, "all of it compared");
    let people = push(&[]).no_json().ok();
    assert!(people.stdout.contains("web1") && people.stdout.contains("unchanged"), "{}", people.said());
    let other = push(&["--host", "web1"]).no_json().run();
    other.assert_code(1);
    other.assert_only_line(&["--host", "agent runs"]);
    assert_eq!(agent.ask(&json!({"op": "host", "action": "pause", "name": "web2"})).unwrap()["ok"]["changed"], true);
    let paused = push(&[]).run();
    paused.assert_code(3);
    assert!(paused.report().host("web2").error.as_ref().unwrap().contains("paused"), "{}", paused.said());
    push(&["--dry-run"]).ok();
}

#[test]
fn deletions_that_the_agent_refuses_can_be_confirmed() {
    let local = Local::new(2);
    fs::create_dir(local.at("d")).unwrap();
    (0..20).for_each(|number| fs::write(local.at(&format!("d/{number}")), "x").unwrap());
    let config = local.scratch.path("rfleet.toml");
    local.config(EVENTS_ONLY).write_to(&config);
    let text = fs::read_to_string(&config).unwrap().replace("\"100%\"", "5");
    fs::write(&config, text).unwrap();
    let mut agent = Agent::start(&local.scratch, &config, &[]);
    local.wait_equal(&mut agent, "the first cycle");
    // At once: of files that go one by one, the agent may meet a few that may be deleted.
    fs::rename(local.at("d"), local.scratch.path("gone")).unwrap();
    let push = |words: &[&str]| support::Push::configured(&local.scratch, &config).args(words);
    let refused = push(&[]).run();
    refused.assert_code(4);
    let report = refused.report();
    let plan = report.root().refused.as_ref().and_then(|refused| refused.plan.clone()).expect("a plan to confirm");
    refused.assert_line(&["--confirm-deletes", &plan]);
    assert!(local.copies.iter().all(|copy| copy.join("d/19").exists()));
    push(&["--confirm-deletes", "0000000000000000"]).run().assert_code(4);
    let done = push(&["--confirm-deletes", &plan]).ok().report();
    assert_eq!((done.host("web1").deleted, done.host("web2").deleted), (21, 21));
    local.wait_equal(&mut agent, "what was confirmed");
    wait_until("all is well again", SOON, || agent.root()["state"] == "ok");
}

#[test]
fn a_copy_that_is_edited_by_hand_is_put_right_when_it_is_met_and_the_edit_is_kept() {
    let local = Local::new(1);
    let mut agent = local.start(EVENTS_ONLY);
    fs::write(local.at("f"), "one").unwrap();
    local.wait_equal(&mut agent, "the first cycle");
    fs::write(local.copies[0].join("f"), "edited by hand").unwrap();
    fs::write(local.at("f"), "two!").unwrap();
    local.wait_equal(&mut agent, "over the edit");
    let attic = find(&local.copies[0].join(".rfleet/attic"), "f");
    assert_eq!(fs::read_to_string(attic.expect("the edit is in the attic")).unwrap(), "edited by hand");
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { find(&path, name) } else { (entry.file_name() == name).then_some(path) }
    })
}
