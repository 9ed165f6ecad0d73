//! Patterns in gitignore's syntax: [`Patterns`].
//!
//! Matching is the `ignore` crate's. Each line is first read as git reads it and written down again so that
//! the crate's globs cannot read it otherwise: braces are plain characters, a backslash escapes inside
//! brackets, stars that do not stand alone between slashes do not cross one. What git silently never
//! matches (an open bracket, a backslash at the end) is an error here: it was meant to match something.

use std::ffi::OsStr;
use std::fmt;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::Chars;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use thiserror::Error;

use super::RelPath;

/// Why a line is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// A `[` without its `]`.
    #[error("a `[` is not closed")]
    OpenBracket,
    /// The last character escapes nothing.
    #[error("it ends with a backslash that escapes nothing")]
    DanglingBackslash,
    /// A component that is empty, `.` or `..`.
    #[error("no path has a component that is empty, `.` or `..`")]
    Nowhere,
    /// A range from a later to an earlier character.
    #[error("the range `{0}-{1}` is empty")]
    EmptyRange(char, char),
    /// A class between `[:` and `:]` that does not exist.
    #[error("`[:{0}:]` is no class of characters")]
    UnknownClass(String),
    /// Bytes that are no text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// What the matcher says.
    #[error("{0}")]
    Glob(String),
}

/// What the last pattern that matches a path says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Left out.
    Excluded,
    /// Taken in again (`!`).
    Included,
}

/// A list of patterns, as of one file; the last one that matches counts.
#[derive(Clone)]
pub struct Patterns {
    lines: Vec<Box<str>>,
    matcher: Gitignore,
    places: Vec<Place>,
}

impl Default for Patterns {
    fn default() -> Self {
        Patterns { lines: Vec::new(), matcher: Gitignore::empty(), places: Vec::new() }
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.lines == other.lines
    }
}

impl Eq for Patterns {}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Patterns").field(&self.lines).finish()
    }
}

impl Patterns {
    /// Of single texts, each a pattern.
    ///
    /// # Errors
    /// The first text that is none, with its place in the list, from 0.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, (usize, PatternError)> {
        let mut list = List::default();
        let mut last = 0;
        for (at, text) in texts.into_iter().enumerate() {
            list.add(text).map_err(|error| (at, error))?;
            last = at;
        }
        list.build().map_err(|error| (last, error))
    }

    /// Of a file: a pattern in each line, but for empty lines and those that begin with `#`. Lines that are no
    /// patterns are left out and given back with their numbers, from 1.
    ///
    /// # Errors
    /// The patterns together are beyond what can be matched.
    pub fn parse(text: &[u8]) -> Result<(Self, Vec<(usize, PatternError)>), PatternError> {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let mut list = List::default();
        let mut faults = Vec::new();
        for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = str::from_utf8(line).map_err(|_| PatternError::NotUtf8);
            if let Err(error) = line.and_then(|line| list.add(line)) {
                faults.push((at + 1, error));
            }
        }
        Ok((list.build()?, faults))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The patterns as they were written, without comments.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = &str> {
        self.lines.iter().map(AsRef::as_ref)
    }

    /// What is said of `path` itself, relative to where the patterns hold; `None` if none matches. What is said
    /// of the directories above it is not asked.
    pub fn verdict(&self, path: &[u8], is_directory: bool) -> Option<Verdict> {
        match self.matcher.matched(Path::new(OsStr::from_bytes(path)), is_directory) {
            Match::None => None,
            Match::Ignore(_) => Some(Verdict::Excluded),
            Match::Whitelist(_) => Some(Verdict::Included),
        }
    }

    /// Whether `path` or a directory above it is left out, if these are all patterns that there are.
    pub fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
        !self.is_empty()
            && path
                .prefixes()
                .any(|(part, is_whole)| self.verdict(part, !is_whole || is_directory) == Some(Verdict::Excluded))
    }

    /// Whether `path` or a directory above it is left out, be it a directory or not.
    pub fn protects(&self, path: &RelPath) -> bool {
        self.excludes(path, true) || self.excludes(path, false)
    }

    /// Whether a pattern may tell apart what lies below the directory `dir` and what lies below another one: one
    /// that names more than a last component.
    pub fn know_place(&self, dir: &[u8]) -> bool {
        self.places.iter().any(|place| place.reaches_below(dir))
    }
}

