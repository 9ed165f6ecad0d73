//! This host's roots, as the guards of a push look at them.

use std::path::Path;

use indicatif::{HumanBytes, HumanCount};

use super::super::render::shown_path;
use super::{Finding, Status, fails};
use crate::config::{Config, RootConfig};
use crate::push::check_require;
use crate::tree::{Root, ScanOptions, Selection, SystemOwners, scan};

/// What a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// Looks at each root as the guards of a push do. The size is there where a push would not be refused.
pub(super) async fn look_at(config: &Config, selections: Vec<Selection>) -> (Vec<Option<Size>>, Vec<Finding>) {
    let (mut sizes, mut found) = (Vec::new(), Vec::new());
    for (root, selection) in config.roots.iter().zip(selections) {
        let root = root.clone();
        let name = root.name.clone();
        let looked = tokio::task::spawn_blocking(move || source(&root, &selection)).await;
        let (size, findings) = looked.unwrap_or_else(|error| {
            (None, vec![Finding::new("source", Status::Fail, format!("{name}: could not be looked at: {error}"))])
        });
        sizes.push(size);
        found.extend(findings);
    }
    (sizes, found)
}

fn source(config: &RootConfig, selection: &Selection) -> (Option<Size>, Vec<Finding>) {
    let name = &config.name;
    let root = match Root::open(&config.path) {
        Ok(root) => root,
        Err(error) => {
            let detail = format!("{name}: {error}; is the volume mounted?");
            return (None, vec![Finding::new("source", Status::Fail, detail)]);
        }
    };
    let mut found = Vec::new();
    if let Some(require) = &config.require {
        found.push(match check_require(&root, Path::new(require)) {
            Ok(()) => Finding::new("require", Status::Ok, format!("{name}: `{require}` is there")),
            Err(why) => {
                let detail = format!("{name}: `{require}` {why}, so the source is taken as not mounted");
                Finding::new("require", Status::Fail, detail)
            }
        });
    }
    let size = measure(config, &root, selection, &mut found);
    (size.filter(|_| !fails(&found)), found)
}

fn measure(config: &RootConfig, root: &Root, selection: &Selection, found: &mut Vec<Finding>) -> Option<Size> {
    let (name, path) = (&config.name, shown_path(&config.path));
    let mut size = Size::default();
    let options = ScanOptions { selection: Some(selection), ..ScanOptions::default() };
    let scanned = scan(root, &options, &SystemOwners::new(), &mut |dir| {
        let files = dir.nodes.iter().filter(|node| node.kind.link().is_none());
        size.bytes = size.bytes.saturating_add(files.map(|node| node.kind.size_bytes()).sum());
        Ok(())
    });
    let report = match scanned {
        Ok(report) => report,
        Err(error) => {
            let detail = format!("{name}: {path} cannot be scanned: {error}");
            found.push(Finding::new("source", Status::Fail, detail));
            return None;
        }
    };
    size.entries = report.entries;
    let (status, detail) = if let Some(first) = report.unreadable.first() {
        let parts = report.unreadable.len();
        (Status::Fail, format!("{name}: {parts} part(s) of {path} cannot be read, first {first}"))
    } else if size.entries == 0 {
        (Status::Fail, format!("{name}: {path} is empty, and an empty source is never pushed; is the volume mounted?"))
    } else if let Some(first) = report.problems.first() {
        let problems = report.problems.len();
        (Status::Warn, format!("{name}: {problems} entries of {path} cannot be sent, first {first}"))
    } else {
        let (entries, bytes) = (HumanCount(size.entries), HumanBytes(size.bytes));
        (Status::Ok, format!("{name}: {path} holds {entries} entries, {bytes}"))
    };
    found.push(Finding::new("source", status, detail));
    Some(size)
}
