//! `rfleet status`, `host` and `wait`: with an agent, with a stub in its place, and where none runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rfleet::control::{Answer, HostDone, Refusal, Request, WaitDone, WaitHosts, WaitPath, from_line, to_line};
use rfleet::status::{
    AgentState, AgentStatus, FleetStatus, HostState, HostStatus, Role, RootState, RootStatus, SCHEMA,
};
use support::agent::SOON;
use support::{Agent, Config, Outcome, Push, Scratch, Tree, assert_same, process, rfleet_bin, wait_until};

/// Two hosts behind commands; the receiver of `gate` waits until the file `go` is there, and fails where `broken` is.
struct Two {
    scratch: Scratch,
    config: PathBuf,
    gate: PathBuf,
}

impl Two {
    fn new() -> Self {
        let scratch = Scratch::new();
        Tree::new().file("a", "x").file("d/b", "y").create(&scratch.path("source"));
        let bin = rfleet_bin().to_str().unwrap();
        let (go, broken, ended) = (scratch.path("go"), scratch.path("broken"), scratch.root().display());
        let body = format!(
            "[ -e {broken:?} ] && exit 1; while [ ! -e {go:?} ] && [ -d {ended} ]; do sleep 0.02; done; \
             exec {bin} receive \"$@\""
        );
        let gate = scratch.script("gate", &body);
        let config = Config::new("cms")
            .root("www", &scratch.path("source"), "")
            .hosts(&["gate", "box"])
            .host_command("gate", &[gate.to_str().unwrap()], "www", &scratch.path("copy-gate"))
            .host_command("box", &[bin, "receive"], "www", &scratch.path("copy-box"))
            .lines("[push]\ninterval = \"1h\"\n[serve]\nlisten = \"off\"")
            .write(&scratch, "rfleet.toml");
        scratch.write("go", "");
        Self { scratch, config, gate }
    }

    fn push(&self) -> Push<'_> {
        Push::configured(&self.scratch, &self.config)
    }

    fn command(&self, words: &[&str]) -> Outcome {
        Push::command(&self.scratch, words).arg("--config").arg(&self.config).run()
    }

    /// The document, and the exit code.
    fn status(&self, words: &[&str]) -> (FleetStatus, Option<i32>) {
        let outcome = self.command(&[&["status", "--json"], words].concat());
        let status = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.said()));
        (status, outcome.code())
    }

    fn copy(&self, host: &str) -> PathBuf {
        self.scratch.path(&format!("copy-{host}"))
    }
}

/// `config` with another host as the primary.
fn elsewhere(scratch: &Scratch, config: &Path) -> PathBuf {
    let text = fs::read_to_string(config).unwrap();
    let line = text.lines().find(|line| line.starts_with("primary = ")).unwrap();
    scratch.write("elsewhere.toml", text.replace(line, "primary = \"elsewhere\""))
}

fn host<'s>(status: &'s FleetStatus, name: &str) -> &'s HostStatus {
    status.roots[0].hosts.iter().find(|host| host.name == name).expect("the host is there")
}

#[test]
fn where_no_agent_runs_the_status_is_what_the_last_push_left() {
    let two = Two::new();
    let before = two.command(&["status"]);
    before.assert_code(1);
    assert!(before.stderr.contains("nothing is known"), "{}", before.said());
    two.push().ok();
    let (status, code) = two.status(&[]);
    assert_eq!((code, status.schema, status.role), (Some(0), SCHEMA, Role::Primary));
    assert_eq!((status.fleet.as_str(), status.agent.as_ref()), ("cms", None));
    let root = &status.roots[0];
    assert_eq!((root.name.as_str(), root.state, root.entries), ("www", RootState::Ok, 3));
    assert!(root.sequence > 0);
    for name in ["gate", "box"] {
        let host = host(&status, name);
        assert_eq!((host.state, host.pending, host.sequence), (HostState::Current, Some(0), root.sequence), "{name}");
        assert!(host.success_ms.is_some_and(|at| at <= status.time_ms), "{name}");
    }
    let text = two.command(&["status"]);
    text.assert_code(0);
    for words in ["no agent runs here", "HOST", "box", "current"] {
        assert!(text.stdout.contains(words), "{}", text.said());
    }
    // One host fails, and the other goes on.
    two.scratch.write("broken", "");
    two.scratch.write("source/c", "z");
    two.push().run().assert_code(3);
    let (status, code) = two.status(&[]);
    assert_eq!(code, Some(3));
    assert_eq!(host(&status, "box").state, HostState::Current);
    let gate = host(&status, "gate");
    assert_eq!((gate.state, gate.failures), (HostState::Failed, 0), "it was reached");
    assert!(gate.pending > Some(0) && gate.lag_s > 0.0, "{gate:?}");
    assert!(gate.error.as_ref().is_some_and(|error| error.contains("did not bring everything")), "{gate:?}");
    // It cannot even be reached.
    fs::remove_file(&two.gate).unwrap();
    two.push().run().assert_code(3);
    let (status, _) = two.status(&[]);
    let gate = host(&status, "gate");
    assert_eq!((gate.state, gate.failures), (HostState::Failed, 1));
    assert!(gate.error.is_some() && gate.next_try_ms.is_some(), "{gate:?}");
    // What is asked for alone is judged alone.
    let (only, code) = two.status(&["--host", "box", "--root", "www"]);
    assert_eq!((code, only.roots[0].hosts.len()), (Some(0), 1));
    two.command(&["status", "--host", "nobody"]).assert_code(2);
    two.command(&["status", "--root", "nothing"]).assert_code(2);
}

