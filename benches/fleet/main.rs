//! The bench of a fleet: rfleet against rsync, in the same run, over a real sshd on loopback.
//!
//! The program starts itself a second time. The outer one makes a directory in memory, a control group and, where it
//! may, a network namespace of its own (so that nobody else's traffic counts as ours), and takes all of that away
//! when the inner one has ended, however it ended. The inner one measures.

mod args;
#[path = "../common/mod.rs"]
mod common;
mod many;
mod report;
mod rfleet;
mod rsync;
mod stage;
mod targets;
mod tools;
mod tree;
mod walk;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use args::Args;
use common::{figures, judge, masters, meter, random, sshd, supervise};
use meter::Accounting;
use rfleet::Rfleet;
use sshd::Sshd;
use stage::Stage;
use tools::Bench;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        workload::all(args.scale()).iter().for_each(|workload| println!("{}", workload.name));
        return ExitCode::SUCCESS;
    }
    let done = match (&args.walk, supervise::inner_directory()) {
        (Some(tree), _) => walk::walk(tree).map(|entries| println!("{entries}")),
        (None, Some(dir)) => measure(&args, dir),
        (None, None) => {
            supervise::check_programs(&[args.rsync(), "xargs".as_ref()]).and_then(|()| supervise::run(&args.dir))
        }
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
    let scale = args.scale();
    let mut workloads = workload::all(scale);
    workloads.retain(|workload| {
        let asked =
            args.filters.is_empty() || args.filters.iter().any(|filter| workload.name.contains(filter.as_str()));
        asked && !workload.contestants(args.only).is_empty()
    });
    ensure!(!workloads.is_empty(), "no workload has such a name; --list prints them");
    if args.is_smoke_test() {
        eprintln!("started without --bench: a smoke test at a small scale, whose figures mean nothing");
    }
    let accounting = supervise::inner_groups().map_or(Accounting::Children { sshd: None }, Accounting::Groups);
    let sshd = Sshd::start(&dir.join("sshd"), true, &accounting)?;
    let rsync = supervise::find_program(args.rsync()).context("no rsync")?;
    let rfleet = Rfleet::probe(&args.rfleet, &dir)?;
    println!("{}", header(&dir, &sshd, &accounting, &rsync)?);
    let args::Scale { files, big_bytes, hosts, rounds, .. } = scale;
    println!("{files} files, a big file of {} MB, {hosts} hosts, {rounds} rounds\n", big_bytes / 1_000_000);
    if !rfleet.keeps_connections {
        println!("this rfleet does not know `[ssh] persist`: each run makes its own connections\n");
    }
    let accounting = match accounting {
        Accounting::Children { .. } => Accounting::Children { sshd: Some(sshd.pid()) },
        groups => groups,
    };
    let bench = Bench { dir, accounting, ssh_config: sshd.client_config.clone(), rsync, rfleet };
    let mut stage = Stage::new(&bench, scale, args.seed, args.only);
    let mut outcomes = Vec::new();
    for workload in &workloads {
        eprintln!("{}", workload.name);
        outcomes.push(stage.play(workload)?);
    }
    // Before sshd goes: they would notice only later.
    bench.disconnect()?;
    println!("{}", report::render(&outcomes));
    println!("{}", targets::render(&outcomes, scale));
    Ok(())
}

/// The circumstances that the figures belong to.
fn header(dir: &Path, sshd: &Sshd, accounting: &Accounting, rsync: &Path) -> Result<String> {
    let first_line = |command: &mut Command| -> String {
        let output = command.output().map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").trim().to_owned()
    };
    let version = first_line(Command::new(rsync).arg("--version"));
    let ssh = first_line(Command::new("ssh").arg("-V"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let session = sshd.session_cost()?;
    let plain = Sshd::start(&dir.join("sshd-home"), false, accounting)?.session_cost()?;
    let counting = match accounting {
        Accounting::Groups(_) => "control groups",
        Accounting::Children { .. } => "reaped children (no control group could be made)",
    };
    let wire = if supervise::inner_has_network() {
        "a network namespace of its own"
    } else {
        "the loopback interface that all programs share: other traffic counts too"
    };
    Ok(format!(
        "{version} at {}; {ssh}\n{} x {}, kernel {}, load before {}\nprocessor time by {counting}; bytes from {wire}\n\
         an empty ssh session costs {:.3} s ({:.3} s with the start-up files of this user's shell, which are not run here)\n",
        rsync.display(),
        std::thread::available_parallelism()?,
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load.split_whitespace().next().unwrap_or("unknown"),
        session.as_secs_f64(),
        plain.as_secs_f64(),
    ))
}
