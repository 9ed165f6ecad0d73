//! Over real connections, with a feed of the test's own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Limits, Metrics, Settings, page, serve};
use crate::status::{
    AgentState, AgentStatus, Doing, FleetStatus, HISTORY_POINTS, HookStatus, HostState, HostStatus, LagPoint,
    PathProblem, Role, RootState, RootStatus, WatchMode, WatchStatus,
};

mod exposition;

/// Whatever waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server under test.
struct Served {
    address: SocketAddr,
    status: watch::Sender<Arc<FleetStatus>>,
    metrics: Metrics,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Served {
    async fn start(status: FleetStatus) -> Served {
        Served::with(status, |settings| settings).await
    }

    async fn with(status: FleetStatus, change: impl FnOnce(Settings) -> Settings) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, feed) = watch::channel(Arc::new(status));
        let (shutdown, stop) = watch::channel(false);
        let metrics = Metrics::default();
        let settings = change(Settings::new("web1.example.org", &[], None));
        let task = tokio::spawn(serve(listener, feed, metrics.clone(), settings, stop));
        Served { address, status, metrics, shutdown, task }
    }

    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer").unwrap();
        String::from_utf8(bytes).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, host: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = self.send(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "localhost").await
    }
}

fn problem(path: &str, detail: &str) -> PathProblem {
    PathProblem { path: path.into(), kind: "denied".into(), detail: detail.into() }
}

fn host(name: &str, state: HostState) -> HostStatus {
    HostStatus { name: name.into(), address: name.into(), state, pending: Some(0), ..HostStatus::default() }
}

/// A primary's status with something of everything.
pub(super) fn full() -> FleetStatus {
    let history = (0..HISTORY_POINTS as u64).map(|at| LagPoint {
        at_ms: 1_800_000_000_000 + at * 10_000,
        lag_s: (at % 17) as f64 / 2.0,
        failed: at % 20 == 19,
    });
    let busy = HostStatus {
        address: "10.0.0.2:2222".into(),
        sequence: 1_233_000,
        lag_s: 3.25,
        pending: Some(1_567),
        success_ms: Some(1_800_000_588_000),
        commits: 40,
        files_sent: 9_000,
        bytes_sent: 3 << 30,
        drifted: 2,
        now: Some(Doing {
            phase: "sending".into(),
            since_ms: 1_800_000_597_000,
            files: 640,
            files_total: 1_500,
            bytes: 400 << 20,
            bytes_total: 1 << 30,
        }),
        history: history.collect(),
        ..host("web2", HostState::Busy)
    };
    let failed = HostStatus {
        lag_s: 4_000.0,
        pending: None,
        success_ms: Some(1_799_996_600_000),
        next_try_ms: Some(1_800_000_642_000),
        error: Some("ssh: connect to host web3 port 22: No route to host".into()),
        failures: 12,
        history: vec![LagPoint::default(); 1],
        ..host("web3", HostState::Failed)
    };
    let partial = HostStatus {
        success_ms: Some(1_800_000_599_000),
        problems: vec![problem("a/b c.txt", "permission denied"), problem("d\\xff", "no space")],
        problem_count: 25,
        hooks: vec![HookStatus {
            command: "systemctl reload php-fpm".into(),
            detail: "exit 1".into(),
            ..Default::default()
        }],
        ..host("web4", HostState::Partial)
    };
    let root = RootStatus {
        name: "uploads".into(),
        path: "/srv/uploads".into(),
        state: RootState::Ok,
        sequence: 1_234_567,
        entries: 250_000,
        bytes: 80 << 30,
        dirty: 3,
        scanned_ms: Some(1_800_000_570_000),
        scan_s: Some(2.75),
        scans: 12,
        watch: WatchStatus {
            mode: WatchMode::Events,
            directories: 20_000,
            overflows: 1,
            reason: Some("no more watches: raise fs.inotify.max_user_watches".into()),
        },
        problems: vec![problem("odd", "unreadable")],
        problem_count: 1,
        notes: vec!["1 file is larger than 1 GiB".into()],
        hosts: vec![host("web5", HostState::Current), busy, failed, partial, host("web6", HostState::Paused)],
        ..RootStatus::default()
    };
    let refused = RootStatus {
        name: "site".into(),
        path: "/srv/site".into(),
        state: RootState::Refused,
        sequence: 7,
        refused: Some("40,000 of 41,000 entries would be deleted".into()),
        hosts: vec![host("web2", HostState::Refused), host("web3", HostState::Unknown)],
        ..RootStatus::default()
    };
    FleetStatus {
        schema: crate::status::SCHEMA,
        software: "0.1.0".into(),
        fleet: "cms".into(),
        host: "web1".into(),
        role: Role::Primary,
        primary: Some("web1".into()),
        term: 3,
        time_ms: 1_800_000_600_000,
        agent: Some(AgentStatus {
            pid: 7,
            started_ms: 1_799_990_000_000,
            state: AgentState::Degraded,
            reasons: vec!["uploads: no more watches".into()],
        }),
        roots: vec![root, refused],
    }
}

