//! Hooks of a secondary, as the real program runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rfleet::model::{Position, Sequence, Stamp};
use support::fleet::receiver;
use support::process;
use support::scratch::tool_path;
use support::sshd::client_config;
use support::tree::set_mode;
use support::{Config, Outcome, Primary, Push, Scratch, Sshd, SshdOptions, Tree, assert_same, rfleet_bin, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// A source, and a host with hooks of its own.
struct Place {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
    config: PathBuf,
    sshd: Option<Sshd>,
}

impl Place {
    /// `hooks` makes the lines of `[receive] on_commit`.
    fn new(hooks: impl Fn(&Scratch) -> Vec<String>) -> Self {
        Self::start(hooks, false)
    }

    /// Behind a real sshd, with a forced command.
    fn over_ssh(hooks: impl Fn(&Scratch) -> Vec<String>) -> Self {
        Self::start(hooks, true)
    }

    fn start(hooks: impl Fn(&Scratch) -> Vec<String>, over_ssh: bool) -> Self {
        let scratch = Scratch::new();
        scratch.dir("out");
        let (source, copy) = (scratch.dir("source"), scratch.dir("far").join("www"));
        let lines = format!("[receive]\non_commit = [\n{}\n]", hooks(&scratch).join(",\n"));
        let far = Config::new("cms").root("www", &copy, "").lines(&lines).write(&scratch, "far.toml");
        let receive = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
        let mut config =
            Config::new("cms").root("www", &source, "delete = true\nmax_delete = \"100%\"").hosts(&["box"]);
        let mut sshd = None;
        if over_ssh {
            let options = SshdOptions { forced_command: Some(receive.join(" ")), ..SshdOptions::default() };
            let started = Sshd::start_with(&scratch, "sshd", &options);
            let client = client_config(&scratch, "ssh_config", &[started.client_block("box", "")]);
            let client = client.display().to_string();
            config = config.lines(&format!("[ssh]\nconfig = {client:?}\nreceiver = {:?}\npersist = 0\n", receiver()));
            sshd = Some(started);
        } else {
            config = config.host_command("box", &receive, "www", &copy);
        }
        let config = config.write(&scratch, "rfleet.toml");
        Place { scratch, source, copy, config, sshd }
    }

    fn push(&self) -> Push<'_> {
        Push::configured(&self.scratch, &self.config)
    }

    /// A push that comes over whole.
    fn pushed(&self) -> Outcome {
        let outcome = self.push().ok();
        assert_same(&self.source, &self.copy);
        outcome
    }

    fn write(&self, name: &[u8], text: &str) {
        let path = self.source.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn out(&self, name: &str) -> PathBuf {
        self.scratch.path("out").join(name)
    }

    /// The names that [`recorder`] NAME was given, for each time that it ran; forgotten now.
    fn runs(&self, name: &str) -> Vec<Vec<String>> {
        let mut runs = Vec::new();
        while let Ok(given) = fs::read(self.out(&format!("{name}.{}", runs.len()))) {
            fs::remove_file(self.out(&format!("{name}.{}", runs.len()))).unwrap();
            assert!(given.is_empty() || given.ends_with(b"\0"), "{given:?}");
            let names = given.split(|&byte| byte == 0).filter(|name| !name.is_empty());
            runs.push(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect());
        }
        runs
    }

    /// Processes of hooks and of those that run them. (The environment of hooks has no marker, their arguments do.)
    fn started(&self) -> Vec<u32> {
        process::marked(self.scratch.root())
            .into_iter()
            .filter(|&pid| process::arguments(pid).iter().any(|word| word == b"run-hooks" || word.ends_with(b"/hook")))
            .collect()
    }

    fn assert_nothing_runs(&self) {
        wait_until("the end of all hooks", LONG, || self.started().is_empty());
    }
}

/// A line of `on_commit`.
fn line(pattern: &str, run: &[&str], more: &str) -> String {
    format!("{{ match = {pattern:?}, run = {run:?}{more} }}")
}

/// A hook that keeps what it is given as NAME.0, NAME.1 ...; and its environment.
fn recorder(scratch: &Scratch, name: &str, pattern: &str) -> String {
    let body = format!(
        "n=0; while [ -e \"$1.$n\" ]; do n=$((n + 1)); done; cat > \"$1.tmp\"; env > \"$1.env\"; pwd >> \"$1.env\"; \
         umask >> \"$1.env\"; grep NoNewPrivs /proc/self/status >> \"$1.env\"; mv \"$1.tmp\" \"$1.$n\"; \
         echo 'all is well' >&2 # {name}"
    );
    let script = scratch.script("hook", &body);
    let out = scratch.path("out").join(name);
    line(pattern, &[script.to_str().unwrap(), out.to_str().unwrap()], "")
}

/// A hook that is the script `body`.
fn script(scratch: &Scratch, body: &str, more: &str) -> String {
    let script = scratch.script("hook", body);
    line("*", &[script.to_str().unwrap()], more)
}

#[test]
fn a_hook_runs_once_for_a_commit_that_changes_what_it_is_for() {
    let hooks = |scratch: &Scratch| vec![recorder(scratch, "php", "*.php"), recorder(scratch, "all", "/*")];
    for place in [Place::new(hooks), Place::over_ssh(hooks)] {
        for (name, text) in [("a.php", "1"), ("b.txt", "1"), ("dir/c.php", "1"), ("dir/sub/d.php", "1")] {
            place.write(name.as_bytes(), text);
        }
        let report = place.pushed().report();
        let hooks = &report.host("box").hooks;
        assert_eq!((report.host("box").state.as_str(), hooks.len()), ("done", 2), "{report:#?}");
        for (hook, name) in hooks.iter().zip(["php", "all"]) {
            assert_eq!((hook.ok, hook.detail.as_str()), (true, "exit 0: all is well"));
            assert!(hook.command.ends_with(&format!("out/{name}")) && hook.seconds >= 0.0, "{hook:?}");
        }
        assert_eq!(place.runs("php"), [["a.php", "dir/c.php", "dir/sub/d.php"]]);
        assert_eq!(place.runs("all").len(), 1);
        let env = fs::read_to_string(place.out("php.env")).unwrap();
        for wanted in ["RFLEET_ROOT=www", &format!("RFLEET_ROOT_PATH={}", place.copy.display()), "/", "NoNewPrivs:\t0"]
        {
            assert!(env.lines().any(|line| line == wanted), "no {wanted} in\n{env}");
        }
        let sequence = env.lines().find_map(|line| line.strip_prefix("RFLEET_SEQUENCE=")).unwrap();
        assert!(sequence.parse::<u64>().unwrap() > 0, "{env}");
        let names: Vec<_> = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let known = ["HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHLVL", "USER", "_"];
        assert!(names.iter().all(|name| known.contains(name) || name.starts_with("RFLEET_")), "{env}");
        assert!(!env.contains("TRUNCATED") && env.lines().any(|line| line == "0022"), "{env}");
        let step = |php: &[&str], what: &str| {
            place.pushed();
            let expected: Vec<Vec<&str>> = if php.is_empty() { Vec::new() } else { vec![php.to_vec()] };
            assert_eq!(place.runs("php"), expected, "{what}");
            fs::remove_file(place.out("all.0")).ok();
        };
        step(&[], "nothing");
        place.write(b"b.txt", "22");
        step(&[], "something else");
        set_mode(&place.source.join("a.php"), 0o600);
        step(&["a.php"], "a mode");
        place.write(b"dir/c.php", "other");
        step(&["dir/c.php"], "content");
        fs::rename(place.source.join("a.php"), place.source.join("z.php")).unwrap();
        step(&["a.php", "z.php"], "a rename");
        fs::rename(place.source.join("z.php"), place.source.join("z.txt")).unwrap();
        step(&["z.php"], "a rename to what it is not for");
        fs::rename(place.source.join("dir"), place.source.join("new")).unwrap();
        step(&["dir/c.php", "dir/sub/d.php", "new/c.php", "new/sub/d.php"], "the rename of a directory");
        fs::remove_file(place.source.join("new/c.php")).unwrap();
        step(&["new/c.php"], "a deletion");
        fs::remove_dir_all(place.source.join("new")).unwrap();
        place.write(b"new", "a file");
        step(&["new/sub/d.php"], "a directory that something else replaces");
        std::os::unix::fs::symlink("nowhere", place.source.join("l.php")).unwrap();
        step(&["l.php"], "a link");
        assert!(place.sshd.as_ref().is_none_or(|sshd| sshd.receivers().is_empty()));
        place.assert_nothing_runs();
    }
}

#[test]
fn names_arrive_as_they_are_and_only_on_standard_input() {
    let place = Place::new(|scratch| {
        let script = scratch.script("hook", "cat > \"$1\"; printf '%s\\n' \"$#\" > \"$1.count\"; env > \"$1.env\"");
        vec![line("*", &[script.to_str().unwrap(), scratch.path("out/names").to_str().unwrap()], "")]
    });
    let names: [&[u8]; 5] = [b"$(touch x)", b"--help", b"a\nb", b"\xff\xfe", "\u{202e}é;&".as_bytes()];
    for name in names {
        place.write(name, "x");
    }
    place.pushed();
    let mut expected: Vec<_> = names.to_vec();
    expected.sort_unstable();
    let given = fs::read(place.out("names")).unwrap();
    assert_eq!(given, expected.iter().flat_map(|name| [*name, b"\0"].concat()).collect::<Vec<u8>>());
    assert_eq!(fs::read_to_string(place.out("names.count")).unwrap(), "1\n");
    let env = fs::read(place.out("names.env")).unwrap();
    assert!(!env.windows(5).any(|part| part == b"touch"));
}

#[test]
fn a_hook_that_fails_makes_its_host_partial_and_is_not_run_again_for_the_same() {
    let place = Place::over_ssh(|scratch| {
        let body = "echo first >&2; printf 'broken \\033[31m\\n\\n' >&2; exit 7";
        let failing = scratch.script("failing/hook", body);
        vec![line("*.php", &[failing.to_str().unwrap()], ""), recorder(scratch, "after", "*.php")]
    });
    place.write(b"a.php", "1");
    let outcome = place.push().run();
    outcome.assert_code(3);
    let report = outcome.report();
    let host = report.host("box");
    assert_eq!((host.state.as_str(), host.problems.len(), report.exit_code), ("partial", 0, 3), "{}", outcome.said());
    let told: Vec<_> = host.hooks.iter().map(|hook| (hook.ok, hook.detail.as_str())).collect();
    assert_eq!(told, [(false, "exit 7: broken ?[31m"), (true, "exit 0: all is well")]);
    outcome.assert_line(&["box", "hook", "exit 7: broken ?[31m"]);
    assert_eq!(place.runs("after"), [["a.php"]], "the others run all the same");
    // What it was for is there, and recorded.
    assert_same(&place.source, &place.copy);
    let again = place.pushed().report();
    assert_eq!((again.host("box").state.as_str(), again.host("box").hooks.len()), ("unchanged", 0));
    place.write(b"a.php", "22");
    let outcome = place.push().no_json().run();
    outcome.assert_code(3);
    assert!(
        outcome.stdout.contains("hook failed: ") && outcome.stdout.contains("exit 7: broken ?"),
        "{}",
        outcome.said()
    );
    assert_same(&place.source, &place.copy);
}

#[test]
fn who_waits_for_a_commit_waits_for_its_hooks_and_does_not_take_the_host_for_dead() {
    // Longer than the primary's patience with silence.
    let place = Place::over_ssh(|scratch| vec![script(scratch, "sleep 4; : > \"${0%hook}out/done\"", "")]);
    place.write(b"a", "1");
    let outcome = place.push().args(&["--timeout", "2s"]).ok();
    assert!(place.out("done").exists());
    assert!(outcome.report().host("box").hooks[0].seconds >= 4.0, "{}", outcome.said());
}

/// A hook of each kind that does not do as it should, each with what is told of it.
#[test]
fn whatever_a_hook_does_it_ends_in_time_and_the_next_one_runs() {
    let pid = |name: &str| format!("echo $$ > \"${{0%hook*}}out/{name}\"");
    let bodies = [
        ("deaf", format!("{}; trap '' TERM; while :; do sleep 1; done", pid("deaf")), "timeout after 300ms"),
        (
            "children",
            format!("sleep 1000 & echo $! > \"${{0%hook*}}out/child\"; {}; wait", pid("children")),
            "timeout after 300ms",
        ),
        ("loud", format!("{}; yes lo$(:)ud >&2", pid("loud")), "timeout after 300ms: loud"),
        ("closes", "exec <&-; exit 3".to_owned(), "exit 3"),
        ("ignores", "exit 0".to_owned(), "exit 0"),
        ("daemon", "setsid sleep 1000 & echo $! > \"${0%hook*}out/daemon\"; echo away >&2".to_owned(), "exit 0: away"),
        ("signal", "kill -USR1 $$".to_owned(), "signal 10"),
        ("bytes", "printf 'a\\377b' >&2; exit 1".to_owned(), "exit 1: a\u{fffd}b"),
    ];
    let place = Place::new(|scratch| {
        let mut lines: Vec<String> = bodies
            .iter()
            .map(|(name, body, told)| {
                let script = scratch.script(&format!("hook-{name}"), body);
                let timeout = if told.starts_with("timeout") { "300ms" } else { "60s" };
                line("*", &[script.to_str().unwrap()], &format!(", timeout = {timeout:?}"))
            })
            .collect();
        let plain = scratch.write("plain", "no program");
        lines.push(line("*", &["/nonexistent/program"], ""));
        lines.push(line("*", &["rfleet-no-such-program"], ""));
        lines.push(line("*", &[plain.to_str().unwrap()], ""));
        lines
    });
    // More than a pipe holds.
    for at in 0..1500 {
        place.write(format!("{}{at}", "long".repeat(40)).as_bytes(), "");
    }
    let outcome = place.push().run();
    outcome.assert_code(3);
    let report = outcome.report();
    let hooks: Vec<_> = report.host("box").hooks.iter().map(|hook| hook.detail.as_str()).collect();
    let expected: Vec<_> = bodies.iter().map(|(_, _, told)| *told).collect();
    assert_eq!(hooks[..expected.len()], expected);
    let missing = "cannot be started: No such file or directory (os error 2)";
    assert_eq!(hooks[expected.len()..], [missing, missing, "cannot be started: Permission denied (os error 13)"]);
    let read = |name: &str| fs::read_to_string(place.out(name)).unwrap().trim().parse::<u32>().unwrap();
    for name in ["deaf", "children", "child", "loud"] {
        wait_until("the end of what took too long", LONG, || !process::alive(read(name)));
    }
    // What has a session of its own was meant to stay.
    assert!(process::alive(read("daemon")));
    process::kill(read("daemon"));
    assert_same(&place.source, &place.copy);
    place.assert_nothing_runs();
}

#[test]
fn no_descriptor_but_the_three_reaches_a_hook() {
    let place = Place::over_ssh(|scratch| {
        let out = scratch.path("out/fds");
        // `ls` has the directory open itself.
        vec![line(
            "*",
            &["sh", "-c", &format!("ls /proc/self/fd > {0}; readlink /proc/self/fd/0 >> {0}", out.display())],
            "",
        )]
    });
    place.write(b"a", "1");
    place.pushed();
    let fds = fs::read_to_string(place.out("fds")).unwrap();
    assert!(fds.starts_with("0\n1\n2\n3\npipe:"), "{fds}");
}

/// A receiver with a hook that does not end by itself; returns its place, and itself once the hook runs.
fn with_a_hook_under_way(scratch: &Scratch) -> Primary {
    let hook = scratch.script("hook", "echo $$ > \"${0%hook}pid\"; exec sleep 1000");
    let lines = format!("on_commit = [{}]", line("*", &[hook.to_str().unwrap()], ""));
    let mut primary = Primary::of_fleet_with(scratch, &scratch.dir("root"), &lines);
    primary.begin(0);
    primary.content("f", "1", 1);
    assert!(primary.resend().is_empty());
    primary.send(&rfleet::wire::ToReceiver::Finish { position: position(1), record: true });
    wait_until("the hook", LONG, || fs::read_to_string(scratch.path("pid")).is_ok_and(|pid| pid.ends_with('\n')));
    primary
}

fn position(sequence: u64) -> Position {
    Position { sequence: Sequence(sequence), stamp: Stamp(7) }
}

fn runners(scratch: &Scratch) -> Vec<u32> {
    let marked = process::marked(scratch.root()).into_iter();
    marked.filter(|&pid| process::arguments(pid).iter().any(|word| word == b"run-hooks")).collect()
}

#[test]
fn a_killed_receiver_takes_its_runner_and_its_hook_along() {
    let scratch = Scratch::new();
    let primary = with_a_hook_under_way(&scratch);
    let hook: u32 = fs::read_to_string(scratch.path("pid")).unwrap().trim().parse().unwrap();
    let runner = runners(&scratch);
    assert!(process::alive(hook) && runner.len() == 1, "{runner:?}");
    // The receiver is as confined as without hooks, and the runner is not.
    let privileges = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find(|line| line.starts_with("NoNewPrivs")).unwrap().to_owned()
    };
    assert_eq!((privileges(primary.pid()), privileges(runner[0])), ("NoNewPrivs:\t1".into(), "NoNewPrivs:\t0".into()));
    // What was committed is recorded before hooks run.
    let state = fs::read_to_string(scratch.path("root/.rfleet/state")).unwrap();
    assert!(state.contains("sequence = 1\n"), "{state}");
    primary.kill();
    wait_until("the end of the runner and of the hook", LONG, || !process::alive(hook) && runners(&scratch).is_empty());
}

