//! A status for people. Names, paths and errors come from hosts and trees that others write: everything is escaped that
//! could move a cursor or begin a line.

use std::fmt::Write;
use std::time::Duration;

use super::super::render::{aligned, shown, widths};
use crate::serve::words::{ago, bytes, count, number, span};
use crate::status::{Doing, FleetStatus, HostStatus, PathProblem, Role, RootStatus, WatchMode};

const HEAD: [&str; 7] = ["HOST", "STATE", "SEQUENCE", "LAG", "LAST SUCCESS", "PENDING", "PROBLEMS"];

/// The text, several lines, each with its end.
pub(super) fn render(status: &FleetStatus) -> String {
    let mut out = String::new();
    // Writing to a string does not fail, here and below.
    let _ = writeln!(out, "{}", headline(status));
    if let Some(agent) = &status.agent {
        lines(&mut out, "  reason", &agent.reasons);
    }
    for one in &status.roots {
        out.push('\n');
        root(&mut out, status, one);
    }
    out
}

fn headline(status: &FleetStatus) -> String {
    let mut line = format!("fleet {} on {}: ", shown(&status.fleet), shown(&status.host));
    line += match status.role {
        Role::Unknown => "role not known",
        role => role.word(),
    };
    if let Some(primary) = status.primary.as_ref().filter(|_| status.role != Role::Primary) {
        let _ = write!(line, ", primary {}", shown(primary));
    }
    if status.term > 0 {
        let _ = write!(line, ", term {}", status.term);
    }
    match &status.agent {
        Some(agent) => {
            let up = Duration::from_millis(status.time_ms.saturating_sub(agent.started_ms)).as_secs();
            let _ = write!(line, "; agent {}, up {}", agent.state.word(), span(whole(up)));
        }
        None => line += "; no agent runs here, this is what the last push left",
    }
    line
}

fn whole(seconds: u64) -> f64 {
    Duration::from_secs(seconds).as_secs_f64()
}

fn lines(out: &mut String, what: &str, all: &[String]) {
    for line in all {
        let _ = writeln!(out, "{what}: {}", shown(line));
    }
}

fn root(out: &mut String, status: &FleetStatus, one: &RootStatus) {
    let mut facts = vec![one.state.word().to_owned(), format!("sequence {}", number(one.sequence))];
    if let Some(at) = one.committed_ms {
        facts.push(format!("complete {}", ago(status.time_ms, at)));
    }
    if one.entries > 0 {
        facts.push(count(one.entries, "entry", "entries"));
    }
    if one.bytes > 0 {
        facts.push(bytes(one.bytes));
    }
    if one.dirty > 0 {
        facts.push(format!("{} to be looked at", count(one.dirty, "path", "paths")));
    }
    if let Some(at) = one.scanned_ms {
        let took = one.scan_s.map(|seconds| format!(" in {}", span(seconds))).unwrap_or_default();
        facts.push(format!("scanned {}{took}", ago(status.time_ms, at)));
    }
    match one.watch.mode {
        WatchMode::Off => {}
        WatchMode::Events => facts.push("watched".to_owned()),
        WatchMode::Scans => facts.push("scans only".to_owned()),
    }
    let _ = writeln!(out, "{}  {}  {}", shown(&one.name), shown(&one.path), facts.join(", "));
    if let Some(why) = &one.refused {
        let _ = writeln!(out, "  refused: {}", shown(why));
    }
    if let Some(why) = &one.watch.reason {
        let _ = writeln!(out, "  watch: {}", shown(why));
    }
    lines(out, "  note", &one.notes);
    problems(out, "  ", &one.problems, one.problem_count);
    if one.hosts.is_empty() {
        return;
    }
    let head = HEAD.map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(one.hosts.iter().map(|host| row(status, host))).collect();
    let widths = widths(&rows);
    let mut rows = rows.iter();
    if let Some(head) = rows.next() {
        let _ = writeln!(out, "  {}", aligned(head, &widths));
    }
    for (host, row) in one.hosts.iter().zip(rows) {
        let _ = writeln!(out, "  {}", aligned(row, &widths));
        details(out, status, host);
    }
}