/// Where a pattern with slashes matches.
#[derive(Clone, Debug)]
struct Place {
    /// Its components up to the first that is more than a name.
    names: Vec<Box<[u8]>>,
    /// These are all.
    whole: bool,
}

impl Place {
    fn reaches_below(&self, dir: &[u8]) -> bool {
        let mut dir = dir.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        for name in &self.names {
            match dir.next() {
                None => return true,
                Some(above) if above != &**name => return false,
                Some(_) => {}
            }
        }
        !self.whole
    }
}

/// A list under way.
struct List {
    builder: GitignoreBuilder,
    lines: Vec<Box<str>>,
    places: Vec<Place>,
}

impl Default for List {
    fn default() -> Self {
        List { builder: GitignoreBuilder::new(""), lines: Vec::new(), places: Vec::new() }
    }
}

impl List {
    fn add(&mut self, line: &str) -> Result<(), PatternError> {
        let Some(read) = read_line(line)? else { return Ok(()) };
        let added = self.builder.add_line(None, &read.glob);
        added.map_err(|error| PatternError::Glob(error.to_string()))?;
        self.lines.push(line.into());
        self.places.extend(read.place);
        Ok(())
    }

    fn build(self) -> Result<Patterns, PatternError> {
        let matcher = self.builder.build().map_err(|error| PatternError::Glob(error.to_string()))?;
        Ok(Patterns { lines: self.lines, matcher, places: self.places })
    }
}

/// A line as git reads it.
struct Line {
    /// In words that the matcher cannot misread.
    glob: String,
    /// `None` for one that goes by the last component alone.
    place: Option<Place>,
}

/// `None` for a line that can match nothing by intent: empty, a comment, a slash alone.
fn read_line(line: &str) -> Result<Option<Line>, PatternError> {
    if line.starts_with('#') {
        return Ok(None);
    }
    let line = without_trailing_spaces(line);
    let (negated, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
    let (line, only_directories) = line.strip_suffix('/').map_or((line, false), |rest| (rest, true));
    if line.is_empty() || line == "/" {
        return Ok(None);
    }
    let plain = with_plain_slashes(line);
    if line.starts_with("\\/")
        || plain.strip_prefix('/').unwrap_or(&plain).split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(PatternError::Nowhere);
    }
    let line = plain.as_str();
    let has_place = line.contains('/');
    let mut body = String::new();
    let mut place = Place { names: Vec::new(), whole: true };
    let mut free = has_place;
    let mut parts = line.strip_prefix('/').unwrap_or(line).split('/').peekable();
    let anchored = line.starts_with('/');
    let mut first = true;
    while let Some(part) = parts.next() {
        let stars = part.len() > 1 && part.bytes().all(|byte| byte == b'*');
        let name = if stars && has_place {
            body.push_str("**");
            None
        } else {
            component(part, &mut body)?
        };
        // `**/name` is `name`.
        free &= match first {
            true => stars && !anchored && parts.peek().is_some(),
            false => parts.peek().is_none() || stars,
        };
        match name {
            Some(name) if place.whole => place.names.push(name.into_bytes().into()),
            _ => place.whole = false,
        }
        if parts.peek().is_some() {
            body.push('/');
        }
        first = false;
    }
    let glob = [if negated { "!" } else { "" }, if has_place { "/" } else { "**/" }, &body].concat();
    let glob = if only_directories { glob + "/" } else { glob };
    Ok(Some(Line { glob, place: (has_place && !free).then_some(place) }))
}

/// An escaped slash is a slash.
fn with_plain_slashes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match (char, chars.clone().next()) {
            ('\\', Some('/')) => {}
            ('\\', Some(escaped)) => {
                chars.next();
                plain.extend([char, escaped]);
            }
            _ => plain.push(char),
        }
    }
    plain
}

