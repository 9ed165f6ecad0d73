//! What could not be handled, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RelPath;

/// Why one path could not be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProblemKind {
    /// It was gone when its turn came.
    Vanished,
    /// It changed while it was read, at every try.
    Changing,
    /// It could not be read.
    Unreadable,
    /// Its name or kind cannot be sent.
    Unsupported,
    /// The receiver's policy or its rights do not allow it.
    Denied,
    /// What was found there is not what the plan expected.
    Conflict,
    /// There is no room for it.
    NoSpace,
    /// The content that arrived is not the content that was announced.
    Corrupt,
    /// The operating system refused it for another reason.
    Failed,
}

/// One path that could not be handled, with its cause. A problem is data: the work goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path it is about.
    pub path: RelPath,
    /// The class of the cause.
    pub kind: ProblemKind,
    /// The cause in a few words; never content of a file.
    pub detail: String,
}

impl Problem {
    /// A problem of `path`.
    pub fn new(path: RelPath, kind: ProblemKind, detail: impl Into<String>) -> Self {
        Problem { path, kind, detail: detail.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.detail)
    }
}
