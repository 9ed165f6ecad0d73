//! SSH by the system's own client: its configuration, agents, keys and jump hosts all work.
//!
//! One connection (a control master) for each host; each receiver is a channel of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, SessionBuilder, Stdio};
use tempfile::TempDir;
use thiserror::Error;

use super::{ErrorText, Link, Peer, Process};

/// How long a connection outlives the last channel. Only for the case that this process is killed:
/// otherwise it is closed at the end.
const LINGER: std::num::NonZeroUsize = std::num::NonZeroUsize::new(60).unwrap();

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
    session: Arc<openssh::Session>,
    /// Holds the control socket and the ssh_config; removed at the end.
    _directory: TempDir,
}

impl SshSession {
    /// Connects.
    ///
    /// # Errors
    /// [`SshError`]; nothing was started at the far side.
    pub async fn connect(target: &SshTarget, options: &SshOptions) -> Result<Self, SshError> {
        let directory = tempfile::Builder::new().prefix("rfleet-ssh-").tempdir_in(short_temporary());
        let directory = directory.map_err(SshError::Local)?;
        let config = write_config(directory.path(), options.config.as_deref()).map_err(SshError::Local)?;
        let mut builder = SessionBuilder::default();
        builder
            .config_file(config)
            .control_directory(directory.path())
            .control_persist(ControlPersist::IdleFor(LINGER))
            .connect_timeout(options.connect_timeout)
            .known_hosts_check(match options.host_keys {
                HostKeys::Strict => KnownHosts::Strict,
                HostKeys::AcceptNew => KnownHosts::Add,
            });
        if let Some(user) = &target.user {
            builder.user(user.clone());
        }
        if let Some(port) = target.port {
            builder.port(port);
        }
        if let Some(file) = &options.identity_file {
            builder.keyfile(file);
        }
        if let Some(file) = &options.known_hosts {
            builder.user_known_hosts_file(file);
        }
        let session = builder.connect_mux(&target.host).await.map_err(explain)?;
        Ok(SshSession { session: Arc::new(session), _directory: directory })
    }

    /// Starts `argv` at the far side, each word quoted for the shell there, as a link.
    ///
    /// # Errors
    /// The connection is gone, or the far side gives no channel.
    pub async fn start(&self, argv: &[String]) -> Result<Link, SshError> {
        let gone = |error: openssh::Error| SshError::Unreachable(format!("no channel: {}", one_line(&error)));
        let Some((program, args)) = argv.split_first() else {
            return Err(SshError::Local(io::ErrorKind::InvalidInput.into()));
        };
        let mut command = Arc::clone(&self.session).arc_command(program.as_str());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().await.map_err(gone)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin().take(), child.stdout().take(), child.stderr().take())
        else {
            return Err(SshError::Local(io::ErrorKind::BrokenPipe.into()));
        };
        let output = stdin.into_owned_fd().map_err(SshError::Local)?;
        let peer = Peer { process: Process::Remote(Box::new(child)), errors: ErrorText::collect(stderr) };
        Ok(Link { input: Box::new(stdout), output, peer })
    }

    /// Ends the connection. Channels must have ended before.
    pub async fn close(self) {
        if let Ok(session) = Arc::try_unwrap(self.session) {
            // A connection that cannot be closed is closed already, or lingers for a minute.
            let _ = tokio::time::timeout(Duration::from_secs(5), session.close()).await;
        }
    }
}

/// A directory for control sockets, whose whole path may have 107 bytes: ours takes up to 60 of them.
fn short_temporary() -> PathBuf {
    Some(std::env::temp_dir()).filter(|path| path.as_os_str().len() <= 45).unwrap_or_else(|| "/tmp".into())
}

/// Writes the ssh_config that is used: the operator's, then our preferences for what it leaves open
/// (in ssh_config the first value found wins).
fn write_config(directory: &Path, operators: Option<&Path>) -> io::Result<PathBuf> {
    let path = directory.join("config");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let include = |file: &mut std::fs::File, path: &Path| match path.to_str() {
        Some(text) if !text.contains(['"', '*', '?', '[', '\\', '\n']) => writeln!(file, "Include \"{text}\""),
        _ => Err(io::Error::other(format!("{}: ssh cannot include a file of this name", path.display()))),
    };
    match operators {
        Some(config) => include(&mut file, &std::path::absolute(config)?)?,
        None => {
            if let Some(home) = std::env::home_dir() {
                include(&mut file, &home.join(".ssh/config"))?;
            }
            include(&mut file, Path::new("/etc/ssh/ssh_config"))?;
        }
    }
    // AES in hardware moves two to three times the bytes of the default cipher for the same work.
    // Content is compressed by us where that pays.
    writeln!(file, "Match all\nCiphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com\nCompression no")?;
    writeln!(file, "ServerAliveInterval 15\nServerAliveCountMax 3")?;
    Ok(path)
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

/// Turns what ssh printed into one line with a way out.
fn explain(error: openssh::Error) -> SshError {
    let openssh::Error::Connect(error) = error else {
        return match error {
            openssh::Error::Master(error) => SshError::Local(error),
            other => SshError::Unreachable(one_line(&other)),
        };
    };
    let text = error.to_string();
    let clean: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('@')).collect();
    let said = clean.join(" ");
    let said: String = said.chars().map(|char| if char.is_control() { '?' } else { char }).take(300).collect();
    if text.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        SshError::HostKey(
            "the host key has changed: this may be another host. If the change is yours, remove the old key from \
             known_hosts (ssh-keygen -R) and add the new one"
                .into(),
        )
    } else if text.contains("Host key verification failed") || text.contains("host key is known for") {
        SshError::HostKey(
            "the host key is not known. Compare its fingerprint and add it to known_hosts (ssh-keyscan), or set \
             host_keys = \"accept-new\""
                .into(),
        )
    } else if text.contains("Permission denied") || text.contains("Too many authentication failures") {
        SshError::Denied(format!("ssh: {said}; the host does not accept our key"))
    } else if said.is_empty() {
        SshError::Unreachable("ssh gave up without a word; try `ssh -v` to this host".into())
    } else {
        SshError::Unreachable(format!("ssh: {said}"))
    }
}
