//! What makes a host healthy and ready. Reasons are one line each; none is good.

use std::time::Duration;

use super::feed::Latest;
use super::words::span;
use crate::status::{AgentState, FleetStatus, Role, RootState, RootStatus};

/// Why the process is not healthy: nobody keeps its status up to date any more.
pub(super) fn unhealthy(latest: &Latest, stale_after: Duration) -> Option<String> {
    if latest.ended {
        return Some("the agent has ended, though its process has not".to_owned());
    }
    let age = latest.age;
    (age > stale_after).then(|| format!("the agent said nothing for {}", span(age.as_secs_f64())))
}

/// Why the host is not ready.
pub(super) fn not_ready(latest: &Latest, stale_after: Duration, max_age: Option<Duration>) -> Vec<String> {
    let mut reasons: Vec<String> = unhealthy(latest, stale_after).into_iter().collect();
    let status = &latest.status;
    match status.role {
        Role::Unknown => reasons.push("it is not known yet whether this host is the primary".to_owned()),
        Role::Primary => reasons.extend(not_begun(status).map(str::to_owned)),
        Role::Secondary => {
            if status.roots.is_empty() {
                reasons.push("no root is known".to_owned());
            }
            // By the clock that the root's own time is by.
            let now_ms = status.time_ms.saturating_add(u64::try_from(latest.age.as_millis()).unwrap_or(u64::MAX));
            reasons.extend(status.roots.iter().filter_map(|root| incomplete(root, now_ms, max_age)));
        }
    }
    reasons
}

/// Why a primary does not push, or not yet.
fn not_begun(status: &FleetStatus) -> Option<&'static str> {
    const FIRST: &str = "the first cycle is not done";
    let Some(agent) = &status.agent else { return Some(FIRST) };
    match agent.state {
        AgentState::Starting => Some(FIRST),
        AgentState::Stopping => Some("the agent is stopping"),
        // One may be degraded from the start.
        AgentState::Ok | AgentState::Degraded => {
            let begun = |root: &RootStatus| root.state != RootState::Unknown && root.sequence > 0;
            (!status.roots.iter().all(begun)).then_some(FIRST)
        }
    }
}

/// Why a root of a secondary is not what it should be.
fn incomplete(root: &RootStatus, now_ms: u64, max_age: Option<Duration>) -> Option<String> {
    let name = &root.name;
    let Some(committed_ms) = root.committed_ms.filter(|_| root.sequence > 0) else {
        return Some(format!("root {name}: nothing complete is here yet"));
    };
    let age = Duration::from_millis(now_ms.saturating_sub(committed_ms));
    let most = max_age.filter(|most| age > *most)?;
    let (age, most) = (span(age.as_secs_f64()), span(most.as_secs_f64()));
    Some(format!("root {name}: what is here was complete {age} ago, more than {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::AgentStatus;
    use std::sync::Arc;

    const STALE: Duration = Duration::from_secs(30);

    fn latest(status: FleetStatus, age_s: u64) -> Latest {
        Latest { status: Arc::new(status), age: Duration::from_secs(age_s), ended: false }
    }

    fn root(name: &str, sequence: u64, committed_ms: Option<u64>) -> RootStatus {
        RootStatus { name: name.into(), sequence, committed_ms, ..RootStatus::default() }
    }

    #[test]
    fn healthy_is_a_status_that_is_kept_up_to_date() {
        assert_eq!(unhealthy(&latest(FleetStatus::default(), 30), STALE), None);
        let old = unhealthy(&latest(FleetStatus::default(), 31), STALE).unwrap();
        assert_eq!(old, "the agent said nothing for 31 s");
        let ended = Latest { ended: true, ..latest(FleetStatus::default(), 0) };
        assert!(unhealthy(&ended, STALE).unwrap().contains("ended"));
    }

    #[test]
    fn a_primary_is_ready_between_its_first_cycle_and_its_end() {
        let ready = |state: Option<AgentState>| {
            let agent = state.map(|state| AgentStatus { state, ..AgentStatus::default() });
            let status = FleetStatus { role: Role::Primary, agent, ..FleetStatus::default() };
            not_ready(&latest(status, 0), STALE, None).is_empty()
        };
        assert!(ready(Some(AgentState::Ok)) && ready(Some(AgentState::Degraded)));
        assert!(!ready(Some(AgentState::Starting)) && !ready(Some(AgentState::Stopping)) && !ready(None));
        let degraded = |state, sequence| {
            let agent = Some(AgentStatus { state: AgentState::Degraded, ..AgentStatus::default() });
            let roots = vec![RootStatus { state, sequence, ..RootStatus::default() }];
            let status = FleetStatus { role: Role::Primary, agent, roots, ..FleetStatus::default() };
            not_ready(&latest(status, 0), STALE, None)
        };
        assert_eq!(degraded(RootState::Unknown, 5), ["the first cycle is not done"]);
        assert_eq!(degraded(RootState::Refused, 0), ["the first cycle is not done"]);
        assert!(degraded(RootState::Ok, 5).is_empty() && degraded(RootState::Refused, 5).is_empty());
        let unknown = not_ready(&latest(FleetStatus::default(), 100), STALE, None);
        assert_eq!(unknown.len(), 2, "stale, and without a role: {unknown:?}");
    }

    #[test]
    fn a_secondary_is_ready_when_every_root_is_complete_and_not_too_old() {
        let status = |roots| FleetStatus { role: Role::Secondary, time_ms: 100_000, roots, ..FleetStatus::default() };
        let good = root("a", 7, Some(40_000));
        let ready =
            |roots, most: Option<u64>| not_ready(&latest(status(roots), 10), STALE, most.map(Duration::from_secs));
        assert!(ready(vec![good.clone()], None).is_empty());
        assert!(ready(vec![good.clone()], Some(70)).is_empty(), "exactly 60 s, and 10 since it was said");
        assert_eq!(
            ready(vec![good.clone()], Some(69)),
            ["root a: what is here was complete 1 min 10 s ago, more than 1 min 9 s"]
        );
        let bad = vec![good, root("b", 0, Some(1)), root("c", 3, None)];
        let reasons = ready(bad, None);
        assert_eq!(reasons, ["root b: nothing complete is here yet", "root c: nothing complete is here yet"]);
        assert_eq!(ready(vec![], None), ["no root is known"]);
    }
}
