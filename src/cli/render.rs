//! What a push or a verification came to: a summary for people, a document for machines.
//!
//! Names, causes and notes can come from a tree that others write, or from a peer. People get them
//! with everything escaped that could move a cursor or begin a line; machines get them whole.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::{HumanBytes, HumanCount};
use serde_json::{Map, Value, json};

pub use crate::model::shown;
use crate::model::{Problem, ProblemKind};
use crate::plan::guard::GuardRefusal;
use crate::push::{HookReport, HostReport, HostState, RootReport, Skipped};

/// Problems that are shown of each root and each host; the rest is counted.
const SHOWN_PROBLEMS: usize = 20;

/// Spaces between two columns.
const GAP: usize = 2;

/// `path` for people, as [`shown`]; bytes that are not UTF-8 as `\xff`.
pub fn shown_path(path: &Path) -> String {
    let mut out = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        out.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// The summary for people, several lines, each with its end. `command` is `push` or `verify`, `seconds` the
/// time of the whole; `dry_run` says that nothing was to be changed, as by a verification that only compares.
/// With `verbose` it names what was skipped, and hooks that did not fail. Refusals of guards are not in it: they are said on standard error.
pub fn summary(command: &str, reports: &[RootReport], seconds: f64, dry_run: bool, verbose: bool) -> String {
    let wording = Wording { verify: command == "verify", dry_run, verbose };
    let mut out = String::new();
    for report in reports {
        root(&mut out, report, wording);
    }
    out.push_str(&total(reports, seconds, wording));
    out.push('\n');
    out
}

/// What is told in other words.
#[derive(Clone, Copy)]
struct Wording {
    verify: bool,
    dry_run: bool,
    verbose: bool,
}

impl Wording {
    fn state(self, state: HostState) -> &'static str {
        match state {
            HostState::Unchanged if self.verify => "equal",
            HostState::Planned if self.verify => "different",
            HostState::Done if self.verify => "repaired",
            state => state.name(),
        }
    }
}

fn root(out: &mut String, report: &RootReport, wording: Wording) {
    let path = shown_path(&report.path);
    let name = if report.name.is_empty() { path } else { format!("{}  {path}", shown(&report.name)) };
    let size = if report.refused.is_some() && report.entries == 0 {
        "refused".to_owned()
    } else {
        format!("{}, {}", count(report.entries, "entry", "entries"), HumanBytes(report.bytes))
    };
    let _ = writeln!(out, "{name}  ({size})");
    problems(out, "  ", &report.problems, 0);
    for note in &report.notes {
        let _ = writeln!(out, "  note: {}", shown(note));
    }
    if let Some(skipped) = &report.skipped {
        self::skipped(out, skipped, wording.verbose);
    }
    let rows: Vec<Vec<String>> = report.hosts.iter().map(|host| row(host, wording)).collect();
    let widths = widths(&rows);
    for (host, row) in report.hosts.iter().zip(&rows) {
        let _ = writeln!(out, "  {}", aligned(row, &widths));
        details(out, host, report.refused.as_ref(), wording.verbose);
    }
}

fn skipped(out: &mut String, skipped: &Skipped, verbose: bool) {
    let files = count(skipped.files, "file is", "files are");
    let _ = writeln!(out, "  skipped: {files} larger than {}", HumanBytes(skipped.max_size_bytes));
    if !verbose {
        return;
    }
    for (path, size_bytes) in &skipped.named {
        let _ = writeln!(out, "    {path} ({})", HumanBytes(*size_bytes));
    }
    let more = skipped.files.saturating_sub(number(skipped.named.len()));
    if more > 0 {
        let _ = writeln!(out, "    and {} more", HumanCount(more));
    }
}

/// The cells of a host's line. Of a host that was not worked on there is nothing to count.
fn row(host: &HostReport, wording: Wording) -> Vec<String> {
    let mut row = vec![shown(&host.name), wording.state(host.state).to_owned()];
    if host.state == HostState::Refused {
        return row;
    }
    let totals = &host.totals;
    row.push(format!("{} created", HumanCount(totals.created)));
    row.push(format!("{} updated", HumanCount(totals.updated)));
    row.push(format!("{} deleted", HumanCount(totals.deleted)));
    if wording.dry_run {
        row.push(format!("{} to send", HumanBytes(totals.content_bytes)));
    } else {
        row.push(count(host.files_sent, "file", "files"));
        row.push(format!("{} sent", HumanBytes(host.bytes_sent)));
    }
    row.push(format!("{:.1} s", host.seconds));
    row
}

