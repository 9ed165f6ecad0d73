//! Text to raw tables: TOML, `${ENV}`, known keys, types; and the way back from a place in the text
//! to the words that an error needs.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::error::{ConfigError, Fault, FaultKind, Span};
use super::expand::expand;
use super::raw::{Key, Keyed, RawFile};
use super::suggest::nearest;

/// A value longer than this is not repeated in an error.
const MAX_SHOWN_CHARS: usize = 60;

/// Reads an environment variable.
pub(super) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The text of a file and where each of its values stands.
pub(super) struct Document<'t> {
    path: &'t Path,
    text: &'t str,
    places: Vec<Place>,
}

/// A value of the file.
struct Place {
    span: Span,
    /// Table and key: `[push] parallel`.
    name: String,
    /// The value as an error shows it; `None` for tables and lists.
    shown: Option<String>,
}

impl<'t> Document<'t> {
    /// Parses `text`, which was read from `path`, expanding `${ENV}` in values by `env`.
    pub fn parse(path: &'t Path, text: &'t str, env: Env) -> Result<(Self, RawFile), ConfigError> {
        let mut document = Document { path, text, places: Vec::new() };
        let mut table = DeTable::parse(text).map_err(|error| document.syntax(&error))?;
        document.places.push(Place { span: table.span(), name: String::new(), shown: None });
        let walked = check_keys(table.get_ref(), RawFile::KEYS.unwrap_or_default(), "")
            .and_then(|()| document.walk(table.get_mut(), &Name::Top, env));
        walked.map_err(|fault| document.explain(fault))?;
        let raw = RawFile::deserialize(Deserializer::from(table)).map_err(|error| document.mistyped(&error))?;
        Ok((document, raw))
    }