#[tokio::test]
async fn each_path_has_its_document_and_nothing_else_is_there() {
    let served = Served::start(full()).await;
    let json = served.get("/status.json").await;
    assert_eq!(serde_json::from_str::<FleetStatus>(&json.body).unwrap(), full());
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/status.json", "application/json"),
        ("/metrics", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
    ] {
        let answer = served.get(path).await;
        assert_eq!(answer.code, 200, "{path}");
        assert!(answer.head.contains(&format!("\r\ncontent-type: {kind}")), "{path}: {}", answer.head);
        let head = served.ask("HEAD", path, "localhost").await;
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
    }
    for path in ["/status", "/index.html", "/../etc/passwd", "/%2e%2e/etc/passwd", "/status.json/"] {
        assert_eq!(served.get(path).await.code, 404, "{path}");
    }
    assert_eq!(served.get("/status.json?x=1").await.code, 200, "a query changes nothing");
}

#[tokio::test]
async fn a_new_status_is_what_the_next_request_gets() {
    let served = Served::start(full()).await;
    for term in [5, 6] {
        served.status.send_replace(Arc::new(FleetStatus { term, ..full() }));
        let json = served.get("/status.json").await;
        assert_eq!(serde_json::from_str::<FleetStatus>(&json.body).unwrap().term, term);
        assert!(served.get("/").await.body.contains(&format!(", term {term}")));
        assert!(served.get("/metrics").await.body.contains(&format!("\nrfleet_term {term}\n")));
    }
    for cycles in 1..3 {
        served.metrics.cycle("uploads", 0.5);
        let count = format!("\nrfleet_cycle_duration_seconds_count{{root=\"uploads\"}} {cycles}\n");
        assert!(served.get("/metrics").await.body.contains(&count), "what was recorded is there as well: {count}");
    }
}

#[tokio::test]
async fn it_can_only_be_read() {
    let served = Served::start(full()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let answer = served.ask(method, "/status.json", "localhost").await;
        assert_eq!(answer.code, 405, "{method}");
        assert!(answer.head.contains("\r\nallow: get, head"), "{}", answer.head);
    }
}

#[tokio::test]
async fn other_names_are_refused_so_that_no_web_page_reads_it() {
    let served = Served::with(full(), |settings| Settings { names: vec!["web1".into()], ..settings }).await;
    for path in ["/", "/status.json", "/metrics", "/healthz", "/readyz", "/nothing"] {
        let answer = served.ask("GET", path, "evil.example:9460").await;
        assert_eq!(answer.code, 403, "{path}");
        assert!(!answer.body.contains("cms"), "nothing is said: {}", answer.body);
    }
    for name in ["web1", "localhost:1", "127.0.0.1", "[::1]:9460"] {
        assert_eq!(served.ask("GET", "/healthz", name).await.code, 200, "{name}");
    }
    let answer = served.send("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = served.send("GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "a probe: {answer}");
}

