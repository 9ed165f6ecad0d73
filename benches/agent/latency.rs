//! From the close of a file to its being seen on the hosts: with rfleet and lsyncd, all well, and with one host sick.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Scale;
use crate::daemon::{Agent, FIRST_SYNC};
use crate::eyes::{Eyes, Writer};
use crate::figures::{median, number, percentile};
use crate::lsyncd::{self, Lsyncd};
use crate::processes;
use crate::relay::{FAST, Relay, SILENT};
use crate::stage::Stage;

/// The source beside what is written: directories, and files in them.
const DIRECTORIES: u64 = 40;
const FILES: u64 = 1000;
/// Nothing waits for a file to settle.
const PUSH: &str = "settle = \"0ms\"";
/// A host that has not got a file by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Samples before the first that counts.
const WARM_UP: usize = 5;
/// What the throttled host gets, in bytes per second.
const SLOW: u64 = 50_000;

/// Samples of one contestant: for each file when it was seen on each host, in seconds.
#[derive(Default)]
struct Samples(Vec<Vec<Option<f64>>>);

impl Samples {
    fn missing(&self) -> usize {
        self.0.iter().flatten().filter(|seen| seen.is_none()).count()
    }

    /// Each file on each host.
    fn each(&self) -> Vec<f64> {
        self.0.iter().flatten().copied().map(|seen| seen.unwrap_or(f64::INFINITY)).collect()
    }

    /// Each file on all hosts.
    fn last(&self) -> Vec<f64> {
        let last =
            |hosts: &Vec<Option<f64>>| hosts.iter().map(|seen| seen.unwrap_or(f64::INFINITY)).fold(0.0, f64::max);
        self.0.iter().map(last).collect()
    }

    /// A row: the label, how many, then median, 99 % and the most in milliseconds, of each host and of all.
    fn row(&self, label: &str) -> Vec<String> {
        let figures = |values: &[f64]| {
            [median(values.iter().copied()), percentile(values, 0.99), percentile(values, 1.0)]
                .map(|seconds| number(1e3 * seconds, 1))
        };
        let words = [label.to_owned(), self.0.len().to_string()];
        let figures = figures(&self.each()).into_iter().chain(figures(&self.last()));
        words.into_iter().chain(figures).chain([self.missing().to_string()]).collect()
    }
}

/// The titles of [`Samples::row`].
fn titles() -> Vec<String> {
    let words = ["who", "files", "median ms, a host", "p99", "max", "median ms, all hosts", "p99", "max", "not seen"];
    words.map(str::to_owned).to_vec()
}

fn sample(writer: &mut Writer, eyes: &Eyes, count: u64) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..count {
        samples.0.push(writer.sample(eyes, PATIENCE)?);
        writer.rest();
    }
    Ok(samples)
}

/// Against lsyncd, in rounds.
pub fn play(stage: &Stage, scale: Scale, only_rfleet: bool) -> Result<Vec<Vec<String>>> {
    let (mut rfleet, mut plain, mut kept) = (Samples::default(), Samples::default(), Samples::default());
    let has_lsyncd = !only_rfleet && lsyncd::program().is_some();
    if !has_lsyncd && !only_rfleet {
        eprintln!("  lsyncd is not installed: rfleet is measured alone");
    }
    let few = (scale.samples / 5).max(1);
    for round in 0..scale.rounds {
        let directories = stage.set(DIRECTORIES, FILES, 2000)?;
        let mut writer = Writer::new(stage.source(), &directories, stage.seed + round);
        let agent = Agent::start(stage, PUSH, &stage.ssh_config(&[])?)?;
        agent.wait(stage.hosts, FIRST_SYNC)?;
        let eyes = Eyes::open(stage.copies(), &directories)?;
        sample(&mut writer, &eyes, WARM_UP as u64)?;
        rfleet.0.extend(sample(&mut writer, &eyes, scale.samples)?.0);
        agent.wait(stage.hosts, FIRST_SYNC)?;
        stage.judge(1..=stage.hosts)?;
        agent.stop()?;
        drop(eyes);
        eprintln!("  round {}: {}", round + 1, rfleet.row("rfleet agent").join(" | "));
        for (samples, keeps) in [(&mut plain, false), (&mut kept, true)].into_iter().filter(|_| has_lsyncd) {
            samples.0.extend(play_lsyncd(stage, round, few, keeps)?.0);
            eprintln!("  round {}: {}", round + 1, samples.row("lsyncd").join(" | "));
        }
    }
    let mut rows = vec![titles(), rfleet.row("rfleet agent")];
    for (samples, label) in [(&plain, "lsyncd"), (&kept, "lsyncd, ssh connections kept")] {
        rows.extend((!samples.0.is_empty()).then(|| samples.row(label)));
    }
    Ok(rows)
}