/// Hooks that did not come to run are run with the next commit, without names.
#[test]
fn a_push_that_came_to_no_end_owes_its_hooks() {
    let scratch = Scratch::new();
    with_a_hook_under_way(&scratch).kill();
    scratch.dir("out");
    let hooks = format!("on_commit = [{}, {}]", recorder(&scratch, "php", "*.php"), recorder(&scratch, "all", "*"));
    let root = scratch.path("root");
    let finished = |name: Option<&str>| {
        let mut primary = Primary::of_fleet_with(&scratch, &root, &hooks);
        primary.begin(0);
        if let Some(name) = name {
            primary.content(name, "1", 1);
            assert!(primary.resend().is_empty());
        }
        let committed = primary.finish(position(2));
        let env = |name: &str| fs::read_to_string(scratch.path(&format!("out/{name}.env"))).unwrap_or_default();
        let truncated = ["php", "all"].map(|name| env(name).contains("RFLEET_TRUNCATED=1\n"));
        (committed.hooks.len(), truncated)
    };
    assert_eq!(finished(None), (2, [true, true]));
    assert_eq!(fs::read(scratch.path("out/all.0")).unwrap(), b"");
    assert_eq!(finished(None).0, 0, "they are owed no more");
    assert_eq!(finished(Some("g")), (1, [true, false]));
    assert_eq!(fs::read(scratch.path("out/all.1")).unwrap(), b"g\0");
    // Cut off before anything changed: nothing is owed; after: everything.
    let cut_off = |with_content: bool| {
        let mut primary = Primary::of_fleet_with(&scratch, &root, &hooks);
        primary.begin(0);
        if with_content {
            primary.content("h.txt", "1", 1);
            assert!(primary.resend().is_empty());
        }
        primary.hang_up();
    };
    cut_off(false);
    assert_eq!(finished(None).0, 0);
    cut_off(true);
    assert_eq!(finished(None), (2, [true, true]));
    assert!(!root.join(".rfleet/hooks").exists());
}

