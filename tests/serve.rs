//! Stories of the status over HTTP, as a real agent serves it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rfleet::status::{AgentState, FleetStatus, HostState, Role, SCHEMA};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::agent::SOON;
use support::http::{ask, get, port};
use support::{Agent, Config, Push, Scratch, Tree, rfleet_bin, wait_until};

/// What no answer may hold: it is in the command that leads to a host.
const SECRET: &str = "token-5bd1e995";

/// A source and two hosts behind commands. Receivers wait until the file `go` is there.
struct Served {
    scratch: Scratch,
    config: PathBuf,
}

impl Served {
    fn new(serve: &str) -> Self {
        let scratch = Scratch::new();
        Tree::new().file("a", "x").file("d/b", "y").create(&scratch.path("source"));
        let served = Self { config: scratch.path("rfleet.toml"), scratch };
        served.configure(serve);
        served.scratch.write("go", "");
        served
    }

    /// Writes the configuration with `serve` as its `[serve]`.
    fn configure(&self, serve: &str) {
        let (go, ended) = (self.scratch.path("go"), self.scratch.root().display());
        let body = format!(
            "shift; while [ ! -e {go:?} ] && [ -d {ended} ]; do sleep 0.02; done; exec {} receive \"$@\"",
            rfleet_bin().display()
        );
        let way = self.scratch.script("way", &body);
        let mut config = Config::new("cms").root("www", &self.scratch.path("source"), "").hosts(&["web2", "web3"]);
        for name in ["web2", "web3"] {
            config = config.host_command(name, &[way.to_str().unwrap(), SECRET], "www", &self.scratch.path(name));
        }
        config.lines(&format!("[serve]\n{serve}")).write_to(&self.config);
    }

    fn start(&self) -> Agent {
        Agent::start(&self.scratch, &self.config, &[])
    }
}

const ANYWHERE: &str = "listen = \"127.0.0.1:0\"";

fn documented(page: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap()
}

#[test]
fn a_primary_is_healthy_at_once_and_ready_after_its_first_cycle() {
    let served = Served::new(ANYWHERE);
    fs::remove_file(served.scratch.path("go")).unwrap();
    let agent = served.start();
    let port = port(&agent);
    assert_eq!((get(port, "/healthz").code, get(port, "/healthz").body.as_str()), (200, "ok\n"));
    let before = get(port, "/readyz");
    assert_eq!(before.code, 503);
    assert!(before.body.contains("first cycle"), "{before:?}");
    served.scratch.write("go", "");
    wait_until("it is ready", SOON, || get(port, "/readyz").code == 200);
    assert!(agent.stop().success());
    assert!(ask(port, "GET", "/healthz", "localhost").is_none(), "nobody listens any more");
}

#[test]
fn the_document_the_page_and_the_metrics_are_those_of_the_agent() {
    let served = Served::new(ANYWHERE);
    let agent = served.start();
    let port = port(&agent);
    assert!(agent.wait(json!("all"), SOON)["ok"].is_object());
    served.scratch.write("source/c", "z");
    assert!(agent.wait(json!("all"), SOON)["ok"].is_object());
    let is_told = || {
        let status: FleetStatus = serde_json::from_str(&get(port, "/status.json").body).unwrap();
        let state = status.agent.as_ref().map(|agent| agent.state);
        state == Some(AgentState::Ok) && status.roots[0].hosts.iter().all(|host| host.state == HostState::Current)
    };
    wait_until("all is well", SOON, is_told);
    let answer = get(port, "/status.json");
    assert!(answer.has_type("application/json"), "{}", answer.head);
    let document: FleetStatus = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((document.schema, document.role, document.fleet.as_str()), (SCHEMA, Role::Primary, "cms"));
    let page = documented("status.md");
    for field in fields(&serde_json::from_str(&answer.body).unwrap()) {
        assert!(page.contains(&format!("`{field}`")), "docs/status.md does not have {field}");
    }
    let metrics = get(port, "/metrics");
    assert!(metrics.has_type("application/openmetrics-text"), "{}", metrics.head);
    assert_exposition(&metrics.body);
    let page = documented("metrics.md");
    for name in page.lines().filter_map(|line| line.strip_prefix("| `rfleet_")?.split('`').next()) {
        let is_of_secondaries = name == "root_committed_timestamp_seconds";
        let is_there = metrics.body.lines().any(|line| line.strip_prefix("rfleet_").is_some_and(|line| is(line, name)));
        assert_eq!(is_there, !is_of_secondaries, "{name}\n{}", metrics.body);
    }
    let page = get(port, "/");
    assert!(page.has_type("text/html"), "{}", page.head);
    assert!(["web2", "web3", "cms", "www"].iter().all(|name| page.body.contains(name)));
    for outside in ["src=\"http", "href=\"http", "src=\"//", "@import", "url("] {
        assert!(!page.body.contains(outside), "{outside}");
    }
}

/// Whether `line` is a sample of the metric `name`.
fn is(line: &str, name: &str) -> bool {
    let end = line.find(['{', ' ']).unwrap_or(line.len());
    let sample = &line[..end];
    ["", "_bucket", "_sum", "_count"].iter().any(|suffix| sample.strip_suffix(suffix) == Some(name))
}

/// Each name of a field in `value`.
fn fields(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(object) => {
            let below = object.values().flat_map(fields);
            object.keys().cloned().chain(below).collect()
        }
        Value::Array(array) => array.iter().flat_map(fields).collect(),
        _ => BTreeSet::new(),
    }
}

