//! Single values: defaults, ranges, and the checks that several keys share.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::super::error::Fault;
use super::super::raw::{Scalar, Texts, Whole};
use super::super::suggest::nearest;
use super::super::values::{parse_bytes, parse_duration, parse_rate};
use crate::model::RelPath;

/// Longest name of a fleet or root.
const MAX_NAME_BYTES: usize = 64;

pub(super) fn or<T>(field: Option<Spanned<T>>, default: T) -> T {
    field.map_or(default, Spanned::into_inner)
}

/// A whole number in `range`.
pub(super) fn whole(field: Option<Spanned<Whole>>, default: u32, range: RangeInclusive<u32>) -> Result<u32, Fault> {
    let Some(field) = field else { return Ok(default) };
    match u32::try_from(field.get_ref().0) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(Fault::value(&field, format!("expected a number from {} to {}", range.start(), range.end()))),
    }
}

/// A number of which 0 means that there is no limit.
pub(super) fn limit(field: Option<Spanned<Whole>>) -> Result<Option<u64>, Fault> {
    let Some(field) = field else { return Ok(None) };
    match u64::try_from(field.get_ref().0) {
        Ok(limit) => Ok((limit > 0).then_some(limit)),
        Err(_) => Err(Fault::value(&field, "expected a number of entries, or 0 for no limit")),
    }
}

pub(super) fn port(field: Option<Spanned<Whole>>) -> Result<Option<u16>, Fault> {
    let Some(field) = field else { return Ok(None) };
    match u16::try_from(field.get_ref().0) {
        Ok(port @ 1..) => Ok(Some(port)),
        _ => Err(Fault::value(&field, "expected a port from 1 to 65535")),
    }
}

/// A duration, zero allowed.
pub(super) fn duration(field: Option<Spanned<Scalar>>, default: Duration) -> Result<Duration, Fault> {
    scalar(field, default, parse_duration)
}

/// A duration of at least one millisecond.
pub(super) fn some_time(field: Option<Spanned<Scalar>>, default: Duration) -> Result<Duration, Fault> {
    scalar(field, default, |text| match parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than 0".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    })
}

/// A size in bytes.
pub(super) fn bytes(field: Option<Spanned<Scalar>>, default: u64) -> Result<u64, Fault> {
    scalar(field, default, parse_bytes)
}

/// A rate in bytes per second, no limit by default.
pub(super) fn rate(field: Option<Spanned<Scalar>>) -> Result<Option<u64>, Fault> {
    scalar(field, None, parse_rate)
}

/// A value with a parser for its text; a bare number is read as its digits.
pub(super) fn scalar<T, E: ToString>(
    field: Option<Spanned<Scalar>>,
    default: T,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, Fault> {
    let Some(field) = field else { return Ok(default) };
    parse(&field.get_ref().to_string()).map_err(|error| Fault::value(&field, error.to_string()))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(field: &Spanned<String>, words: &[(&str, T)]) -> Result<T, Fault> {
    let typed = field.get_ref();
    if let Some((_, value)) = words.iter().find(|(word, _)| word == typed) {
        return Ok(*value);
    }
    Err(Fault::value(field, expected_one_of(typed, words.iter().map(|(word, _)| *word))))
}

pub(super) fn expected_one_of<'w>(typed: &str, words: impl Iterator<Item = &'w str> + Clone) -> String {
    let list: Vec<String> = words.clone().map(|word| format!("`{word}`")).collect();
    let hint = nearest(typed, words).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("expected one of {}{hint}", list.join(", "))
}

/// Name of a fleet or root: it becomes part of file names, object keys and log lines.
pub(super) fn name(field: &Spanned<String>) -> Result<String, Fault> {
    let name = field.get_ref();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= MAX_NAME_BYTES && name.bytes().all(good) {
        return Ok(name.clone());
    }
    Err(Fault::value(
        field,
        format!("expected a letter or digit, then letters, digits, `.`, `_` or `-`, at most {MAX_NAME_BYTES} in all"),
    ))
}

/// A place of a root: an absolute directory other than `/`, in its only spelling but for a slash at
/// its end.
pub(super) fn directory(field: &Spanned<String>) -> Result<PathBuf, Fault> {
    let text = printable(field)?;
    let Some(below) = text.strip_prefix('/') else {
        return Err(Fault::value(field, "expected an absolute path"));
    };
    let below = below.strip_suffix('/').unwrap_or(below);
    if below.is_empty() {
        return Err(Fault::value(field, "`/` cannot be a root; name a directory in it"));
    }
    RelPath::new(below.as_bytes()).map_err(|error| Fault::value(field, format!("not a usable path: {error}")))?;
    Ok(Path::new("/").join(below))
}

/// A file that is used on this host; an empty text means none.
pub(super) fn file(field: Option<Spanned<String>>) -> Result<Option<PathBuf>, Fault> {
    let Some(field) = field.filter(|field| !field.get_ref().is_empty()) else { return Ok(None) };
    let path = Path::new(printable(&field)?);
    if path.starts_with("~") {
        return Err(Fault::value(&field, "`~` is not expanded; write `${HOME}`"));
    }
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(Fault::value(&field, "expected an absolute path without `..`"));
    }
    Ok(Some(path.to_owned()))
}

/// A name below a directory.
pub(super) fn relative_name(field: &Spanned<String>) -> Result<String, Fault> {
    let text = printable(field)?;
    RelPath::new(text.as_bytes())
        .map_err(|error| Fault::value(field, format!("expected a name relative to the root: {error}")))?;
    Ok(text.to_owned())
}

/// A program and its arguments, run without a shell.
pub(super) fn argv(field: &Spanned<Texts>) -> Result<Vec<String>, Fault> {
    let words = field.get_ref();
    if words.first().is_none_or(|program| program.get_ref().is_empty()) {
        return Err(Fault::value(field, "expected a program and its arguments, such as `[\"docker\", \"exec\"]`"));
    }
    if let Some(word) = words.iter().find(|word| word.get_ref().contains('\0')) {
        return Err(Fault::value(word, "an argument cannot hold a NUL"));
    }
    Ok(words.iter().map(|word| word.get_ref().clone()).collect())
}

/// A text without control characters and not empty.
pub(super) fn printable(field: &Spanned<String>) -> Result<&str, Fault> {
    match field.get_ref().as_str() {
        "" => Err(Fault::value(field, "must not be empty")),
        text if text.chars().any(char::is_control) => Err(Fault::value(field, "must not hold control characters")),
        text => Ok(text),
    }
}

/// A URL with one of `schemes` and something after it; nothing more is known here.
pub(super) fn url(field: &Spanned<String>, schemes: &[&str]) -> Result<String, Fault> {
    let text = printable(field)?;
    let known = schemes.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    if known && !text.contains(char::is_whitespace) {
        return Ok(text.to_owned());
    }
    let list: Vec<String> = schemes.iter().map(|scheme| format!("`{scheme}`")).collect();
    Err(Fault::value(field, format!("expected a URL that begins with {}", list.join(", "))))
}