/// What became of a hook, one line for people.
pub(super) fn hook(hook: &HookReport) -> String {
    format!("{}: {} ({:.1} s)", shown(&hook.command), shown(&hook.detail), hook.seconds)
}

fn details(out: &mut String, host: &HostReport, refused: Option<&GuardRefusal>, verbose: bool) {
    const INDENT: &str = "      ";
    problems(out, INDENT, &host.problems, host.more_problems);
    for note in &host.notes {
        let _ = writeln!(out, "{INDENT}note: {}", shown(note));
    }
    for hook in host.hooks.iter().filter(|hook| verbose || !hook.ok) {
        let _ = writeln!(out, "{INDENT}hook {}: {}", if hook.ok { "done" } else { "failed" }, self::hook(hook));
    }
    // The root's refusal is said elsewhere, once for all hosts; one that came late has its own.
    let roots_own = |error: &&String| refused.is_some_and(|refusal| refusal.message == **error);
    if let Some(error) = host.error.as_ref().filter(|error| !roots_own(error)) {
        let _ = writeln!(out, "{INDENT}error: {}", shown(error));
    }
}

fn problems(out: &mut String, indent: &str, problems: &[Problem], unlisted: u64) {
    for problem in problems.iter().take(SHOWN_PROBLEMS) {
        // The path escapes itself, and more than `shown` would.
        let _ = writeln!(out, "{indent}problem: {}: {}", problem.path, shown(&problem.detail));
    }
    let hidden = number(problems.len().saturating_sub(SHOWN_PROBLEMS)).saturating_add(unlisted);
    if hidden > 0 {
        let _ = writeln!(out, "{indent}and {} more", HumanCount(hidden));
    }
}

pub(super) fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    (0..columns).map(width).collect()
}

/// Words to the left, amounts to the right.
pub(super) fn aligned(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let gap = if column == 0 { 0 } else { GAP };
        let _ = match column {
            0 | 1 => write!(line, "{:gap$}{cell:<width$}", ""),
            _ => write!(line, "{:gap$}{cell:>width$}", ""),
        };
    }
    line.truncate(line.trim_end().len());
    line
}

/// How much attention a state asks for; a host is counted once, by its worst root.
fn severity(state: HostState) -> u8 {
    match state {
        HostState::Unchanged => 0,
        HostState::Done => 1,
        HostState::Planned => 2,
        HostState::Partial => 3,
        HostState::Refused => 4,
        HostState::Failed => 5,
    }
}

fn total(reports: &[RootReport], seconds: f64, wording: Wording) -> String {
    let mut worst: HashMap<&str, HostState> = HashMap::new();
    for host in reports.iter().flat_map(|report| &report.hosts) {
        let state = worst.entry(&host.name).or_insert(host.state);
        if severity(host.state) > severity(*state) {
            *state = host.state;
        }
    }
    let mut states: Vec<(HostState, u64)> = Vec::new();
    for &state in worst.values() {
        match states.iter_mut().find(|(known, _)| *known == state) {
            Some((_, hosts)) => *hosts += 1,
            None => states.push((state, 1)),
        }
    }
    states.sort_by_key(|&(state, _)| Reverse(severity(state)));
    let states = states.iter().map(|&(state, hosts)| format!("{hosts} {}", wording.state(state)));
    let states = states.collect::<Vec<_>>().join(", ");
    let hosts = count(number(worst.len()), "host", "hosts");
    let mut line = if states.is_empty() { hosts } else { format!("{hosts}: {states}") };
    let all = || reports.iter().flat_map(|report| &report.hosts);
    if wording.dry_run {
        let bytes = all().map(|host| host.totals.content_bytes).fold(0, u64::saturating_add);
        let _ = write!(line, "; {} to send", HumanBytes(bytes));
    } else {
        let files = all().map(|host| host.files_sent).fold(0, u64::saturating_add);
        let bytes = all().map(|host| host.bytes_sent).fold(0, u64::saturating_add);
        let _ = write!(line, "; {}, {} sent", count(files, "file", "files"), HumanBytes(bytes));
    }
    let problems = all().map(|host| number(host.problems.len()).saturating_add(host.more_problems));
    let own = reports.iter().map(|report| number(report.problems.len()));
    let problems = problems.chain(own).fold(0, u64::saturating_add);
    if problems > 0 {
        let _ = write!(line, "; {}", count(problems, "problem", "problems"));
    }
    let _ = write!(line, "; {seconds:.1} s");
    if wording.dry_run && !wording.verify {
        line.push_str(" (dry run: nothing was changed)");
    }
    line
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", HumanCount(number), if number == 1 { one } else { many })
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The document for machines. `command` is `push` or `verify`; `fleet` is `None` for a push without configuration;
/// `seconds` is the time of the whole.
pub fn json(
    command: &str,
    fleet: Option<&str>,
    dry_run: bool,
    exit_code: u8,
    seconds: f64,
    reports: &[RootReport],
) -> Value {
    json!({
        "command": command,
        "fleet": fleet,
        "dry_run": dry_run,
        "exit_code": exit_code,
        "seconds": rounded(seconds),
        "roots": reports.iter().map(root_json).collect::<Vec<_>>(),
    })
}

fn root_json(report: &RootReport) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(report.name));
    insert_path(&mut object, report.path.as_os_str().as_bytes());
    object.insert("entries".into(), json!(report.entries));
    object.insert("bytes".into(), json!(report.bytes));
    object.insert("read_bytes".into(), json!(report.read_bytes));
    object.insert("refused".into(), report.refused.as_ref().map_or(Value::Null, refusal_json));
    object.insert("problems".into(), report.problems.iter().map(problem_json).collect());
    object.insert("notes".into(), json!(report.notes));
    object.insert("skipped".into(), report.skipped.as_ref().map_or(Value::Null, skipped_json));
    object.insert("hosts".into(), report.hosts.iter().map(host_json).collect());
    Value::Object(object)
}

