//! `rfleet push`: one cycle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::watch;

use super::destination::Destination;
use super::exclude::excludes;
use super::progress::Bars;
use super::{Exit, Global, complain, fleet, render, runtime, signals};
use crate::config::{self, Config, RootConfig};
use crate::model::Term;
use crate::plan::guard::DeleteLimit;
use crate::push::{Endpoint, GuardSettings, HostJob, HostState, Limiter, Reach, RootJob, RootReport, push_root};
use crate::transport::{HostKeys, SshOptions};
use crate::tree::Filter;

/// Silence after which a host is given up, where nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Bound on connecting, where nothing else is said.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Hosts that are worked on at a time, where nothing else is said.
const DEFAULT_PARALLEL: usize = 16;

/// Arguments of `rfleet push`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    rfleet push                                   every root, to every secondary, by the configuration\n  \
    rfleet push --delete /var/www/html web2:/var/www/html deploy@web3:/var/www/html\n  \
    rfleet push -n -i --delete site/ /mnt/copy    what would be done, line by line")]
pub(super) struct PushArgs {
    /// SRC and its DESTs: [user@]host:/path, ssh://[user@]host[:port]/path or a local path
    #[arg(value_name = "SRC DEST")]
    paths: Vec<String>,
    #[command(flatten)]
    options: Options,
    /// Change nothing anywhere; say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// One line for each change, in rsync's letters
    #[arg(short, long)]
    itemize_changes: bool,
    /// Delete what SRC does not have (with a configuration, each root says so itself)
    #[arg(long)]
    delete: bool,
    /// The most entries, or share of them, that may be deleted on a host [default: 25%, at least 100]
    #[arg(long, value_name = "N|N%")]
    max_delete: Option<DeleteLimit>,
    /// Do the deletions that a refusal named (repeatable)
    #[arg(long, value_name = "PLAN")]
    confirm_deletes: Vec<String>,
    /// Take over destinations that this fleet has not used before and that hold something else
    #[arg(long)]
    adopt: bool,
    /// Most bytes a second to all hosts together, as 10MiB; 0 is no limit
    #[arg(long, value_name = "RATE")]
    bwlimit: Option<String>,
    /// Reconcile every host even if its sequence is known
    #[arg(long)]
    full: bool,
    /// Show progress bars [default: on a terminal]
    #[arg(long, overrides_with = "no_progress")]
    progress: bool,
    /// Show no progress bars
    #[arg(long)]
    no_progress: bool,
}

/// What push and verify have in common.
#[derive(Args)]
pub(super) struct Options {
    /// One JSON document on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Compare contents, not sizes and times
    #[arg(long)]
    checksum: bool,
    /// Leave alone what matches, on both sides; gitignore syntax (repeatable)
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Only this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// An ssh_config file, passed to ssh
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// What to run on the far side [default: rfleet receive]
    #[arg(long, value_name = "COMMAND")]
    receiver: Option<String>,
    /// Silence after which a host is given up [default: 30s]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
}

/// What a cycle is to do, however it was asked for.
pub(super) struct Request {
    pub(super) command: &'static str,
    pub(super) dry_run: bool,
    pub(super) itemize: bool,
    pub(super) delete: bool,
    pub(super) max_delete: Option<DeleteLimit>,
    pub(super) confirmed: Vec<String>,
    pub(super) adopt: bool,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) show_progress: bool,
}

pub(super) fn run(global: &Global, args: &PushArgs) -> Exit {
    let rate = match args.bwlimit.as_deref().map(config::parse_rate).transpose() {
        Ok(rate) => rate.flatten(),
        Err(error) => return usage(format!("--bwlimit: {error}")),
    };
    if args.paths.is_empty() && args.delete {
        return usage("--delete goes with SRC DEST; with a configuration each root's `delete` decides");
    }
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr()) && !args.options.json;
    let request = Request {
        command: "push",
        dry_run: args.dry_run,
        itemize: args.itemize_changes,
        delete: args.delete,
        max_delete: args.max_delete,
        confirmed: args.confirm_deletes.clone(),
        adopt: args.adopt,
        bytes_per_second: rate,
        show_progress: !global.quiet && (args.progress || (terminal && !args.no_progress)),
    };
    cycle(global, &args.paths, &args.options, request)
}