fn row(status: &FleetStatus, host: &HostStatus) -> Vec<String> {
    let lag = match host.lag_s {
        seconds if seconds > 0.0 => span(seconds),
        _ if host.pending.is_none() => "-".to_owned(),
        _ => "none".to_owned(),
    };
    vec![
        shown(&host.name),
        host.state.word().to_owned(),
        if host.sequence > 0 { number(host.sequence) } else { "-".to_owned() },
        lag,
        host.success_ms.map_or_else(|| "never".to_owned(), |at| ago(status.time_ms, at)),
        host.pending.map_or_else(|| "all".to_owned(), number),
        number(host.problem_count),
    ]
}

fn details(out: &mut String, status: &FleetStatus, host: &HostStatus) {
    const INDENT: &str = "      ";
    if let Some(now) = &host.now {
        let _ = writeln!(out, "{INDENT}now: {}", doing(status.time_ms, now));
    }
    if host.error.is_some() || host.failures > 0 {
        let mut words = vec![host.error.as_deref().map_or_else(|| "it failed".to_owned(), shown)];
        if host.failures > 1 {
            words.push(format!("{} in a row", count(host.failures, "failure", "failures")));
        }
        if let Some(at) = host.next_try_ms {
            let left = at.saturating_sub(status.time_ms).div_ceil(1000);
            words.push(if left == 0 {
                "next try now".to_owned()
            } else {
                format!("next try in {}", span(whole(left)))
            });
        }
        let _ = writeln!(out, "{INDENT}error: {}", words.join("; "));
    }
    for hook in host.hooks.iter().filter(|hook| !hook.ok) {
        let _ = writeln!(out, "{INDENT}hook {}: {}", shown(&hook.command), shown(&hook.detail));
    }
    problems(out, INDENT, &host.problems, host.problem_count);
}

fn doing(now_ms: u64, now: &Doing) -> String {
    let since = Duration::from_millis(now_ms.saturating_sub(now.since_ms)).as_secs();
    let mut words = vec![format!("{} for {}", shown(&now.phase), span(whole(since)))];
    if now.files_total > 0 {
        words.push(format!("{} of {}", number(now.files), count(now.files_total, "file", "files")));
    }
    if now.bytes_total > 0 {
        words.push(format!("{} of {}", bytes(now.bytes), bytes(now.bytes_total)));
    }
    words.join(", ")
}

