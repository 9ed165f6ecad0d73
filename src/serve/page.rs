//! The page as the server draws it: what `page.html` draws anew from `/status.json`, for those without scripts and until
//! the first answer. Both make the same elements, so that nothing jumps.
//!
//! Names, paths and errors come from hosts and trees that others write. `maud` escapes whatever is put in here, and
//! there is no `PreEscaped` but for the file itself.

use maud::{Markup, html};

use super::words::{ago, bytes, count, number, span};
use crate::status::{
    AgentStatus, Doing, FleetStatus, HostState, HostStatus, LagPoint, PathProblem, Role, RootStatus, WatchMode,
};

const FILE: &str = include_str!("page.html");
const TITLE: &str = "<!--title-->";
const FLEET: &str = "<!--fleet-->";

/// What a browser may load and run: this file's own style and script, known by their digests, and this server's
/// answers. A test compares the digests with the file.
pub(super) const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; \
    style-src 'sha256-mn8k8Sb3sg6CtMYkq5n114ZN3aVlx8/afG/cZvpYEdQ='; \
    script-src 'sha256-h7ppOR+YmGdVdEizzn+4GNxSlKZW/XauxncH+wKMl1g='; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page. `stale_s` says for how long the agent has said nothing, if that is too long.
pub(super) fn render(status: &FleetStatus, stale_s: Option<u64>) -> String {
    let title = html! { (status.fleet) " on " (status.host) }.into_string();
    let fleet = fleet(status, stale_s).into_string();
    // Each mark is replaced where it stands in the file, not where a name holds it.
    let (head, rest) = FILE.split_once(TITLE).unwrap_or((FILE, ""));
    let (middle, tail) = rest.split_once(FLEET).unwrap_or((rest, ""));
    [head, &title, middle, &fleet, tail].concat()
}

fn fleet(status: &FleetStatus, stale_s: Option<u64>) -> Markup {
    let role = if status.role == Role::Unknown { "role not known" } else { status.role.word() };
    let primary = status.primary.as_deref().unwrap_or("not known");
    html! {
        header data-key="head" {
            div.head {
                h1 { (status.fleet) }
                @if let Some(agent) = &status.agent { (badge(agent.state.word())) }
            }
            div.dim {
                (status.host) ": " (role)
                @if status.role != Role::Primary { ", primary: " (primary) }
                @if status.term > 0 { ", term " (status.term) }
                ", rfleet " (status.software)
                @if let Some(agent) = &status.agent { ", up " (span(up(status, agent))) }
            }
            @if let Some(seconds) = stale_s {
                div.box { "The agent said nothing for " (span(whole(seconds))) ". What is shown is what it said before." }
            }
            @if let Some(agent) = status.agent.as_ref().filter(|agent| !agent.reasons.is_empty()) {
                div.box { (lines(&agent.reasons)) }
            }
        }
        @for one in &status.roots { (root(status, one)) }
        footer.dim.small data-key="foot" { a href="status.json" { "JSON" } " " a href="metrics" { "metrics" } }
    }
}

fn up(status: &FleetStatus, agent: &AgentStatus) -> f64 {
    whole(status.time_ms.saturating_sub(agent.started_ms) / 1000)
}

fn whole(seconds: u64) -> f64 {
    std::time::Duration::from_secs(seconds).as_secs_f64()
}

