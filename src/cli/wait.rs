//! `rfleet wait`: returns when hosts have what is here now. The agent knows; this asks it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::agent_client::AgentClient;
use super::push::usage;
use super::render::{shown, shown_path};
use super::{Exit, Global, complain, say, state_dir};
use crate::config::{Config, parse_duration};
use crate::control::{MAX_WAIT_PATHS, PathInRoot, WaitHosts, WaitPath, escape};
use crate::model::RelPath;

/// Arguments of `rfleet wait`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 they have it; 1 it cannot be told, as no agent runs; 2 usage; 3 not in time: the hosts \
                        that are late are named."
)]
pub(super) struct WaitArgs {
    /// What they are to have; without any, everything that changed so far
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How many hosts
    #[arg(long, value_name = "all|N", default_value = "all", value_parser = hosts)]
    hosts: WaitHosts,
    /// Wait for the mirror, too (this version keeps none)
    #[arg(long)]
    mirror: bool,
    /// The longest time to wait
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: String,
}

fn hosts(text: &str) -> Result<WaitHosts, String> {
    match text.parse() {
        _ if text == "all" => Ok(WaitHosts::All),
        Ok(number @ 1..) => Ok(WaitHosts::AtLeast(number)),
        _ => Err("expected `all` or a number from 1 on".to_owned()),
    }
}

pub(super) fn run(global: &Global, args: &WaitArgs) -> Exit {
    wait(global, args).unwrap_or_else(|exit| exit)
}

fn wait(global: &Global, args: &WaitArgs) -> Result<Exit, Exit> {
    let failed = |error: String| {
        complain(error);
        Exit::Failed
    };
    if args.mirror {
        return Err(usage("--mirror: this version keeps no mirror"));
    }
    let most = parse_duration(&args.timeout).map_err(|error| usage(format!("--timeout: {error}")))?;
    let config = global.load()?;
    if args.paths.len() > MAX_WAIT_PATHS {
        return Err(usage(format!("at most {MAX_WAIT_PATHS} paths; name a directory that holds them")));
    }
    let places = args.paths.iter().map(|path| place(&config, path));
    let paths = places.collect::<Result<Vec<_>, _>>().map_err(usage)?;
    let directory = state_dir::locate().map_err(failed)?;
    let Some(mut agent) = AgentClient::connect(&directory).map_err(failed)? else {
        return Err(failed("no agent runs here; only `rfleet agent` knows when a change is where".to_owned()));
    };
    match agent.wait(paths, args.hosts, most) {
        Ok(done) => {
            if !global.quiet {
                done.hosts.iter().for_each(|host| say::out(format_args!("{}\n", shown(host))));
            }
            Ok(Exit::Done)
        }
        Err(refusal) if refusal.late.is_empty() => Err(failed(shown(&refusal.error))),
        Err(refusal) => {
            let late: Vec<String> = refusal.late.iter().map(|host| shown(host)).collect();
            complain(format!("{}; late: {}", shown(&refusal.error), late.join(", ")));
            Ok(Exit::Partial)
        }
    }
}

/// The root that `path` lies in, and where. It need not exist: that it is deleted can be waited for as well.
///
/// # Errors
/// One line: it lies in no root, or cannot be found out.
fn place(config: &Config, path: &Path) -> Result<WaitPath, String> {
    let shown = shown_path(path);
    let whole = resolved(path).map_err(|error| format!("{shown}: {error}"))?;
    // A root may be named over a link, and is meant itself by that name.
    let roots = config.roots.iter().flat_map(|root| {
        let bases = [std::fs::canonicalize(&root.path), resolved(&root.path)];
        bases.into_iter().flatten().map(move |base| (root, base))
    });
    // Of roots in roots the innermost has it.
    let inside = roots.filter_map(|(root, base)| Some((root, whole.strip_prefix(&base).ok()?.to_owned())));
    let (root, below) = inside
        .min_by_key(|(_, below)| below.as_os_str().len())
        .ok_or_else(|| format!("{shown}: it lies in none of the roots"))?;
    let below = RelPath::new_or_root(below.as_os_str().as_bytes()).map_err(|error| format!("{shown}: {error}"))?;
    Ok(WaitPath::InRoot(PathInRoot { root: root.name.clone(), path: escape(below.as_bytes()) }))
}

/// `path` from `/` on, over the links of the directories that are there; its own name is that of an entry, which may be a
/// link itself.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut missing: Vec<OsString> = Vec::new();
    let mut known = path.as_path();
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        missing.push(name.to_owned());
        known = parent;
    }
    loop {
        match std::fs::canonicalize(known) {
            Ok(mut whole) => {
                whole.extend(missing.iter().rev());
                return Ok(whole);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match (known.parent(), known.components().next_back()) {
                    (Some(parent), Some(Component::Normal(name))) => {
                        missing.push(name.to_owned());
                        known = parent;
                    }
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;

    /// Two roots, one in the other, the outer one over a link.
    fn roots() -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir_all(real.join("media/x")).unwrap();
        symlink("real", dir.path().join("site")).unwrap();
        let site = dir.path().join("site");
        let text = format!(
            "version = 1\nfleet = \"cms\"\n[[root]]\nname = \"site\"\npath = {:?}\nexclude = [\"/media/\"]\n\
             [[root]]\nname = \"media\"\npath = {:?}\n",
            site.display().to_string(),
            site.join("media").display().to_string(),
        );
        let config = Config::parse(&text, Path::new("F"), |_| None).unwrap();
        (dir, config)
    }

    fn found(config: &Config, path: &Path) -> (String, String) {
        match place(config, path).unwrap() {
            WaitPath::InRoot(PathInRoot { root, path }) => (root, path),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_path_lies_in_the_innermost_root_whatever_way_it_is_named() {
        let (dir, config) = roots();
        fs::write(dir.path().join("real/a"), "").unwrap();
        symlink("a", dir.path().join("real/link")).unwrap();
        let at = |path: &str| found(&config, &dir.path().join(path));
        let is = |root: &str, path: &str| (root.to_owned(), path.to_owned());
        assert_eq!(at("site/a"), is("site", "a"));
        assert_eq!(at("real/a"), is("site", "a"));
        assert_eq!(at("real/link"), is("site", "link"), "the link itself");
        assert_eq!(at("site/deleted/long ago"), is("site", "deleted/long ago"), "gone here");
        assert_eq!(at("site/media/x/../y"), is("media", "y"));
        assert_eq!(at("site/"), is("site", ""));
        assert_eq!(at("real/media"), is("media", ""));
        let bytes = dir.path().join("site").join(OsString::from_vec(b"b\xff\\".to_vec()));
        assert_eq!(found(&config, &bytes), is("site", r"b\xff\\"));
    }

    #[test]
    fn what_lies_in_no_root_cannot_be_waited_for() {
        let (dir, config) = roots();
        for (path, said) in
            [("other", "none of the roots"), ("real/.rfleet/state", "reserved"), ("gone/../x", "No such")]
        {
            let error = place(&config, &dir.path().join(path)).unwrap_err();
            assert!(error.contains(said), "{path}: {error}");
        }
    }

    #[test]
    fn hosts_are_all_or_a_number() {
        assert_eq!((hosts("all"), hosts("3")), (Ok(WaitHosts::All), Ok(WaitHosts::AtLeast(3))));
        assert!(["0", "-1", "most", "", "99999999999"].iter().all(|text| hosts(text).is_err()));
    }
}