fn play_lsyncd(stage: &Stage, round: u64, count: u64, keeps: bool) -> Result<Samples> {
    let directories = stage.set(DIRECTORIES, FILES, 2000)?;
    let mut writer = Writer::new(stage.source(), &directories, stage.seed + round);
    // All of it would be late.
    writer.tells = false;
    let _running = Lsyncd::start(stage, keeps)?;
    let deadline = Instant::now() + FIRST_SYNC;
    // It syncs everything when it starts, and notices changes from then on.
    while stage.judge(1..=stage.hosts).is_err() {
        let said = || fs::read_to_string(stage.dir.join("lsyncd.log")).unwrap_or_default();
        ensure!(Instant::now() < deadline, "lsyncd does not sync:\n{}", said());
        thread::sleep(Duration::from_millis(200));
    }
    let eyes = Eyes::open(stage.copies(), &directories)?;
    sample(&mut writer, &eyes, WARM_UP as u64)?;
    sample(&mut writer, &eyes, count)
}

/// The host that becomes sick: the first, whom others would be the first to wait for.
const PATIENT: usize = 1;

/// How that host is sick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sickness {
    /// Its receiver is stopped, and so is each that follows it.
    Stopped,
    /// Nothing gets through to it or from it.
    Silent,
    /// It gets 50 kB a second.
    Slow,
}

/// Makes it sick; dropped, it lets it be well.
struct Sick<'a> {
    relay: &'a Relay,
    stop: Arc<AtomicBool>,
    stopper: Option<thread::JoinHandle<Vec<u32>>>,
}

impl<'a> Sick<'a> {
    fn begin(stage: &Stage, relay: &'a Relay, sickness: Sickness) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut stopper = None;
        match sickness {
            Sickness::Silent => relay.set(SILENT),
            Sickness::Slow => relay.set(SLOW),
            Sickness::Stopped => {
                let (told, accounting) = (Arc::clone(&stop), stage.accounting.clone());
                let copy: PathBuf = stage.copy(PATIENT);
                stopper = Some(thread::spawn(move || {
                    let mut stopped = Vec::new();
                    while !told.load(Ordering::Relaxed) {
                        for pid in processes::receivers_of(&accounting, &copy) {
                            if !stopped.contains(&pid) {
                                send(pid, Signal::STOP);
                                stopped.push(pid);
                            }
                        }
                        thread::sleep(Duration::from_millis(200));
                    }
                    stopped
                }));
            }
        }
        Self { relay, stop, stopper }
    }
}

impl Drop for Sick<'_> {
    fn drop(&mut self) {
        self.relay.set(FAST);
        self.stop.store(true, Ordering::Relaxed);
        let stopped = self.stopper.take().and_then(|thread| thread.join().ok());
        stopped.into_iter().flatten().for_each(|pid| send(pid, Signal::CONT));
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended.
        let _ = kill_process(pid, signal);
    }
}

/// The others while one host is sick, between two times in which it is well.
pub fn play_sick(stage: &Stage, scale: Scale, sickness: Sickness) -> Result<Vec<Vec<String>>> {
    let directories = stage.set(DIRECTORIES, FILES, 2000)?;
    let mut writer = Writer::new(stage.source(), &directories, stage.seed);
    let relay = Relay::start(stage.sshd.port)?;
    let agent = Agent::start(stage, PUSH, &stage.ssh_config(&[(PATIENT, relay.port)])?)?;
    agent.wait(stage.hosts, FIRST_SYNC)?;
    let others: Vec<PathBuf> = (1..=stage.hosts).filter(|host| *host != PATIENT).map(|host| stage.copy(host)).collect();
    let eyes = Eyes::open(others, &directories)?;
    sample(&mut writer, &eyes, WARM_UP as u64)?;
    let mut during = |span: Duration| -> Result<Samples> {
        let (mut samples, end) = (Samples::default(), Instant::now() + span);
        while Instant::now() < end {
            samples.0.extend(sample(&mut writer, &eyes, 1)?.0);
        }
        Ok(samples)
    };
    let span = scale.span(40);
    let mut well = during(span / 2)?;
    let sick = Sick::begin(stage, &relay, sickness);
    let ill = during(span)?;
    let status = agent.status()?;
    drop(sick);
    // It catches up.
    agent.wait(stage.hosts, FIRST_SYNC)?;
    stage.judge(1..=stage.hosts)?;
    well.0.extend(during(span / 2)?.0);
    let host = status["hosts"].as_array().and_then(|hosts| hosts.get(PATIENT - 1)).context("a status without hosts")?;
    eprintln!("  the sick host at the end: {}, lag {} s, error {}", host["state"], host["lag_s"], host["error"]);
    agent.stop()?;
    let ratio = |of: fn(&Samples) -> Vec<f64>, share: f64| {
        number(percentile(&of(&ill), share) / percentile(&of(&well), share), 2)
    };
    println!(
        "ratio of the others' latency, sick by well: median {} (all others {}), p99 {} (all others {})",
        ratio(Samples::each, 0.5),
        ratio(Samples::last, 0.5),
        ratio(Samples::each, 0.99),
        ratio(Samples::last, 0.99)
    );
    Ok(vec![titles(), well.row("all are well"), ill.row("one is sick")])
}