/// Spaces at the end do not count unless they are escaped.
fn without_trailing_spaces(line: &str) -> &str {
    let trimmed = line.trim_end_matches(' ');
    let backslashes = trimmed.len() - trimmed.trim_end_matches('\\').len();
    let escaped = trimmed.len() < line.len() && backslashes % 2 == 1;
    if escaped { &line[..=trimmed.len()] } else { trimmed }
}

/// Writes one component to `glob`; the name that it is if it is nothing else.
fn component(part: &str, glob: &mut String) -> Result<Option<String>, PatternError> {
    let mut name = Some(String::new());
    let mut chars = part.chars().peekable();
    while let Some(char) = chars.next() {
        let literal = match char {
            '*' => {
                while chars.next_if_eq(&'*').is_some() {}
                glob.push('*');
                None
            }
            '?' => {
                glob.push('?');
                None
            }
            '[' => {
                class(&mut chars, glob)?;
                None
            }
            '\\' => Some(chars.next().ok_or(PatternError::DanglingBackslash)?),
            char => Some(char),
        };
        match literal {
            None => name = None,
            Some(literal) => {
                push_literal(literal, glob);
                if let Some(name) = &mut name {
                    name.push(literal);
                }
            }
        }
    }
    Ok(name)
}

/// A class of one has no other meaning anywhere, and nothing of it can be trimmed.
fn push_literal(char: char, glob: &mut String) {
    if char.is_ascii_whitespace() || "*?[]{}\\".contains(char) {
        glob.extend(['[', char, ']']);
    } else {
        glob.push(char);
    }
}

/// Reads what follows a `[` as git does and writes it as a class of the matcher's, which knows no escapes and
/// must not match a slash.
fn class(chars: &mut Peekable<Chars<'_>>, glob: &mut String) -> Result<(), PatternError> {
    let negated = chars.next_if(|&char| char == '!' || char == '^').is_some();
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut first = true;
    loop {
        match next(chars)? {
            ']' if !first => break,
            '[' if chars.peek() == Some(&':') => named_class(chars, &mut ranges)?,
            from => {
                let from = if from == '\\' { next(chars)? } else { from };
                let mut ahead = chars.clone();
                let to = match (ahead.next(), ahead.next()) {
                    (Some('-'), Some(end)) if end != ']' => {
                        chars.next();
                        chars.next();
                        if end == '\\' { next(chars)? } else { end }
                    }
                    _ => from,
                };
                if from > to {
                    return Err(PatternError::EmptyRange(from, to));
                }
                ranges.push((from, to));
            }
        }
        first = false;
    }
    write_class(negated, &ranges, glob);
    Ok(())
}

fn next(chars: &mut Peekable<Chars<'_>>) -> Result<char, PatternError> {
    chars.next().ok_or(PatternError::OpenBracket)
}

fn named_class(chars: &mut Peekable<Chars<'_>>, ranges: &mut Vec<(char, char)>) -> Result<(), PatternError> {
    chars.next();
    let mut name = String::new();
    loop {
        match next(chars)? {
            ':' if chars.next_if_eq(&']').is_some() => break,
            char => name.push(char),
        }
    }
    let members: &[(char, char)] = match name.as_str() {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\u{1}', '\u{1f}'), ('\u{7f}', '\u{7f}')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Err(PatternError::UnknownClass(name)),
    };
    ranges.extend(members);
    Ok(())
}

