//! Why a configuration is refused: one line each, with the file, the line and the key.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;
use toml::Spanned;

/// Why a configuration file cannot be used. Every message is one line that says what is allowed.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be opened or read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file itself cannot be trusted or is not one.
    #[error("{}: refused: {problem}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        problem: String,
    },
    /// The text is not TOML.
    #[error("{}:{line}: not valid TOML: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser found.
        problem: String,
    },
    /// A key that no version of this format has.
    #[error("{}:{line}: unknown key `{key}` {table}; {hint}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key, as written.
        key: String,
        /// Where it stands: `in [[root]]`, `at the top level`.
        table: String,
        /// The nearest known key, or the table's keys.
        hint: String,
    },
    /// A key that must be there is not.
    #[error("{}:{line}: {place} is missing: {problem}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Line of the table that lacks it, from 1.
        line: usize,
        /// Table and key.
        place: String,
        /// What it is for.
        problem: String,
    },
    /// A value that is not allowed.
    #[error("{}:{line}: {place}: {problem}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Table and key, and the value where it is short.
        place: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

/// Where something stands in the text, in bytes.
pub(super) type Span = Range<usize>;

/// An error while its file and line are not yet known: only the place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub span: Span,
    pub kind: FaultKind,
}

/// What a [`Fault`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The value at the span; what is wrong with it.
    Value(String),
    /// The table at the span lacks this key; what it is for.
    Missing(&'static str, String),
    /// The key at the span; where it stands, what it may have meant.
    UnknownKey { key: String, table: String, hint: String },
}

impl Fault {
    /// `value` is not allowed because of `problem`.
    pub fn value<T>(value: &Spanned<T>, problem: impl ToString) -> Self {
        Fault { span: value.span(), kind: FaultKind::Value(problem.to_string()) }
    }

    /// The table at `table` lacks `key`.
    pub fn missing(table: Span, key: &'static str, problem: impl ToString) -> Self {
        Fault { span: table, kind: FaultKind::Missing(key, problem.to_string()) }
    }
}
