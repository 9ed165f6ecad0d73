//! A control master: one ssh process in the background that holds a connection, and gives channels
//! of it to whoever may use its socket.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use super::{HostKeys, SshError, SshOptions, SshTarget};

/// The whole handshake may take so many times what connecting may: ssh itself bounds only its first part, and a host that
/// goes away in the middle would be waited for.
const HANDSHAKE: u32 = 3;

/// Preferences for what the operator's configuration leaves open (in ssh_config the first value
/// found wins). AES in hardware moves two to three times the bytes of the default cipher for the
/// same work; content is compressed by us where that pays.
const PREFERENCES: &str = "Match all\nCiphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com\nCompression no\n\
                           ServerAliveInterval 15\nServerAliveCountMax 3\n";

/// Where a master's files lie.
pub(super) struct Place<'p> {
    /// Its socket, not there yet.
    pub(super) socket: &'p Path,
    /// A private directory for what ssh reads and writes while it starts; not needed afterwards.
    pub(super) papers: &'p Path,
}

/// A private directory with a short path, removed when it is dropped.
pub(super) fn temporary() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("rfleet-ssh-").tempdir_in(short_temporary())
}

/// A directory for control sockets, whose whole path may have 107 bytes: ours takes up to 60 of them.
fn short_temporary() -> PathBuf {
    Some(std::env::temp_dir()).filter(|path| path.as_os_str().len() <= 45).unwrap_or_else(|| "/tmp".into())
}

/// Connects to `target` and leaves a master behind that ends when it had nothing to do for `idle`.
/// It is in a session of its own, with nothing of our input and output: neither our end nor Ctrl-C
/// on the terminal reaches it.
///
/// # Errors
/// [`SshError`]; no master is left.
pub(super) async fn launch(
    target: &SshTarget,
    options: &SshOptions,
    place: Place<'_>,
    idle: Duration,
) -> Result<(), SshError> {
    let config = write_config(place.papers, options.config.as_deref()).map_err(SshError::Local)?;
    let log = place.papers.join("log");
    let mut ssh = Command::new("ssh");
    ssh.args(arguments(target, options, idle))
        .arg("-F")
        .arg(config)
        .arg("-E")
        .arg(&log)
        .arg("-S")
        .arg(place.socket)
        .arg(&target.host)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    if options.keep.is_some() {
        // It must not hold on to the directory, or the mount, in which we happen to be started.
        ssh.current_dir("/");
    }
    // This process ends as soon as it is let in, and leaves the master.
    let patience = options.connect_timeout * HANDSHAKE;
    let Ok(status) = timeout(patience, ssh.status()).await else {
        let seconds = patience.as_secs_f64();
        return Err(SshError::Unreachable(format!("ssh: it answered, but let nobody in for {seconds} s")));
    };
    let status = status.map_err(SshError::Local)?;
    if status.success() { Ok(()) } else { Err(explain(&String::from_utf8_lossy(&super::content(&log)))) }
}

/// What both the command line and the identity of a kept connection consist of.
pub(super) fn arguments(target: &SshTarget, options: &SshOptions, idle: Duration) -> Vec<OsString> {
    // In whole seconds, and 0 would mean no bound for either.
    let seconds = |time: Duration| time.as_millis().div_ceil(1000).clamp(1, 1 << 30);
    let mut arguments: Vec<OsString> = ["-M", "-f", "-N", "-o", "BatchMode=yes", "-o"].map(Into::into).into();
    let mut option = |text: OsString| arguments.extend([text, "-o".into()]);
    option(format!("ControlPersist={}", seconds(idle)).into());
    option(format!("ConnectTimeout={}", seconds(options.connect_timeout)).into());
    if let Some(file) = &options.known_hosts {
        let mut known_hosts = OsString::from("UserKnownHostsFile=");
        known_hosts.push(file);
        option(known_hosts);
    }
    arguments.push(match options.host_keys {
        HostKeys::Strict => "StrictHostKeyChecking=yes".into(),
        HostKeys::AcceptNew => "StrictHostKeyChecking=accept-new".into(),
    });
    let mut pair = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    if let Some(port) = target.port {
        pair("-p", port.to_string().into());
    }
    if let Some(user) = &target.user {
        pair("-l", user.into());
    }
    if let Some(file) = &options.identity_file {
        pair("-o", "IdentitiesOnly=yes".into());
        pair("-i", file.into());
    }
    arguments
}

/// The configuration files that a master reads, in order, and then our own preferences.
pub(super) fn sources(operators: Option<&Path>) -> io::Result<(Vec<PathBuf>, &'static str)> {
    let files = match operators {
        Some(config) => vec![std::path::absolute(config)?],
        None => {
            let own = std::env::home_dir().map(|home| home.join(".ssh/config"));
            own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_config")]).collect()
        }
    };
    Ok((files, PREFERENCES))
}

/// Writes the ssh_config that is used: the operator's, then our preferences.
fn write_config(directory: &Path, operators: Option<&Path>) -> io::Result<PathBuf> {
    let path = directory.join("config");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let (files, preferences) = sources(operators)?;
    for included in files {
        match included.to_str() {
            Some(text) if !text.contains(['"', '*', '?', '[', '\\', '\n']) => writeln!(file, "Include \"{text}\"")?,
            _ => {
                let shown = included.display();
                return Err(io::Error::other(format!("{shown}: ssh cannot include a file of this name")));
            }
        }
    }
    file.write_all(preferences.as_bytes())?;
    Ok(path)
}

/// Turns what ssh printed into one line with a way out.
fn explain(text: &str) -> SshError {
    let is_news = |line: &&str| !line.is_empty() && !line.starts_with('@') && !line.starts_with("Warning: Permanently");
    let said = text.lines().map(str::trim).filter(is_news).collect::<Vec<_>>().join(" ");
    let said = said.strip_prefix("ssh: ").unwrap_or(&said);
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
