//! What an agent costs that has nothing to do.

use std::thread;
use std::time::Instant;

use anyhow::Result;

use crate::args::Scale;
use crate::daemon::{Agent, FIRST_SYNC};
use crate::figures::number;
use crate::processes::{KINDS, Memory, Times, open_files};
use crate::stage::Stage;

/// Files in a directory.
const FANOUT: u64 = 20;

/// Let an agent idle by these lines of `[push]`.
pub fn play(stage: &Stage, scale: Scale, push: &str) -> Result<Vec<Vec<String>>> {
    stage.set(scale.files / FANOUT, scale.files, 100)?;
    let agent = Agent::start(stage, push, &stage.ssh_config(&[])?)?;
    agent.wait(stage.hosts, FIRST_SYNC)?;
    // What the first sync leaves to be done is done by then.
    thread::sleep(scale.span(200) / 20);
    let scans = || -> Result<u64> { Ok(agent.status()?["scans"].as_u64().unwrap_or(0)) };
    let (before, scans_before) = (Times::take(&stage.accounting, agent.pid()), scans()?);
    let began = Instant::now();
    thread::sleep(scale.span(200));
    let (after, span) = (Times::take(&stage.accounting, agent.pid()), began.elapsed().as_secs_f64());
    let status = agent.status()?;
    let memory = Memory::read(agent.pid())?;
    println!(
        "{} files in {} watched directories, {} hosts, {span:.0} s: {} scans, the last took {} s; the agent has {:.1} MB \
         ({:.1} MB its own, {:.1} MB at most), {} open files; watched by {}",
        scale.files,
        status["watch"]["directories"],
        stage.hosts,
        status["scans"].as_u64().unwrap_or(0) - scans_before,
        status["scan_s"],
        memory.resident / 1e6,
        memory.own / 1e6,
        memory.peak / 1e6,
        open_files(agent.pid()),
        status["watch"]["mode"],
    );
    let mut rows = vec![["processes", "how many", "CPU s", "% of a core"].map(str::to_owned).to_vec()];
    for (kind, label) in KINDS {
        let (seconds, count) = after.since(&before, kind);
        rows.push(vec![label.to_owned(), count.to_string(), number(seconds, 2), number(100.0 * seconds / span, 3)]);
    }
    agent.stop()?;
    Ok(rows)
}
