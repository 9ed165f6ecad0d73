//! Stories of what an agent logs: a line for each cycle that did something, none for others, and no name that breaks one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::agent::SOON;
use support::{Agent, Config, Scratch, rfleet_bin, wait_until};

/// A name that would clear a terminal and begin a line that looks like another event.
const NAME: &[u8] = b"bad\x1b[2J\nERROR forged\xff";

/// `NAME` as it is shown.
const SHOWN: &str = r"bad\u{1b}[2J\nERROR forged\xff";

/// An owner that is nobody's in a user namespace of its own, so that not even root may read there what is this one's.
const STRANGER: u32 = 54_321;

fn configured(scratch: &Scratch, lines: &str) -> PathBuf {
    let source = scratch.dir("src");
    fs::write(source.join("anchor"), "here").unwrap();
    Config::new("cms")
        .root("www", &source, "")
        .hosts(&["web2"])
        .host_command("web2", &[rfleet_bin().to_str().unwrap(), "receive"], "www", &scratch.path("web2"))
        .lines(&format!("[push]\n{lines}\n[serve]\nlisten = \"off\""))
        .write(scratch, "rfleet.toml")
}

/// A file of that name that cannot be read.
fn unreadable(scratch: &Scratch) {
    let path = scratch.path("src").join(OsStr::from_bytes(NAME));
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if support::scratch::is_root() {
        chown(&path, Some(STRANGER), None).unwrap();
    }
}

const ALONE: [&str; 3] = ["unshare", "--user", "--map-root-user"];

#[test]
fn a_name_breaks_no_line_and_moves_no_cursor() {
    let scratch = Scratch::new();
    let config = configured(&scratch, "interval = \"1h\"");
    unreadable(&scratch);
    let agent = Agent::start_as(&scratch, &config, &[], &ALONE);
    wait_until("the file is told of", SOON, || agent.log().contains("bad"));
    agent.wait(json!("all"), Duration::from_secs(1));
    let log = agent.log();
    assert!(log.contains(SHOWN), "{log}");
    assert!(log.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{log:?}");
    for line in log.lines() {
        assert!(["INFO ", "WARN ", "ERROR "].iter().any(|level| line.trim_start().starts_with(level)), "{line}");
        assert!(!line.trim_start().starts_with("ERROR forged"), "{line}");
    }
}

#[test]
fn each_event_is_a_document_in_json() {
    let scratch = Scratch::new();
    let config = configured(&scratch, "interval = \"1h\"");
    unreadable(&scratch);
    let agent = Agent::start_as(&scratch, &config, &["--log-format", "json"], &ALONE);
    wait_until("the file is told of", SOON, || agent.log().contains("bad"));
    agent.wait(json!("all"), Duration::from_secs(1));
    let log = agent.log();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(events.iter().all(|event| event["level"].is_string() && event["timestamp"].is_string()), "{log}");
    let of_root = |event: &&Value| event["fields"]["root"] == "www";
    assert!(events.iter().filter(of_root).any(|event| event["fields"]["message"].to_string().contains("bad")), "{log}");
}

#[test]
fn a_cycle_that_did_nothing_is_not_told() {
    let scratch = Scratch::new();
    let config = configured(&scratch, "events = false\ninterval = \"100ms\"");
    let agent = Agent::start(&scratch, &config, &[]);
    agent.wait(json!("all"), SOON);
    let pushed = || agent.log().lines().filter(|line| line.contains("pushed")).count();
    wait_until("the first cycle is told", SOON, || pushed() == 1);
    let scans = || agent.root()["scans"].as_u64().unwrap();
    let before = (scans(), agent.log());
    wait_until("scans that find nothing", SOON, || scans() > before.0 + 5);
    assert_eq!(agent.log(), before.1);
    scratch.write("src/more", "x");
    agent.wait(json!("all"), SOON);
    wait_until("a line for what changed", SOON, || pushed() == 2);
}

#[test]
fn what_lasts_is_told_once_in_a_while_and_not_tried_without_end() {
    let scratch = Scratch::new();
    let config = configured(&scratch, "interval = \"1h\"");
    unreadable(&scratch);
    let agent = Agent::start_as(&scratch, &config, &[], &ALONE);
    wait_until("the file is told of", SOON, || agent.log().contains("bad"));
    let before = agent.host("web2")["commits"].as_u64().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let after = agent.host("web2")["commits"].as_u64().unwrap();
    assert!(after - before <= 4, "{} times in three seconds: {}", after - before, agent.log());
    scratch.write("src/more", "x");
    wait_until("what is new is there all the same", SOON, || scratch.path("web2/more").exists());
    let stopped = std::time::Instant::now();
    assert!(agent.stop().success());
    assert!(stopped.elapsed() < Duration::from_secs(25), "what cannot be sent is not waited for at the end");
}

/// The fields of an event as the journal takes them: `NAME=value` on a line; or a name on a line, the length in eight
/// bytes, the value, a line's end.
fn fields(mut event: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = BTreeMap::new();
    while let Some(end) = event.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (text(&event[..end]), &event[end + 1..]);
        event = match line.split_once('=') {
            Some((name, value)) => {
                fields.insert(name.to_owned(), value.to_owned());
                rest
            }
            None => {
                let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
                fields.insert(line, text(&rest[8..8 + length]));
                &rest[8 + length + 1..]
            }
        };
    }
    fields
}