pub(super) fn usage(message: impl std::fmt::Display) -> Exit {
    complain(message);
    Exit::Usage
}

/// Runs one cycle and reports it.
pub(super) fn cycle(global: &Global, paths: &[String], options: &Options, request: Request) -> Exit {
    let prepared = match paths {
        [] => configured(global, options, &request),
        [_] => Err(usage("a destination is missing: rfleet push SRC DEST [DEST ...]")),
        [source, destinations @ ..] => unconfigured(source, destinations, options, &request).map(Some),
    };
    let cycle = match prepared {
        Ok(Some(cycle)) => cycle,
        Ok(None) => return Exit::Done,
        Err(exit) => return exit,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let started = Instant::now();
    let fleet = cycle.fleet.clone();
    let bars = Arc::new(Bars::new(request.show_progress));
    let outcome = runtime.block_on(cycle.run(&request, options, &bars));
    bars.finish();
    // Encoders of hosts that were given up may still be at a file; nobody waits for them.
    runtime.shutdown_background();
    match outcome {
        Err(error) => {
            complain(format!("cannot start: {error}"));
            Exit::Failed
        }
        Ok(reports) => report(global, options, &request, fleet.as_deref(), &reports, started.elapsed()),
    }
}

fn report(
    global: &Global,
    options: &Options,
    request: &Request,
    fleet: Option<&str>,
    reports: &[RootReport],
    elapsed: Duration,
) -> Exit {
    let exit = exit_code(reports, request.command == "verify");
    let seconds = elapsed.as_secs_f64();
    reports.iter().filter_map(|root| root.refused.as_ref()).for_each(|refusal| complain(format!("refused: {refusal}")));
    if options.json || global.quiet {
        // The summary that says it to people is not printed.
        reports.iter().filter(|root| root.refused.is_none()).for_each(complain_about);
    }
    if options.json {
        println!("{:#}", render::json(request.command, fleet, request.dry_run, exit as u8, seconds, reports));
        return exit;
    }
    if request.itemize {
        print_changes(reports);
    }
    if !global.quiet {
        print!("{}", render::summary(request.command, reports, seconds, request.dry_run));
    }
    exit
}

/// Problems of one host, or of the source, that are told one by one.
const TOLD_PROBLEMS: usize = 20;

fn complain_about(root: &RootReport) {
    let problems = |whose: &str, problems: &[crate::model::Problem]| {
        problems.iter().take(TOLD_PROBLEMS).for_each(|problem| complain(format!("{whose}: {problem}")));
        if problems.len() > TOLD_PROBLEMS {
            complain(format!("{whose}: and {} more problems", problems.len() - TOLD_PROBLEMS));
        }
    };
    problems(&render::shown_path(&root.path), &root.problems);
    for host in &root.hosts {
        let name = render::shown(&host.name);
        if let Some(error) = &host.error {
            complain(format!("{name}: {error}"));
        }
        let own: Vec<_> = host.problems.iter().filter(|problem| !root.problems.contains(problem)).cloned().collect();
        problems(&name, &own);
    }
}

fn print_changes(reports: &[RootReport]) {
    for root in reports {
        for host in &root.hosts {
            for change in &host.changes {
                if root.hosts.len() > 1 {
                    println!("{}: {change}", host.name);
                } else {
                    println!("{change}");
                }
            }
        }
    }
}

/// `different_is_partial`: what would be done counts as a difference.
fn exit_code(reports: &[RootReport], different_is_partial: bool) -> Exit {
    let hosts = || reports.iter().flat_map(|root| &root.hosts);
    let problem = |root: &RootReport| {
        !root.problems.is_empty()
            || root.hosts.iter().any(|host| matches!(host.state, HostState::Failed | HostState::Partial))
    };
    let refused = reports.iter().any(|root| root.refused.is_some());
    let touched = hosts().any(|host| matches!(host.state, HostState::Done | HostState::Partial));
    // A host that came late is refused alone, while the others went on.
    let different = different_is_partial && hosts().any(|host| host.state == HostState::Planned);
    let refused_alone = hosts().any(|host| host.state == HostState::Refused);
    if hosts().any(|host| host.fenced) {
        Exit::Fenced
    } else if refused && !touched {
        Exit::Refused
    } else if refused || refused_alone || different || reports.iter().any(problem) {
        Exit::Partial
    } else {
        Exit::Done
    }
}

/// Everything that is to be pushed, in order.
struct Cycle {
    fleet: Option<String>,
    roots: Vec<Root>,
    endpoints: Vec<Arc<Endpoint>>,
    limiter: Option<Arc<Limiter>>,
    timeout: Duration,
    parallel: usize,
}

struct Root {
    name: String,
    path: PathBuf,
    require: Option<PathBuf>,
    filter: Option<Arc<dyn Filter + Send>>,
    delete: bool,
    max_delete: DeleteLimit,
    local_destinations: Vec<PathBuf>,
    /// What to run for this root on each endpoint.
    receivers: Vec<Vec<String>>,
}

impl Cycle {
    async fn run(self, request: &Request, options: &Options, bars: &Arc<Bars>) -> std::io::Result<Vec<RootReport>> {
        let stop = signals::stop_on_signal()?;
        let mut reports = Vec::new();
        for root in &self.roots {
            let hosts = self
                .endpoints
                .iter()
                .zip(&root.receivers)
                .map(|(endpoint, receiver)| HostJob { endpoint: Arc::clone(endpoint), receiver: receiver.clone() });
            let job = self.job(root, request, options, Arc::clone(bars), stop.clone());
            reports.push(push_root(job, hosts.collect()).await);
        }
        for endpoint in &self.endpoints {
            endpoint.close().await;
        }
        Ok(reports)
    }

    fn job(
        &self,
        root: &Root,
        request: &Request,
        options: &Options,
        bars: Arc<Bars>,
        stop: watch::Receiver<bool>,
    ) -> RootJob {
        RootJob {
            fleet: self.fleet.clone(),
            name: root.name.clone(),
            path: root.path.clone(),
            require: root.require.clone(),
            local_destinations: root.local_destinations.clone(),
            filter: root.filter.clone(),
            delete: root.delete,
            checksum: options.checksum,
            dry_run: request.dry_run,
            itemize: request.itemize,
            guard: GuardSettings {
                max_delete: root.max_delete,
                confirmed: request.confirmed.clone(),
                adopt: request.adopt,
            },
            term: Term(0),
            primary: fleet::own_name(),
            timeout: self.timeout,
            parallel: self.parallel,
            limiter: self.limiter.clone(),
            monitor: bars,
            stop,
        }
    }
}

impl Options {
    fn timeout(&self) -> Result<Option<Duration>, Exit> {
        let parsed = self.timeout.as_deref().map(config::parse_duration).transpose();
        let timeout = parsed.map_err(|error| usage(format!("--timeout: {error}")))?;
        match timeout {
            Some(Duration::ZERO) => Err(usage("--timeout: it must be more than 0s")),
            timeout => Ok(timeout),
        }
    }

    fn receiver(&self) -> Result<Option<Vec<String>>, Exit> {
        let Some(text) = &self.receiver else { return Ok(None) };
        match shlex::split(text) {
            Some(words) if !words.is_empty() => Ok(Some(words)),
            _ => Err(usage(format!("--receiver `{}`: this is no command", text.escape_debug()))),
        }
    }

    fn check_ssh_config(&self) -> Result<(), Exit> {
        match &self.ssh_config {
            Some(file) if !file.is_file() => {
                Err(usage(format!("--ssh-config {}: there is no such file", file.display())))
            }
            _ => Ok(()),
        }
    }
}

/// A push by the configuration; `None` where this host is not the primary.
fn configured(global: &Global, options: &Options, request: &Request) -> Result<Option<Cycle>, Exit> {
    let config = global.load()?;
    let own = fleet::own_name();
    if !fleet::is_primary(&config, &own) {
        tracing::debug!("{own} is not the primary; nothing to do");
        return Ok(None);
    }
    options.check_ssh_config()?;
    let keep = fleet::ssh_keep(&config);
    let ssh = SshOptions { keep, ..fleet::ssh_options(&config, options.ssh_config.as_ref()) };
    let mut members = fleet::members(&config, &ssh, options.receiver()?.as_deref(), &own);
    if let Some(only) = &options.host {
        members.retain(|member| member.host.name == *only);
        if members.is_empty() {
            return Err(usage(format!("--host {}: no secondary has this name", only.escape_debug())));
        }
    }
    let roots = config.roots.iter().map(|root| configured_root(&config, root, &members, options, request));
    let bytes_per_second = request.bytes_per_second.or(config.push.bandwidth);
    Ok(Some(Cycle {
        fleet: Some(config.fleet.clone()),
        roots: roots.collect::<Result<_, _>>()?,
        endpoints: members.iter().map(|member| Arc::clone(&member.endpoint)).collect(),
        limiter: bytes_per_second.map(|rate| Arc::new(Limiter::new(rate))),
        timeout: options.timeout()?.unwrap_or(config.push.timeout),
        parallel: usize::try_from(config.push.parallel).unwrap_or(DEFAULT_PARALLEL),
    }))
}

fn configured_root(
    config: &Config,
    root: &RootConfig,
    members: &[fleet::Member],
    options: &Options,
    request: &Request,
) -> Result<Root, Exit> {
    Ok(Root {
        name: root.name.clone(),
        path: root.path.clone(),
        require: root.require.as_ref().map(PathBuf::from),
        filter: excludes(root.exclude.iter().chain(&options.exclude))?,
        delete: root.delete,
        max_delete: request.max_delete.or(root.max_delete).unwrap_or(DeleteLimit::Default),
        local_destinations: Vec::new(),
        receivers: members.iter().map(|member| member.receiver_of(config, root)).collect(),
    })
}

/// A push of SRC to each DEST.
fn unconfigured(source: &str, destinations: &[String], options: &Options, request: &Request) -> Result<Cycle, Exit> {
    options.check_ssh_config()?;
    let timeout = options.timeout()?;
    let ssh = SshOptions {
        config: options.ssh_config.clone(),
        identity_file: None,
        known_hosts: None,
        host_keys: HostKeys::Strict,
        connect_timeout: timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT).min(DEFAULT_CONNECT_TIMEOUT),
        keep: None,
    };
    let remote = options.receiver()?.unwrap_or_else(|| vec!["rfleet".into(), "receive".into()]);
    let local = own_receiver()?;
    let mut root = Root {
        name: String::new(),
        path: source.into(),
        require: None,
        filter: excludes(options.exclude.iter())?,
        delete: request.delete,
        max_delete: request.max_delete.unwrap_or(DeleteLimit::Default),
        local_destinations: Vec::new(),
        receivers: Vec::new(),
    };
    let mut endpoints = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for text in destinations {
        let destination = Destination::parse(text).map_err(usage)?;
        if !seen.insert(text) {
            return Err(usage(format!("destination `{}` is given twice", text.escape_debug())));
        }
        let is_named = |only: &String| match &destination {
            Destination::Ssh(target, _) => only == text || *only == target.host,
            Destination::Local(_) => only == text,
        };
        if !options.host.as_ref().is_none_or(is_named) {
            continue;
        }
        let (reach, receiver, directory) = match destination {
            Destination::Local(path) => {
                root.local_destinations.push(path.clone());
                (Reach::Local, &local, path.display().to_string())
            }
            Destination::Ssh(target, path) => (Reach::Ssh(target, ssh.clone()), &remote, path),
        };
        endpoints.push(Arc::new(Endpoint::new(text.clone(), reach)));
        root.receivers.push(receiver.iter().cloned().chain(["--to".into(), directory]).collect());
    }
    if endpoints.is_empty() {
        let only = options.host.as_deref().unwrap_or_default().escape_debug().to_string();
        return Err(usage(format!("--host {only}: no destination has this name")));
    }
    Ok(Cycle {
        fleet: None,
        roots: vec![root],
        endpoints,
        limiter: request.bytes_per_second.map(|rate| Arc::new(Limiter::new(rate))),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        parallel: DEFAULT_PARALLEL,
    })
}

/// This very program as a receiver.
fn own_receiver() -> Result<Vec<String>, Exit> {
    let program = std::env::current_exe().ok().filter(|path| Path::exists(path));
    match program.as_deref().and_then(Path::to_str) {
        Some(program) => Ok(vec![program.to_owned(), "receive".into()]),
        None => {
            complain("cannot find this program's own file to start a receiver");
            Err(Exit::Failed)
        }
    }
}
