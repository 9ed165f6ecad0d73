//! What a run costs: time, processor, memory and bytes on the wire, of every process on both sides.
//!
//! Processor time comes from two control groups made for the bench, one for what the primary runs and one for sshd and
//! all it starts, so that nothing escapes by forking or by ending late. Where no control group can be made, the sums
//! of reaped children stand in, with clock ticks as resolution and without processes that detach.
//! Memory is the largest resident set of one process of the tool, sampled, never that of a control group: there the
//! pages of the trees themselves would count, which lie in memory here. Bytes are those of the loopback interface,
//! where both directions and what SSH adds count alike for both tools.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The end of the connection that a process belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    /// The tool, and the ssh clients it starts.
    Primary,
    /// sshd, and all that it starts.
    Far,
}

/// How processes are found and their time is counted.
#[derive(Debug, Clone)]
pub enum Accounting {
    /// A control group per side, in this directory of a cgroup2 filesystem.
    Groups(PathBuf),
    /// Descendants of this process, and of sshd once it runs.
    Children {
        /// Process id of sshd.
        sshd: Option<u32>,
    },
}

/// What one run cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// From the start of the command to its end.
    pub wall_seconds: f64,
    /// User and system time of all processes of both sides.
    pub cpu_seconds: f64,
    /// That of the tool's own processes on the primary, ssh apart.
    pub sender_cpu_seconds: f64,
    /// The largest resident set of a process of the tool on the primary.
    pub primary_peak_bytes: u64,
    /// The same on the far side.
    pub far_peak_bytes: u64,
    /// Bytes through the loopback interface, both directions.
    pub wire_bytes: u64,
    /// The share of the machine's processor time that went to anything but this run, 0 to 1.
    pub foreign_share: f64,
}

impl Accounting {
    /// The directory of a side's control group.
    fn group(directory: &Path, side: Side) -> PathBuf {
        directory.join(match side {
            Side::Primary => "primary",
            Side::Far => "far",
        })
    }

    /// A command that runs `program` on that side; arguments may be added to it.
    pub fn command(&self, side: Side, program: &str) -> Command {
        match self {
            Self::Groups(directory) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]);
                command.arg(Self::group(directory, side).join("cgroup.procs")).arg(program);
                command
            }
            Self::Children { .. } => Command::new(program),
        }
    }

    /// Process ids of a side.
    pub fn members(&self, side: Side) -> Vec<u32> {
        match (self, side) {
            (Self::Groups(directory), _) => {
                let list = fs::read_to_string(Self::group(directory, side).join("cgroup.procs")).unwrap_or_default();
                list.lines().filter_map(|line| line.parse().ok()).collect()
            }
            (Self::Children { .. }, Side::Primary) => descendants(std::process::id()),
            (Self::Children { sshd }, Side::Far) => sshd.map(descendants).unwrap_or_default(),
        }
    }

    /// Processor time of both sides so far, in seconds.
    fn cpu_seconds(&self) -> Result<f64> {
        match self {
            Self::Groups(directory) => {
                let sides = [Side::Primary, Side::Far].map(|side| group_cpu_seconds(&Self::group(directory, side)));
                sides.into_iter().sum()
            }
            Self::Children { sshd } => {
                let own = Stat::read(std::process::id()).context("no /proc/self/stat")?.children_seconds;
                let far = sshd.and_then(Stat::read).map_or(0.0, |stat| stat.own_seconds + stat.children_seconds);
                Ok(own + far)
            }
        }
    }

    /// Wait, at most two seconds, until sessions that have just ended are gone and counted: until no process of the
    /// tool called `name` is left on the far side, and nobody has come or gone there for a while. Connections that are
    /// kept for the next run stay.
    fn settle(&self, name: &str) {
        const QUIET: Duration = Duration::from_millis(50);
        let start = Instant::now();
        let (mut last, mut since) = (Vec::new(), start);
        while start.elapsed() < Duration::from_secs(2) {
            let members = self.members(Side::Far);
            if members != last || members.iter().any(|pid| is_called(*pid, name).is_some()) {
                (last, since) = (members, Instant::now());
            } else if since.elapsed() >= QUIET {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn group_cpu_seconds(group: &Path) -> Result<f64> {
    let text = fs::read_to_string(group.join("cpu.stat"))?;
    let usage =
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("cpu.stat without usage_usec")?;
    Ok(usage.trim().parse::<f64>()? / 1e6)
}

/// The part of `/proc/PID/stat` that is of interest, after proc(5).
pub struct Stat {
    parent: u32,
    /// User and system time of all its threads, also of those that ended.
    pub own_seconds: f64,
    children_seconds: f64,
}

impl Stat {
    /// That of a process that is there.
    pub fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, blanks and parentheses too; the rest is numbers.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        // Linux reports user-space clock ticks of 1/100 s whatever the kernel's own rate is.
        let seconds = |user: usize, system: usize| Some((number(user)? + number(system)?) / 100.0);
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own_seconds: seconds(11, 12)?,
            children_seconds: seconds(13, 14)?,
        })
    }
}

