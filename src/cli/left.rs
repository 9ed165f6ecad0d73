//! What pushes have left, where no agent runs: the index and the record of failures on a primary, the records in the
//! roots on a secondary. Only looks: it makes nothing, and waits for nobody.

use std::time::{Duration, SystemTime};

use super::fleet::{is_own, is_primary, own_name};
use super::history::History;
use super::index::index_file;
use super::paused::Paused;
use super::receive::roots_here;
use super::render::shown_path;
use super::state_dir::StateDir;
use crate::config::Config;
use crate::index::{HostRecord, Index, Peek};
use crate::model::Timestamp;
use crate::receive::decode_state;
use crate::status::{FleetStatus, HostState, HostStatus, Role, RootState, RootStatus, SCHEMA};
use crate::tree::{Root, RootError, read_dated_state};

/// What is left of the fleet here. Nothing is known where no root has a sequence.
///
/// # Errors
/// One line: the state directory or the list of paused hosts cannot be used.
pub(super) fn status(config: &Config, state: Option<&StateDir>) -> Result<FleetStatus, String> {
    let own = own_name();
    let now_ms = now_ms();
    let mut status = FleetStatus {
        schema: SCHEMA,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: config.fleet.clone(),
        host: own.clone(),
        primary: config.role.as_ref().and_then(|role| role.primary.clone()),
        time_ms: now_ms,
        ..FleetStatus::default()
    };
    let may_be_primary = is_primary(config, &own);
    if let Some(state) = state.filter(|_| may_be_primary) {
        status.roots = pushed(config, state, &own, now_ms)?;
    }
    let has_pushed = status.roots.iter().any(|root| root.sequence > 0);
    // A file that does not say who is primary leaves it to what was done.
    if may_be_primary && (has_pushed || config.role.is_some()) {
        status.role = Role::Primary;
        status.primary = Some(own);
        return Ok(status);
    }
    let (roots, primary) = received(config);
    let has_received = roots.iter().any(|root| root.sequence > 0);
    if !may_be_primary || has_received {
        status.role = Role::Secondary;
        status.primary = status.primary.or(primary.map(|(_, primary)| primary));
    }
    status.roots = roots;
    Ok(status)
}

/// The roots of a primary, as its last push left them.
fn pushed(config: &Config, state: &StateDir, own: &str, now_ms: u64) -> Result<Vec<RootStatus>, String> {
    let history = History::load(state, &config.fleet);
    let paused = Paused::load(state, &config.fleet)?;
    let mut roots = Vec::new();
    for root in &config.roots {
        let mut one = RootStatus { name: root.name.clone(), path: shown_path(&root.path), ..RootStatus::default() };
        let peek = match Index::peek(&index_file(state.path(), &config.fleet, &root.name)) {
            Ok(peek) => peek.unwrap_or_default(),
            Err(error) => {
                one.notes.push(error.to_string());
                Peek::default()
            }
        };
        (one.sequence, one.entries) = (peek.sequence.0, peek.entries);
        if one.sequence > 0 {
            one.state = RootState::Ok;
        }
        let others = config.static_hosts().into_iter().filter(|host| !is_own(&host.name, own));
        one.hosts = others
            .map(|host| {
                let record = peek.hosts.iter().find(|(name, _)| *name == host.name).map(|(_, record)| record);
                let mut one = of_host(record, &peek, now_ms);
                if let Some((failures, error, next_s)) = history.failures(&host.name, now_ms / 1000) {
                    one.state = HostState::Failed;
                    (one.failures, one.error) = (u64::from(failures), Some(error.to_owned()));
                    one.next_try_ms = Some(next_s * 1000);
                }
                if paused.since(&host.name).is_some() {
                    one.state = HostState::Paused;
                }
                HostStatus { name: host.name, address: host.address, ..one }
            })
            .collect();
        roots.push(one);
    }
    Ok(roots)
}

/// What the index knows of a host.
fn of_host(record: Option<&HostRecord>, peek: &Peek, now_ms: u64) -> HostStatus {
    let Some(record) = record else { return HostStatus::default() };
    let seen_ms = record.seen.max(record.reconciled).saturating_mul(1000);
    let behind = peek.sequence.0.saturating_sub(record.sequence.0);
    let one = HostStatus { sequence: record.sequence.0, ..HostStatus::default() };
    if record.incomplete {
        return HostStatus { state: HostState::Partial, ..one };
    }
    if behind == 0 {
        return HostStatus { state: HostState::Current, pending: Some(0), success_ms: Some(seen_ms), ..one };
    }
    HostStatus {
        state: HostState::Failed,
        pending: Some(behind),
        // It had everything when it was last heard of, so what it lacks is younger.
        success_ms: Some(seen_ms),
        lag_s: Duration::from_millis(now_ms.saturating_sub(seen_ms)).as_secs_f64(),
        error: Some("the last push did not bring everything over".to_owned()),
        ..one
    }
}

/// The roots of a secondary, as they are here, and the last of the primaries that wrote them, with its term.
pub(super) fn received(config: &Config) -> (Vec<RootStatus>, Option<(u64, String)>) {
    let mut primary: Option<(u64, String)> = None;
    let mut roots = Vec::new();
    for (name, path) in roots_here(config) {
        let mut one = RootStatus { name, path: shown_path(&path), ..RootStatus::default() };
        let opened = match Root::open(&path) {
            Err(RootError::Missing(_)) => Ok(None),
            opened => opened.map_err(|error| error.to_string()).and_then(|root| {
                read_dated_state(&root).map_err(|error| format!("{}: .rfleet/state: {error}", one.path))
            }),
        };
        match opened {
            Ok(None) => {}
            Err(error) => one.notes.push(error),
            Ok(Some((bytes, written))) => match decode_state(&bytes) {
                None => one.notes.push("its record, .rfleet/state, is damaged: the next push compares".to_owned()),
                Some(state) if state.fleet != config.fleet || state.root != one.name => {
                    one.notes.push(format!("it is root {} of fleet {}", state.root, state.fleet));
                }
                Some(state) => {
                    one.sequence = state.position.sequence.0;
                    if one.sequence > 0 {
                        (one.state, one.committed_ms) = (RootState::Ok, Some(ms(written)));
                    } else {
                        one.notes
                            .push("not all of it is known to be here: a push was interrupted, or had problems".into());
                    }
                    if primary.as_ref().is_none_or(|(term, _)| *term <= state.term.0) {
                        primary = Some((state.term.0, state.primary));
                    }
                }
            },
        }
        roots.push(one);
    }
    (roots, primary)
}

fn ms(time: Timestamp) -> u64 {
    u64::try_from(time.secs).unwrap_or(0).saturating_mul(1000) + u64::from(time.nanos / 1_000_000)
}

/// The time, in milliseconds after 1970.
pub(super) fn now_ms() -> u64 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}
