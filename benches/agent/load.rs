//! Many files a second: how far the hosts are behind, and what memory that takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::args::Scale;
use crate::daemon::{Agent, FIRST_SYNC};
use crate::figures::{median, number};
use crate::processes::{KINDS, Memory, Times};
use crate::random::Random;
use crate::stage::Stage;

/// Directories that files come into.
const DIRECTORIES: u64 = 100;
/// The size of each.
const BYTES: usize = 1000;
/// How often files are written: those of this time at once.
const STEP: Duration = Duration::from_millis(10);

fn name(directories: &[PathBuf], number: usize) -> PathBuf {
    directories[number % directories.len()].join(format!("load-{number:07}"))
}

/// Writes files at a steady rate; when each was there, in order.
fn write(
    source: &Path,
    directories: &[PathBuf],
    rate: u64,
    span: Duration,
    written: &Mutex<Vec<Instant>>,
) -> Result<()> {
    let mut random = Random::new(rate);
    let mut content = vec![0; BYTES];
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < span {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
        let mut times = Vec::new();
        while count < due {
            random.fill(&mut content);
            fs::write(source.join(name(directories, count)), &content)?;
            times.push(Instant::now());
            count += 1;
        }
        written.lock().map_err(|_| anyhow!("a lock"))?.extend(times);
        thread::sleep(STEP);
    }
    Ok(())
}

/// How far a host has come: all files before this one are there.
fn advance(copy: &Path, directories: &[PathBuf], mut from: usize, end: usize) -> usize {
    while from < end && copy.join(name(directories, from)).exists() {
        from += 1;
    }
    from
}

/// One second of it.
struct Second {
    at: f64,
    written: usize,
    behind: usize,
    lag: f64,
    pending: u64,
    dirty: u64,
    memory: Memory,
}

/// Write at the scale's rate.
pub fn play(stage: &Stage, scale: Scale) -> Result<Vec<Vec<String>>> {
    let directories = stage.set(DIRECTORIES, DIRECTORIES, 100)?;
    let agent = Agent::start(stage, "", &stage.ssh_config(&[])?)?;
    agent.wait(stage.hosts, FIRST_SYNC)?;
    let before = (Times::take(&stage.accounting, agent.pid()), Memory::read(agent.pid())?);
    let (source, span, written) = (stage.source(), scale.span(60), Mutex::default());
    let began = Instant::now();
    let mut seconds: Vec<Second> = Vec::new();
    let after_last = thread::scope(|scope| -> Result<f64> {
        let writer = scope.spawn(|| write(&source, &directories, scale.rate, span, &written));
        let mut has = vec![0; stage.hosts];
        loop {
            let is_over = writer.is_finished();
            let times = written.lock().map_err(|_| anyhow!("a lock"))?.clone();
            for (at, has) in has.iter_mut().enumerate() {
                *has = advance(&stage.copy(at + 1), &directories, *has, times.len());
            }
            let least = has.iter().copied().min().unwrap_or(0);
            let lag = times.get(least).map_or(0.0, |time| time.elapsed().as_secs_f64());
            if is_over && least == times.len() {
                let last = times.last().context("nothing was written")?.elapsed().as_secs_f64();
                writer.join().map_err(|_| anyhow!("the writer failed"))??;
                return Ok(last);
            }
            if !is_over && seconds.last().is_none_or(|last| began.elapsed().as_secs_f64() >= last.at + 1.0) {
                let (status, memory) = (agent.status()?, Memory::read(agent.pid())?);
                let hosts = status["hosts"].as_array().context("a status without hosts")?;
                let pending = hosts.iter().filter_map(|host| host["pending"].as_u64()).max().unwrap_or(0);
                let dirty = status["dirty"].as_u64().unwrap_or(0);
                let (at, written) = (began.elapsed().as_secs_f64(), times.len());
                seconds.push(Second { at, written, behind: written - least, lag, pending, dirty, memory });
            }
            anyhow::ensure!(began.elapsed() < span + FIRST_SYNC, "the hosts do not catch up:\n{}", agent.said());
            thread::sleep(Duration::from_millis(50));
        }
    })?;
    let after = Times::take(&stage.accounting, agent.pid());
    agent.wait(stage.hosts, FIRST_SYNC)?;
    let memory = Memory::read(agent.pid())?;
    stage.judge(1..=stage.hosts)?;
    let status = agent.status()?;
    agent.stop()?;
    let cpu = KINDS.map(|(kind, label)| format!("{label} {:.1} s", after.since(&before.0, kind).0)).join(", ");
    let total = written.lock().map_err(|_| anyhow!("a lock"))?.len();
    let half = |seconds: &[Second]| median(seconds.iter().map(|second| second.lag));
    let middle = seconds.len() / 2;
    println!(
        "{total} files of {BYTES} bytes in {:.0} s to {} hosts: all have all {after_last:.3} s after the last; lag: median {:.3} s in \
         the first half, {:.3} s in the second; the agent has {:.1} MB before, {:.1} MB after, {:.1} MB at most; {} scans, \
         {} overflows\nCPU: {cpu}\n",
        span.as_secs_f64(),
        stage.hosts,
        half(&seconds[..middle]),
        half(&seconds[middle..]),
        before.1.resident / 1e6,
        memory.resident / 1e6,
        memory.peak / 1e6,
        status["scans"],
        status["watch"]["overflows"],
    );
    Ok(table(&seconds))
}

fn table(seconds: &[Second]) -> Vec<Vec<String>> {
    let titles =
        ["second", "written", "behind", "lag s", "recorded, not sent", "noticed, not looked at", "agent MB", "own MB"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let step = (seconds.len() / 12).max(1);
    rows.extend(seconds.iter().step_by(step).map(|second| {
        vec![
            number(second.at, 0),
            second.written.to_string(),
            second.behind.to_string(),
            number(second.lag, 3),
            second.pending.to_string(),
            second.dirty.to_string(),
            number(second.memory.resident / 1e6, 1),
            number(second.memory.own / 1e6, 1),
        ]
    }));
    rows
}
