//! `[[root]]`: each alone, then that they do not get in each other's way.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use toml::Spanned;

use super::super::error::{Fault, Span};
use super::super::options::RootConfig;
use super::super::raw::{RawRoot, Tables, Texts};
use super::super::values::parse_bytes;
use super::fields::{directory, name, or, printable, relative_name, scalar};
use crate::model::{Patterns, RelPath};

pub(super) fn roots(raw: Spanned<Tables<RawRoot>>) -> Result<Vec<RootConfig>, Fault> {
    if raw.get_ref().is_empty() {
        return Err(Fault::value(&raw, "name at least one directory tree"));
    }
    let mut roots: Vec<RootConfig> = Vec::new();
    let mut spans: Vec<Span> = Vec::new();
    for table in raw.into_inner() {
        let table_span = table.span();
        let raw = table.into_inner();
        let name_span = raw.name.as_ref().map_or(table_span.clone(), Spanned::span);
        let path_span = raw.path.as_ref().map_or(table_span.clone(), Spanned::span);
        let key_span = raw.key.as_ref().map_or(table_span.clone(), Spanned::span);
        let root = root(raw, table_span)?;
        if roots.iter().any(|other| other.name == root.name) {
            return Err(at(name_span, "another root has this name; names are unique"));
        }
        if let Some(other) = roots.iter().find(|other| other.key == root.key) {
            return Err(at(key_span, format!("root `{}` has the same place in the mirror", other.name)));
        }
        roots.push(root);
        spans.push(path_span);
    }
    let places: Vec<Place> =
        roots.iter().zip(spans).map(|(root, span)| Place { root, path: &root.path, span }).collect();
    check_nesting(&places)?;
    Ok(roots)
}

fn root(raw: RawRoot, table: Span) -> Result<RootConfig, Fault> {
    let root_name =
        raw.name.ok_or_else(|| Fault::missing(table.clone(), "name", "what the root is called on every host"))?;
    let root_name = name(&root_name)?;
    let path = raw.path.ok_or_else(|| Fault::missing(table, "path", "the directory to keep the same"))?;
    let delete = or(raw.delete, true);
    Ok(RootConfig {
        path: directory(&path)?,
        exclude: raw.exclude.map_or(Ok(Patterns::default()), patterns)?,
        one_filesystem: or(raw.one_filesystem, false),
        max_size: scalar(raw.max_size, None, |text| parse_bytes(text).map(Some))?,
        delete,
        xattrs: or(raw.xattrs, true),
        delete_excluded: match raw.delete_excluded {
            Some(flag) if *flag.get_ref() && !delete => {
                return Err(Fault::value(&flag, "nothing is deleted with `delete = false`"));
            }
            flag => or(flag, false),
        },
        max_delete: scalar(raw.max_delete, None, |text| text.parse().map(Some))?,
        require: raw.require.as_ref().map(relative_name).transpose()?,
        key: match raw.key {
            Some(key) => mirror_key(&key)?,
            None => format!("{root_name}/"),
        },
        name: root_name,
    })
}

/// Patterns in gitignore syntax, one in each text.
pub(super) fn patterns(raw: Spanned<Texts>) -> Result<Patterns, Fault> {
    let texts = raw.get_ref().iter().map(pattern).collect::<Result<Vec<_>, Fault>>()?;
    Patterns::new(texts).map_err(|(_, error)| Fault::value(&raw, error))
}

/// One pattern in gitignore syntax that compiles and is not a comment.
pub(super) fn pattern(field: &Spanned<String>) -> Result<&str, Fault> {
    let text = printable(field)?;
    if text.starts_with('#') {
        return Err(Fault::value(field, "a pattern that begins with `#` is a comment; write `\\\\#`"));
    }
    if text.trim().is_empty() {
        return Err(Fault::value(field, "must not be empty"));
    }
    match Patterns::new([text]) {
        Ok(_) => Ok(text),
        Err((_, error)) => Err(Fault::value(field, format!("not a pattern in gitignore syntax: {error}"))),
    }
}

/// Prefix of a root's objects: empty, or a relative name with one `/` at its end.
fn mirror_key(field: &Spanned<String>) -> Result<String, Fault> {
    let key = field.get_ref();
    if key.is_empty() {
        return Ok(String::new());
    }
    let key = printable(field)?;
    let key = key.strip_suffix('/').unwrap_or(key);
    RelPath::new(key.as_bytes())
        .map_err(|error| Fault::value(field, format!("expected a prefix such as `uploads/`: {error}")))?;
    Ok(format!("{key}/"))
}

/// A root where it lies on some host, and where the file says so.
pub(super) struct Place<'r> {
    pub root: &'r RootConfig,
    pub path: &'r Path,
    pub span: Span,
}

/// Refuses two roots at one place, and a root inside another that does not leave it out: the
/// outer one would sync, and delete, what belongs to the inner one.
pub(super) fn check_nesting(places: &[Place]) -> Result<(), Fault> {
    for (nth, inner) in places.iter().enumerate() {
        for (other, outer) in places.iter().enumerate() {
            let Ok(below) = inner.path.strip_prefix(outer.path) else { continue };
            if nth == other || excludes(outer.root, below) {
                continue;
            }
            if below.as_os_str().is_empty() {
                // The one that stands later in the file is the mistake.
                let (first, second) = if outer.span.start > inner.span.start { (inner, outer) } else { (outer, inner) };
                return Err(at(second.span.clone(), format!("root `{}` has the same path", first.root.name)));
            }
            let (inner_name, outer_name) = (&inner.root.name, &outer.root.name);
            let way_out = format!("add \"/{}/\" to the exclude of `{outer_name}`", below.display());
            let problem = format!("root `{inner_name}` lies inside root `{outer_name}`; {way_out}");
            return Err(at(inner.span.clone(), problem));
        }
    }
    Ok(())
}

/// Whether `root` leaves out the directory `below` it.
fn excludes(root: &RootConfig, below: &Path) -> bool {
    if below.as_os_str().is_empty() {
        return false;
    }
    // A path that cannot be synced cannot be in the way.
    RelPath::new(below.as_os_str().as_bytes()).map_or(true, |below| root.exclude.excludes(&below, true))
}

fn at(span: Span, problem: impl ToString) -> Fault {
    Fault::value(&Spanned::new(span, ()), problem)
}
