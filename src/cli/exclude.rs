//! What is left alone, in gitignore's syntax.

use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::Exit;
use super::push::usage;
use crate::model::RelPath;
use crate::tree::Filter;

/// Patterns in gitignore's syntax.
struct Excludes(Gitignore);

impl Filter for Excludes {
    fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
        self.0.matched_path_or_any_parents(path.as_path(), is_directory).is_ignore()
    }
}

pub(super) fn excludes<'a>(patterns: impl Iterator<Item = &'a String>) -> Result<Option<Arc<dyn Filter + Send>>, Exit> {
    let mut builder = GitignoreBuilder::new("");
    let mut any = false;
    for pattern in patterns {
        any = true;
        let added = builder.add_line(None, pattern);
        added.map_err(|error| usage(format!("exclude `{}`: {error}", pattern.escape_debug())))?;
    }
    let built = builder.build().map_err(|error| usage(format!("exclude: {error}")))?;
    Ok(any.then(|| Arc::new(Excludes(built)) as Arc<dyn Filter + Send>))
}