/// The colour is never all that tells states apart.
fn badge(state: &str) -> Markup {
    let (kind, sign) = match state {
        "ok" | "current" => ("good", "✓"),
        "busy" | "starting" => ("busy", "↻"),
        "stopping" => ("warn", "■"),
        "partial" => ("warn", "◐"),
        "degraded" => ("warn", "!"),
        "paused" => ("warn", "‖"),
        "failed" => ("bad", "✕"),
        "refused" => ("bad", "⊘"),
        _ => ("warn", "?"),
    };
    html! { span class={ "state " (kind) } { span aria-hidden="true" { (sign) " " } (state) } }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn lines(all: &[String]) -> Markup {
    html! { @if !all.is_empty() { ul { @for line in all { li { (line) } } } } }
}

fn root(status: &FleetStatus, one: &RootStatus) -> Markup {
    let mut hosts: Vec<&HostStatus> = one.hosts.iter().collect();
    hosts.sort_by_key(|host| order(host.state));
    html! {
        section data-key={ "r " (one.name) } aria-label={ "root " (one.name) } {
            div.head { h2 { (one.name) } (badge(one.state.word())) span.dim { (one.path) } }
            @if let Some(why) = &one.refused { div.box { "refused: " (why) } }
            (facts(status, one))
            @if let Some(reason) = &one.watch.reason { p.warn { (reason) } }
            (lines(&one.notes))
            (problems(&one.problems, one.problem_count))
            @if !hosts.is_empty() {
                table {
                    caption { (count(u64::try_from(hosts.len()).unwrap_or(u64::MAX), "host", "hosts")) }
                    thead {
                        tr {
                            @for name in ["Host", "State", "Lag", "Pending", "Last success", "Now", "Lag so far"] {
                                th scope="col" { (name) }
                            }
                        }
                    }
                    tbody { @for one in hosts { (host(status, one)) } }
                }
            }
        }
    }
}

/// What needs a look comes first.
fn order(state: HostState) -> u8 {
    match state {
        HostState::Failed => 0,
        HostState::Refused => 1,
        HostState::Partial => 2,
        HostState::Unknown => 3,
        HostState::Paused => 4,
        HostState::Busy => 5,
        HostState::Current => 6,
    }
}

fn facts(status: &FleetStatus, one: &RootStatus) -> Markup {
    let mut watching = match one.watch.mode {
        WatchMode::Off => "not at all",
        WatchMode::Events => "file events",
        WatchMode::Scans => "scans only",
    }
    .to_owned();
    if one.watch.directories > 0 {
        watching += &format!(", {}", count(one.watch.directories, "directory", "directories"));
    }
    if one.watch.overflows > 0 {
        watching += &format!(", {}", count(one.watch.overflows, "overflow", "overflows"));
    }
    let took = one.scan_s.map(|seconds| format!(", took {}", span(seconds))).unwrap_or_default();
    html! {
        dl {
            (fact("Sequence", &number(one.sequence)))
            @if let Some(at) = one.committed_ms { (fact("Complete", &ago(status.time_ms, at))) }
            @if one.entries > 0 { (fact("Entries", &number(one.entries))) }
            @if one.bytes > 0 { (fact("Content", &bytes(one.bytes))) }
            @if one.dirty > 0 { (fact("To be looked at", &count(one.dirty, "path", "paths"))) }
            @if let Some(at) = one.scanned_ms { (fact("Last scan", &format!("{}{took}", ago(status.time_ms, at)))) }
            @if status.agent.is_some() && status.role != Role::Secondary { (fact("Watched by", &watching)) }
        }
    }
}

fn problems(all: &[PathProblem], total: u64) -> Markup {
    let more = total.saturating_sub(u64::try_from(all.len()).unwrap_or(u64::MAX));
    html! {
        @if total > 0 {
            details data-key="problems" {
                summary.warn { (count(total, "problem", "problems")) }
                ul {
                    @for one in all { li { code { (one.path) } ": " (one.detail) } }
                    @if more > 0 { li { "and " (number(more)) " more" } }
                }
            }
        }
    }
}

fn host(status: &FleetStatus, one: &HostStatus) -> Markup {
    let lag = match one.lag_s {
        seconds if seconds > 0.0 => span(seconds),
        _ if one.pending.is_none() => "not known".to_owned(),
        _ => "none".to_owned(),
    };
    let pending = one.pending.map_or_else(|| "all to be compared".to_owned(), number);
    let success = one.success_ms.map_or_else(|| "never".to_owned(), |at| ago(status.time_ms, at));
    html! {
        tr data-key={ "h " (one.name) } {
            th scope="row" { (one.name) @if one.address != one.name { div.small.dim { (one.address) } } }
            td data-label="State" { (badge(one.state.word())) }
            td.num data-label="Lag" { (lag) }
            td.num data-label="Pending" { (pending) }
            td.num data-label="Last success" { (success) }
            td.empty[one.now.is_none()] data-label="Now" {
                @if let Some(now) = &one.now { (doing(status.time_ms, now)) }
            }
            td.empty[one.history.len() < 2] data-label="Lag so far" { (spark(&one.history)) }
        }
        (more(status, one))
    }
}

fn doing(now_ms: u64, now: &Doing) -> Markup {
    let mut words = format!("{} for {}", now.phase, span(whole(now_ms.saturating_sub(now.since_ms) / 1000)));
    if now.files_total > 0 {
        words += &format!(", {} of {}", number(now.files), count(now.files_total, "file", "files"));
    }
    if now.bytes_total > 0 {
        words += &format!(", {} of {}", bytes(now.bytes), bytes(now.bytes_total));
    }
    html! {
        @if now.bytes_total > 0 {
            progress max=(now.bytes_total) value=(now.bytes.min(now.bytes_total)) aria-label="bytes sent" {}
        }
        div.small { (words) }
    }
}

/// The row below a host's, where there is more to say.
fn more(status: &FleetStatus, one: &HostStatus) -> Markup {
    let failed = one.error.is_some() || one.failures > 0;
    let hooks = || one.hooks.iter().filter(|hook| !hook.ok);
    let mut words = one.error.clone().unwrap_or_else(|| "it failed".to_owned());
    if one.failures > 1 {
        words += &format!("; {} in a row", count(one.failures, "failure", "failures"));
    }
    if let Some(at) = one.next_try_ms {
        let left = at.saturating_sub(status.time_ms).div_ceil(1000);
        words += &if left == 0 { "; next try now".to_owned() } else { format!("; next try in {}", span(whole(left))) };
    }
    html! {
        @if failed || one.problem_count > 0 || hooks().next().is_some() {
            tr.more data-key={ "m " (one.name) } {
                td colspan="7" {
                    @if failed { div.box { (words) } }
                    @for hook in hooks() { div.box { "hook " (hook.command) ": " (hook.detail) } }
                    (problems(&one.problems, one.problem_count))
                }
            }
        }
    }
}

fn spark(points: &[LagPoint]) -> Markup {
    let (Some(first), Some(last), 2..) = (points.first(), points.last(), points.len()) else { return html! {} };
    let most = points.iter().map(|point| point.lag_s).fold(0.0, f64::max);
    let width_s = whole(last.at_ms.saturating_sub(first.at_ms)) / 1000.0;
    let x = |point: &LagPoint| {
        let at = whole(point.at_ms.saturating_sub(first.at_ms)) / 1000.0;
        format!("{:.1}", at / width_s.max(0.001) * 118.0 + 1.0)
    };
    let line = points.iter().map(|point| format!("{},{:.1}", x(point), 23.0 - point.lag_s / most.max(1.0) * 20.0));
    let failures = if points.iter().any(|point| point.failed) { ", with failures" } else { "" };
    html! {
        svg width="120" height="24" viewBox="0 0 120 24" role="img"
            aria-label={ "lag over " (span(width_s)) ": at most " (span(most)) (failures) } {
            @for point in points.iter().filter(|point| point.failed) { line x1=(x(point)) x2=(x(point)) y1="20" y2="24" {} }
            polyline points=(line.collect::<Vec<_>>().join(" ")) {}
        }
    }
}