/// All processes that come from `ancestor`, and itself.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let names =
        fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let parents: HashMap<u32, u32> =
        names.filter_map(|name| name.parse().ok()).filter_map(|pid| Some((pid, Stat::read(pid)?.parent))).collect();
    let comes_from = |mut pid: u32| {
        while pid != ancestor {
            match parents.get(&pid) {
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        true
    };
    parents.keys().copied().filter(|pid| comes_from(*pid)).collect()
}

/// Bytes that the loopback interface of this network namespace has carried.
fn loopback_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).context("no loopback interface")?;
    // Eight columns for what was received, then those for what was sent, bytes first.
    line.split_whitespace().nth(8).and_then(|sent| sent.parse().ok()).context("a loopback interface without counters")
}

/// Seconds that all processors together have worked since the machine started, and how many processors there are.
fn machine_busy() -> Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<f64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: idle and iowait are no work; guest time is in user already.
    let busy = ticks.iter().take(8).enumerate().filter(|(column, _)| ![3, 4].contains(column)).map(|(_, value)| value);
    let processors = thread::available_parallelism()?.get() as f64;
    Ok((busy.sum::<f64>() / 100.0, processors))
}

/// What the sampler saw.
#[derive(Default)]
struct Seen {
    primary_peak_bytes: u64,
    far_peak_bytes: u64,
    /// Last known processor time of each of the tool's processes on the primary.
    sender_seconds: HashMap<u32, f64>,
}

impl Seen {
    fn look(&mut self, accounting: &Accounting, name: &str) {
        for pid in accounting.members(Side::Primary) {
            if let Some(peak) = peak_bytes(pid, name) {
                self.primary_peak_bytes = self.primary_peak_bytes.max(peak);
                if let Some(stat) = Stat::read(pid) {
                    self.sender_seconds.insert(pid, stat.own_seconds);
                }
            }
        }
        for pid in accounting.members(Side::Far) {
            self.far_peak_bytes = self.far_peak_bytes.max(peak_bytes(pid, name).unwrap_or(0));
        }
    }
}

/// The highest resident set that the process has had, if it is called `name`.
fn peak_bytes(pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    if text.lines().next()?.strip_prefix("Name:")?.trim() != name {
        return None;
    }
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// A thread that looks at the tool's processes until it is told to stop.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Sampler {
    /// How often to look, as long as looking itself costs less than a fiftieth of one processor.
    const INTERVAL: Duration = Duration::from_millis(10);
    /// How often to look even then: on a busy machine a look takes long without costing much.
    const LONGEST_INTERVAL: Duration = Duration::from_millis(100);

    fn start(accounting: &Accounting, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, accounting, name) = (Arc::clone(&stop), accounting.clone(), name.to_owned());
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            while !told.load(Ordering::Relaxed) {
                let start = Instant::now();
                seen.look(&accounting, &name);
                // In slices, so that a stop is not kept waiting.
                let next = start + (start.elapsed() * 50).clamp(Self::INTERVAL, Self::LONGEST_INTERVAL);
                while Instant::now() < next && !told.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            seen
        });
        Self { stop, thread }
    }

    fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the sampler failed"))
    }
}

/// Run a command made by [`Accounting::command`] to its end and say what it cost. `name` is what the kernel calls the
/// tool's processes.
pub fn measure(accounting: &Accounting, mut command: Command, name: &str) -> Result<(Cost, ExitStatus)> {
    accounting.settle(name);
    let (wire_before, cpu_before) = (loopback_bytes()?, accounting.cpu_seconds()?);
    let (busy_before, processors) = machine_busy()?;
    let sampler = Sampler::start(accounting, name);
    let start = Instant::now();
    let mut child = command.spawn().context("cannot start the tool")?;
    let pid = child.id();
    wait_without_reaping(&child)?;
    let wall_seconds = start.elapsed().as_secs_f64();
    let busy_after = machine_busy()?.0;
    // A process that has ended but is not reaped still tells the time it used, to the last tick.
    let last_seconds = is_called(pid, name).and_then(|()| Stat::read(pid)).map(|stat| stat.own_seconds);
    let status = child.wait()?;
    let mut seen = sampler.finish()?;
    if let Some(seconds) = last_seconds {
        seen.sender_seconds.insert(pid, seconds);
    }
    accounting.settle(name);
    let cpu_seconds = accounting.cpu_seconds()? - cpu_before;
    let capacity = (wall_seconds * processors).max(f64::MIN_POSITIVE);
    let cost = Cost {
        wall_seconds,
        cpu_seconds,
        sender_cpu_seconds: seen.sender_seconds.values().sum(),
        primary_peak_bytes: seen.primary_peak_bytes,
        far_peak_bytes: seen.far_peak_bytes,
        wire_bytes: loopback_bytes()? - wire_before,
        foreign_share: ((busy_after - busy_before - cpu_seconds) / capacity).clamp(0.0, 1.0),
    };
    Ok((cost, status))
}

/// `Some` if the process, alive or not yet reaped, is called `name`.
fn is_called(pid: u32, name: &str) -> Option<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (text.trim_end() == name).then_some(())
}

fn wait_without_reaping(child: &Child) -> Result<()> {
    let pid = Pid::from_child(child);
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(|_| ()).context("cannot wait for the tool"),
        }
    }
}
