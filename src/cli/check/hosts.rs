//! The hosts, as a push would meet them.

use std::sync::Arc;

use indicatif::{HumanBytes, HumanCount};
use tokio::sync::Semaphore;

use super::sources::Size;
use super::{Finding, Output, Status, fails};
use crate::config::{Config, RootConfig};
use crate::model::{OwnerFidelity, Term};
use crate::push::{Endpoint, Probe, ProbeError, ProbeRequest, probe};
use crate::wire::{Refusal, RefusalKind};

/// A host that has its content already is warned of below this share of the source's size: the next
/// changes come on top, and each is staged before it replaces the old content.
const SPARE_SHARE: u64 = 20;

/// What all hosts are asked.
struct Questions {
    roots: Vec<Question>,
    /// Most hosts at a time.
    slots: Semaphore,
}

struct Question {
    request: ProbeRequest,
    delete: bool,
    size: Option<Size>,
}

/// Asks all hosts side by side and prints the answers in the order given. Whether one failed.
pub(super) async fn look_at(
    config: &Config,
    own: &str,
    sizes: Vec<Option<Size>>,
    endpoints: Vec<(Arc<Endpoint>, Vec<Vec<String>>)>,
    output: &mut Output,
) -> bool {
    if endpoints.is_empty() {
        output.add(vec![Finding::new("hosts", Status::Warn, "there are no secondaries to push to")]);
    }
    let question = |(root, size): (&RootConfig, Option<Size>)| Question {
        request: ProbeRequest {
            fleet: Some(config.fleet.clone()),
            root: root.name.clone(),
            term: Term(0),
            primary: own.to_owned(),
            connect_timeout: config.ssh.connect_timeout,
            timeout: config.push.timeout,
        },
        delete: root.delete,
        size,
    };
    let questions = Arc::new(Questions {
        roots: config.roots.iter().zip(sizes).map(question).collect(),
        slots: Semaphore::new(usize::try_from(config.push.parallel).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)),
    });
    let ask = |(endpoint, receivers): (Arc<Endpoint>, Vec<Vec<String>>)| {
        let name = endpoint.name.clone();
        (name, tokio::spawn(look_at_host(Arc::clone(&questions), endpoint, receivers)))
    };
    let asked: Vec<_> = endpoints.into_iter().map(ask).collect();
    let mut failed = false;
    for (name, answers) in asked {
        let mut found = answers.await.unwrap_or_else(|error| {
            vec![Finding::new("receiver", Status::Fail, format!("could not be checked: {error}"))]
        });
        found.iter_mut().for_each(|finding| finding.host = Some(name.clone()));
        failed |= fails(&found);
        output.add(found);
    }
    failed
}

async fn look_at_host(questions: Arc<Questions>, endpoint: Arc<Endpoint>, receivers: Vec<Vec<String>>) -> Vec<Finding> {
    // The slots are never closed; without one the host would be asked all the same.
    let _slot = questions.slots.acquire().await;
    let mut answers = Vec::new();
    for (question, receiver) in questions.roots.iter().zip(&receivers) {
        let answer = probe(&endpoint, receiver, &question.request).await;
        let unreachable = matches!(answer, Err(ProbeError::Connect(_)));
        answers.push((question, answer));
        if unreachable {
            break;
        }
    }
    endpoint.close().await;
    judge(&answers, endpoint.is_remote())
}

fn judge(answers: &[(&Question, Result<Probe, ProbeError>)], remote: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let link = if remote { "ssh" } else { "command" };
    match answers.iter().find_map(|(_, answer)| answer.as_ref().err()) {
        Some(ProbeError::Connect(error)) => found.push(Finding::new(link, Status::Fail, error.as_str())),
        _ if answers.is_empty() => {}
        _ if remote => found.push(Finding::new(link, Status::Ok, "connected, and its host key is accepted")),
        _ => found.push(Finding::new(link, Status::Ok, "started")),
    }
    if let Some(probe) = answers.iter().find_map(|(_, answer)| answer.as_ref().ok()) {
        found.extend(judge_receiver(probe));
    }
    for (question, answer) in answers {
        let name = &question.request.root;
        match answer {
            Ok(probe) => found.extend(judge_root(question, probe)),
            Err(ProbeError::Connect(_)) => {}
            Err(ProbeError::Receiver(error)) => {
                // Said once: every root meets the same receiver.
                let finding = Finding::new("receiver", Status::Fail, error.as_str());
                if !found.contains(&finding) {
                    found.push(finding);
                }
            }
            Err(ProbeError::Refused(Refusal { kind: RefusalKind::Protocol, message })) => {
                let finding = Finding::new("receiver", Status::Fail, message.as_str());
                if !found.contains(&finding) {
                    found.push(finding);
                }
            }
            Err(ProbeError::Refused(refusal)) => {
                found.push(Finding::new("root", Status::Fail, format!("{name}: {}", refusal.message)));
            }
        }
    }
    found
}

