//! The judge of what a tool made: rsync, which compares and changes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

/// What rfleet keeps in a root, which is no part of what is synced.
pub const LEAVE: &str = "--exclude=/.rfleet";

/// Fail unless `target` equals `source`: kinds, modes, owners, times and, with `contents`, each byte.
pub fn equal(rsync: &Path, source: &Path, target: &Path, contents: bool) -> Result<()> {
    let mut command = Command::new(rsync);
    command.args(["-aH", "--numeric-ids", "-n", "-i", "--delete", LEAVE]);
    command.args(contents.then_some("--checksum")).args([dotted(source), dotted(target)]);
    let done = command.output()?;
    let found = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success() && found.is_empty(), "{} is not equal:\n{}", target.display(), tail(&found));
    Ok(())
}

/// The path with `/.`, which tells rsync to take what the directory holds.
pub fn dotted(path: &Path) -> PathBuf {
    path.join(".")
}

/// The last lines of what was printed.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
