//! Processes by id, as /proc shows them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// The variable by which a test finds the processes that its own commands started.
pub const MARKER: &str = "RFLEET_TEST_SCRATCH";

/// Sends `signal`; a process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

fn pids() -> Vec<u32> {
    let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
    proc.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// State letter and parent of a process.
fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = &stat[stat.rfind(')')? + 2..];
    let mut fields = after.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// True while the process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

pub fn is_stopped(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state == 'T')
}

/// All live descendants of `root`, without itself.
pub fn descendants(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in pids() {
        if let Some((state, parent)) = state_and_parent(pid)
            && state != 'Z'
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut queue = vec![root];
    while let Some(next) = queue.pop() {
        for &child in children.get(&next).into_iter().flatten() {
            if seen.insert(child) {
                found.push(child);
                queue.push(child);
            }
        }
    }
    found
}

/// The live processes that belong to `scratch`: its marker in their environment, or its path in their arguments (an
/// ssh master writes its title over its environment, and the title names the control socket). The sshds are not
/// counted, what runs in their sessions is.
pub fn marked(scratch: &Path) -> Vec<u32> {
    let path = scratch.as_os_str().as_bytes();
    let mut variable = format!("{MARKER}=").into_bytes();
    variable.extend_from_slice(path);
    let me = std::process::id();
    let carries = |pid: u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&b| b == 0).any(|v| v == variable)
            || arguments(pid).iter().any(|a| a.windows(path.len()).any(|w| w == path))
    };
    pids().into_iter().filter(|&pid| pid != me && carries(pid) && alive(pid) && !is_sshd(pid)).collect()
}

fn is_sshd(pid: u32) -> bool {
    arguments(pid).first().is_some_and(|a| {
        let program = a.rsplit(|&b| b == b'/').next().unwrap_or(a);
        a.starts_with(b"sshd") || program.starts_with(b"sshd")
    })
}

/// The arguments of a process; empty when it is gone.
pub fn arguments(pid: u32) -> Vec<Vec<u8>> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|&b| b == 0).filter(|a| !a.is_empty()).map(<[u8]>::to_vec).collect()
}

pub fn describe(pid: u32) -> String {
    let words: Vec<_> = arguments(pid).iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    format!("{pid}: {}", words.join(" "))
}

/// True for the far end: our binary with the word `receive`.
pub fn is_receiver(pid: u32) -> bool {
    let arguments = arguments(pid);
    let program = arguments.first().map(|a| Path::new(OsStr::from_bytes(a)).to_owned());
    program.is_some_and(|p| p.file_name() == Some(OsStr::new("rfleet"))) && arguments.iter().any(|a| a == b"receive")
}

/// True for an ssh client.
pub fn is_ssh_client(pid: u32) -> bool {
    arguments(pid).first().is_some_and(|a| {
        let program = a.split(|&b| b == b' ' || b == b':').next().unwrap_or(a);
        Path::new(OsStr::from_bytes(program)).file_name() == Some(OsStr::new("ssh"))
    })
}

/// Peak resident memory in bytes so far; `None` when the process is gone.
pub fn peak_resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Kills `root` and everything below it; the root is stopped first so that it starts nothing new meanwhile.
pub fn kill_tree(root: u32) {
    signal(root, Signal::STOP);
    let below = descendants(root);
    kill(root);
    for pid in below {
        kill(pid);
    }
}