#[test]
fn the_journal_gets_events_of_its_own_kind_where_standard_error_leads_to_it() {
    let scratch = Scratch::new();
    let config = configured(&scratch, "interval = \"1h\"");
    unreadable(&scratch);
    let socket = scratch.dir("journal").join("socket");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_read_timeout(Some(SOON)).unwrap();
    // Where the journal listens, in a place of its own.
    let place = format!(
        "mount -t tmpfs tmpfs /run && mkdir /run/systemd && ln -s {} /run/systemd/journal && \
         export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && exec \"$0\" \"$@\"",
        socket.parent().unwrap().display()
    );
    let wrapper = [&ALONE[..], &["--mount", "sh", "-c", &place]].concat();
    let agent = Agent::start_as(&scratch, &config, &[], &wrapper);
    let (mut event, mut buffer) = (BTreeMap::new(), vec![0; 64 << 10]);
    while !event.get("MESSAGE").is_some_and(|message: &String| message.contains("bad")) {
        let bytes = journal.recv(&mut buffer).expect("an event");
        event = fields(&buffer[..bytes]);
    }
    assert!(event["MESSAGE"].contains(SHOWN), "{event:?}");
    assert_eq!((event["PRIORITY"].as_str(), event["SYSLOG_IDENTIFIER"].as_str()), ("4", "rfleet"));
    assert_eq!(event["F_ROOT"], "www");
    assert_eq!(agent.log(), "", "nothing is told twice");
    // Nobody reads there any more.
    drop(agent);
    // A variable that another process left says nothing of this one's standard error.
    let other = [&ALONE[..], &["env", "JOURNAL_STREAM=1:1"]].concat();
    let agent = Agent::start_as(&scratch, &config, &[], &other);
    wait_until("text", SOON, || agent.log().contains(SHOWN));
}

#[test]
fn where_the_journal_cannot_be_spoken_to_there_is_text() {
    let scratch = Scratch::new();
    let config = configured(&scratch, "interval = \"1h\"");
    let place =
        "mount -t tmpfs tmpfs /run && export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && exec \"$0\" \"$@\"";
    let wrapper = [&ALONE[..], &["--mount", "sh", "-c", place]].concat();
    let agent = Agent::start_as(&scratch, &config, &[], &wrapper);
    agent.wait(json!("all"), SOON);
    wait_until("a line", SOON, || agent.log().contains("pushed"));
}
