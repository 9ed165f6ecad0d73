//! Churn for a long time, with a host that is never there: what grows.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::Scale;
use crate::daemon::{Agent, FIRST_SYNC};
use crate::figures::{number, slope};
use crate::processes::{KINDS, Kind, Memory, Times, all, directory_bytes, open_files};
use crate::random::Random;
use crate::stage::Stage;

/// The tree that is churned.
const DIRECTORIES: u64 = 200;
const FILES: u64 = 5000;
/// Between two looks, at the full scale.
const STEP: Duration = Duration::from_secs(10);
/// Mean rest between two changes.
const REST_MS: u64 = 40;

/// Makes, changes, renames and deletes files, and renames a directory now and then.
struct Churn {
    source: PathBuf,
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
    random: Random,
    count: u64,
}

impl Churn {
    fn fresh(&mut self, place: &str) -> PathBuf {
        self.count += 1;
        self.random.pick(&self.directories).join(format!("{place}-{:07}", self.count))
    }

    fn content(&mut self) -> Vec<u8> {
        let mut content = vec![0; 100 + self.random.index(8000)];
        self.random.fill(&mut content);
        content
    }

    fn act(&mut self) -> io::Result<()> {
        // As many come as go.
        let what = self.random.below(100);
        let at = self.random.index(self.files.len());
        match what {
            0..25 => {
                let (name, content) = (self.fresh("new"), self.content());
                fs::write(self.source.join(&name), content)?;
                self.files.push(name);
            }
            25..60 => {
                let content = self.content();
                fs::write(self.source.join(&self.files[at]), content)?;
            }
            60..73 => {
                let name = self.fresh("moved");
                fs::rename(self.source.join(&self.files[at]), self.source.join(&name))?;
                self.files[at] = name;
            }
            73..98 if self.files.len() > 100 => {
                fs::remove_file(self.source.join(self.files.swap_remove(at)))?;
            }
            _ => {
                // A directory that comes, is filled, moves and goes.
                let (one, two) = (self.fresh("dir"), self.fresh("dir"));
                fs::create_dir(self.source.join(&one))?;
                for number in 0..10 {
                    let content = self.content();
                    fs::write(self.source.join(&one).join(format!("f{number}")), content)?;
                }
                fs::rename(self.source.join(&one), self.source.join(&two))?;
                fs::remove_dir_all(self.source.join(&two))?;
            }
        }
        Ok(())
    }
}

/// One look.
struct Look {
    minutes: f64,
    agent: Memory,
    receivers: f64,
    files: usize,
    state: u64,
    log: u64,
    lag: f64,
}