#[tokio::test]
async fn every_answer_keeps_browsers_from_guessing_framing_and_storing() {
    let served = Served::start(full()).await;
    let refused = served.ask("GET", "/", "evil.example").await;
    let posted = served.ask("POST", "/", "localhost").await;
    let others =
        [served.get("/").await, served.get("/status.json").await, served.get("/nothing").await, refused, posted];
    for answer in others {
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
            "content-security-policy: default-src 'none';",
        ] {
            assert!(answer.head.contains(&format!("\r\n{header}")), "{header}: {}", answer.head);
        }
        assert!(!answer.head.contains("access-control"), "{}", answer.head);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_kept_up_to_date_is_no_health() {
    // Without a connection: time stands still until everything waits.
    let (status, receiver) = watch::channel(Arc::new(full()));
    let feed = super::feed::Feed::new(receiver);
    let follower = tokio::spawn({
        let feed = feed.clone();
        async move { feed.follow().await }
    });
    let stale_after = Duration::from_secs(30);
    let healthy = || super::health::unhealthy(&feed.latest(), stale_after).is_none();
    assert!(healthy());
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(healthy());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!healthy());
    status.send_replace(Arc::new(full()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(healthy(), "it is there again");
    drop(status);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!healthy(), "nobody will say anything any more");
    assert_eq!(feed.latest().status.fleet, "cms", "what was said last is still shown");
    follower.abort();
}

#[tokio::test]
async fn health_and_readiness_say_why_not() {
    let served =
        Served::with(FleetStatus::default(), |settings| Settings { stale_after: Duration::ZERO, ..settings }).await;
    let answer = served.get("/healthz").await;
    assert_eq!(answer.code, 503);
    assert!(answer.body.starts_with("the agent said nothing for "), "{}", answer.body);
    let answer = served.get("/readyz").await;
    assert_eq!((answer.code, answer.body.lines().count()), (503, 2), "{}", answer.body);
    assert!(served.get("/").await.body.contains("The agent said nothing for "));
}

#[tokio::test]
async fn clients_that_dawdle_lose_their_connection_and_others_are_served() {
    let limits = Limits { connections: 3, head: Duration::from_millis(300), ..Limits::default() };
    let served = Served::with(full(), |settings| Settings { limits, ..settings }).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(served.get("/healthz").await.code, 200, "in its turn, after those before it were given up");
    for stream in &mut slow {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("it was ended");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let limits = Limits {
        connections: 1,
        connection: Duration::from_secs(2),
        grace: Duration::from_secs(1),
        ..Limits::default()
    };
    let long = FleetStatus { fleet: "x".repeat(32 << 20), ..full() };
    let served = Served::with(long, |settings| Settings { limits, ..settings }).await;
    let mut greedy = TcpStream::connect(served.address).await.unwrap();
    greedy.write_all(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(served.get("/healthz").await.code, 200, "the only connection is free again");
    let mut bytes = Vec::new();
    let _ = greedy.read_to_end(&mut bytes).await;
    assert!(bytes.len() < 32 << 20, "it did not get all");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let served = Served::start(full()).await;
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(100));
    for request in [long, many] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // It may be refused before it is read to its end.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
        let answer = String::from_utf8_lossy(&bytes);
        assert!(bytes.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(served.get("/healthz").await.code, 200);
}

#[tokio::test]
async fn at_the_end_answers_under_way_are_given_and_the_port_is_free() {
    let served = Served::start(full()).await;
    let mut kept = TcpStream::connect(served.address).await.unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    kept.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    served.shutdown.send_replace(true);
    timeout(PATIENCE, served.task).await.expect("an idle connection holds nothing up").unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, kept.read_to_end(&mut rest)).await.expect("it was closed").unwrap();
    assert!(rest.ends_with(b"ok\n"));
    TcpListener::bind(served.address).await.expect("nobody listens there any more");
}

#[tokio::test]
async fn it_ends_when_nobody_can_tell_it_to_any_more() {
    let Served { shutdown, task, .. } = Served::start(full()).await;
    drop(shutdown);
    timeout(PATIENCE, task).await.expect("it ends").unwrap();
}

/// What a hostile host, path or error may say.
const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'><!--fleet-->&amp;<!--title-->";

fn hostile() -> FleetStatus {
    let text = || HOSTILE.to_owned();
    let mut status = full();
    (status.software, status.fleet, status.host, status.primary) = (text(), text(), text(), Some(text()));
    status.role = Role::Secondary;
    status.agent.as_mut().unwrap().reasons = vec![text()];
    for root in &mut status.roots {
        (root.name, root.path, root.refused, root.notes) = (text(), text(), Some(text()), vec![text()]);
        (root.watch.reason, root.problems, root.problem_count) = (Some(text()), vec![problem(HOSTILE, HOSTILE)], 1);
        for host in &mut root.hosts {
            (host.name, host.address, host.error) = (text(), text() + "x", Some(text()));
            (host.problems, host.problem_count) = (vec![problem(HOSTILE, HOSTILE)], 2);
            host.hooks = vec![HookStatus { command: text(), detail: text(), ..HookStatus::default() }];
            host.now = Some(Doing { phase: text(), ..Doing::default() });
        }
    }
    status
}

/// The names of all elements of a page, and all attributes that do something.
fn markup(page: &str) -> (BTreeSet<String>, usize) {
    let mut names = BTreeSet::new();
    let mut scripts = 0;
    for tag in page.split('<').skip(1) {
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric() || "!/-".contains(*c)).collect();
        scripts += usize::from(name == "script");
        names.insert(name);
    }
    (names, scripts)
}

#[test]
fn what_hosts_paths_and_errors_say_is_text() {
    let (clean, hostile) = (page::render(&full(), None), page::render(&hostile(), Some(9)));
    // The fleet's part alone: scripts compare with `<`.
    let part = |page: &str| page.split_once("<main").unwrap().1.split_once("</main>").unwrap().0.to_owned();
    let ((clean_names, _), (hostile_names, scripts)) = (markup(&part(&clean)), markup(&part(&hostile)));
    assert_eq!(scripts, 0);
    let added: Vec<_> = hostile_names.difference(&clean_names).collect();
    assert!(added.is_empty(), "{added:?}");
    assert!(!part(&hostile).contains("\"'>"), "no attribute is left");
    assert!(part(&hostile).matches("&lt;script&gt;alert(1)&lt;/script&gt;").count() > 50, "it is all there, as text");
    assert_eq!(hostile.matches("<title>").count(), 1);
    let title = hostile.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
    assert!(!title.contains('<'), "{title}");
    assert_eq!(hostile.matches("<script>").count(), 1, "the page's own");
    // What the browser draws goes through text nodes and attributes that are no code.
    let script = clean.split_once("<script>").unwrap().1;
    for way in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "DOMParser"] {
        assert!(!script.contains(way), "{way}");
    }
}