fn judge_receiver(probe: &Probe) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let owners = match probe.fidelity.owner {
        OwnerFidelity::Kept => "owners are kept",
        OwnerFidelity::Fixed { .. } => "everything belongs to one owner",
        OwnerFidelity::Unset => "owners are not kept",
    };
    let (software, protocol) = (&probe.software, probe.protocol);
    let mut found = vec![if software == own {
        Finding::new("receiver", Status::Ok, format!("rfleet {software}, protocol {protocol}; {owners}"))
    } else {
        let detail = format!("rfleet {software}, protocol {protocol}, and here {own}; {owners}");
        Finding::new("receiver", Status::Warn, detail)
    }];
    found.extend(probe.notes.iter().map(|note| Finding::new("receiver", Status::Warn, note.as_str())));
    found
}

fn judge_root(question: &Question, probe: &Probe) -> Vec<Finding> {
    let name = &question.request.root;
    let mut found = Vec::new();
    found.push(match (&probe.state, probe.foreign_entries) {
        (Some(state), _) => {
            let detail = format!("{name}: used by this fleet, last by {} in term {}", state.primary, state.term.0);
            Finding::new("root", Status::Ok, detail)
        }
        (None, Some(0)) => Finding::new("root", Status::Ok, format!("{name}: not used yet, and nothing is in it")),
        (None, Some(entries)) => {
            let entries = HumanCount(entries);
            let detail = format!(
                "{name}: not used by this fleet before, and holds {entries} entries; a push that would delete or \
                 replace one of them is refused until --adopt is given once"
            );
            Finding::new("root", Status::Warn, detail)
        }
        (None, None) => {
            let detail = format!("{name}: not used by this fleet before; what it holds was not listed in time");
            Finding::new("root", Status::Warn, detail)
        }
    });
    if question.delete && !probe.allow_delete {
        let detail = format!("{name}: deletions are wanted here, and that host's own policy allows none");
        found.push(Finding::new("root", Status::Warn, detail));
    }
    found.push(if probe.writable {
        Finding::new("writable", Status::Ok, format!("{name}: the receiver may write to it"))
    } else {
        let detail = format!(
            "{name}: the receiver may not write to it, or cannot make it: look at owner, mode, a read-only mount, and \
                 whether the directory above exists"
        );
        Finding::new("writable", Status::Fail, detail)
    });
    found.extend(judge_space(question, probe));
    found
}

fn judge_space(question: &Question, probe: &Probe) -> Option<Finding> {
    let name = &question.request.root;
    let Some(free_bytes) = probe.free_bytes else {
        return Some(Finding::new("space", Status::Warn, format!("{name}: the host could not say how much is free")));
    };
    let inodes = probe.free_inodes.map_or(String::new(), |inodes| format!(" and {} inodes", HumanCount(inodes)));
    let free = format!("{name}: {}{inodes} free", HumanBytes(free_bytes));
    // Without a size, what is wrong with the source was said already.
    let size = question.size?;
    let source = format!("the source holds {} in {} entries", HumanBytes(size.bytes), HumanCount(size.entries));
    let has_room = |bytes, entries| free_bytes >= bytes && probe.free_inodes.is_none_or(|free| free >= entries);
    let first = probe.state.is_none();
    Some(if first && probe.foreign_entries == Some(0) && !has_room(size.bytes, size.entries) {
        Finding::new("space", Status::Fail, format!("{free}, and {source}: it does not fit"))
    } else if first && !has_room(size.bytes, size.entries) {
        Finding::new("space", Status::Warn, format!("{free}, and {source}: it may not fit"))
    } else if !has_room(size.bytes / SPARE_SHARE, size.entries / SPARE_SHARE) {
        Finding::new("space", Status::Warn, format!("{free}, and {source}: little is left for changes"))
    } else {
        Finding::new("space", Status::Ok, format!("{free}; {source}"))
    })
}

#[cfg(test)]
mod tests;