#[test]
fn a_push_that_is_going_on_keeps_no_one_from_looking() {
    let two = Two::new();
    two.push().ok();
    fs::remove_file(two.scratch.path("go")).unwrap();
    two.scratch.write("source/c", "z");
    let running = two.push().start();
    let lock = two.scratch.path("state/cms.lock");
    let pid = format!("pid = {}\n", running.pid());
    wait_until("the push", Duration::from_secs(20), || fs::read_to_string(&lock).is_ok_and(|text| text.contains(&pid)));
    wait_until("the change in the record", Duration::from_secs(20), || {
        host(&two.status(&[]).0, "gate").state == HostState::Failed
    });
    let reset = two.command(&["host", "reset", "gate"]);
    reset.assert_code(1);
    assert!(reset.stderr.contains("rfleet push") && reset.stderr.contains("nothing was done"), "{}", reset.said());
    two.scratch.write("go", "");
    running.finish().assert_code(0);
    assert_eq!(two.status(&[]).1, Some(0));
}

#[test]
fn on_a_secondary_the_status_is_what_has_arrived() {
    let two = Two::new();
    two.push().ok();
    let config = |fleet: &str| {
        elsewhere(
            &two.scratch,
            &Config::new(fleet).root("www", &two.copy("box"), "").write(&two.scratch, "secondary.toml"),
        )
    };
    let status = |config: &Path| {
        let words = ["status", "--json", "--config"];
        let outcome =
            Push::command(&two.scratch, &words).arg(config).env("STATE_DIRECTORY", two.scratch.path("none")).run();
        let status: FleetStatus =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.said()));
        (status, outcome.code())
    };
    let (found, code) = status(&config("cms"));
    assert_eq!((code, found.role, found.primary.as_deref()), (Some(0), Role::Secondary, Some("elsewhere")));
    let root = &found.roots[0];
    assert_eq!((root.state, root.hosts.len()), (RootState::Ok, 0));
    assert!(root.sequence > 0 && root.committed_ms.is_some_and(|at| at <= found.time_ms), "{root:?}");
    assert!(!two.scratch.path("none").exists(), "who looks makes nothing");
    let (other, code) = status(&config("other"));
    assert_eq!((code, other.roots[0].state), (Some(1), RootState::Unknown));
    assert!(other.roots[0].notes[0].contains("fleet cms"), "{:?}", other.roots[0].notes);
    let record = two.copy("box").join(".rfleet/state");
    fs::write(&record, "nonsense").unwrap();
    let (damaged, code) = status(&config("cms"));
    assert_eq!(code, Some(1));
    assert!(damaged.roots[0].notes[0].contains("damaged"), "{:?}", damaged.roots[0].notes);
}

