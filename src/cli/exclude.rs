//! What of a source is synced, from the configuration and the command line.

use super::Exit;
use super::push::{Options, usage};
use crate::config::{Config, RootConfig};
use crate::model::Patterns;
use crate::tree::Selection;

/// By the command line alone.
pub(super) fn unconfigured(options: &Options) -> Result<Selection, Exit> {
    Ok(Selection { first: first(options)?, ..Selection::default() })
}

/// By the configuration, with what the command line says on top.
pub(super) fn of_root(config: &Config, root: &RootConfig, options: &Options) -> Result<Selection, Exit> {
    Ok(Selection { first: first(options)?, ..configured(config, root) })
}

/// By the configuration.
pub(super) fn configured(config: &Config, root: &RootConfig) -> Selection {
    Selection {
        exclude: root.exclude.clone(),
        foreign: config.roots_inside(root),
        one_filesystem: root.one_filesystem,
        max_size_bytes: root.max_size,
        ..Selection::default()
    }
}

fn first(options: &Options) -> Result<Patterns, Exit> {
    let patterns = Patterns::new(options.exclude.iter().map(String::as_str));
    patterns.map_err(|(at, error)| usage(format!("--exclude `{}`: {error}", options.exclude[at].escape_debug())))
}
