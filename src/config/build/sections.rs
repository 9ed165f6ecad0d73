//! The other sections, one function each.

use std::time::Duration;

use toml::Spanned;

use super::super::error::Fault;
use super::super::options::{
    CloudfrontConfig, CommitHook, Durability, FailoverConfig, HostKeys, Listen, MirrorConfig, OwnerPolicy, PushConfig,
    Quota, ReceiveConfig, RoleConfig, RoleSource, ServeConfig, SshConfig,
};
use super::super::raw::{
    RawCloudfront, RawCommitHook, RawFailover, RawMirror, RawPush, RawReceive, RawRole, RawServe, RawSsh, Tables,
};
use super::fields::{
    argv, bytes, choice, duration, expected_one_of, file, limit, or, printable, rate, some_time, url, whole,
};
use super::members::STORE_SCHEMES;
use super::roots::{pattern, patterns};
use crate::model::{Patterns, check_host, check_user};
use crate::receive::{HOOK_TIMEOUT, MAX_HOOKS, TIMEOUT};

/// What `longest_interval` is where `interval` is not given.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Most hosts at a time: each is a process and some descriptors.
const MAX_PARALLEL: u32 = 10_000;

/// Most requests to the store at a time.
const MAX_CONCURRENCY: u32 = 10_000;

const ROLE_SOURCES: &[(&str, RoleSource)] = &[
    ("static", RoleSource::Static),
    ("ec2-tag", RoleSource::Ec2Tag),
    ("bucket", RoleSource::Bucket),
    ("lease", RoleSource::Lease),
];

pub(super) fn role(section: Spanned<RawRole>) -> Result<RoleConfig, Fault> {
    let table = section.span();
    let raw = section.into_inner();
    let Some(source) = raw.source else {
        return Err(Fault::missing(table, "source", "`static`, `ec2-tag`, `bucket` or `lease`"));
    };
    let source = choice(&source, ROLE_SOURCES)?;
    if source == RoleSource::Static && raw.primary.is_none() {
        return Err(Fault::missing(
            table,
            "primary",
            "`source = \"static\"` needs the primary's host name or instance id",
        ));
    }
    let primary = raw.primary.as_ref().map(|primary| match check_host(primary.get_ref()) {
        Ok(primary) => Ok(primary.to_owned()),
        Err(error) => Err(Fault::value(primary, error)),
    });
    Ok(RoleConfig { source, primary: primary.transpose()? })
}

pub(super) fn push(raw: RawPush) -> Result<PushConfig, Fault> {
    let settle_max_field = raw.settle_max.clone().or_else(|| raw.settle.clone());
    let is_interval_given = raw.interval.is_some();
    let interval = some_time(raw.interval, Duration::from_secs(60))?;
    let verify_interval = some_time(raw.verify_interval, Duration::from_secs(3600))?;
    let longest_interval =
        if is_interval_given { interval } else { LONGEST_INTERVAL.min(verify_interval).max(interval) };
    let push = PushConfig {
        events: or(raw.events, true),
        interval,
        longest_interval,
        settle: duration(raw.settle, Duration::from_millis(50))?,
        settle_max: duration(raw.settle_max, Duration::from_secs(2))?,
        verify_interval,
        parallel: whole(raw.parallel, 16, 1..=MAX_PARALLEL)?,
        bandwidth: rate(raw.bandwidth)?,
        host_bandwidth: rate(raw.host_bandwidth)?,
        max_failures: whole(raw.max_failures, 0, 0..=u32::MAX)?,
        timeout: some_time(raw.timeout, Duration::from_secs(30))?,
    };
    match settle_max_field {
        Some(field) if push.settle_max < push.settle => {
            let (settle, max) = (push.settle.as_millis(), push.settle_max.as_millis());
            Err(Fault::value(&field, format!("settle_max ({max}ms) must not be shorter than settle ({settle}ms)")))
        }
        _ => Ok(push),
    }
}

