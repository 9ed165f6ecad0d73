//! `rfleet check`: what would keep a push from working, one line each. Changes nothing anywhere.

mod hosts;
mod sources;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::render::{shown, shown_path};
use super::{CheckArgs, DEFAULT_CONFIG, Exit, Global, exclude, fleet, runtime};
use crate::config::{Config, RootConfig};
use crate::push::Endpoint;
use crate::tree::{Root, RootError, Selection};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    host: Option<String>,
    status: Status,
    detail: String,
}

impl Finding {
    fn new(check: &'static str, status: Status, detail: impl Into<String>) -> Self {
        Finding { check, host: None, status, detail: detail.into() }
    }

    /// The line for people. Details come from peers, too.
    fn line(&self) -> String {
        let host = self.host.as_deref().map(|host| format!("{}: ", shown(host))).unwrap_or_default();
        format!("{:<4}  {:<9} {host}{}", self.status.name(), self.check, shown(&self.detail))
    }
}

/// Prints findings: people see each when it is there, machines all of them at the end.
struct Output {
    json: bool,
    findings: Vec<Finding>,
}

impl Output {
    fn add(&mut self, findings: Vec<Finding>) {
        if !self.json {
            for finding in &findings {
                // Whoever reads may have gone; the exit code still tells.
                let _ = writeln!(std::io::stdout(), "{}", finding.line());
            }
        }
        self.findings.extend(findings);
    }

    fn finish(self) {
        if self.json {
            let array = serde_json::json!(self.findings);
            let _ = writeln!(std::io::stdout(), "{array:#}");
        }
    }
}

fn fails(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.status == Status::Fail)
}

/// Checks what the configuration names, and prints what was found.
pub(super) fn run(global: &Global, args: &CheckArgs) -> Exit {
    let path = global.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let mut output = Output { json: args.json, findings: Vec::new() };
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            // Nothing else can be checked without it.
            output.add(vec![Finding::new("config", Status::Fail, error.to_string())]);
            output.finish();
            return Exit::Usage;
        }
    };
    let ssh = fleet::ssh_options(&config, None);
    let members = fleet::members(&config, &ssh, None, &fleet::own_name());
    let receivers = |member: &fleet::Member| {
        let of_root = |root| member.receiver_of(&config, root);
        (Arc::clone(&member.endpoint), config.roots.iter().map(of_root).collect())
    };
    let endpoints = members.iter().map(receivers).collect();
    let selections = config.roots.iter().map(|root| exclude::configured(&config, root)).collect();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let exit = runtime.block_on(check(&config, selections, endpoints, &mut output));
    output.finish();
    exit
}

/// `selections` are what of each root is synced, in the order of the configuration's roots. `endpoints` are the
/// secondaries, each with what starts a receiver of each root there, in the same order.
async fn check(
    config: &Config,
    selections: Vec<Selection>,
    endpoints: Vec<(Arc<Endpoint>, Vec<Vec<String>>)>,
    output: &mut Output,
) -> Exit {
    let own = fleet::own_name();
    let found = configuration(config);
    let bad_config = fails(&found);
    output.add(found);
    let primary = fleet::is_primary(config, &own);
    output.add(vec![role(config, &own, primary)]);
    if !primary {
        let found: Vec<Finding> = config.roots.iter().map(destination).collect();
        let bad_root = fails(&found);
        output.add(found);
        return exit(bad_config, bad_root, false);
    }
    let (sizes, found) = sources::look_at(config, selections).await;
    let bad_root = fails(&found);
    output.add(found);
    let bad_host = hosts::look_at(config, &own, sizes, endpoints, output).await;
    exit(bad_config, bad_root, bad_host)
}

fn exit(bad_config: bool, bad_root: bool, bad_host: bool) -> Exit {
    if bad_config {
        Exit::Usage
    } else if bad_root {
        Exit::Refused
    } else if bad_host {
        Exit::Partial
    } else {
        Exit::Done
    }
}

fn configuration(config: &Config) -> Vec<Finding> {
    let path = shown_path(&config.path);
    let finding = |status, line: &str| Finding::new("config", status, format!("{path}: {line}"));
    let unavailable = config.unavailable();
    let mut found: Vec<Finding> = unavailable.iter().map(|line| finding(Status::Fail, line)).collect();
    found.extend(config.warnings().iter().map(|line| finding(Status::Warn, line)));
    if unavailable.is_empty() {
        let line = format!("fleet {}, {} root(s)", config.fleet, config.roots.len());
        found.insert(0, finding(Status::Ok, &line));
    }
    found
}

fn role(config: &Config, own: &str, primary: bool) -> Finding {
    let named = config.role.as_ref().and_then(|role| role.primary.as_deref());
    let detail = match (named, primary) {
        (None, _) => format!("no primary is named: {own} pushes whenever it is told to"),
        (Some(_), true) => format!("{own} is the primary"),
        (Some(named), false) => format!("{own} is a secondary; the primary is {named}, and a push here does nothing"),
    };
    Finding::new("role", Status::Ok, detail)
}

/// A root on a secondary: the far end of a push.
fn destination(root: &RootConfig) -> Finding {
    let label = format!("{}: {}", root.name, shown_path(&root.path));
    let (status, detail) = match Root::open(&root.path) {
        Ok(there) if there.is_writable() => (Status::Ok, format!("{label} can be written to")),
        Ok(_) => (Status::Warn, format!("{label} cannot be written to by this user; can the receiver's?")),
        Err(RootError::Missing(_)) => match Root::open_parent(&root.path) {
            Ok(_) => (Status::Warn, format!("{label} does not exist yet; the first push makes it")),
            Err(error) => (Status::Fail, format!("{}: {error}", root.name)),
        },
        Err(error) => (Status::Fail, format!("{}: {error}", root.name)),
    };
    Finding::new("root", status, detail)
}

#[cfg(test)]
mod tests;
