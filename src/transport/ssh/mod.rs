//! SSH by the system's own client: its configuration, agents, keys and jump hosts all work.
//!
//! One connection (a control master) for each host; each receiver is a channel of it. A connection
//! is this process's own and ends with it, or is *kept*: the master outlives us, and the next
//! process finds its socket.

mod kept;
mod master;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openssh::{Session, Stdio};
use thiserror::Error;
use tokio::time::timeout;

use super::{ErrorText, Link, Peer, Process};

/// How long a connection of our own outlives the last channel. Only for the case that this process
/// is killed: otherwise it is closed at the end.
const LINGER: Duration = Duration::from_secs(60);

/// What to do with a host key that is not known yet. Checking is never turned off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeys {
    /// Refuse.
    #[default]
    Strict,
    /// Take a first one, refuse a changed one.
    AcceptNew,
}

/// How to connect, for all hosts.
#[derive(Clone, Debug, Default)]
pub struct SshOptions {
    /// An ssh_config file, instead of the user's and the system's.
    pub config: Option<PathBuf>,
    /// The only key to use.
    pub identity_file: Option<PathBuf>,
    /// The file of known host keys.
    pub known_hosts: Option<PathBuf>,
    /// What to do with a new host key.
    pub host_keys: HostKeys,
    /// Bound on connecting and on the first part of the handshake.
    pub connect_timeout: Duration,
    /// Keeps connections for later processes; `None` ends them with this one.
    pub keep: Option<SshKeep>,
}

/// How connections are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshKeep {
    /// Where their sockets lie: a directory that only the own user can change or enter, and all of
    /// whose parents can be trusted. Its path has at most [`SshKeep::MAX_DIRECTORY_BYTES`].
    pub directory: PathBuf,
    /// How long a connection outlives its last use. Rounded up to seconds.
    pub idle: Duration,
}

impl SshKeep {
    /// A socket's path has at most 107 bytes: the directory's and `/`, a name, and the suffix of 17
    /// under which ssh makes it.
    pub const MAX_DIRECTORY_BYTES: usize = 107 - 1 - kept::NAME_BYTES - 17;
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// A name or address, or an alias of the ssh_config.
    pub host: String,
    /// The user to be there.
    pub user: Option<String>,
    /// The port.
    pub port: Option<u16>,
}

/// Why a connection could not be had; one line.
#[derive(Debug, Error)]
pub enum SshError {
    /// The local ssh could not be used.
    #[error("ssh cannot be started on this host: {0}")]
    Local(#[source] io::Error),
    /// The host's key is not known, or is another than the known one.
    #[error("{0}")]
    HostKey(String),
    /// The host does not let us in.
    #[error("{0}")]
    Denied(String),
    /// The host cannot be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// A connection to a host.
pub struct SshSession {
    session: Arc<Session>,
    /// The longest that a channel may take.
    patience: Duration,
    is_kept: bool,
}

impl SshSession {
    /// Attaches to a kept connection to `target`; `None` if connections are not kept, or there is none
    /// that answers. Whether it still leads to the host, only a channel tells.
    pub async fn attach(target: &SshTarget, options: &SshOptions) -> Option<Self> {
        let keep = options.keep.as_ref()?;
        let session = kept::find(keep, target, options).await?;
        // Half of what connecting may take: with the search and what follows it, a connection that
        // hangs costs no more than the time in which a new one would have been given up.
        Some(SshSession { session: Arc::new(session), patience: options.connect_timeout / 2, is_kept: true })
    }

    /// Connects anew; the connection is kept if the options say so.
    ///
    /// # Errors
    /// [`SshError`]; nothing was started at the far side.
    pub async fn connect(target: &SshTarget, options: &SshOptions) -> Result<Self, SshError> {
        let session = match &options.keep {
            Some(keep) => kept::connect(keep, target, options).await?,
            None => {
                let directory = master::temporary().map_err(SshError::Local)?;
                let place = master::Place { socket: &directory.path().join("master"), papers: directory.path() };
                master::launch(target, options, place, LINGER).await?;
                // Ends the connection and removes the directory when it is dropped.
                Session::new_native_mux(directory)
            }
        };
        Ok(SshSession {
            session: Arc::new(session),
            patience: options.connect_timeout,
            is_kept: options.keep.is_some(),
        })
    }

    /// Starts `argv` at the far side, each word quoted for the shell there, as a link.
    ///
    /// # Errors
    /// The connection is gone, or the far side gives no channel.
    pub async fn start(&self, argv: &[String]) -> Result<Link, SshError> {
        let no_channel = |why: &str| SshError::Unreachable(format!("no channel: {why}"));
        let Some((program, args)) = argv.split_first() else {
            return Err(SshError::Local(io::ErrorKind::InvalidInput.into()));
        };
        let mut command = Arc::clone(&self.session).arc_command(program.as_str());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = timeout(self.patience, command.spawn()).await.map_err(|_| no_channel("the connection hangs"))?;
        let mut child = started.map_err(|error| no_channel(&one_line(&error)))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin().take(), child.stdout().take(), child.stderr().take())
        else {
            return Err(SshError::Local(io::ErrorKind::BrokenPipe.into()));
        };
        let output = stdin.into_owned_fd().map_err(SshError::Local)?;
        let peer = Peer { process: Process::Remote(Box::new(child)), errors: ErrorText::collect(stderr) };
        Ok(Link { input: Box::new(stdout), output, peer })
    }

    /// Has done with it: a connection of our own ends (channels must have ended before), a kept one
    /// stays.
    pub async fn close(self) {
        if !self.is_kept
            && let Ok(session) = Arc::try_unwrap(self.session)
        {
            // A connection that cannot be closed is closed already, or lingers for a minute.
            let _ = timeout(Duration::from_secs(5), session.close()).await;
        }
    }

    /// Makes sure that nobody attaches to this connection again: it gives no channel. Whoever has
    /// one over it keeps it.
    pub async fn discard(self) {
        if self.is_kept {
            kept::discard(self.session.control_socket()).await;
        }
    }
}

fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is in a file, for telling whether it changed; a file that cannot be read is like none.
fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}