#[test]
fn a_host_that_is_paused_gets_nothing_until_it_is_resumed() {
    let two = Two::new();
    two.push().ok();
    two.command(&["host", "pause", "box"]).assert_code(0);
    let again = two.command(&["host", "pause", "box"]);
    again.assert_code(0);
    assert!(again.stdout.contains("already"), "{}", again.said());
    two.scratch.write("source/c", "z");
    for words in [&[][..], &["--full"], &["--host", "box"]] {
        let outcome = two.push().args(words).run();
        outcome.assert_code(3);
        let error = outcome.report().host("box").error.clone().unwrap();
        assert!(error.starts_with("paused ") && error.contains("`rfleet host resume box`"), "{error}");
        assert!(!two.copy("box").join("c").exists());
    }
    assert_same(&two.scratch.path("source"), &two.copy("gate"));
    let (status, code) = two.status(&[]);
    assert_eq!((code, host(&status, "box").state), (Some(3), HostState::Paused));
    two.command(&["host", "resume", "box"]).assert_code(0);
    two.push().ok();
    assert_same(&two.scratch.path("source"), &two.copy("box"));
    assert_eq!(two.status(&[]).1, Some(0));
    two.command(&["host", "pause", "nobody"]).assert_code(2);
}

#[test]
fn a_list_of_paused_hosts_that_cannot_be_read_stops_a_push() {
    let two = Two::new();
    two.scratch.write("state/cms.paused.toml", "what?");
    for outcome in [two.push().no_json().run(), two.command(&["host", "resume", "box"]), two.command(&["status"])] {
        outcome.assert_code(1);
        outcome.assert_only_line(&["cms.paused.toml", "cannot be told", "mend the file or remove it"]);
    }
    assert!(!two.copy("box").exists() && !two.copy("gate").exists());
}

#[test]
fn a_host_that_is_reset_is_compared_in_full() {
    let two = Two::new();
    two.push().ok();
    fs::remove_file(two.copy("box").join("a")).unwrap();
    two.push().ok();
    assert!(!two.copy("box").join("a").exists(), "nothing changed here, so nothing is looked at there");
    two.command(&["host", "reset", "box"]).assert_code(0);
    let (status, code) = two.status(&[]);
    assert_eq!((code, host(&status, "box").state, host(&status, "box").pending), (Some(3), HostState::Unknown, None));
    two.push().ok();
    assert_same(&two.scratch.path("source"), &two.copy("box"));
    let never = two.command(&["host", "reset", "stranger"]);
    never.assert_code(0);
    assert!(never.stdout.contains("nothing was known"), "{}", never.said());
}

#[test]
fn a_host_is_held_where_the_primary_is() {
    let two = Two::new();
    let config = elsewhere(&two.scratch, &two.config);
    let outcome = Push::command(&two.scratch, &["host", "pause", "box", "--config"]).arg(&config).run();
    outcome.assert_code(1);
    assert!(outcome.stderr.contains("is not the primary"), "{}", outcome.said());
}

/// Something in the agent's place that says what it is told to, to whoever asks.
struct StubAgent {
    asked: Arc<Mutex<Vec<Request>>>,
}

impl StubAgent {
    fn start(scratch: &Scratch, answer: impl Fn(&Request) -> Vec<u8> + Send + 'static) -> Self {
        let listener = UnixListener::bind(scratch.path("state/agent.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let Ok(line) = line else { break };
                    let request: Request = from_line(line.as_bytes()).unwrap();
                    let answer = answer(&request);
                    heard.lock().unwrap().push(request);
                    if stream.write_all(&answer).is_err() {
                        break;
                    }
                }
            }
        });
        Self { asked }
    }

    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn running() -> FleetStatus {
    let host = HostStatus { name: "box".into(), state: HostState::Current, pending: Some(0), ..HostStatus::default() };
    let root = RootStatus {
        name: "www".into(),
        state: RootState::Ok,
        sequence: 9,
        hosts: vec![host],
        ..RootStatus::default()
    };
    let agent = AgentStatus { state: AgentState::Ok, ..AgentStatus::default() };
    FleetStatus {
        fleet: "cms".into(),
        role: Role::Primary,
        agent: Some(agent),
        roots: vec![root],
        ..FleetStatus::default()
    }
}

#[test]
fn a_stub_agent_is_asked_for_the_status_and_what_it_says_decides() {
    let two = Two::new();
    let _stub = StubAgent::start(&two.scratch, |_| to_line(&Answer::new(Ok(running()))).unwrap());
    assert_eq!(two.status(&[]), (running(), Some(0)));
    let text = two.command(&["status"]);
    assert!(text.stdout.contains("agent ok") && text.stdout.contains("box"), "{}", text.said());
    let degraded = Two::new();
    let mut status = running();
    status.agent.as_mut().unwrap().state = AgentState::Degraded;
    let said = status.clone();
    let _stub = StubAgent::start(&degraded.scratch, move |_| to_line(&Answer::new(Ok(said.clone()))).unwrap());
    assert_eq!(degraded.status(&[]), (status, Some(3)));
    let silly = Two::new();
    let _stub = StubAgent::start(&silly.scratch, |_| b"{\"error\":\"not \\u001b[2Jnow\"}\n".to_vec());
    let outcome = silly.command(&["status"]);
    outcome.assert_code(1);
    outcome.assert_only_line(&["not \\u{1b}[2Jnow"]);
}

