//! `rfleet push`: one cycle.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::watch;

use super::adhoc::unconfigured;
use super::index::Indexes;
use super::own_run::OwnRun;
use super::progress::Bars;
use super::{Exit, Global, by_agent, complain, exclude, fleet, render, runtime, signals};
use crate::config::{self, Config, RootConfig};
use crate::model::Term;
use crate::plan::guard::DeleteLimit;
use crate::push::{Endpoint, Extent, GuardSettings, HostJob, HostState, Limiter, RootJob, RootReport, push_root};
use crate::transport::SshOptions;
use crate::tree::Selection;

/// Hosts that are worked on at a time, where nothing else is said.
pub(super) const DEFAULT_PARALLEL: usize = 16;

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
    /// Delete on the hosts what patterns leave out, too
    #[arg(long)]
    delete_excluded: bool,
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
    /// Reconcile every host even if its sequence is known, or if it could not be reached lately
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
    pub(super) checksum: bool,
    /// Sync extended attributes and ACLs too (with a configuration, each root says so itself)
    #[arg(short = 'X', long)]
    pub(super) xattrs: bool,
    /// Leave alone what matches, on both sides; gitignore syntax (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// Only this host
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<String>,
    /// An ssh_config file, passed to ssh
    #[arg(long, value_name = "FILE")]
    pub(super) ssh_config: Option<PathBuf>,
    /// What to run on the far side [default: rfleet receive]
    #[arg(long, value_name = "COMMAND")]
    pub(super) receiver: Option<String>,
    /// Silence after which a host is given up [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(super) timeout: Option<String>,
}

/// What a cycle is to do, however it was asked for.
pub(super) struct Request {
    pub(super) command: &'static str,
    pub(super) dry_run: bool,
    pub(super) itemize: bool,
    pub(super) delete: bool,
    pub(super) delete_excluded: bool,
    pub(super) max_delete: Option<DeleteLimit>,
    pub(super) confirmed: Vec<String>,
    pub(super) adopt: bool,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) full: bool,
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
    if args.delete_excluded && !args.paths.is_empty() && !args.delete {
        return usage("--delete-excluded deletes nothing without --delete");
    }
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr()) && !args.options.json;
    let request = Request {
        command: "push",
        dry_run: args.dry_run,
        itemize: args.itemize_changes,
        delete: args.delete,
        delete_excluded: args.delete_excluded,
        max_delete: args.max_delete,
        confirmed: args.confirm_deletes.clone(),
        adopt: args.adopt,
        bytes_per_second: rate,
        full: args.full,
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
    if paths.is_empty()
        && let Some(exit) = by_agent::push(global, options, &request)
    {
        return exit;
    }
    let prepared = match paths {
        [] if options.xattrs => {
            Err(usage("--xattrs goes with SRC DEST; with a configuration each root's `xattrs` decides"))
        }
        [] => configured(global, options, &request),
        [_] => Err(usage("a destination is missing: rfleet push SRC DEST [DEST ...]")),
        [source, destinations @ ..] => unconfigured(source, destinations, options, &request).map(Some),
    };
    let mut cycle = match prepared {
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
    // Until everything is said and remembered.
    let mut own_run = cycle.own_run.take();
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
        Ok(reports) => {
            if let Some(own_run) = &mut own_run {
                own_run.record(&reports);
            }
            report(global, options, &request, fleet.as_deref(), &reports, started.elapsed())
        }
    }
}

pub(super) fn report(
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
        super::say::out(format_args!(
            "{:#}\n",
            render::json(request.command, fleet, request.dry_run, exit as u8, seconds, reports)
        ));
        return exit;
    }
    if request.itemize {
        print_changes(reports);
    }
    if !global.quiet {
        super::say::out(format_args!(
            "{}",
            render::summary(request.command, reports, seconds, request.dry_run, global.verbose > 0)
        ));
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
        let failed = host.hooks.iter().filter(|hook| !hook.ok);
        failed.for_each(|hook| complain(format!("{name}: a hook failed: {}", render::hook(hook))));
    }
}