fn skipped_json(skipped: &Skipped) -> Value {
    let named = skipped.named.iter().map(|(path, size_bytes)| {
        let mut object = Map::new();
        insert_path(&mut object, path.as_bytes());
        object.insert("bytes".into(), json!(size_bytes));
        Value::Object(object)
    });
    json!({ "max_size": skipped.max_size_bytes, "count": skipped.files, "files": named.collect::<Vec<_>>() })
}

fn refusal_json(refusal: &GuardRefusal) -> Value {
    json!({ "guard": refusal.guard.name(), "message": refusal.message, "plan": refusal.plan })
}

fn hook_json(hook: &HookReport) -> Value {
    json!({ "command": hook.command, "ok": hook.ok, "detail": hook.detail, "seconds": rounded(hook.seconds) })
}

fn host_json(host: &HostReport) -> Value {
    let mut value = json!({
        "name": host.name,
        "state": host.state.name(),
        "error": host.error,
        "seconds": rounded(host.seconds),
        "created": host.totals.created,
        "updated": host.totals.updated,
        "deleted": host.totals.deleted,
        "metadata": host.totals.attributes,
        "files_sent": host.files_sent,
        "bytes_sent": host.bytes_sent,
        "bytes_received": host.bytes_received,
        "literal_bytes": host.literal_bytes,
        "matched_bytes": host.matched_bytes,
        "problems": host.problems.iter().map(problem_json).collect::<Vec<_>>(),
        "more_problems": host.more_problems,
        "drifted": host.drifted,
        "notes": host.notes,
        "hooks": host.hooks.iter().map(hook_json).collect::<Vec<_>>(),
    });
    if !host.changes.is_empty() {
        value["changes"] = json!(host.changes);
    }
    value
}

fn problem_json(problem: &Problem) -> Value {
    let mut object = Map::new();
    let path = if problem.path.is_root() { b"." } else { problem.path.as_bytes() };
    insert_path(&mut object, path);
    object.insert("kind".into(), json!(kind_name(problem.kind)));
    object.insert("cause".into(), json!(problem.detail));
    Value::Object(object)
}

/// JSON has no bytes: a name that is not UTF-8 comes a second time, in hexadecimal, to be exact.
pub fn insert_path(object: &mut Map<String, Value>, bytes: &[u8]) {
    object.insert("path".into(), json!(String::from_utf8_lossy(bytes)));
    if std::str::from_utf8(bytes).is_err() {
        let mut hex = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            let _ = write!(hex, "{byte:02x}");
        }
        object.insert("path_hex".into(), json!(hex));
    }
}

/// The name of a kind of problem that scripts see.
pub fn kind_name(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Vanished => "vanished",
        ProblemKind::Changing => "changing",
        ProblemKind::Unreadable => "unreadable",
        ProblemKind::Unsupported => "unsupported",
        ProblemKind::Denied => "denied",
        ProblemKind::Conflict => "conflict",
        ProblemKind::NoSpace => "no-space",
        ProblemKind::Corrupt => "corrupt",
        ProblemKind::Failed => "failed",
    }
}

/// To milliseconds: more digits are noise.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
