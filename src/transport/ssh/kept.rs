//! Connections that outlive this process.
//!
//! A socket is called `HASH.RANDOM`. HASH is of everything that decides which connection it is and
//! how it came to be, so whoever has another configuration never finds it. RANDOM makes every master's
//! socket its own: one that was given up may come back to life, end much later, and then removes its
//! own name and no successor's.
//!
//! Masters end by themselves when they were idle for long enough. What a killed one leaves is a
//! socket that nobody listens on: whoever finds it removes it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssh::Session;
use rustix::fs::FlockOperation;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::master::{self, Place, launch};
use super::{HostKeys, SshError, SshKeep, SshOptions, SshTarget, content};

/// Hexadecimal digits of the hash in a name: 64 bits, so two connections never share one by chance.
const HASH_DIGITS: usize = 16;

/// What `tempfile` puts behind it.
const RANDOM_BYTES: usize = 6;

/// Bytes of a socket's name.
pub(super) const NAME_BYTES: usize = HASH_DIGITS + 1 + RANDOM_BYTES;

/// Longest wait for a master's answer, which costs it a millisecond: one that is stopped hangs.
const CHECK_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether another one that connects to the same host is done.
const POLL: Duration = Duration::from_millis(5);

/// A kept connection to `target` whose master answers. Removes what does not.
pub(super) async fn find(keep: &SshKeep, target: &SshTarget, options: &SshOptions) -> Option<Session> {
    let name = name(keep, target, options).ok()?;
    let patience = CHECK_PATIENCE.min(options.connect_timeout / 4);
    let deadline = Instant::now() + patience;
    for socket in sockets(&keep.directory, &name) {
        let session = Session::resume_mux(socket.clone().into_boxed_path(), None);
        match timeout_at(deadline, session.check()).await {
            Ok(Ok(())) => return Some(session),
            _ => discard(&socket).await,
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    None
}

/// Connects to `target`, for this process and later ones. If another one is at it just now, waits
/// and takes what it got.
pub(super) async fn connect(keep: &SshKeep, target: &SshTarget, options: &SshOptions) -> Result<Session, SshError> {
    let name = name(keep, target, options).map_err(SshError::Local)?;
    let turn = Turn::wait(&keep.directory.join(format!("{name}.lock")), options.connect_timeout).await;
    let turn = turn.map_err(SshError::Local)?;
    if let Some(session) = find(keep, target, options).await {
        return Ok(session);
    }
    let papers = master::temporary().map_err(SshError::Local)?;
    let socket = free_name(&keep.directory, &name).map_err(SshError::Local)?;
    let connected = launch(target, options, Place { socket: &socket, papers: papers.path() }, keep.idle).await;
    drop(turn);
    connected.map(|()| Session::resume_mux(socket.into_boxed_path(), None))
}

/// Nobody finds `socket` again. Its master, if there is one that listens, ends after its last channel.
pub(super) async fn discard(socket: &Path) {
    let session = Session::resume_mux(socket.to_owned().into_boxed_path(), None);
    // One that hangs is left to itself: it can no longer be found.
    let _ = timeout(Duration::from_millis(200), session.close()).await;
    let _ = std::fs::remove_file(socket);
}

/// The part of a socket's name that says which connection it is.
fn name(keep: &SshKeep, target: &SshTarget, options: &SshOptions) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(target.host.as_bytes());
    for argument in master::arguments(target, options, keep.idle) {
        add(argument.as_encoded_bytes());
    }
    let (files, preferences) = master::sources(options.config.as_deref())?;
    for file in files {
        add(file.as_os_str().as_encoded_bytes());
        add(&content(&file));
    }
    add(preferences.as_bytes());
    add(std::env::var_os("SSH_AUTH_SOCK").unwrap_or_default().as_encoded_bytes());
    // A new key in the old place. Its content has no business here.
    if let Some(found) = options.identity_file.as_ref().and_then(|file| std::fs::metadata(file).ok()) {
        let stamp = [found.ino(), found.size(), found.mtime().cast_unsigned(), found.mtime_nsec().cast_unsigned()];
        stamp.iter().for_each(|number| add(&number.to_le_bytes()));
    }
    // A key that is not trusted any more. With accept-new ssh itself adds to the file.
    if let (HostKeys::Strict, Some(file)) = (options.host_keys, &options.known_hosts) {
        add(&content(file));
    }
    Ok(hasher.finalize().to_hex()[..HASH_DIGITS].to_owned())
}

/// The sockets of connection `name`.
fn sockets(directory: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_ours = |path: &PathBuf| {
        let parts = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
        parts.is_some_and(|(hash, random)| hash == name && random.len() == RANDOM_BYTES)
    };
    entries.flatten().map(|entry| entry.path()).filter(is_ours).collect()
}

/// A path for a new socket that nobody else uses.
fn free_name(directory: &Path, name: &str) -> io::Result<PathBuf> {
    let file = tempfile::Builder::new().prefix(&format!("{name}.")).rand_bytes(RANDOM_BYTES).tempfile_in(directory)?;
    // ssh makes the socket itself. Whoever takes the random name meanwhile is us, by a chance of 1 in 10^10.
    Ok(file.into_temp_path().to_path_buf())
}

/// The right to connect to a host: another one at the same time would only make a second master.
struct Turn {
    path: PathBuf,
    lock: Option<File>,
}

impl Turn {
    /// Waits for it, at most for `patience`: then without.
    async fn wait(path: &Path, patience: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            let file = File::options().write(true).create(true).truncate(false).open(path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever had it before removed it on leaving: this lock keeps nobody out.
                Ok(()) if file.metadata()?.nlink() == 0 => {}
                Ok(()) => return Ok(Turn { path: path.to_owned(), lock: Some(file) }),
                Err(_) if Instant::now() >= deadline => return Ok(Turn { path: path.to_owned(), lock: None }),
                Err(_) => sleep(POLL).await,
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Before it is unlocked, or another's could be meant.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
