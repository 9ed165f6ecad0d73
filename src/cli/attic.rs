//! `rfleet attic`: what a root's attic holds on this host, and back with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use serde_json::{Map, Value, json};

use super::receive::{now, roots_here};
use super::render::{insert_path, shown_path};
use super::{DEFAULT_CONFIG, Exit, Global, complain};
use crate::config::Config;
use crate::model::{RelPath, SESSION_TIME_BYTES};
use crate::receive::{RestoreError, Restored, Wanted, restore, restore_to};
use crate::tree::{KeptSession, KeptSessions, Root, RootError, StageError, Stat, Why};

/// Arguments of `rfleet attic`.
#[derive(Args)]
pub(super) struct AtticArgs {
    #[command(subcommand)]
    command: AtticCommand,
}

#[derive(Subcommand)]
enum AtticCommand {
    /// What is kept, the newest session first: when, why, what, how large, where it was
    List(ListArgs),
    /// Copy what is kept of PATH back to its place
    #[command(after_help = "The next push makes PATH what the primary has, unless it is brought back there, too: \
        copy it there with --to.\nExit codes: 0 done; 1 not kept, or the root is in use; 4 something is at PATH.")]
    Restore(RestoreArgs),
}

#[derive(Args)]
struct Place {
    /// The directory of a root, instead of those of the configuration
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// A root of the configuration (if there is more than one), and a path in it: only what was there or below
    #[arg(value_name = "[ROOT] PATH", num_args = 0..=2)]
    words: Vec<OsString>,
    /// One JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RestoreArgs {
    #[command(flatten)]
    place: Place,
    /// A root of the configuration (if there is more than one), and the path in it
    #[arg(value_name = "[ROOT] PATH", num_args = 1..=2, required = true)]
    words: Vec<OsString>,
    /// The session that it is taken from, as `list` names it, instead of the newest that has it
    #[arg(long, value_name = "SESSION")]
    from: Option<String>,
    /// Put the copy into this directory instead, under its own name
    #[arg(long, value_name = "DIR", conflicts_with = "force")]
    to: Option<PathBuf>,
    /// Replace what is at PATH, unless it is a directory; it goes to the attic in turn
    #[arg(long)]
    force: bool,
}

pub(super) fn run(global: &Global, args: &AtticArgs) -> Exit {
    let done = match &args.command {
        AtticCommand::List(args) => list(global, args),
        AtticCommand::Restore(args) => bring_back(global, args),
    };
    done.unwrap_or_else(|exit| exit)
}

/// Roots of this host by name: the given directory's has none.
fn roots(global: &Global, place: &Place) -> Result<BTreeMap<String, PathBuf>, Exit> {
    if let Some(directory) = &place.dir {
        return Ok([(String::new(), directory.clone())].into());
    }
    let path = global.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    let config = Config::load(&path).map_err(|error| {
        complain(&error);
        Exit::Usage
    })?;
    Ok(roots_here(&config))
}

/// The roots that are meant, and the path in them.
fn meant(
    mut roots: BTreeMap<String, PathBuf>,
    words: &[OsString],
    alone_is_root: bool,
) -> Result<(BTreeMap<String, PathBuf>, RelPath), Exit> {
    let wrong = |message: String| {
        complain(message);
        Exit::Usage
    };
    let known = || roots.keys().cloned().collect::<Vec<_>>().join(", ");
    let is_root = |word: &OsString| word.to_str().is_some_and(|name| roots.contains_key(name));
    let (root, path) = match words {
        [] => (None, None),
        [word] if alone_is_root && is_root(word) => (Some(word), None),
        [word] if roots.len() == 1 => (None, Some(word)),
        [_] => return Err(wrong(format!("there is more than one root, say which: {}", known()))),
        [root, path, ..] => (Some(root), Some(path)),
    };
    let path = path.map_or(Ok(RelPath::root()), |path| rel_path(path).map_err(wrong))?;
    if let Some(root) = root {
        if !is_root(root) {
            let name = shown_path(root.as_ref());
            return Err(wrong(format!("there is no root `{name}` here, only {}", known())));
        }
        roots.retain(|name, _| root.to_str() == Some(name));
    }
    Ok((roots, path))
}