    /// Turns a fault into the error that the operator reads.
    pub fn explain(&self, fault: Fault) -> ConfigError {
        let path = self.path.to_owned();
        let line = self.line(&fault.span);
        match fault.kind {
            FaultKind::UnknownKey { key, table, hint } => ConfigError::UnknownKey { path, line, key, table, hint },
            FaultKind::Missing(key, problem) => {
                let table = self.place(&fault.span).map(|place| place.name.as_str()).unwrap_or_default();
                let place = if table.is_empty() { format!("`{key}`") } else { format!("{table} `{key}`") };
                ConfigError::Missing { path, line, place, problem }
            }
            FaultKind::Value(problem) => {
                let place = match self.place(&fault.span) {
                    Some(Place { name, shown: Some(shown), .. }) => format!("{name} = {shown}"),
                    Some(Place { name, .. }) => name.clone(),
                    None => String::new(),
                };
                ConfigError::Value { path, line, place, problem }
            }
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Syntax {
            path: self.path.to_owned(),
            line: self.line(&error.span().unwrap_or(0..0)),
            problem: one_line(error.message()),
        }
    }

    /// A value of the wrong type. Of the deserializer's `invalid type: X, expected Y` only Y is
    /// news, as the value itself is shown before it; Y is said in the words of TOML.
    fn mistyped(&self, error: &toml::de::Error) -> ConfigError {
        let message = one_line(error.message());
        let problem = match message.split_once(", expected ") {
            Some((_, "a sequence")) => "expected a list".to_owned(),
            Some((_, "a map")) => "expected a table".to_owned(),
            Some((_, "a boolean")) => "expected `true` or `false`".to_owned(),
            Some((_, expected)) => format!("expected {expected}"),
            None => message,
        };
        self.explain(Fault { span: error.span().unwrap_or(0..0), kind: FaultKind::Value(problem) })
    }

    /// Line of a place in the text, from 1.
    fn line(&self, span: &Span) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    /// The innermost value around `span`.
    fn place(&self, span: &Span) -> Option<&Place> {
        self.places
            .iter()
            .filter(|place| place.span.start <= span.start && span.end <= place.span.end)
            .min_by_key(|place| place.span.len())
    }

    /// Expands and records everything in `table`.
    fn walk(&mut self, table: &mut DeTable, parent: &Name, env: Env) -> Result<(), Fault> {
        for (key, value) in table.iter_mut() {
            let key = one_line(key.get_ref());
            let name = parent.child(&key, value.get_ref());
            self.walk_value(value, &name, env)?;
        }
        Ok(())
    }

    fn walk_value(&mut self, value: &mut Spanned<DeValue>, name: &Name, env: Env) -> Result<(), Fault> {
        let span = value.span();
        let fault = match value.get_mut() {
            DeValue::String(text) => match expand(text, env) {
                Ok(expanded) => {
                    *text = expanded.into();
                    None
                }
                Err(error) => Some(Fault { span: span.clone(), kind: FaultKind::Value(error.to_string()) }),
            },
            _ => None,
        };
        self.places.push(Place { span, name: name.to_string(), shown: shown(value.get_ref()) });
        if let Some(fault) = fault {
            return Err(fault);
        }
        match value.get_mut() {
            DeValue::Array(items) => items.iter_mut().try_for_each(|item| self.walk_value(item, name, env)),
            DeValue::Table(table) => self.walk(table, name, env),
            _ => Ok(()),
        }
    }
}

/// How errors name a place: the table as its header is written, then the keys.
enum Name {
    Top,
    Key(String),
    Table(String),
    TableKey(String, String),
}

impl Name {
    fn child(&self, key: &str, value: &DeValue) -> Name {
        match (self, value) {
            (Name::Top, DeValue::Table(_)) => Name::Table(format!("[{key}]")),
            (Name::Top, DeValue::Array(items)) if items.iter().any(|item| item.get_ref().is_table()) => {
                Name::Table(format!("[[{key}]]"))
            }
            (Name::Top, _) => Name::Key(key.to_owned()),
            (Name::Key(table) | Name::Table(table), _) => Name::TableKey(table.clone(), key.to_owned()),
            (Name::TableKey(table, outer), _) => Name::TableKey(table.clone(), format!("{outer}.{key}")),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Top => Ok(()),
            Name::Key(name) | Name::Table(name) => f.write_str(name),
            Name::TableKey(table, key) => write!(f, "{table} {key}"),
        }
    }
}

/// Refuses keys of `table` that are not among `known`, here and in the tables below.
fn check_keys(table: &DeTable, known: &[Key], at: &str) -> Result<(), Fault> {
    for (key, value) in table {
        let Some(found) = known.iter().find(|known| known.name == key.get_ref()) else {
            let written = one_line(key.get_ref());
            let kind = FaultKind::UnknownKey { hint: hint(&written, known), table: place_of_key(at), key: written };
            return Err(Fault { span: key.span(), kind });
        };
        let Some(keys) = found.keys else { continue };
        match value.get_ref() {
            DeValue::Table(inner) => check_keys(inner, keys, &below(at, found.name, false))?,
            DeValue::Array(items) => {
                for inner in items.iter().filter_map(|item| item.get_ref().as_table()) {
                    check_keys(inner, keys, &below(at, found.name, true))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn below(at: &str, key: &str, repeated: bool) -> String {
    match (at, repeated) {
        ("", true) => format!("[[{key}]]"),
        ("", false) => format!("[{key}]"),
        _ => format!("{at} {key}"),
    }
}

fn place_of_key(at: &str) -> String {
    if at.is_empty() { "at the top level".to_owned() } else { format!("in {at}") }
}

/// What an unknown key may have meant: a similar key of the same table, the same key of another
/// table, or else what the table knows.
fn hint(written: &str, known: &[Key]) -> String {
    if let Some(near) = nearest(written, known.iter().map(|key| key.name)) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = RawFile::KEYS
        .unwrap_or_default()
        .iter()
        .find(|table| table.keys.is_some_and(|keys| keys.iter().any(|key| key.name == written)));
    if let Some(table) = elsewhere {
        return format!("`{written}` belongs in the table `{}`", table.name);
    }
    let names: Vec<&str> = known.iter().map(|key| key.name).collect();
    format!("known here: {}", names.join(", "))
}

/// The value as an error shows it, on one line and without control characters.
fn shown(value: &DeValue) -> Option<String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => return None,
    };
    (text.chars().count() <= MAX_SHOWN_CHARS).then(|| format!("`{}`", one_line(&text)))
}

/// `text` with control characters written out, so that it cannot forge a line of a log.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
