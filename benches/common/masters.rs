//! The connections that rfleet keeps between runs.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The sockets in a directory and below.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(sockets(&entry.path())),
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// End every ssh control master that listens in a directory or below.
pub fn stop(dir: &Path) {
    for socket in sockets(dir) {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-O", "exit", "-S"]).arg(socket).arg("nobody");
        // One that does not answer has ended already.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