/// Each family is described before its samples, each sample has a number, and the end is there.
fn assert_exposition(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("the end is said");
    let mut described = BTreeSet::new();
    for line in body.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let (word, name) = about.split_once(' ').unwrap();
            assert!(["HELP", "TYPE", "UNIT"].contains(&word), "{line}");
            described.insert(name.split(' ').next().unwrap().to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        let sample = series.split('{').next().unwrap();
        let suffixes = ["", "_total", "_bucket", "_sum", "_count", "_info"];
        let families = suffixes.iter().filter_map(|suffix| sample.strip_suffix(suffix));
        assert!(families.into_iter().any(|family| described.contains(family)), "{line}");
    }
}

#[test]
fn other_names_and_methods_are_refused_and_no_answer_holds_a_secret() {
    let served = Served::new(ANYWHERE);
    let agent = served.start();
    let port = port(&agent);
    assert!(agent.wait(json!("all"), SOON)["ok"].is_object());
    for path in ["/", "/status.json", "/metrics", "/healthz", "/readyz"] {
        wait_until("an answer", SOON, || get(port, path).code == 200);
        let answer = get(port, path);
        assert!(!answer.body.contains(SECRET) && !answer.head.contains(SECRET), "{path}");
        let own = format!("127.0.0.1:{port}");
        assert_eq!(ask(port, "GET", path, &own).unwrap().code, 200);
        let rebound = ask(port, "GET", path, &format!("evil.example:{port}")).unwrap();
        assert_eq!((rebound.code, rebound.body.contains("web2")), (403, false), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = ask(port, method, path, &own).unwrap();
            assert_eq!((answer.code, answer.head.to_lowercase().contains("allow: get, head")), (405, true), "{method}");
        }
        let head = ask(port, "HEAD", path, &own).unwrap();
        assert_eq!((head.code, head.body.as_str()), (200, ""));
    }
    assert_eq!(get(port, "/etc/passwd").code, 404);
}

#[test]
fn a_reload_serves_elsewhere_and_under_other_names_or_not_at_all() {
    let served = Served::new(ANYWHERE);
    let agent = served.start();
    let first = port(&agent);
    let proxied = || ask(first, "GET", "/healthz", "status.example.org").map(|answer| answer.code);
    assert_eq!(proxied(), Some(403));
    served.configure(&format!("{ANYWHERE}\nhosts = [\"status.example.org\"]"));
    agent.signal(Signal::HUP);
    wait_until("another name, at the same place", SOON, || proxied() == Some(200));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = (taken.local_addr().unwrap(), taken);
    served.configure(&format!("listen = \"{}\"", taken.0));
    agent.signal(Signal::HUP);
    wait_until("it says that it cannot", SOON, || agent.log().contains("what is served stays as it was"));
    assert_eq!(proxied(), Some(200));
    drop(taken.1);
    agent.signal(Signal::HUP);
    wait_until("another place", SOON, || proxied().is_none());
    assert_eq!(get(taken.0.port(), "/healthz").code, 200);
    served.configure("listen = \"off\"");
    agent.signal(Signal::HUP);
    wait_until("no place", SOON, || ask(taken.0.port(), "GET", "/healthz", "localhost").is_none());
    assert!(agent.stop().success());
}

#[test]
fn a_place_that_is_taken_is_a_fault_of_the_configuration() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let served = Served::new(&format!("listen = \"{at}\""));
    let outcome = Push::command(&served.scratch, &["agent", "--config"]).arg(&served.config).run();
    outcome.assert_code(2);
    outcome.assert_only_line(&["[serve] listen", &at, "in use"]);
}

#[test]
fn a_secondary_is_ready_when_all_is_here_and_not_too_long_ago() {
    let served = Served::new("listen = \"off\"");
    let own = served.scratch.path("web2");
    let config = served.scratch.path("secondary.toml");
    let configure = |serve: &str| {
        let lines = format!("[serve]\n{serve}");
        Config::new("cms").root("www", &own, "").lines(&lines).write_to(&config);
        let text = fs::read_to_string(&config).unwrap();
        let line = text.lines().find(|line| line.starts_with("primary = ")).unwrap();
        fs::write(&config, text.replace(line, "primary = \"elsewhere\"")).unwrap();
    };
    configure(ANYWHERE);
    let agent = Agent::start(&served.scratch, &config, &[]);
    let port = port(&agent);
    assert_eq!(get(port, "/healthz").code, 200);
    let before = get(port, "/readyz");
    assert_eq!((before.code, before.body.as_str()), (503, "root www: nothing complete is here yet\n"));
    let push = || {
        let push = Push::configured(&served.scratch, &served.config);
        push.env("STATE_DIRECTORY", served.scratch.path("primary")).ok()
    };
    push();
    wait_until("it is ready", SOON, || get(port, "/readyz").code == 200);
    let status = agent.status();
    assert_eq!((&status["role"], &status["primary"]), (&json!("secondary"), &json!("elsewhere")));
    assert!(status["roots"][0]["sequence"].as_u64() > Some(0), "{status:#}");
    assert!(get(port, "/metrics").body.contains("rfleet_root_committed_timestamp_seconds{root=\"www\"} "));
    assert!(get(port, "/").body.contains("elsewhere"));
    let command = |words: &[&str]| Push::command(&served.scratch, words).arg("--config").arg(&config).run();
    command(&["status"]).assert_code(0);
    for words in [&["wait"][..], &["host", "pause", "web3"]] {
        let refused = command(words);
        refused.assert_code(1);
        refused.assert_only_line(&["is not the primary"]);
    }
    configure(&format!("{ANYWHERE}\nready_max_age = \"1ms\""));
    agent.signal(Signal::HUP);
    // A question of just then may be cut off.
    let ready = || ask(port, "GET", "/readyz", &format!("localhost:{port}"));
    wait_until("it was too long ago", SOON, || ready().is_some_and(|reply| reply.body.contains("more than")));
}