#[test]
fn the_page_loads_and_runs_nothing_but_what_its_policy_names() {
    let page = page::render(&full(), None);
    let digest = |from: &str, to: &str| {
        let inner = page.split_once(from).unwrap().1.split_once(to).unwrap().0;
        format!("'sha256-{}'", base64(&Sha256::digest(inner.as_bytes())))
    };
    let (style, script) = (digest("<style>", "</style>"), digest("<script>", "</script>"));
    assert!(page::POLICY.contains(&format!("style-src {style};")), "the style is {style}");
    assert!(page::POLICY.contains(&format!("script-src {script};")), "the script is {script}");
    assert_eq!((page.matches("<script").count(), page.matches("<style").count()), (1, 1));
    for way in ["http:", "https:", " src=", "@import", "url(", " style=", " onclick", "javascript:"] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(way), "{way}");
    }
}

#[test]
fn the_page_says_what_an_operator_wants_to_know() {
    let page = page::render(&full(), None);
    for text in [
        "<h1>cms</h1>",
        "web1: primary, term 3, rfleet 0.1.0, up 2 h 56 min",
        "uploads: no more watches",
        "raise fs.inotify.max_user_watches",
        "file events, 20,000 directories, 1 overflow",
        "30 s ago, took 2.8 s",
        "refused: 40,000 of 41,000 entries would be deleted",
        "12 failures in a row; next try in 42 s",
        "12 s ago",
        "640 of 1,500 files, 400 MiB of 1.0 GiB",
        "25 problems",
        "and 23 more",
        "hook systemctl reload php-fpm: exit 1",
        "all to be compared",
        "with failures",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
    let at = |text: &str| page.find(text).unwrap();
    assert!(at("data-key=\"h web3\"") < at("data-key=\"h web4\""), "what failed comes first");
    assert!(at("data-key=\"h web2\"") < at("data-key=\"h web5\""), "and what is well last");
    assert!(page.contains("<noscript>"));
}

/// As in RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0_u32, |word, at| word << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at <= three.len() { letter } else { '=' });
        }
    }
    text
}