fn print_changes(reports: &[RootReport]) {
    for root in reports {
        for host in &root.hosts {
            for change in &host.changes {
                if root.hosts.len() > 1 {
                    super::say::out(format_args!("{}: {change}\n", host.name));
                } else {
                    super::say::out(format_args!("{change}\n"));
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
pub(super) struct Cycle {
    pub(super) fleet: Option<String>,
    pub(super) roots: Vec<Root>,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) limiter: Option<Arc<Limiter>>,
    pub(super) timeout: Duration,
    pub(super) parallel: usize,
    /// Where it is one by configuration that changes something.
    pub(super) own_run: Option<OwnRun>,
    /// What is kept of each root.
    pub(super) index: Option<Indexes>,
    /// It can be used to plan.
    pub(super) usable: bool,
    /// Endpoints that are not tried this time, with the reason.
    pub(super) held: HashMap<String, String>,
}

pub(super) struct Root {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) require: Option<PathBuf>,
    pub(super) selection: Selection,
    pub(super) delete: bool,
    /// Extended attributes are synced.
    pub(super) attributes: bool,
    pub(super) delete_excluded: bool,
    pub(super) max_delete: DeleteLimit,
    pub(super) local_destinations: Vec<PathBuf>,
    /// What to run for this root on each endpoint.
    pub(super) receivers: Vec<Vec<String>>,
}

impl Cycle {
    async fn run(self, request: &Request, options: &Options, bars: &Arc<Bars>) -> std::io::Result<Vec<RootReport>> {
        let stop = signals::stop_on_signal()?;
        let mut reports = Vec::new();
        for root in &self.roots {
            let hosts = self.endpoints.iter().zip(&root.receivers).map(|(endpoint, receiver)| HostJob {
                endpoint: Arc::clone(endpoint),
                receiver: receiver.clone(),
                held: self.held.get(&endpoint.name).cloned(),
                compare: false,
                line: None,
            });
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
            selection: root.selection.clone(),
            delete_excluded: root.delete_excluded,
            delete: root.delete,
            checksum: options.checksum,
            attributes: root.attributes,
            dry_run: request.dry_run,
            itemize: request.itemize,
            record: self.index.as_ref().filter(|_| self.usable).map(|index| index.of(root, request.full)),
            extent: Extent::Whole,
            kept: None,
            watcher: None,
            looked: None,
            ended: None,
            unsent: None,
            memory: self.index.as_ref().map(|index| index.file(&root.name)),
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
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Exit> {
        let parsed = self.timeout.as_deref().map(config::parse_duration).transpose();
        let timeout = parsed.map_err(|error| usage(format!("--timeout: {error}")))?;
        match timeout {
            Some(Duration::ZERO) => Err(usage("--timeout: it must be more than 0s")),
            timeout => Ok(timeout),
        }
    }

    pub(super) fn receiver(&self) -> Result<Option<Vec<String>>, Exit> {
        let Some(text) = &self.receiver else { return Ok(None) };
        match shlex::split(text) {
            Some(words) if !words.is_empty() => Ok(Some(words)),
            _ => Err(usage(format!("--receiver `{}`: this is no command", text.escape_debug()))),
        }
    }

    pub(super) fn check_ssh_config(&self) -> Result<(), Exit> {
        match &self.ssh_config {
            Some(file) if !file.is_file() => {
                Err(usage(format!("--ssh-config {}: there is no such file", file.display())))
            }
            _ => Ok(()),
        }
    }
}

/// A push by the configuration; `None` where this host is not the primary, or another run is going on.
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
    let (roots, timeout) = (roots.collect::<Result<_, _>>()?, options.timeout()?);
    // Last: who is told of another run has said nothing wrong.
    let own_run = match request.dry_run {
        true => None,
        false => match OwnRun::begin(&config, request.command, global.quiet)? {
            None => return Ok(None),
            some => some,
        },
    };
    // Whoever names a host, or wants all of them, is not told to wait.
    let at_once = request.full || options.host.is_some();
    let held = own_run.as_ref().map(|run| run.held(at_once)).unwrap_or_default();
    let bytes_per_second = request.bytes_per_second.or(config.push.bandwidth);
    // Contents that are compared, or patterns of one run, say nothing of what other runs left.
    let usable = !options.checksum && options.exclude.is_empty() && !request.delete_excluded;
    let index = own_run.as_ref().map(|run| run.indexes(config.push.verify_interval));
    Ok(Some(Cycle {
        fleet: Some(config.fleet.clone()),
        roots,
        endpoints: members.iter().map(|member| Arc::clone(&member.endpoint)).collect(),
        limiter: bytes_per_second.map(|rate| Arc::new(Limiter::new(rate))),
        timeout: timeout.unwrap_or(config.push.timeout),
        parallel: usize::try_from(config.push.parallel).unwrap_or(DEFAULT_PARALLEL),
        index,
        usable,
        own_run,
        held,
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
        selection: exclude::of_root(config, root, options)?,
        delete: root.delete,
        attributes: root.xattrs,
        delete_excluded: root.delete_excluded || (root.delete && request.delete_excluded),
        max_delete: request.max_delete.or(root.max_delete).unwrap_or(DeleteLimit::Default),
        local_destinations: Vec::new(),
        receivers: members.iter().map(|member| member.receiver_of(config, root)).collect(),
    })
}