fn write_class(negated: bool, ranges: &[(char, char)], glob: &mut String) {
    let holds = |char: char| ranges.iter().any(|&(from, to)| from <= char && char <= to);
    // A bracket is plain at the beginning, a dash at the end; the marks of negation are anywhere else.
    glob.push_str(if negated { "[!" } else { "[" });
    if holds(']') {
        glob.push(']');
    }
    // What no name holds: the class is not empty and does not begin with a mark.
    glob.push(if negated { '/' } else { '\0' });
    let plain = ('\u{1}'..='\u{7f}').filter(|&char| !matches!(char, ']' | '-' | '/') && holds(char));
    glob.extend(plain);
    for &(from, to) in ranges.iter().filter(|(_, to)| !to.is_ascii()) {
        glob.extend([from.max('\u{80}'), '-', to]);
    }
    if holds('-') {
        glob.push('-');
    }
    glob.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_lies_below_a_directory_that_is_left_out_is_not_taken_in_again() {
        let patterns = Patterns::new(["cache/", "!cache/keep", "*.log", "!keep.log"]).unwrap();
        for (name, directory, expected) in [
            ("cache", true, true),
            ("cache", false, false),
            ("a/cache/keep", false, true),
            ("a.log", false, true),
            ("d/keep.log", false, false),
            ("d", true, false),
        ] {
            assert_eq!(patterns.excludes(&path(name), directory), expected, "{name}");
        }
        assert!(!Patterns::default().excludes(&path("x"), false));
        assert!(!Patterns::new(["# no pattern", "", "  ", "/", "!"]).unwrap().excludes(&path("x"), true));
    }

    #[rstest]
    #[case("a[b", PatternError::OpenBracket)]
    #[case("[[:alpha:]", PatternError::OpenBracket)]
    #[case("[[:nope:]]", PatternError::UnknownClass("nope".into()))]
    #[case("a\\", PatternError::DanglingBackslash)]
    #[case("[z-a]", PatternError::EmptyRange('z', 'a'))]
    #[case("./a", PatternError::Nowhere)]
    #[case("a/../b", PatternError::Nowhere)]
    #[case("a//b", PatternError::Nowhere)]
    #[case("//a", PatternError::Nowhere)]
    #[case("a//", PatternError::Nowhere)]
    #[case("\\/a", PatternError::Nowhere)]
    #[case("[a\\", PatternError::OpenBracket)]
    fn what_git_never_matches_is_an_error(#[case] line: &str, #[case] expected: PatternError) {
        assert_eq!(Patterns::new(["ok", line]).unwrap_err(), (1, expected.clone()));
        let text = format!("\u{feff}one\r\n{line}\n*.x");
        let (patterns, faults) = Patterns::parse(text.as_bytes()).unwrap();
        assert_eq!(faults, [(2, expected)]);
        assert_eq!(patterns.lines().collect::<Vec<_>>(), ["one", "*.x"]);
        assert!(patterns.excludes(&path("d/one"), false) && patterns.excludes(&path("b.x"), false));
    }

    #[test]
    fn bytes_that_are_no_text_are_a_fault_of_their_line() {
        let (patterns, faults) = Patterns::parse(b"a\n\xff\n\nb").unwrap();
        assert_eq!((patterns.lines().len(), faults), (2, vec![(2, PatternError::NotUtf8)]));
    }

    #[test]
    fn more_than_can_be_matched_is_an_error() {
        let text: String = (0..60_000).map(|at| format!("*a{at}*b*c?d*\n")).collect();
        assert!(matches!(Patterns::parse(text.as_bytes()), Err(PatternError::Glob(_))));
    }

    /// Whether a directory that holds excluded entries may be moved with them.
    #[rstest]
    #[case("cache/", &[])]
    #[case("*.tmp", &[])]
    #[case("**/cache", &[])]
    #[case("**/cache/", &[])]
    #[case("/a", &[])]
    #[case("/a/b", &["a"])]
    #[case("a/b/", &["a"])]
    #[case("/a/*", &["a", "a/b"])]
    #[case("/a/**", &["a", "a/b"])]
    #[case("a/**/c", &["a", "a/b"])]
    #[case("**/a/c", &["a", "a/b", "x"])]
    #[case("/*/c", &["a", "a/b", "x"])]
    #[case("\\a/b", &["a"])]
    fn places_that_a_pattern_knows(#[case] line: &str, #[case] expected: &[&str]) {
        let patterns = Patterns::new([line]).unwrap();
        let known = ["a", "a/b", "x"].into_iter().filter(|dir| patterns.know_place(dir.as_bytes()));
        assert_eq!(known.collect::<Vec<_>>(), expected);
    }
}