#[test]
fn without_hooks_nothing_is_started_and_with_them_it_ends_with_the_receiver() {
    let scratch = Scratch::new();
    let primary = Primary::of_fleet_with(&scratch, &scratch.dir("root"), "");
    assert!(process::descendants(primary.pid()).is_empty());
    drop(primary);
    let hooks = format!("on_commit = [{}]", line("*", &["true"], ""));
    let mut primary = Primary::of_fleet_with(&scratch, &scratch.dir("root"), &hooks);
    let runner = process::descendants(primary.pid());
    assert_eq!(runner.len(), 1);
    primary.begin(0);
    primary.finish(position(1));
    assert!(!process::alive(runner[0]), "the receiver waits for it");
}

#[test]
fn a_runner_that_is_gone_is_a_failure_of_its_hooks_and_they_are_owed() {
    let scratch = Scratch::new();
    let hooks = format!("on_commit = [{}, {}]", line("*", &["true"], ""), line("f", &["true"], ""));
    let start = || Primary::of_fleet_with(&scratch, &scratch.dir("root"), &hooks);
    let mut primary = start();
    process::kill(runners(&scratch)[0]);
    primary.begin(0);
    primary.content("f", "1", 1);
    assert!(primary.resend().is_empty());
    let committed = primary.finish(position(1));
    let told: Vec<_> = committed.hooks.iter().map(|hook| (hook.ok, hook.detail.as_str())).collect();
    assert_eq!(told, [(false, "the process that runs hooks is gone"); 2]);
    assert_eq!(committed.position, position(1));
    let mut primary = start();
    primary.begin(0);
    assert!(primary.finish(position(1)).hooks.iter().all(|hook| hook.ok));
}