fn rel_path(path: &OsString) -> Result<RelPath, String> {
    let bytes = path.as_bytes();
    let bytes = bytes.strip_prefix(b"./").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
    RelPath::new(bytes)
        .map_err(|error| format!("{}: a path below the root is needed: {error}", shown_path(path.as_ref())))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Exit {
    complain(format!("{}: {error}", shown_path(path)));
    Exit::Failed
}

fn list(global: &Global, args: &ListArgs) -> Result<Exit, Exit> {
    let (roots, below) = meant(roots(global, &args.place)?, &args.words, true)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let told = |error: io::Error| match error.kind() {
        // Whoever reads has seen enough.
        io::ErrorKind::BrokenPipe => Exit::Done,
        _ => failed(Path::new("standard output"), &error),
    };
    let named = roots.len() > 1;
    let mut first = true;
    if args.json {
        write!(out, "[").map_err(told)?;
    }
    for (name, path) in &roots {
        let root = match Root::open(path) {
            // Nothing was pushed here yet.
            Err(RootError::Missing(_)) if args.place.dir.is_none() => continue,
            opened => opened.map_err(|error| failed(path, &error))?,
        };
        let Some(attic) = KeptSessions::open(&root).map_err(|error| failed(path, &error))? else { continue };
        for session in attic.sessions().map_err(|error| failed(path, &error))? {
            let mut lost = None;
            let shown = attic.each(&session, &below, &mut |path, stat| {
                let line = if args.json {
                    let comma = if std::mem::take(&mut first) { "\n" } else { ",\n" };
                    format!("{comma}{}", json_line(name, &session, path, stat))
                } else {
                    line(name, named, &session, path, stat)
                };
                out.write_all(line.as_bytes()).map_err(|error| {
                    lost = Some(told(error));
                    io::ErrorKind::Interrupted.into()
                })
            });
            if let Some(exit) = lost {
                return Err(exit);
            }
            shown.map_err(|error| failed(path, &error))?;
        }
    }
    let end = if args.json { if first { "]\n" } else { "\n]\n" } } else { "" };
    out.write_all(end.as_bytes()).and_then(|()| out.flush()).map_err(told)?;
    Ok(Exit::Done)
}

fn line(root: &str, named: bool, session: &KeptSession, path: &RelPath, stat: &Stat) -> String {
    let size = if stat.is_file() { HumanBytes(stat.size_bytes).to_string() } else { "-".to_owned() };
    let root = if named { format!("{root}  ") } else { String::new() };
    format!("{root}{:<24}  {:<10}  {:<9}  {size:>10}  {path}\n", session.session, reason(session.why), kind(stat),)
}

fn json_line(root: &str, session: &KeptSession, path: &RelPath, stat: &Stat) -> String {
    let mut object = Map::new();
    if !root.is_empty() {
        object.insert("root".into(), json!(root));
    }
    object.insert("session".into(), json!(session.session));
    object.insert("time".into(), json!(time(&session.session)));
    object.insert("why".into(), json!(reason(session.why)));
    object.insert("kind".into(), json!(kind(stat)));
    object.insert("bytes".into(), json!(if stat.is_file() { stat.size_bytes } else { 0 }));
    insert_path(&mut object, path.as_bytes());
    Value::Object(object).to_string()
}

/// `20261121T134500Z-4711` as `2026-11-21T13:45:00Z`.
fn time(session: &str) -> String {
    let time = &session[..session.len().min(SESSION_TIME_BYTES)];
    let part = |range: std::ops::Range<usize>| time.get(range).unwrap_or_default();
    format!("{}-{}-{}T{}:{}:{}Z", part(0..4), part(4..6), part(6..8), part(9..11), part(11..13), part(13..15))
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Unexpected => "unexpected",
        Why::Deleted => "deleted",
        Why::Replaced => "replaced",
    }
}

fn kind(stat: &Stat) -> &'static str {
    match () {
        () if stat.is_file() => "file",
        () if stat.is_directory() => "directory",
        () if stat.is_symlink() => "symlink",
        () => "special",
    }
}

fn bring_back(global: &Global, args: &RestoreArgs) -> Result<Exit, Exit> {
    let (roots, path) = meant(roots(global, &args.place)?, &args.words, false)?;
    let Some((_, place)) = roots.into_iter().next() else { return Ok(Exit::Usage) };
    let root = Root::open(&place).map_err(|error| failed(&place, &error))?;
    // Modes are those of what is kept.
    rustix::process::umask(rustix::fs::Mode::empty());
    let wanted = Wanted { path: &path, from: args.from.as_deref() };
    let (restored, at) = match &args.to {
        None => (restore(&root, &wanted, args.force, now()), shown_path(&place.join(path.as_path()))),
        Some(directory) => {
            let dest = Root::open(directory).map_err(|error| failed(directory, &error))?;
            let at = directory.join(Path::new(std::ffi::OsStr::from_bytes(path.name())));
            (restore_to(&root, &wanted, &dest), shown_path(&at))
        }
    };
    let restored = restored.map_err(|error| refused(&place, &error))?;
    tell(global, &restored, &at, args.to.is_none());
    Ok(Exit::Done)
}

fn refused(place: &Path, error: &RestoreError) -> Exit {
    let hint = match error {
        RestoreError::Exists(_) => ": --to DIR puts the copy elsewhere, --force replaces what is there",
        RestoreError::Stage(StageError::Busy) => "; nothing was changed, try again when it is done",
        RestoreError::OnlyBelow(_) | RestoreError::NotKept(_) | RestoreError::NoSession(_) => {
            "; `rfleet attic list` shows what it has"
        }
        _ => "",
    };
    complain(format!("{}: {error}{hint}", shown_path(place)));
    match error {
        RestoreError::Exists(_) | RestoreError::IsDirectory(_) => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn tell(global: &Global, restored: &Restored, at: &str, in_place: bool) {
    if restored.short.owners > 0 {
        tracing::warn!("the owner of {} entries could not be set", restored.short.owners);
    }
    if let Some(attribute) = &restored.short.attribute {
        tracing::warn!("{attribute}");
    }
    if global.quiet {
        return;
    }
    let session = &restored.session;
    super::say::out(format_args!("{at}: {} in session {}, copied back\n", reason(session.why), session.session));
    if restored.replaced {
        super::say::out(format_args!("what was there is in the attic now\n"));
    }
    if in_place {
        super::say::out(format_args!(
            "the next push compares this root, and makes it what the primary has: bring it back there, too\n"
        ));
    }
}
