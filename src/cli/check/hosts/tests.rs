use std::time::Duration;

use super::*;
use crate::model::Fidelity;
use crate::push::Reach;
use crate::wire::RootState;

fn question() -> Question {
    Question {
        request: ProbeRequest {
            fleet: Some("cms".into()),
            root: "uploads".into(),
            term: Term(0),
            primary: "web1".into(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
        },
        delete: true,
        size: Some(Size { bytes: 1000, entries: 100 }),
    }
}

fn used() -> Probe {
    Probe {
        software: env!("CARGO_PKG_VERSION").into(),
        protocol: 1,
        fidelity: Fidelity::FULL,
        allow_delete: true,
        state: Some(RootState {
            fleet: "cms".into(),
            root: "uploads".into(),
            term: Term(2),
            primary: "web1".into(),
            position: crate::model::Position::default(),
        }),
        foreign_entries: None,
        free_bytes: Some(10_000),
        free_inodes: None,
        writable: true,
        notes: Vec::new(),
    }
}

fn unused(entries: u64) -> Probe {
    Probe { state: None, foreign_entries: Some(entries), ..used() }
}

fn statuses(answer: Result<Probe, ProbeError>) -> Vec<(&'static str, Status)> {
    let found = judge(&[(&question(), answer)], true);
    found.iter().map(|finding| (finding.check, finding.status)).collect()
}

const SSH: (&str, Status) = ("ssh", Status::Ok);
const RECEIVER: (&str, Status) = ("receiver", Status::Ok);
const ROOT: (&str, Status) = ("root", Status::Ok);
const WRITABLE: (&str, Status) = ("writable", Status::Ok);
const SPACE: (&str, Status) = ("space", Status::Ok);

#[test]
fn a_host_in_order_gets_one_line_for_each_check() {
    assert_eq!(statuses(Ok(used())), [SSH, RECEIVER, ROOT, WRITABLE, SPACE]);
    assert_eq!(statuses(Ok(unused(0))), [SSH, RECEIVER, ROOT, WRITABLE, SPACE]);
}

#[test]
fn what_would_stop_a_push_fails_and_what_would_surprise_warns() {
    let warn = |check| (check, Status::Warn);
    let fail = |check| (check, Status::Fail);
    assert_eq!(statuses(Ok(unused(7)))[2], warn("root"));
    assert_eq!(statuses(Ok(Probe { foreign_entries: None, ..unused(0) }))[2], warn("root"));
    assert_eq!(statuses(Ok(Probe { software: "0.0.1".into(), ..used() }))[1], warn("receiver"));
    assert_eq!(statuses(Ok(Probe { allow_delete: false, ..used() }))[3], warn("root"));
    assert_eq!(statuses(Ok(Probe { writable: false, ..used() }))[3], fail("writable"));
    assert_eq!(statuses(Ok(Probe { free_bytes: Some(999), ..unused(0) }))[4], fail("space"));
    assert_eq!(statuses(Ok(Probe { free_inodes: Some(99), ..unused(0) }))[4], fail("space"));
    assert_eq!(statuses(Ok(Probe { free_bytes: Some(999), ..unused(7) }))[4], warn("space"));
    assert_eq!(statuses(Ok(Probe { free_bytes: Some(999), ..used() }))[4], SPACE);
    assert_eq!(statuses(Ok(Probe { free_bytes: Some(49), ..used() }))[4], warn("space"));
    assert_eq!(statuses(Ok(Probe { free_bytes: None, ..used() }))[4], warn("space"));
}

#[test]
fn a_failure_is_put_where_it_arose() {
    assert_eq!(statuses(Err(ProbeError::Connect("host key".into()))), [("ssh", Status::Fail)]);
    assert_eq!(statuses(Err(ProbeError::Receiver("not found".into()))), [SSH, ("receiver", Status::Fail)]);
    let refused = |kind| Err(ProbeError::Refused(Refusal { kind, message: "no".into() }));
    assert_eq!(statuses(refused(RefusalKind::Protocol)), [SSH, ("receiver", Status::Fail)]);
    assert_eq!(statuses(refused(RefusalKind::OtherFleet)), [SSH, ("root", Status::Fail)]);
    assert_eq!(statuses(refused(RefusalKind::UnknownRoot)), [SSH, ("root", Status::Fail)]);
}

#[test]
fn a_missing_receiver_is_said_once_for_all_roots() {
    let (first, second) = (question(), question());
    let error = || Err(ProbeError::Receiver("not found".into()));
    let found = judge(&[(&first, error()), (&second, error())], true);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[tokio::test]
async fn a_command_that_cannot_be_started_or_is_no_receiver_is_told_apart() {
    let look = async |argv: &[&str]| {
        let endpoint = Endpoint::new("local", Reach::Local);
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        probe(&endpoint, &argv, &question().request).await
    };
    assert!(matches!(look(&["/nonexistent/rfleet"]).await, Err(ProbeError::Connect(_))));
    assert!(matches!(look(&["true"]).await, Err(ProbeError::Receiver(_))));
    assert!(matches!(look(&["echo", "Welcome to this machine"]).await, Err(ProbeError::Receiver(_))));
}
