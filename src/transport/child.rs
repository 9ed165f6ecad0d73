//! A receiver as a process on this host: our own, or any command that leads to one.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;

use tokio::process::Command;

use super::{ErrorText, Link, LocalProcess, Peer, Process};

/// Starts `argv` with its standard input and output as the link. No shell is involved. It gets a
/// process group of its own: Ctrl-C on the terminal is for us to handle, and it ends with its input.
///
/// # Errors
/// The program cannot be started, or `argv` is empty.
pub fn spawn(argv: &[OsString]) -> io::Result<Link> {
    let (program, args) = argv.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let peer = Peer { process: Process::Local(Box::new(LocalProcess(child))), errors: ErrorText::collect(stderr) };
    Ok(Link { input: Box::new(stdout), output: stdin.into_owned_fd()?, peer })
}