#[test]
fn a_stub_agent_is_what_holds_hosts_where_one_runs() {
    let two = Two::new();
    let stub = StubAgent::start(&two.scratch, |request| match request {
        Request::Host { name, .. } if name == "box" => to_line(&Answer::new(Ok(HostDone { changed: true }))).unwrap(),
        _ => b"{\"error\":\"no host is called so\"}\n".to_vec(),
    });
    for action in ["pause", "resume", "reset"] {
        two.command(&["host", action, "box"]).assert_code(0);
        let asked = serde_json::to_value(stub.asked()).unwrap();
        assert_eq!(asked, serde_json::json!([{ "op": "host", "action": action, "name": "box" }]));
    }
    two.command(&["host", "pause", "other"]).assert_code(1);
    assert!(!two.scratch.path("state/cms.paused.toml").exists(), "that is the agent's to write");
}

#[test]
fn waiting_asks_a_stub_agent_and_names_who_is_late() {
    let two = Two::new();
    let none = two.command(&["wait"]);
    none.assert_code(1);
    none.assert_only_line(&["no agent runs here", "rfleet agent"]);
    let stub = StubAgent::start(&two.scratch, |request| match request {
        Request::Wait { timeout_ms: 1, .. } => {
            let late = vec!["gate".to_owned(), "box".to_owned()];
            to_line(&Answer::<WaitDone>::new(Err(Refusal { error: "not in time".into(), late }))).unwrap()
        }
        Request::Wait { hosts: WaitHosts::AtLeast(9), .. } => b"{\"error\":\"there are 2 hosts\"}\n".to_vec(),
        _ => to_line(&Answer::new(Ok(WaitDone { hosts: vec!["box".into()] }))).unwrap(),
    });
    let source = two.scratch.path("source");
    let done = two.command(&["wait", source.join("d/b").to_str().unwrap(), "--hosts", "1", "--timeout", "5s"]);
    done.assert_code(0);
    assert_eq!(done.stdout, "box\n");
    let asked = serde_json::to_value(stub.asked()).unwrap();
    let paths = serde_json::json!([{ "root": "www", "path": "d/b" }]);
    assert_eq!(asked, serde_json::json!([{ "op": "wait", "paths": paths, "hosts": 1, "timeout_ms": 5000 }]));
    two.command(&["wait"]).assert_code(0);
    let everything = Request::Wait { paths: Vec::<WaitPath>::new(), hosts: WaitHosts::All, timeout_ms: 30_000 };
    assert_eq!(stub.asked(), [everything]);
    let late = two.command(&["wait", "--timeout", "1ms"]);
    late.assert_code(3);
    late.assert_only_line(&["not in time", "late: gate, box"]);
    two.command(&["wait", "--hosts", "9"]).assert_code(1);
    stub.asked();
    for words in [&["--mirror"][..], &["--hosts", "0"], &["--timeout", "x"], &["/etc/passwd"]] {
        two.command(&[&["wait"], words].concat()).assert_code(2);
    }
    assert!(stub.asked().is_empty(), "usage is looked at first");
}

#[test]
fn watching_a_stub_agent_repeats_until_nobody_reads() {
    let two = Two::new();
    let _stub = StubAgent::start(&two.scratch, |_| to_line(&Answer::new(Ok(running()))).unwrap());
    let mut command = Command::new(rfleet_bin());
    two.scratch.hermetic(&mut command);
    command.args(["status", "--watch", "--json", "--config"]).arg(&two.config).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let status: FleetStatus = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(status, running());
    }
    drop(lines);
    wait_until("its end", Duration::from_secs(60), || child.try_wait().unwrap().is_some_and(|status| status.success()));
}

impl Two {
    fn agent(&self) -> Agent {
        Agent::start(&self.scratch, &self.config, &[])
    }

    /// Waits until all hosts have everything, as an operator would.
    fn wait(&self) {
        let outcome = self.command(&["wait"]);
        outcome.assert_code(0);
        assert_eq!(outcome.stdout, "gate\nbox\n");
    }