fn problems(out: &mut String, indent: &str, all: &[PathProblem], total: u64) {
    for one in all {
        let _ = writeln!(out, "{indent}problem: {}: {}", shown(&one.path), shown(&one.detail));
    }
    let more = total.saturating_sub(u64::try_from(all.len()).unwrap_or(u64::MAX));
    if more > 0 {
        let _ = writeln!(out, "{indent}and {} more", number(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{AgentState, AgentStatus, HookStatus, HostState, RootState, WatchStatus};

    fn problem(path: &str, detail: &str) -> PathProblem {
        PathProblem { path: path.into(), detail: detail.into(), ..PathProblem::default() }
    }

    fn full() -> FleetStatus {
        let busy = HostStatus {
            name: "web2".into(),
            state: HostState::Busy,
            sequence: 1_233_000,
            lag_s: 3.25,
            pending: Some(1_567),
            success_ms: Some(588_000),
            now: Some(Doing {
                phase: "sending".into(),
                since_ms: 597_000,
                files: 6,
                files_total: 15,
                ..Doing::default()
            }),
            ..HostStatus::default()
        };
        let failed = HostStatus {
            name: "web10".into(),
            state: HostState::Failed,
            next_try_ms: Some(642_000),
            error: Some("no route\nto host".into()),
            failures: 12,
            problems: vec![problem("a\u{1b}[2J", "denied")],
            problem_count: 3,
            hooks: vec![HookStatus { command: "reload".into(), detail: "exit 1".into(), ..HookStatus::default() }],
            ..HostStatus::default()
        };
        let root = RootStatus {
            name: "uploads".into(),
            path: "/srv/uploads".into(),
            state: RootState::Refused,
            sequence: 1_234_567,
            entries: 250_000,
            bytes: 80 << 30,
            dirty: 3,
            refused: Some("too many deletions".into()),
            scanned_ms: Some(570_000),
            scan_s: Some(2.75),
            watch: WatchStatus { mode: WatchMode::Events, reason: Some("no watches".into()), ..WatchStatus::default() },
            notes: vec!["1 file is too large".into()],
            hosts: vec![busy, failed],
            ..RootStatus::default()
        };
        let agent = AgentStatus {
            state: AgentState::Degraded,
            reasons: vec!["uploads: no watches".into()],
            ..AgentStatus::default()
        };
        FleetStatus {
            fleet: "cms".into(),
            host: "web1".into(),
            role: Role::Primary,
            time_ms: 600_000,
            agent: Some(agent),
            roots: vec![root],
            ..FleetStatus::default()
        }
    }

    #[test]
    fn a_status_is_a_table_and_what_is_wrong() {
        let expected = "\
fleet cms on web1: primary; agent degraded, up 10 min
  reason: uploads: no watches

uploads  /srv/uploads  refused, sequence 1,234,567, 250,000 entries, 80 GiB, 3 paths to be looked at, scanned 30 s ago in 2.8 s, watched
  refused: too many deletions
  watch: no watches
  note: 1 file is too large
  HOST   STATE    SEQUENCE    LAG  LAST SUCCESS  PENDING  PROBLEMS
  web2   busy    1,233,000  3.2 s      12 s ago    1,567         0
      now: sending for 3 s, 6 of 15 files
  web10  failed          -      -         never      all         3
      error: no route\\nto host; 12 failures in a row; next try in 42 s
      hook reload: exit 1
      problem: a\\u{1b}[2J: denied
      and 2 more
";
        assert_eq!(render(&full()), expected);
    }

    #[test]
    fn without_an_agent_it_says_so() {
        let root =
            RootStatus { name: "a".into(), path: "/a".into(), committed_ms: Some(1_000), ..RootStatus::default() };
        let status = FleetStatus {
            fleet: "cms".into(),
            host: "web2".into(),
            role: Role::Secondary,
            primary: Some("web1".into()),
            time_ms: 6_000,
            roots: vec![root],
            ..FleetStatus::default()
        };
        let expected = "\
fleet cms on web2: secondary, primary web1; no agent runs here, this is what the last push left

a  /a  unknown, sequence 0, complete 5 s ago
";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn nothing_in_it_can_move_a_cursor_or_begin_a_line() {
        let bad = || "x\u{1b}]0;y\u{7}\n\u{202e}".to_owned();
        let mut status = full();
        (status.fleet, status.host) = (bad(), bad());
        let agent = status.agent.as_mut().unwrap();
        agent.reasons = vec![bad()];
        let root = &mut status.roots[0];
        (root.name, root.path, root.refused, root.notes) = (bad(), bad(), Some(bad()), vec![bad()]);
        root.watch.reason = Some(bad());
        root.problems = vec![problem(&bad(), &bad())];
        for host in &mut root.hosts {
            (host.name, host.error) = (bad(), Some(bad()));
            host.problems = vec![problem(&bad(), &bad())];
            host.hooks = vec![HookStatus { command: bad(), detail: bad(), ..HookStatus::default() }];
            host.now = Some(Doing { phase: bad(), ..Doing::default() });
        }
        let text = render(&status);
        assert!(!text.chars().any(|char| (char.is_control() && char != '\n') || char == '\u{202e}'), "{text:?}");
        assert!(text.lines().all(|line| !line.starts_with("y") && !line.starts_with("\\u{202e}")), "{text}");
        assert!(text.lines().count() < 30);
    }
}