pub(super) fn ssh(raw: RawSsh) -> Result<SshConfig, Fault> {
    let user = match &raw.user {
        Some(user) => Some(check_user(user.get_ref()).map_err(|error| Fault::value(user, error))?.to_owned()),
        None => None,
    };
    let persist = duration(raw.persist, Duration::from_secs(600))?;
    let known = [("strict", HostKeys::Strict), ("accept-new", HostKeys::AcceptNew)];
    Ok(SshConfig {
        user,
        identity_file: file(raw.identity_file)?,
        known_hosts: file(raw.known_hosts)?,
        host_keys: raw.host_keys.as_ref().map_or(Ok(HostKeys::Strict), |keys| choice(keys, &known))?,
        config: file(raw.config)?,
        receiver: match &raw.receiver {
            Some(receiver) => words(receiver)?,
            None => vec!["rfleet".to_owned(), "receive".to_owned()],
        },
        connect_timeout: some_time(raw.connect_timeout, Duration::from_secs(10))?,
        persist: (!persist.is_zero()).then_some(persist),
    })
}

/// A command line split into words as a shell would, with nothing expanded.
fn words(field: &Spanned<String>) -> Result<Vec<String>, Fault> {
    match shlex::split(printable(field)?) {
        Some(words) if words.first().is_some_and(|program| !program.is_empty()) => Ok(words),
        Some(_) => Err(Fault::value(field, "expected a program and its arguments")),
        None => Err(Fault::value(field, "a quote is not closed")),
    }
}

pub(super) fn receive(raw: RawReceive) -> Result<ReceiveConfig, Fault> {
    let durabilities = [("none", Durability::None), ("commit", Durability::Commit)];
    let attic = duration(raw.attic, Duration::from_secs(7 * 24 * 3600))?;
    let on_commit = raw.on_commit.map_or(Ok(Vec::new()), on_commit)?;
    Ok(ReceiveConfig {
        allow_delete: or(raw.allow_delete, true),
        owner: raw.owner.as_ref().map_or(Ok(OwnerPolicy::Preserve), owner)?,
        setuid: or(raw.setuid, false),
        devices: or(raw.devices, false),
        labels: or(raw.labels, false),
        durability: raw.durability.as_ref().map_or(Ok(Durability::Commit), |field| choice(field, &durabilities))?,
        attic: (!attic.is_zero()).then_some(attic),
        attic_max: bytes(raw.attic_max, 10 << 30)?,
        quota: Quota {
            bytes: Some(bytes(raw.quota, 0)?).filter(|&bytes| bytes > 0),
            entries: limit(raw.quota_entries)?,
        },
        sandbox: or(raw.sandbox, true),
        protect: raw.protect.map_or(Ok(Patterns::default()), patterns)?,
        timeout: some_time(raw.timeout, TIMEOUT)?,
        on_commit,
    })
}

fn owner(field: &Spanned<String>) -> Result<OwnerPolicy, Fault> {
    match field.get_ref().as_str() {
        "preserve" => Ok(OwnerPolicy::Preserve),
        "numeric" => Ok(OwnerPolicy::Numeric),
        "receiver" => Ok(OwnerPolicy::Receiver),
        text => match text.strip_prefix("fixed:").map(|fixed| fixed.split_once(':')) {
            Some(Some((user, group))) if is_account(user) && is_account(group) => {
                Ok(OwnerPolicy::Fixed { user: user.to_owned(), group: group.to_owned() })
            }
            Some(_) => Err(Fault::value(field, "expected `fixed:USER:GROUP`, names or numbers")),
            None => {
                let words = ["preserve", "numeric", "fixed:USER:GROUP", "receiver"];
                Err(Fault::value(field, expected_one_of(text, words.into_iter())))
            }
        },
    }
}

/// Whether `text` can be a user or a group in /etc/passwd and the like.
fn is_account(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == ':' || c.is_control() || c.is_whitespace())
}

fn on_commit(hooks: Spanned<Tables<RawCommitHook>>) -> Result<Vec<CommitHook>, Fault> {
    if hooks.get_ref().len() > MAX_HOOKS {
        return Err(Fault::value(&hooks, format!("at most {MAX_HOOKS} hooks")));
    }
    hooks.into_inner().into_iter().map(commit_hook).collect()
}