    /// Ends what is open to `gate`; where `broken` is, nothing else is had there.
    fn break_gate(&self, agent: &Agent) {
        self.scratch.write("broken", "");
        let of_gate = |pid: &u32| process::arguments(*pid).iter().any(|word| word.ends_with(b"copy-gate"));
        process::descendants(agent.pid()).into_iter().filter(of_gate).for_each(process::kill);
    }
}

#[test]
fn an_agent_says_how_the_fleet_is_and_what_it_left_says_so_afterwards() {
    let two = Two::new();
    let agent = two.agent();
    two.wait();
    assert_same(&two.scratch.path("source"), &two.copy("box"));
    wait_until("all is well", SOON, || two.status(&[]).1 == Some(0));
    let (status, _) = two.status(&[]);
    assert_eq!(status.agent.as_ref().map(|agent| agent.state), Some(AgentState::Ok));
    assert_eq!((status.schema, status.role, host(&status, "gate").state), (SCHEMA, Role::Primary, HostState::Current));
    let text = two.command(&["status"]);
    for words in ["agent ok", "watched", "gate", "box", "current"] {
        assert!(text.stdout.contains(words), "{}", text.said());
    }
    two.break_gate(&agent);
    two.scratch.write("source/c", "z");
    let one = two.command(&["wait", "--hosts", "1"]);
    one.assert_code(0);
    assert_eq!(one.stdout, "box\n");
    wait_until("the failure", SOON, || host(&two.status(&[]).0, "gate").state == HostState::Failed);
    let (status, code) = two.status(&[]);
    let gate = host(&status, "gate");
    assert!(code == Some(3) && gate.error.is_some() && gate.failures > 0 && gate.lag_s > 0.0, "{gate:?}");
    assert_eq!(host(&status, "box").state, HostState::Current);
    let late = two.command(&["wait", "--timeout", "200ms"]);
    late.assert_code(3);
    late.assert_only_line(&["not everywhere in time", "late: gate"]);
    let text = two.command(&["status"]);
    assert!(text.stdout.contains("error: ") && text.stdout.contains("next try"), "{}", text.said());
    fs::remove_file(two.scratch.path("broken")).unwrap();
    two.wait();
    assert!(agent.stop().success());
    let after = two.command(&["status"]);
    after.assert_code(0);
    assert!(after.stdout.contains("no agent runs here") && after.stdout.contains("current"), "{}", after.said());
    two.command(&["wait"]).assert_only_line(&["no agent runs here"]);
}

#[test]
fn a_host_that_an_agent_holds_is_held_by_the_next_one_too() {
    let two = Two::new();
    let agent = two.agent();
    two.wait();
    two.command(&["host", "pause", "box"]).assert_code(0);
    let again = two.command(&["host", "pause", "box"]);
    assert!(again.stdout.contains("already"), "{}", again.said());
    assert!(agent.stop().success());
    two.scratch.write("source/c", "z");
    let agent = two.agent();
    let one = two.command(&["wait", "--hosts", "1"]);
    one.assert_code(0);
    assert_eq!(one.stdout, "gate\n");
    let (status, code) = two.status(&[]);
    assert_eq!((code, host(&status, "box").state), (Some(3), HostState::Paused));
    let late = two.command(&["wait", "--timeout", "200ms"]);
    late.assert_code(3);
    late.assert_only_line(&["late: box"]);
    assert!(!two.copy("box").join("c").exists());
    two.command(&["host", "resume", "box"]).assert_code(0);
    two.wait();
    assert_same(&two.scratch.path("source"), &two.copy("box"));
    for (words, code) in
        [(["wait", "--hosts", "3"], 1), (["host", "pause", "nobody"], 1), (["host", "reset", "nobody"], 1)]
    {
        two.command(&words).assert_code(code);
    }
    assert!(agent.stop().success());
    assert!(!two.scratch.path("state/cms.paused.toml").exists());
}

#[test]
fn a_host_that_is_reset_is_compared_by_the_agent_at_once() {
    let two = Two::new();
    let _agent = two.agent();
    two.wait();
    fs::remove_file(two.copy("box").join("a")).unwrap();
    two.scratch.write("source/c", "z");
    two.wait();
    assert!(!two.copy("box").join("a").exists(), "what was not changed here is not looked at there");
    two.command(&["host", "reset", "box"]).assert_code(0);
    wait_until("what was deleted there", SOON, || two.copy("box").join("a").exists());
    two.wait();
    assert_same(&two.scratch.path("source"), &two.copy("box"));
}