/// Churn, and look every ten seconds.
pub fn play(stage: &Stage, scale: Scale) -> Result<Vec<Vec<String>>> {
    let directories = stage.set(DIRECTORIES, FILES, 2000)?;
    let name = |number: u64| -> Result<PathBuf> {
        Ok(directories[usize::try_from(number % DIRECTORIES)?].join(format!("item-{number:06}")))
    };
    let files = (0..FILES).map(name).collect::<Result<Vec<PathBuf>>>()?;
    let mut churn = Churn { source: stage.source(), directories, files, random: Random::new(stage.seed), count: 0 };
    // A port that was free a moment ago refuses.
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let agent = Agent::start(stage, "", &stage.ssh_config(&[(stage.hosts, dead)])?)?;
    agent.wait(stage.hosts - 1, FIRST_SYNC)?;
    let (before, began) = (Times::take(&stage.accounting, agent.pid()), Instant::now());
    let span = scale.span(1200);
    let step = STEP.min(span / 8);
    let mut looks: Vec<Look> = Vec::new();
    // Counted in steps, not by the clock: the machine may be stopped for a while.
    let steps = (span.as_secs_f64() / step.as_secs_f64()) as u32;
    let mut changes = 0_u64;
    for at in 0..steps {
        let mut churned = Duration::ZERO;
        while churned < step {
            let rest = Duration::from_millis(churn.random.below(2 * REST_MS));
            thread::sleep(rest);
            let acting = Instant::now();
            churn.act()?;
            changes += 1;
            churned += rest + acting.elapsed();
        }
        looks.push(look(stage, &agent, f64::from(at + 1) * step.as_secs_f64() / 60.0)?);
        if at % 12 == 0 {
            let last = &looks[looks.len() - 1];
            eprintln!("  {:.1} min: agent {:.2} MB, {} files", last.minutes, last.agent.resident / 1e6, last.files);
        }
    }
    let after = Times::take(&stage.accounting, agent.pid());
    agent.wait(stage.hosts - 1, FIRST_SYNC)?;
    stage.judge(1..stage.hosts)?;
    let status = agent.status()?;
    agent.stop()?;
    let wall = began.elapsed().as_secs_f64();
    let cpu = KINDS.map(|(kind, label)| format!("{label} {:.1} s", after.since(&before, kind).0)).join(", ");
    println!(
        "{changes} changes in {:.0} minutes of churn ({:.0} by the clock), one host of {} refuses; {} scans; CPU: {cpu}",
        span.as_secs_f64() / 60.0,
        wall / 60.0,
        stage.hosts,
        status["scans"],
    );
    say_growth(&looks);
    Ok(table(&looks))
}

fn look(stage: &Stage, agent: &Agent, minutes: f64) -> Result<Look> {
    let memory = Memory::read(agent.pid())?;
    let all = all(&stage.accounting, agent.pid()).into_iter();
    let receivers = all.filter(|(_, kind)| *kind == Kind::Receiver).filter_map(|(pid, _)| Memory::read(pid).ok());
    let receivers = receivers.map(|memory| memory.resident).fold(0.0, f64::max);
    let logs = fs::read_dir(stage.state())?.flatten().filter(|entry| entry.path().to_string_lossy().ends_with("-wal"));
    let log = logs.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
    let status = agent.status()?;
    let hosts = status["hosts"].as_array().into_iter().flatten().take(stage.hosts - 1);
    let lag = hosts.filter_map(|host| host["lag_s"].as_f64()).fold(0.0, f64::max);
    let (files, state) = (open_files(agent.pid()), directory_bytes(&stage.state()));
    Ok(Look { minutes, agent: memory, receivers, files, state, log, lag })
}

/// What grows after the first quarter.
fn say_growth(looks: &[Look]) {
    let late = &looks[looks.len() / 4..];
    let of = |figure: fn(&Look) -> f64| {
        let points: Vec<(f64, f64)> = late.iter().map(|look| (look.minutes, figure(look))).collect();
        slope(&points) / 1e3
    };
    println!(
        "growth after the first quarter, kB a minute: agent's resident set {:.2}, its own pages {:.2}, the largest receiver's \
         {:.2}, state directory {:.2}; the agent's peak {:.1} MB\n",
        of(|look| look.agent.resident),
        of(|look| look.agent.own),
        of(|look| look.receivers),
        of(|look| look.state as f64),
        looks.last().map_or(0.0, |look| look.agent.peak / 1e6),
    );
}

fn table(looks: &[Look]) -> Vec<Vec<String>> {
    let titles =
        ["minute", "agent MB", "own MB", "largest receiver MB", "open files", "state MB", "of it logs MB", "lag s"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let step = (looks.len() / 12).max(1);
    rows.extend(looks.iter().skip(step - 1).step_by(step).map(|look| {
        vec![
            number(look.minutes, 1),
            number(look.agent.resident / 1e6, 2),
            number(look.agent.own / 1e6, 2),
            number(look.receivers / 1e6, 2),
            look.files.to_string(),
            number(look.state as f64 / 1e6, 2),
            number(look.log as f64 / 1e6, 2),
            number(look.lag, 2),
        ]
    }));
    rows
}
