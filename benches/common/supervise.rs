//! What surrounds a run: the directory in memory, the control groups, the network namespace, and their end.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as BlockingCommand, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::masters;
use super::meter::descendants;

/// The directory of kept connections, in the bench's own. Short: a socket's whole path may have 107 bytes.
pub const RUNTIME: &str = "run";

/// Tells the inner program its directory, and thereby that it is the inner one.
const DIRECTORY: &str = "RFLEET_BENCH_DIRECTORY";
/// Tells the inner program its control group; unset if there is none.
const GROUPS: &str = "RFLEET_BENCH_GROUPS";
/// Set if the inner program has a network namespace of its own.
const NETWORK: &str = "RFLEET_BENCH_NETWORK";
/// The control groups in ours: the measuring program, and the two sides that are measured.
const SUBGROUPS: [&str; 3] = ["harness", "primary", "far"];
/// sshd refuses to start as root without this directory, which the service's unit makes on most systems.
const SSHD_DIRECTORY: &str = "/run/sshd";

/// The directory to work in, if this is the inner program.
pub fn inner_directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// The inner program's control group.
pub fn inner_groups() -> Option<PathBuf> {
    std::env::var_os(GROUPS).map(PathBuf::from)
}

/// Does the inner program have a network namespace of its own?
pub fn inner_has_network() -> bool {
    std::env::var_os(NETWORK).is_some()
}

/// What was made for a run, and goes with it.
struct Surroundings {
    dir: PathBuf,
    groups: Option<PathBuf>,
    /// A mount point made for the cgroup2 filesystem, if none was there.
    mounted: Option<PathBuf>,
    made_sshd_directory: bool,
}

/// Run the inner program to its end, or to ours, and leave nothing behind.
pub fn run(parent: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is made: from here on a signal is an event, not the end.
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let surroundings = Surroundings::make(parent)?;
        let mut inner = surroundings.inner_command()?.spawn()?;
        let ended = tokio::select! {
            status = inner.wait() => Ok(status?),
            _ = interrupt.recv() => Err("SIGINT"),
            _ = terminate.recv() => Err("SIGTERM"),
            _ = hangup.recv() => Err("SIGHUP"),
        };
        if ended.is_err() {
            // What it started too: without control groups nothing else would find it.
            inner.id().map(descendants).unwrap_or_default().into_iter().for_each(end_process);
            inner.wait().await?;
        }
        anyhow::Ok(ended)
    })?;
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("the bench ended early, {status}"),
        Err(signal) => bail!("ended by {signal}"),
    }
}

/// The file that the program's name stands for.
pub fn find_program(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(name));
    let place =
        if name.components().count() > 1 { Some(name.to_owned()) } else { places.find(|place| place.is_file()) };
    fs::canonicalize(place?).ok()
}

/// Nothing is installed here; what is missing is named.
pub fn check_programs(others: &[&Path]) -> Result<()> {
    let programs = ["ssh".as_ref(), "ssh-keygen".as_ref(), "/usr/sbin/sshd".as_ref()];
    let missing = others.iter().copied().chain(programs).filter(|program| find_program(program).is_none());
    let missing: Vec<String> = missing.map(|program| program.display().to_string()).collect();
    ensure!(
        missing.is_empty(),
        "missing: {}. On Debian: apt-get install --no-install-recommends rsync openssh-client openssh-server findutils",
        missing.join(", ")
    );
    Ok(())
}

impl Surroundings {
    fn make(parent: &Path) -> Result<Self> {
        let name = format!("rfleet-bench-{}", std::process::id());
        let dir = parent.join(&name);
        DirBuilder::new().mode(0o755).create(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut made = Self { dir, groups: None, mounted: None, made_sshd_directory: false };
        made.groups = made.make_groups(&name);
        made.made_sshd_directory = rustix::process::geteuid().is_root() && fs::create_dir(SSHD_DIRECTORY).is_ok();
        Ok(made)
    }

    /// A control group with its parts, in the cgroup2 filesystem that is mounted or in one mounted for it.
    fn make_groups(&mut self, name: &str) -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mounted = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
        });
        let top = match mounted {
            Some(top) => top,
            None => {
                let top = self.dir.join("cgroup");
                fs::create_dir(&top).ok()?;
                let mounting = BlockingCommand::new("mount").args(["-t", "cgroup2", "none"]).arg(&top).status();
                mounting.ok().filter(ExitStatus::success)?;
                self.mounted = Some(top.clone());
                top
            }
        };
        let groups = top.join(name);
        fs::create_dir(&groups).ok()?;
        SUBGROUPS.iter().try_for_each(|part| fs::create_dir(groups.join(part))).ok()?;
        Some(groups)
    }

    /// This program again, as the inner one.
    fn inner_command(&self) -> Result<Command> {
        // The shell enters the control group, takes a network namespace and raises its loopback interface, where each
        // of these is to be had, and becomes the inner program.
        const SCRIPT: &str = "if [ -n \"$RFLEET_BENCH_GROUPS\" ]; then echo $$ >\"$RFLEET_BENCH_GROUPS/harness/cgroup.procs\"; fi\n\
             if [ -n \"$RFLEET_BENCH_NETWORK\" ]; then exec unshare -n sh -c 'ip link set lo up && exec \"$@\"' sh \"$@\"; fi\n\
             exec \"$@\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "sh"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
        command.env(DIRECTORY, &self.dir).env_remove(GROUPS).env_remove(NETWORK).stdin(Stdio::null());
        if let Some(groups) = &self.groups {
            command.env(GROUPS, groups);
        }
        let probe = BlockingCommand::new("unshare")
            .args(["-n", "ip", "link", "set", "lo", "up"])
            .stderr(Stdio::null())
            .status();
        if probe.is_ok_and(|status| status.success()) {
            command.env(NETWORK, "1");
        }
        Ok(command)
    }

    /// End whatever still runs in our control group, and only there.
    fn end_processes(&self) {
        let Some(groups) = &self.groups else { return };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let lists =
                SUBGROUPS.iter().filter_map(|part| fs::read_to_string(groups.join(part).join("cgroup.procs")).ok());
            let pids: Vec<u32> =
                lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
            if pids.is_empty() || Instant::now() > deadline {
                return;
            }
            pids.into_iter().for_each(end_process);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        self.end_processes();
        // Without control groups nothing else finds them.
        masters::stop(&self.dir.join(RUNTIME));
        if let Some(groups) = &self.groups {
            let parts = SUBGROUPS.iter().map(|part| groups.join(part)).chain([groups.clone()]);
            parts.for_each(|part| complain(&part, fs::remove_dir(&part)));
        }
        if let Some(top) = &self.mounted {
            let status = BlockingCommand::new("umount").arg(top).status();
            complain(top, status.map(|_| ()));
        }
        if self.made_sshd_directory {
            complain(Path::new(SSHD_DIRECTORY), fs::remove_dir(SSHD_DIRECTORY));
        }
        complain(&self.dir, fs::remove_dir_all(&self.dir));
    }
}

fn end_process(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended since it was listed.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Say what could not be cleared away: in memory it costs memory until somebody removes it.
fn complain(path: &Path, result: std::io::Result<()>) {
    if let Err(error) = result {
        eprintln!("left behind: {}: {error}", path.display());
    }
}
