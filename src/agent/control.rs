//! The socket by which others on this host ask the agent: one request a line, one answer a line.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::StatusReceiver;
use super::pushes::PushNow;
use crate::control::{
    Answer, HostAction, HostDone, MAX_REQUEST_BYTES, MAX_WAIT_PATHS, PathInRoot, Refusal, Request, SOCKET, WaitDone,
    WaitHosts, WaitPath, from_line, to_line, unescape,
};
use crate::push::RootReport;
use crate::status::{FleetStatus, HostState, HostStatus, Role, RootStatus};

/// Callers at a time; more wait for their turn.
const CALLERS: usize = 64;

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the owner is asked.
pub(super) enum Asked {
    Status(oneshot::Sender<Arc<FleetStatus>>),
    Host(HostAction, String, Reply<HostDone>),
    Push(PushNow, oneshot::Sender<Vec<oneshot::Receiver<RootReport>>>),
    /// Names of roots, all if there are none.
    Wait(Vec<String>, WaitHosts, oneshot::Sender<Vec<oneshot::Receiver<Result<WaitDone, Refusal>>>>),
}

/// The socket; it goes when this is dropped.
pub(super) struct Socket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        // Whoever starts next makes a new one in any case.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens in the directory `state`, which is private and whose lock the caller has.
///
/// # Errors
/// One line: the socket cannot be made.
pub(super) fn listen(
    state: &Path,
    tell: impl Fn(Asked) + Clone + Send + Sync + 'static,
    status: StatusReceiver,
) -> Result<Socket, String> {
    let path = state.join(SOCKET);
    let failed = |error: io::Error| format!("the socket {} cannot be made: {error}", path.display());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let task = tokio::spawn(async move {
        let turns = Arc::new(Semaphore::new(CALLERS));
        loop {
            // The semaphore is never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (tell, status) = (tell.clone(), status.clone());
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, &tell, &status).await {
                            tracing::debug!("a caller went away: {error}");
                        }
                        drop(turn);
                    });
                }
                // Out of descriptors, say: not at once again.
                Err(error) => {
                    tracing::warn!("nobody can ask: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(Socket { path, task })
}

async fn serve(mut stream: UnixStream, tell: &(impl Fn(Asked) + Sync), status: &StatusReceiver) -> io::Result<()> {
    let (input, mut output) = stream.split();
    let mut input = BufReader::new(input);
    loop {
        let mut line = Vec::new();
        let most = u64::try_from(MAX_REQUEST_BYTES).unwrap_or(u64::MAX);
        (&mut input).take(most).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let answer = match from_line::<Request>(&line) {
            Ok(request) => answered(request, tell, status).await,
            Err(error) => bytes(&refused::<()>(format!("this is no request: {error}"))),
        };
        output.write_all(&answer).await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
    }
}

fn refused<T>(error: String) -> Result<T, Refusal> {
    Err(Refusal { error, late: Vec::new() })
}

fn bytes<T: serde::Serialize + Clone>(result: &Result<T, Refusal>) -> Vec<u8> {
    // Plain data always makes JSON.
    to_line(&Answer::new(result.clone())).unwrap_or_default()
}

async fn answered(request: Request, tell: &(impl Fn(Asked) + Sync), status: &StatusReceiver) -> Vec<u8> {
    let ends = || Refusal { error: "the agent is ending".into(), late: Vec::new() };
    match request {
        Request::Status {} => {
            let (reply, answer) = oneshot::channel();
            tell(Asked::Status(reply));
            bytes(&answer.await.map(|status| FleetStatus::clone(&status)).map_err(|_| ends()))
        }
        Request::Host { action, name } => {
            let (reply, answer) = oneshot::channel();
            tell(Asked::Host(action, name, reply));
            bytes(&answer.await.unwrap_or_else(|_| Err(ends())))
        }
        Request::Push { confirmed, adopt, full } => {
            bytes(&push(PushNow { confirmed, adopt, full }, tell, status).await)
        }
        Request::Wait { paths, hosts, timeout_ms } => {
            let time = Duration::from_millis(timeout_ms).min(LONGEST_WAIT);
            bytes(&wait(&paths, hosts, time, tell, status).await)
        }
    }
}

/// How the agent is, once it has spoken; refused where it is not the primary's.
async fn primary(status: &StatusReceiver) -> Result<Arc<FleetStatus>, Refusal> {
    let ends = |_| Refusal { error: "the agent is ending".into(), late: Vec::new() };
    let known = status.clone().wait_for(|status| status.role != Role::Unknown).await.map_err(ends)?.clone();
    match known.role {
        Role::Primary => Ok(known),
        _ => refused(format!("{} is not the primary; only that pushes", known.host)),
    }
}

async fn push(
    push: PushNow,
    tell: &(impl Fn(Asked) + Sync),
    status: &StatusReceiver,
) -> Result<Vec<RootReport>, Refusal> {
    primary(status).await?;
    let ends = |_| Refusal { error: "the agent is ending".into(), late: Vec::new() };
    let (reply, answer) = oneshot::channel();
    tell(Asked::Push(push, reply));
    let mut reports = Vec::new();
    for root in answer.await.map_err(ends)? {
        reports.push(root.await.map_err(ends)?);
    }
    Ok(reports)
}

async fn wait(
    paths: &[WaitPath],
    hosts: WaitHosts,
    time: Duration,
    tell: &(impl Fn(Asked) + Sync),
    status: &StatusReceiver,
) -> Result<WaitDone, Refusal> {
    if paths.len() > MAX_WAIT_PATHS {
        return refused(format!("{} paths at once are too many", paths.len()));
    }
    let ends = || Refusal { error: "the agent is ending".into(), late: Vec::new() };
    let known = primary(status).await?;
    let most = known.roots.iter().map(|root| root.hosts.len()).min().unwrap_or(0);
    if let WaitHosts::AtLeast(number) = hosts
        && number as usize > most
    {
        return refused(format!("there are {most} hosts, and never {number}"));
    }
    let roots = roots_of(paths, &known.roots)?;
    let (reply, answer) = oneshot::channel();
    tell(Asked::Wait(roots.clone(), hosts, reply));
    let barriers = answer.await.map_err(|_| ends())?;
    let all = async {
        let mut done: Option<WaitDone> = None;
        for barrier in barriers {
            let more = barrier.await.map_err(|_| ends())??;
            match &mut done {
                None => done = Some(more),
                Some(done) => done.hosts.retain(|host| more.hosts.contains(host)),
            }
        }
        Ok(done.unwrap_or_default())
    };
    match tokio::time::timeout(time, all).await {
        Ok(done) => done,
        Err(_) => {
            let (reply, answer) = oneshot::channel();
            tell(Asked::Status(reply));
            Err(late(&roots, &*answer.await.map_err(|_| ends())?))
        }
    }
}

/// The roots that `paths` lie in.
fn roots_of(paths: &[WaitPath], known: &[RootStatus]) -> Result<Vec<String>, Refusal> {
    let mut roots = Vec::new();
    for path in paths {
        let name = match path {
            WaitPath::InRoot(PathInRoot { root, .. }) => known.iter().find(|known| known.name == *root),
            WaitPath::Absolute(path) => {
                let plain = unescape(path);
                let inside = |known: &&RootStatus| {
                    let root = Path::new(&known.path);
                    let path = plain.as_ref().map(|plain| Path::new(std::ffi::OsStr::from_bytes(plain)));
                    path.is_some_and(|path| path.starts_with(root))
                };
                known.iter().filter(inside).max_by_key(|known| known.path.len())
            }
        };
        let Some(root) = name else {
            return refused(format!("{path:?} lies in no root of this agent"));
        };
        if !roots.contains(&root.name) {
            roots.push(root.name.clone());
        }
    }
    Ok(roots)
}

fn late(roots: &[String], status: &FleetStatus) -> Refusal {
    let waited = status.roots.iter().filter(|root| roots.is_empty() || roots.contains(&root.name));
    let mut late: Vec<String> = Vec::new();
    let mut refused = None;
    for root in waited {
        let is_refused = root.refused.is_some();
        refused = refused.or(root.refused.as_ref());
        let behind = |host: &&HostStatus| {
            let wrong =
                matches!(host.state, HostState::Unknown | HostState::Partial | HostState::Failed | HostState::Refused);
            // One that is at work may only be told that nothing is new.
            is_refused || wrong || host.sequence < root.sequence
        };
        late.extend(root.hosts.iter().filter(behind).map(|host| host.name.clone()));
    }
    if late.is_empty() {
        // What is waited for is not even recorded.
        let waited = status.roots.iter().filter(|root| roots.is_empty() || roots.contains(&root.name));
        late = waited.flat_map(|root| root.hosts.iter().map(|host| host.name.clone())).collect();
    }
    late.sort();
    late.dedup();
    let why = refused.map(|refused| format!("; refused: {refused}")).unwrap_or_default();
    Refusal { error: format!("not everywhere in time{why}"), late }
}
