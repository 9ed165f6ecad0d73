//! The bench of the agent: how soon a change is on the hosts, and what an agent costs, over a real sshd on loopback.
//!
//! As in the bench of a fleet the program starts itself a second time: the outer one makes the surroundings and takes
//! them away, the inner one measures.

mod args;
#[path = "../common/mod.rs"]
mod common;
mod daemon;
mod eyes;
mod idle;
mod latency;
mod load;
mod lsyncd;
mod processes;
mod relay;
mod soak;
mod stage;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use args::{Args, Scale};
use common::{figures, judge, masters, meter, random, sshd, supervise};
use latency::Sickness;
use meter::Accounting;
use sshd::Sshd;
use stage::Stage;

/// With a scan an hour, only events are left.
const NO_SCANS: &str = "interval = \"1h\"";

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Workload {
    Latency,
    Sick(Sickness),
    Idle,
    IdleEvents,
    Load,
    Soak,
}

/// All of it, by name.
const WORKLOADS: [(&str, Workload); 8] = [
    ("latency", Workload::Latency),
    ("sick-stopped", Workload::Sick(Sickness::Stopped)),
    ("sick-silent", Workload::Sick(Sickness::Silent)),
    ("sick-slow", Workload::Sick(Sickness::Slow)),
    ("load", Workload::Load),
    ("idle", Workload::Idle),
    ("idle-events", Workload::IdleEvents),
    ("soak", Workload::Soak),
];

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        WORKLOADS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let done = match supervise::inner_directory() {
        Some(dir) => measure(&args, dir),
        None => supervise::check_programs(&[args.rsync()]).and_then(|()| supervise::run(&args.dir)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measure everything that was asked for and print it.
fn measure(args: &Args, dir: PathBuf) -> Result<()> {
    let asked =
        |name: &str| args.filters.is_empty() || args.filters.iter().any(|filter| name.contains(filter.as_str()));
    let workloads: Vec<_> = WORKLOADS.into_iter().filter(|(name, _)| asked(name)).collect();
    ensure!(!workloads.is_empty(), "no workload has such a name; --list prints them");
    if args.is_smoke_test() {
        eprintln!("started without --bench: a smoke test at a small scale, whose figures mean nothing");
    }
    let scale = args.scale();
    let accounting = supervise::inner_groups().map_or(Accounting::Children { sshd: None }, Accounting::Groups);
    let sshd = Sshd::start(&dir.join("sshd"), true, &accounting)?;
    let accounting = match accounting {
        Accounting::Children { .. } => Accounting::Children { sshd: Some(sshd.pid()) },
        groups => groups,
    };
    let program = fs::canonicalize(&args.rfleet).with_context(|| format!("no rfleet at {}", args.rfleet.display()))?;
    let rsync = supervise::find_program(args.rsync()).context("no rsync")?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} hosts, {} processors, load before {}, an empty ssh session costs {:.3} s\n",
        scale.hosts,
        std::thread::available_parallelism()?,
        load.split_whitespace().next().unwrap_or("unknown"),
        sshd.session_cost()?.as_secs_f64(),
    );
    let (push, seed) = (args.push.clone(), args.seed);
    let stage = Stage { dir, accounting, sshd, program, rsync, hosts: scale.hosts, push, seed };
    for (name, workload) in workloads {
        eprintln!("{name}");
        println!("## {name}\n");
        let rows = play(&stage, scale, workload, args.only_rfleet).with_context(|| name)?;
        let (plain, markdown) = figures::table(&rows, 1);
        println!("{plain}\n{markdown}");
        // Before sshd goes: they would notice only later.
        masters::stop(&stage.runtime());
    }
    Ok(())
}

fn play(stage: &Stage, scale: Scale, workload: Workload, only_rfleet: bool) -> Result<Vec<Vec<String>>> {
    match workload {
        Workload::Latency => latency::play(stage, scale, only_rfleet),
        Workload::Sick(sickness) => latency::play_sick(stage, scale, sickness),
        Workload::Idle => idle::play(stage, scale, ""),
        Workload::IdleEvents => idle::play(stage, scale, NO_SCANS),
        Workload::Load => load::play(stage, scale),
        Workload::Soak => soak::play(stage, scale),
    }
}
