//! The beginning of watching a root, and why it is not watched.

use std::sync::Arc;

use super::settings::RootSettings;
use crate::status::{WatchMode, WatchStatus};
use crate::tree::Watcher;

/// A watcher that watches nothing yet, and what there is to say of it.
pub(super) fn start_watching(settings: &RootSettings, events: bool) -> (Option<Arc<Watcher>>, WatchStatus) {
    let mut status = WatchStatus { mode: WatchMode::Scans, ..WatchStatus::default() };
    if !events {
        return (None, status);
    }
    if let Some(kind) = crate::tree::network_filesystem(&settings.path) {
        status.reason = Some(format!("{kind} does not tell what other hosts change in it: it is scanned"));
        return (None, status);
    }
    match Watcher::new() {
        Ok(watcher) => {
            status.mode = WatchMode::Events;
            (Some(Arc::new(watcher)), status)
        }
        Err(error) => {
            status.reason = Some(format!(
                "file events cannot be had: {error}; if it is for a limit, raise fs.inotify.max_user_instances"
            ));
            (None, status)
        }
    }
}