fn commit_hook(table: Spanned<RawCommitHook>) -> Result<CommitHook, Fault> {
    let span = table.span();
    let raw = table.into_inner();
    let matched = raw.r#match.ok_or_else(|| Fault::missing(span.clone(), "match", "which paths the hook is for"))?;
    let run = raw.run.ok_or_else(|| Fault::missing(span, "run", "the program to run"))?;
    let text = pattern(&matched)?;
    let patterns = Patterns::new([text]).map_err(|(_, error)| Fault::value(&matched, error))?;
    if patterns.is_empty() || text.starts_with('!') {
        return Err(Fault::value(&matched, "it matches nothing; `*` matches everything"));
    }
    Ok(CommitHook { patterns, run: argv(&run)?, timeout: some_time(raw.timeout, HOOK_TIMEOUT)? })
}

pub(super) fn mirror(section: Spanned<RawMirror>) -> Result<MirrorConfig, Fault> {
    let table = section.span();
    let raw = section.into_inner();
    let location = raw.url.ok_or_else(|| Fault::missing(table, "url", "the bucket and prefix"))?;
    let endpoint = raw.endpoint.filter(|endpoint| !endpoint.get_ref().is_empty());
    Ok(MirrorConfig {
        url: url(&location, STORE_SCHEMES)?,
        endpoint: endpoint.as_ref().map(|endpoint| url(endpoint, &["http://", "https://"])).transpose()?,
        pull: or(raw.pull, false),
        follow: or(raw.follow, false),
        concurrency: whole(raw.concurrency, 32, 1..=MAX_CONCURRENCY)?,
        cloudfront: raw.cloudfront.map(cloudfront).transpose()?,
    })
}

fn cloudfront(table: Spanned<RawCloudfront>) -> Result<CloudfrontConfig, Fault> {
    let span = table.span();
    let raw = table.into_inner();
    let distribution = raw.distribution.ok_or_else(|| Fault::missing(span, "distribution", "its id"))?;
    if !distribution.get_ref().bytes().all(|byte| byte.is_ascii_alphanumeric()) || distribution.get_ref().is_empty() {
        return Err(Fault::value(&distribution, "expected an id such as `E1ABC2DEF3`"));
    }
    let paths = raw.paths.map(Spanned::into_inner).unwrap_or_default();
    for path in &paths {
        if !printable(path)?.starts_with('/') {
            return Err(Fault::value(path, "expected a path that begins with `/`"));
        }
    }
    Ok(CloudfrontConfig {
        distribution: distribution.into_inner(),
        paths: paths.into_iter().map(Spanned::into_inner).collect(),
    })
}

pub(super) fn failover(raw: RawFailover) -> Result<FailoverConfig, Fault> {
    let on_promote = raw.on_promote.map(Spanned::into_inner).unwrap_or_default();
    Ok(FailoverConfig {
        lease: or(raw.lease, true),
        ttl: some_time(raw.ttl, Duration::from_secs(15))?,
        automatic: or(raw.automatic, false),
        on_promote: on_promote.iter().map(argv).collect::<Result<_, _>>()?,
    })
}

pub(super) fn serve(raw: RawServe) -> Result<ServeConfig, Fault> {
    let listen = match raw.listen {
        Some(field) if field.get_ref() == "off" => Listen::Off,
        Some(field) => match field.get_ref().parse() {
            Ok(listen) => Listen::At(listen),
            Err(_) => {
                return Err(Fault::value(&field, "expected an address and port such as `127.0.0.1:9460`, or `off`"));
            }
        },
        None => Listen::Default,
    };
    let names = raw.hosts.map(Spanned::into_inner).unwrap_or_default();
    let name = |field: Spanned<String>| match check_host(field.get_ref()) {
        Ok(name) => Ok(name.to_owned()),
        Err(error) => Err(Fault::value(&field, error)),
    };
    let ready_max_age = duration(raw.ready_max_age, Duration::ZERO)?;
    Ok(ServeConfig {
        listen,
        hosts: names.into_iter().map(name).collect::<Result<_, _>>()?,
        ready_max_age: (!ready_max_age.is_zero()).then_some(ready_max_age),
    })
}
