//! A plan in rsync's letters: one line a change, `YXcstpoguax name`.

use super::{Differences, MoveStep, Plan};
use crate::model::{Kind, Listing, SpecialKind};

/// The lines of `plan`, in the order of the work; deletions and attributes of directories last.
pub fn itemize(plan: &Plan, source: &Listing) -> Vec<String> {
    let mut lines = Vec::new();
    let path = |entry: super::EntryRef| entry.path(source);
    for step in &plan.moves {
        match step {
            MoveStep::Make { .. } => {}
            MoveStep::Rename { from, to } => lines.push(format!("*moving     {from}/ -> {to}/")),
            MoveStep::Exchange { from, to } => lines.push(format!("*exchanging {from}/ <-> {to}")),
        }
    }
    for step in &plan.directories {
        lines.push(line('c', 'd', step.differences, &format!("{}/", path(step.entry))));
    }
    for reuse in &plan.reuses {
        let name = format!("{} => {}", path(reuse.step.entry), reuse.from);
        lines.push(line('h', 'f', reuse.step.differences, &name));
    }
    for file in plan.files.iter() {
        lines.push(line('<', 'f', file.step.differences, &path(file.step.entry).to_string()));
    }
    for link in &plan.links {
        lines.push(line('h', 'f', link.step.differences, &format!("{} => {}", path(link.step.entry), path(link.to))));
    }
    for step in &plan.symlinks {
        let (_, node) = step.entry.of(source);
        let Kind::Symlink { target } = &node.kind else { continue };
        lines.push(line('c', 'L', step.differences, &format!("{} -> {}", path(step.entry), target.escape_ascii())));
    }
    for step in &plan.specials {
        let (_, node) = step.entry.of(source);
        lines.push(line('c', letter(&node.kind), step.differences, &path(step.entry).to_string()));
    }
    for step in &plan.attributes {
        let (_, node) = step.entry.of(source);
        let letter = letter(&node.kind);
        lines.push(line('.', letter, step.differences, &path(step.entry).to_string()));
    }
    for removal in &plan.removals {
        let slash = if removal.is_directory() { "/" } else { "" };
        lines.push(format!("*deleting   {}{slash}", removal.path));
    }
    for step in plan.directory_attributes.iter().filter(|step| step.differences.any() && !step.differences.new) {
        let dir = &source.dirs[step.dir as usize].path;
        lines.push(line('.', 'd', step.differences, &format!("{dir}/")));
    }
    lines
}

fn letter(kind: &Kind) -> char {
    match kind {
        Kind::Directory => 'd',
        Kind::File { .. } => 'f',
        Kind::Symlink { .. } => 'L',
        Kind::Special(SpecialKind::Fifo | SpecialKind::Socket) => 'S',
        Kind::Special(_) => 'D',
    }
}

fn line(action: char, kind: char, differences: Differences, name: &str) -> String {
    let Differences { new, content, size, time, mode, owner, group, acl, attributes } = differences;
    if new {
        return format!("{action}{kind}+++++++++ {name}");
    }
    let letter = |set: bool, letter: char| if set { letter } else { '.' };
    format!(
        "{action}{kind}{}{}{}{}{}{}.{}{} {name}",
        letter(content, 'c'),
        letter(size, 's'),
        letter(time, 't'),
        letter(mode, 'p'),
        letter(owner, 'o'),
        letter(group, 'g'),
        letter(acl, 'a'),
        letter(attributes, 'x'),
    )
}