/// Whoever starts a runner himself gets hooks of its configuration, and no other program.
#[test]
fn a_runner_does_nothing_but_hooks_of_its_configuration() {
    let place = Place::new(|scratch| vec![recorder(scratch, "all", "*")]);
    let far = place.scratch.path("far.toml");
    let planted = place.scratch.path("planted");
    let orders: [Vec<u8>; 4] = [
        Vec::new(),
        format!("touch {}\n", planted.display()).into_bytes(),
        b"\x00".repeat(100),
        // A frame: hook 9 of the root `www`.
        [&[9, 0, 0, 0, 0][..], &[0, 9, 3], b"www", &[1, 0, 0]].concat(),
    ];
    for bytes in orders {
        let mut command = Command::new(rfleet_bin());
        place.scratch.hermetic(&mut command);
        command.arg("run-hooks").arg("--config").arg(&far);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&bytes).unwrap();
        drop(input);
        child.wait_with_output().unwrap();
        assert!(!planted.exists() && place.runs("all").is_empty());
    }
    let mut help = Command::new(rfleet_bin());
    place.scratch.hermetic(&mut help);
    let help = help.arg("--help").output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("run-hooks"));
}

/// What a receiver is told cannot make it execute anything: all that is executed is executed by the runner.
#[test]
fn a_receiver_with_hooks_confines_itself_and_executes_nothing() {
    let scratch = Scratch::new();
    let (source, root, log) = (scratch.dir("source"), scratch.dir("root"), scratch.path("strace.log"));
    Tree::new().file("f", "x").create(&source);
    scratch.dir("out");
    let lines = format!("[receive]\non_commit = [{}]", recorder(&scratch, "all", "*"));
    let far = Config::new("cms").root("www", &root, "").lines(&lines).write(&scratch, "far.toml");
    let calls = ["-e", "trace=landlock_restrict_self,execve"];
    let strace = ["strace", "-f", "-qq", "-o", log.to_str().unwrap()];
    let receive = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
    let command = [&strace[..], &calls, &receive].concat();
    let config = Config::new("cms").root("www", &source, "").host_command("box", &command, "www", &root);
    Push::configured(&scratch, &config.write(&scratch, "rfleet.toml")).env("PATH", tool_path()).ok();
    let log = fs::read_to_string(log).unwrap();
    let pid = |line: &str| line.split(' ').next().unwrap().to_owned();
    let receiver = pid(log.lines().next().unwrap());
    let of_receiver: Vec<_> = log.lines().filter(|line| pid(line) == receiver).collect();
    assert!(
        of_receiver[0].contains("execve(") && of_receiver[1..].iter().all(|line| !line.contains("execve(")),
        "{log}"
    );
    assert_eq!(of_receiver.iter().filter(|line| line.contains("landlock_restrict_self(")).count(), 1, "{log}");
    assert_eq!(log.matches("landlock_restrict_self(").count(), 1, "no other is confined:\n{log}");
    assert!(scratch.path("out/all.0").exists(), "{log}");
}

/// A program that only may be executed, in a directory that a primary may write, is no hook either.
#[test]
fn what_is_pushed_is_not_run() {
    let place = Place::new(|scratch| vec![line("*", &["pushed-program"], ""), recorder(scratch, "all", "*")]);
    place.write(b"pushed-program", "#!/bin/sh\n: > \"$RFLEET_ROOT_PATH/../ran\"\n");
    fs::set_permissions(place.source.join("pushed-program"), fs::Permissions::from_mode(0o755)).unwrap();
    place.push().run().assert_code(3);
    assert!(!Path::new(&place.copy).join("../ran").exists());
    assert_eq!(place.runs("all").len(), 1);
}
